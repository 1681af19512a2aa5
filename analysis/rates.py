"""Convergence of NPGD: what the theorem predicts, and what each iterate did.

Model: y = A x* + v. Objective: F_n = ‖A x_n − y‖² (no ½). One iteration of NPGD is
w_n = x_n − η Aᵀ(A x_n − y), x_{n+1} = P(w_n).

*The one-step identity.* With e_n = x_n − x*, d_n = x_{n+1} − x_n, f_n = ‖A e_n‖² and

    α_n = f_n / ‖e_n‖²,   β_n = ‖A d_n‖² / ‖d_n‖²,   δ_n = ‖x_{n+1} − w_n‖² − ‖x* − w_n‖²,

    F_{n+1} = (1/(η α_n) − 1) f_n + ‖v‖² + δ_n/η + (β_n − 1/η) ‖d_n‖²

holds for every A, x_n, x_{n+1}, x*, v and η: it is algebra, and assumes no set. Theorem 1 of
Raj, Li, Bresler (ICCV 2019) is this identity with α_n ≥ α, β_n ≤ β = 1/η, δ_n ≤ δ and v = 0.

*The bound used here* keeps that statement and extends it to noise and to any step size. With
s = ‖v‖, t_n = √F_n, ρ = 1/(ηα) − 1 and c = max(β − 1/η, 0)/α, the identity, f_n ≤ (t_n + s)² and
‖d_n‖² ≤ (t_n + t_{n+1})²/α give

    (1 − c) t_{n+1}² − 2c t_n t_{n+1} ≤ (ρ + c) t_n² + 2|ρ| s t_n + (1 + ρ) s² + δ/η.

For η = 1/β and v = 0 this reads F_{n+1} ≤ (κ − 1) F_n + βδ with κ = β/α, which is Theorem 1.
The pairs are (x_n, x*) for α and (x_{n+1}, x_n) for β, all in S = range(G); x_0 belongs to S only
if it was chosen so, and otherwise every statement starts at x_1.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from npgd import checks

__all__ = [
    "ConvergenceCheck",
    "Decomposition",
    "ObservedRate",
    "SlackSplit",
    "check_convergence",
    "decompose",
    "error_floor",
    "objective_floor",
    "observed_rate",
    "predicted_objective",
    "predicted_rate",
    "split_slack",
    "steps_to_reach",
]

Constant = float | Float[torch.Tensor, " batch"]
"""A constant of the theorem: one for all images, or one for each."""


# ---------------------------------------------------------------------------------------------
# The one-step identity
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decomposition:
    """α_n, β_n, δ_n of every iteration, and how well the one-step identity closes.

    Rows are iterations n = 0 … n_iter − 1 (row n takes x_n to x_{n+1}), columns are images. Squared
    norms are sums over pixels, in float64. ``alpha`` is NaN where x_n = x* and ``beta`` is NaN
    where x_{n+1} = x_n: those pairs say nothing about A.
    """

    alpha: Float[torch.Tensor, "n_iter batch"]
    beta: Float[torch.Tensor, "n_iter batch"]
    delta: Float[torch.Tensor, "n_iter batch"]
    residual: Float[torch.Tensor, "n_iter batch"]
    """|left − right| of the identity, divided by its largest term."""
    objective: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """F_n = ‖A x_n − y‖²."""
    range_objective: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """f_n = ‖A (x_n − x*)‖², which is F_n without the noise."""
    error: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """‖x_n − x*‖²."""
    step: Float[torch.Tensor, "n_iter batch"]
    """‖x_{n+1} − x_n‖²."""
    noise: Float[torch.Tensor, " batch"]
    """‖y − A x*‖²."""
    step_size: float

    @property
    def status(self) -> str:
        """Whether the identity closes, in words."""
        if self.residual.numel() == 0:
            return "no iteration to decompose"
        worst = float(self.residual.max())
        if worst <= 1e-10:
            return f"the identity closes at every iterate (largest relative residual {worst:.1e})"
        return (
            f"the identity does not close (relative residual {worst:.1e}): A is not linear, its "
            "adjoint is not its transpose, or both are computed in low precision"
        )

    def terms(self) -> dict[str, Float[torch.Tensor, "n_iter batch"]]:
        """The four summands of F_{n+1}, by the quantity that makes them."""
        rows = self.alpha.shape[0]
        return {
            "alpha": self.error[:-1] / self.step_size - self.range_objective[:-1],
            "beta": _or_zero(self.beta, self.step) - self.step / self.step_size,
            "delta": self.delta / self.step_size,
            "noise": self.noise.expand(rows, -1),
        }

    def __str__(self) -> str:
        rows, batch = self.alpha.shape
        return (
            f"{rows} iterations of {batch} images at step size {self.step_size:.4g}: "
            f"α_n in {_span(self.alpha)}, β_n in {_span(self.beta)}, δ_n in {_span(self.delta)}; "
            f"{self.status}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "step_size": self.step_size,
            "alpha": plain(self.alpha),
            "beta": plain(self.beta),
            "delta": plain(self.delta),
            "residual": plain(self.residual),
            "objective": plain(self.objective),
            "error": plain(self.error),
            "noise": plain(self.noise),
            "status": self.status,
        }


@torch.no_grad()
def decompose(
    A: Any,
    y: Float[torch.Tensor, "batch m"],
    x_true: Float[torch.Tensor, "batch channels height width"],
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"],
    step_size: float,
) -> Decomposition:
    """Measure α_n, β_n, δ_n along the iterates and check the one-step identity.

    Everything is computed in float64 from the differences e_n = x_n − x*, d_n = x_{n+1} − x_n and
    the noise v = y − A x*, so that the identity closes to rounding even where the iterates have
    converged. A is applied to e_n, e_{n+1} and d_n separately: an operator that is not linear, or
    whose adjoint is wrong, shows as a residual.

    Args:
        A: linear operator with ``A(x)`` and ``A.adjoint(y)``; a module is copied to float64.
        y: measurements.
        x_true: the point x* that the iterates are held against. The theorem wants it in range(G);
            the identity does not care, and counts y − A x* as noise.
        iterates: x_0 first, as ``recover(…, record_iterates=True)`` returns them.
        step_size: η > 0 of the gradient step x − η Aᵀ(A x − y).

    Raises:
        ValueError: if the shapes do not match, or the step size is not positive and finite.
    """
    step_size = checks.number(step_size, "step_size")
    if iterates.ndim != x_true.ndim + 1 or iterates.shape[1:] != x_true.shape:
        raise ValueError(
            f"iterates: expected shape (n_iter + 1, *{tuple(x_true.shape)}) to match x_true, "
            f"got {tuple(iterates.shape)}"
        )
    if y.ndim != 2 or y.shape[0] != x_true.shape[0]:
        raise ValueError(
            f"y: expected shape ({x_true.shape[0]}, m) to match x_true, got {tuple(y.shape)}"
        )
    operator = in_double(A)
    x_star = x_true.double()
    noise = y.double() - operator(x_star)
    n_iter = iterates.shape[0] - 1

    def summands(
        e: torch.Tensor,
        A_e: torch.Tensor,
        e_next: torch.Tensor,
        A_e_next: torch.Tensor,
        d: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Of one iteration: ‖A d‖², ‖d‖², δ_n, and the identity's relative residual."""
        gradient_step = step_size * operator.adjoint(A_e - noise)
        # ‖d + g‖² − ‖g − e‖² = ⟨e_next, e_next + 2(g − e)⟩: no difference of two large squares.
        delta = _dot(e_next, e_next + 2 * (gradient_step - e))
        A_d_squared, d_squared = _square(operator(d)), _square(d)
        terms = torch.stack(
            [
                _square(e) / step_size,
                -_square(A_e),
                _square(noise),
                delta / step_size,
                A_d_squared,
                -d_squared / step_size,
                -_square(A_e_next - noise),
            ]
        )
        scale = terms.abs().amax(0)
        residual = torch.where(scale > 0, terms.sum(0).abs() / scale, torch.zeros_like(scale))
        return A_d_squared, d_squared, delta, residual

    e = iterates[0].double() - x_star
    A_e = operator(e)
    errors, fs, objectives = [_square(e)], [_square(A_e)], [_square(A_e - noise)]
    rows: list[tuple[torch.Tensor, ...]] = []
    for n in range(n_iter):
        e_next = iterates[n + 1].double() - x_star
        A_e_next = operator(e_next)
        d = iterates[n + 1].double() - iterates[n].double()
        rows.append(summands(e, A_e, e_next, A_e_next, d))
        errors.append(_square(e_next))
        fs.append(_square(A_e_next))
        objectives.append(_square(A_e_next - noise))
        e, A_e = e_next, A_e_next

    error, f = torch.stack(errors).cpu(), torch.stack(fs).cpu()
    empty = error.new_zeros(0, error.shape[1])
    A_d_sq, d_sq, delta, residual = (
        [torch.stack(column).cpu() for column in zip(*rows, strict=True)] if rows else [empty] * 4
    )
    return Decomposition(
        alpha=_ratio(f[:-1], error[:-1]),
        beta=_ratio(A_d_sq, d_sq),
        delta=delta,
        residual=residual,
        objective=torch.stack(objectives).cpu(),
        range_objective=f,
        error=error,
        step=d_sq,
        noise=_square(noise).cpu(),
        step_size=float(step_size),
    )


# ---------------------------------------------------------------------------------------------
# What constants predict
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Recursion:
    """(1 − c) t_{n+1}² − 2c t_n t_{n+1} ≤ quadratic t_n² + linear t_n + constant, t_n = √F_n."""

    alpha: torch.Tensor
    rho: torch.Tensor
    c: torch.Tensor
    quadratic: torch.Tensor
    linear: torch.Tensor
    constant: torch.Tensor
    s: torch.Tensor
    oversteps: bool
    """Whether η > 1/β for some image, so that c > 0 there."""

    @classmethod
    def of(
        cls,
        alpha: Constant,
        beta: Constant,
        delta: Constant,
        step_size: float | None,
        noise: Constant,
    ) -> _Recursion:
        a, b = _constant("alpha", alpha, positive=True), _constant("beta", beta, positive=True)
        if bool((a > b * (1 + 1e-12)).any()):
            raise ValueError(f"alpha: expected alpha <= beta, got alpha {alpha} and beta {beta}")
        inverse = (
            b if step_size is None else 1 / b.new_tensor(checks.number(step_size, "step_size"))
        )
        rho = inverse / a - 1
        # A step size that is 1/β up to rounding is 1/β.
        c = torch.where(b - inverse > 1e-12 * b, (b - inverse) / a, 0.0)
        s = _constant("noise", noise).sqrt()
        return cls(
            alpha=a,
            rho=rho,
            c=c,
            quadratic=(rho + c).clamp_min(0),  # κ − 1 may round to below zero
            linear=2 * rho.abs() * s,
            constant=(1 + rho) * s**2 + _constant("delta", delta) * inverse,
            s=s,
            oversteps=bool((c > 0).any()),
        )

    def __call__(self, objective: torch.Tensor) -> torch.Tensor:
        t = objective.sqrt()
        right = self.quadratic * objective + self.linear * t + self.constant
        if not self.oversteps:
            return right
        lead = 1 - self.c
        root = (self.c * t + ((self.c * t) ** 2 + lead * right).clamp_min(0).sqrt()) / lead
        bound = torch.where(self.c > 0, root**2, right)
        return torch.where(lead > 0, bound, math.inf)

    def rate(self) -> torch.Tensor:
        """F_{n+1}/F_n without noise and projector error."""
        lead = 1 - self.c
        root = (self.c + (self.c**2 + lead * self.quadratic).clamp_min(0).sqrt()) / lead
        rate = torch.where(self.c > 0, root**2, self.rho)
        return torch.where(lead > 0, rate, math.inf)

    def floor(self) -> torch.Tensor:
        """The fixed point of the recursion, infinite where it does not contract."""
        p = 1 - 3 * self.c - self.quadratic
        half = self.linear / 2
        t = (half + (half**2 + p * self.constant).clamp_min(0).sqrt()) / p
        return torch.where((self.rate() < 1) & (p > 0), t**2, math.inf)

    def error(self, objective: torch.Tensor) -> torch.Tensor:
        """‖x_n − x*‖² ≤ f_n/α ≤ (√F_n + ‖v‖)²/α."""
        return (objective.sqrt() + self.s) ** 2 / self.alpha


def predicted_objective(
    initial: Constant,
    n_iter: int,
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    step_size: float | None = None,
    noise: Constant = 0.0,
    start: int = 0,
) -> Float[torch.Tensor, "n_iter_plus_1 batch"]:
    """Upper bound on F_n = ‖A x_n − y‖² for n = 0 … n_iter, in float64.

    For η = 1/β without noise, and counted from ``start``: (κ−1)ⁿ F_0 + βδ Σ_{i<n} (κ−1)^i. For
    κ < 2 this is at most (κ−1)ⁿ F_0 + βδ/(2−κ), the form of Theorem 1 (Raj, Li, Bresler, ICCV
    2019). For κ ≥ 2 the recursion is the same and grows: it still is a bound, and a void one.

    Args:
        initial: F_start = ‖A x_start − y‖², one number or one for each image.
        n_iter: number of iterations of the run, counted from x_0.
        alpha, beta, delta: the theorem's constants (squared-norm units), uniform or per image.
        step_size: η; None means the theorem's 1/β.
        noise: ‖v‖² = ‖y − A x*‖².
        start: 0 if x_0 lies in range(G); 1 if not (as with x_0 = Aᵀy), and then ``initial`` is F_1.

    Returns:
        shape (n_iter + 1, batch); rows before ``start`` are NaN.

    Raises:
        ValueError: if alpha > beta, a constant is negative or not a number, or start > n_iter.
    """
    recursion = _Recursion.of(alpha, beta, delta, step_size, noise)
    value = _constant("initial", initial)
    if not 0 <= start <= n_iter:
        raise ValueError(f"start: expected 0 <= start <= n_iter = {n_iter}, got {start}")
    value = value.expand(torch.broadcast_shapes(value.shape, recursion.constant.shape))
    bound = [torch.full_like(value, math.nan)] * start + [value]
    for _ in range(start, n_iter):
        bound.append(recursion(bound[-1]))
    return torch.stack(bound)


def predicted_rate(
    alpha: Constant, beta: Constant, *, step_size: float | None = None
) -> Float[torch.Tensor, " batch"]:
    """Factor by which the bound multiplies F_n at each step, without noise and projector error.

    κ − 1 for η = 1/β; below 1 the bound converges. Raises as :func:`predicted_objective` does.
    """
    return _Recursion.of(alpha, beta, 0.0, step_size, 0.0).rate()


def objective_floor(
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    step_size: float | None = None,
    noise: Constant = 0.0,
) -> Float[torch.Tensor, " batch"]:
    """Where the bound on F_n = ‖A x_n − y‖² settles: βδ/(2−κ) for η = 1/β without noise.

    Infinite where the bound does not contract (κ ≥ 2). Raises as :func:`predicted_objective` does.
    """
    return _Recursion.of(alpha, beta, delta, step_size, noise).floor()


def error_floor(
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    step_size: float | None = None,
    noise: Constant = 0.0,
) -> Float[torch.Tensor, " batch"]:
    """Where the bound on ‖x_n − x*‖² settles: δ/(2/κ − 1) for η = 1/β without noise (Theorem 1).

    A sum over pixels. Infinite where the bound does not contract (κ ≥ 2). Raises as
    :func:`predicted_objective` does.
    """
    recursion = _Recursion.of(alpha, beta, delta, step_size, noise)
    return recursion.error(recursion.floor())


def steps_to_reach(
    error: Constant,
    initial: Constant,
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    step_size: float | None = None,
    noise: Constant = 0.0,
) -> Float[torch.Tensor, " batch"]:
    """Smallest n after which the bound guarantees ‖x_n − x*‖² ≤ error, from F_0 = ``initial``.

    Found by running the recursion of :func:`predicted_objective`, so it never exceeds the closed
    form of Theorem 1: for error (C + 1/(2/κ−1)) δ, log(F_0/(Cαδ))/(2−κ) rounded up. Infinite where
    ``error`` lies at or below :func:`error_floor` and is not met at once.

    Returns:
        whole numbers, or infinity, as float64 of shape (batch,) or ().

    Raises:
        ValueError: as :func:`predicted_objective`, and if ``error`` is not positive.
    """
    recursion = _Recursion.of(alpha, beta, delta, step_size, noise)
    target = _constant("error", error, positive=True)
    value = _constant("initial", initial)
    shape = torch.broadcast_shapes(value.shape, recursion.constant.shape, target.shape)
    value = value.expand(shape)
    steps = torch.full(shape, math.inf, dtype=torch.float64)
    reachable = recursion.error(recursion.floor()) < target
    n = 0
    while True:
        steps = torch.where(
            (recursion.error(value) <= target) & steps.isinf(), torch.full_like(steps, n), steps
        )
        following = recursion(value)
        # Every step lowers the bound until rounding stops it at the floor.
        if not bool((steps.isinf() & reachable & (following < value)).any()):
            return steps
        value, n = following, n + 1


# ---------------------------------------------------------------------------------------------
# Where the bound loses against the iterates
# ---------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------
# What was observed
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ObservedRate:
    """Linear rate of each image's objective, F_n − floor ≈ a · rateⁿ for first ≤ n ≤ last.

    ``rate`` is NaN where there is nothing to fit; ``reasons`` says why, and is empty elsewhere.
    """

    rate: Float[torch.Tensor, " batch"]
    first: tuple[int, ...]
    last: tuple[int, ...]
    floor: Float[torch.Tensor, " batch"]
    r_squared: Float[torch.Tensor, " batch"]
    """Of the fit of log(F_n − floor); near 1 the fall is linear."""
    reasons: tuple[str, ...]

    @property
    def median(self) -> float:
        """Median over the images that have a rate; NaN if none has."""
        return float(self.rate.nanquantile(0.5))

    @property
    def status(self) -> str:
        fitted = int((~self.rate.isnan()).sum())
        if fitted == 0:
            return "has no rate: " + (self.reasons[0] if self.reasons else "no image")
        kept = [i for i in range(len(self.first)) if not bool(self.rate[i].isnan())]
        span = f"x_{min(self.first[i] for i in kept)} to x_{max(self.last[i] for i in kept)}"
        text = f"falls by a factor {self.median:.3g} per step (median of {fitted}, fitted on {span}"
        return text + f", R² {float(self.r_squared.nanquantile(0.5)):.2f})"

    def __str__(self) -> str:
        return f"objective {self.status}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "rate": plain(self.rate),
            "first": list(self.first),
            "last": list(self.last),
            "floor": plain(self.floor),
            "r_squared": plain(self.r_squared),
            "reasons": list(self.reasons),
            "median": plain(self.median),
            "status": self.status,
        }


def observed_rate(
    objective: Float[torch.Tensor, "n_iter_plus_1 batch"],
    *,
    start: int = 0,
    floor: Constant | None = None,
) -> ObservedRate:
    """Fit a linear rate to the objective, over the iterates where it falls.

    Without a given ``floor``, the floor of an image is its plateau: the median of the trailing
    iterates that lie within 5 % of the last, if they are at least 4 and a tenth of the run; a run
    that still falls at its end has floor 0. The fit is least squares on log(F_n − floor), from
    ``start`` to the last n before F_n first rises, or comes within 10 % of the floor.

    Raises:
        ValueError: if the objective has not two dimensions, is negative or not finite, or ``start``
            is not one of its rows.
    """
    if objective.ndim != 2:
        raise ValueError(
            f"objective: expected shape (n_iter + 1, batch), got {tuple(objective.shape)}"
        )
    values = objective.detach().double().cpu()
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ValueError("objective: expected finite values >= 0, got others")
    if not 0 <= start < values.shape[0]:
        raise ValueError(f"start: expected 0 <= start < {values.shape[0]}, got {start}")
    batch = values.shape[1]
    floors = (
        torch.stack([_plateau(values[start:, i]) for i in range(batch)])
        if floor is None
        else _constant("floor", floor).expand(batch)
    )
    fits = [_fit_rate(values[:, i], float(floors[i]), start) for i in range(batch)]
    return ObservedRate(
        rate=torch.tensor([fit[0] for fit in fits], dtype=torch.float64),
        first=(start,) * batch,
        last=tuple(fit[1] for fit in fits),
        floor=floors,
        r_squared=torch.tensor([fit[2] for fit in fits], dtype=torch.float64),
        reasons=tuple(fit[3] for fit in fits),
    )


def _plateau(values: Float[torch.Tensor, " n"]) -> Float[torch.Tensor, ""]:
    inside = (values - values[-1]).abs() <= 0.05 * values[-1]
    outside = (~inside).nonzero()
    tail = values[int(outside[-1]) + 1 :] if len(outside) else values
    return tail.median() if len(tail) >= max(4, len(values) // 10) else values.new_zeros(())


def _fit_rate(
    values: Float[torch.Tensor, " n"], floor: float, start: int
) -> tuple[float, int, float, str]:
    """(rate, last iterate used, R², reason for there being no rate)."""
    n = start
    while n + 1 < len(values) and values[n + 1] < values[n] and values[n + 1] > 1.1 * floor:
        n += 1
    if values[start] <= 1.1 * floor:
        return math.nan, n, math.nan, f"x_{start} is already within 10 % of the floor {floor:.3g}"
    if n - start < 2:
        stop = (
            "the run ends"
            if n + 1 == len(values)
            else f"x_{n + 1} has reached the floor {floor:.3g}"
            if values[n + 1] < values[n]
            else f"the objective rises from x_{n} to x_{n + 1}"
        )
        return math.nan, n, math.nan, f"it falls for fewer than 3 iterates: {stop}"
    steps = torch.arange(start, n + 1, dtype=torch.float64)
    logs = (values[start : n + 1] - floor).log()
    centred, deviations = steps - steps.mean(), logs - logs.mean()
    slope = float((centred * deviations).sum() / centred.square().sum())
    unexplained = (deviations - slope * centred).square().sum()
    return math.exp(slope), n, float(1 - unexplained / deviations.square().sum()), ""


# ---------------------------------------------------------------------------------------------
# Prediction against iterates
# ---------------------------------------------------------------------------------------------


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
    allowed = (slack.bound.sqrt() * (1 + 1e-9) + rounding * _square(y.double()).cpu().sqrt()) ** 2
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
        broken=_broken(parts, a, b, d, start, rounding * _square(x_true.double()).cpu().sqrt()),
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
    contraction = _ratio(terms["alpha"], f).nan_to_num(nan=0.0)
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


# ---------------------------------------------------------------------------------------------


def in_double(A: Any) -> Any:
    """A in float64: a module is copied, so that the caller's keeps its precision."""
    if isinstance(A, torch.nn.Module):
        tensors = [t for t in (*A.parameters(), *A.buffers()) if t.is_floating_point()]
        if any(t.dtype != torch.float64 for t in tensors):
            return copy.deepcopy(A).double()
    return A


def _constant(name: str, value: Constant, *, positive: bool = False) -> torch.Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    if tensor.ndim > 1:
        raise ValueError(f"{name}: expected a number or shape (batch,), got {tuple(tensor.shape)}")
    good = tensor > 0 if positive else tensor >= 0
    if not bool((good & torch.isfinite(tensor)).all()):
        sign = "> 0" if positive else ">= 0"
        raise ValueError(f"{name}: expected finite values {sign}, got {value}")
    return tensor


def _square(x: torch.Tensor) -> torch.Tensor:
    """‖x‖² of every image or measurement."""
    return x.flatten(1).square().sum(1)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.flatten(1) * b.flatten(1)).sum(1)


def _ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    return torch.where(denominator > 0, numerator / denominator, math.nan)


def _or_zero(ratio: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """ratio · denominator, and 0 where the ratio is undefined because its denominator is 0."""
    return torch.where(denominator > 0, ratio * denominator, 0.0)


def _span(values: torch.Tensor) -> str:
    kept = values[~values.isnan()]
    return f"[{float(kept.min()):.3g}, {float(kept.max()):.3g}]" if kept.numel() else "nothing"


def plain(value: Any) -> Any:
    """Numbers, lists and dicts for JSON; it has neither NaN nor infinity, and both become None."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
