"""The one-step identity closes for any points, and what is measured is what is defined."""

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
from npgd.images import squared_norm
from npgd.operators import Gaussian, Inpainting, MatrixOperator, SuperResolution
from npgd.projectors import AffineSet
from npgd.solvers import NPGD, recover

SHAPE = (1, 3, 4)
MNIST = (1, 28, 28)
needs_mnist = pytest.mark.skipif(
    not Path(os.environ.get("NPGD_DATA", ""), "mnist", "t10k-images-idx3-ubyte.gz").exists(),
    reason="no MNIST: set NPGD_DATA to the folder that holds mnist/",
)
seeds = testing.seeds
many = settings(deadline=None, max_examples=80)


def scales(low: float, high: float) -> st.SearchStrategy[float]:
    """Positive numbers, every order of magnitude alike."""
    return st.floats(math.log(low), math.log(high)).map(math.exp)


@many
@given(
    A=testing.operators(SHAPE),
    seed=seeds,
    n_iter=st.integers(1, 5),
    spread=scales(1e-6, 1e6),
    noise=st.one_of(st.just(0.0), scales(1e-6, 1e6)),
    step_size=scales(1e-4, 1e4),
)
def test_identity_closes_for_any_points(points, A, seed, n_iter, spread, noise, step_size):
    y, x_true, iterates = points(A, seed, n_iter, spread, noise)
    parts = testing.check_one_step_identity(A, None, x_true, y, step_size, iterates=iterates)
    assert parts.residual.shape == parts.alpha.shape == (n_iter, 3)


@many
@given(seed=seeds, noise=st.sampled_from([0.0, 0.3]), step_size=scales(0.01, 100))
def test_identity_as_written(sequence, seed, noise, step_size):
    """The formula itself, assembled by hand from α_n, β_n, δ_n measured from their definitions."""
    A, y, x_true, iterates = sequence(seed, 7, 4, noise=noise)
    parts = rates.decompose(A, y, x_true, iterates, step_size)

    for n in range(4):
        x, following = iterates[n], iterates[n + 1]
        e, d, v = x - x_true, following - x, y - A(x_true)
        w = x - step_size * A.adjoint(A(x) - y)
        alpha, beta = squared_norm(A(e)) / squared_norm(e), squared_norm(A(d)) / squared_norm(d)
        delta = squared_norm(following - w) - squared_norm(x_true - w)
        for s, found in ((x, parts.behind[0, n]), (iterates[n - 1], parts.behind[1, n])):
            if s is x or n > 0:
                against = squared_norm(following - w) - squared_norm(s - w)
                size = squared_norm(following - w) + squared_norm(s - w)
                assert ((found - against).abs() <= 1e-12 * size).all()
        summands = [
            (1 / (step_size * alpha) - 1) * squared_norm(A(e)),
            squared_norm(v),
            delta / step_size,
            (beta - 1 / step_size) * squared_norm(d),
        ]
        scale = torch.stack(summands).abs().amax(0)
        assert (((sum(summands) - squared_norm(A(following) - y)).abs() / scale) < 1e-10).all()
        torch.testing.assert_close(parts.alpha[n], alpha)
        torch.testing.assert_close(parts.beta[n], beta)
        assert ((parts.delta[n] - delta).abs() <= 1e-10 * step_size * scale).all()
        torch.testing.assert_close(
            parts.objective[n], squared_norm(A(x) - y), rtol=1e-9, atol=1e-12
        )


def test_degenerate_pairs_say_nothing_and_break_nothing(sequence):
    A, y, x_true, iterates = sequence(0, 5, 3)
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


def test_identity_exposes_a_wrong_adjoint(sequence):
    class Wrong(MatrixOperator):
        def adjoint(self, y):
            return 1.01 * super().adjoint(y)

    A, y, x_true, iterates = sequence(1, 6, 3, noise=0.2)
    parts = rates.decompose(Wrong(A.matrix, SHAPE), y, x_true, iterates, 0.5)
    assert parts.residual.max() > 1e-4
    assert "does not close" in parts.status


def test_decompose_does_not_touch_the_operators_precision():
    A = Gaussian(SHAPE, 6)
    x_true = testing.normal(2, *SHAPE, dtype=torch.float32)
    iterates = testing.normal(3, 2, *SHAPE, seed=1, dtype=torch.float32)
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
def test_decompose_names_the_argument_that_does_not_fit(sequence, change, name):
    A, y, x_true, iterates = sequence(0, 5, 3)
    with pytest.raises(ValueError, match=name):
        rates.decompose(A, *change(y, x_true, iterates), 0.5)
    with pytest.raises(ValueError, match="step_size"):
        rates.decompose(A, y, x_true, iterates, -1.0)


@pytest.mark.parametrize(("slip", "closes"), [(1e-12, True), (1e-8, False)])
def test_the_identity_closes_to_rounding_or_is_said_not_to(sequence, slip, closes):
    """An adjoint that is off by 1e-8 is a wrong one; by 1e-12 it is rounded."""

    class Slightly(MatrixOperator):
        def adjoint(self, y):
            return (1 + slip) * super().adjoint(y)

    A, y, x_true, iterates = sequence(2, 6, 3, noise=0.2)
    parts = rates.decompose(Slightly(A.matrix, SHAPE), y, x_true, iterates, 0.5)
    assert ("does not close" not in parts.status) == closes


def test_size_and_norm_are_the_largest(sequence):
    A, y, x_true, iterates = sequence(3, 6, 3)
    parts = rates.decompose(A, y, x_true, iterates, 0.5)
    w = [x - 0.5 * A.adjoint(A(x) - y) for x in iterates[:-1]]
    every = torch.stack([squared_norm(x) for x in (x_true, *iterates, *w)])
    torch.testing.assert_close(parts.size, every.amax(0))
    assert parts.norm == pytest.approx(float(torch.linalg.matrix_norm(A.matrix, 2)))
    assert parts.precision == 100 * torch.finfo(torch.float64).eps


def test_one_iterate_has_no_iteration(sequence):
    A, y, x_true, iterates = sequence(3, 6, 3)
    parts = rates.decompose(A, y, x_true, iterates[:1], 0.5)
    assert parts.alpha.shape == parts.delta.shape == parts.residual.shape == (0, 3)
    assert parts.behind.shape == (2, 0, 3) and parts.objective.shape == (1, 3)
    assert parts.status == "no iteration to decompose"


def test_what_rounding_may_do_scales_with_the_problem(sequence):
    """α_n and β_n have no scale, δ_n that of a square: so have their allowances."""
    A, y, x_true, iterates = sequence(2, 6, 4, noise=0.2)
    one, large = (
        rates.decompose(A, c * y, c * x_true, (c * iterates).float(), 0.5) for c in (1.0, 1024.0)
    )
    assert (one.highest_alpha() > one.alpha).all() and (one.lowest_beta() < one.beta).all()
    behind = one.behind.nan_to_num(nan=-math.inf).amax(0)
    assert (one.highest_delta() < torch.maximum(one.delta, behind).amax(0)).all()
    exact = {"rtol": 1e-9, "atol": 0.0}
    torch.testing.assert_close(large.highest_alpha(), one.highest_alpha(), **exact)
    torch.testing.assert_close(large.lowest_beta(), one.lowest_beta(), **exact)
    torch.testing.assert_close(large.highest_delta(), 1024**2 * one.highest_delta(), **exact)


def test_rounding_is_allowed_as_much_as_two_points_can_move():
    """On a line, w_0 = 1 and x_1 = x* = x_0 = −1: ξ apart, ‖x_1 − w‖² − ‖s − w‖² is 4·2ξ."""
    A = MatrixOperator(torch.ones(1, 1, dtype=torch.float64), (1, 1, 1))
    x = -torch.ones(1, 1, 1, 1, dtype=torch.float64)
    y = torch.full((1, 1), 3.0, dtype=torch.float64)
    still = rates.decompose(A, y, x, torch.stack([x, x]).float(), 0.5)
    off = float(still.off[0])
    assert off == 100 * torch.finfo(torch.float32).eps
    assert float(still.highest_delta()) == pytest.approx(-8 * off * (1 + off), rel=1e-9)
    # Both ends of a difference e of length 2 move by ξ, and A e as much: √α by 4ξ/2 of itself.
    moving = rates.decompose(A, y, x, torch.stack([-x, x]).float(), 0.5)
    off = float(moving.off[0])
    assert float(moving.highest_alpha()) == pytest.approx((1 + 2 * off) ** 2, rel=1e-12)
    assert float(moving.lowest_beta()) == pytest.approx((1 - 2 * off) ** 2, rel=1e-12)
