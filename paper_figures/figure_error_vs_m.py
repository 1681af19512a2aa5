"""Recovery error against the number of measurements: every method, and every design.

    python paper_figures/figure_error_vs_m.py [--images digits|samples] [--noise 0] [--count 100]
        [--cache DIR] [--json FILE] [--quick]

Mean squared error per pixel on [-1, 1] ± standard error. Left: every method of table_methods.py
with a Gaussian A, on the first --count MNIST test digits or as many samples of G. Right: NPGD with
every matrix of table_design.py, on 200 test digits without noise, the Gaussian curve among them.
Takes the cells of those scripts (--cache and --json), and measures those that are missing; CSGM
takes a second and more for an image and m.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures import figure_design, figure_time_to_error
from paper_figures.figure import run, weights
from paper_figures.style import look, new_figure, written_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Curves (m, error, standard error), by method and by design."""
    from rich.console import Console

    from paper_figures import table_methods

    wanted = table_methods.parser().parse_args(["--errors"])
    if options.quick:
        table_methods.quick(wanted)
    else:
        wanted.count, wanted.m = options.count, options.m
    wanted.images, wanted.noise = [options.images], [options.noise]
    wanted.prior, wanted.cache = options.prior, figure_time_to_error.cache(options)
    found = table_methods.measure(wanted, Console())
    methods: dict[str, list[dict[str, Any]]] = {}
    for cell in found["errors"]:
        point = {"m": cell["m"], "error": cell["mean"], "se": cell["se"]}
        methods.setdefault(cell["method"], []).append(point)
    return {
        "images": options.images,
        "noise": options.noise,
        "count": found["count"],
        "methods": methods,
        "designs": figure_design.measure(options)["designs"],
    }


def draw(results: dict[str, Any]) -> Figure:
    figure = new_figure(columns=2, height=3.4)
    panels = figure.subplots(1, 2)
    kind = "test digits" if results["images"] == "digits" else "samples of G"
    noise = f"noise {results['noise']:g}" if results["noise"] else "no noise"
    panels[0].set_title(f"every method, Gaussian A, {results['count']} {kind}, {noise}")
    panels[1].set_title("NPGD, Gaussian and designed A, test digits")
    for axis, curves in zip(panels, (results["methods"], results["designs"]), strict=True):
        draw_curves(axis, curves)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    panels[1].legend(loc="upper right")
    panels[0].set_ylabel("error per pixel on [−1, 1]")
    return figure


def draw_curves(axis: Axes, curves: dict[str, list[dict[str, Any]]]) -> None:
    for i, (name, curve) in enumerate(curves.items()):
        ms, errors, spread = ([point[key] for point in curve] for key in ("m", "error", "se"))
        axis.errorbar(ms, errors, spread, label=name, elinewidth=0.7, **look(name, i).curve())
    axis.set(xscale="log", yscale="log", xlabel="measurements m")
    written_out(axis.xaxis, (20, 50, 100, 200, 500))
    if axis.get_ylim()[0] > 0.005:  # else powers of ten tell more
        written_out(axis.yaxis, (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5))
    axis.grid(which="major")


def options(parser: argparse.ArgumentParser) -> None:
    figure_design.options(parser)
    parser.add_argument("--images", choices=("digits", "samples"), default="digits")
    parser.add_argument("--noise", type=float, default=0.0, help="‖v‖ over ‖A x‖, about")
    parser.add_argument("--count", type=int, default=100, help="images for the methods")
    figure_time_to_error.cache_option(parser)


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    cache = figure_time_to_error.cache(options)
    cells = cache.glob(f"error-{options.images}-*-noise{options.noise:g}.json")
    networks = map(weights, figure_time_to_error.NETWORKS)
    return [*figure_design.inputs(options), *cells, *networks]


def main(argv: list[str] | None = None) -> str:
    return run("error_vs_m", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
