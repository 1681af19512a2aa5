"""Where does a distribution end? A generalised Pareto fit to the tail of a sample.

Excesses over a high threshold of almost any law approach the generalised Pareto law with shape xi
and scale sigma (Pickands 1975); for xi < 0 it ends at threshold - sigma / xi. Fitted by
probability-weighted moments (Hosking and Wallis 1987, eq. 5), which exist for every bounded law
and are in closed form, so that the bootstraps are array operations. Ratios are fitted in
logarithms: an infimum of a positive quantity then comes out positive.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import genpareto

FEWEST = 50  # excesses below which no fit is tried
LEAST_P = 0.05


@dataclass(frozen=True)
class Endpoint:
    """Generalised Pareto fit to one tail: the estimated infimum (or supremum) of the ratio.

    A model-based estimate, no bound. `status` is "fitted", "refused: <reason>" (value, low and high
    are then nan), or "contradicted: <by what>" (they are kept).
    """

    side: str  # "lower" or "upper"
    source: str  # "independent secants" or "tangent extremes"
    value: float
    low: float  # bootstrap interval at `level`
    high: float
    level: float
    shape: float  # xi of the generalised Pareto law; < 0 means a finite endpoint
    n_tail: int  # excesses fitted
    p_value: float  # Anderson-Darling, by parametric bootstrap
    status: str

    @property
    def fitted(self) -> bool:
        return self.status == "fitted"

    def against(self, actual: float, what: str) -> Endpoint:
        """The same, marked as contradicted if an actual ratio lies beyond the estimate."""
        lower = self.side == "lower"
        if not self.fitted or not (actual < self.value if lower else actual > self.value):
            return self
        inside = actual >= self.low if lower else actual <= self.high
        where = "its estimate but within its interval" if inside else "its interval"
        return replace(self, status=f"contradicted: the {what} found {actual:.4g}, beyond {where}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        name = "infimum" if self.side == "lower" else "supremum"
        text = f"{name} from {self.source}: "
        if np.isfinite(self.value):
            text += f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}], p = {self.p_value:.2f}, "
        return text + self.status


def _moments(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(xi, sigma) of every row of sorted excesses, by probability-weighted moments."""
    n = excess.shape[-1]
    plotting = (np.arange(1, n + 1) - 0.35) / n
    a0 = excess.mean(axis=-1)
    a1 = (excess * (1 - plotting)).mean(axis=-1)
    return 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)


def _anderson_darling(excess: np.ndarray, xi: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The Anderson-Darling distance of every row of sorted excesses from its fitted law."""
    n = excess.shape[-1]
    u = genpareto.cdf(excess, xi[..., None], scale=sigma[..., None])
    u = np.clip(u, 1e-12, 1 - 1e-12)  # fitted by moments, the law may end before the data
    weight = 2 * np.arange(1, n + 1) - 1
    return -n - (weight * (np.log(u) + np.log1p(-u[..., ::-1]))).mean(axis=-1)


def _ends(excess: np.ndarray) -> np.ndarray:
    """Endpoint of every row above the threshold: inf for xi >= 0, never inside the data."""
    xi, sigma = _moments(excess)
    with np.errstate(divide="ignore"):
        end = np.where(xi < 0, -sigma / xi, np.inf)
    return np.maximum(end, excess[..., -1])


def fit_endpoint(
    ratios: np.ndarray,
    side: str,
    source: str,
    *,
    tail: float = 0.1,
    level: float = 0.9,
    resamples: int = 400,
    seed: int = 0,
) -> Endpoint:
    """Estimate the infimum (`side` "lower") or supremum ("upper") of independent ratios.

    Fits the `tail` fraction nearest the end, up to a quarter if that is short of 50. Refuses where
    the tail is too short, where it holds ties or zeros, where the law does not fit (p < 0.05), and
    where the interval for the shape reaches xi >= 0: a tail that does not show that it ends
    supports no endpoint.
    """
    if side not in ("lower", "upper"):
        raise ValueError(f"side: got {side!r}, expected 'lower' or 'upper'")
    if not 0 < tail < 1:
        raise ValueError(f"tail: got {tail}, expected a fraction between 0 and 1")
    ratios = np.asarray(ratios, dtype=np.float64)
    ratios = ratios[np.isfinite(ratios)]
    n = max(int(tail * len(ratios)), min(FEWEST, len(ratios) // 4))
    nan = float("nan")

    def refuse(reason: str, shape: float = nan, p: float = nan) -> Endpoint:
        why = f"refused: {reason}"
        return Endpoint(side, source, nan, nan, nan, level, shape, n, p, why)

    if n < FEWEST:
        return refuse(f"{n} values in the tail, {FEWEST} are needed")
    if ratios.min() <= 0:
        return refuse("a ratio is zero")
    values = np.sort(np.log(ratios) if side == "upper" else -np.log(ratios))
    threshold = values[-n - 1]
    excess = values[-n:] - threshold
    if np.unique(excess).size < 0.9 * n:
        return refuse("the tail is full of ties")
    xi, sigma = _moments(excess)
    shape = float(xi)
    rng = np.random.default_rng(seed)
    resampled = np.sort(rng.choice(excess, size=(resamples, n)), axis=1)
    shapes, _ = _moments(resampled)
    distance = _anderson_darling(excess, xi, sigma)
    simulated = np.sort(
        genpareto.rvs(shape, scale=float(sigma), size=(resamples, n), random_state=rng), axis=1
    )
    simulated_distance = _anderson_darling(simulated, *_moments(simulated))
    p_value = (1 + int((simulated_distance >= distance).sum())) / (resamples + 1)
    if p_value < LEAST_P:
        return refuse(
            f"the generalised Pareto law does not fit (p = {p_value:.3f})", shape, p_value
        )
    upper_shape = float(np.quantile(shapes, 1 - (1 - level) / 2))
    if shape >= 0 or upper_shape >= 0:
        return refuse(
            f"the tail does not show that it ends (shape {shape:.2f}, up to {upper_shape:.2f})",
            shape,
            p_value,
        )
    sign = 1 if side == "upper" else -1
    spread = np.quantile(_ends(resampled), [(1 - level) / 2, 1 - (1 - level) / 2])
    value = float(np.exp(sign * (threshold + _ends(excess))))
    low, high = sorted(np.exp(sign * (threshold + spread)).tolist())
    return Endpoint(side, source, value, low, high, level, shape, n, p_value, "fitted")
