"""The slack: what the bound loses, split by the quantity that makes it."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis import rates, testing
from npgd.operators import MatrixOperator

SHAPE = (1, 3, 4)
DOUBLE = torch.float64
PARTS = ("alpha", "beta", "delta", "noise")
many = settings(deadline=None, max_examples=40)
steps = st.floats(math.log(0.01), math.log(10)).map(math.exp)


def affine_problem(seed: int, m: int = 60) -> testing.Problem:
    A = testing.random_operator("gaussian", SHAPE, m, seed)
    return testing.random_problem(A, testing.random_affine_set(SHAPE, 3, seed), batch=4, seed=seed)


def own_constants(parts: rates.Decomposition) -> tuple[float, float, float]:
    """Those that hold of every pair of the run."""
    ends = parts.range_objective / parts.error
    alpha = min(float(ends.min()), float(parts.beta.min()))
    beta = max(float(ends.max()), float(parts.beta.max()))
    delta = float(torch.cat([parts.delta[None], parts.behind]).nan_to_num(nan=-1.0).max())
    return alpha, beta, max(0.0, delta)


@many
@given(
    seed=testing.seeds,
    noise=st.sampled_from([0.0, 0.2]),
    kappa=st.sampled_from([1.0, 1.5, 5.0, 30.0]),
    delta=st.floats(0, 1),
    step_size=steps,
    start=st.integers(0, 2),
)
def test_slacks_sum_to_the_gap(sequence, seed, noise, kappa, delta, step_size, start):
    parts = rates.decompose(*sequence(seed, 6, 5, noise=noise), step_size)
    beta = 2.0
    slack = rates.split_slack(parts, beta / kappa, beta, delta, start=start)
    expected = rates.predicted_objective(
        parts.objective[start], 5, beta / kappa, beta, delta,
        step_size=step_size, noise=parts.noise, start=start,
    )  # fmt: skip
    torch.testing.assert_close(slack.bound, expected, equal_nan=True)
    split = torch.stack([getattr(slack, name) for name in PARTS])
    torch.testing.assert_close(slack.gap[start:], (slack.bound - parts.objective)[start:])
    assert slack.gap[:start].isnan().all() and split[:, :start].isnan().all()
    size = torch.maximum(split.abs().amax(0), slack.bound.abs())[start:]
    assert ((split.sum(0) - slack.gap)[start:].abs() <= 1e-9 * size).all()
    assert (split[:, start].abs() <= 1e-12 * slack.bound[start]).all()


@many
@given(seed=testing.seeds, noise=st.sampled_from([0.0, 0.2]), step_size=steps)
def test_slacks_are_not_negative_under_the_assumptions(sequence, seed, noise, step_size):
    """Constants taken from the run itself hold on it, and so leave slack everywhere."""
    parts = rates.decompose(*sequence(seed, 6, 5, noise=noise), step_size)
    slack = rates.split_slack(parts, *own_constants(parts), start=0)
    for name in PARTS:
        assert (getattr(slack, name) >= -1e-9 * slack.bound).all(), name
    if noise == 0:
        assert (slack.noise.abs() <= 1e-9 * slack.bound).all()


def test_without_noise_no_slack_is_noise_however_long_the_run(sequence):
    """A surplus grows by q_n = 1/(ηα_n) − 1 a step; what noise adds must not."""
    parts = rates.decompose(*sequence(0, 6, 60), 0.02)
    assert float((1 / (0.02 * parts.alpha) - 1).min()) > 1.5
    slack = rates.split_slack(parts, 0.1, 20.0, 1e3, start=0)
    assert (slack.noise.abs() <= 1e-9 * slack.bound).all()


@many
@given(
    seed=testing.seeds,
    noise=st.sampled_from([0.0, 0.003, 0.2]),
    spread=st.sampled_from([1.0, 0.01]),
    step_size=steps,
    start=st.integers(0, 2),
)
@example(seed=0, noise=0.003, spread=0.01, step_size=0.05, start=0)
@example(seed=1, noise=0.003, spread=0.01, step_size=0.02, start=0)
def test_every_level_follows_the_identity_below_the_one_above(
    sequence, seed, noise, spread, step_size, start
):
    """D_{n+1} = (1/(ηα_n) − 1)f_n + q_n u_n + ‖v‖² + δ/η + (β_n − 1/η)‖d_n‖².

    E has δ_n, and is at most (√f_{n+1} + ‖v‖)².
    """
    parts = rates.decompose(*sequence(seed, 6, 5, spread=spread, noise=noise), step_size)
    alpha, beta, delta = own_constants(parts)
    slack = rates.split_slack(parts, alpha, beta, delta, start=start)
    f, above = parts.range_objective, slack.bound - slack.alpha
    for name, deltas in (("beta", torch.full_like(parts.delta, delta)), ("delta", parts.delta)):
        level = above - getattr(slack, name)
        for n in range(start, 5):
            u = ((level[n].clamp_min(0).sqrt() + parts.noise.sqrt()) ** 2 - f[n]).clamp_min(0)
            q = 1 / (step_size * parts.alpha[n]) - 1
            step = (parts.beta[n] - 1 / step_size) * parts.step[n]
            expected = q * f[n] + q.clamp_min(0) * u + parts.noise + deltas[n] / step_size + step
            expected = torch.minimum(expected, above[n + 1]).clamp_min(0)
            if name == "delta":
                expected = torch.minimum(expected, (f[n + 1].sqrt() + parts.noise.sqrt()) ** 2)
            size = slack.bound[n + 1] + f[n] / (step_size * parts.alpha[n]) + expected
            assert ((level[n + 1] - expected).abs() <= 1e-8 * size).all()
        above = level


def test_every_image_is_split_by_itself(sequence):
    """Constants that some images break and others do not, from some n on."""
    A, y, x_true, iterates = sequence(4, 6, 5, noise=0.1)
    iterates = x_true + torch.tensor([1.0, 0.3, 0.1])[:, None, None, None] * (iterates - x_true)
    parts = rates.decompose(A, y, x_true, iterates, 0.05)
    alpha, _, _ = own_constants(parts)
    constants = alpha, float(parts.beta.median()), float(parts.delta.clamp_min(0).median())
    together = rates.split_slack(parts, *constants, start=1)
    for i in range(3):
        one = rates.decompose(A, y[i : i + 1], x_true[i : i + 1], iterates[:, i : i + 1], 0.05)
        alone = rates.split_slack(one, *constants, start=1)
        for name in (*PARTS, "gap", "bound"):
            torch.testing.assert_close(
                getattr(together, name)[:, i : i + 1], getattr(alone, name), equal_nan=True
            )


def test_where_there_is_no_gap_nothing_has_a_share_of_it():
    one = torch.ones(2, 1, dtype=DOUBLE)
    slack = rates.SlackSplit(0 * one, one, -one, 0 * one, 0 * one, one, 0)
    assert all(share.isnan().all() for share in slack.shares().values())


def test_each_slack_answers_to_its_own_constant():
    """With two constants matched to the run, the gap is the third's alone."""
    p = affine_problem(3)
    # One image and one step, so that constants can match what happened exactly; κ < 2.
    iterates = torch.stack([p.S.sample(1, seed=1), p.S.sample(1, seed=2)])
    alpha = float(rates.decompose(p.A, p.y[:1], p.x_true[:1], iterates, 1.0).alpha[0])
    beta = 1.5 * alpha
    parts = rates.decompose(p.A, p.y[:1], p.x_true[:1], iterates, 1 / beta)
    assert float(parts.beta[0]) < beta
    delta = max(0.0, float(parts.delta[0]), float(parts.behind[0].max()))
    loose = rates.split_slack(parts, 0.9 * alpha, beta, delta, start=0)
    lost = beta * (1 / (0.9 * alpha) - 1 / alpha) * float(parts.range_objective[0])
    assert float(loose.alpha[1]) == pytest.approx(lost, rel=1e-9)
    tight = rates.split_slack(parts, alpha, beta, delta, start=0)
    assert abs(float(tight.alpha[1])) <= 1e-12 * float(tight.bound[1])
    assert float(tight.beta[1]) == pytest.approx(
        float((beta - parts.beta[0]) * parts.step[0]), rel=1e-9
    )
    assert float(tight.delta[1]) == pytest.approx((delta - float(parts.delta[0])) * beta)
    more = rates.split_slack(parts, alpha, beta, delta + 0.25, start=0)
    assert float(more.delta[1] - tight.delta[1]) == pytest.approx(0.25 * beta, rel=1e-9)


@pytest.mark.parametrize("relative", [1.0, 1.3])
def test_one_step_of_slack_is_what_the_identity_says(relative):
    """Of β and δ together: the bound with α_n, less F_1 + δ_1's and β_1's own."""
    p = affine_problem(5)
    step_size = relative / p.beta
    iterates = torch.stack([p.S.sample(4, seed=1), p.S.sample(4, seed=2)])
    parts = rates.decompose(p.A, p.y, p.x_true, iterates, step_size)
    delta = float(torch.cat([parts.delta[None], parts.behind[:1]]).max().clamp_min(0))
    slack = rates.split_slack(parts, p.alpha, p.beta, delta, start=0)
    torch.testing.assert_close(slack.delta[1], (delta - parts.delta[0]) / step_size)
    assert (slack.noise[1].abs() <= 1e-9 * slack.bound[1]).all()
    total = slack.alpha[1] + slack.beta[1] + slack.delta[1]
    torch.testing.assert_close(total, slack.bound[1] - parts.objective[1])


@pytest.mark.parametrize(
    ("quantity", "step", "constants", "lost"),
    [
        ("alpha", ((1.0, 0.0), (0.6, 0.0)), (1.5, 1.5, 0.0), -0.5),
        ("beta", ((0.0, 1.0), (0.0, -0.6)), (1.2, 1.5, 0.0), -0.72),
        ("delta", ((1.0, 0.0), (1.1, 0.0)), (1.0, 1.6, 0.05), -0.536),
    ],
)
def test_a_broken_assumption_is_the_part_that_is_negative(quantity, step, constants, lost):
    """In the plane, A = diag(1, √2), x* = 0, η = 1/β: only one constant is too good."""
    A = MatrixOperator(torch.diag(torch.tensor([1.0, 2.0], dtype=DOUBLE).sqrt()), (1, 1, 2))
    x_true = torch.zeros(1, 1, 1, 2, dtype=DOUBLE)
    points = torch.tensor(step, dtype=DOUBLE).reshape(2, 1, 1, 1, 2)
    run = (A, A(x_true), x_true, points, 1 / constants[1])
    slack = rates.split_slack(rates.decompose(*run), *constants, start=0)
    assert float(slack.gap[1]) < 0
    assert float(getattr(slack, quantity)[1]) == pytest.approx(lost)
    assert all(float(getattr(slack, name)[1]) >= -1e-12 for name in PARTS if name != quantity)
    check = rates.check_convergence(*run, *constants, start=0)
    assert not check.holds and list(check.broken) == [quantity]


def test_what_was_broken_once_stays_the_reason():
    """δ = 0 fails from x_0 to x_1 alone; x_2 is above the bound because of it."""
    A = MatrixOperator(torch.ones(1, 1, dtype=DOUBLE), (1, 1, 1))
    x_true = torch.zeros(1, 1, 1, 1, dtype=DOUBLE)
    points = torch.tensor([1.0, 2.0, 1.9], dtype=DOUBLE).reshape(3, 1, 1, 1, 1)
    parts = rates.decompose(A, A(x_true), x_true, points, 0.1)
    slack = rates.split_slack(parts, 1.0, 1.0, 0.0, start=0)
    assert (slack.gap[1:] < 0).all() and (slack.delta[1:] < 0).all()
    for name in ("alpha", "beta", "noise"):
        assert (getattr(slack, name) >= -1e-12).all(), name


@pytest.mark.parametrize(("excess", "broken"), [(5e-10, False), (1e-6, True)])
def test_an_alpha_is_known_to_a_billionth(excess, broken):
    p = affine_problem(3)
    iterates = torch.stack([p.S.sample(1, seed=1), p.S.sample(1, seed=2)])
    parts = rates.decompose(p.A, p.y[:1], p.x_true[:1], iterates, 1 / p.beta)
    own = float(parts.alpha[0])
    slack = rates.split_slack(parts, own * (1 + excess), 1.5 * own, 10.0, start=0)
    assert (float(slack.alpha[1]) < 0) == broken


def test_shares_are_of_the_whole_gap(sequence):
    parts = rates.decompose(*sequence(4, 6, 5, noise=0.1), 0.05)
    slack = rates.split_slack(parts, 1e-3, 30.0, 50.0, start=1)
    shares = slack.shares()
    assert list(shares) == list(PARTS)
    assert float(sum(share[-1] for share in shares.values())) == pytest.approx(1)
    for name, share in shares.items():
        part = getattr(slack, name)[-1].sum() / slack.gap[-1].sum()
        assert float(share[-1]) == pytest.approx(float(part))
        assert f"{100 * float(share[-1]):.0f} %" in str(slack)
    with pytest.raises(ValueError, match="start must be from 0 to n_iter = 5, got 6"):
        rates.split_slack(parts, 1.0, 2.0, start=6)
