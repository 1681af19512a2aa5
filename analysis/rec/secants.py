"""Secants of a set of images, and how an operator stretches them.

The restricted eigenvalue condition concerns the ratio r(s) = ‖A s‖²/‖s‖² over the secants
s = x₁ − x₂ of S = range(G).

- `all_pairs`: the secants of N points, through Gram matrices in blocks. With centred points,
  ‖xᵢ − xⱼ‖² = ‖xᵢ‖² − 2⟨xᵢ, xⱼ⟩ + ‖xⱼ‖², and the same for A x, so that N²/2 ratios cost two matrix
  products. The Gram form cancels for near pairs: these, and the extremes of every tile, are
  recomputed from the differences in float64.
- `secants_from`: the secants between given points and N others, the same way.

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

from analysis.memory import fitting, measured_together
from analysis.rec.rounding import SHORTEST
from analysis.tasks import in_order, one_thread
from npgd import checks
from npgd.images import PerImage, ratio, squared_norm
from npgd.precision import converted

PANEL = 2048  # points of one side of a task
TILE = 512  # columns of one Gram tile: 2048 x 512 in float32 is 4 MB and stays in cache
KEEP = 8  # extremes of each tile recomputed in float64
DIFFERENCES = 2**22  # numbers in differences that are formed in float64 together
MEASURED = 2**25  # numbers in images that A is applied to together
NEAR = 6e-4  # below this fraction of |x_i|^2 + |x_j|^2 the float32 Gram form is off by about 1e-3

Extreme = tuple[float, int, int]  # ratio, first point, second point


# -------------------------------------------------------------------------------- the histogram


@dataclass(frozen=True)
class Histogram:
    """Counts of r(s) over secants s."""

    edges: np.ndarray
    """(bins + 1,)"""
    counts: np.ndarray
    """(bins,) counts[i] lie in [edges[i], edges[i + 1])."""
    below: int
    """Secants under the first edge."""
    above: int
    """Secants over the last edge."""

    @property
    def total(self) -> int:
        """All secants counted."""
        return int(self.counts.sum()) + self.below + self.above

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers and lists."""
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

    def __init__(self, x: torch.Tensor, u: torch.Tensor, shortest: float) -> None:
        self.x, self.u, self.shortest = x, u, shortest  # secants up to `shortest` are none
        self.xx, self.uu = _squares(x), squared_norm(u)
        self.largest = float(self.xx.amax())

    def double(self) -> _Gram:
        return _Gram(self.x.double(), self.u.double(), self.shortest)


def _squares(x: torch.Tensor) -> torch.Tensor:
    """Squared norms, without as much memory again."""
    return torch.cat([squared_norm(part) for part in in_parts(x)])


def in_parts(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Images, few enough to be worked on in float64 together."""
    return torch.split(x, fitting(DIFFERENCES, x[:1].numel(), len(x)))


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
    """Ratios ‖u_i − v_j‖²/‖x_i − y_j‖² of one tile, in `memory`, and the indices (near, 2)
    of the pairs that are too near for the Gram form."""
    size = (rows.stop - rows.start, columns.stop - columns.start)
    distance = memory.distance[: size[0], : size[1]]
    ratios = memory.ratios[: size[0], : size[1]]
    torch.add(left.xx[rows, None], right.xx[columns], out=distance)
    distance.addmm_(left.x[rows], right.x[columns].T, alpha=-2)
    torch.add(left.uu[rows, None], right.uu[columns], out=ratios)
    ratios.addmm_(left.u[rows], right.u[columns].T, alpha=-2)
    unit = torch.finfo(distance.dtype).eps / torch.finfo(torch.float32).eps
    threshold = max(NEAR * unit * (left.largest + right.largest), left.shortest**2)
    if distance.amin() <= threshold:
        near = (distance <= threshold).nonzero()
    else:
        near = torch.empty(0, 2, dtype=torch.long)
    return ratios.div_(distance), near


def _exact_ratios(left: _Gram, right: _Gram, pairs: torch.Tensor) -> torch.Tensor:
    """The same ratios for a few (i, j), from float64 differences; NaN where there is no secant."""
    parts = []
    size = fitting(DIFFERENCES, left.x.shape[1], 4096)
    for i, j in (part.T for part in torch.split(pairs, size)):
        above = squared_norm(left.u[i].double() - right.u[j].double())
        below = squared_norm(left.x[i].double() - right.x[j].double())
        parts.append((above / below).where(below > left.shortest**2, torch.nan))
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def _tile(
    left: _Gram,
    right: _Gram,
    rows: slice,
    columns: slice,
    memory: _Workspace,
    same_panel: bool = False,
) -> tuple[torch.Tensor, bool, int]:
    """Ratios of one tile, whether it holds NaN (no secant there), and how many pairs were near.

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
        if bool(i[-1] >= j[0]):
            holes = True
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
class _Panels:
    """A task: two panels of points and their images, and where they begin."""

    x: np.ndarray
    u: np.ndarray
    y: np.ndarray
    v: np.ndarray
    row: int
    column: int


@dataclass(frozen=True)
class _Part:
    """What a task hands back."""

    low: list[Extreme]
    """Candidates for the least ratio, which they come with in float64."""
    high: list[Extreme]
    """Candidates for the largest."""
    counts: np.ndarray
    """(bins + 2,), the first and last outside the edges."""
    n_pairs: int
    n_near: int


def _scan(
    x: np.ndarray,
    u: np.ndarray,
    y: np.ndarray,
    v: np.ndarray,
    begin: tuple[int, int],
    edges: np.ndarray,
    keep: int,
    shortest: float,
) -> _Part:
    """One task: all tiles of a pair of panels, which begin at these rows. Pairs i < j count.

    Panels are arguments of their own, so that each goes to a process once (`analysis.sharing`).
    """
    with one_thread(), torch.no_grad():
        return _scan_tiles(_Panels(x, u, y, v, *begin), edges, keep, shortest)


def _tiles(rows: int, columns: int, same: bool) -> list[tuple[slice, slice]]:
    """Rows and columns of every tile of a pair of panels; of one panel, where i < j occurs."""
    tiles: list[tuple[slice, slice]] = []
    for first in range(0, columns, TILE):
        part = slice(first, min(first + TILE, columns))
        if not same:
            tiles.append((slice(0, rows), part))
            continue
        # On the diagonal only pairs i < j count: the rows above the tile's square, and the square.
        tiles += [(slice(0, first), part)] if first else []
        tiles.append((part, part))
    return tiles


def _scan_tiles(panels: _Panels, edges: np.ndarray, keep: int, shortest: float) -> _Part:
    left = _Gram(torch.from_numpy(panels.x), torch.from_numpy(panels.u), shortest)
    same = panels.row == panels.column
    right = (
        left if same else _Gram(torch.from_numpy(panels.y), torch.from_numpy(panels.v), shortest)
    )
    memory = _Workspace(len(left.x), min(TILE, len(right.x)), left.x.dtype)
    low: list[Extreme] = []
    high: list[Extreme] = []
    total = np.zeros(len(edges) + 1, dtype=np.int64)
    n_pairs = n_near = 0
    tiles = _tiles(len(left.x), len(right.x), same)
    for rows, columns in tiles:
        ratios, holes, near = _tile(left, right, rows, columns, memory, same)
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
            found += [(r, panels.row + i, panels.column + j) for r, (i, j) in index if r == r]
        total += _count(values, edges, memory)
    low.sort()
    high.sort(key=_descending)
    return _Part(low[: 4 * keep], high[: 4 * keep], total, n_pairs, n_near)


# -------------------------------------------------------------------------- secants: whole scans


class NoSecants(ValueError):
    """No two points differ (by more than rounding)."""


@dataclass(frozen=True)
class SecantScan:
    """Extremes of r over the secants of N points, each from float64 differences of the points."""

    lowest: tuple[Extreme, ...]
    """(r, i, j) of the least, best first."""
    highest: tuple[Extreme, ...]
    """(r, i, j) of the largest, best first."""
    n_pairs: int
    """Secants looked at."""
    n_near: int
    """Pairs of points too near for the Gram form."""
    histogram: Histogram
    """r of all of them."""


def all_pairs(
    operator: Any,
    points: Float[torch.Tensor, "count ..."],
    *,
    error: float = 0.0,
    bins: int = 400,
    keep: int = KEEP,
    executor: Executor | None = None,
    progress: bool = False,
) -> SecantScan:
    """Extremes and histogram of r over all N(N − 1)/2 secants of `points`.

    Two matrix products of N × N, in tiles of a few MB. Extremes are recomputed from differences in
    float64; which pairs are recomputed is decided in float32 (relative accuracy about 1e-3 for the
    nearest pairs it is trusted with, 1e-6 for the others), the `keep` best of every tile.

    Args:
        operator: A.
        points: images; equal ones have no secant.
        error: each point is off by at most so much, in norm. Secants too short to count for that
            (see `analysis.rec.rounding`) are left out.
        bins: of the histogram.
        keep: extremes listed of either side.
        executor: runs the tasks.
        progress: show a bar.

    Raises:
        NoSecants: (a ValueError) if no two points differ, or only by rounding.
    """
    count = len(points)
    if count < 2:
        raise NoSecants(f"points must be at least 2 to form a secant, got {count}")
    shortest = SHORTEST * 2 * error
    flat, measured = (part.numpy() for part in _centred(operator, points, _mean(points)))
    edges = histogram_edges(_pilot(flat, measured, shortest), bins)
    starts = range(0, count, PANEL)
    panels = {i: (flat[i : i + PANEL], measured[i : i + PANEL]) for i in starts}
    pairs = [(i, j) for i in starts for j in starts if i <= j]
    tasks = ((*panels[i], *panels[j], (i, j), edges, keep, shortest) for i, j in pairs)
    parts = in_order(_scan, tasks, len(pairs), "secants", executor=executor, progress=progress)
    low = sorted(entry for part in parts for entry in part.low)[: 4 * keep]
    high = sorted((e for part in parts for e in part.high), key=_descending)[: 4 * keep]
    if not low:
        beyond = ", up to rounding" if error else ""
        raise NoSecants(f"points must differ to form a secant, got {count} equal ones{beyond}")
    counts = np.sum([part.counts for part in parts], axis=0)
    return SecantScan(
        lowest=tuple(sorted(_recomputed(operator, points, points, low))[:keep]),
        highest=tuple(sorted(_recomputed(operator, points, points, high), key=_descending)[:keep]),
        n_pairs=sum(part.n_pairs for part in parts),
        n_near=sum(part.n_near for part in parts),
        histogram=Histogram(edges, counts[1:-1], int(counts[0]), int(counts[-1])),
    )


def _descending(pair: Extreme) -> tuple[float, int, int]:
    return (-pair[0], pair[1], pair[2])


def ratios(A: Any, s: torch.Tensor) -> PerImage:
    """‖A s‖²/‖s‖² of every direction, so few at a time as memory wants it."""
    parts = torch.split(s, measured_together(A, s, len(s)))
    return torch.cat([ratio(A, part) for part in parts])


def _recomputed(
    operator: Any, first: torch.Tensor, second: torch.Tensor, pairs: list[Extreme]
) -> list[Extreme]:
    """The pairs (first[i], second[j]) with their ratios from the points, all in float64."""
    i, j = torch.tensor([pair[1:] for pair in pairs]).T
    difference = first[i].detach().cpu().double() - second[j].detach().cpu().double()
    found = ratios(converted(operator, torch.float64, "cpu"), difference)
    return list(zip(found.tolist(), i.tolist(), j.tolist(), strict=True))


def secants_from(
    operator: Any,
    x_true: Float[torch.Tensor, "batch ..."],
    points: Float[torch.Tensor, "count ..."],
    *,
    error: float = 0.0,
    keep: int = KEEP,
) -> list[tuple[Extreme, ...]]:
    """For every x*, the `keep` smallest r over the secants x* − x to `points`.

    Each entry is (r, index of x*, index of the point), best first, from float64 differences.
    Secants too short to count for the `error` of each point are left out.
    """
    given, points = x_true.to(points).detach().cpu(), points.detach().cpu()
    split, shortest = len(given), SHORTEST * 2 * error
    mean = _mean(points)
    left = _Gram(*_centred(operator, given, mean), shortest)
    candidates: list[list[Extreme]] = [[] for _ in range(split)]
    size = fitting(MEASURED, points[:1].numel(), TILE)
    for first in range(0, len(points), size):
        right = _Gram(*_centred(operator, points[first : first + size], mean), shortest)
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
            candidates[i] += [(r, i, first + j) for r, j in index if r == r]
    lowest = []
    for entries in candidates:
        best = sorted(entries)[: 4 * keep]
        recomputed = _recomputed(operator, given, points, best) if best else []
        lowest.append(tuple(sorted(recomputed)[:keep]))
    return lowest


def _mean(points: torch.Tensor) -> torch.Tensor:
    """Of the points, in float64, (1, …)."""
    total = sum(part.detach().cpu().double().sum(0, keepdim=True) for part in in_parts(points))
    return torch.as_tensor(total) / len(points)


def _centred(
    operator: Any, points: torch.Tensor, mean: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points minus a mean, flat, and their images under A.

    Secants do not see the mean; without it the Gram form cancels less.
    """
    points = points.detach().cpu()
    operator = converted(operator, points.dtype, "cpu")
    flat = torch.empty(len(points), points[0].numel(), dtype=points.dtype)
    measured = None
    size = fitting(MEASURED, flat.shape[1], PANEL)
    size = measured_together(operator, points[:size], size)
    with torch.no_grad():
        for first in range(0, len(points), size):
            part = points[first : first + size] - mean.to(points.dtype)
            flat[first : first + size] = part.flatten(1)
            image = checks.finite(operator(part), "A(x)").flatten(1).to(points.dtype)
            if measured is None:
                measured = torch.empty(len(points), image.shape[1], dtype=points.dtype)
            measured[first : first + size] = image
    assert measured is not None
    return flat, measured


def _pilot(
    flat: np.ndarray, measured: np.ndarray, shortest: float, pairs: int = 1024
) -> np.ndarray:
    """Ratios of the first disjoint pairs, to place the histogram."""
    last = min(len(flat) // 2, pairs) * 2
    index = torch.arange(last).reshape(-1, 2)
    some = _Gram(torch.from_numpy(flat[:last]), torch.from_numpy(measured[:last]), shortest)
    ratios = _exact_ratios(some, some, index).numpy()
    ratios = ratios[np.isfinite(ratios)]
    return ratios if len(ratios) else np.array([1.0])
