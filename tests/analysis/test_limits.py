"""The parts of an error: they add up to it, and are what mathematics says on affine sets."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis import testing
from analysis.limits import PARTS, ErrorSplit
from npgd import NPGD, AffineSet, Gaussian, recover
from npgd.images import Images, squared_norm

SHAPE = (1, 4, 4)
N = 16


class Shifted(AffineSet):
    """An affine set whose projector lands beside the nearest point, by a vector of the set."""

    def project(self, w: Images) -> Images:
        shift = 0.3 * self.orthonormal[:, 0].reshape(1, *self.image_shape)
        return super().project(w) + shift


def affine(k: int, seed: int, kind: type[AffineSet] = AffineSet) -> AffineSet:
    S = testing.random_affine_set(SHAPE, k, seed)
    return kind(S.basis, S.offset, SHAPE)


def step(A, S) -> float:
    """Converges, and to the least squares solution on S."""
    alpha, beta = testing.exact_constants(A, S)
    return 2 / (alpha + beta)


def least_squares(A, S, y) -> Images:
    """argmin_{s∈S} ‖A s − y‖²."""
    basis = S.basis.T.reshape(-1, *SHAPE)
    offset = S.offset.reshape(1, *SHAPE)
    z = torch.linalg.lstsq(A(basis).T, (y - A(offset)).T).solution.T
    return S.generate(z)


def per_pixel(a: Images, b: Images) -> torch.Tensor:
    return squared_norm(a - b) / N


@given(
    k=st.integers(1, 3),
    away=st.sampled_from([0.0, 0.3]),
    noise=st.sampled_from([0.0, 0.1]),
    iterations=st.integers(1, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_parts_on_affine_sets_are_those_of_least_squares(
    k: int, away: float, noise: float, iterations: int, seed: int
) -> None:
    S, A = affine(k, seed), testing.random_operator("gaussian", SHAPE, 10, seed=seed)
    x = S.sample(3, seed=seed) + away * testing.normal(3, *SHAPE, seed=seed)
    y = A(x) + noise * testing.normal(3, 10, seed=seed)
    solver = NPGD(S, step(A, S), max_iter=iterations, tol=1e-13)
    split = analysis.split_error(A, S, x, y, solver, longer=2000)
    parts, solution = split.parts, recover(A, y, solver)
    assert list(parts) == list(PARTS)
    close = {"rtol": 1e-6, "atol": 1e-9}
    final = per_pixel(solution.x, x)
    torch.testing.assert_close(split.error, final, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(sum(parts.values()), split.error, rtol=1e-12, atol=1e-15)
    quiet, loud = least_squares(A, S, A(x)), least_squares(A, S, y)
    torch.testing.assert_close(parts["range"], per_pixel(S.project(x), x), **close)
    assert bool((parts["projector"] == 0).all())
    expected = per_pixel(quiet, x) - per_pixel(S.project(x), x)
    torch.testing.assert_close(parts["measurements"], expected, **close)
    expected = per_pixel(loud, x) - per_pixel(quiet, x)
    torch.testing.assert_close(parts["noise"], expected, **close)
    torch.testing.assert_close(parts["iterations"], final - per_pixel(loud, x), **close)


def test_a_projector_that_lands_beside_the_nearest_point_is_charged_with_it() -> None:
    S, A = affine(3, 1, Shifted), testing.random_operator("gaussian", SHAPE, 12)
    x = affine(3, 1).sample(4, seed=0)
    split = analysis.split_error(A, Searched(S), x, A(x), NPGD(S, 0.2), steps=50)
    assert float(split.parts["range"].max()) < 1e-9
    expected = torch.full((4,), 0.3**2 / N, dtype=torch.float64)
    torch.testing.assert_close(split.parts["projector"], expected, rtol=1e-6, atol=1e-9)
    assert bool((split.parts["noise"] == 0).all())


class Searched(torch.nn.Module):
    """A set of which only `generate`, `encode` and `project` are known."""

    def __init__(self, S: AffineSet) -> None:
        super().__init__()
        self.inner = S
        self.image_shape, self.latent_dim = S.image_shape, S.latent_dim
        self.generate, self.encode, self.project = S.generate, S.encode, S.project


@pytest.fixture(scope="module")
def split() -> ErrorSplit:
    """A network's, with noise."""
    prior = testing.random_prior(SHAPE, 2)
    A = Gaussian(SHAPE, 4, seed=0, dtype=torch.float64)
    x = prior.sample(6, generator=torch.Generator().manual_seed(0))
    y = A(x) + 0.05 * testing.normal(6, 4)
    return analysis.split_error(A, prior, x, y, NPGD(prior, 0.2, max_iter=4), steps=20)


def test_prints_a_short_table_and_plain_numbers(split: ErrorSplit) -> None:
    assert len(str(split).splitlines()) <= 12
    for what in PARTS.values():
        assert what in str(split)
    written = json.loads(json.dumps(split.to_dict()))
    assert written["mean"]["error"] == pytest.approx(sum(written["mean"][p] for p in PARTS))
    values = torch.tensor(written["parts"]["measurements"], dtype=torch.float64)
    assert written["standard_error"]["measurements"] == pytest.approx(float(values.std()) / 6**0.5)
    assert split.parts[split.largest].mean() == max(part.mean() for part in split.parts.values())


def test_a_finished_solution_is_taken_as_it_is() -> None:
    S, A = affine(2, 0), testing.random_operator("gaussian", SHAPE, 6)
    x = S.sample(2, seed=0)
    solver = NPGD(S, step(A, S), max_iter=2)
    solution = recover(A, A(x), solver)
    split = analysis.split_error(A, S, x, A(x), NPGD(S, step(A, S), max_iter=50), solution)
    torch.testing.assert_close(split.error, per_pixel(solution.x, x))
    assert split.iterations == 2 and split.long_run == 250
    assert split.largest == "iterations"


def test_known_nearest_points_are_not_searched_for() -> None:
    prior = testing.random_prior(SHAPE, 2)
    A = Gaussian(SHAPE, 4, seed=0, dtype=torch.float64)
    x = prior.sample(3, generator=torch.Generator().manual_seed(0))
    split = analysis.split_error(A, prior, x, A(x), NPGD(prior, 0.2), nearest=x)
    assert split.parts["range"].tolist() == [0.0] * 3


def test_bad_arguments_are_named() -> None:
    S, A = affine(2, 0), testing.random_operator("gaussian", SHAPE, 6)
    x = S.sample(2, seed=0)
    with pytest.raises(ValueError, match="y must have one row"):
        analysis.split_error(A, S, x, A(x)[:1], NPGD(S, 0.1))
    with pytest.raises(ValueError, match="nearest must have an image for each of 2"):
        analysis.split_error(A, S, x, A(x), NPGD(S, 0.1), nearest=x[:1])
    with pytest.raises(ValueError, match="solution must be"):
        analysis.split_error(A, S, x, A(x), NPGD(S, 0.1), recover(A, A(x)[:1], NPGD(S, 0.1)))
