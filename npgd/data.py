"""Images in, as float32 tensors (batch, channels, height, width) with pixels in [-1, 1].

MNIST (LeCun, Cortes, Burges) comes as the four gzipped IDX files. They are looked for in a data
directory (the argument, else the environment variable ``NPGD_DATA``, else a cache folder) and,
where the caller allows it, downloaded once with a checksum. Nothing here is copied into the
package.
"""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

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
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "npgd"


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


def image_folder(
    folder: str | os.PathLike[str], image_shape: tuple[int, int, int]
) -> tuple[Float[torch.Tensor, "n c h w"], list[str]]:
    """A folder of pictures (sorted by name) as images of one shape, and their file names.

    Each picture is converted to grey (1 channel) or RGB (3), cropped to the centred rectangle of
    the target's aspect ratio and resized with an antialiased (Lanczos) filter where its size
    differs. Pictures are taken as they are: a prior of white digits on black expects such.

    Raises ``ValueError`` where the folder does not exist, holds no picture, or one cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"images: {folder} is not a folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"images: no picture in {folder} ({', '.join(sorted(IMAGE_SUFFIXES))})")
    channels, height, width = image_shape
    if channels not in (1, 3):
        raise ValueError(f"image_shape: {channels} channels; pictures have 1 (grey) or 3 (RGB)")
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"images: {path} cannot be read as a picture ({error})") from error
        if picture.size != (width, height):
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        array = torch.from_numpy(np.array(picture)).reshape(height, width, channels)
        pictures.append(array.permute(2, 0, 1))
    return to_pixels(torch.stack(pictures)), [path.name for path in paths]
