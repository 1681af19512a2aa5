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

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from npgd import checks
from npgd.files import plain
from npgd.images import Images, Measurements, PerImage, inner, quotient, squared_norm
from npgd.operators import LinearOperator
from npgd.precision import converted, plainly
from npgd.sets import needs
from npgd.showing import Drawn, iterations, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Decomposition(Drawn):
    """α_n, β_n, δ_n of every iteration, and how well the one-step identity closes.

    Rows are iterations n = 0 … n_iter − 1 (row n takes x_n to x_{n+1}), columns are images. Squared
    norms are sums over pixels, in float64.
    """

    alpha: Float[torch.Tensor, "n_iter batch"]
    """α_n = ‖A e_n‖²/‖e_n‖², NaN where x_n = x*: that pair says nothing about A."""
    beta: Float[torch.Tensor, "n_iter batch"]
    """β_n = ‖A d_n‖²/‖d_n‖², NaN where x_{n+1} = x_n."""
    delta: Float[torch.Tensor, "n_iter batch"]
    """δ_n = ‖x_{n+1} − w_n‖² − ‖x* − w_n‖²."""
    behind: Float[torch.Tensor, "2 n_iter batch"]
    """‖x_{n+1} − w_n‖² − ‖s − w_n‖² for s = x_n and for s = x_{n−1} (NaN at n = 0), which the
    projector could have taken as well as x*."""
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
    size: Float[torch.Tensor, " batch"]
    """The largest ‖x‖² of x*, x_n and w_n."""
    precision: float
    """Of the iterates: 100 machine epsilons of their type."""
    norm: float
    """‖A‖."""
    step_size: float | Float[torch.Tensor, "n_iter batch"]
    """η, one of all or one of each iteration and image."""

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

    @property
    def one_step_size(self) -> float:
        """η, where it is one number for all; ValueError where it is not."""
        if isinstance(self.step_size, torch.Tensor):
            raise ValueError(
                "a bound needs one step size for all iterations, got a decomposition of a run with"
                " its own steps"
            )
        return self.step_size

    @property
    def off(self) -> PerImage:
        """The length by which rounding may move an iterate off S.

        Relative to the largest of ‖x*‖, ‖x_n‖, ‖w_n‖, since P computes with all of them.
        """
        return self.precision * self.size.sqrt()

    def highest_alpha(self) -> Float[torch.Tensor, "n_iter batch"]:
        """What α_n may be of points that are not rounded.

        Of e = e' + ξ, e' the difference of two points of S and ‖ξ‖ ≤ 2 off, ‖A e‖ ≥ ‖A e'‖ − ‖A‖‖ξ‖
        and ‖e‖ ≤ ‖e'‖ + ‖ξ‖, so that √α_n is at most 2‖A‖‖ξ‖/‖e‖ too small.
        """
        return (self.alpha.sqrt() + 4 * self.norm * self.off / self.error[:-1].sqrt()) ** 2

    def lowest_beta(self) -> Float[torch.Tensor, "n_iter batch"]:
        """What β_n may be of points that are not rounded, as for `highest_alpha`."""
        return (self.beta.sqrt() - 4 * self.norm * self.off / self.step.sqrt()).clamp_min(0) ** 2

    def highest_delta(self, start: int = 0) -> Float[torch.Tensor, "n batch"]:
        """The largest of δ_n and `behind` from n = `start` on, less what rounding makes of it.

        Two points that are moved by `off` change ‖x_{n+1} − w_n‖² − ‖s − w_n‖², lengths of at most
        2√size, by 8 off √size at most, up to the square of `off`.
        """
        start = checks.integer(start, "start", minimum=0)
        if start > len(self.delta):
            raise ValueError(f"start must be at most {len(self.delta)}, got {start}")
        behind = self.behind[:, start:].clone()
        behind[1, :1] = math.nan  # x_{start−1} need not lie in S
        found = torch.cat([self.delta[None, start:], behind]).nan_to_num(nan=-math.inf).amax(0)
        return found - 8 * self.off * (self.size.sqrt() + self.off)

    def terms(self) -> dict[str, Float[torch.Tensor, "n_iter batch"]]:
        """The four summands of F_{n+1}, by the quantity that makes them."""
        rows = self.alpha.shape[0]
        return {
            "alpha": self.error[:-1] / self.step_size - self.range_objective[:-1],
            "beta": _or_zero(self.beta, self.step) - self.step / self.step_size,
            "delta": self.delta / self.step_size,
            "noise": self.noise.expand(rows, -1),
        }

    def draw(self, axis: Axes) -> None:
        """α_n and β_n of every iteration, the median over the images."""
        for values, label in ((self.alpha, "αₙ"), (self.beta, "βₙ")):
            axis.plot(range(len(values)), values.nanmedian(1).values, "o-", label=label)
        plain_log(axis.yaxis)
        iterations(axis)
        axis.set_ylabel("median over images")
        axis.legend()

    def __str__(self) -> str:
        rows, batch = self.alpha.shape
        eta = self.step_size
        steps = _span(eta) if isinstance(eta, torch.Tensor) else f"{eta:.4g}"
        return (
            f"{rows} iterations of {batch} images at step size {steps}: "
            f"α_n in {_span(self.alpha)}, β_n in {_span(self.beta)}, δ_n in {_span(self.delta)}; "
            f"{self.status}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "step_size": plain(self.step_size),
            "alpha": plain(self.alpha),
            "beta": plain(self.beta),
            "delta": plain(self.delta),
            "behind": plain(self.behind),
            "residual": plain(self.residual),
            "objective": plain(self.objective),
            "error": plain(self.error),
            "noise": plain(self.noise),
            "status": self.status,
        }


@plainly
@torch.no_grad()
def decompose(
    A: LinearOperator,
    y: Measurements,
    x_true: Images,
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"],
    step_size: float | Float[torch.Tensor, "n_iter batch"],
) -> Decomposition:
    """Measure α_n, β_n, δ_n along the iterates and check the one-step identity.

    Everything is computed in float64 from the differences e_n = x_n − x*, d_n = x_{n+1} − x_n and
    the noise v = y − A x*, so that the identity closes to rounding even where the iterates have
    converged. A is applied to e_n, e_{n+1} and d_n separately: an operator that is not linear, or
    whose adjoint is wrong, shows as a residual.

    Args:
        A: linear operator with `A(x)` and `A.adjoint(y)`; a module is copied to float64.
        y: measurements.
        x_true: the point x* that the iterates are held against. The theorem wants it in range(G);
            the identity does not care, and counts y − A x* as noise.
        iterates: x_0 first, as `recover(…, record_iterates=True)` returns them.
        step_size: η > 0 of the gradient step x − η Aᵀ(A x − y): a number, or one for each iteration
            and image, as `Solution.step_sizes` has them. Rows of images that were done before (they
            repeat) have none, nor have steps on the latent: leave them out.

    Raises:
        ValueError: if the shapes do not match, or the step size is not positive and finite.
    """
    check_run(A, y, x_true, iterates)
    eta = _step_sizes(step_size, iterates)
    operator, x_star = converted(A), x_true.double()
    noise = y.double() - operator(x_star)
    e = iterates[0].double() - x_star
    A_e, before = operator(e), torch.full_like(e, math.nan)
    errors, fs, objectives = [squared_norm(e)], [squared_norm(A_e)], [squared_norm(A_e - noise)]
    size = torch.maximum(squared_norm(x_star), squared_norm(iterates[0].double()))
    rows: list[tuple[PerImage, ...]] = []
    for x, step in zip(iterates[1:], eta, strict=True):
        e_next = x.double() - x_star
        A_e_next, d = operator(e_next), e_next - e
        gradient_step = step[:, None, None, None] * operator.adjoint(A_e - noise)
        rows.append(_iteration(operator, e, d, before, gradient_step))
        for point in (x.double(), e + x_star - gradient_step):
            size = torch.maximum(size, squared_norm(point))
        e, A_e, before = e_next, A_e_next, d
        errors.append(squared_norm(e))
        fs.append(squared_norm(A_e))
        objectives.append(squared_norm(A_e - noise))

    error, f = torch.stack(errors).cpu(), torch.stack(fs).cpu()
    objective, noise_squared = torch.stack(objectives).cpu(), squared_norm(noise).cpu()
    empty = error.new_zeros(0, error.shape[1])
    A_d_sq, d_sq, delta, stay, back = (
        [torch.stack(column).cpu() for column in zip(*rows, strict=True)] if rows else [empty] * 5
    )
    eta = eta.cpu()
    terms = [error[:-1] / eta, -f[:-1], noise_squared.expand_as(d_sq), delta / eta]
    terms += [A_d_sq, -d_sq / eta, -objective[1:]]
    return Decomposition(
        alpha=quotient(f[:-1], error[:-1]),
        beta=quotient(A_d_sq, d_sq),
        delta=delta,
        behind=torch.stack([stay, back]),
        residual=_relative_residual(torch.stack(terms)),
        objective=objective,
        range_objective=f,
        error=error,
        step=d_sq,
        noise=noise_squared,
        size=size.cpu(),
        precision=100 * torch.finfo(iterates.dtype).eps,
        norm=float(A.norm()),
        step_size=eta
        if isinstance(step_size, torch.Tensor) and step_size.ndim
        else float(step_size),
    )


def _step_sizes(step_size: object, iterates: torch.Tensor) -> Float[torch.Tensor, "n_iter batch"]:
    """η of every iteration and image, in float64."""
    shape = (len(iterates) - 1, iterates.shape[1])
    if not isinstance(step_size, torch.Tensor) or step_size.ndim == 0:
        eta = checks.number(step_size, "step_size")
        return torch.full(shape, eta, dtype=torch.float64, device=iterates.device)
    if checks.floating(step_size, "step_size").shape != shape:
        raise ValueError(
            f"step_size must be a number or of shape {shape}, one for each iteration and image, got"
            f" {tuple(step_size.shape)}"
        )
    if not bool((checks.finite(step_size, "step_size") > 0).all()):
        raise ValueError(f"step_size must be positive, got {float(step_size.min()):g}")
    return step_size.double().to(iterates.device)


def needs_map(A: object) -> None:
    """TypeError unless A can be applied, and its transpose."""
    if not callable(A):
        raise TypeError(f"A must be a linear operator, got {checks.shown(A)}")
    needs(A, "adjoint", "norm", what="the one-step identity", name="A")


def check_run(A: LinearOperator, y: Measurements, x_true: Images, iterates: torch.Tensor) -> None:
    """Raise TypeError or ValueError, by name, unless a run is one of A on y, with finite images."""
    needs_map(A)
    shape = getattr(A, "image_shape", None)
    checks.finite(checks.any_images(x_true, "x_true"), "x_true")
    if shape is not None:
        checks.images(x_true, checks.image_shape(shape, "A.image_shape"), "x_true")
    if checks.iterates(iterates).ndim != 5 or iterates.shape[1:] != x_true.shape:
        sides = ", ".join(map(str, x_true.shape))
        raise ValueError(
            f"iterates must be of shape (n_iter + 1, {sides}) to match x_true, got"
            f" {tuple(iterates.shape)}"
        )
    if not len(iterates):
        raise ValueError("iterates must hold x_0, got none")
    checks.finite(iterates, "iterates")
    m = getattr(A, "m", None)
    if checks.floating(y, "y").ndim != 2 or len(y) != len(x_true) or m not in (None, y.shape[1]):
        raise ValueError(
            f"y must be of shape ({x_true.shape[0]}, {m or 'm'}) to match x_true and A, got"
            f" {tuple(y.shape)}"
        )
    checks.squares(checks.finite(y, "y").double(), "y")


def _iteration(
    A: LinearOperator, e: Images, d: Images, before: Images, gradient_step: Images
) -> tuple[PerImage, ...]:
    """‖A d_n‖², ‖d_n‖², and ‖x_{n+1} − w_n‖² − ‖s − w_n‖² for s = x*, x_n, x_{n−1}.

    Of two squares with the difference u and the sum w, ⟨u, w⟩: no difference of two large numbers.
    """
    return (
        squared_norm(A(d)),
        squared_norm(d),
        inner(e + d, e + d + 2 * (gradient_step - e)),
        inner(d, d + 2 * gradient_step),
        inner(d + before, d - before + 2 * gradient_step),
    )


def _relative_residual(terms: Float[torch.Tensor, "terms n_iter batch"]) -> torch.Tensor:
    """|Σ terms| over the largest of them, and 0 where all are 0."""
    scale = terms.abs().amax(0)
    return torch.where(scale > 0, terms.sum(0).abs() / scale, 0.0)


def _or_zero(ratio: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """ratio · denominator, and 0 where the ratio is undefined because its denominator is 0."""
    return torch.where(denominator > 0, ratio * denominator, 0.0)


def _span(values: torch.Tensor) -> str:
    kept = values[~values.isnan()]
    return f"[{float(kept.min()):.3g}, {float(kept.max()):.3g}]" if kept.numel() else "nothing"
