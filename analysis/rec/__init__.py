"""Restricted eigenvalue constants of an operator on the range of a generator.

`estimate` asks three `looks` at the directions of the pair (S, A) in `target`; `pointwise` has the
constants of each image; `secants`, `tangents` and `search` do the looking.
"""

from analysis.rec.estimate import estimate_rec
from analysis.rec.looks import distribution_free
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
