"""Orthonormal bases in which images are sparse: x = Ψᵀ c, c = Ψ x, Ψᵀ Ψ = I.

Coefficients have the image's shape (batch, channels, height, width); channels are transformed
separately. Products with matrices of one side only, batched; nothing of size n×n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.fft
import torch
from jaxtyping import Float
from torch import nn

from npgd import checks
from npgd.images import Images


class Pixels(nn.Module):
    """Ψ = I: images whose pixels are sparse."""

    def __init__(self, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = checks.image_shape(image_shape)

    def forward(self, x: Images) -> Images:
        """Ψ x."""
        return checks.images(x, self.image_shape)

    def inverse(self, c: Images) -> Images:
        """Ψᵀ c."""
        return checks.images(c, self.image_shape, "c")


class DCT(nn.Module):
    """The two-dimensional discrete cosine transform of type II, orthonormal: C_h X C_wᵀ."""

    rows: Float[torch.Tensor, "h h"]
    columns: Float[torch.Tensor, "w w"]

    def __init__(self, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = checks.image_shape(image_shape)
        for name, side in zip(("rows", "columns"), self.image_shape[1:], strict=True):
            matrix = scipy.fft.dct(np.eye(side), axis=0, norm="ortho")
            self.register_buffer(name, torch.from_numpy(matrix))

    def forward(self, x: Images) -> Images:
        """Ψ x."""
        checks.same_kind(checks.images(x, self.image_shape), self, "x", "the transform")
        return self.rows @ x @ self.columns.T

    def inverse(self, c: Images) -> Images:
        """Ψᵀ c."""
        checks.same_kind(checks.images(c, self.image_shape, "c"), self, "c", "the transform")
        return self.rows.T @ c @ self.columns


class Wavelet(nn.Module):
    """An orthogonal wavelet basis, periodised, by Mallat's pyramid (filters from PyWavelets).

    One level maps a block X to H_h X H_wᵀ, the rows of H being the low-pass filter and then the
    high-pass filter at even shifts, wrapped around; the next level does so to its low-pass
    quarter, at the top left. Each H is orthonormal for every even side, even where the filter is
    longer than the side. S. Mallat, IEEE PAMI 11(7), 1989; I. Daubechies, CPAM 41(7), 1988.

    Args:
        image_shape: (channels, height, width).
        wavelet: name of an orthogonal wavelet of PyWavelets ("haar", "db4", "sym4", "coif1" …).
        levels: how often to halve; default as often as both sides are even: 2 for 28×28 (to 7×7),
            at most until one is 4 or less, 4 for 64×64.

    Raises:
        ValueError: a wavelet that is not orthogonal, or sides that cannot be halved so often.
    """

    def __init__(
        self, image_shape: Sequence[int], wavelet: str = "db4", levels: int | None = None
    ) -> None:
        super().__init__()
        self.image_shape = checks.image_shape(image_shape)
        low, high = filters(wavelet)
        _, height, width = self.image_shape
        possible = 0
        while _even(height, width, possible) and min(height, width) >> possible > 4:
            possible += 1
        if levels is None:
            levels = possible
        self.wavelet, self.levels = wavelet, checks.integer(levels, "levels", minimum=0)
        for level in range(self.levels):
            if not _even(height, width, level):
                raise ValueError(
                    f"levels must be at most {level} for {height}×{width}, got {self.levels}"
                )
            for name, side in (("rows", height >> level), ("columns", width >> level)):
                self.register_buffer(f"{name}{level}", _analysis(low, high, side))

    def forward(self, x: Images) -> Images:
        """Ψ x, the coarsest block at the top left."""
        checks.same_kind(checks.images(x, self.image_shape), self, "x", "the transform")
        c = x.clone()
        for level in range(self.levels):
            block = self._block(c, level)
            block.copy_(self._matrix("rows", level) @ block @ self._matrix("columns", level).T)
        return c

    def inverse(self, c: Images) -> Images:
        """Ψᵀ c."""
        checks.same_kind(checks.images(c, self.image_shape, "c"), self, "c", "the transform")
        x = c.clone()
        for level in reversed(range(self.levels)):
            block = self._block(x, level)
            block.copy_(self._matrix("rows", level).T @ block @ self._matrix("columns", level))
        return x

    def blocks(self, c: Images) -> Iterator[Images]:
        """Views of each level's three detail blocks, finest first, and of the coarsest block."""
        _, height, width = self.image_shape
        for level in range(self.levels):
            h, w = height >> (level + 1), width >> (level + 1)
            yield c[..., :h, w : 2 * w]
            yield c[..., h : 2 * h, :w]
            yield c[..., h : 2 * h, w : 2 * w]
        yield self._block(c, self.levels)

    def _matrix(self, name: str, level: int) -> torch.Tensor:
        return self.get_buffer(f"{name}{level}")

    def _block(self, c: Images, level: int) -> Images:
        _, height, width = self.image_shape
        return c[..., : height >> level, : width >> level]

    def extra_repr(self) -> str:
        return f"image_shape={self.image_shape}, wavelet={self.wavelet!r}, levels={self.levels}"


def require_levels(basis: Wavelet) -> Wavelet:
    """`basis`; ValueError if it halves nothing, and so is the pixels."""
    if basis.levels == 0:
        _, height, width = basis.image_shape
        raise ValueError(
            "image_shape must have even sides of 6 or more for a wavelet basis, got"
            f" {height}×{width}, which Wavelet leaves as pixels; pad or crop the images, or take"
            " the DCT"
        )
    return basis


Transform = Pixels | DCT | Wavelet

TRANSFORMS: dict[str, Callable[[Sequence[int]], Transform]] = {
    "dct": DCT,
    "wavelet": Wavelet,
    "pixels": Pixels,
}


def _even(height: int, width: int, level: int) -> bool:
    """Whether both sides can be halved once more after `level` times."""
    side = 2 << level
    return height % side == 0 and width % side == 0


def filters(wavelet: str) -> tuple[np.ndarray, np.ndarray]:
    """The low-pass and the high-pass filter of an orthogonal wavelet of PyWavelets, by name."""
    import pywt

    if not isinstance(wavelet, str) or not wavelet:
        raise TypeError(f"wavelet must be the name of a wavelet, got {checks.shown(wavelet)}")
    try:
        bank = pywt.Wavelet(wavelet)
    except ValueError:
        raise ValueError(
            f"wavelet must be a discrete wavelet of PyWavelets, got {wavelet!r}"
        ) from None
    low, high = np.array(bank.dec_lo[::-1]), np.array(bank.dec_hi[::-1])
    shifts = [low[: len(low) - 2 * k] @ low[2 * k :] for k in range(len(low) // 2)]
    # "dmey", for one, calls itself orthogonal and is so to three digits.
    if not bank.orthogonal or abs(np.array(shifts) - np.eye(1, len(shifts))[0]).max() > 1e-9:
        raise ValueError(
            f"wavelet must be orthogonal, such as 'haar', 'db4' or 'sym4', got {wavelet!r}"
        )
    return low, high


def _analysis(low: np.ndarray, high: np.ndarray, side: int) -> Float[torch.Tensor, "side side"]:
    """One level in one dimension as a matrix: both filters at even shifts, wrapped around."""
    matrix = np.zeros((side, side))
    for row in range(side // 2):
        for k in range(len(low)):
            column = (2 * row + k + 1 - len(low) // 2) % side
            matrix[row, column] += low[k]
            matrix[side // 2 + row, column] += high[k]
    return torch.from_numpy(matrix)
