"""Colours and axes that figures share."""

from __future__ import annotations

import textwrap
from typing import Any

from npgd.showing import iterations

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


def by_image(
    axis: Any, values: Any, label: str, colour: str, seen: bool = False, shift: float = 0.0
) -> None:
    """A mark for each image: a circle for what is predicted, a cross for what is seen."""
    look: dict[str, Any] = {"marker": "x", "ms": 5} if seen else {"marker": "o", "ms": 7}
    axis.plot(
        [n + shift for n in range(len(values))], values, ls="none", mfc="none",
        color=COLOURS[colour], label=label, **look,
    )  # fmt: skip


def rates_by_image(
    axis: Any, count: int, of: str = "‖xₙ − x∞‖", limit: str = "1: no nearer"
) -> None:
    """The axes of rates of `count` images: 1, from which on nothing falls, is a line."""
    axis.axhline(1, color="black", lw=0.8, ls=":", label=limit)
    axis.set_ylabel(f"factor per step of {of}")
    images(axis, count)


def images(axis: Any, count: int) -> None:
    """An x axis of so many images, by their number."""
    iterations(axis)
    axis.set(xlabel="image", xlim=(-0.5, count - 0.5))


def says(axis: Any, words: str, height: float = 0.5, colour: str = "black") -> None:
    """What is to be seen, or why nothing is, in words on the axes, `height` of them up."""
    axis.text(
        0.5, height, textwrap.fill(words, 44), transform=axis.transAxes, ha="center", va="center",
        fontsize=9, color=colour,
    )  # fmt: skip


def no_rates(axis: Any, words: str) -> None:
    """Why there are none, in words, on what `rates_by_image` has made."""
    axis.set_ylim(0, 1.1)
    says(axis, words)
