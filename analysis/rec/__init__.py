"""Restricted eigenvalue constants of an operator on the range of a generator.

`estimate` asks three `looks` at the directions of the `pair` (S, A); `pointwise` has the constants
of each image, `coverage` what independent secants say with confidence; `secants`, `tangents` and
`search` do the looking, and `rounding` keeps it one-sided.
"""

from analysis.rec.coverage import distribution_free
from analysis.rec.estimate import estimate_rec
from analysis.rec.results import Direction, DistributionFree, Look, PointwiseRec, RecEstimate
from analysis.rec.settings import RecSettings

__all__ = [
    "Direction",
    "DistributionFree",
    "Look",
    "PointwiseRec",
    "RecEstimate",
    "RecSettings",
    "distribution_free",
    "estimate_rec",
]
