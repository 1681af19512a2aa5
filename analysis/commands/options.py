"""What the commands of ``npgd`` share: their options' names, their console, their errors."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    import torch

    from npgd import GenerativePrior, LinearOperator

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


@contextlib.contextmanager
def output_directory(path: Path, force: bool) -> Iterator[Path]:
    """A new directory that appears under ``path`` whole, when the block ends without an error.

    Raises ``FileExistsError`` where something is there already and ``force`` is false.
    """
    if path.exists() and not force:
        raise FileExistsError(f"output: {path} exists; name another directory, or give --force")
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


def build_operator(
    task: TaskName,
    image_shape: tuple[int, ...],
    m: int,
    hole: int,
    factor: int,
    seed: int,
    dtype: torch.dtype,
    file: Path | None = None,
    boxes: int = 0,
    box_side: int = 8,
) -> tuple[LinearOperator, str]:
    """The operator of a file, or of a task, and its name in words."""
    import npgd

    if file is not None:
        operator = npgd.load_operator(file, dtype)
        method = operator.provenance.get("method", type(operator).__name__)
        return npgd.as_operator(operator, image_shape), f"{method} ({file.name}), m = {operator.m}"
    if task is TaskName.CS:
        return npgd.Gaussian(image_shape, m=m, seed=seed, dtype=dtype), f"Gaussian, m = {m}"
    if task is TaskName.INPAINTING and boxes:
        mask = npgd.scattered_boxes(image_shape, boxes, box_side, seed)
        words = f"inpainting, {boxes} boxes {box_side}×{box_side}"
        return npgd.Inpainting(image_shape, mask=mask), words
    if task is TaskName.INPAINTING:
        return npgd.Inpainting(image_shape, hole=hole), f"inpainting, hole {hole}×{hole}"
    return npgd.SuperResolution(image_shape, factor), f"super-resolution ×{factor}"


def load_images(
    prior: GenerativePrior,
    dataset: Dataset | None,
    images: Path | None,
    data_dir: Path | None,
    download: bool,
    count: int,
    seed: int,
    strict: bool = False,
) -> tuple[torch.Tensor, str]:
    """The images to recover, and where they come from in words."""
    from npgd import data

    if dataset is not None and images is not None:
        raise ValueError("--dataset, --images: give one of the two")
    if count < 1:
        raise ValueError(f"--count: {count}; expected at least 1")
    if images is not None:
        pictures, names = pictures_in(images, prior.image_shape, strict)
        return pictures[:count], f"{min(count, len(names))} pictures in {images}"
    if dataset is not None:
        if prior.image_shape != data.IMAGE_SHAPES[dataset.value]:
            raise ValueError(
                f"--dataset {dataset.value}: the prior's images are {prior.image_shape}"
            )
        x = data.dataset(dataset.value, "test", data_dir, count, download)
        words = {"mnist": "MNIST test digits", "celeba": "held-out CelebA faces"}
        return x, f"first {count} {words.get(dataset.value, 'held-out churches')}"
    x = prior.sample(count, seed=seed + 1).float()
    return x, f"{count} samples of G (give --dataset or --images for real images)"


def pictures_in(
    path: Path, image_shape: tuple[int, int, int], strict: bool
) -> tuple[torch.Tensor, list[str]]:
    """The pictures of a folder, zip or LMDB with pixels in [-1, 1], and their names.

    Those that are skipped are told on standard error.
    """
    from npgd import data

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found, names = data.image_archive(path, image_shape, strict=strict, cache=False)
    for warning in told:
        Console(stderr=True).print(f"[yellow]warning:[/] {warning.message}", highlight=False)
    return data.to_pixels(found), names


def _step(text: str) -> float | str:
    if text in ("auto", "1/beta"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'--step-size: {text!r}; expected a number, "auto" or "1/beta"') from None


def _version() -> str:
    from importlib.metadata import version

    return version("npgd")
