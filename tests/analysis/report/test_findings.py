"""Every sentence of a report is chosen by the numbers that it speaks of."""

import html
import math
import re
from dataclasses import replace

import pytest
import torch

import npgd
from analysis.projection import FamilyError, ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.report import Report, drawings, verify
from analysis.report.evidence import OWN
from analysis.report.findings import periods
from analysis.testing import normal, random_affine_set, random_prior
from npgd.operators import MatrixOperator

SHAPE = (1, 6, 6)
SIZE = math.prod(SHAPE)
K = 3
SMALL = {
    "rec": RecSettings(points=60, tangent_points=8, search_starts=2, search_steps=5),
    "projection": ProjectionSettings(points=6, starts=2, steps=40),
    "n_iter": 8,
    "count": 3,
}
RESTS_ON_A = ("β/α < 2", "β/α(x*) < 2", "step size", "bound against", "where the bound", "one-step")


def gaussian(m: int) -> MatrixOperator:
    return MatrixOperator(normal(m, SIZE, seed=2) / math.sqrt(m), SHAPE)


@pytest.fixture(scope="module")
def affine() -> Report:
    """κ < 2, exactly."""
    return verify(gaussian(200), random_affine_set(SHAPE, K), **SMALL)


@pytest.fixture(scope="module")
def poor() -> Report:
    """κ ≥ 2, exactly."""
    return verify(gaussian(4), random_affine_set(SHAPE, K), **SMALL)


@pytest.fixture(scope="module")
def network() -> Report:
    """κ ≥ 2 by what was found."""
    return verify(gaussian(20), random_prior(SHAPE, K), **SMALL)


@pytest.fixture(scope="module")
def good_network() -> Report:
    """κ < 2 as far as was looked."""
    return verify(gaussian(200), random_prior(SHAPE, K), **SMALL)


def finding(report: Report, subject: str):
    return next(f for f in report.findings if f.subject.startswith(subject))


def number(text: str, before: str) -> float:
    """The number that stands behind some words."""
    found = re.search(re.escape(before) + r"\s*([0-9.]+(?:e[-+]?\d+)?)", text)
    assert found is not None, (before, text)
    return float(found[1].rstrip("."))


# κ: finding 1 and finding 2 ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_no_image_has_a_larger_kappa_than_the_set(seed):
    """κ(x*) ≤ κ; on an affine set they are equal, also under an operator of orthonormal rows."""
    S = random_affine_set((1, 8, 8), 3, seed=seed)
    A = npgd.whiten(npgd.Gaussian((1, 8, 8), 24, seed=seed))
    report = verify(A, S, **SMALL)
    singular = torch.linalg.svdvals(A.double()(S.orthonormal.T.reshape(-1, 1, 8, 8)))
    kappa = float((singular[0] / singular[-1]) ** 2)
    assert float(report.uniform.kappa.max()) == pytest.approx(kappa, rel=1e-6)
    assert report.pointwise.kappa.tolist() == pytest.approx([kappa] * 3, rel=1e-6)
    assert report.settings["step_size"] == pytest.approx(float(1 / singular[0] ** 2), rel=1e-6)
    verdict = "met" if kappa < 2 else "not met"
    assert finding(report, "β/α <").verdict == finding(report, "β/α(x*)").verdict == verdict
    assert finding(report, "step size").verdict == "met"


def test_what_is_printed_as_a_lower_bound_is_one():
    """Orthonormal rows bound β by 1; what was found on the set is smaller, and κ ≥ goes by it."""
    A = npgd.whiten(npgd.Gaussian((1, 8, 8), 24, seed=0))
    report = verify(A, random_prior((1, 8, 8), 3, seed=0), **SMALL)
    alpha, beta = float(report.uniform.alpha.min()), float(report.uniform.beta.max())
    assert beta < 0.9 and beta == max(look.beta for look in report.rec.looks.values())
    text = finding(report, "β/α <").text
    assert number(text, "In all, κ ≥") <= beta / alpha
    assert number(text, "β ≥") <= beta and number(text, "α ≤") >= alpha
    assert (report.pointwise.kappa <= report.uniform.kappa).all()
    assert number(finding(report, "β/α(x*)").text, "at least") <= float(
        report.pointwise.kappa.min()
    )


def found_at_an_image(monkeypatch, ratio):
    """A report for which the search from the second image found `ratio(rec)`."""
    from analysis.report import verification

    found = verification.estimate_rec

    def changed(*args, **kwargs):
        rec = found(*args, **kwargs)
        alpha = rec.pointwise.alpha.copy()
        alpha[1] = ratio(rec)
        return replace(rec, pointwise=replace(rec.pointwise, alpha=alpha))

    monkeypatch.setattr(verification, "estimate_rec", changed)
    return verify(gaussian(20), random_prior(SHAPE, K), **SMALL)


def test_an_images_own_secants_count_for_beta(monkeypatch):
    """(x, x̄) is a secant of S: where all of them exceed the β found, β is what the least has."""
    report = found_at_an_image(monkeypatch, lambda rec: 1.5 * rec.beta)
    assert (report.uniform.beta == 1.5 * report.rec.beta).all()
    assert report.uniform.step_size == 1 / (1.5 * report.rec.beta)


def test_an_images_own_alpha_counts_for_the_set(monkeypatch):
    """(x, x̄) is a secant of S: α ≤ α(x̄), whatever the other looks found."""
    report = found_at_an_image(monkeypatch, lambda rec: rec.alpha / 7)
    assert float(report.uniform.alpha.max()) == report.rec.alpha / 7
    assert number(finding(report, "β/α <").text, "α ≤") >= report.rec.alpha / 7
    assert number(finding(report, "β/α <").text, "α ≤") < report.rec.alpha / 6


def test_an_exact_set_is_met_or_not_and_says_so(affine, poor):
    assert finding(affine, "β/α <").verdict == "met"
    assert "exact constants" in finding(affine, "β/α <").text
    assert "void" not in finding(affine, "β/α <").text + finding(affine, "β/α(x*)").text
    assert finding(poor, "β/α <").verdict == "not met"
    assert "void" in finding(poor, "β/α <").text
    assert "void for all 3 images" in finding(poor, "β/α(x*)").text
    assert "below 2 for none of 3 images" in finding(poor, "β/α(x*)").text


def test_what_was_only_looked_at_is_never_met(network, good_network):
    assert finding(good_network, "β/α <").verdict == "not contradicted"
    assert "Directions not looked at may have more" in finding(good_network, "β/α <").text
    assert finding(good_network, "β/α(x*)").verdict == "not contradicted"
    assert finding(network, "β/α <").verdict == "not met"
    assert "exact" not in finding(network, "β/α <").text + finding(network, "β/α(x*)").text


def with_kappa(report: Report, kappa: float, uniform: float | None = None) -> Report:
    """The same report, had κ(x*), and κ, come out so."""
    own, all_S = report.pointwise, report.uniform
    own = replace(own, alpha=own.beta / kappa, rate=torch.full_like(own.rate, kappa - 1))
    uniform = kappa if uniform is None else uniform
    all_S = replace(
        all_S, alpha=all_S.beta / uniform, rate=torch.full_like(all_S.rate, uniform - 1)
    )
    return replace(report, uniform=all_S, pointwise=own)


@pytest.mark.parametrize("kappa", [1.9996, 1.99999, 2.0, 2.0001, 17.0])
@pytest.mark.parametrize("name", ["affine", "network"])
def test_the_verdict_and_the_number_stand_on_the_same_side_of_two(name, kappa, request):
    report = with_kappa(request.getfixturevalue(name), kappa)
    for subject, before in (("β/α <", "β/α = "), ("β/α(x*)", "is ")):
        f = finding(report, subject)
        assert (f.verdict == "not met") == (kappa >= 2)
        if report.rec.exact:
            assert (number(f.text, before) < 2) == (kappa < 2)
        elif kappa < 2 and subject == "β/α <":
            assert number(f.text, "found is") < 2
        assert ("void" in f.text) == (kappa >= 2)


def test_no_look_alone_but_all_together(network):
    """α by one look and β by another."""
    looks = {
        name: replace(look, alpha=alpha, beta=beta)
        for (name, look), (alpha, beta) in zip(
            network.rec.looks.items(), [(1, 1.5), (0.8, 1.1), (0.9, 1.2)], strict=False
        )
    }
    report = with_kappa(replace(network, rec=replace(network.rec, looks=looks)), 1.8, uniform=2.2)
    assert (
        "No look by itself gives κ = β/α ≥ 2, but α of one with β of another"
        in finding(report, "β/α <").text
    )


def test_a_direction_that_A_does_not_see_makes_kappa_infinite():
    """m < k: α = 0 and κ = ∞, in both findings, the tables and the bound, by no stand-in."""
    for S in (random_prior(SHAPE, K), random_affine_set(SHAPE, K)):
        report = verify(gaussian(2), S, **SMALL)
        assert report.uniform.alpha.tolist() == [0] * 3
        assert report.uniform.kappa.isinf().all() and report.pointwise.kappa.isinf().all()
        for subject in ("β/α <", "β/α(x*)"):
            assert finding(report, subject).verdict == "not met"
            assert "∞" in finding(report, subject).text
            assert "≤ 0" not in finding(report, subject).text
        assert report.uniform.bound[2:].isinf().all() and report.uniform.holds
        assert "alpha" not in report.uniform.broken
        assert "no finite slack" in finding(report, "where the bound").text
        for shown in (report.summary, report.to_html().split("<section id='settings'")[0]):
            assert not re.search(r"e\+(?:[12]\d|3\d)\b", re.sub(r"base64,[^']*", "", shown))
        assert "infinite bound is not drawn" in drawings.BOUNDS.caption(report)
        assert "none to draw" in drawings.BOUNDS.instead(report)


# The step ----------------------------------------------------------------------------------------


def at_step(report: Report, eta: float) -> Report:
    return replace(report, uniform=replace(report.uniform, step_size=eta))


def test_the_step_is_judged_by_what_is_known_of_beta(affine, network):
    beta = float(affine.uniform.beta.max())
    exact = finding(at_step(affine, 1 / beta), "step size")
    assert exact.verdict == "met"
    assert number(exact.text, "1/β =") == pytest.approx(1 / beta, rel=1e-3)
    too_long = finding(at_step(affine, 1.001 / beta), "step size")
    assert too_long.verdict == "not met" and "1/β = " in too_long.text
    found, certain = float(network.uniform.beta.max()), network.rec.beta_certain
    assert found < certain
    assert finding(at_step(network, 1 / certain), "step size").verdict == "met"
    printed = number(finding(at_step(network, 1 / certain), "step size").text, "‖A‖² =")
    assert printed == pytest.approx(certain, rel=1e-3)
    between = finding(at_step(network, 1 / found), "step size")
    assert between.verdict == "not contradicted"
    assert number(between.text, "Only η ≤") <= 1 / certain
    too_long = finding(at_step(network, 1.001 / found), "step size")
    assert too_long.verdict == "not met"
    assert number(too_long.text, "1/β ≤") >= 1 / found


# x* and x_0 --------------------------------------------------------------------------------------


def test_images_are_counted_not_their_median():
    S = random_affine_set(SHAPE, K)
    inside, far = S.sample(7, seed=1), normal(5, *SHAPE, seed=2)
    report = verify(gaussian(200), S, torch.cat([inside, far]), **SMALL)
    f = finding(report, "x* and x_0")
    assert f.verdict == "not met"
    assert "7 of 12 images lie in S" in f.text and "5 of 12 images lie outside S" in f.text
    distances = (far - S.project(far)).flatten(1).square().sum(1)
    low, high = re.search(r"‖x\* − x̄‖² = (\S+) to (\S+) there", f.text).groups()
    assert float(low) == pytest.approx(float(distances.min()), rel=5e-3)
    assert float(high) == pytest.approx(float(distances.max()), rel=5e-3)
    assert report.inside.tolist() == [True] * 7 + [False] * 5


@pytest.mark.parametrize("share", [1e-6, 1e-3, 0.05])
def test_near_is_not_in(share):
    """‖x* − x̄‖² of any share of ‖x*‖² above rounding is outside."""
    S = random_affine_set(SHAPE, K)
    x = S.sample(3, seed=1)
    away = normal(3, *SHAPE, seed=4)
    away = away - (S.project(away) - S.project(torch.zeros_like(away)))  # normal to S
    size = (x.flatten(1).square().sum(1) / away.flatten(1).square().sum(1)).sqrt()
    report = verify(
        gaussian(200), S, x + math.sqrt(share) * size[:, None, None, None] * away, **SMALL
    )
    assert not report.inside.any()
    assert finding(report, "x* and x_0").verdict == "not met"


def test_a_search_that_found_nothing_nearer_is_not_called_certain():
    report = verify(gaussian(200), random_prior(SHAPE, K), normal(2, *SHAPE), **SMALL)
    f = finding(report, "x* and x_0")
    assert f.verdict == "not found"
    assert "no point of S nearer than x̄ was found" in f.text and "outside" not in f.text
    assert not report.nearest.any()


@pytest.mark.parametrize("form", ["images", "latents"])
def test_samples_given_back_are_found_in_the_set(form):
    """x* = G(z): by latents for certain, by its image as far as the search goes."""
    prior = random_prior(SHAPE, K)
    z = normal(4, K, seed=3)
    report = verify(
        gaussian(20), prior, prior.generate(z) if form == "images" else z, **SMALL, start="range"
    )
    f = finding(report, "x* and x_0")
    assert f.verdict == "met" and "All 4 images lie in S" in f.text
    torch.testing.assert_close(report.target, prior.generate(z))
    assert report.settings["images"] == form
    assert report.settings["count"] == 4


def test_noise_is_spoken_of_where_there_is_noise(affine):
    assert "oise" not in finding(affine, "x* and x_0").text
    S = random_affine_set(SHAPE, K)
    noisy = verify(gaussian(200), S, **SMALL, noise=0.1)
    text = finding(noisy, "x* and x_0").text
    assert "Noise of standard deviation 0.1" in text and "counts as noise" not in text
    assert number(text, "‖v‖² = ‖y − A x̄‖² is") == pytest.approx(200 * 0.01, rel=0.3)
    off = verify(gaussian(200), S, normal(3, *SHAPE), **SMALL)
    text = finding(off, "x* and x_0").text
    assert "counts as noise" in text and "standard deviation" not in text


# The projector -----------------------------------------------------------------------------------


def test_delta_counts_the_late_points_of_the_run_too():
    """‖x_{n+1} − w_n‖² of a run is ‖w_n − P(w_n)‖²: the last w_n is among the family."""
    S = random_affine_set(SHAPE, K)
    A = gaussian(20)
    settings = SMALL | {"projection": ProjectionSettings(points=24, starts=1, steps=1)}
    report = verify(A, S, normal(3, *SHAPE, seed=8), **settings, step_size=0.01)
    x, y = report.solution.iterates, A(report.images)
    w = [x_n - 0.01 * A.adjoint(A(x_n) - y) for x_n in x[:-1]]
    expected = torch.stack([(x[n + 1] - w[n]).flatten(1).square().sum(1) for n in range(len(w))])
    family = report.projection.families[OWN].achieved.reshape(-1, 3)
    torch.testing.assert_close(family[0], expected[1])
    torch.testing.assert_close(family[-1], expected[-1])
    assert (family[0] - family[-1]).abs().min() > 1e-3 * expected[1].max()


def test_an_images_own_delta_is_the_largest_of_its_points(network):
    deltas = network.projection.families[OWN].deltas.reshape(-1, 3)
    assert (deltas.amax(0) > deltas[0].clamp_min(0)).any()
    torch.testing.assert_close(network.pointwise.delta, deltas.clamp_min(0).amax(0))


def test_delta_of_nothing_makes_no_sentence_about_a_floor(affine):
    text = finding(affine, "projector").text
    assert "δ = 0 to rounding" in text and "promises no better" not in text
    assert "The bound ends at x̄, to rounding, for all 3 images." in text


def test_delta_that_is_there_is_said_outward(network):
    family = network.projection.families[OWN]
    family = FamilyError(family.achieved + 1.23456, family.achieved, exact=False)
    error = replace(network.projection, families=network.projection.families | {OWN: family})
    text = finding(replace(network, projection=error), "projector").text
    assert float(re.search(r"(\S+) at the worst", text)[1]) <= 1.23456
    if network.pointwise.floor.isinf().all():
        assert "promises" not in text


# What the iterates did ---------------------------------------------------------------------------


def test_rest_circles_and_motion_are_told_apart():
    """Iterates of period 1, 2 and 3, and one that never repeats."""
    n = torch.arange(13)
    x = torch.stack([torch.ones(13), n % 2, n % 3, n**2 / 7.0], 1).double() + 1
    iterates = x[:, :, None, None, None].expand(-1, -1, *SHAPE) * normal(*SHAPE)
    assert periods(iterates) == [1, 2, 3, None]
    assert periods(iterates[:2, :1]) == [1]


def rested(report: Report, rows: torch.Tensor) -> str:
    iterates = rows.double()[:, :, None, None, None].expand(-1, -1, *SHAPE).contiguous()
    solution = replace(report.solution, iterates=iterates)
    return finding(replace(report, solution=solution), "what the iterates did").text


def test_a_report_says_who_came_to_rest_and_who_circles(affine):
    n = torch.arange(13)
    still, circle, away = torch.ones(13), 2 + n % 3, 1.0 + n**2
    assert "After 12 iterations all 3 images are at rest." in rested(
        affine, torch.stack([still, still, still], 1)
    )
    text = rested(affine, torch.stack([still, circle, away], 1))
    assert "1 of 3 images came to rest, 1 goes round with period 3, 1 still moves" in text
    assert number(text, "in the last step by") == pytest.approx(23 / 145, rel=1e-2)
    text = rested(affine, torch.stack([away, 1.0 + n, away], 1))
    assert "in the last step by 0.0769 to 0.159 of their length" in text  # 1/13 and 23/145
    assert (
        "After 12 iterations all 3 images still move, in the last step by" in text
        and "round" not in text
    )


def test_images_without_a_rate_are_counted(affine):
    observed = affine.uniform.observed
    some = replace(observed, reasons=("", "it rises", ""))
    report = replace(affine, uniform=replace(affine.uniform, observed=some))
    assert "No rate is seen for 1 of 3 images.\n   Of image 1, it rises." in report.summary
    two = replace(observed, reasons=("", "it rises", "it rests"))
    report = replace(affine, uniform=replace(affine.uniform, observed=two))
    assert "for 2 of 3 images.\n   Of image 1, it rises." in report.summary
    every = replace(observed, reasons=("", "", ""))
    report = replace(affine, uniform=replace(affine.uniform, observed=every))
    assert "No rate is seen" not in report.summary


def test_a_run_that_leaves_the_finite_numbers_is_told_as_far_as_it_went():
    """η far too long on an affine set: e_n grows by a factor of about η per step."""
    report = verify(
        gaussian(20), random_affine_set(SHAPE, K), **(SMALL | {"n_iter": 60}), step_size=1e8
    )
    assert "All 3 images diverged" in finding(report, "what the iterates did").text
    assert report.solution.iterates.isfinite().all()
    assert report.to_html() and report.to_dict()


# Bound, gap, recovery ----------------------------------------------------------------------------


def test_a_gap_is_split_only_where_there_is_one(affine, network):
    text = finding(affine, "where the bound").text
    said = next(said for said in text.split(". ") if "all of S" in said)
    parts = [float(share) for share in re.findall(r"(-?\d+) %", said)]
    assert sum(parts) == pytest.approx(100, abs=2)
    slack = affine.uniform.slack
    broken = replace(slack, alpha=slack.alpha - slack.gap, delta=slack.delta + slack.gap)
    report = replace(affine, uniform=replace(affine.uniform, slack=broken))
    assert "A negative part" in finding(report, "where the bound").text
    assert "A negative part" not in text
    none = replace(slack, gap=0 * slack.gap)
    report = replace(affine, uniform=replace(affine.uniform, slack=none))
    assert (
        finding(report, "where the bound").text == "The bound ends at the objective, to rounding."
    )


@pytest.mark.parametrize("name", ["affine", "poor", "network", "good_network"])
def test_no_advice_is_given_that_nothing_measured(name, request):
    findings = request.getfixturevalue(name).findings
    summary = " ".join(str(finding) for finding in findings)
    for word in ("would", "try ", "mending", "tol = 0"):
        assert word not in summary.replace("would be certain", "")


def test_recovery_of_nothing_finite_or_nothing_wrong(affine):
    def with_error(values):
        error = affine.solution.error.clone()
        error[-1] = torch.tensor(values)
        return finding(
            replace(affine, solution=replace(affine.solution, error=error)), "recovery"
        ).text

    assert with_error([math.nan] * 3) == "No image has a finite error at the end."
    assert "not finite for 1 of 3 images" in with_error([math.nan, 0.04, 0.04])
    assert "is 0.0202, 30.0 dB (means)" in with_error([math.nan, 0.04, 0.0004])
    assert "237.0 dB" not in with_error([1e-23] * 3) and "236.0 dB" in with_error([1e-23] * 3)
    for nothing in (1e-26, 0.0):
        assert f"{nothing:g}, exact to rounding" in with_error([nothing] * 3)


# The precondition --------------------------------------------------------------------------------


class Quadratic(MatrixOperator):
    """A x + 0.001 (A x)²."""

    def forward(self, x):
        y = super().forward(x)
        return y + 1e-3 * y**2


class Shifted(MatrixOperator):
    """A x + 1."""

    def forward(self, x):
        return super().forward(x) + 1


class Scaled(MatrixOperator):
    """Aᵀ with one row doubled."""

    def adjoint(self, y):
        return super().adjoint(torch.cat([2 * y[:, :1], y[:, 1:]], 1))


class Single(MatrixOperator):
    """A in float32, whatever comes."""

    def forward(self, x):
        return (x.flatten(1).float() @ self.matrix.float().T).double()

    def adjoint(self, y):
        return (y.float() @ self.matrix.float()).double().reshape(-1, *SHAPE)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Quadratic, "A is not linear"), (Shifted, "A is not linear"), (Scaled, "not the transpose")],
)
def test_a_failed_precondition_comes_first_and_silences_what_rests_on_it(kind, words):
    report = verify(kind(gaussian(40).matrix, SHAPE), random_affine_set(SHAPE, K), **SMALL)
    first, *others = report.findings
    assert first.verdict == "not met" and words in first.text
    assert first.subject == "A is linear and Aᵀ its transpose"
    assert [f.subject for f in others if f.subject.startswith(RESTS_ON_A)] == []
    assert all(f.verdict != "met" or f.subject.startswith("x*") for f in others)
    page = report.to_html()
    assert "Restricted eigenvalues" not in page and "Bound and iterates" not in page
    assert "Projector error" in page and "exact constants" not in page


def test_float32_is_said_and_silences_nothing():
    report = verify(Single(gaussian(40).matrix, SHAPE), random_affine_set(SHAPE, K), **SMALL)
    assert len(report.findings) == 10
    last = report.findings[-1]
    assert last.subject == "one-step identity" and last.verdict == "low precision"
    assert 1e-8 < number(last.text, "to a relative") < 1e-5


@pytest.mark.parametrize(
    ("residual", "verdict"),
    [(1e-16, "met"), (9e-11, "met"), (1e-9, "low precision"), (1e-4, "first"), (math.nan, "first")],
)
def test_the_identity_is_met_to_rounding_or_not_at_all(affine, residual, verdict):
    parts = affine.uniform.decomposition
    parts = replace(parts, residual=torch.full_like(parts.residual, residual))
    report = replace(affine, uniform=replace(affine.uniform, decomposition=parts))
    if verdict == "first":
        assert report.findings[0].verdict == "not met" and len(report.findings) == 5
        assert "the identity does not close" in report.findings[0].text.lower() or (
            math.isnan(residual)
        )
    else:
        assert finding(report, "one-step").verdict == verdict
        assert len(report.findings) == 10


# The door ----------------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    """G(z) = 1."""

    latent_dim, image_shape = K, SHAPE

    def generate(self, z):
        return torch.ones(len(z), *SHAPE, dtype=z.dtype)

    def encode(self, w):
        return w.new_zeros(len(w), K)

    def project(self, w):
        return torch.ones_like(w)

    def sample(self, n, generator=None, seed=None):
        return torch.ones(n, *SHAPE, dtype=torch.float64)


class Lost(torch.nn.Module):
    """G† that knows nothing."""

    def forward(self, w):
        return w.flatten(1)[:, :K] * math.nan


def test_what_cannot_be_measured_is_refused_in_a_sentence():
    S, prior = random_affine_set(SHAPE, K), random_prior(SHAPE, K)
    zero = MatrixOperator(torch.zeros(4, SIZE, dtype=torch.float64), SHAPE)
    normal_to_S = torch.eye(SIZE, dtype=torch.float64) - S.orthonormal @ S.orthonormal.T
    one = npgd.FiniteSet(normal(1, *SHAPE))
    lost = npgd.GenerativePrior(prior.generator, Lost(), K, SHAPE)
    for A, over, message in (
        (zero, prior, "A must not be zero"),
        (MatrixOperator(normal_to_S[:9], SHAPE), S, "A must see some direction of S"),
        (gaussian(9), one, "prior must hold two different images"),
        (gaussian(9), Constant(), "prior must hold two different images"),
        (gaussian(9), lost, "prior must project to finite images"),
    ):
        with pytest.raises(ValueError, match=message):
            verify(A, over, **SMALL)


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_and_a_set_of_two_points_have_reports(count):
    report = verify(gaussian(20), npgd.FiniteSet(normal(2, *SHAPE)), **(SMALL | {"count": count}))
    assert report.rec.kappa == 1 and finding(report, "β/α <").verdict == "met"
    assert len(report.findings) == 10 and report.to_html()
    zero = verify(
        gaussian(20), random_prior(SHAPE, K), torch.zeros(count, *SHAPE).double(), **SMALL
    )
    assert zero.to_html() and zero.to_dict()


def test_unknown_settings_of_the_run_are_named():
    with pytest.raises(TypeError, match="got points, tol"):
        verify(gaussian(9), random_affine_set(SHAPE, K), points=3, tol=1)


@pytest.mark.parametrize(
    ("effort", "looks", "projection"),
    [("quick", (1000, 60, 8, 40), (8, 2, 40)), ("default", (3000, 300, 16, 80), (24, 3, 100))],
)
def test_the_effort_chooses_how_far_to_look_and_is_recorded(effort, looks, projection, monkeypatch):
    from analysis.report import verification

    monkeypatch.setattr(verification, "estimate_rec", lambda A, S, rec, **more: _stop(rec))
    with pytest.raises(StopIteration) as stopped:
        verify(gaussian(9), random_affine_set(SHAPE, K), effort=effort)
    rec = stopped.value.value
    assert (rec.points, rec.tangent_points, rec.search_starts, rec.search_steps) == looks
    chosen = ProjectionSettings.of(effort)
    assert (chosen.points, chosen.starts, chosen.steps) == projection


def _stop(value):
    raise StopIteration(value)


def test_every_setting_is_in_the_report(affine):
    settings = affine.to_dict()["settings"]
    assert settings["effort"] == "default, but rec and projection as given"
    assert settings["n_iter"] == 8 and settings["seed"] == 0
    assert settings["points"] == 60 and settings["looks"] == list(SMALL["rec"].looks)
    assert settings["projection_points"] == 6 and settings["projection_starts"] == 2
    page = affine.to_html()
    for name, value in settings.items():
        words = "none" if value is None else value if isinstance(value, str) else str(value)
        words = ", ".join(value) if isinstance(value, list) else words
        assert re.search(rf">{name}</th><td[^>]*>{re.escape(html.escape(words))}<", page)


def test_captions_speak_of_what_is_drawn(affine, poor):
    captions = {drawing.title: drawing.caption(affine) for drawing in drawings.FIGURES}
    assert "leaves the picture" not in captions["Bound and iterates"]
    assert "negative" not in captions["Where the bound loses"]
    assert "each exact" in captions["Projector error"]
    assert "the exact constants" in captions["How much A shortens the directions of S"]
    none = torch.full_like(affine.uniform.slack.gap, math.inf)
    slackless = replace(affine.uniform, slack=replace(affine.uniform.slack, gap=none, alpha=none))
    slackless = replace(affine, uniform=slackless, pointwise=slackless)
    assert drawings.SLACK.instead(slackless).startswith("There is no finite slack")
    far = replace(poor.uniform, bound=poor.uniform.bound * 1e12)
    assert "leaves the picture" in drawings.BOUNDS.caption(replace(poor, uniform=far))
