"""δ_x, where it can be known, and its one-sidedness where it cannot."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import projection, testing
from analysis.testing import normal
from npgd.operators import MatrixOperator
from npgd.priors import GenerativePrior, load_prior
from npgd.projectors import FiniteSet, LatentSearch

SHAPE = (1, 4, 5)
SIZE = math.prod(SHAPE)
K = 3
few = settings(deadline=None, max_examples=30)


def network(seed: int) -> GenerativePrior:
    """A smooth nonlinear generator, and an encoder that knows nothing of it."""
    return testing.random_prior(SHAPE, K, seed)


@few
@given(
    points=testing.images(SHAPE, scale=3.0),
    prior=testing.affine_sets(SHAPE),
    delta=st.floats(0, 10),
)
def test_known_error_of_a_displaced_projection(points, prior, delta):
    """P moved inside the set by √δ: by Pythagoras δ_x = δ at every point."""
    direction = math.sqrt(delta) * prior.orthonormal[:, 0].reshape(SHAPE)
    error = projection.projection_error(
        prior, points, projector=lambda w: prior.project(w) + direction
    )
    assert error.exact
    torch.testing.assert_close(
        error.deltas, torch.full_like(error.deltas, delta), rtol=1e-9, atol=1e-12
    )
    assert projection.projection_error(prior, points).delta <= 1e-12


@few
@given(
    points=testing.images(SHAPE, batch=12, scale=1.0),
    loose=testing.finite_sets(SHAPE, count=9, tie_tol=st.floats(0, 5)),
)
def test_error_of_a_finite_set_stays_within_its_ties(points, loose):
    error = projection.projection_error(
        FiniteSet(loose.points), {"anywhere": points, "in the set": loose.points}, projector=loose
    )
    assert error.exact
    assert (error.deltas >= 0).all() and error.delta <= loose.tie_tol + 1e-12
    assert set(error.families) == {"anywhere", "in the set"}


@few
@given(prior=testing.priors(SHAPE, latent_dim=K), points=testing.images(SHAPE, batch=4, scale=1.0))
def test_delta_is_one_sided(prior, points):
    """A better search never lowers δ_x, and none exceeds ‖x − P(x)‖²."""
    short, longer = (
        projection.projection_error(prior, points, starts=starts, steps=steps)
        for starts, steps in ((1, 0), (4, 60))
    )
    assert not longer.exact
    assert (short.deltas >= 0).all()
    assert (longer.deltas >= short.deltas - 1e-12).all()
    assert (longer.deltas <= longer.families["points"].achieved).all()
    assert "lower bound" in longer.status


def test_search_finds_the_exact_distance_to_an_affine_range():
    """The same set, once known to be affine and once only as a generator."""
    exact = testing.random_affine_set(SHAPE, K)

    class Hidden:
        latent_dim, image_shape = K, SHAPE
        generate, encode, project = exact.generate, exact.project, exact.project

    hidden = Hidden()
    hidden.encode = lambda w: w.new_zeros(len(w), K)
    points = testing.random_images(SHAPE, 5)
    searched = projection.nearest_in_range(hidden, points, starts=4, steps=600)
    known = projection.nearest_in_range(exact, points)
    assert known.exact.all() and not searched.exact.any()
    assert (searched.squared_distance >= known.squared_distance - 1e-12).all()
    torch.testing.assert_close(searched.squared_distance, known.squared_distance, rtol=1e-4, atol=0)
    torch.testing.assert_close(exact.generate(known.latent), known.image)


def test_a_search_is_measured_like_any_other_projector():
    prior = network(3)
    points = normal(3, *SHAPE)
    by_encoder = projection.projection_error(prior, points, starts=4, steps=60)
    by_search = projection.projection_error(
        LatentSearch(prior, starts=4, steps=30), points, starts=4, steps=60
    )
    assert (by_search.deltas >= 0).all()
    assert by_search.delta < by_encoder.delta


def test_points_of_the_range_are_not_searched_for():
    prior = network(0)
    points, known = projection.sample_families(prior, 5, sigmas=(0.1, 1.0), seed=3)
    assert len(points) == 3
    error = projection.projection_error(prior, points, known=known, starts=2, steps=5)
    samples = error.families["samples of S"]
    assert samples.exact and (samples.nearest == 0).all()
    for name, sigma in (("samples with noise σ = 0.1", 0.1), ("samples with noise σ = 1", 1.0)):
        noise = (points[name] - known[name]).flatten(1).square().sum(1)
        assert (error.families[name].nearest <= noise).all()
        assert 0.2 * sigma**2 < float(noise.mean()) / SIZE < 3 * sigma**2
    again, _ = projection.sample_families(prior, 5, sigmas=(0.1, 1.0), seed=3)
    assert all(torch.equal(points[name], again[name]) for name in points)


def test_a_known_point_sharpens_the_search():
    prior = network(1)
    clean = prior.sample(6, seed=0)
    noisy = clean + 0.01 * normal(*clean.shape)
    alone = projection.nearest_in_range(prior, noisy, starts=1, steps=0)
    helped = projection.nearest_in_range(prior, noisy, known=clean, starts=1, steps=0)
    assert (helped.squared_distance < alone.squared_distance).all()
    assert torch.equal(helped.image, clean) and helped.latent is None


@few
@given(prior=testing.priors(SHAPE, latent_dim=K), z=testing.images((1, 1, K), batch=3, scale=1.0))
def test_a_point_of_the_range_is_found_to_rounding(prior, z):
    """min ‖x − s‖² is 0 at x = G(z), and Gauss–Newton on a zero residual ends there."""
    x = prior.generate(z.flatten(1))
    found = projection.nearest_in_range(prior, x, starts=4, steps=60)
    size = x.flatten(1).square().sum(1)
    assert (found.squared_distance <= 1e-16 * size).all()
    assert found.latent is not None
    torch.testing.assert_close(prior.generate(found.latent), x, rtol=0, atol=1e-7)


def test_samples_of_the_default_prior_are_found():
    prior = load_prior("mnist")
    x = prior.sample(8, seed=5)
    found = projection.nearest_in_range(prior, x, starts=3, steps=100)
    assert (found.squared_distance < 1e-8 * x.flatten(1).square().sum(1)).all()


@few
@given(
    points=testing.images(SHAPE, batch=5, scale=1.0),
    loose=testing.finite_sets(SHAPE, count=9, tie_tol=st.floats(0.5, 5)),
)
def test_ties_do_not_hide_the_nearest_point(points, loose):
    """A finite set may choose among ties; its distance to x is still the least of all points'."""
    least = torch.cdist(
        points.flatten(1), loose.points.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    ).square().amin(1)  # fmt: skip
    found = projection.nearest_in_range(loose, points)
    torch.testing.assert_close(found.squared_distance, least)
    error = projection.projection_error(loose, points)
    chosen = (points - loose.project(points)).flatten(1).square().sum(1)
    torch.testing.assert_close(error.deltas, chosen - least, rtol=1e-9, atol=1e-12)


@few
@given(delta=st.floats(1e-3, 1e3))
def test_the_printed_delta_is_a_lower_bound(delta):
    """ "δ ≥ …" holds for the digits printed."""
    one = torch.ones(1, dtype=torch.float64)
    family = projection.FamilyError(achieved=delta * one, nearest=0 * one, exact=True)
    error = projection.ProjectionError({"points": family}, "exact projection", 0.0)
    assert float(error.status.split()[2]) <= delta
    assert float(error.status.split()[2]) >= 0.999 * delta


def test_rounding_is_no_error_of_the_projector():
    """δ of an exact projection is 0; what rounding leaves of it is not called a lower bound."""
    S = testing.random_affine_set(SHAPE, K)
    error = projection.projection_error(S, normal(20, *SHAPE))
    assert error.status.startswith("δ = 0 to rounding (at all 20 points")
    one = torch.ones(1, dtype=torch.float64)
    family = projection.FamilyError(achieved=one, nearest=one - 1e-9, exact=True)
    assert "δ ≥" in projection.ProjectionError({"points": family}, "", 0.0).status


def test_efforts_look_farther_and_farther():
    quick, default, thorough = (
        projection.ProjectionSettings.of(effort) for effort in ("quick", "default", "thorough")
    )
    assert default == projection.ProjectionSettings(24, 3, 100) == projection.ProjectionSettings()
    assert quick == projection.ProjectionSettings(8, 2, 40)
    assert thorough == projection.ProjectionSettings(96, 8, 300)
    for name in ("points", "starts", "steps"):
        assert getattr(quick, name) < getattr(default, name) < getattr(thorough, name)
    with pytest.raises(ValueError, match="effort must be one of"):
        projection.ProjectionSettings.of("lazy")
    for change, kind in (({"points": 0}, ValueError), ({"steps": 1.5}, TypeError)):
        with pytest.raises(kind, match=next(iter(change))):
            projection.ProjectionSettings(**change)


def test_gradient_points_are_the_solvers():
    A = MatrixOperator(normal(4, SIZE), SHAPE)
    iterates = normal(3, 2, *SHAPE, seed=1)
    y = normal(2, 4, seed=2)
    w = projection.gradient_points(A, y, iterates, 0.3)
    expected = iterates[1] - 0.3 * A.adjoint(A(iterates[1]) - y)
    assert w.shape == (2, 2, *SHAPE)
    torch.testing.assert_close(w[1], expected)


def test_result_prints_and_serialises():
    prior = network(2)
    points, known = projection.sample_families(prior, 4)
    error = projection.projection_error(prior, points, known=known, starts=2, steps=3)
    assert error.status in str(error) and "samples of S" in str(error)
    plain = json.loads(json.dumps(error.to_dict(), allow_nan=False))
    assert plain["delta"] == max(family["delta"] for family in plain["families"].values())
    assert plain["families"]["samples of S"]["points"] == 4


def test_quantiles_of_a_ladder_are_its_rungs():
    """δ_x = 0, 1, …, 20: the quartiles are 0, 5, 10, 15, 20, and 95 % lie below 19."""
    ladder = torch.arange(21, dtype=torch.float64)
    family = projection.FamilyError(achieved=ladder, nearest=0 * ladder, exact=True)
    quantiles = family.to_dict()["quantiles"]
    assert quantiles == pytest.approx(
        {"0.0": 0, "0.25": 5, "0.5": 10, "0.75": 15, "0.95": 19, "1.0": 20}
    )
    printed = str(projection.ProjectionError({"rungs": family}, "", 0.0))
    assert "rungs: 21 points, δ_x median 10, 5 to 95 % 1 to 19, largest 20" in printed


def test_arguments_are_examined():
    prior = network(0)
    x = prior.sample(2, seed=0)
    with pytest.raises(ValueError, match="points"):
        projection.projection_error(prior, {})
    with pytest.raises(ValueError, match="points"):
        projection.projection_error(prior, x.flatten(1))
    with pytest.raises(ValueError, match="known"):
        projection.projection_error(prior, {"a": x}, known={"b": x})
    with pytest.raises(ValueError, match="known"):
        projection.nearest_in_range(prior, x, known=x[:1])

    class Opaque:
        image_shape = SHAPE

        def project(self, w):
            return w

    with pytest.raises(TypeError, match="generate"):
        projection.projection_error(Opaque(), x)


def test_quasi_newton_steps_reach_what_gauss_newton_steps_do(monkeypatch):
    """Where a Jacobian is large, the search goes on without one."""
    prior = testing.random_prior((1, 6, 6), 3)
    x = prior.sample(4, seed=0) + 0.05 * testing.normal(4, 1, 6, 6)
    search = {"starts": 2, "steps": 20, "seed": 1}
    newton = projection.nearest_in_range(prior, x, **search).squared_distance
    calls = []
    descended = projection._descended
    monkeypatch.setattr(projection, "LARGE", 0)
    monkeypatch.setattr(projection, "_descended", lambda *a: calls.append(a) or descended(*a))
    found = projection.nearest_in_range(prior, x, **search).squared_distance
    assert calls
    torch.testing.assert_close(found, newton, rtol=1e-3, atol=1e-9)
