"""Restricted eigenvalue constants: one-sided, against exact ones, and free of arbitrary choices."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from analysis import testing
from analysis.rec import estimate_rec
from analysis.rec.search import search_from, search_pairs
from analysis.rec.settings import LOOKS
from analysis.tasks import draw_latents
from npgd import FiniteSet, Gaussian, Inpainting, MatrixOperator
from npgd.images import ratio

SHAPE = (1, 10, 20)
SMALL = {"points": 300, "tangent_points": 12, "search_starts": 4, "search_steps": 25}
ROUNDING = 1e-10  # relative; the exact constants are themselves computed in float64


class Curve(nn.Module):
    """A smooth generator; `rotation` turns its images."""

    latent_dim, image_shape = 3, SHAPE

    def __init__(self, seed: int = 0, rotation: torch.Tensor | None = None) -> None:
        super().__init__()
        self.first = nn.Parameter(testing.normal(3, 10, seed=seed))
        self.second = nn.Parameter(testing.normal(10, 200, seed=seed + 1))
        if rotation is not None:
            self.second.data = self.second.data @ rotation.T

    def generate(self, z: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(z @ self.first) @ self.second).reshape(-1, *SHAPE)


def gaussian(m: int, seed: int) -> Gaussian:
    return Gaussian(SHAPE, m, seed=seed, dtype=torch.float64)


@cache
def curve_estimate(**changes):
    z_true = draw_latents(3, 3, seed=8, dtype=torch.float64)
    return estimate_rec(gaussian(20, 1), Curve(), z_true=z_true, **(SMALL | changes))


# ------------------------------------------------------------------ against the exact constants


@given(seed=st.integers(0, 10**6), m=st.integers(8, 60))
@settings(max_examples=5, deadline=None)
def test_every_look_is_one_sided_and_search_comes_within_one_percent(seed, m):
    A, S = gaussian(m, seed), testing.random_affine_set(SHAPE, 10, seed)
    estimate = estimate_rec(A, S, **(SMALL | {"search_starts": 8, "search_steps": 60}))
    q, _ = torch.linalg.qr(S.basis)
    exact = torch.linalg.svdvals(A.matrix @ q).square()
    alpha, beta = (float(exact[-1]) if m >= 10 else 0.0), float(exact[0])
    assert estimate.exact
    assert estimate.alpha == pytest.approx(alpha, rel=ROUNDING)
    assert estimate.beta == pytest.approx(beta, rel=ROUNDING)
    for name in LOOKS:
        look = estimate.looks[name]
        assert look.alpha >= alpha * (1 - ROUNDING) and look.beta <= beta * (1 + ROUNDING)
    search = estimate.looks["search"]
    assert search.alpha <= 1.01 * alpha + 1e-12 and search.beta >= 0.99 * beta
    assert estimate.beta <= estimate.beta_certain * (1 + ROUNDING)


@pytest.mark.parametrize("seed", range(5))
def test_descent_alone_comes_within_one_percent(seed):
    """The optimiser by itself, from random pairs, without the tangents where it ends."""
    A, S = gaussian(30, seed), testing.random_affine_set(SHAPE, 10, seed)
    z = draw_latents(10, 24, seed, torch.float64)
    largest = torch.arange(12) >= 6
    found = search_pairs(A, S, z[:12], z[12:], largest, radius=6.2, steps=150)
    exact = estimate_rec(A, S, looks=())
    alpha, beta = float(found.ratio[:6].min()), float(found.ratio[6:].max())
    assert exact.alpha * (1 - ROUNDING) <= alpha <= exact.alpha * 1.01
    assert exact.beta * 0.99 <= beta <= exact.beta * (1 + ROUNDING)


@given(A=testing.operators(SHAPE), S=testing.finite_sets(SHAPE, count=st.integers(2, 40)))
@settings(max_examples=10, deadline=None)
def test_finite_sets_are_exact(A, S):
    points = S.points
    estimate = estimate_rec(A, S, x_true=points[:2])
    i, j = torch.triu_indices(len(points), len(points), 1)
    ratios = ratio(A, points[i] - points[j])
    assert estimate.exact and estimate.pointwise.exact
    assert estimate.alpha == pytest.approx(float(ratios.min()), rel=ROUNDING)
    assert estimate.beta == pytest.approx(float(ratios.max()), rel=ROUNDING)
    for one in range(2):
        mine = float(ratios[(i == one) | (j == one)].min())
        assert estimate.pointwise.alpha[one] == pytest.approx(mine, rel=ROUNDING)
    assert estimate.looks["tangents"].status.startswith("skipped")


@pytest.mark.parametrize("m", [6, 200])
def test_an_exact_kappa_is_on_the_side_of_two_that_is_said(m):
    """And so is the number that is printed."""
    estimate = estimate_rec(gaussian(m, 0), testing.random_affine_set(SHAPE, 3, 1), looks=())
    side = "<" if estimate.kappa < 2 else "≥"
    assert (m == 200) == (estimate.kappa < 2)
    assert estimate.status.startswith(f"κ {side} 2: it is ")
    printed = float(estimate.status.split("it is ")[1].split()[0])
    assert (printed < 2) == (estimate.kappa < 2)
    assert printed == pytest.approx(estimate.kappa, rel=1e-2)


def test_an_affine_set_has_one_alpha_for_all_its_points():
    A, S = gaussian(30, 2), testing.random_affine_set(SHAPE, 10, 2)
    z_true = draw_latents(10, 4, dtype=torch.float64)
    estimate = estimate_rec(A, S, z_true=z_true, looks=())
    assert estimate.pointwise.exact
    np.testing.assert_array_equal(estimate.pointwise.alpha, estimate.alpha)
    np.testing.assert_allclose(estimate.pointwise.kappa, estimate.kappa)


# ------------------------------------------------------------------------------- instance-wise


@given(seed=st.integers(0, 10**6))
@settings(max_examples=4, deadline=None)
def test_alpha_at_a_point_is_at_least_alpha(seed):
    A = gaussian(15, seed)
    z_true = draw_latents(3, 3, seed + 1, torch.float64)
    estimate = estimate_rec(A, Curve(seed), z_true=z_true, seed=seed, **SMALL)
    pointwise = estimate.pointwise
    assert (pointwise.alpha >= estimate.alpha).all()
    assert (pointwise.kappa <= estimate.kappa * (1 + ROUNDING)).all()
    for name, values in pointwise.by_look.items():
        assert (values >= pointwise.alpha * (1 - ROUNDING)).all(), name
    for i, direction in enumerate(pointwise.worst):
        x_true = Curve(seed).generate(z_true[i : i + 1])[0]
        assert torch.allclose(direction.first, x_true, atol=1e-12)


def test_search_at_a_point_lowers_the_worst_secant():
    A, prior = gaussian(15, 3), Curve(3)
    z_true = draw_latents(3, 4, 9, torch.float64)
    x_true = prior.generate(z_true).detach()
    start = draw_latents(3, 4, 10, torch.float64)
    before = ratio(A, prior.generate(start) - x_true)
    for known in (z_true, None):
        found = search_from(A, prior, start, x_true, known, radius=5.0, steps=40)
        assert (found.ratio <= before).all() and (found.ratio < 0.95 * before).any()
        assert (found.z_first.norm(dim=1) <= 5.0 + 1e-9).all()
        again = ratio(A, prior.generate(found.z_first) - x_true)
        assert torch.allclose(again, found.ratio, rtol=1e-10)


def test_orthonormal_rows_make_beta_certain():
    estimate = estimate_rec(
        Inpainting(SHAPE, hole=4), Curve(), z_true=draw_latents(3, 2), **SMALL, looks=("secants",)
    )
    assert estimate.beta_certain == 1
    assert estimate.pointwise.beta_kind == "lower bound"
    assert estimate.pointwise.beta == estimate.beta <= 1


def test_images_without_latents():
    prior = Curve()
    x_true = prior.generate(draw_latents(3, 2, 5, torch.float64)).detach()
    A = gaussian(20, 1)
    with_search = estimate_rec(A, prior, x_true=x_true, **SMALL).pointwise
    assert np.isnan(with_search.by_look["tangents"]).all()
    points = prior.generate(draw_latents(3, 50, dtype=torch.float64)).detach()
    alone = estimate_rec(A, points, x_true=x_true)
    expected = [float(ratio(A, points - x).min()) for x in x_true]
    np.testing.assert_allclose(alone.pointwise.alpha, expected, rtol=1e-10)


# --------------------------------------------------------------------------------- invariances


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
@settings(max_examples=3, deadline=None)
def test_kappa_is_invariant_under_scaling_and_rotation(seed, scale):
    rotation, _ = torch.linalg.qr(testing.normal(200, 200, seed=seed))
    matrix = gaussian(15, seed).matrix
    looks = ("secants", "tangents")
    first = estimate_rec(MatrixOperator(matrix, SHAPE), Curve(seed), looks=looks, **SMALL)
    moved = MatrixOperator(scale * matrix @ rotation.T, SHAPE)
    second = estimate_rec(moved, Curve(seed, rotation), looks=looks, **SMALL)
    for name in looks:
        before, after = first.looks[name], second.looks[name]
        assert after.kappa == pytest.approx(before.kappa, rel=1e-7)
        assert after.alpha == pytest.approx(scale**2 * before.alpha, rel=1e-7)


def test_more_points_never_hide_what_fewer_show():
    A, prior = gaussian(15, 0), Curve()
    looks = ("secants", "tangents")
    previous = None
    for count in (50, 180, 400, 700):
        estimate = estimate_rec(A, prior, points=count, tangent_points=count // 10, looks=looks)
        for name in looks:
            if previous is not None:
                assert estimate.looks[name].alpha <= previous.looks[name].alpha * (1 + 1e-12)
                assert estimate.looks[name].beta >= previous.looks[name].beta * (1 - 1e-12)
        previous = estimate
    assert previous.looks["secants"].n_directions == 700 * 699 // 2


def test_the_result_does_not_depend_on_the_executor():
    def numbers(estimate):
        found = estimate.to_dict()
        found.pop("seconds")
        for look in found["looks"].values():
            look.pop("seconds")
        return json.dumps(found)

    with ThreadPoolExecutor(3) as pool:
        assert numbers(curve_estimate(executor=pool)) == numbers(curve_estimate())


# ------------------------------------------------------------------------------------- results


def test_search_goes_beyond_its_starts_and_stays_within_the_radius():
    estimate = curve_estimate(latent_radius=2.5)
    looks = estimate.looks
    assert looks["search"].alpha < looks["secants"].alpha
    assert looks["search"].beta > looks["secants"].beta
    for direction in (looks["search"].lowest, looks["search"].highest):
        assert float(direction.z_first.norm()) <= 2.5 + 1e-9
        if direction.kind == "secant":
            assert float(direction.z_second.norm()) <= 2.5 + 1e-9
    assert estimate.latent_radius == 2.5 and "2.5" in looks["search"].statement


def test_reported_extremes_are_ratios_of_the_reported_directions():
    A, prior, estimate = gaussian(20, 1), Curve(), curve_estimate()
    for name in LOOKS:
        look = estimate.looks[name]
        for value, direction in ((look.alpha, look.lowest), (look.beta, look.highest)):
            s = direction.second
            if direction.kind == "secant":
                images = prior.generate(torch.stack([direction.z_first, direction.z_second]))
                s = images[0] - images[1]
            assert float(ratio(A, s[None])) == pytest.approx(value, rel=1e-9)
        assert "one-sided" in look.statement
    assert estimate.alpha == min(
        *(estimate.looks[name].alpha for name in LOOKS), estimate.pointwise.alpha.min()
    )
    assert estimate.beta_certain == A.norm() ** 2 > estimate.beta
    by_look = np.stack([estimate.pointwise.by_look[name] for name in LOOKS])
    assert np.isfinite(by_look).all()
    np.testing.assert_array_equal(by_look.min(0), estimate.pointwise.alpha)


def test_results_print_and_convert():
    estimate = curve_estimate()
    assert json.loads(json.dumps(estimate.to_dict()))["kappa"] == estimate.kappa
    for word in ("secants", "tangents", "search", "confidence", "per image"):
        assert word in str(estimate)
    assert estimate.status.startswith("κ ≥ 2" if estimate.kappa >= 2 else "κ < 2")
    assert estimate.histogram.total == 300 * 299 // 2


def test_pairs_the_user_draws():
    A, prior = gaussian(20, 1), Curve()
    x1 = prior.generate(draw_latents(3, 100, 1, torch.float64)).detach()
    x2 = prior.generate(draw_latents(3, 100, 2, torch.float64)).detach()
    estimate = estimate_rec(A, prior, pairs=(x1, x2), looks=("secants",))
    ratios = ratio(A, x1 - x2)
    assert estimate.alpha == pytest.approx(float(ratios.min()), rel=1e-12)
    assert estimate.beta == pytest.approx(float(ratios.max()), rel=1e-12)
    assert estimate.confidence.n_pairs == 100 and estimate.histogram.total == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 1}, "points must be at least 2, got 1"),
        ({"epsilon": 1.0}, "epsilon must be between 0 and 1, got 1.0"),
        ({"looks": ("secant",)}, "looks must be some of"),
        ({"search_steps": 0}, "search_steps must be at least 1, got 0"),
        ({"z_true": torch.zeros(2, 5)}, "z_true must have shape"),
        ({"x_true": torch.zeros(2, 1, 3, 3)}, "x_true must have shape"),
        ({"latent_radius": -1.0}, "latent_radius must be .* got -1.0"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        estimate_rec(gaussian(20, 1), Curve(), **(SMALL | {"looks": ("secants",)} | changes))


def test_a_set_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"prior must have .*, got str"):
        estimate_rec(gaussian(20, 1), "mnist")


@pytest.mark.parametrize("shape", [(1, *SHAPE), (7,)])
def test_images_that_have_no_secant_are_refused(shape):
    with pytest.raises(ValueError, match="prior must hold at least two images, got shape"):
        estimate_rec(gaussian(20, 1), torch.ones(shape))


# ------------------------------------------------------------------- where there is little to find


def test_an_operator_that_sees_nothing_has_no_kappa():
    A = MatrixOperator(torch.zeros(3, 200, dtype=torch.float64), SHAPE)
    z_true = testing.normal(2, 3)
    for S in (Curve(), testing.random_affine_set(SHAPE, 3), Curve().generate(z_true).detach()):
        known = {} if isinstance(S, torch.Tensor) else {"z_true": z_true}
        estimate = estimate_rec(A, S, **SMALL, **known)
        assert estimate.alpha == estimate.beta == 0 and np.isnan(estimate.kappa)
        assert estimate.status == "κ = β/α has no value: A maps every direction looked at to 0"
        assert str(estimate)


def test_fewer_measurements_than_tangents_make_alpha_zero_for_certain():
    """m = 2 and k = 3: A maps a tangent at every point to 0."""
    A, z_true = gaussian(2, 0), testing.normal(2, 3)
    estimate = estimate_rec(A, Curve(), z_true=z_true, **SMALL)
    for look in (estimate.looks["tangents"], estimate.looks["search"], estimate):
        assert look.alpha == 0 and look.kappa == np.inf
    assert (estimate.pointwise.alpha == 0).all()
    assert "certain" in estimate.status and "certain" in estimate.looks["tangents"].status
    assert estimate.looks["secants"].alpha > 0  # of what it saw, with a gap to 0
    exact = estimate_rec(A, testing.random_affine_set(SHAPE, 3), looks=())
    assert exact.alpha == 0 and exact.kappa == np.inf
    # As many measurements as dimensions: nothing is certain.
    assert estimate_rec(gaussian(3, 0), Curve(), **SMALL).alpha > 0


class Constant(Curve):
    def generate(self, z):
        return super().generate(0 * z) + 1


class Unmoved(Curve):
    """Constant, and no function of z for autograd either."""

    def generate(self, z):
        return torch.full((len(z), *SHAPE), 0.3, dtype=z.dtype)


class Broken(Curve):
    def generate(self, z):
        return super().generate(z).where(z[:, :1, None, None] < 1, torch.nan)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (Constant(), r"looks must find a direction of the set \(prior\), got none"),
        (Unmoved(), r"looks must find a direction of the set \(prior\), got none"),
        (Broken(), r"prior must generate finite images, got NaN or infinity in \d+ of 300"),
        (torch.ones(5, *SHAPE), "looks must find a direction"),
        (torch.ones(1, *SHAPE), "prior must hold at least two images"),
        (torch.ones(0, *SHAPE), "prior must hold at least two images"),
        (torch.full((3, *SHAPE), torch.nan), "prior must be finite"),
        (FiniteSet(torch.ones(1, *SHAPE)), "prior must have at least two points"),
        (FiniteSet(torch.ones(4, *SHAPE)), "points must differ to form a secant"),
    ],
)
def test_a_set_without_directions_is_refused_in_words(prior, message):
    with pytest.raises(ValueError, match=message):
        estimate_rec(gaussian(5, 0), prior, **SMALL)


def test_measurements_that_are_no_numbers_are_refused():
    class Lost(Gaussian):
        def _forward(self, x):
            return super()._forward(x) * torch.nan

    A = Lost(SHAPE, 5, dtype=torch.float64)
    A.norm = lambda: 1.0
    for S in (Curve(), testing.random_affine_set(SHAPE, 3)):
        with pytest.raises(ValueError, match=r"A must give finite|A\(x\) must be finite"):
            estimate_rec(A, S, **SMALL)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"z_true": torch.zeros(0, 3)}, "z_true must have shape"),
        ({"x_true": torch.zeros(0, *SHAPE)}, "x_true must have shape"),
        ({"z_true": torch.full((1, 3), torch.nan)}, "z_true must be finite"),
        ({"x_true": torch.full((1, *SHAPE), torch.nan)}, "x_true must be finite"),
        ({"z_true": torch.zeros(1, 3), "x_true": torch.zeros(1, *SHAPE)}, "x_true must be None"),
    ],
)
def test_images_that_cannot_be_recovered_are_refused(known, message):
    with pytest.raises(ValueError, match=message):
        estimate_rec(gaussian(5, 0), Curve(), looks=("secants",), points=20, **known)


def test_a_set_without_a_generator_takes_no_latents():
    with pytest.raises(ValueError, match="z_true must be None"):
        estimate_rec(gaussian(5, 0), testing.normal(5, *SHAPE), z_true=torch.zeros(1, 3))


def test_no_look_leaves_nothing_but_exact_constants():
    with pytest.raises(ValueError, match="no look was asked for"):
        estimate_rec(gaussian(5, 0), Curve(), looks=(), points=5)


def test_exact_constants_of_directions_that_A_does_not_see_are_0():
    low_rank = testing.normal(40, 6, seed=1) @ testing.normal(6, 200, seed=2)
    affine = testing.random_affine_set(SHAPE, 8, seed=3)  # 8 dimensions, of which A sees 6
    x_true = affine.sample(2, seed=4)
    outside = x_true.double() + testing.normal(2, *SHAPE, seed=5)
    q = torch.linalg.qr(testing.normal(200, 200, seed=6))[0]
    twins = testing.normal(5, 200, seed=7)
    twins[1] = twins[0] + q[9]
    finite = FiniteSet(twins.reshape(-1, *SHAPE))
    for matrix, S, seen_from in (
        (low_rank, affine, x_true),
        (1e6 * low_rank, affine, outside),
        (q[:9], finite, finite.points[:2]),
    ):
        estimate = estimate_rec(MatrixOperator(matrix, SHAPE), S, x_true=seen_from, **SMALL)
        assert estimate.alpha == 0 and estimate.kappa == float("inf")
        assert (estimate.pointwise.alpha[:2] == 0).all()
        assert estimate.status == "κ ≥ 2: it is ∞ exactly"
    basis = torch.linalg.qr(affine.basis.double())[0]
    blind = MatrixOperator(torch.eye(200, dtype=torch.float64) - basis @ basis.T, SHAPE)
    estimate = estimate_rec(blind, affine, **SMALL)
    assert (estimate.alpha, estimate.beta) == (0, 0)
    assert estimate.status == "κ = β/α has no value: A maps every direction looked at to 0"
