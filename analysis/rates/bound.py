"""What constants predict: the bound on the objective, its rate, its floor, the steps it needs.

With h = ηβ, κ = β/α, ν = ‖v‖, the residuals r_n = A x_n − y of length t_n = √F_n, and

    W_{n+1} = β‖d_n‖² + 2h⟨r_{n+1}, r_n⟩,      d_n = x_{n+1} − x_n,

the projector's inequality ‖x_{n+1} − w_n‖² ≤ ‖s − w_n‖² + δ reads, for three points s of S,

    s = x*         W_{n+1} ≤ κt_n² + 2|κ − h|νt_n + κν² + βδ     (α on (x_n, x*), ‖v‖ = ν)
    s = x_n        W_{n+1} ≤ 2ht_n² + βδ
    s = x_{n−1}    W_{n+1} ≤ W_n + βδ,

and what REC says of the step, ‖A d_n‖² ≤ β‖d_n‖², turns W_{n+1} into t_{n+1}:

    t_{n+1}² − 2|h − 1| t_n t_{n+1} + t_n² ≤ W_{n+1}.                                     (1)

For h < 1 and t_{n+1} ≤ t_n the pair (x_{n+1}, x*) says more than that: ‖d_n‖ ≥ ‖e_n‖ − ‖e_{n+1}‖
and α‖e_{n+1}‖² ≤ ‖A e_{n+1}‖² give, against s = x*, with m = 1 − h,

    (h + κm)(t_{n+1}² + t_n²) − 2κm t_n t_{n+1} ≤ κt_n² + 2|κ − h|νt_n + κν² + βδ.        (2)

The bound is the largest t_{n+1} that these allow. For h = 1, v = 0, κ < 2 it is
F_{n+1} ≤ (κ − 1)F_n + βδ, Theorem 1 of Raj, Li, Bresler (ICCV 2019), as long as
F_0 ≥ rβδ/(1 − r²), r = κ − 1; below that, and for κ ≥ 2, it is the smaller number that
`analysis.worst_case` has as its closed form. It contracts exactly for κ < 2 min(h, 2 − h). Where it
does not, and δ = 0, F_n ≤ F_0 for h ≤ 1 and F_n ≤ 2F_0/(2 − h) for 1 < h < 2: void, but bounded.

The pairs are (x_n, x*), (x_{n+1}, x*) for α and (x_{n+1}, x_n) for β, all in S = range(G); x_0
belongs to S only if it was chosen so, and otherwise every statement starts at x_1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from npgd import checks

Constant = float | Float[torch.Tensor, " batch"]
"""A constant of the theorem: one for all images, or one for each."""

CLOSED, COUNTED = 50, 200_000
"""Up to about so many steps are counted: where a closed form is known, and where none is."""


@dataclass(frozen=True, eq=False)
class Recursion:
    """From what is known of t_n = √F_n and of W_n to what is known of t_{n+1} and W_{n+1}."""

    alpha: torch.Tensor
    kappa: torch.Tensor
    """β/α."""
    excess: torch.Tensor
    """κ − 1, without cancellation."""
    h: torch.Tensor
    """ηβ."""
    nu: torch.Tensor
    """‖v‖."""
    drive: torch.Tensor
    """βδ."""
    contraction: torch.Tensor
    """2 min(h, 2 − h) − κ, positive where the bound contracts."""

    @classmethod
    def of(
        cls,
        alpha: Constant,
        beta: Constant,
        delta: Constant,
        step_size: float | None,
        noise: Constant,
    ) -> Recursion:
        """The recursion of these constants; raises as `predicted_objective` does."""
        a, b = constant("alpha", alpha, positive=True), constant("beta", beta, positive=True)
        v, d = constant("noise", noise), constant("delta", delta)
        together(alpha=a, beta=b, noise=v, delta=d)
        if bool((a > b * (1 + 1e-12)).any()):
            raise ValueError(
                f"alpha must be at most beta, got alpha {checks.shown(alpha)} and beta"
                f" {checks.shown(beta)}"
            )
        h = torch.ones_like(b)
        if step_size is not None:
            h = b * checks.number(step_size, "step_size")
        # A step size that is 1/β up to rounding is 1/β.
        h = torch.where((h - 1).abs() <= 1e-12, 1.0, h)
        return cls(
            alpha=a,
            kappa=(b / a).clamp_min(1),
            excess=((b - a) / a).clamp_min(0),
            h=h,
            nu=v.sqrt(),
            drive=b * d,
            contraction=(2 * torch.minimum(h, 2 - h) * a - b) / a,
        )

    @property
    def s(self) -> torch.Tensor:
        """|h − 1|."""
        return (self.h - 1).abs()

    def __call__(self, t: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The bounds on t_{n+1} and W_{n+1} from those on t_n and W_n (infinite: no W_n yet)."""
        reach = self.reach(t)
        following = torch.minimum(self.against_truth(t), self.against_itself(t))
        remembered = torch.where(memory < reach, self._against_memory(t, memory), math.inf)
        return torch.minimum(following, remembered), torch.minimum(reach, memory) + self.drive

    def reach(self, t: torch.Tensor) -> torch.Tensor:
        """The lesser of the bounds on W_{n+1} − βδ against x* and against x_n; increases with t."""
        truth = self.kappa * (t**2 + self.nu**2) + 2 * (self.kappa - self.h).abs() * self.nu * t
        return torch.minimum(truth, 2 * self.h * t**2)

    def against_truth(self, t: torch.Tensor) -> torch.Tensor:
        """The bound on t_{n+1} from s = x*, by (2) where h < 1 and it falls, by (1) elsewhere."""
        plain = self._root(t, torch.ones_like(self.h), self.s, self.s**2 + self.excess)
        return torch.where((self.h < 1) & (plain <= t), self._root(t, *self.slope()), plain)

    def slope(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(a, b, c) of t_{n+1} = (bt_n + √(ct_n² + …))/a, where the bound falls."""
        short = self.h < 1
        lead = torch.where(short, self.h + self.kappa * self.s, 1.0)
        mix = torch.where(short, self.kappa * self.s, self.s)
        # lead · (κ − lead), without the difference.
        inside = mix**2 + torch.where(short, lead * self.h, 1.0) * self.excess
        return lead, mix, inside

    def _root(
        self, t: torch.Tensor, lead: torch.Tensor, mix: torch.Tensor, inside: torch.Tensor
    ) -> torch.Tensor:
        """The larger root t' of a(t'² + t²) − 2btt' = κt² + 2|κ − h|νt + κν² + βδ."""
        linear = (self.kappa - self.h).abs() * self.nu
        rest = lead * (2 * linear * t + self.kappa * self.nu**2 + self.drive)
        return (mix * t + (inside * t**2 + rest).sqrt()) / lead

    def against_itself(self, t: torch.Tensor) -> torch.Tensor:
        """The bound on t_{n+1} from s = x_n."""
        return self.s * t + (self.h**2 * t**2 + self.drive).sqrt()

    def _against_memory(self, t: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """The bound on t_{n+1} from s = x_{n−1} where W_n ≤ memory < reach(t).

        A smaller t_n may be worse: the worst lies between reach⁻¹(memory) and t.
        """
        linear = (self.kappa - self.h).abs() * self.nu
        over = linear**2 + self.kappa * (memory - self.kappa * self.nu**2)
        crossing = torch.maximum(
            (memory / (2 * self.h)).sqrt(), (over.clamp_min(0).sqrt() - linear) / self.kappa
        )
        width = 1 - self.s**2
        whole = memory + self.drive
        peak = torch.where(width > 0, self.s * (whole / width).sqrt(), math.inf)
        worst = torch.minimum(torch.maximum(peak, crossing), t)
        return self.s * worst + (whole - width * worst**2).clamp_min(0).sqrt()

    def run(self, initial: torch.Tensor, n_iter: int) -> list[torch.Tensor]:
        """The bounds on F_0 … F_{n_iter} from F_0 = initial."""
        bounds, t = [initial], initial.sqrt()
        memory = torch.full_like(t, math.inf)
        for _ in range(n_iter):
            t, memory = self(t, memory)
            bounds.append(t**2)
        return bounds

    def rate(self) -> torch.Tensor:
        """F_{n+1}/F_n of the bound in the long run, without noise and projector error."""
        lead, mix, inside = self.slope()
        falling = ((mix + inside.sqrt()) / lead) ** 2
        # Where it does not fall, x_n and x_{n−1} keep it from growing, for h ≤ 2.
        bounded = (self.s.clamp_min(1) + (self.s**2 - 1).clamp_min(0).sqrt()) ** 2
        return torch.where(self.contraction > 0, falling, bounded)

    def resting(self) -> torch.Tensor:
        """The fixed point of t, to which the bound falls; infinite where it does not contract."""
        linear = (self.kappa - self.h).abs() * self.nu
        constant = self.kappa * self.nu**2 + self.drive
        inside = (linear**2 + self.contraction * constant).clamp_min(0)
        t = (linear + inside.sqrt()) / self.contraction
        return torch.where(self.contraction > 0, t, math.inf)

    def error(self, objective: torch.Tensor) -> torch.Tensor:
        """‖x_n − x*‖² ≤ f_n/α ≤ (√F_n + ‖v‖)²/α."""
        return (objective.sqrt() + self.nu) ** 2 / self.alpha


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

    For η = 1/β without noise, and counted from `start`: (κ−1)ⁿ F_0 + βδ Σ_{i<n} (κ−1)^i, if κ < 2
    and F_0 ≥ rβδ/(1−r²), r = κ − 1. It is at most (κ−1)ⁿ F_0 + βδ/(2−κ), the form of Theorem 1
    (Raj, Li, Bresler, ICCV 2019). For κ ≥ 2 it is F_0 + βδ(n + 1)/2: a bound, and a void one. In
    both cases no smaller one holds for every A, S and P; for other steps and with noise that is so
    of the first step.

    Args:
        initial: F_start = ‖A x_start − y‖², one number or one for each image.
        n_iter: number of iterations of the run, counted from x_0.
        alpha, beta, delta: the theorem's constants (squared-norm units), uniform or per image.
        step_size: η; None means the theorem's 1/β.
        noise: ‖v‖² = ‖y − A x*‖².
        start: 0 if x_0 lies in range(G); 1 if not (as with x_0 = Aᵀy), and then `initial` is F_1.

    Returns:
        shape (n_iter + 1, batch); rows before `start` are NaN.

    Raises:
        ValueError: if alpha > beta, a constant is negative or not a number, or start > n_iter.
    """
    recursion = Recursion.of(alpha, beta, delta, step_size, noise)
    value = constant("initial", initial)
    together(initial=value, constants=recursion.drive + recursion.nu + recursion.kappa)
    n_iter = checks.integer(n_iter, "n_iter", minimum=0)
    start = first_of(start, n_iter)
    checks.room(n_iter, "n_iter", n_iter * max(1, value.numel()))
    value = value.expand_as(value + recursion.reach(recursion.drive))
    bounds = recursion.run(value, n_iter - start)
    return torch.stack([torch.full_like(bounds[0], math.nan)] * start + bounds)


def predicted_rate(
    alpha: Constant, beta: Constant, *, step_size: float | None = None
) -> Float[torch.Tensor, " batch"]:
    """Factor by which the bound multiplies F_n at each step, without noise and projector error.

    κ − 1 for η = 1/β and κ < 2; below 1 for κ < 2 min(ηβ, 2 − ηβ), where the bound converges. For
    ηβ ≥ 1 it is (√(κ + s² − 1) + |s|)² there, s = ηβ − 1, and a little less for ηβ < 1. Elsewhere
    1 for ηβ ≤ 2, in the long run: the bound then stays below a multiple of F_0, but does not fall.

    Raises:
        ValueError: as `predicted_objective`.
    """
    return Recursion.of(alpha, beta, 0.0, step_size, 0.0).rate()


def objective_floor(
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    step_size: float | None = None,
    noise: Constant = 0.0,
) -> Float[torch.Tensor, " batch"]:
    """Where the bound on F_n = ‖A x_n − y‖² settles: βδ/(2−κ) for η = 1/β without noise.

    Infinite where the bound does not contract (κ ≥ 2 for η = 1/β).

    Raises:
        ValueError: as `predicted_objective`.
    """
    return Recursion.of(alpha, beta, delta, step_size, noise).resting() ** 2


def error_floor(
    alpha: Constant,
    beta: Constant,
    delta: Constant = 0.0,
    *,
    step_size: float | None = None,
    noise: Constant = 0.0,
) -> Float[torch.Tensor, " batch"]:
    """Where the bound on ‖x_n − x*‖² settles: δ/(2/κ − 1) for η = 1/β without noise (Theorem 1).

    A sum over pixels. Infinite where the bound does not contract (κ ≥ 2 for η = 1/β).

    Raises:
        ValueError: as `predicted_objective`.
    """
    recursion = Recursion.of(alpha, beta, delta, step_size, noise)
    return recursion.error(recursion.resting() ** 2)


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
    """Smallest n after which the bound guarantees ‖x_n − x*‖² ≤ error, from F_0 = `initial`.

    In closed form where the bound is affine in F_n (η = 1/β without noise) or linear (neither noise
    nor δ). It never exceeds Theorem 1's: for error (C + 1/(2/κ−1)) δ, log(F_0/(Cαδ))/(2−κ) rounded
    up. Elsewhere the steps are counted where they are fewer than about 200,000; beyond, they are
    the integral of dt/(t − T(t)), T the map from √F_n to √F_{n+1}, with the first two terms of its
    Euler–Maclaurin correction, right to a hundredth of a step (or to rounding, a part in 10¹²).
    Infinite where `error` lies at or below `error_floor` and is not met at once.

    Returns:
        whole numbers, or infinity, as float64 of shape (batch,) or ().

    Raises:
        ValueError: as `predicted_objective`, and if `error` is not positive.
    """
    recursion = Recursion.of(alpha, beta, delta, step_size, noise)
    target = constant("error", error, positive=True)
    value = constant("initial", initial)
    together(error=target, initial=value, constants=recursion.drive + recursion.nu)
    whole = value + target + recursion.reach(recursion.drive)
    lead, mix, inside = recursion.slope()
    columns = (
        value.sqrt(),
        (target * recursion.alpha).sqrt() - recursion.nu,
        recursion.resting(),
        recursion.contraction,
        lead,
        mix,
        inside,
        lead * (recursion.kappa - recursion.h).abs() * recursion.nu,
        lead * (recursion.kappa * recursion.nu**2 + recursion.drive),
    )
    rows = zip(*(c.expand_as(whole).flatten().tolist() for c in columns), strict=True)
    steps = [_steps(*row) for row in rows]
    return torch.tensor(steps, dtype=torch.float64).reshape(whole.shape)


def _steps(
    t: float, goal: float, rest: float, contraction: float,
    lead: float, mix: float, inside: float, linear: float, constant: float,
) -> float:  # fmt: skip
    """Smallest n with Tⁿ(t) ≤ goal, T(t) = (mix·t + √(inside·t² + 2·linear·t + constant))/lead."""
    if t <= goal:
        return 0.0
    if not goal > rest:
        return math.inf
    if linear == 0 and mix == 0:  # F − floor is multiplied by κ − 1 = 1 − contraction
        above = math.log((t - rest) * (t + rest) / ((goal - rest) * (goal + rest)))
        steps = above / -math.log1p(-contraction) if contraction < 1 else 1.0
        counted = CLOSED
    elif constant == 0 or rest == 0:  # or underflows: t is multiplied by √rate, 1 less this
        less = contraction / (lead - mix + math.sqrt(inside))
        steps = math.log(t / goal) / -math.log1p(-less)
        counted = CLOSED
    else:
        square = (inside, linear, constant)
        steps = _steps_by_integral(t, goal, rest, contraction, lead, mix, *square)
        counted = COUNTED
    if steps > counted:
        return float(math.ceil(steps))
    n = 0
    while t > goal:
        t, n = (mix * t + math.sqrt((inside * t + 2 * linear) * t + constant)) / lead, n + 1
    return float(n)


def _steps_by_integral(
    t: float, goal: float, rest: float, contraction: float,
    lead: float, mix: float, inside: float, linear: float, constant: float,
) -> float:  # fmt: skip
    """The real number n with Tⁿ(t) = goal, nearly, for T as in `_steps` that moves t little.

    With g = t − T(t), N(t) = ∫(1/g − g'²/(12g)) dt − log(g)/2 − g'/12 falls by 1 from t to T(t) up
    to terms of third order in g'. The integral is over x = log(t − rest), by Gauss–Legendre, and
    g/(t − rest) is written without a difference of nearly equal numbers.
    """
    low, high = math.log(goal - rest), math.log(t - rest)
    panels = max(1, math.ceil(2 * (high - low)))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    width = (high - low) / panels
    x = low + width * (np.arange(panels)[:, None] + (nodes + 1) / 2)
    other = -constant / (lead * contraction * rest)  # the other fixed point, negative

    def relative(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """g/(t − rest) and g'."""
        root = np.sqrt((inside * at + 2 * linear) * at + constant)
        fall = contraction * (at - other) / ((lead - mix) * at + root)
        return fall, 1 - (mix + (inside * at + linear) / root) / lead

    fall, slope = relative(rest + np.exp(x))
    integral = float((weights * (1 - slope**2 / 12) / fall).sum() * width / 2)
    (first, last), slopes = relative(np.array([t, goal]))
    ends = (high - low + math.log(first / last)) / 2 + float(slopes[0] - slopes[1]) / 12
    return integral - ends


def together(**values: torch.Tensor) -> None:
    """ValueError unless constants of one number or one an image are of one number of images."""
    batches = {name: value.numel() for name, value in values.items() if value.ndim}
    if len({count for count in batches.values() if count != 1}) > 1:
        came = " and ".join(f"{count} of {name}" for name, count in batches.items())
        raise ValueError(
            f"{' and '.join(batches)} must be of one number, or of as many as there are images,"
            f" got {came}"
        )


def for_batch(batch: int, **values: Constant) -> None:
    """ValueError unless every constant is one number, or one for each of `batch` images."""
    for name, value in values.items():
        count = constant(name, value).numel()
        if count not in (1, batch):
            raise ValueError(f"{name} must be one number or {batch}, one an image, got {count}")


def first_of(start: int, n_iter: int) -> int:
    """`start` as the index of an iterate; raises unless it is from 0 to n_iter."""
    first = checks.integer(start, "start", minimum=0)
    if first > n_iter:
        raise ValueError(f"start must be from 0 to n_iter = {n_iter}, got {first}")
    return first


def constant(name: str, value: Constant, *, positive: bool = False) -> torch.Tensor:
    """The constant as a float64 tensor; raises, by name, if it is none of the theorem's.

    A number, or real numbers of shape (batch,) as a tensor, an array or a sequence.
    """
    if isinstance(value, torch.Tensor | np.ndarray | list | tuple):
        tensor = _numbers(name, value)
    else:
        checks.number(value, name, zero=not positive)
        return torch.tensor(float(value), dtype=torch.float64)
    if tensor.ndim > 1 or not tensor.numel():
        raise ValueError(
            f"{name} must be a number or of shape (batch,), got shape {tuple(tensor.shape)}"
        )
    good = tensor > 0 if positive else tensor >= 0
    if not bool((good & torch.isfinite(tensor)).all()):
        sign = "positive" if positive else "not negative"
        raise ValueError(f"{name} must be finite and {sign}, got {checks.shown(value)}")
    return tensor


def _numbers(name: str, value: torch.Tensor | np.ndarray | Sequence[float]) -> torch.Tensor:
    """Real numbers as a float64 tensor on the CPU; TypeError for anything else."""
    wrong = f"{name} must be a real number, or one for each image, got {checks.shown(value)}"
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta:
            raise TypeError(wrong)
        found = value.detach().cpu()
    else:
        try:
            array = np.asarray(value)
        except ValueError:  # of unequal lengths
            raise TypeError(wrong) from None
        if array.dtype.kind not in "iuf":
            raise TypeError(wrong)
        found = torch.from_numpy(np.array(array, dtype=np.float64))
    if found.is_complex() or found.dtype == torch.bool:
        raise TypeError(wrong)
    return found.double()
