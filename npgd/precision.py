"""The precision that a prior, an operator or a denoiser works in, and copies in another."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from npgd import checks

T = TypeVar("T")


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
    return copy.deepcopy(thing).to(device=wanted, dtype=dtype).requires_grad_(False)


def like(x: torch.Tensor, thing: object) -> torch.Tensor:
    """x in the dtype and on the device of a module; as it is for anything else."""
    found = checks.kind(thing) if isinstance(thing, torch.nn.Module) else None
    return x if found is None else x.to(dtype=found[0], device=found[1])
