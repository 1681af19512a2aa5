"""Options come from dataclasses: name, type, default and help are written down once."""

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import npgd
from analysis.commands import app
from analysis.commands.options import command, documented, options_of
from npgd.training import (
    CorrectorConfig,
    DenoiserConfig,
    GeneratorConfig,
    OneNetConfig,
    ProjectorConfig,
)

TRAININGS = {
    "generator": GeneratorConfig,
    "projector": ProjectorConfig,
    "corrector": CorrectorConfig,
    "denoiser": DenoiserConfig,
    "onenet": OneNetConfig,
}


@dataclass(frozen=True)
class Walk:
    """A group."""

    steps: int = 10
    """Steps to take,
    one after another."""
    uphill: bool = False
    """Up."""

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")


@dataclass(frozen=True)
class Hike(Walk):
    """A group that has another's options, too."""

    goal: Path | None = None
    """Where to."""
    steps: int = 1000


def test_the_string_under_a_field_is_its_text_and_a_base_class_s_is_inherited():
    up, steps = "Up.", "Steps to take, one after another."
    assert documented(Walk) == {"steps": steps, "uphill": up}
    assert documented(Hike) == {"steps": steps, "uphill": up, "goal": "Where to."}


def test_a_class_s_own_options_come_first_with_its_own_defaults():
    assert [(o.name, o.default) for o in options_of(Hike)] == [
        ("steps", 1000),
        ("goal", None),
        ("uphill", False),
    ]


def invoke(function, *arguments):
    walks = typer.Typer()
    walks.command()(function)
    return CliRunner().invoke(walks, list(arguments))


def test_a_command_is_given_its_groups_and_its_own_options():
    seen = []

    @command
    def go(*, hike: Hike, uphill: bool = True, name: str = "x") -> None:
        """Go."""
        seen.append((hike, uphill, name))

    assert invoke(go, "--goal", "there", "--no-uphill").exit_code == 0
    # A parameter of the function takes the place of the field, which keeps its default.
    assert seen == [(Hike(goal=Path("there"), steps=1000, uphill=False), False, "x")]
    assert go.__doc__ == "Go."
    expected = ["context", "steps", "goal", "uphill", "name"]
    assert list(inspect.signature(go).parameters) == expected


def test_what_a_group_refuses_is_one_line():
    @command
    def go(*, walk: Walk) -> None:
        raise AssertionError("not reached")

    done = invoke(go, "--steps", "-1")
    assert done.exit_code == 2
    assert done.output.split("\n") == ["error: --steps must be at least 0, got -1", ""]


def options(*names):
    found = typer.main.get_command(app)
    for name in names:
        found = found.commands[name]
    return {option.name: option for option in found.params}


@pytest.mark.parametrize("name", TRAININGS)
def test_every_setting_of_a_training_is_an_option(name):
    """With its default and its text, but for the precision, which is chosen by the device."""
    config, found = TRAININGS[name], options("train", name)
    texts = documented(config)
    for field in dataclasses.fields(config):
        option = found[field.name]
        assert option.opts[0] == f"--{field.name.replace('_', '-')}"
        if field.name == "precision":
            assert option.default == "auto"
        else:
            assert option.default == field.default
            assert option.help == texts[field.name]


def walk(found):
    """(command, option) of all commands."""
    for child in getattr(found, "commands", {}).values():
        yield from walk(child)
    yield from ((found.name, parameter) for parameter in found.params)


def test_what_is_off_has_no_opposite_and_no_range_widens_a_column():
    for name, option in walk(typer.main.get_command(app)):
        assert option.default is not False or not option.secondary_opts, (name, option.name)
    for name in ("recover", "verify", "predict", "sweep", "design"):
        assert "<=x" not in CliRunner().invoke(app, [name, "--help"]).output


@pytest.mark.parametrize("seed", [-1, 2**62 + 1])
def test_a_seed_out_of_range_is_refused_by_name(seed):
    done = CliRunner().invoke(app, ["recover", "--seed", str(seed)])
    assert done.exit_code == 2 and f"must be from 0 to {2**62}, got {seed}" in done.output


def test_every_option_has_a_text():
    told = {(name, option.name): option.help for name, option in walk(typer.main.get_command(app))}
    assert len(told) > 100
    assert not [where for where, text in told.items() if not text]


def test_the_version_is_the_package_s():
    assert CliRunner().invoke(app, ["--version"]).output == f"{npgd.__version__}\n"
