"""Near the range, not in it: x = G(z) + u, with a deviation u that is small in a chosen sense.

    minimise over x and z    ‖A x − y‖² + λ ((1 − μ) R(x) + μ R(x − G(z)))

The generator knows the large shape, R the rest; μ = 0 is the plain regulariser, μ = 1 leaves all
but the deviation to the generator. Prior-image-constrained recovery (Chen, Tang, Leng, Med. Phys.
35(2), 2008) has this objective with a fixed image in place of G(z); sparse deviations from the
range of a generator are those of Dhar, Grover, Ermon (ICML 2018).

z alternates with x. At first G(z) is what NPGD recovers, refined; `rounds` times on the way it is
P(x), the projection of the iterate, image by image where that lowers R(x − G(z)), so that no round
raises the objective.

**R convex**: R(x) = ‖K (x − o)‖, with K = ∇ total variation (`npgd.TotalVariation`); with
K = (∇∇, ∇/2), first and second differences as one vector a pixel, a total variation that takes
smooth shading for simple (Lysaker, Lundervold, Tai, IEEE TIP 12(12), 2003); with K = Ψ orthonormal
the ℓ1 norm of DCT or wavelet coefficients (`npgd.Lasso`). Given z, x minimises a sum of three
convex functions, by the primal-dual algorithm of `npgd.solvers.total_variation` with a dual
variable for each R:

    x̃ = argmin_x ‖A x − y‖² + (λ/2τ) ‖x − (x_n − τ Kᵀ(p_n + q_n))‖²
    p̃ = Π_{1−μ}(p_n + σ K (2 x̃ − x_n − o)),    q̃ = Π_μ(q_n + σ K (2 x̃ − x_n − G(z)))

and over-relaxation; Π_r projects onto the dual ball of radius r. As ‖(K, K)‖² = 2 ‖K‖², x_n tends
to a minimiser for σ = 1/(2τ‖K‖²) (Condat, J. Optim. Theory Appl. 158(2), 2013, Theorem 3.3).

**R by a denoiser** D(w, σ), taken for the proximal map of R, and the deviation held by its squared
length. R(x) + ‖x − G(z)‖²/2t² has the denoiser's own for its proximal map,

    w ↦ D((w/σ² + G(z)/t²) s², s),    1/s² = 1/σ² + 1/t²,    t² = ((1 − μ)/μ) τ² (τ/σ)²,

that is, w and G(z) are two looks at x, of variance σ² and t². It takes D's place in the ADMM of
`npgd.solvers.pnp_admm`, σ falling. τ is the root mean square of x − G(z); t grows as σ falls below
τ, for by then w has seen the same measurements as G(z), which is no independent look any more (on
training digits a constant t loses to the denoiser alone where m is large).

Nothing is chosen with the truth. μ: for convex R a tenth of the measurements is held out (in boxes
where A keeps pixels), and x_0, x_1 recovered from the rest with μ = 0 and μ = 1; μ is that of the
mixture (1 − μ) x_0 + μ x_1 which predicts them best, image by image. Far from the range it comes
out as 0. Held-out means of super-resolution ask for more of the generator than details do; there μ
is 0.15. With a denoiser μ = 0.2 and τ² = ‖A G(z) − y‖²/‖A‖_F² less the noise's part, which is the
mean square of G(z) − x per pixel if A treats all of x − G(z) alike: far from the range τ is
large. λ: 10⁻³ ‖A‖² without noise, as for total variation; with noise of standard deviation s a
measurement λ moves until ‖A x − y‖² = m s² (Morozov's discrepancy), and ADMM's ρ is s²/σ² (Zhang et
al., IEEE TPAMI 44(10), 2022).

Where A Aᵀ = c I and there is no noise, the result fits y exactly.

What the theory says of S + {u}: for u of l non-zero coefficients in a basis, A = Gaussian and
m = O((k log(L r/δ) + l log(n/l))/ε²) measurements give the set-restricted eigenvalue condition on
range(G) + {l-sparse}, and with it ‖x̂ − x*‖ ≤ C (l-term deviation from the range) + δ (Dhar, Grover,
Ermon 2018, theorem 1, after Bora et al. 2017): the error that the range alone leaves, dist(x*, S),
becomes the distance to the larger set, and α falls with it, as more directions are admitted.
Theorem 1 of the convergence theory is of projections onto S and says nothing of this iteration; nor
is there a statement for total variation or a denoiser in place of sparsity. Where a target x̄ in S
stands in a report, that is the limit of NPGD, which is not this solver's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch.nn import functional

from npgd import checks
from npgd.denoising import check_denoiser
from npgd.images import Images, Measurements, PerImage, inner, norm, squared_norm
from npgd.operators import Inpainting, LinearOperator, MatrixOperator, SuperResolution
from npgd.sets import ImageSet, encodes, generates, projector
from npgd.solvers.base import Solver, recover
from npgd.solvers.npgd import NPGD
from npgd.solvers.pnp_admm import Denoiser, Solve, conjugate_gradients, data_step
from npgd.solvers.total_variation import (
    RELATIVE_PENALTY,
    RELAXATION,
    gradient,
    gradient_adjoint,
    lengths,
)
from npgd.transforms import DCT, TRANSFORMS, Pixels, Transform, Wavelet

WORDS = ("auto", "tv2", "tv", *TRANSFORMS)
SLOPE = 0.5  # weight of ∇x beside ∇∇x
Curvatures = Float[torch.Tensor, "batch 6 channels height width"]

FINE = 2  # super-resolution by up to this factor is left to second differences
NARROW = 4  # gaps up to this part of the image's side are filled better by second differences
SMOOTHNESS = 0.01  # ε
STEP = 0.1  # τ of the primal-dual algorithm, in units of pixels
HELD_OUT = 0.1  # share of the measurements that μ is chosen on
BOXES = 8  # boxes of held-out pixels have an eighth of the image's side
SIGMA = (1.0, 0.02)  # first and last level of a denoiser, without noise
MU = 0.2  # of a denoiser; on 48 training digits 0.06 and 0.5 are worse at m = 100 or at m = 50
MU_OF_DETAILS = 0.15  # of super-resolution, whose measurements do not tell; on 8 training faces
PIXELS_OF_PENALTY = 2500
FINISH = 20  # quasi-Newton steps on the latent; ten lose 0.2 dB of G(z) in holes
RELATIVE_RHO = 0.01  # ρ of ADMM without noise, relative to the mean square of A's rows
PROBES = 16  # random vectors behind ‖A‖_F of an operator that has no closed form


# ----------------------------------------------------------------------------------- what R is


@dataclass(frozen=True, eq=False)
class Analysis:
    """K of a convex R(x) = ‖K (x − o)‖: products, squared norm, the dual ball, and R itself."""

    forward: Callable[[Images], torch.Tensor]
    adjoint: Callable[[torch.Tensor], Images]
    name: str
    squared_norm: float
    lengths: Callable[[torch.Tensor], torch.Tensor]
    """Of each group of entries that is one term of the norm; they broadcast to the entries."""
    origin: float
    """Grey value of o."""

    def within(self, p: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """The nearest point of the dual ball of that radius, one for each image."""
        each = radius.reshape(-1, *[1] * (p.ndim - 1))
        inside: torch.Tensor = p * (each / self.lengths(p).clamp_min(1e-30)).clamp_max(1)
        return inside

    def value(self, u: Images) -> PerImage:
        """‖K u‖ of each image."""
        return self.lengths(self.forward(u)).flatten(1).sum(1)


def analysis_of(regulariser: str | Transform, like: Measurements, A: LinearOperator) -> Analysis:
    """The K that a word or a transform stands for."""
    if regulariser == "tv":
        return Analysis(gradient, gradient_adjoint, "tv", 8.0, lengths, 0.0)
    if regulariser == "tv2":
        return Analysis(curvature, curvature_adjoint, "tv2", 64 + 8 * SLOPE**2, lengths, 0.0)
    try:
        made = TRANSFORMS[regulariser](A.image_shape) if isinstance(regulariser, str) else None
    except ValueError as error:
        raise ValueError(f'regulariser must suit A, got "{regulariser}": {error}') from None
    basis: Any = regulariser if made is None else made.to(like)
    if tuple(basis.image_shape) != A.image_shape:
        raise ValueError(
            f"regulariser must have A's image_shape {A.image_shape}, got {basis.image_shape}"
        )
    checks.same_kind(like, basis, "y", "regulariser")
    return Analysis(basis, basis.inverse, type(basis).__name__, 1.0, torch.abs, -1.0)


def curvature(x: Images) -> Curvatures:
    """(∇∇x, w ∇x), six numbers a pixel and channel, with w = SLOPE."""
    first = gradient(x)
    second = gradient(first.flatten(0, 1)).reshape(len(x), 4, *x.shape[1:])
    return torch.cat([second, SLOPE * first], 1)


def curvature_adjoint(p: Curvatures) -> Images:
    """The adjoint of `curvature`."""
    second = p[:, :4].reshape(2 * len(p), 2, *p.shape[2:])
    first = gradient_adjoint(second).reshape(len(p), 2, *p.shape[2:])
    return gradient_adjoint(first + SLOPE * p[:, 4:])


# ----------------------------------------------------------------------------------- the solver


@dataclass(frozen=True, eq=False)
class DeviationState:
    """The iterate, the point of the range beside it, and what the two ways to x carry along."""

    x: Images
    """x_n."""
    near: Images
    """G(z)."""
    n: int
    """Iterations done."""
    mu: PerImage
    """μ."""
    spread: PerImage
    """τ, root mean square of x − G(z) per pixel, from the residual."""
    solve: Solve
    """The data step, see `npgd.solvers.pnp_admm.data_step`."""
    how: str
    """The way it is computed."""
    p: torch.Tensor
    """p_n, or ADMM's u_n."""
    q: torch.Tensor
    """q_n, or ADMM's v_n."""
    penalty: float
    """λ that the data step is made for, or ADMM's ρ."""
    radius: PerImage
    """λ of each image in units of `penalty`."""
    energy: float
    """Mean square length of a row of A."""
    K: Analysis | None
    """Of a convex R."""
    name: str
    """Of R."""
    last: int
    """Iterations in all."""


@dataclass(frozen=True, eq=False)
class Deviation(Solver[DeviationState]):
    """min ‖Ax − y‖² + λ((1 − μ)R(x) + μR(x − G(z))) over x and z; see the module.

    One iteration is `inner` primal-dual steps, or one denoising. What was chosen is in
    `Solution.info`.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    prior: ImageSet
    """G and its projector: `project`, for the rounds, and what `npgd` below needs."""
    regulariser: str | Transform | Denoiser = "auto"
    """R: "tv" (total variation), "tv2" (second and first differences together), "dct", "wavelet" or
    "pixels" (ℓ1 norm of the coefficients), a transform of `npgd.transforms`, or a denoiser
    (w, σ) → image such as `npgd.load_denoiser()`. "auto": `denoiser`, but tv2 for super-resolution
    by two and, without noise, for pixels missing in narrow gaps; where it is None, tv2 for all
    super-resolution too, else tv. With noise tv in place of tv2."""
    _: KW_ONLY
    denoiser: Denoiser | None = None
    """What "auto" takes for R in place of tv and tv2."""
    mu: float | str = "auto"
    """μ from 0 to 1; or "auto", chosen image by image from the measurements."""
    penalty: float | str = "auto"
    """λ (of a denoiser, ADMM's ρ); or "auto", from A and the noise."""
    noise: float = 0.0
    """Standard deviation of the noise on each measurement."""
    npgd: NPGD | None = None
    """The solver that finds G(z) at first; None is NPGD(prior), finished by quasi-Newton steps
    where the prior can encode, with a penalty of n/2500 on the latent. A smaller one lets G(z) fit
    what was measured at the price of the rest: inside a hole of 32 in 6 training faces 17.5 dB for
    18.3."""
    rounds: int = 1
    """How often z is projected anew."""
    inner: int = 4
    """Primal-dual steps of an iteration."""
    sigma: tuple[float, float] | str = "auto"
    """First and last level of a denoiser, between which it falls geometrically; "auto" is 1 and
    0.02, or what the noise comes to in a pixel if that is more."""
    seed: int = 0
    """Of the measurements that are held out."""
    max_iter: int = 40
    """Most iterations. A denoiser has half as many where A Aᵀ = c I: on training faces more make
    holes and super-resolution by four worse, by 0.2 and 0.3 dB, and fewer make Gaussian A worse."""
    tol: float = 1e-4
    """An image is at rest where ‖x_{n+1} − x_n‖ ≤ tol ‖x_n‖, after the last round; never before the
    last level of a denoiser."""

    def __post_init__(self) -> None:
        super().__post_init__()
        projector(self.prior)
        self._check_regulariser()
        mu = self.mu
        if not (isinstance(mu, str) and mu == "auto"):
            if isinstance(mu, str):
                raise ValueError(f'mu must be from 0 to 1 or "auto", got {checks.shown(mu)}')
            mu = checks.number(mu, "mu", zero=True)
            if not mu <= 1:
                raise ValueError(f"mu must be from 0 to 1, got {mu}")
        if self.npgd is not None and not isinstance(self.npgd, NPGD):
            raise TypeError(f"npgd must be an NPGD or None, got {checks.shown(self.npgd)}")
        if self.denoiser is not None:
            check_denoiser(self.denoiser)
        sigma = self.sigma
        if not isinstance(sigma, tuple) and not (isinstance(sigma, str) and sigma == "auto"):
            kind = ValueError if isinstance(sigma, str) else TypeError
            raise kind(f'sigma must be "auto" or (first, last), got {checks.shown(sigma)}')
        if isinstance(sigma, tuple):
            if len(sigma) != 2:
                raise ValueError(f"sigma must be (first, last), got {checks.shown(sigma)}")
            sigma = (checks.number(sigma[0], "sigma"), checks.number(sigma[1], "sigma"))
        checks.settle(
            self,
            mu=mu,
            penalty=checks.number_or(self.penalty, "penalty", "auto"),
            noise=checks.number(self.noise, "noise", zero=True),
            rounds=checks.integer(self.rounds, "rounds", minimum=0),
            inner=checks.integer(self.inner, "inner"),
            sigma=sigma,
            seed=checks.seed(self.seed),
        )

    def _check_regulariser(self) -> None:
        regulariser = self.regulariser
        known = isinstance(regulariser, str) and regulariser in WORDS
        if not known and (isinstance(regulariser, str) or not callable(regulariser)):
            raise ValueError(
                f"regulariser must be one of {', '.join(WORDS)}, a transform or a denoiser, got"
                f" {checks.shown(regulariser)}"
            )

    def chosen_regulariser(self, A: LinearOperator) -> str | Transform | Denoiser:
        """R: what `regulariser` says, or what "auto" makes of A."""
        if self.regulariser != "auto":
            return self.regulariser
        narrow = isinstance(A, Inpainting) and widest_gap(A) <= min(A.image_shape[1:]) / NARROW
        fine = narrow or (isinstance(A, SuperResolution) and A.factor <= FINE)
        if self.denoiser is not None and (not fine or (narrow and self.noise)):
            return self.denoiser
        smoothly = fine or isinstance(A, SuperResolution)
        return "tv2" if smoothly and not self.noise else "tv"

    def init(self, A: LinearOperator, y: Measurements) -> DeviationState:
        if A.norm() == 0:
            raise ValueError("A must differ from zero for Deviation, got ‖A‖ = 0")
        regulariser: Any = self.chosen_regulariser(A)
        if isinstance(regulariser, str | Pixels | DCT | Wavelet):
            return self._chosen(A, y, analysis_of(regulariser, y, A))
        checks.same_kind(y, regulariser, "y", "regulariser")
        near = self._recovered(A, y)
        mu = y.new_full((len(y),), MU if isinstance(self.mu, str) else float(self.mu))
        return self._denoising(A, y, near, mu)

    def step(self, A: LinearOperator, y: Measurements, state: DeviationState) -> DeviationState:
        state = (self._denoised if state.K is None else self._primal_dual)(A, y, state)
        state = replace(state, n=state.n + 1)
        every = self._every(state)
        if state.n % every == 0 and state.n // every <= self.rounds:
            state = self._projected(state)
        return replace(state, x=fitted(A, y, state.x)) if self._fits(A) else state

    def _every(self, state: DeviationState) -> int:
        """Iterations from one projection to the next."""
        return max(1, state.last // (self.rounds + 1))

    def _fits(self, A: LinearOperator) -> bool:
        """Whether every iterate fits y exactly."""
        return not self.noise and self.penalty == "auto" and scaled_isometry(A)

    def _data_step(self, A: LinearOperator, penalty: float, y: Measurements) -> tuple[Solve, str]:
        """r ↦ Aᵀ(A Aᵀ + ρ I)⁻¹ r, with ρ = 0 where every iterate fits y."""
        if self._fits(A):
            c = row_energy(A)
            return lambda r: A.adjoint(r) / c, "closed form, an exact fit"
        return data_step(A, penalty, y)

    def at_rest(
        self, before: DeviationState, after: DeviationState
    ) -> Bool[torch.Tensor, " batch"]:
        rest = super().at_rest(before, after)
        if after.K is None:
            over = after.n >= after.last
            return rest | over if after.last < self.max_iter else rest & over
        return rest if after.n > self.rounds * self._every(after) else rest & False

    def rest(self) -> str:
        return f"{super().rest()}, or a denoiser's last level"

    def info(self, state: DeviationState) -> dict[str, Any]:
        name = state.name
        away = (squared_norm(state.x - state.near) / state.x[0].numel()).sqrt()
        return {
            "regulariser": name,
            "mu": state.mu.tolist(),
            "penalty": (state.penalty * state.radius).tolist(),
            "deviation": away.tolist(),
            "data_step": state.how,
        }

    # ------------------------------------------------------------------------------ the range

    def _recovered(self, A: LinearOperator, y: Measurements) -> Images:
        """G(z) for a start: what NPGD recovers."""
        return recover(A, y, self.npgd or nearest(self.prior, A)).x

    def _projected(self, state: DeviationState) -> DeviationState:
        """G(z) is P(x) where that lowers the deviation."""
        near = projector(self.prior)(state.x)
        size = squared_norm if state.K is None else state.K.value
        nearer = size(state.x - near) < size(state.x - state.near)
        return replace(state, near=torch.where(each(nearer, near), near, state.near))

    # ------------------------------------------------------------------------------ R convex

    def _chosen(self, A: LinearOperator, y: Measurements, K: Analysis) -> DeviationState:
        """The start at the μ given, or at the one that a tenth of the measurements prefers."""
        mu: Any = self.mu
        if isinstance(A, SuperResolution) and mu == "auto":
            mu = MU_OF_DETAILS
        if mu != "auto":
            near = self._recovered(A, y) if mu > 0 else y.new_zeros(len(y), *A.image_shape)
            return self._start(A, y, K, near, y.new_full((len(y),), mu))
        part, rest, held = held_out(A, y, self.seed)
        near = self._recovered(part, rest)
        ends = []
        for end in (0.0, 1.0):
            state = self._start(part, rest, K, near, y.new_full((len(y),), end))
            for _ in range(max(1, self.max_iter // 2)):
                state = self._primal_dual(part, rest, state)
            ends.append(state.x)
        plain, apart = ((A(x) - y)[:, held] for x in ends)
        way = plain - apart
        best: PerImage = (inner(plain, way) / squared_norm(way).clamp_min(1e-30)).clamp(0, 1)
        start = ends[0] + each(best, near) * (ends[1] - ends[0])
        return self._start(A, y, K, near, best, start)

    def _start(
        self,
        A: LinearOperator,
        y: Measurements,
        K: Analysis,
        near: Images,
        mu: PerImage,
        x: Images | None = None,
    ) -> DeviationState:
        energy, penalty = row_energy(A), self.penalty
        if isinstance(penalty, str):
            penalty = max(RELATIVE_PENALTY * A.norm() ** 2, self.noise * math.sqrt(energy))
        solve, how = self._data_step(A, penalty / (2 * STEP), y)
        if x is None:
            x = each(mu, near) * near
            x = x + (smooth(A, y - A(x)) if scaled_isometry(A) else 0)
        x = x + solve(y - A(x))
        zero = torch.zeros_like(K.forward(x))
        ones = torch.ones_like(mu)
        return DeviationState(
            x,
            near,
            0,
            mu,
            0 * ones,
            solve,
            how,
            zero,
            zero,
            penalty,
            ones,
            energy,
            K,
            K.name,
            self.max_iter,
        )

    def _primal_dual(
        self, A: LinearOperator, y: Measurements, state: DeviationState
    ) -> DeviationState:
        """`inner` steps, and λ nearer to the noise's."""
        assert state.K is not None
        K, x, p, q = state.K, state.x, state.p, state.q
        radius = state.radius
        plain, apart = bool((state.mu < 1).any()), bool((state.mu > 0).any())
        sigma = 1 / ((plain + apart) * STEP * K.squared_norm)
        origin, beside = K.forward(torch.full_like(x, K.origin)), K.forward(state.near)
        for _ in range(self.inner):
            z = x - STEP * K.adjoint(p + q if plain and apart else p if plain else q)
            ahead = z + state.solve(y - A(z))
            d = K.forward(2 * ahead - x)
            x = x.lerp(ahead, RELAXATION)
            if plain:
                ahead_p = K.within(p + sigma * (d - origin), radius * (1 - state.mu))
                p = p.lerp(ahead_p, RELAXATION)
            if apart:
                ahead_q = K.within(q + sigma * (d - beside), radius * state.mu)
                q = q.lerp(ahead_q, RELAXATION)
        if self.noise and self.penalty == "auto" and state.n < 2 * self.max_iter // 3:
            allowed = self.noise * math.sqrt(A.m)
            radius = radius * (allowed / norm(A(ahead) - y).clamp_min(1e-30)).clamp(0.7, 1.4)
        return replace(state, x=x, p=p, q=q, radius=radius)

    # ------------------------------------------------------------------------------ a denoiser

    def _denoising(
        self, A: LinearOperator, y: Measurements, near: Images, mu: PerImage
    ) -> DeviationState:
        """ADMM's start, beside the point of the range."""
        denoiser, k = self.chosen_regulariser(A), getattr(self.prior, "latent_dim", 0)
        free = max(A.m - k, A.m / 4) / A.m  # what a fit of k numbers leaves of the residual
        energy = row_energy(A)
        left = squared_norm(A(near) - y) / free - A.m * self.noise**2
        spread = (left.clamp_min(0) / (A.m * energy)).sqrt().clamp_min(1e-3)
        rho = self._rho(energy, self._levels(A, energy)[0])
        solve, how = self._data_step(A, rho, y)
        x = near + solve(y - A(near))
        zero = torch.zeros_like(x)
        ones = torch.ones_like(mu)
        return DeviationState(
            x,
            near,
            0,
            mu,
            spread,
            solve,
            how,
            zero,
            zero,
            rho,
            ones,
            energy,
            None,
            type(denoiser).__name__,
            max(1, self.max_iter // 2) if scaled_isometry(A) else self.max_iter,
        )

    def _denoised(
        self, A: LinearOperator, y: Measurements, state: DeviationState
    ) -> DeviationState:
        """An iteration of ADMM at its level of noise."""
        denoiser: Any = self.denoiser if self.regulariser == "auto" else self.regulariser
        first, last = self._levels(A, state.energy)
        sigma = first * (last / first) ** (state.n / max(1, state.last - 1))
        solve, rho = state.solve, self._rho(state.energy, sigma)
        if self.noise and state.n:
            solve, _ = data_step(A, rho, y)
        w = state.x + state.p
        # σ²/(σ² + t²), without the quotient of μ = 0.
        near = state.mu * sigma**4
        say = near / (near + (1 - state.mu) * state.spread**4).clamp_min(1e-30)
        level = sigma * (1 - say).sqrt()
        v = denoiser(w + each(say, w) * (state.near - w), level)
        if v.shape != w.shape:
            raise ValueError(
                f"the denoiser must keep the shape {tuple(w.shape)}, got {tuple(v.shape)}"
            )
        u = w - v
        z = v - u
        x = z + solve(y - A(z))
        if self.noise and state.n == state.last - 1:
            x = v
        return replace(state, x=x, p=u, q=v, penalty=rho)

    def _levels(self, A: LinearOperator, energy: float) -> tuple[float, float]:
        """First and last σ."""
        if isinstance(self.sigma, tuple):
            return self.sigma
        pixel = self.noise * math.sqrt(A.n / (energy * A.m))
        return max(SIGMA[0], pixel), max(SIGMA[1], min(pixel, SIGMA[0]))

    def _rho(self, energy: float, sigma: float) -> float:
        if not isinstance(self.penalty, str):
            return float(self.penalty)
        return max(RELATIVE_RHO * energy, self.noise**2 / sigma**2)


def nearest(prior: ImageSet, A: LinearOperator) -> NPGD:
    """The solver that finds G(z) at first, see `Deviation.npgd`."""
    finish = FINISH if generates(prior) and encodes(prior) else 0
    return NPGD(prior, max_iter=4 + FINISH, finish=finish, refine_penalty=A.n / PIXELS_OF_PENALTY)


# ----------------------------------------------------------------------------------- operators


class Part(LinearOperator):
    """Some of the measurements of an operator."""

    index: torch.Tensor

    def __init__(self, whole: LinearOperator, index: torch.Tensor) -> None:
        super().__init__(whole.image_shape, len(index))
        self.whole = whole
        self.register_buffer("index", index)

    @staticmethod
    def of(A: LinearOperator, index: torch.Tensor) -> LinearOperator:
        """These measurements, as an operator that keeps what A's kind makes easy."""
        if isinstance(A, MatrixOperator):
            return MatrixOperator(A.matrix[index], A.image_shape)
        return Part(A, index)

    def _forward(self, x: Images) -> Measurements:
        some: Measurements = self.whole(x)[:, self.index]
        return some

    def _adjoint(self, y: Measurements) -> Images:
        return self.whole.adjoint(y.new_zeros(len(y), self.whole.m).index_copy_(1, self.index, y))

    @property
    def row_orthonormal(self) -> bool:
        return self.whole.row_orthonormal


def held_out(
    A: LinearOperator, y: Measurements, seed: int
) -> tuple[LinearOperator, Measurements, torch.Tensor]:
    """An operator that measures less than A, what it measured, and what of y it must predict.

    Of an operator that keeps pixels, boxes of an eighth of the image's side are held out, in all
    channels, a tenth of the measurements altogether; of any other single measurements.

    Returns:
        The operator, its measurements, and the indices of those of A that are held out.

    Raises:
        ValueError: an operator of one measurement.
    """
    if A.m < 2:
        raise ValueError("A must have two measurements or more for mu to be chosen, got 1")
    generator = checks.seeded(seed)
    wanted = max(1, round(HELD_OUT * A.m))
    out = torch.zeros(A.m, dtype=torch.bool)
    if isinstance(A, Inpainting):
        out = _boxes(A, wanted, generator)
    if not bool(out.any()):
        out[torch.randperm(A.m, generator=generator)[:wanted]] = True
    where = torch.arange(A.m)
    kept, held = where[~out].to(y.device), where[out].to(y.device)
    return Part.of(A, kept), y[:, kept], held


def _boxes(A: Inpainting, wanted: int, generator: torch.Generator) -> torch.Tensor:
    """Measured pixels in random boxes, at least `wanted` of them; none where all would be."""
    _, height, width = A.image_shape
    side = max(1, min(height, width) // BOXES)
    place = A.index.cpu() % (height * width)
    row, column = place // width, place % width
    out = torch.zeros(A.m, dtype=torch.bool)
    while int(out.sum()) < wanted:
        top = int(torch.randint(height - side + 1, (), generator=generator))
        left = int(torch.randint(width - side + 1, (), generator=generator))
        inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
        out |= inside
        if bool(out.all()):
            return torch.zeros_like(out)
    return out


def widest_gap(A: Inpainting) -> int:
    """Side of the largest square without a measured pixel."""
    channels, height, width = A.image_shape
    missing = torch.ones(channels * height * width)
    missing[A.index.cpu()] = 0
    missing = missing.reshape(channels, height, width)
    side = 0
    while side < min(height, width) and bool(
        (functional.avg_pool2d(missing, side + 1, 1) > 1 - 1e-6).any()
    ):
        side += 1
    return side


def row_energy(A: LinearOperator) -> float:
    """‖A‖_F²/m, the mean square length of a row; of an operator without closed form, estimated."""
    if isinstance(A, MatrixOperator):
        return float(A.matrix.square().sum()) / A.m
    if A.row_orthonormal:
        return 1.0
    if isinstance(A, SuperResolution):
        return A.norm() ** 2
    dtype, device = checks.kind(A) or (torch.float64, torch.device("cpu"))
    signs = torch.randint(2, (PROBES, A.m), generator=checks.seeded(0)).to(device, dtype) * 2 - 1
    return float(squared_norm(A.adjoint(signs)).mean()) / A.m


def fitted(A: LinearOperator, y: Measurements, x: Images) -> Images:
    """The nearest image that fits y exactly, where A Aᵀ = c I; kept pixels are y's to the bit."""
    c = row_energy(A)
    moved: Images = x - A.adjoint(A(x)) / c + A.adjoint(y) / c
    return moved


def smooth(A: LinearOperator, y: Measurements) -> Images:
    """argmin_x ‖A x − y‖²/c + ε ‖∇x‖² where A Aᵀ = c I: a smooth image to begin with."""
    c = row_energy(A)

    def normal(x: Images) -> Images:
        return A.adjoint(A(x)) / c + SMOOTHNESS * gradient_adjoint(gradient(x))

    return conjugate_gradients(normal, A.adjoint(y) / c)


def scaled_isometry(A: LinearOperator) -> bool:
    """Whether A Aᵀ = c I is certain."""
    return isinstance(A, SuperResolution) or A.row_orthonormal


def each(value: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """One number for each image, to be multiplied with images."""
    shaped: torch.Tensor = value.reshape(-1, *[1] * (images.ndim - 1))
    return shaped
