"""Settings are dataclasses, each field documented once by a string under it.

`documented` reads those strings back, so that no command line has to repeat them:

    >>> @dataclass(frozen=True)
    ... class Walk:
    ...     steps: int = 10
    ...     \"\"\"Steps to take.\"\"\"
    >>> documented(Walk)
    {'steps': 'Steps to take.'}

Beside it, the checks that settings of several kinds share.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Collection


def documented(settings: type) -> dict[str, str]:
    """The text under each field of a dataclass, in the order of its fields.

    A field without a string of its own has its base class's, and "" where there is none. Line
    breaks become spaces.

    Raises:
        TypeError: if `settings` is not a dataclass.
        OSError: if its source is not to be had, as of a class typed at the Python prompt.
    """
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        raise TypeError(f"settings must be a dataclass, got {settings!r}")
    texts: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _strings_under_fields(base)
    return {field.name: texts.get(field.name, "") for field in dataclasses.fields(settings)}


@functools.cache
def _strings_under_fields(settings: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in itertools.pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                texts[name] = " ".join(text.split())
    return texts


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
