"""Message passing recovers what state evolution says it does, and stays bounded elsewhere."""

import math

import pytest
import torch

from analysis.testing import normal, random_affine_set, random_images, random_operator, random_prior
from npgd.operators import Gaussian, LinearOperator, MatrixOperator
from npgd.solvers import AMP, recover
from npgd.solvers.amp import column_norm, orthonormal_rows

DOUBLE = torch.float64
SHAPE = (1, 8, 8)


class Opaque(LinearOperator):
    """A matrix that nobody can look into: products only."""

    def __init__(self, matrix, image_shape=SHAPE):
        super().__init__(image_shape, len(matrix))
        self._matrix = matrix

    def _forward(self, x):
        return x.flatten(1) @ self._matrix.T

    def _adjoint(self, y):
        return (y @ self._matrix).reshape(-1, *self.image_shape)


def gaussian(m, seed=0, image_shape=SHAPE):
    return Gaussian(image_shape, m, seed=seed, dtype=DOUBLE)


@pytest.mark.parametrize("divergence", ["probe", "latent"])
def test_points_of_an_affine_set_are_recovered(divergence):
    S = random_affine_set(SHAPE, 3)
    x = S.sample(5, seed=1)
    A = gaussian(40)
    solver = AMP(S, max_iter=200, tol=1e-12, divergence=divergence)
    solution = recover(A, A(x), solver, x_true=x)
    assert solution.error[-1].max() <= 1e-18
    assert set(solution.outcomes) == {"converged"}
    assert solution.info["divergence"] == pytest.approx(3)
    assert solution.info["clipped"] == 0


def test_the_message_carries_the_last_one():
    """r_{t+1} = y − A x_{t+1} + (div/m) r_t, here with div = k."""
    S, A = random_affine_set(SHAPE, 3), gaussian(40)
    y = A(S.sample(2, seed=1))
    solver, c = AMP(S), column_norm(A, y)
    state = solver.step(A, y, solver.init(A, y))
    assert torch.allclose(state.x, S.project(A.adjoint(y) / c**2))
    assert torch.allclose(state.message, y - A(state.x) + 3 / 40 * y)
    assert torch.allclose(state.residual, A(state.x) - y)


def test_at_rest_it_is_npgd_at_rest_with_a_step_of_its_own():
    """r = (y − A x)/(1 − div/m) there: x = P(x − η Aᵀ(A x − y)), η = 1/(1 − div/m)."""
    prior, A = random_prior(SHAPE, 3), gaussian(45)
    y = A(random_images(SHAPE, 3))
    solver = AMP(prior, max_iter=500, tol=1e-13, divergence="latent")
    state = solver.init(A, y)
    for _ in range(500):
        state = solver.step(A, y, state)
    eta = 1 / (1 - state.divergence / 45) / state.scale**2
    w = state.x - eta[:, None, None, None] * A.adjoint(A(state.x) - y)
    assert torch.allclose(prior.project(w), state.x, atol=1e-8)


def test_the_scale_of_the_operator_changes_nothing():
    prior, A = random_prior(SHAPE, 3), gaussian(30)
    x = prior.sample(4, seed=1)
    tenfold = MatrixOperator(10 * A.matrix, SHAPE)
    one = recover(A, A(x), AMP(prior, tol=0))
    other = recover(tenfold, tenfold(x), AMP(prior, tol=0))
    assert torch.allclose(one.x, other.x, atol=1e-10)
    assert other.info["column_norm"] == pytest.approx(10 * one.info["column_norm"])


def test_the_norm_of_columns_is_measured_from_products_too():
    matrix = normal(50, 64) / 3
    exact = float(matrix.square().sum() / 64) ** 0.5
    assert column_norm(MatrixOperator(matrix, SHAPE), matrix) == pytest.approx(exact)
    assert column_norm(Opaque(matrix), matrix) == pytest.approx(exact, rel=0.1)
    with pytest.raises(ValueError, match="A must differ from zero for AMP"):
        column_norm(MatrixOperator(0 * matrix, SHAPE), matrix)


def test_images_of_a_batch_do_not_meet():
    prior, A = random_prior(SHAPE, 3), gaussian(20)
    y = A(random_images(SHAPE, 6))
    whole = recover(A, y, AMP(prior, tol=0, divergence="latent")).x
    parts = [recover(A, part, AMP(prior, tol=0, divergence="latent")).x for part in y.split(2)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-10)


@pytest.mark.parametrize("m", [2, 3, 5])
def test_fewer_measurements_than_latents_stay_bounded(m):
    """div > m there: unclipped, r_t would grow by div/m each time."""
    S, A = random_affine_set(SHAPE, 6), gaussian(m)
    y = A(random_images(SHAPE, 4))
    solution = recover(A, y, AMP(S, max_iter=60))
    assert solution.x.isfinite().all()
    assert "diverged" not in solution.outcomes
    assert solution.info["clipped"] == 4


def test_orthonormal_rows_are_told_from_products():
    matrix = torch.linalg.qr(normal(64, 20))[0].T.contiguous()
    for A in (MatrixOperator(3 * matrix, SHAPE), Opaque(matrix), random_operator("dct", SHAPE, 9)):
        scale = column_norm(A, matrix)
        assert orthonormal_rows(A, scale, matrix)
        assert scale**2 == pytest.approx(A.norm() ** 2 * A.m / 64)
    assert not orthonormal_rows(gaussian(20), column_norm(gaussian(20), matrix), matrix)


def test_with_all_pixels_measured_one_projection_is_all():
    prior, A = random_prior(SHAPE, 3), MatrixOperator(torch.linalg.qr(normal(64, 64))[0], SHAPE)
    x = random_images(SHAPE, 3)
    assert torch.allclose(recover(A, A(x), AMP(prior)).x, prior.project(x), atol=1e-8)


@pytest.mark.parametrize("kind", ["mask", "super-resolution", "dct", "scipy"])
def test_other_operators_run(kind):
    A = random_operator(kind, SHAPE, 20)
    prior = random_prior(SHAPE, 3)
    solution = recover(A, A(prior.sample(3, seed=0)), AMP(prior))
    assert solution.x.isfinite().all()


def test_a_denoiser_is_told_one_level_for_each_image():
    seen = []

    def soft(w, sigma):
        seen.append(sigma)
        return w.sign() * (w.abs() - 1.1 * sigma.reshape(-1, 1, 1, 1)).clamp_min(0)

    A = gaussian(40)
    y = A(random_images(SHAPE, 3))
    recover(A, y, AMP(soft, max_iter=1))
    assert seen[0].tolist() == pytest.approx((y.norm(dim=1) / math.sqrt(40)).tolist(), rel=0.2)


SPARSE = (1, 40, 50)


def soft_threshold(w, sigma):
    """At 1.14 σ, the minimax threshold where a tenth of the entries is not zero."""
    return w.sign() * (w.abs() - 1.14 * sigma.reshape(-1, 1, 1, 1)).clamp_min(0)


def sparse_signs(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(count, 2000, dtype=DOUBLE)
    for row in x:
        at = torch.randperm(2000, generator=generator)[:200]
        row[at] = 2.0 * torch.randint(2, (200,), generator=generator).double() - 1
    return x.reshape(count, *SPARSE)


def test_soft_thresholding_succeeds_above_the_published_transition_and_fails_below():
    """Donoho, Maleki, Montanari 2009: at ε = 0.1 it is m/n = 0.33 (see test_evolution)."""
    x, errors = sparse_signs(3), {}
    for m in (560, 760):
        A = gaussian(m, image_shape=SPARSE)
        solution = recover(A, A(x), AMP(soft_threshold, max_iter=300, tol=1e-9), x_true=x)
        errors[m] = solution.error[-1]
    assert errors[760].max() <= 1e-8
    assert errors[560].min() >= 1e-3
