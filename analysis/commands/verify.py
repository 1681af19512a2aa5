"""The command `npgd verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    console,
    torch_device,
    unwritten,
)


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
) -> None:
    """Are the theorem's assumptions met, what do they predict, and what happened?

    Measures the restricted eigenvalue constants of A on range(G), the projector's error and every
    quantity of the one-step identity, in float64, and writes report.html and report.json.
    """
    import analysis
    import npgd

    unwritten(output, force)
    p = npgd.load_prior(prior, device=torch_device(device))
    x_true = subject.load(p, seed)[0].to(device) if subject.real else None
    operator, _ = problem.build(p.image_shape, seed)
    report = analysis.verify(
        operator.to(device),
        p,
        x_true,
        effort=effort,
        step_size=run.eta,
        n_iter=run.max_iter,
        noise=run.noise,
        count=subject.count,
        seed=seed,
        progress=console.is_terminal,
    )
    console.print(report.table())
    console.print(report.summary, highlight=False)
    page = report.write(output, force=force)
    console.print(f"written: {page}")
