"""What was observed: the linear rate of a run's objective, and where there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from analysis.rates.bound import Constant, _constant
from npgd.files import plain


@dataclass(frozen=True, eq=False)
class ObservedRate:
    """Linear rate of each image's objective, F_n − floor ≈ a · rateⁿ for first ≤ n ≤ last.

    ``rate`` is NaN where there is nothing to fit; ``reasons`` says why, and is empty elsewhere.
    """

    rate: Float[torch.Tensor, " batch"]
    first: tuple[int, ...]
    last: tuple[int, ...]
    floor: Float[torch.Tensor, " batch"]
    r_squared: Float[torch.Tensor, " batch"]
    """Of the fit of log(F_n − floor); near 1 the fall is linear."""
    reasons: tuple[str, ...]

    @property
    def median(self) -> float:
        """Median over the images that have a rate; NaN if none has."""
        return float(self.rate.nanquantile(0.5))

    @property
    def status(self) -> str:
        fitted = int((~self.rate.isnan()).sum())
        if fitted == 0:
            return "has no rate: " + (self.reasons[0] if self.reasons else "no image")
        kept = [i for i in range(len(self.first)) if not bool(self.rate[i].isnan())]
        span = f"x_{min(self.first[i] for i in kept)} to x_{max(self.last[i] for i in kept)}"
        text = f"falls by a factor {self.median:.3g} per step (median of {fitted}, fitted on {span}"
        return text + f", R² {float(self.r_squared.nanquantile(0.5)):.2f})"

    def __str__(self) -> str:
        return f"objective {self.status}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "rate": plain(self.rate),
            "first": list(self.first),
            "last": list(self.last),
            "floor": plain(self.floor),
            "r_squared": plain(self.r_squared),
            "reasons": list(self.reasons),
            "median": plain(self.median),
            "status": self.status,
        }


def observed_rate(
    objective: Float[torch.Tensor, "n_iter_plus_1 batch"],
    *,
    start: int = 0,
    floor: Constant | None = None,
) -> ObservedRate:
    """Fit a linear rate to the objective, over the iterates where it falls.

    Without a given ``floor``, the floor of an image is its plateau: the median of the trailing
    iterates that lie within 5 % of the last, if they are at least 4 and a tenth of the run; a run
    that still falls at its end has floor 0. The fit is least squares on log(F_n − floor), from
    ``start`` to the last n before F_n first rises, or comes within 10 % of the floor.

    Raises:
        ValueError: if the objective has not two dimensions, is negative or not finite, or ``start``
            is not one of its rows.
    """
    if objective.ndim != 2:
        raise ValueError(
            f"objective: expected shape (n_iter + 1, batch), got {tuple(objective.shape)}"
        )
    values = objective.detach().double().cpu()
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ValueError("objective: expected finite values >= 0, got others")
    if not 0 <= start < values.shape[0]:
        raise ValueError(f"start: expected 0 <= start < {values.shape[0]}, got {start}")
    batch = values.shape[1]
    floors = (
        torch.stack([_plateau(values[start:, i]) for i in range(batch)])
        if floor is None
        else _constant("floor", floor).expand(batch)
    )
    fits = [_fit_rate(values[:, i], float(floors[i]), start) for i in range(batch)]
    return ObservedRate(
        rate=torch.tensor([fit[0] for fit in fits], dtype=torch.float64),
        first=(start,) * batch,
        last=tuple(fit[1] for fit in fits),
        floor=floors,
        r_squared=torch.tensor([fit[2] for fit in fits], dtype=torch.float64),
        reasons=tuple(fit[3] for fit in fits),
    )


def _plateau(values: Float[torch.Tensor, " n"]) -> Float[torch.Tensor, ""]:
    inside = (values - values[-1]).abs() <= 0.05 * values[-1]
    outside = (~inside).nonzero()
    tail = values[int(outside[-1]) + 1 :] if len(outside) else values
    return tail.median() if len(tail) >= max(4, len(values) // 10) else values.new_zeros(())


def _fit_rate(
    values: Float[torch.Tensor, " n"], floor: float, start: int
) -> tuple[float, int, float, str]:
    """(rate, last iterate used, R², reason for there being no rate)."""
    n = start
    while n + 1 < len(values) and values[n + 1] < values[n] and values[n + 1] > 1.1 * floor:
        n += 1
    if values[start] <= 1.1 * floor:
        return math.nan, n, math.nan, f"x_{start} is already within 10 % of the floor {floor:.3g}"
    if n - start < 2:
        stop = (
            "the run ends"
            if n + 1 == len(values)
            else f"x_{n + 1} has reached the floor {floor:.3g}"
            if values[n + 1] < values[n]
            else f"the objective rises from x_{n} to x_{n + 1}"
        )
        return math.nan, n, math.nan, f"it falls for fewer than 3 iterates: {stop}"
    steps = torch.arange(start, n + 1, dtype=torch.float64)
    logs = (values[start : n + 1] - floor).log()
    centred, deviations = steps - steps.mean(), logs - logs.mean()
    slope = float((centred * deviations).sum() / centred.square().sum())
    unexplained = (deviations - slope * centred).square().sum()
    return math.exp(slope), n, float(1 - unexplained / deviations.square().sum()), ""
