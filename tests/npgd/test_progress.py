"""The progress bar: it changes nothing of the work, and leaves nothing behind."""

import subprocess
import sys

import pytest

from npgd import progress
from npgd.progress import bar, track


@pytest.fixture
def terminal(monkeypatch):
    """A terminal wide enough for every column, for whoever asks."""
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "160"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("show", [False, True])
@pytest.mark.parametrize("total", [3, None])
def test_every_item_comes_once_and_in_order(show, total):
    assert list(track(iter("abc"), total, "letters", show)) == ["a", "b", "c"]


@pytest.mark.parametrize("show", [False, True])
def test_where_standard_error_is_no_terminal_nothing_is_drawn(show, capfd, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    list(track(range(3), 3, "recover", show))
    seen = capfd.readouterr()
    assert seen.out == ""
    assert seen.err.strip() == ""


def test_on_a_terminal_the_bar_says_what_how_far_and_the_note(terminal, capfd):
    with bar(20, "search", done=5) as shown:
        shown.advance(2, note="loss [0.5]")
        shown.reach(9)
        progress._shared[0].refresh()
    seen = capfd.readouterr()
    assert seen.out == ""
    for word in ("search", "9/20", "loss [0.5]"):
        assert word in seen.err


def test_a_bar_inside_a_bar_shares_its_display_and_both_end(terminal, capfd):
    for _ in track(range(2), 2, "outer"):
        for _ in track(range(2), 2, "inner"):
            assert len({id(display) for display in progress._shared}) == 1
            assert [task.description for task in progress._shared[0].tasks] == ["outer", "inner"]
    assert progress._shared == []


def test_a_loop_that_is_left_or_fails_leaves_no_bar(terminal, capfd):
    for _ in track(range(5), 5, "left"):
        break
    with pytest.raises(KeyError), bar(5, "fails"):
        raise KeyError
    import gc

    gc.collect()  # the generator of the loop that was left
    assert progress._shared == []


def test_a_bar_that_is_not_shown_imports_no_rich():
    code = (
        "import sys; from npgd.progress import bar, track\n"
        "list(track(range(3), 3, 'a', False))\n"
        "with bar(3, 'b', False) as shown: shown.advance(note='x'); shown.reach(2)\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'rich']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_in_a_notebook_without_widgets_bars_are_lines_of_text(monkeypatch, recwarn):
    display = pytest.importorskip("IPython.display")
    console = pytest.importorskip("rich.console")
    said = []

    class Handle:
        def display(self, content, raw):
            said.append(content["text/plain"])

        update = display

    monkeypatch.setattr(display, "DisplayHandle", Handle)
    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    monkeypatch.setattr(progress._Lines, "PAUSE", 0.0)
    with bar(20, "search", done=5) as shown, bar(None, "within"):
        shown.advance(2, note="loss [0.5]")
        shown.reach(9)
    assert "search 7/20 loss [0.5]\nwithin 0/?" in said
    assert said[-1] == ""  # gone when the work is done
    assert not recwarn.list
