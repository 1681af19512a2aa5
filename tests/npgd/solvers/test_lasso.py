"""The bases are orthonormal, and Lasso finds the minimum that cvxpy finds."""

import numpy as np
import pytest
import pywt
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import npgd
from npgd.operators import Gaussian, Inpainting, SuperResolution, as_operator
from npgd.solvers import Lasso, recover
from npgd.transforms import DCT, Pixels, Wavelet

DOUBLE = torch.float64
seeds = st.integers(0, 2**31)
BASES = [Pixels, DCT, Wavelet]


def rand(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def squared(x):
    return x.flatten(1).square().sum(1)


def objective(A, y, x, transform, penalty, origin):
    return squared(A(x) - y) + penalty * transform(x - origin).abs().flatten(1).sum(1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (2, 12, 20), (1, 7, 7), (1, 2, 64)])
@pytest.mark.parametrize("wavelet", ["dct", "haar", "db2", "db4", "db10", "sym4", "coif2"])
def test_bases_are_orthonormal(shape, wavelet):
    """⟨Ψa, Ψb⟩ = ⟨a, b⟩, and Ψᵀ inverts Ψ from both sides; the input is left alone."""
    transform = DCT(shape) if wavelet == "dct" else Wavelet(shape, wavelet)
    a, b = rand(2, *shape, seed=1), rand(2, *shape, seed=2)
    kept = a.clone()
    # sym4 and coif2 come with twelve digits.
    near = {"rtol": 0, "atol": 1e-9 if wavelet in ("sym4", "coif2") else 1e-10}
    inner = (transform(a) * transform(b)).flatten(1).sum(1)
    torch.testing.assert_close(inner, (a * b).flatten(1).sum(1), **{**near, "atol": 1e-7})
    torch.testing.assert_close(squared(transform(a)), squared(a), rtol=1e-10, atol=0)
    torch.testing.assert_close(transform.inverse(transform(a)), a, **near)
    torch.testing.assert_close(transform(transform.inverse(a)), a, **near)
    assert torch.equal(a, kept)


def test_dct_is_scipys():
    x = rand(2, 3, 6, 10)
    expected = scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(DCT((3, 6, 10))(x).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("wavelet", ["haar", "db4", "sym4"])
@pytest.mark.parametrize("side", [28, 64])
def test_wavelet_coefficients_are_pywavelets(wavelet, side):
    """Level by level the blocks of pywt's periodised transform, up to a cyclic shift."""
    block, transform = rand(1, 1, side, side), Wavelet((1, side, side), wavelet)
    coefficients = transform(block)
    for level in range(transform.levels):
        half = block.shape[-1] // 2
        low, (horizontal, vertical, diagonal) = pywt.dwt2(
            block[0, 0].numpy(), wavelet, "periodization"
        )
        one = Wavelet((1, 2 * half, 2 * half), wavelet, levels=1)(block)
        ours = [one[..., :half, :half], *transform.blocks(coefficients)][1 + 3 * level :]
        for mine, theirs in zip(
            [one[..., :half, :half], *ours[:3]], [low, vertical, horizontal, diagonal], strict=True
        ):
            values = np.sort(mine.flatten().numpy())
            np.testing.assert_allclose(values, np.sort(theirs.flatten()), atol=1e-9)
        block = one[..., :half, :half]


def test_levels_follow_the_sides():
    assert Wavelet((1, 28, 28)).levels == 2
    assert Wavelet((3, 64, 64)).levels == 4
    assert Wavelet((1, 7, 7)).levels == 0
    with pytest.raises(ValueError, match="28×28 halves only 2 times"):
        Wavelet((1, 28, 28), levels=3)


@pytest.mark.parametrize("wavelet", ["bior2.2", "dmey", "db99"])
def test_wavelets_that_are_no_basis_are_refused(wavelet):
    with pytest.raises(ValueError, match=f"wavelet: '{wavelet}'"):
        Wavelet((1, 28, 28), wavelet)


def test_constant_images_have_no_details():
    transform = Wavelet((1, 28, 28), "db4")
    *details, coarsest = transform.blocks(transform(torch.ones(1, 1, 28, 28, dtype=DOUBLE)))
    assert len(details) == 6 and float(coarsest.abs().min()) > 1
    for block in details:
        assert float(block.abs().max()) < 1e-10


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("relative", [0.3, 0.03, 3e-3])
def test_objective_is_cvxpys_optimum(basis, relative):
    import cvxpy as cp

    shape = (1, 8, 8)
    A, transform, origin = Gaussian(shape, 24, 1, DOUBLE), basis(shape), -0.5
    y = rand(3, A.m, seed=4)
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
    y = rand(3, A.m, seed=seed)
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
    y = A(rand(4, *shape, seed=seed))
    solution = recover(A, y, Lasso(transform=transform, penalty=0.5, max_iter=3000, tol=1e-13))
    c = transform(solution.x + 1.0)
    g = 2 * transform(A.adjoint(A(solution.x) - y)) / 0.5
    on = c.abs() > 1e-7
    assert float(g.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(g[on], -c[on].sign(), rtol=0, atol=1e-6)


def test_the_largest_penalty_leaves_the_constant_image():
    shape = (1, 8, 8)
    A = Gaussian(shape, 20, 0, DOUBLE)
    y = rand(2, A.m)
    o = torch.full((2, *shape), -1.0, dtype=DOUBLE)
    largest = 2 * DCT(shape)(A.adjoint(A(o) - y)).abs().flatten(1).amax(1)
    above = recover(A, y, Lasso(transform="dct", penalty=1.001 * float(largest.max())))
    assert torch.equal(above.x, o)
    below = recover(A, y, Lasso(transform="dct", penalty=0.95 * float(largest.min())))
    assert bool((squared(below.x - o) > 0).all())


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
    A, y = Gaussian(shape, 30, 0, DOUBLE), rand(3, 30)
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
    A, y = Gaussian(shape, 30, 0, DOUBLE), rand(4, 30) * torch.tensor([[1.0], [3], [0], [9]])
    solver = Lasso(transform="dct", max_iter=80, tol=0)
    together = recover(A, y, solver)
    alone = torch.cat([recover(A, y[i : i + 1], solver).x for i in range(4)])
    torch.testing.assert_close(together.x, alone)


def test_any_operator_in_either_dtype():
    matrix = rand(20, 64, seed=1).numpy() / 8
    x = rand(2, 1, 8, 8)
    for A in (as_operator(matrix, (1, 8, 8)), as_operator(matrix, (1, 8, 8)).to(torch.float32)):
        y = A(x.to(A.matrix.dtype))
        solution = recover(A, y, npgd.Lasso(max_iter=300))
        assert solution.x.dtype == y.dtype
        assert bool((squared(A(solution.x) - y) < 1e-3 * squared(y)).all())


def test_images_equal_to_the_origin_stay_there():
    A = Inpainting((1, 8, 8), hole=2)
    y = torch.full((1, A.m), -1.0)
    assert torch.equal(recover(A, y, Lasso()).x, torch.full((1, 1, 8, 8), -1.0))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"transform": "fourier"}, "transform must be one of dct, wavelet, pixels"),
        ({"penalty": "large"}, "penalty must be positive or"),
        ({"penalty": 0.0}, "penalty must be finite and positive"),
        ({"origin": float("nan")}, "origin must be finite"),
        ({"continuation": -1}, "continuation must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings_, message):
    with pytest.raises(ValueError, match=message):
        Lasso(**settings_)


def test_a_transform_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="transform has image_shape"):
        recover(Gaussian((1, 8, 8), 5), torch.ones(1, 5), Lasso(transform=DCT((1, 6, 6)).float()))


def test_the_transform_may_come_without_its_name():
    assert Lasso("dct").transform == Lasso(transform="dct").transform == "dct"
    with pytest.raises(TypeError):
        Lasso("dct", 0.1)
