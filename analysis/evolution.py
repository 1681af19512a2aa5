"""What the average case predicts: state evolution of message passing, from one measured curve.

Let D(σ²) = E‖P(x + σν) − x‖²/n, ν ~ N(0, I), the denoising curve of a projector (or a denoiser, who
is told σ) at the image x. For A with independent entries N(0, 1/m) and y = A x + v, v of variance
σ_v² for each measurement, the error per pixel of approximate message passing (`npgd.AMP`) is

    error_0 = ‖x‖²/n,    σ_t² = σ_v² + (n/m) error_t,    error_{t+1} = D(σ_t²),

in the limit of large n and m (Donoho, Maleki, Montanari, PNAS 2009; Bayati, Montanari, IEEE TIT
2011; Berthier, Montanari, Nguyen, Information and Inference 2020, for D that do not act pixel by
pixel; Metzler, Maleki, Baraniuk, IEEE TIT 2016, with denoisers). Each image has a curve of its own,
and its own evolution: what is printed is the mean over images. Where σ_t² stays is a fixed point,
and the iteration ends at the largest one below its start. Two stable ones make a jump: below some m
the iteration stays at the upper one, above it falls to the lower.

For an A with orthonormal rows (A Aᵀ = I) that span a random subspace, the iteration and its
evolution are those of OAMP and VAMP (Ma, Ping, IEEE Access 2017; Rangan, Schniter, Fletcher, IEEE
TIT 2019): with d the divergence per pixel at x + σ_t ν,

    σ_{t+1}² = (n/m) σ_v² + ((n − m)/m)·(D(σ_t²) − d² σ_t²)/(1 − d)².

Of any other A nothing is said here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float

from analysis.limits import PARTS
from analysis.memory import ACTIVE, Footprint, memory_of, state
from analysis.words import about, out_of
from npgd import checks
from npgd.denoising import Denoiser, denoises, estimator, latent_divergence
from npgd.files import plain
from npgd.images import Images, PerImage, inner, squared_norm, warn_of_range
from npgd.precision import like, plainly
from npgd.progress import bar
from npgd.sets import ImageSet, Projector, encodes
from npgd.showing import Drawn, iterations, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = 18
"""Noise levels of a curve, where none are given."""
LOWEST, HIGHEST = 0.02, 12.0
"""The first, and the last in units of the images' root mean square: σ_0 for m = n/144."""
ROWS = 512
"""Images that are projected at a time."""
FINE = 64
"""Points between two levels, where fixed points are looked for."""
POLISH = 400
"""Iterations that end on a fixed point from beside it."""
AWAY = 1e3
"""Errors above so many times ‖x‖²/n are infinite."""
APART = 1.02
"""Errors of two fixed points differ at least by this factor; less is the curve's own error."""


@dataclass(frozen=True, eq=False)
class DenoisingCurve(Drawn):
    """D(σ²) and the divergence of a projector or denoiser, measured level by level."""

    sigma: Float[torch.Tensor, " levels"]
    """σ, rising."""
    by_image: Float[torch.Tensor, "levels images"]
    """D(σ²) of each image, per pixel."""
    divergence_by_image: Float[torch.Tensor, "levels images"]
    """The divergence at x + σν over n, averaged over ν."""
    floor_by_image: PerImage
    """D(0) = ‖P(x) − x‖²/n; 0 for a denoiser, which leaves an image without noise as it is."""
    energy: PerImage
    """‖x‖²/n."""
    n: int
    """Pixels of an image, all channels."""
    draws: int
    """Pairs of ν and −ν for each image and level."""
    seconds: float

    @property
    def error(self) -> Float[torch.Tensor, " levels"]:
        """D(σ²), mean over the images, per pixel."""
        return self.by_image.mean(1)

    @property
    def error_se(self) -> Float[torch.Tensor, " levels"]:
        """Its standard error over images and draws; NaN for a single image."""
        return _standard_error(self.by_image)

    @property
    def divergence(self) -> Float[torch.Tensor, " levels"]:
        """The divergence per pixel, mean over the images."""
        return self.divergence_by_image.mean(1)

    @property
    def divergence_se(self) -> Float[torch.Tensor, " levels"]:
        """Its standard error over images and draws; NaN for a single image."""
        return _standard_error(self.divergence_by_image)

    @property
    def floor(self) -> float:
        """D(0), mean over the images: the error of P(x) itself."""
        return float(self.floor_by_image.mean())

    @property
    def status(self) -> str:
        """What was measured, in words."""
        count = self.by_image.shape[1]
        return (
            f"D(σ²) of {count} image{'s' * (count != 1)} at {len(self.sigma)} levels from"
            f" σ = {about(float(self.sigma[0]))} to {about(float(self.sigma[-1]))}"
        )

    def at(
        self, sigma: Float[torch.Tensor, "*shape images"]
    ) -> Float[torch.Tensor, "*shape images"]:
        """D(σ²) of each image at any σ ≥ 0.

        Between levels log D is linear in log σ; below the first, D is linear in σ² from D(0) on;
        above the last, the last slope goes on. Exact for D = c σ².
        """
        return _interpolated(self.sigma, self.by_image, self.floor_by_image, sigma)

    def divergence_at(
        self, sigma: Float[torch.Tensor, "*shape images"]
    ) -> Float[torch.Tensor, "*shape images"]:
        """The divergence per pixel of each image at any σ: linear in log σ between the levels, and
        constant outside of them."""
        flat = sigma.reshape(-1, self.by_image.shape[1]).double()
        last = len(self.sigma) - 1
        place = torch.searchsorted(self.sigma, flat.contiguous())
        high, low = place.clamp_max(last), (place - 1).clamp(0, last)
        left, right = self.sigma[low].log(), self.sigma[high].log()
        share = torch.where(high > low, (flat.log() - left) / (right - left), 0.0)
        image = torch.arange(self.by_image.shape[1]).expand_as(flat)
        values = self.divergence_by_image
        return torch.lerp(values[low, image], values[high, image], share).reshape(sigma.shape)

    def draw(self, axis: Axes) -> None:
        """D(σ²) against σ, with its standard error, and its floor."""
        se = self.error_se.nan_to_num(0.0)
        axis.errorbar(self.sigma, self.error, se, label="D(σ²)")
        axis.axhline(self.floor, color="grey", linestyle=":", label="σ → 0")
        plain_log(axis.xaxis)
        plain_log(axis.yaxis)
        axis.set(xlabel="σ", ylabel="error per pixel")
        axis.legend()

    def __str__(self) -> str:
        shown = range(0, len(self.sigma), max(1, len(self.sigma) // 8))
        lines = [self.status, f"  σ → 0: error {about(self.floor)}"]
        lines += [
            f"  σ = {about(float(self.sigma[i]))}: error {about(float(self.error[i]))}"
            f" ± {about(float(self.error_se[i]), 1)}, divergence"
            f" {about(float(self.divergence[i]) * self.n)} of {self.n}"
            for i in shown
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return {
            "sigma": plain(self.sigma),
            "error": plain(self.error),
            "error_se": plain(self.error_se),
            "divergence": plain(self.divergence),
            "divergence_se": plain(self.divergence_se),
            "floor": self.floor,
            "energy": float(self.energy.mean()),
            "n": self.n,
            "images": self.by_image.shape[1],
            "draws": self.draws,
            "seconds": self.seconds,
            "status": self.status,
        }


@plainly
@torch.no_grad()
def denoising_curve(
    prior: ImageSet | Projector | Denoiser,
    images: Images,
    sigma: object = None,
    seed: int = 0,
    draws: int = 2,
    divergence: str = "probe",
    progress: bool = False,
    memory: int | str | None = None,
) -> DenoisingCurve:
    """The denoising curve D(σ²) = E‖P(x + σν) − x‖²/n, and the divergence of P at x + σν.

    Noise comes in pairs ν and −ν, whose difference gives the divergence at no further cost:
    σ E div P(x + σν) = E⟨ν, P(x + σν)⟩ (Stein, Ann. Stat. 9(6), 1981).

    Args:
        prior: anything with `project(w)`, a callable w ↦ P(w), or a denoiser (w, σ) ↦ image.
        images: x, (batch, channels, height, width), in the prior's precision.
        sigma: noise levels, positive; default 18 from 0.02 to 12 times the root mean square of
            the images, in equal ratios.
        seed: of ν.
        draws: pairs of noise for each image and level.
        divergence: "probe", by those pairs, or "latent", exactly at x + σν for P = G∘G†.
        progress: show a progress bar, and before it how much memory the work needs.
        memory: most bytes, or "2 GB": fewer images are projected at a time.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    began = time.perf_counter()
    estimate, bound = estimator(prior), memory_of(memory)
    checks.finite(checks.any_images(images, "images"), "images")
    if hasattr(prior, "image_shape"):
        checks.images(images, checks.image_shape(prior.image_shape), "images")
    x, progress = like(images, prior), checks.flag(progress, "progress")
    draws, generator = checks.integer(draws, "draws"), checks.seeded(seed)
    checks.choice(divergence, "divergence", "probe", "latent")
    if divergence == "latent" and not encodes(prior):
        raise TypeError(
            'prior must have `encode` and `generate` for divergence="latent", got'
            f" {checks.shown(prior)}"
        )
    rows = _rows(estimate, x, bound, progress)
    energy = squared_norm(x).double().cpu() / x[0].numel()
    levels = _levels(sigma, energy)
    floor = torch.zeros_like(energy)
    if not denoises(prior):
        clean = torch.cat(
            [estimate(part, part.new_zeros(len(part))) for part in torch.split(x, rows)]
        )
        warn_of_range(x, clean)
        floor = squared_norm(clean - x).double().cpu() / x[0].numel()
    errors, traces = torch.zeros(2, len(levels), len(x), dtype=torch.float64)
    with bar(len(levels) * draws, "denoising curve", progress) as shown:
        for _ in range(draws):
            # The same ν at every level: the curve is then smooth.
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
            for i, level in enumerate(levels.tolist()):
                found = _measured(prior, x, level, noise, divergence, rows)
                errors[i] += found[0] / draws
                traces[i] += found[1] / draws
                shown.advance()
    return DenoisingCurve(
        sigma=levels,
        by_image=errors,
        divergence_by_image=traces,
        floor_by_image=floor,
        energy=energy,
        n=x[0].numel(),
        draws=draws,
        seconds=time.perf_counter() - began,
    )


def _levels(sigma: object, energy: PerImage) -> Float[torch.Tensor, " levels"]:
    if sigma is not None:
        given = sorted(set(checks.numbers_of(sigma, "sigma")))
        return torch.tensor(given, dtype=torch.float64)
    highest = max(HIGHEST * float(energy.mean()) ** 0.5, 10 * LOWEST)
    ends = math.log10(LOWEST), math.log10(highest)
    return torch.logspace(*ends, LEVELS, dtype=torch.float64)


def _rows(estimate: Any, x: Images, bound: int | None, show: bool) -> int:
    """Images that are projected at a time, within the bound; what they need is stated."""
    one = Footprint.of(lambda w: estimate(w, w.new_ones(1)), x[:1])
    held = x.nbytes + 8 * x.numel()  # the images and their noise, which is drawn in float64
    rows = min(len(x), one.passing(None if bound is None else bound - held, ROWS))
    state("denoising_curve", held + rows * ACTIVE * one.largest, bound, show)
    return rows


def _measured(
    prior: Any, x: Images, level: float, noise: Images, divergence: str, rows: int
) -> tuple[PerImage, PerImage]:
    """Error and divergence per pixel of every image at one level, over one pair of noise."""
    estimate, n = estimator(prior), x[0].numel()
    errors, traces = [], []
    for part, nu in zip(torch.split(x, rows), torch.split(noise, rows), strict=True):
        told = part.new_full((len(part),), level)
        up, down = (estimate(part + side * nu, told) for side in (level, -level))
        errors.append((squared_norm(up - part) + squared_norm(down - part)) / (2 * n))
        if divergence == "latent":
            traces.append(latent_divergence(prior, part + level * nu) / n)
        else:
            traces.append(inner(nu, up - down) / (2 * level * n))
    return torch.cat(errors).double().cpu(), torch.cat(traces).double().cpu()


def _interpolated(
    sigma: torch.Tensor, values: torch.Tensor, floor: torch.Tensor, at: torch.Tensor
) -> torch.Tensor:
    tiny = torch.finfo(torch.float64).tiny
    flat = at.reshape(-1, values.shape[1]).double()
    image = torch.arange(values.shape[1]).expand_as(flat)
    high = torch.searchsorted(sigma, flat.contiguous()).clamp(1, max(1, len(sigma) - 1))
    if len(sigma) == 1:
        share = (flat / sigma[0]).square()
        return (floor + (values[0] - floor) * share).reshape(at.shape)
    low = high - 1
    a, b = values[low, image], values[high, image]
    left, right = sigma[low], sigma[high]
    position = (flat.clamp_min(tiny).log() - left.log()) / (right.log() - left.log())
    slope = (b.clamp_min(tiny).log() - a.clamp_min(tiny).log()).clamp_max(
        torch.where(flat > sigma[-1], 2 * (right.log() - left.log()), math.inf)
    )
    powers = (a.clamp_min(tiny).log() + position * slope).exp()
    # Where D is 0 at a level it has no logarithm.
    straight = a + (b - a) * (flat.square() - left.square()) / (right.square() - left.square())
    between = torch.where((a > 0) & (b > 0), powers, straight)
    below = floor + (values[0] - floor) * (flat / sigma[0]).square()
    return torch.where(flat < sigma[0], below, between).clamp_min(0).reshape(at.shape)


def _standard_error(values: Float[torch.Tensor, "rows images"]) -> Float[torch.Tensor, " rows"]:
    count = values.shape[1]
    if count < 2:
        return torch.full((len(values),), math.nan, dtype=torch.float64)
    return values.std(1) / math.sqrt(count)


@dataclass(frozen=True, eq=False)
class StateEvolution(Drawn):
    """The error that state evolution predicts, iteration by iteration and where it ends."""

    by_image: Float[torch.Tensor, "iterates images"]
    """Predicted error of each image, per pixel; x_0 = 0 first."""
    end_by_image: PerImage
    """The error at the fixed point that the iteration reaches."""
    best_by_image: PerImage
    """The error at the lowest fixed point, which it would reach from x* itself."""
    m: int
    n: int
    noise: float
    """σ_v."""
    sigma_by_image: Float[torch.Tensor, "iterates images"]
    """σ_t of each image."""
    rows: str
    """Of A: "independent" entries, or "orthonormal"."""
    extrapolated: bool
    """Whether some σ_t lies above the curve's last level."""

    @property
    def error(self) -> Float[torch.Tensor, " iterates"]:
        """Predicted error per pixel, mean over the images: ‖x‖²/n, then D(σ_{t−1}²)."""
        return self.by_image.mean(1)

    @property
    def error_se(self) -> Float[torch.Tensor, " iterates"]:
        """Its standard error over images and draws of the curve; NaN for a single image."""
        return _standard_error(self.by_image)

    @property
    def sigma(self) -> Float[torch.Tensor, " iterates"]:
        """σ_t, the root mean square over the images."""
        return self.sigma_by_image.square().mean(1).sqrt()

    @property
    def fixed_point(self) -> float:
        """The error that the iteration reaches in the end, mean over the images."""
        return float(self.end_by_image.mean())

    @property
    def end_se(self) -> float:
        """Its standard error over images and draws of the curve; NaN for a single image."""
        return float(_standard_error(self.end_by_image[None])[0])

    @property
    def fixed_points(self) -> tuple[float, ...]:
        """The errors at the lowest fixed points, and at those reached, if these are others."""
        best = float(self.best_by_image.mean())
        return (best, self.fixed_point) if bool(self.jumps.any()) else (self.fixed_point,)

    @property
    def jumps(self) -> Bool[torch.Tensor, " images"]:
        """Which images have a lower fixed point than the one they reach: a jump at a larger m."""
        tiny = 1e-9 * self.by_image[0]
        return self.end_by_image > APART * self.best_by_image + tiny

    @property
    def status(self) -> str:
        """What is predicted, in words."""
        count = len(self.end_by_image)
        kind = "independent entries" if self.rows == "independent" else "orthonormal random rows"
        text = f"for {kind} of A, m = {self.m}: error {about(self.fixed_point)} in the end"
        if bool(self.jumps.any()):
            text += (
                f"; {out_of(int(self.jumps.sum()), count)} could rest lower, in the mean at"
                f" {about(float(self.best_by_image.mean()))}, and will jump there at a larger m"
            )
        if self.extrapolated:
            text += "; some σ lie above the curve's last level, where its slope goes on"
        return text

    def draw(self, axis: Axes) -> None:
        """The predicted error, iteration by iteration, and where it ends."""
        axis.plot(range(len(self.error)), self.error, "o-", label="predicted")
        axis.axhline(self.fixed_point, color="grey", linestyle=":", label="in the end")
        plain_log(axis.yaxis)
        iterations(axis)
        axis.set(ylabel="error per pixel", title=f"m = {self.m}")
        axis.legend()

    def __str__(self) -> str:
        listed = ", ".join(about(float(value)) for value in self.error[:10])
        more = ", …" if len(self.error) > 10 else ""
        return f"{self.status}\n  error per pixel, x_0 first: {listed}{more}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "m": self.m,
            "n": self.n,
            "noise": self.noise,
            "rows": self.rows,
            "error": plain(self.error),
            "error_se": plain(self.error_se),
            "sigma": plain(self.sigma),
            "fixed_point": self.fixed_point,
            "fixed_points": list(self.fixed_points),
            "jumps": int(self.jumps.sum()),
            "extrapolated": self.extrapolated,
            "images": len(self.end_by_image),
            "status": self.status,
        }


@torch.no_grad()
def state_evolution(
    curve: DenoisingCurve,
    m: int,
    n_iter: int = 30,
    noise: float = 0.0,
    rows: str = "independent",
) -> StateEvolution:
    """The errors of message passing with m measurements, from the denoising curve alone.

    σ_t² = σ_v² + (n/m) error_t, error_{t+1} = D(σ_t²), from x_0 = 0, image by image, for A with
    independent entries N(0, 1/m); or the recursion of the module for orthonormal random rows. Of
    another A it says nothing.

    Args:
        curve: of `denoising_curve`.
        m: measurements.
        n_iter: iterations.
        noise: σ_v, standard deviation of the noise on each measurement, for A whose columns have
            norm 1; for orthonormal rows, A as it is.
        rows: "independent" or "orthonormal".

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_curve(curve)
    checks.choice(rows, "rows", "independent", "orthonormal")
    m, n_iter = checks.integer(m, "m"), checks.integer(n_iter, "n_iter")
    noise = checks.number(noise, "noise", zero=True)
    if rows == "orthonormal" and m > curve.n:
        raise ValueError(f"m must be at most n = {curve.n} for orthonormal rows, got {m}")
    sigmas, advance = [_first(curve, m, noise, rows)], _advance(curve, m, noise, rows)
    for _ in range(n_iter):
        sigmas.append(advance(sigmas[-1]))
    errors = [curve.energy, *map(curve.at, sigmas[:-1])]
    best, end = _fixed_points(curve, m, noise, rows)
    return StateEvolution(
        by_image=torch.stack(errors),
        end_by_image=end,
        best_by_image=best,
        m=m,
        n=curve.n,
        noise=noise,
        sigma_by_image=torch.stack(sigmas),
        rows=rows,
        extrapolated=float(sigmas[0].max()) > 1.001 * float(curve.sigma[-1]),
    )


def _check_curve(curve: object) -> None:
    if not isinstance(curve, DenoisingCurve):
        raise TypeError(
            f"curve must be a DenoisingCurve as denoising_curve gives, got {checks.shown(curve)}"
        )


Advance = Callable[[torch.Tensor], torch.Tensor]
"""σ_t ↦ σ_{t+1} of every image."""


def _advance(curve: DenoisingCurve, m: int, noise: float, rows: str) -> Advance:
    if rows == "independent":
        return lambda sigma: (noise**2 + curve.n / m * curve.at(sigma)).sqrt()

    def orthonormal(sigma: torch.Tensor) -> torch.Tensor:
        d = curve.divergence_at(sigma).clamp(0, 0.95)
        error = (curve.at(sigma) - (d * sigma).square()).clamp_min(0) / (1 - d).square()
        return (curve.n / m * noise**2 + (curve.n - m) / m * error).sqrt()

    return orthonormal


def _first(curve: DenoisingCurve, m: int, noise: float, rows: str) -> PerImage:
    """σ_0 of every image."""
    if rows == "independent":
        return (noise**2 + curve.n / m * curve.energy).sqrt()
    return (curve.n / m * noise**2 + (curve.n - m) / m * curve.energy).sqrt()


def _fixed_points(
    curve: DenoisingCurve, m: int, noise: float, rows: str = "independent"
) -> tuple[PerImage, PerImage]:
    """The errors at the lowest fixed point and at the largest below σ_0, of each image.

    Signs of σ_{t+1} − σ_t on a fine grid find where it grows, and the iteration itself goes the
    rest of the way.
    """
    start, advance = _first(curve, m, noise, rows), _advance(curve, m, noise, rows)
    lowest, highest = 1e-3 * float(curve.sigma[0]), max(float(start.max()), float(curve.sigma[-1]))
    count = FINE * (len(curve.sigma) + 4)
    ends = math.log10(max(lowest, noise)), math.log10(1.01 * max(highest, noise))
    grid = torch.logspace(*ends, count, dtype=torch.float64)[:, None].expand(-1, len(start))
    grows = advance(grid) >= grid
    index = torch.arange(count)[:, None]
    upper = torch.where(grows & (grid <= start), index, -1).amax(0)
    lower = torch.where(grows, count, index).amin(0)
    from_above = grid[(upper + 1).clamp_max(count - 1), 0]
    from_below = grid[lower.clamp_max(count - 1), 0]
    ends_at = []
    for sigma in (from_below, torch.minimum(from_above, start)):
        for _ in range(POLISH):
            sigma, before = advance(sigma), sigma
            if bool(((sigma - before).abs() <= 1e-9 * before).all()):
                break
        error = curve.at(sigma)
        # Where the slope of the last level sends it away from, nothing comes back.
        ends_at.append(torch.where(error > AWAY * curve.energy, math.inf, error))
    return torch.minimum(*ends_at), ends_at[1]


@torch.no_grad()
def least_measurements(
    curve: DenoisingCurve, noise: float = 0.0, within: float = 0.1
) -> int | None:
    """The smallest m from which message passing ends within a factor 1 + `within` of its floor.

    The floor is the mean of D(σ_v²), which m → ∞ leaves. Where the error jumps there, m is the
    phase transition. None if 4 n measurements are not enough.

    Args:
        curve: of `denoising_curve`.
        noise: σ_v.
        within: relative.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_curve(curve)
    noise = checks.number(noise, "noise", zero=True)
    within = checks.number(within, "within")
    floor = float(curve.at(torch.full_like(curve.energy, noise)).mean())
    goal = (1 + within) * floor + 1e-6 * float(curve.energy.mean())

    def reached(m: int) -> bool:
        return float(_fixed_points(curve, m, noise)[1].mean()) <= goal

    low, high = 0, 4 * curve.n
    if not reached(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


@dataclass(frozen=True, eq=False)
class ErrorBudget(Drawn):
    """What an error is made of, predicted: a mean over the images, per pixel; the parts sum to it.

    The parts are those that `analysis.split_error` measures by runs, of the same names.
    """

    parts: dict[str, float]
    """By name, see `analysis.limits.PARTS`; `range` and `iterations` only where they are known."""
    doubled: float
    """The predicted error with twice the measurements."""
    m: int

    @property
    def error(self) -> float:
        """The sum: the error observed where it was given, else the one predicted."""
        return sum(self.parts.values())

    @property
    def predicted(self) -> float:
        """Without what the run adds."""
        return self.error - self.parts.get("iterations", 0.0)

    @property
    def status(self) -> str:
        """What would help, by the numbers predicted."""
        gain = self.predicted - self.doubled
        text = (
            f"twice the measurements would gain about {about(max(gain, 0.0), 2)} of"
            f" {about(self.error)}"
        )
        if "range" in self.parts:
            better = about(max(self.parts["projector"], 0.0), 2)
            text += f", a projector onto the nearest point about {better}"
        return text

    def draw(self, axis: Axes) -> None:
        """A bar for each part."""
        axis.barh(list(self.parts), list(self.parts.values()))
        axis.invert_yaxis()
        axis.set(xlabel="error per pixel", title=f"m = {self.m}")

    def __str__(self) -> str:
        lines = [f"error {about(self.error)} per pixel at m = {self.m}; {self.status}"]
        lines += [f"  {about(value)} {name}: {PARTS[name]}" for name, value in self.parts.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return {
            "m": self.m,
            "error": self.error,
            "parts": dict(self.parts),
            "doubled": self.doubled,
            "status": self.status,
        }


@torch.no_grad()
def error_budget(
    curve: DenoisingCurve,
    m: int,
    noise: float = 0.0,
    nearest: float | None = None,
    observed: float | None = None,
) -> ErrorBudget:
    """What limits a recovery: the parts of the error at the fixed point of state evolution.

    The first part is the mean of D(0) = ‖P(x) − x‖²/n, split at the distance from the range where
    that is given. Too few measurements add what the fixed point without noise lies above D(0), the
    noise what it adds to that fixed point, and the run what is observed beyond the prediction.
    Nothing is recovered for it: `analysis.split_error` measures the same parts, image by image, by
    runs with the A at hand, whatever its entries.

    Args:
        curve: of `denoising_curve`, at the images of the recovery.
        m: measurements.
        noise: σ_v, as for `state_evolution`.
        nearest: mean over the images of min_{s∈S} ‖x − s‖²/n, as `nearest_in_range` finds it.
        observed: the mean error per pixel of a run.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_curve(curve)
    m, noise = checks.integer(m, "m"), checks.number(noise, "noise", zero=True)
    clean, noisy, doubled = (
        float(_fixed_points(curve, size, level)[1].mean())
        for size, level in ((m, 0.0), (m, noise), (2 * m, noise))
    )
    parts = {"projector": curve.floor}
    if nearest is not None:
        distance = checks.number(nearest, "nearest", zero=True)
        parts = {"range": distance, "projector": curve.floor - distance}
    parts |= {"measurements": clean - curve.floor, "noise": noisy - clean}
    if observed is not None:
        parts["iterations"] = checks.number(observed, "observed", zero=True) - noisy
    return ErrorBudget(parts, doubled, m)
