"""The points that projectors and correctors are trained on: those the iteration projects."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import nn

from npgd import checks
from npgd.networks.architectures import channels_last
from npgd.operators import Inpainting, SuperResolution
from npgd.precision import copied
from npgd.settings import (
    Count,
    Deviation,
    Fraction,
    Positive,
    Seed,
    Weight,
    check,
    choices,
    interval,
    size,
)
from npgd.training import inputs
from npgd.training.loop import PRECISIONS, Averaged, Batches, Task, generator_for, mixed


def _log_uniform(low: float, high: float, n: int, generator: torch.Generator) -> torch.Tensor:
    span = math.log(high / low)
    return torch.rand(n, generator=generator).mul_(span).add_(math.log(low)).exp_()


def _normal(shape: tuple[int, ...], generator: torch.Generator, on: torch.device) -> torch.Tensor:
    """N(0, 1) numbers: on a CPU from `generator`, elsewhere from one of the device's own.

    `generator` seeds that one: the CPU alone could draw large operators no faster than it could
    train with them.
    """
    if on.type == "cpu":
        return torch.randn(shape, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    own = torch.Generator(on).manual_seed(seed)
    return torch.randn(shape, generator=own, device=on)


Normal = Callable[[torch.Tensor], torch.Tensor]


def _step(config: PointsConfig, generator: torch.Generator) -> float:
    share = float(torch.rand((), generator=generator))
    return config.step_low + (config.step_high - config.step_low) * share


def _gaussian(task: PointsTask[Any], generator: torch.Generator) -> tuple[Normal, float]:
    config, n = task.config, math.prod(task.shape)
    m = int(_log_uniform(config.m_low, config.m_high + 1, 1, generator))
    eta = _step(config, generator)
    a = _normal((m, n), generator, task.device) / m**0.5
    return lambda x: ((x.flatten(1) @ a.T) @ a).view_as(x), eta


def _inpainting(task: PointsTask[Any], generator: torch.Generator) -> tuple[Normal, float]:
    side = task.shape[1]
    hole = int(torch.randint(side // 4, 5 * side // 8 + 1, (), generator=generator))
    a = Inpainting(task.shape, hole).to(task.device)
    return lambda x: a.adjoint(a(x)), _step(task.config, generator)


def _super_resolution(task: PointsTask[Any], generator: torch.Generator) -> tuple[Normal, float]:
    a = SuperResolution(task.shape, 2 + 2 * int(torch.randint(2, (), generator=generator)))
    return lambda x: a.adjoint(a(x)), _step(task.config, generator) / a.norm() ** 2


OPERATORS = {
    "gaussian": _gaussian,
    "inpainting": _inpainting,
    "super-resolution": _super_resolution,
}


@dataclass(frozen=True)
class PointsConfig:
    """The points w a projector is trained on, and how long."""

    noise_low: Deviation = 0.02
    """Least σ."""
    noise_high: Deviation = 5.0
    """Largest σ."""
    real_fraction: Fraction = 0.5
    """Fraction of real training images."""
    visits: Count = 3
    """Points of the iteration trained on; 1 is none but the first."""
    adjoint_fraction: Fraction = 0.25
    """Fraction of the images whose first point is AᵀA x*, in place of x* under noise."""
    m_low: Count = 20
    """Fewest rows of a Gaussian A."""
    m_high: Count = 500
    """Most rows of a Gaussian A."""
    operators: str = "gaussian"
    """Operators of the iteration trained on: a choice of gaussian,inpainting,super-resolution."""
    step_low: Weight = 0.5
    """Least step size η of the iteration, in units of 1/‖A‖²; of a Gaussian A, η itself."""
    step_high: Weight = 1.4
    """Largest step size η."""
    balanced: bool = True
    """Divide each image's loss by 1 + ‖w − x*‖²/n."""
    latent_weight: Weight = 0.1
    """Weight λ of the latent's term."""
    steps: Count = 10_000
    """Training steps."""
    batch_size: Count = 64
    """Images a step."""
    learning_rate: Positive = 5e-4
    """Learning rate of Adam."""
    average: Fraction = 0.999
    """Decay of the running average of the weights, which the training returns."""
    precision: str = "float32"
    """float32, or bfloat16 (mixed)."""
    seed: Seed = 0
    """Seed of the first weights, the order of the images and every draw."""

    def __post_init__(self) -> None:
        check(self)
        checks.choice(self.precision, "precision", *PRECISIONS)
        if not choices(self.operators, "operators", OPERATORS):
            raise ValueError(f"operators must be some of {', '.join(OPERATORS)}, got none")
        interval(self.noise_low, self.noise_high, "noise")
        interval(self.m_low, self.m_high, "m")
        interval(self.step_low, self.step_high, "step")


class PointsTask(Task[Averaged]):
    """One step: points around x* (white noise, Aᵀy, the iteration's own), targets x*.

    What is trained on them is a subclass's: its network, `train_on` and `projected`.
    """

    config: PointsConfig

    def __init__(
        self,
        generator_network: nn.Module,
        latent_dim: int,
        images: UInt8[torch.Tensor, "n c h w"] | None,
        config: PointsConfig,
        device: str | torch.device = "cpu",
        **stored: Any,
    ) -> None:
        if config.real_fraction > 0 and images is None:
            raise ValueError("images must be given where real_fraction > 0, got none")
        latent_dim = size(latent_dim, "latent_dim")
        super().__init__(config, device, steps=config.steps, latent_dim=latent_dim, **stored)
        self.latent_dim = latent_dim
        inputs.network(generator_network, "generator_network")
        self.fixed = torch.randn(32, latent_dim, generator=generator_for(config.seed, 3))
        # A copy: the caller's keeps its device, its mode and its gradients.
        self.g = channels_last(copied(generator_network).to(self.device))
        self.g.eval()
        for weight in self.g.parameters():  # one by one, as TorchScript's modules want it
            weight.requires_grad_(False)
        does = f"map latents (batch, {latent_dim}) to images (batch, channels, height, width)"
        self.made = inputs.output(self.fixed[:2].to(self.device), self.g, "generator_network", does)
        """Two samples, which say what G's images are like."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            off = float((self.g(self.fixed[:2].to(self.device)) - self.made).abs().max())
        if off > 1e-3 * float(self.made.abs().max()):
            raise ValueError(
                "generator_network must give the same for the same latent, got two images that"
                f" differ by {off:.2g}; fix its noise (noise_mode='const')"
            )
        _, channels, height, width = self.made.shape
        self.shape = (int(channels), int(height), int(width))
        if images is not None:
            inputs.images(
                images,
                f"(n, {', '.join(map(str, self.shape))}), as generator_network makes them",
                lambda *_: tuple(images.shape[1:]) == self.shape,
            )
        self._check_operators()
        self.n_real = round(config.real_fraction * config.batch_size)
        self.n_samples = config.batch_size - self.n_real
        self.batches = (
            Batches(images, self.n_real, config.seed)
            if images is not None and self.n_real > 0
            else None
        )

    def _check_operators(self) -> None:
        """Raise ValueError where images are too small or odd for one of the operators."""
        side = self.shape[1]
        extremes: dict[str, Callable[[], Any]] = {
            "inpainting": lambda: [Inpainting(self.shape, h) for h in (side // 4, 5 * side // 8)],
            "super-resolution": lambda: [SuperResolution(self.shape, f) for f in (2, 4)],
        }
        for kind in choices(self.config.operators, "operators", OPERATORS):
            try:
                extremes.get(kind, list)()
            except ValueError as error:
                raise ValueError(
                    f"operators must suit images of shape {self.shape}, got {kind!r} ({error})"
                ) from error

    def _check_encoder(self, encoder: nn.Module, name: str) -> None:
        """Raise unless this maps images as G makes them to latents, in float32."""
        inputs.network(encoder, name)
        does = f"map images (batch, {', '.join(map(str, self.shape))}) to latents"
        does += f" (batch, {self.latent_dim})"
        inputs.output(self.made, encoder.to(self.device), name, does, (2, self.latent_dim))

    def through(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """A network's output in float32; in mixed precision its products are in bfloat16."""
        return mixed(network, x, self.config.precision)

    @abstractmethod
    def train_on(
        self, w: torch.Tensor, x_true: torch.Tensor, z: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Backward from the losses of the points w; returns P(w), image loss and latent loss.

        `z` are the latents of the first x_true (the samples of G), `weight` that of each image.
        """

    @abstractmethod
    def projected(self, w: torch.Tensor) -> torch.Tensor:
        """P(w) with the averaged weights."""

    def _targets(self, i: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """x* (samples of G first, then real images) and the z of the samples."""
        z = torch.randn(self.n_samples, self.latent_dim, generator=generator).to(self.device)
        with torch.no_grad():
            x = self.through(self.g, z)
        if self.batches is not None:
            x = torch.cat([x, self.batches(i).to(self.device)])
        return x, z

    def descend(self, i: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        config = self.config
        (optimiser,) = self.optimisers.values()
        x_true, z = self._targets(i, generator)
        b = len(x_true)

        sigma = _log_uniform(config.noise_low, config.noise_high, b, generator)
        noise = _normal(tuple(x_true.shape), generator, self.device)
        w = x_true + sigma[:, None, None, None].to(self.device) * noise
        if config.visits > 1 or config.adjoint_fraction > 0:
            kinds = choices(config.operators, "operators", OPERATORS)
            pick = 0 if len(kinds) == 1 else int(torch.randint(len(kinds), (), generator=generator))
            normal, eta = OPERATORS[kinds[pick]](self, generator)
            from_adjoint = torch.rand(b, generator=generator) < config.adjoint_fraction
            back = normal(x_true)
            w = torch.where(from_adjoint.to(self.device)[:, None, None, None], back, w)

        optimiser.zero_grad(set_to_none=True)
        image = latent = torch.zeros((), device=self.device)
        for visit in range(config.visits):
            deviation = (w - x_true).square().mean(dim=(1, 2, 3))
            weight = 1.0 / (1.0 + deviation) if config.balanced else torch.ones_like(deviation)
            x, image_loss, latent_loss = self.train_on(w, x_true, z, weight)
            image = image + image_loss / config.visits
            latent = latent + latent_loss / config.visits
            if visit + 1 < config.visits:
                w = x - eta * normal(x - x_true)
        optimiser.step()
        return {"image": image, "latent": latent}

    @torch.no_grad()
    def pictures(self) -> Float[torch.Tensor, "64 c h w"]:
        """Rows of eight: samples, then the same samples projected from under noise σ = 1."""
        x = self.g(self.fixed.to(self.device))
        noise = torch.randn(x.shape, generator=generator_for(self.config.seed, 4)).to(self.device)
        rows = torch.stack([x, self.projected(x + noise)]).reshape(2, -1, 8, *self.shape)
        return rows.transpose(0, 1).flatten(0, 2)

    def backward(
        self,
        code: torch.Tensor,
        x_true: torch.Tensor,
        z: torch.Tensor,
        weight: torch.Tensor,
        share: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Backward from `share` of the losses of the latents `code`; G(code) and the losses."""
        x = self.through(self.g, code)
        image = (weight * (x - x_true).square().mean(dim=(1, 2, 3))).mean()
        latent = torch.zeros((), device=self.device)
        if self.n_samples > 0:
            errors = (code[: self.n_samples] - z).square().mean(dim=1)
            latent = (weight[: self.n_samples] * errors).mean()
        torch.autograd.backward(share * (image + self.config.latent_weight * latent))
        return x.detach(), image.detach(), latent.detach()
