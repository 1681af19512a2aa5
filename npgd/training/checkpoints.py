"""The state of a training in a file: weights, the optimisers' moments, the step.

A checkpoint carries a checksum of its tensors, and holds finite numbers only. One that was altered
or cut short is refused, and the run goes on from the one before it. Files of other names are left
alone: a `checkpoint-best.safetensors` is neither read nor removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from npgd.files import write_atomically


class Stateful(Protocol):
    """What has a state to keep: networks and their optimisers, by name."""

    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]


def state(task: Stateful) -> dict[str, torch.Tensor]:
    """Weights, buffers and moments, under `network/NAME/…` and `optimiser/NAME/…`."""
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


def load_state(task: Stateful, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a task the state that `state` took."""
    for name, network in task.networks.items():
        network.load_state_dict(network_state(tensors, name))
    for name, optimiser in task.optimisers.items():
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser/{name}/"):
                _, _, index, moment = key.split("/")
                moments.setdefault(int(index), {})[moment] = value
        own = optimiser.state_dict()
        own["state"] = moments
        optimiser.load_state_dict(own)


def network_state(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The weights and buffers of one network of a checkpoint."""
    prefix = f"network/{name}/"
    return {key[len(prefix) :]: v for key, v in tensors.items() if key.startswith(prefix)}


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        flat = tensors[key].cpu().contiguous().reshape(-1)
        digest.update(key.encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(directory: Path, step: int, task: Stateful) -> Path:
    """Write the state after `step` steps, and drop all but the two newest checkpoints.

    Raises:
        FloatingPointError: a number of the state is not finite; nothing is written then.
    """
    tensors = state(task)
    bad = not_finite(tensors)
    if bad is not None:
        raise FloatingPointError(f"{bad} must be finite, got NaN or infinity after step {step}")
    path = _path(directory, step)
    metadata = {"step": str(step), "sha256": tensors_digest(tensors)}
    write_atomically(path, serialise(tensors, metadata))
    drop_old(directory, step)
    return path


def drop_old(directory: Path, step: int) -> None:
    """Remove all but the two newest checkpoints up to a step.

    What is beyond it is damaged (or it would have been resumed from): no substitute.
    """
    for old in [p for p in checkpoints(directory) if step_of(p) <= step][:-2]:
        old.unlink(missing_ok=True)


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of a tensor that holds NaN or infinity, or None."""
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return key
    return None


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[int, dict[str, torch.Tensor]]:
    """Step and tensors of a checkpoint.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken, was altered, or holds NaN or infinity.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the path of a checkpoint, got {path!r}")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path must be a checkpoint, got {path}, which does not exist")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({error})") from error
    step = metadata.get("step", "")
    if not {"step", "sha256"} <= metadata.keys() or not re.fullmatch("[0-9]{1,12}", step):
        raise ValueError(f"{path}: not a readable checkpoint (no step and checksum in its header)")
    if metadata["sha256"] != tensors_digest(tensors):
        raise ValueError(f"{path}: its contents do not match the checksum it carries")
    bad = not_finite(tensors)
    if bad is not None:
        raise ValueError(f"{path}: it holds NaN or infinity, in {bad}")
    return int(step), tensors


NAME = re.compile(r"checkpoint-([0-9]{8,12})\.safetensors")


def _path(directory: Path, step: int) -> Path:
    return directory / f"checkpoint-{step:08d}.safetensors"


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; −1 for a name that is none."""
    found = NAME.fullmatch(path.name)
    step = int(found[1]) if found else -1
    return step if path.name == _path(path.parent, step).name else -1


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a run, oldest first: files of exactly the names that runs write."""
    found = [p for p in directory.glob("checkpoint-*") if step_of(p) >= 0 and p.is_file()]
    return sorted(found, key=step_of)


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    found = checkpoints(directory)
    return found[-1] if found else None


def resume(directory: Path, task: Stateful, steps: int, warn: bool = True) -> int:
    """Load the newest checkpoint that can be read; its step, or 0.

    Args:
        directory: of the run.
        task: what is trained.
        steps: that the training has in all.
        warn: of those that cannot be read.

    Raises:
        ValueError: a checkpoint is whole, but another training's.
    """
    found = checkpoints(directory)
    for i, path in reversed(list(enumerate(found))):
        try:
            step, tensors = load_checkpoint(path)
            if step != step_of(path):
                raise ValueError(f"{path}: it is of step {step}")
        except ValueError as error:
            if warn:
                then = "going back to the checkpoint before it" if i else "beginning at step 0"
                warnings.warn(f"{error}; {then}", stacklevel=4)
            continue
        foreign = _foreign(task, tensors)
        if step > steps:
            foreign = f"step {step} of a training of {steps} steps"
        if foreign is not None:
            raise ValueError(
                f"{path} must be a checkpoint of this training, got {foreign}; move it away, or "
                "give another directory"
            )
        load_state(task, tensors)
        return step
    return 0


def _foreign(task: Stateful, tensors: Mapping[str, torch.Tensor]) -> str | None:
    """What of a checkpoint does not fit a task, or None where all of it does."""
    expected: dict[str, torch.Tensor] = {}
    for name, network in task.networks.items():
        expected |= {f"network/{name}/{k}": v for k, v in network.state_dict().items()}
    for name, optimiser in task.optimisers.items():
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for i, parameter in enumerate(parameters):
            prefix = f"optimiser/{name}/{i}/"
            # One that was never needed has no moments; else there are all three.
            moments = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
            if any(prefix + key in tensors for key in moments):
                expected |= {prefix + key: value for key, value in moments.items()}
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in expected or key not in tensors:
            return f"{key} in it" if key in tensors else f"none of {key}"
        there, here = tensors[key], expected[key]
        if there.shape != here.shape or there.dtype != here.dtype:
            return f"{key} of shape {tuple(there.shape)}, {there.dtype}"
    return None
