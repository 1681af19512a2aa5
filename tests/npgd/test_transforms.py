"""The bases are orthonormal, and those of the signal libraries."""

import numpy as np
import pytest
import pywt
import scipy.fft
import torch

from analysis.testing import normal
from npgd.images import squared_norm
from npgd.transforms import DCT, Wavelet


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (2, 12, 20), (1, 7, 7), (1, 2, 64)])
@pytest.mark.parametrize("wavelet", ["dct", "haar", "db2", "db4", "db10", "sym4", "coif2"])
def test_bases_are_orthonormal(shape, wavelet):
    """⟨Ψa, Ψb⟩ = ⟨a, b⟩, and Ψᵀ inverts Ψ from both sides; the input is left alone."""
    transform = DCT(shape) if wavelet == "dct" else Wavelet(shape, wavelet)
    a, b = normal(2, *shape, seed=1), normal(2, *shape, seed=2)
    kept = a.clone()
    # sym4 and coif2 come with twelve digits.
    near = {"rtol": 0, "atol": 1e-9 if wavelet in ("sym4", "coif2") else 1e-10}
    inner = (transform(a) * transform(b)).flatten(1).sum(1)
    torch.testing.assert_close(inner, (a * b).flatten(1).sum(1), **{**near, "atol": 1e-7})
    torch.testing.assert_close(squared_norm(transform(a)), squared_norm(a), rtol=1e-10, atol=0)
    torch.testing.assert_close(transform.inverse(transform(a)), a, **near)
    torch.testing.assert_close(transform(transform.inverse(a)), a, **near)
    assert torch.equal(a, kept)


def test_the_dct_is_scipys():
    x = normal(2, 3, 6, 10)
    expected = scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(DCT((3, 6, 10))(x).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("wavelet", ["haar", "db4", "sym4"])
@pytest.mark.parametrize("side", [28, 64])
def test_wavelet_coefficients_are_pywavelets(wavelet, side):
    """Level by level the blocks of pywt's periodised transform, up to a cyclic shift."""
    block, transform = normal(1, 1, side, side), Wavelet((1, side, side), wavelet)
    coefficients = transform(block)
    for level in range(transform.levels):
        half = block.shape[-1] // 2
        low, (horizontal, vertical, diagonal) = pywt.dwt2(
            block[0, 0].numpy(), wavelet, "periodization"
        )
        one = Wavelet((1, 2 * half, 2 * half), wavelet, levels=1)(block)
        ours = [one[..., :half, :half], *transform.blocks(coefficients)][1 + 3 * level :]
        for mine, theirs in zip(
            [one[..., :half, :half], *ours[:3]], [low, vertical, horizontal, diagonal], strict=True
        ):
            values = np.sort(mine.flatten().numpy())
            np.testing.assert_allclose(values, np.sort(theirs.flatten()), atol=1e-9)
        block = one[..., :half, :half]


def test_levels_follow_the_sides():
    assert Wavelet((1, 28, 28)).levels == 2
    assert Wavelet((3, 64, 64)).levels == 4
    assert Wavelet((1, 7, 7)).levels == 0
    with pytest.raises(ValueError, match="levels must be at most 2 for 28×28"):
        Wavelet((1, 28, 28), levels=3)


@pytest.mark.parametrize("wavelet", ["bior2.2", "dmey", "db99"])
def test_wavelets_that_are_no_basis_are_refused(wavelet):
    with pytest.raises(ValueError, match=f"wavelet must be .* got '{wavelet}'"):
        Wavelet((1, 28, 28), wavelet)


def test_constant_images_have_no_details():
    transform = Wavelet((1, 28, 28), "db4")
    *details, coarsest = transform.blocks(transform(torch.ones(1, 1, 28, 28, dtype=torch.float64)))
    assert len(details) == 6 and float(coarsest.abs().min()) > 1
    for block in details:
        assert float(block.abs().max()) < 1e-10
