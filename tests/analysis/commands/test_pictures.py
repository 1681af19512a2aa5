"""Rows of images, drawn without touching what a user has set in matplotlib."""

import io

import matplotlib
import torch
from PIL import Image

from analysis.commands.pictures import draw_rows
from npgd.data import to_pixels
from paper_figures.style import new_figure


def test_drawing_leaves_backend_look_and_images_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib, "use", lambda *_, **__: pytest_fails())
    rows = {"a": torch.full((2, 1, 8, 8), 0.5), "b": torch.zeros(3, 1, 8, 8)}
    kept = {name: images.clone() for name, images in rows.items()}
    with matplotlib.rc_context():
        matplotlib.rcParams["font.size"] = 31
        drawn = io.BytesIO()
        draw_rows(rows, drawn, title="t")
        draw_rows(rows, tmp_path / "rows.pdf")
        assert matplotlib.rcParams["font.size"] == 31
    assert Image.open(drawn).size[0] > 100 and (tmp_path / "rows.pdf").stat().st_size > 1000
    assert all(torch.equal(rows[name], kept[name]) for name in rows)
    with matplotlib.rc_context():
        new_figure().savefig(io.BytesIO(), format="png")


def pytest_fails():
    raise AssertionError("the backend is switched")


def test_pixels_are_made_of_a_copy():
    grey = torch.full((1, 1, 2, 2), 255.0)
    assert torch.equal(to_pixels(grey), torch.ones(1, 1, 2, 2)) and bool((grey == 255).all())
