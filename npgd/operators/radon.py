"""The parallel-beam Radon transform: line integrals of every channel, by angle."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator
from npgd.operators.products import product_of

MOST_ANGLES = 2**20
MOST_ENTRIES = 2**22
"""Of a dense matrix that is kept, 32 MB in float64: eleven angles of an image of 64 × 64 pixels."""
MOST_WEIGHTS = 2**24
"""Of a sparse one, 200 MB in float64: ninety angles of an image of 256 × 256 pixels."""
PER_STEP = 2
"""Weights of a ray for each pixel of the longer side, at most, in the mean over rays: 1.6 is
found."""


class Radon(LinearOperator):
    """Line integrals, y_{c,θ,s} = Σ_t x_c(s cos θ − t sin θ, s sin θ + t cos θ), unit steps in t.

    (0, 0) is the middle of the image, s the detector's distance from it and θ the angle, both in
    unit steps of pixels; at 0 degrees the rays run down the columns. Between pixels x is bilinear,
    and 0 outside, as for a rotated image whose columns are summed. The adjoint spreads y with the
    same weights: it is exact, no interpolated back-projection. m = channels × angles × detectors.
    On the CPU the weights are kept after the first product, up to 200 MB, for all operators alike.

    Args:
        image_shape: (channels, height, width).
        angles: in degrees; a number of them means that many, even over 180 degrees, from 0 on.
        detectors: by default as many as see the whole image, ⌈√(height² + width²)⌉, or one more, so
            that at 0 degrees they stand on the columns.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        angles: int | Sequence[float] = 60,
        detectors: int | None = None,
    ) -> None:
        channels, height, width = checks.image_shape(image_shape)
        listed = _angles(angles)
        if detectors is None:
            detectors = math.ceil(math.hypot(height, width))
            detectors += (detectors - width) % 2
        else:
            detectors = checks.integer(detectors, "detectors", maximum=2**20)
        super().__init__(image_shape, channels * len(listed) * detectors)
        self.angles = listed
        self.detectors = detectors

    @property
    def _matrix(self) -> bool:
        """Whether products are by a matrix, the same for every channel, which is kept."""
        _, height, width = self.image_shape
        return len(self.angles) * self.detectors * height * width <= MOST_ENTRIES

    @property
    def _weights(self) -> int:
        """Numbers of a sparse matrix, at most; 0 where there is none."""
        _, height, width = self.image_shape
        count = PER_STEP * len(self.angles) * self.detectors * max(height, width)
        large = count > MOST_WEIGHTS or height * width > np.iinfo(INDEX).max
        return 0 if self._matrix or large else count

    def _kept(self, dtype: torch.dtype) -> int:
        _, height, width = self.image_shape
        if self._matrix:
            return len(self.angles) * self.detectors * height * width * dtype.itemsize
        return self._weights * (dtype.itemsize + INDEX.itemsize)

    def _is_sparse(self, like: torch.Tensor) -> bool:
        known = like.dtype in (torch.float32, torch.float64) and like.device.type == "cpu"
        return known and self._weights > 0

    def _project(self, x: Images) -> Measurements:
        """A x, by the sparse matrix."""
        kept = _stored(self.image_shape[1:], self.angles, self.detectors, x.dtype)
        y = kept @ x.reshape(-1, kept.shape[1]).numpy().T
        return torch.from_numpy(y.T).reshape(len(x), self.m)

    def _spread(self, y: Measurements) -> Images:
        """Aᵀ y, by the sparse matrix."""
        kept = _stored(self.image_shape[1:], self.angles, self.detectors, y.dtype)
        x = kept.T @ y.reshape(-1, kept.shape[0]).numpy().T
        return torch.from_numpy(x.T).reshape(len(y), *self.image_shape)

    def _rows(self, like: torch.Tensor) -> torch.Tensor:
        return _rows(self.image_shape[1:], self.angles, self.detectors, like.dtype, like.device)

    def _rays(self, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return _rays(self.image_shape[1:], self.angles, self.detectors, device)

    def _forward(self, x: Images) -> Measurements:
        flat = x.flatten(2)
        if self._matrix:
            return (flat @ self._rows(x).T).flatten(1)
        if self._is_sparse(x):
            return product_of(x, self._project, self._spread)
        projections = [
            (flat[:, :, places] * weights.to(flat)).sum((2, 3))
            for places, weights in self._rays(x.device)
        ]
        return torch.stack(projections, dim=2).flatten(1)

    def _adjoint(self, y: Measurements) -> Images:
        channels, height, width = self.image_shape
        if self._matrix:
            rows = y.reshape(len(y), channels, -1) @ self._rows(y)
            return rows.reshape(-1, *self.image_shape)
        if self._is_sparse(y):
            return product_of(y, self._spread, self._project)
        projections = y.reshape(len(y), channels, len(self.angles), self.detectors)
        image = y.new_zeros(len(y), channels, height * width)
        for k, (places, weights) in enumerate(self._rays(y.device)):
            spread = projections[:, :, k, None, None] * weights.to(y)
            image = image.index_add(2, places.flatten(), spread.flatten(2))
        return image.reshape(-1, *self.image_shape)

    def extra_repr(self) -> str:
        angles = len(self.angles)
        return f"{super().extra_repr()}, {angles} angles, detectors={self.detectors}"


def _rays(
    sides: tuple[int, int], angles: tuple[float, ...], detectors: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of every angle the four neighbours of each point of each ray, and their weights.

    (4, points, detectors), as flat places of an image; the weight outside is 0.
    """
    height, width = sides
    reach = math.ceil(math.hypot(height, width)) // 2 + 1
    t = torch.arange(-reach, reach + 1, dtype=torch.float64, device=device)[:, None]
    t = t + (height - 1) % 2 / 2
    s = torch.arange(detectors, dtype=torch.float64, device=device)
    s = s - (detectors - 1) / 2
    for angle in angles:
        cos, sin = (round(f(math.radians(angle)), 15) for f in (math.cos, math.sin))
        across = s * cos - t * sin + (width - 1) / 2
        down = s * sin + t * cos + (height - 1) / 2
        left, top = across.floor(), down.floor()
        places, weights = [], []
        for i in (top, top + 1):
            for j in (left, left + 1):
                inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
                weight = (1 - (down - i).abs()) * (1 - (across - j).abs())
                weights.append(torch.where(inside, weight, 0.0))
                places.append(torch.where(inside, i * width + j, 0.0).long())
        yield torch.stack(places), torch.stack(weights)


INDEX = np.dtype(np.int32)


@functools.lru_cache(maxsize=2)
def _stored(
    sides: tuple[int, int], angles: tuple[float, ...], detectors: int, dtype: torch.dtype
) -> scipy.sparse.csr_array:
    """A of one channel, (angles · detectors, height · width), without its zeros."""
    found, shape = [], (detectors, math.prod(sides))
    ray = np.arange(detectors, dtype=INDEX)
    for places, weights in _rays(sides, angles, detectors, torch.device("cpu")):
        kept = (weights != 0).numpy()
        index = np.broadcast_to(ray, kept.shape)[kept], places.numpy()[kept].astype(INDEX)
        rows = scipy.sparse.coo_array((weights.numpy()[kept], index), shape=shape).tocsr()
        found.append(rows.astype(str(dtype).removeprefix("torch.")))
    return scipy.sparse.vstack(found, format="csr")


@functools.lru_cache(maxsize=4)
def _rows(
    sides: tuple[int, int],
    angles: tuple[float, ...],
    detectors: int,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """A of one channel, (angles · detectors, height · width)."""
    n, found = math.prod(sides), []
    first = n * torch.arange(detectors, device=device)
    with torch.inference_mode(False):  # what is kept may be asked for a gradient later
        for places, weights in _rays(sides, angles, detectors, device):
            rows = weights.new_zeros(detectors * n)
            rows = rows.index_add(0, (places + first).flatten(), weights.flatten())
            found.append(rows.reshape(detectors, n).to(dtype))
        return torch.cat(found)


def _angles(angles: Any) -> tuple[float, ...]:
    wrong = f"angles must be numbers in a row, or how many, got {checks.shown(angles)}"
    if isinstance(angles, str | bytes | bytearray | dict | set):
        raise TypeError(wrong)
    try:
        listed = list(angles)
    except TypeError:  # no row of them
        count = checks.integer(angles, "angles", maximum=MOST_ANGLES)
        return tuple(180 * k / count for k in range(count))
    if not 1 <= len(listed) <= MOST_ANGLES:
        raise ValueError(f"angles must be 1 to {MOST_ANGLES}, got {len(listed)}")
    return tuple(checks.number(angle, "angles", negative=True) for angle in listed)
