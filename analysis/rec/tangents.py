"""Tangent directions: the limits of secants, through the Jacobian of G.

They span the columns of the Jacobian J at G(z), so that the extremes of r(s) = ‖A s‖²/‖s‖² over all
of them are the extreme generalised eigenvalues of (JᵀAᵀAJ, JᵀJ).
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from analysis.memory import (
    ACTIVE,
    LARGE,
    MEASURING,
    Footprint,
    fitting,
    gigabytes,
    measured_together,
    release,
)
from analysis.rec.rounding import ERROR
from analysis.tasks import in_order, one_thread
from npgd.gauss_newton import DIRECTIONS, forward_mode, jacobian
from npgd.precision import converted

BLOCK = 2**14  # pixels whose rows of a Jacobian are orthonormalised together
IMAGES = 2**22  # numbers in the tangents that A is applied to together
TANGENT_CHUNK = 64  # latents whose Jacobians are computed together, at most …
JACOBIANS = 2**21  # … and entries of them: in float64, 16 MB, several times over in each thread


def tangent(
    prior: Any, z: Float[torch.Tensor, "count k"], step: Float[torch.Tensor, "count k"]
) -> Float[torch.Tensor, "count ..."]:
    """J(z) step: the derivative of G along one direction at every z."""
    with forward_mode, one_thread(), torch.no_grad():
        along: torch.Tensor = torch.func.jvp(prior.generate, (z,), (step,))[1]
        return along.cpu()


@dataclass(frozen=True)
class TangentScan:
    """Extremes of r = ‖A s‖²/‖s‖² over the tangents s at each latent z[i]; NaN where J = 0."""

    z: Float[torch.Tensor, "count k"]
    low: Float[np.ndarray, " count"]
    """The least r at each point."""
    high: Float[np.ndarray, " count"]
    """The largest r at each point."""
    low_step: Float[torch.Tensor, "count k"]
    """The latent direction u of the least r, so long that ‖J u‖ = 1."""
    high_step: Float[torch.Tensor, "count k"]
    """The latent direction of the largest r, as long."""
    rank: Int[np.ndarray, " count"]
    """Numerical rank of J; the tangents are those of its leading singular directions, so that the
    extremes stay one-sided."""
    norm: Float[np.ndarray, " count"]
    """‖J‖, the largest singular value."""
    m: int
    """Measurements of A."""

    @property
    def unseen(self) -> Bool[np.ndarray, " count"]:
        """Where J has more rank than A has rows: A maps some tangent to 0, and α = 0 is certain."""
        return np.asarray(self.rank > self.m)

    @property
    def n_deficient(self) -> int:
        """Points where the Jacobian has less than full rank."""
        return int((self.rank < self.z.shape[1]).sum())


def tangents(
    operator: Any,
    prior: Any,
    z: Float[torch.Tensor, "count k"],
    *,
    executor: Executor | None = None,
    progress: bool = False,
    memory: int | None = None,
) -> TangentScan:
    """Generalised eigenvalues of (JᵀAᵀAJ, JᵀJ) at every z: the extremes of r over its tangents.

    J is computed in the precision of `z` and of the prior, the eigenvalues in float64 from
    J = QR, R = U S Vᵀ: with U the leading left singular vectors, r = ‖A Q U c‖² over unit c.
    Singular values up to max(n, k, 16) ε times the largest are taken for zero: by Weyl's
    inequality those above are none, if J is off by 16 ε ‖J‖ or less. So where more of them are left
    than A has rows, A maps some tangent to 0. A large J of float32 needs no Q: those left are so
    large that S² and V from JᵀJ in float64 are as good, and r = ‖A J V S⁻¹ c‖².

    Args:
        operator: A.
        prior: with `generate`.
        z: where to look.
        executor: runs the tasks.
        progress: show a bar.
        memory: bytes for the tasks that run at a time; none by default.

    Raises:
        ValueError: for a `memory` too small for a single tangent; if a batch norm of the generator
            is in training mode, since G(z) would then depend on the other latents.
    """
    if isinstance(prior, torch.nn.Module):
        for name, part in prior.named_modules():
            if part.training and isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                raise ValueError(f"prior: {name} is in training mode; call .eval() first")
    space = TangentSpace.of(prior, z[:1])
    entries, directions = space.entries, space.directions(memory)
    chunks = torch.split(z, max(1, min(TANGENT_CHUNK, JACOBIANS // entries)))
    operator = converted(operator, torch.float64, "cpu")
    arguments = ((operator, prior, part, directions) for part in chunks)
    each = len(chunks[0]) * space.need(directions)
    parts = in_order(
        _tangent_task, arguments, len(chunks), "tangents", executor=executor, progress=progress,
        at_a_time=None if memory is None else fitting(memory, each, len(chunks)),
    )  # fmt: skip
    return TangentScan(
        z=z,
        low=np.concatenate([part.low for part in parts]),
        high=np.concatenate([part.high for part in parts]),
        low_step=torch.cat([part.low_step for part in parts]),
        high_step=torch.cat([part.high_step for part in parts]),
        rank=np.concatenate([part.rank for part in parts]),
        norm=np.concatenate([part.norm for part in parts]),
        m=parts[0].m,
    )


@dataclass(frozen=True)
class TangentSpace:
    """What one tangent space takes."""

    n: int
    k: int
    size: int
    """Bytes of each number of the Jacobian, as G computes it."""
    footprint: Footprint
    """Of G."""

    @classmethod
    def of(cls, prior: Any, z: Float[torch.Tensor, "1 k"]) -> TangentSpace:
        """Of G at z."""
        n = int(torch.Size(prior.image_shape).numel())
        return cls(n, z.shape[1], z.element_size(), Footprint.of(prior.generate, z))

    @property
    def entries(self) -> int:
        """Of the Jacobian, n k."""
        return self.n * self.k

    def need(self, directions: int = DIRECTIONS) -> float:
        """Bytes: J, its copy in float64 where one is made, and what is worked on."""
        copied = self.size < 8 and not _by_products(self.n, self.k, self.size)
        held = 1.1 * self.entries * (self.size + (8 if copied else 0))
        tangents = 8 * min(IMAGES, self.entries)
        measuring = tangents + min(MEASURING, 32 * tangents)
        return held + max(directions * ACTIVE * self.footprint.largest, measuring)

    def directions(self, memory: int | None) -> int:
        """How many are differentiated along at a time; ValueError where not even one fits."""
        if memory is None:
            return DIRECTIONS
        if self.need(1) > memory:
            raise ValueError(
                f"memory must be at least {gigabytes(self.need(1))}, which one tangent space of"
                f" {self.entries:,} numbers takes, got {gigabytes(memory)}"
            )
        return max(d for d in range(1, DIRECTIONS + 1) if self.need(d) <= memory)


def _tangent_task(operator: Any, prior: Any, z: torch.Tensor, directions: int) -> TangentScan:
    with one_thread():
        return _tangent_extremes(operator, prior, z, directions)


def _tangent_extremes(operator: Any, prior: Any, z: torch.Tensor, directions: int) -> TangentScan:
    columns = jacobian(prior, z, directions).cpu()
    shape, columns = columns.shape[2:], columns.flatten(2)
    if columns.numel() > LARGE:
        release()
    tolerance = max(*columns.shape[1:], ERROR) * torch.finfo(columns.dtype).eps
    count, k = z.shape
    by_products = _by_products(columns.shape[2], k, columns.element_size())
    spectrum = _from_products if by_products else _from_basis
    found = [spectrum(operator, j, shape) for j in columns]
    singular, right, images = zip(*found, strict=True)
    s, vh, stretched = torch.stack(singular), torch.stack(right), torch.stack(images)
    rank = (s > tolerance * s[:, :1]).sum(dim=1)
    low = torch.full((count,), torch.nan, dtype=torch.float64)
    high = low.clone()
    low_step = torch.full((count, k), torch.nan, dtype=torch.float64)
    high_step = low_step.clone()
    for size in rank.unique().tolist():
        if size == 0:
            continue
        here = rank == size
        image = stretched[here, :size]
        values, vectors = torch.linalg.eigh(image @ image.transpose(1, 2))
        back = vh[here, :size].transpose(1, 2) / s[here, None, :size]
        # Fewer measurements than dimensions: what the eigenvalue is off 0 is rounding.
        low[here] = values[:, 0].clamp_min(0) if size <= stretched.shape[2] else 0.0
        high[here] = values[:, -1].clamp_min(0)
        low_step[here] = (back @ vectors[:, :, :1]).squeeze(2)
        high_step[here] = (back @ vectors[:, :, -1:]).squeeze(2)
    return TangentScan(
        z, low.numpy(), high.numpy(), low_step, high_step,
        rank.numpy(), s[:, 0].numpy(), stretched.shape[2],
    )  # fmt: skip


Spectrum = tuple[
    Float[torch.Tensor, " rank"], Float[torch.Tensor, "rank k"], Float[torch.Tensor, "rank m"]
]
"""Singular values of J, its right singular vectors, and A of its left ones."""


def _by_products(n: int, k: int, size: int) -> bool:
    """Whether JᵀJ will do: of a J in float32, above its tolerance, and so large that it pays."""
    return size < 8 and n > max(BLOCK, 4 * k)


def _from_products(operator: Any, columns: torch.Tensor, shape: torch.Size) -> Spectrum:
    """From JᵀJ and A J, both in float64, block by block: J is not copied.

    What JᵀJ rounds of S² is k 2⁻⁵³ of its largest, and S² is at least (n 2⁻²³)² of it, where it
    counts.
    """
    gram = torch.zeros(len(columns), len(columns), dtype=torch.float64)
    for part in torch.split(columns, BLOCK, dim=1):
        block = part.double()
        gram.addmm_(block, block.T)
    squares, vectors = torch.linalg.eigh(gram)
    s, vh = squares.clamp_min(0).sqrt().flip(0), vectors.T.flip(0)
    return s, vh, (vh @ _measured(operator, columns, shape)) / s.clamp_min(s[0] * 2**-52)[:, None]


def _from_basis(operator: Any, columns: torch.Tensor, shape: torch.Size) -> Spectrum:
    """From an orthonormal basis."""
    basis, s, vh = _orthonormalised(columns)
    return s, vh, _measured(operator, basis, shape)


def _measured(operator: Any, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A of images in a row each, in float64, few at a time."""
    size = max(1, IMAGES // rows.shape[1])
    size = measured_together(operator, rows[:size].double().reshape(-1, *shape), size)
    parts = []
    with torch.no_grad():
        for i, u in enumerate(torch.split(rows, size)):
            parts.append(operator(u.double().reshape(-1, *shape)))
            if rows.numel() > LARGE and i % 4 == 3:
                release()
    return torch.cat(parts).flatten(1)


def _orthonormalised(
    columns: Float[torch.Tensor, "k n"],
) -> tuple[
    Float[torch.Tensor, "rank n"], Float[torch.Tensor, " rank"], Float[torch.Tensor, "rank k"]
]:
    """J = (basis)ᵀ diag(s) Vᵀ, in float64: the rows of `basis` are the left singular vectors.

    From J = QR, R = U S Vᵀ, and Q of J's blocks of rows one by one, each Q_i R_i, then of all R_i
    together (Demmel, Grigori, Hoemmen, Langou, SIAM J. Sci. Comput. 34, 2012): beside J in float64,
    which the basis takes the place of, only blocks are held.
    """
    k, n = columns.shape
    if n <= max(BLOCK, 4 * k):
        q, r = torch.linalg.qr(columns.double().T)
        u, s, vh = torch.linalg.svd(r)
        return (q @ u).T, s, vh
    held = columns.double()
    blocks = torch.split(held, max(BLOCK, 4 * k), dim=1)
    triangles = []
    for block in blocks:
        q, r = torch.linalg.qr(block.T)
        block[: q.shape[1]] = q.T
        triangles.append(r)
    q, r = torch.linalg.qr(torch.cat(triangles))
    u, s, vh = torch.linalg.svd(r)
    second = torch.split(q @ u, [len(triangle) for triangle in triangles])
    for block, rotation in zip(blocks, second, strict=True):
        block.copy_(rotation.T @ block[: len(rotation)])
    return held, s, vh
