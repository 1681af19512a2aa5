"""Objects by import path, "package.module:object" or "folder/file.py:object": a user's own code,
run where the user says so.

A file never makes code run: what it names is imported only where its reader names it too.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from npgd import checks
from npgd.files import sentence

PATH = re.compile(r"([A-Za-z_][\w.]*|.*[^/\\]\.py):[A-Za-z_][\w.]*")


def is_import_path(text: object) -> bool:
    """Whether it reads "package.module:object" or "folder/file.py:object", and is no file of
    weights on a drive."""
    return (
        isinstance(text, str)
        and PATH.fullmatch(text) is not None
        and not text.endswith(".safetensors")
    )


def imported(path: str, name: str) -> Any:
    """What an import path names, its module imported (which runs it).

    Args:
        path: "package.module:object", "package.module:Class.attribute", or with a file of Python,
            "folder/file.py", in place of the module.
        name: of the argument that it came as.

    Raises:
        ValueError: a module that cannot be imported, or without such an object.
    """
    module, _, inside = path.rpartition(":")
    try:
        found: Any = _of_file(module) if module.endswith(".py") else importlib.import_module(module)
        for part in inside.split("."):
            found = getattr(found, part)
    except Exception as error:  # a user's module fails in its own way
        raise ValueError(
            f"{name} must name what can be imported, got {checks.shown(path)}"
            f" ({type(error).__name__}: {sentence(error)})"
        ) from error
    return found


def _of_file(path: str) -> ModuleType:
    """The module that a file of Python makes, by the name of the file."""
    file = Path(path).resolve(strict=True)
    known = sys.modules.get(file.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == file:
        return known
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if known is None:
        sys.modules[file.stem] = module  # its classes are found by their name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if sys.modules.get(file.stem) is module:
            del sys.modules[file.stem]
        raise
    return module


def made(path: str, found: Any, name: str) -> Any:
    """What a function of an import path returns; anything else as it is.

    Raises:
        ValueError: a function that fails, with what it says.
    """
    if not callable(found) or isinstance(found, nn.Module):
        return found
    try:
        return found()
    except Exception as error:  # a user's function fails in its own way
        # Where no line of the function ran, the call itself was refused.
        called = error.__traceback__ is not None and error.__traceback__.tb_next is not None
        wanted = "works" if called else "can be called without arguments"
        raise ValueError(
            f"{name} must lead to a function that {wanted}, got {checks.shown(path)}, which says"
            f" {type(error).__name__}: {sentence(error)}"
        ) from error


def path_of(thing: Any) -> str:
    """The import path of a class or function."""
    return f"{thing.__module__}:{thing.__qualname__}"
