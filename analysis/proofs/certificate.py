"""Certificates: a proved ball and its map in one file, for a checker that shares no code.

An `.npz` file without pickle: arrays, and the list of nodes as JSON text. The claims are a little
weaker than what was proved, by `SLACK`, for the checker sums in another order.
"""

from __future__ import annotations

import io
import json
import math
import os
from typing import Any

import numpy as np
import torch

from analysis.proofs.contraction import ConvergenceProof
from analysis.proofs.enclosure import sharpened
from analysis.proofs.functions import Function, Logistic
from analysis.proofs.graph import AnyNode, Applied, Graph, Input, Linear, Product
from analysis.proofs.linear import Convolution, Dense, LinearMap, Repeated, Scaled, Transposed
from analysis.proofs.networks import npgd_graph
from npgd import checks
from npgd.files import a_path, write_atomically
from npgd.images import Measurements
from npgd.operators import LinearOperator
from npgd.precision import converted
from npgd.priors import GenerativePrior

SLACK = 0.01
"""Of 1 − q; the move is claimed to be at most ten times what was proved, where there is room."""


def save_certificate(
    proof: ConvergenceProof,
    path: str | os.PathLike[str],
    A: LinearOperator,
    prior: GenerativePrior,
    y: Measurements,
    image: int = 0,
) -> None:
    """Write the certificate of one image of a proof.

    `docs/mathematics/check_contraction.py` verifies it, with numpy alone.

    Args:
        proof: of `analysis.prove_convergence`.
        path: ends in .npz.
        A: the operator of the proof.
        prior: its prior.
        y: its measurements, (batch, m).
        image: which of the batch.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an image without a proved ball, or a path that does not end in .npz.
    """
    if not isinstance(proof, ConvergenceProof):
        raise TypeError(f"proof must be a ConvergenceProof, got {checks.shown(proof)}")
    image = checks.integer(image, "image", minimum=0, maximum=len(proof.outcomes) - 1)
    if not bool(proof.proved[image]):
        raise ValueError(f"image must be one that is proved, got {image}: {proof.outcomes[image]}")
    where = a_path(path)
    if where.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {where.name}")
    y = checks.measurements(y, A.m, least=1).detach().double()
    graph, _ = npgd_graph(converted(A), converted(prior), y[image], proof.step_size)
    radius, factor, move = (float(part[image]) for part in (proof.radius, proof.factor, proof.move))
    factor += SLACK * (1 - factor)
    most = (1 - factor) * radius * (1 - 1e-12)
    claims = {"radius": radius, "factor": factor, "move": min(10 * move, (move + most) / 2)}
    write_atomically(where, certificate(graph, proof.centre[image], proof.shape[image], claims))


def certificate(
    graph: Graph, centre: torch.Tensor, shape: torch.Tensor, claims: dict[str, float]
) -> bytes:
    """A map, a ball and claims as the content of an .npz file."""
    arrays: dict[str, np.ndarray] = {}
    names: dict[bytes, str] = {}

    def named(x: torch.Tensor) -> str:
        content = x.detach().numpy()
        key = repr(content.shape).encode() + content.tobytes()
        if key not in names:
            names[key] = f"array{len(names)}"
            arrays[names[key]] = content
        return names[key]

    listing = {
        "nodes": [_node(node, named) for node in graph.nodes],
        "cuts": graph.cuts,
        "sharp": [[node, cut, sorted(stops)] for node, cut, stops in sharpened(graph)],
    }
    arrays |= {name: np.array(value) for name, value in claims.items()}
    arrays |= {"centre": centre.numpy(), "shape": shape.numpy()}
    arrays["listing"] = np.array(json.dumps(listing, allow_nan=False))
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _node(node: AnyNode, named: Any) -> dict[str, Any]:
    if isinstance(node, Input):
        return {"kind": "input", "size": node.size}
    if isinstance(node, Applied):
        described = _function(node.function)
        return {"kind": "apply", "size": node.size, "source": node.source, "function": described}
    if isinstance(node, Product):
        return {"kind": "product", "size": node.size, "left": node.left, "right": node.right}
    assert isinstance(node, Linear)
    pairs = zip(node.maps, node.sources, strict=True)
    return {
        "kind": "linear",
        "size": node.size,
        "terms": [{"source": source, "map": _map(map, named)} for map, source in pairs],
        "constant": None if node.constant is None else named(node.constant),
        "constant_error": None if node.constant_error is None else named(node.constant_error),
    }


def _function(function: Function) -> dict[str, Any]:
    family = "logistic" if isinstance(function, Logistic) else "power"
    return {"family": family} | {
        name: None if value == math.inf else value for name, value in vars(function).items()
    }


def _map(map: LinearMap, named: Any) -> dict[str, Any]:
    if isinstance(map, Transposed):
        return _map(map.of, named) | {"transposed": True}
    described: dict[str, Any] = {"error": map.error}
    if isinstance(map, Dense):
        return described | {"type": "dense", "weight": named(map.matrix)}
    if isinstance(map, Scaled):
        return described | {"type": "scaled", "weight": named(map.weight)}
    if isinstance(map, Repeated):
        return described | {"type": "repeated", "count": map.count, "times": map.times}
    assert isinstance(map, Convolution)
    return described | {
        "type": "convolution", "weight": named(map.weight), "shape": list(map.shape),
        "stride": map.stride, "padding": map.padding,
    }  # fmt: skip
