"""One script a figure or table of the paper, and of what goes beyond it.

Every script runs by itself, `python -m paper_figures.figure_convergence` or
`python paper_figures/figure_convergence.py`; `npgd figures` runs all of the figures, and with
`--tables` all of the tables.
"""

from __future__ import annotations

import ast
from pathlib import Path

from npgd_command import ours

__all__ = ["figures", "tables"]

ours("analysis")


def figures() -> dict[str, str]:
    """Every figure by name, with the first line of its docstring; imports none of them."""
    lines = _first_lines("figure_*.py")
    return {stem.removeprefix("figure_"): line for stem, line in lines.items()}


def tables() -> dict[str, str]:
    """Every table, likewise, by the name of its script."""
    return _first_lines("table_*.py")


def _first_lines(pattern: str) -> dict[str, str]:
    scripts = sorted(Path(__file__).parent.glob(pattern))
    return {
        script.stem: (
            ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        ).partition("\n")[0]
        for script in scripts
    }
