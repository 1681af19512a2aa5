"""Checks what `npgd worst-case --certificate proof.json` wrote: python check_certificate.py FILE

M is the Gram matrix of e_0 … e_N, A e_0 … A e_N and v. With Σ multiplier · (left − right side) =
F_N − total − ⟨slack, M⟩, no negative multiplier and slack ⪰ 0, every M that satisfies the
constraints has F_N ≤ total.
"""

import argparse
import json
import re
import sys
from fractions import Fraction


def holds(proof: dict) -> bool:
    N, exact = proof["n_iter"], ("alpha", "beta", "step_size", "delta", "noise", "bound")
    alpha, beta, eta, delta, noise, bound = (Fraction(proof[name]) for name in exact)
    theta = Fraction(proof.get("theta", "0"))
    size, total = 2 * N + 3, Fraction(0)
    slack = [[Fraction(0)] * size for _ in range(size)]

    def vector(at: int | None) -> list[Fraction]:
        return [Fraction(i == at) for i in range(size)]

    e = {"x*": vector(None)} | {f"x_{n}": vector(n) for n in range(N + 1)}
    Ae = {"x*": vector(None)} | {f"x_{n}": vector(N + 1 + n) for n in range(N + 1)}
    v = vector(size - 1 if noise else None)

    def add(weight: Fraction, p: list[Fraction], q: list[Fraction]) -> None:
        for i in range(size):
            for j in range(size):
                slack[i][j] += weight * (p[i] * q[j] + q[i] * p[j]) / 2

    def minus(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
        return [a - b for a, b in zip(p, q, strict=True)]

    for name, written in proof["multipliers"].items():
        weight, (kind, *points) = Fraction(written), re.findall(r"[\w*]+", name)
        if kind == "F_0":  # ‖A e_0 − v‖² = 1: of either sign
            add(weight, minus(Ae["x_0"], v), minus(Ae["x_0"], v))
            total += weight
            continue
        if weight < 0:
            return False
        if kind == "noise":  # ‖v‖² ≤ noise
            add(weight, v, v)
            total += weight * noise
            continue
        p, q = points
        d, Ad = minus(e[p], e[q]), minus(Ae[p], Ae[q])
        if kind == "alpha":  # α‖p − q‖² ≤ ‖A(p − q)‖²
            add(weight * alpha, d, d)
            add(-weight, Ad, Ad)
        elif kind == "beta":  # ‖A(p − q)‖² ≤ β‖p − q‖²
            add(-weight * beta, d, d)
            add(weight, Ad, Ad)
        else:  # ‖p − w_n‖² + θ‖p − q‖² ≤ ‖q − w_n‖² + δ, p = x_{n+1}
            x = f"x_{int(p[2:]) - 1}"
            add(weight, minus(e[p], e[x]), minus(e[p], e[x]))
            add(-weight, minus(e[q], e[x]), minus(e[q], e[x]))
            add(2 * weight * eta, Ad, minus(Ae[x], v))
            add(weight * theta, d, d)
            total += weight * delta
    last = e[f"x_{N}"] if proof["measure"] == "distance" else minus(Ae[f"x_{N}"], v)
    add(Fraction(-1), last, last)
    return total <= bound and positive_semidefinite(slack)


def positive_semidefinite(rows: list[list[Fraction]]) -> bool:
    """Elimination: no pivot is negative, and where one is zero, so is the rest of its row."""
    for k, pivot in enumerate(rows):
        if pivot[k] < 0 or (pivot[k] == 0 and any(pivot[k:])):
            return False
        for row in rows[k + 1 :] if pivot[k] else []:
            factor = row[k] / pivot[k]
            row[k:] = [a - factor * b for a, b in zip(row[k:], pivot[k:], strict=True)]
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Check a certificate of the worst case.")
    parser.add_argument("file", help="what npgd worst-case --certificate wrote")
    with open(parser.parse_args().file, encoding="utf-8") as file:
        certificate = json.load(file)
    proved = holds(certificate)
    at_most = float(Fraction(certificate["bound"]))  # a float: exported as one, exactly
    print(f"proved: at most {at_most!r}" if proved else "not proved")
    sys.exit(not proved)


if __name__ == "__main__":
    main()
