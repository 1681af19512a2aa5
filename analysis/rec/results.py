"""What an estimate of restricted eigenvalue constants returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from analysis.rec.secants import Histogram

SQUARED_SIDES = "the true alpha is at most this, the true beta at least"


@dataclass(frozen=True)
class Direction:
    """One direction s of the closed secant set, and its ratio ||A s||^2 / ||s||^2 in float64.

    kind is "secant" (s = first - second) or "tangent" (s = second, the derivative of G at the
    latent `z_first` along `z_second`, first = G(z_first)). `z_first`, `z_second` are None where
    the points were given as images. `distance` is ||s||.
    """

    kind: str
    ratio: float
    distance: float
    first: torch.Tensor  # image_shape
    second: torch.Tensor  # image_shape
    z_first: torch.Tensor | None = None
    z_second: torch.Tensor | None = None
    index: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Kind, ratio, distance and sample indices, without the images."""
        index = None if self.index is None else list(self.index)
        return {
            "kind": self.kind,
            "ratio": self.ratio,
            "distance": self.distance,
            "index": index,
        }


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
        return _quotient(self.beta, self.alpha)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "alpha": self.alpha,
            "beta": self.beta,
            "kappa": self.kappa,
            "n_directions": self.n_directions,
            "statement": self.statement,
            "status": self.status,
            "lowest": None if self.lowest is None else self.lowest.to_dict(),
            "highest": None if self.highest is None else self.highest.to_dict(),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        numbers = f"alpha {self.alpha:.4g}, beta {self.beta:.4g}, kappa {self.kappa:.4g}"
        return f"{self.name}: {numbers} ({self.n_directions:,} directions; {self.status})"


@dataclass(frozen=True)
class DistributionFree:
    """With confidence 1 - epsilon, at most `fraction` of the secants of two independent samples
    have a ratio below `alpha`; likewise, with the same confidence, above `beta`.

    From n_pairs independent pairs, no sample in two of them: the share q of secants below their
    minimum exceeds ln(1/epsilon) / n_pairs with probability (1 - q)^n_pairs < epsilon. Nothing is
    assumed of the law; each of the two statements has the confidence by itself.
    """

    alpha: float
    beta: float
    n_pairs: int
    epsilon: float
    fraction: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"with confidence {1 - self.epsilon:.0%}, at most {self.fraction:.3%} of the secants of"
            f" independent samples lie below {self.alpha:.4g}, and likewise above {self.beta:.4g}"
            f" ({self.n_pairs:,} independent pairs)"
        )


@dataclass(frozen=True)
class PointwiseRec:
    """Instance-wise constants for given x*: alpha(x*) = inf over x in S of
    ||A(x - x*)||^2 / ||x - x*||^2, the only alpha that recovering x* needs.

    `alpha[i]` is the smallest ratio any look found for image i, again one-sided (or exact, as
    `exact` says); `by_look[name]` (count,) splits it, nan where the look says nothing. `beta` is
    the one used in kappa = beta / alpha, and `beta_source` says in words where it comes from.
    """

    alpha: np.ndarray  # (count,)
    kappa: np.ndarray  # (count,)
    by_look: dict[str, np.ndarray]  # "secants", "tangents", "search": (count,)
    beta: float
    beta_kind: str  # "exact", "upper bound" or "lower bound": what `beta` is
    beta_source: str
    exact: bool
    worst: tuple[Direction, ...]  # attains alpha[i] (not for exact constants of an affine set)

    def to_dict(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha.tolist(),
            "kappa": self.kappa.tolist(),
            "by_look": {name: values.tolist() for name, values in self.by_look.items()},
            "beta": self.beta,
            "beta_kind": self.beta_kind,
            "beta_source": self.beta_source,
            "exact": self.exact,
            "worst": [direction.to_dict() for direction in self.worst],
        }

    def __str__(self) -> str:
        met = int((self.kappa < 2).sum())
        verdict = "is" if self.exact else "is not contradicted"
        return (
            f"per image: kappa(x*) from {self.kappa.min():.4g} to {self.kappa.max():.4g}"
            f" ({self.beta_source}); kappa(x*) < 2 {verdict} for {met} of {len(self.kappa)}"
        )


@dataclass(frozen=True)
class RecEstimate:
    """All looks together.

    `alpha`, `beta`, `kappa` are the extremes over all actual directions evaluated (secants,
    tangents, search, those at given z_true; never the extrapolation), or the exact constants where
    `exact` is True. `beta_certain` = ||A||^2 bounds the true beta from above.
    """

    alpha: float
    beta: float
    exact: bool
    beta_certain: float
    looks: dict[str, Look]
    confidence: DistributionFree | None
    histogram: Histogram | None
    pointwise: PointwiseRec | None
    tangent_alpha: np.ndarray | None  # (tangent_points,) extremes at each sampled z
    tangent_beta: np.ndarray | None
    tangent_rank: np.ndarray | None  # numerical rank of the Jacobian at each z
    latent_radius: float | None  # the search stays within ||z|| <= latent_radius
    status: str  # in words; begins "kappa < 2" or "kappa >= 2"
    seconds: float

    @property
    def kappa(self) -> float:
        return _quotient(self.beta, self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, ready for JSON; images of extreme pairs left out."""
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "kappa": self.kappa,
            "exact": self.exact,
            "beta_certain": self.beta_certain,
            "looks": {name: look.to_dict() for name, look in self.looks.items()},
            "confidence": None if self.confidence is None else self.confidence.to_dict(),
            "histogram": None if self.histogram is None else self.histogram.to_dict(),
            "pointwise": None if self.pointwise is None else self.pointwise.to_dict(),
            "tangent_alpha": _listed(self.tangent_alpha),
            "tangent_beta": _listed(self.tangent_beta),
            "tangent_rank": _listed(self.tangent_rank),
            "latent_radius": self.latent_radius,
            "status": self.status,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        sides = "exactly" if self.exact else SQUARED_SIDES
        lines = [
            f"alpha {self.alpha:.4g}, beta {self.beta:.4g}, kappa {self.kappa:.4g} ({sides})",
            *(f"  {look}" for look in self.looks.values()),
        ]
        lines += [f"  {self.confidence}"] if self.confidence else []
        lines += [f"  {self.pointwise}"] if self.pointwise else []
        return "\n".join(
            [*lines, f"  beta is at most ||A||^2 = {self.beta_certain:.4g}", self.status]
        )


def _quotient(beta: float, alpha: float) -> float:
    if alpha > 0:
        return beta / alpha
    return float("inf") if alpha == 0 and beta > 0 else float("nan")


def _listed(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else values.tolist()
