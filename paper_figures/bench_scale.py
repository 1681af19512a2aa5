"""Time and peak memory at 256 × 256 × 3 pixels and 512 latents, tangents and what needs them.

A generator and an encoder of DCGAN's kind with random weights (what is measured is the work, not
the numbers), A by structured random rows (`npgd.StructuredRandom`, without a matrix). Each work
runs in a process of its own, whose peak memory less what it held before is printed. Processor
seconds are the fairer scale on a busy machine.

    python paper_figures/bench_scale.py [--memory "2 GB"] [--only tangent …] [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import analysis
import npgd
from analysis.memory import memory_of
from analysis.rec.tangents import tangents
from analysis.tasks import draw_latents

M = 2000  # measurements


def scaled_prior(side: int, k: int, width: int = 16) -> npgd.GenerativePrior:
    """Transposed convolutions from 4 × 4 to side × side, `width` channels at the last but one."""
    torch.manual_seed(0)
    doublings = int(math.log2(side)) - 2
    channels = [min(512, width * 2**i) for i in range(doublings, 0, -1)]
    up: list[nn.Module] = [nn.Linear(k, channels[0] * 16), nn.Unflatten(1, (channels[0], 4, 4))]
    down: list[nn.Module] = [nn.Flatten(), nn.Linear(channels[0] * 16, k)]
    for wide, narrow in zip(channels, [*channels[1:], 3], strict=True):
        up += [nn.Softplus(30), nn.ConvTranspose2d(wide, narrow, 4, 2, 1)]
        down = [nn.Conv2d(narrow, wide, 4, 2, 1), nn.Softplus(30), *down]
    generator, encoder = nn.Sequential(*up, nn.Tanh()), nn.Sequential(*down)
    for layer in (*generator.modules(), *encoder.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan = layer.weight[0].numel() if isinstance(layer, nn.Linear) else 4 * layer.in_channels
            nn.init.normal_(layer.weight, std=1.4 / math.sqrt(fan))
    return npgd.GenerativePrior(generator, encoder, k, (3, side, side)).eval()


def works(side: int, k: int, more: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """What is measured, by name; `more` goes to what takes it."""
    shape, m = (3, side, side), min(M, side**2)
    prior, A = scaled_prior(side, k), npgd.StructuredRandom((3, side, side), m, seed=0)
    z = draw_latents(k, 1, seed=0)
    double = npgd.precision.converted(prior)
    quick = analysis.RecSettings.of("quick", k * 3 * side**2)
    assert A.image_shape == shape
    return {
        "tangent, float32": lambda: tangents(A, prior, z, **more),
        "tangent, float64": lambda: tangents(A, double, z.double(), **more),
        "estimate_rec, quick": lambda: analysis.estimate_rec(
            A, prior, quick, progress=True, **more
        ),
        "design_secant_pca": lambda: analysis.design_secant_pca(
            prior, 100, points=1000, pairs=2000, progress=True, **more
        ),
        "denoising_curve": lambda: analysis.state_evolution(
            analysis.denoising_curve(
                prior, prior.sample(8, seed=1), draws=1, progress=True, **more
            ),
            m,
        ),
        "verify, quick": lambda: analysis.verify(
            A, prior, effort="quick", count=4, progress=True, **more
        ),
    }


def held() -> int:
    """Kilobytes that this process holds now; where the system does not say, the most it has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize() // 1024


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, processor seconds and peak memory of one work in this process."""
    torch.set_num_threads(options.threads)
    more = {"memory": memory_of(options.memory)} if options.memory else {}
    work = works(options.side, options.latents, more)[name]
    before = held()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "work": name,
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - cpu,
        "peak_gb": (peak - before) * 1024 / 1e9,
        "whole_gb": peak * 1024 / 1e9,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--memory", help="bound, as '2 GB'; default: that of each function")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="works whose names begin so")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small images, tangents alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.side, options.latents = 16, 8
        options.only = options.only or ["tangent"]
    return options


def main() -> None:
    options = parse()
    if options.here:
        print(json.dumps(measured(options.here, options)))
        return
    names = list(works(16, 4, {}))
    chosen = [n for n in names if not options.only or n.startswith(tuple(options.only))]
    rows = []
    for name in chosen:
        command = [sys.executable, __file__, "--here", name, "--side", str(options.side)]
        command += ["--latents", str(options.latents), "--threads", str(options.threads)]
        command += ["--memory", options.memory] if options.memory else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        row = rows[-1]
        print(
            f"{name:<20} {row['seconds']:8.1f} s ({row['processor_seconds']:.1f} s of processor),"
            f" {row['peak_gb']:.2f} GB more at its peak, {row['whole_gb']:.2f} GB in all",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
