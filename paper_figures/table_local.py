"""Local rates against runs: exact projection, the projector that is there, basins, iterations.

    python paper_figures/table_local.py [--prior mnist] [--count 100] [--quick] [--json FILE]

Samples of the prior, without noise, in float64. Three tables.

- Exact projection: the rate from the tangents at x* (`analysis.local_rate`) against the end of a
  run with the nearest point of S, started 10⁻⁴ from x*; three operators, two steps each, 1/λ and
  1.6/λ, λ the largest generalised eigenvalue over the images.
- This projector, as shipped and without corrections: of NPGD's runs that rest, the spectral radius
  at the fixed point (`analysis.fixed_point`) against the end of the run; the period where it
  swings; and the iterations until the latent is within 10⁻⁶ of its limit, predicted from the
  iterate on from which DT foretells the error, against the run's.
- Basins: the shares that move nearer; and how often, of 100 repetitions, all bounds of a curve hold
  together, with ε = 0.1, the true shares being those of 4,000 other draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import analysis
import npgd
from analysis.local.exact import nearest_run
from analysis.local.rest import latent_npgd
from npgd.files import plain
from npgd.precision import converted

ACCURACY = 1e-6
EPSILON = 0.1
STEPS = (1.0, 1.6)
SETTINGS = ((50, 0.6), (100, 0.8), (200, 1.0))
"""m and η of the runs with this projector."""


def operators(prior: Any) -> dict[str, Any]:
    """Three of different kinds, in float64."""
    shape = prior.image_shape
    return {
        "Gaussian, m = 100": npgd.Gaussian(shape, 100).double(),
        "inpainting": npgd.Inpainting(shape, hole=8).double(),
        "super-resolution": npgd.SuperResolution(shape, factor=2).double(),
    }


def exact(
    prior: Any, count: int, most: int, steps: Sequence[float] = STEPS
) -> list[dict[str, Any]]:
    """By operator and step (over 1/λ_max): predicted and observed rates of every image."""
    z = prior.sample_latents(count, seed=5)
    x = prior.generate(z).detach()
    rows = []
    for name, A in operators(prior).items():
        largest = analysis.local_rate(A, prior, x, 1e-3, latents=z).eigenvalues.nan_to_num(0).max()
        for scale in steps:
            step = scale / float(largest)
            local = analysis.local_rate(A, prior, x, step, latents=z)
            push = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(z)
            run = nearest_run(A, prior, z + 1e-4 * push, A(x), step, most)
            seen = analysis.run_rate(run)
            rows.append(
                {
                    "operator": name,
                    "step": step,
                    "predicted": plain(local.rate),
                    "observed": plain(seen.rate),
                }
            )
    return rows


def runs(
    prior: Any, count: int, most: int, settings: Sequence[tuple[int, float]] = SETTINGS
) -> list[dict[str, Any]]:
    """By corrections, m and η: rates, periods and iterations of the runs that rest."""
    shipped = prior.corrections
    rows = []
    for corrections in dict.fromkeys((shipped, 0)):
        prior.corrections = corrections
        found = resting(prior, count, most, settings)
        rows += [row | {"corrections": corrections} for row in found]
    prior.corrections = shipped
    return rows


def resting(
    prior: Any, count: int, most: int, settings: Sequence[tuple[int, float]]
) -> list[dict[str, Any]]:
    """The same of the prior as it is."""
    x = prior.sample(count, seed=5)
    rows = []
    for m, step in settings:
        A = npgd.Gaussian(prior.image_shape, m).double()
        rest = analysis.fixed_point(A, prior, A(x), step, max_iter=most)
        T = latent_npgd(A, prior, A(x), step)
        points = [T.first(T.A.adjoint(T.y))]
        for _ in range(most):
            points.append(T(points[-1]))
            if float((points[-1] - points[-2]).norm(dim=1)[rest.rests].max()) < 1e-12:
                break
        run = torch.stack(points)
        seen = analysis.run_rate(run)
        near = (run - rest.point).norm(dim=2) <= ACCURACY * rest.point.norm(dim=1)
        actual = torch.where(near.any(0), near.int().argmax(0).double(), torch.nan)
        basin = analysis.basin(A, prior, A(x), rest, draws=1, radii=[1e-3])
        rows.append(
            {
                "m": m,
                "step": step,
                "rests": rest.rests.tolist(),
                "outcomes": list(rest.outcomes),
                "predicted": plain(rest.rate),
                "eigenvalue": [str(value) for value in rest.eigenvalue.tolist()],
                "observed": plain(seen.rate),
                "period": plain(rest.period),
                "period_observed": plain(seen.period),
                "iterations": plain(basin.iterations(ACCURACY)),
                "linear_from": plain(basin.linear_from),
                "iterations_observed": plain(actual),
            }
        )
    return rows


def basins(prior: Any, count: int, draws: int) -> dict[str, Any]:
    """The curve, and the run on it."""
    m, step = SETTINGS[1]
    A = npgd.Gaussian(prior.image_shape, m).double()
    y = A(prior.sample(count, seed=5))
    rest = analysis.fixed_point(A, prior, y, step)
    found = analysis.basin(A, prior, y, rest, draws=draws, epsilon=EPSILON, seed=1)
    names = ("radius", "share", "at_least", "factor", "distance", "reach")
    return {"m": m, "step": step, "draws": draws} | {
        name: plain(getattr(found, name)) for name in names
    }


def coverage(prior: Any, count: int, repetitions: int, draws: int) -> dict[str, Any]:
    """How often all bounds of fresh draws hold together, the truth being that of many."""
    m, step = SETTINGS[1]
    A = npgd.Gaussian(prior.image_shape, m).double()
    y = A(prior.sample(count, seed=5))
    rest = analysis.fixed_point(A, prior, y, step)
    radii = analysis.basin(A, prior, y, rest, draws=1, n_iter=1).radius.tolist()[2:]
    settings: dict[str, Any] = {"radii": radii, "epsilon": EPSILON, "n_iter": 1}
    many = analysis.basin(A, prior, y, rest, draws=draws, seed=1, **settings).share
    held = 0
    for seed in range(repetitions):
        fresh = analysis.basin(A, prior, y, rest, draws=60, seed=2 + seed, **settings)
        held += bool((fresh.at_least <= many)[:, rest.rests].all())
    return {
        "epsilon": EPSILON,
        "repetitions": repetitions,
        "held": held,
        "share": plain(many),
        "images": count,
    }


def apart(row: dict[str, Any]) -> torch.Tensor:
    """|predicted − observed| of the images that have both, and rest."""
    predicted, observed = (numbers(row[name]) for name in ("predicted", "observed"))
    kept = torch.tensor(row.get("rests", [True] * len(predicted)))
    off = (predicted - observed).abs()[kept]
    return off.nan_to_num(nan=torch.inf)  # an image without an observed rate counts as a miss


def numbers(values: list[float | None]) -> torch.Tensor:
    """With NaN where JSON has none."""
    return torch.tensor(
        [torch.nan if value is None else value for value in values], dtype=torch.float64
    )


def quantile(values: torch.Tensor, q: float) -> str:
    kept = values[~values.isnan()]
    return f"{float(kept.quantile(q, interpolation='higher')):.2g}" if len(kept) else "–"


def exact_table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title="Exact projection: rate predicted from the tangents, and the run's")
    for column in ("operator", "η", "rate, median", "|difference|, median", "95 %", "≤ 0.005"):
        shown.add_column(column, justify="right")
    for row in rows:
        off = apart(row)
        shown.add_row(
            row["operator"], f"{row['step']:.3g}", quantile(numbers(row["predicted"]), 0.5),
            quantile(off, 0.5), quantile(off, 0.95), share(off <= 0.005),
        )  # fmt: skip
    return shown


def runs_table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title="This projector: spectral radius, and the run's rate; iterations to 10⁻⁶")
    for column in (
        "corrections", "m", "η", "rests",
        "|difference|, median", "95 %", "≤ 0.01", "period off, 95 %",
        "iterations off, median", "95 %", "predicted from, median share of the run",
    ):  # fmt: skip
        shown.add_column(column, justify="right")
    for row in rows:
        kept = torch.tensor(row["rests"])
        off = apart(row)
        period, seen, steps, first, actual = (
            numbers(row[name])[kept]
            for name in (
                "period", "period_observed", "iterations", "linear_from", "iterations_observed",
            )
        )  # fmt: skip
        shown.add_row(
            str(row["corrections"]), str(row["m"]), f"{row['step']:g}",
            f"{int(kept.sum())} of {len(kept)}",
            quantile(off, 0.5), quantile(off, 0.95), share(off <= 0.01),
            quantile((period / seen - 1).abs(), 0.95), quantile((steps / actual - 1).abs(), 0.5),
            quantile((steps / actual - 1).abs(), 0.95), quantile(first / actual, 0.5),
        )  # fmt: skip
    return shown


def share(good: torch.Tensor) -> str:
    return f"{100 * float(good.double().mean()):.0f} %" if len(good) else "–"


def basin_table(found: dict[str, Any], again: dict[str, Any]) -> Table:
    shown = Table(
        title=f"Basins, m = {found['m']}, η = {found['step']:g}: all bounds held together in"
        f" {again['held']} of {again['repetitions']} repetitions (ε = {again['epsilon']:g})"
    )
    for column in ("r", "move nearer, median image", "least image", "factor, median"):
        shown.add_column(column, justify="right")
    for i, r in enumerate(found["radius"]):
        seen, factor = numbers(found["share"][i]), numbers(found["factor"][i])
        kept = seen[~seen.isnan()]
        shown.add_row(f"{r:.3g}", quantile(kept, 0.5), quantile(kept, 0.0), quantile(factor, 0.5))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--count", type=int, default=100, help="samples")
    parser.add_argument(
        "--quick", action="store_true", help="two samples, few iterations, no corrections"
    )
    parser.add_argument("--json", type=Path, help="write every number there")
    arguments = parser.parse_args()
    quick = arguments.quick
    prior = converted(npgd.load_prior(arguments.prior))
    if quick:
        prior.corrections = 0
    count = 2 if quick else arguments.count
    console = Console(width=160)
    results: dict[str, Any] = {"prior": arguments.prior, "count": count}
    results["exact"] = exact(prior, count, 30 if quick else 600, STEPS[:1] if quick else STEPS)
    console.print(exact_table(results["exact"]))
    results["runs"] = runs(prior, count, 40 if quick else 600, SETTINGS[1:2] if quick else SETTINGS)
    console.print(runs_table(results["runs"]))
    results["basins"] = basins(prior, 1 if quick else min(count, 8), 20 if quick else 1000)
    results["coverage"] = coverage(
        prior, 1 if quick else 2, 2 if quick else 100, 20 if quick else 4000
    )
    console.print(basin_table(results["basins"], results["coverage"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
