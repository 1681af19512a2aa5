"""Functions of one number, with what a proof needs: derivatives, and bounds of the next ones.

Two families hold every activation here and all their derivatives.

- `Logistic`: a x + b + c S_k(s x), where S_0 = log(1 + eˣ), S_1 = 1/(1 + e⁻ˣ) = σ and
  S_{k+1} = S_k'. With p = σ(1 − σ) these are S_2 = p, S_3 = p(1 − 2σ), S_4 = p(1 − 6p),
  S_5 = p(1 − 2σ)(1 − 12p). Softplus of any sharpness, the logistic function, tanh = 2σ(2x) − 1.
- `Power`: c (x + b)^p, for x + b > 0, and c log(x + b) (p = 0), whose derivatives are powers.

Of an interval [x − δ, x + δ] p is largest at the point nearest 0, |1 − 2σ| at the farthest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float

Row = Float[torch.Tensor, "1 n"]

UNIT = 2.0**-53
"""Of float64: every operation is exact up to this factor."""
LIBRARY = 8 * UNIT
"""Assumed of exp, log1p, log, sqrt and pow: relative error at most 8 units, 4 in the last place."""
TINY = 1e-140
"""Added where a result could underflow: squares of less than its root are 0 to the machine."""


class Function(Protocol):
    """φ, entry by entry."""

    def at(self, x: Row, order: int) -> tuple[Row, Row]:
        """φ^(order)(x), and a bound of its error."""
        ...

    def most(self, x: Row, reach: Row, order: int) -> Row:
        """A bound of |φ^(order)| over [x − reach, x + reach]; infinite where it has none."""
        ...

    def derivative(self) -> Function:
        """φ'."""
        ...


@dataclass(frozen=True)
class Logistic:
    """a x + b + c S_k(s x)."""

    k: int
    s: float = 1.0
    c: float = 1.0
    a: float = 0.0
    b: float = 0.0
    error: float = 0.0
    """The function meant has c and a within this factor of those given."""
    limit: float = math.inf
    """A library's softplus is its argument beyond s x = limit, S_1 is then 1 and the others are 0.

    A ball in which an entry passes the limit has no bound: there the function jumps, by e^−limit.
    """

    def at(self, x: Row, order: int) -> tuple[Row, Row]:
        t = self.s * x
        scale = abs(self.c) * self.s**order
        value = self.c * self.s**order * _derivative(self.k + order, t)
        if self.limit < math.inf:
            k = self.k + order
            beyond = t if k == 0 else torch.full_like(t, float(k == 1))
            value = torch.where(t > self.limit, self.c * self.s**order * beyond, value)
        # |S_k| ≤ 1 + |t|, and every |S_k'| ≤ 1: the rounding of t moves it by |t| units.
        off = (8 * LIBRARY + 2 * self.error) * scale * (1 + t.abs())
        if order == 0:
            value = value + self.a * x + self.b
            off = off + (4 * UNIT + 2 * self.error) * ((self.a * x).abs() + abs(self.b))
        elif order == 1:
            value = value + self.a
            off = off + (4 * UNIT + 2 * self.error) * abs(self.a)
        return value, off + 4 * UNIT * value.abs() + TINY

    def most(self, x: Row, reach: Row, order: int) -> Row:
        if order < 2 or self.k + order > 5:
            raise NotImplementedError(f"derivative {order} of S_{self.k}")
        t, d = (self.s * x).abs(), self.s * reach * (1 + 1e-12)
        near, far = (t * (1 - 1e-12) - d).clamp_min(0), t * (1 + 1e-12) + d
        size = abs(self.c) * self.s**order * _largest(self.k + order, near, far)
        size = size * (1 + 1e-11) + TINY
        if self.limit == math.inf:
            return size
        rounding = 1e-12 * t
        size = torch.where(self.s * x + d + rounding < self.limit, size, torch.inf)
        return torch.where(self.s * x - d - rounding > self.limit, 0.0, size)

    def derivative(self) -> Logistic:
        # The sharpness is a float, and its product with c is rounded.
        return Logistic(
            self.k + 1, self.s, self.c * self.s, b=self.a, error=self.error + 4 * UNIT,
            limit=self.limit,
        )  # fmt: skip


def _derivative(order: int, t: Row) -> Row:
    """S_order(t)."""
    small = (-t.abs()).exp()
    if order == 0:
        return t.clamp_min(0) + small.log1p()
    sigma = torch.where(t >= 0, 1 / (1 + small), small / (1 + small))
    p = small / (1 + small).square()
    odd = torch.where(t >= 0, -1.0, 1.0) * (1 - small) / (1 + small)  # 1 − 2σ
    return (sigma, p, p * odd, p * (1 - 6 * p), p * odd * (1 - 12 * p))[order - 1]


def _largest(order: int, near: Row, far: Row) -> Row:
    """A bound of |S_order| where near ≤ |t| ≤ far; order 2 to 5."""
    small = (-near).exp()
    p = small / (1 + small).square()
    if order == 2:
        return p
    if order == 4:
        return p  # |1 − 6p| ≤ 1 for p ≤ 1/4
    small = (-far).exp()
    odd = p * (1 - small) / (1 + small) + 1e-15 * p
    return odd if order == 3 else 2 * odd  # |1 − 12p| ≤ 2


@dataclass(frozen=True)
class Power:
    """c (x + b)^p with p < 1, or c log(x + b) for p = 0; x + b > 0."""

    p: float
    c: float = 1.0
    b: float = 0.0
    error: float = 0.0
    """The function meant has c within this factor of the one given."""

    def at(self, x: Row, order: int) -> tuple[Row, Row]:
        t = x + self.b
        if self.p == 0 and order == 0:
            value = self.c * t.log()
            return value, 4 * LIBRARY * (value.abs() + abs(self.c)) + self.error * value.abs()
        factor, power = self._derived(order)
        value = factor * t**power
        # The rounding of x + b moves a power by |power| units.
        off = (4 * LIBRARY + 2 * self.error + (8 + abs(power)) * UNIT) * value.abs()
        return value, off + TINY

    def most(self, x: Row, reach: Row, order: int) -> Row:
        factor, power = self._derived(order)
        low = (x + self.b) * (1 - 1e-12) - 1e-15 * (x.abs() + abs(self.b)) - reach * (1 + 1e-12)
        size = abs(factor) * low.clamp_min(0) ** power * (1 + 1e-11)  # powers below 0 fall
        return torch.where(low > 0, size, torch.inf)

    def derivative(self) -> Power:
        factor, power = self._derived(1)
        return replace(self, p=power, c=factor, error=self.error + 4 * UNIT)

    def _derived(self, order: int) -> tuple[float, float]:
        factor, power = self.c, self.p
        for done in range(order):
            factor *= 1.0 if self.p == 0 and done == 0 else power
            power -= 1
        return factor, power
