"""Cartesian Fourier sampling as in magnetic resonance imaging, with one coil or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator
from npgd.operators.pixels import checked_mask


class Fourier(LinearOperator):
    """Samples of the Fourier transform of s_c ⊙ x for every coil c: y_c = M F (s_c ⊙ x).

    F is the orthonormal two-dimensional transform with 0 in the middle of image and spectrum, at
    (height // 2, width // 2), and M keeps the frequencies of the mask. Every channel is an image;
    with `complex_images` two channels are one, its real and its imaginary part. y is complex,
    (batch, images × coils × samples); solvers see (batch, m) with m twice as many real numbers,
    real and imaginary part side by side, which `A.measurements(y)` makes of y and `A.samples`
    undoes. The adjoint is that of the real inner product, Aᵀ y = Σ_c s̄_c ⊙ Fᴴ Mᵀ y_c, of which a
    real image has the real part (Pruessmann, Weiger, Scheidegger and Boesiger 1999).

    Args:
        image_shape: (channels, height, width).
        mask: boolean, (height, width), True where a frequency is measured, 0 in the middle
            (`cartesian_mask` makes one).
        coils: complex sensitivities, (coils, height, width), torch or numpy, in the precision that
            images will have; by default one coil that is 1 everywhere, and then any precision.
        complex_images: whether channels come in pairs.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    index: Int[torch.Tensor, " samples"]
    maps: Float[torch.Tensor, "coils height width 2"] | None
    complex_measurements = True

    def __init__(
        self,
        image_shape: Sequence[int],
        mask: Bool[torch.Tensor, "height width"] | np.ndarray,
        coils: Complex[torch.Tensor, "coils height width"] | np.ndarray | None = None,
        complex_images: bool = False,
    ) -> None:
        shape = checks.image_shape(image_shape)
        complex_images = checks.flag(complex_images, "complex_images")
        if complex_images and shape[0] % 2:
            raise ValueError(
                f"image_shape must have an even number of channels for complex_images, got {shape}"
            )
        index = checked_mask(mask, shape[1:]).flatten().nonzero()[:, 0]
        if not len(index):
            raise ValueError("mask must leave a frequency, got no True entry")
        maps = None if coils is None else _checked_coils(coils, shape)
        count = 1 if maps is None else len(maps)
        images = shape[0] // 2 if complex_images else shape[0]
        super().__init__(shape, 2 * images * count * len(index))
        self.complex_images = complex_images
        self._sizes = images, count, len(index)
        self.register_buffer("index", index)
        self.register_buffer("maps", maps)

    def samples(self, y: Measurements) -> Complex[torch.Tensor, "batch images coils samples"]:
        """Measurements (batch, m) as complex samples, of every image and every coil."""
        y = checks.measurements(y, self.m)
        checks.floating_type(y.dtype, "y")
        return torch.view_as_complex(y.reshape(len(y), *self._sizes, 2).contiguous())

    def _forward(self, x: Images) -> Measurements:
        checks.floating_type(x.dtype, "x")
        real = x[:, ::2] if self.complex_images else x
        image = torch.complex(real, x[:, 1::2] if self.complex_images else torch.zeros_like(x))
        spectrum = _centred(torch.fft.fft2, self._weighed(image[:, :, None]))
        samples = spectrum.flatten(3).index_select(3, self.index)
        return torch.view_as_real(samples).reshape(len(x), self.m)

    def _adjoint(self, y: Measurements) -> Images:
        samples = self.samples(y)
        _, height, width = self.image_shape
        spectrum = samples.new_zeros(*samples.shape[:3], height * width)
        spectrum = spectrum.index_copy(3, self.index, samples)
        spectrum = spectrum.reshape(*samples.shape[:3], height, width)
        image = self._weighed(_centred(torch.fft.ifft2, spectrum), conjugate=True).sum(2)
        if not self.complex_images:
            return image.real
        return torch.stack([image.real, image.imag], dim=2).flatten(1, 2)

    def _weighed(self, images: torch.Tensor, conjugate: bool = False) -> torch.Tensor:
        if self.maps is None:
            return images
        maps = torch.view_as_complex(self.maps)
        return images * (maps.conj() if conjugate else maps)

    @property
    def row_orthonormal(self) -> bool:
        """True of one coil that is 1 everywhere and complex images."""
        return self.maps is None and self.complex_images

    def _norm(self) -> float:
        return 1.0 if self.row_orthonormal else super()._norm()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, coils={self._sizes[1]}, samples={self._sizes[2]}"


def _centred(transform: Callable[..., torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """A Fourier transform with 0 in the middle, of pixels and of frequencies."""
    moved = transform(torch.fft.ifftshift(images, dim=(-2, -1)), norm="ortho")
    shifted: torch.Tensor = torch.fft.fftshift(moved, dim=(-2, -1))
    return shifted


def _checked_coils(coils: object, shape: checks.ImageShape) -> Float[torch.Tensor, "c h w 2"]:
    """The sensitivities as pairs of real numbers, which `.to(dtype)` does not take apart."""
    if isinstance(coils, np.ndarray):
        coils = checks.from_numpy(coils, "coils")
    if (
        not isinstance(coils, torch.Tensor)
        or coils.dtype not in (torch.complex64, torch.complex128)
        or coils.layout != torch.strided
        or coils.is_meta
    ):
        raise TypeError(f"coils must be a complex tensor, got {checks.shown(coils)}")
    if coils.ndim != 3 or tuple(coils.shape[1:]) != shape[1:] or not len(coils):
        raise ValueError(
            f"coils must have shape (coils, {shape[1]}, {shape[2]}), got {tuple(coils.shape)}"
        )
    return checks.finite(torch.view_as_real(coils.detach().resolve_conj()).clone(), "coils")


def cartesian_mask(
    image_shape: Sequence[int], acceleration: float, centre: float = 0.08, seed: int = 0
) -> Bool[torch.Tensor, "height width"]:
    """A mask for `Fourier`: whole columns of frequencies, the middle ones and random others.

    About width/acceleration columns are measured: round(centre × width) around frequency 0, and
    others drawn uniformly without replacement (Zbontar et al. 2018, fastMRI).

    Args:
        image_shape: (channels, height, width).
        acceleration: at least 1; 1 measures all.
        centre: share of the columns around frequency 0, from 0 on and below 1; these are measured
            even where they are more than the acceleration allows.
        seed: of the draw.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _, height, width = checks.image_shape(image_shape)
    acceleration = checks.number(acceleration, "acceleration")
    if acceleration < 1:
        raise ValueError(f"acceleration must be at least 1, got {acceleration:g}")
    centre = checks.number(centre, "centre", zero=True)
    if centre >= 1:
        raise ValueError(f"centre must be below 1, got {centre:g}")
    columns = torch.zeros(width, dtype=torch.bool)
    middle = round(centre * width)
    first = width // 2 - middle // 2
    columns[first : first + middle] = True
    left = (~columns).nonzero()[:, 0]
    wanted = max(1, round(width / acceleration)) - middle
    order = torch.randperm(len(left), generator=checks.seeded(seed))
    columns[left[order[: max(0, wanted)]]] = True
    return columns.expand(height, width).clone()
