"""Compressed sensing using generative models (Bora, Jalal, Price and Dimakis, ICML 2017).

    min_z ‖A G(z) − y‖² + λ‖z‖²    by Adam, from several random starts

The estimate is the G(z) of least measurement error ‖A G(z) − y‖² met so far, over all starts.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float

from npgd import checks, latent
from npgd.images import Images, Measurements, squared_norm
from npgd.latent import Adam
from npgd.operators import LinearOperator
from npgd.sets import Generated
from npgd.solvers.base import Solver


@dataclass(frozen=True, eq=False)
class CSGMState:
    """The best images met, and where the searches stand."""

    x: Images
    """The best G(z) met so far."""
    residual: Measurements
    """A x − y."""
    adam: Adam = field(metadata={"axis": 1})
    """The latents of all restarts, (restarts, batch, k)."""
    gradient: Float[torch.Tensor, "restarts batch k"] = field(metadata={"axis": 1})
    """Of ‖A G(z) − y‖² + λ‖z‖² at each of them."""
    resting: Bool[torch.Tensor, " batch"]
    """Whether the image rests."""


@dataclass(frozen=True, eq=False)
class CSGM(Solver[CSGMState]):
    """Search for the latent whose image explains the measurements.

    The restarts run as one batch. One iteration costs one pass of G, forward and back, on
    (restarts × images) latents, and as many products with A and Aᵀ. The objective ‖A x_n − y‖²
    never rises, because the best is kept, image and all. The problem is not convex and Adam
    carries no guarantee: what Theorem 1.1 of the paper bounds is the error of the minimiser, if
    one finds it, for a Gaussian A with m of the order of k log L rows.

    The defaults are those of the authors' released code for MNIST, `CSGM.for_64` those for their
    64×64 faces, in the units used here. The released loss is the mean over measurements of
    squared residuals of an unnormalised A, entries N(0, 1); with entries N(0, 1/m) that is
    ‖A x − y‖² as here, and λ stays as it is. But their digits lie in [0, 1] and ours in [−1, 1],
    which makes the first term 4 times as large: their λ = 0.1 is 0.4 here. Their faces lie in
    [−1, 1]. For an operator of another scale multiply λ by ‖A‖_F²/n, for instance by m/n for
    inpainting: the released code gives every row the squared norm n. The code keeps the last
    latent of each restart and compares penalised losses; here, as in the paper's text,
    measurement errors are compared, and those of every step.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    prior: Generated
    """G."""
    restarts: int = 10
    """Number of starts z ~ N(0, I), the same for every image, so that an image's result does not
    depend on its batch; the first of more restarts are those of fewer."""
    learning_rate: float = 0.01
    """Of Adam, constant, in units of z."""
    penalty: float = 0.4
    """λ."""
    _: KW_ONLY
    patience: int | None = None
    """An image has settled once this many iterations in a row have not brought its measurement
    error ‖A x − y‖² down by 1 %; None: never."""
    fall: ClassVar[float] = 0.01
    seed: int = 0
    """Of the starts."""
    rows: int = 1024
    """Most generator rows in one pass, to bound memory."""
    max_iter: int = 1000
    """Adam steps."""
    tol: float = 0.0
    """An image rests once ‖A x − y‖ ≤ tol ‖y‖; with noise of known size, its relative size stops
    the search before it fits the noise. An image at rest costs nothing more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        latent.check_prior(self.prior)
        checks.settle(
            self,
            restarts=checks.integer(self.restarts, "restarts"),
            learning_rate=checks.number(self.learning_rate, "learning_rate"),
            penalty=checks.number(self.penalty, "penalty", zero=True),
            seed=checks.seed(self.seed),
            rows=checks.integer(self.rows, "rows"),
        )

    @classmethod
    def for_64(cls, prior: Generated, **changes: Any) -> CSGM:
        """The authors' settings for 64×64 faces: 500 iterations, 10 restarts, rate 0.1, λ 0.001.

        `changes` are fields of the solver given directly.
        """
        settings = {"max_iter": 500, "restarts": 10, "learning_rate": 0.1, "penalty": 0.001}
        return cls(prior, **{**settings, **changes})

    def init(self, A: LinearOperator, y: Measurements) -> CSGMState:
        latent.check_fit(self.prior, A, y)
        z = latent.starts(self.restarts, self.prior.latent_dim, self.seed, y)
        z = z[:, None].repeat(1, len(y), 1)
        x, residual, gradient = self._best(A, y, z)
        error = squared_norm(residual)
        resting = error <= self.tol**2 * squared_norm(y)
        return CSGMState(x, residual, Adam.at(z), gradient, resting)

    def step(self, A: LinearOperator, y: Measurements, state: CSGMState) -> CSGMState:
        adam = state.adam.step(state.gradient, self.learning_rate)
        going = (~state.resting).nonzero()[:, 0]
        x, residual, gradient = state.x.clone(), state.residual.clone(), state.gradient.clone()
        found, missed, gradient[:, going] = self._best(A, y[going], adam.z[:, going])
        better = squared_norm(missed) < squared_norm(residual[going])
        x[going[better]], residual[going[better]] = found[better], missed[better]

        error = squared_norm(residual)
        resting = state.resting | (error <= self.tol**2 * squared_norm(y))
        return CSGMState(x, residual, adam, gradient, resting)

    def residual(self, A: LinearOperator, y: Measurements, state: CSGMState) -> Measurements:
        return state.residual

    def at_rest(self, before: CSGMState, after: CSGMState) -> Bool[torch.Tensor, " batch"]:
        return after.resting

    def rest(self) -> str:
        return f"‖Ax − y‖ at most tol = {self.tol:g} times ‖y‖"

    def advice(self, state: CSGMState) -> str:
        return f"try a smaller learning_rate (it was {self.learning_rate:g})"

    def _best(
        self, A: LinearOperator, y: Measurements, z: Float[torch.Tensor, "restarts batch k"]
    ) -> tuple[Images, Measurements, Float[torch.Tensor, "restarts batch k"]]:
        """For every image the best of its restarts, image and residual; and all gradients."""
        goals = y.repeat(len(z), 1)
        x, residual, gradient = latent.evaluate(
            self.prior, z.flatten(0, 1), goals, A, self.penalty, self.rows
        )
        error = squared_norm(residual).reshape(z.shape[:2])
        row = torch.arange(len(y), device=y.device)
        best = error.nan_to_num(nan=torch.inf).argmin(0) * len(y) + row
        return x[best], residual[best], gradient.reshape(z.shape)
