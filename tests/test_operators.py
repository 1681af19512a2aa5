"""Every operator is linear, its adjoint is its adjoint, and wrong arguments stop at the door."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from npgd.operators import Gaussian, Inpainting, MatrixOperator, SuperResolution, as_operator

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

    def __init__(self, n, dtype="float64"):
        self.shape, self.dtype = (n, n), np.dtype(dtype)

    def matvec(self, x):
        return np.append(np.diff(x), x[-1])

    def rmatvec(self, y):
        return np.concatenate([[-y[0]], y[:-2] - y[1:-1], [y[-2] + y[-1]]])


def rand(*size, seed=0, dtype=DOUBLE):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sparse(shape, m, seed):
    rng = np.random.default_rng(seed)
    return scipy.sparse.random(m, math.prod(shape), density=0.3, random_state=rng, format="csr")


KINDS = {
    "gaussian": lambda shape, m, seed: Gaussian(shape, m, seed, DOUBLE),
    "matrix": lambda shape, m, seed: MatrixOperator(rand(m, math.prod(shape), seed=seed), shape),
    "hole": lambda shape, m, seed: Inpainting(shape, hole=min(shape[1:]) - 1),
    "mask": lambda shape, m, seed: Inpainting(shape, mask=one_pixel(rand(*shape, seed=seed) > 0)),
    "mask of a plane": lambda shape, m, seed: Inpainting(
        shape, mask=one_pixel(rand(*shape[1:], seed=seed) > 0)
    ),
    "super-resolution": lambda shape, m, seed: SuperResolution(shape, factor=2),
    "torch": lambda shape, m, seed: as_operator(rand(m, math.prod(shape), seed=seed), shape),
    "numpy": lambda shape, m, seed: as_operator(
        rand(m, math.prod(shape), seed=seed).numpy(), shape
    ),
    "scipy sparse": lambda shape, m, seed: as_operator(sparse(shape, m, seed), shape),
    "scipy operator": lambda shape, m, seed: as_operator(
        scipy.sparse.linalg.aslinearoperator(sparse(shape, m, seed)), shape
    ),
    "pylops-like": lambda shape, m, seed: as_operator(Pylops(math.prod(shape)), shape),
    "deepinv-like": lambda shape, m, seed: as_operator(Physics(), shape),
}


def one_pixel(mask):
    mask.view(-1)[0] = True
    return mask


# Even sides, so that factor 2 divides them.
shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)).map(
    lambda s: (s[0], 2 * s[1], 2 * s[2])
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(shape=shapes, m=st.integers(1, 40), batch=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_dot_product(kind, shape, m, batch, seed):
    A = KINDS[kind](shape, m, seed)
    x, y = rand(batch, *shape, seed=seed), rand(batch, A.m, seed=seed + 1)
    measured, back = A(x), A.adjoint(y)
    assert measured.shape == (batch, A.m) and measured.dtype == DOUBLE
    assert back.shape == x.shape and back.dtype == DOUBLE
    forward, backward = (measured * y).sum(1), (back * x).flatten(1).sum(1)
    scale = measured.norm(dim=1) * y.norm(dim=1) + back.flatten(1).norm(dim=1) * x.norm()
    assert bool(((forward - backward).abs() <= 1e-12 * scale).all())


def dense(A):
    """The matrix of A, column by column."""
    eye = torch.eye(A.n, dtype=DOUBLE).reshape(A.n, *A.image_shape)
    return A(eye).T


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=10)
@given(shape=shapes, m=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_norm_is_the_largest_singular_value(kind, shape, m, seed):
    A = KINDS[kind](shape, m, seed)
    expected = float(torch.linalg.matrix_norm(dense(A), 2))
    assert A.norm() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert KINDS[kind](shape, m, seed).norm() == A.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_batch_is_image_by_image_and_linear(kind):
    A = KINDS[kind]((2, 6, 4), 9, 5)
    x, z = rand(3, 2, 6, 4), rand(3, 2, 6, 4, seed=1)
    torch.testing.assert_close(A(x), torch.cat([A(x[i : i + 1]) for i in range(3)]))
    torch.testing.assert_close(A(2 * x - 3 * z), 2 * A(x) - 3 * A(z))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_objective_is_two_adjoint_residual(kind):
    """∇‖A x − y‖² = 2 Aᵀ(A x − y), through autograd, for operators of other libraries too."""
    A = KINDS[kind]((1, 4, 4), 7, 3)
    x = rand(2, 1, 4, 4).requires_grad_()
    y = rand(2, A.m, seed=1)
    (gradient,) = torch.autograd.grad((A(x) - y).square().sum(), x)
    torch.testing.assert_close(gradient, 2 * A.adjoint(A(x.detach()) - y))


@pytest.mark.parametrize("kind", ["gaussian", "matrix", "hole", "mask", "super-resolution"])
def test_float32_follows_float64(kind):
    A = KINDS[kind]((3, 8, 6), 20, 4)
    x, y = rand(2, 3, 8, 6), rand(2, A.m)
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
    x, y = rand(2, 3, 8, 6), rand(2, A.m)
    exact = A(x), A.adjoint(y), A.norm()
    A = A.to("cuda")
    torch.testing.assert_close(A(x.cuda()).cpu(), exact[0])
    torch.testing.assert_close(A.adjoint(y.cuda()).cpu(), exact[1])
    assert A.norm() == pytest.approx(exact[2])


def test_gaussian_entries_and_seed():
    A = Gaussian((1, 28, 28), 100, seed=3)
    assert torch.equal(A.matrix, Gaussian((1, 28, 28), 100, seed=3).matrix)
    assert not torch.equal(A.matrix, Gaussian((1, 28, 28), 100, seed=4).matrix)
    assert torch.equal(A.matrix, Gaussian((1, 28, 28), 100, 3, DOUBLE).matrix.float())
    # 78,400 entries: the variance is 1/m within five of its standard errors.
    assert float(A.matrix.var()) * 100 == pytest.approx(1, abs=5 * math.sqrt(2 / 78400))


def test_inpainting_hides_the_centred_square():
    A = Inpainting((3, 8, 10), hole=4)
    seen = A.adjoint(torch.ones(1, A.m, dtype=DOUBLE))[0]
    expected = torch.ones(3, 8, 10, dtype=DOUBLE)
    expected[:, 2:6, 3:7] = 0
    assert torch.equal(seen, expected)
    assert torch.equal(Inpainting((3, 8, 10), mask=expected[0] == 1).index, A.index)
    assert torch.equal(Inpainting((3, 8, 10), mask=(expected == 1).numpy()).index, A.index)


def test_super_resolution_averages_boxes():
    x = torch.arange(16, dtype=DOUBLE).reshape(1, 1, 4, 4)
    assert SuperResolution((1, 4, 4), 2)(x).tolist() == [[2.5, 4.5, 10.5, 12.5]]


@pytest.mark.parametrize(
    ("A", "expected"),
    [
        (Inpainting((2, 6, 6), hole=2), True),
        (SuperResolution((2, 6, 6), 2), False),
        (SuperResolution((2, 6, 6), 1), True),
        (Gaussian((2, 6, 6), 20), False),
        (MatrixOperator(torch.linalg.qr(rand(72, 20))[0].T, (2, 6, 6)), True),
        (MatrixOperator(torch.linalg.qr(rand(72, 20).float())[0].T, (2, 6, 6)), True),
        (MatrixOperator(2 * torch.linalg.qr(rand(72, 20))[0].T, (2, 6, 6)), False),
        (MatrixOperator(torch.linalg.qr(rand(90, 72))[0], (2, 6, 6)), False),
    ],
)
def test_row_orthonormal_means_a_at_is_the_identity(A, expected):
    assert A.row_orthonormal is expected
    A = A.double()
    y = rand(5, A.m)
    close = bool((A(A.adjoint(y)) - y).abs().max() < 1e-5)
    assert close is expected


def test_norm_follows_a_changed_matrix():
    A = MatrixOperator(rand(5, 16), (1, 4, 4))
    before = A.norm()
    A.matrix.mul_(3)
    assert A.norm() == pytest.approx(3 * before, rel=1e-12)


@pytest.mark.parametrize("m", [1, 5, 40])
def test_norm_of_degenerate_matrices(m):
    assert MatrixOperator(torch.zeros(m, 16), (1, 4, 4)).norm() == 0
    assert MatrixOperator(torch.ones(m, 16).double(), (1, 4, 4)).norm() == pytest.approx(
        math.sqrt(16 * m)
    )


def test_norm_of_equal_singular_values():
    A = MatrixOperator(torch.linalg.qr(rand(784, 100))[0].T, (1, 28, 28))
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
        (lambda: Gaussian(S, 3, dtype=torch.float16), TypeError, "matrix"),
        (lambda: Gaussian(S, 3, seed=-1), ValueError, "seed"),
        (lambda: MatrixOperator(NAN, S), ValueError, "matrix holds NaN"),
        (lambda: MatrixOperator(1 / torch.zeros(3, 16), S), ValueError, "matrix holds NaN"),
        (lambda: MatrixOperator(torch.zeros(3, 15), S), ValueError, "matrix has shape"),
        (lambda: MatrixOperator(torch.zeros(0, 16), S), ValueError, "matrix has shape"),
        (lambda: MatrixOperator(torch.zeros(16), S), ValueError, "matrix has shape"),
        (lambda: MatrixOperator(torch.zeros(3, 16).long(), S), TypeError, "matrix must be float"),
        (lambda: MatrixOperator(np.zeros((3, 16), int), S), TypeError, "matrix must be float"),
        (lambda: MatrixOperator(torch.zeros(3, 16).to_sparse(), S), TypeError, "matrix"),
        (lambda: MatrixOperator([[1.0] * 16], S), TypeError, "matrix must be"),
        (lambda: Inpainting(S), ValueError, "hole and mask"),
        (lambda: Inpainting(S, 2, torch.ones(4, 4).bool()), ValueError, "hole and mask"),
        (lambda: Inpainting(S, hole=4), ValueError, "hole keeps no pixel"),
        (lambda: Inpainting(S, hole=5), ValueError, "hole must be at most"),
        (lambda: Inpainting(S, hole=-1), ValueError, "hole must be at least"),
        (lambda: Inpainting(S, mask=torch.zeros(4, 4).bool()), ValueError, "mask keeps no pixel"),
        (lambda: Inpainting(S, mask=torch.ones(4, 4)), TypeError, "mask must be a boolean"),
        (lambda: Inpainting(S, mask=torch.ones(4, 5).bool()), ValueError, "mask has shape"),
        (lambda: SuperResolution(S, 3), ValueError, "factor 3 does not divide"),
        (lambda: SuperResolution(S, 0), ValueError, "factor must be at least 1"),
        (lambda: Gaussian(S, 3)(torch.zeros(2, 4, 4)), ValueError, "x has shape"),
        (lambda: Gaussian(S, 3)(torch.zeros(2, 1, 4, 5)), ValueError, "x has shape"),
        (lambda: SuperResolution(S)(torch.zeros(2, 1, 8, 8)), ValueError, "x has shape"),
        (lambda: Inpainting(S, 2)(X.long()), TypeError, "x must be float"),
        (lambda: Gaussian(S, 3)(X.numpy()), TypeError, "x must be a torch tensor"),
        (lambda: Gaussian(S, 3)(X.double()), TypeError, "x is torch.float64"),
        (lambda: Gaussian(S, 3).adjoint(Y.double()), TypeError, "y is torch.float64"),
        (lambda: Gaussian(S, 3).adjoint(Y[0]), ValueError, "y has shape"),
        (lambda: Gaussian(S, 4).adjoint(Y), ValueError, "y has shape"),
        (lambda: as_operator(object(), S), TypeError, "obj must be"),
        (lambda: as_operator(Pylops(15), S), ValueError, "obj has shape"),
        (lambda: as_operator(Pylops(16, "complex128"), S), TypeError, "obj must be real"),
        (lambda: as_operator(scipy.sparse.csr_array(NAN.numpy()), S), ValueError, "obj holds NaN"),
        (lambda: as_operator(Physics(wrong=True), S), ValueError, "adjoint of obj"),
    ],
)
def test_door(call, error, named):
    with pytest.raises(error, match=named):
        call()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 200))
def test_a_wrong_adjoint_is_seen(seed, n):
    """A @ x with the adjoint of another matrix; the test at the door is one random pair."""
    matrix, other = rand(n, n, seed=seed).numpy(), rand(n, n, seed=seed + 1).numpy()
    wrong = scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=lambda x: matrix @ x, rmatvec=lambda y: other.T @ y, dtype=float
    )
    with pytest.raises(ValueError, match="adjoint of obj"):
        as_operator(wrong, (1, 1, n))


def test_matrix_free_operators_hold_no_matrix():
    shape = (3, 64, 64)
    for A in (Inpainting(shape, hole=20), SuperResolution(shape, 4)):
        assert sum(buffer.numel() for buffer in A.buffers()) <= math.prod(shape)
