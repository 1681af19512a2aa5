"""Networks as graphs: NPGD's map of latents, layer by layer.

What is not handled is refused by name. The real-number map of a graph is the network's with exact
arithmetic: weights are floats, and floats are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from analysis.proofs.functions import LIBRARY, UNIT, Logistic, Power
from analysis.proofs.graph import Graph, Node, dense
from analysis.proofs.linear import Convolution, Repeated, Scaled, transposed
from npgd import checks
from npgd.images import Images
from npgd.networks import Corrector, DCGANGenerator, Encoder
from npgd.networks.rectifier import SmoothRectifier
from npgd.operators import LinearOperator
from npgd.priors import GenerativePrior

Shape = tuple[int, ...]
NARROW = 512
"""What convolutions of no more numbers give is bounded sharply."""
THRESHOLD = 20.0
"""Beyond it torch's softplus is its argument."""


def npgd_graph(
    A: LinearOperator, prior: GenerativePrior, y: torch.Tensor, step_size: float
) -> tuple[Graph, Node]:
    """T(z) = G†(G(z) − η Aᵀ(A G(z) − y)) for one y, (m,), and the node that holds G(z)."""
    graph = Graph()
    z = graph.input(prior.latent_dim)
    x = generated(graph, prior, z)
    matrix = dense(operator_matrix(A))
    missed = graph.linear((matrix, x), constant=-y)
    back = graph.linear((transposed(matrix), missed))
    w = graph.sum((1.0, x), (-step_size, back))
    graph.sharpen(w)
    latent = encoded(graph, prior, w)
    for _ in range(prior.corrections):
        graph.cuts.append(latent)
        assert isinstance(prior.corrector, Corrector)
        latent = corrected(graph, prior, prior.corrector, w, latent)
    return graph, x


def operator_matrix(A: LinearOperator) -> torch.Tensor:
    """A as a matrix, (m, n), its rows the adjoint of unit measurements."""
    return A.adjoint(torch.eye(A.m, dtype=torch.float64)).flatten(1)


def generated(graph: Graph, prior: GenerativePrior, z: Node) -> Node:
    """G(z)."""
    network = prior.generator
    if isinstance(network, DCGANGenerator):
        return layered(graph, network.layers, z, (prior.latent_dim, 1, 1), "generator")
    return layered(graph, network, z, (prior.latent_dim,), "generator")


def encoded(graph: Graph, prior: GenerativePrior, w: Node) -> Node:
    """What the encoder makes of w, before corrections."""
    network, shape = prior.encoder, prior.image_shape
    if not isinstance(network, Encoder):
        return layered(graph, network, w, shape, "encoder")
    if network.principal is not None:
        raise ValueError("prior must have an encoder without principal components, got one with")
    mean = graph.mean(graph.product(w, w))
    scaled = graph.product(w, graph.apply(Power(-0.5, b=1e-12), mean))
    level = graph.apply(Power(0.0, 0.5, 1e-12), mean)
    first = network.layers[0]
    assert isinstance(first, nn.Conv2d)
    channels, n = shape[0], graph.size(w) // shape[0]
    parts = [
        (convolution(first, first.weight[:, :channels], shape), scaled),
        (
            convolution(first, first.weight[:, channels:], (1, *shape[1:])),
            graph.repeated(level, n),
        ),
    ]
    out = parts[0][0].out_shape
    node = graph.linear(*parts, constant=spread(first.bias, out))
    return layered(graph, network.layers[1:], node, out, "encoder")


def corrected(graph: Graph, prior: GenerativePrior, step: Corrector, w: Node, z: Node) -> Node:
    """The latent after a corrector's step from z."""
    x = generated(graph, prior, z)
    n = graph.size(x)
    residual = graph.sum((1.0, w), (-1.0, x))
    mean = graph.mean(graph.product(residual, residual))
    unit = graph.product(residual, graph.apply(Power(-0.5, b=1e-12), mean))
    pulled = graph.pullback(z, x, unit)
    g = graph.scaled(pulled, n**-0.5, LIBRARY)
    graph.sharpen(g)
    square = graph.linear((transposed(Repeated(1, graph.size(g))), graph.product(g, g)))
    graph.sharpen(square)
    size = graph.apply(Power(0.5, b=1e-24), square)
    level = graph.apply(Power(0.0, 0.5, 1e-12), mean)
    first = step.trunk[0]
    assert isinstance(first, nn.Linear)
    k = prior.latent_dim
    columns = torch.split(first.weight, [k, k, 1, 1], dim=1)
    terms = [(dense(part), x) for part, x in zip(columns, (g, z, level, size), strict=True)]
    node = graph.linear(*terms, constant=first.bias.detach())
    graph.sharpen(node, g, mean, square)
    for layer in (*list(step.trunk)[1:], step.gate):
        node = layered(graph, layer, node, (graph.size(node),), "corrector")
        if isinstance(layer, nn.Linear):
            graph.sharpen(node, g, mean, square)
    gate = graph.apply(Logistic(0, limit=THRESHOLD), node)
    gather = dense(step.gather.weight)
    gathered = graph.linear((transposed(gather), g))
    graph.sharpen(gathered, g)
    move = graph.linear((gather, graph.product(gate, gathered)))
    graph.sharpen(move)
    rho = graph.apply(Power(0.5, b=1e-12), mean)
    length = graph.product(rho, graph.apply(Power(-1.0, b=1.0), rho))
    if math.isfinite(step.reach):
        far = graph.scaled(rho, 1 / step.reach, 2 * UNIT)
        square = graph.product(far, far)
        length = graph.product(
            length, graph.apply(Power(-1.0, b=1.0), graph.product(square, square))
        )
    return graph.sum((1.0, z), (1.0, graph.product(length, move)))


def layered(graph: Graph, network: nn.Module, x: Node, shape: Shape, part: str) -> Node:
    """What a network of layers, one after another, makes of x; they are refused by name."""
    for layer in _in_a_row(network):
        x, shape = _layer(graph, layer, x, shape, part)
    return x


def _in_a_row(network: nn.Module) -> list[nn.Module]:
    if isinstance(network, nn.Sequential):
        return [layer for part in network for layer in _in_a_row(part)]
    return [network]


def _layer(graph: Graph, layer: nn.Module, x: Node, shape: Shape, part: str) -> tuple[Node, Shape]:
    if type(layer) in ACTIVATIONS:
        return ACTIVATIONS[type(layer)](graph, layer, x), shape
    if isinstance(layer, nn.Identity | nn.Flatten):
        return x, (graph.size(x),) if isinstance(layer, nn.Flatten) else shape
    if isinstance(layer, nn.Unflatten):
        return x, tuple(layer.unflattened_size)
    if type(layer) is nn.Linear:
        bias = None if layer.bias is None else layer.bias.detach().double()
        return graph.linear((dense(layer.weight), x), constant=bias), (layer.out_features,)
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and len(shape) == 3:
        map = convolution(layer, layer.weight, shape)
        out = map.shape if isinstance(layer, nn.ConvTranspose2d) else map.out_shape
        used = transposed(map) if isinstance(layer, nn.ConvTranspose2d) else map
        node = graph.linear((used, x), constant=spread(layer.bias, out))
        if graph.size(node) <= NARROW:
            graph.sharpen(node)
        return node, out
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.track_running_stats:
        return _batch_norm(graph, layer, x, shape), shape
    if isinstance(layer, nn.GroupNorm):
        return _group_norm(graph, layer, x, shape), shape
    raise ValueError(
        f"prior must be made of layers that a proof handles, got {checks.shown(layer)} in its"
        f" {part}"
    )


def convolution(
    layer: nn.Conv2d | nn.ConvTranspose2d, weight: torch.Tensor, shape: Shape
) -> Convolution:
    """The convolution of a layer, or the one whose transpose the layer is."""
    plain = (
        layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
        and layer.stride[0] == layer.stride[1] and layer.kernel_size[0] == layer.kernel_size[1]
        and isinstance(layer.padding, tuple) and layer.padding[0] == layer.padding[1]
    )  # fmt: skip
    if not plain:
        raise ValueError(
            f"prior must have convolutions of square kernels, one stride and zero padding, without"
            f" groups or dilation, got {checks.shown(layer)}"
        )
    stride, padding = int(layer.stride[0]), int(layer.padding[0])
    if isinstance(layer, nn.ConvTranspose2d):
        side, more = int(layer.kernel_size[0]), layer.output_padding
        shape = (
            weight.shape[1],
            *((s - 1) * stride - 2 * padding + side + p
              for s, p in zip(shape[1:], more, strict=True)),
        )  # fmt: skip
    return Convolution(weight.detach().double(), (shape[0], shape[1], shape[2]), stride, padding)


def spread(bias: torch.Tensor | None, shape: Shape) -> torch.Tensor | None:
    """A number for each channel, over all its places."""
    if bias is None:
        return None
    return bias.detach().double().repeat_interleave(math.prod(shape[1:]))


def _batch_norm(
    graph: Graph, layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Node, shape: Shape
) -> Node:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = (layer.running_var.detach().double() + layer.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if layer.weight is not None:
        scale = scale * layer.weight.detach().double()
        shift = layer.bias.detach().double()
    error = 4 * LIBRARY
    moved = layer.running_mean.detach().double() * scale
    off = (2 * error) * (moved.abs() + shift.abs())
    return graph.linear(
        (Scaled(_over(scale, shape), error), x),
        constant=_over(shift - moved, shape),
        error=_over(off, shape),
    )


def _over(values: torch.Tensor, shape: Shape) -> torch.Tensor:
    return values.repeat_interleave(math.prod(shape[1:]))


def _group_norm(graph: Graph, layer: nn.GroupNorm, x: Node, shape: Shape) -> Node:
    groups, n = layer.num_groups, graph.size(x)
    mean = graph.repeated(graph.mean(x, groups), n)
    centred = graph.sum((1.0, x), (-1.0, mean))
    spread_out = graph.mean(graph.product(centred, centred), groups)
    node = graph.product(centred, graph.apply(Power(-0.5, b=layer.eps), spread_out))
    if layer.weight is None:
        return node
    weight = _over(layer.weight.detach().double(), shape)
    return graph.linear((Scaled(weight), node), constant=spread(layer.bias, shape))


def _rectifier(graph: Graph, layer: SmoothRectifier, x: Node) -> Node:
    s, a = layer.sharpness, layer.slope
    return graph.apply(Logistic(0, s, (1 - a) / s, a, error=4 * UNIT), x)


def _softplus(graph: Graph, layer: nn.Softplus, x: Node) -> Node:
    s = float(layer.beta)
    return graph.apply(Logistic(0, s, 1 / s, error=2 * UNIT, limit=float(layer.threshold)), x)


def _silu(graph: Graph, layer: nn.Module, x: Node) -> Node:
    return graph.product(x, graph.apply(Logistic(1), x))


ACTIVATIONS: dict[type[nn.Module], Callable[..., Node]] = {
    SmoothRectifier: _rectifier,
    nn.Softplus: _softplus,
    nn.SiLU: _silu,
    nn.Sigmoid: lambda graph, layer, x: graph.apply(Logistic(1), x),
    nn.Tanh: lambda graph, layer, x: graph.apply(Logistic(1, 2.0, 2.0, b=-1.0), x),
}


def images_of(row: torch.Tensor, shape: checks.ImageShape) -> Images:
    """Rows as images."""
    return row.reshape(-1, *shape)
