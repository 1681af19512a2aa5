"""OneNet (Chang, Li, Póczos, Kumar, Sankaranarayanan, "One network to solve them all", ICCV 2017).

ADMM as in `npgd.solvers.pnp_admm`, with v_{n+1} = P(x_{n+1} + u_n). One network P is trained,
against classifiers of natural images, to take any image to a natural one close by (see
`npgd.training.onenet`); it serves every operator.

The problem is min ‖A x − y‖² + R(x), P standing for the proximal map of an R that is never written
down. The paper shows that limit points are stationary where P is the exact proximal map of a
smooth R and ρ is large; a trained P need not be one, so there is no guarantee.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from npgd import checks
from npgd.denoisers import load_onenet
from npgd.images import Images, Measurements
from npgd.operators import LinearOperator
from npgd.sets import Projector
from npgd.solvers.pnp_admm import ADMM, ADMMState


@dataclass(frozen=True, eq=False)
class OneNet(ADMM):
    """ADMM with a trained proximal map; see the module.

    The defaults were chosen on 16 training digits under Gaussian A without noise. With ρ ≤ 0.1 the
    error falls below its end and rises again, at ρ = 0.001 without bound. The shipped P moves clean
    digits by a mean square of 0.04 per pixel; from many measurements the error ends close to that.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    proximal: Projector | str = "mnist"
    """P, callable w → image, batched; or the name of a shipped one ("mnist") or a file, as for
    `load_onenet`."""
    _: KW_ONLY
    penalty: float = 0.3
    """ρ."""
    max_iter: int = 30
    """Most iterations; an image is at rest when v is, and x equals v."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.proximal, str):
            try:
                checks.settle(self, proximal=load_onenet(self.proximal))
            except ValueError as error:
                raise ValueError(f"proximal must name a OneNet: {error}") from None
        if not callable(self.proximal):
            raise TypeError(
                "proximal must be callable, or the name of a shipped one or of a file, got"
                f" {type(self.proximal).__name__}"
            )

    def init(self, A: LinearOperator, y: Measurements) -> ADMMState:
        checks.same_kind(y, self.proximal, "y", "proximal")
        return super().init(A, y)

    def denoise(self, w: Images, count: int) -> Images:
        assert callable(self.proximal)
        return self.proximal(w)
