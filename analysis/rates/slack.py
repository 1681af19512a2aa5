"""Where the bound loses against the iterates: the gap, split by the quantity that makes it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from analysis.rates.bound import Constant, _constant, _Recursion, predicted_objective
from analysis.rates.identity import Decomposition
from npgd.files import plain


@dataclass(frozen=True, eq=False)
class SlackSplit:
    """The gap between bound and observation, ``gap = alpha + beta + delta + noise``, at every n.

    Rows are n = 0 … n_iter, NaN before ``start``. Each part is what the bound loses by knowing one
    quantity only through its constant, in the fixed order α, β, δ, noise:

    - ``alpha``: the bound, less the bound in which α_i replaces α at every step i < n (and, when
      η > 1/β, the measured ‖d_i‖² replaces its estimate through α);
    - ``beta``: what is gained on top by putting β_i in place of β (of 1/η, when η < 1/β);
    - ``delta``: what is gained on top by putting δ_i in place of δ;
    - ``noise``: the rest, the noise not being aligned in the worst way with the residual. It is
      zero, up to rounding, when y = A x*.

    Every part is ≥ 0 whenever α_i ≥ α, β_i ≤ β and δ_i ≤ δ; a negative part names the assumption
    that the iterates broke.
    """

    gap: Float[torch.Tensor, "n_iter_plus_1 batch"]
    alpha: Float[torch.Tensor, "n_iter_plus_1 batch"]
    beta: Float[torch.Tensor, "n_iter_plus_1 batch"]
    delta: Float[torch.Tensor, "n_iter_plus_1 batch"]
    noise: Float[torch.Tensor, "n_iter_plus_1 batch"]
    bound: Float[torch.Tensor, "n_iter_plus_1 batch"]
    start: int

    def shares(self) -> dict[str, Float[torch.Tensor, " n_iter_plus_1"]]:
        """Each part's share of the gap, summed over images; NaN where there is no gap."""
        total = self.gap.sum(1)
        return {
            name: torch.where(total > 0, getattr(self, name).sum(1) / total, math.nan)
            for name in ("alpha", "beta", "delta", "noise")
        }

    def __str__(self) -> str:
        last = {name: float(share[-1]) for name, share in self.shares().items()}
        parts = ", ".join(f"{GREEK[name]} {100 * share:.0f} %" for name, share in last.items())
        return f"gap between bound and iterates after {self.gap.shape[0] - 1} steps: {parts}"

    def to_dict(self) -> dict[str, Any]:
        return {
            name: plain(getattr(self, name))
            for name in ("gap", "alpha", "beta", "delta", "noise", "bound")
        } | {"start": self.start}


GREEK = {"alpha": "α", "beta": "β", "delta": "δ", "noise": "noise"}


def split_slack(
    decomposition: Decomposition,
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    start: int = 1,
) -> SlackSplit:
    """Split bound − objective, iterate by iterate, into α-, β-, δ- and noise slack.

    Four recursions start together at F_start. The first is the bound of
    :func:`predicted_objective`. The others know the iterates step by step: with
    q_n = max(1/(ηα_n) − 1, 0) and a surplus u_n = (√C_n + ‖v‖)² − f_n carried over from before,

        C_{n+1} = (1/(ηα_n) − 1) f_n + q_n u_n + ‖v‖² + δ/η + max(β − 1/η, 0) ‖d_n‖²   (knows α_n)
        D_{n+1} = as C, with (β_n − 1/η) ‖d_n‖² at the end                             (and β_n)
        E_{n+1} = as D, with δ_n/η                                                     (and δ_n)

    and by the one-step identity F_n is what remains when the noise is known too. The parts are the
    differences of neighbours, so they telescope: their sum is the gap, whether or not the bound
    converges. Raises as :func:`predicted_objective` does.
    """
    bound = predicted_objective(
        decomposition.objective[start],
        decomposition.objective.shape[0] - 1,
        alpha,
        beta,
        delta,
        step_size=decomposition.step_size,
        noise=decomposition.noise,
        start=start,
    )
    recursion = _Recursion.of(alpha, beta, delta, decomposition.step_size, decomposition.noise)
    eta, s = decomposition.step_size, recursion.s
    terms = decomposition.terms()
    observed, f = decomposition.objective, decomposition.range_objective
    overstep = recursion.c * recursion.alpha

    # Where x_n = x*, or A does not see x_n − x*, the pair gives no contraction factor: the surplus
    # is then carried by the constant's.
    usable = (f[:-1] > 0) & (decomposition.error[:-1] > 0)
    carry = torch.where(usable, 1 / (eta * decomposition.alpha) - 1, recursion.rho).clamp_min(0)

    nominal = {
        "beta": overstep * decomposition.step,
        "delta": (_constant("delta", delta) / eta).expand_as(decomposition.delta),
    }
    known: list[set[str]] = [set(), {"beta"}, {"beta", "delta"}]
    levels = [bound]
    for names in known:
        level = [torch.full_like(observed[0], math.nan)] * start + [observed[start]]
        for n in range(start, observed.shape[0] - 1):
            surplus = (level[-1].clamp_min(0).sqrt() + s) ** 2 - f[n]
            following = terms["alpha"][n] + carry[n] * surplus + terms["noise"][n]
            for name in ("beta", "delta"):
                following = following + (terms if name in names else nominal)[name][n]
            level.append(following)
        levels.append(torch.stack(level))
    levels.append(torch.cat([torch.full_like(observed[:start], math.nan), observed[start:]]))
    parts = [above - below for above, below in itertools.pairwise(levels)]
    return SlackSplit(
        gap=bound - observed,
        alpha=parts[0],
        beta=parts[1],
        delta=parts[2],
        noise=parts[3],
        bound=bound,
        start=start,
    )
