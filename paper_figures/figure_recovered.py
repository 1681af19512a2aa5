"""What was measured of held-out images, and what NPGD, total variation and Deviation recover.

    python paper_figures/figure_recovered.py [--prior celeba] [--dataset celeba] [--count 2]
        [--m 1000] [--json FILE] [--quick]

A row for each task of table_tasks.py, `--count` images each: the first held-out images in their
order, other images in every row, none chosen. "Measured" is Aᵀy: for Gaussian A scaled so that 99 %
of its pixels lie within [−1, 1], with the hole grey, and the low-resolution image. Under every
recovered image stands its PSNR in dB. Settings are those of table_tasks.py, whose cells --json
names.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import dataset, run, weights
from paper_figures.style import new_figure

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    import npgd

SHOWN = {
    "NPGD": "NPGD",
    "NPGD, finished": "finished",
    "total variation": "TV",
    "deviation": "deviation",
}
WIDTH = 0.62  # of a picture, in inches


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures as bytes in base64, with their PSNR."""
    import npgd
    from npgd.data import dataset as images_of
    from paper_figures import table_tasks
    from paper_figures.table_design import Cells

    prior = npgd.load_prior(prior_of(options))
    data = options.dataset or table_tasks.dataset_of(prior)
    m = options.m or table_tasks.usual_m(prior)
    cells = Cells(options.json, options.quick)
    compared = table_tasks.Comparison(prior, data, options.count, cells, options.quick)
    operators = table_tasks.tasks(prior.image_shape, m)
    parts = images_of(data, "test", count=options.count * len(operators)).split(options.count)
    rows = {}
    for (task, A), x in zip(operators.items(), parts, strict=True):
        y = A(x)
        columns = {"original": encoded(x), "measured": encoded(seen(A, y))}
        for method, words in SHOWN.items():
            solver = compared.solver(method, task, A)
            assert solver is not None
            recovered = npgd.recover(A, y, solver).x.nan_to_num().clamp(-1, 1)
            errors = (recovered - x).square().flatten(1).mean(1).tolist()
            columns[words] = {**encoded(recovered), "psnr": table_tasks.psnr(errors)}
        rows[task] = columns
    return {"prior": prior.name, "data": data, "count": options.count, "rows": rows}


def seen(A: npgd.LinearOperator, y: torch.Tensor) -> torch.Tensor:
    """Measurements as an image."""
    import npgd

    back = A.adjoint(y)
    if isinstance(A, npgd.SuperResolution):
        return back * A.factor**2
    if isinstance(A, npgd.Inpainting):
        return back
    scale = back.abs().flatten(1).quantile(0.99, dim=1)
    return back / scale[:, None, None, None]


def encoded(images: torch.Tensor) -> dict[str, Any]:
    """Pixels as bytes (height, width, channels), in base64."""
    from npgd.data import to_uint8

    pixels = to_uint8(images).permute(0, 2, 3, 1).contiguous().numpy()
    return {
        "shape": list(pixels.shape),
        "pixels": base64.b64encode(pixels.tobytes()).decode("ascii"),
    }


def draw(results: dict[str, Any]) -> Figure:
    rows, count = results["rows"], results["count"]
    names = list(next(iter(rows.values())))
    figure = new_figure(columns=2, height=(WIDTH + 0.13) * len(rows) + 0.25)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    widths = ([1.0] * len(names) + [0.12]) * count
    axes = figure.subplots(len(rows), len(widths) - 1, width_ratios=widths[:-1], squeeze=False)
    for name, axis in zip([*names, ""] * count, axes[0], strict=False):
        axis.set_title(name, fontsize=7, pad=3)
    for axis in axes.flat:
        axis.axis("off")
    for row, (task, columns) in zip(axes, rows.items(), strict=True):
        words = task.replace(", ", "\n").replace(" ×", "\n×").replace("super-", "super-\n")
        row[0].text(-0.06, 0.5, words, transform=row[0].transAxes, rotation=90, ha="right",
                    va="center", multialignment="center", fontsize=6.5)  # fmt: skip
        for i in range(count):
            for j, picture in enumerate(columns.values()):
                draw_picture(row[i * (len(names) + 1) + j], picture, i)
    return figure


def draw_picture(axis: Any, picture: dict[str, Any], index: int) -> None:
    import numpy as np

    content = base64.b64decode(picture["pixels"])
    pixels = np.frombuffer(content, dtype=np.uint8).reshape(picture["shape"])[index]
    grey = pixels.shape[-1] == 1
    shown = pixels[..., 0] if grey else pixels
    axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if "psnr" in picture:
        axis.text(0.5, -0.03, f"{picture['psnr'][index]:.1f}", transform=axis.transAxes,
                  ha="center", va="top", fontsize=6.5)  # fmt: skip


def prior_of(options: argparse.Namespace) -> str:
    """The prior asked for, or the default."""
    return options.prior or ("mnist" if options.quick else "celeba")


def task_options(parser: argparse.ArgumentParser) -> None:
    """The prior, the images and m, as table_tasks.py takes them as well."""
    parser.add_argument("--prior", help="a name or a file; default celeba, mnist if --quick")
    parser.add_argument("--dataset", choices=["mnist", "celeba", "church"], help="the prior's")
    parser.add_argument("--m", type=int, help="Gaussian measurements; default 1,000, digits 100")


def options(parser: argparse.ArgumentParser) -> None:
    task_options(parser)
    parser.add_argument("--count", type=int, default=2, help="images in a row")
    parser.add_argument("--json", type=Path, help="cells of table_tasks.py")


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    prior = prior_of(options)
    data = options.dataset or prior
    places = {"mnist": "mnist", "celeba": "celeba64.zip", "church": "church64.zip"}
    return [weights(prior), *(dataset(place) for name, place in places.items() if name == data)]


def main(argv: list[str] | None = None) -> str:
    return run("recovered", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
