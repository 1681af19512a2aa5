"""What independent secants say: as often right as it says, and of what was drawn alone."""

import numpy as np
import pytest
import torch

import npgd
from analysis import testing
from analysis.rec import distribution_free, estimate_rec
from analysis.rec.coverage import independent
from analysis.rec.pair import Pair, Plan
from analysis.rec.settings import RecSettings
from analysis.tasks import draw_latents, generate
from npgd.images import ratio
from npgd.precision import converted

SHAPE = (1, 1, 2)
FIRST = npgd.MatrixOperator(torch.tensor([[1.0, 0.0]], dtype=torch.float64), SHAPE)


def test_the_distribution_free_statement_holds_as_often_as_it_says():
    """x ~ N(0, I_2) and A = (1, 0): r = cos² of a uniform angle, P(r < t) = 2/π asin(√t)."""
    epsilon, repetitions, pairs = 0.05, 1000, 60
    rng = np.random.default_rng(0)
    below = above = 0
    for _ in range(repetitions):
        difference = rng.standard_normal((pairs, 2)) - rng.standard_normal((pairs, 2))
        r = difference[:, 0] ** 2 / (difference**2).sum(axis=1)
        statement = distribution_free(r, epsilon)
        below += 2 / np.pi * np.arcsin(np.sqrt(statement.alpha)) <= statement.fraction
        above += 1 - 2 / np.pi * np.arcsin(np.sqrt(statement.beta)) <= statement.fraction
    for held in (below, above):
        # Not vacuous either: the statement is nearly exact.
        assert 0.93 <= held / repetitions <= 0.98


def test_too_few_pairs_say_nothing():
    assert distribution_free(np.ones(2)) is None
    assert distribution_free(np.ones(3)).n_pairs == 3
    assert distribution_free(np.array([1.0, np.nan, 2.0, 3.0])).n_pairs == 3


def twins(count):
    """Pairs of points side by side, each apart from its twin where A does not look."""
    first = testing.normal(count, *SHAPE)
    first[..., 1] = 0
    second = first + torch.tensor([0.0, 1e-3], dtype=torch.float64)
    return torch.stack([first, second], 1).reshape(-1, *SHAPE)


def test_images_in_any_order_are_paired_at_random():
    """Of 1,000 pairs of twins a share of 1/1,999 of all secants is unseen by A; side by side, all
    would be, and so would a share of 100 % lie below any bound."""
    points = twins(1000)
    statement = estimate_rec(FIRST, points, looks=("secants",)).confidence
    i, j = torch.triu_indices(2000, 2000, 1)
    ratios = ratio(FIRST, points[i] - points[j])
    assert statement.n_pairs == 1000 and "if the given images are independent" in str(statement)
    assert float((ratios < statement.alpha).double().mean()) <= statement.fraction
    assert float((ratios > statement.beta).double().mean()) <= statement.fraction
    assert float(ratios.max()) > 0.99 and statement.beta > 0.99


def test_a_finite_set_has_nothing_left_to_confidence():
    """All of its secants are known."""
    estimate = estimate_rec(FIRST, npgd.FiniteSet(twins(50)))
    assert estimate.exact and estimate.confidence is None
    assert estimate.histogram.total == 100 * 99 // 2


def test_no_sample_is_an_end_of_two_secants():
    A = npgd.Gaussian((1, 4, 4), 5, dtype=torch.float64)
    S = testing.random_prior((1, 4, 4), 3)
    statement = estimate_rec(A, S, points=101, looks=("secants",), seed=4).confidence
    x = generate(S, draw_latents(3, 101, 4, torch.float64))
    r = ratio(A, x[:100:2] - x[1:100:2])
    assert statement.n_pairs == 50
    assert statement.fraction == pytest.approx(np.log(20) / 50)
    # Rounded outwards: a share below a lower number is no larger.
    assert 0 <= 1 - statement.alpha / float(r.min()) < 1e-11
    assert 0 <= statement.beta / float(r.max()) - 1 < 1e-11


def test_what_float32_samples_say_is_said_in_float64():
    A = npgd.Gaussian((1, 4, 4), 5, dtype=torch.float64)
    S = testing.random_prior((1, 4, 4), 3).to(torch.float32)
    statement = estimate_rec(A, S, points=600, looks=("secants",), seed=1).confidence
    x = generate(converted(S), draw_latents(3, 600, 1, torch.float32).double())
    r = ratio(A, x[::2] - x[1::2])
    assert statement.alpha == pytest.approx(float(r.min()), rel=1e-11)
    assert statement.beta == pytest.approx(float(r.max()), rel=1e-11)


@pytest.mark.parametrize("points", [4, 5])
def test_of_two_pairs_both_are_extreme(points):
    """The last one too is computed anew in float64; a fifth sample has no partner."""
    A = npgd.Gaussian((1, 4, 4), 5, dtype=torch.float64)
    S = testing.random_prior((1, 4, 4), 3).to(torch.float32)
    pair = Pair(A, S)
    plan = Plan(RecSettings(points=points), 1, None, False, 3.0)
    found = independent(pair, pair.sample(plan), None, 1)
    x = generate(converted(S), draw_latents(3, points, 1, torch.float32).double())
    np.testing.assert_allclose(found.ratio, ratio(A, x[:4:2] - x[1:4:2]), rtol=1e-11)


def test_equal_samples_are_no_pairs():
    points = testing.normal(4, *SHAPE).repeat_interleave(100, 0)
    estimate = estimate_rec(FIRST, points, looks=("secants",))
    assert 250 < 2 * estimate.confidence.n_pairs < 350  # three of four pairs differ


@pytest.mark.parametrize("counts", [(0, 0), (2, 3)])
def test_given_pairs_have_one_shape_and_hold_an_image(counts):
    pairs = tuple(testing.normal(count, *SHAPE) for count in counts)
    with pytest.raises(
        ValueError, match="pairs must have one shape, that of S's images, and hold an image"
    ):
        estimate_rec(FIRST, testing.normal(3, *SHAPE), pairs=pairs, looks=("secants",))


def test_one_given_pair_is_a_secant_and_no_statement():
    pairs = (testing.normal(1, *SHAPE), testing.normal(1, *SHAPE, seed=1))
    estimate = estimate_rec(FIRST, testing.normal(3, *SHAPE), pairs=pairs, looks=("secants",))
    assert estimate.confidence is None and estimate.histogram.total == 1
    assert estimate.alpha == pytest.approx(float(ratio(FIRST, pairs[0] - pairs[1])), rel=1e-12)
