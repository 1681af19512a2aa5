"""The linear rate of a run's end, from its iterates alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from analysis.drawing import by_image, no_rates, rates_by_image
from analysis.local.doors import ranged
from analysis.words import out_of
from npgd import checks
from npgd.images import PerImage
from npgd.showing import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class RunRate(Drawn):
    """The linear rate at which runs end, from their iterates alone."""

    rate: PerImage
    """Modulus of the leading eigenvalue; NaN where the end is not linear."""
    period: PerImage
    """2π over its angle; 2 for a negative one; NaN for a positive one."""
    misfit: PerImage
    """What a linear map leaves of the last differences, relative."""
    rank: tuple[int, ...]
    """Directions that the last differences span; 0 where the end is not linear."""

    def draw(self, axis: Axes) -> None:
        """The rate of every image whose run ends linearly."""
        by_image(axis, self.rate, "seen", "beta", seen=True)
        rates_by_image(axis, len(self.rate))
        if bool(self.rate.isnan().all()):
            no_rates(axis, "no run comes to rest linearly")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        known = ~self.rate.isnan()
        if not bool(known.any()):
            return "run rate: no run comes to rest linearly"
        return (
            f"run rate: runs end linearly for {out_of(int(known.sum()), len(self.rate))}, by a"
            f" factor {ranged(self.rate[known])} per step"
        )


def run_rate(iterates: Float[torch.Tensor, "n_iter_plus_1 batch ..."]) -> RunRate:
    """The linear rate of a run's end, its swing included, from its iterates and nothing else.

    Near a fixed point the differences d_n = x_{n+1} − x_n follow d_{n+1} = DT d_n. The map is
    fitted to the last of them, each relative to its length, on the directions they span (dynamic
    mode decomposition: Schmid, J. Fluid Mech. 656, 2010); what is seen is the largest of the
    eigenvalues that make up the last difference. The norm ‖d_n‖ alone would swing with a complex
    pair, and mix neighbouring eigenvalues.

    Args:
        iterates: x_0 … x_N, (N + 1, batch, …).

    Raises:
        ValueError: fewer than three dimensions or iterates, or what is not finite.
    """
    x = checks.finite(checks.iterates(iterates), "iterates").detach().double().cpu()
    if x.ndim < 3 or len(x) < 3 or not x.numel():
        raise ValueError(
            f"iterates must have shape (n_iter + 1, batch, …), at least 3 of them, got"
            f" {tuple(iterates.shape)}"
        )
    eps = torch.finfo(iterates.dtype).eps if iterates.dtype.is_floating_point else 1e-16
    fits = [_end(x[:, i].flatten(1), eps) for i in range(x.shape[1])]
    column = partial(torch.tensor, dtype=torch.float64)
    return RunRate(
        rate=column([abs(value) for value, _, _ in fits]),
        period=column([_period(value) for value, _, _ in fits]),
        misfit=column([misfit for _, misfit, _ in fits]),
        rank=tuple(rank for _, _, rank in fits),
    )


def _period(value: complex) -> float:
    angle = abs(math.atan2(value.imag, value.real))
    return 2 * math.pi / angle if angle > 1e-9 else math.nan


ROUNDED = 1e6
"""A difference of so many units of rounding, of the last iterate, is told to six digits."""
NEAR = (1e-4, 1e-2)
"""The end begins where differences are below these shares, of the last iterate's norm and of the
largest difference;"""
LEAST = 6
"""if so few are left, with the last twelve."""
KEPT = 1e-5
"""Directions with so small a share of the differences are rounding."""
SHARE = 0.03
"""An eigenvalue is seen where it makes up so much of the last difference, against the largest."""
MISFIT = 0.05
"""What a linear end leaves unexplained, at most."""


def _end(x: Float[torch.Tensor, "n d"], eps: float) -> tuple[complex, float, int]:
    """Leading eigenvalue, misfit and rank of the map that the last differences follow."""
    none = (complex(math.nan, math.nan), math.nan, 0)
    d = x.diff(dim=0)
    length = d.norm(dim=1)
    size = float(x[-1].norm())
    clear = (length > ROUNDED * eps * size).nonzero().flatten()
    if not len(clear):
        return none
    last = int(clear[-1]) + 1
    early = length[:last] > min(NEAR[0] * size, NEAR[1] * float(length.max()))
    first = int((early * torch.arange(1, last + 1)).max())
    if last - first < LEAST:
        first = max(0, last - 2 * LEAST)
    if last - first < 3:
        return none
    d, scale = d[first:last], 1 / length[first : last - 1, None]
    before, after = d[:-1] * scale, d[1:] * scale
    _, s, vh = torch.linalg.svd(before, full_matrices=False)
    basis = vh[s > KEPT * s[0]].T
    found = torch.linalg.lstsq(before @ basis, after @ basis, driver="gelsd").solution
    misfit = float((after - before @ basis @ found @ basis.T).norm() / after.norm())
    if not misfit <= MISFIT:
        return none
    values, vectors = torch.linalg.eig(found.T)
    parts = torch.linalg.solve(vectors, (d[-1] @ basis).to(vectors)).abs()
    kept = values[parts >= SHARE * parts.max()]
    return complex(kept[kept.abs().argmax()]), misfit, basis.shape[1]
