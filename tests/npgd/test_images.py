"""One number for each row: norms, inner products, and how far an operator stretches a direction."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.testing import normal, seeds
from npgd.images import inner, norm, psnr, quotient, ratio, squared_norm, warn_of_range
from npgd.operators import Gaussian, Inpainting

SHAPE = (2, 3, 4)


@given(seed=seeds, batch=st.integers(1, 4), scale=st.floats(-3, 3))
def test_the_norm_is_that_of_the_inner_product(seed, batch, scale):
    x, y = normal(batch, *SHAPE, seed=seed), normal(batch, *SHAPE, seed=seed + 1)
    torch.testing.assert_close(squared_norm(x), inner(x, x))
    torch.testing.assert_close(norm(x).square(), squared_norm(x))
    torch.testing.assert_close(inner(scale * x, y), scale * inner(y, x))
    assert bool((inner(x, y).abs() <= norm(x) * norm(y) * (1 + 1e-12)).all())  # Cauchy, Schwarz
    torch.testing.assert_close(squared_norm(x + y), squared_norm(x) + 2 * inner(x, y) + inner(y, y))


def test_a_quotient_is_undefined_where_its_denominator_is_not_positive():
    numerator, denominator = torch.tensor([1.0, 1, 0, -1]), torch.tensor([2.0, 0, 0, -1])
    assert quotient(numerator, denominator)[0] == 0.5
    assert bool(quotient(numerator, denominator)[1:].isnan().all())


def test_ten_times_the_error_costs_ten_decibels_and_black_for_white_has_none():
    torch.testing.assert_close(psnr(torch.tensor([4.0, 0.4, 0.0])), torch.tensor([0, 10, math.inf]))


@given(seed=seeds, scale=st.sampled_from([1e-3, -1.0, 1e3]))
def test_the_ratio_lies_between_the_squared_singular_values_and_ignores_scale(seed, scale):
    A, s = Gaussian(SHAPE, 30, 0, torch.float64), normal(5, *SHAPE, seed=seed)
    values = torch.linalg.svdvals(A.matrix).square()
    found = ratio(A, s)
    assert bool((found >= values[-1] * (1 - 1e-12)).all())
    assert bool((found <= values[0] * (1 + 1e-12)).all())
    torch.testing.assert_close(ratio(A, scale * s), found)


def test_the_ratio_of_nothing_is_undefined_and_of_what_is_measured_whole_is_one():
    s = torch.zeros(2, *SHAPE)
    s[1, 0, 0, 0] = 3
    zero, one = ratio(Inpainting(SHAPE, hole=1), s).tolist()
    assert math.isnan(zero) and one == 1


@pytest.mark.parametrize(
    ("shift", "scale", "way"),
    [(0.5, 0.5, r"in \[-1, 1\].* give 2 \* x - 1"), (127.5, 127.5, r"npgd\.data\.to_pixels\(x\)")],
)
def test_pixels_of_another_range_are_warned_of_beside_images_of_ours(shift, scale, way):
    made = torch.linspace(-1, 1, 24).reshape(1, *SHAPE)
    with pytest.warns(UserWarning, match=way):
        warn_of_range(shift + scale * made, made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, beside in ((made, made), (shift + scale * made, shift + scale * made)):
            warn_of_range(x, beside)  # as it should be; a set of that range
        warn_of_range(made[:0], made)
