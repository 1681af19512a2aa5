"""Minimax: the matrix whose own κ = max ‖A s‖²/min ‖A s‖² over directions s of S is least.

The directions are tangents, secants, and those that a search finds. At a latent z the tangents
span the range of J(z); with an orthonormal basis Q(z) of it the extremes of ‖A s‖² over unit
tangents are the extreme eigenvalues of Q(z)ᵀAᵀA Q(z), and a unit secant is a basis of one column.
Adam lowers the smooth maximum of the logarithms λ of all these eigenvalues, of a batch at a time,

    T log Σ exp(λ/T) + T log Σ exp(−λ/T)  →  log κ as T → 0.

It starts from a Gaussian matrix: started from secant PCA, which hardly sees some tangents at all,
it ended higher. A low T fits the worst training points and leaves others worse off, so T stays
moderate, the iterates are averaged, and κ on held-out latents decides which average is returned.
That set is thereby used up: κ for a report needs directions from a third draw, as
`analysis.estimate_rec` takes them, whatever its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.design.secant_pca import described, secant_points
from analysis.rec.search import search_pairs
from analysis.rec.tangents import tangents
from analysis.tasks import draw_latents, generate, in_order, one_thread
from npgd import checks, sets
from npgd.gauss_newton import jacobian
from npgd.images import norm, squared_norm
from npgd.operators import MatrixOperator
from npgd.precision import plainly, precision
from npgd.progress import track

TEMPERATURE = 0.25  # T
LEARNING_RATE = 0.005  # for entries of size 1/√n, times 28/√n
AVERAGE = 0.98  # decay of the running average of the iterates
BATCH = 128  # latents, and as many secants, in a step
EVERY = 25  # steps between looks at the held-out directions
FEW = 8  # latents that tell beforehand whether m rows can do
CHUNK = 64  # latents whose Jacobians are computed together
SECANTS = 20_000  # unit secants trained on, and a quarter as many held out
TANGENTS = 12_000  # latents trained on by default, or as many as fit into
MEMORY = 2**30  # bytes
SEARCH_STARTS = 16  # tangents from which the search lowers ‖A s‖², and half as many to raise it
SEARCH_STEPS = 60
LEAST = 1e-12  # eigenvalues below this have no usable logarithm in float32
SEARCH_ARM = 0.02  # half the latent distance at which it starts
STATUS = (
    "Of the averages seen, the one with the least κ on the held-out directions; judge it on"
    " directions from another draw."
)

Bases = Float[torch.Tensor, "count n columns"]


@dataclass(frozen=True)
class _Directions:
    """Orthonormal bases of tangent spaces, and unit secants as bases of one column."""

    tangents: Bases
    secants: Bases

    def kappa(self, A: torch.Tensor) -> tuple[float, float]:
        """Smallest and largest ‖A s‖² over all of them."""
        with torch.no_grad():
            parts = (*torch.split(self.tangents, 256), *torch.split(self.secants, 4096))
            values = [_eigenvalues(A, part) for part in parts if len(part)]
        return min(float(v.min()) for v in values), max(float(v.max()) for v in values)


def _eigenvalues(A: Float[torch.Tensor, "m n"], bases: Bases) -> Float[torch.Tensor, " all"]:
    """Eigenvalues of QᵀAᵀA Q for every basis Q."""
    if bases.shape[2] == 1:
        return squared_norm(bases[:, :, 0] @ A.T)
    image = torch.matmul(A, bases)
    values: torch.Tensor = torch.linalg.eigvalsh(image.transpose(1, 2) @ image)
    return values.flatten()


@plainly
def design_minimax(
    prior: Any,
    m: int,
    *,
    orthonormal: bool = False,
    tangent_points: int | None = None,
    held_out: int = 600,
    points: int | None = None,
    steps: int = 600,
    rounds: int = 2,
    seed: int = 0,
    progress: bool = False,
) -> MatrixOperator:
    """A with the least κ over tangents, secants and found directions of S that descent reaches.

    Design and search alternate: after `steps` steps, `rounds` − 1 times, a search starts from the
    worst of fresh tangents, and the secants it ends with join every batch of another `steps`/2
    steps. Returned is the average of iterates with the least κ on the held-out tangents and
    secants, among those whose κ on the training directions is no more than at the start.

    Args:
        prior: with `generate` and `latent_dim`; or with `sample`, or images (N, c, h, w), which
            have no tangents and are not searched.
        m: rows, at least the dimension of the tangent spaces.
        orthonormal: rows with A Aᵀ = I, by A = R⁻¹B, RRᵀ = BBᵀ. Otherwise A is free, and scaled
            so that max ‖A s‖² = 1 over the unit directions trained on.
        tangent_points: latents trained on, by default 12,000 or what fits into 1 GiB.
        held_out: latents for stopping; of images or samples, a fifth of the points.
        points: between which secants are taken; by default 4000 samples, or all given images.
        steps: of the first round, at most: where 8 looks in a row bring nothing, it ends.
        rounds: of design; 1 is without search.
        seed: of everything. Latents are drawn from streams of their own, so that
            `analysis.estimate_rec` sees others, with the same seed too.

    Returns:
        An operator in the prior's dtype, whose `provenance` holds the settings and "kappa
        training", "kappa held out" (used for stopping), and both "at start".

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    m, held_out, steps, rounds = (
        checks.integer(value, name)
        for name, value in (("m", m), ("held_out", held_out), ("steps", steps), ("rounds", rounds))
    )
    if tangent_points is not None:
        tangent_points = checks.integer(tangent_points, "tangent_points")
    if points is not None:
        points = checks.integer(points, "points", minimum=2)
    seed, progress = checks.seed(seed), checks.flag(progress, "progress")
    orthonormal = checks.flag(orthonormal, "orthonormal")
    if sets.generates(prior):  # said before the long work
        z = draw_latents(prior.latent_dim, FEW, _stream(seed, 0), precision(prior))
        few = _tangent_bases(prior, z, progress=False)
        _require_rows(m, few.shape[2], few.shape[1])
    training, held, shape, dtype = _directions(
        prior, tangent_points, held_out, points, seed, progress
    )
    k = training.tangents.shape[2]
    n = math.prod(shape)
    _require_rows(m, k, n)
    generator = checks.seeded(seed)
    start = torch.randn(m, n, generator=generator, dtype=torch.float64).float() / math.sqrt(n)
    descent = _Descent(training, held, start, orthonormal, generator)
    descent.run(steps, LEARNING_RATE, progress)
    for again in range(1, rounds if sets.generates(prior) else 1):
        A = MatrixOperator(descent.best.to(precision(prior)), shape)
        new = _search(A, prior, _stream(seed, 2 + again), progress)
        descent.found = torch.cat([descent.found, new])
        descent.run(max(steps // 2, 1), LEARNING_RATE / 2, progress)
    matrix = descent.best
    if orthonormal:
        matrix = torch.linalg.qr(matrix.double().T)[0].T
    else:
        matrix = matrix / math.sqrt(training.kappa(matrix)[1])
    operator = MatrixOperator(matrix.to(dtype), shape)
    operator.provenance = {
        "method": "minimax",
        "prior": described(prior),
        "m": m,
        "orthonormal": orthonormal,
        "tangent points": len(training.tangents),
        "tangent dimension": k,
        "secants": len(training.secants),
        "found directions": len(descent.found),
        "held out": [len(held.tangents), len(held.secants)],
        "steps": descent.steps,
        "seed": seed,
        "kappa training": _quotient(training, matrix.float()),
        "kappa training at start": descent.start_kappa,
        "kappa held out": _quotient(held, matrix.float()),
        "kappa held out at start": descent.start_held,
        "status": STATUS,
    }
    return operator


def _require_rows(m: int, k: int, n: int) -> None:
    """Raise unless m rows can keep all directions of tangent spaces of dimension k."""
    if not k <= m <= n:
        raise ValueError(
            f"m must be from {max(k, 1)} to {n}, got {m}: A has to see all directions of the"
            f" tangent spaces, of dimension {k}"
        )


class _Descent:
    """Adam on the smooth maximum, keeping the average of iterates that does best on `held`."""

    def __init__(
        self,
        training: _Directions,
        held: _Directions,
        start: Float[torch.Tensor, "m n"],
        orthonormal: bool,
        generator: torch.Generator,
    ) -> None:
        self.training, self.held, self.generator = training, held, generator
        self.orthonormal = orthonormal
        self.found: Bases = training.secants[:0]
        self.best = self._rows(start)
        self.start_kappa, self.start_held = (
            _quotient(training, self.best),
            _quotient(held, self.best),
        )
        self.best_kappa = self.start_held
        self.steps = 0

    def _rows(self, B: torch.Tensor) -> torch.Tensor:
        if not self.orthonormal:
            return B
        triangle = torch.linalg.cholesky(B @ B.T)
        rows: torch.Tensor = torch.linalg.solve_triangular(triangle, B, upper=False)
        return rows

    def _batch(self) -> list[Bases]:
        chosen = []
        for bases in (self.training.tangents, self.training.secants):
            if len(bases):
                index = torch.randint(len(bases), (BATCH,), generator=self.generator)
                chosen.append(bases[index])
        return [*chosen, self.found] if len(self.found) else chosen

    def run(self, steps: int, rate: float, progress: bool) -> None:
        """So many steps from the best matrix so far, the rate falling to zero as a cosine."""
        B = self.best.detach().clone().requires_grad_(True)
        average = B.detach().clone()
        scale = 28 / math.sqrt(B.shape[1])
        optimiser = torch.optim.Adam([B], lr=rate * scale, betas=(0.9, 0.99))
        idle = 0
        for step in track(range(steps), steps, "minimax", progress):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale * 0.5 * (1 + math.cos(math.pi * step / steps))
            A = self._rows(B)
            values = torch.cat([_eigenvalues(A, part) for part in self._batch()])
            logs = values.clamp_min(LEAST).log()
            loss = TEMPERATURE * (
                torch.logsumexp(logs / TEMPERATURE, 0) + torch.logsumexp(-logs / TEMPERATURE, 0)
            )
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            self.steps += 1
            if not bool(torch.isfinite(B).all()):
                return
            # The average of the first steps would still hold the start: its memory grows.
            decay = min(AVERAGE, step / (step + 10))
            average.mul_(decay).add_(B.detach(), alpha=1 - decay)
            if (step + 1) % EVERY == 0 or step + 1 == steps:
                A = self._rows(average)
                kappa = _quotient(self.held, A)
                idle += 1
                if kappa < self.best_kappa and _quotient(self.training, A) <= self.start_kappa:
                    self.best, self.best_kappa, idle = A.clone(), kappa, 0
                if idle == 8:
                    return


def _quotient(directions: _Directions, A: torch.Tensor) -> float:
    low, high = directions.kappa(A)
    return high / low if low > 0 else math.inf


# ------------------------------------------------------------------------------------- directions


def _stream(seed: int, which: int) -> int:
    """A seed for latents, other than all small ones."""
    return int(np.random.SeedSequence([seed, which, 0x6D696E]).generate_state(1, np.uint32)[0])


def _directions(
    prior: Any,
    tangent_points: int | None,
    held_out: int,
    points: int | None,
    seed: int,
    progress: bool,
) -> tuple[_Directions, _Directions, tuple[int, ...], torch.dtype]:
    """Directions to train on and to hold out, the images' shape and dtype."""
    if not sets.generates(prior):
        images = secant_points(prior, points, seed)
        if len(images) < 10:
            raise ValueError(f"prior must have 10 points, to hold some out, got {len(images)}")
        split = len(images) - len(images) // 5
        n = images[0].numel()
        none = torch.empty(0, n, 0)
        training = _Directions(none, _secants(images[:split], SECANTS, seed))
        held = _Directions(none, _secants(images[split:], SECANTS // 4, seed))
        return training, held, tuple(images.shape[1:]), images.dtype
    dtype = precision(prior)
    sample = generate(prior, draw_latents(prior.latent_dim, 1, _stream(seed, 0), dtype))
    shape = tuple(sample.shape[1:])
    if tangent_points is None:
        tangent_points = max(1, min(TANGENTS, MEMORY // (4 * sample.numel() * prior.latent_dim)))
    both = []
    for which, count, secants in (
        (0, tangent_points, SECANTS),
        (1, held_out, SECANTS // 4),
    ):
        z = draw_latents(prior.latent_dim, count, _stream(seed, which), dtype)
        at = z if points is None and which else z[: points or 4000]
        if len(at) < 2:
            at = draw_latents(prior.latent_dim, 2, _stream(seed, which), dtype)
        bases = _tangent_bases(prior, z, progress)
        both.append((bases, _secants(generate(prior, at), secants, seed)))
    rank = min(bases.shape[2] for bases, _ in both)
    training, held = (_Directions(bases[:, :, :rank], secants) for bases, secants in both)
    return training, held, shape, dtype


def _tangent_bases(prior: Any, z: torch.Tensor, progress: bool) -> Bases:
    """Leading left singular vectors of J at every z: as many as the least rank, of those above 0.

    In float32; a point where J = 0 has no tangents and is left out.
    """
    chunks = torch.split(z, CHUNK)
    arguments = ((prior, part) for part in chunks)
    parts = in_order(_basis_task, arguments, len(chunks), "tangents", progress=progress)
    rank = torch.cat([part[1] for part in parts])
    if not bool((rank > 0).any()):
        return torch.empty(0, parts[0][0].shape[1], 0)
    least = int(rank[rank > 0].min())
    return torch.cat([part[0][:, :, :least] for part in parts])[rank > 0]


def _basis_task(prior: Any, z: torch.Tensor) -> tuple[Bases, torch.Tensor]:
    with one_thread(), torch.no_grad():
        columns = jacobian(prior, z).cpu().flatten(2)
        tolerance = max(columns.shape[1:]) * torch.finfo(columns.dtype).eps
        q, r = torch.linalg.qr(columns.double().transpose(1, 2))
        u, s, _ = torch.linalg.svd(r)
        return (q @ u).float(), (s > tolerance * s[:, :1]).sum(dim=1)


def _secants(images: torch.Tensor, count: int, seed: int) -> Bases:
    """Unit secants of pairs drawn uniformly, those of equal points left out."""
    flat = images.flatten(1)
    generator = checks.seeded(seed)
    i = torch.randint(len(flat), (count,), generator=generator)
    j = (i + torch.randint(1, len(flat), (count,), generator=generator)) % len(flat)
    s = flat[i].double() - flat[j].double()
    length = norm(s)[:, None]
    there = length[:, 0] > 0
    if not bool(there.any()):
        raise ValueError(f"prior must have points that differ, got {len(flat)} equal ones")
    return (s[there] / length[there]).float()[:, :, None]


def _search(A: MatrixOperator, prior: Any, seed: int, progress: bool) -> Bases:
    """Unit secants that the search of `analysis.rec.search` ends with, from the worst tangents of
    300 latents, two of three downwards."""
    z = draw_latents(prior.latent_dim, 300, seed, precision(prior))
    scan = tangents(A, prior, z)
    low = np.argsort(scan.low)[:SEARCH_STARTS]
    high = np.argsort(-scan.high)[: SEARCH_STARTS // 2]
    at = z[np.concatenate([low, high])]
    arm = torch.cat([scan.low_step[low], scan.high_step[high]])
    arm = (SEARCH_ARM * arm / arm.norm(dim=1, keepdim=True)).to(z)
    largest = torch.arange(len(at)) >= len(low)
    found = search_pairs(
        A, prior, at + arm, at - arm, largest,
        radius=prior.latent_dim**0.5 + 3, steps=SEARCH_STEPS, progress=progress,
    )  # fmt: skip
    assert found.z_second is not None
    s = generate(prior, found.z_first.to(z)).double() - generate(prior, found.z_second.to(z))
    s = s.flatten(1)[torch.isfinite(found.ratio)]
    return (s / norm(s)[:, None]).float()[:, :, None]
