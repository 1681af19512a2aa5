"""Denoisers denoise: shrinkage of wavelets, and the network that is shipped."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.testing import normal, seeds
from npgd.denoisers import WaveletShrinkage, load_denoiser, save_network
from npgd.networks import DenoisingNetwork, ProximalNetwork

DOUBLE = torch.float64


@pytest.mark.parametrize(
    ("rule", "sigma"), [("bayes", 0.1), ("bayes", 0.3), ("bayes", 1.0), ("universal", 1.0)]
)
def test_wavelet_shrinkage_denoises(rule, sigma, digits):
    """The universal threshold under strong noise only: at σ = 0.1 its blur is the larger error."""
    w = digits + sigma * normal(*digits.shape, seed=1).float()
    for shifts in (1, 4):
        cleaned = WaveletShrinkage(rule=rule, shifts=shifts)(w, sigma)
        ratio = (cleaned - digits).square().mean() / (w - digits).square().mean()
        assert float(ratio) < 0.8


@settings(deadline=None, max_examples=10)
@given(seed=seeds, sigma=st.floats(0.01, 2.0), shifts=st.integers(1, 3))
def test_shrinkage_shrinks_and_vanishing_noise_leaves_all(seed, sigma, shifts):
    """‖D(w) − o‖ ≤ ‖w − o‖; a universal threshold is nonexpansive; σ → 0 gives the identity."""
    a, b = normal(2, 2, 12, 12, seed=seed), normal(2, 2, 12, 12, seed=seed + 1)
    bayes, universal = (
        WaveletShrinkage(shifts=shifts),
        WaveletShrinkage(rule="universal", shifts=shifts),
    )
    assert float((bayes(a, sigma) + 1).norm()) <= float((a + 1).norm()) * (1 + 1e-12)
    apart = (universal(a, sigma) - universal(b, sigma)).norm()
    assert float(apart) <= float((a - b).norm()) * (1 + 1e-12)
    torch.testing.assert_close(bayes(a, 1e-9), a, rtol=0, atol=1e-6)


def test_shrinkage_takes_a_level_for_each_image():
    w, shrink = normal(3, 1, 12, 12), WaveletShrinkage()
    together = shrink(w, torch.tensor([0.1, 0.5, 2.0], dtype=DOUBLE))
    alone = torch.cat([shrink(w[i : i + 1], s) for i, s in enumerate((0.1, 0.5, 2.0))])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("rule", ["bayes", "universal"])
def test_without_noise_shrinkage_is_the_identity_also_on_constant_images(rule):
    w = torch.cat([normal(2, 1, 12, 12), torch.full((1, 1, 12, 12), -1.0, dtype=DOUBLE)])
    torch.testing.assert_close(WaveletShrinkage(rule=rule)(w, 0.0), w, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "error"),
    [
        (-0.1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("a", TypeError),
        (None, TypeError),
        (True, TypeError),
        (torch.tensor([0.1, -0.1, 0.1]), ValueError),
        (torch.tensor([0.1, 0.1]), ValueError),
        (torch.ones(3, 1), ValueError),
        (torch.tensor([1, 1, 1]), TypeError),
    ],
)
def test_a_noise_level_that_is_none_is_refused_by_name(sigma, error):
    with pytest.raises(error, match="sigma must "):
        WaveletShrinkage()(normal(3, 1, 12, 12), sigma)


@pytest.mark.parametrize("shape", [(1, 27, 27), (1, 28, 27), (3, 4, 4)])
def test_shrinkage_of_images_without_a_wavelet_basis_says_so(shape):
    with pytest.raises(ValueError, match="must have even sides of 6 or more for a wavelet basis"):
        WaveletShrinkage()(normal(2, *shape), 0.1)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"rule": "sure"}, ValueError, "rule must be"),
        ({"wavelet": "bior2.2"}, ValueError, "wavelet must be orthogonal"),
        ({"wavelet": 3}, TypeError, "wavelet must be the name of a wavelet, got 3"),
        ({"levels": 1.5}, TypeError, "levels must be an integer"),
        ({"levels": -1}, ValueError, "levels must be at least 0"),
        ({"shifts": 0}, ValueError, "shifts must be at least 1"),
        ({"origin": float("nan")}, ValueError, "origin must be finite"),
        ({"origin": "black"}, TypeError, "origin must be a number"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(fields, error, message):
    with pytest.raises(error, match=message):
        WaveletShrinkage(**fields)


def test_networks_are_saved_and_loaded_by_name_and_kind(tmp_path):
    network = DenoisingNetwork(4).eval()
    save_network(network, tmp_path / "d.safetensors", {"width": 4}, {"data": "none"})
    loaded = load_denoiser(tmp_path / "d.safetensors", dtype=DOUBLE)
    w = normal(2, 1, 8, 8)
    torch.testing.assert_close(loaded(w, 0.5), network.double()(w, 0.5), rtol=1e-2, atol=1e-2)
    assert (tmp_path / "d.json").read_text().startswith("{")
    save_network(ProximalNetwork(4), tmp_path / "p.safetensors", {"width": 4})
    with pytest.raises(ValueError, match="must hold a denoiser"):
        load_denoiser(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="name must be a shipped denoiser"):
        load_denoiser("fourier")


def test_the_shipped_denoiser_beats_wavelets_by_far(digits):
    """On test digits, by 2 dB and more at every noise level."""
    network = load_denoiser("mnist")
    for sigma in (0.1, 0.3, 1.0):
        w = digits + sigma * normal(*digits.shape, seed=1).float()
        error = (network(w, sigma) - digits).square().mean()
        assert float(error) < 10**-0.2 * float(
            (WaveletShrinkage()(w, sigma) - digits).square().mean()
        )
