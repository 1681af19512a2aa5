"""How fast the directions are: secants against the machine's matrix products, and tangents.

N^2/2 distinct secants of N points need two symmetric products, N^2 (n + m) operations, so that a
machine with a float32 rate of F operations per second allows F / (2 (n + m)) secants per second.
Here both are measured, in turn, and medians compared; on a busy machine processor time is the
fairer scale, so that is given too.

    python paper_figures/bench_secants.py [--points 20000] [--quick] [--synthetic] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

import npgd
from analysis.rec.secants import all_pairs
from analysis.rec.tangents import tangents
from analysis.tasks import draw_latents, generate, one_thread
from npgd.networks import DCGANGenerator, Encoder

M = 100
PRODUCT = 2048  # rows and columns of the product that measures the machine


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, processor seconds, result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def product_rates(n: int, size: int) -> tuple[float, float]:
    """float32 operations per second, by wall clock and by processor second per core in use.

    Wall: the better of one product on all threads, and one product of its own for every thread.
    """
    threads = torch.get_num_threads()
    pairs = [
        (torch.randn(size, n), torch.randn(n, size), torch.empty(size, size))
        for _ in range(threads)
    ]

    def own(pair: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        with one_thread():
            torch.mm(pair[0], pair[1], out=pair[2])

    operations = 2 * n * size**2
    together, _, _ = timed(lambda: torch.mm(pairs[0][0], pairs[0][1], out=pairs[0][2]))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(own, pairs))  # starts the threads
        apart, cpu, _ = timed(lambda: list(pool.map(own, pairs)))
    torch.set_num_threads(threads)
    return max(operations / together, threads * operations / apart), threads * operations / cpu


def synthetic_prior() -> npgd.GenerativePrior:
    """The mnist prior's architecture with random weights: the same work."""
    torch.manual_seed(0)
    return npgd.GenerativePrior(DCGANGenerator(20), Encoder(20), 20, (1, 28, 28))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--tangent-points", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few points, once")
    parser.add_argument("--synthetic", action="store_true", help="random weights")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.points, options.tangent_points, options.runs = 500, 4, 1
    return options


def main() -> None:
    options = parse()
    size = 256 if options.quick else PRODUCT

    prior = synthetic_prior() if options.synthetic else npgd.load_prior("mnist")
    operator = npgd.Gaussian(prior.image_shape, m=M, seed=0)
    n = operator.n
    z = draw_latents(prior.latent_dim, options.points, seed=0)
    points = generate(prior, z)
    all_pairs(operator, points[:3000])
    product_rates(n, size)
    product, secant = [], []
    for _ in range(options.runs):
        product += [product_rates(n, size) for _ in range(5)]
        wall, cpu, scan = timed(lambda: all_pairs(operator, points))
        secant.append((scan.n_pairs / wall, scan.n_pairs / cpu))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    tangent = timed(lambda: tangents(operator, prior, z[: options.tangent_points]))

    def median(values: list[tuple[float, float]], which: int) -> float:
        return statistics.median(value[which] for value in values)

    result: dict[str, Any] = {
        "points": options.points,
        "n_pairs": scan.n_pairs,
        "n": n,
        "m": M,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "peak_memory_gib": memory,
        "tangent_points": options.tangent_points,
        "tangent_seconds": tangent[0],
        "tangent_processor_seconds": tangent[1],
    }
    for which, clock in ((0, "wall"), (1, "processor")):
        rate, done = median(product, which), median(secant, which)
        allowed = rate / (2 * (n + M))
        result[clock] = {
            "product_gflops": rate / 1e9,
            "secants_per_second_allowed": allowed,
            "secants_per_second": done,
            "fraction": done / allowed,
        }
        print(
            f"{clock:>9} time: products {rate / 1e9:.1f} GF/s allow {allowed / 1e6:.1f} million"
            f" secants/s; measured {done / 1e6:.1f} million, {done / allowed:.0%}"
        )
    print(
        f"{scan.n_pairs:,} secants of {options.points:,} points, peak memory {memory:.2f} GiB;"
        f" tangents at {options.tangent_points:,} points: {tangent[0]:.1f} s"
        f" ({tangent[1]:.1f} s of processor); load average {result['load']:.1f}"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
