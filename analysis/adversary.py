"""Explicit matrices, sets and starts on which NPGD does as badly as it can."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from npgd.showing import Shown

if TYPE_CHECKING:
    import torch

    from npgd import Solution

Matrix = Float[np.ndarray, "rows columns"]


@dataclass(frozen=True, eq=False)
class Instance(Shown):
    """A matrix A, a finite set S and measurements y on which NPGD does as badly as it can."""

    matrix: Matrix
    """A, (m, n)."""
    points: Matrix
    """S, one point a row, (n_points, n): x* = 0, then two points that only pin the restricted
    eigenvalue constants where the others leave them inside [α, β], and last the path x_0 … x_N."""
    y: Float[np.ndarray, " m"]
    """A x* + v, (m,)."""
    n_iter: int
    step_size: float
    delta: float
    promised: float
    """F_N of the Gram matrices it was factored from (‖x_N − x*‖² for "distance")."""
    measure: str = "objective"
    """What `promised` is: "objective" or "distance"."""

    @classmethod
    def from_grams(
        cls,
        gram: Matrix,
        image_gram: Matrix,
        *,
        alpha: float,
        beta: float,
        step_size: float,
        delta: float,
        measure: str,
    ) -> Instance:
        """Vectors and a matrix behind Gram matrices G ≻ 0 and H (with a last row for v, or none).

        S is completed so that its restricted eigenvalue constants are α and β exactly: each gets
        a direction of its own that A stretches by it, and a point p there. Every pair (p, q) then
        stretches by an average of that constant and a ratio inside [α, β]. w_n has no component
        in the new directions and ‖p‖² > δ, so p is never chosen.
        """
        matrix, path = _vectors(gram, image_gram)
        (rows, columns), size = matrix.shape, len(gram)
        v = _root(image_gram)[-1] if len(image_gram) > size else np.zeros(rows)
        wide = np.zeros((rows + 2, columns + 2))
        wide[:rows, :columns] = matrix
        wide[[rows, rows + 1], [columns, columns + 1]] = math.sqrt(alpha), math.sqrt(beta)
        points = np.zeros((size + 3, columns + 2))
        far = 2 * math.sqrt(max(delta, float((path**2).sum(1).max())))
        points[[1, 2], [columns, columns + 1]] = far
        points[3:, :columns] = path
        last = _root(image_gram)[size - 1] - v
        return cls(
            matrix=wide,
            points=points,
            y=np.concatenate([v, np.zeros(2)]),
            n_iter=size - 1,
            step_size=step_size,
            delta=delta,
            promised=float(gram[-1, -1] if measure == "distance" else last @ last),
            measure=measure,
        )

    @property
    def path(self) -> Matrix:
        """x_0 … x_N, the points the worst projector visits."""
        return self.points[-(self.n_iter + 1) :]

    def constants(self) -> tuple[float, float]:
        """(α, β) computed from scratch: the extremes of ‖A s‖²/‖s‖² over all pairs of S."""
        first, second = np.triu_indices(len(self.points), 1)
        secants = self.points[first] - self.points[second]
        squared = (secants**2).sum(1)
        apart = squared > 0  # a path that stays where it is names one point several times
        ratios = ((secants[apart] @ self.matrix.T) ** 2).sum(1) / squared[apart]
        return float(ratios.min()), float(ratios.max())

    def run(self) -> Solution:
        """NPGD on the instance, from x_0, with iterates; its projector is the adversary's.

        For δ = 0 that is the exact projection onto S, the later point of the path winning ties.
        For δ > 0 it takes, of the points within δ of the least squared distance, the path's next.
        """
        import torch

        from npgd import NPGD, FiniteSet, MatrixOperator, recover

        shape = (1, 1, self.matrix.shape[1])
        points = torch.from_numpy(self.points).reshape(-1, *shape)
        operator = MatrixOperator(torch.from_numpy(self.matrix), shape)
        y = torch.from_numpy(self.y)[None]
        # Ties of the path's Gram matrices are ties up to rounding here.
        rounding = 1e-13 * float((self.path**2).sum(1).max())
        finite = FiniteSet(points, tie_tol=self.delta + rounding)
        path = points[-(self.n_iter + 1) :]
        targets = path - self.step_size * operator.adjoint(operator(path) - y)

        def project(w: torch.Tensor) -> torch.Tensor:
            n = int((targets[:-1] - w).flatten(1).square().sum(1).argmin())
            after = len(points) - self.n_iter + n
            others = [i for i in range(len(points)) if i != after]
            return finite.project(w, prefer=torch.tensor([*others, after]))

        solver = NPGD(
            finite if self.delta == 0 else project,
            self.step_size,
            start=path[:1].clone(),
            max_iter=self.n_iter,
            tol=0.0,
        )
        return recover(operator, y, solver, record_iterates=True)

    def attained(self) -> float:
        """F_N of `run` over its F_0 (‖x_N − x*‖² over F_0 for "distance")."""
        solution = self.run()
        start = float(solution.objective[0, 0])
        if self.measure == "objective":
            return float(solution.objective[-1, 0]) / start
        return float(((solution.x.flatten().numpy() - self.points[0]) ** 2).sum()) / start

    def __str__(self) -> str:
        alpha, beta = self.constants()
        return (
            f"A of shape {self.matrix.shape}, {len(self.points)} points with REC({alpha:.9g},"
            f" {beta:.9g}); NPGD with η = {self.step_size:g}, δ = {self.delta:g} reaches"
            f" {self.attained():.9g} after {self.n_iter} steps (promised {self.promised:.9g})"
        )

    def to_dict(self) -> dict[str, Any]:
        alpha, beta = self.constants()
        return {
            "matrix": self.matrix.tolist(),
            "points": self.points.tolist(),
            "y": self.y.tolist(),
            "n_iter": self.n_iter,
            "step_size": self.step_size,
            "delta": self.delta,
            "measure": self.measure,
            "promised": self.promised,
            "alpha": alpha,
            "beta": beta,
            "attained": self.attained(),
        }


def tight_grams(
    alpha: float, beta: float, n_iter: int, delta: float = 0.0
) -> tuple[Matrix, Matrix]:
    """The Gram matrices of `tight_instance`; they exist for κ = 1 as well.

    Raises:
        ValueError: κ is not inside [1, 2), or δ > (1 − r²)/(βr), r = κ − 1: then F_0 = 1 lies so
            far below its floor that the bound of the theorem is attained for N = 1 only.
    """
    from npgd import checks

    alpha, beta = checks.number(alpha, "alpha"), checks.number(beta, "beta")
    n_iter, delta = checks.integer(n_iter, "n_iter"), checks.number(delta, "delta", zero=True)
    r = beta / alpha - 1
    if not 0 <= r < 1:
        raise ValueError(f"beta/alpha must be at least 1 and below 2, got {beta / alpha}")
    if r * beta * delta > 1 - r * r:
        raise ValueError(
            f"delta must be at most (1 − r²)/(βr) = {(1 - r * r) / (beta * r):g} with r = κ − 1,"
            f" since the theorem is not tight beyond, got {delta}"
        )
    f = [1.0]
    for _ in range(n_iter):
        f.append(r * f[-1] + beta * delta)
    half = (beta - alpha) / (2 * alpha * beta)  # (1/α − 1/β)/2
    next_to = [(f[n] + f[n + 1]) * half for n in range(n_iter)]
    gram = np.diag(np.array(f) / alpha) + np.diag(next_to, 1) + np.diag(next_to, -1)
    return gram, np.diag(f)


def tight_instance(alpha: float, beta: float, n_iter: int, delta: float = 0.0) -> Instance:
    """The worst case of Theorem 1 in closed form, for η = 1/β, 1 < κ < 2 and every N.

    With r = κ − 1, f_0 = 1 and f_{n+1} = r f_n + βδ, the images A e_n are orthogonal,
    ‖A e_n‖² = f_n, and the errors have ‖e_n‖² = f_n/α,
    ⟨e_n, e_{n+1}⟩ = (f_n + f_{n+1})(1/α − 1/β)/2, all else zero. Then every e_n and every pair two
    or more apart stretches by α, every step by β, and x_{n+1} is exactly as near to w_n as x*
    (or δ farther). `theorem.derive` verifies it. For κ = 1 and δ > 0 as well.

    Raises:
        ValueError: as `tight_grams`; or κ = 1 and δ = 0, where every x_n but x_0 is x*.
    """
    gram, image_gram = tight_grams(alpha, beta, n_iter, delta)
    if image_gram[-1, -1] == 0:
        raise ValueError(
            f"beta must exceed alpha where delta is 0, since F_1 = 0 otherwise, got {beta} for both"
        )
    matrix, points = _vectors(gram, image_gram)
    return Instance(
        matrix,
        np.vstack([np.zeros(n_iter + 1), points]),
        np.zeros(len(matrix)),
        n_iter,
        1 / beta,
        delta,
        float(image_gram[-1, -1]),
    )


def still_instance(alpha: float, beta: float, n_iter: int) -> Instance:
    """One direction, stretched by α: the worst case for η = 1/β and δ = 0 where κ ≥ 2 or κ = 1.

    For κ ≥ 2, x_0 is at least as near to w_0 as x* is, and P stays there: F_N = F_0. For κ = 1,
    w_0 is x*: F_N = 0. A second direction, stretched by β, pins β with one more point of S.

    Raises:
        ValueError: κ is neither 1 nor at least 2.
    """
    from npgd import checks

    alpha, beta = checks.number(alpha, "alpha"), checks.number(beta, "beta")
    n_iter = checks.integer(n_iter, "n_iter")
    if alpha != beta and beta < 2 * alpha:
        raise ValueError(f"beta/alpha must be 1 or at least 2, got {beta / alpha}")
    after = 0.0 if alpha == beta else 1.0
    points = np.zeros((n_iter + 3, 2))
    points[1] = 0, 2 / math.sqrt(alpha)
    points[2:, 0] = np.array([1.0] + n_iter * [after]) / math.sqrt(alpha)
    matrix = np.diag([math.sqrt(alpha), math.sqrt(beta)])
    return Instance(matrix, points, np.zeros(2), n_iter, 1 / beta, 0.0, after)


def _vectors(gram: Matrix, image_gram: Matrix) -> tuple[Matrix, Matrix]:
    """A and points e_n (as rows) with ⟨e_i, e_j⟩ and ⟨A e_i, A e_j⟩ as given.

    Any further rows of `image_gram` (for v) are ignored. With G = L Lᵀ and H = R Rᵀ the points
    are the rows of L, and A = Rᵀ L⁻ᵀ.
    """
    lower = np.linalg.cholesky(gram)
    right = _root(image_gram)[: len(gram)]
    return np.ascontiguousarray(np.linalg.solve(lower, right).T), lower


def _root(gram: Matrix) -> Matrix:
    """R with R Rᵀ = gram, computed in units where the diagonal is one."""
    unit = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    values, vectors = np.linalg.eigh(gram / np.outer(unit, unit))
    root: Matrix = unit[:, None] * vectors * np.sqrt(np.maximum(values, 0))
    return root
