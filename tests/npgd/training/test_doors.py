"""Doors of the trainings: what they are given is named if it does not do, whatever it is."""

import numpy as np
import pytest
import torch
from torch import nn

from npgd.networks import DCGANGenerator, Encoder
from npgd.training import (
    CorrectorConfig,
    DenoiserConfig,
    GeneratorConfig,
    OneNetConfig,
    ProjectorConfig,
    load_checkpoint,
    load_coverage_encoder,
    load_generator,
    train_corrector,
    train_denoiser,
    train_generator,
    train_onenet,
    train_projector,
)
from npgd.training.loop import generator_for

POINTS = {"steps": 1, "batch_size": 8, "visits": 2, "m_low": 5, "m_high": 9, "hidden": 4}
CONFIGS = {
    "generator": GeneratorConfig(latent_dim=3, width=2, epochs=1, batch_size=8),
    "projector": ProjectorConfig(width=4, **POINTS),
    "corrector": CorrectorConfig(corrections=1, **POINTS),
    "denoiser": DenoiserConfig(width=2, steps=1, batch_size=4),
    "onenet": OneNetConfig(width=2, steps=1, batch_size=4),
}
KINDS = tuple(CONFIGS)
WRONG = (
    None, True, 3, 2.5, 1j, "x", b"x", [], {}, object(), np.zeros(3), nn.Linear(2, 2), int,
)  # fmt: skip


def images(n=8, channels=1, side=28):
    shape = (n, channels, side, side)
    return torch.randint(0, 256, shape, generator=generator_for(0), dtype=torch.uint8)


def start(kind, directory, **change):
    """A training of one step, its arguments changed."""
    torch.manual_seed(0)
    g, e = DCGANGenerator(3, 2), Encoder(3, 4, 4)
    given = {"images": images(), "directory": directory, "config": CONFIGS[kind]}
    if kind in ("projector", "corrector"):
        given |= {"generator_network": g, "latent_dim": 3}
    if kind == "corrector":
        given["encoder_network"] = e
    train = {
        "generator": train_generator,
        "projector": train_projector,
        "corrector": train_corrector,
        "denoiser": train_denoiser,
        "onenet": train_onenet,
    }[kind]
    return train(**(given | change))


class Silent(nn.Module):
    """A network that makes of its input what it is told to."""

    def __init__(self, makes):
        super().__init__()
        self.makes = makes
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, *given):
        return self.makes(given[0])


def poisoned(network):
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = torch.nan
    return network


def inside_inference_mode(make):
    with torch.inference_mode():
        return make()


FLAT = torch.zeros(0, 1, 28, 28, dtype=torch.uint8)
BAD = {
    "images": [
        *(x for x in WRONG if x is not None), FLAT, images().float(), images().double(),
        images().to(torch.int64), images() > 3, images()[0], images()[None], images()[:, :, :27],
        images(side=30), images(side=1), images(channels=1)[:, :0], images().to_sparse(),
        torch.empty(8, 1, 28, 28, dtype=torch.uint8, device="meta"), images().to(torch.complex64),
        images(n=1), images(n=2), images()[:, :, :, :0],
    ],
    "config": [
        *(x for x in WRONG if x is not None), *CONFIGS.values(), GeneratorConfig, {"steps": 3},
    ],
    "directory": [*(x for x in WRONG if not isinstance(x, str)), "", "a\0b", b"/tmp/x", 7],
    "device": [
        *WRONG, "", "cuda:99", "cpu:x", "meta", "tpu", "privateuseone", "x" * 999, "mps",
        torch.device("meta"), torch.float32,
    ],
    "progress": [x for x in WRONG if x is not True] + [0, 1, np.True_, torch.tensor(True)],
    "checkpoint_every": [
        *(x for x in WRONG if type(x) is not int), 0, -1, 10**400, np.int64(0), 1.0, 2**31,
    ],
    "latent_dim": [
        *(x for x in WRONG if type(x) is not int), 0, -1, 10**400, 2**16 + 1, 4, 2, "3",
        np.float64(3),
    ],
    "generator_network": [
        *WRONG, DCGANGenerator(4, 2), DCGANGenerator(3, 2).double(), DCGANGenerator(3, 2).half(),
        DCGANGenerator(3, 2).bfloat16(), poisoned(DCGANGenerator(3, 2)), nn.Linear(3, 784),
        Silent(lambda z: None), Silent(lambda z: (z, z)), Silent(lambda z: 1 / 0),
        Silent(lambda z: torch.full((len(z), 1, 28, 28), torch.inf)),
        Silent(lambda z: torch.zeros(len(z), 1, 28, 28).double()),
        Silent(lambda z: torch.zeros(len(z), 1, 28, 0)), DCGANGenerator(3, 2, 3),
        DCGANGenerator(3, 2, 1, 64), inside_inference_mode(lambda: DCGANGenerator(3, 2)),
        DCGANGenerator(3, 2).to("meta"),
    ],
    "encoder_network": [
        *WRONG, Encoder(4, 4, 4), Encoder(3, 4, 4).double(), poisoned(Encoder(3, 4, 4)),
        Encoder(3, 4, 4, 3), Silent(lambda w: w), Silent(lambda w: None), Silent(lambda w: w.x),
        inside_inference_mode(lambda: Encoder(3, 4, 4)),
    ],
    "encoder": [
        *(x for x in WRONG if x is not None), Encoder(4, 4, 4), Encoder(3, 4, 4).double(),
        poisoned(Encoder(3, 4, 4)), Encoder(3, 4, 4).requires_grad_(False), Silent(lambda w: w),
    ],
    "generator_digest": [x for x in WRONG if not isinstance(x, str)],
}  # fmt: skip
TAKES = {
    "projector": {"latent_dim", "generator_network", "encoder", "generator_digest"},
    "corrector": {"latent_dim", "generator_network", "encoder_network"},
}
COMMON = {"images", "config", "directory", "device", "progress", "checkpoint_every"}


def calls():
    return [(kind, name) for kind in KINDS for name in COMMON | TAKES.get(kind, set())]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "name"), sorted(calls()))
def test_every_bad_argument_is_refused_by_name_and_nothing_is_written(kind, name, tmp_path):
    for i, bad in enumerate(BAD[name]):
        if bad is CONFIGS[kind]:
            continue
        directory = tmp_path / str(i)
        with pytest.raises((TypeError, ValueError)) as caught:
            start(kind, **({"directory": directory} | {name: bad}))
        told = str(caught.value)
        named = "batch_size" if name == "images" and "batch_size" in told else name
        if name == "latent_dim" and "generator_network must map" in told:
            named = "latent"
        if name == "generator_network" and told.startswith("images must be"):
            named = "generator_network"
        assert named in told and " must " in told and ", got " in told, (bad, told)
        assert "\n" not in told and len(told) < 400, told
        assert not directory.exists() or not any(directory.rglob("checkpoint*")), told


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_valid_passes(kind, tmp_path):
    changes = [
        {"directory": str(tmp_path / "text")},
        {"device": torch.device("cpu")},
        {"device": "cpu:0"},
        {"checkpoint_every": np.int64(1)},
        {"progress": True},
        {"images": images(n=8, side=28)[:, :, :, :].clone(memory_format=torch.channels_last)},
        {"images": inside_inference_mode(images)},
    ]
    if kind in ("denoiser", "onenet"):
        changes += [{"images": images(channels=2)}, {"images": images(side=12)[..., :8]}]
    if kind in TAKES:
        changes += [{"latent_dim": np.int32(3)}]
    for i, change in enumerate(changes):
        network = start(kind, **({"directory": tmp_path / str(i)} | change))
        assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_is_set_to_changes_nothing_or_is_named(kind, tmp_path):
    plain = start(kind, tmp_path / "plain").state_dict()

    def same(network):
        return all(torch.equal(v, plain[k]) for k, v in network.state_dict().items())

    with torch.no_grad():
        assert same(start(kind, tmp_path / "a"))
    with torch.autocast("cpu"), pytest.raises(ValueError, match=r"must .*outside.*autocast"):
        start(kind, tmp_path / "b")
    with torch.inference_mode(), pytest.raises(ValueError, match=r"must .*outside.*inference"):
        start(kind, tmp_path / "c")
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises((TypeError, ValueError), match=r"must be .*float32"):
            start(kind, tmp_path / "d")
    finally:
        torch.set_default_dtype(torch.float32)


def test_sizes_that_do_not_fit_the_images_are_named(tmp_path):
    def refused(kind, told, config, **given):
        with pytest.raises(ValueError, match=told):
            start(kind, tmp_path, config=config, **given)

    principal = GeneratorConfig(latent_dim=197, width=4, batch_size=8, coverage=1, principal=True)
    refused("generator", "latent_dim must be at most 196 with principal", principal)
    some = GeneratorConfig(latent_dim=3, width=4, batch_size=8, coverage=1, principal=True)
    refused("generator", "images must differ", some, images=images()[:1].expand(8, -1, -1, -1))
    g = nn.Sequential(nn.Linear(3, 36), nn.Unflatten(1, (1, 6, 6)))
    blocks = ProjectorConfig(operators="super-resolution", real_fraction=0, **POINTS)
    refused("projector", "operators must suit", blocks, generator_network=g, images=None)
    refused("projector", "images must be given", CONFIGS["projector"], images=None)


@pytest.mark.parametrize("read", [load_generator, load_coverage_encoder, load_checkpoint])
def test_what_names_no_run_is_refused(read, tmp_path):
    (tmp_path / "file").write_text("x")
    for bad in (None, 3, b"x", 2.5, "", "a\0b", tmp_path / "none", tmp_path / "file", tmp_path):
        with pytest.raises((TypeError, ValueError, OSError)) as caught:
            read(bad)
        assert "\n" not in str(caught.value) and len(str(caught.value)) > 20
