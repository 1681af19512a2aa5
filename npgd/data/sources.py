"""Where pictures lie: a folder, a zip, an LMDB, or one file.

A source has `names`, of files that can be opened and may be pictures, `odd`, those that cannot be
opened and why, `state`, which changes when the source does, and `open`.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from npgd import checks
from npgd.data.decoding import IMAGE_SUFFIXES, OTHER_SUFFIXES, why
from npgd.data.lmdb_file import LmdbFile

LARGEST_FILE = 64 * 2**20
# Of bzip2 and LZMA, zipfile unpacks all of what it reads: 64 bytes are at most 90 MB.
PIECE = 64


class Skipped(NamedTuple):
    """A picture that is not used."""

    name: str
    why: str


class Folder:
    """Files in a folder and its subfolders, by their path in it; `only` makes it one file.

    Symbolic links are followed; a folder reached twice is read once.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        self.odd: list[Skipped] = []
        self.names = list(self._files()) if only is None else [only]

    def _files(self) -> Iterator[str]:
        seen: dict[tuple[int, int], str] = {}
        for place, folders, files in os.walk(self.path, onerror=self._unread, followlinks=True):
            found, here = Path(place).stat(), Path(place).relative_to(self.path).as_posix()
            before = seen.setdefault((found.st_dev, found.st_ino), here)
            if before != here:
                folders.clear()
                self.odd.append(Skipped(f"{here}/", f"is the same folder as {before}/"))
                continue
            folders.sort()
            for file in files:
                name = file if here == "." else f"{here}/{file}"
                try:
                    mode = (Path(place) / file).stat().st_mode
                except OSError as error:
                    self.odd.append(Skipped(name, why(error)))
                    continue
                if stat.S_ISREG(mode):
                    yield name
                else:
                    self.odd.append(Skipped(name, "is no regular file"))

    def _unread(self, error: OSError) -> None:
        name = Path(error.filename).relative_to(self.path).as_posix()
        if name == ".":
            raise error
        self.odd.append(Skipped(f"{name}/", why(error)))

    def state(self) -> list[Any]:
        stats = [(name, (self.path / name).stat()) for name in sorted(self.names)]
        return [[name, stats.st_size, stats.st_mtime_ns] for name, stats in stats]

    def open(self, name: str) -> IO[bytes]:
        return open(self.path / name, "rb")

    def close(self) -> None:
        pass


class Zip:
    """Files in a zip, read where they are: nothing is unpacked.

    Of entries with one name, the last counts, as where they are unpacked one after the other.

    Raises:
        ValueError: a file that is no zip, or one whose entries would leave the folder they were
            unpacked into: such a zip was made to do harm.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except PermissionError:
            raise
        except Exception as error:  # zipfile raises many kinds on a damaged file
            raise ValueError(
                f"images must be a picture ({', '.join(sorted(IMAGE_SUFFIXES))}), a folder, an LMDB"
                f" or a readable zip, got {path}: {why(error)}"
            ) from error
        try:
            for entry in self.zip.infolist():
                _refuse_unsafe(entry, path)
        except ValueError:
            self.zip.close()
            raise
        files = Counter(entry.filename for entry in self.zip.infolist() if not entry.is_dir())
        self.names = list(files)
        self.odd = [
            Skipped(name, "its name stands in the zip again; the last entry counts")
            for name, times in files.items()
            for _ in range(times - 1)
        ]

    def state(self) -> list[Any]:
        found = self.path.stat()
        return [found.st_size, found.st_mtime_ns]

    def open(self, name: str) -> IO[bytes]:
        entry = self.zip.getinfo(name)
        if entry.file_size > LARGEST_FILE:
            raise ValueError(
                f"unpacks to {entry.file_size} bytes; a picture has at most {LARGEST_FILE}"
            )
        piece = entry.file_size + 1
        with self.zip.open(entry) as file:
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                assert isinstance(file, zipfile.ZipExtFile)
                piece = file.MIN_READ_SIZE = PIECE
            return io.BytesIO(b"".join(iter(lambda: file.read(piece), b"")))

    def close(self) -> None:
        self.zip.close()


def _refuse_unsafe(entry: zipfile.ZipInfo, path: Path) -> None:
    """ValueError for an entry that would be unpacked elsewhere, or is a link."""
    # ZipInfo.orig_filename is what the file says, before zipfile tidies it.
    said = entry.orig_filename.replace("\\", "/")
    shown = f"'{checks.printable(said)}' in {path}"
    if said.startswith("/") or re.match("[A-Za-z]:", said) or ".." in said.split("/"):
        raise ValueError(f"images must be a zip without unsafe paths, got {shown}")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ValueError(f"images must be a zip without symbolic links, got {shown}")


class Lmdb:
    """Pictures in an LMDB as LSUN ships it: encoded pictures under arbitrary keys.

    Raises:
        ValueError: a damaged LMDB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.odd: list[Skipped] = []
        try:
            self.file = LmdbFile(path / "data.mdb")
        except ValueError as error:
            raise ValueError(f"images must be a readable LMDB, got {path}: {error}") from error
        self.names = [key.hex() for key in self.file.keys]

    def state(self) -> list[Any]:
        found = (self.path / "data.mdb").stat()
        return [found.st_size, found.st_mtime_ns]

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.file.read(bytes.fromhex(name), LARGEST_FILE))

    def close(self) -> None:
        self.file.close()


Source = Folder | Zip | Lmdb


def source(path: Path) -> Source:
    """What lies at a path; ValueError where nothing does that could hold pictures."""
    if path.name == "data.mdb" and path.is_file():
        return Lmdb(path.parent)
    if (path / "data.mdb").is_file():
        return Lmdb(path)
    if path.is_dir():
        return Folder(path)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES | OTHER_SUFFIXES:
        return Folder(path.parent, path.name)
    if path.is_file():
        return Zip(path)
    got = "which is none" if path.exists() else "which does not exist"
    raise ValueError(
        "images must be a picture, or a folder, zip or LMDB of pictures, got"
        f" {checks.printable(str(path))}, {got}"
    )
