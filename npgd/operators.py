"""Linear measurement operators y = A x, forward and adjoint side by side.

An operator maps a batch of images (batch, channels, height, width) to a batch of measurements
(batch, m). Inner products are the plain ones over pixels and over measurements, so that

    ⟨A x, y⟩ = ⟨x, Aᵀ y⟩    for every x, y.
"""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from jaxtyping import Bool, Float
from torch import nn
from torch.nn import functional

from npgd import checks

Images = Float[torch.Tensor, "batch channels height width"]
Measurements = Float[torch.Tensor, "batch m"]


class LinearOperator(nn.Module, abc.ABC):
    """A linear map from images to m measurements.

    A subclass writes `_forward` and `_adjoint`, both batched; the shapes are checked here.

    Args:
        image_shape: (channels, height, width).
        m: number of measurements, at least 1.
    """

    def __init__(self, image_shape: Sequence[int], m: int) -> None:
        super().__init__()
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
        same operator gives the same number.
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
        mask: boolean, (height, width) or image_shape; True where a pixel is measured.
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
