"""Search for the secants of range(G) that an operator stretches least or most.

Adam on log ||A(G(z1) - G(z2))||^2 / ||G(z1) - G(z2)||^2, many starts at once, over

    z1 = clip(c + exp(s) v / |v|),   z2 = clip(c - exp(s) v / |v|),

clip the projection onto the ball ||z|| <= radius. The midpoint c, the direction v and the logarithm
s of the half distance keep the steps well scaled when a pair collapses onto a tangent, which the
worst pairs do; s is bounded below where rounding would take over. With one end given, x* = G(z*)
or any image, z1 = clip(z* + exp(s) v / |v|) moves and the other end stays.

Whatever the search ends with is a pair of latents; its ratio is computed anew in float64, so that
it is the ratio of an actual secant and can only err on the safe side.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float

from analysis.tasks import generate, in_order, one_thread
from analysis.tasks import with_progress as _with_progress
from npgd.images import ratio
from npgd.precision import converted, precision

STARTS_PER_TASK = 16
LEARNING_RATE = 0.05
# Half distance in the latent space at which the rounding of G(z1) - G(z2) is still small.
CLOSEST = {torch.float32: 1e-2, torch.float64: 1e-5}


@dataclass(frozen=True)
class Found:
    """End points of the search and their ratios in float64; `z_second` is None for given x*."""

    ratio: Float[torch.Tensor, " count"]
    z_first: Float[torch.Tensor, "count k"]
    z_second: Float[torch.Tensor, "count k"] | None
    n_evaluations: int


def search_pairs(
    operator: Any,
    prior: Any,
    z_first: Float[torch.Tensor, "count k"],
    z_second: Float[torch.Tensor, "count k"],
    largest: Bool[torch.Tensor, " count"],
    *,
    radius: float,
    steps: int,
    executor: Executor | None = None,
    progress: bool = False,
) -> Found:
    """From each start (z_first, z_second), lower the ratio, or raise it where `largest`.

    Never worse than the start once that is within the radius.
    """
    parts = STARTS_PER_TASK
    tasks = list(
        zip(z_first.split(parts), z_second.split(parts), largest.split(parts), strict=True)
    )
    arguments = ((operator, prior, a, b, up, None, radius, steps) for a, b, up in tasks)
    return _collect(arguments, len(tasks), executor, progress, "search")


def search_from(
    operator: Any,
    prior: Any,
    z_start: Float[torch.Tensor, "count k"],
    x_true: Float[torch.Tensor, "count ..."],
    z_true: Float[torch.Tensor, "count k"] | None,
    *,
    radius: float,
    steps: int,
    executor: Executor | None = None,
    progress: bool = False,
) -> Found:
    """From each start z, lower the ratio of the secant G(z) - x*, x* given (with its latent)."""
    parts = STARTS_PER_TASK
    centre = torch.zeros_like(z_start) if z_true is None else z_true
    tasks = list(zip(z_start.split(parts), centre.split(parts), x_true.split(parts), strict=True))
    arguments = (
        (operator, prior, a, c, torch.zeros(len(a), dtype=torch.bool), x, radius, steps)
        for a, c, x in tasks
    )
    return _collect(arguments, len(tasks), executor, progress, "search from x*")


def _collect(
    arguments: Any, total: int, executor: Executor | None, progress: bool, what: str
) -> Found:
    results = in_order(_task, arguments, executor)
    parts = list(_with_progress(results, total, what, progress))
    seconds = [part.z_second for part in parts if part.z_second is not None]
    return Found(
        torch.cat([part.ratio for part in parts]),
        torch.cat([part.z_first for part in parts]),
        torch.cat(seconds) if seconds else None,
        sum(part.n_evaluations for part in parts),
    )


def _clip(z: torch.Tensor, radius: float) -> torch.Tensor:
    norm = z.norm(dim=1, keepdim=True)
    return z * (radius / norm.clamp_min(radius))


def _task(
    operator: Any,
    prior: Any,
    z_first: torch.Tensor,
    z_second: torch.Tensor,
    largest: torch.Tensor,
    x_true: torch.Tensor | None,
    radius: float,
    steps: int,
) -> Found:
    with one_thread():
        return _adam(operator, prior, z_first, z_second, largest, x_true, radius, steps)


def _adam(
    operator: Any,
    prior: Any,
    z_first: torch.Tensor,
    z_second: torch.Tensor,
    largest: torch.Tensor,
    x_true: torch.Tensor | None,
    radius: float,
    steps: int,
) -> Found:
    dtype = precision(prior)
    measure = converted(operator, dtype, "cpu")
    closest = math.log(CLOSEST.get(dtype, 1e-2))
    first, second = _clip(z_first.double(), radius), _clip(z_second.double(), radius)
    if x_true is None:
        centre, arm = (first + second) / 2, (first - second) / 2
        fixed = None
    else:
        centre, arm = z_second.double(), first - z_second.double()
        fixed = x_true.to(dtype)
    length = arm.norm(dim=1, keepdim=True)
    # Equal latents have no direction: any will do.
    direction = torch.where(length > 0, arm / length, torch.ones_like(arm) / arm.shape[1] ** 0.5)
    c = centre.to(dtype).requires_grad_(fixed is None)
    v = direction.to(dtype).requires_grad_(True)
    s = length.clamp_min(math.exp(closest)).log().to(dtype).requires_grad_(True)
    sign = torch.where(largest, -1.0, 1.0).to(dtype)

    def ends() -> tuple[torch.Tensor, torch.Tensor | None]:
        arm = s.exp() * v / v.norm(dim=1, keepdim=True)
        return _clip(c + arm, radius), _clip(c - arm, radius) if fixed is None else None

    optimiser = torch.optim.Adam([p for p in (c, v, s) if p.requires_grad], lr=LEARNING_RATE)
    best = torch.full((len(c),), torch.inf, dtype=dtype)
    best_first, best_second = first.to(dtype), second.to(dtype)
    with torch.enable_grad():
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            one, two = ends()
            if two is None:
                assert fixed is not None
                difference = prior.generate(one) - fixed
            else:
                images = prior.generate(torch.cat([one, two]))
                difference = images[: len(one)] - images[len(one) :]
            square = difference.flatten(1).square().sum(dim=1)
            value = sign * (measure(difference).square().sum(dim=1).log() - square.log())
            better = torch.isfinite(value) & (value < best)
            best = torch.where(better, value, best).detach()
            best_first = torch.where(better[:, None], one, best_first).detach()
            if two is not None:
                best_second = torch.where(better[:, None], two, best_second).detach()
            # A pair whose images coincide has no gradient; leave it where it is.
            loss = torch.where(torch.isfinite(value), value, torch.zeros_like(value)).sum()
            optimiser.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in (c, v, s):
                    if p.grad is not None:
                        p.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            optimiser.step()
            with torch.no_grad():
                v /= v.norm(dim=1, keepdim=True)
                s.clamp_(min=closest)
    return _keep_better(
        operator, prior, (first, best_first.double()), (second, best_second.double()), largest,
        x_true, steps,
    )  # fmt: skip


def _keep_better(
    operator: Any,
    prior: Any,
    firsts: tuple[torch.Tensor, torch.Tensor],
    seconds: tuple[torch.Tensor, torch.Tensor],
    largest: torch.Tensor,
    x_true: torch.Tensor | None,
    steps: int,
) -> Found:
    """Start or end of the search, whichever has the better ratio in float64."""
    operator, prior = (
        converted(operator, torch.float64, "cpu"),
        converted(prior, torch.float64, "cpu"),
    )
    dtype = precision(prior)
    ratios = []
    for one, two in zip(firsts, seconds, strict=True):
        other = generate(prior, two.to(dtype)).double() if x_true is None else x_true.double()
        ratios.append(ratio(operator, generate(prior, one.to(dtype)).double() - other))
    start, end = ratios
    improved = torch.where(largest, end > start, end < start) | torch.isnan(start)
    pick = improved[:, None]
    return Found(
        torch.where(improved, end, start),
        torch.where(pick, firsts[1], firsts[0]),
        torch.where(pick, seconds[1], seconds[0]) if x_true is None else None,
        n_evaluations=(steps + 1) * len(largest),
    )
