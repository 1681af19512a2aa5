"""Weights with a card: shipped or stored, written and read in one way.

A network that is kept is two files. NAME.safetensors holds the weights and, in its header under
what it is ("prior", "denoiser", "onenet"), how to build it; NAME.json is the card, which says where
it comes from and what it measures. Shipped are the files in `npgd/weights`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors.torch import save as serialise
from torch import nn

from npgd.files import read_tensors, safetensors_path, write_together
from npgd.networks.architectures import channels_last

Kind = Literal["prior", "denoiser", "onenet"]
Network = TypeVar("Network", bound=nn.Module)

SHIPPED: dict[Kind, tuple[str, ...]] = {
    "prior": ("mnist", "mnist-k100", "celeba", "church"),
    "denoiser": ("mnist",),
    "onenet": ("mnist",),
}
"""The names of what is shipped, by kind."""


def save(
    network: nn.Module,
    path: str | os.PathLike[str],
    kind: Kind,
    description: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    half: bool = True,
) -> None:
    """Write a network's weights with its description and, beside them, its card: both or none.

    Args:
        network: its state is kept, in half precision unless `half` is false.
        path: a name that ends in .safetensors; the card's ends in .json.
        kind: what it is, and is read as.
        description: what `load` builds it from, as plain numbers and words for JSON.
        card: likewise; None writes none.
        half: whether floating-point numbers are kept in half precision.

    Raises:
        ValueError: a path that does not end in .safetensors.
    """
    path = safetensors_path(path)
    tensors = {}
    for key, value in network.state_dict().items():
        small = half and value.is_floating_point()
        tensors[key] = value.detach().cpu().to(torch.float16 if small else value.dtype).contiguous()
    contents = {path: serialise(tensors, {kind: json.dumps(dict(description))})}
    if card is not None:
        text = json.dumps(dict(card), indent=2, ensure_ascii=False) + "\n"
        contents[path.with_suffix(".json")] = text.encode()
    write_together(contents)


def load(
    name: str | os.PathLike[str],
    kind: Kind,
    build: Callable[[dict[str, Any]], Network],
    dtype: torch.dtype,
    device: str | torch.device,
) -> Network:
    """A shipped network by name, or one from a .safetensors file.

    It is in evaluation mode, without gradients, with channels innermost.

    Args:
        name: of `SHIPPED[kind]`, or a path.
        kind: what the file must hold.
        build: description → network, whose weights are then filled in.
        dtype: of its weights.
        device: of its weights.

    Raises:
        ValueError: an unknown name, or a file that does not hold what its header says.
    """
    with _located(name, kind) as path:
        description, tensors = read_tensors(path, kind)
    try:
        network = build(description)
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} must hold the {kind} that its header describes, got {type(error).__name__}:"
            f" {error}"
        ) from error
    network.eval().requires_grad_(False).to(device=device, dtype=dtype)
    return channels_last(network)


def card(name: str, kind: Kind) -> dict[str, Any]:
    """The card of what is shipped; ValueError for an unknown name."""
    if name not in SHIPPED[kind]:
        raise ValueError(f"name must be one of {', '.join(SHIPPED[kind])}, got {name!r}")
    place = files("npgd.weights") / f"{_stem(name, kind)}.json"
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


@contextmanager
def _located(name: str | os.PathLike[str], kind: Kind) -> Iterator[Path]:
    if str(name) in SHIPPED[kind]:
        with as_file(files("npgd.weights") / f"{_stem(str(name), kind)}.safetensors") as path:
            yield path
        return
    path = Path(name)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(
            f"name must be a shipped {kind} ({', '.join(SHIPPED[kind])}) or an existing"
            f" .safetensors file, got {str(name)!r}"
        )
    yield path


def _stem(name: str, kind: Kind) -> str:
    return name if kind == "prior" else f"{name}-{kind}"
