"""Random secants flatter A: κ over more and more secants, over tangents, and where a search leads.

    python paper_figures/figure_secants_tangents.py [--prior mnist] [--quick]

For a direction s of S = range(G) let r(s) = ‖A s‖²/‖s‖². REC(S, α, β) asks for α ≤ r(s) ≤ β over
all secants s = x₁ − x₂ of S, and Theorem 1 for κ = β/α < 2. Drawn is, for Gaussian matrices and
for the secant-PCA designs, the largest r found over the least, as a function of the number N of
samples G(z), z ~ N(0, I), that were looked at (the first N of one draw, which is not the designs'):

- secants: all N(N − 1)/2 of them, as the upper axis counts, up to 33.5 million;
- tangents: at every one of N points all directions that J(z) spans, by generalised eigenvalues.
  They are limits of secants, so α ≤ r(s) ≤ β holds for them too;
- search: gradient descent on ± log r over pairs of latents within ‖z‖ ≤ √k + 3, from the worst
  tangents and secants; without an N, at the right.

Every estimate is one-sided: the true κ is at least what is drawn. Float32, extreme secants and the
search's ends in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures.figure import run, weights
from paper_figures.style import DASHED, look, new_figure, written_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASUREMENTS = (50, 100, 200, 500)
SAMPLES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
TANGENT_POINTS = 256
SEARCH: dict[str, Any] = {"search_starts": 16, "search_steps": 100}
QUICK_SEARCH: dict[str, Any] = {"search_starts": 1, "search_steps": 2}
SEED = 1  # of the samples; designs use 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """By design and m: κ over secants and tangents at every N, and over what the search found."""
    import analysis
    import npgd
    from analysis.tasks import draw_latents, generate
    from npgd.precision import precision

    prior = npgd.load_prior(options.prior)
    samples = SAMPLES[:6] if options.quick else SAMPLES
    z = draw_latents(prior.latent_dim, samples[-1], SEED, precision(prior))
    images = generate(prior, z)
    designs = {
        "Gaussian": lambda m: npgd.Gaussian(prior.image_shape, m),
        "secant PCA": lambda m: analysis.design_secant_pca(
            prior, m, points=200 if options.quick else None
        ),
    }
    return {
        "prior": options.prior,
        "samples": list(samples),
        "tangent_points": 4 if options.quick else TANGENT_POINTS,
        "designs": {
            name: [
                {"m": m, **look_at(design(m), prior, images, samples, options.quick)}
                for m in (MEASUREMENTS[:2] if options.quick else MEASUREMENTS)
            ]
            for name, design in designs.items()
        },
    }


def look_at(
    A: Any, prior: Any, images: Any, samples: tuple[int, ...], quick: bool
) -> dict[str, Any]:
    """κ and the extremes by look, for one matrix."""
    import numpy as np

    import analysis
    from analysis.rec.secants import all_pairs

    rec = analysis.estimate_rec(
        A,
        prior,
        points=samples[-1],
        tangent_points=4 if quick else TANGENT_POINTS,
        looks=("secants", "tangents", "search"),
        seed=SEED,
        **(QUICK_SEARCH if quick else SEARCH),
    )
    assert rec.tangent_alpha is not None and rec.tangent_beta is not None
    scans = [all_pairs(A, images[:count]) for count in samples[:-1]]
    secants = [scan.highest[0][0] / scan.lowest[0][0] for scan in scans]
    assert rec.tangent_beta is not None and rec.tangent_alpha is not None
    tangents = np.maximum.accumulate(rec.tangent_beta) / np.minimum.accumulate(rec.tangent_alpha)
    return {
        "secants": [*secants, rec.looks["secants"].kappa],
        "tangents": tangents.tolist(),
        "search": rec.looks["search"].kappa,
        "kappa": rec.kappa,
        "extremes": {name: [found.alpha, found.beta] for name, found in rec.looks.items()},
    }


def draw(results: dict[str, Any]) -> Figure:
    figure = new_figure(columns=2, height=3.1)
    panels = figure.subplots(1, len(results["designs"]), sharey=True)
    for axis, (name, curves) in zip(panels, results["designs"].items(), strict=True):
        draw_panel(axis, curves, results["samples"])
        axis.set_title(name, fontweight="bold")
    panels[0].set_ylabel("κ found; the true κ is at least this")
    panels[0].annotate("κ < 2, as Theorem 1 needs", (0.985, 1.04), color="0.35", fontsize=6.5,
                       xycoords=("axes fraction", "data"), ha="right", va="bottom")  # fmt: skip
    panels[0].legend(loc="upper left", ncols=2, columnspacing=1.5)
    return figure


def draw_panel(axis: Axes, curves: list[dict[str, Any]], samples: list[int]) -> None:
    right = 2.2 * samples[-1]
    axis.axhspan(1, 2, color="0.94", linewidth=0)
    axis.axhline(2, color="black", linewidth=0.7)
    for i, curve in enumerate(curves):
        color = look("", i).color
        points = range(1, len(curve["tangents"]) + 1)
        axis.plot(samples, curve["secants"], color=color, marker="o", markersize=2.8)
        axis.plot(points, curve["tangents"], color=color, linestyle=DASHED, drawstyle="steps-post")
        axis.plot(right, curve["search"], color=color, marker="*", markersize=6)
        axis.plot([], [], color=color, linewidth=3, label=f"m = {curve['m']}")
    for words, style in (
        ("over secants", {"linestyle": "-", "marker": "o"}),
        ("over tangents", {"linestyle": DASHED}),
        ("by search", {"linestyle": "", "marker": "*", "markersize": 6}),
    ):
        axis.plot([], [], color="0.35", label=words, **style)
    axis.set(xscale="log", yscale="log", xlim=(1, 1.4 * right), ylim=(1, 10000))
    axis.set_xlabel("samples of G looked at, N")
    written_out(axis.yaxis, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000))
    written_out(axis.xaxis, (1, 10, 100, 1000, 10000))
    above = axis.secondary_xaxis("top", functions=(secants_of, samples_of))
    above.set_xlabel("secants between them, N(N − 1)/2", labelpad=4)
    above.set_xticks([1, 100, 1e4, 1e6], ["1", "100", "10,000", "1 million"])
    above.set_xticks([], minor=True)


def secants_of(samples: Any) -> Any:
    """N(N − 1)/2, kept above zero for a logarithmic axis."""
    import numpy as np

    return np.maximum(samples * (samples - 1) / 2, 1e-3)


def samples_of(secants: Any) -> Any:
    """The N that has so many secants."""
    import numpy as np

    return (1 + np.sqrt(1 + 8 * secants)) / 2


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="mnist")


def inputs(options: argparse.Namespace) -> Iterable[Path]:
    return [weights(options.prior)]


def main(argv: list[str] | None = None) -> str:
    return run("secants_tangents", __doc__, measure, draw, argv, options=options, inputs=inputs)


if __name__ == "__main__":
    main()
