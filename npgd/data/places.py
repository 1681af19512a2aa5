"""Where data is looked for, and where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path

from npgd.files import a_path


class DataNotFoundError(FileNotFoundError):
    """The data asked for is in none of the places looked at; the message says which they were."""

    __module__ = "npgd.data"  # the public name, as tracebacks show it


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds data sets: the argument, else `$NPGD_DATA`, else the user's cache.

    Raises:
        TypeError: an argument that is no path.
        ValueError: an empty one.
        FileNotFoundError: as `cache_directory` does.
    """
    if data_dir is not None:
        return a_path(data_dir, "data_dir")
    if os.environ.get("NPGD_DATA"):
        return Path(os.environ["NPGD_DATA"])
    return cache_directory()


def cache_directory() -> Path:
    """The folder for what can be made again: `$XDG_CACHE_HOME/npgd`, else `~/.cache/npgd`.

    Raises:
        FileNotFoundError: neither the variable nor a home directory is known.
    """
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "npgd"
    try:
        return Path.home() / ".cache" / "npgd"
    except RuntimeError as error:
        raise FileNotFoundError(
            "the cache folder must be named by XDG_CACHE_HOME where there is no home directory,"
            " got neither"
        ) from error
