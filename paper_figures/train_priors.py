"""Train the shipped priors anew, within minutes on a GPU.

    python paper_figures/train_priors.py celeba --device cuda --minutes 9 --output runs/celeba

One prior is up to three trainings, one after another: the generator, the encoder, the corrector
(the first only where the shipped generator does not stay). The minutes are shared out among them,
each stage takes as many steps as its share holds at the speed seen, and `prior.safetensors` is
written after every stage with what there is by then. A run that was stopped goes on when the same
command is given again. It needs torch, numpy, safetensors, Pillow and jaxtyping; no cvxpy, and no
installation of the project.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from npgd import GenerativePrior, data, load_prior, save_prior
from npgd.networks.architectures import network_spec
from npgd.priors import prior_card
from npgd.training import (
    CorrectorConfig,
    GeneratorConfig,
    ProjectorConfig,
    load_coverage_encoder,
    load_generator,
    train_corrector,
    train_generator,
    train_projector,
)
from npgd.training.corrector import CorrectorTask
from npgd.training.gan import GeneratorTask
from npgd.training.loop import Task, generator_for
from npgd.training.projector import ProjectorTask, encoder_spec


@dataclass(frozen=True)
class Recipe:
    """How a shipped prior is made."""

    dataset: str
    projector: ProjectorConfig
    corrector: CorrectorConfig
    shares: tuple[float, float, float]
    """Of the time, for generator, encoder and corrector."""
    generator: GeneratorConfig | None = None
    """None: the shipped generator stays."""
    new_encoder: bool = False
    """Of the configuration's size, from scratch; else the shipped or the coverage term's."""
    reach: float = 0.6


_FACES = GeneratorConfig(
    latent_dim=100,
    width=32,
    coverage=30.0,
    unbiased=True,
    principal=True,
    batch_size=64,
    learning_rate=3e-4,
    flips=True,
    augment="color,translation,cutout",
)
_TASKS = ProjectorConfig(
    operators="gaussian,inpainting,super-resolution", m_low=200, m_high=3000, smooth=True
)
_CORRECT_TASKS = CorrectorConfig(operators=_TASKS.operators, m_low=200, m_high=3000)

RECIPES = {
    "mnist": Recipe(
        "mnist",
        ProjectorConfig(width=64, hidden=384, batch_size=256),
        CorrectorConfig(hidden=512, batch_size=256),
        (0.0, 0.25, 0.75),
    ),
    "mnist-k100": Recipe(
        "mnist",
        ProjectorConfig(width=64, hidden=512, batch_size=256, learning_rate=1e-3),
        CorrectorConfig(hidden=512, batch_size=256, corrections=4, visits=2),
        (0.0, 0.5, 0.5),
        new_encoder=True,
    ),
    "celeba": Recipe("celeba", _TASKS, _CORRECT_TASKS, (0.5, 0.2, 0.3), _FACES),
    "church": Recipe("church", _TASKS, _CORRECT_TASKS, (0.0, 0.35, 0.65)),
}


class Run:
    """One prior on its way: its folder, its recipe, and the time there is."""

    def __init__(self, name: str, folder: Path, seconds: float, device: str) -> None:
        self.name, self.folder, self.device = name, folder, device
        self.recipe = RECIPES[name]
        self.ends, self.seconds = time.monotonic() + seconds, seconds
        self.images = data.dataset_uint8(self.recipe.dataset, "train")
        self.told: dict[str, Any] = {"device": device, "progress": sys.stderr.isatty()}
        self.mixed = "bfloat16" if device.startswith("cuda") else "float32"
        self.card = {k: v for k, v in prior_card(name).items() if k != "figures"}
        self.shipped = load_prior(name)
        self.architecture: dict[str, Any] = {}

    def steps(self, part: str, make: Callable[[], Task[Any]], until: float) -> int:
        """How many steps fit before the share `until` of the time is over."""
        known = self.folder / part / "config.json"
        if known.is_file():
            return int(json.loads(known.read_text())["steps"])
        task = make()
        for i in range(10):
            task.step(i, 1000, generator_for(0, i))
        self.wait()
        began, done = time.monotonic(), 0
        while time.monotonic() - began < 0.01 * self.seconds:
            for _ in range(10):
                task.step(done, 1000, generator_for(1, done))
                done += 1
            self.wait()
        pace = (time.monotonic() - began) / done
        left = self.ends - (1 - until) * self.seconds - time.monotonic()
        found = max(int(0.93 * left / pace), 100)
        print(f"{self.name} {part}: {found} steps, {1000 * pace:.1f} ms each", flush=True)
        return found

    def wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def generator(self) -> tuple[nn.Module, nn.Module | None, str]:
        """G, the encoder to start from, and G's digest."""
        recipe = self.recipe
        if recipe.generator is None:
            assert self.shipped.architecture is not None
            self.architecture |= self.shipped.architecture
            self.architecture.pop("corrector", None)
            encoder = None if recipe.new_encoder else _trainable(self.shipped.encoder)
            return self.shipped.generator, encoder, ""
        config = replace(recipe.generator, precision=self.mixed)
        folder = self.folder / "generator"
        per_epoch = len(self.images) // config.batch_size
        steps = self.steps(
            "generator",
            lambda: GeneratorTask(self.images, config, self.device),
            recipe.shares[0],
        )
        config = replace(config, epochs=max(steps // per_epoch, 1))
        train_generator(self.images, folder, config, **self.told)
        g, run, digest = load_generator(folder)
        self.architecture |= {p: _named(network_spec(p, run)) for p in ("generator", "encoder")}
        self.card["generator_training"] = run
        return g, load_coverage_encoder(folder), digest

    def encoder(self, g: nn.Module, encoder: nn.Module | None, digest: str) -> nn.Module:
        """G†, trained or trained further."""
        recipe, k = self.recipe, self.shipped.latent_dim
        config = recipe.projector
        if encoder is None:
            spec = encoder_spec(k, self.shipped.image_shape, config)
            self.architecture["encoder"] = _named(spec)
        else:
            made = self.architecture["encoder"]["settings"]
            config = replace(config, width=made["width"], hidden=made["hidden"])
        config = replace(config, precision=self.mixed)

        def make() -> ProjectorTask:
            return ProjectorTask(g, k, self.images, config, self.device, _copied(encoder))

        steps = self.steps("encoder", make, sum(recipe.shares[:2]))
        config = replace(config, steps=steps)
        trained = train_projector(
            g,
            k,
            self.images,
            self.folder / "encoder",
            config,
            encoder=encoder,
            generator_digest=digest,
            **self.told,
        )
        self.card["projector_training"] = asdict(config)
        return trained

    def corrector(self, g: nn.Module, encoder: nn.Module) -> nn.Module:
        """The learned gradient steps."""
        k, config, reach = self.shipped.latent_dim, self.recipe.corrector, self.recipe.reach

        def make() -> CorrectorTask:
            return CorrectorTask(g, encoder, k, self.images, config, self.device)

        config = replace(config, steps=self.steps("corrector", make, 1.0))
        folder = self.folder / "corrector"
        trained = train_corrector(g, encoder, k, self.images, folder, config, **self.told)
        trained.reach = reach
        settings = {"latent_dim": k, "hidden": config.hidden, "reach": reach}
        self.architecture["corrector"] = {"name": "Corrector", "settings": settings}
        self.card["corrector_training"] = {**asdict(config), "reach": reach}
        return trained

    def write(self, *parts: nn.Module, path: Path) -> None:
        """The prior of what has been trained so far."""
        generator, encoder, *rest = (_copied(part).cpu() for part in parts)
        prior = GenerativePrior(
            generator,
            encoder,
            self.shipped.latent_dim,
            self.shipped.image_shape,
            self.name,
            corrector=rest[0] if rest else None,
            corrections=self.recipe.corrector.corrections if rest else 0,
        )
        save_prior(prior, path, self.architecture, self.card)
        print(f"{self.name}: written {path}", flush=True)


def _copied(network: Any) -> Any:
    return copy.deepcopy(network)


def _trainable(encoder: nn.Module) -> nn.Module:
    """A shipped encoder, whose weights take gradients again, but for its principal components."""
    encoder.requires_grad_()
    principal = getattr(encoder, "principal", None)
    if principal is not None:
        principal.requires_grad_(False)
    return encoder


def _named(spec: dict[str, Any]) -> dict[str, Any]:
    return {"name": spec["architecture"], "settings": spec["settings"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prior", choices=sorted(RECIPES))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="folder; default runs/NAME")
    parser.add_argument("--write", type=Path, help="of the prior; default prior.safetensors there")
    told = parser.parse_args()
    folder = told.output or Path("runs") / told.prior
    path = told.write or folder / "prior.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    run = Run(told.prior, folder, 60 * told.minutes, told.device)
    g, encoder, digest = run.generator()
    if encoder is not None:
        run.write(g, encoder, path=path)
    encoder = run.encoder(g, encoder, digest)
    run.write(g, encoder, path=path)
    corrector = run.corrector(g, encoder)
    run.write(g, encoder, corrector, path=path)


if __name__ == "__main__":
    main()
