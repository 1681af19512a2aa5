"""The state of a training in a file: weights, the optimisers' moments, the step.

A checkpoint carries a checksum of its tensors. One that was altered or cut short is refused, and
the run goes on from the one before it.
"""

from __future__ import annotations

import hashlib
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
    """Write the state after `step` steps, and drop all but the two newest checkpoints."""
    tensors = state(task)
    path = directory / f"checkpoint-{step:08d}.safetensors"
    metadata = {"step": str(step), "sha256": tensors_digest(tensors)}
    write_atomically(path, serialise(tensors, metadata))
    for old in checkpoints(directory)[:-2]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """Step and tensors of a checkpoint.

    Raises:
        ValueError: if it is broken, or was altered.
    """
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


def resume(directory: Path, task: Stateful) -> int:
    """Load the newest checkpoint that can be read, warning of those that cannot; its step, or 0."""
    for path in reversed(checkpoints(directory)):
        try:
            step, tensors = load_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error}; going back to the checkpoint before it", stacklevel=3)
            continue
        load_state(task, tensors)
        return step
    return 0
