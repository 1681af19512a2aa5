"""The figures of the report: each a function of the evidence alone, what is seen, its caption.

Nothing infinite is drawn: a bound of infinity, or α = 0 on a logarithmic axis. Where a figure would
say one thing only, a sentence says it instead. Legends are the page's, which can read them aloud
and set them as large as its text: the handles carry the labels.
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
from analysis.words import about, at_least, at_most, median, sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

SUBSCRIPTS = "₀₁"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
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


def draw_histogram(evidence: Evidence) -> Figure:
    """Histogram of ‖A s‖² over unit secants; the extremes of every look, tangent by tangent."""
    rec = evidence.rec
    figure, axis = _figure(2.9)
    if rec.histogram is not None:
        counts, edges = rec.histogram.counts, rec.histogram.edges
        axis.stairs(counts, edges, fill=True, color="#BBBBBB", label="secants of S")
        _powers(axis)
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
    return figure


def _powers(axis: Any) -> None:
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


def draw_bounds(evidence: Evidence) -> Figure:
    """Objective and bounds, as fractions of the objective where the bound starts."""
    figure, axis = _figure(3.1)
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
    _powers(axis)  # after the limits: where nothing is positive it would warn of its own
    _iterations(axis)
    axis.set_ylabel(f"‖A xₙ − y‖² / ‖A x{SUBSCRIPTS[check.start]} − y‖²")
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
    figure, axis = _figure(3.4)
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
    _powers(axis)
    _iterations(axis)
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
    _powers(axis)
    _iterations(axis)
    axis.set_ylabel("‖A s‖²/‖s‖²")
    return figure


def _over_images(values: torch.Tensor, which: str) -> torch.Tensor:
    """Least or largest of each row, NaN aside."""
    fill = math.inf if which == "min" else -math.inf
    filled = torch.where(values.isnan(), fill, values)
    result = filled.amin(1) if which == "min" else filled.amax(1)
    return torch.where(result.isfinite(), result, math.nan)


def _shares(check: ConvergenceCheck) -> dict[str, torch.Tensor]:
    """Percentages of the slack by quantity, at the iterates where they are finite."""
    shares = {name: 100 * share for name, share in check.slack.shares().items()}
    kept = torch.stack(list(shares.values())).isfinite().all(0)
    return {name: torch.where(kept, share, math.nan) for name, share in shares.items()}


def _single(shares: dict[str, torch.Tensor]) -> tuple[str, int]:
    """What alone makes the slack from some x_n in the first quarter on; "" if nothing does."""
    for name, share in shares.items():
        known = share.isfinite().nonzero().flatten()
        mixed = known[(share[known] - 100).abs() >= 1]
        if len(known) and 4 * len(mixed) <= len(known):
            later = known[known > mixed[-1]] if len(mixed) else known
            if len(later) and 4 * len(later) >= 3 * len(known):
                return name, int(later[0])
    return "", 0


def _slack_checks(evidence: Evidence) -> dict[str, ConvergenceCheck]:
    """The checks whose slack has parts to draw, by the constants that they use."""
    found = {"uniform": evidence.uniform, "each image's own": evidence.pointwise}
    return {
        name: check
        for name, check in found.items()
        if bool(_shares(check)["alpha"].isfinite().any()) and not _single(_shares(check))[0]
    }


def draw_slack(evidence: Evidence) -> Figure:
    """Shares of the slack, bound minus objective, by the quantity that makes it."""
    checks = _slack_checks(evidence)
    count = max(1, len(checks))
    figure, axes = _figure(0.6 + 1.8 * count, rows=count)
    for axis, (title, check) in zip(axes if count > 1 else [axes], checks.items(), strict=False):
        shares = _shares(check)
        n = torch.arange(len(shares["alpha"]))
        kept = shares["alpha"].isfinite()
        if not _negative(check):
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
        axis.set_title(f"{title} constants", fontsize=9)
        _iterations(axis)
        axis.set_ylabel("% of the slack")
    return figure


def _negative(check: ConvergenceCheck) -> bool:
    """Whether a part of a finite slack is negative: an assumption that the iterates broke."""
    shares = torch.stack(list(check.slack.shares().values()))
    return bool((shares[:, shares.isfinite().all(0)] < -1e-8).any())


def draw_projection(evidence: Evidence) -> Figure:
    """Distribution of δ_x, family by family: every point, the quartiles and the largest."""
    families = evidence.projection.families
    figure, axis = _figure(0.7 + 0.6 * len(families))
    for i, (name, family) in enumerate(reversed(families.items())):
        deltas = family.deltas
        # Points are spread in a fixed pattern, so that the figure is the same every time.
        jitter = 0.16 * torch.sin(torch.arange(len(deltas), dtype=torch.float64) * 12.9898)
        axis.plot(
            deltas, i + jitter, "o", ms=3, alpha=0.5, color=COLOURS["delta"], mec="none",
            label="a point" if i == 0 else None,
        )  # fmt: skip
        quartiles = deltas.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        label = "quartiles, and the median" if i == 0 else None
        axis.plot(
            quartiles[[0, 2]], [i, i], color="black", lw=2, solid_capstyle="butt", label=label
        )
        axis.plot(quartiles[1], i, "|", color="black", ms=14, mew=2)
        axis.text(0.01, i + 0.28, name, transform=axis.get_yaxis_transform(), fontsize=9)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_ylim(-0.5, len(families) - 0.3)
    axis.axvline(0, color="black", lw=0.6)
    axis.set_xlabel("δ_x = ‖x − P(x)‖² − min ‖x − s‖²")
    return figure


def draw_local(evidence: Evidence) -> Figure:
    """Predicted and seen local rates, image by image."""
    figure, axis = _figure(2.9)
    found = evidence.predictions
    for shift, colour, words, predicted, run in (
        (-0.12, "beta", "exact projection", exact_rates(evidence), found.local_run),
        (0.12, "pointwise", "this projector", own_rates(evidence), found.rest_run),
    ):
        if predicted is None:
            continue
        n = torch.arange(len(predicted)) + shift
        axis.plot(
            n, predicted, "o", ms=7, mfc="none", color=COLOURS[colour], label=f"{words}, predicted"
        )
        if run is not None and bool((~run.rate.isnan()).any()):
            seen = torch.where(predicted.isnan(), math.nan, run.rate)
            axis.plot(n, seen, "x", ms=5, color=COLOURS[colour], label=f"{words}, seen")
    axis.axhline(1, color="black", lw=0.8, ls=":", label="1: no nearer")
    _iterations(axis)
    axis.set_xlabel("image")
    axis.set_ylabel("factor per step of ‖xₙ − x∞‖")
    count = max(
        len(rates) for rates in (exact_rates(evidence), own_rates(evidence)) if rates is not None
    )
    axis.set_xlim(-0.5, count - 0.5)
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
    runs = (("AMP(prior)", found.amp, "alpha"), ("NPGD(prior)", found.default, "delta"))
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
    _powers(axis)
    _iterations(axis)
    axis.set_ylabel("error per pixel, mean")
    return figure


TINY = 1e-16
"""What is 0 is drawn here on a logarithmic axis."""


def draw_obtuse(evidence: Evidence) -> Figure:
    """κ_n(1 − θ_n) along the run, and the limit below which a step contracts."""
    figure, axis = _figure(2.9)
    found = evidence.predictions.obtuse
    assert found is not None
    product, limit = found.product.cpu(), found.limit.cpu()
    n = torch.arange(len(product))
    later = n >= found.start
    middle = product.nanmedian(1).values
    bottom, top = (_quartile(product, q) for q in (0.25, 0.75))
    axis.fill_between(
        n[later], bottom[later], top[later], color=COLOURS["alpha"], alpha=0.2, lw=0,
        label="half of the images",
    )  # fmt: skip
    axis.plot(n[later], middle[later], color=COLOURS["alpha"], label="κₙ(1 − θₙ), median")
    axis.plot(
        n[later], limit.nanmedian(1).values[later], "--", color=COLOURS["uniform"], lw=1.2,
        label="the limit, median",
    )  # fmt: skip
    axis.axhline(0, color="black", lw=0.6)
    _iterations(axis)
    axis.set_ylabel("κₙ(1 − θₙ)")
    return figure


def _quartile(values: torch.Tensor, q: float) -> torch.Tensor:
    return values.double().nanquantile(q, dim=1)


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
    text = (
        "Share of each quantity in the slack, bound minus objective. The parts sum to the slack: "
        "first α_n replaces α, then β_n replaces β, then δ_n replaces δ; the rest is the noise."
    )
    if any(_negative(check) for check in _slack_checks(evidence).values()):
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


def _about_local(evidence: Evidence) -> str:
    text = (
        "The factor per step at which each run nears its point of rest x_∞ in the end: circles are "
        "predicted from derivatives at that point, crosses are seen."
    )
    if evidence.predictions.local_run is None and exact_rates(evidence) is not None:
        text += " The run with exact projection was not done at this effort."
    return text


def _about_evolution(evidence: Evidence) -> str:
    return (
        "Circles are predicted from the projector's denoising curve alone, before any run. AMP "
        "should follow them; that NPGD ends at the same error is observed, not proved."
    )


def _about_obtuse(evidence: Evidence) -> str:
    return (
        "Where the line lies below the limit 2 min(h_n, 2 − h_n), h_n = ηβ_n, the step brings x_n "
        "nearer to x̄: the projector turns back at an obtuse angle (θ_n > 0), which Theorem 1 does "
        "not count on."
    )


# What is seen, for those who do not see it -------------------------------------------------------


def _ends(values: torch.Tensor) -> str:
    """From the first to the last that is finite."""
    known = values.double()[values.isfinite()]
    return (
        f"from {about(float(known[0]))} to {about(float(known[-1]))}" if len(known) else "nothing"
    )


def _see_histogram(evidence: Evidence) -> str:
    rec = evidence.rec
    low, high = float(evidence.uniform.alpha.min()), float(evidence.uniform.beta.max())
    word = "exactly" if rec.exact else "at least"
    return (
        f"Ratios ‖A s‖²/‖s‖² spread {word} over {about(low)} to {about(high)}; the theorem needs "
        "less than a factor 2."
    )


def _see_bounds(evidence: Evidence) -> str:
    seen, scale = _fractions(evidence)
    check = evidence.uniform
    text = f"The median objective goes {_ends(seen.median(1).values[check.start :])}"
    for name, result in (("uniform", check), ("each image's own", evidence.pointwise)):
        bound = (result.bound / scale)[check.start :].median(1).values
        text += f"; the bound of {name} constants, {_ends(bound)}"
    return text + "."


def _see_predictions(evidence: Evidence) -> str:
    found = evidence.predictions
    parts = []
    for name, run in found.runs(evidence.solution, rule_of(evidence)):
        assert run.error is not None
        parts.append(f"{name} goes {_ends(run.error.mean(1))} per pixel")
    if found.evolution is not None:
        parts.append(f"state evolution, {_ends(found.evolution.error)}")
    bound = error_bound(evidence).mean(1)
    parts.append(f"Theorem 1's bound, {_ends(bound)}" if bool(bound.isfinite().any()) else
                 "Theorem 1's bound is infinite")  # fmt: skip
    return f"{'; '.join(parts)}."


def _see_constants(evidence: Evidence) -> str:
    parts, check = evidence.uniform.decomposition, evidence.uniform
    return (
        f"Medians along the run: α_n {_ends(parts.alpha.nanmedian(1).values)}, β_n "
        f"{_ends(parts.beta.nanmedian(1).values)}; on S, α is "
        f"{about(float(check.alpha.min()))} and β {about(float(check.beta.max()))}."
    )


def _see_slack(evidence: Evidence) -> str:
    parts = []
    for name, check in _slack_checks(evidence).items():
        shares = {key: share[share.isfinite()] for key, share in _shares(check).items()}
        said = ", ".join(f"{round(float(v[-1]))} % {GREEK[k]}" for k, v in shares.items())
        parts.append(f"with {name} constants {said}")
    return f"At the end of the run, {'; '.join(parts)}."


def _see_projection(evidence: Evidence) -> str:
    return "; ".join(
        f"{name}: median {about(float(family.deltas.median()))}, largest {about(family.delta)}"
        for name, family in evidence.projection.families.items()
    )


def _see_local(evidence: Evidence) -> str:
    found, parts = evidence.predictions, []
    for words, predicted, run in (
        ("exact projection", exact_rates(evidence), found.local_run),
        ("this projector", own_rates(evidence), found.rest_run),
    ):
        if predicted is not None:
            seen = "" if run is None else f", seen {about(median(run.rate))}"
            parts.append(f"with {words}, predicted {about(median(predicted))}{seen} (medians)")
    return f"Rates per step {'; '.join(parts)}."


def _see_evolution(evidence: Evidence) -> str:
    found = evidence.predictions
    assert found.evolution is not None
    text = f"State evolution goes {_ends(found.evolution.error)} per pixel"
    for name, run in (("AMP(prior)", found.amp), ("NPGD(prior)", found.default)):
        if run is not None and run.error is not None:
            text += f"; {name}, {_ends(run.error.mean(1))}"
    return text + "."


def _see_obtuse(evidence: Evidence) -> str:
    found = evidence.predictions.obtuse
    assert found is not None
    middle = found.product.nanmedian(1).values[found.start :]
    return f"The median of κ_n(1 − θ_n) goes {_ends(middle)}; {found.status}."


# Where a figure would say one thing --------------------------------------------------------------


def _always(evidence: Evidence) -> str:
    return ""


def _no_histogram(evidence: Evidence) -> str:
    low, high = float(evidence.uniform.alpha.min()), float(evidence.uniform.beta.max())
    if high <= low * (1 + 1e-6):
        return f"A shortens every direction of S alike: ‖A s‖²/‖s‖² is {about(low)} for all."
    return ""


def _no_bounds(evidence: Evidence) -> str:
    checks = (evidence.uniform, evidence.pointwise)
    if any(bool(check.bound[check.start + 1 :].isfinite().any()) for check in checks):
        return ""
    return "Every bound is infinite from its first step on, and there is none to draw."


def _no_slack(evidence: Evidence) -> str:
    if _slack_checks(evidence):
        return ""
    said: dict[tuple[str, int], list[str]] = {}
    for name, check in (("uniform", evidence.uniform), ("each image's own", evidence.pointwise)):
        single = _single(_shares(check))
        if single[0]:
            said.setdefault(single, []).append(f"{name} constants")
    if not said:
        return "There is no finite slack between bound and objective to split."
    parts = (
        f"from x_{first} on all of the slack, bound minus objective, is of {GREEK[name]}, with "
        f"{' and with '.join(names)}"
        for (name, first), names in said.items()
    )
    return sentence("; ".join(parts))


def _no_projection(evidence: Evidence) -> str:
    error = evidence.projection
    if float(error.deltas.abs().max()) > error.rounding:
        return ""
    return f"δ_x is 0, to rounding, at all {len(error.deltas):,} points looked at."


def _no_local(evidence: Evidence) -> str:
    if exact_rates(evidence) is None and own_rates(evidence) is None:
        said = {row.name: row for row in evidence.predictions.rows}
        reasons = dict.fromkeys(said[name].silent or "nothing" for name in ("exact", "projector"))
        return f"No local rate is predicted: {'; '.join(reasons).replace('nothing: ', '')}."
    return ""


def _no_evolution(evidence: Evidence) -> str:
    if evidence.predictions.evolution is not None:
        return ""
    reason = evidence.predictions.without.get("evolution", "it was not computed")
    return f"State evolution says nothing here: {reason}."


def _no_obtuse(evidence: Evidence) -> str:
    found = evidence.predictions.obtuse
    if found is None:
        reason = evidence.predictions.without.get("obtuse", "it was not computed")
        return f"Nothing is said of angles: {reason}."
    if not bool(found.product.nanmedian(1).values[found.start :].isfinite().any()):
        return "The run stood still: no step has an angle."
    return ""


@dataclass(frozen=True)
class Drawing:
    """A figure of the report."""

    title: str
    """What it is about."""
    draw: Callable[[Evidence], Figure]
    """Draws it."""
    caption: Callable[[Evidence], str]
    """How it is read."""
    seen: Callable[[Evidence], str]
    """What is seen, in numbers."""
    instead: Callable[[Evidence], str] = _always
    """A sentence that says all that the figure would; "" where it would say more."""


PREDICTED = Drawing("Predicted and seen", draw_predictions, _about_predictions, _see_predictions)
HISTOGRAM = Drawing(
    "How much A shortens the directions of S",
    draw_histogram, _about_histogram, _see_histogram, _no_histogram,
)  # fmt: skip
BOUNDS = Drawing("Bound and iterates", draw_bounds, _about_bounds, _see_bounds, _no_bounds)
CONSTANTS = Drawing(
    "The constants that the run met", draw_constants, _about_constants, _see_constants
)
SLACK = Drawing("Where the bound loses", draw_slack, _about_slack, _see_slack, _no_slack)
LOCAL = Drawing("Local rates", draw_local, _about_local, _see_local, _no_local)
EVOLUTION = Drawing(
    "State evolution and runs", draw_evolution, _about_evolution, _see_evolution, _no_evolution
)
OBTUSE = Drawing("Angles along the run", draw_obtuse, _about_obtuse, _see_obtuse, _no_obtuse)
PROJECTION = Drawing(
    "Projector error", draw_projection, _about_projection, _see_projection, _no_projection
)

FIGURES = (PREDICTED, HISTOGRAM, BOUNDS, CONSTANTS, SLACK, LOCAL, EVOLUTION, OBTUSE, PROJECTION)
"""In the order of the page. Only the last means anything where A is not linear."""


def svg(figure: Figure) -> str:
    """The figure as SVG, the same each time; letters stay letters, the ground is clear."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "npgd", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return file.getvalue().decode()
