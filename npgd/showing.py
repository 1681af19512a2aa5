"""How results, operators and priors show themselves: in a terminal, in a notebook, as a picture.

    class Basin(Shown): ...            # repr: its `__str__`, or its fields, on one screen
    class StateEvolution(Drawn): ...   # `.plot()` as well, of what `draw` draws

A `repr` never prints a tensor: it says its shape. What `print` shows is `__str__`, whole.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch

from npgd import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 19
MOST_CHARACTERS = 2000
"""Of a `repr`."""
MOST_PICTURES = 8
"""Images in a notebook's table."""
WIDTH = 96


class Shown:
    """A `repr` of one screen, and a notebook's view of the same."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "__repr__" not in cls.__dict__:
            # In the class itself, for there a dataclass would put its own.
            cls.__repr__ = Shown.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """What `__str__` says, or the fields by name, cut to one screen."""
        own = type(self).__str__ is not object.__str__
        return cut(str(self) if own else listed(self))

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures where there are images to show."""
        text = f"<pre>{html.escape(repr(self))}</pre>"
        columns = self.pictures()
        return text + (table_of_pictures(columns) if columns else "")

    def pictures(self) -> dict[str, Any]:
        """Columns of a notebook's table, a row for each image: images, numbers or words."""
        return {}


class Drawn(Shown):
    """What has a picture."""

    def draw(self, axis: Axes) -> None:
        """Draw it on axes of matplotlib."""
        raise NotImplementedError

    def plot(self, axis: Axes | None = None) -> Figure:
        """A figure of it, or the figure of `axis`, drawn on; a notebook shows what is returned.

        Args:
            axis: axes of matplotlib to draw on; new ones without.
        """
        if axis is None:
            figure = new_figure()
            self.draw(figure.subplots())
            return figure
        self.draw(axis)
        figure_of: Figure = axis.get_figure(root=True)  # type: ignore[assignment]
        return figure_of


def new_figure(size: tuple[float, float] = (5.0, 3.4)) -> Figure:
    """A figure that a notebook shows with no backend chosen, and once."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=120)
            return content.getvalue()

    return Picture(figsize=size, layout="constrained")


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain_log(axis: Any, numbers: Sequence[float] = ()) -> None:
    """A logarithmic `axis.xaxis` or `axis.yaxis` in plain numbers; a tick at each of a few.

    Without `numbers` the ticks are at 1, 2 and 5 of each decade, at 1 alone where there are many,
    and at even distances where there is less than one.
    """
    import matplotlib.ticker as ticks

    if min(axis.get_view_interval()) <= 0 and not math.isfinite(axis.get_minpos()):
        getattr(axis.axes, f"set_{axis.axis_name}lim")(0.1, 1)  # nothing positive to scale
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    if 2 <= len(numbers) <= 8:
        axis.set_ticks(numbers, [f"{number:,g}" for number in numbers])
        axis.set_ticks([], minor=True)
        return

    class Places(ticks.LogLocator):
        def tick_values(self, low: float, high: float) -> Any:
            if 0 < low < high < 6 * low:  # as on a linear axis, which it looks like
                return ticks.MaxNLocator(4).tick_values(low, high)
            few = 0 < low < high < 150 * low
            self.set_params(subs=(1, 2, 5) if few else (1,))
            places = super().tick_values(low, high)
            if len(places):
                return places
            self.set_params(subs=(1,))  # a small axis has no room for three a decade
            return super().tick_values(low, high)

    axis.set_major_locator(Places())
    axis.set_major_formatter(ticks.FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_formatter(ticks.NullFormatter())


def iterations(axis: Any) -> None:
    """A whole number for every tick of the x axis."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("iteration n")


def _plain(value: float) -> str:
    """0.001 to 5,000 in digits, what is beyond by a power of ten: 2·10⁻⁵."""
    if not value > 0:
        return ""
    if 0.00099 < value < 9999:
        return f"{value:,.6g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    factor, power = f"{value / 10**exponent:.6g}", f"10{str(exponent).translate(SUPERSCRIPTS)}"
    return power if factor == "1" else f"{factor}·{power}"


def cut(text: str) -> str:
    """`text` in at most 19 lines of together at most 2,000 characters."""
    lines = text.splitlines()
    if len(lines) <= MOST_LINES and len(text) <= MOST_CHARACTERS:
        return text
    most = MOST_CHARACTERS - 60
    kept = "\n".join(lines[: MOST_LINES - 1])[:most]
    return f"{kept}\n… {len(lines)} lines in all; print() shows them"


def listed(value: Any) -> str:
    """An object's fields by name, one a line where they are many; tensors by their shape."""
    names = [f.name for f in fields(value) if f.repr] if is_dataclass(value) else []
    parts = [f"{name}={brief(getattr(value, name))}" for name in names]
    if isinstance(value, torch.nn.Module):
        parts += [value.extra_repr()] if value.extra_repr() else []
        parts += [f"{name}={brief(child)}" for name, child in value.named_children()]
    kind = type(value).__name__
    line = f"{kind}({', '.join(parts)})"
    return line if len(line) <= WIDTH else "\n".join([f"{kind}(", *(f"  {p}," for p in parts), ")"])


def brief(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, torch.Tensor) and value.ndim:
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, torch.Tensor | float):
        return f"{value.item() if isinstance(value, torch.Tensor) else value:.6g}"
    if isinstance(value, torch.nn.Module):
        name = getattr(value, "name", None)
        named = isinstance(name, str) and name
        return f"{type(value).__name__}{f' {name!r}' if named else ''}"
    if isinstance(value, list | tuple) and len(value) > 6:
        known = [x for x in value if isinstance(x, int | float) and math.isfinite(x)]
        if len(known) == len(value):
            return f"{len(value)} numbers from {min(known):.4g} to {max(known):.4g}"
    if isinstance(value, Mapping | list | tuple) and len(value) > 6:
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, list | tuple) and value and all(isinstance(x, float) for x in value):
        return ", ".join(f"{x:.4g}" for x in value).join("[]" if isinstance(value, list) else "()")
    text = str(value) if isinstance(value, Shown) else repr(value)
    first = checks.printable(text.split("\n")[0])
    return first if len(first) <= WIDTH and "\n" not in text else f"{first[: WIDTH - 1]}…"


def table_of_pictures(columns: Mapping[str, Any]) -> str:
    """An HTML table, a row for each image; images (batch, c, h, w) become small pictures."""
    count = min(len(column) for column in columns.values())
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *columns))
    rows = []
    for i in range(min(count, MOST_PICTURES)):
        cells = "".join(f"<td>{_cell(column[i], name, i)}</td>" for name, column in columns.items())
        rows.append(f"<tr><td>{i}</td>{cells}</tr>")
    left = count - len(rows)
    more = f"<p>… and {left} more</p>" if left else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def _cell(value: Any, name: str, number: int) -> str:
    if isinstance(value, torch.Tensor) and value.ndim == 3:
        alt = html.escape(f"{name}, image {number}", quote=True)
        # As large as a thumbnail, its pixels as they are.
        return (
            f'<img alt="{alt}" src="data:image/png;base64,{_png(value)}"'
            ' style="height:64px;image-rendering:pixelated">'
        )
    number_or_word = value.item() if isinstance(value, torch.Tensor) else value
    shown = f"{number_or_word:.4g}" if isinstance(number_or_word, float) else str(number_or_word)
    return html.escape(shown)


def _png(image: torch.Tensor) -> str:
    """One image on [−1, 1] as a PNG in base64."""
    from PIL import Image

    pixels = image.detach().float().cpu().nan_to_num(0.0).clamp(-1, 1)
    grey = len(pixels) not in (3, 4)
    rgb = pixels[:1] if grey else pixels[:3]
    array = ((rgb + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(array.squeeze(-1) if grey else array).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()
