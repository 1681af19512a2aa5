"""What independent secants say about all of them, without assuming anything of their law.

If the share q of secants with a ratio below t were larger than ln(1/ε)/N, all of N independent
ones would lie above t with probability (1 − q)ᴺ < ε. So with confidence 1 − ε at most the share
ln(1/ε)/N lies below the least ratio of N independent secants, and likewise above the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from analysis.memory import fitting
from analysis.rec.pair import Pair, Sample
from analysis.rec.results import SAMPLES, DistributionFree
from analysis.rec.rounding import ERROR, unit
from analysis.rec.secants import DIFFERENCES
from npgd import checks
from npgd.images import Images, norm

CHUNK = 512  # secants measured at a time


def distribution_free(
    ratios: Float[np.ndarray, " N"], epsilon: float = 0.05
) -> DistributionFree | None:
    """The statement from the ratios of independent secants, NaN where there is no secant.

    None if there are too few for it to say anything, ln(1/ε) ≥ N.
    """
    if not isinstance(ratios, np.ndarray | list | tuple):
        raise TypeError(f"ratios must be an array of numbers, got {checks.shown(ratios)}")
    try:
        ratios = np.asarray(ratios)
    except ValueError:  # of unequal lengths
        ratios = np.empty((0, 0))
    if ratios.ndim != 1 or ratios.dtype.kind not in "iuf":
        raise TypeError(f"ratios must be real numbers in a row, got {checks.shown(ratios)}")
    epsilon = checks.between(epsilon, "epsilon")
    return Independent(ratios, ratios, ratios, SAMPLES).statement(epsilon)


@dataclass(frozen=True)
class Independent:
    """Secants no two of which share an end: their ratios, NaN where one is too short to count."""

    ratio: Float[np.ndarray, " N"]
    low: Float[np.ndarray, " N"]
    """The ratio is at least this, after rounding."""
    high: Float[np.ndarray, " N"]
    """The ratio is at most this, after rounding."""
    of: str
    """Of what they are a sample, and what has to be true for that."""

    def statement(self, epsilon: float) -> DistributionFree | None:
        """What they say with confidence 1 − ε; None if they are too few to say anything.

        Outwards after rounding: fewer secants lie below a lower number.
        """
        low, high = self.low[np.isfinite(self.low)], self.high[np.isfinite(self.high)]
        if not len(low) or -math.log(epsilon) >= len(low):
            return None
        return DistributionFree(
            alpha=float(low.min()),
            beta=float(high.max()),
            n_pairs=len(low),
            epsilon=epsilon,
            fraction=-math.log(epsilon) / len(low),
            of=self.of,
        )


def independent(
    pair: Pair, sample: Sample, given: tuple[Images, Images] | None, seed: int
) -> Independent:
    """The pairs given; or the samples (0, 1), (2, 3), …; or images given as S, paired at random.

    Images may come in any order, twins beside each other; of independent draws every pairing is
    as good as another, and one drawn by `seed` does not know theirs.
    """
    if given is not None:
        first, second = given
        if (
            first.shape != second.shape
            or first.shape[1:] != sample.images.shape[1:]
            or not len(first)
        ):
            shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise ValueError(
                f"pairs must have one shape, that of S's images, and hold an image, got {shapes}"
            )
        of = "secants drawn as the given ones, if these are independent,"
        return _measured(pair, first.detach().cpu(), second.detach().cpu(), 0.0, of)
    if sample.z is None:
        generator = checks.seeded(seed)
        order = torch.randperm(len(sample.images), generator=generator)
        half = len(order) // 2
        first, second = sample.images[order[:half]], sample.images[order[half : 2 * half]]
        of = "the secants of S, if the given images are independent draws of it,"
        return _measured(pair, first, second, 0.0, of)
    first, second = sample.images[:-1:2], sample.images[1::2]
    found = _measured(pair, first, second, ERROR * unit(pair.dtype), SAMPLES)
    if pair.dtype == torch.float64 or not np.isfinite(found.low).any():
        return found
    # What may be extreme is computed anew in float64.
    least, most = np.nanmin(found.high), np.nanmax(found.low)
    chosen = np.flatnonzero((found.low <= least) | (found.high >= most))
    z = sample.z
    again = _measured(
        pair, pair.decode(z[:-1:2][chosen]), pair.decode(z[1::2][chosen]), pair.error, SAMPLES
    )
    for kept, new in (
        (found.ratio, again.ratio), (found.low, again.low), (found.high, again.high)
    ):  # fmt: skip
        kept[chosen] = new
    return found


def _measured(pair: Pair, first: Images, second: Images, error: float, of: str) -> Independent:
    """The secants first[i] − second[i], of points off by at most so much of their norm."""
    parts = []
    size = fitting(DIFFERENCES, first[:1].numel(), CHUNK)
    for a, b in zip(torch.split(first, size), torch.split(second, size), strict=True):
        one, two = a.double(), b.double()
        parts.append(pair.measure(one - two, error * (norm(one) + norm(two))))
    ratio, low, high = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Independent(ratio, low, high, of)
