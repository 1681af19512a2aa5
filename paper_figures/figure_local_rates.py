"""What the derivative foretells, runs do: predicted and observed rates, and a basin.

    python paper_figures/figure_local_rates.py [--prior mnist] [--count 24] [--quick]

Samples of the prior, without noise, in float64; what is measured is that of `table_local.py`.

- Left: with exact projection, the rate from the tangents at x* against that of the run's end; one
  dot an image, three operators, two steps each.
- Middle: with this projector, the spectral radius at the fixed point against that of the run's end,
  of the images whose run rests; hollow, without corrections.
- Right: the share of starts at distance r from the fixed point, in the norm of Lyapunov's equation,
  that move nearer (every image a line, their median in bold), and where the runs' iterates lie.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run, weights
from paper_figures.style import BLUE, GREY, VERMILLION, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of the table, of fewer images."""
    import npgd
    from npgd.precision import converted
    from paper_figures import table_local as table

    prior = converted(npgd.load_prior(options.prior))
    quick = options.quick
    if quick:
        prior.corrections = 0
    count = 2 if quick else options.count
    return {
        "prior": options.prior,
        "exact": table.exact(prior, count, 20 if quick else 400),
        "runs": table.runs(
            prior, count, 30 if quick else 400, table.SETTINGS[:2] if quick else table.SETTINGS
        ),
        "basins": table.basins(prior, min(count, 8), 20 if quick else 400),
    }


def draw(results: dict[str, Any]) -> Figure:
    figure = new_figure(columns=2, height=2.5)
    exact, runs, basin = figure.subplots(1, 3)
    for i, row in enumerate(results["exact"][::2]):
        both = [row, results["exact"][2 * i + 1]]
        draw_dots(exact, both, row["operator"], i)
    shipped = results["runs"][0]["corrections"]
    for i, row in enumerate(results["runs"]):
        plain = row["corrections"] != shipped
        label = "" if plain else f"m = {row['m']}, η = {row['step']:g}"
        draw_dots(runs, [row], label, i % 3, hollow=plain)
    exact.set_title("exact projection", fontweight="bold")
    runs.set_title("this projector", fontweight="bold")
    for axis in (exact, runs):
        draw_diagonal(axis)
    exact.set_ylabel("rate of the run's end")
    draw_basin(basin, results["basins"])
    return figure


def draw_dots(
    axis: Axes, rows: list[dict[str, Any]], label: str, index: int, hollow: bool = False
) -> None:
    pairs = [
        pair
        for row in rows
        for *pair, rests in zip(
            row["predicted"], row["observed"], row.get("rests", [True] * len(row["predicted"])),
            strict=True,
        )
        if rests and None not in pair
    ]  # fmt: skip
    style = look("", index)
    axis.plot(
        [predicted for predicted, _ in pairs], [observed for _, observed in pairs],
        color=style.color, marker=style.marker, markersize=2.6, linestyle="none", alpha=0.7,
        markeredgewidth=0.6 if hollow else 0, markerfacecolor="none" if hollow else style.color,
        label=label or None,
    )  # fmt: skip


def draw_diagonal(axis: Axes) -> None:
    low = min(axis.get_xlim()[0], axis.get_ylim()[0])
    axis.plot([low, 1], [low, 1], color=GREY, linewidth=0.7, zorder=0)
    axis.set(xlim=(low, 1), ylim=(low, 1), xlabel="predicted rate")
    axis.legend(loc="upper left", handletextpad=0.2, handlelength=1)


def draw_basin(axis: Axes, found: dict[str, Any]) -> None:
    import numpy as np

    share = np.array(found["share"], dtype=float)
    radius, kept = found["radius"], ~np.isnan(share[0])
    axis.plot(radius, 100 * share[:, kept], color=BLUE, linewidth=0.5, alpha=0.5)
    if kept.any():
        axis.plot(radius, 100 * np.median(share[:, kept], axis=1), color=BLUE, marker="o")
    distance = np.array(found["distance"], dtype=float)[:, kept]
    for n, row in enumerate(distance[:12]):
        height = 4 + 3 * n
        axis.plot(row, [height] * len(row), color=VERMILLION, marker="|", markersize=3.5, ls="none")
        if len(row) and n % 3 == 0:
            axis.annotate(f"$x_{{{n + 1}}}$", (radius[0], height), fontsize=6, color=VERMILLION,
                          va="center")  # fmt: skip
    axis.set(xscale="log", ylim=(0, 103), xlim=(radius[0], 1.2 * radius[-1]))
    axis.set(xlabel="distance r from the fixed point", ylabel="starts that move nearer, %")
    axis.set_title(f"basin, m = {found['m']}", fontweight="bold")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--count", type=int, default=24)


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    return [weights(options.prior)]


def main(argv: list[str] | None = None) -> str:
    return run("local_rates", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
