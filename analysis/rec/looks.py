"""The looks at the secant set: secants, tangents, search."""

from __future__ import annotations

import time

import numpy as np
import torch

from analysis.rec.results import SQUARED_SIDES, Direction, DistributionFree, Look
from analysis.rec.search import Found, search_pairs
from analysis.rec.secants import KEEP, Histogram, SecantScan, all_pairs, histogram_edges
from analysis.rec.tangents import TangentScan, tangents
from analysis.rec.target import TANGENT_STEP, _Sample, _Settings, _Target
from npgd.images import ratio

REFINED = 4  # tangent extremes of either side computed anew in float64


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
