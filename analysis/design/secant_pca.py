"""Measurement matrices designed for a prior: secant PCA, and the baselines it is held against.

A matrix is asked to keep ‖A s‖² near ‖s‖² for the secants s = x₁ − x₂ of S = range(G).

- `design_secant_pca`: the leading principal directions of sampled unit secants (Raj, Li, Bresler,
  ICCV 2019, the learned A). Among matrices with m orthonormal rows it has the largest average of
  ‖A s‖²; the theorem needs the least, which it does not look at.
- `design_dct`: DCT coefficients drawn with probabilities that are adapted to the prior.
- `whiten` (of `npgd.operators`): any operator in its row-orthonormal form.

NuMax and minimax, which do look at the least, are in `analysis.design.numax` and
`analysis.design.minimax`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from analysis.memory import ACTIVE, Footprint, fitting, gigabytes, memory_of, state
from analysis.tasks import LATENT_CHUNK, draw_latents, generate
from npgd import checks, sets
from npgd.operators import MatrixOperator, SubsampledDCT
from npgd.precision import plainly, precision
from npgd.progress import bar

DENSE = 2048  # up to so many pixels the n × n second moment is formed, in float64
TILE = 2048  # points on a side of one tile of weights
CHUNK = 2048  # images generated, or secants formed, at a time, at most …
DIFFERENCES = 2**26  # … and bytes of secants
BLOCK = 32  # directions that Lanczos multiplies together
NEAR = 6e-4  # below this fraction of |x_i|² + |x_j|² a pair is taken by differences, not by Gram
EQUAL = 1e-12  # below this fraction two points count as equal and have no secant


def secant_points(
    prior: Any, points: int | None = None, seed: int = 0, rows: int = LATENT_CHUNK
) -> Float[torch.Tensor, "count channels height width"]:
    """The points between which secants are taken, on the CPU.

    Args:
        prior: has `generate` and `latent_dim` (G(z) with z ~ N(0, I)), or `sample`; or images
            (N, channels, height, width).
        points: how many; by default 4000 of a prior and all of given images.
        seed: of the samples, or of the choice among given images.
        rows: images generated at a time.

    Raises:
        TypeError: for a `prior` that is none of these.
        ValueError: for `points` out of range, or fewer than two points.
    """
    seed = checks.seed(seed)
    if isinstance(prior, torch.Tensor):
        images = checks.floating(prior, "prior").detach().cpu()
        if images.ndim != 4 or len(images) < 2:
            raise ValueError(
                "prior must be at least two images (count, channels, height, width), got shape"
                f" {tuple(images.shape)}"
            )
        checks.finite(images, "prior")
        count = len(images) if points is None else checks.integer(points, "points", minimum=2)
        if count == len(images):
            return images
        if count > len(images):
            raise ValueError(f"points must be at most {len(images)}, the images given, got {count}")
        order = torch.randperm(len(images), generator=checks.seeded(seed))
        return images[order[:count].sort().values]
    count = checks.integer(4000 if points is None else points, "points", minimum=2)
    checks.room(count, "points", count)
    checks.floating_type(precision(prior), "prior")
    if sets.generates(prior):
        z = draw_latents(prior.latent_dim, count, seed, precision(prior))
        # The device is that of the prior's weights; images are collected one chunk at a time.
        device = next(iter(_tensors(prior)), z).device
        first = generate(prior, z[:1].to(device))
        found = torch.empty(count, *first.shape[1:], dtype=first.dtype)
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            found[part] = generate(prior, z[part].to(device), rows=rows)
        return found
    if sets.samples(prior):
        generator = checks.seeded(seed)
        return prior.sample(count, generator=generator).detach().cpu()
    raise TypeError(
        "prior must have `generate`, `latent_dim` and `image_shape`, or `sample` and `image_shape`,"
        f" or be a tensor of images, got {type(prior).__name__}"
    )


def _tensors(module: Any) -> Iterator[torch.Tensor]:
    if isinstance(module, torch.nn.Module):
        yield from module.parameters()
        yield from module.buffers()


# ------------------------------------------------------------------------------------ secant PCA


@plainly
def design_secant_pca(
    prior: Any,
    m: int,
    *,
    points: int | None = None,
    pairs: int | None = None,
    unit: bool = True,
    seed: int = 0,
    tol: float = 1e-5,
    progress: bool = False,
    memory: int | str | None = None,
) -> MatrixOperator:
    """A whose rows are the m leading eigenvectors of the second moment of the secants.

    With unit secants s_ij = (x_i − x_j)/‖x_i − x_j‖ this is

        C = mean over i < j of s_ij s_ijᵀ = Xᵀ (D − W) X / (number of pairs),
        W_ij = 1/‖x_i − x_j‖²,  D = diag of the row sums of W,

    so that all N(N−1)/2 pairs cost a few products with N × N, in tiles. Without `unit`, the
    secants as they are, C = 2 Cov(x) exactly. Up to n = 2048 pixels C is formed and decomposed in
    float64; beyond it is only ever applied, in the precision of the points, by block Lanczos with
    full reorthogonalisation, until the residual ‖C u_i − λ_i u_i‖ of all m is at most tol λ₁. The
    weights then take N²/2 numbers (0.8 GB for 20,000 points in float32) beside the points.

    Args:
        prior: with `generate` and `latent_dim`, or `sample`; or images, as `secant_points` takes.
        m: rows, at most min(n, N − 1).
        points: N; by default 4000 samples of a prior, or all given images.
        pairs: so many pairs drawn at random, in place of all.
        unit: unit secants, as in the paper; otherwise long secants weigh more.
        seed: of the points and the pairs.
        tol: where Lanczos stops.
        progress: show the residual as it falls, and before how much memory the work needs.
        memory: most bytes, or "2 GB": fewer images and differences at a time, and fewer points of a
            prior where they would take more than a third of it.

    Returns:
        A row-orthonormal operator in the points' dtype, rows by falling eigenvalue, the largest
        entry of each row positive. `provenance` holds the settings, "eigenvalues" (the mean of
        ⟨s, row⟩²), "captured" (the mean of ‖A s‖² over that of ‖s‖²) and "residual", relative.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    m = checks.integer(m, "m")
    tol = checks.number(tol, "tol")
    unit, progress = checks.flag(unit, "unit"), checks.flag(progress, "progress")
    pairs = pairs if pairs is None else checks.integer(pairs, "pairs")
    points, rows = _within(prior, m, points, memory_of(memory), progress)
    images = secant_points(prior, points, seed, rows)
    shape = tuple(images.shape[1:])
    count, n = len(images), math.prod(shape)
    if m > min(n, count - 1):
        raise ValueError(
            f"m must be at most {min(n, count - 1)}, got {m}: {count} points of {n} pixels have no"
            " more independent secants"
        )
    dense = n <= DENSE
    dtype = images.dtype
    flat = _centred(images, torch.float64 if dense else dtype)
    del images
    if pairs is None:
        moment = _all_pairs(flat) if unit else _covariance(flat)
    else:
        checks.room(pairs, "pairs", pairs)
        moment = _random_pairs(flat, pairs, unit, seed)
    if not moment.trace > 0:
        raise ValueError(f"prior must have points that differ, got {count} equal ones")
    if dense:
        second = flat.T @ moment.laplacian(flat)
        values, vectors = torch.linalg.eigh((second + second.T) / 2)
        values, vectors, residual = values.flip(0)[:m], vectors.flip(1)[:, :m], 0.0
    else:

        def product(v: torch.Tensor) -> torch.Tensor:
            return (flat.T @ moment.laplacian(flat @ v.to(dtype))).double()

        values, vectors, residual = _lanczos(product, n, m, tol, seed, progress)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    rows = (vectors * largest.sign()).T.contiguous()
    operator = MatrixOperator(rows.to(dtype), shape)
    operator.provenance = {
        "method": "secant-pca",
        "prior": described(prior),
        "m": m,
        "points": count,
        "secants": moment.n_pairs,
        "pairs": "all" if pairs is None else "random",
        "unit": unit,
        "seed": seed,
        "eigenvalues": (values.clamp_min(0) / moment.n_pairs).tolist(),
        "captured": float(values.sum()) / moment.trace,
        "residual": residual,
    }
    return operator


def _within(
    prior: Any, m: int, points: int | None, bound: int | None, show: bool
) -> tuple[int | None, int]:
    """How many points, and how many are generated at a time, within a bound; what they need is
    stated."""
    size, rows, working = torch.float32.itemsize, LATENT_CHUNK, 0.0
    if isinstance(prior, torch.Tensor):
        count = len(prior) if points is None else points
        n, size = prior[:1].numel(), prior.element_size()
    elif sets.generates(prior):
        count = 4000 if points is None else checks.integer(points, "points", minimum=2)
        n, dtype = math.prod(prior.image_shape), precision(prior)
        device = next(iter(_tensors(prior)), torch.empty(0)).device
        size = dtype.itemsize
        z = torch.zeros(1, prior.latent_dim, dtype=dtype, device=device)
        one = Footprint.of(prior.generate, z)
        if bound is not None:
            left = bound - _working(m, n)
            if left < 4 * n * size:
                raise ValueError(
                    f"memory must be at least {gigabytes(_working(m, n) + 4 * n * size)}, which"
                    f" {m} rows of {n} pixels take, got {gigabytes(bound)}"
                )
            points = count = max(2, fitting(left, 2 * n * size, count))
            rows = one.passing(bound / 2, LATENT_CHUNK)
        working = ACTIVE * min(rows, count) * one.largest
    else:
        return points, rows
    need = count * n * size + max(working, count * n * size + _working(m, n))
    state("design_secant_pca", need, bound, show)
    return points, rows


def _working(m: int, n: int) -> float:
    """Bytes beside the points: what Lanczos keeps, or C itself, and differences."""
    return (3 * 3 * m * n * 8 if n > DENSE else 4 * n * n * 8) + 3 * DIFFERENCES


def _chunk(flat: torch.Tensor) -> int:
    """Secants formed at a time."""
    return fitting(DIFFERENCES, flat.shape[1] * flat.element_size(), CHUNK)


_Pairs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # i, j, weight


@dataclass(frozen=True)
class _Moment:
    """Σ w_ij (x_i − x_j)(x_i − x_j)ᵀ over pairs, as Xᵀ L X with the graph Laplacian L."""

    laplacian: Callable[[torch.Tensor], torch.Tensor]  # Y (N, b) to L Y
    trace: float  # Σ w_ij ‖x_i − x_j‖²
    n_pairs: int


def _centred(images: torch.Tensor, dtype: torch.dtype) -> Float[torch.Tensor, "N n"]:
    """Points minus their mean, flat: secants do not see the mean, and the Gram form loses less."""
    mean = images.mean(dim=0, dtype=torch.float64).flatten()
    flat = torch.empty(len(images), mean.numel(), dtype=dtype)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK].flatten(1).to(dtype)
        torch.sub(part, mean.to(dtype), out=flat[start : start + CHUNK])
    return flat


def _squared_norms(flat: torch.Tensor) -> Float[torch.Tensor, " N"]:
    # Not flat.square().sum(1), which would hold a second copy of the points.
    lengths: torch.Tensor = torch.linalg.vector_norm(flat, dim=1)
    return lengths.square()


def _covariance(flat: torch.Tensor) -> _Moment:
    """All pairs with weight 1: L = N I − 1 1ᵀ, and the mean is gone already."""
    count = len(flat)
    trace = count * float(_squared_norms(flat).sum(dtype=torch.float64))
    return _Moment(lambda y: count * y, trace, count * (count - 1) // 2)


def _all_pairs(flat: torch.Tensor) -> _Moment:
    """All pairs with weight 1/‖x_i − x_j‖², equal points left out."""
    count = len(flat)
    panels = [slice(i, min(i + TILE, count)) for i in range(0, count, TILE)]
    norms = _squared_norms(flat)
    tiles: list[tuple[slice, slice, torch.Tensor]] = []
    apart: list[_Pairs] = []
    degrees = flat.new_zeros(count, 1)
    seen = 0
    for rows in panels:
        for columns in panels:
            if columns.start < rows.start:
                continue
            weights, near = _weights(flat, norms, rows, columns)
            tiles.append((rows, columns, weights))
            apart.append(near)
            degrees[rows] += weights.sum(1, keepdim=True)
            if rows != columns:
                degrees[columns] += weights.sum(0)[:, None]
            here = int(torch.count_nonzero(weights))
            seen += len(near[0]) + (here // 2 if rows == columns else here)
    i, j, near_weights = (torch.cat(part) for part in zip(*apart, strict=True))

    def laplacian(y: torch.Tensor) -> torch.Tensor:
        out = y * degrees
        for rows, columns, weights in tiles:
            out[rows] -= weights @ y[columns]
            if rows != columns:
                out[columns] -= weights.T @ y[rows]
        return _add_pairs(out, y, (i, j, near_weights))

    return _Moment(laplacian, float(seen), seen)


def _weights(
    flat: torch.Tensor, norms: torch.Tensor, rows: slice, columns: slice
) -> tuple[Float[torch.Tensor, "rows columns"], _Pairs]:
    """1/‖x_i − x_j‖² of one tile from the Gram matrix, 0 where i = j or the points are near; and
    the near pairs, i < j, from their differences, without those that are equal.

    The Gram form, and L as a difference of two large terms, lose ε |x|²/‖x_i − x_j‖² of a pair.
    """
    size = norms[rows, None] + norms[columns]
    squared = torch.addmm(size, flat[rows], flat[columns].T, alpha=-2)
    close = squared <= NEAR * size
    i, j = close.nonzero(as_tuple=True)
    squared[i, j] = torch.inf
    i, j = i + rows.start, j + columns.start
    i, j = i[i < j], j[i < j]
    return squared.reciprocal_(), _unequal(flat, norms, i, j, unit=True)


def _random_pairs(flat: torch.Tensor, pairs: int, unit: bool, seed: int) -> _Moment:
    """Pairs i ≠ j drawn uniformly, with replacement."""
    count = len(flat)
    generator = checks.seeded(seed)
    i = torch.randint(count, (pairs,), generator=generator)
    j = (i + torch.randint(1, count, (pairs,), generator=generator)) % count
    chosen = _unequal(flat, _squared_norms(flat), i, j, unit)
    used = len(chosen[0])
    if unit:
        trace = float(used)
    else:
        parts = zip(*(torch.split(part, _chunk(flat)) for part in chosen), strict=True)
        trace = sum(float((flat[a] - flat[b]).square().sum()) for a, b, _ in parts)
    return _Moment(lambda y: _add_pairs(torch.zeros_like(y), y, chosen), trace, used)


def _unequal(
    flat: torch.Tensor, norms: torch.Tensor, i: torch.Tensor, j: torch.Tensor, unit: bool
) -> _Pairs:
    """The pairs that have a secant, with weight 1/‖x_i − x_j‖² if `unit`, else 1."""
    size = _chunk(flat)
    parts = zip(torch.split(i, size), torch.split(j, size), strict=True)
    squared = torch.cat(
        [norms.new_empty(0), *((flat[a] - flat[b]).square().sum(1) for a, b in parts)]
    )
    there = squared > EQUAL * (norms[i] + norms[j])
    weights = squared[there].reciprocal() if unit else torch.ones_like(squared[there])
    return i[there], j[there], weights


def _add_pairs(out: torch.Tensor, y: torch.Tensor, pairs: _Pairs) -> torch.Tensor:
    """out + L y for the Laplacian of single pairs, a few thousand differences at a time."""
    for a, b, weights in zip(*(torch.split(part, CHUNK) for part in pairs), strict=True):
        weighted = weights[:, None] * (y[a] - y[b])
        out.index_add_(0, a, weighted).index_add_(0, b, weighted, alpha=-1)
    return out


def _lanczos(
    product: Callable[[torch.Tensor], torch.Tensor],
    n: int,
    m: int,
    tol: float,
    seed: int,
    progress: bool,
) -> tuple[Float[torch.Tensor, " m"], Float[torch.Tensor, "n m"], float]:
    """The m leading eigenpairs of a symmetric n × n operator, and their largest residual / λ₁.

    Block Lanczos with full reorthogonalisation (Golub, Underwood, 1977). With C Q = Q T + V R Eᵀ,
    E the last block of the identity, the residual of a Ritz vector Q u is ‖R Eᵀ u‖.
    """
    generator = checks.seeded(seed)
    start = torch.randn(n, min(BLOCK, n), generator=generator, dtype=torch.float64)
    block = torch.linalg.qr(start)[0]
    basis = block.new_empty(n, 0)
    projected = block.new_empty(0, 0)
    with bar(None, "secant PCA", progress) as shown:
        while True:
            image = product(block)
            basis = torch.cat([basis, block], dim=1)
            size, width = basis.shape[1], block.shape[1]
            column = basis.T @ image
            image = image - basis @ column
            again = basis.T @ image
            image, column = image - basis @ again, column + again
            grown = block.new_zeros(size, size)
            grown[: size - width, : size - width] = projected
            grown[:, -width:] = column
            grown[-width:, :] = column.T
            grown[-width:, -width:] = (column[-width:] + column[-width:].T) / 2
            projected = grown
            block, rest = torch.linalg.qr(image)
            if size >= m:
                values, vectors = torch.linalg.eigh(projected)
                values, vectors = values.flip(0)[:m], vectors.flip(1)[:, :m]
                residual = float((rest @ vectors[-width:]).norm(dim=0).max() / values[0])
                shown.reach(size, f"residual {residual:.1e}, {tol:g} to reach")
                if residual <= tol or size == n:
                    return values, torch.linalg.qr(basis @ vectors)[0], residual
            # Of an image that is nearly zero QR keeps rounding errors: drop what Q holds already.
            block = block[:, : n - size]
            block = torch.linalg.qr(block - basis @ (basis.T @ block))[0]


def described(prior: Any) -> str:
    """A prior's name in the provenance of a design."""
    if isinstance(prior, torch.Tensor):
        return f"{len(prior)} images"
    return str(getattr(prior, "name", type(prior).__name__))


# ----------------------------------------------------------------------------- subsampled Fourier


def local_coherence(
    prior: Any, *, points: int | None = None, pairs: int = 20_000, seed: int = 0
) -> Float[torch.Tensor, " n"]:
    """α_j = sup |⟨d_j, s⟩| over unit secants s, for every row d_j of the orthonormal DCT.

    The supremum is taken over `pairs` random secants between points as `secant_points` gives them,
    so that each α_j is estimated from below.
    """
    pairs = checks.integer(pairs, "pairs")
    checks.room(pairs, "pairs", pairs)
    images = secant_points(prior, points, seed)
    transform = SubsampledDCT(
        images.shape[1:], index=torch.arange(images[0].numel()), dtype=images.dtype
    )
    generator = checks.seeded(seed)
    i = torch.randint(len(images), (pairs,), generator=generator)
    j = (i + torch.randint(1, len(images), (pairs,), generator=generator)) % len(images)
    largest = images.new_zeros(transform.n)
    for a, b in zip(torch.split(i, CHUNK), torch.split(j, CHUNK), strict=True):
        coefficients = transform(images[a] - images[b]).square()
        energy = coefficients.sum(1, keepdim=True)
        shares = coefficients / energy.where(energy > 0, torch.inf)
        largest = torch.maximum(largest, shares.amax(0))
    return largest.sqrt()


@plainly
def design_dct(
    prior: Any, m: int, *, points: int | None = None, pairs: int = 20_000, seed: int = 0
) -> SubsampledDCT:
    """m DCT coefficients, coefficient j drawn with probability ∝ α_j² among those that are left.

    α is the local coherence of the DCT with respect to the secants of S, estimated by
    `local_coherence`. Berk, Brugiapaglia, Joshi, Plan, Scott and Yilmaz ("A coherence parameter
    characterizing generative compressed sensing with Fourier measurements", 2022) bound the
    number of uniformly drawn coefficients by n max α_j²; adapted probabilities ∝ α_j² turn that
    into Σ α_j² (Berk, Brugiapaglia, Plan, Scott, Sheng, Yilmaz, "Model-adapted Fourier sampling
    for generative compressed sensing", 2023). They draw with replacement and divide rows by
    sqrt(m p_j); here rows are all different and not scaled, so that A Aᵀ = I.

    Uniformly drawn coefficients are `npgd.SubsampledDCT(image_shape, m, seed)`.

    Raises:
        TypeError, ValueError: as `secant_points`; and for an m beyond the coefficients that some
            secant has.
    """
    m = checks.integer(m, "m")
    coherence = local_coherence(prior, points=points, pairs=pairs, seed=seed)
    shape = tuple(prior.shape[1:]) if isinstance(prior, torch.Tensor) else prior.image_shape
    operator = SubsampledDCT(
        shape, m, seed, weights=coherence.double().square(), dtype=coherence.dtype
    )
    operator.provenance = {
        "method": "dct",
        "prior": described(prior),
        "m": m,
        "secants": pairs,
        "seed": seed,
        "sum of squared coherence": float(coherence.double().square().sum()),
        "n times largest squared coherence": float(operator.n * coherence.max() ** 2),
    }
    return operator
