"""What rounding does to a ratio: enclosed, and no direction shorter than its own error counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import npgd
from analysis import testing
from analysis.rec import estimate_rec
from analysis.rec.rounding import SHORTEST, enclosed
from npgd.images import norm, ratio

SHAPE = (1, 5, 6)
SMALL = {"points": 400, "tangent_points": 20, "search_starts": 4, "search_steps": 25}


class Saturated(nn.Module):
    """G(z) = B tanh(20 z) + c: most samples lie as near its corners as rounding."""

    latent_dim, image_shape = 2, SHAPE

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.B = nn.Parameter(testing.normal(2, 30, seed=seed, dtype=dtype))
        self.c = nn.Parameter(testing.normal(30, seed=seed + 1, dtype=dtype))

    def generate(self, z):
        return (torch.tanh(20 * z) @ self.B + self.c).reshape(-1, *SHAPE)


class Single:
    """The same, by something that knows float32 alone."""

    latent_dim, image_shape = 2, SHAPE

    def __init__(self, seed: int) -> None:
        self.G = Saturated(seed, torch.float32)
        self.weight = self.G.B.detach()

    def generate(self, z):
        return self.G.generate(z.float())


def constants(A, B):
    """α and β of {B t : |t| < 1}: its secants have every direction of range(B)."""
    q = torch.linalg.qr(B.detach().double().T)[0]
    values = torch.linalg.svdvals(A.matrix.double() @ q).square()
    return float(values[-1]), float(values[0])


@pytest.mark.parametrize("kind", ["float64", "float32", "float32 alone"])
@pytest.mark.parametrize("seed", range(4))
def test_no_direction_as_short_as_rounding_refutes_anything(kind, seed):
    A = npgd.Gaussian(SHAPE, 12, seed=seed, dtype=torch.float64)
    dtype = torch.float64 if kind == "float64" else torch.float32
    S = Single(seed) if kind == "float32 alone" else Saturated(seed, dtype)
    alpha, beta = constants(A, S.G.B if kind == "float32 alone" else S.B)
    estimate = estimate_rec(A, S, z_true=testing.normal(3, 2, seed=seed), **SMALL, seed=seed)
    found = [*estimate.looks.values(), estimate]
    for look in found:
        assert not look.alpha < alpha * (1 - 1e-12), look
        assert not look.beta > beta * (1 + 1e-12), look
    assert (estimate.pointwise.alpha >= alpha * (1 - 1e-12)).all()
    # One-sided, and not idle: most of what there is, is found.
    assert estimate.alpha < 1.2 * alpha and estimate.beta > 0.8 * beta
    if kind != "float32 alone":
        assert alpha * (1 - 1e-9) <= estimate.confidence.alpha
        assert estimate.confidence.beta <= beta * (1 + 1e-9)


@given(
    seed=st.integers(0, 10**6),
    log_length=st.floats(-12, 1),
    error=st.sampled_from([0.0, 1e-14, 1e-7]),
)
@settings(max_examples=60, deadline=None)
def test_the_ratio_of_any_vector_within_the_error_is_enclosed(seed, log_length, error):
    A = npgd.Gaussian(SHAPE, 4, seed=seed, dtype=torch.float64)
    s = 10**log_length * torch.nn.functional.normalize(testing.normal(1, 30, seed=seed))
    off = error * torch.nn.functional.normalize(testing.normal(200, 30, seed=seed + 1))
    low, high = enclosed(norm(A(s.reshape(-1, *SHAPE))), norm(s), error, A.norm(), 30)
    if 10**log_length <= 0.99 * SHORTEST * error:
        assert low.isnan() and high.isnan()
    elif 10**log_length >= 1.01 * SHORTEST * error:
        true = ratio(A, (s + off).reshape(-1, *SHAPE))
        assert float(low) <= float(true.min()) and float(true.max()) <= float(high)


def test_exact_points_lose_no_digit_that_matters():
    """The allowance is rounding, not caution: ten digits of a ratio stay."""
    A = npgd.Gaussian(SHAPE, 12, dtype=torch.float64)
    points = testing.normal(40, *SHAPE)
    estimate = estimate_rec(A, points)
    i, j = torch.triu_indices(40, 40, 1)
    ratios = ratio(A, points[i] - points[j])
    assert 0 <= estimate.alpha / float(ratios.min()) - 1 < 1e-11
    assert 0 <= 1 - estimate.beta / float(ratios.max()) < 1e-11


def test_tangents_of_nearly_dependent_columns_count():
    """In float64, a column of J at 1e-6 of another is a direction like any other."""
    A = npgd.Gaussian(SHAPE, 8, dtype=torch.float64)
    basis = testing.normal(30, 2) * torch.tensor([1.0, 1e-6])
    S = npgd.AffineSet(basis, torch.zeros(30), SHAPE)
    estimate = estimate_rec(A, S, tangent_points=3, points=3, looks=("tangents",))
    assert (estimate.tangent_rank == 2).all()
    assert estimate.looks["tangents"].alpha == pytest.approx(estimate.alpha, rel=1e-6)
    assert estimate.looks["tangents"].beta == pytest.approx(estimate.beta, rel=1e-6)


def test_a_ratio_that_rounding_swallows_may_be_nothing():
    one = torch.ones(1, dtype=torch.float64)
    low, high = enclosed(1e-3 * one, one, 5e-3, 2.0, 30)
    assert float(low) == 0 and float(high) > (0.011 / 0.995) ** 2 * (1 - 1e-9)
