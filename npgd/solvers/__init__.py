"""Recovery algorithms, one file each, all run by one loop: `recover`."""

from npgd.solvers.base import Solution, Solver, State, recover
from npgd.solvers.lasso import Lasso
from npgd.solvers.npgd import NPGD, choose_step_size

__all__ = ["NPGD", "Lasso", "Solution", "Solver", "State", "choose_step_size", "recover"]
