"""Where an iteration rests, and its local rate there.

The formulas are in `analysis.local`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Complex, Float

from analysis.drawing import says
from analysis.local.derivative import AnyMap, Iteration, LatentNPGD, Map, Points, wide
from analysis.local.doors import check_fit, check_operator, measured, ranged
from analysis.local.search import anderson, iterated
from analysis.local.spectrum import DENSE, arnoldi, best_step, jacobian_of, leading
from analysis.words import about, at_most, median, out_of
from npgd import checks, sets
from npgd.files import plain
from npgd.images import Images, Latents, Measurements, PerImage, norm
from npgd.operators import LinearOperator
from npgd.precision import converted, plainly
from npgd.progress import bar
from npgd.sets import ENCODED, Encoded
from npgd.showing import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class FixedPoint(Drawn):
    """Where an iteration rests, and how fast it gets there, image by image."""

    point: Points
    """z̄ where one was found, else the point of the least residual."""
    found: Bool[torch.Tensor, " batch"]
    """Whether the residual is within `tol`."""
    rests: Bool[torch.Tensor, " batch"]
    """Whether the plain iteration rests there: it came to rest, or was seen on its way to a point
    that attracts."""
    rate: PerImage
    """Spectral radius of DT at z̄; NaN where none was found."""
    eigenvalue: Complex[torch.Tensor, " batch"]
    """The leading eigenvalue of DT; of a complex pair the one above the real line."""
    period: PerImage
    """Iterations in which the error swings once; 2 for a negative eigenvalue; NaN for a positive
    one."""
    residual: PerImage
    """‖T(z̄) − z̄‖ / ‖z̄‖ (over 1 where z̄ is shorter than that)."""
    n_iter: tuple[int, ...]
    """Plain iterations done until the image rested, or all of them."""
    outcomes: tuple[str, ...]
    """Of each image, in words; see `OUTCOMES`."""
    derivative: str
    """How DT was computed: "forward mode" or "central differences"."""
    eigenvalue_residual: PerImage
    """Of Arnoldi's iteration: ‖DT v − λv‖/|λ|; 0 where all of DT was computed."""
    jacobian: Float[torch.Tensor, "batch d d"] | None
    """DT at z̄, up to `DENSE` dimensions."""
    tol: float
    """The residual that counts as rest."""
    step_size: float | None = None
    """η, of NPGD."""
    best_step_size: PerImage | None = None
    """Of NPGD: the η of the least spectral radius, z̄ and the derivatives of G and G† held as they
    are at this η."""
    best_rate: PerImage | None = None
    """The spectral radius there, under the same assumption."""
    image: Images | None = None
    """G(z̄), of NPGD."""

    def __getitem__(self, images: slice) -> FixedPoint:
        """That of some of the images, `rest[:3]`.

        Raises:
            TypeError: `images` is no slice.
        """
        if not isinstance(images, slice):
            raise TypeError(f"images must be a slice such as rest[:3], got {checks.shown(images)}")
        kept: dict[str, Any] = {
            name: value[images]
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor | tuple)
        }
        return replace(self, **kept)

    @property
    def latent(self) -> Points:
        """z̄ of `fixed_point`: another name of `point`."""
        return self.point

    @property
    def status(self) -> str:
        """How many rest, how fast, and what the others do."""
        batch = len(self.outcomes)
        counts = Counter(self.outcomes)
        text = f"the iteration rests for {out_of(int(self.rests.sum()), batch)}"
        if bool(self.rests.any()):
            text += f", by a factor {about(median(self.rate[self.rests]))} per step (median)"
        others = ", ".join(f"{counts[word]} {word}" for word in OUTCOMES[2:] if counts[word])
        return text + (f" ({others})" if others else "")

    def __str__(self) -> str:
        known = self.found & self.rate.isfinite()
        lines = [f"fixed point: {self.status}"]
        if bool(known.any()):
            lines.append(f"  spectral radius {ranged(self.rate[known])}, by {self.derivative}")
            swings = known & ~self.period.isnan()
            if bool(swings.any()):
                lines.append(
                    f"  the error swings for {out_of(int(swings.sum()), int(known.sum()))}, with a"
                    f" period of {ranged(self.period[swings])} iterations"
                )
            if self.jacobian is None:
                worst = float(self.eigenvalue_residual[known].max())
                lines.append(
                    f"  leading eigenvalues by Arnoldi, relative residual ≤ {at_most(worst, 2)}"
                )
        if self.step_size is not None:
            lines.append(f"  step η = {about(self.step_size)}")
        if self.best_step_size is not None and self.best_rate is not None and bool(known.any()):
            lines.append(
                f"  best η about {ranged(self.best_step_size[known])}, spectral radius then about"
                f" {ranged(self.best_rate[known])}"
            )
        lines.append(
            f"  one iteration moves the points found by at most {at_most(self._moves(), 2)}"
        )
        return "\n".join(lines)

    def draw(self, axis: Axes) -> None:
        """Eigenvalues of DT at the points found, and the circle within which a point attracts.

        The leading ones are filled; the others are known up to `DENSE` dimensions.
        """
        known = self.found & self.rate.isfinite()
        if self.jacobian is not None and bool(known.any()):
            others = torch.linalg.eigvals(self.jacobian[known]).flatten()
            axis.plot(others.real, others.imag, "o", ms=3, mfc="none", label="eigenvalues of DT")
        led = torch.cat([self.eigenvalue[known], self.eigenvalue[known].conj()])
        axis.plot(led.real, led.imag, "o", ms=5, label="leading")
        angle = torch.linspace(0, 2 * math.pi, 200)
        axis.plot(angle.cos(), angle.sin(), "k--", lw=0.8, label="within, a point attracts")
        axis.set(xlabel="real part", ylabel="imaginary part")
        axis.set_aspect("equal", adjustable="datalim")
        if not bool(known.any()):
            says(axis, "no fixed point with a rate was found")
        axis.legend(fontsize=8, loc="upper right")

    def _moves(self) -> float:
        return float(self.residual[self.found].max()) if bool(self.found.any()) else math.nan

    def to_dict(self) -> dict[str, Any]:
        named = ("found", "rests", "rate", "period", "residual", "eigenvalue_residual")
        return {
            "status": self.status,
            "outcomes": list(self.outcomes),
            "n_iter": list(self.n_iter),
            "derivative": self.derivative,
            "tol": self.tol,
            "step_size": self.step_size,
            "eigenvalue": [[v.real, v.imag] if math.isfinite(abs(v)) else None
                           for v in self.eigenvalue.tolist()],
            **{name: plain(getattr(self, name)) for name in named},
            "best_step_size": plain(self.best_step_size),
            "best_rate": plain(self.best_rate),
        }  # fmt: skip


OUTCOMES = (
    "at rest",
    "on its way to a point that attracts",
    "away from a point that attracts",
    "around a point that repels",
    "without a fixed point that was found",
    "diverged",
)
"""How the plain iteration of an image ends; the first two count as rest."""


@plainly
@torch.no_grad()
def fixed_point(
    A: LinearOperator,
    prior: Encoded,
    y: Measurements,
    step_size: float,
    *,
    start: Latents | None = None,
    max_iter: int = 500,
    tol: float | None = None,
    progress: bool = False,
) -> FixedPoint:
    """Where NPGD with this projector rests, and its local rate, for each y.

    The latents of NPGD's iterates x_n = G(z_n) follow z ↦ T(z) = G†(G(z) − η Aᵀ(A G(z) − y)).
    Plain iterations from x_0 = Aᵀ y, as NPGD's own, look for the fixed point; for images they
    leave moving, Anderson's (1965) follow. The rate is the spectral radius of DT there. Everything
    is computed in float64; the cost of DT is k directional derivatives of G and 2k of G†.

    Args:
        A: the operator.
        prior: G and G†, by `generate` and `encode`.
        y: measurements, (batch, m).
        step_size: η > 0.
        start: latents to start from, (batch, k), in place of that of x_1.
        max_iter: plain iterations, and as many of Anderson's.
        tol: rest is ‖T(z) − z‖ ≤ tol max(‖z‖, 1); ε^⅔ = 4·10⁻¹¹ by default.
        progress: show a progress bar.

    Raises:
        TypeError: a prior that cannot be encoded into, or an argument of another kind.
        ValueError: shapes that do not fit.
    """
    check_operator(A)
    T = latent_npgd(A, prior, y, step_size)
    if start is None:
        z = T.first(T.A.adjoint(T.y))
    else:
        z = checks.finite(checks.latents(start, prior.latent_dim, "start"), "start").double()
        if len(z) != len(y):
            raise ValueError(f"start must hold {len(y)} rows as y does, got {len(z)}")
    found = found_from(T, z, max_iter, tol, progress)
    best = best_step(T, found.point, found.found) if found.jacobian is not None else None
    return replace(
        found,
        step_size=T.step_size,
        image=T.prior.generate(found.point),
        best_step_size=None if best is None else best[0],
        best_rate=None if best is None else best[1],
    )


def latent_npgd(A: LinearOperator, prior: Encoded, y: Measurements, step_size: float) -> LatentNPGD:
    """NPGD as a map of latents in float64, its arguments checked."""
    check_operator(A)
    sets.needs(prior, *ENCODED, what="a fixed point")
    step_size = checks.number(step_size, "step_size")
    check_fit(checks.image_shape(prior.image_shape, "prior.image_shape"), A)
    y = measured(y, A)
    return LatentNPGD(converted(A), converted(prior), y, step_size)


@plainly
@torch.no_grad()
def fixed_point_of(
    T: Map,
    x0: Points,
    *,
    max_iter: int = 500,
    tol: float | None = None,
    progress: bool = False,
) -> FixedPoint:
    """Where the iteration x ↦ T(x) rests from x0, and its local rate, for each row of a batch.

    For instance a plug-and-play iteration with a denoiser, or one step of another library. T is
    differentiated by forward mode; where that fails or disagrees with central differences, by
    these, and `derivative` says so. Computed in the precision of x0.

    Args:
        T: maps (batch, …) to the same shape; rows must not meet.
        x0: where to start, (batch, …) in float32 or float64.
        max_iter: plain iterations, and as many of Anderson's.
        tol: rest is ‖T(x) − x‖ ≤ tol max(‖x‖, 1); ε^⅔ by default: 4·10⁻¹¹ in float64.
        progress: show a progress bar.

    Raises:
        TypeError: a T that cannot be called, or an x0 that is no tensor.
        ValueError: a T that does not give a tensor of x0's shape.
    """
    if not callable(T):
        raise TypeError(f"T must be callable, got {checks.shown(T)}")
    x = checks.finite(checks.floating(x0, "x0"), "x0").detach()
    checks.floating_type(x.dtype, "x0")
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"x0 must have shape (batch, …) and hold a row, got {tuple(x.shape)}")
    out = T(x)
    if not isinstance(out, torch.Tensor) or out.shape != x.shape or out.dtype != x.dtype:
        raise ValueError(f"T must map x0 to its own shape and type, got {checks.shown(out)}")
    return found_from(AnyMap(T, x), x, max_iter, tol, progress)


def found_from(
    T: Iteration, z: Points, max_iter: int, tol: float | None, progress: bool
) -> FixedPoint:
    """The fixed points from z, and the spectra there; without the best step."""
    max_iter, progress = checks.integer(max_iter, "max_iter"), checks.flag(progress, "progress")
    least = torch.finfo(z.dtype).eps ** (2 / 3)
    tol = least if tol is None else checks.number(tol, "tol")
    with bar(None, "fixed point", show=progress) as shown:
        run = iterated(T, z, max_iter, tol, shown)
        point, residual = run.point, run.residual
        if not bool((run.rested | run.diverged).all()):
            point, residual = anderson(T, run, max_iter, tol, shown)
    found = ((residual <= tol) & residual.isfinite()).cpu()
    dims = z[0].numel()
    if dims <= DENSE:
        full = jacobian_of(T, point)
        full = torch.where(wide(found, full), full, torch.nan)
        eigenvalue, error = leading(full), torch.zeros(len(z), dtype=torch.float64)
    else:
        full = None
        eigenvalue, error = arnoldi(T, point, found)
    rate = eigenvalue.abs()
    # Half as much nearer as the rate says, on a logarithmic scale: no cycle comes so near.
    nearer = (rate.log() * (max_iter - max_iter // 2) / 2).exp().to(point)
    nears = norm(run.last - point) <= nearer * norm(run.middle - point)
    outcomes = tuple(
        _outcome(*flags)
        for flags in zip(
            run.rested.tolist(), run.diverged.tolist(), found.tolist(), rate.tolist(),
            nears.tolist(), strict=True,
        )
    )  # fmt: skip
    rests = torch.tensor([outcome in OUTCOMES[:2] for outcome in outcomes])
    angle = eigenvalue.angle().abs()
    return FixedPoint(
        point=point,
        found=found,
        rests=rests,
        rate=rate,
        eigenvalue=eigenvalue,
        period=torch.where(angle > 1e-9, 2 * math.pi / angle, math.nan),
        residual=residual.double().cpu(),
        n_iter=tuple(run.n_iter.tolist()),
        outcomes=outcomes,
        derivative=T.derivative,
        eigenvalue_residual=error,
        jacobian=full,
        tol=tol,
    )


def _outcome(rested: bool, diverged: bool, found: bool, rate: float, nears: bool) -> str:
    if diverged:
        return OUTCOMES[5]
    if not found:
        return OUTCOMES[4]
    if rested:
        return OUTCOMES[0]
    if not rate < 1:
        return OUTCOMES[3]
    return OUTCOMES[1] if nears else OUTCOMES[2]
