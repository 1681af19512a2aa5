"""Another precision is a copy: what the caller gave stays as it was."""

import pytest
import torch

from analysis.testing import random_affine_set, random_prior
from npgd.operators import Gaussian, Inpainting
from npgd.precision import converted, like, precision

SHAPE = (1, 3, 4)
DOUBLE, SINGLE = torch.float64, torch.float32


class Wrapped:
    """No module, but a tensor of its own."""

    def __init__(self, dtype):
        self.index, self.matrix = torch.arange(3), torch.zeros(2, dtype=dtype)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_the_precision_is_that_of_parameters_buffers_or_attributes(dtype):
    for thing in (random_prior(SHAPE, 2).to(dtype), random_affine_set(SHAPE, 2).to(dtype)):
        assert precision(thing) == dtype
    assert precision(Wrapped(dtype)) == dtype
    for thing in (Inpainting(SHAPE, hole=1), abs, object()):  # nothing to tell by
        assert precision(thing) == SINGLE


@pytest.mark.parametrize("make", [lambda: random_prior(SHAPE, 2), lambda: Gaussian(SHAPE, 5)])
def test_a_conversion_leaves_the_original_alone(make):
    thing = make().requires_grad_(True)
    before = {key: value.clone() for key, value in thing.state_dict().items()}
    other = DOUBLE if precision(thing) == SINGLE else SINGLE
    copy = converted(thing, other)
    assert precision(copy) == other and precision(thing) != other
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in thing.parameters())
    for key, value in thing.state_dict().items():
        assert torch.equal(value, before[key])
        torch.testing.assert_close(copy.state_dict()[key].to(value), value)


def test_what_would_not_change_is_returned_itself():
    frozen = random_prior(SHAPE, 2)
    assert converted(frozen, DOUBLE) is frozen
    assert converted(frozen.requires_grad_(True), DOUBLE) is not frozen  # the copy has no gradients
    assert converted(abs, SINGLE) is abs


def test_a_tensor_follows_a_module_and_nothing_else():
    x = torch.zeros(2, dtype=SINGLE)
    assert like(x, random_affine_set(SHAPE, 2)).dtype == DOUBLE
    assert like(x, abs) is x and like(x, Inpainting(SHAPE, hole=1)) is x
