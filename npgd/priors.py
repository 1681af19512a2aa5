"""The prior: S = range(G), with the projector P = G∘G† (Raj, Li, Bresler, ICCV 2019, section 3).

A prior is a generator and an encoder. The shipped ones are stored as weights with a card, see
`npgd.cards`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from npgd import cards, checks
from npgd.files import entry, sentence
from npgd.images import Images, Latents
from npgd.networks.architectures import outline
from npgd.showing import Shown

SHIPPED = cards.SHIPPED["prior"]
"""The names of the priors that are shipped."""

MOST_CORRECTIONS = 1000
"""More than a file may ask for: each is a pass forward and back through the generator."""


class GenerativePrior(Shown, nn.Module):
    """A generator G and an encoder G†; P = G∘G† projects onto range(G), approximately.

    All networks are put in evaluation mode and stay there (`train()` has no effect), so that P is
    deterministic.

    Args:
        generator: any module, latents (batch, latent_dim) to images (batch, *image_shape) in
            [-1, 1].
        encoder: any module, images to latents.
        latent_dim: dimension k of z.
        image_shape: (channels, height, width).
        name: for print-outs.
        corrector: takes (w, z, generator) to a better latent for w, see
            `npgd.networks.corrector`; G† is then the encoder followed by `corrections` such steps,
            each at the price of a forward and a backward pass of G.
        corrections: how many; `prior.corrections = 0` gives the paper's plain G∘G†.

    Raises:
        TypeError: a network that is no module.
        ValueError: networks whose shapes do not fit `latent_dim` and `image_shape` (generator and
            encoder are tried once on zeros).
    """

    def __init__(
        self,
        generator: nn.Module,
        encoder: nn.Module,
        latent_dim: int,
        image_shape: Sequence[int],
        name: str = "custom",
        corrector: nn.Module | None = None,
        corrections: int = 0,
    ) -> None:
        super().__init__()
        networks = [("generator", generator), ("encoder", encoder)]
        if corrector is not None:
            networks.append(("corrector", corrector))
        for argument, network in networks:
            if not isinstance(network, nn.Module):
                raise TypeError(
                    f"{argument} must be a torch nn.Module, got {type(network).__name__}"
                )
        self.generator, self.encoder, self.corrector = generator, encoder, corrector
        self.corrections = corrections
        self.architecture: dict[str, Any] | None = None  # of networks read from a file
        self.latent_dim = checks.integer(latent_dim, "latent_dim")
        self.image_shape = checks.image_shape(image_shape)
        if not isinstance(name, str):
            raise TypeError(f"name must be a word, got {checks.shown(name)}")
        self.name = name
        self.eval()
        self._try_out()

    @property
    def corrections(self) -> int:
        """How many steps of the corrector follow the encoder."""
        return self._corrections

    @corrections.setter
    def corrections(self, value: int) -> None:
        self._corrections = checks.integer(value, "corrections", minimum=0)
        if self._corrections > 0 and self.corrector is None:
            raise ValueError(f"corrections must be 0 for a prior without corrector, got {value}")

    def _try_out(self) -> None:
        parameter = next(self.parameters(), None)
        like = torch.empty(0) if parameter is None else parameter
        with torch.no_grad():
            for argument, network, came, expected in (
                ("generator", self.generator, (self.latent_dim,), self.image_shape),
                ("encoder", self.encoder, self.image_shape, (self.latent_dim,)),
            ):
                try:
                    out = network(like.new_zeros(2, *came))
                except Exception as error:  # a user's network fails in its own way
                    raise ValueError(
                        f"{argument} must take a batch of shape (2, {_shape(came)}), got"
                        f" {type(error).__name__}: {sentence(error)}"
                    ) from error
                if not isinstance(out, torch.Tensor) or not out.is_floating_point():
                    kind = getattr(out, "dtype", type(out).__name__)
                    raise TypeError(f"{argument} must give real tensors, got {kind}")
                if tuple(out.shape) != (2, *expected):
                    raise ValueError(
                        f"{argument} must map (2, {_shape(came)}) to (2, {_shape(expected)}),"
                        f" got {tuple(out.shape)}"
                    )

    def train(self, mode: bool = True) -> GenerativePrior:
        """Stay in evaluation mode: a prior that is in use has no training mode."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """The networks' floating-point type (the default type for networks without parameters)."""
        parameter = next(self.parameters(), None)
        return torch.get_default_dtype() if parameter is None else parameter.dtype

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def generate(self, z: Latents) -> Images:
        """G(z)."""
        checks.floating(z, "z")
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z must have shape (batch, {self.latent_dim}), got {tuple(z.shape)}")
        checks.same_kind(z, self, "z", "the prior")
        x: Images = self.generator(z)
        return x

    def encode(self, w: Images) -> Latents:
        """G†(w): the latent of a point near w on range(G).

        With corrections the result carries no gradient to w.
        """
        checks.same_kind(checks.images(w, self.image_shape, "w"), self, "w", "the prior")
        z: Latents = self.encoder(w)
        for _ in range(self.corrections):
            assert self.corrector is not None
            z = self.corrector(w, z, self.generator)
        return z

    def project(self, w: Images) -> Images:
        """P(w) = G(G†(w)), equation (4) of the paper."""
        return self.generate(self.encode(w))

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Float[torch.Tensor, "n channels height width"]:
        """n samples G(z), z ~ N(0, I), from a CPU `generator` or a `seed` (one of the two)."""
        return self.generate(self.sample_latents(n, generator=generator, seed=seed))

    def sample_latents(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Float[torch.Tensor, "n k"]:
        """n latents z ~ N(0, I), the first n of any larger draw with the same seed.

        Drawn in float64 on the CPU, as Φ⁻¹ of uniform numbers one after another, so that dtype and
        device do not change them (torch.randn fills large and small tensors in different orders).
        """
        checks.integer(n, "n")
        generator = checks.drawing(generator, seed)
        u = torch.rand(n, self.latent_dim, generator=generator, dtype=torch.float64)
        z: torch.Tensor = torch.special.ndtri(u.clamp_(min=2.0**-54))
        return z.to(device=self.device, dtype=self.dtype)

    def extra_repr(self) -> str:
        corrections = f", corrections={self.corrections}" if self.corrections else ""
        return (
            f"name={self.name!r}, latent_dim={self.latent_dim}, image_shape={self.image_shape}"
            f"{corrections}"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return ", ".join(str(s) for s in shape)


def save_prior(
    prior: GenerativePrior,
    path: str | os.PathLike[str],
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    card: Mapping[str, Any] | None = None,
    half: bool = True,
) -> None:
    """Write a prior's weights and, beside them, its card: both or none.

    Args:
        prior: to be kept.
        path: of the weights, ends in .safetensors; the card's ends in .json.
        architecture: "generator" and "encoder" (and "corrector", where the prior has one), each to
            {"name": …, "settings": {…}} as `npgd.networks.build` takes them; a prior that was
            loaded knows its own.
        card: where it comes from and what it measures, for JSON; None writes none.
        half: whether the weights are kept in half precision, but for tensors that it cannot hold.

    Raises:
        TypeError: an argument of another kind, or what JSON cannot hold.
        ValueError: a path that does not end in .safetensors, no architecture or that of other
            networks, or weights that are not finite.
    """
    if not isinstance(prior, GenerativePrior):
        raise TypeError(f"prior must be a GenerativePrior, got {checks.shown(prior)}")
    architecture = prior.architecture if architecture is None else architecture
    parts = ["generator", "encoder"] + (["corrector"] if prior.corrector is not None else [])
    if not isinstance(architecture, Mapping) or not set(parts) <= set(architecture):
        raise ValueError(
            f"architecture must describe {', '.join(parts)} of a prior that was not loaded from a"
            f" file, got {checks.shown(architecture)}"
        )
    for part in parts:
        if not isinstance(architecture[part], Mapping):
            raise TypeError(
                f"architecture must give a name and settings for the {part}, got"
                f" {checks.shown(architecture[part])}"
            )
    description: dict[str, Any] = {
        "name": prior.name,
        "latent_dim": prior.latent_dim,
        "image_shape": list(prior.image_shape),
        "architecture": {part: dict(architecture[part]) for part in parts},
    }
    if prior.corrector is not None:
        description["corrections"] = prior.corrections
    cards.save(prior, path, "prior", _networks, description, card, half)


def load_prior(
    name: str | os.PathLike[str] = "mnist",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> GenerativePrior:
    """A shipped prior by name ("mnist", "mnist-k100", "celeba", "church"), or one from a file.

    Args:
        name: of a shipped prior, or the path of a .safetensors file.
        dtype: of its weights.
        device: of its weights.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an unknown name, a dtype or device that does not serve, or a file that is no
            prior.
    """
    return cards.load(name, "prior", _networks, _prior, dtype, device)


def _networks(description: dict[str, Any]) -> nn.ModuleDict:
    """The parts of a prior, under the names that they have in it."""
    architecture = entry(description, "architecture", dict)
    for part in architecture:
        if part not in ("generator", "encoder", "corrector"):
            raise ValueError(f"architecture must be of generator, encoder, corrector, got {part!r}")
    specs = {part: entry(architecture, part, dict) for part in architecture}
    for part in ("generator", "encoder"):
        entry(specs, part, dict)
    latent_dim = entry(description, "latent_dim", int)
    networks = nn.ModuleDict()
    for part, spec in specs.items():
        name, settings = entry(spec, "name", str), entry(spec, "settings", dict)
        networks[part] = outline(name, settings, latent_dim)
    return networks


def _prior(description: dict[str, Any], networks: nn.Module) -> GenerativePrior:
    parts = dict(networks.named_children())
    corrections = entry(description, "corrections", int) if "corrections" in description else 0
    if corrections > MOST_CORRECTIONS:
        raise ValueError(f"corrections must be at most {MOST_CORRECTIONS}, got {corrections}")
    prior = GenerativePrior(
        parts["generator"],
        parts["encoder"],
        entry(description, "latent_dim", int),
        entry(description, "image_shape", list),
        name=entry(description, "name", str),
        corrector=parts.get("corrector"),
        corrections=corrections,
    )
    black = torch.full((1, *prior.image_shape), -1.0, dtype=prior.dtype)
    # Weights can be finite and yet no weights, such as a negative variance.
    checks.finite(prior.project(black), "the projection of a black image")
    prior.architecture = description["architecture"]
    return prior


def prior_card(name: str) -> dict[str, Any]:
    """The card of a shipped prior: data, settings, seed, figures, licence of the data.

    Raises:
        TypeError: no name.
        ValueError: an unknown name.
    """
    return cards.card(name, "prior")
