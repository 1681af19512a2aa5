"""The command `npgd verify`."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.commands.options import (
    Device,
    Force,
    Output,
    Prior,
    Problem,
    Run,
    Seed,
    Subject,
    command,
    invocation,
    load_prior,
)
from analysis.commands.output import output_directory, record
from analysis.commands.terminal import console


@command
def verify(
    *,
    prior: Prior = "mnist",
    subject: Subject,
    problem: Problem,
    run: Run,
    effort: Annotated[
        str, typer.Option(help="How far to look: quick, default or thorough.")
    ] = "default",
    seed: Seed = 0,
    device: Device = "cpu",
    output: Output = Path("verified"),
    force: Force = False,
    details: Annotated[
        bool, typer.Option("--details", help="Print every table and finding, too.")
    ] = False,
) -> None:
    """Are the theorem's assumptions met, what do they predict, and what happened?

    Holds Theorem 1, local rates, state evolution and obtuseness against a run, and says what limits
    the run that users get. Measures the restricted eigenvalue constants of A on range(G), the
    projector's error and every quantity of the one-step identity, in float64. Writes report.html,
    report.json and summary.txt.
    """
    import analysis

    if run.max_iter < 2:
        raise ValueError(f"--max-iter must be at least 2, got {run.max_iter}")
    with output_directory(output, force) as folder:
        p = load_prior(prior, device)
        given = subject.load(p, seed)
        operator, _ = problem.build(p.image_shape, seed)
        report = analysis.verify(
            operator.to(device),
            p,
            given.pixels.to(device) if subject.real else None,
            effort=effort,
            step_size=run.eta,
            n_iter=run.max_iter,
            noise=run.noise,
            count=subject.count,
            seed=seed,
            progress=console.is_terminal,
        )
        report = replace(report, command=_recovering(prior, subject, problem, run, seed, device))
        made = {**record(), "prior": prior, **given.record(), "device": device, "dtype": "float64"}
        report.write(folder.path, made=made)
    console.print(str(report.screen))
    if details:
        console.print(report.table())
        console.print(report.numbered)
    console.print(
        f"\nwritten: {output / 'report.html'}, all of it with figures, and beside it the numbers"
    )


def _recovering(
    prior: str, subject: Subject, problem: Problem, run: Run, seed: int, device: str
) -> dict[str, str | None]:
    """The options with which `npgd recover` recovers the same, those that were given."""
    settings: dict[str, Any] = {"prior": prior, "seed": seed, "device": device, "noise": run.noise}
    for group in (subject, problem):
        settings |= {field.name: getattr(group, field.name) for field in fields(group)}
    given = invocation().given
    return {
        f"--{name.replace('_', '-')}": "" if value is True else shlex.quote(str(value))
        for name, value in settings.items()
        if name in given and value is not False
    }
