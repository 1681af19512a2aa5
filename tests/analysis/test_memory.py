"""What a work needs is stated before, and what it may take bounds it."""

import logging

import pytest
import torch
from torch import nn

import analysis
import npgd
from analysis import testing
from analysis.memory import ACTIVE, Footprint, fitting, gigabytes, memory_of, passing_within
from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.rec.tangents import TangentSpace, _from_basis, _from_products, tangents
from analysis.report.needs import left_out

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
    held = (10**6 - A.matrix.numel() * 8) // 5 // (64 * 8)  # beside A in float64
    found = analysis.estimate_rec(A, S, points=10_000, looks=("secants",), memory=10**6)
    assert found.looks["secants"].n_directions == held * (held - 1) / 2
    space = TangentSpace.of(S, torch.zeros(1, 3, dtype=torch.float64))
    least = int(space.need(1)) + 1
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    full, tight = tangents(A.double(), S, z), tangents(A.double(), S, z, memory=least)
    assert abs(full.low - tight.low).max() < 1e-6
    with pytest.raises(ValueError, match=r"memory must be at least .* one tangent space"):
        tangents(A.double(), S, z, memory=1)


def test_a_view_takes_no_memory():
    network = nn.Linear(1000, 2, bias=False)
    assert Footprint.of(network, torch.zeros(1, 1000)).largest == 4000  # not its weights, turned


def test_a_bounded_prior_passes_few_images_at_a_time():
    seen: list[int] = []
    S.generator.register_forward_hook(lambda _, given, out: seen.append(len(given[0])))
    one = Footprint.of(lambda z: S.encode(S.generate(z)), torch.zeros(1, 3, dtype=torch.float64))
    bounded = passing_within(S, ACTIVE * one.largest * 2)
    seen.clear()
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(bounded.project(bounded.generate(z)), S.project(S.generate(z)))
    assert seen == [2, 2, 1, 2, 2, 1, 5, 5] and S.rows is None


def test_searches_within_a_bound_find_what_others_find():
    x = S.sample(3, seed=1) + 0.1
    free = analysis.projection_error(S, x, starts=2, steps=5)
    tight = analysis.projection_error(S, x, starts=2, steps=5, memory="1 MB")
    assert torch.allclose(free.deltas, tight.deltas, atol=1e-8)


def test_eigenvalues_from_products_are_those_from_a_basis():
    J = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    J[4] = J[3]  # rank 4
    A = npgd.Gaussian((1, 15, 20), m=40).double()
    (s, _, u), (s2, _, u2) = (f(A, J, (1, 15, 20)) for f in (_from_products, _from_basis))
    assert torch.allclose(s[:4], s2[:4], rtol=1e-7) and s[4] < 1e-5 * s[0] > s2[4]
    low, high = (torch.linalg.eigvalsh(v[:4] @ v[:4].T)[[0, -1]] for v in (u, u2))
    assert torch.allclose(low, high, rtol=1e-6)


def test_of_large_sets_the_tangents_of_a_few_images_are_looked_at(monkeypatch):
    monkeypatch.setattr("analysis.rec.pair.LARGE", 1)
    settings = {"points": 40, "tangent_points": 2, "search_starts": 2, "search_steps": 2}
    found = analysis.estimate_rec(A, S, z_true=S.sample_latents(3, seed=1), **settings).pointwise
    assert found.by_look["tangents"].shape == (3,)
    assert [value == value for value in found.by_look["tangents"]] == [True, True, False]
    assert (found.alpha <= found.by_look["secants"]).all()


QUICK = {"effort": "quick", "count": 2, "n_iter": 3}


def test_verify_says_first_what_it_needs_and_stays_within(caplog):
    with caplog.at_level(logging.INFO, "npgd"):
        bounded = analysis.verify(A, S, **QUICK, memory="500 MB")
    assert caplog.messages[0].startswith("verify needs up to about ")
    assert caplog.messages[0].endswith("within memory=0.50 GB")
    free = analysis.verify(A, S, **QUICK)
    assert bounded.rec.alpha == free.rec.alpha
    assert torch.allclose(bounded.solution.objective, free.solution.objective)
    assert "cut short" not in free.settings


def test_a_run_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"memory must be at least .* iterations of 900 images"):
        analysis.verify(A, S, effort="quick", count=900, memory="1 MB")


def test_what_is_cut_short_is_said_with_what_runs_it(monkeypatch, caplog):
    assert left_out(S, "quick", None, None) == {}
    monkeypatch.setattr("analysis.report.needs.LARGE", 1)
    monkeypatch.setattr("analysis.report.predictions.LARGE", 1)
    with caplog.at_level(logging.INFO, "npgd"):
        report = analysis.verify(A, S, **QUICK)
    cut = left_out(S, "quick", None, None)
    assert set(cut) == {"local rates", "tangents", "searches", "projector error"}
    assert all("analysis." in why or "=" in why for why in cut.values())
    assert report.settings["cut short"] == cut
    assert f"Cut short at this size ({', '.join(cut)})" in " ".join(str(report.screen).split())
    assert all(name in report.to_html() for name in ("Cut short at this size", cut["tangents"]))
    assert any("cut short at this size: local rates" in text for text in caplog.messages)
    assert "searches" not in left_out(S, "default", None, None)


def test_a_local_rate_that_does_not_fit_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr("analysis.report.predictions.together", lambda n: 10**9)
    report = analysis.verify(A, S, **QUICK, memory="500 MB")
    assert "`memory` has not left" in report.predictions.without["exact"]


def test_of_large_sets_fewer_tangent_spaces_are_looked_at():
    assert RecSettings.of("quick", 100 * 64 * 64 * 3) == RecSettings.of("quick")
    assert RecSettings.of("quick", 512 * 256 * 256 * 3).tangent_points == 2
    assert RecSettings.of("quick", 512 * 256 * 256 * 3).search_starts == 3
    assert RecSettings.of("default", 512 * 256 * 256 * 3).tangent_points == 19
    assert ProjectionSettings.of("quick", 512 * 256 * 256 * 3).points == 4
    assert ProjectionSettings.of("default", 512 * 256 * 256 * 3).points == 24
