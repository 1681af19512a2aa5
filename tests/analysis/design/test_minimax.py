"""Minimax: exact where the set is affine, never worse than its start, one seed one matrix."""

import pytest
import torch
from torch import nn

import npgd
from analysis.design import design_minimax, minimax
from analysis.rec import estimate_rec
from analysis.testing import normal, random_affine_set

SHAPE = (1, 4, 5)


class Curved(nn.Module):
    """A small smooth generator of 20 pixels; the last `flat` latents do nothing."""

    def __init__(self, flat: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.image_shape = 3, SHAPE
        used = torch.ones(3)
        used[3 - flat :] = 0
        self.first = nn.Parameter(normal(3, 8, dtype=torch.float32) * used[:, None])
        self.second = nn.Parameter(normal(8, 20, seed=1, dtype=torch.float32))

    def generate(self, z: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(z @ self.first) @ self.second).reshape(-1, *SHAPE)


SMALL = {"tangent_points": 150, "held_out": 60, "steps": 150}


@pytest.fixture(autouse=True)
def _less_work(monkeypatch):
    monkeypatch.setattr(minimax, "SECANTS", 1000)
    monkeypatch.setattr(minimax, "SEARCH_STEPS", 15)


@pytest.mark.parametrize("m", [3, 5])
def test_an_affine_set_is_embedded_isometrically(m):
    """With m ≥ k an exact isometry exists; κ is exact here, over all directions."""
    S = random_affine_set(SHAPE, 3)
    A = design_minimax(S, m, **(SMALL | {"steps": 300, "tangent_points": 20, "held_out": 5}))
    rec = estimate_rec(A, S)
    assert rec.exact and rec.kappa == pytest.approx(1, abs=5e-3)
    assert rec.beta == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("orthonormal", [False, True])
def test_better_than_its_start_on_training_and_held_out_directions(orthonormal):
    A = design_minimax(Curved(), 5, orthonormal=orthonormal, **SMALL)
    p = A.provenance
    assert p["kappa training"] <= p["kappa training at start"] * (1 + 1e-5)
    assert p["kappa held out"] < p["kappa held out at start"]
    assert A.row_orthonormal == orthonormal
    assert p["found directions"] > 0


def test_better_than_gaussian_on_directions_of_a_third_draw():
    S = Curved()
    looks = ("secants", "tangents")
    kappas = [
        estimate_rec(A, S, points=200, tangent_points=200, looks=looks, seed=5).kappa
        for A in (design_minimax(S, 5, **SMALL), npgd.Gaussian(SHAPE, 5, seed=0))
    ]
    assert kappas[0] < 0.8 * kappas[1]


def test_reported_kappa_is_that_of_the_operator():
    """Tangents of the training latents, recomputed through `analysis.rec.tangents.tangents`."""
    from analysis.rec.tangents import tangents
    from analysis.tasks import draw_latents

    S = Curved()
    A = design_minimax(S, 6, **SMALL)
    z = draw_latents(3, SMALL["tangent_points"], minimax._stream(0, 0))
    scan = tangents(A, S, z)
    kappa = float(scan.high.max() / scan.low.min())
    assert kappa <= A.provenance["kappa training"] * (1 + 1e-4)
    assert scan.high.max() <= 1 + 1e-4  # the scale: no unit direction trained on beyond 1


def test_never_worse_than_the_start_even_after_useless_steps(monkeypatch):
    monkeypatch.setattr(minimax, "LEARNING_RATE", 50.0)
    p = design_minimax(Curved(), 5, **SMALL).provenance
    # The start's κ is 300 or so, and in float32 known to about ε κ of itself.
    rounding = 1 + 1e-3
    assert p["kappa training"] <= p["kappa training at start"] * rounding
    assert p["kappa held out"] <= p["kappa held out at start"] * rounding


def test_one_seed_one_matrix():
    first, again, other = (design_minimax(Curved(), 5, seed=s, **SMALL).matrix for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_latents_that_do_nothing_are_no_tangents():
    A = design_minimax(Curved(flat=1), 4, **SMALL)
    assert A.provenance["tangent dimension"] == 2
    assert A.provenance["kappa training"] < 10


def test_images_have_secants_only():
    images = (normal(60, 3) @ normal(3, 20, seed=1)).float()
    A = design_minimax(images.reshape(-1, *SHAPE), 4, steps=200)
    assert A.provenance["tangent points"] == 0
    assert A.provenance["kappa held out"] < 1.2  # the images span three dimensions


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"m": 2}, ValueError, "m must"),
        ({"m": 21}, ValueError, "m must"),
        ({"m": 4.5}, TypeError, "m must"),
        ({"steps": 0}, ValueError, "steps"),
        ({"rounds": 0}, ValueError, "rounds"),
        ({"held_out": 0}, ValueError, "held_out"),
        ({"tangent_points": 0}, ValueError, "tangent_points"),
        ({"orthonormal": "yes"}, TypeError, "orthonormal"),
        ({"seed": -1}, ValueError, "seed"),
    ],
)
def test_errors_name_the_argument(arguments, error, name):
    with pytest.raises(error, match=name):
        design_minimax(Curved(), **({"m": 5} | SMALL | arguments))


def test_errors_of_sets():
    with pytest.raises(TypeError, match="prior"):
        design_minimax(object(), 3)
    with pytest.raises(ValueError, match="hold some out"):
        design_minimax(normal(4, 1, 2, 2), 2)
    with pytest.raises(ValueError, match="equal"):
        design_minimax(torch.ones(20, 1, 2, 2), 2)


def test_too_few_rows_are_refused_before_the_long_work(monkeypatch):
    def long_work(*given):
        raise AssertionError

    monkeypatch.setattr(minimax, "_directions", long_work)
    with pytest.raises(ValueError, match="m must be from 3 to 20, got 2"):
        design_minimax(Curved(), 2)
    with pytest.raises(ValueError, match="m must be from 2 to 20, got 21"):
        design_minimax(Curved(flat=1), 21)
