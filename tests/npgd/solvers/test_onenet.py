"""OneNet: ADMM with the exact proximal map is exact; its training is the stated one, to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.testing import normal
from npgd.denoisers import load_onenet, save_network
from npgd.networks import DenoisingNetwork, ProximalNetwork
from npgd.networks.denoiser import NaturalnessClassifier
from npgd.operators import Gaussian
from npgd.projectors import AffineSet
from npgd.solvers import OneNet, PnPADMM, recover
from npgd.training import OneNetConfig, train_onenet
from npgd.training.loop import generator_for
from npgd.training.onenet import OneNetTask, perturb

DOUBLE = torch.float64
SHAPE = (1, 8, 8)
TINY = OneNetConfig(width=4, steps=12, batch_size=8)


@pytest.fixture(scope="module")
def images():
    shape = (32, 1, 28, 28)
    return torch.randint(0, 256, shape, generator=generator_for(0), dtype=torch.uint8)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**31), penalty=st.floats(0.1, 1.0))
def test_with_the_projection_onto_an_affine_set_the_image_is_recovered(seed, penalty):
    """P exact, the set convex, y = A x* with x* in it and m > k: the minimum is x*, f = 0."""
    S = AffineSet(normal(64, 4, seed=seed), normal(64, seed=seed + 1), SHAPE)
    A = Gaussian(SHAPE, 40, seed, DOUBLE)
    x_true = S.sample(3, seed=seed)
    solver = OneNet(S.project, penalty=penalty, max_iter=1000, tol=1e-10)
    solution = recover(A, A(x_true), solver, x_true=x_true)
    assert float(solution.error[-1].max()) < 1e-12 * float(x_true.square().max())


def test_it_is_plug_and_play_without_a_noise_level():
    A, y = Gaussian(SHAPE, 20, 0, DOUBLE), normal(2, 20)
    mine = recover(A, y, OneNet(torch.tanh, penalty=0.3, max_iter=9, tol=0))
    same = PnPADMM(lambda w, sigma: w.tanh(), penalty=0.3, max_iter=9, tol=0)
    torch.testing.assert_close(mine.x, recover(A, y, same).x)


def test_perturbed_images_differ_and_follow_the_generator():
    x = torch.rand(64, 1, 28, 28, generator=generator_for(1))
    v = perturb(x, generator_for(2), noise=1.5)
    assert v.shape == x.shape and torch.equal(v, perturb(x, generator_for(2), noise=1.5))
    assert not torch.equal(v, perturb(x, generator_for(3), noise=1.5))
    spread = (v - x).flatten(1).std(1)
    assert float(spread.min()) > 0 and float(spread.max()) < 1.5 * 3**0.5 * 1.3


def test_perturbation_has_the_variance_it_states():
    """Without blocks, E(v − x)² = E s² · E level²; one grid cell: level uniform, variance one."""
    x = torch.zeros(4000, 1, 4, 4)  # a tenth of four pixels is one cell at most
    v = perturb(x, generator_for(0), noise=1.0, blocky=0.0)
    expected = (1 - 0.05**3) / (3 * 0.95)
    assert float(v.square().mean()) == pytest.approx(expected, rel=0.1)


def test_blocky_images_are_made_of_blocks():
    x = torch.rand(16, 1, 28, 28, generator=generator_for(1))
    v = perturb(x, generator_for(4), noise=0.05, blocky=1.0)
    assert float((v - x).square().mean()) > 10 * 0.05**2
    assert float(perturb(x, generator_for(4), 0.05, 0.0).sub(x).square().mean()) < 2 * 0.05**2


def test_a_stopped_training_ends_with_the_same_bits(images, tmp_path, monkeypatch):
    alone = train_onenet(images, tmp_path / "alone", TINY, checkpoint_every=5)
    original = OneNetTask.step

    def step(self, i, *rest):
        if i == 7:
            raise KeyboardInterrupt
        return original(self, i, *rest)

    monkeypatch.setattr(OneNetTask, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_onenet(images, tmp_path / "stopped", TINY, checkpoint_every=5)
    monkeypatch.setattr(OneNetTask, "step", original)
    resumed = train_onenet(images, tmp_path / "stopped", TINY, checkpoint_every=5)
    for a, b in zip(alone.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_losses_of_a_step_are_the_stated_ones(images):
    task, again = OneNetTask(images, TINY), OneNetTask(images, TINY)
    losses = task.step(0, 10, generator_for(3))
    x = again.batches(0)
    v = perturb(x, generator_for(3), TINY.noise, TINY.blocky)
    with torch.no_grad():
        assert float(losses["denoising"]) == pytest.approx(
            float((again.p(v) - x).square().mean()), rel=1e-5
        )
        log_natural = torch.nn.functional.logsigmoid
        fooled = 0.01 * log_natural(again.d(again.p(x))) + 0.99 * log_natural(again.d(again.p(v)))
        assert float(losses["fooling"]) == pytest.approx(-float(fooled.mean()), rel=1e-5)
    for name in ("proximal", "image_classifier", "latent_classifier"):
        changed = zip(
            task.networks[name].parameters(), again.networks[name].parameters(), strict=True
        )
        assert any(not torch.equal(a, b) for a, b in changed)


def test_classifiers_learn_to_tell(images):
    """With P frozen at its start, D learns that x is natural and P(v) is not."""
    task = OneNetTask(
        images, OneNetConfig(width=4, batch_size=16, learning_rate=1e-12, classifier_rate=5e-3)
    )
    first = [float(task.step(i, 200, generator_for(0, i))["image"]) for i in range(5)]
    last = [float(task.step(i, 200, generator_for(0, i))["image"]) for i in range(5, 80)][-5:]
    assert sum(last) < 0.8 * sum(first)


def test_saved_and_loaded_by_kind(tmp_path):
    network = ProximalNetwork(4).eval()
    save_network(network, tmp_path / "p.safetensors", {"width": 4})
    w = normal(2, 1, 8, 8)
    loaded = load_onenet(tmp_path / "p.safetensors", dtype=DOUBLE)
    torch.testing.assert_close(loaded(w), network.double()(w), rtol=1e-2, atol=1e-2)
    assert network.encode(w).shape == (2, 16, 2, 2)
    assert NaturalnessClassifier(16, 4).double()(network.encode(w)).shape == (2,)
    save_network(DenoisingNetwork(4), tmp_path / "d.safetensors", {"width": 4})
    with pytest.raises(ValueError, match="must hold an onenet"):
        load_onenet(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="multiples of four"):
        network(normal(1, 1, 10, 8))


def test_the_shipped_map_cleans_perturbed_digits(digits):
    """It was trained to: what it leaves is less than a third of the perturbation."""
    P, v = load_onenet("mnist"), perturb(digits, generator_for(5))
    assert float((P(v) - digits).square().mean()) < (v - digits).square().mean() / 3


def test_digits_come_back_from_few_measurements(digits):
    A = Gaussian((1, 28, 28), 200, 0)
    solution = recover(A, A(digits[:8]), OneNet(), x_true=digits[:8])
    assert float(solution.error[-1].mean()) < 0.2 * float(solution.error[0].mean())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"proximal": 3}, TypeError, "proximal must be callable"),
        ({"proximal": "fourier"}, ValueError, "name must be a shipped onenet"),
        ({"proximal": torch.tanh, "penalty": -1.0}, ValueError, "penalty"),
    ],
)
def test_settings_that_make_no_sense_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        OneNet(**arguments)


def test_training_settings_that_make_no_sense_are_named():
    for change in ({"blocky": 1.5}, {"clean_share": -0.1}, {"soft_label": 2.0}):
        with pytest.raises(ValueError, match=next(iter(change))):
            OneNetConfig(**change)
    with pytest.raises(ValueError, match="noise"):
        OneNetConfig(noise=0.01)
