"""Secant and tangent directions: against brute force, and independent of who computes them."""

from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from analysis.rec import estimate_rec, secants
from analysis.rec import tangents as tangents_module
from analysis.rec.secants import all_pairs, histogram_edges, secants_from
from analysis.rec.tangents import tangent, tangents
from analysis.tasks import draw_latents, generate
from analysis.testing import exact_constants, normal, random_affine_set
from npgd import FiniteSet, Gaussian, GenerativePrior
from npgd.gauss_newton import jacobian
from npgd.images import ratio
from npgd.networks import DCGANGenerator, Encoder
from npgd.precision import converted

SHAPE = (1, 5, 6)


class Inline(Executor):
    """Runs every task at once, in the caller's thread."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Curve(nn.Module):
    """A small smooth generator; `flat` of its latents have no influence."""

    def __init__(self, latent_dim: int = 4, flat: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.image_shape = latent_dim, SHAPE
        used = torch.ones(latent_dim)
        used[latent_dim - flat :] = 0
        self.first = nn.Parameter(
            normal(latent_dim, 12, seed=seed, dtype=torch.float32) * used[:, None]
        )
        self.second = nn.Parameter(normal(12, 30, seed=seed + 1, dtype=torch.float32))

    def generate(self, z: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(z @ self.first) @ self.second).reshape(-1, *SHAPE)


@pytest.fixture(scope="module")
def dcgan() -> GenerativePrior:
    torch.manual_seed(0)
    return GenerativePrior(DCGANGenerator(6, width=4), Encoder(6, width=8), 6, (1, 28, 28))


def brute_force(operator: nn.Module, points: torch.Tensor) -> torch.Tensor:
    """All ratios i < j from float64 differences."""
    i, j = torch.triu_indices(len(points), len(points), 1)
    points = points.double()
    return ratio(operator.to(torch.float64), points[i] - points[j])


def images(count: int, seed: int, offset: float = 0.0, dtype=torch.float32) -> torch.Tensor:
    return (normal(count, *SHAPE, seed=seed) + offset).to(dtype)


@given(
    count=st.integers(2, 70),
    seed=st.integers(0, 10**6),
    offset=st.sampled_from([0.0, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=25, deadline=None)
def test_all_pairs_finds_the_extremes_of_all_pairs(count, seed, offset, dtype):
    points = images(count, seed, offset, dtype)
    operator = Gaussian(SHAPE, m=7, seed=seed, dtype=dtype)
    scan = all_pairs(operator, points)
    ratios = brute_force(operator, points)
    assert scan.n_pairs == len(ratios) == scan.histogram.total
    assert scan.lowest[0][0] == pytest.approx(float(ratios.min()), rel=1e-12)
    assert scan.highest[0][0] == pytest.approx(float(ratios.max()), rel=1e-12)


def test_pairs_across_tiles_and_panels(monkeypatch):
    monkeypatch.setattr(secants, "TILE", 7)
    monkeypatch.setattr(secants, "PANEL", 20)
    points, operator = images(67, 3), Gaussian(SHAPE, m=6)
    scan = all_pairs(operator, points, bins=50)
    ratios = brute_force(operator, points)
    assert scan.n_pairs == len(ratios)
    lowest = [value for value, _, _ in scan.lowest]
    assert lowest[0] == pytest.approx(float(ratios.min()), rel=1e-12)
    assert scan.highest[0][0] == pytest.approx(float(ratios.max()), rel=1e-12)
    assert lowest == sorted(lowest)
    counts, _ = np.histogram(ratios.numpy(), scan.histogram.edges)
    assert np.abs(counts - scan.histogram.counts).sum() <= 4  # a ratio on an edge may change bins


@pytest.mark.parametrize("gap", [1e-3, 1e-4, 1e-5])
def test_near_pairs_are_recomputed(gap):
    """The extreme secant lies between two points so near that the Gram form loses it."""
    operator = Gaussian(SHAPE, m=6, dtype=torch.float64)
    points = images(200, 1, dtype=torch.float64)
    hidden = torch.linalg.svd(operator.matrix).Vh
    points[50] = points[20] + gap * hidden[-1].reshape(SHAPE)  # A does not see this direction
    points[90] = points[70] + gap * hidden[0].reshape(SHAPE)  # and stretches this one most
    points = points.float()
    operator = operator.to(torch.float32)
    scan = all_pairs(operator, points)
    ratios = brute_force(operator, points)
    assert scan.n_near >= 2
    assert scan.lowest[0][1:] == (20, 50) and scan.highest[0][1:] == (70, 90)
    assert scan.lowest[0][0] == pytest.approx(float(ratios.min()), rel=1e-9)
    assert scan.highest[0][0] == pytest.approx(float(ratios.max()), rel=1e-9)


def test_equal_points_have_no_secant():
    points, operator = images(12, 2), Gaussian(SHAPE, m=6)
    repeated = points.repeat(40, 1, 1, 1)
    scan, once = all_pairs(operator, repeated), all_pairs(operator, points)
    assert scan.n_pairs == 480 * 479 // 2 - 12 * (40 * 39 // 2)
    assert scan.lowest[0][0] == once.lowest[0][0] and scan.highest[0][0] == once.highest[0][0]
    with pytest.raises(ValueError, match="points must differ"):
        all_pairs(operator, points[:1].repeat(5, 1, 1, 1))
    with pytest.raises(ValueError, match="points must be at least 2"):
        all_pairs(operator, points[:1])


@pytest.mark.parametrize(
    ("count", "equal"),
    [
        (700, [(0, 600)]),  # in two tiles of one panel
        (700, [(0, 1), (3, 4), (699, 698)]),
        (2500, [(5, 2400)]),  # in two panels
        (1100, [(i, i + 550) for i in range(550)]),  # every point twice
    ],
)
def test_equal_points_anywhere_have_no_secant_and_spoil_no_other(count, equal):
    points, operator = images(count, 7, dtype=torch.float64), Gaussian(SHAPE, 6, 0, torch.float64)
    for i, j in equal:
        points[j] = points[i]
    scan = all_pairs(operator, points)
    ratios = brute_force(operator, points)
    ratios = ratios[ratios.isfinite()]
    assert scan.n_pairs == scan.histogram.total == count * (count - 1) // 2 - len(equal)
    assert scan.lowest[0][0] == pytest.approx(float(ratios.min()), rel=1e-12)
    assert scan.highest[0][0] == pytest.approx(float(ratios.max()), rel=1e-12)


def test_equal_points_leave_exact_constants_and_estimates():
    points = images(700, 0, dtype=torch.float64)
    points[600] = points[0]
    operator = Gaussian(SHAPE, 6, dtype=torch.float64)
    ratios = brute_force(operator, points)
    alpha, beta = exact_constants(operator, FiniteSet(points))
    assert alpha == pytest.approx(float(ratios[ratios.isfinite()].min()), rel=1e-12)
    assert beta == pytest.approx(float(ratios[ratios.isfinite()].max()), rel=1e-12)
    assert estimate_rec(operator, points).alpha == pytest.approx(alpha, rel=1e-10)


@pytest.mark.parametrize("error", [1e-9, 1e-6])
def test_secants_as_short_as_the_error_of_the_points_are_left_out(error):
    """Copies, each off by rounding: only the secants between different originals remain."""
    originals, operator = images(15, 2, dtype=torch.float64), Gaussian(SHAPE, 6, 0, torch.float64)
    off = torch.nn.functional.normalize(normal(15, 30, seed=3)).reshape(-1, *SHAPE)
    points = torch.cat([originals, originals + error * off])
    scan = all_pairs(operator, points, error=error)
    assert scan.n_pairs == 30 * 29 // 2 - 15
    low, high = brute_force(operator, originals).aminmax()
    assert scan.lowest[0][0] == pytest.approx(float(low), rel=1e4 * error)
    assert scan.highest[0][0] == pytest.approx(float(high), rel=1e4 * error)
    with pytest.raises(ValueError, match="up to rounding"):
        all_pairs(operator, points[[0, 15]], error=error)
    nearest = secants_from(operator, points[15:16], originals, error=error)
    assert all(j != 0 for _, _, j in nearest[0])


def test_one_far_point_does_not_spoil_the_others():
    points, operator = images(300, 5), Gaussian(SHAPE, m=6)
    points[17] *= 1e4
    ratios = brute_force(operator, points)
    scan = all_pairs(operator.to(torch.float32), points)
    assert scan.lowest[0][0] == pytest.approx(float(ratios.min()), rel=1e-12)
    assert scan.highest[0][0] == pytest.approx(float(ratios.max()), rel=1e-12)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_secants_from_given_points(seed):
    points, x_true = images(60, seed), images(5, seed + 1)
    x_true[2] = points[7]  # an x* may be one of the points
    operator = Gaussian(SHAPE, m=7, seed=seed)
    found = secants_from(operator, x_true, points)
    operator = operator.to(torch.float64)
    for i, entries in enumerate(found):
        ratios = ratio(operator, points.double() - x_true[i].double())
        best = torch.where(torch.isnan(ratios), torch.inf, ratios).min()
        assert entries[0][0] == pytest.approx(float(best), rel=1e-12)
        assert entries[0][1] == i


def test_first_latents_of_a_larger_draw_are_the_same():
    many = draw_latents(5, 1000, seed=3)
    for count in (1, 17, 256, 257, 999):
        assert torch.equal(draw_latents(5, count, seed=3), many[:count])
    assert not torch.equal(draw_latents(5, 1000, seed=4), many)
    assert abs(float(many.mean())) < 0.05 and abs(float(many.var()) - 1) < 0.1


def test_executors_agree_to_the_last_bit(dcgan, monkeypatch):
    monkeypatch.setattr(secants, "PANEL", 100)
    monkeypatch.setattr(tangents_module, "TANGENT_CHUNK", 8)
    z = draw_latents(6, 300)
    points, operator = generate(dcgan, z), Gaussian((1, 28, 28), m=20)

    def outcome(executor):
        scan = all_pairs(operator, points, executor=executor)
        scanned = tangents(operator, dcgan, z[:24], executor=executor)
        histogram = scan.histogram.counts.tolist()
        return scan.lowest, scan.highest, histogram, scanned.low.tolist(), scanned.high.tolist()

    expected = outcome(None)
    assert outcome(Inline()) == expected
    for workers in (1, 3):
        with ThreadPoolExecutor(workers) as pool:
            assert outcome(pool) == expected
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert outcome(pool) == expected


def test_a_scan_leaves_the_thread_setting_alone():
    before = torch.get_num_threads()
    all_pairs(Gaussian(SHAPE, m=4), images(30, 0))
    assert torch.get_num_threads() == before


def test_jacobian_against_differences(dcgan):
    prior = converted(dcgan, torch.float64)
    z = draw_latents(6, 5, dtype=torch.float64)
    columns = jacobian(prior, z).flatten(2)
    step = 1e-6
    for j in range(6):
        shift = torch.zeros(6, dtype=torch.float64)
        shift[j] = step
        difference = (generate(prior, z + shift) - generate(prior, z - shift)) / (2 * step)
        error = (difference.flatten(1) - columns[:, j]).norm() / columns[:, j].norm()
        assert error < 1e-6
    along = tangent(prior, z, torch.ones_like(z)).flatten(1)
    assert torch.allclose(along, columns.sum(dim=1), rtol=1e-12, atol=1e-12)


def test_jacobian_of_a_module_that_vmap_does_not_know():
    class Branching(Curve):
        def generate(self, z: torch.Tensor) -> torch.Tensor:
            images = super().generate(z)
            # Reading a value stops vmap.
            return images * 2 if bool((images > 0).any()) else images

    plain, branching = Curve(), Branching()
    z = draw_latents(4, 3)
    assert torch.allclose(jacobian(branching, z), 2 * jacobian(plain, z))


@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), m=st.integers(6, 20))
@settings(max_examples=20, deadline=None)
def test_tangents_of_an_affine_set_are_exact(seed, k, m):
    S = random_affine_set(SHAPE, k, seed)
    operator = Gaussian(SHAPE, m, seed=seed, dtype=torch.float64)
    q, _ = torch.linalg.qr(S.basis)
    exact = torch.linalg.svdvals(operator.matrix @ q).square()
    scan = tangents(operator, S, draw_latents(k, 3, dtype=torch.float64))
    np.testing.assert_allclose(scan.low, float(exact[-1]), rtol=1e-9)
    np.testing.assert_allclose(scan.high, float(exact[0]), rtol=1e-9)
    assert (scan.rank == k).all() and scan.n_deficient == 0


@pytest.mark.parametrize("flat", [1, 3])
def test_rank_deficient_jacobians_are_reported_and_harmless(flat):
    """Latents without influence change the rank, and neither extreme."""
    operator = Gaussian(SHAPE, m=8, dtype=torch.float64)
    full, deficient = Curve(4, 0).double(), Curve(4 + flat, flat).double()
    with torch.no_grad():
        deficient.first[:4].copy_(full.first)
        deficient.second.copy_(full.second)
    z = draw_latents(4 + flat, 6, dtype=torch.float64)
    expected, scan = tangents(operator, full, z[:, :4]), tangents(operator, deficient, z)
    assert (scan.rank == 4).all() and scan.n_deficient == 6
    np.testing.assert_allclose(scan.low, expected.low, rtol=1e-9)
    np.testing.assert_allclose(scan.high, expected.high, rtol=1e-9)


def test_the_size_of_a_chunk_of_jacobians_changes_nothing(monkeypatch):
    """One latent at a time, as at 64×64, against many: the same to rounding."""
    prior, operator = Curve(3), Gaussian(SHAPE, m=8)
    z = draw_latents(3, 7)
    together = tangents(operator, prior, z)
    monkeypatch.setattr(tangents_module, "JACOBIANS", 1)
    alone = tangents(operator, prior, z)
    assert np.allclose(together.low, alone.low, rtol=1e-4, atol=1e-6)
    assert np.allclose(together.high, alone.high, rtol=1e-4)
    assert torch.equal(together.z, alone.z)


def test_a_generator_without_influence_has_no_tangents():
    scan = tangents(Gaussian(SHAPE, m=8), Curve(3, flat=3), draw_latents(3, 2))
    assert np.isnan(scan.low).all() and (scan.rank == 0).all()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_tangent_extremes_bound_every_tangent_and_are_attained(seed):
    prior, operator = Curve(seed=seed).double(), Gaussian(SHAPE, 9, seed, torch.float64)
    z = draw_latents(4, 3, seed, torch.float64)
    scan = tangents(operator, prior, z)
    for shift in range(10):
        step = draw_latents(4, 3, seed + shift + 1, torch.float64)
        values = ratio(operator, tangent(prior, z, step)).numpy()
        assert (values >= scan.low * (1 - 1e-9)).all() and (values <= scan.high * (1 + 1e-9)).all()
    for value, step in ((scan.low, scan.low_step), (scan.high, scan.high_step)):
        direction = tangent(prior, z, step)
        np.testing.assert_allclose(ratio(operator, direction), value, rtol=1e-8)
        np.testing.assert_allclose(direction.flatten(1).norm(dim=1), 1, rtol=1e-8)


def test_tangents_are_limits_of_secants():
    prior, operator = Curve().double(), Gaussian(SHAPE, 9, 0, torch.float64)
    z = draw_latents(4, 5, dtype=torch.float64)
    scan = tangents(operator, prior, z)
    secant = generate(prior, z + 1e-5 * scan.low_step) - generate(prior, z - 1e-5 * scan.low_step)
    np.testing.assert_allclose(ratio(operator, secant), scan.low, rtol=1e-6)


def test_batch_norm_in_training_mode_is_refused():
    class Noisy(nn.Module):
        latent_dim = 3

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

    with pytest.raises(ValueError, match="norm is in training mode"):
        tangents(Gaussian(SHAPE, m=4), Noisy(), draw_latents(3, 2))


@pytest.mark.parametrize("ratios", [[2.0, 2.0], [1.0, 3.0]])
def test_a_histogram_has_the_scale_of_its_ratios(ratios):
    """Also where all ratios are one number."""
    edges = histogram_edges(np.array(ratios), 8)
    assert edges[0] < min(ratios) and max(ratios) < edges[-1] and (np.diff(edges) > 0).all()
    np.testing.assert_allclose(histogram_edges(1024 * np.array(ratios), 8), 1024 * edges)


@pytest.mark.parametrize("n", [50, 57])  # the last block is as large as the others, or small
def test_a_jacobian_in_blocks_has_the_same_singular_vectors(monkeypatch, n):
    from analysis.rec import tangents

    columns = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = tangents._orthonormalised(columns)
    monkeypatch.setattr(tangents, "BLOCK", 5)
    basis, s, vh = tangents._orthonormalised(columns.clone())
    torch.testing.assert_close(s, whole[1])
    torch.testing.assert_close(basis @ basis.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close((basis.T * s) @ vh, columns.T)
