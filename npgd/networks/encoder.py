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

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from npgd import checks
from npgd.images import Images, Latents
from npgd.networks.dcgan import layers_for
from npgd.networks.rectifier import rectifier


class _GroupNorm(nn.GroupNorm):
    """Group norm that forward mode differentiates in every memory layout, in evaluation mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if self.training else x.contiguous())


class PrincipalEncoder(nn.Module):
    """What encoders share: the scaled input, and a path through principal components.

    With r the root mean square of w and φ the convolutional `features` of (w/r, log r), the
    latent is a linear `head` of φ. With `principal` it is

        z = (1 + a(φ)) ⊙ L w̄ + b(φ),    (a, b) = head(φ),

    where w̄ is w averaged over 2×2 pixels and L an affine map to k numbers, which
    `start_from` sets to the whitened principal components of a set of images: the best
    linear code of k numbers, with mean 0 and covariance I. Training leaves L as it is, and starts
    a and b at 0.
    """

    def __init__(
        self,
        latent_dim: int,
        features: Sequence[nn.Module],
        hidden: int,
        image_shape: checks.ImageShape,
        principal: bool,
    ) -> None:
        super().__init__()
        self.latent_dim, self.image_shape = latent_dim, image_shape
        principal = checks.flag(principal, "principal")
        pixels = math.prod(image_shape)
        self.layers = nn.Sequential(
            *features, nn.Flatten(), nn.Linear(hidden, latent_dim * (2 if principal else 1))
        )
        self.principal = nn.Linear(pixels // 4, latent_dim) if principal else None
        if self.principal is not None:
            self.principal.requires_grad_(False)

    def forward(self, w: Images) -> Latents:
        """G†(w). Raises TypeError or ValueError naming `w`."""
        checks.same_kind(checks.images(w, self.image_shape, "w"), self, "w", "the network")
        rms = w.square().mean(dim=(1, 2, 3), keepdim=True).add(1e-12).sqrt()
        level = rms.log().expand(-1, 1, *w.shape[2:])
        z: Latents = self.layers(torch.cat([w / rms, level], dim=1))
        if self.principal is None:
            return z
        a, b = torch.chunk(z, 2, dim=1)
        code: Latents = self.principal(F.avg_pool2d(w, 2).flatten(1))
        return (1 + a) * code + b

    @torch.no_grad()
    def start_from(self, images: Images) -> None:
        """Set L to the whitened principal components of `images`, and a and b to 0."""
        assert self.principal is not None
        pooled = F.avg_pool2d(images, 2).flatten(1)
        mean = pooled.mean(dim=0)
        covariance = torch.cov((pooled - mean).T.double(), correction=0)
        values, vectors = torch.linalg.eigh(covariance)
        k = self.latent_dim
        scales = values[-k:].clamp_min(1e-12 * values[-1]).sqrt()
        weight = (vectors[:, -k:] / scales).T.flip(0).to(pooled)
        # An eigenvector's sign is the library's choice; its largest entry is made positive.
        largest = weight.gather(1, weight.abs().argmax(dim=1, keepdim=True))
        weight = weight * largest.sign()
        self.principal.weight.copy_(weight)
        self.principal.bias.copy_(-weight @ mean)
        head = self.layers[-1]
        assert isinstance(head, nn.Linear)
        head.weight.zero_()
        head.bias.zero_()


class Encoder(PrincipalEncoder):
    """G†: images (batch, channels, image_size, image_size) to latents (batch, latent_dim).

    Convolutions (width, 2·width, 4·width, hidden at 28×28; 8·width before hidden at 64×64) and a
    linear layer; LeakyReLU(0.2), smooth with `sharpness` (`npgd.networks.rectifier`). `principal`:
    see `PrincipalEncoder`.
    """

    def __init__(
        self,
        latent_dim: int,
        width: int = 32,
        hidden: int = 256,
        channels: int = 1,
        image_size: int = 28,
        principal: bool = False,
        sharpness: float | None = None,
    ) -> None:
        latent_dim, width, hidden, channels = checks.sizes(
            latent_dim=latent_dim, width=width, hidden=hidden, channels=channels
        )
        shapes = layers_for(image_size)
        shape = (channels, int(image_size), int(image_size))
        sizes = (channels + 1, *(width * 2**i for i in range(len(shapes) - 1)), hidden)
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(reversed(shapes)):
            layers.append(nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride, padding))
            if 0 < i < len(shapes) - 1:
                layers.append(_GroupNorm(8, sizes[i + 1]))
            layers.append(rectifier(sharpness, 0.2))
        super().__init__(latent_dim, layers, hidden, shape, principal)
