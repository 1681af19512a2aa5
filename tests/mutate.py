"""Put small faults into one module, one at a time, and see which of them its own tests catch.

    python tests/mutate.py analysis/rates/bound.py tests/analysis/rates --seed 0 --count 40

A fault that no test catches (a survivor) is a line that could be wrong without anybody noticing, or
a change without effect: read it and say which. The source stays as it is: the faults go into a copy
of the package, which the tests import. The same seed draws the same faults from the same source.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NEGATED = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip
OPPOSITE = {"min": "max", "amin": "amax", "minimum": "maximum", "argmin": "argmax",
            "clamp_min": "clamp_max"}  # fmt: skip
OPPOSITE |= {large: small for small, large in OPPOSITE.items()}

Fault = tuple[ast.AST, Callable[[], object]]
"""The node that changes, and what changes it."""


def faults(node: ast.AST) -> Iterator[Fault]:
    """Every small fault of `node` and of what lies under it; messages and types have none."""
    if isinstance(node, ast.Raise | ast.arg):
        return
    if isinstance(node, ast.Compare):
        constant = any(isinstance(v, ast.Constant) for v in [node.left, *node.comparators])
        for i, op in enumerate(node.ops):
            for table in (NEGATED, BOUNDARY) if constant else (NEGATED,):
                if (new := table.get(type(op))) is not None:
                    yield node, lambda i=i, new=new: node.ops.__setitem__(i, new())
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp) and type(node.op) in SWAPPED:
        yield node, lambda: setattr(node, "op", SWAPPED[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        v = node.value
        scale = 1000 if abs(v) < 0.01 else 1.1  # a tolerance, or a factor
        for new in (v + 1, v - 1, 0) if isinstance(v, int) else (scale * v, 0.0):
            if new != v:
                yield node, lambda new=new: setattr(node, "value", new)
    elif isinstance(node, ast.Call):
        name = "id" if isinstance(node.func, ast.Name) else "attr"
        if getattr(node.func, name, None) in OPPOSITE:
            yield node, lambda: setattr(node.func, name, OPPOSITE[getattr(node.func, name)])
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        for i, statement in enumerate(block if isinstance(block, list) else []):
            if _may_go(statement):
                yield statement, lambda block=block, i=i: block.__setitem__(i, ast.Pass())
    annotation = getattr(node, "annotation", None), getattr(node, "returns", None)
    for child in ast.iter_child_nodes(node):
        if child not in annotation:
            yield from faults(child)


def _may_go(statement: ast.AST) -> bool:
    """Whether the module still has its names without it: `x += 1`, `x = max(x, y)`, `check(x)`."""
    if isinstance(statement, ast.Assign):
        names = {ast.unparse(target) for target in statement.targets}
        return any(ast.unparse(n) in names for n in ast.walk(statement.value))
    call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    return call or isinstance(statement, ast.AugAssign)


def run_tests(tests: list[str], copy: Path, limit: float | None) -> str:
    """What the tests say of the copy: "passed", "failed" or "out of time"."""
    path = os.pathsep.join([str(copy), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    env["HYPOTHESIS_STORAGE_DIRECTORY"] = str(copy / ".hypothesis")
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    options += ["--hypothesis-seed=0", "--hypothesis-profile=faults"]
    # -P keeps the working directory, and with it the sound source, from coming first.
    command = [sys.executable, "-P", "-m", "pytest", *options, *tests]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=env, start_new_session=True, **quiet)
    try:
        return "failed" if process.wait(limit) else "passed"
    except subprocess.TimeoutExpired:
        return "out of time"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the processes it started as well
            process.wait()


def main() -> None:
    """Draw the faults, try each, and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="the file to put faults into, from the root of the source")
    parser.add_argument("tests", nargs="+", help="the tests that should catch them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40, help="how many faults; 0 for all")
    parser.add_argument("--limit", type=float, help="seconds a fault has; else 5 sound runs + 10")
    chosen = parser.parse_args()
    source = Path(chosen.module).read_text(encoding="utf-8")
    package = Path(chosen.module).parts[0]
    every = range(sum(1 for _ in faults(ast.parse(source))))
    count = min(chosen.count or len(every), len(every))
    drawn = sorted(random.Random(chosen.seed).sample(every, count))

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        began = time.perf_counter()
        if run_tests(chosen.tests, copy, None) != "passed":
            sys.exit("the tests must pass on the sound source; they do not")
        limit = chosen.limit or 5 * (time.perf_counter() - began) + 10
        (copy / chosen.module).write_text("raise ImportError('the copy is what is tested')\n")
        if run_tests(chosen.tests, copy, limit) == "passed":
            sys.exit(f"the tests must import {chosen.module}; they pass without it")
        ends = []
        for number in drawn:
            tree = ast.parse(source)
            node, put = list(faults(tree))[number]
            before = ast.unparse(node)
            put()
            after = ast.unparse(node)
            (copy / chosen.module).write_text(ast.unparse(tree), encoding="utf-8")
            ends.append(run_tests(chosen.tests, copy, limit))
            if ends[-1] == "passed":
                change = f"{before} → {after}" if before != after else f"{before} dropped"
                line = source.splitlines()[node.lineno - 1].strip()
                print(f"{chosen.module}:{node.lineno} survives: {change}\n    {line}", flush=True)
    slow, killed = ends.count("out of time"), count - ends.count("passed")
    print(
        f"{killed} of {count} faults killed ({killed / max(count, 1):.0%}; {len(every)} possible)"
    )
    if slow:
        print(f"{slow} of the killed ran past {limit:.0f} s, which counts as caught")


if __name__ == "__main__":
    main()
