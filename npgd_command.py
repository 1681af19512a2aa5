"""The command `npgd` as it is installed: `analysis.commands`, if that is ours.

`analysis` and `paper_figures` are names that people give to folders and scripts of their own. Where
Python finds one of those first, this module says so in one sentence, in place of the error that
would follow. It stands beside the packages, because `npgd` never imports `analysis`, and because it
must cost nothing to import.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path


class Shadowed(ImportError):
    """Another package, or a script, has the name of one of ours."""


def ours(name: str) -> None:
    """Raise Shadowed where `import name` finds something else than the package beside this file.

    Nothing is imported.
    """
    here = Path(__file__).parent / name / "__init__.py"
    spec = importlib.util.find_spec(name)
    found = spec.origin if spec is not None else None
    if found and Path(found).exists() and here.exists() and not here.samefile(found):
        raise Shadowed(
            f"{name} must be the package that comes with npgd, got {found}: rename that, or work "
            "where Python does not find it first (in another folder, with another PYTHONPATH)"
        )


_interrupts: list[int] = []


def interrupted() -> bool:
    """Whether Ctrl-C came, whatever error a library has made of it."""
    return bool(_interrupts)


def _interrupt(number: int, frame: object) -> None:
    _interrupts.append(number)
    raise KeyboardInterrupt


def main() -> None:
    """The command `npgd`.

    Exit status 2 where `analysis` is not ours, 1 where a package cannot be imported or what is
    printed cannot be written, 130 after Ctrl-C; `analysis.commands.terminal` has the rest.
    """
    status = 0
    _interrupts.clear()
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        _open_streams()
        ours("analysis")
        from analysis.commands import main as command

        command()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Shadowed as error:
        status = _fail(str(error), 2)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or interrupted():
            status = _fail("Ctrl-C", 130, "stopped")
        elif isinstance(error, ImportError | OSError):
            package = getattr(error, "name", None) or "npgd"
            status = _fail(f"the package {package} must be installed and whole, got: {error}", 1)
        else:
            raise
    if status == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends already
    sys.exit(_flushed(status))


def _fail(text: str, status: int, word: str = "error") -> int:
    print(f"{word}: {text}", file=sys.stderr)
    return status


def _open_streams() -> None:
    """Let standard output and error take any text, and be there."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def _flushed(status: int) -> int:
    """The exit status once all that was printed is out; at least 1 where it cannot be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is left cannot be written, and must not be tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError) and status == 0:
            _fail(f"standard output cannot be written: {error.strerror}", 1)
        return status or 1
    return status


if __name__ == "__main__":
    main()
