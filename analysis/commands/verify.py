"""The command `npgd verify`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands.options import (
    MOST_STEPS,
    Baselines,
    Device,
    Force,
    Memory,
    Output,
    Prior,
    Run,
    Seed,
    Subject,
    command,
    invocation,
    load_prior,
    within,
)
from analysis.commands.output import output_directory, record
from analysis.commands.problem import Problem
from analysis.commands.terminal import console

if TYPE_CHECKING:
    from analysis.rec.settings import RecSettings


class Effort(StrEnum):
    """How far to look."""

    QUICK = "quick"
    DEFAULT = "default"
    THOROUGH = "thorough"


@dataclass(frozen=True)
class Looking:
    """How far to look for the constants, the projector's error and what would help."""

    effort: Effort = Effort.DEFAULT
    """How far to look, and so how long it takes."""
    points: int | None = None
    """Samples between which secants are looked at; default: by --effort, as of the next three."""
    tangent_points: int | None = None
    """How many of them have their tangents looked at."""
    search_starts: int | None = None
    """How many of the worst directions found a search starts from."""
    search_steps: int | None = None
    """Steps of each search."""

    @property
    def rec(self) -> RecSettings | None:
        """The settings of `analysis.estimate_rec` where some are given."""
        from analysis.report.settings import rec_settings

        named = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        given = {name: value for name, value in named.items() if value is not None}
        for name, value in given.items():
            least = 2 if name == "points" else 1
            within(f"--{name.replace('_', '-')}", value, least, MOST_STEPS, "directions of a look")
        return replace(rec_settings(self.effort.value), **given) if given else None


@command
def verify(
    *,
    prior: Prior = "mnist",
    subject: Subject,
    problem: Problem,
    run: Run,
    looking: Looking,
    seed: Seed = 0,
    device: Device = "cpu",
    memory: Memory = None,
    output: Output = Path("verified"),
    force: Force = False,
    baselines: Baselines = False,
    details: Annotated[
        bool, typer.Option("--details", help="Print every table and finding, too.")
    ] = False,
) -> None:
    """Does the theorem apply, what predicts the run, what limits it, and what to do next?

    Prints the answers on one screen, and writes report.html (all of it, with figures), report.json
    and summary.txt. Measured in float64: the restricted eigenvalue constants of A on range(G), the
    projector's error, and every quantity of the one-step identity. Theorem 1, local rates, state
    evolution and obtuseness are held against a run.
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
            effort=looking.effort.value,
            rec=looking.rec,
            step_size=run.eta,
            n_iter=run.max_iter,
            noise=run.noise,
            count=subject.count,
            seed=seed,
            progress=console.is_terminal,
            memory=memory,
            baselines=baselines,
        )
        report = replace(report, command=_recovering(prior, subject, problem, run, seed, device))
        made = {**record(), "prior": prior, **given.record(), "device": device, "dtype": "float64"}
        report.write(folder.path, made=made)
    # Its lines are short but for commands, which must stay whole to be copied.
    console.print(str(report.screen), soft_wrap=True)
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
