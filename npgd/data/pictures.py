"""Pictures in a folder, a zip or an LMDB, as bytes of one shape.

They are decoded once (`image_archive`); the bytes are kept in the user's cache folder and read from
there as long as the source does not change.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import UInt8

from npgd.data.places import cache_directory

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
# What a decoder raises on a file that is no picture, is cut short, or is too large to be one.
BROKEN: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
LARGEST_FILE = 64 * 2**20


def _picture(
    file: IO[bytes] | Path, image_shape: tuple[int, int, int], crop: int | None = None
) -> UInt8[np.ndarray, "c h w"]:
    """One picture as bytes: grey or RGB, cropped, resized with Lanczos' filter, which antialiases.

    `crop` is the side of the centred square cut out first; without it, the largest centred
    rectangle of the wanted aspect ratio is kept. Raises one of `BROKEN`.
    """
    from PIL import Image, ImageOps

    channels, height, width = image_shape
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    # A picture that has the wanted size was cropped when it was made.
    if picture.size != (width, height):
        if crop is not None:
            if min(picture.size) < crop:
                across, down = picture.size
                raise ValueError(f"{across}×{down} pixels, smaller than the crop of {crop}")
            left, top = ((side - crop) // 2 for side in picture.size)
            picture = picture.crop((left, top, left + crop, top + crop))
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1)


def _channels(image_shape: tuple[int, int, int]) -> None:
    if image_shape[0] not in (1, 3):
        raise ValueError(f"image_shape must have 1 channel (grey) or 3 (RGB), got {image_shape[0]}")


class _Folder:
    """Pictures in a folder and its subfolders, by their path in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = (entry for entry in path.rglob("*") if entry.is_file())
        self.names = [entry.relative_to(path).as_posix() for entry in found]

    def state(self) -> list[Any]:
        stats = [(name, (self.path / name).stat()) for name in sorted(self.names)]
        return [[name, stats.st_size, stats.st_mtime_ns] for name, stats in stats]

    def open(self, name: str) -> IO[bytes]:
        return open(self.path / name, "rb")

    def close(self) -> None:
        pass


class _Zip:
    """Pictures in a zip, read where they are: nothing is unpacked.

    Raises:
        ValueError: a file that is no zip, or one whose entries would leave the folder they were
            unpacked into: such a zip was made to do harm.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"images must be a readable zip, got {path}: {error}") from error
        for entry in self.zip.infolist():
            # ZipInfo.orig_filename is what the file says, before zipfile tidies it.
            said = entry.orig_filename.replace("\\", "/")
            if said.startswith("/") or re.match("[A-Za-z]:", said) or ".." in said.split("/"):
                self.zip.close()
                raise ValueError(
                    f"images must be a zip without unsafe paths, got {said!r} in {path}"
                )
            if stat.S_ISLNK(entry.external_attr >> 16):
                self.zip.close()
                raise ValueError(
                    f"images must be a zip without symbolic links, got {said!r} in {path}"
                )
        self.names = [e.filename for e in self.zip.infolist() if not e.is_dir()]

    def state(self) -> list[Any]:
        found = self.path.stat()
        return [found.st_size, found.st_mtime_ns]

    def open(self, name: str) -> IO[bytes]:
        size = self.zip.getinfo(name).file_size
        if size > LARGEST_FILE:
            raise ValueError(f"unpacks to {size} bytes; a picture has at most {LARGEST_FILE}")
        return io.BytesIO(self.zip.read(name))

    def close(self) -> None:
        self.zip.close()


class _Lmdb:
    """Pictures in an LMDB as LSUN ships it: encoded pictures under arbitrary keys."""

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise ImportError(
                f"images must be a folder or a zip unless the package lmdb is installed (pip"
                f" install npgd[lsun]), got the LMDB {path}"
            ) from error
        self.path = path
        try:
            # readahead off and no lock: LSUN's files are read-only and larger than memory.
            self.env = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise ValueError(f"images must be a readable LMDB, got {path}: {error}") from error
        self.transaction = self.env.begin(buffers=True)
        with self.transaction.cursor() as cursor:
            self.names = [bytes(key).hex() for key in cursor.iternext(values=False)]

    def state(self) -> list[Any]:
        found = (self.path / "data.mdb").stat()
        return [found.st_size, found.st_mtime_ns]

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.transaction.get(bytes.fromhex(name)) or b"")

    def close(self) -> None:
        self.transaction.abort()
        self.env.close()


def _source(path: Path) -> _Folder | _Zip | _Lmdb:
    if (path / "data.mdb").is_file():
        return _Lmdb(path)
    if path.is_dir():
        return _Folder(path)
    if path.is_file():
        return _Zip(path)
    raise ValueError(f"images must be a folder, zip or LMDB of pictures, got {path}")


def _selected(source: _Folder | _Zip | _Lmdb, split: str | None) -> list[str]:
    """The names that are pictures, sorted; of a split, those in the folder of that name."""
    if isinstance(source, _Lmdb):
        return source.names
    names = []
    for name in source.names:
        place = PurePosixPath(name)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in place.parts)
        if hidden or place.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if split is None or split in place.parts[:-1]:
            names.append(name)
    return sorted(names)


def image_archive(
    path: str | os.PathLike[str],
    image_shape: tuple[int, int, int],
    crop: int | None = None,
    split: str | None = None,
    strict: bool = False,
    cache: bool = True,
) -> tuple[UInt8[torch.Tensor, "n c h w"], list[str]]:
    """A folder, zip or LMDB of pictures as bytes of one shape, sorted by name, and the names.

    Pictures become grey (1 channel) or RGB (3), cut to the centred rectangle of the wanted aspect
    ratio and resized with Lanczos' filter, which antialiases; those of the wanted size are taken as
    they are. Nothing else changes: a prior of white digits on black expects such.

    Pictures that cannot be read, or are smaller than the crop, are skipped with one warning that
    counts and names them.

    Args:
        path: of the folder, zip or LMDB; an LMDB's names are its keys in hexadecimal.
        image_shape: (channels, height, width) of every image.
        crop: side in pixels of the centred square cut out before resizing (108 for the 178×218
            pictures of CelebA's `img_align_celeba`).
        split: only what lies in a folder of that name.
        strict: whether to refuse what is skipped otherwise.
        cache: whether to keep the bytes in `cache_directory`, where they are read from as long as
            the source's size and time do not change.

    Raises:
        ValueError: a path that holds no pictures, a zip with unsafe paths (absolute, "..", symbolic
            links), or, `strict`, a picture that is skipped otherwise.
        ImportError: an LMDB without the package lmdb.
    """
    path = Path(path).absolute()
    _channels(image_shape)
    with contextlib.closing(_source(path)) as source:
        settings = [str(path), list(image_shape), crop, split]
        state = hashlib.sha256(json.dumps([settings, source.state()]).encode()).hexdigest()
        place = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        kept = cache_directory() / "images" / f"{path.stem}-{place}.safetensors"
        found = _from_cache(kept, state) if cache else None
        if found is None:
            found = _decode(source, _selected(source, split), image_shape, crop)
            if cache and len(found[1]):
                _to_cache(kept, state, *found)
    images, names, skipped = found
    if skipped:
        told = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:10])
        more = "" if len(skipped) <= 10 else f"; and {len(skipped) - 10} more"
        count = f"{len(skipped)} of {len(skipped) + len(names)} pictures in {path}"
        if strict:
            raise ValueError(f"images must all be usable, got {count} that are not ({told}{more})")
        warnings.warn(f"{count} are skipped ({told}{more})", stacklevel=2)
    if not names:
        where = f"{path}" if split is None else f"{split}/ of {path}"
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"images must hold pictures ({kinds}), got none in {where}")
    return images, names


Decoded = tuple[UInt8[torch.Tensor, "n c h w"], list[str], dict[str, str]]


def _decode(
    source: _Folder | _Zip | _Lmdb,
    names: list[str],
    image_shape: tuple[int, int, int],
    crop: int | None,
) -> Decoded:
    images = np.empty((len(names), *image_shape), np.uint8)
    good: list[str] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            with source.open(name) as file:
                images[len(good)] = _picture(file, image_shape, crop)
        except BROKEN as error:
            skipped[name] = str(error) or type(error).__name__
        else:
            good.append(name)
    return torch.from_numpy(images[: len(good)]), good, skipped


def _from_cache(path: Path, state: str) -> Decoded | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("state") != state:
                return None
            images = file.get_tensor("images")
            return images, json.loads(metadata["names"]), json.loads(metadata["skipped"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def _to_cache(
    path: Path, state: str, images: torch.Tensor, names: list[str], skipped: dict[str, str]
) -> None:
    from safetensors.torch import save as serialise

    from npgd.files import write_atomically

    metadata = {"state": state, "names": json.dumps(names), "skipped": json.dumps(skipped)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, serialise({"images": images.contiguous()}, metadata))
    except OSError as error:
        warnings.warn(f"the decoded pictures cannot be kept in {path} ({error})", stacklevel=3)
