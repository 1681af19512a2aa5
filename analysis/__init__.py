"""Measure what the convergence theory of NPGD talks about.

Names are resolved on first use, so that importing this package costs nothing and cvxpy, sympy and
matplotlib are loaded only by what needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis import testing as testing  # not in __all__, which must do without hypothesis
    from analysis import theorem
    from analysis.advice import advise
    from analysis.basins import basin, basin_of
    from analysis.design import (
        design_dct,
        design_minimax,
        design_numax,
        design_secant_pca,
        whiten,
    )
    from analysis.evolution import (
        denoising_curve,
        error_budget,
        least_measurements,
        state_evolution,
    )
    from analysis.limits import split_error
    from analysis.local import fixed_point, fixed_point_of, local_rate, run_rate
    from analysis.obtuse import obtuse_bound, obtuseness
    from analysis.performance_estimation import certify, sweep_step_sizes, worst_case
    from analysis.projection import ProjectionSettings, nearest_in_range, projection_error
    from analysis.proofs import CertifiedProjection, certify_rec, check_rec, prove_convergence
    from analysis.rates import (
        check_convergence,
        decompose,
        error_floor,
        objective_floor,
        observed_rate,
        predicted_objective,
        predicted_rate,
        split_slack,
        steps_to_reach,
    )
    from analysis.rec import RecSettings, estimate_rec
    from analysis.report import RunSettings, verify
    from analysis.sweeps import sweep

__all__ = [
    "CertifiedProjection",
    "ProjectionSettings",
    "RecSettings",
    "RunSettings",
    "advise",
    "basin",
    "basin_of",
    "certify",
    "certify_rec",
    "check_convergence",
    "check_rec",
    "decompose",
    "denoising_curve",
    "design_dct",
    "design_minimax",
    "design_numax",
    "design_secant_pca",
    "error_budget",
    "error_floor",
    "estimate_rec",
    "fixed_point",
    "fixed_point_of",
    "least_measurements",
    "local_rate",
    "nearest_in_range",
    "objective_floor",
    "observed_rate",
    "obtuse_bound",
    "obtuseness",
    "predicted_objective",
    "predicted_rate",
    "projection_error",
    "prove_convergence",
    "run_rate",
    "split_error",
    "split_slack",
    "state_evolution",
    "steps_to_reach",
    "sweep",
    "sweep_step_sizes",
    "theorem",
    "verify",
    "whiten",
    "worst_case",
]

_HOMES = {
    "rec": ("RecSettings", "estimate_rec"),
    "design": ("design_dct", "design_minimax", "design_numax", "design_secant_pca", "whiten"),
    "projection": ("ProjectionSettings", "nearest_in_range", "projection_error"),
    "rates": (
        "check_convergence",
        "decompose",
        "error_floor",
        "objective_floor",
        "observed_rate",
        "predicted_objective",
        "predicted_rate",
        "split_slack",
        "steps_to_reach",
    ),
    "advice": ("advise",),
    "limits": ("split_error",),
    "proofs": ("CertifiedProjection", "certify_rec", "check_rec", "prove_convergence"),
    "obtuse": ("obtuse_bound", "obtuseness"),
    "basins": ("basin", "basin_of"),
    "local": ("fixed_point", "fixed_point_of", "local_rate", "run_rate"),
    "performance_estimation": ("certify", "sweep_step_sizes", "worst_case"),
    "report": ("RunSettings", "verify"),
    "sweeps": ("sweep",),
    "evolution": ("denoising_curve", "error_budget", "least_measurements", "state_evolution"),
}


def __getattr__(name: str) -> Any:
    if name in ("testing", "theorem"):
        return importlib.import_module(f".{name}", __name__)
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "testing"})
