"""Numbers in sentences, rounded to the side on which the sentence stays true."""

from __future__ import annotations

import math
import textwrap
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import torch
from jaxtyping import Float

from npgd.images import psnr

WIDTH = 80
"""Of a line in a terminal."""
EXACT = 1e-24
"""An error per pixel that rounding in float64 may make."""


def at_least(value: float, digits: int = 3) -> str:
    """The largest number of so many digits that `value` does not lie below."""
    return _rounded(value, digits, ROUND_FLOOR)


def at_most(value: float, digits: int = 3) -> str:
    """The smallest number of so many digits that `value` does not lie above."""
    return _rounded(value, digits, ROUND_CEILING)


def about(value: float, digits: int = 3) -> str:
    """The nearest number of so many digits."""
    return _rounded(value, digits, ROUND_HALF_EVEN)


def exactly(value: float, limit: float, digits: int = 4) -> str:
    """The nearest number of so many digits, or of as many more as show its side of `limit`."""
    while digits < 17 and math.isfinite(value) and value != limit:
        shown = float(f"{value:.{digits}g}")
        if shown != limit and (shown < limit) == (value < limit):
            break
        digits += 1
    return about(value, digits)


def apart(a: float, b: float, digits: int = 3) -> tuple[str, str]:
    """The nearest numbers of so many digits, or of as many more as tell the two apart."""
    while digits < 17 and about(a, digits) == about(b, digits):
        digits += 1
    return about(a, digits), about(b, digits)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    number = Decimal(value)
    if number:
        unit = Decimal((0, (1,), number.adjusted() - digits + 1))
        number = number.quantize(unit, rounding=rounding)
    return f"{float(number):.{digits}g}"


def median(values: Float[torch.Tensor, "*shape"]) -> float:
    """Median of what is not NaN; NaN if nothing is."""
    return float(values.double().flatten().nanquantile(0.5)) if values.numel() else math.nan


def decibels(error: Float[torch.Tensor, "*shape"]) -> str:
    """The PSNR of an image's error per pixel, of several the mean of theirs: "29.6 dB"."""
    error = error.double()
    if not bool(error.isfinite().all()):
        return "not finite"
    if float(error.max()) <= EXACT:
        return "exact to rounding"
    mean = float(psnr(error).mean())
    return f"{mean:.1f} dB" if math.isfinite(mean) else "∞ dB"


def out_of(count: int, total: int, what: str = "image") -> str:
    """`count` of `total`: "all 12 images", "both images", "3 of 12 images", "none of 12 images"."""
    plural = what if total == 1 else f"{what}s"
    if total == 1:
        return f"the one {what}" if count else f"no {what}"
    if count == total:
        return f"both {plural}" if total == 2 else f"all {total} {plural}"
    return f"{count or 'none'} of {total} {plural}"


def spread(low: float, high: float) -> str:
    """From `low` to `high`, as one number where they print alike."""
    first, last = about(low), about(high)
    return first if first == last else f"{first} to {last}"


def wrapped(text: str, first: str, later: str) -> list[str]:
    """Lines of the text, at most WIDTH long, after `first` and `later`; a number keeps its %."""
    held = text.replace(" %", "\u00a0%")
    lines = textwrap.wrap(
        held, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )
    return [line.replace("\u00a0", " ") for line in lines]


def sentence(text: str) -> str:
    """Capital and full stop; a symbol at the start stays as it is."""
    return (text[0].upper() if text[0].isascii() else text[0]) + text[1:] + "."
