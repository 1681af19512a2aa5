"""The cosine transform is that of the signal libraries; draws follow their weights."""

import pytest
import scipy.fft
import torch

from analysis.testing import normal
from npgd.operators import SubsampledDCT

DOUBLE = torch.float64
S = (1, 4, 4)


def test_dct_is_the_transform_of_the_signal_libraries():
    """Against scipy.fft: every coefficient, channel by channel."""
    x = normal(2, 3, 6, 5)
    A = SubsampledDCT((3, 6, 5), index=torch.arange(90), dtype=DOUBLE)
    expected = scipy.fft.dctn(x.numpy(), type=2, norm="ortho", axes=(2, 3)).reshape(2, 90)
    torch.testing.assert_close(A(x), torch.from_numpy(expected))


def test_dct_draws_follow_the_weights():
    """One coefficient at a time: frequencies within five standard errors of the weights."""
    weights = torch.tensor([0.0, 1, 2, 3, 4, 0, 0, 0], dtype=DOUBLE)
    draws = torch.cat(
        [SubsampledDCT((1, 2, 4), 1, seed, weights).index for seed in range(2000)]
    ).bincount(minlength=8)
    p = weights / weights.sum()
    assert bool(((draws / 2000 - p).abs() <= 5 * (p * (1 - p) / 2000).sqrt()).all())
    A = SubsampledDCT((1, 2, 4), 4, 0, weights)
    assert A.index.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: SubsampledDCT(S), ValueError, "m and index"),
        (lambda: SubsampledDCT(S, 17), ValueError, "m must be at most 16"),
        (lambda: SubsampledDCT(S, 2, weights=torch.eye(16)[0]), ValueError, "at most 1"),
        (
            lambda: SubsampledDCT(S, 2, weights=-torch.ones(16)),
            ValueError,
            "weights must not be negative",
        ),
        (
            lambda: SubsampledDCT(S, 2, weights=torch.ones(15)),
            ValueError,
            "weights must have shape",
        ),
        (lambda: SubsampledDCT(S, index=torch.tensor([1, 1])), ValueError, "index must be"),
        (lambda: SubsampledDCT(S, index=torch.tensor([16])), ValueError, "index must be"),
    ],
)
def test_wrong_arguments_stop_at_the_door(call, error, named):
    with pytest.raises(error, match=named):
        call()
