"""Error of a projector onto S = range(G).

P is a δ-approximate projector if ‖x − P(x)‖² ≤ min_{s∈S} ‖x − s‖² + δ for every x (Raj, Li,
Bresler, ICCV 2019, Theorem 1; squared distances, sums over pixels). At one point x this asks for

    δ_x = ‖x − P(x)‖² − min_{s∈S} ‖x − s‖²,

and the theorem's δ is the supremum of δ_x. Whatever is measured here is a lower bound on it, for
two reasons: only some points are looked at, and for a network the minimum is searched for, so that
the distance found may be too large. For affine and finite sets the minimum is exact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from jaxtyping import Float

from analysis.drawing import COLOURS
from analysis.memory import LARGE, memory_of, passing_within
from analysis.rates.identity import check_run, needs_map
from analysis.tasks import check_executor, in_order, one_thread
from analysis.words import about, at_least, median
from npgd import checks, sets
from npgd.gauss_newton import gauss_newton_step
from npgd.images import Images, Latents, PerImage, squared_norm
from npgd.operators import LinearOperator
from npgd.precision import like, plainly
from npgd.projectors import AffineSet, FiniteSet, LatentSearch
from npgd.quasi_newton import Descent
from npgd.sets import Generated, ImageSet
from npgd.showing import Drawn, Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FamilyError",
    "Nearest",
    "ProjectionError",
    "ProjectionSettings",
    "gradient_points",
    "nearest_in_range",
    "projection_error",
    "projects_exactly",
    "sample_families",
]


QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class ProjectionSettings(Shown):
    """How far `analysis.verify` looks for δ, and for the best point of S for every image.

    Raises:
        TypeError, ValueError: naming the setting that does not fit.
    """

    points: int = 24
    """Points in each family: samples of S, the same with noise, and w_n of the run."""
    starts: int = 3
    """Starts of the search for the nearest point of S, for each image."""
    steps: int = 100
    """Adam steps of the search from each start, before Gauss–Newton; 0 takes the best start."""

    def __post_init__(self) -> None:
        checks.settle(
            self,
            points=checks.integer(self.points, "points"),
            starts=checks.integer(self.starts, "starts"),
            steps=checks.integer(self.steps, "steps", minimum=0),
        )

    @classmethod
    def of(cls, effort: str, entries: int = 1) -> ProjectionSettings:
        """The settings of an effort: "quick", "default" or "thorough"; ValueError for another.

        Of a set whose Jacobians hold more than 2²⁵ numbers (`entries`), where a pass of G is long,
        "quick" looks at 4 points, by 20 steps.
        """
        checks.choice(effort, "effort", *EFFORTS)
        points, starts, steps = EFFORTS[effort]
        if effort == "quick" and entries > LARGE:
            points, starts, steps = LARGE_EFFORT
        return cls(points, starts, steps)


EFFORTS = {"quick": (8, 2, 40), "default": (24, 3, 100), "thorough": (96, 8, 300)}
"""Points, starts and steps, by effort."""
LARGE_EFFORT = (4, 2, 20)
"""The same of "quick" for large sets."""


@dataclass(frozen=True, eq=False)
class Nearest(Shown):
    """The best points of S found for given images."""

    image: Images
    """The points, (batch, channels, height, width)."""
    latent: Latents | None
    """z with G(z) = image; None for a finite set, or where the caller's own point was best."""
    squared_distance: Float[torch.Tensor, " batch"]
    """‖x − image‖² in float64: the minimum if `exact`, else an upper bound on it."""
    exact: Float[torch.Tensor, " batch"]
    """Whether the distance is certainly the minimum, for each image."""


@plainly
@torch.no_grad()
def nearest_in_range(
    prior: ImageSet,
    points: Images,
    *,
    known: Images | None = None,
    starts: int = 8,
    steps: int = 300,
    seed: int = 0,
    progress: bool = False,
    memory: int | str | None = None,
) -> Nearest:
    """argmin_{s∈S} ‖x − s‖² for each image: exact on affine and finite sets, else by search.

    The search is `npgd.LatentSearch`, batched Adam on z from `starts` starts, the encoder's among
    them; Gauss–Newton steps from its best latent follow, as long as a step takes a tenth off the
    squared distance, and the same from the encoder's where the image seems near S. A point of S is
    thus found to rounding where the search comes near its latent. The answer is the best point met,
    and no certificate. Images equal to their `known` point lie in S and are not searched for.

    Args:
        prior: an `AffineSet` or `FiniteSet`, or anything with `generate(z)`, `latent_dim` and
            `image_shape` (and `encode(w)`, if it has one).
        points: (batch, channels, height, width), pixels in [-1, 1] where S is one of images.
        known: points of S, one for each image; the answer is not worse than they are.
        starts: starts of the search, for each image.
        steps: Adam steps from each start; 0 takes the best start as it is.
        seed: of the random starts.
        progress: show a progress bar.
        memory: most bytes, or "2 GB": fewer images of a `GenerativePrior` are searched for at a
            time, and by quasi-Newton steps where a Jacobian takes more than a quarter.

    Raises:
        TypeError: if S cannot be searched, because `prior` has no `generate`.
        ValueError: if the shapes do not fit.
    """
    sets.needs(prior, "image_shape", what="the nearest point of S")
    shape = checks.image_shape(prior.image_shape)  # type: ignore[union-attr]
    x = like(checks.finite(checks.images(points, shape, "points"), "points"), prior)
    if known is not None:
        checks.finite(checks.floating(known, "known"), "known")
    starts = checks.integer(starts, "starts")
    steps = checks.integer(steps, "steps", minimum=0)
    seed, progress = checks.seed(seed), checks.flag(progress, "progress")
    if known is not None and known.shape != points.shape:
        raise ValueError(_unlike(points, known))
    if projects_exactly(prior):
        # A finite set that may choose among ties is measured by the nearest of them.
        exact = FiniteSet(prior.points) if isinstance(prior, FiniteSet) else prior
        image = exact.project(x)
        z = exact.encode(x) if isinstance(exact, AffineSet) else None
        return Nearest(image, z, _distance(x, image), torch.ones(len(x), dtype=torch.bool))
    bound = memory_of(memory)
    S = passing_within(prior.prior if isinstance(prior, LatentSearch) else prior, bound)
    most = LARGE if bound is None else min(LARGE, bound // (4 * JACOBIAN))
    sets.needs(S, "generate", "latent_dim", what="a search for its nearest point")
    assert sets.generates(S)

    image, latent = x.clone(), x.new_full((len(x), S.latent_dim), torch.nan)
    inside = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if known is not None:
        inside = (points == known).flatten(1).all(1).to(x.device)
    rest = ~inside
    if rest.any():
        search = LatentSearch(S, starts=starts, steps=steps, seed=seed, progress=progress)
        z, _ = search.search(x[rest])
        latent[rest] = z if steps == 0 else _refined(S, x[rest], z, steps, most)
        image[rest] = S.generate(latent[rest])
    squared = _distance(x, image)
    if known is not None:
        theirs = known.to(x)
        nearer = (_distance(x, theirs) < squared).to(x.device)
        image = torch.where(nearer[:, None, None, None], theirs, image)
        latent[nearer] = torch.nan
        squared = _distance(x, image)
    return Nearest(image, None if latent.isnan().any() else latent, squared, squared == 0)


def projects_exactly(S: object) -> TypeGuard[AffineSet | FiniteSet]:
    """Whether the nearest points of S are known, and need no search."""
    return isinstance(S, AffineSet | FiniteSet)


FALL = 0.9
"""Gauss–Newton goes on with an image while a step leaves less than this share of ‖x − G(z)‖²,"""
MOST = 30
"""and for so many steps at most."""


NEAR = 0.05
"""An image within this share of ‖x‖² may lie in S, and is worth another start,"""
FOUND = 1e-10
"""unless it is as near as this."""


def _refined(S: Generated, x: Images, z: Latents, steps: int, most: int) -> Latents:
    """Latents after Gauss–Newton; of images left near S also from the encoder, if that is nearer.

    Adam may leave the encoder's valley for one that ends higher.
    """
    z = _polished(S, x, z, steps, most)
    if not sets.encodes(S):
        return z
    distance = _distance(x, S.generate(z))
    size = squared_norm(x.double()).cpu()
    near = (distance < NEAR * size) & (distance > FOUND * size)
    if near.any():
        again = _polished(S, x[near], S.encode(x[near]), steps, most)
        nearer = _distance(x[near], S.generate(again)) < distance[near]
        z[near.nonzero().flatten()[nearer]] = again[nearer]
    return z


DESCENT = 60
"""Quasi-Newton steps, in place of those of Gauss and Newton where a Jacobian is large; at most as
many as of Adam."""


JACOBIAN = 20
"""Bytes for each number of a Jacobian that Gauss and Newton's step forms."""


def _polished(S: Generated, x: Images, z: Latents, steps: int, most: int) -> Latents:
    """Latents after Gauss–Newton steps on ‖x − G(z)‖², image by image while they gain; by
    quasi-Newton steps where a Jacobian has more than `most` numbers."""
    if x[0].numel() * z.shape[1] > most:
        return _descended(S, x, z, min(DESCENT, steps))
    z, target = z.clone(), x.flatten(1)
    least = _distance(x, S.generate(z)).to(x.device)
    moving = torch.arange(len(x), device=x.device)
    for _ in range(MOST):
        stepped, image = gauss_newton_step(S, z[moving], target[moving])
        reached = _distance(x[moving], image).to(x.device)
        falls, gains = reached < least[moving], reached < FALL * least[moving]
        z[moving[falls]], least[moving[falls]] = stepped[falls], reached[falls]
        moving = moving[gains]
        if not len(moving):
            break
    return z


def _descended(S: Generated, x: Images, z: Latents, steps: int) -> Latents:
    """Latents after quasi-Newton steps, one image at a time, with its pixels as measurements."""
    pixels = _Pixels(x.shape[1:])
    found = []
    for image, start in zip(torch.split(x, 1), torch.split(z, 1), strict=True):
        y = image.flatten(1)
        at = Descent.at(S, start, y, pixels, 0.0)
        for _ in range(steps):
            at = at.step(S, y, pixels, 0.0)
        found.append(at.z)
    return torch.cat(found)


class _Pixels(LinearOperator):
    """The identity, from images to their pixels in a row."""

    def __init__(self, image_shape: Sequence[int]) -> None:
        super().__init__(image_shape, math.prod(image_shape))

    def _forward(self, x: Images) -> Images:
        return x.flatten(1)

    def _adjoint(self, y: Images) -> Images:
        return y.reshape(-1, *self.image_shape)


@dataclass(frozen=True, eq=False)
class FamilyError(Shown):
    """δ_x over one family of points."""

    achieved: Float[torch.Tensor, " n"]
    """‖x − P(x)‖²"""
    nearest: Float[torch.Tensor, " n"]
    """The smallest ‖x − s‖² found over s in S."""
    exact: bool
    """Whether every `nearest` is certainly the minimum."""

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
class ProjectionError(Drawn):
    """δ_x over families of points; `delta`, the largest, is a lower bound on the theorem's δ."""

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
        if self.delta <= self.rounding:
            text = f"δ = 0 to rounding ({_all(count)}; "
        else:
            worst = max(self.families, key=lambda name: self.families[name].delta)
            text = f"δ ≥ {at_least(self.delta, 4)} (largest of {count} points, among {worst}; "
        if self.exact:
            return text + "each exact, but other points may have more)"
        return (
            text
            + f"a lower bound: {self.method} can miss the nearest point, and other points exist)"
        )

    @property
    def rounding(self) -> float:
        """What δ may be by rounding of the squared distances alone."""
        eps = torch.finfo(torch.float64).eps
        largest = max(float(family.achieved.max()) for family in self.families.values())
        return 100 * eps * largest

    def draw(self, axis: Axes) -> None:
        """δ_x of every point, family by family, with the quartiles."""
        for i, (name, family) in enumerate(reversed(self.families.items())):
            _draw_family(axis, i, name, family.deltas)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_ylim(-0.5, len(self.families) - 0.3)
        axis.axvline(0, color="black", lw=0.6)
        axis.set_xlabel("δ_x = ‖x − P(x)‖² − min ‖x − s‖²")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        lines = [self.status]
        for name, family in self.families.items():
            low, middle, high = family.deltas.quantile(
                torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
            ).tolist()
            lines.append(
                f"  {name}: {_counted(len(family.deltas))}, δ_x median {about(middle)}, 5 to 95 % "
                f"{about(low)} to {about(high)}, largest {about(family.delta)}; nearest point at "
                f"{about(median(family.nearest))} (median)"
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


def _draw_family(axis: Axes, i: int, name: str, deltas: torch.Tensor) -> None:
    """The points of one family at height i; it alone is named in the legend where i = 0."""
    # Points are spread in a fixed pattern, so that the figure is the same every time.
    jitter = 0.16 * torch.sin(torch.arange(len(deltas), dtype=torch.float64) * 12.9898)
    axis.plot(
        deltas, i + jitter, "o", ms=3, alpha=0.5, color=COLOURS["delta"], mec="none",
        label="a point" if i == 0 else None,
    )  # fmt: skip
    low, middle, high = deltas.quantile(torch.tensor([0.25, 0.5, 0.75]).to(deltas)).tolist()
    label = "quartiles, and the median" if i == 0 else None
    axis.plot([low, high], [i, i], color="black", lw=2, solid_capstyle="butt", label=label)
    axis.plot(middle, i, "|", color="black", ms=14, mew=2)
    axis.text(0.01, i + 0.28, name, transform=axis.get_yaxis_transform(), fontsize=9)


@plainly
@torch.no_grad()
def projection_error(
    prior: ImageSet,
    points: Images | Mapping[str, Images],
    *,
    known: Mapping[str, Images] | None = None,
    projector: Callable[[Images], Images] | None = None,
    starts: int = 8,
    steps: int = 300,
    seed: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
    memory: int | str | None = None,
) -> ProjectionError:
    """δ_x = ‖x − P(x)‖² − min_{s∈S} ‖x − s‖² at points of the caller's choice.

    Args:
        prior: S, as in `nearest_in_range`.
        points: images, or families of images by name: samples of S and noisy samples
            (`sample_families`), real images, a run's own w_n (`gradient_points`).
        known: for a family, points of S near its images (a sample for its noisy version, x* for
            w_n); they sharpen the search.
        projector: P; default `prior.project`.
        starts, steps, seed, progress: of the search for the nearest point.
        executor: runs the searches, of 1024 latents each; what is found does not depend on it,
            but for the order in which several threads of torch sum.
        memory: of `nearest_in_range`; in other processes it bounds a task.

    Raises:
        TypeError: if there is no projector, or S cannot be searched.
        ValueError: if there are no points, or shapes do not fit.
    """
    began = time.perf_counter()
    families = points if isinstance(points, Mapping) else {"points": points}
    known = {} if known is None else known
    if not isinstance(known, Mapping):
        raise TypeError(f"known must map families to images, got {checks.shown(known)}")
    if not families:
        raise ValueError("points must hold at least one image in every family, got none")
    for x in families.values():
        checks.any_images(x, "points")
    if unknown := set(known) - set(families):
        raise ValueError(f"known must name families of {sorted(families)}, got {sorted(unknown)}")
    if projector is not None and not callable(projector):
        raise TypeError(f"projector must be callable, got {checks.shown(projector)}")
    if projector is None:
        sets.needs(prior, "project", what="δ of its projector (or give one)")
    check_executor(executor)
    bound = memory_of(memory)
    project = sets.projector(passing_within(prior, bound)) if projector is None else projector
    # P = G∘G† gives points of S itself, and so does every set that P belongs to.
    in_range = projector is None
    search = {
        "starts": starts, "steps": steps, "seed": seed, "progress": progress, "memory": bound,
    }  # fmt: skip
    nearest = _all_nearest(prior, families, known, search, executor)
    errors = {}
    for name, x in families.items():
        given, (least, exact) = like(x, prior), nearest[name]
        achieved = _distance(given, project(given))
        if in_range and not projects_exactly(prior):
            least = torch.minimum(least, achieved)
        errors[name] = FamilyError(achieved, least, exact)
    return ProjectionError(
        families=errors,
        method="exact projection"
        if projects_exactly(prior)
        else f"search from {starts} starts, {steps} steps each and Gauss–Newton",
        seconds=time.perf_counter() - began,
    )


LATENTS = 1024
"""Searched for together in one task: images × starts."""


def _all_nearest(
    prior: ImageSet,
    families: Mapping[str, Images],
    known: Mapping[str, Images],
    search: dict[str, Any],
    executor: Executor | None,
) -> dict[str, tuple[PerImage, bool]]:
    """For every family, the least squared distances and whether all of them are the minimum."""
    size = max(1, LATENTS // checks.integer(search["starts"], "starts"))
    work, names = [], []
    for name, x in families.items():
        beside = known.get(name)
        if beside is not None and checks.floating(beside, "known").shape != x.shape:
            raise ValueError(_unlike(x, beside))
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            work.append((prior, x[part], None if beside is None else beside[part], search))
            names.append(name)
    if executor is None:
        parts = [_nearest(*args) for args in work]
    else:
        shown = checks.flag(search["progress"], "progress")
        quiet = search | {"progress": False}
        tasks = ((*args[:-1], quiet) for args in work)
        parts = in_order(
            _nearest_task, tasks, len(work), "nearest points", executor=executor, progress=shown
        )
    found = {}
    for name in families:
        own = [part for part, of in zip(parts, names, strict=True) if of == name]
        squared = torch.cat([squared for squared, _ in own])
        found[name] = (squared, all(exact for _, exact in own))
    return found


def _nearest(
    prior: ImageSet, x: Images, known: Images | None, search: dict[str, Any]
) -> tuple[PerImage, bool]:
    nearest = nearest_in_range(prior, x, known=known, **search)
    return nearest.squared_distance, bool(nearest.exact.all())


def _nearest_task(
    prior: ImageSet, x: Images, known: Images | None, search: dict[str, Any]
) -> tuple[PerImage, bool]:
    """The same on one thread, in a process of an executor."""
    with one_thread():
        return _nearest(prior, x, known, search)


@torch.no_grad()
def sample_families(
    prior: ImageSet, count: int = 64, sigmas: tuple[float, ...] = (1.0,), seed: int = 0
) -> tuple[dict[str, Images], dict[str, Images]]:
    """Samples of G, and the same plus N(0, σ²) on every pixel: (families, their known points).

    σ = 1 is the noise that the paper trains the projector with.
    """
    count = checks.integer(count, "count")
    levels = checks.numbers_of(sigmas, "sigmas")
    sets.needs(prior, "sample", what="families of samples")
    assert sets.samples(prior)
    generator = checks.seeded(seed)
    clean = prior.sample(count, generator=generator)
    families = {"samples of S": clean}
    for sigma in levels:
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
    if checks.iterates(iterates).ndim != 5 or len(iterates) < 2:
        raise ValueError(
            "iterates must be of shape (n_iter + 1, batch, channels, height, width), two at least,"
            f" got {tuple(iterates.shape)}"
        )
    needs_map(A)
    checks.images(iterates[0], A.image_shape, "iterates")
    checks.finite(iterates, "iterates")
    check_run(A, y, iterates[0], iterates)
    checks.same_tensor(y, iterates, "y", "iterates")
    return torch.stack([x - step_size * A.adjoint(A(x) - y) for x in iterates[:-1]])


def _unlike(points: torch.Tensor, known: torch.Tensor) -> str:
    came = tuple(known.shape)
    return f"known must be of shape {tuple(points.shape)} as points are, got {came}"


def _distance(x: Images, s: Images) -> PerImage:
    return squared_norm(x.double() - s.double()).cpu()


def _counted(count: int) -> str:
    return f"{count} point{'s' * (count != 1)}"


def _all(count: int) -> str:
    return "the one point looked at" if count == 1 else f"at all {count} points looked at"
