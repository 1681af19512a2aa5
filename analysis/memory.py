"""How much memory a work needs: stated before it starts, and bounded by `memory=`.

What counts is what an image makes a generator hold. `Footprint.of` runs it once and adds up what
its operations return. From that follow how many images, directions and searches are worked on at a
time. Without a bound these are constants.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from npgd import checks
from npgd.priors import GenerativePrior
from npgd.progress import note

T = TypeVar("T")

LEAST = 10**6
LARGE = 2**25
"""Numbers in a Jacobian of G, 256 MB in float64, above which it is formed where nothing else will
do, and then in the precision of G."""
ACTIVE = 4
"""Tensors as large as the largest that a pass holds at a time: in, out, and room to work in."""
GRAPH = 4
"""What a search holds, in units of all that a pass returns: graph, gradients, room to work in."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_WORDS = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?B?)\s*", re.IGNORECASE)


def memory_of(memory: object) -> int | None:
    """Bytes of a bound: a whole number of them, words such as "2 GB", or None for no bound.

    Raises:
        TypeError, ValueError: naming `memory`, for anything else or less than 1 MB.
    """
    if memory is None:
        return None
    if isinstance(memory, str):
        found = _WORDS.fullmatch(memory)
        unit = "" if found is None else found[2].upper()
        unit = unit if not unit or unit.endswith("B") else f"{unit}B"
        if found is None or unit not in UNITS:
            raise ValueError(
                f"memory must be bytes, or words such as '2 GB', got {checks.shown(memory)}"
            )
        number = round(float(found[1]) * UNITS[unit])
    else:
        number = checks.integer(memory, "memory")
    if number < LEAST:
        raise ValueError(f"memory must be at least 1 MB, got {checks.shown(memory)}")
    return number


def entries(S: object) -> int:
    """Numbers in a Jacobian, n k, of what has latents; 1 of what has none."""
    k, shape = getattr(S, "latent_dim", None), getattr(S, "image_shape", ())
    return k * math.prod(shape) if isinstance(k, int) else 1


def gigabytes(count: float) -> str:
    """In words, rounded up."""
    million = math.ceil(count / 1e6)
    return f"{math.ceil(million / 10) / 100:.2f} GB" if million > 100 else f"{million} MB"


def state(what: str, need: float, bound: int | None, show: bool) -> None:
    """Say what a work will need, before it starts: logged, and shown where progress is."""
    within = "" if bound is None else f", within memory={gigabytes(bound)}"
    text = f"{what} needs up to about {gigabytes(need)} of memory{within}"
    logging.getLogger("npgd").info(text)
    note(text, show)


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes that every operation returns, without views of what it was given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_place(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.found += [x.nbytes for x in made if _place(x) not in given]
        return out


def _place(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()


@dataclass(frozen=True)
class Footprint:
    """Bytes of what a map makes of one image or latent."""

    largest: int
    """The largest tensor."""
    total: int
    """All together."""

    @classmethod
    def of(cls, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Footprint:
        """Of a map at one input, (1, …): of all that its operations return."""
        with torch.no_grad(), _Sizes() as sizes:
            out = function(x)
        found = [*sizes.found, out.nbytes, x.nbytes]
        return cls(max(found), sum(found))

    def passing(self, bound: float | None, most: int) -> int:
        """How many images at a time pass through within a bound, at most `most`."""
        return most if bound is None else fitting(bound, ACTIVE * self.largest, most)

    def searching(self, bound: float | None, most: int) -> int:
        """How many can be differentiated at a time."""
        return most if bound is None else fitting(bound, GRAPH * self.total, most)


MEASURING = 2**27
"""Bytes that an operator makes of the images that it is applied to together."""


def measured_together(A: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, most: int) -> int:
    """How many of the images x an operator is applied to at a time, at most `most`."""
    if x.nbytes < MEASURING // 64:
        return most
    return fitting(MEASURING, Footprint.of(A, x[:1]).total, most)


def weights(*things: object) -> int:
    """Bytes of the parameters and buffers of those things that are modules."""
    modules = [thing for thing in things if isinstance(thing, torch.nn.Module)]
    return sum(t.nbytes for module in modules for t in (*module.parameters(), *module.buffers()))


def passing_within(prior: T, bound: float | None) -> T:
    """The prior with so few images in a pass that passes, and searches, stay within a bound.

    A copy that shares the networks; of what is no `GenerativePrior`, or without a bound, itself.
    """
    if bound is None or not isinstance(prior, GenerativePrior):
        return prior
    z = torch.zeros(1, prior.latent_dim, dtype=prior.dtype, device=prior.device)
    bare = copy.copy(prior)
    bare.corrections = 0
    one = Footprint.of(lambda z: bare.encode(bare.generate(z)), z)
    limited = copy.copy(prior)
    graph = one.searching(bound, prior.graph_rows or MOST)
    rows = one.passing(bound, prior.rows or MOST)
    # A step of the corrector differentiates.
    limited.graph_rows, limited.rows = graph, min(rows, graph) if prior.corrections else rows
    return limited


MOST = 1024
"""Images in a pass, where the bound would allow more."""


def release() -> None:
    """Give freed memory back to the system: glibc keeps it, for as long as it likes."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library
        return None


def fitting(bound: float, each: float, most: int) -> int:
    """How many things of a size fit into a bound: at least one, at most `most`."""
    return max(1, min(most, int(bound // max(each, 1))))
