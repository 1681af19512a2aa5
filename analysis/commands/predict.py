"""The command `npgd predict`."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands.options import (
    Device,
    Force,
    Memory,
    Prior,
    Seed,
    Subject,
    command,
    load_prior,
)
from analysis.commands.output import output_directory, record
from analysis.commands.terminal import console

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from rich.table import Table

    from analysis.evolution import DenoisingCurve
    from npgd import GenerativePrior

MOST = 200
"""Most numbers of measurements at a time."""


@dataclass(frozen=True)
class Measured(Subject):
    """The images whose error is predicted."""

    count: int = 24
    """How many images the denoising curve is measured on, at most."""


@command
def predict(
    *,
    prior: Prior = "mnist",
    m: Annotated[
        str, typer.Option(help="Numbers of measurements, with commas.")
    ] = "20,50,100,200,500",
    subject: Measured,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of the noise on each measurement.")
    ] = 0.0,
    check: Annotated[
        bool, typer.Option("--check", help="Recover as well, by AMP and NPGD, to compare.")
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    memory: Memory = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory to write; without it, nothing is written.")
    ] = None,
    force: Force = False,
) -> None:
    """What error will a recovery have? From one measured curve, without a recovery.

    Measures the denoising curve of the prior's projector. State evolution then tells the error of
    message passing from m measurements by an A of independent entries; NPGD ends near it. Writes
    predictions.json and predictions.png into --output.
    """
    import analysis
    from npgd.files import plain

    sizes = measurement_numbers(m)
    if not 0 <= noise < math.inf:
        raise ValueError(
            f"--noise must be a standard deviation, finite and at least 0, got {noise}"
        )
    with contextlib.ExitStack() as opened:
        folder = None
        if output is not None:
            folder = opened.enter_context(output_directory(output, force))
        p = load_prior(prior, device)
        given = subject.load(p, seed)
        x = given.pixels.to(device)
        curve = analysis.denoising_curve(
            p, x, seed=seed, draws=1, progress=console.is_terminal, memory=memory
        )
        rows = [predicted(curve, size, noise) for size in sizes]
        for row in rows if check else ():
            row |= recovered(p, x, row["m"], noise, seed)
        results = {
            "command": "predict",
            **record(),
            "prior": prior,
            **given.record(),
            "noise": noise,
            "seed": seed,
            "device": device,
            "curve": curve.to_dict(),
            "least_measurements": analysis.least_measurements(curve, noise),
            "predictions": rows,
        }
        if folder is not None:
            text = json.dumps(plain(results), indent=1, allow_nan=False) + "\n"
            folder.write("predictions.json", text.encode())
            picture = io.BytesIO()
            draw(rows).savefig(picture, format="png", dpi=200)
            folder.write("predictions.png", picture.getvalue())
    console.print(
        table(rows, f"error per pixel on [−1, 1], A of independent entries · {given.words}")
    )
    console.print(sentences(results))
    if output is not None:
        console.print(f"written: {output / 'predictions.json'} and predictions.png beside it")


def measurement_numbers(text: str) -> list[int]:
    """The numbers of --m, rising; ValueError that names it for anything else."""
    from npgd import checks

    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or not 1 <= sizes[0] <= sizes[-1] <= 10**9 or len(sizes) > MOST:
        raise ValueError(
            f"--m must be whole numbers of at least 1 with commas between them, at most {MOST} of"
            f" them, got {checks.shown(text)}"
        )
    return sizes


def predicted(curve: DenoisingCurve, m: int, noise: float) -> dict[str, Any]:
    """What state evolution says of one m."""
    import analysis

    evolution = analysis.state_evolution(curve, m, n_iter=12, noise=noise)
    return {
        **evolution.to_dict(),
        "se": float(evolution.end_se),
        "budget": analysis.error_budget(curve, m, noise).to_dict(),
    }


def recovered(
    prior: GenerativePrior, x: torch.Tensor, m: int, noise: float, seed: int
) -> dict[str, Any]:
    """The errors of AMP and NPGD at their defaults, mean over the images."""
    import torch

    import npgd

    A = npgd.Gaussian(prior.image_shape, m, seed=seed).to(x.device)
    y = A(x)
    drawn = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed + 2))
    y = y + noise * drawn.to(y)
    found: dict[str, Any] = {}
    for solver in (npgd.AMP(prior, seed=seed), npgd.NPGD(prior, finish=0)):
        solution = npgd.recover(A, y, solver, x_true=x, progress=console.is_terminal)
        assert solution.error is not None
        found[solution.method] = {
            "error": float(solution.error[-1].mean()),
            "n_iter": solution.n_iter,
            "status": solution.status,
        }
    return found


METHODS = ("AMP", "NPGD")


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """A row for every m: predicted, what it is made of, and observed where it was."""
    from rich.table import Table

    shown = [name for name in METHODS if name in rows[0]]
    found = Table(title=title)
    for column in ("m", "predicted", "P(x) itself", "too few m", "noise", *shown):
        found.add_column(column, justify="right")
    for row in rows:
        parts = row["budget"]["parts"]
        found.add_row(
            str(row["m"]),
            f"{row['fixed_point']:.4f} ± {row['se']:.4f}",
            *(f"{parts[name]:.4f}" for name in ("projector", "measurements", "noise")),
            *(f"{row[name]['error']:.4f}" for name in shown),
        )
    return found


def sentences(results: dict[str, Any]) -> str:
    """What follows from the numbers: how soon, what limits, what would help."""
    least, last = results["least_measurements"], results["predictions"][-1]
    lines = [iterations(results["predictions"])]
    lines += limits(results["predictions"])
    lines += [
        f"from m = {least} on, the error is within 10 % of its floor"
        if least is not None
        else "no number of measurements up to 4 n brings the error within 10 % of its floor",
        f"at m = {last['m']}, {last['budget']['status']}",
    ]
    jumping = [str(row["m"]) for row in results["predictions"] if row["jumps"]]
    if jumping:
        lines.append(
            f"at m = {', '.join(jumping)} some images have a lower fixed point than the one they"
            " reach: a jump at a larger m"
        )
    if any(row["extrapolated"] for row in results["predictions"]):
        lines.append("some σ lie above the curve's last level, where its slope goes on")
    return "\n".join(lines)


def iterations(rows: list[dict[str, Any]]) -> str:
    """How many the predicted error takes to come within 1 % of its end in sight."""
    counts = [
        next((n for n, error in enumerate(row["error"]) if error <= 1.01 * row["error"][-1]), 0)
        for row in rows
    ]
    few, many = min(counts), max(counts)
    taken = f"{few}" if few == many else f"{few} to {many}"
    return f"message passing is within 1 % of that after {taken} iterations; NPGD ends near it"


REMEDIES = {
    "projector": "P(x) itself: a better prior or projector would help most",
    "measurements": "too few measurements",
    "noise": "the noise",
}
"""The largest part of an error, in words."""


def limits(rows: list[dict[str, Any]]) -> list[str]:
    """The largest part of the error, in ranges of m."""
    named: dict[str, list[str]] = {}
    for row in rows:
        parts = {name: row["budget"]["parts"][name] for name in REMEDIES}
        named.setdefault(max(parts, key=lambda name: parts[name]), []).append(str(row["m"]))
    return [f"at m = {', '.join(ms)} most is due to {REMEDIES[name]}" for name, ms in named.items()]


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Error against m, predicted and (with --check) observed."""
    from matplotlib.figure import Figure

    from npgd.showing import plain_log

    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axis = figure.subplots()
    known = [row for row in rows if math.isfinite(row["fixed_point"])]
    axis.errorbar(
        [row["m"] for row in known],
        [row["fixed_point"] for row in known],
        [row["se"] if math.isfinite(row["se"]) else 0.0 for row in known],
        label="predicted",
    )
    for name, marker in zip(METHODS, "os", strict=True):
        if name in rows[0]:
            errors = [row[name]["error"] for row in rows]
            axis.plot([row["m"] for row in rows], errors, marker, label=name)
    plain_log(axis.yaxis)
    plain_log(axis.xaxis, sorted({row["m"] for row in known}))
    axis.set(xlabel="measurements m", ylabel="error per pixel")
    axis.legend()
    return figure
