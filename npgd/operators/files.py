"""Operators as files: safetensors, with their provenance in the header."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from npgd import checks
from npgd.files import (
    a_path,
    as_json,
    described,
    destination,
    entry,
    holding,
    is_file,
    read_described,
    require_fit,
    safetensors_path,
    sentence,
    shown,
    write_atomically,
)
from npgd.importing import imported, is_import_path, made, path_of
from npgd.operators.base import Gaussian, LinearOperator, MatrixOperator
from npgd.operators.blur import Blur
from npgd.operators.dct import SubsampledDCT
from npgd.operators.fourier import Fourier
from npgd.operators.pixels import Inpainting, SuperResolution
from npgd.operators.radon import Radon
from npgd.operators.structured import StructuredRandom
from npgd.operators.whitened import Whitened, WhitenedMatrix
from npgd.precision import copied

INNER = "operator."
"""How the names begin of the tensors of the operator inside a `Whitened`."""

ENTRIES: dict[str, dict[str, type]] = {
    "Fourier": {"complex_images": bool},
    "Blur": {"boundary": str},
    "Radon": {"angles": list, "detectors": int},
    "StructuredRandom": {"transform": str},
}
"""What the header says of operators that are transforms."""

MOST_PIXELS = 2**26
"""The most numbers in an image of an operator in a file; a mask has as many."""


def save_operator(
    A: LinearOperator,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write an operator and where it comes from as one safetensors file, whole or not at all.

    Kept are its tensors in their own dtype, its kind and settings, `provenance` (by default the
    operator's own, as the design methods fill it in) and the version of npgd, as JSON in the
    header. A Gaussian is kept as its matrix. Of a class of yours its import path is kept, and what
    its `_settings` returns; `load_operator(path, classes=[...])` makes it anew.

    Raises:
        TypeError: an operator that wraps an object of another library, which no tensor describes
            (give its matrix as a MatrixOperator), a class that cannot be imported or made anew
            from its settings, or a provenance that JSON cannot hold.
        ValueError: a path that does not end in .safetensors, entries that are not finite, or an
            image of more than 2²⁶ numbers.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(
            f"A must be a LinearOperator, got {type(A).__name__}; wrap it with npgd.as_operator"
        )
    path = safetensors_path(path)
    if provenance is not None and not isinstance(provenance, Mapping):
        raise TypeError(f"provenance must be names with values, got {checks.shown(provenance)}")
    kept = dict(A.provenance if provenance is None else provenance)
    if isinstance(A, Gaussian) and not kept:
        kept = {"method": "gaussian", "m": A.m, "seed": A.seed}
    as_json(kept, "provenance")
    description = {
        **_description(A),
        "image_shape": list(A.image_shape),
        "provenance": {**kept, "npgd": version("npgd")},
    }
    tensors = A.state_dict()
    content = described(tensors, "operator", description)
    try:
        _outline(description, tensors)
        if is_import_path(description["kind"]):
            _own(description, tensors, (description["kind"],))
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"A must be a {description['kind']} that could be read again, got one whose {error}"
        ) from error
    write_atomically(path, content)


def _description(A: LinearOperator) -> dict[str, Any]:
    """Kind and settings; the tensors say the rest."""
    if isinstance(A, WhitenedMatrix):
        return {"kind": "WhitenedMatrix", "condition": A.condition}
    if isinstance(A, Whitened):
        inner = {"operator": _description(A.operator)}
        return {"kind": "Whitened", "condition": A.condition, **inner}
    if isinstance(A, SuperResolution):
        return {"kind": "SuperResolution", "factor": A.factor}
    if isinstance(A, MatrixOperator) and A.complex_measurements:
        return {"kind": "MatrixOperator", "complex": True}
    if isinstance(A, Blur):
        return {"kind": "Blur", "boundary": A.boundary}
    if isinstance(A, Radon):
        return {"kind": "Radon", "angles": list(A.angles), "detectors": A.detectors}
    if isinstance(A, StructuredRandom):
        return {"kind": "StructuredRandom", "transform": A.transform}
    if isinstance(A, Fourier):
        return {"kind": "Fourier", "complex_images": A.complex_images}
    for kind in (MatrixOperator, Inpainting, SubsampledDCT):
        if isinstance(A, kind):
            return {"kind": kind.__name__}
    if not _is_ours(type(A)) and is_import_path(path_of(type(A))):
        return {"kind": path_of(type(A)), "settings": A._settings()}
    raise TypeError(
        f"A must be an operator that tensors describe, got {type(A).__name__}; save its matrix as a"
        ' MatrixOperator, or load it from your code as "package.module:make_operator"'
    )


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "npgd"


def load_operator(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    classes: Sequence[str | type[LinearOperator]] = (),
) -> LinearOperator:
    """The operator that `save_operator` wrote; `.provenance` says where it comes from.

    In the dtype it was saved in unless `dtype` says another. An import path,
    "package.module:make_operator", in place of the path of a file, names a LinearOperator, or a
    function without arguments that returns one; its module is imported.

    Args:
        path: of the file, or an import path.
        dtype: float32 or float64.
        device: where it shall be.
        classes: classes of yours, or their import paths, that the file may name. What is not named
            here is not imported: a file runs no code by itself.

    Raises:
        TypeError: an argument of another kind.
        FileNotFoundError: no such file.
        ValueError: a dtype or device that does not serve, or a file that does not hold the operator
            that its header describes.
    """
    if isinstance(classes, str | bytes) or not isinstance(classes, Sequence):
        came = checks.shown(classes)
        raise TypeError(f"classes must be classes or import paths in a row, got {came}")
    known = tuple(path_of(a) if isinstance(a, type) else str(a) for a in classes)
    source = str(path) if isinstance(path, os.PathLike) else path
    if is_import_path(source):
        return _made(str(source), *destination(dtype, device))
    path = a_path(path)
    dtype, there = destination(dtype, device)
    if not is_file(path):
        raise FileNotFoundError(
            f"path must be a file that save_operator wrote, got {shown(path)}, where no file is"
        )
    description, tensors = read_described(path, "operator", _outline)
    kind = description["kind"]
    if is_import_path(kind) and kind not in known:
        raise ValueError(
            f"path must lead to an operator whose class is known, got {kind}; if you trust its"
            f" code: load_operator(…, classes=[{kind!r}])"
        )
    with holding(path, "operator"):
        if is_import_path(kind):
            operator = _own(description, tensors, known)
        else:
            operator = _restored(description, tuple(description["image_shape"]), tensors)
        operator.provenance = description["provenance"]
        operator = operator.to(device=there, dtype=dtype)
        for key, value in operator.state_dict().items():
            checks.finite(value, key)
    return operator


def _made(path: str, dtype: torch.dtype | None, device: torch.device) -> LinearOperator:
    """The operator that an import path names, or that the function there returns."""
    found = imported(path, "path")
    operator = copied(found) if isinstance(found, LinearOperator) else made(path, found, "path")
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            "path must lead to a LinearOperator, or to a function that returns one, got"
            f" {checks.shown(operator)} from {path}; npgd.as_operator makes one"
        )
    return operator.to(device=device, dtype=dtype)


def _own(
    description: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], known: Sequence[str]
) -> LinearOperator:
    """An operator of somebody's class, whose import path is known, made anew."""
    kind, shape = entry(description, "kind", str), tuple(entry(description, "image_shape", list))
    assert kind in known
    made = imported(kind, "kind")
    if not (isinstance(made, type) and issubclass(made, LinearOperator)):
        raise TypeError(f"kind must be a LinearOperator, got {checks.shown(made)} from {kind}")
    settings = entry(description, "settings", dict)
    try:
        operator = made(shape, **settings)
        operator.load_state_dict(dict(tensors), assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"class {kind} must be made anew from the image shape and its `_settings`, got"
            f" {type(error).__name__}: {sentence(error)}"
        ) from error
    return operator


def _outline(description: dict[str, Any], found: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The description; raises unless tensors of such names, shapes and types go with it."""
    entry(description, "provenance", dict)
    sides = entry(description, "image_shape", list)
    for side in sides:
        checks.integer(side, "image_shape")
    shape = checks.image_shape(sides)
    if math.prod(shape) > MOST_PIXELS:
        raise ValueError(f"image_shape must have at most {MOST_PIXELS} numbers, got {sides}")
    require_fit(found, _expected(description, shape, found))
    return description


def _expected(
    description: Mapping[str, Any], shape: checks.ImageShape, found: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors of an operator, on the meta device; only m is left to what is found."""
    kind = entry(description, "kind", str)
    if is_import_path(kind):
        entry(description, "settings", dict)
        return {name: torch.empty_like(value, device="meta") for name, value in found.items()}
    index = found.get("index", found.get("matrix", torch.empty(1, device="meta")))
    m = max(1, index.shape[0] if index.ndim else 1)
    numbers = torch.empty(m, dtype=torch.int64, device="meta")
    if kind == "Inpainting":
        return {"index": numbers}
    if kind == "SuperResolution":
        entry(description, "factor", int)
        return {}
    if kind in ("Fourier", "Blur", "Radon", "StructuredRandom"):
        for name, kind_of_entry in ENTRIES[kind].items():
            entry(description, name, kind_of_entry)
        return _expected_of_transform(kind, shape, found, numbers)
    if kind == "SubsampledDCT":
        vertical, horizontal = (torch.empty(n, n, device="meta") for n in shape[1:])
        return {"index": numbers, "vertical": vertical, "horizontal": horizontal}
    matrix = {"matrix": torch.empty(m, math.prod(shape), device="meta")}
    if kind == "MatrixOperator":
        return matrix
    if kind not in ("WhitenedMatrix", "Whitened"):
        raise ValueError(f"kind must be known to this version, got {checks.shown(kind)}")
    if checks.number(entry(description, "condition", object), "condition") < 1:
        raise ValueError(f"condition must be at least 1, got {description['condition']}")
    if kind == "WhitenedMatrix":
        return {**matrix, "whitening": torch.empty(m, m, device="meta")}
    inner = {key.removeprefix(INNER): v for key, v in found.items() if key.startswith(INNER)}
    of = entry(description, "operator", dict)
    expected = {INNER + key: value for key, value in _expected(of, shape, inner).items()}
    whitening = found.get("whitening", torch.empty((), device="meta"))
    # Its m is that of the operator, as `Whitened` makes sure.
    sides = () if whitening.ndim == 0 else (whitening.shape[0],) * 2
    return {**expected, "whitening": torch.empty(sides, device="meta")}


def _expected_of_transform(
    kind: str,
    shape: checks.ImageShape,
    found: Mapping[str, torch.Tensor],
    numbers: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The tensors of an operator that is a transform; what the shape leaves open is as found."""
    if kind == "Radon":
        return {}
    if kind == "StructuredRandom":
        return {"index": numbers, "signs": torch.empty(math.prod(shape), device="meta")}
    if kind == "Blur":
        kernel = found.get("kernel", torch.empty(shape[0], 1, 1, device="meta"))
        sides = kernel.shape[1:] if kernel.ndim == 3 else (1, 1)
        return {"kernel": torch.empty(shape[0], *sides, device="meta")}
    if "maps" not in found:
        return {"index": numbers}
    coils = found["maps"].shape[0] if found["maps"].ndim else 1
    return {"index": numbers, "maps": torch.empty(coils, *shape[1:], 2, device="meta")}


def _restored(
    description: Mapping[str, Any], shape: checks.ImageShape, tensors: Mapping[str, torch.Tensor]
) -> LinearOperator:
    kind = description["kind"]
    if kind == "MatrixOperator":
        operator = _matrix(tensors["matrix"], shape)
        operator.complex_measurements = bool(description.get("complex", False))
        return operator
    if kind == "Inpainting":
        return Inpainting(shape, mask=_mask(tensors["index"], shape))
    if kind in ENTRIES:
        return _restored_transform(description, shape, tensors)
    if kind == "SuperResolution":
        return SuperResolution(shape, description["factor"])
    if kind == "SubsampledDCT":
        return SubsampledDCT(shape, index=tensors["index"], dtype=tensors["vertical"].dtype)
    condition = description["condition"]
    if kind == "WhitenedMatrix":
        whitening, matrix = tensors["whitening"], tensors["matrix"]
        if whitening.dtype != matrix.dtype:
            raise ValueError(f"whitening must be {matrix.dtype} as matrix, got {whitening.dtype}")
        return WhitenedMatrix(_precise(matrix), shape, whitening, condition).to(matrix.dtype)
    inner = {
        key.removeprefix(INNER): value for key, value in tensors.items() if key.startswith(INNER)
    }
    operator = _restored(description["operator"], shape, inner)
    return Whitened(operator, tensors["whitening"], condition)


def _restored_transform(
    description: Mapping[str, Any], shape: checks.ImageShape, tensors: Mapping[str, torch.Tensor]
) -> LinearOperator:
    kind = description["kind"]
    if kind == "Radon":
        return Radon(shape, description["angles"], description["detectors"])
    if kind == "Blur":
        kernel = tensors["kernel"]
        return Blur(shape, _precise(kernel), description["boundary"]).to(kernel.dtype)
    if kind == "Fourier":
        maps, mask = tensors.get("maps"), _mask(tensors["index"], shape[1:])
        doubled = description["complex_images"]
        if maps is None:
            return Fourier(shape, mask, complex_images=doubled)
        coils = torch.view_as_complex(_precise(maps))
        return Fourier(shape, mask, coils, doubled).to(maps.dtype)
    index, signs, n = tensors["index"], tensors["signs"], math.prod(shape)
    A = StructuredRandom(shape, len(index), transform=description["transform"])
    if len(set(index.tolist())) < len(index) or not 0 <= int(index.min()) <= int(index.max()) < n:
        raise ValueError(f"index must be different numbers from 0 to {n - 1}, got others")
    if not bool((signs.abs() == 1).all()):
        raise ValueError("signs must be 1 and -1, got others")
    A.index, A.signs = index, signs
    return A


def _mask(index: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """True at the places of the index, which must rise."""
    n = math.prod(shape)
    if not (int(index[0]) >= 0 and int(index[-1]) < n and bool((index.diff() > 0).all())):
        raise ValueError(f"index must be rising numbers from 0 to {n - 1}, got others")
    mask = torch.zeros(n, dtype=torch.bool)
    mask[index] = True
    return mask.reshape(shape)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _matrix(matrix: torch.Tensor, shape: checks.ImageShape) -> LinearOperator:
    """In the precision it was kept in, where half ones are not made but come of `.to`."""
    return MatrixOperator(_precise(matrix), shape).to(matrix.dtype)
