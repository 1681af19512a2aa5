"""The one training loop: resumable, deterministic, visible.

A training is a `Task`: networks, optimisers, and what one step does. All randomness of step i is
drawn from a generator seeded by (seed, i), and the order of the images in epoch e by (seed, e), so
the state of a training is its weights, its optimisers' moments and the step number, nothing else.
A run killed at any moment and started again goes on from its last checkpoint and ends with the same
weights bit for bit (CPU, float32, the same number of threads).

Several processes, each with its own GPU or share of the cores, train one network together when
`accelerate launch --multi_gpu` starts the command, or `torchrun` on a CPU: each takes its own
batches of the common order and draws its own randomness, and gradients and batch-norm statistics
are averaged before they are used, so that all hold the same state after every step. The first
process writes the files.

In the run's directory:

- `config.json`: what is trained and how;
- `checkpoint-N.safetensors`: the state after N steps, the two newest kept;
- `log.jsonl`: one line of losses every `log_every` steps;
- `samples/N.png`: a grid of images as training goes.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import nn

from npgd import checks
from npgd.data import to_pixels, to_uint8
from npgd.files import write_atomically
from npgd.networks.architectures import channels_last
from npgd.networks.sagan import folded_state
from npgd.progress import bar
from npgd.training.checkpoints import resume, save_checkpoint
from npgd.training.processes import Processes, processes


class Config(Protocol):
    """Settings of a training: a frozen dataclass whose defaults are a training of their own."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def learning_rate(self) -> float: ...

    @property
    def average(self) -> float: ...

    @property
    def seed(self) -> int: ...


Averaged = TypeVar("Averaged", bound=nn.Module)


class Task(ABC, Generic[Averaged]):
    """One training: networks, their optimisers, and what a step does.

    A subclass makes its networks in `__init__`, with `learn` for the one whose average is what the
    training is for, and says what a step does (`descend`) and shows (`pictures`). The rest is the
    same for every training, and lives here and in `train`.
    """

    kind: ClassVar[str]
    """What is trained, in the run's `config.json`."""
    config: Config
    average: Average[Averaged]

    absent: ClassVar[Mapping[str, Any]] = {}
    """What runs that began before a part of `stored` existed had in its place."""

    def __init__(
        self, config: Config, device: str | torch.device, *, steps: int, **stored: Any
    ) -> None:
        self.config, self.device, self.steps = config, torch.device(device), steps
        self.stored = {**stored, "steps": steps}
        """What tells this training from others of its kind, beside its settings."""
        self.networks: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    def learn(self, name: str, network: Averaged) -> Averaged:
        """Train a network by Adam, and keep its average; returns it, on the task's device."""
        mean = copy.deepcopy(network)
        for part in (network, mean):
            channels_last(part.to(self.device))
        self.average = Average(network, mean, self.config.average)
        self.networks |= {name: network, "average": mean}
        self.optimise(name, network.parameters(), self.config.learning_rate)
        return network

    def optimise(
        self,
        name: str,
        parameters: Iterable[nn.Parameter],
        rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """An Adam of that name, whose rate `step` lets fall from `rate`."""
        optimiser = torch.optim.Adam(parameters, lr=rate, betas=betas)
        for group in optimiser.param_groups:
            group["initial_lr"] = rate
        self.optimisers[name] = optimiser

    def step(self, i: int, total: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Do step i of `total` with randomness from `generator` alone; returns the losses."""
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * decayed(i, total)
        losses = self.descend(i, generator)
        self.average.update(i)
        return losses

    @abstractmethod
    def descend(self, i: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Step i of every optimiser, randomness from `generator` alone; returns the losses."""

    @abstractmethod
    def pictures(self) -> Float[torch.Tensor, "n c h w"]:
        """Images that show how far the training is."""


def generator_for(*words: int) -> torch.Generator:
    """A CPU generator whose seed is a hash of the given integers (numpy's SeedSequence)."""
    (seed,) = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))


class Batches:
    """Batch i of an endless pass over images in an order drawn anew in each epoch.

    Of several processes, process r of R takes batches r, R + r, 2R + r, … of the order.
    """

    def __init__(self, images: UInt8[torch.Tensor, "n c h w"], size: int, seed: int) -> None:
        if not 1 <= size <= len(images):
            raise ValueError(f"batch_size must be 1 to {len(images)} (all images), got {size}")
        self.images, self.size, self.seed = images, size, seed
        self.processes = processes()
        self.per_epoch = len(images) // (size * self.processes.count)
        if self.per_epoch == 0:
            raise ValueError(
                f"batch_size must be at most {len(images) // self.processes.count} in each of "
                f"{self.processes.count} processes ({len(images)} images), got {size}"
            )
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def __call__(self, i: int) -> Float[torch.Tensor, "batch c h w"]:
        epoch, position = divmod(i, self.per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.images), generator=generator_for(self.seed, 1, epoch))
            self._order, self._epoch = order, epoch
        position = position * self.processes.count + self.processes.rank
        return to_pixels(
            self.images[self._order[position * self.size : (position + 1) * self.size]]
        )


class Average(Generic[Averaged]):
    """Exponential moving average of a network's weights and buffers, kept in a second network.

    Of a network under spectral normalisation, the average is of the normalised weights, and the
    second network is a plain one.
    """

    def __init__(self, network: nn.Module, average: Averaged, decay: float) -> None:
        average.load_state_dict(folded_state(network))
        average.eval().requires_grad_(False)
        self.network, self.average, self.decay = network, average, decay

    @torch.no_grad()
    def update(self, i: int) -> None:
        """Move the average by 1 − decay; early on by 1/(i+1), which forgets the start."""
        weight = max(1.0 - self.decay, 1.0 / (i + 1))
        values = folded_state(self.network)
        for name, mean in self.average.state_dict().items():
            value = values[name]
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)


def _check_config(directory: Path, task: Task[Any], count: int) -> None:
    """Store what is trained, how, and by how many processes; refuse to go on under another one.

    A setting that the stored configuration lacks came later: the run had its default.
    """
    path = directory / "config.json"
    own = {"kind": task.kind, **task.stored, **asdict(task.config), "processes": count}
    config = _plain(own)
    if not path.exists():
        write_atomically(path, (json.dumps(config, indent=2) + "\n").encode())
        return
    defaults = asdict(type(task.config)())
    stored = _plain({**task.absent, **defaults, "processes": 1}) | json.loads(path.read_text())
    differing = sorted(
        key for key in stored.keys() | config.keys() if stored.get(key) != config.get(key)
    )
    if differing:
        told = "; ".join(f"{k}: {stored.get(k)!r} there, {config.get(k)!r} now" for k in differing)
        raise ValueError(
            f"{directory} holds a training with other settings ({told}). "
            "Give another directory, or the same settings to go on with it."
        )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def save_grid(path: Path, images: Float[torch.Tensor, "n c h w"], columns: int = 8) -> None:
    """Images side by side in one PNG, `columns` to a row, one white pixel between them."""
    pixels = to_uint8(images.detach().float().cpu().clone())
    n, channels, height, width = pixels.shape
    rows = -(-n // columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    for i, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        grid[top : top + height, left : left + width] = image
    buffer = io.BytesIO()
    Image.fromarray(grid[..., 0] if channels == 1 else grid).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


class _Log:
    """`log.jsonl`: lines beyond the step resumed from are dropped first."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
        write_atomically(path, "".join(kept).encode())

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **losses}) + "\n")


def train(
    task: Task[Averaged],
    directory: str | os.PathLike[str],
    *,
    checkpoint_every: int = 500,
    log_every: int = 50,
    sample_every: int = 1000,
    progress: bool = False,
) -> Averaged:
    """Bring a task to its last step, from its last checkpoint where the directory holds one.

    Returns:
        The average of the network that is trained.

    Raises:
        ValueError: where the directory holds a training with another configuration.
        FloatingPointError: when a loss stops being finite; the last checkpoint stays.
    """
    steps, directory = checks.integer(task.steps, "steps"), Path(directory)
    together = processes()
    first = together.rank == 0
    if first:
        (directory / "samples").mkdir(parents=True, exist_ok=True)
        _check_config(directory, task, together.count)
    together.wait()
    done = resume(directory, task)
    together.wait()
    log = _Log(directory / "log.jsonl", done) if first else None
    # One process draws from (seed, 0, i), as it always has.
    own = () if together.count == 1 else (together.rank,)
    show = progress and first
    with _averaged(task, together), bar(steps, "training", show, done) as shown:
        for i in range(done, steps):
            losses = task.step(i, steps, generator_for(task.config.seed, 0, i, *own))
            together.average(_statistics(task))
            done = i + 1
            if done % log_every == 0 or done == steps:
                values = _finite(losses, done, directory)
                if log is not None:
                    log.add(done, values)
                told = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
                shown.reach(done, told)
            if first and (done % sample_every == 0 or done == steps):
                save_grid(directory / "samples" / f"{done:08d}.png", task.pictures())
            if first and (done % checkpoint_every == 0 or done == steps):
                save_checkpoint(directory, done, task)
    together.wait()
    return task.average.average


def _finite(losses: Mapping[str, torch.Tensor], done: int, directory: Path) -> dict[str, float]:
    values = {name: float(value) for name, value in losses.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise FloatingPointError(
            f"a loss is not finite at step {done}: {values}. The last checkpoint in "
            f"{directory} is from before; lower the learning rate."
        )
    return values


def _statistics(task: Task[Any]) -> list[torch.Tensor]:
    """The networks' floating-point buffers: what batch norm keeps of its batches."""
    buffers = (buffer for network in task.networks.values() for buffer in network.buffers())
    return [buffer for buffer in buffers if buffer.is_floating_point()]


@contextlib.contextmanager
def _averaged(task: Task[Any], together: Processes) -> Iterator[None]:
    """Average gradients over the processes right before each optimiser's step."""

    def average(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        parameters = (p for group in optimiser.param_groups for p in group["params"])
        together.average(p.grad for p in parameters if p.grad is not None)

    hooks = [
        optimiser.register_step_pre_hook(average)
        for optimiser in task.optimisers.values()
        if together.count > 1
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def decayed(i: int, total: int) -> float:
    """Learning-rate factor of step i: 1 for the first half, then a half cosine down to 0.02."""
    progress = max(0.0, 2.0 * i / total - 1.0)
    return 0.02 + 0.98 * 0.5 * (1.0 + float(np.cos(np.pi * progress)))


PRECISIONS = ("float32", "bfloat16")


def mixed(network: nn.Module, x: torch.Tensor, precision: str) -> torch.Tensor:
    """A network's output in float32; with "bfloat16" its products are in bfloat16."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        output: torch.Tensor = network(x)
    return output.float()
