"""What a work needs is stated before, and what it may take bounds it."""

import logging

import pytest
import torch
from torch import nn

import analysis
import npgd
from analysis import testing
from analysis.memory import Footprint, fitting, gigabytes, memory_of
from analysis.rec.settings import RecSettings
from analysis.rec.tangents import TangentSpace, tangents

S = testing.random_prior((1, 8, 8), 3, seed=0)
A = npgd.Gaussian((1, 8, 8), m=10)


@pytest.mark.parametrize(
    ("words", "count"),
    [(None, None), (2 * 10**9, 2 * 10**9), ("2 GB", 2 * 10**9), ("1.5gb", 15 * 10**8),
     ("500 M", 5 * 10**8), (" 3000000 ", 3 * 10**6), ("1TB", 10**12)],
)  # fmt: skip
def test_a_bound_is_bytes_or_words(words, count):
    assert memory_of(words) == count


@pytest.mark.parametrize("bad", ["much", "2 GiB", "-1 GB", "", 0, 10, 2.5, True, [1]])
def test_what_is_no_bound_is_named(bad):
    with pytest.raises((TypeError, ValueError), match="memory must be"):
        memory_of(bad)


def test_a_footprint_counts_what_a_pass_returns():
    network = nn.Sequential(nn.Linear(4, 100, bias=False), nn.Softplus(), nn.Linear(100, 10))
    found = Footprint.of(network, torch.zeros(1, 4))
    assert found.largest >= 400 and 840 <= found.total < 8000
    assert found.passing(None, 256) == 256 and found.passing(0, 256) == 1
    assert fitting(100.0, 30.0, 8) == 3


def test_a_need_is_rounded_up():
    assert gigabytes(1.999e9) == "2.00 GB" and gigabytes(10**6 + 1) == "2 MB"


def test_the_need_is_said_before_the_work(caplog):
    with caplog.at_level(logging.INFO, "npgd"):
        analysis.estimate_rec(A, S, points=20, tangent_points=2, looks=("secants",))
        analysis.denoising_curve(S, S.sample(2, seed=0), draws=1, memory="100 MB")
        analysis.design_secant_pca(S, 4, points=20, memory=10**9)
    first, second, third = caplog.messages
    assert first.startswith("estimate_rec needs up to about ") and "within" not in first
    assert second.startswith("denoising_curve needs up to") and "memory=100 MB" in second
    assert third.startswith("design_secant_pca needs up to") and "within" in third


def test_a_bound_leaves_what_is_found_as_it_is_where_all_fits():
    settings = {"points": 40, "tangent_points": 3, "search_starts": 2, "search_steps": 2}
    free = analysis.estimate_rec(A, S, **settings)
    bound = analysis.estimate_rec(A, S, **settings, memory="3 GB")
    assert (free.alpha, free.beta) == (bound.alpha, bound.beta)


def test_less_memory_means_fewer_samples_and_directions_at_a_time():
    held = 10**6 // 5 // (64 * 8)
    found = analysis.estimate_rec(A, S, points=10_000, looks=("secants",), memory=10**6)
    assert found.looks["secants"].n_directions == held * (held - 1) / 2
    space = TangentSpace.of(S, torch.zeros(1, 3, dtype=torch.float64))
    least = int(space.need(1)) + 1
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    full, tight = tangents(A.double(), S, z), tangents(A.double(), S, z, memory=least)
    assert abs(full.low - tight.low).max() < 1e-6
    with pytest.raises(ValueError, match=r"memory must be at least .* one tangent space"):
        tangents(A.double(), S, z, memory=1)


def test_of_large_sets_fewer_tangent_spaces_are_looked_at():
    assert RecSettings.of("quick", 100 * 64 * 64 * 3) == RecSettings.of("quick")
    assert RecSettings.of("quick", 512 * 256 * 256 * 3).tangent_points == 2
    assert RecSettings.of("default", 512 * 256 * 256 * 3).tangent_points == 19
