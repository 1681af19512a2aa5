"""α(x*) of single images: exact where it can be, never beyond what A does to S."""

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import npgd
from analysis import testing
from analysis.rec import estimate_rec
from analysis.rec.pointwise import pointwise_starts
from npgd.images import ratio

SHAPE = (1, 6, 6)
QUICK = {"points": 60, "tangent_points": 5, "search_starts": 2, "search_steps": 10}
ROUNDING = 1e-10


@given(
    A=testing.operators(SHAPE),
    kind=st.sampled_from(["affine", "finite", "generated"]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_kappa_of_a_point_of_S_is_at_most_kappa(A, kind, seed):
    """Also with orthonormal rows, where ‖A‖² = 1 may exceed β by far."""
    if kind == "finite":
        S = testing.random_finite_set(SHAPE, 12, seed)
        known = {"x_true": S.points[:3]}
    else:
        make = testing.random_affine_set if kind == "affine" else testing.random_prior
        S, known = make(SHAPE, 3, seed), {"z_true": testing.normal(3, 3, seed=seed)}
    estimate = estimate_rec(A, S, **QUICK, **known)
    if estimate.beta == 0:
        return
    pointwise = estimate.pointwise
    assert (pointwise.kappa <= estimate.kappa * (1 + ROUNDING)).all()
    assert pointwise.beta == estimate.beta <= estimate.beta_certain * (1 + ROUNDING)
    assert pointwise.beta_kind == ("lower bound" if kind == "generated" else "exact")
    assert pointwise.exact == (kind != "generated")


def test_an_image_of_an_affine_set_has_the_constants_of_the_set():
    """κ = 1.96, which ‖A‖² = 1 in the place of β makes 4.45."""
    A = npgd.whiten(npgd.Gaussian((1, 8, 8), 24, seed=0, dtype=torch.float64))
    S = testing.random_affine_set((1, 8, 8), 3, seed=0)
    for dtype in (torch.float32, torch.float64):
        x_true = S.sample(4, seed=1).to(dtype)
        estimate = estimate_rec(A, S, x_true=x_true, looks=())
        assert estimate.kappa == pytest.approx(1.96, abs=0.005)
        np.testing.assert_allclose(estimate.pointwise.kappa, estimate.kappa)


def infimum(A, S, x_true, starts=12):
    """The least ‖A(B z + c − x*)‖²/‖B z + c − x*‖² that descent from many z finds.

    It descends on (y, t), z = y/t, since the best z may be far.
    """
    offset = x_true - S.generate(torch.zeros(1, S.latent_dim, dtype=torch.float64))

    def value(yt):
        y = torch.from_numpy(yt[None, :-1])
        zero = S.generate(torch.zeros_like(y))
        return float(ratio(A, S.generate(y) - zero - yt[-1] * offset))

    found = [
        scipy.optimize.minimize(value, yt, tol=1e-14).fun
        for yt in testing.normal(starts, S.latent_dim + 1).numpy()
    ]
    return min(found)


@given(seed=st.integers(0, 10**6), far=st.sampled_from([0.3, 1.0, 10.0]))
@settings(max_examples=6, deadline=None)
def test_alpha_off_an_affine_set_is_the_infimum_over_the_set(seed, far):
    A = npgd.Gaussian(SHAPE, 10, seed=seed, dtype=torch.float64)
    S = testing.random_affine_set(SHAPE, 2, seed)
    x_true = S.sample(2, seed=seed) + far * testing.normal(2, *SHAPE, seed=seed)
    estimate = estimate_rec(A, S, x_true=x_true, looks=())
    for x, alpha in zip(x_true, estimate.pointwise.alpha, strict=True):
        assert alpha == pytest.approx(infimum(A, S, x), rel=1e-5)
        assert alpha < estimate.alpha


def test_alpha_off_an_affine_set_may_be_approached_at_infinity_alone():
    """A sees w = x* − P(x*) far more than the directions of S: α(x*) is the α of these."""
    S = npgd.AffineSet(torch.eye(4, 2, dtype=torch.float64), torch.zeros(4), (1, 2, 2))
    A = npgd.MatrixOperator(torch.diag(torch.tensor([1.0, 2, 9, 9]).double()), (1, 2, 2))
    x_true = torch.tensor([1.0, 2, 3, 4]).double().reshape(1, 1, 2, 2)
    estimate = estimate_rec(A, S, x_true=x_true, looks=())
    assert estimate.pointwise.alpha[0] == pytest.approx(1, rel=1e-12)
    assert float(ratio(A, S.generate(torch.tensor([[2e3, 2.0]]).double()) - x_true)) > 1


def test_fewer_measurements_than_dimensions_leave_alpha_zero_off_the_set():
    """Three measurements see the three directions of S, but not w = x* − P(x*) besides."""
    A = npgd.Gaussian(SHAPE, 3, dtype=torch.float64)
    S = testing.random_affine_set(SHAPE, 3)
    estimate = estimate_rec(A, S, x_true=testing.normal(1, *SHAPE), looks=())
    assert estimate.alpha > 0 and estimate.pointwise.alpha[0] == 0
    assert estimate.pointwise.kappa[0] == np.inf


def test_what_is_found_at_an_image_of_S_counts_for_S():
    """A latent far outside the samples, where A sees the curve far less: α ≤ α(x*)."""

    class Bent:
        latent_dim, image_shape = 1, (1, 1, 2)

        def generate(self, z):
            far = (z - 8).clamp_min(0)
            return torch.cat([z - far, far], 1).reshape(-1, 1, 1, 2)

    A = npgd.MatrixOperator(torch.tensor([[1.0, 0.0], [0.0, 0.01]]), (1, 1, 2))
    z_true = torch.tensor([[20.0]])
    looks = ("secants", "tangents")
    without = estimate_rec(A, Bent(), points=100, tangent_points=5, looks=looks)
    assert without.alpha == pytest.approx(1, rel=1e-3)
    with_it = estimate_rec(A, Bent(), points=100, tangent_points=5, looks=looks, z_true=z_true)
    assert with_it.alpha == with_it.pointwise.alpha[0] == pytest.approx(1e-4, rel=1e-2)


def test_points_of_a_finite_set_in_float32_are_exact_as_given():
    """x* so near a point that float32 would take them for one."""
    points = testing.normal(20, *SHAPE, dtype=torch.float32)
    A = npgd.Gaussian(SHAPE, 8, dtype=torch.float64)
    unseen = torch.linalg.svd(A.matrix).Vh[-1].reshape(SHAPE)
    x_true = points[:1].double() + 1e-9 * unseen
    estimate = estimate_rec(A, npgd.FiniteSet(points), x_true=x_true)
    expected = ratio(A, points.double() - x_true).min()
    assert estimate.pointwise.alpha[0] == pytest.approx(float(expected), rel=1e-9, abs=1e-15)
    assert estimate.pointwise.alpha[0] < 1e-9


def test_search_starts_from_the_three_worst_samples_and_both_ways_along_the_worst_tangent():
    z = testing.normal(9, 2)
    nearest = [((0.1, 0, 4), (0.2, 0, 7), (0.3, 0, 1), (0.4, 0, 2)), ((0.5, 1, 3),)]
    owner, start = pointwise_starts(z, nearest, None, None)
    assert owner.tolist() == [0, 0, 0, 1]
    assert torch.equal(start, z[[4, 7, 1, 3]])
    z_true, step = testing.normal(2, 2, seed=1), torch.tensor([[3.0, 4.0], [torch.nan, 0]])
    owner, start = pointwise_starts(z, nearest, z_true, step.double())
    assert owner.tolist() == [0, 0, 0, 0, 0, 1]
    arm = torch.tensor([0.006, 0.008], dtype=torch.float64)
    assert torch.allclose(start[3:5], z_true[0] + torch.stack([arm, -arm]))


@pytest.mark.parametrize("looks", [("tangents",), ("secants", "tangents", "search")])
def test_fewer_measurements_than_tangents_leave_alpha_zero_at_every_image(looks):
    A = npgd.Gaussian(SHAPE, 2, dtype=torch.float64)
    z_true = testing.normal(3, 3)
    estimate = estimate_rec(A, testing.random_prior(SHAPE, 3), z_true=z_true, **QUICK, looks=looks)
    assert (estimate.pointwise.alpha == 0).all() and (estimate.pointwise.kappa == np.inf).all()
    assert (
        "∞" in str(estimate.pointwise) and "at least" not in str(estimate.pointwise).split("(β")[0]
    )
