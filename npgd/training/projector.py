"""Train the encoder G† of the projector P = G∘G†, with G frozen.

Raj, Li, Bresler, ICCV 2019, equation (5): with z ~ N(0, I), x* = G(z) and white noise ν ~ N(0, σ²I)

    E ‖G(G†(x* + ν)) − x*‖²/n + λ E ‖G†(x* + ν) − z‖²/k,   λ = 0.1, σ = 1.

Both terms are means over pixels and latent coordinates. Three things are offered beyond it, each
off in `PAPER`:

*A range of noise.* σ is drawn log-uniformly for each image. At x_0 = Aᵀy with a Gaussian A the
deviation from x* is close to white noise of standard deviation ‖x*‖/√m per pixel (2.6 at m = 100,
4.7 at m = 30 on MNIST), and it falls as the recovery converges.

*Real images.* A fraction of the x* are training images; they have no z, so only the first term.

*The points that recovery visits.* Each step draws an A of one of the kinds `operators` and a step
size η, and follows P's own iteration

    x_{j+1} = P(w_j),    w_{j+1} = x_{j+1} − η AᵀA(x_{j+1} − x*)

for `visits` steps, P trained on every w_j (without a gradient through the iteration). The first
w is x* + ν, or AᵀA x* for `adjoint_fraction` of the images. "gaussian" is a Gaussian A with m
rows, m log-uniform; "inpainting" a hole with a side of a quarter to five eighths of the image's;
"super-resolution" the means over 2×2 or 4×4 pixels, η then in units of 1/‖A‖². One P serves all.

`balanced` divides each image's loss by 1 + ‖w − x*‖²/n, its deviation's mean square, so that
clean inputs and inputs under heavy noise count alike.

`precision` "bfloat16" is mixed precision, as for the generator. G† starts at random, or from the
encoder that the coverage term trained beside G (`load_coverage_encoder`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import UInt8
from torch import nn

from npgd.checks import shown
from npgd.networks import build
from npgd.networks.architectures import initialise_encoder
from npgd.networks.rectifier import SHARPNESS
from npgd.settings import Size, grouped
from npgd.training import inputs
from npgd.training.checkpoints import tensors_digest
from npgd.training.loop import generator_for, train
from npgd.training.points import PointsConfig, PointsTask


@dataclass(frozen=True)
class ProjectorConfig(PointsConfig):
    """Settings of a projector's training; the defaults are what the shipped weights used."""

    width: Size = 64
    """Channels at half the image's side."""
    hidden: Size = 384
    """Units of the hidden layer."""
    smooth: bool = True
    """Softplus of sharpness 30 in place of LeakyReLU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        grouped(self.width, "width")


# The setting of the paper, section 4.1: white noise of standard deviation 1 on samples of G.
PAPER = ProjectorConfig(
    noise_low=1.0,
    noise_high=1.0,
    real_fraction=0.0,
    visits=1,
    adjoint_fraction=0.0,
    balanced=False,
    batch_size=128,
)


def encoder_spec(latent_dim: int, shape: Sequence[int], config: ProjectorConfig) -> dict[str, Any]:
    """The arguments of `npgd.networks.build` for an encoder of a configuration's size."""
    channels, size, _ = shape
    settings: dict[str, Any] = {"latent_dim": latent_dim, "channels": channels, "image_size": size}
    settings |= {"width": config.width, "hidden": config.hidden}
    if config.smooth:
        settings["sharpness"] = SHARPNESS
    return {"architecture": "Encoder", "settings": settings}


class ProjectorTask(PointsTask[nn.Module]):
    """The encoder G†: `encoder` as it comes, or one of the configuration's size from scratch."""

    kind = "projector"
    config: ProjectorConfig
    absent: ClassVar[dict[str, Any]] = {"smooth": False}

    def __init__(
        self,
        generator_network: nn.Module,
        latent_dim: int,
        images: UInt8[torch.Tensor, "n c h w"] | None,
        config: ProjectorConfig,
        device: str | torch.device = "cpu",
        encoder: nn.Module | None = None,
        generator_digest: str = "",
    ) -> None:
        if not isinstance(generator_digest, str):
            raise TypeError(f"generator_digest must be a string, got {shown(generator_digest)}")
        stored = {"generator": generator_digest}
        if encoder is not None:
            inputs.network(encoder, "encoder")
            stored["encoder"] = tensors_digest(encoder.state_dict())
        super().__init__(generator_network, latent_dim, images, config, device, **stored)
        if encoder is None:
            encoder = build(**encoder_spec(latent_dim, self.shape, config))
            initialise_encoder(encoder, generator_for(config.seed, 2))
        else:
            self._check_encoder(encoder, "encoder")
        self.e = self.learn("encoder", encoder)

    def train_on(
        self, w: torch.Tensor, x_true: torch.Tensor, z: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.backward(self.through(self.e, w), x_true, z, weight, 1 / self.config.visits)

    def projected(self, w: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.g(self.average.average(w))
        return x


def train_projector(
    generator_network: nn.Module,
    latent_dim: int,
    images: UInt8[torch.Tensor, "n c h w"] | None,
    directory: str | os.PathLike[str],
    config: ProjectorConfig | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    checkpoint_every: int = 500,
    generator_digest: str = "",
    encoder: nn.Module | None = None,
) -> nn.Module:
    """Train (or go on training) the encoder for a frozen generator; returns the averaged encoder.

    Args:
        generator_network: G, from latents (batch, k) to images.
        latent_dim: k.
        images: real training images as bytes; None serves where `real_fraction` is 0.
        directory: of the run.
        config: default `ProjectorConfig()`; `PAPER` is the paper's.
        device: where to train.
        progress: show a bar.
        checkpoint_every: steps between checkpoints.
        generator_digest: names the generator in the stored configuration, so that a run is not
            resumed with another one.
        encoder: where G† starts, in place of a new one of the configuration's width.

    Raises:
        ValueError: for settings that do not fit together, or a directory that holds another
            training.
    """
    config = inputs.settings(config, ProjectorConfig)
    task = ProjectorTask(
        generator_network, latent_dim, images, config, device, encoder, generator_digest
    )
    return train(task, directory, checkpoint_every=checkpoint_every, progress=progress)
