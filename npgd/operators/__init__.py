"""Linear measurement operators y = A x, forward and adjoint side by side, one file a kind.

An operator maps a batch of images (batch, channels, height, width) to a batch of measurements
(batch, m). Inner products are the plain ones over pixels and over measurements, so that

    ⟨A x, y⟩ = ⟨x, Aᵀ y⟩    for every x, y.
"""

from npgd.operators.base import Gaussian, LinearOperator, MatrixOperator
from npgd.operators.blur import Blur
from npgd.operators.dct import SubsampledDCT
from npgd.operators.files import load_operator, save_operator
from npgd.operators.foreign import as_operator
from npgd.operators.fourier import Fourier, cartesian_mask
from npgd.operators.pixels import Inpainting, SuperResolution, scattered_boxes
from npgd.operators.radon import Radon
from npgd.operators.structured import StructuredRandom
from npgd.operators.whitened import Whitened, WhitenedMatrix, whiten

__all__ = [
    "Blur",
    "Fourier",
    "Gaussian",
    "Inpainting",
    "LinearOperator",
    "MatrixOperator",
    "Radon",
    "StructuredRandom",
    "SubsampledDCT",
    "SuperResolution",
    "Whitened",
    "WhitenedMatrix",
    "as_operator",
    "cartesian_mask",
    "load_operator",
    "save_operator",
    "scattered_boxes",
    "whiten",
]
