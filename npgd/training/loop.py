"""The one training loop: resumable, deterministic, visible.

A training is a ``Task``: networks, optimisers, and what one step does. All randomness of step i is
drawn from a generator seeded by (seed, i), and the order of the images in epoch e by (seed, e), so
the state of a training is its weights, its optimisers' moments and the step number, nothing else.
A run killed at any moment and started again goes on from its last checkpoint and ends with the same
weights bit for bit (CPU, float32, the same number of threads).

Several processes, each with its own GPU or share of the cores, train one network together when
``accelerate launch --multi_gpu`` starts the command, or ``torchrun`` on a CPU: each takes its own
batches of the common order and draws its own randomness, and gradients and batch-norm statistics
are averaged before they are used, so that all hold the same state after every step. The first
process writes the files.

In the run's directory:

- ``config.json``: what is trained and how;
- ``checkpoint-N.safetensors``: the state after N steps, the two newest kept;
- ``log.jsonl``: one line of losses every ``log_every`` steps;
- ``samples/N.png``: a grid of images as training goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from npgd.data import to_pixels, to_uint8
from npgd.files import write_atomically
from npgd.networks.sagan import folded_state
from npgd.training.processes import Processes, processes


class Task(Protocol):
    """What a training is: the loop asks for nothing else."""

    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]

    def step(self, i: int, total: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Do step i of ``total`` with randomness from ``generator`` alone; return the losses."""
        ...

    def pictures(self) -> Float[torch.Tensor, "n c h w"]:
        """Images that show how far the training is."""
        ...


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
            raise ValueError(f"batch_size: {size}; expected 1 to {len(images)} (all images)")
        self.images, self.size, self.seed = images, size, seed
        self.processes = processes()
        self.per_epoch = len(images) // (size * self.processes.count)
        if self.per_epoch == 0:
            raise ValueError(
                f"batch_size: {size} in each of {self.processes.count} processes; "
                f"there are {len(images)} images"
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


class Average:
    """Exponential moving average of a network's weights and buffers, kept in a second network.

    Of a network under spectral normalisation, the average is of the normalised weights, and the
    second network is a plain one.
    """

    def __init__(self, network: nn.Module, average: nn.Module, decay: float) -> None:
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


# --- state in, state out ---------------------------------------------------------------------


def _state(task: Task) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, network in task.networks.items():
        for key, value in network.state_dict().items():
            tensors[f"network/{name}/{key}"] = value.detach().cpu().contiguous()
    for name, optimiser in task.optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                value = torch.as_tensor(value)
                tensors[f"optimiser/{name}/{index}/{key}"] = value.detach().cpu().contiguous()
    return tensors


def _load_state(task: Task, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, network in task.networks.items():
        prefix = f"network/{name}/"
        network.load_state_dict(
            {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        )
    for name, optimiser in task.optimisers.items():
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser/{name}/"):
                _, _, index, moment = key.split("/")
                moments.setdefault(int(index), {})[moment] = value
        state = optimiser.state_dict()
        state["state"] = moments
        optimiser.load_state_dict(state)


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(directory: Path, step: int, task: Task) -> Path:
    """Write the state after ``step`` steps, and drop all but the two newest checkpoints."""
    tensors = _state(task)
    path = directory / f"checkpoint-{step:08d}.safetensors"
    metadata = {"step": str(step), "sha256": tensors_digest(tensors)}
    write_atomically(path, serialise(tensors, metadata))
    for old in checkpoints(directory)[:-2]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """Step and tensors of a checkpoint; ``ValueError`` if it is broken or was altered."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({error})") from error
    if metadata.get("sha256") != tensors_digest(tensors):
        raise ValueError(f"{path}: its contents do not match the checksum it carries")
    return int(metadata["step"]), tensors


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(directory.glob("checkpoint-*.safetensors"))


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return checkpoints(directory)[-1] if checkpoints(directory) else None


def _resume(directory: Path, task: Task) -> int:
    for path in reversed(checkpoints(directory)):
        try:
            step, tensors = load_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error}; going back to the checkpoint before it", stacklevel=3)
            continue
        _load_state(task, tensors)
        return step
    return 0


def _check_config(directory: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Store the configuration, or refuse to go on under another one.

    A setting that the stored configuration lacks came later: the run had its default.
    """
    path = directory / "config.json"
    if not path.exists():
        write_atomically(path, (json.dumps(config, indent=2) + "\n").encode())
        return
    stored = json.loads(json.dumps(defaults)) | json.loads(path.read_text())
    config = json.loads(json.dumps(config))
    differing = sorted(
        key for key in stored.keys() | config.keys() if stored.get(key) != config.get(key)
    )
    if differing:
        told = "; ".join(f"{k}: {stored.get(k)!r} there, {config.get(k)!r} now" for k in differing)
        raise ValueError(
            f"{directory} holds a training with other settings ({told}). "
            "Give another directory, or the same settings to go on with it."
        )


def save_grid(path: Path, images: Float[torch.Tensor, "n c h w"], columns: int = 8) -> None:
    """Images side by side in one PNG, ``columns`` to a row, one white pixel between them."""
    import io

    from PIL import Image

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
    """``log.jsonl``: lines beyond the step resumed from are dropped first."""

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


@contextlib.contextmanager
def _progress(show: bool, total: int, done: int) -> Iterator[Any]:
    if not show:
        yield lambda step, text: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    ) as progress:
        bar = progress.add_task("training", total=total, completed=done, losses="")
        yield lambda step, text: progress.update(bar, completed=step, losses=text)


def train(
    task: Task,
    steps: int,
    directory: str | os.PathLike[str],
    config: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    seed: int = 0,
    checkpoint_every: int = 500,
    log_every: int = 50,
    sample_every: int = 1000,
    progress: bool = False,
) -> None:
    """Bring a task to ``steps`` steps, from its last checkpoint where the directory holds one.

    ``defaults`` are those of the settings, for runs that began before a setting existed.

    Raises ``ValueError`` where the directory holds a training with another configuration, and
    ``FloatingPointError`` when a loss stops being finite (the last checkpoint stays).
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}; expected at least 1")
    directory = Path(directory)
    together = processes()
    first = together.rank == 0
    if first:
        (directory / "samples").mkdir(parents=True, exist_ok=True)
        count = {"processes": together.count}
        _check_config(directory, {**config, **count}, {**(defaults or {}), "processes": 1})
    together.wait()
    start = _resume(directory, task)
    together.wait()
    log = _Log(directory / "log.jsonl", start) if first else None
    # One process draws from (seed, 0, i), as it always has.
    own = () if together.count == 1 else (together.rank,)
    with _averaged(task, together), _progress(progress and first, steps, start) as show:
        for i in range(start, steps):
            losses = task.step(i, steps, generator_for(seed, 0, i, *own))
            together.average(_statistics(task))
            done = i + 1
            if done % log_every == 0 or done == steps:
                values = {name: float(value) for name, value in losses.items()}
                if not all(np.isfinite(value) for value in values.values()):
                    raise FloatingPointError(
                        f"a loss is not finite at step {done}: {values}. The last checkpoint in "
                        f"{directory} is from before; lower the learning rate."
                    )
                if log is not None:
                    log.add(done, values)
                show(done, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
            if first and (done % sample_every == 0 or done == steps):
                save_grid(directory / "samples" / f"{done:08d}.png", task.pictures())
            if first and (done % checkpoint_every == 0 or done == steps):
                save_checkpoint(directory, done, task)
    together.wait()


def _statistics(task: Task) -> list[torch.Tensor]:
    """The networks' floating-point buffers: what batch norm keeps of its batches."""
    buffers = (buffer for network in task.networks.values() for buffer in network.buffers())
    return [buffer for buffer in buffers if buffer.is_floating_point()]


@contextlib.contextmanager
def _averaged(task: Task, together: Processes) -> Iterator[None]:
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


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = rate


PRECISIONS = ("float32", "bfloat16")


def mixed(network: nn.Module, x: torch.Tensor, precision: str) -> torch.Tensor:
    """A network's output in float32; with "bfloat16" its products are in bfloat16."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return network(x).float()


def choice(value: str, name: str, known: Sequence[str]) -> None:
    """``ValueError`` for a value that is not one of ``known``."""
    if value not in known:
        raise ValueError(f"{name}: {value!r}; expected one of {', '.join(known)}")
