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
    sentences: tuple[str, ...]
    """What was found, a fact each."""

    @property
    def text(self) -> str:
        """The sentences, as a paragraph."""
        return " ".join(self.sentences)

    def __str__(self) -> str:
        return f"{self.subject}: {self.verdict}. {self.text}"


def _found(subject: str, verdict: str, *sentences: str) -> Finding:
    """A finding, of the sentences that are there."""
    return Finding(subject, verdict, tuple(said for said in sentences if said))


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
    kappa, promise = float(check.kappa.max()), _promise(evidence)
    if rec.exact:
        constants = f"α = {about(alpha, 4)}, β = {about(beta, 4)}: κ = β/α = {exactly(kappa, 2)}"
        said = f"The exact constants of this set are {constants}."
        return _found(subject, "met" if kappa < 2 else "not met", said, promise)
    if math.isinf(kappa):
        said = "A does not see some direction of S, to rounding: α = 0, κ = β/α = ∞."
        return _found(subject, "not met", said, promise)
    looks, whole = _looks(evidence), at_least(kappa)
    constants = f"That is with α ≤ {at_most(alpha)} and β ≥ {at_least(beta)}."
    most = max(looks, key=lambda words: looks[words])
    by = at_least(looks[most]) == whole
    if kappa < 2:
        said = f"The largest κ = β/α found is {exactly(kappa, 2, 3)}{f', by {most}' * by}."
        more = "Directions not looked at may have more."
        return _found(subject, "not contradicted", said, constants, more, promise)
    first = next((words for words, value in looks.items() if value >= 2), None)
    if first is None:
        why = "No look by itself gives κ = β/α ≥ 2, but α of one with β of another does."
    else:
        why = f"κ = β/α ≥ {at_least(looks[first])} by {first} alone." * (first != most)
    said = f"In all, κ ≥ {whole}{f', by {most}' * by}."
    return _found(subject, "not met", why, said, constants, promise)


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
    """What the bound does at this step with the constants of all of S."""
    rate, at = float(evidence.uniform.rate.max()), f"at η = {about(evidence.uniform.step_size)}"
    if not rate < 1:
        return f"The bound with these constants is void: {at} it does not fall."
    if rate < 1e-12:
        return f"The bound with these constants falls to its end in one step {at}."
    if evidence.rec.exact:
        factor = f"by a factor {exactly(rate, 1, 3)} per step"
    else:
        factor = f"by a factor no better than {at_least(rate)} per step"
    return f"The bound with these constants falls {at}, {factor}."


def _pointwise_contraction(evidence: Evidence) -> Finding:
    rec, check, subject = evidence.rec, evidence.pointwise, "β/α(x*) < 2, image by image"
    kappa = check.kappa
    low, high = float(kappa.min()), float(kappa.max())
    batch, good, void = len(kappa), int((kappa < 2).sum()), int((~(check.rate < 1)).sum())
    exact = rec.exact and rec.pointwise is not None and rec.pointwise.exact
    if exact:
        ends = list(dict.fromkeys([exactly(low, 2, 3), exactly(high, 2, 3)]))
        said = [
            f"κ(x*) is {' to '.join(ends)}, exactly.",
            f"It is below 2 for {out_of(good, batch)}.",
        ]
    else:
        least, worst = at_least(low), at_least(high)
        bound = "" if math.isinf(low) else "at least "
        said = [f"κ(x*) is {bound}{least}{f', of the worst image {worst}' * (worst != least)}."]
        said += [f"It is 2 or more for {out_of(batch - good, batch)}."] * (good < batch)
        said += [f"No direction found contradicts κ(x*) < 2 for {out_of(good, batch)}."] * (
            good > 0
        )
        said += ["α(x*) and β are the extremes found, and others may exist."]
    said += [f"The bound is void for {out_of(void, batch)}."] * (void > 0)
    if good == batch:
        return _found(subject, "met" if exact else "not contradicted", *said)
    return _found(subject, "not met", *said)


def _step_size(evidence: Evidence) -> Finding:
    rec, eta = evidence.rec, evidence.uniform.step_size
    beta = float(evidence.uniform.beta.max())
    subject, said = "step size η ≤ 1/β", f"η = {about(eta, 4)}."
    if rec.exact and eta * beta <= ROUNDING:
        return _found(subject, "met", said, f"1/β = {about(1 / beta, 4)}.")
    if not rec.exact and eta * rec.beta_certain <= ROUNDING:
        certain = f"1/β is at least as long: β ≤ ‖A‖² = {about(rec.beta_certain, 4)}."
        return _found(subject, "met", said, certain)
    if not rec.exact and eta * beta <= ROUNDING:
        return _found(
            subject,
            "not contradicted",
            said,
            f"That is at most 1/β with the largest β found, {about(beta, 4)}.",
            "Directions not looked at may have more.",
            f"Only η ≤ {at_least(1 / rec.beta_certain)} = 1/‖A‖² would be certain.",
        )
    sign = "=" if rec.exact else "≤"
    limit = (about if rec.exact else at_most)(1 / beta, 4)
    longer = f"That exceeds 1/β {sign} {limit}."
    return _found(subject, "not met", said, longer, "The bound is the one for longer steps.")


def _membership(evidence: Evidence) -> Finding:
    start = evidence.uniform.start
    inside, batch = evidence.inside, len(evidence.inside)
    held = int(inside.sum())
    said = []
    if held:
        said.append(sentence(f"{out_of(held, batch)} {_verb(held, 'lie')} in S"))
    if held < batch:
        said += _outside(evidence)
    if start == 0:
        said.append("x_0 = P(Aᵀy) lies in S.")
    else:
        said += ["x_0 = Aᵀy need not lie in S.", "So every statement begins at x_1."]
    if evidence.linear:
        said += _noise(evidence)
    if held == batch:
        verdict = "met" if start == 0 else "x* yes, x_0 open"
    else:
        verdict = "not met" if bool((evidence.nearest & ~inside).any()) else "not found"
    return _found("x* and x_0 in S", verdict, *said)


def _outside(evidence: Evidence) -> list[str]:
    """How far the images lie from S that are not known to lie in it."""
    outside, n = ~evidence.inside, evidence.operator["n"]
    far, count = evidence.distance[outside], out_of(int(outside.sum()), len(outside))
    reach = f"‖x* − x̄‖² = {spread(float(far.min()), float(far.max()))} there"
    pixels = f"{about(float(far.mean()) / n)} per pixel on average"
    if bool(evidence.nearest[outside].all()):
        first = [sentence(f"{count} {_verb(int(outside.sum()), 'lie')} outside S")]
    else:
        first = [f"For {count} no point of S nearer than x̄ was found."]
        first += ["The search may miss a nearer one."]
    return [*first, f"{reach}, {pixels}."]


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
    delta, count = error.delta, len(error.deltas)
    if delta <= error.rounding:
        said = [f"δ = 0 to rounding, at {out_of(count, count, 'point')}."]
    else:
        worst = max(error.families, key=lambda name: error.families[name].delta)
        said = [
            f"δ ≥ {at_least(delta, 4)}, or {at_least(delta / n)} per pixel.",
            f"That is the worst of {count} points; it is among {worst}.",
        ]
    said.append("Other points may have more.")
    if not error.exact:
        said.append(f"The nearest points are by {error.method}, which can miss nearer ones.")
    own = error.families[OWN].deltas.clamp_min(0)
    if float(own.max()) > error.rounding:
        said.append(f"On {OWN} it is {about(median(own))} (median)")
        said[-1] += f", {at_least(float(own.max()), 4)} at the worst."
    floors = evidence.pointwise.floor[evidence.pointwise.floor.isfinite()]
    if evidence.linear and floors.numel():
        floor, whose = median(floors), out_of(len(floors), len(evidence.pointwise.floor))
        if floor <= error.rounding:
            said.append(f"The bound ends at x̄, to rounding, for {whose}.")
        else:
            said += [
                f"The bound converges for {whose}.",
                f"It promises no better there than ‖x_n − x̄‖² ≤ {at_least(floor)} (median), or "
                f"{at_least(floor / n, 2)} per pixel.",
            ]
    return _found("projector error δ", "measured", *said)


def _iterates(evidence: Evidence) -> Finding:
    solution, observed = evidence.solution, evidence.uniform.observed
    said = list(evidence.uniform.observation() if evidence.linear else observed.sentences)
    without = [i for i, reason in enumerate(observed.reasons) if reason]
    if without and len(without) < len(observed.reasons):
        said.append(f"No rate is seen for {out_of(len(without), len(observed.reasons))}.")
        said.append(f"Of image {without[0]}, {observed.reasons[without[0]]}.")
    diverged = solution.outcomes.count("diverged")
    if diverged:
        said += [
            sentence(f"{out_of(diverged, len(solution.outcomes))} diverged"),
            "The objective is not finite there, or 100 times above its start and ‖y‖².",
        ]
    assert solution.iterates is not None
    return _found("what the iterates did", "measured", *said, _rest(solution.iterates))


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
    said = [
        *uniform.comparison("the bound with the constants of all of S"),
        *own.comparison("the bound with each image's own constants"),
    ]
    falling = own.rate < 1
    if falling.any():
        last, seen = median(own.bound[-1][falling]), median(own.objective[-1][falling])
        said.append(f"Where that falls, it ends at {about(last)} (median).")
        said.append(f"The objective ends at {about(seen)} there.")
    return _found("bound against iterates", verdict, *dict.fromkeys(said))


def _slack(evidence: Evidence) -> Finding:
    subject, said, negative = "where the bound loses", [], False
    slack, rounding = evidence.uniform.slack, 1e-24 * evidence.rec.beta_certain
    if float(slack.gap[-1].sum()) <= rounding * float(evidence.target.double().square().sum()):
        return _found(subject, "measured", "The bound ends at the objective, to rounding.")
    checks = {"the constants of all of S": evidence.uniform, "each image's own": evidence.pointwise}
    for name, check in checks.items():
        shares = {key: float(value[-1]) for key, value in check.slack.shares().items()}
        if not all(math.isfinite(share) for share in shares.values()):
            continue
        parts = [f"{GREEK[key]} {round(100 * share)} %" for key, share in shares.items()]
        split = ", ".join(part for part in parts if not part.endswith(" 0 %"))
        said.append(f"With {name}: {split}.")
        negative |= min(shares.values()) < -0.005
    if not said:
        return _found(subject, "measured", "There is no finite slack to split.")
    first = "In the end the bound stands above the objective, by what each constant costs."
    last = "A negative part belongs to a constant that the run broke." if negative else ""
    return _found(subject, "measured", first, *said, last)


def _recovery(evidence: Evidence) -> Finding:
    solution, n = evidence.solution, evidence.operator["n"]
    assert solution.error is not None
    errors = solution.error[-1].cpu()
    finite = errors.isfinite()
    if not finite.any():
        return _found("recovery", "measured", "No image has a finite error at the end.")
    mean = about(float(errors[finite].mean()))
    said = [f"The run's error per pixel is {mean}, {decibels(errors[finite])} (means)."]
    if not finite.all():
        said.append(f"It is not finite for {out_of(int((~finite).sum()), len(finite))}.")
    if not bool(evidence.inside.all()):
        near = evidence.distance / n
        said.append(f"The best points of S found have {about(float(near.mean()))}")
        said[-1] += f", {decibels(near)}."
    return _found("recovery", "measured", *said)


def _identity(evidence: Evidence) -> Finding:
    subject, worst = "one-step identity", evidence.broken_by
    if worst <= LINEAR:
        probes = max(evidence.operator["linearity_error"], evidence.operator["adjoint_error"])
        return _found(
            subject,
            "met",
            sentence(evidence.uniform.decomposition.status),
            f"A is linear and Aᵀ its transpose on random probes (to {at_most(probes, 2)}).",
        )
    said = [
        f"A is linear, Aᵀ its transpose and the identity closed to a relative {at_most(worst, 2)}.",
        "That is as in float32: nothing here is more exact.",
    ]
    if evidence.operator.get("precision") == "float32":
        said += [
            "A is of another library and computes in float32.",
            "Give it in float64 if it can.",
        ]
    return _found(subject, "low precision", *said)


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
    return _found(
        "A is linear and Aᵀ its transpose",
        "not met",
        *map(sentence, reasons),
        "The constants, the step size and the bound rest on this, and are not stated.",
    )
