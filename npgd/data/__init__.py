"""Images in, as float32 tensors (batch, channels, height, width) with pixels in [-1, 1].

Data sets are looked for in a data directory (the argument, else the environment variable
`NPGD_DATA`, else a cache folder). Nothing of them is copied into the package.
"""

from npgd.data.datasets import (
    IMAGE_SHAPES,
    celeba,
    celeba_uint8,
    church,
    church_uint8,
    dataset,
    dataset_uint8,
)
from npgd.data.idx import MNIST_FILES, MNIST_MD5, MNIST_URL, mnist, mnist_uint8, read_idx
from npgd.data.pictures import IMAGE_SUFFIXES, image_archive
from npgd.data.pixels import to_pixels, to_uint8
from npgd.data.places import DataNotFoundError, cache_directory, data_directory

__all__ = [
    "IMAGE_SHAPES",
    "IMAGE_SUFFIXES",
    "MNIST_FILES",
    "MNIST_MD5",
    "MNIST_URL",
    "DataNotFoundError",
    "cache_directory",
    "celeba",
    "celeba_uint8",
    "church",
    "church_uint8",
    "data_directory",
    "dataset",
    "dataset_uint8",
    "image_archive",
    "mnist",
    "mnist_uint8",
    "read_idx",
    "to_pixels",
    "to_uint8",
]
