"""How ‖A s‖² spreads over unit secants of range(G): random, designed and imaging operators.

    python paper_figures/figure_histograms.py [--prior mnist-k100] [--json FILE] [--quick]

The figure of the paper, on its kind of generator (k = 100): densities of ‖A s‖² over held-out unit
secants, over log ‖A s‖² and each with its highest bin at 1, for four kinds of operators. Below the
curves, how far they reach: thick bars from the least to the largest ‖A s‖² over the secants, whose
ratio is the κ of the legend, and thin lines between triangles over the tangents, which the paper
did not look at: limits of secants, so members of the closure of the secant set. What is below 10⁻³
stands at the left end. Super-resolution is scaled to orthonormal rows. Takes the cells of
table_design.py from --json, and measures those that are missing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run, weights
from paper_figures.figure_design import cells_option
from paper_figures.style import COLOURS, new_figure, written_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"random": "Gaussian", "designed": "secant PCA"}
SIZES = {"super-resolution": "×{}", "inpainting": "hole {}"}
LEAST = 1e-3  # left end of the axes


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """By kind and size: extremes over secants and tangents, and the density over secants."""
    import npgd
    from paper_figures import table_design

    found = table_design.spans(npgd.load_prior(options.prior), cells(options), options.quick)
    return {
        "prior": options.prior,
        "kinds": {
            kind: [curve(kind, size, cell) for size, cell in by_size.items()]
            for kind, by_size in found.items()
        },
    }


def curve(kind: str, size: int, cell: dict[str, Any]) -> dict[str, Any]:
    """One curve as it is drawn, from a cell of table_design.py."""
    scale = size**2 if kind == "super-resolution" else 1
    edges = [edge * scale for edge in cell["histogram"]["edges"]]
    values, densities = [], []
    for low, high, count in zip(edges, edges[1:], cell["histogram"]["counts"], strict=False):
        if count and low > 0:
            values.append(math.sqrt(low * high))
            # The bins are equally wide; over log ‖A s‖² a density gains the value as a factor.
            densities.append(count * values[-1])
    highest = max(densities)
    return {
        "label": SIZES.get(kind, "m = {}").format(size),
        "m": cell["m"],
        "value": [float(f"{value:.5g}") for value in values],
        "density": [float(f"{density / highest:.4g}") for density in densities],
        "secants": [scale * end for end in cell["secants"]],
        "tangents": [scale * end for end in cell["tangents"]],
    }


def draw(results: dict[str, Any]) -> Figure:
    kinds = results["kinds"]
    figure = new_figure(columns=2, height=2.7)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axis, (kind, curves) in zip(panels, kinds.items(), strict=True):
        draw_panel(axis, curves)
        axis.set_title(TITLES.get(kind, kind))
    panels[0].set_ylabel("density of log ‖A s‖²")
    panels[0].yaxis.set_label_coords(-0.05, 0.68)
    for row, words in ((4, "thick: secants"), (5, "thin: tangents")):
        panels[0].annotate(words, (1.2 * LEAST, -0.07 * row), va="center", fontsize=6)
    return figure


def draw_panel(axis: Axes, curves: list[dict[str, Any]]) -> None:
    for i, (one, color) in enumerate(zip(curves, COLOURS, strict=False)):
        kappa = one["secants"][1] / one["secants"][0]
        axis.plot(one["value"], one["density"], color=color, linewidth=1,
                  label=f"{one['label']}: {kappa:.3g}")  # fmt: skip
        axis.fill_between(one["value"], one["density"], color=color, alpha=0.12, linewidth=0)
        height = -0.07 * (i + 1)
        low, high = (max(end, LEAST) for end in one["tangents"])
        axis.plot([low, high], [height] * 2, color=color, linewidth=0.7)
        for end, marker in ((low, ">"), (high, "<")):
            axis.plot(end, height, marker, color=color, markersize=3, clip_on=False)
        axis.plot(one["secants"], [height] * 2, color=color, linewidth=3, solid_capstyle="butt")
    axis.axhline(0, color="0.6", linewidth=0.5)
    axis.set(xscale="log", xlim=(LEAST, 20), ylim=(-0.42, 1.05), xlabel="‖A s‖²", yticks=[])
    written_out(axis.xaxis, (0.001, 0.01, 0.1, 1, 10))
    axis.spines.left.set_visible(False)
    axis.legend(loc="upper left", handlelength=1, borderaxespad=0, fontsize=6.5,
                title="κ of secants", title_fontsize=6.5, alignment="left")  # fmt: skip


def cells(options: argparse.Namespace) -> Path:
    return options.json or options.output / "span_cells.json"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="mnist-k100")
    cells_option(parser)


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    return [cells(options), weights(options.prior)]


def main(argv: list[str] | None = None) -> str:
    return run("histograms", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
