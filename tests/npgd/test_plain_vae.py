"""A plain variational autoencoder, as public ones are, in place of a trained projector."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy

import npgd
from npgd import data

SHAPE, K = (1, 28, 28), 20


def trained(x, steps=2000):
    """A plain autoencoder of one hidden layer, images in [0, 1], encoder (mean, log-variance)."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 2 * K))
    decoder = nn.Sequential(
        nn.Linear(K, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid(), nn.Unflatten(1, SHAPE)
    )
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,))]
        mean, log_variance = encoder(batch).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        fit = binary_cross_entropy(decoder(z), batch, reduction="sum")
        loss = fit + (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        adam.zero_grad()
        loss.backward()
        adam.step()
    return encoder, decoder


class Mean(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, w):
        return self.encoder(w)[:, :K]


@pytest.mark.slow
def test_a_plain_autoencoder_recovers_its_samples_and_held_out_digits():
    try:
        digits = data.mnist("train")
    except FileNotFoundError:
        pytest.skip("no MNIST here")
    encoder, decoder = trained((digits + 1) / 2)
    g = npgd.as_generator(decoder, pixels=(0, 1))
    e = npgd.as_encoder(Mean(encoder), pixels=(0, 1))
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), K))
    own = npgd.GenerativePrior(g, e, K, SHAPE)
    without = npgd.GenerativePrior(g, untrained, K, SHAPE)
    A = npgd.Gaussian(SHAPE, m=100, seed=0)
    held_out, samples = data.mnist("test", count=50), own.sample(50, seed=1)

    def error(solver, x):
        return float((npgd.recover(A, A(x), solver).x - x).square().mean())

    searching = npgd.NPGD(npgd.LatentRefinement(own))
    assert error(searching, held_out) <= 0.045
    assert error(npgd.NPGD(own), held_out) <= 0.045
    for prior in (own, without):
        assert error(npgd.NPGD(npgd.LatentRefinement(prior, steps=3)), samples) < 0.01
