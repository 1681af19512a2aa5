"""The commands ``npgd train …``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.commands.options import (
    DataDir,
    Dataset,
    Device,
    Download,
    Prior,
    Seed,
    Strict,
    console,
    plain_errors,
    set_threads,
    torch_device,
)

train_app = typer.Typer(
    help="Train a generator, a projector, a corrector, a denoiser or a OneNet.",
    no_args_is_help=True,
)

Precision = Annotated[
    str, typer.Option(help="float32 or bfloat16 (mixed); auto: mixed on CUDA alone.")
]
CheckpointEvery = Annotated[int, typer.Option(help="Steps between checkpoints.")]
Operators = Annotated[
    str | None,
    typer.Option(
        help="Operators of the iteration trained on: a choice of "
        "gaussian,inpainting,super-resolution; default gaussian."
    ),
]
MLow = Annotated[int | None, typer.Option(help="Least rows of those Gaussian; default 20.")]
MHigh = Annotated[int | None, typer.Option(help="Most rows of those Gaussian; default 500.")]


@train_app.command("generator")
def train_generator_command(
    output: Annotated[Path, typer.Option(help="Directory of the run; goes on where it stopped.")],
    dataset: Annotated[Dataset, typer.Option(help="Training images.")] = Dataset.MNIST,
    data_dir: DataDir = None,
    download: Download = False,
    latent_dim: Annotated[int, typer.Option(help="Dimension k of z.")] = 20,
    width: Annotated[int, typer.Option(help="Channels at half the image's side.")] = 32,
    flips: Annotated[bool, typer.Option(help="Mirror half of the real images.")] = False,
    augment: Annotated[
        str,
        typer.Option(
            help="What D sees images through, for small data sets: a choice of "
            "color,translation,cutout."
        ),
    ] = "",
    architecture: Annotated[str, typer.Option(help="dcgan, or sagan for 64×64.")] = "dcgan",
    loss: Annotated[str, typer.Option(help="vanilla, or wasserstein for sagan.")] = "vanilla",
    coverage: Annotated[
        float, typer.Option(help="Weight of the coverage term; 0 is the paper's GAN.")
    ] = 0.0,
    principal: Annotated[
        bool,
        typer.Option(help="Start the coverage term's encoder from principal components."),
    ] = False,
    unbiased: Annotated[
        bool, typer.Option(help="Moments of latents by pairs; for k near or above the batch size.")
    ] = False,
    precision: Precision = "auto",
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 2e-4,
    checkpoint_every: CheckpointEvery = 500,
    strict: Strict = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: torch's.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train G as a GAN; killed at any moment, the same command goes on to the same weights."""
    with plain_errors():
        from npgd.data import dataset_uint8
        from npgd.training import GeneratorConfig, train_generator

        set_threads(threads)
        images = dataset_uint8(dataset.value, "train", data_dir, download, strict)
        config = GeneratorConfig(
            latent_dim=latent_dim,
            width=width,
            coverage=coverage,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            flips=flips,
            augment=augment,
            unbiased=unbiased,
            principal=principal,
            architecture=architecture,
            loss=loss,
            precision=_precision(precision, device),
            seed=seed,
        )
        train_generator(
            images,
            output,
            config,
            device=torch_device(device),
            progress=True,
            checkpoint_every=checkpoint_every,
        )
        console.print(
            f"written: {output}. Next: npgd train projector --generator {output} --output …"
        )


@train_app.command("projector")
def train_projector_command(
    generator: Annotated[Path, typer.Option(help="Directory of a finished generator's run.")],
    output: Annotated[Path, typer.Option(help="Directory of the run; goes on where it stopped.")],
    paper: Annotated[
        bool, typer.Option(help="The paper's setting: σ = 1 on samples of G, nothing else.")
    ] = False,
    dataset: Annotated[Dataset, typer.Option(help="Real training images.")] = Dataset.MNIST,
    data_dir: DataDir = None,
    download: Download = False,
    width: Annotated[int, typer.Option(help="Channels at half the image's side.")] = 64,
    hidden: Annotated[int, typer.Option(help="Units of the hidden layer.")] = 384,
    noise_low: Annotated[float | None, typer.Option(help="Least σ; default 0.02.")] = None,
    noise_high: Annotated[float | None, typer.Option(help="Largest σ; default 5.")] = None,
    real_fraction: Annotated[
        float | None, typer.Option(help="Fraction of real training images; default 0.5.")
    ] = None,
    visits: Annotated[
        int | None, typer.Option(help="Points of the iteration trained on; default 3.")
    ] = None,
    operators: Operators = None,
    m_low: MLow = None,
    m_high: MHigh = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step; default 64.")] = None,
    from_coverage: Annotated[
        bool,
        typer.Option(help="Start from the encoder of the coverage term; its size holds."),
    ] = False,
    precision: Precision = "auto",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 10_000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 5e-4,
    checkpoint_every: CheckpointEvery = 500,
    strict: Strict = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: torch's.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    name: Annotated[str, typer.Option(help="Name the prior carries.")] = "custom",
) -> None:
    """Train G† for a frozen G, and write the prior that results as prior.safetensors."""
    with plain_errors():
        from dataclasses import replace

        from npgd import GenerativePrior, save_prior
        from npgd.data import dataset_uint8
        from npgd.networks.architectures import network_spec
        from npgd.training import (
            PAPER,
            ProjectorConfig,
            load_coverage_encoder,
            load_generator,
            train_projector,
        )

        set_threads(threads)
        base = PAPER if paper else ProjectorConfig()
        given: dict[str, Any] = {
            "noise_low": noise_low,
            "noise_high": noise_high,
            "real_fraction": real_fraction,
            "visits": visits,
            "operators": operators,
            "m_low": m_low,
            "m_high": m_high,
            "batch_size": batch_size,
        }
        g, g_config, digest = load_generator(generator)
        encoder = load_coverage_encoder(generator) if from_coverage else None
        latent_dim, size = g_config["latent_dim"], g_config.get("image_size", 28)
        shape = (g_config["channels"], size, size)
        spec = network_spec("encoder", g_config)
        if not from_coverage:
            settings = {"latent_dim": latent_dim, "width": width, "hidden": hidden}
            settings |= {"channels": shape[0], "image_size": size}
            spec = {"architecture": "Encoder", "settings": settings}
        config = replace(
            base,
            width=spec["settings"]["width"],
            hidden=spec["settings"]["hidden"],
            precision=_precision(precision, device),
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            **{key: value for key, value in given.items() if value is not None},
        )
        images = (
            dataset_uint8(dataset.value, "train", data_dir, download, strict)
            if config.real_fraction > 0
            else None
        )
        e = train_projector(
            g,
            latent_dim,
            images,
            output,
            config,
            device=torch_device(device),
            progress=True,
            checkpoint_every=checkpoint_every,
            generator_digest=digest,
            encoder=encoder,
        )
        prior = GenerativePrior(g.cpu(), e.cpu(), latent_dim, shape, name=name)
        architecture = {
            part: {"name": built["architecture"], "settings": built["settings"]}
            for part, built in (
                ("generator", network_spec("generator", g_config)),
                ("encoder", spec),
            )
        }
        card = {"name": name, "generator_training": g_config, "projector_training": asdict(config)}
        save_prior(prior, output / "prior.safetensors", architecture, card)
        console.print(f"written: {output / 'prior.safetensors'}; use it as --prior")


@train_app.command("corrector")
def train_corrector_command(
    output: Annotated[Path, typer.Option(help="Directory of the run; goes on where it stopped.")],
    prior: Prior = "mnist",
    dataset: Annotated[Dataset, typer.Option(help="Real training images.")] = Dataset.MNIST,
    data_dir: DataDir = None,
    download: Download = False,
    hidden: Annotated[int, typer.Option(help="Units of the hidden layers.")] = 384,
    corrections: Annotated[int, typer.Option(help="Steps in use.")] = 2,
    reach: Annotated[
        float, typer.Option(help="Residual (rms per pixel) beyond which a step in use fades out.")
    ] = 0.6,
    real_fraction: Annotated[float, typer.Option(help="Fraction of real training images.")] = 0.5,
    operators: Operators = None,
    m_low: MLow = None,
    m_high: MHigh = None,
    precision: Precision = "auto",
    checkpoint_every: CheckpointEvery = 500,
    strict: Strict = False,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 10_000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: torch's.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    name: Annotated[str | None, typer.Option(help="Name the prior carries.")] = None,
) -> None:
    """Train learned gradient steps that follow a prior's encoder; writes prior.safetensors."""
    with plain_errors():
        from npgd import GenerativePrior, load_prior, save_prior
        from npgd.data import dataset_uint8
        from npgd.training import CorrectorConfig, train_corrector

        set_threads(threads)
        given: dict[str, Any] = {"operators": operators, "m_low": m_low, "m_high": m_high}
        config = CorrectorConfig(
            hidden=hidden,
            corrections=corrections,
            real_fraction=real_fraction,
            steps=steps,
            learning_rate=learning_rate,
            precision=_precision(precision, device),
            seed=seed,
            **{key: value for key, value in given.items() if value is not None},
        )
        p = load_prior(prior)
        images = (
            dataset_uint8(dataset.value, "train", data_dir, download, strict)
            if real_fraction > 0
            else None
        )
        corrector = train_corrector(
            p.generator,
            p.encoder,
            p.latent_dim,
            images,
            output,
            config,
            device=torch_device(device),
            progress=True,
            checkpoint_every=checkpoint_every,
        )
        corrector.reach = reach  # training is without
        corrected = GenerativePrior(
            p.generator.cpu(),
            p.encoder.cpu(),
            p.latent_dim,
            p.image_shape,
            name=name or p.name,
            corrector=corrector.cpu(),
            corrections=corrections,
        )
        assert p.architecture is not None
        settings = {"latent_dim": p.latent_dim, "hidden": hidden, "reach": reach}
        architecture = p.architecture | {"corrector": {"name": "Corrector", "settings": settings}}
        card = {"name": corrected.name, "corrector_training": {**asdict(config), "reach": reach}}
        save_prior(corrected, output / "prior.safetensors", architecture, card)
        console.print(f"written: {output / 'prior.safetensors'}; use it as --prior")


@train_app.command("denoiser")
def train_denoiser_command(
    output: Annotated[Path, typer.Option(help="Directory of the run; goes on where it stopped.")],
    data_dir: DataDir = None,
    download: Download = False,
    width: Annotated[int, typer.Option(help="Channels at full size.")] = 12,
    noise_low: Annotated[float, typer.Option(help="Least σ.")] = 0.02,
    noise_high: Annotated[float, typer.Option(help="Largest σ.")] = 4.0,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 6000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 2e-3,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: torch's.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train a denoiser of digits for plug-and-play ADMM, and write it as denoiser.safetensors."""
    with plain_errors():
        from npgd.data import mnist_uint8
        from npgd.denoisers import save_network
        from npgd.training import DenoiserConfig, train_denoiser

        set_threads(threads)
        images, _ = mnist_uint8("train", data_dir, download)
        config = DenoiserConfig(
            width=width,
            noise_low=noise_low,
            noise_high=noise_high,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
        )
        network = train_denoiser(images, output, config, device=torch_device(device), progress=True)
        path = output / "denoiser.safetensors"
        settings = {"width": width, "channels": images.shape[1]}
        save_network(network, path, settings, {"denoiser_training": asdict(config)})
        console.print(f"written: {path}; npgd.load_denoiser({str(path)!r}) reads it")


@train_app.command("onenet")
def train_onenet_command(
    output: Annotated[Path, typer.Option(help="Directory of the run; goes on where it stopped.")],
    data_dir: DataDir = None,
    download: Download = False,
    width: Annotated[int, typer.Option(help="Channels at full size.")] = 12,
    noise: Annotated[float, typer.Option(help="Largest σ of the perturbation.")] = 1.5,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2500,
    learning_rate: Annotated[float, typer.Option(help="Of P's Adam.")] = 1e-3,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: torch's.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train OneNet's proximal map against classifiers, and write it as onenet.safetensors."""
    with plain_errors():
        from npgd.data import mnist_uint8
        from npgd.denoisers import save_network
        from npgd.training import OneNetConfig, train_onenet

        set_threads(threads)
        images, _ = mnist_uint8("train", data_dir, download)
        config = OneNetConfig(
            width=width, noise=noise, steps=steps, learning_rate=learning_rate, seed=seed
        )
        network = train_onenet(images, output, config, device=torch_device(device), progress=True)
        path = output / "onenet.safetensors"
        settings = {"width": width, "channels": images.shape[1]}
        save_network(network, path, settings, {"onenet_training": asdict(config)})
        console.print(f"written: {path}; npgd.OneNet({str(path)!r}) uses it")


def _precision(precision: str, device: str) -> str:
    if precision != "auto":
        return precision
    return "bfloat16" if device.startswith("cuda") else "float32"
