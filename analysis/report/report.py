"""The report on the theorem's assumptions: findings in words, tables, JSON, and one page.

Theorem 1 of Raj, Li, Bresler (ICCV 2019) assumes β/α < 2, η = 1/β, a δ-approximate projector, and
x* and x_0 in S = range(G). Every assumption has its finding, with the numbers behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.report.evidence import Evidence
from analysis.report.figures import rule_of
from analysis.report.findings import Finding, findings
from analysis.report.page import notebook, page
from analysis.report.predictions import run_summary
from analysis.report.screen import Screen, screen
from analysis.report.symbols import new_symbols
from analysis.report.tables import leading, tables
from analysis.words import wrapped
from npgd.files import plain, write_atomically
from npgd.images import Images
from npgd.showing import Shown


@dataclass(frozen=True, eq=False)
class Report(Evidence, Shown):
    """What `verify` found. `print` shows one screen of it; `write` makes the page."""

    command: Mapping[str, str | None] | None = None
    """The options with which `npgd recover` recovers the same; None where no command was given."""

    @property
    def screen(self) -> Screen:
        """What comes first: the answers to five questions."""
        return screen(self, self.command)

    @property
    def findings(self) -> list[Finding]:
        """Every assumption and outcome, in the order of the theorem; a failed precondition first.

        Where A is not linear, or Aᵀ not its transpose, what rests on that is not said.
        """
        return findings(self)

    @property
    def summary(self) -> str:
        """The screen, what predicts this run and what limits it, and the findings, in words."""
        return "\n".join([str(self.screen), "", *leading(self), "", self.numbered])

    @property
    def numbered(self) -> str:
        """The findings, a fact a line, each with the symbols that it is the first to use."""
        lines, known = list[str](), set[str]()
        for i, finding in enumerate(self.findings, 1):
            title = f"{i}. {finding.subject}: {finding.verdict}."
            lines.append(title)
            for said in finding.sentences:
                lines += wrapped(said, "   ", "     ")
            symbols = new_symbols(f"{title} {finding.text}", known)
            if symbols:
                listed = "; ".join(f"{name}: {words}" for name, words in symbols.items())
                lines += wrapped(f"[{listed}]", "   ", "    ")
        return "\n".join(lines)

    @property
    def status(self) -> str:
        """The first finding and what happened, in two sentences."""
        return f"{self.findings[0].text} The objective {self.uniform.observed.status}."

    def __str__(self) -> str:
        return str(self.screen)

    def table(self) -> Any:
        """The numbers as a `rich` table group, to be printed on a console."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table

        shown = []
        for title, head, rows, words in tables(self):
            table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
            for i, name in enumerate(head):
                table.add_column(name, justify="left" if i < words else "right")
            for row in rows:
                table.add_row(*row)
            shown.append(table)
        return Group(*shown)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as plain numbers, lists and strings for JSON."""
        run = self.pointwise.to_dict()
        # The run is the same in both checks; it is listed once.
        shared = ("decomposition", "observed", "objective", "step_factor")
        content = {
            "screen": self.screen.to_dict(),
            **self.predictions.to_dict(),
            "runs": [
                run_summary(name, solution)
                for name, solution in self.predictions.runs(self.solution, rule_of(self))
            ],
            "findings": [
                {"subject": f.subject, "verdict": f.verdict, "text": f.text} for f in self.findings
            ],
            "settings": self.settings,
            "operator": self.operator,
            "restricted_eigenvalues": self.rec.to_dict(),
            "projection": self.projection.to_dict(),
            "uniform": self.uniform.to_dict(),
            "pointwise": {key: value for key, value in run.items() if key not in shared},
            "solution": self.solution.to_dict(),
            "distance_to_range": self.distance,
            "distance_is_exact": self.nearest,
            "seconds": self.seconds,
        }
        return {key: plain(value) for key, value in content.items()}

    def _repr_html_(self) -> str:
        """The page's first screen."""
        return notebook(self, self.screen)

    def to_html(
        self,
        made: Mapping[str, Any] | None = None,
        baselines: Mapping[str, Images] | None = None,
    ) -> str:
        """One self-contained page: findings, tables and figures, nothing loaded from elsewhere.

        Args:
            made: what made it: "command_line", "npgd" (the version) and "date", each if there.
            baselines: other methods' recoveries of the images, by name, shown beside.

        Raises:
            TypeError, ValueError: an argument does not fit, by name.
        """
        return page(self, self.screen, made, baselines)

    def write(
        self,
        directory: str | Path,
        force: bool = False,
        made: Mapping[str, Any] | None = None,
        baselines: Mapping[str, Images] | None = None,
    ) -> Path:
        """Write report.html, report.json and summary.txt; return the page's path.

        Each file appears whole or not at all.

        Args:
            directory: where to.
            force: write over files that are there.
            made, baselines: as for `to_html`; `made` leads report.json as well.

        Raises:
            FileExistsError: if one of them is there already, and `force` is false.
            TypeError, ValueError: an argument does not fit, by name.
        """
        directory = Path(directory)
        page_made = self.to_html(made, baselines)
        numbers = self.to_dict() if made is None else {"made": plain(dict(made)), **self.to_dict()}
        contents = {
            "report.html": page_made,
            "report.json": json.dumps(numbers, indent=1, allow_nan=False) + "\n",
            "summary.txt": self.summary + "\n",
        }
        present = [name for name in contents if (directory / name).exists()]
        if present and not force:
            raise FileExistsError(
                f"directory must not hold a report, got {directory} with {', '.join(present)}; "
                "choose another or pass force=True"
            )
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(directory / name, content.encode())
        return directory / "report.html"
