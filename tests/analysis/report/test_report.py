"""The report: its verdicts against sets whose constants are known, and what it writes."""

import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch

from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.report import Report, figures, tables, verify
from analysis.report.evidence import OWN
from analysis.testing import normal, random_affine_set, random_prior
from npgd.operators import Inpainting, MatrixOperator
from npgd.priors import GenerativePrior
from npgd.projectors import AffineSet, FiniteSet

SHAPE = (1, 6, 6)
SIZE = math.prod(SHAPE)
K = 3
SMALL = {
    "rec": RecSettings(points=60, tangent_points=8, search_starts=2, search_steps=5),
    "projection": ProjectionSettings(points=6, starts=2, steps=10),
    "n_iter": 8,
    "count": 3,
}


def affine() -> AffineSet:
    return random_affine_set(SHAPE, K)


def gaussian(m: int) -> MatrixOperator:
    return MatrixOperator(normal(m, SIZE, seed=2) / math.sqrt(m), SHAPE)


def network() -> GenerativePrior:
    return random_prior(SHAPE, K)


@pytest.fixture(scope="module")
def on_network() -> Report:
    return verify(gaussian(20), network(), **SMALL)


@pytest.fixture(scope="module")
def on_affine() -> Report:
    return verify(gaussian(200), affine(), **SMALL)


def verdicts(report: Report) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in report.findings}


def text(report: Report, subject: str) -> str:
    return next(f.text for f in report.findings if f.subject.startswith(subject))


def test_exact_set_with_a_good_operator(on_affine):
    """κ < 2, δ = 0, η = 1/β: every assumption but x_0 in S is met, and the bound holds."""
    singular = torch.linalg.svdvals(gaussian(200).matrix @ affine().orthonormal)
    assert float(on_affine.uniform.alpha[0]) == pytest.approx(float(singular[-1] ** 2))
    assert on_affine.settings["step_size"] == pytest.approx(float(1 / singular[0] ** 2))
    found = verdicts(on_affine)
    assert found["β/α < 2 on all of S"] == "met"
    assert found["β/α(x*) < 2, image by image"] == "met"
    assert found["step size η ≤ 1/β"] == "met"
    assert found["x* and x_0 in S"] == "x* yes, x_0 open"
    assert found["bound against iterates"] == "holds"
    assert found["one-step identity"] == "met"
    assert on_affine.projection.delta <= 1e-9 and on_affine.projection.exact
    assert on_affine.uniform.applies and on_affine.uniform.start == 1


def test_exact_set_with_a_poor_operator():
    report = verify(gaussian(4), affine(), **SMALL)
    assert report.rec.kappa >= 2
    assert verdicts(report)["β/α < 2 on all of S"] == "not met"
    assert "void" in text(report, "β/α < 2 on")
    assert verdicts(report)["bound against iterates"] == "void"


def test_start_in_the_range_meets_the_last_assumption():
    report = verify(gaussian(200), affine(), **SMALL, start="range")
    assert report.uniform.start == 0
    assert verdicts(report)["x* and x_0 in S"] == "met"


def test_finite_set():
    points = FiniteSet(normal(20, *SHAPE, seed=4))
    looks = verify(gaussian(60), points, **SMALL)
    assert looks.rec.exact and verdicts(looks)["bound against iterates"] == "void"
    i, j = torch.triu_indices(20, 20, 1)
    pairs = points.points[i] - points.points[j]
    ratios = gaussian(60)(pairs).square().sum(1) / pairs.flatten(1).square().sum(1)
    assert float(looks.uniform.kappa[0]) == pytest.approx(float(ratios.max() / ratios.min()))


def test_images_outside_the_range_are_noise():
    """For an affine set x̄ is the projection, and ‖v‖² is what A makes of the rest."""
    images = normal(4, *SHAPE, seed=5)
    report = verify(gaussian(200), affine(), images, **SMALL)
    best = affine().project(images)
    torch.testing.assert_close(report.target, best)
    torch.testing.assert_close(report.distance, (images - best).flatten(1).square().sum(1))
    torch.testing.assert_close(
        report.uniform.decomposition.noise, gaussian(200)(images - best).square().sum(1)
    )
    assert verdicts(report)["x* and x_0 in S"] == "not met"
    assert verdicts(report)["bound against iterates"] == "holds"
    assert "the images" in report.projection.families
    assert report.uniform.decomposition.residual.max() <= 1e-10


def test_added_noise_is_measured():
    report = verify(gaussian(200), affine(), **SMALL, noise=0.1)
    noise = report.uniform.decomposition.noise
    assert ((noise > 0.5 * 200 * 0.01) & (noise < 2 * 200 * 0.01)).all()
    assert "deviation 0.1" in text(report, "x* and x_0")
    assert verdicts(report)["bound against iterates"] == "holds"


def test_orthonormal_rows_bound_beta_but_are_not_the_sets_own():
    """‖A‖ = 1, so β ≤ 1; the β of S, and with it η = 1/β and κ(x*), is what S has."""
    report = verify(Inpainting(SHAPE, hole=4), network(), **SMALL)
    beta = float(report.uniform.beta[0])
    assert report.rec.beta_certain == 1 and beta == report.rec.beta < 1
    assert report.settings["step_size"] == pytest.approx(1 / beta)
    assert verdicts(report)["step size η ≤ 1/β"] == "not contradicted"
    assert (report.pointwise.kappa <= report.uniform.kappa).all()
    certain = verify(Inpainting(SHAPE, hole=4), network(), **SMALL, step_size=1.0)
    assert verdicts(certain)["step size η ≤ 1/β"] == "met"


def test_uniform_constants_are_never_better_than_an_images_own(on_network):
    assert (on_network.uniform.alpha <= on_network.pointwise.alpha).all()
    assert (on_network.uniform.beta >= on_network.pointwise.beta).all()
    own = on_network.projection.families[OWN]
    assert float(on_network.pointwise.delta.max()) == pytest.approx(own.delta)
    assert on_network.uniform.delta[0] >= on_network.pointwise.delta.max()


def test_same_seed_same_report(on_network):
    again = verify(gaussian(20), network(), **SMALL)
    assert again.findings == on_network.findings
    torch.testing.assert_close(again.solution.x, on_network.solution.x, rtol=0, atol=0)


def test_every_number_of_the_words_is_in_the_report(on_network):
    """A finding quotes nothing that the JSON does not hold, to the digits it quotes."""
    plain = on_network.to_dict()

    def numbers(value):
        if isinstance(value, dict):
            return [x for item in value.values() for x in numbers(item)]
        if isinstance(value, list):
            return [x for item in value for x in numbers(item)]
        return [float(value)] if isinstance(value, (int, float)) else []

    del plain["findings"]
    known = numbers(plain)
    kappa = [
        x for check in (on_network.uniform, on_network.pointwise) for x in check.kappa.tolist()
    ]
    known += [*kappa, 1 / on_network.settings["step_size"], 1 / on_network.operator["norm"] ** 2]
    quoted = re.findall(
        r"(?:κ ≥|found is|α ≤|β ≥|η =|δ ≥|κ\(x\*\) is at least) ([0-9.]+(?:e[-+]\d+)?)",
        on_network.summary,
    )
    assert len(quoted) >= 5
    for word in quoted:
        value = float(word.rstrip("."))
        assert any(math.isclose(value, number, rel_tol=1e-2) for number in known), word


def test_report_is_written_whole_and_not_over_another(on_network, tmp_path):
    directory = tmp_path / "new" / "report"
    written = on_network.write(directory)
    assert written == directory / "report.html"
    assert sorted(path.name for path in directory.iterdir()) == [
        "report.html", "report.json", "summary.txt",
    ]  # fmt: skip
    with pytest.raises(FileExistsError, match=r"report\.html"):
        on_network.write(directory)
    (directory / "report.html").write_text("old")
    on_network.write(directory, force=True)
    assert written.read_text(encoding="utf-8").startswith("<!doctype html>")
    content = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    assert [f["subject"] for f in content["findings"]] == [f.subject for f in on_network.findings]
    assert (directory / "summary.txt").read_text(encoding="utf-8") == on_network.summary + "\n"


class Page(HTMLParser):
    """Tags that are open, and what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words = ""

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_page_is_self_contained_and_complete(on_network):
    parsed = Page()
    parsed.feed(on_network.to_html())
    assert parsed.open == []
    assert all(re.match("data:image/|#", source) for source in parsed.sources)
    for finding in on_network.findings:
        assert all(said in parsed.words for said in finding.sentences)


def test_figures_draw_the_reports_numbers(on_network):
    (axis,) = figures.draw_bounds(on_network).axes
    lines = {line.get_label(): line.get_ydata() for line in axis.get_lines()}
    seen = on_network.solution.objective / on_network.solution.objective[1]
    torch.testing.assert_close(
        torch.as_tensor(lines["iterates, median"]), seen.median(1).values, rtol=1e-6, atol=0
    )
    assert axis.get_yscale() == "log"
    assert figures.svg(figures.draw_slack(on_network)) == figures.svg(
        figures.draw_slack(on_network)
    )


@pytest.mark.parametrize("report", ["on_network", "on_affine"])
def test_tables_have_a_row_for_every_image(report, request):
    report = request.getfixturevalue(report)
    _, head, rows, _ = tables.images_table(report)
    assert len(rows) == report.settings["count"] + 1
    assert all(len(row) == len(head) for row in rows)
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table())
    assert "κ(x*)" in console.export_text()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"step_size": "fast"}, "step_size"),
        ({"step_size": -1.0}, "step_size"),
        ({"n_iter": 1}, "n_iter"),
        ({"noise": -0.1}, "noise"),
        ({"start": "anywhere"}, "start"),
        ({"images": torch.zeros(2, 1, 5, 6, dtype=torch.float64)}, "images"),
        ({"images": torch.zeros(0, *SHAPE, dtype=torch.float64)}, "images"),
        ({"images": torch.zeros(2, K + 1, dtype=torch.float64)}, "images"),
        ({"count": 0}, "count"),
        ({"effort": "none"}, "effort"),
        ({"effort": "none", "rec": None}, "effort"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arguments_are_examined(change, name):
    with pytest.raises(ValueError, match=name):
        verify(gaussian(10), affine(), **(SMALL | change))


def test_matplotlib_is_loaded_only_to_draw():
    code = (
        "import analysis.report, analysis.report.page, sys; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
