"""DCGAN for 28×28 images: generator and discriminator.

Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative
adversarial networks", ICLR 2016; four transposed convolutions and four convolutions, as in Raj, Li,
Bresler, ICCV 2019, section 4.1. Width is the number of channels at 14×14.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn

# (kernel, stride, padding) of each layer, from 1×1 up: 1 → 4 → 7 → 14 → 28.
LAYERS_28 = ((4, 1, 0), (3, 2, 1), (4, 2, 1), (4, 2, 1))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """DCGAN's start: weights N(0, 0.02²), batch-norm gains N(1, 0.02²), biases 0."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                part.weight.normal_(0.0, 0.02, generator=generator)
            elif isinstance(part, nn.BatchNorm2d):
                part.weight.normal_(1.0, 0.02, generator=generator)
            else:
                continue
            if part.bias is not None:
                part.bias.zero_()


class DCGANGenerator(nn.Module):
    """G: latents (batch, latent_dim) to images (batch, channels, 28, 28) in (-1, 1).

    Four transposed convolutions with batch norm and ReLU between them, and a final tanh; channels
    4·width, 2·width, width, channels.
    """

    def __init__(self, latent_dim: int, width: int = 32, channels: int = 1) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        sizes = (latent_dim, 4 * width, 2 * width, width, channels)
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(LAYERS_28):
            last = i == len(LAYERS_28) - 1
            layers.append(
                nn.ConvTranspose2d(sizes[i], sizes[i + 1], kernel, stride, padding, bias=last)
            )
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(sizes[i + 1]), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Float[torch.Tensor, "batch k"]) -> Float[torch.Tensor, "batch c 28 28"]:
        return self.layers(z[:, :, None, None])


class DCGANDiscriminator(nn.Module):
    """D: images (batch, channels, 28, 28) to one logit each (batch,); real is positive.

    Four convolutions with LeakyReLU(0.2) between them and batch norm in the inner two.
    """

    def __init__(self, width: int = 32, channels: int = 1) -> None:
        super().__init__()
        sizes = (channels, width, 2 * width, 4 * width, 1)
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(reversed(LAYERS_28)):
            inner = 0 < i < len(LAYERS_28) - 1
            layers.append(
                nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride, padding, bias=not inner)
            )
            if inner:
                layers.append(nn.BatchNorm2d(sizes[i + 1]))
            if i < len(LAYERS_28) - 1:
                layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[torch.Tensor, "batch c 28 28"]) -> Float[torch.Tensor, " batch"]:
        return self.layers(x).flatten()
