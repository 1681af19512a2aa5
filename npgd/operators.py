"""Linear measurement operators y = A x, forward and adjoint side by side.

An operator maps a batch of images (batch, channels, height, width) to a batch of measurements
(batch, m). Inner products are the plain ones over pixels and over measurements, so that

    ⟨A x, y⟩ = ⟨x, Aᵀ y⟩    for every x, y.
"""

import abc
import copy
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save as serialise
from torch import nn
from torch.nn import functional

from npgd import checks
from npgd.files import read_tensors, write_atomically

Images = Float[torch.Tensor, "batch channels height width"]
Measurements = Float[torch.Tensor, "batch m"]


class LinearOperator(nn.Module, abc.ABC):
    """A linear map from images to m measurements.

    A subclass writes `_forward` and `_adjoint`, both batched; the shapes are checked here.

    `provenance` says where it comes from, as plain numbers and words for JSON; what designs an
    operator fills it in, and `save_operator` keeps it.

    Args:
        image_shape: (channels, height, width).
        m: number of measurements, at least 1.
    """

    def __init__(self, image_shape: Sequence[int], m: int) -> None:
        super().__init__()
        self.provenance: dict[str, Any] = {}
        self.image_shape = checks.image_shape(image_shape)
        self.m = checks.integer(m, "m")
        self.n = math.prod(self.image_shape)
        self._known_norm: tuple[object, float] | None = None

    @abc.abstractmethod
    def _forward(self, x: Images) -> Measurements: ...

    @abc.abstractmethod
    def _adjoint(self, y: Measurements) -> Images: ...

    def forward(self, x: Images) -> Measurements:
        """A x for a batch of images. Raises TypeError or ValueError naming `x`."""
        return self._forward(checks.images(x, self.image_shape))

    def adjoint(self, y: Measurements) -> Images:
        """Aᵀ y for a batch of measurements. Raises TypeError or ValueError naming `y`."""
        return self._adjoint(checks.measurements(y, self.m))

    @property
    def row_orthonormal(self) -> bool:
        """True only if A Aᵀ = I is certain, to the rounding of the dtype."""
        return False

    def norm(self) -> float:
        """The largest singular value ‖A‖, kept until a buffer changes.

        In closed form where there is one. Otherwise by Lanczos iterations on A Aᵀ or Aᵀ A,
        whichever is smaller, to the rounding of the operator's dtype, from a fixed start: the
        same operator gives the same number, up to the order in which BLAS sums.
        """
        version = tuple((b.dtype, b.data_ptr(), b._version) for b in self.buffers())
        if self._known_norm is None or self._known_norm[0] != version:
            self._known_norm = (version, self._norm())
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

        start = np.random.default_rng(0).standard_normal(side)
        image = gram(start)
        if not image.any():
            return 0.0
        if side == 1:
            return math.sqrt(float(image[0] / start[0]))
        tol = 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps
        product = scipy.sparse.linalg.LinearOperator((side, side), matvec=gram, dtype=np.float64)
        largest = scipy.sparse.linalg.eigsh(
            product, k=1, v0=start, tol=tol, return_eigenvectors=False
        )
        return math.sqrt(max(float(largest[0]), 0.0))

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        """The dtype and device the operator works in; float64 on the CPU where it has none."""
        return checks.kind(self) or (torch.float64, torch.device("cpu"))

    def extra_repr(self) -> str:
        return f"image_shape={self.image_shape}, m={self.m}"


class MatrixOperator(LinearOperator):
    """A x = M vec(x), with vec in channel, row, column order.

    Args:
        matrix: (m, n), torch or numpy, float32 or float64, finite; n = prod(image_shape).
            Images and measurements must have its dtype; `.to(torch.float32)` casts it.
        image_shape: (channels, height, width).
    """

    matrix: Float[torch.Tensor, "m n"]

    def __init__(self, matrix: torch.Tensor | np.ndarray, image_shape: Sequence[int]) -> None:
        if isinstance(matrix, np.ndarray):
            if matrix.dtype not in (np.float32, np.float64):
                raise TypeError(f"matrix must be float32 or float64, got {matrix.dtype}")
            matrix = torch.from_numpy(np.ascontiguousarray(matrix))
        if not isinstance(matrix, torch.Tensor):
            raise TypeError(f"matrix must be a torch or numpy matrix, got {type(matrix).__name__}")
        if matrix.layout != torch.strided:
            raise TypeError(f"matrix must be dense, got {matrix.layout}; give a scipy sparse one")
        if matrix.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"matrix must be float32 or float64, got {matrix.dtype}")
        n = math.prod(checks.image_shape(image_shape))
        if matrix.ndim != 2 or matrix.shape[1] != n or matrix.shape[0] < 1:
            raise ValueError(
                f"matrix has shape {tuple(matrix.shape)}, expected (m, {n}) with m at least 1"
                f" for image_shape {tuple(image_shape)}"
            )
        checks.finite(matrix, "matrix")
        super().__init__(image_shape, matrix.shape[0])
        self.register_buffer("matrix", matrix.detach().clone())

    def _forward(self, x: Images) -> Measurements:
        return self._like_matrix(x, "x").flatten(1) @ self.matrix.T

    def _adjoint(self, y: Measurements) -> Images:
        return (self._like_matrix(y, "y") @ self.matrix).reshape(-1, *self.image_shape)

    def _like_matrix(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        if tensor.dtype != self.matrix.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} but the matrix is {self.matrix.dtype};"
                f" convert one of them, for instance A.to({tensor.dtype})"
            )
        if tensor.device != self.matrix.device:
            raise ValueError(
                f"{name} is on {tensor.device} but the matrix is on {self.matrix.device};"
                f" move one of them, for instance A.to({str(tensor.device)!r})"
            )
        return tensor

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
        generator = torch.Generator().manual_seed(checks.integer(seed, "seed", minimum=0))
        matrix = torch.randn(m, n, generator=generator, dtype=torch.float64)
        super().__init__((matrix / math.sqrt(m)).to(dtype), image_shape)
        self.seed = seed

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, seed={self.seed}"


class Inpainting(LinearOperator):
    """The measured pixels, one after another: rows of the identity, so A Aᵀ = I and ‖A‖ = 1.

    Aᵀ y is the image with zeros where nothing was measured. Give one of `hole` and `mask`.

    Args:
        image_shape: (channels, height, width).
        hole: side in pixels of the centred square that is missing from every channel (Raj, Li
            and Bresler, ICCV 2019, Section 5.2); from 0 to the shorter side of the image.
        mask: boolean, (height, width) or image_shape; True where a pixel is measured
            (:func:`scattered_boxes` makes one).
    """

    index: torch.Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        hole: int | None = None,
        mask: Bool[torch.Tensor, "..."] | np.ndarray | None = None,
    ) -> None:
        shape = checks.image_shape(image_shape)
        if (hole is None) == (mask is None):
            raise ValueError("give one of hole and mask, not both and not neither")
        name = "hole" if mask is None else "mask"
        measured = _without_hole(shape, hole) if mask is None else _checked_mask(shape, mask)
        index = measured.expand(shape).flatten().nonzero()[:, 0]
        if index.numel() == 0:
            given = f"hole={hole}" if mask is None else "mask with no True entry"
            raise ValueError(f"{name} keeps no pixel of image_shape {shape}: {given}")
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
    """A mask for :class:`Inpainting`: False in `boxes` squares of `side` pixels, True elsewhere.

    Their places are independent and uniform among those inside the image, so that boxes may
    overlap; the first boxes of a larger number with the same seed are the same.

    Raises:
        ValueError: a side that exceeds the image's, or boxes that leave no pixel.
    """
    _, height, width = checks.image_shape(image_shape)
    checks.integer(boxes, "boxes")
    side = checks.integer(side, "side")
    if side > min(height, width):
        raise ValueError(f"side must be at most {min(height, width)}, got {side}")
    generator = torch.Generator().manual_seed(checks.integer(seed, "seed", minimum=0))
    # One number after another: a large draw of torch.rand does not begin as a small one does.
    places = [torch.rand(2, generator=generator, dtype=torch.float64) for _ in range(boxes)]
    measured = torch.ones(height, width, dtype=torch.bool)
    for down, across in places:
        top = int(down * (height - side + 1))
        left = int(across * (width - side + 1))
        measured[top : top + side, left : left + side] = False
    if not measured.any():
        raise ValueError(f"boxes: {boxes} of side {side} leave no pixel of {height}×{width}")
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


def _checked_mask(shape: checks.ImageShape, mask: Any) -> torch.Tensor:
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(np.ascontiguousarray(mask))
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"mask must be a boolean tensor, True where measured, got {kind}")
    if tuple(mask.shape) not in (shape, shape[1:]):
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {shape[1:]} or {shape}")
    return mask


class SuperResolution(LinearOperator):
    """The mean over every factor×factor box, channel by channel; A Aᵀ = I/factor².

    Args:
        image_shape: (channels, height, width); factor must divide height and width.
        factor: side of the box in pixels.
    """

    def __init__(self, image_shape: Sequence[int], factor: int = 2) -> None:
        channels, height, width = checks.image_shape(image_shape)
        factor = checks.integer(factor, "factor")
        if height % factor or width % factor:
            raise ValueError(f"factor {factor} does not divide image_shape {tuple(image_shape)}")
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


class SubsampledDCT(LinearOperator):
    """m coefficients of the orthonormal two-dimensional DCT-II of every channel, so A Aᵀ = I.

    Coefficient (c, u, v) of x is Σ_ij C_ui C_vj x_cij with C the orthonormal DCT-II matrix; the two
    products cost n (height + width) operations, and no m × n matrix is made. Give `index`, or `m`
    and a seed to draw the coefficients, all different.

    Args:
        image_shape: (channels, height, width).
        m: number of coefficients, at most n.
        seed: of the draw.
        weights: (n,), not negative, at least m of them positive: one coefficient after another is
            drawn with probability ∝ its weight among those that are left; by default uniformly.
        index: (m,), the coefficients themselves, flat in channel, row, column order.
    """

    index: Int[torch.Tensor, " m"]
    vertical: Float[torch.Tensor, "height height"]
    horizontal: Float[torch.Tensor, "width width"]

    def __init__(
        self,
        image_shape: Sequence[int],
        m: int | None = None,
        seed: int = 0,
        weights: Float[torch.Tensor, " n"] | None = None,
        index: Int[torch.Tensor, " m"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = checks.image_shape(image_shape)
        n = math.prod(shape)
        if (m is None) == (index is None):
            raise ValueError("give one of m and index, not both and not neither")
        if index is None:
            index = _drawn(n, checks.integer(m, "m"), seed, weights)
        elif (
            not isinstance(index, torch.Tensor)
            or index.dtype != torch.int64
            or index.ndim != 1
            or not 1 <= len(index) == len(index.unique())
            or not 0 <= int(index.min()) <= int(index.max()) < n
        ):
            raise ValueError(f"index must be different int64 numbers from 0 to {n - 1}")
        super().__init__(shape, len(index))
        self.register_buffer("index", index.detach().clone())
        self.register_buffer("vertical", _dct_matrix(shape[1]).to(dtype))
        self.register_buffer("horizontal", _dct_matrix(shape[2]).to(dtype))

    def _forward(self, x: Images) -> Measurements:
        coefficients = self.vertical @ x @ self.horizontal.T
        return coefficients.flatten(1).index_select(1, self.index)

    def _adjoint(self, y: Measurements) -> Images:
        coefficients = y.new_zeros(y.shape[0], self.n).index_copy_(1, self.index, y)
        return self.vertical.T @ coefficients.reshape(-1, *self.image_shape) @ self.horizontal

    @property
    def row_orthonormal(self) -> bool:
        return True

    def norm(self) -> float:
        return 1.0


def _drawn(
    n: int, m: int, seed: int, weights: Float[torch.Tensor, " n"] | None
) -> Int[torch.Tensor, " m"]:
    """m of n without replacement, one after another with probability ∝ weight, in order.

    The m largest of log weight + Gumbel noise are such a draw (Efraimidis and Spirakis, 2006).
    """
    if weights is None:
        weights = torch.ones(n, dtype=torch.float64)
    checks.finite(checks.floating(weights, "weights"), "weights")
    if tuple(weights.shape) != (n,) or float(weights.min()) < 0:
        raise ValueError(
            f"weights must be {n} numbers, none negative; got shape {tuple(weights.shape)},"
            f" least {float(weights.min()):.4g}"
        )
    possible = int((weights > 0).sum())
    if m > possible:
        raise ValueError(f"m must be at most {possible}, the coefficients there are, got {m}")
    generator = torch.Generator().manual_seed(checks.integer(seed, "seed", minimum=0))
    uniform = torch.rand(n, generator=generator, dtype=torch.float64).clamp_min_(2.0**-54)
    keys = weights.detach().cpu().double().log() - (-uniform.log()).log()
    return keys.topk(m).indices.sort().values


def _dct_matrix(side: int) -> Float[torch.Tensor, "side side"]:
    """C_ui = sqrt((2 − [u = 0]) / side) cos(π (2i + 1) u / (2 side)), orthonormal."""
    u = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * u + 1) * u[:, None] / (2 * side)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


class Whitened(LinearOperator):
    """(A Aᵀ)^(-1/2) A, the row-orthonormal form of A; made by `whiten`.

    `whiten(y)` gives the measurements that go with it, (A Aᵀ)^(-1/2) y, so that

        W = npgd.whiten(A);    npgd.recover(W, W.whiten(y), …)

    recovers from measurements y of A.
    """

    whitening: torch.Tensor  # (m, m), or () for a multiple of the identity
    condition: float
    """‖A‖ over the least singular value of A, which rounding errors are multiplied by."""

    def __init__(self, operator: LinearOperator, whitening: torch.Tensor, condition: float) -> None:
        super().__init__(operator.image_shape, operator.m)
        self.operator = operator
        self.condition = condition
        self.register_buffer("whitening", whitening)

    def whiten(self, y: Measurements) -> Measurements:
        """(A Aᵀ)^(-1/2) y for measurements y of A."""
        checks.measurements(y, self.m)
        whitening = self.whitening.to(y)
        return y @ whitening.T if whitening.ndim else y * whitening

    def _forward(self, x: Images) -> Measurements:
        return self.whiten(self.operator(x))

    def _adjoint(self, y: Measurements) -> Images:
        whitening = self.whitening.to(y)
        return self.operator.adjoint(y @ whitening if whitening.ndim else y * whitening)

    @property
    def row_orthonormal(self) -> bool:
        # Rounding is multiplied by the condition; sixteen epsilons, as for a matrix.
        return self.condition <= 16

    def _norm(self) -> float:
        return 1.0


class WhitenedMatrix(Whitened, MatrixOperator):
    """`Whitened` for a matrix: (M Mᵀ)^(-1/2) M itself, one product where `Whitened` needs two."""

    def __init__(
        self, matrix: torch.Tensor, image_shape: Sequence[int], whitening: torch.Tensor,
        condition: float,
    ) -> None:  # fmt: skip
        MatrixOperator.__init__(self, matrix, image_shape)
        self.condition = condition
        self.register_buffer("whitening", whitening)

    _forward = MatrixOperator._forward
    _adjoint = MatrixOperator._adjoint
    row_orthonormal = MatrixOperator.row_orthonormal


@torch.no_grad()
def whiten(A: LinearOperator) -> Whitened:
    """A in its row-orthonormal form (A Aᵀ)^(-1/2) A, whose `whiten(y)` transforms measurements.

    With it ‖A‖ = 1, so that β ≤ 1 and the step 1/β are certain on every set. Both forms see the
    same: the row space is that of A, and y is transformed without loss. But the fit is weighed
    anew, and so is noise: v ~ N(0, σ²I) becomes N(0, σ²(A Aᵀ)⁻¹), amplified by 1/σ_i in the i-th
    singular direction of A, by up to 1/σ_min(A).

    A Aᵀ is known for `SuperResolution` (I/factor²) and operators that are row-orthonormal (I).
    For others it is formed, m × m in float64, by m products with A (in float64 where A can be
    converted), and decomposed into eigenvalues. A matrix becomes a matrix, and Newton steps remove
    what the squared condition number cost; anything else stays matrix-free.

    Raises:
        TypeError: A is no LinearOperator.
        ValueError: A Aᵀ is singular to the precision of A; the message says which rank it has.
            Singular values up to the largest times max(m, n) machine epsilons of A's dtype, or
            times sqrt(m ε) of float64 (about 1e-7), count as zero.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {type(A).__name__}; see as_operator")
    dtype, device = A._kind()
    result: Whitened
    if isinstance(A, SuperResolution) or A.row_orthonormal:
        scale = A.factor if isinstance(A, SuperResolution) else 1.0
        result = Whitened(A, torch.tensor(float(scale), dtype=dtype, device=device), 1.0)
    else:
        matrix = A.matrix.double() if isinstance(A, MatrixOperator) else None
        gram = matrix @ matrix.T if matrix is not None else _gram(A)
        values, vectors = torch.linalg.eigh(gram)
        least = max((max(A.m, A.n) * torch.finfo(dtype).eps) ** 2, A.m * 2.0**-52) * values[-1]
        rank = int((values > least).sum())
        if rank < A.m:
            raise ValueError(
                f"A: A Aᵀ is singular, of rank {rank} at m = {A.m}; drop measurements that the"
                " others determine"
            )
        condition = math.sqrt(float(values[-1] / values[0]))
        whitening = (vectors / values.sqrt()) @ vectors.T
        if matrix is not None:
            white = whitening @ matrix
            for _ in range(5):
                # W Wᵀ is I but for rounding times condition²; Newton's step squares what is left.
                rest = torch.eye(A.m, dtype=white.dtype, device=device) - white @ white.T
                if float(rest.abs().max()) <= 4 * 2.0**-52:
                    break
                whitening = whitening + 0.5 * rest @ whitening
                white = white + 0.5 * rest @ white
            result = WhitenedMatrix(white.to(dtype), A.image_shape, whitening.to(dtype), condition)
        else:
            result = Whitened(A, whitening.to(device, dtype), condition)
    result.provenance = {"method": "whiten", "of": A.provenance or {"method": str(A)}}
    return result


def _gram(A: LinearOperator) -> Float[torch.Tensor, "m m"]:
    """A Aᵀ in float64, a few hundred columns at a time."""
    if checks.kind(A) is not None:
        A = copy.deepcopy(A).double()
    dtype, device = A._kind()
    eye = torch.eye(A.m, dtype=dtype, device=device)
    gram = torch.cat([A(A.adjoint(rows)).double() for rows in eye.split(256)])
    return (gram + gram.T) / 2


def as_operator(obj: Any, image_shape: Sequence[int]) -> LinearOperator:
    """Any linear operator as a LinearOperator on images of shape (channels, height, width).

    Takes a LinearOperator of this package, a torch or numpy matrix, a scipy sparse matrix or
    LinearOperator, a pylops LinearOperator (or any object with `shape`, `matvec`, `rmatvec`),
    and a deepinv physics (any object with `A` and `A_adjoint`; its measurements are flattened
    to (batch, m)). Objects of other libraries work through their own products, differentiable
    here, and nothing is made dense; one random pair x, y tests at once that ⟨Ax, y⟩ = ⟨x, Aᵀy⟩.

    Raises:
        TypeError: the object is none of these, or complex.
        ValueError: its shape does not fit `image_shape`, it holds NaN, or its adjoint is wrong.
    """
    shape = checks.image_shape(image_shape)
    if isinstance(obj, LinearOperator):
        if obj.image_shape != shape:
            raise ValueError(f"obj has image_shape {obj.image_shape}, expected {shape}")
        return obj
    if isinstance(obj, torch.Tensor | np.ndarray):
        return MatrixOperator(obj, shape)
    wrapped: LinearOperator
    if scipy.sparse.issparse(obj):
        if not np.isfinite(obj.data).all():
            raise ValueError("obj holds NaN or infinity")
        wrapped = _ArrayOperator(scipy.sparse.linalg.aslinearoperator(obj), shape)
    elif callable(getattr(obj, "A", None)) and callable(getattr(obj, "A_adjoint", None)):
        wrapped = _PhysicsOperator(obj, shape)
    elif all(hasattr(obj, name) for name in ("shape", "matvec", "rmatvec")):
        wrapped = _ArrayOperator(obj, shape)
    else:
        raise TypeError(
            "obj must be a LinearOperator, a matrix, or have `matvec` and `rmatvec`, or `A` and"
            f" `A_adjoint`; got {type(obj).__name__}"
        )
    _require_adjoint(wrapped, type(obj).__name__)
    return wrapped


class _ArrayOperator(LinearOperator):
    """An operator on numpy vectors: scipy, pylops, or anything with matvec and rmatvec."""

    def __init__(self, obj: Any, shape: checks.ImageShape) -> None:
        if len(obj.shape) != 2 or obj.shape[1] != math.prod(shape):
            raise ValueError(
                f"obj has shape {tuple(obj.shape)}, expected (m, {math.prod(shape)})"
                f" for image_shape {shape}"
            )
        kind = getattr(obj, "dtype", None)
        if kind is not None and np.issubdtype(kind, np.complexfloating):
            raise TypeError(f"obj must be real, got {kind}")
        super().__init__(shape, obj.shape[0])
        self.obj = obj

    def _forward(self, x: Images) -> Measurements:
        return _ArrayProduct.apply(x.flatten(1), self._products("mat"), self._products("rmat"))

    def _adjoint(self, y: Measurements) -> Images:
        image = _ArrayProduct.apply(y, self._products("rmat"), self._products("mat"))
        return image.reshape(-1, *self.image_shape)

    def _products(self, side: str) -> Callable[[np.ndarray], np.ndarray]:
        if hasattr(self.obj, f"{side}mat"):
            several = getattr(self.obj, f"{side}mat")
            return lambda rows: several(rows.T).T
        one = getattr(self.obj, f"{side[:-3]}matvec")
        return lambda rows: np.stack([np.asarray(one(row)).reshape(-1) for row in rows])


class _ArrayProduct(torch.autograd.Function):
    """One of the two products of a numpy operator; the other one is its derivative."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, product: Any, transposed: Any) -> torch.Tensor:
        ctx.products = product, transposed
        return torch.from_numpy(np.array(product(rows.detach().cpu().numpy()))).to(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        product, transposed = ctx.products
        return _ArrayProduct.apply(gradients[0], transposed, product), None, None


class _PhysicsOperator(LinearOperator):
    """A deepinv physics, or anything with A and A_adjoint on batches of images."""

    def __init__(self, obj: Any, shape: checks.ImageShape) -> None:
        dtype, device = _physics_kind(obj)
        with torch.no_grad():
            measured = obj.A(torch.zeros(1, *shape, dtype=dtype, device=device))
        if not isinstance(measured, torch.Tensor) or not measured.is_floating_point():
            kind = getattr(measured, "dtype", type(measured).__name__)
            raise TypeError(f"obj.A must give a real tensor, got {kind}")
        super().__init__(shape, measured[0].numel())
        self.obj = obj
        self.measured_shape = tuple(measured.shape[1:])

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        return _physics_kind(self.obj)

    def _forward(self, x: Images) -> Measurements:
        return self.obj.A(x).reshape(x.shape[0], self.m)

    def _adjoint(self, y: Measurements) -> Images:
        image = self.obj.A_adjoint(y.reshape(-1, *self.measured_shape))
        if tuple(image.shape) != (y.shape[0], *self.image_shape):
            raise ValueError(
                f"obj.A_adjoint gave shape {tuple(image.shape)},"
                f" expected {(y.shape[0], *self.image_shape)}"
            )
        return image


def _physics_kind(obj: Any) -> tuple[torch.dtype, torch.device]:
    # A physics without tensors of its own says nothing of its dtype: torch's default is the guess.
    found = checks.kind(obj) if isinstance(obj, nn.Module) else None
    return found or (torch.get_default_dtype(), torch.device("cpu"))


@torch.no_grad()
def _require_adjoint(A: LinearOperator, name: str) -> None:
    dtype, device = A._kind()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *A.image_shape, generator=generator, dtype=torch.float64).to(device, dtype)
    y = torch.randn(1, A.m, generator=generator, dtype=torch.float64).to(device, dtype)
    measured, back = A(x).double(), A.adjoint(y).double()
    forward = float((measured * y).sum())
    backward = float((back * x).sum())
    # Rounding is relative to the norms, and an operator of another library may work in float32
    # whatever it is given; a wrong adjoint is wrong by about norms/√m, far more than this.
    scale = float(measured.norm() * y.double().norm() + back.norm() * x.double().norm())
    if not abs(forward - backward) <= 1e-5 * scale:
        raise ValueError(
            f"the adjoint of obj ({name}) is not the adjoint of its forward product:"
            f" ⟨Ax, y⟩ = {forward:.6g} but ⟨x, Aᵀy⟩ = {backward:.6g} for random x, y"
        )


# --- operators as files ------------------------------------------------------------------------


def save_operator(
    A: LinearOperator,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write an operator and where it comes from as one safetensors file, whole or not at all.

    Kept are its tensors in their own dtype, its kind and settings, `provenance` (by default the
    operator's own, as the design methods fill it in) and the version of npgd, as JSON in the
    header. A Gaussian is kept as its matrix.

    Raises:
        TypeError: an operator that wraps an object of another library, which no tensor describes
            (give its matrix as a MatrixOperator), or a provenance that JSON cannot hold.
        ValueError: a path that does not end in .safetensors.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {type(A).__name__}; see as_operator")
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: {path}; expected a name that ends in .safetensors")
    kept = dict(A.provenance if provenance is None else provenance)
    if isinstance(A, Gaussian) and not kept:
        kept = {"method": "gaussian", "m": A.m, "seed": A.seed}
    description = {
        **_description(A),
        "image_shape": list(A.image_shape),
        "provenance": {**kept, "npgd": version("npgd")},
    }
    try:
        header = json.dumps(description)
    except TypeError as error:
        raise TypeError(f"provenance: {error}; expected plain numbers, words and lists") from error
    tensors = {key: value.detach().cpu().contiguous() for key, value in A.state_dict().items()}
    write_atomically(path, serialise(tensors, {"operator": header}))


def _description(A: LinearOperator) -> dict[str, Any]:
    """Kind and settings; the tensors say the rest."""
    if isinstance(A, WhitenedMatrix):
        return {"kind": "WhitenedMatrix", "condition": A.condition}
    if isinstance(A, Whitened):
        inner = {"operator": _description(A.operator)}
        return {"kind": "Whitened", "condition": A.condition, **inner}
    if isinstance(A, SuperResolution):
        return {"kind": "SuperResolution", "factor": A.factor}
    for kind in (MatrixOperator, Inpainting, SubsampledDCT):
        if isinstance(A, kind):
            return {"kind": kind.__name__}
    raise TypeError(
        f"A is a {type(A).__name__}, which no tensor describes; save its matrix as a MatrixOperator"
    )


def load_operator(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> LinearOperator:
    """The operator that `save_operator` wrote; `.provenance` says where it comes from.

    In the dtype it was saved in unless `dtype` says another.

    Raises FileNotFoundError where there is no such file, ValueError for a file that is none, or
    that does not hold what its header says.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no operator file at {path}")
    header, tensors = read_tensors(path, "operator")
    try:
        description = json.loads(header)
        operator = _restored(description, tuple(description["image_shape"]), tensors)
        operator.provenance = description["provenance"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: does not hold the operator it names ({error})") from error
    return operator.to(device=device) if dtype is None else operator.to(device=device, dtype=dtype)


def _restored(
    description: Mapping[str, Any], shape: checks.ImageShape, tensors: Mapping[str, torch.Tensor]
) -> LinearOperator:
    kind = description["kind"]
    if kind == "MatrixOperator":
        return MatrixOperator(tensors["matrix"], shape)
    if kind == "Inpainting":
        mask = torch.zeros(math.prod(shape), dtype=torch.bool)
        mask[tensors["index"]] = True
        return Inpainting(shape, mask=mask.reshape(shape))
    if kind == "SuperResolution":
        return SuperResolution(shape, description["factor"])
    if kind == "SubsampledDCT":
        return SubsampledDCT(shape, index=tensors["index"], dtype=tensors["vertical"].dtype)
    condition, whitening = description["condition"], tensors["whitening"]
    if kind == "WhitenedMatrix":
        return WhitenedMatrix(tensors["matrix"], shape, whitening, condition)
    if kind == "Whitened":
        inner = {key.removeprefix("operator."): value for key, value in tensors.items()}
        return Whitened(_restored(description["operator"], shape, inner), whitening, condition)
    raise ValueError(f"kind {kind!r} is unknown to this version")
