"""The data sets by name: MNIST, CelebA's faces and LSUN's churches.

CelebA and LSUN's church_outdoor are looked for in the data directory and never downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float, UInt8

from npgd import checks
from npgd.data.idx import MNIST_FILES, mnist_uint8
from npgd.data.pictures import read_pictures, warn_of_skipped
from npgd.data.pixels import first, to_pixels
from npgd.data.places import DataNotFoundError, data_directory

IMAGE_SHAPES = {"mnist": (1, 28, 28), "celeba": (3, 64, 64), "church": (3, 64, 64)}
# CelebA's own partition, by the number in the file's name (list_eval_partition.txt).
CELEBA_PARTITION = {"train": range(1, 162_771), "test": range(182_638, 202_600)}


def celeba_uint8(
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
    count: int | None = None,
) -> UInt8[torch.Tensor, "n 3 64 64"]:
    """CelebA faces as bytes: the centred square of 108 pixels, resized to 64×64.

    Liu, Luo, Wang, Tang, ICCV 2015; non-commercial research only. Looked for in the data directory
    as `celeba64.zip` (entries `train/…` and `test/…`), else as `img_align_celeba.zip` or the
    folder `img_align_celeba`, which are split by CelebA's own partition.

    Args:
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        strict: whether pictures that cannot be read are refused.
        count: how many, at most; no more are decoded than that takes.

    Raises:
        ValueError: an unknown split, and as `image_archive` does.
        DataNotFoundError: none of them is there.
    """
    split = checks.choice(split, "split", *CELEBA_PARTITION)
    places = ("celeba64.zip", "img_align_celeba.zip", "img_align_celeba")
    path = _place("CelebA", places, data_dir)
    if path.name == "celeba64.zip":
        return _bytes(path, 108, split, count, strict)
    numbers = CELEBA_PARTITION[split]
    return _bytes(path, 108, None, count, strict, lambda name: _celeba_number(name) in numbers)


def _celeba_number(name: str) -> int:
    """The number of a CelebA picture; ValueError for a name like `000001 (1).jpg`."""
    stem = PurePosixPath(name).stem
    if re.fullmatch("[0-9]{6}", stem) is None:
        raise ValueError("its name is not CelebA's six digits, which say the split")
    return int(stem)


def _bytes(
    path: Path,
    crop: int | None,
    split: str | None,
    count: int | None,
    strict: bool,
    belongs: Callable[[str], bool] | None = None,
) -> UInt8[torch.Tensor, "n 3 64 64"]:
    """The pictures of a colour set; a warning counts and names what is skipped."""
    found = read_pictures(
        path, (3, 64, 64), crop, split, count=count, strict=strict, belongs=belongs
    )
    warn_of_skipped(found, path)
    return found.images


def church_uint8(
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
    count: int | None = None,
) -> UInt8[torch.Tensor, "n 3 64 64"]:
    """Photographs of churches as bytes, 64×64.

    Looked for in the data directory as `church64.zip` (entries `train/…` and `test/…`), else as
    LSUN's `church_outdoor_train_lmdb` and `church_outdoor_val_lmdb` (Yu et al. 2015), whose centred
    squares are resized; the validation set is the test split.

    Args:
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        strict: whether pictures that cannot be read are refused.
        count: how many, at most; no more are decoded than that takes.

    Raises:
        ValueError: an unknown split, and as `image_archive` does.
        DataNotFoundError: none of them is there.
    """
    split = checks.choice(split, "split", *MNIST_FILES)
    lmdb = {"train": "church_outdoor_train_lmdb", "test": "church_outdoor_val_lmdb"}[split]
    path = _place("LSUN church_outdoor", ("church64.zip", lmdb), data_dir)
    return _bytes(path, None, split if path.suffix == ".zip" else None, count, strict)


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
    count: int | None = None,
) -> UInt8[torch.Tensor, "n c h w"]:
    """The first `count` (default: all) images of a data set's split as bytes.

    Args:
        name: "mnist", "celeba" or "church".
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        download: whether MNIST may be downloaded; the others never are.
        strict: whether pictures that cannot be read are refused.
        count: how many; no more pictures are decoded than that takes.

    Raises:
        ValueError: an unknown name, a count below 1 or beyond the split, and as the data set's own
            function does.
        DataNotFoundError: it is not there.
    """
    name = checks.choice(name, "dataset", *IMAGE_SHAPES)
    checks.flag(download, "download")
    if name == "mnist":
        checks.flag(strict, "strict")
        images = mnist_uint8(split, data_dir, download)[0]
    else:
        read = {"celeba": celeba_uint8, "church": church_uint8}[name]
        # A count of 0 is refused below, with the number there is.
        some = None if count is None else checks.integer(count, "count", minimum=0) or None
        images = read(split, data_dir, strict, some)
    return first(count, images, f"{name} {split}")


def dataset(
    name: str,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    count: int | None = None,
    download: bool = False,
    strict: bool = False,
) -> Float[torch.Tensor, "n c h w"]:
    """The first `count` (default: all) images of a data set's split, pixels in [-1, 1].

    Args:
        name: "mnist", "celeba" or "church".
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        count: how many.
        download: whether MNIST may be downloaded; the others never are.
        strict: whether pictures that cannot be read are refused.

    Raises:
        ValueError: as `dataset_uint8` does.
        DataNotFoundError: it is not there.
    """
    return to_pixels(dataset_uint8(name, split, data_dir, download, strict, count))


def celeba(
    split: str = "test", data_dir: str | os.PathLike[str] | None = None, count: int | None = None
) -> Float[torch.Tensor, "n 3 64 64"]:
    """The first `count` CelebA faces of a split, pixels in [-1, 1]; see `celeba_uint8`."""
    return dataset("celeba", split, data_dir, count)


def church(
    split: str = "test", data_dir: str | os.PathLike[str] | None = None, count: int | None = None
) -> Float[torch.Tensor, "n 3 64 64"]:
    """The first `count` churches of a split, pixels in [-1, 1]; see `church_uint8`."""
    return dataset("church", split, data_dir, count)
