"""Obtuse projectors: the bound against worst cases, runs against the bound, θ of known sets."""

import json
import math
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis import testing, theorem
from analysis.obtuse import Obtuseness, obtuse_bound, obtuseness
from analysis.performance_estimation import certify, worst_case
from npgd import NPGD, MatrixOperator, recover
from npgd.images import Images, squared_norm

SHAPE = (1, 4, 4)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expressions() -> dict[str, sp.Expr]:
    """Those of the derivation's last steps, which take a part of its time."""
    w = theorem._Writer()
    identity = theorem._identity(w)
    recursion = theorem._one_step(w, identity)
    solution, _ = theorem._every_step(w, recursion)
    distance = theorem._distance(w, theorem._limit(w, recursion, solution))
    theorem._obtuse(w, identity, distance)
    return w.expressions


class Sphere:
    """The points of length r: reach r. θ ≥ 1 − dist(w, S)/r (Federer 1959), here θ = ‖w‖/r."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def project(self, w: Images) -> Images:
        length = w.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        return self.radius * w / length

    def reached(self, w: Images) -> torch.Tensor:
        """1 − dist(w, S)/τ."""
        return 1 - (w.flatten(1).norm(dim=1) - self.radius).abs() / self.radius


def box(w: Images) -> Images:
    """The projection onto [−1, 1]ⁿ, a convex set."""
    return w.clamp(-1, 1)


def run(P, A, x_true, step_size, n_iter=6, start=None) -> torch.Tensor:
    solver = NPGD(
        P, step_size, max_iter=n_iter, tol=0.0, start="adjoint" if start is None else start
    )
    return recover(A, A(x_true), solver, record_iterates=True).iterates


def gradient_steps(A, x_true, iterates, step_size) -> list[Images]:
    return [x - step_size * A.adjoint(A(x - x_true)) for x in iterates[:-1]]


# The bound ----------------------------------------------------------------------------------------


@given(
    kappa=st.floats(1, 8),
    beta=st.sampled_from([1.0, 0.01, 30.0]),
    delta=st.floats(0, 2),
)
@settings(max_examples=30, deadline=None)
def test_no_angle_is_theorem_one(kappa: float, beta: float, delta: float) -> None:
    bound = obtuse_bound(beta / kappa, beta, 0.0, delta)
    assert bound.after(1.5) == pytest.approx((kappa - 1) * 1.5 + kappa * delta, rel=1e-9, abs=1e-12)
    assert bound.contracts == (bound.kappa < 2)
    if kappa < 1.99:
        floor = float(analysis.error_floor(beta / kappa, beta, delta))
        assert bound.floor == pytest.approx(floor, rel=1e-9)


@given(
    kappa=st.floats(1.01, 8),
    theta=st.floats(0, 1),
    delta=st.floats(0, 2),
    noise=st.floats(0, 2),
    relative=st.floats(0.05, 1.9),
    everywhere=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_numbers_are_those_of_the_derivation(
    expressions: dict[str, sp.Expr],
    kappa: float,
    theta: float,
    delta: float,
    noise: float,
    relative: float,
    everywhere: bool,
) -> None:
    """What sympy proved is what is computed, for shorter, longer, and the theorem's own step."""
    beta, error = 3.0, 0.7
    noise = 0.0 if relative > 1 else noise

    def value(name: str) -> float:
        expression = expressions[name]
        known = {
            "kappa": kappa, "theta": theta, "delta": delta, "nu": math.sqrt(noise),
            "alpha": beta / kappa, "|e_n|": math.sqrt(error), "s": relative - 1,
            "m": 1 - relative,
        }  # fmt: skip
        return float(expression.subs({x: known[x.name] for x in expression.free_symbols}))

    bound = obtuse_bound(
        beta / kappa, beta, theta, delta, noise=noise, step_size=relative / beta,
        everywhere=everywhere,
    )  # fmt: skip
    found = bound.after(error)
    if relative <= 1:
        expected = value("obtuse_short") ** 2
        if expected >= noise * kappa / beta:
            assert found == pytest.approx(expected, rel=1e-9)
        else:
            assert expected <= found * (1 + 1e-12) and found <= noise * kappa / beta * (1 + 1e-12)
    else:
        expected = value("obtuse_long") ** 2
        if everywhere and relative - 1 <= theta / 2:
            expected = min(expected, value("obtuse_everywhere"))
        if expected <= error / (relative - 1) ** 2:
            assert found == pytest.approx(expected, rel=1e-9)
        else:
            assert found >= expected * (1 - 1e-9)
    one = obtuse_bound(beta / kappa, beta, theta, delta)
    assert one.after(error) == pytest.approx(value("obtuse"), rel=1e-9)
    if one.contracts and kappa * (1 - theta) < 1.99:
        assert one.floor == pytest.approx(value("obtuse_floor"), rel=1e-6)
        noisy = obtuse_bound(beta / kappa, beta, theta, noise=noise)
        assert math.sqrt(noisy.floor) == pytest.approx(value("obtuse_noise_floor"), rel=1e-6)


@given(
    kappa=st.floats(1.01, 8),
    theta=st.floats(0, 1),
    delta=st.floats(0, 2),
    noise=st.sampled_from([0.0, 0.3]),
    relative=st.floats(0.1, 1.9),
    everywhere=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_contracts_exactly_where_it_says_and_rests_at_its_floor(
    kappa: float, theta: float, delta: float, noise: float, relative: float, everywhere: bool
) -> None:
    noise = 0.0 if relative > 1 else noise
    bound = obtuse_bound(
        1 / kappa, 1.0, theta, delta, noise=noise, step_size=relative, everywhere=everywhere
    )
    if abs(kappa * (1 - theta) - bound.reached) > 1e-9:
        assert bound.contracts == (bound.rate < 1)
    if bound.contracts and kappa * (1 - theta) < bound.reached - 1e-3:
        assert bound.after(bound.floor) == pytest.approx(bound.floor, rel=1e-7, abs=1e-12)
    if not bound.contracts:
        assert bound.floor == math.inf and bound.status.startswith("void")


@given(kappa=st.floats(1.01, 8), theta=st.floats(0, 1), relative=st.floats(0.05, 1.9))
@settings(max_examples=60, deadline=None)
def test_one_over_beta_is_the_best_step_where_only_x_star_is_compared(
    kappa: float, theta: float, relative: float
) -> None:
    if kappa * (1 - theta) < 2:
        best = obtuse_bound(1 / kappa, 1.0, theta).rate
        assert obtuse_bound(1 / kappa, 1.0, theta, step_size=relative).rate >= best * (1 - 1e-12)


def test_a_longer_step_is_better_where_every_point_is_compared() -> None:
    rate, longer = (
        obtuse_bound(0.25, 1.0, 0.7, step_size=h, everywhere=True).rate for h in (1.0, 1.3)
    )
    assert longer < rate
    assert worst_case(0.25, 1.0, 1.3, 1, measure="distance", theta=0.7).dual_bound < 4 * rate


def test_steps_to_reach_is_the_first_step_that_does() -> None:
    for bound in (
        obtuse_bound(0.25, 1.0, 0.7, 0.01),
        obtuse_bound(0.25, 1.0, 0.7, 0.01, noise=0.001),
        obtuse_bound(0.25, 1.0, 0.7, 0.01, step_size=0.8),
        obtuse_bound(0.25, 1.0, 0.7, step_size=1.2),
    ):
        goal = 1.5 * bound.floor + 0.01
        n = bound.steps_to_reach(goal, 10.0)
        errors = bound.errors(10.0, int(n))
        assert errors[-1] <= goal < errors[-2]
        assert bound.steps_to_reach(goal, goal) == 0
        assert bound.steps_to_reach(bound.floor * 0.99 or 1e-300, 10.0) > n
    assert obtuse_bound(0.25, 1.0, 0.7, 0.01).steps_to_reach(0.01, 10.0) == math.inf
    assert obtuse_bound(0.25, 1.0, 0.3).steps_to_reach(1.0, 10.0) == math.inf


# Certified ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_iter", [1, 2, 3])
@pytest.mark.parametrize(("kappa", "theta"), [(1.5, 0.3), (4.0, 0.7), (3.0, 1.0)])
def test_the_bound_is_the_worst_case(kappa: float, theta: float, n_iter: int) -> None:
    for delta in (0.0, 0.05):
        case = worst_case(1 / kappa, 1.0, 1.0, n_iter, delta, measure="distance", theta=theta)
        expected = obtuse_bound(1 / kappa, 1.0, theta, delta).errors(kappa, n_iter)[-1]
        assert case.closed_form == pytest.approx(expected, rel=1e-12)
        assert case.value == pytest.approx(expected, rel=1e-5)
        assert case.dual_bound >= expected * (1 - 1e-12)


@pytest.mark.parametrize("relative", [0.8, 1.2])
def test_one_step_of_another_length_is_as_bad_as_the_bound(relative: float) -> None:
    case = worst_case(0.25, 1.0, relative, 1, measure="distance", theta=0.7)
    expected = obtuse_bound(0.25, 1.0, 0.7, step_size=relative, everywhere=True).after(4.0)
    assert case.value == pytest.approx(expected, rel=1e-5)


def test_where_the_bound_is_void_nothing_need_fall() -> None:
    case = worst_case(0.25, 1.0, 1.0, 2, measure="distance", theta=0.3)
    assert case.value == pytest.approx(4.0, rel=1e-5)
    assert case.closed_form == 4.0


def test_the_instance_is_obtuse_by_theta_and_attains_the_bound() -> None:
    theta = 0.7
    found = certify(0.25, 1.0, 2, measure="distance", theta=theta)
    assert found.share >= 0.9999
    instance = found.worst_case.instance()
    assert instance.constants() == pytest.approx((0.25, 1.0), rel=1e-6)
    iterates = instance.run().iterates
    assert iterates is not None
    A = MatrixOperator(torch.from_numpy(instance.matrix), tuple(iterates.shape[2:]))
    x_true = torch.zeros_like(iterates[0])
    measured = obtuseness(A, A(x_true), x_true, iterates, 1.0, start=0)
    # With no slack at all: θ_n = θ and e_{n+1} as large as may be, at every step.
    assert measured.theta.flatten().tolist() == pytest.approx([theta, theta], abs=1e-4)
    assert measured.floor.item() <= 1e-5 and measured.explained.item()
    # Every other point of S is at an obtuse angle too.
    points = torch.from_numpy(instance.points)
    for n, w in enumerate(gradient_steps(A, x_true, iterates, 1.0)):
        after, w = iterates[n + 1].flatten(), w.flatten()
        near = (points - w).square().sum(1) - theta * (points - after).square().sum(1)
        assert bool(((after - w).square().sum() <= near + 1e-9).all())


def test_a_certificate_names_its_angle_and_is_false_without_it() -> None:
    checker = Path(__file__).parents[2] / "docs" / "mathematics" / "check_certificate.py"
    holds = runpy.run_path(str(checker))["holds"]
    proof = json.loads(
        json.dumps(worst_case(0.25, 1.0, 1.0, 2, measure="distance", theta=0.7).proof())
    )
    assert holds(proof)
    assert not holds({**proof, "theta": "1/2"})


# Measured -----------------------------------------------------------------------------------------


@given(k=st.integers(1, 5), m=st.integers(5, 12), eta=st.floats(0.05, 2), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_affine_sets_have_an_angle_of_exactly_one(k: int, m: int, eta: float, seed: int) -> None:
    S = testing.random_affine_set(SHAPE, k, seed)
    A = testing.random_operator("gaussian", SHAPE, m, seed=seed)
    x = S.sample(3, seed=seed)
    measured = obtuseness(
        A, A(x), x, run(S, A, x, eta / float(A.norm()) ** 2), eta / float(A.norm()) ** 2
    )
    error = measured.error[1:]
    seen = error > 1e-16 * error.max()
    assert torch.allclose(measured.theta[seen], torch.ones_like(measured.theta[seen]), atol=1e-6)


@given(eta=st.floats(0.1, 1.5), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_a_sphere_has_the_angle_that_its_reach_promises(eta: float, seed: int) -> None:
    S, A = Sphere(2.0), testing.random_operator("gaussian", SHAPE, 12, seed=seed)
    x = S.project(testing.normal(4, *SHAPE, seed=seed))
    start = S.project(testing.normal(4, *SHAPE, seed=seed + 1))
    step = eta / float(A.norm()) ** 2
    iterates = run(S.project, A, x, step, start=start)
    measured = obtuseness(A, A(x), x, iterates, step, start=0)
    for theta, error, w in zip(
        measured.theta, measured.error[1:], gradient_steps(A, x, iterates, step), strict=True
    ):
        seen = error > 1e-8
        length = w.flatten(1).norm(dim=1) / S.radius
        assert torch.allclose(theta[seen], length[seen], rtol=1e-5)
        assert bool((theta[seen] >= S.reached(w)[seen] - 1e-6).all())


@given(eta=st.floats(0.1, 1.5), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_convex_sets_have_an_angle_of_at_least_one(eta: float, seed: int) -> None:
    A = testing.random_operator("gaussian", SHAPE, 12, seed=seed)
    x = box(1.5 * testing.normal(4, *SHAPE, seed=seed))
    step = eta / float(A.norm()) ** 2
    measured = obtuseness(A, A(x), x, run(box, A, x, step), step)
    seen = measured.error[1:] > 1e-10
    assert bool((measured.theta[seen] >= 1 - 1e-6).all())


def test_a_ball_is_not_flat() -> None:
    def ball(w: Images) -> Images:
        return w / w.flatten(1).norm(dim=1).clamp_min(1).reshape(-1, 1, 1, 1)

    A = testing.random_operator("gaussian", SHAPE, 12)
    x, step = ball(testing.normal(4, *SHAPE)), 1.5 / float(A.norm()) ** 2
    theta = obtuseness(A, A(x), x, run(ball, A, x, step), step).theta
    assert float(theta.min()) >= 1 - 1e-12 and float(theta.max()) > 1.01


@given(
    eta=st.floats(0.05, 1.7),
    spread=st.floats(0.01, 2),
    noise=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 9999),
)
@settings(max_examples=20, deadline=None)
def test_the_bound_with_its_own_constants_holds_along_any_run(
    eta: float, spread: float, noise: float, seed: int
) -> None:
    """Whatever the projector does: here it wanders off at random."""
    A = testing.random_operator("gaussian", SHAPE, 10, seed=seed)
    S = testing.random_affine_set(SHAPE, 3, seed)
    x = S.sample(4, seed=seed)
    y = A(x) + noise * testing.normal(4, 10, seed=seed)
    step, iterates = eta / float(A.norm()) ** 2, [S.sample(4, seed=seed + 1)]
    for n in range(5):
        w = iterates[-1] - step * A.adjoint(A(iterates[-1]) - y)
        iterates.append(S.project(w) + spread * 0.3**n * testing.normal(4, *SHAPE, seed=seed + n))
    measured = obtuseness(A, y, x, torch.stack(iterates), step, start=0)
    for image, bound in enumerate(measured.bounds()):
        promised = bound.errors(float(measured.error[0, image]), 5)
        for n, value in enumerate(promised):
            assert float(measured.error[n, image]) <= value * (1 + 1e-7)
        assert bound.floor == pytest.approx(float(measured.floor[image]), rel=1e-6)
        assert measured.explained[image] == (bound.floor < measured.error[0, image])
    for image, floor in enumerate(measured.plain_floor.tolist()):
        a, b, delta = (
            float(c[image]) for c in (measured.alpha, measured.beta, measured.plain_delta)
        )
        plain = obtuse_bound(min(a, b), b, 0.0, delta, step_size=measured.step_size)
        assert floor == pytest.approx(plain.floor, rel=1e-6)
        assert (
            plain.errors(float(measured.error[0, image]), 5)[-1] >= 0.999 * measured.error[5, image]
        )
    # No pair (θ, δ) of a grid that every step satisfies has a lower floor.
    lowest = grid_floor(measured, A, y, x, torch.stack(iterates))
    assert bool((measured.floor <= lowest * (1 + 1e-6) + 1e-10).all())


def grid_floor(measured: Obtuseness, A, y, x, iterates: torch.Tensor) -> torch.Tensor:
    """The lowest floor over θ = 1, 0.96, …, with the δ that each of them needs."""
    h = measured.step_size * measured.beta
    best = torch.full_like(h, math.inf)
    noise = y - A(x)
    w = [p - measured.step_size * A.adjoint(A(p) - y) for p in iterates[:-1]]
    for i in range(50):
        theta = 1 - i / 25
        needed = torch.zeros_like(h)
        for before, after in zip(w, iterates[1:], strict=True):
            hidden = 2 * measured.step_size * (A(after - x) * noise).sum(1)
            excess = squared_norm(after - before) - squared_norm(x - before) + hidden
            needed = torch.maximum(needed, excess + theta * squared_norm(after - x))
        margin = 2 * torch.minimum(h, 2 - h) * measured.alpha / measured.beta - 1 + theta
        best = torch.minimum(best, torch.where(margin > 0, needed / margin, math.inf))
    return best


def test_an_affine_run_is_explained_where_theorem_one_is_void() -> None:
    S = testing.random_affine_set(SHAPE, 4, 3)
    A = testing.random_operator("gaussian", SHAPE, 6, seed=5)
    alpha, beta = testing.exact_constants(A, S)
    assert beta > 2 * alpha
    x = S.sample(5, seed=1)
    measured = obtuseness(A, A(x), x, run(S, A, x, 1 / beta), 1 / beta)
    assert bool(measured.explained.all())
    assert "explains it for 5 of these, and θ = 0 for none" in measured.status
    assert bool(measured.plain_floor.isinf().all())
    assert float(measured.floor.max()) < 1e-9
    assert len(str(measured).splitlines()) <= 20
    written = json.loads(json.dumps(measured.to_dict()))
    assert written["explained"] == [True] * 5 and written["status"] == measured.status
    assert json.loads(json.dumps(measured.bounds()[0].to_dict()))["contracts"] is True


def test_a_run_that_rests_elsewhere_is_explained_down_to_where_it_rests() -> None:
    """An affine set beside x*: x_n tends to another point, and the floor lies above its error."""
    S = testing.random_affine_set(SHAPE, 3, 4)
    A = testing.random_operator("gaussian", SHAPE, 8, seed=2)
    x = S.sample(3, seed=0) + 0.05 * testing.normal(3, *SHAPE, seed=1)
    step = 0.5 / testing.exact_constants(A, S)[1]
    measured = obtuseness(A, A(x), x, run(S, A, x, step, 600, S.sample(3, seed=9)), step, start=0)
    assert bool((measured.floor >= measured.error[-1] * (1 - 1e-6)).all())
    assert bool(measured.explained.all()) and bool((measured.run_delta > 0).all())


def test_a_run_that_does_not_move_says_nothing() -> None:
    S = testing.random_affine_set(SHAPE, 2)
    A = testing.random_operator("gaussian", SHAPE, 6)
    x = S.sample(2, seed=0)
    measured = obtuseness(A, A(x), x, torch.stack([x, x, x]), 0.1)
    assert bool(measured.floor.isnan().all()) and not bool(measured.explained.any())
    assert "nothing to explain" in measured.status
    assert str(measured)
    with pytest.raises(ValueError, match="alpha must be"):
        measured.bounds()


def test_a_step_of_two_over_beta_bounds_nothing() -> None:
    for relative in (2.0, 2.5):
        bound = obtuse_bound(1.0, 1.5, 0.9, step_size=relative / 1.5, everywhere=True)
        assert not bound.contracts and bound.rate == math.inf
    assert obtuse_bound(1.0, 1.5, -0.9).rate == math.inf


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="alpha must not exceed beta"):
        obtuse_bound(2.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="step_size must be at most 1/beta"):
        obtuse_bound(1.0, 2.0, 0.5, noise=1.0, step_size=0.6)
    with pytest.raises(ValueError, match="theta must be at most 1"):
        worst_case(0.5, 1.0, 1.0, 1, theta=1.5)
    S = testing.random_affine_set(SHAPE, 2)
    A, x = testing.random_operator("gaussian", SHAPE, 6), S.sample(2, seed=0)
    with pytest.raises(ValueError, match="start must be below"):
        obtuseness(A, A(x), x, torch.stack([x, x]), 0.1, start=1)
    with pytest.raises(TypeError, match="step_size must be a number"):
        obtuseness(A, A(x), x, torch.stack([x, x, x]), torch.full((2, 2), 0.1))  # type: ignore[arg-type]
