"""Restricted eigenvalue constants of an operator on the range of a generator.

`estimate` asks four `looks` at the directions of the pair (S, A) in `target`; `pointwise` has the
constants of each image; `secants`, `tangents`, `search` and `tails` do the looking.
"""

from analysis.rec.estimate import estimate_rec
from analysis.rec.looks import distribution_free
from analysis.rec.results import Direction, DistributionFree, Look, PointwiseRec, RecEstimate

__all__ = [
    "Direction",
    "DistributionFree",
    "Look",
    "PointwiseRec",
    "RecEstimate",
    "distribution_free",
    "estimate_rec",
]
