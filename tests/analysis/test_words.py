"""What is printed as at least or at most is, and the digits are the nearest that can be."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.words import (
    about,
    apart,
    at_least,
    at_most,
    decibels,
    exactly,
    median,
    out_of,
    sentence,
    spread,
)

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
digits = st.integers(1, 9)


@given(numbers, digits)
def test_rounding_is_outward(value, places):
    assert float(at_least(value, places)) <= value <= float(at_most(value, places))


@given(numbers.filter(lambda value: abs(value) > 1e-290), digits)
def test_rounding_outward_loses_at_most_a_unit_of_the_last_digit(value, places):
    unit = 10.0 ** (math.floor(math.log10(abs(value))) + 1 - places) * 1.001
    for text in (at_least(value, places), at_most(value, places)):
        assert abs(float(text) - value) <= unit
    assert abs(float(about(value, places)) - value) <= unit


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (1.9996, "1.99", "2"),
        (2.0004, "2", "2.01"),
        (9.999, "9.99", "10"),
        (-1.2345, "-1.24", "-1.23"),
        (0.0, "0", "0"),
        (math.inf, "∞", "∞"),
        (math.nan, "–", "–"),
        (123456.0, "1.23e+05", "1.24e+05"),
    ],
)
def test_known_roundings(value, low, high):
    assert at_least(value) == low and at_most(value) == high


@given(st.floats(1.0, 3.0))
def test_an_exact_number_prints_on_its_side_of_the_limit(value):
    assert (float(exactly(value, 2)) < 2) == (value < 2)


def test_three_digits_are_usual_and_four_of_what_is_exact():
    assert about(1.23456) == "1.23" and exactly(1.23456, 2) == "1.235"


def test_a_number_beside_its_limit_shows_its_side():
    assert exactly(1.99999, 2) == "1.99999" and exactly(2.00001, 2) == "2.00001"
    assert exactly(1.96, 2) == "1.96" and exactly(2.0, 2) == "2"
    assert exactly(math.inf, 2) == "∞" and at_least(-math.inf) == "−∞"


def test_what_is_told_apart_stays_apart():
    assert apart(0.5, 0.6) == ("0.5", "0.6")
    assert apart(0.12345678, 0.12345679) == ("0.12345678", "0.12345679")


def test_counts_are_said_as_a_reader_would():
    assert out_of(12, 12) == "all 12 images"
    assert out_of(2, 2) == "both images"
    assert out_of(0, 12) == "none of 12 images"
    assert out_of(5, 12) == "5 of 12 images"
    assert out_of(1, 1) == "the one image" and out_of(0, 1) == "no image"


def test_medians_leave_nan_out():
    assert median(torch.tensor([math.nan, 1.0, 3.0, 5.0])) == 3
    assert math.isnan(median(torch.tensor([math.nan]))) and math.isnan(median(torch.zeros(0)))


def test_decibels_are_the_mean_of_the_images_not_those_of_their_mean_error():
    error = torch.tensor([0.04, 0.0004])
    assert decibels(error) == "30.0 dB" and decibels(error[0]) == "20.0 dB"
    assert decibels(error.mean()) == "23.0 dB"
    assert decibels(torch.tensor([0.0, 1e-25])) == "exact to rounding"
    assert decibels(torch.tensor([0.0, 0.04])) == "∞ dB"
    assert decibels(torch.tensor([math.nan, 0.04])) == "not finite"


def test_spreads_and_sentences():
    assert spread(1.001, 1.002) == "1" and spread(1, 2.5) == "1 to 2.5"
    assert sentence("the end") == "The end." and sentence("δ is 0") == "δ is 0."
