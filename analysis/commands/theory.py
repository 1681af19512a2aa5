"""The commands `npgd worst-case` and `npgd derive`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import Force, command, within
from analysis.commands.output import output_file
from analysis.commands.terminal import console


@command
def worst_case_command(
    *,
    alpha: Annotated[float, typer.Option(help="Lower restricted eigenvalue constant α.")],
    beta: Annotated[float, typer.Option(help="Upper restricted eigenvalue constant β.")],
    n_iter: Annotated[int, typer.Option(help="Steps N of NPGD.")] = 3,
    step_size: Annotated[float | None, typer.Option(help="η; default 1/β, the theorem's.")] = None,
    delta: Annotated[
        float, typer.Option(help="Projector error δ; the objective starts at F_0 = 1.")
    ] = 0.0,
    noise: Annotated[float, typer.Option(help="Bound on the noise, ‖v‖², in the same unit.")] = 0.0,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Every step size from 0.5/β to 1.5/β instead.")
    ] = False,
    certificate: Annotated[
        Path | None, typer.Option(help="Write the proof of the dual bound there, as JSON.")
    ] = None,
    force: Force = False,
) -> None:
    """The worst NPGD can do under the theorem's assumptions, with its certificate.

    Beside each other: the theorem's bound, a dual bound proved in rational arithmetic, the primal
    value, and NPGD run on an explicit matrix and set that attain it.
    """
    if sweep and certificate is not None:
        raise ValueError("--certificate must be left out with --sweep, got both")
    if sweep and step_size is not None:
        raise ValueError("--step-size must be left out with --sweep, got both")
    within("--n-iter", n_iter, 1, MOST_STEPS, "steps that the program is solved for")
    with contextlib.ExitStack() as opened:
        path = None
        if certificate is not None:
            path = opened.enter_context(
                output_file(certificate, force, _holds_proof, "--certificate")
            )
        _print_worst_case(alpha, beta, n_iter, step_size, delta, noise, sweep=sweep, path=path)
    if certificate is not None:
        console.print(f"proof of the dual bound: {certificate}")


MOST_STEPS = 1000  # the program has a matrix of this side


def _print_worst_case(
    alpha: float,
    beta: float,
    n_iter: int,
    step_size: float | None,
    delta: float,
    noise: float,
    *,
    sweep: bool,
    path: Path | None,
) -> None:
    """Solve, print, and write the proof to `path`."""
    from rich.table import Table

    from analysis.performance_estimation import certify, sweep_step_sizes
    from npgd.files import write_atomically

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
    table = Table(title=found.worst_case.title)
    table.add_column("quantity")
    table.add_column("number", justify="right")
    table.add_column("rests on")
    for row in found.rows():
        table.add_row(*row)
    console.print(table)
    console.print(found.status)
    if path is not None:
        proof = json.dumps(found.worst_case.proof(), ensure_ascii=False, indent=1)
        write_atomically(path, proof.encode())


def _holds_proof(path: Path) -> bool:
    """Whether a file is one that --certificate wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and {"multipliers", "bound", "n_iter"} <= found.keys()


@command
def derive(
    *,
    latex: Annotated[bool, typer.Option("--latex", help="LaTeX in place of plain text.")] = False,
) -> None:
    """Derive the convergence theorem step by step, each step checked symbolically."""
    from analysis.theorem import derive as derive_theorem

    derivation = derive_theorem()
    console.print(derivation.latex() if latex else str(derivation), soft_wrap=True)
