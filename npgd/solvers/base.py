"""The solver loop, written once.

A solver is a frozen dataclass of hyper-parameters that says how it starts (`init`) and how it
steps (`step`); what it carries from one iteration to the next is a state, a frozen dataclass of
its own that holds at least the current images x. `recover` does the rest: it iterates, keeps
the history, decides when to stop and says in words how it went.
"""

import abc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float

from npgd import checks
from npgd.files import plain
from npgd.images import Images, Measurements, PerImage, norm, squared_norm
from npgd.operators import LinearOperator
from npgd.precision import like, plainly
from npgd.progress import track

# An image has diverged when its objective is not finite, or exceeds this many times the largest of
# ‖A x_0 − y‖², ‖A x_1 − y‖² and ‖y‖². x_1 counts because x_0 = Aᵀ y may fit y far better than any
# point of the set does.
GROWTH = 100.0


class State(Protocol):
    """What a solver carries along; `x` is the current estimate."""

    @property
    def x(self) -> Images: ...


S = TypeVar("S", bound=State)


@dataclass(frozen=True, kw_only=True, eq=False)
class Solver(abc.ABC, Generic[S]):
    """An iterative recovery algorithm, as its hyper-parameters."""

    max_iter: int = 30
    """Most iterations."""
    tol: float = 1e-5
    """An image is at rest when ‖x_{n+1} − x_n‖ ≤ tol ‖x_n‖; 0 waits for equality. The loop stops
    when every image is. A solver may say otherwise, see `at_rest`."""

    def __post_init__(self) -> None:
        checks.settle(
            self,
            max_iter=checks.integer(self.max_iter, "max_iter"),
            tol=checks.number(self.tol, "tol", zero=True),
        )

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
class Solution:
    """What `recover` returns. Errors and objectives are per image, on pixels in [−1, 1]."""

    x: Images
    """The recovered images."""
    objective: Float[torch.Tensor, "iterates batch"]
    """‖A x_n − y‖² (no ½), x_0 first."""
    error: Float[torch.Tensor, "iterates batch"] | None
    """Mean squared error per pixel, x_0 first; None without `x_true`."""
    iterates: Float[torch.Tensor, "iterates batch channels height width"] | None
    """x_0 first; None unless asked for."""
    status: str
    """How it ended, in words."""
    outcomes: tuple[str, ...]
    """Of each image: "converged", "max_iter reached" or "diverged"."""
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
        """Iterations done."""
        return self.objective.shape[0] - 1

    @property
    def psnr(self) -> Float[torch.Tensor, " batch"] | None:
        """10 log₁₀(2²/error) in dB, 2 being peak to peak on [−1, 1]; None without `x_true`."""
        return None if self.error is None else 10 * torch.log10(4 / self.error[-1])

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
            "seconds": self.seconds,
            "elapsed": plain(self.elapsed),
            "info": {key: plain(value) for key, value in self.info.items()},
            "objective": plain(self.objective),
            "error": plain(self.error),
            "psnr": plain(self.psnr),
        }

    def __str__(self) -> str:
        batch, n = self.x.shape[0], self.n_iter
        lines = [
            f"{self.method}: {self.status}",
            f"  {batch} image{'s' * (batch != 1)}, {n} iteration{'s' * (n != 1)},"
            f" {self.seconds:.3g} s",
            f"  objective ‖Ax − y‖²: mean {self.objective[0].mean():.4g} at the start,"
            f" {self.objective[-1].mean():.4g} at the end",
        ]
        if self.error is not None and self.psnr is not None:
            lines.append(
                f"  error per pixel: mean {self.error[-1].mean():.4g};"
                f" PSNR mean {self.psnr.mean():.2f} dB"
            )
        lines += [f"  {key}: {value}" for key, value in self.info.items()]
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

    Iterates until `solver.max_iter`, or until every image is at rest (as the solver defines it,
    by default ‖x_{n+1} − x_n‖ ≤ tol ‖x_n‖) or has diverged (objective not finite, or more than
    100 times the largest of ‖A x_0 − y‖², ‖A x_1 − y‖² and ‖y‖²). The images of a batch never
    meet, but stop together.

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
    state = solver.init(A, y)
    elapsed = [_now(y) - began]
    objective = [squared_norm(solver.residual(A, y, state))]
    energy = squared_norm(y)
    error = [] if x_true is None else [squared_norm(state.x - x_true) / A.n]
    iterates = [state.x] if record_iterates else []
    for _ in track(range(solver.max_iter), solver.max_iter, "recover", progress):
        before, stepped = state, _now(y)
        state = solver.step(A, y, before)
        elapsed.append(elapsed[-1] + _now(y) - stepped)
        objective.append(squared_norm(solver.residual(A, y, state)))
        if x_true is not None:
            error.append(squared_norm(state.x - x_true) / A.n)
        if record_iterates:
            iterates.append(state.x)
        limit = GROWTH * torch.stack([energy, *objective[:2]]).amax(0)
        diverged = ~((objective[-1] <= limit) & objective[-1].isfinite())
        moving = ~solver.at_rest(before, state) & ~diverged
        if not bool(moving.any()):
            break
    seconds = _now(y) - began

    outcomes = tuple(
        "diverged" if bad else "max_iter reached" if going else "converged"
        for bad, going in zip(diverged.tolist(), moving.tolist(), strict=True)
    )
    history = torch.stack(objective)
    return Solution(
        x=state.x,
        objective=history,
        error=torch.stack(error) if error else None,
        iterates=torch.stack(iterates) if iterates else None,
        status=_status(solver, before, state, outcomes, history),
        outcomes=outcomes,
        seconds=seconds,
        elapsed=torch.tensor(elapsed, dtype=torch.float64),
        method=type(solver).__name__,
        info=solver.info(state),
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
    checks.finite(checks.measurements(y, A.m, least=1), "y")
    if x_true is not None:
        checks.finite(checks.images(x_true, A.image_shape, "x_true"), "x_true")
        checks.same_tensor(x_true, y, "x_true", "y")
        if x_true.shape[0] != y.shape[0]:
            raise ValueError(
                f"x_true must hold {y.shape[0]} images as y does, got {x_true.shape[0]}"
            )


def _status(
    solver: Solver[Any],
    before: State,
    state: State,
    outcomes: tuple[str, ...],
    objective: torch.Tensor,
) -> str:
    batch, n_iter = len(outcomes), len(objective) - 1
    after = f"after {n_iter} iteration{'s' * (n_iter != 1)}"
    diverged = outcomes.count("diverged")
    if diverged:
        return (
            f"diverged: {after} the objective of {diverged} of {batch} images is not finite or"
            f" above {GROWTH:g} times its start and ‖y‖²; {solver.advice(state)}"
        )
    moving = torch.tensor([outcome == "max_iter reached" for outcome in outcomes])
    if not bool(moving.any()):
        return f"converged {after}: every image has come to rest ({solver.rest()})"
    change = (norm(state.x - before.x) / norm(before.x)).cpu()[moving].max()
    status = (
        f"max_iter reached: {after} {int(moving.sum())} of {batch} images have not come to rest"
        f" ({solver.rest()}); the last step changed them by up to {float(change):.2g}"
    )
    # From x_1 on: x_0 = Aᵀ y is no point of the set, and fits y exactly where A Aᵀ = I.
    least = objective[1:].min(dim=0).values
    rising = int((moving & (objective[-1] > 2 * least).cpu()).sum())
    if rising:
        status += f"; the objective of {rising} is above twice its least: {solver.advice(state)}"
    return status


def _now(tensor: torch.Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()
