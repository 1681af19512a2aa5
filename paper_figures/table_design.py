"""Designed measurement matrices against Gaussian ones: κ, recovery error, measurements saved.

    python paper_figures/table_design.py [--prior mnist] [--json design_cells.json] [--quick]
        [--designs NAME …] [--m M …]

For every design and m:

- κ over all secants of held-out samples (another seed than the design's), over their tangents, and
  where a search leads; each from below, and together the κ that is set against 2.
- NPGD's mean squared error per pixel on the first MNIST test digits (NPGD_DATA), no noise, at its
  defaults: its own step, and its stop.
- How many Gaussian measurements one of its own replaces: the m at which the Gaussian curve,
  linear in log m between the m measured, has the same error, over the design's m. The two numbers
  in brackets are those of the error ± its standard error.

Then, for `--span-prior` (mnist-k100, the generator of the paper's kind), the ratio of the largest
to the least ‖A s‖² over held-out unit secants, beside the ratio that the paper's histograms show.

Every cell is written to --json as soon as it is known, and cells that are there are not computed
again; their names carry a digest of the weights they depend on. All in float32; a Gaussian's seed
is 0.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import analysis
import npgd
from analysis.rec.secants import all_pairs
from analysis.rec.tangents import tangents
from analysis.tasks import draw_latents, generate
from npgd.data import mnist
from npgd.files import write_atomically
from paper_figures.figure import SEAL, intact, read_object, sealed, set_aside
from paper_figures.table_methods import fingerprint

MEASUREMENTS = (20, 50, 100, 200, 500)
GAUSSIAN_CURVE = (20, 35, 50, 70, 100, 140, 200, 300, 400, 500, 784)
HELD_OUT = 1  # seed of the samples that κ is measured on; designs use 0
DESIGNS: dict[str, Callable[[npgd.GenerativePrior, int], npgd.LinearOperator]] = {
    "Gaussian": lambda prior, m: npgd.Gaussian(prior.image_shape, m),
    "Gaussian, whitened": lambda prior, m: npgd.whiten(npgd.Gaussian(prior.image_shape, m)),
    "DCT, uniform": lambda prior, m: npgd.SubsampledDCT(prior.image_shape, m),
    "DCT, adapted": lambda prior, m: analysis.design_dct(prior, m),
    "secant PCA": lambda prior, m: analysis.design_secant_pca(prior, m),
    "secant PCA, not unit": lambda prior, m: analysis.design_secant_pca(prior, m, unit=False),
    "NuMax, δ = 0.3": lambda prior, m: analysis.design_numax(prior, delta=0.3),
    "minimax": lambda prior, m: analysis.design_minimax(prior, m),
}
QUICK_DESIGNS = DESIGNS | {
    "secant PCA": lambda prior, m: analysis.design_secant_pca(prior, m, points=200)
}
# These find their own number of rows; they are measured once, under the first m.
OWN_ROWS = ("NuMax, δ = 0.3",)
# What the paper's histograms of ‖A s‖² on MNIST span (k = 100), largest over least; read off the
# figure, whose rarest bins are too low to see, so that they are lower bounds.
PAPER = {
    "random": {20: 2.4, 50: 1.71, 100: 1.44, 200: 1.29, 500: 1.18},
    "designed": {20: 1.50, 50: 1.20, 100: 1.07, 200: 1.03, 500: 1.01},
    "super-resolution": {5: 2.6, 4: 2.0, 3: 1.54, 2: 1.20},
    "inpainting": {14: 2.1, 10: 1.5, 6: 1.18, 3: 1.07},
}


# ----------------------------------------------------------------------------------------- cells


class Cells:
    """Results by name, kept in a JSON file if there is one; `quick` is part of the name."""

    def __init__(self, path: Path | None, quick: bool) -> None:
        self.path, self.settings = path, "quick" if quick else "full"
        self.known: dict[str, Any] = read_object(path) if path is not None else {}
        """Cells that are damaged are in it, too, until they are measured again."""

    def __call__(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        key = f"{self.settings} | {name}"
        if not self._holds(self.known.get(key)):
            began = time.perf_counter(), time.process_time()
            found = compute()
            seconds = time.perf_counter() - began[0], time.process_time() - began[1]
            times = {"seconds": seconds[0], "processor_seconds": seconds[1]}
            self.known[key] = sealed({**found, **times})
            if self.path is not None:
                if not read_object(self.path):
                    set_aside(self.path)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path, (json.dumps(self.known, indent=1) + "\n").encode())
        return {name: value for name, value in self.known[key].items() if name != SEAL}

    @staticmethod
    def _holds(cell: object) -> bool:
        """Whether this is a cell, and as it was measured."""
        match cell:
            case {"seconds": int() | float(), "processor_seconds": int() | float()}:
                return intact(cell)
        return False


Design = Callable[[], npgd.LinearOperator]
"""Designs only when it is called, for cells that are there need no matrix."""


def constants(design: Design, prior: npgd.GenerativePrior, quick: bool) -> dict[str, Any]:
    """κ by look on held-out samples, and the extremes that all looks found."""
    A = design()
    rec = analysis.estimate_rec(
        A,
        prior,
        points=200 if quick else 2000,
        tangent_points=5 if quick else 200,
        search_starts=2 if quick else 8,
        search_steps=5 if quick else 60,
        looks=("secants", "tangents", "search"),
        seed=HELD_OUT,
    )
    looks = {name: look.kappa for name, look in rec.looks.items()}
    return {**looks, "alpha": rec.alpha, "beta": rec.beta, "kappa": rec.kappa, "m": A.m}


def recovery(design: Design, prior: npgd.GenerativePrior, quick: bool) -> dict[str, float]:
    """Mean error per pixel on test digits, of NPGD as users get it."""
    A = design()
    x = mnist("test", count=4 if quick else 200)
    error = npgd.recover(A, A(x), npgd.NPGD(prior, max_iter=5 if quick else 30), x_true=x).error
    assert error is not None
    final = torch.nan_to_num(error[-1], nan=torch.inf)
    return {
        "error": float(final.mean()),
        "se": float(final.std() / len(final) ** 0.5),
    }


def measure(
    prior: npgd.GenerativePrior,
    names: list[str],
    measurements: tuple[int, ...],
    curve: tuple[int, ...],
    cells: Cells,
    quick: bool,
) -> dict[str, dict[int, dict[str, Any]]]:
    """All cells, by design and m; of a Gaussian also those of the curve, errors only."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    console = Console(stderr=True)
    for name in names:
        results[name] = {}
        for m in measurements[:1] if name in OWN_ROWS else measurements:

            @functools.cache
            def design(name: str = name, m: int = m) -> npgd.LinearOperator:
                began = time.process_time()
                A = (QUICK_DESIGNS if quick else DESIGNS)[name](prior, m)
                seconds = time.process_time() - began
                console.print(f"{name}, m = {m}: designed in {seconds:.1f} s of processor")
                return A

            results[name][m] = {
                **cells(
                    f"κ of {name}, m = {m}, generator {fingerprint(prior.generator)}",
                    functools.partial(constants, design, prior, quick),
                ),
                **cells(
                    f"error of {name}, m = {m}, {described(prior)}",
                    functools.partial(recovery, design, prior, quick),
                ),
            }
    for m in curve:
        if m not in results["Gaussian"]:
            gaussian = functools.partial(npgd.Gaussian, prior.image_shape, m)
            results["Gaussian"][m] = {
                **cells(
                    f"error of Gaussian, m = {m}, {described(prior)}",
                    functools.partial(recovery, gaussian, prior, quick),
                ),
                "m": m,
            }
    return results


def described(prior: npgd.GenerativePrior) -> str:
    """A prior's name, settings and digest of its weights."""
    return f"{prior.extra_repr()} {fingerprint(prior)}"


# ------------------------------------------------------------------------- measurements replaced


def gaussian_equivalent(curve: dict[int, dict[str, Any]], error: float) -> tuple[float, str]:
    """The m at which the Gaussian curve reaches an error, and "", "<" or ">" beyond its ends.

    The curve is made to fall first: at each m the least error up to there.
    """
    ms = sorted(curve)
    errors = np.minimum.accumulate([curve[m]["error"] for m in ms])
    if error >= errors[0]:
        return ms[0], "<" if error > errors[0] else ""
    if error < errors[-1]:
        return ms[-1], ">"
    return float(np.exp(np.interp(-error, -errors, np.log(ms)))), ""


def replaced(curve: dict[int, dict[str, Any]], cell: dict[str, Any]) -> str:
    """Gaussian measurements that one of the design's replaces, with the spread of ± one error."""
    values = []
    for error in (cell["error"], cell["error"] + cell["se"], cell["error"] - cell["se"]):
        m, side = gaussian_equivalent(curve, error)
        values.append(f"{side}{m / cell['m']:.2g}")
    return f"{values[0]} ({values[1]}–{values[2]})"


# ------------------------------------------------------------------------------------------ spans


def boxes(image_shape: tuple[int, int, int], factor: int) -> npgd.LinearOperator:
    """Super-resolution for a factor that does not divide the sides: black is added around."""
    channels, height, width = image_shape
    if height % factor == 0 and width % factor == 0:
        return npgd.SuperResolution(image_shape, factor)
    eye = torch.eye(channels * height * width).reshape(-1, *image_shape)
    padded = functional.pad(eye, (0, -width % factor, 0, -height % factor))
    return npgd.MatrixOperator(
        functional.avg_pool2d(padded, factor).flatten(1).T.contiguous(), image_shape
    )


def span_operators(prior: npgd.GenerativePrior, quick: bool) -> dict[str, dict[int, Design]]:
    """The operators of the paper's histograms."""
    shape = prior.image_shape
    makers: dict[str, Callable[[int], npgd.LinearOperator]] = {
        "random": lambda m: npgd.Gaussian(shape, m),
        "designed": lambda m: (QUICK_DESIGNS if quick else DESIGNS)["secant PCA"](prior, m),
        "super-resolution": lambda factor: boxes(shape, factor),
        "inpainting": lambda hole: npgd.Inpainting(shape, hole=hole),
    }
    return {
        kind: {
            size: functools.partial(make, size)
            for size in (list(PAPER[kind])[:1] if quick else PAPER[kind])
        }
        for kind, make in makers.items()
        if not quick or kind in ("random", "designed")
    }


def span(design: Design, prior: npgd.GenerativePrior, quick: bool) -> dict[str, Any]:
    """‖A s‖² over held-out unit secants and tangents: its extremes and a histogram."""
    A = design()
    z = draw_latents(prior.latent_dim, 200 if quick else 2000, HELD_OUT)
    scan = all_pairs(A, generate(prior, z))
    tangent = tangents(A, prior, z[: 3 if quick else 40])
    return {
        "m": A.m,
        "secants": [scan.lowest[0][0], scan.highest[0][0]],
        "middle": quantiles(scan.histogram, (0.0005, 0.9995)),
        "tangents": [float(np.nanmin(tangent.low)), float(np.nanmax(tangent.high))],
        "histogram": scan.histogram.to_dict(),
    }


def quantiles(histogram: Any, levels: tuple[float, ...]) -> list[float]:
    """Quantiles of a histogram, linear within its bins."""
    cumulated = np.concatenate([[0], np.cumsum(histogram.counts)]) + histogram.below
    return [float(np.interp(q * histogram.total, cumulated, histogram.edges)) for q in levels]


def spans(
    prior: npgd.GenerativePrior, path: Path | None, quick: bool
) -> dict[str, dict[int, dict[str, Any]]]:
    """By kind of operator and its size (m, factor or hole), computed or read."""
    cells = Cells(path, quick)
    return {
        kind: {
            size: cells(
                f"span of {kind} {size}, generator {fingerprint(prior.generator)}",
                functools.partial(span, design, prior, quick),
            )
            for size, design in operators.items()
        }
        for kind, operators in span_operators(prior, quick).items()
    }


# ----------------------------------------------------------------------------------------- tables


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1e12 else "∞"


def cells_table(title: str, results: dict[str, dict[int, dict[str, Any]]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD)
    heads = [
        "design",
        "m",
        "κ secants",
        "κ tangents",
        "κ search",
        "error",
        "± se",
        "Gaussian m / m",
    ]
    for head in heads:
        table.add_column(head, justify="left" if head == "design" else "right", no_wrap=True)
    curve = results["Gaussian"]
    for name, by_m in results.items():
        for _, cell in sorted(by_m.items()):
            table.add_row(
                name,
                str(cell["m"]),
                *(number(cell[k]) if k in cell else "" for k in ("secants", "tangents", "search")),
                f"{cell['error']:.4f}",
                f"{cell['se']:.4f}",
                "" if name == "Gaussian" else replaced(curve, cell),
            )
        table.add_section()
    return table


def least_m(results: dict[str, dict[int, dict[str, Any]]]) -> Table:
    """The smallest m measured at which κ < 2 is not contradicted, by what κ is taken over."""
    table = Table(title="smallest m measured with held-out κ < 2", box=SIMPLE_HEAD)
    for head in ("design", "secants", "tangents", "all three"):
        table.add_column(head, justify="left" if head == "design" else "right", no_wrap=True)
    for name, by_m in results.items():
        row = []
        for look in ("secants", "tangents", "kappa"):
            good = [c["m"] for _, c in sorted(by_m.items()) if c.get(look, math.inf) < 2]
            row.append(str(good[0]) if good else "none")
        table.add_row(name, *row)
    return table


def spans_table(title: str, found: dict[str, dict[int, dict[str, Any]]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD)
    for head in ("operator", "size", "m", "paper ≥", "99.9 % of secants", "secants", "tangents"):
        table.add_column(head, justify="left" if head == "operator" else "right", no_wrap=True)
    for kind, by_size in found.items():
        for size, cell in by_size.items():
            ratios = [
                cell[k][1] / max(cell[k][0], 1e-300) for k in ("middle", "secants", "tangents")
            ]
            table.add_row(
                kind, str(size), str(cell["m"]), f"{PAPER[kind][size]:g}", *map(number, ratios)
            )
        table.add_section()
    return table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--prior", default="mnist")
    result.add_argument("--span-prior", default="mnist-k100")
    result.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    result.add_argument("--m", nargs="+", type=int, default=list(MEASUREMENTS))
    result.add_argument("--quick", action="store_true", help="two designs, one m, four digits")
    result.add_argument("--json", type=Path, default=Path("design_cells.json"), help="every cell")
    return result


def compare(
    prior: str, designs: list[str], measurements: list[int], path: Path | None, quick: bool
) -> dict[str, dict[int, dict[str, Any]]]:
    """The comparison's cells by design and m, computed or read; Gaussian is always among them."""
    names = [name for name in DESIGNS if name in designs or name == "Gaussian"]
    if quick:
        names = ["Gaussian", "secant PCA"]
    return measure(
        npgd.load_prior(prior),
        names,
        (20,) if quick else tuple(measurements),
        (20, 50) if quick else GAUSSIAN_CURVE,
        Cells(path, quick),
        quick,
    )


def main() -> None:
    options = parser().parse_args()
    results = compare(options.prior, options.designs, options.m, options.json, options.quick)
    found = spans(npgd.load_prior(options.span_prior), options.json, options.quick)
    console = Console(width=120)
    console.print(cells_table(f"prior {options.prior}", results))
    console.print(least_m(results))
    title = f"prior {options.span_prior}: largest over least ‖A s‖², held-out unit secants"
    console.print(spans_table(title, found))
    total = sum(cell["processor_seconds"] for part in (*results.values(), *found.values())
                for cell in part.values())  # fmt: skip
    console.print(f"{total:.0f} s of processor in all, designs included")


if __name__ == "__main__":
    main()
