"""Door checks: an argument is examined once, where it comes in, and named if it is wrong.

Every message reads `argument must be …, got …`: TypeError for a wrong kind, ValueError for a wrong
value. All checks look at types and shapes only, except `finite`, which reads the data.
"""

from __future__ import annotations

import decimal
import itertools
import math
import numbers
import operator
import os
import reprlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import nn

ImageShape = tuple[int, int, int]

SEEDS = 2**64
"""Seeds are below this: as many as a torch.Generator tells apart."""
LARGEST = 2**63 - 1
"""The largest number of things that torch can count."""
MOST = 10**12
"""More numbers than this, 8 TB, are in no tensor."""
REAL = (numbers.Real, decimal.Decimal)


def shown(value: object) -> str:
    """What came, in one short line."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "a tensor" if isinstance(value, torch.Tensor) else "an array"
        if isinstance(value, torch.Tensor) and value.layout != torch.strided:
            kind = "a sparse tensor"
        if isinstance(value, torch.Tensor) and value.is_meta:
            kind = "a tensor without data,"
        return f"{kind} of shape {tuple(value.shape)} and {value.dtype}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = " ".join(_SHORT.repr(value).split())
    except Exception:  # a repr of somebody else's may fail in any way
        return f"a {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:119]}…"


_SHORT = reprlib.Repr()  # the beginning and the end, which takes no time to find
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3


def printable(text: str) -> str:
    """`text` on one line, with what a terminal would act on, or could not show, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _scalar(value: object) -> object:
    """A tensor or array of no dimension as the number in it, if it is a real one."""
    if isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_complex():
        return value.item() if value.device.type != "meta" else value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    return value


def integer(value: Any, name: str, minimum: int = 1, maximum: int = LARGEST) -> int:
    """`value` as an int; TypeError if it is none, ValueError if it is out of range.

    Integers of numpy, and tensors and arrays that hold a single one without dimensions, serve.
    """
    value = _scalar(value)
    if isinstance(value, bool | np.bool_ | torch.Tensor | np.ndarray):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {shown(number)}")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {shown(number)}")
    return number


def sizes(**values: Any) -> tuple[int, ...]:
    """Sizes of a network's layers, by name: integers from 1 to 2²⁰, above which no weights fit."""
    return tuple(integer(value, name, maximum=2**20) for name, value in values.items())


def number(value: Any, name: str, *, zero: bool = False, negative: bool = False) -> float:
    """`value` as a finite float: positive; at least 0 with `zero`; any with `negative`.

    Numbers of numpy, fractions and decimals, and tensors and arrays without dimensions, serve.
    """
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, REAL):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    kind = "finite" if negative else "finite and not negative" if zero else "finite and positive"
    try:
        result = float(value)
    except (OverflowError, ValueError):  # too large for a float; a signalling NaN
        raise ValueError(f"{name} must be {kind}, got {shown(value)}") from None
    good = negative or result > 0 or (zero and result == 0)
    if not math.isfinite(result) or not good:
        raise ValueError(f"{name} must be {kind}, got {result}")
    return result


def in_a_row(values: Any, name: str, kind: str = "values") -> list[Any]:
    """`values`, of that kind in words, as a list of one at least."""
    wrong = f"{name} must be {kind} in a row, got {shown(values)}"
    if isinstance(_scalar(values), numbers.Real):
        wrong += f"; a single one is [{shown(_scalar(values))}]"
    if isinstance(values, str | bytes | bytearray | Mapping):
        raise TypeError(wrong)
    try:
        listed = list(values)
    except Exception:  # what cannot be iterated says so in many ways
        raise TypeError(wrong) from None
    if not listed:
        raise ValueError(wrong)
    return listed


def numbers_of(values: Any, name: str) -> list[float]:
    """`values`, numbers in a row and one at least, as finite positive floats."""
    listed = in_a_row(values, name, "positive numbers")
    return [number(value, name) for value in listed]


def number_or(value: Any, name: str, *words: str) -> float | str:
    """`value` as a finite positive float, or one of the `words`."""
    if isinstance(value, str) and value in words:
        return value
    listed = " or ".join(["a positive number", *(f'"{word}"' for word in words)])
    if isinstance(value, str):
        raise ValueError(f"{name} must be {listed}, got {shown(value)}")
    return number(value, name)


def between(value: Any, name: str, below: float = 1.0) -> float:
    """`value` as a float between 0 and `below`, both excluded."""
    result = number(value, name)
    if not result < below:
        raise ValueError(f"{name} must be between 0 and {below:g}, got {result}")
    return result


def flag(value: Any, name: str) -> bool:
    """`value` as a bool; TypeError for what is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def choice(value: Any, name: str, *choices: str, otherwise: str = "") -> str:
    """`value`, which must be one of the `choices`; `otherwise` says what else would serve."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(choices)
        kind = ValueError if isinstance(value, str) else TypeError
        rest = f" or {otherwise}" if otherwise else ""
        raise kind(f"{name} must be one of {listed}{rest}, got {shown(value)}")
    return value


def some(values: Any, name: str, *choices: str) -> tuple[str, ...]:
    """`values` as a tuple, each of them one of the `choices`."""
    if not isinstance(values, Sequence | Set) or isinstance(values, str | bytes | bytearray):
        kind = ValueError if isinstance(values, str) else TypeError
        single = f"; a single one is [{shown(values)}]" if values in choices else ""
        raise kind(
            f"{name} must be some of {', '.join(choices)} in a row, got {shown(values)}{single}"
        )
    unknown = [value for value in values if not isinstance(value, str) or value not in choices]
    if unknown:
        raise ValueError(f"{name} must be some of {', '.join(choices)}, got {shown(unknown)}")
    return tuple(values)


def seed(value: Any, name: str = "seed") -> int:
    """`value` as an int from 0 to 2⁶⁴ − 1; integers of numpy serve."""
    return integer(value, name, minimum=0, maximum=SEEDS - 1)


def seeded(value: Any, name: str = "seed") -> torch.Generator:
    """The generator of a seed: the one way from seeds to random streams.

    Every seed, from 0 to 2⁶⁴ − 1, has a stream of its own.
    """
    return torch.Generator().manual_seed(seed(value, name))


def image_shape(shape: Any, name: str = "image_shape") -> ImageShape:
    """(channels, height, width) as ints, each at least 1."""
    got = f"got {shown(tuple(shape) if isinstance(shape, Sequence) else shape)}"
    wrong = f"{name} must be (channels, height, width), each at least 1, {got}"
    if isinstance(shape, str | bytes | bytearray | Mapping | Set):
        raise TypeError(wrong)
    try:
        sides = [integer(side, name) for side in shape]
    except TypeError:
        raise TypeError(wrong) from None
    except ValueError:
        raise ValueError(wrong) from None
    if len(sides) != 3:
        raise ValueError(wrong)
    channels, height, width = sides
    if math.prod(sides) > LARGEST:
        raise ValueError(wrong)
    return channels, height, width


def drawing(generator: Any, seed: Any) -> torch.Generator:
    """The generator given, or one of the seed given; ValueError unless it is one of the two."""
    if (generator is None) == (seed is None):
        got = "neither" if seed is None else "both"
        raise ValueError(f"one of generator and seed must be given, got {got}")
    if generator is None:
        return seeded(seed)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {shown(generator)}")
    return generator


def floating_type(dtype: Any, name: str = "dtype") -> torch.dtype:
    """`dtype`; TypeError unless it is torch.float32 or torch.float64."""
    if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be torch.float32 or torch.float64, got {shown(dtype)}")
    return dtype


def floating(tensor: object, name: str) -> torch.Tensor:
    """`tensor`; TypeError unless it is a real floating point torch tensor, dense and with data."""
    if not isinstance(tensor, torch.Tensor):
        way = "; torch.from_numpy makes one" if isinstance(tensor, np.ndarray) else ""
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}{way}")
    if not tensor.is_floating_point():
        pictures = tensor.dtype == torch.uint8 and tensor.ndim in (3, 4)
        way = "; npgd.data.to_pixels makes pixels in [-1, 1] of bytes" if pictures else ""
        raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}{way}")
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        what = "without data" if tensor.device.type == "meta" else str(tensor.layout)
        raise TypeError(f"{name} must be a dense tensor, got one {what}")
    return tensor


def from_numpy(array: np.ndarray, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A copy of a floating point or complex array as a tensor, its real numbers in `dtype`."""
    if array.dtype.kind not in "fc" or array.dtype.itemsize > 16:
        raise TypeError(f"{name} must be float32 or float64, got {shown(array)}")
    tensor = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    if dtype is None:
        return tensor
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


def free_memory() -> int:
    """Bytes of memory that are free or can be freed; what the machine has where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            told = dict(line.split(":", 1) for line in lines)
        return int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return LARGEST


def images(x: object, shape: ImageShape, name: str = "x", least: int = 0) -> torch.Tensor:
    """`x`; raises unless it is a floating point tensor of shape (batch, *shape).

    The batch must hold at least `least` images.
    """
    batch = floating(x, name)
    if batch.ndim != 4 or tuple(batch.shape[1:]) != shape:
        sides = ", ".join(map(str, shape))
        raise ValueError(
            f"{name} must have shape (batch, {sides}), got {_came(batch, name, len(shape))}"
        )
    return _holding(batch, name, least, "image")


def any_images(x: object, name: str = "x", least: int = 1) -> torch.Tensor:
    """`x`; raises unless it is a floating point tensor (batch, channels, height, width)."""
    batch = floating(x, name)
    if batch.ndim != 4 or min(batch.shape[1:]) < 1:
        came = _came(batch, name, 3)
        raise ValueError(f"{name} must have shape (batch, channels, height, width), got {came}")
    return _holding(batch, name, least, "image")


def measurements(y: object, m: int, name: str = "y", least: int = 0) -> torch.Tensor:
    """`y`; raises unless it is a floating point tensor of shape (batch, m)."""
    batch = floating(y, name)
    if batch.ndim != 2 or batch.shape[1] != m:
        raise ValueError(f"{name} must have shape (batch, {m}), got {_came(batch, name, 1)}")
    return _holding(batch, name, least, "image")


def latents(z: object, k: int, name: str = "z", least: int = 0) -> torch.Tensor:
    """`z`; raises unless it is a floating point tensor of shape (batch, k)."""
    batch = floating(z, name)
    if batch.ndim != 2 or batch.shape[1] != k:
        raise ValueError(f"{name} must have shape (batch, {k}), got {_came(batch, name, 1)}")
    return _holding(batch, name, least, "latent")


def _came(batch: torch.Tensor, name: str, single: int) -> str:
    """The shape that came; where it is that of a single one, how to make a batch of it."""
    one = f"; a batch of one is {name}[None]" if batch.ndim == single else ""
    return f"{tuple(batch.shape)}{one}"


def iterates(x: object, name: str = "iterates") -> torch.Tensor:
    """`x`; TypeError unless it is a floating point tensor, as a run keeps them if it is asked."""
    if x is None:
        raise TypeError(
            f"{name} must be a torch tensor, got None; npgd.recover keeps them with"
            " record_iterates=True"
        )
    return floating(x, name)


def _holding(batch: torch.Tensor, name: str, least: int, what: str) -> torch.Tensor:
    if len(batch) < least:
        several = f"{what}{'s' * (least != 1)}"
        raise ValueError(
            f"{name} must hold at least {least} {several}, got shape {tuple(batch.shape)}"
        )
    return batch


def levels(sigma: Any, w: torch.Tensor, name: str = "sigma") -> torch.Tensor:
    """Noise levels σ ≥ 0 of the images w, (batch,), from one number or one for each image."""
    if isinstance(sigma, torch.Tensor) and sigma.ndim > 0:
        if tuple(finite(floating(sigma, name), name).shape) not in ((len(w),), (1,)):
            came = tuple(sigma.shape)
            raise ValueError(f"{name} must be a number or have shape ({len(w)},), got shape {came}")
        if len(w) and float(sigma.min()) < 0:
            raise ValueError(f"{name} must not be negative, got {float(sigma.min()):.4g}")
        return sigma.to(w).expand(len(w))
    if isinstance(sigma, torch.Tensor) and not sigma.is_meta and sigma.is_floating_point():
        number(sigma, name, zero=True)
        return sigma.to(w).expand(len(w))  # as it came, for the sake of its gradient
    return w.new_full((len(w),), number(sigma, name, zero=True))


def finite(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """`tensor`; ValueError if it holds NaN or infinity."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad} of {tensor.numel()} entries"
        )
    return tensor


def square_range(dtype: torch.dtype) -> tuple[float, float]:
    """The least and the largest size of what a dtype holds the squares of, with their digits."""
    info = torch.finfo(dtype)
    return math.sqrt(info.tiny) / info.eps, math.sqrt(info.max * info.eps)


def squares(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """`tensor`; ValueError where it is so large or small that its squares leave its dtype, or lose
    their digits there."""
    size = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    least, most = square_range(tensor.dtype)
    if size and not least <= size <= most:
        raise ValueError(
            f"{name} must be of a size between {least:.0e} and {most:.0e}, whose squares"
            f" {str(tensor.dtype).removeprefix('torch.')} holds, got {size:.3g}; measure in another"
            " unit, A and y times one number"
        )
    return tensor


def same_tensor(tensor: torch.Tensor, other: torch.Tensor, name: str, other_name: str) -> None:
    """Raise TypeError if two tensors that are computed with differ in dtype or device."""
    found, came = ((t.dtype, t.device) for t in (other, tensor))
    if found != came:
        raise TypeError(
            f"{name} must be {found[0]} on {found[1]} as {other_name} is, got {came[0]} on"
            f" {came[1]}; convert one of them with .to(…)"
        )


def room(value: int, name: str, numbers: int) -> None:
    """Raise ValueError where `value` asks for more numbers in one tensor than a machine holds."""
    if numbers > MOST:
        raise ValueError(
            f"{name} must leave fewer than {MOST:.0e} numbers in one tensor, got {value} for"
            f" {numbers:.1e}"
        )


def settle(record: object, **values: object) -> None:
    """Give the fields of a frozen dataclass the values that its checks returned."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def kind(module: nn.Module) -> tuple[torch.dtype, torch.device] | None:
    """Dtype and device of the first floating point tensor of a module; None if it holds none."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return None


def same_kind(tensor: torch.Tensor, module: object, name: str, module_name: str) -> None:
    """Raise TypeError if `module` is an nn.Module of another dtype or device than `tensor`.

    Under autocast, where torch converts on the way, only the devices are compared.
    """
    found = kind(module) if isinstance(module, nn.Module) else None
    if found is None:
        return
    mixed = torch.is_autocast_enabled(tensor.device.type)
    if found[1] != tensor.device or (found[0] != tensor.dtype and not mixed):
        raise TypeError(
            f"{name} must be {found[0]} on {found[1]} as {module_name} is, got {tensor.dtype} on"
            f" {tensor.device}; convert one of them with .to(…)"
        )
