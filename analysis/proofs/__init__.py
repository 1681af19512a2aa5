"""Proofs by computer: statements about one network, checked in arithmetic that bounds its rounding.

What is proved, and how, is in the modules; `docs/mathematics/proofs.md` tells it from the start.
"""

from __future__ import annotations

from analysis.proofs.certificate import save_certificate
from analysis.proofs.contraction import ConvergenceProof, prove_convergence

__all__ = ["ConvergenceProof", "prove_convergence", "save_certificate"]
