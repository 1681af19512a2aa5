"""What is certified encloses what is known, holds what is sampled, and notices what is wrong."""

import copy
import dataclasses

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

import analysis
import npgd
from analysis import testing
from analysis.proofs import CertifiedProjection, LayeredSet, layers_of, pairs, taylor, tree
from analysis.proofs.analytic import SETS, analytic_case
from analysis.proofs.rec import measured_layer
from npgd.images import ratio
from npgd.networks import TanhGenerator

SHAPE = (1, 4, 4)


def net(k=2, hidden=6, seed=0, scale=0.7):
    """A small tanh set of two hidden layers, k latents within ±1."""
    sizes = [(hidden, k), (hidden, hidden), (16, hidden)]
    weights = [scale * testing.normal(*size, seed=seed + i) for i, size in enumerate(sizes)]
    biases = [0.3 * testing.normal(size[0], seed=seed + 9 + i) for i, size in enumerate(sizes)]
    return LayeredSet(weights, biases, SHAPE, low=[-1.0] * k, high=[1.0] * k)


def setting_of(A, S):
    measured, error, _ = measured_layer(A, S)
    return pairs.frame(S, measured, error, 8.0)


@pytest.mark.parametrize("name", SETS)
def test_the_certified_constants_of_a_known_set_enclose_the_true_ones(name):
    S, A, (alpha, beta) = analytic_case(name, m=24)
    one = S.latent_dim == 1
    found = analysis.certify_rec(A, S, tolerance=0.01 if one else 0.3, span=not one)
    assert found.complete
    assert found.alpha[0] <= alpha <= found.alpha[1]
    assert found.beta[0] <= beta <= found.beta[1]
    assert found.kappa[1] / found.kappa[0] <= (1.01 if one else 1.3)
    assert found.kappa[0] <= beta / alpha <= found.kappa[1]


def test_branch_and_bound_alone_encloses_the_constants_of_a_flat_torus():
    S, A, (alpha, beta) = analytic_case("flat torus", m=24)
    found = analysis.certify_rec(A, S, tolerance=0.3, span=False)
    assert found.complete and min(found.cells) > 0
    assert found.alpha[0] <= alpha <= found.alpha[1] and found.beta[0] <= beta <= found.beta[1]


@pytest.fixture(scope="module")
def certified():
    S, A = net(scale=0.4), npgd.Gaussian(SHAPE, 5, seed=1, dtype=torch.float64)
    return S, A, analysis.certify_rec(A, S, tolerance=0.5)


def test_no_secant_or_tangent_that_is_sampled_lies_outside_the_certified_interval(certified):
    S, A, found = certified
    assert found.complete
    x = S.sample(4000, seed=3)
    z = S.sample_latents(2000, seed=4)
    u = 1e-5 * torch.nn.functional.normalize(testing.normal(2000, 2, seed=5), dim=1)
    for s in (x[:2000] - x[2000:], S.generate(z + u) - S.generate(z - u)):
        seen = ratio(A, s)
        assert found.alpha[0] <= float(seen.min()) and float(seen.max()) <= found.beta[1]


def test_the_pairs_that_are_named_have_the_ratios_that_are_named(certified):
    S, A, found = certified
    for ends, value, tangent in zip(
        (found.lowest, found.highest), (found.alpha[1], found.beta[0]), found.tangent, strict=True
    ):
        middle, d = ends.mean(0), ends[0] - ends[1]
        d = 1e-5 * d if tangent else d
        x = S.generate(torch.stack([middle + d / 2, middle - d / 2]))
        assert float(ratio(A, x[:1] - x[1:])) == pytest.approx(value, rel=1e-6)


def test_a_certificate_is_checked_and_a_corrupted_one_is_caught(certified):
    S, A, found = certified
    good = found.certificate
    assert analysis.check_rec(A, S, good) == "valid"
    for name, factor in (("alpha", 1.3), ("beta", 0.7)):
        assert "not shown" in analysis.check_rec(A, S, good | {name: good[name] * factor})
    fewer = [good["splits"][0][:-1], good["splits"][1]]
    assert analysis.check_rec(A, S, good | {"splits": fewer}).startswith("alpha: ")
    changed = copy.deepcopy(good["splits"])
    changed[0][0][:1] = -1  # the whole box of pairs as one cell
    assert analysis.check_rec(A, S, good | {"splits": changed}) != "valid"
    other = npgd.Gaussian(SHAPE, 5, seed=7, dtype=torch.float64)
    assert analysis.check_rec(other, S, good) != "valid"


@pytest.mark.parametrize("lower", [True, False])
def test_a_cell_with_a_pair_of_the_wrong_sign_is_never_shown(lower, monkeypatch):
    """At ratios beyond those of its own pairs a cell must fail; with no remainder some pass."""
    S, A = net(seed=3, scale=1.2), npgd.Gaussian(SHAPE, 4, seed=2, dtype=torch.float64)
    setting = setting_of(A, S)
    draw = torch.Generator().manual_seed(0)
    count = 300
    centre = (torch.rand(count, 4, generator=draw).double() - 0.5) * 1.5
    centre[: count // 3, 2:] = 0
    half = 10 ** (-2 + 1.7 * torch.rand(count, 1, generator=draw).double()).expand(-1, 4)
    cells = pairs.Cells(centre, half)
    domain = tree.Domain(*(torch.full((2,), x, dtype=torch.float64) for x in (-9, 9)), (False,) * 2)
    inside = torch.rand(64, count, 4, generator=draw).double() * 2 - 1
    corners = centre + half * torch.where(inside[:32].repeat(2, 1, 1) > 0, 1.0, inside)
    s = S.generate((corners[..., :2] + corners[..., 2:] / 2).reshape(-1, 2))
    s = s - S.generate((corners[..., :2] - corners[..., 2:] / 2).reshape(-1, 2))
    seen = ratio(A, s).reshape(64, count)
    extreme = seen.amin(0) if lower else seen.amax(0)
    order = float(extreme.quantile(0.5))
    wanted = pairs.form(setting, order, lower)
    side = tree.Side(lower, order, torch.zeros(0), False, 0.0)
    good, _ = tree.examine(setting, wanted, cells, side, domain)
    wrong = extreme < order if lower else extreme > order
    assert bool(good.any()) and not bool((good & wrong).any())


def test_jets_are_the_derivatives_within_their_error_and_third_ones_within_their_bound():
    S = net(k=1, hidden=3)
    S1 = S.weights[0], S.biases[0], S.weights[1], S.biases[1]
    with mpmath.workdps(40):
        w1, b1, w2, b2 = (mpmath.matrix(part.numpy().tolist()) for part in S1)

        def feature(t, j):
            inner = [mpmath.tanh(w1[i, 0] * t + b1[i]) for i in range(3)]
            return mpmath.tanh(sum(w2[j, i] * inner[i] for i in range(3)) + b2[j])

        z, radius = torch.tensor([[0.37], [-0.8]], dtype=torch.float64), 0.25
        rows, third = taylor.expand(S, z, torch.full((2,), radius, dtype=torch.float64))
        errors = taylor.rounding(S, 1.0)
        for i in range(2):
            for j in range(3):
                exact = mpmath.taylor(lambda t, j=j: feature(t, j), mpmath.mpf(float(z[i, 0])), 2)
                for n, error in enumerate((errors.value, errors.first, errors.second)):
                    true = float(exact[n] * mpmath.factorial(n) - float(rows[i, n, j]))
                    assert abs(true) <= error < 1e-12
                for t in np.linspace(-radius, radius, 9):
                    bent = mpmath.diff(lambda t, j=j: feature(t, j), float(z[i, 0]) + t, 3)
                    assert abs(float(bent)) <= float(third[i, j])


def test_the_frame_measures_secants_and_their_images():
    S, A = net(), npgd.Gaussian(SHAPE, 5, seed=1, dtype=torch.float64)
    setting = setting_of(A, S)
    z = S.sample_latents(40, seed=0)
    x, psi = S.generate(z), S.features(z) @ setting.R.T
    s, d = x[:20] - x[20:], psi[:20] - psi[20:]
    square = s.flatten(1).square().sum(1)
    assert torch.allclose(square, d.square().sum(1), rtol=1e-11)
    assert torch.allclose(A(s).square().sum(1), (d @ setting.N * d).sum(1), rtol=1e-10)
    exact = torch.linalg.eigvalsh(setting.N)
    assert setting.eigenvalues[0] <= float(exact[0])
    assert float(exact[-1]) <= setting.eigenvalues[1]
    assert setting.eigenvalues[1] - setting.eigenvalues[0] <= float(exact[-1] - exact[0]) + 1e-9


def test_splits_cover_a_cell_up_to_the_mirror_image():
    root = pairs.Cells(torch.zeros(1, 4).double(), torch.tensor([[1.0, 1, 2, 2]]).double())
    cells = root
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        cells = tree.split(cells, torch.randint(4, (len(cells),), generator=draw))
    points = (2 * torch.rand(500, 4, generator=draw).double() - 1) * root.half
    mirrored = points * torch.tensor([1.0, 1, -1, -1])
    inside = [
        ((p[:, None] - cells.centre).abs() <= cells.half).all(2).any(1) for p in (points, mirrored)
    ]
    assert bool((inside[0] | inside[1]).all())


def test_where_the_budget_is_spent_the_bounds_are_weaker_and_hold(certified):
    S, A, found = certified
    short = analysis.certify_rec(A, S, tolerance=0.5, max_cells=500)
    assert not short.complete and "budget" in short.status
    assert short.alpha[0] <= found.alpha[1] and short.beta[1] >= found.beta[0]
    assert "budget" in analysis.check_rec(A, S, short.certificate)
    assert short.alpha[0] <= found.alpha[0] * 1.5 and short.to_dict()["complete"] is False


def test_a_matrix_and_the_same_operator_without_one_are_certified_alike():
    S = net(scale=0.4)
    mask = npgd.Inpainting(SHAPE, hole=2)
    dense = npgd.MatrixOperator(mask.double()(torch.eye(16).double().reshape(-1, *SHAPE)).T, SHAPE)
    one, two = (analysis.certify_rec(each, S, tolerance=0.5) for each in (mask, dense))
    assert one.alpha == pytest.approx(two.alpha, rel=1e-6)
    assert len(one.assumptions) == len(two.assumptions) + 1


def test_an_arc_of_a_circle_does_not_close():
    """Its secants turn less than the circle's, so that α and β lie strictly within."""
    S, A, (alpha, beta) = analytic_case("circle", m=24)
    for low, high in ((0.3, 1.1), (2.0, 5.0)):
        found = analysis.certify_rec(A, S, box=([low], [high]), tolerance=0.01, span=False)
        z = low + (high - low) * torch.rand(3000, 1, generator=torch.Generator().manual_seed(0))
        x = S.generate(z.double())
        seen = ratio(A, x[:1500] - x[1500:])
        assert found.alpha[0] <= float(seen.min()) <= found.alpha[1] * 1.01
        assert found.beta[0] / 1.01 <= float(seen.max()) <= found.beta[1]
        assert found.alpha[1] >= alpha and found.beta[0] <= beta


def test_the_layers_of_a_prior_are_its_generator():
    generator = TanhGenerator(2, 5, image_size=4)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    prior = npgd.GenerativePrior(generator, encoder, 2, SHAPE).double()
    S, z = layers_of(prior), testing.normal(7, 2)
    assert torch.allclose(S.generate(z), prior.generate(z), atol=1e-14)
    dcgan = testing.random_prior((1, 8, 8), 2)
    with pytest.raises(TypeError, match="prior must be a LayeredSet"):
        analysis.certify_rec(npgd.Gaussian((1, 8, 8), 3), dcgan)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box": -1.0}, "box must be"),
        ({"box": ([0.0, 0.0], [1.0])}, "box must have"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"max_cells": 0}, "max_cells must be"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        analysis.certify_rec(npgd.Gaussian(SHAPE, 3), net(), **settings)


def test_dependent_features_and_huge_weights_are_refused():
    S = net()
    same = torch.cat([S.weights[-1][:, :1]] * 6, dim=1)
    weights = [*S.weights[:-1], same]
    with pytest.raises(ValueError, match="independent"):
        analysis.certify_rec(npgd.Gaussian(SHAPE, 3), LayeredSet(weights, list(S.biases), SHAPE))
    huge = [1e9 * S.weights[0], *list(S.weights)[1:]]
    with pytest.raises(ValueError, match="float64"):
        analysis.certify_rec(npgd.Gaussian(SHAPE, 3), LayeredSet(huge, list(S.biases), SHAPE))


def test_a_certified_projection_is_within_delta_of_the_nearest_point_of_a_grid():
    S = net()
    P = CertifiedProjection(S, delta=1e-6)
    w = S.sample(5, seed=1) + 0.5 * testing.random_images(SHAPE, 5)
    z, gap = P.search(w)
    assert bool((gap <= 1e-6).all())
    marks = torch.linspace(-1, 1, 201).double()
    grid = S.generate(torch.cartesian_prod(marks, marks)).flatten(1)
    nearest = torch.cdist(w.flatten(1), grid).square().amin(1)
    own = (P.generate(z) - w).flatten(1).square().sum(1)
    assert bool((own <= nearest + gap).all()) and bool((z.abs() <= 1).all())
    inside = S.sample(5, seed=2)
    assert float((P.project(inside) - inside).flatten(1).square().sum(1).max()) <= 1e-6


def test_theorem_one_holds_by_proof_on_a_small_set_and_the_run_obeys_it():
    S, A = net(scale=0.4), npgd.Gaussian(SHAPE, 300, seed=0, dtype=torch.float64)
    found = analysis.certify_rec(A, S, tolerance=0.3, span=False)
    assert found.kappa[1] < 2 and "κ < 2" in found.status
    P, x = CertifiedProjection(S, delta=1e-4), S.sample(2, seed=3)
    step = 1 / found.beta[1]
    run = npgd.recover(
        A, A(x), npgd.NPGD(P, step, start="range", max_iter=5), x, record_iterates=True
    )
    check = analysis.check_convergence(
        A, A(x), x, run.iterates, step, found.alpha[0], found.beta[1], 1e-4, start=0
    )
    assert check.exceeded_at == (None,) * 2
    assert bool((check.rate < 1).all())


def test_results_show_themselves_and_convert(certified):
    found = certified[2]
    assert "certified constants: proved" in str(found) and len(str(found).splitlines()) < 20
    assert set(found.to_dict()) >= {"alpha", "beta", "kappa", "status", "assumptions"}
    assert dataclasses.is_dataclass(found)
