"""Theorem 1 of Raj, Li, Bresler (ICCV 2019), derived: `print(derive())`.

A displayed formula is the object that sympy checked: each carries the proof of its own two sides,
and one that does not follow is refused before it is displayed. The order is that of a proof: the
one-step identity, which assumes nothing, then what each assumption turns it into.

Model y = A x* + v, F_n = ‖A x_n − y‖² (no ½), e_n = x_n − x*, d_n = x_{n+1} − x_n, f_n = ‖A e_n‖².
One iteration is w_n = x_n − η Aᵀ(A x_n − y), x_{n+1} = P(w_n).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.str import StrPrinter

from npgd.showing import Shown


class DerivationError(AssertionError):
    """A step of the derivation does not follow: sympy found a difference."""


# ---------------------------------------------------------------------------------------------
# What is printed
# ---------------------------------------------------------------------------------------------

# Symbols by name: as plain text, and as LaTeX where that is not what sympy makes of the name.
_WRITTEN: dict[str, tuple[str, str | None]] = {
    "alpha": ("α", None),
    "alpha_n": ("α_n", None),
    "beta": ("β", None),
    "beta_n": ("β_n", None),
    "delta": ("δ", None),
    "delta_n": ("δ_n", None),
    "eta": ("η", None),
    "kappa": ("κ", None),
    "lambda": ("λ", None),
    "nu": ("ν", None),
    "rho": ("ρ", None),
    "theta": ("θ", None),
    "f_oo": ("f_∞", r"f_\infty"),
    "u_oo": ("u_∞", r"u_\infty"),
    "|d_n|": ("‖d_n‖", r"\lVert d_n\rVert"),
    "|d_{n-1}|": ("‖d_{n−1}‖", r"\lVert d_{n-1}\rVert"),
    "|e_n|": ("‖e_n‖", r"\lVert e_n\rVert"),
    "|e_{n+1}|": ("‖e_{n+1}‖", r"\lVert e_{n+1}\rVert"),
    "<Ae_{n+1},v>": ("⟨A e_{n+1}, v⟩", r"\langle A e_{n+1}, v\rangle"),
    "|e_oo|": ("‖e_∞‖", r"\lVert e_\infty\rVert"),
    "F_oo": ("F_∞", r"F_\infty"),
    "h_oo": ("h_∞", r"h_\infty"),
    "omega": ("ω", None),
    "|Ad_n|": ("‖A d_n‖", r"\lVert A d_n\rVert"),
    "|x_{n+1}-w_n|": ("‖x_{n+1} − w_n‖", r"\lVert x_{n+1} - w_n\rVert"),
    "|x*-w_n|": ("‖x* − w_n‖", r"\lVert x^* - w_n\rVert"),
    "|e_0|": ("‖e_0‖", r"\lVert e_0\rVert"),
    "|e_1|": ("‖e_1‖", r"\lVert e_1\rVert"),
    "|e_1 - qe_0|": ("‖e_1 − q e_0‖", r"\lVert e_1 - q e_0\rVert"),
    "<r_n,v>": ("⟨r_n, v⟩", r"\langle r_n, v\rangle"),
    "|Ae_1 + qAe_0|": ("‖A e_1 ± q A e_0‖", r"\lVert A e_1 \pm q A e_0\rVert"),
    "<r_n,r_{n-1}>": ("⟨r_n, r_{n−1}⟩", r"\langle r_n, r_{n-1}\rangle"),
    "<e_n,e_{n+1}>": ("⟨e_n, e_{n+1}⟩", r"\langle e_n, e_{n+1}\rangle"),
}
_LATEX_NAMES = {name: latex for name, (_, latex) in _WRITTEN.items() if latex}


class _Reader:
    """Orders sums and products as one writes them: κ − 1, and (κ − 1) f_n."""

    def _as_ordered_terms(self, expr: sp.Add, order: str | None = None) -> list[sp.Expr]:
        terms = sorted(expr.args, key=lambda term: bool(term.is_Number))
        first = next((t for t in terms if not t.could_extract_minus_sign()), terms[0])
        return [first, *(term for term in terms if term is not first)]

    _times, _bracket = " ", r"\left({}\right)"

    def _print_Mul(self, expr: sp.Mul) -> str:
        def is_quantity(factor: sp.Expr) -> bool:
            base = factor.as_base_exp()[0]
            return base.is_Symbol and base.name[0] in "fFhuV|<"

        last = sp.Mul(*(factor for factor in expr.args if is_quantity(factor)))
        first = expr / last
        if 1 in (first, last) or any(f.as_base_exp()[1].is_negative for f in expr.args):
            printed: str = super()._print_Mul(expr)  # type: ignore[misc]
            return printed
        if first == -1:
            return f"-{self._print(last)}"  # type: ignore[attr-defined]
        front = self._print(first)  # type: ignore[attr-defined]
        if first.is_Add:
            front = self._bracket.format(front)
        return f"{front}{self._times}{self._print(last)}"  # type: ignore[attr-defined]


class _PlainPrinter(_Reader, StrPrinter):  # type: ignore[misc]
    _times, _bracket = "*", "({})"

    def _print_Symbol(self, expr: sp.Symbol) -> str:
        name: str = expr.name
        return _WRITTEN.get(name, (name.replace("-", "−"), None))[0]

    def _print_Abs(self, expr: sp.Abs) -> str:
        return f"|{self._print(expr.args[0])}|"

    def _print_Min(self, expr: sp.Min) -> str:
        return f"min({', '.join(self._print(argument) for argument in expr.args)})"


class _LatexPrinter(_Reader, LatexPrinter):  # type: ignore[misc]
    pass


def _plain(expression: sp.Expr) -> str:
    text: str = _PlainPrinter({"order": "none"}).doprint(expression)
    text = re.sub(r"\*\*2(?!\d)", "²", text).replace("**", "^").replace("sqrt(", "√(")
    # The star of x* is followed by a space, that of a product is not.
    return re.sub(r"\*(?=\S)", "·", text.replace(" - ", " − "))


def _latex(expression: sp.Expr) -> str:
    names = {s: _LATEX_NAMES[s.name] for s in expression.free_symbols if s.name in _LATEX_NAMES}
    printed: str = _LatexPrinter({"order": "none", "symbol_names": names}).doprint(expression)
    return printed


class Check(NamedTuple):
    """An expression that must vanish, or be nonnegative by the signs of its symbols."""

    what: str
    expression: sp.Expr
    relation: str = "="

    def confirm(self) -> None:
        """Raises DerivationError unless sympy sees it."""
        if self.relation == "=":
            seen = not self._far_from_zero() and self._vanishes()
        else:
            reduced = sp.factor(sp.together(sp.simplify(self.expression)))
            seen = bool(reduced.is_nonnegative)
        if not seen:
            raise DerivationError(
                f"{self.what}: cannot see that {self.expression} {self.relation} 0"
            )

    def _vanishes(self) -> bool:
        if sp.expand(sp.numer(sp.together(self.expression))) == 0:
            return True
        # Roots of squares show once what stands under them is factored.
        factored = self.expression.replace(
            lambda part: part.is_Pow and part.exp == sp.S.Half,
            lambda part: sp.expand_power_base(sp.sqrt(sp.factor(part.base))),
        )
        return any(sp.simplify(sp.expand(each)) == 0 for each in (self.expression, factored))

    def _far_from_zero(self) -> bool:
        """Whether the value at one point already shows it, which is quicker than algebra."""
        symbols = sorted(self.expression.free_symbols, key=lambda symbol: symbol.name)
        values = {
            symbol: sp.Integer(3) if symbol.is_integer else sp.Rational(2 * i + 3, 3 * i + 7)
            for i, symbol in enumerate(symbols)
        }
        value = self.expression.evalf(30, subs=values)
        return bool(value.is_number and value.is_finite and abs(value) > 1e-12)


def _zero(what: str, expression: sp.Expr) -> Check:
    return Check(what, sp.sympify(expression))


def _nonnegative_check(what: str, expression: sp.Expr) -> Check:
    return Check(what, sp.sympify(expression), "≥")


RELATIONS: Mapping[str, str] = MappingProxyType({"=": "=", "≤": r"\le", "≥": r"\ge", "<": "<"})
"""Of a left side to a right one, and how LaTeX writes it."""


@dataclass(frozen=True)
class Proof:
    """What must hold for a formula with a given left and right side, and what it then proves."""

    relation: str
    """The one relation of left to right that the checks prove: "=", "≤", "≥" or "<"."""
    checks: Callable[[sp.Expr, sp.Expr], Iterable[Check]]


def _proves(relation: str) -> Callable[[Callable[[sp.Expr, sp.Expr], Iterable[Check]]], Proof]:
    """Makes the function below it a proof of this relation, and of no other."""
    return partial(Proof, relation)


@dataclass(frozen=True)
class Formula(Shown):
    """left (=, ≤, ≥ or <) right, and what proves it."""

    left: sp.Expr
    relation: str
    right: sp.Expr
    proof: Proof = field(repr=False, compare=False)

    def verify(self) -> tuple[str, ...]:
        """What sympy confirmed of these two sides, now.

        Raises:
            DerivationError: the formula does not follow, or its proof is one of another relation.
        """
        if self.relation != self.proof.relation:
            raise DerivationError(
                f"{self}: the proof is one of {self.proof.relation}, not of {self.relation}"
            )
        confirmed = []
        for check in self.proof.checks(self.left, self.right):
            check.confirm()
            confirmed.append(check.what)
        return tuple(confirmed)

    def __str__(self) -> str:
        return f"{_plain(self.left)} {self.relation} {_plain(self.right)}"

    def latex(self) -> str:
        return f"{_latex(self.left)} {RELATIONS[self.relation]} {_latex(self.right)}"


@dataclass(frozen=True)
class Step(Shown):
    """One step: prose and formulas in reading order, and what sympy checked on the way."""

    title: str
    body: tuple[str | Formula, ...]
    checks: tuple[str, ...]

    def __str__(self) -> str:
        lines = [_unquoted(self.title), ""]
        for part in self.body:
            if isinstance(part, Formula):
                lines += textwrap.wrap(
                    str(part),
                    96,
                    initial_indent=" " * 6,
                    subsequent_indent=" " * 10,
                    break_long_words=False,
                )
            else:
                lines += textwrap.wrap(_unquoted(part), 96, break_long_words=False)
        return "\n".join([*lines, "", *(f"  ✓ {_unquoted(check)}" for check in self.checks)])

    def latex(self) -> str:
        lines = [rf"\subsection*{{{_tex(self.title)}}}"]
        lines += [
            rf"\[ {part.latex()} \]" if isinstance(part, Formula) else _tex(part)
            for part in self.body
        ]
        checks = "; ".join(_tex(check) for check in self.checks)
        return "\n".join([*lines, rf"\emph{{Checked: {checks}.}}"])


@dataclass(frozen=True)
class Derivation(Shown):
    """The theorem, step by step; prints itself."""

    steps: tuple[Step, ...]
    """In the order of the proof."""
    expressions: Mapping[str, sp.Expr] = field(repr=False)
    """The results by name: sides of displayed formulas, κ − 1 written for r and ηβ − 1 for s.

    The bound on F_{n+1} of any step: `step_bound`, the square of the least of `root_star` (against
    x*), `root_stay` (against x_n) and, where it holds, `root_short` (η < 1/β); without noise and
    projector error `rate`; the bound on the limit of √F_n: `floor_root`, for η between `step_lower`
    and `step_upper`.

    With a projector that is obtuse by θ: the bound on ‖e_{n+1}‖² of η = 1/β `obtuse`, its limit
    `obtuse_floor`, that of ‖e_n‖ with noise `obtuse_noise_floor`; the bound on ‖e_{n+1}‖ of shorter
    and of longer steps, `obtuse_short` (m = 1 − ηβ) and `obtuse_long`; that on ‖e_{n+1}‖² of longer
    steps where P is obtuse at x_n as well, `obtuse_everywhere`.
    """
    symbols: Mapping[str, sp.Symbol] = field(repr=False)
    """By name."""

    @property
    def formulas(self) -> tuple[Formula, ...]:
        """Every displayed formula."""
        return tuple(part for step in self.steps for part in step.body if isinstance(part, Formula))

    @property
    def checks(self) -> tuple[str, ...]:
        """Everything that sympy verified."""
        return tuple(check for step in self.steps for check in step.checks)

    @property
    def status(self) -> str:
        return f"{len(self.steps)} steps, {len(self.checks)} checks, all of them passed"

    def __str__(self) -> str:
        numbered = [f"{i}. {step}" for i, step in enumerate(self.steps, 1)]
        return "\n\n".join([*numbered, self.status])

    def latex(self) -> str:
        """The body of a document: sections, displayed formulas, no preamble (needs amsmath)."""
        return "\n\n".join(step.latex() for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        return {
            "steps": [
                {
                    "title": _unquoted(step.title),
                    "body": [_unquoted(str(part)) for part in step.body],
                    "checks": [_unquoted(check) for check in step.checks],
                }
                for step in self.steps
            ],
            "expressions": {name: str(value) for name, value in self.expressions.items()},
            "status": self.status,
        }


_TEX = {
    "‖": r"\|",
    "α": r"\alpha ",
    "β": r"\beta ",
    "δ": r"\delta ",
    "η": r"\eta ",
    "θ": r"\theta ",
    "κ": r"\kappa ",
    "τ": r"\tau ",
    "ν": r"\nu ",
    "ρ": r"\rho ",
    "λ": r"\lambda ",
    "Σ": r"\sum ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "→": r"\to ",
    "⇔": r"\Leftrightarrow ",
    "∞": r"\infty ",
    "√": r"\surd ",
    "−": "-",
    "·": r"\cdot ",
    "…": r"\dots ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "²": "^2",
    "ᵀ": r"^{\top}",
    "ⁿ": "^n",
    "½": r"\tfrac12 ",
}


def _unquoted(prose: str) -> str:
    return prose.replace("`", "")


def _tex(prose: str) -> str:
    """Prose as LaTeX: what stands between backquotes, and other words with symbols, as formulas."""

    def formula(text: str) -> str:
        text = re.sub(r"_(\w\w+)", r"_{\1}", text).replace("*", "^*")
        for letter, command in _TEX.items():
            text = text.replace(letter, command)
        return f"${text.strip()}$"

    def word(text: str) -> str:
        bare = text.rstrip(",.;:")
        return formula(bare) + text[len(bare) :] if re.search(r"[^ -~]|[_*^]", bare) else text

    parts = prose.split("`")
    for i, part in enumerate(parts):
        parts[i] = formula(part) if i % 2 else " ".join(word(text) for text in part.split(" "))
    return "".join(parts)


# ---------------------------------------------------------------------------------------------
# What is checked
# ---------------------------------------------------------------------------------------------


class _Writer:
    """Collects the steps, and refuses those that do not follow."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.expressions: dict[str, sp.Expr] = {}
        self._title = ""
        self._body: list[str | Formula] = []
        self._checks: list[str] = []

    def step(self, title: str) -> None:
        self.close()
        self._title, self._body, self._checks = title, [], []

    def say(self, *parts: str) -> None:
        self._body += parts

    def claim(self, left: sp.Expr, relation: str, right: sp.Expr, proof: Proof) -> Formula:
        """Displays left (=, ≤, …) right, once `proof` of these two sides has been confirmed."""
        formula = Formula(sp.sympify(left), relation, sp.sympify(right), proof)
        try:
            self._checks += formula.verify()
        except DerivationError as error:
            raise DerivationError(f"{self._title}: {error}") from None
        self._body.append(formula)
        return formula

    def check(self, *checks: Check) -> None:
        """What a proof needs besides the formulas it displays."""
        for check in checks:
            try:
                check.confirm()
            except DerivationError as error:
                raise DerivationError(f"{self._title}: {error}") from None
            self._checks.append(check.what)

    def close(self) -> None:
        if self._title:
            self.steps.append(Step(self._title, tuple(self._body), tuple(self._checks)))


def _sum(*terms: sp.Expr) -> sp.Expr:
    """The sum, printed in this order."""
    return sp.Add(*(sp.sympify(term) for term in terms), evaluate=False)


# Linear combinations of named vectors, and their inner products as symbols.
_Vector = dict[str, sp.Expr]


def _add(*terms: tuple[Any, _Vector]) -> _Vector:
    """Σ coefficient · vector."""
    total: _Vector = {}
    for coefficient, vector in terms:
        for name, value in vector.items():
            total[name] = total.get(name, sp.Integer(0)) + coefficient * value
    return total


def _atom(name: str) -> _Vector:
    return {name: sp.Integer(1)}


def _inner(a: _Vector, b: _Vector, images: Mapping[str, str], gradient: _Vector) -> sp.Expr:
    """⟨a, b⟩ with one symbol for each pair of atoms.

    The atom "g" stands for Aᵀr, r = `gradient` in the measurement space: ⟨x, g⟩ = ⟨A x, r⟩, where
    `images` names A x for each atom x. ⟨g, g⟩ stays a symbol.
    """
    total = sp.Integer(0)
    for p, cp in a.items():
        for q, cq in b.items():
            if p == q == "g":
                total += cp * cq * sp.Symbol("gg", nonnegative=True)
            elif "g" in (p, q):
                x = q if p == "g" else p
                total += cp * cq * _inner(_atom(images[x]), gradient, images, gradient)
            else:
                total += cp * cq * _pair(p, q)
    return sp.expand(total)


def _pair(p: str, q: str) -> sp.Symbol:
    first, second = sorted((p, q))
    return sp.Symbol(f"<{first},{second}>", real=True)


class _Space:
    """Inner products among e_n ("e"), e_{n+1} ("p"), e_{n−1} ("q"), their images and v.

    Distances to w_n come without the term η²‖Aᵀ r_n‖² that all of them share, r_n = A e_n − v.
    """

    def __init__(self, relative_step: sp.Expr, noise: bool = True) -> None:
        self.relative_step = relative_step  # ηβ
        self.residual = _add((1, _atom("Ae")), (-1 if noise else 0, _atom("v")))
        self.next_residual = _add((1, _atom("Ap")), (-1 if noise else 0, _atom("v")))

    @staticmethod
    def inner(a: _Vector, b: _Vector) -> sp.Expr:
        return _inner(a, b, {}, {})

    def square(self, a: _Vector) -> sp.Expr:
        return self.inner(a, a)

    def nearness(self, point: str | None) -> sp.Expr:
        """β‖s − w_n‖² for the point s of this name, None for x*."""
        to = _add((1, _atom(point) if point else {}), (-1, _atom("e")))
        moved = _add((1, _atom("A" + point) if point else {}), (-1, _atom("Ae")))
        return BETA * self.square(to) + 2 * self.relative_step * self.inner(moved, self.residual)

    @property
    def stretch(self) -> sp.Expr:
        """β‖d_n‖² − ‖A d_n‖², which REC(S, α, β) makes nonnegative."""
        d, ad = (_add((1, _atom(x + "p")), (-1, _atom(x + "e"))) for x in ("", "A"))
        return BETA * self.square(d) - self.square(ad)


# ---------------------------------------------------------------------------------------------
# The derivation
# ---------------------------------------------------------------------------------------------


def _positive(name: str) -> sp.Symbol:
    return sp.Symbol(name, positive=True)


def _nonnegative(name: str) -> sp.Symbol:
    return sp.Symbol(name, nonnegative=True)


ALPHA, BETA, ETA, DELTA = (_positive(x) for x in ("alpha", "beta", "eta", "delta"))
KAPPA, R = _positive("kappa"), _positive("r")
NU = _nonnegative("nu")
S, M = sp.Symbol("s", real=True), _positive("m")
F0, F1, FN, FNEXT = (_positive(x) for x in ("f_0", "f_1", "f_n", "f_{n+1}"))
BIG_F0, BIG_F, BIG_FNEXT = (_positive(x) for x in ("F_0", "F_n", "F_{n+1}"))
FOO, BIG_FOO = _positive("f_oo"), _positive("F_oo")
ALPHA_N, BETA_N = _positive("alpha_n"), _positive("beta_n")
DELTA_N = sp.Symbol("delta_n", real=True)
STEP, ERROR, FINAL_ERROR = _nonnegative("|d_n|"), _nonnegative("|e_n|"), _nonnegative("|e_oo|")
NEXT_ERROR, THETA = _nonnegative("|e_{n+1}|"), _nonnegative("theta")
HIDDEN = sp.Symbol("<Ae_{n+1},v>", real=True)
N = sp.Symbol("n", integer=True, nonnegative=True)
C = _positive("C")
RATIO = {KAPPA: BETA / ALPHA}
P = _positive("p")  # r = 1/(1 + p) is every r in (0, 1)
INSIDE = {R: 1 / (1 + P)}


def derive() -> Derivation:
    """The theorem and what goes beyond it, every step verified by sympy now.

    Raises:
        DerivationError: a step does not follow.
    """
    w = _Writer()
    identity = _identity(w)
    recursion = _one_step(w, identity)
    solution, simple = _every_step(w, recursion)
    floor = _limit(w, recursion, solution)
    distance = _distance(w, floor)
    enough, reached = _number_of_steps(w, simple, distance)
    _constants_of_the_paper(w, simple, distance, enough, reached)
    _noise(w, identity)
    compared = _other_step_sizes(w, identity, recursion)
    _shorter_steps(w, compared)
    _start_outside(w, simple)
    _half(w, recursion, floor, enough)
    _memory(w, recursion)
    _certificate(w)
    _tightness(w, recursion)
    _obtuse(w, identity, distance)
    w.close()
    symbols = (ALPHA, BETA, ETA, DELTA, KAPPA, R, NU, S, F0, FN, BIG_F0, BIG_F, ALPHA_N, BETA_N)
    obtuse = (THETA, M, ERROR, NEXT_ERROR)
    named = {symbol.name: symbol for symbol in (*symbols, DELTA_N, STEP, N, C, *obtuse)}
    return Derivation(tuple(w.steps), MappingProxyType(w.expressions), MappingProxyType(named))


_Meanings = Mapping[sp.Symbol, sp.Expr]


def _solved_for_next() -> tuple[sp.Expr, sp.Expr, _Meanings, _Meanings]:
    """F_{n+1} by α_n, β_n, δ_n; δ_n in inner products; and what every symbol means, in two steps.

    The first gives the three numbers in norms, the second all of them in inner products.
    """
    images = {"e": "Ae", "d": "Ad"}
    residual = _add((1, _atom("Ae")), (-1, _atom("v")))  # A x_n − y

    def square(a: _Vector) -> sp.Expr:
        return _inner(a, a, images, residual)

    # Everything seen from x_n: w_n = −η g with g = Aᵀ(A e_n − v), x_{n+1} = d_n, x* = −e_n.
    stepped = _add((-ETA, _atom("g")))
    nearer = square(_add((1, _atom("d")), (-1, stepped)))
    truth = square(_add((-1, _atom("e")), (-1, stepped)))
    next_objective = square(_add((1, residual), (1, _atom("Ad"))))
    e, d, ae, ad = _pair("e", "e"), _pair("d", "d"), _pair("Ae", "Ae"), _pair("Ad", "Ad")
    v = _pair("v", "v")

    # δ_n tells how large ⟨A d_n, A x_n − y⟩ is; F_{n+1} contains nothing else that is unknown.
    (cross,) = sp.solve(sp.Eq(DELTA_N, sp.expand(nearer - truth)), _pair("Ad", "Ae"))
    derived = sp.expand(next_objective.subs(_pair("Ad", "Ae"), cross))
    derived = sp.expand(derived.subs({e: FN / ALPHA_N, ae: FN, ad: BETA_N * STEP**2, d: STEP**2}))
    derived = derived.subs(v, NU**2)
    right = _sum(*(sp.simplify(derived.coeff(q)) * q for q in (FN, NU**2, DELTA_N, STEP**2)))

    image_step, to_next, to_truth = map(_nonnegative, ("|Ad_n|", "|x_{n+1}-w_n|", "|x*-w_n|"))
    definitions = {
        ALPHA_N: FN / ERROR**2,
        BETA_N: image_step**2 / STEP**2,
        DELTA_N: to_next**2 - to_truth**2,
    }
    in_products = {
        FN: ae, ERROR: sp.sqrt(e), STEP: sp.sqrt(d), image_step: sp.sqrt(ad),
        to_next: sp.sqrt(nearer), to_truth: sp.sqrt(truth), NU: sp.sqrt(v),
        BIG_FNEXT: next_objective,
    }  # fmt: skip
    return right, nearer - truth, definitions, in_products


def _identity(w: _Writer) -> Formula:
    right, delta_n, definitions, in_products = _solved_for_next()

    def closes(left: sp.Expr, right: sp.Expr, defined: _Meanings) -> sp.Expr:
        return (left - right).subs(defined).subs(in_products)

    @_proves("=")
    def defines(symbol: sp.Expr, meaning: sp.Expr) -> list[Check]:
        closed = closes(BIG_FNEXT, right, {**definitions, symbol: meaning})
        return [_zero(f"the identity holds for this `{_plain(symbol)}`", closed)]

    @_proves("=")
    def closes_as_a_whole(left: sp.Expr, right: sp.Expr) -> list[Check]:
        what = "with the definitions put back, both sides are the same in inner products"
        return [_zero(what, closes(left, right, definitions))]

    w.step("The one-step identity")
    w.say(
        "Let `e_n = x_n − x*`, `d_n = x_{n+1} − x_n`, `f_n = ‖A e_n‖²`, `F_n = ‖A x_n − y‖²` with"
        " `y = A x* + v`, `ν = ‖v‖`. Measure three numbers:"
    )
    for symbol, meaning in definitions.items():
        w.claim(symbol, "=", meaning, defines)
    w.check(_zero("‖Aᵀ(A x_n − y)‖² cancels from δ_n", sp.diff(delta_n, _nonnegative("gg"))))
    w.say(
        "Put `w_n = x_n − η Aᵀ(A e_n − v)` into `δ_n`, expand into inner products, solve for"
        " `⟨A d_n, A e_n⟩`,",
        "and put that into `F_{n+1} = ‖A e_n − v + A d_n‖²`:",
    )
    identity = w.claim(
        BIG_FNEXT,
        "=",
        right,
        closes_as_a_whole,
    )
    w.say("This assumes nothing: no set, no projector, no bound on A.")
    w.expressions["identity"] = identity.right
    return identity


def _slacks() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """What one step with η = 1/β loses: the α-, the β- and the δ-slack."""
    return (
        BETA * (1 / ALPHA - 1 / ALPHA_N) * FN,
        (BETA - BETA_N) * STEP**2,
        BETA * (DELTA - DELTA_N),
    )


def _one_step(w: _Writer, identity: Formula) -> Formula:
    exact = identity.right.subs({NU: 0, ETA: 1 / BETA})
    a, b, c = map(_nonnegative, ("a_slack", "b_slack", "c_slack"))
    assumed = {ALPHA_N: ALPHA + a, BETA: BETA_N + b, DELTA: DELTA_N + c}

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        lost = right.subs(RATIO) - left.subs(FNEXT, exact)
        return [_zero("the bound minus the identity is the sum of three slacks", lost - total)]

    @_proves("=")
    def loses(left: sp.Expr, right: sp.Expr) -> list[Check]:
        lost = left.subs(RATIO).subs(FNEXT, exact)
        named = zip(("α_n ≥ α", "β_n ≤ β", "δ_n ≤ δ"), right.args, strict=False)
        return [
            _zero("the loss is these three terms", lost - right),
            *(_nonnegative_check(f"a term is ≥ 0 if {x}", part.subs(assumed)) for x, part in named),
        ]

    total = _sum(*_slacks())
    w.step("One step of the theorem: η = 1/β, no noise")
    w.say(
        "REC(S, α, β) gives `α_n ≥ α` if `x_n` and `x*` lie in S, and `β_n ≤ β` if `x_{n+1}` and"
        " `x_n` do; the projector gives `δ_n ≤ δ`, since x* is a point of S.",
        "With `κ = β/α`:",
    )
    recursion = w.claim(FNEXT, "≤", _sum((KAPPA - 1) * FN, BETA * DELTA), follows)
    w.say("What the bound loses at each iterate is exactly")
    w.claim(_sum(*recursion.right.args, -FNEXT), "=", total, loses)
    w.say("an `α`-slack, a `β`-slack and a `δ`-slack.")
    w.expressions["recursion"] = recursion.right
    return recursion


def _every_step(w: _Writer, recursion: Formula) -> tuple[Formula, Formula]:
    f, f_n = sp.Function("f"), sp.Symbol("f_n")
    following = recursion.right.subs(KAPPA, 1 + R)
    found = sp.rsolve(f(N + 1) - following.subs(FN, f(N)), f(N), {f(0): F0})

    @_proves("≤")
    def solves(_: sp.Expr, right: sp.Expr) -> list[Check]:
        return [
            _zero("it starts at f_0", right.subs(N, 0) - F0),
            _zero("it satisfies the recursion", right.subs(N, N + 1) - following.subs(FN, right)),
            _zero("it is sympy's solution of the recursion", found - right),
        ]

    @_proves("≤")
    def is_larger(_: sp.Expr, right: sp.Expr) -> list[Check]:
        added = (right.subs(KAPPA, 1 + R) - solution.right).subs(INSIDE)
        left_out = (BETA * DELTA * R**N / (1 - R)).subs(INSIDE)
        return [
            _zero("it has `1` in place of `1 − rⁿ`", added - left_out),
            _nonnegative_check("for r < 1 it is larger", sp.simplify(added)),
        ]

    w.step("Every n")
    w.say("Write `r = κ − 1`. The recursion has the solution")
    solution = w.claim(f_n, "≤", _sum(R**N * F0, BETA * DELTA * (1 - R**N) / (1 - R)), solves)
    w.say(
        "(by induction, as `r ≥ 0` makes the recursion monotone in `f_n`; the second term is a"
        " geometric series). For `κ < 2`, simpler and hardly weaker:"
    )
    simple = w.claim(f_n, "≤", _sum((KAPPA - 1) ** N * F0, BETA * DELTA / (2 - KAPPA)), is_larger)
    w.expressions["solution"] = solution.right.subs(R, KAPPA - 1)
    return solution, simple


def _limit(w: _Writer, recursion: Formula, solution: Formula) -> Formula:
    limit = sp.limit(sp.expand(sp.simplify(solution.right.subs(INSIDE))), N, sp.oo)

    @_proves("≤")
    def is_limit(_: sp.Expr, right: sp.Expr) -> list[Check]:
        return [
            _zero("the limit for 0 < r < 1", limit - right.subs(KAPPA, 1 + R).subs(INSIDE)),
            _zero("it is the fixed point", recursion.right.subs(FN, right) - right),
        ]

    w.step("The limit")
    w.say("For `κ < 2` the powers of r vanish, and")
    floor = w.claim(FOO, "≤", BETA * DELTA / (2 - KAPPA), is_limit)
    w.expressions["objective_floor"] = floor.right
    return floor


def _distance(w: _Writer, floor: Formula) -> Formula:
    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        farthest = left.subs(FINAL_ERROR, sp.sqrt(floor.right / ALPHA))
        farthest = farthest.subs(ALPHA, BETA / KAPPA)
        return [_zero("it is `f_∞/α` with `β = κα`", (farthest - right).subs(KAPPA, 1 + R))]

    w.step("The floor in distance")
    w.say("`‖e_n‖² = f_n/α_n ≤ f_n/α`. So the limit of `‖x_n − x*‖²` is at most")
    distance = w.claim(FINAL_ERROR**2, "≤", DELTA / (2 / KAPPA - 1), follows)
    w.expressions["error_floor"] = distance.right
    return distance


def _number_of_steps(w: _Writer, simple: Formula, distance: Formula) -> tuple[Formula, Formula]:
    decaying = R**N * F0 / ALPHA

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        farthest = left.subs(ERROR, sp.sqrt(simple.right / ALPHA))
        farthest = (farthest - right).subs(BETA, KAPPA * ALPHA).subs(KAPPA, 1 + R).subs(INSIDE)
        return [_zero("it is the bound on f_n over α", farthest)]

    @_proves("≥")
    def suffices(_: sp.Expr, right: sp.Expr) -> list[Check]:
        # rⁿ = e^{−n log(1/r)}
        left_over = sp.exp(-right * sp.log(1 / R)) * (decaying / R**N)
        return [_zero("after so many steps the decaying term is Cδ", left_over - C * DELTA)]

    @_proves("≥")
    def is_above(left: sp.Expr, right: sp.Expr) -> list[Check]:
        # The difference has derivative 1 − 1/r < 0 on (0, 1): it falls to 0 at 1.
        slope = sp.diff(left - right, R)
        return [
            _zero("both are 0 at r = 1", sp.Abs(left.subs(R, 1)) + sp.Abs(right.subs(R, 1))),
            _nonnegative_check("their difference decreases on (0, 1)", -slope.subs(INSIDE)),
            _zero("they touch there", slope.subs(R, 1)),
        ]

    @_proves("≥")
    def is_enough(_: sp.Expr, right: sp.Expr) -> list[Check]:
        exchanged = right * below.right - needed.right * below.left
        return [_zero("`1 − r` in place of `log(1/r)`", exchanged.subs(KAPPA, 1 + R))]

    @_proves("≤")
    def remains(left: sp.Expr, right: sp.Expr) -> list[Check]:
        farthest = left.subs(ERROR, sp.sqrt(C * DELTA + distance.right))
        return [_zero("it is Cδ and the floor", (farthest - right).subs(KAPPA, 1 + R))]

    w.step("The number of steps")
    w.say("In")
    w.claim(ERROR**2, "≤", _sum((KAPPA - 1) ** N * F0 / ALPHA, distance.right), follows)
    w.say("the first term is at most `Cδ` as soon as")
    needed = w.claim(N, "≥", sp.log(F0 / (C * ALPHA * DELTA)) / sp.log(1 / R), suffices)
    w.say("with `r = κ − 1`. For `0 < r < 1`")
    below = w.claim(sp.log(1 / R), "≥", 1 - R, is_above)
    w.say("so that this is enough:")
    enough = w.claim(N, "≥", sp.log(F0 / (C * ALPHA * DELTA)) / (2 - KAPPA), is_enough)
    w.say("and then")
    reached = w.claim(ERROR**2, "≤", (C + 1 / (2 / KAPPA - 1)) * DELTA, remains)
    w.say("(If `f_0 ≤ Cαδ`, at once.)")
    w.expressions["steps"] = enough.right
    w.expressions["steps_exact"] = needed.right.subs(R, KAPPA - 1)
    return enough, reached


def _constants_of_the_paper(
    w: _Writer, simple: Formula, distance: Formula, enough: Formula, reached: Formula
) -> None:
    # Written here as Theorem 1 of the paper states them, in α and β.
    ratio = BETA / ALPHA
    floor = 1 / (2 * ALPHA / BETA - 1)
    w.step("The constants of the paper")
    w.say("Theorem 1 as the paper states it, with `f = ‖Ax − y‖²`:")
    for what, found, relation, right in (
        ("the objective", simple, "≤", _sum((ratio - 1) ** N * F0, BETA * DELTA / (2 - ratio))),
        ("the limit of the distance", distance, "≤", DELTA * floor),
        ("the number of steps", enough, "≥", sp.log(F0 / (C * ALPHA * DELTA)) / (2 - ratio)),
        ("the distance then", reached, "≤", (C + floor) * DELTA),
    ):

        @_proves(found.proof.relation)
        def agrees(
            left: sp.Expr, right: sp.Expr, what: str = what, found: Formula = found
        ) -> list[Check]:
            ours = (found.left - found.right).subs(RATIO)
            return [_zero(f"{what}, as found above", (left - right) - ours)]

        w.claim(found.left, relation, right, agrees)


def _noise(w: _Writer, identity: Formula) -> None:
    u, u_oo = _nonnegative("u_n"), sp.Symbol("u_oo")
    exact = identity.right.subs(ETA, 1 / BETA)

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        lost = right.subs(R, BETA / ALPHA - 1) - left.subs(BIG_FNEXT, exact)
        return [_zero("what it loses are the same three slacks", lost - sum(_slacks()))]

    @_proves("≤")
    def is_image(_: sp.Expr, right: sp.Expr) -> list[Check]:
        slope = sp.diff(right, u)
        return [
            _zero("`(u_{n+1} − ν)²` is that bound", (right - NU) ** 2 - noisy.right.subs(FN, u**2)),
            _nonnegative_check("it contracts: the slope is at most `√r`", R - slope**2),
        ]

    @_proves("≤")
    def is_limit(_: sp.Expr, right: sp.Expr) -> list[Check]:
        # Of (u − ν)² = r u² + ν² + βδ the root above ν.
        return [
            _zero(
                "u_∞ is the fixed point",
                (right - NU) ** 2 - (image.right - NU).subs(u, right) ** 2,
            ),
            _zero(
                "without noise u_∞² is the floor", right.subs(NU, 0) ** 2 - BETA * DELTA / (1 - R)
            ),
        ]

    @_proves("≤")
    def is_distance(_: sp.Expr, right: sp.Expr) -> list[Check]:
        exact_projector = limit.right.subs(DELTA, 0) / sp.sqrt(ALPHA)
        return [_zero("it is `u_∞/√α`", right.subs(KAPPA, 1 + R) - exact_projector)]

    w.step("With noise")
    w.say("Nothing changes in the identity but the term `ν² = ‖v‖²`:")
    noisy = w.claim(BIG_FNEXT, "≤", _sum(R * FN, NU**2, BETA * DELTA), follows)
    w.say(
        "On the right stands `f_n = ‖A e_n‖²`, on the left `F_{n+1}`, and `√f ≤ √F + ν`. With"
        " `u_n = ‖A e_n‖`:"
    )
    following = NU + sp.sqrt(R * u**2 + NU**2 + BETA * DELTA)
    image = w.claim(sp.Symbol("u_{n+1}"), "≤", following, is_image)
    w.say("For `r < 1` this contracts, to")
    root = sp.sqrt(NU**2 + (1 - R) * BETA * DELTA)
    limit = w.claim(u_oo, "≤", (NU + root) / (1 - R), is_limit)
    w.say("and `‖x_n − x*‖` tends to at most `u_∞/√α`; for an exact projector")
    w.claim(FINAL_ERROR, "≤", 2 * NU / ((2 - KAPPA) * sp.sqrt(ALPHA)), is_distance)
    w.say("The condition is still `κ < 2`.")
    w.expressions["noisy_objective"] = noisy.right.subs(R, KAPPA - 1)
    w.expressions["noisy_image"] = image.right.subs(R, KAPPA - 1)
    w.expressions["noisy_image_floor"] = limit.right.subs(R, KAPPA - 1)


@dataclass(frozen=True)
class _Compared:
    """What the two comparisons of a step with any η give."""

    star: Formula
    """F_{n+1} against x*, before the quadratic is solved."""
    root_star: Formula
    root_stay: Formula
    rate_star: Formula
    rate_stay: Formula
    floor: Formula


CROSS, TILT = sp.Symbol("c_n", real=True), sp.Symbol("<r_n,v>", real=True)
_Signed = tuple[int, sp.Symbol]
_Case = tuple[str, _Signed, _Signed, Callable[[sp.Expr], sp.Expr]]


def _by_signs() -> list[_Case]:
    """Each case of the signs of s = ±m and of κ − 1 − s = ±a: its name, both, and how to put it."""
    m, a = map(_nonnegative, "ma")
    cases: list[_Case] = []
    for sign_s in (1, -1):
        for sign_a in (1, -1):

            def put(expression: sp.Expr, sign_s: int = sign_s, sign_a: int = sign_a) -> sp.Expr:
                there = expression.subs(KAPPA, 1 + S + sign_a * a).subs(S, sign_s * m)
                return there.replace(sp.Abs, lambda inner: sp.Abs(sp.expand(inner)))

            name = f"s {'≥≤'[sign_s < 0]} 0, κ − 1 {'≥≤'[sign_a < 0]} s"
            cases.append((name, (sign_s, m), (sign_a, a), put))
    return cases


# What noise and projector error add under the root.
_DRIVE = (2 * sp.Abs(KAPPA - 1 - S) * NU * sp.sqrt(BIG_F), KAPPA * NU**2, BETA * DELTA)
_SHORT_DRIVE = (2 * NU * (KAPPA - 1 + M) * sp.sqrt(BIG_F), *_DRIVE[1:])  # s = −m, κ ≥ 1


def _other_step_sizes(w: _Writer, identity: Formula, recursion: Formula) -> _Compared:
    space, image_step = _Space(1 + S), _nonnegative("|Ad_n|")
    in_products = {
        BIG_F: space.square(space.residual),
        BIG_FNEXT: space.square(space.next_residual),
        CROSS: space.inner(space.residual, space.next_residual),
        TILT: space.inner(space.residual, _atom("v")),
        NU: sp.sqrt(_pair("v", "v")),
        FN: _pair("Ae", "Ae"),
        image_step: sp.sqrt(space.square(_add((1, _atom("Ap")), (-1, _atom("Ae"))))),
    }

    @_proves("=")
    def expands(left: sp.Expr, right: sp.Expr) -> list[Check]:
        return [_zero("the same inner products", (left - right).subs(in_products))]

    w.step("Other step sizes")
    w.say(
        "Let `η = (1 + s)/β`, `s > −1`, `r_n = A x_n − y = A e_n − v` and `c_n = ⟨r_n, r_{n+1}⟩`."
        " Then"
    )
    moved = w.claim(image_step**2, "=", _sum(BIG_F, BIG_FNEXT, -2 * CROSS), expands)
    tilted = w.claim(FN, "=", _sum(BIG_F, 2 * TILT, NU**2), expands)
    w.say("With `‖A d_n‖² = β_n‖d_n‖²` the identity gives")
    star = _against_truth(w, identity, moved.right)
    w.say("As `|⟨r_n, v⟩| ≤ ν√F_n` and `|c_n| ≤ √(F_n F_{n+1})`,")

    @_proves("≤")
    def is_farthest(_: sp.Expr, right: sp.Expr) -> list[Check]:
        # x, z ≥ 0: how far ⟨r_n, v⟩ and c_n stay from their worst values.
        x, z = map(_nonnegative, "xz")
        checks = []
        for signs, (sign_s, m), (sign_a, a), put in _by_signs():
            loss = right - star.right.subs(FN, tilted.right)
            worst = sp.sqrt(BIG_F) * sp.sqrt(BIG_FNEXT)
            loss = loss.subs(
                {TILT: sign_a * (NU * sp.sqrt(BIG_F) - x), CROSS: -sign_s * (worst - z)}
            )
            checks.append(_zero(f"the worst for `{signs}`", put(loss) - 2 * (a * x + m * z)))
        return checks

    product = 2 * sp.Abs(S) * sp.sqrt(BIG_F) * sp.sqrt(BIG_FNEXT)
    right = _sum((KAPPA - 1) * BIG_F, *_DRIVE, product)
    farthest = w.claim(BIG_FNEXT, "≤", right, is_farthest)
    w.say("and `√F_{n+1}` lies below the larger root of a quadratic:")
    root_star = w.claim(
        sp.sqrt(BIG_FNEXT),
        "≤",
        sp.Abs(S) * sp.sqrt(BIG_F) + sp.sqrt(_sum((KAPPA + S**2 - 1) * BIG_F, *_DRIVE)),
        _is_root(farthest.left - farthest.right),
    )
    at_theorem = {S: 0, NU: 0, BIG_F: FN}
    w.check(
        _zero("s = ν = 0 is the theorem", root_star.right.subs(at_theorem) ** 2 - recursion.right)
    )
    root_stay = _against_staying(w)
    w.say("So `F_{n+1}` is at most the square of the smaller of the two, for every κ, δ, ν and η.")
    rates = _rates(w, root_star, root_stay)
    floor = _floor_of_any_step(w, farthest, rates)
    return _Compared(farthest, root_star, root_stay, *rates, floor)


def _against_truth(w: _Writer, identity: Formula, moved: sp.Expr) -> Formula:
    """`moved` is ‖A d_n‖²."""
    beta_slack = _nonnegative("image")
    a, b, c = map(_nonnegative, ("a_slack", "b_slack", "c_slack"))
    exact = identity.right.subs({ETA: (1 + S) / BETA, STEP: sp.sqrt(moved / BETA_N)})
    terms = (
        BETA * (1 / ALPHA - 1 / ALPHA_N) * FN,
        BETA * (1 / BETA_N - 1 / BETA) * beta_slack,
        BETA * (DELTA - DELTA_N),
    )
    assumed = {ALPHA_N: ALPHA + a, BETA: BETA_N + b, DELTA: DELTA_N + c}

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        # `exact` equals F_{n+1} and contains it: adding a multiple of the difference is allowed.
        lost = (right - left - (1 + S) * (exact - BIG_FNEXT)).subs(RATIO)
        slacks = sum(terms).subs(beta_slack, moved)
        return [
            _zero("the loss is again an `α`-, a `β`- and a `δ`-slack", lost - slacks),
            *(
                _nonnegative_check(f"the `{letter}`-slack is ≥ 0", part.subs(assumed))
                for letter, part in zip("αβδ", terms, strict=True)
            ),
        ]

    return w.claim(
        BIG_FNEXT,
        "≤",
        _sum((KAPPA - 1 - S) * FN, S * BIG_F, (1 + S) * NU**2, BETA * DELTA, -2 * S * CROSS),
        follows,
    )


def _is_root(quadratic: sp.Expr, unknown: sp.Symbol = BIG_FNEXT, power: int = 2) -> Proof:
    """That `right` is the largest √F_{n+1} for which `quadratic` is not positive.

    Or the largest of whatever is `unknown`, with `power` 1.
    """
    name = "√F_{n+1}" if unknown is BIG_FNEXT else f"`{_plain(unknown)}`"

    @_proves("≤")
    def proof(left: sp.Expr, right: sp.Expr) -> list[Check]:
        x = _positive("x")
        found = left.subs(unknown, x**power)  # x
        equal = quadratic.subs(unknown, x**power)
        slope = sp.diff(equal, x).subs(x, right)  # negative at the smaller root
        return [
            _zero("the root solves the quadratic", equal.subs(x, right)),
            _zero("the larger one", slope - sp.sqrt(sp.expand(slope**2))),
            _zero(f"for {name}", found - x),
        ]

    return proof


def _against_staying(w: _Writer) -> Formula:
    space = _Space(1 + S)
    in_products = {
        BIG_F: space.square(space.residual),
        BIG_FNEXT: space.square(space.next_residual),
        CROSS: space.inner(space.residual, space.next_residual),
    }
    excess = space.nearness("p") - space.nearness("e")  # βδ at most

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        lost = (right - left).subs(in_products)
        return [
            _zero(
                "the loss is `β‖d_n‖² − ‖A d_n‖² ≥ 0` and what is left of `βδ`",
                lost - space.stretch - (BETA * DELTA - excess),
            )
        ]

    w.say("The projector could also have stayed at `x_n`: `‖x_{n+1} − w_n‖² ≤ ‖x_n − w_n‖² + δ` is")
    stay = w.claim(BIG_FNEXT, "≤", _sum((1 + 2 * S) * BIG_F, BETA * DELTA, -2 * S * CROSS), follows)

    @_proves("≤")
    def is_root(left: sp.Expr, right: sp.Expr) -> list[Check]:
        m, checks = _nonnegative("m"), []
        for sign in (1, -1):
            worst = stay.right.subs(CROSS, -sign * sp.sqrt(BIG_F) * sp.sqrt(BIG_FNEXT))
            quadratic = (stay.left - worst).subs(S, sign * m)
            for check in _is_root(quadratic).checks(left, right.subs(S, sign * m)):
                checks.append(check._replace(what=f"{check.what}, s {'≥≤'[sign < 0]} 0"))
        return checks

    w.say("and hence, for every κ and whatever the noise,")
    return w.claim(
        sp.sqrt(BIG_FNEXT),
        "≤",
        sp.Abs(S) * sp.sqrt(BIG_F) + sp.sqrt(_sum((1 + S) ** 2 * BIG_F, BETA * DELTA)),
        is_root,
    )


def _rates(w: _Writer, root_star: Formula, root_stay: Formula) -> tuple[Formula, Formula]:
    def is_square(root: Formula) -> Proof:
        @_proves("≤")
        def proof(left: sp.Expr, right: sp.Expr) -> list[Check]:
            squared = root.right.subs({NU: 0, DELTA: 0}) ** 2
            apart = (squared - right).subs(S, P - 1).replace(sp.Abs, lambda x: sp.Abs(sp.factor(x)))
            return [_zero("it is the bound at ν = δ = 0", apart)]

        return proof

    w.say("For `ν = δ = 0` these are a factor per step:")
    star = w.claim(
        BIG_FNEXT,
        "≤",
        (sp.Abs(S) + sp.sqrt(KAPPA + S**2 - 1)) ** 2 * BIG_F,
        is_square(root_star),
    )
    stay = w.claim(BIG_FNEXT, "≤", (sp.Abs(S) + 1 + S) ** 2 * BIG_F, is_square(root_stay))
    return star, stay


def _floor_of_any_step(w: _Writer, farthest: Formula, rates: tuple[Formula, Formula]) -> Formula:
    m, x = _nonnegative("m"), _positive("x")

    @_proves("<")
    def is_edge(left: sp.Expr, right: sp.Expr) -> list[Check]:
        slope = sp.diff(sp.sqrt(rates[0].right.subs(S, m) / BIG_F), m).subs(KAPPA, 1 + x)
        still = (farthest.left - farthest.right).subs({NU: 0, DELTA: 0, BIG_FNEXT: BIG_F})
        return [
            _nonnegative_check("the factor increases with |s|", slope),
            _zero("there F_{n+1} = F_n", still.subs(sp.Abs(S), right)),
            _zero("the variable is |s|", left - sp.Abs(S)),
        ]

    w.say("The second never exceeds 1 for `s ≤ 0`. The first is least at `η = 1/β` and below 1 for")
    edge = w.claim(sp.Abs(S), "<", (2 - KAPPA) / 2, is_edge)

    def is_end(sign: int) -> Proof:
        @_proves("<")
        def proof(left: sp.Expr, right: sp.Expr) -> list[Check]:
            end = ((1 + sign * edge.right) / BETA).subs(RATIO)
            low, high = (end, ETA) if sign < 0 else (ETA, end)
            return [_zero("the end of the range", sp.Abs(left - low) + sp.Abs(right - high))]

        return proof

    w.say("that is for")
    lower = w.claim(1 / (2 * ALPHA), "<", ETA, is_end(-1))
    upper = w.claim(ETA, "<", 2 / BETA - 1 / (2 * ALPHA), is_end(1))
    w.check(_zero("1/β is its midpoint", (lower.left + upper.right) / 2 - 1 / BETA))
    w.say("an interval around 1/β that is not empty exactly when `κ < 2`. The bound settles at")

    @_proves("≤")
    def is_fixed(left: sp.Expr, right: sp.Expr) -> list[Check]:
        rest = (farthest.left - farthest.right).subs(BIG_FNEXT, x**2).subs(BIG_F, x**2)
        return [
            *(
                _zero(f"it is the fixed point, `{signs}`", put(rest.subs(x, right)))
                for signs, *_, put in _by_signs()
            ),
            _zero("of √F_n", left.subs(BIG_FOO, x**2) - x),
        ]

    lead, away = 2 - KAPPA - 2 * sp.Abs(S), sp.Abs(KAPPA - 1 - S) * NU
    floor = w.claim(
        sp.sqrt(BIG_FOO),
        "≤",
        (away + sp.sqrt(_sum(away**2, lead * (KAPPA * NU**2 + BETA * DELTA)))) / lead,
        is_fixed,
    )

    @_proves("≤")
    def is_without_noise(left: sp.Expr, right: sp.Expr) -> list[Check]:
        return [
            _zero(
                "it is the square for ν = 0",
                (floor.right.subs(NU, 0) ** 2 - right).subs({S: m}).subs(KAPPA, 2 - 2 * m - x),
            )
        ]

    w.say("which without noise is")
    w.claim(FOO, "≤", BETA * DELTA / lead, is_without_noise)
    w.expressions["step_lower"], w.expressions["step_upper"] = lower.left, upper.right
    return floor


def _shorter_steps(w: _Writer, compared: _Compared) -> None:
    """0 < m < 1: what β‖d_n‖² exceeds ‖A d_n‖² by is worth something there."""
    away, near, far = _positive("D_n"), _positive("E_{n+1}"), _positive("E_n")
    space, eta = _Space(1 - M), 1 - M
    in_products = {
        away: BETA * space.square(_add((1, _atom("p")), (-1, _atom("e")))),
        far: BETA * _pair("e", "e"),
        BIG_F: space.square(space.residual),
        BIG_FNEXT: space.square(space.next_residual),
        TILT: space.inner(space.residual, _atom("v")),
    }
    excess = space.nearness("p") - space.nearness(None)  # βδ at most

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        lost = (right - left).subs(in_products) - eta * space.stretch - (BETA * DELTA - excess)
        return [_zero("the loss is `(1 − m)(β‖d_n‖² − ‖A d_n‖²)` and what is left of `βδ`", lost)]

    w.step("Shorter steps")
    w.say(
        "For `η = (1 − m)/β`, `0 < m < 1`, more can be said, since the identity's last term is then"
        " a gain. Let `D_n = β‖d_n‖²`, `E_n = β‖e_n‖²`. The projector against x*, and `1 − m` times"
        " `‖A d_n‖² ≤ D_n`, give"
    )
    rest = (-BIG_F * eta, -2 * TILT * eta, BETA * DELTA)
    first = w.claim(M * away, "≤", _sum(far, -BIG_FNEXT * eta, *rest), follows)

    @_proves("≤")
    def with_triangle(left: sp.Expr, right: sp.Expr) -> list[Check]:
        least = (sp.sqrt(far) - sp.sqrt(near)) ** 2
        lost = (right - left) - (first.right - first.left).subs(away, least)
        return [_zero("`(√E_n − √E_{n+1})²` in place of `D_n`", lost)]

    w.say("and `√D_n ≥ √E_n − √E_{n+1}`, the triangle inequality,")
    second = w.claim(
        eta * BIG_FNEXT + M * near - 2 * M * sp.sqrt(near) * sp.sqrt(far),
        "≤",
        _sum(eta * far, *rest),
        with_triangle,
    )
    third = _farthest_of_shorter_steps(w, second, near, far)
    _beside_the_second_bound(w, third, compared)
    _roots_of_shorter_steps(w, third, compared)


def _roots_of_shorter_steps(w: _Writer, third: Formula, compared: _Compared) -> None:
    scale, eta = 1 + (KAPPA - 1) * M, 1 - M
    w.say("The larger root is a third bound:")
    inside = (KAPPA * M) ** 2 * BIG_F + scale * _sum((KAPPA - 1) * eta * BIG_F, *_SHORT_DRIVE)
    root = w.claim(
        sp.sqrt(BIG_FNEXT),
        "≤",
        (KAPPA * M * sp.sqrt(BIG_F) + sp.sqrt(inside)) / scale,
        _is_root(third.left - third.right),
    )
    w.say(
        "It holds from the floor of the previous step on, `F_n ≥ F_∞`, and in particular needs"
        " `κ < 2 − 2m`. Below the floor the two other bounds are left. Where all three hold it is"
        " the least, and at the floor all agree."
    )

    @_proves("≤")
    def is_square(_: sp.Expr, right: sp.Expr) -> list[Check]:
        squared = root.right.subs({NU: 0, DELTA: 0}) ** 2
        return [_zero("it is the bound at ν = δ = 0", squared - right)]

    w.say("For `ν = δ = 0` the factor per step is")
    inside = (KAPPA * M) ** 2 + scale * (KAPPA - 1) * eta
    rate = w.claim(BIG_FNEXT, "≤", ((KAPPA * M + sp.sqrt(inside)) / scale) ** 2 * BIG_F, is_square)
    w.check(_zero("for κ = 1 it is 4m²", (rate.right / BIG_F).subs(KAPPA, 1) - 4 * M**2))
    _best(w, compared, root, rate)


def _farthest_of_shorter_steps(
    w: _Writer, second: Formula, near: sp.Symbol, far: sp.Symbol
) -> Formula:
    """E_n, E_{n+1} and ⟨r_n, v⟩ at their worst."""
    x, y, z = map(_positive, "xyz")
    rest = second.left - second.right  # ≤ 0
    worst_far = KAPPA * (sp.sqrt(BIG_F) + NU) ** 2
    worst_near = KAPPA * (sp.sqrt(BIG_FNEXT) + NU) ** 2
    at_worst = {far: worst_far, near: worst_near, TILT: NU * sp.sqrt(BIG_F)}

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        roots = rest.subs({far: y**2, near: z**2})
        along = sp.diff((1 - M) * (2 * TILT - KAPPA * (BIG_F + 2 * TILT + NU**2)), TILT)
        share = {M: 1 / (1 + P)}
        same = (left - right).subs(BIG_FNEXT, BIG_F)
        farther = rest.subs({near: worst_far, far: worst_far, TILT: NU * sp.sqrt(BIG_F)})
        farther = farther.subs(BIG_FNEXT, BIG_F + x)
        return [
            _nonnegative_check("E_n is best large", -sp.diff(roots, y).subs(share)),
            _nonnegative_check("and so is `⟨r_n, v⟩`", -along.subs(KAPPA, 1 + x).subs(share)),
            _nonnegative_check(
                "and E_{n+1}, up to E_n", -sp.diff(roots, z).subs(y, z + x).subs(share)
            ),
            _zero("this is what is left then", rest.subs(at_worst) - (left - right)),
            _zero(
                "`F_{n+1} = F_n + x` leaves what `F_{n+1} = F_n` does, and `(1 − m)x`",
                farther - same - (1 - M) * x,
            ),
        ]

    w.say(
        "Now `E_n ≤ κ f_n`, `f_n = F_n + 2⟨r_n, v⟩ + ν² ≤ (√F_n + ν)²`, and the same for `n + 1`."
        " If `F_{n+1} ≤ F_n`, the worst are the largest `⟨r_n, v⟩`, `E_n` and `E_{n+1}`:"
    )
    scale = 1 + (KAPPA - 1) * M
    third = w.claim(
        scale * BIG_FNEXT - 2 * KAPPA * M * sp.sqrt(BIG_F) * sp.sqrt(BIG_FNEXT),
        "≤",
        _sum((KAPPA - 1) * (1 - M) * BIG_F, *_SHORT_DRIVE),
        follows,
    )
    w.say(
        "If `F_{n+1} > F_n`, the worst `E_{n+1}` is `E_n`, and the same inequality would have to"
        " hold for `F_{n+1} = F_n`, which it does not above the floor."
    )
    return third


def _beside_the_second_bound(w: _Writer, third: Formula, compared: _Compared) -> None:
    """The quadratic of this step minus that of any step: a square, zero where F stands still."""
    x, y = map(_positive, "xy")

    def shorter(expression: sp.Expr) -> sp.Expr:
        return expression.subs(S, -M).subs(KAPPA, 1 + x)  # κ ≥ 1

    apart = (third.left - third.right) - (compared.star.left - compared.star.right)
    square = (KAPPA - 1) * M * (sp.sqrt(BIG_FNEXT) - sp.sqrt(BIG_F)) ** 2
    still = (third.left - third.right).subs({BIG_FNEXT: y**2, BIG_F: y**2})
    w.check(
        _zero("it exceeds the quadratic of any step by a square", shorter(apart - square)),
        _zero(
            "at `F_{n+1} = F_n = F_∞` both are zero",
            shorter(still.subs(y, compared.floor.right)),
        ),
    )


def _best(w: _Writer, compared: _Compared, root: Formula, rate: Formula) -> None:
    """The best bound of all, by regime, in β and η."""
    found, length, short = w.expressions, {S: ETA * BETA - 1}, {M: 1 - ETA * BETA}
    found["root_star"] = compared.root_star.right.subs(length)
    found["root_stay"] = compared.root_stay.right.subs(length)
    found["root_short"] = root.right.subs(short)
    found["rate_star"] = (compared.rate_star.right / BIG_F).subs(length)
    found["rate_stay"] = (compared.rate_stay.right / BIG_F).subs(length)
    found["rate_short"] = (rate.right / BIG_F).subs(short)
    found["floor_root"] = compared.floor.right.subs(length)
    contracts = sp.And(ETA * BETA < 1, KAPPA < 2 * ETA * BETA)
    needed = _sum(*_SHORT_DRIVE) <= (2 - KAPPA - 2 * M) * BIG_F  # F_n ≥ F_∞
    falls = sp.And(contracts, needed.subs(short))
    found["step_bound"] = sp.Piecewise(
        (found["root_short"] ** 2, falls),
        (sp.Min(found["root_star"], found["root_stay"]) ** 2, True),
    )
    found["rate"] = sp.Piecewise(
        (found["rate_short"], contracts), (sp.Min(found["rate_star"], found["rate_stay"]), True)
    )
    w.say(
        "The semidefinite program finds instances that attain the least of the bounds in one step,"
        " to 1e-6, for every η, κ and δ tried without noise. Over several steps of `η ≠ 1/β` the"
        " worst case can be less than this bound applied again and again."
    )


def _start_outside(w: _Writer, simple: Formula) -> None:
    t, rho, omega = _nonnegative("lambda"), _nonnegative("rho"), sp.Symbol("omega")
    first_error = _nonnegative("|e_1|")
    # On an eigenvector of AᵀA with eigenvalue λ, in units of x*: x_0 = λ, Aᵀ(A x_0 − y) = λ² − λ.
    first = t - ETA * (t**2 - t)

    @_proves("≤")
    def shifted(_: sp.Expr, right: sp.Expr) -> list[Check]:
        return [
            _zero(
                "it is the theorem, one step later",
                right.subs(N, N + 1).subs(F1, F0) - simple.right,
            )
        ]

    @_proves("≤")
    def is_farthest(_: sp.Expr, right: sp.Expr) -> list[Check]:
        return [_zero("`(‖e_1‖ − ρ)²` is `ρ² + δ`", (right - rho) ** 2 - rho**2 - DELTA)]

    @_proves("≤")
    def follows(_: sp.Expr, right: sp.Expr) -> list[Check]:
        return [
            _zero("it is β‖e_1‖²", right - BETA * farthest.right**2),
            _zero("for δ = 0, f_1 ≤ 4βρ²", right.subs(DELTA, 0) - 4 * BETA * rho**2),
        ]

    w.step("The start x_0 = Aᵀy, which is not in S")
    w.say(
        "The identity holds for n = 0 as well, but `(x_0, x*)` and `(x_1, x_0)` are not pairs of S:"
        " REC says nothing about `α_0` and `β_0`.",
        "From `x_1` on, all points are in S. So the theorem holds with `x_1` for `x_0`:",
    )
    right = _sum((KAPPA - 1) ** (N - 1) * F1, BETA * DELTA / (2 - KAPPA))
    w.claim(sp.Symbol("f_n"), "≤", right, shifted)
    w.say(
        "with the same limits. On `f_1` itself: `‖x_1 − w_0‖² ≤ ρ² + δ` with `ρ = ‖w_0 − x*‖`, so"
    )
    farthest = w.claim(first_error, "≤", rho + sp.sqrt(rho**2 + DELTA), is_farthest)
    w.say("and, as `f_1 ≤ β‖e_1‖²`,")
    bound = w.claim(F1, "≤", BETA * (rho + sp.sqrt(rho**2 + DELTA)) ** 2, follows)
    w.say(
        "Without noise, `w_0 − x*` is x* with its part on each eigenvector of AᵀA, of eigenvalue λ,"
        " multiplied by"
    )
    w.claim(
        omega,
        "=",
        -(1 - t) * (1 - ETA * t),
        Proof(
            "=",
            lambda _, right: [_zero("it is the first step's error there", (first - 1) - right)],
        ),
    )
    w.expressions["first_objective"] = bound.right


def _half(w: _Writer, recursion: Formula, floor: Formula, enough: Formula) -> None:
    half, start = _positive("h_n"), _positive("h_0")
    w.step("With f = ½‖Ax − y‖²")
    w.say("Let `h_n = f_n/2`. The contraction is the same, additive constants are halved:")
    for what, left, relation, right, known, found in (
        (
            "the recursion",
            sp.Symbol("h_{n+1}"),
            "≤",
            _sum((KAPPA - 1) * half, BETA * DELTA / 2),
            recursion,
            recursion.right.subs(FN, 2 * half) / 2,
        ),
        (
            "its floor",
            sp.Symbol("h_oo"),
            "≤",
            BETA * DELTA / (2 * (2 - KAPPA)),
            floor,
            floor.right / 2,
        ),
        (
            "the number of steps",
            N,
            "≥",
            sp.log(2 * start / (C * ALPHA * DELTA)) / (2 - KAPPA),
            enough,
            enough.right.subs(F0, 2 * start),
        ),
    ):

        @_proves(known.proof.relation)
        def agrees(
            _: sp.Expr, right: sp.Expr, what: str = what, found: sp.Expr = found
        ) -> list[Check]:
            return [_zero(f"{what}, for 2h", right - found)]

        w.claim(left, relation, right, agrees)
    w.say(
        "The floor in distance, the condition and η stay. (`w = x − η Aᵀ(Ax − y)` is a gradient"
        " step of length η on `½‖Ax − y‖²`, and of length η/2 on `‖Ax − y‖²`.)"
    )


def _memory(w: _Writer, recursion: Formula) -> None:
    """Compare x_{n+1} with x_{n−1} too: what survives for κ ≥ 2."""
    v, v_next = _nonnegative("V_n"), _nonnegative("V_{n+1}")
    moved, cross = _nonnegative("|d_{n-1}|"), sp.Symbol("<r_n,r_{n-1}>", real=True)
    space = _Space(1 + S)
    before = _add((1, _atom("Aq")), (-1, _atom("v")))
    taken = space.nearness("p")
    in_products = {
        KAPPA: BETA * _pair("e", "e") / _pair("Ae", "Ae"),  # at least, by REC
        BIG_F: space.square(space.residual),
        BIG_FNEXT: space.square(space.next_residual),
        CROSS: space.inner(space.residual, space.next_residual),
        TILT: space.inner(space.residual, _atom("v")),
        NU: sp.sqrt(_pair("v", "v")),
    }

    def potential(meaning: sp.Expr, new: str) -> sp.Expr:
        """V of the step from x_n to x_{n+1} ("p"), or from x_{n−1} to x_n ("e")."""
        old, here, there = ("e", space.residual, space.next_residual)
        if new == "e":
            old, here, there = "q", before, space.residual
        d = _add((1, _atom(new)), (-1, _atom(old)))
        return meaning.subs({moved: sp.sqrt(space.square(d)), cross: space.inner(here, there)})

    def compares(to: str | None, name: str) -> Proof:
        @_proves("≤")
        def proof(_: sp.Expr, right: sp.Expr) -> list[Check]:
            grown = potential(form.right, "p") - right.subs(v, potential(form.right, "e"))
            excess = taken - space.nearness(to) - BETA * DELTA  # 0 at most
            return [_zero(f"the projector against {name}", (grown - excess).subs(in_products))]

        return proof

    @_proves("≤")
    def is_step(left: sp.Expr, right: sp.Expr) -> list[Check]:
        grown = right.subs(v_next, potential(form.right, "p"))
        lost = (grown - left).subs(in_products) - space.stretch
        return [_zero("the difference is `β‖d_n‖² − ‖A d_n‖² ≥ 0`", lost)]

    @_proves("=")
    def defines(_: sp.Expr, meaning: sp.Expr) -> list[Check]:
        excess = taken - space.nearness("q")
        grown = potential(meaning, "p") - potential(meaning, "e")
        return [_zero("against x_{n−1} it grows by `βδ` at most", grown - excess)]

    w.step("A sharper bound, and κ ≥ 2")
    w.say(
        "The projector could have taken not only x*: also `x_n`, and `x_{n−1}`. For any step"
        " `η = (1 + s)/β`, with noise, follow"
    )
    form = w.claim(v, "=", _sum(BETA * moved**2, 2 * (1 + S) * cross), defines)
    w.say("The three comparisons, and `‖A d_n‖² ≤ β‖d_n‖²`, read")
    tilted = 2 * TILT * (KAPPA - 1 - S)
    truth = _sum(KAPPA * BIG_F, tilted, KAPPA * NU**2, BETA * DELTA)
    stay = _sum(2 * (1 + S) * BIG_F, BETA * DELTA)
    star = w.claim(v_next, "≤", truth, compares(None, "x*"))
    still = w.claim(v_next, "≤", stay, compares("e", "x_n"))
    back = w.claim(v_next, "≤", _sum(v, BETA * DELTA), compares("q", "x_{n−1}"))
    step = w.claim(_sum(BIG_F, BIG_FNEXT, 2 * S * CROSS), "≤", v_next, is_step)
    w.say(
        "The first two with the last are the bounds of one step; the third carries what is known of"
        " earlier steps."
    )
    _sharper(w, recursion, star, still, back, step)


def _sharper(
    w: _Writer, recursion: Formula, star: Formula, still: Formula, back: Formula, step: Formula
) -> None:
    """What the comparisons give at η = 1/β without noise."""
    v, v_next = _nonnegative("V_n"), _nonnegative("V_{n+1}")
    there = {S: 0, NU: 0, TILT: 0, BIG_F: FN, BIG_FNEXT: FNEXT}

    @_proves("≤")
    def is_least_of_two(_: sp.Expr, right: sp.Expr) -> list[Check]:
        return [
            _zero(
                "for κ < 2 it is that against x*", right.subs(R, KAPPA - 1) - star.right.subs(there)
            ),
            _zero("for κ ≥ 2 it is that against x_n", right.subs(R, 1) - still.right.subs(there)),
        ]

    @_proves("≤")
    def is_step(left: sp.Expr, _: sp.Expr) -> list[Check]:
        return [_zero("it is the last of them", left - step.left.subs(there))]

    w.say("Now take `η = 1/β`, `v = 0`, and `1 + r = min(κ, 2)`:")
    first = w.claim(v_next, "≤", _sum((1 + R) * FN, BETA * DELTA), is_least_of_two)
    last = w.claim(_sum(FN, FNEXT), "≤", v_next, is_step)
    theorem = first.right - FN - recursion.right.subs(KAPPA, 1 + R)
    w.check(_zero("together they are the theorem", theorem))
    w.say(
        "They are the theorem, and for `κ ≥ 2` they say `f_{n+1} ≤ f_n + βδ`. The mean of the first"
        " and of `V_{n+1} ≤ V_n + βδ`, with weights `1/(1 + r)` and `r/(1 + r)`, and the last give"
    )
    _over_several_steps(w, first, back, last, v)


def _over_several_steps(
    w: _Writer, star: Formula, back: Formula, third: Formula, v: sp.Symbol
) -> None:
    k = 1 + R  # min(κ, 2)
    j = sp.Symbol("j", integer=True, nonnegative=True)
    f_j, b = _nonnegative("f_j"), _positive("b_n")

    @_proves("≤")
    def is_mean(left: sp.Expr, right: sp.Expr) -> list[Check]:
        mean = star.right / k + R * back.right / k - (third.left - left)
        return [_zero("the weighted mean", mean - right)]

    @_proves("≤")
    def is_unrolled(_: sp.Expr, right: sp.Expr) -> list[Check]:
        # V_n ≤ V_{j+1} + (n − 1 − j)βδ, and V_{j+1} ≤ (1 + r) f_j + βδ
        grown = star.right.subs(FN, f_j) + (N - 1 - j) * BETA * DELTA
        return [
            _zero("V_n unrolled to V_{j+1}", weighted.right.subs(v, grown) - right),
            _zero("j = n is the theorem", right.subs(j, N) - (star.right - FN).subs(FN, f_j)),
        ]

    @_proves("=")
    def is_least(_: sp.Expr, right: sp.Expr) -> list[Check]:
        # The least over j ≤ n is that over j = n and, one βδ r/(1 + r) above b_n, over j < n.
        last = line.right.subs(j, N).subs(f_j, b)
        grown = b + (line.right - line.right.subs(N, N - 1))
        found = right.args if isinstance(right, sp.Min) else (right,)
        return [
            _zero(what, sp.Mul(*(entry - expected for entry in found)))
            for what, expected in (("j = n is one of the two", last), ("j < n the other", grown))
        ]

    @_proves("<")
    def is_meeting(_: sp.Expr, right: sp.Expr) -> list[Check]:
        one, other = least.right.args
        return [_zero("the two meet there", (one - other).subs(b, right))]

    @_proves("≤")
    def is_beyond(_: sp.Expr, right: sp.Expr) -> list[Check]:
        first = line.right.subs({R: 1, j: 0, f_j: F0}).subs(N, N - 1)
        return [_zero("it is j = 0 for r = 1", first - right)]

    weighted = w.claim(FNEXT, "≤", _sum(R / (1 + R) * v, BETA * DELTA), is_mean)
    w.say("and, as V grows by at most `βδ` a step, for every `j ≤ n`")
    line = w.claim(
        FNEXT, "≤", _sum(R * f_j, BETA * DELTA * (1 + (N - j) * R / (1 + R))), is_unrolled
    )
    w.say("So `f_n ≤ b_n` with `b_0 = f_0`, `b_1 = r b_0 + βδ` and")
    both = sp.Min(R * b + BETA * DELTA, b + BETA * DELTA * R / (1 + R), evaluate=False)
    least = w.claim(sp.Symbol("b_{n+1}"), "=", both, is_least)
    w.say("The second is the less where")
    w.claim(b, "<", BETA * DELTA / (1 - R**2), is_meeting)
    w.say("For every `κ ≥ 2` it leaves, with `r = 1`,")
    w.claim(sp.Symbol("f_n"), "≤", _sum(F0, BETA * DELTA * (N + 1) / 2), is_beyond)
    w.say(
        "and nothing that falls: with an exact projector the objective never rises, and need not"
        " fall."
    )


def _in_products(expression: sp.Expr, sign: int) -> sp.Expr:
    """An identity between the constraints of one step in inner products, for s = sign·m."""
    f, g, cross = _pair("Ae", "Ae"), _pair("Ap", "Ap"), _pair("Ae", "Ap")
    e, d, p = _pair("e", "e"), _nonnegative("dd"), _pair("p", "p")
    eta, q = (1 + sign * M) / BETA, _positive("q")
    return expression.subs({
        sp.Symbol("P"): d + 2 * eta * (cross - f) - (e - 2 * eta * f) - DELTA,
        sp.Symbol("B"): f + g - 2 * cross - BETA * d,
        sp.Symbol("A_0"): ALPHA * e - f,
        sp.Symbol("A_1"): ALPHA * p - g,
        _nonnegative("|Ae_1 + qAe_0|"): sp.sqrt(g + 2 * sign * q * cross + q**2 * f),
        _nonnegative("|e_1 - qe_0|"): sp.sqrt(p - q * (e + p - d) + q**2 * e),
        F0: f,
        F1: g,
    }).subs(S, sign * M).subs(BETA, KAPPA * ALPHA)  # fmt: skip


def _certificate(w: _Writer) -> None:
    """The one-step multipliers of the semidefinite program, for any step and for a shorter one."""
    radius, q, lam = map(_positive, ("R", "q", "lambda"))
    p, b, a0 = (sp.Symbol(name) for name in ("P", "B", "A_0"))
    square = sp.Abs(S) / radius * _nonnegative("|Ae_1 + qAe_0|") ** 2
    claimed = _sum(F1, -(q**2) * F0, -lam * BETA * DELTA)
    weighted = _sum(lam * BETA * p, lam * b, lam * KAPPA * a0, -square)
    meaning = {radius: sp.sqrt(S**2 + KAPPA - 1), q: sp.Abs(S) + radius, lam: q / radius}

    def proves(found: _Meanings, left: sp.Expr, right: sp.Expr) -> Iterator[Check]:
        # R² = s² + κ − 1 is solved for κ, so that no root is left.
        rational = {KAPPA: 1 + radius**2 - M**2}
        for sign in (1, -1):
            case = f"s {'≥≤'[sign < 0]} 0"
            root = found[radius].subs(S, sign * M).subs(rational) - radius
            yield _zero(f"`R² = s² + κ − 1`, {case}", root)
            apart = _in_products(left - right, sign).subs(lam, found[lam])
            apart = apart.subs(q, found[q].subs(S, sign * M)).subs(rational)
            yield _zero(f"the sum, {case}", apart)

    w.step("The proof as a dual solution")
    w.say(
        "For the worst case of one step as a semidefinite program, the proof is a few multipliers."
        " The projector says `P = ‖x_1 − w_0‖² − ‖x* − w_0‖² − δ ≤ 0`, REC says `B = ‖A d_0‖² −"
        " β‖d_0‖² ≤ 0` and `A_i = α‖e_i‖² − ‖A e_i‖² ≤ 0`. With"
    )
    for symbol, value in meaning.items():
        w.claim(
            symbol,
            "=",
            value,
            Proof("=", lambda symbol, value: proves({**meaning, symbol: value}, claimed, weighted)),
        )
    w.say("their weighted sum is")
    w.claim(claimed, "=", weighted, Proof("=", partial(proves, meaning)))
    w.say(
        "(+ for s > 0, − for s < 0). At `η = 1/β` the square vanishes, `λ = 1`, `q² = κ − 1`: the"
        " one-step identity. N steps weigh step n with `(κ − 1)^{N−1−n}`."
    )
    _certificate_of_shorter_steps(w, claimed)


def _certificate_of_shorter_steps(w: _Writer, claimed: sp.Expr) -> None:
    q, lam = _positive("q"), _positive("lambda")
    p, b, a0, a1 = (sp.Symbol(name) for name in ("P", "B", "A_0", "A_1"))
    scale = 1 + (KAPPA - 1) * M
    # The quadratic for q is linear in κ.
    solved = 1 + (2 * M * q - q**2) / (M * q**2 - 2 * M * q - 1 + M)

    @_proves("=")
    def is_root(_: sp.Expr, right: sp.Expr) -> list[Check]:
        factor = w.expressions["rate_short"].subs(ETA, (1 - M) / BETA)
        return [_zero("q² is the factor of shorter steps", right**2 - factor)]

    def proves(value: sp.Expr, left: sp.Expr, right: sp.Expr) -> list[Check]:
        apart = _in_products(left - right, -1).subs(lam, value)
        return [_zero("the sum of shorter steps", apart.subs(KAPPA, solved))]

    w.say("For the shorter steps, `s = −m`, of `κ < 2 − 2m`, and now with")
    inside = (KAPPA * M) ** 2 + scale * (KAPPA - 1) * (1 - M)
    w.claim(q, "=", (KAPPA * M + sp.sqrt(inside)) / scale, is_root)
    weighted = _sum(
        lam * BETA * p,
        lam * (1 - M) * b,
        lam * KAPPA * (1 - M + M * q) * a0,
        lam * KAPPA * M * (1 - q) / q * a1,
        -lam * BETA * M / q * _nonnegative("|e_1 - qe_0|") ** 2,
    )
    weight = q / (scale * q - KAPPA * M)
    w.claim(lam, "=", weight, Proof("=", lambda _, right: proves(right, claimed, weighted)))
    w.say("it is")
    w.claim(claimed, "=", weighted, Proof("=", partial(proves, weight)))
    w.say("The multiplier of `A_1` is not negative as long as `q ≤ 1`.")


def _tightness(w: _Writer, recursion: Formula) -> None:
    """The instance of `adversary.tight_instance`."""
    near = sp.Symbol("<e_n,e_{n+1}>")
    following = recursion.right.subs(KAPPA, 1 + R)

    @_proves("=")
    def stretches(left: sp.Expr, right: sp.Expr) -> list[Check]:
        # α‖e_n‖² = ‖A e_n‖² = f_n; images and errors of points two or more apart are orthogonal.
        size = right.subs(FN, FN + FNEXT) - right - right.subs(FN, FNEXT)
        return [
            _zero("`‖A e_n‖² = α‖e_n‖²`", left.subs(ERROR, sp.sqrt(FN / ALPHA)) - right),
            _zero("and so for pairs two or more apart", size),
        ]

    @_proves("=")
    def steps(_: sp.Expr, right: sp.Expr) -> list[Check]:
        squared = length.right + length.right.subs(FN, FNEXT) - 2 * right  # ‖d_n‖²
        return [_zero("`‖A d_n‖² = β‖d_n‖²`", FN + FNEXT - BETA * squared)]

    w.step("The bound is attained")
    w.say(
        "Take `1 < κ < 2`, `f_{n+1} = r f_n + βδ`, orthogonal images `A e_n` with `‖A e_n‖² = f_n`,"
        " and errors with"
    )
    length = w.claim(ERROR**2, "=", FN / ALPHA, stretches)
    cross = w.claim(near, "=", (FN + FNEXT) * (1 / ALPHA - 1 / BETA) / 2, steps)
    w.say(
        "and all other inner products zero. The Gram matrix is tridiagonal with cosines of at most"
        " `½` between neighbours, hence positive definite, so such vectors exist, and A with them.",
        "If S holds x* and these points, then `α_n = α`, `β_n = β`, `δ_n = δ`: no slack at any"
        " iterate, and the theorem holds with equality for every N, provided",
    )
    alpha = BETA / (1 + R)
    _chosen_by_the_projector(
        w, length.right.subs(ALPHA, alpha), cross.right.subs(ALPHA, alpha), following
    )
    _neighbours(w, cross.right.subs(ALPHA, alpha) * alpha, following)
    w.say(
        "(Always if `δ = 0`.) Where `f_0` is less, the sharper bound is smaller than the theorem's."
    )


def _chosen_by_the_projector(
    w: _Writer, length: sp.Expr, near: sp.Expr, following: sp.Expr
) -> None:
    h = _positive("f_j")
    step = length + length.subs(FN, FNEXT) - 2 * near  # ‖d_n‖²

    def nearness(distance: sp.Expr, cross: sp.Expr) -> sp.Expr:
        """β(‖s − w_n‖² − ‖x_n − w_n‖²) from ‖s − x_n‖² and ⟨A(s − x*), A e_n⟩."""
        return BETA * distance + 2 * (cross - FN)

    def farther(distance: sp.Expr, cross: sp.Expr) -> sp.Expr:
        """How much farther s is than x_{n+1} may be."""
        taken = nearness(step, sp.Integer(0))
        return (nearness(distance, cross) - taken + BETA * DELTA).subs(FNEXT, following)

    before = length + length.subs(FN, h) - 2 * near.subs(FNEXT, h)
    apart = farther(length + length.subs(FN, h), sp.Integer(0))
    back = farther(before, sp.Integer(0))
    w.check(
        _zero("x_{n+1} is as near to w_n as x*, plus δ", farther(length, sp.Integer(0))),
        _nonnegative_check("points two or more steps away are farther", apart),
        _nonnegative_check("x_n itself is farther", farther(sp.Integer(0), FN).subs(INSIDE)),
        _zero("x_{n−1} is farther by `f_{n−1} − r f_n`", back - (h - R * FN)),
    )

    @_proves("≥")
    def suffices(left: sp.Expr, right: sp.Expr) -> list[Check]:
        # f_{n−1} − r f_n from f_n = r f_{n−1} + βδ
        difference = (h - R * FN).subs(FN, following.subs(FN, h))
        above = (following - right).subs(FN, right + h)
        return [
            _zero("then `f_{n−1} − r f_n ≥ 0`", difference - (1 - R**2) * (h - right)),
            _zero("for f_0", left - F0),
            _nonnegative_check("and it stays so at the next step", above.subs(INSIDE)),
            _zero(
                "it is `r/(1 + r)` of the floor",
                right - R / (1 + R) * w.expressions["objective_floor"].subs(KAPPA, 1 + R),
            ),
        ]

    w.claim(F0, "≥", R * BETA * DELTA / (1 - R**2), suffices)
    w.say("which is `r/(1 + r)`, about half, of the floor.")


def _neighbours(w: _Writer, near: sp.Expr, following: sp.Expr) -> None:
    """`near` = α⟨e_n, e_{n+1}⟩: cosines of at most ½."""
    root = _positive("z")  # √(f_{n+1}/f_n)
    edge = R * BETA * DELTA / (1 - R**2)
    cosine = (near / sp.sqrt(FN * FNEXT)).subs(FNEXT, root**2 * FN)
    excess = sp.expand(sp.simplify((cosine - sp.Rational(1, 2)) * 2 * (1 + R) * root))
    ends = [
        _nonnegative_check(
            f"it is negative for `{what}`", -excess.subs(root, end).subs(R, 1 / (1 + P) ** 2)
        )
        for end, what in ((sp.sqrt(R), "f_{n+1} = r f_n"), (1 / sp.sqrt(R), "f_{n+1} = f_n/r"))
    ]
    w.check(
        _nonnegative_check(
            "the cosine between neighbours exceeds ½ by a convex function of `√(f_{n+1}/f_n)`",
            sp.diff(excess, root, 2),
        ),
        *ends,
        _zero(
            "and `f_{n+1} ≤ f_n/r` from `f_n = rβδ/(1 − r²)` on",
            (FN / R - following) - (1 / R - R) * (FN - edge),
        ),
    )


# ---------------------------------------------------------------------------------------------
# Obtuse projectors
# ---------------------------------------------------------------------------------------------


def _obtuse(w: _Writer, identity: Formula, distance: Formula) -> None:
    """Of ‖e_n‖², if δ_n ≤ δ − θ‖e_{n+1}‖²."""
    a, b, c = map(_nonnegative, ("a_slack", "b_slack", "c_slack"))

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        # F_{n+1} = ‖A e_{n+1} − v‖²
        seen = identity.right.subs(FN, ALPHA_N * ERROR**2) - NU**2 + 2 * HIDDEN
        lost = (right - left).subs(FNEXT, seen)
        slacks = [
            (ALPHA_N - ALPHA) * ERROR**2,
            (BETA - BETA_N) * STEP**2,
            (DELTA - THETA * NEXT_ERROR**2 - DELTA_N) / ETA,
        ]
        assumed = {ALPHA_N: ALPHA + a, BETA: BETA_N + b, DELTA: DELTA_N + THETA * NEXT_ERROR**2 + c}
        named = zip(("α_n ≥ α", "β_n ≤ β", "the angle is obtuse"), slacks, strict=True)
        return [
            _zero("with the identity, the difference is three slacks", lost - sum(slacks)),
            *(_nonnegative_check(f"one is ≥ 0 if {x}", part.subs(assumed)) for x, part in named),
        ]

    w.step("Obtuse projectors, and κ ≥ 2")
    w.say(
        "Suppose that the projector turns back at an obtuse angle, by `θ ≥ 0`: `δ_n ≤ δ −"
        " θ‖e_{n+1}‖²`. For `θ = 0` that is what was assumed so far; a convex set has `θ = 1`; a"
        " set of reach τ has `θ ≥ 1 − ‖x_{n+1} − w_n‖/τ`. As `F_{n+1} = f_{n+1} − 2⟨A e_{n+1}, v⟩ +"
        " ν²`, `ν²` cancels, and for every step size"
    )
    any_step = w.claim(
        _sum(FNEXT, -2 * HIDDEN, THETA / ETA * NEXT_ERROR**2),
        "≤",
        _sum((1 / ETA - ALPHA) * ERROR**2, DELTA / ETA, (BETA - 1 / ETA) * STEP**2),
        follows,
    )
    _obtuse_recursion(w, any_step, distance)
    w.step("Obtuse projectors, shorter steps and noise")
    _obtuse_shorter(w, any_step)
    w.step("Obtuse projectors, longer steps")
    _obtuse_longer(w, identity)
    _obtuse_everywhere(w, identity)


def _obtuse_recursion(w: _Writer, any_step: Formula, distance: Formula) -> None:
    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        there = {ETA: 1 / BETA, HIDDEN: 0, FNEXT: ALPHA * NEXT_ERROR**2}
        whole = (any_step.right - any_step.left).subs(there)
        scaled = (ALPHA + THETA * BETA) * (right - left).subs(RATIO)
        return [
            _zero("it is the last, over `α + θβ`, with `f_{n+1} ≥ α‖e_{n+1}‖²`", whole - scaled)
        ]

    @_proves("=")
    def is_margin(left: sp.Expr, right: sp.Expr) -> list[Check]:
        expected = 1 - (recursion.right - recursion.right.subs(ERROR, 0)) / ERROR**2
        return [
            _zero("it is 1 minus the factor", left - expected),
            _zero("and this quotient", left - right),
        ]

    @_proves("≤")
    def is_limit(left: sp.Expr, right: sp.Expr) -> list[Check]:
        x = _positive("x")
        (fixed,) = sp.solve(sp.Eq(recursion.right.subs(ERROR, sp.sqrt(x)), x), x)
        return [
            _zero("it is the fixed point", left.subs(FINAL_ERROR, sp.sqrt(fixed)) - right),
            _zero("for θ = 0 that of the theorem", right.subs(THETA, 0) - distance.right),
        ]

    @_proves("≥")
    def suffices(left: sp.Expr, right: sp.Expr) -> list[Check]:
        left_over = sp.exp(-right * sp.log(1 / rate)) * start
        return [
            _zero("after so many steps the decaying term is Cδ", left_over - C * DELTA),
            _zero("n counts the steps", left - N),
        ]

    w.say("At `η = 1/β`, without noise,")
    recursion = w.claim(
        NEXT_ERROR**2,
        "≤",
        _sum((KAPPA - 1) / (1 + THETA * KAPPA) * ERROR**2, KAPPA * DELTA / (1 + THETA * KAPPA)),
        follows,
    )
    rate = (KAPPA - 1) / (1 + THETA * KAPPA)
    w.say("It contracts exactly for `κ(1 − θ) < 2`, since")
    w.claim(
        _sum(1, -(KAPPA - 1) / (1 + THETA * KAPPA)),
        "=",
        (2 - KAPPA * (1 - THETA)) / (1 + THETA * KAPPA),
        is_margin,
    )
    w.say("It then tends to at most")
    floor = w.claim(FINAL_ERROR**2, "≤", DELTA / _sum(2 / KAPPA, -1, THETA), is_limit)
    start = _nonnegative("|e_0|") ** 2
    w.say("and `‖e_n‖²` is within Cδ of it from")
    w.claim(
        N, "≥", sp.log(start / (C * DELTA)) / sp.log((1 + THETA * KAPPA) / (KAPPA - 1)), suffices
    )
    w.expressions["obtuse"] = recursion.right
    w.expressions["obtuse_floor"] = floor.right


def _obtuse_shorter(w: _Writer, any_step: Formula) -> None:
    ahead, t, q = _nonnegative("q"), _nonnegative("t"), _positive("q")
    root_alpha = sp.sqrt(ALPHA)

    def hides(x: sp.Expr) -> sp.Expr:
        """f_{n+1} − 2⟨A e_{n+1}, v⟩ at its least for √f_{n+1} = x."""
        return x**2 - 2 * NU * x

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        u = root_alpha * NEXT_ERROR
        there = {FNEXT: u**2, HIDDEN: NU * u, STEP: ERROR - NEXT_ERROR}
        whole = (any_step.right - any_step.left).subs(there).subs(ETA, (1 - M) / BETA)
        scaled = (right - left).subs(RATIO) * ALPHA / (1 - M)
        return [_zero("it is the first, times `κη`", whole - scaled)]

    @_proves("≤")
    def rests(left: sp.Expr, right: sp.Expr) -> list[Check]:
        closed = (quadratic.left - quadratic.right).subs({NEXT_ERROR: ERROR, M: 0, DELTA: 0})
        return [
            _zero("it is where nothing changes", closed.subs(ERROR, right)),
            _zero("for the limit", left - FINAL_ERROR),
        ]

    w.say(
        "Let `η = (1 − m)/β`, `m ≥ 0`. Then `‖d_n‖ ≥ |‖e_n‖ − ‖e_{n+1}‖|` takes away, and the noise"
        " adds `2ν√f_{n+1}` at most. As long as `√α ‖e_{n+1}‖ ≥ ν`, both are worst at `f_{n+1} ="
        " α‖e_{n+1}‖²`:"
    )
    least = root_alpha * NEXT_ERROR
    beyond = (hides(least + t) - hides(least)).subs(NEXT_ERROR, (NU + ahead) / root_alpha)
    w.check(_nonnegative_check("a larger f_{n+1} leaves less", beyond))
    lead = _sum(1 - M, THETA * KAPPA, KAPPA * M)
    mix = _sum(KAPPA * M * ERROR, (1 - M) * NU / root_alpha)
    rest = _sum((1 - M) * (KAPPA - 1) * ERROR**2, KAPPA * DELTA)
    quadratic = w.claim(_sum(lead * NEXT_ERROR**2, -2 * mix * NEXT_ERROR), "≤", rest, follows)
    w.say("so that")
    root = w.claim(
        NEXT_ERROR,
        "≤",
        (mix + sp.sqrt(_sum(mix**2, lead * rest))) / lead,
        _is_root(quadratic.left - quadratic.right, NEXT_ERROR, 1),
    )
    inner = (quadratic.right - quadratic.left).subs({NU: 0, DELTA: 0, ERROR: 1})
    margin = _zero(
        "without noise and δ it contracts exactly for `κ(1 − θ) < 2(1 − m)`",
        -inner.subs(NEXT_ERROR, 1) - (2 * (1 - M) - KAPPA * (1 - THETA)),
    )
    slope = sp.diff(inner, M).subs(NEXT_ERROR, q)  # free of m
    best = slope.subs(KAPPA, (1 + q**2) / (1 - THETA * q**2))
    w.check(
        margin,
        _zero("what the q of m = 0 leaves is linear in m", sp.diff(inner, M, 2)),
        _zero(
            "with `κ = (1 + q²)/(1 − θq²)`",
            (inner.subs({M: 0, NEXT_ERROR: q})).subs(KAPPA, (1 + q**2) / (1 - THETA * q**2)),
        ),
        _nonnegative_check(
            "and grows: a shorter step is no better, if `q < 1` and `θ ≤ 1`",
            best.subs({q: 1 / (1 + P), THETA: 1 / (1 + t)}),
        ),
    )
    w.say("At `η = 1/β` and `δ = 0` the noise leaves")
    floor = w.claim(FINAL_ERROR, "≤", 2 * NU / (root_alpha * (2 - KAPPA * (1 - THETA))), rests)
    w.say(
        "which is `ν/√α` or more. (Where `√α ‖e_{n+1}‖ < ν`, noise may hide `A e_{n+1}` altogether;"
        " `f_{n+1} − 2⟨A e_{n+1}, v⟩ ≥ −ν²` is what is left then.)"
    )
    w.expressions["obtuse_short"] = root.right
    w.expressions["obtuse_noise_floor"] = floor.right


def _obtuse_longer(w: _Writer, identity: Formula) -> None:
    roots = sp.sqrt(FN) * sp.sqrt(FNEXT)
    there = {NU: 0, ETA: (1 + S) / BETA, ALPHA_N: FN / ERROR**2}
    (taken,) = sp.solve(sp.Eq(FNEXT, identity.right.subs(there)), DELTA_N)

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        slacks = (
            BETA * (DELTA - THETA * NEXT_ERROR**2 - DELTA_N)
            + (BETA - BETA_N) * STEP**2
            + S * (FN + FNEXT + 2 * roots - BETA_N * STEP**2)
        )
        lost = right - left - slacks.subs(DELTA_N, taken)
        what = "what is lost: the angle, `β_n ≤ β`, and s times `‖A d_n‖ ≤ √f_n + √f_{n+1}`"
        return [_zero(what, lost)]

    @_proves("≤")
    def is_least(left: sp.Expr, right: sp.Expr) -> list[Check]:
        least = {FN: ALPHA * ERROR**2, FNEXT: ALPHA * NEXT_ERROR**2}
        whole = (bare.right - bare.left).subs(least)
        return [_zero("it is that over α", whole - ALPHA * (right - left).subs(RATIO))]

    w.say("Let `η = (1 + s)/β`, `0 ≤ s < 1`, without noise. The identity gives")
    bare = w.claim(
        _sum(FN, FNEXT, -2 * S * roots, THETA * BETA * NEXT_ERROR**2),
        "≤",
        _sum(BETA * ERROR**2, BETA * DELTA),
        follows,
    )
    x, y = _positive("x"), _positive("y")
    grows = sp.diff(x**2 + y**2 - 2 * S * x * y, x)
    w.check(_zero("the left side grows with √f_n from `s√f_{n+1}` on", grows.subs(x, S * y)))
    w.say(
        "and the left side is least for `f_n = α‖e_n‖²`, `f_{n+1} = α‖e_{n+1}‖²`, as long as"
        " `s‖e_n‖ ≤ ‖e_{n+1}‖ ≤ ‖e_n‖/s`:"
    )
    lead = _sum(1, THETA * KAPPA)
    rest = _sum((KAPPA - 1) * ERROR**2, KAPPA * DELTA)
    quadratic = w.claim(
        _sum(lead * NEXT_ERROR**2, -2 * S * ERROR * NEXT_ERROR), "≤", rest, is_least
    )
    root = w.claim(
        NEXT_ERROR,
        "≤",
        (S * ERROR + sp.sqrt(_sum(S**2 * ERROR**2, lead * rest))) / lead,
        _is_root(quadratic.left - quadratic.right, NEXT_ERROR, 1),
    )
    inner = (quadratic.left - quadratic.right).subs({DELTA: 0, ERROR: 1, NEXT_ERROR: 1})
    theta, k = 1 / (1 + _nonnegative("t")), 1 + _nonnegative("k")
    inside = {THETA: theta, KAPPA: k, S: 1 / (1 + _nonnegative("p"))}
    least = (quadratic.right - quadratic.left).subs({DELTA: 0, ERROR: 1, NEXT_ERROR: S})
    w.check(
        _zero(
            "without δ it contracts exactly for `κ(1 − θ) < 2(1 − s)`",
            inner - (2 * (1 - S) - KAPPA * (1 - THETA)),
        ),
        _nonnegative_check("the root is `s‖e_n‖` at least, for `θ ≤ 1`", least.subs(inside)),
        _zero(
            "and it grows with s: no longer step is better",
            sp.diff(root.right, S) * lead
            - (ERROR + S * ERROR**2 / sp.sqrt(_sum(S**2 * ERROR**2, lead * rest))),
        ),
    )
    w.say(
        "So `1/β` is the best of these, whatever θ, and a step of `h/β` contracts exactly for"
        " `κ(1 − θ) < 2 min(h, 2 − h)`. (An `‖e_{n+1}‖` outside those two limits is smaller, or the"
        " bound void.)"
    )
    w.expressions["obtuse_long"] = root.right


def _obtuse_everywhere(w: _Writer, identity: Formula) -> None:
    there = {NU: 0, ETA: (1 + S) / BETA, ALPHA_N: FN / ERROR**2}
    (taken,) = sp.solve(sp.Eq(FNEXT, identity.right.subs(there)), DELTA_N)
    image_step = BETA_N * STEP**2
    stay = DELTA - (1 + THETA) * STEP**2 - (1 + S) / BETA * (FNEXT - FN - image_step)

    @_proves("≤")
    def follows(left: sp.Expr, right: sp.Expr) -> list[Check]:
        slacks = (
            (THETA - S) * (DELTA - THETA * NEXT_ERROR**2 - taken)
            + S * stay
            + THETA * (1 + S) * (STEP**2 - image_step / BETA)
        )
        what = "what is lost: θ − s times the angle at x*, s times that at x_n, and `β_n ≤ β`"
        return [_zero(what, right - left - slacks)]

    @_proves("≤")
    def is_least(left: sp.Expr, right: sp.Expr) -> list[Check]:
        least = {FN: ALPHA * ERROR**2, FNEXT: ALPHA * NEXT_ERROR**2}
        whole = (bare.right - bare.left).subs(least).subs(ALPHA, BETA / KAPPA)
        return [_zero("it is that, times κ", KAPPA * whole - (right - left))]

    @_proves("≤")
    def is_half(left: sp.Expr, right: sp.Expr) -> list[Check]:
        half = (bound.right - bound.left).subs(S, THETA / 2)
        scale = THETA / 2 * (2 + THETA + THETA * KAPPA)
        return [_zero("it is that for `s = θ/2`", half - scale * (right - left))]

    w.step("Obtuse projectors, longer steps once more")
    w.say(
        "If the projector is obtuse on all of S, as one onto a set of reach τ is, it is so against"
        " `x_n`: `‖x_{n+1} − w_n‖² ≤ ‖x_n − w_n‖² − θ‖d_n‖² + δ`, that is"
    )
    other = (1 + S) / BETA

    @_proves("≤")
    def is_stay(left: sp.Expr, right: sp.Expr) -> list[Check]:
        # ‖x_{n+1} − w_n‖² − ‖x_n − w_n‖² = ‖d_n‖² + 2η⟨A d_n, A e_n⟩
        space = _Space(1 + S, noise=False)
        e, ae, ap = _atom("e"), _pair("Ae", "Ae"), _pair("Ap", "Ap")
        moved = space.square(_add((1, _atom("p")), (-1, e)))
        images = space.square(_add((1, _atom("Ap")), (-1, _atom("Ae"))))
        put = {FN: ae, FNEXT: ap, BETA_N: images / moved, STEP: sp.sqrt(moved)}
        excess = (space.nearness("p") - space.nearness("e")) / BETA + THETA * moved - DELTA
        return [_zero("in inner products", (left - right).subs(put) - excess)]

    w.claim(_sum((1 + THETA) * STEP**2, other * (FNEXT - FN - image_step)), "≤", DELTA, is_stay)
    w.say("With weights `θ − s` for x* and s for x_n, for `s < θ`,")
    bare = w.claim(
        _sum(
            THETA * other * FNEXT,
            (THETA - 2 * S) * other * FN,
            THETA * (THETA - S) * NEXT_ERROR**2,
        ),
        "≤",
        _sum((THETA - S) * ERROR**2, THETA * DELTA),
        follows,
    )
    w.say("and for `s ≤ θ/2`, REC at `x_n` and at `x_{n+1}` gives")
    lead = _sum(THETA * KAPPA * (THETA - S), THETA * (1 + S))
    rest = _sum(KAPPA * (THETA - S), -(THETA - 2 * S) * (1 + S))
    bound = w.claim(
        lead * NEXT_ERROR**2, "≤", _sum(rest * ERROR**2, THETA * KAPPA * DELTA), is_least
    )
    w.check(
        _zero(
            "without δ it contracts exactly for `κ(1 − θ) < 2(1 + s)`",
            lead - rest - (THETA - S) * (2 * (1 + S) - KAPPA * (1 - THETA)),
        )
    )
    w.say("A longer step contracts for more κ, then. The one of `(1 + θ/2)/β` has")
    whole = 2 + THETA + THETA * KAPPA
    half = w.claim(
        NEXT_ERROR**2, "≤", _sum(KAPPA / whole * ERROR**2, 2 * KAPPA * DELTA / whole), is_half
    )
    factor = half.right.subs(DELTA, 0) / ERROR**2
    at_theorem = (KAPPA - 1) / (1 + THETA * KAPPA)
    w.check(
        _zero(
            "it is a better step than `1/β` exactly for `κ > 2 + θ`",
            (at_theorem - factor) * whole * (1 + THETA * KAPPA) - (KAPPA - 2 - THETA),
        )
    )
    w.say("and contracts for `κ(1 − θ) < 2 + θ`.")
    w.expressions["obtuse_everywhere"] = bound.right / lead
