"""The search: never worse than where it starts, and limits where its pairs close up."""

import pytest
import torch
from torch import nn

import npgd
from analysis import testing
from analysis.rec import search
from analysis.rec.looks import TANGENT_STEP, ends, starts
from analysis.rec.pair import Pair
from analysis.rec.search import Found, search_from, search_pairs
from analysis.rec.secants import all_pairs
from analysis.rec.tangents import tangents
from npgd.images import ratio

LINE = (1, 1, 2)
# r of (cos φ, sin φ) is 1 + 3 sin² φ.
A = npgd.MatrixOperator(torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64), LINE)


class Cubic(nn.Module):
    """The curve (z, z³): its tangent at 0 has r = 1, every secant and other tangent more."""

    latent_dim, image_shape = 1, LINE

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def generate(self, z):
        return torch.cat([self.one * z, z**3], 1).reshape(-1, *LINE)


def latents(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("side", [False, True])
def test_a_search_that_ends_worse_keeps_its_start(side, monkeypatch):
    """Starts nearer than the search may come: it cannot but move away, to worse."""
    monkeypatch.setattr(search, "CLOSEST", {torch.float64: 0.5})
    z = latents(0.0) if not side else latents(1.0)
    start = (z - 1e-3, z + 1e-3)
    largest = torch.tensor([side])
    found = search_pairs(A, Cubic(), *start, largest, radius=1.1, steps=1)
    before = ratio(A, Cubic().generate(start[0]) - Cubic().generate(start[1]))
    moved = ratio(A, Cubic().generate(z - 0.5) - Cubic().generate((z + 0.5).clamp(max=1.1)))
    assert (moved < before) if side else (moved > before)
    assert torch.equal(found.ratio, before)
    assert torch.equal(found.z_first, start[0]) and torch.equal(found.z_second, start[1])


def test_a_search_that_ends_better_keeps_its_end():
    start = latents(0.3), latents(0.9)
    found = search_pairs(A, Cubic(), *start, torch.tensor([False]), radius=2.0, steps=200)
    before = float(ratio(A, Cubic().generate(start[0]) - Cubic().generate(start[1])))
    after = ratio(A, Cubic().generate(found.z_first) - Cubic().generate(found.z_second))
    assert float(found.ratio) == pytest.approx(float(after), rel=1e-12)
    assert 1 <= float(found.ratio) < 1 + 1e-3 < before


def test_limits_are_looked_at_midway_between_the_ends():
    """Ends at ±0.7: the tangent at 0 has r = 1, those at the ends far more, the secant too."""
    ended = Found(torch.tensor([2.0]).double(), latents(-0.7), latents(0.7), 1)
    pair = Pair(A, Cubic())
    low = [found.ratio for found in ends(pair, ended, torch.tensor([True]), False) if found]
    assert len(low) == 2 and min(low) == pytest.approx(1, rel=1e-12)
    assert max(low) > 1.1
    # Ends at 0.5 and 1: the steepest of the curve between them is not looked at, its middle is.
    ended = Found(torch.tensor([2.0]).double(), latents(0.5), latents(1.0), 1)
    high = [found for found in ends(pair, ended, torch.tensor([True]), True) if found]
    tangent = next(found for found in high if found.kind == "tangent")
    slope = 3 * 0.75**2
    assert tangent.ratio == pytest.approx((1 + 4 * slope**2) / (1 + slope**2), rel=1e-12)


def test_the_best_four_ends_of_the_side_asked_for_are_kept():
    z = latents(*(0.1 * i for i in range(1, 8)))
    ratios = ratio(A, Cubic().generate(z) - Cubic().generate(-z))
    ended = Found(ratios, z, -z, 1)
    for largest, expected in ((False, [1, 2, 3]), (True, [7, 6])):
        chosen = torch.tensor([True] * 3 + [largest] * 4)
        found = ends(Pair(A, Cubic()), ended, chosen, largest)
        firsts = [float(f.z_first) for f in found if f.kind == "secant"]
        assert firsts[: len(expected)] == pytest.approx([0.1 * i for i in expected])
        assert len(firsts) == (4 if largest else 3)


def test_pairs_as_short_as_rounding_are_no_ends():
    """Where the curve stands still, in float64, latents far apart are images far too near."""

    class Still(Cubic):
        def generate(self, z):
            return super().generate(torch.tanh(20 * z))

    start = latents(2.0), latents(1.9)
    found = search_pairs(A, Still(), *start, torch.tensor([False]), radius=2.0, steps=3)
    assert found.ratio.isnan().all()
    x_true = Still().generate(latents(1.95))
    assert search_from(A, Still(), latents(2.0), x_true, None, radius=2.0, steps=3).ratio.isnan()


def test_pairs_are_short_relative_to_their_images():
    """A million away, float64 has steps of 1e-10: 1e-9 apart is nothing but rounding."""

    class Far(Cubic):
        def generate(self, z):
            return 1e6 + 1e-9 * super().generate(z)

    start = latents(1.0), latents(0.3)
    found = search_pairs(A, Far(), *start, torch.tensor([False]), radius=2.0, steps=3)
    assert found.ratio.isnan().all()


def test_a_search_begins_with_the_pair_it_is_given():
    """Within the radius, and no nearer than it may come; equal latents have a direction too."""
    looked_at = []

    class Space(nn.Module):
        latent_dim, image_shape = 3, (1, 1, 3)

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

        def generate(self, z):
            looked_at.append(z.detach())
            return (self.one * z).reshape(-1, 1, 1, 3)

    operator = npgd.MatrixOperator(testing.normal(3, 3), (1, 1, 3))
    first, second = testing.normal(6, 3), testing.normal(6, 3, seed=1)
    first[0], second[1] = 100 * first[0], first[1]
    search_pairs(
        operator, Space(), first, second, torch.zeros(6, dtype=torch.bool), radius=5.0, steps=1
    )
    one, two = next(z for z in looked_at if len(z) == 12).split(6)
    torch.testing.assert_close(one[2:], first[2:])
    torch.testing.assert_close(two[2:], second[2:])
    torch.testing.assert_close(one[0], 5 * first[0] / first[0].norm())
    assert float((one[1] - two[1]).norm()) == pytest.approx(2 * search.CLOSEST[torch.float64])


def test_searches_of_either_side_move_apart():
    z = testing.normal(8, 1)
    largest = torch.arange(8) >= 4
    found = search_pairs(A, Cubic(), z, -z.flip(0), largest, radius=1.5, steps=60)
    # Over |z| ≤ 1.5 the steepest tangent has slope 6.75, the flattest 0.
    top = (1 + 4 * 6.75**2) / (1 + 6.75**2)
    assert float(found.ratio[:4].min()) == pytest.approx(1, abs=1e-3)
    assert 0.99 * top < float(found.ratio[4:].max()) <= top


@pytest.mark.parametrize("side", [False, True])
def test_a_search_keeps_the_best_of_all_that_it_looked_at(side):
    """Few steps, as long as the distance from the best: some of them overshoot it."""
    looked_at = []

    class Recording(Cubic):
        def generate(self, z):
            looked_at.append(z.detach())
            return super().generate(z)

    first, second = 0.05 * testing.normal(16, 1), 0.05 * testing.normal(16, 1, seed=1)
    largest = torch.full((16,), side)
    found = search_pairs(A, Recording(), first, second, largest, radius=1.0, steps=9)
    pairs = [z.split(16) for z in looked_at if len(z) == 32]
    assert len(pairs) == 9
    ratios = torch.stack([ratio(A, Cubic().generate(a) - Cubic().generate(b)) for a, b in pairs])
    if side:
        assert (found.ratio >= ratios.amax(0) * (1 - 1e-12)).all()
    else:
        assert (found.ratio <= ratios.amin(0) * (1 + 1e-12)).all()
        assert (ratios[-1] > ratios.amin(0)).any()


@pytest.mark.parametrize("side", [False, True])
@pytest.mark.parametrize(("count", "of_tangents"), [(4, 2), (5, 3)])
def test_half_of_the_starts_are_the_worst_tangents_and_half_the_worst_secants(
    side, count, of_tangents
):
    z = latents(0.9, 0.1, -0.4, 0.7, 0.25, -0.05)
    scan, limits = all_pairs(A, Cubic().generate(z)), tangents(A, Cubic(), z)
    first, second = starts(z, scan, limits, count, side)
    assert len(first) == len(second) == count
    flattest = z[z.abs().flatten().argsort(descending=side)]  # r grows with the slope 3z²
    torch.testing.assert_close((first + second)[:of_tangents] / 2, flattest[:of_tangents])
    apart = (first - second).norm(dim=1)
    torch.testing.assert_close(
        apart[:of_tangents], torch.full_like(apart, 2 * TANGENT_STEP)[:of_tangents]
    )
    for a, b, (_, i, j) in zip(
        first[of_tangents:],
        second[of_tangents:],
        scan.highest if side else scan.lowest,
        strict=False,
    ):
        assert torch.equal(a, z[i]) and torch.equal(b, z[j])
    without = starts(z, None, limits, count, side)
    assert ((without[0] - without[1]).norm(dim=1) - 2 * TANGENT_STEP).abs().max() < 1e-12
    neither = starts(z, None, None, count, side)
    assert torch.equal(torch.cat(neither), z[: 2 * min(count, 3)])
