"""Images and measurements as rows: squared length, inner product, ratio per image."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float


def _square(x: torch.Tensor) -> torch.Tensor:
    """‖x‖² of every image or measurement."""
    return x.flatten(1).square().sum(1)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.flatten(1) * b.flatten(1)).sum(1)


def _ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    return torch.where(denominator > 0, numerator / denominator, math.nan)


def ratio(
    operator: Any, difference: Float[torch.Tensor, "count ..."]
) -> Float[torch.Tensor, " count"]:
    """||A s||^2 / ||s||^2 for every row; nan where s = 0."""
    with torch.no_grad():
        return _square(operator(difference)) / _square(difference)
