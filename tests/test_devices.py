"""What `tests/devices.py` compares agrees where the other device is the same."""

import importlib.util
from pathlib import Path

from analysis import testing

spec = importlib.util.spec_from_file_location("devices", Path(__file__).with_name("devices.py"))
devices = importlib.util.module_from_spec(spec)
spec.loader.exec_module(devices)


def test_the_cpu_agrees_with_itself():
    found = list(devices.compared("cpu", testing.random_prior((1, 8, 8), 3, seed=0), m=20))
    assert len({what for what, _, _ in found}) == 8
    assert all(difference <= 1e-12 for _, difference, _ in found)


def test_another_answer_is_noticed(monkeypatch):
    prior, other = (testing.random_prior((1, 8, 8), 3, seed=seed).double() for seed in (0, 1))
    copied = iter([prior, other])
    monkeypatch.setattr(devices.copy, "deepcopy", lambda thing: next(copied, thing))
    _, difference, allowed = next(devices.compared("cpu", prior, m=20))
    assert difference > allowed
