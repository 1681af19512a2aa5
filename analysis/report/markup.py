"""Pieces of HTML: tables, figures with their legends, bars that sum, symbols explained.

All of it stands alone: nothing is loaded. Colours come from `page.css`, where each has a value for
light and one for dark; a figure's own are put in their terms.
"""

from __future__ import annotations

import functools
import html
import importlib.metadata
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from analysis.drawing import COLOURS
from analysis.report.figures import svg
from analysis.report.symbols import new_symbols
from analysis.words import about

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@functools.cache
def style() -> str:
    """The style sheet."""
    return files("analysis.report").joinpath("page.css").read_text(encoding="utf-8")


def escaped(text: str) -> str:
    """Text, safe between tags and in attributes."""
    return html.escape(text, quote=True)


def manual(page: str, words: str) -> str:
    """A link to a page of the manual, `how-to/report.md`; its name where no address is known.

    The address is the project's "Documentation", as it was installed.
    """
    try:
        urls = importlib.metadata.metadata("npgd").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        urls = []
    known = dict(url.split(", ", 1) for url in urls if ", " in url)
    if base := known.get("Documentation", ""):
        address = f"{base.rstrip('/')}/{page.removesuffix('.md')}.html"
        return f"<a href='{escaped(address)}'>{escaped(words)}</a>"
    return f"“{escaped(words)}” (docs/{escaped(page)} in the source)"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A table in a box that scrolls by itself; the first `words` columns hold words."""

    def cell(text: str, i: int, tag: str) -> str:
        side = " class='words'" if i < words else ""
        scope = " scope='col'" if tag == "th" else ""
        if tag == "td" and i == 0:
            tag, scope = "th", " scope='row'"
        return f"<{tag}{scope}{side}>{html.escape(text)}</{tag}>"

    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(cell(text, i, tag) for i, text in enumerate(cells))}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f"<div class='scroll' role='region' tabindex='0' aria-label='{escaped(title)}'>"
        f"<table><caption><span>{escaped(title)}</span></caption><thead>{line(head, 'th')}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(name: str, drawn: Figure, seen: str, caption: str) -> str:
    """A figure in the page's own colours, with a legend that the page sets; `seen` reads it out."""
    picture = _inline(svg(drawn), name, seen)
    keys = "".join(
        f"<li>{swatch}<span>{escaped(label)}</span></li>" for label, swatch in _legend(drawn)
    )
    legend = f"<ul class='legend'>{keys}</ul>" if keys else ""
    return f"<figure>{picture}<figcaption>{legend}<p>{escaped(caption)}</p></figcaption></figure>"


def _inline(source: str, name: str, seen: str) -> str:
    """An SVG file as an element: named, as wide as its place, its names its own."""
    source = source[source.index("<svg") :]
    source = re.sub(r"<metadata>.*?</metadata>", "", source, flags=re.DOTALL)
    source = re.sub(r"(?<= id=\")(?=\w)|(?<=href=\"#)|(?<=url\(#)", f"{name}-", source)
    source = re.sub(r' (?:width|height)="[\d.]+pt"', "", source, count=2)
    label = f"<svg class='drawing' role='img' aria-label='{escaped(seen)}'"
    return _in_terms(source.replace("<svg", label, 1))


def _in_terms(text: str) -> str:
    """Colours of `COLOURS` as those of the style sheet."""
    for name, colour in COLOURS.items():
        text = re.sub(colour, f"var(--{name})", text, flags=re.IGNORECASE)
    return text


def _legend(drawn: Figure) -> list[tuple[str, str]]:
    """Label and swatch of every handle, once."""
    found: dict[str, str] = {}
    for axis in drawn.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, _swatch(handle))
    return list(found.items())


_DASHES = {"--": "6 3", "-.": "6 2 1 2", ":": "1.5 2.5"}
_MARKS = {
    "o": "<circle cx='14' cy='6' r='3.5' fill='{fill}' stroke='{colour}'/>",
    "x": "<path d='M10.5 2.5l7 7m0 -7l-7 7' stroke='{colour}' stroke-width='1.6'/>",
    "|": "<path d='M14 1v10' stroke='{colour}' stroke-width='1.6'/>",
}


def _swatch(handle: Any) -> str:
    """A line, a mark or an area as small as a word."""
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D

    if isinstance(handle, Line2D):
        colour = to_hex(handle.get_color())
        mark = _MARKS.get(str(handle.get_marker()), "")
        hollow = str(handle.get_markerfacecolor()) == "none"
        inside = mark.format(colour=colour, fill="none" if hollow else colour)
        if str(handle.get_linestyle()) != "None":
            dash = _DASHES.get(str(handle.get_linestyle()), "")
            inside += (
                f"<path d='M0 6h28' stroke='{colour}' stroke-width='2' stroke-dasharray='{dash}'/>"
            )
    else:
        face = handle.get_facecolor()
        face = face if isinstance(face, tuple) else face[0]
        inside = (
            f"<rect y='1' width='28' height='10' fill='{to_hex(face)}'"
            f" fill-opacity='{float(face[3]):g}'/>"
        )
    return _in_terms(f"<svg aria-hidden='true' viewBox='0 0 28 12'>{inside}</svg>")


ROUNDING = 1e-12
"""A part as small as this share of the largest extent is 0."""


def _percent(share: float) -> str:
    whole = round(100 * share)
    return f"{'−' * (whole < 0)}{abs(whole)} %"


def waterfall(parts: Mapping[str, float], what: Mapping[str, str], total: str) -> str:
    """Bars that begin where the one before ended, so that the last ends at their sum.

    A negative part goes back, hatched. `total` names the sum.
    """
    values = list(parts.values())
    if not all(math.isfinite(value) for value in values):
        return "<p>A part is not finite, and there is no bar to draw.</p>"
    if not any(values):
        return "<p>Every part is 0: the error is, too.</p>"
    whole = math.fsum(values)
    ends = [0.0]
    for value in values:
        ends.append(ends[-1] + value)
    low, high = min(ends), max(ends)
    width = (high - low) or 1.0

    def bar(name: str, first: float, last: float, kind: str) -> str:
        left = 100 * (min(first, last) - low) / width
        size = 100 * abs(last - first) / width
        value = last - first if abs(last - first) > ROUNDING * width else 0.0
        number = about(abs(value))
        share = f" <span class='share'>{_percent(value / whole)}</span>" if whole > 0 else ""
        note = f"<small>{escaped(what.get(name, ''))}</small>" if name in what else ""
        return (
            f"<li><span class='name'>{escaped(name)}{note}</span><span class='track'"
            f" aria-hidden='true'><i class='{kind}' style='left:{left:.2f}%;width:{size:.2f}%'>"
            f"</i></span><span class='value'>{'−' * (value < 0)}{number}{share}</span></li>"
        )

    lines = [
        bar(name, first, last, "less" if last < first else "more")
        for name, first, last in zip(parts, ends, ends[1:], strict=False)
    ]
    lines.append(bar(total, 0.0, ends[-1], "sum"))
    return f"<ul class='waterfall'>{''.join(lines)}</ul>"


def section(name: str, title: str, content: str, known: set[str]) -> str:
    """A section, with the symbols that it is the first to use; they are added to `known`."""
    said = html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", content, flags=re.DOTALL))
    entries = new_symbols(f"{title} {said}", known)
    symbols = ""
    if entries:
        names = ", ".join(entries)
        listed = "".join(
            f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, text in entries.items()
        )
        symbols = (
            f"<details class='symbols'><summary>What {escaped(names)} mean"
            f"{'s' * (len(entries) == 1)}</summary><dl>{listed}</dl></details>"
        )
    return (
        f"<section id='{name}' aria-labelledby='{name}-title'><h2 id='{name}-title'>"
        f"{escaped(title)}</h2>{symbols}{content}</section>"
    )
