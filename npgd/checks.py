"""Door checks: an argument is examined once, where it comes in, and named if it is wrong.

All of them look at types and shapes only, except `finite`, which reads the data.
"""

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

ImageShape = tuple[int, int, int]


def integer(value: Any, name: str, minimum: int = 1) -> int:
    """Return `value` as an int; TypeError if it is none, ValueError if below `minimum`."""
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
    """Return `value` as a finite float, positive, or not negative where `zero` is allowed."""
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
    """Return (channels, height, width) as ints, each at least 1."""
    try:
        sides = tuple(operator.index(side) for side in shape)
    except TypeError:
        raise TypeError(f"{name} must be (channels, height, width), got {shape!r}") from None
    if len(sides) != 3 or min(sides) < 1:
        raise ValueError(
            f"{name} must be (channels, height, width), each at least 1, got {tuple(shape)}"
        )
    return sides


def floating(tensor: Any, name: str) -> torch.Tensor:
    """Raise TypeError unless `tensor` is a real floating point torch tensor."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}")
    return tensor


def images(x: Any, shape: ImageShape, name: str = "x") -> torch.Tensor:
    """Raise unless `x` is a floating point tensor of shape (batch, *shape)."""
    floating(x, name)
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        expected = ", ".join(["batch", *map(str, shape)])
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected ({expected})")
    return x


def measurements(y: Any, m: int, name: str = "y") -> torch.Tensor:
    """Raise unless `y` is a floating point tensor of shape (batch, m)."""
    floating(y, name)
    if y.ndim != 2 or y.shape[1] != m:
        raise ValueError(f"{name} has shape {tuple(y.shape)}, expected (batch, {m})")
    return y


def finite(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Raise ValueError if `tensor` holds NaN or infinity."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {tensor.numel()} entries")
    return tensor


def kind(module: nn.Module) -> tuple[torch.dtype, torch.device] | None:
    """Dtype and device of the first floating point tensor of a module; None if it holds none."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return None


def same_kind(tensor: torch.Tensor, module: Any, name: str, module_name: str) -> None:
    """Raise TypeError if `module` is an nn.Module of another dtype or device than `tensor`."""
    found = kind(module) if isinstance(module, nn.Module) else None
    if found is not None and found != (tensor.dtype, tensor.device):
        raise TypeError(
            f"{name} is {tensor.dtype} on {tensor.device} but {module_name} is {found[0]} on"
            f" {found[1]}; convert one of them with .to(…)"
        )
