"""Every notebook runs from top to bottom, and what is committed of it is complete, small and plain.

    python tests/notebooks/test_notebooks.py [NOTEBOOK …]

runs them (all, or those named) at full size and writes their outputs back, as the tests want them.
The tests run them with the sizes in SMALLER.
"""

import ast
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import analysis
import npgd

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

LIBRARIES = {"analysis", "matplotlib", "npgd", "numpy", "scipy", "torch"}
PUBLIC = {
    "npgd": {*npgd.__all__, "data"},
    "analysis": {*analysis.__all__, "testing"},
    "paper_figures": {"style"},
}
LARGEST = 300_000  # bytes
SMALLER = {
    "01_first_recovery": [
        ("counts = (10, 30, 100, 300, 784)", "counts = (30, 300)"),
    ],
    "02_are_the_assumptions_met": [
        ("points=2000,\n    tangent_points=100,", "points=200,\n    tangent_points=10,"),
        ("points=2000, tangent_points=10", "points=200, tangent_points=2"),
        ("counts = (50, 100, 200, 500)", "counts = (50, 100)"),
        (
            "points=1000,\n            tangent_points=40",
            "points=100,\n            tangent_points=4",
        ),
        ("search_starts=6,\n            search_steps=60", "search_starts=2, search_steps=5"),
        ("points=1500, seed=1", "points=200, seed=1"),
    ],
    "03_the_projectors_error": [
        ("starts=3, steps=100", "starts=1, steps=5"),
        ("(1, 30), (3, 30), (3, 100), (6, 200))", "(1, 30))"),
    ],
    "04_rates_and_the_one_step_identity": [
        ("points=1000,\n    tangent_points=60", "points=100,\n    tangent_points=4"),
        ("search_starts=6,\n    search_steps=60", "search_starts=2,\n    search_steps=5"),
    ],
    "05_the_theorem_is_tight": [
        ("np.linspace(1.2, 1.9, 8)", "np.linspace(1.2, 1.9, 2)"),
        ("np.linspace(1.1, 3.5, 25)", "np.linspace(1.1, 3.5, 3)"),
        ("np.linspace(0.5, 1.5, 21)", "np.linspace(0.5, 1.5, 3)"),
    ],
    "06_bring_your_own": [
        ("for step in range(1500)", "for step in range(100)"),
        ("starts=4, steps=200", "starts=1, steps=10"),
        ("max_iter=200", "max_iter=20"),
    ],
    "07_predicted": [
        ("x = prior.sample(12, seed=1)", "prior.corrections = 0; x = prior.sample(2, seed=1)"),
        ("points=500,\n    tangent_points=40", "points=100,\n    tangent_points=4"),
        ("search_starts=4,\n    search_steps=50", "search_starts=2,\n    search_steps=5"),
        ("counts = (50, 100, 200)", "counts = (100,)"),
        ("draws=2, seed=0", "draws=1, seed=0"),
        ("np.geomspace(30, 400, 16)", "np.geomspace(30, 400, 3)"),
        ("draws=60, wanted=0.8", "draws=10, wanted=0.5"),
        ("few = x[:8]", "few = x[:2]"),
        ("steps=40))", "steps=5))"),
    ],
}
"""By notebook, the sizes that a test replaces, and with what: the same cells, in seconds."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path):
    return nbformat.read(path, as_version=4)


def smaller(path):
    """The notebook with the sizes of SMALLER; each must stand in it."""
    notebook = read(path)
    for size, small in SMALLER[path.stem]:
        found = [cell for cell in code(notebook) if size in cell.source]
        assert found, f"{path.stem} no longer has {size!r}"
        for cell in found:
            cell.source = cell.source.replace(size, small)
    return notebook


def execute(notebook, folder):
    """The notebook, run in the empty `folder` and without any data set.

    Raises CellExecutionError, which shows the cell.
    """
    # One thread: the tensors are small, and sums in another order would change the outputs.
    env = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder)}
    env.pop("NPGD_DATA", None)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=None, record_timing=False, resources=resources)
    client.execute(env=env)
    return plain(notebook)


def plain(notebook):
    """Without what changes from one run to the next, though the results do not."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", nbformat.from_dict({})
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data.pop("text/plain", None)  # <Figure size …>
    return notebook


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook):
    """What each cell puts out: figures, prints, results."""
    return [
        [(output.output_type, *sorted(output.get("data", {}))) for output in cell.outputs]
        for cell in code(notebook)
    ]


def texts(notebook):
    """All that a reader sees, but for the pictures."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "") + output.get("data", {}).get("text/plain", "")


def test_there_are_notebooks():
    numbers = [int(path.stem[:2]) for path in NOTEBOOKS]
    assert len(numbers) >= 7 and numbers == sorted(set(numbers))


@every_notebook
def test_runs(path, tmp_path):
    """Without an error, and with figures and prints where the committed ones are."""
    assert kinds(execute(smaller(path), tmp_path)) == kinds(read(path))


@every_notebook
def test_committed_outputs(path):
    """Run from top to bottom, without warnings, with figures, and small."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    assert [cell.execution_count for cell in code(notebook)] == list(
        range(1, len(code(notebook)) + 1)
    )
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


@every_notebook
def test_committed_as_written_by_this_file(path):
    assert path.read_text(encoding="utf-8") == nbformat.writes(plain(read(path))) + "\n"


@every_notebook
def test_shows_no_paths_of_a_machine(path):
    for text in texts(read(path)):
        assert not re.search(r"/(home|root|work|tmp|mnt|opt|usr|Users|var)/|[A-Z]:\\\\", text)


@every_notebook
def test_uses_public_names_only(path):
    for cell in code(read(path)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                for name in node.names:
                    package, _, module = name.name.partition(".")
                    assert package in LIBRARIES | sys.stdlib_module_names, name.name
                    assert not module or package not in PUBLIC, name.name
            elif isinstance(node, ast.ImportFrom):
                package = (node.module or "").partition(".")[0]
                assert package in LIBRARIES | {"paper_figures"} | sys.stdlib_module_names
                if package in PUBLIC:
                    assert node.module == package or node.module == "paper_figures.style"
                    assert {name.name for name in node.names} <= PUBLIC[package]
            elif isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), node.attr
                if isinstance(node.value, ast.Name) and node.value.id in PUBLIC:
                    assert node.attr in PUBLIC[node.value.id], f"{node.value.id}.{node.attr}"


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    for name in sys.argv[1:] or NOTEBOOKS:
        with TemporaryDirectory() as folder:
            done = execute(read(Path(name)), folder)
        nbformat.write(done, Path(name))
        print(name)
