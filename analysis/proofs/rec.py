"""Restricted eigenvalue constants from both sides, by branch and bound over pairs of latents.

For S = {G(z) : z in a box}, α = inf and β = sup of ‖A(G(z₁) − G(z₂))‖²/‖G(z₁) − G(z₂)‖² over pairs
whose images differ. A pair that was looked at bounds α from above and β from below. From the other
side, ‖A s‖² − t‖s‖² ≥ 0 is proved for every pair at t = (the least ratio found)/(1 + ε), and
likewise for β: the box of all pairs is split until the inequality holds on every cell by the
bounds of `analysis.proofs.pairs`, which are rigorous in float64: what is left out of an expansion
and what rounding adds are both bounded. Tangents, the limits of short secants, are included.

The number of cells grows like that of boxes in 2k dimensions: k = 1 and 2 are a matter of seconds
and minutes, k = 3 of hours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from analysis.local.doors import check_fit, check_operator
from analysis.proofs.pairs import Frame, frame
from analysis.proofs.taylor import LayeredSet, gamma, layers_of
from analysis.proofs.tree import Domain, Side, prove, replay, start, weaker
from analysis.words import at_least, at_most
from npgd import checks, sets
from npgd.files import plain
from npgd.operators import LinearOperator, MatrixOperator
from npgd.precision import converted, plainly
from npgd.progress import bar
from npgd.sets import GENERATED, Generated
from npgd.showing import Shown

FUNCTIONS = "tanh, sin and cos of the library are within 16 units of roundoff (2⁻⁵³)"
ARITHMETIC = "float64 sums and products round to nearest; sums in any order"
PRODUCTS = "A's products in float64 are within 10⁻¹² of the largest they can be"
PRODUCT_ERROR = 1e-12
POINTS = 4096
"""Random pairs, and as many tangent spaces, that are looked at first."""
SHORT = 1 - 1e-9
"""So that rounding does not take κ's ends farther apart than the tolerance."""

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class CertifiedRec(Shown):
    """α, β and κ = β/α of A on S, each from both sides."""

    alpha: Interval
    """α lies between: the lower end is proved for all pairs, the upper seen at `lowest`."""
    beta: Interval
    """β lies between: the upper end is proved for all pairs, the lower seen at `highest`."""
    cells: tuple[int, int]
    """Cells examined for α and for β."""
    complete: bool
    """Whether every cell was shown at the wanted tolerance."""
    lowest: Float[torch.Tensor, "2 k"]
    """Latents of the pair of `alpha`'s upper end; a tangent is the limit of pairs along the
    segment between the two."""
    highest: Float[torch.Tensor, "2 k"]
    """Latents of the pair of `beta`'s lower end."""
    tangent: tuple[bool, bool]
    """Whether they are tangents."""
    assumptions: tuple[str, ...]
    """What is taken as given, not proved."""
    certificate: dict[str, Any]
    """The box, the constants, and every split of both proofs, for `check_rec`."""

    @property
    def kappa(self) -> Interval:
        """κ lies between; ∞ where α is only known to be at least 0."""
        low = self.beta[0] / self.alpha[1]
        high = self.beta[1] / self.alpha[0] if self.alpha[0] > 0 else math.inf
        return low * (1 - 1e-15), high * (1 + 1e-15)

    @property
    def status(self) -> str:
        """What is proved, in words."""
        low, high = self.kappa
        text = f"proved: κ is at least {at_least(low)}"
        text += f" and at most {at_most(high)}" if math.isfinite(high) else "; no upper bound"
        if not self.complete:
            text += "; the budget was spent before the wanted tolerance"
        if high < 2:
            text += "; κ < 2, as Theorem 1 asks"
        elif low >= 2:
            text += "; Theorem 1 does not apply, for κ ≥ 2"
        return text

    def __str__(self) -> str:
        kinds = ["a tangent" if tangent else "a pair" for tangent in self.tangent]
        return "\n".join(
            [
                f"certified constants: {self.status}",
                f"  α from {at_least(self.alpha[0], 5)} (all pairs) to {at_most(self.alpha[1], 5)}"
                f" ({kinds[0]})",
                f"  β from {at_least(self.beta[0], 5)} ({kinds[1]}) to {at_most(self.beta[1], 5)}"
                " (all pairs)",
                f"  cells of pairs: {self.cells[0]:,} for α, {self.cells[1]:,} for β",
                *(f"  taken as given: {text}" for text in self.assumptions),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, without the certificate; an infinite κ is None."""
        return {
            "status": self.status,
            "alpha": list(self.alpha),
            "beta": list(self.beta),
            "kappa": plain(list(self.kappa)),
            "cells": list(self.cells),
            "complete": self.complete,
            "lowest": self.lowest.tolist(),
            "highest": self.highest.tolist(),
            "tangent": list(self.tangent),
            "assumptions": list(self.assumptions),
        }


@plainly
@torch.no_grad()
def certify_rec(
    A: LinearOperator,
    prior: Generated,
    *,
    box: float | Sequence[Sequence[float]] | None = None,
    tolerance: float = 0.1,
    max_cells: int = 4_000_000,
    span: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> CertifiedRec:
    """α, β and κ of A on S = {G(z) : z in a box}, proved from both sides.

    The method stands in the module's docstring.

    Args:
        A: the operator. A matrix is followed to the last digit; of others it is assumed that their
            products are right to 10⁻¹².
        prior: `LayeredSet`, or a prior whose generator is an nn.Sequential of linear layers with
            tanh between them (`npgd.networks.TanhGenerator`). What is proved is of the map in real
            arithmetic that these weights define.
        box: of latents: r for [−r, r]ᵏ, or (low, high) with k numbers each; by default the set's
            own, and 2 for a prior. A periodic latent closes to a circle only over the set's own.
        tolerance: wanted of κ: upper over lower end is at most 1 + tolerance, half of it for α and
            half for β.
        max_cells: for α and β each; where it does not do, the bounds are weaker, and hold.
        span: whether a side is done without branch and bound where the constant of the span of all
            differences, an eigenvalue, serves.
        seed: of the first look at random pairs.
        progress: show a progress bar.

    Raises:
        TypeError: a set of another kind, or an argument of another kind.
        ValueError: shapes that do not fit, or layers that float64 cannot follow.
    """
    tolerance = checks.number(tolerance, "tolerance")
    max_cells, seed = checks.integer(max_cells, "max_cells"), checks.seed(seed)
    span, progress = checks.flag(span, "span"), checks.flag(progress, "progress")
    setting, domain, assumptions = _prepared(A, prior, box)
    sides, ends = [], []
    for lower in (True, False):
        side = Side(
            lower,
            math.inf if lower else 0.0,
            torch.empty(0),
            False,
            (1 + tolerance) ** 0.5 * SHORT - 1,
        )
        start(setting, domain, side, POINTS, seed)
        least, most = setting.span
        if span and (least >= side.target if lower else most <= side.target):
            ends.append(least if lower else most)
        else:
            with bar(None, f"cells for {'α' if lower else 'β'}", progress) as shown:
                prove(setting, domain, side, max_cells, shown)
            ends.append(side.target if side.left is None else weaker(setting, domain, side))
        sides.append(side)
    low, high = sides
    complete = low.left is None and high.left is None
    certificate: dict[str, Any] = {
        "low": domain.low.tolist(),
        "high": domain.high.tolist(),
        "periodic": list(domain.periodic),
        "alpha": ends[0],
        "beta": ends[1],
        "splits": [side.splits for side in sides] if complete else None,  # [] by the span alone
    }
    return CertifiedRec(
        alpha=(ends[0], low.found),
        beta=(high.found, ends[1]),
        cells=(low.cells, high.cells),
        complete=complete,
        lowest=_ends(low),
        highest=_ends(high),
        tangent=(low.tangent, high.tangent),
        assumptions=assumptions,
        certificate=certificate,
    )


@plainly
@torch.no_grad()
def check_rec(A: LinearOperator, prior: Generated, certificate: dict[str, Any]) -> str:
    """Check a certificate of `certify_rec`: that its cells hold all pairs, and each is shown.

    Nothing is searched: the splits are followed from the box of all pairs, and every cell that was
    not split has to satisfy the inequality at the recorded α or β.

    Args:
        A, prior: as given to `certify_rec`.
        certificate: `CertifiedRec.certificate`.

    Returns:
        "valid", or what is wrong, in words.

    Raises:
        TypeError, ValueError: as `certify_rec`, or a certificate of something else.
    """
    wanted = {"low", "high", "periodic", "alpha", "beta", "splits"}
    if not isinstance(certificate, dict) or not wanted <= set(certificate):
        raise TypeError(
            f"certificate must be that of a CertifiedRec, got {checks.shown(certificate)}"
        )
    box = (certificate["low"], certificate["high"])
    setting, domain, _ = _prepared(A, prior, box)
    if certificate["splits"] is None:
        return "no proof at the wanted tolerance: the budget was spent"
    if list(domain.periodic) != list(certificate["periodic"]):
        return "other latents close to a circle than in the set"
    for lower, name, splits in zip(
        (True, False), ("alpha", "beta"), certificate["splits"], strict=True
    ):
        value, (least, most) = float(certificate[name]), setting.span
        if not splits:
            holds = value <= least if lower else value >= most
            wrong = "" if holds else "an eigenvalue of the span does not bear it out"
        else:
            wrong = replay(setting, domain, splits, value, lower)
        if wrong:
            return f"{name}: {wrong}"
    return "valid"


def _ends(side: Side) -> Float[torch.Tensor, "2 k"]:
    p, d = side.witness.chunk(2)
    return torch.stack([p + d / 2, p - d / 2])


def _prepared(A: object, prior: object, box: object) -> tuple[Frame, Domain, tuple[str, ...]]:
    """The forms, the domain, and what is assumed."""
    check_operator(A)
    assert isinstance(A, LinearOperator)
    sets.needs(prior, *GENERATED, what="certified constants")
    S = layers_of(prior)
    check_fit(S.image_shape, A)
    if box is None:
        box = (S.low, S.high) if hasattr(prior, "low") else 2.0
    domain = domain_of(box, S)
    measured, error, assumptions = measured_layer(A, S)
    setting = frame(S, measured, error, domain.largest())
    return setting, domain, (ARITHMETIC, FUNCTIONS, *assumptions)


def domain_of(box: object, S: LayeredSet) -> Domain:
    """The box of latents; ValueError where it is none."""
    k = S.latent_dim
    if not isinstance(box, Sequence) and not getattr(box, "ndim", 0):
        radius = checks.number(box, "box")
        ends = [[-radius] * k, [radius] * k]
    else:
        pair = checks.in_a_row(box, "box", "corners")
        if len(pair) != 2:
            raise ValueError(f"box must be (low, high), got {len(pair)} corners")
        ends = [
            [
                checks.number(x, "box", zero=True, negative=True)
                for x in checks.in_a_row(corner, "box")
            ]
            for corner in pair
        ]
    low, high = (torch.tensor(end, dtype=torch.float64) for end in ends)
    if len(low) != k or len(high) != k or not bool((low < high).all()):
        raise ValueError(f"box must have low < high with {k} numbers each, got {checks.shown(box)}")
    # A part of a circle does not close.
    closed = zip(S.periodic, low.tolist(), high.tolist(), S.low, S.high, strict=True)
    periodic = tuple(p and (a, b) == (own, end) for p, a, b, own, end in closed)
    return Domain(low, high, periodic)


def measured_layer(
    A: LinearOperator, S: LayeredSet
) -> tuple[Float[torch.Tensor, "m features"], float, tuple[str, ...]]:
    """A W, the error of its columns in norm, and what that error assumes."""
    A, W = converted(A), S.weights[-1].detach()
    longest = 1.01 * float(W.norm(dim=0).max())
    if isinstance(A, MatrixOperator):
        norm = 1.01 * float(torch.linalg.matrix_norm(A.matrix))
        return A.matrix @ W, 2 * gamma(A.n + 2) * norm * longest, ()
    measured = A(W.T.reshape(-1, *S.image_shape)).T
    norm = 1.01 * float(A.norm())
    return measured, PRODUCT_ERROR * norm * longest, (PRODUCTS,)
