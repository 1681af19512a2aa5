"""NuMax: against cvxpy, against instances with a known answer, and on its own constraints."""

import itertools

import pytest
import torch

from analysis.design import design_numax
from analysis.design.numax import numax
from analysis.rec import estimate_rec
from analysis.testing import normal, random_affine_set

SHAPE = (1, 3, 4)


def unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def uneven_secants(count: int, n: int, k: int, seed: int) -> torch.Tensor:
    """Unit vectors of a k-dimensional subspace that prefer some directions, so that few rows do."""
    q = torch.linalg.qr(normal(n, k, seed=seed))[0]
    scale = torch.linspace(0.2, 2, k, dtype=torch.float64)
    return unit(normal(count, k, seed=seed + 1) * scale @ q.T)


def by_cvxpy(s: torch.Tensor, delta: float) -> float:
    """The least trace; in an orthonormal basis of the secants, outside which P has no use."""
    import cvxpy as cp

    u, values, _ = torch.linalg.svd(s.T, full_matrices=False)
    s = s @ u[:, values > 1e-9 * values[0]]
    P = cp.Variable((s.shape[1], s.shape[1]), PSD=True)
    stretched = cp.diag(s.numpy() @ P @ s.numpy().T)
    problem = cp.Problem(cp.Minimize(cp.trace(P)), [cp.abs(stretched - 1) <= delta])
    problem.solve(solver="CLARABEL")
    assert problem.status == "optimal"
    return float(problem.value)


@pytest.mark.parametrize(
    ("count", "n", "k", "delta"),
    [(40, 8, 8, 0.3), (60, 10, 4, 0.1), (30, 6, 6, 0.5), (80, 12, 12, 0.05), (5, 9, 5, 0.3)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_trace_agrees_with_cvxpy(count, n, k, delta, seed):
    s = uneven_secants(count, n, k, seed)
    result = numax(s, delta, tol=1e-6, max_iter=20_000)
    least = by_cvxpy(s, delta)
    assert result.converged
    assert result.trace == pytest.approx(least, rel=1e-4)
    assert result.lower_bound <= least * (1 + 1e-6)
    stretched = (s @ result.factor.T).square().sum(1)
    assert float((stretched - 1).abs().max()) <= delta + 1e-5
    assert result.violation == pytest.approx(float((stretched - 1).abs().max()) - delta, abs=1e-9)


def test_the_bound_holds_before_convergence():
    s = uneven_secants(60, 10, 6, 3)
    least = by_cvxpy(s, 0.2)
    for max_iter in (15, 40, 100):
        result = numax(s, 0.2, tol=1e-9, max_iter=max_iter)
        assert not result.converged and result.status.startswith("NOT converged")
        assert result.iterations == max_iter
        assert result.lower_bound <= least * (1 + 1e-7)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("delta", [0.1, 0.6])
def test_rank_and_trace_of_a_known_answer(k, delta):
    """With s = e_i and (e_i ± e_j)/√2, i < j ≤ k, the constraints force (1 − δ) I on k dimensions:
    P_ii ≥ 1 − δ, and at equality (P_ii + P_jj)/2 ± P_ij ≥ 1 − δ gives P_ij = 0."""
    e = torch.eye(7, dtype=torch.float64)
    rows = [e[i] for i in range(k)]
    for i, j in itertools.combinations(range(k), 2):
        rows += [(e[i] + e[j]) / 2**0.5, (e[i] - e[j]) / 2**0.5]
    result = numax(torch.stack(rows), delta, tol=1e-7)
    assert result.rank == k
    assert result.trace == pytest.approx(k * (1 - delta), rel=1e-5)
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[:k, :k] = (1 - delta) * torch.eye(k, dtype=torch.float64)
    torch.testing.assert_close(result.factor.T @ result.factor, expected, atol=1e-4, rtol=0)


def test_more_constraints_than_fit_the_first_active_set(monkeypatch):
    """Constraints that join later give the trace of all at once."""
    from analysis.design import numax as module

    s = uneven_secants(400, 8, 8, 5)
    at_once = numax(s, 0.25, tol=1e-6, max_iter=20_000)
    monkeypatch.setattr(module, "ADDED", 7)
    in_turn = numax(s, 0.25, tol=1e-6, max_iter=20_000)
    assert at_once.converged and in_turn.converged
    assert in_turn.trace == pytest.approx(at_once.trace, rel=1e-5)


def test_near_isometry_on_an_affine_set():
    """Enough secants leave no direction out: κ, exact here, is within (1 + δ)/(1 − δ)."""
    S, delta = random_affine_set(SHAPE, 3), 0.2
    A = design_numax(S, delta=delta, points=60, secants=300, seed=0, tol=1e-4)
    assert A.m == 3
    rec = estimate_rec(A, S)
    assert rec.exact
    assert rec.kappa <= (1 + delta) / (1 - delta) * (1 + 1e-3)
    assert rec.beta <= 1 + delta + 1e-3


def test_what_the_operator_says_of_itself():
    S = random_affine_set(SHAPE, 5)
    A = design_numax(S, delta=0.3, points=50, secants=200, seed=4)
    p = A.provenance
    assert p["m"] == A.m == p["rank"] and p["converged"]
    assert p["delta reached"] <= 0.3 + 1e-3
    assert p["kappa on its secants"] <= 1.3 / 0.7 * (1 + 5e-3)
    assert p["trace"] == pytest.approx(float(A.matrix.square().sum()), rel=1e-9)
    gram = A.matrix @ A.matrix.T
    assert float((gram - gram.diag().diag()).abs().max()) <= 1e-9
    assert gram.diag().tolist() == sorted(gram.diag().tolist(), reverse=True)


def test_a_rank_budget_finds_the_smallest_delta_that_fits():
    S = random_affine_set(SHAPE, 10)

    def design(m=None, delta=0.2):
        return design_numax(S, m, delta=delta, points=40, secants=300, seed=0)

    budget = design().m
    deltas = []
    for start in (0.02, 0.6):  # below and above the δ to be found
        A = design(budget, start)
        delta = A.provenance["delta"]
        assert A.m <= budget and A.provenance["budget"] == budget
        assert A.provenance["delta reached"] <= delta + 1e-3
        assert design(delta=delta / 1.1).m > budget
        deltas.append(delta)
    assert deltas[0] == pytest.approx(deltas[1], rel=0.05)
    assert max(deltas) <= 0.2 * 1.05


def test_a_rank_budget_that_no_delta_meets():
    """Secants that fill all directions of 3 dimensions cannot do with one row."""
    with pytest.raises(ValueError, match="m must be a rank"):
        design_numax(random_affine_set(SHAPE, 3), 1, points=40, secants=300)


def test_one_seed_one_matrix():
    S = random_affine_set(SHAPE, 5)
    first, again, other = (
        design_numax(S, points=40, secants=100, seed=s).matrix for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.allclose(first, other)


def test_no_silent_failure():
    with pytest.warns(RuntimeWarning, match="NOT converged"):
        A = design_numax(random_affine_set(SHAPE, 5), points=40, secants=100, max_iter=12, tol=1e-9)
    assert not A.provenance["converged"]


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"delta": 1.0}, ValueError, "delta"),
        ({"delta": 0.0}, ValueError, "delta"),
        ({"m": 0}, ValueError, "m must"),
        ({"secants": 0}, ValueError, "secants"),
        ({"max_iter": 1}, ValueError, "max_iter"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"tol": "small"}, TypeError, "tol"),
    ],
)
def test_errors_name_the_argument(arguments, error, name):
    with pytest.raises(error, match=name):
        design_numax(random_affine_set(SHAPE, 3), points=10, **({"secants": 20} | arguments))


def test_secants_must_be_unit_vectors():
    with pytest.raises(ValueError, match="unit norm"):
        numax(torch.full((3, 4), 1.0), 0.3)
    with pytest.raises(TypeError, match="secants"):
        numax([[1.0]], 0.3)
    with pytest.raises(ValueError, match="equal"):
        design_numax(torch.ones(4, 1, 2, 2), secants=5)
