"""The evidence as tables and one self-contained page, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from typing import Any

from analysis.limits import PARTS, moments
from analysis.report.evidence import Evidence
from analysis.report.figures import FIGURES, PREDICTED, Drawing, image_rows, rule_of, svg
from analysis.report.findings import findings
from analysis.report.predictions import run_summary
from analysis.words import about, at_least, at_most, sentence

TableRows = tuple[str, Sequence[str], list[list[str]], int]
"""Title, head, rows, and how many of the columns hold words."""


def tables(evidence: Evidence) -> list[TableRows]:
    """What leads a report, and the constants, where A is linear."""
    found = [predictions_table(evidence), runs_table(evidence)]
    found += [limits_table(evidence)] if evidence.predictions.limits is not None else []
    return found + ([constants_table(evidence), images_table(evidence)] if evidence.linear else [])


def leading(evidence: Evidence) -> list[str]:
    """What leads a report, in words: predicted and seen, the runs, and what limits."""
    runs = [
        f"{row[0]}: {row[1]} dB, error {row[2]} (medians), {row[3]} iterations; {row[4]}"
        for row in runs_table(evidence)[2]
    ]
    return [*map(str, evidence.predictions.rows), *runs, *limits_said(evidence)]


def predictions_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: each statement, what it predicts of this run, and what was seen."""
    head = ("statement", "assumes", "met here?", "of what", "predicted", "seen", "ratio")
    rows = [row.cells for row in evidence.predictions.rows]
    return ("What predicts this run (factors per step, errors per pixel)", head, rows, 4)


def runs_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: the theorem's run, and the one that users get."""
    rows = []
    for name, run in evidence.predictions.runs(evidence.solution, rule_of(evidence)):
        values = run_summary(name, run)
        psnr = values["psnr"]
        rows.append(
            [
                name,
                "–" if psnr is None else f"{psnr:.1f}",
                "–" if values["error"] is None else about(values["error"]),
                "–" if values["iterations"] is None else f"{values['iterations']:g}",
                values["status"],
            ]
        )
    head = ("run", "PSNR\n(dB)", "error per\npixel", "iterations", "ended")
    return ("The theorem's run, and the one that users get (medians)", head, rows, 1)


def limits_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: the parts of the error seen, beside those that are predicted."""
    seen, budget = evidence.predictions.limits, evidence.predictions.budget
    assert seen is not None
    total = float(seen.error.mean())
    rows = []
    for name, values in {**seen.parts, "error seen": seen.error}.items():
        mean, error = moments(values)
        predicted = math.nan if budget is None else budget.parts.get(name, math.nan)
        if name == "error seen" and budget is not None:
            predicted = budget.error
        share = f"{round(100 * mean / total)} %" if total and math.isfinite(total) else "–"
        what = PARTS.get(name, "")
        rows.append([name, what, about(mean), about(error, 2), share, about(predicted)])
    head = ("part", "what it is", "error per\npixel", "± standard\nerror", "share", "predicted")
    return ("What limits NPGD(prior): the parts sum to the error seen (means)", head, rows, 2)


def limits_said(evidence: Evidence) -> list[str]:
    """What limits, and what each change that was tried gains, in words."""
    found = evidence.predictions
    if found.limits is None:
        return [f"What limits the error is not known: {found.without.get('limits', 'no run')}."]
    lines = [sentence(found.limits.status)]
    if found.advice is not None:
        lines += str(found.advice).splitlines()
    if found.budget is not None:
        lines.append(sentence(f"by state evolution, {found.budget.status}"))
    return lines


def constants_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: α, β and κ by each look, together, and what is certain."""
    rec = evidence.rec
    rows = [
        [
            name,
            at_most(look.alpha),
            at_least(look.beta),
            at_least(evidence.kappa(look)),
            f"{look.n_directions:,}" if look.n_directions else "",
            f"{look.seconds:.1f} s",
        ]
        for name, look in rec.looks.items()
    ]
    alpha, beta = float(evidence.uniform.alpha.min()), float(evidence.uniform.beta.max())
    kappa = float(evidence.uniform.kappa.max())
    if rec.exact:
        rows.append(["exact", about(alpha), about(beta), about(kappa), "", ""])
    else:
        kind = "all directions (α ≤, β ≥, κ ≥)"
        rows.append([kind, at_most(alpha), at_least(beta), at_least(kappa), "", ""])
    rows.append(["certain: β ≤ ‖A‖²", "", at_most(rec.beta_certain), "", "", ""])
    head = ("directions looked at", "α", "β", "κ = β/α", "directions", "time")
    return ("Restricted eigenvalues", head, rows, 1)


def images_table(evidence: Evidence) -> TableRows:
    """Title, head and rows: each image against its own constants, and all against the uniform."""
    check, solution = evidence.pointwise, evidence.solution
    assert solution.error is not None and solution.psnr is not None
    least, largest = (about, about) if evidence.rec.exact else (at_most, at_least)
    rows = []
    for i in range(len(check.kappa)):
        psnr = float(solution.psnr[i])
        values = (
            check.rate,
            check.observed.rate,
            check.floor,
            check.decomposition.error[-1],
            evidence.distance,
        )
        rows.append(
            [
                str(i),
                least(float(check.alpha[i])),
                largest(float(check.kappa[i])),
                *(_number(value[i]) for value in values),
                f"{psnr:.1f}" if math.isfinite(psnr) else _number(psnr),
                "yes" if check.exceeded_at[i] is None else f"no, x_{check.exceeded_at[i]}",
            ]
        )
    uniform = evidence.uniform
    rows.append(
        [
            "all S",
            least(float(uniform.alpha.min())),
            largest(float(uniform.kappa.max())),
            _number(uniform.rate.max()),
            _number(uniform.observed.median),
            _number(uniform.floor.max()),
            _number(uniform.decomposition.error[-1].max()),
            _number(evidence.distance.max()),
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
    return ("Image by image, against its own constants", head, rows, 1)


def _number(value: Any) -> str:
    return about(float(value))


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th.words, td.words { text-align: left; }
.scroll { overflow-x: auto; }
figure { margin: 1rem 0; } figure img { max-width: 100%; }
figcaption, .small { color: #444; font-size: .85rem; max-width: 46rem; }
dt { font-weight: 600; margin-top: .8rem; } dd { margin: 0; }
.verdict { font-weight: 600; font-size: .8rem; padding: .05rem .45rem; margin-left: .4rem;
  border: 1px solid #555; border-radius: .6rem; }
.bad { background: #f7d9c4; } .good { background: #cfe8f7; }
.strip img { image-rendering: pixelated; width: 100%; }
"""


def page(evidence: Evidence) -> str:
    """The whole page. Where A is not linear, only what does not rest on that is shown."""
    settings, operator = evidence.settings, evidence.operator
    title = (
        f"{operator['kind']}, m = {operator['m']} of n = {operator['n']}, on "
        f"{settings['prior']}: is the theorem's bound valid?"
    )
    said = "\n".join(
        f"<dt>{i}. {html.escape(f.subject)}<span class='verdict {_tone(f.verdict)}'>"
        f"{html.escape(f.verdict)}</span></dt><dd>{html.escape(f.text)}</dd>"
        for i, f in enumerate(findings(evidence), 1)
    )
    chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
    timing = ", ".join(f"{name} {value:.1f} s" for name, value in evidence.seconds.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="small">Theorem 1 of Raj, Li, Bresler (ICCV 2019) on NPGD. S is the set of images that the
prior can make. {_sidedness(evidence)} Of the manual, docs/how-to/report.md explains this page, and
docs/words.md every word and symbol.</p>
{_leading(evidence)}
<h2>What the theorem assumes, and what happened</h2>
<dl>{said}</dl>
{_numbers(evidence) if evidence.linear else ""}
{_drawings(evidence)}
<h2>Images</h2>{_strips(evidence)}
<h2>Settings</h2><p class="small">{html.escape(chosen)}.</p>
<p class="small">Time: {html.escape(timing)}.</p>
</body></html>
"""


def _leading(evidence: Evidence) -> str:
    """Predicted and seen, the figure of both, the runs, and what limits."""
    first = [predictions_table(evidence), runs_table(evidence)]
    limits = evidence.predictions.limits
    first += [limits_table(evidence)] if limits is not None else []
    shown = [_html_table(*rows) for rows in first]
    if evidence.linear:
        shown.insert(1, _figure(PREDICTED, evidence))
    said = "".join(f"<li>{html.escape(line)}</li>" for line in limits_said(evidence))
    return "\n".join(shown) + f"\n<ul>{said}</ul>"


def _sidedness(evidence: Evidence) -> str:
    if not evidence.linear:
        return "Its precondition fails here."
    if evidence.rec.exact:
        return "α and β are the exact constants of this set."
    return (
        "α and β come from the directions looked at: the true α is at most what is found, the true "
        "β at least."
    )


def _numbers(evidence: Evidence) -> str:
    tables = "\n".join(
        _html_table(*rows) for rows in (constants_table(evidence), images_table(evidence))
    )
    looks = "\n".join(
        f"<li><b>{name}</b>: {html.escape(f'{look.statement} ({look.status})')}</li>"
        for name, look in evidence.rec.looks.items()
    )
    return f"{tables}\n<ul class='small'>{looks}</ul>"


def _drawings(evidence: Evidence) -> str:
    return "\n".join(
        _figure(drawing, evidence)
        for drawing in FIGURES
        if drawing is not PREDICTED and (evidence.linear or not drawing.rests_on_A)
    )


def _figure(drawing: Drawing, evidence: Evidence) -> str:
    title = html.escape(drawing.title)
    return (
        f"<h2>{title}</h2><figure><img alt='{title}' "
        f"src='{_data_uri(svg(drawing.draw(evidence)), 'svg+xml')}'>"
        f"<figcaption>{html.escape(drawing.caption(evidence))}</figcaption></figure>"
    )


def _strips(evidence: Evidence) -> str:
    return "\n".join(
        f"<div class='strip'><div class='small'>{html.escape(label)}</div>"
        f"<img alt='{html.escape(label)}' src='{_data_uri(png, 'png')}'></div>"
        for label, png in image_rows(evidence).items()
    )


def _tone(verdict: str) -> str:
    if verdict in ("not met", "exceeded", "low precision"):
        return "bad"
    return "good" if verdict in ("met", "holds", "not contradicted") else ""


def _html_table(title: str, head: Sequence[str], rows: list[list[str]], words: int) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        sides = [" class='words'" if i < words else "" for i in range(len(cells))]
        found = zip(cells, sides, strict=True)
        return "<tr>" + "".join(f"<{tag}{s}>{html.escape(c)}</{tag}>" for c, s in found) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    table = f"<table>{line(head, 'th')}{body}</table>"
    return f"<h2>{html.escape(title)}</h2><div class='scroll'>{table}</div>"


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
