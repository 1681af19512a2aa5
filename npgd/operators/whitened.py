"""Operators in row-orthonormal form: (A Aᵀ)^(-1/2) A."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator, MatrixOperator
from npgd.operators.pixels import SuperResolution
from npgd.precision import copied


class Whitened(LinearOperator):
    """(A Aᵀ)^(-1/2) A, the row-orthonormal form of A; made by `whiten`.

    `whiten(y)` gives the measurements that go with it, (A Aᵀ)^(-1/2) y, so that

        W = npgd.whiten(A);    npgd.recover(W, W.whiten(y), …)

    recovers from measurements y of A.
    """

    whitening: torch.Tensor
    """(A Aᵀ)^(-1/2), (m, m); or () for a multiple of the identity."""
    condition: float
    """‖A‖ over the least singular value of A, which rounding errors are multiplied by."""

    def __init__(self, operator: LinearOperator, whitening: torch.Tensor, condition: float) -> None:
        if not isinstance(operator, LinearOperator):
            raise TypeError(f"operator must be a LinearOperator, got {checks.shown(operator)}")
        m = operator.m
        checks.finite(checks.floating(whitening, "whitening"), "whitening")
        if tuple(whitening.shape) not in ((), (m, m)):
            raise ValueError(
                f"whitening must have shape ({m}, {m}) or (), got {tuple(whitening.shape)}"
            )
        super().__init__(operator.image_shape, m)
        self.operator = operator
        self.condition = checks.number(condition, "condition")
        self.register_buffer("whitening", whitening)

    def whiten(self, y: Measurements) -> Measurements:
        """(A Aᵀ)^(-1/2) y for measurements y of A."""
        checks.measurements(y, self.m)
        whitening = self.whitening.to(y)
        return y @ whitening.T if whitening.ndim else y * whitening

    def _asks_for(self) -> tuple[torch.dtype, torch.device] | None:
        # The whitening is brought to the measurements' precision.
        return self.operator._asks_for()

    def _forward(self, x: Images) -> Measurements:
        return self.whiten(self.operator(x))

    def _adjoint(self, y: Measurements) -> Images:
        whitening = self.whitening.to(y)
        return self.operator.adjoint(y @ whitening if whitening.ndim else y * whitening)

    @property
    def row_orthonormal(self) -> bool:
        # Rounding is multiplied by the condition; sixteen epsilons, as for a matrix.
        return self.condition <= 16

    def _norm(self) -> float:
        return 1.0 if self.row_orthonormal else super()._norm()


class WhitenedMatrix(Whitened, MatrixOperator):
    """`Whitened` for a matrix: (M Mᵀ)^(-1/2) M itself, one product where `Whitened` needs two."""

    def __init__(
        self, matrix: torch.Tensor, image_shape: Sequence[int], whitening: torch.Tensor,
        condition: float,
    ) -> None:  # fmt: skip
        MatrixOperator.__init__(self, matrix, image_shape)
        self.condition = condition
        self.register_buffer("whitening", whitening)

    _asks_for = MatrixOperator._asks_for
    _forward = MatrixOperator._forward
    _adjoint = MatrixOperator._adjoint
    row_orthonormal = MatrixOperator.row_orthonormal


@torch.no_grad()
def whiten(A: LinearOperator) -> Whitened:
    """A in its row-orthonormal form (A Aᵀ)^(-1/2) A, whose `whiten(y)` transforms measurements.

    With it ‖A‖ = 1, so that β ≤ 1 and the step 1/β are certain on every set. Both forms see the
    same: the row space is that of A, and y is transformed without loss. But the fit is weighed
    anew, and so is noise: v ~ N(0, σ²I) becomes N(0, σ²(A Aᵀ)⁻¹), amplified by 1/σ_i in the i-th
    singular direction of A, by up to 1/σ_min(A).

    A Aᵀ is known for `SuperResolution` (I/factor²) and operators that are row-orthonormal (I).
    For others it is formed, m × m in float64, by m products with A (in float64 where A can be
    converted), and decomposed into eigenvalues. A matrix becomes a matrix, and Newton steps remove
    what the squared condition number cost; anything else stays matrix-free.

    Raises:
        TypeError: A is no LinearOperator.
        ValueError: A Aᵀ is singular to the precision of A; the message says which rank it has.
            Singular values up to the largest times max(m, n) machine epsilons of A's dtype, or
            times sqrt(m ε) of float64 (about 1e-7), count as zero. Or A is so large or small that
            A Aᵀ is no number.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(
            f"A must be a LinearOperator, got {type(A).__name__}; wrap it with npgd.as_operator"
        )
    dtype, device = A._kind()
    result: Whitened
    if isinstance(A, SuperResolution) or A.row_orthonormal:
        scale = A.factor if isinstance(A, SuperResolution) else 1.0
        result = Whitened(A, torch.tensor(float(scale), dtype=dtype, device=device), 1.0)
    else:
        matrix = A.matrix.double() if isinstance(A, MatrixOperator) else None
        gram = matrix @ matrix.T if matrix is not None else _gram(A)
        if not bool(gram.isfinite().all() & gram.any()):
            worked = torch.float64 if checks.kind(A) is not None else dtype
            checks.squares(torch.tensor(A.norm(), dtype=worked), "A")
        values, vectors = torch.linalg.eigh(gram)
        least = max((max(A.m, A.n) * torch.finfo(dtype).eps) ** 2, A.m * 2.0**-52) * values[-1]
        rank = int((values > least).sum())
        if rank < A.m:
            raise ValueError(
                f"A must have independent rows, got rank {rank} at m = {A.m}; drop measurements"
                " that the others determine"
            )
        condition = math.sqrt(float(values[-1] / values[0]))
        whitening = (vectors / values.sqrt()) @ vectors.T
        if matrix is not None:
            white = whitening @ matrix
            for _ in range(5):
                # W Wᵀ is I but for rounding times condition²; Newton's step squares what is left.
                rest = torch.eye(A.m, dtype=white.dtype, device=device) - white @ white.T
                if float(rest.abs().max()) <= 4 * 2.0**-52:
                    break
                whitening = whitening + 0.5 * rest @ whitening
                white = white + 0.5 * rest @ white
            result = WhitenedMatrix(white.to(dtype), A.image_shape, whitening.to(dtype), condition)
        else:
            result = Whitened(A, whitening.to(device, dtype), condition)
    result.provenance = {"method": "whiten", "of": A.provenance or {"method": str(A)}}
    return result


def _gram(A: LinearOperator) -> Float[torch.Tensor, "m m"]:
    """A Aᵀ in float64, a few hundred columns at a time."""
    if checks.kind(A) is not None:
        A = copied(A).double()
    dtype, device = A._kind()
    eye = torch.eye(A.m, dtype=dtype, device=device)
    gram = torch.cat([A(A.adjoint(rows)).double() for rows in torch.split(eye, 256)])
    return (gram + gram.T) / 2
