"""What a report says first, on one screen: five questions, each answered by this run's numbers.

Does Theorem 1 apply? What predicts the run? How good is the recovery? What limits it? What to do
next? Every sentence is chosen by the numbers in it; every advice was tried on this very problem.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.advice import EXACT, Trial
from analysis.limits import PARTS, moments
from analysis.report.predictions import Prediction, Predictions, run_summary
from analysis.words import WIDTH, about, at_least, decibels, exactly, out_of, sentence, wrapped
from npgd.files import plain
from npgd.images import PerImage
from npgd.showing import Shown
from npgd.solvers.projecting import SHARE

if TYPE_CHECKING:
    from analysis.report.evidence import Evidence

QUESTIONS = {
    "applies": "Does Theorem 1 apply?",
    "predicts": "What predicts the run?",
    "quality": "How good is it?",
    "limits": "What limits it?",
    "next": "What to do next?",
}
"""In the order in which they are answered."""
BAR = 50
SHADES = "█▓▒░·"
"""Of the bar, one for each of `PARTS`."""
SHOWN = 3
"""Advices of each kind on the screen; a report has them all."""


@dataclass(frozen=True)
class Step:
    """An advice: what to do, what it gained here, and how it is done."""

    words: str
    gain: str
    command: str
    """Of `npgd`, where the problem came from one; else Python."""

    def to_dict(self) -> dict[str, str]:
        return {"advice": self.words, "gain": self.gain, "command": self.command}


@dataclass(frozen=True)
class Screen(Shown):
    """The answers, in words."""

    title: str
    """The prior, A, and what was recovered."""
    answers: dict[str, tuple[str, ...]]
    """To `QUESTIONS`, a sentence each."""
    shares: dict[str, float]
    """Of the mean error, what each of `PARTS` makes; empty where that is not known."""
    steps: tuple[Step, ...]
    """What to do, what needs no other data first, then by the error."""
    note: str = ""
    """What was cut short, if anything."""

    def __str__(self) -> str:
        lines = textwrap.wrap(self.title, WIDTH)
        lines += wrapped(self.note, "", "") if self.note else []
        for name, question in QUESTIONS.items():
            lines += ["", question]
            for said in self.answers[name]:
                lines += wrapped(said, "  ", "  ")
            if name == "limits" and self.shares:
                lines.append(f"  {self.bar}")
        for i, step in enumerate(self.steps, 1):
            text = f"{i}. {step.words}: {step.gain}."
            lines += wrapped(text, "  ", "     ")
            lines += [f"       {line}" for line in step.command.splitlines()]
        return "\n".join(lines)

    @property
    def bar(self) -> str:
        """The parts that add to the error, as long as they are large."""
        positive = {name: share for name, share in self.shares.items() if share > 0}
        total, drawn, reached = sum(positive.values()), "", 0.0
        for name, shade in zip(PARTS, SHADES, strict=True):
            reached += positive.get(name, 0.0) / total if total else 0.0
            drawn += shade * (round(BAR * reached) - len(drawn))
        return drawn

    def to_dict(self) -> dict[str, Any]:
        said = {name: list(self.answers[name]) for name in QUESTIONS}
        found: dict[str, Any] = plain(
            {
                "title": self.title,
                **({"note": self.note} if self.note else {}),
                **said,
                "shares": dict(self.shares),
                "steps": [step.to_dict() for step in self.steps],
            }
        )
        return found


def screen(evidence: Evidence, command: Mapping[str, str | None] | None = None) -> Screen:
    """The answers; `command` are the options with which `npgd recover` recovers the same."""
    return Screen(
        title=_title(evidence),
        answers={
            "applies": _applies(evidence),
            "predicts": _predicts(evidence),
            "quality": _quality(evidence),
            "limits": _limits(evidence),
            "next": _next(evidence),
        },
        shares=_shares(evidence),
        steps=_steps(evidence, command),
        note=_note(evidence),
    )


def _title(evidence: Evidence) -> str:
    settings, operator = evidence.settings, evidence.operator
    k = settings["latent_dim"]
    prior = f"{settings['prior']}" + (f" (k = {k})" if k is not None else "")
    count, given = settings["count"], settings["images"] == "images"
    what = f"{count} {'image' if given else 'sample'}{'s' * (count > 1)}"
    what += "" if given else " of the prior"
    noise = f", noise {settings['noise']:g}" if settings["noise"] else ""
    return (
        f"{prior} · {operator['kind']}, m = {operator['m']} of n = {operator['n']}{noise} · {what}"
    )


def _note(evidence: Evidence) -> str:
    """What this size and effort cut short, in a line."""
    cut = evidence.settings.get("cut short")
    if not cut:
        return ""
    return f"Cut short at this size ({', '.join(cut)}): the settings say how, and what runs it."


# The theorem --------------------------------------------------------------------------------------


def _row(evidence: Evidence, name: str) -> Prediction:
    return next(row for row in evidence.predictions.rows if row.name == name)


def _applies(evidence: Evidence) -> tuple[str, ...]:
    if not evidence.linear:
        return ("No: A is not linear, or Aᵀ not its transpose, which everything rests on.",)
    kappa, exact = float(evidence.uniform.kappa.max()), evidence.rec.exact
    known = exact or math.isinf(kappa)
    value = "κ = " + exactly(kappa, 2, 3) if known else "κ ≥ " + at_least(kappa)
    needs = "κ < 2, κ being the largest ‖A s‖²/‖s‖² over the least, s a difference of two points"
    needs += " of S, all that the prior can make"
    if kappa >= 2:
        good, batch = int((evidence.pointwise.kappa < 2).sum()), len(evidence.pointwise.kappa)
        own = " Of differences from the one image x* alone, κ(x*) < 2 is"
        own += f" {'so' if exact else 'not contradicted'} for {out_of(good, batch)}."
        return (f"No. It needs {needs}. Here {value}: it promises nothing.{own * (good > 0)}",)
    row = _row(evidence, "uniform")
    word = "Its assumption on A holds" if exact else "Not contradicted"
    text = f"{word}: it needs {needs}. Here {value}."
    outside = int((~evidence.inside).sum())
    if outside:
        text += f" The image is not in S for {out_of(outside, len(evidence.inside))}: of those it"
        text += " speaks about the best point of S."
    if not math.isnan(row.predicted):
        text += f" The objective falls by a factor {about(row.observed)} a step,"
        text += f" {about(row.predicted)}"
        text += " or less being promised." if exact else " with the constants found."
    return (text,)


# What predicts ------------------------------------------------------------------------------------

_SAID = {
    "evolution_npgd": "State evolution, error a pixel in the end",
    "projector": "Local rate, the factor a step at the end, with this projector",
    "exact": "Local rate, with exact projection",
    "obtuse": "The bound for obtuse projectors, the factor of the squared distance a step",
}


def _predicts(evidence: Evidence) -> tuple[str, ...]:
    said = []
    for name, words in _SAID.items():
        row = _row(evidence, name)
        if math.isnan(row.predicted) or math.isnan(row.observed):
            continue
        whom = row.met.rpartition("rests ")[2]
        who = f" ({whom.removeprefix('for ')})" if whom.startswith("for ") else ""
        bound = "at most " if name == "obtuse" else ""
        said.append(f"{words}: {bound}{about(row.predicted)}; seen {about(row.observed)}{who}.")
    if said:
        return tuple(said[:3])
    if not evidence.linear:
        return ("Nothing here: A is not linear.",)
    reasons = {row.silent.removeprefix("nothing").lstrip(": ") for row in evidence.predictions.rows}
    told = "; ".join(sorted(reasons - {"", "void"}))
    return (f"Nothing here{': ' + told if told else ''}.",)


# How good -----------------------------------------------------------------------------------------


def _quality(evidence: Evidence) -> tuple[str, ...]:
    found, run = evidence.predictions, evidence.predictions.default
    if run is None or run.error is None:
        return (f"Not known: {found.without.get('default', 'no run')}.",)
    batch, values = len(evidence.inside), run_summary("", run)
    said = [f"{found.default_name}: {_good(run.error[-1].cpu())};"]
    said[0] += f" {about(values['iterations'])} iterations"
    said[0] += f", {values['status']}."
    if bool(evidence.inside.all()):
        said.append(f"S holds {out_of(batch, batch)}, to rounding.")
    else:
        said.append(f"The best points of S: {_good(evidence.distance / evidence.operator['n'])}.")
    said += [
        sentence(f"{name}, without the prior: {_good(error)}")
        for name, error in _rivals(found).items()
    ]
    return tuple(said)


def _rivals(found: Predictions) -> dict[str, PerImage]:
    """Errors of the baselines, where they were asked for; else of the best that was tried."""
    if found.baselines:
        runs = found.baselines.items()
        return {name: run.error[-1].cpu() for name, run in runs if run.error is not None}
    best = None if found.advice is None else found.advice.best_without_prior
    return {} if best is None else {best.change.name: best.error}


def _good(error: PerImage) -> str:
    """PSNR and error a pixel, of several images the means."""
    mean, ratio = "mean " * (len(error) > 1), decibels(error)
    psnr = f"{mean}PSNR {ratio}" if ratio.endswith("dB") else ratio
    return f"{psnr}, {mean}error {about(float(error.double().mean()))} a pixel"


# What limits --------------------------------------------------------------------------------------


def _shares(evidence: Evidence) -> dict[str, float]:
    limits = evidence.predictions.limits
    if limits is None:
        return {}
    total = float(limits.error.mean())
    if not math.isfinite(total) or total <= EXACT:
        return {}
    return {name: moments(part)[0] / total for name, part in limits.parts.items()}


def _limits(evidence: Evidence) -> tuple[str, ...]:
    found = evidence.predictions
    if found.limits is None:
        return (f"Not known: {found.without.get('limits', 'no run')}.",)
    total, shares = float(found.limits.error.mean()), _shares(evidence)
    if not shares:
        least = f"Nothing: the error is {about(total)} a pixel."
        return (least,) if total <= EXACT else ("Not known.",)
    named = sorted(shares, key=lambda name: -abs(shares[name]))
    told = [name for name in named if abs(shares[name]) >= 0.005]
    parts = ", ".join(
        f"{name} {round(100 * shares[name]):d} %".replace("-", "−") + _key(name, shares)
        for name in told
    )
    first = found.limits.largest
    said = (f"Of {about(total)}: {parts}. The largest part, {first}, is {PARTS[first]}.",)
    if not SHARE < found.missed < math.inf:
        return said
    share = math.floor(100 * found.missed)
    text = "The encoder projects poorly: of noise as strong as the spread of S, P leaves"
    text += f" {share} % more than the nearest points of a flat set."
    return (*said, f"{text} So npgd recover ends with steps on the latent, unless told --finish 0.")


def _key(name: str, shares: Mapping[str, float]) -> str:
    return f" {dict(zip(PARTS, SHADES, strict=True))[name]}" if shares[name] > 0 else ""


# What to do ---------------------------------------------------------------------------------------


def _next(evidence: Evidence) -> tuple[str, ...]:
    found = evidence.predictions
    advice = found.advice
    if advice is None:
        return (f"Nothing was tried: {found.without.get('advice', 'no run')}.",)
    if not advice.ranked:
        return (sentence(advice.status),)
    count = len(advice.error)
    tried = f"{len(advice.trials)} changes were tried on these {count} images. These lower the"
    tried += " error by more than chance:"
    return (tried,)


def _steps(evidence: Evidence, command: Mapping[str, str | None] | None) -> tuple[Step, ...]:
    advice = evidence.predictions.advice
    if advice is None:
        return ()
    steps = []
    for other in (False, True):
        kind = [trial for trial in advice.ranked if trial.change.data is other][:SHOWN]
        steps += [_step(trial, evidence, command) for trial in kind]
    return tuple(steps)


def _step(trial: Trial, evidence: Evidence, command: Mapping[str, str | None] | None) -> Step:
    change, budget = trial.change, evidence.predictions.budget
    gain = str(trial)
    if change.name == "twice the measurements" and budget is not None:
        gain += f"; state evolution predicts {about(budget.doubled)}"
    words = change.words[0].upper() + change.words[1:]
    return Step(words, gain, change.python if command is None else change.command(command))
