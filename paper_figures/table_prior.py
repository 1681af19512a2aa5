"""Print the table of figures that a shipped prior is held against.

    python paper_figures/table_prior.py [--prior mnist] [--count 300] [--starts 8] [--steps 500]
        [--projector-only] [--quick] [--json FILE]

Mean squared error per pixel on [-1, 1], with standard errors over the images; the first 300
held-out images of the prior's data set (NPGD_DATA), Gaussian A (seed 0), 30 iterations from
x_0 = Aᵀy, no noise, float32. The step of the NPGD rows is chosen on the first 64 training images,
never on held-out ones; "auto" is chosen on samples of G. "best step" is the best of the whole grid
on the held-out images themselves, and says what the choice costs. "+ Gauss–Newton" is
NPGD(…, refine=3): three of the 30 iterations are latent steps on the measurements. "principal
components" is the best linear code of as many numbers as a latent has, from the training images.
"plain G†" is the encoder without its corrections, as in the paper.
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
from npgd.data import dataset
from npgd.solvers.npgd import STEPS

# A prior's data set, what its held-out images are called, and the m of the NPGD rows.
DATA = {
    "mnist": ("mnist", "test digits", (30, 100, 300)),
    "mnist-k100": ("mnist", "test digits", (30, 100, 300)),
    "celeba": ("celeba", "held-out faces", (300, 1000, 3000)),
    "church": ("church", "held-out churches", (300, 1000, 3000)),
}
# What they were to reach.
TARGETS = {
    "mnist": {
        "projector on samples of G": 0.005,
        "search on test digits": 0.030,
        "projector on test digits / search": 1.4,
        "NPGD m = 30": 0.13,
        "NPGD m = 100": 0.055,
        "NPGD m = 300": 0.045,
        "NPGD on samples of G, m = 100": 0.012,
    },
    "celeba": {"projector on samples of G": 0.02},
    "church": {"projector on samples of G": 0.02},
}


def per_pixel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared error per pixel of each image."""
    return (a - b).square().flatten(1).mean(1)


def summary(errors: torch.Tensor) -> dict[str, float]:
    """Mean and standard error over images."""
    return {"mean": float(errors.mean()), "se": float(errors.std() / len(errors) ** 0.5)}


def principal_components(train: torch.Tensor, images: torch.Tensor, k: int) -> torch.Tensor:
    """What the best linear code of k numbers leaves of each image, per pixel."""
    torch.manual_seed(0)  # pca_lowrank draws from the global generator
    mean = train.mean(dim=0)
    basis = torch.pca_lowrank((train - mean).flatten(1), q=k + 20, center=False, niter=3)[2][:, :k]
    centred = (images - mean).flatten(1)
    return (centred - (centred @ basis) @ basis.T).square().mean(dim=1)


def npgd_error(
    prior: npgd.GenerativePrior,
    A: npgd.LinearOperator,
    x: torch.Tensor,
    step: float,
    n_iter: int,
    refine: int = 0,
) -> torch.Tensor:
    """Final error per pixel of each image after `n_iter` iterations without noise."""
    solver = npgd.NPGD(prior, step, refine=refine, max_iter=n_iter)
    solution = npgd.recover(A, A(x), solver, x_true=x)
    assert solution.error is not None
    return torch.nan_to_num(solution.error[-1], nan=torch.inf)


def measure(
    prior: npgd.GenerativePrior,
    name: str,
    count: int,
    starts: int,
    steps: int,
    quick: bool = False,
    projector_only: bool = False,
) -> dict[str, Any]:
    """Every figure of the table, as plain numbers."""
    data, words, measurements = DATA[name]
    images = dataset(data, "test", count=count)
    training, n_iter = dataset(data, "train", count=200 if quick else None), 4 if quick else 30
    choosing = training[: 4 if quick else 64]
    samples = prior.sample(count, seed=1)
    result: dict[str, Any] = {"prior": name, "count": count}
    with torch.no_grad():
        result["projector on samples of G"] = summary(per_pixel(prior.project(samples), samples))
        projected = per_pixel(prior.project(images), images)
    result[f"projector on {words}"] = summary(projected)
    plain = npgd.GenerativePrior(
        prior.generator, prior.encoder, prior.latent_dim, prior.image_shape, prior.name
    )
    if prior.corrections:
        with torch.no_grad():
            for what, x in (("samples of G", samples), (words, images)):
                result[f"projector on {what}, plain G†"] = summary(per_pixel(plain.project(x), x))
    search = npgd.LatentSearch(prior, starts=starts, steps=steps, progress=not quick)
    searched = search.search(images)[1] / images[0].numel()
    result[f"search on {words}"] = {**summary(searched), "starts": starts, "steps": steps}
    result[f"projector on {words} / search"] = {"mean": float(projected.mean() / searched.mean())}
    linear = principal_components(training, images, prior.latent_dim)
    result[f"principal components, {prior.latent_dim}, on {words}"] = summary(linear)
    measured = measurements[1:2] if quick else measurements
    for m in () if projector_only else measured:
        A = npgd.Gaussian(prior.image_shape, m=m, seed=0)
        auto = npgd.choose_step_size(A, prior, count=4 if quick else 32, max_iter=n_iter)
        chosen = npgd.choose_step_size(A, prior, images=choosing, max_iter=n_iter)
        best = min(
            (float(npgd_error(prior, A, images, c * auto, n_iter).mean()), c * auto)
            for c in (s / STEPS[6] for s in STEPS)
        )
        result[f"NPGD m = {m}"] = {
            **summary(npgd_error(prior, A, images, chosen, n_iter)),
            "step": chosen,
            "auto": float(npgd_error(prior, A, images, auto, n_iter).mean()),
            "auto_step": auto,
            "best": best[0],
            "best_step": best[1],
        }
        if prior.corrections:
            uncorrected = npgd.choose_step_size(A, plain, images=choosing, max_iter=n_iter)
            error = npgd_error(plain, A, images, uncorrected, n_iter)
            result[f"NPGD m = {m}, plain G†"] = {**summary(error), "step": uncorrected}
        error = npgd_error(prior, A, images, chosen, n_iter, refine=3)
        result[f"NPGD m = {m}, + Gauss–Newton"] = {**summary(error), "step": chosen}
        if m == measurements[1]:
            for suffix, refine in (("", 0), (", + Gauss–Newton", 3)):
                error = npgd_error(prior, A, samples, auto, n_iter, refine)
                result[f"NPGD on samples of G, m = {m}{suffix}"] = {**summary(error), "step": auto}
    return result


def table(result: dict[str, Any]) -> Table:
    """The figures beside what was to be reached."""
    out = Table(title=f"prior {result['prior']}, {result['count']} images")
    for column in ("", "measured", "standard error", "to reach", "reached", "remarks"):
        out.add_column(column, justify="left" if column in ("", "remarks") else "right")
    for name, value in result.items():
        if not isinstance(value, dict):
            continue
        target = TARGETS.get(result["prior"], {}).get(name)
        remarks = ""
        if "auto" in value:
            remarks = (
                f"step {value['step']:.2f} chosen on training images; "
                f"auto {value['auto_step']:.2f}: {value['auto']:.4f}; "
                f"best step {value['best_step']:.2f}: {value['best']:.4f}"
            )
        elif "step" in value:
            remarks = f"step {value['step']:.2f}"
        elif "starts" in value:
            remarks = f"{value['starts']} starts, {value['steps']} Adam steps"
        out.add_row(
            name,
            f"{value['mean']:.4f}",
            f"{value['se']:.4f}" if "se" in value else "",
            f"≤ {target:g}" if target else "",
            ("yes" if value["mean"] <= target else "no") if target else "",
            remarks,
        )
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="mnist", choices=DATA)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--starts", type=int, default=8, help="of the search")
    parser.add_argument("--steps", type=int, default=500, help="of the search")
    parser.add_argument("--projector-only", action="store_true", help="without the NPGD rows")
    parser.add_argument("--quick", action="store_true", help="4 images, one m, short runs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prior, count = npgd.load_prior(arguments.prior), arguments.count
    starts, steps = arguments.starts, arguments.steps
    if arguments.quick:
        count, starts, steps = 4, 2, 20
    result = measure(
        prior, arguments.prior, count, starts, steps, arguments.quick, arguments.projector_only
    )
    Console().print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
