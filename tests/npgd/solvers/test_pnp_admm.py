"""The data step is the dense one, ADMM finds the Lasso's minimum, denoisers denoise."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.testing import normal
from npgd.denoisers import WaveletShrinkage, load_denoiser
from npgd.operators import (
    Gaussian,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    SuperResolution,
    as_operator,
)
from npgd.solvers import Lasso, PnPADMM, recover
from npgd.solvers.pnp_admm import conjugate_gradients, data_step
from npgd.training import DenoiserConfig, train_denoiser
from npgd.training.denoiser import DenoiserTask
from npgd.training.loop import generator_for
from npgd.transforms import DCT, Wavelet

DOUBLE = torch.float64
SHAPE = (1, 8, 8)
seeds = st.integers(0, 2**31)


class Opaque(LinearOperator):
    """A matrix that nobody can look into: products only."""

    products = 0

    def __init__(self, matrix):
        super().__init__(SHAPE, len(matrix))
        self._matrix = matrix

    def _forward(self, x):
        self.products += 1
        return x.flatten(1) @ self._matrix.T

    def _adjoint(self, y):
        return (y @ self._matrix).reshape(-1, *SHAPE)


def operators(seed):
    wide, tall = normal(20, 64, seed=seed) / 4, normal(90, 64, seed=seed) / 8
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[0, 0] = True
    return {
        "inpainting": (Inpainting(SHAPE, mask=mask), "closed form"),
        "super-resolution": (SuperResolution(SHAPE, 2), "closed form"),
        "orthonormal rows": (
            MatrixOperator(torch.linalg.qr(wide.T)[0].T.contiguous(), SHAPE),
            "closed form",
        ),
        "wide": (MatrixOperator(wide, SHAPE), "Cholesky factor, 20×20"),
        "tall": (MatrixOperator(tall, SHAPE), "Cholesky factor, 64×64"),
        "rank-deficient": (MatrixOperator(wide[[0, 1, 0, 1]], SHAPE), "Cholesky factor, 4×4"),
        "opaque wide": (Opaque(wide), "conjugate gradients"),
        "opaque tall": (Opaque(tall), "conjugate gradients"),
        "scipy": (as_operator(scipy_operator(wide), SHAPE), "conjugate gradients"),
    }


def scipy_operator(matrix):
    import scipy.sparse.linalg

    return scipy.sparse.linalg.aslinearoperator(matrix.numpy())


@settings(deadline=None, max_examples=10)
@given(seed=seeds, penalty=st.floats(1e-3, 10))
@pytest.mark.parametrize("kind", list(operators(0)))
def test_data_step_is_the_dense_solve(kind, seed, penalty):
    """argmin ‖Ax − y‖² + ρ‖x − z‖² solves (AᵀA + ρI) x = Aᵀy + ρz."""
    A, expected_how = operators(seed)[kind]
    dense = A(torch.eye(64, dtype=DOUBLE).reshape(64, *SHAPE)).T
    y, z = normal(3, A.m, seed=seed + 1), normal(3, *SHAPE, seed=seed + 2)
    solve, how = data_step(A, penalty, y)
    assert how == expected_how
    left = dense.T @ dense + penalty * torch.eye(64, dtype=DOUBLE)
    right = y @ dense + penalty * z.flatten(1)
    expected = torch.linalg.solve(left, right.T).T.reshape(z.shape)
    torch.testing.assert_close(z + solve(y - A(z)), expected, rtol=1e-7, atol=1e-8)


def test_data_step_in_float32():
    A = Gaussian(SHAPE, 20, 0)
    y = normal(2, 20).float()
    x = data_step(A, 1e-4, y)[0](y)
    wide = data_step(A.to(DOUBLE), 1e-4, y.double())[0](y.double())
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), wide, rtol=1e-3, atol=1e-3)


def test_conjugate_gradients_take_as_many_products_as_there_are_eigenvalues():
    """Three different eigenvalues: three steps; images of any size, a zero among them, together."""
    values = torch.tensor([1.0, 4.0, 9.0], dtype=DOUBLE).repeat(10)
    b, products = normal(4, 30) * torch.tensor([[1.0], [1e6], [0.0], [1e-6]], dtype=DOUBLE), []

    def K(p):
        products.append(1)
        return p * values

    torch.testing.assert_close(conjugate_gradients(K, b), b / values, rtol=1e-9, atol=0)
    assert len(products) == 3


def test_a_small_problem_never_sees_a_large_matrix():
    """64×64 RGB, 12,288 pixels: a dense n×n matrix would take 1.2 GB in float64."""
    shape = (3, 64, 64)
    A = SuperResolution(shape, 2)
    x = torch.rand(1, *shape)
    solution = recover(A, A(x), PnPADMM(WaveletShrinkage(), max_iter=3))
    assert solution.x.shape == x.shape and solution.info["data_step"] == "closed form"


@settings(deadline=None, max_examples=3)
@given(seed=seeds, penalty=st.floats(0.2, 2.0))
@example(seed=0, penalty=2.0)
@pytest.mark.parametrize("basis", [DCT, Wavelet])
def test_with_a_proximal_map_admm_solves_the_lasso(basis, seed, penalty):
    """D = soft-thresholding at λ/2ρ in Ψ is the proximal map of λ‖Ψx‖₁ at ρ‖v − w‖²."""
    A, transform, weight = Gaussian(SHAPE, 24, seed, DOUBLE), basis(SHAPE), 0.3
    y = normal(3, A.m, seed=seed)

    def shrink(w, sigma):
        c = transform(w)
        return transform.inverse(c.sign() * (c.abs() - weight / (2 * penalty)).clamp_min(0))

    solver = PnPADMM(shrink, penalty=penalty, sigma=1.0, max_iter=8000, tol=1e-10)
    admm = recover(A, y, solver)
    lasso = Lasso(transform=transform, penalty=weight, origin=0.0, max_iter=6000, tol=1e-11)
    fista = recover(A, y, lasso)
    value = admm.objective[-1] + weight * transform(admm.x).abs().flatten(1).sum(1)
    expected = torch.tensor(fista.info["lasso_objective"], dtype=DOUBLE)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


def test_an_identity_denoiser_ends_at_least_squares():
    """D(w) = w: R = 0, so x solves min ‖Ax − y‖²."""
    A = MatrixOperator(normal(90, 64) / 8, SHAPE)
    y = normal(2, 90)
    solution = recover(A, y, PnPADMM(lambda w, sigma: w, penalty=0.1, max_iter=800, tol=1e-12))
    expected = torch.linalg.lstsq(A.matrix, y.T).solution.T.reshape(-1, *SHAPE)
    torch.testing.assert_close(solution.x, expected, rtol=1e-6, atol=1e-7)


def test_the_iteration_is_the_stated_one():
    A, y, rho = Gaussian(SHAPE, 20, 0, DOUBLE), normal(2, 20), 0.7
    told = []

    def D(w, sigma):
        told.append(sigma)
        return 0.5 * w.tanh()

    solver = PnPADMM(D, penalty=rho, sigma=(2.0, 0.02), max_iter=5, tol=0)
    solution = recover(A, y, solver, record_iterates=True)
    left = A.matrix.T @ A.matrix + rho * torch.eye(64, dtype=DOUBLE)
    v = u = torch.zeros(2, 64, dtype=DOUBLE)
    for n in range(6):
        x = torch.linalg.solve(left, (y @ A.matrix + rho * (v - u)).T).T
        torch.testing.assert_close(solution.iterates[n].flatten(1), x)
        v = 0.5 * (x + u).tanh()
        u = u + x - v
    assert told == pytest.approx([2.0 * 0.01 ** (n / 4) for n in range(5)])
    constant = PnPADMM(D, sigma=0.3)
    assert [constant.level(n) for n in (0, 40)] == [0.3, 0.3]


def test_rest_asks_that_x_equals_v():
    """D(w) = w + 1: x − v tends to no zero, and the loop does not call that convergence."""
    A, y = Gaussian(SHAPE, 20, 0, DOUBLE), normal(2, 20)
    solution = recover(A, y, PnPADMM(lambda w, sigma: w + 1, max_iter=40, tol=1e-3))
    assert solution.outcomes != ("converged",) * 2


TINY = DenoiserConfig(width=4, steps=12, batch_size=8)


@pytest.fixture(scope="module")
def images():
    shape = (32, 1, 28, 28)
    return torch.randint(0, 256, shape, generator=generator_for(0), dtype=torch.uint8)


def test_a_stopped_training_ends_with_the_same_bits(images, tmp_path, monkeypatch):
    alone = train_denoiser(images, tmp_path / "alone", TINY, checkpoint_every=5)
    original = DenoiserTask.step

    def step(self, i, *rest):
        if i == 7:
            raise KeyboardInterrupt
        return original(self, i, *rest)

    monkeypatch.setattr(DenoiserTask, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_denoiser(images, tmp_path / "stopped", TINY, checkpoint_every=5)
    monkeypatch.setattr(DenoiserTask, "step", original)
    resumed = train_denoiser(images, tmp_path / "stopped", TINY, checkpoint_every=5)
    for a, b in zip(alone.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_loss_of_a_step_is_the_stated_one(images):
    task, again = DenoiserTask(images, TINY), DenoiserTask(images, TINY)
    losses = task.step(0, 10, generator_for(3))
    draw, x = generator_for(3), again.batches(0)
    sigma = 0.02 * (4.0 / 0.02) ** torch.rand(8, generator=draw)
    w = x + sigma[:, None, None, None] * torch.randn(x.shape, generator=draw)
    with torch.no_grad():
        errors = (again.network(w, sigma) - x).square().mean((1, 2, 3))
    assert float(losses["loss"]) == pytest.approx(float(((1 / sigma**2 + 4) * errors).mean()))


def test_training_settings_and_images_that_make_no_sense_are_named(tmp_path):
    with pytest.raises(ValueError, match="noise_low"):
        DenoiserConfig(noise_low=2.0, noise_high=1.0)
    with pytest.raises(ValueError, match="multiples of four"):
        train_denoiser(torch.zeros(8, 1, 30, 28, dtype=torch.uint8), tmp_path, TINY)


def test_digits_come_back_from_few_measurements(digits):
    """Without noise the error falls to a fifth, and below, of the least-norm solution's."""
    A = Gaussian((1, 28, 28), 200, 0)
    y = A(digits[:8])
    solution = recover(A, y, PnPADMM(load_denoiser("mnist")), x_true=digits[:8])
    assert float(solution.error[-1].mean()) < 0.2 * float(solution.error[0].mean())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"denoiser": 3}, TypeError, "denoiser must be callable"),
        ({"penalty": 0.0}, ValueError, "penalty"),
        ({"sigma": -1.0}, ValueError, "sigma"),
        ({"sigma": (1.0, 0.5, 0.2)}, ValueError, "sigma"),
        ({"sigma": (1.0, 0.0)}, ValueError, "sigma"),
    ],
)
def test_settings_that_make_no_sense_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        PnPADMM(**{"denoiser": lambda w, sigma: w, **arguments})
    with pytest.raises(ValueError, match="rule"):
        WaveletShrinkage(rule="hard")


def test_a_denoiser_that_changes_the_shape_is_named():
    with pytest.raises(ValueError, match="the denoiser must keep the shape"):
        recover(Gaussian(SHAPE, 5), torch.ones(1, 5), PnPADMM(lambda w, s: w[..., :4]))
