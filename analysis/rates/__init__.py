"""Convergence of NPGD: what the theorem predicts, and what each iterate did.

`identity` holds the one-step identity, from which everything else follows; `bound` what constants
predict; `slack` where the bound loses; `observed` the rate that was seen; `check` the verdict.
"""

from analysis.rates.bound import (
    error_floor,
    objective_floor,
    predicted_objective,
    predicted_rate,
    steps_to_reach,
)
from analysis.rates.check import ConvergenceCheck, check_convergence
from analysis.rates.identity import Decomposition, decompose
from analysis.rates.observed import ObservedRate, observed_rate
from analysis.rates.slack import SlackSplit, split_slack

__all__ = [
    "ConvergenceCheck",
    "Decomposition",
    "ObservedRate",
    "SlackSplit",
    "check_convergence",
    "decompose",
    "error_floor",
    "objective_floor",
    "observed_rate",
    "predicted_objective",
    "predicted_rate",
    "split_slack",
    "steps_to_reach",
]
