"""The command `npgd verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import (
    Device,
    Force,
    Memory,
    Output,
    Prior,
    Problem,
    Run,
    Seed,
    Subject,
    command,
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
    memory: Memory = None,
    output: Output = Path("verified"),
    force: Force = False,
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
            memory=memory,
        )
        report.write(folder.path)
        place = folder.path / "report.json"
        made = {**record(), "prior": prior, **given.record(), "device": device, "dtype": "float64"}
        numbers = {"made": made, **json.loads(place.read_text(encoding="utf-8"))}
        folder.write(place.name, (json.dumps(numbers, indent=1, allow_nan=False) + "\n").encode())
    console.print(report.table())
    console.print(report.advice)
    console.print(report.numbered)
    console.print(f"written: {output / 'report.html'}")
