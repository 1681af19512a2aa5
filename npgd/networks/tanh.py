"""A small smooth generator, whose constants can be certified (`analysis.certify_rec`)."""

from __future__ import annotations

import math

from torch import nn

from npgd import checks


class TanhGenerator(nn.Sequential):
    """G(z) = W tanh(W_2 tanh(W_1 z + b_1) + b_2) + c: latents (batch, latent_dim) to images.

    It is linear from its last features on, so that distances between its images are a quadratic
    form in `hidden` numbers, and analytic, with derivatives that are bounded in closed form. Pixels
    may leave [−1, 1] by a little.
    """

    def __init__(
        self, latent_dim: int, hidden: int = 64, channels: int = 1, image_size: int = 28
    ) -> None:
        latent_dim, hidden, channels, image_size = checks.sizes(
            latent_dim=latent_dim, hidden=hidden, channels=channels, image_size=image_size
        )
        shape = (channels, image_size, image_size)
        super().__init__(
            nn.Linear(latent_dim, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, math.prod(shape)),
            nn.Unflatten(1, shape),
        )
        self.latent_dim, self.image_shape = latent_dim, shape
