"""`verify`: measure everything the theorem talks about, and hold its bound against a run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import torch

from analysis.projection import (
    ProjectionError,
    gradient_points,
    nearest_in_range,
    projection_error,
    sample_families,
)
from analysis.rates import check_convergence
from analysis.rec import estimate_rec
from analysis.report.report import OWN, Report
from npgd import checks
from npgd.images import Images
from npgd.operators import as_operator
from npgd.precision import converted
from npgd.solvers import NPGD, choose_step_size, recover


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
    exact_A, exact_prior = converted(operator), converted(prior)
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
