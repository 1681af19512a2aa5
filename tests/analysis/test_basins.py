"""Basins: shares hold as often as they say, norms contract, iterations come out as predicted."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
import npgd
from analysis import testing
from analysis.basins import lower_share, lyapunov


def spectrum(pairs, real=(), mix=0.0, seed=0):
    """A matrix with eigenvalues ρ exp(±iφ) and real ones; `mix` makes it less normal."""
    blocks = [
        rho * torch.tensor([[math.cos(phi), -math.sin(phi)], [math.sin(phi), math.cos(phi)]])
        for rho, phi in pairs
    ] + [torch.tensor([[value]]) for value in real]
    diagonal = torch.block_diag(*[block.double() for block in blocks])
    shear = torch.eye(len(diagonal), dtype=torch.float64)
    shear += mix * testing.normal(*diagonal.shape, seed=seed).triu(1)
    return shear @ diagonal @ torch.linalg.inv(shear)


def affine_map(matrix, at, bend=0.0):
    """z̄ + M (z − z̄) + bend ‖z − z̄‖² in every coordinate."""
    return lambda z: at + (z - at) @ matrix.T + bend * (z - at).square().sum(1, keepdim=True)


def path(T, z, n):
    points = [z]
    for _ in range(n):
        points.append(T(points[-1]))
    return torch.stack(points)


def limited(matrix, radius):
    """Contracts as `matrix` within a cube of half side `radius` around 0, and doubles outside."""

    def T(z):
        inside = (z.abs().amax(1, keepdim=True) <= radius).to(z)
        return inside * (z @ matrix.T) + (1 - inside) * 2 * z

    return T


@settings(max_examples=20)
@given(
    rho=st.floats(0.1, 0.98), phi=st.floats(0.1, 3.0), mix=st.floats(0, 5), seed=st.integers(0, 99)
)
def test_in_lyapunovs_norm_every_contraction_contracts(rho, phi, mix, seed):
    M = spectrum([(rho, phi)], [0.5 * rho, -0.3], mix, seed)
    W = lyapunov(M)
    torch.testing.assert_close(
        M.T @ W @ M - W, -torch.eye(4).double(), atol=1e-6 * float(W.norm()), rtol=0
    )
    values = torch.linalg.eigvalsh(W)
    assert float(values[0]) >= 1 - 1e-9
    L = torch.linalg.cholesky(W)
    stretch = torch.linalg.matrix_norm(L.T @ M @ torch.linalg.inv(L.T), 2)
    assert float(stretch) ** 2 == pytest.approx(1 - 1 / float(values[-1]), abs=1e-6)


def test_a_linear_map_moves_every_start_nearer():
    M = spectrum([(0.9, 0.6)], [0.4], mix=5.0)
    at = testing.normal(2, 3)
    T = affine_map(M, at)
    assert float(torch.linalg.matrix_norm(M, 2)) > 1  # in the Euclidean norm it stretches
    rest = analysis.fixed_point_of(T, at + 0.1)
    basin = analysis.basin_of(T, rest, at + 5.0, draws=200)
    assert bool((basin.share == 1).all())
    bound = (0.05 / basin.share.numel()) ** (1 / 200)  # of 200 out of 200
    assert basin.at_least.flatten().tolist() == pytest.approx([bound] * basin.share.numel())
    assert bool((basin.reach == basin.radius[-1]).all())
    assert basin.enters.tolist() == [0, 0]


@settings(max_examples=20)
@given(draws=st.integers(1, 300), epsilon=st.floats(1e-4, 0.2), data=st.data())
def test_the_lower_bound_is_clopper_and_pearsons(draws, epsilon, data):
    count = data.draw(st.integers(0, draws))
    share = torch.tensor([count / draws], dtype=torch.float64)
    bound = float(lower_share(share, draws, epsilon))
    if count == 0:
        assert bound == 0
    else:  # at that share, so many successes or more have probability ε
        assert scipy.stats.binom.sf(count - 1, draws, bound) == pytest.approx(epsilon, rel=1e-6)
    assert bound <= float(share)


def test_the_statement_holds_as_often_as_it_says():
    # Outside a cube the map doubles: the share of a sphere inside is known by many draws.
    at = torch.zeros(1, 3, dtype=torch.float64)
    T = limited(0.5 * torch.eye(3).double(), 1.0)
    rest = analysis.fixed_point_of(T, at + 0.3)
    radii = [0.8, 1.3, 1.6]
    unit = testing.normal(1_000_000, 3)
    largest = (unit.abs().amax(1) / unit.norm(dim=1)) / math.sqrt(1 / (1 - 0.25))  # W = 4/3 I
    truth = torch.stack([(r * largest <= 1).double().mean() for r in radii])
    assert 0.05 < float(truth[1]) < 0.95
    repetitions, broken = 100, 0
    for seed in range(repetitions):
        found = analysis.basin_of(
            T, rest, at + 0.3, radii=radii, draws=60, epsilon=0.1, seed=seed, n_iter=1
        )
        broken += bool((found.at_least[:, 0] > truth + 0.003).any())
    assert broken <= 10 + 3 * math.sqrt(9)


def test_the_basin_ends_where_the_map_ends():
    at = torch.zeros(1, 2, dtype=torch.float64)
    T = limited(0.5 * torch.eye(2).double(), 1.0)
    rest = analysis.fixed_point_of(T, at + 0.3)
    W = 1 / (1 - 0.25)
    radii = [0.5, 0.9 * math.sqrt(W), 1.5 * math.sqrt(W) * math.sqrt(2)]
    basin = analysis.basin_of(T, rest, at + 0.9, radii=radii, draws=400)
    assert basin.share[:, 0].tolist() == [1, 1, 0]
    assert float(basin.reach) == radii[1]
    assert basin.at_least[2].tolist() == [0]


@settings(max_examples=10)
@given(rho=st.floats(0.5, 0.95), phi=st.floats(0.2, 2.9), seed=st.integers(0, 99))
def test_predicted_iterations_are_those_of_the_run(rho, phi, seed):
    M = spectrum([(rho, phi)], [0.3, -0.2], 0.5, seed)
    at = 1 + testing.normal(2, 4, seed=seed).abs()
    T, start = affine_map(M, at, bend=0.002), at + 0.3 * testing.normal(2, 4, seed=seed + 1)
    rest = analysis.fixed_point_of(T, start, max_iter=2000)
    if not bool(rest.rests.all()) or float((rest.point - at).abs().max()) > 1e-6:
        return  # the bend has carried it elsewhere
    basin = analysis.basin_of(T, rest, start, draws=20, n_iter=1000)
    run = (path(T, start, 1000) - rest.point).norm(dim=2) / rest.point.norm(dim=1)
    actual = (run <= 1e-6).int().argmax(0).double()
    assert bool((basin.linear_from >= 0).all())
    assert float((basin.iterations(1e-6) / actual - 1).abs().max()) < 0.2


def test_of_images_that_do_not_rest_nothing_is_said():
    factor = torch.tensor([[0.5], [3.0]], dtype=torch.float64)

    def T(z):
        return factor * z + 1

    start = torch.ones(2, 2).double()
    basin = analysis.basin_of(T, analysis.fixed_point_of(T, start), start, draws=20)
    assert bool(basin.share[:, 1].isnan().all()) and not bool(basin.share[:, 0].isnan().any())
    assert basin.enters.tolist()[1] == -1
    none = analysis.basin_of(
        lambda z: 3 * z + 1, analysis.fixed_point_of(lambda z: 3 * z + 1, start), start, draws=5
    )
    assert none.status == "no image rests, so that there is no basin"
    assert none.status in str(none)


def test_npgd_has_a_basin_that_prints_and_converts():
    prior, A = testing.random_prior((1, 8, 8), 3), npgd.Gaussian((1, 8, 8), 20).double()
    y = A(prior.sample(2, seed=1))
    rest = analysis.fixed_point(A, prior, y, 0.3)
    basin, again = (analysis.basin(A, prior, y, rest, draws=30, seed=3) for _ in range(2))
    assert torch.equal(basin.share, again.share)
    assert len(str(basin).splitlines()) <= 20
    kept = basin.to_dict()
    assert kept["status"] == basin.status
    assert len(kept["at_least"]) == len(basin.radius)
    assert bool((basin.at_least <= basin.share).all())


def test_wrong_arguments_are_named():
    prior, A = testing.random_prior((1, 8, 8), 3), npgd.Gaussian((1, 8, 8), 20).double()
    y = A(prior.sample(2, seed=1))
    rest = analysis.fixed_point(A, prior, y, 0.3)
    with pytest.raises(TypeError, match="rest"):
        analysis.basin(A, prior, y, None)
    for word, settings_ in (
        ("radii", {"radii": [-1.0]}), ("epsilon", {"epsilon": 1.5}), ("wanted", {"wanted": 0.0}),
        ("draws", {"draws": 0}), ("n_iter", {"n_iter": 0}), ("seed", {"seed": -1}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            analysis.basin(A, prior, y, rest, **settings_)
    with pytest.raises(ValueError, match="rest"):
        analysis.basin(A, prior, y[:1], rest)
    with pytest.raises(ValueError, match="x0"):
        analysis.basin_of(lambda z: z, rest, torch.zeros(1, 1).double())
