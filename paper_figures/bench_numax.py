"""How long NuMax takes, how well its constraints are met, and how far from optimal it stops.

The target is n = 784, 10,000 secants between 4,000 samples of the mnist prior, δ = 0.3, within 5
minutes on 2 cores and with constraints met to 1e-3; Hegde et al. (2015) report 40 minutes for
4,000 points.

    python paper_figures/bench_numax.py [--secants 10000] [--points 4000] [--delta 0.3] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

import analysis
import npgd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--secants", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("--delta", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few secants, few points")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.secants, options.points = 100, 100
    held_out_points = 300 if options.quick else 2000
    tangent_points = 4 if options.quick else 300

    prior = npgd.load_prior("mnist")
    wall, cpu = time.perf_counter(), time.process_time()
    A = analysis.design_numax(
        prior,
        delta=options.delta,
        points=options.points,
        secants=options.secants,
        seed=options.seed,
        progress=not options.quick,
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(A.provenance["status"])
    print(
        f"{wall:.1f} s ({cpu:.1f} s of processor) on {torch.get_num_threads()} threads, load"
        f" average {os.getloadavg()[0]:.1f}; ADMM in float64: {A.provenance['iterations']}"
        f" iterations, {A.provenance['active']:,} active of {options.secants:,} constraints"
    )
    print(
        f"rank {A.m} of n = {A.n}; trace {A.provenance['trace']:.5g}, least possible at least"
        f" {A.provenance['lower_bound']:.5g}; |‖As‖² − 1| up to"
        f" {A.provenance['delta reached']:.5f} for δ = {options.delta:g}"
    )
    rec = analysis.estimate_rec(
        A,
        prior,
        points=held_out_points,
        tangent_points=tangent_points,
        looks=("secants", "tangents"),
        seed=options.seed + 1,
    )
    print(f"κ on its own secants: {A.provenance['kappa on its secants']:.3g}")
    for name, look in rec.looks.items():
        print(f"κ on held-out {name} ({look.n_directions:,} directions): {look.kappa:.3g}")
    if options.json:
        result = {
            **A.provenance,
            "wall seconds": wall,
            "processor seconds": cpu,
            "threads": torch.get_num_threads(),
            "kappa held out": {name: look.kappa for name, look in rec.looks.items()},
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
