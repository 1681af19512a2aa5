"""Products of an operator that torch does not see through, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Product = Callable[[torch.Tensor], torch.Tensor]


class _ProductFunction(torch.autograd.Function):
    """One of the two products; the other one is its derivative, and it is its own."""

    @staticmethod
    def forward(x: torch.Tensor, product: Product, transposed: Product) -> torch.Tensor:
        return product(x.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _, ctx.product, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return product_of(gradients[0], ctx.transposed, ctx.product), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        return product_of(tangents[0], ctx.product, ctx.transposed)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: torch.Tensor, product: Product,
        transposed: Product,
    ) -> tuple[torch.Tensor, int]:  # fmt: skip
        rows = x.movedim(in_dims[0] or 0, 0)
        flat = product_of(rows.flatten(0, 1), product, transposed)
        return flat.reshape(*rows.shape[:2], *flat.shape[1:]), 0


# torch's own annotations leave `apply` without types.
product_of: Callable[[torch.Tensor, Product, Product], torch.Tensor] = _ProductFunction.apply
"""product(x), a linear map of a batch, whose derivative's transpose is the other product."""
