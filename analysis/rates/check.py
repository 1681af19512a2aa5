"""The prediction held against iterates, with a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from analysis.rates.bound import Constant, _constant, error_floor, predicted_rate
from analysis.rates.identity import Decomposition, decompose
from analysis.rates.observed import ObservedRate, observed_rate
from analysis.rates.slack import GREEK, SlackSplit, split_slack
from npgd.files import plain
from npgd.images import norm, quotient


@dataclass(frozen=True, eq=False)
class ConvergenceCheck:
    """The theorem's prediction held against a run."""

    alpha: Float[torch.Tensor, " batch"]
    beta: Float[torch.Tensor, " batch"]
    delta: Float[torch.Tensor, " batch"]
    step_size: float
    start: int
    rate: Float[torch.Tensor, " batch"]
    """Predicted factor per step (κ − 1 for η = 1/β)."""
    floor: Float[torch.Tensor, " batch"]
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
    def kappa(self) -> Float[torch.Tensor, " batch"]:
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
        return " ".join([self.prediction(), self.observation(), self.comparison()])

    def prediction(self) -> str:
        """What the constants promise."""
        worst, best = float(self.kappa.max()), float(self.kappa.min())
        kappa = (
            f"κ = {worst:.3g}" if math.isclose(worst, best) else f"κ = {best:.3g} to {worst:.3g}"
        )
        rate = float(self.rate.max())
        batch, contracting = len(self.rate), int((self.rate < 1).sum())
        if contracting == batch:
            return (
                f"{kappa} at step size {self.step_size:.3g}: the bound falls by {rate:.3g} per "
                f"step from x_{self.start}, to ‖x_n − x*‖² ≤ {float(self.floor.max()):.3g}."
            )
        who = "any image" if contracting == 0 else f"{batch - contracting} of {batch} images"
        return (
            f"{kappa} at step size {self.step_size:.3g}: the bound does not fall for {who} "
            f"(factor {rate:.3g} per step), so it is void there."
        )

    def observation(self) -> str:
        """What the iterates did, and why, where the constants did not promise it."""
        unpromised = not self.applies and self.observed.median < 1
        text = f"The objective {'nevertheless ' if unpromised else ''}{self.observed.status}"
        if unpromised:
            part = self.step_factor
            alpha_n = float(self.decomposition.alpha[self.start :].nanquantile(0.5))
            text += (
                f", because its own pairs (x_n, x*) have α_n = {alpha_n:.3g} (median) where α is "
                f"{float(self.alpha.min()):.3g}, and every step gains from β_n < 1/η and δ_n: over "
                f"these iterates the mean factor {part['total']:.3g} is {part['alpha']:.3g} by α_n,"
                f" {part['beta']:+.3g} by β_n, {part['delta']:+.3g} by δ_n and "
                f"{part['noise']:+.3g} by noise"
            )
        return text + "."

    def comparison(self) -> str:
        """Whether the iterates stay below the bound, and which assumption they break if not."""
        sentences = []
        if self.holds:
            void = (
                ""
                if self.applies
                else ", void as it is"
                if (self.rate >= 1).all()
                else (f", void as it is for {int((self.rate >= 1).sum())} images")
            )
            sentences.append(f"Every iterate stays below the bound{void}.")
        else:
            count = sum(n is not None for n in self.exceeded_at)
            first = min(n for n in self.exceeded_at if n is not None)
            sentences.append(
                f"The bound is exceeded for {count} of {len(self.exceeded_at)} images, first at "
                f"x_{first}: the constants are not the true ones."
            )
        if self.broken:
            found = ", ".join(
                f"{GREEK[name]}_n = {measured:.3g} against {GREEK[name]} = {constant:.3g}"
                for name, (measured, constant) in self.broken.items()
            )
            sentences.append(f"The iterates break its assumptions: {found}.")
        return " ".join(sentences)

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


def check_convergence(
    A: Any,
    y: Float[torch.Tensor, "batch m"],
    x_true: Float[torch.Tensor, "batch channels height width"],
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"],
    step_size: float,
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    start: int = 1,
) -> ConvergenceCheck:
    """Hold the bound for constants (α, β, δ) against a run, image by image.

    Args:
        A, y, x_true, iterates, step_size: as in :func:`decompose`. ``x_true`` should lie in
            range(G); for an image that does not, pass its best point there
            (:func:`analysis.nearest_in_range`), and the rest counts as noise.
        alpha, beta, delta: constants to test, uniform or one for each image.
        start: 0 if x_0 lies in range(G), 1 if not (as with x_0 = Aᵀy, Algorithm 1 of the paper).

    A bound that an iterate exceeds means constants that are not the true ones (estimates of α and
    β are one-sided): by the one-step identity some α_n < α, β_n > β or δ_n > δ, and ``broken`` has
    it.

    Raises:
        ValueError: as :func:`decompose` and :func:`predicted_objective`.
    """
    if not 0 <= start < iterates.shape[0]:
        raise ValueError(f"start: expected 0 <= start < {iterates.shape[0]}, got {start}")
    parts = decompose(A, y, x_true, iterates, step_size)
    slack = split_slack(parts, alpha, beta, delta, start=start)
    batch = parts.noise.shape[0]
    a, b, d = (
        _constant(name, value).expand(batch)
        for name, value in (("alpha", alpha), ("beta", beta), ("delta", delta))
    )
    # Rounding of the iterates, in their own precision, is no violation.
    rounding = 100 * torch.finfo(iterates.dtype).eps
    allowed = (slack.bound.sqrt() * (1 + 1e-9) + rounding * norm(y.double()).cpu()) ** 2
    above = parts.objective > allowed
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
        broken=_broken(parts, a, b, d, start, rounding * norm(x_true.double()).cpu()),
        observed=observed,
        decomposition=parts,
        slack=slack,
        step_factor=_step_factor(parts, observed),
    )


def _broken(
    parts: Decomposition,
    alpha: torch.Tensor,
    beta: torch.Tensor,
    delta: torch.Tensor,
    start: int,
    rounding: torch.Tensor,
) -> dict[str, tuple[float, float]]:
    """Of every constant that the iterates from ``start`` on break: the worst (measured, constant).

    ``rounding`` is the length by which an iterate may be off its set; a pair as close as that says
    nothing.
    """
    far, step = parts.error[start:-1].sqrt(), parts.step[start:].sqrt()
    lengths = far + step + parts.noise.sqrt()
    excess = {
        "alpha": (alpha * (1 - 1e-9 - 2 * rounding / far) - parts.alpha[start:], alpha),
        "beta": (parts.beta[start:] - beta * (1 + 1e-9 + 2 * rounding / step), beta),
        "delta": (
            parts.delta[start:] - delta * (1 + 1e-9) - rounding * (lengths + rounding),
            delta,
        ),
    }
    worst = {}
    for name, (amount, constant) in excess.items():
        amount = amount.nan_to_num(nan=-math.inf)
        if amount.numel() and float(amount.max()) > 0:
            n, i = divmod(int(amount.argmax()), amount.shape[1])
            worst[name] = (float(getattr(parts, name)[start + n, i]), float(constant[i]))
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
