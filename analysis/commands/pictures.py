"""Rows of images as one labelled figure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO

import torch
from jaxtyping import Float

from npgd.data import to_uint8


def draw_rows(
    rows: Mapping[str, Float[torch.Tensor, "n c h w"]],
    file: str | os.PathLike[str] | IO[bytes],
    columns: int = 12,
    title: str = "",
) -> None:
    """Write a figure with one labelled row per entry, `columns` images at most in each.

    Pixels are shown on [-1, 1], black to white, and clipped outside. The suffix of a path says
    the format (.png, .pdf, .svg); an open file becomes a PNG. Whatever matplotlib draws otherwise,
    and where, stays as it is.
    """
    from matplotlib.figure import Figure

    count = min(columns, *(len(images) for images in rows.values()))
    figure = Figure(figsize=(0.72 * count + 1.1, 0.72 * len(rows) + (0.35 if title else 0.05)))
    axes = figure.subplots(len(rows), count, squeeze=False)
    for i, (label, images) in enumerate(rows.items()):
        pixels = to_uint8(images[:count].detach().float().cpu()).permute(0, 2, 3, 1).numpy()
        for j in range(count):
            axis = axes[i, j]
            axis.imshow(pixels[j].squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        axes[i, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.subplots_adjust(
        left=1.05 / (0.72 * count + 1.1),
        right=0.995,
        bottom=0.01,
        top=0.86 if title else 0.99,
        wspace=0.06,
        hspace=0.06,
    )
    figure.savefig(file, dpi=150)
