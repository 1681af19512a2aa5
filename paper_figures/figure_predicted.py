"""Refuted, then predicted: Theorem 1's bound, state evolution, the local rate, and the runs.

    python paper_figures/figure_predicted.py [--prior mnist] [--m 100] [--count 12] [--quick]

Samples of G, Gaussian A without noise, float64.

- Left: the mean error over the samples. The bound of Theorem 1, from x_1 on, with the α and β that
  `analysis.estimate_rec` found (κ is at least β/α, so the true bound is no lower) and the run it is
  about, NPGD with the step 1/β; `analysis.state_evolution` and, as points, `npgd.AMP`; and NPGD as
  it is by default.
- Right: NPGD with the step 0.8, the squared distance per pixel from where it rests, of samples that
  rest (the slowest, the fastest and others between); dotted, from the iterate on where the
  derivative foretells the next error, ρ² an iteration, ρ the spectral radius of
  `analysis.fixed_point`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run, weights
from paper_figures.style import BLACK, BLUE, COLOURS, DASHED, DOTTED, ORANGE, VERMILLION, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_ITER = 30
STEP, LONG = 0.8, 100
"""η and the iterations of the runs that come to rest."""
SHOWN = 5
"""Runs on the right."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The constants, the predictions and the runs."""
    import analysis
    import npgd
    from npgd.files import plain
    from npgd.precision import converted

    count, points, starts, steps = options.count, 400, 4, 40
    if options.quick:
        count, points, starts, steps = 3, 100, 2, 4
    prior = converted(npgd.load_prior(options.prior))
    if options.quick:
        prior.corrections = 0
    A = npgd.Gaussian(prior.image_shape, options.m, seed=0).double()
    x = prior.sample(count, seed=1)
    y, n = A(x), x[0].numel()
    looks = ("secants", "tangents", "search")
    rec = analysis.estimate_rec(
        A, prior, looks=looks, seed=0, points=points, tangent_points=points // 10,
        search_starts=starts, search_steps=steps,
    )  # fmt: skip
    theorem = npgd.NPGD(prior, 1 / rec.beta, max_iter=N_ITER, tol=0)
    slow = npgd.recover(A, y, theorem, x_true=x)
    own = npgd.recover(A, y, npgd.NPGD(prior, max_iter=N_ITER), x_true=x)
    messages = npgd.recover(A, y, npgd.AMP(prior, max_iter=N_ITER, tol=0), x_true=x)
    bound = analysis.predicted_objective(slow.objective[1], N_ITER, rec.alpha, rec.beta, start=1)
    curve = analysis.denoising_curve(prior, x, draws=1 if options.quick else 2)
    evolution = analysis.state_evolution(curve, options.m, n_iter=N_ITER)
    ran = {"theorem's step": slow, "own step": own, "AMP": messages}
    errors = {name: solution.error for name, solution in ran.items()}
    return {
        "prior": options.prior,
        "m": options.m,
        "count": count,
        "step": 1 / rec.beta,
        "kappa": rec.kappa,
        "bound": plain((bound / rec.alpha / n).mean(1)),
        **{name: plain(error.mean(1)) for name, error in errors.items() if error is not None},
        "predicted": plain(evolution.error),
        "fixed_point": evolution.fixed_point,
        **coming_to_rest(A, prior, y),
    }


def coming_to_rest(A: Any, prior: Any, y: Any) -> dict[str, Any]:
    """Squared distances per pixel from where NPGD rests, and the foretold rates."""
    import torch

    import analysis
    import npgd
    from npgd.files import plain

    rest = analysis.fixed_point(A, prior, y, STEP, max_iter=300)
    solver = npgd.NPGD(prior, STEP, start="adjoint", max_iter=LONG, tol=0, patience=None)
    iterates = npgd.recover(A, y, solver, record_iterates=True).iterates
    basin = analysis.basin(A, prior, y, rest, draws=1, radii=[1e-3])
    assert iterates is not None and rest.image is not None
    seen = rest.rests & (basin.linear_from >= 0)
    order = torch.where(seen, rest.rate, torch.inf).argsort()[: int(seen.sum())]
    picked = order[torch.linspace(0, max(len(order) - 1, 0), min(SHOWN, len(order))).long()]
    away = (iterates - rest.image)[:, picked].square().flatten(2).mean(2)
    return {
        "rests": int(rest.rests.sum()),
        "away": plain(away.T),
        "rate": plain(rest.rate[picked]),
        # The latents of `basin` begin at G†(Aᵀy), the iterates at Aᵀy.
        "linear_from": (basin.linear_from[picked] + 1).tolist(),
    }


def draw(results: dict[str, Any]) -> Figure:
    figure = new_figure(columns=2, height=2.6)
    left, right = figure.subplots(1, 2)
    draw_errors(left, results)
    draw_rest(right, results)
    return figure


def draw_errors(axis: Axes, results: dict[str, Any]) -> None:
    """The bound, the prediction and the runs."""
    bound, slow = results["bound"], results["theorem's step"]
    axis.plot(range(len(bound)), bound, color=BLACK, linestyle=DASHED)
    axis.text(len(slow) - 1, 1.3 * bound[-1], f"Theorem 1's bound, κ ≥ {results['kappa']:.3g}",
              ha="right", va="bottom")  # fmt: skip
    axis.plot(slow, "v", color=ORANGE, markersize=2.5)
    axis.text(len(slow) - 1, 1.5 * slow[len(slow) // 2],
              f"NPGD with the theorem's step, {results['step']:.2g}", ha="right", color=ORANGE,
              va="bottom")  # fmt: skip
    axis.plot(results["predicted"], color=BLUE, label="state evolution: predicted")
    axis.plot(results["AMP"], "s", color=BLUE, markerfacecolor="white", label="AMP: observed")
    axis.plot(
        results["own step"], "o", color=VERMILLION, markersize=2.5, label="NPGD, its own step"
    )
    axis.set(yscale="log", ylim=(None, 10 * bound[-1]), xlabel="iteration")
    axis.set_ylabel("error per pixel")
    axis.set_title(f"{results['count']} samples of G, m = {results['m']}")
    axis.legend(loc="upper right", bbox_to_anchor=(1, 0.36))
    axis.grid(which="major")


def draw_rest(axis: Axes, results: dict[str, Any]) -> None:
    """Runs, and the slopes that the derivative foretells."""
    rows = zip(results["away"], results["rate"], results["linear_from"], strict=True)
    for color, (away, rate, first) in zip(COLOURS, rows, strict=False):
        axis.plot(away, "o", color=color, markersize=1.6, label=f"ρ = {rate:.3f}")
        n = range(first, len(away))
        axis.plot(n, [away[first] * rate ** (2 * (i - first)) for i in n], color=color, ls=DOTTED)
    axis.set(yscale="log", xlabel="iteration", ylabel="squared distance from rest, per pixel")
    axis.set(ylim=(1e-14, None), xlim=(-1, 60))
    axis.set_title(f"NPGD, η = {STEP:g}: {results['rests']} of {results['count']} come to rest")
    axis.legend(loc="upper right")
    axis.grid(which="major")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--m", type=int, default=100)
    parser.add_argument("--count", type=int, default=12, help="samples")


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    return [weights(options.prior)]


def main(argv: list[str] | None = None) -> str:
    return run("predicted", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
