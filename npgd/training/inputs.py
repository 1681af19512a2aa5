"""What a training is given: examined at the door, and named in one sentence if it does not do."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from npgd.checks import shown
from npgd.files import a_path

Settings = TypeVar("Settings")


def settings(config: Settings | None, kind: type[Settings]) -> Settings:
    """`config`, or the defaults where it is None; TypeError for settings of another training."""
    if config is None:
        return kind()
    if type(config) is not kind:
        raise TypeError(f"config must be a {kind.__name__}, got {type(config).__name__}")
    return config


def device(value: object) -> torch.device:
    """A device that torch can put tensors on; TypeError for no device, ValueError for another."""
    if not isinstance(value, str | torch.device):
        raise TypeError(f"device must be a name as 'cpu' or 'cuda', got {shown(value)}")
    try:
        found = torch.device(value)
        torch.empty(0, device=found)
    except Exception as error:  # every backend fails in its own way
        raise ValueError(
            f"device must be one that torch sees here, got {shown(str(value))} ({reason(error)})"
        ) from error
    if found.type == "meta":
        raise ValueError("device must be one that holds numbers, got 'meta'")
    return found


def images(value: object, expected: str, suits: Callable[[int, int], bool]) -> None:
    """Raise unless these are bytes (n, channels, height, width), n ≥ 1, of sides that suit.

    Raises:
        TypeError: no tensor.
        ValueError: a tensor of another dtype or shape; the message says what is `expected`.
    """
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"images must be a torch tensor, got {shown(value)}")
    shape = tuple(value.shape)
    plain = value.dtype == torch.uint8 and value.layout == torch.strided and not value.is_meta
    if not plain or len(shape) != 4 or 0 in shape or not suits(*shape[2:]):
        kind = f"{value.dtype} {shape}"
        if not plain and value.dtype == torch.uint8:
            kind += " without its numbers" if value.is_meta else f", {value.layout}"
        raise ValueError(f"images must be uint8 {expected}, at least one, got {kind}")


def network(value: object, name: str) -> nn.Module:
    """A network of finite numbers in float32, which a training leaves as they are.

    Raises:
        TypeError: no network, or one of another precision.
        ValueError: NaN or infinity among its numbers.
    """
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch module, got {shown(value)}")
    for key, tensor in value.state_dict().items():
        if is_lazy(tensor):
            raise ValueError(f"{name} must have its weights, got {key} without; call it once first")
        if not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            raise TypeError(
                f"{name} must be in float32 to be trained with, got {tensor.dtype} in {key}; "
                "convert it with .float()"
            )
        if tensor.is_inference():
            raise ValueError(
                f"{name} must be made outside torch.inference_mode(), got {key} from inside"
            )
        if tensor.is_meta:
            raise ValueError(f"{name} must have its weights, got {key} on the meta device; load it")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} must hold finite numbers, got NaN or infinity in {key}")
    return value


def output(
    made_of: torch.Tensor, module: nn.Module, name: str, does: str, expected: tuple[int, ...] = ()
) -> torch.Tensor:
    """What a network makes of an input; ValueError where it takes none such or makes another shape.

    Args:
        made_of: an input.
        module: the network; it stays as it is.
        name: of the network.
        does: what it must do, in words.
        expected: shape of its output; () is any (batch, channels, height, width).
    """
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            made = module.eval()(made_of)
    except Exception as error:  # a network is anybody's code
        raise ValueError(f"{name} must {does}, got {reason(error)}") from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    if not isinstance(made, torch.Tensor):
        raise TypeError(f"{name} must {does}, got {type(made).__name__} out of it")
    shape = tuple(made.shape)
    fits = shape == expected if expected else len(shape) == 4 and 0 not in shape
    if not fits or made.dtype != torch.float32:
        raise ValueError(f"{name} must {does}, got {made.dtype} {shape} out of it")
    if not bool(torch.isfinite(made).all()):
        raise ValueError(f"{name} must {does}, got NaN or infinity out of it")
    return made


def folder(value: object) -> Path:
    """A path; TypeError for another kind, ValueError for one that names no folder."""
    path = a_path(value, "directory")
    try:
        there = path.stat().st_mode
    except FileNotFoundError:
        return path
    except OSError as error:
        raise type(error)(f"directory must be a folder, got {path} ({error.strerror})") from error
    if not stat.S_ISDIR(there):
        raise FileExistsError(f"directory must be a folder, got the file {path}")
    return path


def reason(error: Exception) -> str:
    """What an error of somebody else's says, in one short line."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line if len(line) <= 160 else line[:157] + "…"


def switch(value: object, name: str) -> bool:
    """`value`; TypeError unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value
