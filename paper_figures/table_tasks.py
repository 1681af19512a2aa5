"""The three tasks with one projector, beside total variation, interpolation and the Lasso.

    python paper_figures/table_tasks.py [--prior celeba] [--dataset celeba] [--count 100]
        [--m 1000] [--noise 0.1] [--methods NAME …] [--json FILE] [--quick] [--penalties P …]

Gaussian measurements, inpainting (a hole of half the side; scattered boxes) and super-resolution
(×2, ×4) of the first `--count` held-out images, float32, without noise or with noise of standard
deviation σ = `--noise` · rms(Ax) on each measurement (0.1 is 20 dB): PSNR and mean squared error
per pixel on [−1, 1], mean ± standard error over the images. Results are clipped to [−1, 1] first,
which lowers the error of those that leave it (all but NPGD). For inpainting also over the missing
pixels alone: outside them NPGD has an error, and without noise its rivals have next to none.

- NPGD: at its defaults, its own step and its stop; finished: at most ten projections, and 40
  quasi-Newton steps; refined: three Gauss–Newton steps at the end. The prior and its projector are
  the same for all tasks.
- deviation: `npgd.Deviation()` with the shipped denoiser that fits.
- total variation: `npgd.TotalVariation()` with coupled channels; with noise λ = c σ, c chosen on
  training images from 0.5, 1, 2 and 4.
- Lasso, for Gaussian A only, channel by channel: DCT; wavelets, db4 or haar. Basis and origin o
  (the constant image from which sparsity is measured: black, grey, the mean of the training images)
  are those with the least error on training images.
- harmonic, biharmonic: the missing pixels that minimise Σ|∇x|², Σ|Δx|², channel by channel.
- bicubic: the low-resolution image interpolated by torch, Keys' kernel with a = −0.75.

With --json every cell is written as soon as it is known, and cells that are there are not computed
again; their names carry settings and digests of the weights. --penalties prints the error of total
variation on the first --count training images with λ at these multiples of ‖A‖², and nothing else.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import npgd
from npgd import images
from npgd.data import IMAGE_SHAPES, dataset
from npgd.denoisers import fitting_denoiser
from npgd.solvers import Solver
from npgd.transforms import DCT, Transform, Wavelet
from paper_figures.figure_recovered import prior_of, task_options
from paper_figures.table_design import Cells, described
from paper_figures.table_methods import settings, shortened

CHOOSING = 16  # training images that bases and origins are chosen on
BATCH = 25  # images recovered together: bounds memory, and does not change a result
QUICK_ITERATIONS = 4  # of every solver in a quick look

Images = torch.Tensor


def tasks(shape: tuple[int, ...], m: int) -> dict[str, npgd.LinearOperator]:
    """The operators, by name."""
    side = min(shape[1:])
    mask = npgd.scattered_boxes(shape, boxes=20, side=side // 8, seed=0)
    return {
        f"Gaussian, m = {m:,}": npgd.Gaussian(shape, m, seed=0),
        f"hole {side // 2}": npgd.Inpainting(shape, hole=side // 2),
        f"20 boxes {side // 8}×{side // 8}": npgd.Inpainting(shape, mask=mask),
        "super-resolution ×2": npgd.SuperResolution(shape, 2),
        "super-resolution ×4": npgd.SuperResolution(shape, 4),
    }


# ---------------------------------------------------------------------------------- interpolation


def fill(A: npgd.Inpainting, y: torch.Tensor, order: int) -> Images:
    """The missing pixels that minimise Σ|∇x|² (order 1, harmonic) or Σ|Δx|² (2, biharmonic)."""
    _, height, width = A.image_shape

    def second(side: int) -> Any:
        ones = np.ones(side - 1)
        D = scipy.sparse.diags([-ones, ones], [0, 1], shape=(side - 1, side))
        return D.T @ D

    laplacian = scipy.sparse.kronsum(second(width), second(height))
    energy = (laplacian if order == 1 else laplacian @ laplacian).tocsr()
    seen = A.adjoint(y.new_ones(1, A.m))[0, 0].flatten().numpy() > 0
    pixels = A.adjoint(y).double().reshape(-1, height * width).T.numpy()
    known = energy[~seen][:, seen] @ pixels[seen]
    pixels[~seen] = scipy.sparse.linalg.splu(energy[~seen][:, ~seen].tocsc()).solve(-known)
    return torch.from_numpy(pixels.T.copy()).reshape(-1, *A.image_shape).to(y)


def bicubic(A: npgd.SuperResolution, y: torch.Tensor) -> Images:
    """The low-resolution image, as large as the original."""
    return functional.interpolate(low_resolution(A, y), scale_factor=A.factor, mode="bicubic")


def low_resolution(A: npgd.SuperResolution, y: torch.Tensor) -> Images:
    """What SuperResolution measures, as images: means of boxes, so pixels in [−1, 1] too."""
    channels, height, width = A.image_shape
    return y.reshape(-1, channels, height // A.factor, width // A.factor)


INTERPOLATIONS: dict[str, tuple[type, Callable[[Any, torch.Tensor], Images]]] = {
    "harmonic": (npgd.Inpainting, lambda A, y: fill(A, y, 1)),
    "biharmonic": (npgd.Inpainting, lambda A, y: fill(A, y, 2)),
    "bicubic": (npgd.SuperResolution, bicubic),
}
NPGDS: dict[str, dict[str, Any]] = {
    "NPGD": {},
    "NPGD, finished": {"finish": 40, "max_iter": 50},
    "NPGD, refined": {"refine": 3},
}
SOLVERS = (*NPGDS, "deviation", "total variation", "Lasso, DCT", "Lasso, wavelet")
METHODS = (*SOLVERS, *INTERPOLATIONS)


# ------------------------------------------------------------------------------------------ cells


@dataclass(frozen=True)
class Comparison:
    """What all cells share."""

    prior: npgd.GenerativePrior
    data: str
    count: int
    cells: Cells
    quick: bool = False
    noise: float = 0.0
    """σ over the root mean square of A x."""

    def sigma(self, A: npgd.LinearOperator) -> float:
        """Standard deviation of the noise on each measurement, the same for all images."""
        return self.noise * float(A(self.held_out()).square().mean().sqrt()) if self.noise else 0.0

    def measured(self, A: npgd.LinearOperator, x: Images) -> torch.Tensor:
        """A x, with noise."""
        y, generator = A(x), torch.Generator().manual_seed(1)
        return y + self.sigma(A) * torch.randn(y.shape, generator=generator)

    def held_out(self) -> Images:
        """The images to recover."""
        return dataset(self.data, "test", count=self.count)

    def training(self) -> Images:
        """The images that settings are chosen on."""
        return dataset(self.data, "train", count=self.choosing)

    @property
    def choosing(self) -> int:
        return 2 if self.quick else CHOOSING

    def on_training(self) -> str:
        return f"chosen on {self.choosing} training images of {self.data}"

    def total_variation(self, task: str, A: npgd.LinearOperator) -> npgd.TotalVariation:
        """At its own λ; with noise at the one with the least error on training images."""
        sigma = self.sigma(A)
        if not sigma:
            return npgd.TotalVariation()

        def choose() -> dict[str, Any]:
            x, errors = self.training(), {}
            y = self.measured(A, x)
            for c in (0.5, 1.0, 2.0, 4.0):
                found = npgd.recover(A, y, self.cut(npgd.TotalVariation(penalty=c * sigma))).x
                errors[c] = float((found.clamp(-1, 1) - x).square().mean())
            return {"c": min(errors, key=lambda c: errors[c]), "tried": list(errors.items())}

        where = f"total variation for {task}, noise {self.noise:g}, {self.on_training()}"
        return npgd.TotalVariation(penalty=self.cells(where, choose)["c"] * sigma)

    def lasso(self, task: str, A: npgd.LinearOperator, method: str) -> npgd.Lasso:
        """The basis and origin with the least error on training images."""
        shape = A.image_shape
        wavelets = [Wavelet(shape, name).float() for name in ("db4", "haar")]
        bases: list[Transform] = [DCT(shape).float()] if method == "Lasso, DCT" else [*wavelets]

        def choose() -> dict[str, Any]:
            x = self.training()
            origins = (-1.0, 0.0, float(x.mean()))
            y, errors = A(x), {}
            for i, basis in enumerate(bases):
                for origin in origins:
                    solver = self.cut(npgd.Lasso(transform=basis, origin=origin))
                    recovered = npgd.recover(A, y, solver).x.clamp(-1, 1)
                    errors[i, origin] = float((recovered - x).square().mean())
            best = min(errors, key=lambda setting: errors[setting])
            tried = [[repr(bases[i]), origin, error] for (i, origin), error in errors.items()]
            return {"basis": best[0], "origin": best[1], "tried": tried}

        found = self.cells(f"{method} for {task}, {self.on_training()}", choose)
        return npgd.Lasso(transform=bases[found["basis"]], origin=found["origin"])

    def cut(self, solver: Solver[Any]) -> Solver[Any]:
        """Short if this is the quick look."""
        few = min(solver.max_iter, QUICK_ITERATIONS)
        return replace(solver, max_iter=few) if self.quick else solver

    def solver(self, method: str, task: str, A: npgd.LinearOperator) -> Solver[Any] | None:
        """The method at its settings; None where it does not apply."""
        if method in NPGDS:
            found = npgd.NPGD(self.prior, **NPGDS[method])
            return shortened(found, QUICK_ITERATIONS) if self.quick else found
        if method == "deviation":
            denoiser = fitting_denoiser(self.prior.image_shape)
            noise = self.sigma(A)
            return self.cut(npgd.Deviation(self.prior, denoiser=denoiser, noise=noise))
        if method == "total variation":
            return self.cut(self.total_variation(task, A))
        return self.cut(self.lasso(task, A, method)) if isinstance(A, npgd.Gaussian) else None

    def cell(self, method: str, task: str, A: npgd.LinearOperator) -> dict[str, Any] | None:
        """Errors of every image; None where the method does not apply."""
        where = f"{method}, {task}, first {self.count} held-out images of {self.data}"
        where += f", noise {self.noise:g}" if self.noise else ""
        if method in INTERPOLATIONS:
            kind, interpolate = INTERPOLATIONS[method]
            if not isinstance(A, kind):
                return None
            return self.cells(where, lambda: self.errors(A, lambda y: interpolate(A, y)))
        solver = self.solver(method, task, A)
        if solver is None:
            return None
        key = ", ".join(f"{name} {value}" for name, value in settings(solver).items())
        return self.cells(
            f"{where}, {key}", lambda: self.errors(A, lambda y: npgd.recover(A, y, solver).x)
        )

    def errors(
        self, A: npgd.LinearOperator, method: Callable[[torch.Tensor], Images]
    ) -> dict[str, Any]:
        """Mean squared error per pixel of each image, over all pixels and over the missing ones."""
        found: dict[str, list[float]] = {"errors": []}
        images = self.held_out()
        for x, y in zip(images.split(BATCH), self.measured(A, images).split(BATCH), strict=True):
            squared = (method(y).clamp(-1, 1) - x).square().nan_to_num(nan=torch.inf)
            found["errors"] += squared.flatten(1).mean(1).tolist()
            if isinstance(A, npgd.Inpainting):
                missing = A.adjoint(x.new_ones(1, A.m)).flatten() == 0
                missed = squared.flatten(1)[:, missing].mean(1).tolist()
                found["missing"] = found.get("missing", []) + missed
        return found


def measure(options: argparse.Namespace, console: Console) -> dict[str, dict[str, Any]]:
    """Cells by method and column, with a line for each as it is done."""
    prior = npgd.load_prior(options.prior)
    compared = Comparison(
        prior,
        options.dataset or dataset_of(prior),
        options.count,
        Cells(options.json, options.quick),
        options.quick,
        options.noise,
    )
    console.print(f"{described(prior)}, first {compared.count} held-out images of {compared.data}")
    results: dict[str, dict[str, Any]] = {}
    for task, A in tasks(prior.image_shape, options.m or usual_m(prior)).items():
        for method in options.methods:
            cell = compared.cell(method, task, A)
            if cell is None:
                continue
            row = results.setdefault(method, {})
            row[task] = cell["errors"]
            if "missing" in cell:
                row[f"{task}, inside"] = cell["missing"]
            error = statistics.fmean(cell["errors"])
            console.print(f"{task}, {method}: {error:.4f}, {cell['seconds']:.0f} s")
    return results


def dataset_of(prior: npgd.GenerativePrior) -> str:
    """The data set of the prior's name; for other names the first with images of its shape."""
    if prior.name in IMAGE_SHAPES:
        return prior.name
    fitting = [name for name, shape in IMAGE_SHAPES.items() if shape == prior.image_shape]
    if not fitting:
        raise ValueError(f"--prior must have images of a data set's shape, got {prior.image_shape}")
    return fitting[0]


def usual_m(prior: npgd.GenerativePrior) -> int:
    """1,000 for 64×64 in colour (8 % of n), 100 for digits."""
    return 100 if prior.image_shape == IMAGE_SHAPES["mnist"] else 1000


# ----------------------------------------------------------------------------------------- tables


def psnr(errors: list[float]) -> list[float]:
    """That of each image, in dB."""
    return images.psnr(torch.tensor(errors, dtype=torch.float64)).tolist()


def summary(values: list[float], digits: int) -> str:
    """Mean ± standard error."""
    spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"


def table(title: str, results: dict[str, dict[str, Any]], decibels: bool) -> Table:
    """Methods down, tasks across; the best of each column is bold."""
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    best = {
        column: min(statistics.fmean(row[column]) for row in results.values() if column in row)
        for column in columns
    }
    if decibels:
        best = {
            column: max(
                statistics.fmean(psnr(row[column])) for row in results.values() if column in row
            )
            for column in columns
        }
    out = Table("", title=title, box=SIMPLE_HEAD)
    for column in columns:
        out.add_column(column, justify="right")
    for method, row in results.items():
        texts = []
        for column in columns:
            if column not in row:
                texts.append("")
                continue
            values = psnr(row[column]) if decibels else row[column]
            text = summary(values, 2 if decibels else 4)
            first = statistics.fmean(values) == best[column]
            texts.append(f"[bold]{text}[/bold]" if first else text)
        out.add_row(method, *texts)
    return out


def penalties(options: argparse.Namespace, console: Console) -> None:
    """Total variation on training images, by λ/‖A‖²."""
    prior = npgd.load_prior(options.prior)
    data = options.dataset or dataset_of(prior)
    x = dataset(data, "train", count=options.count)
    title = f"total variation, first {options.count} training images of {data}: error, iterations"
    out = Table("λ/‖A‖²", title=title)
    operators = tasks(prior.image_shape, options.m or usual_m(prior))
    columns = []
    for task, A in operators.items():
        out.add_column(task, justify="right")
        y, column = A(x), []
        for penalty in options.penalties:
            solver = npgd.TotalVariation(penalty=penalty * A.norm() ** 2)
            solution = npgd.recover(A, y, solver)
            error = float((solution.x.clamp(-1, 1) - x).square().mean())
            column.append(f"{error:.5f}, {solution.n_iter}")
        columns.append(column)
    for penalty, *row in zip(options.penalties, *columns, strict=True):
        out.add_row(f"{penalty:g}", *row)
    console.print(out)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    task_options(parser)
    parser.add_argument("--json", type=Path, help="keep every cell there")
    parser.add_argument("--count", type=int, default=100, help="images")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--noise", type=float, default=0.0, help="σ over the rms of A x")
    parser.add_argument("--penalties", nargs="+", type=float, help="choose λ; see above")
    parser.add_argument("--quick", action="store_true", help="4 digits, short runs")
    options = parser.parse_args()
    options.prior = prior_of(options)
    options.count = min(options.count, 4) if options.quick else options.count
    if options.penalties:
        penalties(options, Console(width=160))
        return
    results = measure(options, Console(stderr=True))
    console = Console(width=160)
    noise = f"noise {options.noise:g}" if options.noise else "no noise"
    title = f"prior {options.prior}, first {options.count} held-out images, {noise}"
    console.print(table(f"PSNR in dB, {title}", results, decibels=True))
    console.print(table(f"error per pixel, {title}", results, decibels=False))


if __name__ == "__main__":
    main()
