"""The linear rate of a run's end, from its iterates alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float

from analysis.local.doors import ranged
from analysis.words import out_of
from npgd import checks
from npgd.images import PerImage


@dataclass(frozen=True, eq=False)
class RunRate:
    """The linear rate at which runs end, from their iterates alone."""

    rate: PerImage
    """Modulus of the leading root; NaN where no recurrence fits."""
    period: PerImage
    """2π over its angle; 2 for a negative root; NaN for a positive one."""
    misfit: PerImage
    """Of the recurrence: what it leaves of the last differences, relative."""
    order: tuple[int, ...]
    """Its number of terms; 0 where none fits."""

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

    Near a fixed point the differences d_n = x_{n+1} − x_n follow a linear recurrence whose roots
    are eigenvalues of DT. One of as few terms as leave 10⁻⁴ of d_n, and 8 at most, is fitted
    (Prony's method) to the differences between 10⁻³ of the largest and rounding, the later half
    of them; what is seen is the largest of the roots that make up the last difference. The norm
    ‖d_n‖ alone would swing with a complex pair.

    Args:
        iterates: x_0 … x_N, (N + 1, batch, …).

    Raises:
        ValueError: fewer than three dimensions or iterates, or what is not finite.
    """
    x = checks.finite(checks.floating(iterates, "iterates"), "iterates").detach().double().cpu()
    if x.ndim < 3 or len(x) < 3 or not x.numel():
        raise ValueError(
            f"iterates must have shape (n_iter + 1, batch, …), at least 3 of them, got"
            f" {tuple(iterates.shape)}"
        )
    eps = torch.finfo(iterates.dtype).eps if iterates.dtype.is_floating_point else 1e-16
    fits = [_recurrence(x[:, i].flatten(1), eps) for i in range(x.shape[1])]
    column = partial(torch.tensor, dtype=torch.float64)
    return RunRate(
        rate=column([abs(root) for root, _, _ in fits]),
        period=column([_period(root) for root, _, _ in fits]),
        misfit=column([misfit for _, misfit, _ in fits]),
        order=tuple(order for _, _, order in fits),
    )


def _period(root: complex) -> float:
    angle = abs(math.atan2(root.imag, root.real))
    return 2 * math.pi / angle if angle > 1e-9 else math.nan


ORDERS = (1, 2, 3, 4, 6, 8)


def _recurrence(x: Float[torch.Tensor, "n d"], eps: float) -> tuple[complex, float, int]:
    """Leading root, misfit and order of the recurrence that the differences follow."""
    none = (complex(math.nan, math.nan), math.nan, 0)
    d = x.diff(dim=0)
    length = d.norm(dim=1)
    rounding = 1e4 * eps * float(x[-1].norm().clamp_min(1e-300))
    clear = (length > rounding).nonzero().flatten()
    if not len(clear) or float(length.max()) <= rounding:
        return none
    last = int(clear[-1]) + 1
    small = (length[:last] > 1e-3 * length.max()).nonzero().flatten()
    first = min(int(small[-1]) + 1, last)
    first = max(first, (first + last) // 2) if last - first >= 24 else first
    if last - first < 6:  # too short a tail: as much of the run's end as there is
        first = max(0, last - 12)
    best = none
    for order in ORDERS:
        rows = last - first - order
        if rows < order + 2:
            break
        scale = 1 / length[first + order : last]
        columns = [
            (d[first + order - 1 - j : last - 1 - j] * scale[:, None]).flatten()
            for j in range(order)
        ]
        goal = (d[first + order : last] * scale[:, None]).flatten()
        matrix = torch.stack(columns, 1)
        found = torch.linalg.lstsq(matrix, goal, driver="gelsd").solution
        misfit = float((goal - matrix @ found).norm()) / math.sqrt(rows)
        if best[2] == 0 or misfit < 0.5 * best[1]:
            companion = torch.zeros(order, order, dtype=torch.float64)
            companion[0] = found
            companion[1:, :-1] = torch.eye(order - 1, dtype=torch.float64)
            roots = torch.linalg.eigvals(companion)
            best = _carrying(roots, d[first:last]), misfit, order
        if misfit <= 1e-4:
            break
    return best if best[1] <= 0.05 else none


def _carrying(roots: torch.Tensor, d: Float[torch.Tensor, "n d"]) -> complex:
    """The largest root of those that make up the last differences; others fit what is left over.

    d_n = Σ c_j r_jⁿ by least squares, each row relative to its length.
    """
    powers = roots[None] ** torch.arange(len(d), dtype=torch.float64)[:, None]
    scale = (1 / d.norm(dim=1))[:, None]
    parts = torch.linalg.lstsq(powers * scale, (d * scale).to(powers), driver="gelsd").solution
    share = parts.norm(dim=1) * powers[-1].abs()
    kept = roots[share >= SHARE * share.max()]
    return complex(kept[kept.abs().argmax()])


SHARE = 0.1
"""A root is seen where it makes up so much of the last difference, against the largest share."""
