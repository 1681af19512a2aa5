"""Operators that other libraries made, taken as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import nn

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator, MatrixOperator

Product = Callable[[np.ndarray], np.ndarray]
"""Rows of vectors to rows of their images."""


class _Array(Protocol):
    """scipy's and pylops' way: products with numpy vectors (`dtype` and `matmat` at will)."""

    shape: tuple[int, int]

    def matvec(self, x: np.ndarray, /) -> np.ndarray: ...

    def rmatvec(self, y: np.ndarray, /) -> np.ndarray: ...


class _Physics(Protocol):
    """deepinv's way: products with batches of images."""

    def A(self, x: Images, /) -> torch.Tensor: ...

    def A_adjoint(self, y: torch.Tensor, /) -> torch.Tensor: ...


def _is_array(obj: object) -> TypeGuard[_Array]:
    return all(hasattr(obj, name) for name in ("shape", "matvec", "rmatvec"))


def _is_physics(obj: object) -> TypeGuard[_Physics]:
    return all(callable(getattr(obj, name, None)) for name in ("A", "A_adjoint"))


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
            raise ValueError(f"obj must have image_shape {shape}, got {obj.image_shape}")
        return obj
    if isinstance(obj, torch.Tensor | np.ndarray):
        return MatrixOperator(obj, shape, "obj")
    wrapped: LinearOperator
    if scipy.sparse.issparse(obj):
        if not np.isfinite(obj.data).all():
            raise ValueError("obj must be finite, got NaN or infinity in its entries")
        wrapped = _ArrayOperator(scipy.sparse.linalg.aslinearoperator(obj), shape)
    elif _is_physics(obj):
        wrapped = _PhysicsOperator(obj, shape)
    elif _is_array(obj):
        wrapped = _ArrayOperator(obj, shape)
    else:
        raise TypeError(
            "obj must be a LinearOperator, a matrix, or have `matvec` and `rmatvec`, or `A` and"
            f" `A_adjoint`, got {type(obj).__name__}"
        )
    _require_adjoint(wrapped, type(obj).__name__)
    return wrapped


class _ArrayOperator(LinearOperator):
    """An operator on numpy vectors: scipy, pylops, or anything with matvec and rmatvec."""

    def __init__(self, obj: _Array, shape: checks.ImageShape) -> None:
        if len(obj.shape) != 2 or obj.shape[1] != math.prod(shape):
            raise ValueError(
                f"obj must have shape (m, {math.prod(shape)}) for image_shape {shape}, got"
                f" {tuple(obj.shape)}"
            )
        kind = getattr(obj, "dtype", None)
        if kind is not None and np.issubdtype(kind, np.complexfloating):
            raise TypeError(f"obj must be real, got {kind}")
        super().__init__(shape, obj.shape[0])
        self.obj = obj

    def _forward(self, x: Images) -> Measurements:
        return _product(x.flatten(1), self._products("mat"), self._products("rmat"))

    def _adjoint(self, y: Measurements) -> Images:
        image = _product(y, self._products("rmat"), self._products("mat"))
        return image.reshape(-1, *self.image_shape)

    def _products(self, side: str) -> Product:
        if hasattr(self.obj, f"{side}mat"):
            several = getattr(self.obj, f"{side}mat")
            return lambda rows: several(rows.T).T
        one = getattr(self.obj, f"{side[:-3]}matvec")
        return lambda rows: np.stack([np.asarray(one(row)).reshape(-1) for row in rows])


class _ArrayProduct(torch.autograd.Function):
    """One of the two products of a numpy operator; the other one is its derivative."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, product: Product, transposed: Product
    ) -> torch.Tensor:
        ctx.products = product, transposed
        return torch.from_numpy(np.array(product(rows.detach().cpu().numpy()))).to(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        product, transposed = ctx.products
        return _product(gradients[0], transposed, product), None, None


# torch's own annotations leave `apply` without types.
_product: Callable[[torch.Tensor, Product, Product], torch.Tensor] = _ArrayProduct.apply


class _PhysicsOperator(LinearOperator):
    """A deepinv physics, or anything with A and A_adjoint on batches of images."""

    def __init__(self, obj: _Physics, shape: checks.ImageShape) -> None:
        dtype, device = _physics_kind(obj)
        with torch.no_grad():
            measured = obj.A(torch.zeros(1, *shape, dtype=dtype, device=device))
        if not isinstance(measured, torch.Tensor) or not measured.is_floating_point():
            kind = getattr(measured, "dtype", type(measured).__name__)
            raise TypeError(f"obj.A must give a real tensor, got {kind}")
        super().__init__(shape, measured[0].numel())
        self.obj = obj
        self.measured_shape = tuple(measured.shape[1:])

    def _asks_for(self) -> None:
        # A physics converts what it is given, or says itself that it does not.
        return None

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        return _physics_kind(self.obj)

    def _forward(self, x: Images) -> Measurements:
        return self.obj.A(x).reshape(x.shape[0], self.m)

    def _adjoint(self, y: Measurements) -> Images:
        image = self.obj.A_adjoint(y.reshape(-1, *self.measured_shape))
        if tuple(image.shape) != (y.shape[0], *self.image_shape):
            raise ValueError(
                f"obj.A_adjoint must give shape {(y.shape[0], *self.image_shape)}, got"
                f" {tuple(image.shape)}"
            )
        return image


def _physics_kind(obj: object) -> tuple[torch.dtype, torch.device]:
    # A physics without tensors of its own says nothing of its dtype: torch's default is the guess.
    found = checks.kind(obj) if isinstance(obj, nn.Module) else None
    return found or (torch.get_default_dtype(), torch.device("cpu"))


@torch.no_grad()
def _require_adjoint(A: LinearOperator, name: str) -> None:
    dtype, device = A._kind()
    generator = checks.seeded(0)
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
            f"obj must have the adjoint of its own product, ⟨Ax, y⟩ = ⟨x, Aᵀy⟩, got {name} with"
            f" {forward:.6g} and {backward:.6g} for random x, y"
        )
