"""Where the bound loses against the iterates: the slack, split by the quantity that makes it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from analysis.drawing import COLOURS, says
from analysis.rates.bound import Constant, Recursion, constant, first_of, for_batch
from analysis.rates.identity import Decomposition
from npgd import checks
from npgd.files import plain
from npgd.images import PerImage
from npgd.showing import Drawn, iterations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREEK = {"alpha": "α", "beta": "β", "delta": "δ", "noise": "noise"}
"""The parts of the slack, by what they are called in print."""

NEARLY_ALL = 97
"""Per cent of the slack that are drawn as if they were all of it."""
ALLOWED = 1 + 1e-9
"""A constant is known to this factor: a measured number that near breaks nothing."""


@dataclass(frozen=True, eq=False)
class SlackSplit(Drawn):
    """Bound minus observation, `gap = alpha + beta + delta + noise`, at every n.

    Rows are n = 0 … n_iter, NaN before `start`. The parts come in a fixed order, each what the
    bound loses by knowing one quantity only through its constant. Every part is ≥ 0 where the
    assumptions hold; a negative one names the assumption that the iterates broke.
    """

    gap: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """Bound − F_n."""
    alpha: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """The bound, less the bound in which α_i replaces α at every step i < n."""
    beta: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """What is gained on top by knowing the step: (β_i − 1/η)‖d_i‖² itself in place of its bound."""
    delta: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """What is gained on top by putting δ_i in place of δ."""
    noise: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """The rest: the noise is not aligned in the worst way with the residual. Zero, up to rounding,
    for y = A x*."""
    bound: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """Of `analysis.predicted_objective`."""
    start: int
    """Where the bound begins."""

    def shares(self) -> dict[str, Float[torch.Tensor, " n_iter_plus_1"]]:
        """Each part's share of the slack, summed over images; NaN where there is none."""
        total = self.gap.sum(1)
        return {
            name: torch.where(total > 0, getattr(self, name).sum(1) / total, math.nan)
            for name in GREEK
        }

    def percentages(self) -> dict[str, Float[torch.Tensor, " n_iter_plus_1"]]:
        """`shares` in per cent, at the iterates where all of them are finite; else NaN."""
        shares = {name: 100 * share for name, share in self.shares().items()}
        kept = torch.stack(list(shares.values())).isfinite().all(0)
        return {name: torch.where(kept, share, math.nan) for name, share in shares.items()}

    @property
    def has_negative(self) -> bool:
        """Whether a part of a finite slack is negative: an assumption that the iterates broke."""
        shares = torch.stack(list(self.percentages().values()))
        return bool((shares < -1e-6).any())

    def single_cause(self) -> tuple[str, int]:
        """What makes at least `NEARLY_ALL` per cent of the slack from some x_n in the first quarter
        on, and that n; "" if nothing does."""
        for name, share in self.percentages().items():
            known = share.isfinite().nonzero().flatten()
            mixed = known[(share[known] - 100).abs() > 100 - NEARLY_ALL]
            if len(known) and 4 * len(mixed) <= len(known):
                later = known[known > mixed[-1]] if len(mixed) else known
                if len(later) and 4 * len(later) >= 3 * len(known):
                    return name, int(later[0])
        return "", 0

    def draw(self, axis: Axes) -> None:
        """Each part's percentage of the slack, iterate by iterate: areas, or lines where a part is
        negative."""
        shares = self.percentages()
        n = torch.arange(len(self.gap))
        kept = shares["alpha"].isfinite()
        if self.has_negative:
            for name, share in shares.items():
                axis.plot(n[kept], share[kept], color=COLOURS[name], label=GREEK[name])
            axis.axhline(0, color="black", lw=0.6)
        elif bool(kept.any()):
            axis.stackplot(
                n[kept],
                *[share[kept].clamp_min(0) for share in shares.values()],
                labels=[GREEK[name] for name in shares],
                colors=[COLOURS[name] for name in shares],
                lw=0,
            )
            axis.set_ylim(0, 100)
        iterations(axis)
        axis.set_ylabel("% of the slack")
        name, first = self.single_cause()
        if name:
            says(
                axis,
                f"from x_{first} on at least {NEARLY_ALL} % of it comes from {GREEK[name]}",
                0.3,
                "white",
            )
        if bool(kept.any()):
            axis.legend(fontsize=8, loc="upper right")
        else:
            says(axis, "no iterate has a finite slack with parts")

    def __str__(self) -> str:
        last = {name: float(share[-1]) for name, share in self.shares().items()}
        parts = ", ".join(f"{GREEK[name]} {100 * share:.0f} %" for name, share in last.items())
        return f"slack of the bound after {self.gap.shape[0] - 1} steps: {parts}"

    def to_dict(self) -> dict[str, Any]:
        return {
            name: plain(getattr(self, name))
            for name in ("gap", "alpha", "beta", "delta", "noise", "bound")
        } | {"start": self.start}


def split_slack(
    decomposition: Decomposition,
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    start: int = 1,
) -> SlackSplit:
    """Split bound − objective, iterate by iterate, into α-, β-, δ- and noise slack.

    Four recursions start together at F_start. B is the bound of `predicted_objective`, and C the
    same with α_n for α. The others know the iterates step by step: with q_n = max(1/(ηα_n) − 1, 0)
    and a surplus u_n = (√D_n + ‖v‖)² − f_n carried over from before,

        D_{n+1} = (1/(ηα_n) − 1) f_n + q_n u_n + ‖v‖² + δ/η + (β_n − 1/η)‖d_n‖²
        E_{n+1} = the same with δ_n/η, and u_n from E_n, but at most (√f_{n+1} + ‖v‖)²

    and by the one-step identity F_n is what remains when the noise is known too. What knows more is
    cut off at what knows less, unless the iterates break what that one knows. The parts are the
    differences of neighbours: their sum is the slack, whether or not the bound converges.

    Raises:
        ValueError: as `predicted_objective`.
    """
    if not isinstance(decomposition, Decomposition):
        raise TypeError(
            "decomposition must be what analysis.decompose returns, got"
            f" {checks.shown(decomposition)}"
        )
    observed, eta = decomposition.objective, decomposition.one_step_size
    n_iter = observed.shape[0] - 1
    start = first_of(start, n_iter)
    for_batch(observed.shape[1], alpha=alpha, beta=beta, delta=delta)
    nominal = Recursion.of(alpha, beta, delta, eta, decomposition.noise)
    first = observed[start]
    bound = torch.stack(nominal.run(first, n_iter - start))
    knows_alpha = _run_of_alphas(decomposition, alpha, beta, delta, start)

    terms = decomposition.terms()
    d = constant("delta", delta) / eta
    over_beta = decomposition.lowest_beta()[start:] > constant("beta", beta) * ALLOWED
    over_delta = decomposition.highest_delta(start) > constant("delta", delta) * ALLOWED
    broken_beta, broken_delta = over_beta.cummax(0).values, over_delta.cummax(0).values
    knows_beta = _run_of_identity(
        decomposition, start, lambda n: d + terms["beta"][n], knows_alpha, broken_beta
    )
    # F_n ≤ (√f_n + ‖v‖)² needs no step before: what noise adds does not grow from step to step.
    f, s = decomposition.range_objective[start:], decomposition.noise.sqrt()
    knows_delta = _run_of_identity(
        decomposition, start, lambda n: terms["delta"][n] + terms["beta"][n],
        torch.minimum(knows_beta, (f.sqrt() + s) ** 2), broken_delta,
    )  # fmt: skip
    levels = [bound, knows_alpha, knows_beta, knows_delta, observed[start:]]
    before = torch.full((start, bound.shape[1]), math.nan, dtype=bound.dtype)
    alphas, betas, deltas, noises = (
        torch.cat([before, above - below]) for above, below in itertools.pairwise(levels)
    )
    bound = torch.cat([before, bound])
    return SlackSplit(bound - observed, alphas, betas, deltas, noises, bound, start)


def _run_of_alphas(
    parts: Decomposition, alpha: Constant, beta: Constant, delta: Constant, start: int
) -> torch.Tensor:
    """The bound with α_n, where there is one, in place of α at every step."""
    a, b = constant("alpha", alpha), constant("beta", beta)
    # An α_n that only rounding keeps below α is α.
    close = (parts.alpha < a) & (parts.highest_alpha() * ALLOWED >= a)
    alphas = torch.where((parts.alpha > 0) & ~close, parts.alpha, a)
    t = parts.objective[start].sqrt()
    memory, levels = torch.full_like(t, math.inf), [parts.objective[start]]
    for n in range(start, len(parts.alpha)):
        known = torch.minimum(alphas[n], b)
        recursion = Recursion.of(known, b, delta, parts.one_step_size, parts.noise)
        t, memory = recursion(t, memory)
        levels.append(t**2)
    return torch.stack(levels)


def _run_of_identity(
    parts: Decomposition,
    start: int,
    known: Callable[[int], PerImage],
    above: torch.Tensor,
    broken: torch.Tensor,
) -> torch.Tensor:
    """The identity with `known` for its last two terms, the surplus of f_n carried along.

    Cut off at `above`, or, where that is broken, at the iterate itself if that is larger.
    """
    f, s = parts.range_objective, parts.noise.sqrt()
    terms = parts.terms()
    # Where x_n = x*, or A does not see x_n − x*, nothing bounds a surplus but the level above.
    carry = torch.where(
        parts.alpha > 0, 1 / (parts.one_step_size * parts.alpha) - 1, math.inf
    ).clamp_min(0)
    levels = [parts.objective[start]]
    for n in range(start, len(parts.alpha)):
        surplus = ((levels[-1].sqrt() + s) ** 2 - f[n]).clamp_min(0)
        carried = torch.where(surplus > 0, carry[n] * surplus, 0.0)
        level = terms["alpha"][n] + carried + terms["noise"][n] + known(n)
        cap = above[n - start + 1]
        cap = torch.where(broken[n - start], torch.maximum(cap, parts.objective[n + 1]), cap)
        levels.append(torch.minimum(level, cap).clamp_min(0))
    return torch.stack(levels)
