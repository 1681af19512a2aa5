"""What was measured, before anything is said about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool

from analysis.projection import ProjectionError
from analysis.rates import ConvergenceCheck
from analysis.rec import RecEstimate
from analysis.rec.results import Look
from analysis.report.predictions import Predictions
from npgd.images import Images, PerImage, squared_norm
from npgd.solvers import Solution

OWN = "the run's own w_n"
"""The family of points whose δ an image's own bound uses."""

INSIDE = 1e-9
"""A point of S at ‖x − s‖² ≤ INSIDE ‖x‖² is x to rounding (of float32 pixels and generators)."""

LINEAR = 1e-10
"""Relative error, in float64, to which a linear operator and its transpose keep."""
LOW_PRECISION = 1e-5
"""The same for one that computes in float32. Above, A is not linear or Aᵀ not its transpose."""


def unseen(n: int, beta_certain: float) -> float:
    """The ratio ‖A s‖²/‖s‖² that rounding in float64 may make of a direction A does not see."""
    return 100 * n * torch.finfo(torch.float64).eps ** 2 * beta_certain


def broken_by(errors: dict[str, Any], check: ConvergenceCheck) -> float:
    """Largest relative error of linearity, of the adjoint, and of the one-step identity."""
    probed = torch.tensor([errors["linearity_error"], errors["adjoint_error"]], dtype=torch.float64)
    found = torch.cat([probed, check.decomposition.residual.flatten()])
    return float(found.nan_to_num(nan=torch.inf).max())


@dataclass(frozen=True, eq=False)
class Evidence:
    """The constants, the projector's error, a run of NPGD, and the bounds held against it."""

    rec: RecEstimate
    """α, β and α(x̄) on S."""
    projection: ProjectionError
    """δ, family by family."""
    uniform: ConvergenceCheck
    """The run against the uniform constants (all pairs of S)."""
    pointwise: ConvergenceCheck
    """The run against each image's own constants, α(x̄) and the δ of its own w_n."""
    solution: Solution
    """The run."""
    predictions: Predictions
    """Every statement beside the run, and what limits the run that users get."""
    images: Images
    """x*, as given."""
    target: Images
    """x̄, the best point of S found for x*; the theorem is about this one."""
    measured: Images
    """Aᵀy, what was measured as a picture."""
    distance: PerImage
    """‖x* − x̄‖², 0 for samples of S."""
    nearest: Bool[torch.Tensor, " batch"]
    """Whether x̄ certainly is the point of S nearest to x*."""
    operator: dict[str, Any]
    """What A is, and how well it keeps to linearity and to its adjoint."""
    settings: dict[str, Any]
    """What was asked for."""
    seconds: dict[str, float]
    """Time taken, by part."""

    @property
    def inside(self) -> Bool[torch.Tensor, " batch"]:
        """Which x* are points of S, to rounding."""
        return self.distance <= INSIDE * squared_norm(self.images.double())

    def kappa(self, look: Look) -> float:
        """κ of a look; infinite where it found a direction that A does not see."""
        if look.alpha <= unseen(self.operator["n"], self.rec.beta_certain):
            return math.inf
        return look.kappa

    @property
    def broken_by(self) -> float:
        """Largest relative error of linearity, of the adjoint, and of the one-step identity."""
        return broken_by(self.operator, self.uniform)

    @property
    def linear(self) -> bool:
        """Whether A is linear and Aᵀ its transpose, which every bound rests on."""
        return self.broken_by <= LOW_PRECISION
