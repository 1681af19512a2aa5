"""The precision a prior or an operator works in, and copies of it in another."""

from __future__ import annotations

import copy
from typing import Any

import torch


def in_double(A: Any) -> Any:
    """A in float64: a module is copied, so that the caller's keeps its precision."""
    if isinstance(A, torch.nn.Module):
        tensors = [t for t in (*A.parameters(), *A.buffers()) if t.is_floating_point()]
        if any(t.dtype != torch.float64 for t in tensors):
            return copy.deepcopy(A).double()
    return A


def precision(module: Any) -> torch.dtype:
    """The floating-point type a prior or operator works in: that of its first parameter, buffer or
    tensor attribute; float32 if it has none."""
    tensors: list[Any] = []
    if isinstance(module, torch.nn.Module):
        tensors += [*module.parameters(), *module.buffers()]
    tensors += list(vars(module).values()) if hasattr(module, "__dict__") else []
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def converted(module: Any, dtype: torch.dtype) -> Any:
    """A copy of a prior or operator that works in `dtype` on the CPU, its weights without
    gradients; what is no `nn.Module` is returned as it is."""
    if not isinstance(module, torch.nn.Module):
        return module
    return copy.deepcopy(module).to(device="cpu", dtype=dtype).requires_grad_(False)
