"""What the commands of `npgd` share: groups of options, their console, their errors.

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
import os
import shutil
import textwrap
import typing
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from npgd_command import Shadowed

if TYPE_CHECKING:
    import torch

    from npgd import GenerativePrior, LinearOperator

console = Console()

# ------------------------------------------------------------------------- a function, a command


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can mend into one line on standard error and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, FileExistsError, Shadowed) as error:
        alone = os.environ.get("WORLD_SIZE", "1") == "1"
        if not alone and os.environ.get("RANK", "0") != "0":  # the first process says it
            raise typer.Exit(2) from error
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


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

    def run(**values: Any) -> None:
        with plain_errors():
            given = {name: value for name, value in values.items() if name in own}
            for name, group in groups.items():
                options = {option.name for option in options_of(group)} - own.keys()
                given[name] = group(**{option: values[option] for option in options})
            function(**given)

    run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, __name__
    run.__annotations__ = {name: option.annotation for name, option in parameters.items()}
    signature = inspect.Signature(list(parameters.values()))
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


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
            annotation=Annotated[hints[field.name], typer.Option(help=texts[field.name])],
        )
        for field in sorted(dataclasses.fields(group), key=lambda field: rank[field.name])
    ]


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


class TaskName(StrEnum):
    """The inverse problems of the paper."""

    CS = "cs"
    INPAINTING = "inpainting"
    SUPER_RESOLUTION = "super-resolution"


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
    str, typer.Option(help="mnist, mnist-k100, celeba, church, or a prior's .safetensors file.")
]
Seed = Annotated[int, typer.Option(help="Seed of the operator, the noise and the samples.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ….")]
Output = Annotated[Path, typer.Option(help="Directory to write.")]
Force = Annotated[bool, typer.Option(help="Replace what stands there.")]


@dataclass(frozen=True)
class Data:
    """Where data sets come from."""

    data_dir: Path | None = None
    """Where data sets are; default: $NPGD_DATA, else a cache folder."""
    download: bool = False
    """Download the data set where it is absent."""


@dataclass(frozen=True)
class Archives(Data):
    """Where data sets of single pictures come from."""

    strict: bool = False
    """Refuse pictures that cannot be read; else skip them."""


@dataclass(frozen=True)
class Pictures(Archives):
    """Images of a data set or of a user's own, in place of samples of the prior."""

    dataset: Dataset | None = None
    """Images of this data set."""
    images: Path | None = None
    """A folder, zip or LMDB of pictures."""

    def __post_init__(self) -> None:
        if self.dataset is not None and self.images is not None:
            raise ValueError("--dataset, --images: give one of the two")

    def read(self, path: Path, image_shape: tuple[int, int, int]) -> tuple[torch.Tensor, list[str]]:
        """The pictures of a folder, zip or LMDB with pixels in [-1, 1], and their names.

        Those that are skipped are told on standard error.
        """
        from npgd import data

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found, names = data.image_archive(path, image_shape, strict=self.strict, cache=False)
        for warning in told:
            Console(stderr=True).print(f"[yellow]warning:[/] {warning.message}", highlight=False)
        return data.to_pixels(found), names


@dataclass(frozen=True)
class Subject(Pictures):
    """The images to recover."""

    dataset: Dataset | None = None
    """Recover images of this data set."""
    images: Path | None = None
    """A folder, zip or LMDB of pictures to recover."""
    count: int = 12
    """Images to recover, at most."""

    @property
    def real(self) -> bool:
        """Whether images are given; else samples of the prior are."""
        return self.dataset is not None or self.images is not None

    def load(self, prior: GenerativePrior, seed: int) -> tuple[torch.Tensor, str]:
        """The images, and where they come from in words."""
        from npgd import data

        if self.count < 1:
            raise ValueError(f"--count must be at least 1, got {self.count}")
        if self.images is not None:
            pictures, names = self.read(self.images, prior.image_shape)
            some = pictures[: self.count]
            return some, f"{min(self.count, len(names))} pictures in {self.images}"
        if self.dataset is None:
            x = prior.sample(self.count, seed=seed + 1).float()
            return x, f"{self.count} samples of G (give --dataset or --images for real images)"
        name, shape = self.dataset.value, data.IMAGE_SHAPES[self.dataset.value]
        if prior.image_shape != shape:
            raise ValueError(
                f"--dataset must have the prior's image shape {prior.image_shape}, got {name} "
                f"of {shape}"
            )
        x = data.dataset(name, "test", self.data_dir, self.count, self.download)
        words = {"mnist": "MNIST test digits", "celeba": "held-out CelebA faces"}
        return x, f"first {self.count} {words.get(name, 'held-out churches')}"


@dataclass(frozen=True)
class Problem:
    """The operator: a task's, or a file's."""

    task: TaskName = TaskName.CS
    """The inverse problem."""
    operator: Path | None = None
    """A file of npgd design, in place of --task."""
    m: int = 100
    """Measurements of --task cs."""
    hole: int = 10
    """Side of the missing square of --task inpainting."""
    boxes: int = 0
    """Missing boxes of --task inpainting, scattered, in place of the hole."""
    box_side: int = 8
    """Side of each of --boxes."""
    factor: int = 2
    """Factor of --task super-resolution."""

    def build(self, image_shape: tuple[int, int, int], seed: int) -> tuple[LinearOperator, str]:
        """The operator in float32, and its name in words."""
        import torch

        import npgd

        if self.operator is not None:
            A = npgd.load_operator(self.operator, torch.float32)
            method = A.provenance.get("method", type(A).__name__)
            words = f"{method} ({self.operator.name}), m = {A.m}"
            return npgd.as_operator(A, image_shape), words
        if self.task is TaskName.CS:
            return npgd.Gaussian(image_shape, m=self.m, seed=seed), f"Gaussian, m = {self.m}"
        if self.task is TaskName.SUPER_RESOLUTION:
            words = f"super-resolution ×{self.factor}"
            return npgd.SuperResolution(image_shape, self.factor), words
        if self.boxes:
            mask = npgd.scattered_boxes(image_shape, self.boxes, self.box_side, seed)
            words = f"inpainting, {self.boxes} boxes {self.box_side}×{self.box_side}"
            return npgd.Inpainting(image_shape, mask=mask), words
        words = f"inpainting, hole {self.hole}×{self.hole}"
        return npgd.Inpainting(image_shape, hole=self.hole), words


@dataclass(frozen=True)
class Run:
    """The measurements' noise, and NPGD's run."""

    noise: float = 0.0
    """Standard deviation of the noise on each measurement."""
    step_size: str = "1/beta"
    """A number, "auto" or "1/beta"."""
    max_iter: int = 30
    """Iterations at most."""

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise ValueError(f"--noise must be a standard deviation, at least 0, got {self.noise}")

    @property
    def eta(self) -> float | str:
        """The step size as NPGD takes it."""
        if self.step_size in ("auto", "1/beta"):
            return self.step_size
        try:
            return float(self.step_size)
        except ValueError:
            raise ValueError(
                f'--step-size must be a number, "auto" or "1/beta", got {self.step_size!r}'
            ) from None


# ------------------------------------------------------------------------- what they all check


def torch_device(name: str) -> torch.device:
    """The device of that name; ValueError for one that is not there."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be a device of torch, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device must be one that torch sees, got {name!r} without CUDA")
    return device


def unwritten(output: Path, force: bool) -> None:
    """Raise FileExistsError where something is there already and `force` is false."""
    if output.exists() and not force:
        raise FileExistsError(
            f"--output must name nothing that exists, got {output}; give --force to replace it"
        )


@contextlib.contextmanager
def output_directory(path: Path, force: bool) -> Iterator[Path]:
    """A new directory that appears under `path` whole, when the block ends without an error.

    Raises `FileExistsError` where something is there already and `force` is false.
    """
    unwritten(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
