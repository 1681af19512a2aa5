"""Lasso finds the minimum that cvxpy finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import npgd
from analysis.testing import normal
from npgd.images import squared_norm
from npgd.operators import Gaussian, Inpainting, SuperResolution, as_operator
from npgd.solvers import Lasso, recover
from npgd.transforms import DCT, Pixels, Wavelet

DOUBLE = torch.float64
seeds = st.integers(0, 2**31)
BASES = [Pixels, DCT, Wavelet]


def objective(A, y, x, transform, penalty, origin):
    return squared_norm(A(x) - y) + penalty * transform(x - origin).abs().flatten(1).sum(1)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("relative", [0.3, 0.03, 3e-3])
def test_objective_is_cvxpys_optimum(basis, relative):
    import cvxpy as cp

    shape = (1, 8, 8)
    A, transform, origin = Gaussian(shape, 24, 1, DOUBLE), basis(shape), -0.5
    y = normal(3, A.m, seed=4)
    matrix = transform(torch.eye(64, dtype=DOUBLE).reshape(64, *shape)).reshape(64, 64).T.numpy()
    largest = 2 * transform(A.adjoint(y - A(torch.full((1, *shape), origin, dtype=DOUBLE))))
    penalty = relative * float(largest.abs().max())
    solver = Lasso(transform=transform, penalty=penalty, origin=origin, max_iter=20_000, tol=1e-12)
    solution = recover(A, y, solver)
    for i in range(3):
        x = cp.Variable(64)
        loss = cp.sum_squares(A.matrix.numpy() @ x - y[i].numpy())
        problem = cp.Problem(cp.Minimize(loss + penalty * cp.norm1(matrix @ (x - origin))))
        problem.solve(cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
        found = solution.info["lasso_objective"][i]
        assert found == pytest.approx(problem.value, rel=1e-6)
    again = objective(A, y, solution.x, transform, penalty, origin)
    torch.testing.assert_close(again, torch.tensor(solution.info["lasso_objective"], dtype=DOUBLE))


@settings(deadline=None, max_examples=8)
@given(
    seed=seeds,
    kind=st.sampled_from(["gaussian", "inpainting", "super-resolution"]),
    basis=st.sampled_from(BASES),
)
def test_objective_never_rises(seed, kind, basis):
    """Constant λ: F(x_{n+1}) ≤ F(x_n), always."""
    shape = (1, 12, 12)
    A = {
        "gaussian": Gaussian(shape, 40, seed, DOUBLE),
        "inpainting": Inpainting(shape, hole=5),
        "super-resolution": SuperResolution(shape, factor=3),
    }[kind]
    transform, penalty = basis(shape), 0.02
    y = normal(3, A.m, seed=seed)
    solver = Lasso(
        transform=transform, penalty=penalty, origin=0.0, continuation=0, max_iter=120, tol=0
    )
    solution = recover(A, y, solver, record_iterates=True)
    F = torch.stack([objective(A, y, x, transform, penalty, 0.0) for x in solution.iterates])
    assert bool((F[1:] <= F[:-1] * (1 + 1e-13)).all())


@settings(deadline=None, max_examples=2)
@given(seed=seeds, basis=st.sampled_from(BASES))
def test_the_end_satisfies_the_conditions_of_optimality(seed, basis):
    """g = 2ΨAᵀ(Ax − y) is −λ sign(c) where c ≠ 0 and within ±λ elsewhere; batched, with "auto"."""
    shape = (2, 8, 8)
    A, transform = Gaussian(shape, 50, seed, DOUBLE), basis(shape)
    y = A(normal(4, *shape, seed=seed))
    solution = recover(A, y, Lasso(transform=transform, penalty=0.5, max_iter=3000, tol=1e-13))
    c = transform(solution.x + 1.0)
    g = 2 * transform(A.adjoint(A(solution.x) - y)) / 0.5
    on = c.abs() > 1e-7
    assert float(g.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(g[on], -c[on].sign(), rtol=0, atol=1e-6)


def test_the_largest_penalty_leaves_the_constant_image():
    shape = (1, 8, 8)
    A = Gaussian(shape, 20, 0, DOUBLE)
    y = normal(2, A.m)
    o = torch.full((2, *shape), -1.0, dtype=DOUBLE)
    largest = 2 * DCT(shape)(A.adjoint(A(o) - y)).abs().flatten(1).amax(1)
    above = recover(A, y, Lasso(transform="dct", penalty=1.001 * float(largest.max())))
    assert torch.equal(above.x, o)
    below = recover(A, y, Lasso(transform="dct", penalty=0.95 * float(largest.min())))
    assert bool((squared_norm(below.x - o) > 0).all())


def test_sparse_images_are_recovered_exactly_as_the_penalty_vanishes():
    """Few coefficients, enough Gaussian measurements, no noise: the error follows λ to zero."""
    shape = (1, 8, 8)
    A, transform = Gaussian(shape, 40, 3, DOUBLE), Wavelet(shape, "haar")
    c = torch.zeros(5, 64, dtype=DOUBLE)
    for i in range(5):
        c[i, torch.randperm(64, generator=torch.Generator().manual_seed(i))[:6]] = 1.0
    x_true = transform.inverse(c.reshape(5, *shape)) - 1
    errors = []
    for penalty in (1e-2, 1e-3, 1e-4):
        solver = Lasso(transform=transform, penalty=penalty, max_iter=4000, tol=1e-11)
        errors.append(float(recover(A, A(x_true), solver, x_true=x_true).error[-1].max()))
    assert errors[0] > 50 * errors[1] > 2500 * errors[2]


def test_continuation_ends_at_the_same_minimum():
    shape = (1, 8, 8)
    A, y = Gaussian(shape, 30, 0, DOUBLE), normal(3, 30)
    ends = [
        recover(A, y, Lasso(penalty=0.3, continuation=k, max_iter=5000, tol=1e-12))
        for k in (0, 1, 60)
    ]
    for end in ends:
        assert end.status.startswith("converged")
        np.testing.assert_allclose(
            end.info["lasso_objective"], ends[0].info["lasso_objective"], rtol=1e-8
        )


def test_batch_is_image_by_image():
    shape = (1, 8, 8)
    A, y = Gaussian(shape, 30, 0, DOUBLE), normal(4, 30) * torch.tensor([[1.0], [3], [0], [9]])
    solver = Lasso(transform="dct", max_iter=80, tol=0)
    together = recover(A, y, solver)
    alone = torch.cat([recover(A, y[i : i + 1], solver).x for i in range(4)])
    torch.testing.assert_close(together.x, alone)


def test_any_operator_in_either_dtype():
    matrix = normal(20, 64, seed=1).numpy() / 8
    x = normal(2, 1, 8, 8)
    for A in (as_operator(matrix, (1, 8, 8)), as_operator(matrix, (1, 8, 8)).to(torch.float32)):
        y = A(x.to(A.matrix.dtype))
        solution = recover(A, y, npgd.Lasso(max_iter=300))
        assert solution.x.dtype == y.dtype
        assert bool((squared_norm(A(solution.x) - y) < 1e-3 * squared_norm(y)).all())


def test_images_equal_to_the_origin_stay_there():
    A = Inpainting((1, 8, 8), hole=2)
    y = torch.full((1, A.m), -1.0)
    assert torch.equal(recover(A, y, Lasso()).x, torch.full((1, 1, 8, 8), -1.0))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"transform": "fourier"}, "transform must be one of dct, wavelet, pixels"),
        ({"penalty": "large"}, "penalty must be a positive number or"),
        ({"penalty": 0.0}, "penalty must be finite and positive"),
        ({"origin": float("nan")}, "origin must be finite"),
        ({"continuation": -1}, "continuation must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings_, message):
    with pytest.raises(ValueError, match=message):
        Lasso(**settings_)


def test_a_transform_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="transform must have A's image_shape"):
        recover(Gaussian((1, 8, 8), 5), torch.ones(1, 5), Lasso(transform=DCT((1, 6, 6)).float()))


def test_the_transform_may_come_without_its_name():
    assert Lasso("dct").transform == Lasso(transform="dct").transform == "dct"
    with pytest.raises(TypeError):
        Lasso("dct", 0.1)


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 8, 7), (1, 4, 4)])
@pytest.mark.parametrize("named", [True, False])
def test_a_wavelet_basis_that_would_be_the_pixels_is_refused(named, shape):
    transform = "wavelet" if named else Wavelet(shape, "haar").float()
    A = Gaussian(shape, 5)
    with pytest.raises(ValueError, match="must have even sides of 6 or more for a wavelet basis"):
        recover(A, torch.ones(1, 5), Lasso(transform))
