"""What several test files share: where the data is, and how much of it there must be."""

from pathlib import Path

import pytest
import torch
from hypothesis import Phase, settings

settings.register_profile("npgd", deadline=None)
# For tests/mutate.py: a fault that is caught needs no smallest example.
settings.register_profile("faults", deadline=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("npgd")
# The tensors of the tests are small: a second thread costs more in waiting than it computes.
torch.set_num_threads(1)


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
