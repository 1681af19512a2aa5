"""Measurement matrices designed for a prior: one file a method."""

from analysis.design.minimax import design_minimax
from analysis.design.numax import design_numax
from analysis.design.secant_pca import (
    design_dct,
    design_secant_pca,
    local_coherence,
    secant_points,
)
from npgd.operators import whiten

__all__ = [
    "design_dct",
    "design_minimax",
    "design_numax",
    "design_secant_pca",
    "local_coherence",
    "secant_points",
    "whiten",
]
