"""Predicted and observed: the error of every iteration, and against the number of measurements.

    python paper_figures/figure_state_evolution.py [--prior mnist celeba church] [--count 32]
        [--operators 2] [--draws 2] [--quick]

Held-out images (samples of G where there are none), Gaussian A without noise, float32. A panel for
every prior: state evolution (lines) and `npgd.AMP` (points), mean error per pixel, iteration by
iteration, at several m. Below, the error at the fixed point against m, with what AMP and NPGD
(default) reach, and the fewest measurements from which the error is within 10 % of its floor.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import dataset, run, weights
from paper_figures.style import BLACK, COLOURS, GREY, METHODS, new_figure, written_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRIORS = ("mnist", "celeba", "church")
TITLES = {"mnist": "digits", "celeba": "faces", "church": "churches"}
FILES = {"mnist": "mnist", "celeba": "celeba64.zip", "church": "church64.zip"}
BETWEEN = 24
"""Values of m on the predicted curve."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """By prior: the predictions of table_predictions.py, and the predicted error at many m."""
    import torch

    import analysis
    import npgd
    from paper_figures import table_predictions

    found: dict[str, Any] = {}
    count, operators, draws = options.count, options.operators, options.draws
    if options.quick:
        count, operators, draws = 2, 1, 1
    for name in options.prior[:1] if options.quick else options.prior:
        prior = npgd.load_prior(name)
        kind, x = next(iter(table_predictions.subjects(name, prior, count).items()))
        ms = table_predictions.sizes(name)
        ms = ms[1:3] if options.quick else ms
        measured = table_predictions.predictions(prior, prior, x, ms, operators, draws)
        curve = analysis.denoising_curve(prior, x, draws=draws)
        low, high = math.log10(ms[0] / 3), math.log10(2 * ms[-1])
        many = sorted({round(m) for m in torch.logspace(low, high, BETWEEN).tolist()})
        evolved = [analysis.state_evolution(curve, m, n_iter=1) for m in many]
        found[name] = {
            "kind": kind,
            "count": len(x),
            "by_m": {str(m): row for m, row in measured["by m"].items()},
            "least": measured["least"],
            "m": many,
            "fixed_point": [evolution.fixed_point for evolution in evolved],
            "lowest": [evolution.fixed_points[0] for evolution in evolved],
        }
    return found


def draw(results: dict[str, Any]) -> Figure:
    columns = len(results)
    figure = new_figure(columns=2, height=4.4)
    panels = figure.subplots(2, columns, squeeze=False)
    for column, (name, found) in enumerate(results.items()):
        draw_iterations(panels[0][column], found)
        draw_against_m(panels[1][column], found)
        panels[0][column].set_title(
            f"{TITLES.get(name, name)}, {found['count']} {found['kind']} images"
            if found["kind"] == "held-out"
            else f"{TITLES.get(name, name)}, {found['count']} samples of G"
        )
    panels[0][0].set_ylabel("error per pixel")
    panels[1][0].set_ylabel("error per pixel, in the end")
    panels[1][0].legend(loc="best")
    return figure


def draw_iterations(axis: Axes, found: dict[str, Any]) -> None:
    """Lines are predicted, points observed."""
    from npgd.showing import plain_log  # which imports torch

    for colour, (m, row) in zip(COLOURS, found["by_m"].items(), strict=False):
        axis.plot(row["predicted"], color=colour, label=f"m = {int(m):,}")
        axis.plot(row["observed"], "o", color=colour, markerfacecolor="white")
    plain_log(axis.yaxis)
    axis.set(xlabel="iteration of message passing")
    axis.legend(loc="best")
    axis.grid(which="major")


def draw_against_m(axis: Axes, found: dict[str, Any]) -> None:
    """The fixed point, what is reached, and the fewest measurements."""
    from npgd.showing import plain_log

    axis.plot(found["m"], found["fixed_point"], color=BLACK, label="predicted")
    ms = [int(m) for m in found["by_m"]]
    rows = found["by_m"].values()
    axis.plot(ms, [row["observed"][-1] for row in rows], "s", color=COLOURS[0], label="AMP")
    axis.plot(ms, [row["npgd"] for row in rows], label="NPGD", **METHODS["NPGD"].points())
    if found["least"] is not None:
        axis.axvline(found["least"], color=GREY, linewidth=0.8, linestyle="--")
        axis.text(
            found["least"], 0.97, f" m = {found['least']:,}", transform=axis.get_xaxis_transform(),
            va="top", color=GREY,
        )  # fmt: skip
    axis.set(xscale="log", xlabel="measurements m")
    written_out(axis.xaxis, (20, 50, 100, 200, 500, 1000, 2000, 5000))
    plain_log(axis.yaxis)
    axis.grid(which="major")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", nargs="+", default=list(PRIORS))
    parser.add_argument("--count", type=int, default=32, help="images of each prior")
    parser.add_argument("--operators", type=int, default=2, help="Gaussian A, by seed")
    parser.add_argument("--draws", type=int, default=2, help="pairs of noise of the curve")


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    known = [name for name in options.prior if name in FILES]
    return [*map(weights, options.prior), *(dataset(FILES[name]) for name in known)]


def main(argv: list[str] | None = None) -> str:
    return run("state_evolution", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
