"""An observed rate is that of a geometric fall, names its range, and is refused elsewhere."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from analysis import rates, testing
from analysis.rates.fits import line_of

DOUBLE = torch.float64
many = settings(deadline=None, max_examples=40)


def numbers(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=DOUBLE)


def seen(values: torch.Tensor, **options) -> rates.ObservedRate:
    """Of one run."""
    return rates.observed_rate(values[:, None], **options)


@many
@given(
    rate=st.floats(0.05, 0.9),
    initial=st.floats(-3, 3).map(lambda e: 10**e),
    floor=st.sampled_from([0.0, 1e-6, 1e-3]),
)
def test_observed_rate_of_a_geometric_fall(rate, initial, floor):
    observed = seen(initial * (rate ** numbers(200) + floor))
    assert float(observed.rate[0]) == pytest.approx(rate, rel=0.005)
    assert observed.first == (0,) and observed.last[0] >= 2
    assert observed.reasons == ("",) and observed.period.isnan().all()
    if floor:
        assert observed.after == ("rests",) and "Afterwards it levels off" in observed.status
        assert float(observed.floor[0]) == pytest.approx(initial * floor, rel=3e-3)
        # To within a tenth of the floor, or one iterate before: where the run ends soon after, its
        # last values, whose mean says where the fit must stop, still fall a little.
        assert rate ** observed.last[0] >= 0.1 * floor * 0.999
        assert rate ** (observed.last[0] + 2) <= 0.1 * floor * 1.001


def test_a_fall_that_turns_into_a_rise_is_told_with_its_range():
    n = numbers(60)
    observed = seen(torch.cat([0.84 ** n[:15], 0.84**14 * 1.02 ** (n[:20] + 1)]))
    assert float(observed.rate[0]) == pytest.approx(0.84, rel=1e-3)
    assert observed.last == (14,) and observed.after == ("rises",)
    assert float(observed.after_factor[0]) == pytest.approx(1.02, rel=1e-3)
    assert "fitted on x_0 to x_14" in observed.status
    assert "Afterwards it rises, by a factor 1.02 per step" in observed.status
    grown = seen(torch.cat([0.6 ** n[:20], 0.6**19 * 1.05 ** (n[:30] + 1)]))
    assert float(grown.rate[0]) == pytest.approx(0.6, rel=1e-3)
    assert grown.last == (19,) and "rises, by a factor 1.05 per step" in grown.status


def test_a_fall_that_breaks_off_has_its_own_rate_not_that_above_a_floor():
    n = numbers(60)
    risen = seen(torch.cat([0.84 ** n[:15], 0.84**14 * 1.01 ** (n[:16] + 1)]))
    assert float(risen.rate[0]) == pytest.approx(0.84, rel=1e-9)
    assert risen.last == (14,) and risen.after == ("rises",) and risen.floor[0] == 0
    still = seen(torch.cat([0.5 ** n[:8], 0.5**7 * 0.999 ** (n[:23] + 1)]))
    assert float(still.rate[0]) == pytest.approx(0.5, rel=1e-9)
    assert still.last == (7,) and still.after == ("rests",)


@pytest.mark.parametrize("period", [3, 6, 9])
def test_a_fall_that_ends_in_circles_is_told(period):
    n = numbers(60)
    circling = 1e-2 * (1 + 0.5 * torch.cos(2 * math.pi * n / period))
    observed = seen(0.5**n + circling)
    assert float(observed.rate[0]) == pytest.approx(0.5, rel=0.1)
    assert observed.after == ("circles",)
    assert "Afterwards it circles around a level" in observed.status
    noise = torch.exp(0.2 * testing.normal(60, 60, seed=3))
    assert "circles" not in rates.observed_rate(0.5 ** n[:, None] + 1e-2 * noise).after


def test_a_fall_that_slows_is_told():
    n = numbers(20)
    observed = seen(torch.cat([0.6**n, 0.6**19 * 0.9 ** (n[:10] + 1)]))
    assert float(observed.rate[0]) == pytest.approx(0.6, rel=1e-3) and observed.last == (19,)
    assert observed.after == ("slows",) and "falls more slowly, by a factor 0.9" in observed.status


def test_of_two_falls_the_longer_has_the_rate():
    n = numbers(30)
    observed = seen(0.1**n + 1e-2 * 0.7**n)
    assert float(observed.rate[0]) == pytest.approx(0.7, rel=0.01)
    assert observed.first[0] >= 1 and observed.last == (29,) and observed.after == ("ends",)


@pytest.mark.parametrize("period", [2.5, 6, 7, 15])
@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_an_oscillating_fall_has_its_rate_and_its_period(period, floor):
    n = numbers(140)
    observed = seen(0.9**n * (2 + torch.cos(2 * math.pi * n / period)) + floor)
    assert float(observed.rate[0]) == pytest.approx(0.9, rel=0.01)
    assert float(observed.period[0]) == pytest.approx(period, rel=0.02)
    assert "It swings with a period of" in observed.status
    assert observed.after == ("rests" if floor else "ends",)


@pytest.mark.parametrize("period", [2, 6, 15, 30])
def test_circling_is_no_fall(period):
    observed = seen(2 + torch.cos(2 * math.pi * numbers(90) / period))
    assert observed.rate.isnan().all()
    assert f"it circles with a period of {period} iterates" in observed.status


@pytest.mark.parametrize(("before", "rate"), [(1.0, 0.7), (0.97, 0.6), (1.01, 0.8)])
def test_a_steeper_fall_after_a_level_start_has_its_own_rate(before, rate):
    n = numbers(40)
    noise = torch.exp(0.02 * testing.normal(31, 50, seed=11))
    values = torch.cat([before ** n[:12], before**11 * rate ** (n[:19] + 1)])
    exact = seen(values)
    assert float(exact.rate[0]) == pytest.approx(rate, rel=1e-6)
    assert exact.first == (11,) and exact.last == (30,)
    noisy = rates.observed_rate(values[:, None] * noise)
    assert float((noisy.rate / rate - 1).abs().max()) <= 0.02


@pytest.mark.parametrize("count", [31, 100])
@pytest.mark.parametrize("step", [0.1, 0.3])
def test_few_random_walks_have_a_rate(step, count):
    walks = testing.normal(count, 300, seed=13).mul(step).cumsum(0)
    found = ~rates.observed_rate(torch.exp(walks)).rate.isnan()
    assert float(found.double().mean()) <= 0.08


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("count", [20, 100])
def test_a_power_law_has_no_rate(power, count):
    observed = seen(1 / (1 + numbers(count)) ** power)
    assert observed.rate.isnan().all()
    assert f"it falls ever more slowly, about as n^−{power}" in observed.status


@pytest.mark.parametrize("after", [10, 30])
def test_a_single_drop_is_no_geometric_fall(after):
    drop = torch.cat([torch.ones(10, dtype=DOUBLE), torch.full((after,), 0.01, dtype=DOUBLE)])
    observed = seen(drop)
    assert observed.rate.isnan().all()
    assert "F_n is level up to x_9, drops from 1 to 0.01 at x_10" in observed.status


def test_a_slower_fall_is_told_where_it_prints_as_slower():
    told = seen(torch.cat([0.6 ** numbers(20), 0.6**19 * 0.9 ** (numbers(10) + 1)]))
    assert "falls more slowly" in told.status
    alike = replace(told, after_factor=told.rate + 1e-6)
    assert "more slowly" not in alike.status


def test_a_drift_is_no_fall():
    observed = seen(0.994 ** numbers(90))
    assert observed.rate.isnan().all()
    assert "it drifts down by 0.6 % a step, 41 % in all" in observed.status
    # However small: nothing says that it will stop.
    assert "it drifts down by 0.1 % a step, 3 % in all" in seen(0.999 ** numbers(31)).status
    assert "rises from x_0 to x_1, and by 0.1 % a step" in seen(1.001 ** numbers(31)).status


NOISES = {
    "normal": lambda x: (1 + 0.3 * x).abs(),
    "log-normal": torch.exp,
    "squared": torch.square,
    "small": lambda x: 1 + 0.05 * x,
}


@pytest.mark.parametrize("count", [5, 8, 15, 40, 100])
@pytest.mark.parametrize("noise", NOISES)
def test_stationary_noise_has_no_rate(noise, count):
    values = NOISES[noise](testing.normal(count, 150, seed=count))
    observed = rates.observed_rate(values)
    assert float(observed.rate.isnan().double().mean()) >= 0.97
    assert all(bool(reason) == bool(r.isnan()) for reason, r in zip(
        observed.reasons, observed.rate, strict=True))  # fmt: skip


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.8, 0.9])
@pytest.mark.parametrize(("spread", "allowed"), [(0.02, 0.03), (0.1, 0.08), (0.3, 0.16)])
def test_a_noisy_fall_has_its_rate(rate, spread, allowed):
    """90 % of the draws within what so few iterates allow, and no median off by more than 4 %."""
    noise = torch.exp(spread * testing.normal(40, 60, seed=5))
    observed = rates.observed_rate((rate ** numbers(40)[:, None] + 1e-3) * noise)
    assert not observed.rate.isnan().any()
    relative = observed.rate / rate - 1
    assert abs(float(relative.median())) <= 0.04
    assert float(relative.abs().quantile(0.9)) <= allowed


def test_a_noisy_floor_is_told_to_a_few_percent():
    """The middle of the level stretch, not its least nor its last value."""
    noise = torch.exp(0.2 * testing.normal(60, 40, seed=7))
    observed = rates.observed_rate((0.6 ** numbers(60)[:, None] + 1e-3) * noise)
    assert float((observed.floor / 1e-3 - 1).abs().quantile(0.9)) <= 0.1
    assert set(observed.after) == {"rests"}


def test_a_given_floor_is_taken_off():
    n = numbers(12)
    observed = seen(0.8**n + 0.05, floor=0.05)
    assert float(observed.rate[0]) == pytest.approx(0.8, rel=1e-9)
    assert float(observed.floor[0]) == 0.05 and observed.last == (11,)
    settled = seen(0.5**n + 0.05, floor=0.05)
    assert settled.last == (7,) and settled.after == ("rests",)


def test_a_fall_from_just_above_its_floor_has_a_rate():
    """From 1.4 times the floor; within a tenth of it there is none to see."""
    n = numbers(40)
    observed = seen(1 + 0.4 * 0.8**n)
    assert float(observed.rate[0]) == pytest.approx(0.8, rel=0.01)
    assert "within 10 % of the floor" in seen(1 + 0.09 * 0.8**n).reasons[0]


def test_the_first_rows_are_left_out():
    values = torch.cat([torch.tensor([7.0, 9.0], dtype=DOUBLE), 0.7 ** numbers(20)])
    observed = seen(values, start=2)
    assert observed.first == (2,) and observed.last == (21,) and observed.after == ("ends",)
    assert float(observed.rate[0]) == pytest.approx(0.7)
    assert "fitted on x_2 to x_21" in observed.status


def test_several_images_are_counted():
    n = numbers(40)
    values = torch.stack([0.7**n + 1e-4, 0.8**n, 0.6**n + 1e-6, 2 + torch.cos(n)], 1)
    observed = rates.observed_rate(values)
    assert observed.after == ("rests", "ends", "rests", "")
    assert "per step (median of 3, fitted on x_0 to x_" in observed.status
    assert "Afterwards it levels off for 2" in observed.status
    assert observed.median == pytest.approx(0.7, rel=5e-3)
    plain = json.loads(json.dumps(observed.to_dict(), allow_nan=False))
    assert plain["after"] == list(observed.after) and plain["period"][0] is None


def test_the_middle_of_what_came_after_is_told():
    n = numbers(20)
    values = [torch.cat([0.6**n, 0.6**19 * r ** (n[:12] + 1)]) for r in (1.05, 1.3, 1.1)]
    observed = rates.observed_rate(torch.stack(values, 1))
    assert observed.after == ("rises",) * 3
    assert "Afterwards it rises for 3, by a factor 1.1 per step" in observed.status


@pytest.mark.parametrize("count", [3, 6, 30])
def test_the_slope_has_the_standard_error_of_least_squares(count):
    y = -0.3 * numbers(count) + 0.1 * testing.normal(count, seed=count)
    line, expected = line_of(y.numpy()), linregress(numbers(count), y)
    assert math.isnan(line.period)
    assert line.slope == pytest.approx(expected.slope, rel=1e-9)
    assert line.error == pytest.approx(expected.stderr, rel=1e-9)
    assert line.r_squared == pytest.approx(expected.rvalue**2, rel=1e-9)


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        ([1.0, 2.0, 4.0, 8.0], "rises from x_0 to x_1, and by 100 % a step"),
        ([1.0, 1.0, 1.0, 1.0, 1.0], "x_0 is already within 10 % of the floor 1"),
        ([5.0, 1.0, 1.0, 1.0, 1.0, 1.0], "x_1 has reached the floor 1"),
        ([5.0, 1.0], "the run ends"),
        ([5.0, 2.0, 1.0], "the run ends"),
        ([5.0, 2.0, 3.0], "the objective rises from x_1 to x_2"),
        ([0.0, 0.0, 0.0], "x_0 is already 0"),
    ],
)
def test_no_rate_comes_with_a_reason(objective, reason):
    observed = seen(torch.tensor(objective, dtype=DOUBLE))
    assert reason in observed.reasons[0] and reason in observed.status
    assert observed.rate.isnan().all() and observed.after == ("",)
    json.dumps(observed.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3),), "objective must be of shape"),
        ((-torch.ones(3, 1),), "objective must be finite and not negative"),
        ((torch.full((3, 1), math.nan),), "objective must be finite"),
    ],
)
def test_door(arguments, message):
    with pytest.raises(ValueError, match=message):
        rates.observed_rate(*arguments)
    with pytest.raises(ValueError, match="start must be from 0 to n_iter = 2, got 3"):
        rates.observed_rate(torch.ones(3, 1), start=3)
