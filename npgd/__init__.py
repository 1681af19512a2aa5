"""Recover images from few linear measurements with a generative prior.

    prior = npgd.load_prior("mnist")
    A = npgd.Gaussian(prior.image_shape, m=100, seed=0)
    solution = npgd.recover(A, y, npgd.NPGD(prior))

NPGD: Raj, Li, Bresler, "GAN-based projector for faster recovery with convergence guarantees in
linear inverse problems", ICCV 2019. What the theory assumes and predicts is measured by
`analysis`, which this package never imports. `npgd.data` and `npgd.training` are imported on first
use.
"""

import importlib as _importlib
from importlib import metadata as _metadata
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING

from npgd.denoisers import WaveletShrinkage, load_denoiser, load_onenet
from npgd.networks.foreign import as_encoder, as_generator
from npgd.operators import (
    Blur,
    Fourier,
    Gaussian,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    Radon,
    StructuredRandom,
    SubsampledDCT,
    SuperResolution,
    Whitened,
    as_operator,
    cartesian_mask,
    load_operator,
    save_operator,
    scattered_boxes,
    whiten,
)
from npgd.priors import GenerativePrior, load_prior, prior_card, save_prior
from npgd.projectors import AffineSet, FiniteSet, LatentRefinement, LatentSearch
from npgd.solvers import (
    AMP,
    CSGM,
    NPGD,
    PGDGAN,
    Deviation,
    Lasso,
    OneNet,
    PnPADMM,
    Reconstructor,
    Solution,
    TotalVariation,
    choose_step_size,
    recover,
)

if TYPE_CHECKING:
    from npgd import data as data
    from npgd import training as training

__all__ = [
    "AMP",
    "CSGM",
    "NPGD",
    "PGDGAN",
    "AffineSet",
    "Blur",
    "Deviation",
    "FiniteSet",
    "Fourier",
    "Gaussian",
    "GenerativePrior",
    "Inpainting",
    "Lasso",
    "LatentRefinement",
    "LatentSearch",
    "LinearOperator",
    "MatrixOperator",
    "OneNet",
    "PnPADMM",
    "Radon",
    "Reconstructor",
    "Solution",
    "StructuredRandom",
    "SubsampledDCT",
    "SuperResolution",
    "TotalVariation",
    "WaveletShrinkage",
    "Whitened",
    "as_encoder",
    "as_generator",
    "as_operator",
    "cartesian_mask",
    "choose_step_size",
    "load_denoiser",
    "load_onenet",
    "load_operator",
    "load_prior",
    "prior_card",
    "recover",
    "save_operator",
    "save_prior",
    "scattered_boxes",
    "whiten",
]

try:
    __version__ = _metadata.version("npgd")
except _metadata.PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> _ModuleType:
    if name in ("data", "training"):
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
