"""The one look of all figures.

Widths are those of a two-column paper: 3.3 in a column, 6.9 in the page, so that what is drawn is
printed at its own size and its 7-point letters stay readable. Colours are Okabe and Ito's, told
apart by the colour-blind too; in a grey print, dashes and markers tell the curves apart. A method
looks the same in every figure, and methods of one family share a colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PINK, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PINK, SKY, BLACK, GREY)
"""For what has no name of its own, in this order."""

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches."""

DOTTED, DASHED, DASH_DOT = (0, (1, 1.4)), (0, (4, 1.6)), (0, (5, 1.5, 1, 1.5))

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # letters stay letters: they can be searched and copied
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Look:
    """How a curve is drawn; `open` leaves its markers white."""

    color: str
    dash: Any = "-"
    marker: str = "o"
    open: bool = False

    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for the line alone."""
        return {"color": self.color, "linestyle": self.dash}

    def points(self) -> dict[str, Any]:
        """For the markers alone."""
        return self.curve() | {"linestyle": "none"}

    def curve(self) -> dict[str, Any]:
        """For both; also for `Axes.errorbar`."""
        face = "white" if self.open else self.color
        return self.line() | {"marker": self.marker, "markerfacecolor": face}


METHODS = {
    "NPGD": Look(VERMILLION),
    "NPGD, finished": Look(VERMILLION, DOTTED, "h"),
    "NPGD, refined": Look(VERMILLION, DASHED, "o", open=True),
    "AMP": Look(PINK, "-", "p"),
    "AMP, denoiser": Look(PINK, DASHED, "p", open=True),
    "CSGM": Look(BLUE, "-", "s"),
    "PGD-GAN": Look(SKY, DASH_DOT, "D"),
    "PnP-ADMM, network": Look(GREEN, "-", "^"),
    "deviation": Look(BLACK, "-", "*"),
    "PnP-ADMM, wavelet": Look(GREEN, DASHED, "^", open=True),
    "OneNet": Look(GREY, "-", "v"),
    "Lasso, DCT": Look(ORANGE, DOTTED, "P"),
    "Lasso, wavelet": Look(ORANGE, DASH_DOT, "X"),
}
"""Every method of table_methods.py."""

DESIGNS = {
    "Gaussian": Look(VERMILLION),
    "Gaussian, whitened": Look(VERMILLION, DASHED, "o", open=True),
    "DCT, uniform": Look(GREY, DOTTED, "P"),
    "DCT, adapted": Look(GREY, DASH_DOT, "X"),
    "secant PCA": Look(BLUE, "-", "s"),
    "secant PCA, not unit": Look(BLUE, DASHED, "s", open=True),
    "NuMax, δ = 0.3": Look(PINK, "-", "D"),
    "minimax": Look(GREEN, "-", "^"),
}
"""Every design of table_design.py, all with NPGD: the Gaussian curve is NPGD's."""


def look(name: str, index: int = 0) -> Look:
    """The look of a method or a design; of any other name, the `index`-th of the rest."""
    dashes, markers = ("-", DASHED, DASH_DOT, DOTTED), "os^Dv"
    return (METHODS | DESIGNS).get(name) or Look(
        COLOURS[index % len(COLOURS)], dashes[index % 4], markers[index % 5]
    )


def new_figure(columns: int = 2, height: float = 2.6) -> Figure:
    """An empty figure as wide as one column or the page (two columns), `height` inches high.

    The look is set for all of matplotlib, whose figures take theirs when they are made; its backend
    stays as it is.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()
    matplotlib.rcParams.update(RC)
    return Figure(figsize=({1: COLUMN, 2: PAGE}[columns], height), layout="constrained")


def written_out(axis: Axis, numbers: Iterable[float]) -> None:
    """Ticks at these numbers, as far as they are in sight, in digits: for logarithmic axes."""
    low, high = sorted(axis.get_view_interval())
    inside = [number for number in numbers if low <= number <= high]
    axis.set_ticks(inside, [f"{number:,g}" for number in inside])
    axis.set_ticks([], minor=True)
