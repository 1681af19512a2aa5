"""Theorem 1 is tight below κ = 2, and beyond, the worst case is another: certified, and attained.

    python paper_figures/figure_worst_case.py [--quick]

How large can f(x_N)/f(x_0) be, f(x) = ‖A x − y‖² without noise, over every A with REC(S, α, β),
every S that holds x* and x_0, and every projector within δ of the distance to S? Drawn over
κ = β/α for N = 1 … 5 steps η = 1/β, in units where β = 1 and f(x_0) = 1, for δ = 0 (left) and
δ = 0.1 (middle); and for N = 3, δ = 0 over the step size (right):

- wide and pale, the bound: Theorem 1, (κ − 1)ᴺ + βδ Σ_{i<N} (κ − 1)ⁱ, which is void from κ = 2 on;
  at right the bound on one step of any length, N times: the least of what comparing x_{n+1} with x*
  and with x_n gives (`analysis.performance_estimation.step_bound`);
- line: the worst case by semidefinite programming, between its value and its dual bound, which the
  multipliers prove in rational arithmetic; they are too close to be told apart;
- marks: what NPGD itself reaches, run on the explicit A and S that are built from the solution.

As figures, and at more κ and δ: table_worst_case.py.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run
from paper_figures.style import look, new_figure, written_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KAPPAS = (*((21 + i) / 20 for i in range(20)), 2.2, 2.4, 2.6, 2.8, 3.0)
STEPS = (1, 2, 3, 4, 5)  # N
DELTAS = (0.0, 0.1)
STEP_KAPPAS, STEP_COUNT = (1.2, 1.5, 1.8, 2.5), 3
RELATIVE_STEPS = tuple((10 + i) / 20 for i in range(21))  # ηβ


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every case as table_worst_case.py solves it, and the theorem's bound on a fine grid of κ."""
    from paper_figures.table_worst_case import solve

    kappas, steps = (KAPPAS[::12], STEPS[::4]) if options.quick else (KAPPAS, STEPS)
    relative = RELATIVE_STEPS[::10] if options.quick else RELATIVE_STEPS
    over_kappa = [
        solve({"kappa": kappa, "n_iter": n_iter, "delta": delta})
        for delta in DELTAS
        for n_iter in steps
        for kappa in kappas
    ]
    over_step = [
        solve({"kappa": kappa, "n_iter": STEP_COUNT, "delta": 0.0, "relative_step": step})
        for kappa in STEP_KAPPAS
        for step in relative
    ]
    everything = over_kappa + over_step
    return {
        "bound": bounds(steps),
        "step_bound": step_bounds(),
        "over_kappa": over_kappa,
        "over_step": over_step,
        "largest": {
            "gap, relative": max((c["dual_bound"] - c["value"]) / c["value"] for c in everything),
            "value against theorem, κ < 2, relative": max(
                abs(c["value"] / c["theorem"] - 1) for c in over_kappa if c["kappa"] < 1.95
            ),
            "attained below value, relative": max(
                1 - c["attained"] / c["value"] for c in everything
            ),
            "instance constants, relative": max(c["constants"] for c in everything),
        },
    }


def bounds(steps: tuple[int, ...]) -> list[dict[str, Any]]:
    """Theorem 1 from F_0 = 1, β = 1, for every N and δ."""
    import numpy as np

    kappa = np.linspace(1.02, 3, 100)
    return [
        {
            "n_iter": n_iter,
            "delta": delta,
            "kappa": kappa.tolist(),
            "value": (
                (kappa - 1) ** n_iter + delta * sum((kappa - 1) ** i for i in range(n_iter))
            ).tolist(),
        }
        for delta in DELTAS
        for n_iter in steps
    ]


def step_bounds() -> list[dict[str, Any]]:
    """The bound by induction for any step size."""
    import numpy as np

    from analysis.performance_estimation import step_bound

    found = []
    for kappa in STEP_KAPPAS:
        relative, values = np.linspace(0.5, 1.5, 101).tolist(), []
        for step in relative:
            values.append(1.0)
            for _ in range(STEP_COUNT):
                values[-1] = step_bound(values[-1], 1 / kappa, 1.0, step)
        found.append({"kappa": kappa, "relative_step": relative, "value": values})
    return found


def draw(results: dict[str, Any]) -> Figure:
    figure = new_figure(columns=2, height=2.9)
    *over_kappa, over_step = figure.subplots(1, 3)
    for axis, delta in zip(over_kappa, DELTAS, strict=True):
        draw_over_kappa(axis, results, delta)
        axis.set_title(f"δ = {delta:g}, ηβ = 1")
    draw_over_step(over_step, results)
    over_step.set_title(f"δ = 0, N = {STEP_COUNT}")
    over_kappa[0].set_ylabel("worst $f(x_N)/f(x_0)$")
    for words, style in (
        ("bound: Theorem 1; right: one step’s, N times", {"linewidth": 4, "alpha": 0.3}),
        ("certified worst case", {"linewidth": 1}),
        ("reached by NPGD on the explicit instance", {"linestyle": "none", "marker": "o"}),
    ):
        over_step.plot([], [], color="0.2", label=words, **style)
    handles, labels = over_step.get_legend_handles_labels()
    figure.legend(handles[-3:], labels[-3:], loc="outside lower center", ncols=3)
    return figure


def draw_over_kappa(axis: Axes, results: dict[str, Any], delta: float) -> None:
    axis.axvline(2, color="0.6", linewidth=0.6)
    for i, bound in enumerate(one for one in results["bound"] if one["delta"] == delta):
        n_iter, style = bound["n_iter"], look("", i)
        cases = [
            case
            for case in results["over_kappa"]
            if case["delta"] == delta and case["n_iter"] == n_iter
        ]
        axis.plot(bound["kappa"], bound["value"], color=style.color, linewidth=4, alpha=0.3)
        draw_cases(axis, "kappa", cases, style.color, style.marker, f"N = {n_iter}")
    axis.set(xlim=(1, 3.03), ylim=(0, 1.6 if delta == 0 else 2.4), xlabel="κ = β/α")
    axis.set_xticks([1, 1.5, 2, 2.5, 3])
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles, labels, loc="upper left", handlelength=1.5, borderaxespad=0.2)


def draw_over_step(axis: Axes, results: dict[str, Any]) -> None:
    axis.axvline(1, color="0.6", linewidth=0.6)
    axis.axhline(1, color="0.6", linewidth=0.6)
    for i, bound in enumerate(results["step_bound"]):
        kappa, style = bound["kappa"], look("", i)
        cases = [case for case in results["over_step"] if case["kappa"] == kappa]
        axis.plot(bound["relative_step"], bound["value"], color=style.color, linewidth=4, alpha=0.3)
        draw_cases(axis, "relative_step", cases, style.color, style.marker, f"κ = {kappa:g}")
    axis.set(yscale="log", xlim=(0.48, 1.52), xlabel="step size ηβ")
    written_out(axis.yaxis, (0.01, 0.1, 1, 10, 100))
    axis.legend(loc="upper left", handlelength=1.5, borderaxespad=0.2)


def draw_cases(
    axis: Axes, over: str, cases: list[dict[str, Any]], color: str, marker: str, label: str
) -> None:
    """The certified worst case as a line; what the instances reach as marks, where tenths are."""
    middle = [(case["value"] + case["dual_bound"]) / 2 for case in cases]
    axis.plot([case[over] for case in cases], middle, color=color, linewidth=1)
    x, y = zip(
        *[(case[over], case["attained"]) for case in cases if round(20 * case[over]) % 2 == 0],
        strict=True,
    )
    axis.plot(x, y, color=color, linestyle="none", marker=marker, markersize=2.8)
    axis.plot([], [], color=color, linewidth=1, marker=marker, label=label)


def main(argv: list[str] | None = None) -> str:
    return run("worst_case", __doc__, measure, draw, argv)


if __name__ == "__main__":
    main()
