"""Sparsity in an orthonormal basis: the Lasso, by accelerated proximal gradient.

    minimise F(x) = ‖A x − y‖² + λ ‖Ψ(x − o)‖₁    (no ½; o a constant grey image)

Tibshirani, J. R. Stat. Soc. B 58(1), 1996; in bases, basis pursuit denoising: Chen, Donoho,
Saunders, SIAM J. Sci. Comput. 20(1), 1998. As λ → 0 the minimisers tend to basis pursuit,
min ‖Ψ(x − o)‖₁ subject to A x = y.

Since Ψ is orthonormal the proximal step is exact in image space. With S_t soft-thresholding at t,

    T(z) = o + Ψᵀ S_{λ/L} Ψ( z − o − (2/L) Aᵀ(A z − y) ),    L = 2 ‖A‖²
    x_{n+1} = T(z_n),    z_n = x_n + ((t_{n−1} − 1)/t_n)(x_n − x_{n−1}),
    t_n = (1 + √(1 + 4 t_{n−1}²))/2

(FISTA: Beck, Teboulle, SIAM J. Imaging Sci. 2(1), 2009), restarted by function values, image by
image (O'Donoghue, Candès, Found. Comput. Math. 15, 2015): where F(T(z_n)) > F(x_n) the step is
thrown away, x_{n+1} = T(x_n) taken in its place, and t set to one.

Guarantee: F is convex, and F(x_n) never rises (T alone lowers it) where λ is constant; without
restarts F(x_n) − F* ≤ 2L ‖x_0 − x*‖²/(n + 1)².
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from jaxtyping import Bool

from npgd import checks
from npgd.images import Images, Measurements, PerImage, squared_norm
from npgd.operators import LinearOperator
from npgd.solvers.base import Solver
from npgd.transforms import DCT, TRANSFORMS, Pixels, Transform, Wavelet, require_levels

# λ of "auto", relative to the least λ whose solution is the constant image o. Chosen on 16 training
# digits under Gaussian A without noise: at m ≤ 200 a tenth of it, or ten times, changes the error
# by less than 5 %; at m = 500 ten times doubles it or worse, and a tenth gains little.
RELATIVE_PENALTY = 1e-3


@dataclass(frozen=True, eq=False)
class LassoState:
    """The iterate and the one before, and what the step needs."""

    x: Images
    """x_n."""
    residual: Measurements
    """A x_n − y."""
    last_x: Images
    """x_{n−1}."""
    last_residual: Measurements
    """A x_{n−1} − y."""
    t: PerImage
    """t_n."""
    count: int
    """Steps done."""
    penalty: PerImage
    """λ at the end of the continuation."""
    largest: PerImage
    """λ_max, at its beginning."""
    lipschitz: float
    """L = 2 ‖A‖²."""
    transform: Transform
    """Ψ."""


@dataclass(frozen=True, eq=False)
class Lasso(Solver[LassoState]):
    """min ‖Ax − y‖² + λ‖Ψ(x − o)‖₁ by FISTA with restarts; see the module. One A and one Aᵀ a step.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    transform: str | Transform = "wavelet"
    """Ψ: "dct", "wavelet" (Daubechies' db4; sides must be even, 6 or more), "pixels", or an object
    of `npgd.transforms` made for A's image shape, for instance Wavelet(shape, "haar")."""
    _: KW_ONLY
    penalty: float | str = "auto"
    """λ, a positive number; or "auto", that is 10⁻³ λ_max for each image, where
    λ_max = ‖2 Ψ Aᵀ(y − A o)‖_∞ is the least λ whose solution is x = o. "auto" is meant for
    measurements without noise; with noise of standard deviation s a measurement, λ of about
    s √(8 log n) times the norm of a column of A Ψᵀ is the usual order."""
    origin: float = -1.0
    """Grey value of o. −1, black, is zero where pixels are in [0, 1], as Lasso is mostly used;
    0 penalises Ψ x itself."""
    continuation: int = 100
    """For this many steps λ falls geometrically from λ_max to its value, each step going on where
    the one before ended (Hale, Yin, Zhang, SIAM J. Optim. 19(3), 2008)."""
    max_iter: int = 300
    """Most steps."""
    tol: float = 1e-5
    """An image is at rest where ‖x_{n+1} − x_n‖ ≤ tol ‖x_n‖, once λ has its value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.transform, Pixels | DCT | Wavelet) and (
            not isinstance(self.transform, str) or self.transform not in TRANSFORMS
        ):
            raise ValueError(
                f"transform must be one of {', '.join(TRANSFORMS)} or an object of"
                f" npgd.transforms, got {checks.shown(self.transform)}"
            )
        checks.settle(
            self,
            penalty=checks.number_or(self.penalty, "penalty", "auto"),
            origin=checks.number(self.origin, "origin", negative=True),
            continuation=checks.integer(self.continuation, "continuation", minimum=0),
        )

    def init(self, A: LinearOperator, y: Measurements) -> LassoState:
        made = self.transform
        try:
            transform = TRANSFORMS[made](A.image_shape) if isinstance(made, str) else made
        except ValueError as error:
            raise ValueError(f'transform must suit A, got "{made}": {error}') from None
        if transform.image_shape != A.image_shape:
            raise ValueError(
                f"transform must have A's image_shape {A.image_shape}, got {transform.image_shape}"
            )
        if isinstance(transform, Wavelet):
            require_levels(transform)
        if isinstance(made, str):
            transform = transform.to(y)
        checks.same_kind(y, transform, "y", "transform")
        lipschitz = 2 * A.norm() ** 2
        if lipschitz == 0:
            raise ValueError("A must differ from zero for Lasso, got ‖A‖ = 0")
        x = y.new_full((y.shape[0], *A.image_shape), self.origin)
        residual = A(x) - y
        largest = 2 * transform(A.adjoint(residual)).abs().flatten(1).amax(1)
        wanted = RELATIVE_PENALTY * largest if isinstance(self.penalty, str) else self.penalty
        penalty = torch.as_tensor(wanted, dtype=y.dtype, device=y.device).expand_as(largest)
        t = torch.ones_like(largest)
        return LassoState(x, residual, x, residual, t, 0, penalty, largest, lipschitz, transform)

    def step(self, A: LinearOperator, y: Measurements, state: LassoState) -> LassoState:
        penalty = self._penalty_now(state)
        t = (1 + (1 + 4 * state.t.square()).sqrt()) / 2
        speed = (state.t - 1) / t
        # A z − y by linearity from the two residuals at hand.
        z = state.x + _each(speed, state.x) * (state.x - state.last_x)
        slope = state.residual + speed[:, None] * (state.residual - state.last_residual)
        x, value = self._proximal_gradient(A, state, penalty, z, slope)
        residual = A(x) - y
        rises = value + squared_norm(residual) > self._value(state, penalty)
        if bool((rises & (state.t > 1)).any()):
            safe, _ = self._proximal_gradient(A, state, penalty, state.x, state.residual)
            x = torch.where(_each(rises, x), safe, x)
            residual = torch.where(rises[:, None], A(safe) - y, residual)
        t = torch.where(rises, torch.ones_like(t), t)
        return LassoState(
            x,
            residual,
            state.x,
            state.residual,
            t,
            state.count + 1,
            state.penalty,
            state.largest,
            state.lipschitz,
            state.transform,
        )

    def residual(self, A: LinearOperator, y: Measurements, state: LassoState) -> Measurements:
        return state.residual

    def at_rest(self, before: LassoState, after: LassoState) -> Bool[torch.Tensor, " batch"]:
        if after.count < self.continuation:
            return torch.zeros_like(after.t, dtype=torch.bool)
        return super().at_rest(before, after)

    def info(self, state: LassoState) -> dict[str, Any]:
        value = self._value(state, state.penalty)
        return {"penalty": state.penalty.tolist(), "lasso_objective": value.tolist()}

    def _penalty_now(self, state: LassoState) -> PerImage:
        """λ_max^(1−s) λ^s, s rising to 1 over the continuation; never below λ."""
        s = min(1.0, (state.count + 1) / self.continuation) if self.continuation else 1.0
        if s == 1:
            return state.penalty
        # An image that equals o has λ_max = 0, and no way to go.
        first = torch.maximum(state.largest, state.penalty)
        tiny = torch.finfo(first.dtype).tiny
        return torch.exp(
            (1 - s) * first.clamp_min(tiny).log() + s * state.penalty.clamp_min(tiny).log()
        )

    def _proximal_gradient(
        self,
        A: LinearOperator,
        state: LassoState,
        penalty: PerImage,
        z: Images,
        residual: Measurements,
    ) -> tuple[Images, PerImage]:
        """T(z), and λ‖Ψ(T(z) − o)‖₁."""
        forward = z - (2 / state.lipschitz) * A.adjoint(residual) - self.origin
        c = state.transform(forward)
        threshold = _each(penalty / state.lipschitz, c)
        c = c - c.clamp(-threshold, threshold)
        x: Images = self.origin + state.transform.inverse(c)
        return x, penalty * c.abs().flatten(1).sum(1)

    def _value(self, state: LassoState, penalty: PerImage) -> PerImage:
        c = state.transform(state.x - self.origin)
        value: PerImage = squared_norm(state.residual) + penalty * c.abs().flatten(1).sum(1)
        return value


def _each(value: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return value.reshape(-1, *[1] * (images.ndim - 1))
