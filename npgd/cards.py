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
from torch import nn

from npgd import checks
from npgd.checks import shown
from npgd.files import (
    a_path,
    as_json,
    described,
    destination,
    holding,
    is_file,
    read_described,
    require_fit,
    safetensors_path,
    sentence,
    write_together,
)
from npgd.networks.architectures import channels_last
from npgd.showing import Shown, brief

Kind = Literal["prior", "denoiser", "onenet"]
Network = TypeVar("Network", bound=nn.Module)

SHIPPED: dict[Kind, tuple[str, ...]] = {
    "prior": ("mnist", "mnist-k100", "mnist-k2", "celeba", "church"),
    "denoiser": ("mnist", "photographs"),
    "onenet": ("mnist",),
}
"""The names of what is shipped, by kind."""


def save(
    network: nn.Module,
    path: str | os.PathLike[str],
    kind: Kind,
    build: Callable[[dict[str, Any]], nn.Module],
    description: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    half: bool = True,
) -> None:
    """Write a network's weights with its description and, beside them, its card: both or none.

    Args:
        network: its state is kept, in half precision unless `half` is false.
        path: a name that ends in .safetensors; the card's ends in .json.
        kind: what it is, and is read as.
        build: description → network, as for `load`: what it could not read is not written.
        description: what `load` builds it from, as plain numbers and words for JSON.
        card: likewise; None writes none.
        half: whether floating-point numbers are kept in half precision. A tensor that half
            precision cannot hold (above 65504, or mostly below 10⁻⁷) keeps its own.

    Raises:
        TypeError: an argument of another kind, or what JSON cannot hold.
        ValueError: a path that does not end in .safetensors, weights that are not finite, or a
            description of another network.
    """
    if not isinstance(half, bool):
        raise TypeError(f"half must be True or False, got {shown(half)}")
    if card is not None and not isinstance(card, Mapping):
        raise TypeError(f"card must be names with values, got {shown(card)}")
    path = safetensors_path(path)
    state = network.state_dict()
    tensors = {key: _halved(value) if half else value for key, value in state.items()}
    contents = {path: described(tensors, kind, description)}
    try:
        expected = build(json.loads(as_json(dict(description), "description")))
        require_fit(tensors, expected.state_dict())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the {kind} must be the one that its architecture or settings describe:"
            f" {sentence(error)}"
        ) from error
    if card is not None:
        text = as_json(dict(card), "card", indent=2) + "\n"
        contents[path.with_suffix(".json")] = text.encode()
    write_together(contents)


def _halved(value: Any) -> Any:
    """A tensor in half precision where that is near, by half precision's own rounding."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.is_meta:
        return value
    small = value.detach().to(torch.float16)
    error = torch.linalg.vector_norm((small.double() - value.detach().double()).flatten())
    size = torch.linalg.vector_norm(value.detach().double().flatten())
    return small if bool(error <= 2.0**-10 * size) else value


def load(
    name: str | os.PathLike[str],
    kind: Kind,
    build: Callable[[dict[str, Any]], nn.Module],
    finish: Callable[[dict[str, Any], nn.Module], Network],
    dtype: torch.dtype,
    device: str | torch.device,
) -> Network:
    """A shipped network by name, or one from a .safetensors file.

    It is in evaluation mode, without gradients, with channels innermost.

    Args:
        name: of `SHIPPED[kind]`, or a path.
        kind: what the file must hold.
        build: description → network, whose weights are then replaced by the file's; without memory
            (see `npgd.networks.architectures.outline`), so that a file cannot ask for more than its
            own tensors fill.
        finish: takes the description and the network with its weights to what is returned.
        dtype: of its weights.
        device: of its weights.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an unknown name, a dtype or device that does not serve, or a file that does not
            hold what its header says.
    """
    if dtype is None:
        raise TypeError("dtype must be a torch dtype such as torch.float32, got None")
    destination(dtype, device)

    def fitting(
        description: dict[str, Any], found: dict[str, torch.Tensor]
    ) -> tuple[dict[str, Any], nn.Module]:
        network = build(description)
        require_fit(found, network.state_dict())
        return description, network

    with _located(name, kind) as path:
        (description, network), tensors = read_described(path, kind, fitting)
        with holding(path, kind):
            working = torch.promote_types(dtype, torch.float32)
            state = {key: _precise(value, working, key) for key, value in tensors.items()}
            network.load_state_dict(state, assign=True)
            network.to(working).eval().requires_grad_(False)
            finished = finish(description, network)
            for key, value in tensors.items():
                _precise(value, dtype, key)
    return channels_last(finished.to(device=device, dtype=dtype))


def _precise(value: torch.Tensor, dtype: torch.dtype, key: str) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    return checks.finite(value.to(dtype), f"{key} in {dtype}")


class Card(dict[str, Any], Shown):
    """A card: a dict, shown with a line an entry."""

    def __str__(self) -> str:
        return "\n".join(f"{name}: {brief(value)}" for name, value in self.items())


def card(name: str, kind: Kind) -> Card:
    """The card of what is shipped; TypeError for no name, ValueError for an unknown one."""
    if not isinstance(name, str):
        raise TypeError(f"name must be one of {', '.join(SHIPPED[kind])}, got {shown(name)}")
    if name not in SHIPPED[kind]:
        raise ValueError(f"name must be one of {', '.join(SHIPPED[kind])}, got {shown(name)}")
    place = files("npgd.weights") / f"{_stem(name, kind)}.json"
    return Card(json.loads(place.read_text(encoding="utf-8")))


@contextmanager
def _located(name: str | os.PathLike[str], kind: Kind) -> Iterator[Path]:
    wanted = a_path(name, "name") if name != "" else Path()
    if str(wanted) in SHIPPED[kind]:
        with as_file(files("npgd.weights") / f"{_stem(str(wanted), kind)}.safetensors") as path:
            yield path
        return
    path = wanted
    if path.suffix != ".safetensors" or not is_file(path):
        raise ValueError(
            f"name must be a shipped {kind} ({', '.join(SHIPPED[kind])}) or an existing"
            f" .safetensors file, got {shown(str(name))}"
        )
    yield path


def _stem(name: str, kind: Kind) -> str:
    return name if kind == "prior" else f"{name}-{kind}"
