"""Where data is looked for, and where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path


class DataNotFoundError(FileNotFoundError):
    """The data asked for is in none of the places looked at; the message says which they were."""

    __module__ = "npgd.data"  # the public name, as tracebacks show it


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds data sets: the argument, else `$NPGD_DATA`, else the user's cache."""
    if data_dir is not None:
        return Path(data_dir)
    if os.environ.get("NPGD_DATA"):
        return Path(os.environ["NPGD_DATA"])
    return cache_directory()


def cache_directory() -> Path:
    """The folder for what can be made again: `$XDG_CACHE_HOME/npgd`, else `~/.cache/npgd`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "npgd"
