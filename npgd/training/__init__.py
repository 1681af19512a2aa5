"""Train a generator, train a projector; both resumable. See :mod:`npgd.training.loop`."""

from .gan import GeneratorConfig, train_generator
from .loop import load_checkpoint
from .projector import PAPER, ProjectorConfig, load_generator, train_projector

__all__ = [
    "PAPER",
    "GeneratorConfig",
    "ProjectorConfig",
    "load_checkpoint",
    "load_generator",
    "train_generator",
    "train_projector",
]
