"""The prediction held against iterates, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from analysis.drawing import COLOURS, says
from analysis.rates.bound import Constant, constant, error_floor, first_of, predicted_rate
from analysis.rates.identity import Decomposition, decompose
from analysis.rates.observed import ObservedRate, observed_rate
from analysis.rates.slack import ALLOWED, GREEK, SlackSplit, split_slack
from analysis.words import about, apart, at_most, out_of
from npgd.files import plain
from npgd.images import Images, Measurements, PerImage, norm, quotient
from npgd.operators import LinearOperator
from npgd.showing import Drawn, iterations, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP_PARTS = {
    "beta": ("β_n above 1/η", "β_n below 1/η"),
    "delta": (
        "P landing farther from w_n than x* is (δ_n > 0)",
        "P landing nearer to w_n than x* is (δ_n < 0)",
    ),
    "noise": ("Noise", "Noise"),
}
"""What a step's factor has beside α_n: what adds to it, and what takes off."""

NEGLIGIBLE = 5e-4
"""Of the largest part of a step's factor: a smaller one would not show beside its three digits."""


@dataclass(frozen=True, eq=False)
class ConvergenceCheck(Drawn):
    """The theorem's prediction held against a run."""

    alpha: PerImage
    beta: PerImage
    delta: PerImage
    step_size: float
    start: int
    rate: PerImage
    """Predicted factor per step (κ − 1 for η = 1/β)."""
    floor: PerImage
    """Predicted floor of ‖x_n − x*‖²."""
    bound: Float[torch.Tensor, "n_iter_plus_1 batch"]
    objective: Float[torch.Tensor, "n_iter_plus_1 batch"]
    exceeded_at: tuple[int | None, ...]
    """For each image the first n at which F_n exceeds the bound, or None."""
    broken: dict[str, tuple[float, float]]
    """Of the assumptions (α_n ≥ α, β_n ≤ β, δ_n ≤ δ) broken: the worst (measured, constant)."""
    observed: ObservedRate
    decomposition: Decomposition
    slack: SlackSplit
    step_factor: dict[str, float]
    """ΣF_{n+1}/ΣF_n over the fitted iterates, mean over images: "total", and its four parts."""

    @property
    def kappa(self) -> PerImage:
        return self.beta / self.alpha

    @property
    def applies(self) -> bool:
        """Whether the bound contracts for every image (κ < 2 for η = 1/β)."""
        return bool((self.rate < 1).all())

    @property
    def holds(self) -> bool:
        """Whether no iterate exceeds the bound."""
        return all(n is None for n in self.exceeded_at)

    @property
    def status(self) -> str:
        """The verdict, in words."""
        return " ".join([self.prediction(), *self.observation(), *self.comparison()])

    def prediction(self) -> str:
        """What the constants promise."""
        worst, best = float(self.kappa.max()), float(self.kappa.min())
        kappa = (
            f"κ = {worst:.3g}" if math.isclose(worst, best) else f"κ = {best:.3g} to {worst:.3g}"
        )
        text = f"{kappa} at step size {self.step_size:.3g}: the bound "
        falls = self.rate < 1
        promise = ""
        if bool(falls.any()):
            promise = (
                f"falls by a factor {at_most(float(self.rate[falls].max()))} per step from "
                f"x_{self.start}, to ‖x_n − x*‖² ≤ {at_most(float(self.floor[falls].max()))}"
            )
        if bool(falls.all()):
            return f"{text}{promise}."
        batch, void = len(self.rate), int((~falls).sum())
        who = "any image" if void == batch else f"{void} of {batch} images"
        text += f"does not fall for {who}, so it is void there"
        growth = float(self.rate.max())
        if growth > 1:
            text += f" (it grows by a factor of up to {at_most(growth)} per step)"
        return f"{text}; for the others it {promise}." if promise else f"{text}."

    def observation(self) -> tuple[str, ...]:
        """What the iterates did, and why, where the constants did not promise it; in sentences."""
        said = self.observed.sentences
        if not bool(((self.rate >= 1) & (self.observed.rate < 1)).any()):
            return said
        return (*said, "The constants do not promise that.", *self._reasons())

    def _reasons(self) -> list[str]:
        """What each measured number does to a step's factor, against what its constant allows."""
        part, said = self.step_factor, []
        alpha_n = float(self.decomposition.alpha[self.start :].nanquantile(0.5))
        alpha = float(self.alpha.min())
        if alpha_n > alpha * ALLOWED:
            # α as "at most", in as many digits as keep it below α_n.
            digits = 3
            while digits < 17 and float(about(alpha_n, digits)) <= float(at_most(alpha, digits)):
                digits += 1
            measured, constant_ = about(alpha_n, digits), at_most(alpha, digits)
            said.append(f"A shortens x_n − x* less than α says: α_n is {measured} (median), α is")
            said[-1] += f" {constant_}."
        moves = "fall" if part["alpha"] < 1 else "grow"
        first = f"With α_n alone it would {moves}, by a factor {part['alpha']:.3g} per step."
        least = NEGLIGIBLE * max(abs(value) for value in part.values())
        others = [name for name in STEP_PARTS if abs(part[name]) > least]
        said.append(first)
        for name in others:
            value = part[name]
            does = f"adds {about(value)}" if value > 0 else f"takes off {about(-value)}"
            said.append(f"{STEP_PARTS[name][value < 0]} {does}.")
        return [*said, f"Together that is {part['total']:.3g}."] if others else said

    def comparison(self, bound: str = "the bound") -> tuple[str, ...]:
        """Whether the iterates stay below the bound, and which constant they break; in sentences.

        Args:
            bound: what to call it.
        """
        sentences = []
        named, batch = f"{bound[0].upper()}{bound[1:]}", len(self.rate)
        falling = int((self.rate < 1).sum())
        if self.holds and falling == batch:
            sentences.append(f"Every iterate stays below {bound}.")
        elif self.holds and falling:
            sentences.append(
                f"{named} falls for {out_of(falling, batch)}, whose iterates stay below it."
            )
        elif self.holds:
            sentences.append(f"{named} does not fall: it says nothing of this run.")
        else:
            count = sum(n is not None for n in self.exceeded_at)
            first = min(n for n in self.exceeded_at if n is not None)
            sentences.append(f"{named} is exceeded for {out_of(count, batch)}, first at x_{first}.")
            sentences.append(
                "So the constants are not the true ones."
                if self.broken
                else "Some point is not of S, for no α_n, β_n or δ_n breaks its constant."
            )
        for name, pair in self.broken.items():
            measured, constant_ = apart(*pair)
            side = "below" if pair[0] < pair[1] else "above"
            symbol = GREEK[name]
            sentences.append(f"The run has {symbol}_n = {measured}, {side} {symbol} = {constant_}.")
        return tuple(sentences)

    def fractions(self) -> tuple[torch.Tensor, PerImage]:
        """F_n over its value where the bound starts, and that value, image by image.

        An image that starts at 0 is taken over its largest value, or over 1.
        """
        scale, largest = self.objective[self.start], self.objective.amax(0)
        scale = torch.where(scale > 0, scale, torch.where(largest > 0, largest, 1.0))
        return self.objective / scale, scale

    def draw(self, axis: Axes) -> None:
        """The objective ‖A x_n − y‖² and its bound, over the objective where the bound starts."""
        draw_run_and_bounds(axis, {"bound (median)": self})
        seen, scale = self.fractions()
        later = (self.bound / scale)[self.start + 1 :].median(1).values
        if len(later) and not bool((later <= top_of(seen)).any()):
            says(axis, "the bound lies above all this, from its first step on", 0.9)
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        return self.status

    def to_dict(self) -> dict[str, Any]:
        return {
            "alpha": plain(self.alpha),
            "beta": plain(self.beta),
            "delta": plain(self.delta),
            "kappa": plain(self.kappa),
            "step_size": self.step_size,
            "start": self.start,
            "predicted_rate": plain(self.rate),
            "predicted_error_floor": plain(self.floor),
            "bound": plain(self.bound),
            "objective": plain(self.objective),
            "applies": self.applies,
            "holds": self.holds,
            "exceeded_at": list(self.exceeded_at),
            "broken": {name: list(pair) for name, pair in self.broken.items()},
            "observed": self.observed.to_dict(),
            "slack": self.slack.to_dict(),
            "step_factor": {name: plain(value) for name, value in self.step_factor.items()},
            "decomposition": self.decomposition.to_dict(),
            "status": self.status,
        }


def draw_run_and_bounds(axis: Axes, checks: Mapping[str, ConvergenceCheck]) -> None:
    """The objective of one run, and the bound of each check of it, by its words in the legend.

    What is infinite is not drawn, and nothing far above the iterates: the picture is theirs.
    """
    check = next(iter(checks.values()))
    seen, scale = check.fractions()
    n, colour = torch.arange(len(seen)), COLOURS["observed"]
    axis.fill_between(
        n, seen.amin(1), seen.amax(1), color=COLOURS["noise"], alpha=0.25, lw=0,
        label="iterates, all",
    )  # fmt: skip
    axis.plot(n, seen.median(1).values, color=colour, lw=2, label="iterates, median")
    low = max(float(seen[seen > 0].min()) if (seen > 0).any() else 1e-16, 1e-30)
    for (words, result), (name, style) in zip(checks.items(), BOUND_LOOKS, strict=False):
        bound = (result.bound / scale)[check.start :]
        middle = bound.median(1).values
        middle = torch.where(middle.isfinite(), middle, math.nan)
        later = n[check.start :]
        axis.plot(later, middle, style, color=COLOURS[name], lw=1.8, label=words)
        floor = float(bound[bound > 0].min()) if (bound > 0).any() else 1.0
        low = min(low, max(floor, low * 1e-3))
    axis.set_ylim(low / 3, top_of(seen))
    plain_log(axis.yaxis)  # after the limits: where nothing is positive it would warn of its own
    iterations(axis)
    axis.set_ylabel(f"‖A xₙ − y‖² / ‖A x{str(check.start).translate(SUBSCRIPTS)} − y‖²")


BOUND_LOOKS = (("uniform", "--"), ("pointwise", "-."))
"""Colour and style of the first bound and the second."""
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def top_of(seen: torch.Tensor) -> float:
    """Where the picture of these fractions ends."""
    return max(100 * float(seen.max()), 1e3)


def check_convergence(
    A: LinearOperator,
    y: Measurements,
    x_true: Images,
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"],
    step_size: float,
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    start: int = 1,
) -> ConvergenceCheck:
    """Hold the bound for constants (α, β, δ) against a run, image by image.

    A bound that an iterate exceeds means constants that are not the true ones (estimates of α and
    β are one-sided): some α_n < α, β_n > β or δ_n > δ, against x*, x_n or x_{n−1}, and `broken` has
    it. What the rounding of the iterates, in their own precision, can explain is no violation.

    Args:
        A, y, x_true, iterates, step_size: as in `decompose`. `x_true` should lie in range(G); for
            an image that does not, pass its best point there (`analysis.nearest_in_range`), and
            the rest counts as noise.
        alpha, beta, delta: constants to test, uniform or one for each image.
        start: 0 if x_0 lies in range(G), 1 if not (as with x_0 = Aᵀy, Algorithm 1 of the paper).

    Raises:
        ValueError: as `decompose` and `predicted_objective`.
    """
    parts = decompose(A, y, x_true, iterates, step_size)
    start = first_of(start, len(parts.objective) - 1)
    slack = split_slack(parts, alpha, beta, delta, start=start)
    batch = parts.noise.shape[0]
    a, b, d = (
        constant(name, value).expand(batch)
        for name, value in (("alpha", alpha), ("beta", beta), ("delta", delta))
    )
    # x_n that is off S by so much has √F_n off by ‖A‖ times that.
    rounding = parts.precision * norm(y.double()).cpu() + parts.norm * parts.off
    above = parts.objective.sqrt() > slack.bound.sqrt() * ALLOWED + rounding
    exceeded = tuple(
        int(above[:, i].nonzero()[0]) if above[:, i].any() else None for i in range(batch)
    )
    observed = observed_rate(parts.objective, start=start)
    return ConvergenceCheck(
        alpha=a,
        beta=b,
        delta=d,
        step_size=float(step_size),
        start=start,
        rate=predicted_rate(alpha, beta, step_size=step_size).expand(batch),
        floor=error_floor(alpha, beta, delta, step_size=step_size, noise=parts.noise).expand(batch),
        bound=slack.bound,
        objective=parts.objective,
        exceeded_at=exceeded,
        broken=_broken(parts, a, b, d, start),
        observed=observed,
        decomposition=parts,
        slack=slack,
        step_factor=_step_factor(parts, observed),
    )


def _broken(
    parts: Decomposition, alpha: PerImage, beta: PerImage, delta: PerImage, start: int
) -> dict[str, tuple[float, float]]:
    """Of every constant that the iterates from `start` on break: the worst (measured, constant)."""
    highest_delta = parts.highest_delta(start)
    excess = {
        "alpha": (alpha / ALLOWED - parts.highest_alpha()[start:], parts.alpha[start:], alpha),
        "beta": (parts.lowest_beta()[start:] - beta * ALLOWED, parts.beta[start:], beta),
        "delta": (highest_delta - delta * ALLOWED, highest_delta, delta),
    }
    worst = {}
    for name, (amount, measured, limit) in excess.items():
        amount = amount.nan_to_num(nan=-math.inf)
        if amount.numel() and float(amount.max()) > 0:
            n, i = divmod(int(amount.argmax()), amount.shape[1])
            worst[name] = (float(measured[n, i]), float(limit[i]))
    return worst


def _step_factor(parts: Decomposition, observed: ObservedRate) -> dict[str, float]:
    """ΣF_{n+1}/ΣF_n over the fitted iterates of an image, and its four parts; mean over images.

    Sums, so that the iterates well above the floor, which the fitted rate is about, weigh most.
    """
    rows = torch.arange(parts.alpha.shape[0])[:, None]
    fitted = (rows >= torch.tensor(observed.first)) & (rows < torch.tensor(observed.last))
    kept = ~observed.rate.isnan()
    if not kept.any():
        return {}
    F, f = parts.objective[:-1], parts.range_objective[:-1]
    terms = parts.terms()
    # (1/(ηα_n) − 1) f_n splits into what it would be without noise, and the noise in f_n.
    contraction = quotient(terms["alpha"], f).nan_to_num(nan=0.0)
    sums = {
        "total": parts.objective[1:],
        "alpha": terms["alpha"] - contraction * (f - F),
        "beta": terms["beta"],
        "delta": terms["delta"],
        "noise": contraction * (f - F) + terms["noise"],
    }
    whole = torch.where(fitted, F, 0.0).sum(0)
    return {
        name: float((torch.where(fitted, value, 0.0).sum(0) / whole)[kept].mean())
        for name, value in sums.items()
    }
