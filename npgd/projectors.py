"""Sets with a projection that is known exactly, or searched for.

Beside the network projector of a GenerativePrior these serve as references: an affine set and a
finite set, whose projections are exact, and the best latent that a search finds.
Every one is called as P(w) or P.project(w), on images (batch, channels, height, width).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import nn

from npgd import checks, latent
from npgd.gauss_newton import gauss_newton_step
from npgd.images import Images, Latents, PerImage, squared_norm
from npgd.precision import like, plainly
from npgd.progress import Bar, bar
from npgd.sets import ENCODED, GENERATED, SAMPLED, Generated, encodes, needs, samples
from npgd.showing import Shown


class AffineSet(Shown, nn.Module):
    """The affine set {B z + c}: a prior for which every constant of the theory is computable.

    Its projection c + Q Qᵀ(w − c), Q an orthonormal basis of range(B), is exact (δ = 0).

    Args:
        basis: B, (n, k) of full column rank, n = prod(image_shape).
        offset: c, (n,).
        image_shape: (channels, height, width).
    """

    basis: Float[torch.Tensor, "n k"]
    orthonormal: Float[torch.Tensor, "n k"]
    triangle: Float[torch.Tensor, "k k"]
    offset: Float[torch.Tensor, " n"]

    def __init__(
        self,
        basis: Float[torch.Tensor, "n k"],
        offset: Float[torch.Tensor, " n"],
        image_shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.image_shape = checks.image_shape(image_shape)
        n = math.prod(self.image_shape)
        checks.finite(checks.floating(basis, "basis"), "basis")
        checks.finite(checks.floating(offset, "offset"), "offset")
        checks.floating_type(basis.dtype, "basis")
        if basis.ndim != 2 or basis.shape[0] != n or not 1 <= basis.shape[1] <= n:
            raise ValueError(
                f"basis must have shape ({n}, k), 1 ≤ k ≤ {n}, got {tuple(basis.shape)}"
            )
        if tuple(offset.shape) != (n,):
            raise ValueError(f"offset must have shape ({n},), got {tuple(offset.shape)}")
        orthonormal, triangle = torch.linalg.qr(basis.detach())
        diagonal = triangle.diagonal().abs()
        if float(diagonal.min()) <= n * torch.finfo(basis.dtype).eps * float(diagonal.max()):
            raise ValueError(
                "basis must have full column rank, got columns that are linearly dependent"
            )
        self.latent_dim = basis.shape[1]
        self.register_buffer("basis", basis.detach().clone())
        self.register_buffer("orthonormal", orthonormal)
        self.register_buffer("triangle", triangle)
        self.register_buffer("offset", offset.detach().to(basis).clone())

    def extra_repr(self) -> str:
        """Its dimension, and the shape of its images."""
        return f"latent_dim={self.latent_dim}, image_shape={self.image_shape}"

    def generate(self, z: Latents) -> Images:
        """B z + c."""
        checks.same_kind(checks.latents(z, self.latent_dim), self, "z", "the set")
        return (self.offset + z @ self.basis.T).reshape(-1, *self.image_shape)

    def encode(self, w: Images) -> Latents:
        """The latent of the nearest point, argmin_z ‖w − (B z + c)‖²."""
        coordinates = (self._flat(w) - self.offset) @ self.orthonormal
        z: Latents = torch.linalg.solve_triangular(self.triangle, coordinates.T, upper=True).T
        return z

    def project(self, w: Images) -> Images:
        """The nearest point c + Q Qᵀ(w − c)."""
        coordinates = (self._flat(w) - self.offset) @ self.orthonormal
        return (self.offset + coordinates @ self.orthonormal.T).reshape(w.shape)

    def forward(self, w: Images) -> Images:
        return self.project(w)

    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Images:
        """n points B z + c with z ~ N(0, I), from a `generator` or a `seed` (one of the two)."""
        generator = checks.drawing(generator, seed)
        size = (checks.integer(n, "n"), self.latent_dim)
        z = torch.randn(size, generator=generator, dtype=torch.float64, device=generator.device)
        return self.generate(z.to(self.basis))

    def _flat(self, w: Images) -> torch.Tensor:
        checks.same_kind(checks.images(w, self.image_shape, "w"), self, "w", "the set")
        return w.flatten(1)


class FiniteSet(Shown, nn.Module):
    """Finitely many points; the projection compares all of them and is exact.

    Points whose squared distance is within `tie_tol` of the least one count as tied. With
    tie_tol = δ the projection is thus a δ-approximate one whose choice is in the caller's hands.

    Args:
        points: (N, channels, height, width).
        tie_tol: a squared distance, 0 by default.
    """

    points: Float[torch.Tensor, "N channels height width"]

    def __init__(
        self, points: Float[torch.Tensor, "N channels height width"], tie_tol: float = 0.0
    ) -> None:
        super().__init__()
        checks.floating_type(checks.any_images(points, "points").dtype, "points")
        checks.finite(points, "points")
        self.image_shape = checks.image_shape(points.shape[1:])
        self.tie_tol = checks.number(tie_tol, "tie_tol", zero=True)
        self.register_buffer("points", points.detach().clone())

    def extra_repr(self) -> str:
        """How many points, of which shape."""
        return f"{len(self.points)} points, image_shape={self.image_shape}"

    def project(self, w: Images, prefer: Int[torch.Tensor, " N"] | None = None) -> Images:
        """The nearest point; of tied points, the one that stands last in the order `prefer`.

        `prefer` lists the indices 0 … N−1 from least to most preferred; without it the order is
        that of the points, so that the largest index wins.
        """
        checks.same_kind(checks.images(w, self.image_shape, "w"), self, "w", "the set")
        flat, order = w.flatten(1), self._order(prefer)
        points = self.points[order].flatten(1)
        # Distances by differences: the expanded square would lose ties to cancellation.
        mode = "donot_use_mm_for_euclid_dist"
        squared = torch.cdist(flat, points, compute_mode=mode).square()
        tied = squared <= squared.min(dim=1, keepdim=True).values + self.tie_tol
        last = torch.arange(len(order), device=w.device).masked_fill(~tied, -1).max(dim=1).values
        return self.points[order[last]]

    def forward(self, w: Images) -> Images:
        return self.project(w)

    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Images:
        """n points drawn uniformly, with replacement, from a `generator` or a `seed`."""
        generator = checks.drawing(generator, seed)
        size = (checks.integer(n, "n"),)
        drawn = torch.randint(len(self.points), size, generator=generator, device=generator.device)
        return self.points[drawn.to(self.points.device)]

    def _order(self, prefer: torch.Tensor | None) -> torch.Tensor:
        natural = torch.arange(len(self.points), device=self.points.device)
        if prefer is None:
            return natural
        try:
            order = torch.as_tensor(prefer, device=self.points.device)
        except (TypeError, ValueError, RuntimeError):
            order = torch.empty(0)
        if order.dtype not in INTEGERS or order.layout != torch.strided or order.is_meta:
            raise TypeError(f"prefer must be a tensor of indices, got {checks.shown(prefer)}")
        if order.shape != natural.shape or not torch.equal(order.sort().values, natural):
            different = len(set(order.flatten().tolist()))
            raise ValueError(
                f"prefer must list each index 0 … {len(natural) - 1} once, got {different}"
                f" different ones in shape {tuple(order.shape)}"
            )
        return order


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

Prior = TypeVar("Prior", bound=Generated)


class _InRange(Shown, nn.Module, abc.ABC, Generic[Prior]):
    """What a better projection onto the range of a prior's generator takes from the prior."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.image_shape = latent.check_prior(prior)
        self.prior = prior
        self.latent_dim: int = prior.latent_dim

    def generate(self, z: Latents) -> Images:
        """G(z), the prior's own."""
        return self.prior.generate(z)

    @abc.abstractmethod
    def project(self, w: Images) -> Images:
        """A point of range(G) near w."""

    def forward(self, w: Images) -> Images:
        return self.project(w)

    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Images:
        """n points of range(G), the prior's own draws; TypeError where it draws none."""
        prior: object = self.prior
        needs(prior, *SAMPLED, what="samples")
        assert samples(prior)
        return prior.sample(n, generator=generator, seed=seed)


class LatentRefinement(_InRange[Generated]):
    """A prior whose projection is refined: damped Gauss–Newton steps on ‖w − G(z)‖².

    Steps start from G†(w), where the prior has an encoder, and where it has none, or a poor one,
    also from the nearest of `starts` draws z ~ N(0, I), the same for every image. `npgd.NPGD` gives
    a start of its own, the latent of the iterate that w is a step from. Of all these the
    `tries` nearest to w are refined, and the best is kept. No step raises the distance, so that the
    result is never farther from w than any start. A step costs about 2k passes of G for each try.
    See `npgd.gauss_newton`.

    Args:
        prior: G, an `npgd.sets.Generated`, with or without G† (`encode`).
        steps: Gauss–Newton steps, at least 1.
        penalty: λ ≥ 0, of λ‖z‖².
        starts: draws to start from, at the price of a pass of G each and of their distances; at
            least 1 without an encoder.
        tries: starts that are refined.
        seed: of the draws.
    """

    def __init__(
        self,
        prior: Generated,
        steps: int = 2,
        penalty: float = 0.0,
        starts: int = 0,
        tries: int = 1,
        seed: int = 0,
    ) -> None:
        self.starts = checks.integer(starts, "starts", minimum=0)
        needs(prior, *(GENERATED if self.starts else ENCODED), what="LatentRefinement")
        super().__init__(prior)
        self.steps = checks.integer(steps, "steps")
        self.penalty = checks.number(penalty, "penalty", zero=True)
        self.tries = checks.integer(tries, "tries")
        self.seed = checks.seed(seed)

    def encode(self, w: Images) -> Latents:
        """The latent after the last step."""
        return self.refined(w)[0]

    def project(self, w: Images) -> Images:
        """Its image."""
        return self.refined(w)[1]

    def refined(self, w: Images, near: Latents | None = None) -> tuple[Latents, Images]:
        """The latent after the last step, and its image; `near`, one for each w, is a start.

        In the precision of the prior, also under `torch.autocast`, where w may be of another.
        """
        if isinstance(w, torch.Tensor) and torch.is_autocast_enabled(w.device.type):
            w, near = like(w, self.prior), None if near is None else like(near, self.prior)
        return self._refined(w, near)

    @plainly
    @torch.no_grad()
    def _refined(self, w: Images, near: Latents | None) -> tuple[Latents, Images]:
        checks.finite(checks.images(w, self.image_shape, "w"), "w")
        checks.same_kind(w, self.prior, "w", "prior")
        if near is not None:
            checks.finite(checks.latents(near, self.latent_dim, "near"), "near")
            checks.same_tensor(near, w, "near", "w")
            if len(near) != len(w):
                raise ValueError(f"near must hold {len(w)} latents as w images, got {len(near)}")
        if not len(w):
            return w.new_empty(0, self.latent_dim), w
        z = self._nearest(w, near)
        goal = w.flatten(1).repeat_interleave(z.shape[1], 0)
        tried = z.flatten(0, 1)
        for _ in range(self.steps):
            tried, x = gauss_newton_step(self.prior, tried, goal, penalty=self.penalty)
        cost = squared_norm(x.flatten(1) - goal) + self.penalty * squared_norm(tried)
        best = cost.reshape(z.shape[:2]).argmin(1)
        best += torch.arange(len(w), device=w.device) * z.shape[1]
        return tried[best], x[best]

    def _nearest(self, w: Images, near: Latents | None) -> Float[torch.Tensor, "batch tries k"]:
        """The starts that are refined."""
        each = [] if near is None else [near]
        if encodes(self.prior):
            each.append(self.prior.encode(w))
        if len(each) == 1 and not self.starts:
            return each[0][:, None]
        found, flat = [], w.flatten(1)
        distances = []
        for z in each:
            found.append(z[:, None])
            distances.append(squared_norm(self.prior.generate(z).flatten(1) - flat)[:, None])
        if self.starts:
            z = latent.starts(self.starts, self.latent_dim, self.seed, w)
            x = torch.cat([self.prior.generate(part) for part in torch.split(z, ROWS)]).flatten(1)
            found.append(z.expand(len(w), -1, -1))
            distances.append(torch.cdist(flat, x).square())
        distance, candidates = torch.cat(distances, 1), torch.cat(found, 1)
        count = min(self.tries, candidates.shape[1])
        order = distance.nan_to_num(nan=torch.inf).topk(count, largest=False).indices
        return candidates.gather(1, order[..., None].expand(-1, -1, self.latent_dim))


ROWS = 256  # draws whose images are made together


class LatentSearch(_InRange[Generated]):
    """Projection onto range(G) by search: min_z ‖w − G(z)‖², Adam from several starts at once.

    The first start is the prior's own encoder G†(w), where it has one; the others are draws of
    z ~ N(0, I), the same for every image, so that an image's result does not depend on its
    batch. The best latent met on the way is kept, per image, so that the result is never worse
    than the best start. A search, not a certificate: it bounds the distance from above.
    Weights of the generator receive no gradients.

    Args:
        prior: G, an `npgd.sets.Generated`; with `encode(w)` the first start is G†(w).
        starts: number of starts per image, the encoder's among them.
        steps: Adam steps; 0 keeps the best start.
        learning_rate: of the first step, in units of z; falls to zero along a half cosine.
        seed: of the random starts.
        rows: most generator rows (images × starts) in one pass.
        progress: show a progress bar.
    """

    def __init__(
        self,
        prior: Generated,
        starts: int = 8,
        steps: int = 500,
        learning_rate: float = 0.3,
        seed: int = 0,
        rows: int = 1024,
        progress: bool = False,
    ) -> None:
        super().__init__(prior)
        self.starts = checks.integer(starts, "starts")
        self.steps = checks.integer(steps, "steps", minimum=0)
        self.learning_rate = checks.number(learning_rate, "learning_rate")
        self.seed = checks.seed(seed)
        self.rows = checks.integer(rows, "rows")
        self.progress = checks.flag(progress, "progress")

    def encode(self, w: Images) -> Latents:
        """The best latent found."""
        return self.search(w)[0]

    def project(self, w: Images) -> Images:
        """G of the best latent found."""
        with torch.no_grad():
            return self.prior.generate(self.search(w)[0])

    @torch.no_grad()
    def search(
        self, w: Images, given: Float[torch.Tensor, "extra batch k"] | None = None
    ) -> tuple[Latents, PerImage]:
        """The best latents (batch, k) and their squared distances ‖w − G(z)‖² (batch,).

        `given` adds starts of the caller's, (extra, batch, k), to those of the search.
        """
        checks.finite(checks.images(w, self.image_shape, "w"), "w")
        checks.same_kind(w, self.prior, "w", "prior")
        if len(w) == 0:
            return w.new_empty(0, self.latent_dim), w.new_empty(0)
        starts = self._starts(w)
        if given is not None:
            checks.finite(checks.floating(given, "given"), "given")
            if given.ndim != 3 or tuple(given.shape[1:]) != (w.shape[0], self.latent_dim):
                raise ValueError(
                    f"given must have shape (extra, {w.shape[0]}, {self.latent_dim}),"
                    f" got {tuple(given.shape)}"
                )
            starts = torch.cat([starts, given.to(starts)])
        chunk = max(1, self.rows // len(starts))
        parts = []
        total = math.ceil(len(w) / chunk) * self.steps
        with bar(total, "latent search", show=self.progress and total > 0) as shown:
            for images, latents in zip(
                torch.split(w, chunk), torch.split(starts, chunk, dim=1), strict=True
            ):
                parts.append(self._adam(images.flatten(1), latents, shown))
        return torch.cat([z for z, _ in parts]), torch.cat([d for _, d in parts])

    def _starts(self, w: Images) -> Float[torch.Tensor, "starts batch k"]:
        generator = checks.seeded(self.seed)
        size = (self.starts, 1, self.latent_dim)
        draws = torch.randn(size, generator=generator, dtype=torch.float64).to(w)
        starts = draws.repeat(1, len(w), 1)
        if encodes(self.prior):
            starts[0] = torch.cat([self.prior.encode(part) for part in torch.split(w, self.rows)])
        return starts

    def _adam(
        self,
        w: Float[torch.Tensor, "batch n"],
        starts: Float[torch.Tensor, "starts batch k"],
        shown: Bar,
    ) -> tuple[Latents, PerImage]:
        adam = latent.Adam.at(starts)
        best, least = starts, starts.new_full(starts.shape[:2], math.inf)
        goal = w.repeat(len(starts), 1)
        for step in range(self.steps + 1):
            last = step == self.steps
            z = adam.z
            _, residual, gradient = latent.evaluate(
                self.prior, z.flatten(0, 1), goal, _flat, rows=len(goal), gradient=not last
            )
            distance = residual.square().sum(1).reshape(z.shape[:2])
            better = distance < least
            best = torch.where(better[..., None], z, best)
            least = torch.where(better, distance, least)
            if last:
                break
            rate = self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2
            adam = adam.step(gradient.reshape(z.shape), rate)
            shown.advance()
        least, winner = least.min(dim=0)
        return best[winner, torch.arange(len(w), device=w.device)], least


def _flat(x: Images) -> Float[torch.Tensor, "batch n"]:
    return x.flatten(1)
