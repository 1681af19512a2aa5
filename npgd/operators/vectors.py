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
    """ODL's adjoint is that of weighted inner products: with ⟨u, v⟩_D = d Σ u v̄ and
    ⟨u, v⟩_R = r Σ u v̄ it is r/d times Aᵀ."""
    name, domain, measured = type(op).__name__, op.domain, op.range
    if not op.is_linear:
        raise ValueError(f"obj must be linear, got {name}, which says that it is not")
    if not all(hasattr(space, "size") for space in (domain, measured)):
        raise ValueError(f"obj must map arrays to arrays, got {name} from {domain} to {measured}")
    kinds = [getattr(space, "dtype", None) for space in (domain, measured)]
    dtype = None if None in kinds else np.result_type(*(str(kind) for kind in kinds))
    factor = _weight(domain) / _weight(measured)
    return Vectors(
        name,
        tuple(getattr(domain, "shape", (int(domain.size),))),
        (int(measured.size), int(domain.size)),
        dtype,
        lambda x: _flat(op(_element(domain, x))),
        lambda y: factor * _flat(op.adjoint(_element(measured, y))),
    )


def _weight(space: Any) -> float:
    """c of ⟨u, v⟩ = c Σ u v̄; a mean where the weights differ, as the test of the adjoint sees."""
    one = space.one()
    return float(np.real(space.inner(one, one))) / int(space.size)


def _element(space: Any, flat: np.ndarray) -> Any:
    parts = list(getattr(space, "spaces", ()))
    if not parts:
        return space.element(flat.reshape(space.shape).astype(str(space.dtype)))
    ends = np.cumsum([int(part.size) for part in parts])
    rows = np.split(flat, ends[:-1])
    return space.element([_element(part, row) for part, row in zip(parts, rows, strict=True)])


def _flat(element: Any) -> np.ndarray:
    if hasattr(element, "parts"):
        return np.concatenate([_flat(part) for part in element.parts])
    return np.asarray(getattr(element, "data", element)).reshape(-1)
