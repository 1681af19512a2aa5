"""Images in, as float32 tensors (batch, channels, height, width) with pixels in [-1, 1].

MNIST (LeCun, Cortes, Burges) comes as the four gzipped IDX files. They are looked for in a data
directory (the argument, else the environment variable ``NPGD_DATA``, else a cache folder) and,
where the caller allows it, downloaded once with a checksum. CelebA and LSUN's church_outdoor are
looked for in the same directory and never downloaded. Nothing here is copied into the package.

A folder, a zip or an LMDB of pictures is decoded once (:func:`image_archive`); the bytes are kept
in the user's cache folder and read from there as long as the source does not change.
"""

from __future__ import annotations

import contextlib
import gzip
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
from jaxtyping import Float, Int, UInt8

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class DataNotFoundError(FileNotFoundError):
    """The data asked for is in none of the places looked at; the message says which they were."""


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds data sets: the argument, else ``$NPGD_DATA``, else the user's cache."""
    if data_dir is not None:
        return Path(data_dir)
    if os.environ.get("NPGD_DATA"):
        return Path(os.environ["NPGD_DATA"])
    return cache_directory()


def cache_directory() -> Path:
    """The folder for what can be made again: ``$XDG_CACHE_HOME/npgd``, else ``~/.cache/npgd``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "npgd"


def to_pixels(images: UInt8[torch.Tensor, "*shape"]) -> Float[torch.Tensor, "*shape"]:
    """Grey values 0…255 as pixels in [-1, 1]: v ↦ v/127.5 − 1, in float32."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(images: Float[torch.Tensor, "*shape"]) -> UInt8[torch.Tensor, "*shape"]:
    """Pixels in [-1, 1] as grey values 0…255, rounded; values outside are clipped."""
    return images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def read_idx(path: str | os.PathLike[str]) -> UInt8[torch.Tensor, "*shape"]:
    """One gzipped or plain IDX file of unsigned bytes, in the shape its header states.

    Raises ``ValueError`` for a file that is not IDX, holds another type, or is shorter or longer
    than its header says.
    """
    path = Path(path)
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            content = file.read()
        except (OSError, EOFError) as error:
            raise ValueError(f"{path}: not a readable gzip file ({error})") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path}: not an IDX file (the first two bytes are not zero)")
    kind, dims = content[2], content[3]
    if kind != 0x08:
        raise ValueError(f"{path}: IDX type 0x{kind:02x}; expected 0x08, unsigned bytes")
    header = 4 + 4 * dims
    shape = struct.unpack(f">{dims}I", content[4:header]) if len(content) >= header else ()
    if len(shape) != dims or len(content) != header + int(np.prod(shape)):
        raise ValueError(f"{path}: {len(content)} bytes, not what its header states ({shape})")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).reshape(shape)


def _mnist_file(name: str, data_dir: str | os.PathLike[str] | None, download: bool) -> Path:
    root = data_directory(data_dir)
    places = [root / "mnist" / name, root / name]
    for place in places:
        if place.is_file():
            return place
    if not download:
        looked = " and ".join(str(place) for place in places)
        raise DataNotFoundError(
            f"MNIST is not at hand: looked for {looked}. Set NPGD_DATA or data_dir to the folder "
            "that holds mnist/, or allow the download (download=True; --download)."
        )
    import pooch

    return Path(
        pooch.retrieve(
            url=MNIST_URL + name,
            known_hash="md5:" + MNIST_MD5[name],
            fname=name,
            path=root / "mnist",
            progressbar=False,
        )
    )


def mnist_uint8(
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> tuple[UInt8[torch.Tensor, "n 1 28 28"], Int[torch.Tensor, " n"]]:
    """The MNIST images of a split as bytes, and their labels.

    Raises ``ValueError`` for an unknown split, ``DataNotFoundError`` where the files are absent and
    ``download`` is false.
    """
    if split not in MNIST_FILES:
        raise ValueError(f"split: {split!r}; expected one of {', '.join(MNIST_FILES)}")
    images_name, labels_name = MNIST_FILES[split]
    images = read_idx(_mnist_file(images_name, data_dir, download))
    labels = read_idx(_mnist_file(labels_name, data_dir, download))
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"MNIST {split}: images {tuple(images.shape)}, labels {tuple(labels.shape)}; "
            "expected (n, 28, 28) and (n,)"
        )
    return images.unsqueeze(1), labels.long()


def mnist(
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    count: int | None = None,
    download: bool = False,
) -> Float[torch.Tensor, "n 1 28 28"]:
    """The first ``count`` (default: all) MNIST images of a split, pixels in [-1, 1].

    Raises as :func:`mnist_uint8`, and ``ValueError`` for a count below 1 or beyond the split.
    """
    images, _ = mnist_uint8(split, data_dir, download)
    if count is not None and not 1 <= count <= len(images):
        raise ValueError(f"count: {count}; MNIST {split} has {len(images)} images")
    return to_pixels(images[:count])


# --- pictures: one file, a folder, a zip, an LMDB ----------------------------------------------

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

    ``crop`` is the side of the centred square cut out first; without it, the largest centred
    rectangle of the target's aspect ratio is kept. Raises one of ``BROKEN``.
    """
    from PIL import Image, ImageOps

    channels, height, width = image_shape
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    # A picture that has the target's size was cropped when it was made.
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
        raise ValueError(
            f"image_shape: {image_shape[0]} channels; pictures have 1 (grey) or 3 (RGB)"
        )


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

    Raises ``ValueError`` for a file that is no zip, and for one whose entries would leave the
    folder they were unpacked into: such a zip was made to do harm.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"images: {path} is not a readable zip ({error})") from error
        for entry in self.zip.infolist():
            # ZipInfo.orig_filename is what the file says, before zipfile tidies it.
            said = entry.orig_filename.replace("\\", "/")
            if said.startswith("/") or re.match("[A-Za-z]:", said) or ".." in said.split("/"):
                self.zip.close()
                raise ValueError(f"images: {path} has an unsafe path in it: {said!r}")
            if stat.S_ISLNK(entry.external_attr >> 16):
                self.zip.close()
                raise ValueError(f"images: {path} has a symbolic link in it: {said!r}")
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
                f"images: {path} is an LMDB; reading it takes the package lmdb "
                "(pip install npgd[lsun])"
            ) from error
        self.path = path
        try:
            # readahead off and no lock: LSUN's files are read-only and larger than memory.
            self.env = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise ValueError(f"images: {path} is not a readable LMDB ({error})") from error
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
    raise ValueError(f"images: {path} is no folder, zip or LMDB of pictures")


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

    ``crop``: side in pixels of the centred square cut out before resizing (108 for the 178×218
    pictures of CelebA's ``img_align_celeba``); pictures that have ``image_shape``'s size already
    are taken as they are, and resizing antialiases (Lanczos). ``split``: only what lies in a folder
    of that name. An LMDB's names are its keys in hexadecimal. Pictures become grey (1 channel) or
    RGB (3), cut to the centred rectangle of the target's aspect ratio, and are otherwise taken as
    they are: a prior of white digits on black expects such.

    Pictures that cannot be read, or are smaller than the crop, are skipped with one warning that
    counts and names them; ``strict`` refuses them. With ``cache`` the bytes are kept in
    :func:`cache_directory`, and decoded again when the source's size or time changes.

    Raises ``ValueError`` for a path that holds no pictures, a zip with unsafe paths (absolute,
    "..", symbolic links), or, ``strict``, a picture that is skipped otherwise; ``ImportError`` for
    an LMDB without the package lmdb.
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
        message = f"images: {len(skipped)} of {len(skipped) + len(names)} pictures in {path}"
        if strict:
            raise ValueError(f"{message} cannot be used ({told}{more})")
        warnings.warn(f"{message} are skipped ({told}{more})", stacklevel=2)
    if not names:
        where = f"{path}" if split is None else f"{split}/ of {path}"
        raise ValueError(f"images: no picture in {where} ({', '.join(sorted(IMAGE_SUFFIXES))})")
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


# --- data sets ---------------------------------------------------------------------------------

IMAGE_SHAPES = {"mnist": (1, 28, 28), "celeba": (3, 64, 64), "church": (3, 64, 64)}
# CelebA's own partition, by the number in the file's name (list_eval_partition.txt).
CELEBA_PARTITION = {"train": range(1, 162_771), "test": range(182_638, 202_600)}


def celeba_uint8(
    split: str = "test", data_dir: str | os.PathLike[str] | None = None, strict: bool = False
) -> UInt8[torch.Tensor, "n 3 64 64"]:
    """CelebA faces as bytes: the centred square of 108 pixels, resized to 64×64.

    Liu, Luo, Wang, Tang, ICCV 2015; non-commercial research only. Looked for in the data directory
    as ``celeba64.zip`` (entries ``train/…`` and ``test/…``), else as ``img_align_celeba.zip`` or
    the folder ``img_align_celeba``, which are split by CelebA's own partition.

    Raises ``ValueError`` for an unknown split, ``DataNotFoundError`` where none is there, and as
    :func:`image_archive`.
    """
    _split(split)
    places = ("celeba64.zip", "img_align_celeba.zip", "img_align_celeba")
    path = _place("CelebA", places, data_dir)
    if path.name == "celeba64.zip":
        return image_archive(path, (3, 64, 64), 108, split, strict)[0]
    images, names = image_archive(path, (3, 64, 64), 108, strict=strict)
    chosen = [int(PurePosixPath(name).stem) in CELEBA_PARTITION[split] for name in names]
    return images[torch.tensor(chosen)]


def church_uint8(
    split: str = "test", data_dir: str | os.PathLike[str] | None = None, strict: bool = False
) -> UInt8[torch.Tensor, "n 3 64 64"]:
    """Photographs of churches as bytes, 64×64.

    Looked for in the data directory as ``church64.zip`` (entries ``train/…`` and ``test/…``), else
    as LSUN's ``church_outdoor_train_lmdb`` and ``church_outdoor_val_lmdb`` (Yu et al. 2015), whose
    centred squares are resized; the validation set is the test split.

    Raises as :func:`celeba_uint8`.
    """
    _split(split)
    lmdb = {"train": "church_outdoor_train_lmdb", "test": "church_outdoor_val_lmdb"}[split]
    path = _place("LSUN church_outdoor", ("church64.zip", lmdb), data_dir)
    inside = split if path.suffix == ".zip" else None
    return image_archive(path, (3, 64, 64), split=inside, strict=strict)[0]


def _split(split: str) -> None:
    if split not in MNIST_FILES:
        raise ValueError(f"split: {split!r}; expected one of {', '.join(MNIST_FILES)}")


def _place(title: str, names: tuple[str, ...], data_dir: str | os.PathLike[str] | None) -> Path:
    root = data_directory(data_dir)
    for name in names:
        if (root / name).exists():
            return root / name
    raise DataNotFoundError(
        f"{title} is not at hand: looked for {', '.join(names)} in {root}. Set NPGD_DATA or "
        "data_dir to the folder that holds one of them."
    )


def dataset_uint8(
    name: str,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    strict: bool = False,
) -> UInt8[torch.Tensor, "n c h w"]:
    """The images of a data set ("mnist", "celeba" or "church") as bytes.

    Raises ``ValueError`` for an unknown name, and as the data set's own function.
    """
    if name == "mnist":
        return mnist_uint8(split, data_dir, download)[0]
    if name not in IMAGE_SHAPES:
        raise ValueError(f"dataset: {name!r}; expected one of {', '.join(IMAGE_SHAPES)}")
    return {"celeba": celeba_uint8, "church": church_uint8}[name](split, data_dir, strict)


def dataset(
    name: str,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    count: int | None = None,
    download: bool = False,
) -> Float[torch.Tensor, "n c h w"]:
    """The first ``count`` (default: all) images of a data set's split, pixels in [-1, 1].

    Raises as :func:`dataset_uint8`, and ``ValueError`` for a count below 1 or beyond the split.
    """
    images = dataset_uint8(name, split, data_dir, download)
    if count is not None and not 1 <= count <= len(images):
        raise ValueError(f"count: {count}; {name} {split} has {len(images)} images")
    return to_pixels(images[:count])


def celeba(
    split: str = "test", data_dir: str | os.PathLike[str] | None = None, count: int | None = None
) -> Float[torch.Tensor, "n 3 64 64"]:
    """The first ``count`` CelebA faces of a split, pixels in [-1, 1]; see :func:`celeba_uint8`."""
    return dataset("celeba", split, data_dir, count)


def church(
    split: str = "test", data_dir: str | os.PathLike[str] | None = None, count: int | None = None
) -> Float[torch.Tensor, "n 3 64 64"]:
    """The first ``count`` churches of a split, pixels in [-1, 1]; see :func:`church_uint8`."""
    return dataset("church", split, data_dir, count)
