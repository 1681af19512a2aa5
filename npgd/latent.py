"""Descent on latents, shared by everything that searches for z: one gradient and one Adam.

All searches share one tensor of latents without meeting: the gradient of a sum of losses, one a
row, and Adam entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float

from npgd import checks
from npgd.images import Images, Latents
from npgd.operators import LinearOperator
from npgd.precision import plainly
from npgd.sets import GENERATED, Generated, needs

Residuals = Float[torch.Tensor, "rows size"]

# Decay of the two moments and the guard against division by zero, as published.
DECAY_1, DECAY_2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, eq=False)
class Adam:
    """Latents of any shape and their moments (Kingma and Ba, ICLR 2015, Algorithm 1)."""

    z: torch.Tensor
    first: torch.Tensor
    """Running mean of the gradients."""
    second: torch.Tensor
    """Running mean of their squares."""
    count: int = 0
    """Steps taken."""

    @classmethod
    def at(cls, z: torch.Tensor) -> Adam:
        """Before the first step."""
        return cls(z, torch.zeros_like(z), torch.zeros_like(z))

    def step(self, gradient: torch.Tensor, rate: float) -> Adam:
        """After one more step of the given learning rate."""
        count = self.count + 1
        first = torch.lerp(gradient, self.first, DECAY_1)
        second = torch.lerp(gradient.square(), self.second, DECAY_2)
        mean = first / (1 - DECAY_1**count)
        scale = (second / (1 - DECAY_2**count)).sqrt() + EPSILON
        return Adam(self.z - rate * mean / scale, first, second, count)


@plainly
def evaluate(
    prior: Generated,
    z: Latents,
    goal: Residuals,
    measure: Callable[[Images], Residuals],
    penalty: float = 0.0,
    rows: int = 1024,
    gradient: bool = True,
) -> tuple[Images, Residuals, Latents]:
    """Images G(z), residuals M(G(z)) − t, and the gradient of ‖M(G(z)) − t‖² + λ‖z‖² in z.

    Weights of the generator receive no gradients.

    Args:
        prior: G, by `generate(z)`.
        z: latents, one a row.
        goal: t, one a row.
        measure: M, for instance an operator A.
        penalty: λ.
        rows: most generator rows in one pass; more rows take more passes, not more memory. A prior
            with `graph_rows` may allow fewer.
        gradient: False saves the backward pass, and returns zeros in its place.
    """
    images, residuals, gradients = [], [], []
    rows = min(rows, getattr(prior, "graph_rows", None) or rows)
    for part, wanted in zip(torch.split(z, rows), torch.split(goal, rows), strict=True):
        with torch.set_grad_enabled(gradient):
            free = part.detach().requires_grad_(gradient)
            image = prior.generate(free)
            residual = measure(image) - wanted
            fit = residual.square().sum()
        # Of an empty batch, where all are at rest, nothing is left to differentiate.
        asked = gradient and len(part) > 0
        found = None
        if asked and fit.requires_grad:
            (found,) = torch.autograd.grad(fit, free, allow_unused=True)
        if asked and found is None:
            raise TypeError(
                f"prior must let gradients through G to be searched, got {type(prior).__name__}"
                " whose images have none (torch.no_grad or detach inside?)"
            )
        images.append(image.detach())
        residuals.append(residual.detach())
        of_fit = torch.zeros_like(part) if found is None else found + 2 * penalty * part
        gradients.append(of_fit)
    return torch.cat(images), torch.cat(residuals), torch.cat(gradients)


def starts(count: int, k: int, seed: int, like: torch.Tensor) -> Latents:
    """Draws of z ~ N(0, I), (count, k): the first of any longer draw with the same seed.

    Drawn in float64 on the CPU and then cast to the dtype and device of `like`.
    """
    generator = checks.seeded(seed)
    count, k = checks.integer(count, "count"), checks.integer(k, "k")
    checks.room(count, "count", count * k)
    checks.room(k, "k", count * k)
    checks.floating(like, "like")
    # One by one: a single larger draw would fill its rows in another order.
    draws = [torch.randn(k, generator=generator, dtype=torch.float64) for _ in range(count)]
    return torch.stack(draws).to(like)


def check_prior(prior: Generated) -> checks.ImageShape:
    """The image shape of a prior one can search in; TypeError says what it lacks."""
    needs(prior, *GENERATED, what="a search among latents")
    return checks.image_shape(prior.image_shape, "prior.image_shape")


def check_fit(prior: Generated, A: LinearOperator, y: torch.Tensor) -> None:
    """Raise unless a prior has the operator's image shape, and y's dtype and device."""
    shape = check_prior(prior)
    if shape != A.image_shape:
        raise ValueError(f"prior must have A's image_shape {A.image_shape}, got {shape}")
    checks.same_kind(y, prior, "y", "prior")
