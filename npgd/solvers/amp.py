"""Approximate message passing (Donoho, Maleki, Montanari, PNAS 106(45), 2009).

    w_t = x_t + Aᵀ r_t,    x_{t+1} = D(w_t; σ_t),    σ_t = ‖r_t‖/√m
    r_{t+1} = y − A x_{t+1} + (div_t/m) r_t

from x_0 = 0 and r_0 = y, for A with independent entries N(0, 1/m). D is a projector or a denoiser
(Metzler, Maleki, Baraniuk, IEEE TIT 62(9), 2016), div_t its divergence at w_t. The last term, due
to Onsager, keeps w_t − x* like white noise of standard deviation σ_t, so that D is always asked
what a denoiser is made for; there is no step size. What error each iteration has is then known
beforehand: state evolution, σ_t² = σ_v² + (n/m) E‖D(x* + σ_{t−1} ν; σ_{t−1}) − x*‖²/n (Bayati,
Montanari, IEEE TIT 57(2), 2011; Berthier, Montanari, Nguyen, Information and Inference 9(1), 2020,
for D that do not act pixel by pixel), computed by the `analysis` package.

An A of another scale is divided by the root mean square of its columns' norms. Where A Aᵀ = I (or
a multiple), the iteration is that of OAMP (Ma, Ping, IEEE Access 5, 2017; VAMP: Rangan, Schniter,
Fletcher, IEEE TIT 65(10), 2019): with d = div_t/n,

    r_{t+1} = y − A u_{t+1},    u_{t+1} = (D(w_t) − d w_t)/(1 − d),    w_t = u_t + (n/m) Aᵀ r_t,

whose error is known, too, where the rows span a random subspace. For any other A (a mask, blocks)
the iteration runs just so, but nothing is known of the outcome.

Guarantee: state evolution, for n and m large, D Lipschitz and A as said. For a given A and a D that
jumps there is none; the divergence is therefore kept between 0 and m (0.95 n where A Aᵀ = I),
without which r_t could grow from one iteration to the next, and an image whose r_t grows all the
same is damped: its x_{t+1} and r_{t+1} are halfway to the new ones, then a quarter of the way, and
so on.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from jaxtyping import Bool

from npgd import checks
from npgd.denoising import (
    Denoiser,
    Probe,
    estimator,
    latent_divergence,
    probed_divergence,
    signs,
)
from npgd.images import Images, Measurements, PerImage, norm
from npgd.operators import LinearOperator, MatrixOperator
from npgd.sets import ENCODED, ImageSet, Projector, encodes, needs
from npgd.solvers.base import Solver

GROWN = 1.1
"""An image is damped further where ‖r_{t+1}‖ exceeds ‖r_t‖ by this factor."""
MOST = 0.95
"""The largest div/n, where A Aᵀ = I; elsewhere div/m is at most 1."""
LEAST = 1 / 8
"""The smallest part of the way to the new iterate."""


@dataclass(frozen=True, eq=False)
class AMPState:
    """Where message passing stands; every tensor has an entry for each image."""

    x: Images
    """x_t."""
    base: Images
    """Where w_t starts from: x_t, or u_t where A Aᵀ = I."""
    residual: Measurements
    """A x_t − y."""
    message: Measurements
    """r_t."""
    probe: Probe
    """The signs along which the divergence is estimated."""
    divergence: PerImage
    """div_{t−1}, as it was used; 0 at first."""
    clipped: Bool[torch.Tensor, " batch"]
    """Whether it was out of bounds, 0 and m (0.95 n where A Aᵀ = I)."""
    weight: PerImage
    """How much of the way to the new iterate is gone; 1 where nothing is damped."""
    scale: float
    """The root mean square of the norms of A's columns."""
    orthonormal: bool
    """Whether A Aᵀ is a multiple of I."""


@dataclass(frozen=True, eq=False)
class AMP(Solver[AMPState]):
    """The iteration of the module.

    It costs one A, one Aᵀ, one D and the divergence: with a probe, two calls of G and three of G†,
    or two of D where there is no latent.

    `Solution.info` has the divergence at the end, for how many images it was clipped, and how many
    were damped.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    prior: ImageSet | Projector | Denoiser
    """Anything with `project(w)`, a callable w ↦ P(w), or a denoiser (w, σ) ↦ image, for instance
    `load_denoiser("mnist")`. σ comes as one number for each image, (batch,)."""
    _: KW_ONLY
    max_iter: int = 12
    """Most iterations. Few are needed: state evolution is at rest after 4 to 10."""
    tol: float = 1e-3
    """An image is at rest when ‖x_{t+1} − x_t‖ ≤ tol ‖x_t‖."""
    divergence: str = "probe"
    """"probe": along one vector of signs of the latents (of the pixels, for what has none), the
    same in every iteration. "latent": exactly, for P = G∘G†, by k products with either Jacobian;
    the prior then needs `encode` and `generate`."""
    seed: int = 0
    """Of the probe."""

    def __post_init__(self) -> None:
        super().__post_init__()
        estimator(self.prior)
        checks.choice(self.divergence, "divergence", "probe", "latent")
        checks.settle(self, seed=checks.seed(self.seed))
        if self.divergence == "latent":
            needs(self.prior, *ENCODED, what='divergence="latent"')

    def init(self, A: LinearOperator, y: Measurements) -> AMPState:
        shape = getattr(self.prior, "image_shape", A.image_shape)
        if tuple(shape) != A.image_shape:
            raise ValueError(f"prior must have A's image_shape {A.image_shape}, got {tuple(shape)}")
        checks.same_kind(y, self.prior, "y", "prior")
        x = y.new_zeros(len(y), *A.image_shape)
        zero = y.new_zeros(len(y))
        scale = column_norm(A, y, self.seed)
        return AMPState(
            x=x,
            base=x,
            residual=-y,
            message=y,
            probe=signs(self.prior, x, checks.seeded(self.seed)),
            divergence=zero,
            clipped=zero.bool(),
            weight=zero + 1,
            scale=scale,
            orthonormal=orthonormal_rows(A, scale, y, self.seed),
        )

    def step(self, A: LinearOperator, y: Measurements, state: AMPState) -> AMPState:
        estimate = estimator(self.prior)
        w = state.base + A.adjoint(state.message) / state.scale**2
        sigma = norm(state.message) / (state.scale * math.sqrt(A.m))
        if state.orthonormal:  # of its n dimensions, w − x* has none of the m that are measured
            sigma = sigma * math.sqrt(max(A.n - A.m, 0) / A.n)
        x = estimate(w, sigma)
        if self.divergence == "latent" and encodes(self.prior):
            found = latent_divergence(self.prior, w)
        else:
            found = probed_divergence(self.prior, w, sigma, state.probe)
        most = MOST * A.n if state.orthonormal else A.m
        divergence = found.nan_to_num(nan=0.0).clamp(0, most)
        residual = A(x) - y
        if state.orthonormal:
            share = (divergence / A.n)[:, None, None, None]
            base = (x - share * w) / (1 - share)
            message = y - A(base)
        else:
            base = x
            message = (divergence / A.m)[:, None] * state.message - residual
        grows = norm(message) > GROWN * norm(state.message)
        weight = torch.where(grows, state.weight / 2, state.weight).clamp_min(LEAST)
        part = weight[:, None]
        return AMPState(
            x=torch.lerp(state.x, x, part[:, :, None, None]),
            base=torch.lerp(state.base, base, part[:, :, None, None]),
            residual=torch.lerp(state.residual, residual, part),
            message=torch.lerp(state.message, message, part),
            probe=state.probe,
            divergence=divergence,
            clipped=divergence != found,
            weight=weight,
            scale=state.scale,
            orthonormal=state.orthonormal,
        )

    def residual(self, A: LinearOperator, y: Measurements, state: AMPState) -> Measurements:
        return state.residual

    def info(self, state: AMPState) -> dict[str, Any]:
        return {
            "divergence": float(state.divergence.mean()),
            "clipped": int(state.clipped.sum()),
            "damped": int((state.weight < 1).sum()),
            "column_norm": state.scale,
            "rows": "orthonormal" if state.orthonormal else "taken as independent",
        }

    def advice(self, state: AMPState) -> str:
        return "A is perhaps not one of independent entries, for which NPGD is the method"


def column_norm(A: LinearOperator, like: torch.Tensor, seed: int = 0, count: int = 16) -> float:
    """The root mean square of the norms of A's columns, ‖A‖_F/√n.

    Exact for a matrix; for products alone ‖Aᵀ u‖²/n, averaged over `count` vectors u of signs.

    Raises:
        ValueError: A is zero.
    """
    if isinstance(A, MatrixOperator):
        total = float(A.matrix.double().square().sum())
    else:
        drawn = torch.randint(2, (count, A.m), generator=checks.seeded(seed))
        total = float(norm(A.adjoint((2 * drawn - 1).to(like))).double().square().mean())
    if not total > 0:
        raise ValueError("A must differ from zero for AMP, got A = 0")
    return math.sqrt(total / A.n)


def orthonormal_rows(A: LinearOperator, scale: float, like: torch.Tensor, seed: int = 0) -> bool:
    """Whether A Aᵀ = (n/m) scale² I, as far as two vectors of signs and rounding tell."""
    drawn = torch.randint(2, (2, A.m), generator=checks.seeded(seed))
    u = (2 * drawn - 1).to(like)
    apart = norm(A(A.adjoint(u)) / (scale**2 * A.n / A.m) - u)
    return bool((apart <= torch.finfo(u.dtype).eps ** 0.5 * norm(u)).all())
