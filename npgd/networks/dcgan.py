"""DCGAN for 28×28 and 64×64 images: generator and discriminator.

Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative
adversarial networks", ICLR 2016; four transposed convolutions and four convolutions at 28×28, five
and five at 64×64, as in Raj, Li, Bresler, ICCV 2019, section 4. Width is the number of channels
at half the image's side, and doubles with every halving.
"""

from __future__ import annotations

import torch
from torch import nn

from npgd import checks
from npgd.images import Images, Latents, PerImage
from npgd.networks.rectifier import rectifier

# (kernel, stride, padding) of each layer, from 1×1 up.
LAYERS = {
    28: ((4, 1, 0), (3, 2, 1), (4, 2, 1), (4, 2, 1)),  # 1 → 4 → 7 → 14 → 28
    64: ((4, 1, 0), (4, 2, 1), (4, 2, 1), (4, 2, 1), (4, 2, 1)),  # 1 → 4 → 8 → 16 → 32 → 64
}


def layers_for(image_size: int) -> tuple[tuple[int, int, int], ...]:
    """The layers that lead from 1×1 to images of that side; ValueError where there are none."""
    size = checks.integer(image_size, "image_size", minimum=0)
    if size not in LAYERS:
        raise ValueError(f"image_size must be one of {', '.join(map(str, LAYERS))}, got {size}")
    return LAYERS[size]


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
    """G: latents (batch, latent_dim) to images (batch, channels, height, width) in (-1, 1).

    `image_size` is both height and width. Transposed convolutions with batch norm and ReLU
    between them, and a final tanh; channels 4·width, 2·width, width, channels at 28×28, and
    8·width before them at 64×64. With `sharpness` the ReLUs are smooth (`npgd.networks.rectifier`).
    """

    def __init__(
        self,
        latent_dim: int,
        width: int = 32,
        channels: int = 1,
        image_size: int = 28,
        sharpness: float | None = None,
    ) -> None:
        super().__init__()
        latent_dim, width, channels = checks.sizes(
            latent_dim=latent_dim, width=width, channels=channels
        )
        self.latent_dim = latent_dim
        shapes = layers_for(image_size)
        inner = [width * 2**i for i in reversed(range(len(shapes) - 1))]
        sizes = (latent_dim, *inner, channels)
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(shapes):
            last = i == len(shapes) - 1
            layers.append(
                nn.ConvTranspose2d(sizes[i], sizes[i + 1], kernel, stride, padding, bias=last)
            )
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(sizes[i + 1]), rectifier(sharpness)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Latents) -> Images:
        """G(z). Raises TypeError or ValueError naming `z`."""
        checks.same_kind(checks.latents(z, self.latent_dim), self, "z", "the network")
        image: Images = self.layers(z[:, :, None, None])
        return image


class DCGANDiscriminator(nn.Module):
    """D: images (batch, channels, image_size, image_size) to one logit each (batch,).

    Real is positive. Convolutions with LeakyReLU(0.2) between them and batch norm in the inner
    ones.
    """

    def __init__(self, width: int = 32, channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        width, channels = checks.sizes(width=width, channels=channels)
        shapes = layers_for(image_size)
        self.image_shape = (channels, int(image_size), int(image_size))
        sizes = (channels, *(width * 2**i for i in range(len(shapes) - 1)), 1)
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(reversed(shapes)):
            inner = 0 < i < len(shapes) - 1
            layers.append(
                nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride, padding, bias=not inner)
            )
            if inner:
                layers.append(nn.BatchNorm2d(sizes[i + 1]))
            if i < len(shapes) - 1:
                layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Images) -> PerImage:
        """The logit of each image. Raises TypeError or ValueError naming `x`."""
        checks.same_kind(checks.images(x, self.image_shape), self, "x", "the network")
        logit: PerImage = self.layers(x).flatten()
        return logit
