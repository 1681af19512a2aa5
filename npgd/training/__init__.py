"""Train a generator, a projector, a corrector; all resumable. See :mod:`npgd.training.loop`."""

from .corrector import CorrectorConfig, train_corrector
from .gan import GeneratorConfig, train_generator
from .loop import load_checkpoint
from .projector import PAPER, ProjectorConfig, load_generator, train_projector

__all__ = [
    "PAPER",
    "CorrectorConfig",
    "GeneratorConfig",
    "ProjectorConfig",
    "load_checkpoint",
    "load_generator",
    "train_corrector",
    "train_generator",
    "train_projector",
]
