"""Ordered work on threads or an executor.

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

from analysis.sharing import Sharing, Waiting
from npgd import checks
from npgd.images import Images
from npgd.progress import track

LATENT_CHUNK = 256  # latents drawn from one stream, and images generated at a time

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
    total: int,
    what: str,
    *,
    executor: Executor | None = None,
    progress: bool = False,
    at_a_time: int | None = None,
) -> list[Result]:
    """Results of `task(*args)` in the order of `arguments`, as `one_by_one` gives them."""
    found = one_by_one(
        task, arguments, total, what, executor=executor, progress=progress, at_a_time=at_a_time
    )
    return list(found)


def one_by_one(
    task: Callable[..., Result],
    arguments: Iterable[tuple[Any, ...]],
    total: int,
    what: str,
    *,
    executor: Executor | None = None,
    progress: bool = False,
    at_a_time: int | None = None,
) -> Iterator[Result]:
    """Results of `task(*args)` in the order of `arguments`, few submitted at a time.

    Modules and large arrays among the arguments go to each process once (`analysis.sharing`).

    Args:
        task: a function of a module, so that other processes find it.
        arguments: taken from as tasks are handed out.
        total: how many there are.
        what: the name of the progress bar.
        executor: runs the tasks; without one, as many threads as torch is set to use.
        progress: show the bar.
        at_a_time: most threads, where memory is bounded.
    """
    if executor is not None:
        yield from track(_submitted(task, arguments, executor), total, what, progress)
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(before, at_a_time or before)) as pool:
            yield from track(_submitted(task, arguments, pool), total, what, progress)
    finally:
        torch.set_num_threads(before)


def _submitted(
    task: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], executor: Executor
) -> Iterator[Result]:
    sharing = Sharing[Result](executor)
    waiting = deque[Waiting[Result]]()
    try:
        for args in arguments:
            waiting.append(sharing.submit(task, args))
            if len(waiting) >= sharing.in_flight:
                yield sharing.result(waiting.popleft())
        while waiting:
            yield sharing.result(waiting.popleft())
    finally:  # interrupted: what has not begun is not wanted
        for left in waiting:
            left.future.cancel()


def check_executor(executor: object) -> None:
    """TypeError unless it is None or has `submit`."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(
            f"executor must be a concurrent.futures.Executor or None, got {checks.shown(executor)}"
        )


def draw_latents(
    latent_dim: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Float[torch.Tensor, "count k"]:
    """`count` latents from N(0, I); the first N of a larger draw with the same seed are the same.

    Every 256 latents have a stream of their own, spawned from `seed`: one long call of
    `torch.randn` does not have that property.
    """
    chunks = []
    for start in range(0, count, LATENT_CHUNK):
        stream = np.random.SeedSequence([checks.seed(seed), start // LATENT_CHUNK])
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
    rows: int = LATENT_CHUNK,
) -> Images:
    """G(z) on the CPU, in batches and without gradients; `z` in the prior's precision.

    `rows` images are made at a time by each thread; where these are fewer than `LATENT_CHUNK`, to
    save memory, by one thread.
    """
    parts = torch.split(z, rows)
    if len(parts) <= 1:
        return _generated(prior, z)
    arguments = ((prior, part) for part in parts)
    alone = 1 if rows < LATENT_CHUNK else None
    images, done = None, 0
    for part in one_by_one(
        _generated, arguments, len(parts), "samples",
        executor=executor, progress=progress, at_a_time=alone,
    ):  # fmt: skip
        if images is None:  # filled in place: all parts and their union would be twice as much
            images = part.new_empty(len(z), *part.shape[1:])
        images[done : done + len(part)] = part
        done += len(part)
    assert images is not None
    return images


def _generated(prior: Any, z: torch.Tensor) -> Images:
    with one_thread(), torch.no_grad():
        images: Images = prior.generate(z)
        return images.detach().cpu()
