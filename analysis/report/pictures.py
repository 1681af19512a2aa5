"""Images of a report: original, measured, recovered, and where the recovery errs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from analysis.report.evidence import Evidence
from analysis.report.markup import escaped
from analysis.words import about, decibels
from npgd import checks
from npgd.images import Images

MOST = 4
"""Images shown."""
EXACT = 1e-12
"""An error of a pixel that rounding makes."""
MAP = "magma"
"""Of the error map: from black, no error, over red to pale yellow."""


@dataclass(frozen=True)
class Column:
    """One way of looking at every image."""

    title: str
    pictures: tuple[bytes, ...]
    """PNG, one an image."""
    notes: tuple[str, ...]
    """Under each."""
    alts: tuple[str, ...]
    """What is seen on each."""


def baselines_of(evidence: Evidence, baselines: object) -> dict[str, Images]:
    """Other methods' recoveries by name, of the images that are shown; TypeError or ValueError for
    what is none."""
    if baselines is None:
        return {}
    if not isinstance(baselines, Mapping):
        raise TypeError(f"baselines must be images by name, got {checks.shown(baselines)}")
    shape = checks.image_shape(tuple(evidence.images.shape[1:]))
    found = {}
    for name, images in baselines.items():
        if not isinstance(name, str):
            raise TypeError(f"baselines must be images by name, got the name {checks.shown(name)}")
        images = checks.images(images, shape, "baselines").detach()
        if len(images) != len(evidence.images):
            raise ValueError(
                f"baselines must have {len(evidence.images)} images each, got {len(images)}"
            )
        found[name] = images[:MOST].cpu().double()
    return found


def columns(evidence: Evidence, baselines: Mapping[str, Images]) -> list[Column]:
    """The first few images in columns: x*, Aᵀy, best of S, recovered, baselines, error maps."""
    x = evidence.images[:MOST].double()
    found = [Column("original x*", _pngs(x), ("",) * len(x), _alts("original", x))]
    measured = evidence.measured[:MOST].double()
    # What is larger than an image can be is shown within its range.
    size = measured.flatten(1).abs().amax(1).nan_to_num(1.0).clamp_min(1.0)[:, None, None, None]
    found.append(
        Column("measured, Aᵀy", _pngs(measured / size), ("",) * len(x), _alts("measured", x))
    )
    if not bool(evidence.inside.all()):
        found.append(_recovered("best of S, x̄", evidence.target[:MOST], x))
    default, default_name = evidence.predictions.default, evidence.predictions.default_name
    name, images = (
        (default_name, default.x) if default is not None else ("NPGD", evidence.solution.x)
    )
    shown = {name: images, **baselines}
    estimates = {name: images[:MOST].detach().cpu().double() for name, images in shown.items()}
    for title, estimate in estimates.items():
        found.append(_recovered(f"recovered, {title}", estimate, x))
    largest = scale(evidence)
    for title, estimate in estimates.items() if largest else ():
        error = (estimate - x).abs().mean(1)
        notes = tuple(f"at most {about(float(each.max()), 2)}" for each in error)
        alts = tuple(
            f"error of {title} on image {i}: mean {about(float(each.mean()), 2)}, {note}"
            for i, (each, note) in enumerate(zip(error, notes, strict=True))
        )
        found.append(Column(f"error, {title}", _maps(error, largest), notes, alts))
    return found


def scale(evidence: Evidence) -> float:
    """The error that the map's lightest colour stands for; 0 if those shown have none."""
    x = evidence.images[:MOST].double()
    default = evidence.predictions.default
    images = evidence.solution.x if default is None else default.x
    error = (images[:MOST].detach().cpu().double() - x).abs().mean(1)
    largest = float(error.nan_to_num(2.0, posinf=2.0).max())
    if not largest > EXACT:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(largest))
    return min(math.ceil(largest / unit - 1e-9) * unit, 2.0)


def _recovered(title: str, images: Images, x: Images) -> Column:
    images = images.double()
    error = (images - x).square().flatten(1).mean(1)
    notes = tuple(decibels(each) for each in error)
    alts = tuple(f"{title}, image {i}, PSNR {note}" for i, note in enumerate(notes))
    return Column(title, _pngs(images), notes, alts)


def _alts(word: str, x: Images) -> tuple[str, ...]:
    return tuple(f"{word}, image {i}" for i in range(len(x)))


def _pngs(images: Images) -> tuple[bytes, ...]:
    from npgd.data import to_uint8

    pixels = to_uint8(images.float().nan_to_num(0.0).clone()).permute(0, 2, 3, 1).numpy()
    return tuple(_png(each) for each in pixels)


def _maps(error: torch.Tensor, largest: float) -> tuple[bytes, ...]:
    from matplotlib import colormaps

    shares = (error / largest).nan_to_num(1.0, posinf=1.0).clamp(0, 1).numpy()
    return tuple(_png((colormaps[MAP](each)[..., :3] * 255).round()) for each in shares)


def _png(pixels: np.ndarray) -> bytes:
    """(height, width, channels) of 0 to 255; what is neither grey nor colour shows its first."""
    from PIL import Image

    array = pixels.astype(np.uint8)
    array = array if array.shape[-1] == 3 else array[..., :1]
    file = io.BytesIO()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(file, "PNG")
    return file.getvalue()


def grid(evidence: Evidence, baselines: Mapping[str, Images]) -> str:
    """The columns as a table of pictures, and the scale of the error."""
    shown = columns(evidence, baselines)
    count, total = len(shown[0].pictures), len(evidence.images)
    head = "".join(f"<th scope='col'>{escaped(column.title)}</th>" for column in shown)
    rows = []
    for i in range(count):
        cells = "".join(
            f"<td><img alt='{escaped(column.alts[i])}' src='{_uri(column.pictures[i])}'>"
            f"<span>{escaped(column.notes[i])}</span></td>"
            for column in shown
        )
        rows.append(f"<tr>{cells}</tr>")
    few = f"the first {count} of {total} images" if count < total else "every image"
    title = f"Images, a row each: {few}"
    return (
        f"<div class='scroll' role='region' tabindex='0' aria-label='{escaped(title)}'>"
        f"<table class='pictures'><caption><span>{escaped(title)}</span></caption>"
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{_scale(evidence)}"
        "<p class='small'>Under a recovery stands its PSNR. Aᵀy is shown within the range of an "
        "image.</p>"
    )


def _scale(evidence: Evidence) -> str:
    if not scale(evidence):
        return "<p>These recoveries have no error to map.</p>"
    ramp = np.linspace(0, 1, 64)[None, :].repeat(2, 0)
    (png,) = _maps(torch.from_numpy(ramp)[None], 1.0)
    largest = about(scale(evidence), 2)
    return (
        f"<p class='ramp'>error |x − x*|: <span>0</span><img alt='black, red, pale yellow'"
        f" src='{_uri(png)}'><span>{largest}</span> (white to black is 2)</p>"
    )


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
