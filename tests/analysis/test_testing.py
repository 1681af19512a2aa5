"""What is drawn is what it says, what holds passes the checks, and what is broken fails each."""

import doctest
import json
import math
import subprocess
import sys
import tomllib

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import analysis
from analysis import testing
from npgd import NPGD, AffineSet, LinearOperator, MatrixOperator, recover

DOUBLE = torch.float64
SHAPE = (1, 3, 4)
few = settings(deadline=None, max_examples=30)
sets = st.one_of(testing.affine_sets(SHAPE), testing.finite_sets(SHAPE))
small_affine = testing.affine_sets(SHAPE, latent_dim=st.integers(1, 5))


def squared(x):
    return x.flatten(1).square().sum(1)


def dense(A):
    return A(torch.eye(A.n, dtype=DOUBLE).reshape(A.n, *A.image_shape)).T


def fails(check, *named):
    """The AssertionError of a check, which says what, by how much, and what to call again."""
    with pytest.raises(AssertionError) as caught:
        check()
    message = str(caught.value)
    for text in (*named, "To reproduce: check_"):
        assert text in message, message
    return message


# The module itself ----------------------------------------------------------------------------


def test_the_five_lines_of_the_docstring_run():
    assert "five lines" in testing.__doc__
    result = doctest.testmod(testing)
    assert result.attempted == 4 and result.failed == 0


def test_analysis_does_without_hypothesis():
    code = "import sys, analysis; assert 'hypothesis' not in sys.modules; print(*dir(analysis))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "testing" in run.stdout.split() and "testing" not in analysis.__all__


def test_a_missing_hypothesis_is_named_with_its_extra(monkeypatch, repository):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "analysis.testing")
    monkeypatch.delattr(analysis, "testing")
    with pytest.raises(ImportError, match=r"hypothesis \(pip install npgd\[testing\]\)"):
        analysis.testing  # noqa: B018
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"]["testing"][0].startswith("hypothesis")


# What is drawn --------------------------------------------------------------------------------


def again(call):
    """What the printed call makes."""
    return eval(call, vars(testing))


@few
@given(A=testing.operators(), seed=testing.seeds)
def test_an_operator_prints_the_call_that_makes_it(A, seed):
    assert isinstance(A, LinearOperator)
    B, x = again(A.extra_repr()), testing.random_images(A.image_shape, 2, seed)
    assert A(x).dtype == DOUBLE and torch.equal(A(x), B(x))
    assert A.extra_repr() in str(A)


@few
@given(S=sets, seed=testing.seeds)
def test_a_set_prints_the_call_that_makes_it(S, seed):
    w = testing.random_images(SHAPE, 3, seed)
    assert torch.equal(S(w), again(S.extra_repr())(w)) and S(w).dtype == DOUBLE


@few
@given(prior=testing.priors())
def test_a_prior_prints_the_call_that_makes_it_and_leaves_the_global_draws_alone(prior):
    state = torch.random.get_rng_state()
    same = again(prior.name)
    assert torch.equal(torch.random.get_rng_state(), state)
    x = prior.sample(3, seed=0)
    assert x.dtype == DOUBLE and torch.equal(x, same.sample(3, seed=0))
    assert not any(p.requires_grad for p in prior.parameters())
    assert torch.equal(prior.project(x), same.project(x)) and not torch.equal(prior.project(x), x)


@pytest.mark.parametrize("kind", testing.KINDS)
def test_every_kind_takes_every_shape(kind):
    """Odd sides, and a single pixel, as a user may ask for."""
    for shape in ((1, 1, 1), (1, 3, 4), (2, 5, 5), (3, 4, 6)):
        for m in (1, 7):
            A = testing.random_operator(kind, shape, m, seed=3)
            testing.check_adjoint(A)
            testing.check_norm(A)


@few
@given(A=testing.operators(SHAPE, kinds=("mask", "dct"), m=5))
def test_operators_are_as_asked_for(A):
    assert A.image_shape == SHAPE and A.m == 5


def test_kinds_and_sets_are_checked():
    for call, named in (
        (
            lambda: testing.operators(kinds=["unknown"]),
            r"kinds must be some of .*, got \['unknown'\]",
        ),
        (
            lambda: testing.random_operator("unknown", SHAPE, 3),
            "kind must be one of .*, got 'unknown'",
        ),
        (lambda: testing.problems(sets=["sphere"]), "sets"),
        (lambda: testing.problems(sets=()), "sets"),
    ):
        with pytest.raises(ValueError, match=named):
            call()


@few
@given(S=testing.finite_sets(SHAPE))
def test_a_finite_set_has_two_different_points(S):
    assert len(S.points.flatten(1).unique(dim=0)) >= 2


@few
@given(A=testing.operators(SHAPE), S=sets)
def test_exact_constants_are_those_of_the_definition(A, S):
    """Against dense matrices: the spectrum on the span of B, and every pair one by one."""
    alpha, beta = testing.exact_constants(A, S)
    matrix = dense(A)
    if isinstance(S, AffineSet):
        span = torch.linalg.svd(S.basis, full_matrices=False).U
        values = torch.linalg.eigvalsh(span.T @ matrix.T @ matrix @ span)
        low, high = float(values[0]), float(values[-1])
    else:
        flat = S.points.flatten(1)
        secants = [a - b for i, a in enumerate(flat) for b in flat[:i] if not torch.equal(a, b)]
        ratios = [float((matrix @ s).square().sum() / s.square().sum()) for s in secants]
        low, high = min(ratios), max(ratios)
    assert beta == pytest.approx(high, rel=1e-9, abs=1e-15)
    assert alpha == pytest.approx(low, rel=1e-9, abs=1e-12 * max(high, 1e-3))


def test_constants_of_other_sets_are_not_known():
    A = testing.random_operator("matrix", SHAPE, 3)
    with pytest.raises(TypeError, match="S must be an AffineSet or a FiniteSet"):
        testing.exact_constants(A, testing.random_prior(SHAPE, 2))


@few
@given(problem=testing.problems(kappa=2))
def test_a_problem_is_one_to_which_the_theorem_applies(problem):
    assert 1 - 1e-9 <= problem.kappa < 2
    torch.testing.assert_close(problem.S(problem.x_true), problem.x_true)
    torch.testing.assert_close(problem.y, problem.A(problem.x_true) + problem.noise)
    assert problem.step_size * problem.beta <= 1.02 + 1e-12
    assert f"κ = {problem.kappa:.4g}" in str(problem)
    assert json.loads(json.dumps(problem.to_dict()))["beta"] == problem.beta


# What holds passes, in either precision ---------------------------------------------------------


@few
@given(A=testing.operators(), seed=testing.seeds)
def test_operators_pass_in_single_precision(A, seed):
    A = A.to(torch.float32)
    testing.check_adjoint(A, seed=seed, tol=1e-5)
    testing.check_linear(A, seed=seed, tol=1e-5)
    testing.check_norm(A, tol=1e-4)


@few
@given(w=testing.images(SHAPE), S=sets, single=st.booleans())
def test_exact_projections_pass(w, S, single):
    if single:
        w, S = w.float(), S.to(torch.float32)
    testing.check_projector(S, w, members=S)
    testing.check_projector(S.project, w, members=S.sample(5, seed=1))


@few
@given(w=testing.images(SHAPE), S=testing.finite_sets(SHAPE, tie_tol=0.7))
def test_ties_within_delta_pass(w, S):
    testing.check_projector(S, w, delta=0.7, members=S.points)


@few
@given(prior=testing.priors(SHAPE), w=testing.images(SHAPE, scale=1.0))
def test_a_network_passes_for_a_delta_that_is_large_enough(prior, w):
    """Pixels of G lie in [−1, 1]: no two images of the range are farther apart than 4n."""
    testing.check_projector(prior, w, delta=float(squared(w - prior.project(w)).max()) + 48)


@few
@given(problem=testing.problems())
def test_problems_pass(problem):
    p = problem
    testing.check_one_step_identity(p.A, p.S, p.x_true, p.y, p.step_size)
    for start in (0, 1):
        testing.check_bound(
            p.A, p.S, p.x_true, p.y, p.step_size, p.alpha, p.beta, start=start
        )  # fmt: skip


@few
@given(problem=testing.problems(), seed=testing.seeds)
def test_the_identity_asks_nothing_of_the_projector(problem, seed):
    p = problem
    shift = testing.random_images(p.A.image_shape, 1, seed)[0]
    for project in (lambda w: w, lambda w: 0.5 * w + shift, lambda w: torch.sin(w)):
        testing.check_one_step_identity(p.A, project, p.x_true, p.y, p.step_size)


# What is broken fails: operators ----------------------------------------------------------------


class Broken(LinearOperator):
    """The products of an operator, changed."""

    def __init__(self, A, forward=lambda y: y, adjoint=lambda x: x, norm=lambda s: s):
        super().__init__(A.image_shape, A.m)
        self.operator, self.changes = A, (forward, adjoint, norm)

    def _forward(self, x):
        return self.changes[0](self.operator(x))

    def _adjoint(self, y):
        return self.changes[1](self.operator.adjoint(y))

    def norm(self):
        return self.changes[2](self.operator.norm())


def one_pixel_off(x):
    x = x.clone()
    x[..., 0, 0] *= 1.001
    return x


@few
@given(A=testing.operators(), seed=testing.seeds)
def test_a_scaled_adjoint_always_fails(A, seed):
    assume(A.norm() > 0)
    broken = Broken(A, adjoint=lambda x: (1 + 1e-6) * x)
    fails(lambda: testing.check_adjoint(broken, seed=seed), "⟨A x, y⟩ = ⟨x, Aᵀ y⟩ fails by")


@few
@given(m=st.integers(2, 12), seed=testing.seeds)
def test_the_adjoint_of_another_matrix_always_fails(m, seed):
    A = testing.random_operator("matrix", (1, 2, 6), m, seed)
    B = testing.random_operator("matrix", (1, 2, 6), m, seed ^ 1)
    broken = Broken(A)
    broken._adjoint = B._adjoint
    fails(lambda: testing.check_adjoint(broken, seed=seed), "⟨A x, y⟩ =")


def test_an_adjoint_that_is_off_at_one_pixel_fails():
    A = Broken(testing.random_operator("matrix", (3, 8, 8), 40), adjoint=one_pixel_off)
    fails(lambda: testing.check_adjoint(A), "⟨A x, y⟩ = ⟨x, Aᵀ y⟩ fails by")


@pytest.mark.parametrize(
    ("forward", "adjoint", "named"),
    [
        (lambda y: y, lambda x: x.float(), "the shape of Aᵀ y is (4, 1, 3, 4) of torch.float32"),
        (lambda y: y, lambda x: x[:1], "the shape of Aᵀ y is (1, 1, 3, 4)"),
        (lambda y: y[:, :2], lambda x: x, "the shape of A x is (4, 2)"),
    ],
)
def test_wrong_shapes_fail(forward, adjoint, named):
    A = Broken(testing.random_operator("matrix", SHAPE, 5), forward, adjoint)
    fails(lambda: testing.check_adjoint(A), named)


def test_a_product_that_changes_its_argument_fails():
    class InPlace(MatrixOperator):
        def _forward(self, x):
            return super()._forward(x.mul_(2))

    A = InPlace(testing.random_operator("matrix", SHAPE, 5).matrix, SHAPE)
    for check in (testing.check_adjoint, testing.check_linear):
        fails(lambda check=check: check(A), "A changes its argument in place, by up to")


ALONE, LINEAR = "of a batch =", "A(2 x + -3 z) = 2 A x + -3 A z fails by"


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        (lambda y: y + 1e-6, LINEAR),
        (lambda y: y.clamp(-1, 1), LINEAR),
        (lambda y: y + 1e-4 * y**2, LINEAR),
        (lambda y: y.clamp(-200, 200), "A(1000 x + 0.001 z) = 1000 A x"),
        (lambda y: y - y.mean(0), ALONE),
        (lambda y: y * (torch.arange(len(y)) < 2)[:, None], ALONE),
        (lambda y: y[:1].expand_as(y), ALONE),
    ],
    ids=["offset", "clipped", "curved", "clipped far out", "mean", "last ignored", "first only"],
)
def test_what_is_not_linear_fails(forward, named):
    A = testing.random_operator("matrix", SHAPE, 5)
    fails(lambda: testing.check_linear(Broken(A, forward=forward)), named)


def test_an_adjoint_that_is_not_linear_fails():
    A = Broken(testing.random_operator("matrix", SHAPE, 5), adjoint=lambda x: x + 1e-6)
    fails(lambda: testing.check_linear(A), "Aᵀ(2 x + -3 z) = 2 Aᵀ x + -3 Aᵀ z fails by")


@few
@given(A=testing.operators(), sign=st.sampled_from([-1, 1]))
def test_a_wrong_norm_always_fails(A, sign):
    assume(A.norm() > 0)
    broken = Broken(A, norm=lambda s: s * (1 + sign * 1e-9))
    fails(
        lambda: testing.check_norm(broken), "A.norm() = the largest singular value fails by 1e-09"
    )


def test_the_frobenius_norm_is_not_the_norm():
    A = testing.random_operator("matrix", SHAPE, 5)
    fails(lambda: testing.check_norm(Broken(A, norm=lambda _: float(A.matrix.norm()))), "A.norm()")


@pytest.mark.parametrize("check", [testing.check_adjoint, testing.check_linear, testing.check_norm])
def test_operators_of_other_libraries_come_through_as_operator(check):
    with pytest.raises(TypeError, match="A must be a LinearOperator, got a tensor of shape"):
        check(torch.eye(3))


# What is broken fails: projectors ---------------------------------------------------------------


def oblique(S, seed):
    """Onto the same affine set, along another complement: idempotent, and not the nearest point."""
    other = torch.linalg.qr(S.orthonormal + 0.3 * testing.random_affine_set(SHAPE, 12, seed).basis[
        :, : S.latent_dim
    ])[0]  # fmt: skip
    back = S.orthonormal @ torch.linalg.inv(other.T @ S.orthonormal)
    return lambda w: (S.offset + (w.flatten(1) - S.offset) @ other @ back.T).reshape(w.shape)


@few
@given(w=testing.images(SHAPE, batch=5), S=small_affine, seed=testing.seeds)
def test_an_oblique_projection_always_fails(w, S, seed):
    """Without a member to hold it against: points of S around P(w) are nearer to w."""
    project = oblique(S, seed)
    assume(float((squared(project(w) - S(w)) / squared(w - S(w))).max()) > 1e-3)
    nearest = "P is a δ-approximate projector: ‖w − P(w)‖² ≤ ‖w − s‖² + δ for s = "
    fails(lambda: testing.check_projector(project, w), nearest, "‖w − P(w)‖² = ")
    fails(
        lambda: testing.check_projector(project, w, members=S), nearest + "the nearest point of S"
    )


@few
@given(w=testing.images(SHAPE, batch=4), S=small_affine, share=st.floats(0.01, 0.9))
def test_a_projector_that_goes_part_of_the_way_always_fails(w, S, share):
    def project(w):
        return S(w) + share * (w - S(w))

    message = fails(
        lambda: testing.check_projector(project, w), "P is idempotent on S", "for s = P(w) fails by"
    )
    # ‖p − P(p)‖² = (1 − share)² share² ‖w − P_S(w)‖², the largest of the batch.
    expected = float(((1 - share) * share) ** 2 * squared(w - S(w)).max())
    assert float(message.split(" fails by ")[1].split()[0]) == pytest.approx(expected, rel=0.01)


BATCH, ORDER = "P of a batch = P of its images one by one", "P of a batch = P of the batch in other"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p, w: torch.cat([p[:-1], w[-1:]]) if len(w) > 1 else p, BATCH),
        (lambda p, w: p[:1].expand_as(p), BATCH),
        (lambda p, w: p + 1e-3 * (p.mean(0) - p), BATCH),
        (lambda p, w: p + 1e-3 * torch.randn(p.shape, dtype=p.dtype), "P is deterministic"),
        (lambda p, w: p + 1e-3, "P is idempotent on S: ‖s − P(s)‖² ≤ δ for s = P(w)"),
        (lambda p, w: 0.99 * p, "P is idempotent on S"),
        (lambda p, w: w, "P(w) lies in S: its distance fails by"),
        (lambda p, w: p.float(), "P(w) has shape (4, 1, 3, 4) of torch.float32"),
        (lambda p, w: p[:2], "P(w) has shape (2, 1, 3, 4)"),
        (lambda p, w: p / 0, "expected finite numbers"),
        (lambda p, w: w.copy_(p), "P changes its argument in place, by up to"),
    ],
    ids=["last ignored", "first for all", "towards the mean", "noisy", "shifted", "shrunk",
         "nothing", "single", "cut", "infinite", "in place"],
)  # fmt: skip
def test_a_broken_projector_fails(change, named):
    S = testing.random_affine_set(SHAPE, 3)
    w = testing.random_images(SHAPE, 4)
    fails(lambda: testing.check_projector(lambda v: change(S(v), v), w, members=S), named)


def test_a_projector_that_knows_only_the_order_of_its_batch_fails():
    """Alone, or in the order it is first given, every image is projected; in another order not."""
    S, w = testing.random_affine_set(SHAPE, 3), testing.random_images(SHAPE, 4)

    def project(v):
        return v if len(v) == 4 and float(v[0, 0, 0, 0]) != float(w[0, 0, 0, 0]) else S(v)

    fails(lambda: testing.check_projector(project, w), ORDER)


@few
@given(w=testing.images(SHAPE, scale=1.0), S=small_affine, delta=st.floats(1e-3, 5))
def test_delta_is_told_to_a_percent(w, S, delta):
    """P moved inside the set by √δ: δ_w = δ by Pythagoras, so 1.01 δ passes and 0.99 δ does not."""
    shift = math.sqrt(delta) * S.orthonormal[:, 0].reshape(SHAPE)

    def project(w):
        return S(w) + shift

    testing.check_projector(project, w, delta=1.01 * delta, members=S)
    fails(lambda: testing.check_projector(project, w, delta=0.99 * delta, members=S), "≤ δ", "P(w)")


@few
@given(w=testing.images(SHAPE, scale=1.0), S=small_affine, delta=st.floats(1e-3, 5))
def test_delta_outside_the_set_is_told_too(w, S, delta):
    """Idempotent on S, and moved inside it by √δ for every other w: 0.75 δ is not enough."""
    shift = math.sqrt(delta) * S.orthonormal[:, 0].reshape(SHAPE)

    def project(w):
        p = S(w)
        outside = squared(w - p) > 1e-16 * (1 + squared(w))
        return p + outside[:, None, None, None] * shift

    assume(float(squared(w - S(w)).min()) > 1e-6)
    law = "P is a δ-approximate projector: ‖w − P(w)‖² ≤ ‖w − s‖² + δ for s = "
    for members, named in ((S, "the nearest point of S"), (S(w), "the nearest member")):
        testing.check_projector(project, w, delta=1.01 * delta, members=members, probes=0)
        fails(
            lambda members=members: testing.check_projector(
                project, w, delta=0.75 * delta, members=members, probes=0
            ),
            law + named,
        )


@few
@given(S=small_affine, seed=testing.seeds)
def test_only_the_probes_see_what_no_point_given_shows(S, seed):
    """An oblique projection, of points far apart: none projects near another."""
    project = oblique(S, seed)
    w = testing.random_images(SHAPE, 3, seed, scale=1.0)
    w += 1e4 * torch.arange(3)[:, None, None, None] * S.orthonormal[:, 0].reshape(SHAPE)
    off = squared(project(w) - S(w)) / squared(w - S(w))
    assume(float(off.min()) > 1e-2)
    testing.check_projector(project, w, probes=0)
    fails(lambda: testing.check_projector(project, w), "for s = P of a point near P(w)")


@few
@given(w=testing.images(SHAPE, scale=1.0), seed=testing.seeds)
def test_the_second_nearest_point_fails(w, seed):
    """Held against its members; idempotent it is, where a point of the set is left alone."""
    S = testing.random_finite_set(SHAPE, 6, seed)

    def project(w):
        order = torch.cdist(w.flatten(1), S.points.flatten(1)).argsort(1)
        inside = (w[:, None] == S.points).flatten(2).all(2).any(1)
        return S.points[torch.where(inside, order[:, 0], order[:, 1])]

    fails(lambda: testing.check_projector(project, w, members=S.points), "s = the nearest member")


def test_members_must_stay_where_they_are():
    """Nearest on the half of S that it knows, moved off on the other."""
    S = testing.random_affine_set(SHAPE, 1)
    w = testing.random_images(SHAPE, 4)
    known = S.generate(torch.tensor([[50.0], [-50.0]], dtype=DOUBLE))

    def project(w):
        z = S.encode(w)
        return S.generate(z.clamp(max=10.0))

    testing.check_projector(project, w, members=known[1:])
    fails(lambda: testing.check_projector(project, w, members=known), "for s = a member fails by")


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (
            lambda w: testing.check_projector(3, w),
            TypeError,
            r"project must have `project\(w\)` or be callable, got 3",
        ),
        (lambda w: testing.check_projector(abs, w[:1]), ValueError, "batch at least 2, got"),
        (lambda w: testing.check_projector(abs, w[0]), ValueError, "points must be of shape"),
        (lambda w: testing.check_projector(abs, w / 0), ValueError, "points must be finite"),
        (lambda w: testing.check_projector(abs, w, delta=-1), ValueError, "delta"),
        (lambda w: testing.check_projector(abs, w, probes=-1), ValueError, "probes"),
        (
            lambda w: testing.check_projector(abs, w, members=w[:, :, :2]),
            ValueError,
            "members must have shape",
        ),
    ],
)
def test_door(call, error, named):
    with pytest.raises(error, match=named):
        call(testing.random_images(SHAPE, 3))


# What is broken fails: runs ---------------------------------------------------------------------


def run(p, project, step_size, max_iter=10):
    solver = NPGD(project, step_size, max_iter=max_iter, tol=0.0, start="range")
    return recover(p.A, p.y, solver, record_iterates=True).iterates


plain = testing.problems(
    SHAPE, kinds=("gaussian", "matrix"), sets=("affine",), m=st.integers(6, 30), step=1.0, noise=0.0
)

contracting = testing.problems(
    SHAPE, ("gaussian",), ("affine",), m=st.integers(30, 99), step=1.0, noise=0.0, kappa=1.95
)


@few
@given(p=plain)
def test_the_identity_does_not_close_without_the_adjoint_or_linearity(p):
    for broken in (
        Broken(p.A, adjoint=lambda x: 1.001 * x),
        Broken(p.A, forward=lambda y: y + 1e-3 * y**2),
        Broken(p.A, forward=lambda y: y + 0.01),
    ):
        fails(
            lambda A=broken: testing.check_one_step_identity(A, p.S, p.x_true, p.y, p.step_size),
            "the one-step identity fails by", "from x_", ", image ",
        )  # fmt: skip


@few
@given(p=plain, factor=st.floats(0.5, 0.99))
def test_iterates_of_another_step_size_fail(p, factor):
    iterates = run(p, p.S, factor * p.step_size)
    testing.check_one_step_identity(
        p.A, p.S, p.x_true, p.y, factor * p.step_size, iterates=iterates
    )
    for check in (
        lambda: testing.check_one_step_identity(
            p.A, p.S, p.x_true, p.y, p.step_size, iterates=iterates
        ),
        lambda: testing.check_bound(
            p.A, p.S, p.x_true, p.y, p.step_size, p.alpha, p.beta, iterates=iterates
        ),
    ):
        fails(check, "x_{n+1} = P(x_n − η Aᵀ(A x_n − y)) with η =", "fails by", "from x_0 to x_1")


@few
@given(p=contracting)
def test_a_step_that_is_too_long_breaks_the_bound(p):
    """The iterates alone tell: with 3/β for 1/β the component of gain β doubles at every step."""
    iterates = run(p, p.S, 3 * p.step_size)
    fails(
        lambda: testing.check_bound(
            p.A, None, p.x_true, p.y, p.step_size, p.alpha, p.beta, iterates=iterates
        ),
        "Theorem 1's bound fails by", "F_n = ", "The bound is exceeded", "The run has δ_n = ",
    )  # fmt: skip


@few
@given(p=plain, delta=st.floats(1e-3, 1))
def test_a_projector_farther_off_than_its_delta_breaks_an_assumption(p, delta):
    """Moved inside the set by √δ, of which 0.9 δ is claimed: near its fixed point δ_n shows it."""
    shift = math.sqrt(delta) * p.S.orthonormal[:, 0].reshape(SHAPE)

    def project(w):
        return p.S(w) + shift

    run = (p.A, project, p.x_true, p.y, p.step_size, p.alpha, p.beta)
    testing.check_bound(*run, delta)
    settled = recover(p.A, p.y, NPGD(project, p.step_size, max_iter=15, tol=0.0, start="range"))
    # By Pythagoras δ_n = δ − ‖x* − P_S(w_n)‖².
    w = settled.x - p.step_size * p.A.adjoint(p.A(settled.x) - p.y)
    assume(float(squared(p.x_true - p.S(w)).min()) < 0.05 * delta)
    fails(lambda: testing.check_bound(*run, 0.9 * delta), "The run has δ_n = ")


@few
@given(p=plain, better=st.floats(1.05, 3))
def test_constants_that_are_too_good_break_an_assumption(p, better):
    """β too small by a factor, with the step it asks for; at x* along the direction of gain β."""
    _, _, vectors = torch.linalg.svd(p.A.matrix @ p.S.orthonormal)
    top = (p.S.orthonormal @ vectors[0]).reshape(1, *SHAPE)
    x_true, beta = p.S(top * 0) + 3 * top, p.beta / better
    start = (p.S(top * 0), p.S(top * 0) + top)
    fails(
        lambda: testing.check_bound(
            p.A, None, x_true, p.A(x_true), 1 / beta, min(p.alpha, beta), beta,
            iterates=torch.stack(start),
        ),
        "Theorem 1", "The run has β_n = ",
    )  # fmt: skip


@few
@given(p=plain, better=st.floats(1.02, 1.5))
def test_an_alpha_that_is_too_good_breaks_an_assumption(p, better):
    """At x* along the direction of gain α, of which a few per cent more are claimed."""
    assume(p.kappa > better)
    _, _, vectors = torch.linalg.svd(p.A.matrix @ p.S.orthonormal)
    low = (p.S.orthonormal @ vectors[-1]).reshape(1, *SHAPE)
    x_true = p.S(low * 0)
    fails(
        lambda: testing.check_bound(
            p.A, None, x_true, p.A(x_true), p.step_size, better * p.alpha, p.beta,
            iterates=torch.stack([x_true + low, x_true + 0.9 * low]),
        ),
        "The run has α_n = ",
    )  # fmt: skip


def test_iterates_that_are_no_numbers_fail():
    p = testing.random_problem(
        testing.random_operator("matrix", SHAPE, 8), testing.random_affine_set(SHAPE, 2)
    )
    run = (p.A, lambda w: w / 0, p.x_true, p.y, p.step_size)
    fails(lambda: testing.check_one_step_identity(*run), "x_1 holds NaN or infinity")
    fails(lambda: testing.check_bound(*run, p.alpha, p.beta), "holds NaN or infinity")


def test_the_call_that_a_failure_prints_fails_alike():
    S, w = testing.random_affine_set(SHAPE, 3), testing.random_images(SHAPE, 4)
    problem = testing.random_problem(testing.random_operator("matrix", SHAPE, 8, 1), S)
    names = {
        "A": Broken(problem.A, lambda y: y + 0.1 * y**2, lambda x: 1.1 * x, lambda s: 2 * s),
        "project": lambda w: 0.9 * S(w),
        "points": w,
        "members": None,
        "x_true": problem.x_true,
        "y": problem.y,
    }
    A, project = names["A"], names["project"]
    rest = (project, problem.x_true, problem.y, problem.step_size)
    for check in (
        lambda: testing.check_adjoint(A, seed=5),
        lambda: testing.check_linear(A, batch=2, seed=5),
        lambda: testing.check_norm(A),
        lambda: testing.check_projector(project, w, delta=1e-3, seed=7),
        lambda: testing.check_one_step_identity(A, *rest, max_iter=4),
        lambda: testing.check_bound(problem.A, *rest, problem.alpha, problem.beta, 0.01),
    ):
        message = fails(check)
        call = message.split("To reproduce: ")[1].split(" with A = ")[0]
        if call.startswith("check_bound"):
            names["A"] = problem.A
        assert fails(lambda call=call: eval(call, vars(testing) | names)) == message
