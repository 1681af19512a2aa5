"""Outputs: they appear whole or not at all, and replace nothing but what these commands made.

A folder that a command writes holds a list of what the command put there. `--force` replaces such a
folder, and none that holds anything else; what stands there is looked at before the work, and again
when the new folder takes its place. Until then it is filled beside that place, under a name that
one run has at a time. A run that was killed leaves that name behind, and the next one clears it up.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.commands.options import invocation

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LIST = ".npgd.json"
"""The list of what was written, in every folder that is written."""

# What a file manager puts into folders that it shows.
_OF_THE_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class Folder:
    """A folder that is being written."""

    path: Path
    """Where it is filled."""
    place: Path
    """Where it will stand."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file; an error names it by the place where it would have stood."""
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _named(error, f"--output {self.place / name}") from error


@contextlib.contextmanager
def output_directory(path: Path, force: bool) -> Iterator[Folder]:
    """A new folder that stands at `path`, whole, once the block has ended without an error.

    A link is followed: what it leads to is written. An empty folder is taken as none.

    Raises:
        FileExistsError: something is there that `force` does not let replace or that no command
            wrote, before the block or after it; or another run is writing there.
        ValueError: the working directory, or a folder that holds it.
    """
    place = _place(path, "--output")
    with _beside(place, path, "--output") as part:
        stood = _replaceable(place, path, force)
        yield Folder(part, place)
        listed = sorted([*_names(part), LIST])
        Folder(part, place).write(LIST, json.dumps({"npgd": 1, "files": listed}).encode())
        with _alone(place.parent):
            _swap_in(part, place, path, stood)
            _clear(part)


@contextlib.contextmanager
def output_file(
    path: Path, force: bool, ours: Callable[[Path], bool], option: str = "--output"
) -> Iterator[Path]:
    """Where to write a file that then stands at `path`, if the block ends without an error.

    Args:
        path: of the file; a link is followed.
        force: whether a file that is there may be replaced.
        ours: whether a file is of the kind that is written; others are never replaced.
        option: that named the path.

    Raises:
        FileExistsError, ValueError: as `output_directory` does.
    """
    place = _place(path, option)

    def check() -> None:
        if not os.path.lexists(place):
            return
        if not place.is_file() or (force and not ours(place)):
            raise FileExistsError(
                f"{option} must name a new file, or one of the kind it writes, got {path}; choose "
                "another, with or without --force"
            )
        if not force:
            raise FileExistsError(
                f"{option} must name nothing that exists, got {path}; give --force to replace it"
            )

    with _beside(place, path, option) as part:
        check()
        yield part / place.name
        with _alone(place.parent):
            check()
            os.replace(part / place.name, place)


def _named(error: OSError, name: str) -> OSError:
    """The error of the system, of something that the user knows by `name`."""
    return OSError(error.errno, error.strerror, name)


def _place(path: Path, option: str) -> Path:
    """Where `path` leads; ValueError for the working directory and what holds it."""
    try:
        place, here = path.resolve(), Path.cwd()
    except RuntimeError as error:
        raise ValueError(f"{option} must be a path without a loop of links, got {path}") from error
    except OSError as error:
        raise _named(error, f"{option} {path}") from error
    if place in (here, *here.parents):
        raise ValueError(
            f"{option} must be a name of its own, got {path}, which is or holds the working "
            "directory"
        )
    return place


# ---------------------------------------------------------------------------- what stands there


def _replaceable(place: Path, path: Path, force: bool) -> tuple[int, int] | None:
    """What stands at `place` and may be replaced, to be known again; None for nothing."""
    if not os.path.lexists(place):
        return None
    if not place.is_dir():
        raise FileExistsError(f"--output must name a folder, got the file {path}")
    if not any(place.iterdir()):
        return None
    foreign = _foreign(place)
    if foreign:
        told = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise FileExistsError(
            f"--output must name nothing that exists, or what npgd wrote, got {path} with {told}; "
            "choose another, with or without --force"
        )
    if not force:
        raise FileExistsError(
            f"--output must name nothing that exists, got {path}; give --force to replace it"
        )
    return _identity(place)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _names(folder: Path) -> list[str]:
    """All that lies in a folder, by its path in it; folders end in a slash. Links are names."""

    def refuse(error: OSError) -> None:
        raise error

    names = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        inside = Path(root).relative_to(folder)
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        names += [(inside / name).as_posix() for name in [*files, *links]]
        names += [f"{(inside / name).as_posix()}/" for name in folders if name not in links]
    return [name for name in names if Path(name).name not in _OF_THE_SYSTEM]


def _foreign(folder: Path) -> list[str]:
    """What lies in a folder and is not in its list."""
    listed = _listed(folder) or set()
    return sorted(name for name in _names(folder) if name not in listed)


def _listed(folder: Path) -> set[str] | None:
    """The names in a folder's list; None where there is none, or not a whole one."""
    try:
        return set(json.loads((folder / LIST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ------------------------------------------------------------------------- taking its place


def _swap_in(part: Path, place: Path, path: Path, stood: tuple[int, int] | None) -> None:
    """Put the folder `part` at `place`, in the stead of what `stood` there and of nothing else."""
    changed = FileExistsError(
        f"--output must stay as it was while npgd works, got {path} with something new in it; "
        "nothing was replaced, and nothing written"
    )
    if stood is None or not os.path.lexists(place):
        try:
            part.rename(place)  # takes the place of nothing, or of an empty folder
        except OSError as error:
            raise changed if error.errno in _TAKEN else error from error
        return
    _exchange(part, place)
    if _identity(part) != stood or _foreign(part):
        _exchange(part, place)
        raise changed


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places; in one step where the system can."""
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        exchange = None
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    if exchange and exchange(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return
    aside = _aside(one)  # a run killed from here on is mended by `_restore`
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def _aside(part: Path) -> Path:
    return part.with_suffix(".old")


def _restore(part: Path, place: Path) -> None:
    """Put back what a run was killed over, between the steps of `_exchange`."""
    aside = _aside(part)
    if not os.path.lexists(aside):
        return
    if not os.path.lexists(place):
        aside.rename(place)
    else:
        _clear(aside)


# ------------------------------------------------------------------------- filled beside it


@contextlib.contextmanager
def _beside(place: Path, path: Path, option: str) -> Iterator[Path]:
    """An empty folder beside `place` for one run at a time; gone in the end."""
    digest = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:12]
    part = place.with_name(f".npgd-{digest}.part")
    new = [folder for folder in place.parents if not os.path.lexists(folder)]
    lock = None
    try:
        try:
            with contextlib.suppress(FileNotFoundError):
                place.lstat()  # too long a name is refused now
            place.parent.mkdir(parents=True, exist_ok=True)
            with _alone(place.parent):
                if os.path.lexists(part) and not _left_behind(part):
                    raise FileExistsError(
                        f"{option} must be written by one run at a time, got {path}, which another "
                        f"is writing (if none is, remove {part})"
                    )
                _clear(part)
                _restore(part, place)
                part.mkdir()
                lock = _locked(part)
        except OSError as error:
            raise _named(error, f"{option} {path}") if error.strerror else error from error
        try:
            yield part
        finally:
            with _alone(place.parent):
                _clear(part)
    finally:
        if lock is not None:
            os.close(lock)
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # unless it is full


def _clear(part: Path) -> None:
    """Remove a folder that a run was filling, or one that it replaced: of that, what is listed.

    The list is written last: without a whole one, a run was filling the folder.
    """
    if not part.is_dir() or part.is_symlink():
        part.unlink(missing_ok=True)
        return
    foreign = _foreign(part) if _listed(part) is not None else []
    if foreign:
        raise FileExistsError(f"{part} must hold what npgd wrote, got {', '.join(foreign)} with it")
    shutil.rmtree(part)


def _left_behind(part: Path) -> bool:
    """Whether no run is filling the folder: its lock is free."""
    if part.is_symlink() or not part.is_dir():
        return True
    lock = _locked(part)
    if lock is None:
        return False
    os.close(lock)
    return True


def _locked(folder: Path) -> int | None:
    """A descriptor that locks a folder until it is closed; None where that cannot be."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The block runs in one process at a time, of those that write into `folder`."""
    with contextlib.ExitStack() as opened:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a folder that cannot be read or locked
                descriptor = os.open(folder, os.O_RDONLY)
                opened.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def record() -> dict[str, Any]:
    """What made an output: command line, versions, date."""
    import platform

    import torch

    import npgd

    return {
        "npgd": npgd.__version__,
        "command_line": shlex.join(["npgd", *invocation().arguments]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
