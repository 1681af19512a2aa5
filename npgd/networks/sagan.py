"""Self-attention GAN for 64×64 images: generator, discriminator, encoder; spectral normalisation.

Zhang, Goodfellow, Metaxas, Odena, "Self-attention generative adversarial networks", ICML 2019, as
used in Raj, Li, Bresler, ICCV 2019, section 4.2: in G four transposed convolutions after the input
layer, in D four convolutions before the output layer, self-attention after the third and the
fourth. Width is the number of channels at half the image's side.

The networks here are plain; `add_spectral_norm` normalises their layers for training
(Miyato, Kataoka, Koyama, Yoshida, ICLR 2018), and `folded_state` gives the weights of the
plain network that computes the same, so that what ships needs no normalisation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from npgd import checks
from npgd.images import Images, Latents, PerImage
from npgd.networks.encoder import PrincipalEncoder
from npgd.networks.rectifier import maximum, rectifier

LAYERED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class SelfAttention(nn.Module):
    """x + γ·W_v h(x) softmax(f(x)ᵀ g(x)) over all pairs of pixels; γ starts at 0.

    f, g and h are 1×1 convolutions to an eighth of the channels, W_v one back (Zhang et al.,
    section 3). With `pool` p > 1, f and h pass through max-pooling over p×p pixels, as in the
    code that Zhang et al. released: a quarter of the pairs at p = 2. With `sharpness` the maximum
    is smooth.
    """

    def __init__(self, channels: int, pool: int = 1, sharpness: float | None = None) -> None:
        super().__init__()
        self.pool = maximum(pool, sharpness) if pool > 1 else nn.Identity()
        inner = max(channels // 8, 1)
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.key = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.back = nn.Conv2d(inner, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Images) -> Images:
        """x and what it attends to."""
        q = self.query(x).flatten(2).mT
        k, v = (self.pool(part(x)).flatten(2).mT for part in (self.key, self.value))
        # Written out, because the fused kernels have no forward-mode derivative for tangents.
        attended = (q @ k.mT).softmax(dim=-1) @ v
        back: Images = self.back(attended.mT.reshape(len(x), v.shape[2], *x.shape[2:]))
        return x + self.gain * back


class SAGANGenerator(nn.Module):
    """G: latents (batch, latent_dim) to images (batch, channels, 64, 64) in (-1, 1).

    An input layer to 4×4 and four transposed convolutions, channels 8·width, 4·width, 2·width,
    width, channels; batch norm and ReLU between them, self-attention at 16×16 and 32×32. With
    `sharpness` all of it is smooth (`npgd.networks.rectifier`).
    """

    def __init__(
        self,
        latent_dim: int,
        width: int = 64,
        channels: int = 3,
        sharpness: float | None = None,
    ) -> None:
        super().__init__()
        latent_dim, width, channels = checks.sizes(
            latent_dim=latent_dim, width=width, channels=channels
        )
        self.latent_dim = latent_dim
        sizes = (8 * width, 4 * width, 2 * width, width, channels)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_dim, sizes[0], 4, bias=False),
            nn.BatchNorm2d(sizes[0]),
            rectifier(sharpness),
        ]
        for i in range(4):
            last = i == 3
            layers.append(nn.ConvTranspose2d(sizes[i], sizes[i + 1], 4, 2, 1, bias=last))
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(sizes[i + 1]), rectifier(sharpness)]
            if i in (1, 2):
                layers.append(SelfAttention(sizes[i + 1], pool=2, sharpness=sharpness))
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Latents) -> Float[torch.Tensor, "batch c 64 64"]:
        """G(z). Raises TypeError or ValueError naming `z`."""
        checks.same_kind(checks.latents(z, self.latent_dim), self, "z", "the network")
        image: Images = self.layers(z[:, :, None, None])
        return image


def _convolutions(
    channels: int, width: int, norm: bool, sharpness: float | None = None
) -> list[nn.Module]:
    """The four convolutions to 4×4 with self-attention after the third and the fourth."""
    sizes = (channels, width, 2 * width, 4 * width, 8 * width)
    layers: list[nn.Module] = []
    for i in range(4):
        layers.append(nn.Conv2d(sizes[i], sizes[i + 1], 4, 2, 1))
        if norm and i > 0:
            layers.append(nn.GroupNorm(8, sizes[i + 1]))
        layers.append(rectifier(sharpness, 0.1))
        if i in (2, 3):
            layers.append(SelfAttention(sizes[i + 1], pool=2, sharpness=sharpness))
    return layers


class SAGANDiscriminator(nn.Module):
    """D: images (batch, channels, 64, 64) to one number each (batch,); real is larger.

    Four convolutions (width, 2·width, 4·width, 8·width), LeakyReLU(0.1), self-attention at 8×8 and
    4×4, and an output layer; no batch norm, the layers' spectral norm does its work.
    """

    def __init__(self, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        width, channels = checks.sizes(width=width, channels=channels)
        self.image_shape = (channels, 64, 64)
        self.layers = nn.Sequential(
            *_convolutions(channels, width, norm=False), nn.Conv2d(8 * width, 1, 4)
        )

    def forward(self, x: Float[torch.Tensor, "batch c 64 64"]) -> PerImage:
        """The number of each image. Raises TypeError or ValueError naming `x`."""
        checks.same_kind(checks.images(x, self.image_shape), self, "x", "the network")
        number: PerImage = self.layers(x).flatten()
        return number


class SAGANEncoder(PrincipalEncoder):
    """G†: images (batch, channels, 64, 64) to latents (batch, latent_dim).

    D's convolutions with a latent output, changed as `npgd.networks.Encoder` is and for its
    reasons: the input divided by its root mean square, whose logarithm enters as one more
    channel, group norm, and a hidden layer before the latent. With `sharpness` all of it is smooth.
    """

    def __init__(
        self,
        latent_dim: int,
        width: int = 64,
        hidden: int = 512,
        channels: int = 3,
        principal: bool = False,
        sharpness: float | None = None,
    ) -> None:
        latent_dim, width, hidden, channels = checks.sizes(
            latent_dim=latent_dim, width=width, hidden=hidden, channels=channels
        )
        layers = [
            *_convolutions(channels + 1, width, norm=True, sharpness=sharpness),
            nn.Conv2d(8 * width, hidden, 4),
            rectifier(sharpness, 0.1),
        ]
        super().__init__(latent_dim, layers, hidden, (channels, 64, 64), principal)


# --- spectral normalisation --------------------------------------------------------------------


def add_spectral_norm(network: nn.Module, seed: int) -> None:
    """Divide every layer's weight by its largest singular value, estimated as training goes.

    One power iteration a forward pass in training; none in evaluation, so that the network is then
    a fixed function. `seed` draws the iteration's start.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in list(network.modules()):
            if isinstance(part, LAYERED):
                # A transposed convolution's output channels are its weight's second dimension.
                dim = 1 if isinstance(part, nn.ConvTranspose2d) else 0
                parametrizations.spectral_norm(part, dim=dim)


def folded_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state of the plain network that computes what `network` does in evaluation.

    Without spectral normalisation this is `network.state_dict()`.
    """
    state = network.state_dict()
    for name, part in network.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            prefix = f"{name}.parametrizations.weight"
            for key in [key for key in state if key.startswith(prefix)]:
                del state[key]
            training = part.training
            part.eval()  # in training, looking at a weight moves its power iteration
            with torch.no_grad():
                state[f"{name}.weight"] = part.weight
            part.train(training)
    return state
