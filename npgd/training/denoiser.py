"""Train a denoiser D(w, σ) that is told the noise level.

Images x, white noise ν ~ N(0, I), σ log-uniform between `noise_low` and `noise_high`, drawn for
each image:

    E (1/σ² + 1/s²) ‖D(x + σ ν, σ) − x‖²/n,     s = SPREAD,

the weight at which the network inside D has an error of size one at every σ at the start (Karras,
Aittala, Aila, Laine, NeurIPS 2022, table 1). The minimiser is the conditional mean E[x | w] at
every σ, whatever the weight. Noise up to several times the images' size belongs to it: the points
that ADMM denoises at the start of a recovery from few measurements are that far off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8

from npgd.networks import DenoisingNetwork
from npgd.networks.denoiser import SPREAD, initialise_he
from npgd.settings import Count, Deviation, Fraction, Positive, Seed, Size, check, interval
from npgd.training import inputs
from npgd.training.loop import Batches, Task, generator_for, train


@dataclass(frozen=True)
class DenoiserConfig:
    """Settings of a denoiser's training; the defaults are what the shipped weights used."""

    width: Size = 12
    """Channels at full size."""
    levels: Count = 2
    """How often the network halves the image."""
    flips: bool = False
    """Mirror half of the images."""
    noise_low: Deviation = 0.02
    """Least σ."""
    noise_high: Deviation = 4.0
    """Largest σ."""
    steps: Count = 6000
    """Training steps."""
    batch_size: Count = 64
    """Images a step."""
    learning_rate: Positive = 2e-3
    """Learning rate of Adam."""
    average: Fraction = 0.999
    """Decay of the running average of the weights, which the training returns."""
    seed: Seed = 0
    """Seed of the first weights, the order of the images and the noise."""

    def __post_init__(self) -> None:
        check(self)
        interval(self.noise_low, self.noise_high, "noise")


class DenoiserTask(Task[DenoisingNetwork]):
    """One step: a batch of images under white noise of many levels."""

    kind = "denoiser"
    config: DenoiserConfig

    def __init__(
        self,
        images: UInt8[torch.Tensor, "n c h w"],
        config: DenoiserConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        side = 2**config.levels
        check_images(images, side, side)
        channels = images.shape[1]
        super().__init__(config, device, steps=config.steps, channels=channels)
        self.batches = Batches(images, config.batch_size, config.seed)
        network = DenoisingNetwork(config.width, channels, config.levels)
        initialise_he(network, generator_for(config.seed, 2))
        self.network = self.learn("denoiser", network)

    def descend(self, i: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        optimiser = self.optimisers["denoiser"]
        x = self.batches(i)
        if self.config.flips:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        x = x.to(self.device)
        low, high = self.config.noise_low, self.config.noise_high
        sigma = low * (high / low) ** torch.rand(len(x), generator=generator).to(self.device)
        noise = torch.randn(x.shape, generator=generator).to(self.device)
        optimiser.zero_grad(set_to_none=True)
        denoised = self.network(x + sigma[:, None, None, None] * noise, sigma)
        error = (denoised - x).square().mean(dim=(1, 2, 3))
        loss = ((sigma**-2 + SPREAD**-2) * error).mean()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach(), "error": error.detach().mean()}

    @torch.no_grad()
    def pictures(self) -> Float[torch.Tensor, "n c h w"]:
        """Rows of eight: images under noise σ = 0.1, 0.3, 1, 3, and each row denoised."""
        rows = []
        x = self.batches(0)[:8].to(self.device)
        for k, sigma in enumerate((0.1, 0.3, 1.0, 3.0)):
            noise = torch.randn(x.shape, generator=generator_for(self.config.seed, 4, k))
            w = x + sigma * noise.to(self.device)
            rows += [w, self.average.average(w, sigma)]
        return torch.cat(rows)


def train_denoiser(
    images: UInt8[torch.Tensor, "n c h w"],
    directory: str | os.PathLike[str],
    config: DenoiserConfig | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    checkpoint_every: int = 500,
) -> DenoisingNetwork:
    """Train (or go on training) a denoiser; returns the averaged network.

    Raises:
        ValueError: for images that are not uint8 (n, channels, height, width) with sides that are
            multiples of 2 to the power of `levels`, or a directory that holds another training.
    """
    task = DenoiserTask(images, inputs.settings(config, DenoiserConfig), device)
    return train(task, directory, checkpoint_every=checkpoint_every, progress=progress)


def check_images(images: UInt8[torch.Tensor, "n c h w"], least: int = 4, multiple: int = 4) -> None:
    """Raise for training images that the denoiser and OneNet cannot take."""
    words = "four" if multiple == 4 else str(multiple)
    inputs.images(
        images,
        f"(n, channels, height, width) with sides that are multiples of {words}, {least} or more",
        lambda *sides: all(side % multiple == 0 and side >= least for side in sides),
    )
