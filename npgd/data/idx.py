"""MNIST (LeCun, Cortes, Burges), as the four IDX files, gzipped or not.

They are looked for in a data directory (the argument, else the environment variable `NPGD_DATA`,
else a cache folder) and, where the caller allows it, downloaded once with a checksum.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float, Int, UInt8

from npgd import checks
from npgd.data.decoding import why
from npgd.data.pixels import first, to_pixels
from npgd.data.places import DataNotFoundError, data_directory
from npgd.files import a_path

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
LARGEST_IDX = 2**30
PIECE = 2**20


def read_idx(path: str | os.PathLike[str]) -> UInt8[torch.Tensor, "*shape"]:
    """One gzipped or plain IDX file of unsigned bytes, in the shape its header states.

    No more is read, or unpacked, than the header states.

    Raises:
        TypeError: what is no path.
        ValueError: a file that is not IDX, holds another type, is damaged, is shorter or longer
            than its header says, or states more than 1 GiB.
        OSError: a file that cannot be opened.
    """
    path = a_path(path, "path")
    with open(path, "rb") as plain:
        zipped = path.suffix == ".gz" or plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        try:
            return _idx(gzip.GzipFile(fileobj=plain) if zipped else plain, path)
        except (OSError, EOFError, zlib.error) as error:
            kind = "gzip " if zipped else ""
            raise ValueError(f"{path} must be a readable {kind}file, got {why(error)}") from error


def _idx(file: gzip.GzipFile | BinaryIO, path: Path) -> UInt8[torch.Tensor, "*shape"]:
    """The array of an open IDX file; `path` is for the messages."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise ValueError(f"{path} must be an IDX file, got first bytes that are not zero")
    kind, dims = start[2], start[3]
    if kind != 0x08:
        raise ValueError(f"{path} must hold unsigned bytes, IDX type 0x08, got 0x{kind:02x}")
    if not 1 <= dims <= 8:
        raise ValueError(f"{path} must have from 1 to 8 dimensions, got {dims}")
    sides = file.read(4 * dims)
    if len(sides) < 4 * dims:
        raise ValueError(f"{path} must hold {dims} sides, got the end of the file")
    shape = struct.unpack(f">{dims}I", sides)
    size = math.prod(shape)
    if not 1 <= size <= LARGEST_IDX:
        raise ValueError(f"{path} must hold from 1 to {LARGEST_IDX} bytes, got shape {shape}")
    content = bytearray()
    while len(content) <= size and (piece := file.read(min(PIECE, size + 1 - len(content)))):
        content += piece
    if len(content) != size:
        got = "more" if len(content) > size else f"{len(content)} bytes"
        raise ValueError(f"{path} must hold what its header states, shape {shape}, got {got}")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def _mnist_file(name: str, data_dir: str | os.PathLike[str] | None, download: bool) -> Path:
    """One of MNIST's files: gzipped or unzipped, in mnist/, in MNIST/raw/ (torchvision) or bare."""
    root = data_directory(data_dir)
    unzipped = name.removesuffix(".gz")
    dotted = unzipped.replace("-idx", ".idx")
    for folder in (root / "mnist", root, root / "MNIST" / "raw", root / "raw"):
        for place in (folder / name, folder / unzipped, folder / dotted):
            if place.is_file():
                return place
    if not download:
        raise DataNotFoundError(
            f"MNIST is not at hand: looked for {name} and {unzipped} in {root / 'mnist'}, {root}"
            f" and {root / 'MNIST' / 'raw'}. Set NPGD_DATA or data_dir to the folder that holds"
            " one of them, or allow the download (download=True; --download)."
        )
    import pooch

    url = MNIST_URL + name
    try:
        found = pooch.retrieve(
            url=url,
            known_hash="sha256:" + MNIST_SHA256[name],
            fname=name,
            path=root / "mnist",
            progressbar=False,
        )
    except ValueError as error:
        raise ValueError(f"{url} must have MNIST's checksum, got {why(error)}") from error
    except (PermissionError, FileExistsError, NotADirectoryError):
        raise  # of the folder, which the message names
    except Exception as error:  # offline, no such host, the server's errors: requests has many
        raise DataNotFoundError(f"MNIST cannot be downloaded from {url}: {why(error)}") from error
    return Path(found)


def mnist_uint8(
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> tuple[UInt8[torch.Tensor, "n 1 28 28"], Int[torch.Tensor, " n"]]:
    """The MNIST images of a split as bytes, and their labels.

    Args:
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        download: whether the files may be downloaded where they are absent.

    Raises:
        ValueError: an unknown split, or files that are damaged or not MNIST's.
        DataNotFoundError: the files are absent, and `download` is false or fails.
    """
    split = checks.choice(split, "split", *MNIST_FILES)
    checks.flag(download, "download")
    images_path, labels_path = (_mnist_file(n, data_dir, download) for n in MNIST_FILES[split])
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"MNIST {split} must hold images (n, 28, 28) and labels (n,), got"
            f" {tuple(images.shape)} in {images_path} and {tuple(labels.shape)} in {labels_path}"
        )
    if int(labels.max()) > 9:
        raise ValueError(f"{labels_path} must hold labels from 0 to 9, got {int(labels.max())}")
    return images.unsqueeze(1), labels.long()


def mnist(
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    count: int | None = None,
    download: bool = False,
) -> Float[torch.Tensor, "n 1 28 28"]:
    """The first `count` (default: all) MNIST images of a split, pixels in [-1, 1].

    Raises:
        ValueError: as `mnist_uint8` does, and for a count below 1 or beyond the split.
        DataNotFoundError: as `mnist_uint8` does.
    """
    return to_pixels(first(count, mnist_uint8(split, data_dir, download)[0], f"MNIST {split}"))
