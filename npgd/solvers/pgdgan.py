"""Projected gradient descent with a searched projection (Shah and Hegde, ICASSP 2018).

    w_n = x_n − η Aᵀ(A x_n − y),
    z_{n+1} ≈ argmin_z ‖w_n − G(z)‖²/n + λ‖z‖²,    x_{n+1} = G(z_{n+1})

The inner problem, n pixels, is given to a few Adam steps that start where the last ones ended.
NPGD replaces this search by one pass of a network.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from jaxtyping import Float

from npgd import checks, latent
from npgd.images import Images, Measurements
from npgd.latent import Adam
from npgd.operators import LinearOperator
from npgd.solvers.base import Solver


@dataclass(frozen=True, eq=False)
class PGDGANState:
    """The iterate, its residual A x − y, and its latent."""

    x: Images
    residual: Measurements
    z: Float[torch.Tensor, "batch k"]


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

    Args:
        prior: has `generate(z)`, `latent_dim` and `image_shape`.
        step_size: η, of the outer step.
        inner: Adam steps per iteration.
        learning_rate: of Adam, constant.
        penalty: λ.
        seed: of the first latent z ~ N(0, I), the same for every image.
        rows: most generator rows in one pass, to bound memory.
        max_iter, tol: see `Solver`; max_iter counts outer steps.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    prior: Any
    step_size: float = 0.5
    inner: int = 100
    learning_rate: float = 0.1
    penalty: float = 0.001
    _: KW_ONLY
    seed: int = 0
    rows: int = 1024
    max_iter: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        latent.check_prior(self.prior)
        checks.number(self.step_size, "step_size")
        checks.integer(self.inner, "inner")
        checks.number(self.learning_rate, "learning_rate")
        checks.number(self.penalty, "penalty", zero=True)
        checks.integer(self.seed, "seed", minimum=0)
        checks.integer(self.rows, "rows")

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
