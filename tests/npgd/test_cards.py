"""Weights with a card: both are written or none, and what is read is what a header describes."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from npgd import cards, load_denoiser, load_onenet, load_prior, prior_card
from npgd.files import write_together

LOADERS = {"prior": load_prior, "denoiser": load_denoiser, "onenet": load_onenet}


def linear(description):
    return nn.Linear(description["in"], description["out"])


def save(network, path, description, card=None, half=True):
    cards.save(network, path, "denoiser", linear, description, card, half)


def load(path, kind="denoiser", dtype=torch.float64):
    return cards.load(path, kind, linear, lambda description, network: network, dtype, "cpu")


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
    save(network, path, {"in": 3, "out": 2}, {"data": "σ"}, half)
    expected = network.weight.half().double() if half else network.weight.double()
    assert torch.equal(load(path).weight, expected)
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == {"data": "σ"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.safetensors"]


def test_weights_and_card_are_written_both_or_not_at_all(tmp_path):
    network, path = nn.Linear(3, 2), tmp_path / "a.safetensors"
    sizes = {"in": 3, "out": 2}
    for description, card in ((sizes, {"bad": object()}), ({"in": object()}, {"good": 1})):
        with pytest.raises(TypeError, match="not JSON serializable"):
            save(network, path, description, card)
    with pytest.raises(OSError):
        write_together({path: b"one", tmp_path / "no such folder" / "b": b"two"})
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, got .*a\.pt"):
        save(network, tmp_path / "a.pt", sizes)
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
        ("{}", f"must hold the {kind} that its header describes: .* must be in the header"),
    ):
        save_file({"a": torch.zeros(2)}, path, {kind: header})
        with pytest.raises(ValueError, match=message):
            LOADERS[kind](path)


def test_weights_that_do_not_fit_what_the_header_describes_are_neither_saved_nor_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"the denoiser must be the one .* weight must have shape"):
        save(nn.Linear(3, 2), path, {"in": 4, "out": 2})
    assert not path.exists()
    save_file(nn.Linear(3, 2).state_dict(), path, {"denoiser": '{"in": 4, "out": 2}'})
    with pytest.raises(ValueError, match=r"weight must have shape \(2, 4\), got \(2, 3\)"):
        load(path)


@pytest.mark.parametrize("scale", [1e6, 1e-9, 1e30])
def test_what_half_precision_cannot_hold_keeps_its_own(scale, tmp_path):
    network, path = nn.Linear(3, 2), tmp_path / "a.safetensors"
    with torch.no_grad():
        network.weight.mul_(scale)
    save(network, path, {"in": 3, "out": 2})
    loaded = load(path)
    assert torch.equal(loaded.weight, network.weight.double())
    assert torch.equal(loaded.bias, network.bias.half().double())
    if scale > 1e4:
        with pytest.raises(ValueError, match=r"weight in torch\.float16 must be finite, got"):
            load(path, dtype=torch.float16)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(half, bad, tmp_path):
    network, path = nn.Linear(3, 2), tmp_path / "a.safetensors"
    with torch.no_grad():
        network.bias[1] = bad
    with pytest.raises(ValueError, match="bias must be finite, got NaN or infinity in 1 of 2"):
        save(network, path, {"in": 3, "out": 2}, half=half)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("half", [True, False])
def test_tied_weights_are_kept_each_for_itself(half, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight

    path = tmp_path / "a.safetensors"
    cards.save(Tied(), path, "denoiser", lambda _: Tied(), {}, None, half)
    loaded = cards.load(
        path, "denoiser", lambda _: Tied(), lambda _, network: network, torch.float32, "cpu"
    )
    assert torch.equal(loaded.one.weight, loaded.two.weight)


def test_a_float64_network_kept_whole_loses_nothing(tmp_path):
    network, path = nn.Linear(3, 2).double(), tmp_path / "a.safetensors"
    with torch.no_grad():
        network.weight.normal_()
    save(network, path, {"in": 3, "out": 2}, half=False)
    assert torch.equal(load(path).weight, network.weight)


@pytest.mark.parametrize("kind", cards.SHIPPED)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": None}, TypeError, "name must be a path, got None"),
        ({"name": b"mnist"}, TypeError, "name must be a path, got b'mnist'"),
        ({"name": "a\0.safetensors"}, ValueError, "name must be a path that a file can have"),
        ({"name": ""}, ValueError, "name must be a shipped"),
        ({"name": "x" * 300 + ".safetensors"}, ValueError, "name must be a shipped"),
        ({"dtype": None}, TypeError, "dtype must be a torch dtype"),
        ({"dtype": "float32"}, TypeError, "dtype must be a torch dtype .*, got 'float32'"),
        ({"dtype": float}, TypeError, "dtype must be a torch dtype"),
        ({"dtype": torch.int64}, ValueError, r"dtype must be one of .*, got torch\.int64"),
        ({"dtype": torch.complex64}, ValueError, r"dtype must be one of .*, got torch\.complex64"),
        ({"device": None}, TypeError, "device must be a device .*, got None"),
        ({"device": True}, TypeError, "device must be a device .*, got True"),
        ({"device": "gpu"}, ValueError, "device must be one that is there, .*, got 'gpu'"),
        ({"device": "cuda:99"}, ValueError, "device must be one that is there, .*, got 'cuda:99'"),
        ({"device": "meta"}, ValueError, "device must be one that is there, .*, got 'meta'"),
    ],
)
def test_arguments_that_do_not_serve_are_refused_by_name(kind, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        LOADERS[kind](**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 3, ["mnist"], b"mnist", torch.zeros(2), "", "mnist.json"])
def test_only_names_of_what_is_shipped_have_a_card(name):
    with pytest.raises((TypeError, ValueError), match="name must be one of mnist"):
        prior_card(name)
