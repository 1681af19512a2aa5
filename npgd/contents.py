"""What a module is made of, as a digest: to know whether something remembered of it still holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

_OWN = frozenset(vars(nn.Module()))  # what torch keeps in every module

_IDLE = ("_known_norm", "extra_repr")  # what operators remember, and how a module prints


def contents(*things: object) -> bytes | None:
    """A digest of tensors and modules, by value; None where something in them cannot be read.

    Of a module: all parameters, buffers and attributes, and those of the modules inside it. By
    value, because an edit through `.data`, or of an array that shares memory, leaves no other
    trace. What it can read are tensors, arrays, modules, numbers, words, None, and tuples, lists
    and mappings of these.
    """
    digest = hashlib.blake2b()
    try:
        for thing in things:
            _read(digest, thing)
    except TypeError:
        return None
    return digest.digest()


def _read(digest: hashlib.blake2b, value: object) -> None:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta:
            raise TypeError("a tensor without plain data")
        digest.update(f"{value.dtype} {value.device} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, nn.Module):
        kind = f"{type(value).__module__}.{type(value).__qualname__} {value.training}"
        digest.update(kind.encode())
        held = {name: entry for name, entry in vars(value).items() if name not in _OWN}
        for name in _IDLE:
            held.pop(name, None)
        _read(digest, held | value._parameters | value._buffers | value._modules)
        if value._forward_hooks or value._forward_pre_hooks:
            raise TypeError("hooks")
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            digest.update(repr(key).encode())
            _read(digest, entry)
    elif isinstance(value, tuple | list):
        digest.update(str(len(value)).encode())
        for entry in value:
            _read(digest, entry)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        digest.update(repr(value).encode())
    elif isinstance(value, torch.dtype | torch.device):
        digest.update(str(value).encode())
    else:
        raise TypeError(f"{type(value).__name__} cannot be read")
