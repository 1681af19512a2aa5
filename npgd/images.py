"""Batches of images, measurements and latents: their types, and one number for each row.

Everywhere in the package, images are (batch, channels, height, width) with pixels in [-1, 1],
measurements (batch, m), latents (batch, k). Norms are Euclidean, squared norms sums over entries.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float

Images = Float[torch.Tensor, "batch channels height width"]
Measurements = Float[torch.Tensor, "batch m"]
Latents = Float[torch.Tensor, "batch k"]
PerImage = Float[torch.Tensor, " batch"]

INSIDE = ("npgd", "analysis", "torch")
"""Packages whose lines no warning is about."""


def other_range(x: Images) -> tuple[int, int] | None:
    """(0, 1) or (0, 255) where the pixels look like those of that range, not of [−1, 1]."""
    if not x.numel():
        return None
    low, high = float(x.min()), float(x.max())
    if high > 16:
        return 0, 255
    return (0, 1) if low >= 0 and 0.2 < high - low <= 1 >= high else None


def warn_of_range(x: Images, made: Images) -> None:
    """Warn where x looks like pixels of another range, and what was made for it is on [−1, 1].

    A set whose own pixels are in [0, 1] answers with such, and nothing is said.
    """
    pixels = other_range(x)
    if pixels is None or other_range(made) is not None or not -1.5 < float(made.min()) < -0.5:
        return
    way = "2 * x - 1" if pixels == (0, 1) else "npgd.data.to_pixels(x)"
    warnings.warn(
        f"images must have pixels in [-1, 1], got x from {float(x.min()):.3g} to"
        f" {float(x.max()):.3g}; if their range is {list(pixels)}, give {way}",
        stacklevel=_outside(),
    )


def _outside() -> int:
    """The stack level, for who asks, of the line that called this package from elsewhere."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in INSIDE:
        level, frame = level + 1, frame.f_back
    return level


def squared_norm(x: Float[torch.Tensor, "batch ..."]) -> PerImage:
    """‖x‖² of every row."""
    return x.flatten(1).square().sum(1)


def norm(x: Float[torch.Tensor, "batch ..."]) -> PerImage:
    """‖x‖ of every row."""
    length: PerImage = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return length


def inner(x: Float[torch.Tensor, "batch ..."], y: Float[torch.Tensor, "batch ..."]) -> PerImage:
    """⟨x, y⟩ of every pair of rows."""
    return (x.flatten(1) * y.flatten(1)).sum(1)


def quotient(
    numerator: Float[torch.Tensor, "*shape"], denominator: Float[torch.Tensor, "*shape"]
) -> Float[torch.Tensor, "*shape"]:
    """numerator/denominator, NaN where the denominator is not positive."""
    return torch.where(denominator > 0, numerator / denominator, math.nan)


def psnr(error: Float[torch.Tensor, "*shape"]) -> Float[torch.Tensor, "*shape"]:
    """10 log₁₀(2²/error) in dB, of errors per pixel; 2 is peak to peak on [-1, 1]. ∞ of 0."""
    return 10 * torch.log10(4 / error)


@torch.no_grad()
def ratio(A: Callable[[Images], torch.Tensor], s: Images) -> PerImage:
    """‖A s‖²/‖s‖² of every direction s; NaN where s = 0."""
    return squared_norm(A(s)) / squared_norm(s)
