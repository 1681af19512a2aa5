"""Coefficients of the two-dimensional discrete cosine transform."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator


class SubsampledDCT(LinearOperator):
    """m coefficients of the orthonormal two-dimensional DCT-II of every channel, so A Aᵀ = I.

    Coefficient (c, u, v) of x is Σ_ij C_ui C_vj x_cij with C the orthonormal DCT-II matrix; the two
    products cost n (height + width) operations, and no m × n matrix is made. Give `index`, or `m`
    and a seed to draw the coefficients, all different.

    Args:
        image_shape: (channels, height, width).
        m: number of coefficients, at most n.
        seed: of the draw.
        weights: (n,), not negative, at least m of them positive: one coefficient after another is
            drawn with probability ∝ its weight among those that are left; by default uniformly.
        index: (m,), the coefficients themselves, flat in channel, row, column order.
        dtype: of the two matrices.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    index: Int[torch.Tensor, " m"]
    vertical: Float[torch.Tensor, "height height"]
    horizontal: Float[torch.Tensor, "width width"]

    def __init__(
        self,
        image_shape: Sequence[int],
        m: int | None = None,
        seed: int = 0,
        weights: Float[torch.Tensor, " n"] | None = None,
        index: Int[torch.Tensor, " m"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = checks.image_shape(image_shape)
        n = math.prod(shape)
        if (m is None) == (index is None):
            got = "neither" if m is None else "both"
            raise ValueError(f"one of m and index must be given, got {got}")
        if index is None:
            index = _drawn(n, checks.integer(m, "m"), seed, weights)
        elif (
            not isinstance(index, torch.Tensor)
            or index.dtype != torch.int64
            or index.layout != torch.strided
            or index.is_meta
            or index.ndim != 1
            or not 1 <= len(index) == len(set(index.tolist()))
            or not 0 <= int(index.min()) <= int(index.max()) < n
        ):
            raise ValueError(
                f"index must be a tensor of different int64 numbers from 0 to {n - 1}, got"
                f" {checks.shown(index)}"
            )
        super().__init__(shape, len(index))
        checks.floating_type(dtype)
        self.register_buffer("index", index.detach().clone())
        self.register_buffer("vertical", _dct_matrix(shape[1]).to(dtype))
        self.register_buffer("horizontal", _dct_matrix(shape[2]).to(dtype))

    def _forward(self, x: Images) -> Measurements:
        coefficients = self.vertical @ x @ self.horizontal.T
        return coefficients.flatten(1).index_select(1, self.index)

    def _adjoint(self, y: Measurements) -> Images:
        coefficients = y.new_zeros(y.shape[0], self.n).index_copy_(1, self.index, y)
        return self.vertical.T @ coefficients.reshape(-1, *self.image_shape) @ self.horizontal

    @property
    def row_orthonormal(self) -> bool:
        return True

    def norm(self) -> float:
        return 1.0


def _drawn(
    n: int, m: int, seed: int, weights: Float[torch.Tensor, " n"] | None
) -> Int[torch.Tensor, " m"]:
    """m of n without replacement, one after another with probability ∝ weight, in order.

    The m largest of log weight + Gumbel noise are such a draw (Efraimidis and Spirakis, 2006).
    """
    if weights is None:
        weights = torch.ones(n, dtype=torch.float64)
    checks.finite(checks.floating(weights, "weights"), "weights")
    if tuple(weights.shape) != (n,):
        raise ValueError(f"weights must have shape ({n},), got {tuple(weights.shape)}")
    if float(weights.min()) < 0:
        raise ValueError(f"weights must not be negative, got least {float(weights.min()):.4g}")
    possible = int((weights > 0).sum())
    if m > possible:
        raise ValueError(f"m must be at most {possible}, the coefficients there are, got {m}")
    generator = checks.seeded(seed)
    uniform = torch.rand(n, generator=generator, dtype=torch.float64).clamp_min_(2.0**-54)
    keys = weights.detach().cpu().double().log() - (-uniform.log()).log()
    return keys.topk(m).indices.sort().values


def _dct_matrix(side: int) -> Float[torch.Tensor, "side side"]:
    """C_ui = sqrt((2 − [u = 0]) / side) cos(π (2i + 1) u / (2 side)), orthonormal."""
    u = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * u + 1) * u[:, None] / (2 * side)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix
