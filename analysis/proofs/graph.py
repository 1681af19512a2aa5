"""A map as a list of nodes of three kinds: linear, a function of every entry, a product of entries.

Every node holds one row of numbers, made of nodes before it:

    Linear     v = Σ_i M_i x_i + constant
    Applied    v = φ(x), entry by entry
    Product    v = x ⊙ x'

A network is such a list, and so is its vector–Jacobian product (`Graph.pullback`): of a linear node
Mᵀ, of φ a product with φ'(x), which is a function of x again. The first node is the input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from analysis.proofs.functions import UNIT, Function, Row
from analysis.proofs.linear import Dense, LinearMap, Repeated, Rows, Scaled, transposed

Node: TypeAlias = int
"""A node by its place in the list."""


@dataclass(frozen=True, eq=False)
class Input:
    """z."""

    size: int


@dataclass(frozen=True, eq=False)
class Linear:
    """Σ_i M_i x_i + constant."""

    sources: tuple[Node, ...]
    maps: tuple[LinearMap, ...]
    size: int
    constant: Row | None = None
    constant_error: Row | None = None
    """The constant that is meant lies within this of the one given."""


@dataclass(frozen=True, eq=False)
class Applied:
    """φ(x)."""

    source: Node
    function: Function
    size: int


@dataclass(frozen=True, eq=False)
class Product:
    """x ⊙ x'."""

    left: Node
    right: Node
    size: int


AnyNode: TypeAlias = Input | Linear | Applied | Product


@dataclass(eq=False)
class Graph:
    """A list of nodes, to append to."""

    nodes: list[AnyNode] = field(default_factory=list)
    narrow: dict[Node, frozenset[Node]] = field(default_factory=dict)
    """Nodes of few numbers, at which bounds are made sharp, and nodes where the way back ends."""
    cuts: list[Node] = field(default_factory=list)
    """Those that hold a latent: what follows, up to the next, is made of them and of `narrow`."""

    def _add(self, node: AnyNode) -> Node:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def size(self, node: Node) -> int:
        """Of the row that a node holds."""
        return self.nodes[node].size

    def input(self, size: int) -> Node:
        """The first node."""
        return self._add(Input(size))

    def linear(
        self,
        *terms: tuple[LinearMap, Node],
        constant: torch.Tensor | None = None,
        error: torch.Tensor | None = None,
    ) -> Node:
        """Σ M x + constant."""
        maps, sources = zip(*terms, strict=True)
        sizes = {map.size[0] for map in maps}
        assert len(sizes) == 1
        assert all(map.size[1] == self.size(x) for map, x in terms)
        return self._add(
            Linear(sources, maps, sizes.pop(), _row(constant), _row(error))
        )  # fmt: skip

    def apply(self, function: Function, x: Node) -> Node:
        """φ(x)."""
        return self._add(Applied(x, function, self.size(x)))

    def product(self, x: Node, other: Node) -> Node:
        """x ⊙ x', one of which may be a single number."""
        n = max(self.size(x), self.size(other))
        left, right = self.repeated(x, n), self.repeated(other, n)
        return self._add(Product(left, right, n))

    def repeated(self, x: Node, n: int) -> Node:
        """x, each entry repeated so that there are n."""
        size = self.size(x)
        return x if size == n else self.linear((Repeated(size, n // size), x))

    def scaled(self, x: Node, factor: float, error: float = 0.0) -> Node:
        """factor · x."""
        weight = torch.full((self.size(x),), factor, dtype=torch.float64)
        return self.linear((Scaled(weight, error), x))

    def sum(self, *terms: tuple[float, Node], constant: torch.Tensor | None = None) -> Node:
        """Σ factor · x, of nodes of one size."""
        maps = [(Scaled(torch.full((self.size(x),), c, dtype=torch.float64)), x) for c, x in terms]
        return self.linear(*maps, constant=constant)

    def mean(self, x: Node, groups: int = 1) -> Node:
        """The mean of every group of neighbours."""
        n = self.size(x) // groups
        mean = self.scaled(self.linear((transposed(Repeated(groups, n)), x)), 1 / n, UNIT)
        self.sharpen(mean)
        return mean

    def sharpen(self, node: Node, *stops: Node) -> None:
        """Make bounds sharp at a node, from the stops on."""
        self.narrow[node] = frozenset(stops)

    def pullback(self, first: Node, last: Node, cotangent: Node) -> Node:
        """Jᵀ v, J the derivative of node `last` by node `first`, v the node `cotangent`."""
        found: dict[Node, list[tuple[LinearMap | None, Node]]] = {last: [(None, cotangent)]}
        for node in range(last, first, -1):
            if node not in found:
                continue
            b, at = self._total(found.pop(node)), self.nodes[node]
            if isinstance(at, Linear):
                for map, source in zip(at.maps, at.sources, strict=True):
                    found.setdefault(source, []).append((transposed(map), b))
            elif isinstance(at, Applied):
                slope = self.apply(at.function.derivative(), at.source)
                found.setdefault(at.source, []).append((None, self.product(slope, b)))
            elif isinstance(at, Product):
                found.setdefault(at.left, []).append((None, self.product(at.right, b)))
                found.setdefault(at.right, []).append((None, self.product(at.left, b)))
        return self._total(found[first])

    def _total(self, terms: list[tuple[LinearMap | None, Node]]) -> Node:
        if len(terms) == 1 and terms[0][0] is None:
            return terms[0][1]
        one = [
            (map or Scaled(torch.ones(self.size(x), dtype=torch.float64)), x) for map, x in terms
        ]
        return self.linear(*one)

    def value(self, z: Rows) -> list[Rows]:
        """What every node holds at z, (rows, k), in plain float64."""
        held: list[Rows] = []
        for node in self.nodes:
            held.append(z if isinstance(node, Input) else value_of(node, held))
        return held


def value_of(node: AnyNode, held: list[Rows]) -> Rows:
    """What a node holds, from those before it."""
    if isinstance(node, Linear):
        terms = [map(held[x]) for map, x in zip(node.maps, node.sources, strict=True)]
        out = terms[0]
        for term in terms[1:]:
            out = out + term
        return out if node.constant is None else out + node.constant
    if isinstance(node, Applied):
        return node.function.at(held[node.source], 0)[0]
    assert isinstance(node, Product)
    return held[node.left] * held[node.right]


def _row(x: torch.Tensor | None) -> Row | None:
    return None if x is None else x.reshape(1, -1)


def dense(weight: torch.Tensor) -> Dense:
    """A matrix as a map."""
    return Dense(weight.detach().double())
