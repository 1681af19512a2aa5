"""Theorem 1 held against runs: verdicts that the numbers choose, and no false alarm."""

import dataclasses
import json
import math
import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis import rates, testing
from npgd.operators import MatrixOperator
from npgd.projectors import AffineSet, FiniteSet
from npgd.solvers import NPGD, recover

SHAPE = (1, 3, 4)
DOUBLE = torch.float64
few = settings(deadline=None, max_examples=25)


def affine_problem(seed: int, m: int = 60) -> testing.Problem:
    A = testing.random_operator("gaussian", SHAPE, m, seed)
    return testing.random_problem(A, testing.random_affine_set(SHAPE, 3, seed), batch=4, seed=seed)


def run_of(p: testing.Problem, max_iter: int = 12, start: str = "adjoint"):
    """(A, y, x*, iterates, η) of NPGD."""
    solver = NPGD(p.S, p.step_size, max_iter=max_iter, tol=0.0, start=start)
    solution = recover(p.A, p.y, solver, record_iterates=True)
    return p.A, p.y, p.x_true, solution.iterates, p.step_size


class Displaced:
    """Exact projection onto an affine set, then moved inside it: ‖w − P(w)‖² is δ too large."""

    def __init__(self, prior: AffineSet, delta: float, seed: int) -> None:
        self.prior, self.delta, self.seed = prior, delta, seed

    def project(self, w: torch.Tensor) -> torch.Tensor:
        self.seed += 1
        direction = testing.normal(len(w), self.prior.latent_dim, seed=self.seed)
        direction = direction @ self.prior.orthonormal.T
        unit = direction / direction.norm(dim=1, keepdim=True)
        return self.prior.project(w) + math.sqrt(self.delta) * unit.reshape(w.shape)


# On sets whose constants are known -------------------------------------------------------------


def flaky() -> testing.Problem:
    """κ near 1, so that e_n soon is nothing but rounding, and noise."""
    return testing.random_problem(
        testing.random_operator("gaussian", SHAPE, m=59, seed=1),
        testing.random_affine_set(SHAPE, latent_dim=1, seed=1211),
        batch=1, noise=0.05, step=0.8, seed=1211,
    )  # fmt: skip


@few
@given(
    p=testing.problems(
        SHAPE,
        sets=("affine",),
        m=st.integers(4, 120),
        noise=st.sampled_from([0.0, 0.05]),
        step=st.sampled_from([0.8, 1.0, 1.02, 1.3]),
    ),
    delta=st.sampled_from([0.0, 1e-3, 0.1]),
    start=st.integers(0, 1),
    seed=testing.seeds,
)
@example(p=flaky(), delta=0.0, start=0, seed=0)
def test_theorem_on_an_affine_set(p, delta, start, seed):
    """Exact α, β and a projector that is exactly δ too far: no iterate may exceed the bound."""
    project = Displaced(p.S, delta, seed)
    check = testing.check_bound(
        p.A, project, p.x_true, p.y, p.step_size, p.alpha, p.beta, delta, start=start
    )
    # A bound of small κ soon falls below what rounding makes of the numbers behind it.
    bound = check.bound[check.start :]
    scale = 1e-9 * bound + 1e-12 * (bound[0] + p.y.square().sum(1))
    for part in (check.slack.alpha, check.slack.beta, check.slack.delta, check.slack.noise):
        assert (part[check.start :] >= -scale).all()


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
    testing.check_bound(
        p.A, lambda w: S.project(w, prefer=order), x_true, p.y[:1], p.step_size, p.alpha, p.beta,
        delta, max_iter=12,
    )  # fmt: skip


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
    p = dataclasses.replace(p, step_size=1 / claimed[1])
    check = rates.check_convergence(*run_of(p, 10, "range"), *claimed, start=0)
    assert check.holds or check.broken
    if not check.holds:
        assert "exceeded" in check.status and "not the true ones" in check.status


@settings(deadline=None, max_examples=15)
@given(seed=testing.seeds, large=st.sampled_from([1e2, 1e4]), noise=st.sampled_from([0.0, 100.0]))
def test_rounding_is_no_violation_where_A_sees_far_more_than_S(seed, large, noise):
    """‖A‖² ≫ β and w_n far from the origin: iterates are off S by the rounding of w_n."""
    S = testing.random_affine_set(SHAPE, 2, seed)
    normal = testing.normal(12, 12, seed=seed)
    outside = normal - normal @ S.orthonormal @ S.orthonormal.T
    A = MatrixOperator(torch.cat([normal, large * outside]), SHAPE)
    p = testing.random_problem(A, S, noise=noise, seed=seed)
    check = rates.check_convergence(
        *run_of(p, 15, "range"), p.alpha * (1 - 1e-12), p.beta, 0.0, start=0
    )
    assert check.holds and not check.broken


# What it says ----------------------------------------------------------------------------------


def test_verdicts_say_what_happened():
    p = affine_problem(0, m=200)
    alpha, beta = p.alpha, p.beta
    run = run_of(p)
    good = rates.check_convergence(*run, alpha, beta)
    assert good.applies and good.holds
    assert "the bound falls" in good.status and "stays below the bound." in good.status
    assert "do not promise" not in good.status
    void = rates.check_convergence(*run, alpha / 20, beta)
    assert not void.applies and void.holds
    assert "does not fall for any image, so it is void there." in void.status
    assert "The constants do not promise that. A shortens x_n − x* less than α says" in void.status
    assert "The bound does not fall: it says nothing of this run." in void.status
    assert "stays below" not in void.status
    wrong = rates.check_convergence(*run, beta, beta)
    measured, claimed = wrong.broken["alpha"]
    assert not wrong.holds and measured < claimed == beta
    assert "not the true ones" in wrong.status and "α_n = " in wrong.status
    per_image = rates.check_convergence(*run, torch.full((4,), alpha), beta)
    torch.testing.assert_close(per_image.bound, good.bound, equal_nan=True)
    mixed = rates.check_convergence(*run, torch.tensor([alpha, alpha, alpha / 20, alpha]), beta)
    assert "for 1 of 4 images, so it is void there; for the others it falls by" in mixed.status
    assert "The bound falls for 3 of 4 images, whose iterates stay below it." in mixed.status
    assert "Their own bound falls for 3 of 4" in " ".join(mixed.comparison("their own bound"))
    for check in (good, void, wrong, mixed):
        json.dumps(check.to_dict(), allow_nan=False)
        assert str(check) == check.status


def test_a_longer_step_that_converges_is_not_called_void():
    """κ < 1.4 and ηβ = 1.2: the rate (√(κ + s² − 1) + s)² is below 1."""
    p = affine_problem(0, m=2000)
    assert p.kappa < 1.4
    p = dataclasses.replace(p, step_size=1.2 / p.beta)
    check = rates.check_convergence(*run_of(p), p.alpha, p.beta)
    expected = (math.sqrt(p.kappa + 0.04 - 1) + 0.2) ** 2
    assert float(check.rate[0]) == pytest.approx(expected) and expected < 1
    assert check.applies and check.holds and "void" not in check.status


@pytest.mark.parametrize("sign", [-1, 1])
def test_what_helps_and_what_hurts_is_read_from_the_numbers(sign):
    """With β_n's part and δ_n's of opposite signs, in either order; a fact a sentence."""
    check = rates.check_convergence(*run_of(affine_problem(0, m=200)), 0.01, 2.0)
    factor = {"total": 0.7, "alpha": 0.9, "beta": sign * 0.0381, "delta": -sign * 0.2, "noise": 0.0}
    said = dataclasses.replace(check, step_factor=factor).observation()
    parts = (
        (
            "β_n below 1/η takes off 0.0381.",
            "P landing farther from w_n than x* is (δ_n > 0) adds 0.2.",
        )
        if sign < 0
        else (
            "β_n above 1/η adds 0.0381.",
            "P landing nearer to w_n than x* is (δ_n < 0) takes off 0.2.",
        )
    )
    first = "With α_n alone it would fall, by a factor 0.9 per step."
    assert said[-4:] == (first, *parts, "Together that is 0.7.")
    said = dataclasses.replace(check, step_factor={**factor, "alpha": 1.1}).observation()
    assert "With α_n alone it would grow, by a factor 1.1 per step." in said
    assert not any("oise" in each for each in said)
    alone = {**dict.fromkeys(factor, 0.0), "total": 0.9, "alpha": 0.9}
    assert dataclasses.replace(check, step_factor=alone).observation()[-1] == first


def test_no_reason_is_given_where_the_constants_are_none():
    """α_n below α is no reason for a fall."""
    check = rates.check_convergence(*run_of(affine_problem(0, m=200)), 0.01, 2.0)
    check = dataclasses.replace(check, alpha=torch.full((4,), 100.0))
    said = " ".join(check.observation())
    assert "do not promise" in said and "α_n is" not in said
    median = float(check.decomposition.alpha[check.start :].nanquantile(0.5))
    for share, text in ((1 - 1e-10, None), (1 - 1e-6, f"α is {median * (1 - 1e-6):.6g}")):
        near = dataclasses.replace(check, alpha=torch.full((4,), share * median)).observation()
        assert any("α_n is" in said for said in near) is (text is not None)
        assert text is None or any(text in said for said in near)


def test_a_sign_that_broken_numbers_contradict_is_not_printed():
    p = affine_problem(0, m=200)
    run = run_of(p)
    close = rates.check_convergence(*run, p.alpha * (1 + 1e-6), p.beta)
    own = float(close.decomposition.alpha[1:].min())
    check = rates.check_convergence(*run, own * (1 + 1e-6), p.beta)
    measured, claimed = check.broken["alpha"]
    assert measured < claimed
    (said,) = (said for said in check.comparison() if "α_n = " in said)
    below, above = map(float, re.search(r"α_n = (\S+), below α = (\S+)\.$", said).groups())
    assert below < above


@pytest.mark.parametrize("factor", [3.0, 1 + 1e-7])
def test_an_excess_of_a_millionth_is_a_violation(factor):
    """Ten orders above rounding: a bound, and constants, exceeded by that much are said so."""
    S = testing.random_affine_set(SHAPE, 2)
    A = testing.random_operator("gaussian", SHAPE, 40, 3)
    alpha, beta = testing.exact_constants(A, S)
    x_true = S.sample(1, seed=1)
    gram = (A.matrix @ S.orthonormal).T @ (A.matrix @ S.orthonormal)
    weak = (S.orthonormal @ torch.linalg.eigh(gram).eigenvectors[:, 0]).reshape(1, *SHAPE)
    iterates = torch.stack([x_true + weak, x_true + weak])
    check = rates.check_convergence(
        A, A(x_true), x_true, iterates, 1 / beta, alpha * min(factor, beta / alpha), beta, start=0
    )
    assert "alpha" in check.broken


def test_a_tiny_iterate_that_exceeds_a_tiny_bound_is_seen():
    """Both a billionth of x*, and still a million roundings."""
    S = testing.random_affine_set(SHAPE, 2)
    A = testing.random_operator("gaussian", SHAPE, 40, 3)
    alpha, beta = testing.exact_constants(A, S)
    x_true = S.sample(1, seed=1)
    away = 1e-10 * S.orthonormal[:, 0].reshape(1, *SHAPE)
    iterates = torch.stack([x_true + away, x_true + 3 * away])
    check = rates.check_convergence(A, A(x_true), x_true, iterates, 1 / beta, alpha, beta, start=0)
    assert check.exceeded_at == (1,)


def test_delta_is_held_against_the_points_behind_too():
    """x_1 is nearer to w_0 than x* = 0, but x_0 was nearer still: the objective rises."""
    A = MatrixOperator(torch.eye(2, dtype=DOUBLE), (1, 1, 2))
    x_true = torch.zeros(1, 1, 1, 2, dtype=DOUBLE)
    points = torch.tensor([(1.0, 0.0), (1.5, 0.0)], dtype=DOUBLE).reshape(2, 1, 1, 1, 2)
    check = rates.check_convergence(A, A(x_true), x_true, points, 0.1, 1.0, 1.0, 0.1, start=0)
    assert float(check.decomposition.delta[0]) < 0
    measured, claimed = check.broken["delta"]
    assert measured == pytest.approx(0.35) and claimed == pytest.approx(0.1)
    assert not check.holds


# What a step is made of ------------------------------------------------------------------------


def test_step_factor_parts_sum_to_the_total(sequence):
    A, y, x_true, iterates = sequence(5, 40, 8, noise=0.01)
    sizes = torch.tensor([0.7**n * (1 + 0.02 * n % 0.05) for n in range(9)])
    iterates = x_true + sizes.reshape(-1, 1, 1, 1, 1) * testing.normal(1, 3, *SHAPE)
    check = rates.check_convergence(A, y, x_true, iterates, 0.01, 1.0, 100.0, 1.0, start=0)
    parts, F = dict(check.step_factor), check.objective
    first, last = check.observed.first[0], check.observed.last[0]
    assert check.observed.last == (last,) * 3 and last - first >= 3
    total = F[first + 1 : last + 1].sum(0) / F[first:last].sum(0)
    assert parts["total"] == pytest.approx(float(total.mean()), rel=1e-9)
    assert parts.pop("total") == pytest.approx(sum(parts.values()), rel=1e-9)


def test_step_factor_is_over_the_fitted_iterates_alone(sequence):
    """F falls by 0.49 a step up to x_8, and then grows a hundredfold: that step does not count."""
    A, y, x_true, _ = sequence(5, 40, 1)
    sizes = torch.tensor([0.7**n for n in range(9)] + [0.7**8 * 10**n for n in range(1, 8)])
    iterates = x_true + sizes.reshape(-1, 1, 1, 1, 1) * testing.normal(1, 3, *SHAPE)
    check = rates.check_convergence(A, y, x_true, iterates, 0.01, 1.0, 100.0, 1.0, start=0)
    assert check.observed.last == (8, 8, 8)
    assert check.step_factor["total"] == pytest.approx(0.49, rel=1e-6)
    iterates[:2] = x_true + 10 * (iterates[:2] - x_true)  # x_1 to x_2 is no step of the fit
    first = rates.check_convergence(A, y, x_true, iterates, 0.01, 1.0, 100.0, 1.0, start=2)
    assert first.observed.first == (2, 2, 2)
    assert first.step_factor["total"] == pytest.approx(0.49, rel=1e-6)


def test_the_start_must_be_an_iterate(sequence):
    run = sequence(0, 5, 3)
    with pytest.raises(ValueError, match="start must be from 0 to n_iter = 3, got 4"):
        rates.check_convergence(*run, 0.5, 0.1, 10.0, start=4)
