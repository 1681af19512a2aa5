"""Bounds of a graph and of its derivative over a ball, with every rounding inside them.

The ball is {c + V u : ‖u‖ ≤ r}. For every node, in float64: the value ĉ at the centre, the
derivative Ĵ and the second derivative Q̂ along the columns of V, and, from a target back, cotangents
b̂. None of these needs to be right. With d = v(z) − ĉ and j(z) the true derivative along V,

    d = Ĵ u + ½ Q̂[u, u] + e,  |e| ≤ ε,      j(z) = Ĵ + Q̂ u + t,  ‖t‖ ≤ τ,      entry by entry.

ε and τ follow node by node. With l = ‖Ĵ‖ r and δ = l + ½ ‖Q̂‖ r² + ε, of a linear node |M| ε and
|M| τ, and of a function φ, whose Q̂ is φ' Q̂ + φ'' Ĵ Ĵᵀ,

    ε: |φ'| ε + ½ |φ''| (δ² − l²) + ⅙ max|φ'''| δ³,
    τ: |φ'| τ + |φ''| ((δ − l) ‖Ĵ‖ + δ (‖Q̂‖ r + τ)) + ½ max|φ'''| δ² (‖Ĵ‖ + ‖Q̂‖ r + τ),

of a product the like, and everywhere what rounding left of the equations for ĉ, Ĵ, Q̂. |M| loses all
cancellation between the entries of M, so that ε and τ would grow by a factor at every layer. At a
target (a node of few numbers through which much goes, and the last) they are made sharp by an
identity that holds for all matrices b̂ whatever, L̂ being the linear parts at the centre:

    b̂ e = Σ_n b̂_n (e_n − Σ L̂ e_source) + Σ_n (Σ b̂_user L̂ − b̂_n) e_n,

and with t in place of e. The first sum is local remainders, seen through the derivative of all that
follows, cancellation and all; the last is the rounding of the b̂.

A graph may name cuts, nodes through which almost all goes (a latent). Past a cut the derivative K̂
by what it holds is carried as well, e = K̂ e_cut + e', and only the fresh e' goes through |M|;
likewise t.

Sums and products of numbers of one sign are computed plainly and then raised (`raised`): each is of
fewer than 4·10⁶ terms, so that its relative error is below 10⁻⁹. Products of matrices are assumed
to sum each entry's products in some order, each operation rounded to nearest: γ_n |A| |B| with
γ_n = n u/(1 − n u) bounds the error (Higham 2002, section 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float

from analysis.proofs.functions import TINY, UNIT, Row
from analysis.proofs.graph import AnyNode, Applied, Graph, Input, Linear, Node, Product, value_of
from analysis.proofs.linear import Rows

Square = Float[torch.Tensor, "k k"]

CHUNK = 64
"""Rows of cotangents carried back together."""


def gamma(n: int) -> float:
    """γ_n, of sums of n products."""
    return n * UNIT / (1 - n * UNIT) * (1 + 1e-12)


def raised(bound: torch.Tensor) -> torch.Tensor:
    """An upper bound of what was computed from numbers of one sign."""
    return bound * (1 + 1e-9) + TINY


def lengths(x: Rows) -> Row:
    """‖x‖ of every column, from above."""
    return raised(x.norm(dim=0, keepdim=True))


@dataclass(eq=False)
class Centre:
    """What is known of one node at the centre."""

    value: Row
    """ĉ."""
    along: Float[torch.Tensor, "k n"]
    """Ĵ."""
    bent: Float[torch.Tensor, "pairs n"] | None
    """Q̂, its entries on and above the diagonal; None once all that follow have used it."""
    length: Row
    """‖Ĵ‖."""
    bend_length: Row
    """‖Q̂‖, as a Frobenius norm."""
    off: Float[torch.Tensor, "3 n"]
    """What rounding left of the equations for ĉ, Ĵ and Q̂; of a function, of ĉ, φ' and φ''."""
    slope: Float[torch.Tensor, "2 n"] | None = None
    """φ' and φ''."""
    cut: Node = -1
    """The last of the graph's cuts before this node; −1 without."""
    share: Float[torch.Tensor, "c n"] | None = None
    """K̂, the derivative by what the cut holds."""
    share_off: Row | None = None
    """What rounding left of its equation, summed over the cut's numbers."""
    error: float = 0.0
    """Of the weights of a linear node."""


@dataclass(eq=False)
class Target:
    """Cotangents from one node back to all before it, as bounds."""

    node: Node
    size: dict[Node, Float[torch.Tensor, "rows n"]]
    """|b̂|, of functions and products."""
    length: dict[Node, Row]
    """|b̂|, of all nodes: the largest of every column."""
    off: dict[Node, Row]
    """|Σ b̂_user L̂ − b̂|, the same."""
    cut: Node
    """Where the way back ended: at this cut, and at nodes before it; −1 without."""
    stops: frozenset[Node]
    """And where else."""


@dataclass(eq=False)
class Ranges:
    """Bounds over one ball; of each node two rows: of values, of derivatives."""

    r: float
    beyond: list[Float[torch.Tensor, "2 n"]] = field(default_factory=list)
    """ε and τ."""
    fresh: list[Float[torch.Tensor, "2 n"]] = field(default_factory=list)
    """Of |e − K̂ e_cut| and ‖t − K̂ t_cut‖."""
    local: list[Float[torch.Tensor, "2 n"]] = field(default_factory=list)
    """Of |e − Σ L̂ e_source| and ‖t − Σ L̂ t_source‖, and of the same without a cut's share."""


class Enclosure:
    """A graph around a centre, prepared for balls of every radius."""

    def __init__(self, graph: Graph, centre: Row, shape: Square, seeds: Rows) -> None:
        self.graph, self.shape = graph, shape
        k = len(shape)
        self.pairs = torch.triu_indices(k, k)
        self.weights = torch.where(self.pairs[0] == self.pairs[1], 1.0, 2.0).double()[:, None]
        self.at: list[Centre] = []
        last = len(graph.nodes) - 1
        needed, cut = _last_use(graph), -1
        for n, node in enumerate(graph.nodes):
            self.at.append(self._centre(node, centre))
            self._share(n, node, cut)
            cut = n if n in graph.cuts else cut
            for source in _sources(node):
                if needed[source] == n:
                    self.at[source].bent = None
        self.targets: dict[Node, list[Target]] = {}
        for t, cut, stops in sharpened(graph):
            seeds_of = torch.eye(graph.size(t), dtype=torch.float64)
            self.targets.setdefault(t, []).append(self.target(t, seeds_of, cut, stops))
        self.last = self.target(last, seeds)

    # At the centre -------------------------------------------------------------------------------

    def _centre(self, node: AnyNode, z: Row) -> Centre:
        if isinstance(node, Input):
            along = self.shape.T.contiguous()
            bent = torch.zeros(len(self.weights), node.size, dtype=torch.float64)
            zero = torch.zeros(3, node.size, dtype=torch.float64)
            return self._made(z, along, bent, zero)
        if isinstance(node, Linear):
            return self._linear_centre(node)
        if isinstance(node, Applied):
            return self._applied_centre(node)
        a, b = self.at[node.left], self.at[node.right]
        assert a.bent is not None
        assert b.bent is not None
        (p, q), twice = self.pairs, 4 * UNIT
        bent = a.value * b.bent + b.value * a.bent
        bent = bent + a.along[p] * b.along[q] + a.along[q] * b.along[p]
        big, other = a.value.abs(), b.value.abs()
        off = [
            twice * big * other,
            twice * (big * b.length + other * a.length),
            2 * twice * (big * b.bend_length + other * a.bend_length + 2 * a.length * b.length),
        ]
        along = a.value * b.along + b.value * a.along
        return self._made(a.value * b.value, along, bent, raised(torch.cat(off)))

    def _made(
        self, value: Row, along: Rows, bent: Rows, off: torch.Tensor,
        slope: torch.Tensor | None = None, error: float = 0.0,
    ) -> Centre:  # fmt: skip
        bend_length = lengths(bent * self.weights.sqrt())
        return Centre(value, along, bent, lengths(along), bend_length, off, slope, error=error)

    def _linear_centre(self, node: Linear) -> Centre:
        value = value_of(node, [at.value for at in self.at])
        both = torch.stack([
            map(torch.cat([self.at[x].along, _given(self.at[x].bent)]))
            for map, x in zip(node.maps, node.sources, strict=True)
        ]).sum(0)  # fmt: skip
        k = len(self.shape)
        sizes = [
            torch.cat([at.value.abs(), at.length, at.bend_length])
            for at in (self.at[x] for x in node.sources)
        ]
        size = raised(_absolute(node, sizes))
        if node.constant is not None:
            size[0] += node.constant[0].abs()
        error = max(map.error for map in node.maps)
        terms = sum(map.terms[0] for map in node.maps) + len(node.maps) + 2
        off = (gamma(terms) + error) * size
        if node.constant_error is not None:
            off[0] += node.constant_error[0]
        return self._made(value, both[:k], both[k:], raised(off), error=error)

    def _applied_centre(self, node: Applied) -> Centre:
        x = self.at[node.source]
        (value, off), (slope, slope_off), (bend, bend_off) = (
            node.function.at(x.value, order) for order in range(3)
        )
        p, q = self.pairs
        bent = slope * _given(x.bent) + bend * x.along[p] * x.along[q]
        # The rounding of these products is less than that of φ' and φ'' by much; it is added.
        slope_off = slope_off + 4 * UNIT * slope.abs()
        bend_off = bend_off + 8 * UNIT * bend.abs()
        off = raised(torch.cat([off, slope_off, bend_off]))
        return self._made(value, slope * x.along, bent, off, torch.cat([slope, bend]))

    def _share(self, n: Node, node: AnyNode, cut: Node) -> None:
        """K̂ of a node, from those of its sources."""
        at = self.at[n]
        at.cut = cut
        if cut < 0 or isinstance(node, Input):
            return
        shares = {x: self._held(x, cut) for x in _sources(node)}
        held = {x: K for x, K in shares.items() if K is not None}
        if not held:
            return
        rows = {x: K.abs().sum(0, keepdim=True) for x, K in held.items()}
        total = torch.stack([part for _, part in self._onward(n, held)]).sum(0)
        size = torch.stack([part for _, part in self._onward(n, rows, absolute=True)]).sum(0)
        terms = sum(map.terms[0] for map in node.maps) if isinstance(node, Linear) else 1
        at.share, at.share_off = total, raised((gamma(terms + 4) + at.error) * size)

    def _held(self, x: Node, cut: Node) -> Rows | None:
        if x == cut:
            return torch.eye(self.graph.size(x), dtype=torch.float64)
        return self.at[x].share if self.at[x].cut == cut else None

    def _onward(
        self, n: Node, held: dict[Node, Rows], absolute: bool = False
    ) -> list[tuple[Node, Rows]]:
        """L̂ x for the sources of a node that are held; with |L̂| for bounds."""
        node = self.graph.nodes[n]
        if isinstance(node, Linear):
            return [
                (x, (map.absolute() if absolute else map)(held[x]))
                for map, x in zip(node.maps, node.sources, strict=True)
                if x in held
            ]
        if isinstance(node, Applied):
            weights = [(node.source, _given(self.at[n].slope)[:1])]
        else:
            assert isinstance(node, Product)
            left, right = self.at[node.left].value, self.at[node.right].value
            weights = [(node.left, right), (node.right, left)]
        return [
            (x, (weight.abs() if absolute else weight) * held[x])
            for x, weight in weights
            if x in held
        ]

    # Back from a target --------------------------------------------------------------------------

    def target(
        self,
        node: Node,
        seeds: Float[torch.Tensor, "rows n"],
        cut: Node = -1,
        stops: frozenset[Node] = frozenset(),
    ) -> Target:
        """Cotangents of `seeds` times what `node` holds, back to the input, or to cut and stops."""
        parts = [self._pulled(node, part, cut, stops) for part in torch.split(seeds, CHUNK)]
        size, length = {}, {}
        for n in parts[0]:
            b = parts[0][n] if len(parts) == 1 else torch.cat([part[n] for part in parts])
            length[n] = b.abs().amax(0, keepdim=True)
            if isinstance(self.graph.nodes[n], Applied | Product) or n <= cut or n in stops:
                size[n] = b.abs()
        return Target(node, size, length, self._rounding(length, cut, stops), cut, stops)

    def _pulled(
        self, target: Node, seeds: Rows, cut: Node, stops: frozenset[Node]
    ) -> dict[Node, Rows]:
        found: dict[Node, Rows] = {target: seeds}
        for n in range(target, max(cut, 0), -1):
            if n in found and n not in stops:
                for source, share in self._shares(n, found[n]):
                    found[source] = found[source] + share if source in found else share
        return found

    def _shares(self, n: Node, b: Rows, absolute: bool = False) -> list[tuple[Node, Rows]]:
        """b̂ L̂ for every source of a node; with |L̂| for bounds."""
        node = self.graph.nodes[n]
        if isinstance(node, Linear):
            return [
                (x, (map.absolute() if absolute else map).transpose(b))
                for map, x in zip(node.maps, node.sources, strict=True)
            ]
        if isinstance(node, Applied):
            slope = _given(self.at[n].slope)[:1]
            return [(node.source, b * (slope.abs() if absolute else slope))]
        assert isinstance(node, Product)
        left, right = self.at[node.left].value, self.at[node.right].value
        if absolute:
            left, right = left.abs(), right.abs()
        return [(node.left, b * right), (node.right, b * left)]

    def _rounding(
        self, length: dict[Node, Row], cut: Node, stops: frozenset[Node]
    ) -> dict[Node, Row]:
        """Of |Σ b̂_user L̂ − b̂|: what rounding left in each of the b̂."""
        off = {n: torch.zeros_like(b) for n, b in length.items()}
        users = dict.fromkeys(length, 0)
        for n in length:
            for source in () if n <= cut or n in stops else _sources(self.graph.nodes[n]):
                users[source] += 1
        for n, b in length.items():
            node = self.graph.nodes[n]
            if isinstance(node, Input) or n <= cut or n in stops:
                continue
            terms = [map.terms[1] for map in node.maps] if isinstance(node, Linear) else [1, 1]
            for (source, share), count in zip(
                self._shares(n, b, absolute=True), terms, strict=False
            ):
                off[source] = off[source] + gamma(count + users[source] + 2) * share
        return {n: raised(bound) for n, bound in off.items()}

    # Over a ball ---------------------------------------------------------------------------------

    def ranges(self, r: float) -> Ranges:
        """ε and τ of every node over the ball of radius r."""
        over = Ranges(r)
        for n, node in enumerate(self.graph.nodes):
            at = self.at[n]
            held = {
                x: torch.cat([self._fresh(x, at.cut, over), over.beyond[x]]) for x in _sources(node)
            }
            both = torch.zeros(4, node.size, dtype=torch.float64)
            for _, part in self._onward(n, held, absolute=True) if held else ():
                both = both + part
            carried, total = both[:2], both[2:]
            local = torch.zeros_like(carried)
            if isinstance(node, Linear):
                local = at.error * carried + self._left(at, r)
            elif isinstance(node, Applied):
                local = self._applied(node, at, over)
            elif isinstance(node, Product):
                local = self._product(node, at, over)
            known = torch.zeros_like(carried)
            if at.share is not None:
                before = over.beyond[at.cut]
                local = local + _given(at.share_off) * before.amax(1, keepdim=True)
                known = raised(before @ at.share.abs())
            over.local.append(raised(local))
            fresh = raised(carried + over.local[n])
            over.fresh.append(fresh)
            over.beyond.append(torch.minimum(raised(known + fresh), raised(total + over.local[n])))
            if n in self.targets:
                self._sharpen(n, known, over)
        return over

    def _sharpen(self, n: Node, known: torch.Tensor, over: Ranges) -> None:
        """ε and τ of a target, through its cotangents."""
        for target in self.targets[n]:
            if target.cut >= 0:
                fresh = self.sharp(target, over, fresh=True)
                over.fresh[n] = torch.minimum(over.fresh[n], fresh)
                over.beyond[n] = torch.minimum(over.beyond[n], raised(known + over.fresh[n]))
            if target.cut < 0 or target.stops:
                over.beyond[n] = torch.minimum(over.beyond[n], self.sharp(target, over))

    def _fresh(self, x: Node, cut: Node, over: Ranges) -> torch.Tensor:
        """Of a source, what its cut does not explain; all where it has another cut."""
        if x == cut:
            return torch.zeros_like(over.beyond[x])
        return over.fresh[x] if cut >= 0 and self.at[x].cut == cut else over.beyond[x]

    def _left(self, at: Centre, r: float) -> Float[torch.Tensor, "2 n"]:
        """What rounding left, of values and of derivatives."""
        value, along, bent = at.off
        return torch.stack([value + r * along + 0.5 * r * r * bent, along + r * bent])

    def _reach(self, x: Node, over: Ranges) -> tuple[Row, Row, Row]:
        """l, δ − l, and ‖Q̂‖ r + τ of a node."""
        at, (beyond, turned), r = self.at[x], over.beyond[x][:, None], over.r
        return (
            at.length * r,
            raised(0.5 * at.bend_length * r * r + beyond),
            raised(at.bend_length * r + turned),
        )

    def _applied(self, node: Applied, at: Centre, over: Ranges) -> Float[torch.Tensor, "2 n"]:
        x = self.at[node.source]
        line, bow, turn = self._reach(node.source, over)
        reach = raised(line + bow)
        value_off, slope_off, bend_off = (row[None] for row in at.off)
        bend = _given(at.slope)[1:].abs()
        third = node.function.most(x.value, reach, 3)
        whole = x.length + turn
        value = value_off + slope_off * reach + 0.5 * bend_off * reach.square()
        value = value + 0.5 * bend * bow * (reach + line) + third * reach**3 / 6
        turned = (slope_off + bend_off * reach + 0.5 * third * reach.square()) * whole
        turned = turned + bend * (bow * x.length + reach * turn)
        return torch.cat([value, turned])

    def _product(self, node: Product, at: Centre, over: Ranges) -> Float[torch.Tensor, "2 n"]:
        value, turned = self._left(at, over.r)[:, None]
        a, b = self._reach(node.left, over), self._reach(node.right, over)
        value = value + a[1] * (b[0] + b[1]) + a[0] * b[1]
        for x, (line, bow, _), other in ((node.right, a, b), (node.left, b, a)):
            turned = turned + bow * self.at[x].length + (line + bow) * other[2]
        return torch.cat([value, turned])

    def sharp(
        self, target: Target, over: Ranges, fresh: bool = False
    ) -> Float[torch.Tensor, "2 rows"]:
        """Bounds of b̂ e and b̂ t at a target; `fresh`: of e − K̂ e_cut and t − K̂ t_cut."""
        found, common = torch.zeros(1), torch.zeros(2, 1, dtype=torch.float64)
        for n, length in target.length.items():
            if fresh and n == target.cut:
                continue
            rest = over.local[n]
            if n <= target.cut:
                rest = over.beyond[n]
            elif n in target.stops:
                rest = over.fresh[n] if fresh else over.beyond[n]
            if n in target.size:
                found = found + (target.size[n] @ rest.T).T
            else:
                common += (length * rest).sum(1, keepdim=True)
            if n != target.node:
                common += (target.off[n] * over.beyond[n]).sum(1, keepdim=True)
        return raised(found + common)


def sharpened(graph: Graph) -> list[tuple[Node, Node, frozenset[Node]]]:
    """The targets, and where their way back ends: at a cut and at stops, or (−1) at the input.

    Past a cut a target without stops has two ways: to the input, and to the cut, for what is fresh.
    """
    found, cut, none = [], -1, frozenset[Node]()
    for n in range(len(graph.nodes)):
        stops = graph.narrow.get(n, none)
        if stops:
            found.append((n, cut, stops))
        elif n in graph.cuts or n in graph.narrow:
            if n in graph.narrow and cut >= 0:
                found.append((n, cut, none))
            found.append((n, -1, none))
        cut = n if n in graph.cuts else cut
    return found


def _absolute(node: Linear, held: list[Rows]) -> Rows:
    """Σ |M| x, of numbers that are not negative."""
    terms = [map.absolute()(x) for map, x in zip(node.maps, held, strict=True)]
    return torch.stack(terms).sum(0)


def _given(x: torch.Tensor | None) -> torch.Tensor:
    assert x is not None
    return x


def _sources(node: AnyNode) -> tuple[Node, ...]:
    if isinstance(node, Linear):
        return node.sources
    if isinstance(node, Applied):
        return (node.source,)
    return (node.left, node.right) if isinstance(node, Product) else ()


def _last_use(graph: Graph) -> list[int]:
    last = list(range(len(graph.nodes)))
    for n, node in enumerate(graph.nodes):
        for source in _sources(node):
            last[source] = n
    return last
