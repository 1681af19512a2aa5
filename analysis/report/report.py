"""Everything the convergence theorem talks about, measured and held against a run.

`verify` measures the restricted eigenvalue constants, the projector's error and a run of NPGD, and
returns a `Report`: findings in words, a table, JSON, and one page with figures.

Theorem 1 of Raj, Li, Bresler (ICCV 2019) assumes β/α < 2, η = 1/β, a δ-approximate projector, and
x* and x_0 in S = range(G). Every assumption has its finding, with the numbers behind it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from analysis.projection import (
    ProjectionError,
)
from analysis.rates import ConvergenceCheck
from analysis.rates.slack import GREEK
from analysis.rec import RecEstimate
from npgd.files import plain, write_atomically
from npgd.images import Images
from npgd.solvers import Solution


@dataclass(frozen=True)
class Finding:
    """One assumption or outcome, and what was found."""

    subject: str
    verdict: str
    """"met", "not met", "not contradicted", or "measured" where there is nothing to meet."""
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.verdict}. {self.text}"


@dataclass(frozen=True, eq=False)
class Report:
    """What :func:`verify` found. ``print`` shows the findings; ``write`` makes the page."""

    rec: RecEstimate
    projection: ProjectionError
    uniform: ConvergenceCheck
    """The run against the uniform constants (all pairs of S)."""
    pointwise: ConvergenceCheck
    """The run against each image's own constants, α(x*) and the δ of its own w_n."""
    solution: Solution
    images: Images
    """x*, as given."""
    target: Images
    """x̄, the best point of S found for x*; the theorem is about this one."""
    distance: Float[torch.Tensor, " batch"]
    """‖x* − x̄‖², 0 for samples of G."""
    operator: dict[str, Any]
    settings: dict[str, Any]
    seconds: dict[str, float]

    @property
    def findings(self) -> list[Finding]:
        """Every assumption and outcome, in the order of the theorem."""
        return [
            _contraction(self),
            _pointwise_contraction(self),
            _step_size(self),
            _membership(self),
            _projector(self),
            _iterates(self),
            _bounds(self),
            _gap(self),
            _recovery(self),
            _identity(self),
        ]

    @property
    def summary(self) -> str:
        """The findings in words."""
        return "\n".join(f"{i}. {finding}" for i, finding in enumerate(self.findings, 1))

    @property
    def status(self) -> str:
        """The first finding and what happened, in two sentences."""
        return f"{self.findings[0].text} The objective {self.uniform.observed.status}."

    def __str__(self) -> str:
        return self.summary

    def table(self) -> Any:
        """The numbers as a ``rich`` table group, to be printed on a console."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table

        from analysis.report.page import constants_table, images_table

        tables = []
        for title, head, rows in (constants_table(self), images_table(self)):
            table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
            for i, name in enumerate(head):
                table.add_column(name, justify="left" if i == 0 else "right")
            for row in rows:
                table.add_row(*row)
            tables.append(table)
        return Group(*tables)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as plain numbers, lists and strings for JSON."""
        run = self.pointwise.to_dict()
        # The run is the same in both checks; it is listed once.
        shared = ("decomposition", "observed", "objective", "step_factor")
        content = {
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
            "seconds": self.seconds,
        }
        return plain(content)

    def to_html(self) -> str:
        """One self-contained page: findings, tables and figures, nothing loaded from elsewhere."""
        from analysis.report.page import page

        return page(self)

    def write(self, directory: str | Path, force: bool = False) -> Path:
        """Write report.html, report.json and summary.txt; return the page's path.

        Each file appears whole or not at all.

        Raises:
            FileExistsError: if one of them is there already, and ``force`` is false.
        """
        directory = Path(directory)
        contents = {
            "report.html": self.to_html(),
            "report.json": json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n",
            "summary.txt": self.summary + "\n",
        }
        present = [name for name in contents if (directory / name).exists()]
        if present and not force:
            raise FileExistsError(
                f"directory: {directory} already holds {', '.join(present)}; choose another or "
                "pass force=True"
            )
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(directory / name, content.encode())
        return directory / "report.html"


OWN = "the run's own w_n"


# ---------------------------------------------------------------------------------------------
# Findings in words
# ---------------------------------------------------------------------------------------------


def _contraction(report: Report) -> Finding:
    """β/α < 2, with the look that decides it."""
    rec, subject = report.rec, "β/α < 2 on all of S"
    if rec.exact:
        text = f"The exact constants of this set are α = {rec.alpha:.4g}, β = {rec.beta:.4g}: "
        text += f"κ = β/α = {rec.kappa:.4g}"
        if rec.kappa < 2:
            return Finding(subject, "met", text + ".")
        return Finding(subject, "not met", text + ", and the uniform bound is void.")
    words = {
        "secants": f"{_count(rec, 'secants')} secants",
        "tangents": f"tangent directions at {_count(rec, 'tangent points')} points",
        "search": "search from the worst of them",
        "images": "search from the images",
    }
    found = {name: look.kappa for name, look in rec.looks.items() if name in words}
    assert rec.pointwise is not None
    found["images"] = float(rec.pointwise.kappa.max())
    found = {name: kappa for name, kappa in found.items() if math.isfinite(kappa)}
    check = report.uniform
    kappa, seen = float(check.kappa.max()), [f"{words[k]} {v:.3g}" for k, v in found.items()]
    constants = f"α ≤ {float(check.alpha.min()):.3g}, β ≥ {float(check.beta.max()):.3g}"
    all_looks = f"by look: {', '.join(seen)}"
    if kappa < 2:
        return Finding(
            subject,
            "not contradicted",
            f"The largest κ = β/α found is {kappa:.3g} ({constants}; {all_looks}). Directions not "
            "looked at may have more.",
        )
    first = next((name for name, value in found.items() if value >= 2), None)
    already = (
        f"{words[first]} already give κ = β/α ≥ {found[first]:.3g}"
        if first
        else "no look by itself gives κ = β/α ≥ 2, but together they do"
    )
    return Finding(
        subject,
        "not met",
        f"{_sentence(already)} In all, κ ≥ {kappa:.3g} ({constants}; {all_looks}). The uniform "
        "bound is void.",
    )


def _count(rec: RecEstimate, name: str) -> str:
    if name == "tangent points":
        return "no" if rec.tangent_alpha is None else f"{len(rec.tangent_alpha):,}"
    return f"{rec.looks[name].n_directions:,}" if name in rec.looks else "no"


def _pointwise_contraction(report: Report) -> Finding:
    check, subject = report.pointwise, "β/α(x*) < 2, image by image"
    low, high = float(check.kappa.min()), float(check.kappa.max())
    batch, good = len(check.kappa), int((check.kappa < 2).sum())
    text = f"κ(x*) is {low:.3g} to {high:.3g}"
    if not report.rec.exact:
        text += " at least"
    text += f", and below 2 for {good} of {batch} images"
    if report.rec.pointwise is not None:
        text += f" ({report.rec.pointwise.beta_source})"
    if good == batch:
        return Finding(subject, "met" if report.rec.exact else "not contradicted", text + ".")
    void = "each of them" if good == 0 else f"the other {batch - good}"
    return Finding(subject, "not met", f"{text}; the bound is void for {void}.")


def _step_size(report: Report) -> Finding:
    eta, beta = report.settings["step_size"], report.uniform.beta.max().item()
    certain = report.rec.beta_certain if not report.rec.exact else report.rec.beta
    subject = "step size η ≤ 1/β"
    if eta * certain <= 1 + 1e-9:
        how = "the exact β" if report.rec.exact else "‖A‖²"
        return Finding(subject, "met", f"η = {eta:.4g}, and 1/{certain:.4g} by {how}.")
    if eta * beta <= 1 + 1e-9:
        return Finding(
            subject,
            "not contradicted",
            f"η = {eta:.4g} and 1/β ≤ {1 / beta:.4g}; only η ≤ {1 / certain:.3g} = 1/‖A‖² would be "
            "certain.",
        )
    return Finding(
        subject,
        "not met",
        f"η = {eta:.4g} exceeds 1/β ≤ {1 / beta:.4g}; the bound is the one for overlong steps.",
    )


def _membership(report: Report) -> Finding:
    check, n = report.uniform, report.operator["n"]
    noise = check.decomposition.noise
    begins = (
        "x_0 = P(Aᵀy) lies in S"
        if check.start == 0
        else "x_0 = Aᵀy does not lie in S, so every statement begins at x_1"
    )
    far = float(report.distance.quantile(0.5))
    subject = "x* and x_0 in S"
    if far <= 1e-9 * float(report.images.flatten(1).square().sum(1).mean()):
        verdict = "met" if check.start == 0 else "x* yes, x_0 no"
        text = f"x* lies in S; {begins}."
    else:
        verdict = "not met"
        text = (
            f"x* lies ‖x* − x̄‖² = {far:.3g} from the best point x̄ found in S (median; "
            f"{far / n:.2g} per pixel), and {begins}. The bound is about x̄; A(x* − x̄) counts as "
            f"noise, with ‖v‖² = {float(noise.quantile(0.5)):.3g} (median)."
        )
    if report.settings["noise"]:
        text += f" Noise of standard deviation {report.settings['noise']:g} was added to y."
    return Finding(subject, verdict, text)


def _projector(report: Report) -> Finding:
    error, n = report.projection, report.operator["n"]
    floors = report.pointwise.floor[report.pointwise.floor.isfinite()]
    text = _sentence(error.status)
    own = error.families[OWN].deltas.clamp_min(0)
    text += (
        f" On {OWN} it is {float(own.quantile(0.5)):.3g} (median), {float(own.max()):.3g} at most."
    )
    if floors.numel():
        floor = float(floors.quantile(0.5))
        text += (
            f" With it the bound promises no better than ‖x_n − x̄‖² ≤ {floor:.3g} "
            f"({floor / n:.2g} per pixel; median of the {floors.numel()} images "
            "whose bound converges)."
        )
    return Finding("projector error δ", "measured", text)


def _iterates(report: Report) -> Finding:
    check = report.uniform
    text = check.observation()
    broken = [reason for reason in check.observed.reasons if reason]
    if broken and len(broken) < len(check.observed.reasons):
        text += f" {len(broken)} images have no rate, the first because {broken[0]}."
    return Finding("what the iterates did", "measured", text)


def _bounds(report: Report) -> Finding:
    uniform, own = report.uniform, report.pointwise
    verdict = "holds" if uniform.holds and own.holds else "exceeded"
    contracting = int((own.rate < 1).sum())
    text = f"With the uniform constants: {uniform.comparison()} With each image's own: "
    text += own.comparison()
    if contracting:
        last = float(own.bound[-1][own.rate < 1].quantile(0.5))
        seen = float(own.objective[-1][own.rate < 1].quantile(0.5))
        text += (
            f" For the {contracting} images whose own bound converges it ends at {last:.3g} where "
            f"the objective ends at {seen:.3g} (medians)."
        )
    return Finding("bound against iterates", verdict, text)


def _gap(report: Report) -> Finding:
    parts = []
    for name, check in (("uniform", report.uniform), ("own", report.pointwise)):
        shares = {key: float(value[-1]) for key, value in check.slack.shares().items()}
        if all(math.isfinite(value) for value in shares.values()):
            words = ", ".join(
                f"{round(100 * value)} % {GREEK[key]}" for key, value in shares.items()
            )
            parts.append((name, shares, words))
    if not parts:
        return Finding("where the bound loses", "measured", "There is no finite gap to split.")
    text = "The final gap is " + "; ".join(
        f"{words} with {name} constants" for name, _, words in parts
    )
    _, shares, _ = parts[-1]
    advice = {
        "alpha": "an A with larger α on S (more measurements, a designed A) would tighten it",
        "beta": "the steps meet directions that A stretches less than β; nothing needs mending",
        "delta": "a better trained projector would tighten it",
        "noise": "less noise, or a prior nearer to the images, would tighten it",
    }
    return Finding(
        "where the bound loses",
        "measured",
        f"{text}: {advice[max(shares, key=lambda key: shares[key])]}.",
    )


def _recovery(report: Report) -> Finding:
    solution, n = report.solution, report.operator["n"]
    assert solution.error is not None
    error, best = solution.error[-1].quantile(0.5).item(), report.distance.quantile(0.5).item() / n
    text = f"Error per pixel {error:.3g} (median), "
    psnr = 10 * math.log10(4 / error) if error > 0 else math.inf
    text += f"{psnr:.1f} dB" if math.isfinite(psnr) else "exact"
    if best > 1e-12:
        text += f", where the best point of S found has {best:.3g}"
    return Finding("recovery", "measured", f"{text}. NPGD: {solution.status}.")


def _identity(report: Report) -> Finding:
    parts = report.uniform.decomposition
    closes = float(parts.residual.max()) <= 1e-10
    return Finding("one-step identity", "met" if closes else "not met", _sentence(parts.status))


def _sentence(text: str) -> str:
    """Capital and full stop; a Greek symbol at the start stays as it is."""
    return (text[0].upper() if text[0].isascii() else text[0]) + text[1:] + "."
