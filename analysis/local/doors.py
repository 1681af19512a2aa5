"""Checks and words that the local rates share."""

from __future__ import annotations

import torch

from analysis.words import about, median
from npgd import checks
from npgd.images import Measurements
from npgd.operators import LinearOperator


def check_operator(A: object) -> None:
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {checks.shown(A)}")


def check_fit(shape: checks.ImageShape, A: LinearOperator) -> None:
    if shape != A.image_shape:
        raise ValueError(f"prior must have A's image_shape {A.image_shape}, got {shape}")


def measured(y: Measurements, A: LinearOperator, batch: int | None = None) -> Measurements:
    came = checks.finite(checks.measurements(y, A.m, least=1), "y").detach().double()
    checks.squares(came, "y")
    if batch is not None and len(came) != batch:
        raise ValueError(f"y must hold {batch} rows as images do, got {len(came)}")
    return came


def ranged(values: torch.Tensor) -> str:
    """Median of what is not NaN, and the ends where they differ."""
    kept = values[~values.isnan()].double()
    if not len(kept):
        return "–"
    low, middle, high = (about(v) for v in (float(kept.min()), median(kept), float(kept.max())))
    return middle if low == high else f"{middle} ({low} to {high})"
