"""Leading eigenvalues: of a whole derivative, or by Arnoldi's iteration on products with it."""

from __future__ import annotations

import math
from functools import partial

import scipy.linalg
import scipy.optimize
import torch
from jaxtyping import Bool, Complex, Float

from analysis.local.derivative import Iteration, LatentNPGD, Points
from npgd.images import Latents, PerImage, norm

DENSE = 400
"""Up to so many dimensions the whole derivative is computed; beyond, products with it:"""
ARNOLDI = 200
"""at most so many,"""
RITZ = 1e-6
"""or until the relative residual of the leading eigenvalue is below this."""


def jacobian_of(T: Iteration, z: Points) -> Float[torch.Tensor, "batch d d"]:
    """DT of every row in float64: entry (i, j) is the derivative of coordinate i along j."""
    return T.push(z, _units(z)).flatten(2).permute(1, 2, 0).double().cpu()


def _units(z: Points) -> torch.Tensor:
    """The coordinate directions, the same for every row: (d, *z.shape)."""
    dims = z[0].numel()
    eye = torch.eye(dims, dtype=z.dtype, device=z.device)
    return eye.reshape(dims, 1, *z.shape[1:]).expand(dims, *z.shape)


def leading(matrices: Float[torch.Tensor, "batch d d"]) -> Complex[torch.Tensor, " batch"]:
    """The eigenvalue of the largest modulus, above the real line; NaN of a matrix of NaN."""
    good = matrices.isfinite().flatten(1).all(1)
    out = torch.full((len(matrices),), complex(math.nan, math.nan), dtype=torch.complex128)
    if bool(good.any()):
        values = torch.linalg.eigvals(matrices[good])
        out[good] = _above(values.gather(1, values.abs().argmax(1, keepdim=True))[:, 0])
    return out


def _above(values: torch.Tensor) -> torch.Tensor:
    return torch.complex(values.real, values.imag.abs())


def arnoldi(
    T: Iteration, z: Points, found: Bool[torch.Tensor, " batch"]
) -> tuple[Complex[torch.Tensor, " batch"], PerImage]:
    """Leading Ritz values of DT and their relative residuals, all rows at once (Arnoldi 1951)."""
    generator = torch.Generator().manual_seed(0)
    flat = z.flatten(1)
    v = torch.randn(flat.shape, generator=generator, dtype=torch.float64).to(flat)
    most = min(ARNOLDI, flat.shape[1])
    basis = (v / norm(v)[:, None])[:, None]
    H = torch.zeros(len(z), most + 1, most, dtype=torch.float64)
    for j in range(most):
        v = T.push(z, basis[:, j].reshape(z.shape)[None])[0].flatten(1)
        for _ in range(2):  # twice is enough
            along = (basis @ v[..., None])[..., 0]
            v = v - (basis.transpose(1, 2) @ along[..., None])[..., 0]
            H[:, : j + 1, j] += along.double().cpu()
        length = norm(v)
        H[:, j + 1, j] = length.double().cpu()
        floor = 100 * torch.finfo(v.dtype).eps
        over = length <= floor * (1 + H[:, : j + 1, j].norm(dim=1).to(length))
        v = torch.where(over[:, None], 0.0, v / length.clamp_min(1e-300)[:, None])
        H[:, j + 1, j] = torch.where(over.cpu(), 0.0, H[:, j + 1, j])
        basis = torch.cat([basis, v[:, None]], 1)
        if j % 10 == 9 or j == most - 1:
            value, error = _ritz(H[:, : j + 2, : j + 1], found.cpu())
            if bool((error[found.cpu()] <= RITZ).all()):
                break
    return value, error


def _ritz(H: torch.Tensor, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    value = torch.full((len(H),), complex(math.nan, math.nan), dtype=torch.complex128)
    error = torch.full((len(H),), math.nan, dtype=torch.float64)
    for i in found.nonzero().flatten().tolist():
        if not bool(H[i].isfinite().all()):
            continue
        values, vectors = torch.linalg.eig(H[i, :-1])
        lead = int(values.abs().argmax())
        value[i] = values[lead]
        left = abs(complex(H[i, -1, -1] * vectors[-1, lead]))
        error[i] = left / max(abs(complex(values[lead])), 1e-300) if left else 0.0
    return _above(value), error


def best_step(
    T: LatentNPGD, z: Latents, found: Bool[torch.Tensor, " batch"]
) -> tuple[PerImage, PerImage]:
    """The η of the least spectral radius of C_0 − ηC_1, C_0 = DG† J and C_1 = DG† AᵀA J."""
    still, gain = (part.permute(1, 2, 0).cpu().numpy() for part in T.parts(z, _units(z)))
    best = torch.full((len(z), 2), math.nan, dtype=torch.float64)
    for i in found.nonzero().flatten().tolist():

        def radius(log_step: float, i: int) -> float:
            values = scipy.linalg.eigvals(still[i] - math.exp(log_step) * gain[i])
            return float(abs(values).max())

        here = math.log(T.step_size)
        grid = [here + 0.25 * j for j in range(-12, 9)]
        start = min(grid, key=partial(radius, i=i))
        end = scipy.optimize.minimize_scalar(
            radius, bounds=(start - 0.25, start + 0.25), args=(i,), method="bounded"
        )
        best[i] = torch.tensor([math.exp(float(end.x)), float(end.fun)])
    return best[:, 0], best[:, 1]
