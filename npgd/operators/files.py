"""Operators as files: safetensors, with their provenance in the header."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise

from npgd import checks
from npgd.files import read_tensors, safetensors_path, write_atomically
from npgd.operators.base import Gaussian, LinearOperator, MatrixOperator
from npgd.operators.dct import SubsampledDCT
from npgd.operators.pixels import Inpainting, SuperResolution
from npgd.operators.whitened import Whitened, WhitenedMatrix


def save_operator(
    A: LinearOperator,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write an operator and where it comes from as one safetensors file, whole or not at all.

    Kept are its tensors in their own dtype, its kind and settings, `provenance` (by default the
    operator's own, as the design methods fill it in) and the version of npgd, as JSON in the
    header. A Gaussian is kept as its matrix.

    Raises:
        TypeError: an operator that wraps an object of another library, which no tensor describes
            (give its matrix as a MatrixOperator), or a provenance that JSON cannot hold.
        ValueError: a path that does not end in .safetensors.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(
            f"A must be a LinearOperator, got {type(A).__name__}; wrap it with npgd.as_operator"
        )
    path = safetensors_path(path)
    kept = dict(A.provenance if provenance is None else provenance)
    if isinstance(A, Gaussian) and not kept:
        kept = {"method": "gaussian", "m": A.m, "seed": A.seed}
    description = {
        **_description(A),
        "image_shape": list(A.image_shape),
        "provenance": {**kept, "npgd": version("npgd")},
    }
    try:
        header = json.dumps(description)
    except TypeError as error:
        raise TypeError(
            f"provenance must be plain numbers, words and lists, got {error}"
        ) from error
    tensors = {key: value.detach().cpu().contiguous() for key, value in A.state_dict().items()}
    write_atomically(path, serialise(tensors, {"operator": header}))


def _description(A: LinearOperator) -> dict[str, Any]:
    """Kind and settings; the tensors say the rest."""
    if isinstance(A, WhitenedMatrix):
        return {"kind": "WhitenedMatrix", "condition": A.condition}
    if isinstance(A, Whitened):
        inner = {"operator": _description(A.operator)}
        return {"kind": "Whitened", "condition": A.condition, **inner}
    if isinstance(A, SuperResolution):
        return {"kind": "SuperResolution", "factor": A.factor}
    for kind in (MatrixOperator, Inpainting, SubsampledDCT):
        if isinstance(A, kind):
            return {"kind": kind.__name__}
    raise TypeError(
        f"A must be an operator that tensors describe, got {type(A).__name__}; save its matrix as a"
        " MatrixOperator"
    )


def load_operator(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> LinearOperator:
    """The operator that `save_operator` wrote; `.provenance` says where it comes from.

    In the dtype it was saved in unless `dtype` says another.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that does not hold the operator that its header describes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file that save_operator wrote, got {path}")
    description, tensors = read_tensors(path, "operator")
    try:
        operator = _restored(description, tuple(description["image_shape"]), tensors)
        operator.provenance = description["provenance"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must hold the operator that its header describes, got {type(error).__name__}:"
            f" {error}"
        ) from error
    return operator.to(device=device) if dtype is None else operator.to(device=device, dtype=dtype)


def _restored(
    description: Mapping[str, Any], shape: checks.ImageShape, tensors: Mapping[str, torch.Tensor]
) -> LinearOperator:
    kind = description["kind"]
    if kind == "MatrixOperator":
        return MatrixOperator(tensors["matrix"], shape)
    if kind == "Inpainting":
        mask = torch.zeros(math.prod(shape), dtype=torch.bool)
        mask[tensors["index"]] = True
        return Inpainting(shape, mask=mask.reshape(shape))
    if kind == "SuperResolution":
        return SuperResolution(shape, description["factor"])
    if kind == "SubsampledDCT":
        return SubsampledDCT(shape, index=tensors["index"], dtype=tensors["vertical"].dtype)
    if kind == "WhitenedMatrix":
        matrix, whitening = tensors["matrix"], tensors["whitening"]
        return WhitenedMatrix(matrix, shape, whitening, description["condition"])
    if kind == "Whitened":
        inner = {key.removeprefix("operator."): value for key, value in tensors.items()}
        operator = _restored(description["operator"], shape, inner)
        return Whitened(operator, tensors["whitening"], description["condition"])
    raise ValueError(f"kind must be known to this version, got {kind!r}")
