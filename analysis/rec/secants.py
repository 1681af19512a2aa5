"""Secant and tangent directions of a set of images, and how an operator stretches them.

The restricted eigenvalue condition concerns the ratio  r(s) = ||A s||^2 / ||s||^2  over the secants
s = x1 - x2 of S = range(G). Three sources of directions:

- `all_pairs`: the secants of N points, through Gram matrices in blocks. With centred points,
  ||x_i - x_j||^2 = |x_i|^2 - 2 <x_i, x_j> + |x_j|^2, and the same for A x, so that N^2/2 ratios
  cost two matrix products. The Gram form cancels for near pairs: these, and the extremes of every
  tile, are recomputed from the differences in float64.
- `secants_from`: the secants between given points and N others, the same way.
- `tangents`: the limits of secants at G(z). They span the columns of the Jacobian J, so that the
  extremes of r over all of them are the extreme generalised eigenvalues of (J'A'AJ, J'J).

Work is cut into tasks whose size depends on the data alone, each computed by one thread, and merged
in a fixed order, so that the result depends neither on the executor nor on its number of workers.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.tasks import in_order, one_thread, with_progress
from npgd.images import ratio, squared_norm
from npgd.precision import converted

PANEL = 2048  # points of one side of a task
TILE = 512  # columns of one Gram tile: 2048 x 512 in float32 is 4 MB and stays in cache
KEEP = 8  # extremes of each tile recomputed in float64
NEAR = 6e-4  # below this fraction of |x_i|^2 + |x_j|^2 the float32 Gram form is off by about 1e-3

Pair = tuple[float, int, int]  # ratio, first point, second point


# -------------------------------------------------------------------------------- the histogram


@dataclass(frozen=True)
class Histogram:
    """Counts of ||A s||^2 over unit secants s: counts[i] lie in [edges[i], edges[i+1])."""

    edges: np.ndarray  # (bins + 1,)
    counts: np.ndarray  # (bins,)
    below: int  # secants under edges[0]
    above: int  # secants over edges[-1]

    @property
    def total(self) -> int:
        return int(self.counts.sum()) + self.below + self.above

    def to_dict(self) -> dict[str, Any]:
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "below": self.below,
            "above": self.above,
        }


def histogram_edges(ratios: np.ndarray, bins: int) -> np.ndarray:
    """Equal bins over the range of some pilot ratios, widened by half its width on either side."""
    low, high = float(np.min(ratios)), float(np.max(ratios))
    margin = 0.5 * (high - low) or 0.5 * high or 0.5
    return np.linspace(max(0.0, low - margin), high + margin, bins + 1)


# ------------------------------------------------------------------------------ secants: one tile


class _Gram:
    """Points x_i and their images u_i = A x_i, with their squared norms."""

    def __init__(self, x: torch.Tensor, u: torch.Tensor) -> None:
        self.x, self.u = x, u
        self.xx, self.uu = squared_norm(x), squared_norm(u)
        self.largest = float(self.xx.amax())

    def double(self) -> _Gram:
        return _Gram(self.x.double(), self.u.double())


class _Workspace:
    """Memory for one tile, used again and again: touching fresh pages would cost as much as the
    arithmetic on them."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype) -> None:
        self.distance = torch.empty(rows, columns, dtype=dtype)
        self.ratios = torch.empty(rows, columns, dtype=dtype)
        self.bins = torch.empty(rows * columns, dtype=torch.int64)


def _gram_ratios(
    left: _Gram, right: _Gram, rows: slice, columns: slice, memory: _Workspace
) -> tuple[Float[torch.Tensor, "rows columns"], torch.Tensor]:
    """Ratios ||u_i - v_j||^2 / ||x_i - y_j||^2 of one tile, in `memory`, and the indices (near, 2)
    of the pairs that are too near for the Gram form."""
    size = (rows.stop - rows.start, columns.stop - columns.start)
    distance = memory.distance[: size[0], : size[1]]
    ratios = memory.ratios[: size[0], : size[1]]
    torch.add(left.xx[rows, None], right.xx[columns], out=distance)
    distance.addmm_(left.x[rows], right.x[columns].T, alpha=-2)
    torch.add(left.uu[rows, None], right.uu[columns], out=ratios)
    ratios.addmm_(left.u[rows], right.u[columns].T, alpha=-2)
    unit = torch.finfo(distance.dtype).eps / torch.finfo(torch.float32).eps
    threshold = NEAR * unit * (left.largest + right.largest)
    if distance.amin() <= threshold:
        near = (distance <= threshold).nonzero()
    else:
        near = torch.empty(0, 2, dtype=torch.long)
    return ratios.div_(distance), near


def _exact_ratios(left: _Gram, right: _Gram, pairs: torch.Tensor) -> torch.Tensor:
    """The same ratios for a few (i, j), from float64 differences; nan where x_i = y_j."""
    parts = []
    for i, j in (part.T for part in pairs.split(4096)):
        above = squared_norm(left.u[i].double() - right.u[j].double())
        parts.append(above / squared_norm(left.x[i].double() - right.x[j].double()))
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def _tile(
    left: _Gram,
    right: _Gram,
    rows: slice,
    columns: slice,
    memory: _Workspace,
    same_panel: bool = False,
) -> tuple[torch.Tensor, bool, int]:
    """Ratios of one tile, whether it holds nan (no secant there), and how many pairs were near.

    `same_panel`: both sides are the same points, and only pairs i < j count.
    """
    ratios, near = _gram_ratios(left, right, rows, columns, memory)
    if len(near) > ratios.numel() // 50 + 2 * max(ratios.shape):
        # Many near pairs (duplicates, a collapsed generator): the Gram form again, in float64.
        double = _Workspace(ratios.shape[0], ratios.shape[1], torch.float64)
        ratios, near = _gram_ratios(left.double(), right.double(), rows, columns, double)
    near = near + torch.tensor([rows.start, columns.start])
    if same_panel:
        near = near[near[:, 0] < near[:, 1]]
    holes = False
    if len(near):
        exact = _exact_ratios(left, right, near)
        holes = bool(torch.isnan(exact).any())
        ratios[near[:, 0] - rows.start, near[:, 1] - columns.start] = exact.to(ratios.dtype)
    if same_panel:
        i, j = torch.arange(rows.start, rows.stop), torch.arange(columns.start, columns.stop)
        holes = bool(i[-1] >= j[0])
        if holes:
            ratios.masked_fill_(i[:, None] >= j, torch.nan)
    return ratios, holes, len(near)


def _extremes(ratios: torch.Tensor, keep: int, largest: bool) -> torch.Tensor:
    """(row, column) of the smallest (largest) ratio in each of the `keep` rows where it is most
    so."""
    best = ratios.amax(dim=1) if largest else ratios.amin(dim=1)
    rows = best.topk(min(keep, len(best)), largest=largest).indices
    chosen = ratios[rows]
    columns = chosen.argmax(dim=1) if largest else chosen.argmin(dim=1)
    return torch.stack([rows, columns], dim=1)[torch.isfinite(best[rows])]


def _count(ratios: torch.Tensor, edges: np.ndarray, memory: _Workspace) -> np.ndarray:
    """Counts in the equal bins of `edges`, before the first and after the last. Overwrites ratios.

    Faster than `torch.histc`, which would take half as long as the matrix products.
    """
    bins = len(edges) - 1
    scale = bins / (edges[-1] - edges[0])
    places = ratios.mul_(scale).add_(1 - edges[0] * scale).clamp_(0, bins + 1)
    index = memory.bins[: places.numel()].view(places.shape).copy_(places)
    return np.bincount(index.flatten().numpy(), minlength=bins + 2)


@dataclass(frozen=True)
class _Part:
    """What a task hands back: candidates (i, j) for either extreme with their float64 ratios."""

    low: list[Pair]
    high: list[Pair]
    counts: np.ndarray  # (bins + 2,), the first and last outside the edges
    n_pairs: int
    n_near: int


def _scan(
    x: np.ndarray,
    u: np.ndarray,
    y: np.ndarray,
    v: np.ndarray,
    row0: int,
    column0: int,
    edges: np.ndarray,
    keep: int,
) -> _Part:
    """One task: all tiles of a pair of panels. Pairs i < j count."""
    with one_thread(), torch.no_grad():
        return _scan_tiles(x, u, y, v, row0, column0, edges, keep)


def _scan_tiles(
    x: np.ndarray,
    u: np.ndarray,
    y: np.ndarray,
    v: np.ndarray,
    row0: int,
    column0: int,
    edges: np.ndarray,
    keep: int,
) -> _Part:
    left = _Gram(torch.from_numpy(x), torch.from_numpy(u))
    right = left if row0 == column0 else _Gram(torch.from_numpy(y), torch.from_numpy(v))
    memory = _Workspace(len(x), min(TILE, len(y)), left.x.dtype)
    low: list[Pair] = []
    high: list[Pair] = []
    total = np.zeros(len(edges) + 1, dtype=np.int64)
    n_pairs = n_near = 0
    tiles: list[tuple[slice, slice]] = []
    for start in range(0, len(y), TILE):
        columns = slice(start, min(start + TILE, len(y)))
        if left is not right:
            tiles.append((slice(0, len(x)), columns))
            continue
        # On the diagonal only pairs i < j count: the rows above the tile's square, and the square.
        tiles += [(slice(0, start), columns)] if start else []
        tiles.append((columns, columns))
    for rows, columns in tiles:
        ratios, holes, near = _tile(left, right, rows, columns, memory, left is right)
        n_near += near
        lowest = highest = values = ratios
        if holes:
            hole = torch.isnan(ratios)
            values = ratios[~hole]
            lowest = ratios.masked_fill(hole, torch.inf)
            highest = ratios.masked_fill(hole, -torch.inf)
        n_pairs += values.numel()
        if not values.numel():
            continue
        for found, block, largest in ((low, lowest, False), (high, highest, True)):
            pairs = _extremes(block, keep, largest) + torch.tensor([rows.start, columns.start])
            exact = _exact_ratios(left, right, pairs).tolist()
            index = zip(exact, pairs.tolist(), strict=True)
            found += [(r, row0 + i, column0 + j) for r, (i, j) in index if r == r]
        total += _count(values, edges, memory)
    low.sort()
    high.sort(key=_descending)
    return _Part(low[: 4 * keep], high[: 4 * keep], total, n_pairs, n_near)


# -------------------------------------------------------------------------- secants: whole scans


@dataclass(frozen=True)
class SecantScan:
    """Extremes of r over the secants of N points.

    `lowest` and `highest` list (ratio, i, j), best first, each ratio from float64 differences of
    the points; `n_pairs` secants were looked at, of which `n_near` too near for the Gram form.
    """

    lowest: tuple[Pair, ...]
    highest: tuple[Pair, ...]
    n_pairs: int
    n_near: int
    histogram: Histogram


def all_pairs(
    operator: Any,
    points: Float[torch.Tensor, "count ..."],
    *,
    bins: int = 400,
    keep: int = KEEP,
    executor: Executor | None = None,
    progress: bool = False,
) -> SecantScan:
    """Extremes and histogram of r over all N(N-1)/2 secants of `points`.

    Two matrix products of N x N, in tiles of a few MB. Extremes are recomputed from differences in
    float64; which pairs are recomputed is decided in float32 (relative accuracy about 1e-3 for the
    nearest pairs it is trusted with, 1e-6 for the others), the `keep` best of every tile.

    Raises ValueError if fewer than two points differ.
    """
    count = len(points)
    if count < 2:
        raise ValueError(f"points: got {count}, expected at least 2 to form a secant")
    flat, measured = _centred(operator, points)
    edges = histogram_edges(_pilot(flat, measured), bins)
    panels = [slice(start, start + PANEL) for start in range(0, count, PANEL)]
    pairs = [(i, j) for i in panels for j in panels if i.start <= j.start]
    tasks = (
        (flat[i], measured[i], flat[j], measured[j], i.start, j.start, edges, keep)
        for i, j in pairs
    )
    parts = list(with_progress(in_order(_scan, tasks, executor), len(pairs), "secants", progress))
    low = sorted(entry for part in parts for entry in part.low)[: 4 * keep]
    high = sorted((e for part in parts for e in part.high), key=_descending)[: 4 * keep]
    if not low:
        raise ValueError("points: all are equal, so they have no secants")
    counts = np.sum([part.counts for part in parts], axis=0)
    return SecantScan(
        lowest=tuple(sorted(_recomputed(operator, points, low))[:keep]),
        highest=tuple(sorted(_recomputed(operator, points, high), key=_descending)[:keep]),
        n_pairs=sum(part.n_pairs for part in parts),
        n_near=sum(part.n_near for part in parts),
        histogram=Histogram(edges, counts[1:-1], int(counts[0]), int(counts[-1])),
    )


def _descending(pair: Pair) -> tuple[float, int, int]:
    return (-pair[0], pair[1], pair[2])


def _recomputed(operator: Any, points: torch.Tensor, pairs: list[Pair]) -> list[Pair]:
    """The pairs with their ratios from the points themselves, all in float64."""
    i, j = torch.tensor([pair[1:] for pair in pairs]).T
    difference = points[i].detach().cpu().double() - points[j].detach().cpu().double()
    ratios = ratio(converted(operator, torch.float64, "cpu"), difference)
    return list(zip(ratios.tolist(), i.tolist(), j.tolist(), strict=True))


def secants_from(
    operator: Any,
    targets: Float[torch.Tensor, "targets ..."],
    points: Float[torch.Tensor, "count ..."],
    *,
    keep: int = KEEP,
) -> list[tuple[Pair, ...]]:
    """For every target x*, the `keep` smallest r over the secants x* - x to `points`.

    Each entry is (ratio, target, point), best first, from float64 differences.
    """
    everything = torch.cat([targets.to(points), points])
    flat, measured = _centred(operator, everything)
    split = len(targets)
    left = _Gram(torch.from_numpy(flat[:split]), torch.from_numpy(measured[:split]))
    found: list[list[Pair]] = [[] for _ in range(split)]
    for start in range(split, len(flat), TILE):
        part = slice(start, start + TILE)
        right = _Gram(torch.from_numpy(flat[part]), torch.from_numpy(measured[part]))
        rows, columns = slice(0, split), slice(0, len(right.x))
        memory = _Workspace(split, len(right.x), left.x.dtype)
        ratios, holes, _ = _tile(left, right, rows, columns, memory)
        if holes:
            ratios = ratios.nan_to_num(nan=torch.inf)
        chosen = ratios.topk(min(keep, len(right.x)), dim=1, largest=False).indices
        for i in range(split):
            pairs = torch.stack([torch.full_like(chosen[i], i), chosen[i]], dim=1)
            exact = _exact_ratios(left, right, pairs).tolist()
            index = zip(exact, chosen[i].tolist(), strict=True)
            found[i] += [(r, i, start + j) for r, j in index if r == r]
    lowest = []
    for entries in found:
        recomputed = _recomputed(operator, everything, sorted(entries)[: 4 * keep])
        lowest.append(tuple((r, i, j - split) for r, i, j in sorted(recomputed)[:keep]))
    return lowest


def _centred(operator: Any, points: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Points minus their mean, flat, and their images under A, as contiguous arrays.

    Secants do not see the mean; without it the Gram form cancels less.
    """
    points = points.detach().cpu()
    operator = converted(operator, points.dtype, "cpu")
    mean = points.mean(dim=0, keepdim=True, dtype=torch.float64)
    flat = torch.empty(len(points), points[0].numel(), dtype=points.dtype)
    measured = None
    with torch.no_grad():
        for start in range(0, len(points), PANEL):
            part = points[start : start + PANEL] - mean.to(points.dtype)
            flat[start : start + PANEL] = part.flatten(1)
            image = operator(part).flatten(1).to(points.dtype)
            if measured is None:
                measured = torch.empty(len(points), image.shape[1], dtype=points.dtype)
            measured[start : start + PANEL] = image
    assert measured is not None
    return flat.numpy(), measured.numpy()


def _pilot(flat: np.ndarray, measured: np.ndarray, pairs: int = 1024) -> np.ndarray:
    """Ratios of the first disjoint pairs, to place the histogram."""
    last = min(len(flat) // 2, pairs) * 2
    index = torch.arange(last).reshape(-1, 2)
    some = _Gram(torch.from_numpy(flat[:last]), torch.from_numpy(measured[:last]))
    ratios = _exact_ratios(some, some, index).numpy()
    ratios = ratios[np.isfinite(ratios)]
    return ratios if len(ratios) else np.array([1.0])
