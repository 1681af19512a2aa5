"""One training at a time in a folder.

The operating system holds the lock for the process that took it, and lets go of it when the process
ends, however it ends: a lock that is left behind blocks nobody. The file stays, so that nobody can
hold a lock on a file that another has removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

NAME = ".lock"
TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def _take(file: BinaryIO) -> None:
    """Lock a file for this process, or raise OSError at once."""
    if os.name == "nt":
        import msvcrt

        file.seek(2**30)  # a byte beyond what is written, which others may read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        ValueError: another training holds it.
        OSError: the folder cannot be written into.
    """
    path = directory / NAME
    with open(path, "ab+") as file:
        try:
            _take(file)
        except OSError as error:
            if error.errno not in TAKEN:  # some network drives know no locks
                warnings.warn(
                    f"{directory} cannot be locked ({error.strerror}); see to it that no other "
                    "training writes there",
                    stacklevel=4,
                )
            else:
                file.seek(0)
                holder = file.read(20).decode("ascii", "replace").strip()
                who = f"process {holder}" if holder.isdecimal() else "another process"
                raise ValueError(
                    f"directory must be free of other trainings, got {directory}, where {who} is "
                    "training; wait for its end, or give another directory"
                ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        yield
