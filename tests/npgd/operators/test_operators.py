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

from analysis import testing
from npgd.operators import (
    Gaussian,
    Inpainting,
    MatrixOperator,
    SubsampledDCT,
    SuperResolution,
    as_operator,
    load_operator,
    save_operator,
    scattered_boxes,
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

    def __init__(self, n, dtype="float64"):
        self.shape, self.dtype = (n, n), np.dtype(dtype)

    def matvec(self, x):
        return np.append(np.diff(x), x[-1])

    def rmatvec(self, y):
        return np.concatenate([[-y[0]], y[:-2] - y[1:-1], [y[-2] + y[-1]]])


def rand(*size, seed=0, dtype=DOUBLE):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


KINDS = testing.KINDS | {
    "torch": lambda shape, m, seed: as_operator(rand(m, math.prod(shape), seed=seed), shape),
    "numpy": lambda shape, m, seed: as_operator(
        rand(m, math.prod(shape), seed=seed).numpy(), shape
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
    x = rand(2, 1, 4, 4).requires_grad_()
    y = rand(2, A.m, seed=1)
    (gradient,) = torch.autograd.grad((A(x) - y).square().sum(), x)
    torch.testing.assert_close(gradient, 2 * A.adjoint(A(x.detach()) - y))


@pytest.mark.parametrize(
    "kind",
    ["gaussian", "matrix", "hole", "mask", "super-resolution", "dct", "whitened matrix",
     "whitened boxes"],
)  # fmt: skip
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


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_scattered_boxes(boxes, side, seed):
    """Every missing pixel lies in a missing square; no more are missing than the boxes hold."""
    mask = scattered_boxes((3, 9, 12), boxes, side, seed)
    missing = ~mask
    assert side**2 <= int(missing.sum()) <= boxes * side**2
    squares = missing.unfold(0, side, 1).unfold(1, side, 1).all(dim=3).all(dim=2)
    covered = torch.zeros_like(mask)
    for top, left in squares.nonzero().tolist():
        covered[top : top + side, left : left + side] = True
    assert torch.equal(covered, missing)
    # the first boxes of a larger number are the same
    assert bool((scattered_boxes((3, 9, 12), boxes + 1, side, seed) <= mask).all())
    assert Inpainting((3, 9, 12), mask=mask).m == 3 * int(mask.sum())


def test_scattered_boxes_are_checked():
    with pytest.raises(ValueError, match="side must be at most 9"):
        scattered_boxes((1, 9, 12), 1, 10)
    with pytest.raises(ValueError, match="leave no pixel"):
        scattered_boxes((1, 4, 4), 1, 4)
    with pytest.raises(ValueError, match="boxes must be at least 1"):
        scattered_boxes((1, 4, 4), 0, 2)


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
        (SubsampledDCT((2, 6, 6), 20), True),
        (whiten(Gaussian((2, 6, 6), 20)), True),
        (whiten(Gaussian((2, 6, 6), 70, dtype=DOUBLE)), True),
        (whiten(Inpainting((2, 6, 6), hole=2)), True),
        (whiten(SuperResolution((2, 6, 6), 2)), True),
        (whiten(as_operator(scipy.sparse.csr_array(rand(20, 72).numpy()), (2, 6, 6))), True),
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
        (lambda: SubsampledDCT(S), ValueError, "m and index"),
        (lambda: SubsampledDCT(S, 17), ValueError, "m must be at most 16"),
        (lambda: SubsampledDCT(S, 2, weights=torch.eye(16)[0]), ValueError, "at most 1"),
        (lambda: SubsampledDCT(S, 2, weights=-torch.ones(16)), ValueError, "weights must be"),
        (lambda: SubsampledDCT(S, 2, weights=torch.ones(15)), ValueError, "weights must be"),
        (lambda: SubsampledDCT(S, index=torch.tensor([1, 1])), ValueError, "index must be"),
        (lambda: SubsampledDCT(S, index=torch.tensor([16])), ValueError, "index must be"),
        (lambda: whiten(torch.eye(16)), TypeError, "A must be a LinearOperator"),
        (lambda: whiten(Gaussian(S, 17)), ValueError, "rank 16 at m = 17"),
        (lambda: whiten(Gaussian(S, 5)).whiten(Y), ValueError, "y has shape"),
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


def test_dct_is_the_transform_of_the_signal_libraries():
    """Against scipy.fft: every coefficient, channel by channel."""
    x = rand(2, 3, 6, 5)
    A = SubsampledDCT((3, 6, 5), index=torch.arange(90), dtype=DOUBLE)
    expected = scipy.fft.dctn(x.numpy(), type=2, norm="ortho", axes=(2, 3)).reshape(2, 90)
    torch.testing.assert_close(A(x), torch.from_numpy(expected))


def test_dct_draws_follow_the_weights():
    """One coefficient at a time: frequencies within five standard errors of the weights."""
    weights = torch.tensor([0.0, 1, 2, 3, 4, 0, 0, 0], dtype=DOUBLE)
    draws = torch.cat(
        [SubsampledDCT((1, 2, 4), 1, seed, weights).index for seed in range(2000)]
    ).bincount(minlength=8)
    p = weights / weights.sum()
    assert bool(((draws / 2000 - p).abs() <= 5 * (p * (1 - p) / 2000).sqrt()).all())
    A = SubsampledDCT((1, 2, 4), 4, 0, weights)
    assert A.index.tolist() == [1, 2, 3, 4]


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
    x, y = rand(3, 1, 4, 6), rand(3, A.m, seed=1)
    expected = torch.from_numpy(np.ascontiguousarray(root))
    torch.testing.assert_close(W.whiten(y), y @ expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(dense(W), expected @ matrix, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(W.whiten(A(x)), W(x))
    torch.testing.assert_close(dense(W) @ dense(W).T, torch.eye(A.m, dtype=DOUBLE))


def test_whitening_holds_for_bad_conditions():
    """Condition 1e5, squared 1e10: rows are orthonormal to sixteen epsilons all the same."""
    u, _, v = torch.linalg.svd(rand(20, 64), full_matrices=False)
    W = whiten(MatrixOperator((u * torch.logspace(0, -5, 20, dtype=DOUBLE)) @ v, (1, 8, 8)))
    assert W.row_orthonormal and W.condition == pytest.approx(1e5, rel=1e-4)
    # The polar factor of U S Vᵀ is U Vᵀ.
    torch.testing.assert_close(W.matrix, u @ v, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(S, 5, seed=2),
        lambda: MatrixOperator(rand(3, 16), S),
        lambda: Inpainting(S, mask=rand(4, 4) > 0),
        lambda: SuperResolution(S, 2),
        lambda: SubsampledDCT(S, 7, seed=1),
        lambda: whiten(Gaussian(S, 5)),
        lambda: whiten(SuperResolution(S, 2)).double(),
        lambda: whiten(Inpainting(S, hole=2)).double(),
    ],
)
def test_what_is_loaded_is_what_was_saved(make, tmp_path):
    A, path = make(), tmp_path / "A.safetensors"
    save_operator(A, path, {"method": "by hand", "numbers": [1, 2.5]})
    B = load_operator(path)
    assert B.provenance["method"] == "by hand" and B.provenance["numbers"] == [1, 2.5]
    assert B.provenance["npgd"]
    x, y = rand(2, *S).to(A._kind()[0]), rand(2, A.m).to(A._kind()[0])
    assert torch.equal(A(x), B(x)) and torch.equal(A.adjoint(y), B.adjoint(y))
    assert A.row_orthonormal == B.row_orthonormal and A.norm() == B.norm()
    assert load_operator(path, torch.float64)(x.double()).dtype == DOUBLE
    assert [p.name for p in tmp_path.iterdir()] == ["A.safetensors"]
    if hasattr(A, "whiten"):
        assert torch.equal(A.whiten(y), B.whiten(y))


def test_a_saved_operator_keeps_its_own_provenance(tmp_path):
    save_operator(Gaussian(S, 5, seed=2), tmp_path / "g.safetensors")
    assert load_operator(tmp_path / "g.safetensors").provenance["seed"] == 2
    save_operator(load_operator(tmp_path / "g.safetensors"), tmp_path / "h.safetensors")
    assert load_operator(tmp_path / "h.safetensors").provenance["method"] == "gaussian"


def test_files_that_are_no_operators(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "A.safetensors"
    with pytest.raises(FileNotFoundError, match="no operator file at"):
        load_operator(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_operator(path)
    save_file({"matrix": rand(3, 16)}, path)
    with pytest.raises(ValueError, match="no 'operator' in its header"):
        load_operator(path)
    for header in ("{", '{"kind": "Fourier", "image_shape": [1, 4, 4]}', '{"kind": "Inpainting"}'):
        save_file({"matrix": rand(3, 16)}, path, {"operator": header})
        with pytest.raises(ValueError, match="does not hold the operator it names"):
            load_operator(path)
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_operator(Gaussian(S, 3), tmp_path / "A.pt")
    with pytest.raises(TypeError, match="_PhysicsOperator"):
        save_operator(as_operator(Physics(), S), path)
    with pytest.raises(TypeError, match="provenance"):
        save_operator(Gaussian(S, 3), path, {"prior": object()})
    with pytest.raises(TypeError, match="A must be a LinearOperator"):
        save_operator(rand(3, 16), path)
