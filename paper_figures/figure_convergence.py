"""What the theorem predicts, what NPGD does, and which assumption the difference comes from.

    python paper_figures/figure_convergence.py [--prior mnist] [--m 100] [--count 12] [--quick]

Samples of G, Gaussian A, no noise, float64, x_0 = Aᵀy; above with the theorem's step η = 1/β, below
with the step that npgd.choose_step_size takes.

Left: f(x_n) = ‖A x_n − y‖² of every image and their median, and the theorem's bound from x_1 on:
with the constants of all of S, and with each image's own α(x*) and δ (medians over the images). For
η > 1/β the bound may not exist; the panel then says so.

Right: step by step, from the one-step identity, what f(x_{n+1})/f(x_n) was (summed over the images
before dividing) and what stacks up on it to the one-step bound 1/(ηα) − 1 + (β − 1/η)‖d_n‖²/f_n +
δ/(η f_n): what is lost by knowing only δ ≥ δ_n, only β ≥ β_n (or 1/η where that is larger), only
α ≤ α_n. The constants are the extremes over all that analysis.verify looks at, and the runs' own
α_n, β_n and δ_n.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run, weights
from paper_figures.style import BLACK, BLUE, GREEN, GREY, SKY, VERMILLION, YELLOW, new_figure

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.rates import Decomposition

ITERATIONS = 30


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The constants, and for both steps: objectives, bounds, and the parts of every step."""
    import torch

    import analysis
    import npgd
    from npgd.files import plain

    count, n_iter = (2, 4) if options.quick else (options.count, ITERATIONS)
    prior = npgd.load_prior(options.prior)
    A = npgd.Gaussian(prior.image_shape, m=options.m, seed=0)
    quick: dict[str, Any] = {
        "rec": analysis.RecSettings(points=60, tangent_points=2, search_starts=1, search_steps=2),
        "projection": analysis.ProjectionSettings(points=3, starts=1, steps=3),
    }
    report = analysis.verify(
        A, prior, count=count, n_iter=n_iter, **(quick if options.quick else {})
    )
    A, prior, x = A.double(), prior.double(), report.target
    y = A(x)
    runs = {"1/β": (report.settings["step_size"], report.uniform.decomposition)}
    eta = npgd.choose_step_size(A, prior, count=4 if options.quick else 32, max_iter=n_iter)
    solver = npgd.NPGD(prior, eta, max_iter=n_iter, tol=0.0)
    iterates = npgd.recover(A, y, solver, record_iterates=True).iterates
    assert iterates is not None
    runs["chosen"] = (eta, analysis.decompose(A, y, x, iterates, eta))

    # The pairs of the runs belong to S from x_1 on, and what they show counts too.
    seen = [parts for _, parts in runs.values()]
    alphas = [parts.alpha[1:].nan_to_num(torch.inf).amin(0) for parts in seen]
    betas = [float(parts.beta[1:].nan_to_num(0).max()) for parts in seen]
    deltas = [parts.delta[1:].amax(0) for parts in seen]
    own = {
        "alpha": torch.stack([report.pointwise.alpha, *alphas]).amin(0),
        "delta": torch.stack([report.pointwise.delta, *deltas]).amax(0),
    }
    alpha = min(float(report.uniform.alpha.min()), float(own["alpha"].min()))
    beta = max(float(report.uniform.beta.max()), *betas)
    delta = max(report.projection.delta, float(own["delta"].max()))
    constants = {"alpha": alpha, "beta": beta, "delta": delta}
    return {
        "prior": options.prior,
        "m": options.m,
        "count": count,
        **constants,
        "kappa": beta / alpha,
        "own": plain(own),
        "runs": {name: run_of(eta, parts, constants, own) for name, (eta, parts) in runs.items()},
    }


def run_of(
    eta: float,
    parts: Decomposition,
    constants: dict[str, float],
    own: dict[str, torch.Tensor],
) -> dict[str, Any]:
    """Objectives, both bounds, and the parts of every step from x_1 on."""
    import analysis
    from npgd.files import plain

    n_iter = len(parts.alpha)
    bounds = {
        name: analysis.predicted_objective(
            parts.objective[1], n_iter, beta=constants["beta"], step_size=eta, start=1, **known
        )
        for name, known in (
            ("uniform", {"alpha": constants["alpha"], "delta": constants["delta"]}),
            ("own", own),
        )
    }
    before = parts.range_objective[1:-1].sum(1)
    beta = max(constants["beta"], 1 / eta)
    beta_n = parts.beta[1:].nan_to_num(beta)  # no step, no loss
    slack = {
        "alpha": parts.range_objective[1:-1] / (eta * constants["alpha"]) - parts.error[1:-1] / eta,
        "beta": (beta - beta_n) * parts.step[1:],
        "delta": (constants["delta"] - parts.delta[1:]) / eta,
    }
    return {
        "step_size": eta,
        "objective": plain(parts.objective),
        "bound": {name: plain(bound) for name, bound in bounds.items()},
        "residual": float(parts.residual.max()),
        "factor": plain(parts.range_objective[2:].sum(1) / before),
        "slack": {name: plain(lost.sum(1) / before) for name, lost in slack.items()},
    }


def draw(results: dict[str, Any]) -> Figure:
    from npgd.showing import iterations  # which imports torch

    figure = new_figure(columns=2, height=4.3)
    rows = figure.subplots(2, 2, sharex=True, sharey="col")
    for (left, right), (name, one) in zip(rows, results["runs"].items(), strict=True):
        step = "step η = 1/β" if name == "1/β" else "step as chosen, η"
        draw_objectives(left, one, results["kappa"])
        left.set_title(f"{step} = {one['step_size']:.2g}")
        draw_slack(right, one)
        right.set_title("factor of each step, and what the bound adds")
    seen = [max(row) for one in results["runs"].values() for row in one["objective"][1:]]
    least = min(min(row) for one in results["runs"].values() for row in one["objective"])
    rows[0][0].set_ylim(0.5 * least, 40 * max(seen))
    for axis in rows[1]:
        iterations(axis)
        axis.legend(*axis.get_legend_handles_labels(), loc="upper center",
                    bbox_to_anchor=(0.5, -0.22), ncols=2)  # fmt: skip
    return figure


def draw_objectives(axis: Axes, one: dict[str, Any], kappa: float) -> None:
    import numpy as np

    objective = np.array(one["objective"])
    n = np.arange(len(objective))
    axis.plot(n, objective[:, 0], color=GREY, linewidth=0.5, label="$f(x_n)$, each image")
    axis.plot(n, objective[:, 1:], color=GREY, linewidth=0.5)
    axis.plot(n, np.median(objective, axis=1), color=VERMILLION, label="$f(x_n)$, median")
    for name, color, dash, words in (
        ("uniform", BLACK, "--", f"bound of all of S, κ ≥ {kappa:.3g}"),
        ("own", BLUE, "-.", "bound of each image, median"),
    ):
        bound = np.array(one["bound"][name], dtype=float)  # null has become NaN: not drawn
        axis.plot(n, np.median(bound, axis=1), color=color, linestyle=dash, label=words)
    if np.isnan(bound[-1]).all():
        axis.annotate("no bound at this η", (0.5, 0.85), ha="center",
                      xycoords="axes fraction", fontsize=7, color="0.35")  # fmt: skip
    axis.set(yscale="log", ylabel="$f(x_n) = ‖A x_n − y‖^2$")


def draw_slack(axis: Axes, one: dict[str, Any]) -> None:
    import numpy as np

    n = np.arange(1, len(one["factor"]) + 1)
    below = np.zeros(len(n))
    for values, color, words in (
        (one["factor"], VERMILLION, "observed $f(x_{n+1})/f(x_n)$"),
        (one["slack"]["delta"], YELLOW, "lost to δ ≥ $δ_n$"),
        (one["slack"]["beta"], GREEN, "lost to β ≥ $β_n$"),
        (one["slack"]["alpha"], SKY, "lost to α ≤ $α_n$"),
    ):
        heights = np.array(values)
        axis.bar(n, heights, bottom=below, width=1, color=color, label=words, linewidth=0)
        below = below + heights
    axis.axhline(1, color=BLACK, linewidth=0.6)
    axis.set_ylabel("factor")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--m", type=int, default=100)
    parser.add_argument("--count", type=int, default=12, help="samples of G")


def inputs(options: argparse.Namespace) -> Iterable[Any]:
    return [weights(options.prior)]


def main(argv: list[str] | None = None) -> str:
    return run("convergence", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
