"""Restricted eigenvalue constants of an operator on the range of a generator.

REC(S, alpha, beta) asks for  alpha ||s||^2 <= ||A s||^2 <= beta ||s||^2  for every secant
s = x1 - x2 of S = range(G) (Raj, Li, Bresler, ICCV 2019, definition 2). Evaluating directions
cannot prove such constants: what it finds is one-sided, true alpha <= alpha, true beta >= beta, so
that the true kappa = beta / alpha is at least the one reported. Three looks, each by itself:

- secants: all pairs of samples;
- tangents: limits of secants, through the Jacobian of G;
- search: descent from the worst of both.

The proof of Theorem 1 uses alpha only on pairs (x, x*). So every x* has its own

    alpha(x*) = inf over x in S of ||A(x - x*)||^2 / ||x - x*||^2  >=  alpha,

which the same looks measure. For affine and finite sets the constants are computed exactly.
"""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.rec.looks import (
    _distribution_free,
    _histogram,
    _independent,
    _look_at_pairs,
    _look_at_secants,
    _look_at_tangents,
    _search,
)
from analysis.rec.pointwise import _pointwise
from analysis.rec.results import Look, RecEstimate, _quotient
from analysis.rec.settings import LOOKS, RecSettings
from analysis.rec.target import _sample, _Settings, _Target


def estimate_rec(
    A: Any,
    prior: Any,
    settings: RecSettings | None = None,
    *,
    pairs: tuple[torch.Tensor, torch.Tensor] | None = None,
    z_true: Float[torch.Tensor, "count k"] | None = None,
    x_true: Float[torch.Tensor, "count ..."] | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
    **changes: Any,
) -> RecEstimate:
    """Restricted eigenvalue constants of A on S, by three looks, and per image.

    Args:
        A: an operator; A(x) maps images to (batch, m).
        prior: S. With `generate` and `latent_dim`, range(G); an `AffineSet` or a `FiniteSet`, whose
            constants are computed exactly; or images (N, *image_shape), independent draws of S.
        settings: how hard to look, and where; `RecSettings.of(effort)` has three of them.
        pairs: (x1, x2), secants x1[i] − x2[i] to look at instead; taken for independent.
        z_true: latents of the x* whose own α(x*) is wanted.
        x_true: the x* themselves if no latents are known; their tangents are then not looked at.
        seed: of the samples. With one seed, fewer points are the first of more.
        executor: runs the tasks, by default threads; the result does not depend on it.
        progress: show progress bars.
        changes: fields of `RecSettings` that differ from `settings`.

    A look that the set does not offer (tangents of a finite set) is skipped, as its `status` says.
    Raises ValueError for arguments out of range, TypeError for a `prior` that is no set.

    All ratios reported are recomputed in float64, from the prior and the operator in float64.
    """
    began = time.perf_counter()
    unknown = sorted(set(changes) - {field.name for field in fields(RecSettings)})
    if unknown:
        raise TypeError(f"changes must be fields of RecSettings, got {', '.join(unknown)}")
    chosen = replace(settings or RecSettings(), **changes)
    looks, epsilon, bins = chosen.looks, chosen.epsilon, chosen.bins
    if z_true is not None and x_true is not None:
        raise ValueError("z_true, x_true: give one of them")
    target = _Target(A, prior)
    if z_true is not None and not target.generates:
        raise ValueError("z_true: the set has no generator; give x_true")
    run = _Settings(
        chosen.points, chosen.tangent_points, chosen.search_starts, chosen.search_steps,
        chosen.latent_radius or (target.latent_dim**0.5 + 3),
        bins, epsilon, seed, executor, progress,
    )  # fmt: skip
    results: dict[str, Look] = {}
    sample = _sample(target, run)
    confidence, histogram, independent, scan, tangent = None, None, None, None, None
    if "secants" in looks:
        independent = _independent(target, sample, pairs)
        confidence = _distribution_free(independent, epsilon)
    if "secants" in looks:
        if pairs is None:
            results["secants"], scan = _look_at_secants(target, sample, run)
            histogram = scan.histogram
        else:
            results["secants"] = _look_at_pairs(target, pairs)
            assert independent is not None
            histogram = _histogram(independent, bins)
    if "tangents" in looks:
        results["tangents"], tangent = _look_at_tangents(target, sample, run)
    if "search" in looks:
        results["search"] = _search(target, sample, scan, tangent, run)
    actual = [results[name] for name in LOOKS if name in results]
    exact = target.exact()
    if exact is None and not any(np.isfinite(look.alpha) for look in actual):
        raise ValueError("looks: none of them gives a direction of this set")
    alpha, beta = exact or (
        min(look.alpha for look in actual if np.isfinite(look.alpha)),
        max(look.beta for look in actual if np.isfinite(look.beta)),
    )
    pointwise = None
    if z_true is not None or x_true is not None:
        pointwise = _pointwise(target, sample, z_true, x_true, alpha, beta, looks, run)
        if z_true is not None and exact is None:
            # Secants at a point of S are secants of S.
            alpha = min(alpha, float(pointwise.alpha.min()))
    return RecEstimate(
        alpha=alpha,
        beta=beta,
        exact=exact is not None,
        beta_certain=1.0 if target.orthonormal else float(target.double_operator.norm()) ** 2,
        looks=results,
        confidence=confidence,
        histogram=histogram,
        pointwise=pointwise,
        tangent_alpha=None if tangent is None else tangent.low,
        tangent_beta=None if tangent is None else tangent.high,
        tangent_rank=None if tangent is None else tangent.rank,
        latent_radius=run.radius if target.generates else None,
        status=_verdict(alpha, beta, exact is not None, actual),
        seconds=time.perf_counter() - began,
    )


def _verdict(alpha: float, beta: float, exact: bool, looks: list[Look]) -> str:
    kappa = _quotient(beta, alpha)
    if exact:
        side = "<" if kappa < 2 else ">="
        return f"kappa {side} 2: it is {kappa:.4g} exactly"
    if kappa < 2:
        total = sum(look.n_directions for look in looks)
        return (
            f"kappa < 2 is not contradicted: {kappa:.4g} over {total:,} directions, a lower bound"
            " on the true kappa"
        )
    for look in looks:
        if look.kappa >= 2:
            return (
                f"kappa >= 2: the {look.name} already give {look.kappa:.4g}"
                f" (all looks {kappa:.4g}); Theorem 1 does not apply uniformly"
            )
    return f"kappa >= 2: all looks together give {kappa:.4g}; Theorem 1 does not apply uniformly"
