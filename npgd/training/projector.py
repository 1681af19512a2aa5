"""Train the encoder G† of the projector P = G∘G†, with G frozen.

Raj, Li, Bresler, ICCV 2019, equation (5): with z ~ N(0, I), x* = G(z) and white noise ν ~ N(0, σ²I)

    E ‖G(G†(x* + ν)) − x*‖²/n + λ E ‖G†(x* + ν) − z‖²/k,   λ = 0.1, σ = 1.

Both terms are means over pixels and latent coordinates. Three things are offered beyond it, each
off in ``PAPER``:

*A range of noise.* σ is drawn log-uniformly for each image. At x_0 = Aᵀy with a Gaussian A the
deviation from x* is close to white noise of standard deviation ‖x*‖/√m per pixel (2.6 at m = 100,
4.7 at m = 30 on MNIST), and it falls as the recovery converges.

*Real images.* A fraction of the x* are training images; they have no z, so only the first term.

*The points that recovery visits.* Each step draws an A of one of the kinds ``operators`` and a step
size η, and follows P's own iteration

    x_{j+1} = P(w_j),    w_{j+1} = x_{j+1} − η AᵀA(x_{j+1} − x*)

for ``visits`` steps, P trained on every w_j (without a gradient through the iteration). The first
w is x* + ν, or AᵀA x* for ``adjoint_fraction`` of the images. "gaussian" is a Gaussian A with m
rows, m log-uniform; "inpainting" a hole with a side of a quarter to five eighths of the image's;
"super-resolution" the means over 2×2 or 4×4 pixels, η then in units of 1/‖A‖². One P serves all.

``balanced`` divides each image's loss by 1 + ‖w − x*‖²/n, its deviation's mean square, so that
clean inputs and inputs under heavy noise count alike.

``precision`` "bfloat16" is mixed precision, as for the generator. G† starts at random, or from the
encoder that the coverage term trained beside G (:func:`load_coverage_encoder`).
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import nn

from ..networks import Encoder, build
from ..operators import Inpainting, SuperResolution
from .augment import named
from .gan import PRECISIONS, choice, initialise_encoder, mixed, network_spec
from .loop import (
    Average,
    Batches,
    channels_last,
    decayed,
    generator_for,
    load_checkpoint,
    newest_checkpoint,
    set_rate,
    tensors_digest,
    train,
)


def _log_uniform(low: float, high: float, n: int, generator: torch.Generator) -> torch.Tensor:
    span = math.log(high / low)
    return torch.rand(n, generator=generator).mul_(span).add_(math.log(low)).exp_()


# --- the operators of the iteration: AᵀA as a function, and η ----------------------------------

Normal = Callable[[torch.Tensor], torch.Tensor]


def _step(config: PointsConfig, generator: torch.Generator) -> float:
    share = float(torch.rand((), generator=generator))
    return config.step_low + (config.step_high - config.step_low) * share


def _gaussian(task: PointsTask, generator: torch.Generator) -> tuple[Normal, float]:
    config, n = task.config, math.prod(task.shape)
    m = int(_log_uniform(config.m_low, config.m_high + 1, 1, generator))
    eta = _step(config, generator)
    a = (torch.randn(m, n, generator=generator) / m**0.5).to(task.device)
    return lambda x: ((x.flatten(1) @ a.T) @ a).view_as(x), eta


def _inpainting(task: PointsTask, generator: torch.Generator) -> tuple[Normal, float]:
    side = task.shape[1]
    hole = int(torch.randint(side // 4, 5 * side // 8 + 1, (), generator=generator))
    a = Inpainting(task.shape, hole).to(task.device)
    return lambda x: a.adjoint(a(x)), _step(task.config, generator)


def _super_resolution(task: PointsTask, generator: torch.Generator) -> tuple[Normal, float]:
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

    noise_low: float = 0.02
    noise_high: float = 5.0
    real_fraction: float = 0.5
    visits: int = 3
    adjoint_fraction: float = 0.25
    m_low: int = 20
    m_high: int = 500
    operators: str = "gaussian"
    step_low: float = 0.5
    step_high: float = 1.4
    balanced: bool = True
    latent_weight: float = 0.1
    steps: int = 10_000
    batch_size: int = 64
    learning_rate: float = 5e-4
    average: float = 0.999
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        choice(self.precision, "precision", PRECISIONS)
        named(self.operators, "operators", OPERATORS)
        if not self.operators:
            raise ValueError(f"operators: none; expected some of {', '.join(OPERATORS)}")
        if not 0 < self.noise_low <= self.noise_high:
            raise ValueError(
                f"noise_low, noise_high: {self.noise_low}, {self.noise_high}; "
                "expected 0 < noise_low <= noise_high"
            )
        for name in ("real_fraction", "adjoint_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)}; expected a fraction in [0, 1]")
        if self.visits < 1:
            raise ValueError(f"visits: {self.visits}; expected at least 1 (1: white noise only)")
        if not 1 <= self.m_low <= self.m_high:
            raise ValueError(
                f"m_low, m_high: {self.m_low}, {self.m_high}; expected 1 <= low <= high"
            )


@dataclass(frozen=True)
class ProjectorConfig(PointsConfig):
    """Settings of a projector's training; the defaults are what the shipped weights used."""

    width: int = 64
    hidden: int = 384


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


class PointsTask:
    """One step: points around x* (white noise, Aᵀy, the iteration's own), targets x*.

    What is trained on them is a subclass's: its networks, and `train_on`.
    """

    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    average: Average

    def __init__(
        self,
        generator_network: nn.Module,
        latent_dim: int,
        images: UInt8[torch.Tensor, "n c h w"] | None,
        config: PointsConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        if config.real_fraction > 0 and images is None:
            raise ValueError("images: none given; real_fraction > 0 needs training images")
        self.config, self.device, self.latent_dim = config, torch.device(device), latent_dim
        self.g = channels_last(generator_network.to(self.device))
        self.g.eval().requires_grad_(False)
        self.n_real = round(config.real_fraction * config.batch_size)
        self.n_samples = config.batch_size - self.n_real
        self.batches = (
            Batches(images, self.n_real, config.seed)
            if images is not None and self.n_real > 0
            else None
        )
        self.fixed = torch.randn(32, latent_dim, generator=generator_for(config.seed, 3))
        with torch.no_grad():
            self.shape = tuple(self.g(self.fixed[:1].to(self.device)).shape[1:])

    def through(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """A network's output in float32; in mixed precision its products are in bfloat16."""
        return mixed(network, x, self.config.precision)

    def train_on(
        self, w: torch.Tensor, x_true: torch.Tensor, z: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Backward from the losses of the points w; returns P(w), image loss and latent loss.

        `z` are the latents of the first x_true (the samples of G), `weight` that of each image.
        """
        raise NotImplementedError

    def projected(self, w: torch.Tensor) -> torch.Tensor:
        """P(w) with the averaged weights."""
        raise NotImplementedError

    def _targets(self, i: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """x* (samples of G first, then real images) and the z of the samples."""
        z = torch.randn(self.n_samples, self.latent_dim, generator=generator).to(self.device)
        with torch.no_grad():
            x = self.through(self.g, z)
        if self.batches is not None:
            x = torch.cat([x, self.batches(i).to(self.device)])
        return x, z

    def step(self, i: int, total: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        config = self.config
        (optimiser,) = self.optimisers.values()
        set_rate(optimiser, config.learning_rate * decayed(i, total))
        x_true, z = self._targets(i, generator)
        b = len(x_true)

        sigma = _log_uniform(config.noise_low, config.noise_high, b, generator)
        noise = torch.randn(x_true.shape, generator=generator)
        w = x_true + (sigma[:, None, None, None] * noise).to(self.device)
        if config.visits > 1 or config.adjoint_fraction > 0:
            kinds = named(config.operators, "operators", OPERATORS)
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
        self.average.update(i)
        return {"image": image, "latent": latent}

    @torch.no_grad()
    def pictures(self) -> Float[torch.Tensor, "64 c h w"]:
        """Rows of eight: samples, then the same samples projected from under noise σ = 1."""
        x = self.g(self.fixed.to(self.device))
        noise = torch.randn(x.shape, generator=generator_for(self.config.seed, 4)).to(self.device)
        projected = self.projected(x + noise)
        rows = [part for pair in zip(x.split(8), projected.split(8), strict=True) for part in pair]
        return torch.cat(rows)

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
        (share * (image + self.config.latent_weight * latent)).backward()
        return x.detach(), image.detach(), latent.detach()


class ProjectorTask(PointsTask):
    """The encoder G†: ``encoder`` as it comes, or one of the configuration's size from scratch."""

    def __init__(
        self,
        generator_network: nn.Module,
        latent_dim: int,
        images: UInt8[torch.Tensor, "n c h w"] | None,
        config: ProjectorConfig,
        device: str | torch.device = "cpu",
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(generator_network, latent_dim, images, config, device)
        if encoder is None:
            encoder = Encoder(latent_dim, config.width, config.hidden, *self.shape[:2])
            initialise_encoder(encoder, generator_for(config.seed, 2))
        self.e, mean = encoder, copy.deepcopy(encoder)
        for network in (self.e, mean):
            channels_last(network.to(self.device))
        self.average = Average(self.e, mean, config.average)
        self.networks: dict[str, nn.Module] = {"encoder": self.e, "average": mean}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "encoder": torch.optim.Adam(self.e.parameters(), lr=config.learning_rate)
        }

    def train_on(
        self, w: torch.Tensor, x_true: torch.Tensor, z: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.backward(self.through(self.e, w), x_true, z, weight, 1 / self.config.visits)

    def projected(self, w: torch.Tensor) -> torch.Tensor:
        return self.g(self.average.average(w))


def load_generator(
    directory: str | os.PathLike[str],
) -> tuple[nn.Module, dict[str, Any], str]:
    """The averaged generator of a finished training run, its configuration, and its digest.

    Raises ``ValueError`` where the directory holds no generator's run, or one not finished.
    """
    g, config, weights = _trained(directory, "generator", "average")
    return g, config, tensors_digest(weights)


def load_coverage_encoder(directory: str | os.PathLike[str]) -> nn.Module:
    """The encoder that the coverage term trained beside G, as it stood at the end.

    Raises as :func:`load_generator`, and ``ValueError`` for a run without that term.
    """
    return _trained(directory, "encoder", "encoder")[0]


def _trained(
    directory: str | os.PathLike[str], part: str, stored_as: str
) -> tuple[nn.Module, dict[str, Any], dict[str, torch.Tensor]]:
    directory = Path(directory)
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"generator: {directory} holds no training run (no config.json)")
    config = json.loads(path.read_text())
    if config.get("kind") != "generator":
        raise ValueError(f"generator: {directory} holds a {config.get('kind')}'s run")
    if part == "encoder" and not config["coverage"] > 0:
        raise ValueError(f"generator: {directory} was trained without coverage, so has no encoder")
    checkpoint = newest_checkpoint(directory)
    if checkpoint is None:
        raise ValueError(f"generator: {directory} has no checkpoint yet")
    step, tensors = load_checkpoint(checkpoint)
    if step < config["steps"]:
        raise ValueError(
            f"generator: {directory} stands at step {step} of {config['steps']}; "
            "give the training command again to finish it"
        )
    prefix = f"network/{stored_as}/"
    weights = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    network = build(**network_spec(part, config))
    network.load_state_dict(weights)
    return network.eval(), config, weights


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

    ``encoder`` is where it starts, in place of a new one of the configuration's width.
    ``generator_digest`` names the generator in the stored configuration, so that a run is not
    resumed with another one. Raises ``ValueError`` for settings that do not fit together.
    """
    config = config or ProjectorConfig()
    stored = {"kind": "projector", "latent_dim": latent_dim, "generator": generator_digest}
    if encoder is not None:
        stored["encoder"] = tensors_digest(encoder.state_dict())
    task = ProjectorTask(generator_network, latent_dim, images, config, device, encoder)
    train(
        task,
        steps=config.steps,
        directory=directory,
        config={**stored, **asdict(config)},
        defaults=asdict(ProjectorConfig()),
        seed=config.seed,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    return task.average.average
