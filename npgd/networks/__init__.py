"""The networks of the priors, one file an architecture.

``build`` makes a network from the name and settings that a weights file carries.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .corrector import Corrector
from .dcgan import DCGANDiscriminator, DCGANGenerator
from .denoiser import DenoisingNetwork, ProximalNetwork
from .encoder import Encoder
from .sagan import SAGANDiscriminator, SAGANEncoder, SAGANGenerator

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "Corrector": Corrector,
    "DCGANGenerator": DCGANGenerator,
    "DCGANDiscriminator": DCGANDiscriminator,
    "Encoder": Encoder,
    "DenoisingNetwork": DenoisingNetwork,
    "ProximalNetwork": ProximalNetwork,
    "SAGANGenerator": SAGANGenerator,
    "SAGANDiscriminator": SAGANDiscriminator,
    "SAGANEncoder": SAGANEncoder,
}


def build(architecture: str, settings: dict[str, Any]) -> nn.Module:
    """The network of that name with those settings; ``ValueError`` names an unknown one."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(f"architecture: {architecture!r} is not known; expected one of {known}")
    try:
        return ARCHITECTURES[architecture](**settings)
    except TypeError as error:
        raise ValueError(f"settings of {architecture}: {error}") from error


__all__ = [
    "ARCHITECTURES",
    "Corrector",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DenoisingNetwork",
    "Encoder",
    "ProximalNetwork",
    "SAGANDiscriminator",
    "SAGANEncoder",
    "SAGANGenerator",
    "build",
]
