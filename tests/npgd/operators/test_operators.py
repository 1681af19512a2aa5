"""Every operator is linear, its adjoint is its adjoint, and wrong arguments stop at the door."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
import npgd
from analysis import testing
from analysis.testing import normal
from npgd.operators import (
    Gaussian,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    SubsampledDCT,
    SuperResolution,
    as_operator,
    whiten,
)

DOUBLE = torch.float64


class Physics(torch.nn.Module):
    """What deepinv calls a physics: a blur along rows, measured as an image."""

    def __init__(self, wrong: bool = False):
        super().__init__()
        self.register_buffer("kernel", torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE))
        self.wrong = wrong

    def A(self, x):
        left, right = torch.roll(x, 1, -1), torch.roll(x, -1, -1)
        return self.kernel[0] * left + self.kernel[1] * x + self.kernel[2] * right

    def A_adjoint(self, y):
        if self.wrong:
            return self.A(y)
        left, right = torch.roll(y, 1, -1), torch.roll(y, -1, -1)
        return self.kernel[2] * left + self.kernel[1] * y + self.kernel[0] * right


class Pylops:
    """What pylops calls a LinearOperator: a first difference, one vector at a time."""

    def __init__(self, n):
        self.shape, self.dtype = (n, n), np.dtype("float64")

    def matvec(self, x):
        return np.append(np.diff(x), x[-1])

    def rmatvec(self, y):
        return np.concatenate([[-y[0]], y[:-2] - y[1:-1], [y[-2] + y[-1]]])


KINDS = testing.KINDS | {
    "torch": lambda shape, m, seed: as_operator(normal(m, math.prod(shape), seed=seed), shape),
    "numpy": lambda shape, m, seed: as_operator(
        normal(m, math.prod(shape), seed=seed).numpy(), shape
    ),
    "pylops-like": lambda shape, m, seed: as_operator(Pylops(math.prod(shape)), shape),
    "deepinv-like": lambda shape, m, seed: as_operator(Physics(), shape),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(data=st.data(), batch=st.integers(1, 4), seed=testing.seeds)
def test_linear_with_its_adjoint(kind, data, batch, seed):
    A = data.draw(testing.operators(kinds={kind: KINDS[kind]}))
    testing.check_adjoint(A, batch=batch, seed=seed)
    testing.check_linear(A, batch=batch, seed=seed)


def dense(A):
    """The matrix of A, column by column."""
    eye = torch.eye(A.n, dtype=DOUBLE).reshape(A.n, *A.image_shape)
    return A(eye).T


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(shape=testing.image_shapes(), m=st.integers(1, 40), seed=testing.seeds)
def test_norm_is_the_largest_singular_value(kind, shape, m, seed):
    A = KINDS[kind](shape, m, seed)
    testing.check_norm(A)
    # The same operator, up to the order in which BLAS sums, which follows where memory lies.
    assert KINDS[kind](shape, m, seed).norm() == pytest.approx(A.norm(), rel=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_objective_is_two_adjoint_residual(kind):
    """∇‖A x − y‖² = 2 Aᵀ(A x − y), through autograd, for operators of other libraries too."""
    A = KINDS[kind]((1, 4, 4), 7, 3)
    x = normal(2, 1, 4, 4).requires_grad_()
    y = normal(2, A.m, seed=1)
    (gradient,) = torch.autograd.grad((A(x) - y).square().sum(), x)
    torch.testing.assert_close(gradient, 2 * A.adjoint(A(x.detach()) - y))


@pytest.mark.parametrize(
    "kind",
    ["gaussian", "matrix", "hole", "mask", "super-resolution", "dct", "blur", "valid blur", "radon",
     "structured random", "fourier", "fourier of coils", "whitened matrix",
     "whitened boxes"],
)  # fmt: skip
def test_float32_follows_float64(kind):
    A = KINDS[kind]((3, 8, 6), 20, 4)
    x, y = normal(2, 3, 8, 6), normal(2, A.m)
    exact = A(x), A.adjoint(y), A.norm()
    A = A.to(torch.float32)
    measured, back = A(x.float()), A.adjoint(y.float())
    assert measured.dtype == back.dtype == torch.float32
    torch.testing.assert_close(measured.double(), exact[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.double(), exact[1], rtol=1e-5, atol=1e-5)
    assert A.norm() == pytest.approx(exact[2], rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_follows_cpu(kind):
    A = KINDS[kind]((3, 8, 6), 20, 4)
    x, y = normal(2, 3, 8, 6), normal(2, A.m)
    exact = A(x), A.adjoint(y), A.norm()
    A = A.to("cuda")
    torch.testing.assert_close(A(x.cuda()).cpu(), exact[0])
    torch.testing.assert_close(A.adjoint(y.cuda()).cpu(), exact[1])
    assert A.norm() == pytest.approx(exact[2])


def test_gaussian_entries_have_variance_one_over_m_and_follow_their_seed():
    A = Gaussian((1, 28, 28), 100, seed=3)
    assert torch.equal(A.matrix, Gaussian((1, 28, 28), 100, seed=3).matrix)
    assert not torch.equal(A.matrix, Gaussian((1, 28, 28), 100, seed=4).matrix)
    assert torch.equal(A.matrix, Gaussian((1, 28, 28), 100, 3, DOUBLE).matrix.float())
    # 78,400 entries: the variance is 1/m within five of its standard errors.
    assert float(A.matrix.var()) * 100 == pytest.approx(1, abs=5 * math.sqrt(2 / 78400))


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(1e-200, DOUBLE), (1e200, DOUBLE), (1e-20, torch.float32), (1e20, torch.float32)],
)
@pytest.mark.parametrize("m", [1, 5, 80])
def test_the_norm_is_right_where_its_square_is_no_number(m, size, dtype):
    A = MatrixOperator((size * normal(m, 64)).to(dtype), (1, 8, 8))
    exact = float(torch.linalg.matrix_norm(normal(m, 64), 2))
    assert A.norm() == pytest.approx(size * exact, rel=1e-5 if dtype == torch.float32 else 1e-12)
    assert MatrixOperator(0 * A.matrix, (1, 8, 8)).norm() == 0


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_what_squares_an_operator_says_that_it_is_too_large_or_small(size):
    A = MatrixOperator(size * normal(5, 64), (1, 8, 8))
    y, images = A(normal(2, 1, 8, 8)), normal(8, 1, 8, 8)
    S = npgd.FiniteSet(images)
    calls = (
        ("A", lambda: whiten(A)),
        ("A", lambda: analysis.estimate_rec(A, S)),
        ("A", lambda: npgd.choose_step_size(A, S, images=images[:2], max_iter=1)),
        ("y", lambda: npgd.recover(A, y, npgd.Lasso(max_iter=1))),
        ("y", lambda: analysis.decompose(A, y, images[:2], images.reshape(4, 2, 1, 8, 8), 1.0)),
    )
    for name, call in calls:
        with pytest.raises(ValueError, match=f"{name} must be of a size between"):
            call()


@pytest.mark.parametrize(
    ("A", "expected"),
    [
        (Inpainting((2, 6, 6), hole=2), True),
        (SuperResolution((2, 6, 6), 2), False),
        (SuperResolution((2, 6, 6), 1), True),
        (Gaussian((2, 6, 6), 20), False),
        (MatrixOperator(torch.linalg.qr(normal(72, 20))[0].T, (2, 6, 6)), True),
        (MatrixOperator(torch.linalg.qr(normal(72, 20).float())[0].T, (2, 6, 6)), True),
        (MatrixOperator(2 * torch.linalg.qr(normal(72, 20))[0].T, (2, 6, 6)), False),
        (MatrixOperator(torch.linalg.qr(normal(90, 72))[0], (2, 6, 6)), False),
        (MatrixOperator(torch.eye(72)[[*range(10), 9]], (2, 6, 6)), False),
        (SubsampledDCT((2, 6, 6), 20), True),
        (whiten(Gaussian((2, 6, 6), 20)), True),
        (whiten(Gaussian((2, 6, 6), 70, dtype=DOUBLE)), True),
        (whiten(Inpainting((2, 6, 6), hole=2)), True),
        (whiten(SuperResolution((2, 6, 6), 2)), True),
        (whiten(as_operator(scipy.sparse.csr_array(normal(20, 72).numpy()), (2, 6, 6))), True),
    ],
)
def test_row_orthonormal_means_a_at_is_the_identity(A, expected):
    assert A.row_orthonormal is expected
    A = A.double()
    y = normal(5, A.m)
    close = bool((A(A.adjoint(y)) - y).abs().max() < 1e-5)
    assert close is expected


def test_norm_follows_a_changed_matrix():
    A = MatrixOperator(normal(5, 16), (1, 4, 4))
    before = A.norm()
    A.matrix.mul_(3)
    assert A.norm() == pytest.approx(3 * before, rel=1e-12)


class Scaled(LinearOperator):
    """A x = s M vec(x), with M a parameter and s a plain number."""

    def __init__(self, matrix, scale=1.0):
        super().__init__((1, 4, 4), len(matrix))
        self.matrix, self.scale = torch.nn.Parameter(matrix), scale

    def _forward(self, x):
        return self.scale * x.flatten(1) @ self.matrix.T

    def _adjoint(self, y):
        return (self.scale * y @ self.matrix).reshape(-1, 1, 4, 4)


def _in_place(A):
    with torch.no_grad():
        A.matrix.mul_(3)


def _of_data(A):
    A.matrix.data.mul_(3)


def _of_shared_memory(A):
    A.matrix.detach().numpy()[:] *= 3


def _loaded(A):
    A.load_state_dict({"matrix": 3 * A.matrix.detach()})


def _replaced(A):
    A.matrix = torch.nn.Parameter(3 * A.matrix.detach())


def _of_a_number(A):
    A.scale *= 3


@pytest.mark.parametrize(
    "change", [_in_place, _of_data, _of_shared_memory, _loaded, _replaced, _of_a_number]
)
def test_norm_follows_every_change(change):
    A = Scaled(normal(5, 16))
    before = A.norm()
    change(A)
    assert A.norm() == pytest.approx(3 * before, rel=1e-12)


def test_norm_is_computed_once_and_anew_in_another_precision():
    A = Scaled(normal(5, 16))
    A._norm = lambda: next(norms)
    norms = iter([1.0, 2.0, 3.0])
    assert [A.norm(), A.norm(), A.float().norm(), A.norm(), A.double().norm()] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("m", [1, 5, 40])
def test_the_norm_of_equal_entries_is_known(m):
    assert MatrixOperator(torch.zeros(m, 16), (1, 4, 4)).norm() == 0
    assert MatrixOperator(torch.ones(m, 16).double(), (1, 4, 4)).norm() == pytest.approx(
        math.sqrt(16 * m)
    )


def test_the_norm_of_equal_singular_values_is_theirs():
    A = MatrixOperator(torch.linalg.qr(normal(784, 100))[0].T, (1, 28, 28))
    assert A.norm() == pytest.approx(1, rel=1e-12)


def test_as_operator_returns_an_operator_unchanged():
    A = Gaussian((1, 4, 4), 3)
    assert as_operator(A, (1, 4, 4)) is A
    with pytest.raises(ValueError, match="image_shape"):
        as_operator(A, (1, 2, 8))


def test_as_operator_takes_pylops():
    pylops = pytest.importorskip("pylops")
    A = as_operator(pylops.FirstDerivative((4, 6), axis=1), (1, 4, 6))
    assert A.norm() == pytest.approx(float(torch.linalg.matrix_norm(dense(A), 2)))


NAN = torch.full((3, 16), torch.nan)
S = (1, 4, 4)
X, Y = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: Gaussian(S, 0), ValueError, "m must be at least 1"),
        (lambda: Gaussian(S, 2.5), TypeError, "m must be an integer"),
        (lambda: Gaussian(S, True), TypeError, "m must be an integer"),
        (lambda: Gaussian((4, 4), 3), ValueError, "image_shape"),
        (lambda: Gaussian((1, 0, 4), 3), ValueError, "image_shape"),
        (lambda: Gaussian(16, 3), TypeError, "image_shape"),
        (lambda: Gaussian(S, 3, dtype=torch.float16), TypeError, "dtype"),
        (lambda: Gaussian(S, 3, seed=-1), ValueError, "seed"),
        (lambda: MatrixOperator(NAN, S), ValueError, "matrix must be finite"),
        (lambda: MatrixOperator(1 / torch.zeros(3, 16), S), ValueError, "matrix must be finite"),
        (lambda: MatrixOperator(torch.zeros(3, 15), S), ValueError, "matrix must have shape"),
        (lambda: MatrixOperator(torch.zeros(0, 16), S), ValueError, "matrix must have shape"),
        (lambda: MatrixOperator(torch.zeros(16), S), ValueError, "matrix must have shape"),
        (lambda: MatrixOperator(torch.zeros(3, 16).long(), S), TypeError, "matrix must be float"),
        (lambda: MatrixOperator(np.zeros((3, 16), int), S), TypeError, "matrix must be float"),
        (lambda: MatrixOperator(torch.zeros(3, 16).to_sparse(), S), TypeError, "matrix"),
        (lambda: MatrixOperator([[1.0] * 16], S), TypeError, "matrix must be"),
        (lambda: Gaussian(S, 3)(torch.zeros(2, 4, 4)), ValueError, "x must have shape"),
        (lambda: Gaussian(S, 3)(torch.zeros(2, 1, 4, 5)), ValueError, "x must have shape"),
        (lambda: Gaussian(S, 3)(X.numpy()), TypeError, "x must be a torch tensor"),
        (lambda: Gaussian(S, 3)(X.double()), TypeError, "x must be torch.float32"),
        (lambda: Gaussian(S, 3).adjoint(Y.double()), TypeError, "y must be torch.float32"),
        (lambda: Gaussian(S, 3).adjoint(Y[0]), ValueError, "y must have shape"),
        (lambda: Gaussian(S, 4).adjoint(Y), ValueError, "y must have shape"),
        (lambda: whiten(torch.eye(16)), TypeError, "A must be a LinearOperator"),
        (lambda: whiten(Gaussian(S, 17)), ValueError, "rank 16 at m = 17"),
        (lambda: whiten(Gaussian(S, 5)).whiten(Y), ValueError, "y must have shape"),
        (lambda: as_operator(object(), S), TypeError, "obj must be"),
        (lambda: as_operator(Pylops(15), S), ValueError, "obj must have shape"),
        (
            lambda: as_operator(scipy.sparse.csr_array(NAN.numpy()), S),
            ValueError,
            "obj must be finite",
        ),
        (lambda: as_operator(Physics(wrong=True), S), ValueError, "obj must have the adjoint"),
    ],
)
def test_wrong_arguments_stop_at_the_door(call, error, named):
    with pytest.raises(error, match=named):
        call()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 200))
def test_a_wrong_adjoint_is_seen(seed, n):
    """A @ x with the adjoint of another matrix; the test at the door is one random pair."""
    matrix, other = normal(n, n, seed=seed).numpy(), normal(n, n, seed=seed + 1).numpy()
    wrong = scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=lambda x: matrix @ x, rmatvec=lambda y: other.T @ y, dtype=float
    )
    with pytest.raises(ValueError, match="obj must have the adjoint"):
        as_operator(wrong, (1, 1, n))


@pytest.mark.parametrize("kind", KINDS)
def test_whitening_is_the_inverse_root_of_a_at(kind):
    """Against the dense (A Aᵀ)^(-1/2) by scipy, for A x and for y."""
    A = KINDS[kind]((1, 4, 6), 11, 5)
    matrix = dense(A)
    if int(torch.linalg.matrix_rank(matrix)) < A.m:
        with pytest.raises(ValueError, match=f"rank {int(torch.linalg.matrix_rank(matrix))} at"):
            whiten(A)
        return
    root = scipy.linalg.fractional_matrix_power((matrix @ matrix.T).numpy(), -0.5)
    W = whiten(A)
    x, y = normal(3, 1, 4, 6), normal(3, A.m, seed=1)
    expected = torch.from_numpy(np.ascontiguousarray(root))
    torch.testing.assert_close(W.whiten(y), y @ expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(dense(W), expected @ matrix, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(W.whiten(A(x)), W(x))
    torch.testing.assert_close(dense(W) @ dense(W).T, torch.eye(A.m, dtype=DOUBLE))


def test_whitening_holds_for_bad_conditions():
    """Condition 1e5, squared 1e10: rows are orthonormal to sixteen epsilons all the same."""
    u, _, v = torch.linalg.svd(normal(20, 64), full_matrices=False)
    W = whiten(MatrixOperator((u * torch.logspace(0, -5, 20, dtype=DOUBLE)) @ v, (1, 8, 8)))
    assert W.row_orthonormal and W.condition == pytest.approx(1e5, rel=1e-4)
    # The polar factor of U S Vᵀ is U Vᵀ.
    torch.testing.assert_close(W.matrix, u @ v, rtol=0, atol=1e-5)
