"""Draw what table_design.py measures: κ and error against m, and histograms of ‖A s‖².

    python paper_figures/figure_design.py [--json FILE] [--output design.png] [--quick]

Above: κ over held-out secants (solid) and tangents (dotted) against m, with the theorem's limit 2;
NPGD's error on test digits against m. Below, for the span prior: ‖A s‖² over held-out unit secants
for the four kinds of operators of the paper, in row-orthonormal scale for super-resolution, with
the extremes over tangents marked by triangles on the axis; those under 10⁻³ stand at its left end.

Takes the cells of table_design.py from --json, and computes those that are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from table_design import PAPER, arguments, run

LEAST = 1e-3  # left end of the histograms


def draw_curves(axes: Any, results: dict[str, dict[int, dict[str, Any]]], prior: str) -> None:
    """κ and error against m."""
    constants, errors = axes
    for i, (name, by_m) in enumerate(results.items()):
        colour = f"C{i}"
        ms = [m for m in sorted(by_m) if "secants" in by_m[m]]
        for look, style, marker in (("secants", "-", "o"), ("tangents", ":", "^")):
            rows = [by_m[m]["m"] for m in ms]
            values = [by_m[m][look] for m in ms]
            constants.plot(rows, values, style, marker=marker, markersize=4, color=colour)
        cells = [by_m[m] for m in sorted(by_m)]
        errors.errorbar(
            [cell["m"] for cell in cells],
            [cell["error"] for cell in cells],
            [cell["se"] for cell in cells],
            fmt="-o", markersize=3, color=colour, label=name, capsize=2, linewidth=1,
        )  # fmt: skip
    constants.axhline(2, color="black", linewidth=0.8)
    constants.text(0.01, 2, "κ = 2", va="bottom", ha="left",
                   transform=constants.get_yaxis_transform(), fontsize=8)  # fmt: skip
    constants.set(xscale="log", yscale="log", ylim=(1, 300), xlabel="measurements m")
    constants.set_ylabel("κ, held out")
    constants.set_title(f"secants (solid) and tangents (dotted), prior {prior}", fontsize=9)
    errors.set(xscale="log", yscale="log", xlabel="measurements m")
    errors.set_ylabel("error per pixel, test digits")
    errors.set_title("NPGD, 30 iterations, ± standard error", fontsize=9)
    errors.legend(fontsize=7, frameon=False)
    for axis in axes:
        ticks = [m for m in (20, 50, 100, 200, 500) if m >= axis.get_xlim()[0]]
        axis.set_xticks(ticks, [str(m) for m in ticks], minor=False)
        axis.minorticks_off()
    ticks = [e for e in (0.03, 0.04, 0.06, 0.1, 0.2, 0.4) if e >= errors.get_ylim()[0]]
    errors.set_yticks(ticks, [f"{e:g}" for e in ticks], minor=False)
    errors.minorticks_off()


def draw_histograms(axes: Any, spans: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Densities over log ‖A s‖², each with its highest bin at 1, and the tangents' extremes."""
    names = {"super-resolution": "×{}", "inpainting": "hole {}"}
    for axis, (kind, by_size) in zip(axes, spans.items(), strict=False):
        for i, (size, cell) in enumerate(by_size.items()):
            scale = size**2 if kind == "super-resolution" else 1
            edges = np.array(cell["histogram"]["edges"]) * scale
            counts = np.array(cell["histogram"]["counts"], dtype=float)
            seen = (counts > 0) & (edges[:-1] > 0)
            centres = np.sqrt(edges[:-1] * edges[1:])[seen]
            density = counts[seen] * centres
            label = names.get(kind, "m = {}").format(size)
            axis.plot(centres, density / density.max(), color=f"C{i}", linewidth=1, label=label)
            extremes = np.maximum(np.array(cell["tangents"]) * scale, LEAST * 1.05)
            height = -0.05 * (i + 1)
            axis.plot(extremes, [height] * 2, "-", color=f"C{i}", linewidth=0.5)
            axis.plot(extremes[:1], [height], ">", color=f"C{i}", markersize=4, clip_on=False)
            axis.plot(extremes[1:], [height], "<", color=f"C{i}", markersize=4, clip_on=False)
        axis.set(xscale="log", xlim=(LEAST, 20), ylim=(-0.05 * (len(PAPER[kind]) + 1), 1.05))
        axis.set_yticks([])
        axis.set_xlabel("‖A s‖²")
        axis.set_title({"random": "Gaussian", "designed": "secant PCA"}.get(kind, kind), fontsize=9)
        axis.legend(fontsize=7, frameon=False, loc="upper left")


def main() -> None:
    parser = arguments(__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("design.png"))
    options = parser.parse_args()
    results, spans = run(options)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(11, 6.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    draw_curves(above.subplots(1, 2), results, options.prior)
    draw_histograms(below.subplots(1, len(spans)), spans)
    below.suptitle(f"held-out unit secants, prior {options.span_prior}", fontsize=9)
    figure.savefig(options.output, dpi=150)
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
