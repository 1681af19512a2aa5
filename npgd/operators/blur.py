"""Blur: the convolution of every channel with a kernel, by the fast Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator

BOUNDARIES = ("circular", "valid")


class Blur(LinearOperator):
    """y = k * x, channel by channel: y_ij = Σ_ab k_ab x_{i−a, j−b}, (0, 0) the kernel's middle.

    With the boundary "circular" the image goes on at its other side, m = n, and the singular values
    are the moduli of the kernel's Fourier transform. With "valid" only those pixels are measured
    that the image alone determines: (height − h + 1) × (width − w + 1) of every channel, the kernel
    having h × w. A product costs n log n operations.

    Args:
        image_shape: (channels, height, width).
        kernel: (h, w), or (channels, h, w) for one kernel a channel; torch or numpy, float32 or
            float64, finite, not larger than the image, not zero. Images must have its dtype. Its
            middle is entry (h // 2, w // 2).
        boundary: "circular" or "valid".

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    kernel: Float[torch.Tensor, "channels h w"]

    def __init__(
        self,
        image_shape: Sequence[int],
        kernel: Float[torch.Tensor, "*channels h w"] | np.ndarray,
        boundary: str = "circular",
    ) -> None:
        shape = checks.image_shape(image_shape)
        checks.choice(boundary, "boundary", *BOUNDARIES)
        kernel = _checked_kernel(kernel, shape)
        sides = shape[1:]
        if boundary == "valid":
            sides = sides[0] - kernel.shape[1] + 1, sides[1] - kernel.shape[2] + 1
        super().__init__(shape, shape[0] * math.prod(sides))
        self.boundary = boundary
        self.sides = sides
        self.register_buffer("kernel", kernel)

    def _convolved(self, x: Images, conjugate: bool = False) -> Images:
        """Circularly, with the kernel's first entry as its middle; or the transpose."""
        spectrum = torch.fft.rfft2(self.kernel, s=self.image_shape[1:])
        spectrum = torch.fft.rfft2(x) * (spectrum.conj() if conjugate else spectrum)
        image: Images = torch.fft.irfft2(spectrum, s=self.image_shape[1:])
        return image

    def _forward(self, x: Images) -> Measurements:
        blurred = self._convolved(x)
        _, h, w = self.kernel.shape
        if self.boundary == "circular":
            return blurred.roll((-(h // 2), -(w // 2)), dims=(2, 3)).flatten(1)
        return blurred[:, :, h - 1 :, w - 1 :].flatten(1)

    def _adjoint(self, y: Measurements) -> Images:
        blurred = y.reshape(len(y), self.image_shape[0], *self.sides)
        _, h, w = self.kernel.shape
        if self.boundary == "circular":
            blurred = blurred.roll((h // 2, w // 2), dims=(2, 3))
        else:
            blurred = torch.nn.functional.pad(blurred, (w - 1, 0, h - 1, 0))
        return self._convolved(blurred, conjugate=True)

    def _norm(self) -> float:
        if self.boundary == "valid":
            return super()._norm()
        return float(torch.fft.rfft2(self.kernel, s=self.image_shape[1:]).abs().max())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, boundary={self.boundary!r}"


def _checked_kernel(kernel: object, shape: checks.ImageShape) -> torch.Tensor:
    if isinstance(kernel, np.ndarray):
        kernel = checks.from_numpy(kernel, "kernel")
    kernel = checks.floating(kernel, "kernel")
    checks.floating_type(kernel.dtype, "kernel")
    channels, height, width = shape
    fits = kernel.ndim == 2 or (kernel.ndim == 3 and kernel.shape[0] == channels)
    if not fits or not (1 <= kernel.shape[-2] <= height and 1 <= kernel.shape[-1] <= width):
        raise ValueError(
            f"kernel must have shape (h, w) or ({channels}, h, w) with h from 1 to {height} and w"
            f" from 1 to {width}, got {tuple(kernel.shape)}"
        )
    if not bool(checks.finite(kernel, "kernel").any()):
        raise ValueError("kernel must not be zero, got no other entry")
    return kernel.detach().expand(channels, *kernel.shape[-2:]).clone()
