"""A plain public autoencoder as prior: digits recovered with it, by every way of projecting.

    python paper_figures/table_vae.py [--folder vae] [--seeds 3] [--steps 4690] [--quick]

The variational autoencoder of pytorch/examples: rows of 784 pixels in [0, 1], one hidden layer of
400, k = 20, trained on the MNIST training digits for 10 epochs of batches of 128, with Adam at 1e-3
(Kingma and Welling, ICLR 2014). Its encoder was never trained to project. Each of the seeds trains
one and draws one Gaussian A, m = 100. NPGD(prior) finishes on the latent by itself here, since P
misses much, which is printed, too; finish=0 is Algorithm 1. Mean error per pixel of the first
`--count` test digits, with the standard deviation over the seeds; and of samples. Training goes on
where it was interrupted: the folder has its state every 500 steps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import binary_cross_entropy

import npgd
from npgd.data import dataset
from npgd.files import described, read_described, write_atomically
from npgd.progress import track
from npgd.solvers.projecting import missed

SHAPE, K, M = (1, 28, 28), 20, 100
BATCH, EVERY = 128, 500


class VAE(nn.Module):
    """As in pytorch/examples: rows of pixels go in and come out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, K), nn.Linear(400, K)
        self.fc3, self.fc4 = nn.Linear(K, 400), nn.Linear(400, 784)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance."""
        h = self.fc1(x).relu()
        return self.fc21(h), self.fc22(h)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1]."""
        pixels: torch.Tensor = self.fc4(self.fc3(z).relu()).sigmoid()
        return pixels


def prior_of(vae: VAE) -> npgd.GenerativePrior:
    """The prior of an autoencoder that somebody else trained."""
    return npgd.GenerativePrior(
        npgd.as_generator(vae.decode, pixels=(0, 1), image_shape=SHAPE),
        npgd.as_encoder(vae.encode, pixels=(0, 1), output=0, flat=True),
        K,
        SHAPE,
        name="plain autoencoder",
    ).requires_grad_(False)


def trained(seed: int, steps: int, folder: Path) -> VAE:
    """Trained, or what of it is missing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = VAE()
    adam = torch.optim.Adam(vae.parameters(), 1e-3)
    path = folder / f"vae-{seed}.safetensors"
    done = _resumed(path, vae, adam) if path.exists() else 0
    x = (dataset("mnist", "train").flatten(1) + 1) / 2
    for step in track(range(done, steps), max(steps - done, 0), f"autoencoder {seed}"):
        # Of the step alone, so that it does not matter where a run was interrupted.
        generator = torch.Generator().manual_seed(seed * 10**6 + step)
        batch = x[torch.randint(len(x), (BATCH,), generator=generator)]
        mean, log_variance = vae.encode(batch)
        z = mean + torch.randn(mean.shape, generator=generator) * (log_variance / 2).exp()
        fit = binary_cross_entropy(vae.decode(z), batch, reduction="sum")
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        adam.zero_grad()
        (fit + divergence).backward()
        adam.step()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            _keep(path, vae, adam, step + 1)
    return vae


def _keep(path: Path, vae: VAE, adam: torch.optim.Adam, step: int) -> None:
    tensors = dict(vae.state_dict())
    for name, weight in vae.named_parameters():
        tensors |= {f"{name}/{key}": value for key, value in adam.state[weight].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, described(tensors, "autoencoder", {"step": step}))


def _resumed(path: Path, vae: VAE, adam: torch.optim.Adam) -> int:
    description, tensors = read_described(
        path, "autoencoder", lambda description, found: description
    )
    vae.load_state_dict({name: value for name, value in tensors.items() if "/" not in name})
    for name, weight in vae.named_parameters():
        kept = {key.partition("/")[2]: key for key in tensors if key.startswith(f"{name}/")}
        adam.state[weight] = {short: tensors[key] for short, key in kept.items()}
    return int(description["step"])


def solvers(prior: npgd.GenerativePrior) -> dict[str, Any]:
    """Every way, with its defaults, and what is there for an encoder that does not project."""
    return {
        "NPGD(prior)": npgd.NPGD(prior),
        "NPGD(prior, finish=0)": npgd.NPGD(prior, finish=0),
        "NPGD(prior, refine=20)": npgd.NPGD(prior, refine=20),
        "NPGD(LatentRefinement(prior))": npgd.NPGD(npgd.LatentRefinement(prior)),
        "CSGM(prior)": npgd.CSGM(prior),
        "Deviation(prior)": npgd.Deviation(prior),
    }


def measured(seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Mean error per pixel of every way, on test digits and on samples."""
    prior = prior_of(trained(seed, options.steps, options.folder))
    A = npgd.Gaussian(SHAPE, m=M, seed=seed)
    digits = dataset("mnist", "test", count=options.count)
    samples = prior.sample(options.count, seed=seed)
    found: dict[str, dict[str, float]] = {}
    for name, solver in solvers(prior).items():
        found[name] = {
            what: float((npgd.recover(A, A(x), solver).x - x).square().mean())
            for what, x in (("digits", digits), ("samples", samples))
        }
    nearest = npgd.LatentRefinement(prior, steps=20).project(digits)
    found["nearest in the range"] = {"digits": float((nearest - digits).square().mean())}
    found["what P misses (npgd.solvers.projecting.missed)"] = {"samples": missed(prior)}
    return found


def table(rows: list[dict[str, dict[str, float]]]) -> Table:
    shown = Table(title=f"error per pixel, plain autoencoder, k = {K}, m = {M}, {len(rows)} seeds")
    shown.add_column("")
    for column in ("test digits", "samples"):
        shown.add_column(column, justify="right")
    for name in rows[0]:
        cells = []
        for what in ("digits", "samples"):
            values = torch.tensor([row[name].get(what, torch.nan) for row in rows])
            spread = f" ± {float(values.std()):.4f}" if len(rows) > 1 else ""
            cells.append("" if values.isnan().any() else f"{float(values.mean()):.4f}{spread}")
        shown.add_row(name, *cells)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("vae"), help="of the trained weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4690, help="of training")
    parser.add_argument("--count", type=int, default=100, help="images")
    parser.add_argument("--quick", action="store_true", help="one seed, few steps, two images")
    parser.add_argument("--json", type=Path, help="write every number there")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.count = 1, 20, 2
    rows = [measured(seed, options) for seed in range(options.seeds)]
    Console(width=100).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
