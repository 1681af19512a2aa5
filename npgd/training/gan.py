"""Train a generator: the GANs of the paper, and a variant whose range covers the data.

Raj, Li, Bresler, ICCV 2019, section 4.1: min_G max_D E log D(x) + E log(1 − D(G(z))) with the
non-saturating loss for G (Goodfellow et al. 2014), Adam, images in [-1, 1], z ~ N(0, I), batch 128.

`architecture` "sagan" is the paper's second network (`npgd.networks.sagan`), trained with
`loss` "wasserstein": max_D E D(x) − E D(G(z)), min_G −E D(G(z)), D kept Lipschitz by spectral
normalisation, which is on G too.

A GAN alone leaves out parts of the data, and what range(G) lacks no recovery finds. With
`coverage` c > 0 an encoder G† is trained beside G, on clean images, and G's loss becomes

    −E log D(G(z)) + c · ( E‖G(G†(x)) − x‖²/n + λ E‖G†(G(z)) − z‖²/k + λ M ),

where M = ‖mean G†(x)‖²/k + ‖cov G†(x) − I‖²_F/k over the batch keeps the latents of real images
where z ~ N(0, I) puts its mass. c = 0 is the paper's training. Over a batch of b, M of latents that
are N(0, I) is about (k+1)/(b−1) rather than 0, and smallest where their variance is
1/(1 + (k+1)/(b−1)): 0.86 at k = 20, b = 128, but 0.38 at k = 100, b = 64. `unbiased` estimates M
without that error, by sums over pairs.

`principal` starts G† from the whitened principal components of the images
(`npgd.networks.encoder.PrincipalEncoder`), so that its latents tell images apart, with the
moments of N(0, I), from the first step on.

`precision` "bfloat16" is mixed precision: weights, moments, losses and augmentation stay in
float32, the networks' products are taken in bfloat16.

With the few thousand images of a 64×64 data set, `flips` mirrors half of the real ones, and D
sees every image through the random transformations of `augment` (`npgd.training.augment`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import nn

from npgd import checks
from npgd.data import to_pixels
from npgd.networks import build
from npgd.networks.architectures import channels_last, initialise_encoder, network_spec
from npgd.networks.dcgan import LAYERS, initialise
from npgd.networks.encoder import PrincipalEncoder
from npgd.networks.sagan import add_spectral_norm
from npgd.settings import (
    Count,
    Fraction,
    Positive,
    Seed,
    Size,
    Weight,
    check,
    count,
    grouped,
)
from npgd.training import inputs
from npgd.training.augment import augment, parse
from npgd.training.checkpoints import (
    load_checkpoint,
    network_state,
    newest_checkpoint,
    not_finite,
    tensors_digest,
)
from npgd.training.loop import (
    PRECISIONS,
    Average,
    Batches,
    Task,
    generator_for,
    mixed,
    read_config,
    train,
)
from npgd.training.processes import processes

CHOICES = {
    "precision": PRECISIONS,
    "architecture": ("dcgan", "sagan"),
    "loss": ("vanilla", "wasserstein"),
}


@dataclass(frozen=True)
class GeneratorConfig:
    """Settings of a generator's training; the defaults are the paper's on MNIST, at width 32."""

    latent_dim: Size = 20
    """Dimension k of z."""
    width: Size = 32
    """Channels at half the image's side."""
    coverage: Weight = 0.0
    """Weight of the coverage term; 0 is the paper's GAN."""
    latent_weight: Weight = 0.1
    """Weight λ of the latents within the coverage term."""
    epochs: Count = 20
    """Passes over the images."""
    batch_size: Count = 128
    """Images a step."""
    learning_rate: Positive = 2e-4
    """Learning rate of Adam."""
    average: Fraction = 0.999
    """Decay of the running average of G's weights, which the training returns."""
    flips: bool = False
    """Mirror half of the real images."""
    augment: str = ""
    """What D sees images through, for small data sets: a choice of color,translation,cutout."""
    unbiased: bool = False
    """Moments of latents by pairs; for k near or above the batch size."""
    precision: str = "float32"
    """float32, or bfloat16 (mixed)."""
    architecture: str = "dcgan"
    """dcgan, or sagan for 64×64."""
    loss: str = "vanilla"
    """vanilla, or wasserstein for sagan."""
    smooth: bool = True
    """Softplus of sharpness 30 in place of ReLU in G, and of LeakyReLU in the coverage encoder."""
    principal: bool = False
    """Start the coverage term's encoder from principal components."""
    seed: Seed = 0
    """Seed of the first weights, the order of the images and every draw."""

    def __post_init__(self) -> None:
        check(self)
        parse(self.augment)
        for name, known in CHOICES.items():
            checks.choice(getattr(self, name), name, *known)
        if self.principal and self.coverage == 0:
            raise ValueError(
                "principal must come with coverage > 0, whose encoder it starts, got 0"
            )
        if self.unbiased and self.coverage > 0 and self.batch_size < 2:
            raise ValueError("batch_size must be at least 2 with unbiased, for pairs, got 1")
        if self.coverage > 0:
            grouped(self.width, "width", " with coverage")
        if self.loss == "wasserstein" and self.architecture != "sagan":
            raise ValueError(
                "loss must be 'vanilla' but for architecture 'sagan', whose discriminator is kept "
                f"Lipschitz, got 'wasserstein' with {self.architecture!r}"
            )


def latent_moments(
    z: Float[torch.Tensor, "batch k"], unbiased: bool = False
) -> Float[torch.Tensor, ""]:
    """‖mean z‖²/k + ‖cov z − I‖²_F/k over a batch: zero for the moments of N(0, I).

    `unbiased`: ‖E z‖²/k + ‖E zzᵀ − I‖²_F/k, each square as a mean over pairs of different rows,
    whose expectation over batches is the value for the distribution they come from.
    """
    b, k = z.shape
    if unbiased:
        gram = z @ z.T
        square = gram.diagonal()
        pairs = b * (b - 1)
        mean2 = (gram.sum() - square.sum()) / pairs
        second2 = (gram.square().sum() - square.square().sum()) / pairs
        return (mean2 + second2 - 2 * square.mean() + k) / k
    mean = z.mean(dim=0)
    centred = z - mean
    covariance = centred.T @ centred / max(len(z) - 1, 1)
    identity = torch.eye(k, dtype=z.dtype, device=z.device)
    return (mean.square().sum() + (covariance - identity).square().sum()) / k


class GeneratorTask(Task[nn.Module]):
    """One GAN step: D on real and generated images, then G (with G† when coverage is asked for)."""

    kind = "generator"
    config: GeneratorConfig
    absent: ClassVar[dict[str, Any]] = {"image_size": 28, "smooth": False}

    def __init__(
        self,
        images: UInt8[torch.Tensor, "n c h w"],
        config: GeneratorConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        _check_images(images, config)
        if config.principal and config.latent_dim > images[0].numel() // 4:
            raise ValueError(
                f"latent_dim must be at most {images[0].numel() // 4} with principal, as many as "
                f"there are components, got {config.latent_dim}"
            )
        self.batches = Batches(images, config.batch_size, config.seed)
        made = {"channels": images.shape[1], "image_size": images.shape[2]}
        steps = config.epochs * self.batches.per_epoch
        super().__init__(config, device, steps=steps, **made)
        settings = asdict(config) | made
        start = generator_for(config.seed, 2)
        self.g, mean = (build(**network_spec("generator", settings)) for _ in range(2))
        self.d = build(**network_spec("discriminator", settings))
        initialise(self.g, start)
        initialise(self.d, start)
        if config.architecture == "sagan":
            for part in (self.g, self.d):
                add_spectral_norm(part, config.seed)
        self.networks |= {"generator": self.g, "discriminator": self.d}
        g_parameters = list(self.g.parameters())
        if config.coverage > 0:
            self.e = build(**network_spec("encoder", settings))
            assert isinstance(self.e, PrincipalEncoder)
            initialise_encoder(self.e, start)
            if config.principal:
                self.e.start_from(to_pixels(images))
                if not_finite(self.e.state_dict()) is not None:
                    raise ValueError("images must differ from each other with principal, got none")
            self.networks["encoder"] = self.e
            g_parameters += self.e.parameters()
        for part in (*self.networks.values(), mean):
            channels_last(part.to(self.device))
        # Under spectral normalisation the average is another module than G: no copy, as in learn.
        self.average = Average(self.g, mean, config.average)
        self.networks["average"] = mean
        betas = (0.5, 0.999)
        self.optimise("generator", g_parameters, config.learning_rate, betas)
        self.optimise("discriminator", self.d.parameters(), config.learning_rate, betas)
        self.fixed = torch.randn(64, config.latent_dim, generator=generator_for(config.seed, 3))

    def _through(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return mixed(network, x, self.config.precision)

    def descend(self, i: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        config = self.config
        x = self.batches(i).to(self.device)
        z = torch.randn(len(x), config.latent_dim, generator=generator).to(self.device)
        if config.flips:
            mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
            x = torch.where(mirrored.to(self.device), x.flip(3), x)
        fake = self._through(self.g, z)

        def judge(image: torch.Tensor) -> torch.Tensor:
            return self._through(self.d, augment(image, config.augment, generator))

        # softplus(−t) = −log σ(t), so D's vanilla loss is −log D(x) − log(1 − D(G(z))).
        wasserstein = config.loss == "wasserstein"
        cost = (lambda t: t) if wasserstein else F.softplus
        d_loss = cost(-judge(x)).mean() + cost(judge(fake.detach())).mean()
        self.optimisers["discriminator"].zero_grad(set_to_none=True)
        d_loss.backward()
        self.optimisers["discriminator"].step()

        self.d.requires_grad_(False)
        g_loss = cost(-judge(fake)).mean()
        self.d.requires_grad_(True)
        losses = {"D": d_loss.detach(), "G": g_loss.detach()}
        if config.coverage > 0:
            latents = self._through(self.e, torch.cat([x, fake]))
            zx, zg = latents[: len(x)], latents[len(x) :]
            cover = (self._through(self.g, zx) - x).square().mean()
            latent = (zg - z).square().mean()
            moments = latent_moments(zx, config.unbiased)
            g_loss = g_loss + config.coverage * (cover + config.latent_weight * (latent + moments))
            losses |= {
                "cover": cover.detach(),
                "latent": latent.detach(),
                "moments": moments.detach(),
            }
        self.optimisers["generator"].zero_grad(set_to_none=True)
        g_loss.backward()
        self.optimisers["generator"].step()
        return losses

    @torch.no_grad()
    def pictures(self) -> Float[torch.Tensor, "64 c h w"]:
        x: torch.Tensor = self.average.average(self.fixed.to(self.device))
        return x


def _check_images(images: UInt8[torch.Tensor, "n c h w"], config: GeneratorConfig) -> None:
    sizes = [64] if config.architecture == "sagan" else list(LAYERS)
    expected = " or ".join(f"(n, channels, {size}, {size})" for size in sizes)
    if config.architecture == "sagan":
        expected = f"64×64, {expected}, for architecture 'sagan'"
    inputs.images(images, expected, lambda height, width: height == width and height in sizes)


def train_generator(
    images: UInt8[torch.Tensor, "n c h w"],
    directory: str | os.PathLike[str],
    config: GeneratorConfig | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    checkpoint_every: int = 500,
) -> nn.Module:
    """Train (or go on training) a generator in `directory`; returns the averaged generator.

    Raises:
        ValueError: for images that are not uint8 (n, c, s, s) with a side s of
            `npgd.networks.dcgan.LAYERS`, or a directory that holds another training.
    """
    config, chosen = inputs.settings(config, GeneratorConfig), inputs.device(device)
    if chosen.type == "cuda":
        chosen = processes().device or chosen  # each process has its own
    task = GeneratorTask(images, config, chosen)
    return train(task, directory, checkpoint_every=checkpoint_every, progress=progress)


def load_generator(
    directory: str | os.PathLike[str],
) -> tuple[nn.Module, dict[str, Any], str]:
    """The averaged generator of a finished training run, its configuration, and its digest.

    Raises:
        ValueError: where the directory holds no generator's run, or one not finished.
    """
    g, config, weights = _trained(directory, "generator", "average")
    return g, config, tensors_digest(weights)


def load_coverage_encoder(directory: str | os.PathLike[str]) -> nn.Module:
    """The encoder that the coverage term trained beside G, as it stood at the end.

    Raises:
        ValueError: as `load_generator`, and for a run without that term.
    """
    return _trained(directory, "encoder", "encoder")[0]


def _trained(
    directory: str | os.PathLike[str], part: str, stored_as: str
) -> tuple[nn.Module, dict[str, Any], dict[str, torch.Tensor]]:
    directory = inputs.folder(directory)
    if not (directory / "config.json").is_file():
        raise ValueError(f"generator: {directory} holds no training run (no config.json)")
    run = read_config(directory)
    if run["kind"] != "generator":
        raise ValueError(f"generator: {directory} holds a {checks.shown(run['kind'])[1:-1]}'s run")
    config = asdict(GeneratorConfig()) | GeneratorTask.absent | run
    try:
        settings = {field.name: config[field.name] for field in fields(GeneratorConfig)}
        coverage = GeneratorConfig(**settings).coverage
        for name in ("channels", "image_size", "steps"):
            count(config.get(name), name)
        with torch.device("meta"):  # nothing is allocated before the shapes are known to be true
            network = build(**network_spec(part, config))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{directory / 'config.json'} must hold the settings of a generator, got: "
            f"{inputs.reason(error)}"
        ) from error
    if part == "encoder" and not coverage > 0:
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
    weights = network_state(tensors, stored_as)
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint} must hold the {part} that config.json beside it describes, got another"
        ) from error
    return network.eval(), run, weights
