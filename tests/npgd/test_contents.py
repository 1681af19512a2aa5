"""A digest of what a module is made of: it changes when that does, and else not."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from npgd.contents import contents


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.array, self.size, self.words = np.arange(3.0), (1, 2), ["a", {"b": 2}]
        self.wave = torch.tensor([1 + 2j]).conj()


def grown(module):
    module.words[1]["b"] = 3


CHANGES = {
    "a parameter through .data": lambda m: m.inner.weight.data.add_(1e-6),
    "a buffer": lambda m: m.mask.logical_not_(),
    "an array": lambda m: m.array.__setitem__(0, 5.0),
    "a number in a tuple": lambda m: setattr(m, "size", (1, 3)),
    "a mapping in a list": grown,
    "a complex tensor": lambda m: setattr(m, "wave", m.wave.conj()),
    "whether it trains": lambda m: m.eval(),
}


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_every_change_changes_the_digest_and_a_copy_does_not(name, partly):
    torch.manual_seed(0)
    module = Held()
    before = contents(module, partly=partly)
    assert before is not None and contents(copy.deepcopy(module), partly=partly) == before
    CHANGES[name](module)
    assert contents(module, partly=partly) != before


def test_what_cannot_be_read_makes_none_or_is_left_out():
    module = Held()
    module.function = len
    assert contents(module) is None
    before = contents(module, partly=True)
    module.function = max
    assert contents(module, partly=True) == before is not None
    module.array[0] = 7.0
    assert contents(module, partly=True) != before
    sparse = torch.eye(2).to_sparse()
    assert contents(sparse) is None and contents(sparse, 1, partly=True) is not None


def test_what_holds_itself_is_read_once():
    module = Held()
    module.words.append(module.words)
    module.back = [module]
    assert contents(module) is not None
