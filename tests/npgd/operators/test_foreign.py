"""Operators of other libraries are right, or refused in one sentence: a table of them.

Each row makes its object when it is asked for, so that a library that is not there skips its own
rows alone.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg as sla
import torch

import analysis
import npgd
from analysis import testing
from npgd.operators import as_operator, whiten

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries

Shape = tuple[int, int, int]
GREY, RGB, PAIR = (1, 8, 8), (3, 8, 8), (2, 8, 8)


@dataclass(frozen=True)
class Row:
    """An object of a library, made on `make()` for images of `shape`."""

    make: Callable[[], Any]
    shape: Shape = GREY
    refused: str | None = None
    """What the one sentence says that refuses it; None where it is taken."""
    adjoint: Callable[[Any], Any] | None = None
    fixed: bool = False
    """Whether it computes in float32 whatever it is given."""


def matrix(m: int = 20, n: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((m, n))


def complex_matrix(m: int = 20, n: int = 64) -> np.ndarray:
    return matrix(m, n) + 1j * matrix(m, n, 1)


def deepinv(make: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Row:
    return Row(lambda: make(pytest.importorskip("deepinv").physics), *args, **kwargs)


def pylops(make: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Row:
    return Row(lambda: make(pytest.importorskip("pylops")), *args, **kwargs)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*size, generator=generator(), dtype=dtype)


def some() -> torch.Tensor:
    return (normal(8, 8) > 0).float()


def gaussian_kernel(side: int = 3) -> torch.Tensor:
    t = torch.arange(side) - side // 2
    row = torch.exp(-(t.float() ** 2) / 2)
    kernel = row[:, None] * row
    return (kernel / kernel.sum())[None, None]


SCIPY = {
    **{
        f"scipy {kind}": Row(lambda kind=kind: sparse(kind))
        for kind in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    },
    "scipy csr_matrix": Row(lambda: scipy.sparse.csr_matrix(sparse("csr"))),
    "scipy integers": Row(lambda: (sparse("coo") * 10).astype(np.int32)),
    "scipy booleans": Row(lambda: sparse("lil") > 0.5),
    "scipy float32": Row(lambda: sparse("csr").astype(np.float32)),
    "scipy complex sparse": Row(lambda: scipy.sparse.csr_array(complex_matrix())),
    "scipy aslinearoperator": Row(lambda: sla.aslinearoperator(matrix())),
    "scipy complex operator": Row(lambda: sla.aslinearoperator(complex_matrix())),
    "scipy complex operator on two channels": Row(
        lambda: sla.aslinearoperator(complex_matrix()), PAIR
    ),
    "scipy product": Row(
        lambda: sla.aslinearoperator(matrix(7, 20)) @ sla.aslinearoperator(matrix()).H.T
    ),
    "scipy LaplacianNd": Row(lambda: sla.LaplacianNd((8, 8), boundary_conditions="neumann")),
    "scipy fft": Row(
        lambda: lambda x: scipy.fft.fft2(x, norm="ortho"),
        adjoint=lambda y: scipy.fft.ifft2(y, norm="ortho").real,
    ),
    "scipy dct": Row(
        lambda: lambda x: scipy.fft.dctn(x, axes=(-2, -1), norm="ortho")[..., :4, :4],
        adjoint=lambda y: scipy.fft.idctn(
            np.pad(y, [(0, 0), (0, 0), (0, 4), (0, 4)]), axes=(-2, -1), norm="ortho"
        ),
    ),
    "scipy ndimage": Row(
        lambda: lambda x: scipy.ndimage.gaussian_filter(x, (0, 0, 1.0, 1.0), mode="wrap"),
        adjoint=lambda y: scipy.ndimage.gaussian_filter(y, (0, 0, 1.0, 1.0), mode="wrap"),
    ),
    "numpy complex matrix": Row(complex_matrix),
    "torch complex matrix": Row(lambda: torch.from_numpy(complex_matrix())),
    "scipy without rmatvec": Row(
        lambda: sla.LinearOperator((20, 64), matvec=lambda x: matrix() @ x, dtype=float),
        refused="obj must have an adjoint, got .* without; give it rmatvec",
    ),
    "scipy complex as real": Row(
        lambda: sla.LinearOperator(
            (20, 64),
            matvec=lambda x: complex_matrix() @ x,
            rmatvec=lambda y: complex_matrix().conj().T @ y,
            dtype=float,
        ),
        refused="obj must be real as its dtype float64 says, got complex128 from its product",
    ),
    "scipy for another image": Row(
        lambda: sparse("csr"), RGB, refused=r"obj must have shape \(m, 192\) .* got \(20, 64\)"
    ),
    "scipy NaN in LIL": Row(
        lambda: scipy.sparse.lil_array(np.full((2, 64), np.nan)), refused="obj must be finite"
    ),
    "scipy ndimage without adjoint": Row(
        lambda: lambda x: scipy.ndimage.gaussian_filter(x, (0, 0, 1.0, 1.0), mode="wrap"),
        refused="obj must have an adjoint, got .*autograd does not see",
    ),
    "scipy ndimage of another boundary": Row(
        lambda: lambda x: scipy.ndimage.shift(x, (0, 0, 1.5, 0.5), order=1),
        adjoint=lambda y: scipy.ndimage.shift(y, (0, 0, -1.5, 0.5), order=1),
        refused="obj must have the adjoint of its own product",
    ),
    "scipy median": Row(
        lambda: lambda x: scipy.ndimage.median_filter(x, (1, 1, 3, 3)),
        adjoint=lambda y: y,
        refused=r"obj must be linear, got .*A\(x \+ z\)",
    ),
}


def sparse(kind: str) -> Any:
    held = scipy.sparse.random_array((20, 64), density=0.3, rng=np.random.default_rng(0))
    return held.asformat(kind)


def as_real(A: Any) -> Any:
    """An operator that is complex and says that it is real."""
    A.dtype = np.dtype("float64")
    return A


PYLOPS = {
    "pylops MatrixMult": pylops(lambda p: p.MatrixMult(matrix())),
    "pylops complex MatrixMult": pylops(lambda p: p.MatrixMult(complex_matrix())),
    "pylops FirstDerivative": pylops(lambda p: p.FirstDerivative((8, 8), axis=1)),
    "pylops SecondDerivative": pylops(lambda p: p.SecondDerivative((8, 8), axis=0)),
    "pylops Laplacian": pylops(lambda p: p.Laplacian((8, 8))),
    "pylops Gradient": pylops(lambda p: p.Gradient((8, 8))),
    "pylops Restriction": pylops(lambda p: p.Restriction(64, np.arange(0, 64, 3))),
    "pylops Diagonal": pylops(lambda p: p.Diagonal(np.linspace(1, 2, 64))),
    "pylops Identity": pylops(lambda p: p.Identity(30, 64)),
    "pylops Flip": pylops(lambda p: p.Flip((8, 8), axis=0)),
    "pylops Sum": pylops(lambda p: p.Sum((8, 8), axis=0)),
    "pylops Smoothing2D": pylops(lambda p: p.Smoothing2D((3, 3), (8, 8))),
    "pylops FFT2D": pylops(lambda p: p.signalprocessing.FFT2D((8, 8), norm="ortho")),
    "pylops FFT2D real": pylops(lambda p: p.signalprocessing.FFT2D((8, 8), real=True)),
    "pylops FFT2D on two channels": pylops(lambda p: p.signalprocessing.FFT2D((8, 8)), PAIR),
    "pylops DCT": pylops(lambda p: p.signalprocessing.DCT((8, 8))),
    "pylops Convolve2D": pylops(
        lambda p: p.signalprocessing.Convolve2D((8, 8), np.ones((3, 3)), offset=(1, 1))
    ),
    "pylops Radon": pylops(
        lambda p: p.signalprocessing.Radon2D(
            np.arange(8.0), np.arange(8.0), np.linspace(-1, 1, 8), engine="numpy"
        )
    ),
    "pylops VStack": pylops(
        lambda p: p.VStack([p.MatrixMult(matrix(5)), p.Restriction(64, [1, 2])])
    ),
    "pylops float32": pylops(lambda p: p.MatrixMult(matrix().astype(np.float32), dtype="float32")),
    "pylops complex as real": pylops(
        lambda p: as_real(p.signalprocessing.FFT2D((8, 8))), refused="obj must be real"
    ),
}


def _blocks(s: Any) -> Any:
    return lambda x: np.stack([[s.downscale_local_mean(c, (2, 2)) for c in image] for image in x])


SKIMAGE = {
    "skimage downscale_local_mean": Row(
        lambda: _blocks(pytest.importorskip("skimage.transform")),
        adjoint=lambda y: np.repeat(np.repeat(y, 2, axis=-2), 2, axis=-1) / 4,
    ),
    "skimage gaussian": Row(
        lambda: (
            lambda x: pytest.importorskip("skimage.filters").gaussian(
                x, (0, 0, 1, 1), mode="wrap", preserve_range=True
            )
        ),
        adjoint=lambda y: pytest.importorskip("skimage.filters").gaussian(
            y, (0, 0, 1, 1), mode="wrap", preserve_range=True
        ),
    ),
    "skimage radon": Row(
        lambda: _radon(pytest.importorskip("skimage.transform")),
        adjoint=lambda y: np.stack(
            [
                [
                    pytest.importorskip("skimage.transform").iradon(
                        c, ANGLES, filter_name=None, circle=False, output_size=8
                    )
                    for c in image
                ]
                for image in y
            ]
        ),
        refused="obj must have the adjoint of its own product",
    ),
    "skimage rotate without adjoint": Row(
        lambda: (
            lambda x: np.stack(
                [
                    [pytest.importorskip("skimage.transform").rotate(c, 30) for c in image]
                    for image in np.asarray(x)
                ]
            )
        ),
        refused="obj must have an adjoint",
    ),
    "skimage median": Row(
        lambda: (
            lambda x: np.stack(
                [
                    [pytest.importorskip("skimage.filters").median(c) for c in image]
                    for image in np.asarray(x)
                ]
            )
        ),
        adjoint=lambda y: y,
        refused="obj must be linear",
    ),
}
ANGLES = np.linspace(0, 180, 6, endpoint=False)


def _radon(s: Any) -> Any:
    return lambda x: np.stack(
        [[s.radon(c, ANGLES, circle=False) for c in image] for image in np.asarray(x)]
    )


DEEPINV = {
    "deepinv CompressedSensing": deepinv(
        lambda p: p.CompressedSensing(20, GREY, rng=generator()), fixed=True
    ),
    "deepinv CompressedSensing float64": deepinv(
        lambda p: p.CompressedSensing(20, GREY, dtype=torch.float64, rng=generator())
    ),
    "deepinv CompressedSensing complex": deepinv(
        lambda p: p.CompressedSensing(20, GREY, dtype=torch.cfloat, rng=generator()), fixed=True
    ),
    "deepinv StructuredRandom": deepinv(
        lambda p: p.StructuredRandom(GREY, (1, 4, 8), rng=generator())
    ),
    "deepinv Inpainting": deepinv(lambda p: p.Inpainting(GREY, mask=0.5, rng=generator())),
    "deepinv Demosaicing": deepinv(lambda p: p.Demosaicing(RGB), RGB),
    "deepinv Denoising": deepinv(lambda p: p.Denoising()),
    "deepinv Blur valid": deepinv(lambda p: p.Blur(gaussian_kernel(), padding="valid"), fixed=True),
    "deepinv Blur circular": deepinv(
        lambda p: p.Blur(gaussian_kernel(), padding="circular"), fixed=True
    ),
    "deepinv Blur reflect": deepinv(
        lambda p: p.Blur(gaussian_kernel(), padding="reflect"), fixed=True
    ),
    "deepinv Blur replicate": deepinv(
        lambda p: p.Blur(gaussian_kernel(), padding="replicate"), fixed=True
    ),
    "deepinv BlurFFT": deepinv(lambda p: p.BlurFFT(GREY, gaussian_kernel())),
    "deepinv SpaceVaryingBlur": deepinv(
        lambda p: p.SpaceVaryingBlur(
            filters=gaussian_kernel().unsqueeze(2).repeat(1, 1, 2, 1, 1),
            multipliers=torch.rand(1, 1, 2, 8, 8, generator=generator()),
            padding="valid",
        ),
        fixed=True,
    ),
    "deepinv Downsampling": deepinv(lambda p: p.Downsampling(GREY, factor=2)),
    "deepinv Downsampling gaussian": deepinv(
        lambda p: p.Downsampling(GREY, filter="gaussian", factor=2, padding="circular"), fixed=True
    ),
    "deepinv Upsampling": deepinv(
        lambda p: p.Upsampling((1, 16, 16), filter="bilinear", factor=2, padding="circular"),
        fixed=True,
    ),
    "deepinv Decolorize": deepinv(lambda p: p.Decolorize(), RGB),
    "deepinv HyperSpectralUnmixing": deepinv(
        lambda p: p.HyperSpectralUnmixing(M=torch.rand(3, 5, generator=generator())),
        RGB,
        fixed=True,
    ),
    "deepinv Tomography": deepinv(
        lambda p: p.Tomography(6, 8, adjoint_via_backprop=True), fixed=True
    ),
    "deepinv Tomography of interpolated adjoint": deepinv(
        lambda p: p.Tomography(6, 8, adjoint_via_backprop=False),
        refused="obj must have the adjoint of its own product",
    ),
    "deepinv Tomography for another image": deepinv(
        lambda p: p.Tomography(6, 16), refused="obj must take images of image_shape"
    ),
    "deepinv Tomography fan beam": deepinv(lambda p: p.Tomography(6, 8, fan_beam=True), fixed=True),
    "deepinv MRI": deepinv(lambda p: p.MRI(mask=some(), img_size=PAIR), PAIR),
    "deepinv MRI of real images": deepinv(lambda p: p.MRI(mask=some(), img_size=PAIR)),
    "deepinv MultiCoilMRI": deepinv(
        lambda p: p.MultiCoilMRI(
            mask=some(),
            coil_maps=torch.complex(normal(3, 8, 8), normal(3, 8, 8))[None],
            img_size=(8, 8),
        ),
        PAIR,
    ),
    "deepinv MultiCoilMRI of real images": deepinv(
        lambda p: p.MultiCoilMRI(
            mask=some(),
            coil_maps=torch.complex(normal(3, 8, 8), normal(3, 8, 8))[None],
            img_size=(8, 8),
        )
    ),
    "deepinv SinglePixelCamera": deepinv(lambda p: p.SinglePixelCamera(20, GREY, rng=generator())),
    "deepinv CompressiveSpectralImaging": deepinv(
        lambda p: p.CompressiveSpectralImaging(RGB, mask=None, rng=generator()),
        RGB,
        refused="obj must have the adjoint of its own product",
    ),
    "deepinv Pansharpen": deepinv(lambda p: p.Pansharpen(RGB, factor=2), RGB, fixed=True),
    "deepinv StackedLinearPhysics": deepinv(
        lambda p: p.StackedLinearPhysics(
            [p.Inpainting(GREY, mask=0.5, rng=generator()), p.Blur(gaussian_kernel())]
        ),
        fixed=True,
    ),
    "deepinv ComposedLinearPhysics": deepinv(
        lambda p: (
            p.Inpainting((1, 6, 6), mask=0.5, rng=generator())
            * p.Blur(gaussian_kernel(), padding="valid")
        ),
        fixed=True,
    ),
    "deepinv LinearPhysics of a function": deepinv(
        lambda p: p.LinearPhysics(
            A=lambda x, **_: x.mean(-1),
            A_adjoint=lambda y, **_: y[..., None].expand(-1, 1, 8, 8) / 8,
        )
    ),
    "deepinv PtychographyLinearOperator": deepinv(
        lambda p: p.PtychographyLinearOperator(
            GREY, probe=None, shifts=torch.tensor([[0, 0], [0, 3], [3, 0], [3, 3]])
        )
    ),
    "deepinv PhaseRetrieval": deepinv(
        lambda p: p.RandomPhaseRetrieval(20, GREY, rng=generator()), refused="obj must"
    ),
    "deepinv Haze": deepinv(lambda p: p.Haze(), RGB, refused="obj must"),
    "deepinv SinglePhotonLidar": deepinv(lambda p: p.SinglePhotonLidar(), refused="obj must"),
}


class Affine:
    """A physics with an offset."""

    def A(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x + 1

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return 2 * y


class Space:
    """As ODL's, with ⟨u, v⟩ = weight Σ u v."""

    dtype = np.dtype("float64")

    def __init__(self, shape: tuple[int, ...], weight: float) -> None:
        self.shape, self.weight, self.size = shape, weight, int(np.prod(shape))

    def one(self) -> np.ndarray:
        return np.ones(self.shape)

    def inner(self, u: np.ndarray, v: np.ndarray) -> float:
        return self.weight * float((u * v).sum())

    def element(self, u: np.ndarray) -> np.ndarray:
        return np.asarray(u).reshape(self.shape)


class Spaces:
    """As ODL's product spaces, whose `size` counts parts."""

    def __init__(self, *spaces: Space, weights: Any = None) -> None:
        self.spaces, self.size = spaces, len(spaces)
        self.weighting = SimpleNamespace(array=np.ones(len(spaces)) if weights is None else weights)

    def element(self, parts: Any) -> Any:
        return SimpleNamespace(parts=list(parts))

    def inner(self, u: Any, v: Any) -> float:
        rows = zip(self.weighting.array, self.spaces, u.parts, v.parts, strict=True)
        return sum(weight * space.inner(a, b) for weight, space, a, b in rows)


class Weighted(Space):
    """As ODL's of an array of weights."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, 1.0)
        self.weighting = SimpleNamespace(array=np.linspace(1, 3, self.size).reshape(shape))

    def inner(self, u: np.ndarray, v: np.ndarray) -> float:
        return float((self.weighting.array * u * v).sum())


class Broadcast:
    """As ODL's BroadcastOperator: x ↦ (M x, x), into spaces of different weights."""

    def __init__(self) -> None:
        self.domain, self.is_linear = Space((8, 8), 0.25), True
        self.range = Spaces(Space((20,), 2.0), Space((8, 8), 0.5), weights=np.array([1.0, 3.0]))

    def __call__(self, x: np.ndarray) -> Any:
        return self.range.element([matrix() @ x.ravel(), x])

    def adjoint(self, y: Any) -> np.ndarray:
        back = 2.0 * (matrix().T @ y.parts[0]).reshape(8, 8) + 1.5 * y.parts[1]
        return back / 0.25


class OfWeights(Broadcast):
    """As ODL's in spaces with an array of weights, which some operators leave out."""

    def __init__(self, left_out: bool) -> None:
        self.domain, self.range, self.is_linear = Weighted((8, 8)), Weighted((20,)), True
        self.left_out = left_out

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return matrix() @ x.ravel()

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        d, r = (
            (1.0, 1.0)
            if self.left_out
            else (self.domain.weighting.array, self.range.weighting.array)
        )
        return (matrix().T @ (r * y)).reshape(8, 8) / d


class NoProduct(Space):
    """As ODL's of an exponent other than 2."""

    def inner(self, u: np.ndarray, v: np.ndarray) -> float:
        raise NotImplementedError("no inner product defined for exponent != 2")


class OfNoProduct(OfWeights):
    def __init__(self) -> None:
        super().__init__(left_out=True)
        self.domain = NoProduct((8, 8), 1.0)


class Transform(OfWeights):
    """As ODL's FourierTransform: real images, complex measurements, an inverse as adjoint."""

    def __init__(self, times: float) -> None:
        super().__init__(left_out=True)
        self.times = times
        self.domain, self.range = Space((8, 8), 1.0), Space((8, 8), 1.0)
        self.range.dtype = np.dtype(complex)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.fft.fft2(x)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return self.times * np.fft.ifft2(y).real


class Named(NamedTuple):
    line: torch.Tensor
    twice: torch.Tensor


class OfSpaces:
    """As ODL's operators: the adjoint is that of the weighted inner products."""

    def __init__(self, shape: tuple[int, ...] = (8, 8), is_linear: bool = True) -> None:
        self.domain, self.range, self.is_linear = Space(shape, 0.25), Space((20,), 2.0), is_linear

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return matrix() @ x.ravel()

    @property
    def adjoint(self) -> Callable[[np.ndarray], np.ndarray]:
        return lambda y: (2.0 / 0.25) * (matrix().T @ y).reshape(self.domain.shape)


class OfShapes:
    """As sigpy's operators."""

    def __init__(self, ishape: tuple[int, ...], oshape: tuple[int, ...], M: np.ndarray) -> None:
        self.ishape, self.oshape, self.M = ishape, oshape, M

    def __call__(self, x: np.ndarray) -> np.ndarray:
        assert x.shape == tuple(self.ishape)
        return (self.M @ x.ravel()).reshape(self.oshape)

    @property
    def H(self) -> "OfShapes":
        return OfShapes(self.oshape, self.ishape, self.M.conj().T)


class Applied:
    """As pyxu's operators."""

    dim_shape, codim_shape = (8, 8), (4, 5)

    def apply(self, x: np.ndarray) -> np.ndarray:
        return (matrix() @ x.ravel()).reshape(4, 5)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return (matrix().T @ y.ravel()).reshape(8, 8)


class Torch:
    """Products with vectors of torch alone, and its kind as torch writes it."""

    shape, dtype = (20, 64), torch.float64

    def matvec(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mv(torch.from_numpy(matrix()), x)

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        return torch.mv(torch.from_numpy(matrix()).T, y)


class NumpyPhysics:
    def A(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x)[..., ::-1]

    A_adjoint = A


HELD: dict[Any, np.ndarray] = {}


def reusing(x: np.ndarray) -> np.ndarray:
    """Gives the same array at every call, as fast code does."""
    held = HELD.setdefault((x.shape, x.dtype), np.empty_like(x))
    return np.multiply(x, 2, out=held)


ONE_BY_ONE = {
    "spaces": Row(OfSpaces),
    "spaces of another image": Row(
        lambda: OfSpaces((4, 16)), refused=r"obj must take images .*made for \(4, 16\)"
    ),
    "spaces of what is not linear": Row(
        lambda: OfSpaces(is_linear=False), refused="obj must be linear, .* says that it is not"
    ),
    "shapes": Row(lambda: OfShapes((8, 8), (20,), matrix())),
    "shapes complex on two channels": Row(lambda: OfShapes((8, 8), (20,), complex_matrix()), PAIR),
    "applied": Row(Applied),
    "vectors of torch": Row(Torch),
    "numpy physics": Row(NumpyPhysics),
    "torch sparse": Row(lambda: torch.from_numpy(matrix()).to_sparse_csr()),
    "torch sparse complex": Row(lambda: torch.from_numpy(complex_matrix()).to_sparse()),
    "scipy long doubles": Row(lambda: scipy.sparse.csr_array(matrix().astype(np.longdouble))),
    "numpy of another byte order": Row(lambda: matrix().astype(">f8")),
    "numpy complex of another byte order": Row(lambda: complex_matrix().astype(">c16")),
    "numpy masked": Row(
        lambda: np.ma.masked_greater(matrix(), 1), refused="obj must have all its entries"
    ),
    "no measurements": Row(
        lambda: scipy.sparse.csr_array((0, 64)), refused="obj must give at least one measurement"
    ),
    "shape of one number": Row(
        lambda: type("Odd", (Torch,), {"shape": 20})(), refused=r"obj must have shape \(m, 64\)"
    ),
    **{
        f"{home} {name}": Row(lambda home=home, make=make: make(home), *shape)
        for home, name, make, *shape in [
            ("odl", "Gradient", lambda o: library(o).Gradient(odl_space(o))),
            ("odl", "Laplacian", lambda o: library(o).Laplacian(odl_space(o))),
            ("odl", "MatrixOperator", lambda o: library(o).MatrixOperator(matrix())),
            ("sigpy.mri", "Sense", lambda s: library(s).linop.Sense(coils()), PAIR),
            ("sigpy.mri", "Sense of real images", lambda s: library(s).linop.Sense(coils())),
            ("pyxu.operator", "Sum", lambda x: library(x).Sum((8, 8), axis=0)),
            ("pyxu.operator", "SubSample", lambda x: library(x).SubSample((8, 8), slice(0, 8, 2))),
        ]
    },
}


def library(name: str) -> Any:
    return pytest.importorskip(name, exc_type=ImportError)


def odl_space(name: str) -> Any:
    return library(name).uniform_discr([0, 0], [1, 1], [8, 8])


def coils() -> np.ndarray:
    return (matrix(3, 64) + 1j * matrix(3, 64, 1)).reshape(3, 8, 8)


FUNCTIONS = {
    "odl's broadcast, weighted part by part": Row(Broadcast),
    "odl's array of weights": Row(lambda: OfWeights(left_out=False)),
    "odl's array of weights, left out": Row(lambda: OfWeights(left_out=True)),
    "odl's space without an inner product": Row(OfNoProduct),
    "odl's complex transform of real images": Row(lambda: Transform(64)),
    "odl's real images, taken for complex ones": Row(
        OfSpaces, shape=PAIR, refused=r"obj must have shape \(m, 128\), .*, got \(20, 64\)"
    ),
    "odl's inverse in place of an adjoint": Row(
        lambda: Transform(1), refused="always 0.015625 times as much, as an inverse.*give the right"
    ),
    "function that changes its argument": Row(
        lambda: lambda x: x.mul_(2), adjoint=lambda y: y.mul_(2)
    ),
    "numpy function that changes its argument": Row(
        lambda: lambda x: np.multiply(x, 2, out=x), adjoint=lambda y: np.multiply(y, 2, out=y)
    ),
    "function that gives the same array": Row(lambda: reusing, adjoint=reusing),
    "function of a tuple of one, part by part": Row(
        lambda: lambda x: (torch.fft.fft2(x, norm="ortho"),),
        adjoint=lambda y: (torch.fft.ifft2(y + 0, norm="ortho"),),
    ),
    "function of a named tuple": Row(
        lambda: lambda x: Named(x.mean(-1), 2 * x),
        adjoint=lambda y: y.line[..., None].expand(-1, 1, 8, 8) / 8 + 2 * y.twice,
    ),
    "function that cuts off": Row(
        lambda: lambda x: x.clamp(-10, 10), adjoint=lambda y: y, refused=r"linear, .*A\(1000x\)"
    ),
    "function with an adjoint slightly scaled": Row(
        lambda: lambda x: x,
        adjoint=lambda y: (1 + 1e-4) * y,
        refused="obj must have the adjoint of its own product",
    ),
    "function that has no value at zero": Row(
        lambda: lambda x: x * (x.norm() / x.norm()), adjoint=lambda y: y, refused="must be finite"
    ),
    "function without data": Row(
        lambda: lambda x: x.to("meta"), adjoint=lambda y: y, refused="obj must give floating"
    ),
    "function of half precision": Row(
        lambda: lambda x: (x.half() / 3).to(x),
        adjoint=lambda y: (y.half() / 3).to(y),
        refused="obj must be linear, .* half precision",
    ),
    "module of half precision": Row(
        lambda: torch.nn.Conv2d(1, 2, 3, bias=False).half(),
        refused=r"obj must compute in float32 or float64, .*obj\.float\(\)",
    ),
    "function by autograd": Row(lambda: lambda x: x.cumsum(-1)[..., ::2]),
    "complex function by autograd": Row(lambda: lambda x: torch.fft.rfft2(x)),
    "function of a tuple": Row(lambda: lambda x: (x.mean(-1), torch.fft.fft(x)[..., 1])),
    "function pair": Row(lambda: lambda x: x.roll(1, -1), adjoint=lambda y: y.roll(-1, -1)),
    "module": Row(lambda: torch.nn.Conv2d(1, 2, 3, bias=False).requires_grad_(False), fixed=True),
    "module with a bias": Row(lambda: torch.nn.Conv2d(1, 2, 3), refused=r"affine, with ‖A\(0\)‖ ="),
    "affine physics": Row(Affine, refused=r"affine, with ‖A\(0\)‖ = 8; give x ↦"),
    "magnitudes": Row(
        lambda: lambda x: torch.fft.fft2(x).abs(), refused=r"obj must be linear, got"
    ),
    "noise": Row(
        lambda: lambda x: x + torch.randn_like(x),
        adjoint=lambda y: y,
        refused="obj must measure an image the same every time",
    ),
    "a wrong function": Row(
        lambda: lambda x: x.reshape(3, 5), refused="obj must take images of image_shape"
    ),
    "a function of one image": Row(lambda: lambda x: x.sum(), refused="obj must give measurements"),
}

TABLE = SCIPY | PYLOPS | SKIMAGE | DEEPINV | ONE_BY_ONE | FUNCTIONS
LIBRARIES = SCIPY | PYLOPS | SKIMAGE | DEEPINV


# What they are put through ------------------------------------------------------------

DOUBLE = torch.float64
TAKEN = {name: row for name, row in TABLE.items() if row.refused is None}
REFUSED = {name: row for name, row in TABLE.items() if row.refused is not None}
QUICK = (
    "scipy lil",
    "scipy complex operator",
    "pylops FFT2D real",
    "deepinv CompressedSensing",
    "deepinv Tomography",
    "deepinv Pansharpen",
    "deepinv MultiCoilMRI of real images",
    "function of a tuple",
    "module",
)
"""Rows of every kind, for what takes a second each."""


def wrapped(row: Row) -> npgd.LinearOperator:
    given = {} if row.adjoint is None else {"adjoint": row.adjoint}
    return as_operator(row.make(), row.shape, **given)


def test_the_table_has_forty_linear_operators_of_other_libraries():
    assert len([name for name in LIBRARIES if name in TAKEN]) >= 40


@pytest.mark.parametrize("name", TAKEN)
def test_an_operator_of_another_library_is_linear_with_its_adjoint_and_norm(name):
    A = wrapped(TAKEN[name])
    testing.check_adjoint(A)
    testing.check_linear(A)
    testing.check_norm(A)
    assert (A.fixed_precision == torch.float32) is TAKEN[name].fixed
    for dtype in (torch.float32, DOUBLE):
        if A._asks_for() in (None, (dtype, torch.device("cpu"))):
            x = testing.random_images(A.image_shape, 2).to(dtype)
            assert A(x).dtype == A.adjoint(A(x)).dtype == dtype


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_linear_operator_is_refused_in_one_sentence(name):
    with pytest.raises((TypeError, ValueError), match=REFUSED[name].refused) as caught:
        wrapped(REFUSED[name])
    text = str(caught.value)
    assert text.startswith("obj must") and "\n" not in text and len(text) < 400


@pytest.mark.parametrize("name", TAKEN)
def test_gradients_go_through_the_products_of_the_object(name):
    """∇‖A x − y‖² = 2 Aᵀ(A x − y), backwards, forwards, and of many at a time."""
    A = wrapped(TAKEN[name])
    dtype = A._kind()[0]
    x = testing.random_images(A.image_shape, 2).to(dtype).requires_grad_()
    y = testing.normal(2, A.m).to(dtype)
    (gradient,) = torch.autograd.grad((A(x) - y).square().sum(), x)
    x = x.detach()
    torch.testing.assert_close(gradient, 2 * A.adjoint(A(x) - y))
    _, moved = torch.func.jvp(A, (x,), (gradient,))
    torch.testing.assert_close(moved, A(gradient))
    images = torch.stack([x, gradient])
    torch.testing.assert_close(torch.func.vmap(A)(images), torch.stack([A(x), A(gradient)]))


def looked_at(A, rec, projection, **run):
    """A through everything that looks at operators; what cannot be done is said in one sentence."""
    prior = testing.random_prior(A.image_shape, 4)
    found = analysis.estimate_rec(A, prior, rec)
    assert 0 < found.alpha <= 1.00001 * found.beta <= 1.0001 * A.norm() ** 2
    try:
        W = whiten(A)
    except ValueError as error:
        assert str(error).startswith("A must have independent rows, got rank")
    else:
        testing.check_adjoint(W)
        assert analysis.estimate_rec(W, prior, rec).beta <= 1.00001 * W.norm() ** 2
    report = analysis.verify(A, prior, rec=rec, projection=projection, **run)
    (identity,) = (f for f in report.findings if f.subject == "one-step identity")
    float32 = A.fixed_precision == torch.float32
    assert identity.verdict == ("low precision" if float32 else "met")
    assert ("computes in float32" in identity.text) is float32
    prior = prior.float()
    if A._asks_for() is None:
        x = prior.sample(2, seed=0)
        solution = npgd.recover(A, A(x), npgd.NPGD(prior, 0.5 / A.norm() ** 2, max_iter=3), x)
        assert bool(solution.x.isfinite().all())


@pytest.mark.parametrize("name", QUICK)
def test_an_operator_of_another_library_goes_through_the_analysis(name):
    few = analysis.RecSettings(40, 2, 2, 2), analysis.ProjectionSettings(2, 2, 2)
    looked_at(wrapped(TAKEN[name]), *few, count=2, n_iter=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN)
def test_every_operator_of_another_library_goes_through_the_analysis(name):
    A = wrapped(TAKEN[name])
    looked_at(A, analysis.RecSettings.of("quick"), analysis.ProjectionSettings.of("quick"))


def test_measurements_are_taken_as_the_object_gives_them():
    row = FUNCTIONS["function of a tuple"]
    A, x = wrapped(row), testing.random_images(GREY, 3)
    means, lines = row.make()(x)
    torch.testing.assert_close(A.measurements((means, lines)), A(x))
    torch.testing.assert_close(A.measurements((means.numpy(), lines.numpy())), A(x))
    assert A.measurements(A(x)) is not None and not A.complex_measurements
    for wrong in ((means,), (lines, means), means, "text", None):
        with pytest.raises((TypeError, ValueError), match="y must"):
            A.measurements(wrong)


def test_complex_measurements_are_their_real_and_imaginary_parts():
    matrix = complex_matrix()
    x = testing.random_images(GREY, 3)
    y = torch.from_numpy(x.flatten(1).numpy() @ matrix.T)
    for A in (as_operator(matrix, GREY), as_operator(TABLE["scipy complex operator"].make(), GREY)):
        torch.testing.assert_close(A.measurements(y), A(x))
        torch.testing.assert_close(A.measurements(y.numpy()), torch.view_as_real(y).flatten(1))
        back = torch.from_numpy((y.numpy() @ matrix.conj()).real).reshape(x.shape)
        torch.testing.assert_close(A.adjoint(A.measurements(y)), back)
        with pytest.raises(
            ValueError, match=r"y must have shape \(batch, 20\) where it is complex"
        ):
            A.measurements(y[:, 1:])
    with pytest.raises(TypeError, match="y must be real as the measurements of A are"):
        npgd.Gaussian(GREY, 20).measurements(y)


def test_recover_takes_numpy_and_complex_measurements():
    prior = testing.random_prior(GREY, 4).float()
    x = prior.sample(2, seed=0)
    A = as_operator(TABLE["scipy complex operator"].make(), GREY)
    y = torch.view_as_complex(A(x).reshape(2, 20, 2))
    solver = npgd.NPGD(prior, 0.01, max_iter=3)
    expected = npgd.recover(A, A(x), solver, x)
    for given, true in (
        (y, x),
        (y.numpy(), x.numpy()),
        (A(x).double().numpy(), x.double().numpy()),
    ):
        found = npgd.recover(A, given, solver, true)
        torch.testing.assert_close(found.x, expected.x)
        torch.testing.assert_close(found.error, expected.error)
    G = npgd.Gaussian(GREY, 20)
    found = npgd.recover(G, G(x).double().numpy(), solver)
    torch.testing.assert_close(found.x, npgd.recover(G, G(x), solver).x)


def test_an_object_keeps_its_precision_and_the_norm_sees_a_module_change():
    convolution = torch.nn.Conv2d(1, 2, 3, bias=False).requires_grad_(False)
    A = as_operator(convolution, GREY).double()
    assert (
        convolution.weight.dtype == torch.float32 and A(normal(1, *GREY).double()).dtype == DOUBLE
    )
    before = A.norm()
    convolution.weight.mul_(3)
    assert A.norm() == pytest.approx(3 * before, rel=1e-5)
    again = pickle.loads(pickle.dumps(A))
    x = testing.random_images(GREY, 2)
    assert torch.equal(again(x), A(x)) and np.isclose(again.norm(), A.norm())


@pytest.mark.parametrize("size", [1e-200, 1e-20, 1e20, 1e200])
@pytest.mark.parametrize("kind", ["sparse", "function", "affine", "wrong adjoint"])
def test_an_operator_of_any_size_is_examined_as_one_of_size_one(kind, size):
    M = testing.normal(5, 64)
    made = {
        "sparse": lambda: as_operator(scipy.sparse.csr_array(size * M.numpy()), GREY),
        "function": lambda: as_operator(lambda x: x.flatten(1) @ (size * M).to(x).T, GREY),
        "affine": lambda: as_operator(lambda x: size * (x + 1), GREY, lambda y: size * y),
        "wrong adjoint": lambda: as_operator(lambda x: size * x, GREY, lambda y: 2 * size * y),
    }[kind]
    if kind in ("affine", "wrong adjoint"):
        with pytest.raises(ValueError, match="affine" if kind == "affine" else "always 2 times"):
            made()
    else:
        largest = float(torch.linalg.matrix_norm(M, 2))
        assert made().norm() == pytest.approx(size * largest, rel=1e-12)


def test_what_computes_in_float32_inside_is_not_taken_to_be_exact():
    halves = (lambda x: x.float().double() / 3, lambda y: (y / 3).float().double())
    for forward, adjoint in (halves, (lambda x: x / 3, halves[1]), (halves[0], lambda y: y / 3)):
        assert as_operator(forward, GREY, adjoint).fixed_precision == torch.float32
    assert as_operator(lambda x: x / 3, GREY, lambda y: y / 3).fixed_precision == DOUBLE


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: as_operator(abs, GREY, adjoint=3), TypeError, "adjoint must be a function, got 3"),
        (
            lambda: as_operator(testing.normal(3, 64), GREY, adjoint=abs),
            TypeError,
            "adjoint must be None where obj has its own or is a matrix",
        ),
        (
            lambda: as_operator(lambda x: x, GREY, adjoint=lambda y: y[:, :, 1:]),
            ValueError,
            r"obj must have an adjoint, .* gives shape \(1, 1, 7, 8\)",
        ),
        (
            lambda: as_operator(lambda x: x[:1].expand(1, 1, 8, 8), GREY),
            ValueError,
            "obj must",
        ),
        (lambda: as_operator(complex_matrix()[0], GREY), ValueError, "obj must have shape"),
        (lambda: as_operator(lambda x: x > 0, GREY), TypeError, "obj must give floating point"),
    ],
)  # fmt: skip
def test_wrong_pairs_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
