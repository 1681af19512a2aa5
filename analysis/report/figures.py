"""The figures of the report: each a function of the evidence alone.

Nothing infinite is drawn: a bound of infinity, or α = 0 on a logarithmic axis. Legends are the
page's, which can read them aloud and set them as large as its text: the handles carry the labels.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import torch

from analysis.drawing import COLOURS, by_image, rates_by_image
from analysis.rates import ConvergenceCheck
from analysis.rates.check import draw_run_and_bounds
from analysis.report.evidence import Evidence
from analysis.words import about
from npgd.showing import Drawn, iterations, plain_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.4
"""Inches. At letters of 10 points a figure as wide as a phone can be read."""


def _figure(height: float, rows: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, axes if rows > 1 else axes[0]


def _without_legend(result: Drawn, axis: Any) -> None:
    """What `.plot()` of a result draws, its legend left to the page."""
    result.draw(axis)
    legend = axis.get_legend()
    if legend is not None:
        legend.remove()


def draw_histogram(evidence: Evidence) -> Figure:
    """Histogram of ‖A s‖² over unit secants; the extremes of every look, tangent by tangent."""
    figure, axis = _figure(2.9)
    _without_legend(evidence.rec, axis)
    return figure


def draw_bounds(evidence: Evidence) -> Figure:
    """Objective and bounds, as fractions of the objective where the bound starts."""
    figure, axis = _figure(3.1)
    words = ("uniform constants", "each image's own")
    checks = (evidence.uniform, evidence.pointwise)
    named = {f"bound, {name} (median)": c for name, c in zip(words, checks, strict=True)}
    draw_run_and_bounds(axis, named)
    return figure


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
    figure, axis = _figure(3.4)
    found, shown = evidence.predictions, []

    def line(values: torch.Tensor, style: str, colour: str, label: str, first: int = 0) -> None:
        values = values.double().cpu()
        kept = values.isfinite() & (values > 0)
        if bool(kept.any()):
            n = first + torch.arange(len(values))
            axis.plot(n[kept], values[kept], style, color=colour, lw=1.8, label=label)
            shown.append(values[kept])

    own_step = f"{found.default_name}, its own step"
    for name, run in found.runs(evidence.solution, rule_of(evidence)):
        assert run.error is not None
        colour = {"AMP(prior)": "alpha", own_step: "delta"}.get(name, "observed")
        line(run.error.double().mean(1), "-", COLOURS[colour], f"{name}, seen")
    if found.evolution is not None and math.isfinite(found.evolution.fixed_point):
        line(found.evolution.error[:31], "o", COLOURS["alpha"], "state evolution")
    seen = evidence.uniform.decomposition.error / evidence.operator["n"]
    start = min(evidence.uniform.start, len(seen) - 1)
    steps = torch.arange(len(seen) - start, dtype=torch.float64)
    for name, colour, label in (
        ("exact", "beta", "local rate, exact projection: slope"),
        ("projector", "pointwise", "local rate, this projector: slope"),
    ):
        rate = next(row.predicted for row in found.rows if row.name == name)
        if math.isfinite(rate):
            line(
                float(seen[start].mean()) * rate ** (2 * steps), ":", COLOURS[colour], label, start
            )
    if shown:
        values = torch.cat(shown)
        runs = [run.error for _, run in found.runs(evidence.solution, rule_of(evidence))]
        low = min(
            float(run[run > 0].min()) if (run > 0).any() else 1.0 for run in runs if run is not None
        )
        top = float(values.max())
        bound = error_bound(evidence).mean(1)
        bound = torch.where(bound <= 100 * top, bound, math.nan)
        line(bound, "--", COLOURS["uniform"], "Theorem 1's bound, uniform")
        axis.set_ylim(max(low / 10, float(values.min()) / 2), 100 * top)
    plain_log(axis.yaxis)
    iterations(axis)
    axis.set_ylabel("error per pixel, mean")
    return figure


def rule_of(evidence: Evidence) -> str:
    """The step of the theorem's run, in words."""
    settings = evidence.settings
    return "1/β" if settings["step_rule"] == "1/beta" else about(settings["step_size"], 4)


def draw_constants(evidence: Evidence) -> Figure:
    """α_n and β_n of the run beside the constants that bound them."""
    figure, axis = _figure(2.9)
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
    plain_log(axis.yaxis)
    iterations(axis)
    axis.set_ylabel("‖A s‖²/‖s‖²")
    return figure


def _over_images(values: torch.Tensor, which: str) -> torch.Tensor:
    """Least or largest of each row, NaN aside."""
    fill = math.inf if which == "min" else -math.inf
    filled = torch.where(values.isnan(), fill, values)
    result = filled.amin(1) if which == "min" else filled.amax(1)
    return torch.where(result.isfinite(), result, math.nan)


def slack_checks(evidence: Evidence) -> dict[str, ConvergenceCheck]:
    """The checks whose slack has parts to draw, by the constants that they use."""
    found = {"uniform": evidence.uniform, "each image's own": evidence.pointwise}
    return {
        name: check
        for name, check in found.items()
        if bool(check.slack.percentages()["alpha"].isfinite().any())
        and not check.slack.single_cause()[0]
    }


def draw_slack(evidence: Evidence) -> Figure:
    """Shares of the slack, bound minus objective, by the quantity that makes it."""
    checks = slack_checks(evidence)
    count = max(1, len(checks))
    figure, axes = _figure(0.6 + 1.8 * count, rows=count)
    for axis, (title, found) in zip(axes if count > 1 else [axes], checks.items(), strict=False):
        _without_legend(found.slack, axis)
        axis.set_title(f"{title} constants", fontsize=9)
    return figure


def draw_projection(evidence: Evidence) -> Figure:
    """Distribution of δ_x, family by family: every point, the quartiles and the largest."""
    figure, axis = _figure(0.7 + 0.6 * len(evidence.projection.families))
    _without_legend(evidence.projection, axis)
    return figure


def draw_local(evidence: Evidence) -> Figure:
    """Predicted and seen local rates, image by image."""
    figure, axis = _figure(2.9)
    found = evidence.predictions
    count = 0
    for shift, colour, words, predicted, run in (
        (-0.12, "beta", "exact projection", exact_rates(evidence), found.local_run),
        (0.12, "pointwise", "this projector", own_rates(evidence), found.rest_run),
    ):
        if predicted is None:
            continue
        count = max(count, len(predicted))
        by_image(axis, predicted, f"{words}, predicted", colour, shift=shift)
        if run is not None and bool((~run.rate.isnan()).any()):
            seen = torch.where(predicted.isnan(), math.nan, run.rate)
            by_image(axis, seen, f"{words}, seen", colour, seen=True, shift=shift)
    rates_by_image(axis, count)
    return figure


def exact_rates(evidence: Evidence) -> torch.Tensor | None:
    """Local rates with exact projection, NaN where no run rests; None without any."""
    local = evidence.predictions.local
    return None if local is None or not bool((~local.rate.isnan()).any()) else local.rate


def own_rates(evidence: Evidence) -> torch.Tensor | None:
    """Local rates of this projector, NaN where no run rests; None without any."""
    rest = evidence.predictions.rest
    if rest is None or not bool(rest.rests.any()):
        return None
    return torch.where(rest.rests, rest.rate, math.nan)


def draw_evolution(evidence: Evidence) -> Figure:
    """State evolution beside AMP's run, and where it says NPGD ends beside NPGD's."""
    figure, axis = _figure(2.9)
    found = evidence.predictions
    assert found.evolution is not None
    predicted = found.evolution.error[:31].double().cpu()
    runs = (("AMP(prior)", found.amp, "alpha"), (found.default_name, found.default, "delta"))
    for name, run, colour in runs:
        if run is not None and run.error is not None:
            seen = run.error.double().mean(1).cpu()
            axis.plot(seen.clamp_min(TINY), "-", color=COLOURS[colour], lw=1.8, label=name)
    axis.plot(
        predicted.clamp_min(TINY), "o", ms=4.5, mfc="none", color=COLOURS["uniform"],
        label="state evolution",
    )  # fmt: skip
    axis.axhline(
        max(found.evolution.fixed_point, TINY), color=COLOURS["uniform"], ls="--", lw=1.2,
        label="its fixed point",
    )  # fmt: skip
    plain_log(axis.yaxis)
    iterations(axis)
    axis.set_ylabel("error per pixel, mean")
    return figure


TINY = 1e-16
"""What is 0 is drawn here on a logarithmic axis."""


def draw_obtuse(evidence: Evidence) -> Figure:
    """κ_n(1 − θ_n) along the run, and the limit below which a step contracts."""
    figure, axis = _figure(2.9)
    assert evidence.predictions.obtuse is not None
    _without_legend(evidence.predictions.obtuse, axis)
    return figure


def svg(figure: Figure) -> str:
    """The figure as SVG, the same each time; letters stay letters, the ground is clear."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "npgd", "svg.fonttype": "none"}):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once; saving would do it twice more
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return file.getvalue().decode()
