"""What results show of themselves: short in a terminal, escaped in a notebook, drawn when asked."""

import base64
import io
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

import npgd
from npgd.showing import MOST_CHARACTERS, MOST_LINES, Drawn, Shown, brief, cut, plain_log


@dataclass(frozen=True, eq=False)
class Fields(Shown):
    values: torch.Tensor
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Worded(Shown):
    text: str

    def __str__(self):
        return self.text


@dataclass(frozen=True)
class Line(Drawn):
    slope: float = 1.0

    def draw(self, axis):
        axis.plot([0, 1], [0, self.slope])


def within(text):
    return len(text.splitlines()) <= MOST_LINES and len(text) <= MOST_CHARACTERS


@pytest.mark.parametrize("lines", [1, MOST_LINES, MOST_LINES + 1, 10_000])
@pytest.mark.parametrize("width", [1, 104, 10_000])
def test_a_repr_has_one_screen_and_is_whole_where_it_fits(lines, width):
    text = "\n".join(["x" * width] * lines)
    shown = repr(Worded(text))
    assert within(shown)
    assert shown == text if within(text) else f"{lines} lines in all" in shown
    assert str(Worded(text)) == text


def test_tensors_and_long_lists_are_told_not_printed():
    shown = repr(Fields(torch.zeros(300, 40), ("a",) * 500))
    assert shown == "Fields(values=float32 of shape (300, 40), names=tuple of 500)"
    assert brief([0.5] * 7 + [2.0]) == "8 numbers from 0.5 to 2"
    assert within(cut(repr(Fields(torch.zeros(3), tuple(str(i) * 900 for i in range(6))))))


def test_a_notebook_shows_text_as_text():
    assert "<script>" not in Worded("<script>&")._repr_html_()
    assert "&lt;script&gt;&amp;" in Worded("<script>&")._repr_html_()


@pytest.fixture(scope="module")
def solution():
    prior = npgd.load_prior("mnist")
    A = npgd.Gaussian(prior.image_shape, m=60, seed=0)
    x = prior.sample(10, seed=1)
    return npgd.recover(A, A(x), npgd.NPGD(prior, max_iter=2), x_true=x)


def test_a_solution_in_a_notebook_has_small_pictures_of_its_images(solution):
    page = solution._repr_html_()
    assert page.count("<img ") == 8 and "and 2 more" in page
    first = page.partition("base64,")[2].partition('"')[0]
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(base64.b64decode(first))))).flatten()
    assert (pixels / 127.5 - 1 - solution.x[0].flatten()).abs().max() < 1 / 127
    assert f"{float(solution.psnr[0]):.4g}" in page


def test_what_is_drawn_stands_on_the_axes_that_are_given(solution):
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert solution.plot(left) is figure and Line(2.0).plot(right) is figure
    assert left.lines and list(right.lines[0].get_ydata()) == [0, 2]
    assert solution.plot()._repr_png_().startswith(b"\x89PNG")


def test_no_result_imports_matplotlib_before_it_is_drawn():
    code = "import sys, npgd; npgd.Solution; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_priors_operators_and_solvers_say_what_they_are():
    prior = npgd.load_prior("church")
    A = npgd.Inpainting(prior.image_shape, hole=3)
    solvers = (npgd.NPGD(prior), npgd.TotalVariation())
    sets = (prior, npgd.LatentSearch(prior))
    for value in (A, *solvers, *sets, npgd.Reconstructor(npgd.AMP(prior))):
        assert within(repr(value)) and type(value).__name__ in repr(value)
    assert "church" in repr(npgd.NPGD(prior)) and "m=7" in repr(npgd.Gaussian((1, 4, 4), m=7))
    results = (npgd.load_denoiser(), npgd.load_onenet(), npgd.prior_card("mnist"))
    for value in results:
        assert within(repr(value)) and "<" in value._repr_html_()
    assert npgd.prior_card("mnist")["latent_dim"] == 20 and "latent_dim: 20" in repr(results[2])


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [
        (30, 600, ["50", "100", "200", "500"]),
        (2e-6, 9e-6, ["2·10⁻⁶", "4·10⁻⁶", "6·10⁻⁶", "8·10⁻⁶"]),
        (9, 11, ["9", "9.5", "10", "10.5", "11"]),
        (0.02, 5e3, ["0.1", "1", "10", "100", "1,000"]),
        (1e-6, 1e-4, ["10⁻⁶", "2·10⁻⁶", "5·10⁻⁶", "10⁻⁵", "2·10⁻⁵", "5·10⁻⁵", "10⁻⁴"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(low, high, numbers):
    """None reads 6 × 10²; a tick stands at what it says."""
    from matplotlib.figure import Figure

    axis = Figure(figsize=(6, 6)).subplots()
    plain_log(axis.yaxis)
    axis.set_ylim(low, high)
    places = [place for place in axis.yaxis.get_majorticklocs() if low <= place <= high]
    shown = axis.yaxis.get_major_formatter().format_ticks(places)
    assert shown == numbers
    for place, text in zip(places, shown, strict=True):
        text = text.replace(",", "")
        factor, _, power = text.rpartition("10") if "⁻" in text else (text, "", "")
        exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
        assert float(factor.rstrip("·") or 1) * 10.0**exponent == pytest.approx(place)
    assert not any(axis.yaxis.get_minor_formatter()(place, 0) for place in (low, high))
