"""Maximising over the Gram matrices of an iteration, with a proof of both ends.

`GramProgram` holds the constraints that `analysis.performance_estimation` derives on G_ij = ⟨e_i,
e_j⟩ and H_ij = ⟨A e_i, A e_j⟩. `GramProgram.bracket` maximises ⟨g, G⟩ + ⟨h, H⟩ with Clarabel and
then trusts nothing that it returned: the lower end is the value of Gram matrices checked against
every constraint, the upper end is proved by multipliers whose slack is positive semidefinite in
rational arithmetic.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "rows columns"]

STAR = -1  # the index of x* among the points x_0 … x_N
START = "F_0 = 1"  # the name of the one equation

# How narrow a bracket is sought, and how wide a one is accepted, relative to the value.
RELATIVE_GAP, LARGEST_GAP = 1e-5, 1e-4

# How far the constraints are tightened, and the least eigenvalue asked of G, in turn: enough to
# absorb the solver's tolerance. The later ones are for degenerate programs, where x_{n+1} = x_n.
TIGHTENINGS = (
    (1e-9, 0.0),
    (1e-9, 1e-7),
    (1e-8, 1e-7),
    (1e-8, 3e-7),
    (1e-8, 1e-6),
    (1e-7, 1e-6),
)


class NotSolved(RuntimeError):
    """The solver did not return a solution, or none that can be certified."""


@dataclass(frozen=True, eq=False)
class Row:
    """One inequality g_factor⟨g, G⟩ + h_factor⟨h, H⟩ ≤ bound.

    g and h are matrices of integers, those of an obtuse projector of Fractions.
    """

    name: str
    g: np.ndarray
    g_factor: float
    h: np.ndarray
    h_factor: float
    bound: float


@dataclass(frozen=True, eq=False)
class GramProgram:
    """Maximise a linear functional of (G, H) under the rows and ⟨start, H⟩ = 1.

    `scale` holds an estimate of ‖A e_n‖² (and of ‖v‖²). In the units it defines, in which every
    Gram matrix entry is of order one, the solver keeps its relative precision even where F_N is
    1e-7.
    """

    alpha: float
    beta: float
    rows: tuple[Row, ...]
    start: np.ndarray
    scale: np.ndarray
    points: int
    """Of G; H has one row more if there is noise."""

    @classmethod
    def of(
        cls,
        alpha: float,
        beta: float,
        step_size: float,
        n_iter: int,
        delta: float,
        noise: float,
        scale: Sequence[float],
        theta: float = 0.0,
    ) -> GramProgram:
        """The constraints of N iterations; `scale` as above, for n = 0 … N.

        `theta` adds θ‖x_{n+1} − s‖² to the left of every comparison of a projector with s.
        """
        points, size = n_iter + 1, n_iter + 1 + (noise > 0)

        def signal(i: int) -> np.ndarray:
            return np.zeros(points, dtype=int) if i == STAR else np.eye(points, dtype=int)[i]

        def image(i: int) -> np.ndarray:
            return np.zeros(size, dtype=int) if i == STAR else np.eye(size, dtype=int)[i]

        v = np.eye(size, dtype=int)[-1] * (noise > 0)
        indices = range(STAR, points)
        rows = []
        for i in indices:
            for j in range(i + 1, points):
                g = np.outer(signal(i) - signal(j), signal(i) - signal(j))
                h = np.outer(image(i) - image(j), image(i) - image(j))
                pair = f"({point_name(i)}, {point_name(j)})"
                rows.append(Row(f"alpha{pair}", g, alpha, h, -1.0, 0.0))
                rows.append(Row(f"beta{pair}", g, -beta, h, 1.0, 0.0))
        for n in range(n_iter):
            residual = image(n) - v
            step = signal(n + 1) - signal(n)
            for i in indices:
                if i == n + 1:
                    continue
                g = np.outer(step, step) - np.outer(signal(i) - signal(n), signal(i) - signal(n))
                if theta:
                    apart = signal(n + 1) - signal(i)
                    g = g + Fraction(theta) * np.outer(apart, apart).astype(object)
                h = np.outer(image(n + 1) - image(i), residual)
                name = f"projection({point_name(n + 1)} | {point_name(i)})"
                # 2η⟨a, r⟩ = η⟨a rᵀ + r aᵀ, H⟩
                rows.append(Row(name, g, 1.0, h + h.T, step_size, delta))
        if noise > 0:
            rows.append(
                Row("noise", np.zeros((points, points), dtype=int), 1.0, np.outer(v, v), 1.0, noise)
            )

        units = np.array([*scale, noise] if noise > 0 else scale)
        start = np.outer(image(0) - v, image(0) - v)
        return cls(alpha, beta, tuple(rows), start, units, points)

    def solve(self, g: Matrix, h: Matrix, margin: float, floor: float) -> Raw:
        """Maximise ⟨g, G⟩ + ⟨h, H⟩ with every row tightened by `margin` and G ⪰ floor, in units
        of `scale`, so that what the solver returns is feasible despite its tolerance."""
        import cvxpy

        cp: Any = cvxpy  # which does not say what it exports
        root = np.sqrt(self.scale)
        unit_h = np.outer(root, root)
        unit_g = unit_h[: self.points, : self.points] / self.alpha
        rows_g = np.array([row.g.astype(float) * (row.g_factor * unit_g) for row in self.rows])
        rows_h = np.array([row.h * (row.h_factor * unit_h) for row in self.rows])
        # A projector is compared on the scale of its largest term, an eigenvalue bound on the
        # width of [α, β], which may be narrow.
        size = np.maximum(np.abs(rows_g).max((1, 2)), np.abs(rows_h).max((1, 2)))
        width = min(1.0, self.beta / self.alpha - 1)
        margins = np.array([margin * (width if row.name[0] in "ab" else 1.0) for row in self.rows])
        rows_g, rows_h = rows_g / size[:, None, None], rows_h / size[:, None, None]
        bound = np.array([row.bound for row in self.rows]) / size
        goal_g, goal_h = g * unit_g, h * unit_h
        goal = max(np.abs(goal_g).max(), np.abs(goal_h).max())

        shape_g, shape_h = unit_g.shape, unit_h.shape
        lifted = cp.Variable(shape_g, PSD=True)
        gram_h = cp.Variable(shape_h, PSD=True)
        gram_g = lifted + floor * np.eye(self.points)
        inequality = (
            rows_g.reshape(len(bound), -1) @ cp.vec(gram_g, order="C")
            + rows_h.reshape(len(bound), -1) @ cp.vec(gram_h, order="C")
            <= bound - margins
        )
        equality = cp.sum(cp.multiply(self.start * unit_h, gram_h)) == 1
        objective = cp.sum(cp.multiply(goal_g / goal, gram_g)) + cp.sum(
            cp.multiply(goal_h / goal, gram_h)
        )
        problem = cp.Problem(cp.Maximize(objective), [inequality, equality])
        tolerance = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
        with warnings.catch_warnings():
            # "may be inaccurate" is judged below, by the certificate rather than the solver.
            warnings.simplefilter("ignore", UserWarning)
            try:
                problem.solve(solver=cp.CLARABEL, **tolerance)
            except cp.SolverError as error:
                raise NotSolved("Clarabel stopped without a solution") from error
            except BaseException as error:
                if type(error).__name__ != "PanicException":  # Rust's, which has no other type
                    raise
                raise NotSolved("Clarabel broke down") from error
        if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            raise NotSolved(f"Clarabel reports {problem.status!r}")
        return Raw(
            gram_g=np.asarray(gram_g.value) * unit_g,
            gram_h=np.asarray(gram_h.value) * unit_h,
            multipliers=np.asarray(inequality.dual_value) * goal / size,
            start_multiplier=float(equality.dual_value) * goal,
        )

    def bracket(
        self, g: Matrix, h: Matrix
    ) -> tuple[float, tuple[Matrix, Matrix], float, Multipliers]:
        """A feasible value, its Gram matrices, a proved bound, and its multipliers."""
        shift = self._trace_bound()
        best_value, best_bound = -math.inf, math.inf
        failure = "no solution satisfies every constraint"
        for margin, floor in TIGHTENINGS:
            try:
                raw = self.solve(g, h, margin, floor)
            except NotSolved as error:
                failure = str(error)
                continue
            exact, multipliers = _proved_bound(self, raw, g, h, shift)
            if round_up(exact) < best_bound:
                best_bound, dual = round_up(exact), multipliers
            found = self.feasible(raw)
            if found is None:
                continue
            value = float((g * found[0]).sum() + (h * found[1]).sum())
            if value > best_value:
                best_value, grams = value, found
            if best_bound - best_value <= RELATIVE_GAP * best_value:
                break
        if best_value < 0:
            raise NotSolved(failure)
        if best_bound - best_value <= LARGEST_GAP * best_value:
            return best_value, grams, best_bound, dual
        raise NotSolved(f"the bracket [{best_value:.9g}, {best_bound:.9g}] is too wide")

    def _trace_bound(self) -> Multipliers:
        """Multipliers that bound the trace of the scaled Gram matrices.

        Σ λ_i row_i + μ start − (scaled trace) ⪰ −1e-9, so that without the trace their slack is
        positive definite, which is what `_proved_bound` needs of it.
        """
        g = np.diag(self.alpha / self.scale[: self.points])
        h = np.diag(1 / self.scale)
        for margin, floor in TIGHTENINGS:
            try:
                return self.multipliers(self.solve(g, h, margin, floor))
            except NotSolved as error:
                failure = error
        raise failure

    def feasible(self, raw: Raw) -> tuple[Matrix, Matrix] | None:
        """The nearest Gram matrices with F_0 = 1 that satisfy everything, or None."""
        root = np.sqrt(self.scale)
        grams = []
        for gram, unit in (
            (raw.gram_g, root[: self.points] / math.sqrt(self.alpha)),
            (raw.gram_h, root),
        ):
            scaled = gram / np.outer(unit, unit)
            values, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
            scaled = (vectors * np.maximum(values, 0)) @ vectors.T
            grams.append(scaled * np.outer(unit, unit))
        start = float((self.start * grams[1]).sum())
        g, h = grams[0] / start, grams[1] / start
        for row in self.rows:
            terms_g = row.g.astype(float) * g * row.g_factor
            terms_h = row.h * h * row.h_factor
            rounding = 1e-14 * (np.abs(terms_g).sum() + np.abs(terms_h).sum())
            if terms_g.sum() + terms_h.sum() > row.bound + rounding:
                return None
        return g, h

    def multipliers(self, raw: Raw) -> Multipliers:
        """The solver's multipliers, with negative ones set to zero."""
        kept = [Fraction(max(float(value), 0.0)) for value in raw.multipliers]
        return Multipliers(kept, Fraction(raw.start_multiplier))

    def named(self, dual: Multipliers) -> tuple[tuple[str, Fraction], ...]:
        """(constraint, multiplier) for those that are not zero; "F_0 = 1" comes last."""
        rows = zip(self.rows, dual.rows, strict=True)
        return (*((row.name, weight) for row, weight in rows if weight), (START, dual.start))

    def from_names(self, weights: Mapping[str, Fraction]) -> Multipliers:
        """Multipliers by the names of their constraints, zero where there is none."""
        rows = [Fraction(weights.get(row.name, 0)) for row in self.rows]
        return Multipliers(rows, Fraction(weights[START]))

    def proves(self, dual: Multipliers, g: Matrix, h: Matrix) -> bool:
        """Whether `bound` holds: no multiplier of a row is negative, and the slack is ⪰ 0."""
        return min(dual.rows) >= 0 and all(map(_positive_semidefinite, self.slack(dual, g, h)))

    def bound(self, dual: Multipliers) -> Fraction:
        """What the multipliers prove if `proves`: Σ λ_i bound_i + μ."""
        total = dual.start
        for weight, row in zip(dual.rows, self.rows, strict=True):
            total += weight * Fraction(row.bound)
        return total

    def slack(self, dual: Multipliers, g: Matrix, h: Matrix) -> tuple[np.ndarray, np.ndarray]:
        """Σ λ_i row_i + μ start − goal on G and on H, in exact rational arithmetic."""
        exact = np.vectorize(lambda entry: Fraction(int(entry)), otypes=[object])
        slack_g, slack_h = -exact(g), dual.start * exact(self.start) - exact(h)
        for weight, row in zip(dual.rows, self.rows, strict=True):
            if weight:
                slack_g = slack_g + (weight * Fraction(row.g_factor)) * row.g
                slack_h = slack_h + (weight * Fraction(row.h_factor)) * row.h
        return slack_g, slack_h


@dataclass(frozen=True, eq=False)
class Raw:
    """What the solver returned, in the problem's own units."""

    gram_g: Matrix
    gram_h: Matrix
    multipliers: np.ndarray
    start_multiplier: float


@dataclass(frozen=True)
class Multipliers:
    """One nonnegative multiplier a row, and one of either sign for F_0 = 1: exact numbers."""

    rows: list[Fraction]
    start: Fraction

    def plus(self, weight: Fraction, other: Multipliers) -> Multipliers:
        rows = [a + weight * b for a, b in zip(self.rows, other.rows, strict=True)]
        return Multipliers(rows, self.start + weight * other.start)


def _positive_semidefinite(matrix: np.ndarray) -> bool:
    """Whether a symmetric matrix of Fractions is positive semidefinite, decided exactly.

    Gaussian elimination on the diagonal: no pivot may be negative, and where one is zero the rest
    of its row must be.
    """
    work = matrix.copy()
    for k in range(len(work)):
        pivot = work[k, k]
        if pivot < 0 or (pivot == 0 and any(work[k, k + 1 :])):
            return False
        if pivot > 0:
            for i in range(k + 1, len(work)):
                if work[i, k]:
                    work[i, k + 1 :] = work[i, k + 1 :] - work[i, k] / pivot * work[k, k + 1 :]
    return True


def _proved_bound(
    program: GramProgram, raw: Raw, g: Matrix, h: Matrix, shift: Multipliers
) -> tuple[Fraction, Multipliers]:
    """An upper bound proved by multipliers alone, and those multipliers.

    λ ≥ 0 and a positive semidefinite slack prove ⟨g, G⟩ + ⟨h, H⟩ ≤ Σ λ_i bound_i + μ for every
    feasible (G, H). The solver's slack may have eigenvalues of −1e-10; adding ε times `shift`, the
    multipliers that bound the trace of the scaled Gram matrices and whose slack is therefore
    positive definite, lifts them, and its price is part of the bound. Signs and semidefiniteness
    are decided in rational arithmetic, so no rounding enters.
    """
    dual = program.multipliers(raw)
    slack_g, slack_h = program.slack(dual, g, h)
    root = np.sqrt(program.scale)
    unit_g = root[: program.points] / math.sqrt(program.alpha)
    lowest = min(
        float(np.linalg.eigvalsh(slack_g.astype(float) * np.outer(unit_g, unit_g))[0]),
        float(np.linalg.eigvalsh(slack_h.astype(float) * np.outer(root, root))[0]),
    )
    size = float(program.scale[program.points - 1])
    epsilon = max(-lowest, 0.0) * 1.01 + 1e-13 * size
    for _ in range(20):
        lifted = dual.plus(Fraction(epsilon), shift)
        if program.proves(lifted, g, h):
            return program.bound(lifted), lifted
        epsilon *= 2
    raise NotSolved("the slack of the multipliers could not be made positive semidefinite")


def point_name(index: int) -> str:
    return "x*" if index == STAR else f"x_{index}"


def round_up(exact: Fraction) -> float:
    """The least float that is not below `exact`."""
    rounded = float(exact)
    return rounded if Fraction(rounded) >= exact else math.nextafter(rounded, math.inf)
