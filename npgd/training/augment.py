"""Differentiable augmentation of what a discriminator sees, real and generated alike.

Zhao, Liu, Lin, Zhu, Han, "Differentiable augmentation for data-efficient GAN training", NeurIPS
2020: with few images D learns them by heart; seeing every image, real or generated, through a
random T it cannot, and since G is trained through the same T, T leaves no trace in what G makes.
The three transformations and their ranges are the paper's; images are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from npgd.images import Images
from npgd.settings import choices


def _uniform(x: Images, generator: torch.Generator) -> torch.Tensor:
    """One number in [0, 1) an image, drawn on the CPU so that a seed means the same everywhere."""
    return torch.rand(len(x), 1, 1, 1, generator=generator).to(x)


def color(x: Images, generator: torch.Generator) -> Images:
    """Brightness ± 0.5, saturation × [0, 2), contrast × [0.5, 1.5), in this order."""
    x = x + (_uniform(x, generator) - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (2 * _uniform(x, generator))
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * (_uniform(x, generator) + 0.5)


def translation(x: Images, generator: torch.Generator, ratio: float = 0.125) -> Images:
    """A shift by up to `ratio` of each side, zeros where the image leaves the frame.

    A product with two shift matrices an image: its gradient is two products as well, where
    indexing's would scatter.
    """
    _, _, height, width = x.shape
    rows, columns = (
        (torch.arange(side)[:, None] - torch.arange(side)).to(x.device)
        == _whole(x, round(side * ratio), generator)
        for side in (height, width)
    )
    return rows.to(x)[:, None] @ x @ columns.to(x)[:, None].mT


def cutout(x: Images, generator: torch.Generator, ratio: float = 0.5) -> Images:
    """A square of `ratio` of the side set to zero; its centre is anywhere in the image."""
    masks = []
    for side in x.shape[2:]:
        centre = (_uniform(x, generator).reshape(-1, 1) * (side + 1)).floor()
        offset = torch.arange(side, device=x.device) - centre + round(side * ratio) // 2
        masks.append((offset >= 0) & (offset < round(side * ratio)))
    hidden = masks[0][:, None, :, None] & masks[1][:, None, None, :]
    return x * ~hidden


def _whole(x: Images, bound: int, generator: torch.Generator) -> torch.Tensor:
    """One whole number in −bound … bound an image, (batch, 1, 1)."""
    shift = torch.randint(-bound, bound + 1, (len(x), 1, 1), generator=generator)
    return shift.to(x.device)


AUGMENTATIONS: dict[str, Callable[[Images, torch.Generator], Images]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def parse(policy: str) -> tuple[str, ...]:
    """The names in a comma-separated policy ("" is none); ValueError names an unknown one."""
    return choices(policy, "augment", AUGMENTATIONS)


def augment(x: Images, policy: str, generator: torch.Generator) -> Images:
    """T(x): the transformations of `policy`, one after another, each image its own draw."""
    for name in parse(policy):
        x = AUGMENTATIONS[name](x, generator)
    return x
