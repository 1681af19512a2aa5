"""Weights with a card: both are written or none, and what is read is what a header describes."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from npgd import cards, load_denoiser, load_onenet, load_prior
from npgd.files import write_together

LOADERS = {"prior": load_prior, "denoiser": load_denoiser, "onenet": load_onenet}


def linear(description):
    return nn.Linear(description["in"], description["out"])


def load(path, kind="denoiser"):
    return cards.load(path, kind, linear, torch.float64, "cpu")


@pytest.mark.parametrize("kind", cards.SHIPPED)
def test_everything_shipped_loads_frozen_and_has_its_card(kind):
    for name in cards.SHIPPED[kind]:
        network = LOADERS[kind](name, dtype=torch.float64)
        assert not network.training
        tensors = [*network.parameters(), *network.buffers()]
        assert all(t.dtype == torch.float64 for t in tensors if t.is_floating_point())
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert cards.card(name, kind)
    with pytest.raises(ValueError, match=r"name must be one of mnist.*, got 'emnist'"):
        cards.card("emnist", kind)


@pytest.mark.parametrize("half", [True, False])
def test_what_is_loaded_is_what_was_saved(half, tmp_path):
    network, path = nn.Linear(3, 2), tmp_path / "a.safetensors"
    cards.save(network, path, "denoiser", {"in": 3, "out": 2}, {"data": "σ"}, half)
    expected = network.weight.half().double() if half else network.weight.double()
    assert torch.equal(load(path).weight, expected)
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == {"data": "σ"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.safetensors"]


def test_weights_and_card_are_written_both_or_not_at_all(tmp_path):
    network, path = nn.Linear(3, 2), tmp_path / "a.safetensors"
    for description, card in (({"in": 3}, {"bad": object()}), ({"in": object()}, {"good": 1})):
        with pytest.raises(TypeError, match="not JSON serializable"):
            cards.save(network, path, "denoiser", description, card)
    with pytest.raises(OSError):
        write_together({path: b"one", tmp_path / "no such folder" / "b": b"two"})
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, got .*a\.pt"):
        cards.save(network, tmp_path / "a.pt", "denoiser", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", cards.SHIPPED)
def test_a_file_that_is_none_of_its_kind_is_refused(kind, tmp_path):
    path = tmp_path / "a.safetensors"
    for name in ("fourier", path, tmp_path / "a.pt"):
        with pytest.raises(ValueError, match=rf"name must be a shipped {kind} \(mnist"):
            LOADERS[kind](name)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"a\.safetensors must be a safetensors file"):
        LOADERS[kind](path)
    save_file({"a": torch.zeros(2)}, path, {"something else": "{}"})
    with pytest.raises(ValueError, match=f"must hold an? {kind}, got tensors with no '{kind}'"):
        LOADERS[kind](path)
    for header, message in (
        ("{", f"must describe its {kind} in JSON"),
        ("3", f"must describe its {kind} by names and values, got int"),
        ("{}", f"must hold the {kind} that its header describes, got KeyError"),
    ):
        save_file({"a": torch.zeros(2)}, path, {kind: header})
        with pytest.raises(ValueError, match=message):
            LOADERS[kind](path)


def test_weights_that_do_not_fit_what_the_header_describes_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    cards.save(nn.Linear(3, 2), path, "denoiser", {"in": 4, "out": 2})
    with pytest.raises(ValueError, match=r"(?s)header describes, got RuntimeError: .*size"):
        load(path)
