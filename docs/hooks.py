"""What the manual's build does beyond MkDocs: nothing in it is fetched, at build or at view time.

- LaTeX becomes MathML, which browsers draw themselves; a command that is not understood ends the
  build.
- `<!-- derivation -->` and `<!-- commands -->` in a page stand for what the package itself says:
  the derivation of the theorem (as `npgd derive --latex` prints it), and the commands' own help.
- Full names in docstrings, such as `npgd.recover`, become links, and the asterisk of x* stays an
  asterisk.
"""

from __future__ import annotations

import enum
import html
import inspect
import re
import typing
from typing import Any

import griffe
from mkdocs.exceptions import PluginError

# ---------------------------------------------------------------------------------- mathematics

_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# Bars and roots beside a letter are no infix operators: without these they are given their spaces.
_TIGHT = re.compile(r'<mo(?: fence="false")?(?: stretchy="false")?>(&#x0(?:2016|007C|221A);)</mo>')


def mathml(latex: str, display: bool) -> str:
    """One formula. Raises PluginError for a command that latex2mathml does not know."""
    from latex2mathml.converter import convert

    written = convert(latex.strip(), display="block" if display else "inline")
    if "\\" in written:
        raise PluginError(f"not understood as LaTeX: {latex.strip()}")
    return _TIGHT.sub(r'<mo lspace="0" rspace="0" stretchy="false">\1</mo>', written)


def on_page_content(content: str, **_: Any) -> str:
    return kept_together(_MATH.sub(lambda m: mathml(html.unescape(m[2]), m[1] == "div"), content))


# ---------------------------------------------------------------------------------- broken lines

_PARTS = re.compile(r"(<pre\b.*?</pre>|<svg\b.*?</svg>|<code>[^<]*</code>|<[^>]*>)", re.DOTALL)


def kept_together(content: str) -> str:
    """A number with its unit and an option of a command stay on a line; names break at dots."""
    parts = _PARTS.split(content)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = re.sub(r"(?<=\d) (?=(?:%|dB\b))", "\N{NO-BREAK SPACE}", part)
        elif part.startswith("<code>"):
            whole = re.sub(r"(?<![\w-])--?\w[\w-]*", r'<span class="whole">\g<0></span>', part)
            parts[i] = re.sub(r"(?<=\w\w\w)\.(?=[A-Za-z_])", ".<wbr>", whole)
    return "".join(parts)


# ------------------------------------------------------------------- what the package itself says


def on_page_markdown(markdown: str, **_: Any) -> str:
    for mark, written in (("derivation", derivation), ("commands", commands)):
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", written())
    return markdown


def derivation() -> str:
    """The steps of `npgd derive --latex`, as Markdown."""
    from analysis.theorem import derive

    derived = derive()
    pages = []
    for i, (step, plain) in enumerate(zip(derived.steps, derived.to_dict()["steps"], strict=True)):
        body = step.latex().splitlines()[1:-1]  # without its title and its list of checks
        checks = [f"    - ✓ {_markdown(check)}" for check in plain["checks"]]
        pages += [f"## {i + 1}. {_markdown(plain['title'])}", ""]
        for line in body:
            pages += ["", line, ""] if line.startswith(r"\[") else [line]
        pages += ["", f'??? success "{len(checks)} checks by sympy"', "", *checks, ""]
    return "\n".join([*pages, f"*{derived.status}.*"])


def commands() -> str:
    """Every command of `npgd`, its help and its options, as Markdown."""
    import typer

    from analysis.commands import app

    return "\n".join(_command("npgd", typer.main.get_command(app)))


def _command(name: str, command: Any) -> list[str]:
    if hasattr(command, "commands"):
        parts = [_command(f"{name} {sub}", child) for sub, child in command.commands.items()]
        return [line for part in parts for line in part]
    lines = [f"## `{name}`", "", _options_as_code(_markdown(command.help)), ""]
    if command.params:
        lines += ["| option | default | |", "|---|---|---|"]
    kinds = typing.get_type_hints(inspect.unwrap(command.callback))
    for option in command.params:
        names = ", ".join(f"`{o}`" for o in (*option.opts, *option.secondary_opts))
        default = "" if option.default in (None, "") else f"`{option.default}`"
        if isinstance(option.default, bool):
            default = "yes" if option.default else "no"
        text = _options_as_code(_markdown(option.help or ""))
        kind = kinds[option.name]
        for choices in (kind, *typing.get_args(kind)):  # a choice, or a choice or none
            if isinstance(choices, type) and issubclass(choices, enum.Enum):
                text += f" One of {', '.join(f'`{choice.value}`' for choice in choices)}."
        cells = (names, "*required*" if option.required else default, text.replace("|", "&#124;"))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _options_as_code(text: str) -> str:
    return re.sub(r"(?<![\w`-])--[a-z][\w-]*", r"`\g<0>`", text)


# --------------------------------------------------------------------------------- the docstrings

# A full name in backticks, with or without a role before it.
_NAME = re.compile(
    r"(?<![`\w]):(?:mod|func|class|meth|attr|data|obj):`~?([\w.]+)`"
    r"|(?<!`)`((?:npgd|analysis)(?:\.\w+)+)`(?!`)"
)
_CODE = re.compile(r"(`+[^`]*`+|^(?: {4,}|\t).*$)", re.MULTILINE)


def _markdown(text: str) -> str:
    """Plain text that is safe as Markdown: an asterisk or underscore beside a letter is itself."""
    parts = _CODE.split(text)
    parts[::2] = [
        re.sub(r"(?<!\*)\*(?!\*)", r"\\*", part).replace("<", "&lt;") for part in parts[::2]
    ]
    return "".join(parts)


class Docstrings(griffe.Extension):
    """Docstrings as Markdown: names become references, lone asterisks are escaped."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _NAME.sub(_link, _markdown(obj.docstring.value))


def _link(name: re.Match[str]) -> str:
    full = name[1] or name[2]
    return f'<autoref optional identifier="{full}"><code>{full}</code></autoref>'
