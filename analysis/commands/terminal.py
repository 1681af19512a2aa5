"""What the commands say: text as it is, and an error in one sentence.

Names of files, keys of archives and messages of libraries are a user's text or a stranger's: none
of it is markup, and none of it steers the terminal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import traceback
import unicodedata
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from npgd_command import Shadowed, interrupted

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 130
"""Exit statuses: done; the machine could not; the command line cannot be done; Ctrl-C."""

LONGEST = 600  # characters of a library's message that are shown


class Words(Console):
    """A console for plain text, whatever it holds."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)


def printable(text: str) -> str:
    """`text` with escapes in place of what steers a terminal or cannot be encoded."""
    return "".join(
        c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else ascii(c)[1:-1]
        for c in text
    )


console = Words()


def warn(text: str) -> None:
    """A line on standard error, for what the user should know."""
    _aside("warning:", "yellow", text)


def _aside(word: str, style: str, text: str) -> None:
    # Of several processes that train together, the first speaks.
    if os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0":
        return
    line = Text.assemble((word, style), " ", printable(text))
    Words(stderr=True).print(line, soft_wrap=True)


# ------------------------------------------------------------------------- an error, a sentence

_USAGE: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)
# What the system says of a path that the command line names; the rest is the machine's.
_OF_THE_PATH = {
    errno.EACCES,
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
_MENDED_BY_THE_USER = (ValueError, TypeError, Shadowed)
_KNOWN = (OSError, ImportError, MemoryError, RuntimeError, ArithmeticError)


@contextlib.contextmanager
def plain_errors(options: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Turn an error into one line on standard error, and an exit status.

    `options` are the command's parameters with the names of their options: a message that begins
    with a parameter then begins with its option.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except _USAGE as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # which has printed the help
            _aside("error:", "bold red", _usage(error))
        raise typer.Exit(REFUSED) from error
    except (Exception, KeyboardInterrupt) as error:
        raise typer.Exit(tell(error, options)) from error


def tell(
    error: BaseException, options: Mapping[str, str] = MappingProxyType({}), about: str = "error"
) -> int:
    """Say on standard error what happened; the exit status."""
    if interrupted() or _interrupted(error):
        _aside("stopped:", "bold", "Ctrl-C")
        return STOPPED
    text = sentence(error)
    first, blank, rest = text.partition(" ")
    known = isinstance(error, _MENDED_BY_THE_USER + _KNOWN)
    if not known:
        text = f"something unforeseen happened, {type(error).__name__}: {text}; please report it"
    elif first in options:
        text = f"{options[first]}{blank}{rest}"
    if os.environ.get("NPGD_TRACEBACK"):
        traceback.print_exception(error)
    _aside(f"{about}:", "bold red", text)
    of_the_path = isinstance(error, OSError) and (error.errno or errno.ENOENT) in _OF_THE_PATH
    return REFUSED if of_the_path or isinstance(error, _MENDED_BY_THE_USER) else FAILED


def sentence(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, ImportError) and not isinstance(error, Shadowed) and error.name:
        text = f"the package {error.name} must be installed and whole, got: {error}"
    elif isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if _is_path(n)]
        where = " → ".join(names) or "standard output, or a file"
        text = f"{where} cannot be read or written: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"the work must fit in memory, got more: {error}".removesuffix(": ")
    elif isinstance(error, KeyError):
        text = f"{error} is missing"
    else:
        text = str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _is_path(name: Any) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _usage(error: Any) -> str:
    text = " ".join(error.format_message().split())
    # What the library that reads the values says of itself.
    text = re.sub(r"Value error, |, unable to parse string as an? \w+", "", text)
    context = getattr(error, "ctx", None)
    help_of = f"; see {context.command_path} --help" if context is not None else ""
    return text.rstrip(".") + help_of


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: a library's import may turn that into an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
