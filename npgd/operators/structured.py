"""Fast random matrices: random signs, a fast transform, random rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int

from npgd import checks
from npgd.images import Images, Measurements
from npgd.operators.base import LinearOperator

TRANSFORMS = ("dct", "hadamard")


class StructuredRandom(LinearOperator):
    """m random rows of H D: D random signs, H an orthonormal transform of all n numbers at once.

    It stands in for a Gaussian where that does not fit: no matrix is kept or made, a product costs
    n log n operations, and A Aᵀ = I. It spreads an image over all measurements as a Gaussian does,
    whatever the image, since D mixes its signs first (Do, Gan, Nguyen and Tran, IEEE Trans. Signal
    Processing 2012; Tropp 2011). The mean of ‖A x‖² over the draw is (m/n)‖x‖²: rows are
    orthonormal, where those of `Gaussian` have the mean square length n/m.

    Args:
        image_shape: (channels, height, width).
        m: number of measurements, at most n.
        seed: of the signs and of the rows.
        transform: "dct", the orthonormal DCT-II of length n, by a fast Fourier transform; or
            "hadamard", with n = 2ᵃ b and b odd the Hadamard transform of order 2ᵃ times a DCT of
            length b, additions alone where b = 1.
        dtype: float32 or float64, of images and measurements.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    index: Int[torch.Tensor, " m"]
    signs: Float[torch.Tensor, " n"]

    def __init__(
        self,
        image_shape: Sequence[int],
        m: int,
        seed: int = 0,
        transform: str = "dct",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        n = math.prod(checks.image_shape(image_shape))
        m = checks.integer(m, "m", maximum=n)
        checks.choice(transform, "transform", *TRANSFORMS)
        checks.floating_type(dtype)
        generator = checks.seeded(seed)
        checks.room(n, "image_shape", n)
        super().__init__(image_shape, m)
        signs = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
        self.register_buffer("index", torch.randperm(n, generator=generator)[:m].clone())
        self.register_buffer("signs", signs.to(dtype))
        self.transform = transform

    @property
    def _order(self) -> int:
        """2ᵃ, the order of the Hadamard factor."""
        return self.n & -self.n if self.transform == "hadamard" else 1

    def _forward(self, x: Images) -> Measurements:
        mixed = (x.flatten(1) * self.signs).reshape(len(x), self._order, -1)
        return hadamard(dct(mixed)).flatten(1).index_select(1, self.index)

    def _adjoint(self, y: Measurements) -> Images:
        rows = y.new_zeros(len(y), self.n).index_copy(1, self.index, y)
        mixed = inverse_dct(hadamard(rows.reshape(len(y), self._order, -1))).flatten(1)
        return (mixed * self.signs).reshape(-1, *self.image_shape)

    @property
    def row_orthonormal(self) -> bool:
        return True

    def norm(self) -> float:
        return 1.0

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, transform={self.transform!r}"


def hadamard(x: Float[torch.Tensor, "batch order length"]) -> Float[torch.Tensor, "batch order l"]:
    """The orthonormal Hadamard transform along dimension 1, its own inverse; the order is 2ᵃ."""
    order = x.shape[1]
    half = 1
    while half < order:
        pairs = x.reshape(len(x), -1, 2, half, x.shape[2])
        even, odd = pairs[:, :, 0], pairs[:, :, 1]
        x = torch.stack([even + odd, even - odd], dim=2).reshape(len(x), order, -1)
        half *= 2
    return x / math.sqrt(order)


def dct(x: Float[torch.Tensor, "... n"]) -> Float[torch.Tensor, "... n"]:
    """The orthonormal DCT-II of the last dimension, by a Fourier transform of its length.

    J. Makhoul, IEEE Trans. Acoustics, Speech and Signal Processing, 1980.
    """
    n = x.shape[-1]
    if n == 1:
        return x
    turned = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)
    coefficients: torch.Tensor = (torch.fft.fft(turned) * _twiddle(x, n)).real
    return coefficients


def inverse_dct(c: Float[torch.Tensor, "... n"]) -> Float[torch.Tensor, "... n"]:
    """The inverse, and transpose, of `dct`."""
    n = c.shape[-1]
    if n == 1:
        return c
    # The transpose of x ↦ Re(t ⊙ F x): c ↦ Re(F (t ⊙ c)), since F is symmetric.
    turned = torch.fft.fft(c * _twiddle(c, n)).real
    x = torch.empty_like(turned)
    x[..., ::2] = turned[..., : (n + 1) // 2]
    x[..., 1::2] = turned[..., (n + 1) // 2 :].flip(-1)
    return x


def _twiddle(like: torch.Tensor, n: int) -> torch.Tensor:
    """t_k with dct(x)_k = Re(t_k (F x)_k)."""
    k = torch.arange(n, dtype=torch.float64, device=like.device)
    size = torch.full_like(k, math.sqrt(2 / n))
    size[0] = math.sqrt(1 / n)
    return torch.polar(size, -math.pi * k / (2 * n)).to(like.dtype.to_complex())
