"""Advice: what is tried, what counts as a gain, and that following it does what was said."""

import json
import shlex

import numpy as np
import pytest
import torch

import analysis
import npgd
from analysis import testing
from analysis.advice import LEVEL, Advice, Change, Trial
from npgd.images import squared_norm

SHAPE = (1, 4, 4)
N = 16


def trial(without: list[float], error: list[float], **settings) -> Trial:
    change = Change(settings.pop("name", "it"), "do it", "it()", **settings)
    values = (torch.tensor(numbers, dtype=torch.float64) for numbers in (without, error))
    return Trial(change, *values, 0.0, torch.zeros(len(error), *SHAPE))


def signed_ranks(gain: np.ndarray) -> float:
    """P(W ≥ w) of the signed-rank statistic, by all 2^n signs."""
    ranks = np.abs(gain).argsort().argsort() + 1
    signs = np.array(np.meshgrid(*[[0, 1]] * len(gain))).reshape(len(gain), -1)
    return float((signs.T @ ranks >= ranks[gain > 0].sum()).mean())


@pytest.mark.parametrize("seed", range(6))
def test_chance_is_that_of_all_signs(seed: int) -> None:
    gain = np.random.default_rng(seed).normal(0.4, 1, 9)
    before = np.full(9, 5.0)
    found = trial(before.tolist(), (before - gain).tolist())
    assert found.chance == pytest.approx(signed_ranks(gain))
    assert found.gains == (gain.mean() > 0 and signed_ranks(gain) <= LEVEL)


def test_a_few_images_cannot_tell_a_gain_from_chance() -> None:
    assert not trial([1.0] * 6, [0.5] * 6).gains
    assert trial([1.0] * 7, [0.5] * 7).gains
    few = Advice(torch.ones(6), (trial([1.0] * 6, [0.5] * 6),), {})
    assert few.ranked == () and "with 6 images none could" in few.status


def test_a_median_gain_with_a_higher_mean_is_no_gain() -> None:
    worse = [0.9] * 19 + [10.0]
    found = trial([1.0] * 20, worse)
    assert found.chance <= LEVEL and not found.gains


def test_other_data_come_after_what_needs_none() -> None:
    ones = [1.0] * 8
    data = trial(ones, [0.1] * 8, name="more", data=True)
    solver, better = trial(ones, [0.5] * 8, name="a"), trial(ones, [0.4] * 8, name="b")
    advice = Advice(torch.ones(8), (data, solver, better), {})
    assert [each.change.name for each in advice.ranked] == ["b", "a", "more"]
    assert advice.status.startswith("do it: error 1 → 0.4 (60 % less)")


def test_a_share_is_rounded_down() -> None:
    assert "(99 % less)" in str(trial([1.0] * 2, [0.001] * 2))
    assert "%" not in str(trial([1.0] * 2, [0.995] * 2))
    assert "%" not in str(trial([1.0] * 2, [1.5] * 2))


def test_nothing_is_left_to_gain_on_an_affine_set_that_is_recovered() -> None:
    S = testing.random_affine_set(SHAPE, 2, 0)
    x = S.sample(8, seed=1)
    everything = npgd.MatrixOperator(torch.eye(N, dtype=torch.float64), SHAPE)
    advice = analysis.advise(everything, S, x, everything(x), effort="quick")
    assert advice.exact and advice.ranked == ()
    assert "nothing is left to gain" in advice.status and "chance" not in str(advice)


@pytest.fixture(scope="module")
def advice() -> Advice:
    """A network's, with noise."""
    prior = testing.random_prior(SHAPE, 2)
    A = npgd.Gaussian(SHAPE, 4, seed=0, dtype=torch.float64)
    x = 0.5 * testing.normal(8, *SHAPE)
    y = A(x) + 0.05 * testing.normal(8, 4)
    return analysis.advise(A, prior, x, y, noise=0.05, seed=3)


def test_every_candidate_is_tried_or_has_a_reason(advice: Advice) -> None:
    names = {each.change.name for each in advice.trials} | set(advice.without)
    assert names >= {
        "finish", "refine", "message passing", "deviation", "total variation",
        "plug-and-play ADMM", "twice the measurements", "designed A", "half the noise",
    }  # fmt: skip
    assert set(advice.without) == {"plug-and-play ADMM"}  # 4 × 4: no sides to halve twice
    for each in advice.trials:
        torch.testing.assert_close(each.gain, advice.error - each.error)
    assert advice.best_without_prior.change.name == "total variation"


def test_only_what_is_named_is_tried_and_what_is_known_is_not_run_again(advice: Advice) -> None:
    prior = testing.random_prior(SHAPE, 2)
    A = npgd.Gaussian(SHAPE, 4, seed=0, dtype=torch.float64)
    x = 0.5 * testing.normal(8, *SHAPE)
    known = npgd.recover(A, A(x), npgd.NPGD(prior, 0.1, max_iter=1))
    found = analysis.advise(A, prior, x, A(x), only=("finish",), tried={"finish": known})
    (one,) = found.trials
    torch.testing.assert_close(one.error, squared_norm(known.x - x) / N)
    with pytest.raises(ValueError, match="only must be some of"):
        analysis.advise(A, prior, x, A(x), only=("nothing",))


def test_a_solver_that_fails_has_its_reason(monkeypatch) -> None:
    def fails(*_):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(analysis.advice, "solver_of", fails)
    prior = testing.random_prior(SHAPE, 2)
    A = npgd.Gaussian(SHAPE, 4, seed=0, dtype=torch.float64)
    x = prior.sample(3, seed=0)
    found = analysis.advise(A, prior, x, A(x), effort="quick")
    assert found.without["deviation"] == "failed: no such thing"
    assert [each.change.name for each in found.trials] == ["finish", "twice the measurements"]


@pytest.mark.parametrize(
    ("A", "name", "options"),
    [
        (npgd.StructuredRandom(SHAPE, 4, 3, dtype=torch.float64), "twice the measurements",
         {"--m": "8"}),
        (npgd.Radon(SHAPE, 2), "twice the angles", {"--angles": "4"}),
    ],
)  # fmt: skip
def test_more_of_the_same_measurements_are_tried_as_python_says(A, name, options) -> None:
    prior = testing.random_prior(SHAPE, 2)
    x = prior.sample(3, seed=0)
    found = analysis.advise(A, prior, x, A(x), effort="quick", seed=3, only=(name,))
    (one,) = found.trials
    # Its encoder does not project, so that a run would finish by itself.
    assert one.change.options == options | {"--finish": "0"} and one.change.data
    assert found.run == "NPGD(prior, finish=0)"
    more = eval(one.change.python, {"npgd": npgd, "prior": prior}).double()
    again = npgd.recover(more, more(x), npgd.NPGD(prior, finish=0), x_true=x)
    torch.testing.assert_close(one.error, again.error[-1].double().cpu())


def test_prints_one_screen_and_plain_numbers(advice: Advice) -> None:
    assert len(repr(advice).splitlines()) < 20
    written = json.loads(json.dumps(advice.to_dict()))
    assert written["advice"] == [each.change.name for each in advice.ranked]
    for each in written["trials"]:
        assert each["gain"] == pytest.approx(each["mean_without"] - each["mean_with"])


def test_the_command_keeps_what_was_given_and_changes_what_it_says() -> None:
    given = {"--prior": "celeba", "--m": "100", "--noise": "0.1", "--download": ""}
    halved = Change("half the noise", "", "", {"--noise": "0.05"})
    assert shlex.split(halved.command(given)) == shlex.split(
        "npgd recover --prior celeba --m 100 --noise 0.05 --download --output half-the-noise"
    )
    designed = Change("designed A", "", "", {"--operator": "d", "--m": None}, "npgd design --m 100")
    first, second = designed.command(given).splitlines()
    assert first == "npgd design --m 100 --prior celeba"
    assert "--m " not in second and "--operator d" in second
