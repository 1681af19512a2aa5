"""Proofs by computer, in float64 whose roundings are bounded.

`rec` has restricted eigenvalue constants from both sides: `tree` splits the box of pairs of latents
until `pairs` shows an inequality on every cell, by expansions that `taylor` makes; `analytic` has
sets whose constants are known, `nearest` a projector whose error is at most δ by proof.
"""

from analysis.proofs.nearest import CertifiedProjection
from analysis.proofs.rec import CertifiedRec, certify_rec, check_rec
from analysis.proofs.taylor import LayeredSet, layers_of

__all__ = [
    "CertifiedProjection",
    "CertifiedRec",
    "LayeredSet",
    "certify_rec",
    "check_rec",
    "layers_of",
]
