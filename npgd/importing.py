"""Objects by import path, "package.module:object": a user's own code, run where the user says so.

A file never makes code run: what it names is imported only where its reader names it too.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from npgd import checks
from npgd.files import sentence

PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_import_path(text: object) -> bool:
    """Whether it reads "package.module:object", and is no file of weights on a drive."""
    return (
        isinstance(text, str)
        and PATH.fullmatch(text) is not None
        and not text.endswith(".safetensors")
    )


def imported(path: str, name: str) -> Any:
    """What an import path names, its module imported (which runs it).

    Args:
        path: "package.module:object", or "package.module:Class.attribute".
        name: of the argument that it came as.

    Raises:
        ValueError: a module that cannot be imported, or without such an object.
    """
    module, _, inside = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in inside.split("."):
            found = getattr(found, part)
    except Exception as error:  # a user's module fails in its own way
        raise ValueError(
            f"{name} must name what can be imported, got {checks.shown(path)}"
            f" ({type(error).__name__}: {sentence(error)})"
        ) from error
    return found


def path_of(thing: Any) -> str:
    """The import path of a class or function."""
    return f"{thing.__module__}:{thing.__qualname__}"
