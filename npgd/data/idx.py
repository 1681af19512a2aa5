"""MNIST (LeCun, Cortes, Burges), as the four gzipped IDX files.

They are looked for in a data directory (the argument, else the environment variable `NPGD_DATA`,
else a cache folder) and, where the caller allows it, downloaded once with a checksum.
"""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from npgd.data.pixels import first, to_pixels
from npgd.data.places import DataNotFoundError, data_directory

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


def read_idx(path: str | os.PathLike[str]) -> UInt8[torch.Tensor, "*shape"]:
    """One gzipped or plain IDX file of unsigned bytes, in the shape its header states.

    Raises:
        ValueError: a file that is not IDX, holds another type, or is shorter or longer than its
            header says.
    """
    path = Path(path)
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            content = file.read()
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} must be a readable gzip file, got {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path} must be an IDX file, got first bytes that are not zero")
    kind, dims = content[2], content[3]
    if kind != 0x08:
        raise ValueError(f"{path} must hold unsigned bytes, IDX type 0x08, got 0x{kind:02x}")
    header = 4 + 4 * dims
    shape = struct.unpack(f">{dims}I", content[4:header]) if len(content) >= header else ()
    if len(shape) != dims or len(content) != header + int(np.prod(shape)):
        raise ValueError(
            f"{path} must hold what its header states, shape {shape}, got {len(content)} bytes"
        )
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

    Args:
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        download: whether the files may be downloaded where they are absent.

    Raises:
        ValueError: an unknown split, or files that are not MNIST's.
        DataNotFoundError: the files are absent and `download` is false.
    """
    if split not in MNIST_FILES:
        raise ValueError(f"split must be one of {', '.join(MNIST_FILES)}, got {split!r}")
    images_name, labels_name = MNIST_FILES[split]
    images = read_idx(_mnist_file(images_name, data_dir, download))
    labels = read_idx(_mnist_file(labels_name, data_dir, download))
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"MNIST {split} must hold images (n, 28, 28) and labels (n,), got"
            f" {tuple(images.shape)} and {tuple(labels.shape)}"
        )
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
