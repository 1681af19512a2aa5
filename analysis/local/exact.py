"""The local rate with exact projection, from the tangents at a point of S and the bend there.

The formulas are in `analysis.local`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import scipy.optimize
import torch
from jaxtyping import Float

from analysis.drawing import by_image, no_rates, rates_by_image
from analysis.local.derivative import forward, wide
from analysis.local.doors import check_fit, check_operator, measured, ranged
from analysis.projection import nearest_in_range
from analysis.words import about, at_most, median, out_of
from npgd import checks, sets
from npgd.files import plain
from npgd.gauss_newton import forward_mode, gauss_newton_step, jacobian
from npgd.images import Images, Latents, Measurements, PerImage, norm
from npgd.operators import LinearOperator
from npgd.precision import converted, plainly
from npgd.sets import GENERATED, Generated
from npgd.showing import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class LocalRate(Drawn):
    """How fast NPGD with the exact projection ends, image by image."""

    rate: PerImage
    """Factor per step of ‖x_n − x̄‖, max |1 − ηλ|; NaN where x̄ is not the nearest point of S to w̄
    around it, so that no run rests there."""
    eigenvalues: Float[torch.Tensor, "batch k"]
    """λ, ascending: DT has the eigenvalues 1 − ηλ; NaN beyond the rank of J."""
    step_size: float
    """η."""
    best_step_size: PerImage
    """The η of the least rate: 2/(λ_min + λ_max) where S does not bend towards w̄."""
    best_rate: PerImage
    """The rate at that step."""
    latent: Latents
    """z̄."""
    curvature: PerImage
    """‖S_ν‖, the bend of S times the distance of w̄ from it: 0 without noise on S, and below 1
    where x̄ is the nearest point."""
    residual: PerImage
    """How far one step moves x̄, over ‖x̄‖: 0 at a point of rest."""

    @property
    def kappa(self) -> PerImage:
        """κ_T = λ_max/λ_min over the tangents at x̄; ∞ where A maps one to 0."""
        low = self.eigenvalues.nan_to_num(math.inf).amin(1)
        high = self.eigenvalues.nan_to_num(-math.inf).amax(1)
        return torch.where(low > 0, high / low, math.inf)

    @property
    def status(self) -> str:
        """Which images a run comes to rest at, and how fast, in words."""
        batch = len(self.rate)
        rests = self.rate < 1
        count = int(rests.sum())
        text = f"with exact projection, runs that come near end at {out_of(count, batch)}"
        if count:
            text += f", by a factor {about(median(self.rate[rests]))} per step (median)"
        flat = int((self.rate >= 1).sum())
        if flat:
            text += f"; {flat} with a rate of 1 or more, along a tangent that A or the step loses"
        bent = int(self.rate.isnan().sum())
        if bent:
            text += f"; at {bent} S bends too much towards the point projected for a nearest point"
        return text

    def draw(self, axis: Axes) -> None:
        """The rate of every image at this step, and at its best one."""
        by_image(axis, self.rate, f"η = {about(self.step_size)}", "beta")
        by_image(axis, self.best_rate, "each image's best η", "alpha", seen=True)
        rates_by_image(axis, len(self.rate))
        if bool(self.rate.isnan().all()):
            no_rates(axis, "no rate: at no image is there a nearest point to rest at")
        axis.legend(fontsize=8)

    def __str__(self) -> str:
        lines = [
            f"local rate: {self.status}",
            f"  step η = {about(self.step_size)}; best η {ranged(self.best_step_size)}, rate then"
            f" {ranged(self.best_rate)}",
            f"  rate {ranged(self.rate)}; κ over tangents {ranged(self.kappa)}",
        ]
        if bool((self.curvature > 0).any()):
            lines.append(f"  curvature ‖S_ν‖ {ranged(self.curvature)} (noise, or images off S)")
        moves = at_most(float(self.residual.max()), 2)
        lines.append(f"  one step moves the points of rest by at most {moves}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        named = ("rate", "eigenvalues", "best_step_size", "best_rate", "curvature", "residual")
        return {
            "status": self.status,
            "step_size": self.step_size,
            "kappa": plain(self.kappa),
            **{name: plain(getattr(self, name)) for name in named},
        }


@plainly
@torch.no_grad()
def local_rate(
    A: LinearOperator,
    prior: Generated,
    images: Images,
    step_size: float,
    *,
    y: Measurements | None = None,
    latents: Latents | None = None,
    starts: int = 4,
    steps: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> LocalRate:
    """The local linear rate of NPGD with exact projection at every image, and the best step.

    For an image in S the derivative is taken there. For others, or where y is given, it is taken
    at the point of rest next to the image's nearest point of S: the minimum of ‖A G(z) − y‖² that
    Gauss–Newton and Newton steps lead to. The formulas stand in the module's docstring. Everything
    is computed in float64.

    Args:
        A: the operator.
        prior: G, by `generate(z)`.
        images: x*, (batch, channels, height, width).
        step_size: η > 0.
        y: noisy measurements (batch, m); without them A x*.
        latents: of the images, where they are known: the search for the nearest points is saved.
        starts, steps, seed: of that search, see `analysis.nearest_in_range`.
        progress: show a progress bar of the search.

    Raises:
        TypeError: a prior that cannot be generated from, or an argument of another kind.
        ValueError: shapes that do not fit.
    """
    check_operator(A)
    sets.needs(prior, *GENERATED, what="a local rate")
    step_size = checks.number(step_size, "step_size")
    shape = checks.image_shape(prior.image_shape, "prior.image_shape")
    check_fit(shape, A)
    x = checks.finite(checks.images(images, shape, "images", least=1), "images").detach().double()
    starts, steps = checks.integer(starts, "starts"), checks.integer(steps, "steps", minimum=0)
    seed, progress = checks.seed(seed), checks.flag(progress, "progress")
    target = None if y is None else measured(y, A, len(x))
    A, prior = converted(A), converted(prior)
    if latents is None:
        near = nearest_in_range(prior, x, starts=starts, steps=steps, seed=seed, progress=progress)
        assert near.latent is not None
        z = near.latent
    else:
        z = checks.finite(checks.latents(latents, prior.latent_dim, "latents"), "latents").double()
        if len(z) != len(x):
            raise ValueError(f"latents must hold {len(x)} rows as images do, got {len(z)}")
    off = norm(x - prior.generate(z)) > ON_SET * norm(x)
    target = A(torch.where(wide(off, x), x, prior.generate(z))) if target is None else target
    if y is not None or bool(off.any()):
        z = _minimum(A, prior, z, target)
    parts = [_Tangents.at(A, prior, z[i : i + 1], target[i : i + 1]) for i in range(len(z))]
    return _local(parts, z, step_size, prior.latent_dim)


ON_SET = 1e-6
"""An image nearer to S than this, relative to its norm, lies in S."""
NEWTON = 12
"""Newton steps to the point of rest, after as many of Gauss and Newton."""


@dataclass(frozen=True, eq=False)
class _Tangents:
    """At one G(z), in an orthonormal basis of its tangents: AᵀA, the curvature, the gradient."""

    gain: Float[torch.Tensor, "rank rank"]
    """Qᵀ AᵀA Q."""
    bend: Float[torch.Tensor, "rank rank"]
    """−S_ν/η: ∇² of ⟨Aᵀ(A x − y), G⟩ along the basis."""
    slope: Float[torch.Tensor, " rank"]
    """Qᵀ Aᵀ(A x − y)."""
    back: Float[torch.Tensor, "k rank"]
    """From the basis to latents: J back = Q."""
    length: float
    """‖x‖."""

    @classmethod
    def at(cls, A: LinearOperator, prior: Generated, z: Latents, y: Measurements) -> _Tangents:
        """Those of one latent (1, k)."""
        columns = jacobian(prior, z)[0]
        x = prior.generate(z)
        q, r = torch.linalg.qr(columns.flatten(1).T)
        u, s, vh = torch.linalg.svd(r)
        rank = int((s > max(columns[0].numel(), 16) * torch.finfo(s.dtype).eps * s[0]).sum())
        basis = (q @ u[:, :rank]).T
        back = vh[:rank].T / s[:rank]
        images = A(basis.reshape(-1, *x.shape[1:]))
        missed = A(x) - y
        pull = A.adjoint(missed)
        bend = torch.zeros(rank, rank, dtype=s.dtype, device=s.device)
        if float(norm(missed)) > 1e-12 * float(norm(y)):
            hessian = _hessian(prior, z, pull)
            bend = back.T @ hessian @ back
        return cls(
            images @ images.T,
            (bend + bend.T) / 2,
            basis @ pull.flatten(),
            back,
            float(norm(x)),
        )

    def values(self, step_size: float) -> Float[torch.Tensor, " rank"] | None:
        """λ of DT = I − ηΛ, ascending; None where x is not the nearest point to w."""
        weight = torch.eye(len(self.gain), dtype=self.gain.dtype) + step_size * self.bend.cpu()
        factor, failed = torch.linalg.cholesky_ex(weight)
        if int(failed):
            return None
        inner = torch.linalg.solve_triangular(factor, (self.gain + self.bend).cpu(), upper=False)
        inner = torch.linalg.solve_triangular(factor, inner.T, upper=False)
        values: torch.Tensor = torch.linalg.eigvalsh((inner + inner.T) / 2)
        return values

    def rate(self, step_size: float) -> float:
        """max |1 − ηλ|; ∞ where no run rests."""
        values = self.values(step_size)
        return math.inf if values is None else float((1 - step_size * values).abs().max())

    def best(self, step_size: float) -> float:
        """The step of the least rate: in closed form without curvature, else by search."""
        values = torch.linalg.eigvalsh(self.gain.cpu())
        closed = 2 / max(float(values[0] + values[-1]), torch.finfo(values.dtype).tiny)
        if not bool(self.bend.any()):
            return closed
        tried = [closed * 2 ** (i / 4) for i in range(-16, 9)] + [step_size]
        start = min(tried, key=self.rate)
        found = scipy.optimize.minimize_scalar(
            self.rate, bounds=(start / 2**0.25, start * 2**0.25), method="bounded"
        )
        return float(found.x) if float(found.fun) < self.rate(start) else start


def _hessian(prior: Generated, z: Latents, pull: Images) -> Float[torch.Tensor, "k k"]:
    """∇² of ⟨pull, G(z)⟩ at one latent, by forward mode over reverse mode."""

    def slope(latent: torch.Tensor) -> torch.Tensor:
        gradient: torch.Tensor = torch.func.vjp(prior.generate, latent)[1](pull)[0]
        return gradient

    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None]
    with forward_mode:
        return forward(slope, z, eye)[:, 0]


def _minimum(A: LinearOperator, prior: Generated, z: Latents, y: Measurements) -> Latents:
    """The minimum of ‖A G(z) − y‖² that Gauss–Newton, and then Newton steps, lead to."""
    for _ in range(NEWTON):
        z, before = gauss_newton_step(prior, z, y, A)[0], z
        if float(norm(z - before).max()) <= 1e-9 * float(norm(z).max()):
            break
    rows = []
    for latent, target in zip(torch.split(z, 1), torch.split(y, 1), strict=True):
        here = _Tangents.at(A, prior, latent, target)
        for _ in range(NEWTON):
            curvature = here.gain + here.bend
            if int(torch.linalg.cholesky_ex(curvature)[1]):
                break
            trial = latent - (here.back @ torch.linalg.solve(curvature, here.slope))[None]
            there = _Tangents.at(A, prior, trial, target)
            if not float(there.slope.norm()) < float(here.slope.norm()):
                break
            latent, here = trial, there
        rows.append(latent)
    return torch.cat(rows)


def _local(parts: list[_Tangents], z: Latents, step_size: float, k: int) -> LocalRate:
    eigenvalues = torch.full((len(parts), k), math.nan, dtype=torch.float64)
    for row, part in zip(eigenvalues, parts, strict=True):
        values = part.values(step_size)
        if values is not None:
            row[: len(values)] = values.double()
    steps = [part.best(step_size) for part in parts]

    def column(values: list[float]) -> PerImage:
        found = torch.tensor(values, dtype=torch.float64)
        return found.where(found.isfinite(), torch.nan)

    return LocalRate(
        rate=column([part.rate(step_size) for part in parts]),
        eigenvalues=eigenvalues,
        step_size=step_size,
        best_step_size=column(steps),
        best_rate=column([part.rate(step) for part, step in zip(parts, steps, strict=True)]),
        latent=z,
        curvature=column([step_size * float(torch.linalg.matrix_norm(part.bend, 2))
                          for part in parts]),
        residual=column([step_size * float(part.slope.norm()) / max(part.length, 1e-300)
                         for part in parts]),
    )  # fmt: skip


CHORDS = 8
"""Steps to the nearest point, from one iterate to the next;"""
SOLVED = 0.1
"""the last is no longer than this share of the first, where they lead to one."""


@torch.no_grad()
def nearest_run(
    A: LinearOperator, prior: Generated, z: Latents, y: Measurements, step_size: float, n_iter: int
) -> Float[torch.Tensor, "n_iter_plus_1 batch k"]:
    """The latents of NPGD with exact projection, from z on; near a point of rest.

    The condition of the nearest point, J(z)ᵀ(w − G(z)) = 0, is solved from the last latent by steps
    with the inverse of ∇² ½‖w − G(z)‖² = JᵀJ − ⟨w − G(z), ∇²G⟩ at the start. It ends where nothing
    moves any more. Where the steps lead to no solution, as at a kink of G, an image stays at its
    start throughout, and its run has no rate.
    """
    columns = jacobian(prior, z).flatten(2)
    curved = columns @ columns.transpose(1, 2)
    missed = A(prior.generate(z)) - y
    if bool((norm(missed) > 1e-12 * norm(y)).any()):
        pulls = torch.split(step_size * A.adjoint(missed), 1)
        bends = [_hessian(prior, *pair) for pair in zip(torch.split(z, 1), pulls, strict=True)]
        curved = curved + torch.stack([(bend + bend.T) / 2 for bend in bends])
    inverse = torch.linalg.pinv(curved, hermitian=True)
    points, lost = [z], torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for _ in range(n_iter):
        first = None
        x = prior.generate(z)
        w = x - step_size * A.adjoint(A(x) - y)
        for _ in range(CHORDS):
            with torch.enable_grad():
                made: Any = torch.func.vjp(prior.generate, z)
                pulled = made[1]((w - made[0]).detach())[0].detach()
            moved = (inverse @ pulled[..., None])[..., 0]
            z = z + moved
            first = norm(moved) if first is None else first
            if float(norm(moved).max()) < 1e-13:
                break
        assert first is not None
        lost |= ~((norm(moved) <= SOLVED * first) | (norm(moved) < 1e-12))
        z = torch.where(lost[:, None], points[0], z)
        points.append(z)
        if float(norm(points[-1] - points[-2]).max()) < 1e-12:
            break
    return torch.where(lost[:, None], points[0], torch.stack(points))
