"""The page: what stands on it, in what order, for whom; and how it looks in a browser."""

import functools
import html
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from analysis.drawing import COLOURS
from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.report import Report, drawings, markup, pictures, symbols, verify
from analysis.testing import normal, random_affine_set, random_prior
from npgd.operators import Inpainting, MatrixOperator
from npgd.projectors import FiniteSet

SHAPE = (1, 6, 6)
SIZE = math.prod(SHAPE)
SMALL = {
    "rec": RecSettings(points=60, tangent_points=8, search_starts=2, search_steps=5),
    "projection": ProjectionSettings(points=6, starts=2, steps=10),
    "n_iter": 8,
    "count": 6,
    "effort": "quick",
}
WORDS = Path(__file__).parents[3] / "docs" / "words.md"


def gaussian(m: int) -> MatrixOperator:
    return MatrixOperator(normal(m, SIZE, seed=2) / math.sqrt(m), SHAPE)


class Bent(MatrixOperator):
    """Not linear."""

    def _forward(self, x):
        return super()._forward(x) + x.square().flatten(1)[:, : self.m]


@pytest.fixture(scope="module")
def network() -> Report:
    return verify(gaussian(20), random_prior(SHAPE, 3), **SMALL)


@pytest.fixture(scope="module")
def affine() -> Report:
    images = normal(6, *SHAPE, seed=5).clamp(-1, 1)
    return verify(gaussian(200), random_affine_set(SHAPE, 3), images, **SMALL, noise=0.05)


@functools.cache
def whole(report: Report) -> str:
    """Its page."""
    return report.to_html()


class Outline(HTMLParser):
    """Headings, pictures and tables, in the order of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.names: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if "id" in given:
            self.names.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [given for name, given in self.tags if name == tag]


# Order and access ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["network", "affine"])
def test_the_page_can_be_read_by_ear(which, request):
    outline = Outline(whole(request.getfixturevalue(which)))
    assert outline.levels.count(1) == 1 and outline.levels[0] == 1
    steps = zip(outline.levels, outline.levels[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)
    assert outline.of("html") == [{"lang": "en"}]
    assert len(outline.names) == len(set(outline.names))
    assert {link[1:] for link in outline.links if link[0] == "#"} <= set(outline.names)
    drawn = [given for given in outline.of("svg") if given.get("class") == "drawing"]
    assert drawn and all(given["role"] == "img" for given in drawn)
    spoken = [given["aria-label"] for given in drawn] + [each["alt"] for each in outline.of("img")]
    assert all(re.search(r"\d|black", text) for text in spoken)  # what is seen, not a title
    assert len(outline.of("caption")) == len(outline.of("table")) > 3
    assert all(given.get("scope") in ("row", "col") for given in outline.of("th"))
    boxes = [given for given in outline.of("div") if given.get("class") == "scroll"]
    assert len(boxes) == len(outline.of("table"))
    assert all(given["tabindex"] == "0" and given["aria-label"] for given in boxes)


def test_the_screen_leads_pictures_follow_and_every_theory_has_its_section(network):
    names = [given["id"] for given in Outline(whole(network)).of("section")]
    assert names == [
        "overview", "images", "predictions", "theorem", "local", "evolution", "obtuse", "projector",
        "limits", "settings",
    ]  # fmt: skip


def test_what_made_the_page_is_on_it_and_leads_the_numbers(affine, tmp_path):
    made = {"command_line": "npgd verify --hole '<8>'", "npgd": "9.8.7", "date": "2030-01-02"}
    affine.write(tmp_path, made=made)
    text = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert all(word in text for word in made.values())
    assert (tmp_path / "report.json").read_text(encoding="utf-8").startswith('{\n "made": {')
    with pytest.raises(TypeError, match="made must be"):
        affine.to_html(made="npgd verify")


def test_links_lead_to_the_manual_where_its_address_is_known(monkeypatch):
    class Metadata:
        def get_all(self, _):
            return ["Source, https://example.org/s", "Documentation, https://example.org/m/"]

    monkeypatch.setattr(markup.importlib.metadata, "metadata", lambda _: Metadata())
    link = markup.manual("how-to/report.md", "Read a report")
    assert link == "<a href='https://example.org/m/how-to/report.html'>Read a report</a>"


def test_a_notebook_shows_the_screen_alone(network):
    shown = network._repr_html_()
    assert "waterfall" in shown and "<section" not in shown and "<h1" not in shown
    assert len(shown) < 40_000


# Pictures -----------------------------------------------------------------------------------------


def test_recoveries_stand_beside_the_originals_with_their_psnr(affine):
    shown = pictures.columns(affine, {"total variation": affine.target})
    titles = [column.title for column in shown]
    assert titles == [
        "original x*", "measured, Aᵀy", "best of S, x̄", "recovered, NPGD(prior)",
        "recovered, total variation", "error, NPGD(prior)", "error, total variation",
    ]  # fmt: skip
    assert all(len(column.pictures) == pictures.MOST for column in shown)
    psnr = affine.predictions.default.psnr
    assert shown[3].notes == tuple(f"{float(value):.1f} dB" for value in psnr[: pictures.MOST])
    error = (affine.target[0] - affine.images[0]).abs().mean(0).max()
    assert float(shown[6].notes[0].removeprefix("at most ")) == pytest.approx(float(error), rel=0.1)
    assert "total variation" in affine.to_html(baselines={"total variation": affine.target})


@pytest.mark.parametrize("baselines", [[1], {"a": torch.zeros(6, 1, 5, 5)}, {1: None}])
def test_baselines_are_images_by_name(affine, baselines):
    with pytest.raises((TypeError, ValueError), match="baselines"):
        affine.to_html(baselines=baselines)


def test_where_nothing_errs_there_is_no_map():
    text = CASES["a finite set"]().to_html()
    assert "no error to map" in text and "error, NPGD(prior)" not in text


def test_what_is_not_finite_has_a_picture(affine):
    broken = affine.predictions.default.x.clone()
    broken[0, 0, 0, 0], broken[1] = math.nan, math.inf
    assert "not finite" in affine.to_html(baselines={"broken": broken})


# Bars and figures ---------------------------------------------------------------------------------


def spans(text: str) -> list[tuple[float, float]]:
    found = re.findall(r"left:([\d.]+)%;width:([\d.]+)%", text)
    return [(float(left), float(left) + float(width)) for left, width in found]


def test_every_bar_begins_where_the_one_before_ended_and_the_last_is_their_sum():
    text = markup.waterfall({"a": 3.0, "b": -4.0, "c": 2.0}, {}, "all")
    assert spans(text) == [(25, 100), (0, 100), (0, 50), (25, 50)]
    assert text.count("class='less'") == 1 and "300 %" in text


def test_bars_of_nothing_and_of_what_is_not_finite():
    assert "Every part is 0" in markup.waterfall({"a": 0.0, "b": 0.0}, {}, "all")
    text = markup.waterfall({"a": 1.0, "b": -1e-17}, {}, "all")
    assert "−" not in text and "e-" not in text
    assert "no bar" in markup.waterfall({"a": math.inf, "b": -math.inf}, {}, "all")


def test_a_figure_of_one_colour_is_a_sentence(affine):
    slack = affine.uniform.slack
    gap = torch.ones_like(slack.gap)
    parts = {"alpha": 0 * gap, "beta": 0 * gap, "delta": gap, "noise": 0 * gap}
    solid = replace(affine.uniform, slack=replace(slack, gap=gap, **parts))
    solid = replace(affine, uniform=solid, pointwise=solid)
    said = drawings.SLACK.instead(solid)
    assert "at least 97 % of the slack" in said and "of δ, with uniform" in said
    assert html.escape(said) in solid.to_html()
    assert f"0, to rounding, at all {len(affine.projection.deltas)}" in whole(affine)


def test_figures_have_letters_names_of_their_own_and_the_pages_colours(network):
    drawn = re.findall(r"<figure>.*?</figure>", whole(network), re.DOTALL)
    assert len(drawn) >= 4
    for picture in drawn:
        assert "<text" in picture and "var(--" in picture and "class='legend'" in picture
        assert not any(colour.lower() in picture.lower() for colour in COLOURS.values())


CASES = {
    "κ = ∞": lambda: verify(gaussian(2), random_prior(SHAPE, 3), **SMALL),
    "a finite set": lambda: verify(gaussian(20), FiniteSet(normal(9, *SHAPE)), **SMALL),
    "a hole": lambda: verify(Inpainting(SHAPE, hole=3), random_affine_set(SHAPE, 3), **SMALL),
    "not linear": lambda: verify(Bent(gaussian(20).matrix, SHAPE), random_prior(SHAPE, 3), **SMALL),
    "one image": lambda: verify(gaussian(9), random_prior(SHAPE, 3), **(SMALL | {"count": 1})),
}


@pytest.mark.parametrize("case", CASES)
def test_every_report_has_a_page_without_a_word_too_many(case):
    text = CASES[case]().to_html()
    outline = Outline(text)
    assert outline.levels.count(1) == 1
    said = html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))
    for words in (
        "as it is",
        "tol = 0",
        "samples of G",
        "– – –",
        "nan",
        "beyond chance (",
    ):
        assert words not in said.split("Settings")[-2], words


# Symbols ------------------------------------------------------------------------------------------

_TEX = {
    r"\\lVert ": "‖", r"\\rVert": "‖", r"\\lvert": "|", r"\\rvert": "|", r"\\text\{(\w+)\}": r"\1",
    r"\\(alpha|beta|kappa|delta|theta|eta|circ|in|bar x|top|log|dagger|cdot) ?": None, r"\^2": "²",
    r"\^\{?⊤\}?": "ᵀ", r"\^†": "†", r"_\{10\}": "₁₀", r"\^\*": "*", r"\\,": "",
}  # fmt: skip
_LETTERS = {
    "alpha": "α", "beta": "β", "kappa": "κ", "delta": "δ", "theta": "θ", "eta": "η", "circ": "∘ ",
    "in": "∈ ", "bar x": "x̄", "top": "⊤", "log": "log", "dagger": "†", "cdot": "·",
}  # fmt: skip


def plain(cell: str) -> str:
    """A cell of the glossary, its LaTeX as letters."""
    for pattern, letter in _TEX.items():
        put = letter if letter is not None else (lambda match: _LETTERS[match[1]])
        cell = re.sub(pattern, put, cell)
    return re.sub(r"\s+", " ", re.sub(r"(?<!\w)\*|\*(?!\*)(?=[,:; |]|$)|\$", "", cell)).strip()


def squeezed(text: str) -> str:
    return re.sub(r"[\s*]", "", text).replace("−", "-")


def test_symbols_are_explained_in_the_words_of_the_glossary():
    rows = [line.split(" | ") for line in WORDS.read_text(encoding="utf-8").splitlines()]
    said = [squeezed(plain(cell)) for row in rows if len(row) > 2 for cell in row]
    for name, text in symbols.SYMBOLS.items():
        assert any(squeezed(text) in cell for cell in said), (name, text)


def test_a_symbol_is_explained_where_it_is_first_used_and_once():
    known: set[str] = set()
    first = symbols.new_symbols("the largest κ(x*) of x*, and κ", known)
    assert next(iter(first)) == "κ(x*)" and {"κ", "α", "β", "ratio", "x*"} <= set(first)
    assert symbols.new_symbols("κ, and δ_n", known).keys() == {"δ_n"}


# Colours and browsers -----------------------------------------------------------------------------


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_words_and_lines_stand_out_in_light_and_in_dark():
    palettes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r"color-scheme: (?:light|dark);(.*?)\}", markup.style(), re.DOTALL)
    ]
    assert len(palettes) == 2
    for colours in palettes:
        assert set(COLOURS) <= set(colours)
        for ground in ("ground", "panel"):
            assert all(
                contrast(colours[c], colours[ground]) >= 4.5 for c in ("ink", "soft", "link")
            )
        assert all(contrast(colours["ink"], colours[c]) >= 4.5 for c in ("bad", "good"))
        assert all(contrast(colours[c], colours["ground"]) >= 3 for c in COLOURS)


NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
"""The page is put into a frame as wide as a screen, since a browser's window has a least width."""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium to look with")
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_browser_shows_the_page_at_every_width_without_overflow(network, mode, tmp_path):
    from PIL import Image

    widths = (360, 768, 1280)
    frames = "".join(
        f"<iframe width='{w}' height='900' srcdoc='{html.escape(whole(network), quote=True)}'>"
        "</iframe>"
        for w in widths
    )
    looks = (
        "document.title = JSON.stringify([...document.querySelectorAll('iframe')].map(f => {"
        "const d = f.contentDocument; return [d.documentElement.scrollWidth, f.clientWidth,"
        "d.documentElement.scrollHeight, getComputedStyle(d.body).backgroundColor]}))"
    )
    outer = tmp_path / "frames.html"
    outer.write_text(
        "<!doctype html><title></title><style>iframe{border:0;display:block}</style>"
        f"{frames}<script>onload = () => {{{looks}}}</script>",
        encoding="utf-8",
    )
    picture = tmp_path / "seen.png"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,2700",
        f"--blink-settings=preferredColorScheme={int(mode == 'light')}",
        "--virtual-time-budget=5000", "--dump-dom", f"--screenshot={picture}", outer.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    measured = html.unescape(re.findall(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[0])
    assert len(re.findall(r"\[(\d+),(\d+),(\d+)", measured)) == len(widths), measured
    for scroll, client, height in re.findall(r"\[(\d+),(\d+),(\d+)", measured):
        assert int(scroll) <= int(client) and int(height) > 2000
    expected = "rgb(20, 22, 26)" if mode == "dark" else "rgb(255, 255, 255)"
    assert measured.count(expected) == len(widths)
    grey = Image.open(picture).convert("L")
    assert len(grey.getcolors(256)) > 50
