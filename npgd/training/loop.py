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
process writes the files, and says what there is to say.

In the run's directory:

- `config.json`: what is trained and how;
- `checkpoint-N.safetensors`: the state after N steps, the two newest kept;
- `log.jsonl`: one line of losses every `log_every` steps;
- `samples/N.png`: a grid of images as training goes;
- `.lock`: held by the training that runs there, the only one.

Files of other names are left alone. Nothing is written that is not finite: every loss is looked at
before a checkpoint is written, and every number of the checkpoint.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
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

from npgd.checks import shown
from npgd.data import to_pixels, to_uint8
from npgd.files import write_atomically
from npgd.networks.architectures import channels_last
from npgd.networks.sagan import folded_state
from npgd.precision import copied
from npgd.progress import bar
from npgd.settings import Real, count, kinds
from npgd.training import inputs
from npgd.training.checkpoints import (
    checkpoints,
    drop_old,
    newest_checkpoint,
    resume,
    save_checkpoint,
)
from npgd.training.lock import locked
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
    """What runs that began before a setting or a part of `stored` existed had in its place."""

    def __init__(
        self, config: Config, device: str | torch.device, *, steps: int, **stored: Any
    ) -> None:
        if torch.is_inference_mode_enabled():
            raise ValueError("a training must be outside torch.inference_mode(), got inside")
        if torch.get_default_dtype() != torch.float32:
            raise ValueError(
                f"torch's default dtype must be float32 for a training, got "
                f"{torch.get_default_dtype()}"
            )
        self.config, self.device, self.steps = config, inputs.device(device), steps
        if torch.is_autocast_enabled(self.device.type):
            raise ValueError(
                "a training must be outside torch.autocast(), got inside; mixed precision is one "
                "of its settings"
            )
        self.stored = {**stored, "steps": steps}
        """What tells this training from others of its kind, beside its settings."""
        self.networks: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    def learn(self, name: str, network: Averaged) -> Averaged:
        """Train a network by Adam, and keep its average; returns it, on the task's device."""
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError(f"{name} must have weights to train, got none that takes a gradient")
        mean = copied(network)
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
            raise ValueError(
                f"batch_size must be at most {len(images)}, as many images as there are, got {size}"
            )
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
    if not os.path.lexists(path):
        found = checkpoints(directory)
        if found:
            raise ValueError(
                f"directory must hold config.json beside its checkpoints, got {found[-1]} alone; "
                "give another directory"
            )
        write_atomically(path, (json.dumps(config, indent=2) + "\n").encode())
        return
    defaults = asdict(type(task.config)())
    stored = _plain({**defaults, **task.absent, "processes": 1}) | read_config(directory)
    differing = sorted(
        key for key in stored.keys() | config.keys() if stored.get(key) != config.get(key)
    )
    if differing:
        told = "; ".join(
            f"{shown(k)[1:-1]}: {shown(stored.get(k))} there, {shown(config.get(k))} now"
            for k in differing
        )
        raise ValueError(
            f"{directory} holds a training with other settings ({told}). "
            "Give another directory, or the same settings to go on with it."
        )


def read_config(directory: Path) -> dict[str, Any]:
    """What a run's `config.json` says.

    Raises:
        ValueError: it is no description of a training.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be the settings of a training in JSON, got a file that cannot be read "
            f"({error})"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str):
        raise ValueError(f"{path} must be the settings of a training by name, got {shown(config)}")
    return config


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def save_grid(path: Path, images: Float[torch.Tensor, "n c h w"], columns: int = 8) -> None:
    """Images side by side in one PNG, `columns` to a row, one white pixel between them."""
    images = images.detach().float().cpu().clone()
    if images.shape[1] not in (1, 3):  # no colours that a PNG has: their mean
        images = images.mean(dim=1, keepdim=True)
    pixels = to_uint8(images)
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
    """`log.jsonl`: lines beyond the step resumed from, and those cut short, are dropped first."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        content = path.read_bytes() if os.path.lexists(path) else b""
        lines = content.decode("utf-8", "replace").splitlines()
        kept = [line + "\n" for line in lines if 0 < _step_of_line(line) <= step]
        write_atomically(path, "".join(kept).encode())

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **losses}) + "\n")


def _step_of_line(line: str) -> int:
    """The step of a line of the log; 0 for what is none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    return step if type(step) is int else 0


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
        ValueError: where the directory holds a training with another configuration, another
            training is going on there, or a file of the run is not what it should be.
        FloatingPointError: when a loss stops being finite; the newest checkpoint is from before.
        OSError: where the directory cannot be written into; the newest checkpoint is whole.
    """
    run = _Run(
        task,
        inputs.folder(directory),
        count(checkpoint_every, "checkpoint_every"),
        count(log_every, "log_every"),
        count(sample_every, "sample_every"),
    )
    show = inputs.switch(progress, "progress")
    together, steps = run.together, count(task.steps, "steps")
    with contextlib.ExitStack() as open_until_the_end:
        together.first(lambda: run.begin(open_until_the_end))
        done = resume(run.directory, task, steps, warn=together.rank == 0)
        together.first(lambda: run.open_log(done))
        # One process draws from (seed, 0, i), as it always has.
        own = () if together.count == 1 else (together.rank,)
        open_until_the_end.enter_context(_averaged(task, together))
        open_until_the_end.enter_context(torch.enable_grad())
        shown = open_until_the_end.enter_context(
            bar(steps, "training", show and together.rank == 0, done)
        )
        for i in range(done, steps):
            losses = task.step(i, steps, generator_for(task.config.seed, 0, i, *own))
            together.average(_statistics(task))
            told = run.after(i + 1, losses)
            if told:
                shown.reach(i + 1, told)
    return task.average.average


class _Run:
    """A training's folder: what is written there, when, and by whom."""

    def __init__(
        self,
        task: Task[Any],
        directory: Path,
        checkpoint_every: int,
        log_every: int,
        sample_every: int,
    ) -> None:
        self.task, self.directory, self.together = task, directory, processes()
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.sample_every = sample_every
        self.unseen: list[tuple[int, dict[str, torch.Tensor]]] = []
        """Losses that nobody has looked at yet: a look makes a GPU wait."""

    def begin(self, until: contextlib.ExitStack) -> None:
        """Make the folder, lock it, and see that it is this training's."""
        with self._writing():
            (self.directory / "samples").mkdir(parents=True, exist_ok=True)
            until.enter_context(locked(self.directory))
            for path in (*self.directory.iterdir(), *(self.directory / "samples").iterdir()):
                if LEFT_BEHIND.fullmatch(path.name) and path.is_file():
                    path.unlink()
            _check_config(self.directory, self.task, self.together.count)

    def open_log(self, done: int) -> None:
        with self._writing():
            drop_old(self.directory, done)  # a kill may have come before
            self.log = _Log(self.directory / "log.jsonl", done)

    def after(self, done: int, losses: dict[str, torch.Tensor]) -> str:
        """Look at the losses and write where it is time to; the losses in words, or ""."""
        end = done == self.task.steps
        log, sample, checkpoint = (
            end or done % every == 0
            for every in (self.log_every, self.sample_every, self.checkpoint_every)
        )
        self.unseen.append((done, losses))
        if not (log or sample or checkpoint):
            return ""
        values = self._looked_at()

        def write() -> None:
            with self._writing():
                if log:
                    self.log.add(done, values)
                if sample:
                    pictures = self.task.pictures()
                    if bool(torch.isfinite(pictures).all()):
                        path = self.directory / "samples" / f"{done:08d}.png"
                        save_grid(path, pictures)
                if checkpoint:
                    self._save(done)

        self.together.first(write)
        return "  ".join(f"{name} {value:.4f}" for name, value in values.items()) if log else ""

    def _looked_at(self) -> dict[str, float]:
        """The last losses as numbers; FloatingPointError names the first that is not finite."""
        bad, values, at = "", {}, self.unseen[-1][0]
        for step, losses in self.unseen:
            values = {name: float(value) for name, value in losses.items()}
            for name, value in values.items():
                if not bad and not math.isfinite(value):
                    bad, at = f"the loss {name!r} must be finite, got {value} at step {step}", step
        self.unseen.clear()
        if self.together.any(bool(bad)):
            if self.together.rank > 0:
                raise SystemExit(1)
            bad = bad or f"losses must be finite, got another in a process beside this by step {at}"
            raise FloatingPointError(self._advised(bad, at))
        return values

    def _save(self, done: int) -> None:
        try:
            save_checkpoint(self.directory, done, self.task)
        except FloatingPointError as error:
            raise FloatingPointError(self._advised(str(error), done)) from None

    def _advised(self, sentence: str, step: int) -> str:
        """What to do about a number that is not finite at a step."""
        config = self.task.config
        change = {"learning_rate": min(config.learning_rate / 10, type(config)().learning_rate)}
        if step == 1:  # the rate has had no effect yet
            change = _unusual(config) or change
        told = ", ".join(f"{name} = {value:g}" for name, value in change.items())
        return f"{sentence}; {self._kept()}; begin again in another directory with {told}"

    def _kept(self) -> str:
        newest = newest_checkpoint(self.directory)
        if newest is None:
            return f"no checkpoint has been written in {self.directory}"
        return f"the newest checkpoint is from before and whole ({newest})"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Say in one sentence what keeps files from being written, and what is there."""
        try:
            yield
        except OSError as error:
            where = error.filename2 or error.filename or self.directory
            told = type(error)(
                f"directory must be a folder to write into, got {error.strerror or error} "
                f"({where}); {self._kept()}"
            )
            told.errno = error.errno
            raise told from error


LEFT_BEHIND = re.compile(
    r"\.npgd-[0-9a-f]{16}\.tmp|"
    r"\.(config\.json|log\.jsonl|checkpoint-[0-9]{8,12}\.safetensors|[0-9]{8,12}\.png)"
    r"\.[0-9]+\.tmp"
)
"""What a process that was killed while writing leaves of a file."""


def _unusual(config: Any) -> dict[str, float]:
    """The settings that are numbers on a scale and not at their defaults, and the defaults."""
    defaults = type(config)()
    return {
        name: getattr(defaults, name)
        for name, (_, ranges) in kinds(type(config)).items()
        if ranges
        and isinstance(ranges[0], Real)
        and getattr(config, name) != getattr(defaults, name)
    }


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
