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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.rates.bound import Constant, constant, first_of, for_batch
from npgd import checks
from npgd.files import plain
from npgd.images import PerImage

Numbers = Float[np.ndarray, " n"]

SMALLEST = 1e-28
"""Of the largest F_n: less than that is rounding."""
FALL = math.log(2)
"""The least fall of log F_n over the fitted iterates: less cannot be told from a drift."""
STANDS_OUT = 5.0
"""How many standard errors the slope must have."""
LINE_ROOT, BENT_ROOT = 3.0, 2.5
"""√n(1 − φ) below which what a line, or two lines, leave of n numbers may be a random walk, φ being
the correlation of neighbours. Chosen on random walks and on noisy falls."""
WALK = 0.5
"""A slope must be so many times `STANDS_OUT` standard errors of the slope of a random walk."""
CIRCLING = 0.01
"""A level stretch of log F_n that swings by less rests."""
BREAKS = 40
"""At most so many places are tried for the end of the fall."""


@dataclass(frozen=True, eq=False)
class ObservedRate:
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
        """The rate, its range and what came after it, in words."""
        kept = [i for i in range(len(self.first)) if not bool(self.rate[i].isnan())]
        if not kept:
            return "has no rate: " + (self.reasons[0] if self.reasons else "no image")
        lasts = sorted({self.last[i] for i in kept})
        span = f"x_{min(self.first[i] for i in kept)} to x_{lasts[0]}"
        if len(lasts) > 1:
            span += f"–x_{lasts[-1]}"
        text = (
            f"falls by a factor {self.median:.3g} per step (median of {len(kept)}, fitted on {span}"
            f", R² {float(self.r_squared.nanquantile(0.5)):.2f})"
        )
        circling = ~self.period.isnan() & ~self.rate.isnan()
        if bool(circling.any()):
            who = "" if len(kept) == 1 else f" for {int(circling.sum())} of them"
            text += f", swinging{who} with a period of {float(self.period[circling].median()):.3g}"
        return text + self._afterwards(kept)

    def _afterwards(self, kept: list[int]) -> str:
        counts = Counter(self.after[i] for i in kept)
        parts = []
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
            parts.append(f"{what}{who}{factor}")
        return "; afterwards it " + "; it ".join(parts) if parts else ""

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


@dataclass(frozen=True)
class _Line:
    """Least squares of a line, and of one frequency if it explains enough, to y_0, y_1, …"""

    slope: float
    error: float
    """Standard error of the slope, were what is left white noise."""
    wander: float
    """The same for what is left as it is: neighbours that go together tell the slope less well."""
    spread: float
    """Standard deviation of what is left."""
    r_squared: float
    period: float


@dataclass(frozen=True)
class _Tail:
    """What comes after the fall."""

    begins: int
    settles: int
    """Past the bend; slope and spread are those from here on."""
    slope: float
    spread: float
    inflation: float
    """Of the error of a slope, by what the two lines leave."""
    swings: bool
    """Whether one frequency explains most of what is left."""

    def word(self, count: int, since: int | None = None) -> str:
        """What it does, by the end, from n = `since` on, by default from `settles`."""
        change = self.slope * (count - 1 - (self.settles if since is None else since))
        if abs(change) <= max(0.1, 3 * self.spread):
            return "circles" if self.swings else "rests"
        return "rises" if change > 0 else "slows"


def _observe(
    values: Numbers, start: int, floor: float | None, inflation: float | None = None
) -> _Fit:
    """The rate of F_start, F_{start+1}, …

    `inflation` is what a longer stretch tells of the error of a slope.
    """
    count, largest = len(values), float(values.max())
    if (refused := _refused(values, start, floor or 0.0)) is not None:
        return refused
    level = floor or 0.0
    clear = values - level > max(0.1 * level, SMALLEST * largest)
    reached = count if floor is None or clear.all() else int(np.argmin(clear))
    logs = np.log(np.maximum(values[:reached] - level, SMALLEST * largest))
    if (power := _power(logs)) is not None:
        reason = f"no geometric fall: it falls ever more slowly, about as n^−{power:.2g}"
        return _Fit(start, start + reached - 1, level, reason=reason)
    tail = _tail(logs)
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
    if (bend := _steepens(np.log(values[:used] - level))) is not None:
        begins, wanders = bend
        steeper = _observe(values[begins:], start + begins, floor, max(inflation or 1.0, wanders))
        if not math.isnan(steeper.rate):
            return steeper
    line = _line(np.log(values[:used] - level), inflation)
    if floor is None and tail is not None and level_tail and tail.begins >= 4:
        sharp = _line(logs[: tail.begins + 1], inflation)
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
    return _Fit(
        start, last, level, math.exp(line.slope), line.r_squared, line.period,
        word if settles else "ends",
        math.exp(tail.slope) if tail is not None and settles else 1.0 if settles else math.nan,
    )  # fmt: skip


def _refused(values: Numbers, start: int, floor: float) -> _Fit | None:
    """Where there is no rate at a glance: F_start = 0, too few numbers, or a single drop."""
    count, end, largest = len(values), start + len(values) - 1, float(values.max())
    if largest == 0:
        return _Fit(start, start, floor, reason=f"x_{start} is already 0")
    if count < 3:
        return _Fit(start, end, floor, reason=_too_short(values, start, floor))
    if (place := _jump(np.log(np.maximum(values, SMALLEST * largest)))) is not None:
        return _Fit(start, end, floor, reason=_jumps(values, start, place))
    return None


def _tail(logs: Numbers) -> _Tail | None:
    """The second of two lines that meet, where two leave half or less of what one leaves."""
    count = len(logs)
    if count < 6:
        return None
    n = np.arange(count, dtype=float)
    whole = _residual(np.stack([np.ones(count), n], 1), logs)[1]
    best: tuple[float, int, Numbers] | None = None
    for b in _places(1, count - 4):
        found, squares, _ = _residual(_bent(count, b), logs)
        if best is None or squares < best[0]:
            best = squares, b, found
    assert best is not None
    squares, b, found = best
    if squares > 0.5 * whole or whole <= 1e-20 * count or found[2] <= found[1]:
        return None
    settles = b + (count - b) // 2 if count - b >= 8 else b
    y = logs[settles:]
    n = np.arange(len(y), dtype=float)
    (_, slope), left, _ = _residual(np.stack([np.ones(len(y)), n], 1), y)
    # Of an exponential approach the line's residuals are no noise: its differences are.
    jumps = np.diff(y, 2)
    spread = min(math.sqrt(left / max(len(y) - 2, 1)), float(np.std(jumps)) / math.sqrt(6) * 1.5)
    swings = spread > CIRCLING and _swing(y, np.ones((len(y), 1)), float(np.var(y)) * len(y))
    columns = _bent(count, b)
    left_over = logs - columns @ found
    return _Tail(b, settles, float(slope), spread, _inflation(left_over, BENT_ROOT), bool(swings))


def _bent(count: int, b: int) -> np.ndarray:
    """Two lines that meet at b, as columns of a least squares problem."""
    n = np.arange(count, dtype=float)
    return np.stack([np.ones(count), np.minimum(n, b), np.maximum(n - b, 0)], 1)


def _power(logs: Numbers) -> float | None:
    """The p of a fall like (n + c)^−p, where that leaves less than what has a rate leaves.

    A quarter or less of two lines that meet, and of a geometric fall to a floor.
    """
    count = len(logs)
    n, ones = np.arange(count, dtype=float), np.ones(count)
    if count < 8 or _residual(_bent(count, 0)[:, [0, 2]], logs)[1] <= 1e-6 * count:
        return None
    shifts = np.geomspace(0.1, count, 60)
    fits = [_residual(np.stack([ones, np.log(n + c)], 1), logs) for c in shifts]
    found, squares, _ = min(fits, key=lambda fit: fit[1])
    if -found[1] * math.log(count) < FALL:
        return None
    lines = min(_residual(_bent(count, b), logs)[1] for b in _places(1, count - 4))
    if squares > 0.25 * lines:
        return None
    values = np.exp(logs - logs.min())
    columns = np.stack([ones, n], 1)
    for floor in 1 - np.geomspace(1e-4, 1, 20, endpoint=False):
        fall = columns @ _residual(columns, np.log(values - floor))[0]
        if squares > 0.25 * float(((np.log(floor + np.exp(fall)) - np.log(values)) ** 2).sum()):
            return None
    return -float(found[1])


def _line(y: Numbers, inflation: float | None = None) -> _Line:
    """The line; `inflation` is what a longer stretch tells of the error of its slope."""
    count = len(y)
    n = np.arange(count, dtype=float)
    columns = np.stack([np.ones(count), n], 1)
    found, squares, errors = _residual(columns, y)
    period, total = math.nan, float(((y - y.mean()) ** 2).sum())
    left = y - columns @ found
    if (swing := _swing(y, columns, squares)) is not None:
        period, found, squares, errors, swung = swing
    freedom = max(count - (2 if math.isnan(period) else 5), 1)
    spread = math.sqrt(squares / freedom)
    error = spread * float(errors[1])
    if period < count / 4:  # of fewer swings a random walk has some, too
        left = swung
    if inflation is None:
        inflation = _inflation(left, LINE_ROOT)
    walk = math.sqrt(1.2 / count * float((np.diff(left) ** 2).mean()))  # of a random walk's slope
    return _Line(
        slope=float(found[1]),
        error=error,
        wander=max(error, min(error * inflation, WALK * walk)),
        spread=spread,
        r_squared=1 - squares / total if total > 0 else math.nan,
        period=period,
    )


def _inflation(left: Numbers, root: float) -> float:
    """How much larger than of white noise the standard error of a slope beside it is.

    √((1 + φ)/(1 − φ)) for an autoregression with coefficient φ: the correlation of neighbours, and
    (2 + 4φ)/n that taking a line off n numbers hides of it. ∞ where 1 − φ, before this is added, at
    most root/√n, too small to tell the autoregression from a random walk.
    """
    count, squares = len(left), float((left**2).sum())
    if count < 5 or squares == 0:
        return 1.0
    phi = float((left[1:] * left[:-1]).sum()) / squares
    if 1 - phi < root / math.sqrt(count):
        return math.inf
    phi = max(phi + (2 + 4 * phi) / count, 0.0)
    return math.sqrt((1 + phi) / (1 - phi)) if phi < 1 else math.inf


_Swing = tuple[float, Numbers, float, Numbers, Numbers]
"""The period, and of the fit with it: coefficients, squares, their errors, and what is left."""


def _swing(y: Numbers, columns: np.ndarray, squares: float) -> _Swing | None:
    """One frequency beside the columns, where it explains more than noise would let it.

    Fisher's test: of white noise, the largest of m periodogram ordinates exceeds a share g of their
    sum with probability about m(1 − g)^{m−1}; one in a thousand is asked.
    """
    count = len(y)
    if count < 8 or squares <= 1e-12 * count:
        return None
    n = np.arange(count, dtype=float)
    left = y - columns @ _residual(columns, y)[0]
    power = np.abs(np.fft.rfft(left, 8 * count)[12:]) ** 2
    peak = (12 + int(power.argmax())) / (8 * count)
    best: _Swing | None = None
    for frequency in np.clip(peak + np.linspace(-0.25, 0.25, 9) / count, 1.5 / count, 0.5):
        angle = 2 * math.pi * frequency * n
        waves = [np.cos(angle)] + ([np.sin(angle)] if frequency < 0.4999 else [])
        both = np.column_stack([columns, *waves])
        found, rest, errors = _residual(both, y)
        if best is None or rest < best[2]:
            best = 1 / float(frequency), found, rest, errors, y - both @ found
    assert best is not None
    m = count // 2
    needed = max(0.6, 1 - (1e-3 / m) ** (1 / (m - 1)))
    return best if 1 - best[2] / squares >= needed else None


def _residual(columns: np.ndarray, y: Numbers) -> tuple[Numbers, float, Numbers]:
    """Least squares: the coefficients, the sum of squares left, and √diag (XᵀX)⁻¹."""
    q, r = np.linalg.qr(columns)
    found = np.linalg.solve(r, q.T @ y)
    left = float(((y - columns @ found) ** 2).sum())
    return found, left, np.sqrt((np.linalg.inv(r) ** 2).sum(1))


def _circling(logs: Numbers) -> str:
    """What a level stretch does, if it swings."""
    count = len(logs)
    level = np.ones((count, 1))
    squares = float(((logs - logs.mean()) ** 2).sum())
    swing = _swing(logs, level, squares)
    return "" if swing is None else f"it circles with a period of {swing[0]:.3g} iterates"


def _steepens(logs: Numbers) -> tuple[int, float] | None:
    """Where a level or slower first part ends, after which log F_n falls as a line.

    With what the two lines leave as the inflation of the error of a slope.

    Two lines that meet leave a tenth or less of what one leaves, the first falls at most half as
    fast as the second, and the second by half or more.
    """
    count = len(logs)
    if count < 8:
        return None
    whole = _residual(_bent(count, 0)[:, [0, 2]], logs)[1]
    fits = [(_residual(_bent(count, b), logs), b) for b in _places(2, count - 4)]
    _, middle = min(fits, key=lambda fit: fit[0][1])
    near = range(max(middle - count // BREAKS, 2), min(middle + count // BREAKS, count - 4) + 1)
    (found, squares, _), b = min(
        ((_residual(_bent(count, b), logs), b) for b in near), key=lambda fit: fit[0][1]
    )
    fall = -found[2] * (count - 1 - b)
    if squares > 0.1 * whole or whole <= 1e-6 * count or fall < FALL:
        return None
    if found[1] < 0.5 * found[2]:
        return None
    return b, _inflation(logs - _bent(count, b) @ found, BENT_ROOT)


def _places(first: int, last: int) -> list[int]:
    """Every place from first to last, or `BREAKS` of them."""
    return [int(b) for b in np.unique(np.linspace(first, last, BREAKS).astype(int))]


def _jump(logs: Numbers) -> int | None:
    """The place of one fall that is all there is: before and after it, log F_n hardly moves."""
    place = int(np.argmin(np.diff(logs)))
    fall = logs[place] - logs[place + 1]
    before, after = logs[: place + 1], logs[place + 1 :]
    if min(len(before), len(after)) < 2 or fall < FALL:
        return None
    return place if max(np.ptp(before), np.ptp(after)) <= 0.1 * fall else None


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


def _no_fall(
    values: Numbers, logs: Numbers, start: int, line: _Line, fall: float, used: int
) -> str:
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
