"""Image-to-image networks: a denoiser that is told the noise level, and OneNet's proximal map.

Both halve the image, through widths c, 2c, 4c, …, 4c, and double it again: two convolutions at each
size, ReLU between them, nothing that normalises over the batch. OneNet halves twice, a denoiser
`levels` times: the more, the farther it sees. Sides must be multiples of 2 to that power.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import nn

from npgd import checks
from npgd.images import Images, PerImage
from npgd.showing import Shown

# Root mean square deviation that images on [-1, 1] are taken to have; it only sets scales.
SPREAD = 0.5
MOST_LEVELS = 16  # of halving; sides of 65,536 pixels and more are none of ours


def _block(before: int, after: int, change: int = 0) -> nn.Sequential:
    """Halve (change −1), keep (0) or double (1) the sides, then one convolution more."""
    first: nn.Module
    if change == 0:
        first = nn.Conv2d(before, after, 3, 1, 1)
    elif change < 0:
        first = nn.Conv2d(before, after, 4, 2, 1)
    else:
        first = nn.ConvTranspose2d(before, after, 4, 2, 1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(after, after, 3, 1, 1), nn.ReLU())


def initialise_he(network: nn.Module, generator: torch.Generator) -> None:
    """He's initial weights for ReLU networks: N(0, 2/fan-in), biases 0, drawn from `generator`."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                fan_in = part.weight[0].numel()
                if isinstance(part, nn.ConvTranspose2d):  # (in, out, k, k), of stride s
                    fan_in = part.weight[:, 0].numel() // (part.stride[0] * part.stride[1])
                part.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()


class DenoisingNetwork(Shown, nn.Module):
    """D(w, σ): an estimate of the mean of x given w = x + σ·noise, by a small U-Net F.

        D(w, σ) = a w + b F(c w, log σ),   c = 1/√(σ² + s²),   a = s² c²,   b = σ s c

    with s = SPREAD: F sees inputs and is asked for outputs of size one at every noise level, and
    D(w, σ) → w as σ → 0 (Karras, Aittala, Aila, Laine, NeurIPS 2022, table 1). log σ enters as a
    constant channel. U-Net: Ronneberger, Fischer, Brox, MICCAI 2015; skips are added here.

    Args:
        width: c, channels at full size; four times as many at a quarter of the side and below.
        channels: of the images.
        levels: how often F halves the image.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    def __init__(self, width: int = 12, channels: int = 1, levels: int = 2) -> None:
        super().__init__()
        c, channels = checks.sizes(width=width, channels=channels)
        self.levels = checks.integer(levels, "levels", maximum=MOST_LEVELS)
        self.channels = channels
        widths = [c * min(2**i, 4) for i in range(self.levels + 1)]
        steps = list(itertools.pairwise(widths))
        self.down = nn.ModuleList([_block(channels + 1, c), *(_block(a, b, -1) for a, b in steps)])
        self.up = nn.ModuleList([_block(b, a, 1) for a, b in reversed(steps)])
        self.last = nn.Conv2d(c, channels, 3, 1, 1)

    def extra_repr(self) -> str:
        """What it is of, in a line."""
        return f"channels={self.channels}, levels={self.levels}, {_size(self)}"

    def forward(self, w: Images, sigma: float | PerImage) -> Images:
        """D(w, σ); ValueError for sides that are no multiples of 2 to the power of `levels`."""
        _halved(w, self.channels, self.levels)
        checks.same_kind(w, self, "w", "the network")
        level = checks.levels(sigma, w).clamp_min(1e-4).reshape(-1, 1, 1, 1)
        scale = (level.square() + SPREAD**2).rsqrt()
        h = torch.cat([scale * w, level.log().expand(-1, 1, *w.shape[2:])], dim=1)
        finer = []
        for down in self.down:
            h = down(h)
            finer.append(h)
        for up, skipped in zip(self.up, reversed(finer[:-1]), strict=True):
            h = up(h) + skipped
        estimate: Images = (SPREAD * scale).square() * w + level * SPREAD * scale * self.last(h)
        return estimate


def _size(network: nn.Module) -> str:
    return f"{sum(weights.numel() for weights in network.parameters()):,} weights"


def _halved(w: torch.Tensor, channels: int, levels: int) -> None:
    """Raise ValueError unless w is (batch, channels, height, width) and can be halved so often."""
    checks.floating(w, "w")
    side = 2**levels
    if w.ndim != 4 or w.shape[1] != channels or w.shape[2] % side or w.shape[3] % side:
        multiples = "four" if levels == 2 else str(side)
        raise ValueError(
            f"w must have shape (batch, {channels}, height, width), sides that are multiples of"
            f" {multiples}, got {tuple(w.shape)}"
        )


class ProximalNetwork(Shown, nn.Module):
    """P = decoder∘encoder, OneNet's proximal map: no noise level, no skip past the latent.

    Chang et al., ICCV 2017, section 3.3. `encode` gives the latent (4·width channels at a quarter
    of the side) that the latent classifier looks at.
    """

    def __init__(self, width: int = 12, channels: int = 1) -> None:
        super().__init__()
        c, channels = checks.sizes(width=width, channels=channels)
        self.channels = channels
        self.encoder = nn.Sequential(
            _block(channels, c), _block(c, 2 * c, -1), _block(2 * c, 4 * c, -1)
        )
        self.decoder = nn.Sequential(
            _block(4 * c, 2 * c, 1), _block(2 * c, c, 1), nn.Conv2d(c, channels, 3, 1, 1)
        )

    def extra_repr(self) -> str:
        """What it is of, in a line."""
        return f"channels={self.channels}, {_size(self)}"

    def encode(self, w: Images) -> Float[torch.Tensor, "batch k p q"]:
        """The latent of w; ValueError for sides that are no multiples of four."""
        _halved(w, self.channels, 2)
        checks.same_kind(w, self, "w", "the network")
        latent: torch.Tensor = self.encoder(w)
        return latent

    def forward(self, w: Images) -> Images:
        """P(w)."""
        image: Images = self.decoder(self.encode(w))
        return image


class NaturalnessClassifier(nn.Module):
    """One logit an image (or latent image), positive for natural ones: OneNet's D and D_ℓ.

    Three convolutions with LeakyReLU(0.2), the first two halving the sides, and a mean over places.
    """

    def __init__(self, channels: int = 1, width: int = 12) -> None:
        super().__init__()
        self.channels, width = checks.sizes(channels=channels, width=width)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )

    def forward(self, x: Images) -> PerImage:
        """The logit of each image (or latent image)."""
        logit: PerImage = self.layers(x).mean(dim=(1, 2, 3))
        return logit
