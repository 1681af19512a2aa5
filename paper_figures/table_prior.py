"""Print the table of figures that a shipped prior is held against.

    python paper_figures/table_prior.py [--prior mnist] [--count 300] [--starts 8] [--steps 500]
        [--projector-only | --m M …] [--brief] [--quick] [--json FILE] [--card]

Mean squared error per pixel on [-1, 1], with standard errors over the images; the first 300
held-out images of the prior's data set (NPGD_DATA), Gaussian A (seed 0), no noise, float32. The
NPGD rows are `npgd.NPGD(prior)`, the default, with its own step and stop; their remarks say what a
fixed step does in 30 iterations from x_0 = Aᵀy where it is the best of a whole grid on the held-out
images themselves. "+ finish" is NPGD(…, finish=40), on top of ten projections, "+ Gauss–Newton"
NPGD(…, refine=3). "principal components" is the best linear code of as many numbers as a latent
has, from the training images. "plain G†" is the encoder without its corrections, as in the paper.

--brief leaves out fixed steps, plain G† and Gauss–Newton; --card writes the figures into the card
beside the prior's weights.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import npgd
from npgd.data import dataset
from npgd.files import write_atomically
from npgd.solvers.choose import STEPS
from npgd.solvers.step_size import common_gain, drawn

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
        "NPGD m = 30": 0.115,
        "NPGD m = 100": 0.037,
        "NPGD m = 300": 0.029,
        "NPGD m = 30, + finish": 0.100,
        "NPGD m = 100, + finish": 0.027,
        "NPGD m = 300, + finish": 0.020,
        "NPGD on samples of G, m = 30": 0.08,
        "NPGD on samples of G, m = 100": 0.010,
    },
    "mnist-k100": {"NPGD m = 300": 0.030},
    "celeba": {
        "projector on samples of G": 0.02,
        "projector on held-out faces / search": 1.15,
        "NPGD m = 1000": 0.023,
    },
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
    step: float | None = None,
    **settings: Any,
) -> torch.Tensor:
    """Final error per pixel of each image without noise; with the run's own step by default."""
    solution = npgd.recover(A, A(x), npgd.NPGD(prior, step, **settings), x_true=x)
    assert solution.error is not None
    return torch.nan_to_num(solution.error[-1], nan=torch.inf)


def best_step(
    prior: npgd.GenerativePrior, A: npgd.LinearOperator, x: torch.Tensor, n_iter: int
) -> tuple[float, float]:
    """The least mean error with a fixed step, and that step, of those of `choose_step_size`."""
    gain = common_gain(A, A(x), drawn(prior))
    steps = [c / gain for c in STEPS]
    return min(
        (float(npgd_error(prior, A, x, step, max_iter=n_iter).mean()), step) for step in steps
    )


def recoveries(
    prior: npgd.GenerativePrior,
    m: int,
    images: torch.Tensor,
    samples: torch.Tensor | None,
    brief: bool,
    quick: bool,
) -> dict[str, Any]:
    """What NPGD makes of m measurements of the images, and of the samples."""
    A, n_iter = npgd.Gaussian(prior.image_shape, m=m, seed=0), 4 if quick else 30
    ends: dict[str, dict[str, int]] = {
        "": {},
        ", + finish": {"finish": 2, "max_iter": 4} if quick else {"finish": 40, "max_iter": 50},
        ", + Gauss–Newton": {"refine": 3, "max_iter": n_iter},
    }
    if brief:
        ends.pop(", + Gauss–Newton")
    result: dict[str, Any] = {}
    for suffix, end in ends.items():
        result[f"NPGD m = {m}{suffix}"] = summary(npgd_error(prior, A, images, **end))
    if not brief:
        best, step = best_step(prior, A, images, n_iter)
        result[f"NPGD m = {m}"] |= {"best": best, "best_step": step}
        if prior.corrections:
            error = npgd_error(uncorrected(prior), A, images)
            result[f"NPGD m = {m}, plain G†"] = summary(error)
    if samples is not None:
        for suffix, end in ends.items():
            error = npgd_error(prior, A, samples, **end)
            result[f"NPGD on samples of G, m = {m}{suffix}"] = summary(error)
    return result


def uncorrected(prior: npgd.GenerativePrior) -> npgd.GenerativePrior:
    """The prior with the encoder alone."""
    return npgd.GenerativePrior(
        prior.generator, prior.encoder, prior.latent_dim, prior.image_shape, prior.name
    )


def measure(
    prior: npgd.GenerativePrior,
    name: str,
    count: int,
    starts: int,
    steps: int,
    quick: bool = False,
    measurements: Sequence[int] | None = None,
    brief: bool = False,
) -> dict[str, Any]:
    """Every figure of the table, as plain numbers; `brief` leaves out what takes longest."""
    data, words, usual = DATA[name]
    measurements = usual if measurements is None else measurements
    images = dataset(data, "test", count=count)
    training = dataset(data, "train", count=200 if quick else None)
    samples = prior.sample(count, seed=1)
    result: dict[str, Any] = {"prior": name, "count": count}
    with torch.no_grad():
        result["projector on samples of G"] = summary(per_pixel(prior.project(samples), samples))
        projected = per_pixel(prior.project(images), images)
    result[f"projector on {words}"] = summary(projected)
    if prior.corrections:
        plain = uncorrected(prior)
        with torch.no_grad():
            for what, x in (("samples of G", samples), (words, images)):
                result[f"projector on {what}, plain G†"] = summary(per_pixel(plain.project(x), x))
    if starts:
        search = npgd.LatentSearch(prior, starts=starts, steps=steps, progress=not quick)
        searched = search.search(images)[1] / images[0].numel()
        result[f"search on {words}"] = {**summary(searched), "starts": starts, "steps": steps}
        result[f"projector on {words} / search"] = {
            "mean": float(projected.mean() / searched.mean())
        }
    linear = principal_components(training, images, prior.latent_dim)
    result[f"principal components, {prior.latent_dim}, on {words}"] = summary(linear)
    for m in measurements[1:2] if quick else measurements:
        result |= recoveries(prior, m, images, samples if m in usual[:2] else None, brief, quick)
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
        if "best" in value:
            remarks = f"best fixed step {value['best_step']:.2f}: {value['best']:.4f}"
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
    parser.add_argument("--starts", type=int, default=8, help="of the search; 0: none")
    parser.add_argument("--steps", type=int, default=500, help="of the search")
    parser.add_argument("--projector-only", action="store_true", help="without the NPGD rows")
    parser.add_argument("--m", nargs="+", type=int, help="of the NPGD rows")
    parser.add_argument("--brief", action="store_true", help="without what takes longest")
    parser.add_argument("--quick", action="store_true", help="4 images, one m, short runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--card", action="store_true", help="write the figures into the card")
    arguments = parser.parse_args()
    prior, count = npgd.load_prior(arguments.prior), arguments.count
    starts, steps = arguments.starts, arguments.steps
    if arguments.quick:
        count, starts, steps = 4, 2, 20
    measurements = () if arguments.projector_only else arguments.m
    result = measure(
        prior, arguments.prior, count, starts, steps, arguments.quick, measurements, arguments.brief
    )
    Console().print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.card:
        write_card(arguments.prior, result)


def write_card(name: str, result: dict[str, Any]) -> None:
    """Put the figures, and the command behind them, into the card beside the prior's weights."""
    path = Path(npgd.__file__).parent / "weights" / f"{name}.json"
    words = [word for word in sys.argv[1:] if word != "--card"]
    command = shlex.join(["python", "paper_figures/table_prior.py", *words])
    card = json.loads(path.read_text()) | {"figures": {"command": command, **result}}
    write_atomically(path, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
