"""Denoisers (w, σ) → image for plug-and-play: shrinkage of wavelets, and trained networks.

A trained network is stored as weights with a card, see `npgd.cards`. OneNet's proximal map, which
takes no σ, is stored the same way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import nn

from npgd import cards, checks
from npgd.checks import ImageShape
from npgd.files import entry
from npgd.images import Images, PerImage
from npgd.networks import DenoisingNetwork, ProximalNetwork
from npgd.networks.architectures import outline
from npgd.transforms import Wavelet, filters, require_levels

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class WaveletShrinkage:
    """Soft-thresholding in an orthogonal wavelet basis, of w − o, with o a constant grey image.

    "bayes": each block of coefficients at σ²/s, with s² = mean c² − σ² the block's own signal
    variance (all zero where that is not positive): BayesShrink (Chang, Yu, Vetterli, IEEE TIP 9(9),
    2000). "universal": all at σ √(2 log n) (Donoho, Johnstone, Biometrika 81(3), 1994); this one is
    a proximal map, of the ℓ1 norm. The coarsest block is shrunk like the others, which with o = −1
    (black) removes noise from a dark background.

    Raises:
        TypeError, ValueError: naming the field that does not fit.
    """

    wavelet: str = "haar"
    """Name of the wavelet, as for `npgd.transforms.Wavelet`."""
    levels: int | None = None
    """How often to halve, as for `npgd.transforms.Wavelet`."""
    rule: str = "bayes"
    """"bayes" or "universal"."""
    shifts: int = 4
    """Average over shifts of the image by 0 … shifts−1 pixels in both directions (cycle spinning:
    Coifman, Donoho, 1995); 1 is the plain basis."""
    origin: float = -1.0
    """Grey value of o."""

    def __post_init__(self) -> None:
        filters(self.wavelet)
        checks.choice(self.rule, "rule", "bayes", "universal")
        levels = self.levels
        checks.settle(
            self,
            levels=levels if levels is None else checks.integer(levels, "levels", minimum=0),
            shifts=checks.integer(self.shifts, "shifts"),
            origin=checks.number(self.origin, "origin", negative=True),
        )

    def __call__(self, w: Images, sigma: float | PerImage) -> Images:
        """An estimate of x from w = x + noise of standard deviation `sigma` per pixel.

        σ ≥ 0 is one number, or one for each image; 0 leaves the image as it is.

        Raises:
            TypeError, ValueError: naming the argument that does not fit.
        """
        shape = checks.image_shape(checks.any_images(w, "w", least=0).shape[1:], "w")
        checks.floating_type(w.dtype, "w")
        try:
            transform = _wavelet(shape, self.wavelet, self.levels, w.dtype, w.device)
        except ValueError as error:
            raise ValueError(f"w must have sides that the wavelet halves: {error}") from None
        level = checks.levels(sigma, w).reshape(-1, 1, 1, 1)
        if not len(w):
            return w.clone()
        shifts = [(i, j) for i in range(self.shifts) for j in range(self.shifts)]
        centred = w - self.origin
        rolled = torch.cat([centred.roll(shift, (2, 3)) for shift in shifts])
        c = transform(rolled)
        for block in transform.blocks(c):
            block.copy_(self._shrink(block, level.repeat(len(shifts), 1, 1, 1), w[0].numel()))
        back = torch.split(transform.inverse(c), w.shape[0])
        total = torch.stack(
            [b.roll((-i, -j), (2, 3)) for b, (i, j) in zip(back, shifts, strict=True)]
        )
        return self.origin + total.mean(0)

    def _shrink(self, c: torch.Tensor, level: torch.Tensor, n: int) -> torch.Tensor:
        if self.rule == "universal":
            threshold = level * (2 * torch.tensor(float(n)).log()).sqrt().item()
        else:
            signal = (c.square().mean((2, 3), keepdim=True) - level.square()).clamp_min(0).sqrt()
            # Infinite where the block is all noise; without noise there is nothing to remove.
            threshold = torch.where(level > 0, level.square() / signal, 0.0)
        return c.sign() * (c.abs() - threshold).clamp_min(0)


@lru_cache(maxsize=8)
def _wavelet(
    shape: ImageShape,
    wavelet: str,
    levels: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Wavelet:
    basis = Wavelet(shape, wavelet, levels)
    return (require_levels(basis) if levels is None else basis).to(device, dtype)


def load_denoiser(
    name: str | os.PathLike[str] = "mnist",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> DenoisingNetwork:
    """A shipped denoiser (w, σ) → image by name, or one from a .safetensors file.

    "mnist" is of digits, "photographs" of 64×64 faces and churches in colour.

    Args:
        name: of a shipped denoiser, or the path of a file.
        dtype: of its weights.
        device: of its weights.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an unknown name, a dtype or device that does not serve, or a file that is no
            denoiser.
    """
    return cards.load(name, "denoiser", _network, partial(_of, DenoisingNetwork), dtype, device)


def fitting_denoiser(
    image_shape: ImageShape, device: str | torch.device = "cpu"
) -> DenoisingNetwork | None:
    """The shipped denoiser of digits, or of photographs for three channels; None for other shapes.

    It is in float32.
    """
    name = fitting_name(image_shape)
    return None if name is None else load_denoiser(name, device=device)


def fitting_name(image_shape: ImageShape) -> str | None:
    """The name of that denoiser, None where there is none."""
    channels, *sides = checks.image_shape(image_shape)
    name, multiple = {1: ("mnist", 28), 3: ("photographs", 16)}.get(channels, ("", 1))
    if name not in cards.SHIPPED["denoiser"] or any(side % multiple for side in sides):
        return None
    return name


def load_onenet(
    name: str | os.PathLike[str] = "mnist",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> ProximalNetwork:
    """A shipped OneNet's proximal map w → image by name ("mnist"), or one from a .safetensors file.

    Args:
        name: of a shipped OneNet, or the path of a file.
        dtype: of its weights.
        device: of its weights.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an unknown name, a dtype or device that does not serve, or a file that is no
            OneNet.
    """
    return cards.load(name, "onenet", _network, partial(_of, ProximalNetwork), dtype, device)


def save_network(
    network: DenoisingNetwork | ProximalNetwork,
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write a denoiser's or OneNet's weights (in half precision) and, beside them, its card.

    Args:
        network: to be kept.
        path: of the weights, ends in .safetensors; the card's ends in .json.
        settings: the arguments the network was built with.
        card: where it comes from and what it measures, for JSON; None writes none.

    Raises:
        TypeError: an argument of another kind, or what JSON cannot hold.
        ValueError: a path that does not end in .safetensors, settings of another network, or
            weights that are not finite.
    """
    if not isinstance(network, DenoisingNetwork | ProximalNetwork):
        raise TypeError(
            f"network must be a DenoisingNetwork or a ProximalNetwork, got {checks.shown(network)}"
        )
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must be names with values, got {checks.shown(settings)}")
    description = {"name": type(network).__name__, "settings": dict(settings)}
    kind: cards.Kind = "denoiser" if isinstance(network, DenoisingNetwork) else "onenet"
    cards.save(network, path, kind, _network, description, card)


def _network(description: dict[str, Any]) -> nn.Module:
    return outline(entry(description, "name", str), entry(description, "settings", dict), None)


def _of(kind: type[Network], description: dict[str, Any], network: nn.Module) -> Network:
    if not isinstance(network, kind):
        raise TypeError(f"name must be {kind.__name__}, got {description['name']}")
    return network
