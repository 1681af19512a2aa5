"""The evidence as tables, and what leads a report in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.limits import PARTS, moments
from analysis.report.evidence import Evidence
from analysis.report.figures import rule_of
from analysis.report.predictions import run_summary
from analysis.words import about, at_least, at_most, sentence

TableRows = tuple[str, Sequence[str], list[list[str]], int]
"""Title, head, rows, and how many of the columns hold words."""


def tables(evidence: Evidence) -> list[TableRows]:
    """What leads a report, and the constants, where A is linear."""
    found = [predictions_table(evidence), runs_table(evidence)]
    found += [limits_table(evidence)] if evidence.predictions.limits is not None else []
    return found + ([constants_table(evidence), images_table(evidence)] if evidence.linear else [])


def leading(evidence: Evidence) -> list[str]:
    """What leads a report, in words: predicted and seen, the runs, and what limits."""
    runs = [
        f"{row[0]}: {row[1]} dB, error {row[2]}, {row[3]} iterations (means); {row[4]}"
        for row in runs_table(evidence)[2]
    ]
    return [*map(str, evidence.predictions.rows), *runs, *limits_said(evidence)]


def predictions_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: each statement, what it predicts of this run, and what was seen."""
    head = ("statement", "assumes", "met here?", "of what", "predicted", "seen", "ratio")
    rows = [row.cells for row in evidence.predictions.rows]
    return ("What predicts this run (factors per step, errors per pixel)", head, rows, 4)


def runs_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: the theorem's run, and the one that users get."""
    rows = []
    for name, run in evidence.predictions.compared(evidence.solution, rule_of(evidence)):
        values = run_summary(name, run)
        psnr = values["psnr"]
        rows.append(
            [
                name,
                "–" if psnr is None else f"{psnr:.1f}",
                "–" if values["error"] is None else about(values["error"]),
                "–" if values["iterations"] is None else f"{values['iterations']:.3g}",
                values["status"],
            ]
        )
    head = ("run", "PSNR\n(dB)", "error per\npixel", "iterations", "ended")
    return ("The theorem's run, and the one that users get (means)", head, rows, 1)


def limits_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: the parts of the error seen, beside those that are predicted."""
    seen, budget = evidence.predictions.limits, evidence.predictions.budget
    assert seen is not None
    total = float(seen.error.mean())
    rows = []
    for name, values in {**seen.parts, "error seen": seen.error}.items():
        mean, error = moments(values)
        predicted = math.nan if budget is None else budget.parts.get(name, math.nan)
        if name == "error seen" and budget is not None:
            predicted = budget.error
        share = f"{round(100 * mean / total)} %" if total and math.isfinite(total) else "–"
        what = PARTS.get(name, "")
        rows.append([name, what, about(mean), about(error, 2), share, about(predicted)])
    run = evidence.predictions.default_name
    head = ("part", "what it is", "error per\npixel", "± standard\nerror", "share", "predicted")
    return (f"What limits {run}: the parts sum to the error seen (means)", head, rows, 2)


def limits_said(evidence: Evidence) -> list[str]:
    """What limits, and what each change that was tried gains, in words."""
    found = evidence.predictions
    if found.limits is None:
        return [f"What limits the error is not known: {found.without.get('limits', 'no run')}."]
    lines = [sentence(found.limits.status)]
    if found.advice is not None:
        lines += str(found.advice).splitlines()
    if found.budget is not None:
        lines.append(sentence(f"by state evolution, {found.budget.status}"))
    return lines


def advice_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: every change that was tried, least mean error first."""
    advice = evidence.predictions.advice
    assert advice is not None
    rows = [[f"{advice.run}, unchanged", about(float(advice.error.mean())), "", "", ""]]
    for trial in sorted(advice.trials, key=lambda trial: float(trial.error.mean())):
        better, batch = int((trial.gain > 0).sum()), len(trial.gain)
        word = "yes" if trial.gains else "no"
        rows.append(
            [
                trial.change.words,
                about(float(trial.error.mean())),
                f"{better} of {batch}",
                f"{trial.seconds:.1f} s",
                word,
            ]
        )
    head = ("change", "error per\npixel", "images\nbetter", "time", "better by more\nthan chance")
    return ("Changes tried on these images", head, rows, 1)


def constants_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: α, β and κ by each look, together, and what is certain."""
    rec = evidence.rec
    rows = [
        [
            name,
            at_most(look.alpha),
            at_least(look.beta),
            at_least(evidence.kappa(look)),
            f"{look.n_directions:,}" if look.n_directions else "",
            f"{look.seconds:.1f} s",
        ]
        for name, look in rec.looks.items()
        if look.n_directions
    ]
    alpha, beta = float(evidence.uniform.alpha.min()), float(evidence.uniform.beta.max())
    kappa = float(evidence.uniform.kappa.max())
    if rec.exact:
        rows.append(["exact", about(alpha), about(beta), about(kappa), "", ""])
    else:
        kind = "all directions (α ≤, β ≥, κ ≥)"
        rows.append([kind, at_most(alpha), at_least(beta), at_least(kappa), "", ""])
    rows.append(["certain: β ≤ ‖A‖²", "", at_most(rec.beta_certain), "", "", ""])
    head = ("directions looked at", "α", "β", "κ = β/α", "directions", "time")
    return ("Restricted eigenvalues", head, rows, 1)


def images_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: each image against its own constants, and all against the uniform."""
    check, solution = evidence.pointwise, evidence.solution
    assert solution.error is not None and solution.psnr is not None
    least, largest = (about, about) if evidence.rec.exact else (at_most, at_least)
    rows = []
    for i in range(len(check.kappa)):
        psnr = float(solution.psnr[i])
        values = (
            check.rate,
            check.observed.rate,
            check.floor,
            check.decomposition.error[-1],
            evidence.distance,
        )
        rows.append(
            [
                str(i),
                least(float(check.alpha[i])),
                largest(float(check.kappa[i])),
                *(_number(value[i]) for value in values),
                f"{psnr:.1f}" if math.isfinite(psnr) else _number(psnr),
                _held(check.exceeded_at[i], float(check.rate[i])),
            ]
        )
    uniform = evidence.uniform
    rows.append(
        [
            "all S",
            least(float(uniform.alpha.min())),
            largest(float(uniform.kappa.max())),
            _number(uniform.rate.max()),
            _number(uniform.observed.median),
            _number(uniform.floor.max()),
            _number(uniform.decomposition.error[-1].max()),
            _number(evidence.distance.max()),
            "",
            "no" if not uniform.holds else _held(None, float(uniform.rate.max())),
        ]
    )
    head = (
        "image",
        "α(x*)",
        "κ(x*)",
        "rate,\nbound",
        "rate,\nseen",
        "floor,\nbound",
        "‖x_N −\nx̄‖²",
        "‖x* −\nx̄‖²",
        "PSNR\n(dB)",
        "bound\nholds",
    )
    return ("Image by image, against its own constants", head, rows, 1)


def _held(exceeded_at: int | None, rate: float) -> str:
    """Whether a bound holds; one that does not fall says nothing."""
    if exceeded_at is not None:
        return f"no, x_{exceeded_at}"
    return "yes" if rate < 1 else "void"


def _number(value: Any) -> str:
    return about(float(value))
