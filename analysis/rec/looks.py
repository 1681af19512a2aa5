"""The looks at the secant set: secants, tangents, search."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from analysis.rec.pair import Pair, Plan, Point, Sample
from analysis.rec.results import SQUARED_SIDES, Direction, Look
from analysis.rec.search import STARTS_PER_TASK, Found, search_pairs
from analysis.rec.secants import KEEP, NoSecants, SecantScan, all_pairs
from analysis.rec.tangents import TangentScan, tangents
from npgd.images import Images

REFINED = 4  # extreme tangents of either side computed anew in float64
TANGENT_STEP = 1e-2  # length of the latent step from which the search leaves a tangent


def look_at_secants(pair: Pair, sample: Sample, plan: Plan) -> tuple[Look, SecantScan | None]:
    """All secants of the sample; the extreme ones again in float64."""
    began = time.perf_counter()
    try:
        scan = all_pairs(
            pair.A,
            sample.images,
            error=sample.error,
            bins=plan.settings.bins,
            keep=max(KEEP, plan.settings.search_starts),
            executor=plan.executor,
            progress=plan.progress,
        )
    except NoSecants as error:
        return nothing("secants", str(error), began), None

    def again(extremes: Sequence[tuple[float, int, int]]) -> list[Direction | None]:
        return [
            pair.secant(pair.sampled(sample, i), pair.sampled(sample, j), (i, j))
            for _, i, j in extremes[:KEEP]
        ]

    what = f"{scan.n_pairs:,} secants of {len(sample.images):,} points"
    low, high = again(scan.lowest), again(scan.highest)
    return found("secants", low, high, scan.n_pairs, what, began), scan


def look_at_pairs(pair: Pair, given: tuple[Images, Images], ratios: np.ndarray) -> Look:
    """The secants between given pairs, whose ratios are `ratios`."""
    began = time.perf_counter()
    if not np.isfinite(ratios).any():
        raise ValueError("pairs must differ to form a secant, got equal ones alone")

    def extreme(i: int) -> list[Direction | None]:
        first, second = (Point(images[i].detach().cpu().double()) for images in given)
        return [pair.secant(first, second, (i, i))]

    low, high = extreme(int(np.nanargmin(ratios))), extreme(int(np.nanargmax(ratios)))
    return found("secants", low, high, len(ratios), f"{len(ratios):,} given secants", began)


def look_at_tangents(pair: Pair, sample: Sample, plan: Plan) -> tuple[Look, TangentScan | None]:
    """All tangents at some of the sample; the extreme points again in float64."""
    began = time.perf_counter()
    if sample.z is None:
        return nothing("tangents", "the set has no generator", began), None
    z = sample.z[: plan.settings.tangent_points].to(pair.dtype)
    scan = tangents(
        pair.exact_A,
        pair.prior,
        z,
        executor=plan.executor,
        progress=plan.progress,
        memory=left(sample, plan),
    )
    if not np.isfinite(scan.low).any():
        return nothing("tangents", "the Jacobian vanishes at every sample", began), scan
    note = "done"
    if scan.n_deficient:
        note = (
            f"done; the Jacobian has rank {scan.rank.min()} to {scan.rank.max()} of"
            f" {pair.latent_dim}, less than full at {scan.n_deficient} of {len(z)} points"
        )
    low, high = refined(pair, z.double(), scan)
    if low is not None and low.high == 0:
        note = f"{note}; {unseen(scan)}"
    what = f"all tangents at {len(z):,} points"
    return found("tangents", [low], [high], len(z), what, began, note), scan


def unseen(scan: TangentScan) -> str:
    """Why α = 0 is certain."""
    return (
        f"α = 0 is certain, since A has {scan.m} measurements and the tangent spaces up to"
        f" {scan.rank.max()} dimensions"
    )


def refined(
    pair: Pair, z: torch.Tensor, scan: TangentScan
) -> tuple[Direction | None, Direction | None]:
    """The lowest and the highest tangent: the most extreme points of a scan again, in float64."""
    worst_low = np.argsort(scan.low)[:REFINED]  # NaN sorts last
    worst_high = np.argsort(np.nan_to_num(-scan.high, nan=np.inf))[:REFINED]
    if pair.large:  # the directions found are measured in float64; that is all that is again
        again = scan
    else:
        chosen = torch.from_numpy(np.union1d(worst_low, worst_high))
        again = tangents(pair.exact_A, pair.exact_prior, z[chosen])
    if not np.isfinite(again.low).any():
        return None, None
    return (
        pair.tangent(again, int(np.nanargmin(again.low)), highest=False),
        pair.tangent(again, int(np.nanargmax(again.high)), highest=True),
    )


def look_by_search(
    pair: Pair,
    sample: Sample,
    secants: SecantScan | None,
    tangent: TangentScan | None,
    plan: Plan,
) -> Look:
    """Descent from the worst directions of the other looks, and the tangents where it ends."""
    began = time.perf_counter()
    if sample.z is None:
        return nothing("search", "the set has no generator", began)
    count = plan.settings.search_starts
    sides = [starts(sample.z, secants, tangent, count, largest) for largest in (False, True)]
    first = torch.cat([side[0] for side in sides])
    second = torch.cat([side[1] for side in sides])
    largest = torch.cat([torch.full((len(side[0]),), i == 1) for i, side in enumerate(sides)])
    ended = search_pairs(
        pair.A,
        pair.prior,
        first,
        second,
        largest,
        radius=plan.radius,
        steps=plan.settings.search_steps,
        executor=plan.executor,
        progress=plan.progress,
        rows=searched_together(pair, sample, plan),
    )
    memory = left(sample, plan)
    low, high = (ends(pair, ended, largest == side, side, memory) for side in (False, True))
    what = (
        f"{len(first)} searches of {plan.settings.search_steps} steps within"
        f" ‖z‖ ≤ {plan.radius:.3g}"
    )
    return found("search", low, high, ended.n_evaluations, what, began)


def left(sample: Sample, plan: Plan) -> int | None:
    """Bytes that the sample leaves of what there may be."""
    return None if plan.memory is None else max(1, plan.memory - sample.images.nbytes)


def searched_together(pair: Pair, sample: Sample, plan: Plan) -> int:
    """How many starts one task has, each with two ends."""
    bound = left(sample, plan)
    return (
        STARTS_PER_TASK if bound is None else pair.footprint.searching(bound / 2, STARTS_PER_TASK)
    )


def starts(
    z: torch.Tensor,
    secants: SecantScan | None,
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
        for i in order[: (count + 1) // 2 if secants is not None else count]:
            arm = TANGENT_STEP * steps[i] / steps[i].norm()
            first.append(z[i] + arm)
            second.append(z[i] - arm)
    if secants is not None:
        pairs = secants.highest if largest else secants.lowest
        for _, i, j in pairs[: count - len(first)]:
            first.append(z[i])
            second.append(z[j])
    if not first:
        half = min(count, len(z) // 2)
        return z[:half], z[half : 2 * half]
    return torch.stack(first), torch.stack(second)


def ends(
    pair: Pair, ended: Found, chosen: torch.Tensor, largest: bool, memory: int | None = None
) -> list[Direction | None]:
    """The best secants a search ended with, and the tangents midway between their ends."""
    assert ended.z_second is not None
    index = chosen.nonzero().flatten()
    order = index[ended.ratio[index].nan_to_num(nan=-1e300 if largest else 1e300).argsort()]
    order = (order.flip(0) if largest else order)[: 1 if pair.large else REFINED]
    best = [(ended.z_first[i], ended.z_second[i]) for i in order]
    directions = [pair.secant(pair.point(one), pair.point(two)) for one, two in best]
    middle = torch.stack([(one + two) / 2 for one, two in best])
    if pair.large:  # not worth another tangent space
        return directions
    limits = tangents(pair.exact_A, *pair.again(middle), memory=memory)
    values = -limits.high if largest else limits.low
    if np.isfinite(values).any():
        directions.append(pair.tangent(limits, int(np.nanargmin(values)), largest))
    return directions


def found(
    name: str,
    low: Sequence[Direction | None],
    high: Sequence[Direction | None],
    n_directions: int,
    what: str,
    began: float,
    status: str = "done",
) -> Look:
    """A look from its candidates for either side, None where one is too short to count."""
    lows = [direction for direction in low if direction is not None]
    highs = [direction for direction in high if direction is not None]
    if not lows or not highs:
        return nothing(name, "every direction found is as short as rounding", began)
    lowest = min(lows, key=lambda direction: direction.high)
    highest = max(highs, key=lambda direction: direction.low)
    return Look(
        name=name,
        alpha=lowest.high,
        beta=highest.low,
        n_directions=n_directions,
        statement=f"one-sided, over {what}: {SQUARED_SIDES}",
        status=status,
        lowest=lowest,
        highest=highest,
        seconds=time.perf_counter() - began,
    )


def nothing(name: str, why: str, began: float) -> Look:
    """A look that found no direction."""
    nan = float("nan")
    seconds = time.perf_counter() - began
    return Look(name, nan, nan, 0, "says nothing", f"skipped: {why}", None, None, seconds)
