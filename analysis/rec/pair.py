"""The pair (S, A) that is looked at: in its own precision, and in float64 for what is reported."""

from __future__ import annotations

import functools
import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

import torch

from analysis.memory import LARGE, Footprint, measured_together, passing_within, weights
from analysis.rec.results import Direction
from analysis.rec.rounding import ERROR, enclosed, unit
from analysis.rec.secants import all_pairs, in_parts
from analysis.rec.settings import RecSettings
from analysis.rec.tangents import TangentScan, tangent
from analysis.tasks import LATENT_CHUNK, draw_latents, generate
from npgd import checks, sets
from npgd.images import Images, PerImage, norm
from npgd.operators import LinearOperator
from npgd.precision import converted, precision
from npgd.projectors import AffineSet, FiniteSet

Kind = Literal["images", "finite", "affine", "generated"]
"""What S is: images drawn of it, all of its points, {B z + c}, or {G(z)}."""


def kind_of(S: object) -> Kind:
    """What S is; TypeError for what is no set, ValueError for images that have no secant."""
    if isinstance(S, torch.Tensor):
        checks.finite(checks.floating(S, "prior"), "prior")
        if S.ndim < 2 or len(S) < 2:
            raise ValueError(f"prior must hold at least two images, got shape {tuple(S.shape)}")
        return "images"
    if isinstance(S, FiniteSet):
        if len(S.points) < 2:
            raise ValueError("prior must have at least two points, got a FiniteSet of one")
        return "finite"
    if isinstance(S, AffineSet):
        return "affine"
    if sets.generates(S):
        return "generated"
    raise TypeError(
        "prior must have `generate`, `latent_dim` and `image_shape`, or be an AffineSet, a"
        f" FiniteSet or a tensor of images, got {type(S).__name__}"
    )


@dataclass(frozen=True)
class Plan:
    """How to look: the settings, the seed of the samples, and who does the work."""

    settings: RecSettings
    seed: int
    executor: Executor | None
    progress: bool
    radius: float
    """The search stays within ‖z‖ ≤ radius."""
    memory: int | None = None
    """Bytes that the work may take; None for no bound."""


@dataclass(frozen=True)
class Sample:
    """Points of S, in its own precision."""

    images: Images
    z: torch.Tensor | None
    """Their latents in float64; None where the images were given."""
    error: float
    """Each image is off by at most so much, in norm; 0 where it was given."""


@dataclass(frozen=True)
class Point:
    """One image in float64, off by at most `error` in norm."""

    image: torch.Tensor
    error: float = 0.0
    z: torch.Tensor | None = None


class Pair:
    """S and A in the precision they came in, for looking, and in float64, for reporting."""

    bound: int | None = None
    """Bytes that the work may take; None for no bound."""

    def __init__(self, A: Any, prior: Any) -> None:
        self.kind = kind_of(prior)
        if not callable(A) or not hasattr(A, "norm"):
            raise TypeError(f"A must be a LinearOperator, got {checks.shown(A)}")
        shape = tuple(prior.shape[1:]) if self.kind == "images" else tuple(prior.image_shape)
        if tuple(getattr(A, "image_shape", shape)) != shape:
            raise ValueError(
                f"A must have the prior's image_shape {shape}, got {tuple(A.image_shape)}"
            )
        self.images: torch.Tensor | None = None
        if self.kind in ("images", "finite"):
            points = prior.points if isinstance(prior, FiniteSet) else prior
            self.images = points.detach().cpu()
        self.dtype = precision(prior) if self.images is None else self.images.dtype
        checks.floating_type(self.dtype, "prior")
        self.generates = self.images is None
        self.latent_dim = int(prior.latent_dim) if self.generates else 0
        self.prior = converted(prior, self.dtype, "cpu") if self.generates else None
        self.exact_prior = converted(prior, torch.float64, "cpu") if self.generates else None
        self.A = converted(A, self.dtype, "cpu")
        self.exact_A = converted(A, torch.float64, "cpu")
        self.norm = float(self.exact_A.norm())
        checks.squares(torch.tensor(self.norm, dtype=torch.float64), "A")
        self.n = math.prod(prior.image_shape if self.images is None else self.images.shape[1:])
        self.error = ERROR * unit(precision(self.exact_prior)) if self.generates else 0.0
        self.orthonormal = bool(getattr(A, "row_orthonormal", False))

    def limit(self, bound: int | None) -> None:
        """Stay within so many bytes, copies in float64 included."""
        if bound is None:
            return
        self.bound = max(1, bound - self.copies)
        # Samples and a Jacobian are held as well, and a copy in float64 takes twice as much.
        self.prior = passing_within(self.prior, self.bound / 8)
        self.exact_prior = passing_within(self.exact_prior, self.bound / 8)

    @functools.cached_property
    def copies(self) -> int:
        """Bytes of the set and of A in float64, where these are copies, and of what A keeps."""
        pairs = ((self.exact_prior, self.prior), (self.exact_A, self.A))
        made = weights(*(exact for exact, own in pairs if exact is not own))
        if isinstance(self.A, LinearOperator):
            inside = [part for part in self.A.modules() if isinstance(part, LinearOperator)]
            dtypes = {self.dtype, torch.float64}
            made += sum(part._kept(dtype) for part in inside for dtype in dtypes)
        return made

    def exact(self) -> tuple[float, float] | None:
        """α and β of an affine or finite set, to the rounding of float64; None for any other.

        On {B z + c}, B = Q R, the extreme eigenvalues of QᵀAᵀA Q; on a finite set, the extremes
        over all its secants. What rounding may make of a direction that A does not see is 0.
        """
        if self.kind == "affine":
            assert self.exact_prior is not None
            basis = self.exact_prior.basis.double()
            low, high = span_constants(self.exact_A, basis, self.exact_prior)
        elif self.kind == "finite":
            assert self.images is not None
            scan = all_pairs(self.exact_A, self.images.double())
            low, high = scan.lowest[0][0], scan.highest[0][0]
        else:
            return None
        return self.seen(low), self.seen(high)

    @functools.cached_property
    def footprint(self) -> Footprint:
        """What one image takes of G, in its own precision."""
        z = torch.zeros(1, self.latent_dim, dtype=self.dtype)
        assert self.prior is not None
        return Footprint.of(self.prior.generate, z)

    @property
    def large(self) -> bool:
        """Whether a tangent space is so large that it is computed once, in the set's precision."""
        return self.generates and self.n * self.latent_dim > LARGE

    def again(self, z: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """The set, and latents, for tangents looked at closely: in float64, but for large ones."""
        return (self.prior, z.to(self.dtype)) if self.large else (self.exact_prior, z)

    def rows(self, memory: int | None) -> int:
        """Images that are generated at a time."""
        bound = None if memory is None else memory / 2
        return LATENT_CHUNK if bound is None else self.footprint.passing(bound, LATENT_CHUNK)

    def seen(self, ratio: float) -> float:
        """A ratio as computed, 0 where rounding alone may make it of a direction A does not see."""
        return ratio if ratio > (self.n * unit(torch.float64) * self.norm) ** 2 else 0.0

    def sample(self, plan: Plan) -> Sample:
        """Samples G(z), z ~ N(0, I), or the images that S was given as.

        Raises ValueError for a G(z) or an A(x) that is not finite.
        """
        if self.images is not None:
            images, z, error = self.images, None, 0.0
        else:
            drawn = draw_latents(self.latent_dim, plan.settings.points, plan.seed, self.dtype)
            images = generate(
                self.prior,
                drawn,
                executor=plan.executor,
                progress=plan.progress,
                rows=self.rows(self.bound),
            )
            z = drawn.double()
            parts = in_parts(images)
            bad = sum(int((~torch.isfinite(part.flatten(1)).all(1)).sum()) for part in parts)
            if bad:
                raise ValueError(
                    f"prior must generate finite images, got NaN or infinity in {bad:,} of"
                    f" {len(images):,} samples G(z)"
                )
            error = ERROR * unit(self.dtype) * max(float(norm(part).max()) for part in parts)
        with torch.no_grad():
            if not bool(torch.isfinite(self.A(images[:2])).all()):
                raise ValueError("A must give finite measurements, got NaN or infinity in A(x)")
        return Sample(images, z, error)

    def decode(self, z: torch.Tensor) -> Images:
        """G(z) of a batch, computed in float64."""
        rows = LATENT_CHUNK if self.bound is None else max(1, self.rows(self.bound) // 2)
        at = z.to(precision(self.exact_prior))
        return generate(self.exact_prior, at, rows=rows).double()

    def point(self, z: torch.Tensor) -> Point:
        """G(z) of one latent."""
        image = self.decode(z[None])[0]
        return Point(image, self.error * float(image.norm()), z)

    def sampled(self, sample: Sample, index: int) -> Point:
        """One point of a sample: G(z) anew in float64, or the image given."""
        if sample.z is not None:
            return self.point(sample.z[index])
        return Point(sample.images[index].double())

    def secant(
        self, first: Point, second: Point, index: tuple[int, int] | None = None
    ) -> Direction | None:
        """The secant between two points; None if it is too short to count."""
        difference = first.image - second.image
        ends = self._ends(difference, first.error + second.error)
        if ends is None:
            return None
        return Direction(
            "secant",
            *ends,
            distance=float(difference.norm()),
            first=first.image,
            second=second.image,
            z_first=first.z,
            z_second=second.z,
            index=index,
        )

    def tangent(self, scan: TangentScan, i: int, highest: bool) -> Direction | None:
        """The highest (or lowest) tangent at z[i] of a scan in float64; None where there is none.

        Where J has more rank than A has rows, A maps some tangent to 0: there r = 0 is certain.
        """
        z, step = scan.z[i], (scan.high_step if highest else scan.low_step)[i]
        if not bool(torch.isfinite(step).all()):
            return None
        dtype = precision(self.exact_prior)
        along = tangent(self.exact_prior, z[None].to(dtype), step[None].to(dtype))[0].double()
        error = self.error * float(scan.norm[i]) * float(step.norm())
        unseen = not highest and bool(scan.unseen[i])
        ends = (0.0, 0.0, 0.0) if unseen else self._ends(along, error)
        if ends is None:
            return None
        return Direction(
            "tangent",
            *ends,
            distance=float(along.norm()),
            first=self.decode(z[None])[0],
            second=along,
            z_first=z,
            z_second=step,
        )

    def measure(self, s: Images, error: PerImage | float) -> tuple[PerImage, PerImage, PerImage]:
        """r of every direction s, off by at most `error`, and the ends of the interval it lies in;
        NaN where s is too short to count."""
        size = measured_together(self.exact_A, s, len(s))
        with torch.no_grad():
            stretched = torch.cat([norm(self.exact_A(part)) for part in torch.split(s, size)])
            length = norm(s)
        low, high = enclosed(stretched, length, error, self.norm, s[0].numel())
        return (stretched / length).square().where(low.isfinite(), math.nan), low, high

    def _ends(self, s: torch.Tensor, error: float) -> tuple[float, float, float] | None:
        """The same of a single direction; None if it is too short to count."""
        ratio, low, high = (float(value) for value in self.measure(s[None], error))
        return (ratio, low, high) if math.isfinite(ratio) else None


def span_constants(A: Any, columns: torch.Tensor, S: sets.Generated) -> tuple[float, float]:
    """Extremes of ‖A s‖²/‖s‖² over all s in the span of independent columns (n, k), in float64."""
    q, _ = torch.linalg.qr(columns)
    with torch.no_grad():
        image = A(q.T.reshape(-1, *S.image_shape)).flatten(1)
    values = torch.linalg.svdvals(checks.finite(image, "A(x)")).square()
    # More dimensions than measurements: some direction is not seen at all.
    low = float(values[-1]) if image.shape[1] >= image.shape[0] else 0.0
    return low, float(values[0])
