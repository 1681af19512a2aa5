"""Operators that other libraries made, taken as they are.

An object from outside keeps the precision, the shapes and the number type it was made with; the
`border` converts on the way in and out. Inside the package it is a real operator: a batch of images
(batch, channels, height, width) goes to (batch, m) real numbers, a complex measurement being two of
them, real and imaginary part side by side. With ⟨u, v⟩ = Re Σ ū v the adjoint of that real view is
Re(Aᴴ y), for real images.
"""

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
from npgd.operators.border import Border, Maps, Signal, border, described, torch_of
from npgd.operators.products import product_of
from npgd.operators.vectors import as_vectors

OFF = 1e-5
"""Relative error that the rounding of float32 may make of linearity and of the adjoint; a wrong
adjoint is wrong by about 1/√m, far more than this."""


EXACT = 1e-11
"""The same of float64; more is the rounding of float32 inside."""


HALF = 1e-2
"""Relative error that the rounding of half precision may make of linearity."""


FAR = 1000
"""Images so much larger and smaller must be measured alike: what is cut off, or rounded away, is
seen."""


class _Array(Protocol):
    """scipy's and pylops' way: products with numpy vectors (`dtype` and `matmat` at will)."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def matvec(self, x: np.ndarray, /) -> np.ndarray: ...

    def rmatvec(self, y: np.ndarray, /) -> np.ndarray: ...


class _Physics(Protocol):
    """deepinv's way: products with batches of images."""

    def A(self, x: Images, /) -> Signal: ...

    def A_adjoint(self, y: Signal, /) -> torch.Tensor: ...


def _is_array(obj: object) -> TypeGuard[_Array]:
    return all(hasattr(obj, name) for name in ("shape", "matvec", "rmatvec"))


def _is_physics(obj: object) -> TypeGuard[_Physics]:
    return all(callable(getattr(obj, name, None)) for name in ("A", "A_adjoint"))


def as_operator(
    obj: Any, image_shape: Sequence[int], adjoint: Callable[..., Any] | None = None
) -> LinearOperator:
    """Any linear operator as a LinearOperator on images of shape (channels, height, width).

    Takes

    - a LinearOperator of this package, or a torch or numpy matrix, real or complex;
    - a sparse matrix of scipy or torch of any format, a scipy or pylops LinearOperator, or any
      object with `shape`, `matvec` and `rmatvec`;
    - an operator of ODL, sigpy or pyxu for images of `image_shape`, or for vectors;
    - a deepinv physics, or any object with `A` and `A_adjoint`;
    - a function of a batch of images, torch or numpy, with its `adjoint`; without one, the adjoint
      of a function of torch tensors is what autograd makes of it.

    Measurements may have any shape (batch, …), be complex, or be a list or tuple of such: (batch,
    m) has them one after another, real and imaginary part of a number side by side, and
    `A.measurements(y)` brings such a y into this form, as `npgd.recover` does. A complex operator
    of n columns is taken for real images of n pixels, or for two channels of n pixels each, the
    real and the imaginary part. deepinv's MRI, which asks for such channels, takes real images too.

    Nothing is made dense, and gradients, also in forward mode, go through the operator's own
    products. The object keeps its precision: images are cast at its border, and where it computes
    in float32, as `A.fixed_precision` then says, no check in float64 gets nearer than about 1e-7.
    Random images test at once that it is linear, and that ⟨A x, y⟩ = ⟨x, Aᵀ y⟩.

    Raises:
        TypeError: the object is none of these, or its dtype is real and its products complex.
        ValueError: it does not take images of `image_shape`, it holds NaN, has no adjoint or a
            wrong one, or is affine or not linear at all.
    """
    shape = checks.image_shape(image_shape)
    if adjoint is not None and not callable(adjoint):
        raise TypeError(f"adjoint must be a function, got {checks.shown(adjoint)}")
    pair = callable(obj) and not (isinstance(obj, LinearOperator) or _is_array(obj))
    if adjoint is not None and (not pair or _is_physics(obj)):
        raise TypeError(
            "adjoint must be None where obj has its own or is a matrix, got"
            f" {checks.shown(adjoint)}"
        )
    if isinstance(obj, LinearOperator):
        if obj.image_shape != shape:
            raise ValueError(f"obj must have image_shape {shape}, got {obj.image_shape}")
        return obj
    if isinstance(obj, torch.Tensor) and obj.layout != torch.strided and not obj.is_nested:
        obj = _scipy_of(obj)
    if isinstance(obj, torch.Tensor | np.ndarray):
        return _dense(obj, shape)
    maps = _maps(obj, adjoint, shape)
    return _tested(ForeignOperator(obj, shape, border(maps, shape)))


def _dense(matrix: torch.Tensor | np.ndarray, shape: checks.ImageShape) -> LinearOperator:
    """A matrix; of a complex one the rows of real and imaginary parts, side by side."""
    if isinstance(matrix, np.ndarray) and np.iscomplexobj(matrix):
        matrix = torch_of(matrix, "obj")
    if not isinstance(matrix, torch.Tensor) or not matrix.is_complex() or matrix.is_meta:
        return MatrixOperator(matrix, shape, "obj")
    if matrix.ndim != 2:
        raise ValueError(f"obj must have shape (m, {math.prod(shape)}), got {checks.shown(matrix)}")
    rows = torch.view_as_real(matrix.resolve_conj())
    A = MatrixOperator(rows.movedim(2, 1).reshape(-1, matrix.shape[1]), shape, "obj")
    A.complex_measurements = True
    return A


def _maps(obj: Any, adjoint: Callable[..., Any] | None, shape: checks.ImageShape) -> Maps:
    """The products of an object, forward and adjoint, as it has them."""
    name = type(obj).__name__
    if scipy.sparse.issparse(obj):
        return _array_maps(_sparse(obj), shape, name)
    if _is_physics(obj):
        # deepinv's complex images are two real channels, and its MRI knows how to make them one.
        embedded = shape[0] == 1 and hasattr(obj, "to_torch_complex")
        views = ("plain", "complex", *(["channels"] if embedded else []))
        return Maps(
            name,
            obj.A,
            obj.A_adjoint,
            device=_device(obj),
            views=views,
            made_for=getattr(obj, "img_size", None),
            kinds=(False, True),
        )
    if _is_array(obj):
        return _array_maps(obj, shape, name)
    vectors = as_vectors(obj) if adjoint is None else None
    if vectors is not None:
        vectors.require_image(shape)
        return _array_maps(vectors, shape, name)
    if callable(obj):
        named = getattr(obj, "__name__", name)
        return Maps(named, obj, adjoint, kinds=(False, True), device=_device(obj))
    if hasattr(obj, "matvec"):
        raise TypeError(
            f"obj must have an adjoint, `rmatvec`, got {name} with `matvec` alone; give the two"
            " products as functions, as_operator(forward, image_shape, adjoint=…)"
        )
    raise TypeError(
        "obj must be a LinearOperator, a matrix, a function, or have `matvec` and `rmatvec`, or"
        f" `A` and `A_adjoint`, got {checks.shown(obj)}"
    )


def _device(obj: object) -> torch.device:
    """Where a module computes; ValueError where it computes in less than float32."""
    found = checks.kind(obj) if isinstance(obj, nn.Module) else None
    if found and torch.finfo(found[0]).bits < 32:
        raise ValueError(
            f"obj must compute in float32 or float64, got {type(obj).__name__} in {found[0]}; give"
            " it in one of these, obj.float()"
        )
    return found[1] if found else torch.device("cpu")


def _scipy_of(matrix: torch.Tensor) -> Any:
    """A sparse matrix of torch as scipy's."""
    if matrix.ndim != 2 or matrix.is_meta:
        raise ValueError(f"obj must have shape (m, n) and data, got {checks.shown(matrix)}")
    held = matrix.detach().to_sparse().coalesce().cpu()
    values = held.values().to(torch.complex128 if held.is_complex() else torch.float64)
    places = tuple(held.indices().numpy())
    return scipy.sparse.coo_array((values.numpy(), places), shape=tuple(held.shape))


def _sparse(obj: Any) -> _Array:
    """A sparse matrix of any format, its entries floating point and finite."""
    if len(obj.shape) != 2:
        raise ValueError(f"obj must have shape (m, n), got {tuple(obj.shape)}")
    rows = obj.tocsr()
    if rows.dtype.kind not in "fc":
        rows = rows.astype(np.float64)
    if not np.isfinite(rows.data).all():
        raise ValueError("obj must be finite, got NaN or infinity in its entries")
    array: _Array = scipy.sparse.linalg.aslinearoperator(rows)
    return array


def _array_maps(obj: _Array, shape: checks.ImageShape, name: str) -> Maps:
    sides = obj.shape if isinstance(obj.shape, Sequence) else (obj.shape,)
    n, columns = math.prod(shape), sides[1] if len(sides) == 2 else 0
    kind = getattr(obj, "dtype", None)
    kind = str(kind).removeprefix("torch.") if isinstance(kind, torch.dtype) else kind
    is_complex = kind is not None and np.issubdtype(kind, np.complexfloating)
    # Images may be real where measurements are not, as of a transform of ODL's.
    takes_complex = getattr(obj, "complex_images", None)
    takes_complex = (is_complex or kind is None) if takes_complex is None else takes_complex
    paired = takes_complex and shape[0] == 2 and 2 * columns == n
    if columns != n and not paired:
        halves = f", or complex (m, {n // 2})" if shape[0] == 2 else ""
        raise ValueError(
            f"obj must have shape (m, {n}){halves} for image_shape {shape}, got {tuple(sides)}"
        )
    image = (1, *shape[1:]) if paired else shape
    real = kind is not None and not is_complex

    def forward(x: Any) -> Any:
        measured = _rows(obj, "", x.reshape(len(x), -1))
        if real and (measured.is_complex() if _is_torch(measured) else np.iscomplexobj(measured)):
            raise TypeError(
                f"obj must be real as its dtype {kind} says, got {measured.dtype} from its product;"
                " give it its complex dtype"
            )
        return measured

    return Maps(
        name,
        forward,
        lambda y: _rows(obj, "r", y).reshape(len(y), *image),
        kinds=(True, False),
        views=("paired",) if paired else ("plain", "complex") if takes_complex else ("plain",),
    )


def _rows(obj: _Array, side: str, rows: Any) -> Any:
    """The product with every row."""
    if hasattr(obj, f"{side}matmat"):
        made = getattr(obj, f"{side}matmat")(rows.T)
        return (made if _is_torch(made) else np.asarray(made)).T
    one = getattr(obj, f"{side}matvec")
    vectors = [one(row) for row in rows]
    if vectors and _is_torch(vectors[0]):
        return torch.stack([vector.reshape(-1) for vector in vectors])
    return np.stack([np.asarray(vector).reshape(-1) for vector in vectors])


def _is_torch(thing: object) -> TypeGuard[torch.Tensor]:
    return isinstance(thing, torch.Tensor)


class ForeignOperator(LinearOperator):
    """An object of another library behind its border; made by `as_operator`.

    `.to` moves a module of another library to another device, but leaves its precision alone.
    """

    obj: Any
    border: Border

    def __init__(self, obj: Any, shape: checks.ImageShape, border: Border) -> None:
        super().__init__(shape, border.layout.m)
        # Not registered as a part: `.to(dtype)` would change what computes in a dtype of its own.
        object.__setattr__(self, "obj", obj)
        object.__setattr__(self, "border", border)
        self.complex_measurements = border.layout.is_complex

    @property
    def fixed_precision(self) -> torch.dtype:
        return self.border.precision

    @property
    def title(self) -> str:
        return self.border.maps.name

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        return self.border.precision, self.border.maps.device

    def _forward(self, x: Images) -> Measurements:
        return product_of(x, self.border.measure, self.border.back)

    def _adjoint(self, y: Measurements) -> Images:
        return product_of(y, self.border.back, self.border.measure)

    def _as_measurements(self, y: Any) -> Any:
        return self.border.layout.flat_if_shaped(y)

    def _parts(self) -> list[nn.Module]:
        return list(self.obj.modules()) if isinstance(self.obj, nn.Module) else []

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        device = fn(torch.empty(0, dtype=self.border.precision, device=self.border.maps.device))
        if isinstance(self.obj, nn.Module) and device.device != self.border.maps.device:
            self.obj.to(device=device.device)
            self.border.maps.device = device.device
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        return f"{self.border.maps.name}, {super().extra_repr()}"


@torch.no_grad()
def _tested(A: ForeignOperator) -> ForeignOperator:
    """A, if random images show it to be linear with its adjoint; ValueError if they do not."""
    generator = checks.seeded(0)
    device = A.border.maps.device
    x, z = torch.randn(2, 1, *A.image_shape, generator=generator, dtype=torch.float64).to(device)
    y = torch.randn(1, A.m, generator=generator, dtype=torch.float64).to(device)
    measured, bent = _require_linear(A, x, z)
    unequal = _require_own_adjoint(A, x, measured, y)
    if max(bent, unequal) > EXACT:
        # Whatever dtype it gives back, inside it computes in less.
        A.border.precision = torch.float32
    return A


def _require_linear(A: ForeignOperator, x: Images, z: Images) -> tuple[Measurements, float]:
    """A x, and by how much A(x + z) and A(−x) differ from what a linear A has, relatively."""
    name = A.border.maps.name
    alone = A(x)
    try:
        nothing = A(0 * x)
        images = torch.cat([0 * x, x, z, x + z, -x, FAR * x, x / FAR])
        products = A(images)
        if len(products) != len(images):
            raise ValueError(f"measured {len(products)} of {len(images)}")
    except Exception as error:
        raise ValueError(
            f"obj must take a batch of images, got {name}, which takes one and of seven says:"
            f" {described(error)}"
        ) from error
    _require_finite(name, alone, nothing, products)
    # Whose squares are numbers, whatever the size of A.
    unit = float(products[1:3].abs().max()) or 1.0
    first, products = alone / unit, products / unit
    at_zero, one, other, both, minus, large, small = products.split(1)
    size = float(one.norm() + other.norm())

    def off(difference: torch.Tensor) -> bool:
        return float(difference.norm()) > OFF * size

    if off(first - one):
        raise ValueError(
            f"obj must measure an image the same every time, alone or among others, got {name},"
            f" which differs by a relative {float((first - one).norm() / size):.2g}"
        )
    if off(at_zero) and not off(both - one - other + at_zero):
        raise ValueError(
            f"obj must be linear, got {name}, which is affine, with ‖A(0)‖ ="
            f" {float(at_zero.norm()) * unit:.3g}; give x ↦ A(x) − A(0), and y − A(0) for"
            " measurements"
        )
    worst = max(float((both - one - other).norm()), float((one + minus).norm()))
    scaled = max(float((large / FAR - one).norm()), float((small * FAR - one).norm()))
    if max(worst, scaled) > OFF * size:
        laws = (
            "A(x + z) and A(x) + A(z), or A(−x) and −A(x),"
            if worst > OFF * size
            else (f"A({FAR}x) and {FAR} A(x), or A(x/{FAR}) and A(x)/{FAR},")
        )
        off_by = max(worst, scaled) / size
        half = "; where it computes in half precision, have it do so in float32"
        raise ValueError(
            f"obj must be linear, got {name}, whose {laws} differ by a relative"
            f" {off_by:.2g}{half if off_by < HALF else ''}"
        )
    return alone, worst / size if size else 0.0


def _require_own_adjoint(
    A: ForeignOperator, x: Images, measured: Measurements, y: Measurements
) -> float:
    """By how much ⟨A x, y⟩ and ⟨x, Aᵀ y⟩ differ, relatively, of a random y and of A x."""
    name = A.border.maps.name
    unit = float(measured.abs().max()) or 1.0
    measured = measured / unit
    pairs = [(y, A.adjoint(y)), (measured, A.adjoint(measured))]
    _require_finite(name, *(back for _, back in pairs))
    sides, scales = [], []
    for v, back in pairs:
        back = back / unit
        sides.append((float((measured * v).sum()), float((x * back).sum())))
        scales.append(float(measured.norm() * v.norm() + x.norm() * back.norm()))
    gaps = [abs(u - v) / (scale or 1.0) for (u, v), scale in zip(sides, scales, strict=True)]
    if max(gaps) <= OFF:
        return max(gaps)
    (one, other), ratio = sides[0], sides[1][1] / (sides[1][0] or math.inf)
    times = ""
    if ratio and abs(other - ratio * one) <= OFF * (scales[0] + ratio * abs(one)):
        times = f", always {ratio:.6g} times as much, as an inverse transform may have"
    raise ValueError(
        f"obj must have the adjoint of its own product, ⟨Ax, y⟩ = ⟨x, Aᵀy⟩, got {name} with"
        f" {one * unit:.6g} and {other * unit:.6g} for random x, y{times}; give the right"
        " one, as_operator(forward, image_shape, adjoint=…)"
    )


def _require_finite(name: str, *products: torch.Tensor) -> None:
    if not all(bool(product.isfinite().all()) for product in products):
        raise ValueError(f"obj must be finite, got NaN or infinity from {name}")
