"""The prior: S = range(G), with the projector P = G∘G† (Raj, Li, Bresler, ICCV 2019, section 3).

A prior is a generator and an encoder. The shipped ones are stored as one safetensors file, which
holds both networks' weights (half precision) and how to build them, beside a JSON card that says
where they come from and what they measure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save as serialise
from torch import nn

from npgd import checks
from npgd.files import read_tensors, write_atomically
from npgd.networks import build
from npgd.networks.architectures import channels_last

SHIPPED = ("mnist", "mnist-k100", "celeba", "church")


class GenerativePrior(nn.Module):
    """A generator G and an encoder G†; P = G∘G† projects onto range(G), approximately.

    ``generator``: latents (batch, latent_dim) to images (batch, *image_shape) in [-1, 1];
    ``encoder``: images to latents. Any pair of ``nn.Module``; both are put in evaluation mode and
    stay there (``train()`` has no effect), so that P is deterministic.

    ``corrector``, if there is one, takes (w, z, generate) to a better latent for w (see
    :mod:`npgd.networks.corrector`); G† is then the encoder followed by ``corrections`` such steps,
    each at the price of a forward and a backward pass of G. Setting ``prior.corrections = 0`` gives
    the paper's plain G∘G†.

    Raises ``TypeError`` for anything that is no module, ``ValueError`` where the networks' shapes
    do not fit ``latent_dim`` and ``image_shape`` (each is tried once on zeros).
    """

    def __init__(
        self,
        generator: nn.Module,
        encoder: nn.Module,
        latent_dim: int,
        image_shape: tuple[int, ...],
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
                raise TypeError(f"{argument}: {type(network).__name__}; expected a torch nn.Module")
        self.generator, self.encoder, self.corrector = generator, encoder, corrector
        self.corrections = corrections
        self.architecture: dict[str, Any] | None = None  # of networks read from a file
        self.latent_dim = checks.integer(latent_dim, "latent_dim")
        self.image_shape = checks.image_shape(image_shape)
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
            raise ValueError(f"corrections: {value}, but this prior has no corrector")

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
                except RuntimeError as error:
                    raise ValueError(
                        f"{argument}: does not take a batch of shape (2, {_shape(came)}): {error}"
                    ) from error
                if tuple(out.shape) != (2, *expected):
                    raise ValueError(
                        f"{argument}: maps (2, {_shape(came)}) to {tuple(out.shape)}; "
                        f"expected (2, {_shape(expected)})"
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

    def generate(
        self, z: Float[torch.Tensor, "batch k"]
    ) -> Float[torch.Tensor, "batch channels height width"]:
        """G(z)."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z: shape {tuple(z.shape)}; expected (batch, {self.latent_dim})")
        return self.generator(z)

    def encode(
        self, w: Float[torch.Tensor, "batch channels height width"]
    ) -> Float[torch.Tensor, "batch k"]:
        """G†(w): the latent of a point near w on range(G).

        With corrections the result carries no gradient to w.
        """
        z = self.encoder(checks.images(w, self.image_shape, "w"))
        for _ in range(self.corrections):
            assert self.corrector is not None
            z = self.corrector(w, z, self.generator)
        return z

    def project(
        self, w: Float[torch.Tensor, "batch channels height width"]
    ) -> Float[torch.Tensor, "batch channels height width"]:
        """P(w) = G(G†(w)), equation (4) of the paper."""
        return self.generate(self.encode(w))

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Float[torch.Tensor, "n channels height width"]:
        """n samples G(z), z ~ N(0, I), from a CPU ``generator`` or a ``seed`` (one of the two)."""
        return self.generate(self.sample_latents(n, generator=generator, seed=seed))

    def sample_latents(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Float[torch.Tensor, "n k"]:
        """n latents z ~ N(0, I), the first n of any larger draw with the same seed.

        Drawn in float64 on the CPU, as Φ⁻¹ of uniform numbers one after another, so that dtype and
        device do not change them (torch.randn fills large and small tensors in different orders).
        """
        checks.integer(n, "n")
        if (generator is None) == (seed is None):
            raise ValueError("generator, seed: give exactly one of the two")
        if generator is None:
            assert seed is not None
            generator = torch.Generator().manual_seed(seed)
        u = torch.rand(n, self.latent_dim, generator=generator, dtype=torch.float64)
        z = torch.special.ndtri(u.clamp_(min=2.0**-54))
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
    """Write a prior's weights (in half precision unless ``half`` is false) and its card.

    ``architecture`` maps "generator" and "encoder" (and "corrector", where the prior has one) to
    {"name": …, "settings": {…}} as :func:`npgd.networks.build` takes them; a prior that was loaded
    knows its own. Writes ``path`` (.safetensors) and, beside it, the card
    (.json); each whole or not at all.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: {path}; expected a name that ends in .safetensors")
    architecture = architecture or prior.architecture
    if architecture is None:
        raise ValueError("architecture: none given, and the prior was not loaded from a file")
    tensors = {}
    for key, value in prior.state_dict().items():
        small = half and value.is_floating_point()
        tensors[key] = value.detach().cpu().to(torch.float16 if small else value.dtype).contiguous()
    parts = ["generator", "encoder"] + (["corrector"] if prior.corrector is not None else [])
    description = {
        "name": prior.name,
        "latent_dim": prior.latent_dim,
        "image_shape": list(prior.image_shape),
        "architecture": {part: dict(architecture[part]) for part in parts},
    }
    if prior.corrector is not None:
        description["corrections"] = prior.corrections
    write_atomically(path, serialise(tensors, {"prior": json.dumps(description)}))
    if card is not None:
        text = json.dumps(dict(card), indent=2, ensure_ascii=False) + "\n"
        write_atomically(path.with_suffix(".json"), text.encode())


def load_prior(
    name: str | os.PathLike[str] = "mnist",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> GenerativePrior:
    """A shipped prior by name (:data:`SHIPPED`), or one from a .safetensors file.

    Raises ``ValueError`` for an unknown name or a file that is no prior.
    """
    if str(name) in SHIPPED:
        with as_file(files("npgd.weights") / f"{name}.safetensors") as path:
            return _read_prior(path, dtype, device)
    path = Path(name)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(
            f"name: {str(name)!r} is neither a shipped prior ({', '.join(SHIPPED)}) "
            "nor an existing .safetensors file"
        )
    return _read_prior(path, dtype, device)


def _read_prior(path: Path, dtype: torch.dtype, device: str | torch.device) -> GenerativePrior:
    header, tensors = read_tensors(path, "prior")
    description = json.loads(header)
    networks = {
        part: build(spec["name"], spec["settings"])
        for part, spec in description["architecture"].items()
    }
    prior = GenerativePrior(
        networks["generator"],
        networks["encoder"],
        description["latent_dim"],
        tuple(description["image_shape"]),
        name=description["name"],
        corrector=networks.get("corrector"),
        corrections=description.get("corrections", 0),
    )
    try:
        prior.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit its architecture ({error})") from error
    prior.architecture = description["architecture"]
    prior.requires_grad_(False).to(device=device, dtype=dtype)
    return channels_last(prior)


def prior_card(name: str) -> dict[str, Any]:
    """The card of a shipped prior: data, settings, seed, figures, licence of the data."""
    if name not in SHIPPED:
        raise ValueError(f"name: {name!r}; expected one of {', '.join(SHIPPED)}")
    return json.loads((files("npgd.weights") / f"{name}.json").read_text(encoding="utf-8"))
