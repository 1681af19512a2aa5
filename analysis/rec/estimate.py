"""Restricted eigenvalue constants of an operator on the range of a generator.

REC(S, α, β) asks for  α‖s‖² ≤ ‖A s‖² ≤ β‖s‖²  for every secant s = x₁ − x₂ of S = range(G) (Raj,
Li, Bresler, ICCV 2019, definition 2). Evaluating directions cannot prove such constants: what it
finds is one-sided, and stays so after rounding. The true α is at most the one reported, the true β
at least, so that the true κ = β/α is at least the one reported. Three looks, each by itself:

- secants: all pairs of samples;
- tangents: limits of secants, through the Jacobian of G;
- search: descent from the worst of both.

The proof of Theorem 1 uses α only on pairs (x, x*). So every x* has its own

    α(x*) = inf over x in S of ‖A(x − x*)‖²/‖x − x*‖²  ≥  α,

which the same looks measure. For affine and finite sets the constants are computed exactly. Where a
tangent space has more dimensions than A has measurements, α = 0 and κ = ∞ are certain.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.memory import ACTIVE, GRAPH, fitting, memory_of, release, state
from analysis.rec.coverage import Independent, independent
from analysis.rec.looks import (
    look_at_pairs,
    look_at_secants,
    look_at_tangents,
    look_by_search,
)
from analysis.rec.pair import Pair, Plan, Sample
from analysis.rec.pointwise import given_points, pointwise_constants
from analysis.rec.results import Look, PointwiseRec, RecEstimate, kappa
from analysis.rec.search import STARTS_PER_TASK
from analysis.rec.secants import Histogram, histogram_edges
from analysis.rec.settings import RecSettings
from analysis.rec.tangents import JACOBIANS, TangentScan, TangentSpace
from analysis.tasks import LATENT_CHUNK, check_executor
from analysis.words import at_least, exactly
from npgd import checks
from npgd.images import Images
from npgd.precision import plainly


@plainly
def estimate_rec(
    A: Any,
    prior: Any,
    settings: RecSettings | None = None,
    *,
    pairs: tuple[Images, Images] | None = None,
    z_true: Float[torch.Tensor, "count k"] | None = None,
    x_true: Images | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
    memory: int | str | None = None,
    **changes: Any,
) -> RecEstimate:
    """Restricted eigenvalue constants of A on S, by three looks, and per image.

    A look that the set does not offer (tangents of a finite set) is skipped, as its `status` says.
    All ratios reported are computed in float64, from the prior and the operator in float64, and
    enclosed (`analysis.rec.rounding`).

    Args:
        A: an operator; A(x) maps images to (batch, m).
        prior: S. With `generate`, `latent_dim` and `image_shape`, range(G); an `AffineSet` or a
            `FiniteSet`, whose constants are computed exactly; or images (N, *image_shape) of S.
        settings: how hard to look, and where; `RecSettings.of(effort)` has three of them.
        pairs: (x1, x2), secants x1[i] − x2[i] to look at instead; taken for independent.
        z_true: latents of the x* whose own α(x*) is wanted.
        x_true: the x* themselves if no latents are known; their tangents are then not looked at.
        seed: of the samples. With one seed, fewer points are the first of more.
        executor: runs the tasks, by default threads; the result does not depend on it.
        progress: show progress bars, and before them how much memory the work needs.
        memory: most bytes that are taken beside what the process holds before, or "2 GB": fewer
            samples, tangents and searches at a time; fewer samples where they would take more than
            a fifth of it. Copies of the set and A in float64 count. In other processes it bounds a
            task.
        changes: fields of `RecSettings` that differ from `settings`.

    Raises:
        TypeError: for a `prior` that is no set, or a keyword that is no setting.
        ValueError: for arguments out of range, for G(z) or A(x) that are not finite, and for a set
            without a direction to look at, such as that of a constant G.
    """
    began = time.perf_counter()
    _examine(settings, pairs, seed, executor, progress)
    if z_true is not None and x_true is not None:
        raise ValueError("x_true must be None where z_true is given, got both")
    chosen = _changed(settings or RecSettings(), changes)
    pair = Pair(A, prior)
    radius = chosen.latent_radius or (math.sqrt(pair.latent_dim) + 3)
    bound = memory_of(memory)
    pair.limit(bound)
    chosen = _within(pair, chosen, pair.bound)
    plan = Plan(chosen, seed, executor, progress, radius, pair.bound)
    if pair.generates:
        need = pair.copies + _need(pair, chosen, pair.bound)
        state("estimate_rec", need, bound, progress)
    sample = pair.sample(plan)
    apart = independent(pair, sample, pairs, seed) if "secants" in chosen.looks else None
    results, histogram, tangent = _look(pair, sample, pairs, apart, plan)
    exact = pair.exact()
    alpha, beta = exact or _extremes(results)
    pointwise = None
    if z_true is not None or x_true is not None:
        points = given_points(pair, z_true, x_true, tuple(sample.images.shape[1:]))
        pointwise = pointwise_constants(pair, sample, points, (alpha, beta), plan)
        if z_true is not None and exact is None:
            # Secants at a point of S are secants of S.
            alpha = min(alpha, float(pointwise.alpha.min()))
    # On a finite set all secants are known: nothing is left to confidence.
    sampled = apart if pair.kind != "finite" or pairs is not None else None
    return RecEstimate(
        alpha=alpha,
        beta=beta,
        exact=exact is not None,
        beta_certain=1.0 if pair.orthonormal else pair.norm**2,
        looks=results,
        confidence=None if sampled is None else sampled.statement(chosen.epsilon),
        histogram=histogram,
        pointwise=pointwise,
        tangent_alpha=None if tangent is None else tangent.low,
        tangent_beta=None if tangent is None else tangent.high,
        tangent_rank=None if tangent is None else tangent.rank,
        latent_radius=radius if pair.generates else None,
        status=_verdict(alpha, beta, exact is not None, results, pointwise),
        seconds=time.perf_counter() - began,
    )


def _examine(
    settings: object, pairs: object, seed: object, executor: object, progress: object
) -> None:
    """The door, but for A, the prior and the images, which `Pair` and the looks examine."""
    if not isinstance(settings, RecSettings | None):
        raise TypeError(f"settings must be RecSettings or None, got {checks.shown(settings)}")
    checks.seed(seed)
    checks.flag(progress, "progress")
    check_executor(executor)
    if pairs is None:
        return
    if not isinstance(pairs, tuple | list) or len(pairs) != 2:
        raise TypeError(f"pairs must be (x1, x2), images of S, got {checks.shown(pairs)}")
    for images in pairs:
        checks.finite(checks.floating(images, "pairs"), "pairs")


def _within(pair: Pair, settings: RecSettings, bound: int | None) -> RecSettings:
    """The settings with no more samples than a fifth of the bound holds."""
    if bound is None or not pair.generates:
        return settings
    size = pair.n * pair.dtype.itemsize
    return replace(settings, points=max(2, fitting(bound / 5, size, settings.points)))


def needed(A: Any, prior: Any, settings: RecSettings, bound: int | None) -> float:
    """Bytes that `estimate_rec` needs for a set with a generator; 0 for any other."""
    pair = Pair(A, prior)
    if not pair.generates:
        return 0.0
    pair.limit(bound)
    return pair.copies + _need(pair, _within(pair, settings, pair.bound), pair.bound)


def _need(pair: Pair, settings: RecSettings, bound: int | None) -> float:
    """Bytes: of the samples and of what is done with them, whichever takes most."""
    threads = torch.get_num_threads()
    held = settings.points * pair.n * pair.dtype.itemsize
    rows, one = pair.rows(bound), pair.footprint
    alone = 1 if rows < LATENT_CHUNK else threads
    needs: list[float] = [held + ACTIVE * min(rows, settings.points) * one.largest * alone]
    if "secants" in settings.looks:
        needs.append(4 * held)
    if "tangents" in settings.looks:
        space = TangentSpace(pair.n, pair.latent_dim, pair.dtype.itemsize, one)
        each = space.need(space.directions(None if bound is None else int(bound - held)))
        times = threads if bound is None else fitting(bound - held, each, threads)
        needs.append(held + times * max(each, 8 * 2 * JACOBIANS))
    if "search" in settings.looks:
        starts = STARTS_PER_TASK
        if bound is not None:
            starts = one.searching((bound - held) / 2, STARTS_PER_TASK)
        needs.append(held + 2 * GRAPH * starts * one.total)
    return max(needs)


def _changed(settings: RecSettings, changes: Mapping[str, Any]) -> RecSettings:
    known = [field.name for field in fields(RecSettings)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise TypeError(
            f"keywords must be fields of RecSettings ({', '.join(known)}), got {', '.join(unknown)}"
        )
    return replace(settings, **changes)


def _look(
    pair: Pair,
    sample: Sample,
    pairs: tuple[Images, Images] | None,
    apart: Independent | None,
    plan: Plan,
) -> tuple[dict[str, Look], Histogram | None, TangentScan | None]:
    """What every look found, and what of it lies beside the extremes."""
    looks = plan.settings.looks
    results: dict[str, Look] = {}
    secants, histogram, tangent = None, None, None
    if apart is not None and pairs is None:
        results["secants"], secants = look_at_secants(pair, sample, plan)
        histogram = None if secants is None else secants.histogram
    elif apart is not None:
        assert pairs is not None
        results["secants"] = look_at_pairs(pair, pairs, apart.ratio)
        ratios = apart.ratio[np.isfinite(apart.ratio)]
        edges = histogram_edges(ratios, plan.settings.bins)
        histogram = Histogram(edges, np.histogram(ratios, edges)[0], 0, 0)
    if plan.memory is not None:
        release()
    if "tangents" in looks:
        results["tangents"], tangent = look_at_tangents(pair, sample, plan)
    if plan.memory is not None:
        release()
    if "search" in looks:
        results["search"] = look_by_search(pair, sample, secants, tangent, plan)
    return results, histogram, tangent


def _extremes(results: Mapping[str, Look]) -> tuple[float, float]:
    """The least α and the largest β that any look found."""
    there = [look for look in results.values() if math.isfinite(look.alpha)]
    if not there:
        why = "; ".join(f"{look.name} {look.status}" for look in results.values())
        raise ValueError(
            "looks must find a direction of the set (prior), got none:"
            f" {why or 'no look was asked for'}"
        )
    return min(look.alpha for look in there), max(look.beta for look in there)


def _verdict(
    alpha: float,
    beta: float,
    exact: bool,
    looks: Mapping[str, Look],
    pointwise: PointwiseRec | None,
) -> str:
    value = kappa(beta, alpha)
    if math.isnan(value):
        return "κ = β/α has no value: A maps every direction looked at to 0"
    if exact:
        side = "<" if value < 2 else "≥"
        return f"κ {side} 2: it is {exactly(value, 2)} exactly"
    if math.isinf(value):
        return (
            "κ ≥ 2: α = 0 and κ = ∞ are certain, since a tangent space has more dimensions than A"
            " has measurements"
        )
    if value < 2:
        total = sum(look.n_directions for look in looks.values())
        return (
            f"κ < 2 is not contradicted: {at_least(value, 4)} over {total:,} directions, a lower"
            " bound on the true κ"
        )
    for look in looks.values():
        if look.kappa >= 2:
            return (
                f"κ ≥ 2: the {look.name} already give {at_least(look.kappa, 4)} (all looks"
                f" {at_least(value, 4)}); Theorem 1 does not apply uniformly"
            )
    together = "all looks together give" if pointwise is None else "all looks and images give"
    return f"κ ≥ 2: {together} {at_least(value, 4)}; Theorem 1 does not apply uniformly"
