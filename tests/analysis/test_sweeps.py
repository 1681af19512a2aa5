"""Sweeps: each cell is a recovery of its own, taken up again, whatever runs it."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from typer.testing import CliRunner

import analysis
import npgd
from analysis import sweeps
from analysis.commands import app
from analysis.testing import random_prior

SHAPE = (1, 6, 6)
GRID = {"m": (12, 20), "noise": (0.0, 0.1), "seeds": (0, 3), "max_iter": 3}


@pytest.fixture
def problem():
    prior = random_prior(SHAPE, 3, seed=0)
    return prior, prior.sample(3, seed=1)


def numbers(found):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found.rows]


def test_a_cell_is_the_recovery_of_its_settings(problem):
    prior, x = problem
    found = analysis.sweep(prior, x, **GRID, step_sizes=(0.5, "1/beta"), methods=("npgd", "tv"))
    assert len(found.rows) == 2 * 2 * 2 * 3
    cell = {"method": "npgd", "m": 20, "noise": 0.1, "seed": 3, "step_size": 0.5}
    (row,) = (row for row in found.rows if cell.items() <= row.items())
    A = npgd.Gaussian(SHAPE, 20, seed=3).to(x)
    noise = torch.randn(3, 20, generator=torch.Generator().manual_seed(5)).to(x)
    solver = npgd.NPGD(prior, 0.5, max_iter=3, seed=3)
    solution = npgd.recover(A, A(x) + 0.1 * noise, solver, x_true=x)
    assert row["error"] == pytest.approx(float(solution.error[-1].mean()), rel=1e-5)
    assert row["objective"] == pytest.approx(float(solution.objective[-1].mean()), rel=1e-5)


def test_what_is_predicted_is_state_evolution(problem):
    prior, x = problem
    found = analysis.sweep(prior, x, **GRID)
    curve = analysis.denoising_curve(prior, x, draws=1)
    for row in found.rows:
        expected = analysis.state_evolution(curve, row["m"], noise=row["noise"]).fixed_point
        assert row["predicted"] == pytest.approx(expected)
    assert all(row["predicted"] is None for row in analysis.sweep(
        prior, x, **GRID, predict=False).rows)  # fmt: skip


def test_neither_executor_nor_interruption_changes_a_number(problem, tmp_path, monkeypatch):
    prior, x = problem
    whole = analysis.sweep(prior, x, **GRID)
    with ThreadPoolExecutor(3) as pool:
        assert numbers(analysis.sweep(prior, x, **GRID, executor=pool)) == numbers(whole)
    path, recovered, count = tmp_path / "cells.json", sweeps._recovered, []

    def failing(*arguments):
        count.append(1)
        if len(count) == 6:
            raise KeyboardInterrupt
        return recovered(*arguments)

    monkeypatch.setattr(sweeps, "_recovered", failing)
    with pytest.raises(KeyboardInterrupt):
        analysis.sweep(prior, x, **GRID, path=path)
    kept = len(json.loads(path.read_text())["rows"])
    assert 0 < kept < 8
    count.clear()
    monkeypatch.setattr(sweeps, "_recovered", lambda *a: count.append(1) or recovered(*a))
    again = analysis.sweep(prior, x, **GRID, path=path)
    assert (again.taken_up, len(count)) == (kept, 8 - kept)
    assert numbers(again) == numbers(whole)
    wider = analysis.sweep(prior, x, **{**GRID, "m": (12, 20, 30)}, path=path)
    assert wider.taken_up == 8 and len(wider.rows) == 12


def test_a_file_of_other_settings_is_refused(problem, tmp_path):
    prior, x = problem
    path = tmp_path / "cells.json"
    analysis.sweep(prior, x, [12], max_iter=1, path=path, predict=False)
    others = (
        {"images": x[:2]},
        {"images": x + 0.1},
        {"max_iter": 2},
        {"prior": random_prior(SHAPE, 3, seed=9)},
    )
    for other in others:
        given = {"prior": prior, "images": x, "max_iter": 1} | other
        with pytest.raises(ValueError, match="path must be a sweep of this prior"):
            analysis.sweep(**given, m=[12], path=path, predict=False)
    path.write_text("{}")
    with pytest.raises(ValueError, match="path must be a file that sweep wrote"):
        analysis.sweep(prior, x, [12], max_iter=1, path=path, predict=False)


def test_the_table_is_tidy_in_every_form(problem, tmp_path):
    prior, x = problem
    found = analysis.sweep(prior, x, **GRID, methods=("npgd", "lasso"))
    read = list(csv.DictReader(io.StringIO(found.to_csv(tmp_path / "table.csv"))))
    assert (tmp_path / "table.csv").read_text() == found.to_csv()
    assert [float(row["error"]) for row in read] == [row["error"] for row in found.rows]
    table = pytest.importorskip("pandas") and found.to_pandas()
    assert list(table.columns) == list(read[0]) and len(table) == 16
    means = {(r["method"], r["noise"], r["m"]): r["error"] for r in found.means()}
    grouped = table.groupby(["method", "noise", "m"])["error"].mean().to_dict()
    assert means == pytest.approx(grouped)
    assert len(str(found).splitlines()) < 20


def test_predicted_and_observed_are_drawn(problem):
    prior, x = problem
    axis = analysis.sweep(prior, x, **GRID).plot().axes[0]
    figure = axis.get_figure()
    figure.canvas.draw()
    written = [label.get_text() for label in (*axis.get_xticklabels(), *axis.get_yticklabels())]
    assert {"12", "20"} < set(written)
    assert not any("10^" in text or "e-" in text for text in written)
    observed, predicted = axis.lines[:2], axis.lines[2:]
    assert len(observed) == len(predicted) == 2
    assert all(list(line.get_xdata()) == [12, 20] for line in axis.lines)
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {
        "npgd, noise 0.0", "npgd, noise 0.1", "predicted"
    }  # fmt: skip


def test_the_command_writes_the_table_and_goes_on(tmp_path):
    given = ["sweep", "--m", "40,80", "--seeds", "0,1", "--count", "2", "--max-iter", "2",
             "--resume", str(tmp_path / "cells.json"), "--output"]  # fmt: skip
    for name, told in (("a", "4 recoveries of 2 images"), ("b", "4 of them by an earlier run")):
        done = CliRunner().invoke(app, [*given, str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert told in done.output
    for name in ("sweep.csv", "sweep.json", "sweep.png"):
        assert (tmp_path / "a" / name).stat().st_size > 0
    for bad in (["--m", "x"], ["--noise", "-1"], ["--seeds", "0.5"], ["--step-sizes", "none"],
                ["--methods", "magic"]):  # fmt: skip
        done = CliRunner().invoke(app, ["sweep", *bad, "--output", str(tmp_path / "no")])
        assert done.exit_code == 2 and bad[0] in done.output, done.output
