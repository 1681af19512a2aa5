"""Does an advice keep what it says? Given on some images, followed on others.

    python paper_figures/table_advice.py [--count 12] [--seeds 3] [--json out.json] [--quick]

Eight problems: held-out digits from 100 Gaussian measurements, from 20, with noise, with a hole,
and from half the lines of their Fourier transform; held-out faces from 1,000 measurements and at a
quarter of the resolution; points of an affine set. `analysis.advise` names the change that gains
most on --count images; the change is then made for the next --count images, with another draw of A
where A is drawn, and its gain, in parts of the error without it, stands beside the one promised.
float32, but float64 for the affine set.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import npgd
from analysis import advise, testing
from analysis.words import about
from npgd.data import dataset
from npgd.progress import track

NOISE = 0.5


@dataclass(frozen=True)
class Case:
    """A kind of problem: its prior, its A by seed, its images, and its noise."""

    prior: str
    operator: Callable[[tuple[int, int, int], int], npgd.LinearOperator]
    noise: float = 0.0


def _gaussian(m: int) -> Callable[[tuple[int, int, int], int], npgd.LinearOperator]:
    return lambda shape, seed: npgd.Gaussian(shape, m, seed=seed)


def _fourier(shape: tuple[int, int, int], seed: int) -> npgd.LinearOperator:
    mask = npgd.cartesian_mask(shape, acceleration=2, seed=seed)
    return npgd.Fourier(shape, mask)


CASES = {
    "digits, m = 100": Case("mnist", _gaussian(100)),
    "digits, m = 20": Case("mnist", _gaussian(20)),
    f"digits, m = 100, noise {NOISE:g}": Case("mnist", _gaussian(100), NOISE),
    "digits, hole 10": Case("mnist", lambda shape, _: npgd.Inpainting(shape, hole=10)),
    "digits, half the Fourier lines": Case("mnist", _fourier),
    "faces, m = 1,000": Case("celeba", _gaussian(1000)),
    "faces, ×4": Case("celeba", lambda shape, _: npgd.SuperResolution(shape, 4)),
    "affine set, k = 20, m = 40": Case("affine", _gaussian(40)),
}


def subject(case: Case, count: int) -> tuple[Any, torch.Tensor]:
    """The prior, and twice `count` images."""
    if case.prior == "affine":
        S = testing.random_affine_set((1, 28, 28), 20, seed=0)
        return S, S.sample(2 * count, seed=1)
    prior = npgd.load_prior(case.prior)
    return prior, dataset(case.prior, "test", None, 2 * count)


def followed(case: Case, count: int, seed: int, effort: str) -> dict[str, Any]:
    """The first advice on the first images, and what it does for the others."""
    prior, x = subject(case, count)
    here, there = x[:count], x[count:]
    A, B = (case.operator(prior.image_shape, s).to(x) for s in (2 * seed, 2 * seed + 1))
    advice = advise(A, prior, here, _measured(A, here, case, seed), noise=case.noise,
                    effort=effort, seed=seed)  # fmt: skip
    found = {"error": float(advice.error.mean()), "status": advice.status}
    if not advice.ranked:
        return found
    first = advice.ranked[0]
    again = advise(B, prior, there, _measured(B, there, case, seed), noise=case.noise,
                   effort=effort, seed=seed, only=(first.change.name,))  # fmt: skip
    (trial,) = again.trials
    promised, kept = (_share(each.without, each.error) for each in (first, trial))
    return found | {"advice": first.change.name, "promised": promised, "kept": kept}


def _measured(A: npgd.LinearOperator, x: torch.Tensor, case: Case, seed: int) -> torch.Tensor:
    y = A(x)
    if not case.noise:
        return y
    generator = torch.Generator().manual_seed(seed)
    return y + case.noise * torch.randn(y.shape, generator=generator, dtype=y.dtype)


def _share(before: torch.Tensor, after: torch.Tensor) -> float:
    return 1 - float(after.mean()) / float(before.mean())


def table(results: dict[str, list[dict[str, Any]]]) -> Table:
    """A row for each problem and seed."""
    found = Table(title="gain of the first advice, in parts of the error of NPGD(prior)")
    for name in ("problem", "error", "first advice"):
        found.add_column(name)
    for name in ("promised", "kept", "kept / promised"):
        found.add_column(name, justify="right")
    for name, rows in results.items():
        for row in rows:
            promised, kept = row.get("promised", math.nan), row.get("kept", math.nan)
            told = row.get("advice", row["status"])
            ratio = kept / promised if promised else math.nan
            numbers = (_percent(promised), _percent(kept), about(ratio, 2))
            found.add_row(name, about(row["error"]), told, *numbers)
    return found


def _percent(share: float) -> str:
    """Rounded down."""
    return "–" if math.isnan(share) else f"{math.floor(100 * share)} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="two problems, one seed")
    args = parser.parse_args()
    quick = {name: CASES[name] for name in ("affine set, k = 20, m = 40",)}
    cases = quick if args.quick else CASES
    effort, seeds = ("quick", 1) if args.quick else ("default", args.seeds)
    work = [(name, seed) for name in cases for seed in range(seeds)]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for name, seed in track(work, len(work), "problems"):
        results[name].append(followed(cases[name], args.count, seed, effort))
    Console().print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
