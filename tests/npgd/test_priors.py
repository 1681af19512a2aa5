"""Priors: shipped ones, a user's own, and files that are none."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import npgd
from analysis.testing import normal
from npgd.priors import SHIPPED

ARCHITECTURE = {
    "generator": {"name": "DCGANGenerator", "settings": {"latent_dim": 3, "width": 4}},
    "encoder": {"name": "Encoder", "settings": {"latent_dim": 3, "width": 4, "hidden": 8}},
}


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 20)
        self.dropout = nn.Dropout(0.5)

    def forward(self, z):
        return self.dropout(self.linear(z)).reshape(-1, 1, 4, 5)


def own_prior():
    return npgd.GenerativePrior(
        Decoder(), nn.Sequential(nn.Flatten(), nn.Linear(20, 3)), 3, (1, 4, 5)
    )


def shipped_kind_of_prior():
    from npgd.networks import build

    networks = {k: build(v["name"], v["settings"]) for k, v in ARCHITECTURE.items()}
    return npgd.GenerativePrior(networks["generator"], networks["encoder"], 3, (1, 28, 28), "tiny")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_prior_projects_and_carries_its_card(name):
    prior = npgd.load_prior(name)
    card = npgd.prior_card(name)
    assert prior.latent_dim == card["latent_dim"]
    assert list(prior.image_shape) == card["image_shape"]
    x = prior.sample(4, seed=0)
    assert x.shape == (4, *prior.image_shape)
    # The small prior is linear at its end, and samples outside its box are no better than that.
    assert float(x.abs().max()) <= (1.5 if name == "mnist-k2" else 1)
    error = (prior.project(x) - x).square().mean()
    assert float(error) < float(x.var(dim=0).mean())  # nearer than the mean image
    for key in (
        "data",
        "licence_of_the_data",
        "generator_training",
        "projector_training",
        "figures",
    ):
        assert card[key]


def test_the_shipped_weights_stay_small(repository):
    assert all(p.stat().st_size < 8 * 10**6 for p in (repository / "npgd/weights").iterdir())


@pytest.mark.parametrize("name", SHIPPED)
def test_half_precision_costs_nothing_measurable_in_float64(name):
    """float32 and float64 copies of the same stored weights agree to float32's rounding."""
    single, double = npgd.load_prior(name), npgd.load_prior(name, dtype=torch.float64)
    x = single.sample(4, seed=1)
    assert double.dtype == torch.float64
    assert torch.allclose(double.project(x.double()).float(), single.project(x), atol=1e-4)


def test_evaluation_is_deterministic_whatever_is_called():
    prior = own_prior().train()
    w = torch.randn(2, 1, 4, 5)
    assert not prior.training and not prior.generator.training
    assert torch.equal(prior.project(w), prior.project(w))


def test_samples_depend_on_the_seed_alone():
    prior = own_prior()
    assert torch.equal(prior.sample(3, seed=5), prior.sample(3, seed=5))
    assert not torch.equal(prior.sample(3, seed=5), prior.sample(3, seed=6))
    draw = torch.Generator().manual_seed(5)
    assert torch.equal(prior.sample(3, generator=draw), prior.sample(3, seed=5))
    more = prior.sample_latents(9, seed=5)
    assert torch.equal(more[:3], prior.sample_latents(3, seed=5))
    with pytest.raises(ValueError, match="one of generator and seed must be given, got neither"):
        prior.sample(3)
    with pytest.raises(ValueError, match="n must be"):
        prior.sample(0, seed=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((lambda z: z, Decoder(), 3, (1, 4, 5)), TypeError, "generator"),
        ((Decoder(), 7, 3, (1, 4, 5)), TypeError, "encoder"),
        ((Decoder(), nn.Flatten(), 0, (1, 4, 5)), ValueError, "latent_dim"),
        ((Decoder(), nn.Flatten(), 3, (1, 4, 6)), ValueError, "generator"),
        ((Decoder(), nn.Flatten(), 3, (1, 4, 5)), ValueError, "encoder"),
        ((Decoder(), nn.Linear(7, 3), 3, (1, 4, 5)), ValueError, "encoder"),
    ],
)
def test_networks_that_do_not_fit_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        npgd.GenerativePrior(*arguments)


def test_wrong_shapes_are_refused_by_name():
    prior = own_prior()
    with pytest.raises(ValueError, match="z must have shape"):
        prior.generate(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="w must have shape"):
        prior.project(torch.zeros(2, 1, 5, 4))


@pytest.mark.parametrize("half", [True, False])
def test_saved_and_loaded_again(tmp_path, half):
    prior = shipped_kind_of_prior()
    path = tmp_path / "tiny.safetensors"
    npgd.save_prior(prior, path, ARCHITECTURE, {"name": "tiny"}, half=half)
    loaded = npgd.load_prior(path)
    z = torch.randn(5, 3)
    tolerance = 2e-3 if half else 0.0
    assert torch.allclose(loaded.generate(z), prior.generate(z), atol=tolerance, rtol=0)
    assert json.loads(path.with_suffix(".json").read_text()) == {"name": "tiny"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_files_that_are_no_prior_are_refused(tmp_path):
    with pytest.raises(ValueError, match="name must be a shipped prior"):
        npgd.load_prior("celebb")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="must hold a prior"):
        npgd.load_prior(other)
    other.write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match="must be a safetensors file"):
        npgd.load_prior(other)
    with pytest.raises(ValueError, match="safetensors"):
        npgd.save_prior(shipped_kind_of_prior(), tmp_path / "x.pt", ARCHITECTURE)


ENCODER = {"latent_dim": 3, "width": 8, "hidden": 8}


@pytest.mark.parametrize(
    ("architecture", "error", "message"),
    [
        (
            {**ARCHITECTURE, "encoder": {"name": "Encoder", "settings": ENCODER}},
            ValueError,
            "the prior must be the one that its architecture or settings describe: .*shape",
        ),
        ({"generator": 1, "encoder": 2}, TypeError, "name and settings for the generator, got 1"),
        ({"generator": {}, "encoder": {}}, ValueError, "name must be in the header"),
        ({"generator": {}}, ValueError, "architecture must describe generator, encoder"),
        ([], ValueError, "architecture must describe generator, encoder"),
        (None, ValueError, "architecture must describe generator, encoder"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(architecture, error, message, tmp_path):
    with pytest.raises(error, match=message):
        npgd.save_prior(shipped_kind_of_prior(), tmp_path / "a.safetensors", architecture)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": nn.Linear(2, 2)}, "prior must be a GenerativePrior"),
        ({"path": None}, "path must be a path, got None"),
        ({"card": [1]}, r"card must be names with values, got \[1\]"),
        ({"card": {"a": object()}}, "card must be plain numbers, words and lists"),
        ({"half": "yes"}, "half must be True or False, got 'yes'"),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(arguments, message, tmp_path):
    given = {"prior": shipped_kind_of_prior(), "path": tmp_path / "a.safetensors"} | arguments
    with pytest.raises(TypeError, match=message):
        npgd.save_prior(**given, architecture=ARCHITECTURE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("half", [True, False])
def test_a_large_running_variance_survives_saving(half, tmp_path):
    """Half precision ends at 65504: an infinite variance would make all samples equal."""
    prior = shipped_kind_of_prior()
    prior.generator.layers[1].running_var.fill_(1e5)
    npgd.save_prior(prior, tmp_path / "a.safetensors", ARCHITECTURE, half=half)
    loaded = npgd.load_prior(tmp_path / "a.safetensors")
    assert torch.equal(
        loaded.generator.layers[1].running_var, prior.generator.layers[1].running_var
    )
    x = prior.sample(4, seed=0)
    torch.testing.assert_close(loaded.sample(4, seed=0), x, rtol=0, atol=2e-3)
    assert float(x.std(dim=0).max()) > 0


def test_latents_and_images_of_another_precision_are_refused_by_name():
    prior = own_prior()
    for call, name in ((prior.generate, "z"), (prior.encode, "w")):
        for value in ([1.0], torch.zeros(2, 3, dtype=torch.int64)):
            with pytest.raises(TypeError, match=f"{name} must be "):
                call(value)
    with pytest.raises(TypeError, match=r"z must be torch\.float32 on cpu as the prior is, got"):
        prior.generate(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"w must be torch\.float32 on cpu as the prior is, got"):
        prior.project(torch.zeros(2, 1, 4, 5, dtype=torch.float64))


class OwnGenerator(nn.Module):
    """With a buffer that no file holds, and a number that no meta tensor has."""

    def __init__(self, hidden):
        super().__init__()
        self.linear = nn.Linear(3, hidden)
        self.gain = float(torch.ones(3).sum())
        self.register_buffer("grid", torch.linspace(-0.1, 0.1, hidden), persistent=False)

    def forward(self, z):
        return (self.gain * self.linear(z) + self.grid).tanh().reshape(-1, 1, 4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_prior_of_ones_own_networks_is_saved_and_loaded_again(dtype, tmp_path, monkeypatch):
    from npgd.networks import ARCHITECTURES

    class OwnEncoder(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(20, 3))

    monkeypatch.setitem(ARCHITECTURES, "OwnGenerator", OwnGenerator)
    monkeypatch.setitem(ARCHITECTURES, "OwnEncoder", OwnEncoder)
    prior = npgd.GenerativePrior(OwnGenerator(20), OwnEncoder(), 3, (1, 4, 5), "own")
    architecture = {
        "generator": {"name": "OwnGenerator", "settings": {"hidden": 20}},
        "encoder": {"name": "OwnEncoder", "settings": {}},
    }
    path, before = tmp_path / "own.safetensors", torch.random.get_rng_state()
    npgd.save_prior(prior, path, architecture, half=False)
    loaded = npgd.load_prior(path, dtype)
    assert torch.equal(torch.random.get_rng_state(), before)
    z = normal(5, 3).to(dtype)
    torch.testing.assert_close(loaded.generate(z), prior.to(dtype).generate(z))
    with pytest.raises(ValueError, match=r"settings must suit OwnGenerator, got .*'width'"):
        wrong = {"name": "OwnGenerator", "settings": {"width": 20}}
        npgd.save_prior(prior, path, {**architecture, "generator": wrong})


def test_a_prior_with_rows_passes_few_images_at_a_time_and_says_the_same():
    prior = own_prior()
    z = normal(7, 3, dtype=torch.float32)
    x = prior.generate(z)
    sizes: list[int] = []
    for network in (prior.generator, prior.encoder):
        network.register_forward_hook(lambda _, given, out: sizes.append(len(given[0])))
    prior.rows = 3
    # As float32 rounds sums of other batches.
    torch.testing.assert_close(prior.generate(z), x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(prior.project(x), prior.generate(prior.encode(x)))
    assert max(sizes) == 3 and sizes[:3] == [3, 3, 1]
    with pytest.raises(ValueError, match="rows must be"):
        prior.rows = 0
