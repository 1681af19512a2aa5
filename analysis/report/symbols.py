"""The glossary of a report: what its symbols mean, in the words of docs/words.md.

A test holds every entry against that page.
"""

from __future__ import annotations

import re

SYMBOLS = {
    "x*": "the image to recover",
    "A": "the operator: linear, from images to measurements",
    "v": "the noise on the measurements",
    "y": "the measurements A x* + v",
    "S": "the set of plausible images; of a generator its range",
    "P": "the projector: G ∘ G†, or another map onto S",
    "x_n": "the n-th iterate, x_0 first",
    "η": "length of the gradient step; the theorem wants 1/β",
    "x̄": "the target: the best point of S found for x*, and x* itself where it lies in S",
    "error": "mean over pixels of (x_n − x*)²; 4 is black for white everywhere",
    "w_n": "x_n − η Aᵀ(A x_n − y), what P is given",
    "PSNR": "10 log₁₀(2²/error) of an image; of several, the mean of theirs",
    "secant": "x_1 − x_2, both in S",
    "tangent": "a limit of secants' directions: J u, J the Jacobian of G",
    "α": "the least ratio",
    "β": "the largest ratio",
    "κ": "β/α",
    "α(x*)": "the least ratio over the directions x − x*, x ∈ S",
    "κ(x*)": "β/α(x*), never above κ",
    "direction": "a difference of two points of S, or a limit of such",
    "ratio": "‖A s‖²/‖s‖² of a direction s",
    "δ": "the projector's error: the largest excess in squared distance; sum over pixels",
    "α_n": "f_n/‖e_n‖²",
    "β_n": "‖A d_n‖²/‖d_n‖²",
    "δ_n": "‖x_{n+1} − w_n‖² − ‖x* − w_n‖²; negative where P comes nearer than x* is",
    "θ_n": (
        "−δ_n/‖e_{n+1}‖²: by how much the projector turned back at an obtuse angle, seen from x*"
    ),
    "κ_n": "β_n/α_n",
    "e_n": "x_n − x*",
    "d_n": "x_{n+1} − x_n; its length ‖d_n‖ is the step",
    "f_n": "‖A e_n‖²: F_n without the noise",
    "objective": "‖A x_n − y‖², without ½",
    "F_n": "the objective ‖A x_n − y‖², without ½",
    "bound": "an upper bound on F_n that constants promise",
    "slack": "bound minus observed, split into what α, β, δ and the noise cost",
    "void": "of a bound that does not fall: its rate is 1 or more",
    "fixed point": "the error where the evolution ends",
}
"""Symbol or word and what it is, the longer before those that they hold where text is searched."""

_NEEDS = {
    "α": ("ratio",), "β": ("ratio",), "α(x*)": ("ratio",), "κ": ("α", "β"), "α_n": ("f_n", "e_n"),
    "ratio": ("direction",), "bound": ("F_n",), "f_n": ("F_n",),
    "β_n": ("d_n",), "θ_n": ("δ_n", "e_n"), "κ_n": ("α_n", "β_n"),
}  # fmt: skip
"""What an explanation speaks of, explained with it."""


def new_symbols(text: str, known: set[str]) -> dict[str, str]:
    """The symbols of a text that are not known yet, in its order, which then are."""
    found: list[tuple[int, str]] = []
    for name in sorted(SYMBOLS, key=len, reverse=True):
        pattern = rf"(?<![\w(‖]){re.escape(name)}(?![\w*(])"
        if name.isascii() and len(name) > 3:
            pattern = rf"\b{re.escape(name)}s?\b"
        elif not name.isascii() or "_" in name:
            pattern = rf"(?<!\w){re.escape(name)}(?!\w)(?!\(x\*\))"
        if match := re.search(pattern, text):
            found.append((match.start(), name))
    waiting = [name for _, name in sorted(found)]
    names: list[str] = []
    while waiting:
        name = waiting.pop(0)
        if name not in known and name not in names:
            names.append(name)
            waiting = [*_NEEDS.get(name, ()), *waiting]
    known.update(names)
    return {name: SYMBOLS[name] for name in names}
