"""The command `npgd recover`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.commands.options import (
    Device,
    Force,
    Output,
    Prior,
    Problem,
    Run,
    Seed,
    Subject,
    TaskName,
    command,
    console,
    output_directory,
    torch_device,
    unwritten,
)

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from npgd import LinearOperator, Solution


@dataclass(frozen=True)
class Recovery(Run):
    """NPGD's run as `npgd recover` has it."""

    step_size: str = "auto"
    refine: int = 0
    """How many of the iterations, the last, are Gauss–Newton steps on the latent."""


@command
def recover(
    *,
    prior: Prior = "mnist",
    subject: Subject,
    problem: Problem,
    run: Recovery,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Output = Path("recovered"),
    force: Force = False,
) -> None:
    """Measure images, recover them with NPGD, and write what came of it.

    Writes recovery.png (original, measured, recovered), results.json, images/ (the recovered
    images as PNG) and images.npz (float32, original and recovered).
    """
    import torch

    import npgd

    unwritten(output, force)
    p = npgd.load_prior(prior, device=torch_device(device))
    x_true, source = subject.load(p, seed)
    A, task = problem.build(p.image_shape, seed)
    A.to(device)
    x_true = x_true.to(device)
    y = A(x_true)
    noise_generator = torch.Generator().manual_seed(seed + 2)
    y = y + run.noise * torch.randn(y.shape, generator=noise_generator).to(y)
    solver = npgd.NPGD(p, step_size=run.eta, max_iter=run.max_iter, seed=seed, refine=run.refine)
    solution = npgd.recover(A, y, solver, x_true=x_true, progress=console.is_terminal)
    settings = {
        "command": "recover",
        "npgd": npgd.__version__,
        "prior": prior,
        "images": source,
        "task": task,
        "m": A.m,
        "noise": run.noise,
        "seed": seed,
        "device": device,
        "dtype": "float32",
    }
    with output_directory(output, force) as directory:
        results = {**settings, "solution": solution.to_dict()}
        (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        write_images(directory, x_true, measured(problem, A, y), solution.x)
    console.print(table(solution, f"NPGD · {task} of n = {A.n} · {source}"))
    console.print(
        f"step size {solution.info['step_size']:.4g} ({run.step_size}); {solution.status}"
    )
    console.print(f"written: {output / 'recovery.png'} and beside it the numbers and images")


def measured(
    problem: Problem, operator: LinearOperator, y: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Measurements as a person can look at them: pixels where they are pixels, else Aᵀy."""
    back = operator.adjoint(y)
    if problem.operator is not None or problem.task is TaskName.CS:
        return {"Aᵀy": back}
    enlarged = problem.task is TaskName.SUPER_RESOLUTION
    return {"measured": back * problem.factor**2 if enlarged else back}


def write_images(
    directory: Path,
    x_true: torch.Tensor,
    between: dict[str, torch.Tensor],
    recovered: torch.Tensor,
) -> None:
    """recovery.png with a row of each, images.npz, and the recovered ones as PNG."""
    import numpy as np

    from analysis.commands.pictures import draw_rows
    from npgd.data import to_uint8

    rows = {"original": x_true, **between, "recovered": recovered}
    draw_rows(rows, directory / "recovery.png")
    np.savez_compressed(
        directory / "images.npz",
        original=x_true.cpu().numpy(),
        recovered=recovered.cpu().numpy(),
    )
    (directory / "images").mkdir()
    for i, image in enumerate(to_uint8(recovered.cpu().clone())):
        _save_png(directory / "images" / f"{i:04d}.png", image)


def table(solution: Solution, title: str) -> Table:
    """The first twenty images' errors and outcomes, and the mean of all."""
    from rich.table import Table

    assert solution.error is not None and solution.psnr is not None
    error, objective = solution.error[-1], solution.objective[-1]
    table = Table(title=title)
    for column in ("image", "error per pixel", "PSNR (dB)", "‖Ax − y‖²"):
        table.add_column(column, justify="right")
    table.add_column("outcome")

    def add(name: str, error: torch.Tensor, psnr: torch.Tensor, f: torch.Tensor, end: str) -> None:
        table.add_row(name, f"{float(error):.4f}", f"{float(psnr):.2f}", f"{float(f):.4g}", end)

    for i in range(min(len(error), 20)):
        add(str(i), error[i], solution.psnr[i], objective[i], solution.outcomes[i])
    table.add_section()
    run = f"{solution.n_iter} iterations, {solution.seconds:.2f} s"
    add("mean", error.mean(), solution.psnr.mean(), objective.mean(), run)
    return table


def _save_png(path: Path, image: Any) -> None:
    from PIL import Image

    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(path)
