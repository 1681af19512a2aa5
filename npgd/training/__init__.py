"""Train generators, projectors and their correctors, denoisers; resumable, in one loop.

See :mod:`npgd.training.loop`.
"""

from .corrector import CorrectorConfig, train_corrector
from .denoiser import DenoiserConfig, train_denoiser
from .gan import GeneratorConfig, train_generator
from .loop import load_checkpoint
from .onenet import OneNetConfig, train_onenet
from .projector import (
    PAPER,
    ProjectorConfig,
    load_coverage_encoder,
    load_generator,
    train_projector,
)

__all__ = [
    "PAPER",
    "CorrectorConfig",
    "DenoiserConfig",
    "GeneratorConfig",
    "OneNetConfig",
    "ProjectorConfig",
    "load_checkpoint",
    "load_coverage_encoder",
    "load_generator",
    "train_corrector",
    "train_denoiser",
    "train_generator",
    "train_onenet",
    "train_projector",
]
