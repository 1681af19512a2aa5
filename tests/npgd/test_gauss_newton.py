"""Gauss–Newton over latents, and what is built on it: exact where G is affine, never worse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import npgd
from analysis.testing import normal, random_affine_set
from npgd import NPGD, Gaussian, LatentRefinement
from npgd.gauss_newton import gauss_newton_step

SHAPE = (1, 5, 6)


class Wavy(nn.Module):
    """A smooth curved generator with an encoder that is off: G(z) = sin(B z + c)."""

    def __init__(self, seed: int, k: int = 4) -> None:
        super().__init__()
        self.latent_dim, self.image_shape = k, SHAPE
        self.basis = nn.Parameter(normal(k, 30, seed=seed) / 3)
        self.back = nn.Parameter(normal(30, k, seed=seed + 10**7) / 6)

    def generate(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sin(z @ self.basis + 0.3).reshape(-1, *SHAPE)

    def encode(self, w: torch.Tensor) -> torch.Tensor:
        return w.flatten(1) @ self.back

    def project(self, w: torch.Tensor) -> torch.Tensor:
        return self.generate(self.encode(w))


@given(seed=st.integers(0, 10**6), m=st.integers(1, 20), penalty=st.sampled_from([0.0, 0.1, 2.0]))
@settings(max_examples=30, deadline=None)
def test_one_step_solves_the_affine_problem(seed, m, penalty):
    """min ‖A(Bz + c) − y‖² + λ‖z‖² is a ridge problem, which lstsq solves from scratch."""
    prior, A = random_affine_set(SHAPE, 4, seed), Gaussian(SHAPE, m, seed=seed, dtype=torch.float64)
    y, start = normal(3, m, seed=seed + 1), normal(3, 4, seed=seed + 2)
    z, x = gauss_newton_step(prior, start, y, A, penalty)
    assert torch.allclose(x, prior.generate(z))
    rows = A.matrix @ prior.basis
    ridge = torch.cat([rows, math.sqrt(penalty) * torch.eye(4, dtype=torch.float64)])
    goal = torch.cat([(y - A.matrix @ prior.offset).T, torch.zeros(4, 3, dtype=torch.float64)])
    best = torch.linalg.lstsq(ridge, goal, driver="gelsd").solution
    least = (ridge @ best - goal).square().sum(0)
    reached = (ridge @ z.T - goal).square().sum(0)
    begun = (ridge @ start.T - goal).square().sum(0)
    # The floor on the damping (1e-9 of the mean eigenvalue) and conditioning limit the rest.
    condition = float(torch.linalg.cond(ridge)) if m >= 4 or penalty else 1.0
    assert (reached - least <= 1e-12 * condition**4 * begun + 1e-15).all()


@given(seed=st.integers(0, 10**6), m=st.integers(2, 12), penalty=st.sampled_from([0.0, 0.5]))
@settings(max_examples=30, deadline=None)
def test_a_step_never_raises_the_objective(seed, m, penalty):
    prior, A = Wavy(seed), Gaussian(SHAPE, m, seed=seed, dtype=torch.float64)
    y, z = 3 * normal(5, m, seed=seed + 1), 2 * normal(5, 4, seed=seed + 2)

    def objective(z):
        return (A(prior.generate(z)) - y).square().sum(1) + penalty * z.square().sum(1)

    for _ in range(3):
        before = objective(z)
        z, _ = gauss_newton_step(prior, z, y, A, penalty)
        assert (objective(z) <= before * (1 + 1e-12)).all()


def test_steps_converge_quadratically_on_the_range():
    """Residual-free problems: the error's exponent about doubles with every step."""
    prior, A = Wavy(3), Gaussian(SHAPE, 12, seed=3, dtype=torch.float64)
    goal = 0.5 * normal(6, 4, seed=4)
    y, z = A(prior.generate(goal)), goal + 0.1 * normal(6, 4, seed=5)
    errors = []
    for _ in range(4):
        z, _ = gauss_newton_step(prior, z, y, A)
        errors.append(float((z - goal).norm()))
    assert errors[-1] < 1e-9 and errors[1] < errors[0] ** 1.5


def test_images_do_not_meet():
    prior, A = Wavy(1), Gaussian(SHAPE, 6, seed=1, dtype=torch.float64)
    y, z = normal(4, 6, seed=2), normal(4, 4, seed=3)
    together = gauss_newton_step(prior, z, y, A)[0]
    alone = torch.cat(
        [gauss_newton_step(prior, z[i : i + 1], y[i : i + 1], A)[0] for i in range(4)]
    )
    assert torch.allclose(together, alone, rtol=1e-10, atol=1e-12)


def test_refined_projection_is_exact_on_an_affine_set_and_never_farther():
    exact = random_affine_set(SHAPE, 4, 0)
    w = normal(8, *SHAPE, seed=1)
    assert torch.allclose(LatentRefinement(exact, steps=1).project(w), exact.project(w))
    curved = Wavy(2)
    with torch.no_grad():
        plain = (curved.project(w) - w).flatten(1).norm(dim=1)
    for steps in (1, 3):
        refined = (LatentRefinement(curved, steps).project(w) - w).flatten(1).norm(dim=1)
        assert (refined <= plain * (1 + 1e-12)).all()
        plain = refined


def test_npgd_refines_at_its_end():
    prior, A = Wavy(5), Gaussian(SHAPE, 10, seed=5, dtype=torch.float64)
    x = prior.generate(0.5 * normal(7, 4, seed=6)).detach()
    y = A(x)
    plain = npgd.recover(A, y, NPGD(prior, 0.3, max_iter=5), record_iterates=True)
    ended = npgd.recover(
        A,
        y,
        NPGD(prior, 0.3, max_iter=9, refine=4, refine_penalty=0.0),
        x_true=x,
        record_iterates=True,
    )
    assert torch.allclose(ended.iterates[:6], plain.iterates)
    assert (ended.objective[6:] <= ended.objective[5:-1] * (1 + 1e-9)).all()
    assert (ended.objective[-1] < 0.5 * plain.objective[-1]).all()


def test_npgd_at_rest_still_refines():
    """An exact projector comes to rest early; the refinement follows all the same."""
    prior = random_affine_set(SHAPE, 4, 8)
    A = npgd.MatrixOperator(torch.eye(30, dtype=torch.float64), SHAPE)
    y = normal(2, 30, seed=9)
    solution = npgd.recover(A, y, NPGD(prior, 1.0, max_iter=6, refine=2, refine_penalty=0.0))
    assert 4 >= solution.n_iter >= 3 and set(solution.outcomes) <= {"converged", "settled"}
    assert torch.allclose(solution.x, prior.project(y.reshape(-1, *SHAPE)))


def test_what_does_not_fit_is_named():
    points = npgd.FiniteSet(normal(3, *SHAPE, seed=0))
    with pytest.raises(TypeError, match="`encode` for refine"):
        NPGD(points, 0.5, refine=1)
    with pytest.raises(ValueError, match="refine must be below max_iter = 30"):
        NPGD(random_affine_set(SHAPE, 4, 0), 0.5, refine=30)
    with pytest.raises(ValueError, match="refine_penalty must be finite and not negative"):
        NPGD(random_affine_set(SHAPE, 4, 0), 0.5, refine=1, refine_penalty=-1.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        LatentRefinement(random_affine_set(SHAPE, 4, 0), steps=0)
    with pytest.raises(TypeError, match="`generate`"):
        LatentRefinement(points)
