"""The commands `npgd train …`, their options those of the trainings' configurations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from analysis.commands.options import (
    Archives,
    Data,
    Dataset,
    Prior,
    command,
    invocation,
    load_prior,
    naming,
    own_code,
    torch_device,
)
from analysis.commands.terminal import console
from npgd import GenerativePrior, data, save_prior
from npgd.checks import image_shape, integer, shown
from npgd.denoisers import save_network
from npgd.files import sentence
from npgd.importing import imported, is_import_path, made
from npgd.networks import DenoisingNetwork, ProximalNetwork
from npgd.networks.architectures import network_spec
from npgd.networks.dcgan import LAYERS
from npgd.training import (
    PAPER,
    CorrectorConfig,
    DenoiserConfig,
    GeneratorConfig,
    OneNetConfig,
    ProjectorConfig,
    load_coverage_encoder,
    load_generator,
    train_corrector,
    train_denoiser,
    train_generator,
    train_onenet,
    train_projector,
)
from npgd.training.checkpoints import tensors_digest
from npgd.training.processes import is_first
from npgd.training.projector import encoder_spec

Precision = Annotated[
    str, typer.Option(help="float32 or bfloat16 (mixed); auto: mixed on CUDA alone.")
]


@dataclass(frozen=True)
class Training:
    """Where and how a training runs, whatever is trained."""

    output: Path
    """Directory of the run; goes on where it stopped."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    threads: int | None = None
    """CPU threads; default: torch's."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, …."""

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"--threads must be from 1 to {MOST_THREADS}, got {self.threads}")
        if self.checkpoint_every < 1:
            raise ValueError(f"--checkpoint-every must be at least 1, got {self.checkpoint_every}")

    def start(self, product: str = "") -> dict[str, Any]:
        """Set the threads; what the functions `npgd.training.train_…` are told beside these.

        FileExistsError where the training's `product` is there and no run that made it.
        """
        if os.path.lexists(self.output) and not self.output.is_dir():
            raise FileExistsError(f"--output must name a folder, got the file {self.output}")
        there = self.output / product
        if product and os.path.lexists(there) and not (self.output / "config.json").is_file():
            raise FileExistsError(
                f"--output must name a new folder or one of a training, got {self.output} with "
                f"{product} in it"
            )
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return {
            "device": torch_device(self.device),
            "checkpoint_every": self.checkpoint_every,
            "progress": True,
        }

    def precise(self, precision: str) -> str:
        """The precision meant by "auto"."""
        mixed = "bfloat16" if self.device.startswith("cuda") else "float32"
        return mixed if precision == "auto" else precision


@dataclass(frozen=True)
class RealImages(Archives):
    """The real images that are trained on."""

    dataset: Dataset = Dataset.MNIST
    """Real training images."""

    def load(self) -> torch.Tensor:
        """All of them, as bytes."""
        name = self.dataset.value
        return data.dataset_uint8(name, "train", self.data_dir, self.download, self.strict)


MOST_THREADS = 4096  # more end the process where the system has no more

train_app = typer.Typer()


@train_app.command("generator")
@command
def train_generator_command(
    *,
    training: Training,
    real: RealImages,
    config: GeneratorConfig,
    precision: Precision = "auto",
) -> None:
    """Train G as a GAN. After a kill, the same command goes on, and ends with the same weights."""
    config = replace(config, precision=training.precise(precision))
    told = training.start()
    train_generator(real.load(), training.output, config, **told)
    _tell(training.output, f"Next: npgd train projector --generator {training.output} --output …")


@train_app.command("projector")
@command
def train_projector_command(
    *,
    generator: Annotated[
        str,
        typer.Option(
            help="Directory of a finished generator's run, or your code: module:function or"
            " file.py:function."
        ),
    ],
    latent_dim: Annotated[
        int | None, typer.Option(help="Of a generator of your code, where it has no latent_dim.")
    ] = None,
    training: Training,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="The paper's setting: σ = 1 on samples of G, nothing else."),
    ] = False,
    from_coverage: Annotated[
        bool,
        typer.Option(
            "--from-coverage", help="Start from the encoder of the coverage term; its size holds."
        ),
    ] = False,
    real: RealImages,
    config: ProjectorConfig,
    precision: Precision = "auto",
    name: Annotated[str, typer.Option(help="Name the prior carries.")] = "custom",
) -> None:
    """Train G† for a frozen G, and write the prior that results as prior.safetensors."""
    told = training.start("prior.safetensors")
    with naming("--generator"), own_code():
        own = is_import_path(generator)
        if own and from_coverage:
            raise ValueError("--from-coverage needs the run of a generator, got your code")
        g, run, digest = _own(generator, latent_dim) if own else load_generator(generator)
        encoder = load_coverage_encoder(generator) if from_coverage else None
    size = run.get("image_size", 28)
    shape = (run["channels"], size, size)
    if paper:
        config = replace(PAPER, **_given(config))
    if encoder is None:
        spec = encoder_spec(run["latent_dim"], shape, config)
    else:
        spec = network_spec("encoder", run)
    config = replace(
        config,
        width=spec["settings"]["width"],
        hidden=spec["settings"]["hidden"],
        smooth="sharpness" in spec["settings"],
        precision=training.precise(precision),
    )
    e = train_projector(
        g,
        run["latent_dim"],
        real.load() if config.real_fraction > 0 else None,
        training.output,
        config,
        generator_digest=digest,
        encoder=encoder,
        **told,
    )
    prior = GenerativePrior(g.cpu(), e.cpu(), run["latent_dim"], shape, name=name)
    built = {
        "generator": {"architecture": generator, "settings": {}}
        if own
        else network_spec("generator", run),
        "encoder": spec,
    }
    architecture = {
        part: {"name": made["architecture"], "settings": made["settings"]}
        for part, made in built.items()
    }
    trained = {"generator_training": run, "projector_training": asdict(config)}
    _write_prior(prior, training.output, architecture, trained)


def _own(path: str, latent_dim: int | None) -> tuple[nn.Module, dict[str, Any], str]:
    """A generator of the user's code, what its run would say of it, and the digest of its weights.

    Raises:
        TypeError: no network at that path.
        ValueError: an unknown latent_dim, or images that are not (channels, height, width).
    """
    found = imported(path, "it")
    network = made(path, found, "it")
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"it must lead to a torch nn.Module, or to a function that returns one, got"
            f" {shown(network)}; npgd.as_generator makes one"
        )
    k = getattr(network, "latent_dim", None) if latent_dim is None else latent_dim
    if k is None:
        raise ValueError("it must have a latent_dim, got none; give --latent-dim")
    k = integer(k, "--latent-dim")
    try:
        with torch.no_grad():
            came = network.eval()(torch.zeros(2, k)).shape[1:]
    except Exception as error:  # a user's network fails in its own way
        raise ValueError(
            f"it must map latents (batch, {k}) to images, got {type(error).__name__}:"
            f" {sentence(error)}; npgd.as_generator adapts networks of other forms"
        ) from error
    shape = image_shape(came, "the shape of its images")
    if shape[1] != shape[2] or shape[1] not in LAYERS:
        raise ValueError(
            f"its images must have sides of {' or '.join(map(str, LAYERS))} for this command, got"
            f" {shape}; npgd.training.train_projector takes an encoder= of yours for any others"
        )
    run = {"generator": path, "latent_dim": k, "channels": shape[0], "image_size": shape[2]}
    return network, run, tensors_digest(network.state_dict())


@train_app.command("corrector")
@command
def train_corrector_command(
    *,
    training: Training,
    prior: Prior = "mnist",
    real: RealImages,
    config: CorrectorConfig,
    reach: Annotated[
        float, typer.Option(help="Residual (rms per pixel) beyond which a step in use fades out.")
    ] = 0.6,
    precision: Precision = "auto",
    name: Annotated[str | None, typer.Option(help="Name the prior carries.")] = None,
) -> None:
    """Train learned gradient steps that follow a prior's encoder; writes prior.safetensors."""
    told = training.start("prior.safetensors")
    config = replace(config, precision=training.precise(precision))
    p = load_prior(prior)
    images = real.load() if config.real_fraction > 0 else None
    corrector = train_corrector(
        p.generator, p.encoder, p.latent_dim, images, training.output, config, **told
    )
    corrector.reach = reach  # training is without
    corrected = GenerativePrior(
        p.generator.cpu(),
        p.encoder.cpu(),
        p.latent_dim,
        p.image_shape,
        name=name or p.name,
        corrector=corrector.cpu(),
        corrections=config.corrections,
    )
    assert p.architecture is not None
    settings = {"latent_dim": p.latent_dim, "hidden": config.hidden, "reach": reach}
    architecture = p.architecture | {"corrector": {"name": "Corrector", "settings": settings}}
    trained = {"corrector_training": {**asdict(config), "reach": reach}}
    _write_prior(corrected, training.output, architecture, trained)


@train_app.command("denoiser")
@command
def train_denoiser_command(
    *,
    training: Training,
    real: RealImages,
    also: Annotated[
        Dataset | None, typer.Option(help="Real training images beside those of --dataset.")
    ] = None,
    config: DenoiserConfig,
) -> None:
    """Train a denoiser for plug-and-play recovery, and write it as denoiser.safetensors."""
    told = training.start("denoiser.safetensors")
    images = real.load()
    if also is not None:
        with naming("--also"):
            images = _beside(images, replace(real, dataset=also).load())
    network = train_denoiser(images, training.output, config, **told)
    settings = {"width": config.width, "channels": images.shape[1], "levels": config.levels}
    path = _write_network("denoiser", network, training.output, settings, asdict(config))
    _tell(path, f"npgd.load_denoiser({str(path)!r}) reads it")


@train_app.command("onenet")
@command
def train_onenet_command(*, training: Training, digits: Data, config: OneNetConfig) -> None:
    """Train OneNet's proximal map against classifiers, and write it as onenet.safetensors."""
    told = training.start("onenet.safetensors")
    images = data.dataset_uint8("mnist", "train", digits.data_dir, digits.download)
    network = train_onenet(images, training.output, config, **told)
    settings = {"width": config.width, "channels": images.shape[1]}
    path = _write_network("onenet", network, training.output, settings, asdict(config))
    _tell(path, f"npgd.OneNet({str(path)!r}) uses it")


def _given(config: Any) -> dict[str, Any]:
    """The fields of a configuration that stand on the command line."""
    given = invocation().given
    return {
        field.name: getattr(config, field.name) for field in fields(config) if field.name in given
    }


def _beside(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Both together; ValueError where their shapes differ."""
    if images.shape[1:] != others.shape[1:]:
        shapes = tuple(images.shape[1:]), tuple(others.shape[1:])
        raise ValueError(f"--also must name images of shape {shapes[0]}, got {shapes[1]}")
    return torch.cat([images, others])


def _write_network(
    kind: str,
    network: DenoisingNetwork | ProximalNetwork,
    directory: Path,
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Path:
    """Write a trained network with its card; where it is."""
    path = directory / f"{kind}.safetensors"
    if is_first():
        save_network(network, path, settings, {f"{kind}_training": dict(config)})
    return path


def _write_prior(
    prior: GenerativePrior,
    directory: Path,
    architecture: Mapping[str, Mapping[str, Any]],
    trained: Mapping[str, Any],
) -> None:
    """Write a prior with its card: its name, and the settings of its trainings."""
    path = directory / "prior.safetensors"
    if not is_first():
        return
    save_prior(prior, path, architecture, {"name": prior.name, **trained})
    _tell(path, "use it as --prior")


def _tell(path: Path, then: str) -> None:
    """Say what has been written; once, where several processes train together."""
    if not is_first():
        return
    console.print(f"written: {path}; {then}")
