"""Linear measurement operators y = A x, forward and adjoint side by side.

An operator maps a batch of images (batch, channels, height, width) to a batch of measurements
(batch, m). Inner products are the plain ones over pixels and over measurements, so that

    ⟨A x, y⟩ = ⟨x, Aᵀ y⟩    for every x, y.
"""

from __future__ import annotations

import abc
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
from npgd.contents import contents
from npgd.images import Images, Measurements
from npgd.showing import Shown


class LinearOperator(Shown, nn.Module, abc.ABC):
    """A linear map from images to m measurements.

    A subclass writes `_forward` and `_adjoint`, both batched; the shapes are checked here.

    Args:
        image_shape: (channels, height, width).
        m: number of measurements, at least 1.
    """

    provenance: dict[str, Any]
    """Where it comes from, as plain numbers and words for JSON; what designs an operator fills it
    in, and `save_operator` keeps it."""
    complex_measurements: bool = False
    """Whether its m numbers are m/2 complex ones, real and imaginary part side by side."""

    def __init__(self, image_shape: Sequence[int], m: int) -> None:
        super().__init__()
        self.provenance = {}
        self.image_shape = checks.image_shape(image_shape)
        self.m = checks.integer(m, "m")
        self.n = math.prod(self.image_shape)
        self._known_norm: tuple[bytes | None, float] | None = None

    @abc.abstractmethod
    def _forward(self, x: Images) -> Measurements: ...

    @abc.abstractmethod
    def _adjoint(self, y: Measurements) -> Images: ...

    def forward(self, x: Images) -> Measurements:
        """A x for a batch of images. Raises TypeError or ValueError naming `x`."""
        x = self._own(checks.images(x, self.image_shape), "x")
        return self._forward(x) if len(x) else x.new_zeros(0, self.m)

    def adjoint(self, y: Measurements) -> Images:
        """Aᵀ y for a batch of measurements. Raises TypeError or ValueError naming `y`."""
        y = self._own(checks.measurements(y, self.m), "y")
        return self._adjoint(y) if len(y) else y.new_zeros(0, *self.image_shape)

    def measurements(self, y: Any) -> Measurements:
        """Measurements as people have them, as (batch, m).

        A numpy array becomes a tensor, in the precision of A where A has one. Of an operator with
        `complex_measurements` a complex y of shape (batch, …) becomes real and imaginary parts,
        side by side. Of an operator from outside, y may have the form that this gives it: the shape
        (batch, …), or a list of several.

        Raises:
            TypeError, ValueError: naming `y`, where it is not of such a kind.
        """
        y = self._as_measurements(y)
        if isinstance(y, np.ndarray):
            asked = self._asks_for()
            y = checks.from_numpy(y, "y", None if asked is None else asked[0])
        if isinstance(y, torch.Tensor) and y.is_complex() and y.layout == torch.strided:
            if not self.complex_measurements:
                raise TypeError(f"y must be real as the measurements of A are, got {y.dtype}")
            if y.ndim > 1 and 2 * math.prod(y.shape[1:]) == self.m:
                y = torch.view_as_real(y.resolve_conj()).reshape(len(y), self.m)
            else:
                raise ValueError(
                    f"y must have shape (batch, {self.m // 2}) where it is complex, got"
                    f" {tuple(y.shape)}"
                )
        return checks.measurements(y, self.m)

    def _as_measurements(self, y: Any) -> Any:
        """`measurements` of an operator with measurements of its own form."""
        return y

    @property
    def row_orthonormal(self) -> bool:
        """True only if A Aᵀ = I is certain, to the rounding of the dtype."""
        return False

    @property
    def fixed_precision(self) -> torch.dtype | None:
        """The precision of its products, whatever that of x is; None where they follow x."""
        return None

    def norm(self) -> float:
        """The largest singular value ‖A‖, kept until a tensor or a number of the operator changes.

        What changes inside an object of another library is not seen, unless it is a torch module.

        In closed form where there is one. Otherwise by Lanczos iterations on A Aᵀ or Aᵀ A,
        whichever is smaller, to the rounding of the operator's dtype, from a fixed first vector:
        the same operator gives the same number, up to the order in which BLAS sums.
        """
        inside = [part for part in self.modules() if isinstance(part, LinearOperator)]
        unseen = [part for each in inside for part in each._parts()]
        now = contents(self, *unseen, partly=True)
        if self._known_norm is None or self._known_norm[0] != now:
            self._known_norm = (now, self._norm())
        return self._known_norm[1]

    def _norm(self) -> float:
        dtype, device = self._kind()
        side = min(self.m, self.n)
        wide = self.m <= self.n
        unit = 1.0

        def once(vector: np.ndarray) -> torch.Tensor:
            v = torch.from_numpy(vector).reshape(1, side).to(device, dtype)
            return self.adjoint(v) if wide else self(v.reshape(1, *self.image_shape))

        @torch.no_grad()
        def gram(vector: np.ndarray) -> np.ndarray:
            v = once(vector) / unit
            v = (self(v) if wide else self.adjoint(v)) / unit
            return v.reshape(side).double().cpu().numpy()

        first = np.random.default_rng(0).standard_normal(side)
        image = gram(first)
        if not _holds_squares(image, dtype):
            with torch.no_grad():
                largest_entry = float(once(first).abs().max())
            if not largest_entry:
                return 0.0
            # A power of two: it rounds nothing.
            unit = 2.0 ** math.frexp(largest_entry)[1]
            image = gram(first)
        if side == 1:
            return unit * math.sqrt(float(image[0] / first[0]))
        tol = 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps
        product = scipy.sparse.linalg.LinearOperator((side, side), matvec=gram, dtype=np.float64)
        largest = scipy.sparse.linalg.eigsh(
            product, k=1, v0=first, tol=tol, return_eigenvectors=False
        )
        return unit * math.sqrt(max(float(largest[0]), 0.0))

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

    @property
    def title(self) -> str:
        """What reports call it."""
        return type(self).__name__

    def _settings(self) -> dict[str, Any]:
        """What the class is called with besides the image shape, by name, for a file; in JSON's
        kinds. Of a class of yours that takes more than the shape."""
        return {}

    def _kept(self, dtype: torch.dtype) -> int:
        """Bytes that products in a dtype leave behind, besides the operator's own tensors."""
        return 0

    def _parts(self) -> list[nn.Module]:
        """Modules inside that are not registered as such."""
        return []

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        """The dtype and device the operator works in; float64 where it holds only whole numbers."""
        where = (tensor.device for tensor in (*self.parameters(), *self.buffers()))
        return checks.kind(self) or (torch.float64, next(where, torch.device("cpu")))

    def extra_repr(self) -> str:
        return f"image_shape={self.image_shape}, m={self.m}"


def _holds_squares(image: np.ndarray, dtype: torch.dtype) -> bool:
    """Whether Aᵀ A v, or A Aᵀ v, and what Lanczos makes of it, are within the dtype's numbers."""
    least, most = checks.square_range(dtype)
    return least**2 <= float(np.abs(image).max()) <= most**2


FAR = 1e-3
"""From 0 in M Mᵀ − I: beyond what rounding makes."""


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
            kind = matrix.dtype.newbyteorder("=")
            if kind not in (np.float32, np.float64):
                raise TypeError(f"{name} must be float32 or float64, got {matrix.dtype}")
            if np.ma.is_masked(matrix):
                raise ValueError(f"{name} must have all its entries, got a masked array; fill it")
            matrix = torch.from_numpy(np.ascontiguousarray(matrix, kind))
        if not isinstance(matrix, torch.Tensor) or matrix.is_nested:
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
        """True if no entry of M Mᵀ − I exceeds 16 machine epsilons; computed at each call.

        Where its first rows are far from orthonormal, as of nearly every other M, nothing else is.
        """
        if self.m > self.n:
            return False
        eye = torch.eye(self.m, dtype=self.matrix.dtype, device=self.matrix.device)
        first = self.matrix[:4] @ self.matrix.T - eye[:4]
        if float(first.abs().max()) > FAR:
            return False
        deviation = (self.matrix @ self.matrix.T - eye).abs().max()
        return float(deviation) <= 16 * torch.finfo(self.matrix.dtype).eps


BLOCK = 2**16
"""Numbers drawn at a time. A multiple of 16, by which torch makes normal numbers."""


class Gaussian(MatrixOperator):
    """Compressed sensing: independent entries N(0, 1/m), so that E‖A x‖² = ‖x‖².

    Drawn in float64 on the CPU and then cast, so that one seed means one matrix; in blocks, so that
    no more than the matrix itself is held. For one that does not fit, see `StructuredRandom`.

    Args:
        image_shape: (channels, height, width).
        m: number of measurements.
        seed: of the draw.
        dtype: float32 or float64.

    Raises:
        TypeError, ValueError: naming the argument that does not fit; `m` where the matrix takes
            more than half of the memory that is free.
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
        size, free = m * n * dtype.itemsize, checks.free_memory()
        if size > free / 2:
            # A product in float64, as analysis needs it, takes a copy besides.
            raise ValueError(
                f"m must leave a matrix of at most half the free memory, got {m} for {m} × {n}"
                f" numbers, {size / 1e9:.3g} GB, where {free / 1e9:.3g} GB are free;"
                " npgd.StructuredRandom measures as well without a matrix"
            )
        LinearOperator.__init__(self, image_shape, m)
        self.register_buffer("matrix", _normal(m * n, m, generator, dtype).reshape(m, n))
        self.seed = checks.seed(seed)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, seed={self.seed}"


def _normal(
    count: int, m: int, generator: torch.Generator, dtype: torch.dtype
) -> Float[torch.Tensor, " count"]:
    """Numbers of N(0, 1/m): those of one draw of `count`, a block at a time.

    torch makes 16 normal numbers of 16 uniform ones, and draws the last 16 anew where they are
    fewer, so that blocks of a multiple of 16 with the rest in the last are the same as one.
    """
    drawn = torch.empty(count, dtype=dtype)
    ends = [*range(BLOCK, count - BLOCK + 1, BLOCK), count]
    for start, end in zip([0, *ends], ends, strict=False):
        block = torch.randn(end - start, generator=generator, dtype=torch.float64)
        drawn[start:end] = block.div_(math.sqrt(m))
    return drawn
