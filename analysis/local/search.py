"""The search for a fixed point: the plain iteration, then Anderson's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool

from analysis.local.derivative import Iteration, Points, wide
from npgd.images import PerImage, norm
from npgd.progress import Bar

GROWTH = 1e6
"""A row has diverged when its norm exceeds this many times that of its start (and 1)."""
DEPTH = 8
"""Differences that Anderson's iteration keeps."""


@dataclass(frozen=True, eq=False)
class Run:
    """A plain iteration: where it is, was half-way, and what came of every row."""

    last: Points
    middle: Points
    point: Points
    """Of a row at rest that; else of the least residual, or the mean of the second half."""
    residual: PerImage
    rested: Bool[torch.Tensor, " batch"]
    diverged: Bool[torch.Tensor, " batch"]
    n_iter: torch.Tensor


def iterated(T: Iteration, z: Points, max_iter: int, tol: float, shown: Bar) -> Run:
    limit = GROWTH * norm(z).clamp_min(1.0)
    rested = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    diverged, n_iter = rested.clone(), torch.zeros(len(z), dtype=torch.int64, device=z.device)
    middle, point, total = z, z, torch.zeros_like(z)
    least = torch.full_like(limit, math.inf)
    going = ~rested
    for n in range(1, max_iter + 1):
        there = T.some(z, going)
        residual = _residual(there, z)
        better = (residual < least) & going
        point = torch.where(wide(better, z), z, point)
        least = torch.where(better, residual, least)
        rested |= (residual <= tol) & going
        diverged |= ~(norm(there) <= limit) & going & ~rested
        going = ~(rested | diverged)
        n_iter[going] = n
        shown.advance()
        if not bool(going.any()):
            break
        z = torch.where(wide(going, z), there, z)
        if n == max_iter // 2:
            middle, total = z, torch.zeros_like(z)
        total = total + z / max(max_iter - max_iter // 2, 1)
    if bool(going.any()):  # a run that circles has its centre near the fixed point
        residual = _residual(T.some(total, going), total)
        better = (residual < least) & going
        point = torch.where(wide(better, z), total, point)
        least = torch.where(better, residual, least)
    return Run(z, middle, point, least, rested, diverged, n_iter)


def _residual(there: Points, z: Points) -> PerImage:
    return (norm(there - z) / norm(z).clamp_min(1.0)).nan_to_num(nan=math.inf)


def anderson(
    T: Iteration, run: Run, max_iter: int, tol: float, shown: Bar
) -> tuple[Points, PerImage]:
    """Anderson's acceleration (J. ACM 12, 1965) from the best points; rows at rest stay.

    With f_i = T(z_i) − z_i and γ = argmin ‖f_n − ΔF γ‖, z_{n+1} = T(z_n) − (ΔZ + ΔF) γ; a row
    whose residual has grown tenfold starts again from its best point.
    """
    still = run.rested | run.diverged
    z = best = run.point
    least = run.residual
    past: list[tuple[torch.Tensor, torch.Tensor]] = []
    before: tuple[torch.Tensor, torch.Tensor] | None = None
    for _ in range(max_iter):
        there = T.some(z, ~still & (least > tol))
        f = (there - z).flatten(1)
        residual = _residual(there, z)
        better = (residual < least) & ~still
        best = torch.where(wide(better, z), z, best)
        least = torch.where(better, residual, least)
        shown.advance()
        if bool((still | (least <= tol)).all()):
            break
        lost = ~(residual <= 10 * least)
        flat = z.flatten(1)
        if before is not None:
            past = [*past, (flat - before[0], f - before[1])][-DEPTH:]
        if bool(lost.any()):
            keep = wide(~lost, flat)
            past = [(torch.where(keep, a, 0.0), torch.where(keep, b, 0.0)) for a, b in past]
        before = (flat, f)
        step = f
        if past:
            moved, changed = (torch.stack(part, 2) for part in zip(*past, strict=True))
            gamma = _least_squares(changed, f)
            step = f - ((moved + changed) @ gamma[..., None])[..., 0]
        following = flat + step
        home = best.flatten(1)
        following = torch.where(
            wide(lost, flat), home + 0.5 * (T.some(best, lost).flatten(1) - home), following
        )
        z = torch.where(wide(still | (least <= tol), flat), home, following).reshape(z.shape)
    return best, least


def _least_squares(columns: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """argmin ‖f − columns γ‖ of every row, by SVD: the columns may be dependent, or 0."""
    u, s, vh = torch.linalg.svd(columns, full_matrices=False)
    cut = 1e-10 if columns.dtype == torch.float64 else 1e-4
    inverse = torch.where(s > cut * s[:, :1].clamp_min(1e-300), 1 / s, 0.0)
    there = (u.transpose(1, 2) @ f[..., None])[..., 0]
    found: torch.Tensor = (vh.transpose(1, 2) @ (inverse * there)[..., None])[..., 0]
    return found
