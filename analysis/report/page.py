"""The report as tables, figures and one self-contained page.

Every figure is a function of the report alone and returns a matplotlib figure; the page embeds them
as SVG, and loads nothing from elsewhere.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.report.figures import FIGURES, image_rows, svg

if TYPE_CHECKING:
    from analysis.report.report import Report


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
