"""Error against seconds, every method on one pair of axes.

    python paper_figures/figure_time_to_error.py [--m 100 200] [--json FILE | --cache DIR]

From the file that `table_methods.py --timings --json FILE` wrote; without one the timings are
measured here, or taken from that script's cache. Each curve is the mean error per pixel over the
same digits, against the seconds that the whole batch of them had taken when that iterate stood,
from the first iteration on: an error holds until the next iterate stands, hence the stairs.
The level of NPGD's error at its end is drawn across; a diamond marks where a method first reaches
it, with the multiple of NPGD's time for CSGM.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import dataset, run, weights
from paper_figures.style import look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORKS = ("mnist", "mnist-denoiser", "mnist-onenet")
DRAWN = (
    "method", "m", "batch", "elapsed", "error", "npgd_error", "npgd_seconds", "time_to_npgd_error",
    "ratio",
)  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The timing cells of table_methods.py at every m asked for."""
    measurements = options.m[:1] if options.quick else options.m
    if options.json is not None:
        timings = json.loads(options.json.read_text(encoding="utf-8"))
    else:
        from rich.console import Console

        from paper_figures import table_methods

        wanted = table_methods.parser().parse_args(["--timings"])
        if options.quick:
            table_methods.quick(wanted)
        wanted.m, wanted.cache = measurements, cache(options)
        timings = table_methods.measure(wanted, Console())
    there = [cell for cell in timings["timings"] if cell["m"] in measurements]
    for m in measurements:
        if m not in {cell["m"] for cell in there}:
            raise ValueError(f"--m must be among the timings of {options.json}, got {m}")
    drawn = [{name: cell[name] for name in DRAWN} for cell in there]
    return {"threads": timings["threads"], "cells": drawn}


def draw(results: dict[str, Any]) -> Figure:
    """One panel for each m, one curve a method."""
    by_m: dict[int, list[dict[str, Any]]] = {}
    for cell in results["cells"]:
        by_m.setdefault(cell["m"], []).append(cell)
    figure = new_figure(columns=2, height=3.2)
    panels = figure.subplots(1, len(by_m), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (m, cells) in zip(panels, by_m.items(), strict=True):
        draw_panel(axis, cells)
        axis.set_title(f"m = {m} Gaussian measurements")
        axis.set_xlabel(f"seconds for {cells[0]['batch']} digits")
    panels[0].set_ylabel("error per pixel on [−1, 1]")
    least = min(error for cell in results["cells"] for error in cell["error"][1:])
    panels[0].set_ylim(0.6 * least, 1.2)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def draw_panel(axis: Axes, cells: list[dict[str, Any]]) -> None:
    goal = cells[0]["npgd_error"]
    axis.axhline(goal, color="0.5", linewidth=0.7, zorder=0)
    for cell in cells:
        style = look(cell["method"])
        seconds, errors = cell["elapsed"][1:], cell["error"][1:]
        end = len(seconds) - 1  # the marker stands at the last iterate
        axis.loglog(
            seconds, errors, drawstyle="steps-post", markevery=[end], label=cell["method"],
            **style.curve(),
        )  # fmt: skip
        reached = cell["time_to_npgd_error"]
        if reached is not None and cell["method"] != "NPGD":
            axis.plot(reached, goal, "D", color=style.color, markersize=4, markeredgecolor="white")
        if cell["method"] == "CSGM":  # the one whose time the paper compares
            times = cell["ratio"] or cell["elapsed"][-1] / cell["npgd_seconds"]
            axis.annotate(
                f"{'' if reached else 'above it after '}{math.floor(times)} times\nNPGD's time",
                (reached or seconds[-1], goal),
                xytext=(-3 if reached else 4, -4),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=6.5,
                color=style.color,
            )
    axis.annotate(
        "NPGD's error",
        (0, goal),
        xycoords=("axes fraction", "data"),
        xytext=(3, 2),
        textcoords="offset points",
        fontsize=6.5,
        color="0.35",
    )
    axis.grid(which="major")


def cache(options: argparse.Namespace) -> Path:
    """The cells of table_methods.py."""
    return options.cache or options.output / "methods_cache"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--m", nargs="+", type=int, default=[100, 200], help="one panel each")
    parser.add_argument("--json", type=Path, help="what table_methods.py --timings --json wrote")
    cache_option(parser)


def cache_option(parser: argparse.ArgumentParser) -> None:
    """Where the cells of table_methods.py are."""
    parser.add_argument("--cache", type=Path, help="of table_methods.py; default: in --output")


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    if options.json is not None:
        return [options.json]
    cells = [path for m in options.m for path in cache(options).glob(f"timing-*-m{m}.json")]
    return [*cells, dataset("mnist"), *map(weights, NETWORKS)]


def main(argv: list[str] | None = None) -> str:
    return run("time_to_error", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
