"""Settings of `estimate_rec`: named where they do not fit, chosen by effort."""

from dataclasses import replace

import pytest
import torch

import analysis
import npgd
from analysis import testing
from analysis.rec import RecSettings

A = npgd.Gaussian((1, 4, 4), 5, dtype=torch.float64)
S = testing.random_affine_set((1, 4, 4), 2)


def test_efforts_look_harder_one_after_another():
    quick, default, thorough = map(RecSettings.of, ("quick", "default", "thorough"))
    assert default == RecSettings()
    for name in ("points", "tangent_points", "search_starts", "search_steps"):
        assert getattr(quick, name) < getattr(default, name) < getattr(thorough, name)
    with pytest.raises(ValueError, match="effort must be one of quick, default, thorough"):
        RecSettings.of("low")


def test_keywords_change_single_settings():
    given = RecSettings(points=50, tangent_points=4, looks=("secants", "tangents"))
    by_object = analysis.estimate_rec(A, S, given)
    by_keywords = analysis.estimate_rec(
        A, S, points=50, tangent_points=4, looks=["secants", "tangents"]
    )
    mixed = analysis.estimate_rec(A, S, replace(given, points=9), points=50)
    for estimate in (by_keywords, mixed):
        assert list(estimate.looks) == ["secants", "tangents"]
        for name, look in by_object.looks.items():
            assert estimate.looks[name].alpha == look.alpha
    with pytest.raises(TypeError, match="got point, radius"):
        analysis.estimate_rec(A, S, point=3, radius=1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"points": 1}, ValueError, "points must be at least 2, got 1"),
        ({"points": 2.5}, TypeError, "points must be an integer, got 2.5"),
        ({"tangent_points": 0}, ValueError, "tangent_points must be at least 1, got 0"),
        ({"search_starts": 0}, ValueError, "search_starts must be at least 1, got 0"),
        ({"search_steps": 0}, ValueError, "search_steps must be at least 1, got 0"),
        ({"bins": 0}, ValueError, "bins must be at least 1, got 0"),
        ({"epsilon": 1.0}, ValueError, "epsilon must be between 0 and 1, got 1.0"),
        ({"epsilon": 0.0}, ValueError, "epsilon must be"),
        ({"looks": ("secant",)}, ValueError, "looks must be some of"),
        ({"looks": "secants"}, ValueError, "looks must be some of"),
        ({"latent_radius": -1.0}, ValueError, "latent_radius must be"),
    ],
)
def test_wrong_settings_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        RecSettings(**changes)
