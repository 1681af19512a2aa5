"""The report as tables, figures and one self-contained page.

Every figure is a function of the report alone and returns a matplotlib figure; the page embeds them
as SVG, and loads nothing from elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .rates import GREEK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .report import Report

# The palette of Okabe and Ito, told apart with any colour vision.
COLOURS = {
    "alpha": "#0072B2",
    "beta": "#E69F00",
    "delta": "#009E73",
    "noise": "#999999",
    "observed": "#000000",
    "uniform": "#D55E00",
    "pointwise": "#56B4E9",
}

# ---------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------

TableRows = tuple[str, Sequence[str], list[list[str]]]


def constants_table(report: Report) -> TableRows:
    rec = report.rec
    rows = [
        [
            name,
            _number(look.alpha),
            _number(look.beta),
            _number(look.kappa),
            f"{look.n_directions:,}" if look.n_directions else "",
            f"{look.seconds:.1f} s",
        ]
        for name, look in rec.looks.items()
    ]
    kind = "exact" if rec.exact else "all directions (α ≤, β ≥, κ ≥)"
    rows.append([kind, _number(rec.alpha), _number(rec.beta), _number(rec.kappa), "", ""])
    rows.append(["certain (‖A‖²)", "", _number(rec.beta_certain), "", "", ""])
    head = ("directions looked at", "α", "β", "κ = β/α", "directions", "time")
    return ("Restricted eigenvalues", head, rows)


def images_table(report: Report) -> TableRows:
    check, solution = report.pointwise, report.solution
    assert solution.error is not None
    rows = []
    for i in range(len(check.kappa)):
        rows.append(
            [
                str(i),
                _number(check.alpha[i]),
                _number(check.kappa[i]),
                _number(check.rate[i]),
                _number(check.observed.rate[i]),
                _number(check.floor[i]),
                _number(check.decomposition.error[-1, i]),
                _number(report.distance[i]),
                f"{10 * math.log10(4 / max(float(solution.error[-1, i]), 1e-30)):.1f}",
                "yes" if check.exceeded_at[i] is None else f"no, x_{check.exceeded_at[i]}",
            ]
        )
    uniform = report.uniform
    rows.append(
        [
            "all S",
            _number(uniform.alpha.min()),
            _number(uniform.kappa.max()),
            _number(uniform.rate.max()),
            _number(uniform.observed.median),
            _number(uniform.floor.max()),
            _number(uniform.decomposition.error[-1].max()),
            _number(report.distance.max()),
            "",
            "yes" if uniform.holds else "no",
        ]
    )
    head = (
        "image",
        "α(x*)",
        "κ(x*)",
        "rate,\nbound",
        "rate,\nseen",
        "floor,\nbound",
        "‖x_N −\nx̄‖²",
        "‖x* −\nx̄‖²",
        "PSNR\n(dB)",
        "bound\nholds",
    )
    return ("Image by image, against its own constants", head, rows)


def _number(value: Any) -> str:
    number = float(value)
    if math.isnan(number):
        return "–"
    if math.isinf(number):
        return "∞"
    return f"{number:.2e}" if number and not 1e-3 <= abs(number) < 1e5 else f"{number:.3g}"


# ---------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------


SUBSCRIPTS = "₀₁"


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes if columns > 1 else axes[0]


def draw_histogram(report: Report) -> Figure:
    """Histogram of ‖A s‖² over unit secants; the extremes of every look, tangent by tangent."""
    rec = report.rec
    figure, axis = _figure(7.2, 3.4)
    if rec.histogram is not None:
        counts, edges = rec.histogram.counts, rec.histogram.edges
        axis.stairs(counts, edges, fill=True, color="#BBBBBB", label="secants of S")
        axis.set_yscale("log")
        axis.set_ylim(0.7, 4 * max(1, counts.max()))
    for height, values, colour, label in (
        (0.04, rec.tangent_alpha, COLOURS["alpha"], "least tangent ratio at a point"),
        (0.04, rec.tangent_beta, COLOURS["uniform"], "largest tangent ratio at a point"),
    ):
        if values is not None:
            axis.plot(
                values,
                [height] * len(values),
                "|",
                ms=14,
                alpha=0.6,
                color=colour,
                label=label,
                transform=axis.get_xaxis_transform(),
            )
    styles = {"secants": ":", "tangents": "--", "search": "-"}
    for name, style in styles.items():
        look = rec.looks.get(name)
        if look is not None and math.isfinite(look.kappa):
            label = f"{name}: α ≤ {look.alpha:.3g}, β ≥ {look.beta:.3g}"
            axis.axvline(look.alpha, color=COLOURS["alpha"], ls=style, lw=1.2, label=label)
            axis.axvline(look.beta, color=COLOURS["uniform"], ls=style, lw=1.2)
    if rec.exact:
        axis.axvline(rec.alpha, color=COLOURS["alpha"], label=f"exact α = {rec.alpha:.3g}")
        axis.axvline(rec.beta, color=COLOURS["uniform"], label=f"exact β = {rec.beta:.3g}")
    if rec.alpha > 0 and rec.kappa > 8:
        _decimal_log(axis)
    axis.set_xlabel("‖A s‖² over unit directions s")
    axis.set_ylabel("secants")
    _legend(figure, axis)
    return figure


def _decimal_log(axis: Any) -> None:
    """A logarithmic x axis with plain numbers at 1, 2, 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axis: Any) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, fontsize=8, frameon=False, loc="outside upper center", ncols=3)


def draw_bounds(report: Report) -> Figure:
    """Objective and bounds, as fractions of the objective where the bound starts."""
    figure, axis = _figure(7.2, 3.6)
    check = report.uniform
    scale = check.objective[check.start].clamp_min(1e-300)
    seen = check.objective / scale
    n = torch.arange(len(seen))
    axis.fill_between(
        n,
        seen.amin(1),
        seen.amax(1),
        color=COLOURS["observed"],
        alpha=0.15,
        lw=0,
        label="iterates, all",
    )
    axis.plot(n, seen.median(1).values, color=COLOURS["observed"], lw=2, label="iterates, median")
    top = float(seen.max())
    low = max(float(seen[seen > 0].min()) if (seen > 0).any() else 1e-16, 1e-30)
    for name, result, style in (("uniform", check, "--"), ("pointwise", report.pointwise, "-.")):
        bound = (result.bound / scale)[check.start :]
        words = "uniform constants" if name == "uniform" else "each image's own"
        middle = bound.median(1).values
        axis.plot(
            n[check.start :],
            middle,
            style,
            color=COLOURS[name],
            lw=1.8,
            label=f"bound, {words} (median)",
        )
        floor = float(bound[bound > 0].min()) if (bound > 0).any() else 1.0
        low = min(low, max(floor, low * 1e-3))
    axis.set_yscale("log")
    axis.set_ylim(low / 3, max(100 * top, 1e3))
    axis.set_xlabel("iteration n")
    axis.set_ylabel(f"‖A xₙ − y‖² / ‖A x{SUBSCRIPTS[check.start]} − y‖²")
    _legend(figure, axis)
    return figure


def draw_constants(report: Report) -> Figure:
    """α_n and β_n of the run beside the constants that bound them."""
    figure, axis = _figure(7.2, 3.2)
    parts, check = report.uniform.decomposition, report.uniform
    n = torch.arange(len(parts.alpha))
    for name, values, words in (
        ("alpha", parts.alpha, "αₙ on (xₙ, x̄)"),
        ("uniform", parts.beta, "βₙ on (xₙ₊₁, xₙ)"),
    ):
        low, high = (_over_images(values, which) for which in ("min", "max"))
        axis.fill_between(n, low, high, color=COLOURS[name], alpha=0.2, lw=0)
        axis.plot(
            n, values.nanmedian(1).values, color=COLOURS[name], label=f"{words}, median and range"
        )
    axis.axhline(float(check.alpha.min()), color=COLOURS["alpha"], ls="--", lw=1.2, label="α on S")
    axis.axhline(float(check.beta.max()), color=COLOURS["uniform"], ls="--", lw=1.2, label="β on S")
    axis.axhline(1 / check.step_size, color=COLOURS["noise"], ls=":", lw=1.2, label="1/η")
    axis.set_yscale("log")
    axis.set_xlabel("iteration n")
    axis.set_ylabel("‖A s‖²/‖s‖²")
    _legend(figure, axis)
    return figure


def _over_images(values: torch.Tensor, which: str) -> torch.Tensor:
    """Least or largest of each row, NaN aside."""
    fill = math.inf if which == "min" else -math.inf
    filled = torch.where(values.isnan(), fill, values)
    result = filled.amin(1) if which == "min" else filled.amax(1)
    return torch.where(result.isfinite(), result, math.nan)


def draw_slack(report: Report) -> Figure:
    """Shares of the gap between bound and objective, by the quantity that makes it."""
    figure, axes = _figure(7.2, 3.0, columns=2)
    for axis, title, check in (
        (axes[0], "uniform constants", report.uniform),
        (axes[1], "each image's own constants", report.pointwise),
    ):
        shares = {name: 100 * share for name, share in check.slack.shares().items()}
        n = torch.arange(len(shares["alpha"]))
        kept = torch.stack(list(shares.values())).isfinite().all(0)
        stackable = all(bool((share[kept] >= -1e-6).all()) for share in shares.values())
        if stackable:
            axis.stackplot(
                n[kept],
                *[share[kept].clamp_min(0) for share in shares.values()],
                labels=[GREEK[name] for name in shares],
                colors=[COLOURS[name] for name in shares],
                lw=0,
            )
            axis.set_ylim(0, 100)
        else:
            for name, share in shares.items():
                axis.plot(n[kept], share[kept], color=COLOURS[name], label=GREEK[name])
            axis.axhline(0, color="black", lw=0.6)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("iteration n")
    axes[0].set_ylabel("% of the gap")
    _legend(figure, axes[0])
    return figure


def draw_projection(report: Report) -> Figure:
    """Distribution of δ_x, family by family: every point, the quartiles and the largest."""
    families = report.projection.families
    figure, axis = _figure(7.2, 0.9 + 0.55 * len(families))
    for i, family in enumerate(reversed(families.values())):
        deltas = family.deltas
        # Points are spread in a fixed pattern, so that the figure is the same every time.
        jitter = 0.22 * torch.sin(torch.arange(len(deltas), dtype=torch.float64) * 12.9898)
        axis.plot(deltas, i + jitter, "o", ms=3, alpha=0.5, color=COLOURS["delta"], mec="none")
        quartiles = deltas.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        axis.plot(quartiles[[0, 2]], [i, i], color="black", lw=2, solid_capstyle="butt")
        axis.plot(quartiles[1], i, "|", color="black", ms=14, mew=2)
    axis.set_yticks(range(len(families)), reversed(families), fontsize=8)
    axis.set_ylim(-0.6, len(families) - 0.4)
    axis.axvline(0, color="black", lw=0.6)
    axis.set_xlabel("δ_x = ‖x − P(x)‖² − min ‖x − s‖² (black: quartiles)")
    return figure


def image_rows(report: Report, columns: int = 12) -> dict[str, bytes]:
    """Rows of images as PNG: original, best point of S, recovered."""
    from PIL import Image

    from npgd.data import to_uint8

    rows = {"original x*": report.images}
    if float(report.distance.max()) > 1e-9:
        rows["best point x̄ of S"] = report.target
    rows["recovered"] = report.solution.x.cpu()
    encoded = {}
    for label, images in rows.items():
        pixels = to_uint8(images[:columns].float().clone()).permute(0, 2, 3, 1)
        padded = torch.nn.functional.pad(pixels, (0, 0, 1, 1, 1, 1), value=255)
        strip = torch.cat(list(padded), dim=1).numpy()
        file = io.BytesIO()
        Image.fromarray(strip.squeeze(-1) if strip.shape[-1] == 1 else strip).save(file, "PNG")
        encoded[label] = file.getvalue()
    return encoded


FIGURES: tuple[tuple[str, Callable[[Report], Figure], str], ...] = (
    (
        "How much A shortens the directions of S",
        draw_histogram,
        "‖A s‖² over unit secants s, in grey. Ticks on the axis: least and largest ratio over all "
        "tangent directions at one point, the limits of secants there. Lines: the extremes of each "
        "look. The theorem needs the right end to be less than twice the left end.",
    ),
    (
        "Bound and iterates",
        draw_bounds,
        "The objective of every image as a fraction of its value where the bound starts, and the "
        "bound from the uniform constants and from each image's own. A bound that leaves the "
        "picture at the top is void.",
    ),
    (
        "The constants that the run met",
        draw_constants,
        "By the one-step identity the objective's fall depends on α_n and β_n on the run's own "
        "pairs, not on the worst pairs of S.",
    ),
    (
        "Where the bound loses",
        draw_slack,
        "Share of each quantity in the gap between bound and objective. The parts sum to the gap "
        "exactly: first α_n replaces α, then β_n replaces β, then δ_n replaces δ; the rest is the "
        "noise. Where lines are drawn in place of areas, a part is negative: the iterates broke "
        "that assumption.",
    ),
    (
        "Projector error",
        draw_projection,
        "δ_x at every point looked at. Each is a lower bound where the nearest point of S was "
        "searched for, and their maximum is a lower bound on the theorem's δ.",
    ),
)


def svg(figure: Figure) -> bytes:
    """The figure as SVG, byte for byte the same for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "npgd"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return file.getvalue()


# ---------------------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------------------

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
figure { margin: 1rem 0; } figure img { max-width: 100%; }
figcaption, .small { color: #444; font-size: .85rem; max-width: 46rem; }
dt { font-weight: 600; margin-top: .8rem; } dd { margin: 0; }
.verdict { font-weight: 600; font-size: .8rem; padding: .05rem .45rem; margin-left: .4rem;
  border: 1px solid #555; border-radius: .6rem; }
.bad { background: #f7d9c4; } .good { background: #cfe8f7; }
.strip img { image-rendering: pixelated; width: 100%; }
"""


def page(report: Report) -> str:
    settings, operator = report.settings, report.operator
    title = (
        f"{operator['kind']}, m = {operator['m']} of n = {operator['n']}, on "
        f"{settings['prior']}: is the theorem's bound valid?"
    )
    findings = "\n".join(
        f"<dt>{html.escape(f.subject)}<span class='verdict {_tone(f.verdict)}'>"
        f"{html.escape(f.verdict)}</span></dt><dd>{html.escape(f.text)}</dd>"
        for f in report.findings
    )
    figures = "\n".join(
        f"<h2>{html.escape(name)}</h2><figure><img alt='{html.escape(name)}' "
        f"src='{_data_uri(svg(draw(report)), 'svg+xml')}'>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, draw, caption in FIGURES
    )
    strips = "\n".join(
        f"<div class='strip'><div class='small'>{html.escape(label)}</div>"
        f"<img alt='{html.escape(label)}' src='{_data_uri(png, 'png')}'></div>"
        for label, png in image_rows(report).items()
    )
    tables = "\n".join(
        _html_table(*rows) for rows in (constants_table(report), images_table(report))
    )
    looks = "\n".join(
        f"<li><b>{name}</b>: {html.escape(f'{look.statement} ({look.status})')}</li>"
        for name, look in report.rec.looks.items()
    )
    chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
    timing = ", ".join(f"{name} {value:.1f} s" for name, value in report.seconds.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="small">Theorem 1 of Raj, Li, Bresler (ICCV 2019) on NPGD. Estimates of α are too large and
of β too small, if anything: they come from the directions looked at.</p>
<dl>{findings}</dl>
{tables}
<ul class="small">{looks}</ul>
{figures}
<h2>Images</h2>{strips}
<h2>Settings</h2><p class="small">{html.escape(chosen)}.</p>
<p class="small">Time: {html.escape(timing)}.</p>
</body></html>
"""


def _tone(verdict: str) -> str:
    if verdict in ("not met", "exceeded"):
        return "bad"
    return "good" if verdict in ("met", "holds", "not contradicted") else ""


def _html_table(title: str, head: Sequence[str], rows: list[list[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    table = f"<table>{line(head, 'th')}{body}</table>"
    return f"<h2>{html.escape(title)}</h2><div class='scroll'>{table}</div>"


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
