"""Inpainting keeps the pixels it says, super-resolution averages boxes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from npgd.operators import Inpainting, SuperResolution, scattered_boxes

DOUBLE = torch.float64
S = (1, 4, 4)
X = torch.zeros(2, 1, 4, 4)


def test_inpainting_hides_the_centred_square():
    A = Inpainting((3, 8, 10), hole=4)
    seen = A.adjoint(torch.ones(1, A.m, dtype=DOUBLE))[0]
    expected = torch.ones(3, 8, 10, dtype=DOUBLE)
    expected[:, 2:6, 3:7] = 0
    assert torch.equal(seen, expected)
    assert torch.equal(Inpainting((3, 8, 10), mask=expected[0] == 1).index, A.index)
    assert torch.equal(Inpainting((3, 8, 10), mask=(expected == 1).numpy()).index, A.index)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_every_missing_pixel_lies_in_a_missing_box(boxes, side, seed):
    """Every missing pixel lies in a missing square; no more are missing than the boxes hold."""
    mask = scattered_boxes((3, 9, 12), boxes, side, seed)
    missing = ~mask
    assert side**2 <= int(missing.sum()) <= boxes * side**2
    squares = missing.unfold(0, side, 1).unfold(1, side, 1).all(dim=3).all(dim=2)
    covered = torch.zeros_like(mask)
    for top, left in squares.nonzero().tolist():
        covered[top : top + side, left : left + side] = True
    assert torch.equal(covered, missing)
    # the first boxes of a larger number are the same
    assert bool((scattered_boxes((3, 9, 12), boxes + 1, side, seed) <= mask).all())
    assert Inpainting((3, 9, 12), mask=mask).m == 3 * int(mask.sum())


def test_boxes_fit_into_the_image_and_leave_a_pixel():
    with pytest.raises(ValueError, match="side must be at most 9"):
        scattered_boxes((1, 9, 12), 1, 10)
    with pytest.raises(ValueError, match="boxes must leave a pixel"):
        scattered_boxes((1, 4, 4), 1, 4)
    with pytest.raises(ValueError, match="boxes must be at least 1"):
        scattered_boxes((1, 4, 4), 0, 2)


def test_super_resolution_averages_boxes():
    x = torch.arange(16, dtype=DOUBLE).reshape(1, 1, 4, 4)
    assert SuperResolution((1, 4, 4), 2)(x).tolist() == [[2.5, 4.5, 10.5, 12.5]]


def test_matrix_free_operators_hold_no_matrix():
    shape = (3, 64, 64)
    for A in (Inpainting(shape, hole=20), SuperResolution(shape, 4)):
        assert sum(buffer.numel() for buffer in A.buffers()) <= math.prod(shape)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: Inpainting(S), ValueError, "hole and mask"),
        (lambda: Inpainting(S, 2, torch.ones(4, 4).bool()), ValueError, "hole and mask"),
        (lambda: Inpainting(S, hole=4), ValueError, "hole must leave a pixel"),
        (lambda: Inpainting(S, hole=5), ValueError, "hole must be at most"),
        (lambda: Inpainting(S, hole=-1), ValueError, "hole must be at least"),
        (
            lambda: Inpainting(S, mask=torch.zeros(4, 4).bool()),
            ValueError,
            "mask must leave a pixel",
        ),
        (lambda: Inpainting(S, mask=torch.ones(4, 4)), TypeError, "mask must be a boolean"),
        (lambda: Inpainting(S, mask=torch.ones(4, 5).bool()), ValueError, "mask must have shape"),
        (lambda: SuperResolution(S, 3), ValueError, "factor must divide"),
        (lambda: SuperResolution(S, 0), ValueError, "factor must be at least 1"),
        (lambda: SuperResolution(S)(torch.zeros(2, 1, 8, 8)), ValueError, "x must have shape"),
        (lambda: Inpainting(S, 2)(X.long()), TypeError, "x must be float"),
    ],
)
def test_wrong_arguments_stop_at_the_door(call, error, named):
    with pytest.raises(error, match=named):
        call()
