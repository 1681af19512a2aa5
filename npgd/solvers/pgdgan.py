"""Projected gradient descent with a searched projection (Shah and Hegde, ICASSP 2018).

    w_n = x_n − η Aᵀ(A x_n − y),
    z_{n+1} ≈ argmin_z ‖w_n − G(z)‖²/n + λ‖z‖²,    x_{n+1} = G(z_{n+1})

The inner problem, n pixels, is given to a few Adam steps that start where the last ones ended.
NPGD replaces this search by one pass of a network.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float

from npgd import checks, latent
from npgd.images import Images, Latents, Measurements
from npgd.latent import Adam
from npgd.operators import LinearOperator
from npgd.sets import Generated
from npgd.solvers.base import Solver


@dataclass(frozen=True, eq=False)
class PGDGANState:
    """The iterate and its latent."""

    x: Images
    """x_n."""
    residual: Measurements
    """A x_n − y."""
    z: Latents
    """z_n."""


@dataclass(frozen=True, eq=False)
class PGDGAN(Solver[PGDGANState]):
    """PGD-GAN, from x_0 = 0. One iteration costs one A, one Aᵀ and `inner` Adam steps on z.

    The defaults are those of the authors' released code, written for faces in [−1, 1] and
    A with entries N(0, 1/m): 10 outer steps of 0.5, each with 100 inner ones of rate 0.1 and
    λ = 0.001 on the mean square over pixels. Adam's moments start anew in every outer step.

    Were the inner problem solved exactly with λ = 0, the iteration would be projected gradient
    descent, and converge linearly to an x* in range(G) where A satisfies a set-restricted
    eigenvalue condition that suits η (Theorem 2.2 of the paper; Theorem 1 of Raj, Li and Bresler
    with δ = 0). The search promises no such thing, so nothing is guaranteed of the algorithm as
    it runs: the objective may rise.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    prior: Generated
    """G."""
    step_size: float = 0.5
    """η, of the outer step."""
    inner: int = 100
    """Adam steps an iteration."""
    learning_rate: float = 0.1
    """Of Adam, constant, in units of z."""
    penalty: float = 0.001
    """λ."""
    _: KW_ONLY
    seed: int = 0
    """Of the first latent z ~ N(0, I), the same for every image."""
    rows: int = 1024
    """Most generator rows in one pass, to bound memory."""
    max_iter: int = 10
    """Outer steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        latent.check_prior(self.prior)
        checks.settle(
            self,
            step_size=checks.number(self.step_size, "step_size"),
            inner=checks.integer(self.inner, "inner"),
            learning_rate=checks.number(self.learning_rate, "learning_rate"),
            penalty=checks.number(self.penalty, "penalty", zero=True),
            seed=checks.seed(self.seed),
            rows=checks.integer(self.rows, "rows"),
        )

    def init(self, A: LinearOperator, y: Measurements) -> PGDGANState:
        latent.check_fit(self.prior, A, y)
        z = latent.starts(1, self.prior.latent_dim, self.seed, y).repeat(len(y), 1)
        return PGDGANState(y.new_zeros(len(y), *A.image_shape), -y, z)

    def step(self, A: LinearOperator, y: Measurements, state: PGDGANState) -> PGDGANState:
        w = state.x - self.step_size * A.adjoint(state.residual)
        # n times the inner problem: Adam's steps do not feel the scale.
        penalty = self.penalty * A.n
        adam = Adam.at(state.z)
        for last in [False] * self.inner + [True]:
            x, _, gradient = latent.evaluate(
                self.prior, adam.z, w.flatten(1), _flat, penalty, self.rows, gradient=not last
            )
            if not last:
                adam = adam.step(gradient, self.learning_rate)
        return PGDGANState(x, A(x) - y, adam.z)

    def residual(self, A: LinearOperator, y: Measurements, state: PGDGANState) -> Measurements:
        return state.residual

    def advice(self, state: PGDGANState) -> str:
        return f"try a smaller step_size (it was {self.step_size:g})"


def _flat(x: Images) -> Float[torch.Tensor, "batch n"]:
    return x.flatten(1)
