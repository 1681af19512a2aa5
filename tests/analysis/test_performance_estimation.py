"""The worst-case program against Theorem 1, against runs of NPGD, and against PEPit."""

import itertools
import json
import math
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import gram_program
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
    assert case.closed_form <= case.induction_bound * (1 + 1e-12)


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


@pytest.mark.parametrize(("kappa", "step"), [(1.2, 1.05), (1.5, 1.0), (1.5, 1.3), (3.0, 1.2)])
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_step_bound_is_attained_by_one_long_step(kappa: float, step: float, delta: float) -> None:
    case = worst_case(1 / kappa, 1.0, step, 1, delta)
    s = step - 1
    if kappa < 2 + 2 * s:  # beyond, ‖x_1 − w‖² ≤ ‖x_0 − w‖² + δ is the stronger inequality
        expected = step_bound(1.0, 1 / kappa, 1.0, step, delta)
        assert case.value == pytest.approx(expected, rel=1e-6)
        assert expected == pytest.approx((s + math.sqrt(s * s + kappa - 1 + delta)) ** 2)


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


@pytest.mark.parametrize(("kappa", "step"), [(1.5, 1.0), (1.9, 1.0), (1.2, 1.1), (1.5, 0.9)])
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
    assert np.abs(slack_g).max() < 1e-13
    assert np.linalg.eigvalsh(slack_h)[0] > -1e-13
    case = worst_case(alpha, beta, step / beta, 1, delta)
    assert case.value <= proved
    if step == 1.0:  # the proof of the theorem: nothing lost, and what the solver finds
        assert np.abs(slack_h).max() < 1e-13
        assert proved == pytest.approx(kappa - 1 + beta * delta)
        found = dict(case.multipliers)
        for name, weight in closed.items():
            assert found[name] == pytest.approx(weight, rel=1e-5)


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


def test_eight_steps_take_little_time() -> None:
    began = time.process_time()  # not wall time, which other work on the machine stretches
    found = certify(1 / 1.8, 1.0, 8, delta=0.01)
    assert time.process_time() - began < 20
    assert found.worst_case.value == pytest.approx(theorem(1.8, 8, 0.01), rel=1e-5)
    assert found.share >= 0.9999


def test_units_do_not_matter() -> None:
    one = worst_case(1 / 1.4, 1.0, 1.1, 2, 0.05, 0.01)
    other = worst_case(1e4 / 1.4, 1e4, 1.1e-4, 2, 0.05e-4, 0.01)
    assert other.value == pytest.approx(one.value, rel=1e-6)


def test_wrong_multipliers_never_prove_a_wrong_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the solver returns as multipliers, the bound stays above the true value."""
    solve, generator = GramProgram.solve, np.random.default_rng(0)
    for size in (1e-3, 1e-6):

        def spoiled(self, g, h, margin, floor, size=size):  # type: ignore[no-untyped-def]
            raw = solve(self, g, h, margin, floor)
            wrong = raw.multipliers - size * generator.standard_normal(len(raw.multipliers))
            return gram_program.Raw(raw.gram_g, raw.gram_h, wrong, raw.start_multiplier - size)

        monkeypatch.setattr(GramProgram, "solve", spoiled)
        try:
            assert worst_case(1 / 1.5, 1.0, 1.0, 3).dual_bound >= 0.125 * (1 - 1e-14)
        except RuntimeError as error:
            assert "too wide" in str(error)


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
        ({"alpha": 1.0}, "alpha"),
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
        worst_case(0.7, 1.0, 1.0, 2)


def test_iterations_that_do_not_suffice_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import cvxpy

    solve = cvxpy.Problem.solve

    def hurried(self, **options):  # type: ignore[no-untyped-def]
        return solve(self, **{**options, "max_iter": 3})

    monkeypatch.setattr(cvxpy.Problem, "solve", hurried)
    with pytest.raises(RuntimeError, match="not found"):
        worst_case(0.7, 1.0, 1.0, 2)


def test_certificate_reads_well() -> None:
    found = certify(1 / 1.5, 1.0, 2, delta=0.01)
    text = str(found)
    for words in ("bound of the theorem", "dual bound", "primal value", "instance: NPGD", "tight"):
        assert words in text
    assert [len(row) for row in found.rows()] == [3] * 6
    assert json.loads(json.dumps(found.to_dict()))["share"] >= 0.9999
    assert "closed form" in str(found.worst_case)
    json.dumps(found.worst_case.instance().to_dict())
    assert "promised" in str(found.worst_case.instance())
    assert "% below" in certify(1 / 2.5, 1.0, 2, delta=0.01).status


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
