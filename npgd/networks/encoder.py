"""The encoder G†, the second half of the projector P = G∘G†.

Raj, Li, Bresler, ICCV 2019, section 3.2 and 4.1: the discriminator's architecture with a latent
output. What differs here, and why:

- No dropout. The authors' released code keeps it on at test time, which makes P random.
- The input is divided by its root mean square r, and log r enters as a constant second channel.
  The points a recovery projects, w_n = x_n − η Aᵀ(A x_n − y), range from clean images to images
  under noise of several times their norm, and r tells the network which it is looking at.
- Group norm in place of batch norm, so that P(w) depends on w alone, in training as in use.
- One hidden layer between the last convolution and the latent.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn

from .dcgan import layers_for


class Encoder(nn.Module):
    """G†: images (batch, channels, image_size, image_size) to latents (batch, latent_dim).

    Convolutions (width, 2·width, 4·width, hidden at 28×28; 8·width before hidden at 64×64) and a
    linear layer; LeakyReLU(0.2).
    """

    def __init__(
        self,
        latent_dim: int,
        width: int = 32,
        hidden: int = 256,
        channels: int = 1,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        shapes = layers_for(image_size)
        sizes = (channels + 1, *(width * 2**i for i in range(len(shapes) - 1)), hidden)
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(reversed(shapes)):
            layers.append(nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride, padding))
            if 0 < i < len(shapes) - 1:
                layers.append(nn.GroupNorm(8, sizes[i + 1]))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(hidden, latent_dim))

    def forward(self, w: Float[torch.Tensor, "batch c h w"]) -> Float[torch.Tensor, "batch k"]:
        rms = w.square().mean(dim=(1, 2, 3), keepdim=True).add(1e-12).sqrt()
        level = rms.log().expand(-1, 1, *w.shape[2:])
        return self.layers(torch.cat([w / rms, level], dim=1))
