"""Constants of single images: α(x*) = inf over x in S of ‖A(x − x*)‖²/‖x − x*‖²."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from analysis.memory import release
from analysis.rec.looks import TANGENT_STEP, left, searched_together
from analysis.rec.pair import Pair, Plan, Point, Sample, span_constants
from analysis.rec.results import Direction, PointwiseRec, kappa
from analysis.rec.rounding import ERROR, SHORTEST, unit
from analysis.rec.search import search_from
from analysis.rec.secants import Extreme, secants_from
from analysis.rec.settings import LOOKS
from analysis.rec.tangents import TangentScan, tangents
from npgd import checks
from npgd.images import Images
from npgd.projectors import AffineSet

POINTWISE_STARTS = 3  # nearest-to-worst samples from which the search for α(x*) starts


def given_points(
    pair: Pair,
    z_true: Float[torch.Tensor, "count k"] | None,
    x_true: Images | None,
    shape: tuple[int, ...],
) -> list[Point]:
    """The x* in float64, from their latents or as images; ValueError naming what does not fit.

    Images of a generated set are taken to be G(z), computed in the precision that they come in.
    """
    if z_true is not None:
        if not pair.generates:
            raise ValueError("z_true must be None for a set without a generator; give x_true")
        checks.floating(z_true, "z_true")
        if z_true.ndim != 2 or z_true.shape[1] != pair.latent_dim or not len(z_true):
            came = tuple(z_true.shape)
            raise ValueError(
                f"z_true must have shape (count, {pair.latent_dim}), count ≥ 1, got {came}"
            )
        checks.finite(z_true, "z_true")
        return [pair.point(z) for z in z_true.detach().cpu().double()]
    assert x_true is not None
    checks.floating(x_true, "x_true")
    if x_true.shape[1:] != shape or not len(x_true):
        wanted = ", ".join(["count", *map(str, shape)])
        came = tuple(x_true.shape)
        raise ValueError(f"x_true must have shape ({wanted}), count ≥ 1, got {came}")
    checks.finite(checks.floating(x_true, "x_true"), "x_true")
    error = ERROR * unit(x_true.dtype) if pair.generates else 0.0
    images = x_true.detach().cpu().double()
    return [Point(image, error * float(image.norm())) for image in images]


def pointwise_constants(
    pair: Pair, sample: Sample, x_true: list[Point], constants: tuple[float, float], plan: Plan
) -> PointwiseRec:
    """α(x*) and κ(x*) of every x*, with α and β of the set.

    β is that of the set whatever is known of ‖A‖²: every step of a run is a secant of S. So
    κ(x*) ≤ κ for every x* in S.
    """
    alpha, beta = constants
    if isinstance(pair.exact_prior, AffineSet):
        values = [_affine(pair, pair.exact_prior, point, alpha) for point in x_true]
        directions: tuple[Direction, ...] = ()
        by_look: dict[str, np.ndarray] = {}
    else:
        found = _Found(pair, x_true)
        found.look(sample, plan)
        values, directions, by_look = found.values(), found.worst(), found.by_look
    exact = pair.kind in ("affine", "finite")
    return PointwiseRec(
        alpha=np.array(values),
        kappa=np.array([kappa(beta, value) for value in values]),
        by_look=by_look,
        beta=beta,
        beta_kind="exact" if exact else "lower bound",
        beta_source="β of S, exact" if exact else "β of S, at least the largest found",
        exact=exact,
        worst=directions,
    )


def _affine(pair: Pair, S: AffineSet, point: Point, alpha: float) -> float:
    """α(x*) on S = {B z + c}, exactly.

    For x* in S every x − x* is a direction of S, and α(x*) = α. Otherwise, with w = x* − P(x*), the
    x − x* are B z − w. Their multiples t (B z − w), t ≠ 0, are dense in span(B, w), and the ratio
    does not see t: its infimum is the least over that span, which z → ∞ may approach alone.
    """
    if point.z is not None:
        return alpha
    w = point.image - S.project(point.image[None])[0]
    size = float(point.image.norm() + S.offset.norm())
    if float(w.norm()) <= max(point.error, SHORTEST * unit(torch.float64) * size):
        return alpha
    columns = torch.cat([S.basis, w.reshape(-1, 1)], dim=1)
    return pair.seen(span_constants(pair.exact_A, columns, S)[0])


class _Found:
    """The directions found from every x*."""

    def __init__(self, pair: Pair, x_true: list[Point]) -> None:
        self.pair, self.x_true = pair, x_true
        self.by_look = {name: np.full(len(x_true), np.nan) for name in LOOKS}
        self.directions: list[list[Direction]] = [[] for _ in x_true]

    def note(self, name: str, i: int, direction: Direction | None) -> None:
        """Keep a direction, unless it is too short to count."""
        if direction is not None:
            self.by_look[name][i] = np.fmin(self.by_look[name][i], self._value(direction))
            self.directions[i].append(direction)

    def worst(self) -> tuple[Direction, ...]:
        """The direction that gives α(x*), for every x*."""
        for i, found in enumerate(self.directions):
            if not found:
                raise ValueError(f"x_true must have secants to S, got none at image {i}")
        return tuple(min(found, key=self._value) for found in self.directions)

    def values(self) -> list[float]:
        """α(x*), one-sided after rounding; on a finite set exact, to rounding."""
        return [self._value(direction) for direction in self.worst()]

    def _value(self, direction: Direction) -> float:
        return self.pair.seen(direction.ratio) if self.pair.kind == "finite" else direction.high

    def look(self, sample: Sample, plan: Plan) -> None:
        """At the secants to the sample, at the tangents at x*, and by search from the worst."""
        pair, looks = self.pair, plan.settings.looks
        images = torch.stack([point.image for point in self.x_true])
        # Points that are exact as given are compared in float64.
        points = sample.images if pair.generates else sample.images.double()
        nearest = secants_from(pair.exact_A, images, points, error=sample.error)
        for i, entries in enumerate(nearest):
            for _, _, j in entries[:2]:
                other = pair.sampled(sample, j)
                self.note("secants", i, pair.secant(self.x_true[i], other, (i, j)))
        scan = None
        if self.x_true[0].z is not None and "tangents" in looks:
            count = plan.settings.tangent_points if pair.large else len(self.x_true)
            at, bound = pair.again(self._latents()[:count]), left(sample, plan)
            scan = tangents(pair.exact_A, *at, progress=plan.progress, memory=bound)
            for i in range(len(scan.z)):
                self.note("tangents", i, pair.tangent(scan, i, highest=False))
        if plan.memory is not None:
            release()
        if sample.z is not None and "search" in looks:
            self._search(sample, images, nearest, scan, plan)

    def _search(
        self,
        sample: Sample,
        images: torch.Tensor,
        nearest: list[tuple[Extreme, ...]],
        scan: TangentScan | None,
        plan: Plan,
    ) -> None:
        assert sample.z is not None
        known = self._latents() if self.x_true[0].z is not None else None
        owner, start = pointwise_starts(
            sample.z, nearest, known, None if scan is None else scan.low_step
        )
        if not len(owner):
            return
        ended = search_from(
            self.pair.A,
            self.pair.prior,
            start,
            images[owner],
            None if known is None else known[owner],
            radius=plan.radius,
            steps=plan.settings.search_steps,
            executor=plan.executor,
            progress=plan.progress,
            rows=searched_together(self.pair, sample, plan),
        )
        for i in range(len(self.x_true)):
            mine = (owner == i).nonzero().flatten()
            if len(mine):
                best = mine[ended.ratio[mine].nan_to_num(nan=torch.inf).argmin()]
                end = self.pair.point(ended.z_first[best])
                self.note("search", i, self.pair.secant(self.x_true[i], end))

    def _latents(self) -> torch.Tensor:
        return torch.stack([point.z for point in self.x_true if point.z is not None])


def pointwise_starts(
    z: torch.Tensor,
    nearest: list[tuple[Extreme, ...]],
    z_true: torch.Tensor | None,
    steps: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every x*: the samples whose secants are worst, and both ends of its worst tangent.

    Returns:
        The x* that each start belongs to, and the latents to start from.
    """
    owner: list[int] = []
    start: list[torch.Tensor] = []
    for i, entries in enumerate(nearest):
        for _, _, j in entries[:POINTWISE_STARTS]:
            owner.append(i)
            start.append(z[j])
        known = steps is not None and i < len(steps) and bool(torch.isfinite(steps[i]).all())
        if z_true is not None and steps is not None and known:
            arm = TANGENT_STEP * steps[i] / steps[i].norm()
            owner += [i, i]
            start += [z_true[i] + arm, z_true[i] - arm]
    return torch.tensor(owner), torch.stack(start) if start else z[:0]
