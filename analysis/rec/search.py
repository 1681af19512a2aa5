"""Search for the secants of range(G) that an operator stretches least or most.

Adam on log ‖A(G(z₁) − G(z₂))‖²/‖G(z₁) − G(z₂)‖², many starts at once, over

    z₁ = clip(c + exp(l) v/‖v‖),   z₂ = clip(c − exp(l) v/‖v‖),

clip the projection onto the ball ‖z‖ ≤ radius. The midpoint c, the direction v and the logarithm l
of the half distance keep the steps well scaled when a pair collapses onto a tangent, which the
worst pairs do; l is bounded below where rounding would take over. With one end given, x* = G(z*)
or any image, z₁ = clip(z* + exp(l) v/‖v‖) moves and the other end stays.

Whatever the search ends with is a pair of latents; its ratio is computed anew in float64, so that
it is the ratio of an actual secant and can only err on the safe side. Pairs too short to count (see
`analysis.rec.rounding`) are no ends.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float

from analysis.rec.rounding import ERROR, SHORTEST, unit
from analysis.rec.secants import ratios
from analysis.tasks import generate, in_order, one_thread
from npgd.images import norm, squared_norm
from npgd.precision import converted, precision

STARTS_PER_TASK = 16
LEARNING_RATE = 0.05
# Half distance in the latent space at which the rounding of G(z1) - G(z2) is still small.
CLOSEST = {torch.float32: 1e-2, torch.float64: 1e-5}


@dataclass(frozen=True)
class Found:
    """Where the searches ended."""

    ratio: Float[torch.Tensor, " count"]
    """r in float64; NaN where start and end are too short to count."""
    z_first: Float[torch.Tensor, "count k"]
    """The latent of one end."""
    z_second: Float[torch.Tensor, "count k"] | None
    """The latent of the other; None where that end was given as x*."""
    n_evaluations: int
    """Secants looked at on the way."""


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
    rows: int = STARTS_PER_TASK,
) -> Found:
    """From each start (z_first, z_second), lower the ratio, or raise it where `largest`.

    Never worse than the start once that is within the radius.

    Args:
        operator: A.
        prior: with `generate`.
        z_first: one end of every pair.
        z_second: the other.
        largest: where the ratio is to be raised.
        radius: of the ball that latents stay in.
        steps: of Adam.
        executor: runs the tasks.
        progress: show a bar.
        rows: starts in one task; where these are fewer, to save memory, one thread searches.
    """
    tasks = zip(*(torch.split(part, rows) for part in (z_first, z_second, largest)), strict=True)
    work = [(operator, prior, a, b, up, None, radius, steps) for a, b, up in tasks]
    return _collected(
        in_order(
            _task, work, len(work), "search", executor=executor, progress=progress,
            at_a_time=1 if rows < STARTS_PER_TASK else None,
        )
    )  # fmt: skip


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
    rows: int = STARTS_PER_TASK,
) -> Found:
    """From each start z, lower the ratio of the secant G(z) - x*, x* given (with its latent)."""
    centre = torch.zeros_like(z_start) if z_true is None else z_true
    tasks = zip(*(torch.split(part, rows) for part in (z_start, centre, x_true)), strict=True)
    work = [
        (operator, prior, a, c, torch.zeros(len(a), dtype=torch.bool), x, radius, steps)
        for a, c, x in tasks
    ]
    return _collected(
        in_order(
            _task, work, len(work), "search from x*", executor=executor, progress=progress,
            at_a_time=1 if rows < STARTS_PER_TASK else None,
        )
    )  # fmt: skip


def _collected(parts: list[Found]) -> Found:
    seconds = [part.z_second for part in parts if part.z_second is not None]
    return Found(
        torch.cat([part.ratio for part in parts]),
        torch.cat([part.z_first for part in parts]),
        torch.cat(seconds) if seconds else None,
        sum(part.n_evaluations for part in parts),
    )


def _clip(z: torch.Tensor, radius: float) -> torch.Tensor:
    length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    inside: torch.Tensor = z * (radius / length.clamp_min(radius))
    return inside


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


class _Ends:
    """Pairs of latents by midpoint c, direction v and log half distance l, or with one end given.

    The starts are those given, clipped, but no closer than CLOSEST.
    """

    def __init__(
        self, z_first: torch.Tensor, z_second: torch.Tensor, fixed: bool, radius: float,
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self.fixed, self.radius = fixed, radius
        self.first, self.second = _clip(z_first.double(), radius), _clip(z_second.double(), radius)
        if fixed:
            centre, arm = z_second.double(), self.first - z_second.double()
        else:
            centre, arm = (self.first + self.second) / 2, (self.first - self.second) / 2
        self.closest = math.log(CLOSEST.get(dtype, 1e-2))
        length = arm.norm(dim=1, keepdim=True)
        # Equal latents have no direction: any will do.
        direction = torch.where(
            length > 0, arm / length, torch.ones_like(arm) / arm.shape[1] ** 0.5
        )
        self.centre = centre.to(dtype).requires_grad_(not fixed)
        self.direction = direction.to(dtype).requires_grad_(True)
        shortest = length.clamp_min(math.exp(self.closest))
        self.log_length = shortest.log().to(dtype).requires_grad_(True)

    def parameters(self) -> list[torch.Tensor]:
        """What the search moves."""
        moved = [self.direction, self.log_length]
        return moved if self.fixed else [self.centre, *moved]

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """z₁ and z₂; None for an end that is given."""
        v = self.direction
        arm = self.log_length.exp() * v / v.norm(dim=1, keepdim=True)
        first = _clip(self.centre + arm, self.radius)
        return first, None if self.fixed else _clip(self.centre - arm, self.radius)

    @torch.no_grad()
    def keep_scaled(self) -> None:
        """‖v‖ = 1, and no closer than CLOSEST."""
        self.direction /= self.direction.norm(dim=1, keepdim=True)
        self.log_length.clamp_(min=self.closest)


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
    ends = _Ends(z_first, z_second, x_true is not None, radius, dtype)
    given = None if x_true is None else x_true.detach().to(dtype)
    sign = torch.where(largest, -1.0, 1.0).to(dtype)
    optimiser = torch.optim.Adam(ends.parameters(), lr=LEARNING_RATE)
    best = torch.full((len(z_first),), torch.inf, dtype=dtype)
    best_first, best_second = ends.first.to(dtype), ends.second.to(dtype)
    with torch.enable_grad():
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            one, two = ends()
            if two is None:
                images, others = prior.generate(one), given
            else:
                images, others = torch.split(prior.generate(torch.cat([one, two])), len(one))
            value = sign * _log_ratio(measure, images, others)
            better = torch.isfinite(value) & (value < best)
            best = torch.where(better, value, best).detach()
            best_first = torch.where(better[:, None], one, best_first).detach()
            if two is not None:
                best_second = torch.where(better[:, None], two, best_second).detach()
            # A pair whose images coincide has no gradient; leave it where it is.
            loss = torch.where(torch.isfinite(value), value, torch.zeros_like(value)).sum()
            if not loss.requires_grad:  # images that do not depend on z
                break
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            for parameter in ends.parameters():
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            optimiser.step()
            ends.keep_scaled()
    return _keep_better(
        operator, prior, (ends.first, best_first.double()), (ends.second, best_second.double()),
        largest, x_true, steps,
    )  # fmt: skip


def _log_ratio(measure: Any, first: torch.Tensor, second: Any) -> torch.Tensor:
    """log r of every pair of images; NaN where their difference is nothing but rounding."""
    difference = first - second
    square = squared_norm(difference)
    with torch.no_grad():
        error = ERROR * unit(first.dtype) * (norm(first) + norm(second))
        counts = square > error.square()
    value: torch.Tensor = squared_norm(measure(difference)).log() - square.log()
    return value.where(counts, math.nan)


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
    operator, prior = converted(operator, device="cpu"), converted(prior, device="cpu")
    dtype = precision(prior)
    found = []
    for one, two in zip(firsts, seconds, strict=True):
        other = generate(prior, two.to(dtype)).double() if x_true is None else x_true.double()
        image = generate(prior, one.to(dtype)).double()
        error = ERROR * unit(dtype) * (norm(image) + norm(other))
        s = image - other
        found.append(ratios(operator, s).where(norm(s) > SHORTEST * error, math.nan))
    start, end = found
    improved = torch.where(largest, end > start, end < start)
    improved |= torch.isnan(start) & torch.isfinite(end)
    pick = improved[:, None]
    return Found(
        torch.where(improved, end, start),
        torch.where(pick, firsts[1], firsts[0]),
        torch.where(pick, seconds[1], seconds[0]) if x_true is None else None,
        n_evaluations=(steps + 1) * len(largest),
    )
