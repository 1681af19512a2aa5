"""Colours and axes that figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

COLOURS = {
    "alpha": "#0072B2",
    "beta": "#A66F00",
    "delta": "#00795A",
    "noise": "#767676",
    "observed": "#000000",
    "uniform": "#C24A00",
    "pointwise": "#A8508A",
}
"""Hues of Okabe and Ito, told apart with any colour vision, as dark as a white ground asks for. The
page puts its own in their place on a dark one."""


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def powers(axis: Any) -> None:
    """A logarithmic y axis whose numbers are plain text: 10⁻³."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    if not value > 0:
        return ""
    exponent = round(math.log10(value))
    if -3 < exponent < 4:
        return f"{value:g}"
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def decimal_log(axis: Any) -> None:
    """A logarithmic x axis with plain numbers at 1, 2, 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def plain_log(axis: Any, numbers: Sequence[float] = ()) -> None:
    """A logarithmic `axis.xaxis` or `axis.yaxis` in plain numbers; a tick at each of a few."""
    from matplotlib.ticker import LogFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    if 2 <= len(numbers) <= 8:
        axis.set_ticks(numbers, [f"{number:,g}" for number in numbers])
        axis.set_ticks([], minor=True)
        return

    class Plain(LogFormatter):
        def __call__(self, value: float, position: int | None = None) -> str:
            return f"{value:g}" if super().__call__(value, position) else ""

    axis.set_major_formatter(Plain(minor_thresholds=(2, 0.5)))
    axis.set_minor_formatter(Plain(minor_thresholds=(2, 0.5)))


def by_image(
    axis: Any, values: Any, label: str, colour: str, seen: bool = False, shift: float = 0.0
) -> None:
    """A mark for each image: a circle for what is predicted, a cross for what is seen."""
    look: dict[str, Any] = {"marker": "x", "ms": 5} if seen else {"marker": "o", "ms": 7}
    axis.plot(
        [n + shift for n in range(len(values))], values, ls="none", mfc="none",
        color=COLOURS[colour], label=label, **look,
    )  # fmt: skip


def rates_by_image(axis: Any, count: int) -> None:
    """The axes of rates of `count` images: 1, from which on nothing comes nearer, is a line."""
    axis.axhline(1, color="black", lw=0.8, ls=":", label="1: no nearer")
    iterations(axis)
    axis.set(xlabel="image", ylabel="factor per step of ‖xₙ − x∞‖", xlim=(-0.5, count - 0.5))


def iterations(axis: Any) -> None:
    """A whole number for every tick of the x axis."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("iteration n")
