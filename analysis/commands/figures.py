"""The command `npgd figures`."""

from __future__ import annotations

import errno
import importlib
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import command
from analysis.commands.terminal import FAILED, console, tell
from npgd_command import ours


@command
def figures(
    names: Annotated[
        list[str] | None, typer.Argument(help="Figures or tables; default: every figure.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="At reduced size, into the folder quick.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Directory to write into.")] = Path("figures"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure everything again, changed or not.")
    ] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Make the tables as well, which takes hours.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Name them, and stop.")] = False,
) -> None:
    """Draw the figures of the paper and beyond it, each as PDF, PNG and JSON of its numbers.

    Tables are kept as text. A second run measures only what has changed since. What needs data
    that is not at hand (in $NPGD_DATA) is skipped, and named; after a failure the others still
    run, and the exit status is 1. Each script of paper_figures/ takes further options of its own.
    """
    ours("paper_figures")
    import paper_figures

    there = paper_figures.figures() | paper_figures.tables()
    unknown = sorted(set(names or ()) - set(there))
    if unknown:
        raise ValueError(
            f"NAMES must be of figures or tables ({', '.join(there)}), got {', '.join(unknown)}"
        )
    wanted = names or list(there if tables or listed else paper_figures.figures())
    if listed:
        for name in wanted:
            console.print(f"{name:<18}{there[name]}", soft_wrap=True)
        return
    place = output / "quick" if quick else output
    _check_place(place, wanted)
    argv = ["--output", str(output), *["--quick"] * quick, *["--fresh"] * fresh]
    skipped, failed = [], []
    for i, name in enumerate(wanted, 1):
        console.print(f"[{i}/{len(wanted)}] ", end="")
        try:
            if name.startswith("table_"):
                importlib.import_module("paper_figures.figure").run_table(name, argv)
            else:
                importlib.import_module(f"paper_figures.figure_{name}").main(argv)
        except Exception as error:
            from npgd.data import DataNotFoundError

            if isinstance(error, DataNotFoundError):
                skipped.append(name)
                console.print(f"{name}: skipped, {error}", soft_wrap=True)
            else:
                failed.append(name)
                tell(error, about=f"{name} failed")
    if skipped or failed:
        done = len(wanted) - len(skipped) - len(failed)
        parts = [f"{done} done"]
        parts += [f"skipped for want of data: {', '.join(skipped)}"] if skipped else []
        parts += [f"failed: {', '.join(failed)}"] if failed else []
        console.print("; ".join(parts), soft_wrap=True)
    if failed:
        raise typer.Exit(FAILED)


def _check_place(place: Path, names: list[str]) -> None:
    """Raise where figures cannot be written to, or would replace what no figure script wrote."""
    above = next(path for path in (place, *place.parents) if path.exists())
    if not above.is_dir():
        raise FileExistsError(f"--output must name a folder, got {place} and the file {above}")
    if not os.access(above, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(above))
    for name in names:
        numbers = place / f"{name}.json"
        suffixes = (".json", ".txt") if name.startswith("table_") else (".json", ".png", ".pdf")
        there = [suffix for suffix in suffixes if os.path.lexists(numbers.with_suffix(suffix))]
        if there and not _written_by_figures(numbers):
            raise FileExistsError(
                f"--output must not hold {name}{there[0]} of another origin, got {place}; move "
                "that away or choose another"
            )


def _written_by_figures(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"figure", "key", "results"} <= found.keys()
