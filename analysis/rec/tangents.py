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
from jaxtyping import Float

from analysis.tasks import generate, in_order, one_thread, with_progress
from npgd.gauss_newton import forward_mode, jacobian
from npgd.precision import converted

TANGENT_CHUNK = 64  # latents whose Jacobians are computed together, at most …


JACOBIANS = 2**21  # … and entries of them: in float64, 16 MB, several times over in each thread


def tangent(
    prior: Any, z: Float[torch.Tensor, "count k"], step: Float[torch.Tensor, "count k"]
) -> Float[torch.Tensor, "count ..."]:
    """J(z) step: the derivative of G along one direction at every z."""
    with forward_mode, one_thread(), torch.no_grad():
        return torch.func.jvp(prior.generate, (z,), (step,))[1].cpu()


@dataclass(frozen=True)
class TangentScan:
    """Extremes of r over the tangent directions at each latent z[i].

    `low[i]`, `high[i]` are attained by the latent directions `low_step[i]`, `high_step[i]`, scaled
    so that the tangent J @ step has unit norm. `rank[i]` is the numerical rank of J there; the
    tangents are those of its leading singular directions, so that the extremes stay one-sided.
    Where J = 0 they are nan.
    """

    z: torch.Tensor  # (count, k)
    low: np.ndarray  # (count,)
    high: np.ndarray  # (count,)
    low_step: torch.Tensor  # (count, k)
    high_step: torch.Tensor  # (count, k)
    rank: np.ndarray  # (count,)

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
) -> TangentScan:
    """Generalised eigenvalues of (J'A'AJ, J'J) at every z: the extremes of r over its tangents.

    J is computed in the precision of `z` and of the prior, the eigenvalues in float64 from
    J = QR, R = U S V': with U the leading left singular vectors, r = ||A Q U c||^2 over unit c.
    Singular values up to max(n, k) eps times the largest are taken for zero.

    Raises ValueError if a batch norm of the generator is in training mode, since G(z) would then
    depend on the other latents.
    """
    if isinstance(prior, torch.nn.Module):
        for name, part in prior.named_modules():
            if part.training and isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                raise ValueError(f"prior: {name} is in training mode; call .eval() first")
    entries = z.shape[1] * generate(prior, z[:1]).numel()
    chunks = z.split(max(1, min(TANGENT_CHUNK, JACOBIANS // entries)))
    operator = converted(operator, torch.float64, "cpu")
    results = in_order(_tangent_task, ((operator, prior, part) for part in chunks), executor)
    parts = list(with_progress(results, len(chunks), "tangents", progress))
    return TangentScan(
        z=z,
        low=np.concatenate([part[0] for part in parts]),
        high=np.concatenate([part[1] for part in parts]),
        low_step=torch.cat([part[2] for part in parts]),
        high_step=torch.cat([part[3] for part in parts]),
        rank=np.concatenate([part[4] for part in parts]),
    )


_Extremes = tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor, np.ndarray]


def _tangent_task(operator: Any, prior: Any, z: torch.Tensor) -> _Extremes:
    with one_thread():
        return _tangent_extremes(operator, prior, z)


def _tangent_extremes(operator: Any, prior: Any, z: torch.Tensor) -> _Extremes:
    columns = jacobian(prior, z).cpu()
    shape, columns = columns.shape[2:], columns.flatten(2)
    tolerance = max(columns.shape[1:]) * torch.finfo(columns.dtype).eps
    q, r = torch.linalg.qr(columns.double().transpose(1, 2))
    u, s, vh = torch.linalg.svd(r)
    rank = (s > tolerance * s[:, :1]).sum(dim=1)
    count, k = z.shape
    basis = (q @ u).transpose(1, 2).reshape(-1, *shape)
    with torch.no_grad():
        stretched = operator(basis).reshape(count, u.shape[2], -1)
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
        low[here], high[here] = values[:, 0].clamp_min(0), values[:, -1]
        low_step[here] = (back @ vectors[:, :, :1]).squeeze(2)
        high_step[here] = (back @ vectors[:, :, -1:]).squeeze(2)
    return low.numpy(), high.numpy(), low_step, high_step, rank.numpy()
