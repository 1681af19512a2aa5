"""Restricted eigenvalue constants of an operator on the range of a generator.

REC(S, alpha, beta) asks for  alpha ||s||^2 <= ||A s||^2 <= beta ||s||^2  for every secant
s = x1 - x2 of S. Nothing here can prove such constants for a neural network: every look evaluates
actual directions, so what it finds is one-sided, true alpha <= alpha, true beta >= beta, and
kappa = beta / alpha is at least what is reported. Exact constants exist for affine and finite sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

LOOKS = ("secants", "tangents", "search", "extrapolation")


@dataclass(frozen=True)
class Direction:
    """One direction s of the closed secant set, and its ratio ||A s||^2 / ||s||^2 in float64.

    kind is "secant" (s = first - second) or "tangent" (s = second, the derivative of G at the
    latent `z_first` along `z_second`, first = G(z_first)). `z_first`, `z_second` are None where
    the points were given as images. `distance` is ||s|| (for tangents: of the unit latent step).
    """

    kind: str
    ratio: float
    distance: float
    first: torch.Tensor  # image_shape
    second: torch.Tensor  # image_shape
    z_first: torch.Tensor | None = None
    z_second: torch.Tensor | None = None
    index: tuple[int, int] | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts of ||A s||^2 over unit secants s: counts[i] lie in [edges[i], edges[i+1])."""

    edges: np.ndarray  # (bins + 1,)
    counts: np.ndarray  # (bins,)
    below: int  # secants under edges[0]
    above: int  # secants from edges[-1] on


@dataclass(frozen=True)
class Look:
    """What one way of looking found.

    `alpha`, `beta`, `kappa` are nan where the look says nothing (`status` says why).
    """

    name: str  # one of LOOKS
    alpha: float
    beta: float
    n_directions: int
    statement: str  # one sentence: in which sense one-sided (or model-based)
    status: str  # "done", or in words why there is no result or what to be careful about
    lowest: Direction | None  # attains alpha
    highest: Direction | None  # attains beta
    seconds: float

    @property
    def kappa(self) -> float:
        return self.beta / self.alpha


@dataclass(frozen=True)
class Endpoint:
    """Generalised Pareto fit to one tail: the estimated infimum (or supremum) of the ratio.

    `status` is "fitted" or "refused: <reason>"; refused fits have value = low = high = nan.
    """

    side: str  # "lower" or "upper"
    source: str  # "independent secants" or "tangent extremes"
    value: float
    low: float  # bootstrap interval at `level`
    high: float
    level: float
    shape: float  # xi of the generalised Pareto law; < 0 means a finite endpoint
    n_tail: int  # exceedances fitted
    p_value: float  # Anderson-Darling, by parametric bootstrap
    status: str


@dataclass(frozen=True)
class DistributionFree:
    """With confidence 1 - epsilon, at most `fraction` of the secants of two independent samples
    have a ratio below `alpha`; likewise above `beta`. fraction = ln(1/epsilon) / n_pairs, from
    n_pairs independent (disjoint) pairs. Nothing is assumed of the law."""

    alpha: float
    beta: float
    n_pairs: int
    epsilon: float
    fraction: float


@dataclass(frozen=True)
class PointwiseRec:
    """Instance-wise constants for given x* = G(z*): alpha(x*) = inf over x in S of
    ||A(x - x*)||^2 / ||x - x*||^2, the only alpha that recovering x* needs.

    `alpha[i]` is the smallest ratio any look found for image i; `by_look[name]` (count,) splits it.
    `beta` is the one used in kappa = beta / alpha, and `beta_source` says in words where it comes
    from ("rows orthonormal: beta = 1 is certain", or the uniform estimate).
    """

    alpha: np.ndarray  # (count,)
    kappa: np.ndarray  # (count,)
    by_look: dict[str, np.ndarray]  # "secants", "tangents", "search": (count,)
    beta: float
    beta_source: str
    worst: tuple[Direction, ...]  # attains alpha[i]; first is x*


@dataclass(frozen=True)
class RecEstimate:
    """All looks together.

    `alpha`, `beta`, `kappa` are the extremes over all actual directions evaluated (secants,
    tangents, search; never the extrapolation), or the exact constants where `exact` is True.
    `beta_certain` = ||A||^2 bounds the true beta from above.
    """

    alpha: float
    beta: float
    exact: bool
    beta_certain: float
    looks: dict[str, Look]
    confidence: DistributionFree | None
    histogram: Histogram | None
    tails: tuple[Endpoint, ...]
    pointwise: PointwiseRec | None
    tangent_alpha: np.ndarray | None  # (tangent_points,) extremes at each sampled z
    tangent_beta: np.ndarray | None
    tangent_rank: np.ndarray | None  # numerical rank of the Jacobian at each z
    latent_radius: float | None  # the search stays within ||z|| <= latent_radius
    status: str  # in words; begins "kappa < 2 is not contradicted" or "kappa >= 2"
    seconds: float

    @property
    def kappa(self) -> float:
        return self.beta / self.alpha

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, ready for JSON; images of extreme pairs left out."""
        raise NotImplementedError


def estimate_rec(
    A,
    prior,  # .generate/.latent_dim, or AffineSet, FiniteSet, or images (N, *image_shape)
    *,
    points=4000,
    pairs=None,  # (x1, x2): secants the user draws instead of all pairs of samples
    tangent_points=300,
    search_starts=24,
    search_steps=120,
    latent_radius=None,
    z_true=None,  # (count, k): latents of the images for the instance-wise constants
    x_true=None,  # (count, *image_shape): only if no latents are known (no tangents then)
    looks=LOOKS,
    epsilon=0.05,
    bins=400,
    seed=0,
    executor=None,
    progress=False,
) -> RecEstimate:
    """Written next; the fields above stay."""
    raise NotImplementedError
