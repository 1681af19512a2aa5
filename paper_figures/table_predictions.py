"""Print what theory predicts beside what happened: state evolution.

    python paper_figures/table_predictions.py [--prior mnist …] [--count 100] [--operators 2]
        [--draws 4] [--json FILE] [--quick]

For held-out images and as many samples of G, Gaussian A without noise, float32. State evolution
from one denoising curve (`analysis.denoising_curve`) against `npgd.AMP`, mean error per pixel over
the images and operators, iteration by iteration: |predicted/observed − 1|. Then its fixed point,
AMP's error and NPGD's (default) at the end. Held-out digits also by the shipped denoiser. Where a
data set is not at hand, samples alone are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import analysis
import npgd
from npgd import data

SIZES = {"mnist": (50, 100, 200, 500), "celeba": (200, 500, 1000, 3000)}
"""m, by prior; a prior of 64×64 images has those of celeba."""
DATASETS = {"mnist": "mnist", "mnist-k100": "mnist", "celeba": "celeba", "church": "church"}
DENOISERS = ("mnist",)
"""Priors with a shipped denoiser of the same images, for which message passing is asked too."""


def sizes(prior: str) -> tuple[int, ...]:
    """The m of a prior."""
    return SIZES["mnist" if prior.startswith("mnist") else "celeba"]


def subjects(name: str, prior: npgd.GenerativePrior, count: int) -> dict[str, torch.Tensor]:
    """The images that are recovered: held-out ones, as far as they are at hand, and samples."""
    found = {}
    with contextlib.suppress(data.DataNotFoundError, KeyError):  # a prior of the user's own
        found["held-out"] = data.dataset(DATASETS[name], "test", None, count)
    return found | {"samples": prior.sample(count, seed=1)}


def predictions(
    S: Any,
    prior: npgd.GenerativePrior,
    x: torch.Tensor,
    ms: tuple[int, ...],
    operators: int,
    draws: int,
    n_iter: int = 12,
) -> dict[str, Any]:
    """Predicted and observed errors, by m, of AMP with S and of NPGD with the prior."""
    curve = analysis.denoising_curve(S, x, draws=draws)
    found: dict[str, Any] = {"curve": curve.to_dict(), "least": analysis.least_measurements(curve)}
    found["by m"] = {}
    for m in ms:
        evolution = analysis.state_evolution(curve, m, n_iter=n_iter)
        amp, npgd_end = [], []
        for seed in range(operators):
            A = npgd.Gaussian(prior.image_shape, m, seed=seed)
            y = A(x)
            run = npgd.recover(A, y, npgd.AMP(S, max_iter=n_iter, tol=0), x_true=x)
            other = npgd.recover(A, y, npgd.NPGD(prior), x_true=x)
            assert run.error is not None and other.error is not None
            amp.append(run.error.mean(1).double())
            npgd_end.append(float(other.error[-1].mean()))
        observed = torch.stack(amp).mean(0)
        deviation = (evolution.error[1:] / observed[1:] - 1).abs()
        found["by m"][m] = {
            "predicted": evolution.error.tolist(),
            "observed": observed.tolist(),
            "deviation": deviation.tolist(),
            "fixed_point": evolution.fixed_point,
            "npgd": sum(npgd_end) / len(npgd_end),
            "npgd_by_operator": npgd_end,
            "amp_by_operator": [float(error[-1]) for error in amp],
        }
    every = [value for row in found["by m"].values() for value in row["deviation"]]
    found["median deviation"] = float(torch.tensor(every).median())
    return found


def print_predictions(console: Console, title: str, found: dict[str, Any]) -> None:
    """One table: a row for every m."""
    table = Table(title=title)
    for column in ("m", "deviation, median", "largest", "fixed point", "AMP", "NPGD", "to NPGD"):
        table.add_column(column, justify="right")
    for m, row in found["by m"].items():
        deviation = torch.tensor(row["deviation"])
        table.add_row(
            str(m),
            f"{100 * float(deviation.median()):.1f} %",
            f"{100 * float(deviation.max()):.1f} %",
            f"{row['fixed_point']:.4f}",
            f"{row['observed'][-1]:.4f}",
            f"{row['npgd']:.4f}",
            f"{100 * (row['fixed_point'] / row['npgd'] - 1):+.1f} %",
        )
    console.print(table)
    console.print(
        f"median over iterations and m: {100 * found['median deviation']:.1f} %; floor within 10 %"
        f" from m = {found['least']} on; curve in {found['curve']['seconds']:.1f} s"
    )


def parser() -> argparse.ArgumentParser:
    """The options."""
    described = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    described.add_argument("--prior", nargs="+", default=["mnist", "celeba", "church"])
    described.add_argument("--m", nargs="+", type=int, help="default: those of the prior")
    described.add_argument("--count", type=int, default=100, help="images of each kind")
    described.add_argument("--operators", type=int, default=2, help="Gaussian A, by seed")
    described.add_argument("--draws", type=int, default=4, help="pairs of noise of the curve")
    described.add_argument("--quick", action="store_true", help="4 digits, one m")
    described.add_argument("--json", type=Path)
    return described


def main() -> None:
    """Measure and print."""
    options = parser().parse_args()
    if options.quick:
        options.prior, options.m = ["mnist"], [100]
        options.count, options.operators, options.draws = 4, 1, 1
    console, results = Console(), {}
    for name in options.prior:
        prior = npgd.load_prior(name)
        for kind, x in subjects(name, prior, options.count).items():
            ms = tuple(options.m or sizes(name))
            maps: dict[str, Any] = {"": prior}
            if name in DENOISERS and kind == "held-out":
                maps[" by the denoiser"] = npgd.load_denoiser(name)
            for how, S in maps.items():
                found = predictions(S, prior, x, ms, options.operators, options.draws)
                print_predictions(console, f"{name}, {len(x)} {kind}{how}", found)
                results[f"{name}, {kind}{how}"] = found
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
