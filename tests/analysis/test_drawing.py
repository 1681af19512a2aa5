"""What a picture shows is what the result says; where there is nothing to see it says so."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import analysis
import npgd
from analysis import rates, testing
from analysis.evolution import ErrorBudget
from analysis.limits import PARTS
from analysis.projection import projection_error
from analysis.rates.slack import GREEK

SHAPE = (1, 3, 4)


def axes_of(result):
    axis = Figure().subplots()
    result.plot(axis)
    axis.figure.draw_without_rendering()
    return axis


def drawn(axis, label):
    """(x, y) of the line with this label."""
    (found,) = [line for line in axis.lines if line.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def words(axis):
    return " ".join(" ".join(text.get_text().split()) for text in axis.texts)


def shows(axis, label, values):
    """Whether the line with this label has these values, NaN among them."""
    expected = np.asarray(values, float)
    np.testing.assert_allclose(drawn(axis, label)[1], expected, rtol=1e-12, equal_nan=True)
    return True


@pytest.fixture(scope="module")
def problem():
    A = testing.random_operator("gaussian", SHAPE, 60, seed=0)
    S = testing.random_affine_set(SHAPE, 3, seed=0)
    return testing.random_problem(A, S, batch=4, noise=0.02, seed=0)


@pytest.fixture(scope="module")
def run(problem):
    """(A, y, x*, iterates, η) of NPGD on an affine set."""
    p = problem
    solver = npgd.NPGD(p.S, p.step_size, max_iter=8, tol=0.0)
    found = npgd.recover(p.A, p.y, solver, record_iterates=True)
    return p.A, p.y, p.x_true, found.iterates, p.step_size


# A run against its bound --------------------------------------------------------------------------


def test_the_bound_is_drawn_over_the_objective_where_it_starts(problem, run):
    check = rates.check_convergence(*run, problem.alpha, problem.beta)
    axis = axes_of(check)
    scale = check.objective[1]
    assert shows(axis, "iterates, median", (check.objective / scale).median(1).values)
    assert shows(axis, "bound (median)", (check.bound / scale)[1:].median(1).values)
    assert drawn(axis, "bound (median)")[0][0] == 1
    assert not words(axis) and axis.get_yscale() == "log"


def test_a_bound_beyond_the_picture_is_said_to_be(problem, run):
    far = rates.check_convergence(*run, 1e-12, problem.beta, 1e12)
    assert "above all this" in words(axes_of(far))


def test_observed_rates_are_those_of_the_images_that_have_one(problem, run):
    seen = rates.check_convergence(*run, problem.alpha, problem.beta).observed
    assert shows(axes_of(seen), "fitted", seen.rate)
    flat = rates.observed_rate(torch.ones(9, 2))
    assert bool(flat.rate.isnan().all())
    assert words(axes_of(flat)) == f"no rate: {flat.reasons[0]}"


def test_the_constants_of_a_run_are_medians_over_the_images(run):
    parts = rates.decompose(*run)
    axis = axes_of(parts)
    assert shows(axis, "αₙ", parts.alpha.nanmedian(1).values)
    assert shows(axis, "βₙ", parts.beta.nanmedian(1).values)


# The slack ----------------------------------------------------------------------------------------


def heights(axis):
    """Of each area of a stack, by its label, at the iterates in their order."""
    found = {}
    for area in axis.collections:
        points = area.get_paths()[0].vertices
        found[area.get_label()] = {
            x: np.ptp(points[points[:, 0] == x, 1]) for x in np.unique(points[:, 0])
        }
    return found


def test_areas_of_the_slack_are_its_shares(run):
    parts = rates.decompose(*run)
    alpha, beta = 0.8 * float(parts.alpha.min()), 1.2 * float(parts.beta.max())
    slack = rates.split_slack(parts, alpha, beta, delta=0.1)
    assert not slack.has_negative and slack.single_cause() == ("", 0)
    axis = axes_of(slack)
    areas = heights(axis)
    for name, share in slack.percentages().items():
        for n, value in enumerate(share.tolist()):
            if math.isfinite(value):
                label = GREEK[name]
                assert areas[label][n] == pytest.approx(max(value, 0), abs=1e-6)
    assert not words(axis)


def test_a_slack_of_one_part_is_told_in_words(run):
    some = rates.split_slack(rates.decompose(*run), 0.5, 2.0, delta=0.1)
    none = torch.zeros_like(some.gap)
    only = replace(some, alpha=none, beta=none, delta=some.gap, noise=none)
    assert only.single_cause() == ("delta", 2) and some.single_cause() == ("", 0)
    assert words(axes_of(only)) == "from x_2 on at least 97 % of it comes from δ"


def test_a_slack_without_parts_is_told_in_words(run):
    some = rates.split_slack(rates.decompose(*run), 0.5, 2.0)
    none = replace(some, gap=some.gap + math.inf, alpha=some.alpha + math.inf)
    axis = axes_of(none)
    assert words(axis) == "no iterate has a finite slack with parts" and not axis.collections


def test_negative_parts_are_lines(run):
    parts = rates.decompose(*run)
    broken = rates.split_slack(parts, 2 * float(parts.alpha.max()), 2 * float(parts.beta.max()))
    assert broken.has_negative
    axis, shares = axes_of(broken), broken.percentages()
    kept = shares["alpha"].isfinite()
    assert shows(axis, "α", shares["alpha"][kept]) and not axis.collections


# Projection and angles ----------------------------------------------------------------------------


def test_every_excess_is_a_point_at_the_height_of_its_family(problem):
    x = testing.random_images(SHAPE, 5, seed=1)
    found = projection_error(problem.S, {"few": x[:2], "many": x}, projector=lambda w: w * 0)
    axis = axes_of(found)
    points = [line for line in axis.lines if line.get_marker() == "o"]
    values = [family.deltas.tolist() for family in found.families.values()]
    assert [line.get_xdata().tolist() for line in points] == values[::-1]
    assert [text.get_text() for text in axis.texts] == ["many", "few"]


def test_the_angle_of_a_run_and_its_limit_are_drawn_from_where_it_starts(run):
    found = analysis.obtuseness(*run)
    axis = axes_of(found)
    assert shows(axis, "κₙ(1 − θₙ), median", found.product.nanquantile(0.5, dim=1)[1:])
    assert shows(axis, "the limit, median", found.limit.nanmedian(1).values[1:])
    assert not words(axis)


def test_a_run_that_stays_has_no_angle_to_draw(problem):
    still = problem.x_true.expand(4, *problem.x_true.shape)
    y = problem.A(problem.x_true)
    found = analysis.obtuseness(problem.A, y, problem.x_true, still, problem.step_size)
    assert words(axes_of(found)) == "at no step are θₙ and κₙ defined"


@pytest.mark.parametrize(("theta", "delta"), [(0.5, 0.0), (0.8, 0.01), (0.0, 0.0)])
def test_a_bound_for_obtuse_projectors_is_drawn_step_by_step(theta, delta):
    bound = analysis.obtuse_bound(0.6, 1.0, theta, delta)
    axis = axes_of(bound)
    n, seen = drawn(axis, f"θ = {theta:g}")
    assert seen[0] == pytest.approx(1e3 * bound.floor if delta else 1.0)
    assert seen == pytest.approx(bound.errors(seen[0], len(n) - 1))
    assert seen[-1] <= (1.02 * bound.floor if delta else 1e-5) or len(n) == 41
    plain = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert len(plain) == (theta > 0)
    if plain:
        expected = analysis.obtuse_bound(0.6, 1.0, 0.0, delta).errors(seen[0], len(n) - 1)
        assert plain[0].get_ydata() == pytest.approx(expected)


def test_a_bound_that_does_not_contract_says_so():
    void = analysis.obtuse_bound(0.2, 1.0, 0.1)
    assert words(axes_of(void)) == void.status and void.status.startswith("void")


# Constants of single images -----------------------------------------------------------------------


def test_kappa_of_every_image_stands_by_the_theorems_limit(problem):
    A, S, x = problem.A, problem.S, problem.x_true
    found = analysis.estimate_rec(A, S, x_true=x, points=20, seed=0).pointwise
    axis = axes_of(found)
    assert found.exact and shows(axis, "κ(x*)", found.kappa)
    assert drawn(axis, "2, the theorem's limit")[1].tolist() == [2, 2] and not words(axis)
    lost = replace(found, kappa=np.array([3.0, np.inf]), exact=False)
    axis = axes_of(lost)
    assert shows(axis, "κ(x*) is at least this", [3.0, np.nan])
    assert words(axis) == "κ(x*) is not finite for 1 of 2 images"


# Near the point of rest ---------------------------------------------------------------------------


def test_local_rates_and_the_best_ones_are_image_by_image(problem):
    found = analysis.local_rate(problem.A, problem.S, problem.x_true, problem.step_size)
    axis = axes_of(found)
    assert shows(axis, f"η = {problem.step_size:.3g}", found.rate)
    assert shows(axis, "each image's best η", found.best_rate)
    assert drawn(axis, "1: no nearer")[1].tolist() == [1, 1] and not words(axis)
    none = replace(found, rate=found.rate * math.nan)
    assert "no image is there a nearest point" in words(axes_of(none))


def test_a_run_rate_is_drawn_where_there_is_one(run):
    *_, iterates, _ = run
    found = analysis.run_rate(iterates)
    assert shows(axes_of(found), "seen", found.rate)
    wild = analysis.run_rate(testing.normal(12, 3, 5, seed=0))
    assert bool(wild.rate.isnan().all())
    assert words(axes_of(wild)) == "no run comes to rest linearly"


def halves(x):
    """Rests at 0, with rate 0.6 and a part that turns."""
    turn = torch.tensor([[0.0, 0.5], [-0.5, 0.0]], dtype=x.dtype)
    return torch.cat([0.6 * x[:, :1], x[:, 1:] @ turn], 1)


def test_eigenvalues_at_the_point_of_rest_are_those_of_the_map():
    start = testing.normal(2, 3, seed=0)
    rest = analysis.fixed_point_of(halves, start)
    real, imaginary = drawn(axes_of(rest), "eigenvalues of DT")
    each = sorted({(round(a, 9), round(b, 9)) for a, b in zip(real, imaginary, strict=True)})
    assert each == [(0.0, -0.5), (0.0, 0.5), (0.6, 0.0)]
    moves = analysis.fixed_point_of(lambda z: z + 1.0, start, max_iter=40)
    assert words(axes_of(moves)) == "no fixed point with a rate was found"


def test_a_basin_is_a_line_for_each_image():
    start = testing.normal(2, 3, seed=0)
    rest = analysis.fixed_point_of(halves, start)
    found = analysis.basin_of(halves, rest, start, radii=[0.1, 1.0], draws=20)
    axis = axes_of(found)
    shares = [line.get_ydata().tolist() for line in axis.lines[:2]]
    assert shares == found.share.T.tolist() and axis.get_xscale() == "log"
    none = replace(found, share=found.share * math.nan)
    assert words(axes_of(none)) == "no image rests, so that there is no basin"


# Errors -------------------------------------------------------------------------------------------


def bars(axis):
    names = [text.get_text() for text in axis.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in axis.patches], strict=True))


def test_bars_of_an_error_add_up_to_it(problem):
    budget = ErrorBudget({name: 0.1 * i for i, name in enumerate(PARTS, 1)}, doubled=1.0, m=100)
    assert bars(axes_of(budget)) == budget.parts
    p = problem
    split = analysis.split_error(p.A, p.S, p.x_true, p.y, npgd.NPGD(p.S, p.step_size, max_iter=4))
    shown = bars(axes_of(split))
    assert shown == pytest.approx({name: float(v.mean()) for name, v in split.parts.items()})
    assert sum(shown.values()) == pytest.approx(float(split.error.mean()), abs=1e-12)
