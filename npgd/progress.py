"""One progress bar: shown only where asked for, gone when the work is done.

    for image in track(images, len(images), "recover", show=progress): ...

    with bar(steps, "search", show=progress) as shown:
        shown.advance()                      # one step more
        shown.reach(50, "loss 0.012")        # or: 50 steps done in all, and a note beside the bar

Bars are drawn on standard error, so that what a program prints can be piped; where that is no
terminal, nothing is drawn. A bar inside a bar is a line below it. Only a bar that is shown imports
`rich`. In a notebook without `ipywidgets`, each is a line of text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")


class Bar:
    """One line of the display; one that is not shown does nothing."""

    def __init__(self, display: Progress | None = None, line: TaskID | None = None) -> None:
        self._display, self._line = display, line

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """`by` steps more are done; a `note` replaces the text beside the bar."""
        if self._display is not None and self._line is not None:
            self._display.advance(self._line, by)
            self._say(note)

    def reach(self, done: int, note: str | None = None) -> None:
        """`done` steps are done in all; a `note` replaces the text beside the bar."""
        if self._display is not None and self._line is not None:
            self._display.update(self._line, completed=done)
            self._say(note)

    def _say(self, note: str | None) -> None:
        if note is not None and self._display is not None and self._line is not None:
            self._display.update(self._line, note=note)


@contextmanager
def bar(total: int | None, what: str, show: bool = True, done: int = 0) -> Iterator[Bar]:
    """A bar to advance by hand.

    Args:
        total: number of steps; None where it is not known.
        what: the words before the bar.
        show: whether to draw it.
        done: steps done before, of a work taken up again.
    """
    if not show:
        yield Bar()
        return
    with _display() as display:
        line = display.add_task(what, total=total, completed=done, note="")
        try:
            yield Bar(display, line)
        finally:
            display.remove_task(line)


def track(items: Iterable[Item], total: int | None, what: str, show: bool = True) -> Iterator[Item]:
    """`items` one by one, on a bar of `total` steps named `what`; without one unless `show`."""
    with bar(total, what, show) as shown:
        for item in items:
            yield item
            shown.advance()


def note(text: str, show: bool = True) -> None:
    """A line above the bars, which stays; on standard error, where that is a terminal."""
    if not show:
        return
    with _display() as display:
        if display.console.is_terminal:
            display.console.print(text, markup=False, highlight=False)


class _Lines:
    """The bars of a notebook without ipywidgets, which rich would warn of: lines of text."""

    PAUSE = 0.2  # seconds between two drawings

    def __init__(self) -> None:
        from IPython import display
        from rich.console import Console

        self.console = Console(stderr=True, force_terminal=False)
        self._lines: dict[int, dict[str, Any]] = {}
        self._count, self._drawn = 0, 0.0
        handle: Any = display.DisplayHandle  # IPython has no types for it
        self._handle = handle()
        self._handle.display({"text/plain": ""}, raw=True)

    def add_task(self, what: str, *, total: int | None, completed: int, note: str) -> int:
        self._count += 1
        line = {"what": what, "total": total, "completed": completed, "note": note}
        self._lines[self._count] = line
        self._draw()
        return self._count

    def advance(self, line: int, by: int) -> None:
        self.update(line, completed=self._lines[line]["completed"] + by)

    def update(self, line: int, **values: Any) -> None:
        self._lines[line].update(values)
        if time.monotonic() > self._drawn + self.PAUSE:
            self._draw()

    def remove_task(self, line: int) -> None:
        del self._lines[line]
        self._draw()

    def stop(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        text = "\n".join(
            f"{line['what']} {line['completed']}/{line['total'] or '?'} {line['note']}".rstrip()
            for line in self._lines.values()
        )
        self._handle.update({"text/plain": text}, raw=True)


# A terminal has room for one live display: bars that are open at the same time share it.
_lock = threading.RLock()
_shared: list[Progress] = []  # the display, once for every open bar


@contextmanager
def _display() -> Iterator[Progress]:
    with _lock:
        display = _shared[0] if _shared else _started()
        _shared.append(display)
    try:
        yield display
    finally:
        with _lock:
            _shared.pop()
            if not _shared:
                display.stop()


def _started() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if console.is_jupyter and find_spec("ipywidgets") is None:
        return _Lines()  # type: ignore[return-value]
    # What is named and noted is text, not rich's markup: "[1, 2]" stays as it is.
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
    )
    display.start()
    return display
