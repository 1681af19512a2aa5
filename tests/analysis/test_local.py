"""Local rates: what the derivative at the point of rest foretells, runs do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
import npgd
from analysis import testing
from analysis.local.derivative import DIFFERENCES, FORWARD, derivative_of, pushed
from npgd.projectors import LatentRefinement

SHAPE = (1, 6, 6)
K = 3


def spectrum(pairs=(), real=(), mix=0.0, seed=0):
    """A matrix with eigenvalues ρ exp(±iφ) and real ones; `mix` makes it less normal."""
    blocks = [
        rho * torch.tensor([[math.cos(phi), -math.sin(phi)], [math.sin(phi), math.cos(phi)]])
        for rho, phi in pairs
    ] + [torch.tensor([[value]]) for value in real]
    diagonal = torch.block_diag(*[block.double() for block in blocks])
    shear = torch.eye(len(diagonal), dtype=torch.float64)
    shear += mix * testing.normal(*diagonal.shape, seed=seed).triu(1)
    return shear @ diagonal @ torch.linalg.inv(shear)


def affine_map(matrix, at, bend=0.0):
    """z̄ + M (z − z̄) + bend ‖z − z̄‖² in every coordinate."""
    return lambda z: at + (z - at) @ matrix.T + bend * (z - at).square().sum(1, keepdim=True)


def path(T, z, n):
    points = [z]
    for _ in range(n):
        points.append(T(points[-1]))
    return torch.stack(points)


class Smooth(torch.nn.Module):
    """A generator of curved images, with a linear encoder that is its derivative's inverse at 0."""

    latent_dim, image_shape = K, SHAPE

    def __init__(self, bend=0.3, seed=0):
        super().__init__()
        self.register_buffer("linear", testing.normal(36, K, seed=seed))
        self.register_buffer("curved", bend * testing.normal(36, K, seed=seed + 1))
        self.register_buffer("inverse", torch.linalg.pinv(self.linear))

    def generate(self, z):
        return (z @ self.linear.T + z.square() @ self.curved.T).reshape(-1, *SHAPE)

    def encode(self, w):
        return w.flatten(1) @ self.inverse.T

    def project(self, w):
        return self.generate(self.encode(w))


# Exact projection ---------------------------------------------------------------------------------


@settings(max_examples=15)
@given(A=testing.operators(SHAPE), seed=st.integers(0, 99), scale=st.floats(0.1, 1.9))
def test_on_an_affine_set_the_local_rate_is_that_of_every_run(A, seed, scale):
    S = testing.random_affine_set(SHAPE, K, seed)
    x = S.sample(2, seed=seed)
    alpha, beta = testing.exact_constants(A, S)
    step = scale / beta
    rate = analysis.local_rate(A, S, x, step)
    expected = max(abs(1 - step * alpha), abs(1 - step * beta))
    assert rate.rate.tolist() == pytest.approx([expected] * 2, abs=1e-9)
    assert rate.best_step_size.tolist() == pytest.approx([2 / (alpha + beta)] * 2, rel=1e-6)
    assert rate.best_rate.tolist() == pytest.approx([(beta - alpha) / (beta + alpha)] * 2, abs=1e-6)


@settings(max_examples=10)
@given(A=testing.operators(SHAPE), seed=st.integers(0, 99))
def test_noise_does_not_change_the_rate_on_an_affine_set(A, seed):
    S = testing.random_affine_set(SHAPE, K, seed)
    alpha, beta = testing.exact_constants(A, S)
    if alpha < 1e-3 * beta:
        return
    x = S.sample(2, seed=seed)
    y = A(x) + testing.normal(2, A.m, seed=seed)
    clean, noisy = (analysis.local_rate(A, S, x, 1 / beta, y=given) for given in (None, y))
    assert noisy.rate.tolist() == pytest.approx(clean.rate.tolist(), abs=1e-6)
    assert float(noisy.curvature.max()) < 1e-6
    assert float(noisy.residual.max()) < 1e-8


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_run_with_the_nearest_point_ends_at_the_local_rate(noise):
    S, A = Smooth(), npgd.Gaussian(SHAPE, 12, seed=1).double()
    z = testing.normal(3, K, seed=5)
    x = S.generate(z)
    y = A(x) + noise * testing.normal(3, 12, seed=6)
    step = 0.5 / float(A.norm()) ** 2
    rate = analysis.local_rate(A, S, x, step, y=y if noise else None, latents=z)
    assert (float(rate.curvature.max()) > 1e-4) == (noise > 0)
    start = S.generate(rate.latent + 1e-4)
    solver = npgd.NPGD(LatentRefinement(S, steps=6), step, start=start, max_iter=150, tol=1e-13)
    run = npgd.recover(A, y, solver, record_iterates=True)
    seen = analysis.run_rate(run.iterates)
    assert seen.rate.tolist() == pytest.approx(rate.rate.tolist(), abs=0.002)
    torch.testing.assert_close(run.x, S.generate(rate.latent), atol=1e-4, rtol=0)


class Circle:
    """The unit circle in the plane, by its angle."""

    latent_dim, image_shape = 1, (1, 1, 2)

    def generate(self, z):
        return torch.cat([z.cos(), z.sin()], 1).reshape(-1, 1, 1, 2)

    def encode(self, w):
        return torch.atan2(w[:, 0, 0, 1], w[:, 0, 0, 0])[:, None]


@pytest.mark.parametrize(("d", "eta"), [(1.0, 0.4), (1.5, 0.4), (6.0, 0.4), (9.0, 0.3)])
def test_the_run_of_the_nearest_point_follows_it_far_from_the_range_too(d, eta):
    from analysis.local.exact import nearest_run

    A = npgd.MatrixOperator(torch.eye(2, dtype=torch.float64), (1, 1, 2))
    z = torch.tensor([[0.3], [1.2]], dtype=torch.float64)
    y = d * Circle().generate(z).flatten(1)
    run = nearest_run(A, Circle(), z + 1e-3, y, eta, 12)
    expected = (1 - eta) / (1 + eta * (d - 1))
    assert ((run[4] - z) / (run[3] - z)).flatten().tolist() == pytest.approx([expected] * 2, 1e-3)


class Bent:
    """The graph of |z|, whose nearest point to what lies below is its kink."""

    latent_dim, image_shape = 1, (1, 1, 2)

    def generate(self, z):
        return torch.cat([z, z.abs()], 1).reshape(-1, 1, 1, 2)


def test_a_run_whose_nearest_point_is_a_kink_has_no_rate():
    from analysis.local.exact import nearest_run

    A = npgd.MatrixOperator(torch.eye(2, dtype=torch.float64), (1, 1, 2))
    y = torch.tensor([[0.0, -1.0], [1.0, 1.2]], dtype=torch.float64)  # by the kink; by a side
    start = torch.tensor([[1e-4], [1.1 + 1e-4]], dtype=torch.float64)
    run = nearest_run(A, Bent(), start, y, 0.5, 12)
    assert torch.equal(run[:, 0], start[0].expand(len(run), 1))
    rates = analysis.run_rate(run).rate
    assert bool(rates[0].isnan()) and float(rates[1]) == pytest.approx(0.5, abs=1e-6)


def test_curvature_moves_the_rate_as_a_circle_says():
    # On the unit circle, with A the identity and y outside it at distance d from the centre, the
    # nearest point's derivative is 1/(1 + r) of the tangential part, w = x + r x: r = η(d − 1).
    A = npgd.MatrixOperator(torch.eye(2, dtype=torch.float64), (1, 1, 2))
    z = torch.tensor([[0.3], [1.2]], dtype=torch.float64)
    for d, eta in ((1.5, 0.4), (3.0, 0.25), (0.8, 0.9)):
        y = d * Circle().generate(z).flatten(1)
        exact = analysis.local_rate(A, Circle(), Circle().generate(z), eta, y=y, latents=z)
        expected = (1 - eta) / (1 + eta * (d - 1))
        assert exact.rate.tolist() == pytest.approx([expected] * 2, abs=1e-9)
        here = analysis.fixed_point(A, Circle(), y, eta)  # its encoder is the nearest point
        assert here.rate.tolist() == pytest.approx([expected] * 2, abs=1e-9)


def test_a_point_that_is_not_the_nearest_is_no_point_of_rest():
    class Valley:  # y lies beyond the centre of curvature of a parabola
        latent_dim, image_shape = 1, (1, 1, 2)

        def generate(self, z):
            return torch.cat([z, z.square()], 1).reshape(-1, 1, 1, 2)

    A = npgd.MatrixOperator(torch.eye(2, dtype=torch.float64), (1, 1, 2))
    y = torch.tensor([[0.0, 3.0]], dtype=torch.float64)
    z = torch.zeros(1, 1, dtype=torch.float64)
    from analysis.local.exact import _local, _Tangents

    part = _Tangents.at(A, Valley(), z, y)
    local = _local([part], z, 0.9, 1)
    assert bool(local.rate.isnan().all())
    assert "nearest point" in local.status


def test_more_tangents_than_measurements_do_not_attract():
    S = testing.random_affine_set(SHAPE, 5)
    A = npgd.Gaussian(SHAPE, 3).double()
    rate = analysis.local_rate(A, S, S.sample(2, seed=0), 0.1)
    assert rate.rate.tolist() == pytest.approx([1.0, 1.0], abs=1e-9)
    assert not float(rate.best_rate.min()) < 1 - 1e-9
    assert "1 or more" in rate.status or "no run" in rate.status or "2" in rate.status


# Fixed points -------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    rho=st.floats(0.2, 0.95), phi=st.floats(0.2, 3.0), mix=st.floats(0, 2), seed=st.integers(0, 99)
)
def test_a_complex_pair_gives_modulus_and_period(rho, phi, mix, seed):
    M = spectrum([(rho, phi)], [0.15, -0.1], mix, seed)
    at = testing.normal(2, 4, seed=seed)
    T = affine_map(M, at, bend=0.01)
    rest = analysis.fixed_point_of(T, at + 0.05 * testing.normal(2, 4, seed=seed + 1))
    assert bool(rest.rests.all())
    assert rest.outcomes == ("at rest", "at rest")
    assert rest.derivative == FORWARD
    torch.testing.assert_close(rest.point, at, atol=1e-8, rtol=0)
    assert rest.rate.tolist() == pytest.approx([rho] * 2, abs=1e-6)
    assert rest.period.tolist() == pytest.approx([2 * math.pi / phi] * 2, rel=1e-4)
    assert rest.eigenvalue.imag.min() > 0


def test_a_negative_eigenvalue_swings_every_second_step_and_a_positive_one_not():
    at = testing.normal(1, 3)
    rests = [
        analysis.fixed_point_of(affine_map(spectrum(real=real, mix=1.0), at), at + 0.1)
        for real in ((-0.7, 0.2, 0.1), (0.7, 0.2, -0.1))
    ]
    assert [float(rest.rate) for rest in rests] == pytest.approx([0.7, 0.7])
    assert float(rests[0].period) == pytest.approx(2)
    assert math.isnan(float(rests[1].period))


def test_of_a_map_without_fixed_point_none_is_claimed():
    moves = analysis.fixed_point_of(lambda z: z + 1.0, torch.zeros(2, 3).double(), max_iter=40)
    assert not bool(moves.found.any()) and not bool(moves.rests.any())
    assert bool(moves.rate.isnan().all())
    assert "without a fixed point" in moves.status


def test_a_map_that_diverges_is_said_to():
    grows = analysis.fixed_point_of(lambda z: 3 * z + z**3 + 1, torch.ones(2, 3).double())
    assert grows.outcomes == ("diverged", "diverged")
    assert not bool(grows.rests.any())
    assert "diverge" in grows.status


def test_a_repelling_point_is_found_and_its_run_circles():
    # The linear part grows by 1.1 a step; the cube holds it on a circle around 0.5.
    M = spectrum([(1.1, 0.7)])
    at = torch.full((1, 2), 0.5, dtype=torch.float64)

    def T(z):
        e = z - at
        return at + (e @ M.T) * (1 - e.square().sum(1, keepdim=True))

    rest = analysis.fixed_point_of(T, at + 0.05, max_iter=300)
    assert bool(rest.found.all()) and not bool(rest.rests.any())
    torch.testing.assert_close(rest.point, at, atol=1e-8, rtol=0)
    assert float(rest.rate) == pytest.approx(1.1)
    assert rest.outcomes == ("around a point that repels",)


def test_a_cycle_beside_a_point_that_attracts_is_not_at_rest():
    # T is odd, 0 attracts with 0.5, and the run from 2 alternates between 2 and −2.
    def T(z):
        return -z * torch.where(z.abs() < 1, 0.5, 1.0)

    start = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    rest = analysis.fixed_point_of(T, start, max_iter=51)
    assert rest.rests.tolist() == [False, True]
    assert rest.outcomes[0] == "away from a point that attracts"
    assert rest.rate.tolist() == pytest.approx([0.5, 0.5])


def test_a_slow_run_on_its_way_counts_as_one_that_rests():
    at = testing.normal(2, 3)
    slow = analysis.fixed_point_of(
        affine_map(spectrum(real=(0.999, 0.5, 0.1)), at), at + 1.0, max_iter=100
    )
    assert slow.outcomes == ("on its way to a point that attracts",) * 2
    assert bool(slow.rests.all())
    assert slow.rate.tolist() == pytest.approx([0.999] * 2)


def test_rows_of_a_batch_have_their_own_outcomes():
    factor = torch.tensor([[0.5], [3.0], [-0.9]], dtype=torch.float64)
    rest = analysis.fixed_point_of(lambda z: factor * z + 1, torch.ones(3, 2).double())
    assert rest.rests.tolist() == [True, False, True]
    assert rest.rate[[0, 2]].tolist() == pytest.approx([0.5, 0.9])


def test_beyond_dense_dimensions_arnoldi_agrees_with_the_whole_derivative(monkeypatch):
    dims = 60
    M = spectrum([(0.9, 0.8)], np.linspace(-0.7, 0.75, dims - 2).tolist(), 0.1)
    at = testing.normal(2, dims)
    T = affine_map(M, at, bend=1e-4)
    dense = analysis.fixed_point_of(T, at + 0.1)
    monkeypatch.setattr("analysis.local.rest.DENSE", 10)
    free = analysis.fixed_point_of(T, at + 0.1)
    assert dense.jacobian is not None and free.jacobian is None
    torch.testing.assert_close(free.eigenvalue, dense.eigenvalue, atol=1e-6, rtol=0)
    assert float(free.eigenvalue_residual.max()) < 1e-5
    assert "Arnoldi" in str(free)


def test_images_of_any_shape_rest_too():
    images = testing.random_images((1, 4, 4), 2)
    rest = analysis.fixed_point_of(lambda x: 0.5 * x.flip(3) + 0.1 * x.sin(), images)
    assert bool(rest.rests.all())
    assert rest.rate.tolist() == pytest.approx([0.6, 0.6], abs=1e-6)


def test_the_latent_map_is_npgd():
    S, A = testing.random_prior((1, 8, 8), 3), npgd.Gaussian((1, 8, 8), 20).double()
    y = A(S.sample(2, seed=1))
    rest = analysis.fixed_point(A, S, y, 0.3)
    run = npgd.recover(A, y, npgd.NPGD(S, 0.3, max_iter=400, tol=1e-13))
    assert bool(rest.rests.all())
    torch.testing.assert_close(run.x, rest.image, atol=1e-6, rtol=1e-6)


def test_the_spectral_radius_is_the_rate_of_the_run():
    S, A = Smooth(0.1), npgd.Gaussian(SHAPE, 20, seed=3).double()
    y = A(S.generate(0.3 * testing.normal(4, K)))
    step = 0.5 / float(A.norm()) ** 2
    rest = analysis.fixed_point(A, S, y, step)
    run = npgd.recover(A, y, npgd.NPGD(S, step, max_iter=300, tol=1e-14), record_iterates=True)
    assert bool(rest.rests.all())
    seen = analysis.run_rate(run.iterates[1:])
    assert seen.rate.tolist() == pytest.approx(rest.rate.tolist(), abs=1e-3)


@settings(max_examples=10)
@given(A=testing.operators(SHAPE), seed=st.integers(0, 99))
def test_on_an_affine_set_this_projector_is_the_exact_one(A, seed):
    S = testing.random_affine_set(SHAPE, K, seed)
    alpha, beta = testing.exact_constants(A, S)
    if alpha < 0.02 * beta:
        return
    x = S.sample(2, seed=seed)
    exact = analysis.local_rate(A, S, x, 1 / beta)
    here = analysis.fixed_point(A, S, A(x), 1 / beta)
    assert here.rate.tolist() == pytest.approx(exact.rate.tolist(), abs=1e-6)
    assert here.best_rate.tolist() == pytest.approx(exact.best_rate.tolist(), abs=1e-3)


@pytest.mark.slow
def test_a_shipped_prior_ends_at_its_spectral_radius():
    prior = npgd.load_prior("mnist", dtype=torch.float64)
    A = npgd.Gaussian(prior.image_shape, 200, seed=0).double()
    y = A(prior.sample(4, seed=5))
    rest = analysis.fixed_point(A, prior, y, 0.7)
    solver = npgd.NPGD(prior, 0.7, max_iter=200, tol=1e-13)
    seen = analysis.run_rate(npgd.recover(A, y, solver, record_iterates=True).iterates[1:])
    assert bool(rest.rests.any())
    off = (seen.rate - rest.rate)[rest.rests].abs()
    assert float(off.max()) <= 0.01


# Derivatives --------------------------------------------------------------------------------------


def test_what_forward_mode_cannot_see_is_differentiated_by_differences():
    def numpy_sine(z):
        return torch.from_numpy(np.sin(z.detach().numpy()))

    z = testing.normal(2, 3)
    u = testing.normal(2, 2, 3, seed=1)
    assert derivative_of(numpy_sine, z) == DIFFERENCES
    torch.testing.assert_close(
        pushed(numpy_sine, z, u, DIFFERENCES), u * z.cos(), atol=1e-8, rtol=0
    )
    rest = analysis.fixed_point_of(lambda z: 0.5 * numpy_sine(z) + 0.2, z)
    assert rest.derivative == DIFFERENCES
    assert "central differences" in str(rest)
    assert rest.rate.tolist() == pytest.approx((0.5 * rest.point.cos()).amax(1).tolist(), abs=1e-7)
    assert derivative_of(torch.sin, z) == FORWARD
    torch.testing.assert_close(pushed(torch.sin, z, u, FORWARD), u * z.cos())


def test_a_slice_of_a_fixed_point_is_that_of_its_images():
    at = torch.tensor([[1.0, 2.0, 3.0]]).double()
    matrix = spectrum(real=[0.5, 0.3, 0.1])
    x0 = at + testing.normal(4, K, seed=2)
    whole = analysis.fixed_point_of(affine_map(matrix, at, bend=1e-3), x0)
    part = whole[1:3]
    alone = analysis.fixed_point_of(affine_map(matrix, at, bend=1e-3), x0[1:3])
    assert part.outcomes == alone.outcomes and len(part.n_iter) == 2
    for name in ("point", "rate", "residual", "jacobian", "found"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name)[1:3], rtol=0, atol=0)
    assert (part.derivative, part.tol, part.step_size) == (whole.derivative, whole.tol, None)
    assert "both images" in part.status
    with pytest.raises(TypeError, match=r"images must be a slice such as rest\[:3\], got 1"):
        whole[1]


def test_a_refined_projector_has_a_fixed_point_too():
    S, A = LatentRefinement(Smooth(0.1), steps=5), npgd.Gaussian(SHAPE, 20, seed=3).double()
    z = 0.3 * testing.normal(2, K)
    x = S.generate(z)
    step = 0.5 / float(A.norm()) ** 2
    rest = analysis.fixed_point(A, S, A(x), step, max_iter=200)
    exact = analysis.local_rate(A, S, x, step, latents=z)
    assert rest.rate.tolist() == pytest.approx(exact.rate.tolist(), abs=1e-3)


def test_shipped_encoders_are_differentiated_by_forward_mode():
    prior = npgd.load_prior("mnist", dtype=torch.float64)
    w = prior.sample(2, seed=0)
    assert derivative_of(prior.encode, w) == FORWARD


# Runs ---------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    rho=st.floats(0.3, 0.95), phi=st.floats(0.1, 3.0), gap=st.floats(0.7, 0.97),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_run_shows_its_leading_eigenvalue_and_swing(rho, phi, gap, seed):
    M = spectrum([(rho, phi)], [gap * rho, -gap * rho], 0.3, seed)
    at = testing.normal(1, 4, seed=seed)
    run = path(affine_map(M, at), at + testing.normal(1, 4, seed=seed + 1), 600)
    seen = analysis.run_rate(run)
    assert float(seen.rate) == pytest.approx(rho, abs=2e-3)
    assert float(seen.period) == pytest.approx(2 * math.pi / phi, rel=2e-3)


def test_a_run_that_does_not_end_linearly_has_no_rate():
    noise = testing.normal(40, 2, 5)
    seen = analysis.run_rate(noise)
    assert bool(seen.rate.isnan().all())
    assert "no run" in str(seen)


# Doors and words ----------------------------------------------------------------------------------


def test_results_print_briefly_and_convert():
    S, A = Smooth(0.1), npgd.Gaussian(SHAPE, 20, seed=3).double()
    x = S.generate(0.3 * testing.normal(2, K))
    step = 0.5 / float(A.norm()) ** 2
    for result in (
        analysis.local_rate(A, S, x, step),
        analysis.fixed_point(A, S, A(x), step),
    ):
        assert len(str(result).splitlines()) <= 20
        assert result.status in str(result)
        kept = result.to_dict()
        assert kept["status"] == result.status
        assert len(kept["rate"]) == 2


def test_wrong_arguments_are_named():
    S, A = Smooth(), npgd.Gaussian(SHAPE, 5).double()
    x, y = S.generate(testing.normal(2, K)), testing.normal(2, 5)
    for call, word in (
        (lambda: analysis.local_rate(A, S, x, 0.0), "step_size"),
        (lambda: analysis.local_rate(A, S, x[:, :, 1:], 0.1), "images"),
        (lambda: analysis.local_rate(A, S, x, 0.1, y=y[:1]), "y"),
        (lambda: analysis.fixed_point(A, S, y[:, 1:], 0.1), "y"),
        (lambda: analysis.fixed_point(A, S, y, 0.1, start=torch.zeros(1, K).double()), "start"),
        (lambda: analysis.fixed_point_of(lambda z: z[:, :1], y), "T"),
        (lambda: analysis.run_rate(y), "iterates"),
    ):
        with pytest.raises(ValueError, match=word):
            call()
    with pytest.raises(TypeError, match="encode"):
        analysis.fixed_point(A, object(), y, 0.1)
