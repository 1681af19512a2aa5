"""The derivation of Theorem 1: that it can fail, reads well, and says what runs show."""

import cmath
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import rates, theorem
from analysis.performance_estimation import closed_form, step_bound
from analysis.theorem import Derivation, DerivationError, derive


@pytest.fixture(scope="module")
def derivation() -> Derivation:
    return derive()


def number(derivation: Derivation, name: str, **values: float) -> float:
    """An expression of the derivation, evaluated."""
    expression = derivation.expressions[name]
    at = {symbol: values[symbol.name] for symbol in expression.free_symbols}
    return float(expression.subs(at).evalf(30))


@given(
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    eta=st.floats(0.01, 10),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_identity_holds_for_any_vectors(
    derivation: Derivation, n: int, m: int, eta: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    A, v = generator.standard_normal((m, n)), generator.standard_normal(m)
    star, x, after = generator.standard_normal((3, n))
    w = x - eta * A.T @ (A @ (x - star) - v)
    e, d = x - star, after - x
    values = {
        "alpha_n": (A @ e) @ (A @ e) / (e @ e),
        "beta_n": (A @ d) @ (A @ d) / (d @ d),
        "delta_n": (after - w) @ (after - w) - (star - w) @ (star - w),
        "|d_n|": math.sqrt(d @ d),
        "f_n": (A @ e) @ (A @ e),
        "nu": math.sqrt(v @ v),
        "eta": eta,
    }
    found = number(derivation, "identity", **values)
    residual = A @ (after - star) - v
    size = (e @ e + d @ d) / eta + abs(values["delta_n"]) / eta + residual @ residual
    assert abs(found - residual @ residual) <= 1e-12 * size


def test_identity_is_the_one_that_is_measured(derivation: Derivation) -> None:
    expected = "F_{n+1} = (1/(α_n·η) − 1)·f_n + ν² + δ_n/η + (β_n − 1/η)·‖d_n‖²"
    assert expected in str(derivation)


@given(kappa=st.floats(1.01, 1.99), beta=st.floats(0.1, 10), delta=st.floats(1e-3, 1))
@settings(max_examples=25, deadline=None)
def test_agrees_with_the_rates(
    derivation: Derivation, kappa: float, beta: float, delta: float
) -> None:
    alpha, r = beta / kappa, kappa - 1
    # Below half of the floor or so the bound is smaller than the theorem's.
    start = 3 + r * beta * delta / (1 - r**2)
    constants = {"kappa": kappa, "alpha": alpha, "beta": beta, "delta": delta, "f_0": start}
    predicted = rates.predicted_objective(start, 6, alpha, beta, delta).flatten().tolist()
    for n, value in enumerate(predicted):
        assert value == pytest.approx(number(derivation, "solution", n=n, **constants), rel=1e-9)
    assert float(rates.objective_floor(alpha, beta, delta)) == pytest.approx(
        number(derivation, "objective_floor", **constants), rel=1e-9
    )
    floor = number(derivation, "error_floor", **constants)
    assert float(rates.error_floor(alpha, beta, delta)) == pytest.approx(floor, rel=1e-9)
    C = 0.01
    enough = number(derivation, "steps", C=C, **constants)
    exact = number(derivation, "steps_exact", C=C, **constants)
    assert exact <= enough * (1 + 1e-12) or enough < 0
    counted = float(rates.steps_to_reach(C * delta + floor, start, alpha, beta, delta))
    # The recursion itself arrives a little before its bound with 1 in place of 1 − rⁿ.
    assert counted <= max(math.ceil(exact * (1 - 1e-12)), 0)


@pytest.fixture(scope="module")
def derived_bound(derivation: Derivation) -> Callable[..., Any]:
    """The derived bound on F_{n+1} in floats."""
    names = ("F_n", "kappa", "beta", "eta", "delta", "nu")
    expression = derivation.expressions["step_bound"]
    symbols = {symbol.name: symbol for symbol in expression.free_symbols}
    assert sorted(symbols) == sorted(names)
    bound: Callable[..., Any] = sp.lambdify([symbols[name] for name in names], expression, "mpmath")
    return bound


@given(
    kappa=st.floats(1.0, 4),
    relative_step=st.floats(0.3, 2),
    delta=st.floats(0, 1),
    noise=st.floats(0, 0.2),
    objective=st.floats(0.01, 10),
)
@settings(max_examples=200, deadline=None)
def test_step_bound_is_the_derived_one_in_every_regime(
    derived_bound: Callable[..., Any],
    kappa: float,
    relative_step: float,
    delta: float,
    noise: float,
    objective: float,
) -> None:
    expected = float(derived_bound(objective, kappa, 1.0, relative_step, delta, math.sqrt(noise)))
    found = step_bound(objective, 1 / kappa, 1.0, relative_step, delta, noise)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("kappa", "relative_step", "expected"),
    [
        (1.5, 1.2, 0.8739),
        (1.2, 1.3, 0.7031),
        (1.2, 0.9, 0.3068),
        (1.05, 0.8, 0.2457),
        (1.5, 0.5, 1.0),
        (2.5, 1.0, 1.0),
        (2.5, 0.8, 1.0),
        (4.0, 1.1, 1.44),
    ],
)
def test_rate_is_the_best_that_is_derived(
    derivation: Derivation, kappa: float, relative_step: float, expected: float
) -> None:
    values = {"kappa": kappa, "beta": 1.0, "eta": relative_step}
    assert number(derivation, "rate", **values) == pytest.approx(expected, abs=5e-5)
    without = {**values, "delta": 0.0, "nu": 0.0, "F_n": 1.0}
    assert number(derivation, "step_bound", **without) == pytest.approx(
        number(derivation, "rate", **values), rel=1e-12
    )


@pytest.mark.parametrize("relative_step", [0.85, 0.95, 1.0, 1.1])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_step_bound_settles_at_the_floor(
    derivation: Derivation, relative_step: float, noise: float
) -> None:
    delta, kappa = 0.1, 1.4
    values = {"kappa": kappa, "beta": 1.0, "eta": relative_step, "delta": delta, "nu": noise}
    floor = number(derivation, "floor_root", **values) ** 2
    for start in (100 * floor, floor / 100):
        value = start
        for _ in range(3000):
            value = step_bound(value, 1 / kappa, 1.0, relative_step, delta, noise**2)
        assert value == pytest.approx(floor, rel=1e-9)
    if not noise:
        assert floor == pytest.approx(delta / (2 - kappa - 2 * abs(relative_step - 1)))


@given(kappa=st.floats(1.05, 1.95), delta=st.floats(0, 0.5), noise=st.floats(1e-4, 1))
@settings(max_examples=25, deadline=None)
def test_noisy_recursion_settles_at_its_limit(
    derivation: Derivation, kappa: float, delta: float, noise: float
) -> None:
    constants = {"kappa": kappa, "beta": 1.0, "delta": delta, "nu": noise}
    limit = number(derivation, "noisy_image_floor", **constants)
    following = derivation.expressions["noisy_image"]
    (u,) = (s for s in following.free_symbols if s.name == "u_n")
    at = {s: constants[s.name] for s in following.free_symbols if s is not u}
    image = sp.lambdify(u, following.subs(at), "math")
    for start in (0.0, 10 * limit):
        value = start
        for _ in range(5000):
            value = image(value)
        assert value == pytest.approx(limit, rel=1e-8)


def test_admissible_steps_are_where_the_rate_is_below_one(derivation: Derivation) -> None:
    for kappa in (1.1, 1.5, 1.9):
        constants = {"alpha": 2 / kappa, "beta": 2.0, "kappa": kappa}
        low = number(derivation, "step_lower", **constants)
        high = number(derivation, "step_upper", **constants)
        for eta in (low, 0.5, high):
            for nudged in (eta - 1e-6, eta + 1e-6):
                rate = number(derivation, "rate", eta=nudged, **constants)
                assert (rate < 1) == (low < nudged < high)
        assert number(derivation, "rate", eta=0.5, **constants) == pytest.approx(kappa - 1)


def test_sharper_bound_is_the_closed_form(derivation: Derivation) -> None:
    """f_{n+1} ≤ r f_j + βδ(1 + (n − j) r/(1 + r)) for every j, against the recursion of two."""
    assert "b_{n+1} = min(" in str(derivation)
    for kappa in (1.3, 1.99, 2.0, 5.0):
        for delta in (0.01, 0.5, 4.0):
            r, bounds = min(kappa - 1, 1), [1.0]
            for n in range(8):
                bounds.append(
                    min(r * bounds[j] + delta * (1 + (n - j) * r / (1 + r)) for j in range(n + 1))
                )
                assert closed_form(1 / kappa, 1.0, n + 1, delta) == pytest.approx(bounds[-1])


@given(seed=st.integers(0, 2**32 - 1), delta=st.sampled_from([0.0, 0.1]))
@settings(max_examples=50, deadline=None)
def test_first_step_from_outside(derivation: Derivation, seed: int, delta: float) -> None:
    generator = np.random.default_rng(seed)
    m, n, eta = generator.integers(1, 5), generator.integers(1, 5), generator.uniform(0.1, 2)
    A, points = generator.standard_normal((m, n)) / math.sqrt(n), generator.standard_normal((8, n))
    star = points[0]
    start = A.T @ (A @ star)
    w = start - eta * A.T @ (A @ start - A @ star)
    gram = A.T @ A
    away = -(np.eye(n) - gram) @ (np.eye(n) - eta * gram) @ star
    assert np.allclose(w - star, away, atol=1e-10)
    squared = ((points - w) ** 2).sum(1)
    allowed = points[squared <= squared.min() + delta]
    secants = points[:, None] - points[None]
    ratios = ((secants @ A.T) ** 2).sum(-1) / np.maximum((secants**2).sum(-1), 1e-300)
    worst = max(float(((A @ (x - star)) ** 2).sum()) for x in allowed)
    rho = float(np.linalg.norm(away))
    bound = number(derivation, "first_objective", beta=float(ratios.max()), delta=delta, rho=rho)
    assert worst <= bound * (1 + 1e-9) + 1e-12


def test_reads_as_text_and_as_latex(derivation: Derivation) -> None:
    text, latex = str(derivation), derivation.latex()
    assert "`" not in text and "`" not in latex
    assert max(map(len, text.splitlines())) <= 110
    assert len(derivation.steps) == STEPS
    assert f"{len(derivation.checks)} checks, all of them passed" in text
    for title in (
        "identity",
        "Every n",
        "noise",
        "step sizes",
        "Shorter",
        "Aᵀy",
        "½",
        "κ ≥ 2",
        "attained",
        "Obtuse",
    ):
        assert any(title in step.title for step in derivation.steps)
    assert all(step.checks for step in derivation.steps)
    # Nothing is left for TeX to choke on: ASCII throughout, and no index outside a formula.
    assert latex.isascii()
    prose = re.sub(r"\\\[.*?\\\]", "", latex, flags=re.S)
    assert prose.count("$") % 2 == 0
    assert not re.search(r"[_^]", re.sub(r"\$[^$]*\$", "", prose))
    for formula in re.findall(r"\$[^$]*\$|\\\[.*?\\\]", latex, flags=re.S):
        assert formula.count("{") == formula.count("}")
        assert formula.count(r"\left") == formula.count(r"\right")
    json.dumps(derivation.to_dict())


def test_plain_formulas_are_faithful(derivation: Derivation) -> None:
    """What is printed, read back by Python, has the value of the expression it was printed from."""
    generator = np.random.default_rng(0)
    tried = 0
    for step in derivation.steps:
        for part in step.body:
            if not isinstance(part, theorem.Formula):
                continue
            text, code = str(part), str(part)
            symbols = sorted(
                part.left.free_symbols | part.right.free_symbols, key=lambda s: -len(s.name)
            )
            values = {s: float(generator.uniform(0.1, 0.9)) for s in symbols}
            for i, s in enumerate(symbols):
                code = code.replace(theorem._plain(s), f"⟦{i}⟧")
            for i, s in enumerate(symbols):
                code = code.replace(f"⟦{i}⟧", f"({values[s]!r})")
            code = re.sub(r"\|([^|]+)\|", r"abs(\1)", code)
            code = code.replace("·", "*").replace("²", "**2").replace("^", "**")
            code = code.replace("−", "-").replace("√", "sqrt")
            left, right = re.split(r" [=≤≥<] ", code)
            scope = {"sqrt": lambda x: complex(x) ** 0.5, "log": cmath.log, "min": min}
            for side, expression in ((left, part.left), (right, part.right)):
                expected = complex(expression.subs(values).evalf())
                assert complex(eval(side, scope)) == pytest.approx(expected, rel=1e-9), text
            tried += 1
    assert tried >= 60


def test_a_step_that_does_not_follow_is_refused() -> None:
    writer = theorem._Writer()
    writer.step("A step")
    x = sp.Symbol("x", positive=True)
    equal = theorem.Proof("=", lambda left, right: [theorem._zero("equal", left - right)])
    writer.claim((x + 1) ** 2, "=", x**2 + 2 * x + 1, equal)
    writer.check(theorem._nonnegative_check("true", x**2 + x))
    with pytest.raises(DerivationError, match="A step: equal"):
        writer.claim((x + 1) ** 2, "=", x**2 + 1, equal)
    with pytest.raises(DerivationError, match="the proof is one of =, not of ≤"):
        writer.claim((x + 1) ** 2, "≤", x**2 + 2 * x + 1, equal)
    with pytest.raises(DerivationError, match="cannot see"):
        writer.check(theorem._nonnegative_check("unknown", x - 1))
    writer.close()
    assert len(writer.steps[0].body) == 1


def mutants(expression: sp.Expr) -> Iterator[sp.Expr]:
    """The expression with one term, one factor, one power or one function dropped."""
    arguments = expression.args
    for i, argument in enumerate(arguments):
        if expression.is_Add or expression.is_Mul or isinstance(expression, sp.Min):
            yield expression.func(*arguments[:i], *arguments[i + 1 :], evaluate=False)
        elif i == 0:  # a power without its exponent, a function without its name
            yield argument
        for mutant in mutants(argument):
            yield expression.func(
                *arguments[:i],
                mutant,
                *arguments[i + 1 :],
                **(
                    {}
                    if expression.is_Function and not isinstance(expression, sp.Min)
                    else {"evaluate": False}
                ),
            )


STEPS = 19


@pytest.mark.parametrize("index", range(STEPS))
def test_no_displayed_formula_survives_the_loss_of_a_term(
    derivation: Derivation, index: int
) -> None:
    """What is displayed is what is checked: every term and factor on the page matters."""
    assert len(derivation.steps) == STEPS
    generator = np.random.default_rng(0)
    for formula in derivation.steps[index].body:
        if not isinstance(formula, theorem.Formula):
            continue
        for side in ("left", "right"):
            whole = getattr(formula, side)
            symbols = sorted(whole.free_symbols, key=lambda s: s.name)
            points = [{s: float(generator.uniform(0.1, 0.9)) for s in symbols} for _ in range(2)]
            for mutant in mutants(whole):
                if all(same_value(whole, mutant, values) for values in points):
                    continue  # such as |β| for β
                with pytest.raises(DerivationError):
                    print(replace(formula, **{side: mutant}).verify(), formula, side, mutant)


def test_no_displayed_formula_survives_another_relation(derivation: Derivation) -> None:
    """Each proof proves one relation, so that ≥ for ≤, or = for <, is refused."""
    for formula in derivation.formulas:
        assert formula.relation in theorem.RELATIONS
        for other in theorem.RELATIONS.keys() - {formula.relation}:
            with pytest.raises(DerivationError, match="the proof is one of"):
                replace(formula, relation=other).verify()


def test_the_smaller_root_of_a_quadratic_is_refused(derivation: Derivation) -> None:
    """It solves the quadratic too, and is no bound."""
    tried = 0
    for formula in derivation.formulas:
        if str(formula).startswith("√(F_{n+1}) ≤") and formula.right.is_Add:
            for part in formula.right.args:
                flipped = sp.Add(*(-term if term is part else term for term in formula.right.args))
                with pytest.raises(DerivationError):
                    replace(formula, right=flipped).verify()
                tried += 1
    assert tried == 4


def same_value(one: sp.Expr, other: sp.Expr, values: dict[sp.Symbol, float]) -> bool:
    first, second = (complex(sp.sympify(x).subs(values).evalf()) for x in (one, other))
    return bool(abs(first - second) < 1e-12)


@pytest.mark.parametrize("change", ["inner", "adjoint", "sign"])
def test_wrong_algebra_is_noticed(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    inner, add = theorem._inner, theorem._add
    if change == "inner":  # twice as long
        monkeypatch.setattr(theorem, "_inner", lambda *args: 2 * inner(*args))
    elif change == "adjoint":  # A is its own adjoint's negative
        negative = lambda a, b, images, r: inner(a, b, images, add((-1, r)))  # noqa: E731
        monkeypatch.setattr(theorem, "_inner", negative)
    else:
        monkeypatch.setattr(theorem, "ETA", -theorem.ETA)
    with pytest.raises((DerivationError, ValueError)):
        derive()
