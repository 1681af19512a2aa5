"""Commands on a user's own code."""

import sys

import pytest
import torch
from typer.testing import CliRunner

import npgd
from npgd.training import ProjectorConfig, train_projector

CODE = """
import torch
from torch import nn

def make_generator():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "npgd_test_networks.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("npgd_test_networks", None)


def test_a_projector_is_trained_for_a_generator_of_ones_own(here, monkeypatch):
    from analysis.commands import app

    path = "npgd_test_networks:make_generator"
    options = "--latent-dim 3 --real-fraction 0 --steps 2 --batch-size 4 --width 4 --hidden 8"
    command = f"train projector --generator {path} --output run {options}"
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    assert str(here) not in sys.path
    with pytest.raises(ValueError, match=path):
        npgd.load_prior("run/prior.safetensors")
    monkeypatch.syspath_prepend(str(here))
    prior = npgd.load_prior("run/prior.safetensors", architectures=[path])
    made = sys.modules["npgd_test_networks"].make_generator()
    z = prior.sample_latents(3, seed=0)
    torch.testing.assert_close(prior.generate(z), made(z), rtol=0, atol=2e-3)  # half precision


def test_the_callers_generator_is_left_as_it_was(tmp_path):
    g = torch.nn.Sequential(
        torch.nn.Linear(3, 784), torch.nn.Dropout(), torch.nn.Unflatten(1, (1, 28, 28))
    )
    before = {name: value.clone() for name, value in g.state_dict().items()}
    config = ProjectorConfig(steps=2, batch_size=4, width=4, hidden=8, real_fraction=0.0, visits=1)
    train_projector(g, 3, None, tmp_path / "run", config)
    assert g.training and all(p.requires_grad and p.grad is None for p in g.parameters())
    assert all(torch.equal(value, before[name]) for name, value in g.state_dict().items())
