"""How hard `analysis.estimate_rec` looks, and where."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.memory import LARGE
from npgd import checks

LOOKS = ("secants", "tangents", "search")


@dataclass(frozen=True)
class RecSettings:
    """Settings of `analysis.estimate_rec`; the defaults are its defaults.

    Raises:
        TypeError, ValueError: naming the setting that does not fit.
    """

    points: int = 4000
    """Samples G(z), z ~ N(0, I), whose N(N − 1)/2 secants are looked at. With one seed, fewer
    points are the first of more."""
    tangent_points: int = 300
    """Of the same samples, those whose tangents are looked at."""
    search_starts: int = 24
    """Worst directions found, of either side, from which the search starts."""
    search_steps: int = 120
    """Gradient steps of each search."""
    latent_radius: float | None = None
    """The search stays within ‖z‖ ≤ latent_radius; by default √k + 3, which all but exp(−9/2) of
    N(0, I) lies within."""
    looks: tuple[str, ...] = LOOKS
    """Which looks to take: some of "secants", "tangents", "search". None of them leaves the exact
    constants of affine and finite sets."""
    epsilon: float = 0.05
    """1 − confidence of the distribution-free statement."""
    bins: int = 400
    """Bins of the histogram of ‖A s‖²/‖s‖²."""

    def __post_init__(self) -> None:
        radius = self.latent_radius
        checks.settle(
            self,
            points=checks.integer(self.points, "points", minimum=2),
            latent_radius=radius if radius is None else checks.number(radius, "latent_radius"),
            epsilon=checks.between(self.epsilon, "epsilon"),
            looks=checks.some(self.looks, "looks", *LOOKS),
            **{
                name: checks.integer(getattr(self, name), name)
                for name in ("tangent_points", "search_starts", "search_steps", "bins")
            },
        )

    @classmethod
    def of(cls, effort: str, entries: int = 1) -> RecSettings:
        """The settings of an effort, for a set whose tangent spaces hold n k numbers (`entries`).

        | effort | points | tangent_points | search_starts | search_steps | 28 × 28, one core |
        |---|---|---|---|---|---|
        | "quick" | 1000 | 60 | 8 | 40 | a few seconds |
        | "default" | 4000 | 300 | 24 | 120 | about a minute |
        | "thorough" | 20000 | 1500 | 64 | 300 | many minutes |

        From 5 million numbers on fewer tangent spaces are looked at: as many as hold 3·10⁸ of them
        ("quick"), 2·10⁹ or 10¹⁰, one at least. Above 2²⁵ numbers, where a pass of G is long as
        well, "quick" searches from 3 of the worst directions of either side, 20 steps each.

        Raises:
            ValueError: for any other effort.
        """
        checks.choice(effort, "effort", *EFFORTS)
        points, tangent_points, search_starts, search_steps = EFFORTS[effort]
        tangent_points = min(tangent_points, max(1, ENTRIES[effort] // entries))
        if effort == "quick" and entries > LARGE:
            search_starts, search_steps = LARGE_SEARCH
        return cls(points, tangent_points, search_starts, search_steps)


EFFORTS = {
    "quick": (1000, 60, 8, 40),
    "default": (4000, 300, 24, 120),
    "thorough": (20_000, 1500, 64, 300),
}
"""Points, tangent points, search starts and search steps, by effort."""
LARGE_SEARCH = (3, 20)
"""Search starts and steps of the effort "quick" for large sets."""
ENTRIES = {"quick": 3 * 10**8, "default": 2 * 10**9, "thorough": 10**10}
"""Numbers in all the Jacobians looked at, by effort."""
