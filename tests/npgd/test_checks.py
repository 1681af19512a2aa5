"""Every door says which argument must be what, and what came instead."""

import math

import numpy as np
import pytest
import torch

from npgd import checks

X = torch.zeros(2, 1, 3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: checks.integer(2.0, "m"), TypeError, "m must be an integer, got 2.0"),
        (lambda: checks.integer(True, "m"), TypeError, "m must be an integer, got True"),
        (lambda: checks.integer(0, "m"), ValueError, "m must be at least 1, got 0"),
        (lambda: checks.integer(-1, "m", 0), ValueError, "m must be at least 0, got -1"),
        (lambda: checks.number("1", "η"), TypeError, "η must be a number, got '1'"),
        (lambda: checks.number(None, "η"), TypeError, "η must be a number, got None"),
        (lambda: checks.number(0, "η"), ValueError, "η must be finite and positive, got 0.0"),
        (
            lambda: checks.number(math.inf, "η", zero=True),
            ValueError,
            "η must be finite and not negative, got inf",
        ),
        (
            lambda: checks.image_shape(5, "s"),
            TypeError,
            "s must be (channels, height, width), each at least 1, got 5",
        ),
        (
            lambda: checks.image_shape((1, 0, 4), "s"),
            ValueError,
            "s must be (channels, height, width), each at least 1, got (1, 0, 4)",
        ),
        (lambda: checks.floating([1.0], "x"), TypeError, "x must be a torch tensor, got list"),
        (
            lambda: checks.floating(X.numpy(), "x"),
            TypeError,
            "x must be a torch tensor, got ndarray; torch.from_numpy makes one",
        ),
        (
            lambda: checks.floating(X.byte(), "x"),
            TypeError,
            "x must be float32 or float64, got torch.uint8; npgd.data.to_pixels makes pixels in"
            " [-1, 1] of bytes",
        ),
        (
            lambda: checks.images(X[0], (1, 3, 4)),
            ValueError,
            "x must have shape (batch, 1, 3, 4), got (1, 3, 4); a batch of one is x[None]",
        ),
        (
            lambda: checks.measurements(X.flatten(), 24),
            ValueError,
            "y must have shape (batch, 24), got (24,); a batch of one is y[None]",
        ),
        (
            lambda: checks.iterates(None),
            TypeError,
            "iterates must be a torch tensor, got None; npgd.recover keeps them with"
            " record_iterates=True",
        ),
        (
            lambda: checks.in_a_row(100, "m"),
            TypeError,
            "m must be values in a row, got 100; a single one is [100]",
        ),
        (
            lambda: checks.some("a", "looks", "a", "b"),
            ValueError,
            "looks must be some of a, b in a row, got 'a'; a single one is ['a']",
        ),
        (
            lambda: checks.floating(X.long(), "x"),
            TypeError,
            "x must be float32 or float64, got torch.int64",
        ),
        (
            lambda: checks.images(X, (1, 4, 3), "x"),
            ValueError,
            "x must have shape (batch, 1, 4, 3), got (2, 1, 3, 4)",
        ),
        (
            lambda: checks.measurements(X, 3, "y"),
            ValueError,
            "y must have shape (batch, 3), got (2, 1, 3, 4)",
        ),
        (
            lambda: checks.finite(torch.tensor([0.0, math.nan, math.inf]), "y"),
            ValueError,
            "y must be finite, got NaN or infinity in 2 of 3 entries",
        ),
        (
            lambda: checks.same_kind(X, torch.nn.Linear(1, 1).double(), "y", "prior"),
            TypeError,
            "y must be torch.float64 on cpu as prior is, got torch.float32 on cpu; convert one of"
            " them with .to(…)",
        ),
        (
            lambda: checks.drawing(None, None),
            ValueError,
            "one of generator and seed must be given, got neither",
        ),
        (
            lambda: checks.drawing(torch.Generator(), 0),
            ValueError,
            "one of generator and seed must be given, got both",
        ),
    ],
)
def test_a_door_says_what_must_be_and_what_came(call, error, message):
    with pytest.raises(error) as refused:
        call()
    assert str(refused.value) == message


def test_what_fits_passes_unchanged():
    assert checks.integer(np.int64(3), "m") == 3 and checks.integer(0, "m", 0) == 0
    assert checks.number(np.float32(0.5), "η") == 0.5 and checks.number(0, "λ", zero=True) == 0
    assert checks.image_shape([1, 3, 4]) == checks.image_shape(torch.Size((1, 3, 4))) == (1, 3, 4)
    assert checks.images(X, (1, 3, 4)) is X and checks.finite(X, "x") is X
    assert checks.measurements(X[:, 0, 0], 4).shape == (2, 4)
    checks.same_kind(X, torch.nn.Linear(1, 1), "y", "prior")
    checks.same_kind(X, abs, "y", "prior")  # what is no module has no kind


def test_a_generator_is_the_one_given_or_that_of_the_seed():
    given = torch.Generator()
    assert checks.drawing(given, None) is given
    drawn = [torch.rand(3, generator=checks.drawing(None, 7)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert torch.equal(drawn[0], torch.rand(3, generator=torch.Generator().manual_seed(7)))
