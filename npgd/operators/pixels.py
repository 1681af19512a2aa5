"""Operators that keep or average pixels: inpainting and super-resolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch.nn import functional

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator


class Inpainting(LinearOperator):
    """The measured pixels, one after another: rows of the identity, so A Aᵀ = I and ‖A‖ = 1.

    Aᵀ y is the image with zeros where nothing was measured. Give one of `hole` and `mask`.

    Args:
        image_shape: (channels, height, width).
        hole: side in pixels of the centred square that is missing from every channel (Raj, Li
            and Bresler, ICCV 2019, Section 5.2); from 0 to the shorter side of the image.
        mask: boolean, (height, width) or image_shape; True where a pixel is measured
            (`scattered_boxes` makes one).

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    index: torch.Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        hole: int | None = None,
        mask: Bool[torch.Tensor, ...] | np.ndarray | None = None,
    ) -> None:
        shape = checks.image_shape(image_shape)
        if (hole is None) == (mask is None):
            got = "neither" if hole is None else "both"
            raise ValueError(f"one of hole and mask must be given, got {got}")
        name = "hole" if mask is None else "mask"
        measured = (
            _without_hole(shape, hole) if mask is None else checked_mask(mask, shape[1:], shape)
        )
        index = measured.expand(shape).flatten().nonzero()[:, 0]
        if index.numel() == 0:
            given = hole if mask is None else "no True entry"
            raise ValueError(f"{name} must leave a pixel of image_shape {shape}, got {given}")
        super().__init__(shape, index.numel())
        self.register_buffer("index", index)

    def _forward(self, x: Images) -> Measurements:
        return x.flatten(1).index_select(1, self.index)

    def _adjoint(self, y: Measurements) -> Images:
        image = y.new_zeros(y.shape[0], self.n)
        return image.index_copy_(1, self.index, y).reshape(-1, *self.image_shape)

    @property
    def row_orthonormal(self) -> bool:
        return True

    def norm(self) -> float:
        return 1.0


def scattered_boxes(
    image_shape: Sequence[int], boxes: int, side: int, seed: int = 0
) -> Bool[torch.Tensor, "height width"]:
    """A mask for `Inpainting`: False in `boxes` squares of `side` pixels, True elsewhere.

    Their places are independent and uniform among those inside the image, so that boxes may
    overlap; the first boxes of a larger number with the same seed are the same.

    Raises:
        ValueError: a side that exceeds the image's, or boxes that leave no pixel.
    """
    _, height, width = checks.image_shape(image_shape)
    boxes = checks.integer(boxes, "boxes")
    side = checks.integer(side, "side")
    if side > min(height, width):
        raise ValueError(f"side must be at most {min(height, width)}, got {side}")
    generator = checks.seeded(seed)
    # One number after another: a large draw of torch.rand does not begin as a small one does.
    places = [torch.rand(2, generator=generator, dtype=torch.float64) for _ in range(boxes)]
    measured = torch.ones(height, width, dtype=torch.bool)
    for down, across in places:
        top = int(down * (height - side + 1))
        left = int(across * (width - side + 1))
        measured[top : top + side, left : left + side] = False
    if not measured.any():
        raise ValueError(
            f"boxes must leave a pixel of {height}×{width}, got {boxes} of side {side}"
        )
    return measured


def _without_hole(shape: checks.ImageShape, hole: int | None) -> torch.Tensor:
    _, height, width = shape
    side = checks.integer(hole, "hole", minimum=0)
    if side > min(height, width):
        raise ValueError(f"hole must be at most {min(height, width)} for {shape}, got {side}")
    measured = torch.ones(height, width, dtype=torch.bool)
    top, left = (height - side) // 2, (width - side) // 2
    measured[top : top + side, left : left + side] = False
    return measured


def checked_mask(mask: object, *shapes: tuple[int, ...]) -> torch.Tensor:
    """A boolean mask, torch or numpy, of one of the shapes."""
    if isinstance(mask, np.ndarray) and mask.dtype == np.bool_:
        mask = torch.from_numpy(np.ascontiguousarray(mask))
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"mask must be a boolean tensor, True where measured, got {kind}")
    if mask.layout != torch.strided or mask.is_meta:
        raise TypeError(f"mask must be a dense tensor, got {checks.shown(mask)}")
    if tuple(mask.shape) not in shapes:
        listed = " or ".join(map(str, shapes))
        raise ValueError(f"mask must have shape {listed}, got {tuple(mask.shape)}")
    return mask


class SuperResolution(LinearOperator):
    """The mean over every factor×factor box, channel by channel; A Aᵀ = I/factor².

    Args:
        image_shape: (channels, height, width); factor must divide height and width.
        factor: side of the box in pixels.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    def __init__(self, image_shape: Sequence[int], factor: int = 2) -> None:
        channels, height, width = checks.image_shape(image_shape)
        factor = checks.integer(factor, "factor")
        if height % factor or width % factor:
            raise ValueError(f"factor must divide {height} and {width}, got {factor}")
        super().__init__(image_shape, channels * (height // factor) * (width // factor))
        self.factor = factor

    def _forward(self, x: Images) -> Measurements:
        return functional.avg_pool2d(x, self.factor).flatten(1)

    def _adjoint(self, y: Measurements) -> Images:
        channels, height, width = self.image_shape
        f = self.factor
        boxes = (y / f**2).reshape(-1, channels, height // f, 1, width // f, 1)
        return boxes.expand(-1, -1, -1, f, -1, f).reshape(-1, *self.image_shape)

    @property
    def row_orthonormal(self) -> bool:
        return self.factor == 1

    def norm(self) -> float:
        return 1 / self.factor
