"""Settings of trainings: every field of every kind is held to what it may be."""

import dataclasses
import json
import math
from dataclasses import asdict
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from npgd.settings import Real, Whole, kinds
from npgd.training import (
    CorrectorConfig,
    DenoiserConfig,
    GeneratorConfig,
    OneNetConfig,
    ProjectorConfig,
)

CONFIGS = (GeneratorConfig, ProjectorConfig, CorrectorConfig, DenoiserConfig, OneNetConfig)
NOTHINGS = (
    None, "", "7", b"7", [1], (1,), {}, {1: 2}, object(), int, 1j, 1 + 0j, Decimal(1), math.nan,
    math.inf, -math.inf, np.nan, np.float32("inf"), torch.nan, torch.tensor(1), torch.tensor(1.5),
    torch.tensor([1, 2]), np.array(1), np.array([1.0]), np.complex64(1),
)  # fmt: skip
BAD = {
    "whole": (
        *NOTHINGS, True, False, np.True_, 1.0, 1.5, np.float64(2), Fraction(2), -1, -(2**63),
        10**400, -(10**400), np.int64(-1), 2**64,
    ),
    "real": (
        *NOTHINGS, True, False, np.True_, -1, -1.0, -5e-324, 10**400, -(10**400), 1e300,
        np.int8(-1), np.float16(-1), Fraction(-1, 3),
    ),
    "bool": (*NOTHINGS, 0, 1, 1.0, np.int64(1), "True", 10**400),
    "str": (
        *(bad for bad in NOTHINGS if bad != ""), True, 0, 1, 10**400, "no such name", "color, ,x",
        "\0", "float32\n", "x" * 10**5,
    ),
}  # fmt: skip
WHOLE = (int, np.int64, np.uint8, np.int16, np.uint64)
REAL = (float, np.float64, np.float32, np.float16)


def fields():
    found = []
    for config in CONFIGS:
        for name, (plain, ranges) in kinds(config).items():
            kind = {Whole: "whole", Real: "real"}[type(ranges[0])] if ranges else plain.__name__
            found.append(pytest.param(config, name, kind, id=f"{config.__name__}.{name}"))
    return found


@pytest.mark.parametrize(("config", "name", "kind"), fields())
def test_every_bad_value_of_every_field_is_refused_by_name(config, name, kind):
    for bad in BAD[kind]:
        with pytest.raises((TypeError, ValueError)) as caught:
            config(**{name: bad})
        told = str(caught.value)
        assert told.startswith(name.removesuffix("_low").removesuffix("_high")), told
        assert " must be " in told and ", got " in told and "\n" not in told and len(told) < 300


@pytest.mark.parametrize(("config", "name", "kind"), fields())
def test_every_valid_kind_of_every_field_passes_and_becomes_plain(config, name, kind):
    default = getattr(config(), name)
    if kind == "whole":
        made = [number(min(default, 100)) for number in WHOLE]
    elif kind == "real":
        made = [number(default) for number in REAL if default == 0 or number(default) > 1e-5]
        made += [Fraction(default), 1]
    else:
        made = [default, {"bool": np.bool_, "str": np.str_}[kind](default)]
    for value in made:
        try:
            held = getattr(config(**{name: value}), name)
        except ValueError as error:  # two fields that must agree
            assert f"{name.rpartition('_')[0]}_low must be at most" in str(error)
            continue
        assert type(held) is type(default)
        assert held == value


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", [0, 2**31, 2**63 - 1, 2**63, 2**64 - 1, np.uint64(2**63)])
def test_every_seed_of_64_bits_passes_and_can_be_stored(config, seed):
    held = config(seed=seed)
    assert json.loads(json.dumps(asdict(held)))["seed"] == int(seed)
    assert held == config(seed=int(seed)) == dataclasses.replace(held)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DenoiserConfig(noise_low=2.0, noise_high=1.0), "noise_low must be at most"),
        (lambda: ProjectorConfig(m_low=9, m_high=3), "m_low must be at most m_high, got 9 and 3"),
        (lambda: ProjectorConfig(step_low=2.0), "step_low must be at most step_high"),
        (lambda: CorrectorConfig(operators=" , "), "operators must be some of .*, got none"),
        (lambda: GeneratorConfig(principal=True), "principal must come with coverage > 0"),
        (lambda: GeneratorConfig(unbiased=True, coverage=1, batch_size=1), "batch_size must be"),
        (lambda: GeneratorConfig(coverage=1, width=6), "width must be a multiple of 4"),
        (lambda: ProjectorConfig(width=1), "width must be a multiple of 4, got 1"),
        (lambda: OneNetConfig(noise=0.01), "noise must be at least 0.05"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_named(make, told):
    with pytest.raises(ValueError, match=told):
        make()
