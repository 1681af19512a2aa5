"""Designed measurement matrices: κ and NPGD's error against m.

    python paper_figures/figure_design.py [--designs NAME …] [--m M …] [--json FILE] [--quick]

κ over held-out secants (left) and over tangents (middle), each a lower bound, with the theorem's
limit 2; NPGD's error per pixel on test digits with standard errors (right). Takes the cells of
table_design.py from --json, and measures those that are missing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import dataset, run, weights
from paper_figures.style import look, new_figure, written_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {"secants": "over held-out secants", "tangents": "over tangents"}
SHOWN = ("Gaussian", "Gaussian, whitened", "DCT, adapted", "secant PCA", "minimax")
MEASUREMENTS = (20, 50, 100, 200, 500)
CEILING = 2000.0  # of κ; beyond, it is as good as infinite


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Curves by design: m, κ by look, error and standard error."""
    from paper_figures import table_design

    found = table_design.compare(
        options.prior, options.designs, options.m, cells(options), options.quick
    )
    kept = ("m", "secants", "tangents", "search", "error", "se")
    return {
        "prior": options.prior,
        "designs": {
            design: [{name: cell.get(name) for name in kept} for _, cell in sorted(by_m.items())]
            for design, by_m in found.items()
        },
    }


def draw(results: dict[str, Any]) -> Figure:
    figure = new_figure(columns=2, height=2.75)
    *constants, errors = figure.subplots(1, 3)
    for axis, (kind, words) in zip(constants, LOOKS.items(), strict=True):
        draw_constants(axis, results["designs"], kind)
        axis.set_title(f"κ {words}")
    draw_errors(errors, results["designs"])
    errors.set_title("error of NPGD, test digits")
    for axis in (*constants, errors):
        axis.set_xlabel("measurements m")
        written_out(axis.xaxis, (20, 50, 100, 200, 500))
    figure.legend(*errors.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def draw_constants(axis: Axes, designs: dict[str, list[dict[str, Any]]], kind: str) -> None:
    """κ against m up to a ceiling; above it, the least that stands there is written."""
    axis.axhspan(1, 2, color="0.94", linewidth=0)
    axis.annotate("κ < 2", (0.02, 1.03), xycoords=("axes fraction", "data"), va="bottom",
                  color="0.35", fontsize=6.5)  # fmt: skip
    by_m: dict[int, list[float]] = {}
    for i, (name, curve) in enumerate(designs.items()):
        points = [(cell["m"], cell[kind]) for cell in curve if cell[kind] is not None]
        axis.plot(*zip(*points, strict=True), **look(name, i).curve())
        for m, value in points:
            by_m.setdefault(m, []).append(value)
    for m, values in by_m.items():
        if min(values) > CEILING:
            power = math.floor(math.log10(min(values)))
            axis.annotate(f"all\nabove\n$10^{power}$", (0.9 * m, 0.85 * CEILING), va="top",
                          color="0.35", fontsize=6.5)  # fmt: skip
    axis.set(xscale="log", yscale="log", ylim=(1, CEILING))
    written_out(axis.yaxis, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))


def draw_errors(axis: Axes, designs: dict[str, list[dict[str, Any]]]) -> None:
    for i, (name, curve) in enumerate(designs.items()):
        ms, errors, spread = ([cell[key] for cell in curve] for key in ("m", "error", "se"))
        axis.errorbar(ms, errors, spread, label=name, elinewidth=0.7, **look(name, i).curve())
    axis.set(xscale="log", yscale="log")
    written_out(axis.yaxis, (0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.3, 0.4))


def cells(options: argparse.Namespace) -> Path:
    return options.json or options.output / "design_cells.json"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--designs", nargs="+", default=list(SHOWN))
    parser.add_argument("--m", nargs="+", type=int, default=list(MEASUREMENTS))
    cells_option(parser)


def cells_option(parser: argparse.ArgumentParser) -> None:
    """Where the cells of table_design.py are."""
    parser.add_argument("--json", type=Path, help="of table_design.py; default: in --output")


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    return [cells(options), weights(options.prior), dataset("mnist")]


def main(argv: list[str] | None = None) -> str:
    return run("design", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
