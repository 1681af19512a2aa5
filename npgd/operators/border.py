"""The border of an operator from outside: what it is given, and how its answers are read.

What it asks of its images (a precision, complex numbers, two channels for a complex image) is found
by trying; what its measurements look like (shapes, complex numbers, lists) is read off one answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from npgd import checks
from npgd.images import Images, Measurements

Signal = Any
"""Measurements as another library has them: a tensor or array (batch, …), or a list of such."""

CPU = torch.device("cpu")

HALVES = {
    torch.float64: torch.complex128,
    torch.float32: torch.complex64,
    torch.complex128: torch.float64,
    torch.complex64: torch.float32,
}
"""The complex type of a real one, and the real type of a complex one."""


@dataclass
class Maps:
    """The two products of an object, as it has them, and what is known of their arguments."""

    name: str
    forward: Callable[[Any], Signal]
    adjoint: Callable[[Signal], Any] | None
    """None for what autograd makes of `forward`."""
    kinds: tuple[bool, ...] = (False,)
    """Whether they take numpy arrays: both where that is to be found out, in the order to try."""
    device: torch.device = CPU
    views: tuple[str, ...] = ("plain", "complex")
    """How an image of ours may be one of theirs, in the order to try: "plain", as a "complex" one
    with imaginary part 0, with "channels" for real and imaginary part of which the second is 0, or
    two channels "paired" as a complex one."""
    made_for: Any = None
    """The image size that the object says it is made for."""
    numpy: bool = False
    """Which of the `kinds` it is."""

    def measured(self, x: torch.Tensor) -> Signal:
        return self.forward(x.detach().cpu().numpy() if self.numpy else x)


def torch_of(leaf: Any, name: str = "obj") -> torch.Tensor:
    """A tensor or array of floating point or complex numbers as a tensor."""
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "fc":
        largest = np.dtype(np.float64 if leaf.dtype.kind == "f" else np.complex128)
        kind = min(leaf.dtype, largest, key=lambda dtype: dtype.itemsize).newbyteorder("=")
        leaf = torch.from_numpy(np.ascontiguousarray(leaf, kind))
    plain = isinstance(leaf, torch.Tensor) and not leaf.is_meta and leaf.layout == torch.strided
    if not plain or not (leaf.is_floating_point() or leaf.is_complex()):
        raise TypeError(
            f"{name} must give floating point or complex numbers, as a tensor, an array, or a list"
            f" or tuple of such, got {checks.shown(leaf)}"
        )
    tensor: torch.Tensor = leaf.resolve_conj()
    return tensor


def described(error: Exception) -> str:
    """What an error of another library says, in one short line."""
    text = checks.printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:159]}…"


def _listed(signal: Signal) -> list[Any] | None:
    """The parts of a list, tuple or deepinv TensorList of measurements; None for a single one."""
    if isinstance(signal, list | tuple):
        return list(signal)
    parts = getattr(signal, "x", None)
    return list(parts) if isinstance(parts, list) else None


def _wrapping(signal: Signal) -> Callable[[list[Any]], Signal]:
    """What makes such a list, tuple or TensorList; namedtuples have a way of their own."""
    made: Any = type(signal)
    return cast(Callable[[list[Any]], Signal], getattr(made, "_make", made))


@dataclass(frozen=True)
class Layout:
    """How measurements lie in (batch, m): their parts one after another, each flattened."""

    shapes: tuple[tuple[int, ...], ...]
    """Of each part, without the batch."""
    complexes: tuple[bool, ...]
    wrap: Callable[[list[Any]], Signal] | None
    """Makes the list that the adjoint takes; None where there is a single part."""

    @classmethod
    def of(cls, signal: Signal) -> Layout:
        """Of the measurements of one image."""
        parts = _listed(signal)
        leaves = [torch_of(part) for part in ([signal] if parts is None else parts)]
        if not leaves or any(leaf.ndim < 1 or leaf.shape[0] != 1 for leaf in leaves):
            raise ValueError(
                "obj must give measurements (batch, …), got shapes"
                f" {[tuple(leaf.shape) for leaf in leaves]} for a batch of one image"
            )
        if not sum(leaf.numel() for leaf in leaves):
            raise ValueError("obj must give at least one measurement of an image, got none")
        wrap = None if parts is None else _wrapping(signal)
        return cls(
            tuple(tuple(leaf.shape[1:]) for leaf in leaves),
            tuple(leaf.is_complex() for leaf in leaves),
            wrap,
        )

    @property
    def counts(self) -> list[int]:
        """Real numbers in each part."""
        pairs = zip(self.shapes, self.complexes, strict=True)
        return [math.prod(shape) * (2 if double else 1) for shape, double in pairs]

    @property
    def m(self) -> int:
        return sum(self.counts)

    @property
    def is_complex(self) -> bool:
        """Whether every measurement is complex."""
        return all(self.complexes)

    def flat(self, signal: Signal) -> torch.Tensor:
        """The measurements of a batch as (batch, m) real numbers."""
        parts = _listed(signal)
        leaves = [torch_of(part) for part in ([signal] if parts is None else parts)]
        real = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves]
        rows = [leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in real]
        if [row.shape[1] for row in rows] != self.counts:
            raise ValueError(
                f"y must have parts of shape (batch, …) with … one of {list(self.shapes)}, got"
                f" {[tuple(leaf.shape) for leaf in leaves]}"
            )
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def shaped(self, y: torch.Tensor) -> Signal:
        """(batch, m) real numbers as the measurements that the object itself takes."""
        parts: list[Any] = []
        split = torch.split(y, self.counts, dim=1)
        for row, shape, double in zip(split, self.shapes, self.complexes, strict=True):
            if double:
                row = torch.view_as_complex(row.reshape(len(row), -1, 2).contiguous())
            parts.append(row.reshape(len(row), *shape))
        return parts[0] if self.wrap is None else self.wrap(parts)

    def mapped(self, signal: Signal, function: Callable[[Any], Any]) -> Signal:
        """The function of every part."""
        parts = _listed(signal)
        if parts is None or self.wrap is None:
            return function(signal)
        return self.wrap([function(part) for part in parts])

    def flat_if_shaped(self, y: Any) -> Any:
        """`flat` of measurements in the object's own form; anything else as it is."""
        parts = _listed(y)
        if parts is not None and self.wrap is None:
            return y
        leaves = [y] if parts is None else parts
        if not all(isinstance(leaf, torch.Tensor | np.ndarray) for leaf in leaves):
            return y
        own = [(tuple(leaf.shape[1:]), _is_complex(leaf)) for leaf in leaves]
        fits = own == list(zip(self.shapes, self.complexes, strict=True))
        return self.flat(y) if fits else y


def _is_complex(leaf: torch.Tensor | np.ndarray) -> bool:
    return np.iscomplexobj(leaf) if isinstance(leaf, np.ndarray) else leaf.is_complex()


@dataclass
class Border:
    """Casts images and measurements on the way into an object of another library, and back."""

    maps: Maps
    shape: checks.ImageShape
    view: str
    """Which of the `Maps.views` it takes."""
    layout: Layout
    takes: tuple[torch.dtype, ...]
    """The dtypes that it computes in as they come; others become the first of these."""
    precision: torch.dtype
    """What its products are as exact as, at best."""
    spread: bool = False
    """Whether its adjoint takes the parts of a tuple one by one, as mrpro's do."""

    def measure(self, x: Images) -> Measurements:
        """A x in the dtype and on the device of x."""
        measured = self.maps.measured(_enter(self._cast(x), self.view))
        return self.layout.flat(measured).to(x, copy=True)

    def back(self, y: Measurements) -> Images:
        """Aᵀ y in the dtype and on the device of y."""
        cast = self._cast(y)
        if self.maps.adjoint is None:
            return self._by_autograd(cast).to(y)
        signal = self.layout.shaped(cast)
        if self.maps.numpy:
            signal = self.layout.mapped(signal, lambda part: part.cpu().numpy())
        image = self.maps.adjoint(*signal) if self.spread else self.maps.adjoint(signal)
        if isinstance(image, tuple | list) and len(image) == 1:
            image = image[0]
        return _leave(torch_of(image, "adjoint"), self.view).to(y, copy=True)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy: what changes its argument in place, or gives the same array again and again,
        as fast code does, does so on its side of the border alone."""
        dtype = tensor.dtype if tensor.dtype in self.takes else self.takes[0]
        return tensor.to(device=self.maps.device, dtype=dtype, copy=True)

    def _by_autograd(self, y: torch.Tensor) -> torch.Tensor:
        """∇_x ⟨A x, y⟩, of a linear A the same at every x."""
        with torch.enable_grad():
            x = torch.zeros(len(y), *self.shape, dtype=y.dtype, device=y.device, requires_grad=True)
            measured = self.layout.flat(self.maps.forward(_enter(x.clone(), self.view)))
            (gradient,) = torch.autograd.grad(measured, x, y)
        return gradient


def _enter(x: torch.Tensor, view: str) -> torch.Tensor:
    """Our images as the object asks for them."""
    if view == "complex":
        return x.to(HALVES[x.dtype])
    if view == "paired":
        return torch.complex(x[:, :1], x[:, 1:])
    if view == "channels":
        return torch.cat([x, torch.zeros_like(x)], dim=1)
    return x


def _leave(image: torch.Tensor, view: str) -> torch.Tensor:
    """The object's images as ours: the adjoint of `_enter` in the real inner product."""
    if view == "paired":
        return torch.view_as_real(image)[:, 0].movedim(-1, 1)
    if view == "channels":
        return image[:, :1]
    return image.real if image.is_complex() else image


def border(maps: Maps, shape: checks.ImageShape) -> Border:
    """The border of an object: the first way of giving it an image that it takes.

    Raises:
        TypeError, ValueError: no way is taken; one sentence says why.
    """
    errors: list[Exception] = []
    for numpy in maps.kinds:
        maps.numpy = numpy
        for view in maps.views:
            found = [
                made
                for dtype in (torch.float64, torch.float32)
                if (made := _tried(maps, shape, view, dtype, errors)) is not None
            ]
            if found:
                own = [made for made in found if made.precision == made.takes[0]]
                best = (own or found)[0]
                best.takes = tuple(made.takes[0] for made in (own or found[:1]))
                return best
    raise _refusal(maps, shape, errors)


class _Adjoint(Exception):
    """The adjoint failed, and why."""


@torch.no_grad()
def _tried(
    maps: Maps, shape: checks.ImageShape, view: str, dtype: torch.dtype, errors: list[Exception]
) -> Border | None:
    """A border that gives the object such images, if it takes them."""
    generator = checks.seeded(0)
    x = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    try:
        measured = maps.measured(_enter(x.to(maps.device, dtype), view))
        layout = Layout.of(measured)
        made = Border(maps, shape, view, layout, (dtype,), dtype)
        flat = layout.flat(measured)
        if maps.numpy is False and any(_arrays(measured)):
            raise TypeError("a function of numpy arrays")
    except Exception as error:  # another library may fail in any way
        errors.append(error)
        return None
    y = torch.randn(1, layout.m, generator=generator, dtype=dtype)
    for made.spread in (False, True) if isinstance(measured, tuple) else (False,):
        try:
            back = made.back(y)
            if tuple(back.shape) != (1, *shape):
                raise ValueError(f"it gives shape {tuple(back.shape)} for image_shape {shape}")
            break
        except Exception as error:
            errors.append(_Adjoint(error))
    else:
        return None
    if torch.finfo(flat.dtype).eps > torch.finfo(dtype).eps:
        made.precision = flat.dtype
    return made


def _arrays(signal: Signal) -> Iterator[bool]:
    parts = _listed(signal)
    for leaf in [signal] if parts is None else parts:
        yield isinstance(leaf, np.ndarray)


def _refusal(maps: Maps, shape: Sequence[int], errors: Sequence[Exception]) -> Exception:
    """The one error to raise for an object that took no image, or no measurements."""
    for error in errors:
        if isinstance(error, TypeError | ValueError) and str(error).startswith("obj must"):
            return error
    of_adjoint = [error.args[0] for error in errors if isinstance(error, _Adjoint)]
    if of_adjoint:
        why = of_adjoint[0]
        how = "rmatvec" if maps.kinds[0] else "A_adjoint"
        if maps.adjoint is None:
            return ValueError(
                f"obj must have an adjoint, got {maps.name}, through which autograd does not see"
                f" ({described(why)}); give as_operator(forward, image_shape, adjoint=…)"
            )
        if isinstance(why, NotImplementedError) or "'NoneType'" in str(why):
            return ValueError(f"obj must have an adjoint, got {maps.name} without; give it {how}")
        return ValueError(
            f"obj must have an adjoint, got {maps.name}, whose says: {described(why)}; give one,"
            " as_operator(forward, image_shape, adjoint=…)"
        )
    made = f", made for {tuple(maps.made_for)}" if isinstance(maps.made_for, tuple | list) else ""
    return ValueError(
        f"obj must take images of image_shape {tuple(shape)}, got {maps.name}{made}, which says:"
        f" {described(errors[0])}"
    )
