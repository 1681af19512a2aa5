"""Smooth rectifiers: near the ones with a kink, and with the derivatives of their formula."""

import math

import pytest
import torch
from torch import nn

from analysis.testing import normal
from npgd.networks import DCGANGenerator, Encoder, SAGANEncoder, SAGANGenerator
from npgd.networks.rectifier import SmoothMaxPool, SmoothRectifier, maximum, rectifier


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.2])
def test_the_distance_to_the_kink_is_as_said(slope):
    """At most (1 − slope) log(2)/s, at 0, and never below."""
    x = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    kinked = torch.where(x > 0, x, slope * x)
    for sharpness in (5.0, 30.0):
        gap = SmoothRectifier(sharpness, slope)(x) - kinked
        assert gap.min() > -1e-12
        assert gap.argmax() == 3000
        assert float(gap.max()) == pytest.approx((1 - slope) * math.log(2) / sharpness)


def test_it_has_no_jump_where_softplus_becomes_its_argument():
    x = torch.tensor([40 / 30 - 1e-9, 40 / 30 + 1e-9], dtype=torch.float64)
    below, above = SmoothRectifier(30.0)(x)
    assert float(above - below) == pytest.approx(2e-9, abs=1e-15)


def test_the_derivative_is_a_logistic_function():
    x = normal(50, seed=0).requires_grad_()
    (d,) = torch.autograd.grad(SmoothRectifier(30.0, 0.2)(x).sum(), x)
    assert torch.allclose(d, 0.2 + 0.8 * torch.sigmoid(30 * x))


def test_the_smooth_maximum_is_above_the_maximum_by_no_more_than_said():
    x = normal(2, 3, 8, 8, seed=1)
    gap = SmoothMaxPool(2, 30.0)(x) - nn.MaxPool2d(2)(x)
    assert gap.min() > -1e-14 and gap.max() <= math.log(4) / 30


def test_without_sharpness_they_are_torch_own():
    assert isinstance(rectifier(None), nn.ReLU)
    assert isinstance(rectifier(None, 0.2), nn.LeakyReLU)
    assert isinstance(maximum(2, None), nn.MaxPool2d)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda s: DCGANGenerator(5, 8, sharpness=s), (5,)),
        (lambda s: SAGANGenerator(5, 8, sharpness=s), (5,)),
        (lambda s: Encoder(5, 8, 16, sharpness=s), (1, 28, 28)),
        (lambda s: SAGANEncoder(5, 8, 16, sharpness=s), (3, 64, 64)),
    ],
)
def test_smooth_networks_take_the_same_weights_and_have_no_kink(make, shape):
    torch.manual_seed(0)
    kinked = make(None)
    smooth = make(30.0)
    smooth.load_state_dict(kinked.state_dict())
    assert not any(isinstance(p, nn.ReLU | nn.LeakyReLU | nn.MaxPool2d) for p in smooth.modules())
    sharp = make(1e5)
    sharp.load_state_dict(kinked.state_dict())
    x = normal(2, *shape, seed=2).float()
    with torch.no_grad():
        near, far = (
            float((net.eval()(x) - kinked.eval()(x)).abs().max()) for net in (sharp, smooth)
        )
    assert near < 1e-4 and near < far < 1


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), "sharp"])
def test_what_is_no_sharpness_is_named(bad):
    with pytest.raises((TypeError, ValueError), match="sharpness must be"):
        DCGANGenerator(5, 8, sharpness=bad)
