"""The command `npgd recover`."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from analysis.commands.options import (
    Baselines,
    Device,
    Force,
    Output,
    Prior,
    Run,
    Seed,
    Subject,
    command,
    invocation,
    load_prior,
    naming,
    within,
)
from analysis.commands.output import Folder, output_directory, record
from analysis.commands.problem import Problem
from analysis.commands.terminal import console
from analysis.methods import BASELINES, Method

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from npgd import GenerativePrior, LinearOperator, Solution
    from npgd.solvers import Solver

UNMET = 0.5  # ‖Ax − y‖/‖y‖ of measurements from a file that asks for a second look


@dataclass(frozen=True)
class Source(Subject):
    """Images to measure, or what was measured of them."""

    measurements: Path | None = None
    """Recover from these: y, (batch, m) or (m,), in a .npy, .npz, .mat or .h5 file. Its A is
    --operator, or --task with the --seed it was drawn with; pixels are on [-1, 1]."""
    entry: str | None = None
    """The array's name in --measurements; else y, or the only one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = invocation().given
        if self.measurements is None:
            idle = {"entry": "no --measurements"}
        else:
            idle = dict.fromkeys(("dataset", "images", "count"), "--measurements")
            if not given & {"operator", "task"}:
                raise ValueError(
                    "--measurements must come with the A that measured, --operator or --task, got"
                    f" {self.measurements} without"
                )
        for name in sorted(idle.keys() & given):
            raise ValueError(
                f"--{name} must be left out, for it says nothing with {idle[name]}, got"
                f" {getattr(self, name)}"
            )

    def load_measurements(self, A: LinearOperator, device: str) -> torch.Tensor:
        """The measurements in the file, (batch, m), in float32 as A is."""
        import torch

        from analysis.commands.arrays import read_array

        assert self.measurements is not None
        with naming("--measurements"):
            y = read_array(self.measurements, self.entry)
            column = y.ndim == 2 and y.shape[1] == 1 < len(y)  # as MATLAB keeps a vector
            taken = A.measurements(y.reshape(1, -1) if y.ndim == 1 or (column and A.m > 1) else y)
            if not bool(taken.isfinite().all()):
                raise ValueError("y must be finite, got NaN or infinity")
        return taken.to(device, torch.float32)


@dataclass(frozen=True)
class Recovery(Run):
    """A solver's run as `npgd recover` has it."""

    method: Method = Method.NPGD
    """The solver; all but npgd run at settings of their own."""
    step_size: str = "own"
    """A number, "own" (the run's own, iteration by iteration), "auto" or "1/beta"."""
    finish: int | None = None
    """How many iterations at the end are quasi-Newton steps on the latent. Default: 20 where the
    prior's encoder projects poorly and the step is the run's own; else 0."""
    refine: int = 0
    """How many iterations at the end are Gauss–Newton steps on the latent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("--refine", self.refine, 0, self.max_iter, "iterations of --max-iter")
        left = self.max_iter - self.refine
        if self.finish is not None:
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
        rival = self._rival(prior, seed, self.method)
        given = "max_iter" in invocation().given
        return replace(rival, max_iter=self.max_iter) if given else rival

    def rivals(self, prior: GenerativePrior, seed: int) -> dict[str, Solver[Any]]:
        """The baselines other than the method itself, by name."""
        return {
            method.value: self._rival(prior, seed, method)
            for method in BASELINES
            if method is not self.method
        }

    def _rival(self, prior: GenerativePrior, seed: int, method: Method) -> Solver[Any]:
        """A method other than NPGD."""
        from analysis.methods import solver_of

        return solver_of(method.value, prior, seed, self.noise)


@command
def recover(
    *,
    prior: Prior = "mnist",
    source: Source,
    problem: Problem,
    run: Recovery,
    baselines: Baselines = False,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Output = Path("recovered"),
    force: Force = False,
) -> None:
    """Measure images, recover them with NPGD or another method, and write what came of it.

    With --measurements, recover from data that was measured. Writes recovery.png (original,
    measured, recovered), results.json (numbers, sources, settings), images/ (the recovered images
    as PNG, by number and source's name) and images.npz (float32, original and recovered).
    """
    import npgd

    with output_directory(output, force) as folder:
        p = load_prior(prior, device)
        taken = _take(source, problem, run, p, seed, device)
        solvers = {run.method.value: run.solver(p, seed)}
        solvers |= run.rivals(p, seed) if baselines else {}
        solutions = {
            name: npgd.recover(
                taken.A, taken.y, solver, x_true=taken.x_true, progress=console.is_terminal
            )
            for name, solver in solvers.items()
        }
        solution, *others = solutions.values()
        written = write_images(folder, taken, problem.measured(taken.A, taken.y), solutions)
        settings = {
            "command": "recover",
            **record(),
            "prior": prior,
            "method": run.method.value,
            **taken.record,
            "written": written,
            "task": taken.task,
            "m": taken.A.m,
            "noise": run.noise,
            "seed": seed,
            "device": device,
            "dtype": str(solution.x.dtype).removeprefix("torch."),
        }
        results = {**settings, "solution": solution.to_dict()}
        if baselines:
            results["baselines"] = [rival.to_dict() for rival in others]
        folder.write("results.json", (json.dumps(results, indent=1) + "\n").encode())
    title = f"{taken.task} of n = {taken.A.n} · {taken.words}"
    console.print(table(solution, f"{solution.method} · {title}"))
    if baselines:
        console.print(comparison(solutions, "the methods, mean over the images"))
    stepped = run.method is Method.NPGD
    step = f"{step_sizes(solution)} ({run.step_size}); " if stepped else ""
    if stepped and run.finish is None and "finish" in solution.info:
        console.print(
            f"the prior's encoder projects poorly: {solution.info['finish']} iterations at the end"
            " are steps on the latent (--finish 0: none)"
        )
    console.print(f"{step}{solution.status}")
    if taken.x_true is None and (unmet := _unmet(solution)):
        console.print(unmet)
    console.print(f"written: {output / 'recovery.png'} and beside it the numbers and images")


def _unmet(solution: Solution) -> str:
    """What is to be looked at where ‖A x − y‖/‖y‖ is above `UNMET` in the mean; else nothing."""
    misfit = float(solution.relative_misfit.nanmean())
    if not misfit > UNMET:
        return ""
    return (
        f"the measurements are hardly met: ‖Ax − y‖/‖y‖ = {misfit:.2g}. Is A what measured y, for"
        " pixels on [-1, 1], in the units of y? Are the images such as the prior makes? Or y is"
        " mostly noise"
    )


@dataclass(frozen=True, eq=False)
class Taken:
    """What a recovery starts from."""

    A: LinearOperator
    task: str
    """A in words."""
    y: torch.Tensor
    x_true: torch.Tensor | None
    """None of measurements from a file."""
    words: str
    """Where the images, or the measurements, come from."""
    files: list[str]
    """The file of each image; "" where there is none."""
    record: dict[str, Any]
    """For the numbers that are written."""


def _take(
    source: Source,
    problem: Problem,
    run: Recovery,
    prior: GenerativePrior,
    seed: int,
    device: str,
) -> Taken:
    """Measurements from a file, or of images that are measured here."""
    import torch

    A, task = problem.build(prior.image_shape, seed)
    A.to(device)
    if source.measurements is not None:
        if run.noise and run.method is not Method.DEVIATION:
            raise ValueError(
                "--noise must be left out, for with --measurements none is added and --method"
                f" {run.method.value} does not ask for it, got {run.noise}"
            )
        y = source.load_measurements(A, device)
        file = source.measurements.name
        words = f"{len(y)} image{'s' * (len(y) != 1)} measured in {file}"
        names = [f"{file} {i}" for i in range(len(y))]
        told = {"images": words, "sources": names, "skipped": {}}
        return Taken(A, task, y, None, words, [file] * len(y), told)
    given = source.load(prior, seed)
    x_true = given.pixels.to(device)
    y = A(x_true)
    noise_generator = torch.Generator().manual_seed(seed + 2)
    y = y + run.noise * torch.randn(y.shape, generator=noise_generator).to(y)
    files = given.names if given.files else [""] * len(y)
    return Taken(A, task, y, x_true, given.words, files, given.record())


def step_sizes(solution: Solution) -> str:
    """The step in words: the last ones of all images, where it is the run's own."""
    found = solution.info["step_size"]
    if isinstance(found, float):
        return f"step size {found:.4g}"
    return f"last step sizes {min(found):.3g} to {max(found):.3g}"


def write_images(
    folder: Folder,
    taken: Taken,
    between: dict[str, torch.Tensor],
    solutions: dict[str, Solution],
) -> list[str]:
    """recovery.png with a row of each, images.npz, and the recovered ones as PNG, by name.

    The first solution is the method's; those of baselines have their names.
    """
    import numpy as np
    from PIL import Image

    from analysis.commands.pictures import draw_rows
    from npgd.data import to_uint8

    (_, solution), *others = solutions.items()
    first = {} if taken.x_true is None else {"original": taken.x_true}
    last = {"recovered": solution.x, **{name: rival.x for name, rival in others}}
    rows, arrays = io.BytesIO(), io.BytesIO()
    draw_rows({**first, **between, **last}, rows)
    folder.write("recovery.png", rows.getvalue())
    kept: dict[str, Any] = {name: x.cpu().numpy() for name, x in {**first, **last}.items()}
    np.savez_compressed(arrays, **kept)
    folder.write("images.npz", arrays.getvalue())
    written = []
    for i, image in enumerate(to_uint8(solution.x.cpu())):
        array = image.permute(1, 2, 0).numpy()
        picture = io.BytesIO()
        Image.fromarray(array.squeeze(-1) if len(image) == 1 else array).save(picture, "PNG")
        written.append(f"images/{i:04d}{_stem(taken.files[i]) if taken.files[i] else ''}.png")
        folder.write(written[-1], picture.getvalue())
    return written


def _stem(name: str) -> str:
    """A source's name without folders and suffix, as it can stand in any file's name."""
    stem = "".join(c if c.isalnum() or c in " ._-+()" else "_" for c in PurePosixPath(name).stem)
    return f"-{stem[:48].rstrip(' .')}"


def table(solution: Solution, title: str) -> Table:
    """The first twenty images' errors, where they are known, and outcomes, and the mean of all."""
    from rich.table import Table

    table = Table(title=title)
    known = solution.error is not None
    for column in ("image", *_headings(known)):
        table.add_column(column, justify="right")
    table.add_column("outcome")
    numbers = _numbers(solution)

    def add(name: str, row: list[float], end: str) -> None:
        table.add_row(name, *_cells(row), end)

    for i in range(min(len(numbers), 20)):
        add(str(i), numbers[i].tolist(), solution.outcomes[i])
    table.add_section()
    run = f"{solution.n_iter} iterations, {solution.seconds:.2f} s"
    add("mean", _mean(numbers), run)
    if bool((numbers[:, -2].isfinite() & numbers[:, -1].isnan()).any()):
        table.caption = "–: no ratio, as y = 0"
    return table


def comparison(solutions: dict[str, Solution], title: str) -> Table:
    """The methods side by side, the means over the images."""
    from rich.table import Table

    known = all(solution.error is not None for solution in solutions.values())
    table = Table(title=title)
    table.add_column("method")
    for column in (*_headings(known), "seconds"):
        table.add_column(column, justify="right")
    for name, solution in solutions.items():
        table.add_row(name, *_cells(_mean(_numbers(solution))), f"{solution.seconds:.2f}")
    return table


def _headings(known: bool) -> tuple[str, ...]:
    """Of the columns of `_numbers`, narrow enough that a table fits in 80 columns."""
    return (*(("error\nper pixel", "PSNR\n(dB)") if known else ()), "‖Ax − y‖²", "‖Ax − y‖\n/ ‖y‖")


def _cells(row: list[float]) -> list[str]:
    """A row of `_numbers` as it is printed."""
    from analysis.words import about

    *error, objective, relative = row
    cells = [about(error[0]), f"{error[1]:.2f}"] if error else []
    return [*cells, f"{objective:.4g}", about(relative)]


def _mean(numbers: torch.Tensor) -> list[float]:
    """Of every column of `_numbers`; of ‖Ax − y‖/‖y‖ over the images with y ≠ 0."""
    means: list[float] = numbers[:, :-1].mean(0).tolist()
    return [*means, float(numbers[:, -1].nanmean())]


def _numbers(solution: Solution) -> torch.Tensor:
    """Error and PSNR, where they are known, ‖Ax − y‖² and ‖Ax − y‖/‖y‖, a row for each image."""
    import torch

    columns = [solution.objective[-1], solution.relative_misfit]
    if solution.error is not None and solution.psnr is not None:
        columns = [solution.error[-1], solution.psnr, *columns]
    return torch.stack(columns, dim=1)
