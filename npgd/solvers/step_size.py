"""The run's own step: η_n = ‖d_n‖²/‖A d_n‖², d_n = x_n − x_{n−1}.

That is 1/β_n, the step of Theorem 1 with the β of the run's own last direction in place of the
largest over S, and the longer of the two steps of Barzilai and Borwein (IMA J. Numer. Anal. 8,
1988). It costs no product, for A x_n is known and A d_n a difference of residuals. Directions that
A lets through hardly at all would ask for steps without bound; so η is kept within
[1/10, 4] of 1/g, where g is the mean gain of A on S,

    g = mean ‖A s‖²/‖s‖²   over differences s of samples of S,

which is also the first step. Everything follows the scale of A.
"""

from __future__ import annotations

import math

import torch

from npgd.images import Images, Measurements, PerImage, ratio, squared_norm
from npgd.operators import LinearOperator
from npgd.sets import ImageSet, Projector, projector, samples

SHORTEST, LONGEST = 0.1, 4.0  # of a step, in units of 1/g
SAMPLES = 32


def drawn(prior: ImageSet | Projector) -> Images | None:
    """The samples of S that tell g, the same at every call; None where S cannot be sampled."""
    if not samples(prior):
        return None
    return prior.sample(SAMPLES, generator=torch.Generator().manual_seed(0))


def mean_gain(
    A: LinearOperator, prior: ImageSet | Projector, y: Measurements, points: Images | None
) -> PerImage:
    """g, the same for every image where there are `points` of S.

    Else of the one difference P(Aᵀy) − P(0), image by image; and where that is 0, or A maps it to
    0, of random images.

    Raises:
        ValueError: A is zero.
    """
    if points is not None:
        found = y.new_full((len(y),), _of_points(A, points))
    else:
        project = projector(prior)
        found = ratio(A, project(A.adjoint(y)) - project(y.new_zeros(1, *A.image_shape)))
    usable = (found > 0) & found.isfinite()
    return found if bool(usable.all()) else torch.where(usable, found, _of_noise(A, y))


def common_gain(A: LinearOperator, y: Measurements, points: Images | None) -> float:
    """g as one number, whatever y holds: on `points` of S, or else on random images.

    Raises:
        ValueError: A is zero.
    """
    found = 0.0 if points is None else _of_points(A, points)
    return found if 0 < found < math.inf else _of_noise(A, y)


def _of_points(A: LinearOperator, points: Images) -> float:
    gains = ratio(A, points[1:] - points[:-1])
    return float(gains[gains.isfinite()].mean())


def _of_noise(A: LinearOperator, y: Measurements) -> float:
    noise = torch.randn(
        SAMPLES, *A.image_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    found = float(ratio(A, noise.to(y)).mean())
    if not found > 0:
        raise ValueError("A must differ from zero for a step to help, got A x = 0 for all x tried")
    return found


def next_step_size(step_size: PerImage, gain: PerImage, d: Images, A_d: Measurements) -> PerImage:
    """η from the last direction d and A d; as it was where they say nothing."""
    long, size = squared_norm(d), squared_norm(A_d)
    told = (long > 0) & long.isfinite() & size.isfinite()
    found = (long / size).clamp(SHORTEST / gain, LONGEST / gain)  # A d = 0 asks for the longest
    return torch.where(told, found, step_size)
