"""CSGM and PGD-GAN solve the problem they state, and the clock of `recover` tells their time."""

import time
from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from analysis.testing import normal, random_affine_set
from npgd.images import squared_norm
from npgd.operators import Gaussian, Inpainting
from npgd.priors import GenerativePrior
from npgd.projectors import AffineSet, LatentSearch
from npgd.solvers import CSGM, NPGD, PGDGAN, Solver, recover

DOUBLE = torch.float64
SHAPE = (1, 6, 6)
seeds = st.integers(0, 2**31)


def problem(seed=0, m=24, batch=3, k=3, noise=0.0):
    basis = torch.linalg.qr(normal(36, k, seed=seed))[0]  # orthonormal: Adam's steps feel it
    S = AffineSet(basis, normal(36, seed=seed + 1), SHAPE)
    A = Gaussian(SHAPE, m, seed, DOUBLE)
    x_true = S.sample(batch, seed=seed + 3)  # not the solvers' own start
    return A, S, x_true, A(x_true) + noise * normal(batch, m, seed=seed + 2)


class Bent(nn.Module):
    """A generator that is not convex to search in: sines of several frequencies."""

    def __init__(self, k=2):
        super().__init__()
        self.first, self.second = nn.Linear(k, 24), nn.Linear(24, 36)

    def forward(self, z):
        return torch.tanh(self.second(torch.sin(3 * self.first(z)))).reshape(-1, *SHAPE)


def bent(seed=0, k=2):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, k))
        return GenerativePrior(Bent(k), encoder, k, SHAPE).to(DOUBLE)


def least_squares(A, S, y, penalty=0.0):
    """argmin_z ‖A(B z + c) − y‖² + λ‖z‖², from its normal equations."""
    M, rhs = A.matrix @ S.basis, y - S.offset @ A.matrix.T
    gram = M.T @ M + penalty * torch.eye(M.shape[1], dtype=DOUBLE)
    return S.generate(torch.linalg.solve(gram, M.T @ rhs.T).T)


@settings(deadline=None, max_examples=5)
@given(seed=seeds, k=st.integers(1, 5), noise=st.sampled_from([0.0, 0.3]))
def test_csgm_is_least_squares_on_an_affine_set(seed, k, noise):
    A, S, _, y = problem(seed, k=k, noise=noise)
    expected = least_squares(A, S, y)
    solution = recover(A, y, CSGM(S, 2, 0.1, penalty=0.0))
    torch.testing.assert_close(solution.x, expected, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=5)
@given(seed=seeds, penalty=st.floats(0.01, 3))
@example(seed=999, penalty=1.875)
def test_csgm_descends_to_the_penalised_minimum(seed, penalty):
    """The best image by measurement error is another one: the searches themselves must get there.

    They need not stay: at a constant rate Adam leaves a minimum now and then, and comes back.
    """
    A, S, _, y = problem(seed, noise=0.3)
    solver = CSGM(S, 2, 0.1, penalty)
    expected = least_squares(A, S, y, penalty).expand(2, 3, *SHAPE)
    state, nearest = solver.init(A, y), torch.full((2, 3), torch.inf, dtype=DOUBLE)
    for _ in range(1000):
        state = solver.step(A, y, state)
        found = S.generate(state.adam.z.flatten(0, 1)).reshape(expected.shape)
        nearest = torch.minimum(nearest, (found - expected).abs().amax((2, 3, 4)))
    assert bool((nearest <= 1e-6).all())
    assert bool((squared_norm(A(state.x) - y) <= squared_norm(A(expected[0]) - y) + 1e-9).all())


@settings(deadline=None, max_examples=4)
@given(seed=seeds, k=st.integers(1, 4), noise=st.sampled_from([0.0, 0.3]))
def test_pgdgan_is_least_squares_on_an_affine_set(seed, k, noise):
    """M = A B contracts best at η = 2/(λ₁ + λ_k) of MᵀM; 150 inner steps nearly solve theirs."""
    A, S, _, y = problem(seed, k=k, noise=noise)
    values = torch.linalg.eigvalsh((A.matrix @ S.basis).T @ (A.matrix @ S.basis))
    step = 2 / float(values[0] + values[-1])
    solver = PGDGAN(S, step, inner=150, learning_rate=0.03, penalty=0.0, max_iter=60)
    solution = recover(A, y, solver)
    torch.testing.assert_close(solution.x, least_squares(A, S, y), rtol=0, atol=2e-4)


def test_pgdgan_takes_the_step_it_states():
    """With many inner steps, one iteration is argmin_z ‖w − G(z)‖²/n + λ‖z‖² in closed form."""
    A, S, _, y = problem(noise=0.1)
    penalty = 0.01
    solver = PGDGAN(S, 0.5, inner=1500, learning_rate=0.05, penalty=penalty)
    state = solver.init(A, y)
    assert not bool(state.x.any())
    for _ in range(2):
        w = (state.x - 0.5 * A.adjoint(A(state.x) - y)).flatten(1)
        state = solver.step(A, y, state)
        gram = S.basis.T @ S.basis + 36 * penalty * torch.eye(3, dtype=DOUBLE)
        z = torch.linalg.solve(gram, S.basis.T @ (w - S.offset).T).T
        torch.testing.assert_close(state.z, z, rtol=0, atol=1e-7)
        torch.testing.assert_close(state.x, S.generate(state.z))
        torch.testing.assert_close(state.residual, A(state.x) - y)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), penalty=st.sampled_from([0.0, 0.1]))
def test_the_objective_of_csgm_never_rises(seed, penalty):
    prior, A = bent(seed), Gaussian(SHAPE, 8, seed, DOUBLE)
    y = normal(3, 8, seed=seed)
    solution = recover(
        A,
        y,
        CSGM(prior, 3, 0.3, penalty, max_iter=40),
        x_true=normal(3, *SHAPE),
        record_iterates=True,
    )
    assert bool((solution.objective[1:] <= solution.objective[:-1]).all())
    for objective, x in zip(solution.objective, solution.iterates, strict=True):
        torch.testing.assert_close(objective, squared_norm(A(x) - y))
    torch.testing.assert_close(solution.iterates[-1], solution.x)


def test_more_restarts_are_no_worse_and_help_on_a_bent_set():
    """More restarts begin with the fewer, so the best is no worse; on a bent set it is better."""
    prior, A = bent(), Gaussian(SHAPE, 8, 0, DOUBLE)
    y = A(prior.sample(6, seed=1))

    def final(restarts):
        return recover(A, y, CSGM(prior, restarts, 0.02, 0.0, max_iter=150)).objective[-1]

    one, three, nine = final(1), final(3), final(9)
    assert bool((three <= one * (1 + 1e-9) + 1e-12).all())
    assert bool((nine <= three * (1 + 1e-9) + 1e-12).all())
    assert float(nine.mean()) < 0.5 * float(one.mean())


SOLVERS = {
    "CSGM": lambda prior, **keys: CSGM(prior, 3, 0.05, max_iter=30, **keys),
    "CSGM, stopping": lambda prior, **keys: CSGM(
        prior, 3, 0.05, 0.0, max_iter=60, tol=0.3, patience=10, **keys
    ),
    "PGD-GAN": lambda prior, **keys: PGDGAN(prior, inner=8, max_iter=5, **keys),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_images_do_not_meet(name):
    prior, A = bent(), Gaussian(SHAPE, 12, 0, DOUBLE)
    y = A(prior.sample(5, seed=2)) + 0.1 * normal(5, 12)
    solver = SOLVERS[name](prior)
    together = recover(A, y, solver)
    alone = [recover(A, y[i : i + 1], solver).x for i in range(5)]
    torch.testing.assert_close(together.x, torch.cat(alone))
    in_pieces = recover(A, y, SOLVERS[name](prior, rows=4))
    torch.testing.assert_close(in_pieces.x, together.x)
    assert in_pieces.outcomes == together.outcomes


@pytest.mark.parametrize("name", SOLVERS)
def test_the_seed_decides_the_result(name):
    prior, A = bent(), Gaussian(SHAPE, 12, 0, DOUBLE)
    y = A(prior.sample(2, seed=2))
    first, second, other = (recover(A, y, SOLVERS[name](prior, seed=s)).x for s in (4, 4, 5))
    assert torch.equal(first, second) and not torch.allclose(first, other)


@pytest.mark.parametrize("name", SOLVERS)
def test_weights_receive_no_gradients(name):
    prior, A = bent(), Inpainting(SHAPE, hole=2)
    assert all(parameter.requires_grad for parameter in prior.parameters())
    solution = recover(A, A(prior.sample(2, seed=2)), SOLVERS[name](prior))
    assert all(parameter.grad is None for parameter in prior.parameters())
    assert not solution.x.requires_grad


def test_a_measurement_error_of_tol_is_rest():
    A, S, _, y = problem(batch=5)
    solution = recover(A, y, CSGM(S, 2, 0.05, 0.0, tol=1e-2), record_iterates=True)
    assert solution.outcomes == ("converged",) * 5 and solution.n_iter < 1000
    assert solution.status.endswith("(‖Ax − y‖ at most tol = 0.01 times ‖y‖)")
    limit = 1e-4 * squared_norm(y)
    assert bool((solution.objective[-1] <= limit).all())
    # Once at rest an image stays as it is, although others go on.
    for i in range(5):
        first = int((solution.objective[:, i] <= limit[i]).nonzero()[0])
        assert bool((solution.iterates[first:, i] == solution.x[i]).all())


def test_a_search_ends_where_the_error_levels_off():
    """Far outside the set the measurement error levels off, and the search ends."""
    A, S, _, _ = problem()
    y = 10 * normal(3, 24, seed=5)
    solution = recover(A, y, CSGM(S, 2, 0.5, 0.0, patience=20))
    assert solution.outcomes == ("settled",) * 3 and 20 <= solution.n_iter < 500
    f = solution.objective
    assert bool((f[-1] >= 0.99 * f[-21]).any())
    best = squared_norm(A(least_squares(A, S, y)) - y)
    assert bool((f[-1] <= 1.03 * best).all())


def test_without_stopping_every_iteration_is_done():
    A, S, _, y = problem()
    solution = recover(A, y, CSGM(S, 1, 1e-6, max_iter=7))
    assert solution.n_iter == 7 and solution.outcomes == ("max_iter reached",) * 3


def test_defaults_are_the_authors():
    """CSGM's penalty on digits is their 0.1 for [0, 1], four times that for [−1, 1]."""
    S = random_affine_set(SHAPE, 3)
    csgm = CSGM(S)
    assert (csgm.max_iter, csgm.restarts, csgm.learning_rate, csgm.penalty) == (1000, 10, 0.01, 0.4)
    faces = CSGM.for_64(S, seed=3)
    assert (faces.max_iter, faces.restarts, faces.learning_rate, faces.penalty, faces.seed) == (
        500, 10, 0.1, 0.001, 3,
    )  # fmt: skip
    search = PGDGAN(S)
    assert (search.max_iter, search.inner, search.learning_rate) == (10, 100, 0.1)
    assert (search.step_size, search.penalty) == (0.5, 0.001)


@dataclass(frozen=True, eq=False)
class SleepyState:
    x: torch.Tensor


@dataclass(frozen=True, eq=False)
class Sleepy(Solver[SleepyState]):
    """Halves x, takes 20 ms over it, and makes the loop's bookkeeping take 50 ms more."""

    def init(self, A, y):
        time.sleep(0.02)
        return SleepyState(torch.ones(len(y), *A.image_shape, dtype=y.dtype))

    def step(self, A, y, state):
        time.sleep(0.02)
        return SleepyState(state.x / 2)

    def residual(self, A, y, state):
        time.sleep(0.05)
        return A(state.x) - y


def test_the_clock_counts_the_solver_alone():
    A, _, _, y = problem(batch=2)
    zeros = torch.zeros(2, *SHAPE, dtype=DOUBLE)
    solution = recover(A, y, Sleepy(max_iter=4), x_true=zeros)
    assert solution.elapsed.shape == (5,)
    assert bool((solution.elapsed.diff() >= 0.02).all()) and float(solution.elapsed[0]) >= 0.02
    assert float(solution.elapsed[-1]) + 5 * 0.05 <= solution.seconds
    # The error of x_n is 4⁻ⁿ.
    assert solution.time_to(1.0) == float(solution.elapsed[0])
    assert solution.time_to(0.1) == float(solution.elapsed[2])
    assert solution.time_to(1e-9) is None
    assert solution.to_dict()["elapsed"] == solution.elapsed.tolist()
    with pytest.raises(ValueError, match="x_true"):
        recover(A, y, NPGD(random_affine_set(SHAPE, 3), 0.5)).time_to(0.1)


A0, S0, X0, Y0 = problem()


@pytest.mark.parametrize("kind", [CSGM, PGDGAN])
@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"prior": 3}, TypeError, "prior must have `generate`"),
        ({"penalty": -1}, ValueError, "penalty must be"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"rows": 0}, ValueError, "rows must be"),
        ({"max_iter": 0}, ValueError, "max_iter must be"),
    ],
)
def test_wrong_settings_of_either_stop_at_the_door(kind, settings, error, named):
    with pytest.raises(error, match=named):
        kind(**{"prior": S0, **settings})


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: CSGM(S0, restarts=0), ValueError, "restarts must be"),
        (lambda: CSGM(S0, patience=0), ValueError, "patience must be"),
        (lambda: PGDGAN(S0, step_size=0), ValueError, "step_size must be"),
        (lambda: PGDGAN(S0, inner=0), ValueError, "inner must be"),
        (lambda: recover(A0, Y0.float(), CSGM(S0)), TypeError, "y must be torch.float64"),
        (lambda: recover(A0, Y0.float(), PGDGAN(S0)), TypeError, "y must be torch.float64"),
        (
            lambda: recover(Gaussian((1, 4, 9), 24, 0, DOUBLE), Y0, CSGM(S0)),
            ValueError,
            "prior must have A's image_shape",
        ),
        (
            lambda: recover(Gaussian((1, 4, 9), 24, 0, DOUBLE), Y0, PGDGAN(S0)),
            ValueError,
            "prior must have A's image_shape",
        ),
    ],
)
def test_wrong_arguments_stop_at_the_door(call, error, named):
    with pytest.raises(error, match=named):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SOLVERS)
def test_cuda_follows_cpu(name):
    A, S, _, y = problem()
    expected = recover(A, y, SOLVERS[name](S)).x
    S = S.to("cuda")
    found = recover(A.to("cuda"), y.to("cuda"), SOLVERS[name](S)).x
    torch.testing.assert_close(found.cpu(), expected)


def test_search_and_csgm_agree_where_a_is_the_identity():
    """Two uses of one descent: LatentSearch is CSGM for A = I, with a rate that falls."""
    S, A = random_affine_set(SHAPE, 3), Inpainting(SHAPE, hole=0)
    w = normal(3, *SHAPE, seed=8)
    found = recover(A, A(w), CSGM(S, 2, 0.1, 0.0, max_iter=600)).x
    searched = LatentSearch(S, starts=2, steps=600)(w)
    torch.testing.assert_close(found, searched, rtol=0, atol=1e-6)
