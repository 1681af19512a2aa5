"""What the commands of `npgd` share: groups of options, and what they say of them.

A group of options is a dataclass. Each of its fields is an option: the field's name, type and
default are the option's, and the string under it is the help. `command` makes a command of a
function whose parameters are such groups, so that no option is written down twice.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import os
import sys
import textwrap
import typing
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from analysis.commands.terminal import plain_errors, sentence, warn

if TYPE_CHECKING:
    import torch

    from npgd import GenerativePrior

# ------------------------------------------------------------------------- a function, a command


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command, with an option for every field of its parameters that are dataclasses.

    A parameter of the function itself takes the place of a field of the same name, which keeps its
    default. What a user can mend becomes one line on standard error, and exit status 2.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters
    groups = {name: hints[name] for name in own if dataclasses.is_dataclass(hints[name])}
    parameters: dict[str, Parameter] = {}
    for name, parameter in own.items():
        found = (
            [option for option in options_of(groups[name]) if option.name not in own]
            if name in groups
            else [parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name])]
        )
        parameters |= {option.name: option for option in found}

    def run(context: typer.Context, **values: Any) -> None:
        words = {option.name: option.opts[0] for option in context.command.params if option.name}
        with plain_errors(words), _invoked(context):
            given = {name: value for name, value in values.items() if name in own}
            for name, group in groups.items():
                options = {option.name for option in options_of(group)} - own.keys()
                given[name] = group(**{option: values[option] for option in options})
            function(**given)

    run.__name__, run.__module__ = function.__name__, __name__
    # A paragraph on one line, so that it is broken where the terminal ends.
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    told = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run.__annotations__ = {name: option.annotation for name, option in parameters.items()}
    signature = inspect.Signature([told, *parameters.values()])
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class Invocation:
    """The command line that is being carried out."""

    arguments: tuple[str, ...] = ()
    """All of it, without the program's name."""
    given: frozenset[str] = frozenset()
    """The parameters that stand on it; the others have their defaults."""


_INVOCATION: ContextVar[Invocation] = ContextVar("invocation")


def invocation() -> Invocation:
    """The command line that is being carried out; an empty one outside of a command."""
    return _INVOCATION.get(Invocation())


@contextlib.contextmanager
def _invoked(context: typer.Context) -> Iterator[None]:
    given = frozenset(
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    )
    token = _INVOCATION.set(Invocation(context.find_root().obj or (), given))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: warn(str(message))
            yield
    finally:
        _INVOCATION.reset(token)


def options_of(group: type) -> list[Parameter]:
    """An option for each field of a dataclass; its own come before those of its base classes."""
    hints, texts = typing.get_type_hints(group), documented(group)
    bases = reversed(list(enumerate(group.__mro__)))
    rank = {name: i for i, base in bases for name in inspect.get_annotations(base)}
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=Annotated[
                hints[field.name], _option(group, field, hints[field.name], texts[field.name])
            ],
        )
        for field in sorted(dataclasses.fields(group), key=lambda field: rank[field.name])
    ]


def _option(group: type, field: dataclasses.Field[Any], hint: Any, text: str) -> Any:
    """The option of one field. What is off by default has no --no-…; long choices stand in the
    help, which breaks between words."""
    name = f"--{field.name.replace('_', '-')}"
    flag = hint is bool and field.default is False
    (kind, *_) = typing.get_args(hint) or (hint,)
    choices = list(kind) if isinstance(kind, type) and issubclass(kind, StrEnum) else []
    metavar = "<name>" if choices else None
    if choices:
        text = f"{text} One of {', '.join(choice.value for choice in choices)}."
    panel = getattr(group, "panel", None)
    names = (name,) if flag else ()
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel)


def documented(group: type) -> dict[str, str]:
    """The string under each field of a dataclass, or its base class's; "" where there is none.

    Line breaks become spaces. The source is read, so that nothing else need be imported.
    """
    texts: dict[str, str] = {}
    for base in reversed(group.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _declared(base)
    return texts


@functools.cache
def _declared(group: type) -> dict[str, str]:
    """The fields that a class itself declares with a string under them, and the strings."""
    if not dataclasses.is_dataclass(group):
        return {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(group))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in itertools.pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                texts[name] = " ".join(text.split())
    return texts


# ------------------------------------------------------------------------- options and groups


class Design(StrEnum):
    """The ways to design an operator."""

    SECANT_PCA = "secant-pca"
    NUMAX = "numax"
    MINIMAX = "minimax"
    DCT = "dct"
    DCT_UNIFORM = "dct-uniform"
    GAUSSIAN = "gaussian"


class Dataset(StrEnum):
    """Data sets that are read from a data directory."""

    MNIST = "mnist"
    CELEBA = "celeba"
    CHURCH = "church"


Prior = Annotated[
    str,
    typer.Option(
        help="mnist, mnist-k100, mnist-k2, celeba, church, a prior's .safetensors file, or your"
        " code: module:function or file.py:function."
    ),
]
MOST_SEEDS = 2**62


def _seed(value: int) -> int:
    """A seed that other draws may count up from. (A range in the option would widen its column.)"""
    if not 0 <= value <= MOST_SEEDS:
        raise typer.BadParameter(f"must be from 0 to {MOST_SEEDS}, got {value}")
    return value


Seed = Annotated[
    int,
    typer.Option(help="Seed of every random draw: operator, noise, samples.", callback=_seed),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ….")]
Output = Annotated[Path, typer.Option(help="Directory to write.")]
Memory = Annotated[
    str | None,
    typer.Option(help="Most memory that the work may take, such as '2 GB'.", metavar="<size>"),
]
Baselines = Annotated[
    bool,
    typer.Option("--baselines", help="Run total variation and plug-and-play as well, to compare."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what stands there.")]


@dataclass(frozen=True)
class Data:
    """Where data sets come from."""

    panel: ClassVar[str] = "Images"
    data_dir: Path | None = None
    """Where data sets are; default: $NPGD_DATA, else a cache folder."""
    download: bool = False
    """Download the data set where it is absent."""


@dataclass(frozen=True)
class Archives(Data):
    """Where data sets of single pictures come from."""

    strict: bool = False
    """Stop at a picture that cannot be read; without it, such are skipped."""


@dataclass(frozen=True, eq=False)
class Given:
    """Images, and where each of them comes from."""

    pixels: torch.Tensor
    """In [-1, 1], (batch, channels, height, width)."""
    words: str
    """Where they come from, all together."""
    names: list[str]
    """Where each comes from."""
    files: bool = False
    """Whether the names are of files."""
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    """The files that were skipped, and why."""

    def record(self) -> dict[str, Any]:
        """For the numbers that are written."""
        return {"images": self.words, "sources": self.names, "skipped": self.skipped}


@dataclass(frozen=True)
class Pictures(Archives):
    """Images of a data set or of a user's own, in place of samples of the prior."""

    dataset: Dataset | None = None
    """Images of this data set."""
    images: Path | None = None
    """A picture, or a folder, zip or LMDB of pictures."""

    def __post_init__(self) -> None:
        if self.dataset is not None and self.images is not None:
            raise ValueError(
                "--dataset and --images: give one of the two, got "
                f"{self.dataset.value} and {self.images}"
            )

    def read(self, path: Path, prior: GenerativePrior, count: int | None = None) -> Given:
        """The first `count` pictures of a file, folder, zip or LMDB, all for None.

        Those that are skipped are told on standard error, as is a prior of another kind.
        """
        from npgd import data

        with naming("--images"):
            found = data.read_pictures(
                path, prior.image_shape, count=count, strict=self.strict, cache=False
            )
        if found.skipped:
            warn(found.told(path, "are skipped"))
        if prior.image_shape[0] == 1 and _colourful(path):
            warn(
                f"--images must be grey for the prior {prior.name}, got colour pictures in {path}, "
                f"which are turned grey; {fitting(3)}"
            )
        words = f"{len(found.names)} picture{'s' * (len(found.names) != 1)} in {path}"
        pixels = data.to_pixels(found.images)
        return Given(pixels, words, found.names, files=True, skipped=dict(found.skipped))

    def sample(self, name: str, split: str, prior: GenerativePrior, count: int | None) -> Given:
        """The first `count` images of a data set's split, all for None."""
        from npgd import data

        shape = data.IMAGE_SHAPES[name]
        if prior.image_shape != shape:
            raise ValueError(
                f"--dataset must have the prior's image shape {prior.image_shape}, got {name} "
                f"of {shape}; {fitting(shape[0])}"
            )
        found = data.dataset(name, split, self.data_dir, count, self.download, self.strict)
        words = {"mnist": "MNIST test digits", "celeba": "held-out CelebA faces"}
        told = f"first {len(found)} {words.get(name, 'held-out churches')}"
        return Given(found, told, [f"{name} {split} {i}" for i in range(len(found))])


def fitting(channels: int) -> str:
    """Which of the shipped priors has so many channels, in words."""
    from npgd import data

    fits = [name for name, shape in data.IMAGE_SHAPES.items() if shape[0] == channels]
    return f"--prior {' or '.join(fits)} would fit"


def _colourful(path: Path, threshold: int = 16) -> bool:
    """Whether one of the first four pictures has colours."""
    from npgd import data

    few = data.read_pictures(path, (3, 16, 16), count=4, cache=False).images.int()
    return bool((few.amax(1) - few.amin(1) > threshold).any())


@dataclass(frozen=True)
class Subject(Pictures):
    """The images to recover."""

    dataset: Dataset | None = None
    """Take images of this data set; without it and --images, samples of the prior."""
    images: Path | None = None
    """Take a picture, or those of a folder, zip or LMDB."""
    count: int = 12
    """How many images, at most."""

    def load(self, prior: GenerativePrior, seed: int) -> Given:
        """The images, and where they come from."""
        within("--count", self.count, 1, _images_in_memory(prior), "images that memory holds")
        if self.images is not None:
            return self.read(self.images, prior, self.count)
        if self.dataset is not None:
            return self.sample(self.dataset.value, "test", prior, self.count)
        x = prior.sample(self.count, seed=seed + 1).float()
        told = f"{self.count} samples of G (give --dataset or --images for real images)"
        return Given(x, told, [f"sample {i} of G" for i in range(self.count)])

    @property
    def real(self) -> bool:
        """Whether images are given; else samples of the prior are."""
        return self.dataset is not None or self.images is not None


def _images_in_memory(prior: GenerativePrior) -> int:
    """How many images could be held in half of this machine's memory, in float32."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not told
        memory = 2**36
    return memory // 2 // (4 * math.prod(prior.image_shape))


def within(option: str, value: int, least: int, most: int, of: str) -> int:
    """`value`; ValueError that names the option unless it lies between the two."""
    if not least <= value <= most:
        raise ValueError(f"{option} must be from {least} to {most}, the {of}, got {value}")
    return value


MOST_STEPS = 10**6


@dataclass(frozen=True)
class Run:
    """The measurements' noise, and NPGD's run."""

    panel: ClassVar[str] = "Method"
    noise: float = 0.0
    """Standard deviation of the noise on each measurement."""
    step_size: str = "1/beta"
    """Of the run that the theory speaks of: a number, "auto" or "1/beta"."""
    max_iter: int = 30
    """Iterations at most."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise ValueError(
                f"--noise must be a standard deviation, finite and at least 0, got {self.noise}"
            )
        within("--max-iter", self.max_iter, 1, MOST_STEPS, "steps of a run")
        _ = self.eta

    @property
    def words(self) -> tuple[str, ...]:
        """What --step-size may be besides a number."""
        return ("auto", "1/beta")

    @property
    def eta(self) -> float | str | None:
        """The step size as NPGD takes it."""
        if self.step_size in self.words:
            return None if self.step_size == "own" else self.step_size
        with contextlib.suppress(ValueError):
            if 0 < float(self.step_size) < math.inf:
                return float(self.step_size)
        raise ValueError(
            f"--step-size must be a positive number or one of {', '.join(self.words)}, got"
            f" {self.step_size!r}"
        )


# ------------------------------------------------------------------------- what they all do


def torch_device(name: str) -> torch.device:
    """The device of that name; ValueError for one that is not there or does not work."""
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        text = str(error).partition("\n")[0]
        raise ValueError(
            f"--device must be one that this torch can use, got {name!r} ({text})"
        ) from error
    return device


def load_prior(name: str, device: str = "cpu") -> GenerativePrior:
    """The prior that --prior names; an error names the option."""
    import npgd

    place = torch_device(device)
    with naming("--prior"), own_code():
        return npgd.load_prior(name, device=place)


@contextlib.contextmanager
def own_code() -> Iterator[None]:
    """Modules in the working directory can be imported, after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextlib.contextmanager
def naming(option: str) -> Iterator[None]:
    """An error about what an option names begins with the option."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"{option}: {sentence(error)}") from error
