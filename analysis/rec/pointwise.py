"""Instance-wise constants: α(x*) of every image."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from analysis.rec.results import Direction, PointwiseRec, _quotient
from analysis.rec.search import search_from
from analysis.rec.secants import secants_from
from analysis.rec.settings import LOOKS
from analysis.rec.tangents import tangents
from analysis.rec.target import TANGENT_STEP, _Sample, _Settings, _Target
from npgd.images import ratio

POINTWISE_STARTS = 3  # nearest-to-worst samples from which the search for alpha(x*) starts


def _pointwise(
    target: _Target,
    sample: _Sample,
    z_true: torch.Tensor | None,
    x_true: torch.Tensor | None,
    alpha: float,
    beta: float,
    looks: Collection[str],
    settings: _Settings,
) -> PointwiseRec:
    if z_true is not None:
        if z_true.ndim != 2 or z_true.shape[1] != target.latent_dim:
            came = tuple(z_true.shape)
            raise ValueError(f"z_true: got shape {came}, expected (count, {target.latent_dim})")
        z_true = z_true.detach().cpu().double()
        x_true = target.decode(z_true)
    assert x_true is not None
    x_true = x_true.detach().cpu().double()
    if x_true.shape[1:] != sample.images.shape[1:]:
        came, wanted = tuple(x_true.shape), tuple(sample.images.shape[1:])
        raise ValueError(f"x_true: got shape {came}, expected (count, *{wanted})")
    if target.is_affine or target.is_finite_set:
        kind, source = "exact", "the exact β of the set"
    else:
        kind, source = "lower bound", "β ≥ this, the largest found on the set"
    if target.is_affine:
        # Every direction of the set passes through every one of its points.
        constant = np.full(len(x_true), alpha)
        kappa = np.full(len(x_true), _quotient(beta, alpha))
        return PointwiseRec(constant, kappa, {}, beta, kind, source, True, ())

    count = len(x_true)
    by_look = {name: np.full(count, np.nan) for name in LOOKS}
    worst: list[list[Direction]] = [[] for _ in range(count)]

    def note(name: str, i: int, direction: Direction) -> None:
        by_look[name][i] = np.fmin(by_look[name][i], direction.ratio)
        worst[i].append(direction)

    def secant(i: int, z: torch.Tensor | None, image: torch.Tensor, j: int | None) -> Direction:
        """The secant from x*[i] to G(z), or to `image`."""
        other = image.double() if z is None else target.decode(z[None])[0]
        difference = (x_true[i] - other)[None]
        return Direction(
            kind="secant",
            ratio=float(ratio(target.double_operator, difference)),
            distance=float(difference.norm()),
            first=x_true[i],
            second=other,
            z_first=None if z_true is None else z_true[i],
            z_second=z,
            index=None if j is None else (i, j),
        )

    nearest = secants_from(target.double_operator, x_true, sample.images)
    for i, entries in enumerate(nearest):
        for _, _, j in entries[:2]:
            z = None if sample.z is None else sample.z[j]
            note("secants", i, secant(i, z, sample.images[j], j))
    steps = None
    if z_true is not None and "tangents" in looks:
        steps = tangents(target.double_operator, target.double_prior, z_true).low_step
        for i in range(count):
            if torch.isfinite(steps[i]).all():
                note("tangents", i, target.tangent(z_true[i], steps[i]))
    if sample.z is not None and "search" in looks:
        owner, start = _pointwise_starts(sample.z, nearest, z_true, steps)
        found = search_from(
            target.operator,
            target.prior,
            start,
            x_true[owner],
            None if z_true is None else z_true[owner],
            radius=settings.radius,
            steps=settings.search_steps,
            executor=settings.executor,
            progress=settings.progress,
        )
        for i in range(count):
            mine = (owner == i).nonzero().flatten()
            best = mine[found.ratio[mine].nan_to_num(nan=torch.inf).argmin()]
            z = found.z_first[best]
            note("search", i, secant(i, z, x_true[i], None))
    chosen = tuple(min(found_here, key=lambda d: d.ratio) for found_here in worst)
    lowest = np.array([direction.ratio for direction in chosen])
    kappa = np.array([_quotient(beta, value) for value in lowest])
    return PointwiseRec(lowest, kappa, by_look, beta, kind, source, target.is_finite_set, chosen)


def _pointwise_starts(
    z: torch.Tensor,
    nearest: list[tuple[tuple[float, int, int], ...]],
    z_true: torch.Tensor | None,
    steps: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every x*: the samples whose secants are worst, and both ends of its worst tangent."""
    owner: list[int] = []
    start: list[torch.Tensor] = []
    for i, entries in enumerate(nearest):
        for _, _, j in entries[:POINTWISE_STARTS]:
            owner.append(i)
            start.append(z[j])
        if z_true is not None and steps is not None and torch.isfinite(steps[i]).all():
            arm = TANGENT_STEP * steps[i] / steps[i].norm()
            owner += [i, i]
            start += [z_true[i] + arm, z_true[i] - arm]
    return torch.tensor(owner), torch.stack(start)
