"""Files, whole or not at all: written beside their place and renamed, read with plain errors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: into a temporary file beside it, then rename."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files, each whole, and none where one cannot be written.

    All are written beside their places first and renamed last.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            with open(temporary[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def safetensors_path(path: str | os.PathLike[str]) -> Path:
    """`path`; ValueError unless it ends in .safetensors."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {path}")
    return path


def read_tensors(path: Path, holds: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a safetensors file `holds`: its description in the header, and the tensors.

    Raises:
        ValueError: a file that cannot be read, or that holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} must be a safetensors file, got {error}") from error
    if holds not in metadata:
        article = "an" if holds[0] in "aeio" else "a"
        raise ValueError(
            f"{path} must hold {article} {holds}, got tensors with no {holds!r} in their header"
        )
    try:
        description = json.loads(metadata[holds])
    except ValueError as error:
        raise ValueError(f"{path} must describe its {holds} in JSON, got {error}") from error
    if not isinstance(description, dict):
        raise ValueError(
            f"{path} must describe its {holds} by names and values, got"
            f" {type(description).__name__}"
        )
    return description, tensors


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
