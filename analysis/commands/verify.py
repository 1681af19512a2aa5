"""The command `npgd verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands.options import (
    Boxes,
    BoxSide,
    DataDir,
    DatasetOption,
    Device,
    Download,
    Factor,
    Force,
    Hole,
    Images,
    M,
    MaxIter,
    Noise,
    OperatorFile,
    Prior,
    Seed,
    StepSize,
    Strict,
    Task,
    TaskName,
    _step,
    build_operator,
    console,
    load_images,
    plain_errors,
    torch_device,
)

if TYPE_CHECKING:
    import torch


def verify(
    prior: Prior = "mnist",
    dataset: DatasetOption = None,
    images: Images = None,
    data_dir: DataDir = None,
    download: Download = False,
    strict: Strict = False,
    count: Annotated[int, typer.Option(help="Images to recover.")] = 12,
    task: Task = TaskName.CS,
    operator_file: OperatorFile = None,
    m: M = 100,
    hole: Hole = 10,
    boxes: Boxes = 0,
    box_side: BoxSide = 8,
    factor: Factor = 2,
    noise: Noise = 0.0,
    effort: Annotated[
        str, typer.Option(help="How far to look: quick, default or thorough.")
    ] = "default",
    step_size: StepSize = "1/beta",
    max_iter: MaxIter = 30,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Annotated[Path, typer.Option(help="Directory to write.")] = Path("verified"),
    force: Force = False,
) -> None:
    """Are the theorem's assumptions met, what do they predict, and what happened?

    Measures the restricted eigenvalue constants of A on range(G), the projector's error and every
    quantity of the one-step identity, in float64, and writes report.html and report.json.
    """
    with plain_errors():
        import torch

        import analysis
        import npgd

        if output.exists() and not force:
            raise FileExistsError(
                f"output: {output} exists; name another directory, or give --force"
            )
        p = npgd.load_prior(prior, device=torch_device(device))
        x_true: torch.Tensor | None = None
        if dataset is not None or images is not None:
            x_true, _ = load_images(p, dataset, images, data_dir, download, count, seed, strict)
            x_true = x_true.to(device)
        operator, _ = build_operator(
            task,
            p.image_shape,
            m,
            hole,
            factor,
            seed,
            torch.float32,
            operator_file,
            boxes,
            box_side,
        )
        report = analysis.verify(
            operator.to(device),
            p,
            x_true,
            effort=effort,
            step_size=_step(step_size),
            n_iter=max_iter,
            noise=noise,
            count=count,
            seed=seed,
            progress=console.is_terminal,
        )
        console.print(report.table())
        console.print(report.summary, highlight=False)
        page = report.write(output, force=force)
        console.print(f"written: {page}")
