"""Obtuse projectors: the bound beside the worst case, and θ_n and κ_n along runs on digits.

Three tables. At η = 1/β, for κ and θ on a grid and N = 1, 2, 3 steps: the bound on ‖x_N − x*‖²
and the certified bracket of the semidefinite program, from F_0 = 1. The step size, for θ against x*
only and against every point of S. And NPGD on samples of the digits' prior at m = 100: what
`analysis.obtuseness` measures, and for how many runs it explains that the error fell.

    python paper_figures/table_obtuse.py [--quick] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import npgd
from analysis import obtuse_bound, obtuseness, worst_case
from analysis.gram_program import GramProgram
from analysis.obtuse import Obtuseness
from analysis.words import about, at_least, at_most, median
from npgd.progress import track

GRID = [
    {"kappa": kappa, "theta": i / 5, "n_iter": n_iter}
    for kappa in (1.2, 1.5, 2.5, 4.0, 8.0)
    for i in range(6)
    for n_iter in (1, 2, 3)
]
STEPS = [
    {"kappa": kappa, "theta": theta, "n_iter": n_iter, "relative_step": (8 + i) / 10}
    for kappa, theta in ((1.5, 0.3), (4.0, 0.7), (2.5, 1.0))
    for n_iter in (1, 2)
    for i in range(7)
]


def certified(case: dict[str, float]) -> dict[str, Any]:
    """One line: β = 1 and F_0 = 1, so that α = 1/κ and ‖x_0 − x*‖² ≤ κ."""
    kappa, theta, n_iter = case["kappa"], case["theta"], int(case["n_iter"])
    step = case.get("relative_step", 1.0)
    bound = obtuse_bound(1 / kappa, 1.0, theta, step_size=step, everywhere=True)
    program = worst_case(1 / kappa, 1.0, step, n_iter, measure="distance", theta=theta)
    return {
        **case,
        "contracts": bound.contracts,
        "bound": bound.errors(kappa, n_iter)[-1],
        "closed_form": program.closed_form,
        "value": program.value,
        "dual_bound": program.dual_bound,
    }


def against_star(case: dict[str, float]) -> dict[str, float]:
    """The same for projectors that are obtuse against x* only, and exact against the others."""
    kappa, theta, n_iter = case["kappa"], case["theta"], int(case["n_iter"])
    step = case["relative_step"]
    bound = obtuse_bound(1 / kappa, 1.0, theta, step_size=step).errors(kappa, n_iter)
    constants = (1 / kappa, 1.0, step, n_iter, 0.0, 0.0, [value / kappa for value in bound])
    everywhere, nowhere = (GramProgram.of(*constants, angle) for angle in (theta, 0.0))
    rows = tuple(
        row if "| x*" in row.name else other
        for row, other in zip(everywhere.rows, nowhere.rows, strict=True)
    )
    last = np.zeros((n_iter + 1, n_iter + 1))
    last[-1, -1] = 1
    value, _, dual_bound, _ = replace(everywhere, rows=rows).bracket(last, np.zeros_like(last))
    return {"bound_star": bound[-1], "value_star": value, "dual_bound_star": dual_bound}


def measured(count: int, n_iter: int, seeds: int) -> dict[str, Obtuseness]:
    """Noise-free runs on samples at m = 100, by step size."""
    prior = npgd.load_prior("mnist")
    found = {}
    for seed in range(seeds):
        A = npgd.Gaussian(prior.image_shape, m=100, seed=seed)
        x = prior.sample(count, generator=torch.Generator().manual_seed(seed))
        for step in (0.4, 0.8):
            solver = npgd.NPGD(prior, step_size=step, max_iter=n_iter, tol=0.0)
            solution = npgd.recover(A, A(x), solver, record_iterates=True)
            assert solution.iterates is not None
            found[f"η = {step}, A of seed {seed}"] = obtuseness(A, A(x), x, solution.iterates, step)
    return found


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    shown = Table(title=title)
    for column in columns:
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(*row)
    return shown


def of_grid(rows: list[dict[str, Any]]) -> Table:
    return table(
        "η = 1/β: ‖x_N − x*‖² from F_0 = 1",
        ["κ", "θ", "N", "contracts", "bound", "at least", "at most"],
        [
            [
                *(f"{row[name]:g}" for name in ("kappa", "theta", "n_iter")),
                "yes" if row["contracts"] else "no",
                at_most(row["bound"], 7),
                at_least(row["value"], 7),
                at_most(row["dual_bound"], 7),
            ]
            for row in rows
        ],
    )


def of_steps(rows: list[dict[str, Any]]) -> Table:
    names = ("bound_star", "value_star", "bound", "value")
    return table(
        "Step size: bound and worst case, θ against x* only and against all of S",
        ["κ", "θ", "N", "ηβ", "bound, x*", "at least", "bound, S", "at least"],
        [
            [
                *(f"{row[name]:g}" for name in ("kappa", "theta", "n_iter", "relative_step")),
                *(at_most(row[n], 6) if n[0] == "b" else at_least(row[n], 6) for n in names),
            ]
            for row in rows
        ],
    )


def summary(rows: list[dict[str, Any]]) -> str:
    """How far from the worst case the bound is, where it contracts."""
    inside = [row for row in rows if row["contracts"]]
    apart = max((abs(row["value"] / row["bound"] - 1) for row in inside), default=0.0)
    gap = max(((row["dual_bound"] / row["value"] - 1) for row in rows), default=0.0)
    return (
        f"{len(inside)} of {len(rows)} cases contract. There, value against the bound: at most"
        f" {at_most(apart, 2)} relative. Dual bound minus value, everywhere: at most"
        f" {at_most(gap, 2)} relative."
    )


def of_runs(runs: dict[str, Obtuseness]) -> Table:
    rows = []
    for name, found in runs.items():
        for image in range(len(found.alpha)):
            theta, kappa = (c[found.start :, image] for c in (found.theta, found.kappa))
            rows.append(
                [
                    name,
                    str(image),
                    about(median(theta)),
                    about(float(theta.nan_to_num(nan=torch.inf).min())),
                    about(median(kappa)),
                    about(float(found.beta[image] / found.alpha[image])),
                    about(float(found.error[found.start, image])),
                    about(float(found.error[-1, image])),
                    at_most(float(found.floor[image])),
                    "yes" if found.explained[image] else "no",
                ]
            )
    columns = ["run", "image", "θ_n median", "least", "κ_n median", "κ of run"]
    columns += ["‖e_1‖²", "‖e_N‖²", "floor", "explained"]
    return table("NPGD on samples, m = 100", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few cases and two images")
    parser.add_argument("--json", type=Path, help="write every number there")
    arguments = parser.parse_args()
    console, every = Console(), 17 if arguments.quick else 1
    grid = [certified(case) for case in track(GRID[::every], len(GRID[::every]), "θ and κ")]
    steps = [
        {**certified(case), **against_star(case)}
        for case in track(STEPS[::every], len(STEPS[::every]), "step sizes")
    ]
    runs = measured(*((2, 5, 1) if arguments.quick else (16, 30, 3)))
    console.print(of_grid(grid), summary(grid), of_steps(steps), of_runs(runs))
    for name, found in runs.items():
        console.print(f"{name}: {found}")
    if arguments.json:
        numbers = {name: found.to_dict() for name, found in runs.items()}
        arguments.json.write_text(json.dumps({"grid": grid, "steps": steps, "runs": numbers}))


if __name__ == "__main__":
    main()
