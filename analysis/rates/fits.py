"""Straight lines through log F_n: one, or two that meet, with a swing of one frequency.

What a fit leaves is seldom white: neighbours go together, and a random walk has slopes of its own.
So the error of a slope is told both as if what is left were white noise, and as it wanders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Numbers = Float[np.ndarray, " n"]

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

_Swing = tuple[float, Numbers, float, Numbers, Numbers]
"""The period, and of the fit with it: coefficients, squares, their errors, and what is left."""


@dataclass(frozen=True)
class Line:
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
class Tail:
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


def tail_of(logs: Numbers) -> Tail | None:
    """The second of two lines that meet, where two leave half or less of what one leaves."""
    count = len(logs)
    if count < 6:
        return None
    n = np.arange(count, dtype=float)
    whole = residual(np.stack([np.ones(count), n], 1), logs)[1]
    best: tuple[float, int, Numbers] | None = None
    for b in _places(1, count - 4):
        found, squares, _ = residual(_bent(count, b), logs)
        if best is None or squares < best[0]:
            best = squares, b, found
    assert best is not None
    squares, b, found = best
    if squares > 0.5 * whole or whole <= 1e-20 * count or found[2] <= found[1]:
        return None
    settles = b + (count - b) // 2 if count - b >= 8 else b
    y = logs[settles:]
    n = np.arange(len(y), dtype=float)
    (_, slope), left, _ = residual(np.stack([np.ones(len(y)), n], 1), y)
    # Of an exponential approach the line's residuals are no noise: its differences are.
    jumps = np.diff(y, 2)
    spread = min(math.sqrt(left / max(len(y) - 2, 1)), float(np.std(jumps)) / math.sqrt(6) * 1.5)
    swings = spread > CIRCLING and swing_of(y, np.ones((len(y), 1)), float(np.var(y)) * len(y))
    columns = _bent(count, b)
    left_over = logs - columns @ found
    return Tail(b, settles, float(slope), spread, inflation_of(left_over, BENT_ROOT), bool(swings))


def _bent(count: int, b: int) -> np.ndarray:
    """Two lines that meet at b, as columns of a least squares problem."""
    n = np.arange(count, dtype=float)
    return np.stack([np.ones(count), np.minimum(n, b), np.maximum(n - b, 0)], 1)


def power_of(logs: Numbers) -> float | None:
    """The p of a fall like (n + c)^−p, where that leaves less than what has a rate leaves.

    A quarter or less of two lines that meet, and of a geometric fall to a floor.
    """
    count = len(logs)
    n, ones = np.arange(count, dtype=float), np.ones(count)
    if count < 8 or residual(_bent(count, 0)[:, [0, 2]], logs)[1] <= 1e-6 * count:
        return None
    shifts = np.geomspace(0.1, count, 60)
    fits = [residual(np.stack([ones, np.log(n + c)], 1), logs) for c in shifts]
    found, squares, _ = min(fits, key=lambda fit: fit[1])
    if -found[1] * math.log(count) < FALL:
        return None
    lines = min(residual(_bent(count, b), logs)[1] for b in _places(1, count - 4))
    if squares > 0.25 * lines:
        return None
    values = np.exp(logs - logs.min())
    columns = np.stack([ones, n], 1)
    for floor in 1 - np.geomspace(1e-4, 1, 20, endpoint=False):
        fall = columns @ residual(columns, np.log(values - floor))[0]
        if squares > 0.25 * float(((np.log(floor + np.exp(fall)) - np.log(values)) ** 2).sum()):
            return None
    return -float(found[1])


def line_of(y: Numbers, inflation: float | None = None) -> Line:
    """The line; `inflation` is what a longer stretch tells of the error of its slope."""
    count = len(y)
    n = np.arange(count, dtype=float)
    columns = np.stack([np.ones(count), n], 1)
    found, squares, errors = residual(columns, y)
    period, total = math.nan, float(((y - y.mean()) ** 2).sum())
    left = y - columns @ found
    if (swing := swing_of(y, columns, squares)) is not None:
        period, found, squares, errors, swung = swing
    freedom = max(count - (2 if math.isnan(period) else 5), 1)
    spread = math.sqrt(squares / freedom)
    error = spread * float(errors[1])
    if period < count / 4:  # of fewer swings a random walk has some, too
        left = swung
    if inflation is None:
        inflation = inflation_of(left, LINE_ROOT)
    walk = math.sqrt(1.2 / count * float((np.diff(left) ** 2).mean()))  # of a random walk's slope
    return Line(
        slope=float(found[1]),
        error=error,
        wander=max(error, min(error * inflation, WALK * walk)),
        spread=spread,
        r_squared=1 - squares / total if total > 0 else math.nan,
        period=period,
    )


def inflation_of(left: Numbers, root: float) -> float:
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


def swing_of(y: Numbers, columns: np.ndarray, squares: float) -> _Swing | None:
    """One frequency beside the columns, where it explains more than noise would let it.

    Fisher's test: of white noise, the largest of m periodogram ordinates exceeds a share g of their
    sum with probability about m(1 − g)^{m−1}; one in a thousand is asked.
    """
    count = len(y)
    if count < 8 or squares <= 1e-12 * count:
        return None
    n = np.arange(count, dtype=float)
    left = y - columns @ residual(columns, y)[0]
    power = np.abs(np.fft.rfft(left, 8 * count)[12:]) ** 2
    peak = (12 + int(power.argmax())) / (8 * count)
    best: _Swing | None = None
    for frequency in np.clip(peak + np.linspace(-0.25, 0.25, 9) / count, 1.5 / count, 0.5):
        angle = 2 * math.pi * frequency * n
        waves = [np.cos(angle)] + ([np.sin(angle)] if frequency < 0.4999 else [])
        both = np.column_stack([columns, *waves])
        found, rest, errors = residual(both, y)
        if best is None or rest < best[2]:
            best = 1 / float(frequency), found, rest, errors, y - both @ found
    assert best is not None
    m = count // 2
    needed = max(0.6, 1 - (1e-3 / m) ** (1 / (m - 1)))
    return best if 1 - best[2] / squares >= needed else None


def residual(columns: np.ndarray, y: Numbers) -> tuple[Numbers, float, Numbers]:
    """Least squares: the coefficients, the sum of squares left, and √diag (XᵀX)⁻¹."""
    q, r = np.linalg.qr(columns)
    found = np.linalg.solve(r, q.T @ y)
    left = float(((y - columns @ found) ** 2).sum())
    return found, left, np.sqrt((np.linalg.inv(r) ** 2).sum(1))


def steepens(logs: Numbers) -> tuple[int, float] | None:
    """Where a level or slower first part ends, after which log F_n falls as a line.

    With what the two lines leave as the inflation of the error of a slope.

    Two lines that meet leave a tenth or less of what one leaves, the first falls at most half as
    fast as the second, and the second by half or more.
    """
    count = len(logs)
    if count < 8:
        return None
    whole = residual(_bent(count, 0)[:, [0, 2]], logs)[1]
    fits = [(residual(_bent(count, b), logs), b) for b in _places(2, count - 4)]
    _, middle = min(fits, key=lambda fit: fit[0][1])
    near = range(max(middle - count // BREAKS, 2), min(middle + count // BREAKS, count - 4) + 1)
    (found, squares, _), b = min(
        ((residual(_bent(count, b), logs), b) for b in near), key=lambda fit: fit[0][1]
    )
    fall = -found[2] * (count - 1 - b)
    if squares > 0.1 * whole or whole <= 1e-6 * count or fall < FALL:
        return None
    if found[1] < 0.5 * found[2]:
        return None
    return b, inflation_of(logs - _bent(count, b) @ found, BENT_ROOT)


def _places(first: int, last: int) -> list[int]:
    """Every place from first to last, or `BREAKS` of them."""
    return [int(b) for b in np.unique(np.linspace(first, last, BREAKS).astype(int))]


def jump_of(logs: Numbers) -> int | None:
    """The place of one fall that is all there is: before and after it, log F_n hardly moves."""
    place = int(np.argmin(np.diff(logs)))
    fall = logs[place] - logs[place + 1]
    before, after = logs[: place + 1], logs[place + 1 :]
    if min(len(before), len(after)) < 2 or fall < FALL:
        return None
    return place if max(np.ptp(before), np.ptp(after)) <= 0.1 * fall else None
