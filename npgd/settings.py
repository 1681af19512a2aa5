"""What the settings of several kinds of training check alike.

Settings are frozen dataclasses: each field is documented once, by a string under it, which is also
the help of the option that the command line has for it.
"""

from __future__ import annotations

from collections.abc import Collection


def choice(value: str, name: str, known: Collection[str]) -> None:
    """Raise ValueError for a value that is not one of `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def choices(value: str, name: str, known: Collection[str]) -> tuple[str, ...]:
    """The names in a comma-separated choice; ValueError for one that is not `known`."""
    chosen = tuple(part.strip() for part in value.split(",") if part.strip())
    for part in chosen:
        if part not in known:
            expected = f"a comma-separated choice of {', '.join(known)}"
            raise ValueError(f"{name} must be {expected}, got {part!r}")
    return chosen


def fraction(value: float, name: str) -> None:
    """Raise ValueError for a value outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a fraction in [0, 1], got {value}")


def interval(low: float, high: float, name: str) -> None:
    """Raise ValueError unless 0 < low ≤ high."""
    if not 0 < low <= high:
        raise ValueError(f"{name}_low, {name}_high must be 0 < low ≤ high, got {low}, {high}")
