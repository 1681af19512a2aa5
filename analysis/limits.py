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
are taken; above all, a better projector may also take from what the measurements add. So advice is
measured as well: `trials` run the solver again with one thing changed. All of this needs x*.
`analysis.error_budget` predicts the same parts, of random A, from a denoising curve and no run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from analysis.projection import nearest_in_range, projects_exactly
from analysis.rates.identity import needs_map
from analysis.words import about
from npgd import checks, sets
from npgd.files import plain
from npgd.images import Images, Measurements, PerImage, norm, squared_norm
from npgd.operators import Gaussian, LinearOperator
from npgd.precision import like, plainly
from npgd.projectors import LatentRefinement
from npgd.sets import ImageSet
from npgd.showing import Drawn, Shown
from npgd.solvers import Solution, recover
from npgd.solvers.base import Solver

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = {
    "range": "distance of the image from the range",
    "projector": "the projector beyond the nearest point",
    "measurements": "what too few measurements add",
    "noise": "what noise adds",
    "iterations": "the run beyond where it should end",
}
"""The parts, in the order in which they are taken, and what they are."""


@dataclass(frozen=True, eq=False)
class Trial(Shown):
    """What one change would gain."""

    change: str
    """What was changed."""
    gain: PerImage
    """The solution's error minus that with the change, per image and pixel."""

    def __str__(self) -> str:
        return f"{self.change}: would gain {_mean(self.gain)}"

    def to_dict(self) -> dict[str, Any]:
        mean, error = moments(self.gain)
        found: dict[str, Any] = plain(
            {"change": self.change, "gain": self.gain, "mean": mean, "standard_error": error}
        )
        return found


@dataclass(frozen=True, eq=False)
class ErrorSplit(Drawn):
    """The error of a solution, split into parts that add up to it, image by image."""

    parts: dict[str, PerImage]
    """By name, in the order of `PARTS`: squared errors per pixel, (batch,)."""
    error: PerImage
    """‖x − x*‖²/n of the solution: the sum of the parts."""
    trials: tuple[Trial, ...]
    """What changes would gain; none if none was asked for."""
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
        said = f"what limits most is {name} ({PARTS[name]}): {part} of {about(total)} a pixel"
        if not self.trials:
            return said
        best = max(self.trials, key=lambda trial: moments(trial.gain)[0])
        gain, error = moments(best.gain)
        if not gain > 2 * error:
            return f"{said}; no change that was tried gains more than twice its standard error"
        return f"{said}; of the changes tried {best.change} gains most"

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
        return "\n".join([*lines, *(f"  {trial}" for trial in self.trials), f"  {self.status}"])

    def to_dict(self) -> dict[str, Any]:
        rows = {**self.parts, "error": self.error}
        means = {name: moments(values) for name, values in rows.items()}
        found: dict[str, Any] = plain(
            {
                "parts": self.parts,
                "error": self.error,
                "mean": {name: mean for name, (mean, _) in means.items()},
                "standard_error": {name: error for name, (_, error) in means.items()},
                "trials": [trial.to_dict() for trial in self.trials],
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
    more: LinearOperator | None = None,
    nearest: Images | None = None,
    trials: bool = True,
    longer: int = 5,
    starts: int = 3,
    steps: int = 100,
    seed: int = 0,
) -> ErrorSplit:
    """Split the error of a solution into range, projector, measurements, noise, iterations.

    Measured; `analysis.error_budget` predicts the same parts without a run.

    Costs two runs `longer` times as long as the solver's, a search for the nearest points, and a
    run for each trial. The trials are twice the measurements, with as much noise in ‖v‖², where A
    is `npgd.Gaussian` or `more` is given; and projections that end with two Gauss–Newton steps,
    where the solver has a `prior` that `npgd.LatentRefinement` takes. Each is one run on these
    images: of another draw of A the gain is another.

    Args:
        A: the operator.
        prior: the set S and its projector, `prior.project(w)`.
        images: x*, (batch, channels, height, width).
        y: what was measured of them, A x* + v.
        solver: a dataclass of settings with `max_iter`, such as `npgd.NPGD(prior)`.
        solution: what `recover(A, y, solver)` returned; None runs it.
        more: an operator with more measurements than A, for a trial.
        nearest: the nearest points of S, where they are known; saves the search.
        trials: whether to run them.
        longer: how many times `solver.max_iter` a long run may take.
        starts, steps, seed: of the search, as for `nearest_in_range`; the seed is that of the
            trials, too.

    Raises:
        ValueError, TypeError: an argument does not fit, by name.
    """
    x, y = _fitting(A, prior, images, y, solver, more)
    longer, trials = checks.integer(longer, "longer"), checks.flag(trials, "trials")
    seed = checks.seed(seed)
    if solution is None:
        solution = recover(A, y, solver)
    elif not isinstance(solution, Solution) or solution.x.shape != x.shape:
        raise ValueError(
            f"solution must be of images of shape {tuple(x.shape)}, got"
            f" {checks.shown(getattr(solution, 'x', solution))}"
        )
    long_run = _changed(solver, max_iter=longer * solver.max_iter)

    projected = prior.project(x)  # type: ignore[union-attr]
    if nearest is None:
        search: dict[str, Any] = {"starts": starts, "steps": steps, "seed": seed}
        nearest = nearest_in_range(prior, x, known=projected, **search).image
    else:
        nearest = like(checks.images(nearest, checks.image_shape(A.image_shape), "nearest"), prior)
        if len(nearest) != len(x):
            raise ValueError(f"nearest must have an image for each of {len(x)}, got {len(nearest)}")
    noise = y - A(x)
    quiet = recover(A, A(x), long_run).x
    noisy = bool((norm(noise) > 1e-6 * norm(y)).any())
    loud = recover(A, y, long_run).x if noisy else quiet
    found = (nearest, projected, quiet, loud, solution.x)
    errors = torch.stack([_error(estimate, x) for estimate in found])
    parts = [errors[0], *errors.diff(dim=0)]
    return ErrorSplit(
        parts=dict(zip(PARTS, parts, strict=True)),
        error=errors[-1],
        trials=tuple(_trials(A, x, noise, solver, errors[-1], more, seed)) if trials else (),
        iterations=len(solution.objective) - 1,
        long_run=longer * solver.max_iter,
    )


def _fitting(
    A: LinearOperator,
    prior: ImageSet,
    images: Images,
    y: Measurements,
    solver: Solver[Any],
    more: LinearOperator | None,
) -> tuple[Images, Measurements]:
    """Images and measurements in the prior's precision, once all arguments fit together."""
    needs_map(A)
    sets.needs(prior, "project", what="the split of an error", name="prior")
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as NPGD(prior), got {checks.shown(solver)}")
    shape = checks.image_shape(A.image_shape)
    if more is not None and getattr(more, "image_shape", None) != shape:
        raise TypeError(
            f"more must be a LinearOperator on images of shape {shape}, got {checks.shown(more)}"
        )
    x = like(checks.finite(checks.images(images, shape, "images", 1), "images"), prior)
    y = like(checks.finite(checks.measurements(y, A.m, "y"), "y"), prior)
    if len(y) != len(x):
        raise ValueError(f"y must have one row for each of {len(x)} images, got {len(y)}")
    return x, y


def _trials(
    A: LinearOperator,
    x: Images,
    noise: Measurements,
    solver: Solver[Any],
    error: PerImage,
    more: LinearOperator | None,
    seed: int,
) -> list[Trial]:
    found = []
    if more is None and type(A) is Gaussian and 2 * A.m <= A.n:
        more = Gaussian(A.image_shape, 2 * A.m, seed=seed + 1, dtype=A.matrix.dtype).to(x)
    if more is not None:
        y = more(x)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
        y = y + drawn * (norm(noise) / norm(drawn))[:, None]
        gain = error - _error(recover(more, y, solver).x, x)
        times = "twice" if more.m == 2 * A.m else f"{about(more.m / A.m)} times"
        found.append(Trial(f"{times} the measurements (m = {more.m})", gain))
    own = getattr(solver, "prior", None)
    if sets.encodes(own) and not projects_exactly(own):
        refined = _changed(solver, prior=LatentRefinement(own))
        gain = error - _error(recover(A, A(x) + noise, refined).x, x)
        found.append(Trial("a better projector (two Gauss–Newton steps more)", gain))
    return found


def _changed(solver: Solver[Any], **settings: Any) -> Solver[Any]:
    anything: Any = solver
    changed: Solver[Any] = replace(anything, **settings)
    return changed


def _error(estimate: Images, x: Images) -> Float[torch.Tensor, " batch"]:
    """‖estimate − x‖²/n in float64."""
    return squared_norm(estimate.double() - x.double()).cpu() / x[0].numel()


def moments(values: PerImage) -> tuple[float, float]:
    """Mean and its standard error, NaN for one image."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def _mean(values: PerImage) -> str:
    mean, error = moments(values)
    return f"{about(mean)} ± {about(error, 2)}"
