"""Every script under paper_figures runs, at reduced size, so that none rots."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.commands import app
from paper_figures import figures, tables
from paper_figures.figure import MEASURED, UP_TO_DATE

FOLDER = Path(__file__).parents[2] / "paper_figures"
SCRIPTS = sorted([*FOLDER.glob("table_*.py"), *FOLDER.glob("bench_*.py")])
NEED_MNIST = {
    "table_denoisers",
    "table_design",
    "table_methods",
    "table_prior",
    "table_recovery",
    "table_tasks",
    "table_vae",
    "figure_design",
    "figure_error_vs_m",
    "figure_recovered",
    "figure_time_to_error",
}
runner = CliRunner()


def python(*arguments, cwd, **variables):
    environment = os.environ | variables
    if "NPGD_DATA" in environment:  # the script runs in another folder
        environment["NPGD_DATA"] = str(Path(environment["NPGD_DATA"]).resolve())
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_table_or_benchmark_runs(script, tmp_path, request):
    if script.stem in NEED_MNIST:
        request.getfixturevalue("digits")  # skips where MNIST is not at hand
    done = python(script, "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """One folder for all figures, which share cells."""
    return tmp_path_factory.mktemp("figures")


@pytest.mark.parametrize("name", figures())
def test_figure_is_measured_once_and_draws_its_json(name, output, request, capsys):
    if f"figure_{name}" in NEED_MNIST:
        request.getfixturevalue("digits")
    script = importlib.import_module(f"paper_figures.figure_{name}")
    argv = ["--quick", "--output", str(output)]
    assert script.main(argv) == MEASURED
    folder = output / "quick"
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert script.main(argv) == UP_TO_DATE
    assert capsys.readouterr().out.startswith(f"{name}: up to date")
    # From the file's numbers alone the picture can be drawn, and there is something in it.
    figure = script.draw(json.loads((folder / f"{name}.json").read_text())["results"])
    assert any(axis.has_data() for axis in figure.axes)
    assert not [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_after_all_of_them_none_is_measured_again(output):
    """Those that share cells must not take one another's for a change."""
    done = [name for name in figures() if (output / "quick" / f"{name}.png").exists()]
    if not done:
        pytest.skip("no figure has been drawn in this run")
    for name in done:
        script = importlib.import_module(f"paper_figures.figure_{name}")
        assert script.main(["--quick", "--output", str(output)]) == UP_TO_DATE


def test_figures_run_as_a_script_as_a_module_and_by_the_command(tmp_path):
    argv = ["--quick", "--output", tmp_path]
    first = python(FOLDER / "figure_convergence.py", *argv, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "convergence: measured in" in first.stdout
    second = python("-m", "paper_figures.figure_convergence", *argv, cwd=tmp_path)
    assert second.stdout.startswith("convergence: up to date"), second.stderr
    # By the command, without the libraries that take seconds to load.
    code = (
        "import sys; from analysis.commands import app; app(sys.argv[1:], standalone_mode=False);"
    )
    code += "print({'torch', 'matplotlib'} & set(sys.modules))"
    third = python("-c", code, "figures", "convergence", *argv, cwd=tmp_path)
    assert third.stdout.startswith("[1/1] convergence: up to date"), third.stderr
    assert third.stdout.endswith("set()\n")


# ------------------------------------------------------------------------------------ the command


def test_the_command_lists_figures():
    done = runner.invoke(app, ["figures", "--list"])
    assert done.exit_code == 0
    for name, line in (figures() | tables()).items():
        assert f"{name} " in done.output
        assert line in done.output


def test_an_unknown_figure_is_named():
    done = runner.invoke(app, ["figures", "convergence", "nonesuch"])
    assert done.exit_code == 2
    assert "NAMES must be of figures or tables (convergence, " in done.output


def test_a_table_is_kept_as_text(tmp_path):
    argv = ["figures", "table_worst_case", "--quick", "--output", str(tmp_path)]
    first = runner.invoke(app, argv)
    assert first.exit_code == 0, first.output
    kept = tmp_path / "quick" / "table_worst_case.txt"
    assert "table_worst_case: measured in" in first.output
    assert "κ" in kept.read_text(encoding="utf-8")
    second = runner.invoke(app, argv)
    assert second.output.startswith("[1/1] table_worst_case: up to date")


def test_a_table_without_data_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("NPGD_DATA", str(tmp_path / "empty"))
    argv = ["figures", "table_denoisers", "--quick", "--output", str(tmp_path)]
    done = runner.invoke(app, argv)
    assert done.exit_code == 0, done.output
    assert "table_denoisers: skipped, " in done.output


def test_what_needs_data_that_is_not_at_hand_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("NPGD_DATA", str(tmp_path / "empty"))
    argv = ["figures", "time_to_error", "--quick", "--output", str(tmp_path)]
    done = runner.invoke(app, argv)
    assert done.exit_code == 0, done.output
    assert "time_to_error: skipped, " in done.output
    assert "MNIST" in done.output
    assert "0 done; skipped for want of data: time_to_error" in done.output


def test_a_failure_does_not_keep_the_others_from_running(tmp_path, monkeypatch):
    ran = []

    def broken(argv):
        raise RuntimeError("nothing works")

    monkeypatch.setattr("paper_figures.figure_convergence.main", broken)
    monkeypatch.setattr("paper_figures.figure_histograms.main", ran.append)
    argv = ["figures", "convergence", "histograms", "--fresh", "--output", str(tmp_path)]
    done = runner.invoke(app, argv)
    assert done.exit_code == 1
    assert ran == [["--output", str(tmp_path), "--fresh"]]
    assert "1 done; failed: convergence" in done.output
