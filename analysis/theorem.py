"""Theorem 1 of Raj, Li, Bresler (ICCV 2019), derived: `print(derive())`.

Every formula in the derivation is either computed by sympy from the definitions or checked by
sympy against what was computed; a check that fails raises. The order is that of a proof: the
one-step identity, which assumes nothing, then what each assumption turns it into.

Model y = A x* + v, F_n = ‖A x_n − y‖² (no ½), e_n = x_n − x*, d_n = x_{n+1} − x_n, f_n = ‖A e_n‖².
One iteration is w_n = x_n − η Aᵀ(A x_n − y), x_{n+1} = P(w_n).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.str import StrPrinter


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
    "f_oo": ("f_∞", r"f_\infty"),
    "u_oo": ("u_∞", r"u_\infty"),
    "|d_n|": ("‖d_n‖", r"\lVert d_n\rVert"),
    "|d_{n-1}|": ("‖d_{n−1}‖", r"\lVert d_{n-1}\rVert"),
    "|e_n|": ("‖e_n‖", r"\lVert e_n\rVert"),
    "|e_oo|": ("‖e_∞‖", r"\lVert e_\infty\rVert"),
    "|Ae_1 + qAe_0|": ("‖A e_1 ± q A e_0‖", r"\lVert A e_1 \pm q A e_0\rVert"),
    "<Ae_n,Ae_{n-1}>": ("⟨A e_n, A e_{n−1}⟩", r"\langle A e_n, A e_{n-1}\rangle"),
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
            return super()._print_Mul(expr)  # type: ignore[misc]
        if first == -1:
            return f"-{self._print(last)}"  # type: ignore[attr-defined]
        front = self._print(first)  # type: ignore[attr-defined]
        if first.is_Add:
            front = self._bracket.format(front)
        return f"{front}{self._times}{self._print(last)}"  # type: ignore[attr-defined]


class _PlainPrinter(_Reader, StrPrinter):
    _times, _bracket = "*", "({})"

    def _print_Symbol(self, expr: sp.Symbol) -> str:
        return _WRITTEN.get(expr.name, (expr.name.replace("-", "−"), None))[0]

    def _print_Abs(self, expr: sp.Abs) -> str:
        return f"|{self._print(expr.args[0])}|"

    def _print_Min(self, expr: sp.Min) -> str:
        return f"min({', '.join(self._print(argument) for argument in expr.args)})"


class _LatexPrinter(_Reader, LatexPrinter):
    pass


def _plain(expression: sp.Expr) -> str:
    text: str = _PlainPrinter({"order": "none"}).doprint(expression)
    text = re.sub(r"\*\*2(?!\d)", "²", text).replace("**", "^").replace("sqrt(", "√(")
    return text.replace(" - ", " − ").replace("*", "·")


def _latex(expression: sp.Expr) -> str:
    names = {s: _LATEX_NAMES[s.name] for s in expression.free_symbols if s.name in _LATEX_NAMES}
    printed: str = _LatexPrinter({"order": "none", "symbol_names": names}).doprint(expression)
    return printed


@dataclass(frozen=True)
class Formula:
    """left (=, ≤ or <) right."""

    left: sp.Expr
    relation: str
    right: sp.Expr

    def __str__(self) -> str:
        return f"{_plain(self.left)} {self.relation} {_plain(self.right)}"

    def latex(self) -> str:
        relation = {"=": "=", "≤": r"\le", "≥": r"\ge", "<": "<"}[self.relation]
        return f"{_latex(self.left)} {relation} {_latex(self.right)}"


@dataclass(frozen=True)
class Step:
    """One step: prose and formulas in reading order, and what sympy checked on the way."""

    title: str
    body: tuple[str | Formula, ...]
    checks: tuple[str, ...]

    def __str__(self) -> str:
        lines = [_unquoted(self.title), ""]
        for part in self.body:
            if isinstance(part, Formula):
                lines.append(f"      {part}")
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
class Derivation:
    """The theorem, step by step; prints itself.

    Attributes:
        steps: in the order of the proof.
        expressions: the results, by name, as sympy expressions in `symbols`.
        symbols: by name.
    """

    steps: tuple[Step, ...]
    expressions: Mapping[str, sp.Expr] = field(repr=False)
    symbols: Mapping[str, sp.Symbol] = field(repr=False)

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
    "κ": r"\kappa ",
    "ν": r"\nu ",
    "ρ": r"\rho ",
    "λ": r"\lambda ",
    "Σ": r"\sum ",
    "≤": r"\le ",
    "≥": r"\ge ",
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

    def say(self, *parts: str | Formula) -> None:
        self._body += parts

    def zero(self, what: str, expression: sp.Expr) -> None:
        """`expression` must reduce to 0."""
        if sp.simplify(sp.expand(expression)) != 0:
            raise DerivationError(f"{self._title}: {what}: {sp.simplify(expression)} is not 0")
        self._checks.append(what)

    def nonnegative(self, what: str, expression: sp.Expr) -> None:
        """`expression` must be nonnegative by the signs of its symbols."""
        if not sp.factor(sp.together(sp.simplify(expression))).is_nonnegative:
            raise DerivationError(f"{self._title}: {what}: cannot see that {expression} ≥ 0")
        self._checks.append(what)

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


# ---------------------------------------------------------------------------------------------
# The derivation
# ---------------------------------------------------------------------------------------------

ALPHA, BETA, ETA, DELTA = (sp.Symbol(x, positive=True) for x in ("alpha", "beta", "eta", "delta"))
KAPPA, R = sp.Symbol("kappa", positive=True), sp.Symbol("r", positive=True)
NU = sp.Symbol("nu", nonnegative=True)
S = sp.Symbol("s", real=True)
F0, FN, FNEXT = (sp.Symbol(x, positive=True) for x in ("f_0", "f_n", "f_{n+1}"))
BIG_F0, BIG_F, BIG_FNEXT = (sp.Symbol(x, positive=True) for x in ("F_0", "F_n", "F_{n+1}"))
ALPHA_N, BETA_N = sp.Symbol("alpha_n", positive=True), sp.Symbol("beta_n", nonnegative=True)
DELTA_N = sp.Symbol("delta_n", real=True)
STEP = sp.Symbol("|d_n|", nonnegative=True)
N = sp.Symbol("n", integer=True, nonnegative=True)
C = sp.Symbol("C", positive=True)


def derive() -> Derivation:
    """The theorem and what goes beyond it, every step verified by sympy now.

    Raises:
        DerivationError: a step does not follow.
    """
    w = _Writer()
    for step in (
        _identity,
        _one_step,
        _every_step,
        _limit,
        _distance,
        _number_of_steps,
        _constants_of_the_paper,
        _noise,
        _other_step_sizes,
        _start_outside,
        _half,
        _memory,
        _certificate,
        _tightness,
    ):
        step(w)
    w.close()
    symbols = (ALPHA, BETA, ETA, DELTA, KAPPA, R, NU, S, F0, FN, BIG_F0, BIG_F, ALPHA_N, BETA_N)
    named = {symbol.name: symbol for symbol in (*symbols, DELTA_N, STEP, N, C)}
    return Derivation(tuple(w.steps), MappingProxyType(w.expressions), MappingProxyType(named))


def _identity(w: _Writer) -> None:
    images = {"e": "Ae", "d": "Ad"}
    residual = _add((1, _atom("Ae")), (-1, _atom("v")))  # A x_n − y

    def square(a: _Vector) -> sp.Expr:
        return _inner(a, a, images, residual)

    # Everything seen from x_n: w_n = −η g with g = Aᵀ(A e_n − v), x_{n+1} = d_n, x* = −e_n.
    stepped = _add((-ETA, _atom("g")))
    nearer = square(_add((1, _atom("d")), (-1, stepped)))
    truth = square(_add((-1, _atom("e")), (-1, stepped)))
    delta_n = sp.expand(nearer - truth)
    next_objective = square(_add((1, residual), (1, _atom("Ad"))))
    e, d, ae, ad = _pair("e", "e"), _pair("d", "d"), _pair("Ae", "Ae"), _pair("Ad", "Ad")
    v = _pair("v", "v")

    # δ_n tells how large ⟨A d_n, A x_n − y⟩ is; F_{n+1} contains nothing else that is unknown.
    (cross,) = sp.solve(sp.Eq(DELTA_N, delta_n), _pair("Ad", "Ae"))
    derived = sp.expand(next_objective.subs(_pair("Ad", "Ae"), cross))
    derived = sp.expand(derived.subs({e: FN / ALPHA_N, ae: FN, ad: BETA_N * STEP**2, d: STEP**2}))
    derived = derived.subs(v, NU**2)
    terms = [
        sp.simplify(derived.coeff(quantity)) * quantity
        for quantity in (FN, NU**2, DELTA_N, STEP**2)
    ]

    w.step("The one-step identity")
    w.zero("‖Aᵀ(A x_n − y)‖² cancels from δ_n", sp.diff(delta_n, sp.Symbol("gg", nonnegative=True)))
    w.zero("the four terms are all there is", derived - sp.Add(*terms))
    left, right = next_objective, sp.Add(*terms)
    raw = {FN: ae, ALPHA_N: ae / e, BETA_N: ad / d, DELTA_N: delta_n, NU: sp.sqrt(v)}
    w.zero(
        "with the definitions put back, both sides are the same expression in inner products",
        left - right.subs(STEP, sp.sqrt(d)).subs(raw),
    )
    w.say(
        "Let `e_n = x_n − x*`, `d_n = x_{n+1} − x_n`, `f_n = ‖A e_n‖²`, `F_n = ‖A x_n − y‖²` with"
        " `y = A x* + v`, `ν = ‖v‖`.",
        "Measure three numbers: `α_n = f_n/‖e_n‖²`, `β_n = ‖A d_n‖²/‖d_n‖²`,"
        " `δ_n = ‖x_{n+1} − w_n‖² − ‖x* − w_n‖²`.",
        "Put `w_n = x_n − η Aᵀ(A e_n − v)` into `δ_n`, expand into inner products, solve for"
        " `⟨A d_n, A e_n⟩`,",
        "and put that into `F_{n+1} = ‖A e_n − v + A d_n‖²`:",
        Formula(BIG_FNEXT, "=", _sum(*terms)),
        "This assumes nothing: no set, no projector, no bound on A.",
    )
    w.expressions["identity"] = sp.Add(*terms)


def _one_step(w: _Writer) -> None:
    a, b, c = (sp.Symbol(f"{x}_slack", nonnegative=True) for x in "abc")
    exact = w.expressions["identity"].subs({NU: 0, ETA: 1 / BETA})
    bound = (BETA / ALPHA - 1) * FN + BETA * DELTA
    slack = bound - exact
    parts = (
        BETA * (1 / ALPHA - 1 / ALPHA_N) * FN,
        (BETA - BETA_N) * STEP**2,
        BETA * (DELTA - DELTA_N),
    )
    w.step("One step of the theorem: η = 1/β, no noise")
    w.zero("the bound minus the identity is the sum of three slacks", slack - sum(parts))
    w.nonnegative("the `α`-slack is nonnegative if α_n ≥ α", parts[0].subs(ALPHA_N, ALPHA + a))
    w.nonnegative("the `β`-slack is nonnegative if β_n ≤ β", (parts[1]).subs(BETA_N, BETA - b))
    w.nonnegative("the `δ`-slack is nonnegative if δ_n ≤ δ", parts[2].subs(DELTA_N, DELTA - c))
    w.say(
        "REC(S, α, β) gives `α_n ≥ α` if `x_n` and `x*` lie in S, and `β_n ≤ β` if `x_{n+1}` and"
        " `x_n` do; the projector gives `δ_n ≤ δ`, since x* is a point of S.",
        "With `κ = β/α`:",
        Formula(FNEXT, "≤", _sum((KAPPA - 1) * FN, BETA * DELTA)),
        "What the bound loses at each iterate is exactly",
        Formula(sp.Add((KAPPA - 1) * FN, BETA * DELTA, evaluate=False) - FNEXT, "=", _sum(*parts)),
        "an `α`-slack, a `β`-slack and a `δ`-slack.",
    )
    w.expressions["recursion"] = (KAPPA - 1) * FN + BETA * DELTA
    w.zero("κ = β/α", w.expressions["recursion"].subs(KAPPA, BETA / ALPHA) - bound)


def _every_step(w: _Writer) -> None:
    f = sp.Function("f")
    found = sp.rsolve(f(N + 1) - R * f(N) - BETA * DELTA, f(N), {f(0): F0})
    solution = R**N * F0 + BETA * DELTA * (1 - R**N) / (1 - R)
    w.step("Every n")
    w.say("Write `r = κ − 1`. The recursion has the solution")
    w.zero("sympy's solution of the recursion is this one", found - solution)
    w.zero("it starts at f_0", solution.subs(N, 0) - F0)
    w.zero("it satisfies the recursion", solution.subs(N, N + 1) - R * solution - BETA * DELTA)
    w.say(
        Formula(sp.Symbol("f_n"), "≤", _sum(R**N * F0, BETA * DELTA * (1 - R**N) / (1 - R))),
        "(by induction, as `r ≥ 0` makes the recursion monotone in `f_n`; the second term is"
        " `βδ` times `1 + r + … + r^{n−1}`).",
    )
    # r = 1/(1 + p), p > 0, is every r in (0, 1).
    p = sp.Symbol("p", positive=True)
    loss = sp.simplify((R**N * F0 + BETA * DELTA / (1 - R) - solution).subs(R, 1 / (1 + p)))
    w.nonnegative("for r < 1 the simpler form, 1 in place of 1 − rⁿ, is larger", loss)
    w.say("For `κ < 2`, simpler and hardly weaker:")
    w.say(Formula(sp.Symbol("f_n"), "≤", _sum((KAPPA - 1) ** N * F0, BETA * DELTA / (2 - KAPPA))))
    w.expressions["solution"] = solution.subs(R, KAPPA - 1)


def _limit(w: _Writer) -> None:
    p = sp.Symbol("p", positive=True)
    inside = w.expressions["solution"].subs(KAPPA, 1 + 1 / (1 + p))
    limit = sp.limit(sp.expand(sp.simplify(inside)), N, sp.oo)
    floor = BETA * DELTA / (2 - KAPPA)
    w.step("The limit")
    w.zero("the limit for 0 < r < 1", limit - floor.subs(KAPPA, 1 + 1 / (1 + p)))
    w.zero(
        "it is the fixed point of the recursion",
        w.expressions["recursion"].subs(FN, floor) - floor,
    )
    w.say("For `κ < 2` the powers of r vanish, and", Formula(sp.Symbol("f_oo"), "≤", floor))
    w.expressions["objective_floor"] = floor


def _distance(w: _Writer) -> None:
    floor = DELTA / (2 / KAPPA - 1)
    w.step("The floor in distance")
    w.say(
        "`‖e_n‖² = f_n/α_n ≤ f_n/α`. So the limit of `‖x_n − x*‖²` is at most",
        Formula(sp.Symbol("|e_oo|") ** 2, "≤", floor),
    )
    from_objective = w.expressions["objective_floor"].subs(BETA, KAPPA * ALPHA) / ALPHA
    w.zero("βδ/(2−κ)/α with β = κα", from_objective - floor)
    w.expressions["error_floor"] = floor


def _number_of_steps(w: _Writer) -> None:
    p, x = sp.Symbol("p", positive=True), sp.Symbol("x", positive=True)
    needed = sp.log(F0 / (C * ALPHA * DELTA)) / sp.log(1 / R)
    enough = sp.log(F0 / (C * ALPHA * DELTA)) / (2 - KAPPA)
    w.step("The number of steps")
    decayed = sp.exp(-needed * sp.log(1 / R)) * F0 / ALPHA  # rⁿ f_0/α with rⁿ = e^{−n log(1/r)}
    w.zero("after so many steps the decaying term is Cδ", decayed - C * DELTA)
    gap = sp.log(1 / x) - (1 - x)
    w.zero("log(1/r) and 1 − r are equal at r = 1", gap.subs(x, 1))
    # Its derivative 1 − 1/x is negative on (0, 1), so the gap falls to 0 at 1.
    w.nonnegative("log(1/r) − (1 − r) decreases on (0, 1)", -sp.diff(gap, x).subs(x, 1 / (1 + p)))
    w.say(
        "In `‖e_n‖² ≤ rⁿ f_0/α + δ/(2/κ − 1)` the first term is at most `Cδ` as soon as",
        Formula(N, "≥", needed),
        "Since `log(1/r) ≥ 1 − r = 2 − κ`, this is enough:",
        Formula(N, "≥", enough),
        "and then `‖x_n − x*‖² ≤ (C + 1/(2/κ − 1)) δ`. (If `f_0 ≤ Cαδ`, at once.)",
    )
    w.expressions["steps"] = enough
    w.expressions["steps_exact"] = needed.subs(R, KAPPA - 1)


def _constants_of_the_paper(w: _Writer) -> None:
    # Written here as Theorem 1 of the paper states them, in α and β.
    ratio = BETA / ALPHA
    floor = BETA * DELTA / (2 - ratio)
    distance = DELTA / (2 * ALPHA / BETA - 1)
    steps = sp.log(F0 / (C * ALPHA * DELTA)) / (2 - ratio)
    w.step("The constants of the paper")
    back = {KAPPA: ratio}
    w.zero(
        "contraction β/α − 1 per step",
        w.expressions["recursion"].subs(back).coeff(FN) - (ratio - 1),
    )
    w.zero("objective floor βδ/(2 − β/α)", w.expressions["objective_floor"].subs(back) - floor)
    w.zero("distance floor δ/(2α/β − 1)", w.expressions["error_floor"].subs(back) - distance)
    w.zero("number of steps log(f(x_0)/(Cαδ))/(2 − β/α)", w.expressions["steps"].subs(back) - steps)
    w.say(
        "Theorem 1 states `f(x_n) ≤ (β/α − 1)ⁿ f(x_0) + βδ/(2 − β/α)`, the limit"
        " `δ/(2α/β − 1)` for `‖x_n − x*‖²`,",
        "and `(C + 1/(2α/β − 1)) δ` after `log(f(x_0)/(Cαδ))/(2 − β/α)` steps: the constants found"
        " above, with `f = ‖Ax − y‖²`.",
    )


def _noise(w: _Writer) -> None:
    u = sp.Symbol("u_n", nonnegative=True)
    a, b, c = (sp.Symbol(f"{x}_slack", nonnegative=True) for x in "abc")
    exact = w.expressions["identity"].subs(ETA, 1 / BETA)
    bound = R * FN + NU**2 + BETA * DELTA
    slack = (bound - exact).subs({ALPHA_N: ALPHA + a, BETA_N: BETA - b, DELTA_N: DELTA - c})
    slack = slack.subs(R, BETA / ALPHA - 1)
    following = NU + sp.sqrt(R * u**2 + NU**2 + BETA * DELTA)
    limit = (NU + sp.sqrt(NU**2 + (1 - R) * BETA * DELTA)) / (1 - R)
    w.step("With noise")
    w.nonnegative("the identity gives F_{n+1} ≤ r f_n + ν² + βδ", slack)
    # The fixed point: (u − ν)² = r u² + ν² + βδ, of which `limit` is the root above ν.
    w.zero(
        "u_∞ solves (u − ν)² = r u² + ν² + βδ",
        ((u - NU) ** 2 - (following - NU) ** 2).subs(u, limit),
    )
    w.zero("without noise u_∞² is the floor", limit.subs(NU, 0) ** 2 - BETA * DELTA / (1 - R))
    slope = sp.diff(following, u)
    w.nonnegative("the map contracts with factor √r: slope² ≤ r", R - slope**2)
    w.say(
        "Nothing changes in the identity but the term `ν² = ‖v‖²`:",
        Formula(BIG_FNEXT, "≤", _sum(R * FN, NU**2, BETA * DELTA)),
        "On the right stands `f_n = ‖A e_n‖²`, on the left `F_{n+1}`, and `√f ≤ √F + ν`. With"
        " `u_n = ‖A e_n‖`:",
        Formula(sp.Symbol("u_{n+1}"), "≤", following),
        "For `r < 1` this contracts, to",
        Formula(sp.Symbol("u_oo"), "≤", limit),
        "so `‖x_n − x*‖` tends to at most `u_∞/√α`, which is `2ν/((2 − κ)√α)` for an exact"
        " projector. The condition is still `κ < 2`.",
    )
    w.zero("u_∞ for δ = 0", limit.subs(DELTA, 0) - 2 * NU / (1 - R))
    w.expressions["noisy_objective"] = bound.subs(R, KAPPA - 1)
    w.expressions["noisy_image"] = following.subs(R, KAPPA - 1)
    w.expressions["noisy_image_floor"] = limit.subs(R, KAPPA - 1)


def _other_step_sizes(w: _Writer) -> None:
    beta_n = sp.Symbol("beta_n", positive=True)
    t, cross = sp.Symbol("t", positive=True), sp.Symbol("c_n", real=True)
    a, b, c = (sp.Symbol(f"{x}_slack", nonnegative=True) for x in "abc")
    eta = (1 + S) / BETA
    # ‖d_n‖² = ‖A d_n‖²/β_n, and ‖A d_n‖² = f_{n+1} + f_n − 2⟨A e_n, A e_{n+1}⟩.
    moved, image = FNEXT + FN - 2 * cross, sp.Symbol("image", nonnegative=True)
    exact = w.expressions["identity"].subs({NU: 0, ETA: eta, STEP: sp.sqrt(moved / BETA_N)})
    claim = (KAPPA - 1) * FN - 2 * S * cross + BETA * DELTA - FNEXT
    # `exact` equals f_{n+1} and contains it: adding a multiple of the difference changes nothing.
    lost = (claim - (1 + S) * (exact - FNEXT)).subs(KAPPA, BETA / ALPHA)
    alpha_slack = BETA * (1 / ALPHA - 1 / ALPHA_N) * FN
    beta_slack = BETA * (1 / BETA_N - 1 / BETA) * image
    delta_slack = BETA * (DELTA - DELTA_N)
    w.step("Other step sizes")
    w.say(
        "Let `η = (1 + s)/β`, `s > −1`. Write the last term of the identity with"
        " `‖A d_n‖² = β_n‖d_n‖² = f_n + f_{n+1} − 2⟨A e_n, A e_{n+1}⟩`. Then, for `c_n = ⟨A e_n, A"
        " e_{n+1}⟩`,",
        Formula(FNEXT, "≤", _sum((KAPPA - 1) * FN, -2 * S * cross, BETA * DELTA)),
    )
    slacks = alpha_slack + beta_slack.subs(image, moved) + delta_slack
    w.zero("the loss is again an `α`-, a `β`- and a `δ`-slack", lost - slacks)
    for what, part in (
        ("α_n ≥ α", alpha_slack.subs(ALPHA_N, ALPHA + a)),
        ("β_n ≤ β", beta_slack.subs(BETA, beta_n + b).subs(BETA_N, beta_n)),
        ("δ_n ≤ δ", delta_slack.subs(DELTA_N, DELTA - c)),
    ):
        w.nonnegative(f"nonnegative if {what}", part)
    m = sp.Symbol("m", nonnegative=True)  # |s|
    radius = sp.sqrt(m**2 + KAPPA - 1)
    rate = (m + radius) ** 2
    root = m * sp.sqrt(FN) + sp.sqrt((m**2 + KAPPA - 1) * FN + BETA * DELTA)
    w.say(
        "and `|c_n| ≤ √(f_n f_{n+1})`, so that `√f_{n+1}` lies below the larger root of a"
        " quadratic:",
        Formula(sp.sqrt(FNEXT), "≤", root.subs(m, sp.Abs(S))),
    )
    w.zero(
        "the root solves t² − 2|s| √f_n t = (κ−1) f_n + βδ",
        (t**2 - 2 * m * sp.sqrt(FN) * t - (KAPPA - 1) * FN - BETA * DELTA).subs(t, root),
    )
    w.zero("at s = 0 this is the theorem", root.subs(m, 0) ** 2 - w.expressions["recursion"])
    w.say("For `δ = 0` the factor per step is")
    w.say(Formula(FNEXT, "≤", rate.subs(m, sp.Abs(S)) * FN))
    # rate is increasing in |s| and reaches 1 where |s| = (2 − κ)/2.
    edge = (2 - KAPPA) / 2
    x = sp.Symbol("x", positive=True)
    w.nonnegative("it increases with |s|", sp.diff(m + radius, m).subs(KAPPA, 1 + x + t))
    w.zero("it is 1 where |s| = (2 − κ)/2", radius.subs(m, edge) ** 2 - (1 - edge) ** 2)
    low, high = 1 / (2 * ALPHA), 2 / BETA - 1 / (2 * ALPHA)
    for name, end, s in (("lower", low, -edge), ("upper", high, edge)):
        w.zero(f"the {name} end of the range", eta.subs(S, s).subs(KAPPA, BETA / ALPHA) - end)
    w.zero("1/β is its midpoint", (low + high) / 2 - 1 / BETA)
    w.say(
        "which is least at `η = 1/β`, and below 1 for `|s| < (2 − κ)/2`, that is for",
        Formula(low, "<", ETA),
        Formula(ETA, "<", high),
        "an interval around 1/β that is not empty exactly when `κ < 2`. Its floor is",
    )
    floor = BETA * DELTA / (2 - KAPPA - 2 * m)
    w.zero(
        "the floor is a fixed point",
        (root**2 - FN).subs(FN, floor).subs(KAPPA, 2 - 2 * m - t).subs(m, 1 - x),  # |s| < 1
    )
    w.say(
        Formula(sp.Symbol("f_oo"), "≤", floor.subs(m, sp.Abs(S))),
        "For `s > 0` one step can be as bad as this; for `s < 0` the worst case is a little less.",
    )
    w.expressions["rate"] = rate.subs(m, sp.Abs(S)).subs(S, ETA * BETA - 1)
    w.expressions["step_lower"], w.expressions["step_upper"] = low, high
    w.expressions["step_root"] = root.subs(m, sp.Abs(S)).subs(S, ETA * BETA - 1)


def _start_outside(w: _Writer) -> None:
    t = sp.Symbol("t", nonnegative=True)
    # On an eigenvector of AᵀA with eigenvalue t, in units of x*: x_0 = t, Aᵀ(A x_0 − y) = t² − t.
    first = t - ETA * (t**2 - t)
    rho = sp.Symbol("rho", nonnegative=True)
    w.step("The start x_0 = Aᵀy, which is not in S")
    w.zero(
        "w_0 − x* = −(I − AᵀA)(I − ηAᵀA) x*, on every eigenvector of AᵀA",
        (first - 1) + (1 - t) * (1 - ETA * t),
    )
    f1 = sp.Symbol("f_1", positive=True)
    w.say(
        "The identity holds for n = 0 as well, but `(x_0, x*)` and `(x_1, x_0)` are not pairs of S:"
        " REC says nothing about `α_0` and `β_0`.",
        "From `x_1` on, all points are in S. So the theorem holds with `x_1` for `x_0`:",
        Formula(
            sp.Symbol("f_n"),
            "≤",
            _sum((KAPPA - 1) ** (N - 1) * f1, BETA * DELTA / (2 - KAPPA)),
        ),
        "with the same limits. On `f_1` itself: `‖x_1 − w_0‖² ≤ ρ² + δ` with `ρ = ‖w_0 − x*‖`, so"
        " `‖e_1‖ ≤ ρ + √(ρ² + δ)` and",
        Formula(f1, "≤", BETA * (rho + sp.sqrt(rho**2 + DELTA)) ** 2),
        "where, without noise, `w_0 − x* = −(I − AᵀA)(I − ηAᵀA) x*`.",
    )
    exact = BETA * (rho + sp.sqrt(rho**2 + DELTA)) ** 2
    w.zero("for δ = 0, f_1 ≤ 4βρ²", exact.subs(DELTA, 0) - 4 * BETA * rho**2)
    w.expressions["first_objective"] = exact


def _half(w: _Writer) -> None:
    half = sp.Symbol("h_n", positive=True)
    recursion = sp.expand(w.expressions["recursion"].subs(FN, 2 * half) / 2)
    w.step("With f = ½‖Ax − y‖²")
    w.zero("the recursion", recursion - ((KAPPA - 1) * half + BETA * DELTA / 2))
    w.zero("its floor", w.expressions["objective_floor"] / 2 - BETA * DELTA / (2 * (2 - KAPPA)))
    w.zero(
        "the number of steps",
        w.expressions["steps"].subs(F0, 2 * half)
        - sp.log(2 * half / (C * ALPHA * DELTA)) / (2 - KAPPA),
    )
    w.say(
        "Let `h_n = f_n/2`. The contraction is the same, additive constants are halved:",
        Formula(sp.Symbol("h_{n+1}"), "≤", _sum((KAPPA - 1) * half, BETA * DELTA / 2)),
        "The limit becomes `βδ/(2(2 − κ))`, the number of steps `log(2h_0/(Cαδ))/(2 − κ)`; the"
        " floor in distance, the condition and η stay.",
        "(`w = x − η Aᵀ(Ax − y)` is a gradient step of length η on `½‖Ax − y‖²`, and of length η/2"
        " on `‖Ax − y‖²`.)",
    )


def _memory(w: _Writer) -> None:
    """Compare x_{n+1} with x_{n−1} too: what survives for κ ≥ 2."""
    v, v_next = (sp.Symbol(name, nonnegative=True) for name in ("V_n", "V_{n+1}"))
    images = {name: "A" + name for name in ("e", "p", "q")}  # e_n, e_{n+1}, e_{n−1}

    def inner(a: _Vector, b: _Vector) -> sp.Expr:
        return _inner(a, b, images, {})

    def potential(new: str, old: str) -> sp.Expr:
        """β‖x_new − x_old‖² + 2⟨A e_new, A e_old⟩."""
        d = _add((1, _atom(new)), (-1, _atom(old)))
        return BETA * inner(d, d) + 2 * inner(_atom("A" + new), _atom("A" + old))

    def nearness(point: _Vector, image: _Vector) -> sp.Expr:
        """β(‖s − w_n‖² − ‖x_n − w_n‖²) for η = 1/β and s given by its error and its image."""
        to, moved = _add((1, point), (-1, _atom("e"))), _add((1, image), (-1, _atom("Ae")))
        return BETA * inner(to, to) + 2 * inner(moved, _atom("Ae"))

    taken, f_n = nearness(_atom("p"), _atom("Ap")), _pair("Ae", "Ae")
    w.step("A sharper bound, and κ ≥ 2")
    w.say(
        "The projector could have taken not only x*: also `x_n`, and `x_{n−1}`. Take `η = 1/β`,"
        " `v = 0`, and follow",
        Formula(
            sp.Symbol("V_n"),
            "=",
            _sum(BETA * sp.Symbol("|d_{n-1}|") ** 2, 2 * sp.Symbol("<Ae_n,Ae_{n-1}>")),
        ),
    )
    w.zero(
        "against x*: V_{n+1} ≤ β‖e_n‖² + βδ",
        (taken - nearness({}, {})) - (potential("p", "e") - BETA * _pair("e", "e")),
    )
    w.zero(
        "against x_n: V_{n+1} ≤ 2f_n + βδ",
        (taken - nearness(_atom("e"), _atom("Ae"))) - (potential("p", "e") - 2 * f_n),
    )
    w.zero(
        "against x_{n−1}: V_{n+1} ≤ V_n + βδ",
        (taken - nearness(_atom("q"), _atom("Aq"))) - (potential("p", "e") - potential("e", "q")),
    )
    d, ad = (_add((1, _atom(x + "p")), (-1, _atom(x + "e"))) for x in ("", "A"))
    w.zero(
        "V_{n+1} − f_n − f_{n+1} = β‖d_n‖² − ‖A d_n‖² ≥ 0",
        potential("p", "e") - f_n - _pair("Ap", "Ap") - (BETA * inner(d, d) - inner(ad, ad)),
    )
    k = 1 + R  # min(κ, 2)
    star, back = k * FN + BETA * DELTA, v + BETA * DELTA
    w.say(
        "The three comparisons, and `‖A d_n‖² ≤ β‖d_n‖²`, read",
        Formula(v_next, "≤", (1 + R) * FN + BETA * DELTA),
        Formula(v_next, "≤", _sum(v, BETA * DELTA)),
        Formula(_sum(FN, FNEXT), "≤", v_next),
        "with `1 + r = min(κ, 2)`: for `κ < 2` the first is the one against x* with `β‖e_n‖² ≤ κ"
        " f_n`, for `κ ≥ 2` the one against `x_n`.",
        "The first and the third are the theorem, and for `κ ≥ 2` they say `f_{n+1} ≤ f_n + βδ`."
        " The mean of the first two with weights `1/(1 + r)` and `r/(1 + r)`, and the third, give",
        Formula(FNEXT, "≤", _sum(R / (1 + R) * v, BETA * DELTA)),
    )
    mean = star / k + R * back / k - FN
    w.zero("the theorem again", star - FN - (R * FN + BETA * DELTA))
    w.zero("the weighted mean", mean - (R * v / (1 + R) + BETA * DELTA))
    j = sp.Symbol("j", integer=True, nonnegative=True)
    f_j = sp.Symbol("f_j", nonnegative=True)
    unrolled = k * f_j + (N - j) * BETA * DELTA  # V_n ≤ V_{j+1} + (n − 1 − j)βδ
    line = R * f_j + BETA * DELTA * (1 + (N - j) * R / (1 + R))
    w.zero("V_n unrolled to V_{j+1}", R / (1 + R) * unrolled + BETA * DELTA - line)
    w.zero("j = n is the theorem", line.subs(j, N) - (R * f_j + BETA * DELTA))
    w.say(
        "and, as V grows by at most `βδ` a step, for every `j ≤ n`",
        Formula(FNEXT, "≤", _sum(R * f_j, BETA * DELTA * (1 + (N - j) * R / (1 + R)))),
        "So `f_n ≤ b_n` with `b_0 = f_0`, `b_1 = r b_0 + βδ` and",
        Formula(
            sp.Symbol("b_{n+1}"),
            "=",
            sp.Min(
                R * sp.Symbol("b_n") + BETA * DELTA,
                sp.Symbol("b_n") + BETA * DELTA * R / (1 + R),
                evaluate=False,
            ),
        ),
        "The second is the less where `b_n < βδ/(1 − r²)`. For every `κ ≥ 2` it leaves, with"
        " `r = 1`,",
        Formula(sp.Symbol("f_n"), "≤", _sum(F0, BETA * DELTA * (N + 1) / 2)),
        "and nothing that falls: with an exact projector the objective never rises, and need not"
        " fall.",
    )
    b = sp.Symbol("b_n", positive=True)
    both = (R * b + BETA * DELTA) - (b + BETA * DELTA * R / (1 + R))
    w.zero("where the two meet", both.subs(b, BETA * DELTA / (1 - R**2)))
    w.zero(
        "κ ≥ 2", line.subs({R: 1, j: 0, f_j: F0}).subs(N, N - 1) - F0 - BETA * DELTA * (N + 1) / 2
    )


def _certificate(w: _Writer) -> None:
    """The one-step multipliers of the semidefinite program."""
    m, q = sp.Symbol("m", nonnegative=True), sp.Symbol("q", positive=True)
    radius = sp.Symbol("R", positive=True)  # √(s² + κ − 1)
    sign = sp.Symbol("sigma", real=True)  # the sign of s
    f, g = _pair("Ae", "Ae"), _pair("Ap", "Ap")
    cross, e, d = _pair("Ae", "Ap"), _pair("e", "e"), sp.Symbol("dd", nonnegative=True)
    eta, lam = (1 + sign * m) / BETA, q / radius
    moved = f + g - 2 * cross
    projection = d + 2 * eta * (cross - f) - (e - 2 * eta * f) - DELTA  # ≤ 0
    beta, alpha = moved - BETA * d, ALPHA * e - f  # ≤ 0
    total = lam * BETA * projection + lam * beta + lam * BETA / ALPHA * alpha
    claim = g - q**2 * f - lam * BETA * DELTA
    # What is left over: (|s|/R)‖A e_{n+1} + sign(s) q A e_n‖².
    square = m / radius * (g + 2 * sign * q * cross + q**2 * f)
    left = sp.expand(claim - total + square).subs(sign**2, 1)
    left = left.subs(ALPHA, BETA / (1 + radius**2 - m**2))  # κ = 1 + R² − s²
    w.step("The proof as a dual solution")
    w.zero("the weighted constraints leave a square", left.subs(q, m + radius))
    w.say(
        "For the worst case of one step as a semidefinite program, the proof is three multipliers."
        " With `R = √(s² + κ − 1)`, `q = |s| + R`, `λ = q/R`:",
        "`λβ` on the projector against x*, `λ` on `‖A d_0‖² ≤ β‖d_0‖²`, `λκ` on `α‖e_0‖² ≤ ‖A"
        " e_0‖²`. Their weighted sum is",
        Formula(
            _sum(sp.Symbol("f_1"), -(q**2) * F0, -lam * BETA * DELTA).subs(
                lam, sp.Symbol("lambda")
            ),
            "≤",
            -sp.Abs(S) / radius * sp.Symbol("|Ae_1 + qAe_0|") ** 2,
        ),
        "(+ for s > 0, − for s < 0). At `η = 1/β` the square vanishes, `λ = 1`, `q² = κ − 1`: the"
        " one-step identity. N steps weigh step n with `(κ − 1)^{N−1−n}`.",
    )


def _tightness(w: _Writer) -> None:
    """The instance of `adversary.tight_instance`."""
    f, g, h = (sp.Symbol(name, positive=True) for name in ("f_n", "f_{n+1}", "f_j"))
    p = sp.Symbol("p", positive=True)
    kappa = 1 + R
    alpha = BETA / kappa
    near = (f + g) * (1 / alpha - 1 / BETA) / 2  # ⟨e_n, e_{n+1}⟩
    following = R * f + BETA * DELTA
    step = f / alpha + g / alpha - 2 * near  # ‖d_n‖²
    w.step("The bound is attained")
    w.zero("‖A d_n‖² = β‖d_n‖²", (f + g) - BETA * step)
    w.zero(
        "‖A e_n‖² = α‖e_n‖², and so for pairs two or more apart", (f + h) - alpha * (f + h) / alpha
    )

    def nearness(distance: sp.Expr, cross: sp.Expr) -> sp.Expr:
        """β(‖s − w_n‖² − ‖x_n − w_n‖²) from ‖s − x_n‖² and ⟨A(s − x*), A e_n⟩."""
        return BETA * distance + 2 * (cross - f)

    taken = nearness(step, sp.Integer(0))
    w.zero(
        "x_{n+1} is as near to w_n as x*, plus δ",
        (taken - nearness(f / alpha, sp.Integer(0)) - BETA * DELTA).subs(g, following),
    )
    apart = nearness((f + h) / alpha, sp.Integer(0)) - taken + BETA * DELTA
    w.nonnegative("points two or more steps away are farther", apart.subs(g, following))
    stay = nearness(sp.Integer(0), f) - taken + BETA * DELTA
    w.nonnegative("x_n itself is farther", stay.subs(g, following).subs(R, 1 / (1 + p)))
    before = nearness((h + f) / alpha - (h + f) * (1 / alpha - 1 / BETA), sp.Integer(0))
    before = (before - taken + BETA * DELTA).subs(g, following)
    w.zero("x_{n−1} is farther by f_{n−1} − r f_n", before - (h - R * f))
    edge = R * BETA * DELTA / (1 - R**2)
    w.zero(
        "which is nonnegative from f_{n−1} = rβδ/(1 − r²) on",
        (h - R * f).subs(f, R * h + BETA * DELTA) - (1 - R**2) * (h - edge),
    )
    above = (following - edge).subs(f, edge + h)
    w.nonnegative("and stays so at the next step", above.subs(R, 1 / (1 + p)))
    root = sp.Symbol("z", positive=True)  # √(f_{n+1}/f_n)
    cosine = (near * alpha / sp.sqrt(f * g)).subs(g, root**2 * f)
    excess = sp.expand(sp.simplify((cosine - sp.Rational(1, 2)) * 2 * (1 + R) * root))
    w.nonnegative(
        "the cosine between neighbours exceeds ½ by a convex function of √(f_{n+1}/f_n)",
        sp.diff(excess, root, 2),
    )
    for end, what in ((sp.sqrt(R), "f_{n+1} = r f_n"), (1 / sp.sqrt(R), "f_{n+1} = f_n/r")):
        at_end = excess.subs(root, end).subs(R, 1 / (1 + p) ** 2)
        w.nonnegative(f"it is negative for {what}", -at_end)
    w.zero(
        "and f_{n+1} ≤ f_n/r from f_n = rβδ/(1 − r²) on",
        (f / R - following) - (1 / R - R) * (f - edge),
    )
    w.say(
        "Take `1 < κ < 2`, `f_{n+1} = r f_n + βδ`, orthogonal images `A e_n` with `‖A e_n‖² = f_n`,"
        " and errors with",
        Formula(sp.Symbol("|e_n|") ** 2, "=", FN / ALPHA),
        Formula(
            sp.Symbol("<e_n,e_{n+1}>"),
            "=",
            (FN + FNEXT) * (1 / ALPHA - 1 / BETA) / 2,
        ),
        "and all other inner products zero. The Gram matrix is tridiagonal with cosines of at most"
        " `½` between neighbours, hence positive definite, so such vectors exist, and A with them.",
        "If S holds x* and these points, then `α_n = α`, `β_n = β`, `δ_n = δ`: no slack at any"
        " iterate, and the theorem holds with equality for every N, provided `f_0 ≥ rβδ/(1 − r²)`,"
        " which is `r/(1 + r)`, about half, of the floor. (Always if `δ = 0`.) Where `f_0` is less,"
        " the sharper bound is smaller than the theorem's.",
    )
