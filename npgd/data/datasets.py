"""The data sets by name: MNIST, CelebA's faces and LSUN's churches.

CelebA and LSUN's church_outdoor are looked for in the data directory and never downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float, UInt8

from npgd.data.idx import MNIST_FILES, mnist_uint8
from npgd.data.pictures import image_archive
from npgd.data.pixels import first, to_pixels
from npgd.data.places import DataNotFoundError, data_directory

IMAGE_SHAPES = {"mnist": (1, 28, 28), "celeba": (3, 64, 64), "church": (3, 64, 64)}
# CelebA's own partition, by the number in the file's name (list_eval_partition.txt).
CELEBA_PARTITION = {"train": range(1, 162_771), "test": range(182_638, 202_600)}


def celeba_uint8(
    split: str = "test", data_dir: str | os.PathLike[str] | None = None, strict: bool = False
) -> UInt8[torch.Tensor, "n 3 64 64"]:
    """CelebA faces as bytes: the centred square of 108 pixels, resized to 64×64.

    Liu, Luo, Wang, Tang, ICCV 2015; non-commercial research only. Looked for in the data directory
    as `celeba64.zip` (entries `train/…` and `test/…`), else as `img_align_celeba.zip` or the
    folder `img_align_celeba`, which are split by CelebA's own partition.

    Args:
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        strict: whether pictures that cannot be read are refused.

    Raises:
        ValueError: an unknown split, and as `image_archive` does.
        DataNotFoundError: none of them is there.
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

    Looked for in the data directory as `church64.zip` (entries `train/…` and `test/…`), else as
    LSUN's `church_outdoor_train_lmdb` and `church_outdoor_val_lmdb` (Yu et al. 2015), whose centred
    squares are resized; the validation set is the test split.

    Args:
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        strict: whether pictures that cannot be read are refused.

    Raises:
        ValueError: an unknown split, and as `image_archive` does.
        DataNotFoundError: none of them is there.
    """
    _split(split)
    lmdb = {"train": "church_outdoor_train_lmdb", "test": "church_outdoor_val_lmdb"}[split]
    path = _place("LSUN church_outdoor", ("church64.zip", lmdb), data_dir)
    inside = split if path.suffix == ".zip" else None
    return image_archive(path, (3, 64, 64), split=inside, strict=strict)[0]


def _split(split: str) -> None:
    if split not in MNIST_FILES:
        raise ValueError(f"split must be one of {', '.join(MNIST_FILES)}, got {split!r}")


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
    """The images of a data set as bytes.

    Args:
        name: "mnist", "celeba" or "church".
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        download: whether MNIST may be downloaded; the others never are.
        strict: whether pictures that cannot be read are refused.

    Raises:
        ValueError: an unknown name, and as the data set's own function does.
        DataNotFoundError: it is not there.
    """
    if name == "mnist":
        return mnist_uint8(split, data_dir, download)[0]
    if name not in IMAGE_SHAPES:
        raise ValueError(f"dataset must be one of {', '.join(IMAGE_SHAPES)}, got {name!r}")
    return {"celeba": celeba_uint8, "church": church_uint8}[name](split, data_dir, strict)


def dataset(
    name: str,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    count: int | None = None,
    download: bool = False,
) -> Float[torch.Tensor, "n c h w"]:
    """The first `count` (default: all) images of a data set's split, pixels in [-1, 1].

    Args:
        name: "mnist", "celeba" or "church".
        split: "train" or "test".
        data_dir: the folder to look in, see `data_directory`.
        count: how many.
        download: whether MNIST may be downloaded; the others never are.

    Raises:
        ValueError: as `dataset_uint8` does, and for a count below 1 or beyond the split.
        DataNotFoundError: it is not there.
    """
    return to_pixels(
        first(count, dataset_uint8(name, split, data_dir, download), f"{name} {split}")
    )


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
