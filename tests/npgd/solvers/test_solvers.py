"""NPGD does what its formula says, where the set is affine and everything is known."""

import json
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import testing
from analysis.testing import normal
from npgd.images import squared_norm
from npgd.operators import Gaussian, Inpainting, LinearOperator, MatrixOperator, SuperResolution
from npgd.projectors import FiniteSet
from npgd.solvers import NPGD, Solver, choose_step_size, recover

DOUBLE = torch.float64
SHAPE = (1, 6, 6)
seeds = testing.seeds


def problem(seed=0, m=24, batch=4, k=3):
    A = testing.random_operator("gaussian", SHAPE, m, seed)
    p = testing.random_problem(A, testing.random_affine_set(SHAPE, k, seed), batch, seed=seed)
    return p.A, p.S, p.x_true, p.y


@settings(deadline=None, max_examples=20)
@given(seed=seeds, k=st.integers(1, 5), scale=st.floats(0.2, 1.9))
def test_affine_error_follows_its_linear_recursion(seed, k, scale):
    """In coordinates of the basis Q, e_{n+1} = (I − η QᵀAᵀAQ) e_n, so ‖e_n‖ ≤ ρⁿ ‖e_0‖."""
    A, S, x_true, y = problem(seed, k=k)
    gram = (A.matrix @ S.orthonormal).T @ (A.matrix @ S.orthonormal)
    values = torch.linalg.eigvalsh(gram)
    step = scale / float(values[-1])
    rate = max(abs(1 - step * float(values[0])), abs(1 - step * float(values[-1])))
    solver = NPGD(S, step, max_iter=25, tol=0, start="range")
    solution = recover(A, y, solver, record_iterates=True)
    errors = (solution.iterates - x_true).flatten(2) @ S.orthonormal
    one_step = torch.eye(k, dtype=DOUBLE) - step * gram
    expected = errors[0]
    for n, error in enumerate(errors):
        torch.testing.assert_close(error, expected, rtol=1e-9, atol=1e-10)
        bound = rate**n * errors[0].norm(dim=1)
        assert bool((error.norm(dim=1) <= bound * (1 + 1e-9) + 1e-12).all())
        expected = expected @ one_step


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_a_fixed_point_stays(seed):
    A, S, x_true, y = problem(seed)
    solution = recover(A, y, NPGD(S, 0.3, start=x_true, tol=1e-12), x_true=x_true)
    assert solution.status.startswith("converged after 1 iteration:")
    torch.testing.assert_close(solution.x, x_true, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, kind=st.sampled_from(["gaussian", "inpainting", "super-resolution"]))
def test_step_one_over_beta_never_raises_the_objective(seed, kind):
    """From inside a convex set, f(x_{n+1}) ≤ f(x_n) for η = 1/‖A‖²: an exact projection."""
    S = testing.random_affine_set(SHAPE, 4, seed)
    A = {
        "gaussian": Gaussian(SHAPE, 10, seed, DOUBLE),
        "inpainting": Inpainting(SHAPE, hole=4),
        "super-resolution": SuperResolution(SHAPE, factor=3),
    }[kind]
    y = normal(3, A.m, seed=seed)
    solution = recover(A, y, NPGD(S, "1/beta", start="range", tol=0))
    assert solution.info["step_size"] == pytest.approx(1 / A.norm() ** 2)
    f = solution.objective
    assert bool((f[1:] <= f[:-1] * (1 + 1e-12)).all())


@settings(deadline=None, max_examples=10)
@given(seed=seeds, start=st.sampled_from(["adjoint", "range"]), count=st.integers(1, 8))
def test_history_is_the_recomputed_one(seed, start, count):
    A, S, x_true, y = problem(seed)
    solver = NPGD(S, 0.7, max_iter=count, tol=0, start=start)
    solution = recover(A, y, solver, x_true=x_true, record_iterates=True)
    assert solution.iterates.shape == (count + 1, 4, *SHAPE)
    assert solution.objective.shape == solution.error.shape == (count + 1, 4)
    assert solution.n_iter == count
    assert torch.equal(solution.iterates[-1], solution.x)
    x_0 = A.adjoint(y) if start == "adjoint" else S(A.adjoint(y))
    assert torch.equal(solution.iterates[0], x_0)
    for n, x in enumerate(solution.iterates):
        torch.testing.assert_close(solution.objective[n], squared_norm(A(x) - y))
        torch.testing.assert_close(solution.error[n], squared_norm(x - x_true) / 36)
    testing.check_one_step_identity(A, S, x_true, y, 0.7, iterates=solution.iterates)
    torch.testing.assert_close(solution.psnr, 10 * torch.log10(4 / solution.error[-1]))
    misfit = (A(solution.x) - y).norm(dim=1) / y.norm(dim=1)
    torch.testing.assert_close(solution.relative_misfit, misfit)


def test_no_misfit_is_relative_to_measurements_of_zero():
    A, S, _, y = problem()
    y[1] = 0
    some = recover(A, y, NPGD(S, 0.7, max_iter=2))
    assert some.relative_misfit.isnan().tolist() == [False, True, False, False]
    known = float(some.relative_misfit[[0, 2, 3]].mean())
    assert f"misfit ‖Ax − y‖/‖y‖: mean {known:.3g}" in str(some)
    assert json.loads(json.dumps(some.to_dict(), allow_nan=False))["relative_misfit"][1] is None
    none = recover(A, 0 * y, NPGD(S, 0.7, max_iter=2))
    assert bool(none.relative_misfit.isnan().all()) and "‖Ax − y‖/‖y‖" not in str(none)


def test_batch_is_image_by_image():
    A, S, _, y = problem(batch=5)
    solver = NPGD(S, 0.7, max_iter=12, tol=0)
    together = recover(A, y, solver)
    alone = torch.cat([recover(A, y[i : i + 1], solver).x for i in range(5)])
    torch.testing.assert_close(together.x, alone)


def test_same_input_same_output():
    A, S, _, y = problem()
    first, second = (recover(A, y, NPGD(S, "auto")) for _ in range(2))
    assert torch.equal(first.x, second.x) and first.info == second.info
    assert torch.equal(first.objective, second.objective)


class Counting(MatrixOperator):
    forwards = adjoints = 0

    def _forward(self, x):
        self.forwards += 1
        return super()._forward(x)

    def _adjoint(self, y):
        self.adjoints += 1
        return super()._adjoint(y)


def test_one_iteration_costs_one_of_each():
    _, S, _, _ = problem()
    A, projections = Counting(normal(24, 36) / 5, SHAPE), []

    def project(w):
        projections.append(1)
        return S(w)

    recover(A, normal(2, 24), NPGD(project, 0.5, max_iter=7, tol=0))
    # One more of A and of Aᵀ for x_0 = Aᵀ y and its residual.
    assert (A.forwards, A.adjoints, len(projections)) == (8, 8, 7)


def test_converged():
    A, S, x_true, y = problem()
    solution = recover(A, y, NPGD(S, 0.8, max_iter=500, tol=1e-9), x_true=x_true)
    assert solution.status.startswith("converged after") and solution.n_iter < 500
    assert solution.outcomes == ("converged",) * 4
    assert float(solution.error[-1].max()) < 1e-12


def test_max_iter_reached():
    A, S, _, y = problem()
    solution = recover(A, y, NPGD(S, 0.01, max_iter=3))
    assert solution.status.startswith(
        "max_iter reached: after 3 iterations no image has come to rest"
    )
    assert solution.outcomes == ("max_iter reached",) * 4
    assert "step_size" not in solution.status


def test_slow_growth_is_told():
    A, S, _, y = problem()
    step = 2.2 / testing.exact_constants(A, S)[1]
    solution = recover(A, y, NPGD(S, step, max_iter=12, start="range"))
    assert solution.status.startswith("max_iter reached")
    assert f"try a smaller step_size (it was {step:.4g})" in solution.status


def test_diverged():
    A, S, _, y = problem()
    solution = recover(A, y, NPGD(S, 50.0, max_iter=300))
    assert solution.status.startswith("diverged: after") and solution.n_iter < 300
    assert "try a smaller step_size (it was 50)" in solution.status
    assert solution.outcomes == ("diverged",) * 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_projector_that_breaks_is_divergence(value):
    A, _, _, y = problem()
    solution = recover(A, y, NPGD(lambda w: torch.full_like(w, value), 0.5))
    assert solution.status.startswith("diverged: after 1 iteration ")
    json.dumps(solution.to_dict(), allow_nan=False)


def test_outcomes_are_per_image():
    """Without a set, η > 2/‖A‖² drives away every image but one that starts at rest."""
    A, _, x_true, y = problem(batch=3)
    start = x_true.clone()
    start[1] += normal(*SHAPE)
    solver = NPGD(lambda w: w, 4 / A.norm() ** 2, max_iter=60, start=start, tol=1e-6)
    solution = recover(A, y, solver)
    assert solution.outcomes == ("converged", "diverged", "converged")
    assert "of 1 of 3 images" in solution.status


def test_dark_measurements_are_no_divergence():
    """With y = 0 the adjoint start fits exactly, and the set does not."""
    S, A = testing.random_affine_set(SHAPE, 3), Inpainting(SHAPE, hole=2)
    solution = recover(A, torch.zeros(2, A.m, dtype=DOUBLE), NPGD(S, 0.9, max_iter=400, tol=1e-8))
    assert solution.outcomes == ("converged", "converged")


@dataclass(frozen=True, eq=False)
class LandweberState:
    x: torch.Tensor


@dataclass(frozen=True, eq=False)
class Landweber(Solver[LandweberState]):
    step_size: float

    def init(self, A: LinearOperator, y):
        return LandweberState(torch.zeros(len(y), *A.image_shape, dtype=y.dtype))

    def step(self, A, y, state):
        return LandweberState(state.x - self.step_size * A.adjoint(A(state.x) - y))


def test_the_loop_serves_other_solvers():
    """A solver whose state is x alone; Landweber's limit from 0 is the pseudo-inverse's A⁺ y."""
    A, _, _, y = problem(m=4)
    solution = recover(A, y, Landweber(1 / A.norm() ** 2, max_iter=400, tol=1e-12))
    torch.testing.assert_close(solution.x.flatten(1), y @ torch.linalg.pinv(A.matrix).T)
    torch.testing.assert_close(solution.objective[-1], squared_norm(A(solution.x) - y))
    assert solution.method == "Landweber" and solution.info == {}
    slow = recover(A, y, Landweber(1e3, max_iter=50)).status
    assert slow.endswith("try other hyper-parameters")


def test_summary_and_dictionary():
    A, S, x_true, y = problem()
    solution = recover(A, y, NPGD(S, 0.8, max_iter=5), x_true=x_true)
    text = str(solution)
    assert "NPGD: max_iter reached" in text and "4 images, 5 iterations" in text
    assert "PSNR" in text and "step_size: 0.8" in text
    plain = json.loads(json.dumps(solution.to_dict(), allow_nan=False))
    assert plain["n_iter"] == 5 and plain["info"] == {"step_size": 0.8}
    assert plain["objective"] == solution.objective.tolist()
    assert plain["psnr"] == solution.psnr.tolist()
    blind = recover(A, y, NPGD(S, 0.8, max_iter=5))
    assert blind.psnr is None and blind.iterates is None and "PSNR" not in str(blind)


def test_chosen_step_beats_its_neighbours():
    A, S, _, _ = problem(m=12)
    x = S.sample(16, seed=3)
    step = choose_step_size(A, S, images=x, max_iter=10)

    def error(eta):
        return float(recover(A, A(x), NPGD(S, eta, max_iter=10), x_true=x).error[-1].mean())

    assert error(step) <= error(step * 2 ** (1 / 3)) and error(step) <= error(step / 2 ** (1 / 3))


@settings(deadline=None, max_examples=5)
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_chosen_step_follows_the_operator(seed, scale):
    """Rotated rows leave AᵀA, hence the choice; the grid for c A is that for A over c²."""
    A, S, x, _ = problem(seed, batch=8)
    rotated = MatrixOperator(torch.linalg.qr(normal(24, 24, seed=seed))[0] @ A.matrix, SHAPE)
    scaled = MatrixOperator(scale * A.matrix, SHAPE)
    expected, same, other = (
        choose_step_size(op, S, images=x, max_iter=5) for op in (A, rotated, scaled)
    )
    assert same == pytest.approx(expected, rel=1e-9)
    thirds = 3 * torch.log2(torch.tensor(other * scale**2 / expected, dtype=DOUBLE))
    assert float(thirds - thirds.round()) == pytest.approx(0, abs=1e-6)


def test_auto_is_the_chosen_step():
    A, S, _, y = problem()
    solution = recover(A, y, NPGD(S, "auto", seed=5, max_iter=20))
    assert solution.info["step_size"] == choose_step_size(A, S, seed=5, max_iter=20)
    points = FiniteSet(normal(9, *SHAPE))
    x = points.sample(3, seed=1)
    assert torch.equal(recover(A, A(x), NPGD(points)).x, x)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_dtype_is_kept(dtype):
    A, S, x_true, y = problem()
    A, S = A.to(dtype), S.to(dtype)
    solution = recover(A, y.to(dtype), NPGD(S, 0.8), x_true=x_true.to(dtype))
    assert solution.x.dtype == solution.objective.dtype == solution.error.dtype == dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_follows_cpu():
    A, S, _, y = problem()
    expected = recover(A, y, NPGD(S, "auto"))
    solution = recover(A.to("cuda"), y.to("cuda"), NPGD(S.to("cuda"), "auto"))
    torch.testing.assert_close(solution.x.cpu(), expected.x)


A0, S0, X0, Y0 = problem()


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: recover(A0.matrix, Y0, NPGD(S0, 1.0)), TypeError, "A must be .*as_operator"),
        (lambda: recover(A0, Y0, S0), TypeError, "solver must be"),
        (lambda: recover(A0, Y0[0], NPGD(S0, 1.0)), ValueError, "y must have shape"),
        (lambda: recover(A0, Y0[:, 1:], NPGD(S0, 1.0)), ValueError, "y must have shape"),
        (lambda: recover(A0, Y0[:0], NPGD(S0, 1.0)), ValueError, "y must hold at least 1"),
        (lambda: recover(A0, Y0 / 0, NPGD(S0, 1.0)), ValueError, "y must be finite"),
        (lambda: recover(A0, Y0.float(), NPGD(S0, 1.0)), TypeError, "y must be torch.float64"),
        (lambda: recover(A0, Y0.long(), NPGD(S0, 1.0)), TypeError, "y must be"),
        (lambda: recover(A0, Y0, NPGD(S0, 1.0), X0[:2]), ValueError, "x_true must hold 4 .* got 2"),
        (lambda: recover(A0, Y0, NPGD(S0, 1.0), X0 / 0), ValueError, "x_true must be finite"),
        (lambda: recover(A0, Y0, NPGD(S0, 1.0), X0[0]), ValueError, "x_true must have shape"),
        (
            lambda: recover(A0, Y0, NPGD(S0, 1.0, start=X0[:2])),
            ValueError,
            "start must hold 4 .* got 2",
        ),
        (lambda: recover(A0, Y0, NPGD(S0, 1.0, start=X0[0])), ValueError, "start must have shape"),
        (lambda: recover(A0, Y0, NPGD(lambda w: w[:1], 1.0)), ValueError, "prior must project"),
        (lambda: recover(A0, Y0, NPGD(lambda w: w, "auto")), TypeError, "prior must have `sample`"),
        (
            lambda: recover(Gaussian((1, 4, 9), 24, 0, DOUBLE), Y0, NPGD(S0, 1.0)),
            ValueError,
            "prior must have A.s image_shape",
        ),
        (
            lambda: recover(MatrixOperator(0 * A0.matrix, SHAPE), Y0, NPGD(S0, "1/beta")),
            ValueError,
            "1/beta",
        ),
        (
            lambda: recover(MatrixOperator(0 * A0.matrix, SHAPE), Y0, NPGD(S0)),
            ValueError,
            "A must differ from zero for a step",
        ),
        (
            lambda: choose_step_size(A0, S0, images=X0[:1]),
            ValueError,
            "images must hold at least 2",
        ),
        (lambda: choose_step_size(A0, S0, images=X0[:, 0]), ValueError, "images must have shape"),
        (lambda: NPGD(3), TypeError, "prior must have"),
        (lambda: NPGD(S0, "fast"), ValueError, "step_size must be"),
        (lambda: NPGD(S0, 0), ValueError, "step_size must be"),
        (lambda: NPGD(S0, -1.0), ValueError, "step_size must be"),
        (lambda: NPGD(S0, float("nan")), ValueError, "step_size must be"),
        (lambda: NPGD(S0, max_iter=0), ValueError, "max_iter must be"),
        (lambda: NPGD(S0, tol=-1), ValueError, "tol must be"),
        (lambda: NPGD(S0, start="zero"), ValueError, "start must be"),
    ],
)
def test_door(call, error, named):
    with pytest.raises(error, match=named):
        call()
