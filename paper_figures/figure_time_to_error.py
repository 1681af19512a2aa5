"""Draw error against seconds, every method on one pair of axes.

    python paper_figures/figure_time_to_error.py [--json FILE] [--m 100] [--out FILE] [--quick]

From the file that `table_methods.py --timings --json FILE` wrote; without one the timings are
measured here, or taken from that script's cache. Each curve is the mean error per pixel over the
same digits, against the seconds that the whole batch of them had taken when that iterate stood,
from the first iteration on: an error holds until the next iterate stands, hence the stairs.
The level of NPGD's error at its end is drawn across; a diamond marks where a method first reaches
it, with the multiple of NPGD's time for the rivals in latent space.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import table_methods
from rich.console import Console

# Okabe and Ito's colours, told apart by the colour-blind too; dashes tell them apart in grey.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def draw(cells: list[dict[str, Any]], out: Path) -> None:
    """One curve a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for cell, colour, dash in zip(cells, cycle(COLOURS), cycle(DASHES), strict=False):
        points = list(zip(cell["elapsed"], cell["error"], strict=True))[1:]
        seconds, errors = zip(*((t, e) for t, e in points if math.isfinite(e)), strict=True)
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "drawstyle": "steps-post"}
        axes.loglog(seconds, errors, lw=1.8, label=cell["method"], **style)
        axes.plot(seconds[-1], errors[-1], "o", color=colour, ms=4)
        reached = cell["time_to_npgd_error"]
        if reached is not None and cell["method"] != "NPGD":
            axes.plot(reached, cell["npgd_error"], "D", color=colour, ms=6, mec="white")
            if cell["method"] not in table_methods.LATENT_RIVALS:
                continue
            axes.annotate(
                f"{cell['ratio']:.3g} times NPGD's",
                (reached, cell["npgd_error"]),
                xytext=(-6, -12),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=colour,
            )
    goal = cells[0]["npgd_error"]
    axes.axhline(goal, color="0.5", lw=0.8, zorder=0)
    axes.annotate(
        "NPGD's error",
        (0, goal),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=8,
        color="0.35",
    )
    first = cells[0]
    axes.set(
        xlabel=f"seconds for {first['batch']} digits",
        ylabel="mean squared error per pixel, on [−1, 1]",
        title=f"MNIST test digits from m = {first['m']} Gaussian measurements, no noise",
    )
    axes.set_ylim(bottom=0.7 * min(min(cell["error"]) for cell in cells))
    axes.grid(which="major", color="0.9", lw=0.6)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(out, dpi=160)
    plt.close(figure)


def main() -> None:
    """Read or measure, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="what table_methods.py wrote")
    parser.add_argument("--m", type=int, default=100)
    parser.add_argument("--cache", type=Path, default=Path("methods_cache"))
    parser.add_argument("--out", type=Path, default=Path("time_to_error.png"))
    parser.add_argument("--quick", action="store_true", help="2 images, 5 iterations")
    arguments, console = parser.parse_args(), Console()
    if arguments.json:
        result = json.loads(arguments.json.read_text(encoding="utf-8"))
    else:
        wanted = table_methods.parser().parse_args(
            ["--timings", "--m", str(arguments.m), "--cache", str(arguments.cache)]
        )
        with tempfile.TemporaryDirectory() as folder:
            if arguments.quick:
                table_methods.quick(wanted)
                wanted.m, wanted.cache = [arguments.m], Path(folder)
            result = table_methods.measure(wanted, console)
    cells = [cell for cell in result["timings"] if cell["m"] == arguments.m]
    if not cells:
        parser.error(f"--m: {arguments.json} holds no timings at m = {arguments.m}")
    draw(cells, arguments.out)
    console.print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
