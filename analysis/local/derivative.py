"""Iterations as maps of a batch to itself, and products with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from jaxtyping import Bool, Float

from analysis.memory import fitting
from npgd.gauss_newton import forward_mode
from npgd.images import Images, Latents, Measurements, norm
from npgd.operators import LinearOperator
from npgd.sets import Encoded

Points = Float[torch.Tensor, "batch ..."]
Map: TypeAlias = Callable[[Points], Points]

ROWS = 512
"""Directional derivatives taken together, all images counted, at most, …"""
NUMBERS = 2**21
"""… and numbers in the images that they move."""


def together(n: int) -> int:
    """How many directional derivatives are taken together where images have n numbers."""
    return fitting(NUMBERS, n, ROWS)


class Iteration(Protocol):
    """A map of a batch to itself, whose rows do not meet, and products with its derivative."""

    def __call__(self, z: Points) -> Points:
        """T(z)."""
        ...

    def some(self, z: Points, rows: Bool[torch.Tensor, " batch"]) -> Points:
        """T(z) of these rows; the others as they are."""
        ...

    def many(self, z: Float[torch.Tensor, "c batch ..."]) -> Float[torch.Tensor, "c batch ..."]:
        """T of c batches."""
        ...

    def push(self, z: Points, directions: Float[torch.Tensor, "c batch ..."]) -> Points:
        """DT(z) u for c directions u, (c, batch, …)."""
        ...

    @property
    def derivative(self) -> str:
        """How: "forward mode" or "central differences"."""
        ...


class AnyMap:
    """A map of somebody else's; its derivative by forward mode if that works, else differences."""

    def __init__(self, T: Map, at: Points) -> None:
        self.T = T
        self.derivative = derivative_of(T, at)

    def __call__(self, z: Points) -> Points:
        with torch.no_grad():
            return self.T(z).detach()

    def some(self, z: Points, rows: torch.Tensor) -> Points:
        return torch.where(wide(rows, z), self(z), z)

    def many(self, z: torch.Tensor) -> torch.Tensor:
        return torch.stack([self(part) for part in z])

    def push(self, z: Points, directions: torch.Tensor) -> torch.Tensor:
        return pushed(self.T, z, directions, self.derivative)


class LatentNPGD:
    """T(z) = G†(G(z) − η Aᵀ(A G(z) − y)); A need not be differentiable, being linear."""

    def __init__(
        self, A: LinearOperator, prior: Encoded, y: Measurements, step_size: float
    ) -> None:
        self.A, self.prior, self.y, self.step_size = A, prior, y, step_size
        self.rows = together(A.n)
        at = self.first(A.adjoint(y))
        w = self._descended(prior.generate(at), y)
        of = (derivative_of(prior.generate, at), derivative_of(prior.encode, w))
        self.generates, self.encodes = of
        self.derivative = DIFFERENCES if DIFFERENCES in of else FORWARD

    def __call__(self, z: Latents) -> Latents:
        return self._at(z, self.y)

    def some(self, z: Latents, rows: torch.Tensor) -> Latents:
        out = z.clone()
        if bool(rows.any()):
            out[rows] = self._at(z[rows], self.y[rows])
        return out

    def many(self, z: torch.Tensor) -> torch.Tensor:
        parts = torch.split(z, max(1, self.rows // len(self.y)))
        return torch.cat([self._many(part) for part in parts])

    def _many(self, z: torch.Tensor) -> torch.Tensor:
        return self._at(z.flatten(0, 1), self.y.repeat(len(z), 1)).reshape(z.shape)

    def _at(self, z: Latents, y: Measurements) -> Latents:
        with torch.no_grad():
            return self.prior.encode(self._descended(self.prior.generate(z), y)).detach()

    def first(self, x: Images) -> Latents:
        """The latent of x_1, for the run from the image x_0 = x."""
        with torch.no_grad():
            return self.prior.encode(self._descended(x, self.y)).detach()

    def _descended(self, x: Images, y: Measurements) -> Images:
        return x - self.step_size * self.A.adjoint(self.A(x) - y)

    def push(self, z: Latents, directions: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            w, moved, gained = self._moved(z, directions)
            along = moved - self.step_size * gained
            return pushed(self.prior.encode, w, along, self.encodes, self.rows)

    def parts(self, z: Latents, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """DG† J u and DG† AᵀA J u, for every direction u."""
        with torch.no_grad():
            w, moved, gained = self._moved(z, directions)
            both = pushed(self.prior.encode, w, torch.cat([moved, gained]), self.encodes, self.rows)
        return both[: len(directions)], both[len(directions) :]

    def _moved(
        self, z: Latents, directions: torch.Tensor
    ) -> tuple[Images, torch.Tensor, torch.Tensor]:
        """w, and J u and AᵀA J u for every direction u."""
        w = self._descended(self.prior.generate(z), self.y)
        moved = pushed(self.prior.generate, z, directions, self.generates, self.rows)
        parts = torch.split(moved.flatten(0, 1), self.rows)
        gained = torch.cat([self.A.adjoint(self.A(part)) for part in parts])
        return w, moved, gained.reshape(moved.shape)


FORWARD, DIFFERENCES = "forward mode", "central differences"


def derivative_of(function: Map, at: Points) -> str:
    """Whether forward mode differentiates `function` at a batch, held against differences.

    Code that leaves the graph (numpy, `torch.no_grad`) gives no derivative, or 0, without a word.
    """
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(at.shape, generator=generator, dtype=torch.float64).to(at)[None]
    try:
        with torch.no_grad():
            exact = pushed(function, at, u, FORWARD)
    except Exception:  # somebody else's function fails in its own way
        return DIFFERENCES
    with torch.no_grad():
        near = pushed(function, at, u, DIFFERENCES)
    apart, size = norm((exact - near)[0]), norm(near[0])
    return FORWARD if bool((apart <= AGREE * size + 1e-9).all()) else DIFFERENCES


AGREE = 0.05
"""Forward mode and differences may differ by so much: of a kinked network they do."""


def pushed(
    function: Map, z: Points, directions: torch.Tensor, how: str, rows: int = ROWS
) -> torch.Tensor:
    """Dfunction(z) u for directions (c, *z.shape), so many at a time as `rows` allows."""
    parts = torch.split(directions, max(1, rows // max(len(z), 1)))
    if how == DIFFERENCES:
        return torch.cat([_differences(function, z, part) for part in parts])
    with forward_mode:
        return torch.cat([forward(function, z, part) for part in parts])


def forward(function: Map, z: Points, directions: torch.Tensor) -> torch.Tensor:
    def along(u: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.jvp(function, (z,), (u,))[1]
        return out

    with torch.no_grad():
        if len(directions) > 1:
            try:
                return torch.func.vmap(along)(directions).detach()
            except RuntimeError:  # modules that vmap does not know
                pass
        return torch.stack([along(u) for u in directions]).detach()


def _differences(function: Map, z: Points, directions: torch.Tensor) -> torch.Tensor:
    out = []
    for u in directions:
        size = norm(u).clamp_min(torch.finfo(u.dtype).tiny)
        h = torch.finfo(z.dtype).eps ** (1 / 3) * norm(z).clamp_min(1.0) / size
        h = wide(h, z)
        step = (function(z + h * u) - function(z - h * u)).detach()
        out.append(step / (2 * wide(h.flatten(), step)))
    return torch.stack(out)


def wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(batch,) to (batch, 1, …), so many dimensions as `like` has."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
