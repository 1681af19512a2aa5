"""The corrector: a gradient step at its start, better than none once trained, resumable."""

import pytest
import torch
from torch import nn

import npgd
from analysis.testing import normal
from npgd import GenerativePrior, load_prior, save_prior
from npgd.networks import Corrector, DCGANGenerator, Encoder
from npgd.networks.corrector import initialise_corrector
from npgd.training import CorrectorConfig, train_corrector
from npgd.training.loop import generator_for

ARCHITECTURE = {
    "generator": {"name": "DCGANGenerator", "settings": {"latent_dim": 6, "width": 8}},
    "encoder": {"name": "Encoder", "settings": {"latent_dim": 6, "width": 8, "hidden": 16}},
    "corrector": {"name": "Corrector", "settings": {"latent_dim": 6, "hidden": 24}},
}


def networks(seed: int = 0) -> tuple[nn.Module, nn.Module, Corrector]:
    torch.manual_seed(seed)
    g, e, c = DCGANGenerator(6, 8), Encoder(6, 8, 16), Corrector(6, 24)
    initialise_corrector(c, generator_for(seed))
    return g.eval(), e.eval(), c


def test_the_start_is_a_gradient_step():
    """On an affine G with h = 1 the step is ½ Jᵀ(w − G(z))/((1 + ρ)√n)."""
    c = Corrector(6, 24).double()
    initialise_corrector(c, generator_for(0))
    with torch.no_grad():
        c.gate.weight.zero_()
    basis = normal(6, 30, seed=1)
    z = normal(4, 6, seed=2)
    w = normal(4, 1, 5, 6, seed=3)

    def generate(z):
        return (z @ basis).reshape(-1, 1, 5, 6)

    residual = (w - generate(z)).flatten(1)
    rho = residual.square().mean(1, keepdim=True).sqrt()
    expected = z + 0.5 * residual @ basis.T / ((1 + rho) * 30**0.5)
    assert torch.allclose(c(w, z, generate), expected, rtol=1e-10)


def test_a_step_goes_downhill_and_stays_where_the_gradient_is_zero():
    """C diag(h) Cᵀ is positive definite whatever h's network says; Jᵀ(w − G(z)) = 0 is at rest."""
    c = Corrector(6, 24).double()
    initialise_corrector(c, generator_for(0))
    with torch.no_grad():
        for part in c.parameters():
            part.copy_(3 * normal(*part.shape, seed=part.numel()))
    basis = torch.linalg.qr(normal(30, 6, seed=1)).Q.T

    def generate(z):
        return (z @ basis).reshape(-1, 1, 5, 6)

    z, w = normal(50, 6, seed=2), normal(50, 1, 5, 6, seed=3)
    g = (w - generate(z)).flatten(1) @ basis.T
    moved = c(w, z, generate).detach() - z
    assert (moved * g).sum(1).gt(0).all()
    across = (w - generate(g + z)).flatten(1)  # orthogonal to the range
    fitted = generate(z) + across.reshape(w.shape)
    assert torch.allclose(c(fitted, z, generate), z, atol=1e-10)


def test_a_step_has_a_derivative_in_image_and_latent():
    """`torch.func.jvp` agrees with central differences, through a smooth generator."""
    torch.manual_seed(0)
    g = DCGANGenerator(6, 8, sharpness=30.0).double().eval()
    c = Corrector(6, 24).double()
    initialise_corrector(c, generator_for(0))
    z, w = normal(3, 6, seed=2), normal(3, 1, 28, 28, seed=3)
    dz, dw = normal(3, 6, seed=4), normal(3, 1, 28, 28, seed=5)
    with torch.no_grad():
        _, tangent = torch.func.jvp(lambda w, z: c(w, z, g), (w, z), (dw, dz))
        h = 1e-6
        ahead, behind = c(w + h * dw, z + h * dz, g), c(w - h * dw, z - h * dz, g)
    assert torch.allclose(tangent, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)


def test_no_corrections_is_the_plain_projector():
    g, e, c = networks()
    plain = GenerativePrior(g, e, 6, (1, 28, 28))
    corrected = GenerativePrior(g, e, 6, (1, 28, 28), corrector=c, corrections=2)
    w = plain.sample(3, seed=0) + 0.1
    assert not torch.equal(corrected.encode(w), plain.encode(w))
    corrected.corrections = 0
    assert torch.equal(corrected.encode(w), plain.encode(w))


def test_a_correction_leaves_no_graph_and_does_not_depend_on_the_batch():
    g, e, c = networks()
    prior = GenerativePrior(g, e, 6, (1, 28, 28), corrector=c, corrections=2).double()
    w = prior.sample(5, seed=0)
    with torch.no_grad():
        z = prior.encode(w)
    assert not z.requires_grad
    assert torch.allclose(z[:2], prior.encode(w[:2]), rtol=1e-10)
    assert all(p.grad is None for p in prior.parameters())


def test_a_corrected_prior_comes_back_from_its_file(tmp_path):
    g, e, c = networks()
    prior = GenerativePrior(g, e, 6, (1, 28, 28), corrector=c, corrections=3)
    save_prior(prior, tmp_path / "p.safetensors", ARCHITECTURE, half=False)
    back = load_prior(tmp_path / "p.safetensors")
    assert back.corrections == 3
    w = prior.sample(3, seed=0)
    assert torch.allclose(back.project(w), prior.project(w), atol=1e-6)
    save_prior(back, tmp_path / "again.safetensors", half=False)  # a loaded prior knows its own
    assert torch.equal(load_prior(tmp_path / "again.safetensors").project(w), back.project(w))


def test_training_helps_and_resumes_bit_for_bit(tmp_path):
    _, e, _ = networks(4)
    g = nn.Sequential(nn.Linear(6, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
    config = CorrectorConfig(
        hidden=24, real_fraction=0.0, steps=40, batch_size=16, visits=2, average=0.9
    )
    whole = train_corrector(g, e, 6, None, tmp_path / "whole", config, checkpoint_every=20)
    (tmp_path / "cut").mkdir()
    for name in ("config.json", "checkpoint-00000020.safetensors"):
        (tmp_path / "cut" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    cut = train_corrector(g, e, 6, None, tmp_path / "cut", config, checkpoint_every=20)
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(a, b)
    prior = GenerativePrior(g, e, 6, (1, 28, 28), corrector=whole, corrections=2)
    x = prior.sample(64, seed=9)
    corrected = (prior.project(x) - x).square().mean()
    prior.corrections = 0
    assert corrected < 0.9 * (prior.project(x) - x).square().mean()


def test_a_run_is_not_resumed_for_other_networks(tmp_path):
    config = CorrectorConfig(hidden=8, real_fraction=0.0, steps=1, batch_size=4, visits=1)
    g, e, _ = networks(0)
    train_corrector(g, e, 6, None, tmp_path, config)
    other, _, _ = networks(1)
    with pytest.raises(ValueError, match="generator"):
        train_corrector(other, e, 6, None, tmp_path, config)


def test_what_does_not_fit_is_named():
    g, e, _ = networks()
    with pytest.raises(
        ValueError, match="corrections must be 0 for a prior without corrector, got 1"
    ):
        GenerativePrior(g, e, 6, (1, 28, 28), corrections=1)
    with pytest.raises(TypeError, match="corrector"):
        GenerativePrior(g, e, 6, (1, 28, 28), corrector=lambda w, z, g: z, corrections=1)
    with pytest.raises(ValueError, match="corrections must be at least 1"):
        CorrectorConfig(corrections=0)


def test_the_shipped_prior_says_what_its_corrections_are_worth():
    prior = npgd.load_prior("mnist")
    if prior.corrector is None:
        pytest.skip("this prior ships without a corrector")
    x = prior.sample(100, seed=5)
    w = x + 0.3 * normal(*x.shape, seed=6, dtype=x.dtype)
    errors = []
    for corrections in (0, prior.corrections):
        prior.corrections = corrections
        errors.append(float((prior.project(w) - x).square().mean()))
    assert errors[1] < 0.6 * errors[0]
