"""A run that has converged, proved: one fixed point in a ball, and every start in it runs there.

For T(z) = G†(G(z) − η Aᵀ(A G(z) − y)), a point ẑ and the norm ‖u‖_W² = uᵀ W u it is proved that on
the ball B = {z : ‖z − ẑ‖_W ≤ r}

    ‖DT(z)‖_W ≤ q < 1,        ‖T(ẑ) − ẑ‖_W ≤ (1 − q) r.

Then T maps B into itself and contracts (Banach 1922): it has exactly one fixed point z̄ in B,
‖z̄ − ẑ‖_W ≤ ‖T(ẑ) − ẑ‖_W/(1 − q), and ‖T^n(z) − z̄‖_W ≤ qⁿ ‖z − z̄‖_W for every z in B. The bounds of
T and DT over B come from `analysis.proofs.enclosure`. W = (V Vᵀ)⁻¹ for a matrix V of floats that is
near the one which solves Stein's equation DTᵀ W DT − s² W = −s² I at ẑ, s between the spectral
radius and 1: in it DT(ẑ) has norm below s, and W ⪰ I, nearly. Any V would do; the proof takes none
of this for granted.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float

from analysis.basins import lyapunov
from analysis.local import FixedPoint
from analysis.local.doors import check_fit, check_operator, measured, ranged
from analysis.proofs.enclosure import Enclosure, Ranges, Square, gamma, raised
from analysis.proofs.functions import Row
from analysis.proofs.graph import Graph, Node
from analysis.proofs.networks import npgd_graph
from analysis.words import at_least, at_most, median, out_of
from npgd import checks
from npgd.files import plain
from npgd.images import Latents, Measurements, PerImage
from npgd.operators import LinearOperator
from npgd.precision import converted, plainly
from npgd.priors import GenerativePrior
from npgd.progress import track
from npgd.showing import Shown

ASSUMPTIONS = (
    "T is the map in real numbers with these weights, A and y (floats are exact numbers)",
    "float64 operations round to nearest, and a matrix product sums its products in some order",
    "exp, log1p, log and pow of the library err by at most 4 units in the last place",
)
"""What is not proved."""

OUTCOMES = (
    "proved",
    "without a fixed point that attracts",
    "without a bound below 1 on any ball",
)
"""Of an image."""

FIRST = 1e-3
"""The radius that is tried first."""
STEPS = 6
"""Halvings of the interval, on a logarithmic scale, between a radius proved and one that is not."""
KEPT = 0.1
"""1 − q is at least so large a share of what it is at the centre."""
LOWEST = 1e-9
"""Smaller balls are not tried."""
BETWEEN = 0.5
"""s is so far from the spectral radius to 1."""


@dataclass(frozen=True, eq=False)
class ConvergenceProof(Shown):
    """Balls around fixed points from which every start converges, image by image."""

    centre: Latents
    """ẑ."""
    shape: Float[torch.Tensor, "batch k k"]
    """V: the ball is {ẑ + V u : ‖u‖ ≤ r}."""
    radius: PerImage
    """r, the largest that was proved; 0 where none was."""
    factor: PerImage
    """q on that ball; NaN where none was proved."""
    move: PerImage
    """A bound of ‖T(ẑ) − ẑ‖_W."""
    distance: PerImage
    """A bound of ‖z̄ − ẑ‖_W."""
    inside: PerImage
    """The radius of a Euclidean ball around ẑ inside the ball."""
    image_error: PerImage
    """A bound of the distance ‖x̂ − G(z̄)‖ of the recovered image from the one in the limit."""
    rests: Bool[torch.Tensor, " batch"]
    """Of the fixed points given: whether the run rests there."""
    outcomes: tuple[str, ...]
    """Of each image, in words; see `OUTCOMES`."""
    step_size: float
    """η."""
    assumptions: tuple[str, ...] = ASSUMPTIONS
    """What is not proved."""

    @property
    def proved(self) -> Bool[torch.Tensor, " batch"]:
        """Whether a ball was proved."""
        found: torch.Tensor = self.radius > 0
        return found

    @property
    def metric(self) -> Float[torch.Tensor, "batch k k"]:
        """W = (V Vᵀ)⁻¹, rounded."""
        metric: torch.Tensor = torch.linalg.inv(self.shape @ self.shape.mT)
        return metric

    @property
    def status(self) -> str:
        """How many are proved, on which balls, and why the others are not."""
        known, batch = self.proved, len(self.outcomes)
        text = f"convergence is proved for {out_of(int(known.sum()), batch)}"
        if bool(known.any()):
            text += (
                f", from every start within r = {at_least(median(self.radius[known]))} (median), by"
                f" a factor of at most {at_most(median(self.factor[known]))} per step"
            )
        others = Counter(outcome for outcome in self.outcomes if outcome != OUTCOMES[0])
        why = ", ".join(f"{count} {outcome}" for outcome, count in others.items())
        return text + (f"; not for {why}" if why else "")

    def __str__(self) -> str:
        known = self.proved
        lines = [f"proof of convergence: {self.status}"]
        if bool(known.any()):
            away, off = float(self.distance[known].max()), float(self.image_error[known].max())
            lines += [
                f"  radius r {ranged(self.radius[known])}, in the norm of W; factor q"
                f" {ranged(self.factor[known])}",
                f"  Euclidean radius {ranged(self.inside[known])}",
                "  in each ball exactly one fixed point, at most"
                f" {at_most(away, 2)} from its centre",
                f"  the recovered image is at most {at_most(off, 2)} from the limit's",
            ]
        return "\n".join([*lines, "  assumed:", *(f"    {text}" for text in self.assumptions)])

    def to_dict(self) -> dict[str, Any]:
        named = ("radius", "factor", "move", "distance", "inside", "image_error", "rests", "proved")
        return {
            "status": self.status,
            "outcomes": list(self.outcomes),
            "step_size": self.step_size,
            "assumptions": list(self.assumptions),
            **{name: plain(getattr(self, name)) for name in named},
        }


@dataclass(frozen=True, eq=False)
class Ball:
    """What is proved of one image."""

    centre: Row
    shape: Square
    radius: float = 0.0
    factor: float = math.nan
    move: float = math.nan
    distance: float = math.nan
    inside: float = 0.0
    image_error: float = math.nan


@plainly
@torch.no_grad()
def prove_convergence(
    A: LinearOperator,
    prior: GenerativePrior,
    y: Measurements,
    rest: FixedPoint,
    *,
    progress: bool = False,
) -> ConvergenceProof:
    """Proofs that NPGD converges from every start in a ball, for each y.

    On the ball {‖z − ẑ‖_W ≤ r}: ‖DT‖_W ≤ q < 1 and ‖T(ẑ) − ẑ‖_W ≤ (1 − q) r, with all roundings
    inside the bounds (`analysis.proofs.contraction`). r is the largest found, within 5 %.

    Args:
        A: the operator; proved is the statement about its matrix in float64.
        prior: G and G†, of layers that have bounds: linear and convolutional layers, batch norm,
            group norm, smooth rectifiers, softplus, SiLU, sigmoid, tanh; `npgd.networks`' encoder
            without principal components and its corrector.
        y: measurements, (batch, m), those of `rest`.
        rest: where the runs rest, of `analysis.fixed_point`.
        progress: show a progress bar.

    Raises:
        TypeError: an argument of another kind.
        ValueError: a layer that has no bounds, by name, or shapes that do not fit.
    """
    check_operator(A)
    if not isinstance(prior, GenerativePrior):
        raise TypeError(f"prior must be a GenerativePrior, got {checks.shown(prior)}")
    progress = checks.flag(progress, "progress")
    check_fit(prior.image_shape, A)
    y = measured(y, A)
    jacobian, step_size = _checked(rest, prior.latent_dim, len(y))
    A, prior = converted(A, device="cpu"), converted(prior, device="cpu")
    balls = []
    for i in track(range(len(y)), len(y), "proofs", show=progress):
        centre = rest.point[i : i + 1].detach().double().cpu()
        if not bool(rest.found[i]) or not float(rest.rate[i]) < 1:
            nothing = torch.full((prior.latent_dim, prior.latent_dim), math.nan)
            balls.append(Ball(centre, nothing.double()))
            continue
        graph, image = npgd_graph(A, prior, y[i], step_size)
        assert rest.image is not None
        recovered = rest.image[i].detach().double().cpu().reshape(1, -1)
        centre = polished(graph, centre, jacobian[i])
        balls.append(proved_ball(graph, centre, metric_shape(jacobian[i]), image, recovered))
    return _proof(balls, rest, step_size)


def _checked(rest: FixedPoint, k: int, batch: int) -> tuple[Square, float]:
    if not isinstance(rest, FixedPoint):
        raise TypeError(f"rest must be a FixedPoint, got {checks.shown(rest)}")
    if rest.jacobian is None or rest.step_size is None or rest.image is None:
        raise ValueError("rest must come from analysis.fixed_point, with DT, got one without")
    if tuple(rest.point.shape) != (batch, k):
        raise ValueError(f"rest must hold ({batch}, {k}) latents, got {tuple(rest.point.shape)}")
    return rest.jacobian.detach().double().cpu(), rest.step_size


def _proof(balls: list[Ball], rest: FixedPoint, step_size: float) -> ConvergenceProof:
    def numbers(name: str) -> PerImage:
        return torch.tensor([getattr(ball, name) for ball in balls], dtype=torch.float64)

    attracts = (rest.found & (rest.rate < 1)).tolist()
    return ConvergenceProof(
        centre=torch.cat([ball.centre for ball in balls]),
        shape=torch.stack([ball.shape for ball in balls]),
        radius=numbers("radius"),
        factor=numbers("factor"),
        move=numbers("move"),
        distance=numbers("distance"),
        inside=numbers("inside"),
        image_error=numbers("image_error"),
        rests=rest.rests,
        outcomes=tuple(
            OUTCOMES[0] if ball.radius > 0 else OUTCOMES[2 if there else 1]
            for ball, there in zip(balls, attracts, strict=True)
        ),
        step_size=step_size,
    )


def polished(graph: Graph, z: Row, jacobian: Square) -> Row:
    """Newton's steps z ← z + (I − DT)⁻¹ (T(z) − z), as long as they bring T(z) nearer to z."""
    system = torch.eye(len(jacobian), dtype=torch.float64) - jacobian
    missed = graph.value(z)[-1] - z
    for _ in range(8):
        nearer = z + torch.linalg.solve(system, missed.T).T
        left = graph.value(nearer)[-1] - nearer
        if not float(left.norm()) < float(missed.norm()):
            break
        z, missed = nearer, left
    return z


def metric_shape(jacobian: Square, between: float = BETWEEN) -> Square:
    """V, for the norm of Stein's equation: ‖DT‖_W < s."""
    rate = float(torch.linalg.eigvals(jacobian).abs().max())
    W = lyapunov(jacobian / (rate + between * (1 - rate)))
    shape: torch.Tensor = torch.linalg.inv(torch.linalg.cholesky(W).T)
    return shape


def proved_ball(
    graph: Graph, centre: Row, shape: Square, image: Node | None = None,
    recovered: Row | None = None,
) -> Ball:  # fmt: skip
    """The largest ball around `centre` on which the graph's map is proved to contract."""
    proof = Contraction(graph, centre, shape)
    radius, factor = proof.largest()
    if radius == 0:
        return Ball(centre, shape, move=proof.move)
    distance = proof.distance(radius, factor)
    error = math.nan
    if image is not None and recovered is not None:
        error = proof.image_error(image, recovered, distance)
    # ‖V⁻¹ u‖ ≤ ‖Ṽ‖ ‖u‖/(1 − ‖F‖).
    inside = radius / (spectral_norm(proof.inverse) / proof.exact) * (1 - 1e-9)
    return Ball(centre, shape, radius, factor, proof.move, distance, inside, error)


class Contraction:
    """‖DT‖_W over balls, and ‖T(ẑ) − ẑ‖_W, in the norm ‖V⁻¹ u‖.

    V⁻¹ is not known exactly, but a matrix Ṽ near it is: with Ṽ V = I + F,
    ‖V⁻¹ x‖ ≤ ‖Ṽ x‖/(1 − ‖F‖).
    """

    def __init__(self, graph: Graph, centre: Row, shape: Square) -> None:
        self.graph, self.shape = graph, shape
        self.inverse = torch.linalg.inv(shape)
        k = len(shape)
        off = (self.inverse @ shape - torch.eye(k, dtype=torch.float64)).norm()
        off = off + gamma(k + 1) * (self.inverse.norm() * shape.norm() + k)
        self.exact = 1 - float(raised(off))
        if not self.exact > 0.5:
            raise ValueError("shape must be a matrix with an inverse, got one near singular")
        self.enclosure = Enclosure(graph, centre, shape, self.inverse)
        self._centre()
        self.move = self._move(centre)

    def _centre(self) -> None:
        """‖Ṽ Ĵ‖ and a bound of ‖Ṽ Q̂ u‖ for unit u."""
        at, (p, q) = self.enclosure.at[-1], self.enclosure.pairs
        k, size = len(self.shape), self.inverse.norm()
        rounding = gamma(k) * size * at.along.norm()
        self.slope = spectral_norm(self.inverse @ at.along.T) + float(raised(rounding))
        assert at.bent is not None
        bent = torch.zeros(k, k, k, dtype=torch.float64)
        bent[:, p, q] = bent[:, q, p] = self.inverse @ at.bent.T
        rounding = gamma(k) * size * at.bend_length.norm()
        unfolded = (bent.reshape(k, k * k), bent.transpose(0, 1).reshape(k, k * k))
        self.bend = min(spectral_norm(part) for part in unfolded) + float(raised(rounding))

    def _move(self, centre: Row) -> float:
        """A bound of ‖T(ẑ) − ẑ‖_W."""
        there = self.enclosure.at[-1].value
        missed = self.inverse @ (there - centre).T
        rounding = gamma(len(centre[0]) + 2) * (self.inverse.abs() @ (there.abs() + centre.abs()).T)
        # Of a ball of radius 0 ε is what rounding left of T(ẑ).
        left = self.enclosure.sharp(self.enclosure.last, self.enclosure.ranges(0.0))[0]
        total = raised(missed.abs() + rounding + left[:, None]).norm()
        return float(raised(total)) / self.exact * (1 + 1e-12)

    def factor(self, r: float) -> float:
        """A bound of ‖DT‖_W over the ball of radius r; infinite where there is none."""
        over = self.enclosure.ranges(r)
        turned = float(raised(self.enclosure.sharp(self.enclosure.last, over)[1].norm()))
        total = (self.slope + self.bend * r + turned) / self.exact * (1 + 1e-12)
        return total if math.isfinite(total) else math.inf

    def largest(self) -> tuple[float, float]:
        """The largest radius found, with its q: q well below 1 and ‖T(ẑ) − ẑ‖_W ≤ (1 − q) r."""
        good, bad, found = 0.0, math.inf, math.nan
        if not self.slope < 1:
            return good, found
        most = 1 - KEPT * (1 - self.slope)
        r = max(FIRST, 2 * self.move / (1 - self.slope))  # the ball must hold z̄
        for _ in range(40):
            q = self.factor(r)
            if q <= most and self.move <= (1 - q) * r * (1 - 1e-12):
                good, found = r, q
            else:
                bad = r
            if good == 0 and bad < LOWEST:
                break
            if good and bad < math.inf and bad < good * (1 + 2.0**-STEPS * 3):
                break
            r = math.sqrt(good * bad) if good and bad < math.inf else 3 * r if good else r / 3
        return good, found

    def distance(self, r: float, q: float) -> float:
        """A bound of ‖z̄ − ẑ‖_W, from the ball of radius r, or a smaller one that holds z̄ too."""
        small = min(r, 4 * self.move / (1 - min(self.slope, q)))
        near = self.factor(small)
        if near < q and self.move <= (1 - near) * small * (1 - 1e-12):
            q = near
        return self.move / (1 - q) * (1 + 1e-12)

    def image_error(self, image: Node, recovered: Row, r: float) -> float:
        """A bound of the distance of `recovered` from what node `image` holds in the ball."""
        over: Ranges = self.enclosure.ranges(r)
        at, (beyond, _) = self.enclosure.at[image], over.beyond[image]
        reach = at.length * r + 0.5 * at.bend_length * r * r + beyond
        reach = reach + (recovered - at.value).abs() * (1 + 1e-12)
        return float(raised(raised(reach).norm()))


def spectral_norm(matrix: Float[torch.Tensor, "m n"]) -> float:
    """An upper bound of ‖M‖₂, M as it is in floats.

    With M Mᵀ = Q Λ Qᵀ + R for any Q and Λ, ‖M‖² ≤ max Λ ‖Q Qᵀ‖ + ‖R‖_F.
    """
    if len(matrix) > matrix.shape[1]:
        matrix = matrix.T
    m, n = matrix.shape
    gram = matrix @ matrix.T
    if not bool(gram.isfinite().all()):
        return math.inf
    values, vectors = torch.linalg.eigh(gram)
    size = values.abs().max()
    rest = (gram - (vectors * values) @ vectors.T).norm()
    off = (vectors @ vectors.T - torch.eye(m, dtype=torch.float64)).norm()
    off = off + gamma(m + 2) * (m + vectors.norm() ** 2)
    rest = rest + gamma(m + 3) * (gram.norm() + size * vectors.norm() ** 2)
    rest = rest + gamma(n) * matrix.norm() ** 2
    return math.sqrt(float(raised(size * (1 + off) + rest))) * (1 + 1e-12)
