"""The command `npgd sweep`."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import (
    MOST_STEPS,
    Device,
    Force,
    Output,
    Prior,
    Seed,
    Subject,
    command,
    load_prior,
    naming,
    within,
)
from analysis.commands.output import output_directory, record
from analysis.commands.predict import measurement_numbers
from analysis.commands.terminal import console


@dataclass(frozen=True)
class Swept(Subject):
    """The images that every cell recovers."""

    count: int = 8
    """How many images each recovery has, at most."""


@command
def sweep(
    *,
    prior: Prior = "mnist",
    m: Annotated[
        str, typer.Option(help="Numbers of measurements, with commas.")
    ] = "20,50,100,200,500",
    noise: Annotated[
        str, typer.Option(help="Standard deviations of the noise, with commas.")
    ] = "0",
    seeds: Annotated[str, typer.Option(help="Seeds of A and the noise, with commas.")] = "0",
    step_sizes: Annotated[
        str, typer.Option(help='Of NPGD: numbers, "auto", "1/beta", with commas; or "own".')
    ] = "own",
    methods: Annotated[
        str, typer.Option(help="Names as recover --method has them, with commas.")
    ] = "npgd",
    subject: Swept,
    max_iter: Annotated[
        int | None, typer.Option(help="Iterations at most; default: the methods' own.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Keep what is done in this file; if it is there, go on from it."),
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Output = Path("swept"),
    force: Force = False,
) -> None:
    """Recover over a grid of m, noise, seeds, step sizes and methods, beside what is predicted.

    Writes sweep.csv (a row for each recovery), sweep.json and sweep.png (predicted and observed
    error) into --output. With --resume FILE, a run that was stopped goes on where it stood.
    """
    import analysis
    from npgd.files import plain

    if max_iter is not None:
        within("--max-iter", max_iter, 1, MOST_STEPS, "steps of a run")
    sizes = measurement_numbers(m)
    noises = _numbers(noise, "--noise")
    drawn = _numbers(seeds, "--seeds", whole=True)
    steps = None if step_sizes == "own" else _steps(step_sizes)
    with output_directory(output, force) as folder:
        p = load_prior(prior, device)
        given = subject.load(p, seed)
        with naming("--resume") if resume is not None else naming("--methods"):
            found = analysis.sweep(
                p,
                given.pixels.to(device),
                sizes,
                noises,
                [int(value) for value in drawn],
                steps,
                methods.split(","),
                max_iter=max_iter,
                path=resume,
                progress=console.is_terminal,
            )
        told = {"command": "sweep", **record(), "prior": prior, **given.record(), "seed": seed}
        results = plain({**told, **found.to_dict()})
        folder.write("sweep.json", (json.dumps(results, indent=1) + "\n").encode())
        folder.write("sweep.csv", found.to_csv().encode())
        picture = io.BytesIO()
        found.plot().savefig(picture, format="png", dpi=200)
        folder.write("sweep.png", picture.getvalue())
    console.print(str(found))
    console.print(f"written: {output / 'sweep.csv'}, and beside it sweep.json and sweep.png")


def _numbers(text: str, option: str, whole: bool = False) -> list[float]:
    """Numbers with commas between them, of at least 0; ValueError that names the option."""
    try:
        values = [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value < float("inf") for value in values):
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(
            f"{option} must be {kind} of at least 0 with commas between them, got {text!r}"
        )
    return values


def _steps(text: str) -> list[float | str]:
    """Step sizes of --step-sizes."""
    parts = text.split(",")
    try:
        steps = [part if part in ("auto", "1/beta") else float(part) for part in parts]
    except ValueError:
        steps = []
    if not steps or not all(isinstance(s, str) or 0 < s < float("inf") for s in steps):
        raise ValueError(
            '--step-sizes must be positive numbers, "auto" or "1/beta" with commas between them,'
            f' or "own" alone, got {text!r}'
        )
    return steps
