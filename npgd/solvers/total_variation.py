"""Total variation: of all images that fit the measurements, the one that varies least.

    minimise F(x) = ‖A x − y‖² + λ TV(x)    (no ½)
    TV(x) = Σ_ij |(∇x)_ij|,    (∇x)_ij = (x_{c,i+1,j} − x_{c,i,j}, x_{c,i,j+1} − x_{c,i,j})_c

isotropic (Rudin, Osher, Fatemi, Physica D 60, 1992), the channels coupled so that their edges fall
together (Bresson, Chan, Inverse Probl. Imaging 2(4), 2008); differences across the border are zero.
As λ → 0 the minimisers tend to min TV(x) subject to A x = y.

TV(x) = max ⟨∇x, p⟩ over |p_ij| ≤ 1. The primal-dual algorithm of Chambolle and Pock (J. Math.
Imaging Vis. 40(1), 2011), over-relaxed, from p_0 = 0 and x_0 = x̃ with zero in place of the bracket:

    x̃ = argmin_x ‖A x − y‖² + (λ/2τ) ‖x − (x_n − τ ∇ᵀp_n)‖²
    p̃ = Π(p_n + σ ∇(2 x̃ − x_n)),    Π: p_ij ↦ p_ij / max(1, |p_ij|)
    (x_{n+1}, p_{n+1}) = (x_n, p_n) + r (x̃ − x_n, p̃ − p_n)

The data step is solved exactly, not linearised, so that no step size depends on A, and all x_n fit
y nearly exactly where λ is small.

Guarantee: x_n tends to a minimiser for every A, y and λ, given τσ‖∇‖² ≤ 1 and 0 < r < 2 (Condat,
J. Optim. Theory Appl. 158(2), 2013, Theorem 3.3); here σ = 1/(8τ), as ‖∇‖² < 8. On the way F may
rise. What never does is the distance to any minimiser x* with its p*:

    ‖x_n − x*‖²/τ − 2 ⟨∇(x_n − x*), p_n − p*⟩ + ‖p_n − p*‖²/σ
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float

from npgd import checks
from npgd.images import Images, Measurements, PerImage, norm
from npgd.operators import LinearOperator
from npgd.solvers.base import Solver
from npgd.solvers.pnp_admm import Solve, data_step

Gradients = Float[torch.Tensor, "batch 2 channels height width"]

# λ of "auto", relative to ‖A‖². On 4 training faces without noise (table_tasks.py --penalties) a
# tenth of it changes the error by at most 0.5 %, ten times raises that under Gaussian A by 5 %.
RELATIVE_PENALTY = 1e-3
RELAXATION = 1.9  # r: about half the iterations of r = 1


@dataclass(frozen=True, eq=False)
class TotalVariationState:
    """Where the iteration stands, and the data step of A."""

    x: Images
    """x_n."""
    p: Gradients
    """p_n."""
    penalty: float
    """λ."""
    solve: Solve
    """The data step, see `npgd.solvers.pnp_admm.data_step`."""
    how: str
    """The way it is computed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TotalVariation(Solver[TotalVariationState]):
    """min ‖Ax − y‖² + λ TV(x) by Chambolle and Pock's algorithm; see the module.

    One A and one Aᵀ a step, and for a matrix of m rows two products with an m×m factor. Where A is
    neither a matrix nor has A Aᵀ = c I, conjugate gradients: see
    `npgd.solvers.pnp_admm.data_step`.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    penalty: float | str = "auto"
    """λ, a positive number; or "auto", 10⁻³ ‖A‖², for measurements without noise."""
    step_size: float = 0.1
    """τ, in units of pixels: how far a pixel moves in a step. Changes the way, not the end."""
    max_iter: int = 500
    """Most iterations."""
    tol: float = 1e-4
    """An image is at rest when both x and p change by no more than this, relatively."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.settle(
            self,
            penalty=checks.number_or(self.penalty, "penalty", "auto"),
            step_size=checks.number(self.step_size, "step_size"),
        )

    def init(self, A: LinearOperator, y: Measurements) -> TotalVariationState:
        scale = A.norm() ** 2
        if scale == 0:
            raise ValueError("A must differ from zero for TotalVariation, got ‖A‖ = 0")
        auto = isinstance(self.penalty, str)
        penalty = RELATIVE_PENALTY * scale if auto else float(self.penalty)
        solve, how = data_step(A, penalty / (2 * self.step_size), y)
        x = solve(y)
        return TotalVariationState(x, torch.zeros_like(gradient(x)), penalty, solve, how)

    def step(
        self, A: LinearOperator, y: Measurements, state: TotalVariationState
    ) -> TotalVariationState:
        z = state.x - self.step_size * gradient_adjoint(state.p)
        x = z + state.solve(y - A(z))
        p = state.p + gradient(2 * x - state.x) / (8 * self.step_size)
        p = p / lengths(p).clamp_min(1)
        x, p = state.x.lerp(x, RELAXATION), state.p.lerp(p, RELAXATION)
        return TotalVariationState(x, p, state.penalty, state.solve, state.how)

    def at_rest(
        self, before: TotalVariationState, after: TotalVariationState
    ) -> Bool[torch.Tensor, " batch"]:
        still = norm(after.p - before.p) <= self.tol * norm(before.p)
        return super().at_rest(before, after) & still

    def rest(self) -> str:
        return f"a relative change of x and of p of at most tol = {self.tol:g}"

    def info(self, state: TotalVariationState) -> dict[str, Any]:
        return {
            "penalty": state.penalty,
            "data_step": state.how,
            "total_variation": total_variation(state.x).tolist(),
        }


def gradient(x: Images) -> Gradients:
    """∇x: differences to the next row and to the next column; zero at the last ones."""
    g = x.new_zeros(x.shape[0], 2, *x.shape[1:])
    g[:, 0, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    g[:, 1, ..., :-1] = x[..., 1:] - x[..., :-1]
    return g


def gradient_adjoint(p: Gradients) -> Images:
    """∇ᵀp, minus the divergence of p."""
    down, across = p[:, 0, :, :-1], p[:, 1, ..., :-1]
    x = torch.zeros_like(p[:, 0])
    x[:, :, 1:] += down
    x[:, :, :-1] -= down
    x[..., 1:] += across
    x[..., :-1] -= across
    return x


def lengths(p: Gradients) -> Float[torch.Tensor, "batch 1 1 height width"]:
    """|p_ij|, over both directions and all channels."""
    length: torch.Tensor = torch.linalg.vector_norm(p, dim=(1, 2), keepdim=True)
    return length


def total_variation(x: Images) -> PerImage:
    """TV(x) of each image."""
    return lengths(gradient(x)).flatten(1).sum(1)
