"""`npgd predict`: it says what `analysis` computes, and writes it where it is asked to."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import analysis
import npgd
from analysis.commands import app
from analysis.commands.predict import iterations, limits, measurement_numbers

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["predict", *map(str, arguments)])


def test_it_prints_and_writes_what_state_evolution_says(tmp_path):
    out = tmp_path / "out"
    done = run("--m", "200,50", "--count", 3, "--noise", 0.1, "--seed", 4, "--output", out)
    assert done.exit_code == 0, done.output
    results = json.loads((out / "predictions.json").read_text())
    prior = npgd.load_prior("mnist")
    curve = analysis.denoising_curve(prior, prior.sample(3, seed=5), seed=4, draws=1)
    assert [row["m"] for row in results["predictions"]] == [50, 200]
    for row in results["predictions"]:
        expected = analysis.state_evolution(curve, row["m"], n_iter=12, noise=0.1)
        assert row["error"] == pytest.approx(expected.error.tolist(), rel=1e-4)
        assert f"{expected.fixed_point:.4f}" in done.output
        assert row["budget"]["error"] == pytest.approx(expected.fixed_point, rel=1e-4)
    assert results["noise"] == 0.1 and "3 samples of G" in results["images"]
    assert results["least_measurements"] == analysis.least_measurements(curve, 0.1)
    assert Image.open(out / "predictions.png").size[0] > 100


def test_without_an_output_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("--m", 50, "--count", 1)
    assert done.exit_code == 0, done.output
    assert list(tmp_path.iterdir()) == []


def test_check_runs_both_recoveries_beside(tmp_path):
    done = run("--m", 80, "--count", 2, "--check", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "AMP" in done.output and "NPGD" in done.output
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    prior = npgd.load_prior("mnist")
    x, A = prior.sample(2, seed=1), npgd.Gaussian((1, 28, 28), 80, seed=0)
    for solver in (npgd.AMP(prior), npgd.NPGD(prior)):
        error = npgd.recover(A, A(x), solver, x_true=x).error[-1].mean()
        assert row[type(solver).__name__]["error"] == pytest.approx(float(error), rel=1e-3)


def test_numbers_of_measurements_are_sorted_and_told_apart():
    assert measurement_numbers("50, 20,50") == [20, 50]
    for text in ("", "a", "1,,2", "0", "2.5", "-3"):
        with pytest.raises(ValueError, match="--m must be whole numbers"):
            measurement_numbers(text)


def test_the_largest_part_and_the_iterations_are_named():
    def row(m, error, **parts):
        return {"m": m, "error": error, "budget": {"parts": {"noise": 0.0, **parts}}}

    rows = [
        row(20, [1.0, 0.5, 0.2, 0.1995], projector=0.05, measurements=0.15),
        row(50, [1.0, 0.1, 0.1, 0.1], projector=0.06, measurements=0.04),
        row(90, [1.0, 0.09, 0.09, 0.09], projector=0.06, measurements=0.03),
    ]
    few, more = limits(rows)
    assert few.startswith("at m = 20 most is due to too few")
    assert more.startswith("at m = 50, 90 most is due to P(x) itself")
    assert iterations(rows).startswith("message passing is within 1 % of that after 1 to 2 it")
    assert iterations(rows[1:]).startswith("message passing is within 1 % of that after 1 it")
