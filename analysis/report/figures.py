"""The figures of the report: each a function of the evidence alone, and its caption.

Nothing infinite is drawn: a bound of infinity, or α = 0 on a logarithmic axis.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from analysis.rates import ConvergenceCheck
from analysis.rates.slack import GREEK
from analysis.report.evidence import Evidence
from analysis.words import about, at_least, at_most, out_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def draw_histogram(evidence: Evidence) -> Figure:
    """Histogram of ‖A s‖² over unit secants; the extremes of every look, tangent by tangent."""
    rec = evidence.rec
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
        look = None if rec.exact else rec.looks.get(name)
        if look is not None and math.isfinite(look.alpha) and math.isfinite(look.beta):
            label = f"{name}: α ≤ {at_most(look.alpha)}, β ≥ {at_least(look.beta)}"
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


def _iterations(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("iteration n")


def _legend(figure: Figure, axis: Any, columns: int = 3) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, fontsize=8, frameon=False, loc="outside upper center", ncols=columns)


def draw_bounds(evidence: Evidence) -> Figure:
    """Objective and bounds, as fractions of the objective where the bound starts."""
    figure, axis = _figure(7.2, 3.6)
    check = evidence.uniform
    seen, scale = _fractions(evidence)
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
    low = max(float(seen[seen > 0].min()) if (seen > 0).any() else 1e-16, 1e-30)
    for name, result, style in (("uniform", check, "--"), ("pointwise", evidence.pointwise, "-.")):
        bound = (result.bound / scale)[check.start :]
        words = "uniform constants" if name == "uniform" else "each image's own"
        middle = bound.median(1).values
        axis.plot(
            n[check.start :],
            torch.where(middle.isfinite(), middle, math.nan),
            style,
            color=COLOURS[name],
            lw=1.8,
            label=f"bound, {words} (median)",
        )
        floor = float(bound[bound > 0].min()) if (bound > 0).any() else 1.0
        low = min(low, max(floor, low * 1e-3))
    axis.set_ylim(low / 3, _top(seen))
    axis.set_yscale("log")  # after the limits: where nothing is positive it would warn of its own
    _iterations(axis)
    axis.set_ylabel(f"‖A xₙ − y‖² / ‖A x{SUBSCRIPTS[check.start]} − y‖²")
    _legend(figure, axis)
    return figure


def _fractions(evidence: Evidence) -> tuple[torch.Tensor, torch.Tensor]:
    """The objective over its value where the bound starts, and that value, image by image.

    An image that starts at 0 is drawn over its largest value, or over 1.
    """
    check = evidence.uniform
    scale, largest = check.objective[check.start], check.objective.amax(0)
    scale = torch.where(scale > 0, scale, torch.where(largest > 0, largest, 1.0))
    return check.objective / scale, scale


def _top(seen: torch.Tensor) -> float:
    return max(100 * float(seen.max()), 1e3)


def error_bound(evidence: Evidence) -> torch.Tensor:
    """What the bound on F_n promises of ‖x_n − x̄‖²/n with the uniform constants, image by image.

    α‖e_n‖² ≤ f_n ≤ (√F_n + ‖v‖)²; infinite where α = 0 or before the bound starts.
    """
    check, n = evidence.uniform, evidence.operator["n"]
    noise = check.decomposition.noise.sqrt()
    bound = (check.bound.clamp_min(0).sqrt() + noise).square() / (check.alpha * n)
    later = torch.arange(len(bound))[:, None] >= check.start
    return torch.where(later & bound.isfinite(), bound, math.inf)


def draw_predictions(evidence: Evidence) -> Figure:
    """Error per iteration: the bound, state evolution, the slopes of local rates, and the runs."""
    figure, axis = _figure(7.2, 4.0)
    found, shown = evidence.predictions, []

    def line(values: torch.Tensor, style: str, colour: str, label: str, first: int = 0) -> None:
        values = values.double().cpu()
        kept = values.isfinite() & (values > 0)
        if bool(kept.any()):
            n = first + torch.arange(len(values))
            axis.plot(n[kept], values[kept], style, color=colour, lw=1.8, label=label)
            shown.append(values[kept])

    for name, run in found.runs(evidence.solution, rule_of(evidence)):
        assert run.error is not None
        colour = {"AMP(prior)": "alpha", "NPGD(prior), its own step": "delta"}.get(name, "observed")
        line(run.error.double().mean(1), "-", COLOURS[colour], f"{name}, seen")
    if found.evolution is not None:
        line(found.evolution.error[:31], "o", COLOURS["alpha"], "state evolution")
    seen = evidence.uniform.decomposition.error / evidence.operator["n"]
    start = min(evidence.uniform.start, len(seen) - 1)
    steps = torch.arange(len(seen) - start, dtype=torch.float64)
    for name, colour, label in (
        ("exact", "beta", "local rate, exact projection: slope"),
        ("projector", "pointwise", "local rate, this projector: slope"),
    ):
        rate = next(row.predicted for row in found.rows if row.name == name)
        line(float(seen[start].mean()) * rate ** (2 * steps), ":", COLOURS[colour], label, start)
    if shown:
        values = torch.cat(shown)
        runs = [run.error for _, run in found.runs(evidence.solution, rule_of(evidence))]
        low = min(
            float(run[run > 0].min()) if (run > 0).any() else 1.0 for run in runs if run is not None
        )
        top = float(values.max())
        bound = error_bound(evidence).mean(1)
        line(bound, "--", COLOURS["uniform"], "Theorem 1's bound, uniform")
        axis.set_ylim(max(low / 10, float(values.min()) / 2), 100 * top)
    axis.set_yscale("log")
    _iterations(axis)
    axis.set_ylabel("error per pixel, mean over images")
    _legend(figure, axis, columns=2)
    return figure


def rule_of(evidence: Evidence) -> str:
    """The step of the theorem's run, in words."""
    settings = evidence.settings
    return "1/β" if settings["step_rule"] == "1/beta" else about(settings["step_size"], 4)


def draw_constants(evidence: Evidence) -> Figure:
    """α_n and β_n of the run beside the constants that bound them."""
    figure, axis = _figure(7.2, 3.2)
    parts, check = evidence.uniform.decomposition, evidence.uniform
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
    alpha = float(check.alpha.min())
    if alpha > 0:
        axis.axhline(alpha, color=COLOURS["alpha"], ls="--", lw=1.2, label="α on S")
    axis.axhline(float(check.beta.max()), color=COLOURS["uniform"], ls="--", lw=1.2, label="β on S")
    axis.axhline(1 / check.step_size, color=COLOURS["noise"], ls=":", lw=1.2, label="1/η")
    axis.set_yscale("log")
    _iterations(axis)
    axis.set_ylabel("‖A s‖²/‖s‖²")
    _legend(figure, axis)
    return figure


def _over_images(values: torch.Tensor, which: str) -> torch.Tensor:
    """Least or largest of each row, NaN aside."""
    fill = math.inf if which == "min" else -math.inf
    filled = torch.where(values.isnan(), fill, values)
    result = filled.amin(1) if which == "min" else filled.amax(1)
    return torch.where(result.isfinite(), result, math.nan)


def draw_slack(evidence: Evidence) -> Figure:
    """Shares of the slack, bound minus objective, by the quantity that makes it."""
    figure, axes = _figure(7.2, 3.0, columns=2)
    for axis, title, check in (
        (axes[0], "uniform constants", evidence.uniform),
        (axes[1], "each image's own constants", evidence.pointwise),
    ):
        shares = {name: 100 * share for name, share in check.slack.shares().items()}
        n = torch.arange(len(shares["alpha"]))
        kept = torch.stack(list(shares.values())).isfinite().all(0)
        if not kept.any():
            axis.set_xlim(0, max(1, len(n) - 1))
            axis.text(
                0.5, 0.5, "no finite slack", ha="center", transform=axis.transAxes, fontsize=9
            )
        stackable = not _negative(check)
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
        _iterations(axis)
    axes[0].set_ylabel("% of the slack")
    _legend(figure, axes[0], columns=4)
    return figure


def _negative(check: ConvergenceCheck) -> bool:
    """Whether a part of a finite slack is negative: an assumption that the iterates broke."""
    shares = torch.stack(list(check.slack.shares().values()))
    return bool((shares[:, shares.isfinite().all(0)] < -1e-8).any())


def draw_projection(evidence: Evidence) -> Figure:
    """Distribution of δ_x, family by family: every point, the quartiles and the largest."""
    families = evidence.projection.families
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


def image_rows(evidence: Evidence, columns: int = 12) -> dict[str, bytes]:
    """Rows of images as PNG, the first few: original, best point of S, recovered."""
    from PIL import Image

    from npgd.data import to_uint8

    rows = {"original x*": evidence.images}
    if not bool(evidence.inside.all()):
        rows["best point x̄ of S"] = evidence.target
    rows["recovered"] = evidence.solution.x.cpu()
    encoded = {}
    total = len(evidence.images)
    for label, images in rows.items():
        if total > columns:
            label += f" (the first {out_of(columns, total)})"
        pixels = to_uint8(images[:columns].float().clone()).permute(0, 2, 3, 1)
        padded = torch.nn.functional.pad(pixels, (0, 0, 1, 1, 1, 1), value=255)
        strip = torch.cat(list(padded), dim=1).numpy()
        file = io.BytesIO()
        Image.fromarray(strip.squeeze(-1) if strip.shape[-1] == 1 else strip).save(file, "PNG")
        encoded[label] = file.getvalue()
    return encoded


def _about_histogram(evidence: Evidence) -> str:
    rec = evidence.rec
    parts = ["‖A s‖² over unit secants s, in grey."] if rec.histogram is not None else []
    if rec.tangent_alpha is not None:
        parts.append(
            "Ticks on the axis: least and largest ratio over all tangent directions at one point, "
            "the limits of secants there."
        )
    lines = "the exact constants" if rec.exact else "the extremes of each look"
    parts.append(
        f"Lines: {lines}. The theorem needs the right end to be less than twice the left end."
    )
    return " ".join(parts)


def _about_predictions(evidence: Evidence) -> str:
    text = "Error of every iterate, mean over the images."
    bound = error_bound(evidence).mean(1)
    if bool(bound.isinf().all()):
        text += " Theorem 1's bound is infinite and not drawn."
    elif not bool((evidence.uniform.rate < 1).all()):
        text += " Theorem 1's bound is void: it does not fall."
    rows = {row.name: row for row in evidence.predictions.rows}
    if evidence.predictions.evolution is not None:
        text += " State evolution predicts AMP's run, iterate by iterate, and where NPGD ends."
    else:
        text += f" State evolution says {rows['evolution'].silent}."
    if any(math.isfinite(rows[name].predicted) for name in ("exact", "projector")):
        text += (
            " A local rate is a slope: how fast a run nears its point of rest in the end, drawn"
            " from the error where the theorem's run starts. A run levels off where that point is."
        )
    return text


def _about_bounds(evidence: Evidence) -> str:
    text = (
        "The objective of every image as a fraction of its value where the bound starts, and the "
        "bound from the uniform constants and from each image's own."
    )
    seen, scale = _fractions(evidence)
    bounds = [
        check.bound.nan_to_num(nan=0.0, posinf=math.inf)
        for check in (evidence.uniform, evidence.pointwise)
    ]
    middle = torch.stack([(bound / scale).median(1).values for bound in bounds])
    if bool(middle.isinf().any()):
        text += " An infinite bound is not drawn."
    if bool((middle[middle.isfinite()] > _top(seen)).any()):
        text += " A bound that leaves the picture at the top is 100 times any iterate or more."
    return text


def _about_constants(evidence: Evidence) -> str:
    text = (
        "By the one-step identity the objective's fall depends on α_n, β_n and δ_n of the run's "
        "own pairs and on the noise, not on the worst pairs of S."
    )
    return text if float(evidence.uniform.alpha.min()) > 0 else text + " α = 0 is not drawn."


def _about_slack(evidence: Evidence) -> str:
    shares = [check.slack.shares() for check in (evidence.uniform, evidence.pointwise)]
    if not any(bool(torch.stack(list(each.values())).isfinite().all(0).any()) for each in shares):
        return "There is no finite slack between bound and objective to split."
    text = (
        "Share of each quantity in the slack, bound minus objective. The parts sum to the slack: "
        "first α_n replaces α, then β_n replaces β, then δ_n replaces δ; the rest is the noise."
    )
    if _negative(evidence.uniform) or _negative(evidence.pointwise):
        text += (
            " Where lines are drawn in place of areas, a part is negative: the iterates broke that "
            "assumption."
        )
    return text


def _about_projection(evidence: Evidence) -> str:
    how = "each exact"
    if not evidence.projection.exact:
        how = "a lower bound where the nearest point of S was searched for"
    return (
        f"δ_x at every point looked at, {how}. Their maximum is a lower bound on the theorem's δ."
    )


@dataclass(frozen=True)
class Drawing:
    """A figure of the report."""

    title: str
    """The question it answers."""
    draw: Callable[[Evidence], Figure]
    """Draws it."""
    caption: Callable[[Evidence], str]
    """Says what is seen."""
    rests_on_A: bool = True
    """Whether it means nothing where A is not linear."""


PREDICTED = Drawing("Predicted and seen", draw_predictions, _about_predictions)
"""The figure that leads."""

FIGURES = (
    Drawing("How much A shortens the directions of S", draw_histogram, _about_histogram),
    Drawing("Bound and iterates", draw_bounds, _about_bounds),
    Drawing("The constants that the run met", draw_constants, _about_constants),
    Drawing("Where the bound loses", draw_slack, _about_slack),
    Drawing("Projector error", draw_projection, _about_projection, rests_on_A=False),
    PREDICTED,
)


def svg(figure: Figure) -> bytes:
    """The figure as SVG, byte for byte the same for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "npgd"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return file.getvalue()
