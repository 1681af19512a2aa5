"""Modules and large arrays go to the processes of an executor once, not with every task.

A task's arguments are pickled for every task; a prior's weights among them would be sent as often
as there are tasks. Here an argument that is a module, or an array of 1 MB or more, is replaced by
what stands for it:

- on a Dask cluster, by a future of `client.scatter`;
- on any other executor of processes (`ProcessPoolExecutor`, `MPIPoolExecutor`), by a name under
  which each process keeps it. One that has it not says so, and is sent it.

Threads are given the argument itself. A module is known by its contents: one that has changed
between two works is sent again.
"""

from __future__ import annotations

import os
import platform
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from npgd.contents import contents

LARGE = 2**20  # bytes from which on an array is shared
KEPT = 2**30  # bytes of shared arguments that a process keeps, the latest used
SMALLEST = 8  # tasks in flight, at least
FAILURES = 3  # times that a task is handed out again because a worker was lost, with what it held

Result = TypeVar("Result")


@dataclass(eq=False)
class Waiting(Generic[Result]):
    """A task `run(*args)` that an executor was given."""

    run: Callable[..., Result]
    args: tuple[Any, ...]
    future: Future[Any] = field(init=False)
    needs: list[_Place] = field(init=False)
    """Where its shared arguments are."""
    failures: int = 0


def shared(argument: object) -> bool:
    """Whether an argument is sent once: a module, or a large array."""
    return isinstance(argument, torch.nn.Module) or (
        isinstance(argument, torch.Tensor | np.ndarray) and argument.nbytes >= LARGE
    )


def workers(executor: Executor) -> int:
    """How many tasks an executor runs at a time; 1 where it does not say."""
    client = _client(executor)
    if client is not None:
        return max(1, int(sum(client.ncores().values())))
    told = getattr(executor, "_max_workers", None)
    return told if isinstance(told, int) and told > 0 else 1


class Sharing(Generic[Result]):
    """Hands the tasks of one work to an executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.in_flight = max(SMALLEST, 2 * workers(executor))
        """Tasks that it should be given at a time."""
        client = _client(executor)
        self._places: _Places | None = None
        if client is not None:
            self._places = _OnDask(client)
        elif not isinstance(executor, ThreadPoolExecutor):
            self._places = _Named(executor)

    def submit(self, run: Callable[..., Result], args: tuple[Any, ...]) -> Waiting[Result]:
        """Give a task to the executor."""
        waiting = Waiting(run, args)
        self._give(waiting)
        return waiting

    def result(self, waiting: Waiting[Result]) -> Result:
        """What came of it, once it is there."""
        while True:
            try:
                found = waiting.future.result(None if self._places is None else self._places.wait)
            except (CancelledError, TimeoutError) as error:
                lost = not all(place.there() for place in waiting.needs)
                if not lost and isinstance(error, TimeoutError) and not waiting.future.done():
                    continue
                # A worker ended, and with it what it alone held.
                if not lost or waiting.failures >= FAILURES:
                    raise
                waiting.failures += 1
            else:
                if not isinstance(found, _Missing):
                    result: Result = found
                    return result
                for place in waiting.needs:
                    place.sent = False
            self._give(waiting)

    def _give(self, waiting: Waiting[Result]) -> None:
        if self._places is None:
            waiting.needs = []
            waiting.future = self._executor.submit(waiting.run, *waiting.args)
            return
        things = [arg for arg in waiting.args if shared(arg)]
        waiting.needs = [self._places.of(thing) for thing in things]
        standing = iter([place.stand(x) for place, x in zip(waiting.needs, things, strict=True)])
        args = [next(standing) if shared(arg) else arg for arg in waiting.args]
        waiting.future = self._executor.submit(_run, waiting.run, *args)


# ------------------------------------------------------------------------------- where things are


@dataclass(eq=False)
class _Place:
    """Where the processes have a thing."""

    value: Any
    """A future of Dask, or a name."""
    sent: bool = False
    """Whether some process was sent what the name stands for."""
    digest: bytes | None = None
    """Of a module's contents when it was placed."""

    def stand(self, thing: Any) -> Any:
        """What stands for the thing among a task's arguments."""
        raise NotImplementedError

    def there(self) -> bool:
        """Whether the processes may still have it."""
        return True


class _Places:
    """Where the shared arguments of a work are."""

    wait: float | None = None
    """Seconds after which to ask whether what a task needs is still there."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner  # executor or client: its processes keep modules for the next work
        # By id, each with the thing, so that its id is not used again within the work.
        self._known: dict[int, tuple[Any, _Place]] = {}

    def of(self, thing: Any) -> _Place:
        """Where it is; it is put there if it is nowhere, or changed since the last work."""
        known = self._known.get(id(thing))
        if known is None or not known[1].there():
            known = self._known[id(thing)] = (thing, self._placed(thing))
        return known[1]

    def _placed(self, thing: Any) -> _Place:
        if not isinstance(thing, torch.nn.Module):
            return self.put(thing)
        kept = _modules_of(self.owner)
        digest, place = contents(thing), kept.get(thing)
        if place is None or digest is None or place.digest != digest or not place.there():
            place = kept[thing] = self.put(thing)
            place.digest = digest
        return place

    def put(self, thing: Any) -> _Place:
        raise NotImplementedError


_KNOWN: WeakKeyDictionary[Any, WeakKeyDictionary[Any, _Place]] = WeakKeyDictionary()


def _modules_of(owner: Any) -> WeakKeyDictionary[Any, _Place]:
    return _KNOWN.setdefault(owner, WeakKeyDictionary())


# ------------------------------------------------------------------------------------------- Dask


def _client(executor: Executor) -> Any:
    """The Dask client behind its executor; None of another."""
    client = getattr(executor, "_client", None)
    return client if callable(getattr(client, "scatter", None)) else None


class _OnDask(_Places):
    """Scattered data: modules on every worker, so that one may end."""

    wait = 2.0  # Dask's executor never ends a task whose result was lost with what it needed

    def put(self, thing: Any) -> _Place:
        everywhere = isinstance(thing, torch.nn.Module)
        whole = [_Whole(thing)]
        return _Scattered(self.owner.scatter(whole, broadcast=everywhere, hash=False)[0])


class _Scattered(_Place):
    def stand(self, thing: Any) -> Any:
        return self.value

    def there(self) -> bool:
        return not self.value.cancelled()


@dataclass(frozen=True)
class _Whole:
    """Dask would take a module apart, and put it together with weights in another layout."""

    thing: Any


# ------------------------------------------------------------------------------- other processes


def _here() -> tuple[str, int]:
    return platform.node(), os.getpid()


@dataclass(frozen=True)
class _Name:
    """In place of an argument: what a process keeps under this name; with the thing, to keep it."""

    name: str
    things: tuple[Any, ...]
    home: tuple[str, int]


@dataclass(frozen=True)
class _Missing:
    """In place of a result: the process did not have some argument."""


class _Named(_Places):
    """Names; a thing goes with the first task that needs it, and to a process that lacks it."""

    def put(self, thing: Any) -> _Place:
        return _ByName(uuid.uuid4().hex)


class _ByName(_Place):
    def stand(self, thing: Any) -> Any:
        things = () if self.sent else (thing,)
        self.sent = True
        return _Name(self.value, things, _here())


def _run(run: Callable[..., Any], *args: Any) -> Any:
    """The task, in its process."""
    found = []
    for arg in args:
        if isinstance(arg, _Whole):
            arg = arg.thing
        elif isinstance(arg, _Name):
            things = arg.things or _kept(arg.name)
            if not things:
                return _Missing()
            if arg.things and arg.home != _here():
                _keep(arg.name, arg.things)
            arg = things[0]
        found.append(arg)
    return run(*found)


_STORE: OrderedDict[str, tuple[tuple[Any, ...], int]] = OrderedDict()
_LOCK = threading.Lock()


def _kept(name: str) -> tuple[Any, ...]:
    with _LOCK:
        if name not in _STORE:
            return ()
        _STORE.move_to_end(name)
        return _STORE[name][0]


def _keep(name: str, things: tuple[Any, ...]) -> None:
    with _LOCK:
        _STORE[name] = (things, sum(_bytes(thing) for thing in things))
        while len(_STORE) > 1 and sum(size for _, size in _STORE.values()) > KEPT:
            _STORE.popitem(last=False)


def _bytes(thing: Any) -> int:
    if isinstance(thing, torch.nn.Module):
        return sum(t.nbytes for t in (*thing.parameters(), *thing.buffers()))
    return int(thing.nbytes)
