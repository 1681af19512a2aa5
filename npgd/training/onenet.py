"""Train OneNet's proximal map P against classifiers of natural images.

Chang, Li, Póczos, Kumar, Sankaranarayanan, "One network to solve them all", ICCV 2017, section 3.
With images x, perturbed images v(x), the encoder E inside P, a classifier D of images and a
classifier D_ℓ of latents E(·), cross-entropies H against "natural", and ε = `clean_share`:

    P lowers   a ‖P(v) − x‖² + b ( ε ‖P(x) − x‖² + (1 − ε) ‖P(v) − v‖² )
               + c ( ε H(D(P(x))) + (1 − ε) H(D(P(v))) ) + d H(D_ℓ(E(v)))
    D tells x from P(x) and P(v), D_ℓ tells E(x) from E(v),

squares as means per pixel, weights a, b, c, d and ε as in the authors' released code (1, 0.005,
0.001, 0.0001, 0.01; positives labelled 0.85). One step of each, in turn.

Perturbed images: in three of ten the image is first made blocky (shrunk to 0.2 … 0.95 of its side
and blown up again, nearest neighbour); then comes white noise, times a standard deviation drawn
for each image between 0.05 and `noise`, times a smooth map of values in [−√3, √3] (a random grid
of one to a tenth of the side, bicubic), so that the noise varies over the image.

What differs from the authors: sizes of network and digits; no virtual batch normalisation; Adam
with a decaying rate, and an average of P's weights; `noise` of 1.5 in place of 0.5, on pixels in
[−1, 1], because ADMM from few random measurements visits points that far off.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8

from npgd.networks import ProximalNetwork
from npgd.networks.architectures import channels_last
from npgd.networks.denoiser import NaturalnessClassifier, initialise_he
from npgd.settings import Count, Deviation, Fraction, Positive, Seed, Size, Weight, check
from npgd.training import inputs
from npgd.training.denoiser import check_images
from npgd.training.loop import Batches, Task, generator_for, train


@dataclass(frozen=True)
class OneNetConfig:
    """Settings of a OneNet's training; the defaults are what the shipped weights used."""

    width: Size = 12
    """Channels at full size."""
    noise: Deviation = 1.5
    """Largest σ of the perturbation."""
    blocky: Fraction = 0.3
    """Fraction of the images made blocky before the noise."""
    denoising: Weight = 1.0
    """Weight a of ‖P(v) − x‖²."""
    proximity: Weight = 5e-3
    """Weight b of P's distance from its argument."""
    image_adversary: Weight = 1e-3
    """Weight c of the classifier of images."""
    latent_adversary: Weight = 1e-4
    """Weight d of the classifier of latents."""
    clean_share: Fraction = 0.01
    """Share ε of the clean images in the losses."""
    soft_label: Fraction = 0.85
    """Label of natural images, for the classifiers."""
    steps: Count = 2500
    """Training steps."""
    batch_size: Count = 64
    """Images a step."""
    learning_rate: Positive = 1e-3
    """Learning rate of P's Adam."""
    classifier_rate: Positive = 2e-4
    """Learning rate of the classifiers' Adam."""
    average: Fraction = 0.999
    """Decay of the running average of P's weights, which the training returns."""
    seed: Seed = 0
    """Seed of the first weights, the order of the images and the perturbations."""

    def __post_init__(self) -> None:
        check(self)
        if self.noise < 0.05:
            raise ValueError(f"noise must be at least 0.05, got {self.noise}")


def perturb(
    x: Float[torch.Tensor, "batch c h w"],
    generator: torch.Generator,
    noise: float = 1.5,
    blocky: float = 0.3,
) -> Float[torch.Tensor, "batch c h w"]:
    """Images that are not natural: blocky, and under noise that varies over the image.

    One draw of the block size and of the map's grid serves the batch; the maps' values, standard
    deviations and who is made blocky are drawn for each image.
    """
    batch, channels, height, width = x.shape

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    ratio = 0.2 + 0.75 * float(uniform())
    small = (max(1, round(ratio * height)), max(1, round(ratio * width)))
    blocks = F.interpolate(F.interpolate(x, size=small), size=(height, width))
    chosen = (uniform(batch) < blocky).to(x.device)[:, None, None, None]
    grid = [max(1, round(0.1 * side * float(uniform()))) for side in (height, width)]
    coarse = math.sqrt(3) * (2 * uniform(batch, channels, *grid) - 1)
    levels = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    levels = levels * (0.05 + (noise - 0.05) * uniform(batch, 1, 1, 1))
    white = torch.randn(x.shape, generator=generator)
    return torch.where(chosen, blocks, x) + (levels * white).to(x.device)


def _natural(logits: torch.Tensor, label: float = 1.0) -> torch.Tensor:
    """Cross-entropy of logits against one label."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


class OneNetTask(Task[ProximalNetwork]):
    """One step: P against the classifiers, then the classifiers against P."""

    kind = "onenet"
    config: OneNetConfig

    def __init__(
        self,
        images: UInt8[torch.Tensor, "n c h w"],
        config: OneNetConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        check_images(images, least=8)
        channels, c = images.shape[1], config.width
        super().__init__(config, device, steps=config.steps, channels=channels)
        self.batches = Batches(images, config.batch_size, config.seed)
        p = ProximalNetwork(c, channels)
        self.d, self.d_latent = NaturalnessClassifier(channels, c), NaturalnessClassifier(4 * c, c)
        for k, network in enumerate((p, self.d, self.d_latent)):
            initialise_he(network, generator_for(config.seed, 2, k))
        self.p = self.learn("proximal", p)
        for network in (self.d, self.d_latent):
            channels_last(network.to(self.device))
        self.networks |= {"image_classifier": self.d, "latent_classifier": self.d_latent}
        classifiers = [*self.d.parameters(), *self.d_latent.parameters()]
        self.optimise("classifiers", classifiers, config.classifier_rate, betas=(0.5, 0.999))

    def descend(self, i: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        config, share = self.config, self.config.clean_share
        x = self.batches(i).to(self.device)
        v = perturb(x, generator, config.noise, config.blocky)

        latents = self.p.encode(torch.cat([x, v]))
        p_x, p_v = self.p.decoder(latents).chunk(2)
        e_x, e_v = latents.chunk(2)
        denoising = (p_v - x).square().mean()
        proximity = share * (p_x - x).square().mean() + (1 - share) * (p_v - v).square().mean()
        fooling = share * _natural(self.d(p_x)) + (1 - share) * _natural(self.d(p_v))
        fooling_latent = _natural(self.d_latent(e_v))
        loss = (
            config.denoising * denoising
            + config.proximity * proximity
            + config.image_adversary * fooling
            + config.latent_adversary * fooling_latent
        )
        self.optimisers["proximal"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers["proximal"].step()

        p_x, p_v, e_x, e_v = (t.detach() for t in (p_x, p_v, e_x, e_v))
        unnatural = share * _natural(self.d(p_x), 0.0) + (1 - share) * _natural(self.d(p_v), 0.0)
        image = 0.5 * (_natural(self.d(x), config.soft_label) + unnatural)
        latent = 0.5 * (
            _natural(self.d_latent(e_x), config.soft_label) + _natural(self.d_latent(e_v), 0.0)
        )
        self.optimisers["classifiers"].zero_grad(set_to_none=True)
        torch.autograd.backward(image + latent)
        self.optimisers["classifiers"].step()
        return {
            "denoising": denoising.detach(),
            "fooling": fooling.detach(),
            "image": image.detach(),
            "latent": latent.detach(),
        }

    @torch.no_grad()
    def pictures(self) -> Float[torch.Tensor, "32 c h w"]:
        """Rows of eight: images, perturbed ones, and what P makes of either."""
        x = self.batches(0)[:8].to(self.device)
        v = perturb(x, generator_for(self.config.seed, 4), self.config.noise, self.config.blocky)
        p = self.average.average
        return torch.cat([x, p(x), v, p(v)])


def train_onenet(
    images: UInt8[torch.Tensor, "n c h w"],
    directory: str | os.PathLike[str],
    config: OneNetConfig | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    checkpoint_every: int = 500,
) -> ProximalNetwork:
    """Train (or go on training) a proximal map; returns the averaged network.

    Raises:
        ValueError: for images that are not uint8 (n, channels, height, width) with sides that are
            multiples of four, or a directory that holds another training.
    """
    task = OneNetTask(images, inputs.settings(config, OneNetConfig), device)
    return train(task, directory, checkpoint_every=checkpoint_every, progress=progress)
