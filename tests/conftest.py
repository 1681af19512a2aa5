"""What several test files share: where the data is, and how much of it there must be."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("npgd", deadline=None)
settings.load_profile("npgd")
torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def digits():
    """The first 32 MNIST test digits; skips, saying why, where MNIST is not at hand."""
    from npgd.data import DataNotFoundError, mnist

    try:
        return mnist("test", count=32)
    except DataNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def repository():
    """The root of the source tree."""
    return Path(__file__).parent.parent
