"""The frame of the figures: what is kept, when it is measured again, what is ever on the disk."""

import importlib.util
import json
import random
import subprocess
import sys

import numpy as np
import pytest

from paper_figures import figure, figures, style
from paper_figures.figure import DRAWN, MEASURED, UP_TO_DATE

SCRIPT = '''"""A straight line.

A toy.
"""

from paper_figures.figure import run
from paper_figures.style import new_figure

calls = []


def measure(options):
    calls.append(options)
    if options.fill is not None:  # a cache that measuring fills
        options.fill.write_text("cell")
    return {"x": [1, 2, 3], "y": [options.slope * x for x in (1, 2, 3)]}


def draw(results):
    figure = new_figure(columns=1, height=1.5)
    figure.subplots().plot(results["x"], results["y"])
    return figure


def options(parser):
    from pathlib import Path

    parser.add_argument("--slope", type=float, default=2.0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fill", type=Path)


def main(argv):
    return run("line", __doc__, measure, draw, argv, options=options,
               inputs=lambda asked: [p for p in (asked.data, asked.fill) if p is not None])
'''


@pytest.fixture
def toy(tmp_path):
    """Runs the toy figure, its source changed by replacements; returns (what was done, calls)."""

    def run(*argv, replace=(), output=tmp_path / "out"):
        path, source = tmp_path / "figure_line.py", SCRIPT
        for before, after in replace:
            assert before in source
            source = source.replace(before, after)
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("figure_line", path)
        module = importlib.util.module_from_spec(spec)
        exec(compile(source, str(path), "exec"), module.__dict__)  # no stale bytecode
        return module.main(["--output", str(output), *argv]), len(module.calls)

    return run


def test_a_second_run_does_nothing(toy, tmp_path):
    assert toy() == (MEASURED, 1)
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert sorted(written) == ["line.json", "line.pdf", "line.png"]
    assert toy() == (UP_TO_DATE, 0)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == written
    assert json.loads(written["line.json"])["results"] == {"x": [1, 2, 3], "y": [2.0, 4.0, 6.0]}


@pytest.mark.parametrize("argv", [["--slope", "3"], ["--fresh"]], ids=" ".join)
def test_another_option_or_fresh_measures_again(argv, toy, capsys):
    toy()
    assert toy(*argv) == (MEASURED, 1)
    assert argv[0] in capsys.readouterr().out  # says why
    assert toy(*argv[: 2 * argv.count("--slope")]) == (UP_TO_DATE, 0)


def test_the_same_numbers_give_the_same_files(toy, tmp_path):
    toy()
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    toy("--fresh")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == written


@pytest.mark.parametrize(
    ("before", "after", "done"),
    [
        ("# a cache that measuring fills", "# another comment", DRAWN),
        ("\n\nA toy.\n", "\n\nA toy, and another docstring.\n", DRAWN),
        ("\n\n\ndef measure", "\n\n\n\n\ndef measure", DRAWN),
        ("height=1.5", "height=1.7", DRAWN),
        ("options.slope * x", "x * options.slope * 1", MEASURED),
        ("(1, 2, 3)]}", "(1, 2, 4)]}", MEASURED),
    ],
    ids=["comment", "docstring", "layout", "drawing", "instructions", "constant"],
)
def test_what_a_changed_script_means(before, after, done, toy):
    toy()
    assert toy(replace=[(before, after)]) == (done, int(done == MEASURED))
    assert toy(replace=[(before, after)]) == (UP_TO_DATE, 0)


def test_a_script_that_is_imported_counts(toy, tmp_path):
    imports = [("calls = []", "from paper_figures.helping import slope\n\ncalls = []")]
    package = tmp_path / "helping.py"  # beside the script, as in paper_figures/
    sys.modules["paper_figures.helping"] = type(sys)("helping")
    sys.modules["paper_figures.helping"].slope = 1
    try:
        package.write_text("slope = 1\n")
        assert toy(replace=imports) == (MEASURED, 1)
        package.write_text("# the slope\nslope = 1\n")
        assert toy(replace=imports) == (UP_TO_DATE, 0)
        package.write_text("slope = 2\n")
        assert toy(replace=imports) == (MEASURED, 1)
    finally:
        del sys.modules["paper_figures.helping"]


def test_the_packages_count_but_for_training(tmp_path, monkeypatch):
    script = tmp_path / "figure_line.py"
    script.write_text(SCRIPT)
    for name in ("npgd/a.py", "npgd/training/b.py", "analysis/commands/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(figure, "ROOT", tmp_path)
    before = figure._digest_of_code(script)
    for name, counts in (("npgd/a.py", True), ("npgd/training/b.py", False)):
        (tmp_path / name).write_text("x = 2\n")
        after = figure._digest_of_code(script)
        assert (after != before) == counts, name
        before = after
    (tmp_path / "analysis/commands/__init__.py").write_text("x = 2\n")
    assert figure._digest_of_code(script) == before


def test_an_input_counts_by_its_content(toy, tmp_path):
    data, other = tmp_path / "a" / "data.bin", tmp_path / "b" / "data.bin"
    for path in (data, other):
        path.parent.mkdir()
        path.write_bytes(b"1")
    toy("--data", str(data))
    assert toy("--data", str(other)) == (UP_TO_DATE, 0)  # moved, the same
    other.write_bytes(b"2")
    assert toy("--data", str(other)) == (MEASURED, 1)
    other.unlink()
    assert toy("--data", str(other)) == (MEASURED, 1)


def test_a_folder_counts_by_its_files(toy, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "one").write_bytes(b"1")
    toy("--data", str(folder))
    assert toy("--data", str(folder)) == (UP_TO_DATE, 0)
    (folder / "two").write_bytes(b"2")
    assert toy("--data", str(folder)) == (MEASURED, 1)


def test_cells_that_measuring_adds_are_not_a_change(toy, tmp_path):
    cell = tmp_path / "cell"
    assert toy("--fill", str(cell)) == (MEASURED, 1)
    assert toy("--fill", str(cell)) == (UP_TO_DATE, 0)
    cell.write_text("measured anew elsewhere")
    assert toy("--fill", str(cell)) == (MEASURED, 1)


def test_a_quick_look_leaves_the_results_alone(toy, tmp_path):
    toy()
    before = (tmp_path / "out" / "line.json").read_bytes()
    assert toy("--quick") == (MEASURED, 1)
    assert (tmp_path / "out" / "quick" / "line.png").exists()
    assert (tmp_path / "out" / "line.json").read_bytes() == before
    assert toy() == (UP_TO_DATE, 0)


def test_keep_draws_what_there_is(toy, tmp_path):
    toy()
    assert toy("--keep", "--slope", "5") == (UP_TO_DATE, 0)
    (tmp_path / "out" / "line.png").unlink()
    assert toy("--keep", "--slope", "5") == (DRAWN, 0)
    results = json.loads((tmp_path / "out" / "line.json").read_text())["results"]
    assert results["y"] == [2.0, 4.0, 6.0]
    assert toy("--slope", "5") == (MEASURED, 1)  # not taken for the results of 5


def test_keep_measures_where_there_is_nothing(toy):
    assert toy("--keep") == (MEASURED, 1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"results": {}}', '{"key": 1, "other": 2}'])
def test_a_file_that_is_no_result_is_replaced(content, toy, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "line.json").write_text(content)
    assert toy() == (MEASURED, 1)
    assert toy() == (UP_TO_DATE, 0)


def test_a_failure_to_measure_leaves_nothing(toy, tmp_path):
    with pytest.raises(ZeroDivisionError):
        toy(replace=[("options.slope * x", "options.slope / 0")])
    assert not list(tmp_path.glob("out/*"))


def test_numbers_that_json_has_not_are_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        toy(replace=[("options.slope * x", "float('nan')")])
    assert not list(tmp_path.glob("out/*"))


def test_a_failure_to_draw_keeps_the_numbers(toy, tmp_path):
    with pytest.raises(AttributeError):
        toy(replace=[(".plot(", ".no_such_plot(")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["line.json"]
    assert toy() == (DRAWN, 0)


def test_a_failure_to_write_leaves_the_old_picture(toy, tmp_path, monkeypatch):
    toy()
    before = (tmp_path / "out" / "line.png").read_bytes()
    from matplotlib.figure import Figure

    def broken(self, file, **options):
        file.write(b"half a pict")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", broken)
        with pytest.raises(OSError, match="disk full"):
            toy("--slope", "3")
    assert (tmp_path / "out" / "line.png").read_bytes() == before
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert toy("--slope", "3") == (DRAWN, 0)
    assert (tmp_path / "out" / "line.png").read_bytes() != before


def test_the_code_has_one_digest_whatever_the_order_of_sets(tmp_path):
    script = tmp_path / "figure_line.py"
    script.write_text(SCRIPT + '\n\ndef known(x):\n    return x in {"a", "bc", "def", "ghij"}\n')
    code = "import sys, pathlib; from paper_figures.figure import _digest_of_code as digest;"
    code += "print(digest(pathlib.Path(sys.argv[1])), 'torch' in sys.modules)"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, str(script)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1
    assert seen.pop().endswith("False\n")


def test_data_sets_and_weights_are_where_the_package_looks(tmp_path, monkeypatch):
    from npgd.data import data_directory

    for variables in ({"NPGD_DATA": str(tmp_path)}, {"XDG_CACHE_HOME": str(tmp_path)}, {}):
        for name in ("NPGD_DATA", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert figure.dataset("mnist") == data_directory() / "mnist"
    assert figure.weights("mnist").exists()
    assert figure.weights("mnist-denoiser").exists()
    assert figure.weights(str(tmp_path / "prior.safetensors")).parent == tmp_path


# ----------------------------------------------------------------------------------------- damage

ODD = (
    b"", b"{", b"null", b"[]", b"{}", b"3", b'"x"', b"[" * 10**5, b"\xff\xfe", b"\0" * 64,
    b'{"key": 1, "results": {}}', b'{"key": {}, "results": {}}', b'{"key": null, "results": null}',
    b'{"figure": "line", "key": {"options": [], "inputs": {}, "code": ""}, "results": {}}',
    b'{"figure": "line", "key": {"options": {}, "inputs": {}, "code": ""}, "results": []}',
    b'{"figure": "line", "key": {"options": {}, "inputs": {}, "code": 3}, "results": {}}',
)  # fmt: skip


def test_numbers_of_another_type_are_measured_again_and_no_file_is_lost(toy, tmp_path):
    toy()
    path = tmp_path / "out" / "line.json"
    good = path.read_bytes()
    for i, content in enumerate(ODD, 1):
        path.write_bytes(content)
        assert toy() == (MEASURED, 1), content
        assert path.read_bytes() == good
        assert (tmp_path / "out" / f"line.json.{i}").read_bytes() == content
        assert toy() == (UP_TO_DATE, 0)


@pytest.mark.parametrize("many", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_numbers_are_measured_again_and_give_the_same_files(many, toy, tmp_path):
    toy()
    path = tmp_path / "out" / "line.json"
    good = path.read_bytes()
    for seed in range(many):
        draw = random.Random(seed)
        content = bytearray(good)
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content[: draw.choice((None, draw.randrange(len(content))))])
        toy()
        assert json.loads(path.read_bytes())["results"] == json.loads(good)["results"], seed
        assert toy() == (UP_TO_DATE, 0)


def test_results_of_another_shape_are_not_drawn(toy, tmp_path):
    toy()
    path = tmp_path / "out" / "line.json"
    stored = json.loads(path.read_text())
    for results in ({}, {"x": 3}, {"x": [1], "y": [1, 2]}, {"x": None, "y": "text"}):
        path.write_text(json.dumps(stored | {"results": results}))
        assert toy() == (MEASURED, 1)
        path.write_text(json.dumps({**stored, "results": results, "digest": None}))
        assert toy() == (MEASURED, 1)


def test_a_folder_or_a_file_in_the_way_is_named_or_kept(toy, tmp_path):
    (tmp_path / "out" / "line.json").mkdir(parents=True)
    (tmp_path / "out" / "line.json" / "mine").write_text("mine")
    assert toy() == (MEASURED, 1)
    assert (tmp_path / "out" / "line.json.1" / "mine").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="--output must be a folder, got the file"):
        toy(output=tmp_path / "file")


def test_damaged_cells_are_measured_again_and_those_of_others_are_kept(tmp_path, capsys):
    from paper_figures.table_design import Cells

    path, asked = tmp_path / "cells.json", []

    def measured(name):
        def compute():
            asked.append(name)
            return {"error": 0.25, "by_size": {10: [1, 2]}, "pair": (1, 2)}

        return Cells(path, True)(name, compute)

    first = measured("a")
    assert measured("a") == first and asked == ["a"] and "digest" not in first
    for damage in (
        3, None, [], {}, {"error": 0.25}, {**first, "error": 0.5, "digest": "x"},
        {**first, "seconds": "x"}, {**first, "digest": 3},
    ):  # fmt: skip
        stored = json.loads(path.read_text())
        path.write_text(json.dumps(stored | {"quick | a": damage}))
        asked.clear()
        assert measured("b")["error"] == 0.25
        assert measured("a")["error"] == 0.25 and asked[-1] == "a"
    for i, content in enumerate(ODD[:4] + ODD[5:10], 1):
        path.write_bytes(content)
        asked.clear()
        assert measured("a")["error"] == 0.25 and asked == ["a"]
        if content != b"{}":
            assert f"cells.json.{i}" in capsys.readouterr().out
            assert (tmp_path / f"cells.json.{i}").read_bytes() == content


def test_damaged_results_of_the_methods_are_measured_again(tmp_path):
    from paper_figures.table_methods import Comparison

    asked = []

    def measured():
        c = Comparison(None, 1, tmp_path)
        return c.cached("one", {"m": 1}, lambda: asked.append(1) or {"error": 0.25})["error"]

    assert measured() == measured() == 0.25 and len(asked) == 1
    path = tmp_path / "one.json"
    good = path.read_text()
    damaged = [good.replace("0.25", "0.5").encode(), b'{"key": {"m": 2}, "error": 3}', *ODD[:10]]
    for i, content in enumerate(damaged, 2):
        path.write_bytes(content)
        assert measured() == 0.25 and len(asked) == i
    assert len(list(tmp_path.glob("one.json.*"))) == 10


# ------------------------------------------------------------------------------------------ style


def test_methods_and_designs_have_looks_of_their_own():
    from paper_figures.table_design import DESIGNS
    from paper_figures.table_methods import METHODS

    assert set(style.METHODS) == set(METHODS)
    assert set(style.DESIGNS) == set(DESIGNS)
    for looks in (style.METHODS, style.DESIGNS):
        assert len({(look.color, str(look.dash)) for look in looks.values()}) == len(looks)
        # In grey: dash, marker and filling tell curves apart without colour.
        assert len({(str(k.dash), k.marker, k.open) for k in looks.values()}) == len(looks)
    others = [style.look(f"another {i}", i) for i in range(8)]
    assert len({look.color for look in others}) == 8


@pytest.mark.parametrize(("columns", "width"), [(1, 3.3), (2, 6.9)])
def test_a_figure_has_the_width_of_a_column_or_the_page(columns, width):
    assert style.new_figure(columns, height=2.0).get_size_inches().tolist() == [width, 2.0]


def test_numbers_on_a_logarithmic_axis_are_written_out():
    axis = style.new_figure(1).subplots()
    axis.plot([20, 2000], [1, 2])
    axis.set(xscale="log", xlim=(10, 3000))
    style.written_out(axis.xaxis, (5, 20, 200, 2000, 5000))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["20", "200", "2,000"]
    assert np.allclose(axis.get_xlim(), (10, 3000))


def test_every_figure_is_listed_with_a_line():
    there = figures()
    assert {"convergence", "design", "error_vs_m", "histograms", "time_to_error"} <= set(there)
    assert all(line.endswith(".") for line in there.values())
