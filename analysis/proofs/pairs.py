"""Cells of pairs of latents, and the proof that ‖A s‖² − t‖s‖² has one sign on all of a cell.

A pair is p ± d/2; a cell is a box of p times a box of d. With ψ = R φ, R such that ‖s‖ ≈ ‖ψ₁ − ψ₂‖,
s stands for its coordinates and M for the matrix of the form, N − t I or t I − N with N the matrix
of ‖A s‖². To be shown: sᵀM s ≥ 0. Over a cell,

    s = s_c + V δ + ½ H[δ, δ] + R ϱ,    |ϱ_j| ≤ ρ_j,    δ = (p − p_c, d − d_c), |δ_i| ≤ w_i,

in one of two ways:

- *far*, expanded at both ends c₁, c₂ = p_c ± d_c/2: s_c = ψ(c₁) − ψ(c₂), V and H from the
  derivatives at both ends, ρ = (Φ₁ + Φ₂) r³/6, Φ the bounds on D³φ within r = ‖w_p + w_d/2‖;
- *near*, expanded in the middle: s = ∫ Dψ(p + τd) d dτ over |τ| ≤ ½, so that odd terms in τ cancel:
  s_c = Dψ(p_c) d_c, V = (D²ψ[·, d_c], Dψ), H = D²ψ (mixed), ρ = ½ Φ(‖w_p‖² + ‖d‖²/12)‖d‖. What is
  left out is proportional to ‖d‖: this is what makes short secants, and with them tangents,
  provable.

Then sᵀM s ≥ s_cᵀM s_c − 2 Σ|g_i|w_i + (least value of the quadratic terms) − (the rest, by norms).

A near cell whose box of d holds 0 is shown for *all* directions d at once: with d = C u,
uᵀCᵀ(J + D²ψ[δ_p])ᵀM(J + D²ψ[δ_p])C u − rest is bounded below by scaled Gershgorin circles of a
k × k matrix, C chosen so that the matrix in the centre is diagonal. Cells are split until they are
shown; a box of d around 0 is split in three, so that the middle one is around 0, and the mirror
image of a part (d → −d, the same pairs) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float

from analysis.proofs.taylor import (
    UNIT,
    WIDER,
    LayeredSet,
    Rounding,
    expand,
    gamma,
    pairs_of,
    rounding,
    through,
)

Matrix = Float[torch.Tensor, "features features"]
Wide = Float[torch.Tensor, "count two_k"]
PerCell = Float[torch.Tensor, " count"]

NEAR = 1.5
"""Radius of the hull of a pair up to which the expansion in the middle is tried."""
GAP = 1e-13
"""Cells are widened by it, which closes what rounding leaves between neighbours."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The quadratic forms of S and A in coordinates where ‖s‖² is nearly the identity."""

    S: LayeredSet
    R: Matrix
    """ψ = R φ."""
    spread: float
    """At least ‖R‖."""
    N: Matrix
    """‖A s‖² = sᵀN s, to `error_measured`‖s‖²."""
    eigenvalues: tuple[float, float]
    """Certain bounds on those of N."""
    error: float
    """|‖s‖² − ‖ψ₁ − ψ₂‖²| is at most this times ‖ψ₁ − ψ₂‖²."""
    error_measured: float
    rounding: Rounding
    """Of ψ and its derivatives: largest norms of the errors; the sizes are those of φ."""

    @property
    def span(self) -> tuple[float, float]:
        """Certain bounds on the ratio of every direction in the span of all differences."""
        low, high = self.eigenvalues
        most = (high + self.error_measured) / (1 - self.error)
        return max((low - self.error_measured) / (1 + self.error) / WIDER, 0.0), WIDER * most


def frame(
    S: LayeredSet, measured: Float[torch.Tensor, "m features"], error: float, largest: float
) -> Frame:
    """The forms of a set and an operator.

    Args:
        S: in float64.
        measured: A W, its columns to `error` each in norm.
        error: of `measured`.
        largest: entry of any latent in use.

    Raises:
        ValueError: features that depend linearly on each other, to rounding.
    """
    W = S.weights[-1].detach()
    h = W.shape[1]
    gram = W.T @ W
    triangle, failed = torch.linalg.cholesky_ex(gram, upper=True)
    inverse = torch.linalg.inv(triangle) if not int(failed) else torch.full_like(gram, torch.nan)
    # ‖R⁻¹‖ ≤ ‖Y‖/(1 − ‖I − Y R‖), Y the computed inverse.
    eye = torch.eye(h, dtype=W.dtype)
    norm_y, norm_r = frobenius(inverse), frobenius(triangle)
    off = frobenius(eye - inverse @ triangle) + 2 * gamma(h + 2) * norm_y * norm_r
    if not off < 0.5:
        raise ValueError(
            "prior must have features whose images in the last layer are independent, got a last"
            f" layer of condition above {float(norm_y * norm_r):.2g}"
        )
    back = norm_y / (1 - off)
    size_w = frobenius(W)
    slack = frobenius(gram - triangle.T @ triangle)
    slack += 2 * gamma(len(W) + 2) * size_w**2 + 2 * gamma(h + 2) * norm_r**2
    # N = R⁻ᵀ(AW)ᵀ(AW)R⁻¹, from B ≈ A W R⁻¹ with residual ‖A W − B R‖.
    B = measured @ inverse
    norm_b = frobenius(B)
    rest = frobenius(measured - B @ triangle) + 2 * gamma(h + 2) * norm_b * norm_r
    rest = (rest + error * h**0.5) * back
    N = B.T @ B
    N = (N + N.T) / 2
    error_n = rest * (2 * norm_b + rest) + 2 * gamma(len(measured) + 4) * norm_b**2
    e = through(triangle, *_sizes(S, largest))[1]
    sizes = rounding(S, largest).sizes
    value, first, second = (WIDER * h**0.5 * x for x in e)
    entries = Rounding(value, first, second, sizes)
    return Frame(
        S, triangle, WIDER * spectral(triangle), N, extremes(N), WIDER * slack * back**2,
        WIDER * error_n, entries,
    )  # fmt: skip


def _sizes(
    S: LayeredSet, largest: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    found = rounding(S, largest)
    return found.sizes, (found.value, found.first, found.second)


def frobenius(matrix: torch.Tensor) -> float:
    """Frobenius norm, rounded up."""
    return WIDER * float(torch.linalg.matrix_norm(matrix))


def spectral(matrix: torch.Tensor) -> float:
    """An upper bound on the spectral norm: by the certain eigenvalues of the Gram matrix."""
    gram = matrix.T @ matrix
    slack = 2 * gamma(len(matrix) + 2) * frobenius(matrix) ** 2
    return float((extremes((gram + gram.T) / 2)[1] + slack) ** 0.5)


def extremes(matrix: Matrix) -> tuple[float, float]:
    """Certain bounds on the eigenvalues of a symmetric matrix.

    With computed Λ, V: the matrix is V Λ Vᵀ + E, and the eigenvalues of V Λ Vᵀ are those of Λ times
    factors within ‖VᵀV − I‖ of 1 (Ostrowski); ‖E‖ and that are measured, with their rounding.
    """
    h = len(matrix)
    values, vectors = torch.linalg.eigh(matrix)
    size = float(values.abs().max())
    own = 4 * gamma(h + 4) * h
    off = frobenius(vectors.T @ vectors - torch.eye(h, dtype=matrix.dtype)) + own
    rest = frobenius(matrix - (vectors * values) @ vectors.T) + own * (1 + off) ** 2 * size
    slack = WIDER * (rest + off * size)
    return float(values[0]) - slack, float(values[-1]) + slack


@dataclass(frozen=True, eq=False)
class Cells:
    """Boxes of (p, d): centres and half-widths, p first."""

    centre: Wide
    half: Wide

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, rows: torch.Tensor | slice) -> Cells:
        return Cells(self.centre[rows], self.half[rows])

    @property
    def around(self) -> torch.Tensor:
        """Whether 0 is in the box of d, (count, k) coordinate by coordinate."""
        k = self.centre.shape[1] // 2
        return self.centre[:, k:].abs() <= self.half[:, k:]

    @property
    def farthest(self) -> PerCell:
        """Largest ‖d‖."""
        k = self.centre.shape[1] // 2
        ends = self.centre[:, k:].abs() + self.half[:, k:]
        longest: PerCell = WIDER * torch.linalg.vector_norm(ends, dim=1) + GAP
        return longest


@dataclass(frozen=True, eq=False)
class Form:
    """sᵀM s ≥ 0 is to be shown."""

    frame: Frame
    M: Matrix
    norm: float
    """At least ‖M‖."""
    negative: float
    """At least −(least eigenvalue of M), and at least 0."""


def form(frame: Frame, ratio: float, lower: bool) -> Form:
    """The form that is nonnegative where ‖A s‖² ≥ ratio ‖s‖² (`lower`), or ≤ ratio ‖s‖²."""
    slack = WIDER * (frame.error_measured + ratio * frame.error)
    slack += 8 * UNIT * (abs(frame.eigenvalues[1]) + ratio)
    eye = torch.eye(len(frame.N), dtype=frame.N.dtype)
    low, high = frame.eigenvalues
    if lower:
        M, least, most = frame.N - (ratio + slack) * eye, low - ratio, high - ratio
    else:
        M, least, most = (ratio - slack) * eye - frame.N, ratio - high, ratio - low
    least, most = least - 2 * slack, most + 2 * slack
    return Form(frame, M, WIDER * max(abs(least), abs(most)), WIDER * max(-least, 0.0))


@dataclass(frozen=True, eq=False)
class Expansion:
    """s = s_c + V δ + ½ H[δ, δ] + R ϱ over cells."""

    start: Float[torch.Tensor, "count features"]
    slopes: Float[torch.Tensor, "count two_k features"]
    bends: Float[torch.Tensor, "count two_k two_k features"]
    rest: Float[torch.Tensor, "count features"]
    """ρ."""
    error: PerCell
    """Norm of what rounding adds."""


def square(rows: torch.Tensor, k: int) -> Float[torch.Tensor, "count k k features"]:
    """Second derivatives, both ways round."""
    place = torch.zeros(k, k, dtype=torch.long)
    for n, (i, j) in enumerate(pairs_of(k)):
        place[i, j] = place[j, i] = n
    return rows[:, 1 + k :][:, place]


def far(frame: Frame, cells: Cells) -> Expansion:
    """Expansion at both ends."""
    k, R = frame.S.latent_dim, frame.R
    p, d = cells.centre[:, :k], cells.centre[:, k:]
    reach = cells.half[:, :k] + cells.half[:, k:] / 2
    radius = WIDER * reach.norm(dim=1) + GAP
    ends = torch.cat([p + d / 2, p - d / 2])
    rows, third = expand(frame.S, ends, radius.repeat(2))
    rows = rows @ R.T
    one, two = rows.chunk(2)
    plus, minus = one + two, one - two
    slopes = torch.cat([minus[:, 1 : 1 + k], plus[:, 1 : 1 + k] / 2], dim=1)
    up, down = square(plus, k), square(minus, k)
    bends = torch.cat(
        [torch.cat([down, up / 2], dim=2), torch.cat([up / 2, down / 4], dim=2)], dim=1
    )
    total = third[: len(p)] + third[len(p) :]
    own, w = frame.rounding, radius
    error = 2 * (own.value + w * own.first * k + w * w * own.second * k * k)
    return Expansion(minus[:, 0], slopes, bends, WIDER * total * (radius**3 / 6)[:, None], error)


def near(frame: Frame, cells: Cells) -> Expansion:
    """Expansion in the middle."""
    k, R = frame.S.latent_dim, frame.R
    p, d = cells.centre[:, :k], cells.centre[:, k:]
    longest = cells.farthest
    across = WIDER * cells.half[:, :k].norm(dim=1) + GAP
    rows, third = expand(frame.S, p, across + longest / 2)
    rows = rows @ R.T
    J, H = rows[:, 1 : 1 + k], square(rows, k)
    slopes = torch.cat([torch.einsum("bijh,bj->bih", H, d), J], dim=1)
    bends = H.new_zeros(len(p), 2 * k, 2 * k, H.shape[-1])
    bends[:, :k, k:] = H
    bends[:, k:, :k] = H.transpose(1, 2)
    rest = 0.5 * WIDER * third * ((across**2 + longest**2 / 12) * longest)[:, None]
    own = frame.rounding
    products = J.flatten(1).norm(dim=1) + across * H.flatten(1).norm(dim=1)
    error = longest * (2 * k * (own.first + k * across * own.second) + 64 * k * UNIT * products)
    return Expansion(torch.einsum("bih,bi->bh", J, d), slopes, bends, rest, error)


def bound(form: Form, s: Expansion, half: Wide) -> tuple[PerCell, Wide]:
    """A lower bound on sᵀM s over each cell, and how much each coordinate's width costs it."""
    M, R = form.M, form.frame.R
    half = WIDER * half + GAP
    Ms = s.start @ M
    first = 2 * (s.slopes @ Ms[:, :, None])[:, :, 0].abs() * half
    quadratic = s.slopes @ M @ s.slopes.transpose(1, 2) + (s.bends @ Ms[:, None, :, None])[..., 0]
    quadratic = half[:, :, None] * quadratic * half[:, None, :]
    diagonal = quadratic.diagonal(dim1=1, dim2=2)
    cross = quadratic.abs().sum(2) - diagonal.abs()
    second = cross + (-diagonal).clamp_min(0.0)
    length_s = s.start.norm(dim=1)
    length_v = s.slopes.norm(dim=2) * half
    length_h = (half[:, :, None] * s.bends.norm(dim=3) * half[:, None, :]).sum(2) / 2
    v, h = length_v.sum(1), length_h.sum(1)
    spread = form.frame.spread
    rho = torch.minimum(spread * s.rest.norm(dim=1), (s.rest @ R.abs().T).norm(dim=1))
    ball = rho + s.error
    pull = 2 * ((Ms @ R).abs() * s.rest).sum(1)
    higher = 2 * form.norm * v * h + form.negative * h * h
    remainder = pull + 2 * form.norm * (v + h) * ball + form.negative * ball * ball
    remainder = remainder + 2 * form.norm * length_s * s.error
    size = length_s + v + h + ball
    # Rounding of all of the above, by γ of nested sums over features.
    rounded = 64 * len(M) ** 1.5 * UNIT * form.norm * size * size
    start = (Ms * s.start).sum(1)
    known = start - WIDER * (first.sum(1) + higher + remainder) - rounded
    lost = second.sum(1)
    close = ((known >= 0) & (known < WIDER * lost)).nonzero()[:, 0]
    lost[close] = torch.minimum(lost[close], -half.shape[1] * _least(quadratic[close]))
    lower = known - WIDER * lost
    share = half / half.sum(1, keepdim=True)
    cost = first + second + higher[:, None] * length_v / v[:, None].clamp_min(1e-300)
    return lower, cost + remainder[:, None] * share


def _least(matrices: Float[torch.Tensor, "count k k"]) -> PerCell:
    """At most the least eigenvalue of every symmetric matrix, and at most 0; as `extremes`."""
    matrices = (matrices + matrices.transpose(1, 2)) / 2
    values, vectors = torch.linalg.eigh(matrices)
    turned = vectors.transpose(1, 2)
    eye = torch.eye(matrices.shape[1], dtype=matrices.dtype)
    off = (turned @ vectors - eye).flatten(1).norm(dim=1) + 1e-13
    size = values.abs().amax(1)
    rest = (matrices - vectors * values[:, None] @ turned).flatten(1).norm(dim=1) + 1e-13 * size
    least: PerCell = (values[:, 0] - WIDER * (rest + off * size)).clamp_max(0.0)
    return least


def all_directions(form: Form, cells: Cells, s: Expansion) -> tuple[PerCell, Wide]:
    """What is ≥ 0 only where sᵀM s ≥ 0 for every d = C u of cells, and each coordinate's cost.

    Of the near expansion it takes the slopes along d, Dψ(p_c), and the mixed bends, D²ψ(p_c).
    """
    k, M, R = form.frame.S.latent_dim, form.M, form.frame.R
    J, H = s.slopes[:, k:], s.bends[:, :k, k:]  # (count, k, h), (count, k, k, h)
    C = diagonalising(J, M)
    J, H = C.transpose(1, 2) @ J, torch.einsum("bci,bpch->bpih", C, H)
    half = WIDER * cells.half + GAP
    across, along = half[:, :k], half[:, k:]
    # CᵀJJᵀC within ½ of I, so that C is regular and d = C u reaches every d.
    gram = J @ J.transpose(1, 2) - torch.eye(k, dtype=J.dtype)
    regular = gram.flatten(1).norm(dim=1) < 0.4
    JM = J @ M
    centre = JM @ J.transpose(1, 2)
    turn = torch.einsum("bih,bpjh->bpij", JM, H)
    turn = (turn + turn.transpose(2, 3)).abs() * across[:, :, None, None]
    bend = (H.flatten(2).norm(dim=2) * across).sum(1)
    # ρ is for the longest d; per unit of ‖d‖ it is that over the length.
    unit = C.flatten(1).norm(dim=1) / cells.farthest
    rest, error = s.rest * unit[:, None], s.error * unit
    ball = error + torch.minimum(
        form.frame.spread * rest.norm(dim=1), (rest @ R.abs().T).norm(dim=1)
    )
    pull = 2 * ((JM @ R).abs() @ rest[:, :, None])[:, :, 0].norm(dim=1)
    length = J.flatten(1).norm(dim=1)
    remainder = pull + 2 * form.norm * (length * error + bend * ball) + form.negative * ball * ball
    second = form.negative * bend * bend
    size = length + bend + ball
    rounded = 64 * len(M) ** 1.5 * UNIT * form.norm * size * size
    # A symmetric matrix with diagonal at least D and the rest at most E is positive semidefinite
    # where D x ≥ E x for some x > 0; x = D^(-1/2) is the best for k = 2.
    change = turn.sum(1)
    diagonal = centre.diagonal(dim1=1, dim2=2) - change.diagonal(dim1=1, dim2=2)
    diagonal = diagonal - (WIDER * (second + remainder) + rounded)[:, None]
    others = WIDER * (centre.abs() + change) * (1 - torch.eye(k, dtype=J.dtype))
    x = diagonal.clamp_min(1e-300).rsqrt().clamp_max(1e100)
    lower = (diagonal * x / WIDER - (others @ x[:, :, None])[:, :, 0]).amin(1)
    weights = torch.cat([across.square(), along.square() / 12], dim=1)
    cost = remainder[:, None] * weights / weights.sum(1, keepdim=True)
    cost[:, :k] += turn.flatten(2).norm(dim=2) + second[:, None] * across / across.sum(
        1, keepdim=True
    )
    return torch.where(regular & (error < 0.01), lower, -torch.inf), cost


def diagonalising(J: torch.Tensor, M: Matrix) -> Float[torch.Tensor, "count k k"]:
    """C with CᵀJJᵀC ≈ I and CᵀJ M JᵀC ≈ diagonal; which C it is need not be certain."""
    k = J.shape[1]
    gram = J @ J.transpose(1, 2)
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    gram = gram + (1e-12 * trace + 1e-280)[:, None, None] * torch.eye(k, dtype=J.dtype)
    triangle = torch.linalg.cholesky_ex(gram)[0]
    eye = torch.eye(k, dtype=J.dtype).expand_as(gram)
    whitening = torch.linalg.solve_triangular(triangle, eye, upper=False).transpose(1, 2)
    inside = whitening.transpose(1, 2) @ (J @ M @ J.transpose(1, 2)) @ whitening
    inside = torch.nan_to_num((inside + inside.transpose(1, 2)) / 2)
    return torch.nan_to_num(whitening @ torch.linalg.eigh(inside)[1])


def ratios(frame: Frame, s: torch.Tensor, error: PerCell, lower: bool) -> PerCell:
    """‖A s‖²/‖s‖² of directions known to `error` in norm: rounded up for `lower`, else down."""
    size, square = s.norm(dim=1), (s @ frame.N * s).sum(1)
    top = max(abs(x) for x in frame.eigenvalues)
    near_n = 2 * top * size * error + top * error**2 + 1e-12 * top * size**2
    near_n = near_n + frame.error_measured * (size + error) ** 2
    if lower:
        least = (WIDER**-1 * size - error).clamp_min(0.0)
        above: PerCell = WIDER * (square + near_n) / (least**2 * (1 - frame.error) / WIDER)
        return above
    most = (WIDER * size + error) ** 2 * (1 + frame.error) * WIDER
    below: PerCell = (square - near_n) / WIDER / most
    return below
