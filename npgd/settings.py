"""What the settings of several kinds of training check alike.

Settings are frozen dataclasses. Each field is documented once, by a string under it, which is also
the help of the option that the command line has for it. Its type says what it may hold (`Count`,
`Positive`, `Fraction`, …), and `check` holds every field to its type.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import typing
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from npgd import checks


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `least` to `most`."""

    least: int
    most: int
    words: str

    def read(self, value: Any, name: str) -> int:
        """`value` as an int; TypeError for another kind, ValueError outside the range."""
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name} must be an integer, got {checks.shown(value)}")
        number = operator.index(value)
        if not self.least <= number <= self.most:
            raise ValueError(f"{name} must be {self.words}, got {checks.shown(number)}")
        return number


@dataclass(frozen=True)
class Real:
    """Finite numbers from `least` to `most`, or above `least` where it is `excluded`."""

    least: float
    most: float
    words: str
    excluded: bool = False

    def read(self, value: Any, name: str) -> float:
        """`value` as a float; TypeError for another kind, ValueError outside the range."""
        if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be a number, got {checks.shown(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        inside = self.least <= number <= self.most  # false of NaN
        if not inside or (self.excluded and number == self.least):
            raise ValueError(f"{name} must be {self.words}, got {checks.shown(value)}")
        return number


COUNTS = Whole(1, 2**31 - 1, "at least 1 and below 2³¹")
SIZES = Whole(1, 2**16, "at least 1 and at most 65,536")

Count = Annotated[int, COUNTS]
"""How many steps, images, passes."""
Size = Annotated[int, SIZES]
"""A side of a network: channels, units, latent coordinates."""
Seed = Annotated[int, Whole(0, 2**64 - 1, "at least 0 and below 2⁶⁴")]
"""Where random draws begin."""
Positive = Annotated[float, Real(0.0, 1e6, "positive and at most 1e6", excluded=True)]
"""A learning rate."""
Deviation = Annotated[float, Real(1e-6, 1e6, "between 1e-6 and 1e6")]
"""A standard deviation, whose square and its inverse are numbers in float32."""
Weight = Annotated[float, Real(0.0, 1e6, "at least 0 and at most 1e6")]
"""A weight of a term of a loss."""
Fraction = Annotated[float, Real(0.0, 1.0, "a fraction in [0, 1]")]
"""A part of a whole, or a decay."""


def check(settings: Any) -> None:
    """Hold each field of a frozen dataclass to its type, and make it plain (int, float, bool, str).

    Raises:
        TypeError: a field of another kind (a string for a number, a bool for an integer, …).
        ValueError: a number outside the field's range, NaN and infinity among them.
    """
    for name, (kind, ranges) in kinds(type(settings)).items():
        value = getattr(settings, name)
        if ranges:
            plain = ranges[0].read(value, name)
        else:
            words, known = ("a string", str) if kind is str else ("True or False", bool | np.bool_)
            if not isinstance(value, known):
                raise TypeError(f"{name} must be {words}, got {checks.shown(value)}")
            plain = kind(value)
        object.__setattr__(settings, name, plain)


def kinds(settings: type) -> dict[str, tuple[type, list[Whole | Real]]]:
    """Of each field its plain type, and the range it has, if any."""
    hints = typing.get_type_hints(settings, include_extras=True)
    found = {}
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        ranges = [part for part in getattr(hint, "__metadata__", ())]
        found[field.name] = getattr(hint, "__origin__", hint), ranges
    return found


def count(value: Any, name: str) -> int:
    """`value` as a `Count`, for an argument that is no field."""
    return COUNTS.read(value, name)


def size(value: Any, name: str) -> int:
    """`value` as a `Size`, for an argument that is no field."""
    return SIZES.read(value, name)


def choices(value: str, name: str, known: Collection[str]) -> tuple[str, ...]:
    """The names in a comma-separated choice; ValueError for one that is not `known`."""
    chosen = tuple(part.strip() for part in value.split(",") if part.strip())
    for part in chosen:
        if part not in known:
            expected = f"a comma-separated choice of {', '.join(known)}"
            raise ValueError(f"{name} must be {expected}, got {checks.shown(part)}")
    return chosen


def grouped(width: int, name: str, where: str = "") -> None:
    """Raise ValueError for an encoder's channels that cannot be normalised in its groups."""
    if width % 4:
        raise ValueError(f"{name} must be a multiple of 4{where}, got {width}")


def interval(low: float, high: float, name: str) -> None:
    """Raise ValueError unless low ≤ high."""
    if low > high:
        raise ValueError(f"{name}_low must be at most {name}_high, got {low} and {high}")
