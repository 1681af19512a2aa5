"""Network-based projected gradient descent (Raj, Li and Bresler, ICCV 2019, Algorithm 1).

    w_n = x_n − η Aᵀ(A x_n − y),    x_{n+1} = P(w_n)

P projects onto the set of plausible images, for instance P = G∘G† with a generator G and a
network G† trained to invert it.

Beyond the paper, `refine` ends a run with damped Gauss–Newton steps on the latent behind its last
iterate, min_z ‖A G(z) − y‖² (see `npgd.gauss_newton`): the projector's error no longer limits
the result, at the price of a Jacobian of G per step.
"""

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float

from npgd import checks
from npgd.gauss_newton import gauss_newton_step
from npgd.images import Images, Measurements
from npgd.operators import LinearOperator
from npgd.precision import plainly
from npgd.sets import ENCODED, ImageSet, Projector, encodes, generates, needs, projector, samples
from npgd.solvers.base import Solver, recover

# Steps tried by choose_step_size, in units of 1/(mean gain): a third of an octave apart.
STEPS = tuple(2 ** (i / 3) for i in range(-6, 5))


@dataclass(frozen=True, eq=False)
class NPGDState:
    """The iterate, its residual A x − y, the step in use, and how far the run is."""

    x: Images
    residual: Measurements
    step_size: float
    n: int = 0
    z: Float[torch.Tensor, "batch k"] | None = None  # x = G(z), once a refinement needs it


@dataclass(frozen=True, eq=False)
class NPGD(Solver[NPGDState]):
    """Algorithm 1. One iteration costs one A, one Aᵀ and one projection.

    The step in use is in `Solution.info["step_size"]`.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    prior: ImageSet | Projector
    """Anything with `project(w)`, or a callable w → P(w), on batches of images."""
    step_size: float | str = "auto"
    """η. A positive number; or "1/beta", that is 1/‖A‖², a constant valid on every set (the
    analysis package gives sharper ones); or "auto", which tries several on samples of the prior,
    see `choose_step_size`. "auto" chooses anew at every call: for many calls choose once and pass
    the number."""
    _: KW_ONLY
    start: str | Images = "adjoint"
    """"adjoint", x_0 = Aᵀ y (the paper's); "range", x_0 = P(Aᵀ y), inside the set as Theorem 1
    wants it; or images of your own."""
    seed: int = 0
    """Of the samples behind "auto"."""
    refine: int = 0
    """How many of the `max_iter` iterations, the last ones, are Gauss–Newton steps on
    ‖A G(z) − y‖² + refine_penalty·‖z‖², each at about the price of 2k passes of G; the prior then
    needs `encode` and `generate`. None of them raises that objective. 0 is the paper's algorithm.
    To refine every projection instead, give NPGD(LatentRefinement(prior))."""
    refine_penalty: float = 0.1
    """λ ≥ 0, of the latent; it matters where m is near k or below."""

    def __post_init__(self) -> None:
        super().__post_init__()
        projector(self.prior)
        checks.settle(
            self,
            step_size=checks.number_or(self.step_size, "step_size", "auto", "1/beta"),
            seed=checks.seed(self.seed),
            refine=checks.integer(self.refine, "refine", minimum=0),
            refine_penalty=checks.number(self.refine_penalty, "refine_penalty", zero=True),
        )
        if not self.refine < self.max_iter:
            raise ValueError(
                f"refine must be below max_iter = {self.max_iter}, whose last iterations it takes,"
                f" got {self.refine}"
            )
        if self.refine:
            needs(self.prior, *ENCODED, what="refine")
        if isinstance(self.start, torch.Tensor):
            checks.finite(checks.any_images(self.start, "start"), "start")
        else:
            checks.choice(self.start, "start", "adjoint", "range", otherwise="a tensor of images")

    def init(self, A: LinearOperator, y: Measurements) -> NPGDState:
        shape = getattr(self.prior, "image_shape", A.image_shape)
        if tuple(shape) != A.image_shape:
            raise ValueError(f"prior must have A's image_shape {A.image_shape}, got {tuple(shape)}")
        checks.same_kind(y, self.prior, "y", "prior")
        step_size = self._step_size(A)
        x = self._start(A, y)
        return NPGDState(x, A(x) - y, step_size)

    def step(self, A: LinearOperator, y: Measurements, state: NPGDState) -> NPGDState:
        n, z = state.n + 1, None
        if n > self.max_iter - self.refine:
            # The last iteration of Algorithm 1 has left z.
            assert state.z is not None and generates(self.prior)
            z, x = gauss_newton_step(self.prior, state.z, y, A, self.refine_penalty)
        else:
            w = state.x - state.step_size * A.adjoint(state.residual)
            if n == self.max_iter - self.refine and encodes(self.prior) and self.refine:
                z = self.prior.encode(w)
                x = self.prior.generate(z)
            else:
                x = self._project(w)
        return NPGDState(x, A(x) - y, state.step_size, n, z)

    def at_rest(self, before: NPGDState, after: NPGDState) -> Bool[torch.Tensor, " batch"]:
        rest = super().at_rest(before, after)
        # Algorithm 1 at rest is not the end where a refinement is to follow.
        return rest if after.n > self.max_iter - self.refine or not self.refine else rest & False

    def residual(self, A: LinearOperator, y: Measurements, state: NPGDState) -> Measurements:
        return state.residual

    def info(self, state: NPGDState) -> dict[str, Any]:
        return {"step_size": state.step_size}

    def advice(self, state: NPGDState) -> str:
        return f"try a smaller step_size (it was {state.step_size:.4g})"

    def _step_size(self, A: LinearOperator) -> float:
        if self.step_size == "1/beta":
            beta = A.norm() ** 2
            if beta == 0:
                raise ValueError('step_size "1/beta" needs an operator other than zero')
            return 1 / beta
        if self.step_size == "auto":
            start = self.start if isinstance(self.start, str) else "adjoint"
            return choose_step_size(
                A, self.prior, seed=self.seed, max_iter=self.max_iter, start=start
            )
        return float(self.step_size)

    def _start(self, A: LinearOperator, y: Measurements) -> Images:
        if isinstance(self.start, torch.Tensor):
            checks.images(self.start, A.image_shape, "start")
            checks.same_tensor(self.start, y, "start", "y")
            if self.start.shape[0] != y.shape[0]:
                raise ValueError(
                    f"start must hold {y.shape[0]} images as y does, got {self.start.shape[0]}"
                )
            return self.start
        x = A.adjoint(y)
        return self._project(x) if self.start == "range" else x

    def _project(self, w: Images) -> Images:
        x = projector(self.prior)(w)
        if x.shape != w.shape:
            raise ValueError(
                f"prior must project shape {tuple(w.shape)} to itself, got {tuple(x.shape)}"
            )
        return x


@plainly
@torch.no_grad()
def choose_step_size(
    A: LinearOperator,
    prior: ImageSet | Projector,
    images: Images | None = None,
    seed: int = 0,
    count: int = 32,
    max_iter: int = 30,
    start: str = "adjoint",
) -> float:
    """The step η that recovers known images best.

    Measures images with A, runs NPGD on them with steps c/g, and returns the one whose mean squared
    error at the end is least. The c are 0.25 … 2.5, a third of an octave apart; every second one is
    tried, and then the two beside the best of these. The scale
    g = mean ‖A s‖²/‖s‖² over the differences s of consecutive images makes the grid follow A.

    Args:
        A: the operator.
        prior: as for NPGD; without `images` it must have `sample(n, generator=…)`.
        images: images to choose on, at least two, noise-free; default `count` samples of the
            prior. Samples lie in the set exactly; images that do not, such as held-out training
            data, can favour another step.
        seed: of the samples.
        count: number of samples.
        max_iter, start: of the runs, as for NPGD ("adjoint" or "range").

    Raises:
        TypeError: no images, and a prior that cannot sample.
        ValueError: A maps every difference to zero, or every step diverges.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {checks.shown(A)}")
    projector(prior)
    seed = checks.seed(seed)
    count = checks.integer(count, "count", minimum=2)
    max_iter = checks.integer(max_iter, "max_iter")
    checks.choice(start, "start", "adjoint", "range")
    if images is None:
        if not samples(prior):
            raise TypeError(
                f'prior must have `sample` and `image_shape` for step_size="auto", got'
                f' {type(prior).__name__} without: give step_size as a number or as "1/beta", or'
                " call choose_step_size(A, prior, images=…) with images to choose it on"
            )
        images = prior.sample(count, generator=checks.seeded(seed))
    checks.finite(checks.images(images, A.image_shape, "images", least=2), "images")
    checks.same_kind(images, prior, "images", "prior")
    secants = images[1:] - images[:-1]
    lengths = secants.flatten(1).square().sum(1)
    gains = A(secants).square().sum(1)[lengths > 0] / lengths[lengths > 0]
    if gains.numel() == 0 or not float(gains.mean()) > 0:
        raise ValueError("A maps the difference of any two images to zero: no step can help")
    y, unit = A(images), 1 / float(gains.mean())
    errors: dict[int, float] = {}

    def best_of(indices: Iterable[int]) -> int:
        for i in indices:
            solver = NPGD(prior, STEPS[i] * unit, max_iter=max_iter, start=start)
            final = recover(A, y, solver, x_true=images).error
            assert final is not None
            errors[i] = torch.nan_to_num(final[-1], nan=torch.inf).mean().item()
        return min(errors, key=lambda i: errors[i])

    coarse = best_of(range(0, len(STEPS), 2))
    best = best_of(i for i in (coarse - 1, coarse + 1) if 0 <= i < len(STEPS))
    if errors[best] == torch.inf:
        raise ValueError(
            f"every step from {unit * STEPS[0]:.3g} to {unit * STEPS[-1]:.3g} diverges"
        )
    return STEPS[best] * unit
