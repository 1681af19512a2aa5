"""One script a figure or table of the paper, and of what goes beyond it.

Every script runs by itself, ``python -m paper_figures.figure_convergence`` or
``python paper_figures/figure_convergence.py``; ``npgd figures`` runs all of the figures.
"""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["figures"]


def figures() -> dict[str, str]:
    """Every figure by name, with the first line of its docstring; imports none of them."""
    scripts = sorted(Path(__file__).parent.glob("figure_*.py"))
    return {
        script.stem.removeprefix("figure_"): (
            ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        ).partition("\n")[0]
        for script in scripts
    }
