"""Grey values 0…255 and pixels in [-1, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8


def to_pixels(images: UInt8[torch.Tensor, "*shape"]) -> Float[torch.Tensor, "*shape"]:
    """Grey values 0…255 as pixels in [-1, 1]: v ↦ v/127.5 − 1, in float32."""
    return images.to(torch.float32).div(127.5).sub_(1.0)


def first(
    count: int | None, images: UInt8[torch.Tensor, "n c h w"], of: str
) -> UInt8[torch.Tensor, "count c h w"]:
    """The first `count` images, all for None; ValueError, which says `of` what, beyond them."""
    if count is not None and not 1 <= count <= len(images):
        raise ValueError(f"count must be from 1 to {len(images)}, the images of {of}, got {count}")
    return images[:count]


def to_uint8(images: Float[torch.Tensor, "*shape"]) -> UInt8[torch.Tensor, "*shape"]:
    """Pixels in [-1, 1] as grey values 0…255, rounded; values outside are clipped."""
    return images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
