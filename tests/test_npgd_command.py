"""A user's own `analysis` or `paper_figures` is named where it shadows ours."""

import os
import subprocess
import sys

import pytest

START = "import sys; from npgd_command import main; sys.argv[0] = 'npgd'; main()"


def python(*arguments, cwd, path=()):
    environment = {**os.environ, "COLUMNS": "80"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def npgd(*arguments, cwd, path=()):
    return python("-c", START, *arguments, cwd=cwd, path=path)


def shadow(folder, name, kind):
    """A file of the user's own that `import name` finds first in `folder`."""
    if kind == "module":
        file = folder / f"{name}.py"
    else:
        (folder / name).mkdir()
        file = folder / name / "__init__.py"
    file.write_text("mine = 1\n")
    return file


def assert_one_sentence(run, name, file):
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"error: {name} must be the package that comes with npgd, got {file}: ")
    assert run.stdout == ""


@pytest.mark.parametrize("kind", ["module", "package"])
def test_an_analysis_in_the_folder_is_named(kind, tmp_path):
    file = shadow(tmp_path, "analysis", kind)
    assert_one_sentence(npgd("derive", "--help", cwd=tmp_path), "analysis", file)


def test_an_analysis_on_pythonpath_is_named(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file = shadow(tmp_path / "elsewhere", "analysis", "module")
    run = npgd("derive", "--help", cwd=tmp_path, path=[tmp_path / "elsewhere"])
    assert_one_sentence(run, "analysis", file)


def test_python_dash_m_npgd_names_it_too(tmp_path):
    file = shadow(tmp_path, "analysis", "module")
    assert_one_sentence(python("-m", "npgd", "derive", "--help", cwd=tmp_path), "analysis", file)


def test_a_folder_that_is_no_package_does_no_harm(tmp_path):
    """Python takes a folder without `__init__.py` only where it finds no package."""
    for name in ("analysis", "paper_figures"):
        (tmp_path / name).mkdir()
    run = npgd("figures", "--list", cwd=tmp_path)
    assert run.returncode == 0 and "convergence" in run.stdout, run.stderr


@pytest.mark.parametrize("kind", ["module", "package"])
def test_paper_figures_in_the_folder_are_named_by_the_command_that_needs_ours(kind, tmp_path):
    file = shadow(tmp_path, "paper_figures", kind)
    assert_one_sentence(npgd("figures", "--list", cwd=tmp_path), "paper_figures", file)
    run = npgd("derive", "--help", cwd=tmp_path)
    assert run.returncode == 0 and "symbolically" in run.stdout, run.stderr


def test_the_figures_scripts_name_another_analysis(tmp_path):
    file = shadow(tmp_path, "analysis", "package")
    run = python("-c", "import paper_figures.figure_convergence", cwd=tmp_path)
    assert run.returncode == 1
    assert f"analysis must be the package that comes with npgd, got {file}" in run.stderr
