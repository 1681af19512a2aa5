"""The one-step identity, the bound it gives, and the split of the gap between the two."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import rates, testing
from npgd.data import mnist
from npgd.operators import Gaussian, Inpainting, MatrixOperator, SuperResolution
from npgd.projectors import AffineSet, FiniteSet
from npgd.solvers import NPGD, recover

SHAPE = (1, 3, 4)
SIZE = math.prod(SHAPE)
MNIST = (1, 28, 28)
needs_mnist = pytest.mark.skipif(
    not Path(os.environ.get("NPGD_DATA", ""), "mnist", "t10k-images-idx3-ubyte.gz").exists(),
    reason="no MNIST: set NPGD_DATA to the folder that holds mnist/",
)
seeds = testing.seeds
many = settings(deadline=None, max_examples=80)
few = settings(deadline=None, max_examples=40)


def scales(low: float, high: float) -> st.SearchStrategy[float]:
    """Positive numbers, every order of magnitude alike."""
    return st.floats(math.log(low), math.log(high)).map(math.exp)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *size: int) -> torch.Tensor:
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def sequence(generator, m, n_iter, spread, noise, batch=3):
    """An operator, and points that no algorithm made: (A, y, x*, iterates)."""
    A = MatrixOperator(normal(generator, m, SIZE), SHAPE)
    return A, *points(generator, A, n_iter, spread, noise, batch)


def points(generator, A, n_iter, spread, noise, batch=3):
    x_true = normal(generator, batch, *SHAPE)
    iterates = x_true + spread * normal(generator, n_iter + 1, batch, *SHAPE)
    return A(x_true) + noise * normal(generator, batch, A.m), x_true, iterates


def affine_problem(seed: int, m: int = 60) -> testing.Problem:
    return testing.random_problem(
        testing.random_operator("gaussian", SHAPE, m, seed),
        testing.random_affine_set(SHAPE, 3, seed),
        batch=4,
        seed=seed,
    )


class Displaced:
    """Exact projection onto an affine set, then moved inside it: ‖w − P(w)‖² is δ too large."""

    def __init__(self, prior: AffineSet, delta: float, generator: torch.Generator) -> None:
        self.prior, self.delta, self.generator = prior, delta, generator

    def project(self, w: torch.Tensor) -> torch.Tensor:
        direction = normal(self.generator, len(w), self.prior.latent_dim) @ self.prior.orthonormal.T
        unit = direction / direction.norm(dim=1, keepdim=True)
        return self.prior.project(w) + math.sqrt(self.delta) * unit.reshape(w.shape)


# The identity --------------------------------------------------------------------------------


@many
@given(
    A=testing.operators(SHAPE),
    seed=seeds,
    n_iter=st.integers(1, 5),
    spread=scales(1e-6, 1e6),
    noise=st.one_of(st.just(0.0), scales(1e-6, 1e6)),
    step_size=scales(1e-4, 1e4),
)
def test_identity_closes_for_any_points(A, seed, n_iter, spread, noise, step_size):
    y, x_true, iterates = points(draws(seed), A, n_iter, spread, noise)
    parts = testing.check_one_step_identity(A, None, x_true, y, step_size, iterates=iterates)
    assert parts.residual.shape == parts.alpha.shape == (n_iter, 3)


@many
@given(seed=seeds, noise=st.sampled_from([0.0, 0.3]), step_size=scales(0.01, 100))
def test_identity_as_written(seed, noise, step_size):
    """The formula itself, assembled by hand from α_n, β_n, δ_n measured from their definitions."""
    A, y, x_true, iterates = sequence(draws(seed), 7, 4, 1.0, noise)
    parts = rates.decompose(A, y, x_true, iterates, step_size)

    def square(x):
        return x.flatten(1).square().sum(1)

    for n in range(4):
        x, following = iterates[n], iterates[n + 1]
        e, d, v = x - x_true, following - x, y - A(x_true)
        w = x - step_size * A.adjoint(A(x) - y)
        alpha, beta = square(A(e)) / square(e), square(A(d)) / square(d)
        delta = square(following - w) - square(x_true - w)
        summands = [
            (1 / (step_size * alpha) - 1) * square(A(e)),
            square(v),
            delta / step_size,
            (beta - 1 / step_size) * square(d),
        ]
        scale = torch.stack(summands).abs().amax(0)
        assert (((sum(summands) - square(A(following) - y)).abs() / scale) < 1e-10).all()
        torch.testing.assert_close(parts.alpha[n], alpha)
        torch.testing.assert_close(parts.beta[n], beta)
        assert ((parts.delta[n] - delta).abs() <= 1e-10 * step_size * scale).all()
        torch.testing.assert_close(parts.objective[n], square(A(x) - y), rtol=1e-9, atol=1e-12)


def test_degenerate_pairs_say_nothing_and_break_nothing():
    generator = draws(0)
    A, y, x_true, iterates = sequence(generator, 5, 3, 1.0, 0.0)
    iterates[1] = x_true
    iterates[2] = x_true
    parts = rates.decompose(A, y, x_true, iterates, 0.5)
    assert parts.alpha[1].isnan().all() and parts.alpha[2].isnan().all()
    assert parts.beta[1].isnan().all()
    assert parts.alpha[0].isfinite().all() and parts.beta[[0, 2]].isfinite().all()
    assert parts.residual.max() <= 1e-12
    slack = rates.split_slack(parts, 0.01, 2.0, 1.0, start=0)
    for part in (slack.alpha, slack.beta, slack.delta, slack.noise):
        assert part.isfinite().all()
    json.dumps(parts.to_dict(), allow_nan=False)


def test_identity_exposes_a_wrong_adjoint():
    class Wrong(MatrixOperator):
        def adjoint(self, y):
            return 1.01 * super().adjoint(y)

    A, y, x_true, iterates = sequence(draws(1), 6, 3, 1.0, 0.2)
    parts = rates.decompose(Wrong(A.matrix, SHAPE), y, x_true, iterates, 0.5)
    assert parts.residual.max() > 1e-4
    assert "does not close" in parts.status


def test_decompose_does_not_touch_the_operators_precision():
    A = Gaussian(SHAPE, 6)
    x_true = torch.randn(2, *SHAPE, generator=draws(0))
    iterates = torch.randn(3, 2, *SHAPE, generator=draws(1))
    parts = rates.decompose(A, A(x_true), x_true, iterates, 0.7)
    assert A.matrix.dtype == torch.float32
    assert parts.residual.dtype == torch.float64 and parts.residual.max() <= 1e-12


@needs_mnist
@pytest.mark.parametrize("start", ["adjoint", "range"])
@pytest.mark.parametrize(
    "A",
    [Gaussian(MNIST, 100), Inpainting(MNIST, hole=8), SuperResolution(MNIST, factor=2)],
    ids=["gaussian", "inpainting", "super-resolution"],
)
def test_identity_on_real_digits(A, start):
    """Held-out digits, recovered on a linear model of other digits: outside its range, so noisy."""
    digits = mnist("test", count=640).double()
    flat = digits[:600].flatten(1)
    basis = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh[:20].T
    prior = AffineSet(basis, flat.mean(0), MNIST)
    A, x_true = A.to(torch.float64), digits[600:]
    step_size = 1 / testing.exact_constants(A, prior)[1]
    solver = NPGD(prior, step_size, max_iter=40, tol=0.0, start=start)
    solution = recover(A, A(x_true), solver, record_iterates=True)
    for target in (x_true, prior.project(x_true)):
        parts = testing.check_one_step_identity(
            A, prior, target, A(x_true), step_size, iterates=solution.iterates
        )
        assert parts.residual.shape == (solution.n_iter, 40)
        torch.testing.assert_close(parts.objective, solution.objective, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda y, x, i: (y, x, i[0]), "iterates"),
        (lambda y, x, i: (y, x, i[:, :2]), "iterates"),
        (lambda y, x, i: (y[:2], x, i), "y"),
    ],
)
def test_decompose_names_the_argument_that_does_not_fit(change, name):
    A, y, x_true, iterates = sequence(draws(0), 5, 3, 1.0, 0.0)
    with pytest.raises(ValueError, match=name):
        rates.decompose(A, *change(y, x_true, iterates), 0.5)
    with pytest.raises(ValueError, match="step_size"):
        rates.decompose(A, y, x_true, iterates, -1.0)


# The bound -----------------------------------------------------------------------------------

kappas = st.floats(1.0, 1.98)


@many
@given(kappa=kappas, beta=scales(0.1, 10), delta=st.floats(0, 2), initial=scales(1e-3, 1e3))
def test_prediction_is_theorem_1(kappa, beta, delta, initial):
    alpha = beta / kappa
    bound = rates.predicted_objective(initial, 40, alpha, beta, delta)
    n = torch.arange(41, dtype=torch.float64)
    geometric = sum((n > i).double() * (kappa - 1) ** i for i in range(40))
    exact = (kappa - 1) ** n * initial + beta * delta * geometric
    torch.testing.assert_close(bound, exact, rtol=1e-9, atol=1e-12)
    theorem = (kappa - 1) ** n * initial + beta * delta / (2 - kappa)
    assert (bound <= theorem * (1 + 1e-9)).all()
    assert float(rates.predicted_rate(alpha, beta)) == pytest.approx(kappa - 1, abs=1e-9)
    assert float(rates.error_floor(alpha, beta, delta)) == pytest.approx(delta / (2 / kappa - 1))
    assert float(rates.objective_floor(alpha, beta, delta)) == pytest.approx(
        beta * delta / (2 - kappa)
    )


@many
@given(
    kappa=st.floats(1.0, 1.3),
    delta=st.floats(0, 1),
    noise=st.floats(0, 1),
    overstep=st.floats(0.7, 1.02),
)
def test_bound_settles_at_its_floor(kappa, delta, noise, overstep):
    constants = {"step_size": overstep / 2, "noise": noise}
    args = (2 / kappa, 2.0, delta)
    rate = float(rates.predicted_rate(*args[:2], step_size=overstep / 2))
    floor = float(rates.objective_floor(*args, **constants))
    if rate < 0.97:
        last = rates.predicted_objective(10.0, 600, *args, **constants)[-1]
        assert float(last) == pytest.approx(floor, rel=1e-6, abs=1e-9)
        assert float(rates.error_floor(*args, **constants)) >= floor / args[0] - 1e-12
    elif rate >= 1:
        assert math.isinf(floor)


def test_void_bounds_are_still_computed():
    assert math.isinf(rates.error_floor(1.0, 2.0, 0.1))
    assert math.isinf(rates.steps_to_reach(0.5, 10.0, 1.0, 9.0, 0.1))
    bound = rates.predicted_objective(1.0, 5, 1.0, 9.0)
    torch.testing.assert_close(bound, 8.0 ** torch.arange(6, dtype=torch.float64))


def test_bound_of_kappa_one_is_a_number():
    """κ = 1: the bound falls to 0 at once, whatever 1/(1/β) is in floating point."""
    for beta in (29.97, 52.17):
        assert rates.predicted_objective(1.0, 3, beta, beta, step_size=1 / beta)[1:].max() < 1e-12


def test_bound_begins_where_it_is_told():
    bound = rates.predicted_objective(torch.tensor([2.0, 3.0]), 4, 1.0, 1.5, start=1)
    assert bound.shape == (5, 2) and bound[0].isnan().all()
    torch.testing.assert_close(bound[1:, 0], 2 * 0.5 ** torch.arange(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((1.0, 5, 2.0, 1.0), "alpha"),
        ((1.0, 5, 0.0, 1.0), "alpha"),
        ((1.0, 5, 1.0, math.inf), "beta"),
        ((1.0, 5, 1.0, 1.0, -1.0), "delta"),
        ((math.nan, 5, 1.0, 1.0), "initial"),
    ],
)
def test_impossible_constants_are_refused(arguments, name):
    with pytest.raises(ValueError, match=name):
        rates.predicted_objective(*arguments)


@many
@given(
    kappa=st.floats(1.0, 1.95),
    delta=st.floats(0, 0.5),
    noise=st.sampled_from([0.0, 0.01]),
    initial=scales(0.1, 1e4),
    factor=st.floats(1.001, 50),
)
def test_steps_to_reach_agree_with_the_bound(kappa, delta, noise, initial, factor):
    alpha, beta = 1.0, kappa
    target = max(factor * float(rates.error_floor(alpha, beta, delta, noise=noise)), 1e-6)
    n = float(rates.steps_to_reach(target, initial, alpha, beta, delta, noise=noise))
    assert n == int(n) >= 0
    bound = rates.predicted_objective(initial, int(n) + 1, alpha, beta, delta, noise=noise)
    error = (bound.sqrt() + math.sqrt(noise)) ** 2 / alpha
    assert error[int(n)] <= target
    assert n == 0 or error[int(n) - 1] > target


@many
@given(
    kappa=st.floats(1.0, 1.95), delta=scales(1e-3, 1), initial=scales(0.1, 1e4), C=scales(0.01, 10)
)
def test_steps_to_reach_never_exceed_the_theorem(kappa, delta, initial, C):
    """Theorem 1: error (C + 1/(2/κ−1)) δ after log(f(x_0)/(Cαδ))/(2−κ) steps."""
    alpha, beta = 1.0, kappa
    target = (C + 1 / (2 / kappa - 1)) * delta
    theorem = max(0.0, math.log(initial / (C * alpha * delta)) / (2 - kappa))
    steps = float(rates.steps_to_reach(target, initial, alpha, beta, delta))
    assert steps <= math.ceil(theorem + 1e-9)


# Theorem 1 on sets whose constants are known -------------------------------------------------


@few
@given(
    p=testing.problems(
        SHAPE,
        sets=("affine",),
        m=st.integers(4, 120),
        noise=st.sampled_from([0.0, 0.05]),
        step=st.sampled_from([0.8, 1.0, 1.02]),
    ),
    delta=st.sampled_from([0.0, 1e-3, 0.1]),
    start=st.integers(0, 1),
    seed=seeds,
)
def test_theorem_on_an_affine_set(p, delta, start, seed):
    """Exact α, β and a projector that is exactly δ too far: no iterate may exceed the bound."""
    project = Displaced(p.S, delta, draws(seed))
    check = testing.check_bound(
        p.A, project, p.x_true, p.y, p.step_size, p.alpha, p.beta, delta, start=start
    )
    # A bound of small κ soon falls below what rounding makes of the numbers behind it.
    bound = check.bound[check.start :]
    scale = 1e-9 * bound + 1e-12 * (bound[0] + p.y.square().sum(1))
    finite = bound.isfinite()
    for part in (check.slack.alpha, check.slack.beta, check.slack.delta, check.slack.noise):
        assert (part[check.start :] >= -scale)[finite].all()


@few
@given(
    p=testing.problems(SHAPE, sets=("finite",), noise=0.0, step=1.0),
    delta=st.sampled_from([0.0, 0.5]),
)
def test_theorem_on_a_finite_set(p, delta):
    """Exact constants over all pairs; ties within δ go to the point farthest from x*."""
    x_true = p.x_true[:1]
    order = (p.S.points - x_true).flatten(1).norm(dim=1).argsort()
    S = FiniteSet(p.S.points, tie_tol=delta)
    check = testing.check_bound(
        p.A, lambda w: S.project(w, prefer=order), x_true, p.y[:1], p.step_size, p.alpha, p.beta,
        delta, max_iter=12,
    )  # fmt: skip
    if check.applies and delta == 0:
        assert float(check.decomposition.objective[-1, 0]) <= float(check.bound[-1, 0]) + 1e-12


@few
@given(
    p=testing.problems(SHAPE, ("gaussian",), ("affine",), m=st.integers(5, 14), noise=0.0),
    shrink=st.floats(0.2, 0.9),
    quantity=st.sampled_from(["alpha", "beta"]),
)
def test_an_exceeded_bound_names_what_broke(p, shrink, quantity):
    """Constants that are too good: whenever the bound fails, so does an assumption."""
    alpha, beta = p.alpha, p.beta
    claimed = (min(alpha / shrink, beta), beta) if quantity == "alpha" else (alpha, beta * shrink)
    claimed = (min(claimed), max(claimed))
    step_size = 1 / claimed[1]
    solver = NPGD(p.S, step_size, max_iter=10, tol=0.0, start="range")
    solution = recover(p.A, p.y, solver, record_iterates=True)
    check = rates.check_convergence(
        p.A, p.y, p.x_true, solution.iterates, step_size, *claimed, start=0
    )
    assert check.holds or check.broken
    if not check.holds:
        assert "exceeded" in check.status


# Where the bound loses -----------------------------------------------------------------------


@many
@given(
    seed=seeds,
    noise=st.sampled_from([0.0, 0.2]),
    kappa=st.sampled_from([1.0, 1.5, 5.0, 30.0]),
    delta=st.floats(0, 1),
    step_size=scales(0.01, 10),
    start=st.integers(0, 2),
)
def test_slacks_sum_to_the_gap(seed, noise, kappa, delta, step_size, start):
    parts = rates.decompose(*sequence(draws(seed), 6, 5, 1.0, noise), step_size)
    beta = 2.0
    slack = rates.split_slack(parts, beta / kappa, beta, delta, start=start)
    split = torch.stack([slack.alpha, slack.beta, slack.delta, slack.noise])
    torch.testing.assert_close(slack.gap[start:], (slack.bound - parts.objective)[start:])
    assert slack.gap[:start].isnan().all()
    finite = slack.bound.isfinite()
    size = torch.maximum(split.abs().amax(0), slack.bound.abs())[finite]
    assert ((split.sum(0) - slack.gap)[finite].abs() <= 1e-9 * size).all()
    assert (split[:, start] == 0).all()


@many
@given(seed=seeds, noise=st.sampled_from([0.0, 0.2]), step_size=scales(0.05, 5))
def test_slacks_are_not_negative_under_the_assumptions(seed, noise, step_size):
    """Constants taken from the run itself hold on it, and so leave slack everywhere."""
    parts = rates.decompose(*sequence(draws(seed), 6, 5, 1.0, noise), step_size)
    # The bound for η > 1/β also puts α on the pairs (x_{n+1}, x_n).
    alpha = float(torch.minimum(parts.alpha, parts.beta).min())
    beta = float(torch.maximum(parts.alpha, parts.beta).max())
    slack = rates.split_slack(parts, alpha, beta, max(0.0, float(parts.delta.max())), start=0)
    for part in (slack.alpha, slack.beta, slack.delta, slack.noise):
        kept = slack.bound.isfinite()
        assert (part[kept] >= -1e-9 * slack.bound[kept]).all()
    if noise == 0:
        assert (slack.noise.abs() <= 1e-9 * slack.bound).all()


def test_each_slack_answers_to_its_own_constant():
    """With two constants matched to the run, the gap is the third's alone."""
    p, step_size = affine_problem(3), 0.5
    # One image and one step, so that constants can match what happened exactly.
    iterates = torch.stack([p.S.sample(1, seed=1), p.S.sample(1, seed=2)])
    parts = rates.decompose(p.A, p.y[:1], p.x_true[:1], iterates, step_size)
    alpha = float(parts.alpha[0])
    delta = max(0.0, float(parts.delta[0]))
    loose = rates.split_slack(parts, alpha / 2, 2.0, delta, start=0)
    assert loose.alpha[1] > 0
    tight = rates.split_slack(parts, alpha, 2.0, delta, start=0)
    assert abs(float(tight.alpha[1])) <= 1e-12 * float(tight.bound[1])
    assert float(tight.beta[1]) == pytest.approx(
        float((2.0 - parts.beta[0]) * parts.step[0]), rel=1e-9
    )
    more = rates.split_slack(parts, alpha, 2.0, delta + 0.25, start=0)
    assert float(more.delta[1] - tight.delta[1]) == pytest.approx(0.25 / step_size, rel=1e-9)


# What was observed ---------------------------------------------------------------------------


@many
@given(
    rate=st.floats(0.05, 0.9), initial=scales(1e-3, 1e3), floor=st.sampled_from([0.0, 1e-6, 1e-3])
)
def test_observed_rate_of_a_geometric_fall(rate, initial, floor):
    n = torch.arange(200, dtype=torch.float64)
    objective = (initial * (rate**n + floor))[:, None]
    observed = rates.observed_rate(objective)
    assert float(observed.rate[0]) == pytest.approx(rate, rel=0.02)
    assert observed.first == (0,) and observed.last[0] >= 2
    assert observed.reasons == ("",)


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        ([1.0, 2.0, 4.0, 8.0], "rises from x_0 to x_1"),
        ([1.0, 1.0, 1.0, 1.0, 1.0], "already within"),
        ([5.0, 1.0, 1.0, 1.0, 1.0, 1.0], "reached the floor"),
        ([5.0, 1.0], "the run ends"),
    ],
)
def test_no_rate_comes_with_a_reason(objective, reason):
    observed = rates.observed_rate(torch.tensor(objective)[:, None])
    assert observed.rate.isnan().all()
    assert reason in observed.reasons[0] and reason in observed.status
    json.dumps(observed.to_dict(), allow_nan=False)


def test_step_factor_parts_sum_to_the_total():
    A, y, x_true, _ = sequence(draws(5), 40, 1, 1.0, 0.01)
    iterates = x_true + 0.7 ** torch.arange(9).reshape(-1, 1, 1, 1, 1) * normal(
        draws(6), 1, 3, *SHAPE
    )
    check = rates.check_convergence(A, y, x_true, iterates, 0.01, 1.0, 100.0, 1.0, start=0)
    parts = dict(check.step_factor)
    assert parts.pop("total") == pytest.approx(sum(parts.values()), rel=1e-9)


def test_verdicts_say_what_happened():
    p = affine_problem(0, m=200)
    alpha, beta = p.alpha, p.beta
    solver = NPGD(p.S, p.step_size, max_iter=12, tol=0.0)
    solution = recover(p.A, p.y, solver, record_iterates=True)
    run = (p.A, p.y, p.x_true, solution.iterates, p.step_size)
    good = rates.check_convergence(*run, alpha, beta)
    assert good.applies and good.holds
    assert "the bound falls" in good.status and "stays below the bound." in good.status
    void = rates.check_convergence(*run, alpha / 20, beta)
    assert not void.applies and void.holds
    assert (
        "void" in void.status and "nevertheless falls" in void.status and "because" in void.status
    )
    wrong = rates.check_convergence(*run, beta, beta)
    measured, claimed = wrong.broken["alpha"]
    assert not wrong.holds and measured < claimed == beta
    assert "not the true ones" in wrong.status and "α_n = " in wrong.status
    per_image = rates.check_convergence(*run, torch.full((4,), alpha), beta)
    torch.testing.assert_close(per_image.bound, good.bound, equal_nan=True)
    for check in (good, void, wrong):
        json.dumps(check.to_dict(), allow_nan=False)
        assert str(check) == check.status
