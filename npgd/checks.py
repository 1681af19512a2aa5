"""Door checks: an argument is examined once, where it comes in, and named if it is wrong.

Every message reads `argument must be …, got …`: TypeError for a wrong kind, ValueError for a wrong
value. All checks look at types and shapes only, except `finite`, which reads the data.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

ImageShape = tuple[int, int, int]


def integer(value: Any, name: str, minimum: int = 1) -> int:
    """`value` as an int; TypeError if it is none, ValueError if it is below `minimum`."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def number(value: Any, name: str, *, zero: bool = False) -> float:
    """`value` as a finite float: positive, or at least 0 where `zero` is allowed."""
    if isinstance(value, bool | str):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(result) or result < 0 or (result == 0 and not zero):
        kind = "finite and not negative" if zero else "finite and positive"
        raise ValueError(f"{name} must be {kind}, got {result}")
    return result


def image_shape(shape: Sequence[int], name: str = "image_shape") -> ImageShape:
    """(channels, height, width) as ints, each at least 1."""
    try:
        sides = [operator.index(side) for side in shape]
    except TypeError:
        raise TypeError(f"{name} must be (channels, height, width), got {shape!r}") from None
    if len(sides) != 3 or min(sides) < 1:
        raise ValueError(
            f"{name} must be (channels, height, width), each at least 1, got {tuple(shape)}"
        )
    channels, height, width = sides
    return channels, height, width


def drawing(generator: torch.Generator | None, seed: int | None) -> torch.Generator:
    """The generator given, or one of the seed given; ValueError unless it is one of the two."""
    if (generator is None) == (seed is None):
        got = "neither" if seed is None else "both"
        raise ValueError(f"one of generator and seed must be given, got {got}")
    return torch.Generator().manual_seed(seed or 0) if generator is None else generator


def floating(tensor: object, name: str) -> torch.Tensor:
    """`tensor`; TypeError unless it is a real floating point torch tensor."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}")
    return tensor


def images(x: object, shape: ImageShape, name: str = "x") -> torch.Tensor:
    """`x`; raises unless it is a floating point tensor of shape (batch, *shape)."""
    batch = floating(x, name)
    if batch.ndim != 4 or tuple(batch.shape[1:]) != shape:
        sides = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape (batch, {sides}), got {tuple(batch.shape)}")
    return batch


def measurements(y: object, m: int, name: str = "y") -> torch.Tensor:
    """`y`; raises unless it is a floating point tensor of shape (batch, m)."""
    batch = floating(y, name)
    if batch.ndim != 2 or batch.shape[1] != m:
        raise ValueError(f"{name} must have shape (batch, {m}), got {tuple(batch.shape)}")
    return batch


def finite(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """`tensor`; ValueError if it holds NaN or infinity."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad} of {tensor.numel()} entries"
        )
    return tensor


def kind(module: nn.Module) -> tuple[torch.dtype, torch.device] | None:
    """Dtype and device of the first floating point tensor of a module; None if it holds none."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return None


def same_kind(tensor: torch.Tensor, module: object, name: str, module_name: str) -> None:
    """Raise TypeError if `module` is an nn.Module of another dtype or device than `tensor`."""
    found = kind(module) if isinstance(module, nn.Module) else None
    if found is not None and found != (tensor.dtype, tensor.device):
        raise TypeError(
            f"{name} must be {found[0]} on {found[1]} as {module_name} is, got {tensor.dtype} on"
            f" {tensor.device}; convert one of them with .to(…)"
        )
