"""Train a denoiser D(w, σ) that is told the noise level.

Images x, white noise ν ~ N(0, I), σ log-uniform between ``noise_low`` and ``noise_high``, drawn for
each image:

    E (1/σ² + 1/s²) ‖D(x + σ ν, σ) − x‖²/n,     s = SPREAD,

the weight at which the network inside D has an error of size one at every σ at the start (Karras,
Aittala, Aila, Laine, NeurIPS 2022, table 1). The minimiser is the conditional mean E[x | w] at
every σ, whatever the weight. Noise up to several times the images' size belongs to it: the points
that ADMM denoises at the start of a recovery from few measurements are that far off.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, UInt8
from torch import nn

from npgd.networks import DenoisingNetwork
from npgd.networks.architectures import channels_last
from npgd.networks.denoiser import SPREAD, initialise_he
from npgd.training.loop import Average, Batches, decayed, generator_for, set_rate, train


@dataclass(frozen=True)
class DenoiserConfig:
    """Settings of a denoiser's training; the defaults are what the shipped weights used."""

    width: int = 12
    noise_low: float = 0.02
    noise_high: float = 4.0
    steps: int = 6000
    batch_size: int = 64
    learning_rate: float = 2e-3
    average: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.noise_low <= self.noise_high:
            raise ValueError(
                f"noise_low, noise_high: {self.noise_low}, {self.noise_high}; "
                "expected 0 < noise_low <= noise_high"
            )


class DenoiserTask:
    """One step: a batch of images under white noise of many levels."""

    def __init__(
        self,
        images: UInt8[torch.Tensor, "n c h w"],
        config: DenoiserConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.batches = Batches(images, config.batch_size, config.seed)
        channels = images.shape[1]
        self.network = DenoisingNetwork(config.width, channels)
        initialise_he(self.network, generator_for(config.seed, 2))
        mean = DenoisingNetwork(config.width, channels)
        for network in (self.network, mean):
            channels_last(network.to(self.device))
        self.average = Average(self.network, mean, config.average)
        self.networks: dict[str, nn.Module] = {"denoiser": self.network, "average": mean}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "denoiser": torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        }

    def step(self, i: int, total: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        optimiser = self.optimisers["denoiser"]
        set_rate(optimiser, self.config.learning_rate * decayed(i, total))
        x = self.batches(i).to(self.device)
        low, high = self.config.noise_low, self.config.noise_high
        sigma = low * (high / low) ** torch.rand(len(x), generator=generator).to(self.device)
        noise = torch.randn(x.shape, generator=generator).to(self.device)
        optimiser.zero_grad(set_to_none=True)
        denoised = self.network(x + sigma[:, None, None, None] * noise, sigma)
        error = (denoised - x).square().mean(dim=(1, 2, 3))
        loss = ((sigma**-2 + SPREAD**-2) * error).mean()
        loss.backward()
        optimiser.step()
        self.average.update(i)
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

    Raises ``ValueError`` for images that are not uint8 (n, channels, height, width) with sides
    that are multiples of four.
    """
    check_images(images)
    config = config or DenoiserConfig()
    task = DenoiserTask(images, config, device)
    train(
        task,
        steps=config.steps,
        directory=directory,
        config={"kind": "denoiser", "channels": images.shape[1], **asdict(config)},
        seed=config.seed,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    average = task.average.average
    assert isinstance(average, DenoisingNetwork)
    return average


def check_images(images: UInt8[torch.Tensor, "n c h w"]) -> None:
    """Raise ``ValueError`` for training images that the two networks cannot take."""
    if (
        images.dtype != torch.uint8
        or images.ndim != 4
        or images.shape[2] % 4
        or images.shape[3] % 4
    ):
        raise ValueError(
            f"images: {images.dtype} {tuple(images.shape)}; expected uint8 (n, channels, height, "
            "width) with sides that are multiples of four"
        )
