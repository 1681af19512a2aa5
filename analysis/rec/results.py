"""What an estimate of restricted eigenvalue constants returns."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from analysis.drawing import COLOURS, by_image, images, says
from analysis.rec.secants import Histogram
from analysis.words import at_least, at_most, exactly, out_of
from npgd.showing import Drawn, Shown, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SQUARED_SIDES = "the true α is at most this, the true β at least"
SAMPLES = "the secants of independent samples"


@dataclass(frozen=True)
class Direction(Shown):
    """One direction s of the closed secant set, and its ratio r = ‖A s‖²/‖s‖².

    A "secant" is s = first − second; a "tangent" is s = second, the derivative of G at `z_first`
    along `z_second`, where first = G(z_first).
    """

    kind: str
    """ "secant" or "tangent"."""
    ratio: float
    """r as computed in float64."""
    low: float
    """r is at least this, after rounding (see `analysis.rec.rounding`)."""
    high: float
    """r is at most this, after rounding."""
    distance: float
    """‖s‖."""
    first: torch.Tensor
    """An image."""
    second: torch.Tensor
    """The other image, or the tangent."""
    z_first: torch.Tensor | None = None
    """The latent of `first`; None where it was given as an image."""
    z_second: torch.Tensor | None = None
    """The latent of `second`, or the latent direction of the tangent."""
    index: tuple[int, int] | None = None
    """Places of the two points among the samples."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, without the images."""
        return {
            "kind": self.kind,
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "distance": self.distance,
            "index": None if self.index is None else list(self.index),
        }


@dataclass(frozen=True)
class Look(Shown):
    """What one way of looking for directions found."""

    name: str
    """ "secants", "tangents" or "search"."""
    alpha: float
    """The least r found, rounded up: α is at most this. 0 only where that is certain. NaN where the
    look says nothing."""
    beta: float
    """The largest r found, rounded down: β is at least this. NaN where the look says nothing."""
    n_directions: int
    """How many were looked at: pairs, points with all their tangents, or steps of a search."""
    statement: str
    """One sentence: over what, and in which sense one-sided."""
    status: str
    """ "done", or why there is no result, or what to be careful about."""
    lowest: Direction | None
    """The direction that gives `alpha`."""
    highest: Direction | None
    """The direction that gives `beta`."""
    seconds: float
    """How long it took."""

    @property
    def kappa(self) -> float:
        """β/α of this look, at most the true κ."""
        return kappa(self.beta, self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, without the images."""
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
        if not self.n_directions:
            return f"{self.name}: {self.status}"
        constants = found(self.alpha, self.beta, self.kappa)
        return f"{self.name}: {constants} ({self.n_directions:,} directions; {self.status})"


@dataclass(frozen=True)
class DistributionFree(Shown):
    """With confidence 1 − ε, at most the share `fraction` of `of` has a ratio below `alpha`; and
    with the same confidence, at most that share has one above `beta`.

    Each of the two statements has the confidence by itself. Secants as short as rounding are none.
    """

    alpha: float
    """The least ratio of the independent secants, rounded down."""
    beta: float
    """The largest, rounded up."""
    n_pairs: int
    """N, the number of independent secants: no sample is an end of two of them."""
    epsilon: float
    """ε = 1 − confidence."""
    fraction: float
    """ln(1/ε)/N."""
    of: str = SAMPLES
    """What it is a share of, and what has to be true for that."""

    def to_dict(self) -> dict[str, Any]:
        """The fields, as they are."""
        return asdict(self)

    def __str__(self) -> str:
        share = Decimal(100 * self.fraction).quantize(Decimal("0.001"), rounding=ROUND_CEILING)
        return (
            f"with confidence {100 * (1 - self.epsilon):.4g} %, at most {share} % of {self.of} lie"
            f" below {at_least(self.alpha, 4)}, and likewise above {at_most(self.beta, 4)}"
            f" ({self.n_pairs:,} independent pairs)"
        )


@dataclass(frozen=True)
class PointwiseRec(Drawn):
    """Constants of single images: α(x*) = inf over x in S of ‖A(x − x*)‖²/‖x − x*‖².

    It is the only α that recovering x* needs (Theorem 1 uses α on pairs (x, x*) alone).
    """

    alpha: np.ndarray
    """(count,) the least r found by any look, rounded up: α(x*) is at most this; or exact. 0 only
    where that is certain."""
    kappa: np.ndarray
    """(count,) κ(x*) = β/α(x*): as certain as `exact` and `beta_kind` are together."""
    by_look: dict[str, np.ndarray]
    """α(x*) by look, (count,) each, NaN where the look says nothing."""
    beta: float
    """The β of `kappa`: that of the set, so that κ(x*) ≤ κ for every x* in it."""
    beta_kind: str
    """What `beta` is: "exact", "upper bound" or "lower bound"."""
    beta_source: str
    """The same in words, with where it comes from."""
    exact: bool
    """Whether α(x*) and β, and so κ(x*), are exact; otherwise κ(x*) is at least `kappa`."""
    worst: tuple[Direction, ...]
    """The directions that give `alpha`; empty for an affine set."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words."""
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

    def draw(self, axis: Axes) -> None:
        """κ(x*) of every image, and 2, below which Theorem 1 speaks of it."""
        finite = np.isfinite(self.kappa)
        label = "κ(x*)" if self.exact else "κ(x*) is at least this"
        by_image(axis, np.where(finite, self.kappa, np.nan), label, "pointwise")
        axis.axhline(2, color=COLOURS["uniform"], ls="--", lw=1.2, label="2, the theorem's limit")
        if not finite.all():
            lost = out_of(int((~finite).sum()), len(finite))
            says(axis, f"κ(x*) is not finite for {lost}", 0.9)
        plain_log(axis.yaxis)
        images(axis, len(self.kappa))
        axis.set_ylabel("κ(x*)")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        met = int((self.kappa < 2).sum())
        numbers = [self._shown(float(end)) for end in (self.kappa.min(), self.kappa.max())]
        spread = " to ".join(dict.fromkeys(numbers))
        verdict = "holds" if self.exact else "is not contradicted"
        return (
            f"per image: κ(x*) {spread} ({self.beta_source}); κ(x*) < 2 {verdict} for {met} of"
            f" {len(self.kappa)}"
        )

    def _shown(self, value: float) -> str:
        # α(x*) = 0 is found only where it is certain, and κ(x*) = ∞ then is so too.
        if self.exact or value == float("inf"):
            return exactly(value, 2)
        return f"at least {at_least(value, 4)}"


@dataclass(frozen=True)
class RecEstimate(Drawn):
    """α, β and κ = β/α of A on S: by look, all looks together, and image by image."""

    alpha: float
    """The least r = ‖A s‖²/‖s‖² over all directions looked at (secants, tangents, search, those at
    given z_true), rounded up: α is at most this. Exact where `exact`. 0 only where that is
    certain."""
    beta: float
    """The largest of them, rounded down: β is at least this. Exact where `exact`."""
    exact: bool
    """Whether S is affine or finite, so that both are exact, to the rounding of float64."""
    beta_certain: float
    """‖A‖², which β does not exceed."""
    looks: dict[str, Look]
    """What every look found, by its name."""
    confidence: DistributionFree | None
    """The distribution-free statement; None where there is none (a finite set, too few points)."""
    histogram: Histogram | None
    """r of the secants looked at."""
    pointwise: PointwiseRec | None
    """The constants of the given x*."""
    tangent_alpha: np.ndarray | None
    """(tangent_points,) the least r over the tangents at each point."""
    tangent_beta: np.ndarray | None
    """(tangent_points,) the largest."""
    tangent_rank: np.ndarray | None
    """(tangent_points,) the numerical rank of the Jacobian there."""
    latent_radius: float | None
    """The search stays within ‖z‖ ≤ latent_radius; None for a set without latents."""
    status: str
    """In words what is known of κ < 2."""
    seconds: float
    """How long it took."""

    @property
    def kappa(self) -> float:
        """β/α: at most the true κ, or exact. NaN where A maps every direction to 0."""
        return kappa(self.beta, self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, ready for JSON; images of extreme pairs left out."""
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

    def draw(self, axis: Axes) -> None:
        """Histogram of ‖A s‖² over unit secants, the tangents' extremes, α and β by every look."""
        if self.histogram is not None:
            counts, edges = self.histogram.counts, self.histogram.edges
            axis.stairs(counts, edges, fill=True, color="#BBBBBB", label="secants of S")
            plain_log(axis.yaxis)
            axis.set_ylim(0.7, 4 * max(1, counts.max()))
        for height, values, colour, label in (
            (0.04, self.tangent_alpha, COLOURS["alpha"], "least tangent ratio at a point"),
            (0.04, self.tangent_beta, COLOURS["uniform"], "largest tangent ratio at a point"),
        ):
            if values is not None:
                axis.plot(
                    values,
                    [height] * len(values),
                    "|",
                    ms=14,
                    alpha=0.6,
                    color=colour,
                    label=label,
                    transform=axis.get_xaxis_transform(),
                )
        styles = {"secants": ":", "tangents": "--", "search": "-"}
        for name, style in styles.items():
            look = None if self.exact else self.looks.get(name)
            if look is not None and math.isfinite(look.alpha) and math.isfinite(look.beta):
                label = f"{name}: α ≤ {at_most(look.alpha)}, β ≥ {at_least(look.beta)}"
                axis.axvline(look.alpha, color=COLOURS["alpha"], ls=style, lw=1.2, label=label)
                axis.axvline(look.beta, color=COLOURS["uniform"], ls=style, lw=1.2)
        if self.exact:
            axis.axvline(self.alpha, color=COLOURS["alpha"], label=f"exact α = {self.alpha:.3g}")
            axis.axvline(self.beta, color=COLOURS["uniform"], label=f"exact β = {self.beta:.3g}")
        if self.alpha > 0 and self.kappa > 8:
            plain_log(axis.xaxis)
        axis.set_xlabel("‖A s‖² over unit directions s")
        axis.set_ylabel("secants")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        if self.exact:
            head = f"α {self.alpha:.4g}, β {self.beta:.4g}, κ {exactly(self.kappa, 2)} (exactly)"
        else:
            head = f"{found(self.alpha, self.beta, self.kappa)} ({SQUARED_SIDES})"
        lines = [head, *(f"  {look}" for look in self.looks.values())]
        lines += [f"  {self.confidence}"] if self.confidence else []
        lines += [f"  {self.pointwise}"] if self.pointwise else []
        lines += [f"  β is at most ‖A‖² = {at_most(self.beta_certain, 4)}", self.status]
        return "\n".join(lines)


def kappa(beta: float, alpha: float) -> float:
    """β/α; ∞ where α = 0 < β, NaN where both are 0."""
    if alpha > 0:
        return beta / alpha
    return float("inf") if alpha == 0 and beta > 0 else float("nan")


def found(alpha: float, beta: float, ratio: float) -> str:
    """Constants that directions give, rounded to the side on which they stay one-sided."""
    return f"α {at_most(alpha, 4)}, β {at_least(beta, 4)}, κ {at_least(ratio, 4)}"


def _listed(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else values.tolist()
