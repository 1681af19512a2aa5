"""What limits a recovery: the error seen, split into five parts that add up to it.

Four more errors are measured beside that of the solution, each per pixel, ‖x̂ − x*‖²/n, with the
same A, solver and images: of the nearest point of S = range(G) found; of P(x*); of a long run on
A x*, without noise; of a long run on y. The parts are the differences between each and the one
before:

    range          the nearest point of S: no method that answers in S errs less
    projector      P(x*) beyond the nearest point
    measurements   a long run without noise beyond P(x*), which is what it would be if A kept all
    noise          a long run on y beyond that
    iterations     the solution beyond the long run

A part may be negative: noise or an early stop may help. The parts depend on the order in which they
are taken; above all, a better projector may also take from what the measurements add. What a change
would gain, `analysis.advise` finds out by trying it. All of this needs x*. `analysis.error_budget`
predicts the same parts, of random A, from a denoising curve and no run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from analysis.projection import nearest_in_range
from analysis.rates.identity import needs_map
from analysis.words import about
from npgd import checks, sets
from npgd.files import plain
from npgd.images import Images, Measurements, PerImage, norm, squared_norm
from npgd.operators import LinearOperator
from npgd.precision import like, plainly
from npgd.sets import ImageSet
from npgd.showing import Drawn
from npgd.solvers import Solution, recover
from npgd.solvers.base import Solver

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = {
    "range": "distance of the image from the range",
    "projector": "what projecting the image itself misses",
    "measurements": "what too few measurements add",
    "noise": "what noise adds",
    "iterations": "what a longer run would take off",
}
"""The parts, in the order in which they are taken, and what they are."""


@dataclass(frozen=True, eq=False)
class ErrorSplit(Drawn):
    """The error of a solution, split into parts that add up to it, image by image."""

    parts: dict[str, PerImage]
    """By name, in the order of `PARTS`: squared errors per pixel, (batch,)."""
    error: PerImage
    """‖x − x*‖²/n of the solution: the sum of the parts."""
    iterations: int
    """Of the solution,"""
    long_run: int
    """and of the long runs, at most."""

    @property
    def largest(self) -> str:
        """The name of the part with the largest mean."""
        return max(self.parts, key=lambda name: moments(self.parts[name])[0])

    @property
    def status(self) -> str:
        """What limits most, in words."""
        name, total = self.largest, moments(self.error)[0]
        if not math.isfinite(total):
            return "an error is not finite: a run diverged, and nothing can be said"
        part = about(moments(self.parts[name])[0])
        return f"what limits most is {name} ({PARTS[name]}): {part} of {about(total)} a pixel"

    def draw(self, axis: Axes) -> None:
        """A bar for each part, mean over the images, with its standard error."""
        means, errors = zip(*(moments(part) for part in self.parts.values()), strict=True)
        known = [error if math.isfinite(error) else 0.0 for error in errors]
        axis.barh(list(self.parts), means, xerr=known)
        axis.invert_yaxis()
        axis.set(xlabel="error per pixel")

    def __str__(self) -> str:
        total = moments(self.error)[0]
        lines = [f"mean squared error a pixel over {len(self.error)} images, ± standard error"]
        for name, part in self.parts.items():
            share = f"{100 * moments(part)[0] / total:.0f} %" if total else "–"
            lines.append(f"  {PARTS[name]:<40} {_mean(part):>22} {share:>6}")
        lines.append(f"  {'error seen':<40} {_mean(self.error):>22}")
        return "\n".join([*lines, f"  {self.status}"])

    def to_dict(self) -> dict[str, Any]:
        rows = {**self.parts, "error": self.error}
        means = {name: moments(values) for name, values in rows.items()}
        found: dict[str, Any] = plain(
            {
                "parts": self.parts,
                "error": self.error,
                "mean": {name: mean for name, (mean, _) in means.items()},
                "standard_error": {name: error for name, (_, error) in means.items()},
                "iterations": self.iterations,
                "long_run": self.long_run,
                "status": self.status,
            }
        )
        return found


@plainly
@torch.no_grad()
def split_error(
    A: LinearOperator,
    prior: ImageSet,
    images: Images,
    y: Measurements,
    solver: Solver[Any],
    solution: Solution | None = None,
    *,
    nearest: Images | None = None,
    longer: int = 5,
    starts: int = 3,
    steps: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> ErrorSplit:
    """Split the error of a solution into range, projector, measurements, noise, iterations.

    Measured; `analysis.error_budget` predicts the same parts without a run.

    Costs two runs `longer` times as long as the solver's, and a search for the nearest points.

    Args:
        A: the operator.
        prior: the set S and its projector, `prior.project(w)`.
        images: x*, (batch, channels, height, width).
        y: what was measured of them, A x* + v.
        solver: a dataclass of settings with `max_iter`, such as `npgd.NPGD(prior)`.
        solution: what `recover(A, y, solver)` returned; None runs it.
        nearest: the nearest points of S, where they are known; saves the search.
        longer: how many times `solver.max_iter` a long run may take.
        starts, steps, seed: of the search, as for `nearest_in_range`.
        progress: show progress bars.

    Raises:
        ValueError, TypeError: an argument does not fit, by name.
    """
    x, y = fitting(A, prior, images, y)
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as NPGD(prior), got {checks.shown(solver)}")
    longer, seed = checks.integer(longer, "longer"), checks.seed(seed)
    progress = checks.flag(progress, "progress")
    if solution is None:
        solution = recover(A, y, solver, progress=progress)
    elif not isinstance(solution, Solution) or solution.x.shape != x.shape:
        raise ValueError(
            f"solution must be of images of shape {tuple(x.shape)}, got"
            f" {checks.shown(getattr(solution, 'x', solution))}"
        )
    long_run = _changed(solver, max_iter=longer * solver.max_iter)

    projected = prior.project(x)  # type: ignore[union-attr]
    if nearest is None:
        search: dict[str, Any] = {
            "starts": starts,
            "steps": steps,
            "seed": seed,
            "progress": progress,
        }
        nearest = nearest_in_range(prior, x, known=projected, **search).image
    else:
        nearest = like(checks.images(nearest, checks.image_shape(A.image_shape), "nearest"), prior)
        if len(nearest) != len(x):
            raise ValueError(f"nearest must have an image for each of {len(x)}, got {len(nearest)}")
    noise = y - A(x)
    quiet = recover(A, A(x), long_run, progress=progress).x
    noisy = bool((norm(noise) > 1e-6 * norm(y)).any())
    loud = recover(A, y, long_run, progress=progress).x if noisy else quiet
    found = (nearest, projected, quiet, loud, solution.x)
    errors = torch.stack([per_pixel(estimate, x) for estimate in found])
    parts = [errors[0], *errors.diff(dim=0)]
    return ErrorSplit(
        parts=dict(zip(PARTS, parts, strict=True)),
        error=errors[-1],
        iterations=len(solution.objective) - 1,
        long_run=longer * solver.max_iter,
    )


def fitting(
    A: LinearOperator, prior: ImageSet, images: Images, y: Measurements
) -> tuple[Images, Measurements]:
    """Images and measurements in the prior's precision, once all arguments fit together."""
    needs_map(A)
    sets.needs(prior, "project", what="a recovery", name="prior")
    shape = checks.image_shape(A.image_shape)
    x = like(checks.finite(checks.images(images, shape, "images", 1), "images"), prior)
    y = like(checks.finite(checks.measurements(y, A.m, "y"), "y"), prior)
    if len(y) != len(x):
        raise ValueError(f"y must have one row for each of {len(x)} images, got {len(y)}")
    return x, y


def _changed(solver: Solver[Any], **settings: Any) -> Solver[Any]:
    anything: Any = solver
    changed: Solver[Any] = replace(anything, **settings)
    return changed


def per_pixel(estimate: Images, x: Images) -> Float[torch.Tensor, " batch"]:
    """‖estimate − x‖²/n in float64."""
    return squared_norm(estimate.double() - x.double()).cpu() / x[0].numel()


def moments(values: PerImage) -> tuple[float, float]:
    """Mean and its standard error, NaN for one image."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def _mean(values: PerImage) -> str:
    mean, error = moments(values)
    return f"{about(mean)} ± {about(error, 2)}"
