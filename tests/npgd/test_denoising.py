"""One map for projectors and denoisers; the divergence is the trace of the Jacobian."""

import pytest
import torch

from analysis.testing import normal, random_affine_set, random_prior
from npgd.denoising import denoises, estimator, latent_divergence, probed_divergence, signs

SHAPE = (1, 6, 5)


def halved(w, sigma):
    return w / (1 + sigma.reshape(-1, 1, 1, 1))


def averaged(S, w, sigma, count):
    generator = torch.Generator().manual_seed(0)
    draws = [probed_divergence(S, w, sigma, signs(S, w, generator)) for _ in range(count)]
    return torch.stack(draws)


def test_two_needed_arguments_make_a_denoiser():
    assert denoises(halved)
    assert denoises(torch.nn.PReLU()) is False
    assert denoises(lambda w, sigma=1.0: w) is False
    assert denoises(random_affine_set(SHAPE, 3)) is False  # it has `project`


def test_a_denoiser_is_told_sigma_and_a_projector_is_not():
    w, sigma = normal(2, *SHAPE), normal(2).abs()
    assert torch.equal(estimator(halved)(w, sigma), halved(w, sigma))
    S = random_affine_set(SHAPE, 3)
    assert torch.equal(estimator(S)(w, sigma), S.project(w))
    assert torch.equal(estimator(torch.relu)(w, sigma), torch.relu(w)) or denoises(torch.relu)


@pytest.mark.parametrize("bad", [None, 1.0, "mnist"])
def test_what_is_neither_is_refused_by_name(bad):
    with pytest.raises(TypeError, match="thing must have `project"):
        estimator(bad, "thing")


def test_shapes_and_kinds_that_are_not_kept_are_refused():
    w = normal(2, *SHAPE)
    with pytest.raises(ValueError, match="prior must keep the shape"):
        estimator(lambda w: w[:, :, 1:])(w, w.new_ones(2))
    with pytest.raises(TypeError, match="prior must give tensors"):
        estimator(lambda w: None)(w, w.new_ones(2))


def test_the_divergence_of_an_affine_projection_is_its_dimension():
    S, w = random_affine_set(SHAPE, 4), normal(3, *SHAPE)
    assert latent_divergence(S, w) == pytest.approx([4.0] * 3)
    # Along signs of the latents it is k for every draw, not only in the mean.
    for found in averaged(S, w, w.new_ones(3), 5):
        assert found == pytest.approx([4.0] * 3)


def test_the_latent_divergence_is_the_trace_of_the_whole_jacobian():
    prior = random_prior(SHAPE, 3)
    w = normal(2, *SHAPE)
    whole = [torch.func.jacrev(lambda x: prior.project(x[None])[0].flatten())(x) for x in w]
    trace = torch.stack([J.reshape(30, 30).trace() for J in whole]).detach()
    assert latent_divergence(prior, w) == pytest.approx(trace.tolist())
    draws = averaged(prior, w, w.new_ones(2), 400)
    error = draws.std(0) / 20
    assert ((draws.mean(0) - trace).abs() <= 4 * error + 1e-3).all()


def test_a_probe_of_pixels_finds_the_trace_in_the_mean():
    matrix = normal(30, 30, seed=1)

    def linear(w):
        return (w.flatten(1) @ matrix.T).reshape(w.shape)

    w = normal(2, *SHAPE)
    draws = averaged(linear, w, w.new_ones(2), 2000)
    assert ((draws.mean(0) - matrix.trace()).abs() <= 4 * draws.std(0) / 2000**0.5).all()
    # A denoiser's divergence is at the σ it was told; this one has the same for every draw.
    assert averaged(halved, w, w.new_ones(2), 3) == pytest.approx(torch.full((3, 2), 15.0))
