"""Error of a projector onto S = range(G).

P is a δ-approximate projector if ‖x − P(x)‖² ≤ min_{s∈S} ‖x − s‖² + δ for every x (Raj, Li,
Bresler, ICCV 2019, Theorem 1; squared distances, sums over pixels). At one point x this asks for

    δ_x = ‖x − P(x)‖² − min_{s∈S} ‖x − s‖²,

and the theorem's δ is the supremum of δ_x. Whatever is measured here is a lower bound on it, for
two reasons: only some points are looked at, and for a network the minimum is searched for, so that
the distance found may be too large. For affine and finite sets the minimum is exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from npgd import checks
from npgd.images import Images
from npgd.operators import LinearOperator
from npgd.projectors import AffineSet, FiniteSet, LatentSearch

__all__ = [
    "FamilyError",
    "Nearest",
    "ProjectionError",
    "gradient_points",
    "nearest_in_range",
    "projection_error",
    "sample_families",
]


QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The best points of S found for given images."""

    image: Images
    latent: Float[torch.Tensor, "batch k"] | None
    """z with G(z) = image; None for a finite set, or where the caller's own point was best."""
    squared_distance: Float[torch.Tensor, " batch"]
    """‖x − image‖² in float64: the minimum if ``exact``, else an upper bound on it."""
    exact: Float[torch.Tensor, " batch"]
    """Whether the distance is certainly the minimum, for each image."""


@torch.no_grad()
def nearest_in_range(
    prior: Any,
    points: Images,
    *,
    known: Images | None = None,
    starts: int = 8,
    steps: int = 300,
    seed: int = 0,
    progress: bool = False,
) -> Nearest:
    """argmin_{s∈S} ‖x − s‖² for each image: exact on affine and finite sets, else by search.

    The search is :class:`npgd.LatentSearch`, batched Adam on z from ``starts`` starts, the
    encoder's among them; its answer is the best point met, and no certificate. Images equal to
    their ``known`` point lie in S and are not searched for.

    Args:
        prior: an ``AffineSet`` or ``FiniteSet``, or anything with ``generate(z)``, ``latent_dim``
            and ``image_shape`` (and ``encode(w)``, if it has one).
        known: points of S, one for each image, which the answer must not be worse than.
        starts, steps, seed, progress: of the search.

    Raises:
        TypeError: if S cannot be searched, because ``prior`` has no ``generate``.
        ValueError: if the shapes do not fit.
    """
    shape = checks.image_shape(prior.image_shape)
    x = _native(prior, checks.finite(checks.images(points, shape, "points"), "points"))
    if known is not None and known.shape != points.shape:
        raise ValueError(
            f"known: expected shape {tuple(points.shape)} as of points, got {tuple(known.shape)}"
        )
    if isinstance(prior, (AffineSet, FiniteSet)):
        image = prior.project(x)
        latent = prior.encode(x) if isinstance(prior, AffineSet) else None
        return Nearest(image, latent, _distance(x, image), torch.ones(len(x), dtype=torch.bool))
    if isinstance(prior, LatentSearch):
        prior = prior.prior
    if not hasattr(prior, "generate"):
        raise TypeError(
            f"prior must have `generate` to be searched, {type(prior).__name__} has not"
        )

    inside = torch.zeros(len(x), dtype=torch.bool)
    image, latent = x.clone(), x.new_full((len(x), prior.latent_dim), torch.nan)
    if known is not None:
        inside = (points == known).flatten(1).all(1).cpu()
    rest = ~inside
    if rest.any():
        search = LatentSearch(prior, starts=starts, steps=steps, seed=seed, progress=progress)
        latent[rest], _ = search.search(x[rest])
        image[rest] = prior.generate(latent[rest])
    squared = _distance(x, image)
    if known is not None:
        theirs = known.to(x)
        nearer = _distance(x, theirs) < squared
        image = torch.where(nearer.to(x.device)[:, None, None, None], theirs, image)
        latent[nearer] = torch.nan
        squared = _distance(x, image)
    return Nearest(image, None if latent.isnan().any() else latent, squared, squared == 0)


@dataclass(frozen=True, eq=False)
class FamilyError:
    """δ_x over one family of points."""

    achieved: Float[torch.Tensor, " n"]
    """‖x − P(x)‖²"""
    nearest: Float[torch.Tensor, " n"]
    """The smallest ‖x − s‖² found over s in S."""
    exact: bool
    """Whether every ``nearest`` is certainly the minimum."""

    @property
    def deltas(self) -> Float[torch.Tensor, " n"]:
        """δ_x; below zero only where P leaves S, or finds a nearer point than the search."""
        return self.achieved - self.nearest

    @property
    def delta(self) -> float:
        """Largest δ_x of the family, at least 0."""
        return max(0.0, float(self.deltas.max()))

    def to_dict(self) -> dict[str, Any]:
        probabilities = torch.tensor(QUANTILES, dtype=torch.float64)
        values = self.deltas.quantile(probabilities).tolist()
        return {
            "points": len(self.achieved),
            "exact": self.exact,
            "delta": self.delta,
            "quantiles": dict(zip(map(str, QUANTILES), values, strict=True)),
            "achieved": self.achieved.tolist(),
            "nearest": self.nearest.tolist(),
        }


@dataclass(frozen=True, eq=False)
class ProjectionError:
    """δ_x over families of points; ``delta``, the largest, is a lower bound on the theorem's δ."""

    families: dict[str, FamilyError]
    method: str
    """How the nearest points were found."""
    seconds: float

    @property
    def delta(self) -> float:
        """Largest δ_x of all points, at least 0."""
        return max(family.delta for family in self.families.values())

    @property
    def deltas(self) -> Float[torch.Tensor, " n"]:
        """δ_x of all points, family by family."""
        return torch.cat([family.deltas for family in self.families.values()])

    @property
    def exact(self) -> bool:
        """Whether every δ_x is certain; their maximum still is a lower bound on the theorem's δ."""
        return all(family.exact for family in self.families.values())

    @property
    def status(self) -> str:
        """What the number means, in words."""
        count = len(self.deltas)
        worst = max(self.families, key=lambda name: self.families[name].delta)
        text = f"δ ≥ {self.delta:.4g} (largest of {count} points, among {worst}; "
        if self.exact:
            return text + "each exact, but other points may have more)"
        return (
            text
            + f"a lower bound: {self.method} can miss the nearest point, and other points exist)"
        )

    def __str__(self) -> str:
        lines = [self.status]
        for name, family in self.families.items():
            low, middle, high = family.deltas.quantile(
                torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
            ).tolist()
            lines.append(
                f"  {name}: {len(family.deltas)} points, δ_x median {middle:.4g}, 5 to 95 % "
                f"{low:.4g} to {high:.4g}, largest {family.delta:.4g}; nearest point at "
                f"{float(family.nearest.quantile(0.5)):.4g} (median)"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return {
            "delta": self.delta,
            "exact": self.exact,
            "method": self.method,
            "families": {name: family.to_dict() for name, family in self.families.items()},
            "seconds": self.seconds,
            "status": self.status,
        }


@torch.no_grad()
def projection_error(
    prior: Any,
    points: Images | Mapping[str, Images],
    *,
    known: Mapping[str, Images] | None = None,
    projector: Callable[[Images], Images] | None = None,
    starts: int = 8,
    steps: int = 300,
    seed: int = 0,
    progress: bool = False,
) -> ProjectionError:
    """δ_x = ‖x − P(x)‖² − min_{s∈S} ‖x − s‖² at points of the caller's choice.

    Args:
        prior: S, as in :func:`nearest_in_range`.
        points: images, or families of images by name: samples of G and noisy samples
            (:func:`sample_families`), real images, a run's own w_n (:func:`gradient_points`).
        known: for a family, points of S near its images (a sample for its noisy version, x* for
            w_n); they sharpen the search.
        projector: P; default ``prior.project``.
        starts, steps, seed, progress: of the search for the nearest point.

    Raises:
        TypeError: if there is no projector, or S cannot be searched.
        ValueError: if there are no points, or shapes do not fit.
    """
    began = time.perf_counter()
    families = points if isinstance(points, Mapping) else {"points": points}
    known = {} if known is None else known
    if not families or any(len(x) == 0 for x in families.values()):
        raise ValueError("points: expected at least one image in every family")
    if unknown := set(known) - set(families):
        raise ValueError(f"known: no such family {sorted(unknown)}, expected {sorted(families)}")
    if projector is None and not hasattr(prior, "project"):
        raise TypeError(f"projector: needed, as {type(prior).__name__} has no `project`")
    project = prior.project if projector is None else projector

    searched = not isinstance(prior, (AffineSet, FiniteSet))
    nearest = {
        name: nearest_in_range(
            prior,
            x,
            known=known.get(name),
            starts=starts,
            steps=steps,
            seed=seed,
            progress=progress,
        )
        for name, x in families.items()
    }
    errors = {}
    for name, x in families.items():
        x = _native(prior, x)
        achieved = _distance(x, project(x))
        least = nearest[name].squared_distance
        if searched and projector is None:
            # P = G∘G† is itself a point of S.
            least = torch.minimum(least, achieved)
        errors[name] = FamilyError(achieved, least, bool(nearest[name].exact.all()))
    return ProjectionError(
        families=errors,
        method=f"search from {starts} starts, {steps} steps each"
        if searched
        else "exact projection",
        seconds=time.perf_counter() - began,
    )


@torch.no_grad()
def sample_families(
    prior: Any, count: int = 64, sigmas: tuple[float, ...] = (1.0,), seed: int = 0
) -> tuple[dict[str, Images], dict[str, Images]]:
    """Samples of G, and the same plus N(0, σ²) on every pixel: (families, their known points).

    σ = 1 is the noise that the paper trains the projector with.
    """
    checks.integer(count, "count")
    generator = torch.Generator().manual_seed(checks.integer(seed, "seed", minimum=0))
    clean = prior.sample(count, generator=generator)
    families = {"samples of G": clean}
    for sigma in sigmas:
        checks.number(sigma, "sigmas")
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        families[f"samples with noise σ = {sigma:g}"] = clean + sigma * noise.to(clean)
    return families, dict.fromkeys(families, clean)


@torch.no_grad()
def gradient_points(
    A: LinearOperator,
    y: Float[torch.Tensor, "batch m"],
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"],
    step_size: float,
) -> Float[torch.Tensor, "n_iter batch channels height width"]:
    """The points w_n = x_n − η Aᵀ(A x_n − y) that a run handed to its projector."""
    step_size = checks.number(step_size, "step_size")
    return torch.stack([x - step_size * A.adjoint(A(x) - y) for x in iterates[:-1]])


def _distance(x: Images, s: Images) -> Float[torch.Tensor, " batch"]:
    return (x.double() - s.double()).flatten(1).square().sum(1).cpu()


def _native(prior: Any, x: Images) -> Images:
    """x in the dtype and on the device of the prior, where the prior has one."""
    if isinstance(prior, torch.nn.Module):
        for tensor in (*prior.parameters(), *prior.buffers()):
            if tensor.is_floating_point():
                return x.to(tensor)
    return x
