"""Train generators, projectors and their correctors, denoisers; resumable, in one loop.

The loop, and what a training is: `npgd.training.loop`.
"""

from npgd.training.checkpoints import load_checkpoint
from npgd.training.corrector import CorrectorConfig, train_corrector
from npgd.training.denoiser import DenoiserConfig, train_denoiser
from npgd.training.gan import (
    GeneratorConfig,
    load_coverage_encoder,
    load_generator,
    train_generator,
)
from npgd.training.onenet import OneNetConfig, train_onenet
from npgd.training.projector import PAPER, ProjectorConfig, train_projector

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
