"""Everything the convergence theorem talks about, measured and held against a run.

:func:`verify` measures the restricted eigenvalue constants, the projector's error and a run of
NPGD, and returns a :class:`Report`: findings in words, a table, JSON, and one page with figures.

Theorem 1 of Raj, Li, Bresler (ICCV 2019) assumes β/α < 2, η = 1/β, a δ-approximate projector, and
x* and x_0 in S = range(G). Every assumption has its finding, with the numbers behind it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from npgd import checks
from npgd.files import write_atomically
from npgd.operators import as_operator
from npgd.solvers import NPGD, Solution, choose_step_size, recover

from .projection import (
    ProjectionError,
    gradient_points,
    nearest_in_range,
    projection_error,
    sample_families,
)
from .rates import GREEK, ConvergenceCheck, check_convergence, in_double, plain
from .rec import RecEstimate, estimate_rec

__all__ = ["Finding", "Report", "verify"]

Images = Float[torch.Tensor, "batch channels height width"]


@dataclass(frozen=True)
class Finding:
    """One assumption or outcome, and what was found."""

    subject: str
    verdict: str
    """"met", "not met", "not contradicted", or "measured" where there is nothing to meet."""
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.verdict}. {self.text}"


@dataclass(frozen=True, eq=False)
class Report:
    """What :func:`verify` found. ``print`` shows the findings; ``write`` makes the page."""

    rec: RecEstimate
    projection: ProjectionError
    uniform: ConvergenceCheck
    """The run against the uniform constants (all pairs of S)."""
    pointwise: ConvergenceCheck
    """The run against each image's own constants, α(x*) and the δ of its own w_n."""
    solution: Solution
    images: Images
    """x*, as given."""
    target: Images
    """x̄, the best point of S found for x*; the theorem is about this one."""
    distance: Float[torch.Tensor, " batch"]
    """‖x* − x̄‖², 0 for samples of G."""
    operator: dict[str, Any]
    settings: dict[str, Any]
    seconds: dict[str, float]

    @property
    def findings(self) -> list[Finding]:
        """Every assumption and outcome, in the order of the theorem."""
        return [
            _contraction(self),
            _pointwise_contraction(self),
            _step_size(self),
            _membership(self),
            _projector(self),
            _iterates(self),
            _bounds(self),
            _gap(self),
            _recovery(self),
            _identity(self),
        ]

    @property
    def summary(self) -> str:
        """The findings in words."""
        return "\n".join(f"{i}. {finding}" for i, finding in enumerate(self.findings, 1))

    @property
    def status(self) -> str:
        """The first finding and what happened, in two sentences."""
        return f"{self.findings[0].text} The objective {self.uniform.observed.status}."

    def __str__(self) -> str:
        return self.summary

    def table(self) -> Any:
        """The numbers as a ``rich`` table group, to be printed on a console."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table

        from .page import constants_table, images_table

        tables = []
        for title, head, rows in (constants_table(self), images_table(self)):
            table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
            for i, name in enumerate(head):
                table.add_column(name, justify="left" if i == 0 else "right")
            for row in rows:
                table.add_row(*row)
            tables.append(table)
        return Group(*tables)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as plain numbers, lists and strings for JSON."""
        run = self.pointwise.to_dict()
        # The run is the same in both checks; it is listed once.
        shared = ("decomposition", "observed", "objective", "step_factor")
        content = {
            "findings": [
                {"subject": f.subject, "verdict": f.verdict, "text": f.text} for f in self.findings
            ],
            "settings": self.settings,
            "operator": self.operator,
            "restricted_eigenvalues": self.rec.to_dict(),
            "projection": self.projection.to_dict(),
            "uniform": self.uniform.to_dict(),
            "pointwise": {key: value for key, value in run.items() if key not in shared},
            "solution": self.solution.to_dict(),
            "distance_to_range": self.distance,
            "seconds": self.seconds,
        }
        return plain(content)

    def to_html(self) -> str:
        """One self-contained page: findings, tables and figures, nothing loaded from elsewhere."""
        from .page import page

        return page(self)

    def write(self, directory: str | Path, force: bool = False) -> Path:
        """Write report.html, report.json and summary.txt; return the page's path.

        Each file appears whole or not at all.

        Raises:
            FileExistsError: if one of them is there already, and ``force`` is false.
        """
        directory = Path(directory)
        contents = {
            "report.html": self.to_html(),
            "report.json": json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n",
            "summary.txt": self.summary + "\n",
        }
        present = [name for name in contents if (directory / name).exists()]
        if present and not force:
            raise FileExistsError(
                f"directory: {directory} already holds {', '.join(present)}; choose another or "
                "pass force=True"
            )
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(directory / name, content.encode())
        return directory / "report.html"


def verify(
    A: Any,
    prior: Any,
    images: Images | None = None,
    *,
    step_size: float | str = "1/beta",
    n_iter: int = 30,
    noise: float = 0.0,
    start: str = "adjoint",
    count: int = 12,
    points: int = 3000,
    tangent_points: int = 300,
    search_starts: int = 16,
    search_steps: int = 80,
    projection_points: int = 24,
    projection_starts: int = 3,
    projection_steps: int = 100,
    seed: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
) -> Report:
    """Measure the theorem's assumptions for A and a prior, and hold its bound against a run.

    1. x̄, the best point of S = range(G) for every image; what is left counts as noise.
    2. α and β on secants and tangents of S and by search, and α(x̄) for every image.
    3. NPGD on y = A x* + noise, in float64.
    4. δ on samples of G, noisy samples, the images, and the points w_n that the run projected.
    5. The bound against the iterates, with the uniform constants and with each image's own.

    Args:
        A: an operator, or anything that :func:`npgd.as_operator` takes.
        prior: a ``GenerativePrior``, ``AffineSet`` or ``FiniteSet``, or what has their methods.
        images: x*, real images or others, pixels in [-1, 1]; default ``count`` samples of G.
        step_size: η; "1/beta" is the theorem's 1/β with the β measured on S (which may be too
            small, so that η may be too large), "auto" the empirical choice of
            :func:`npgd.choose_step_size`.
        n_iter: iterations of the run.
        noise: standard deviation of Gaussian noise added to every measurement.
        start: x_0 = Aᵀy ("adjoint"; statements then begin at x_1) or P(Aᵀy) ("range").
        count: samples, if no images are given.
        points, tangent_points, search_starts, search_steps, executor: of
            :func:`analysis.estimate_rec`.
        projection_points: points in each family of :func:`analysis.projection_error`.
        projection_starts, projection_steps: of its search, and of the search for x̄.
        seed: of every draw.
        progress: show progress bars.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    began = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = time.perf_counter() - began - sum(seconds.values())

    checks.integer(n_iter, "n_iter", minimum=2)
    checks.number(noise, "noise", zero=True)
    if start not in ("adjoint", "range"):
        raise ValueError(f'start must be "adjoint" or "range", got {start!r}')
    if isinstance(step_size, str) and step_size not in ("1/beta", "auto"):
        raise ValueError(f'step_size must be a number, "1/beta" or "auto", got {step_size!r}')
    operator = as_operator(A, prior.image_shape)
    generator = torch.Generator().manual_seed(checks.integer(seed, "seed", minimum=0))
    source = "real images" if images is not None else f"{count} samples of G"
    exact_A, exact_prior = in_double(operator), in_double(prior)
    search: dict[str, Any] = {
        "starts": projection_starts,
        "steps": projection_steps,
        "seed": seed,
        "progress": progress,
    }

    # x* and its best point in S.
    x_true, x_bar, latents = _targets(prior, exact_prior, images, count, generator, search)
    batch = len(x_true)
    distance = (x_true - x_bar).flatten(1).square().sum(1).cpu()
    with torch.no_grad():
        y = exact_A(x_true)
    y = y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    lap("best points in S")

    rec = estimate_rec(
        operator,
        prior,
        points=points,
        tangent_points=tangent_points,
        search_starts=search_starts,
        search_steps=search_steps,
        z_true=latents,
        x_true=None if latents is not None else x_bar,
        seed=seed,
        executor=executor,
        progress=progress,
    )
    lap("restricted eigenvalues")

    beta = rec.beta_certain if operator.row_orthonormal else rec.beta
    if step_size == "1/beta":
        eta = 1 / beta
    elif step_size == "auto":
        eta = choose_step_size(exact_A, exact_prior, seed=seed, max_iter=n_iter, start=start)
    else:
        eta = checks.number(step_size, "step_size")
    solver = NPGD(exact_prior, eta, max_iter=n_iter, tol=0.0, start=start)
    solution = recover(exact_A, y, solver, x_true=x_true, record_iterates=True, progress=progress)
    assert solution.iterates is not None
    lap("recovery")

    first = 0 if start == "range" else 1
    given = None if images is None else x_true
    projection = _projection(
        prior,
        exact_A,
        y,
        solution.iterates,
        eta,
        first,
        x_bar,
        given,
        projection_points,
        seed,
        search,
    )
    lap("projector error")

    # A constant of zero has no bound; this much above it the bound is as void, and finite.
    assert rec.pointwise is not None
    alphas = torch.as_tensor(rec.pointwise.alpha, dtype=torch.float64)
    alpha = max(min(rec.alpha, float(alphas.min())), 1e-12 * beta)
    betas = torch.full((batch,), float(rec.pointwise.beta), dtype=torch.float64)
    own = projection.families[OWN].deltas.clamp_min(0).reshape(-1, batch).amax(0)
    run = (exact_A, y, x_bar, solution.iterates, eta)
    uniform = check_convergence(*run, alpha, beta, projection.delta, start=first)
    pointwise = check_convergence(
        *run,
        torch.minimum(alphas.clamp_min(1e-12 * beta), betas),
        betas,
        own,
        start=first,
    )
    lap("bounds against iterates")

    return Report(
        rec=rec,
        projection=projection,
        uniform=uniform,
        pointwise=pointwise,
        solution=solution,
        images=x_true.cpu(),
        target=x_bar.cpu(),
        distance=distance,
        operator={
            "kind": type(operator).__name__,
            "m": operator.m,
            "n": operator.n,
            "norm": operator.norm(),
            "row_orthonormal": operator.row_orthonormal,
        },
        settings={
            "prior": getattr(prior, "name", type(prior).__name__),
            "latent_dim": getattr(prior, "latent_dim", None),
            "images": source,
            "count": batch,
            "step_size": eta,
            "step_rule": step_size if isinstance(step_size, str) else "given",
            "n_iter": n_iter,
            "noise": noise,
            "start": start,
            "points": points,
            "tangent_points": tangent_points,
            "search_starts": search_starts,
            "search_steps": search_steps,
            "projection_points": projection_points,
            "projection_starts": projection_starts,
            "projection_steps": projection_steps,
            "seed": seed,
        },
        seconds=seconds | {"total": time.perf_counter() - began},
    )


OWN = "the run's own w_n"


def _targets(
    prior: Any,
    exact_prior: Any,
    images: Images | None,
    count: int,
    generator: torch.Generator,
    search: Mapping[str, Any],
) -> tuple[Images, Images, torch.Tensor | None]:
    """x*, x̄ and the latents of x̄ (None for a set without latents), the images in float64."""
    if images is None:
        checks.integer(count, "count")
        if hasattr(prior, "sample_latents"):
            latents = prior.sample_latents(count, generator=generator)
            with torch.no_grad():
                x = exact_prior.generate(latents.double())
            return x, x, latents
        images = prior.sample(count, generator=generator)
    nearest = nearest_in_range(prior, images, **search)
    x_true = images.to(nearest.image).double()
    if nearest.latent is None:
        return x_true, nearest.image.double(), None
    with torch.no_grad():
        x_bar = exact_prior.generate(_as_drawn(exact_prior, nearest.latent))
    return x_true, x_bar.double(), nearest.latent


def _as_drawn(prior: Any, latents: torch.Tensor) -> torch.Tensor:
    return latents.double() if isinstance(prior, torch.nn.Module) else latents


def _projection(
    prior: Any,
    A: Any,
    y: torch.Tensor,
    iterates: torch.Tensor,
    eta: float,
    start: int,
    x_bar: Images,
    given: Images | None,
    size: int,
    seed: int,
    search: Mapping[str, Any],
) -> ProjectionError:
    """δ over the families; of the run, w_n at a few n ≥ start, denser at its beginning."""
    families, known = sample_families(prior, checks.integer(size, "projection_points"), seed=seed)
    w = gradient_points(A, y, iterates, eta)[start:]
    rows = max(1, min(len(w), round(size / len(x_bar))))
    chosen = torch.logspace(0, math.log10(len(w)), rows, dtype=torch.float64).round().long() - 1
    families[OWN] = w[chosen].flatten(0, 1)
    known[OWN] = x_bar.repeat(rows, 1, 1, 1)
    error = projection_error(prior, families, known=known, **search)
    if given is None:
        return error
    # The nearest points of the images are known from before: no second search.
    once = {**search, "starts": 1, "steps": 0, "progress": False}
    images = projection_error(prior, {"the images": given}, known={"the images": x_bar}, **once)
    return replace(
        error,
        families=error.families | images.families,
        seconds=error.seconds + images.seconds,
    )


# ---------------------------------------------------------------------------------------------
# Findings in words
# ---------------------------------------------------------------------------------------------


def _contraction(report: Report) -> Finding:
    """β/α < 2, with the look that decides it."""
    rec, subject = report.rec, "β/α < 2 on all of S"
    if rec.exact:
        text = f"The exact constants of this set are α = {rec.alpha:.4g}, β = {rec.beta:.4g}: "
        text += f"κ = β/α = {rec.kappa:.4g}"
        if rec.kappa < 2:
            return Finding(subject, "met", text + ".")
        return Finding(subject, "not met", text + ", and the uniform bound is void.")
    words = {
        "secants": f"{_count(rec, 'secants')} secants",
        "tangents": f"tangent directions at {_count(rec, 'tangent points')} points",
        "search": "search from the worst of them",
        "images": "search from the images",
    }
    found = {name: look.kappa for name, look in rec.looks.items() if name in words}
    assert rec.pointwise is not None
    found["images"] = float(rec.pointwise.kappa.max())
    found = {name: kappa for name, kappa in found.items() if math.isfinite(kappa)}
    check = report.uniform
    kappa, seen = float(check.kappa.max()), [f"{words[k]} {v:.3g}" for k, v in found.items()]
    constants = f"α ≤ {float(check.alpha.min()):.3g}, β ≥ {float(check.beta.max()):.3g}"
    all_looks = f"by look: {', '.join(seen)}"
    if kappa < 2:
        return Finding(
            subject,
            "not contradicted",
            f"The largest κ = β/α found is {kappa:.3g} ({constants}; {all_looks}). Directions not "
            "looked at may have more.",
        )
    first = next((name for name, value in found.items() if value >= 2), None)
    already = (
        f"{words[first]} already give κ = β/α ≥ {found[first]:.3g}"
        if first
        else "no look by itself gives κ = β/α ≥ 2, but together they do"
    )
    return Finding(
        subject,
        "not met",
        f"{_sentence(already)} In all, κ ≥ {kappa:.3g} ({constants}; {all_looks}). The uniform "
        "bound is void.",
    )


def _count(rec: RecEstimate, name: str) -> str:
    if name == "tangent points":
        return "no" if rec.tangent_alpha is None else f"{len(rec.tangent_alpha):,}"
    return f"{rec.looks[name].n_directions:,}" if name in rec.looks else "no"


def _pointwise_contraction(report: Report) -> Finding:
    check, subject = report.pointwise, "β/α(x*) < 2, image by image"
    low, high = float(check.kappa.min()), float(check.kappa.max())
    batch, good = len(check.kappa), int((check.kappa < 2).sum())
    text = f"κ(x*) is {low:.3g} to {high:.3g}"
    if not report.rec.exact:
        text += " at least"
    text += f", and below 2 for {good} of {batch} images"
    if report.rec.pointwise is not None:
        text += f" ({report.rec.pointwise.beta_source})"
    if good == batch:
        return Finding(subject, "met" if report.rec.exact else "not contradicted", text + ".")
    void = "each of them" if good == 0 else f"the other {batch - good}"
    return Finding(subject, "not met", f"{text}; the bound is void for {void}.")


def _step_size(report: Report) -> Finding:
    eta, beta = report.settings["step_size"], report.uniform.beta.max().item()
    certain = report.rec.beta_certain if not report.rec.exact else report.rec.beta
    subject = "step size η ≤ 1/β"
    if eta * certain <= 1 + 1e-9:
        how = "the exact β" if report.rec.exact else "‖A‖²"
        return Finding(subject, "met", f"η = {eta:.4g}, and 1/{certain:.4g} by {how}.")
    if eta * beta <= 1 + 1e-9:
        return Finding(
            subject,
            "not contradicted",
            f"η = {eta:.4g} and 1/β ≤ {1 / beta:.4g}; only η ≤ {1 / certain:.3g} = 1/‖A‖² would be "
            "certain.",
        )
    return Finding(
        subject,
        "not met",
        f"η = {eta:.4g} exceeds 1/β ≤ {1 / beta:.4g}; the bound is the one for overlong steps.",
    )


def _membership(report: Report) -> Finding:
    check, n = report.uniform, report.operator["n"]
    noise = check.decomposition.noise
    begins = (
        "x_0 = P(Aᵀy) lies in S"
        if check.start == 0
        else "x_0 = Aᵀy does not lie in S, so every statement begins at x_1"
    )
    far = float(report.distance.quantile(0.5))
    subject = "x* and x_0 in S"
    if far <= 1e-9 * float(report.images.flatten(1).square().sum(1).mean()):
        verdict = "met" if check.start == 0 else "x* yes, x_0 no"
        text = f"x* lies in S; {begins}."
    else:
        verdict = "not met"
        text = (
            f"x* lies ‖x* − x̄‖² = {far:.3g} from the best point x̄ found in S (median; "
            f"{far / n:.2g} per pixel), and {begins}. The bound is about x̄; A(x* − x̄) counts as "
            f"noise, with ‖v‖² = {float(noise.quantile(0.5)):.3g} (median)."
        )
    if report.settings["noise"]:
        text += f" Noise of standard deviation {report.settings['noise']:g} was added to y."
    return Finding(subject, verdict, text)


def _projector(report: Report) -> Finding:
    error, n = report.projection, report.operator["n"]
    floors = report.pointwise.floor[report.pointwise.floor.isfinite()]
    text = _sentence(error.status)
    own = error.families[OWN].deltas.clamp_min(0)
    text += (
        f" On {OWN} it is {float(own.quantile(0.5)):.3g} (median), {float(own.max()):.3g} at most."
    )
    if floors.numel():
        floor = float(floors.quantile(0.5))
        text += (
            f" With it the bound promises no better than ‖x_n − x̄‖² ≤ {floor:.3g} "
            f"({floor / n:.2g} per pixel; median of the {floors.numel()} images "
            "whose bound converges)."
        )
    return Finding("projector error δ", "measured", text)


def _iterates(report: Report) -> Finding:
    check = report.uniform
    text = check.observation()
    broken = [reason for reason in check.observed.reasons if reason]
    if broken and len(broken) < len(check.observed.reasons):
        text += f" {len(broken)} images have no rate, the first because {broken[0]}."
    return Finding("what the iterates did", "measured", text)


def _bounds(report: Report) -> Finding:
    uniform, own = report.uniform, report.pointwise
    verdict = "holds" if uniform.holds and own.holds else "exceeded"
    contracting = int((own.rate < 1).sum())
    text = f"With the uniform constants: {uniform.comparison()} With each image's own: "
    text += own.comparison()
    if contracting:
        last = float(own.bound[-1][own.rate < 1].quantile(0.5))
        seen = float(own.objective[-1][own.rate < 1].quantile(0.5))
        text += (
            f" For the {contracting} images whose own bound converges it ends at {last:.3g} where "
            f"the objective ends at {seen:.3g} (medians)."
        )
    return Finding("bound against iterates", verdict, text)


def _gap(report: Report) -> Finding:
    parts = []
    for name, check in (("uniform", report.uniform), ("own", report.pointwise)):
        shares = {key: float(value[-1]) for key, value in check.slack.shares().items()}
        if all(math.isfinite(value) for value in shares.values()):
            words = ", ".join(
                f"{round(100 * value)} % {GREEK[key]}" for key, value in shares.items()
            )
            parts.append((name, shares, words))
    if not parts:
        return Finding("where the bound loses", "measured", "There is no finite gap to split.")
    text = "The final gap is " + "; ".join(
        f"{words} with {name} constants" for name, _, words in parts
    )
    _, shares, _ = parts[-1]
    advice = {
        "alpha": "an A with larger α on S (more measurements, a designed A) would tighten it",
        "beta": "the steps meet directions that A stretches less than β; nothing needs mending",
        "delta": "a better trained projector would tighten it",
        "noise": "less noise, or a prior nearer to the images, would tighten it",
    }
    return Finding(
        "where the bound loses",
        "measured",
        f"{text}: {advice[max(shares, key=lambda key: shares[key])]}.",
    )


def _recovery(report: Report) -> Finding:
    solution, n = report.solution, report.operator["n"]
    assert solution.error is not None
    error, best = solution.error[-1].quantile(0.5).item(), report.distance.quantile(0.5).item() / n
    text = f"Error per pixel {error:.3g} (median), "
    psnr = 10 * math.log10(4 / error) if error > 0 else math.inf
    text += f"{psnr:.1f} dB" if math.isfinite(psnr) else "exact"
    if best > 1e-12:
        text += f", where the best point of S found has {best:.3g}"
    return Finding("recovery", "measured", f"{text}. NPGD: {solution.status}.")


def _identity(report: Report) -> Finding:
    parts = report.uniform.decomposition
    closes = float(parts.residual.max()) <= 1e-10
    return Finding("one-step identity", "met" if closes else "not met", _sentence(parts.status))


def _sentence(text: str) -> str:
    """Capital and full stop; a Greek symbol at the start stays as it is."""
    return (text[0].upper() if text[0].isascii() else text[0]) + text[1:] + "."
