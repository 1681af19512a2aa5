"""States image by image: the rows of some images taken out, and put back.

A state is a dataclass. Its tensors run over the images of the batch along their first axis, unless
the field says otherwise: `field(metadata={"axis": 1})`, or None for a tensor that all images share.
Dataclasses inside it are gone through alike; everything else, and tensors without axes, is shared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Int

S = TypeVar("S")
Index = Int[torch.Tensor, " some"]


def separable(state: Any, batch: int) -> bool:
    """Whether every tensor of the state runs over the images, as the module says."""
    if not dataclasses.is_dataclass(state):
        return False
    fits = []

    def look(axis: int, tensor: torch.Tensor) -> torch.Tensor:
        fits.append(tensor.ndim > axis and tensor.shape[axis] == batch)
        return tensor

    _each(look, state)
    return all(fits)


def taken(state: S, index: Index) -> S:
    """The state of the images at `index` alone."""
    return _each(lambda axis, tensor: tensor.index_select(axis, index), state)


def merged(whole: S, part: S, index: Index) -> S:
    """The state of all, with the images at `index` as in `part`, and what they share from there."""
    return _each(lambda axis, tensor, old: old.index_copy(axis, index, tensor), part, whole)


def _each(change: Callable[..., torch.Tensor], state: S, *others: S, axis: int = 0) -> S:
    """The state with `change(axis, tensor, *tensors of the others)` for each of its tensors."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(state):  # type: ignore[arg-type]
        value = getattr(state, field.name)
        along = field.metadata.get("axis", axis)
        if along is None:
            continue
        rest = [getattr(other, field.name) for other in others]
        if isinstance(value, torch.Tensor) and value.ndim:
            values[field.name] = change(along, value, *rest)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            values[field.name] = _each(change, value, *rest, axis=along)
    return dataclasses.replace(state, **values)  # type: ignore[type-var]
