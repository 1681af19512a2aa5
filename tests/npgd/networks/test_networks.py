"""The networks of the priors: shapes, what spectral normalisation normalises, what attention is."""

import pytest
import torch
from torch import nn

import npgd
from npgd.gauss_newton import jacobian
from npgd.networks import (
    ARCHITECTURES,
    DCGANDiscriminator,
    DCGANGenerator,
    Encoder,
    SAGANDiscriminator,
    SAGANEncoder,
    SAGANGenerator,
    build,
)
from npgd.networks.sagan import SelfAttention, add_spectral_norm, folded_state
from npgd.training.loop import generator_for


def count(network, kind):
    return sum(isinstance(part, kind) for part in network.modules())


def randomise(network, seed=0):
    """Weights and statistics that no default hides."""
    generator = generator_for(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.1)
    return network


def test_dcgan_at_64_has_five_layers_each():
    g, d = DCGANGenerator(10, 4, 3, 64), DCGANDiscriminator(4, 3, 64)
    e = Encoder(10, 8, 16, 3, 64)
    assert count(g, nn.ConvTranspose2d) == count(d, nn.Conv2d) == count(e, nn.Conv2d) == 5
    channels = [part.out_channels for part in g.modules() if isinstance(part, nn.ConvTranspose2d)]
    assert channels == [32, 16, 8, 4, 3]
    x = g(torch.randn(3, 10))
    assert x.shape == (3, 3, 64, 64) and float(x.detach().abs().max()) <= 1
    assert d(x).shape == (3,) and e(x).shape == (3, 10)


def test_sagan_has_the_layers_of_the_paper():
    g, d, e = SAGANGenerator(10, 8), SAGANDiscriminator(8), SAGANEncoder(10, 8, 16)
    assert count(g, nn.ConvTranspose2d) == 1 + 4
    parts = [part for part in d.layers if isinstance(part, (nn.Conv2d, SelfAttention))]
    assert [type(part) for part in parts] == [
        *[nn.Conv2d] * 3, SelfAttention, nn.Conv2d, SelfAttention, nn.Conv2d
    ]  # fmt: skip
    assert count(g, SelfAttention) == count(e, SelfAttention) == 2
    x = g(torch.randn(3, 10))
    assert x.shape == (3, 3, 64, 64) and float(x.detach().abs().max()) <= 1
    assert d(x).shape == (3,) and e(x).shape == (3, 10)


@pytest.mark.parametrize("image_size", [0, 32, 128])
def test_a_size_without_layers_is_refused(image_size):
    with pytest.raises(ValueError, match=r"image_size must be (one of 28, 64|at least 1)"):
        build("DCGANGenerator", {"latent_dim": 4, "image_size": image_size})


def test_attention_sees_pixels_as_a_set():
    """It starts as the identity, and a permutation of the pixels permutes what comes out."""
    attention = SelfAttention(16).double()
    x = torch.randn(2, 16, 5, 4, generator=generator_for(1), dtype=torch.float64)
    assert torch.equal(attention(x), x)
    randomise(attention)
    order = torch.randperm(20, generator=generator_for(2))
    permuted = x.flatten(2)[:, :, order].view_as(x)
    out = attention(x)
    assert not torch.allclose(out, x)
    assert torch.allclose(attention(permuted).flatten(2), out.flatten(2)[:, :, order], atol=1e-12)


@pytest.mark.parametrize("pool", [1, 2])
def test_attention_is_its_formula(pool):
    """Pixel j of W_v h softmax(fᵀg), by loops; f and h the largest of every pool×pool pixels."""
    attention = randomise(SelfAttention(8, pool)).double()
    x = torch.randn(1, 8, 4, 6, generator=generator_for(3), dtype=torch.float64)
    flat = x[0].flatten(1)

    def pooled(values):
        blocks = values.view(-1, 4 // pool, pool, 6 // pool, pool)
        return blocks.amax(dim=(2, 4)).flatten(1)

    f, g, h, back = (
        part.weight[:, :, 0, 0]
        for part in (attention.key, attention.query, attention.value, attention.back)
    )
    expected = torch.empty_like(flat)
    keys, values = pooled(f @ flat), pooled(h @ flat)
    for j in range(24):
        scores = torch.stack([keys[:, i] @ (g @ flat[:, j]) for i in range(24 // pool**2)])
        shares = scores.exp() / scores.exp().sum()
        mixed = sum(shares[i] * values[:, i] for i in range(24 // pool**2))
        expected[:, j] = flat[:, j] + attention.gain * (back @ mixed)
    assert torch.allclose(attention(x)[0].flatten(1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [SAGANGenerator, SAGANDiscriminator])
def test_spectral_norm_is_one_and_folds_into_plain_weights(kind):
    settings = {"width": 4} | ({"latent_dim": 6} if kind is SAGANGenerator else {})
    network = randomise(kind(**settings)).double()
    add_spectral_norm(network, seed=0)
    came = (2, 6) if kind is SAGANGenerator else (2, 3, 64, 64)
    x = torch.randn(came, generator=generator_for(4), dtype=torch.float64)
    for _ in range(60):
        network(x)
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    out = network(x)
    assert torch.equal(network(x), out)  # frozen in evaluation …
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # … and left alone

    plain = kind(**settings).double().eval()
    folded = folded_state(network)
    plain.load_state_dict(folded)
    assert torch.allclose(plain(x), out, rtol=1e-10, atol=1e-12)
    for part in plain.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            weight = part.weight.detach()
            if isinstance(part, nn.ConvTranspose2d):
                weight = weight.transpose(0, 1)
            largest = float(torch.linalg.matrix_norm(weight.flatten(1), 2))
            assert largest == pytest.approx(1, abs=0.02)


def test_looking_at_folded_weights_moves_nothing():
    network = SAGANDiscriminator(4)
    add_spectral_norm(network, seed=0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded_state(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(part.training for part in network.modules())
    again = SAGANDiscriminator(4)
    again.load_state_dict(folded_state(again))  # without normalisation: the state itself


def test_the_start_of_the_power_iteration_comes_from_the_seed():
    networks = [SAGANDiscriminator(4) for _ in range(3)]
    plain = networks[0].state_dict()
    for network in networks[1:]:
        network.load_state_dict(plain)
    state = torch.get_rng_state()
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        add_spectral_norm(network, seed)
    assert torch.equal(torch.get_rng_state(), state)
    key = "layers.0.parametrizations.weight.0._u"
    a, b, c = (network.state_dict()[key] for network in networks)
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    "encoder", [Encoder(4, 8, 16, 3, 64), SAGANEncoder(4, 8, 16)], ids=["dcgan", "sagan"]
)
def test_encoders_see_scale_and_treat_images_separately(encoder):
    e = randomise(encoder).double()
    x = torch.randn(4, 3, 64, 64, generator=generator_for(5), dtype=torch.float64)
    assert torch.allclose(e(x)[2], e(x[2:3])[0], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(e(x), e(3 * x))
    assert torch.isfinite(e(torch.zeros_like(x))).all()


@pytest.mark.parametrize("name", ["DCGANGenerator", "SAGANGenerator"])
def test_a_colour_prior_survives_its_file(name, tmp_path):
    size = {"channels": 3} | ({"image_size": 64} if name.startswith("DCGAN") else {})
    g_settings = {"latent_dim": 5, "width": 4, **size}
    e_name = name.replace("DCGANGenerator", "Encoder").replace("SAGANGenerator", "SAGANEncoder")
    e_settings = {"latent_dim": 5, "width": 8, "hidden": 16, **size}
    prior = npgd.GenerativePrior(
        randomise(build(name, g_settings)), randomise(build(e_name, e_settings)), 5, (3, 64, 64)
    )
    spec = {
        "generator": {"name": name, "settings": g_settings},
        "encoder": {"name": e_name, "settings": e_settings},
    }
    npgd.save_prior(prior, tmp_path / "p.safetensors", spec, half=False)
    again = npgd.load_prior(tmp_path / "p.safetensors")
    w = prior.sample(2, seed=0)
    assert again.image_shape == (3, 64, 64)
    assert torch.allclose(again.project(w), prior.project(w), atol=1e-5)


def test_every_name_is_built_by_its_name():
    for name, kind in ARCHITECTURES.items():
        settings = {} if "Discriminator" in name else {"latent_dim": 4}
        if kind.__module__.startswith(("npgd.networks.dcgan", "npgd.networks.sagan")):
            assert isinstance(build(name, {**settings, "width": 8}), kind)


@pytest.mark.parametrize("name", ["DCGANGenerator", "SAGANGenerator"])
def test_tangents_exist_at_64(name):
    """Forward mode, as the analysis takes it, against central differences."""
    size = {"channels": 3} | ({"image_size": 64} if name.startswith("DCGAN") else {})
    g = randomise(build(name, {"latent_dim": 3, "width": 4, **size})).double()
    for i in range(20):  # statistics that fit the weights, so that images are not all but zero
        g(torch.randn(16, 3, generator=generator_for(7, i), dtype=torch.float64))
    g.eval()
    e = build("Encoder", {"latent_dim": 3, "width": 8, "channels": 3, "image_size": 64}).double()
    prior = npgd.GenerativePrior(g, e, 3, (3, 64, 64)).requires_grad_(False)
    z = torch.randn(1, 3, generator=generator_for(6), dtype=torch.float64)
    columns = jacobian(prior, z)[0]
    step = 1e-6
    for j in range(3):
        arm = step * torch.eye(3, dtype=torch.float64)[j]
        slope = (prior.generate(z + arm) - prior.generate(z - arm))[0] / (2 * step)
        assert (
            float((columns[j] - slope).norm() / slope.norm()) < 1e-5
        )  # a kink of ReLU may be crossed


@pytest.mark.parametrize("image_size, channels", [(28, 1), (64, 3)])
def test_a_principal_encoder_starts_at_the_whitened_principal_components(image_size, channels):
    """Its first codes have mean 0 and covariance I, and their span is the best linear code."""
    k, n = 5, 60
    shape = (n, channels, image_size // 2, image_size // 2)
    coarse = torch.randn(shape, generator=generator_for(5), dtype=torch.float64)
    coarse = coarse + 3 * torch.randn(n, 1, 1, 1, generator=generator_for(6), dtype=torch.float64)
    images = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    e = Encoder(k, 8, 16, channels, image_size, principal=True).double()
    e.start_from(images)
    z = e(images).detach()
    assert torch.allclose(z.mean(dim=0), torch.zeros(k, dtype=z.dtype), atol=1e-9)
    assert torch.allclose(torch.cov(z.T, correction=0), torch.eye(k, dtype=z.dtype), atol=1e-9)
    # The least-squares fit of the images from the codes leaves the tail of the singular values.
    centred = (coarse - coarse.mean(dim=0)).flatten(1)
    fitted = z @ torch.linalg.lstsq(z, centred).solution
    tail = torch.linalg.svdvals(centred)[k:].square().sum()
    assert torch.allclose((centred - fitted).square().sum(), tail, rtol=1e-9)
