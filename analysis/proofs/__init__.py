"""Proofs by computer: statements about one network, in float64 whose roundings are bounded.

What is proved, and how, is in the modules; `docs/mathematics/proofs.md` tells it from the start.

A run that has converged: `contraction` proves it, from enclosures of the map's derivative on a
ball; `certificate` writes what another program can check. Restricted eigenvalue constants from both
sides: `rec` has them; `tree` splits the box of pairs of latents until `pairs` shows an inequality
on every cell, by expansions that `taylor` makes; `analytic` has sets whose constants are known,
`nearest` a projector whose error is at most δ by proof.
"""

from __future__ import annotations

from analysis.proofs.certificate import save_certificate
from analysis.proofs.contraction import ConvergenceProof, prove_convergence
from analysis.proofs.nearest import CertifiedProjection
from analysis.proofs.rec import CertifiedRec, certify_rec, check_rec
from analysis.proofs.taylor import LayeredSet, layers_of

__all__ = [
    "CertifiedProjection",
    "CertifiedRec",
    "ConvergenceProof",
    "LayeredSet",
    "certify_rec",
    "check_rec",
    "layers_of",
    "prove_convergence",
    "save_certificate",
]
