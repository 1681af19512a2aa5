"""What priors make up: 64 samples of G each.

    python paper_figures/figure_samples.py [--priors celeba church] [--seed 0] [--quick]

G(z), z ~ N(0, I), 64 draws of one seed, none chosen: the grids that show whether a generator
varies, and how far its pictures are from photographs. Float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run, weights
from paper_figures.figure_recovered import draw_picture, encoded
from paper_figures.style import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 8  # samples in a row


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """By prior: one picture of SIDE×SIDE samples, as bytes in base64."""
    import npgd

    grids = {}
    for name in options.priors:
        prior = npgd.load_prior(name)
        channels, height, width = prior.image_shape
        tiles = prior.sample(SIDE**2, seed=options.seed).view(SIDE, SIDE, *prior.image_shape)
        grid = tiles.permute(2, 0, 3, 1, 4).reshape(1, channels, SIDE * height, SIDE * width)
        grids[name] = encoded(grid)
    return {"seed": options.seed, "grids": grids}


def draw(results: dict[str, Any]) -> Figure:
    grids = results["grids"]
    columns = min(len(grids), 2)
    rows = -(-len(grids) // columns)
    figure = new_figure(columns=columns, height=(3.5 if columns == 2 else 3.4) * rows)
    for axis, (name, grid) in zip(figure.subplots(rows, columns, squeeze=False).flat, grids.items(),
                                  strict=False):  # fmt: skip
        draw_picture(axis, grid, 0)
        axis.set_title(name)
    for axis in figure.axes:
        axis.axis("off")
    return figure


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--priors", nargs="+", default=["celeba", "church"], metavar="PRIOR")
    parser.add_argument("--seed", type=int, default=0)


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    return [weights(name) for name in options.priors]


def main(argv: list[str] | None = None) -> str:
    return run("samples", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
