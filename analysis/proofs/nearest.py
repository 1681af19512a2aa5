"""A projector onto S = {G(z) : z in a box} whose excess in squared distance is at most δ, by proof.

For every w it returns a z with ‖w − G(z)‖² ≤ min_z ‖w − G(z)‖² + δ: branch and bound over the box
goes on until no cell can hold a point nearer by more than δ. In the features of the last layer the
squared distance is ‖R φ(z) − c‖² plus what does not depend on z, and over a cell it is bounded from
below by the expansion and the remainder that `analysis.proofs.pairs` uses for pairs. This is the
δ-approximate projector of Theorem 1, for all w, by construction.
"""

from __future__ import annotations

import torch
from torch import nn

from analysis.proofs.pairs import (
    GAP,
    Expansion,
    Form,
    Frame,
    bound,
    frame,
    frobenius,
    square,
)
from analysis.proofs.rec import domain_of
from analysis.proofs.taylor import WIDER, expand, gamma, layers_of
from npgd import checks, sets
from npgd.images import Images, Latents, PerImage
from npgd.sets import GENERATED, Generated
from npgd.showing import Shown

GRID = 17
"""Points a side, of the grid that the search for near points starts from (k ≤ 2; fewer beyond)."""
STEPS = 6
"""Gauss–Newton steps after every level."""
LEVELS = 200
WIDEST = 1 + 1e-13
"""For the rounding of a squared norm of features."""


class CertifiedProjection(Shown, nn.Module):
    """P with ‖w − P(w)‖² ≤ min over S of ‖w − s‖², plus δ, for every w.

    Args:
        prior: as of `analysis.certify_rec`; it works in float64.
        box: of latents, likewise.
        delta: δ, a squared distance (a sum over pixels).
        max_cells: per image.

    Raises:
        TypeError, ValueError: as `analysis.certify_rec`; a δ below what float64 can tell.
    """

    def __init__(
        self,
        prior: Generated,
        box: object = None,
        delta: float = 1e-3,
        max_cells: int = 1_000_000,
    ) -> None:
        super().__init__()
        sets.needs(prior, *GENERATED, what="certified projections")
        self.delta = checks.number(delta, "delta")
        self.max_cells = checks.integer(max_cells, "max_cells")
        S = layers_of(prior)
        if box is None:
            box = (S.low, S.high) if hasattr(prior, "low") else 2.0
        self.domain = domain_of(box, S)
        self.layers, self.latent_dim, self.image_shape = S, S.latent_dim, S.image_shape
        W = S.weights[-1].detach()
        self.frame: Frame = frame(S, W, 0.0, self.domain.largest())
        eye = torch.eye(W.shape[1], dtype=W.dtype)
        self.form = Form(self.frame, eye, WIDER, 0.0)
        self.inverse = torch.linalg.inv(self.frame.R)

    def generate(self, z: Latents) -> Images:
        """G(z)."""
        return self.layers.generate(z)

    def encode(self, w: Images) -> Latents:
        """The latent of P(w)."""
        return self.search(w)[0]

    def project(self, w: Images) -> Images:
        """P(w)."""
        return self.generate(self.encode(w))

    def forward(self, w: Images) -> Images:
        return self.project(w)

    def sample_latents(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Latents:
        """n latents, uniform in the box."""
        generator = checks.drawing(generator, seed)
        size = (checks.integer(n, "n"), self.latent_dim)
        share = torch.rand(size, generator=generator, dtype=torch.float64)
        return self.domain.low + share * (self.domain.high - self.domain.low)

    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Images:
        """n points of S."""
        return self.generate(self.sample_latents(n, generator=generator, seed=seed))

    @torch.no_grad()
    def search(self, w: Images) -> tuple[Latents, PerImage]:
        """Latents of the projections, and for each a bound on its excess, at most δ.

        Raises:
            ValueError: a w so large, or a δ so small, that float64 cannot tell.
            RuntimeError: `max_cells` did not do.
        """
        checks.images(w, self.image_shape, "w")
        c, slack = self._coordinates(w.double())
        if bool((slack > self.delta / 2).any()):
            raise ValueError(
                f"delta must be above what float64 can tell here, got {self.delta:g} where rounding"
                f" is up to {2 * float(slack.max()):.2g}"
            )
        z, value = self._nearest(c)
        found = [self._proved(c[i], z[i], value[i], slack[i]) for i in range(len(c))]
        return torch.stack([z for z, _ in found]), torch.stack([gap for _, gap in found])

    def _coordinates(self, w: Images) -> tuple[torch.Tensor, PerImage]:
        """c with ‖w − G(z)‖² = ‖R φ − c‖² + constant, and the most by which this errs (twice)."""
        W, bias, R = self.layers.weights[-1], self.layers.biases[-1], self.frame.R
        rest = w.flatten(1) - bias
        pulled = rest @ W
        c = pulled @ self.inverse
        size_w, h = frobenius(W), W.shape[1]
        largest = WIDER * h**0.5 * max(1.0, self.frame.rounding.sizes[0])
        off = (pulled - c @ R).norm(dim=1) + 2 * gamma(len(W) + 4) * size_w * rest.norm(dim=1)
        off = off + 2 * gamma(h + 2) * c.norm(dim=1) * frobenius(R)
        longest = self.frame.spread * largest
        return c, WIDER * 2 * (self.frame.error * longest**2 + 2 * off * largest)

    def _value(self, c: torch.Tensor, z: Latents) -> tuple[torch.Tensor, torch.Tensor]:
        """ψ − c and Dψ."""
        rows, _ = expand(self.layers, z, z.new_zeros(len(z)))
        rows = rows @ self.frame.R.T
        return rows[:, 0] - c, rows[:, 1 : 1 + self.latent_dim]

    def _nearest(self, c: torch.Tensor) -> tuple[Latents, PerImage]:
        """The best of a grid, after Gauss–Newton steps; nothing here is certain."""
        k, domain = self.latent_dim, self.domain
        side = GRID if k <= 2 else max(3, int(GRID ** (2 / k)))
        marks = torch.linspace(0, 1, side, dtype=torch.float64)
        grid = torch.cartesian_prod(*[marks] * k).reshape(-1, k)
        grid = domain.low + grid * (domain.high - domain.low)
        psi, _ = self._value(c.new_zeros(1), grid)
        # The best four of the grid.
        order = torch.cdist(c, psi).topk(min(4, len(grid)), dim=1, largest=False).indices
        tries = [self._refined(c, grid[order[:, j]], 30) for j in range(order.shape[1])]
        values = torch.stack([value for _, value in tries])
        best = values.argmin(0)
        z = torch.stack([z for z, _ in tries])[best, torch.arange(len(c))]
        return z, values.amin(0)

    def _refined(self, c: torch.Tensor, z: Latents, steps: int) -> tuple[Latents, PerImage]:
        """Damped Gauss–Newton steps in the box that never raise the distance."""
        k = self.latent_dim
        eye = torch.eye(k, dtype=torch.float64)
        r, J = self._value(c, z)
        value, damping = r.square().sum(1), z.new_full((len(z),), 1e-3)
        for _ in range(steps):
            gram = J @ J.transpose(1, 2)
            scale = damping * gram.diagonal(dim1=1, dim2=2).mean(1) + 1e-30
            pull = (J @ r[:, :, None])[:, :, 0]
            step = torch.linalg.solve(gram + scale[:, None, None] * eye, pull)
            new = (z - step).clamp(self.domain.low, self.domain.high)
            r_new, J_new = self._value(c, new)
            v_new = r_new.square().sum(1)
            better = v_new < value
            z = torch.where(better[:, None], new, z)
            r, J = (
                torch.where(better[:, None], r_new, r),
                torch.where(better[:, None, None], J_new, J),
            )
            value = torch.where(better, v_new, value)
            damping = torch.where(better, damping / 10, damping * 10).clamp(1e-12, 1e6)
        return z, value

    def _proved(
        self, c: torch.Tensor, z: torch.Tensor, value: torch.Tensor, slack: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best latent, and what is proved of its excess."""
        domain = self.domain
        centre, half = (domain.low + domain.high)[None] / 2, (domain.high - domain.low)[None] / 2
        # What the value of the best is at most, beyond its float.
        wrong = 2 * self.frame.rounding.value
        allowed = 0.9 * (self.delta - slack)
        examined = 0
        for _ in range(LEVELS):
            examined += len(centre)
            if examined > self.max_cells:
                break
            low, cost, at = self._bounded(c, centre, half)
            best = int(at.argmin())
            if float(at[best]) < float(value) - 1e-9 * abs(float(value)):
                near, found = self._refined(c[None], centre[best : best + 1], STEPS)
                if float(found) < float(value):
                    z, value = near[0], found[0]
            top = WIDEST * value + 2 * wrong * value.sqrt() + wrong**2
            kept = low < top - allowed
            if not bool(kept.any()):
                # Every cell was dropped at a value of the best then, which was no lower.
                return z, allowed + slack
            rows = torch.arange(int(kept.sum()))
            along = cost[kept].argmax(1)
            centre, half = centre[kept], half[kept].clone()
            half[rows, along] /= 2
            move = torch.zeros_like(half)
            move[rows, along] = half[rows, along]
            centre, half = torch.cat([centre - move, centre + move]), half.repeat(2, 1)
        raise RuntimeError(
            f"max_cells must do for delta = {self.delta:g}, got {self.max_cells:,} with"
            f" {len(centre):,} cells left; many points of S are equally near"
        )

    def _bounded(
        self, c: torch.Tensor, centre: Latents, half: Latents
    ) -> tuple[PerImage, torch.Tensor, PerImage]:
        """‖ψ − c‖² from below over cells, what the widths cost it, and its value in the centres."""
        k, own = self.latent_dim, self.frame.rounding
        radius = WIDER * half.norm(dim=1) + GAP
        rows, third = expand(self.layers, centre, radius)
        rows = rows @ self.frame.R.T
        error = own.value + k * radius * own.first + k * k * radius * radius * own.second
        error = error + 1e-15 * float(c.norm())
        s = Expansion(
            rows[:, 0] - c, rows[:, 1 : 1 + k], square(rows, k),
            WIDER * third * (radius**3 / 6)[:, None], error,
        )  # fmt: skip
        low, cost = bound(self.form, s, half)
        return low.clamp_min(0.0), cost, s.start.square().sum(1)
