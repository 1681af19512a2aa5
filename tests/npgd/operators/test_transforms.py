"""Fourier sampling, blur, Radon transform and fast random matrices against their definitions."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.signal
import torch

import npgd
from analysis import testing
from analysis.testing import normal
from npgd import checks
from npgd.operators.radon import MOST_WEIGHTS, _stored

DOUBLE = torch.float64
S = (1, 8, 6)


def coils(count, height, width, seed=0):
    return torch.complex(normal(count, height, width, seed=seed), normal(count, height, width))


def dense(A):
    eye = torch.eye(A.n, dtype=DOUBLE).reshape(A.n, *A.image_shape)
    return A(eye).T


def recovered(A):
    """The largest error per pixel of points of an affine set, at the set's own best step."""
    S = testing.random_affine_set(A.image_shape, 3)
    alpha, beta = testing.exact_constants(A, S)
    x = S.sample(3, seed=1)
    solver = npgd.NPGD(S, 2 / (alpha + beta), max_iter=500, tol=1e-12)
    return float(npgd.recover(A, A(x), solver, x).error[-1].max())


@pytest.mark.parametrize(
    "A",
    [
        npgd.Fourier(S, npgd.cartesian_mask(S, 2)),
        npgd.Fourier(S, npgd.cartesian_mask(S, 3), coils(3, 8, 6)),
        npgd.Blur(S, torch.ones(3, 3, dtype=DOUBLE) / 9),
        npgd.Blur(S, torch.ones(3, 3, dtype=DOUBLE) / 9, "valid"),
        npgd.Radon(S, 5),
        npgd.StructuredRandom(S, 20, dtype=DOUBLE),
        npgd.StructuredRandom(S, 20, transform="hadamard", dtype=DOUBLE),
    ],
    ids=["fourier", "coils", "blur", "valid blur", "radon", "dct", "hadamard"],
)
def test_linear_with_its_adjoint_and_norm_and_recovers(A):
    testing.check_adjoint(A)
    testing.check_linear(A)
    testing.check_norm(A)
    assert recovered(A) < 1e-15


# Fourier ------------------------------------------------------------------------------------------


def test_fourier_samples_are_those_of_numpy_with_zero_in_the_middle():
    maps, mask = coils(2, 8, 6), npgd.cartesian_mask((1, 8, 6), 2, seed=3)
    x = normal(3, 2, 8, 6)
    image = (x[:, 0] + 1j * x[:, 1]).numpy()[:, None] * maps.numpy()
    shifted = np.fft.fft2(np.fft.ifftshift(image, axes=(2, 3)), norm="ortho")
    expected = np.fft.fftshift(shifted, axes=(2, 3))[:, :, mask.numpy()]
    A = npgd.Fourier((2, 8, 6), mask, maps, complex_images=True)
    y = A(x)
    np.testing.assert_allclose(A.samples(y)[:, 0].numpy(), expected, atol=1e-12)
    for given in (expected, torch.from_numpy(expected), expected.reshape(3, -1)):
        torch.testing.assert_close(A.measurements(given), y)


def test_a_real_image_has_the_real_part_of_the_adjoint():
    maps, mask = coils(3, 8, 6), normal(8, 6) > 0
    real = npgd.Fourier((1, 8, 6), mask, maps)
    whole = npgd.Fourier((2, 8, 6), mask, maps, complex_images=True)
    x, y = normal(2, 1, 8, 6), normal(2, real.m)
    torch.testing.assert_close(real(x), whole(torch.cat([x, 0 * x], 1)))
    torch.testing.assert_close(real.adjoint(y), whole.adjoint(y)[:, :1])


def test_complex_images_of_one_flat_coil_have_orthonormal_rows():
    A = npgd.Fourier((2, 8, 6), normal(8, 6) > 0, complex_images=True)
    assert A.row_orthonormal and A.norm() == 1
    y = normal(4, A.m)
    torch.testing.assert_close(A(A.adjoint(y)), y)
    assert not npgd.Fourier((2, 8, 6), normal(8, 6) > 0).row_orthonormal


def test_coil_maps_stay_complex_in_another_precision():
    A = npgd.Fourier(S, normal(8, 6) > 0, coils(2, 8, 6))
    x = normal(2, *S)
    exact = A(x)
    torch.testing.assert_close(A.float()(x.float()).double(), exact, rtol=1e-5, atol=1e-5)


def test_fourier_follows_deepinv():
    physics = pytest.importorskip("deepinv").physics
    maps, mask = coils(3, 8, 6).to(torch.complex64), npgd.cartesian_mask((2, 8, 6), 2)
    theirs = physics.MultiCoilMRI(mask=mask.float(), coil_maps=maps[None], img_size=(8, 6))
    A = npgd.Fourier((2, 8, 6), mask, maps, complex_images=True)
    x = normal(2, 2, 8, 6).float()
    y = theirs.A(x)
    found = torch.complex(y[:, 0], y[:, 1])[:, :, mask]
    torch.testing.assert_close(A.samples(A(x))[:, 0], found)
    torch.testing.assert_close(A.adjoint(A(x)), theirs.A_adjoint(y))


@pytest.mark.parametrize(("width", "acceleration"), [(64, 4), (64, 8), (30, 2), (7, 1), (5, 40)])
def test_a_cartesian_mask_has_whole_columns_the_middle_and_the_number_asked_for(
    width, acceleration
):
    mask = npgd.cartesian_mask((1, 6, width), acceleration, centre=0.1, seed=1)
    columns = mask[0]
    assert bool((mask == columns).all())
    middle = round(0.1 * width)
    assert int(columns.sum()) == max(1, middle, round(width / acceleration))
    first = width // 2 - middle // 2
    assert bool(columns[first : first + middle].all())
    assert torch.equal(mask, npgd.cartesian_mask((1, 6, width), acceleration, 0.1, 1))


# Blur ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (2, 5), (8, 6)])
def test_blur_is_the_convolution_of_scipy(sides):
    kernel, x = normal(*sides), normal(2, 3, 8, 6)
    valid = npgd.Blur((3, 8, 6), kernel, "valid")
    circular = npgd.Blur((3, 8, 6), kernel.numpy())
    around = [(side - 1 - side // 2, side // 2) for side in sides]
    for image, ours, whole in zip(x, valid(x), circular(x), strict=True):
        for c in range(3):
            expected = scipy.signal.convolve2d(image[c], kernel, mode="valid")
            found = ours.reshape(3, *expected.shape)[c]
            np.testing.assert_allclose(found, expected, atol=1e-12)
            wide = np.pad(image[c], around, mode="wrap")
            expected = scipy.signal.convolve2d(wide, kernel, mode="valid")
            np.testing.assert_allclose(whole.reshape(3, 8, 6)[c], expected, atol=1e-12)


def test_every_channel_may_have_its_kernel():
    kernels, x = normal(2, 3, 3), normal(2, 2, 8, 6)
    together = npgd.Blur((2, 8, 6), kernels)(x).reshape(2, 2, -1)
    for c in range(2):
        torch.testing.assert_close(npgd.Blur(S, kernels[c])(x[:, c : c + 1]), together[:, c])


# Radon --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 6), (2, 7, 5), (1, 6, 9)])
def test_rays_along_columns_and_rows_sum_them(shape):
    x = normal(2, *shape)
    A = npgd.Radon(shape, [0.0, 180.0])
    y = A(x).reshape(2, shape[0], 2, A.detectors)
    edge = (A.detectors - shape[2]) // 2
    torch.testing.assert_close(y[:, :, 0, edge : edge + shape[2]], x.sum(2))
    torch.testing.assert_close(y[:, :, 1].flip(2), y[:, :, 0])
    A = npgd.Radon(shape, [90.0], detectors=shape[1])
    torch.testing.assert_close(A(x).reshape(2, shape[0], -1), x.sum(3))


def test_every_angle_sees_the_whole_mass_of_a_smooth_image():
    t = torch.arange(32, dtype=DOUBLE) - 15.5
    x = torch.exp(-(t[:, None] ** 2 + 2 * (t - 3) ** 2) / 20)[None, None]
    A = npgd.Radon((1, 32, 32), 12)
    sums = A(x).reshape(12, -1).sum(1)
    torch.testing.assert_close(sums, x.sum().expand(12), rtol=1e-3, atol=0)


def test_the_matrix_and_the_rays_give_one_operator(monkeypatch):
    A = npgd.Radon((2, 9, 12), 7)
    x, y = normal(3, 2, 9, 12, seed=1), normal(3, A.m, seed=2)
    rows = A(x), A.adjoint(y)
    monkeypatch.setattr("npgd.operators.radon.MOST_ENTRIES", 0)
    assert A._is_sparse(x)
    torch.testing.assert_close((A(x), A.adjoint(y)), rows, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr("npgd.operators.radon.MOST_WEIGHTS", 0)
    assert not A._is_sparse(x)
    torch.testing.assert_close((A(x), A.adjoint(y)), rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "angles"), [((1, 64, 64), 40), ((1, 10, 90), 60), ((1, 64, 64), [45.0] * 20)]
)
def test_no_more_weights_are_kept_than_were_counted(shape, angles):
    A = npgd.Radon(shape, angles)
    assert A._is_sparse(torch.zeros(1))
    kept = _stored(shape[1:], A.angles, A.detectors, torch.float32)
    held = kept.data.nbytes + kept.indices.nbytes
    assert held <= A._kept(torch.float32) <= 8 * MOST_WEIGHTS


def test_gradients_go_through_the_sparse_matrix(monkeypatch):
    monkeypatch.setattr("npgd.operators.radon.MOST_ENTRIES", 0)
    A, x = npgd.Radon((2, 4, 5), 3), normal(2, 2, 4, 5)
    assert torch.autograd.gradcheck(A, x.requires_grad_(), check_forward_ad=True)
    y = normal(2, A.m).requires_grad_()
    assert torch.autograd.gradcheck(A.adjoint, y, check_forward_ad=True)
    columns = torch.func.vmap(A)(normal(3, 2, 2, 4, 5))
    torch.testing.assert_close(columns[1], A(normal(3, 2, 2, 4, 5)[1]))


def test_radon_follows_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    t = torch.arange(33, dtype=DOUBLE) - 16
    x = torch.exp(-(t[:, None] ** 2 + 2 * (t - 3) ** 2) / 20)
    x[(t[:, None] ** 2 + t**2) > 15**2] = 0
    angles = [0.0, 30.0, 77.0, 90.0, 120.0]
    expected = torch.from_numpy(transform.radon(x.numpy(), angles, circle=True))
    ours = npgd.Radon((1, 33, 33), angles, detectors=33)(x[None, None]).reshape(5, 33).T
    flipped = ours.flip(0)
    near = min(float((v - expected).abs().max()) for v in (ours, flipped))
    assert near < 0.02 * float(expected.max())


# Fast random matrices -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 2), (1, 4, 4), (3, 4, 4), (1, 7, 5), (1, 6, 14)]
)
def test_signs_then_a_transform_then_rows(shape):
    n = math.prod(shape)
    for transform in ("dct", "hadamard"):
        A = npgd.StructuredRandom(shape, n, seed=5, transform=transform, dtype=DOUBLE)
        order = n & -n if transform == "hadamard" else 1
        cosines = torch.from_numpy(scipy.fft.dct(np.eye(n // order), axis=0, norm="ortho"))
        signs = torch.from_numpy(scipy.linalg.hadamard(order) / math.sqrt(order))
        H = torch.kron(signs.to(DOUBLE), cosines)
        assert set(A.signs.tolist()) <= {1.0, -1.0} and sorted(A.index.tolist()) == list(range(n))
        torch.testing.assert_close(dense(A), (H * A.signs)[A.index])
        torch.testing.assert_close(
            A.adjoint(normal(3, n)), (normal(3, n) @ dense(A)).reshape(3, *shape)
        )


def test_rows_and_signs_follow_the_seed_and_spread_any_image():
    A, B = (npgd.StructuredRandom((1, 32, 32), 200, seed=seed, dtype=DOUBLE) for seed in (1, 2))
    assert torch.equal(A.index, npgd.StructuredRandom((1, 32, 32), 200, seed=1).index)
    assert not torch.equal(A.index, B.index) and not torch.equal(A.signs, B.signs)
    # ‖A x‖² is about (m/n)‖x‖² for a constant image, which rows of a plain DCT miss or hold whole.
    x = torch.ones(1, 1, 32, 32, dtype=DOUBLE)
    ratios = [
        float(npgd.StructuredRandom((1, 32, 32), 200, seed=s, dtype=DOUBLE)(x).square().sum())
        / 1024
        for s in range(20)
    ]
    assert np.mean(ratios) == pytest.approx(200 / 1024, rel=0.1)
    assert np.std(ratios) < 0.25 * 200 / 1024


# A Gaussian in blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "n"), [(3, 5), (1, 17), (100, 784), (7, 9363), (2, 65543), (3, 65536)]
)
def test_a_gaussian_is_one_draw_of_its_seed(m, n):
    drawn = torch.randn(m, n, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    expected = drawn / math.sqrt(m)
    for dtype in (torch.float32, DOUBLE):
        assert torch.equal(npgd.Gaussian((1, 1, n), m, 3, dtype).matrix, expected.to(dtype))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to be measured")
def test_a_gaussian_takes_little_more_memory_than_its_matrix():
    # Not ru_maxrss: a child's begins with its parent's.
    script = (
        "import npgd\n"
        "def kibibytes(name):\n"
        "    told = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "    return int(told[name].split()[0])\n"
        "npgd.Gaussian((1, 64, 64), 300)\n"
        "before = kibibytes('VmRSS')\n"
        "A = npgd.Gaussian((3, 64, 64), 5000)\n"
        "print(1024 * (kibibytes('VmHWM') - before) / A.matrix.nbytes)\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert float(run.stdout) <= 1.2


def test_a_gaussian_that_does_not_fit_names_its_size_and_the_alternative(monkeypatch):
    monkeypatch.setattr(checks, "free_memory", lambda: 10**10)
    message = (
        r"m must leave a matrix of at most half the free memory, got 20000 for 20000 × 196608"
        r" numbers, 15\.7 GB, where 10 GB are free; npgd\.StructuredRandom"
    )
    with pytest.raises(ValueError, match=message):
        npgd.Gaussian((3, 256, 256), 20000)
    A = npgd.StructuredRandom((3, 256, 256), 20000)
    x = normal(1, 3, 256, 256).float()
    assert A.adjoint(A(x)).shape == x.shape and checks.free_memory() == 10**10


# The door -----------------------------------------------------------------------------------------

MASK = torch.ones(8, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: npgd.Fourier(S, ~MASK), ValueError, "mask must leave a frequency"),
        (lambda: npgd.Fourier(S, MASK[:4]), ValueError, r"mask must have shape \(8, 6\), got"),
        (lambda: npgd.Fourier(S, MASK.float()), TypeError, "mask must be a boolean tensor"),
        (lambda: npgd.Fourier(S, MASK, normal(2, 8, 6)), TypeError, "coils must be a complex"),
        (lambda: npgd.Fourier(S, MASK, coils(2, 6, 8)), ValueError, "coils must have shape"),
        (lambda: npgd.Fourier(S, MASK, coils(2, 8, 6) / 0), ValueError, "coils must be finite"),
        (
            lambda: npgd.Fourier(S, MASK, complex_images=True),
            ValueError,
            "image_shape must have an even number of channels",
        ),
        (lambda: npgd.cartesian_mask(S, 0.5), ValueError, "acceleration must be at least 1"),
        (lambda: npgd.cartesian_mask(S, 2, 1.0), ValueError, "centre must be below 1"),
        (lambda: npgd.Blur(S, torch.zeros(3, 3)), ValueError, "kernel must not be zero"),
        (lambda: npgd.Blur(S, torch.ones(9, 3)), ValueError, "kernel must have shape"),
        (lambda: npgd.Blur(S, torch.ones(2, 3, 3)), ValueError, "kernel must have shape"),
        (lambda: npgd.Blur(S, torch.ones(3, 3).long()), TypeError, "kernel must be float32"),
        (lambda: npgd.Blur(S, torch.ones(3, 3), "same"), ValueError, "boundary must be one of"),
        (lambda: npgd.Radon(S, 0), ValueError, "angles must be at least 1"),
        (lambda: npgd.Radon(S, []), ValueError, "angles must be 1 to"),
        (lambda: npgd.Radon(S, "all"), TypeError, "angles must be numbers in a row"),
        (lambda: npgd.Radon(S, [math.nan]), ValueError, "angles must be finite"),
        (lambda: npgd.Radon(S, 3, 0), ValueError, "detectors must be at least 1"),
        (lambda: npgd.StructuredRandom(S, 49), ValueError, "m must be at most 48"),
        (lambda: npgd.StructuredRandom(S, 4, 0, "fft"), ValueError, "transform must be one of"),
    ],
)  # fmt: skip
def test_wrong_arguments_stop_at_the_door(call, error, message):
    with pytest.raises(error, match=message):
        call()
