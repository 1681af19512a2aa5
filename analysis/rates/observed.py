"""What was observed: the linear rate of a run's objective, and where there is none.

A run seldom does one thing. It falls, and then rests at a floor, or slows, or rises again; it may
circle all the while. So log F_n is fitted by one straight line, or by two that meet, whichever the
numbers ask for; the rate is that of the first part, with the floor taken off if the second rests;
and a rate is given only where the fall stands out from what is left over.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.drawing import by_image, no_rates, rates_by_image
from analysis.rates.bound import Constant, constant, first_of, for_batch
from analysis.rates.fits import (
    FALL,
    STANDS_OUT,
    Line,
    Numbers,
    Tail,
    jump_of,
    line_of,
    power_of,
    steepens,
    swing_of,
    tail_of,
)
from npgd import checks
from npgd.files import plain
from npgd.images import PerImage
from npgd.showing import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST = 1e-28
"""Of the largest F_n: less than that is rounding."""


@dataclass(frozen=True, eq=False)
class ObservedRate(Drawn):
    """Linear rate of each image's objective, F_n − floor ≈ a · rateⁿ for first ≤ n ≤ last."""

    rate: PerImage
    """Factor per step; NaN where there is no geometric fall."""
    first: tuple[int, ...]
    """Where the fit begins."""
    last: tuple[int, ...]
    """Where the fit ends."""
    floor: PerImage
    """What is taken off F_n before the fit: where it rests, or 0."""
    r_squared: PerImage
    """Of the fit of log(F_n − floor); near 1 the fall is linear."""
    period: PerImage
    """Iterates in which log F_n swings once around the line; NaN where it does not."""
    after: tuple[str, ...]
    """What the objective does after `last`: "ends" (there is nothing), "rests", "circles" (around
    a level), "slows", "rises"; "" without a rate."""
    after_factor: PerImage
    """Factor per step of F_n after `last`; NaN where nothing comes after."""
    reasons: tuple[str, ...]
    """Why there is no rate; empty where there is one."""

    @property
    def median(self) -> float:
        """Median over the images that have a rate; NaN if none has."""
        return float(self.rate.nanquantile(0.5))

    @property
    def status(self) -> str:
        """What the objective does, without the first sentence's subject and the last's stop."""
        return " ".join(self.sentences).removeprefix("The objective ").removesuffix(".")

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the objective does: the rate, the swing, and what came after, a fact each."""
        kept = [i for i in range(len(self.first)) if not bool(self.rate[i].isnan())]
        if not kept:
            return (
                f"The objective has no rate: {self.reasons[0] if self.reasons else 'no image'}.",
            )
        lasts = sorted({self.last[i] for i in kept})
        span = f"x_{min(self.first[i] for i in kept)} to x_{lasts[0]}"
        if len(lasts) > 1:
            span += f"–x_{lasts[-1]}"
        said = [
            f"The objective falls by a factor {self.median:.3g} per step (median of {len(kept)}, "
            f"fitted on {span}, R² {float(self.r_squared.nanquantile(0.5)):.2f})."
        ]
        circling = ~self.period.isnan() & ~self.rate.isnan()
        if bool(circling.any()):
            who = "" if len(kept) == 1 else f" for {int(circling.sum())} of them"
            middle = float(self.period[circling].median())
            said.append(f"It swings{who} with a period of {middle:.3g}.")
        return (*said, *self._afterwards(kept))

    def _afterwards(self, kept: list[int]) -> list[str]:
        counts = Counter(self.after[i] for i in kept)
        said: list[str] = []
        for word in ("rests", "circles", "slows", "rises"):
            if not counts[word]:
                continue
            factors = self.after_factor[[i for i in kept if self.after[i] == word]]
            middle = float(factors.quantile(0.5))
            what = {
                "rests": "levels off",
                "circles": "circles around a level",
                "slows": "falls more slowly",
                "rises": "rises",
            }[word]
            if word == "slows" and f"{middle:.3g}" == f"{self.median:.3g}":
                continue  # no more slowly than can be printed
            who = "" if len(kept) == 1 else f" for {counts[word]}"
            factor = f", by a factor {middle:.3g} per step" if word in ("slows", "rises") else ""
            said.append(f"{'It' if said else 'Afterwards it'} {what}{who}{factor}.")
        return said

    def draw(self, axis: Axes) -> None:
        """The rate of every image whose objective has one."""
        by_image(axis, self.rate, "fitted", "beta", seen=True)
        rates_by_image(axis, len(self.rate), "‖A xₙ − y‖²", "1: no fall")
        if bool(self.rate.isnan().all()):
            no_rates(axis, f"no rate: {self.reasons[0] if self.reasons else 'no image'}")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        return f"objective {self.status}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "rate": plain(self.rate),
            "first": list(self.first),
            "last": list(self.last),
            "floor": plain(self.floor),
            "r_squared": plain(self.r_squared),
            "period": plain(self.period),
            "after": list(self.after),
            "after_factor": plain(self.after_factor),
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
    """The linear rate of the objective, over the iterates in which it falls.

    log F_n is fitted by a line, or by two that meet where the squared residuals then fall by half
    or more. Where the second is level, the first is fitted again to log(F_n − floor), the floor
    being the median of the level part, over the n before F_n comes within 10 % of it or into its
    noise; but to log F_n, up to the break, where that leaves half or less. Where the second falls
    too, and for longer, the rate is the second's. A swing of one frequency is fitted with the line
    if it explains most of what is left. A rate is given for a fall by half or more, and by
    six standard deviations of what is left, whose slope has five standard errors, or as many as a
    random walk seldom has where what is left may be one; not for a fall like a power of n, nor for
    a single drop. Where a level or slower part comes before a steeper fall, the rate is that of
    the fall. Elsewhere `reasons` says what there is instead.

    Args:
        objective: F_n ≥ 0, shape (n_iter + 1, batch).
        start: the first n to look at.
        floor: F_∞, if it is known, one number or one for each image.

    Raises:
        ValueError: if the objective has not two dimensions, is negative or not finite, or `start`
            is not one of its rows.
    """
    if checks.floating(objective, "objective").ndim != 2 or not objective.numel():
        raise ValueError(
            f"objective must be of shape (n_iter + 1, batch), got {tuple(objective.shape)}"
        )
    values = objective.detach().double().cpu()
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ValueError("objective must be finite and not negative, got other values")
    start = first_of(start, values.shape[0] - 1)
    batch = values.shape[1]
    if floor is not None:
        for_batch(batch, floor=floor)
    given = None if floor is None else constant("floor", floor).expand(batch)
    fits = [
        _observe(values[start:, i].numpy(), start, None if given is None else float(given[i]))
        for i in range(batch)
    ]

    def column(name: str) -> PerImage:
        return torch.tensor([getattr(fit, name) for fit in fits], dtype=torch.float64)

    return ObservedRate(
        rate=column("rate"),
        first=tuple(fit.first for fit in fits),
        last=tuple(fit.last for fit in fits),
        floor=column("floor"),
        r_squared=column("r_squared"),
        period=column("period"),
        after=tuple(fit.after for fit in fits),
        after_factor=column("after_factor"),
        reasons=tuple(fit.reason for fit in fits),
    )


@dataclass(frozen=True)
class _Fit:
    """What is seen of one image."""

    first: int
    last: int
    floor: float = 0.0
    rate: float = math.nan
    r_squared: float = math.nan
    period: float = math.nan
    after: str = ""
    after_factor: float = math.nan
    reason: str = ""


def _observe(
    values: Numbers, start: int, floor: float | None, inflation: float | None = None
) -> _Fit:
    """The rate of F_start, F_{start+1}, …

    `inflation` is what a longer stretch tells of the error of a slope.
    """
    count, largest, level = len(values), float(values.max()), floor or 0.0
    if (nothing := _no_line(values, start, level)) is not None:
        return nothing
    clear = values - level > max(0.1 * level, SMALLEST * largest)
    reached = count if floor is None or clear.all() else int(np.argmin(clear))
    logs = np.log(np.maximum(values[:reached] - level, SMALLEST * largest))
    if (power := power_of(logs)) is not None:
        reason = f"no geometric fall: it falls ever more slowly, about as n^−{power:.2g}"
        return _Fit(start, start + reached - 1, level, reason=reason)
    tail = tail_of(logs)
    word = "" if tail is None else tail.word(reached)
    noise = 0.0 if tail is None else tail.spread
    level_tail = word in ("rests", "circles")
    if floor is None and tail is not None and level_tail:
        level = float(np.median(values[tail.settles :]))
    if values[0] <= 1.1 * level:
        reason = f"x_{start} is already within 10 % of the floor {level:.3g}"
        return _Fit(start, start, level, reason=_circling(logs) or reason)

    if tail is not None:
        inflation = max(inflation or 1.0, tail.inflation)
    if tail is not None and word == "slows" and tail.begins < reached - 1 - tail.begins:
        # The slower fall is the longer one, and what the run comes to.
        past = (tail.begins + tail.settles) // 2
        slower = _observe(values[past:], start + past, floor, inflation)
        if not math.isnan(slower.rate):
            return slower
    limit = reached if tail is None or level_tail else tail.begins + 1
    clear = values[:limit] - level > max(max(0.1, 4 * noise) * level, SMALLEST * largest)
    used = limit if clear.all() else int(np.argmin(clear))
    last = start + max(used - 1, 0)
    if used < 3 or (used < 4 and tail is None):
        return _Fit(start, last, level, reason=_too_short(values, start, level))
    if (bend := steepens(np.log(values[:used] - level))) is not None:
        begins, wanders = bend
        steeper = _observe(values[begins:], start + begins, floor, max(inflation or 1.0, wanders))
        if not math.isnan(steeper.rate):
            return steeper
    line = line_of(np.log(values[:used] - level), inflation)
    if floor is None and tail is not None and level_tail and tail.begins >= 4:
        sharp = line_of(logs[: tail.begins + 1], inflation)
        if sharp.spread < 0.5 * line.spread:  # it falls towards 0 and breaks off: no floor
            line, level, used = sharp, 0.0, tail.begins + 1
            last, word = start + tail.begins, tail.word(reached, tail.begins)
    fall = -line.slope * (used - 1)
    left = max(line.spread, noise)
    if line.slope >= -STANDS_OUT * line.wander or fall < max(FALL, 6 * left):
        return _Fit(start, last, level, reason=_no_fall(values, logs, start, line, fall, used))
    settles = used < count
    if settles and not word:  # a given floor is reached
        word = "rests"
    if floor is None and tail is not None and level_tail and level > 0:
        level = _floor(values, tail, line, used - 1, level)
    return _Fit(
        start, last, level, math.exp(line.slope), line.r_squared, line.period,
        word if settles else "ends",
        math.exp(tail.slope) if tail is not None and settles else 1.0 if settles else math.nan,
    )  # fmt: skip


def _no_line(values: Numbers, start: int, level: float) -> _Fit | None:
    """Of what no line could say anything: zeros, two numbers, a single jump."""
    largest, end = float(values.max()), start + len(values) - 1
    if largest == 0:
        return _Fit(start, start, level, reason=f"x_{start} is already 0")
    if len(values) < 3:
        return _Fit(start, end, level, reason=_too_short(values, start, level))
    if (place := jump_of(np.log(np.maximum(values, SMALLEST * largest)))) is not None:
        return _Fit(start, end, level, reason=_jumps(values, start, place))
    return None


def _floor(values: Numbers, tail: Tail, line: Line, last: int, level: float) -> float:
    """The level part without what the fitted fall, up to `last`, leaves of itself there."""
    rest = np.exp(line.slope * (np.arange(tail.settles, len(values)) - last))
    return float(np.median(values[tail.settles :] - (values[last] - level) * rest))


def _circling(logs: Numbers) -> str:
    """What a level stretch does, if it swings."""
    count = len(logs)
    level = np.ones((count, 1))
    squares = float(((logs - logs.mean()) ** 2).sum())
    swing = swing_of(logs, level, squares)
    return "" if swing is None else f"it circles with a period of {swing[0]:.3g} iterates"


def _jumps(values: Numbers, start: int, place: int) -> str:
    """Where the one fall is, and between which values."""
    before, after = start + place, start + place + 1
    return (
        f"no geometric fall: F_n is level up to x_{before}, drops from {values[place]:.3g} to"
        f" {values[place + 1]:.3g} at x_{after}, and is level after it"
    )


def _too_short(values: Numbers, start: int, floor: float) -> str:
    """Why fewer iterates fall than a line needs."""
    n = 0
    while n + 1 < len(values) and values[n + 1] < values[n] and values[n + 1] > 1.1 * floor:
        n += 1
    if n + 1 == len(values):
        stop = "the run ends"
    elif values[n + 1] < values[n]:
        stop = f"x_{start + n + 1} has reached the floor {floor:.3g}"
    else:
        stop = f"the objective rises from x_{start + n} to x_{start + n + 1}"
    return f"it falls for too few iterates to tell: {stop}"


def _no_fall(values: Numbers, logs: Numbers, start: int, line: Line, fall: float, used: int) -> str:
    """Why a line through log F_n is no geometric fall."""
    if circling := _circling(logs):
        return f"no geometric fall: {circling}"
    level = float(np.median(values))
    small = values.max() <= 1.1 * level and values.min() * 1.1 >= level
    if small and not line.r_squared >= 0.9:
        return f"x_{start} is already within 10 % of the floor {level:.3g}"
    if STANDS_OUT * line.error < abs(line.slope) <= STANDS_OUT * line.wander:
        return (
            f"no geometric fall: F_n wanders over {used} iterates, by steps of either sign that "
            "would make such a slope by themselves"
        )
    if abs(line.slope) > STANDS_OUT * line.error:
        drift = 100 * abs(math.expm1(line.slope))
        if fall > 0:
            return (
                f"it drifts down by {drift:.3g} % a step, {-100 * math.expm1(-fall):.0f} % in all: "
                "too little, or too unsteady, for a rate"
            )
        place = int(np.argmax(np.diff(values) > 0))
        where = f"x_{start + place} to x_{start + place + 1}"
        return f"the objective rises from {where}, and by {drift:.3g} % a step on the whole"
    return (
        f"no geometric fall: F_n varies by {100 * math.expm1(line.spread):.0f} % around a level "
        f"line over {used} iterates"
    )
