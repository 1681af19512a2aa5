"""Operators of one image at a time, as ODL, sigpy and pyxu have them: products with vectors.

Each becomes an object with the `shape`, `dtype`, `matvec` and `rmatvec` of scipy's operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgd import checks

FAR = 1e-5
"""Relative error that rounding, also of float32, may make of an inner product."""


@dataclass(frozen=True)
class Vectors:
    """The two products of an object with numpy vectors."""

    name: str
    sides: tuple[int, ...]
    """Of the images that it takes."""
    shape: tuple[int, int]
    dtype: Any
    """None where only its products tell."""
    matvec: Callable[[np.ndarray], np.ndarray]
    rmatvec: Callable[[np.ndarray], np.ndarray]
    complex_images: bool | None = None
    """Whether its images are complex; None where they are as `dtype` says."""

    def require_image(self, image_shape: checks.ImageShape) -> None:
        """Raise ValueError where its images have other sides than ours; sides of 1 do not count,
        and those of a complex image are those of one of its two channels."""
        channels, *plane = image_shape
        ours = [image_shape, *([(1, *plane)] if channels == 2 else [])]
        own, *known = (tuple(s for s in sides if s > 1) for sides in (self.sides, *ours))
        if len(self.sides) != 1 and own not in known:
            raise ValueError(
                f"obj must take images of image_shape {image_shape}, got {self.name}, made for"
                f" {self.sides}"
            )


def as_vectors(obj: Any) -> Vectors | None:
    """The products with vectors of an operator of ODL, sigpy or pyxu; None for anything else.

    Raises:
        ValueError: it is an operator of ODL that says itself that it is not linear.
    """
    has = set(dir(type(obj)))
    # A property may fail in a way of its own, which `hasattr` of the object would let through.
    if "adjoint" in has and all(hasattr(obj, name) for name in ("domain", "range", "is_linear")):
        return _of_odl(obj)
    if all(hasattr(obj, name) for name in ("ishape", "oshape")) and "H" in has and callable(obj):
        return _made(obj, obj.ishape, obj.oshape, None, obj, lambda y: obj.H(y))
    if all(hasattr(obj, name) for name in ("dim_shape", "codim_shape")) and "apply" in has:
        if not callable(getattr(obj, "adjoint", None)):
            raise ValueError(
                f"obj must have an adjoint, got {type(obj).__name__} without; give the two products"
                " as functions, as_operator(forward, image_shape, adjoint=…)"
            )
        return _made(obj, obj.dim_shape, obj.codim_shape, None, obj.apply, obj.adjoint)
    return None


def _made(
    obj: Any,
    sides: Any,
    measured: Any,
    dtype: Any,
    forward: Callable[[Any], Any],
    adjoint: Callable[[Any], Any],
) -> Vectors:
    taken, given = tuple(map(int, sides)), tuple(map(int, measured))
    return Vectors(
        type(obj).__name__,
        taken,
        (math.prod(given), math.prod(taken)),
        dtype,
        lambda x: np.asarray(forward(x.reshape(taken))).reshape(-1),
        lambda y: np.asarray(adjoint(y.reshape(given))).reshape(-1),
    )


def _of_odl(op: Any) -> Vectors:
    """ODL's adjoint A* is that of its spaces' inner products: with ⟨u, v⟩_D = Σ d u v̄ and
    ⟨u, v⟩_R = Σ r u v̄ it is A* = d⁻¹ Aᴴ r, entry by entry. Some of its operators leave the weights
    out; which of the two it is, a random pair shows."""
    name, domain, measured = type(op).__name__, op.domain, op.range
    if not op.is_linear:
        raise ValueError(f"obj must be linear, got {name}, which says that it is not")
    if not all(hasattr(space, "size") for space in (domain, measured)):
        raise ValueError(f"obj must map arrays to arrays, got {name} from {domain} to {measured}")
    takes, gives = _dtype(domain), _dtype(measured)

    def forward(x: np.ndarray) -> np.ndarray:
        return _flat(op(_element(domain, x)))

    def plain(y: np.ndarray) -> np.ndarray:
        return _flat(op.adjoint(_element(measured, y)))

    weights = _weights(domain), _weights(measured)

    def weighted(y: np.ndarray) -> np.ndarray:
        d, r = weights
        assert d is not None and r is not None
        image: np.ndarray = d * plain(y / r)
        return image

    one_of_two = [plain] if any(w is None for w in weights) else [weighted, plain]
    sides = (_size(measured), _size(domain))
    right = (back for back in one_of_two if _is_adjoint(forward, back, sides))
    return Vectors(
        name,
        tuple(getattr(domain, "shape", sides[1:])),
        sides,
        None if takes is None or gives is None else np.result_type(takes, gives),
        forward,
        next(right, one_of_two[0]),
        complex_images=None if takes is None else takes.kind == "c",
    )


def _size(space: Any) -> int:
    """Numbers in an array of it, or in all its parts; ODL's own `size` counts parts at times."""
    parts = list(getattr(space, "spaces", ()))
    return sum(map(_size, parts)) if parts else int(space.size)


def _dtype(space: Any) -> np.dtype[Any] | None:
    parts = [_dtype(part) for part in getattr(space, "spaces", ())]
    if parts:
        known = [part for part in parts if part is not None]
        return np.result_type(*known) if len(known) == len(parts) else None
    kind = getattr(space, "dtype", None)
    return None if kind is None else np.dtype(str(kind))


def _weights(space: Any) -> np.ndarray | None:
    """w of ⟨u, v⟩ = Σ w u v̄; None where the inner product is another, or there is none."""
    generator = np.random.default_rng(0)
    u, v = generator.standard_normal((2, _size(space)))
    try:
        w = _listed_weights(space)
        product = float(np.real(space.inner(_element(space, u), _element(space, v))))
    except Exception:  # another library may fail in any way
        return None
    terms = w * u * v
    fits = abs(product - terms.sum()) <= FAR * np.abs(terms).sum()
    return w if fits and bool((w > 0).all() & np.isfinite(w).all()) else None


def _listed_weights(space: Any) -> np.ndarray:
    """What the space says of its weights: one number, or one for each entry or part."""
    weighting = getattr(space, "weighting", None)
    array = getattr(weighting, "array", None)
    parts = list(getattr(space, "spaces", ()))
    if parts:
        own = getattr(weighting, "const", 1.0) if array is None else array
        ways = np.broadcast_to(np.asarray(own, dtype=float), len(parts))
        return np.concatenate(
            [way * _listed_weights(part) for way, part in zip(ways, parts, strict=True)]
        )
    if array is not None:
        return np.array(_flat(array), dtype=float)
    one = space.one()
    size = _size(space)
    return np.full(size, float(np.real(space.inner(one, one))) / size)


def _is_adjoint(
    forward: Callable[[np.ndarray], np.ndarray],
    back: Callable[[np.ndarray], np.ndarray],
    sides: tuple[int, int],
) -> bool:
    """Whether Re ⟨A x, y⟩ = Re ⟨x, back(y)⟩ of a random pair."""
    generator = np.random.default_rng(0)
    y, x = (generator.standard_normal(side) for side in sides)
    try:
        terms = [np.real(forward(x)) * y, x * np.real(back(y))]
    except Exception:  # which the border shall tell
        return False
    scale = sum(float(np.linalg.norm(term)) for term in terms)
    return abs(float(terms[0].sum() - terms[1].sum())) <= FAR * scale


def _element(space: Any, flat: np.ndarray) -> Any:
    parts = list(getattr(space, "spaces", ()))
    if not parts:
        return space.element(flat.reshape(space.shape).astype(str(space.dtype)))
    ends = np.cumsum([_size(part) for part in parts])
    rows = np.split(flat, ends[:-1])
    return space.element([_element(part, row) for part, row in zip(parts, rows, strict=True)])


def _flat(element: Any) -> np.ndarray:
    if hasattr(element, "parts"):
        return np.concatenate([_flat(part) for part in element.parts])
    return np.asarray(getattr(element, "data", element)).reshape(-1)
