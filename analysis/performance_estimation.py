"""The exact worst case of projected gradient descent, by semidefinite programming.

How large can F_N = ‖A x_N − y‖² be, given F_0 = 1, over every A with REC(α, β), every set S and
every projector within δ of the distance to S? One iteration is
w_n = x_n − η Aᵀ(A x_n − y), x_{n+1} = P(w_n), with y = A x* + v, x* and x_0 in S, ‖v‖² ≤ noise.

With e_n = x_n − x*, everything the question mentions is linear in two Gram matrices,
G_ij = ⟨e_i, e_j⟩ and H_ij = ⟨A e_i, A e_j⟩ (H has one more row for v):

- REC on every two of {x*, x_0, …, x_N}: α‖p − q‖² ≤ ‖A(p − q)‖² ≤ β‖p − q‖²;
- the projector, for every n and every s in {x*, x_0, …, x_N}: ‖x_{n+1} − w_n‖² ≤ ‖s − w_n‖² + δ.
  The term ‖Aᵀ(A x_n − y)‖², which neither Gram matrix holds, cancels: with r_n = A e_n − v,
  ‖s − w_n‖² − η²‖Aᵀ r_n‖² = ‖s − x_n‖² + 2η⟨A(s − x_n), r_n⟩.

A projector that is obtuse by θ satisfies the same with θ‖x_{n+1} − s‖² on the left
(`analysis.obtuse`).

Conversely Gram matrices G ≻ 0 and H ⪰ 0 come from vectors and from one matrix A that maps the
ones to the others, so the maximum over them is the worst case: a lower bound that an explicit
instance attains, and an upper bound that the multipliers prove. This is performance estimation
(Drori and Teboulle 2014; Taylor, Hendrickx and Glineur 2017), with restricted eigenvalues of A and
an inexact projection onto a non-convex set in the place of convexity.

For η = 1/β, κ = β/α < 2 and without noise the answer is Theorem 1 of Raj, Li, Bresler (ICCV 2019),
(κ−1)ᴺ + βδ Σ_{i<N} (κ−1)ⁱ, as long as 1 ≥ βδ(κ−1)/(1−(κ−1)²), which is where `tight_instance`
attains it. Otherwise F_0 stands far below its floor and rises; there, and for κ ≥ 2, the worst case
is the smaller number that `closed_form` gives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.adversary import Instance, still_instance, tight_grams, tight_instance
from analysis.gram_program import (
    RELATIVE_GAP,
    START,
    GramProgram,
    Matrix,
    Multipliers,
    NotSolved,
    point_name,
    round_up,
)
from analysis.words import at_least, at_most
from npgd.showing import Drawn, Shown, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = ("objective", "distance")
MOST_STEPS = 10**6
"""More steps than any program, or loop over them, comes to an end with."""


# ---------------------------------------------------------------------------------------------
# The bound that induction gives
# ---------------------------------------------------------------------------------------------


def step_bound(
    objective: float,
    alpha: float,
    beta: float,
    step_size: float,
    delta: float = 0.0,
    noise: float = 0.0,
) -> float:
    """An upper bound on F_{n+1} = ‖A x_{n+1} − y‖² from F_n, for any step size η and any κ.

    With s = ηβ − 1, t = √F_n, ν = ‖v‖ and Δ = 2|κ−1−s|νt + κν² + βδ, √F_{n+1} is at most

    - |s|t + √((s² + κ−1)t² + Δ), from comparing x_{n+1} with x*;
    - |s|t + √((1+s)²t² + βδ), from comparing it with x_n;
    - for m = −s > 0 and h = 1 + (κ−1)m, (κmt + √(κ²m²t² + h((κ−1)(1−m)t² + Δ)))/h where that does
      not exceed t: with the comparison with x*, and what ‖d_n‖² is above ‖A d_n‖²/β.

    `theorem.derive` proves all three ("Other step sizes", "Shorter steps"). At η = 1/β, ν = 0 the
    first is Theorem 1, (κ−1)F_n + βδ. Without noise the semidefinite program attains the least of
    them in one step (to 1e-6, where tried). For ν = δ = 0 it is below F_n exactly for
    κ/2 < ηβ < 2 − κ/2, and F_n for every shorter step.

    Raises:
        ValueError: an argument is out of range; TypeError: it is no number.
    """
    alpha, beta, step_size, delta, noise = _constants(alpha, beta, step_size, delta, noise)
    from npgd import checks

    objective = checks.number(objective, "objective", zero=True)
    s, nu, kappa = step_size * beta - 1, math.sqrt(noise), beta / alpha
    excess = (beta - alpha) / alpha  # κ − 1, without cancellation
    if abs(s) < 1e-14:  # η = 1/β up to rounding
        s = 0.0
    t, m = math.sqrt(objective), abs(s)
    drive = 2 * abs(excess - s) * nu * t + kappa * noise + beta * delta
    if s < 0:
        h = 1 + excess * m
        inside = (kappa * m * t) ** 2 + h * (excess * (1 - m) * objective + drive)
        root = (kappa * m * t + math.sqrt(inside)) / h
        if root <= t:
            return root * root
    star = m * t + math.sqrt((s * s + excess) * objective + drive)
    stay = m * t + math.sqrt((1 + s) ** 2 * objective + beta * delta)
    return min(star, stay) ** 2


def closed_form(alpha: float, beta: float, n_iter: int, delta: float = 0.0) -> float:
    """The worst F_N after N steps from F_0 = 1 at η = 1/β without noise, for every κ ≥ 1.

    With r = min(κ − 1, 1): f_1 = r + βδ and f_{n+1} = min(r f_n + βδ, f_n + βδ r/(1 + r)).
    The first is Theorem 1; the second, from comparing x_{n+1} with x_{n−1}, is the less where f_n
    is below βδ/(1 − r²), in particular for every κ ≥ 2, where f_N ≤ 1 + βδ(N + 1)/2. That this is
    a bound is proved in `theorem.derive`; that nothing smaller is, the semidefinite program says
    (to 1e-6 and better, over random κ in [1, 4], βδ in [0, 10], N ≤ 6).

    Raises:
        ValueError, TypeError: an argument is out of range.
    """
    alpha, beta, _, delta, _ = _constants(alpha, beta, 1.0, delta, 0.0)
    r = min((beta - alpha) / alpha, 1.0)
    f = r + beta * delta
    for _ in range(_steps(n_iter) - 1):
        f = min(r * f + beta * delta, f + beta * delta * r / (1 + r))
    return f


def one_step_multipliers(alpha: float, beta: float, step_size: float) -> dict[str, float]:
    """The dual solution for N = 1, noise 0, in closed form: the proof of the theorem as numbers.

    With s = ηβ − 1, R = √(s² + κ − 1), q = |s| + R and λ = q/R: λβ on the projection against x*,
    λ on ‖A d_0‖² ≤ β‖d_0‖², λκ on α‖e_0‖² ≤ ‖A e_0‖², and q² on F_0 = 1. Their sum is
    f_1 ≤ q² f_0 + λβδ. For η = 1/β: λ = 1, q² = κ − 1, and nothing is lost, which is Theorem 1.

    For m = −s > 0 and κ < 2 − 2m, with h = 1 + (κ−1)m, q = (κm + √(κ²m² + h(κ−1)(1−m)))/h and
    λ = q/(hq − κm): λβ, λ(1−m), λκ(1−m+mq), and λκm(1−q)/q on α‖e_1‖² ≤ ‖A e_1‖².

    `theorem.derive` verifies both symbolically. They are optimal at δ = 0 and κ ≤ 2ηβ.

    Raises:
        ValueError: α > β, or κ = 1 and η = 1/β, where f_1 = βδ is bounded with q = 0, R = 0.
    """
    alpha, beta, step_size, _, _ = _constants(alpha, beta, step_size, 0.0, 0.0)
    s, kappa = step_size * beta - 1, beta / alpha
    if -1 < s < 0 and kappa < 2 + 2 * s:
        h = 1 - (kappa - 1) * s
        root = math.sqrt((kappa * s) ** 2 + h * (kappa - 1) * (1 + s))
        q = (root - kappa * s) / h
        weight = q / root
        return {
            "projection(x_1 | x*)": weight * beta,
            "beta(x_0, x_1)": weight * (1 + s),
            "alpha(x*, x_0)": weight * kappa * (1 + s - s * q),
            "alpha(x*, x_1)": -weight * kappa * s * (1 - q) / q,
            START: q * q,
        }
    radius = math.sqrt(s * s + kappa - 1)
    if radius == 0:
        raise ValueError(
            f"alpha must be less than beta when step_size is 1/beta, got {alpha} for both"
        )
    q = abs(s) + radius
    return {
        "projection(x_1 | x*)": q / radius * beta,
        "beta(x_0, x_1)": q / radius,
        "alpha(x*, x_0)": q / radius * kappa,
        START: q * q,
    }


def _is_theorems_step(beta: float, step_size: float) -> bool:
    """Whether η = 1/β up to rounding."""
    return abs(step_size * beta - 1) < 1e-14


def _attaining(
    alpha: float,
    beta: float,
    step_size: float,
    n_iter: int,
    delta: float,
    noise: float,
    theta: float,
) -> tuple[Matrix, Matrix] | None:
    """Gram matrices G, H that attain `closed_form`, where they are known in closed form.

    That is for η = 1/β without noise and θ = 0: for κ < 2 if F_0 = 1 does not lie far below its
    floor, and for κ ≥ 2 with an exact projector.
    """
    if noise > 0 or theta > 0 or not _is_theorems_step(beta, step_size):
        return None
    if beta < 2 * alpha:
        with suppress(ValueError):  # far below its floor
            return tight_grams(alpha, beta, n_iter, delta)
    elif delta == 0:
        still = np.ones((n_iter + 1, n_iter + 1))
        return still / alpha, still
    return None


def _induction_multipliers(
    alpha: float, beta: float, step_size: float, n_iter: int, delta: float, measure: str
) -> dict[str, Fraction]:
    """Rational multipliers that prove a bound without a solver, for any step and no noise.

    One step, against x* with K = κ − 1, or against x_n with K = 1 + 2s: λβ on the projector, λ on
    β(x_n, x_{n+1}) and, against x*, λκ on α(x*, x_n) leave of F_{n+1} ≤ Q F_n + λβδ the form
    (λ−1)‖A e_{n+1}‖² + 2λs⟨A e_n, A e_{n+1}⟩ + (Q − λK)‖A e_n‖², which is a sum of squares for
    Q = λK + λ²s²/(λ−1). The theorem's own are λ = 1, s = 0; λ > 1 takes up that a float η is not
    exactly 1/β. Step n is weighed with Q^{N−1−n}.
    """
    a, b, d = Fraction(alpha), Fraction(beta), Fraction(delta)
    s = Fraction(step_size) * b - 1
    best: tuple[Fraction, dict[str, Fraction]] | None = None
    for against_truth, K in ((True, b / a - 1), (False, 1 + 2 * s)):
        if K < 0:
            continue
        # λ − 1 = |s|/√(K + s² + βδ) is best for one step.
        lam = 1 + (Fraction(float(abs(s)) / math.sqrt(K + s**2 + b * d)) if s else 0)
        Q = lam * K + (lam**2 * s**2 / (lam - 1) if s else 0)
        weights = {START: Q**n_iter}
        for n in range(n_iter):
            weight = lam * Q ** (n_iter - 1 - n)
            here, after = point_name(n), point_name(n + 1)
            star = "x*" if against_truth else here
            weights[f"projection({after} | {star})"] = weight * b
            weights[f"beta({here}, {after})"] = weight
            if against_truth:
                weights[f"alpha(x*, {here})"] = weight * b / a
        total = Q**n_iter + lam * b * d * sum(Q**n for n in range(n_iter))
        if best is None or total < best[0]:
            best = total, weights
    assert best is not None  # κ ≥ 1
    weights = best[1]
    if measure == "distance":  # α‖e_N‖² ≤ ‖A e_N‖²
        weights = {name: weight / a for name, weight in weights.items()}
        weights[f"alpha(x*, {point_name(n_iter)})"] = 1 / a
    return weights


def _constants(
    alpha: float, beta: float, step_size: float, delta: float, noise: float
) -> tuple[float, float, float, float, float]:
    # Here rather than above: it brings torch, and `import analysis` imports this module.
    from npgd import checks

    alpha, beta = checks.number(alpha, "alpha"), checks.number(beta, "beta")
    if alpha > beta:
        raise ValueError(f"alpha must not exceed beta, got alpha {alpha} and beta {beta}")
    return (
        alpha,
        beta,
        checks.number(step_size, "step_size"),
        checks.number(delta, "delta", zero=True),
        checks.number(noise, "noise", zero=True),
    )


def _inverse(beta: float) -> float:
    from npgd import checks

    return 1 / checks.number(beta, "beta")


def _steps(n_iter: int) -> int:
    from npgd import checks

    return checks.integer(n_iter, "n_iter", maximum=MOST_STEPS)


def _angle(theta: float) -> float:
    from npgd import checks

    theta = checks.number(theta, "theta", zero=True)
    if theta > 1:
        raise ValueError(f"theta must be at most 1, got {theta}")
    return theta


def _measured(measure: str) -> str:
    from npgd import checks

    return checks.choice(measure, "measure", *MEASURES)


# ---------------------------------------------------------------------------------------------
# The worst case
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class WorstCase(Drawn):
    """A certified bracket [value, dual_bound] around the worst case, and what proves each end."""

    alpha: float
    beta: float
    step_size: float
    n_iter: int
    delta: float
    noise: float
    theta: float
    """θ of an obtuse projector; 0 is any projector within δ."""
    measure: str
    """What is bounded: "objective" for F_N, "distance" for ‖x_N − x*‖²."""
    value: float
    """F_N (or ‖x_N − x*‖²) of Gram matrices that satisfy every constraint."""
    dual_bound: float
    """Upper bound that `multipliers` alone prove, in rational arithmetic, rounded up."""
    induction_bound: float
    """`analysis.predicted_objective` from F_0 = 1; for measure "distance" the bound on
    ‖x_N − x*‖² that follows from it, (√F_N + ‖v‖)²/α. With θ > 0 the less of that and of what
    `analysis.obtuse_bound` says from ‖x_0 − x*‖² = (1 + ‖v‖)²/α."""
    closed_form: float | None
    """What `closed_form` says (divided by α for "distance"); with θ > 0, for "distance", what
    `analysis.obtuse_bound` says if it contracts and 1/α is half its floor or more, and 1/α if it
    does not contract and δ = 0. None elsewhere, with noise, and for steps other than 1/β, where no
    closed form is known."""
    multipliers: tuple[tuple[str, Fraction], ...] = field(repr=False)
    """(constraint, multiplier): all that are not zero, exactly; "F_0 = 1" comes last."""
    gram: Matrix = field(repr=False)
    """G_ij = ⟨e_i, e_j⟩, (N + 1, N + 1)."""
    image_gram: Matrix = field(repr=False)
    """H_ij = ⟨A e_i, A e_j⟩, with a last row and column for v if noise > 0."""
    status: str
    """How narrow the bracket is and where it comes from, in words."""
    seconds: float
    """Wall time."""

    @property
    def kappa(self) -> float:
        return self.beta / self.alpha

    @property
    def gap(self) -> float:
        """dual_bound − value, never negative."""
        return self.dual_bound - self.value

    def instance(self) -> Instance:
        """An explicit A, set S and start that attain the value, see `Instance`.

        The program is solved once more, with G bounded below and every inequality strict by a
        margin of 1e-8 in scaled units. Where the worst case is a supremum only, approached as
        ‖A‖ grows (η < 1/β, and N ≥ 2 with noise), that bound keeps A finite, at a loss of less
        than 1e-4.
        """
        constants = (self.alpha, self.beta, self.step_size, self.n_iter, self.delta, self.noise)
        program, g, h = _pose(*constants, self.measure, self.theta)
        for margin, floor in ((1e-8, 1e-7), (1e-8, 1e-6), (1e-7, 1e-6)):
            if self.alpha == self.beta:
                break
            try:
                found = program.feasible(program.solve(g, h, margin, floor))
            except NotSolved:
                continue
            if found is not None:
                return Instance.from_grams(
                    *found,
                    alpha=self.alpha,
                    beta=self.beta,
                    step_size=self.step_size,
                    delta=self.delta,
                    measure=self.measure,
                )
        if _attaining(*constants, self.theta) is not None:
            still = self.beta >= 2 * self.alpha or self.value == 0
            instance = (
                still_instance(self.alpha, self.beta, self.n_iter)
                if still
                else tight_instance(self.alpha, self.beta, self.n_iter, self.delta)
            )
            return replace(
                instance, step_size=self.step_size, promised=self.value, measure=self.measure
            )
        raise RuntimeError(
            "no instance: the solver found no strictly feasible Gram matrices for"
            f" alpha {self.alpha:g}, beta {self.beta:g}, step_size {self.step_size:g}; move the"
            " constants away from the edge (alpha = beta), or scale A so that beta is near 1"
        )

    def proof(self) -> dict[str, Any]:
        """The upper bound and everything that proves it, every number exact as "p/q", for JSON.

        `docs/mathematics/check_certificate.py` verifies it, with Python's `fractions` alone: no
        multiplier of an inequality is negative, the slack is positive semidefinite, and the
        multipliers times their right sides add up to no more than `bound`.
        """
        exact = {
            name: str(Fraction(getattr(self, name)))
            for name in ("alpha", "beta", "step_size", "delta", "noise", "theta")
        }
        return {
            **exact,
            "n_iter": self.n_iter,
            "measure": self.measure,
            "bound": str(Fraction(self.dual_bound)),
            "multipliers": {name: str(weight) for name, weight in self.multipliers},
        }

    @property
    def path(self) -> np.ndarray:
        """F_n, or ‖x_n − x*‖², along the run that attains `value`."""
        count = self.n_iter + 1
        if self.measure == "distance":
            return np.asarray(np.diag(self.gram)[:count])
        squared = np.asarray(np.diag(self.image_gram)[:count])
        if len(self.image_gram) > count:  # A x_n − y = A e_n − v
            squared = squared - 2 * self.image_gram[:count, count] + self.image_gram[count, count]
        return squared

    def draw(self, axis: Axes) -> None:
        """The run that attains the value, and what is proved of its end."""
        n = range(self.n_iter + 1)
        axis.plot(n, self.path, "o-", label="the worst run")
        for bound, style, label in (
            (self.dual_bound, "_", "dual bound"),
            (self.induction_bound, "x", "induction"),
        ):
            if np.isfinite(bound):
                axis.plot(self.n_iter, bound, style, ms=10, label=label)
        quantity = "‖A xₙ − y‖²" if self.measure == "objective" else "‖xₙ − x*‖²"
        axis.set(xlabel="iteration n", ylabel=quantity)
        axis.set_xticks(n if self.n_iter < 12 else [0, self.n_iter])
        axis.legend()

    def __str__(self) -> str:
        lines = [
            f"{self.title}",
            f"  induction    {at_most(self.induction_bound, 10)}",
            f"  dual bound   {at_most(self.dual_bound, 10)}",
            f"  value        {at_least(self.value, 10)}",
            f"  {self.status}",
        ]
        if self.closed_form is not None:
            lines.insert(2, f"  closed form  {self.closed_form:.10g}")
        return "\n".join(lines)

    @property
    def title(self) -> str:
        """The question, in one line."""
        quantity = "F_N = ‖A x_N − y‖²" if self.measure == "objective" else "‖x_N − x*‖²"
        return (
            f"Worst {quantity} after N = {self.n_iter} steps from F_0 = 1:"
            f" REC({self.alpha:.6g}, {self.beta:.6g}), κ = {self.kappa:.6g},"
            f" η = {self.step_size:.6g}, δ = {self.delta:g}, ‖v‖² ≤ {self.noise:g}"
            + (f", θ = {self.theta:g}" if self.theta else "")
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "kappa": self.kappa,
            "step_size": self.step_size,
            "n_iter": self.n_iter,
            "delta": self.delta,
            "noise": self.noise,
            "theta": self.theta,
            "measure": self.measure,
            "value": self.value,
            "dual_bound": self.dual_bound,
            "induction_bound": self.induction_bound,
            "closed_form": self.closed_form,
            "proof": self.proof(),
            "gram": self.gram.tolist(),
            "image_gram": self.image_gram.tolist(),
            "status": self.status,
            "seconds": self.seconds,
        }


def worst_case(
    alpha: float,
    beta: float,
    step_size: float,
    n_iter: int,
    delta: float = 0.0,
    noise: float = 0.0,
    measure: str = "objective",
    theta: float = 0.0,
) -> WorstCase:
    """The worst F_N = ‖A x_N − y‖² after N steps of NPGD from F_0 = 1, certified on both sides.

    The maximum is over every linear A with REC(α, β) on S, every S that holds x* and x_0, and
    every P with ‖x − P(x)‖² ≤ min_{s∈S} ‖x − s‖² + δ. With noise it is over every v with
    ‖v‖² ≤ noise too; F is then what the solver sees, residual noise included, and F_0 = 1 fixes
    ‖A e_0 − v‖² (not ‖A e_0‖²). Everything is homogeneous: for another F_0, divide δ and noise
    by it and multiply the value.

    Args:
        alpha, beta: the restricted eigenvalue constants, 0 < α < β, of squared norms.
        step_size: η > 0; Theorem 1 wants 1/β.
        n_iter: N ≥ 1.
        delta: δ ≥ 0, an excess of squared distance.
        noise: bound on ‖v‖², at least 0.
        measure: "objective" for F_N, "distance" for ‖x_N − x*‖².
        theta: θ in [0, 1] of projectors that are obtuse on all of S, ‖x − P(x)‖² ≤ ‖x − s‖² −
            θ‖P(x) − s‖² + δ for every s in S: 1 for convex sets, 0 asks nothing more.

    Where the solver fails and the worst case is known in closed form (η = 1/β, no
    noise, and κ < 2 unless F_0 lies far below its floor, or κ ≥ 2 and δ = 0), the bracket is
    that of the closed form, with its own multipliers and Gram matrices.

    Raises:
        ValueError, TypeError: an argument is out of range, by name.
        RuntimeError: the solver did not converge, or the bracket stayed wider than 1e-4 relative
            (1e-5 is sought, and missed only where steps shrink to nothing, η far below 1/β).
            No number is returned then; the message says what to do.
    """
    began = time.perf_counter()
    alpha, beta, step_size, delta, noise = _constants(alpha, beta, step_size, delta, noise)
    n_iter, theta = _steps(n_iter), _angle(theta)
    _measured(measure)
    constants = (alpha, beta, step_size, n_iter, delta, noise)
    attaining = _attaining(*constants, theta)
    if alpha == beta and attaining is None:
        raise ValueError(
            "alpha must be less than beta unless step_size is 1/beta and noise and theta are 0,"
            " since A is a similarity on S otherwise and the program has no interior, got"
            f" {alpha} for both"
        )
    program, g, h = _pose(*constants, measure, theta)
    source = "certified"
    try:
        if alpha == beta:
            raise NotSolved("the program has no interior")
        value, grams, bound, dual = program.bracket(g, h)
    except NotSolved as error:
        if attaining is None:
            raise RuntimeError(_plain_reason(error, *constants)) from error
        source, grams = "certified in closed form", attaining
        value, bound, dual = _without_solver(program, g, h, grams, *constants[:5], measure)
    exact = None
    if noise == 0 and _is_theorems_step(beta, step_size):
        exact = _exact(alpha, beta, n_iter, delta, measure, theta)
    apart = f"{(bound - value) / value:.1e} relative" if value else f"{bound - value:.1e}"
    return WorstCase(
        alpha=alpha,
        beta=beta,
        step_size=step_size,
        n_iter=n_iter,
        delta=delta,
        noise=noise,
        theta=theta,
        measure=measure,
        value=value,
        dual_bound=bound,
        induction_bound=_induction_bound(*constants, measure, theta),
        closed_form=exact,
        multipliers=program.named(dual),
        gram=grams[0],
        image_gram=grams[1],
        status=f"{source}: value and dual bound agree to {apart}",
        seconds=time.perf_counter() - began,
    )


def _induction_bound(
    alpha: float,
    beta: float,
    step_size: float,
    n_iter: int,
    delta: float,
    noise: float,
    measure: str = "objective",
    theta: float = 0.0,
) -> float:
    from analysis.obtuse import obtuse_bound
    from analysis.rates import predicted_objective

    predicted = predicted_objective(
        1.0, n_iter, alpha, beta, delta, step_size=step_size, noise=noise
    )
    bound = float(predicted[-1])
    if measure == "distance":
        bound = (math.sqrt(bound) + math.sqrt(noise)) ** 2 / alpha
    if theta > 0 and not (noise > 0 and step_size * beta > 1):
        obtuse = obtuse_bound(
            alpha, beta, theta, delta, noise=noise, step_size=step_size, everywhere=True
        )
        error = obtuse.errors((1 + math.sqrt(noise)) ** 2 / alpha, n_iter)[-1]
        if measure == "objective":
            error = (math.sqrt(beta * error) + math.sqrt(noise)) ** 2
        bound = min(bound, error)
    return bound


def _exact(
    alpha: float, beta: float, n_iter: int, delta: float, measure: str, theta: float
) -> float | None:
    """The worst case at η = 1/β without noise where it is known in closed form."""
    from analysis.obtuse import obtuse_bound

    if theta == 0:
        return closed_form(alpha, beta, n_iter, delta) / (alpha if measure == "distance" else 1)
    bound = obtuse_bound(alpha, beta, theta, delta)
    if measure == "objective":
        return None
    if not bound.contracts:
        return 1 / alpha if delta == 0 else None
    below = n_iter > 1 and 2 / alpha < bound.floor
    return None if below else bound.errors(1 / alpha, n_iter)[-1]


def _without_solver(
    program: GramProgram,
    g: Matrix,
    h: Matrix,
    grams: tuple[Matrix, Matrix],
    alpha: float,
    beta: float,
    step_size: float,
    n_iter: int,
    delta: float,
    measure: str,
) -> tuple[float, float, Multipliers]:
    """The value of Gram matrices known in closed form, the bound and the multipliers beside it."""
    weights = _induction_multipliers(alpha, beta, step_size, n_iter, delta, measure)
    dual = program.from_names(weights)
    if not program.proves(dual, g, h):
        raise AssertionError("the multipliers in closed form prove nothing: this is an error here")
    bound = round_up(program.bound(dual))
    value = float((g * grams[0]).sum() + (h * grams[1]).sum())
    return min(value, bound), bound, dual


def _plain_reason(
    error: NotSolved,
    alpha: float,
    beta: float,
    step_size: float,
    n_iter: int,
    delta: float,
    noise: float,
) -> str:
    """Why there is no number, what is known all the same, and what to try."""
    kappa = beta / alpha
    if kappa < 1.01:
        advice = (
            f"κ − 1 = {kappa - 1:.2g} leaves [α, β] hardly any interior: take alpha at most"
            f" {beta / 1.01:.6g} (κ at least 1.01; a smaller alpha only adds to the worst case), or"
            " step_size 1/beta without noise, where there is a closed form"
        )
    elif kappa > 100:
        advice = (
            f"κ = {kappa:.3g} is too large for the solver's precision: ask for κ at most 100, or"
            " for step_size 1/beta with delta 0 and no noise, where there is a closed form"
        )
    else:
        advice = (
            "many steps, very short steps, and constants far from the order of one are hard on the"
            " solver: ask for fewer steps, or rescale A and y so that beta is 1"
        )
    known = _induction_bound(alpha, beta, step_size, n_iter, delta, noise)
    return (
        f"the worst case was not found: {error}. Proved without a solver is F_N ≤"
        f" {at_most(known, 10)} F_0 (analysis.predicted_objective). {advice} (got alpha {alpha:g},"
        f" beta {beta:g}, step_size {step_size:g}, n_iter {n_iter}, delta {delta:g},"
        f" noise {noise:g})"
    )


def _pose(
    alpha: float,
    beta: float,
    step_size: float,
    n_iter: int,
    delta: float,
    noise: float,
    measure: str = "objective",
    theta: float = 0.0,
) -> tuple[GramProgram, Matrix, Matrix]:
    """The program, and its goal ⟨g, G⟩ + ⟨h, H⟩."""
    from analysis.obtuse import ObtuseBound

    scale = [1.0]
    obtuse = ObtuseBound(alpha, beta, theta, delta, 0.0, step_size, everywhere=True)
    for _ in range(n_iter):
        largest = step_bound(scale[-1], alpha, beta, step_size, delta, noise)
        if theta > 0 and noise == 0:
            largest = min(largest, alpha * obtuse.after(scale[-1] / alpha))
        scale.append(max(largest, 1e-30))
    program = GramProgram.of(alpha, beta, step_size, n_iter, delta, noise, scale, theta)
    g, h = np.zeros((n_iter + 1, n_iter + 1)), np.zeros_like(program.start, dtype=float)
    if measure == "distance":
        g[n_iter, n_iter] = 1
    else:
        last = np.eye(len(h))[n_iter] - (np.eye(len(h))[-1] if noise > 0 else 0)
        h = np.outer(last, last)
    return program, g, h


# ---------------------------------------------------------------------------------------------
# Certificates and sweeps
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Certificate(Shown):
    """A worst case together with the run of NPGD that attains it."""

    worst_case: WorstCase
    theorem_bound: float
    """`WorstCase.induction_bound`."""
    instance_alpha: float
    """α, recomputed from the instance's matrix and points."""
    instance_beta: float
    """β, recomputed likewise."""
    attained: float
    """What NPGD reached on the instance."""

    @property
    def share(self) -> float:
        """attained/value."""
        value = self.worst_case.value
        return self.attained / value if value else float(self.attained == 0)

    @property
    def status(self) -> str:
        """Whether the three numbers agree, in words."""
        case = self.worst_case
        deviation = max(
            abs(self.instance_alpha / case.alpha - 1), abs(self.instance_beta / case.beta - 1)
        )
        if deviation > 1e-6:
            return f"the instance misses REC(α, β) by {deviation:.1e} relative: it proves nothing"
        if self.theorem_bound == 0:
            return f"the theorem's bound is 0 and tight; {case.status}"
        excess = case.dual_bound / self.theorem_bound - 1
        if excess > RELATIVE_GAP:
            return f"the dual bound exceeds the theorem's bound by {excess:.1e}: one is wrong"
        verdict = (
            "the theorem's bound is tight"
            if excess > -RELATIVE_GAP
            else f"the worst case is {at_least(-100 * excess, 3)} % below the theorem's bound"
        )
        return f"{verdict}; {case.status}; NPGD attains {self.percentage} of the value"

    @property
    def percentage(self) -> str:
        """`share` in per cent, rounded down."""
        return f"{math.floor(1e7 * self.share) / 1e5:.5f} %"

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, number, what it rests on), for a table."""
        case = self.worst_case
        predicted = at_most(self.theorem_bound, 10)
        source = "analysis.obtuse_bound" if case.theta else "analysis.predicted_objective"
        table = [
            ("bound of the theorem", predicted, source),
            (
                "dual bound",
                at_most(case.dual_bound, 10),
                "multipliers, verified in rational arithmetic",
            ),
            (
                "primal value",
                at_least(case.value, 10),
                "Gram matrices that satisfy every constraint",
            ),
            (
                "instance: NPGD",
                at_least(self.attained, 10),
                f"run on an explicit A and S: {self.percentage} of the value",
            ),
            (
                "instance: REC",
                f"({self.instance_alpha:.9g}, {self.instance_beta:.9g})",
                f"recomputed over all pairs, asked ({case.alpha:.9g}, {case.beta:.9g})",
            ),
        ]
        if case.closed_form is not None:
            table.insert(1, ("closed form", f"{case.closed_form:.10g}", "analysis.theorem"))
        return table

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
        return "\n".join([self.worst_case.title, *lines, f"  {self.status}"])

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.worst_case.to_dict(),
            "theorem_bound": self.theorem_bound,
            "instance_alpha": self.instance_alpha,
            "instance_beta": self.instance_beta,
            "attained": self.attained,
            "share": self.share,
            "certificate": self.status,
        }


def certify(
    alpha: float,
    beta: float,
    n_iter: int,
    step_size: float | None = None,
    delta: float = 0.0,
    noise: float = 0.0,
    measure: str = "objective",
    theta: float = 0.0,
) -> Certificate:
    """`worst_case`, the bound of the theorem beside it, and NPGD run on the instance.

    Args and errors as for `worst_case`; `step_size` None means 1/β.
    """
    if step_size is None:
        step_size = _inverse(beta)
    case = worst_case(alpha, beta, step_size, n_iter, delta, noise, measure, theta)
    instance = case.instance()
    return Certificate(case, case.induction_bound, *instance.constants(), instance.attained())


@dataclass(frozen=True, eq=False)
class StepSizeSweep(Drawn):
    """The worst case as a function of the step size."""

    step_sizes: tuple[float, ...]
    """η, ascending."""
    cases: tuple[WorstCase, ...]
    """One for each η."""

    @property
    def best(self) -> WorstCase:
        """The case with the least value."""
        return min(self.cases, key=lambda case: case.value)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(ηβ, value, dual bound, induction bound), for a table."""
        return [
            (
                f"{case.step_size * case.beta:.4f}",
                at_least(case.value, 8),
                at_most(case.dual_bound, 8),
                at_most(case.induction_bound, 8),
            )
            for case in self.cases
        ]

    def draw(self, axis: Axes) -> None:
        """The worst case, and both bounds, against ηβ."""
        steps = [case.step_size * case.beta for case in self.cases]
        axis.plot(steps, [case.value for case in self.cases], "o-", label="worst case")
        axis.plot(steps, [case.dual_bound for case in self.cases], ":", label="dual bound")
        axis.plot(steps, [case.induction_bound for case in self.cases], "--", label="induction")
        plain_log(axis.yaxis)
        axis.set(xlabel="ηβ", ylabel="‖Ax − y‖² at most")
        axis.legend()

    def __str__(self) -> str:
        best = self.best
        lines = ["  ".join(f"{entry:>14}" for entry in row) for row in self.rows()]
        header = "  ".join(f"{name:>14}" for name in ("ηβ", "value", "dual bound", "induction"))
        return "\n".join(
            [header, *lines, f"least at ηβ = {best.step_size * best.beta:.4f}: {best.value:.8g}"]
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "step_sizes": list(self.step_sizes),
            "values": [case.value for case in self.cases],
            "dual_bounds": [case.dual_bound for case in self.cases],
            "induction_bounds": [case.induction_bound for case in self.cases],
            "best_step_size": self.best.step_size,
        }


def sweep_step_sizes(
    alpha: float,
    beta: float,
    n_iter: int,
    step_sizes: Iterable[float] | None = None,
    delta: float = 0.0,
    noise: float = 0.0,
    progress: bool = False,
) -> StepSizeSweep:
    """`worst_case` for every step size; by default ηβ from 0.5 to 1.5 in steps of 0.05.

    Raises as `worst_case` does.
    """
    from npgd import checks
    from npgd.progress import track

    theorem, progress = _inverse(beta), checks.flag(progress, "progress")
    if step_sizes is None:
        chosen = [(10 + i) / 20 * theorem for i in range(21)]
    else:
        chosen = sorted(checks.numbers_of(step_sizes, "step_sizes"))
    steps = track(chosen, len(chosen), "step sizes", show=progress)
    cases = [worst_case(alpha, beta, step, n_iter, delta, noise) for step in steps]
    return StepSizeSweep(tuple(chosen), tuple(cases))
