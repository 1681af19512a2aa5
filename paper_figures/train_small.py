"""Train the small smooth priors, whose constants can be certified, within minutes on a CPU.

    python -m paper_figures.train_small [--latent-dim 2] [--steps 6000] [--output FILE]

G (`npgd.networks.TanhGenerator`) and a small encoder are trained together on the digits of MNIST:

    E‖G(z) − x‖²/n + c E‖G(z + εu) − 2G(z) + G(z − εu)‖²/(ε⁴ n) + M,    z = G†(x),

u uniform on the sphere and ε = 0.25: the second term penalises curvature, at latents z uniform in
the box ±2 on which constants are certified. M keeps the moments of the latents of digits near those
of N(0, I), and their entries in the box. Then the encoder alone learns to project: digits, and
samples under noise of every size, onto the range of G.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import npgd
from npgd import data
from npgd.networks import build
from npgd.networks.architectures import initialise_encoder
from npgd.networks.rectifier import SHARPNESS

BOX = 2.0
STEP = 0.25


def images_of(digits: torch.Tensor, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Some digits."""
    rows = torch.randint(len(digits), (batch,), generator=generator)
    return data.to_pixels(digits[rows])


def curvature(g: nn.Module, z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mean square second difference over pixels, along random unit directions."""
    u = F.normalize(torch.randn(z.shape, generator=generator), dim=1) * STEP
    second = (g(z + u) - 2 * g(z) + g(z - u)) / STEP**2
    return second.square().mean()


def moments(z: torch.Tensor) -> torch.Tensor:
    """How far a batch of latents is from mean 0, covariance I and the box."""
    k = z.shape[1]
    apart = torch.cov(z.T, correction=0).reshape(k, k) - torch.eye(k)
    outside = (z.abs() - BOX).clamp_min(0).square().mean()
    return z.mean(0).square().mean() + apart.square().sum() / k + 10 * outside


def train(options: argparse.Namespace) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Both networks, and how to build them."""
    k, generator = options.latent_dim, torch.Generator().manual_seed(options.seed)
    torch.manual_seed(options.seed)
    architecture: dict[str, dict[str, Any]] = {
        "generator": {
            "name": "TanhGenerator",
            "settings": {"latent_dim": k, "hidden": options.hidden},
        },
        "encoder": {
            "name": "Encoder",
            "settings": {"latent_dim": k, "width": 8, "hidden": 48, "sharpness": SHARPNESS},
        },
    }
    g, encoder = (build(part["name"], part["settings"]) for part in architecture.values())
    initialise_encoder(encoder, generator)
    digits = data.dataset_uint8("mnist", "train")

    def fit(networks: list[nn.Module], steps: int, rate: float, loss: Any, what: str) -> None:
        weights = [w for network in networks for w in network.parameters()]
        adam = torch.optim.AdamW(weights, rate, weight_decay=1e-4)
        plan = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps, pct_start=0.1)
        began = time.monotonic()
        for step in range(steps):
            value, parts = loss()
            adam.zero_grad()
            value.backward()
            adam.step()
            plan.step()
            if step % 500 == 0 or step == steps - 1:
                told = ", ".join(
                    f"{name} {float(part.detach()):.4f}" for name, part in parts.items()
                )
                print(f"{what} {step}: {told} ({time.monotonic() - began:.0f} s)", flush=True)

    def both() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = images_of(digits, options.batch, generator)
        z = encoder(x)
        error = F.mse_loss(g(z), x)
        inside = (2 * torch.rand(len(z), k, generator=generator) - 1) * BOX
        bent, spread = curvature(g, inside, generator), moments(z)
        total = error + options.curvature * bent + 0.05 * spread
        return total, {"error": error, "curvature": bent, "moments": spread}

    def projecting() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = images_of(digits, options.batch // 2, generator)
        inside = (2 * torch.rand(options.batch // 2, k, generator=generator) - 1) * BOX
        with torch.no_grad():
            clean = torch.cat([g(inside), x])
        level = 10 ** (-1.5 + 2 * torch.rand(len(clean), 1, 1, 1, generator=generator))
        w = clean + level * torch.randn(clean.shape, generator=generator)
        error = F.mse_loss(g(encoder(w)), clean)
        return error, {"error": error}

    fit([g, encoder], options.steps, 2e-3, both, "both")
    g.requires_grad_(False)
    fit([encoder], options.steps // 2, 1e-3, projecting, "encoder")
    return g, encoder, architecture


@torch.no_grad()
def measured(prior: npgd.GenerativePrior) -> dict[str, float]:
    """Mean square errors a pixel of the projections of test digits and of samples of the box."""
    x = data.to_pixels(data.dataset_uint8("mnist", "test"))
    u = torch.rand(1000, prior.latent_dim, generator=torch.Generator().manual_seed(1))
    samples = prior.generate((2 * u - 1) * BOX)
    errors = {"projector on test digits": x, "projector on samples of the box": samples}
    found = {name: float((prior.project(w) - w).square().mean()) for name, w in errors.items()}
    return found | {"largest pixel of these samples": float(samples.abs().max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latent-dim", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64, help="features")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--curvature", type=float, default=0.1, help="c")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default runs/mnist-kK/prior.safetensors")
    told = parser.parse_args()
    name = f"mnist-k{told.latent_dim}"
    path = told.output or Path("runs") / name / "prior.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    g, encoder, architecture = train(told)
    prior = npgd.GenerativePrior(
        g, encoder, told.latent_dim, (1, 28, 28), name=name
    ).requires_grad_(False)
    command = f"python -m paper_figures.train_small --latent-dim {told.latent_dim}"
    card = {
        "latent_dim": told.latent_dim,
        "image_shape": list(prior.image_shape),
        "data": "MNIST, the 60,000 training digits (LeCun, Cortes, Burges), pixels in [-1, 1]",
        "licence_of_the_data": "Creative Commons Attribution-Share Alike 3.0, as the authors"
        " state for MNIST",
        "licence_of_the_weights": "MIT",
        "box": [-BOX, BOX],
        "generator_training": {
            "steps": told.steps, "batch": told.batch, "curvature": told.curvature,
            "hidden": told.hidden, "seed": told.seed, "command": command,
        },
        "projector_training": {"steps": told.steps // 2, "batch": told.batch},
        "figures": measured(prior),
    }  # fmt: skip
    npgd.save_prior(prior, path, architecture, card)
    print(f"{name}: written {path}", flush=True)


if __name__ == "__main__":
    main()
