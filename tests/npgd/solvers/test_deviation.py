"""Near the range: the joint optimum, exact fits, and a generator that is of no use does no harm."""

import numpy as np
import pytest
import torch

import npgd
from analysis.testing import normal, random_affine_set, random_images
from npgd.images import inner
from npgd.solvers.deviation import (
    Part,
    analysis_of,
    curvature,
    curvature_adjoint,
    fitted,
    held_out,
    row_energy,
    widest_gap,
)
from npgd.solvers.total_variation import total_variation

DOUBLE = torch.float64
SHAPE = (1, 8, 8)


def near_a_set(seed: int = 0) -> tuple[npgd.AffineSet, torch.Tensor, torch.Tensor]:
    """An affine set, points of it, and these points with a block added: near, not in it."""
    prior = random_affine_set(SHAPE, 3, seed=seed)
    inside = prior.sample(2, seed=seed)
    block = torch.zeros_like(inside)
    block[:, :, 2:4, 2:5] = 0.3
    return prior, inside, inside + block


def exact(prior: npgd.AffineSet) -> npgd.NPGD:
    return npgd.NPGD(prior, 0.5, max_iter=60)


def test_curvature_and_its_adjoint_are_transposes_within_the_norm():
    x, p = normal(3, 2, 6, 5), normal(3, 6, 2, 6, 5)
    torch.testing.assert_close(inner(curvature(x), p), inner(x, curvature_adjoint(p)))
    K = analysis_of("tv2", x, npgd.Gaussian((2, 6, 5), 9, dtype=DOUBLE))
    for _ in range(60):
        x = curvature_adjoint(curvature(x))
        x = x / x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    assert float(curvature(x).square().sum((1, 2, 3, 4)).max()) <= K.squared_norm


def test_mu_zero_is_total_variation():
    prior, _, x = near_a_set()
    A = npgd.Gaussian(SHAPE, 30, dtype=DOUBLE)
    plain = npgd.recover(A, A(x), npgd.TotalVariation(penalty=0.05, max_iter=2000, tol=1e-9)).x
    ours = npgd.Deviation(prior, "tv", mu=0, penalty=0.05, max_iter=300, tol=1e-9)
    torch.testing.assert_close(npgd.recover(A, A(x), ours).x, plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mu", [0.4, 1.0])
def test_no_other_image_has_a_lower_joint_objective(mu):
    """Against cvxpy, with G(z) fixed."""
    cvxpy = pytest.importorskip("cvxpy")
    prior, _, x = near_a_set()
    A, penalty = npgd.Gaussian(SHAPE, 20, dtype=DOUBLE), 0.05
    y = A(x[:1])
    solver = npgd.Deviation(prior, "tv", mu=mu, penalty=penalty, npgd=exact(prior), rounds=0,
                            max_iter=250, tol=1e-8)  # fmt: skip
    near = npgd.recover(A, y, exact(prior)).x

    def value(x):
        parts = (1 - mu) * total_variation(x) + mu * total_variation(x - near)
        return float((A(x) - y).square().sum() + penalty * parts[0])

    v, g = cvxpy.Variable((8, 8)), near[0, 0].numpy()

    def tv(u):
        down = cvxpy.vstack([u[1:] - u[:-1], np.zeros((1, 8))])
        across = cvxpy.hstack([u[:, 1:] - u[:, :-1], np.zeros((8, 1))])
        stacked = cvxpy.vstack([cvxpy.vec(down, order="C"), cvxpy.vec(across, order="C")])
        return cvxpy.sum(cvxpy.norm(stacked, axis=0))

    misfit = A.matrix.numpy() @ cvxpy.vec(v, order="C") - y[0].numpy()
    goal = cvxpy.sum_squares(misfit) + penalty * ((1 - mu) * tv(v) + mu * tv(v - g))
    cvxpy.Problem(cvxpy.Minimize(goal)).solve(solver="CLARABEL")
    best = value(torch.from_numpy(v.value).reshape(1, 1, 8, 8))
    assert value(npgd.recover(A, y, solver).x) <= best * (1 + 1e-3)


@pytest.mark.parametrize("regulariser", ["tv", "tv2", "dct", npgd.WaveletShrinkage()])
@pytest.mark.parametrize("measure", ["hole", "means"])
def test_without_noise_what_was_measured_is_kept(regulariser, measure):
    prior, _, x = near_a_set()
    A = npgd.Inpainting(SHAPE, hole=2) if measure == "hole" else npgd.SuperResolution(SHAPE, 2)
    solver = npgd.Deviation(prior, regulariser, npgd=exact(prior), max_iter=3)
    misfit = (A(npgd.recover(A, A(x), solver).x) - A(x)).abs().max()
    assert float(misfit) == 0 if measure == "hole" else float(misfit) < 1e-12


def test_near_the_set_it_beats_both_and_far_from_it_mu_is_small():
    prior, _, x = near_a_set()
    A = npgd.Gaussian(SHAPE, 30, dtype=DOUBLE)

    def error(solver, x):
        return npgd.recover(A, A(x), solver, x_true=x)

    ours = npgd.Deviation(prior, "tv", npgd=exact(prior))
    run = error(ours, x)
    plain, near = error(npgd.TotalVariation(), x), error(exact(prior), x)
    assert float(run.error[-1].mean()) < 0.5 * float(
        min(plain.error[-1].mean(), near.error[-1].mean())
    )
    assert min(run.info["mu"]) > 0.5
    flat = torch.zeros_like(x)
    flat[..., 4:] = 1.0  # total variation's own, and none of the set's
    assert max(error(ours, flat).info["mu"]) < 0.1


def test_noise_is_left_in_the_residual():
    prior, _, x = near_a_set()
    A, s = npgd.Gaussian(SHAPE, 40, dtype=DOUBLE), 0.05
    y = A(x) + s * normal(2, 40)
    run = npgd.recover(A, y, npgd.Deviation(prior, "tv", npgd=exact(prior), noise=s, max_iter=60))
    torch.testing.assert_close((run.objective[-1] / 40).sqrt(), torch.full((2,), s, dtype=DOUBLE),
                               rtol=0.1, atol=0)  # fmt: skip


def test_a_denoiser_is_told_less_noise_the_nearer_the_generator_is():
    prior, inside, x = near_a_set()
    A, told = npgd.Gaussian(SHAPE, 30, dtype=DOUBLE), []

    def denoiser(w, sigma):
        told.append(sigma)
        return w

    for images in (inside, x):
        npgd.recover(A, A(images), npgd.Deviation(prior, denoiser, npgd=exact(prior), max_iter=2))
    assert bool((told[0] < told[2]).all()) and bool((told[2] < 1).all())
    npgd.recover(A, A(x), npgd.Deviation(prior, denoiser, npgd=exact(prior), max_iter=2, mu=0))
    assert bool((told[4] == 1).all())


def test_what_is_held_out_and_kept_make_up_the_measurements():
    for A in (npgd.Gaussian(SHAPE, 30, dtype=DOUBLE), npgd.Inpainting(SHAPE, hole=2),
              npgd.SubsampledDCT(SHAPE, 20).to(DOUBLE)):  # fmt: skip
        y = A(random_images(SHAPE, 2).to(DOUBLE))
        part, rest, held = held_out(A, y, seed=0)
        assert part.m + len(held) == A.m and len(held) >= A.m // 10
        x = random_images(SHAPE, 2).to(DOUBLE)
        torch.testing.assert_close(inner(part(x), rest), inner(x, part.adjoint(rest)))
        torch.testing.assert_close(
            rest.square().sum() + y[:, held].square().sum(), y.square().sum()
        )
    with pytest.raises(ValueError, match="two measurements"):
        held_out(npgd.Gaussian(SHAPE, 1, dtype=DOUBLE), y[:, :1], 0)


def test_energy_of_rows_and_widest_gaps():
    A = npgd.Gaussian(SHAPE, 30, dtype=DOUBLE)
    expected = float(A.matrix.square().sum()) / 30
    assert row_energy(A) == pytest.approx(expected)
    assert row_energy(Part(A, torch.arange(30))) == pytest.approx(expected, rel=0.3)
    assert row_energy(npgd.SuperResolution(SHAPE, 2)) == pytest.approx(0.25)
    assert widest_gap(npgd.Inpainting(SHAPE, hole=3)) == 3
    A = npgd.SuperResolution(SHAPE, 4)
    x, y = normal(2, *SHAPE), normal(2, A.m)
    torch.testing.assert_close(A(fitted(A, y, x)), y)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"regulariser": "smooth"}, "regulariser must be one of"),
        ({"regulariser": 3}, "regulariser must be one of"),
        ({"mu": 1.5}, "mu must be from 0 to 1"),
        ({"npgd": 1}, "npgd must be an NPGD"),
        ({"sigma": (1.0,)}, "sigma must be"),
        ({"denoiser": 3}, "denoiser must be"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings, word):
    with pytest.raises((TypeError, ValueError), match=word):
        npgd.Deviation(random_affine_set(SHAPE, 3), **settings)
