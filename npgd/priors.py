"""The prior: S = range(G), with the projector P = G∘G† (Raj, Li, Bresler, ICCV 2019, section 3).

A prior is a generator and an encoder. The shipped ones are stored as weights with a card, see
`npgd.cards`.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from npgd import cards, checks
from npgd.files import entry, sentence
from npgd.images import Images, Latents, other_range
from npgd.importing import imported, is_import_path, made, path_of
from npgd.networks.architectures import outline
from npgd.networks.foreign import adapted, require_tensor
from npgd.precision import copied
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
        TypeError: a network that is no module, in half precision, or not in the generator's.
        ValueError: networks whose shapes do not fit `latent_dim` and `image_shape`, or that give
            different things for one input, alone, among others, or a second time (each is tried
            twice on a batch of two, and on one).

    Networks of other forms (several outputs, pixels in [0, 1], latents that are images, one
    precision only, functions): `npgd.as_generator`, `npgd.as_encoder`. A range of [0, 1] or
    [0, 255] in what is tried is warned of.
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
                    f"{argument} must be a torch nn.Module, got {type(network).__name__};"
                    f" npgd.as_generator and npgd.as_encoder make one of a function"
                )
        self.generator, self.encoder, self.corrector = generator, encoder, corrector
        self.corrections = corrections
        self.rows = self.graph_rows = None
        self.architecture: dict[str, Any] | None = None  # of networks read from a file
        self.latent_dim = checks.integer(latent_dim, "latent_dim")
        self.image_shape = checks.image_shape(image_shape)
        if not isinstance(name, str):
            raise TypeError(f"name must be a word, got {checks.shown(name)}")
        self.name = name
        for argument, network in networks:
            _require_kind(argument, network, self.dtype)
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

    @property
    def rows(self) -> int | None:
        """Most images that pass through a network at a time: larger batches pass in parts, and take
        more time and not more memory. None for no bound."""
        return self._rows

    @rows.setter
    def rows(self, value: int | None) -> None:
        self._rows = None if value is None else checks.integer(value, "rows")

    @property
    def graph_rows(self) -> int | None:
        """The same of a search's passes, which are differentiated."""
        return self._graph_rows

    @graph_rows.setter
    def graph_rows(self, value: int | None) -> None:
        self._graph_rows = None if value is None else checks.integer(value, "graph_rows")

    def _try_out(self) -> None:
        """Two latents through G and two images through G†, twice: shapes, range, and chance."""
        k = self.latent_dim
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        z = torch.linspace(-1.5, 1.5, 2 * k, dtype=torch.float64).reshape(k, 2).T.to(like)
        x = self._tried("generator", self.generator, z, self.image_shape)
        _warn_of_range(x)
        self._tried("encoder", self.encoder, x, (k,))

    def _tried(
        self, argument: str, network: nn.Module, given: torch.Tensor, expected: tuple[int, ...]
    ) -> torch.Tensor:
        came = _shape(tuple(given.shape[1:]))
        before = given.clone()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                outs = [network(given), network(given)]
        except Exception as error:  # a user's network fails in its own way
            if str(error).startswith("output must"):
                raise
            raise ValueError(
                f"{argument} must take a batch of shape (2, {came}), got {type(error).__name__}:"
                f" {sentence(error)}; npgd.as_{argument} adapts networks of other forms"
            ) from error
        out, again = (require_tensor(out, argument, expected) for out in outs)
        if tuple(out.shape) != (2, *expected):
            raise ValueError(
                f"{argument} must map (2, {came}) to (2, {_shape(expected)}), got"
                f" {tuple(out.shape)}; {adapted(argument, tuple(out.shape), expected)}"
            )
        if not torch.equal(before, given):
            raise ValueError(f"{argument} must leave its input as it is, got one that changes it")
        if argument == "generator":
            checks.finite(out, "what generator gives")
        off, size = float((out - again).abs().max()), float(out.abs().max())
        # Sums in another order, on a GPU, are no chance.
        if off > (1e-5 if out.device.type == "cpu" else 1e-3) * size:
            raise ValueError(
                f"{argument} must give the same for the same input, got two that differ by"
                f" {off:.2g}; fix its noise (noise_mode='const', a mean in place of a draw)"
            )
        _require_alone(argument, network, given, out)
        return out

    def train(self, mode: bool = True) -> GenerativePrior:
        """Stay in evaluation mode: a prior that is in use has no training mode."""
        try:
            return super().train(False)
        except NotImplementedError:  # a program of torch.export has the mode it was exported in
            for part in self.modules():
                part.training = False
            return self

    @property
    def dtype(self) -> torch.dtype:
        """The networks' floating-point type (the default type for networks without tensors)."""
        found = checks.kind(self)
        return torch.get_default_dtype() if found is None else found[0]

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        found = checks.kind(self)
        return torch.device("cpu") if found is None else found[1]

    def generate(self, z: Latents) -> Images:
        """G(z)."""
        checks.floating(z, "z")
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z must have shape (batch, {self.latent_dim}), got {tuple(z.shape)}")
        checks.same_kind(z, self, "z", "the prior")
        return self._in_parts(
            functools.partial(self._in_its_precision, "generator", self.generator), z
        )

    def encode(self, w: Images) -> Latents:
        """G†(w): the latent of a point near w on range(G).

        With corrections the result carries no gradient to w.
        """
        checks.same_kind(checks.images(w, self.image_shape, "w"), self, "w", "the prior")
        return self._in_parts(self._encoded, w)

    def _in_parts(
        self, function: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor
    ) -> torch.Tensor:
        """What a function makes of a batch, `rows` at a time."""
        if self.rows is None or len(given) <= self.rows:
            return function(given)
        return torch.cat([function(part) for part in torch.split(given, self.rows)])

    def _encoded(self, w: Images) -> Latents:
        z: Latents = self._in_its_precision("encoder", self.encoder, w)
        if self.corrections:
            # Under autocast the encoder's latents are of half precision; corrections are exact.
            w, z = w.to(self.dtype), z.to(self.dtype)
        for _ in range(self.corrections):
            assert self.corrector is not None
            z = self.corrector(w, z, self.generator)
        return z

    def _in_its_precision(
        self, argument: str, network: nn.Module, given: torch.Tensor
    ) -> torch.Tensor:
        """The network's output; TypeError where it computes in another precision than it is in."""
        try:
            out: torch.Tensor = network(given)
        except RuntimeError as error:
            # Convolutions say "Input type (…) and weight type (…) should be the same".
            words = ("dtype", "scalar type", "and weight type")
            if not any(word in str(error) for word in words):
                raise
            raise TypeError(_fixed(argument, given, sentence(error))) from error
        if out.dtype != given.dtype and not torch.is_autocast_enabled(given.device.type):
            raise TypeError(_fixed(argument, given, str(out.dtype)))
        return out

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


def _require_kind(argument: str, network: nn.Module, dtype: torch.dtype) -> None:
    """Raise unless a network has weights, in float32 or float64, as the others have them."""
    found = checks.kind(network)
    if found is None:
        return
    if found[1].type == "meta":
        raise ValueError(f"{argument} must have its weights, got one on the meta device; load them")
    if found[0] not in (torch.float32, torch.float64):
        raise TypeError(
            f"{argument} must be float32 or float64, got {found[0]}; convert it, {argument}.float()"
        )
    if found[0] != dtype:
        raise TypeError(
            f"{argument} must be {dtype} as the generator is, got {found[0]}; convert one with"
            " .to(…)"
        )


def _require_alone(
    argument: str, network: nn.Module, given: torch.Tensor, out: torch.Tensor
) -> None:
    """Raise unless the first of a batch is mapped alone as it is among others."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            alone = network(given[:1])
    except Exception as error:
        raise ValueError(
            f"{argument} must take batches of any size, got one that takes two and of one says"
            f" {type(error).__name__}: {sentence(error)}"
        ) from error
    off = float((alone - out[:1]).abs().max())
    if off > 1e-3 * float(out.abs().max()):
        raise ValueError(
            f"{argument} must map an input alone as among others, got two that differ by {off:.2g};"
            " fix the statistics that it takes from a batch (BatchNorm with running ones)"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return ", ".join(str(s) for s in shape)


def _fixed(argument: str, given: torch.Tensor, got: str) -> str:
    return (
        f"{argument} must compute in {given.dtype} as its input is, got {got}; for one that knows a"
        f" single precision give npgd.as_{argument}({argument}, dtype=torch.float32)"
    )


def _warn_of_range(x: Images) -> None:
    """Warn where the pixels of a few images look like those of another range than [−1, 1]."""
    pixels = other_range(x)
    if pixels is not None:
        warnings.warn(
            f"generator must give pixels in [-1, 1], got {float(x.min()):.3g} to"
            f" {float(x.max()):.3g} in two images; if its range is {list(pixels)}, give"
            f" npgd.as_generator(generator, pixels={pixels}), and npgd.as_encoder(encoder,"
            f" pixels={pixels})",
            stacklevel=4,
        )


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
            loaded knows its own. The name of a class of yours is the class itself, or its import
            path, "package.module:Class".
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
        "architecture": {part: _named(architecture[part]) for part in parts},
    }
    if prior.corrector is not None:
        description["corrections"] = prior.corrections
    known = [description["architecture"][part].get("name") for part in parts]
    build = functools.partial(_networks, known=known)
    cards.save(prior, path, "prior", build, description, card, half)


def _named(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the import path of a class in its place."""
    name = spec.get("name")
    return {**spec, "name": path_of(name)} if isinstance(name, type) else dict(spec)


def load_prior(
    name: str | os.PathLike[str] = "mnist",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    architectures: Sequence[str | type[nn.Module]] = (),
) -> GenerativePrior:
    """A shipped prior by name ("mnist", "mnist-k100", "mnist-k2", "celeba", "church"), one from a
    file, or one that your code makes.

    Args:
        name: of a shipped prior; the path of a .safetensors file; or an import path,
            "package.module:make_prior" or "folder/file.py:make_prior", of a GenerativePrior or of a
            function without arguments that returns one, whose module is imported.
        dtype: of its weights.
        device: of its weights.
        architectures: classes of yours, or their import paths, that the file may name. What is not
            named here is not imported: a file runs no code by itself.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an unknown name, a dtype or device that does not serve, or a file that is no
            prior.
    """
    if isinstance(architectures, str | bytes) or not isinstance(architectures, Sequence):
        came = checks.shown(architectures)
        raise TypeError(f"architectures must be classes or import paths in a row, got {came}")
    if isinstance(name, str) and is_import_path(name):
        return _made(name, dtype, device)
    known = [path_of(a) if isinstance(a, type) else str(a) for a in architectures]
    return cards.load(
        name, "prior", functools.partial(_networks, known=known), _prior, dtype, device
    )


def _made(path: str, dtype: torch.dtype, device: str | torch.device) -> GenerativePrior:
    """The prior that an import path names, or that the function there returns."""
    checks.floating_type(dtype)
    found = imported(path, "name")
    prior = copied(found) if isinstance(found, nn.Module) else made(path, found, "name")
    if not isinstance(prior, GenerativePrior):
        raise TypeError(
            f"name must lead to a GenerativePrior, or to a function that returns one, got"
            f" {checks.shown(prior)} from {path}"
        )
    return prior.requires_grad_(False).to(device=device, dtype=dtype)


def _networks(description: dict[str, Any], known: Sequence[str] = ()) -> nn.ModuleDict:
    """The parts of a prior, under the names that they have in it; `known` are import paths."""
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
        if is_import_path(name) and name not in known:
            raise ValueError(
                f"{part} must be an architecture of the package or named by the reader, for it is"
                f" code: load_prior(…, architectures=[{name!r}])"
            )
        networks[part] = outline(name, settings, latent_dim, known)
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
