"""State evolution is exact where the mathematics is, and message passing follows it elsewhere."""

import math

import pytest
import torch

from analysis.evolution import (
    DenoisingCurve,
    denoising_curve,
    error_budget,
    least_measurements,
    state_evolution,
)
from analysis.testing import normal, random_affine_set, random_finite_set, random_prior
from npgd import AMP, Gaussian, MatrixOperator, recover

DOUBLE = torch.float64
SHAPE = (1, 8, 8)
N, K = 64, 5


def exact_curve(values, sigma, energy=1.0, floor=0.0, n=N):
    """A curve that nobody measured: values (levels,) or (levels, images)."""
    D = torch.as_tensor(values, dtype=DOUBLE).reshape(len(sigma), -1)
    whole = torch.ones(D.shape[1], dtype=DOUBLE)
    return DenoisingCurve(
        sigma=torch.as_tensor(sigma, dtype=DOUBLE),
        by_image=D,
        divergence_by_image=0 * D,
        floor_by_image=floor * whole,
        energy=energy * whole,
        n=n,
        draws=1,
        seconds=0.0,
    )


# The curve ----------------------------------------------------------------------------------------


def test_the_curve_of_an_affine_set_is_its_dimension():
    """D(σ²) = σ² k/n, and the divergence is k."""
    S = random_affine_set(SHAPE, K)
    x = S.sample(30, seed=1)
    curve = denoising_curve(S, x, sigma=[0.1, 1, 7], draws=20)
    ratio = curve.error / curve.sigma.square()
    assert (ratio - K / N).abs().max() <= 4 * float((curve.error_se / curve.sigma.square()).max())
    assert ratio == pytest.approx([float(ratio[0])] * 3)  # the same ν at every level
    assert curve.divergence == pytest.approx((ratio).tolist())  # ‖Π ν‖² both
    assert curve.floor == pytest.approx(0, abs=1e-25)
    exact = denoising_curve(S, x, sigma=[1.0], draws=1, divergence="latent")
    assert exact.divergence * N == pytest.approx([K])


def test_the_divergence_of_the_curve_is_that_of_the_latent():
    prior = random_prior(SHAPE, 3)
    x = prior.sample(200, seed=0)
    probe = denoising_curve(prior, x, sigma=[0.3], draws=20)
    latent = denoising_curve(prior, x, sigma=[0.3], draws=2, divergence="latent")
    allowed = 4 * float(probe.divergence_se + latent.divergence_se)
    assert float((probe.divergence - latent.divergence).abs()) <= allowed


def test_a_power_law_is_interpolated_exactly():
    sigma = torch.tensor([0.1, 0.5, 3.0], dtype=DOUBLE)
    curve = exact_curve(0.25 * sigma.square(), sigma)
    at = torch.tensor([[1e-6], [0.05], [0.2], [1.7], [40.0]], dtype=DOUBLE)
    assert torch.allclose(curve.at(at), 0.25 * at.square())


def test_the_curve_begins_at_its_floor():
    curve = exact_curve([0.3, 0.5], [1.0, 2.0], floor=0.2)
    assert curve.at(torch.tensor([0.0], dtype=DOUBLE)) == pytest.approx([0.2])
    assert curve.at(torch.tensor([0.5], dtype=DOUBLE)) == pytest.approx([0.225])


def test_where_the_curve_is_zero_it_is_straight():
    """A finite set is found again from little noise: D = 0 there."""
    S = random_finite_set(SHAPE, 5)
    curve = denoising_curve(S, S.points, sigma=[1e-3, 100.0])
    middle = curve.at(torch.full((5,), 1.0, dtype=DOUBLE))
    assert curve.by_image[0].tolist() == [0] * 5
    assert torch.allclose(middle, curve.by_image[1] / 1e4, rtol=1e-6)


def test_default_levels_reach_beyond_the_first_sigma():
    S = random_affine_set(SHAPE, K)
    curve = denoising_curve(S, S.sample(4, seed=0))
    assert len(curve.sigma) == 18
    assert not state_evolution(curve, 1).extrapolated
    assert state_evolution(curve, 1, noise=1e3).extrapolated


# The evolution ------------------------------------------------------------------------------------


def test_the_evolution_of_an_affine_set_is_a_geometric_sum():
    """σ_t² = σ_v² + (k/m) σ_{t−1}²."""
    curve = exact_curve([K / N * 0.01, K / N * 100], [0.1, 10.0], energy=2.0)
    found = state_evolution(curve, 20, n_iter=6, noise=0.3)
    variance, expected = 0.09 + N / 20 * 2.0, [2.0]
    for _ in range(6):
        expected.append(K / N * variance)
        variance = 0.09 + K / 20 * variance
    assert found.error == pytest.approx(expected)
    assert found.fixed_point == pytest.approx(K / N * 0.09 / (1 - K / 20))
    assert found.fixed_points == (found.fixed_point,)
    assert found.sigma[-1] ** 2 == pytest.approx(variance)


def test_an_affine_set_needs_its_dimension():
    curve = exact_curve([K / N * 0.01, K / N * 100], [0.1, 10.0], energy=2.0)
    assert least_measurements(curve) == K + 1
    assert state_evolution(curve, K + 1).fixed_point <= 1e-20
    assert state_evolution(curve, K - 1).fixed_point == math.inf


def test_two_fixed_points_make_a_jump():
    """D = 0.001 up to σ = 1, then 0.1: for m = n/4 both 4·0.001 and … stay where they are."""
    sigma = torch.logspace(-2, 2, 200, dtype=DOUBLE)
    curve = exact_curve(torch.where(sigma < 1, 1e-3, 0.5), sigma, energy=0.9, floor=1e-3, n=1000)
    few, many = state_evolution(curve, 250), state_evolution(curve, 600)
    assert few.jumps.all() and not many.jumps.any()
    assert few.fixed_points == pytest.approx((1e-3, 0.5))
    assert many.fixed_points == pytest.approx((1e-3,))
    # It falls once (n/m) D is below 1, the width of the step aside.
    assert least_measurements(curve) == pytest.approx(500, rel=0.05)
    assert "could rest lower" in few.status and "could" not in many.status


def test_the_iterates_end_at_the_fixed_point_and_never_below_the_lowest():
    curve = exact_curve([0.02, 0.03, 0.2, 0.6], [0.05, 0.3, 1.0, 4.0], energy=0.8, floor=0.02)
    for m in (10, 40, 200):
        found = state_evolution(curve, m, n_iter=2000)
        assert float(found.error[-1]) == pytest.approx(found.fixed_point, rel=1e-6)
        assert found.best_by_image <= found.end_by_image


def test_images_evolve_on_their_own():
    both = exact_curve([[0.1, 0.2], [0.4, 0.9]], [0.5, 2.0])
    found = state_evolution(both, 30).by_image
    for i in range(2):
        alone = exact_curve(both.by_image[:, i], both.sigma)
        assert torch.allclose(found[:, i], state_evolution(alone, 30).by_image[:, 0])


# Published numbers --------------------------------------------------------------------------------


def soft(alpha):
    def denoise(w, sigma):
        threshold = alpha * sigma.reshape(-1, 1, 1, 1)
        return w.sign() * (w.abs() - threshold).clamp_min(0)

    return denoise


def risk(epsilon, alpha):
    """sup over amplitudes of D(σ²)/σ² for soft thresholding at ασ, a share ε not zero."""
    phi = math.exp(-(alpha**2) / 2) / math.sqrt(2 * math.pi)
    tail = math.erfc(alpha / math.sqrt(2)) / 2
    noise = 2 * ((1 + alpha**2) * tail - alpha * phi)
    return epsilon * (1 + alpha**2) + (1 - epsilon) * noise


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.2])
def test_soft_thresholding_has_the_published_phase_transition(epsilon):
    """m/n = min over α of the worst risk (Donoho, Maleki, Montanari 2009, equation 5)."""
    alphas = [0.5 + 0.01 * i for i in range(250)]
    alpha = min(alphas, key=lambda a: risk(epsilon, a))
    n, count = 4000, round(epsilon * 4000)
    x = torch.zeros(4, n, dtype=DOUBLE)
    x[:, :count] = 1
    curve = denoising_curve(soft(alpha), x.reshape(4, 1, 50, 80), draws=2)
    assert least_measurements(curve) / n == pytest.approx(risk(epsilon, alpha), rel=0.04)


def test_message_passing_follows_the_evolution():
    """A shrinkage D(w; σ) = w/(1 + σ²) has the curve D(σ²) = σ²(σ² x² + 1)/(1 + σ²)²."""

    def shrink(w, sigma):
        return w / (1 + sigma.square().reshape(-1, 1, 1, 1))

    shape, m = (1, 40, 50), 1500
    x = normal(2, *shape, seed=3)
    energy = x.square().mean((1, 2, 3))
    curve = denoising_curve(shrink, x, draws=4)
    level = curve.sigma[:, None]
    known = level**2 * (level**2 * energy + 1) / (1 + level**2) ** 2
    assert torch.allclose(curve.by_image, known, rtol=0.1)
    predicted = state_evolution(curve, m, n_iter=8, noise=0.1).error
    observed = []
    for seed in range(3):
        A = Gaussian(shape, m, seed=seed, dtype=DOUBLE)
        y = A(x) + 0.1 * normal(2, m, seed=seed)
        run = recover(A, y, AMP(shrink, max_iter=8, tol=0), x_true=x)
        observed.append(run.error.mean(1))
    assert torch.stack(observed).mean(0) == pytest.approx(predicted.tolist(), rel=0.05)


def test_orthonormal_rows_follow_their_own_evolution():
    shape, m = (1, 40, 50), 800
    x = torch.zeros(4, *shape, dtype=DOUBLE)
    x[:, :, :4] = normal(4, 1, 4, 50, seed=1)
    curve = denoising_curve(soft(1.14), x, draws=4)
    observed = []
    for seed in range(2):
        rows = torch.linalg.qr(normal(2000, m, seed=seed))[0].T.contiguous()
        A = MatrixOperator(rows, shape)
        run = recover(A, A(x), AMP(soft(1.14), max_iter=6, tol=0), x_true=x)
        observed.append(run.error.mean(1))
    found = torch.stack(observed).mean(0)
    predicted = state_evolution(curve, m, n_iter=6, rows="orthonormal").error
    assert found == pytest.approx(predicted.tolist(), rel=0.1)
    # That of independent entries is another.
    assert (state_evolution(curve, m, n_iter=6).error / found - 1).abs().max() > 0.3


def test_all_pixels_measured_leave_the_floor():
    curve = exact_curve([0.3, 0.5], [1.0, 2.0], floor=0.2)
    assert state_evolution(curve, N, rows="orthonormal").error[1:] == pytest.approx([0.2] * 30)
    with pytest.raises(ValueError, match="m must be at most n = 64"):
        state_evolution(curve, N + 1, rows="orthonormal")


# Results ------------------------------------------------------------------------------------------


def test_results_print_and_convert():
    S = random_affine_set(SHAPE, K)
    curve = denoising_curve(S, S.sample(3, seed=0))
    found = state_evolution(curve, 20)
    for result in (curve, found):
        assert len(str(result).splitlines()) <= 20
        assert result.to_dict()["status"] == result.status
    assert "independent entries" in found.status


def test_the_seed_decides():
    S = random_affine_set(SHAPE, K)
    x = S.sample(3, seed=0)
    one, same, other = (denoising_curve(S, x, seed=seed).by_image for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_arguments_are_named():
    S = random_affine_set(SHAPE, K)
    x = S.sample(3, seed=0)
    with pytest.raises(TypeError, match="prior must have `project"):
        denoising_curve(None, x)
    with pytest.raises(ValueError, match="sigma must be"):
        denoising_curve(S, x, sigma=[0.0])
    with pytest.raises(TypeError, match="curve must be a DenoisingCurve"):
        state_evolution(x, 5)
    with pytest.raises(TypeError, match='divergence="latent"'):
        denoising_curve(lambda w: w, x, divergence="latent")
    with pytest.raises(ValueError, match="images must have shape"):
        denoising_curve(S, x[:, :, 1:])


# What limits a recovery ---------------------------------------------------------------------------


def test_the_parts_of_an_error_sum_up_to_it():
    curve = exact_curve([0.02, 0.03, 0.2, 0.6], [0.05, 0.3, 1.0, 4.0], energy=0.8, floor=0.02)
    for m in (10, 40, 200):
        end = state_evolution(curve, m, noise=0.2).fixed_point
        assert error_budget(curve, m, 0.2).error == pytest.approx(end)
        whole = error_budget(curve, m, 0.2, nearest=0.015, observed=0.9)
        assert whole.error == pytest.approx(0.9)
        assert whole.predicted == pytest.approx(end)
        assert whole.parts["range"] + whole.parts["projector"] == pytest.approx(0.02)
        assert whole.doubled == pytest.approx(state_evolution(curve, 2 * m, noise=0.2).fixed_point)
        assert len(str(whole).splitlines()) == 6


def test_of_an_affine_set_only_the_noise_remains():
    curve = exact_curve([K / N * 0.01, K / N * 100], [0.1, 10.0], energy=2.0)
    parts = error_budget(curve, 20, noise=0.3).parts
    assert parts["noise"] == pytest.approx(K / N * 0.09 / (1 - K / 20))
    assert abs(parts["projector"]) + abs(parts["measurements"]) <= 1e-15
