"""The one-step identity, and the quantities that it is made of, iterate by iterate.

Model: y = A x* + v. Objective: F_n = ‖A x_n − y‖² (no ½). One iteration of NPGD is
w_n = x_n − η Aᵀ(A x_n − y), x_{n+1} = P(w_n).

With e_n = x_n − x*, d_n = x_{n+1} − x_n, f_n = ‖A e_n‖² and

    α_n = f_n / ‖e_n‖²,   β_n = ‖A d_n‖² / ‖d_n‖²,   δ_n = ‖x_{n+1} − w_n‖² − ‖x* − w_n‖²,

    F_{n+1} = (1/(η α_n) − 1) f_n + ‖v‖² + δ_n/η + (β_n − 1/η) ‖d_n‖²

holds for every A, x_n, x_{n+1}, x*, v and η: it is algebra, and assumes no set. Theorem 1 of
Raj, Li, Bresler (ICCV 2019) is this identity with α_n ≥ α, β_n ≤ β = 1/η, δ_n ≤ δ and v = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from npgd import checks
from npgd.files import plain
from npgd.images import inner, quotient, squared_norm
from npgd.precision import converted


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
    operator = converted(A)
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
        delta = inner(e_next, e_next + 2 * (gradient_step - e))
        A_d_squared, d_squared = squared_norm(operator(d)), squared_norm(d)
        terms = torch.stack(
            [
                squared_norm(e) / step_size,
                -squared_norm(A_e),
                squared_norm(noise),
                delta / step_size,
                A_d_squared,
                -d_squared / step_size,
                -squared_norm(A_e_next - noise),
            ]
        )
        scale = terms.abs().amax(0)
        residual = torch.where(scale > 0, terms.sum(0).abs() / scale, torch.zeros_like(scale))
        return A_d_squared, d_squared, delta, residual

    e = iterates[0].double() - x_star
    A_e = operator(e)
    errors, fs, objectives = [squared_norm(e)], [squared_norm(A_e)], [squared_norm(A_e - noise)]
    rows: list[tuple[torch.Tensor, ...]] = []
    for n in range(n_iter):
        e_next = iterates[n + 1].double() - x_star
        A_e_next = operator(e_next)
        d = iterates[n + 1].double() - iterates[n].double()
        rows.append(summands(e, A_e, e_next, A_e_next, d))
        errors.append(squared_norm(e_next))
        fs.append(squared_norm(A_e_next))
        objectives.append(squared_norm(A_e_next - noise))
        e, A_e = e_next, A_e_next

    error, f = torch.stack(errors).cpu(), torch.stack(fs).cpu()
    empty = error.new_zeros(0, error.shape[1])
    A_d_sq, d_sq, delta, residual = (
        [torch.stack(column).cpu() for column in zip(*rows, strict=True)] if rows else [empty] * 4
    )
    return Decomposition(
        alpha=quotient(f[:-1], error[:-1]),
        beta=quotient(A_d_sq, d_sq),
        delta=delta,
        residual=residual,
        objective=torch.stack(objectives).cpu(),
        range_objective=f,
        error=error,
        step=d_sq,
        noise=squared_norm(noise).cpu(),
        step_size=float(step_size),
    )


def _or_zero(ratio: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """ratio · denominator, and 0 where the ratio is undefined because its denominator is 0."""
    return torch.where(denominator > 0, ratio * denominator, 0.0)


def _span(values: torch.Tensor) -> str:
    kept = values[~values.isnan()]
    return f"[{float(kept.min()):.3g}, {float(kept.max()):.3g}]" if kept.numel() else "nothing"
