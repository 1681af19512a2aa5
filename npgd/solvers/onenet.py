"""OneNet (Chang, Li, Póczos, Kumar, Sankaranarayanan, "One network to solve them all", ICCV 2017).

ADMM as in :mod:`npgd.solvers.pnp_admm`, with v_{n+1} = P(x_{n+1} + u_n) by one network P that is
trained, against classifiers of natural images, to take any image to a natural one close by; how, is
in :mod:`npgd.training.onenet`. The same P serves every operator.

The problem is min ‖A x − y‖² + R(x), P standing for the proximal map of an R that is never written
down. The paper shows that limit points are stationary where P is the exact proximal map of a
smooth R and ρ is large; a trained P need not be one, so there is no guarantee.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from npgd import checks
from npgd.denoisers import load_onenet
from npgd.images import Images, Measurements
from npgd.operators import LinearOperator
from npgd.solvers.pnp_admm import ADMM, ADMMState


@dataclass(frozen=True, eq=False)
class OneNet(ADMM):
    """ADMM with a trained proximal map; see the module.

    Args:
        proximal: P, callable w → image, batched; or the name of a shipped one ("mnist") or a file
            as for `load_onenet`.
        penalty: ρ.
        max_iter, tol: see `Solver`; an image is at rest when v is, and x equals v.

    The defaults were chosen on 16 training digits under Gaussian A without noise. With ρ ≤ 0.1 the
    error falls below its end and rises again, at ρ = 0.001 without bound. The shipped P moves clean
    digits by a mean square of 0.04 per pixel; from many measurements the error ends close to that.
    """

    proximal: Callable[[Images], Images] | str = "mnist"
    _: KW_ONLY
    penalty: float = 0.3
    max_iter: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.proximal, str):
            object.__setattr__(self, "proximal", load_onenet(self.proximal))
        if not callable(self.proximal):
            raise TypeError(f"proximal must be callable, got {type(self.proximal).__name__}")

    def init(self, A: LinearOperator, y: Measurements) -> ADMMState:
        checks.same_kind(y, self.proximal, "y", "proximal")
        return super().init(A, y)

    def denoise(self, w: Images, count: int) -> Images:
        assert callable(self.proximal)
        return self.proximal(w)
