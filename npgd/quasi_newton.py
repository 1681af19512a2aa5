"""Descent on latents by a quasi-Newton method: min_z ‖A G(z) − y‖² + λ‖z‖².

L-BFGS (Nocedal, Math. Comp. 35, 1980; Liu and Nocedal, Math. Programming 45, 1989), every image
with its own pairs (s_i, q_i) of steps and of changes of the gradient:

    z ← z − t H ∇f(z),    H from γ I, γ = ⟨s, q⟩/‖q‖², by the two-loop recursion.

A step that does not lower the objective is not taken, its length t is cut, and what was learnt of
the curvature is kept all the same; so the objective never rises. One step costs one forward and one
backward pass of G, one A and one Aᵀ: no Jacobian, and memory that does not grow with k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float

from npgd.images import Images, Latents, Measurements, PerImage, inner, squared_norm
from npgd.latent import evaluate
from npgd.operators import LinearOperator
from npgd.sets import Generated

MEMORY = 10  # pairs kept
FIRST = 0.1  # length of the first step, in units of z
CUT = 0.3  # of t, where a step does not lower the objective

Pairs = Float[torch.Tensor, "batch memory k"]


@dataclass(frozen=True, eq=False)
class Descent:
    """Where the searches stand; every tensor runs over the images."""

    z: Latents
    x: Images
    """G(z)."""
    residual: Measurements
    """A G(z) − y."""
    gradient: Latents
    steps: Pairs
    """s_i, the latest last; zero where there is none, or none of positive curvature."""
    changes: Pairs
    """q_i."""
    length: PerImage
    """t."""
    lowered: Bool[torch.Tensor, " batch"]
    """Whether the last step was taken."""

    @classmethod
    def at(
        cls, prior: Generated, z: Latents, y: Measurements, A: LinearOperator, penalty: float
    ) -> Descent:
        """Before the first step."""
        x, residual, gradient = evaluate(prior, z, y, A, penalty)
        return replace(cls.nowhere(z, x, residual), gradient=gradient)

    @classmethod
    def nowhere(cls, z: Latents, x: Images, residual: Measurements) -> Descent:
        """A place for searches that have not begun."""
        none = z.new_zeros(len(z), MEMORY, z.shape[1])
        one = torch.ones_like(residual[:, 0])
        return cls(z, x, residual, torch.zeros_like(z), none, none, one, one > 0)

    def step(self, prior: Generated, y: Measurements, A: LinearOperator, penalty: float) -> Descent:
        """After one more step."""
        z = self.z - self.length[:, None] * self._direction()
        x, residual, gradient = evaluate(prior, z, y, A, penalty)
        before = squared_norm(self.residual) + penalty * squared_norm(self.z)
        lowered = squared_norm(residual) + penalty * squared_norm(z) < before
        s, q = z - self.z, gradient - self.gradient
        # Rounding makes nonsense of a pair that is too short.
        curved = inner(s, q) > torch.finfo(z.dtype).eps * s.norm(dim=1) * q.norm(dim=1)
        useful = (curved & q.isfinite().all(1))[:, None]
        row = lowered[:, None]
        return Descent(
            torch.where(row, z, self.z),
            torch.where(row[..., None, None], x, self.x),
            torch.where(row, residual, self.residual),
            torch.where(row, gradient, self.gradient),
            _pushed(self.steps, torch.where(useful, s, 0.0)),
            _pushed(self.changes, torch.where(useful, q, 0.0)),
            torch.where(lowered, 1.0, CUT * self.length),
            lowered,
        )

    def _direction(self) -> Latents:
        """H ∇f, by the two-loop recursion; before any pair, ∇f scaled to the length FIRST."""
        products = (self.steps * self.changes).sum(2)
        weights = torch.where(products > 0, 1 / products, 0.0)
        q, along = self.gradient, []
        for i in reversed(range(MEMORY)):
            along.append(weights[:, i] * inner(self.steps[:, i], q))
            q = q - along[-1][:, None] * self.changes[:, i]
        sizes = self.changes.square().sum(2)
        last = (products > 0).to(torch.int64).cumsum(1).argmax(1)[:, None]  # the latest pair
        gamma = (products / sizes).gather(1, last)[:, 0]
        first = FIRST / self.gradient.norm(dim=1).clamp_min(torch.finfo(q.dtype).tiny)
        q = torch.where(gamma > 0, gamma, first)[:, None] * q
        for i in range(MEMORY):
            back = weights[:, i] * inner(self.changes[:, i], q)
            q = q + (along[MEMORY - 1 - i] - back)[:, None] * self.steps[:, i]
        return q


def _pushed(pairs: Pairs, newest: Latents) -> Pairs:
    return torch.cat([pairs[:, 1:], newest[:, None]], dim=1)
