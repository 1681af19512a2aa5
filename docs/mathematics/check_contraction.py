"""Checks what `analysis.proofs.save_certificate` wrote: python check_contraction.py FILE

The file holds a map T as a list of nodes (linear, a function of every entry, a product), a centre,
a matrix V, and the claims r, q and a move. This program imports numpy alone and shares no code with
the one that wrote the file. It bounds the values and the derivative of every node on the ball
{centre + V u : ‖u‖ ≤ r} and accepts where ‖V⁻¹ DT V‖ ≤ q < 1 and ‖V⁻¹ (T(centre) − centre)‖ is at
most the move and (1 − q) r. Notation, formulas and what is assumed: docs/mathematics/proofs.md.
"""

import json
import sys

import numpy as np

U = 2.0**-53


def gamma(n):
    return (n + 8) * U / (1 - (n + 8) * U)


def up(x):  # sums and products of fewer than 4e6 numbers of one sign
    return x * (1 + 1e-9) + 1e-140


class Linear:
    """M of a node, from its entry in the file; |M| where `size`."""

    def __init__(self, entry, arrays, size=False):
        self.__dict__.update(entry)
        self.flipped = entry.get("transposed", False)
        if "weight" in entry:
            self.W = np.abs(arrays[self.weight]) if size else arrays[self.weight]
        if self.type == "convolution":
            self.side, (C, h, w) = self.W.shape[-1], self.shape
            s, p = self.stride, self.padding
            self.out = [(n + 2 * p - self.side) // s + 1 for n in (h, w)]
            self.padded = (C, h + 2 * p, w + 2 * p)

    def terms(self, back=False):
        out = back == self.flipped
        if self.type == "dense":
            return self.W.shape[out]
        if self.type == "convolution":
            return self.W.shape[out] * self.side**2
        return self.times if self.type == "repeated" and not out else 1

    def __call__(self, x, back=False):
        forth = back == self.flipped
        if self.type == "dense":
            return x @ (self.W.T if forth else self.W)
        if self.type == "scaled":
            return x * self.W
        if self.type == "repeated":
            if forth:
                return np.repeat(x, self.times, axis=1)
            return x.reshape(len(x), self.count, self.times).sum(2)
        (h, w), s, p = self.out, self.stride, self.padding
        flat = self.W.reshape(len(self.W), -1)
        windows = [(slice(None), slice(None), slice(i, i + s * h, s), slice(j, j + s * w, s))
                   for i in range(self.side) for j in range(self.side)]  # fmt: skip
        image = np.zeros((len(x), *self.padded))
        inner = image[:, :, p : self.padded[1] - p, p : self.padded[2] - p]
        if forth:
            inner[:] = x.reshape(inner.shape)
            patches = np.stack([image[at] for at in windows], 2)
            return (flat @ patches.reshape(len(x), -1, h * w)).reshape(len(x), -1)
        patches = (flat.T @ x.reshape(len(x), len(flat), -1)).reshape(
            len(x), self.padded[0], len(windows), h, w
        )
        for i, at in enumerate(windows):
            image[at] += patches[:, :, i]
        return inner.reshape(len(x), -1)


def logistic(k, t):  # S_0 = log(1 + exp t), S_1 = S_0', S_2 = S_1', …
    e = np.exp(-np.abs(t))
    p, odd = e / (1 + e) ** 2, np.sign(-t) * (1 - e) / (1 + e)
    sigma = np.where(t >= 0, 1, e) / (1 + e)
    return [np.maximum(t, 0) + np.log1p(e), sigma, p, p * odd, p * (1 - 6 * p)][k]


def function(f, x, order):
    """φ, φ' or φ'' at x, and a bound of the error."""
    c = f["c"]
    if f["family"] == "power":
        power, t = f["p"], x + f["b"]
        for i in range(order):
            c, power = c * (power if f["p"] or i else 1), power - 1
        value = c * np.log(t) if f["p"] == 0 == order else c * t**power
        return value, (80 * U + f["error"] * 2) * (np.abs(value) + abs(c) * (power == 0))
    s, k, a = f["s"], f["k"] + order, [f["a"] * x + f["b"], f["a"], 0][min(order, 2)]
    t = s * x
    value, limit = logistic(k, t), f["limit"]
    if limit is not None:  # a library's softplus is its argument from there on
        value = np.where(t > limit, [t, 1.0, 0.0][min(k, 2)] + 0 * t, value)
    scale = abs(c) * s**order
    off = (80 * U + 3 * f["error"]) * (scale * (1 + np.abs(t)) + np.abs(a) + abs(f["b"]))
    return c * s**order * value + a, off + 4 * U * np.abs(value * scale)


def third(f, x, d):
    """A bound of |φ'''| on [x − d, x + d]."""
    if f["family"] == "power":
        c, low, power = f["c"], (x + f["b"]) - (d + 1e-12 * (np.abs(x) + abs(f["b"]))), f["p"]
        for i in range(3):
            c, power = c * (power if f["p"] or i else 1), power - 1
        safe = np.where(low > 0, low, 1)
        return np.where(low > 0, up(abs(c) * safe**power), np.inf)
    s, k, t, d = f["s"], f["k"] + 3, np.abs(f["s"] * x), f["s"] * d
    rounding = 1e-12 * (t + d)
    e, far = np.exp(-np.maximum(t - d - rounding, 0)), np.exp(-(t + d + rounding))
    p, odd = e / (1 + e) ** 2, (1 - far) / (1 + far) + 1e-15
    size = up(abs(f["c"]) * s**3 * [0, 0, p, p * odd, p, 2 * p * odd][k])
    if f["limit"] is None:
        return size
    t = f["s"] * x
    inside = t + d + rounding < f["limit"]
    return np.where(inside, size, np.where(t - d - rounding > f["limit"], 0.0, np.inf))


class Checker:
    def __init__(self, path):
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        listing = json.loads(str(arrays["listing"]))
        self.nodes, self.cuts = listing["nodes"], listing["cuts"]
        self.claims = {name: float(arrays[name]) for name in ("radius", "factor", "move")}
        self.centre, self.V = arrays["centre"].reshape(1, -1), arrays["shape"]
        self.k, self.inverse = len(self.V), np.linalg.inv(self.V)
        self.pairs = np.triu_indices(self.k)
        self.twice = np.where(self.pairs[0] == self.pairs[1], 1, 2)[:, None]
        for node in self.nodes:
            node["sources"] = [t["source"] for t in node.get("terms", [])] or [
                node[name] for name in ("source", "left", "right") if name in node
            ]
            for name in ("constant", "constant_error"):
                if node.get(name) is not None:
                    node[name] = arrays[node[name]].reshape(1, -1)
            for term in node.get("terms", []):
                term["M"], term["size"] = (Linear(term["map"], arrays, s) for s in (False, True))
        self.measure()
        self.back = {}
        for t, cut, stops in listing["sharp"]:
            back = self.pulled(t, np.eye(self.nodes[t]["size"]), cut, set(stops))
            self.back.setdefault(t, []).append(back)
        self.last = self.pulled(len(self.nodes) - 1, self.inverse, -1, set())

    def forth(self, n, held, size=False):
        """L x summed over the sources that are held; |L| x where `size`."""
        node, out = self.nodes[n], 0.0
        for i, source in enumerate(node["sources"]):
            if source in held:
                out = out + (
                    node["terms"][i]["size" if size else "M"](held[source])
                    if node["kind"] == "linear"
                    else self.weight(n, i, size) * held[source]
                )
        return out

    def weight(self, n, i, size=False):
        node = self.nodes[n]
        other = node["sources"][1 - i] if node["kind"] == "product" else None
        weight = self.slope[n][0] if other is None else self.value[other]
        return np.abs(weight) if size else weight

    def error(self, n, back=False):
        """Of one entry of L x: of the sum, and of the weights."""
        terms = self.nodes[n].get("terms", [])
        count = sum(t["M"].terms(back) + 1 for t in terms)
        return gamma(count), max((t["map"].get("error", 0.0) for t in terms), default=0.0)

    def measure(self):
        """ĉ, Ĵ, Q̂ and K̂ of every node, their sizes, and what rounding left of their equations."""
        self.value, self.J, self.j, self.q, self.off, self.slope = [], [], [], [], [], {}
        self.K, self.K_off, self.cut, Q, cut = [], [], [], {}, -1
        for n, node in enumerate(self.nodes):
            held, (a, b) = node["sources"], self.pairs
            if node["kind"] == "input":
                v, J, bent = self.centre, self.V.T, np.zeros((len(a), self.k))
                off = np.zeros((3, self.k))
            elif node["kind"] == "linear":
                v, J, bent = (self.forth(n, {x: rows[x] for x in held})
                              for rows in (self.value, self.J, Q))  # fmt: skip
                sizes = {x: np.concatenate([np.abs(self.value[x]), self.j[x], self.q[x]])
                         for x in held}  # fmt: skip
                off = self.forth(n, sizes, True)
                if node["constant"] is not None:
                    v, off[:1] = v + node["constant"], off[:1] + np.abs(node["constant"])
                off = sum(self.error(n)) * off
                if node["constant_error"] is not None:
                    off[:1] += node["constant_error"]
            elif node["kind"] == "apply":
                x, f = held[0], node["function"]
                (v, e0), (s, e1), (c, e2) = (function(f, self.value[x], i) for i in range(3))
                self.slope[n] = (s, c)
                J, bent = s * self.J[x], s * Q[x] + c * self.J[x][a] * self.J[x][b]
                off = np.concatenate([e0, e1 + 8 * U * np.abs(s), e2 + 16 * U * np.abs(c)])
            else:
                x, y = held
                vx, vy, Jx, Jy = self.value[x], self.value[y], self.J[x], self.J[y]
                v, J = vx * vy, vx * Jy + vy * Jx
                bent = vx * Q[y] + vy * Q[x] + Jx[a] * Jy[b] + Jx[b] * Jy[a]
                X, Y = np.abs(vx), np.abs(vy)
                off = 16 * U * np.concatenate([
                    X * Y, X * self.j[y] + Y * self.j[x],
                    X * self.q[y] + Y * self.q[x] + 2 * self.j[x] * self.j[y],
                ])  # fmt: skip
            Q[n] = bent
            self.value.append(v), self.J.append(J), self.off.append(up(off))
            self.j.append(up(np.sqrt((J**2).sum(0, keepdims=True))))
            self.q.append(up(np.sqrt((self.twice * bent**2).sum(0, keepdims=True))))
            K = {x: np.eye(self.nodes[x]["size"]) if x == cut else self.K[x]
                 for x in held if cut >= 0 and (x == cut or self.cut[x] == cut)}  # fmt: skip
            K = {x: share for x, share in K.items() if share is not None}
            self.cut.append(cut)
            self.K.append(self.forth(n, K) if K else None)
            rows = {x: np.abs(share).sum(0, keepdims=True) for x, share in K.items()}
            self.K_off.append(up(sum(self.error(n)) * self.forth(n, rows, True)) if K else None)
            cut = n if n in self.cuts else cut
            for x in [x for x in Q if x != n and self.last_use(x) <= n]:
                del Q[x]
        self.bent = Q[len(self.nodes) - 1]

    def last_use(self, x):
        if not hasattr(self, "uses"):
            self.uses = {s: n for n, node in enumerate(self.nodes) for s in node["sources"]}
        return self.uses.get(x, len(self.nodes))

    def pulled(self, target, seeds, cut, stops):
        """|b̂| of the nodes before a target, and |Σ b̂ L̂ − b̂|."""
        kept, off = {}, {}
        for part in np.array_split(seeds, max(1, len(seeds) // 64)):
            b = {target: part}
            for n in range(target, -1, -1):
                if n in b and n > max(cut, 0) and n not in stops:
                    for i, source in enumerate(self.nodes[n]["sources"]):
                        share = (self.nodes[n]["terms"][i]["M"](b[n], True)
                                 if self.nodes[n]["kind"] == "linear"
                                 else b[n] * self.weight(n, i))  # fmt: skip
                        b[source] = b[source] + share if source in b else share
            for n, rows in b.items():
                kept.setdefault(n, []).append(np.abs(rows))
        kept = {n: np.concatenate(rows) for n, rows in kept.items()}
        most = {n: rows.max(0, keepdims=True) for n, rows in kept.items()}
        for n in kept:
            if n > max(cut, 0) and n not in stops:
                for i, source in enumerate(self.nodes[n]["sources"]):
                    share = (self.nodes[n]["terms"][i]["size"](most[n], True)
                             if self.nodes[n]["kind"] == "linear"
                             else most[n] * self.weight(n, i, True))  # fmt: skip
                    error = self.error(n, True)[0] + 2 * U * len(self.nodes)  # as many users
                    off[source] = off.get(source, 0.0) + up(error * share)
        return kept, off, target, cut, stops

    def bounds(self, r):
        """ε and τ of every node over the ball of radius r, two rows each."""
        self.r, self.all, self.new, self.local = r, [], [], []
        for n, node in enumerate(self.nodes):
            cut, size = self.cut[n], node["size"]
            new = {x: np.zeros_like(self.all[x]) if x == cut else
                   self.new[x] if cut >= 0 and self.cut[x] == cut else self.all[x]
                   for x in node["sources"]}  # fmt: skip
            held = {x: np.concatenate([rows, self.all[x]]) for x, rows in new.items()}
            both = self.forth(n, held, True) if held else np.zeros((4, size))
            carried, total = both[:2], both[2:]
            local, known = np.zeros((2, size)), np.zeros((2, size))
            if node["kind"] == "apply":
                local = self.applied(n, node)
            elif node["sources"]:
                v, J, Q = self.off[n]
                local = np.stack([v + r * J + 0.5 * r * r * Q, J + r * Q])
                local = local + self.error(n)[1] * carried
            if node["kind"] == "product":
                (x, y) = node["sources"]
                (lx, bx, tx), (ly, by, ty) = self.reach(x), self.reach(y)
                local[:1] += bx * (ly + by) + lx * by
                local[1:] += bx * self.j[y] + (lx + bx) * ty + by * self.j[x] + (ly + by) * tx
            if self.K[n] is not None:
                known = up(self.all[cut] @ np.abs(self.K[n]))
                local = local + self.K_off[n] * self.all[cut].max(1, keepdims=True)
            self.local.append(up(local))
            self.new.append(up(carried + self.local[n]))
            self.all.append(np.minimum(up(known + self.new[n]), up(total + self.local[n])))
            for back in self.back.get(n, []):
                if back[3] >= 0:
                    self.new[n] = np.minimum(self.new[n], self.sharp(back, fresh=True))
                    self.all[n] = np.minimum(self.all[n], up(known + self.new[n]))
                if back[3] < 0 or back[4]:
                    self.all[n] = np.minimum(self.all[n], self.sharp(back))

    def reach(self, x):
        """l, δ − l and ‖Q̂‖ r + τ."""
        r, q, (e, t) = self.r, self.q[x], self.all[x][:, None]
        return self.j[x] * r, up(0.5 * q * r * r + e), up(q * r + t)

    def applied(self, n, node):
        x = node["sources"][0]
        line, bow, t = self.reach(x)
        (e0, e1, e2), c, d = self.off[n][:, None], np.abs(self.slope[n][1]), up(line + bow)
        most = third(node["function"], self.value[x], d)
        value = e0 + e1 * d + 0.5 * e2 * d**2 + 0.5 * c * bow * (d + line) + most * d**3 / 6
        turned = (e1 + e2 * d + 0.5 * most * d**2) * (self.j[x] + t)
        return np.concatenate([value, turned + c * (bow * self.j[x] + d * t)])

    def sharp(self, back, fresh=False):
        """Bounds of b̂ e and b̂ t; `fresh`: of what the cut does not explain."""
        kept, off, target, cut, stops = back
        total = 0.0
        for n, rows in kept.items():
            if fresh and n == cut:
                continue
            rest = self.all if n <= cut else self.local
            if n in stops and n > cut:
                rest = self.new if fresh else self.all
            total = total + rest[n] @ rows.T
            if n in off and n != target:
                total = total + (off[n] * self.all[n]).sum(1, keepdims=True)
        return up(total)

    def check(self):
        """The sentence that holds, or what fails."""
        V, k, r, q, move = self.V, self.k, *self.claims.values()
        if not (np.isfinite(V).all() and r > 0 and 0 < q < 1 and 0 <= move <= (1 - q) * r):
            return False, "the claims do not make a contraction"
        F = np.linalg.norm(self.inverse @ V - np.eye(k))
        exact = 1 - up(F + gamma(k) * (np.linalg.norm(self.inverse) * np.linalg.norm(V) + k))
        size, last = np.linalg.norm(self.inverse), len(self.nodes) - 1
        self.bounds(0.0)
        missed = np.abs(self.inverse @ (self.value[last] - self.centre).T).T
        missed += gamma(k) * (np.abs(self.value[last]) + np.abs(self.centre)).sum() * size
        found = up(np.linalg.norm(up(missed + self.sharp(self.last)[0]))) / exact
        if not found <= move:
            return False, f"the move is up to {found:.3g}, not {move:.3g}"
        self.bounds(r)
        H = np.zeros((k, k, k))
        H[:, self.pairs[0], self.pairs[1]] = self.inverse @ self.bent.T
        H[:, self.pairs[1], self.pairs[0]] = H[:, self.pairs[0], self.pairs[1]]
        parts = norm(H.reshape(k, -1)), norm(H.transpose(1, 0, 2).reshape(k, -1))
        rounding = gamma(k) * size * np.linalg.norm(self.J[last])
        rounding += gamma(k) * size * np.linalg.norm(self.q[last]) * r
        turned = np.linalg.norm(self.sharp(self.last)[1])
        found = norm(self.inverse @ self.J[last].T) + min(parts) * r + up(turned + rounding)
        found = up(found) / exact
        if not found <= q:
            return False, f"the factor is up to {found:.6g}, not {q:.6g}"
        return True, f"T contracts by {q:.6g} on the ball of radius {r:.6g} and maps it into itself"


def norm(M):
    """An upper bound of the spectral norm: M Mᵀ = Q Λ Qᵀ + R."""
    G = M @ M.T
    if not np.isfinite(G).all():
        return np.inf
    values, Q = np.linalg.eigh(G)
    R = np.linalg.norm(G - (Q * values) @ Q.T) + gamma(M.shape[1]) * np.linalg.norm(M) ** 2
    off = np.linalg.norm(Q @ Q.T - np.eye(len(Q))) + gamma(len(Q)) * 3 * len(Q)
    top = np.abs(values).max()
    return np.sqrt(up(top * (1 + off) + R + gamma(len(Q)) * (top * 2 * len(Q)))) * (1 + 1e-12)


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        holds, why = Checker(sys.argv[1]).check()
    print("holds: " + why if holds else "does not hold: " + why)
    sys.exit(not holds)
