"""Proofs of convergence: how many resting runs are proved, on which balls, and what is in the way.

    python paper_figures/table_proofs.py [--prior mnist] [--count 100] [--seed 0] [--quick]
        [--json FILE]

Samples of the prior, Gaussian A, without noise (`analysis.prove_convergence`). For every run that
rests: the radius r of the largest ball proved, the factor q on it, the distance of the limit, and
the seconds it took. Beside r stands what sampling sees: the largest radius of a grid at which the
sampled ‖DT‖_W at points of the sphere is below 1, W the same; and q against the largest sampled
‖DT‖_W in the ball proved, which it must not lie below. The parts of q at that radius: ‖DT(ẑ)‖_W,
the second derivative, and the bound of the rest. With `--quick` without corrections.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import analysis
import npgd
from analysis.local.rest import latent_npgd
from analysis.proofs import networks
from analysis.words import about, at_least, at_most, median
from npgd.files import plain
from npgd.precision import converted
from npgd.progress import track

M, STEP = 100, 0.8
RADII = tuple(10 ** (-0.5 * i) for i in range(1, 6))
"""Of the spheres that are sampled, descending."""


def steepest(
    T: Any, centre: torch.Tensor, shape: torch.Tensor, r: float, draws: int, seed: int
) -> float:
    """The largest of ‖DT‖_W at points of the sphere of radius r, seen."""
    g = torch.randn(
        draws, len(shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    z = centre + r * (g / g.norm(dim=1, keepdim=True)) @ shape.T
    T.y = T.y[:1].repeat(draws, 1)
    directions = shape.T[:, None].repeat(1, draws, 1)
    turned = T.push(z, directions).permute(1, 2, 0)
    return float(torch.linalg.matrix_norm(torch.linalg.inv(shape) @ turned, 2).max())


def proofs(prior: Any, count: int, most: int, draws: int, seed: int = 0) -> dict[str, Any]:
    """Of the runs that rest: what is proved, and what is seen."""
    x = prior.sample(count, seed=5 + seed)
    A = npgd.Gaussian(prior.image_shape, M, seed=seed).double()
    y = A(x)
    rest = analysis.fixed_point(A, prior, y, STEP, max_iter=most)
    resting = rest.rests.nonzero().flatten().tolist()
    rows = []
    for i in track(resting, len(resting), "proofs"):
        start, busy = time.perf_counter(), time.process_time()
        proof = analysis.prove_convergence(A, prior, y[i : i + 1], rest[i : i + 1])
        row = {"image": i, "rate": float(rest.rate[i]), "seconds": time.perf_counter() - start}
        row["core_seconds"] = time.process_time() - busy
        row |= {
            name: plain(getattr(proof, name))[0]
            for name in ("radius", "factor", "move", "distance", "inside", "image_error")
        }
        if bool(proof.proved[0]):
            T = latent_npgd(A, prior, y[i : i + 1], STEP)
            ball = (T, proof.centre, proof.shape[0])
            row["sampled_radius"] = next(
                (r for r in RADII if steepest(*ball, r, draws, i) < 1), 0.0
            )
            row["sampled_factor"] = steepest(*ball, row["radius"], draws, i)
        rows.append(row)
    return {"m": M, "step": STEP, "count": count, "rests": len(resting), "images": rows}


def table(found: dict[str, Any]) -> Table:
    images = found["images"]
    proved = [row for row in images if row["radius"] > 0]
    shown = Table(
        title=f"m = {found['m']}, η = {found['step']:g}: {found['rests']} of {found['count']} runs"
        f" rest, {len(proved)} of these proved, {sum(r['radius'] >= 1e-5 for r in proved)} with"
        " r ≥ 1e-5"
    )
    for column in ("of the proved", "least", "median", "largest"):
        shown.add_column(column, justify="right")
    for name, title in (
        ("rate", "spectral radius at the centre"),
        ("radius", "r proved, norm of W"),
        ("inside", "r proved, Euclidean"),
        ("sampled_radius", "r at which the sampled ‖DT‖_W is below 1"),
        ("factor", "q"),
        ("sampled_factor", "sampled ‖DT‖_W at that r"),
        ("distance", "‖ẑ − z̄‖_W, at most"),
        ("image_error", "‖x̂ − G(z̄)‖, at most"),
        ("seconds", "seconds"),
        ("core_seconds", "seconds of a core"),
    ):
        values = torch.tensor([row[name] for row in proved], dtype=torch.float64)
        if len(values):
            least, most = float(values.min()), float(values.max())
            shown.add_row(title, at_least(least), about(median(values)), at_most(most))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--count", type=int, default=100, help="samples")
    parser.add_argument("--seed", type=int, default=0, help="of A, and, 5 on, of the samples")
    parser.add_argument(
        "--quick", action="store_true", help="one sample, few iterations, no corrections"
    )
    parser.add_argument("--json", type=Path, help="write every number there")
    arguments = parser.parse_args()
    prior = converted(npgd.load_prior(arguments.prior))
    if arguments.quick:
        prior.corrections = 0
        networks.NARROW = 20
    count = 1 if arguments.quick else arguments.count
    most, draws = (60, 2) if arguments.quick else (500, 10)
    found = proofs(prior, count, most, draws, arguments.seed)
    Console(width=120).print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
