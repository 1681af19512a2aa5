"""The drawings of the page: a figure, how it is read, what is seen, or a sentence instead.

A figure that would say one thing is no figure: where it would, `instead` says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from analysis.rates.check import top_of
from analysis.rates.slack import GREEK, NEARLY_ALL
from analysis.report.evidence import Evidence
from analysis.report.figures import (
    draw_bounds,
    draw_constants,
    draw_evolution,
    draw_histogram,
    draw_local,
    draw_obtuse,
    draw_predictions,
    draw_projection,
    draw_slack,
    error_bound,
    exact_rates,
    own_rates,
    rule_of,
    slack_checks,
)
from analysis.words import about, median, sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        last = about(float(bound[bound.isfinite()][-1]))
        text += f" Theorem 1's bound is void: it does not fall, and ends at {last} per pixel."
    rows = {row.name: row for row in evidence.predictions.rows}
    if not _no_evolution(evidence):
        text += " State evolution predicts AMP's run, iterate by iterate, and where NPGD ends."
    elif evidence.predictions.evolution is None:
        text += f" State evolution says {rows['evolution'].silent}."
    else:
        text += f" {_no_evolution(evidence)}"
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
    seen, scale = evidence.uniform.fractions()
    bounds = [
        check.bound.nan_to_num(nan=0.0, posinf=math.inf)
        for check in (evidence.uniform, evidence.pointwise)
    ]
    middle = torch.stack([(bound / scale).median(1).values for bound in bounds])
    if bool(middle.isinf().any()):
        text += " An infinite bound is not drawn."
    if bool((middle[middle.isfinite()] > top_of(seen)).any()):
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
    if any(check.slack.has_negative for check in slack_checks(evidence).values()):
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
    seen, scale = evidence.uniform.fractions()
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
    if found.evolution is not None and not _no_evolution(evidence):
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
    for name, check in slack_checks(evidence).items():
        shares = {key: share[share.isfinite()] for key, share in check.slack.percentages().items()}
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
    for name, run in (("AMP(prior)", found.amp), (found.default_name, found.default)):
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
    if slack_checks(evidence):
        return ""
    said: dict[tuple[str, int], list[str]] = {}
    for name, check in (("uniform", evidence.uniform), ("each image's own", evidence.pointwise)):
        single = check.slack.single_cause()
        if single[0]:
            said.setdefault(single, []).append(f"{name} constants")
    if not said:
        return "There is no finite slack between bound and objective to split."
    parts = (
        f"from x_{first} on at least {NEARLY_ALL} % of the slack, bound minus objective, is of"
        f" {GREEK[name]}, with {' and with '.join(names)}"
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
    if (found := evidence.predictions.evolution) is not None:
        if math.isfinite(found.fixed_point):
            return ""
        return "State evolution grows without end here: it has no fixed point."
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
