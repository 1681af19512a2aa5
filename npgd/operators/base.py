"""Linear measurement operators y = A x, forward and adjoint side by side.

An operator maps a batch of images (batch, channels, height, width) to a batch of measurements
(batch, m). Inner products are the plain ones over pixels and over measurements, so that

    ⟨A x, y⟩ = ⟨x, Aᵀ y⟩    for every x, y.
"""

from __future__ import annotations

import abc
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from jaxtyping import Float
from torch import nn

from npgd import checks
from npgd.images import Images, Measurements


class LinearOperator(nn.Module, abc.ABC):
    """A linear map from images to m measurements.

    A subclass writes `_forward` and `_adjoint`, both batched; the shapes are checked here.

    Args:
        image_shape: (channels, height, width).
        m: number of measurements, at least 1.
    """

    provenance: dict[str, Any]
    """Where it comes from, as plain numbers and words for JSON; what designs an operator fills it
    in, and `save_operator` keeps it."""

    def __init__(self, image_shape: Sequence[int], m: int) -> None:
        super().__init__()
        self.provenance = {}
        self.image_shape = checks.image_shape(image_shape)
        self.m = checks.integer(m, "m")
        self.n = math.prod(self.image_shape)
        self._known_norm: tuple[bytes, float] | None = None

    @abc.abstractmethod
    def _forward(self, x: Images) -> Measurements: ...

    @abc.abstractmethod
    def _adjoint(self, y: Measurements) -> Images: ...

    def forward(self, x: Images) -> Measurements:
        """A x for a batch of images. Raises TypeError or ValueError naming `x`."""
        return self._forward(self._own(checks.images(x, self.image_shape), "x"))

    def adjoint(self, y: Measurements) -> Images:
        """Aᵀ y for a batch of measurements. Raises TypeError or ValueError naming `y`."""
        return self._adjoint(self._own(checks.measurements(y, self.m), "y"))

    @property
    def row_orthonormal(self) -> bool:
        """True only if A Aᵀ = I is certain, to the rounding of the dtype."""
        return False

    def norm(self) -> float:
        """The largest singular value ‖A‖, kept until a tensor or a number of the operator changes.

        What changes inside an object of another library is not seen.

        In closed form where there is one. Otherwise by Lanczos iterations on A Aᵀ or Aᵀ A,
        whichever is smaller, to the rounding of the operator's dtype, from a fixed first vector:
        the same operator gives the same number, up to the order in which BLAS sums.
        """
        contents = _contents(self)
        if self._known_norm is None or self._known_norm[0] != contents:
            self._known_norm = (contents, self._norm())
        return self._known_norm[1]

    def _norm(self) -> float:
        dtype, device = self._kind()
        side = min(self.m, self.n)

        @torch.no_grad()
        def gram(vector: np.ndarray) -> np.ndarray:
            v = torch.from_numpy(vector).reshape(1, side).to(device, dtype)
            if self.m <= self.n:
                v = self(self.adjoint(v))
            else:
                v = self.adjoint(self(v.reshape(1, *self.image_shape)))
            return v.reshape(side).double().cpu().numpy()

        first = np.random.default_rng(0).standard_normal(side)
        image = gram(first)
        if not image.any():
            return 0.0
        if side == 1:
            return math.sqrt(float(image[0] / first[0]))
        tol = 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps
        product = scipy.sparse.linalg.LinearOperator((side, side), matvec=gram, dtype=np.float64)
        largest = scipy.sparse.linalg.eigsh(
            product, k=1, v0=first, tol=tol, return_eigenvectors=False
        )
        return math.sqrt(max(float(largest[0]), 0.0))

    def _asks_for(self) -> tuple[torch.dtype, torch.device] | None:
        """The dtype and device that x and y must have; None where any will do."""
        return checks.kind(self)

    def _own(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        asked, came = self._asks_for(), (tensor.dtype, tensor.device)
        if asked is not None and asked[0] != came[0]:
            raise TypeError(
                f"{name} must be {asked[0]} as A is, got {came[0]}; convert one of them, for"
                f" instance A.to({came[0]})"
            )
        if asked is not None and asked[1] != came[1]:
            raise ValueError(
                f"{name} must be on {asked[1]} as A is, got {came[1]}; move one of them, for"
                f" instance A.to({str(came[1])!r})"
            )
        return tensor

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        """The dtype and device the operator works in; float64 on the CPU where it has none."""
        return checks.kind(self) or (torch.float64, torch.device("cpu"))

    def extra_repr(self) -> str:
        return f"image_shape={self.image_shape}, m={self.m}"


def _contents(module: nn.Module) -> bytes:
    """A digest of all tensors, arrays, numbers and words in a module and those inside it.

    By value: an edit through `.data` or of an array that shares memory leaves no other trace.
    """
    digest = hashlib.blake2b()
    for part in module.modules():
        own = [value for name, value in vars(part).items() if name != "_known_norm"]
        for value in (*part.parameters(recurse=False), *part.buffers(recurse=False), *own):
            if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                digest.update(f"{value.dtype} {value.device} {tuple(value.shape)}".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
            elif isinstance(value, np.ndarray) and value.dtype != object:
                digest.update(f"{value.dtype} {value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
            elif isinstance(value, bool | int | float | str | tuple):
                digest.update(repr(value).encode())
    return digest.digest()


class MatrixOperator(LinearOperator):
    """A x = M vec(x), with vec in channel, row, column order.

    Args:
        matrix: (m, n), torch or numpy, float32 or float64, finite; n = prod(image_shape).
            Images and measurements must have its dtype; `.to(torch.float32)` casts it.
        image_shape: (channels, height, width).
        name: what messages call the matrix.

    Raises:
        TypeError: no dense float32 or float64 matrix.
        ValueError: a shape that does not fit `image_shape`, or NaN or infinity in it.
    """

    matrix: Float[torch.Tensor, "m n"]

    def __init__(
        self, matrix: torch.Tensor | np.ndarray, image_shape: Sequence[int], name: str = "matrix"
    ) -> None:
        if isinstance(matrix, np.ndarray):
            if matrix.dtype not in (np.float32, np.float64):
                raise TypeError(f"{name} must be float32 or float64, got {matrix.dtype}")
            matrix = torch.from_numpy(np.ascontiguousarray(matrix))
        if not isinstance(matrix, torch.Tensor):
            raise TypeError(f"{name} must be a torch or numpy matrix, got {type(matrix).__name__}")
        if matrix.layout != torch.strided:
            raise TypeError(
                f"{name} must be dense, got {matrix.layout}; give a sparse one as scipy's to"
                " npgd.as_operator"
            )
        if matrix.dtype not in (torch.float32, torch.float64) or matrix.is_meta:
            came = "one without data" if matrix.is_meta else matrix.dtype
            raise TypeError(f"{name} must be float32 or float64, got {came}")
        n = math.prod(checks.image_shape(image_shape))
        if matrix.ndim != 2 or matrix.shape[1] != n or matrix.shape[0] < 1:
            raise ValueError(
                f"{name} must have shape (m, {n}), m at least 1, for image_shape"
                f" {tuple(image_shape)}, got {tuple(matrix.shape)}"
            )
        checks.finite(matrix, name)
        super().__init__(image_shape, matrix.shape[0])
        self.register_buffer("matrix", matrix.detach().clone())

    def _forward(self, x: Images) -> Measurements:
        return x.flatten(1) @ self.matrix.T

    def _adjoint(self, y: Measurements) -> Images:
        return (y @ self.matrix).reshape(-1, *self.image_shape)

    @property
    def row_orthonormal(self) -> bool:
        """True if no entry of M Mᵀ − I exceeds 16 machine epsilons; computed at each call."""
        if self.m > self.n:
            return False
        eye = torch.eye(self.m, dtype=self.matrix.dtype, device=self.matrix.device)
        deviation = (self.matrix @ self.matrix.T - eye).abs().max()
        return float(deviation) <= 16 * torch.finfo(self.matrix.dtype).eps


class Gaussian(MatrixOperator):
    """Compressed sensing: independent entries N(0, 1/m), so that E‖A x‖² = ‖x‖².

    Drawn in float64 on the CPU and then cast, so that one seed means one matrix.

    Args:
        image_shape: (channels, height, width).
        m: number of measurements.
        seed: of the draw.
        dtype: float32 or float64.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        m: int,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        n = math.prod(checks.image_shape(image_shape))
        m = checks.integer(m, "m")
        checks.floating_type(dtype)
        generator = checks.seeded(seed)
        checks.room(m, "m", m * n)
        matrix = torch.randn(m, n, generator=generator, dtype=torch.float64)
        super().__init__((matrix / math.sqrt(m)).to(dtype), image_shape)
        self.seed = checks.seed(seed)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, seed={self.seed}"
