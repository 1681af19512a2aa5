"""What the evidence says, in words: every sentence is chosen by the numbers that it speaks of."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Float

from analysis.rates.slack import GREEK
from analysis.rec import RecEstimate
from analysis.report.evidence import LINEAR, LOW_PRECISION, OWN, Evidence
from analysis.words import (
    about,
    at_least,
    at_most,
    decibels,
    exactly,
    median,
    out_of,
    sentence,
    spread,
)
from npgd.images import norm

ROUNDING = 1 + 1e-9
"""A step of 1/β, or a sum of two numbers, up to rounding."""

REST = 1e-9
"""An image is at rest, or back where it was, within this share of its length."""


@dataclass(frozen=True)
class Finding:
    """One assumption or outcome, and what was found."""

    subject: str
    """The assumption, or what is looked at."""
    verdict: str
    """"met" or "not met", where that is certain; "not contradicted" or "not found", where only
    looking could tell; "measured" where there is nothing to meet; of the bound "holds", "void"
    where it falls for no image, or "exceeded"; of arithmetic "low precision"."""
    text: str
    """What was found, in sentences."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.verdict}. {self.text}"


def findings(evidence: Evidence) -> list[Finding]:
    """Every assumption and outcome, in the order of the theorem; a failed precondition first."""
    if not evidence.linear:
        unaffected = (_membership, _projector, _iterates, _recovery)
        return [_failed(evidence), *(finding(evidence) for finding in unaffected)]
    return [
        _contraction(evidence),
        _pointwise_contraction(evidence),
        _step_size(evidence),
        _membership(evidence),
        _projector(evidence),
        _iterates(evidence),
        _bounds(evidence),
        _slack(evidence),
        _recovery(evidence),
        _identity(evidence),
    ]


def _contraction(evidence: Evidence) -> Finding:
    """β/α < 2, with the look that decides it."""
    rec, check = evidence.rec, evidence.uniform
    subject = "β/α < 2 on all of S"
    alpha, beta = float(check.alpha.min()), float(check.beta.max())
    kappa = float(check.kappa.max())
    promise = _promise(evidence)
    if rec.exact:
        constants = f"α = {about(alpha, 4)}, β = {about(beta, 4)}: κ = β/α = {exactly(kappa, 2)}"
        text = f"The exact constants of this set are {constants}. {promise}"
        return Finding(subject, "met" if kappa < 2 else "not met", text)
    looks = _looks(evidence)
    constants = f"α ≤ {at_most(alpha)}, β ≥ {at_least(beta)}"
    by_look = "; ".join(f"{words} {at_least(value)}" for words, value in looks.items())
    if kappa < 2:
        text = f"The largest κ = β/α found is {exactly(kappa, 2, 3)} ({constants}; {by_look}). "
        text += "Directions not looked at may have more. "
        return Finding(subject, "not contradicted", text + promise)
    if math.isinf(kappa):
        text = f"A does not see some direction of S, to rounding: α = 0, κ = β/α = ∞ ({by_look}). "
        return Finding(subject, "not met", text + promise)
    first = next((words for words, value in looks.items() if value >= 2), None)
    if first is None:
        text = f"No look by itself gives κ = β/α ≥ 2, but together they give κ ≥ {at_least(kappa)} "
    else:
        text = f"{first} already give κ = β/α ≥ {at_least(looks[first])}. "
        text = text[0].upper() + text[1:] + f"In all, κ ≥ {at_least(kappa)} "
    return Finding(subject, "not met", f"{text}({constants}; {by_look}). {promise}")


def _looks(evidence: Evidence) -> dict[str, float]:
    """κ by each look, and the largest κ(x*), where they found any direction."""
    rec = evidence.rec
    words = {
        "secants": f"{_count(rec, 'secants')} secants",
        "tangents": f"tangent directions at {_count(rec, 'tangent points')} points",
        "search": "searches from the worst of them",
    }
    found = {words[name]: evidence.kappa(rec.looks[name]) for name in words if name in rec.looks}
    found["searches from the images"] = float(evidence.pointwise.kappa.max())
    return {name: kappa for name, kappa in found.items() if not math.isnan(kappa)}


def _count(rec: RecEstimate, name: str) -> str:
    if name == "tangent points":
        return "no" if rec.tangent_alpha is None else f"{len(rec.tangent_alpha):,}"
    return f"{rec.looks[name].n_directions:,}" if name in rec.looks else "no"


def _promise(evidence: Evidence) -> str:
    """What the uniform bound does at this step."""
    rate, at = float(evidence.uniform.rate.max()), f"at η = {about(evidence.uniform.step_size)}"
    if not rate < 1:
        return f"The uniform bound is void {at}: it does not fall."
    if rate < 1e-12:
        return f"The uniform bound falls to its end in one step {at}."
    if evidence.rec.exact:
        return f"The uniform bound falls by a factor {exactly(rate, 1, 3)} per step {at}."
    return f"The uniform bound falls {at}, by a factor no better than {at_least(rate)} per step."


def _pointwise_contraction(evidence: Evidence) -> Finding:
    rec, check, subject = evidence.rec, evidence.pointwise, "β/α(x*) < 2, image by image"
    kappa = check.kappa
    low, high = float(kappa.min()), float(kappa.max())
    batch, good, void = len(kappa), int((kappa < 2).sum()), int((~(check.rate < 1)).sum())
    exact = rec.exact and rec.pointwise is not None and rec.pointwise.exact
    if exact:
        ends = [exactly(low, 2, 3), exactly(high, 2, 3)]
        text = f"κ(x*) is {' to '.join(dict.fromkeys(ends))}, and below 2 for {out_of(good, batch)}"
    else:
        ends = [at_least(low), at_least(high)]
        bound = "" if math.isinf(low) else "at least "
        text = f"κ(x*) is {bound}{' to '.join(dict.fromkeys(ends))}"
        if good < batch:
            text += f", which is 2 or more for {out_of(batch - good, batch)}"
        if good:
            text += f"; no direction found contradicts κ(x*) < 2 for {out_of(good, batch)}"
    what = "β and α(x*) are exact" if exact else "α(x*) and β are the extremes found"
    text += f" ({what})"
    text += f"; the bound is void for {out_of(void, batch)}." if void else "."
    if good == batch:
        return Finding(subject, "met" if exact else "not contradicted", text)
    return Finding(subject, "not met", text)


def _step_size(evidence: Evidence) -> Finding:
    rec, eta = evidence.rec, evidence.uniform.step_size
    beta = float(evidence.uniform.beta.max())
    subject = "step size η ≤ 1/β"
    if rec.exact and eta * beta <= ROUNDING:
        return Finding(subject, "met", f"η = {about(eta, 4)}, and 1/β = {about(1 / beta, 4)}.")
    if not rec.exact and eta * rec.beta_certain <= ROUNDING:
        text = f"η = {about(eta, 4)}, and β ≤ ‖A‖² = {about(rec.beta_certain, 4)}."
        return Finding(subject, "met", text)
    if not rec.exact and eta * beta <= ROUNDING:
        return Finding(
            subject,
            "not contradicted",
            f"η = {about(eta, 4)} is at most 1/β with the largest β found, {about(beta, 4)}. "
            f"Directions not looked at may have more: only η ≤ {at_least(1 / rec.beta_certain)} = "
            "1/‖A‖² would be certain.",
        )
    sign = "=" if rec.exact else "≤"
    limit = (about if rec.exact else at_most)(1 / beta, 4)
    text = f"η = {about(eta, 4)} exceeds 1/β {sign} {limit}; the bound is the one for longer steps."
    return Finding(subject, "not met", text)


def _membership(evidence: Evidence) -> Finding:
    start = evidence.uniform.start
    inside, batch = evidence.inside, len(evidence.inside)
    held = int(inside.sum())
    sentences = []
    if held:
        sentences.append(sentence(f"{out_of(held, batch)} {_verb(held, 'lie')} in S"))
    if held < batch:
        sentences.append(_outside(evidence))
    sentences.append(
        "x_0 = P(Aᵀy) lies in S."
        if start == 0
        else "x_0 = Aᵀy need not lie in S, so every statement begins at x_1."
    )
    if evidence.linear:
        sentences += _noise(evidence)
    if held == batch:
        verdict = "met" if start == 0 else "x* yes, x_0 open"
    else:
        verdict = "not met" if bool((evidence.nearest & ~inside).any()) else "not found"
    return Finding("x* and x_0 in S", verdict, " ".join(sentences))


def _outside(evidence: Evidence) -> str:
    """How far the images lie from S that are not known to lie in it."""
    outside, n = ~evidence.inside, evidence.operator["n"]
    far, count = evidence.distance[outside], out_of(int(outside.sum()), len(outside))
    reach = f"‖x* − x̄‖² = {spread(float(far.min()), float(far.max()))}"
    pixels = f"(median {about(median(far))}, {about(median(far) / n)} per pixel)"
    if bool(evidence.nearest[outside].all()):
        return sentence(
            f"{count} {_verb(int(outside.sum()), 'lie')} outside S, at {reach} {pixels}"
        )
    return (
        f"For {count} no point of S nearer than x̄ was found, at {reach} {pixels}: the search may "
        "miss a nearer one."
    )


def _noise(evidence: Evidence) -> list[str]:
    added, size = evidence.settings["noise"], median(evidence.uniform.decomposition.noise)
    sentences = []
    if added:
        sentences.append(f"Noise of standard deviation {added:g} was added to y.")
    if not bool(evidence.inside.all()):
        sentences.append("The bound is about x̄, and A(x* − x̄) counts as noise.")
    if sentences:
        sentences.append(f"‖v‖² = ‖y − A x̄‖² is {about(size)} (median).")
    return sentences


def _projector(evidence: Evidence) -> Finding:
    error, n = evidence.projection, evidence.operator["n"]
    text = sentence(error.status)
    own = error.families[OWN].deltas.clamp_min(0)
    if float(own.max()) > error.rounding:
        text += f" On {OWN} it is {about(median(own))} (median), {at_least(float(own.max()), 4)} at"
        text += " the worst."
    floors = evidence.pointwise.floor[evidence.pointwise.floor.isfinite()]
    if evidence.linear and floors.numel():
        floor, count = median(floors), out_of(len(floors), len(evidence.pointwise.floor))
        if floor <= error.rounding:
            text += f" The bound ends at x̄, to rounding, for {count}."
            return Finding("projector error δ", "measured", text)
        text += (
            f" With it the bound promises no better than ‖x_n − x̄‖² ≤ {at_least(floor)} "
            f"({at_least(floor / n, 2)} per pixel; median over {count}, where "
            "the bound converges)."
        )
    return Finding("projector error δ", "measured", text)


def _iterates(evidence: Evidence) -> Finding:
    solution, observed = evidence.solution, evidence.uniform.observed
    if evidence.linear:
        text = evidence.uniform.observation()
    else:
        text = f"The objective {observed.status}."
    without = [reason for reason in observed.reasons if reason]
    if without and len(without) < len(observed.reasons):
        count = out_of(len(without), len(observed.reasons))
        why = "because" if len(without) == 1 else "for the first because"
        text += f" No rate is seen for {count}, {why} {without[0]}."
    diverged = solution.outcomes.count("diverged")
    if diverged:
        text += " " + sentence(
            f"{out_of(diverged, len(solution.outcomes))} diverged: the objective is not finite, or "
            "100 times above its start and ‖y‖²"
        )
    assert solution.iterates is not None
    return Finding("what the iterates did", "measured", f"{text} {_rest(solution.iterates)}")


def periods(
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"],
) -> list[int | None]:
    """Of every image the least p at which its last two iterates repeat those p steps before.

    1 is rest; None where nothing repeats within half the run. "Repeats" means within REST ‖x_N‖.
    """
    n_iter, batch = len(iterates) - 1, iterates.shape[1]
    allowed = REST * norm(iterates[-1])
    found: list[int | None] = [None] * batch
    for p in range(max(1, n_iter // 2), 0, -1):
        back = norm(iterates[-1] - iterates[-1 - p]) <= allowed
        if p > 1:
            back &= norm(iterates[-2] - iterates[-2 - p]) <= allowed
        found = [p if repeats else old for repeats, old in zip(back.tolist(), found, strict=True)]
    return found


def _rest(iterates: torch.Tensor) -> str:
    """Which images came to rest, which circle, and how far the others still move."""
    found, counts = periods(iterates), Counter(periods(iterates))
    batch, n_iter = len(found), len(iterates) - 1
    after = f"after {n_iter} iteration{'s' * (n_iter != 1)}"
    if counts[1] == batch:
        verb = "is" if batch == 1 else "are"
        return sentence(f"{after} {out_of(batch, batch)} {verb} at rest")
    parts = [] if counts[None] == batch else [f"{after} {out_of(counts[1], batch)} came to rest"]
    circling = sorted((p, count) for p, count in counts.items() if p is not None and p > 1)
    parts += [f"{count} {_verb(count, 'go')} round with period {p}" for p, count in circling]
    if counts[None]:
        moving = torch.tensor([p is None for p in found], device=iterates.device)
        change = (norm(iterates[-1] - iterates[-2]) / norm(iterates[-1]))[moving]
        low, high = float(change.min()), float(change.max())
        move = _verb(counts[None], "move")
        who = counts[None] if parts else f"{after} {out_of(batch, batch)}"
        parts.append(f"{who} still {move}, in the last step by {spread(low, high)} of their length")
    return sentence(", ".join(parts))


def _verb(count: int, word: str) -> str:
    if count != 1:
        return word
    return word + ("es" if word.endswith("o") else "s")


def _bounds(evidence: Evidence) -> Finding:
    uniform, own = evidence.uniform, evidence.pointwise
    verdict = "holds" if uniform.holds and own.holds else "exceeded"
    if verdict == "holds" and not bool(((uniform.rate < 1) | (own.rate < 1)).any()):
        verdict = "void"
    text = f"With the uniform constants, {_continued(uniform.comparison())} With each image's own, "
    text += _continued(own.comparison())
    falling = own.rate < 1
    if falling.any():
        last, seen = median(own.bound[-1][falling]), median(own.objective[-1][falling])
        text += (
            f" Its own bound converges for {out_of(int(falling.sum()), len(falling))}; it ends at "
            f"{about(last)} where the objective ends at {about(seen)} (medians)."
        )
    return Finding("bound against iterates", verdict, text)


def _continued(text: str) -> str:
    """A sentence to end another with."""
    return text[0].lower() + text[1:]


def _slack(evidence: Evidence) -> Finding:
    subject, parts, negative = "where the bound loses", [], False
    slack, rounding = evidence.uniform.slack, 1e-24 * evidence.rec.beta_certain
    if float(slack.gap[-1].sum()) <= rounding * float(evidence.target.double().square().sum()):
        return Finding(subject, "measured", "The bound ends at the objective, to rounding.")
    for name, check in (("uniform", evidence.uniform), ("each image's own", evidence.pointwise)):
        shares = {key: float(value[-1]) for key, value in check.slack.shares().items()}
        if all(math.isfinite(share) for share in shares.values()):
            split = ", ".join(
                f"{round(100 * share)} % {GREEK[key]}"
                for key, share in shares.items()
                if round(100 * share)
            )
            parts.append(f"{split} with {name} constants")
            negative |= min(shares.values()) < -0.005
    if not parts:
        return Finding(subject, "measured", "There is no finite slack to split.")
    text = f"The slack at the end, bound minus objective, is {'; '.join(parts)}."
    if negative:
        text += " A negative part belongs to an assumption that the iterates broke."
    return Finding(subject, "measured", text)


def _recovery(evidence: Evidence) -> Finding:
    solution, n = evidence.solution, evidence.operator["n"]
    assert solution.error is not None
    errors = solution.error[-1].cpu()
    finite = errors.isfinite()
    if not finite.any():
        return Finding("recovery", "measured", "No image has a finite error at the end.")
    text = f"The run's error per pixel is {about(float(errors[finite].mean()))}"
    text += f", {decibels(errors[finite])} (means)."
    if not finite.all():
        text += f" It is not finite for {out_of(int((~finite).sum()), len(finite))}."
    if not bool(evidence.inside.all()):
        near = evidence.distance / n
        text += f" The best points of S found have {about(float(near.mean()))}, {decibels(near)}."
    return Finding("recovery", "measured", text)


def _identity(evidence: Evidence) -> Finding:
    subject, worst = "one-step identity", evidence.broken_by
    if worst <= LINEAR:
        text = sentence(evidence.uniform.decomposition.status)
        probes = max(evidence.operator["linearity_error"], evidence.operator["adjoint_error"])
        text += f" A is linear and Aᵀ its transpose on random probes (to {at_most(probes, 2)})."
        return Finding(subject, "met", text)
    text = (
        f"A is linear, Aᵀ its transpose and the identity closed to a relative {at_most(worst, 2)}, "
        "as in float32: nothing here is more exact than that."
    )
    if evidence.operator.get("precision") == "float32":
        text += " A is of another library and computes in float32; give it in float64 if it can."
    return Finding(subject, "low precision", text)


def _failed(evidence: Evidence) -> Finding:
    """The precondition that failed, and what is therefore not said."""
    operator, reasons = evidence.operator, []
    if not operator["linearity_error"] <= LOW_PRECISION:
        error = about(operator["linearity_error"], 2)
        reasons.append(f"A is not linear (A(a x + b z) is off a A x + b A z by a relative {error})")
    if not operator["adjoint_error"] <= LOW_PRECISION:
        error = about(operator["adjoint_error"], 2)
        reasons.append(
            f"Aᵀ is not the transpose of A (⟨A x, y⟩ and ⟨x, Aᵀ y⟩ differ by a relative {error})"
        )
    if not reasons:
        reasons.append(evidence.uniform.decomposition.status)
    text = sentence(", and ".join(reasons))
    text += " The constants, the step size, the bound and every comparison with it rest on this and"
    text += " are not stated."
    return Finding("A is linear and Aᵀ its transpose", "not met", text)
