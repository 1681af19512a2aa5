"""Restricted eigenvalue constants of an operator on the range of a generator.

REC(S, alpha, beta) asks for  alpha ||s||^2 <= ||A s||^2 <= beta ||s||^2  for every secant
s = x1 - x2 of S = range(G) (Raj, Li, Bresler, ICCV 2019, definition 2). Evaluating directions
cannot prove such constants: what it finds is one-sided, true alpha <= alpha, true beta >= beta, so
that the true kappa = beta / alpha is at least the one reported. Four looks, each by itself:

- secants: all pairs of samples;
- tangents: limits of secants, through the Jacobian of G;
- search: descent from the worst of both;
- extrapolation: where the tails seem to end, an estimate from a model and no bound.

The proof of Theorem 1 uses alpha only on pairs (x, x*). So every x* has its own

    alpha(x*) = inf over x in S of ||A(x - x*)||^2 / ||x - x*||^2  >=  alpha,

which the same looks measure. For affine and finite sets the constants are computed exactly.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.search import Found, search_from, search_pairs
from analysis.secants import (
    KEEP,
    Histogram,
    SecantScan,
    TangentScan,
    all_pairs,
    converted,
    draw_latents,
    generate,
    histogram_edges,
    precision,
    ratio,
    secants_from,
    tangent,
    tangents,
)
from analysis.tails import Endpoint, fit_endpoint
from npgd.projectors import AffineSet, FiniteSet

LOOKS = ("secants", "tangents", "search", "extrapolation")
TANGENT_STEP = 1e-2  # length of the latent step from which the search leaves a tangent
REFINED = 4  # tangent extremes of either side computed anew in float64
POINTWISE_STARTS = 3  # nearest-to-worst samples from which the search for alpha(x*) starts
SQUARED_SIDES = "the true alpha is at most this, the true beta at least"


# --------------------------------------------------------------------------------------- results


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
    beta_source: str
    exact: bool
    worst: tuple[Direction, ...]  # attains alpha[i] (not for exact constants of an affine set)

    def to_dict(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha.tolist(),
            "kappa": self.kappa.tolist(),
            "by_look": {name: values.tolist() for name, values in self.by_look.items()},
            "beta": self.beta,
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
    tails: tuple[Endpoint, ...]
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
            "tails": [tail.to_dict() for tail in self.tails],
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
            *(f"  {tail}" for tail in self.tails),
        ]
        lines += [f"  {self.confidence}"] if self.confidence else []
        lines += [f"  {self.pointwise}"] if self.pointwise else []
        return "\n".join(
            [*lines, f"  beta is at most ||A||^2 = {self.beta_certain:.4g}", self.status]
        )


# ------------------------------------------------------------------------------------- estimates


def estimate_rec(
    A: Any,
    prior: Any,
    *,
    points: int = 4000,
    pairs: tuple[torch.Tensor, torch.Tensor] | None = None,
    tangent_points: int = 300,
    search_starts: int = 24,
    search_steps: int = 120,
    latent_radius: float | None = None,
    z_true: Float[torch.Tensor, "count k"] | None = None,
    x_true: Float[torch.Tensor, "count ..."] | None = None,
    looks: Collection[str] = LOOKS,
    epsilon: float = 0.05,
    bins: int = 400,
    seed: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
) -> RecEstimate:
    """Restricted eigenvalue constants of A on S, by four looks, and per image.

    Args:
        A: an operator; A(x) maps images to (batch, m).
        prior: S. With `generate` and `latent_dim`, range(G); an `AffineSet` or a `FiniteSet`, whose
            constants are computed exactly; or images (N, *image_shape), independent draws of S.
        points: samples G(z), z ~ N(0, I), whose N(N-1)/2 secants are looked at. With one seed,
            fewer points are the first of more.
        pairs: (x1, x2), secants x1[i] - x2[i] to look at instead; taken for independent.
        tangent_points: of the same samples, those whose tangents are looked at.
        search_starts: worst directions found, of either side, from which the search starts.
        search_steps: gradient steps of each search.
        latent_radius: the search stays within ||z|| <= latent_radius; by default sqrt(k) + 3, which
            all but exp(-9/2) of N(0, I) lies within.
        z_true: latents of the x* whose own alpha(x*) is wanted.
        x_true: the x* themselves if no latents are known; their tangents are then not looked at.
        looks: which of LOOKS to take.
        epsilon: 1 - confidence of the distribution-free statement.
        bins: of the histogram.
        executor: runs the tasks, by default threads; the result does not depend on it.

    A look that the set does not offer (tangents of a finite set) is skipped, as its `status` says.
    Raises ValueError for arguments out of range, TypeError for a `prior` that is no set.

    All ratios reported are recomputed in float64, from the prior and the operator in float64.
    """
    began = time.perf_counter()
    _check(points, tangent_points, search_starts, search_steps, epsilon, bins, looks)
    if latent_radius is not None and not latent_radius > 0:
        raise ValueError(f"latent_radius: got {latent_radius}, expected a positive number")
    if z_true is not None and x_true is not None:
        raise ValueError("z_true, x_true: give one of them")
    target = _Target(A, prior)
    if z_true is not None and not target.generates:
        raise ValueError("z_true: the set has no generator; give x_true")
    settings = _Settings(
        points, tangent_points, search_starts, search_steps,
        latent_radius or (target.latent_dim**0.5 + 3), bins, epsilon, seed, executor, progress,
    )  # fmt: skip
    results: dict[str, Look] = {}
    sample = _sample(target, settings)
    confidence, histogram, independent, scan, tangent = None, None, None, None, None
    if "secants" in looks or "extrapolation" in looks:
        independent = _independent(target, sample, pairs)
        confidence = _distribution_free(independent, epsilon)
    if "secants" in looks:
        if pairs is None:
            results["secants"], scan = _look_at_secants(target, sample, settings)
            histogram = scan.histogram
        else:
            results["secants"] = _look_at_pairs(target, pairs)
            assert independent is not None
            histogram = _histogram(independent, bins)
    if "tangents" in looks:
        results["tangents"], tangent = _look_at_tangents(target, sample, settings)
    if "search" in looks:
        results["search"] = _search(target, sample, scan, tangent, settings)
    tails: tuple[Endpoint, ...] = ()
    if "extrapolation" in looks:
        results["extrapolation"], tails = _extrapolate(independent, tangent, results, settings)

    actual = [results[name] for name in LOOKS[:3] if name in results]
    exact = target.exact()
    if exact is None and not any(np.isfinite(look.alpha) for look in actual):
        raise ValueError("looks: none of them gives a direction of this set")
    alpha, beta = exact or (
        min(look.alpha for look in actual if np.isfinite(look.alpha)),
        max(look.beta for look in actual if np.isfinite(look.beta)),
    )
    pointwise = None
    if z_true is not None or x_true is not None:
        pointwise = _pointwise(target, sample, z_true, x_true, alpha, beta, looks, settings)
        if z_true is not None and exact is None:
            # Secants at a point of S are secants of S.
            alpha = min(alpha, float(pointwise.alpha.min()))
    return RecEstimate(
        alpha=alpha,
        beta=beta,
        exact=exact is not None,
        beta_certain=1.0 if target.orthonormal else float(target.double_operator.norm()) ** 2,
        looks=results,
        confidence=confidence,
        histogram=histogram,
        tails=tails,
        pointwise=pointwise,
        tangent_alpha=None if tangent is None else tangent.low,
        tangent_beta=None if tangent is None else tangent.high,
        tangent_rank=None if tangent is None else tangent.rank,
        latent_radius=settings.radius if target.generates else None,
        status=_verdict(alpha, beta, exact is not None, actual),
        seconds=time.perf_counter() - began,
    )


def _check(
    points: int,
    tangent_points: int,
    search_starts: int,
    search_steps: int,
    epsilon: float,
    bins: int,
    looks: Collection[str],
) -> None:
    for name, value, least in (
        ("points", points, 2),
        ("tangent_points", tangent_points, 1),
        ("search_starts", search_starts, 1),
        ("search_steps", search_steps, 1),
        ("bins", bins, 1),
    ):
        if value < least:
            raise ValueError(f"{name}: got {value}, expected at least {least}")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon: got {epsilon}, expected a number between 0 and 1")
    if isinstance(looks, str) or not set(looks) <= set(LOOKS):
        raise ValueError(f"looks: got {looks!r}, expected some of {LOOKS}")


@dataclass(frozen=True)
class _Settings:
    points: int
    tangent_points: int
    search_starts: int
    search_steps: int
    radius: float
    bins: int
    epsilon: float
    seed: int
    executor: Executor | None
    progress: bool


class _Target:
    """S and A in the precision they came in, for looking, and in float64, for reporting."""

    def __init__(self, operator: Any, prior: Any) -> None:
        self.generates = hasattr(prior, "generate") and hasattr(prior, "latent_dim")
        self.images: torch.Tensor | None = None
        if isinstance(prior, FiniteSet):
            self.images = prior.points.detach().cpu()
        elif isinstance(prior, torch.Tensor):
            if prior.ndim < 2 or not prior.is_floating_point() or len(prior) < 2:
                came = f"{prior.dtype} of shape {tuple(prior.shape)}"
                raise ValueError(f"prior: got {came}, expected at least two images")
            self.images = prior.detach().cpu()
        elif not self.generates:
            raise TypeError(
                f"prior: got {type(prior).__name__}, expected a prior with `generate` and"
                " `latent_dim`, an AffineSet, a FiniteSet, or a tensor of images"
            )
        self.is_finite_set = isinstance(prior, FiniteSet)
        self.is_affine = isinstance(prior, AffineSet)
        self.dtype = self.images.dtype if self.images is not None else precision(prior)
        self.latent_dim = int(prior.latent_dim) if self.generates else 0
        self.prior = converted(prior, self.dtype) if self.generates else None
        self.double_prior = converted(prior, torch.float64) if self.generates else None
        self.operator = converted(operator, self.dtype)
        self.double_operator = converted(operator, torch.float64)
        self.orthonormal = bool(getattr(operator, "row_orthonormal", False))

    def exact(self) -> tuple[float, float] | None:
        """The constants of an affine or finite set, to the rounding of float64.

        On {B z + c}, B = Q R, the extreme eigenvalues of Q'A'A Q; on a finite set, the extremes
        over all its secants.
        """
        if self.is_affine:
            return _affine_constants(self.double_operator, self.double_prior)
        if self.is_finite_set:
            assert self.images is not None
            scan = all_pairs(self.double_operator, self.images.double(), keep=KEEP)
            return scan.lowest[0][0], scan.highest[0][0]
        return None

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """G(z), computed in float64."""
        images = generate(self.double_prior, z.to(precision(self.double_prior)))
        return images.double()

    def secant(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        z: tuple[torch.Tensor, torch.Tensor] | None = None,
        index: tuple[int, int] | None = None,
    ) -> Direction:
        """The secant between two images (or the G(z) of two latents)."""
        if z is not None:
            first, second = self.decode(torch.stack(z))
        difference = (first.double() - second.double())[None]
        return Direction(
            kind="secant",
            ratio=float(ratio(self.double_operator, difference)),
            distance=float(difference.norm()),
            first=first,
            second=second,
            z_first=None if z is None else z[0],
            z_second=None if z is None else z[1],
            index=index,
        )

    def tangent(self, z: torch.Tensor, step: torch.Tensor) -> Direction:
        """The derivative of G at z along `step`, in float64."""
        dtype = precision(self.double_prior)
        direction = tangent(self.double_prior, z[None].to(dtype), step[None].to(dtype)).double()
        return Direction(
            kind="tangent",
            ratio=float(ratio(self.double_operator, direction)),
            distance=float(direction.norm()),
            first=self.decode(z[None])[0],
            second=direction[0],
            z_first=z,
            z_second=step,
        )


def _affine_constants(operator: Any, affine: Any) -> tuple[float, float]:
    q, _ = torch.linalg.qr(affine.basis.double())
    image = operator(q.T.reshape(-1, *affine.image_shape))
    values = torch.linalg.svdvals(image).square()
    # More dimensions than measurements: some direction is not seen at all.
    low = float(values[-1]) if image.shape[1] >= image.shape[0] else 0.0
    return low, float(values[0])


# ----------------------------------------------------------------------------------- the samples


@dataclass(frozen=True)
class _Sample:
    images: torch.Tensor
    z: torch.Tensor | None  # float64 latents of the images


def _sample(target: _Target, settings: _Settings) -> _Sample:
    if target.images is not None:
        return _Sample(target.images, None)
    z = draw_latents(target.latent_dim, settings.points, settings.seed, target.dtype)
    images = generate(target.prior, z, executor=settings.executor, progress=settings.progress)
    return _Sample(images, z.double())


def _independent(
    target: _Target, sample: _Sample, pairs: tuple[torch.Tensor, torch.Tensor] | None
) -> np.ndarray:
    """Ratios of the disjoint pairs (0, 1), (2, 3), … of the samples, or of the pairs given."""
    if pairs is None:
        first, second = sample.images[:-1:2], sample.images[1::2]
    else:
        first, second = pairs
        if first.shape != second.shape or len(first) < 1:
            shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise ValueError(f"pairs: got shapes {shapes}, expected two equal ones")
    ratios = [
        ratio(target.double_operator, a.detach().cpu().double() - b.detach().cpu().double())
        for a, b in zip(first.split(512), second.split(512), strict=True)
    ]
    return torch.cat(ratios).numpy()


def distribution_free(ratios: np.ndarray, epsilon: float = 0.05) -> DistributionFree | None:
    """The statement of `DistributionFree` from the ratios of independent secants.

    None if there are too few for it to say anything (ln(1/epsilon) / N >= 1).
    """
    return _distribution_free(ratios, epsilon)


def _distribution_free(ratios: np.ndarray, epsilon: float) -> DistributionFree | None:
    ratios = ratios[np.isfinite(ratios)]  # a pair of equal images has no secant
    if not len(ratios) or -np.log(epsilon) >= len(ratios):
        return None
    return DistributionFree(
        alpha=float(ratios.min()),
        beta=float(ratios.max()),
        n_pairs=len(ratios),
        epsilon=epsilon,
        fraction=float(-np.log(epsilon) / len(ratios)),
    )


def _histogram(ratios: np.ndarray, bins: int) -> Histogram:
    ratios = ratios[np.isfinite(ratios)]
    edges = histogram_edges(ratios, bins)
    return Histogram(edges, np.histogram(ratios, edges)[0], 0, 0)


# ------------------------------------------------------------------------------------- the looks


def _look_at_secants(
    target: _Target, sample: _Sample, settings: _Settings
) -> tuple[Look, SecantScan]:
    began = time.perf_counter()
    scan = all_pairs(
        target.operator,
        sample.images,
        bins=settings.bins,
        keep=max(KEEP, settings.search_starts),
        executor=settings.executor,
        progress=settings.progress,
    )
    low = [_sampled(target, sample, pair) for pair in scan.lowest[:KEEP]]
    high = [_sampled(target, sample, pair) for pair in scan.highest[:KEEP]]
    what = f"{scan.n_pairs:,} secants of {len(sample.images):,} points"
    return _found("secants", low, high, scan.n_pairs, what, began), scan


def _sampled(target: _Target, sample: _Sample, pair: tuple[float, int, int]) -> Direction:
    _, i, j = pair
    z = None if sample.z is None else (sample.z[i], sample.z[j])
    return target.secant(sample.images[i], sample.images[j], z, (i, j))


def _look_at_pairs(target: _Target, pairs: tuple[torch.Tensor, torch.Tensor]) -> Look:
    began = time.perf_counter()
    ratios = _independent(target, _Sample(pairs[0], None), pairs)
    if not np.isfinite(ratios).any():
        raise ValueError("pairs: all are equal, so they have no secants")
    extremes = (int(np.nanargmin(ratios)), int(np.nanargmax(ratios)))
    low, high = (target.secant(pairs[0][i], pairs[1][i], index=(i, i)) for i in extremes)
    return _found("secants", [low], [high], len(ratios), f"{len(ratios):,} given secants", began)


def _look_at_tangents(
    target: _Target, sample: _Sample, settings: _Settings
) -> tuple[Look, TangentScan | None]:
    began = time.perf_counter()
    if sample.z is None:
        return _nothing("tangents", "the set has no generator", began), None
    z = sample.z[: settings.tangent_points].to(target.dtype)
    scan = tangents(
        target.double_operator,
        target.prior,
        z,
        executor=settings.executor,
        progress=settings.progress,
    )
    if not np.isfinite(scan.low).any():
        return _nothing("tangents", "the Jacobian vanishes at every sample", began), scan
    low, high = _refined(target, z.double(), scan)
    note = "done"
    if scan.n_deficient:
        note = (
            f"done; the Jacobian has rank {scan.rank.min()} to {scan.rank.max()} of"
            f" {target.latent_dim}, less than full at {scan.n_deficient} of {len(z)} points"
        )
    what = f"all tangents at {len(z):,} points"
    return _found("tangents", [low], [high], len(z), what, began, note), scan


def _refined(target: _Target, z: torch.Tensor, scan: TangentScan) -> tuple[Direction, Direction]:
    """The lowest and the highest tangent: the most extreme points of a scan again, in float64."""
    worst_low = np.argsort(scan.low)[:REFINED]  # nan sorts last
    worst_high = np.argsort(np.nan_to_num(-scan.high, nan=np.inf))[:REFINED]
    chosen = torch.from_numpy(np.union1d(worst_low, worst_high))
    again = tangents(target.double_operator, target.double_prior, z[chosen])
    low, high = int(np.nanargmin(again.low)), int(np.nanargmax(again.high))
    return (
        target.tangent(z[chosen[low]], again.low_step[low]),
        target.tangent(z[chosen[high]], again.high_step[high]),
    )


def _search(
    target: _Target,
    sample: _Sample,
    scan: SecantScan | None,
    tangent: TangentScan | None,
    settings: _Settings,
) -> Look:
    began = time.perf_counter()
    if sample.z is None:
        return _nothing("search", "the set has no generator", began)
    starts = [
        _starts(sample.z, scan, tangent, settings.search_starts, largest)
        for largest in (False, True)
    ]
    first = torch.cat([start[0] for start in starts])
    second = torch.cat([start[1] for start in starts])
    largest = torch.cat([torch.full((len(start[0]),), i == 1) for i, start in enumerate(starts)])
    found = search_pairs(
        target.operator,
        target.prior,
        first,
        second,
        largest,
        radius=settings.radius,
        steps=settings.search_steps,
        executor=settings.executor,
        progress=settings.progress,
    )
    low, high = (_ends(target, found, largest == side, side) for side in (False, True))
    what = (
        f"{len(first)} searches of {settings.search_steps} steps within"
        f" ||z|| <= {settings.radius:.3g}"
    )
    return _found("search", low, high, found.n_evaluations, what, began)


def _starts(
    z: torch.Tensor,
    scan: SecantScan | None,
    tangent: TangentScan | None,
    count: int,
    largest: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of latents to search from: the worst tangents and the worst secants, in equal parts."""
    first: list[torch.Tensor] = []
    second: list[torch.Tensor] = []
    if tangent is not None:
        values, steps = (
            (-tangent.high, tangent.high_step) if largest else (tangent.low, tangent.low_step)
        )
        order = [i for i in np.argsort(values).tolist() if np.isfinite(values[i])]
        for i in order[: (count + 1) // 2 if scan is not None else count]:
            arm = TANGENT_STEP * steps[i] / steps[i].norm()
            first.append(z[i] + arm)
            second.append(z[i] - arm)
    if scan is not None:
        pairs = scan.highest if largest else scan.lowest
        for _, i, j in pairs[: count - len(first)]:
            first.append(z[i])
            second.append(z[j])
    if not first:
        half = min(count, len(z) // 2)
        return z[:half], z[half : 2 * half]
    return torch.stack(first), torch.stack(second)


def _ends(target: _Target, found: Found, chosen: torch.Tensor, largest: bool) -> list[Direction]:
    """The best secants a search ended with, and the tangents where the best of them lie."""
    assert found.z_second is not None
    index = chosen.nonzero().flatten()
    order = index[found.ratio[index].nan_to_num(nan=-1e300 if largest else 1e300).argsort()]
    order = (order.flip(0) if largest else order)[:REFINED]
    ends = [(found.z_first[i], found.z_second[i]) for i in order]
    directions = [target.secant(z[0], z[1], z) for z in ends]
    middle = torch.stack([(one + two) / 2 for one, two in ends])
    limits = tangents(target.double_operator, target.double_prior, middle)
    values, steps = (-limits.high, limits.high_step) if largest else (limits.low, limits.low_step)
    if np.isfinite(values).any():
        best = int(np.nanargmin(values))
        directions.append(target.tangent(middle[best], steps[best]))
    return directions


def _extrapolate(
    independent: np.ndarray | None,
    tangent: TangentScan | None,
    results: dict[str, Look],
    settings: _Settings,
) -> tuple[Look, tuple[Endpoint, ...]]:
    """Where the laws of secants and of tangent extremes seem to end.

    A fit that the other looks contradict with an actual direction is kept, and marked.
    """
    began = time.perf_counter()
    samples: list[tuple[np.ndarray, str, str]] = []
    if independent is not None:
        samples += [(independent, side, "independent secants") for side in ("lower", "upper")]
    if tangent is not None:
        samples.append((tangent.low, "lower", "tangent extremes"))
        samples.append((tangent.high, "upper", "tangent extremes"))
    tails = []
    for values, side, source in samples:
        end = fit_endpoint(values, side, source, seed=settings.seed)
        for name in ("secants", "tangents", "search"):
            if name in results:
                look = results[name]
                end = end.against(look.alpha if side == "lower" else look.beta, name)
        tails.append(end)
    low = [end.value for end in tails if end.fitted and end.side == "lower"]
    high = [end.value for end in tails if end.fitted and end.side == "upper"]
    missing = [side for side, ends in (("lower", low), ("upper", high)) if not ends]
    return Look(
        name="extrapolation",
        alpha=min(low, default=float("nan")),
        beta=max(high, default=float("nan")),
        n_directions=sum(end.n_tail for end in tails),
        statement="a model-based estimate of the infimum and supremum; it bounds nothing",
        status=f"no fit that holds for the {' and '.join(missing)} end" if missing else "done",
        lowest=None,
        highest=None,
        seconds=time.perf_counter() - began,
    ), tuple(tails)


def _found(
    name: str,
    low: list[Direction],
    high: list[Direction],
    n_directions: int,
    what: str,
    began: float,
    status: str = "done",
) -> Look:
    lowest = min(low, key=lambda direction: direction.ratio)
    highest = max(high, key=lambda direction: direction.ratio)
    return Look(
        name=name,
        alpha=lowest.ratio,
        beta=highest.ratio,
        n_directions=n_directions,
        statement=f"one-sided, over {what}: {SQUARED_SIDES}",
        status=status,
        lowest=lowest,
        highest=highest,
        seconds=time.perf_counter() - began,
    )


def _nothing(name: str, why: str, began: float) -> Look:
    nan = float("nan")
    seconds = time.perf_counter() - began
    return Look(name, nan, nan, 0, "says nothing", f"skipped: {why}", None, None, seconds)


# --------------------------------------------------------------------------------- instance-wise


def _pointwise(
    target: _Target,
    sample: _Sample,
    z_true: torch.Tensor | None,
    x_true: torch.Tensor | None,
    alpha: float,
    beta: float,
    looks: Collection[str],
    settings: _Settings,
) -> PointwiseRec:
    if z_true is not None:
        if z_true.ndim != 2 or z_true.shape[1] != target.latent_dim:
            came = tuple(z_true.shape)
            raise ValueError(f"z_true: got shape {came}, expected (count, {target.latent_dim})")
        z_true = z_true.detach().cpu().double()
        x_true = target.decode(z_true)
    assert x_true is not None
    x_true = x_true.detach().cpu().double()
    if x_true.shape[1:] != sample.images.shape[1:]:
        came, wanted = tuple(x_true.shape), tuple(sample.images.shape[1:])
        raise ValueError(f"x_true: got shape {came}, expected (count, *{wanted})")
    if target.orthonormal:
        beta, source = 1.0, "rows orthonormal: beta = 1 is certain"
    elif target.is_affine or target.is_finite_set:
        source = "the exact uniform beta"
    else:
        source = "the uniform beta found, itself one-sided"
    if target.is_affine:
        # Every direction of the set passes through every one of its points.
        constant = np.full(len(x_true), alpha)
        kappa = np.full(len(x_true), _quotient(beta, alpha))
        return PointwiseRec(constant, kappa, {}, beta, source, True, ())

    count = len(x_true)
    by_look = {name: np.full(count, np.nan) for name in LOOKS[:3]}
    worst: list[list[Direction]] = [[] for _ in range(count)]

    def note(name: str, i: int, direction: Direction) -> None:
        by_look[name][i] = np.fmin(by_look[name][i], direction.ratio)
        worst[i].append(direction)

    def secant(i: int, z: torch.Tensor | None, image: torch.Tensor, j: int | None) -> Direction:
        """The secant from x*[i] to G(z), or to `image`."""
        other = image.double() if z is None else target.decode(z[None])[0]
        difference = (x_true[i] - other)[None]
        return Direction(
            kind="secant",
            ratio=float(ratio(target.double_operator, difference)),
            distance=float(difference.norm()),
            first=x_true[i],
            second=other,
            z_first=None if z_true is None else z_true[i],
            z_second=z,
            index=None if j is None else (i, j),
        )

    nearest = secants_from(target.double_operator, x_true, sample.images)
    for i, entries in enumerate(nearest):
        for _, _, j in entries[:2]:
            z = None if sample.z is None else sample.z[j]
            note("secants", i, secant(i, z, sample.images[j], j))
    steps = None
    if z_true is not None and "tangents" in looks:
        steps = tangents(target.double_operator, target.double_prior, z_true).low_step
        for i in range(count):
            if torch.isfinite(steps[i]).all():
                note("tangents", i, target.tangent(z_true[i], steps[i]))
    if sample.z is not None and "search" in looks:
        owner, start = _pointwise_starts(sample.z, nearest, z_true, steps)
        found = search_from(
            target.operator,
            target.prior,
            start,
            x_true[owner],
            None if z_true is None else z_true[owner],
            radius=settings.radius,
            steps=settings.search_steps,
            executor=settings.executor,
            progress=settings.progress,
        )
        for i in range(count):
            mine = (owner == i).nonzero().flatten()
            best = mine[found.ratio[mine].nan_to_num(nan=torch.inf).argmin()]
            z = found.z_first[best]
            note("search", i, secant(i, z, x_true[i], None))
    chosen = tuple(min(found_here, key=lambda d: d.ratio) for found_here in worst)
    lowest = np.array([direction.ratio for direction in chosen])
    kappa = np.array([_quotient(beta, value) for value in lowest])
    return PointwiseRec(lowest, kappa, by_look, beta, source, target.is_finite_set, chosen)


def _pointwise_starts(
    z: torch.Tensor,
    nearest: list[tuple[tuple[float, int, int], ...]],
    z_true: torch.Tensor | None,
    steps: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every x*: the samples whose secants are worst, and both ends of its worst tangent."""
    owner: list[int] = []
    start: list[torch.Tensor] = []
    for i, entries in enumerate(nearest):
        for _, _, j in entries[:POINTWISE_STARTS]:
            owner.append(i)
            start.append(z[j])
        if z_true is not None and steps is not None and torch.isfinite(steps[i]).all():
            arm = TANGENT_STEP * steps[i] / steps[i].norm()
            owner += [i, i]
            start += [z_true[i] + arm, z_true[i] - arm]
    return torch.tensor(owner), torch.stack(start)


# -------------------------------------------------------------------------------------- in words


def _verdict(alpha: float, beta: float, exact: bool, looks: list[Look]) -> str:
    kappa = _quotient(beta, alpha)
    if exact:
        side = "<" if kappa < 2 else ">="
        return f"kappa {side} 2: it is {kappa:.4g} exactly"
    if kappa < 2:
        total = sum(look.n_directions for look in looks)
        return (
            f"kappa < 2 is not contradicted: {kappa:.4g} over {total:,} directions, a lower bound"
            " on the true kappa"
        )
    for look in looks:
        if look.kappa >= 2:
            return (
                f"kappa >= 2: the {look.name} already give {look.kappa:.4g}"
                f" (all looks {kappa:.4g}); Theorem 1 does not apply uniformly"
            )
    return f"kappa >= 2: all looks together give {kappa:.4g}; Theorem 1 does not apply uniformly"


def _quotient(beta: float, alpha: float) -> float:
    if alpha > 0:
        return beta / alpha
    return float("inf") if alpha == 0 and beta > 0 else float("nan")


def _listed(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else values.tolist()
