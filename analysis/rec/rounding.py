"""What rounding does to the ratio of a direction, and which directions are too short to count.

A ratio r(s) = ‖A s‖²/‖s‖² is computed from a vector ŝ with ‖ŝ − s‖ ≤ ρ:

- Points given as images are what they are. A float64 difference of them is rounded once, by at most
  ε/2 of itself, which the last term below covers: ρ = 0.
- G(z), computed with unit ε, is off by at most ERROR ε ‖G(z)‖. (That is an assumption, since G may
  be any network; the networks and sets of this package are off by at most 2 ε ‖G(z)‖.) So
  ρ = ERROR ε (‖x₁‖ + ‖x₂‖) for a secant, and ρ = ERROR ε ‖J‖‖u‖ for the tangent J u.

Each of the measurements A ŝ is a sum of n products, so that they are off by at most n ε ‖A‖‖ŝ‖
together, ε that of float64. Hence

    (‖A ŝ‖ − ‖A‖(ρ + n ε ‖ŝ‖))/(‖ŝ‖ + ρ)  ≤  √r  ≤  (‖A ŝ‖ + ‖A‖(ρ + n ε ‖ŝ‖))/(‖ŝ‖ − ρ).

The upper end is what a direction says about α, the lower end what it says about β. A direction
shorter than SHORTEST ρ says too little to be looked at.
"""

from __future__ import annotations

import math

import torch

from npgd.images import PerImage

ERROR = 16
"""Units in the last place of ‖G(z)‖ by which a computed G(z) may be off."""
SHORTEST = 100
"""A direction counts if it is this many times as long as its error."""


def unit(dtype: torch.dtype) -> float:
    """ε of a precision: the distance from 1 to the next number."""
    return torch.finfo(dtype).eps


def enclosed(
    stretched: PerImage, length: PerImage, error: PerImage | float, norm: float, n: int
) -> tuple[PerImage, PerImage]:
    """Ends of r(s) = ‖A s‖²/‖s‖² for every s, from ‖A ŝ‖, ‖ŝ‖ and ρ, with ‖A‖ and n pixels.

    NaN where the direction is too short to count.
    """
    counts = length > SHORTEST * error
    off = norm * (error + n * unit(torch.float64) * length)
    low = (stretched - off).clamp_min(0) / (length + error)
    high = (stretched + off) / (length - error)
    return low.square().where(counts, math.nan), high.square().where(counts, math.nan)
