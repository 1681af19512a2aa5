"""Sets whose constants are known: what certified bounds have to enclose.

Each is a trigonometric polynomial of its latents, embedded in images by orthonormal columns Q, so
that α and β are known in closed form for every matrix:

- a *circle* in a plane, the *sphere* between two latitudes and a *torus* of revolution in three
  dimensions have tangents in every direction of their span: α and β are the extreme eigenvalues of
  QᵀAᵀA Q;
- a *flat torus*, the product of two circles, has secants in every direction of four dimensions;
- a *curve* (cos t, sin t, a cos 2t, a sin 2t), seen by A with AQ = diag(1, 1, σ, σ), has the ratio
  (1 + 4σ²a² c²)/(1 + 4a² c²), c = cos(Δ/2), at secants whose latents are Δ apart: α = 1 and
  β = (1 + 4σ²a²)/(1 + 4a²) for σ ≥ 1, no more its span's 1 and σ².
"""

from __future__ import annotations

import math

import torch

from analysis.proofs.taylor import LayeredSet
from npgd import checks
from npgd.operators import Gaussian, LinearOperator, MatrixOperator

SETS = ("circle", "curve", "flat torus", "torus", "sphere")
SHAPE = (1, 4, 4)
TURN = 6.2831853072  # a little more than 2π
BEND = 0.5  # a of the curve
FACTOR = 2.0  # σ of the curve
TUBE = 0.5  # radius of the tube of a torus, that of its core being 1
LATITUDE = 1.0  # of the sphere, in radians: any tangent direction is found on the equator
_COS = math.pi / 2

# Frequencies and phases of the sines, how they are mixed, the box, and what is periodic.
_SINES: dict[str, tuple[list[list[float]], list[float], list[list[float]]]] = {
    "circle": ([[1], [1]], [_COS, 0], [[1, 0], [0, 1]]),
    "curve": (
        [[1], [1], [2], [2]],
        [_COS, 0, _COS, 0],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, BEND, 0], [0, 0, 0, BEND]],
    ),
    "flat torus": (
        [[1, 0], [1, 0], [0, 1], [0, 1]],
        [_COS, 0, _COS, 0],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, TUBE, 0], [0, 0, 0, TUBE]],
    ),
    # ((1 + r cos a) cos b, (1 + r cos a) sin b, r sin a)
    "torus": (
        [[0, 1], [1, 1], [-1, 1], [0, 1], [1, 1], [-1, 1], [1, 0]],
        [_COS, _COS, _COS, 0, 0, 0, 0],
        [
            [1, TUBE / 2, TUBE / 2, 0, 0, 0, 0],
            [0, 0, 0, 1, TUBE / 2, TUBE / 2, 0],
            [0, 0, 0, 0, 0, 0, TUBE],
        ],
    ),
    # (cos a cos b, cos a sin b, sin a)
    "sphere": (
        [[1, 1], [-1, 1], [1, 1], [-1, 1], [1, 0]],
        [_COS, _COS, 0, 0, 0],
        [[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 1]],
    ),
}


def analytic_case(
    name: str, m: int = 8, seed: int = 0
) -> tuple[LayeredSet, LinearOperator, tuple[float, float]]:
    """A set of `SETS`, an operator with m rows, and the true α and β to about 14 digits.

    Raises:
        ValueError: an unknown name, or fewer rows than directions.
    """
    checks.choice(name, "name", *SETS)
    m, n = checks.integer(m, "m", minimum=4), math.prod(SHAPE)
    frequencies, phases, mix = (torch.tensor(x, dtype=torch.float64) for x in _SINES[name])
    draws = torch.randn(n, len(mix), generator=checks.seeded(seed), dtype=torch.float64)
    Q = torch.linalg.qr(draws)[0]
    k = frequencies.shape[1]
    low, high, periodic = [0.0] * k, [TURN] * k, [True] * k
    if name == "sphere":
        low[0], high[0], periodic[0] = -LATITUDE, LATITUDE, False
    S = LayeredSet(
        [frequencies, mix, Q],
        [phases, Q.new_zeros(len(mix)), Q.new_zeros(n)],
        SHAPE, ("sin", "identity"), low, high, periodic,
    )  # fmt: skip
    if name == "curve":
        scales = torch.tensor([1.0, 1.0, FACTOR, FACTOR], dtype=torch.float64)
        stretch = 4 * BEND**2
        known = (1.0, (1 + FACTOR**2 * stretch) / (1 + stretch))
        return S, MatrixOperator(scales[:, None] * Q.T, SHAPE), known
    A = Gaussian(SHAPE, m, seed=seed, dtype=torch.float64)
    values = torch.linalg.eigvalsh((A.matrix @ Q).T @ (A.matrix @ Q))
    return S, A, (float(values[0]), float(values[-1]))
