"""Rectifiers with and without a kink.

A network of ReLUs is piecewise smooth: its Jacobian jumps from piece to piece. A map that uses this
Jacobian, as a corrector's step does, is then not continuous, and its iteration can circle around a
kink for ever. With s > 0 the rectifiers here have all derivatives, and differ from ReLU and
LeakyReLU by at most log(2)/s, at 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from npgd import checks
from npgd.images import Images

SHARPNESS = 30.0
"""Of the shipped networks. Trained with ReLU, their samples change by about 2·10⁻⁵ a pixel."""

# Beyond it softplus is its argument to float64's last digit; torch's own, 20, leaves a jump.
_THRESHOLD = 40.0


class SmoothRectifier(nn.Module):
    """a x + (1 − a) log(1 + exp(s x))/s: the softplus of sharpness s, with slope a far below 0."""

    def __init__(self, sharpness: float, slope: float = 0.0) -> None:
        super().__init__()
        self.sharpness = checks.number(sharpness, "sharpness")
        self.slope = checks.number(slope, "slope", zero=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rectifier of every entry."""
        smooth = F.softplus(x, self.sharpness, _THRESHOLD).to(x.dtype)  # autocast makes it float32
        return torch.lerp(smooth, x, self.slope) if self.slope else smooth

    def extra_repr(self) -> str:
        return f"sharpness={self.sharpness:g}, slope={self.slope:g}"


class SmoothMaxPool(nn.Module):
    """log(Σ exp(s x))/s over patches of side × side: a maximum that has all derivatives.

    It lies above the maximum by at most log(side²)/s.
    """

    def __init__(self, side: int, sharpness: float) -> None:
        super().__init__()
        self.side = checks.integer(side, "side")
        self.sharpness = checks.number(sharpness, "sharpness")

    def forward(self, x: Images) -> Images:
        """The smooth maximum of each patch."""
        n, c, h, w = x.shape
        p = self.side
        patches = x.reshape(n, c, h // p, p, w // p, p)
        return torch.logsumexp(self.sharpness * patches, dim=(3, 5)) / self.sharpness

    def extra_repr(self) -> str:
        return f"side={self.side}, sharpness={self.sharpness:g}"


def rectifier(sharpness: float | None, slope: float = 0.0) -> nn.Module:
    """A rectifier of that slope below 0: smooth, or with its kink where `sharpness` is None."""
    if sharpness is not None:
        return SmoothRectifier(sharpness, slope)
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def maximum(side: int, sharpness: float | None) -> nn.Module:
    """The maximum over patches of side × side: smooth, or exact where `sharpness` is None."""
    return nn.MaxPool2d(side) if sharpness is None else SmoothMaxPool(side, sharpness)
