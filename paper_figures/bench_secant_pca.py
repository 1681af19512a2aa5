"""Secant PCA at the size of faces: time, memory, and what m directions capture of all unit secants.

    python paper_figures/bench_secant_pca.py [--data celeba] [--m 200] [--quick] [--json out.json]

Points: the training images and their mirror images (`--data celeba` or `church`, from NPGD_DATA),
or random images whose spectrum falls as that of photographs (`--data random`, the default).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import torch

from analysis.design import design_secant_pca
from npgd.data import dataset


def random_images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """RGB images with amplitude ∝ 1/(1 + frequency)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, side, side, generator=generator)
    u, v = torch.fft.fftfreq(side) * side, torch.fft.rfftfreq(side) * side
    return torch.fft.irfft2(torch.fft.rfft2(noise) / (1 + torch.hypot(u[:, None], v)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", choices=("random", "celeba", "church"), default="random")
    parser.add_argument("--points", type=int, default=20_000, help="at most")
    parser.add_argument("--m", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="300 images of 32 × 32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.points, options.m = 300, 20
    if options.data == "random":
        x = random_images(options.points, 32 if options.quick else 64)
    else:
        x = dataset(options.data, "train")[: -(-options.points // 2)]
        x = torch.cat([x, x.flip(-1)])[: options.points]
    wall, cpu = time.perf_counter(), time.process_time()
    A = design_secant_pca(x, options.m, progress=True)
    result = {
        "data": options.data,
        "n": A.n,
        "m": A.m,
        "points": len(x),
        "secants": A.provenance["secants"],
        "captured": A.provenance["captured"],
        "residual": A.provenance["residual"],
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - cpu,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }
    print(
        f"{A.m} leading directions of {result['secants']:,} unit secants of {len(x):,} images"
        f" ({options.data}), n = {A.n}: {result['seconds']:.0f} s"
        f" ({result['processor_seconds']:.0f} s of processor, {result['threads']} threads, load"
        f" average {result['load']:.1f}), peak memory {result['peak_memory_gib']:.2f} GiB;"
        f" {result['captured']:.2%} of the mean squared length captured"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
