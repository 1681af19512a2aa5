"""NPGD's own step, the images' leave, and what follows: exact where the set is affine."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import npgd
from analysis import decompose, testing
from analysis.testing import normal
from npgd.contents import contents
from npgd.images import squared_norm
from npgd.operators import Gaussian, MatrixOperator
from npgd.solvers import CSGM, NPGD, choose_step_size, projecting, recover
from npgd.solvers import choose as choose_module
from npgd.solvers.projecting import finishes, missed
from npgd.solvers.rows import merged, separable, taken
from npgd.solvers.step_size import LONGEST, SHORTEST, drawn, mean_gain, next_step_size

DOUBLE = torch.float64
SHAPE = (1, 6, 6)
seeds = testing.seeds


def problem(seed=0, m=24, batch=4, k=3):
    A = testing.random_operator("gaussian", SHAPE, m, seed)
    p = testing.random_problem(A, testing.random_affine_set(SHAPE, k, seed), batch, seed=seed)
    return p.A, p.S, p.x_true, p.y


@settings(deadline=None, max_examples=15)
@given(seed=seeds, k=st.integers(1, 5))
def test_it_finds_the_truth_on_an_affine_set(seed, k):
    """Barzilai and Borwein's steps converge on every strictly convex quadratic."""
    A, S, x_true, y = problem(seed, k=k)
    solver = NPGD(S, max_iter=400, tol=1e-12, patience=None)
    solution = recover(A, y, solver, x_true=x_true)
    assert float(solution.error[-1].max()) < 1e-14
    assert set(solution.outcomes) == {"converged"}
    assert "every image has come to rest" in solution.status


def test_a_line_takes_one_step():
    """All differences of points of a line have one ratio: the first step is exact."""
    A, S, x_true, y = problem(k=1)
    solution = recover(A, y, NPGD(S, start="range", max_iter=3, tol=0), x_true=x_true)
    assert float(solution.error[0].max()) > 1e-8
    assert float(solution.error[1].max()) < 1e-25


@settings(deadline=None, max_examples=15)
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_the_scale_of_the_operator_does_not_matter(seed, scale):
    A, S, _, y = problem(seed)
    solver = NPGD(S, max_iter=8, tol=0, patience=None)
    here = recover(A, y, solver)
    there = recover(MatrixOperator(scale * A.matrix, SHAPE), scale * y, solver)
    torch.testing.assert_close(there.x, here.x, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(there.step_sizes * scale**2, here.step_sizes, rtol=1e-4, atol=0)


def test_steps_are_those_of_the_iterates():
    A, S, x_true, y = problem(seed=3)
    solution = recover(A, y, NPGD(S, max_iter=7, tol=0, patience=None), record_iterates=True)
    d = solution.iterates.diff(dim=0)
    gain = mean_gain(A, S, y, drawn(S))
    torch.testing.assert_close(solution.step_sizes[0], 1 / gain)
    for n in range(1, 7):
        long = squared_norm(d[n - 1]) / squared_norm(A(d[n - 1]))
        expected = long.clamp(SHORTEST / gain, LONGEST / gain)
        torch.testing.assert_close(solution.step_sizes[n], expected)
    parts = decompose(A, y, x_true, solution.iterates, solution.step_sizes)
    assert float(parts.residual.max()) < 1e-10
    with pytest.raises(ValueError, match=r"step_size must be a number or of shape \(7, 4\)"):
        decompose(A, y, x_true, solution.iterates, solution.step_sizes[1:])


def test_directions_that_say_nothing_leave_the_step():
    one = torch.ones(4, dtype=DOUBLE)
    d, A_d = normal(4, *SHAPE), normal(4, 5)
    d[0], A_d[1], d[2, 0, 0, 0] = 0.0, 0.0, torch.nan
    found = next_step_size(0.7 * one, one, d, A_d)
    assert found[0] == found[2] == 0.7 and found[1] == LONGEST
    assert bool(found.isfinite().all()) and SHORTEST <= found[3] <= LONGEST


def test_sets_that_cannot_be_sampled_have_a_step_too():
    A, S, x_true, y = problem()
    solution = recover(A, y, NPGD(S.project, max_iter=200, tol=1e-11), x_true=x_true)
    assert float(solution.error[-1].max()) < 1e-12
    still = recover(A, y, NPGD(lambda w: torch.zeros_like(w)))
    assert bool(still.step_sizes.isfinite().all()) and set(still.outcomes) == {"converged"}


def test_the_best_iterate_is_kept():
    """A projector that leaps: what is returned fits best of x_1, x_2, …"""
    A, S, x_true, y = problem()
    calls = []

    def leaping(w):
        calls.append(1)
        return S.project(w) + (3.0 * (len(calls) > 5)) * normal(*SHAPE, seed=len(calls))

    solver = NPGD(leaping, max_iter=12, tol=0, patience=None)
    solution = recover(A, y, solver, x_true=x_true, record_iterates=True)
    raw = torch.stack([squared_norm(A(x) - y) for x in solution.iterates])
    torch.testing.assert_close(solution.objective[1:], raw[1:].cummin(0).values)
    torch.testing.assert_close(solution.objective[-1], squared_norm(A(solution.x) - y))
    torch.testing.assert_close(solution.error[-1], squared_norm(solution.x - x_true) / 36)
    assert bool((raw[-1] > solution.objective[-1]).all())
    calls.clear()
    last = recover(A, y, dataclasses.replace(solver, keep="last"), record_iterates=True)
    assert torch.equal(last.x, last.iterates[-1])


SOLVERS = {
    "own step": lambda S: NPGD(S, max_iter=25),
    "fixed step": lambda S: NPGD(S, 0.4, max_iter=25, tol=1e-3),
    "patience": lambda S: NPGD(S, 0.05, max_iter=60, patience=2),
    "finish": lambda S: NPGD(S, max_iter=20, finish=6),
    "finish and refine": lambda S: NPGD(S, 0.1, max_iter=20, finish=6, refine=2, patience=3),
    "CSGM": lambda S: CSGM(S, 2, 0.1, max_iter=60, tol=0.2, patience=8),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_images_leave_and_do_not_meet(name):
    """The result of an image, and when it is done, are those of a run alone."""
    prior = testing.random_prior(SHAPE, 4)
    A = Gaussian(SHAPE, 14, 0, DOUBLE)
    x = torch.cat([prior.sample(3, seed=1), normal(3, *SHAPE)]).detach()
    y, solver = A(x), SOLVERS[name](prior)
    together = recover(A, y, solver, x_true=x, record_iterates=True)
    for i in range(len(x)):
        alone = recover(A, y[i : i + 1], solver, x_true=x[i : i + 1])
        n = alone.n_iter
        assert alone.iterations.tolist() == [n] == together.iterations[i : i + 1].tolist()
        assert alone.outcomes == together.outcomes[i : i + 1]
        torch.testing.assert_close(together.x[i], alone.x[0])
        torch.testing.assert_close(together.objective[: n + 1, i], alone.objective[:, 0])
        # Rows after an image was done repeat its last.
        for rows in (together.objective, together.error, together.iterates):
            assert torch.equal(rows[n:, i], rows[n, i].expand_as(rows[n:, i]))
    torch.testing.assert_close(together.objective[-1], squared_norm(A(together.x) - y))


def test_settled_says_so():
    """Of a projector that circles the objective falls no further, and nothing rests."""
    A, S, _, y = problem()
    calls = []

    def circling(w):
        calls.append(1)
        return S.project(w) + 0.01 * (-1) ** len(calls)

    solution = recover(A, y, NPGD(circling, max_iter=300))
    assert set(solution.outcomes) == {"settled"} and solution.n_iter < 60
    assert solution.status.startswith(f"settled after {solution.n_iter} iterations: every image")
    assert "5% in 5 iterations" in solution.status
    assert recover(A, y, NPGD(circling, max_iter=60, patience=None)).n_iter == 60
    fixed = recover(A, y, NPGD(circling, 0.3, max_iter=60, tol=0))
    assert fixed.n_iter == 60 and "all that were asked for (tol = 0)" in fixed.status


def test_a_finish_never_raises_its_objective_and_takes_its_steps():
    prior, A = testing.random_prior(SHAPE, 4), Gaussian(SHAPE, 20, 1, DOUBLE)
    y = A(prior.sample(5, seed=2).detach())
    plain = recover(A, y, NPGD(prior, max_iter=10))
    solver = NPGD(prior, max_iter=30, finish=20, refine_penalty=0.0)
    solution = recover(A, y, solver, record_iterates=True)
    assert bool((solution.objective[1:].diff(dim=0) <= 1e-12).all())
    assert bool((solution.objective[-1] <= plain.objective[-1]).all())
    assert bool((solution.iterations - plain.iterations <= 20).all())
    assert int(solution.step_sizes[-1].isnan().sum()) == 5


def test_nothing_to_measure_is_an_error():
    A, S, _, y = problem()
    zero = MatrixOperator(0 * A.matrix, SHAPE)
    for prior in (S, S.project):
        with pytest.raises(ValueError, match="A must differ from zero for a step to help"):
            recover(zero, y, NPGD(prior))


def test_a_choice_is_remembered_until_something_changes(monkeypatch):
    A, S, _, _ = problem()
    prior = testing.random_prior(SHAPE, 3)
    counted = []
    search = choose_module._chosen
    monkeypatch.setattr(
        choose_module, "_chosen", lambda *given: counted.append(1) or search(*given)
    )

    def searches(set_, **given):
        before = len(counted)
        choose_step_size(A, set_, max_iter=3, **given)
        return len(counted) - before

    assert [searches(S), searches(S), searches(prior), searches(prior)] == [1, 0, 1, 0]
    assert searches(S, seed=1) == 1
    A.matrix.data[0, 0] += 1
    assert searches(S) == 1
    with torch.no_grad():
        next(prior.parameters()).add_(0.5)
    assert searches(prior) == 1
    assert searches(lambda w: w, images=normal(4, *SHAPE)) == 1
    assert contents(lambda w: w) is None


@dataclasses.dataclass(frozen=True)
class Inner:
    first: torch.Tensor
    count: int = 0


@dataclasses.dataclass(frozen=True)
class Whole:
    x: torch.Tensor
    inner: Inner = dataclasses.field(metadata={"axis": 1})
    shared: torch.Tensor = dataclasses.field(metadata={"axis": None})
    n: int = 0


@given(batch=st.integers(2, 6), data=st.data())
@settings(deadline=None)
def test_rows_taken_and_merged(batch, data):
    index = torch.tensor(sorted(data.draw(st.sets(st.integers(0, batch - 1), min_size=1))))
    state = Whole(normal(batch, 2), Inner(normal(3, batch)), normal(9))
    assert separable(state, batch) and not separable(state, batch + 1)
    part = taken(state, index)
    assert torch.equal(part.x, state.x[index])
    assert torch.equal(part.inner.first, state.inner.first[:, index])
    moved = dataclasses.replace(part, x=part.x + 1, inner=Inner(part.inner.first + 1, 1), n=4)
    back = merged(state, moved, index)
    change = torch.zeros(batch, dtype=DOUBLE).index_fill(0, index, 1.0)
    torch.testing.assert_close(back.x - state.x, change[:, None].expand(-1, 2))
    torch.testing.assert_close(back.inner.first - state.inner.first, change.expand(3, -1))
    assert back.n == 4 and back.inner.count == 1 and back.shared is part.shared


class Shrinking(torch.nn.Module):
    """G†(w) = (1 − ε) B⁺ w."""

    def __init__(self, S, epsilon):
        super().__init__()
        self.S, self.epsilon = S, epsilon

    def forward(self, w):
        return (1 - self.epsilon) * self.S.encode(w)


def behind(epsilon, seed=0, k=3):
    """A prior with a linear G and an encoder that shrinks: it projects where ε = 0."""
    S = testing.random_affine_set(SHAPE, k, seed)
    S.offset.zero_()

    class Linear(torch.nn.Module):
        def forward(self, z):
            return S.generate(z)

    return npgd.GenerativePrior(Linear(), Shrinking(S, epsilon), k, SHAPE).double()


@settings(deadline=None, max_examples=10)
@given(seed=seeds, k=st.integers(1, 12))
def test_a_projection_misses_nothing_beyond_what_the_nearest_points_leave(seed, k):
    """Π v has k/n of the energy of v: eight draws tell it to 4 √(2/8k) of itself."""
    found = missed(behind(0.0, seed, k))
    assert abs(found) <= 4 * (2 / (8 * k)) ** 0.5 * k / 36
    assert missed(testing.random_affine_set(SHAPE, k, seed)) == 0


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_what_an_encoder_misses_that_says_nothing_is_the_spread_about_the_origin(seed):
    prior = behind(1.0, seed)
    x = drawn(prior)[:8]
    expected = float(squared_norm(x).sum() / squared_norm(x - x.mean(0)).sum()) - 3 / 36
    assert missed(prior) == pytest.approx(expected, rel=1e-9)
    assert finishes(prior)


def test_a_run_finishes_by_itself_behind_an_encoder_that_projects_poorly():
    prior = behind(0.8)
    A, x = Gaussian(SHAPE, 24, seed=0, dtype=DOUBLE), prior.sample(4, seed=5)
    own, plain = (recover(A, A(x), NPGD(prior, finish=f), x_true=x) for f in (None, 0))
    asked = recover(A, A(x), NPGD(prior, finish=20), x_true=x)
    assert own.info["finish"] == 20 and "finish" not in plain.info
    assert torch.equal(own.x, asked.x)
    assert float(own.error[-1].max()) < 0.01 * float(plain.error[-1].min())


@pytest.mark.parametrize("max_iter, kept", [(1, 0), (2, 1), (6, 4), (30, 20), (300, 20)])
def test_it_keeps_two_thirds_of_a_short_run_to_finish(max_iter, kept):
    prior = behind(0.8)
    A, x = Gaussian(SHAPE, 24, seed=0, dtype=DOUBLE), prior.sample(2, seed=5)
    solution = recover(A, A(x), NPGD(prior, max_iter=max_iter))
    assert solution.info.get("finish", 0) == kept
    assert len(solution.objective) - 1 <= max_iter


def test_it_does_not_finish_by_itself_where_p_projects_or_another_run_is_asked_for():
    A, S, _, y = problem()
    prior = behind(0.8)
    asked = [
        NPGD(S),
        NPGD(S.project),
        NPGD(behind(0.1)),
        NPGD(prior, 0.5),
        NPGD(prior, finish=0),
        NPGD(npgd.LatentRefinement(prior)),
        NPGD(prior, refine=2),
    ]
    assert not any("finish" in recover(A, y, solver).info for solver in asked)


def of_arrays():
    """A poor encoder, and a generator that no gradient passes through."""
    B = torch.randn(3, 36, generator=torch.Generator().manual_seed(0)).numpy()
    return npgd.GenerativePrior(
        npgd.as_generator(lambda z: (z @ B).clip(-1, 1), arrays=True, image_shape=SHAPE),
        npgd.as_encoder(lambda w: w.reshape(len(w), -1)[:, :3], arrays=True),
        3,
        SHAPE,
    )


class Unlike:
    """A set whose `project` is not `generate` of `encode`."""

    def __init__(self, prior):
        self.inner, self.latent_dim, self.image_shape = prior, prior.latent_dim, SHAPE
        self.generate, self.encode, self.sample = prior.generate, prior.encode, prior.sample

    def project(self, w):
        return w.clamp(-1, 1)


class Constant(Unlike):
    """A set whose samples are all the same, to rounding."""

    def project(self, w):
        return self.generate(self.encode(w))

    def __init__(self, prior):
        super().__init__(prior)
        self.sample = lambda n, generator=None, seed=None: prior.sample(1, seed=0).expand(n, *SHAPE)


def test_a_run_does_not_finish_by_itself_where_no_gradient_passes_through_g():
    prior = of_arrays()
    A, x = Gaussian(SHAPE, 24, seed=0), prior.sample(2, seed=5)
    assert missed(prior) > 0.05 and not finishes(prior)
    assert "finish" not in recover(A, A(x), NPGD(prior)).info
    with pytest.raises(TypeError, match="numpy arrays"):
        recover(A, A(x), NPGD(prior, finish=5))


@pytest.mark.parametrize("kind", [Unlike, Constant])
def test_a_projection_of_its_own_and_samples_all_the_same_tell_nothing_of_the_encoder(kind):
    assert missed(behind(0.8)) > 0.05
    assert missed(kind(behind(0.8))) == 0


@pytest.mark.parametrize("name", ["mnist", "mnist-k2", "mnist-k100", "celeba", "church"])
def test_the_packages_own_priors_project(name):
    """As the docstring of `missed` says."""
    assert missed(npgd.load_prior(name)) <= 0.02


def test_what_a_prior_misses_is_measured_once_and_again_when_a_weight_changes(monkeypatch):
    prior = testing.random_prior(SHAPE, 3)
    passes = []
    measured = projecting._measured
    monkeypatch.setattr(projecting, "_measured", lambda *a: passes.append(a) or measured(*a))
    first = missed(prior)
    assert missed(prior) == first and len(passes) == 1
    with torch.no_grad():
        next(prior.encoder.parameters()).mul_(0.5)
    second = missed(prior)
    assert len(passes) == 2 and second == measured(prior, None) != first
    prior.float()
    missed(prior)
    assert len(passes) == 3
    foreign = behind(0.8)  # may hide what its networks depend on
    missed(foreign), missed(foreign)
    assert len(passes) == 5


class Nearby:
    """P(w) = G(2 G†(w)), the nearest point, for its encoder halves the latent."""

    latent_dim, image_shape = 3, SHAPE

    def __init__(self):
        self.inner = behind(0.5)

    def generate(self, z):
        return self.inner.generate(z)

    def encode(self, w):
        return self.inner.encode(w)

    def project(self, w):
        return self.inner.generate(2 * self.inner.encode(w))


def test_a_finish_keeps_the_projection_of_a_set_that_has_its_own():
    S = Nearby()
    A = Gaussian(SHAPE, 24, seed=0, dtype=DOUBLE)
    x = behind(0.5).sample(4, seed=5)
    plain = recover(A, A(x), NPGD(S, 0.5, max_iter=8, tol=0), x_true=x, record_iterates=True)
    ended = recover(
        A, A(x), NPGD(S, 0.5, max_iter=11, finish=3, tol=0), x_true=x, record_iterates=True
    )
    torch.testing.assert_close(ended.iterates[:9], plain.iterates)
    assert not torch.equal(ended.iterates[9], ended.iterates[8])


def test_a_projector_that_is_not_finite_is_told_from_a_step_that_is_too_long():
    prior = behind(float("nan"))
    A, x = Gaussian(SHAPE, 24, seed=0, dtype=DOUBLE), behind(0.0).sample(2, seed=5)
    assert "the prior's P is not finite" in recover(A, A(x), NPGD(prior)).status
