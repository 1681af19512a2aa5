"""Hold recovery, constants, predictions and training on another device against the CPU.

    python tests/devices.py cuda

The same problem, with the same draws, on both: NPGD, AMP and CSGM in float64, `estimate_rec`,
`projection_error`, `denoising_curve` with state evolution, and a denoiser's first training steps in
float32. Prints the largest relative difference of each, and ends with status 1 where one is larger
than rounding explains. Takes seconds, and no data.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import analysis
import npgd
from npgd.training import DenoiserConfig, train_denoiser

EXACT, SINGLE = 1e-6, 2e-2
"""Largest relative differences: in float64 after iterations, in float32 after training steps."""


def compared(device: str, prior: Any, m: int) -> Iterator[tuple[str, float, float]]:
    """(what, relative difference, the largest that is allowed) of everything that is compared."""
    prior = copy.deepcopy(prior).to(torch.float64)
    A = npgd.Gaussian(prior.image_shape, m=m, seed=0, dtype=torch.float64)
    x = prior.sample(3, generator=torch.Generator().manual_seed(1))
    there = (copy.deepcopy(prior).to(device), copy.deepcopy(A).to(device), x.to(device))
    both = [(prior, A, x), there]
    solvers = {
        "NPGD": lambda P: npgd.NPGD(P, max_iter=5),
        "AMP": lambda P: npgd.AMP(P, max_iter=5),
        "CSGM": lambda P: npgd.CSGM(P, restarts=2, max_iter=5),
    }
    for name, solver in solvers.items():
        found = [npgd.recover(B, B(w), solver(P)).x.cpu() for P, B, w in both]
        yield f"recover, {name}", _apart(*found), EXACT
    settings: dict[str, Any] = {"points": 100, "tangent_points": 4, "search_starts": 2}
    recs = [analysis.estimate_rec(B, P, search_steps=3, **settings) for P, B, _ in both]
    constants = [torch.tensor([rec.alpha, rec.beta]) for rec in recs]
    yield "estimate_rec", _apart(*constants), EXACT
    errors = [
        analysis.projection_error(P, w + 0.1, starts=2, steps=3, seed=0).deltas for P, _, w in both
    ]
    yield "projection_error", _apart(*errors), EXACT
    curves = [analysis.denoising_curve(P, w, draws=1) for P, _, w in both]
    ends = [
        torch.tensor(analysis.state_evolution(curve, m, noise=0.1).fixed_point) for curve in curves
    ]
    yield "denoising_curve", _apart(curves[0].by_image, curves[1].by_image), EXACT
    yield "state_evolution", _apart(*ends), EXACT
    yield "training", _apart(_trained("cpu"), _trained(device)), SINGLE


def _apart(here: torch.Tensor, there: torch.Tensor) -> float:
    """‖here − there‖/‖here‖; infinite where one is not finite."""
    difference = (here.double() - there.double()).norm() / here.double().norm()
    return float(difference.nan_to_num(nan=torch.inf))


def _trained(device: str) -> torch.Tensor:
    """A test image denoised after ten steps of training."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 1, 28, 28), generator=generator, dtype=torch.uint8)
    config = DenoiserConfig(width=2, levels=1, steps=10, batch_size=8, average=0.5)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_denoiser(images, Path(folder) / "run", config, device=device)
    noisy = torch.randn(4, 1, 28, 28, generator=generator).to(device)
    with torch.no_grad():
        network = trained.to(device)
        return network(noisy, torch.full((4,), 0.5, device=device)).cpu()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("device", help="cuda, cuda:1, …; cpu compares the CPU with itself")
    device = parser.parse_args().device
    far = 0
    for what, difference, allowed in compared(device, npgd.load_prior("mnist"), m=100):
        ok = difference <= allowed
        far += not ok
        word = "agrees" if ok else "DIFFERS"
        print(f"{what:<18} {word}: {difference:.1e} apart, {allowed:.0e} allowed", flush=True)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
