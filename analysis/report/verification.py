"""`verify`: measure everything the theorem talks about, and hold its bound against a run."""

from __future__ import annotations

import math
import time
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float

from analysis.memory import entries, memory_of, release
from analysis.projection import (
    ProjectionError,
    ProjectionSettings,
    gradient_points,
    nearest_in_range,
    projection_error,
    projects_exactly,
    sample_families,
)
from analysis.rates import ConvergenceCheck, check_convergence
from analysis.rec import RecEstimate, estimate_rec
from analysis.rec.settings import RecSettings
from analysis.report.evidence import LOW_PRECISION, OWN, broken_by, unseen
from analysis.report.needs import Room, left_out
from analysis.report.predictions import predictions
from analysis.report.report import Report
from analysis.report.settings import RunSettings, described, rec_settings, recorded
from analysis.tasks import check_executor
from npgd import checks, sets
from npgd.images import (
    Images,
    Latents,
    Measurements,
    PerImage,
    inner,
    norm,
    squared_norm,
    warn_of_range,
)
from npgd.operators import LinearOperator, as_operator
from npgd.precision import converted, plainly
from npgd.projectors import FiniteSet
from npgd.sets import ImageSet
from npgd.solvers import NPGD, Solution, choose_step_size, recover


@plainly
def verify(
    A: Any,
    prior: ImageSet,
    images: Images | Latents | None = None,
    *,
    effort: str = "default",
    rec: RecSettings | None = None,
    projection: ProjectionSettings | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
    memory: int | str | None = None,
    baselines: bool = False,
    **run: Any,
) -> Report:
    """Measure the theorem's assumptions for A and a prior, and hold its bound against a run.

    1. x̄, the best point of S = range(G) for every image; what is left counts as noise.
    2. α and β on secants and tangents of S and by search, and α(x̄) for every image.
    3. NPGD on y = A x* + noise, in float64.
    4. δ on samples of S, noisy samples, the images, and the points w_n that the run projected.
    5. The bound against the iterates, with the uniform constants and with each image's own.
    6. What other statements predict of the run: local rates, state evolution, obtuseness.
    7. NPGD(prior) at its defaults, as users run it, and what limits its error, part by part.

    Args:
        A: an operator, or anything that `npgd.as_operator` takes.
        prior: a `GenerativePrior`, `AffineSet` or `FiniteSet`, or what has their methods.
        images: x*, (batch, channels, height, width), pixels in [-1, 1]; or latents (batch, k), for
            x* = G(z), which then lie in S for certain; by default `count` samples of S.
        effort: how far to look, "quick", "default" or "thorough"; chooses `rec` and `projection`.
        rec: settings of `analysis.estimate_rec` instead.
        projection: settings of the search for x̄ and of δ instead.
        seed: of every draw.
        executor: runs the tasks of `analysis.estimate_rec`, by default threads, and the searches
            of `analysis.projection_error`.
        progress: show progress bars, and before them how much memory the work needs, and what is
            cut short of a set whose Jacobians are large.
        memory: most bytes that are taken beside what the process holds before, or "2 GB": fewer
            images pass through a `GenerativePrior` at a time, fewer samples are drawn. Local rates
            that do not fit are left out, as the report says.
        baselines: recover by total variation and plug-and-play ADMM, too, which know nothing of
            the prior, whatever the effort.
        **run: fields of `analysis.RunSettings`: step_size, n_iter, noise, start, count.

    Raises:
        TypeError, ValueError: naming the argument that does not fit: also an A that is zero, a
            prior of a single image, or one whose projections are not finite.
    """
    clock, asked = _Clock(), RunSettings.of(run)
    seed, progress = checks.seed(seed), checks.flag(progress, "progress")
    check_executor(executor)
    baselines = checks.flag(baselines, "baselines")
    chosen = _effort(effort, rec, projection)
    rec_given, rec = rec, rec or rec_settings(effort, entries(prior))
    bound, cut = memory_of(memory), left_out(prior, effort, rec_given, projection)
    projection = projection or ProjectionSettings.of(effort, entries(prior))
    _images_or_latents(images)
    operator = _operator(A, _shape(prior))
    room = Room.of(operator, prior, images, asked, bound)
    search = _search(projection, seed, progress) | {"memory": room.left}
    errors = _linearity(converted(operator))
    _examine(prior)
    room.state(operator, prior, (rec, projection), cut, progress)
    prior = room.limited(prior)
    problem = _problem(operator, prior, images, asked, seed, search)
    warn_of_range(problem.x_true, problem.x_bar)
    clock.lap("best points in S")
    found = estimate_rec(
        operator,
        prior,
        rec,
        z_true=problem.latents,
        x_true=None if problem.latents is not None else problem.x_bar,
        seed=seed,
        executor=executor,
        progress=progress,
        memory=room.left,
    )
    _, beta = _constants(problem, found)
    clock.lap("restricted eigenvalues")
    eta = _step_size(problem, asked, beta, seed)
    solution = _run(problem, asked, eta, progress)
    clock.lap("recovery")
    delta = _delta(problem, solution, eta, projection, search, executor)
    clock.lap("projector error")
    uniform, pointwise = _hold(problem, solution, eta, found, delta)
    clock.lap("bounds against iterates")
    against = predictions(
        problem,
        found,
        uniform,
        pointwise,
        solution,
        eta,
        effort=effort,
        noise=asked.noise,
        linear=broken_by(errors, uniform) <= LOW_PRECISION,
        baselines=baselines,
        seed=seed,
        progress=progress,
        memory=room.left,
    )
    clock.lap("predictions and limits")
    return Report(
        rec=found,
        projection=delta,
        uniform=uniform,
        pointwise=pointwise,
        solution=solution,
        predictions=against,
        images=problem.x_true.cpu(),
        target=problem.x_bar.cpu(),
        measured=problem.A.adjoint(problem.y).detach().cpu(),
        distance=squared_norm(problem.x_true - problem.x_bar).cpu(),
        nearest=problem.nearest.cpu(),
        operator=described(operator) | errors,
        settings=_recorded(prior, images, problem, asked, eta)
        | {"seed": seed, "effort": chosen}
        | recorded(rec, projection)
        | ({"cut short": cut} if cut else {}),
        seconds=clock.seconds | {"total": sum(clock.seconds.values())},
    )


def _images_or_latents(images: Images | Latents | None) -> None:
    if not isinstance(images, torch.Tensor | None):
        raise TypeError(f"images must be a torch tensor or None, got {checks.shown(images)}")
    if images is not None and _finite(images).ndim not in (2, 4):
        raise ValueError(
            "images must be (batch, channels, height, width), or latents (batch, k), got shape"
            f" {tuple(images.shape)}"
        )


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
        release()


# The door -----------------------------------------------------------------------------------------


def _shape(prior: ImageSet) -> checks.ImageShape:
    sets.needs(prior, "image_shape", "project", what="a run of NPGD")
    return checks.image_shape(prior.image_shape)  # type: ignore[union-attr]


def _finite(images: torch.Tensor) -> torch.Tensor:
    return checks.finite(checks.floating(images, "images"), "images")


def _operator(A: object, shape: checks.ImageShape) -> LinearOperator:
    try:
        operator = as_operator(A, shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"A must be an operator on the prior's images: {error}") from None
    checks.squares(torch.tensor(operator.norm(), dtype=torch.float64), "A")
    return operator


def _linearity(A: LinearOperator, probes: int = 3) -> dict[str, float]:
    """How far A is from linear and Aᵀ from its transpose, on random probes in float64.

    Relative to ‖a A x‖ + ‖b A z‖, and to ‖A x‖ ‖u‖ + ‖x‖ ‖Aᵀ u‖; a few 1e-16 where both hold.
    """
    device = (checks.kind(A) or (torch.float64, torch.device("cpu")))[1]
    generator = checks.seeded(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(device)

    x, z, u = normal(probes, *A.image_shape), normal(probes, *A.image_shape), normal(probes, A.m)
    a, b = 1.7, -0.6
    with torch.no_grad():
        A_x, A_z, together, At_u = A(x), A(z), A(a * x + b * z), A.adjoint(u)
        # A(0) = 0 and A(−x) = −A x as well: a constant or an |·| may hide in one combination.
        whole = torch.cat([together - a * A_x - b * A_z, A(0 * x), A(-x) + A_x])
    scale = abs(a) * norm(A_x) + abs(b) * norm(A_z)
    if not bool((scale > 0).any()) and not bool(At_u.any()):
        raise ValueError("A must not be zero, got A x = 0 for random x: it measures nothing")
    return {
        "linearity_error": _largest(norm(whole) / scale.repeat(3)),
        "adjoint_error": _largest(
            (inner(A_x, u) - inner(x, At_u)).abs() / (norm(A_x) * norm(u) + norm(x) * norm(At_u))
        ),
    }


def _largest(errors: PerImage) -> float:
    return float(errors.nan_to_num(nan=math.inf).max())


@torch.no_grad()
def _examine(prior: ImageSet) -> None:
    """ValueError for a set without two points, or whose projections are not finite."""
    if isinstance(prior, FiniteSet):
        some = prior.points
    elif sets.samples(prior):
        some = prior.sample(8, generator=checks.seeded(0))
    else:
        return
    if not bool(torch.isfinite(some).all()):
        raise ValueError("prior must give finite images, got NaN or infinity in its samples")
    if bool((some == some[:1]).all()):
        raise ValueError("prior must hold two different images, got one: S has no secant")
    projected = sets.projector(prior)(some[:2] + 0.1)
    if not bool(torch.isfinite(projected).all()):
        raise ValueError("prior must project to finite images, got NaN or infinity from `project`")


def _effort(effort: str, rec: RecSettings | None, projection: ProjectionSettings | None) -> str:
    """What the report says of the effort; ValueError for one there is not."""
    ProjectionSettings.of(effort)
    for name, settings, kind in (
        ("rec", rec, RecSettings), ("projection", projection, ProjectionSettings)
    ):  # fmt: skip
        if settings is not None and not isinstance(settings, kind):
            raise TypeError(f"{name} must be {kind.__name__}, got {checks.shown(settings)}")
    given = {"rec": rec, "projection": projection}
    names = [name for name, settings in given.items() if settings is not None]
    return effort if not names else f"{effort}, but {' and '.join(names)} as given"


def _search(projection: ProjectionSettings, seed: int, progress: bool) -> dict[str, Any]:
    """The search for nearest points, as `nearest_in_range` takes it."""
    settings = {name: value for name, value in asdict(projection).items() if name != "points"}
    return settings | {"seed": seed, "progress": progress}


# The steps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """A, S and y = A x* + noise; what is computed with is in float64."""

    prior: ImageSet
    """S, in its own precision."""
    A: LinearOperator
    S: ImageSet
    x_true: Images
    x_bar: Images
    """x̄, the best point of S found for x*."""
    latents: Latents | None
    """Of x̄, where S has latents."""
    nearest: Bool[torch.Tensor, " batch"]
    """Whether x̄ is certainly the nearest point."""
    given: bool
    """Whether x* are the caller's images, which may lie off S."""
    y: Measurements
    first: int
    """The first n for which x_n lies in S, so that the theorem speaks of it."""


@torch.no_grad()
def _problem(
    operator: LinearOperator,
    prior: ImageSet,
    images: Images | Latents | None,
    asked: RunSettings,
    seed: int,
    search: dict[str, Any],
) -> Problem:
    """x*, x̄ and its latents, and y = A x* + noise."""
    generator = checks.seeded((seed + 1) % 2**64)  # as `npgd recover` draws: its run is the same
    A, S = converted(operator), converted(prior)
    latents: Latents | None = None
    given = images is not None and images.ndim != 2
    if images is None and sets.samples_latents(prior):
        latents = prior.sample_latents(asked.count, generator=generator)
    elif images is not None and images.ndim == 2:
        latents = _latents(prior, images)
    if latents is not None:
        assert sets.generates(S)
        x_true = x_bar = S.generate(_as_drawn(S, latents)).double()
        nearest = torch.ones(len(x_true), dtype=torch.bool)
    else:
        known = None
        if images is None:
            sets.needs(prior, "sample", what="images to recover (or give some)")
            assert sets.samples(prior)
            images = prior.sample(asked.count, generator=generator)
            known = None if projects_exactly(prior) else images
        elif len(images) == 0:
            raise ValueError("images must hold at least one image, got none")
        shape = checks.image_shape(prior.image_shape)  # type: ignore[union-attr]
        checks.images(images, shape, "images")
        point = nearest_in_range(prior, images, known=known, **search)
        x_true = images.to(point.image).double()
        x_bar, latents, nearest = point.image.double(), point.latent, point.exact
        if latents is not None:
            assert sets.generates(S)
            x_bar = S.generate(_as_drawn(S, latents)).double()
    y = A(x_true)
    drawn = torch.randn(y.shape, generator=checks.seeded((seed + 2) % 2**64), dtype=torch.float32)
    y = y + asked.noise * drawn.to(y)
    first = 0 if asked.start == "range" else 1
    return Problem(prior, A, S, x_true, x_bar, latents, nearest, given, y, first)


def _latents(prior: ImageSet, z: Latents) -> Latents:
    sets.needs(prior, "generate", "latent_dim", what="latents in place of images")
    assert sets.generates(prior)
    checks.finite(checks.floating(z, "images"), "images")
    if z.ndim != 2 or z.shape[1] != prior.latent_dim or len(z) == 0:
        raise ValueError(
            f"images must be images, or latents of shape (batch, {prior.latent_dim}), got"
            f" {tuple(z.shape)}"
        )
    return z


def _as_drawn(prior: ImageSet, latents: Latents) -> Latents:
    return latents.double() if isinstance(prior, torch.nn.Module) else latents


def _constants(problem: Problem, rec: RecEstimate) -> tuple[Float[torch.Tensor, " batch"], float]:
    """α(x̄) of every image, 0 where rounding could make it, and the β of S, exact or found."""
    assert rec.pointwise is not None
    alphas = torch.as_tensor(rec.pointwise.alpha, dtype=torch.float64)
    # A pair (x, x̄) is a secant of S: its ratio is at most β.
    beta = rec.beta if rec.exact else max(rec.beta, float(alphas.max()))
    rounding = unseen(problem.A.n, rec.beta_certain)
    if not beta > rounding:
        raise ValueError("A must see some direction of S, got ‖A s‖ = 0 for all looked at")
    return torch.where(alphas > rounding, alphas.clamp_max(beta), 0.0), beta


def _step_size(problem: Problem, asked: RunSettings, beta: float, seed: int) -> float:
    """η, as asked for."""
    if asked.step_size == "1/beta":
        return 1 / beta
    if asked.step_size == "auto":
        return choose_step_size(
            problem.A, problem.S, seed=seed, max_iter=asked.n_iter, start=asked.start
        )
    return float(asked.step_size)


FINITE = 1e150
"""Errors and objectives above have squares that are not finite."""


def _run(problem: Problem, asked: RunSettings, eta: float, progress: bool) -> Solution:
    """The run, its iterates up to the last that is finite."""
    solver = NPGD(problem.S, eta, max_iter=asked.n_iter, tol=0.0, start=asked.start)
    solution = recover(
        problem.A,
        problem.y,
        solver,
        x_true=problem.x_true,
        record_iterates=True,
        progress=progress,
    )
    assert solution.iterates is not None and solution.error is not None
    # A comparison with NaN is false.
    good = (solution.objective < FINITE).all(1) & (solution.error < FINITE).all(1)
    kept = int(good.long().cumprod(0).sum())
    if kept < 2:
        raise ValueError(
            f"prior must project to finite images, got NaN or infinity at x_{kept} of the run"
        )
    return replace(solution, iterates=solution.iterates[:kept])


def _delta(
    problem: Problem,
    solution: Solution,
    eta: float,
    settings: ProjectionSettings,
    search: dict[str, Any],
    executor: Executor | None,
) -> ProjectionError:
    """δ over the families; of the run, w_n at a few n ≥ start, denser at its beginning."""
    prior, x_bar = problem.prior, problem.x_bar
    families: dict[str, Images] = {}
    known: dict[str, Images] = {}
    if sets.samples(prior):
        families, known = sample_families(prior, settings.points, seed=search["seed"])
    assert solution.iterates is not None
    last = len(solution.iterates) - 1
    first = min(problem.first, last - 1)  # a run at rest at once has w_0 alone
    rows = max(1, min(last - first, round(settings.points / len(x_bar))))
    steps = torch.logspace(0, math.log10(last - first), rows, dtype=torch.float64).round().long()
    # gradient_points leaves out the last.
    chosen = solution.iterates[[*(first - 1 + steps).tolist(), last]]
    w = gradient_points(problem.A, problem.y, chosen, eta)
    families[OWN] = w.flatten(0, 1)
    known[OWN] = x_bar.repeat(rows, 1, 1, 1)
    error = projection_error(prior, families, known=known, executor=executor, **search)
    if not problem.given:
        return error
    # The nearest points of the images are known from before: no second search.
    once = search | {"starts": 1, "steps": 0, "progress": False}
    images = projection_error(
        prior, {"the images": problem.x_true}, known={"the images": x_bar}, **once
    )
    return replace(
        error,
        families=error.families | images.families,
        seconds=error.seconds + images.seconds,
    )


def _hold(
    problem: Problem, solution: Solution, eta: float, rec: RecEstimate, error: ProjectionError
) -> tuple[ConvergenceCheck, ConvergenceCheck]:
    """The run against the uniform constants, and against each image's own."""
    alphas, beta = _constants(problem, rec)
    own = error.families[OWN].deltas.clamp_min(0).reshape(-1, len(alphas)).amax(0)
    least = min(rec.alpha, float(alphas.min()))
    least = least if least > unseen(problem.A.n, rec.beta_certain) else 0.0
    uniform = torch.full_like(alphas, least)
    return (
        _against(problem, solution, eta, uniform, beta, torch.full_like(alphas, error.delta)),
        _against(problem, solution, eta, alphas, beta, own),
    )


def _against(
    problem: Problem,
    solution: Solution,
    eta: float,
    alpha: Float[torch.Tensor, " batch"],
    beta: float,
    delta: Float[torch.Tensor, " batch"],
) -> ConvergenceCheck:
    """The bound for (α, β, δ) against the run; infinite where α = 0."""
    assert solution.iterates is not None
    blind = ~(alpha > 0)
    stand_in = 1e-12 * beta
    check = check_convergence(
        problem.A,
        problem.y,
        problem.x_bar,
        solution.iterates,
        eta,
        torch.where(blind, stand_in, alpha),
        torch.full_like(alpha, beta),
        delta,
        start=problem.first,
    )
    if not blind.any():
        return check
    later = torch.arange(len(check.bound))[:, None] > problem.first

    def infinite(rows: torch.Tensor) -> torch.Tensor:
        return torch.where(blind & later, math.inf, rows)

    slack = check.slack
    broken = {
        name: pair
        for name, pair in check.broken.items()
        if name != "alpha" or pair[1] != stand_in  # α_n = 0 breaks no α = 0
    }
    return replace(
        check,
        alpha=torch.where(blind, 0.0, check.alpha),
        rate=torch.where(blind, math.inf, check.rate),
        floor=torch.where(blind, math.inf, check.floor),
        bound=infinite(check.bound),
        exceeded_at=tuple(
            None if zero else n for zero, n in zip(blind.tolist(), check.exceeded_at, strict=True)
        ),
        broken=broken,
        slack=replace(
            slack,
            gap=infinite(slack.gap),
            alpha=infinite(slack.alpha),
            bound=infinite(slack.bound),
        ),
    )


def _recorded(
    prior: ImageSet,
    images: Images | Latents | None,
    problem: Problem,
    asked: RunSettings,
    eta: float,
) -> dict[str, Any]:
    """What was recovered, and how."""
    if images is None:
        source = f"{asked.count} sample{'s' * (asked.count > 1)} of S"
    else:
        source = "latents" if images.ndim == 2 else "images"
    return {
        "prior": getattr(prior, "name", type(prior).__name__),
        "latent_dim": prior.latent_dim if sets.generates(prior) else None,
        "images": source,
        "count": len(problem.x_true),
        "step_size": eta,
        "step_rule": asked.step_size if isinstance(asked.step_size, str) else "given",
        "n_iter": asked.n_iter,
        "noise": asked.noise,
        "start": asked.start,
    }
