"""The command `npgd recover`."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from analysis.commands.options import (
    Device,
    Force,
    Given,
    Output,
    Prior,
    Problem,
    Run,
    Seed,
    Subject,
    TaskName,
    command,
    invocation,
    load_prior,
    within,
)
from analysis.commands.output import Folder, output_directory, record
from analysis.commands.terminal import console

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from npgd import GenerativePrior, LinearOperator, Solution
    from npgd.solvers import Solver


class Method(StrEnum):
    """The solvers, by the name that `--method` has for each."""

    NPGD = "npgd"
    AMP = "amp"
    CSGM = "csgm"
    PGDGAN = "pgdgan"
    DEVIATION = "deviation"
    TV = "tv"
    LASSO = "lasso"
    PNP_ADMM = "pnp-admm"
    ONENET = "onenet"


@dataclass(frozen=True)
class Recovery(Run):
    """A solver's run as `npgd recover` has it."""

    method: Method = Method.NPGD
    """The solver; the others run at their own settings."""
    step_size: str = "own"
    """A number, "own" (the run's own, iteration by iteration), "auto" or "1/beta"."""
    finish: int = 0
    """How many iterations at the end are quasi-Newton steps on the latent."""
    refine: int = 0
    """How many iterations at the end are Gauss–Newton steps on the latent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("--refine", self.refine, 0, self.max_iter, "iterations of --max-iter")
        left = self.max_iter - self.refine
        within("--finish", self.finish, 0, left, "iterations of --max-iter less --refine")
        for name in sorted({"step_size", "refine", "finish"} & invocation().given):
            if self.method is not Method.NPGD:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be left out, for it says nothing with"
                    f" --method {self.method.value}, got {getattr(self, name)}"
                )

    @property
    def words(self) -> tuple[str, ...]:
        return ("own", *super().words)

    def solver(self, prior: GenerativePrior, seed: int) -> Solver[Any]:
        """The method, with --max-iter where it is given."""
        import npgd

        if self.method is Method.NPGD:
            return npgd.NPGD(
                prior,
                self.eta,
                max_iter=self.max_iter,
                seed=seed,
                finish=self.finish,
                refine=self.refine,
            )
        rival = self._rival(prior, seed)
        given = "max_iter" in invocation().given
        return replace(rival, max_iter=self.max_iter) if given else rival

    def _rival(self, prior: GenerativePrior, seed: int) -> Solver[Any]:
        """A method other than NPGD."""
        import npgd
        from npgd.denoisers import fitting_denoiser

        denoiser = fitting_denoiser(prior.image_shape)
        if denoiser is not None:
            denoiser.to(next(prior.parameters()).device)
        match self.method:
            case Method.AMP:
                return npgd.AMP(prior, seed=seed)
            case Method.CSGM:
                return npgd.CSGM(prior, seed=seed)
            case Method.PGDGAN:
                return npgd.PGDGAN(prior, seed=seed)
            case Method.DEVIATION:
                return npgd.Deviation(prior, denoiser=denoiser, noise=self.noise, seed=seed)
            case Method.TV:
                return npgd.TotalVariation()
            case Method.LASSO:
                return npgd.Lasso()
            case Method.PNP_ADMM:
                return npgd.PnPADMM(denoiser or npgd.WaveletShrinkage())
            case _:
                return npgd.OneNet()


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
    """Measure images, recover them with NPGD or another method, and write what came of it.

    Writes recovery.png (original, measured, recovered), results.json (numbers, sources, settings),
    images/ (the recovered images as PNG, by number and source's name) and images.npz (float32,
    original and recovered).
    """
    import torch

    import npgd

    with output_directory(output, force) as folder:
        p = load_prior(prior, device)
        given = subject.load(p, seed)
        A, task = problem.build(p.image_shape, seed)
        A.to(device)
        x_true = given.pixels.to(device)
        y = A(x_true)
        noise_generator = torch.Generator().manual_seed(seed + 2)
        y = y + run.noise * torch.randn(y.shape, generator=noise_generator).to(y)
        solver = run.solver(p, seed)
        solution = npgd.recover(A, y, solver, x_true=x_true, progress=console.is_terminal)
        written = write_images(folder, given, measured(problem, A, y), solution.x)
        settings = {
            "command": "recover",
            **record(),
            "prior": prior,
            "method": run.method.value,
            **given.record(),
            "written": written,
            "task": task,
            "m": A.m,
            "noise": run.noise,
            "seed": seed,
            "device": device,
            "dtype": str(solution.x.dtype).removeprefix("torch."),
        }
        results = {**settings, "solution": solution.to_dict()}
        folder.write("results.json", (json.dumps(results, indent=1) + "\n").encode())
    console.print(table(solution, f"{solution.method} · {task} of n = {A.n} · {given.words}"))
    stepped = run.method is Method.NPGD
    step = f"{step_sizes(solution)} ({run.step_size}); " if stepped else ""
    console.print(f"{step}{solution.status}")
    console.print(f"written: {output / 'recovery.png'} and beside it the numbers and images")


def step_sizes(solution: Solution) -> str:
    """The step in words: the last ones of all images, where it is the run's own."""
    found = solution.info["step_size"]
    if isinstance(found, float):
        return f"step size {found:.4g}"
    return f"last step sizes {min(found):.3g} to {max(found):.3g}"


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
    folder: Folder,
    given: Given,
    between: dict[str, torch.Tensor],
    recovered: torch.Tensor,
) -> list[str]:
    """recovery.png with a row of each, images.npz, and the recovered ones as PNG, by name."""
    import numpy as np
    from PIL import Image

    from analysis.commands.pictures import draw_rows
    from npgd.data import to_uint8

    rows, arrays = io.BytesIO(), io.BytesIO()
    draw_rows({"original": given.pixels, **between, "recovered": recovered}, rows)
    folder.write("recovery.png", rows.getvalue())
    np.savez_compressed(
        arrays,
        original=given.pixels.cpu().numpy(),
        recovered=recovered.cpu().numpy(),
    )
    folder.write("images.npz", arrays.getvalue())
    written = []
    for i, image in enumerate(to_uint8(recovered.cpu())):
        array = image.permute(1, 2, 0).numpy()
        picture = io.BytesIO()
        Image.fromarray(array.squeeze(-1) if len(image) == 1 else array).save(picture, "PNG")
        written.append(f"images/{i:04d}{_stem(given.names[i]) if given.files else ''}.png")
        folder.write(written[-1], picture.getvalue())
    return written


def _stem(name: str) -> str:
    """A source's name without folders and suffix, as it can stand in any file's name."""
    stem = "".join(c if c.isalnum() or c in " ._-+()" else "_" for c in PurePosixPath(name).stem)
    return f"-{stem[:48].rstrip(' .')}"


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
