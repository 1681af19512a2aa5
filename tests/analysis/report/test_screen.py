"""What a report says first: each sentence from the numbers that it speaks of."""

import dataclasses
import re

import pytest
import torch

from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.report import verify
from analysis.testing import random_prior
from npgd.images import psnr
from npgd.operators import Gaussian

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
