"""The figures of the report: each a function of the report alone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from analysis.rates.slack import GREEK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.report.report import Report


# The palette of Okabe and Ito, told apart with any colour vision.
COLOURS = {
    "alpha": "#0072B2",
    "beta": "#E69F00",
    "delta": "#009E73",
    "noise": "#999999",
    "observed": "#000000",
    "uniform": "#D55E00",
    "pointwise": "#56B4E9",
}


SUBSCRIPTS = "₀₁"


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes if columns > 1 else axes[0]


def draw_histogram(report: Report) -> Figure:
    """Histogram of ‖A s‖² over unit secants; the extremes of every look, tangent by tangent."""
    rec = report.rec
    figure, axis = _figure(7.2, 3.4)
    if rec.histogram is not None:
        counts, edges = rec.histogram.counts, rec.histogram.edges
        axis.stairs(counts, edges, fill=True, color="#BBBBBB", label="secants of S")
        axis.set_yscale("log")
        axis.set_ylim(0.7, 4 * max(1, counts.max()))
    for height, values, colour, label in (
        (0.04, rec.tangent_alpha, COLOURS["alpha"], "least tangent ratio at a point"),
        (0.04, rec.tangent_beta, COLOURS["uniform"], "largest tangent ratio at a point"),
    ):
        if values is not None:
            axis.plot(
                values,
                [height] * len(values),
                "|",
                ms=14,
                alpha=0.6,
                color=colour,
                label=label,
                transform=axis.get_xaxis_transform(),
            )
    styles = {"secants": ":", "tangents": "--", "search": "-"}
    for name, style in styles.items():
        look = rec.looks.get(name)
        if look is not None and math.isfinite(look.kappa):
            label = f"{name}: α ≤ {look.alpha:.3g}, β ≥ {look.beta:.3g}"
            axis.axvline(look.alpha, color=COLOURS["alpha"], ls=style, lw=1.2, label=label)
            axis.axvline(look.beta, color=COLOURS["uniform"], ls=style, lw=1.2)
    if rec.exact:
        axis.axvline(rec.alpha, color=COLOURS["alpha"], label=f"exact α = {rec.alpha:.3g}")
        axis.axvline(rec.beta, color=COLOURS["uniform"], label=f"exact β = {rec.beta:.3g}")
    if rec.alpha > 0 and rec.kappa > 8:
        _decimal_log(axis)
    axis.set_xlabel("‖A s‖² over unit directions s")
    axis.set_ylabel("secants")
    _legend(figure, axis)
    return figure


def _decimal_log(axis: Any) -> None:
    """A logarithmic x axis with plain numbers at 1, 2, 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axis: Any) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, fontsize=8, frameon=False, loc="outside upper center", ncols=3)


def draw_bounds(report: Report) -> Figure:
    """Objective and bounds, as fractions of the objective where the bound starts."""
    figure, axis = _figure(7.2, 3.6)
    check = report.uniform
    scale = check.objective[check.start].clamp_min(1e-300)
    seen = check.objective / scale
    n = torch.arange(len(seen))
    axis.fill_between(
        n,
        seen.amin(1),
        seen.amax(1),
        color=COLOURS["observed"],
        alpha=0.15,
        lw=0,
        label="iterates, all",
    )
    axis.plot(n, seen.median(1).values, color=COLOURS["observed"], lw=2, label="iterates, median")
    top = float(seen.max())
    low = max(float(seen[seen > 0].min()) if (seen > 0).any() else 1e-16, 1e-30)
    for name, result, style in (("uniform", check, "--"), ("pointwise", report.pointwise, "-.")):
        bound = (result.bound / scale)[check.start :]
        words = "uniform constants" if name == "uniform" else "each image's own"
        middle = bound.median(1).values
        axis.plot(
            n[check.start :],
            middle,
            style,
            color=COLOURS[name],
            lw=1.8,
            label=f"bound, {words} (median)",
        )
        floor = float(bound[bound > 0].min()) if (bound > 0).any() else 1.0
        low = min(low, max(floor, low * 1e-3))
    axis.set_yscale("log")
    axis.set_ylim(low / 3, max(100 * top, 1e3))
    axis.set_xlabel("iteration n")
    axis.set_ylabel(f"‖A xₙ − y‖² / ‖A x{SUBSCRIPTS[check.start]} − y‖²")
    _legend(figure, axis)
    return figure


def draw_constants(report: Report) -> Figure:
    """α_n and β_n of the run beside the constants that bound them."""
    figure, axis = _figure(7.2, 3.2)
    parts, check = report.uniform.decomposition, report.uniform
    n = torch.arange(len(parts.alpha))
    for name, values, words in (
        ("alpha", parts.alpha, "αₙ on (xₙ, x̄)"),
        ("uniform", parts.beta, "βₙ on (xₙ₊₁, xₙ)"),
    ):
        low, high = (_over_images(values, which) for which in ("min", "max"))
        axis.fill_between(n, low, high, color=COLOURS[name], alpha=0.2, lw=0)
        axis.plot(
            n, values.nanmedian(1).values, color=COLOURS[name], label=f"{words}, median and range"
        )
    axis.axhline(float(check.alpha.min()), color=COLOURS["alpha"], ls="--", lw=1.2, label="α on S")
    axis.axhline(float(check.beta.max()), color=COLOURS["uniform"], ls="--", lw=1.2, label="β on S")
    axis.axhline(1 / check.step_size, color=COLOURS["noise"], ls=":", lw=1.2, label="1/η")
    axis.set_yscale("log")
    axis.set_xlabel("iteration n")
    axis.set_ylabel("‖A s‖²/‖s‖²")
    _legend(figure, axis)
    return figure


def _over_images(values: torch.Tensor, which: str) -> torch.Tensor:
    """Least or largest of each row, NaN aside."""
    fill = math.inf if which == "min" else -math.inf
    filled = torch.where(values.isnan(), fill, values)
    result = filled.amin(1) if which == "min" else filled.amax(1)
    return torch.where(result.isfinite(), result, math.nan)


def draw_slack(report: Report) -> Figure:
    """Shares of the gap between bound and objective, by the quantity that makes it."""
    figure, axes = _figure(7.2, 3.0, columns=2)
    for axis, title, check in (
        (axes[0], "uniform constants", report.uniform),
        (axes[1], "each image's own constants", report.pointwise),
    ):
        shares = {name: 100 * share for name, share in check.slack.shares().items()}
        n = torch.arange(len(shares["alpha"]))
        kept = torch.stack(list(shares.values())).isfinite().all(0)
        stackable = all(bool((share[kept] >= -1e-6).all()) for share in shares.values())
        if stackable:
            axis.stackplot(
                n[kept],
                *[share[kept].clamp_min(0) for share in shares.values()],
                labels=[GREEK[name] for name in shares],
                colors=[COLOURS[name] for name in shares],
                lw=0,
            )
            axis.set_ylim(0, 100)
        else:
            for name, share in shares.items():
                axis.plot(n[kept], share[kept], color=COLOURS[name], label=GREEK[name])
            axis.axhline(0, color="black", lw=0.6)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("iteration n")
    axes[0].set_ylabel("% of the gap")
    _legend(figure, axes[0])
    return figure


def draw_projection(report: Report) -> Figure:
    """Distribution of δ_x, family by family: every point, the quartiles and the largest."""
    families = report.projection.families
    figure, axis = _figure(7.2, 0.9 + 0.55 * len(families))
    for i, family in enumerate(reversed(families.values())):
        deltas = family.deltas
        # Points are spread in a fixed pattern, so that the figure is the same every time.
        jitter = 0.22 * torch.sin(torch.arange(len(deltas), dtype=torch.float64) * 12.9898)
        axis.plot(deltas, i + jitter, "o", ms=3, alpha=0.5, color=COLOURS["delta"], mec="none")
        quartiles = deltas.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        axis.plot(quartiles[[0, 2]], [i, i], color="black", lw=2, solid_capstyle="butt")
        axis.plot(quartiles[1], i, "|", color="black", ms=14, mew=2)
    axis.set_yticks(range(len(families)), reversed(families), fontsize=8)
    axis.set_ylim(-0.6, len(families) - 0.4)
    axis.axvline(0, color="black", lw=0.6)
    axis.set_xlabel("δ_x = ‖x − P(x)‖² − min ‖x − s‖² (black: quartiles)")
    return figure


def image_rows(report: Report, columns: int = 12) -> dict[str, bytes]:
    """Rows of images as PNG: original, best point of S, recovered."""
    from PIL import Image

    from npgd.data import to_uint8

    rows = {"original x*": report.images}
    if float(report.distance.max()) > 1e-9:
        rows["best point x̄ of S"] = report.target
    rows["recovered"] = report.solution.x.cpu()
    encoded = {}
    for label, images in rows.items():
        pixels = to_uint8(images[:columns].float().clone()).permute(0, 2, 3, 1)
        padded = torch.nn.functional.pad(pixels, (0, 0, 1, 1, 1, 1), value=255)
        strip = torch.cat(list(padded), dim=1).numpy()
        file = io.BytesIO()
        Image.fromarray(strip.squeeze(-1) if strip.shape[-1] == 1 else strip).save(file, "PNG")
        encoded[label] = file.getvalue()
    return encoded


FIGURES: tuple[tuple[str, Callable[[Report], Figure], str], ...] = (
    (
        "How much A shortens the directions of S",
        draw_histogram,
        "‖A s‖² over unit secants s, in grey. Ticks on the axis: least and largest ratio over all "
        "tangent directions at one point, the limits of secants there. Lines: the extremes of each "
        "look. The theorem needs the right end to be less than twice the left end.",
    ),
    (
        "Bound and iterates",
        draw_bounds,
        "The objective of every image as a fraction of its value where the bound starts, and the "
        "bound from the uniform constants and from each image's own. A bound that leaves the "
        "picture at the top is void.",
    ),
    (
        "The constants that the run met",
        draw_constants,
        "By the one-step identity the objective's fall depends on α_n and β_n on the run's own "
        "pairs, not on the worst pairs of S.",
    ),
    (
        "Where the bound loses",
        draw_slack,
        "Share of each quantity in the gap between bound and objective. The parts sum to the gap "
        "exactly: first α_n replaces α, then β_n replaces β, then δ_n replaces δ; the rest is the "
        "noise. Where lines are drawn in place of areas, a part is negative: the iterates broke "
        "that assumption.",
    ),
    (
        "Projector error",
        draw_projection,
        "δ_x at every point looked at. Each is a lower bound where the nearest point of S was "
        "searched for, and their maximum is a lower bound on the theorem's δ.",
    ),
)


def svg(figure: Figure) -> bytes:
    """The figure as SVG, byte for byte the same for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "npgd"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return file.getvalue()
