"""The solver loop, written once.

A solver is a frozen dataclass of hyper-parameters that says how it starts (`init`) and how it
steps (`step`); what it carries from one iteration to the next is a state, a frozen dataclass of
its own that holds at least the current images x. `recover` does the rest: it iterates, keeps
the history, decides for every image when it is done, lets it leave the batch, and says in words how
it went.
"""

import abc
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from npgd import checks
from npgd.files import plain
from npgd.images import (
    Images,
    Measurements,
    PerImage,
    norm,
    psnr,
    quotient,
    squared_norm,
    warn_of_range,
)
from npgd.operators import LinearOperator
from npgd.precision import like, plainly
from npgd.progress import track
from npgd.showing import Drawn, Shown, brief, iterations, plain_log
from npgd.solvers.rows import merged, separable, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# An image has diverged when its objective is not finite, or exceeds this many times the largest of
# ‖A x_0 − y‖², ‖A x_1 − y‖² and ‖y‖². x_1 counts because x_0 = Aᵀ y may fit y far better than any
# point of the set does.
GROWTH = 100.0

CONVERGED, SETTLED, UNDECIDED, DIVERGED = "converged", "settled", "max_iter reached", "diverged"
OUTCOMES = (UNDECIDED, CONVERGED, SETTLED, DIVERGED)


class State(Protocol):
    """What a solver carries along; `x` is the current estimate."""

    @property
    def x(self) -> Images: ...


S = TypeVar("S", bound=State)


@dataclass(frozen=True, kw_only=True, eq=False)
class Solver(Shown, abc.ABC, Generic[S]):
    """An iterative recovery algorithm, as its hyper-parameters."""

    max_iter: int = 30
    """Most iterations."""
    tol: float = 1e-5
    """An image is at rest when ‖x_{n+1} − x_n‖ ≤ tol ‖x_n‖; 0 waits for equality. A solver may say
    otherwise, see `at_rest`."""
    patience: int | str | None = None
    """An image has settled once this many iterations in a row have not brought its objective
    ‖A x − y‖² down by 5 %; None: never."""
    fall: ClassVar[float] = 0.05

    def __post_init__(self) -> None:
        checks.settle(
            self,
            max_iter=checks.integer(self.max_iter, "max_iter"),
            tol=checks.number(self.tol, "tol", zero=True),
            patience=self._checked_patience(),
        )

    def _checked_patience(self) -> int | str | None:
        words = [field.default for field in fields(self) if field.name == "patience"]
        if self.patience is None or (isinstance(self.patience, str) and self.patience in words):
            return self.patience
        return checks.integer(self.patience, "patience")

    @property
    def waits(self) -> int | None:
        """The patience in use."""
        return None if isinstance(self.patience, str) else self.patience

    @abc.abstractmethod
    def init(self, A: LinearOperator, y: Measurements) -> S:
        """The state that holds x_0."""

    @abc.abstractmethod
    def step(self, A: LinearOperator, y: Measurements, state: S) -> S:
        """The state after one more iteration. The loop runs without gradients."""

    def residual(self, A: LinearOperator, y: Measurements, state: S) -> Measurements:
        """A x − y. A solver whose state knows it returns that, and saves a product."""
        residual: Measurements = A(state.x) - y
        return residual

    def estimate(self, state: S, residual: Measurements) -> tuple[Images, Measurements]:
        """What the run would return if it ended here, and its A x − y: x, unless a solver knows
        better.

        `residual` is that of the state's x.
        """
        return state.x, residual

    def step_size_used(self, state: S) -> PerImage | None:
        """The step that led to the state's x, image by image, where there is one to tell."""
        return None

    def go_on(
        self,
        A: LinearOperator,
        y: Measurements,
        state: S,
        resting: Bool[torch.Tensor, " batch"],
        settled: Bool[torch.Tensor, " batch"],
    ) -> tuple[S, Bool[torch.Tensor, " batch"]]:
        """The state to go on from, and which images are done for good.

        Here a solver of several stages sends images that are done with one (at rest or settled) to
        the next. An image that it declares done by itself counts as settled.
        """
        return state, resting | settled

    def at_rest(self, before: S, after: S) -> Bool[torch.Tensor, " batch"]:
        """Which images need no further iteration."""
        moved: PerImage = norm(after.x - before.x)
        return moved <= self.tol * norm(before.x)

    def rest(self) -> str:
        """What `at_rest` asks of an image, in words."""
        return f"a relative change of at most tol = {self.tol:g}"

    def info(self, state: S) -> dict[str, Any]:
        """What the solver chose by itself, as plain numbers, for `Solution.info`."""
        return {}

    def advice(self, state: S) -> str:
        """What to try when the iteration diverges."""
        return "try other hyper-parameters"


@dataclass(frozen=True, eq=False)
class Solution(Drawn):
    """What `recover` returns. Errors and objectives are per image, on pixels in [−1, 1]."""

    x: Images
    """The recovered images."""
    objective: Float[torch.Tensor, "iterates batch"]
    """‖A x − y‖² (no ½) of what the run would have returned after 0, 1, … iterations: of x_n, or,
    where a solver keeps the best of its iterates (`NPGD.keep`), of that one among x_1 … x_n. The
    last row is of `x`. Rows after an image was done repeat its last."""
    relative_misfit: Float[torch.Tensor, " batch"]
    """‖A x − y‖/‖y‖ of `x`: 0 meets the measurements, 1 is no better than A x = 0; NaN where
    y = 0."""
    error: Float[torch.Tensor, "iterates batch"] | None
    """Mean squared error per pixel of the same images; None without `x_true`."""
    iterates: Float[torch.Tensor, "iterates batch channels height width"] | None
    """The iterates x_n themselves, x_0 first; None unless asked for. Rows after an image was done
    repeat its last."""
    status: str
    """How it ended, in words."""
    outcomes: tuple[str, ...]
    """Of each image: "converged" (it came to rest), "settled" (its objective fell no further),
    "max_iter reached" or "diverged"."""
    iterations: Int[torch.Tensor, " batch"]
    """Iterations of each image until it was done."""
    step_sizes: Float[torch.Tensor, "n_iter batch"] | None
    """Row n: the step η that took x_n to x_{n+1}, image by image; NaN where another kind of step
    did, or the image was done before. None of a solver without steps to tell."""
    seconds: float
    """Wall time, the solver's own preparations included."""
    elapsed: Float[torch.Tensor, " iterates"]
    """Seconds the solver itself had worked, on all images together, when each iterate stood: its
    `init` and its steps, without the bookkeeping of errors and objectives."""
    method: str
    """Name of the solver."""
    info: Mapping[str, Any]
    """What the solver chose by itself, for instance {"step_size": 1.26}."""

    @property
    def n_iter(self) -> int:
        """Iterations until every image was done."""
        return self.objective.shape[0] - 1

    @property
    def psnr(self) -> Float[torch.Tensor, " batch"] | None:
        """`npgd.images.psnr` of every image, 10 log₁₀(2²/error) in dB; None without `x_true`."""
        return None if self.error is None else psnr(self.error[-1])

    def time_to(self, error: float) -> float | None:
        """Seconds until the mean error over the images is first at most `error`; None if never.

        Raises:
            ValueError: `recover` was given no x_true, so that errors are not known.
        """
        if self.error is None:
            raise ValueError("time_to needs errors: give x_true to recover")
        reached = (self.error.mean(1) <= checks.number(error, "error", zero=True)).nonzero()
        return float(self.elapsed[int(reached[0])]) if len(reached) else None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as plain numbers, lists and strings for JSON.

        A number that is not finite becomes None.
        """
        return {
            "method": self.method,
            "status": self.status,
            "outcomes": list(self.outcomes),
            "n_iter": self.n_iter,
            "iterations": plain(self.iterations),
            "seconds": self.seconds,
            "elapsed": plain(self.elapsed),
            "info": {key: plain(value) for key, value in self.info.items()},
            "step_sizes": plain(self.step_sizes),
            "objective": plain(self.objective),
            "relative_misfit": plain(self.relative_misfit),
            "error": plain(self.error),
            "psnr": plain(self.psnr),
        }

    def draw(self, axis: "Axes") -> None:
        """The error against the iteration, or ‖Ax − y‖² where no true image is known."""
        values = self.objective if self.error is None else self.error
        axis.plot(range(len(values)), values.cpu(), color="C0", alpha=0.3, linewidth=0.8)
        axis.plot(range(len(values)), values.mean(1).cpu(), color="C0", label="mean")
        name = "‖Ax − y‖²" if self.error is None else "error per pixel"
        plain_log(axis.yaxis)
        iterations(axis)
        axis.set(ylabel=name, title=self.method)
        axis.legend()

    def pictures(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"recovered": self.x}
        if self.error is not None and self.psnr is not None:
            columns |= {"error per pixel": self.error[-1], "PSNR (dB)": self.psnr}
        columns |= {"‖Ax − y‖²": self.objective[-1], "‖Ax − y‖/‖y‖": self.relative_misfit}
        return {**columns, "outcome": self.outcomes}

    def __str__(self) -> str:
        batch, n = self.x.shape[0], self.n_iter
        lines = [
            f"{self.method}: {self.status}",
            f"  {batch} image{'s' * (batch != 1)}, {n} iteration{'s' * (n != 1)},"
            f" {self.seconds:.3g} s",
            f"  objective ‖Ax − y‖²: mean {self.objective[0].mean():.4g} at the start,"
            f" {self.objective[-1].mean():.4g} at the end",
        ]
        if not bool(self.relative_misfit.isnan().all()):
            lines.append(f"  misfit ‖Ax − y‖/‖y‖: mean {self.relative_misfit.nanmean():.3g}")
        if self.error is not None and self.psnr is not None:
            lines.append(
                f"  error per pixel: mean {self.error[-1].mean():.4g};"
                f" PSNR mean {self.psnr.mean():.2f} dB"
            )
        lines += [f"  {key}: {brief(value)}" for key, value in self.info.items()]
        return "\n".join(lines)


@plainly
@torch.no_grad()
def recover(
    A: LinearOperator,
    y: Measurements,
    solver: Solver[Any],
    x_true: Images | None = None,
    record_iterates: bool = False,
    progress: bool = False,
) -> Solution:
    """Estimate x from y = A x + noise.

    Iterates until `solver.max_iter`, or until every image is done: it is at rest (as the solver
    defines it, by default ‖x_{n+1} − x_n‖ ≤ tol ‖x_n‖), has settled (`solver.patience` iterations
    have not brought its objective down by 5 %), or has diverged (objective not finite, or more than
    100 times the largest of ‖A x_0 − y‖², ‖A x_1 − y‖² and ‖y‖²). An image that is done leaves the
    batch; the images of a batch never meet, so that each one's result is that of a run alone.

    Args:
        A: the operator; wrap one of another library with `as_operator`.
        y: measurements, (batch, m), finite; or as people have them: a numpy array, complex, or in
            the shape that an operator from outside gives them (`LinearOperator.measurements`).
        solver: for instance NPGD(prior).
        x_true: the images behind y, to record the error; numpy serves.
        record_iterates: keep every x_n, x_0 first.
        progress: show a progress bar.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    y, x_true = _taken(A, y, solver, x_true)
    _check(A, y, solver, x_true)
    record_iterates = checks.flag(record_iterates, "record_iterates")
    progress = checks.flag(progress, "progress")
    began = _now(y)
    run = _Run(A, y, solver, x_true, record_iterates)
    for _ in track(range(solver.max_iter), solver.max_iter, "recover", progress):
        run.step()
        if not len(run.going):
            break
    solution = run.solution(_now(y) - began)
    if x_true is not None:
        warn_of_range(x_true, solution.x)
    return solution


class _Run:
    """A run as it goes: the state of the images that are not done, and the history of all."""

    def __init__(
        self,
        A: LinearOperator,
        y: Measurements,
        solver: Solver[Any],
        x_true: Images | None,
        record_iterates: bool,
    ) -> None:
        self.A, self.y, self.solver, self.x_true = A, y, solver, x_true
        began, batch = _now(y), len(y)
        self.state = solver.init(A, y)
        self.elapsed = [_now(y) - began]
        residual = solver.residual(A, y, self.state)
        self.x, kept = solver.estimate(self.state, residual)
        self.objective = [squared_norm(kept)]
        self.error = [] if x_true is None else [squared_norm(self.x - x_true) / A.n]
        self.iterates = [self.state.x] if record_iterates else []
        self.step_sizes: list[torch.Tensor] = []
        # Which images are not done; where they stand in the state; the state of all once some left.
        self.going = self.rows = torch.arange(batch, device=y.device)
        self.leaves, self.whole = separable(self.state, batch), self.state
        # What divergence is told by, and what patience counts from.
        self.scale = torch.maximum(squared_norm(y), squared_norm(residual))
        self.length = norm(y)
        self.mark = torch.full_like(self.scale, torch.inf)
        self.waited = torch.zeros_like(self.going)
        self.outcome, self.iterations = torch.zeros_like(self.going), torch.zeros_like(self.going)
        self.change = torch.zeros_like(self.scale)

    def step(self) -> None:
        """One more iteration of the images that are not done."""
        solver, going, rows, before = self.solver, self.going, self.rows, self.state
        clock = _now(self.y)
        state = solver.step(self.A, self.y, before)
        self.elapsed.append(self.elapsed[-1] + _now(self.y) - clock)
        residual = solver.residual(self.A, self.y, state)
        f = self._mine(squared_norm(residual))
        x, kept = solver.estimate(state, residual)
        objective = f if kept is residual else self._mine(squared_norm(kept))
        if len(self.objective) == 1:
            self.scale = torch.maximum(self.scale, f)
        self.change = self._mine(norm(state.x - before.x) / norm(before.x))
        self._record(state, x, objective)

        diverged = ~((f <= GROWTH * self.scale[going]) & f.isfinite())
        resting = self._mine(solver.at_rest(before, state)) & ~diverged
        settled = self._settled(objective) & ~diverged
        none = torch.zeros(len(state.x), dtype=torch.bool, device=f.device)
        flags = (none.index_copy(0, rows, flag) for flag in (resting, settled))
        self.state, done = solver.go_on(self.A, self.y, state, *flags)
        early = len(self.objective) <= solver.max_iter
        done = self._mine(done) & ~diverged & (resting | settled | early)
        self.waited[going[(resting | settled) & ~done]] = 0  # another stage may settle anew
        self.outcome[going] = (
            diverged * OUTCOMES.index(DIVERGED)
            + (done & resting) * OUTCOMES.index(CONVERGED)
            + (done & ~resting) * OUTCOMES.index(SETTLED)
        )
        self.iterations[going] = len(self.objective) - 1
        self._leave(done | diverged)

    def _mine(self, values: torch.Tensor) -> torch.Tensor:
        """Of what the state holds, the rows of images that are not done."""
        return values if len(self.rows) == len(values) else values[self.rows]

    def _all(self, last: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """`values` of the images that are not done, and `last` of those that are."""
        return values if len(values) == len(last) else last.index_copy(0, self.going, values)

    def _record(self, state: State, x: Images, objective: PerImage) -> None:
        mine = self._mine(x)
        self.x = self._all(self.x, mine)
        self.objective.append(self._all(self.objective[-1], objective))
        if self.x_true is not None:
            error = squared_norm(mine - self.x_true[self.going]) / self.A.n
            self.error.append(self._all(self.error[-1], error))
        if self.iterates:
            self.iterates.append(self._all(self.iterates[-1], self._mine(state.x)))
        step_size = self.solver.step_size_used(state)
        if step_size is not None:
            none = torch.full_like(self.scale, torch.nan)
            self.step_sizes.append(self._all(none, self._mine(step_size)))

    def _settled(self, objective: PerImage) -> torch.Tensor:
        """Which have not fallen for long; counted from x_1, as x_0 = Aᵀ y may fit y exactly."""
        going, patience = self.going, self.solver.waits
        if patience is None:
            return torch.zeros_like(objective, dtype=torch.bool)
        fell = ~(objective >= (1 - self.solver.fall) * self.mark[going])
        self.mark[going] = torch.where(fell, objective, self.mark[going])
        self.waited[going] = torch.where(fell, 0, self.waited[going] + 1)
        return self.waited[going] >= patience

    def _leave(self, done: torch.Tensor) -> None:
        """Go on without the images that are done."""
        if not bool(done.any()):
            return
        self.whole = self._whole()
        keep = (~done).nonzero()[:, 0]
        self.going, self.change = self.going[keep], self.change[keep]
        if not self.leaves:
            self.rows = self.going
        elif len(keep):
            self.state, self.y = taken(self.state, keep), self.y[keep]
            self.rows = torch.arange(len(keep), device=keep.device)

    def _whole(self) -> Any:
        """The state of all images, each as it was when it was done."""
        if not self.leaves or len(self.state.x) == len(self.outcome):
            return self.state
        return merged(self.whole, self.state, self.going)

    def solution(self, seconds: float) -> Solution:
        outcomes = tuple(OUTCOMES[code] for code in self.outcome.tolist())
        whole, objective = (
            self._whole() if len(self.going) else self.whole,
            torch.stack(self.objective),
        )
        return Solution(
            x=self.x,
            objective=objective,
            relative_misfit=quotient(objective[-1].sqrt(), self.length),
            error=torch.stack(self.error) if self.error else None,
            iterates=torch.stack(self.iterates) if self.iterates else None,
            step_sizes=torch.stack(self.step_sizes) if self.step_sizes else None,
            status=_status(self.solver, whole, outcomes, objective, self.change, self.scale),
            outcomes=outcomes,
            iterations=self.iterations,
            seconds=seconds,
            elapsed=torch.tensor(self.elapsed, dtype=torch.float64),
            method=type(self.solver).__name__,
            info=self.solver.info(whole),
        )


def _taken(A: LinearOperator, y: Any, solver: Solver[Any], x_true: Any) -> tuple[Any, Any]:
    """y as (batch, m), and arrays as tensors: in the precision of A, else of the solver's prior."""
    if not isinstance(A, LinearOperator):
        return y, x_true
    foreign, y = isinstance(y, np.ndarray), A.measurements(y)
    if foreign and checks.kind(A) is None:
        y = like(y, getattr(solver, "prior", None))
    if isinstance(x_true, np.ndarray):
        x_true = checks.from_numpy(x_true, "x_true", y.dtype).to(y.device)
    return y, x_true


def _check(A: LinearOperator, y: Measurements, solver: Solver[Any], x_true: Images | None) -> None:
    """Raise TypeError or ValueError, by name, unless these fit together."""
    if not isinstance(A, LinearOperator):
        raise TypeError(
            f"A must be a LinearOperator, got {type(A).__name__}; wrap it with"
            " npgd.as_operator(A, image_shape)"
        )
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as NPGD(prior), got {checks.shown(solver)}")
    checks.squares(checks.finite(checks.measurements(y, A.m, least=1), "y"), "y")
    if x_true is not None:
        checks.finite(checks.images(x_true, A.image_shape, "x_true"), "x_true")
        checks.same_tensor(x_true, y, "x_true", "y")
        if x_true.shape[0] != y.shape[0]:
            raise ValueError(
                f"x_true must hold {y.shape[0]} images as y does, got {x_true.shape[0]}"
            )


def _status(
    solver: Solver[Any],
    state: State,
    outcomes: tuple[str, ...],
    objective: torch.Tensor,
    change: PerImage,
    scale: PerImage,
) -> str:
    """How a run ended; `change` is the last relative one of the images that are not done.

    `scale` is ‖y‖² of every image, or the first objectives where they are larger.
    """
    batch, n_iter = len(outcomes), len(objective) - 1
    after = f"after {n_iter} iteration{'s' * (n_iter != 1)}"
    count = {outcome: outcomes.count(outcome) for outcome in OUTCOMES}
    if count[DIVERGED]:
        return (
            f"diverged: {after} the objective of {count[DIVERGED]} of {batch} images is not finite"
            f" or above {GROWTH:g} times its start and ‖y‖²; {solver.advice(state)}"
        )
    settled = f"no fall of ‖Ax − y‖² by {solver.fall:.0%} in {solver.waits} iterations"
    if not count[UNDECIDED]:
        if not count[SETTLED]:
            return f"converged {after}: every image has come to rest ({solver.rest()})"
        which = (
            "every image has settled"
            if count[SETTLED] == batch
            else f"{count[SETTLED]} of {batch} images have settled"
        )
        verb = "has" if count[CONVERGED] == 1 else "have"
        rest = f"; {count[CONVERGED]} {verb} come to rest ({solver.rest()})"
        return f"settled {after}: {which} ({settled}){rest * (count[CONVERGED] > 0)}"
    if solver.tol == 0 and solver.waits is None and count[UNDECIDED] == batch:
        status = f"max_iter reached: {after}, all that were asked for (tol = 0)"
    else:
        rule = "" if solver.waits is None else f" or settled ({settled})"
        some = f"{count[UNDECIDED]} of {batch} images have not"
        who = "no image has" if count[UNDECIDED] == batch else some
        status = f"max_iter reached: {after} {who} come to rest ({solver.rest()}){rule}"
    status += f"; the last step changed the images by up to {float(change.max()):.2g}"
    # From x_1 on: x_0 = Aᵀ y is no point of the set, and fits y exactly where A Aᵀ = I.
    moving = torch.tensor([outcome == UNDECIDED for outcome in outcomes])
    # What fits y to 1 % is not told to fit it better: it was asked for something else besides.
    least = torch.maximum(2 * objective[1:].min(dim=0).values, 1e-4 * scale)
    rising = int((moving & (objective[-1] > least).cpu()).sum())
    if rising:
        status += f"; the objective of {rising} is above twice its least: {solver.advice(state)}"
    return status


def _now(tensor: torch.Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()
