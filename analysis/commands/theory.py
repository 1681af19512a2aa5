"""The commands `npgd worst-case` and `npgd derive`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import command, console


@command
def worst_case_command(
    *,
    alpha: Annotated[float, typer.Option(help="Lower restricted eigenvalue constant.")],
    beta: Annotated[float, typer.Option(help="Upper restricted eigenvalue constant.")],
    n_iter: Annotated[int, typer.Option(help="Steps N.")] = 3,
    step_size: Annotated[float | None, typer.Option(help="η; default 1/β, the theorem's.")] = None,
    delta: Annotated[float, typer.Option(help="Projector error δ, for F_0 = 1.")] = 0.0,
    noise: Annotated[float, typer.Option(help="Bound on ‖v‖², for F_0 = 1.")] = 0.0,
    sweep: Annotated[
        bool, typer.Option(help="Every step size from 0.5/β to 1.5/β instead.")
    ] = False,
    certificate: Annotated[
        Path | None, typer.Option(help="Write the proof of the dual bound there, as JSON.")
    ] = None,
) -> None:
    """The worst NPGD can do under the theorem's assumptions, with its certificate.

    Beside each other: the theorem's bound, a dual bound proved in rational arithmetic, the primal
    value, and NPGD run on an explicit matrix and set that attain it.
    """
    from rich.table import Table

    from analysis.performance_estimation import certify, sweep_step_sizes
    from npgd.files import write_atomically

    if sweep and certificate is not None:
        raise ValueError("certificate must be left out with sweep, got both")
    try:
        if sweep:
            swept = sweep_step_sizes(
                alpha, beta, n_iter, delta=delta, noise=noise, progress=console.is_terminal
            )
            table = Table(title=f"worst case after {n_iter} steps, by step size")
            for name in ("ηβ", "primal value", "dual bound", "bound of the induction"):
                table.add_column(name)
            for swept_row in swept.rows():
                table.add_row(*swept_row)
            console.print(table)
            return
        found = certify(alpha, beta, n_iter, step_size, delta, noise)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    table = Table(title=found.worst_case.title)
    table.add_column("quantity")
    table.add_column("number", justify="right")
    table.add_column("rests on")
    for row in found.rows():
        table.add_row(*row)
    console.print(table)
    console.print(found.status, highlight=False)
    if certificate is not None:
        proof = json.dumps(found.worst_case.proof(), ensure_ascii=False, indent=1)
        write_atomically(certificate, proof.encode())
        console.print(f"proof of the dual bound: {certificate}", highlight=False)


@command
def derive(
    *,
    latex: Annotated[bool, typer.Option("--latex", help="LaTeX in place of plain text.")] = False,
) -> None:
    """Derive the convergence theorem step by step, each step checked symbolically."""
    from analysis.theorem import derive as derive_theorem

    derivation = derive_theorem()
    typer.echo(derivation.latex() if latex else str(derivation))
