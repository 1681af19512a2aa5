"""The evidence as one self-contained page, which loads nothing from elsewhere.

One screen leads: verdicts, what limits, what to do next. Pictures follow, then a section for each
theory with its figure and its table.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from analysis.limits import PARTS, moments
from analysis.report import drawings
from analysis.report.drawings import Drawing
from analysis.report.evidence import Evidence, unseen
from analysis.report.figures import exact_rates, own_rates
from analysis.report.findings import Finding, findings
from analysis.report.markup import escaped, figure, manual, section, style, table, waterfall
from analysis.report.pictures import baselines_of, grid
from analysis.report.screen import QUESTIONS, SHADES, Screen, Step
from analysis.report.tables import (
    TableRows,
    advice_table,
    constants_table,
    images_table,
    limits_said,
    limits_table,
    predictions_table,
    runs_table,
)
from analysis.words import about, sentence
from npgd import checks
from npgd.images import Images


def page(
    evidence: Evidence,
    first: Screen,
    made: Mapping[str, Any] | None = None,
    baselines: Mapping[str, Images] | None = None,
) -> str:
    """The whole page. Where A is not linear, only what does not rest on that is shown.

    Args:
        evidence: what was measured.
        first: what leads.
        made: what made it: "command_line", "npgd" (the version) and "date", each if there.
        baselines: other methods' recoveries of the images, by name, to be shown beside; without,
            those of `verify(…, baselines=True)`, or the best that was tried.
    """
    others = baselines_of(evidence, _rival(evidence) if baselines is None else baselines)
    known: set[str] = set()
    title = heading(evidence)
    parts = [("overview", "Overview", _screen(evidence, first))]
    parts.append(("images", "Images", grid(evidence, others)))
    parts += _theories(evidence)
    parts.append(("settings", "Settings", _settings(evidence)))
    sections = "\n".join(section(*part, known) for part in parts)
    links = "".join(f"<li><a href='#{name}'>{escaped(words)}</a></li>" for name, words, _ in parts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title><style>{style()}</style></head><body class="npgd">
<header><h1>{escaped(title)}</h1>
<p class="small">{_made(made)} How to read it: {manual("how-to/report.md", "Read a report")};
every word and symbol: {manual("words.md", "Words and symbols")}.</p></header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{sections}
</main></body></html>
"""


def notebook(evidence: Evidence, first: Screen) -> str:
    """The page's first screen alone, for a notebook: its colours go with it."""
    return (
        f"<div class='npgd'><style>{style()}</style><p><strong>{escaped(heading(evidence))}"
        f"</strong></p>{_screen(evidence, first)}</div>"
    )


def heading(evidence: Evidence) -> str:
    """What was recovered from what."""
    settings, operator = evidence.settings, evidence.operator
    return (
        f"{settings['prior']}: {operator['kind']}, {operator['m']} measurements of "
        f"{operator['n']} pixels"
    )


def _made(made: Mapping[str, Any] | None) -> str:
    import npgd

    if made is not None and not isinstance(made, Mapping):
        raise TypeError(f"made must be a mapping of words, got {checks.shown(made)}")
    told = made or {}
    line = f"<code>{escaped(str(told['command_line']))}</code>, " if "command_line" in told else ""
    version = f"npgd {told.get('npgd', npgd.__version__)}"
    day = str(told.get("date", "")).replace("T", " ").replace("+00:00", " UTC")
    date = f", {escaped(day)}" if day else ""
    return f"Made by {line}{escaped(version)}{date}."


def _rival(evidence: Evidence) -> dict[str, Images]:
    """The recoveries by baselines, where they were asked for; else the best without the prior."""
    if evidence.predictions.baselines:
        return {name: run.x for name, run in evidence.predictions.baselines.items()}
    advice = evidence.predictions.advice
    trial = None if advice is None else advice.best_without_prior
    return {} if trial is None else {trial.change.name: trial.x}


# The screen ---------------------------------------------------------------------------------------


def _screen(evidence: Evidence, first: Screen) -> str:
    """The answers to its questions, what limits as bars, and what to do, numbered."""
    said = []
    for name, question in QUESTIONS.items():
        # The page's bar needs no key.
        lines = [re.sub(f" [{SHADES}]", "", line) for line in first.answers[name]]
        text = "".join(f"<p>{escaped(line)}</p>" for line in lines)
        if name == "limits":
            text += limiting(evidence)
        if name == "next" and first.steps:
            text += f"<ol class='steps'>{''.join(map(_step, first.steps))}</ol>"
        said.append(f"<h3>{escaped(question)}</h3>{text}")
    note = f"<p class='small'>{escaped(first.note)}</p>" if first.note else ""
    return f"<p class='small'>{escaped(first.title)}</p>{note}{''.join(said)}"


def _step(step: Step) -> str:
    return (
        f"<li>{escaped(step.words)}: {escaped(step.gain)}.<pre tabindex='0'><code>"
        f"{escaped(step.command)}</code></pre></li>"
    )


def limiting(evidence: Evidence) -> str:
    """What limits the run that users get, as bars that sum to its error."""
    seen = evidence.predictions.limits
    if seen is None:
        return ""
    parts = {name: moments(values)[0] for name, values in seen.parts.items()}
    return waterfall(parts, PARTS, "error per pixel")


def _chip(verdict: str) -> str:
    return f"<span class='verdict {_tone(verdict)}'>{escaped(verdict)}</span>"


def _tone(verdict: str) -> str:
    if verdict in ("not met", "exceeded", "low precision"):
        return "bad"
    return "good" if verdict in ("met", "holds", "not contradicted") else ""


# The theories -------------------------------------------------------------------------------------

_TOLD = {
    "projector error δ": "projector",
    "recovery": "limits",
    "what the iterates did": "predictions",
}
"""Where a finding stands; the others, with Theorem 1."""


def _theories(evidence: Evidence) -> list[tuple[str, str, str]]:
    """Name, title and content of every section between the images and the settings."""
    told: dict[str, list[Finding]] = {}
    for finding in findings(evidence):
        told.setdefault(_TOLD.get(finding.subject, "theorem"), []).append(finding)

    def said(name: str) -> str:
        return _findings(told.get(name, []))

    linear = evidence.linear
    if linear:
        predicted = [
            _figure(drawings.PREDICTED, evidence, alone=True),
            _table(predictions_table(evidence)),
            _table(runs_table(evidence)),
        ]
    else:
        predicted = [_table(predictions_table(evidence)), _table(runs_table(evidence))]
    title = "Predicted and seen" if linear else "Predictions and runs"
    parts = [("predictions", title, "".join([*predicted, said("predictions")]))]
    parts.append(("theorem", "Theorem 1", said("theorem") + _theorem(evidence) * linear))
    for name, words, drawing, told_of in (
        ("local", "Local rates", drawings.LOCAL, _local),
        ("evolution", "State evolution", drawings.EVOLUTION, _evolution),
        ("obtuse", "Obtuse projectors", drawings.OBTUSE, _obtuse),
    ):
        if linear:
            parts.append((name, words, told_of(evidence) + _figure(drawing, evidence, alone=True)))
    projector = said("projector") + _figure(drawings.PROJECTION, evidence, alone=True)
    parts.append(("projector", "Projector error δ", projector + _table(families_table(evidence))))
    parts.append(("limits", "What limits", _limits(evidence) + said("limits")))
    return parts


def _theorem(evidence: Evidence) -> str:
    looks = "".join(
        f"<li><strong>{name}</strong>: {escaped(f'{look.statement} ({look.status})')}</li>"
        for name, look in evidence.rec.looks.items()
    )
    drawn = (drawings.HISTOGRAM, drawings.BOUNDS, drawings.CONSTANTS, drawings.SLACK)
    pictures = [_figure(drawing, evidence) for drawing in drawn]
    return "".join(
        [
            f"<p>{_sidedness(evidence)}</p>",
            _table(constants_table(evidence)),
            pictures[0],
            f"<ul class='small'>{looks}</ul>",
            *pictures[1:],
            _table(images_table(evidence)),
        ]
    )


def _sidedness(evidence: Evidence) -> str:
    if evidence.rec.exact:
        return "α and β are the exact constants of this set."
    return (
        "α and β come from the directions looked at: the true α is at most what is found, the true "
        "β at least."
    )


def _local(evidence: Evidence) -> str:
    """What local rates say, and their table."""
    found = evidence.predictions
    stated = (found.local, found.rest, found.proof)
    said = [escaped(sentence(each.status)) for each in stated if each is not None]
    link = manual("mathematics/local-rates.md", "Local rates")
    intro = (
        "Near the point where a run comes to rest, one iteration is a linear map, and its spectral "
        f"radius is the factor by which the distance shrinks per step. {link} has the proofs."
    )
    text = "".join(f"<p>{line}</p>" for line in (intro, *said))
    columns = {}
    for words, predicted, run in (
        ("exact P", exact_rates(evidence), found.local_run),
        ("this P", own_rates(evidence), found.rest_run),
    ):
        if predicted is not None:
            columns[f"{words},\npredicted"] = predicted.tolist()
            if run is not None:
                columns[f"{words},\nseen"] = run.rate.tolist()
    if not columns:
        return text
    values = zip(*columns.values(), strict=False)
    rows = [[str(i), *(about(value) for value in row)] for i, row in enumerate(values)]
    return text + table("Local rates, image by image", ("image", *columns), rows, 1)


def _evolution(evidence: Evidence) -> str:
    """What state evolution says, iterate by iterate."""
    found = evidence.predictions
    link = manual("mathematics/state-evolution.md", "State evolution")
    intro = (
        "For a random A, the error of message passing (AMP) follows from the projector's denoising "
        f"curve, one number a step. {link} has its assumptions."
    )
    if found.evolution is None:
        return f"<p>{intro}</p>"
    error = found.evolution.error
    seen = None if found.amp is None or found.amp.error is None else found.amp.error.mean(1)
    last = len(error) - 1 if seen is None else min(len(error), len(seen)) - 1
    steps = sorted({n for n in (0, 1, 2, 3, 5, 10, 20, 30) if n <= last} | {last})
    rows = [
        [str(n), about(float(error[n])), "–" if seen is None else about(float(seen[n]))]
        for n in steps
    ]
    rows.append(["in the end", about(found.evolution.fixed_point), ""])
    head = ("iteration", "error, predicted", "error of AMP, seen")
    return f"<p>{intro}</p>" + table("State evolution beside AMP (means)", head, rows, 1)


def _obtuse(evidence: Evidence) -> str:
    """What angles explain, and the constants of every run."""
    found = evidence.predictions.obtuse
    link = manual("mathematics/obtuse.md", "Obtuse projectors")
    intro = (
        "A projector that turns back at an obtuse angle, seen from x*, brings a run nearer than "
        f"κ alone lets one expect: its bound asks for κ(1 − θ) &lt; 2. {link} has the proof."
    )
    if found is None:
        return f"<p>{intro}</p>"
    sees = found.alpha > unseen(evidence.operator["n"], evidence.rec.beta_certain)
    alpha = torch.where(sees, found.alpha, 0.0)
    kappa = torch.where(sees, found.beta / found.alpha, math.inf)
    columns = (alpha, found.beta, kappa, found.run_theta, found.run_delta)
    rows = [
        [str(i), *map(about, row), "yes" if good else "no"]
        for i, (*row, good) in enumerate(
            zip(*(c.tolist() for c in columns), found.explained.tolist(), strict=True)
        )
    ]
    head = ("image", "least α_n", "largest β_n", "κ", "θ", "δ", "bound\ncontracts")
    return f"<p>{intro}</p>" + table("Constants of every run", head, rows, 1)


def families_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: δ_x, family by family."""
    rows = [
        [
            name,
            str(len(family.deltas)),
            about(float(family.deltas.median())),
            about(family.delta),
            "yes" if family.exact else "no",
        ]
        for name, family in evidence.projection.families.items()
    ]
    head = ("points", "how many", "median δ_x", "largest δ_x", "nearest\npoint exact")
    return ("The projector's error δ, by points looked at", head, rows, 1)


def _limits(evidence: Evidence) -> str:
    """The parts of the error, seen and predicted."""
    found = evidence.predictions
    link = manual("how-to/limits.md", "Find out what limits a recovery")
    text = f"<p>The error of {found.default_name}, split by what causes it."
    text += f" {link} explains the parts.</p>"
    if found.limits is None:
        return text + f"<p>{escaped(limits_said(evidence)[0])}</p>"
    if found.budget is not None:
        parts = {name: float(found.budget.parts.get(name, math.nan)) for name in PARTS}
        text += "<h3>The parts that state evolution predicts, without a run</h3>"
        text += waterfall(parts, PARTS, "error predicted")
    text += _table(limits_table(evidence))
    return text + (_table(advice_table(evidence)) if found.advice is not None else "")


# Pieces -------------------------------------------------------------------------------------------


def _findings(found: list[Finding]) -> str:
    said = "".join(
        f"<dt>{escaped(f.subject)} {_chip(f.verdict)}</dt><dd><ul>"
        + "".join(f"<li>{html.escape(words)}</li>" for words in f.sentences)
        + "</ul></dd>"
        for f in found
    )
    return f"<dl class='verdicts'>{said}</dl>" if said else ""


def _table(rows: TableRows) -> str:
    return table(*rows)


def _figure(drawing: Drawing, evidence: Evidence, alone: bool = False) -> str:
    """A drawing, or the sentence that stands for it; `alone` if the section's title names it."""
    title = "" if alone else f"<h3>{escaped(drawing.title)}</h3>"
    if instead := drawing.instead(evidence):
        return f"{title}<p>{escaped(instead)}</p>"
    name = drawing.draw.__name__.removeprefix("draw_")
    drawn = drawing.draw(evidence)
    return title + figure(name, drawn, drawing.seen(evidence), drawing.caption(evidence))


def _settings(evidence: Evidence) -> str:
    """What was asked for, and how long it took."""
    chosen = [[key, _said(value)] for key, value in evidence.settings.items()]
    timing = [[name, f"{value:.1f} s"] for name, value in evidence.seconds.items()]
    return table("What was asked for", ("setting", "value"), chosen, 2) + table(
        "Time taken", ("part", "seconds"), timing, 1
    )


def _said(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {said}" for name, said in value.items())
    return "none" if value is None else str(value)
