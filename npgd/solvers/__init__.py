"""Recovery algorithms, one file each, all run by one loop: `recover`."""

from npgd.solvers.amp import AMP
from npgd.solvers.base import Solution, Solver, State, recover
from npgd.solvers.choose import choose_step_size
from npgd.solvers.csgm import CSGM
from npgd.solvers.deviation import Deviation
from npgd.solvers.lasso import Lasso
from npgd.solvers.npgd import NPGD
from npgd.solvers.onenet import OneNet
from npgd.solvers.pgdgan import PGDGAN
from npgd.solvers.pnp_admm import PnPADMM
from npgd.solvers.reconstructor import Reconstructor
from npgd.solvers.total_variation import TotalVariation

__all__ = [
    "AMP",
    "CSGM",
    "NPGD",
    "PGDGAN",
    "Deviation",
    "Lasso",
    "OneNet",
    "PnPADMM",
    "Reconstructor",
    "Solution",
    "Solver",
    "State",
    "TotalVariation",
    "choose_step_size",
    "recover",
]
