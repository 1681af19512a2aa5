"""NuMax: the matrix of least trace that keeps every secant within 1 ± δ.

Hegde, Sankaranarayanan, Yin and Baraniuk, "NuMax: a convex approach for learning near-isometric
linear embeddings", IEEE Transactions on Signal Processing 63 (2015): over unit secants s_1 … s_N,

    minimise tr P   subject to   |sᵢᵀ P sᵢ − 1| ≤ δ,  P ⪰ 0,

a convex stand-in for the rank of P = AᵀA. On these secants κ ≤ (1 + δ)/(1 − δ), so that κ < 2 is
δ < 1/3. P = I meets every constraint, so there always is a solution. As in the paper, ADMM over an
active set of constraints, with two changes. Its two splittings become one projection onto the
graph {(L, 𝒜L)} of 𝒜P = (sᵢᵀPsᵢ)ᵢ, which leaves one multiplier a secant. And these give the dual

    maximise Σ νᵢ − δ Σ |νᵢ|   subject to   𝒜*ν = Σ νᵢ sᵢ sᵢᵀ ⪯ I,

hence a lower bound on the least trace, by which the iteration stops and the result is judged.
The constraints bind these N secants alone: other secants do worse, and tangents much worse.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from jaxtyping import Float, Int

from analysis.design.secant_pca import described, secant_points
from npgd import checks
from npgd.images import norm
from npgd.operators import MatrixOperator
from npgd.precision import plainly
from npgd.progress import Bar, bar
from npgd.showing import Shown

RELAXATION = 1.7  # of ADMM, between 1 and 2
CHECK = 10  # iterations between looks at the bound and the constraints
RANK_TOL = 1e-3  # eigenvalues of P up to this fraction of the largest give no row of A
LOOSE = 3e-2  # the first active sets are solved to this accuracy only
ADDED = 1000  # constraints that become active at a time, the most violated first
SMALLEST = 1e-3  # a rank budget is sought for δ between this and 1 minus this
DENSE = 2048  # up to so many pixels the dual matrix is formed to find its largest eigenvalue


@dataclass(frozen=True)
class NumaxResult(Shown):
    """P = factorᵀ factor, and how good it is."""

    factor: Float[torch.Tensor, "rank n"]
    """A, with AᵀA = P."""
    delta: float
    """δ, the distance of ‖A s‖² from 1 that was allowed."""
    violation: float
    """max over all secants of |sᵀPs − 1| − δ, measured on `factor` (negative: strictly inside)."""
    trace: float
    """tr P."""
    lower_bound: float
    """The least possible trace is at least this."""
    iterations: int
    """Of ADMM, over all active sets."""
    active: int
    """Constraints with a multiplier."""
    converged: bool
    """Whether violation and gap are within the tolerance."""
    status: str
    """The same in words, with what to do where they are not."""
    seconds: float
    """How long it took."""

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return len(self.factor)

    @property
    def gap(self) -> float:
        """(trace − lower bound)/trace."""
        return (self.trace - self.lower_bound) / self.trace

    def to_dict(self) -> dict[str, Any]:
        """Everything but the factor, as plain numbers and words."""
        kept = {key: value for key, value in vars(self).items() if key != "factor"}
        return {**kept, "rank": self.rank, "gap": self.gap}

    def __str__(self) -> str:
        return (
            f"NuMax, δ = {self.delta:.4g}: rank {self.rank}, trace {self.trace:.6g} (the least is"
            f" at least {self.lower_bound:.6g}), {self.active} active constraints,"
            f" {self.iterations} iterations, {self.seconds:.1f} s. {self.status}"
        )


@dataclass
class _State:
    """ADMM's variables: L, one multiplier a secant (0 where inactive), and the penalty ρ.

    The scaled multiplier of the constraint P = L is −𝒜*w, w the one of the secants.
    """

    matrix: Float[torch.Tensor, "r r"]
    w: Float[torch.Tensor, " N"]
    rho: float = 1.0


def numax(
    secants: Float[torch.Tensor, "N n"],
    delta: float,
    *,
    tol: float = 1e-3,
    max_iter: int = 5000,
    progress: bool = False,
) -> NumaxResult:
    """The P of least trace with |sᵀPs − 1| ≤ δ for every row s of `secants`, to within `tol`.

    The work is done in the principal directions of the secants that hold all but tol/10 of their
    energy: a P there meets the same constraints, and what the restriction costs in trace shows in
    the lower bound, which is that of all n dimensions.

    Args:
        secants: unit vectors.
        delta: between 0 and 1, exclusive.
        tol: of the constraints' violation and of the duality gap, relative to the trace.
        max_iter: of ADMM over all active sets. Where it does not do, `status` says so.
    """
    s = _checked_secants(secants)
    delta, tol = checks.between(delta, "delta"), checks.number(tol, "tol")
    max_iter = checks.integer(max_iter, "max_iter")
    progress = checks.flag(progress, "progress")
    basis = _basis(s, tol)
    coordinates = s @ basis
    return _numax(s, basis, coordinates, delta, tol, max_iter, progress, _fresh(coordinates))


@plainly
def design_numax(
    prior: Any,
    m: int | None = None,
    *,
    delta: float = 0.3,
    points: int | None = None,
    secants: int = 10_000,
    seed: int = 0,
    tol: float = 1e-3,
    max_iter: int = 5000,
    progress: bool = False,
) -> MatrixOperator:
    """A with AᵀA = P of least trace such that |‖A s‖² − 1| ≤ δ over random unit secants s.

    Its number of rows is the rank of P, without eigenvalues up to 10⁻³ of the largest. With a
    rank budget m, the smallest δ found by bisection (to 5 %) whose P has rank at most m; `delta`
    is where the bisection starts. P does not change with the basis of the rows, which come by
    falling eigenvalue, AAᵀ = diag(eigenvalues).

    Args:
        prior: with `generate` and `latent_dim`, or `sample`; or images (N, c, h, w).
        m: most rows that A may have; without it, whatever `delta` needs.
        delta: between 0 and 1, exclusive. κ ≤ (1 + δ)/(1 − δ) over the secants used.
        points: by default 4000 samples of a prior, or all given images.
        secants: so many pairs of different points, drawn uniformly.
        seed: of the points and the pairs.
        tol: how far constraints may be violated and the trace be from the least, relative.
        max_iter: of ADMM, for each δ. A RuntimeWarning says where it does not do.

    Returns:
        An operator in the points' dtype, whose `provenance` holds the settings, "delta reached"
        (max |‖A s‖² − 1| over the secants), "kappa on its secants", trace, lower bound and status.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    budget = None if m is None else checks.integer(m, "m")
    delta, tol = checks.between(delta, "delta"), checks.number(tol, "tol")
    progress = checks.flag(progress, "progress")
    count, max_iter = checks.integer(secants, "secants"), checks.integer(max_iter, "max_iter")
    checks.room(count, "secants", count)
    images = secant_points(prior, points, seed)
    s = _draw_secants(images, count, seed)
    basis = _basis(s, tol)
    f = s @ basis
    state = _fresh(f)

    def solve(d: float) -> NumaxResult:
        return _numax(s, basis, f, d, tol, max_iter, progress, state)

    result = solve(delta)
    if budget is not None:
        result = _within(budget, result, solve)
    operator = MatrixOperator(result.factor.to(images.dtype), tuple(images.shape[1:]))
    stretched = (s @ operator.matrix.double().T).square().sum(1)
    operator.provenance = {
        "method": "numax",
        "prior": described(prior),
        "m": operator.m,
        "budget": budget,
        "points": len(images),
        "secants": len(s),
        "seed": seed,
        "tol": tol,
        **result.to_dict(),
        "delta reached": float((stretched - 1).abs().max()),
        "kappa on its secants": float(stretched.max() / stretched.min()),
    }
    if not result.converged:
        warnings.warn(f"design_numax: {result.status}", RuntimeWarning, stacklevel=2)
    return operator


def _within(budget: int, result: NumaxResult, solve: Callable[[float], NumaxResult]) -> NumaxResult:
    """The result of the smallest δ, to 5 %, whose rank is within the budget: δ halved or moved
    towards 1 until the rank crosses the budget, then bisection of log δ."""
    fits = result if result.rank <= budget else None
    low, high = (0.0, result.delta) if fits else (result.delta, 1.0)
    while fits is None or high > 1.05 * low:
        if fits is None:
            middle = (1 + low) / 2
        elif low == 0.0:
            middle = high / 2
        else:
            middle = math.sqrt(low * high)
        if middle < SMALLEST:
            break
        if middle > 1 - SMALLEST:
            raise ValueError(f"m must be a rank that a δ up to {low:.4g} gives, got {budget}")
        result = solve(middle)
        if result.rank <= budget:
            fits, high = result, middle
        else:
            low = middle
    assert fits is not None
    return fits


# ------------------------------------------------------------------------------------------ ADMM


def _numax(
    s: torch.Tensor,
    basis: torch.Tensor,
    f: torch.Tensor,
    delta: float,
    tol: float,
    max_iter: int,
    progress: bool,
    state: _State,
) -> NumaxResult:
    began = time.perf_counter()
    with bar(max_iter, f"NuMax δ = {delta:.3g}", progress) as shown:
        values, vectors, iterations, converged = _solve(f, delta, tol, max_iter, state, shown)
    if not len(values):
        raise ValueError(f"max_iter must let ADMM leave P = 0, got {iterations}")
    order = values.argsort(descending=True)
    order = order[values[order] > RANK_TOL * values.max()]
    factor = values[order].sqrt()[:, None] * (basis @ vectors[:, order]).T
    stretched = (s @ factor.T).square().sum(1)
    violation = float((stretched - 1).abs().max()) - delta
    trace = float(values[order].sum())
    bound = _bound(state.rho * state.w, delta, _largest(s, state.w) * state.rho)
    gap = (trace - bound) / trace
    found = f"constraints violated by {max(violation, 0):.1e}, trace within {gap:.1e} of the least"
    if converged:
        status = f"Converged: {found}."
    else:
        status = (
            f"NOT converged in {iterations} iterations (tol {tol:g}): {found}."
            " Give more iterations, fewer secants or a larger tol."
        )
    return NumaxResult(
        factor=factor,
        delta=delta,
        violation=violation,
        trace=trace,
        lower_bound=bound,
        iterations=iterations,
        active=int((state.w != 0).sum()),
        converged=converged,
        status=status,
        seconds=time.perf_counter() - began,
    )


def _solve(
    f_all: Float[torch.Tensor, "N r"],
    delta: float,
    tol: float,
    max_iter: int,
    state: _State,
    shown: Bar,
) -> tuple[torch.Tensor, torch.Tensor, int, bool]:
    """Positive eigenvalues and eigenvectors of P, iterations, and whether all is within tol.

    Scaled ADMM on g(P, q) = tr P + [P ⪰ 0] + [|q − 1| ≤ δ] and the graph (L, l = 𝒜L):

        P = (L + 𝒜*w − I/ρ)₊,   q = clip(l − w, 1 ± δ),
        (I + 𝒜𝒜*) w' = q + w − 𝒜(P − 𝒜*w),   L = P − 𝒜*w + 𝒜*w',   l = q + w − w',

    P and q over-relaxed in the second line. At the solution ν = ρ w solves the dual.
    (𝒜𝒜*)ᵢⱼ = ⟨sᵢ, sⱼ⟩² is factored once for each active set. `state` is where this starts, and is
    left where it ends.
    """
    eye = torch.eye(f_all.shape[1], dtype=f_all.dtype)
    active = state.w.nonzero()[:, 0]
    if not len(active):
        active = torch.arange(min(ADDED, len(f_all)))
    accuracy = max(LOOSE, tol)
    iterations = balanced = 0
    while True:
        f, w, matrix = f_all[active], state.w[active], state.matrix
        gram = (f @ f.T).square()
        factor = torch.linalg.cholesky(gram + torch.eye(len(f), dtype=f.dtype))
        image = ((f @ matrix) * f).sum(1)
        adjoint = (f.T * w) @ f
        done = False
        while not done and iterations < max_iter:
            iterations += 1
            values, vectors = torch.linalg.eigh(matrix + adjoint - eye / state.rho)
            values, vectors = values[values > 0], vectors[:, values > 0]
            stretched = (f @ vectors).square() @ values
            q = (image - w).clamp(1 - delta, 1 + delta)
            relaxed = torch.lerp(matrix, (vectors * values) @ vectors.T, RELAXATION)
            wanted = torch.lerp(image, q, RELAXATION) + w
            seen = torch.lerp(image, stretched, RELAXATION) - gram @ w
            before = matrix, image, w
            w = torch.cholesky_solve((wanted - seen)[:, None], factor)[:, 0]
            last, adjoint = adjoint, (f.T * w) @ f
            matrix, image = relaxed - last + adjoint, wanted - w
            if iterations % CHECK == 0 or iterations == max_iter:
                violation, gap = _distances(values, stretched, adjoint, w, state.rho, delta)
                done = violation <= accuracy and gap <= accuracy
                words = f"violated by {max(violation, 0):.0e}, gap {gap:.0e}"
                shown.reach(iterations, f"{len(f)} active, {words}")
                # ADMM converges for a fixed ρ: it is changed more and more rarely.
                if not done and iterations >= 1.25 * balanced:
                    balanced = iterations
                    # P − L and q − l, over-relaxed, are what 𝒜*w and w have changed by.
                    primal = math.hypot(_norm(adjoint - last), _norm(w - before[2]))
                    dual = math.hypot(_norm(matrix - before[0]), _norm(image - before[1]))
                    scale = _balance(primal, state.rho * dual)
                    state.rho, w, adjoint = state.rho * scale, w / scale, adjoint / scale
        inside = ((stretched - 1).abs() < delta - accuracy) & (w.abs() < 1e-6 * w.abs().max())
        state.w = torch.zeros_like(state.w).index_copy_(0, active, w.masked_fill(inside, 0))
        state.matrix = matrix
        excess = ((f_all @ vectors).square() @ values - 1).abs() - delta
        excess[active] = -torch.inf
        new = _violated(excess, accuracy)
        if not len(new) and accuracy <= tol:
            return values, vectors, iterations, done
        if iterations >= max_iter:
            return values, vectors, iterations, False
        if not len(new):
            accuracy = max(accuracy / 3, tol)
        active = torch.cat([active[~inside], new])


def _distances(
    values: torch.Tensor,
    stretched: torch.Tensor,
    adjoint: torch.Tensor,
    w: torch.Tensor,
    rho: float,
    delta: float,
) -> tuple[float, float]:
    """By how much P violates a constraint, and the duality gap of P and ν = ρ w over the trace."""
    top = float(torch.linalg.eigvalsh(adjoint)[-1]) * rho
    trace = float(values.sum())
    gap = (trace - _bound(rho * w, delta, top)) / max(trace, 1e-300)
    return float((stretched - 1).abs().max()) - delta, gap


def _violated(excess: Float[torch.Tensor, " N"], accuracy: float) -> Int[torch.Tensor, " new"]:
    """The constraints violated by more than `accuracy`, at most ADDED, the most violated."""
    new = (excess > accuracy).nonzero()[:, 0]
    return new if len(new) <= ADDED else new[excess[new].topk(ADDED).indices]


def _bound(nu: Float[torch.Tensor, " N"], delta: float, top: float) -> float:
    """The dual's value at ν, scaled down where the largest eigenvalue `top` of 𝒜*ν exceeds 1."""
    return max(float(nu.sum() - delta * nu.abs().sum()) / max(top, 1.0), 0.0)


def _largest(s: Float[torch.Tensor, "N n"], w: Float[torch.Tensor, " N"]) -> float:
    """The largest eigenvalue of Σ wᵢ sᵢ sᵢᵀ over all n dimensions."""
    s, w = s[w != 0], w[w != 0]
    n = s.shape[1]
    if n <= DENSE:
        return float(torch.linalg.eigvalsh((s.T * w) @ s)[-1])

    def product(v: np.ndarray) -> np.ndarray:
        return (s.T @ (w * (s @ torch.from_numpy(v.reshape(n))))).numpy()

    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)
    largest = scipy.sparse.linalg.eigsh(
        operator, k=1, which="LA", v0=start, return_eigenvectors=False
    )
    return float(largest[0])


def _balance(primal: float, dual: float) -> float:
    """The factor of ρ that brings the two residuals nearer, 2 at most (Boyd et al. 2011, 3.4.1)."""
    if primal > 5 * dual:
        return 2.0
    return 0.5 if dual > 5 * primal else 1.0


def _norm(x: torch.Tensor) -> float:
    return float(x.norm())


# --------------------------------------------------------------------------------- secants, doors


def _draw_secants(images: torch.Tensor, count: int, seed: int) -> Float[torch.Tensor, "count n"]:
    """Unit secants of pairs i ≠ j drawn uniformly, in float64; equal points have none."""
    flat = images.flatten(1).double()
    generator = checks.seeded(seed)
    i = torch.randint(len(flat), (count,), generator=generator)
    j = (i + torch.randint(1, len(flat), (count,), generator=generator)) % len(flat)
    s = flat[i] - flat[j]
    length = norm(s)[:, None]
    s = s[length[:, 0] > 0] / length[length[:, 0] > 0]
    if not len(s):
        raise ValueError(f"prior must have points that differ, got {len(flat)} equal ones")
    return s


def _basis(s: Float[torch.Tensor, "N n"], tol: float) -> Float[torch.Tensor, "n r"]:
    """The leading principal directions of unit secants, all but tol/10 of the energy in them."""
    if len(s) < s.shape[1]:
        vectors, values = torch.linalg.svd(s.T, full_matrices=False)[:2]
        values = values.square()
    else:
        values, vectors = torch.linalg.eigh(s.T @ s)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    left = 1 - values.cumsum(0) / values.sum()
    # Rounding of the Gram matrix: smaller energies are no directions.
    rank = int((left > max(tol / 10, 1e-12)).sum()) + 1
    leading: torch.Tensor = vectors[:, :rank]
    return leading.contiguous()


def _fresh(f: Float[torch.Tensor, "N r"]) -> _State:
    return _State(f.new_zeros(f.shape[1], f.shape[1]), f.new_zeros(len(f)))


def _checked_secants(secants: torch.Tensor) -> Float[torch.Tensor, "N n"]:
    s = checks.finite(checks.floating(secants, "secants"), "secants").detach().cpu().double()
    if s.ndim != 2 or not len(s):
        raise ValueError(f"secants must have shape (N, n), N ≥ 1, got {tuple(s.shape)}")
    off = float((norm(s) - 1).abs().max())
    if off > 1e-5:
        raise ValueError(f"secants must have unit norm, got one that is off by {off:.2g}")
    return s
