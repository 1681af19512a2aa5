"""Points that no algorithm made: the identity and what follows from it ask for none."""

from collections.abc import Callable

import pytest
import torch

from analysis import testing
from npgd.images import Images, Measurements
from npgd.operators import LinearOperator

Points = tuple[Measurements, Images, torch.Tensor]


@pytest.fixture(scope="session")
def points() -> Callable[..., Points]:
    """(y, x*, iterates) around a random x*."""

    def draw(
        A: LinearOperator, seed: int, n_iter: int, spread: float, noise: float, batch: int = 3
    ) -> Points:
        x_true = testing.normal(batch, *A.image_shape, seed=seed)
        steps = testing.normal(n_iter + 1, batch, *A.image_shape, seed=seed + 1)
        v = testing.normal(batch, A.m, seed=seed + 2)
        return A(x_true) + noise * v, x_true, x_true + spread * steps

    return draw


@pytest.fixture(scope="session")
def sequence(points: Callable[..., Points]) -> Callable[..., tuple[LinearOperator, *Points]]:
    """(A, y, x*, iterates) with an A of independent entries N(0, 1)."""

    def draw(
        seed: int, m: int, n_iter: int, spread: float = 1.0, noise: float = 0.0
    ) -> tuple[LinearOperator, *Points]:
        A = testing.random_operator("matrix", (1, 3, 4), m, seed)
        return A, *points(A, seed, n_iter, spread, noise)

    return draw
