"""What the commands of ``npgd`` share: their options' names, their console, their errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    import torch

console = Console()


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
DatasetOption = Annotated[Dataset | None, typer.Option(help="Recover images of this data set.")]
Images = Annotated[Path | None, typer.Option(help="A folder, zip or LMDB of pictures to recover.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where data sets are; default: $NPGD_DATA, else a cache folder.")
]
Download = Annotated[bool, typer.Option(help="Download the data set where it is absent.")]
Strict = Annotated[bool, typer.Option(help="Refuse pictures that cannot be read; else skip them.")]
Task = Annotated[TaskName, typer.Option(help="The inverse problem.")]
M = Annotated[int, typer.Option(help="Measurements of --task cs.")]
Hole = Annotated[int, typer.Option(help="Side of the missing square of --task inpainting.")]
Boxes = Annotated[
    int, typer.Option(help="Missing boxes of --task inpainting, scattered, in place of the hole.")
]
BoxSide = Annotated[int, typer.Option(help="Side of each of --boxes.")]
Factor = Annotated[int, typer.Option(help="Factor of --task super-resolution.")]
OperatorFile = Annotated[
    Path | None, typer.Option("--operator", help="A file of npgd design, in place of --task.")
]
Noise = Annotated[float, typer.Option(help="Standard deviation of the noise on each measurement.")]
Seed = Annotated[int, typer.Option(help="Seed of the operator, the noise and the samples.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ….")]
StepSize = Annotated[str, typer.Option(help='A number, "auto" or "1/beta".')]
MaxIter = Annotated[int, typer.Option(help="Iterations at most.")]
Force = Annotated[bool, typer.Option(help="Replace what the output directory holds.")]


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can mend into one line on standard error and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, FileExistsError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def torch_device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device: {name!r} is no device of torch") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device: {name!r}, but torch sees no CUDA device")
    return device


def set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        if threads < 1:
            raise ValueError(f"--threads: {threads}; expected at least 1")
        torch.set_num_threads(threads)
