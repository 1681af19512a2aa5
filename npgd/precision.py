"""The precision that a prior, an operator or a denoiser works in, and copies in another."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from npgd import checks

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


def plainly(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run without autocast and out of `torch.inference_mode`, wherever it is called.

    What is measured is then as exact as its dtype says, and what searches can differentiate.
    Tensors, modules and solvers that were made in inference mode are copied.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.ExitStack() as modes:
            if torch.is_inference_mode_enabled():
                modes.enter_context(torch.inference_mode(False))
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    modes.enter_context(torch.autocast(device, enabled=False))
            plain: Any = [_ordinary(value) for value in args]
            named: Any = {name: _ordinary(value) for name, value in kwargs.items()}
            return function(*plain, **named)

    return run


def _ordinary(value: Any) -> Any:
    """The same without inference tensors, which take no part in differentiation."""
    if isinstance(value, torch.Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, torch.nn.Module):
        return _ordinary_module(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        kinds = (torch.Tensor, torch.nn.Module)
        made = {name: _ordinary(part) for name, part in held.items() if isinstance(part, kinds)}
        changed = {name: part for name, part in made.items() if part is not held[name]}
        return dataclasses.replace(value, **changed) if changed else value
    return value


def _ordinary_module(module: torch.nn.Module) -> torch.nn.Module:
    if not any(t.is_inference() for t in (*module.parameters(), *module.buffers())):
        return module
    ordinary = copied(module)
    for part in ordinary.modules():
        for name, tensor in part.named_parameters(recurse=False):
            plain = torch.nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
            part.register_parameter(name, plain)
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.clone())
    return ordinary


def precision(thing: object) -> torch.dtype:
    """The floating-point type something works in.

    That of its first parameter, buffer or tensor attribute; float32 if it has none.
    """
    found = checks.kind(thing) if isinstance(thing, torch.nn.Module) else None
    if found is not None:
        return found[0]
    for tensor in vars(thing).values() if hasattr(thing, "__dict__") else ():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def converted(
    thing: T,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> T:
    """A module in another precision (and on another device), its weights without gradients.

    A copy, so that the caller's keeps its own; the module itself where nothing would change.
    What is no `nn.Module` has a precision of its own, and is returned as it is.
    """
    if not isinstance(thing, torch.nn.Module):
        return thing
    wanted = None if device is None else torch.device(device)
    tensors = [t for t in (*thing.parameters(), *thing.buffers()) if t.is_floating_point()]
    if all(
        t.dtype == dtype and (wanted is None or t.device == wanted) and not t.requires_grad
        for t in tensors
    ):
        return thing
    return copied(thing).to(device=wanted, dtype=dtype).requires_grad_(False)


Module = TypeVar("Module", bound=torch.nn.Module)


def copied(module: Module) -> Module:
    """A deep copy.

    What a module computed from its weights and keeps (torch's old `weight_norm` does so at every
    call) hangs on a graph, and is copied without; what is left of a tangent is not copied at all.
    """
    held = [value for part in module.modules() for value in vars(part).values()]
    made = {id(value): _bare(value) for value in held if isinstance(value, torch.Tensor)}
    with torch.no_grad():  # a copy of TorchScript's would hang on the original's weights
        return copy.deepcopy(module, {key: v for key, v in made.items() if v is not None})


def _bare(tensor: torch.Tensor) -> torch.Tensor | None:
    """What stands for a tensor that cannot be copied; None for one that can."""
    try:
        tensor.untyped_storage()
    except NotImplementedError:  # of a transform of torch.func that is over
        return torch.empty(0)
    return None if tensor.is_leaf else tensor.detach().clone()


def like(x: torch.Tensor, thing: object) -> torch.Tensor:
    """x in the dtype and on the device of a module; as it is for anything else."""
    found = checks.kind(thing) if isinstance(thing, torch.nn.Module) else None
    return x if found is None else x.to(dtype=found[0], device=found[1])
