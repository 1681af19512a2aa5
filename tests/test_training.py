"""Training: resumable to the bit, refusing what it cannot trust."""

import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from npgd.data import to_pixels
from npgd.networks import DCGANDiscriminator, DCGANGenerator, Encoder
from npgd.training import (
    PAPER,
    GeneratorConfig,
    ProjectorConfig,
    load_checkpoint,
    load_generator,
    train_generator,
    train_projector,
)
from npgd.training.gan import GeneratorTask, latent_moments
from npgd.training.loop import Average, Batches, checkpoints, decayed, generator_for
from npgd.training.projector import ProjectorTask

GAN = GeneratorConfig(latent_dim=3, width=4, epochs=3, batch_size=16, coverage=1.0)
PROJECTOR = ProjectorConfig(width=4, hidden=8, steps=12, batch_size=8, m_low=5, m_high=50)


@pytest.fixture(scope="module")
def images():
    shape = (64, 1, 28, 28)
    return torch.randint(0, 256, shape, generator=generator_for(0), dtype=torch.uint8)


def test_networks_have_the_layers_of_the_paper():
    g, d, e = DCGANGenerator(20, 8), DCGANDiscriminator(8), Encoder(20, 8, 16)
    count = lambda network, kind: sum(isinstance(m, kind) for m in network.modules())  # noqa: E731
    assert count(g, torch.nn.ConvTranspose2d) == 4
    assert count(d, torch.nn.Conv2d) == count(e, torch.nn.Conv2d) == 4
    assert not any(isinstance(m, torch.nn.Dropout) for n in (g, d, e) for m in n.modules())
    x = g(torch.randn(5, 20))
    assert x.shape == (5, 1, 28, 28)
    assert float(x.detach().abs().max()) <= 1
    assert d(x).shape == (5,)
    assert e(x).shape == (5, 20)


def test_an_encoder_sees_scale_and_treats_images_separately():
    e = Encoder(4, 8, 16).double()
    x = torch.randn(6, 1, 28, 28, dtype=torch.float64)
    assert torch.allclose(e(x)[2], e(x[2:3])[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(e(x), e(3 * x))
    assert torch.isfinite(e(torch.zeros_like(x))).all()


def test_batches_cover_every_image_once_an_epoch(images):
    batches = Batches(images, 16, seed=3)
    for epoch in range(2):
        seen = torch.cat([batches(epoch * 4 + i) for i in range(4)])
        assert torch.equal(
            seen.flatten(1).sum(1).sort()[0], to_pixels(images).flatten(1).sum(1).sort()[0]
        )
    assert not torch.equal(batches(0), batches(4))
    assert torch.equal(batches(5), Batches(images, 16, seed=3)(5))


def test_average_of_a_constant_is_the_constant():
    network, mean = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    average = Average(network, mean, 0.99)
    for i in range(5):
        average.update(i)
    assert torch.allclose(mean.weight, network.weight)


def test_latent_moments_vanish_for_whitened_latents():
    z = torch.randn(50, 4, generator=generator_for(1), dtype=torch.float64)
    z = z - z.mean(dim=0)
    covariance = z.T @ z / 49
    white = z @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    assert float(latent_moments(white)) < 1e-20
    assert float(latent_moments(2 * white)) == pytest.approx(9.0)


def test_the_rate_falls_from_one_and_never_to_zero():
    rates = [decayed(i, 100) for i in range(100)]
    assert rates[0] == rates[50] == 1
    assert all(a >= b for a, b in itertools.pairwise(rates))
    assert 0.02 <= rates[-1] < 0.03


@pytest.mark.parametrize("kind", ["generator", "projector"])
def test_a_stopped_training_ends_with_the_same_bits(kind, images, tmp_path, monkeypatch):
    """Stop after any step by an exception inside it, go on, and compare with a run left alone."""
    task = GeneratorTask if kind == "generator" else ProjectorTask

    def run(directory):
        if kind == "generator":
            return train_generator(images, directory, GAN, checkpoint_every=5)
        g = DCGANGenerator(3, 4)
        g.load_state_dict({k: torch.zeros_like(v) + 0.01 for k, v in g.state_dict().items()})
        return train_projector(g, 3, images, directory, PROJECTOR, checkpoint_every=5)

    alone = run(tmp_path / "alone")
    original = task.step
    for stop in (2, 7, 11):
        directory = tmp_path / f"stopped-{stop}"

        def step(self, i, *rest, stop=stop):
            if i == stop:
                raise KeyboardInterrupt
            return original(self, i, *rest)

        monkeypatch.setattr(task, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run(directory)
        monkeypatch.setattr(task, "step", original)
        resumed = run(directory)
        for a, b in zip(alone.state_dict().values(), resumed.state_dict().values(), strict=True):
            assert torch.equal(a, b)
        assert (directory / "log.jsonl").read_text() == (tmp_path / "alone/log.jsonl").read_text()


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from npgd.training import GeneratorConfig, train_generator
from npgd.training.loop import generator_for
images = torch.randint(0, 256, (64, 1, 28, 28), generator=generator_for(0), dtype=torch.uint8)
config = GeneratorConfig(latent_dim=3, width=4, epochs=30, batch_size=16, coverage=1.0)
train_generator(images, sys.argv[1], config, checkpoint_every=3)
"""


def test_a_killed_process_leaves_a_run_that_goes_on_to_the_same_bits(tmp_path):
    """SIGKILL somewhere in the middle: the files left behind suffice, bit for bit."""
    command = [sys.executable, "-c", SCRIPT]
    subprocess.run([*command, str(tmp_path / "alone")], check=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")])
    deadline = time.monotonic() + 60
    while len(checkpoints(tmp_path / "killed")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert load_checkpoint(checkpoints(tmp_path / "killed")[-1])[0] < 120
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    ends = [load_checkpoint(checkpoints(tmp_path / run)[-1]) for run in ("alone", "killed")]
    assert ends[0][0] == ends[1][0] == 120
    assert all(torch.equal(ends[0][1][key], ends[1][1][key]) for key in ends[0][1])


def test_a_tampered_checkpoint_is_refused_and_the_one_before_used(images, tmp_path):
    alone = train_generator(images, tmp_path, GAN, checkpoint_every=5)
    older, newest = checkpoints(tmp_path)
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_checkpoint(newest)
    with pytest.warns(UserWarning, match="going back"):
        again = train_generator(images, tmp_path, GAN, checkpoint_every=5)
    for a, b in zip(alone.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(newest)
    assert older.exists()


def test_another_configuration_is_refused_by_name(images, tmp_path):
    train_generator(images, tmp_path, GAN)
    with pytest.raises(ValueError, match=r"coverage: 1\.0 there, 2\.0 now"):
        train_generator(images, tmp_path, replace(GAN, coverage=2.0))


def test_a_run_says_what_it_is(images, tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_generator(tmp_path)
    trained = train_generator(images, tmp_path, GAN)
    loaded, config, digest = load_generator(tmp_path)
    assert config["latent_dim"] == 3 and len(digest) == 64
    z = torch.randn(4, 3)
    assert torch.equal(trained(z), loaded(z))
    assert not loaded.training
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12 and "cover" in lines[-1]
    assert (tmp_path / "samples/00000012.png").exists()


def test_the_papers_setting_is_white_noise_on_samples_only():
    g = DCGANGenerator(3, 4)
    task = ProjectorTask(g, 3, None, replace(PAPER, width=4, hidden=8, batch_size=8))
    before = {k: v.clone() for k, v in g.state_dict().items()}
    losses = task.step(0, 10, generator_for(0))
    assert all(torch.isfinite(v) for v in losses.values())
    assert all(torch.equal(before[k], v) for k, v in g.state_dict().items())  # G is frozen
    # the stated loss, recomputed from its formula
    task = ProjectorTask(g, 3, None, replace(PAPER, width=4, hidden=8, batch_size=8))
    draw = generator_for(0)
    z = torch.randn(8, 3, generator=draw)
    torch.rand(8, generator=draw)  # σ, here always 1
    with torch.no_grad():
        x = g(z)
        code = task.e(x + torch.randn(x.shape, generator=draw))
        projected = g(code)
    assert float(losses["image"]) == pytest.approx(float((projected - x).square().mean()), rel=1e-5)
    assert float(losses["latent"]) == pytest.approx(float((code - z).square().mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_low": 2.0, "noise_high": 1.0}, "noise_low"),
        ({"real_fraction": 1.5}, "real_fraction"),
        ({"visits": 0}, "visits"),
        ({"m_low": 9, "m_high": 3}, "m_low"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ProjectorConfig(), **change)


def test_images_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"uint8 \(n, channels, 28, 28\)"):
        train_generator(torch.zeros(8, 1, 28, 28), tmp_path, GAN)
    with pytest.raises(ValueError, match="batch_size"):
        train_generator(torch.zeros(8, 1, 28, 28, dtype=torch.uint8), tmp_path, GAN)
    assert list(tmp_path.iterdir()) == []
