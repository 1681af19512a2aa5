"""Pictures in a folder, a zip or an LMDB, as bytes of one shape.

They are decoded once (`image_archive`); the bytes are kept in the user's cache folder and read from
there as long as the source does not change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from npgd import checks
from npgd.data.decoding import (
    IMAGE_SUFFIXES,
    LARGEST_PICTURE,
    OTHER_SUFFIXES,
    decode,
    why,
)
from npgd.data.pixels import to_pixels
from npgd.data.places import cache_directory
from npgd.data.sources import Lmdb, Skipped, Source, source
from npgd.files import a_path
from npgd.showing import Shown

# Raised whenever the same file would be decoded to other bytes: what older code kept is not read.
DECODING = 2


@dataclass(frozen=True)
class Pictures(Shown):
    """Pictures of a folder, zip or LMDB, and what of it is not used."""

    images: UInt8[torch.Tensor, "n c h w"]
    """Their bytes."""
    names: list[str]
    """Where each lies in its folder or zip, as it stands there; an LMDB's keys in hexadecimal."""
    skipped: list[Skipped]
    """The names of those that are not used, and why in one printable line each."""

    def pictures(self) -> dict[str, Any]:
        return {"": to_pixels(self.images), "name": self.names}

    def first(self, count: int | None) -> Pictures:
        """The first `count`, at most; all for None."""
        return Pictures(self.images[:count], self.names[:count], self.skipped)

    def told(self, path: Path, are: str = "are skipped") -> str:
        """How many pictures are skipped, and the first ten by name, in one printable line."""
        parts = [f"{checks.printable(name)}: {reason}" for name, reason in self.skipped[:10]]
        if len(self.skipped) > 10:
            parts.append(f"and {len(self.skipped) - 10} more")
        of = len(self.skipped) + len(self.names)
        where = checks.printable(str(path))
        return f"{len(self.skipped)} of {of} pictures in {where} {are} ({'; '.join(parts)})"


def read_pictures(
    path: str | os.PathLike[str],
    image_shape: tuple[int, int, int],
    crop: int | None = None,
    split: str | None = None,
    *,
    count: int | None = None,
    background: int = 0,
    strict: bool = False,
    cache: bool = True,
    belongs: Callable[[str], bool] | None = None,
) -> Pictures:
    """A folder, zip or LMDB of pictures, or one picture, as bytes of one shape, sorted by name.

    Pictures become grey (1 channel) or RGB (3), cut to the centred rectangle of the wanted aspect
    ratio and resized with Lanczos' filter, which antialiases; those of the wanted size are taken as
    they are. 16-bit grey is scaled, v ↦ v/257; rotation by EXIF is applied; of several pictures in
    a file the first counts. Nothing else changes: a prior of white digits on black expects such.

    Pictures that cannot be read, hold numbers without an agreed white (32 bits, floating point),
    have more than 64 megapixels, or are smaller than the crop, are skipped. So are those of kinds
    that are not read here (HEIC, PGM, …).

    Args:
        path: of the folder, zip, LMDB or picture.
        image_shape: (channels, height, width) of every image.
        crop: side in pixels of the centred square cut out before resizing (108 for the 178×218
            pictures of CelebA's `img_align_celeba`).
        split: only what lies in a folder of that name.
        count: how many, at most; no more are decoded than that takes.
        background: the grey value, 0 (black) to 255, that shows where a picture is transparent.
        strict: whether to refuse what is skipped otherwise.
        cache: whether to keep the bytes in `cache_directory`, where they are read from as long as
            the source's size and time do not change. Of a `count` nothing is kept.
        belongs: which names belong to the split, where folders do not say so; a ValueError of it
            is why a picture is skipped.

    Raises:
        ValueError: a path that holds no usable pictures, a zip with unsafe paths (absolute, "..",
            symbolic links), a damaged zip or LMDB, or, `strict`, a picture that is skipped
            otherwise.
        TypeError: an argument of the wrong kind.
        OSError: a path that may not be read.
    """
    path = a_path(path, "path").absolute()
    image_shape = _door(image_shape, split, background, strict=strict, cache=cache)
    crop = None if crop is None else checks.integer(crop, "crop")
    count = None if count is None else checks.integer(count, "count")
    if belongs is not None and not callable(belongs):
        raise TypeError(f"belongs must be a function of a name, got {belongs!r}")
    with contextlib.closing(source(path)) as place:
        names, odd = _selected(place, split, belongs)
        if not names and not odd:
            raise ValueError(_nothing(path, place, split))
        chosen = None if belongs is None else names
        settings = [str(path), list(image_shape), crop, split, background, chosen]
        kept = _Kept(path, settings, place) if cache else None
        found = None if kept is None else kept.read()
        if found is None:
            found = _decode(place, names, image_shape, crop, background, count)
            if kept is not None and count is None and found.names:
                kept.write(found)
    found = Pictures(found.images[:count], found.names[:count], sorted(odd + found.skipped))
    if found.skipped and (strict or not found.names):
        told = found.told(path, "that are not")
        raise ValueError(f"images must {'all ' if strict else ''}be usable, got {told}")
    return found


def image_archive(
    path: str | os.PathLike[str],
    image_shape: tuple[int, int, int],
    crop: int | None = None,
    split: str | None = None,
    strict: bool = False,
    cache: bool = True,
    *,
    count: int | None = None,
    background: int = 0,
) -> tuple[UInt8[torch.Tensor, "n c h w"], list[str]]:
    """The images and names of `read_pictures`; one warning counts and names what is skipped."""
    found = read_pictures(
        path,
        image_shape,
        crop,
        split,
        count=count,
        background=background,
        strict=strict,
        cache=cache,
    )
    warn_of_skipped(found, Path(path))
    return found.images, found.names


def warn_of_skipped(found: Pictures, path: Path) -> None:
    """One warning that counts and names what is skipped, on behalf of the caller's caller."""
    if found.skipped:
        warnings.warn(found.told(path.absolute()), stacklevel=3)


def _door(
    image_shape: tuple[int, int, int], split: object, background: int, **flags: object
) -> tuple[int, int, int]:
    """`image_shape`, checked, and the others checked."""
    shape = checks.image_shape(image_shape)
    if shape[0] not in (1, 3):
        raise ValueError(f"image_shape must have 1 channel (grey) or 3 (RGB), got {shape[0]}")
    if shape[1] * shape[2] > LARGEST_PICTURE:
        raise ValueError(f"image_shape must have at most {LARGEST_PICTURE} pixels, got {shape}")
    if split is not None and not isinstance(split, str):
        raise TypeError(f"split must be a folder's name or None, got {split!r}")
    if checks.integer(background, "background", minimum=0) > 255:
        raise ValueError(f"background must be a grey value from 0 to 255, got {background}")
    for name, flag in flags.items():
        checks.flag(flag, name)
    return shape


def _selected(
    place: Source, split: str | None, belongs: Callable[[str], bool] | None
) -> tuple[list[str], list[Skipped]]:
    """The names that are pictures, sorted, and the pictures that cannot be opened or read here."""
    if isinstance(place, Lmdb):
        return place.names, []
    names, odd = [], [skipped for skipped in place.odd if _may_count(skipped.name, split)]
    for name in sorted(name for name in place.names if _may_count(name, split)):
        suffix = PurePosixPath(name).suffix.lower()
        try:
            if belongs is not None and not belongs(name):
                continue
        except ValueError as error:
            odd.append(Skipped(name, why(error)))
            continue
        if suffix in IMAGE_SUFFIXES:
            names.append(name)
        else:
            odd.append(Skipped(name, f"{suffix} is not read here; convert it to PNG"))
    return names, odd


def _may_count(name: str, split: str | None) -> bool:
    """Whether a file is a picture, by its name, and lies in a split's folder; or a folder."""
    place = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in place.parts)
    if hidden or (split is not None and split not in place.parts[: -1 + name.endswith("/")]):
        return False
    return name.endswith("/") or place.suffix.lower() in IMAGE_SUFFIXES | OTHER_SUFFIXES


def _nothing(path: Path, place: Source, split: str | None) -> str:
    """That there are no pictures, and what there is."""
    where = checks.printable(f"{path}" if split is None else f"{split}/ of {path}")
    there = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in place.names)
    what = ", ".join(f"{checks.printable(kind)} ×{number}" for kind, number in there.most_common(5))
    kinds = ", ".join(sorted(IMAGE_SUFFIXES))
    files = f" ({len(place.names)} files in all: {what})" if place.names else ""
    return f"images must hold pictures ({kinds}), got none in {where}{files}"


def _decode(
    place: Source,
    names: list[str],
    image_shape: tuple[int, int, int],
    crop: int | None,
    background: int,
    count: int | None,
) -> Pictures:
    number = len(names) if count is None else min(count, len(names))
    try:
        images = np.empty((number, *image_shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise ValueError(
            f"images must fit in memory, got {number} of {image_shape} in {place.path}"
        ) from error
    good: list[str] = []
    skipped: list[Skipped] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, which name no file
        for name in names:
            if len(good) == number:
                break
            try:
                with place.open(name) as file:
                    images[len(good)] = decode(file, image_shape, crop, background)
            except Exception as error:  # decoders raise all kinds on a damaged file
                skipped.append(Skipped(name, why(error)))
            else:
                good.append(name)
    return Pictures(torch.from_numpy(images[: len(good)]), good, skipped)


class _Kept:
    """The decoded pictures of a source in `cache_directory`, for one choice of settings."""

    def __init__(self, path: Path, settings: list[Any], place: Source) -> None:
        state = [DECODING, settings, place.state()]
        self.state = hashlib.sha256(json.dumps(state).encode()).hexdigest()
        name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        self.stem = f"{path.stem}-{name}.safetensors"

    def _path(self) -> Path:
        return cache_directory() / "images" / self.stem

    def read(self) -> Pictures | None:
        """What is kept; None for nothing, another state of the source, or a damaged file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path(), "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("state") != self.state:
                    return None
                images = file.get_tensor("images")
            if metadata["digest"] != _digest(images, metadata["names"], metadata["skipped"]):
                return None
            skipped = [Skipped(*pair) for pair in json.loads(metadata["skipped"])]
            return Pictures(images, json.loads(metadata["names"]), skipped)
        except (SafetensorError, OSError, KeyError, ValueError):
            return None

    def write(self, found: Pictures) -> None:
        """Keep what was decoded; a warning where it cannot be kept."""
        from safetensors.torch import save as serialise

        from npgd.files import write_atomically

        names, skipped = json.dumps(found.names), json.dumps(found.skipped)
        digest = _digest(found.images, names, skipped)
        metadata = {"state": self.state, "names": names, "skipped": skipped, "digest": digest}
        try:
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, serialise({"images": found.images.contiguous()}, metadata))
        except OSError as error:
            warnings.warn(f"the decoded pictures cannot be kept ({error})", stacklevel=4)


def _digest(images: torch.Tensor, names: str, skipped: str) -> str:
    """A checksum that tells a damaged file; it does not keep anybody from writing another."""
    head = f"{images.dtype} {tuple(images.shape)} {names} {skipped}".encode()
    return f"{zlib.crc32(images.numpy().data, zlib.crc32(head)):08x}"
