"""Training: resumable to the bit, refusing what it cannot trust."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from analysis.testing import normal
from npgd.data import to_pixels
from npgd.networks import DCGANDiscriminator, DCGANGenerator, Encoder
from npgd.networks.dcgan import initialise
from npgd.training import (
    PAPER,
    GeneratorConfig,
    ProjectorConfig,
    load_checkpoint,
    load_coverage_encoder,
    load_generator,
    train_generator,
    train_projector,
)
from npgd.training.augment import AUGMENTATIONS, augment, cutout, translation
from npgd.training.checkpoints import checkpoints, newest_checkpoint
from npgd.training.gan import GeneratorTask, latent_moments
from npgd.training.loop import Average, Batches, decayed, generator_for
from npgd.training.points import OPERATORS
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
    x = g(normal(5, 20, dtype=torch.float32))
    assert x.shape == (5, 1, 28, 28)
    assert float(x.detach().abs().max()) <= 1
    assert d(x).shape == (5,)
    assert e(x).shape == (5, 20)


def test_an_encoder_sees_scale_and_treats_images_separately():
    e = Encoder(4, 8, 16).double()
    x = normal(6, 1, 28, 28)
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
    z = normal(50, 4, seed=1)
    z = z - z.mean(dim=0)
    covariance = z.T @ z / 49
    white = z @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    assert float(latent_moments(white)) < 1e-20
    assert float(latent_moments(2 * white)) == pytest.approx(9.0)


def test_moments_by_pairs_are_free_of_the_batch_s_error():
    """The mean over batches is the value for the distribution, here N(0, s²I) with k > b."""
    z = normal(2000, 8, 12, seed=2)
    for scale in (1.0, 0.5):
        values = torch.stack([latent_moments(scale * batch, unbiased=True) for batch in z])
        error = float(values.std()) / len(z) ** 0.5
        assert float(values.mean()) == pytest.approx((scale**2 - 1) ** 2, abs=4 * error)
    assert float(torch.stack([latent_moments(batch) for batch in z]).mean()) > 1.5
    shifted = torch.stack([latent_moments(batch + 0.5, unbiased=True) for batch in z])
    # E z = ½·1 adds ¼ k to ‖E z‖², and E zzᵀ − I = ¼·11ᵀ, of squared norm k²/16.
    expected = 0.25 + 12 / 16
    error = float(shifted.std()) / len(z) ** 0.5
    assert float(shifted.mean()) == pytest.approx(expected, abs=4 * error)


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


KILLED = """
import os, signal, sys
directory, epochs, moment, step = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
sys.path.insert(0, sys.argv[5])
from test_training import GeneratorTask, train_alone

def die():
    os.kill(os.getpid(), signal.SIGKILL)

descend, replace = GeneratorTask.descend, os.replace

def descend_and_die(self, i, generator):
    losses = descend(self, i, generator)
    return die() if i == step else losses

def die_before_the_rename(temporary, path):
    die() if path.name == f"checkpoint-{step:08d}.safetensors" else replace(temporary, path)

if moment == "in a step":
    GeneratorTask.descend = descend_and_die
elif moment == "in a checkpoint":
    os.replace = die_before_the_rename
train_alone(directory, epochs)
"""


def train_alone(directory, epochs):
    """A training of four steps an epoch on one thread, a checkpoint every three steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shape = (64, 1, 28, 28)
    images = torch.randint(0, 256, shape, generator=generator_for(0), dtype=torch.uint8)
    train_generator(images, directory, replace(GAN, epochs=epochs), checkpoint_every=3)
    torch.set_num_threads(threads)
    return load_checkpoint(newest_checkpoint(Path(directory)))


def killed(directory, epochs, moment="", step=0):
    """The same training in a process of its own, which gets a SIGKILL at that moment."""
    here = str(Path(__file__).parent)
    told = [str(directory), str(epochs), moment, str(step), here]
    return subprocess.Popen([sys.executable, "-c", KILLED, *told])


def assert_same(end, other):
    assert end[0] == other[0]
    assert end[1].keys() == other[1].keys()
    assert all(torch.equal(end[1][key], other[1][key]) for key in end[1])


def test_a_killed_process_leaves_a_run_that_goes_on_to_the_same_bits(tmp_path):
    """SIGKILL in a step, and then while a checkpoint is written: the files left behind suffice."""
    directory = tmp_path / "killed"
    for moment, step, kept in (("in a step", 4, 3), ("in a checkpoint", 9, 6)):
        assert killed(directory, 3, moment, step).wait() == -signal.SIGKILL
        assert load_checkpoint(newest_checkpoint(directory))[0] == kept
    assert_same(train_alone(directory, 3), train_alone(tmp_path / "alone", 3))


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
    z = normal(4, 3, dtype=torch.float32)
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
        x = task.g(z)
        code = task.e(x + torch.randn(x.shape, generator=draw))
        projected = task.g(code)
    assert float(losses["image"]) == pytest.approx(float((projected - x).square().mean()), rel=1e-5)
    assert float(losses["latent"]) == pytest.approx(float((code - z).square().mean()), rel=1e-5)


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_iteration_takes_steps_of_a_least_squares_objective(kind):
    """AᵀA is symmetric and η‖A‖² within the configuration's range (‖A s‖ ≈ ‖s‖ if Gaussian)."""
    config = replace(PROJECTOR, operators=kind, step_low=0.5, step_high=1.4, m_low=200, m_high=300)
    task = ProjectorTask(DCGANGenerator(3, 4), 3, None, replace(config, real_fraction=0.0))
    gram, eta = OPERATORS[kind](task, generator_for(7))
    x, other = normal(2, 1, *task.shape, seed=8, dtype=torch.float32)
    assert float((gram(x) * other).sum()) == pytest.approx(
        float((x * gram(other)).sum()), rel=1e-3, abs=1e-2
    )
    if kind == "gaussian":
        assert 0.5 <= eta <= 1.4
        return
    for _ in range(30):  # power iteration: the largest eigenvalue of AᵀA
        x = gram(x)
        norm = float(x.norm())
        x = x / norm
    assert 0.5 - 1e-4 <= eta * norm <= 1.4 + 1e-4


def test_one_projector_is_trained_on_every_kind_of_operator(monkeypatch):
    drawn = []
    for kind, draw in OPERATORS.items():

        def note(task, generator, kind=kind, draw=draw):
            drawn.append(kind)
            return draw(task, generator)

        monkeypatch.setitem(OPERATORS, kind, note)
    config = replace(PROJECTOR, operators=",".join(OPERATORS), real_fraction=0.0)
    task = ProjectorTask(DCGANGenerator(3, 4), 3, None, config)
    generator = generator_for(1)
    for i in range(12):
        losses = task.step(i, 12, generator)
        assert all(torch.isfinite(v) for v in losses.values())
    assert set(drawn) == set(OPERATORS)


def test_a_projector_goes_on_from_the_encoder_of_the_coverage_term(images, tmp_path):
    train_generator(images, tmp_path / "g", GAN)
    e = load_coverage_encoder(tmp_path / "g")
    _, tensors = load_checkpoint(newest_checkpoint(tmp_path / "g"))
    for key, value in e.state_dict().items():
        assert torch.equal(value, tensors[f"network/encoder/{key}"])
    g, _, _ = load_generator(tmp_path / "g")
    config = replace(PROJECTOR, steps=1, learning_rate=1e-12)
    trained = train_projector(g, 3, images, tmp_path / "p", config, encoder=e)
    for key, value in load_coverage_encoder(tmp_path / "g").state_dict().items():
        assert torch.allclose(trained.state_dict()[key], value, atol=1e-9)
    plain = replace(GAN, coverage=0.0)
    train_generator(images, tmp_path / "plain", replace(plain, epochs=1))
    with pytest.raises(ValueError, match="without coverage"):
        load_coverage_encoder(tmp_path / "plain")


def test_a_projector_in_mixed_precision_is_close_and_keeps_its_weights_in_float32():
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = replace(PROJECTOR, precision=precision, real_fraction=0.0)
        task = ProjectorTask(DCGANGenerator(3, 4), 3, None, config)
        initialise(task.g, generator_for(3))
        losses[precision] = task.step(0, 4, generator_for(0))
        assert all(p.dtype == torch.float32 for p in task.e.parameters())
    for name, value in losses["float32"].items():
        assert float(value) == pytest.approx(float(losses["bfloat16"][name]), rel=0.05)
        assert not torch.equal(value, losses["bfloat16"][name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operators": "gaussian,fourier"}, "operators must be .* got 'fourier'"),
        ({"operators": ""}, "operators"),
        ({"precision": "float16"}, "precision"),
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
    with pytest.raises(ValueError, match=r"uint8 \(n, channels, 28, 28\) or"):
        train_generator(torch.zeros(8, 1, 28, 28), tmp_path, GAN)
    with pytest.raises(ValueError, match="batch_size"):
        train_generator(torch.zeros(8, 1, 28, 28, dtype=torch.uint8), tmp_path, GAN)
    assert list(tmp_path.iterdir()) == []


# --- 64×64 ------------------------------------------------------------------------------------

COLOUR = replace(GAN, epochs=2, batch_size=4, unbiased=True, flips=True)


@pytest.fixture(scope="module")
def few(images):
    return images[:8]


@pytest.fixture(scope="module")
def colours():
    shape = (8, 3, 64, 64)
    return torch.randint(0, 256, shape, generator=generator_for(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("data", "change"),
    [
        ("colours", {"augment": "color,translation,cutout"}),
        ("colours", {"architecture": "sagan", "loss": "wasserstein", "augment": "translation"}),
        ("colours", {"architecture": "sagan", "coverage": 5.0}),
        ("few", {"coverage": 5.0, "principal": True}),
    ],
    ids=["dcgan", "sagan", "coverage", "principal"],
)
def test_variants_of_the_generator_stop_and_go_on_to_the_same_bits(
    data, change, request, tmp_path, monkeypatch
):
    chosen, config = request.getfixturevalue(data), replace(COLOUR, **change)
    alone = train_generator(chosen, tmp_path / "alone", config, checkpoint_every=1)
    original = GeneratorTask.step

    def step(self, i, *rest):
        if i == 2:
            raise KeyboardInterrupt
        return original(self, i, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(GeneratorTask, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train_generator(chosen, tmp_path / "stopped", config, checkpoint_every=1)
    resumed = train_generator(chosen, tmp_path / "stopped", config, checkpoint_every=1)
    for a, b in zip(alone.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    loaded, stored, _ = load_generator(tmp_path / "alone")
    for a, b in zip(alone.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert loaded(torch.zeros(2, 3)).shape == (2, *chosen.shape[1:])
    assert stored["architecture"] == config.architecture
    # what is saved needs no spectral normalisation
    assert not any("parametrizations" in key for key in loaded.state_dict())


def test_mixed_precision_is_close_and_keeps_weights_in_float32(colours):
    losses = {}
    for precision in ("float32", "bfloat16"):
        task = GeneratorTask(colours, replace(COLOUR, precision=precision))
        losses[precision] = task.step(0, 4, generator_for(0))
        for network in task.networks.values():
            assert all(p.dtype == torch.float32 for p in network.parameters())
    for name, value in losses["float32"].items():
        mixed = losses["bfloat16"][name]
        assert float(mixed) == pytest.approx(float(value), rel=0.05)
        assert name == "moments" or not torch.equal(mixed, value)


def test_a_run_from_before_a_setting_existed_goes_on(images, tmp_path):
    kinked = replace(GAN, smooth=False)  # as every run was before there was a choice
    train_generator(images, tmp_path, kinked)
    path = tmp_path / "config.json"
    kept = {"kind", "channels", "steps", "latent_dim", "width", "coverage", "latent_weight"}
    kept |= {"epochs", "batch_size", "learning_rate", "average", "seed"}
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({key: stored[key] for key in kept}))
    train_generator(images, tmp_path, kinked)
    with pytest.raises(ValueError, match="flips: False there, True now"):
        train_generator(images, tmp_path, replace(kinked, flips=True))
    with pytest.raises(ValueError, match="smooth: False there, True now"):
        train_generator(images, tmp_path, GAN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": "color,blur"}, "augment must be .* got 'blur'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        ({"loss": "hinge"}, "loss must be one of vanilla, wasserstein, got 'hinge'"),
        ({"loss": "wasserstein"}, "for architecture 'sagan'"),
        ({"architecture": "vae"}, "architecture must be one of dcgan, sagan, got 'vae'"),
    ],
)
def test_generator_settings_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(GAN, **change)


def test_sagan_refuses_other_sizes(images, tmp_path):
    with pytest.raises(ValueError, match="64×64"):
        train_generator(images, tmp_path, replace(GAN, architecture="sagan"))


# --- augmentation -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_are_differentiable_and_drawn_image_by_image(name):
    x = torch.rand(3, 3, 8, 8, generator=generator_for(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, name, generator_for(2)), x)
    out = augment(x, name, generator_for(2))
    assert torch.equal(out, augment(x, name, generator_for(2)))
    same = augment(x[:1].expand(64, -1, -1, -1), name, generator_for(3))
    assert len({tuple(row.tolist()) for row in same.detach().flatten(1)}) > 8
    assert augment(x, "", generator_for(2)) is x


def test_translation_moves_and_fills_with_zeros():
    """Against slicing: every image is the original shifted by at most an eighth."""
    x = torch.rand(40, 2, 16, 24, generator=generator_for(4)) + 1
    moved = translation(x, generator_for(5))
    shifts = set()
    for image, out in zip(x, moved, strict=True):
        padded = torch.nn.functional.pad(image, (3, 3, 2, 2))
        found = [
            (top, left)
            for top in range(5)
            for left in range(7)
            if torch.equal(padded[:, top : top + 16, left : left + 24], out)
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert {top for top, _ in shifts} == set(range(5))
    assert {left for _, left in shifts} == set(range(7))


def test_cutout_hides_a_square():
    x = torch.ones(200, 2, 16, 16)
    hidden = cutout(x, generator_for(6)) == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    rows, columns = hidden[:, 0].any(dim=2).sum(1), hidden[:, 0].any(dim=1).sum(1)
    assert torch.equal(hidden[:, 0].sum(dim=(1, 2)), rows * columns)  # a rectangle …
    assert int(rows.max()) == int(columns.max()) == 8  # … of 8, less what is outside
    assert int(rows.min()) == 4 or int(rows.min()) == 3


def test_flips_mirror_half_of_the_real_images(colours):
    """With the same draw of z, D and G see x mirrored or not: about half over many steps."""
    task = GeneratorTask(colours, replace(COLOUR, coverage=0.0))
    seen = []
    task._through = lambda network, x: seen.append((network, x)) or network(x)
    mirrored = []
    for i in range(8):
        seen.clear()
        task.step(i, 100, generator_for(7, i))
        shown = next(x for network, x in seen if network is task.d)
        for image, original in zip(shown, task.batches(i), strict=True):
            assert torch.equal(image, original) or torch.equal(image, original.flip(2))
            mirrored.append(not torch.equal(image, original))
    assert 8 <= sum(mirrored) <= 24  # of 32; outside with probability 0.4 %


# --- several processes ------------------------------------------------------------------------

TOGETHER = """
import sys, torch
torch.set_num_threads(1)
from safetensors.torch import save_file
from npgd.training import GeneratorConfig, train_generator
from npgd.training import checkpoints, loop
from npgd.training.gan import GeneratorTask
from npgd.training.loop import generator_for
rank, out = loop.processes().rank, sys.argv[1]
seen = {}
original = loop.Processes.average

def average(self, tensors):
    parts = list(tensors)
    before = [part.clone() for part in parts]
    original(self, parts)
    for moment, values in (("before", before), ("after", parts)):
        for i, value in enumerate(values):
            seen.setdefault(f"{moment}/{calls[0]}/{i}", value.clone())
    calls[0] += 1

calls = [0]
loop.Processes.average = average
end = GeneratorTask.step

def step(self, i, *rest):
    seen.setdefault("batch", self.batches(0).clone())
    GeneratorTask.last = self
    return end(self, i, *rest)

GeneratorTask.step = step
images = torch.randint(0, 256, (128, 1, 28, 28), generator=generator_for(0), dtype=torch.uint8)
config = GeneratorConfig(latent_dim=3, width=4, epochs=2, batch_size=32, coverage=1.0)
train_generator(images, f"{out}/run", config, checkpoint_every=2)
state = checkpoints.state(GeneratorTask.last)
save_file(state, f"{out}/state-{rank}.safetensors")
seen = {key: value.contiguous() for key, value in seen.items()}
save_file(seen, f"{out}/seen-{rank}.safetensors")
"""


def test_two_processes_train_one_network(tmp_path):
    """Two processes of batch 32: shares of one order, averaged gradients, one and the same state.

    What each sends is checked against the gradient that its share has by itself, computed here.
    """
    pytest.importorskip("accelerate", reason="the optional dependency accelerate is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in range(2):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        told |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": 1}
        environment = os.environ | {key: str(value) for key, value in told.items()}
        command = [sys.executable, "-c", TOGETHER, str(tmp_path)]
        running.append(subprocess.Popen(command, env=environment))
    assert [process.wait() for process in running] == [0, 0]

    ends = [load_file(tmp_path / f"state-{rank}.safetensors") for rank in range(2)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    step, stored = load_checkpoint(checkpoints(tmp_path / "run")[-1])
    assert step == 4 and all(torch.equal(stored[key], ends[0][key]) for key in stored)
    assert json.loads((tmp_path / "run/config.json").read_text())["processes"] == 2

    seen = [load_file(tmp_path / f"seen-{rank}.safetensors") for rank in range(2)]
    for key in [key for key in seen[0] if key.startswith("before")]:
        mean = (seen[0][key] + seen[1][key]) / 2
        for rank in range(2):
            assert torch.allclose(seen[rank][key.replace("before", "after")], mean, rtol=1e-6)

    images = torch.randint(0, 256, (128, 1, 28, 28), generator=generator_for(0), dtype=torch.uint8)
    whole = Batches(images, 64, seed=0)
    assert torch.equal(torch.cat([part["batch"] for part in seen]), whole(0))
    config = GeneratorConfig(latent_dim=3, width=4, batch_size=32, coverage=1.0)
    for rank in range(2):
        task = GeneratorTask(images, config)
        x = seen[rank]["batch"]
        z = torch.randn(32, 3, generator=generator_for(0, 0, 0, rank))
        with torch.no_grad():
            fake = task.g(z)
        softplus = torch.nn.functional.softplus
        loss = softplus(-task.d(x)).mean() + softplus(task.d(fake)).mean()
        gradients = torch.autograd.grad(loss, list(task.d.parameters()))
        for i, gradient in enumerate(gradients):
            assert torch.allclose(seen[rank][f"before/0/{i}"], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_generator_is_left_as_it_is_and_a_noisy_one_is_refused(tmp_path):
    plain = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    scripted = torch.jit.trace(plain, torch.zeros(2, 4))
    config = ProjectorConfig(steps=2, batch_size=4, real_fraction=0.0)

    def trained(network, folder):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        return train_projector(network, 4, None, tmp_path / folder, config, encoder=encoder)

    trained(scripted, "scripted")
    assert all(w.requires_grad and w.grad is None for w in scripted.parameters())

    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    with pytest.raises(ValueError, match="generator_network must give the same for the same"):
        trained(nn.Sequential(plain, Noise()), "noisy")
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"encoder.* must have its weights, got 1\.weight without"):
        train_projector(plain, 4, None, tmp_path / "lazy", config, encoder=lazy)
