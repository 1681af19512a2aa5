"""Theorem 1 is tight: the certified worst case of NPGD, over κ, N, δ and the step size.

Four tables. At η = 1/β, for κ in {1.05, 1.1, …, 1.95}, N = 1 … 5 and δ in {0, 0.01, 0.1}: the
theorem's bound, the value and dual bound of the semidefinite program, and what NPGD reaches on the
instance built from its solution. From κ = 2 on. Where F_0 lies far below its floor, the only place
where the theorem is not tight for κ < 2. And the step size, around 1/β.

    python paper_figures/table_worst_case.py [--workers 2] [--quick] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.performance_estimation import Certificate, certify
from analysis.words import at_least, at_most
from npgd.progress import track

TIGHT = [
    {"kappa": (105 + 5 * i) / 100, "n_iter": n_iter, "delta": delta}
    for i in range(19)
    for n_iter in range(1, 6)
    for delta in (0.0, 0.01, 0.1)
]
BEYOND = [
    {"kappa": kappa, "n_iter": n_iter, "delta": delta}
    for kappa in (2.0, 2.5, 3.0)
    for n_iter in (1, 2, 5, 8)
    for delta in (0.0, 0.1)
]
BELOW = [
    {"kappa": kappa, "n_iter": n_iter, "delta": 0.1}
    for kappa in (1.95, 1.97, 1.99)
    for n_iter in (1, 2, 4, 8)
]
STEPS = [
    {"kappa": kappa, "n_iter": 3, "delta": 0.0, "relative_step": (10 + i) / 20}
    for kappa in (1.2, 1.5, 1.8, 2.5)
    for i in range(21)
]


# How a number is rounded where it is printed: outward, if it is one end of a bracket.
ROUNDED = {"value": at_least, "attained": at_least, "dual_bound": at_most, "induction": at_most}


def solve(case: dict[str, Any]) -> dict[str, Any]:
    """One line: β = 1 and F_0 = 1, so that α = 1/κ."""
    found: Certificate = certify(
        1 / case["kappa"],
        1.0,
        case["n_iter"],
        step_size=case.get("relative_step", 1.0),
        delta=case["delta"],
    )
    program = found.worst_case
    r = case["kappa"] - 1
    return {
        **case,
        "theorem": r ** case["n_iter"] + case["delta"] * sum(r**i for i in range(case["n_iter"])),
        "closed_form": program.closed_form,
        "induction": program.induction_bound,
        "value": program.value,
        "dual_bound": program.dual_bound,
        "attained": found.attained,
        "constants": max(
            abs(found.instance_alpha / program.alpha - 1),
            abs(found.instance_beta / program.beta - 1),
        ),
        "seconds": program.seconds,
    }


def table(title: str, rows: Iterable[dict[str, Any]], columns: list[str]) -> Table:
    shown = Table(title=title)
    for column in columns:
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(*(cell(column, row.get(column)) for column in columns))
    return shown


def cell(column: str, value: float | None) -> str:
    if value is None:
        return "–"
    return ROUNDED[column](value, 8) if column in ROUNDED else f"{value:.8g}"


def summary(rows: list[dict[str, Any]]) -> str:
    """How far the table is from Theorem 1, at worst."""

    def worst(of: Callable[[dict[str, Any]], float]) -> str:
        return at_most(max(map(of, rows)), 2)

    large = [row for row in rows if row["theorem"] > 1e-2]
    small = [row for row in rows if row["theorem"] <= 1e-2]
    relative = max((abs(row["value"] / row["theorem"] - 1) for row in large), default=0.0)
    absolute = max((abs(row["value"] - row["theorem"]) for row in small), default=0.0)
    gaps = [row["dual_bound"] - row["value"] for row in rows]
    share = math.floor(1e7 * min(row["attained"] / row["value"] for row in rows)) / 1e5
    return (
        f"{len(rows)} cases. Value against Theorem 1: at most {at_most(relative, 2)} relative where"
        f" above 0.01, at most {at_most(absolute, 2)} absolute below. Dual bound minus value: at"
        f" least {at_least(min(gaps), 2)}, at most"
        f" {worst(lambda row: (row['dual_bound'] - row['value']) / row['value'])} relative."
        f" Instances: constants to {worst(lambda row: row['constants'])}, NPGD attains"
        f" {share:.5f} % of the value or more."
        f" Slowest program: {max(row['seconds'] for row in rows):.1f} s."
    )


def run(cases: list[dict[str, Any]], pool: Executor) -> list[dict[str, Any]]:
    """Any executor does."""
    solved = pool.map(solve, cases)
    return list(track(solved, len(cases), "worst cases"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--quick", action="store_true", help="every 22nd case")
    parser.add_argument("--json", type=Path, help="write every number there")
    arguments = parser.parse_args()
    console = Console()
    with ProcessPoolExecutor(arguments.workers) as pool:
        tables = {
            name: run(cases[:: 22 if arguments.quick else 1], pool)
            for name, cases in (
                ("tight", TIGHT),
                ("beyond", BEYOND),
                ("below", BELOW),
                ("steps", STEPS),
            )
        }
    numbers = ["theorem", "closed_form", "value", "dual_bound", "attained"]
    for name, title in (
        ("tight", "η = 1/β, κ < 2"),
        ("beyond", "η = 1/β, κ ≥ 2"),
        ("below", "η = 1/β, F_0 far below its floor"),
    ):
        console.print(table(title, tables[name], ["kappa", "n_iter", "delta", *numbers]))
    numbers = ["induction", "value", "dual_bound", "attained"]
    console.print(table("Step size", tables["steps"], ["kappa", "relative_step", *numbers]))
    console.print(summary(tables["tight"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
