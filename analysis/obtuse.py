"""Contraction where κ ≥ 2: projectors that turn back at an obtuse angle.

Model y = A x* + v, w_n = x_n − η Aᵀ(A x_n − y), x_{n+1} = P(w_n), e_n = x_n − x*. P is *obtuse* by
θ at x*, up to δ, if

    ‖P(w) − w‖² ≤ ‖x* − w‖² − θ ‖P(w) − x*‖² + δ.

θ = 0 is a δ-approximate projector, all that Theorem 1 of Raj, Li, Bresler (ICCV 2019) asks of it.
θ = 1, δ = 0 is what projecting onto a convex set does: the angle at P(w) between w and x* is not
acute. In between lies a set of reach τ (Federer, Curvature measures, 1959, Theorem 4.8):
θ ≥ 1 − dist(w, S)/τ. The same slack is the local concavity coefficient of Barber and Ha (Gradient
descent with non-convex constraints: local concavity determines convergence, 2018).

With REC(α, β), κ = β/α and η = 1/β, without noise,

    ‖e_{n+1}‖² ≤ ((κ − 1)/(1 + θκ)) ‖e_n‖² + κδ/(1 + θκ),

which contracts exactly for κ(1 − θ) < 2 and settles at δ/(2/κ − 1 + θ). For h = ηβ in (0, 2) the
bound contracts exactly for κ(1 − θ) < 2 min(h, 2 − h), and h = 1 is best where θ is asked at x*
alone. Where P is obtuse on all of S, against x_n too, steps up to h = 1 + θ/2 contract for
κ(1 − θ) < 2h, and h = 1 + θ/2 beats h = 1 exactly for κ > 2 + θ. `theorem.derive` proves all of
it, and `worst_case(…, measure="distance", theta=θ)` says how much of it is tight: all of it at
h = 1, and one step up to h = 1 + θ/2.

The proof uses α on the pairs (x_n, x*), β on (x_{n+1}, x_n), θ at the points w_n, and nothing else.
So a run has constants of its own, which `obtuseness` measures, and the bound with these holds
whatever S is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from analysis.drawing import COLOURS, says
from analysis.rates.identity import Decomposition, decompose
from analysis.words import about, apart, at_most, median, out_of, spread
from npgd import checks
from npgd.files import plain
from npgd.images import Images, Measurements, PerImage, quotient
from npgd.operators import LinearOperator
from npgd.showing import Drawn, iterations, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STEPS = 10**6
"""More steps than these are not counted."""


# ---------------------------------------------------------------------------------------------
# What constants predict
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObtuseBound(Drawn):
    """The bound on ‖x_n − x*‖² that α, β, θ, δ, ‖v‖² and η give."""

    alpha: float
    beta: float
    theta: float
    delta: float
    noise: float
    """Bound on ‖v‖²."""
    step_size: float
    everywhere: bool = False
    """Whether P is obtuse by θ against x_n too, not only against x*."""

    @property
    def kappa(self) -> float:
        return self.beta / self.alpha

    @property
    def relative_step(self) -> float:
        """h = ηβ, and exactly 1 where η is 1/β up to rounding."""
        h = self.step_size * self.beta
        return 1.0 if abs(h - 1) < 1e-14 else h

    @property
    def reached(self) -> float:
        """What κ(1 − θ) must lie below: 2 min(h, 2 − h); 2h for h ≤ 1 + θ/2 if `everywhere`."""
        h = self.relative_step
        return 2 * h if self._stays else 2 * min(h, 2 - h)

    @property
    def contracts(self) -> bool:
        """Whether κ(1 − θ) < `reached`."""
        return self.kappa * (1 - self._angle) < self.reached

    @property
    def _angle(self) -> float:
        """θ, of which more than 1 is not used."""
        return min(self.theta, 1.0)

    @property
    def _stays(self) -> bool:
        """Whether the comparison with x_n gives a bound of its own."""
        return self.everywhere and 0 < self.relative_step - 1 <= self._angle / 2

    @property
    def rate(self) -> float:
        """The factor of ‖e_n‖² per step without δ and noise: (κ − 1)/(1 + θκ) at η = 1/β."""
        return self._after(1.0, 0.0, 0.0)

    @property
    def floor(self) -> float:
        """What the bound on ‖e_n‖² tends to: δ/(2/κ − 1 + θ) at η = 1/β; ∞ unless it contracts.

        With noise at η = 1/β and δ = 0 it is 2‖v‖/(√α(2 − κ(1 − θ))), squared.
        """
        if not self.contracts:
            return math.inf
        h = self.relative_step
        floors = []
        margin = 2 * min(h, 2 - h) / self.kappa - 1 + self._angle
        if margin > 0:
            push = self._push(math.sqrt(self.noise))
            floors.append(((push + math.sqrt(push**2 + margin * self.delta)) / margin) ** 2)
        if self._stays:
            margin = (2 * h / self.kappa - 1 + self._angle) * (self._angle - h + 1)
            floors.append(self._angle * self.delta / margin)
        return min(floors)

    def after(self, error: float) -> float:
        """The bound on ‖e_{n+1}‖² from ‖e_n‖² = `error`."""
        error = checks.number(error, "error", zero=True)
        return self._after(error, self.delta, math.sqrt(self.noise))

    def errors(self, initial: float, n_iter: int) -> tuple[float, ...]:
        """The bounds on ‖e_0‖² = `initial`, …, ‖e_N‖²."""
        n_iter = checks.integer(n_iter, "n_iter", minimum=0, maximum=MOST_STEPS)
        errors = [checks.number(initial, "initial", zero=True)]
        for _ in range(n_iter):
            errors.append(self._after(errors[-1], self.delta, math.sqrt(self.noise)))
        return tuple(errors)

    def steps_to_reach(self, error: float, initial: float) -> float:
        """Smallest n with a bound of at most `error` on ‖e_n‖², from ‖e_0‖² = `initial`.

        At η = 1/β without noise log((E_0 − floor)/(E − floor))/log(1/rate), rounded up; elsewhere
        counted. Infinite where `error` is not above the floor, or after `MOST_STEPS`.
        """
        error, initial = checks.number(error, "error"), checks.number(initial, "initial", zero=True)
        if initial <= error:
            return 0.0
        if not error > self.floor:
            return math.inf
        nu = math.sqrt(self.noise)
        if nu == 0 and (self.relative_step == 1 or self.delta == 0):
            if self.rate == 0:
                return 1.0
            above = math.log((initial - self.floor) / (error - self.floor))
            return float(max(math.ceil(above / -math.log(self.rate) - 1e-9), 1))
        for n in range(1, MOST_STEPS + 1):
            initial = self._after(initial, self.delta, nu)
            if initial <= error:
                return float(n)
        return math.inf

    def _push(self, nu: float) -> float:
        """η√α ν, which the noise adds."""
        return self.step_size * math.sqrt(self.alpha) * nu

    def _after(self, error: float, delta: float, nu: float) -> float:
        theta, h, kappa = self._angle, self.relative_step, self.kappa
        if h <= 1:
            return _shorter(error, delta, nu, theta, h, kappa, self._push(nu), self.alpha)
        found = _longer(error, delta, theta, h - 1, kappa)
        return min(found, _staying(error, delta, theta, h - 1, kappa)) if self._stays else found

    @property
    def status(self) -> str:
        """Whether it contracts, in words."""
        product = self.kappa * (1 - self._angle)
        one, other = apart(product, self.reached) if product != self.reached else 2 * ("equal",)
        if not self.contracts:
            return f"void: κ(1 − θ) = {one} is not below {other}"
        return (
            f"contracts, κ(1 − θ) = {one} being below {other}: ‖x_n − x*‖² is multiplied by"
            f" {at_most(self.rate, 4)} per step, and tends to at most {at_most(self.floor)}"
        )

    def draw(self, axis: Axes) -> None:
        """The bound on ‖x_n − x*‖², from 1,000 times its floor or from 1, beside that of θ = 0."""
        above = self.contracts and self.floor > 0
        initial, goal = (1e3 * self.floor, 1.01 * self.floor) if above else (1.0, 1e-6)
        count = int(max(5, min(self.steps_to_reach(goal, initial), 40)))
        for bound, style, name, label in (
            (self, "o-", "beta", f"θ = {about(self.theta)}"),
            (replace(self, theta=0.0), "--", "uniform", "θ = 0"),
        ):
            if style == "--" and self.theta == 0:
                continue
            errors = [e if 0 < e < math.inf else math.nan for e in bound.errors(initial, count)]
            axis.plot(range(count + 1), errors, style, color=COLOURS[name], ms=4, label=label)
        if above:
            axis.axhline(self.floor, color=COLOURS["noise"], ls=":", label="tends to at most")
        if not self.contracts:
            says(axis, self.status, 0.9)
        plain_log(axis.yaxis)
        iterations(axis)
        axis.set_ylabel("bound on ‖xₙ − x*‖²")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        where = "S" if self.everywhere else "x*"
        return (
            f"REC({about(self.alpha, 4)}, {about(self.beta, 4)}), κ = {about(self.kappa, 4)},"
            f" θ = {about(self.theta, 4)} at {where}, δ = {about(self.delta)}, ‖v‖² ≤"
            f" {about(self.noise)}, η = {about(self.step_size, 4)}\n{self.status}"
        )

    def to_dict(self) -> dict[str, Any]:
        names = ("alpha", "beta", "kappa", "theta", "delta", "noise", "step_size", "contracts")
        more = ("everywhere", "rate", "floor", "status")
        values = {name: getattr(self, name) for name in (*names, *more)}
        found: dict[str, Any] = plain(values)
        return found


def _shorter(
    error: float, delta: float, nu: float, theta: float, h: float, kappa: float,
    push: float, alpha: float,
) -> float:  # fmt: skip
    """For η ≤ 1/β: the largest u² with (a + θ + m)u² − 2(m√E + η√αν)u ≤ (h − a)E + δ.

    m = 1 − h, a = ηα. Where √α u < ν the noise can hide A e_{n+1} altogether, and
    (θ + m)u² − 2m√E u ≤ (h − a)E + δ + ην² holds in its place.
    """
    m, a, e = 1 - h, h / kappa, math.sqrt(error)
    lead, right = a + theta + m, (h - a) * error + delta
    if lead <= 0:
        return math.inf
    mix = m * e + push
    u = (mix + math.sqrt(mix**2 + lead * right)) / lead
    hidden = nu / math.sqrt(alpha)
    if u < hidden:
        u, lead = hidden, theta + m
        if lead > 0:
            right += push * hidden
            u = min(u, (m * e + math.sqrt((m * e) ** 2 + lead * right)) / lead)
    return u * u


def _longer(error: float, delta: float, theta: float, s: float, kappa: float) -> float:
    """For η = (1 + s)/β, 0 < s: the largest u² with (1 + θκ)u² − 2s√E u ≤ (κ − 1)E + κδ.

    That takes ‖A e_n‖² ≥ αE and is so for u ≤ √E/s; beyond, ‖A e_n‖ may be s‖A e_{n+1}‖, and
    (1 − s² + θκ)u² ≤ κ(E + δ) holds in its place. Nothing is bounded for s ≥ 1.
    """
    lead, e = 1 + theta * kappa, math.sqrt(error)
    if s >= 1 or lead <= 0:
        return math.inf
    u = (s * e + math.sqrt((s * e) ** 2 + lead * ((kappa - 1) * error + kappa * delta))) / lead
    if u <= e / s:
        return u * u
    lead -= s * s
    return kappa * (error + delta) / lead if lead > 0 else math.inf


def _staying(error: float, delta: float, theta: float, s: float, kappa: float) -> float:
    """For η = (1 + s)/β, 0 < s ≤ θ/2, and P obtuse against x_n:
    θ(κ(θ − s) + 1 + s)‖e_{n+1}‖² ≤ (κ(θ − s) − (θ − 2s)(1 + s))E + θκδ."""
    rest = (kappa * (theta - s) - (theta - 2 * s) * (1 + s)) * error + theta * kappa * delta
    return rest / (theta * (kappa * (theta - s) + 1 + s))


def obtuse_bound(
    alpha: float,
    beta: float,
    theta: float,
    delta: float = 0.0,
    *,
    noise: float = 0.0,
    step_size: float | None = None,
    everywhere: bool = False,
) -> ObtuseBound:
    """The bound on ‖x_n − x*‖² for a projector that is obtuse by θ.

    At η = 1/β without noise ‖e_{n+1}‖² ≤ ((κ − 1)/(1 + θκ))‖e_n‖² + κδ/(1 + θκ). For h = ηβ,
    m = 1 − h ≥ 0, a = ηα and ν = ‖v‖ it is the largest u² with
    (a + θ + m)u² − 2(m‖e_n‖ + η√αν)u ≤ (h − a)‖e_n‖² + δ; for s = h − 1 > 0 and ν = 0 with
    (1 + θκ)u² − 2s‖e_n‖u ≤ (κ − 1)‖e_n‖² + κδ. If P is obtuse by θ against x_n too and s ≤ θ/2,
    θ(κ(θ − s) + 1 + s)‖e_{n+1}‖² ≤ (κ(θ − s) − (θ − 2s)(1 + s))‖e_n‖² + θκδ.

    Args:
        alpha, beta: the restricted eigenvalue constants, 0 < α ≤ β, of squared norms.
        theta: θ. More than 1 counts as 1; below 0 nothing but the algebra is left of its meaning.
        delta: δ ≥ 0, an excess of squared distance.
        noise: bound on ‖v‖², at least 0.
        step_size: η > 0; None is 1/β.
        everywhere: whether P is obtuse by θ on all of S, in particular against x_n, as for a set
            of reach τ. By default it is so against x* only.

    Raises:
        ValueError: an argument is out of range; noise with a step longer than 1/β, for which this
            is not derived. TypeError: it is no number.
    """
    alpha, beta = checks.number(alpha, "alpha"), checks.number(beta, "beta")
    if alpha > beta:
        raise ValueError(f"alpha must not exceed beta, got alpha {alpha} and beta {beta}")
    bound = ObtuseBound(
        alpha=alpha,
        beta=beta,
        theta=checks.number(theta, "theta", zero=True, negative=True),
        delta=checks.number(delta, "delta", zero=True),
        noise=checks.number(noise, "noise", zero=True),
        step_size=1 / beta if step_size is None else checks.number(step_size, "step_size"),
        everywhere=checks.flag(everywhere, "everywhere"),
    )
    if bound.noise > 0 and bound.relative_step > 1:
        raise ValueError(
            f"step_size must be at most 1/beta = {1 / beta:g} where there is noise, got"
            f" {bound.step_size:g}"
        )
    return bound


# ---------------------------------------------------------------------------------------------
# What a run did
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Obtuseness(Drawn):
    """θ_n and κ_n of every step, and what the bound with a run's own constants says of it.

    Rows are iterations, columns are images. Everything per image counts from x_start on.
    """

    theta: Float[torch.Tensor, "n_iter batch"]
    """θ_n = (‖x* − w_n‖² − ‖x_{n+1} − w_n‖²)/‖x_{n+1} − x*‖², the θ of this step at δ = 0; NaN
    where x_{n+1} = x*."""
    kappa: Float[torch.Tensor, "n_iter batch"]
    """κ_n = β_n/α_n; NaN where x_n = x* or x_{n+1} = x_n."""
    relative_step: Float[torch.Tensor, "n_iter batch"]
    """h_n = ηβ_n, β_n = ‖A d_n‖²/‖d_n‖²; NaN where x_{n+1} = x_n."""
    error: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """‖x_n − x*‖²."""
    alpha: PerImage
    """The least ‖A e_n‖²/‖e_n‖² of the run."""
    beta: PerImage
    """The largest ‖A d_n‖²/‖d_n‖² of the run."""
    run_theta: PerImage
    """Of all θ with a δ that every step of the run satisfies, that of the lowest floor; at most 1.
    What noise added to a step counts as δ."""
    run_delta: PerImage
    """The least δ that every step satisfies with `run_theta`,"""
    plain_delta: PerImage
    """and with θ = 0, which is all that Theorem 1 asks for."""
    step_size: float
    start: int

    @property
    def product(self) -> Float[torch.Tensor, "n_iter batch"]:
        """κ_n(1 − θ_n)."""
        return self.kappa * (1 - self.theta)

    @property
    def limit(self) -> Float[torch.Tensor, "n_iter batch"]:
        """2 min(h_n, 2 − h_n), below which κ_n(1 − θ_n) must lie for the bound to contract."""
        return 2 * torch.minimum(self.relative_step, 2 - self.relative_step)

    def bounds(self) -> list[ObtuseBound]:
        """The bound of every image, with its own constants; it holds along its run.

        Raises:
            ValueError: an image's run says nothing of A, since it never moved or began at x*.
        """
        rows = zip(
            *(c.tolist() for c in (self.alpha, self.beta, self.run_theta, self.run_delta)),
            strict=True,
        )
        return [
            obtuse_bound(min(a, b), b, theta, delta, step_size=self.step_size)
            for a, b, theta, delta in rows
        ]

    @property
    def floor(self) -> PerImage:
        """Where each image's bound settles; ∞ where it does not contract, NaN without constants."""
        return self._floor(self.run_theta, self.run_delta)

    @property
    def plain_floor(self) -> PerImage:
        """The same for θ = 0, the image's own κ and `plain_delta`."""
        return self._floor(torch.zeros_like(self.run_theta), self.plain_delta)

    def _floor(self, theta: PerImage, delta: PerImage) -> PerImage:
        known = (self.alpha > 0) & (self.beta > 0)
        margin = theta - _threshold(self.alpha, self.beta, self.step_size)
        return torch.where(known, torch.where(margin > 0, delta / margin, math.inf), math.nan)

    @property
    def explained(self) -> torch.Tensor:
        """Whether each image's bound contracts to below ‖e_start‖²: bool, (batch,)."""
        return self.floor < self.error[self.start]

    @property
    def fell(self) -> torch.Tensor:
        """Whether the error of each image ended below where it started: bool, (batch,)."""
        return self.error[-1] < self.error[self.start]

    @property
    def status(self) -> str:
        """For how many images θ explains that the error fell, in words."""
        fell, total = int(self.fell.sum()), len(self.fell)
        both = int((self.explained & self.fell).sum())
        plain = int(((self.plain_floor < self.error[self.start]) & self.fell).sum())
        if not fell:
            return f"the error of {out_of(0, total)} fell: there is nothing to explain"
        return (
            f"the error fell for {out_of(fell, total)}; obtuseness explains it for {both or 'none'}"
            f" of these, and θ = 0 for {plain or 'none'}"
        )

    def draw(self, axis: Axes) -> None:
        """κ_n(1 − θ_n) along the run, and the limit below which a step contracts."""
        product, limit = self.product.double().cpu(), self.limit.double().cpu()
        n = torch.arange(len(product))
        later = n >= self.start
        bottom, middle, top = (product.nanquantile(q, dim=1) for q in (0.25, 0.5, 0.75))
        axis.fill_between(
            n[later], bottom[later], top[later], color=COLOURS["alpha"], alpha=0.2, lw=0,
            label="half of the images",
        )  # fmt: skip
        axis.plot(n[later], middle[later], color=COLOURS["alpha"], label="κₙ(1 − θₙ), median")
        axis.plot(
            n[later], limit.nanmedian(1).values[later], "--", color=COLOURS["uniform"], lw=1.2,
            label="the limit, median",
        )  # fmt: skip
        axis.axhline(0, color="black", lw=0.6)
        iterations(axis)
        axis.set_ylabel("κₙ(1 − θₙ)")
        if bool(product[later].isnan().all()):
            says(axis, "at no step are θₙ and κₙ defined")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        theta, kappa = self.theta[self.start :], self.kappa[self.start :]
        product, steps = self.product[self.start :], self.error[self.start :]
        seen = ~product.isnan()
        falls = (steps[1:] < steps[:-1])[seen]
        below = (product < self.limit[self.start :])[seen]
        over = quotient(self.floor, self.error[-1])[self.explained]
        count = f"{out_of(int(below.sum()), below.numel(), 'step')}"
        agree = f"{out_of(int((falls == below).sum()), below.numel(), 'step')}"
        lines = [
            f"{len(theta)} steps of {theta.shape[1]} images from x_{self.start}, η ="
            f" {about(self.step_size, 4)}",
            f"  θ_n: median {about(median(theta))}, {_range(theta)}",
            f"  κ_n: median {about(median(kappa))}, {_range(kappa)}",
            f"  κ_n(1 − θ_n) < 2 min(h_n, 2 − h_n), h_n = ηβ_n, at {count}",
            f"  which says rightly whether the error falls at {agree}",
            f"  κ of a run: median {about(median(quotient(self.beta, self.alpha)))}; its θ: median"
            f" {about(median(self.run_theta))}",
        ]
        if over.numel():
            lines.append(
                "  floor of the bound over the last error, where explained: median"
                f" {about(median(over))}, at most {at_most(float(over.nan_to_num(0).max()))}"
            )
        return "\n".join([*lines, f"  {self.status}"])

    def to_dict(self) -> dict[str, Any]:
        names = (
            "theta",
            "kappa",
            "relative_step",
            "error",
            "alpha",
            "beta",
            "run_theta",
            "run_delta",
            "floor",
        )
        return {
            "step_size": self.step_size,
            "start": self.start,
            **{name: plain(getattr(self, name)) for name in names},
            "explained": self.explained.tolist(),
            "fell": self.fell.tolist(),
            "status": self.status,
        }


def obtuseness(
    A: LinearOperator,
    y: Measurements,
    x_true: Images,
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"],
    step_size: float,
    start: int = 1,
) -> Obtuseness:
    """Measure θ_n and κ_n along the iterates, and whether they explain that the error fell.

    θ_n = −δ_n/‖e_{n+1}‖² with the δ_n of `decompose`: the largest θ with which P is obtuse at w_n
    with δ = 0. Convex sets have θ_n ≥ 1, affine ones θ_n = 1.

    A run's own constants are α = min ‖A e_n‖²/‖e_n‖², β = max ‖A d_n‖²/‖d_n‖², and every (θ, δ)
    with δ_n + 2η⟨A e_{n+1}, v⟩ ≤ δ − θ‖e_{n+1}‖² at each step. Of these pairs the one with the
    lowest floor, δ/(2 min(h, 2 − h)/κ − 1 + θ) with h = ηβ, is taken. The bound with them holds
    along the run, whatever S is: it is the one-step identity and nothing else.

    Args:
        A, y, x_true, iterates: as for `decompose`.
        step_size: η > 0, one number: the bound with a run's constants has one step. Of a run with
            steps of its own, θ_n is −δ_n/‖e_{n+1}‖² of `decompose`.
        start: the first iterate that counts, 1 if x_0 is Aᵀy; 0 counts every iterate.

    Raises:
        ValueError, TypeError: as `decompose`; `step_size` is not one number; or `start` leaves no
            step.
    """
    step_size = checks.number(step_size, "step_size")
    parts = decompose(A, y, x_true, iterates, step_size)
    start, last = checks.integer(start, "start", minimum=0), len(parts.delta) - 1
    if start > last:
        raise ValueError(f"start must be below the number of steps, {last + 1}, got {start}")
    error = parts.error
    alpha = quotient(parts.range_objective, error)[start:].nan_to_num(nan=math.inf).amin(0)
    beta = parts.beta[start:].nan_to_num(nan=-math.inf).amax(0)
    known = alpha.isfinite() & beta.isfinite()
    alpha, beta = (torch.where(known, c, math.nan) for c in (alpha, beta))
    # β(x_{n+1}, x_n) below α(x_n, x*): β = α holds as well.
    beta = torch.maximum(alpha, beta)
    theta, delta, plain_delta = _own(parts, alpha, beta, step_size, start)
    return Obtuseness(
        theta=quotient(-parts.delta, error[1:]),
        kappa=quotient(parts.beta, parts.alpha),
        relative_step=step_size * parts.beta,
        error=error,
        alpha=alpha,
        beta=beta,
        run_theta=theta,
        run_delta=delta,
        plain_delta=plain_delta,
        step_size=step_size,
        start=start,
    )


def _range(values: torch.Tensor) -> str:
    kept = values[~values.isnan()]
    return spread(float(kept.min()), float(kept.max())) if kept.numel() else "nothing"


def _threshold(alpha: PerImage, beta: PerImage, step_size: float) -> PerImage:
    """The θ from which on the bound contracts: 1 − 2 min(h, 2 − h)/κ."""
    h = step_size * beta
    return 1 - 2 * torch.minimum(h, 2 - h) * alpha / beta


def _own(
    parts: Decomposition, alpha: PerImage, beta: PerImage, step_size: float, start: int
) -> tuple[PerImage, PerImage, PerImage]:
    """The pair (θ, δ) of the lowest floor that every step satisfies, and the δ of θ = 0.

    With t = 1/(θ − θ_0), θ_0 = `_threshold`, the floor is max(0, max_n E_{n+1} + t(δ_n + θ_0
    E_{n+1})), which is convex in t: found by golden sections of log t. Every pair looked at holds.
    """
    error = parts.error[start + 1 :]
    hidden = parts.range_objective[1:] + parts.noise - parts.objective[1:]  # 2⟨A e_{n+1}, v⟩
    excess = parts.delta[start:] + step_size * hidden[start:]
    least = _threshold(alpha, beta, step_size)
    slope = excess + least * error

    def floor(log_t: PerImage) -> PerImage:
        return (error + log_t.exp() * slope).amax(0).clamp_min(0)

    low = -(1 - least).clamp_min(1e-300).log()  # θ ≤ 1
    # The least t of floor 0, where there is one, is exact: θ is then the least θ_n.
    zero = quotient(error, -slope).amax(0).log() if len(error) else low
    high, golden = low + 40, (math.sqrt(5) - 1) / 2
    a, b = low, high
    for _ in range(80):
        p, q = b - golden * (b - a), a + golden * (b - a)
        left = floor(p) <= floor(q)
        a, b = torch.where(left, a, p), torch.where(left, q, b)
    best = torch.where(floor(low) <= floor(b), low, b)
    best = torch.where((slope < 0).all(0), torch.maximum(zero, low), best)
    theta = least + (-best).exp()
    delta = (excess + theta * error).amax(0).clamp_min(0)
    return theta, delta, excess.amax(0).clamp_min(0)
