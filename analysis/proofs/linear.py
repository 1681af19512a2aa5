"""Linear maps of rows, (rows, n) to (rows, m), of which every product is a plain sum of products.

A proof needs more of a linear map M than M x: the transpose, |M| (every weight by its absolute
value), and how many products one entry of M x or of Mᵀ b sums, for the sum's rounding. Convolutions
are patches laid out in a row and a matrix product, so that no other algorithm (a Fourier transform,
Winograd's) comes in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float

Rows = Float[torch.Tensor, "rows n"]
FEW = 16
"""Places of a convolution: with no more it is faster to multiply all rows at once."""


class LinearMap(Protocol):
    """M, row by row."""

    @property
    def size(self) -> tuple[int, int]:
        """(m, n): of M x and of x."""
        ...

    @property
    def terms(self) -> tuple[int, int]:
        """The most products in one entry of M x, and in one of Mᵀ b."""
        ...

    @property
    def error(self) -> float:
        """ε: the map that is meant has every weight within ε |weight| of that of M."""
        ...

    def __call__(self, x: Rows) -> Rows:
        """M x."""
        ...

    def transpose(self, b: Rows) -> Rows:
        """Mᵀ b."""
        ...

    def absolute(self) -> LinearMap:
        """|M|."""
        ...


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix."""

    matrix: Float[torch.Tensor, "m n"]
    error: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def terms(self) -> tuple[int, int]:
        return self.matrix.shape[1], self.matrix.shape[0]

    def __call__(self, x: Rows) -> Rows:
        return x @ self.matrix.T

    def transpose(self, b: Rows) -> Rows:
        return b @ self.matrix

    def absolute(self) -> Dense:
        return replace(self, matrix=self.matrix.abs())


@dataclass(frozen=True, eq=False)
class Convolution:
    """`torch.nn.functional.conv2d` of images (channels, height, width), laid out in a row."""

    weight: Float[torch.Tensor, "out channels side side"]
    shape: tuple[int, int, int]
    stride: int
    padding: int
    error: float = 0.0

    @property
    def side(self) -> int:
        return self.weight.shape[-1]

    @property
    def out_shape(self) -> tuple[int, int, int]:
        high, wide = (
            (side + 2 * self.padding - self.side) // self.stride + 1 for side in self.shape[1:]
        )
        return self.weight.shape[0], high, wide

    @property
    def size(self) -> tuple[int, int]:
        return math.prod(self.out_shape), math.prod(self.shape)

    @property
    def terms(self) -> tuple[int, int]:
        area = self.side**2
        return self.weight.shape[1] * area, self.weight.shape[0] * area

    def __call__(self, x: Rows) -> Rows:
        patches = F.unfold(
            x.reshape(-1, *self.shape), self.side, padding=self.padding, stride=self.stride
        )
        return self._multiplied(self.weight.flatten(1), patches).flatten(1)

    def transpose(self, b: Rows) -> Rows:
        rows = b.reshape(len(b), self.weight.shape[0], -1)
        patches = self._multiplied(self.weight.flatten(1).T, rows)
        images = F.fold(
            patches, self.shape[1:], self.side, padding=self.padding, stride=self.stride
        )
        return images.flatten(1)

    def _multiplied(self, matrix: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """The matrix times (rows, n, places): of few places all rows in one product."""
        if columns.shape[2] > FEW:
            return matrix @ columns
        return F.linear(columns.transpose(1, 2), matrix).transpose(1, 2)

    def absolute(self) -> Convolution:
        return replace(self, weight=self.weight.abs())


@dataclass(frozen=True, eq=False)
class Repeated:
    """Each of m numbers n times in a row: 1 to a whole image, or a group's to its entries."""

    count: int
    times: int
    error: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        return self.count * self.times, self.count

    @property
    def terms(self) -> tuple[int, int]:
        return 1, self.times

    def __call__(self, x: Rows) -> Rows:
        return x.repeat_interleave(self.times, dim=1)

    def transpose(self, b: Rows) -> Rows:
        return b.reshape(len(b), self.count, self.times).sum(2)

    def absolute(self) -> Repeated:
        return self


@dataclass(frozen=True, eq=False)
class Scaled:
    """Every entry times its own number."""

    weight: Float[torch.Tensor, " n"]
    error: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        return len(self.weight), len(self.weight)

    @property
    def terms(self) -> tuple[int, int]:
        return 1, 1

    def __call__(self, x: Rows) -> Rows:
        return x * self.weight

    def transpose(self, b: Rows) -> Rows:
        return b * self.weight

    def absolute(self) -> Scaled:
        return replace(self, weight=self.weight.abs())


@dataclass(frozen=True, eq=False)
class Transposed:
    """Mᵀ."""

    of: LinearMap

    @property
    def error(self) -> float:
        return self.of.error

    @property
    def size(self) -> tuple[int, int]:
        m, n = self.of.size
        return n, m

    @property
    def terms(self) -> tuple[int, int]:
        out, back = self.of.terms
        return back, out

    def __call__(self, x: Rows) -> Rows:
        return self.of.transpose(x)

    def transpose(self, b: Rows) -> Rows:
        return self.of(b)

    def absolute(self) -> Transposed:
        return Transposed(self.of.absolute())


def transposed(map: LinearMap) -> LinearMap:
    """Mᵀ; M for a map that is a transpose itself."""
    return map.of if isinstance(map, Transposed) else Transposed(map)
