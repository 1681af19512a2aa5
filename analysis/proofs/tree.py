"""Branch and bound over cells of pairs: which are left, which are shown, what is split."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float

from analysis.proofs.pairs import (
    NEAR,
    Cells,
    Expansion,
    Form,
    Frame,
    PerCell,
    Wide,
    all_directions,
    bound,
    diagonalising,
    far,
    form,
    near,
    ratios,
)
from npgd.progress import Bar

CHUNK = 2048
"""Cells that are looked at together."""
RELAX = 1.25
"""By how much a bound is weakened at a time where the budget is spent."""
TRIES = 12
"""And how often; then the span's constant is all there is."""
LARGEST_HULL = 20.0
"""Radius of the hull beyond which nothing is tried: a cell is split instead."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The box of latents, and the coordinates in which it closes to a circle."""

    low: Float[torch.Tensor, " k"]
    high: Float[torch.Tensor, " k"]
    periodic: tuple[bool, ...]

    def root(self) -> Cells:
        """One cell that holds every pair."""
        centre, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        periodic = torch.tensor(self.periodic)
        widest = torch.where(periodic, half, 2 * half)
        whole = Cells(
            torch.cat([centre, torch.zeros_like(centre)])[None],
            torch.cat([half, widest])[None] * (1 + 1e-15) + 1e-15,
        )
        return whole

    def largest(self) -> float:
        """Entry of any latent that a cell's expansion may use."""
        ends = torch.maximum(self.low.abs(), self.high.abs())
        return float((ends + 2 * (self.high - self.low)).max())

    def meets(self, cells: Cells) -> torch.Tensor:
        """Whether a cell may hold a pair of the box."""
        k = len(self.low)
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        p = ((cells.centre[:, :k] - middle).abs() - cells.half[:, :k]).clamp_min(0.0)
        d = (cells.centre[:, k:].abs() - cells.half[:, k:]).clamp_min(0.0)
        inside = p + d / 2 <= half * (1 + 1e-12) + 1e-12
        return (inside | torch.tensor(self.periodic)).all(1)

    def holds(self, centre: Wide) -> torch.Tensor:
        """Whether both ends of a pair lie in the box."""
        k = len(self.low)
        p, d = centre[:, :k], centre[:, k:]
        ends = torch.stack([p + d / 2, p - d / 2])
        inside = (ends >= self.low) & (ends <= self.high)
        return (inside.all(0) | torch.tensor(self.periodic)).all(1)


def split(cells: Cells, coordinate: torch.Tensor) -> Cells:
    """Every cell in two along its coordinate; in three where that is of d and 0 is its middle."""
    k = cells.centre.shape[1] // 2
    rows = torch.arange(len(cells))
    middle = cells.centre[rows, coordinate]
    third = (coordinate >= k) & (middle == 0)
    parts = []
    for kept, places in ((~third, (-0.5, 0.5)), (third, (-0.75, 0.0, 0.75))):
        chosen, along, own = cells[kept], coordinate[kept], rows[: int(kept.sum())]
        # The whole cell is its own mirror image: the parts on either side are the same pairs.
        mirrored = (chosen.centre[:, k:] == 0).all(1)
        for place in places:
            centre, half = chosen.centre.clone(), chosen.half.clone()
            width = chosen.half[own, along]
            centre[own, along] += place * width
            half[own, along] = width * (0.5 if len(places) == 2 or place == 0 else 0.25)
            part = Cells(centre, half)
            parts.append(part[~mirrored] if place == -0.75 else part)
    return joined(parts)


def joined(parts: list[Cells]) -> Cells:
    """All of several."""
    return Cells(torch.cat([p.centre for p in parts]), torch.cat([p.half for p in parts]))


@dataclass(eq=False)
class Side:
    """α from above and below, or β: one proof under way."""

    lower: bool
    """Whether it is the least ratio that is enclosed."""
    found: float
    """The extreme ratio seen, of a pair of the box, with rounding on the safe side."""
    witness: torch.Tensor
    """Its (p, d); d is a direction where `tangent`."""
    tangent: bool
    tolerance: float
    splits: list[torch.Tensor] = field(default_factory=list)
    """Chunk by chunk: the coordinate that each cell was split along, −1 where it was shown."""
    cells: int = 0
    left: Cells | None = None
    """What the budget left unproved."""

    @property
    def target(self) -> float:
        """The ratio that is proved to be a bound."""
        factor = 1 + self.tolerance
        return self.found / factor if self.lower else self.found * factor

    def see(self, ratio: PerCell, pairs: Wide, tangent: bool) -> None:
        """Keep the most extreme of the ratios."""
        if not len(ratio):
            return
        best = int(ratio.argmin() if self.lower else ratio.argmax())
        value = float(ratio[best])
        if (value < self.found) if self.lower else (value > self.found):
            self.found, self.witness, self.tangent = value, pairs[best].clone(), tangent


def examine(
    frame: Frame, wanted: Form, cells: Cells, side: Side, domain: Domain
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which cells are shown, and along which coordinate to split the others."""
    k = frame.S.latent_dim
    low = torch.full((len(cells),), -torch.inf, dtype=torch.float64)
    along = cells.half.argmax(1)
    zero = cells.around.all(1)
    hull = (cells.half[:, :k] + (cells.centre[:, k:].abs() + cells.half[:, k:]) / 2).norm(dim=1)

    def tell(rows: torch.Tensor, value: PerCell, cost: Wide) -> None:
        better = value > low[rows]
        low[rows[better]], along[rows[better]] = value[better], cost[better].argmax(1)

    rows = (zero & (hull <= LARGEST_HULL)).nonzero()[:, 0]
    if len(rows):
        s = near(frame, cells[rows])
        tell(rows, *all_directions(wanted, cells[rows], s))
        _see_tangents(frame, cells[rows], s, side, domain)
    rows = (~zero & (hull <= NEAR)).nonzero()[:, 0]
    if len(rows):
        tell(rows, *bound(wanted, near(frame, cells[rows]), cells.half[rows]))
    rows = ((low < 0) & ~zero).nonzero()[:, 0]
    if len(rows):
        s = far(frame, cells[rows])
        tell(rows, *bound(wanted, s, cells.half[rows]))
        inside = domain.holds(cells.centre[rows])
        error = torch.full_like(hull[rows], 2 * frame.rounding.value)[inside]
        ratio = ratios(frame, s.start[inside], error, side.lower)
        side.see(ratio, cells.centre[rows][inside], tangent=False)
    return low >= 0, along


def _see_tangents(frame: Frame, cells: Cells, s: Expansion, side: Side, domain: Domain) -> None:
    """The extreme tangents at the centres of cells."""
    k = frame.S.latent_dim
    p, J = cells.centre[:, :k], s.slopes[:, k:]
    at = torch.cat([p, torch.zeros_like(p)], dim=1)
    inside = domain.holds(at)
    p, J = p[inside], J[inside]
    d = diagonalising(J, frame.N)[:, :, 0 if side.lower else -1]
    d = d / d.norm(dim=1, keepdim=True).clamp_min(1e-300)
    error = torch.full_like(d[:, 0], 2 * k * frame.rounding.first)
    ratio = ratios(frame, torch.einsum("bi,bih->bh", d, J), error, side.lower)
    side.see(ratio, torch.cat([p, d], dim=1), tangent=True)


def prove(frame: Frame, domain: Domain, side: Side, most: int, bar: Bar) -> None:
    """Split cells until every one is shown, or the budget is spent; `side` takes what comes out."""
    waiting = [domain.root()]
    while waiting:
        level = joined(waiting)
        waiting = []
        for begin in range(0, len(level), CHUNK):
            if side.cells >= most:
                waiting.append(level[begin:])
                break
            cells = level[begin : begin + CHUNK]
            target = form(frame, side.target, side.lower)
            good, along = examine(frame, target, cells, side, domain)
            side.cells += len(cells)
            along[good] = -1
            side.splits.append(along.to(torch.int8))
            children = split(cells[~good], along[~good])
            waiting.append(children[domain.meets(children)])
            bar.reach(side.cells, f"{sum(map(len, waiting)):,} to go")
        else:
            waiting = [part for part in waiting if len(part)]
            continue
        break
    side.left = joined(waiting) if waiting else None


def start(frame: Frame, domain: Domain, side: Side, points: int, seed: int) -> None:
    """A first look at random pairs and tangents, so that `side.found` is near its end."""
    k = len(domain.low)
    draws = torch.rand(2, points, k, generator=torch.Generator().manual_seed(seed)).double()
    ends = domain.low + draws * (domain.high - domain.low)
    p, d = ends.mean(0), ends[0] - ends[1]
    pairs = Cells(torch.cat([p, d], dim=1), torch.zeros(points, 2 * k, dtype=torch.float64))
    s = far(frame, pairs)
    known = torch.full((points,), 2 * frame.rounding.value, dtype=torch.float64)
    side.see(ratios(frame, s.start, known, side.lower), pairs.centre, tangent=False)
    single = Cells(torch.cat([ends[0], torch.zeros_like(p)], dim=1), pairs.half)
    _see_tangents(frame, single, near(frame, single), side, domain)


def weaker(frame: Frame, domain: Domain, side: Side) -> float:
    """A ratio that bounds what is left as well, where the budget did not do for `side.target`."""
    low, high = frame.span
    ratio, left = side.target, side.left
    for _ in range(TRIES):
        if left is None or not len(left):
            return ratio
        ratio = ratio / RELAX if side.lower else ratio * RELAX
        if (ratio <= low) if side.lower else (ratio >= high):
            break
        wanted, kept = form(frame, ratio, side.lower), []
        for begin in range(0, len(left), CHUNK):
            cells = left[begin : begin + CHUNK]
            kept.append(cells[~examine(frame, wanted, cells, side, domain)[0]])
        left = joined(kept)
    return (low if side.lower else high) if left is not None and len(left) else ratio


def replay(
    frame: Frame, domain: Domain, splits: list[torch.Tensor], ratio: float, lower: bool
) -> str:
    """Follow recorded splits from the whole domain, and prove every cell that was not split.

    Returns:
        "" where every pair of the domain is in a cell that is shown; else what is wrong, in words.
    """
    wanted, side = form(frame, ratio, lower), Side(lower, ratio, torch.zeros(0), False, 0.0)
    waiting, level, begin = [domain.root()], domain.root()[:0], 0
    for along in splits:
        if begin >= len(level):
            level, waiting, begin = joined(waiting), [], 0
        cells = level[begin : begin + CHUNK]
        begin += CHUNK
        if len(cells) != len(along):
            return f"a record of {len(along)} cells where there are {len(cells)}"
        leaf = along < 0
        good, _ = examine(frame, wanted, cells[leaf], side, domain)
        if not bool(good.all()):
            return f"{int((~good).sum())} cells of a chunk that are not shown"
        children = split(cells[~leaf], along[~leaf].long())
        waiting.append(children[domain.meets(children)])
    if begin < len(level) or any(len(part) for part in waiting):
        return "cells without a record"
    return ""
