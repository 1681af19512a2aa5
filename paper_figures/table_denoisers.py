"""Print what the denoisers remove, and what the methods without a generator recover.

    python paper_figures/table_denoisers.py [--count 300] [--recover 50] [--quick] [--json FILE]

MNIST test digits (NPGD_DATA), float32. First the PSNR of the denoisers under white noise (peak to
peak 2; mean of the images' PSNR). Then mean squared error per pixel, with standard errors, of
Lasso, plug-and-play ADMM and OneNet at their defaults from Gaussian measurements (seed 0) without
noise, and seconds for the batch. The defaults were chosen on training digits.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import npgd
from npgd import images
from npgd.data import mnist

LEVELS = (0.1, 0.3, 1.0)


def psnr(x: torch.Tensor, x_true: torch.Tensor) -> float:
    """Mean over the images of 10 log₁₀(4/MSE)."""
    return float(images.psnr((x - x_true).square().mean((1, 2, 3))).mean())


def methods() -> dict[str, Any]:
    """The solvers, at their defaults."""
    return {
        "Lasso, DCT": npgd.Lasso(transform="dct"),
        "Lasso, wavelet db4": npgd.Lasso(transform="wavelet"),
        "PnP-ADMM, wavelet shrinkage": npgd.PnPADMM(npgd.WaveletShrinkage()),
        "PnP-ADMM, network": npgd.PnPADMM(npgd.load_denoiser("mnist")),
        "OneNet": npgd.OneNet("mnist"),
    }


def measure(count: int, recovered: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """PSNR by denoiser and σ; error, standard error and seconds by method and m."""
    digits = mnist("test", count=count)
    network, wavelets, onenet = (
        npgd.load_denoiser("mnist"),
        npgd.WaveletShrinkage(),
        npgd.load_onenet("mnist"),
    )
    denoised: dict[str, Any] = {}
    for sigma in LEVELS:
        generator = torch.Generator().manual_seed(0)
        w = digits + sigma * torch.randn(digits.shape, generator=generator)
        denoised[f"sigma {sigma:g}"] = {
            "noisy": psnr(w, digits),
            "wavelet shrinkage": psnr(wavelets(w, sigma), digits),
            "network": psnr(network(w, sigma), digits),
            "OneNet's map": psnr(onenet(w), digits),
        }
    x = digits[:recovered]
    errors: dict[str, Any] = {}
    for name, solver in methods().items():
        errors[name] = {}
        for m in sizes:
            A = npgd.Gaussian((1, 28, 28), m=m, seed=0)
            solution = npgd.recover(A, A(x), solver, x_true=x)
            assert solution.error is not None
            last = solution.error[-1]
            errors[name][f"m = {m}"] = {
                "mean": float(last.mean()),
                "se": float(last.std() / len(last) ** 0.5),
                "seconds": float(solution.elapsed[-1]),
                "n_iter": solution.n_iter,
            }
    return {"count": count, "recovered": recovered, "psnr": denoised, "errors": errors}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--recover", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="4 images, one m")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    count, recovered = (4, 4) if arguments.quick else (arguments.count, arguments.recover)
    sizes = (200,) if arguments.quick else (50, 100, 200, 500)
    result = measure(count, recovered, sizes)
    console = Console()
    table = Table("", *result["psnr"], title=f"PSNR in dB, first {count} test digits")
    for name in result["psnr"]["sigma 1"]:
        table.add_row(name, *(f"{row[name]:.2f}" for row in result["psnr"].values()))
    console.print(table)
    title = f"error per pixel ± standard error (seconds), first {recovered} test digits"
    table = Table("", *(f"m = {m}" for m in sizes), title=title)
    for name, row in result["errors"].items():
        cells = (f"{v['mean']:.4f} ± {v['se']:.4f} ({v['seconds']:.1f})" for v in row.values())
        table.add_row(name, *cells)
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
