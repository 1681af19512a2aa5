"""What a module is made of, as a digest: to know whether something remembered of it still holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

_OWN = frozenset(vars(nn.Module()))  # what torch keeps in every module

_IDLE = ("_known_norm", "extra_repr")  # what operators remember, and how a module prints


def contents(*things: object, partly: bool = False) -> bytes | None:
    """A digest of tensors and modules, by value; None where something in them cannot be read.

    Of a module: all parameters, buffers and attributes, and those of the modules inside it. By
    value, because an edit through `.data`, or of an array that shares memory, leaves no other
    trace. What it can read are tensors, arrays, modules, numbers, words, None, and tuples, lists
    and mappings of these.

    Args:
        things: what to read.
        partly: leave out what cannot be read, in place of None.
    """
    reader = _Reader(partly)
    try:
        for thing in things:
            reader.read(thing)
    except TypeError:
        return None
    return reader.digest.digest()


class _Reader:
    """What is read, in order; a module, list or mapping that holds itself is read once."""

    def __init__(self, partly: bool) -> None:
        self.partly = partly
        self.digest = hashlib.blake2b()
        self._inside: set[int] = set()

    def read(self, value: object) -> None:
        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self.digest.update(f"{value.dtype} {value.shape}".encode())
            self.digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, nn.Module | Mapping | tuple | list):
            if id(value) in self._inside:
                return
            self._inside.add(id(value))
            self._held(value)
            self._inside.remove(id(value))
        elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
            self.digest.update(repr(value).encode())
        elif isinstance(value, torch.dtype | torch.device):
            self.digest.update(str(value).encode())
        else:
            self._unread(f"{type(value).__name__} cannot be read")

    def _unread(self, why: str) -> None:
        if not self.partly:
            raise TypeError(why)

    def _tensor(self, value: torch.Tensor) -> None:
        if value.layout != torch.strided or value.is_meta:
            return self._unread("a tensor without plain data")
        self.digest.update(f"{value.dtype} {value.device} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        self.digest.update(flat.view(torch.uint8).numpy().data)

    def _held(self, value: nn.Module | Mapping[object, object] | Sequence[object]) -> None:
        if isinstance(value, nn.Module):
            kind = f"{type(value).__module__}.{type(value).__qualname__} {value.training}"
            self.digest.update(kind.encode())
            held = {name: entry for name, entry in vars(value).items() if name not in _OWN}
            for name in _IDLE:
                held.pop(name, None)
            self.read(held | value._parameters | value._buffers | value._modules)
            if value._forward_hooks or value._forward_pre_hooks:
                self._unread("hooks")
        elif isinstance(value, Mapping):
            for key, entry in value.items():
                self.digest.update(repr(key).encode())
                self.read(entry)
        else:
            self.digest.update(str(len(value)).encode())
            for entry in value:
                self.read(entry)
