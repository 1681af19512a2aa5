"""One gradient and one Adam for every search among latents."""

import torch

from analysis.testing import normal, random_prior
from npgd.latent import Adam, evaluate
from npgd.operators import Gaussian

DOUBLE = torch.float64
SHAPE = (1, 6, 6)


def test_adam_is_torch_adam():
    target, z = normal(5, 4, seed=1), normal(5, 4, seed=2)
    reference = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.1)
    adam = Adam.at(z)
    for _ in range(30):
        optimizer.zero_grad()
        (reference - target).pow(4).sum().backward()
        optimizer.step()
        adam = adam.step(4 * (adam.z - target) ** 3, 0.1)
    torch.testing.assert_close(adam.z, reference.detach(), rtol=1e-10, atol=1e-10)


def test_the_gradient_is_that_of_the_loss():
    prior, A = random_prior(SHAPE, 2), Gaussian(SHAPE, 12, 0, DOUBLE)
    z, y = normal(5, 2), normal(5, 12)

    def loss(latents):
        fit = (A(prior.generate(latents)) - y).square().sum()
        return fit + 0.7 * latents.square().sum()

    images, residuals, gradient = evaluate(prior, z, y, A, penalty=0.7, rows=2)
    torch.testing.assert_close(images, prior.generate(z))
    torch.testing.assert_close(residuals, A(images) - y)
    for entry in ((0, 0), (3, 1)):
        shift = torch.zeros_like(z)
        shift[entry] = 1e-5
        slope = (loss(z + shift) - loss(z - shift)) / 2e-5
        torch.testing.assert_close(gradient[entry], slope, rtol=1e-6, atol=1e-6)
