"""Damped Gauss–Newton steps over latents: min_z ‖A G(z) − y‖² + λ‖z‖².

With B = A J, J the Jacobian of G at z, a step solves

    (B Bᵀ + λ I + μ d I) Δ = Bᵀ(y − A G(z)) − λ z,    d = mean diagonal of BᵀB + λ I,

for several dampings μ at once (Levenberg 1944, Marquardt 1963, who adapt one μ from step to step)
and keeps, for each image, the one with the least objective, or z itself where none lowers it: the
objective never rises. J costs k directional derivatives of G, all images at once, so a step costs
about as much as 2k passes of G. This is what NPGD does without; it pays for itself at its end.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import torch
from jaxtyping import Float

from npgd import checks
from npgd.images import Images, Latents, Measurements
from npgd.operators import LinearOperator
from npgd.precision import plainly
from npgd.sets import GENERATED, Generated, needs

DAMPINGS = (0.0, 1e-2, 1e-1, 1.0, 10.0)  # μ
ENTRIES = 2**24  # of the measured Jacobians held at a time, to bound memory
ROWS = 4096  # their columns
DIRECTIONS = 16  # differentiated along at a time

# torch keeps the nesting level of forward-mode differentiation in process-wide state.
forward_mode = threading.RLock()


@plainly
def jacobian(
    prior: Generated, z: Float[torch.Tensor, "count k"], directions: int = DIRECTIONS
) -> Float[torch.Tensor, "count k channels height width"]:
    """The columns ∂G/∂z_j at every z, by forward mode for the whole batch at once.

    G treats the samples of a batch one by one, so one directional derivative along e_j, the same
    for every sample, gives column j of every Jacobian; the k directions are batched by vmap, 16 at
    a time (or as many as `directions` says), or taken in turn for modules that vmap does not know.
    """
    directions = checks.integer(directions, "directions")
    _check_latents(prior, z, least=0)
    if len(z) == 0:
        return z.new_empty(0, z.shape[1], *prior.image_shape)
    return _columns(prior, z, lambda image: image, directions)


def _columns(
    prior: Generated,
    z: Latents,
    measured: Callable[[Images], torch.Tensor],
    size: int = DIRECTIONS,
) -> torch.Tensor:
    """The measured columns of every Jacobian, (count, k, …), without those of images."""
    directions = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)

    def along(direction: torch.Tensor) -> Images:
        image: Images = torch.func.jvp(prior.generate, (z,), (direction.expand_as(z),))[1]
        return image

    def chunk(part: torch.Tensor) -> torch.Tensor:
        try:
            images = torch.func.vmap(along)(part)
        except RuntimeError:
            images = torch.stack([along(direction) for direction in part])
        columns = measured(images.flatten(0, 1))
        return columns.reshape(len(part), len(z), *columns.shape[1:])

    with forward_mode, torch.no_grad():
        columns = torch.empty(0)
        for i, part in enumerate(torch.split(directions, size)):
            made = chunk(part)
            if i == 0:  # filled in place: all chunks and their union would be twice as much
                columns = made.new_empty(z.shape[1], *made.shape[1:])
            columns[i * size : i * size + len(made)] = made
    return columns.transpose(0, 1)


@torch.no_grad()
def gauss_newton_step(
    prior: Generated,
    z: Latents,
    y: Measurements,
    A: LinearOperator | None = None,
    penalty: float = 0.0,
) -> tuple[Latents, Images]:
    """One step from z, and its image G(z).

    Args:
        prior: G.
        z: where to step from.
        y: measurements; without A, images as rows of pixels.
        A: the operator; None is the identity, for the projection min_z ‖w − G(z)‖².
        penalty: λ ≥ 0.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_latents(prior, z, least=1)
    penalty = checks.number(penalty, "penalty", zero=True)
    if A is not None and not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator or None, got {checks.shown(A)}")
    m = math.prod(prior.image_shape) if A is None else A.m
    checks.squares(checks.finite(checks.measurements(y, m), "y"), "y")
    checks.same_kind(y, prior, "y", "prior")
    if len(y) != len(z):
        raise ValueError(f"y must hold {len(z)} rows as z does, got {len(y)}")
    size = max(1, min(ROWS, ENTRIES // m) // z.shape[1])
    parts = [
        _step(prior, latents, targets, A, penalty)
        for latents, targets in zip(torch.split(z, size), torch.split(y, size), strict=True)
    ]
    return torch.cat([z for z, _ in parts]), torch.cat([x for _, x in parts])


def _check_latents(prior: Generated, z: Latents, least: int) -> None:
    needs(prior, *GENERATED, what="a Jacobian")
    checks.finite(checks.latents(z, prior.latent_dim, least=least), "z")
    checks.same_kind(z, prior, "z", "prior")


def _step(
    prior: Generated, z: Latents, y: Measurements, A: LinearOperator | None, penalty: float
) -> tuple[Latents, Images]:
    batch, k = z.shape

    def measured(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) if A is None else A(images)

    columns = _columns(prior, z, measured).double()
    x = prior.generate(z)
    residual = (y - measured(x)).double()
    eye = torch.eye(k, dtype=torch.float64, device=z.device)
    normal = columns @ columns.transpose(1, 2) + penalty * eye
    slope = (columns @ residual[:, :, None]).squeeze(2) - penalty * z.double()
    # The floor keeps the undamped system solvable where the measured Jacobian loses rank.
    scale = normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float64).tiny)
    factors = torch.tensor(DAMPINGS, dtype=torch.float64, device=z.device).clamp_min(1e-9)
    systems = normal + (factors[:, None] * scale)[..., None, None] * eye
    steps = torch.linalg.solve(systems, slope.expand(len(factors), -1, -1))

    candidates = torch.cat([z[None], z + steps.to(z.dtype)])
    tried = prior.generate(candidates[1:].flatten(0, 1))
    images = torch.cat([x, tried]).reshape(*candidates.shape[:2], *x.shape[1:])
    misfit = measured(tried).reshape(*steps.shape[:2], -1) - y
    objective = torch.cat([residual.square().sum(1)[None], misfit.double().square().sum(2)])
    objective = objective + penalty * candidates.double().square().sum(2)
    winner = torch.nan_to_num(objective, nan=torch.inf).argmin(0)
    index = torch.arange(batch, device=z.device)
    return candidates[winner, index], images[winner, index]
