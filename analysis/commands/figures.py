"""The command `npgd figures`."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import command
from npgd_command import ours


@command
def figures(
    names: Annotated[
        list[str] | None, typer.Argument(help="Figures or tables; default: every figure.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="At reduced size, into the folder quick.")] = False,
    output: Annotated[Path, typer.Option(help="Directory to write into.")] = Path("figures"),
    fresh: Annotated[bool, typer.Option(help="Measure again what has not changed, too.")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="The tables, too; hours.")] = False,
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
            f"{', '.join(unknown)}: no such figure or table; there are {', '.join(there)}"
        )
    wanted = names or list(there if tables or listed else paper_figures.figures())
    if listed:
        for name in wanted:
            typer.echo(f"{name:<18}{there[name]}")
        return
    argv = ["--output", str(output), *["--quick"] * quick, *["--fresh"] * fresh]
    skipped, failed = [], []
    for i, name in enumerate(wanted, 1):
        typer.echo(f"[{i}/{len(wanted)}] ", nl=False)
        try:
            if name.startswith("table_"):
                importlib.import_module("paper_figures.figure").run_table(name, argv)
            else:
                importlib.import_module(f"paper_figures.figure_{name}").main(argv)
        except Exception as error:
            from npgd.data import DataNotFoundError

            if isinstance(error, DataNotFoundError):
                skipped.append(name)
                typer.echo(f"{name}: skipped, {error}")
            else:
                failed.append(name)
                typer.echo(f"{name}: failed", err=True)
                traceback.print_exc()
    if skipped or failed:
        done = len(wanted) - len(skipped) - len(failed)
        parts = [f"{done} done"]
        parts += [f"skipped for want of data: {', '.join(skipped)}"] if skipped else []
        parts += [f"failed: {', '.join(failed)}"] if failed else []
        typer.echo("; ".join(parts))
    if failed:
        raise typer.Exit(1)
