"""Network-based projected gradient descent (Raj, Li and Bresler, ICCV 2019, Algorithm 1).

    w_n = x_n − η_n Aᵀ(A x_n − y),    x_{n+1} = P(w_n)

P projects onto the set of plausible images, for instance P = G∘G† with a generator G and a
network G† trained to invert it.

Beyond the paper,

- the step is the run's own by default, see `npgd.solvers.step_size`; the run then ends where its
  objective falls no further, and returns the iterate that fits y best;
- `finish` and `refine` end a run with steps on the latent behind its iterate,
  min_z ‖A G(z) − y‖² + λ‖z‖²: the projector's error then no longer limits the result. The steps of
  `finish` are quasi-Newton (`npgd.quasi_newton`), a pass of G forward and back each; those of
  `refine` Gauss–Newton (`npgd.gauss_newton`), a Jacobian each. Behind an encoder that projects
  poorly, a variational autoencoder's, say, a run finishes by default, see
  `npgd.solvers.projecting`.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int

from npgd import checks
from npgd.gauss_newton import gauss_newton_step
from npgd.images import Images, Latents, Measurements, PerImage, squared_norm
from npgd.operators import LinearOperator
from npgd.projectors import LatentRefinement
from npgd.quasi_newton import Descent
from npgd.sets import (
    ENCODED,
    SAMPLED,
    ImageSet,
    Projector,
    encodes,
    generates,
    needs,
    projector,
)
from npgd.solvers.base import Solver
from npgd.solvers.projecting import SAME, finishes, is_composed
from npgd.solvers.rows import merged, taken
from npgd.solvers.step_size import common_gain, drawn, mean_gain, next_step_size

# The stages of a run.
PROJECTING, FINISHING, REFINING, OVER = range(4)
PATIENCE = 5  # of a run with its own step
FINISH = 20  # steps behind an encoder that projects poorly
PENALTY = 0.004  # λ/g in units of n/m; chosen on 100 training digits, m = 30 to 500


@dataclass(frozen=True, eq=False)
class NPGDState:
    """The iterate, its residual, the best one so far, the step to take, and the stage of each."""

    x: Images
    residual: Measurements
    """A x − y."""
    best: Images
    """What the run would return."""
    best_residual: Measurements
    step_size: PerImage
    """η of the next step."""
    used: PerImage
    """η of the last, NaN for a step on the latent and at x_0."""
    gain: PerImage
    """g, see `npgd.solvers.step_size`; 0 where the step is fixed."""
    stage: Int[torch.Tensor, " batch"]
    left: Int[torch.Tensor, " batch"]
    """Steps left of the stage."""
    z: Latents
    """The latent of `best`; empty where no stage needs it."""
    near: Latents
    """The latent of `x`, where the projection starts from it; else empty."""
    descent: Descent | None = None
    n: int = 0
    penalty: float = 0.0
    """λ."""
    finish: int = 0
    """Quasi-Newton steps that are kept for the end."""


@dataclass(frozen=True, eq=False)
class NPGD(Solver[NPGDState]):
    """Algorithm 1. One iteration costs one A, one Aᵀ and one projection.

    The last steps taken are in `Solution.info["step_size"]`, all of them in `Solution.step_sizes`.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    prior: ImageSet | Projector
    """Anything with `project(w)`, or a callable w → P(w), on batches of images."""
    step_size: float | str | None = None
    """η. None is the run's own, image by image and iteration by iteration, see
    `npgd.solvers.step_size`. Else it is the same throughout: a positive number; "1/beta", that is
    1/‖A‖², valid on every set (the analysis package gives sharper ones); or "auto", which tries
    several on samples of the prior, see `choose_step_size`."""
    _: KW_ONLY
    start: str | Images | None = None
    """x_0. "adjoint", Aᵀ y (the paper's); "range", P(Aᵀ y), inside the set as Theorem 1 wants it;
    "mean", the mean of 32 samples of the prior; or images of your own. None: the mean with the
    run's own step, where the prior can sample, else the adjoint."""
    keep: str | None = None
    """What is returned: the "last" iterate, as in the paper, or the "best", of x_1, x_2, … the one
    with the least ‖A x − y‖². None: the best with the run's own step, the last with a fixed one."""
    patience: int | str | None = "auto"
    """As of every solver; "auto" is 5 with the run's own step, and never with a fixed one."""
    seed: int = 0
    """Of the samples behind "auto"."""
    finish: int | None = None
    """How many of the `max_iter` iterations are kept for quasi-Newton steps on the latent, at the
    price of a pass of G forward and back each. They begin where an image is at rest or has settled,
    and at the latest when just so many iterations are left, and go on from what the run would have
    returned. None of them raises ‖A G(z) − y‖² + λ‖z‖². The prior needs `encode` and `generate`.

    On digits, finish=40 with max_iter=50 lowers the error by 6 % at m = 30 and by 22 % from m = 100
    on, at up to twice the processor time. A run without it is Algorithm 1, of which the theory
    speaks. None: 0, unless the step is the run's own, `refine` 0, a gradient passes through G, and
    P projects poorly: where it leaves a twentieth more of strong noise than the nearest points
    would (`npgd.solvers.projecting`), 20 of the iterations, or two thirds of a shorter run.
    `Solution.info` has "finish" where it is not 0."""
    refine: int = 0
    """How many of the `max_iter` iterations, the last ones, are Gauss–Newton steps on the same,
    each at about the price of 2k passes of G. To refine every projection instead, give
    NPGD(LatentRefinement(prior))."""
    refine_penalty: float | None = None
    """λ/g ≥ 0, λ the weight of ‖z‖² in `finish` and `refine`, and g the mean gain of A (see
    `npgd.solvers.step_size`; about 1 for a Gaussian A), so that λ follows the scale of A. None:
    0.004 n/m. For an image as far from the set as v per pixel, in mean square, a Gaussian A makes
    noise of variance v n/m of that distance, and the likeliest z ~ N(0, I) has λ = v n/m. It
    matters where m is near k or below."""

    def __post_init__(self) -> None:
        projector(self.prior)
        step_size = self.step_size
        if step_size is not None:
            step_size = checks.number_or(step_size, "step_size", "auto", "1/beta")
        finish, penalty = self.finish, self.refine_penalty
        if finish is not None:
            finish = checks.integer(finish, "finish", minimum=0)
        if penalty is not None:
            penalty = checks.number(penalty, "refine_penalty", zero=True)
        if self.keep is not None:
            checks.choice(self.keep, "keep", "best", "last", otherwise="None")
        checks.settle(
            self,
            step_size=step_size,
            seed=checks.seed(self.seed),
            finish=finish,
            refine=checks.integer(self.refine, "refine", minimum=0),
            refine_penalty=penalty,
        )
        super().__post_init__()
        for name, steps in (("refine", self.refine), ("finish", (self.finish or 0) + self.refine)):
            if not steps < self.max_iter:
                plus = " with refine" if name == "finish" and self.refine else ""
                raise ValueError(
                    f"{name} must be below max_iter = {self.max_iter}, whose last iterations it"
                    f" takes, got {steps}{plus}"
                )
            if steps:
                needs(self.prior, *ENCODED, what=name)
        if isinstance(self.start, torch.Tensor):
            checks.finite(checks.any_images(self.start, "start"), "start")
        elif self.start is not None:
            checks.choice(
                self.start, "start", "adjoint", "range", "mean", otherwise="a tensor of images"
            )
            if self.start == "mean":
                needs(self.prior, *SAMPLED, what='start="mean"')

    def init(self, A: LinearOperator, y: Measurements) -> NPGDState:
        shape = getattr(self.prior, "image_shape", A.image_shape)
        if tuple(shape) != A.image_shape:
            raise ValueError(f"prior must have A's image_shape {A.image_shape}, got {tuple(shape)}")
        checks.same_kind(y, self.prior, "y", "prior")
        blank = y.new_zeros(len(y))
        own = self.step_size is None
        points = drawn(self.prior) if own or self.start == "mean" else None
        finish = self._finish(points)
        ends = finish + self.refine > 0
        weighted = ends and self.refine_penalty != 0
        if weighted and points is None:
            points = drawn(self.prior)
        gain = mean_gain(A, self.prior, y, points) if own else blank
        step_size = 1 / gain if own else blank + self._fixed_step_size(A)
        x = self._start(A, y, points)
        residual = A(x) - y
        stage = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        k = self.prior.latent_dim if ends and generates(self.prior) else 0
        z = y.new_zeros(len(y), k)
        from_near = self.prior.latent_dim if isinstance(self.prior, LatentRefinement) else 0
        near = y.new_zeros(len(y), from_near)
        descent = Descent.nowhere(z, x, residual) if finish else None
        penalty = PENALTY * A.n / A.m if self.refine_penalty is None else self.refine_penalty
        penalty *= common_gain(A, y, points) if weighted else 0
        return NPGDState(
            x,
            residual,
            x,
            residual,
            step_size,
            blank * torch.nan,
            gain,
            stage,
            stage,
            z,
            near,
            descent,
            penalty=penalty,
            finish=finish,
        )

    def _finish(self, points: Images | None) -> int:
        """How many steps are kept for `finish`."""
        if self.finish is not None:
            return self.finish
        if self.step_size is not None or self.refine or points is None:
            return 0
        return min(FINISH, 2 * self.max_iter // 3) if finishes(self.prior, points) else 0

    @property
    def waits(self) -> int | None:
        if self.patience == "auto":
            return PATIENCE if self.step_size is None else None
        return super().waits

    @property
    def _keeps_best(self) -> bool:
        return self.step_size is None if self.keep is None else self.keep == "best"

    def _ends(self, state: NPGDState) -> bool:
        """Whether steps on the latent are to follow."""
        return state.finish + self.refine > 0

    def step(self, A: LinearOperator, y: Measurements, state: NPGDState) -> NPGDState:
        if not self._ends(state):
            return self._project_once(A, y, state)
        steps = (self._project_once, self._finish_once, self._refine_once)
        done = replace(state, n=state.n + 1)
        for stage, step in enumerate(steps):
            index = (state.stage == stage).nonzero()[:, 0]
            if len(index) == len(state.x):
                return step(A, y, state)
            if len(index):
                done = merged(done, step(A, y[index], taken(state, index)), index)
        return done

    def _project_once(self, A: LinearOperator, y: Measurements, state: NPGDState) -> NPGDState:
        """An iteration of Algorithm 1."""
        w = state.x - state.step_size[:, None, None, None] * A.adjoint(state.residual)
        z, near = state.z, state.near
        if isinstance(self.prior, LatentRefinement):  # its last latent is a good start
            near, x = self.prior.refined(w, near if state.n else None)
            z = near if self._ends(state) else z
        elif self._ends(state) and encodes(self.prior):
            z, x = self._encoded(w)
        else:
            x = self._project(w)
        residual = A(x) - y
        step_size = state.step_size
        if self.step_size is None:
            step_size = next_step_size(
                step_size, state.gain, x - state.x, residual - state.residual
            )
        best, best_residual = x, residual
        if self._keeps_best and state.n > 0:
            # x_0 = Aᵀ y is no point of the set, and may fit y exactly.
            better = ~(squared_norm(residual) >= squared_norm(state.best_residual))
            best = torch.where(better[:, None, None, None], x, state.best)
            best_residual = torch.where(better[:, None], residual, state.best_residual)
            z = torch.where(better[:, None], z, state.z)
        return replace(
            state,
            x=x,
            residual=residual,
            best=best,
            best_residual=best_residual,
            step_size=step_size,
            used=state.step_size,
            z=z,
            near=near,
            n=state.n + 1,
        )

    def _encoded(self, w: Images) -> tuple[Latents, Images]:
        """The latent behind P(w), and P(w), which a set may have a `project` of its own for."""
        assert encodes(self.prior)
        z = self.prior.encode(w)
        x = self.prior.generate(z)
        if is_composed(self.prior):
            return z, x
        projected = self._project(w)
        same = squared_norm(projected - x) <= SAME * squared_norm(projected)
        if not bool(same.all()):
            z = torch.where(same[:, None], z, self.prior.encode(projected))
        return z, projected

    def _finish_once(self, A: LinearOperator, y: Measurements, state: NPGDState) -> NPGDState:
        """A quasi-Newton step on the latent."""
        assert state.descent is not None and generates(self.prior)
        descent = state.descent.step(self.prior, y, A, state.penalty)
        return replace(
            self._on_latent(state, descent.z, descent.x, descent.residual), descent=descent
        )

    def _refine_once(self, A: LinearOperator, y: Measurements, state: NPGDState) -> NPGDState:
        """A Gauss–Newton step on the latent."""
        assert generates(self.prior)
        z, x = gauss_newton_step(self.prior, state.z, y, A, state.penalty)
        return self._on_latent(state, z, x, A(x) - y)

    def _on_latent(
        self, state: NPGDState, z: Latents, x: Images, residual: Measurements
    ) -> NPGDState:
        return replace(
            state,
            x=x,
            residual=residual,
            best=x,
            best_residual=residual,
            used=torch.full_like(state.used, torch.nan),
            z=z,
            left=state.left - 1,
            n=state.n + 1,
        )

    def go_on(
        self,
        A: LinearOperator,
        y: Measurements,
        state: NPGDState,
        resting: Bool[torch.Tensor, " batch"],
        settled: Bool[torch.Tensor, " batch"],
    ) -> tuple[NPGDState, Bool[torch.Tensor, " batch"]]:
        if not self._ends(state):
            return state, resting | settled
        last = state.n >= self.max_iter - state.finish - self.refine
        over = torch.where(state.stage == PROJECTING, settled | last, state.left <= 0) | resting
        if not bool(over.any()):
            return state, over
        after = torch.tensor(
            [
                FINISHING if state.finish else REFINING,
                REFINING if self.refine else OVER,
                OVER,
                OVER,
            ],
            device=over.device,
        )
        stage = torch.where(over, after[state.stage], state.stage)
        steps = torch.tensor([0, state.finish, self.refine, 0], device=over.device)
        left = torch.where(over, steps[stage], state.left)
        x = torch.where(over[:, None, None, None], state.best, state.x)
        residual = torch.where(over[:, None], state.best_residual, state.residual)
        state = replace(state, x=x, residual=residual, stage=stage, left=left)
        index = (over & (stage == FINISHING)).nonzero()[:, 0]
        if len(index):
            assert state.descent is not None and generates(self.prior)
            begun = Descent.at(self.prior, state.z[index], y[index], A, state.penalty)
            state = replace(state, descent=merged(state.descent, begun, index))
        return state, stage == OVER

    def estimate(self, state: NPGDState, residual: Measurements) -> tuple[Images, Measurements]:
        return state.best, residual if state.best is state.x else state.best_residual

    def at_rest(self, before: NPGDState, after: NPGDState) -> Bool[torch.Tensor, " batch"]:
        rest = super().at_rest(before, after)
        if after.descent is None:
            return rest
        # A quasi-Newton step that is not taken moves nothing, and the next may be.
        return rest & ((after.stage != FINISHING) | after.descent.lowered)

    def residual(self, A: LinearOperator, y: Measurements, state: NPGDState) -> Measurements:
        return state.residual

    def step_size_used(self, state: NPGDState) -> PerImage:
        return state.used

    def info(self, state: NPGDState) -> dict[str, Any]:
        if self.step_size is not None:
            step_size: Any = float(state.step_size[0])
        else:
            step_size = state.step_size.tolist()
        return {"step_size": step_size} | ({"finish": state.finish} if state.finish else {})

    def advice(self, state: NPGDState) -> str:
        if state.n == 1 and not bool(state.x.isfinite().all()):
            return "the prior's P is not finite, from the first step on"
        if self.step_size is None:
            return 'try a fixed step_size, for instance "1/beta"'
        return f"try a smaller step_size (it was {float(state.step_size[0]):.4g})"

    def _fixed_step_size(self, A: LinearOperator) -> float:
        if self.step_size == "1/beta":
            beta = A.norm() ** 2
            if beta == 0:
                raise ValueError('step_size "1/beta" needs an operator other than zero')
            return 1 / beta
        if self.step_size == "auto":
            from npgd.solvers.choose import choose_step_size  # which runs NPGD

            start = "range" if self.start == "range" else "adjoint"
            return choose_step_size(
                A, self.prior, seed=self.seed, max_iter=self.max_iter, start=start
            )
        assert self.step_size is not None
        return float(self.step_size)

    def _start(self, A: LinearOperator, y: Measurements, points: Images | None) -> Images:
        if isinstance(self.start, torch.Tensor):
            checks.images(self.start, A.image_shape, "start")
            checks.same_tensor(self.start, y, "start", "y")
            if self.start.shape[0] != y.shape[0]:
                raise ValueError(
                    f"start must hold {y.shape[0]} images as y does, got {self.start.shape[0]}"
                )
            return self.start
        wanted = self.start == "mean" or (self.start is None and self.step_size is None)
        if wanted and points is not None:
            return points.mean(0, keepdim=True).expand(len(y), -1, -1, -1)
        x = A.adjoint(y)
        return self._project(x) if self.start == "range" else x

    def _project(self, w: Images) -> Images:
        x = projector(self.prior)(w)
        if x.shape != w.shape:
            raise ValueError(
                f"prior must project shape {tuple(w.shape)} to itself, got {tuple(x.shape)}"
            )
        return x
