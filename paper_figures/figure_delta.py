"""What the projector's error costs: δ as the theorem needs it, as a run pays it, and the error.

    python paper_figures/figure_delta.py [--prior mnist] [--count 16] [--quick]

Theorem 1 ends at ‖x_n − x*‖² ≤ δ/(2/κ − 1) for η = 1/β and κ < 2. Here κ is larger (the least it
can be is in the titles), and the theorem names no floor at all. The one-step identity

    F_{n+1} = (1/(η α_n) − 1) f_n + δ_n/η + (β_n − 1/η) ‖d_n‖²

does: where a run rests, d_n = 0 and F_{n+1} = f_n, so that exactly

    ‖x_n − x*‖² = δ_n / (2 η α_n − 1),    δ_n = ‖x_{n+1} − w_n‖² − ‖x* − w_n‖²,

the theorem's floor with the run's own α_n and δ_n in the place of α and δ. Where 2 η α_n < 1 it
rests with δ_n < 0, nearer to w_n than x* is: an exact projector would not go to x* either.

Projectors of one prior, from G∘G† (no correction) to Gauss–Newton on z (npgd.LatentRefinement) and
a short search (npgd.LatentSearch). Samples of G, Gaussian A, no noise, 30 iterations from Aᵀy,
float32. One step for all projectors, so that nothing else differs: the one that
npgd.choose_step_size takes for the prior as it is shipped, and, to compare, 1/β with the largest β
found. All per pixel, medians and quartiles over the images.

Left, m = 100 and the chosen step: the largest δ_x = ‖P(w) − w‖² − min_{s∈S} ‖s − w‖² at the points
w_1, w_4 and w_29 of any image, which the theorem's δ is no less than (it counts from x_1 on, as x_0
is not in S); δ_x at w_29; and δ_n there. Their differences are the δ-slack: δ is taken at the worst
point, and x* is not the point nearest to w_n. The minimum over S is searched for, so that each δ_x
is from below; what is below 10⁻⁵ stands at the left end.

Middle: the final error against δ_x at w_29; dashed, what the theorem would promise if κ were 1.5
and no δ_x larger than this. Right: the error of every run against δ_n/(2ηα_n − 1); grey where the
last step still was ‖d_n‖² > 10⁻³‖e_n‖², hollow where δ_n < 0. Some that still move have a quotient
below zero, and are not drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run, weights
from paper_figures.style import Look, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ITERATIONS = 30
VISITED = (1, 4, 29)  # n of the w_n whose δ_x is measured
SEARCH: dict[str, Any] = {
    "points": 1000,
    "tangent_points": 100,
    "search_starts": 16,
    "search_steps": 100,
}
QUICK: dict[str, Any] = {"points": 32, "tangent_points": 2, "search_starts": 1, "search_steps": 2}
LEAST = 1e-5  # of δ_x and errors, per pixel; what is smaller is drawn there
AT_REST = 1e-3  # largest ‖d_n‖²/‖e_n‖² of what counts as a run at rest
CASES = {(100, "chosen"): "o", (200, "chosen"): "s", (100, "1/β"): "^"}  # and their markers


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """By m and step: what every projector's runs end with, and the δ behind it."""
    import analysis
    import npgd

    prior = npgd.load_prior(options.prior)
    count, n_iter = (2, 3) if options.quick else (options.count, ITERATIONS)
    x = prior.sample(count, seed=1)
    cases = []
    for m in sorted({m for m, _ in CASES}):
        A = npgd.Gaussian(prior.image_shape, m=m, seed=0)
        rec = analysis.estimate_rec(
            A,
            prior,
            looks=("secants", "tangents", "search"),
            **(QUICK if options.quick else SEARCH),
        )
        chosen = npgd.choose_step_size(A, prior, count=2 if options.quick else 32, max_iter=n_iter)
        for step, eta in (("chosen", chosen), ("1/β", 1 / rec.beta)):
            if (m, step) in CASES:
                cases.append({
                    "m": m,
                    "step": step,
                    "step_size": eta,
                    "kappa": rec.kappa,
                    "beta": rec.beta,
                    "projectors": {
                        name: one_projector(A, projector, x, eta, n_iter, options.quick, prior)
                        for name, projector in projectors(prior, options.quick).items()
                    },
                })  # fmt: skip
    return {"prior": options.prior, "count": count, "cases": cases}


def projectors(prior: Any, quick: bool) -> dict[str, Any]:
    """From the plain G∘G† to the best; the networks are shared."""
    import npgd

    def corrected(corrections: int) -> npgd.GenerativePrior:
        return npgd.GenerativePrior(
            prior.generator, prior.encoder, prior.latent_dim, prior.image_shape,
            corrector=prior.corrector, corrections=corrections,
        )  # fmt: skip

    found: dict[str, Any] = {"plain G†": corrected(0)}
    if prior.corrector is not None:
        found |= {"1 correction": corrected(1)}
        found |= {f"{c} corrections": corrected(c) for c in ((2,) if quick else (2, 4, 8))}
    return found | {
        "search": npgd.LatentSearch(prior, starts=1, steps=2 if quick else 40),
        "Gauss–Newton": npgd.LatentRefinement(prior, steps=1 if quick else 2),
    }


def one_projector(
    A: Any, projector: Any, x: Any, eta: float, n_iter: int, quick: bool, prior: Any
) -> dict[str, Any]:
    """Errors, δ_x at the visited points, and δ_n and 2ηα_n − 1 of the last step; per pixel."""
    import analysis
    import npgd
    from analysis.projection import gradient_points
    from npgd.files import plain

    y = A(x)
    solver = npgd.NPGD(projector, eta, max_iter=n_iter, tol=0.0)
    solution = npgd.recover(A, y, solver, x_true=x, record_iterates=True)
    assert solution.error is not None and solution.iterates is not None
    parts = analysis.decompose(A, y, x, solution.iterates, eta)
    w = gradient_points(A, y, solution.iterates, eta)
    visited = {str(n): w[n] for n in VISITED if n < len(w)} or {"0": w[0]}
    # Searched for from where Gauss–Newton ends, beside x*, for every projector alike.
    errors = analysis.projection_error(
        npgd.LatentRefinement(prior, steps=1 if quick else 3),
        visited,
        known=dict.fromkeys(visited, x),
        projector=projector.project,
        starts=2,
        steps=2 if quick else 60,
    )
    n = x[0].numel()
    factor = 2 * eta * parts.alpha[-1] - 1
    return {
        "error": plain(solution.error[-1]),
        "delta": {at: plain(family.deltas / n) for at, family in errors.families.items()},
        "delta_n": plain(parts.delta[-1] / n),
        "factor": plain(factor),
        "predicted": plain(parts.delta[-1] / n / factor),
        "moved": plain(parts.step[-1] / n),
        "before": plain(parts.error[-2] / n),
    }


def draw(results: dict[str, Any]) -> Figure:
    figure = new_figure(columns=2, height=3.3)
    left, middle, right = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.1, 1, 1]})
    cases = {(case["m"], case["step"]): case for case in results["cases"]}
    draw_slack(left, cases[100, "chosen"])
    for key, case in cases.items():
        draw_errors(middle, case, CASES[key])
        draw_identity(right, case, CASES[key])
    reach = [5e-5, 0.05]
    middle.plot(reach, [3 * end for end in reach], color="black", linewidth=0.7, linestyle="--",
                zorder=0, label="Theorem 1, if κ were 1.5 and this all of δ")  # fmt: skip
    middle.set(xscale="log", yscale="log", xlim=reach, ylim=(1e-4, 0.5))
    middle.set_xlabel("δ_x at the end")
    middle.set_title("final error and δ_x")
    right.plot([LEAST, 1], [LEAST, 1], color="black", linewidth=0.6, zorder=0)
    right.set(xscale="log", yscale="log", xlim=(LEAST, 1), ylim=(LEAST, 1))
    right.set_xlabel("δ_n/(2ηα_n − 1)")
    right.set_title("exact, where a run rests")
    for axis in (middle, right):
        axis.set_ylabel("final error")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", handlelength=1)
    handles, labels = (a + b for a, b in zip(middle.get_legend_handles_labels(),
                                             right.get_legend_handles_labels(),
                                             strict=True))  # fmt: skip
    figure.legend(handles, labels, loc="outside lower right", ncols=2, handlelength=1.5)
    return figure


def looks(case: dict[str, Any]) -> dict[str, Look]:
    return {name: look("", i) for i, name in enumerate(case["projectors"])}


def quartiles(values: list[float]) -> tuple[float, list[list[float]]]:
    """Median, and how far below and above it the quartiles are; not below LEAST."""
    import numpy as np

    low, middle, high = np.maximum(np.quantile(np.array(values), (0.25, 0.5, 0.75)), LEAST)
    return float(middle), [[float(middle - low)], [float(high - middle)]]


def last(by_n: dict[str, list[float]]) -> list[float]:
    return by_n[max(by_n, key=int)]


def draw_slack(axis: Axes, case: dict[str, Any]) -> None:
    shapes = {"largest δ_x": ">", "δ_x at the end": "o", "δ_n at the end": "|", "final error": "x"}
    for row, (name, style) in enumerate(looks(case).items()):
        one = case["projectors"][name]
        marks = {
            "largest δ_x": max(max(values) for values in one["delta"].values()),
            "δ_x at the end": quartiles(last(one["delta"]))[0],
            "δ_n at the end": quartiles(one["delta_n"])[0],
            "final error": quartiles(one["error"])[0],
        }
        axis.plot([min(marks.values()), max(marks.values())], [row, row], color="0.85", zorder=0)
        for kind, value in marks.items():
            axis.plot(value, row, shapes[kind], color=style.color, markersize=4.5)
    for kind, shape in shapes.items():
        axis.plot([], [], shape, color="0.35", markersize=4.5, label=kind)
    names = list(case["projectors"])
    axis.set_yticks(range(len(names)), names)
    for tick, style in zip(axis.get_yticklabels(), looks(case).values(), strict=True):
        tick.set_color(style.color)
    axis.set(xscale="log", xlim=(LEAST, 1), ylim=(len(names) - 0.5, -0.5), xlabel="per pixel")
    axis.tick_params(axis="y", length=0)
    axis.spines.left.set_visible(False)
    axis.set_title(f"δ and error, m = {case['m']}, η = {case['step_size']:.2g}")


def draw_errors(axis: Axes, case: dict[str, Any], marker: str) -> None:
    points = []
    for name, style in looks(case).items():
        one = case["projectors"][name]
        (x, across), (y, up) = quartiles(last(one["delta"])), quartiles(one["error"])
        axis.errorbar(x, y, up, across, color=style.color, marker=marker, markersize=3.5,
                      elinewidth=0.5)  # fmt: skip
        points.append((x, y))
    axis.plot(*zip(*points, strict=True), color="0.8", linewidth=0.8, zorder=0)
    step = f"η = {'1/β = ' if case['step'] == '1/β' else ''}{case['step_size']:.2g}"
    axis.plot([], [], marker, color="0.35",
              label=f"m = {case['m']} (κ ≥ {case['kappa']:.2g}), {step}")  # fmt: skip


def draw_identity(axis: Axes, case: dict[str, Any], marker: str) -> None:
    """Runs at rest in the projector's colour, hollow where δ_n < 0; the others pale."""
    for name, style in looks(case).items():
        one = case["projectors"][name]
        for predicted, error, moved, delta_n in zip(
            one["predicted"], one["before"], one["moved"], one["delta_n"], strict=True
        ):
            if predicted is None or predicted <= 0:
                continue
            rests = moved <= AT_REST * error
            axis.plot(
                max(predicted, LEAST), max(error, LEAST), marker,
                color=style.color if rests else "0.8",
                markerfacecolor="none" if delta_n < 0 else None,
                markersize=2.8, markeredgewidth=0.5, zorder=2 if rests else 1,
            )  # fmt: skip
    if not axis.get_legend_handles_labels()[0]:
        axis.plot([], [], "o", color="0.35", markerfacecolor="none", markersize=2.8,
                  markeredgewidth=0.5, label="δ_n < 0")  # fmt: skip
        axis.plot([], [], "o", color="0.8", markersize=2.8, label="still moving")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="mnist")
    parser.add_argument("--count", type=int, default=16, help="samples of G")


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    return [weights(options.prior)]


def main(argv: list[str] | None = None) -> str:
    return run("delta", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
