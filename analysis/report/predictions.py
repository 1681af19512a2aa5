"""What each statement predicts of a run, beside what the run did; and what limits its error.

Theorem 1 speaks of the objective, local rates of the distance to the point of rest, state evolution
of the error in the end, obtuseness of the squared distance to x̄, its bound at the end of the run
turned into a mean factor per step. Every row says of what it speaks.
What a statement predicts of an image is divided by what was seen of that image; the ratio is the
median of these. State evolution predicts a mean, and is held against means.

What cannot be computed for a set or an operator has its reason in a phrase; nothing here raises.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool

from analysis.advice import Advice, advise
from analysis.evolution import (
    ErrorBudget,
    StateEvolution,
    denoising_curve,
    error_budget,
    state_evolution,
)
from analysis.limits import ErrorSplit, split_error
from analysis.local import FixedPoint, LocalRate, RunRate, local_rate, run_rate
from analysis.local.derivative import together
from analysis.local.exact import nearest_run
from analysis.local.rest import found_from, latent_npgd
from analysis.memory import ACTIVE, LARGE, Footprint, entries, gigabytes
from analysis.methods import BASELINES, algorithm, algorithm_name, solver_of
from analysis.obtuse import Obtuseness, obtuse_bound, obtuseness
from analysis.projection import projects_exactly
from analysis.proofs.contraction import ConvergenceProof, prove_convergence
from analysis.rates import ConvergenceCheck
from analysis.words import about, at_least, exactly, median, out_of
from npgd import checks, sets
from npgd.files import plain
from npgd.images import Images, PerImage, norm, quotient, ratio
from npgd.operators import Blur, Gaussian, Inpainting, LinearOperator, Radon, SuperResolution
from npgd.precision import converted, like
from npgd.priors import GenerativePrior
from npgd.solvers import AMP, Solution, recover
from npgd.solvers.amp import column_norm, orthonormal_rows
from npgd.solvers.projecting import finishes, missed

if TYPE_CHECKING:
    from analysis.rec import RecEstimate
    from analysis.report.verification import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Depth:
    """How far `verify` looks for what predicts a run."""

    images: int
    """Images whose local rates are computed, at most."""
    exact_run: int
    """Steps of the run with exact projection; 0 does without."""
    own_run: int
    """Steps after the run's last, to see it end."""
    draws: int
    """Pairs of noise of the denoising curve."""
    longer: int
    """Of the split of the error, see `analysis.split_error`."""
    proofs: int
    """Runs at rest whose convergence is to be proved, at most."""

    @classmethod
    def of(cls, effort: str) -> Depth:
        """For an effort of `verify`."""
        return DEPTHS[effort]


DEPTHS = {
    "quick": Depth(3, 0, 40, draws=1, longer=2, proofs=0),
    "default": Depth(6, 40, 80, draws=1, longer=5, proofs=0),
    "thorough": Depth(24, 300, 600, draws=4, longer=10, proofs=6),
}
PUSH = 1e-4
"""Length per latent by which the run with exact projection starts beside the point of rest."""


@dataclass(frozen=True)
class Prediction:
    """A statement: what it assumes, what it predicts of this run, and what was seen."""

    name: str
    """As in `STATEMENTS`."""
    met: str
    """Whether what it assumes is met here, in words."""
    predicted: float
    """Median over the images it speaks of, of state evolution the mean; NaN where it is silent."""
    observed: float
    """The same of the run; NaN where nothing was seen."""
    ratio: float
    """Predicted over observed, image by image, the median."""
    silent: str = ""
    """Why nothing is predicted,"""
    unseen: str = ""
    """or seen."""

    @property
    def statement(self) -> str:
        return STATEMENTS[self.name][0]

    @property
    def assumes(self) -> str:
        return STATEMENTS[self.name][1]

    @property
    def quantity(self) -> str:
        """Of what it speaks."""
        return STATEMENTS[self.name][2]

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        predicted = self.silent or about(self.predicted)
        observed = self.unseen or about(self.observed)
        return [
            self.statement, self.assumes, self.met, self.quantity, predicted, observed,
            about(self.ratio),
        ]  # fmt: skip

    def __str__(self) -> str:
        predicted = f"predicts {self.silent or about(self.predicted)}"
        seen = f"seen {self.unseen or about(self.observed)}"
        ratio = "" if math.isnan(self.ratio) else f", ratio {about(self.ratio)}"
        met = f", met here: {self.met}" if self.met else ""
        return f"{self.statement} (assumes {self.assumes}{met}): {self.quantity}, {predicted}, " + (
            f"{seen}{ratio}"
        )

    def to_dict(self) -> dict[str, Any]:
        named = ("name", "statement", "assumes", "met", "quantity", "predicted", "observed")
        more = ("ratio", "silent", "unseen")
        found: dict[str, Any] = plain({name: getattr(self, name) for name in (*named, *more)})
        return found


OBJECTIVE, DISTANCE = "factor of ‖Ax − y‖²", "factor of ‖x − x_∞‖"
SQUARED, ERROR = "factor of ‖x − x̄‖²", "error in the end"
STATEMENTS = {
    "uniform": ("Theorem 1, uniform", "κ < 2 on all of S", OBJECTIVE),
    "pointwise": ("Theorem 1, image by image", "κ(x*) < 2", OBJECTIVE),
    "exact": ("local rate, exact P", "nearest points, S smooth", DISTANCE),
    "projector": ("local rate, this P", "the run rests", DISTANCE),
    "evolution": ("AMP by state evolution", "A of random entries", ERROR),
    "evolution_npgd": ("NPGD by state evolution", "and NPGD ends as AMP does", ERROR),
    "obtuse": ("obtuse projector", "κ(1 − θ) < 2 along the run", SQUARED),
}
"""Of every row: the statement, what it assumes, and of what it speaks."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Every statement beside the run, the run that users get, and what limits it."""

    rows: tuple[Prediction, ...]
    """In the order of `STATEMENTS`."""
    default: Solution | None
    """Algorithm 1, all settings at their defaults."""
    amp: Solution | None
    """AMP(prior), where state evolution speaks of A."""
    evolution: StateEvolution | None
    local: LocalRate | None
    local_run: RunRate | None
    """Of a run with exact projection, what `local` is held against."""
    rest: FixedPoint | None
    rest_run: RunRate | None
    """Of the theorem's run, continued, what `rest` is held against."""
    proof: ConvergenceProof | None
    """That the runs which rest converge; only at effort "thorough", for the first images."""
    obtuse: Obtuseness | None
    limits: ErrorSplit | None
    """The error of the default run, measured part by part."""
    budget: ErrorBudget | None
    """The same parts, from state evolution."""
    advice: Advice | None
    """What changes to that run would gain, each tried."""
    baselines: dict[str, Solution]
    """Methods that know nothing of the prior, by name, where they were asked for."""
    without: dict[str, str]
    """Why something was not computed, by name."""
    default_name: str = "NPGD(prior)"
    """How the default run is called."""
    missed: float = 0.0
    """What P misses beyond the nearest points (`npgd.solvers.projecting`), where NPGD therefore
    finishes by itself; else 0."""

    def runs(self, theorem: Solution, rule: str) -> list[tuple[str, Solution]]:
        """The theorem's run, the one that users get, and AMP's, by name."""
        found: list[tuple[str, Solution | None]] = [
            (f"NPGD, η = {rule}", theorem),
            (f"{self.default_name}, its own step", self.default),
            ("AMP(prior)", self.amp),
        ]
        return [(name, run) for name, run in found if run is not None]

    def compared(self, theorem: Solution, rule: str) -> list[tuple[str, Solution]]:
        """These runs, and the baselines', by name."""
        return [*self.runs(theorem, rule), *self.baselines.items()]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the rows as "predictions", "limits" and "advice"."""
        limits = None if self.limits is None else self.limits.to_dict()
        budget = None if self.budget is None else self.budget.to_dict()
        return {
            "predictions": [row.to_dict() for row in self.rows],
            "limits": {"seen": limits, "predicted": budget, "without": dict(self.without)},
            "advice": None if self.advice is None else self.advice.to_dict(),
            "proof": None if self.proof is None else self.proof.to_dict(),
            "state_evolution": None if self.evolution is None else self.evolution.to_dict(),
        }


def run_summary(name: str, run: Solution) -> dict[str, Any]:
    """PSNR, error and iterations of a run, means over the images, and its status."""
    assert run.error is not None and run.psnr is not None
    counts = Counter(run.outcomes)
    found: dict[str, Any] = plain(
        {
            "name": name,
            "psnr": float(run.psnr.double().mean()),
            "error": float(run.error[-1].double().mean()),
            "iterations": float(run.iterations.double().mean()),
            "status": ", ".join(f"{count} {word}" for word, count in counts.items()),
        }
    )
    return found


class _Silent(Exception):
    """Something cannot be said; the message is why, in a phrase."""


def _tried(without: dict[str, str], name: str, function: Callable[[], T]) -> T | None:
    try:
        return function()
    except _Silent as reason:
        without[name] = str(reason)
    except Exception as error:  # somebody else's set or operator fails in its own way
        first = " ".join(str(error).split()) or type(error).__name__
        without[name] = f"failed: {first[:80]}{'…' * (len(first) > 80)}"
    return None


def predictions(
    problem: Problem,
    rec: RecEstimate,
    uniform: ConvergenceCheck,
    pointwise: ConvergenceCheck,
    solution: Solution,
    eta: float,
    *,
    effort: str,
    noise: float,
    linear: bool,
    baselines: bool,
    seed: int,
    progress: bool,
    memory: int | None = None,
) -> Predictions:
    """Hold every statement against the run; split the error of the one that users get; advise.

    What ran already, AMP and the `baselines`, the advice does not run again.
    """
    depth, without = Depth.of(effort), dict[str, str]()
    poor = finishes(problem.prior)
    own = _Own.of(problem)
    default = _tried(without, "default", lambda: _default_run(problem, own, progress))
    local = rest = seen_exact = seen = proof = None
    evolution = budget = amp = turned = None
    if linear:
        found = _tried(without, "exact", lambda: _exact(problem, eta, depth, memory))
        local, seen_exact = found or (None, None)
        ending = _tried(without, "projector", lambda: _rest(problem, solution, eta, depth, memory))
        rest, seen = ending or (None, None)
        if rest is not None and depth.proofs:
            resting = rest
            proof = _tried(without, "proof", lambda: _proof(problem, resting, eta, depth, progress))
        predicted = _tried(
            without,
            "evolution",
            lambda: _evolution(problem, own, noise, depth, default, seed, memory, progress),
        )
        evolution, budget, amp = predicted or (None, None, None)
        turned = _tried(without, "obtuse", lambda: _obtuse(problem, solution, eta))
    else:
        without |= {name: "A is not linear" for name in STATEMENTS}
    limits = _tried(
        without, "limits", lambda: _limits(problem, own, default, depth, seed, progress)
    )
    advice, others = None, dict[str, Solution]()
    if baselines:
        others = _baselines(problem, own, noise, seed, without)
    if linear:
        settings = {"effort": effort, "noise": noise, "seed": seed, "progress": progress}
        settings |= {"memory": memory}
        tried = others if amp is None else {"message passing": amp, **others}
        advice = _tried(without, "advice", lambda: _advice(problem, own, default, tried, settings))
    else:
        without["advice"] = "A is not linear"
    rows = (
        _uniform(rec, uniform, without),
        _pointwise(rec, pointwise, without),
        _exact_row(problem, local, seen_exact, without),
        _rest_row(rest, seen, proof, without),
        _evolution_row("evolution", problem.A, evolution, amp, amp, without),
        _evolution_row("evolution_npgd", problem.A, evolution, amp, default, without),
        _obtuse_row(turned, without),
    )
    return Predictions(
        rows,
        default,
        amp,
        evolution,
        local,
        seen_exact,
        rest,
        seen,
        proof,
        turned,
        limits,
        budget,
        advice,
        others,
        without,
        algorithm_name(poor),
        missed(problem.prior) if poor else 0.0,
    )


# Theorem 1 ----------------------------------------------------------------------------------------


def _row(
    name: str,
    met: str,
    predicted: PerImage | None,
    observed: PerImage | None,
    silent: str = "",
    unseen: str = "",
) -> Prediction:
    """Medians of what is not NaN, and of the ratios; over images with both, where there are any."""
    nothing = torch.full((1,), math.nan, dtype=torch.float64)
    said = nothing if predicted is None else predicted.double().cpu()
    seen = nothing if observed is None else observed.double().cpu()
    ratio = math.nan
    if len(said) == len(seen):
        both = said.isfinite() & seen.isfinite()
        if bool(both.any()):
            said, seen = said[both], seen[both]
        ratio = median(quotient(said, seen))
    return Prediction(name, met, median(said), median(seen), ratio, silent, unseen)


def _failed(name: str, without: dict[str, str]) -> Prediction | None:
    if name not in without:
        return None
    return _row(name, "", None, None, silent=f"nothing: {without[name]}")


def _uniform(rec: RecEstimate, check: ConvergenceCheck, without: dict[str, str]) -> Prediction:
    kappa = float(check.kappa.max())
    certain = rec.exact or math.isinf(kappa)
    sign = "κ = " + exactly(kappa, 2, 3) if certain else "κ ≥ " + at_least(kappa)
    word = "no" if kappa >= 2 else "yes" if rec.exact else "not contradicted"
    return _theorem("uniform", f"{word}: {sign}", check, without)


def _pointwise(rec: RecEstimate, check: ConvergenceCheck, without: dict[str, str]) -> Prediction:
    good, batch = int((check.kappa < 2).sum()), len(check.kappa)
    exact = rec.exact and rec.pointwise is not None and rec.pointwise.exact
    word = "for" if exact else "not contradicted for"
    met = f"{word} {out_of(good, batch)}" if good else f"no, for {out_of(0, batch)}"
    return _theorem("pointwise", met, check, without)


def _theorem(name: str, met: str, check: ConvergenceCheck, without: dict[str, str]) -> Prediction:
    if failed := _failed(name, without):
        return failed
    falls = check.rate < 1
    silent = "" if bool(falls.any()) else "nothing: void"
    # Where it is void for all, what was seen of all stands beside it.
    observed = torch.where(falls, check.observed.rate, math.nan) if not silent else None
    seen = check.observed.rate if silent else observed
    assert seen is not None
    predicted = None if silent else torch.where(falls, check.rate, math.nan)
    unseen = "no rate" if bool(seen.isnan().all()) else ""
    return _row(name, met, predicted, seen, silent, unseen)


# Local rates --------------------------------------------------------------------------------------


def _exact(
    problem: Problem, eta: float, depth: Depth, memory: int | None
) -> tuple[LocalRate, RunRate | None]:
    S = problem.S
    if not sets.generates(S) or problem.latents is None:
        raise _Silent("no latents")
    _small(problem.S, depth, memory)
    count = depth.images
    x, z = problem.x_true[:count], problem.latents[:count].double()
    off = bool((norm(problem.y - problem.A(problem.x_bar)) > 1e-6 * norm(problem.y)).any())
    y = problem.y[:count]
    local = local_rate(problem.A, S, x, eta, y=y if off else None, latents=z)
    if not depth.exact_run:
        return local, None
    good = _rests(local)
    if not bool(good.any()):
        return local, None
    rest = local.latent[good.to(local.latent.device)]
    generator = checks.seeded(0)
    push = PUSH * torch.randn(rest.shape, generator=generator, dtype=torch.float64).to(rest)
    run = nearest_run(problem.A, S, rest + push, y[good.to(y.device)], eta, depth.exact_run)
    seen = run_rate(run)
    wide = torch.full((len(good),), math.nan, dtype=torch.float64)
    return local, replace(seen, rate=wide.masked_scatter(good, seen.rate))


AT_REST = 1e-6
"""What a step moves at rest, at most, in relation to the image."""


def _rests(local: LocalRate) -> Bool[torch.Tensor, " batch"]:
    """Whether a run with the exact P rests there: at a kink of G, say, none may."""
    return (local.rate < 1) & (local.residual <= AT_REST)


def _small(S: object, depth: Depth, memory: int | None) -> None:
    """Silent where a Jacobian is too large to be formed, or to fit."""
    if entries(S) > LARGE:
        raise _Silent(f"a Jacobian has {entries(S):,} numbers, at most {LARGE:,} are formed here")
    if memory is None or not sets.generates(S):
        return
    one = Footprint.of(S.generate, like(torch.zeros(1, S.latent_dim, dtype=torch.float64), S))
    jacobians = 8 * entries(S) * (depth.images + 3)
    need = jacobians + max(
        together(math.prod(S.image_shape)) * ACTIVE * one.largest, S.latent_dim * one.total
    )
    if need > memory:
        raise _Silent(f"it needs up to about {gigabytes(need)}, which `memory` has not left")


def _exact_row(
    problem: Problem, local: LocalRate | None, seen: RunRate | None, without: dict[str, str]
) -> Prediction:
    if local is None:
        return _failed("exact", without) or _row("exact", "", None, None)
    met = "yes" if projects_exactly(problem.S) else "not by this P"
    good, batch = _rests(local), len(local.rate)
    if not bool(good.any()):
        return _row("exact", met, None, None, silent="nothing: no run rests", unseen="not run")
    if int(good.sum()) < batch:
        met += f"; rests for {out_of(int(good.sum()), batch)}"
    unseen = "not run" if seen is None else ""
    if seen is not None and bool(seen.rate.isnan().all()):
        unseen = "no linear end"
    rate = torch.where(good, local.rate, math.nan)
    return _row("exact", met, rate, None if seen is None else seen.rate, unseen=unseen)


def _rest(
    problem: Problem, solution: Solution, eta: float, depth: Depth, memory: int | None
) -> tuple[FixedPoint, RunRate]:
    """The fixed point where the run, continued, ends; and how it ends."""
    if not sets.encodes(problem.S):
        raise _Silent("no encoder, so no latents")
    _small(problem.S, depth, memory)
    assert solution.iterates is not None
    y = problem.y[: depth.images]
    step = latent_npgd(problem.A, problem.S, y, eta)
    z = step.first(solution.iterates[-1][: depth.images])
    points = [z]
    for _ in range(depth.own_run):
        points.append(step(points[-1]))
        moved = norm(points[-1] - points[-2])
        if not bool((moved > 1e-13 * norm(points[-1])).any()):
            break
    run = torch.stack(points)
    rest = found_from(step, points[-1], max(depth.own_run // 3, 20), None, False)
    return rest, run_rate(run if len(run) > 2 else run[-1:].expand(3, *run.shape[1:]))


def _proof(
    problem: Problem, rest: FixedPoint, eta: float, depth: Depth, progress: bool
) -> ConvergenceProof:
    if not isinstance(problem.prior, GenerativePrior):
        raise _Silent("not a network's")
    first = rest[: depth.proofs]
    image = converted(problem.prior).generate(first.point)
    first = replace(first, step_size=eta, image=image)
    y = problem.y[: len(first.point)]
    return prove_convergence(problem.A, problem.prior, y, first, progress=progress)


def _rest_row(
    rest: FixedPoint | None,
    seen: RunRate | None,
    proof: ConvergenceProof | None,
    without: dict[str, str],
) -> Prediction:
    if rest is None or seen is None:
        return _failed("projector", without) or _row("projector", "", None, None)
    good, batch = rest.rests, len(rest.rests)
    met = f"for {out_of(int(good.sum()), batch)}" if bool(good.any()) else "no run rests"
    if not bool(good.any()):
        return _row("projector", met, None, None, silent="nothing", unseen="no linear end")
    if proof is not None and bool(proof.proved.any()):
        met += f", proved for {int(proof.proved.sum())}"
    # A run that moves apart has not come to where the map is linear.
    observed = torch.where(good & (seen.rate < 1), seen.rate, math.nan)
    unseen = "no linear end" if bool(observed.isnan().all()) else ""
    return _row("projector", met, torch.where(good, rest.rate, math.nan), observed, unseen=unseen)


# State evolution ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Own:
    """The problem in the prior's own precision, as users have it."""

    A: LinearOperator
    x: torch.Tensor
    y: torch.Tensor

    @classmethod
    def of(cls, problem: Problem) -> _Own:
        kind = checks.kind(problem.prior) if isinstance(problem.prior, torch.nn.Module) else None
        if kind is None:
            return cls(problem.A, problem.x_true, problem.y)
        dtype, device = kind
        at: Any = {"dtype": dtype, "device": device}
        A = converted(problem.A, dtype, device)
        return cls(A, problem.x_true.to(**at), problem.y.to(**at))


def _default_run(problem: Problem, own: _Own, progress: bool) -> Solution:
    prior: Any = problem.prior
    return recover(own.A, own.y, algorithm(prior), x_true=own.x, progress=progress)


def _random(A: LinearOperator) -> tuple[str, str]:
    """Of a random A the rows that the evolution is told, and how well it is met."""
    if isinstance(A, Gaussian):
        return "independent", "yes"
    if isinstance(A, Inpainting | SuperResolution | Blur | Radon):
        raise _Silent("A is not random")
    unit = torch.zeros(1, dtype=torch.float64)
    if orthonormal_rows(A, column_norm(A, unit), unit):
        return "orthonormal", "if the orthonormal rows are random"
    return "independent", "not known of this A"


def _treats_as_noise(A: LinearOperator, x: Images, column: float) -> None:
    """Say nothing where A shortens these images far more or less than it does white noise.

    Of an A with random entries ‖A x‖²/‖x‖² over the columns' mean squared norm, `column`², is 1 to
    within a standard deviation of √(2/m), whatever x is.
    """
    if isinstance(A, Gaussian):
        return
    kept = float((ratio(A, x) / column**2).double().mean())
    if abs(kept - 1) > 6 * math.sqrt(2 / A.m):
        raise _Silent(
            f"A is not random: it keeps {about(kept, 2)} times as much of these images as of noise"
        )


def _evolution(
    problem: Problem,
    own: _Own,
    noise: float,
    depth: Depth,
    default: Solution | None,
    seed: int,
    memory: int | None,
    progress: bool,
) -> tuple[StateEvolution, ErrorBudget, Solution]:
    prior, A = problem.prior, own.A
    rows, _ = _random(problem.A)
    column = column_norm(A, own.y, seed)
    _treats_as_noise(A, own.x, column)
    scale = column if rows == "independent" else 1.0
    curve = denoising_curve(
        prior, own.x, seed=seed, draws=depth.draws, progress=progress, memory=memory
    )
    evolution = state_evolution(curve, A.m, noise=noise / scale, rows=rows)
    nearest = float((problem.x_true - problem.x_bar).square().mean())
    last = None if default is None or default.error is None else float(default.error[-1].mean())
    observed = last if last is not None and math.isfinite(last) else None
    budget = error_budget(curve, A.m, noise / scale, nearest=nearest, observed=observed)
    amp = recover(A, own.y, AMP(prior, seed=seed), x_true=own.x, progress=progress)
    return evolution, budget, amp


def _evolution_row(
    name: str,
    A: LinearOperator,
    evolution: StateEvolution | None,
    amp: Solution | None,
    run: Solution | None,
    without: dict[str, str],
) -> Prediction:
    if evolution is None:
        reason = without.get("evolution", "")
        return _row(name, "no" if "random" in reason else "", None, None, f"nothing: {reason}")
    predicted, met = evolution.fixed_point, _random(A)[1]
    if run is not amp and amp is not None and amp.error is not None:
        met = f"AMP ends at {about(float(amp.error[-1].double().mean()))}"
    if run is None or run.error is None:
        return Prediction(name, met, predicted, math.nan, math.nan, unseen="no run")
    observed = float(run.error[-1].double().mean())
    ratio = predicted / observed if observed else math.nan
    return Prediction(name, met, predicted, observed, ratio)


# Obtuse projectors --------------------------------------------------------------------------------


def _obtuse(problem: Problem, solution: Solution, eta: float) -> Obtuseness:
    assert solution.iterates is not None
    if len(solution.iterates) < problem.first + 2:
        raise _Silent("too short a run")
    return obtuseness(
        problem.A, problem.y, problem.x_bar, solution.iterates, eta, start=problem.first
    )


def _obtuse_row(found: Obtuseness | None, without: dict[str, str]) -> Prediction:
    if found is None:
        return _failed("obtuse", without) or _row("obtuse", "", None, None)
    explained, batch = found.explained.cpu(), len(found.explained)
    met = f"for {out_of(int(explained.sum()), batch)}" if bool(explained.any()) else "for no image"
    first, last = found.error[found.start].cpu(), found.error[-1].cpu()
    steps = len(found.error) - 1 - found.start
    seen = quotient(last, first) ** (1 / steps)
    if not bool(explained.any()):
        return _row("obtuse", met, None, seen, silent="nothing: void")
    predicted = torch.full((batch,), math.nan, dtype=torch.float64)
    columns = (found.alpha, found.beta, found.run_theta, found.run_delta)
    for i in explained.nonzero().flatten().tolist():
        constants = [float(column[i]) for column in columns]
        bound = obtuse_bound(*constants, step_size=found.step_size)
        predicted[i] = bound.errors(float(first[i]), steps)[-1] / float(first[i])
    return _row("obtuse", met, predicted ** (1 / steps), torch.where(explained, seen, math.nan))


# What limits --------------------------------------------------------------------------------------


def _limits(
    problem: Problem,
    own: _Own,
    default: Solution | None,
    depth: Depth,
    seed: int,
    progress: bool,
) -> ErrorSplit:
    if default is None:
        raise _Silent("no run")
    prior: Any = problem.prior
    return split_error(
        own.A, prior, own.x, own.y, algorithm(prior), default,
        nearest=problem.x_bar, longer=depth.longer, seed=seed, progress=progress,
    )  # fmt: skip


def _baselines(
    problem: Problem, own: _Own, noise: float, seed: int, without: dict[str, str]
) -> dict[str, Solution]:
    """The recoveries by methods that know nothing of the prior, those that can be made."""
    prior: Any = problem.prior

    def recovered(method: str) -> Solution:
        return recover(own.A, own.y, solver_of(method, prior, seed, noise), x_true=own.x)

    runs = {
        name: _tried(without, name, partial(recovered, method))
        for method, name in BASELINES.items()
    }
    return {name: run for name, run in runs.items() if run is not None}


def _advice(
    problem: Problem,
    own: _Own,
    default: Solution | None,
    tried: dict[str, Solution],
    settings: dict[str, Any],
) -> Advice:
    if default is None:
        raise _Silent("no run")
    return advise(own.A, problem.prior, own.x, own.y, default, tried=tried, **settings)
