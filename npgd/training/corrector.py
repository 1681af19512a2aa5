"""Train the corrector of a projector, with G and G† frozen.

The same points w, targets x* and losses as for the encoder (`npgd.training.projector`), at the
latent after each of `corrections` steps; no gradient runs from one step into the one before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import nn

from npgd.networks import Corrector
from npgd.networks.corrector import initialise_corrector
from npgd.settings import Count, Positive, Size
from npgd.training import inputs
from npgd.training.checkpoints import tensors_digest
from npgd.training.loop import generator_for, train
from npgd.training.points import PointsConfig, PointsTask


@dataclass(frozen=True)
class CorrectorConfig(PointsConfig):
    """Settings of a corrector's training; the defaults are what the shipped weights used."""

    hidden: Size = 384
    """Units of the hidden layers."""
    corrections: Count = 2
    """Learned gradient steps that a prior in use takes."""
    learning_rate: Positive = 1e-3
    """Learning rate of Adam."""


class CorrectorTask(PointsTask[Corrector]):
    """The corrector, from a gradient step of half length."""

    kind = "corrector"
    config: CorrectorConfig

    def __init__(
        self,
        generator_network: nn.Module,
        encoder_network: nn.Module,
        latent_dim: int,
        images: UInt8[torch.Tensor, "n c h w"] | None,
        config: CorrectorConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        networks = {"generator": generator_network, "encoder": encoder_network}
        stored = {
            name: tensors_digest(inputs.network(network, f"{name}_network").state_dict())
            for name, network in networks.items()
        }
        super().__init__(generator_network, latent_dim, images, config, device, **stored)
        self._check_encoder(encoder_network, "encoder_network")
        self.e = encoder_network.to(self.device).eval().requires_grad_(False)
        corrector = Corrector(latent_dim, config.hidden)
        initialise_corrector(corrector, generator_for(config.seed, 2))
        self.c = self.learn("corrector", corrector)

    def train_on(
        self,
        w: Float[torch.Tensor, "batch c h w"],
        x_true: torch.Tensor,
        z: torch.Tensor,
        weight: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        steps = self.config.corrections
        with torch.no_grad():
            code = self.through(self.e, w)
        for _ in range(steps):
            code = self.c(w, code.detach(), self.g)
            share = 1 / (steps * self.config.visits)
            x, image, latent = self.backward(code, x_true, z, weight, share)
        return x, image, latent

    def projected(self, w: torch.Tensor) -> torch.Tensor:
        code = self.e(w)
        for _ in range(self.config.corrections):
            code = self.average.average(w, code, self.g)
        x: torch.Tensor = self.g(code)
        return x


def train_corrector(
    generator_network: nn.Module,
    encoder_network: nn.Module,
    latent_dim: int,
    images: UInt8[torch.Tensor, "n c h w"] | None,
    directory: str | os.PathLike[str],
    config: CorrectorConfig | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    checkpoint_every: int = 500,
) -> Corrector:
    """Train (or go on training) a corrector for frozen G and G†; returns the averaged one.

    A run is not resumed with other networks: their digests are stored.

    Raises:
        ValueError: for settings that do not fit together, or a directory that holds another
            training.
    """
    config = inputs.settings(config, CorrectorConfig)
    task = CorrectorTask(generator_network, encoder_network, latent_dim, images, config, device)
    return train(task, directory, checkpoint_every=checkpoint_every, progress=progress)
