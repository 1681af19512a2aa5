"""The denoiser's network is told the noise level, image by image."""

import pytest
import torch

from analysis.testing import normal
from npgd.networks import DenoisingNetwork
from npgd.networks.denoiser import initialise_he
from npgd.training.loop import generator_for

DOUBLE = torch.float64


def test_denoising_network_takes_a_level_for_each_image_and_vanishing_noise_leaves_all():
    network = DenoisingNetwork(4).double()
    initialise_he(network, generator_for(0))
    w = normal(3, 1, 12, 16)
    together = network(w, torch.tensor([0.1, 0.5, 2.0], dtype=DOUBLE))
    alone = torch.cat([network(w[i : i + 1], s) for i, s in enumerate((0.1, 0.5, 2.0))])
    torch.testing.assert_close(together, alone)
    assert float((network(w, 0.0) - w).detach().abs().max()) < 1e-2
    with pytest.raises(ValueError, match="multiples of four"):
        network(normal(1, 1, 10, 12), 0.1)
