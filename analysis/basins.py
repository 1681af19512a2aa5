"""Basins: from how far away an iteration still moves nearer to its fixed point.

The derivative at z̄ speaks of the limit. How far it reaches is measured here, in the norm in which
DT itself contracts: for ρ(DT) < 1 Lyapunov's equation (Stein's, in discrete time)

    DTᵀ W DT − W = −I,    ‖u‖_W² = uᵀ W u,

has one solution W ⪰ I, and ‖DT u‖_W² = ‖u‖_W² − ‖u‖² ≤ (1 − 1/λ_max(W)) ‖u‖_W². In the Euclidean
norm a non-normal DT may stretch before it contracts.

For draws z̄ + u, u uniform on the sphere ‖u‖_W = r, it is counted how many move nearer,
‖T(z̄ + u) − z̄‖_W < r. Of s among N, with confidence 1 − ε the share of all such starts that move
nearer is at least Clopper and Pearson's (1934) bound, the ε-quantile of Beta(s, N − s + 1). Each of
the M bounds of a curve is taken at ε/M, so that with confidence 1 − ε all hold at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import scipy.linalg
import scipy.stats
import torch
from jaxtyping import Bool, Float, Int

from analysis.drawing import says
from analysis.local import FixedPoint
from analysis.local.derivative import AnyMap, Iteration, Map
from analysis.local.doors import ranged
from analysis.local.rest import latent_npgd
from analysis.words import about, at_least, out_of
from npgd import checks
from npgd.files import plain
from npgd.images import Measurements, PerImage, norm
from npgd.operators import LinearOperator
from npgd.precision import plainly
from npgd.progress import bar
from npgd.sets import Encoded
from npgd.showing import Drawn, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Basin", "basin", "basin_of", "lower_share", "lyapunov"]


@dataclass(frozen=True, eq=False)
class Basin(Drawn):
    """Which share of starts moves nearer to the fixed point, by their distance from it."""

    radius: Float[torch.Tensor, " radii"]
    """r = ‖z − z̄‖_W, ascending."""
    share: Float[torch.Tensor, "radii batch"]
    """Of the draws at that distance, those that move nearer; NaN of an image that does not rest."""
    at_least: Float[torch.Tensor, "radii batch"]
    """Of all starts at that distance: all of these hold with confidence 1 − ε."""
    factor: Float[torch.Tensor, "radii batch"]
    """The median of ‖T(z) − z̄‖_W / ‖z − z̄‖_W over the draws."""
    draws: int
    """N, at each radius, of each image."""
    epsilon: float
    """ε."""
    wanted: float
    """The share 1 − p that `reach` asks for."""
    metric: Float[torch.Tensor, "batch d d"]
    """W; NaN of an image that does not rest."""
    distance: Float[torch.Tensor, "n_iter_plus_1 batch"]
    """‖z_n − z̄‖_W along the run, its first point first."""
    path: Float[torch.Tensor, "n_iter_plus_1 batch d"]
    """The run, z_n − z̄."""
    size: PerImage
    """‖z̄‖."""
    jacobian: Float[torch.Tensor, "batch d d"]
    """DT at z̄."""

    @property
    def reach(self) -> PerImage:
        """The largest r up to which `at_least` is `wanted` or more; 0 where it nowhere is."""
        good = (self.at_least >= self.wanted).int().cumprod(0).sum(0)
        padded = torch.cat([torch.zeros(1, dtype=self.radius.dtype), self.radius])
        return torch.where(self.share[0].isnan(), math.nan, padded[good])

    @property
    def enters(self) -> Int[torch.Tensor, " batch"]:
        """The first n from which on the run stays within `reach`; −1 where it does not in sight."""
        return _after(~(self.distance <= self.reach), self.distance)

    @property
    def linear_from(self) -> Int[torch.Tensor, " batch"]:
        """The first n from which on DT foretells each next error to `LINEAR`; −1: not in sight.

        ‖e_{n+1} − DT e_n‖_W ≤ `LINEAR` ‖e_n‖_W, as long as e_n is above rounding.
        """
        step = torch.einsum("bij,nbj->nbi", self.jacobian, self.path[:-1])
        missed = _length(self.path[1:] - step, self.metric)
        clear = self.path[:-1].norm(dim=2) > ROUNDING * self.size
        return _after((missed > LINEAR * self.distance[:-1]) & clear, self.distance)

    def iterations(self, accuracy: float = 1e-6) -> PerImage:
        """The predicted n at which ‖z_n − z̄‖ ≤ accuracy ‖z̄‖ first holds.

        From the iterate `linear_from` on, the error follows e ↦ DT e. NaN where that is not in
        sight.
        """
        accuracy = checks.number(accuracy, "accuracy")
        first = self.linear_from
        out = torch.full((len(self.size),), math.nan, dtype=torch.float64)
        for i in (first >= 0).nonzero().flatten().tolist():
            n, goal = int(first[i]), accuracy * float(self.size[i])
            there = (self.path[: n + 1, i].norm(dim=1) <= goal).nonzero()
            out[i] = (
                float(there[0])
                if len(there)
                else n + _linear(self.jacobian[i], self.path[n, i], goal)
            )
        return out

    @property
    def status(self) -> str:
        """How far the basins reach, and where the runs come in."""
        known = ~self.share[0].isnan()
        if not bool(known.any()):
            return "no image rests, so that there is no basin"
        wide = self.reach[known] > 0
        text = (
            f"at least {at_least(100 * self.wanted)} % of starts move nearer for"
            f" {out_of(int(wide.sum()), int(known.sum()))}"
        )
        if bool(wide.any()):
            text += f", up to r = {ranged(self.reach[known][wide])}"
        inside = int((self.enters[known] >= 0).sum())
        return text + f"; the run comes within for {out_of(inside, int(known.sum()))}"

    def draw(self, axis: Axes) -> None:
        """The share of starts that move nearer, by their distance, a line for each image."""
        for i in range(self.share.shape[1]):
            axis.plot(self.radius, self.share[:, i], color="C0", alpha=0.6)
        axis.axhline(self.wanted, color="grey", linestyle=":")
        plain_log(axis.xaxis)
        axis.set(xlabel="distance r", ylabel="share that moves nearer", ylim=(-0.03, 1.03))
        if bool(self.share.isnan().all()):
            says(axis, self.status)

    def __str__(self) -> str:
        known = ~self.share[0].isnan()
        lines = [
            f"basin: {self.status}",
            f"  confidence {at_least(100 * (1 - self.epsilon))} % for all bounds together;"
            f" {self.draws} draws at each r, of each image",
        ]
        if not bool(known.any()):
            return lines[0]
        lines.append(
            "        r   move nearer, least over images   factor, median   the run is within"
        )
        for i, r in enumerate(self.radius.tolist()):
            inside = (self.distance[:, known] <= r).int().argmax(0).double()
            never = ~(self.distance[:, known] <= r).any(0)
            lines.append(
                f"  {about(r):>7}   ≥ {at_least(100 * float(self.at_least[i, known].min())):>5} %"
                f"{'':>22}   {about(float(self.factor[i, known].median())):>8}          from"
                f" n = {ranged(inside.where(~never, math.nan))}"
            )
        count = self.iterations()
        if not bool(count.isnan().all()):
            lines.append(f"  iterations to 1e-6 of the point, predicted: {ranged(count)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        named = ("radius", "share", "at_least", "factor", "reach", "enters", "linear_from")
        return {
            "status": self.status,
            "draws": self.draws,
            "epsilon": self.epsilon,
            "wanted": self.wanted,
            **{name: plain(getattr(self, name)) for name in named},
            "distance": plain(self.distance),
            "iterations": plain(self.iterations()),
        }


@plainly
@torch.no_grad()
def basin(
    A: LinearOperator,
    prior: Encoded,
    y: Measurements,
    rest: FixedPoint,
    *,
    radii: Sequence[float] | None = None,
    draws: int = 200,
    epsilon: float = 0.05,
    wanted: float = 0.9,
    n_iter: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> Basin:
    """The share of starts at distance r from where NPGD rests that move nearer, with confidence.

    The norm, the draws and the bound are those of the module's docstring. The run is NPGD's from
    x_0 = Aᵀ y. Computed in float64; costs radii × draws iterations for each image.

    Args:
        A, prior, y: as for `analysis.fixed_point`.
        rest: what it found.
        radii: r, positive; default: seven, √10 apart, up to the run's first point.
        draws: N, at each radius, of each image.
        epsilon: ε: all bounds hold together with probability 1 − ε at least.
        wanted: the share 1 − p that counts as a basin.
        n_iter: most iterations of the run to look at.
        seed: of the draws.
        progress: show a progress bar.

    Raises:
        TypeError: an argument of another kind.
        ValueError: a `rest` of other images, without a step size, or without its derivative.
    """
    if not isinstance(rest, FixedPoint):
        raise TypeError(f"rest must be a FixedPoint, got {checks.shown(rest)}")
    if rest.step_size is None:
        raise ValueError("rest must come from fixed_point, got that of a map: see basin_of")
    T = latent_npgd(A, prior, y, rest.step_size)
    if tuple(rest.point.shape) != (len(T.y), prior.latent_dim):
        raise ValueError(
            f"rest must hold latents of shape ({len(T.y)}, {prior.latent_dim}), got"
            f" {tuple(rest.point.shape)}"
        )
    settings = _Settings.checked(radii, draws, epsilon, wanted, n_iter, seed, progress)
    return _basin(T, T.first(T.A.adjoint(T.y)), rest, settings)


@plainly
@torch.no_grad()
def basin_of(
    T: Map,
    rest: FixedPoint,
    x0: torch.Tensor,
    *,
    radii: Sequence[float] | None = None,
    draws: int = 200,
    epsilon: float = 0.05,
    wanted: float = 0.9,
    n_iter: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> Basin:
    """The same for any map that `analysis.fixed_point_of` was asked about, and its run from x0."""
    if not callable(T):
        raise TypeError(f"T must be callable, got {checks.shown(T)}")
    if not isinstance(rest, FixedPoint):
        raise TypeError(f"rest must be a FixedPoint, got {checks.shown(rest)}")
    x = checks.finite(checks.floating(x0, "x0"), "x0").detach()
    if x.shape != rest.point.shape:
        raise ValueError(
            f"x0 must have rest's shape {tuple(rest.point.shape)}, got {tuple(x.shape)}"
        )
    settings = _Settings.checked(radii, draws, epsilon, wanted, n_iter, seed, progress)
    return _basin(AnyMap(T, x.to(rest.point)), x.to(rest.point), rest, settings)


@dataclass(frozen=True)
class _Settings:
    radii: tuple[float, ...] | None
    draws: int
    epsilon: float
    wanted: float
    n_iter: int
    seed: int
    progress: bool

    @classmethod
    def checked(
        cls,
        radii: Sequence[float] | None,
        draws: int,
        epsilon: float,
        wanted: float,
        n_iter: int,
        seed: int,
        progress: bool,
    ) -> _Settings:
        return cls(
            None if radii is None else tuple(sorted(set(checks.numbers_of(radii, "radii")))),
            checks.integer(draws, "draws"),
            checks.between(epsilon, "epsilon"),
            checks.between(wanted, "wanted"),
            checks.integer(n_iter, "n_iter"),
            checks.seed(seed),
            checks.flag(progress, "progress"),
        )


def _basin(T: Iteration, first: torch.Tensor, rest: FixedPoint, asked: _Settings) -> Basin:
    if rest.jacobian is None:
        raise ValueError(
            f"rest must hold its derivative, got one of {rest.point[0].numel()} dimensions: too"
            " many for Lyapunov's equation"
        )
    known = rest.rests & (rest.rate < 1)
    point = rest.point
    metric = torch.full_like(rest.jacobian, math.nan)
    for i in known.nonzero().flatten().tolist():
        metric[i] = lyapunov(rest.jacobian[i])
    points = [first]
    for _ in range(asked.n_iter):
        points.append(T(points[-1]))
        off = norm(points[-1] - point) > ROUNDING * norm(point)
        if not bool((off.cpu() & known).any()):
            break
    path = (torch.stack(points) - point).flatten(2).double().cpu()
    distance = _length(path, metric)
    radii = asked.radii or _radii(distance[:, known])
    bounds = max(len(radii) * int(known.sum()), 1)
    generator = checks.seeded(asked.seed)
    share, factor = [], []
    with bar(len(radii), "basin", show=asked.progress) as shown:
        for r in radii:
            ratio = _ratios(T, point, metric, known, r, asked.draws, generator)
            share.append((ratio < 1).double().mean(0))
            factor.append(ratio.nan_to_num(nan=math.inf).median(0).values)
            shown.advance()
    nothing = ~known
    counted = torch.stack(share).masked_fill(nothing, math.nan)
    return Basin(
        radius=torch.tensor(radii, dtype=torch.float64),
        share=counted,
        at_least=lower_share(counted, asked.draws, asked.epsilon / bounds),
        factor=torch.stack(factor).masked_fill(nothing, math.nan),
        draws=asked.draws,
        epsilon=asked.epsilon,
        wanted=asked.wanted,
        metric=metric,
        distance=distance,
        path=path,
        size=point.flatten(1).norm(dim=1).double().cpu(),
        jacobian=rest.jacobian,
    )


def lyapunov(jacobian: Float[torch.Tensor, "d d"]) -> Float[torch.Tensor, "d d"]:
    """W with DTᵀ W DT − W = −I, for a spectral radius below 1."""
    solved = scipy.linalg.solve_discrete_lyapunov(
        jacobian.T.numpy(), torch.eye(len(jacobian), dtype=jacobian.dtype).numpy()
    )
    W = torch.from_numpy(solved)
    return (W + W.T) / 2


def lower_share(
    share: Float[torch.Tensor, "*shape"], draws: int, epsilon: float
) -> Float[torch.Tensor, "*shape"]:
    """Clopper and Pearson's lower bound, at confidence 1 − ε, for a share seen among N draws."""
    count = (share * draws).round()
    bound = torch.from_numpy(
        scipy.stats.beta.ppf(epsilon, count.numpy(), draws - count.numpy() + 1)
    )
    return torch.where(count == 0, 0.0, bound).masked_fill(share.isnan(), math.nan)


def _ratios(
    T: Iteration,
    point: torch.Tensor,
    metric: torch.Tensor,
    known: Bool[torch.Tensor, " batch"],
    r: float,
    draws: int,
    generator: torch.Generator,
) -> Float[torch.Tensor, "draws batch"]:
    """‖T(z̄ + u) − z̄‖_W / r for draws u, uniform on the sphere ‖u‖_W = r; 0 for other rows."""
    dims = point[0].numel()
    g = torch.randn(draws, len(point), dims, generator=generator, dtype=torch.float64)
    u = torch.zeros_like(g)
    for i in known.nonzero().flatten().tolist():
        # W = L Lᵀ, ‖u‖_W = ‖Lᵀ u‖.
        L = torch.linalg.cholesky(metric[i])
        unit = g[:, i] / g[:, i].norm(dim=1, keepdim=True)
        u[:, i] = r * torch.linalg.solve_triangular(L.T, unit.T, upper=True).T
    moved = T.many(point + u.reshape(draws, *point.shape).to(point))
    return _length((moved - point).flatten(2).double().cpu(), metric) / r


def _length(
    u: Float[torch.Tensor, "count batch d"], metric: Float[torch.Tensor, "batch d d"]
) -> Float[torch.Tensor, "count batch"]:
    return torch.einsum("nbi,bij,nbj->nb", u, metric, u).clamp_min(0).sqrt()


def _radii(distance: Float[torch.Tensor, "n_iter_plus_1 images"]) -> tuple[float, ...]:
    """Seven, √10 apart, the largest just above the distance of the run's first point."""
    largest = float(distance[0].max()) if distance.numel() else 1.0
    top = math.ceil(2 * math.log10(largest)) if 0 < largest < math.inf else 0
    return tuple(10 ** ((top - i) / 2) for i in range(6, -1, -1))


def _after(
    offends: Bool[torch.Tensor, "n batch"], distance: Float[torch.Tensor, "n_iter_plus_1 batch"]
) -> Int[torch.Tensor, " batch"]:
    """The first n after the last that offends; −1 where none of the run is left, or no W is."""
    index = torch.arange(1, len(offends) + 1)[:, None]
    first = (offends * index).amax(0)
    return torch.where((first < len(offends)) & ~distance[0].isnan(), first, -1)


LINEAR = 0.1
"""An error in so small a share of the last is foretold by DT."""
ROUNDING = 1e-8
"""An error in so small a share of ‖z̄‖ says nothing any more."""
MOST = 100_000
"""Predicted iterations beyond this are not counted."""


def _linear(jacobian: torch.Tensor, error: torch.Tensor, goal: float) -> float:
    """How often DT must be applied until ‖DTⁿ e‖ ≤ goal."""
    for n in range(1, MOST):
        error = jacobian @ error
        if float(error.norm()) <= goal:
            return n
    return math.nan
