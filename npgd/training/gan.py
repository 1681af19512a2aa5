"""Train a generator: the vanilla GAN of the paper, and a variant whose range covers the data.

Raj, Li, Bresler, ICCV 2019, section 4.1: min_G max_D E log D(x) + E log(1 − D(G(z))) with the
non-saturating loss for G (Goodfellow et al. 2014), Adam, images in [-1, 1], z ~ N(0, I), batch 128.

A GAN alone leaves out parts of the data, and what range(G) lacks no recovery finds. With
``coverage`` c > 0 an encoder G† is trained beside G, on clean images, and G's loss becomes

    −E log D(G(z)) + c · ( E‖G(G†(x)) − x‖²/n + λ E‖G†(G(z)) − z‖²/k + λ M ),

where M = ‖mean G†(x)‖²/k + ‖cov G†(x) − I‖²_F/k over the batch keeps the latents of real images
where z ~ N(0, I) puts its mass. c = 0 is the paper's training.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import nn

from ..networks import DCGANDiscriminator, DCGANGenerator, Encoder
from ..networks.dcgan import initialise
from .loop import Average, Batches, channels_last, decayed, generator_for, set_rate, train


@dataclass(frozen=True)
class GeneratorConfig:
    """Settings of a generator's training; the defaults are the paper's, at width 32."""

    latent_dim: int = 20
    width: int = 32
    coverage: float = 0.0
    latent_weight: float = 0.1
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-4
    average: float = 0.999
    seed: int = 0


def latent_moments(z: Float[torch.Tensor, "batch k"]) -> Float[torch.Tensor, ""]:
    """‖mean z‖²/k + ‖cov z − I‖²_F/k over a batch: zero for the moments of N(0, I)."""
    k = z.shape[1]
    mean = z.mean(dim=0)
    centred = z - mean
    covariance = centred.T @ centred / max(len(z) - 1, 1)
    identity = torch.eye(k, dtype=z.dtype, device=z.device)
    return (mean.square().sum() + (covariance - identity).square().sum()) / k


class GeneratorTask:
    """One GAN step: D on real and generated images, then G (with G† when coverage is asked for)."""

    def __init__(
        self,
        images: UInt8[torch.Tensor, "n c h w"],
        config: GeneratorConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.batches = Batches(images, config.batch_size, config.seed)
        channels = images.shape[1]
        start = generator_for(config.seed, 2)
        self.g = DCGANGenerator(config.latent_dim, config.width, channels)
        self.d = DCGANDiscriminator(config.width, channels)
        initialise(self.g, start)
        initialise(self.d, start)
        mean = DCGANGenerator(config.latent_dim, config.width, channels)
        self.networks: dict[str, nn.Module] = {"generator": self.g, "discriminator": self.d}
        if config.coverage > 0:
            self.e = Encoder(config.latent_dim, config.width, 8 * config.width, channels)
            initialise_encoder(self.e, start)
            self.networks["encoder"] = self.e
        for network in [*self.networks.values(), mean]:
            channels_last(network.to(self.device))
        self.average = Average(self.g, mean, config.average)
        g_parameters = list(self.g.parameters())
        if config.coverage > 0:
            g_parameters += list(self.e.parameters())
        rate, betas = config.learning_rate, (0.5, 0.999)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(g_parameters, lr=rate, betas=betas),
            "discriminator": torch.optim.Adam(self.d.parameters(), lr=rate, betas=betas),
        }
        self.networks["average"] = mean
        self.fixed = torch.randn(64, config.latent_dim, generator=generator_for(config.seed, 3))

    def step(self, i: int, total: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        config = self.config
        rate = config.learning_rate * decayed(i, total)
        for optimiser in self.optimisers.values():
            set_rate(optimiser, rate)
        x = self.batches(i).to(self.device)
        z = torch.randn(len(x), config.latent_dim, generator=generator).to(self.device)
        fake = self.g(z)

        # D: softplus(−t) = −log σ(t), so this is −log D(x) − log(1 − D(G(z))).
        d_loss = F.softplus(-self.d(x)).mean() + F.softplus(self.d(fake.detach())).mean()
        self.optimisers["discriminator"].zero_grad(set_to_none=True)
        d_loss.backward()
        self.optimisers["discriminator"].step()

        self.d.requires_grad_(False)
        g_loss = F.softplus(-self.d(fake)).mean()
        self.d.requires_grad_(True)
        losses = {"D": d_loss.detach(), "G": g_loss.detach()}
        if config.coverage > 0:
            latents = self.e(torch.cat([x, fake]))
            zx, zg = latents[: len(x)], latents[len(x) :]
            cover = (self.g(zx) - x).square().mean()
            latent = (zg - z).square().mean()
            moments = latent_moments(zx)
            g_loss = g_loss + config.coverage * (cover + config.latent_weight * (latent + moments))
            losses |= {
                "cover": cover.detach(),
                "latent": latent.detach(),
                "moments": moments.detach(),
            }
        self.optimisers["generator"].zero_grad(set_to_none=True)
        g_loss.backward()
        self.optimisers["generator"].step()
        self.average.update(i)
        return losses

    @torch.no_grad()
    def pictures(self) -> Float[torch.Tensor, "64 c h w"]:
        return self.average.average(self.fixed.to(self.device))


def initialise_encoder(encoder: Encoder, generator: torch.Generator) -> None:
    """He's start for LeakyReLU networks without batch norm, drawn from ``generator``."""
    with torch.no_grad():
        for part in encoder.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                fan_in = part.weight[0].numel()
                part.weight.normal_(0.0, (2.0 / (1.04 * fan_in)) ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()


def train_generator(
    images: UInt8[torch.Tensor, "n c h w"],
    directory: str | os.PathLike[str],
    config: GeneratorConfig | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    checkpoint_every: int = 500,
) -> DCGANGenerator:
    """Train (or go on training) a generator in ``directory``; returns the averaged generator.

    Raises ``ValueError`` for images that are not uint8 (n, c, 28, 28) or a directory that holds
    another training.
    """
    config = config or GeneratorConfig()
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[2:] != (28, 28):
        raise ValueError(
            f"images: {images.dtype} {tuple(images.shape)}; expected uint8 (n, channels, 28, 28)"
        )
    task = GeneratorTask(images, config, device)
    steps = config.epochs * task.batches.per_epoch
    stored = {"kind": "generator", "channels": images.shape[1], "steps": steps}
    train(
        task,
        steps=steps,
        directory=directory,
        config={**stored, **asdict(config)},
        seed=config.seed,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    average = task.average.average
    assert isinstance(average, DCGANGenerator)
    return average
