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
from npgd.data.decoding import IMAGE_SUFFIXES
from npgd.data.idx import MNIST_FILES, MNIST_SHA256, MNIST_URL, mnist, mnist_uint8, read_idx
from npgd.data.pictures import Pictures, image_archive, read_pictures
from npgd.data.pixels import to_pixels, to_uint8
from npgd.data.places import DataNotFoundError, cache_directory, data_directory
from npgd.data.sources import Skipped

__all__ = [
    "IMAGE_SHAPES",
    "IMAGE_SUFFIXES",
    "MNIST_FILES",
    "MNIST_SHA256",
    "MNIST_URL",
    "DataNotFoundError",
    "Pictures",
    "Skipped",
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
    "read_pictures",
    "to_pixels",
    "to_uint8",
]
