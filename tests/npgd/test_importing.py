"""Priors and operators by import path: where the user says so, and nowhere else."""

import sys

import pytest
import torch

import npgd
from npgd.importing import is_import_path

CODE = """
import torch
from torch import nn
import npgd

SHAPE = (1, 4, 4)

class Mine(nn.Sequential):
    def __init__(self, hidden):
        super().__init__(
            nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 16), nn.Unflatten(1, SHAPE)
        )

class Inverse(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(16, 3))

def make_prior():
    torch.manual_seed(0)
    return npgd.GenerativePrior(Mine(8), Inverse(), 3, SHAPE, name="mine")

def make_operator():
    return npgd.as_operator(lambda x: x[..., ::2, ::2], SHAPE)

def nothing():
    return 3

def fails():
    raise RuntimeError("no weights\\nhere")

def asks(path):
    return make_prior()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "npgd_test_own.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "npgd_test_own", raising=False)
    yield "npgd_test_own"
    sys.modules.pop("npgd_test_own", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b:C", True),
        ("a:C.d", True),
        ("folder/a.py:C", True),
        ("a.py:C", True),
        ("/folder/.py:C", False),
        ("mnist", False),
        ("C:file.safetensors", False),
        ("/a:b", False),
        (None, False),
    ],
)
def test_what_reads_as_an_import_path(text, expected):
    assert is_import_path(text) is expected


def test_code_in_a_file_is_found_by_the_path_of_the_file(tmp_path):
    (tmp_path / "npgd_test_file.py").write_text(CODE)
    path = f"{tmp_path}/npgd_test_file.py"
    try:
        prior = npgd.load_prior(f"{path}:make_prior")
        assert prior.name == "mine" and type(prior.generator).__module__ == "npgd_test_file"
        assert npgd.load_operator(f"{path}:make_operator").m == 4
        again = npgd.load_prior(f"{path}:make_prior")
        assert type(again.generator) is type(prior.generator)  # the file runs once
    finally:
        sys.modules.pop("npgd_test_file", None)
    with pytest.raises(ValueError, match=r"name must name what can be imported, .*FileNotFound"):
        npgd.load_prior(f"{tmp_path}/none.py:make_prior")
    (tmp_path / "npgd_test_bad.py").write_text("raise ImportError('no')")
    with pytest.raises(ValueError, match=r"name must name what can be imported, .*ImportError: no"):
        npgd.load_prior(f"{tmp_path}/npgd_test_bad.py:make_prior")
    assert "npgd_test_bad" not in sys.modules


@pytest.mark.parametrize("call", [npgd.load_prior, npgd.load_operator])
def test_functions_that_fail_are_named(module, call):
    for function, wanted, says in (
        ("fails", "works", "RuntimeError: no weights"),
        ("asks", "can be called without arguments", "TypeError: asks"),
    ):
        with pytest.raises(ValueError, match=f"that {wanted}, got '.*', which says {says}"):
            call(f"{module}:{function}")


def test_a_prior_and_an_operator_of_ones_own_code(module):
    prior = npgd.load_prior(f"{module}:make_prior", dtype=torch.float64)
    assert prior.name == "mine" and prior.dtype == torch.float64
    assert not any(p.requires_grad for p in prior.parameters())
    A = npgd.load_operator(f"{module}:make_operator")
    assert A.m == 4
    for call in (npgd.load_prior, npgd.load_operator):
        with pytest.raises(TypeError, match=r"must lead to a .*, got 3"):
            call(f"{module}:nothing")
        with pytest.raises(ValueError, match="must name what can be imported, got"):
            call(f"{module}:absent")


def test_a_file_names_classes_that_only_its_reader_lets_run(module, tmp_path):
    prior = npgd.load_prior(f"{module}:make_prior")
    own = sys.modules[module]
    architecture = {
        "generator": {"name": own.Mine, "settings": {"hidden": 8}},
        "encoder": {"name": f"{module}:Inverse", "settings": {}},
    }
    path = tmp_path / "mine.safetensors"
    npgd.save_prior(prior, path, architecture, half=False)
    del sys.modules[module]
    with pytest.raises(ValueError, match=rf"architectures=\['{module}:Mine'\]"):
        npgd.load_prior(path)
    assert module not in sys.modules  # no code has run
    names = [f"{module}:Mine", f"{module}:Inverse"]
    again = npgd.load_prior(path, architectures=names)
    z = prior.sample_latents(3, seed=0)
    torch.testing.assert_close(again.generate(z), prior.generate(z))
    npgd.save_prior(again, tmp_path / "again.safetensors")
    with pytest.raises(TypeError, match="architectures must be"):
        npgd.load_prior(path, architectures="a:b")
