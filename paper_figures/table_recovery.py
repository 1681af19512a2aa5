"""Print what users get from NPGD's defaults: errors, iterations, seconds, and CSGM beside it.

    python paper_figures/table_recovery.py [--prior mnist] [--m 20 30 50 100 200 300 500]
        [--seeds 5] [--count 300] [--finish 40] [--no-refine] [--samples] [--rivals CSGM]
        [--rival-count 12] [--json FILE] [--quick]

Gaussian A, float32, no noise. Errors are mean squared errors per pixel on [-1, 1] over the first
`--count` test images (NPGD_DATA), or as many samples of G with `--samples`, and over the seeds of
A, with the standard error over seeds. Rows: `NPGD(prior)`, the default; the same with
`finish=--finish`, on top of ten projections; the same with `refine=3`, unless `--no-refine`.
Iterations are the median over images until each was done. Seconds are of a whole run of
`--rival-count` images, the solver's own clock with all it prepares, the least of three.

`--rivals` adds, for seed 0 and `--rival-count` images, rivals at their authors' settings: their
error at the end, and how long they need, over NPGD's and the finished run's whole time, to come
within 5 % of the error of that run; "> …" where they never do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import npgd
from npgd.data import dataset, mnist
from npgd.files import write_atomically
from npgd.solvers import Solution, Solver

NEAR = 1.05
PROJECTIONS = 10  # of a run with a finish, at most
RIVALS: dict[str, Callable[[npgd.GenerativePrior], Solver[Any]]] = {
    "CSGM": npgd.CSGM,
    "PGD-GAN": npgd.PGDGAN,
}


def runs(prior: npgd.GenerativePrior, options: argparse.Namespace) -> dict[str, npgd.NPGD]:
    """NPGD as users get it."""
    finish = options.finish
    found = {
        "NPGD": npgd.NPGD(prior),
        f"finish={finish}": npgd.NPGD(prior, finish=finish, max_iter=PROJECTIONS + finish),
    }
    return found if options.no_refine else found | {"refine=3": npgd.NPGD(prior, refine=3)}


def test_images(prior: npgd.GenerativePrior, options: argparse.Namespace) -> torch.Tensor:
    if options.samples:
        return prior.sample(options.count, seed=1)
    if prior.image_shape == (1, 28, 28):
        return mnist("test", count=options.count)
    return dataset(options.data or options.prior, "test", count=options.count)


def errors(
    prior: npgd.GenerativePrior, solver: npgd.NPGD, x: torch.Tensor, m: int, seeds: int
) -> dict[str, Any]:
    """Mean error for each seed, the median of the iterations, and how the images ended."""
    means, iterations, ends = [], [], dict.fromkeys(("converged", "settled"), 0)
    for seed in range(seeds):
        A = npgd.Gaussian(prior.image_shape, m, seed=seed)
        solution = npgd.recover(A, A(x), solver, x_true=x)
        assert solution.error is not None
        means.append(float(solution.error[-1].mean()))
        iterations += solution.iterations.tolist()
        for outcome in solution.outcomes:
            ends[outcome] = ends.get(outcome, 0) + 1
    return {
        "error": statistics.fmean(means),
        "se": statistics.stdev(means) / seeds**0.5 if seeds > 1 else 0.0,
        "iterations": statistics.median(iterations),
        "outcomes": ends,
    }


def timed(A: npgd.LinearOperator, x: torch.Tensor, solver: Solver[Any]) -> Solution:
    """The fastest of three runs."""
    y = A(x)
    tries = [npgd.recover(A, y, solver, x_true=x) for _ in range(3)]
    return min(tries, key=lambda solution: float(solution.elapsed[-1]))


def against(
    prior: npgd.GenerativePrior, m: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rivals' errors and times over those of each run, for one A."""
    A, x = npgd.Gaussian(prior.image_shape, m, seed=0), test_images(prior, options)
    x = x[: options.rival_count]
    ours = {name: timed(A, x, solver) for name, solver in runs(prior, options).items()}
    cells = []
    for rival in options.rivals:
        solver = RIVALS[rival](prior)
        if options.quick:
            solver = dataclasses.replace(solver, max_iter=2)
        theirs = npgd.recover(A, A(x), solver, x_true=x)
        assert theirs.error is not None
        for name, run in ours.items():
            assert run.error is not None
            goal, seconds = float(run.error[-1].mean()), float(run.elapsed[-1])
            reached = theirs.time_to(NEAR * goal)
            spent = float(theirs.elapsed[-1]) if reached is None else reached
            cells.append(
                {
                    "m": m,
                    "rival": rival,
                    "run": name,
                    "error": goal,
                    "seconds": seconds,
                    "rival_error": float(theirs.error[-1].mean()),
                    "rival_seconds": float(theirs.elapsed[-1]),
                    "ratio": spent / seconds,
                    "reached": reached is not None,
                }
            )
    return cells


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Every cell, with a line as it is done."""
    prior = npgd.load_prior(options.prior)
    x = test_images(prior, options)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "errors": [], "rivals": []}
    for m in options.m:
        for name, solver in runs(prior, options).items():
            cell = {"m": m, "run": name, **errors(prior, solver, x, m, options.seeds)}
            result["errors"].append(cell)
            console.print(f"m = {m}, {name}: {cell['error']:.4f} ± {cell['se']:.4f}")
        if options.rivals:
            result["rivals"] += against(prior, m, options)
    return result


def tables(result: dict[str, Any], title: str) -> list[Table]:
    """Errors, and the rivals."""
    first = Table("m", "run", "error", "median iterations", "outcomes", title=title)
    for cell in result["errors"]:
        ends = ", ".join(f"{count} {end}" for end, count in cell["outcomes"].items() if count)
        error = f"{cell['error']:.4f} ± {cell['se']:.4f}"
        first.add_row(str(cell["m"]), cell["run"], error, f"{cell['iterations']:g}", ends)
    if not result["rivals"]:
        return [first]
    second = Table("m", "run", "error", "s", "rival", "its error", "its s", "times to within 5 %")
    for cell in result["rivals"]:
        second.add_row(
            str(cell["m"]),
            cell["run"],
            f"{cell['error']:.4f}",
            f"{cell['seconds']:.3g}",
            cell["rival"],
            f"{cell['rival_error']:.4f}",
            f"{cell['rival_seconds']:.3g}",
            f"{'' if cell['reached'] else '> '}{cell['ratio']:.3g}",
        )
    return [first, second]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--data", help="dataset of a prior that is not of digits")
    parser.add_argument("--m", nargs="+", type=int, default=[20, 30, 50, 100, 200, 300, 500])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--finish", type=int, default=40)
    parser.add_argument("--no-refine", action="store_true", help="without refine=3")
    parser.add_argument("--samples", action="store_true", help="of G, in place of test images")
    parser.add_argument("--rivals", nargs="*", choices=list(RIVALS), default=[])
    parser.add_argument("--rival-count", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="2 images, one seed")
    options = parser.parse_args()
    if options.quick:
        options.m, options.seeds, options.count, options.rivals = [50], 1, 2, ["CSGM"]
    console = Console(width=140)
    result = measure(options, console)
    kind = "samples of G" if options.samples else "test images"
    title = f"{options.prior}, {options.count} {kind}, mean over {options.seeds} seeds of A"
    for table in tables(result, title):
        console.print(table)
    if options.json:
        write_atomically(options.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
