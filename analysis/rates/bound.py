"""What constants predict: the bound on the objective, its rate, its floor, the steps it needs.

The bound keeps Theorem 1 of Raj, Li, Bresler (ICCV 2019) and extends it to noise and to any step
size. With s = ‖v‖, t_n = √F_n, ρ = 1/(ηα) − 1 and c = max(β − 1/η, 0)/α, the identity,
f_n ≤ (t_n + s)² and ‖d_n‖² ≤ (t_n + t_{n+1})²/α give

    (1 − c) t_{n+1}² − 2c t_n t_{n+1} ≤ (ρ + c) t_n² + 2|ρ| s t_n + (1 + ρ) s² + δ/η.

For η = 1/β and v = 0 this reads F_{n+1} ≤ (κ − 1) F_n + βδ with κ = β/α, which is Theorem 1.
The pairs are (x_n, x*) for α and (x_{n+1}, x_n) for β, all in S = range(G); x_0 belongs to S only
if it was chosen so, and otherwise every statement starts at x_1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float

from npgd import checks

Constant = float | Float[torch.Tensor, " batch"]
"""A constant of the theorem: one for all images, or one for each."""


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


def _constant(name: str, value: Constant, *, positive: bool = False) -> torch.Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    if tensor.ndim > 1:
        raise ValueError(f"{name}: expected a number or shape (batch,), got {tuple(tensor.shape)}")
    good = tensor > 0 if positive else tensor >= 0
    if not bool((good & torch.isfinite(tensor)).all()):
        sign = "> 0" if positive else ">= 0"
        raise ValueError(f"{name}: expected finite values {sign}, got {value}")
    return tensor
