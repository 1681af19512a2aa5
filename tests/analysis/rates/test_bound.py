"""The bound: what the theory derives, what the worst case attains, and how many steps it takes."""

import math

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from analysis import rates, testing
from analysis.performance_estimation import closed_form, step_bound, worst_case
from analysis.rates import bound as bounds
from analysis.theorem import derive

DOUBLE = torch.float64
many = settings(deadline=None, max_examples=30)
few = settings(deadline=None, max_examples=12)
kappas = st.floats(1.0, 1.98)


def scales(low: float, high: float) -> st.SearchStrategy[float]:
    """Positive numbers, every order of magnitude alike."""
    return st.floats(math.log(low), math.log(high)).map(math.exp)


# What is known of it -------------------------------------------------------------------------


@many
@given(kappa=kappas, beta=scales(0.1, 10), delta=st.floats(0, 2), initial=scales(1e-3, 1e3))
def test_prediction_is_theorem_1(kappa, beta, delta, initial):
    """Its sum where F_0 is no less than half the floor or so, and never more than that."""
    alpha, r = beta / kappa, kappa - 1
    bound = rates.predicted_objective(initial, 40, alpha, beta, delta)
    n = torch.arange(41, dtype=DOUBLE)
    exact = r**n * initial + beta * delta * sum((n > i).double() * r**i for i in range(40))
    assert (bound <= exact * (1 + 1e-12)).all()
    assert (bound <= (r**n * initial + beta * delta / (2 - kappa)) * (1 + 1e-9)).all()
    if initial >= r * beta * delta / (1 - r**2):
        torch.testing.assert_close(bound, exact, rtol=1e-9, atol=1e-12)
    assert float(rates.predicted_rate(alpha, beta)) == pytest.approx(r, abs=1e-9)
    assert float(rates.error_floor(alpha, beta, delta)) == pytest.approx(delta / (2 / kappa - 1))
    floor = float(rates.objective_floor(alpha, beta, delta))
    assert floor == pytest.approx(beta * delta / (2 - kappa))


@many
@given(kappa=st.floats(1.0, 6), beta=scales(0.1, 10), delta=st.sampled_from([0.0, 0.01, 1.0, 10.0]))
def test_prediction_is_the_closed_form_of_the_worst_case(kappa, beta, delta):
    """For every κ at η = 1/β without noise: nothing smaller is a bound."""
    bound = rates.predicted_objective(3.0, 8, beta / kappa, beta, delta)
    for n in range(1, 9):
        expected = 3 * closed_form(beta / kappa, beta, n, delta / 3)
        assert float(bound[n]) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("kappa", "relative", "rate"),
    [(1.5, 1.2, 0.874), (1.2, 1.3, 0.703), (1.2, 0.8, 0.470), (1.5, 0.5, 1.0)],
)
def test_a_bound_is_void_only_where_nothing_falls(kappa, relative, rate):
    found = float(rates.predicted_rate(1.0, kappa, step_size=relative / kappa))
    assert found == pytest.approx(rate, abs=5e-4)
    bound = rates.predicted_objective(1.0, 9, 1.0, kappa, step_size=relative / kappa)
    assert float(bound[-1]) == pytest.approx(found**9)


@many
@given(kappa=st.floats(1.0, 4), relative=st.floats(0.05, 1.95))
def test_it_contracts_exactly_where_the_derivation_says(kappa, relative):
    """1/(2α) < η < 2/β − 1/(2α); elsewhere it stays within 2/(2 − ηβ) of F_0, or F_0 itself."""
    low, high = kappa / 2, 2 - kappa / 2
    assume(min(abs(relative - low), abs(relative - high)) > 1e-9)
    rate = float(rates.predicted_rate(1 / kappa, 1.0, step_size=relative))
    assert (rate < 1) == (low < relative < high)
    bound = rates.predicted_objective(1.0, 60, 1 / kappa, 1.0, step_size=relative)
    assert bound.max() <= (1 if relative <= 1 else 2 / (2 - relative)) * (1 + 1e-12)
    if rate >= 1:
        assert rate == 1
        assert math.isinf(rates.error_floor(1 / kappa, 1.0, 0.1, step_size=relative))
        assert math.isinf(rates.steps_to_reach(1e-3, 1.0, 1 / kappa, 1.0, step_size=relative))


@pytest.mark.parametrize("relative", [2.0, 2.5, 3.0])
def test_beyond_twice_one_over_beta_it_grows_at_its_rate(relative):
    rate = float(rates.predicted_rate(0.5, 1.0, step_size=relative))
    bound = rates.predicted_objective(1.0, 60, 0.5, 1.0, step_size=relative).flatten()
    assert rate >= 1 and float(bound[-1] / bound[-2]) == pytest.approx(rate, rel=0.05)


@pytest.fixture(scope="session")
def derived():
    """Expressions of the derivation, as functions of numbers."""
    expressions = derive().expressions

    def value(name: str, **numbers: float) -> float:
        symbols = expressions[name].free_symbols
        return float(expressions[name].subs({s: numbers[s.name] for s in symbols}))

    return value


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    kappa=st.floats(1.01, 3.5),
    relative=st.floats(0.2, 1.9),
    delta=st.sampled_from([0.0, 0.1, 1.0]),
    noise=st.sampled_from([0.0, 0.01, 1.0]),
    objective=scales(0.01, 100),
)
@example(kappa=1.2, relative=0.8, delta=0.0, noise=0.0, objective=1.0)
@example(kappa=1.5, relative=1.2, delta=0.0, noise=0.01, objective=1.0)
@example(kappa=3.0, relative=1.2, delta=0.1, noise=0.01, objective=1.0)
def test_one_step_rate_and_floor_are_those_of_the_derivation(
    derived, kappa, relative, delta, noise, objective
):
    at = {"kappa": kappa, "alpha": 1 / kappa, "beta": 1.0, "eta": relative, "delta": delta}
    at |= {"nu": math.sqrt(noise), "F_n": objective}
    args, options = (1 / kappa, 1.0, delta), {"step_size": relative, "noise": noise}
    one = float(rates.predicted_objective(objective, 1, *args, **options)[-1])
    assert one == pytest.approx(derived("step_bound", **at), rel=1e-9)
    assert one == pytest.approx(step_bound(objective, *args[:2], relative, delta, noise), rel=1e-9)
    if kappa < 2 * min(relative, 2 - relative) - 1e-6:
        rate = float(rates.predicted_rate(*args[:2], step_size=relative))
        assert rate == pytest.approx(derived("rate", **at), rel=1e-9) and rate < 1
        floor = float(rates.objective_floor(*args, **options))
        assert floor == pytest.approx(derived("floor_root", **at) ** 2, rel=1e-9)


@many
@given(
    kappa=kappas,
    delta=st.sampled_from([0.0, 0.1]),
    noise=scales(1e-4, 1),
    objective=scales(0.1, 10),
)
def test_noise_enters_as_in_the_theorems_own_step(kappa, delta, noise, objective):
    """F_{n+1} ≤ r(√F_n + ν)² + ν² + βδ at η = 1/β, unless x_n is the stronger comparison."""
    found = rates.predicted_objective(objective, 1, 1 / kappa, 1.0, delta, noise=noise)[-1]
    u = math.sqrt(objective) + math.sqrt(noise)
    expected = min((kappa - 1) * u**2 + noise, objective) + delta
    assert float(found) == pytest.approx(expected, rel=1e-12)


# That it bounds, and that it is tight ----------------------------------------------------------


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    kappa=st.floats(1.05, 3.5),
    relative=st.one_of(st.just(1.0), st.floats(0.4, 1.8)),
    n_iter=st.integers(1, 3),
    delta=st.sampled_from([0.0, 0.05, 0.5]),
    noise=st.sampled_from([0.0, 0.01, 0.1]),
    scale=st.sampled_from([1.0, 0.2, 5.0]),
)
@example(kappa=1.2, relative=0.8, n_iter=1, delta=0.0, noise=0.0, scale=1.0)
@example(kappa=1.3, relative=0.9, n_iter=1, delta=0.05, noise=0.0, scale=1.0)
@example(kappa=1.5, relative=0.5, n_iter=3, delta=0.0, noise=0.0, scale=1.0)
@example(kappa=1.5, relative=1.1, n_iter=1, delta=0.05, noise=0.01, scale=1.0)
@example(kappa=3.0, relative=1.5, n_iter=3, delta=0.05, noise=0.0, scale=1.0)
def test_it_bounds_the_worst_case_and_is_that_of_one_step(
    kappa, relative, n_iter, delta, noise, scale
):
    """Certified from below by Gram matrices that satisfy every constraint."""
    args = (scale / kappa, scale)
    case = worst_case(*args, relative / scale, n_iter, delta / scale, noise)
    bound = rates.predicted_objective(
        1.0, n_iter, *args, delta / scale, step_size=relative / scale, noise=noise
    )
    assert case.value <= float(bound[-1]) * (1 + 1e-12)
    if n_iter == 1 and (relative >= 1 or noise == 0):
        assert float(bound[-1]) == pytest.approx(case.value, rel=2e-5)


@many
@given(
    seed=testing.seeds,
    noise=st.sampled_from([0.0, 0.3]),
    step_size=scales(0.01, 10),
    spread=scales(0.1, 10),
)
def test_constants_that_hold_of_any_points_bound_them(sequence, seed, noise, step_size, spread):
    """α, β and δ taken from points that no algorithm made, over all that the derivation uses."""
    A, y, x_true, iterates = sequence(seed, 6, 6, spread=spread, noise=noise)
    alpha, beta, delta = own_constants(A, y, x_true, iterates, step_size)
    parts = rates.decompose(A, y, x_true, iterates, step_size)
    bound = rates.predicted_objective(
        parts.objective[0], 6, alpha, beta, delta, step_size=step_size, noise=parts.noise
    )
    assert (parts.objective <= bound * (1 + 1e-9)).all()


def own_constants(A, y, x_true, iterates, step_size):
    """The constants that hold of (x_n, x*), (x_{n+1}, x_n), and of s = x*, x_n, x_{n−1}."""
    parts = rates.decompose(A, y, x_true, iterates, step_size)
    ends = parts.range_objective / parts.error
    alpha = torch.minimum(ends.amin(0), parts.beta.amin(0))
    beta = torch.maximum(ends.amax(0), parts.beta.amax(0))
    delta = torch.cat([parts.delta[None], parts.behind]).nan_to_num(nan=-1.0).amax((0, 1))
    return alpha, beta, delta.clamp_min(0)


@pytest.mark.parametrize(
    ("off", "same"), [(0.0, True), (1e-13, True), (1e-11, False), (-1e-11, False), (1.0, False)]
)
def test_a_step_is_one_over_beta_up_to_rounding_alone(off, same):
    """κ = 1: at η = 1/β the bound falls to 0 at once, at 2/β it does not fall."""
    after = float(rates.predicted_objective(1.0, 1, 1.0, 1.0, step_size=1 + off)[-1])
    assert (after == 0) == same


@many
@given(
    kappa=st.floats(1.0, 3.0),
    relative=st.floats(1.0, 1.95),
    noise=st.sampled_from([0.0, 0.1, 1.0]),
    delta=st.sampled_from([0.0, 0.3]),
    scale=st.sampled_from([0.5, 2.0]),
    t=scales(0.1, 10),
    remembered=st.floats(0.05, 1.2),
)
@example(kappa=1.3, relative=1.2, noise=1.0, delta=0.0, scale=2.0, t=1.0, remembered=0.5)
@example(kappa=2.5, relative=1.6, noise=0.1, delta=0.3, scale=0.5, t=3.0, remembered=0.3)
@example(kappa=1.3, relative=1.1, noise=0.1, delta=0.0, scale=2.0, t=3.0, remembered=0.5)
@example(kappa=1.3, relative=1.1, noise=0.1, delta=0.0, scale=2.0, t=3.0, remembered=1.2)
def test_a_step_is_bounded_by_the_worst_of_all_smaller_objectives(
    kappa, relative, noise, delta, scale, t, remembered
):
    """Where W_n is known: of every t_n up to t, with W_{n+1} from x*, x_n and x_{n−1}.

    r_n = A e_n − v, so that α‖e_n‖² ≤ ‖r_n + v‖²; v may have any direction, and the worst are ±r_n.
    """
    alpha, beta = scale, scale * kappa
    recursion = bounds.Recursion.of(alpha, beta, delta, relative / beta, noise)
    h, nu, drive = relative, math.sqrt(noise), beta * delta

    def reach(at: torch.Tensor) -> torch.Tensor:
        inner = torch.stack([at * nu, -at * nu])  # ⟨r_n, v⟩
        truth = beta * (at**2 + 2 * inner + noise) / alpha - 2 * h * inner
        return torch.minimum(truth.amax(0), 2 * h * at**2)

    grid = t * torch.linspace(0, 1, 20001, dtype=DOUBLE)
    memory = remembered * float(reach(grid)[-1])
    inside = reach(grid).clamp_max(memory) + drive - h * (2 - h) * grid**2
    following = torch.where(inside >= 0, (h - 1) * grid + inside.clamp_min(0).sqrt(), 0.0)
    found, kept = recursion(torch.tensor(t, dtype=DOUBLE), torch.tensor(memory, dtype=DOUBLE))
    assert float(following.max()) <= float(found) * (1 + 1e-9) + 1e-15
    assert float(found) == pytest.approx(float(following.max()), rel=2e-3)
    assert float(kept) == pytest.approx(min(memory, float(reach(grid)[-1])) + drive)


# Its floor -------------------------------------------------------------------------------------


@few
@given(
    kappa=st.floats(1.0, 1.3),
    delta=st.floats(0, 1),
    noise=st.floats(0, 1),
    relative=st.floats(0.7, 1.3),
)
@example(kappa=1.2, delta=0.0, noise=0.5, relative=0.8)
@example(kappa=1.0, delta=0.0, noise=0.5, relative=1.25)
@example(kappa=1.28125, delta=0.0, noise=1.0, relative=0.703125)  # its floor is above 100
def test_bound_settles_at_its_floor(kappa, delta, noise, relative):
    constants = {"step_size": relative / 2, "noise": noise}
    args = (2 / kappa, 2.0, delta)
    rate = float(rates.predicted_rate(*args[:2], step_size=relative / 2))
    floor = float(rates.objective_floor(*args, **constants))
    if rate < 0.9:
        above = max(100.0, 2 * floor)  # with an exact projector the bound never rises to it
        last = rates.predicted_objective(above, 400, *args, **constants)[-1]
        assert float(last) == pytest.approx(floor, rel=1e-6, abs=1e-9)
        error = (math.sqrt(floor) + math.sqrt(noise)) ** 2 / args[0]
        assert float(rates.error_floor(*args, **constants)) == pytest.approx(error)
    elif rate >= 1:
        assert math.isinf(floor)


@many
@given(kappa=kappas, noise=scales(1e-3, 1))
def test_the_floor_of_an_exact_projector_is_that_of_the_derivation(kappa, noise):
    """‖x_n − x*‖ tends to at most 2ν/((2 − κ)√α)."""
    expected = (2 * math.sqrt(noise) / (2 - kappa)) ** 2 * kappa
    assert float(rates.error_floor(1 / kappa, 1.0, noise=noise)) == pytest.approx(expected)


def test_void_bounds_are_still_computed():
    assert math.isinf(rates.error_floor(1.0, 2.0, 0.1))
    assert math.isinf(rates.steps_to_reach(0.5, 10.0, 1.0, 9.0, 0.1))
    torch.testing.assert_close(
        rates.predicted_objective(1.0, 5, 1.0, 9.0), torch.ones(6, dtype=DOUBLE)
    )
    assert float(rates.steps_to_reach(20.0, 10.0, 1.0, 9.0, 0.1)) == 0


def test_bound_of_kappa_one_is_a_number():
    """κ = 1: the bound falls to 0 at once, whatever 1/(1/β) is in floating point."""
    for beta in (29.97, 52.17):
        assert rates.predicted_objective(1.0, 3, beta, beta, step_size=1 / beta)[1:].max() < 1e-12


def test_bound_begins_where_it_is_told():
    bound = rates.predicted_objective(torch.tensor([2.0, 3.0]), 4, 1.0, 1.5, start=1)
    assert bound.shape == (5, 2) and bound[0].isnan().all()
    torch.testing.assert_close(bound[1:, 0], 2 * 0.5 ** torch.arange(4, dtype=DOUBLE))
    with pytest.raises(ValueError, match="start must be from 0 to n_iter = 4, got 5"):
        rates.predicted_objective(1.0, 4, 1.0, 1.5, start=5)


def test_every_image_has_its_own_constants():
    """One call for a batch is as many calls for its images."""
    alpha = torch.tensor([0.9, 0.6, 0.3], dtype=DOUBLE)
    noise, delta = torch.tensor([0.0, 0.1, 0.2], dtype=DOUBLE), torch.tensor([0.1, 0.0, 0.2])
    for step_size in (None, 0.8, 1.1):
        options = {"step_size": step_size, "noise": noise}
        together = (
            rates.predicted_objective(2.0, 5, alpha, 1.0, delta, **options),
            rates.error_floor(alpha, 1.0, delta, **options)[None],
            rates.steps_to_reach(5.0, 20.0, alpha, 1.0, delta, **options)[None],
        )
        for i in range(3):
            one = (float(alpha[i]), 1.0, float(delta[i]))
            options = {"step_size": step_size, "noise": float(noise[i])}
            alone = (
                rates.predicted_objective(2.0, 5, *one, **options),
                rates.error_floor(*one, **options)[None],
                rates.steps_to_reach(5.0, 20.0, *one, **options)[None],
            )
            for batch, single in zip(together, alone, strict=True):
                torch.testing.assert_close(batch[:, i], single.flatten())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 5, 2.0, 1.0), "alpha must be at most beta, got"),
        ((1.0, 5, 0.0, 1.0), "alpha must be finite and positive"),
        ((1.0, 5, 1.0, math.inf), "beta must be finite and positive"),
        ((1.0, 5, 1.0, 1.0, -1.0), "delta must be finite and not negative"),
        ((math.nan, 5, 1.0, 1.0), "initial must be finite"),
        ((torch.ones(2, 2), 5, 1.0, 1.0), "initial must be a number or of shape"),
    ],
)
def test_impossible_constants_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rates.predicted_objective(*arguments)


# How many steps --------------------------------------------------------------------------------


def counted(error, initial, alpha, beta, delta, options):
    """The first n at which the recursion has arrived, one by one."""
    recursion = bounds.Recursion.of(
        alpha, beta, delta, options.get("step_size"), options.get("noise", 0.0)
    )
    t, memory, n = torch.tensor(initial, dtype=DOUBLE).sqrt(), torch.tensor(math.inf), 0
    while float(recursion.error(t**2)) > error:
        (t, memory), n = recursion(t, memory), n + 1
    return n


@many
@given(
    kappa=st.floats(1.0, 1.95),
    relative=st.sampled_from([None, None, 0.99, 1.01]),
    delta=st.one_of(st.just(0.0), st.floats(0, 0.5)),
    noise=st.sampled_from([0.0, 0.01]),
    initial=scales(0.1, 1e4),
    factor=st.floats(1.001, 50),
)
@example(kappa=1.5, relative=0.99, delta=5e-324, noise=0.0, initial=1.0, factor=2.0)
def test_steps_to_reach_are_those_of_the_bound(kappa, relative, delta, noise, initial, factor):
    args = (1 / kappa, 1.0, delta)
    options = {"noise": noise, "step_size": relative}
    target = max(factor * float(rates.error_floor(*args, **options)), 1e-6)
    assert float(rates.steps_to_reach(target, initial, *args, **options)) == counted(
        target, initial, *args, options
    )


@many
@given(
    kappa=st.floats(1.0, 1.95), delta=scales(1e-3, 1), initial=scales(0.1, 1e4), C=scales(0.01, 10)
)
def test_steps_to_reach_never_exceed_the_theorem(kappa, delta, initial, C):
    """Theorem 1: error (C + 1/(2/κ−1)) δ after log(f(x_0)/(Cαδ))/(2−κ) steps."""
    alpha, beta = 1.0, kappa
    target = (C + 1 / (2 / kappa - 1)) * delta
    theorem = max(0.0, math.log(initial / (C * alpha * delta)) / (2 - kappa))
    steps = float(rates.steps_to_reach(target, initial, alpha, beta, delta))
    assert steps <= math.ceil(theorem + 1e-9)


@pytest.mark.parametrize("kappa", [1.9999, 1.999999, 2 - 1e-12])
def test_steps_of_slow_bounds_have_a_closed_form(kappa):
    """(κ−1)ⁿ F_0/α = error without δ; with δ, its distance from the floor."""
    slow = -math.log1p(kappa - 2)
    found = float(rates.steps_to_reach(1e-3, 1.0, 1.0, kappa))
    assert found == math.ceil(math.log(1e3) / slow)
    delta = 2 - kappa
    floor = kappa * delta / (2 - kappa)
    found = float(rates.steps_to_reach(2 * floor, 100 * floor, 1.0, kappa, delta))
    assert found == pytest.approx(math.ceil(math.log(99) / slow), rel=1e-12)


@pytest.mark.parametrize("kappa", [1.99, 1.9985])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
@pytest.mark.parametrize(("relative", "noise"), [(1.0, 1e-4), (1 - 2e-4, 0.0), (1 + 2e-4, 1e-5)])
def test_steps_by_the_integral_are_those_counted(monkeypatch, kappa, delta, relative, noise):
    """Where steps are small, whether from far above the floor or just above it."""
    args, options = (1 / kappa, 1.0, delta), {"noise": noise, "step_size": relative}
    floor = float(rates.error_floor(*args, **options))
    floor = max(floor, 1e-6)
    for near, far in ((1.5, 1e3), (1.001, 1.5), (10, 1e12)):
        call = (near * floor, far * floor / kappa, *args)
        for name in ("CLOSED", "COUNTED"):
            monkeypatch.setattr(bounds, name, math.inf)
        expected = float(rates.steps_to_reach(*call, **options))
        for name in ("CLOSED", "COUNTED"):
            monkeypatch.setattr(bounds, name, 0)
        assert float(rates.steps_to_reach(*call, **options)) == expected > 20
        monkeypatch.undo()


@pytest.mark.parametrize("delta", [0.0, 1e-3])
@pytest.mark.parametrize("relative", [1.0, 1 + 1e-14, 1 - 1e-10])
def test_steps_with_noise_are_told_for_any_kappa_below_two(delta, relative):
    """As κ → 2 their number grows like 1/(2 − κ), for the same multiple of the floor."""
    found = []
    for gap in (1e-6, 1e-7, 1e-8):
        args = (1.0, 2 - gap, delta)
        options = {"noise": 1e-2, "step_size": relative / (2 - gap)}
        floor = float(rates.error_floor(*args, **options))
        found.append(float(rates.steps_to_reach(2 * floor, 100 * floor, *args, **options)) * gap)
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert found[2] == pytest.approx(found[1], rel=0.02)
