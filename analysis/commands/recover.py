"""The command `npgd recover`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    _version,
    build_operator,
    console,
    load_images,
    output_directory,
    plain_errors,
    torch_device,
)

if TYPE_CHECKING:
    import torch

    from npgd import LinearOperator


def measured_picture(
    task: TaskName, operator: LinearOperator, y: torch.Tensor, factor: int
) -> tuple[str, torch.Tensor]:
    """Measurements as a person can look at them: pixels where they are pixels, else Aᵀy."""
    back = operator.adjoint(y)
    if task is TaskName.SUPER_RESOLUTION:
        return "measured", back * factor**2
    return ("measured", back) if task is TaskName.INPAINTING else ("Aᵀy", back)


def recover(
    prior: Prior = "mnist",
    dataset: DatasetOption = None,
    images: Images = None,
    data_dir: DataDir = None,
    download: Download = False,
    strict: Strict = False,
    count: Annotated[int, typer.Option(help="Images at most.")] = 12,
    task: Task = TaskName.CS,
    operator_file: OperatorFile = None,
    m: M = 100,
    hole: Hole = 10,
    boxes: Boxes = 0,
    box_side: BoxSide = 8,
    factor: Factor = 2,
    noise: Noise = 0.0,
    step_size: StepSize = "auto",
    max_iter: MaxIter = 30,
    refine: Annotated[
        int, typer.Option(help="How many of them, the last, are Gauss–Newton steps on the latent.")
    ] = 0,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Annotated[Path, typer.Option(help="Directory to write.")] = Path("recovered"),
    force: Force = False,
) -> None:
    """Measure images, recover them with NPGD, and write what came of it.

    Writes recovery.png (original, measured, recovered), results.json, images/ (the recovered
    images as PNG) and images.npz (float32, original and recovered).
    """
    with plain_errors():
        import numpy as np
        import torch
        from rich.table import Table

        import npgd
        from analysis.commands.pictures import draw_rows
        from npgd.data import to_uint8

        if output.exists() and not force:
            raise FileExistsError(
                f"output: {output} exists; name another directory, or give --force"
            )
        if noise < 0:
            raise ValueError(f"--noise: {noise}; expected a standard deviation, at least 0")
        p = npgd.load_prior(prior, device=torch_device(device))
        x_true, source = load_images(p, dataset, images, data_dir, download, count, seed, strict)
        operator, task_words = build_operator(
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
        operator.to(device)
        x_true = x_true.to(device)
        y = operator(x_true)
        noise_generator = torch.Generator().manual_seed(seed + 2)
        y = y + noise * torch.randn(y.shape, generator=noise_generator).to(y)
        solver = npgd.NPGD(
            p, step_size=_step(step_size), max_iter=max_iter, seed=seed, refine=refine
        )
        solution = npgd.recover(operator, y, solver, x_true=x_true, progress=console.is_terminal)
        assert solution.error is not None and solution.psnr is not None

        shown_as = task if operator_file is None else TaskName.CS
        label, picture = measured_picture(shown_as, operator, y, factor)
        settings = {
            "command": "recover",
            "npgd": _version(),
            "prior": prior,
            "images": source,
            "task": task_words,
            "m": operator.m,
            "noise": noise,
            "seed": seed,
            "device": device,
            "dtype": "float32",
        }
        with output_directory(output, force) as directory:
            rows = {"original": x_true, label: picture, "recovered": solution.x}
            draw_rows(rows, directory / "recovery.png")
            results = {**settings, "solution": solution.to_dict()}
            (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")
            np.savez_compressed(
                directory / "images.npz",
                original=x_true.cpu().numpy(),
                recovered=solution.x.cpu().numpy(),
            )
            (directory / "images").mkdir()
            for i, image in enumerate(to_uint8(solution.x.cpu().clone())):
                _save_png(directory / "images" / f"{i:04d}.png", image)

        table = Table(title=f"NPGD · {task_words} of n = {operator.n} · {source}")
        table.add_column("image", justify="right")
        table.add_column("error per pixel", justify="right")
        table.add_column("PSNR (dB)", justify="right")
        table.add_column("‖Ax − y‖²", justify="right")
        table.add_column("outcome")
        for i in range(min(len(x_true), 20)):
            table.add_row(
                str(i),
                f"{float(solution.error[-1, i]):.4f}",
                f"{float(solution.psnr[i]):.2f}",
                f"{float(solution.objective[-1, i]):.4g}",
                solution.outcomes[i],
            )
        table.add_section()
        table.add_row(
            "mean",
            f"{float(solution.error[-1].mean()):.4f}",
            f"{float(solution.psnr.mean()):.2f}",
            f"{float(solution.objective[-1].mean()):.4g}",
            f"{solution.n_iter} iterations, {solution.seconds:.2f} s",
        )
        console.print(table)
        console.print(
            f"step size {solution.info['step_size']:.4g} ({step_size}); {solution.status}"
        )
        console.print(f"written: {output / 'recovery.png'} and beside it the numbers and images")


def _save_png(path: Path, image: Any) -> None:
    from PIL import Image

    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(path)
