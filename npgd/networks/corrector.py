"""A learned gradient step on ‖w − G(z)‖², which corrects the encoder's latent.

The encoder G† sees w alone and cannot know how far its answer G(G†(w)) is from w. A corrector sees
the residual, through the only directions of it that matter: g = J(z)ᵀ(w − G(z)), J the Jacobian of
G at z, one backward pass of G. With ρ the residual's root mean square and u = (w − G(z))/ρ,

    z ← z + s(ρ) C (h ⊙ Cᵀ g),    g = J(z)ᵀ u/√n,    h = softplus(MLP(g, z, log ρ, ‖g‖)) > 0,
    s(ρ) = ρ/(1 + ρ) · 1/(1 + (ρ/r)⁴).

The matrix C diag(h) Cᵀ is positive semidefinite, so a step never points away from the gradient's
side, and it is zero where the gradient is: a nearest point of S that fits w stays where it is.
Gauss–Newton is the case C diag(h) Cᵀ = √n (JᵀJ)⁻¹. For small residuals the step is linear in the
residual, with a preconditioner that depends on z. Beyond the reach r it vanishes: there w is mostly
noise, the nearest point of S fits that noise, and the encoder, trained to look through it, is the
better guess. Learned gradient steps: Andrychowicz et al.,
NIPS 2016; Putzky and Welling, arXiv 1706.04008 (recurrent inference machines); Adler and Öktem,
Inverse Problems 33, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from npgd import checks
from npgd.images import Images, Latents
from npgd.precision import plainly

# What torch.func.vjp gives without auxiliary outputs: G(z), and the map from images to J(z)ᵀ·.
_Pulled = tuple[Images, Callable[[Images], tuple[Latents]]]


class Corrector(nn.Module):
    """One learned gradient step; the same weights serve every step.

    Args:
        latent_dim: k.
        hidden: units of the network's two hidden layers, and columns of C.
        reach: r, a root mean square per pixel; infinite, the default, for training.
    """

    def __init__(self, latent_dim: int, hidden: int = 384, reach: float = math.inf) -> None:
        super().__init__()
        latent_dim, hidden = checks.sizes(latent_dim=latent_dim, hidden=hidden)
        self.latent_dim, self.hidden = latent_dim, hidden
        endless = isinstance(reach, float) and reach == math.inf
        self.reach = math.inf if endless else checks.number(reach, "reach")
        self.trunk = nn.Sequential(
            nn.Linear(2 * latent_dim + 2, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.gate = nn.Linear(hidden, hidden)  # h, before the softplus
        self.gather = nn.Linear(hidden, latent_dim, bias=False)  # C

    @plainly
    def forward(self, w: Images, z: Latents, generate: Callable[[Latents], Images]) -> Latents:
        """The latent after the step from z, differentiable in w and z (`torch.func.jvp` too)."""
        x, pull = cast("_Pulled", torch.func.vjp(generate, z))
        residual = w - x
        rho = residual.square().mean(dim=(1, 2, 3)).add(1e-12).sqrt()[:, None]
        (g,) = pull(residual / rho[..., None, None])
        g = g / residual[0].numel() ** 0.5
        size = g.square().sum(dim=1, keepdim=True).add(1e-24).sqrt()
        features = self.trunk(torch.cat([g, z, rho.log(), size], dim=1))
        gathered = F.linear(g, self.gather.weight.T)
        step: Latents = self.gather(F.softplus(self.gate(features)) * gathered)
        return z + rho / (1 + rho) / (1 + (rho / self.reach) ** 4) * step


def initialise_corrector(corrector: Corrector, generator: torch.Generator) -> None:
    """Start near a gradient step of half length: h = 1 and C Cᵀ = I/2, but for small weights.

    The other layers are N(0, 1/fan-in), all drawn from `generator`.
    """
    with torch.no_grad():
        for part in corrector.trunk.modules():
            if isinstance(part, nn.Linear):
                part.weight.normal_(0.0, part.weight.shape[1] ** -0.5, generator=generator)
                part.bias.zero_()
        gate = corrector.gate.weight
        gate.normal_(0.0, 0.1 * gate.shape[1] ** -0.5, generator=generator)
        corrector.gate.bias.fill_(math.log(math.e - 1))
        nn.init.orthogonal_(corrector.gather.weight, 0.5**0.5, generator=generator)
