"""Designed operators: against dense eigendecompositions, brute force, and exact constants."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
import npgd
from analysis.design import design_dct, design_secant_pca, local_coherence, secant_points
from analysis.design import secant_pca as design
from analysis.testing import normal, random_affine_set

DOUBLE = torch.float64
SHAPE = (1, 4, 6)


def points(count=30, shape=SHAPE, seed=0):
    """Points that vary far more along some directions than along others, and no two alike."""
    n = math.prod(shape)
    scales = torch.logspace(0, -1.5, n, dtype=DOUBLE)
    return (3 + normal(count, n, seed=seed) * scales).reshape(count, *shape)


def second_moment(x, unit):
    """Mean of s sᵀ over all pairs, one secant after another."""
    secants = torch.stack([a - b for a, b in itertools.combinations(x.flatten(1), 2)])
    secants = secants[secants.norm(dim=1) > 0]
    if unit:
        secants = secants / secants.norm(dim=1, keepdim=True)
    return secants.T @ secants / len(secants), secants


PATHS = {"dense": 2048, "Lanczos": 1}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("unit", [True, False])
@settings(deadline=None, max_examples=10)
@given(m=st.integers(1, 24), seed=st.integers(0, 2**31))
def test_secant_pca_is_the_dense_eigendecomposition(path, unit, m, seed):
    x = points(seed=seed)
    moment, secants = second_moment(x, unit)
    values, vectors = torch.linalg.eigh(moment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(design, "DENSE", PATHS[path])
        patch.setattr(design, "TILE", 7)
        A = design_secant_pca(x, m, unit=unit, tol=1e-12)
    found = torch.tensor(A.provenance["eigenvalues"], dtype=DOUBLE)
    torch.testing.assert_close(found, values.flip(0)[:m], rtol=1e-9, atol=1e-12)
    # Eigenvalues of random matrices are simple, so the eigenvectors agree up to sign.
    agreement = (A.matrix * vectors.flip(1)[:, :m].T).sum(1).abs()
    torch.testing.assert_close(agreement, torch.ones_like(agreement), rtol=0, atol=1e-7)
    mean = A(secants.reshape(-1, *SHAPE)).square().sum() / secants.square().sum()
    assert A.provenance["captured"] == pytest.approx(float(mean), rel=1e-9)
    assert A.provenance["secants"] == 30 * 29 // 2


@pytest.mark.parametrize("path", PATHS)
def test_rows_are_orthonormal_and_ordered(path, monkeypatch):
    monkeypatch.setattr(design, "DENSE", PATHS[path])
    for dtype in (torch.float32, DOUBLE):
        A = design_secant_pca(points(300, (1, 12, 12)).to(dtype), 50)
        assert A.matrix.dtype == dtype and A.row_orthonormal
        values = A.provenance["eigenvalues"]
        assert values == sorted(values, reverse=True)
        assert A.provenance["residual"] <= 1e-5
        assert bool((A.matrix.gather(1, A.matrix.abs().argmax(1, keepdim=True)) > 0).all())


def test_lanczos_agrees_with_dense_in_float32(monkeypatch):
    x = points(400, (1, 12, 12)).float()
    exact = design_secant_pca(x, 40)
    monkeypatch.setattr(design, "DENSE", 1)
    A = design_secant_pca(x, 40)
    assert A.provenance["captured"] == pytest.approx(exact.provenance["captured"], abs=1e-6)
    # Cosines of the principal angles between the row spaces.
    assert float(torch.linalg.svdvals(A.matrix @ exact.matrix.T).min()) > 1 - 1e-3


def test_lanczos_survives_points_of_low_rank(monkeypatch):
    """Five dimensions and twelve rows asked for: the images of the basis are nearly zero."""
    monkeypatch.setattr(design, "DENSE", 1)
    x = random_affine_set(SHAPE, 5).sample(40, seed=3)
    A = design_secant_pca(x, 12)
    assert A.row_orthonormal
    assert A.provenance["captured"] == pytest.approx(1, abs=1e-9)
    assert max(A.provenance["eigenvalues"][5:]) < 1e-12


def test_unnormalised_secants_give_twice_the_covariance():
    x = points(50)
    A = design_secant_pca(x, 24, unit=False)
    covariance = torch.cov(x.flatten(1).T)
    rebuilt = (A.matrix.T * torch.tensor(A.provenance["eigenvalues"], dtype=DOUBLE)) @ A.matrix
    torch.testing.assert_close(rebuilt, 2 * covariance)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_equal_and_near_points(path, dtype, monkeypatch):
    """Equal points have no secant; near ones a unit secant like any other, cancellation or not."""
    monkeypatch.setattr(design, "DENSE", PATHS[path])
    x = points(20).to(dtype)
    x = torch.cat([x, x[:5], x[5:10] + 1e-4 * normal(5, *SHAPE, seed=9).to(dtype)])
    moment, secants = second_moment(x.double(), True)
    A = design_secant_pca(x, 24)
    assert A.provenance["secants"] == len(secants) == 30 * 29 // 2 - 5
    values, rows = torch.tensor(A.provenance["eigenvalues"], dtype=DOUBLE), A.matrix.double()
    rebuilt = (rows.T * values) @ rows
    # Float32 keeps a difference of 1e-4 near 3 to 2e-3, in five secants of 430.
    tolerance = 5e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(rebuilt, moment, rtol=0, atol=tolerance)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("unit", [True, False])
def test_random_pairs_tend_to_all_pairs(path, unit, monkeypatch):
    monkeypatch.setattr(design, "DENSE", PATHS[path])
    x = points(25)
    moment, _ = second_moment(x, unit)
    scale = float(moment.trace())
    distances = []
    for pairs in (500, 50_000):
        A = design_secant_pca(x, 24, pairs=pairs, unit=unit, tol=1e-10)
        values = torch.tensor(A.provenance["eigenvalues"], dtype=DOUBLE)
        distances.append(float(((A.matrix.T * values) @ A.matrix - moment).norm()) / scale)
    # A hundred times the pairs, a tenth of the error, give or take its own spread.
    assert distances[1] < 0.02 and distances[1] < distances[0] / 4


def test_constants_on_an_affine_set_are_exact():
    """k dimensions and m ≥ k: the rows hold the set's directions, and A is an isometry on it."""
    prior = random_affine_set(SHAPE, 5)
    A = design_secant_pca(prior, 8, points=200)
    rec = analysis.estimate_rec(A, prior, points=50, looks=("secants",))
    assert rec.exact and rec.alpha == pytest.approx(1, rel=1e-9)
    assert rec.kappa == pytest.approx(1, rel=1e-9)
    fewer = design_secant_pca(prior, 3, points=200)
    rec = analysis.estimate_rec(fewer, prior, points=50, looks=("secants",))
    assert rec.alpha == pytest.approx(0, abs=1e-12)


def test_among_row_orthonormal_operators_the_mean_is_largest():
    x = points(60)
    _, secants = second_moment(x, True)
    s = secants.reshape(-1, *SHAPE)

    def mean(A):
        return float(A(s).square().sum(1).mean())

    best = mean(design_secant_pca(x, 6))
    others = [npgd.whiten(npgd.Gaussian(SHAPE, 6, seed, DOUBLE)) for seed in range(20)]
    others += [npgd.SubsampledDCT(SHAPE, 6, seed, dtype=DOUBLE) for seed in range(20)]
    assert best > max(map(mean, others))


def test_recover_and_verify_take_designed_operators(tmp_path):
    prior = random_affine_set(SHAPE, 5)
    x = prior.sample(4, seed=5)
    for A in (
        design_secant_pca(prior, 8, points=100),
        design_dct(prior, 20, points=100),
        npgd.whiten(npgd.Gaussian(SHAPE, 12, dtype=DOUBLE)),
    ):
        npgd.save_operator(A, tmp_path / "A.safetensors")
        B = npgd.load_operator(tmp_path / "A.safetensors")
        assert {**B.provenance, "npgd": ""} == {**A.provenance, "npgd": ""}
        solution = npgd.recover(B, B(x), npgd.NPGD(prior, "1/beta", max_iter=2000, tol=0), x)
        assert float(solution.error[-1].max()) < 1e-6
    looks = analysis.RecSettings(points=50, tangent_points=5, search_starts=2, search_steps=5)
    report = analysis.verify(B, prior, effort="quick", rec=looks, count=2, n_iter=3)
    assert report.rec.beta_certain == 1


def test_whitened_measurements_recover_the_same_image():
    """y was measured with A; W.whiten(y) is what W would have measured."""
    prior, A = random_affine_set(SHAPE, 5), npgd.Gaussian(SHAPE, 12, dtype=DOUBLE)
    x = prior.sample(4, seed=5)
    W = analysis.whiten(A)
    solution = npgd.recover(W, W.whiten(A(x)), npgd.NPGD(prior, 1.0, max_iter=2000, tol=0), x)
    assert float(solution.error[-1].max()) < 1e-9
    assert analysis.whiten is npgd.whiten


def test_local_coherence_is_the_largest_coefficient_of_a_secant():
    x = points(12)
    transform = npgd.SubsampledDCT(SHAPE, index=torch.arange(24), dtype=DOUBLE)
    _, secants = second_moment(x, True)
    expected = transform(secants.reshape(-1, *SHAPE)).abs().amax(0)
    # 20,000 draws meet each of the 66 pairs.
    torch.testing.assert_close(local_coherence(x, pairs=20_000), expected)


def test_adapted_coefficients_are_those_the_prior_uses():
    """Images of four frequencies: no other one is ever drawn."""
    used = torch.tensor([1, 4, 9, 20])
    dct = npgd.SubsampledDCT(SHAPE, index=used, dtype=DOUBLE)
    x = dct.adjoint(normal(40, 4))
    assert design_dct(x, 4).index.tolist() == used.tolist()


def test_points_of_a_prior_are_its_samples_and_data_is_itself():
    prior = random_affine_set(SHAPE, 5)
    torch.testing.assert_close(secant_points(prior, 10, seed=3), secant_points(prior, 20, 3)[:10])
    assert not torch.equal(secant_points(prior, 10, seed=3), secant_points(prior, 10, seed=4))
    x = points(9)
    assert torch.equal(secant_points(x), x)
    some = secant_points(x, 4, seed=1).flatten(1)
    assert all(any(torch.equal(row, other) for other in x.flatten(1)) for row in some)
    finite = npgd.FiniteSet(x)
    assert secant_points(finite, 50).shape == (50, *SHAPE)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: design_secant_pca(points(), 0), ValueError, "m must be at least 1"),
        (lambda: design_secant_pca(points(), 25), ValueError, "m must be at most 24"),
        (lambda: design_secant_pca(points(5), 5), ValueError, "m must be at most 4"),
        (
            lambda: design_secant_pca(points(), 3, points=31),
            ValueError,
            "points must be at most 30",
        ),
        (lambda: design_secant_pca(points(), 3, pairs=0), ValueError, "pairs must be"),
        (lambda: design_secant_pca(points(), 3, tol=0), ValueError, "tol must be"),
        (lambda: design_secant_pca(points(), 3, seed=-1), ValueError, "seed must be"),
        (lambda: design_secant_pca(torch.ones(5, *SHAPE), 3), ValueError, "points that differ"),
        (lambda: design_secant_pca(points()[0], 3), ValueError, "at least two images"),
        (lambda: design_secant_pca(points() / 0, 3), ValueError, "prior must be finite"),
        (lambda: design_secant_pca("mnist", 3), TypeError, "prior must have .*, got str"),
        (lambda: design_dct(points(), 25), ValueError, "m must be at most 24"),
        (lambda: design_dct("mnist", 3), TypeError, "prior must have .*, got str"),
    ],
)
def test_door(call, error, named):
    with pytest.raises(error, match=named):
        call()


def run(*arguments):
    from typer.testing import CliRunner

    from analysis.commands import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("method", ["secant-pca", "dct", "dct-uniform", "gaussian"])
def test_the_command_writes_what_recover_takes(method, tmp_path):
    file = tmp_path / "A.safetensors"
    arguments = ["design", "--method", method, "--m", 30, "--points", 300, "--output", file]
    done = run(*arguments, "--no-check")
    assert done.exit_code == 0, done.output
    A = npgd.load_operator(file)
    assert A.m == 30 and A.provenance["method"] == method
    again = run(*arguments)
    assert again.exit_code == 2 and "--force" in again.output
    assert run(*arguments, "--no-check", "--whiten", "--force").exit_code == 0
    assert npgd.load_operator(file).row_orthonormal
    done = run("recover", "--operator", file, "--count", 2, "--max-iter", 2, "--step-size", 1,
               "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "m = 30" in (tmp_path / "out" / "results.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["design", "--output", "A.pt", "--m", 3], "ends in .safetensors"),
        (["design", "--output", "A.safetensors"], "needs the number of measurements"),
        (["design", "--output", "A.safetensors", "--m", 785], "--m must be from 1 to 784"),
        (["recover", "--operator", "missing.safetensors"], "path must be a file"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []
