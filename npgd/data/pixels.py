"""Grey values 0…255 and pixels in [-1, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8

from npgd import checks


def to_pixels(images: UInt8[torch.Tensor, "*shape"]) -> Float[torch.Tensor, "*shape"]:
    """Grey values 0…255 as pixels in [-1, 1]: v ↦ v/127.5 − 1, in float32.

    Raises:
        TypeError: what is no tensor of real numbers.
        ValueError: integers or floats that are not from 0 to 255.
    """
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a torch tensor, got {type(images).__name__}")
    if images.is_complex() or images.dtype is torch.bool:
        raise TypeError(f"images must hold grey values in uint8, got {images.dtype}")
    if images.dtype is not torch.uint8 and images.numel():
        values = images.double()
        outside = int((~((values >= 0) & (values <= 255))).sum())
        if outside:
            raise ValueError(
                f"images must hold grey values from 0 to 255, got {outside} of {images.numel()}"
                " outside"
            )
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def first(
    count: int | None, images: UInt8[torch.Tensor, "n c h w"], of: str
) -> UInt8[torch.Tensor, "count c h w"]:
    """The first `count` images, all for None; ValueError, which says `of` what, beyond them."""
    if count is not None:
        number = checks.integer(count, "count", minimum=0)
        if not 1 <= number <= len(images):
            raise ValueError(
                f"count must be from 1 to {len(images)}, the images of {of}, got {number}"
            )
    return images[:count]


def to_uint8(images: Float[torch.Tensor, "*shape"]) -> UInt8[torch.Tensor, "*shape"]:
    """Pixels in [-1, 1] as grey values 0…255, rounded; values outside are clipped.

    Half precision is rounded in float32.

    Raises:
        TypeError: what is no real floating point tensor.
        ValueError: NaN, which has no grey value.
    """
    pixels = checks.floating(images, "images").detach()
    if pixels.dtype.itemsize < 4:
        pixels = pixels.float()
    unknown = int(torch.isnan(pixels).sum())
    if unknown:
        raise ValueError(f"images must be numbers, got NaN in {unknown} of {pixels.numel()} pixels")
    return pixels.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
