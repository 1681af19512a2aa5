"""Files, whole or not at all: written beside their place and renamed, read with plain errors."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: into a temporary file beside it, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path, holds: str) -> tuple[str, dict[str, torch.Tensor]]:
    """A safetensors file's tensors, and the header entry named after what it ``holds``.

    Raises ``ValueError`` for a file that cannot be read, or that holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    if holds not in metadata:
        raise ValueError(f"{path}: holds tensors, but no {holds} (no {holds!r} in its header)")
    return metadata[holds], tensors


def plain(value: Any) -> Any:
    """Numbers, lists and dicts for JSON; it has neither NaN nor infinity, and both become None."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
