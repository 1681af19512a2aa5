"""A solver called as another library's reconstructor gives what `recover` gives."""

import pytest
import torch

import npgd
from analysis import testing

SHAPE = (1, 8, 8)


class Physics(torch.nn.Module):
    """Rows of a float32 matrix, measured as (batch, 1, m)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", testing.normal(20, 64).float() / 5)

    def A(self, x):
        return (x.flatten(1) @ self.matrix.T)[:, None]

    def A_adjoint(self, y):
        return (y[:, 0] @ self.matrix).reshape(-1, *SHAPE)


PRIOR = testing.random_prior(SHAPE, 4).float()
SOLVER = npgd.NPGD(PRIOR, 0.3, max_iter=4)


def test_images_of_other_pixels_are_recovered_in_theirs():
    """x = c + h u: the reconstruction of x is c + h times that of u."""
    physics, u = Physics(), PRIOR.sample(3, seed=0)
    A = npgd.as_operator(physics, SHAPE)
    expected = npgd.recover(A, A(u), SOLVER).x
    for low, high in ((-1, 1), (0, 1), (0, 255)):
        centre, half = (low + high) / 2, (high - low) / 2
        model = npgd.Reconstructor(SOLVER, (low, high))
        x = model(physics.A(centre + half * u), physics)
        torch.testing.assert_close((x - centre) / half, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(x, centre + half * model.solution.x)


def test_the_precision_of_y_comes_back_and_numpy_and_operators_serve():
    A = npgd.Gaussian(SHAPE, 20)
    model = npgd.Reconstructor(SOLVER, (-1, 1))
    y = A(PRIOR.sample(2, seed=0))
    assert torch.equal(model(y, A), npgd.recover(A, y, SOLVER).x)
    physics = Physics()
    y = physics.A(PRIOR.sample(2, seed=0))
    assert model(y.double(), physics).dtype == torch.float64
    torch.testing.assert_close(model(y.numpy(), physics), model(y, physics))


def test_a_solver_without_prior_takes_the_images_of_the_physics():
    physics = Physics()
    y = physics.A(torch.zeros(2, *SHAPE))
    x = npgd.Reconstructor(npgd.Lasso(max_iter=3, penalty=0.1))(y, physics)
    assert x.shape == (2, *SHAPE)


def test_it_moves_with_its_prior():
    model = npgd.Reconstructor(npgd.NPGD(testing.random_prior(SHAPE, 4), 0.3, max_iter=2))
    model.to(torch.float32)
    assert next(model.solver.prior.parameters()).dtype == torch.float32
    assert not npgd.Reconstructor(npgd.Lasso()).state_dict()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: npgd.Reconstructor(PRIOR), TypeError, "solver must be a Solver"),
        (lambda: npgd.Reconstructor(SOLVER, (1, 0)), ValueError, "pixels must be .* low below"),
        (lambda: npgd.Reconstructor(SOLVER, (0, 1, 2)), ValueError, "pixels must be two"),
        (lambda: npgd.Reconstructor(SOLVER, 1.0), TypeError, "pixels must be two"),
        (
            lambda: npgd.Reconstructor(SOLVER)(torch.zeros(1, 3), object()),
            TypeError,
            "physics must be a linear operator: obj must",
        ),
        (
            lambda: npgd.Reconstructor(npgd.Lasso())(torch.zeros(1, 3), object()),
            TypeError,
            "physics must have `A`",
        ),
    ],
)
def test_wrong_arguments_stop_at_the_door(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.filterwarnings("ignore")
def test_deepinv_tests_a_reconstructor_among_its_own():
    deepinv = pytest.importorskip("deepinv")
    physics = deepinv.physics.Blur(torch.ones(1, 1, 3, 3) / 9, padding="valid")
    physics.noise_model = deepinv.physics.GaussianNoise(0.01)
    x = (PRIOR.sample(6, seed=0).detach() + 1) / 2
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, physics(x)), 3)
    model = npgd.Reconstructor(npgd.NPGD(PRIOR, 1.0, max_iter=20, refine=3))
    results = deepinv.test(
        model, loader, physics, metrics=deepinv.metric.PSNR(), device="cpu", verbose=False,
        show_progress_bar=False,
    )  # fmt: skip
    found = results["PSNR"]
    errors = [
        (model(measured, physics) - true).square().flatten(1).mean(1) for true, measured in loader
    ]
    expected = (-10 * torch.log10(torch.cat(errors))).mean()
    assert found == pytest.approx(float(expected), rel=1e-3)
