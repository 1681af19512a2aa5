"""The networks of the priors, one file an architecture.

`build` makes a network from the name and settings that a weights file carries.
"""

from __future__ import annotations

from npgd.networks.architectures import ARCHITECTURES, build
from npgd.networks.corrector import Corrector
from npgd.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from npgd.networks.denoiser import DenoisingNetwork, ProximalNetwork
from npgd.networks.encoder import Encoder
from npgd.networks.sagan import SAGANDiscriminator, SAGANEncoder, SAGANGenerator
from npgd.networks.tanh import TanhGenerator

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
    "TanhGenerator",
    "build",
]
