"""The worst-case program against Theorem 1, against runs of NPGD, and against PEPit."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import gram_program, performance_estimation
from analysis.adversary import tight_instance
from analysis.gram_program import GramProgram, NotSolved
from analysis.performance_estimation import (
    certify,
    closed_form,
    one_step_multipliers,
    step_bound,
    sweep_step_sizes,
    worst_case,
)
from analysis.rates import predicted_objective
from npgd import NPGD, FiniteSet, MatrixOperator, recover

KAPPAS = [round(1.05 + 0.05 * i, 2) for i in range(19)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors here are tiny: a second thread costs more than it gives, and far more than that
    where other work shares the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def theorem(kappa: float, n_iter: int, beta_delta: float) -> float:
    """Theorem 1 as a sum: (κ−1)ᴺ + βδ Σ_{i<N} (κ−1)ⁱ."""
    return (kappa - 1) ** n_iter + beta_delta * sum((kappa - 1) ** i for i in range(n_iter))


def check_row(kappa: float, n_iter: int, delta: float) -> None:
    """One row of the table: value, dual bound and instance against Theorem 1."""
    found = certify(1 / kappa, 1.0, n_iter, delta=delta)
    case, expected = found.worst_case, theorem(kappa, n_iter, delta)
    allowed = 1e-5 * expected if expected > 1e-2 else 1e-7
    assert abs(case.value - expected) <= allowed
    # Exact in rationals, up to the rounding of `expected` and of the constants to floats.
    assert case.dual_bound >= expected * (1 - 1e-14)
    assert case.dual_bound >= case.value
    assert case.gap <= (1e-5 * case.value if case.value > 1e-2 else 1e-7)
    assert found.share >= 0.9999
    assert found.attained <= case.dual_bound
    assert found.instance_alpha == pytest.approx(case.alpha, rel=1e-6)
    assert found.instance_beta == pytest.approx(case.beta, rel=1e-6)


@pytest.mark.parametrize("delta", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("n_iter", [1, 3, 5])
@pytest.mark.parametrize("kappa", [1.05, 1.5, 1.95])
def test_theorem_is_tight(kappa: float, n_iter: int, delta: float) -> None:
    check_row(kappa, n_iter, delta)


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("n_iter", range(1, 6))
@pytest.mark.parametrize("kappa", KAPPAS)
def test_theorem_is_tight_everywhere(kappa: float, n_iter: int, delta: float) -> None:
    check_row(kappa, n_iter, delta)


@pytest.mark.parametrize(
    ("measure", "noise"), [("objective", 0.0), ("objective", 0.1), ("distance", 0.0)]
)
def test_the_worst_run_is_drawn_from_its_start_to_the_value(measure: str, noise: float) -> None:
    case = worst_case(0.6, 1.0, 1.0, 2, noise=noise, measure=measure)
    assert len(case.path) == 3 and case.path[-1] == pytest.approx(case.value, rel=1e-6)
    if measure == "objective":
        assert case.path[0] == pytest.approx(1, rel=1e-6)
    (axis,) = case.plot().axes
    assert axis.get_lines()[0].get_ydata() == pytest.approx(case.path)


@pytest.mark.parametrize("kappa", [2.0, 2.5, 3.0])
def test_nothing_diverges_and_nothing_falls_from_kappa_two_on(kappa: float) -> None:
    found = certify(1 / kappa, 1.0, 3)
    assert found.worst_case.value == pytest.approx(1, rel=1e-6)
    assert found.worst_case.dual_bound == pytest.approx(1, rel=1e-6)
    assert found.share >= 0.9999


@given(
    kappa=st.floats(1.02, 4),
    n_iter=st.integers(1, 6),
    delta=st.sampled_from([0.0, 0.01, 0.1, 1.0, 10.0]),
    beta=st.sampled_from([1.0, 0.01, 30.0]),
)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_closed_form_is_the_worst_case(
    kappa: float, n_iter: int, delta: float, beta: float
) -> None:
    case = worst_case(beta / kappa, beta, 1 / beta, n_iter, delta / beta)
    assert case.value == pytest.approx(closed_form(beta / kappa, beta, n_iter, delta / beta), 1e-6)
    assert case.closed_form is not None
    assert case.value <= case.closed_form * (1 + 1e-12) <= case.dual_bound * (1 + 2e-12)
    assert case.induction_bound == pytest.approx(case.closed_form, rel=1e-9)


@pytest.mark.parametrize("kappa", [1.5, 1.0 + 1e-5, 1.0 + 1e-9, 1.0 + 1e-12, 2.5])
def test_closed_form_does_not_cancel(kappa: float) -> None:
    alpha = Fraction(1 / kappa)
    r = min((1 - alpha) / alpha, 1)
    assert closed_form(1 / kappa, 1.0, 3) == pytest.approx(float(r**3), rel=1e-13)
    assert step_bound(1.0, 1 / kappa, 1.0, 1.0) == pytest.approx(float(r), rel=1e-13)


@pytest.mark.parametrize("step_size", [0.8, 1.0, 1.3])
def test_the_induction_is_the_best_bound_there_is(step_size: float) -> None:
    case = worst_case(0.4, 1.0, step_size, 3, delta=0.1)
    predicted = predicted_objective(1.0, 3, 0.4, 1.0, 0.1, step_size=step_size)
    assert case.induction_bound == float(predicted[-1])


def test_theorem_is_loose_far_below_its_floor() -> None:
    # 1 < βδ(κ−1)/(1−(κ−1)²): F_0 lies below about half of its floor, 10.
    case = worst_case(1 / 1.99, 1.0, 1.0, 3, delta=0.1)
    assert case.dual_bound < 0.95 * theorem(1.99, 3, 0.1)
    with pytest.raises(ValueError, match="delta must be at most"):
        tight_instance(1 / 1.99, 1.0, 3, delta=0.1)


def test_distance_is_the_objective_over_alpha() -> None:
    for kappa, delta in ((1.5, 0.0), (1.5, 0.02), (1.99, 0.5), (2.5, 0.1)):
        found = certify(2 / kappa, 2.0, 3, delta=delta, measure="distance")
        case = found.worst_case
        assert case.value == pytest.approx(closed_form(2 / kappa, 2, 3, delta) * kappa / 2, 1e-6)
        assert found.share >= 0.9999


def test_the_distance_is_at_most_what_noise_and_objective_allow() -> None:
    """α‖e_N‖² ≤ f_N ≤ (√F_N + ‖v‖)²."""
    case = worst_case(1 / 1.5, 1.0, 1.1, 2, 0.01, 0.04, measure="distance")
    two = step_bound(step_bound(1.0, 1 / 1.5, 1.0, 1.1, 0.01, 0.04), 1 / 1.5, 1.0, 1.1, 0.01, 0.04)
    assert case.induction_bound == pytest.approx(1.5 * (math.sqrt(two) + 0.2) ** 2, rel=1e-12)
    assert case.value <= case.induction_bound


@given(
    kappa=st.floats(1.1, 3),
    relative_step=st.floats(0.6, 1.5),
    n_iter=st.integers(1, 3),
    delta=st.sampled_from([0.0, 0.05]),
    noise=st.sampled_from([0.0, 0.01]),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_step_bound_bounds_every_step_size(
    kappa: float, relative_step: float, n_iter: int, delta: float, noise: float
) -> None:
    case = worst_case(1 / kappa, 1.0, relative_step, n_iter, delta, noise)
    assert case.value <= case.induction_bound * (1 + 1e-9)


@pytest.mark.parametrize(
    ("kappa", "step"),
    [
        (1.2, 1.05),
        (1.5, 1.0),
        (1.5, 1.3),
        (3.0, 1.2),
        (2.5, 1.1),
        (1.5, 0.95),
        (1.2, 0.8),
        (1.5, 0.5),
        (2.5, 0.8),
    ],
)
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_step_bound_is_attained_by_one_step_of_any_length(
    kappa: float, step: float, delta: float
) -> None:
    case = worst_case(1 / kappa, 1.0, step, 1, delta)
    assert case.value == pytest.approx(step_bound(1.0, 1 / kappa, 1.0, step, delta), rel=1e-6)


@pytest.mark.parametrize(("kappa", "step"), [(1.2, 1.0), (1.6, 1.1), (2.5, 1.3), (1.6, 0.6)])
def test_step_bound_with_noise_is_attained_by_one_long_step(kappa: float, step: float) -> None:
    case = worst_case(1 / kappa, 1.0, step, 1, 0.02, 0.01)
    bound = step_bound(1.0, 1 / kappa, 1.0, step, 0.02, 0.01)
    assert case.value == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("kappa", [2.5, 10.0])
@pytest.mark.parametrize("step", [0.6, 1.0])
def test_the_comparison_with_x_n_bounds_a_step_for_every_kappa(kappa: float, step: float) -> None:
    for delta in (0.0, 0.3):
        bound = step_bound(2.0, 1 / kappa, 1.0, step, delta, noise=0.5)
        s = step - 1
        assert bound == pytest.approx((-s * math.sqrt(2) + math.sqrt(2 * step * step + delta)) ** 2)
        assert bound <= 2.0 + delta / step + 1e-12


def test_admissible_steps() -> None:
    """Contraction for κ/2 < ηβ < 2 − κ/2; stagnation below, growth above."""
    for kappa in (1.2, 1.6):
        for n_iter in (1, 2):
            inside = [kappa / 2 + 0.02, 1.0, 2 - kappa / 2 - 0.02]
            assert all(worst_case(1 / kappa, 1, eta, n_iter).dual_bound < 1 for eta in inside)
        assert worst_case(1 / kappa, 1, 2 - kappa / 2 + 0.02, 2).value > 1.01
        assert worst_case(1 / kappa, 1, kappa / 2 - 0.1, 2).value == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("noise", [1e-4, 0.01])
def test_noise(noise: float) -> None:
    nu, kappa, delta = math.sqrt(noise), 1.4, 0.02
    one = worst_case(1 / kappa, 1.0, 1.0, 1, delta, noise)
    # ‖A e_0‖ ≤ 1 + ν, and the one-step identity.
    assert one.value == pytest.approx((kappa - 1) * (1 + nu) ** 2 + noise + delta, rel=1e-6)
    found = certify(1 / kappa, 1.0, 3, delta=delta, noise=noise)
    assert found.share >= 0.9999
    assert found.worst_case.dual_bound <= found.theorem_bound
    clean = worst_case(1 / kappa, 1.0, 1.0, 3, delta)
    assert found.worst_case.value > clean.value


def test_sweep_has_its_least_value_at_one_over_beta() -> None:
    for kappa, delta in ((1.3, 0.0), (1.8, 0.05)):
        sweep = sweep_step_sizes(
            2 / kappa, 2.0, 2, [0.4, 0.45, 0.49, 0.499, 0.5, 0.501, 0.51, 0.55, 0.6], delta
        )
        assert sweep.best.step_size == 0.5
        assert "ηβ = 1.0000" in str(sweep)
        assert len(sweep.rows()) == 9
        json.dumps(sweep.to_dict())


@pytest.mark.parametrize(
    ("kappa", "step"), [(1.5, 1.0), (1.9, 1.0), (1.2, 1.1), (1.5, 0.9), (1.2, 0.7), (1.05, 0.8)]
)
def test_one_step_multipliers_are_a_proof(kappa: float, step: float) -> None:
    alpha, beta, delta = 2 / kappa, 2.0, 0.03
    closed = one_step_multipliers(alpha, beta, step / beta)
    program = GramProgram.of(alpha, beta, step / beta, 1, delta, 0.0, [1.0, 1.0])
    slack_g, slack_h = np.zeros((2, 2)), closed["F_0 = 1"] * program.start - np.diag([0, 1])
    proved = closed["F_0 = 1"]
    for row in program.rows:
        weight = closed.get(row.name, 0.0)
        assert weight >= 0
        slack_g = slack_g + weight * row.g_factor * row.g
        slack_h = slack_h + weight * row.h_factor * row.h
        proved += weight * row.bound
    assert np.linalg.eigvalsh(slack_g)[0] > -1e-13
    assert np.linalg.eigvalsh(slack_h)[0] > -1e-13
    if step >= 1:
        assert np.abs(slack_g).max() < 1e-13
    case = worst_case(alpha, beta, step / beta, 1, delta)
    assert case.value <= proved
    if step == 1.0:  # the proof of the theorem: nothing lost
        assert np.abs(slack_h).max() < 1e-13
        assert proved == pytest.approx(kappa - 1 + beta * delta)
    exact = worst_case(alpha, beta, step / beta, 1)
    assert exact.value == pytest.approx(closed["F_0 = 1"], rel=1e-6)
    if step <= 1.0:  # what the solver finds
        found = {name: float(weight) for name, weight in exact.multipliers}
        for name, weight in closed.items():
            assert found[name] == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize(("kappa", "step"), [(1.5, 1.2), (1.2, 0.9), (4.0, 1.1), (4.0, 0.8)])
@pytest.mark.parametrize("delta", [0.0, 0.05])
def test_rational_multipliers_prove_the_two_comparisons_without_a_solver(
    kappa: float, step: float, delta: float
) -> None:
    alpha, beta, s = 2 / kappa, 2.0, step - 1
    for n_iter in (1, 3):
        for measure in ("objective", "distance"):
            constants = (alpha, beta, step / beta, n_iter, delta)
            weights = performance_estimation._induction_multipliers(*constants, measure)
            program, g, h = performance_estimation._pose(*constants, 0.0, measure)
            dual = program.from_names(weights)
            assert program.proves(dual, g, h)
            assert dict(program.named(dual)) == weights
            proved = float(program.bound(dual)) * (alpha if measure == "distance" else 1)
            case = worst_case(*constants, measure=measure)
            assert case.value * (alpha if measure == "distance" else 1) <= proved
            if n_iter == 1:
                K = min(kappa - 1, 1 + 2 * s)
                expected = (abs(s) + math.sqrt(s * s + K + beta * delta)) ** 2
                assert proved == pytest.approx(expected, rel=1e-12)


def test_a_step_that_is_longer_than_one_over_beta_is_not_taken_for_it() -> None:
    assert step_bound(1.0, 0.2, 1.0, 1 + 1e-12) > 1 + 3e-12
    assert step_bound(1.0, 0.2, 1.0, 1.0) == 1.0


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_gram_matrices_are_those_of_the_value(noise: float) -> None:
    alpha, N = 1 / 1.5, 2
    case = worst_case(alpha, 1.0, 0.9, N, 0.01, noise)
    G, H = case.gram, case.image_gram
    assert G.shape == (N + 1, N + 1) and H.shape == (N + 1 + (noise > 0),) * 2
    v = np.eye(len(H))[-1] * (noise > 0)
    for n, expected in ((0, 1.0), (N, case.value)):
        residual = np.eye(len(H))[n] - v
        assert residual @ H @ residual == pytest.approx(expected, rel=1e-12)
    images = np.diag(H)[: N + 1]
    assert (images >= alpha * np.diag(G) * (1 - 1e-9)).all()
    assert (images <= np.diag(G) * (1 + 1e-9)).all()


@pytest.mark.parametrize("n_iter", [1, 2, 8, 30])
@pytest.mark.parametrize(("kappa", "delta"), [(1.05, 0.0), (1.5, 0.05), (1.95, 0.1), (1.9, 0.0)])
def test_tight_instance(kappa: float, delta: float, n_iter: int) -> None:
    """In closed form the ties are exact, so the adversary's choice among them is what counts."""
    instance = tight_instance(3 / kappa, 3.0, n_iter, delta / 3)
    assert instance.attained() == pytest.approx(theorem(kappa, n_iter, delta), rel=1e-9)
    if n_iter > 1:
        assert instance.constants() == pytest.approx((3 / kappa, 3.0), rel=1e-9)


def test_path_of_the_instance_attains_the_constants_by_itself() -> None:
    instance = worst_case(1 / 1.6, 1.0, 1.0, 4, 0.02).instance()
    errors = np.vstack([instance.points[:1], instance.path])
    first, second = np.triu_indices(len(errors), 1)
    secants = errors[first] - errors[second]
    ratios = ((secants @ instance.matrix.T) ** 2).sum(1) / (secants**2).sum(1)
    assert ratios.min() == pytest.approx(1 / 1.6, rel=1e-6)
    assert ratios.max() == pytest.approx(1.0, rel=1e-6)
    solution = instance.run()
    assert solution.iterates is not None
    assert np.array_equal(solution.iterates.flatten(1).numpy(), instance.path)


def test_projector_of_the_instance_is_within_delta() -> None:
    instance = worst_case(1 / 1.7, 1.0, 1.0, 4, 0.1).instance()
    iterates = instance.path
    for x, after in itertools.pairwise(iterates):
        w = x - instance.step_size * instance.matrix.T @ (instance.matrix @ x - instance.y)
        squared = ((instance.points - w) ** 2).sum(1)
        assert ((after - w) ** 2).sum() <= squared.min() + 0.1 + 1e-12


def test_eight_steps_are_certified() -> None:
    found = certify(1 / 1.8, 1.0, 8, delta=0.01)
    assert found.worst_case.value == pytest.approx(theorem(1.8, 8, 0.01), rel=1e-5)
    assert found.share >= 0.9999


def test_units_do_not_matter() -> None:
    one = worst_case(1 / 1.4, 1.0, 1.1, 2, 0.05, 0.01)
    other = worst_case(1e4 / 1.4, 1e4, 1.1e-4, 2, 0.05e-4, 0.01)
    assert other.value == pytest.approx(one.value, rel=1e-6)


def test_wrong_multipliers_never_prove_a_wrong_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the solver returns as multipliers, the bound stays above the true value, and what
    is exported proves it."""
    solve, generator, proved = GramProgram.solve, np.random.default_rng(0), 0
    for size in (1e-3, 1e-6, 1e-8):

        def spoiled(self, g, h, margin, floor, size=size):  # type: ignore[no-untyped-def]
            raw = solve(self, g, h, margin, floor)
            wrong = raw.multipliers - size * generator.standard_normal(len(raw.multipliers))
            return gram_program.Raw(raw.gram_g, raw.gram_h, wrong, raw.start_multiplier - size)

        monkeypatch.setattr(GramProgram, "solve", spoiled)
        try:
            found = worst_case(1 / 1.5, 1.0, 1.0, 3, noise=0.01)
        except RuntimeError as error:
            assert "too wide" in str(error)
        else:
            assert found.dual_bound >= 0.125
            assert all(weight >= 0 for name, weight in found.multipliers if name != "F_0 = 1")
            assert is_proved(found.proof(), tmp_path)
            proved += 1
    assert proved


def test_a_negative_multiplier_proves_nothing() -> None:
    """Whatever its slack: an inequality may not be turned around."""
    program = GramProgram.of(1 / 1.5, 1.0, 1.0, 1, 0.0, 0.0, [1.0, 1.0])
    goal = -np.eye(2)  # so that the slack is definite by itself
    none = [Fraction(0)] * len(program.rows)
    assert program.proves(gram_program.Multipliers(none, Fraction(1)), goal, goal)
    for i in range(len(none)):
        for weight, allowed in ((Fraction(1, 1000), True), (Fraction(-1, 1000), False)):
            rows = [*none[:i], weight, *none[i + 1 :]]
            dual = gram_program.Multipliers(rows, Fraction(1))
            assert program.proves(dual, goal, goal) == allowed


CHECKER = Path(__file__).parents[2] / "docs" / "mathematics" / "check_certificate.py"


def is_proved(proof: dict[str, Any], folder: Path) -> bool:
    """What the stand-alone checker says, in a Python that knows nothing of this package."""
    path = folder / "proof.json"
    path.write_text(json.dumps(proof), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(CHECKER), str(path)], capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.startswith("proved: at most" if done.returncode == 0 else "not proved")
    return done.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"kappa": 1.5, "n_iter": 1},
        {"kappa": 1.5, "n_iter": 3, "delta": 0.05},
        {"kappa": 1.2, "n_iter": 2, "relative_step": 0.9},
        {"kappa": 1.4, "n_iter": 2, "relative_step": 1.1, "delta": 0.02, "noise": 0.01},
        {"kappa": 3.0, "n_iter": 2, "beta": 7.0, "measure": "distance"},
        {"kappa": 1 + 1e-9, "n_iter": 3},
        {"kappa": 1e6, "n_iter": 2, "measure": "distance"},
    ],
    ids=str,
)
def test_exported_certificate_proves_by_itself(arguments: dict[str, Any], tmp_path: Path) -> None:
    kappa, beta = arguments.pop("kappa"), arguments.pop("beta", 1.0)
    step = arguments.pop("relative_step", 1.0)
    found = worst_case(beta / kappa, beta, step / beta, **arguments)
    proof = json.loads(json.dumps(found.to_dict()))["proof"]
    assert Fraction(proof["bound"]) == Fraction(found.dual_bound)
    assert is_proved(proof, tmp_path)
    # The least float that the multipliers prove: rounded up, and by no more than that.
    lower = math.nextafter(found.dual_bound, 0.0)
    assert not is_proved({**proof, "bound": str(Fraction(lower))}, tmp_path)
    multipliers = proof["multipliers"]
    active = max(multipliers, key=lambda name: Fraction(multipliers[name]) * (name != "F_0 = 1"))
    changed = {**multipliers, active: str(-Fraction(multipliers[active]))}
    assert not is_proved({**proof, "multipliers": changed}, tmp_path)
    changed = {
        **multipliers,
        "F_0 = 1": str(Fraction(multipliers["F_0 = 1"]) * Fraction(999, 1000)),
    }
    assert not is_proved({**proof, "multipliers": changed}, tmp_path)


@pytest.mark.parametrize(("kappa", "step"), [(1.5, 1.0), (1.2, 1.1), (1.2, 0.8), (2.5, 1.2)])
def test_no_multiplier_of_one_step_can_be_less(kappa: float, step: float, tmp_path: Path) -> None:
    """One step has one dual solution: what is exported holds, and nothing below it does."""
    proof = worst_case(1 / kappa, 1.0, step, 1).proof()
    largest = max(map(Fraction, proof["multipliers"].values()))
    counted = 0
    for name, written in proof["multipliers"].items():
        weight = Fraction(written)
        if weight < largest / 10**5:  # the solver's dust
            continue
        counted += 1
        for less in (weight * Fraction(999, 1000), Fraction(0)):
            changed = {**proof["multipliers"], name: str(less)}
            assert not is_proved({**proof, "multipliers": changed}, tmp_path), name
    assert counted >= 3


def test_the_command_writes_the_proof(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from analysis.commands import app

    arguments = ["worst-case", "--alpha", "1", "--beta", "1.5", "--n-iter", "2"]
    path = tmp_path / "certificate.json"
    done = CliRunner().invoke(app, [*arguments, "--certificate", str(path)])
    assert done.exit_code == 0, done.output
    proof = json.loads(path.read_text(encoding="utf-8"))
    assert float(Fraction(proof["bound"])) == pytest.approx(0.25, rel=1e-6)
    assert is_proved(proof, tmp_path)
    done = CliRunner().invoke(app, [*arguments, "--sweep", "--certificate", str(path)])
    assert done.exit_code != 0
    assert "--certificate must be left out with --sweep" in " ".join(done.output.split())


def test_bounds_are_rounded_up() -> None:
    for exact in (
        Fraction(1, 3),
        Fraction(2, 3),
        Fraction(1, 10),
        Fraction(7),
        Fraction(10**30, 7),
    ):
        rounded = gram_program.round_up(exact)
        assert Fraction(rounded) >= exact > Fraction(math.nextafter(rounded, -math.inf))


def test_what_is_printed_is_rounded_outward() -> None:
    found = certify(1 / 1.5, 1.0, 2)
    rows = {name: number for name, number, _ in found.rows()}
    assert float(rows["dual bound"]) >= found.worst_case.dual_bound
    assert float(rows["bound of the theorem"]) >= found.theorem_bound
    assert float(rows["primal value"]) <= found.worst_case.value
    assert float(rows["instance: NPGD"]) <= found.attained
    printed = {line.split()[0]: line.split()[-1] for line in str(found.worst_case).splitlines()}
    assert float(printed["dual"]) >= found.worst_case.dual_bound
    assert float(printed["value"]) <= found.worst_case.value


@pytest.mark.parametrize(
    ("kappa", "n_iter", "delta"),
    [(1 + 1e-5, 2, 0.0), (1 + 1e-9, 3, 0.0), (1.0001, 3, 0.0), (1e6, 3, 0.0), (1.0, 2, 0.0),
     (1.0, 3, 0.1), (1 + 1e-9, 2, 0.1), (1.9999, 2, 0.0)],
)  # fmt: skip
@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_closed_form_stands_in_where_the_solver_fails(
    kappa: float, n_iter: int, delta: float, beta: float
) -> None:
    found = certify(beta / kappa, beta, n_iter, delta=delta)
    case = found.worst_case
    r = beta / case.alpha - 1  # what κ − 1 is in floats
    expected = 1.0 if kappa > 2 else r**n_iter + beta * delta * sum(r**n for n in range(n_iter))
    assert case.value == pytest.approx(expected, rel=1e-6)
    assert case.dual_bound == pytest.approx(expected, rel=1e-5)
    assert case.value <= case.dual_bound
    assert case.closed_form == pytest.approx(expected, rel=1e-9)
    assert found.share >= 0.9999
    assert found.instance_alpha >= case.alpha * (1 - 1e-9)
    assert found.instance_beta <= case.beta * (1 + 1e-9)
    assert "certified" in case.status
    json.dumps(found.to_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": 1 / (1 + 1e-7), "step_size": 1.1}, "alpha at most 0.990099"),
        ({"alpha": 1e-6, "delta": 0.01}, "κ at most 100"),
        ({"alpha": 0.5, "step_size": 0.9}, "fewer steps"),
    ],
)
def test_a_refusal_says_what_is_known_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, float], words: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise NotSolved("Clarabel stopped without a solution")

    monkeypatch.setattr(GramProgram, "solve", fails)
    arguments = {"alpha": 0.7, "beta": 1.0, "step_size": 1.0, "n_iter": 2, **change}
    with pytest.raises(RuntimeError, match=words) as raised:
        worst_case(**arguments)  # type: ignore[arg-type]
    assert "Proved without a solver is F_N ≤" in str(raised.value)


@pytest.mark.parametrize("alpha", [0.5, 0.7, 0.9])
def test_a_wide_bracket_gives_no_number(monkeypatch: pytest.MonkeyPatch, alpha: float) -> None:
    feasible = GramProgram.feasible

    def worse(self: GramProgram, raw: gram_program.Raw) -> tuple[np.ndarray, ...] | None:
        found = feasible(self, raw)
        return None if found is None else tuple(0.999 * gram for gram in found)

    monkeypatch.setattr(GramProgram, "feasible", worse)
    with pytest.raises(RuntimeError, match="too wide"):
        worst_case(alpha, 1.0, 0.9, 2)


def test_a_solver_that_breaks_down_gives_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import cvxpy

    class PanicException(BaseException):
        """As Rust's, which is no Exception."""

    def panics(*_: object, **__: object) -> None:
        raise PanicException("Eigval error")

    monkeypatch.setattr(cvxpy.Problem, "solve", panics)
    with pytest.raises(RuntimeError, match="Clarabel broke down"):
        worst_case(0.7, 1.0, 0.9, 2)


def test_pins_stand_beyond_the_path_and_are_never_chosen() -> None:
    """Each pin is twice as far from x* as the farthest point, and farther than √δ."""
    for delta in (0.0, 0.1, 30.0):
        instance = worst_case(1 / 1.7, 1.0, 1.0, 2, delta).instance()
        pins, path = instance.points[1:3], instance.path
        far = 2 * math.sqrt(max(delta, (path**2).sum(1).max()))
        assert np.linalg.norm(pins, axis=1) == pytest.approx([far, far])
        for x in path[:-1]:
            w = x - instance.step_size * instance.matrix.T @ (instance.matrix @ x - instance.y)
            least = ((instance.points - w) ** 2).sum(1).min()
            assert (((pins - w) ** 2).sum(1) > least + delta).all()
        # The constants of the pins alone are α and β.
        stretched = ((pins @ instance.matrix.T) ** 2).sum(1) / (pins**2).sum(1)
        assert stretched == pytest.approx([1 / 1.7, 1.0])


def test_semidefiniteness_is_decided_exactly() -> None:
    def fractions(rows: list[list[Fraction | int]]) -> np.ndarray:
        return np.array([[Fraction(x) for x in row] for row in rows], dtype=object)

    tiny = Fraction(1, 10**40)
    decide = gram_program._positive_semidefinite
    assert decide(fractions([[1, 1], [1, 1]]))
    assert not decide(fractions([[1, 1], [1, 1 - tiny]]))
    assert decide(fractions([[0, 0], [0, 1]]))
    assert not decide(fractions([[0, tiny], [tiny, 1]]))
    assert not decide(fractions([[-tiny]]))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": 1.0, "step_size": 1.1}, "alpha"),
        ({"alpha": 1.0, "noise": 0.1}, "alpha"),
        ({"alpha": 0.0}, "alpha"),
        ({"beta": math.inf}, "beta"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": -1.0}, "step_size"),
        ({"n_iter": 0}, "n_iter"),
        ({"delta": -0.1}, "delta"),
        ({"noise": -0.1}, "noise"),
        ({"noise": math.nan}, "noise"),
        ({"measure": "f"}, "measure"),
    ],
)
def test_nonsense_is_refused_by_name(change: dict, name: str) -> None:
    arguments = {"alpha": 0.7, "beta": 1.0, "step_size": 1.0, "n_iter": 2, **change}
    with pytest.raises(ValueError, match=name):
        worst_case(**arguments)
    with pytest.raises(TypeError, match="n_iter"):
        worst_case(0.7, 1.0, 1.0, 1.5)  # type: ignore[arg-type]


def test_a_solver_that_fails_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise NotSolved("Clarabel reports 'infeasible'")

    monkeypatch.setattr(GramProgram, "solve", fails)
    with pytest.raises(RuntimeError, match=r"not found: Clarabel reports 'infeasible'.*rescale"):
        worst_case(0.7, 1.0, 0.9, 2)


def test_iterations_that_do_not_suffice_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import cvxpy

    solve = cvxpy.Problem.solve

    def hurried(self, **options):  # type: ignore[no-untyped-def]
        return solve(self, **{**options, "max_iter": 3})

    monkeypatch.setattr(cvxpy.Problem, "solve", hurried)
    with pytest.raises(RuntimeError, match="not found"):
        worst_case(0.7, 1.0, 0.9, 2)


def test_certificate_reads_well() -> None:
    found = certify(1 / 1.5, 1.0, 2, delta=0.01)
    text = str(found)
    for words in ("bound of the theorem", "dual bound", "primal value", "instance: NPGD", "tight"):
        assert words in text
    assert [len(row) for row in found.rows()] == [3] * 6
    assert json.loads(json.dumps(found.to_dict()))["share"] >= 0.9999
    printed = [line.split()[0] for line in str(found.worst_case).splitlines()[1:5]]
    assert printed == ["induction", "closed", "dual", "value"]
    json.dumps(found.worst_case.instance().to_dict())
    assert "promised" in str(found.worst_case.instance())
    assert "% below" in certify(1 / 1.5, 1.0, 3, step_size=1.2).status


# ---------------------------------------------------------------------------------------------
# Random instances
# ---------------------------------------------------------------------------------------------


def random_problem(
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """A, a finite set, and its exact constants. Some points are nearly where a step leads."""
    n, m, count = generator.integers(2, 7), generator.integers(2, 7), generator.integers(3, 11)
    matrix = generator.standard_normal((m, n))
    if m >= n:  # condition numbers from 1 on, so that κ < 2 is as frequent as κ ≥ 2
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        matrix = left * np.sqrt(generator.uniform(1, generator.uniform(1, 4), n)) @ right
    size = 2.0 ** generator.uniform(-3, 1, (count, 1))
    points = generator.standard_normal((count, n)) * size
    for i in range(1, count, 2):
        error = points[i - 1] - points[0]
        step = generator.uniform(0.3, 1.2) * matrix.T @ (matrix @ error)
        step /= np.linalg.norm(matrix, 2) ** 2
        points[i] = points[i - 1] - step + 0.1 * generator.standard_normal(n) * size[i]
    first, second = np.triu_indices(count, 1)
    secants = points[first] - points[second]
    ratios = ((secants @ matrix.T) ** 2).sum(1) / (secants**2).sum(1)
    return matrix, points, float(ratios.min()), float(ratios.max())


def tried(seed: int, problems: int, delta: float, noise: float, relative_step: float) -> np.ndarray:
    """F_n/bound for n = 1 … 5 over every ordered pair (x*, x_0) of `problems` random sets."""
    generator, n_iter, shares = np.random.default_rng(seed), 5, []
    for _ in range(problems):
        matrix, points, alpha, beta = random_problem(generator)
        if alpha < 1e-6 * beta:
            continue
        star, start = np.nonzero(~np.eye(len(points), dtype=bool))
        v = generator.standard_normal((len(star), len(matrix)))
        v *= math.sqrt(noise) / np.linalg.norm(v, axis=1, keepdims=True)
        shape = (1, 1, points.shape[1])
        finite = FiniteSet(torch.from_numpy(points).reshape(-1, *shape), tie_tol=delta)
        order = torch.from_numpy(generator.permutation(len(points)))
        operator = MatrixOperator(torch.from_numpy(matrix), shape)
        solver = NPGD(
            lambda w, finite=finite, order=order: finite.project(w, prefer=order),
            relative_step / beta,
            start=finite.points[start],
            max_iter=n_iter,
            tol=0.0,
        )
        y = torch.from_numpy(points[star] @ matrix.T + v)
        objective = recover(operator, y, solver).objective.numpy()
        for column in objective.T:
            if not noise and relative_step == 1.0:
                scaled = delta / column[0]
                bound = [
                    column[0] * closed_form(alpha, beta, n, scaled) for n in range(1, len(column))
                ]
            else:
                bound, last = [], column[0]
                for _ in column[1:]:
                    last = step_bound(last, alpha, beta, relative_step / beta, delta, noise)
                    bound.append(last)
            # Relative to what the run is made of: a bound of zero meets rounding errors.
            shares.append((column[1:] / (np.array(bound) + 1e-12 * column[0])).max())
    return np.array(shares)


def test_random_instances_never_exceed_the_bound() -> None:
    exact = tried(0, 60, delta=0.0, noise=0.0, relative_step=1.0)
    inexact = tried(1, 40, delta=0.05, noise=0.0, relative_step=1.0)
    noisy = tried(2, 40, delta=0.02, noise=0.01, relative_step=1.0)
    short = tried(3, 20, delta=0.02, noise=0.0, relative_step=0.8)
    long = tried(4, 20, delta=0.0, noise=0.01, relative_step=1.2)
    everything = np.concatenate([exact, inexact, noisy, short, long])
    assert len(everything) >= 5000
    assert everything.max() <= 1 + 1e-9
    # The instances come close enough for the bound to be under test.
    assert exact.max() > 0.5


# ---------------------------------------------------------------------------------------------
# PEPit
# ---------------------------------------------------------------------------------------------


def pepit_worst_case(
    alpha: float, beta: float, step_size: float, n_iter: int, delta: float
) -> float:
    """The same question asked of PEPit (Goujaud et al. 2024).

    Its points have one Gram matrix; e_n and A e_n are points of it, and as no constraint mentions
    ⟨e_i, A e_j⟩ its two diagonal blocks are G and H.
    """
    from PEPit import PEP, Point

    problem = PEP()
    zero = Point(is_leaf=False, decomposition_dict={})
    signals = [zero] + [Point() for _ in range(n_iter + 1)]
    images = [zero] + [Point() for _ in range(n_iter + 1)]
    problem.set_initial_condition(images[1] ** 2 == 1)
    for i in range(len(signals)):
        for j in range(i):
            squared, image = (signals[i] - signals[j]) ** 2, (images[i] - images[j]) ** 2
            problem.add_constraint(alpha * squared <= image)
            problem.add_constraint(image <= beta * squared)
    for n in range(1, n_iter + 1):

        def distance(i: int, n: int = n):  # type: ignore[no-untyped-def]
            return (signals[i] - signals[n]) ** 2 + 2 * step_size * (
                (images[i] - images[n]) * images[n]
            )

        for i in range(len(signals)):
            if i != n + 1:
                problem.add_constraint(distance(n + 1) <= distance(i) + delta)
    problem.set_performance_metric(images[-1] ** 2)
    return float(problem.solve(wrapper="cvxpy", solver="CLARABEL", verbose=0))


@pytest.mark.parametrize("n_iter", [1, 2])
@pytest.mark.parametrize(
    ("kappa", "step", "delta"), [(1.5, 1.0, 0.0), (1.9, 1.0, 0.1), (1.2, 1.1, 0.0), (3.0, 1.0, 0.1)]
)
def test_pepit_agrees(kappa: float, step: float, delta: float, n_iter: int) -> None:
    pytest.importorskip("PEPit")
    case = worst_case(1 / kappa, 1.0, step, n_iter, delta)
    assert pepit_worst_case(1 / kappa, 1.0, step, n_iter, delta) == pytest.approx(
        case.value, rel=1e-5
    )
