"""What a report says first: each sentence from the numbers that it speaks of."""

import dataclasses
import re

import pytest
import torch

from analysis.methods import BASELINES
from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.report import figures, verify
from analysis.testing import random_prior
from npgd.images import psnr
from npgd.operators import Gaussian
from npgd.solvers.projecting import missed

SHAPE = (1, 6, 6)
SMALL = {
    "rec": RecSettings(points=60, tangent_points=8, search_starts=2, search_steps=5),
    "projection": ProjectionSettings(points=6, starts=2, steps=10),
    "n_iter": 8,
    "count": 3,
}


@pytest.fixture(scope="module")
def report():
    return verify(
        Gaussian(SHAPE, 12, 0, torch.float64), random_prior(SHAPE, 3), **SMALL, effort="quick"
    )


def numbers(said: str) -> tuple[float, float]:
    found = re.search(r"mean PSNR ([\d.]+) dB, mean error ([\d.e-]+) a pixel", said)
    return float(found[1]), float(found[2])


def test_what_limits_says_where_the_encoder_projects_poorly_and_what_is_done_then(report):
    found = report.predictions
    (_, said) = report.screen.answers["limits"]
    (share,) = re.findall(r"P leaves (\d+) % more", said)
    assert 0 <= 100 * missed(random_prior(SHAPE, 3)) - int(share) < 1
    assert (
        found.default_name == "NPGD(prior, finish=0)" in " ".join(report.screen.answers["quality"])
    )
    for none in (0.01, -0.2, float("nan"), float("inf")):
        other = dataclasses.replace(report, predictions=dataclasses.replace(found, missed=none))
        assert len(other.screen.answers["limits"]) == 1


def test_how_good_it_is_are_means_of_the_images_and_says_so(report):
    run = report.predictions.default
    rival = report.predictions.advice.best_without_prior
    own, inside, other = report.screen.answers["quality"]
    for said, error in ((own, run.error[-1]), (other, rival.error)):
        decibels, mean = numbers(said)
        assert decibels == pytest.approx(float(psnr(error).mean()), abs=0.051)
        assert mean == pytest.approx(float(error.mean()), rel=6e-3)
    assert inside == "S holds all 3 images, to rounding."
    assert rival.change.name.lower() in other.lower()


def test_of_one_image_nothing_is_called_a_mean(report):
    run = report.predictions.default
    one = dataclasses.replace(run, error=run.error[:, :1])
    found = dataclasses.replace(report.predictions, default=one, advice=None)
    said = dataclasses.replace(report, predictions=found).screen.answers["quality"][0]
    assert "PSNR" in said and "mean" not in said


@pytest.fixture(scope="module")
def beside():
    A = Gaussian(SHAPE, 12, 0, torch.float64)
    return verify(A, random_prior(SHAPE, 3), **SMALL, effort="quick", baselines=True)


def test_baselines_stand_on_the_screen_in_the_runs_and_in_the_pictures(report, beside):
    assert list(beside.predictions.baselines) == list(BASELINES.values())
    _, _, *said = beside.screen.answers["quality"]
    for line, (name, run) in zip(said, beside.predictions.baselines.items(), strict=True):
        assert line.lower().startswith(f"{name}, without the prior".lower())
        assert numbers(line)[1] == pytest.approx(float(run.error[-1].mean()), rel=6e-3)
    assert [run["name"] for run in beside.to_dict()["runs"]][-2:] == list(BASELINES.values())
    (axis,) = figures.draw_predictions(beside).axes
    assert not any("total" in str(line.get_label()) for line in axis.get_lines())
    page = beside.to_html()
    assert all(f"recovered, {name}" in page for name in BASELINES.values())
    assert "total variation" not in str(report.screen).lower()


def test_what_ran_as_a_baseline_is_not_run_again_by_the_advice(beside):
    for trial in beside.predictions.advice.trials:
        if trial.change.name in BASELINES.values():
            assert trial.seconds == beside.predictions.baselines[trial.change.name].seconds
    tried = {trial.change.name for trial in beside.predictions.advice.trials}
    assert set(BASELINES.values()) <= tried


def test_a_baseline_that_fails_leaves_its_reason(monkeypatch):
    from analysis.report import predictions

    def broken(method, *rest):
        raise RuntimeError(f"no {method} here")

    monkeypatch.setattr(predictions, "solver_of", broken)
    A = Gaussian(SHAPE, 12, 0, torch.float64)
    found = verify(A, random_prior(SHAPE, 3), **SMALL, effort="quick", baselines=True).predictions
    assert found.baselines == {}
    assert found.without["total variation"] == "failed: no tv here"
