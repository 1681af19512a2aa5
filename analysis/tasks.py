"""Ordered work on threads or an executor, with progress.

Work is cut into tasks whose size depends on the data alone, each computed by one thread, and merged
in a fixed order, so that the result depends neither on the executor nor on its number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float

IN_FLIGHT = 8  # tasks handed to an executor at a time, to bound memory


LATENT_CHUNK = 256  # latents drawn from one stream


Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """torch uses one thread inside: tasks run side by side, and each rounds the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_order(
    task: Callable[..., Result],
    arguments: Iterable[tuple[Any, ...]],
    executor: Executor | None = None,
) -> Iterator[Result]:
    """Results of `task(*args)` in the order of `arguments`, at most IN_FLIGHT submitted at a time.

    Without an executor the tasks run in as many threads as torch is set to use.
    """
    if executor is None:
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(before) as pool:
                yield from in_order(task, arguments, pool)
        finally:
            torch.set_num_threads(before)
        return
    waiting = deque[Any]()
    for args in arguments:
        waiting.append(executor.submit(task, *args))
        if len(waiting) >= IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def with_progress(items: Iterable[Result], total: int, what: str, show: bool) -> Iterator[Result]:
    """`items`, with a progress bar named `what` if `show`."""
    if not show:
        yield from items
        return
    from rich.progress import track

    yield from track(items, description=what, total=total)


def draw_latents(
    latent_dim: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Float[torch.Tensor, "count k"]:
    """`count` latents from N(0, I); the first N of a larger draw with the same seed are the same.

    Every 256 latents have a stream of their own, spawned from `seed`: one long call of
    `torch.randn` does not have that property.
    """
    chunks = []
    for start in range(0, count, LATENT_CHUNK):
        stream = np.random.SeedSequence([seed, start // LATENT_CHUNK])
        generator = torch.Generator().manual_seed(int(stream.generate_state(1, np.uint64)[0] >> 1))
        chunks.append(
            torch.randn(LATENT_CHUNK, latent_dim, generator=generator, dtype=torch.float64)
        )
    return torch.cat(chunks)[:count].to(dtype) if chunks else torch.empty(0, latent_dim)


def generate(
    prior: Any,
    z: Float[torch.Tensor, "count k"],
    *,
    executor: Executor | None = None,
    progress: bool = False,
) -> Float[torch.Tensor, "count ..."]:
    """G(z) on the CPU, in batches and without gradients; `z` in the prior's precision."""
    parts = z.split(LATENT_CHUNK)
    if len(parts) <= 1:
        return _generate_task(prior, z)
    results = in_order(_generate_task, ((prior, part) for part in parts), executor)
    return torch.cat(list(with_progress(results, len(parts), "samples", progress)))


def _generate_task(prior: Any, z: torch.Tensor) -> torch.Tensor:
    with one_thread(), torch.no_grad():
        return prior.generate(z).detach().cpu()
