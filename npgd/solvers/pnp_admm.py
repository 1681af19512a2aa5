"""Plug-and-play ADMM (Venkatakrishnan, Bouman, Wohlberg, GlobalSIP 2013), and the ADMM behind it.

    v_{n+1} = D(x_n + u_n)
    u_{n+1} = u_n + x_n − v_{n+1}
    x_{n+1} = argmin_x ‖A x − y‖² + ρ ‖x − (v_{n+1} − u_{n+1})‖²

from u_0 = 0 and x_0, that argmin with v_0 = 0. Where D is the proximal map of R, that is
D(w) = argmin_v R(v) + ρ ‖v − w‖², this is ADMM for min ‖A x − y‖² + R(x) (Boyd et al., Found.
Trends Mach. Learn. 3(1), 2011). A denoiser in place of D makes it plug-and-play. For OneNet, D is a
network trained for the purpose.

Guarantee: convergence to the minimum if D is the proximal map of a convex R; to a fixed point if
D − I is a contraction and ‖A x − y‖² is strongly convex (Ryu et al., ICML 2019), or if D moves
images by no more than C σ_n and σ_n → 0 fast enough (Chan, Wang, Elgendy, IEEE TCI 3(1), 2017,
who let ρ grow as σ falls). For a trained network D, or AᵀA with a kernel, there is none.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float

from npgd import checks
from npgd.denoising import check_denoiser
from npgd.images import Images, Measurements, norm
from npgd.operators import Inpainting, LinearOperator, MatrixOperator, SuperResolution
from npgd.solvers.base import Solver

# Conjugate gradients stop where ‖K x − b‖ is at most (machine epsilon)^0.7 ‖b‖ (1e-5 in float32,
# 1e-11 in float64), or after this many steps.
CG_STEPS = 500

Solve = Callable[[Measurements], Images]
"""r ↦ Aᵀ(A Aᵀ + ρ I)⁻¹ r."""
Denoiser = Callable[[Images, float], Images]
"""(w, σ) ↦ an estimate of x from w = x + noise of standard deviation σ per pixel, batched."""


def data_step(A: LinearOperator, penalty: float, like: torch.Tensor) -> tuple[Solve, str]:
    """The map r ↦ Aᵀ(A Aᵀ + ρ I)⁻¹ r, and the way it is computed.

    With it argmin_x ‖A x − y‖² + ρ ‖x − z‖² = z + that of (y − A z). By the structure of A:

    - A Aᵀ = c I (inpainting, whose AᵀA is diagonal; super-resolution; orthonormal rows):
      Aᵀ r/(c + ρ)
    - a matrix, m ≤ n: one m×m Cholesky factor of A Aᵀ + ρ I (Woodbury); n < m: one n×n factor of
      AᵀA + ρ I, as Aᵀ(A Aᵀ + ρ I)⁻¹ = (AᵀA + ρ I)⁻¹ Aᵀ. Factored in float64.
    - anything else: conjugate gradients on the smaller of the two, batched, nothing stored.

    Args:
        A: the operator.
        penalty: ρ, positive.
        like: a tensor of the measurements' dtype and device.
    """
    if isinstance(A, Inpainting | SuperResolution) or A.row_orthonormal:
        constant = A.norm() ** 2 + penalty
        return lambda r: A.adjoint(r) / constant, "closed form"
    if isinstance(A, MatrixOperator):
        M = A.matrix.double()
        gram = M @ M.T if A.m <= A.n else M.T @ M
        gram.diagonal().add_(penalty)
        factor = torch.linalg.cholesky(gram).to(like)
        how = f"Cholesky factor, {len(gram)}×{len(gram)}"

        def inverse(b: torch.Tensor) -> torch.Tensor:
            solved: torch.Tensor = torch.cholesky_solve(b.flatten(1).T, factor)
            return solved.T.reshape(b.shape)
    else:
        how = "conjugate gradients"

        def inverse(b: torch.Tensor) -> torch.Tensor:
            if A.m <= A.n:
                return conjugate_gradients(lambda p: A(A.adjoint(p)) + penalty * p, b)
            return conjugate_gradients(lambda p: A.adjoint(A(p)) + penalty * p, b)

    if A.m <= A.n:
        return lambda r: A.adjoint(inverse(r)), how
    return lambda r: inverse(A.adjoint(r)), how


def conjugate_gradients(
    K: Callable[[torch.Tensor], torch.Tensor], b: Float[torch.Tensor, "batch ..."]
) -> Float[torch.Tensor, "batch ..."]:
    """K⁻¹ b for a symmetric positive definite K, each entry of the batch with its own steps.

    Hestenes, Stiefel, J. Res. NBS 49(6), 1952. To 32 machine epsilons in ‖K x − b‖/‖b‖, or to
    500 steps.
    """

    def dot(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return (p * q).flatten(1).sum(1).reshape(-1, *[1] * (b.ndim - 1))

    x, r, p = torch.zeros_like(b), b, b
    squared = dot(r, r)
    goal = torch.finfo(b.dtype).eps ** 1.4 * squared
    for _ in range(CG_STEPS):
        going = squared > goal
        if not bool(going.any()):
            break
        Kp = K(p)
        step = torch.where(going, squared / dot(p, Kp), torch.zeros_like(squared))
        x, r = x + step * p, r - step * Kp
        before, squared = squared, dot(r, r)
        p = r + torch.where(before > 0, squared / before, torch.zeros_like(squared)) * p
    return x


@dataclass(frozen=True, eq=False)
class ADMMState:
    """Where ADMM stands, and the data step of A."""

    x: Images
    """The image that fits y."""
    v: Images
    """The image that D gave."""
    u: Images
    """The sum of their differences."""
    count: int
    """Iterations done."""
    solve: Solve
    """The data step, see `data_step`."""
    how: str
    """The way it is computed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ADMM(Solver[ADMMState]):
    """The iteration of the module; a subclass says what D is."""

    penalty: float
    """ρ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(self, penalty=checks.number(self.penalty, "penalty"))

    @abc.abstractmethod
    def denoise(self, w: Images, count: int) -> Images:
        """D(w) in iteration `count`, from 0."""

    def init(self, A: LinearOperator, y: Measurements) -> ADMMState:
        solve, how = data_step(A, self.penalty, y)
        zero = y.new_zeros(y.shape[0], *A.image_shape)
        return ADMMState(solve(y), zero, zero, 0, solve, how)

    def step(self, A: LinearOperator, y: Measurements, state: ADMMState) -> ADMMState:
        w = state.x + state.u
        v = self.denoise(w, state.count)
        if v.shape != w.shape:
            raise ValueError(
                f"the denoiser must keep the shape {tuple(w.shape)}, got {tuple(v.shape)}"
            )
        u = w - v
        z = v - u
        x = z + state.solve(y - A(z))
        return ADMMState(x, v, u, state.count + 1, state.solve, state.how)

    def at_rest(self, before: ADMMState, after: ADMMState) -> Bool[torch.Tensor, " batch"]:
        """Both residuals of ADMM are small: v as it was, and x equal to v."""
        change, apart, size = map(norm, (after.v - before.v, after.x - after.v, after.v))
        return (change <= self.tol * size) & (apart <= self.tol * size)

    def rest(self) -> str:
        return f"a change of v, and a distance of x and v, of at most tol = {self.tol:g} relative"

    def info(self, state: ADMMState) -> dict[str, Any]:
        return {"penalty": self.penalty, "data_step": state.how}

    def advice(self, state: ADMMState) -> str:
        return f"try a larger penalty (it was {self.penalty:.4g})"


@dataclass(frozen=True, eq=False)
class PnPADMM(ADMM):
    """ADMM with a denoiser in place of a proximal map; see the module for update and guarantee.

    The defaults were chosen on 16 training digits under Gaussian A without noise, with the shipped
    network: ρ between 0.03 and 0.1 differ little, 1 is worse at m ≤ 100.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    denoiser: Denoiser
    """(w, σ) → image, batched: an estimate of x from w = x + noise of standard deviation σ per
    pixel. For instance `load_denoiser("mnist")` or `WaveletShrinkage()`."""
    _: KW_ONLY
    penalty: float = 0.1
    """ρ. Small: x fits y nearly exactly, as it should without noise."""
    sigma: float | tuple[float, float] = (2.0, 0.02)
    """The noise level the denoiser is told; or (first, last): falling geometrically from the first
    iteration to iteration `max_iter`, so that much is removed at first."""
    max_iter: int = 50
    """Most iterations; an image is at rest when v is, and x equals v."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_denoiser(self.denoiser)
        ends = self.sigma if isinstance(self.sigma, tuple) else (self.sigma,)
        if not 1 <= len(ends) <= 2:
            raise ValueError(
                f"sigma must be a number or (first, last), got {checks.shown(self.sigma)}"
            )
        levels = tuple(checks.number(end, "sigma") for end in ends)
        checks.settle(self, sigma=levels if isinstance(self.sigma, tuple) else levels[0])

    def init(self, A: LinearOperator, y: Measurements) -> ADMMState:
        checks.same_kind(y, self.denoiser, "y", "denoiser")
        return super().init(A, y)

    def denoise(self, w: Images, count: int) -> Images:
        return self.denoiser(w, self.level(count))

    def level(self, count: int) -> float:
        """The σ of iteration `count`, from 0."""
        if not isinstance(self.sigma, tuple):
            return self.sigma
        first, last = self.sigma[0], self.sigma[-1]
        return float(first * (last / first) ** (count / max(1, self.max_iter - 1)))
