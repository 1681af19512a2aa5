"""What every figure script shares: measure once, keep the numbers, draw.

A script says what it measures and how it is drawn, and `run` does the rest:

    def measure(options: argparse.Namespace) -> dict[str, Any]: ...   # plain numbers
    def draw(results: dict[str, Any]) -> Figure: ...                  # from nothing else

    def main(argv: list[str] | None = None) -> str:
        return run("convergence", __doc__, measure, draw, argv, inputs=lambda o: weights(o.prior))

It writes NAME.json (the numbers, all that is drawn), NAME.pdf and NAME.png into `--output`, each
whole or not at all; with `--quick` into its folder `quick`, so that a quick look never takes
the place of an hour's results.

*When it is measured again.* NAME.json also holds what the numbers came from, and they are measured
again when any of it has changed:

- the options of the script, and `--quick`. Options that are paths count by what lies there;
- the `inputs`: files by content (weights, data sets, the cells that the tables keep). They are
  digested after measuring, which may add cells to them;
- the code: the script without its functions named `draw…`, the scripts it imports, and all of
  `npgd` and `analysis` but for training (whose effect is in the weights) and the command line.
  Code counts as compiled without docstrings, so that a comment, a docstring or another layout
  changes nothing. That is more code than a figure runs, on purpose: what is too narrow gives stale
  pictures. Measurements that take long keep their parts in cells, as the tables do, and only gather
  them here; `--keep` draws what there is, whatever has changed.

A NAME.json that is damaged, or somebody else's, is renamed, and the numbers are measured again.

The picture is drawn again when the numbers, the drawing code or matplotlib have changed; else
nothing is done, and neither torch nor matplotlib is imported.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DRAWN", "MEASURED", "UP_TO_DATE", "dataset", "run", "run_table", "weights"]

ROOT = Path(__file__).parent.parent
MEASURED, DRAWN, UP_TO_DATE = "measured", "drawn", "up to date"
"""What a run has done."""

# Neither makes the numbers: training is seen through the weights, the others only show.
NOT_MEASURING = (
    "npgd/training/",
    "npgd/progress.py",
    "npgd/showing.py",
    "analysis/commands/",
    "analysis/drawing.py",
    "analysis/report/drawings.py",
    "analysis/report/figures.py",
    "analysis/report/findings.py",
    "analysis/report/markup.py",
    "analysis/report/page.py",
    "analysis/report/pictures.py",
    "analysis/report/symbols.py",
    "analysis/report/tables.py",
    "analysis/testing.py",
    "analysis/words.py",
)
DRAWING = ("style.py", "figure.py", "__init__.py")


def run(
    name: str,
    doc: str | None,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    draw: Callable[[dict[str, Any]], Figure],
    argv: list[str] | None = None,
    *,
    options: Callable[[argparse.ArgumentParser], Any] = lambda parser: None,
    inputs: Callable[[argparse.Namespace], Iterable[Path]] = lambda options: (),
) -> str:
    """Run a figure script: see the module's docstring.

    Args:
        name: of the files written.
        doc: the script's docstring; its first line describes `--help`.
        measure: from the parsed options to a dict that JSON can hold, without NaN or infinity.
            `options.output` and `options.quick` are always there.
        draw: from that dict, as read back from JSON, to a figure.
        argv: the command line; default: the process's.
        options: adds the script's own options to the parser.
        inputs: the files and folders that the numbers depend on.

    Returns:
        What was done: MEASURED (and drawn), DRAWN or UP_TO_DATE; one line is printed, too.

    Raises:
        ValueError: if the numbers are not plain.
    """
    parser = _parser((doc or "").partition("\n")[0])
    options(parser)
    asked = parser.parse_args(argv)
    script = Path(measure.__code__.co_filename)
    return _run(asked, name, script, measure, draw, inputs, (".png", ".pdf"))


def run_table(name: str, argv: list[str] | None = None) -> str:
    """Run a table script as it is, NAME.py, and keep what it prints as NAME.txt.

    It runs in the folder of `--output`, where its cells stay for the figures, and again when the
    code, any of the shipped weights or of the data sets has changed. Returns as `run` does.

    Raises:
        DataNotFoundError: if the script finds no data.
        RuntimeError: if it fails otherwise; with what it wrote to standard error.
    """
    asked = _parser("").parse_args(argv)
    script = Path(__file__).with_name(f"{name}.py")

    def measure(asked: argparse.Namespace) -> dict[str, Any]:
        asked.output.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        if "NPGD_DATA" in environment:  # seen from another folder
            environment["NPGD_DATA"] = str(Path(environment["NPGD_DATA"]).resolve())
        command = [sys.executable, str(script), *["--quick"] * asked.quick]
        done = subprocess.run(
            command, cwd=asked.output, env=environment, capture_output=True, encoding="utf-8"
        )  # fmt: skip
        if done.returncode:
            from npgd.data import DataNotFoundError

            *_, last = done.stderr.strip().splitlines() or ["no word on standard error"]
            found_none = last.startswith("npgd.data.DataNotFoundError: ")
            raise (
                DataNotFoundError(last.partition(": ")[2])
                if found_none
                else RuntimeError(f"exit status {done.returncode}\n{done.stderr}")
            )
        return {"text": done.stdout}

    def inputs(asked: argparse.Namespace) -> Iterable[Path]:
        folder = ROOT / "npgd" / "weights"
        return [folder, *map(dataset, ("mnist", "celeba64.zip", "church64.zip"))]

    return _run(asked, name, script, measure, lambda results: results["text"], inputs, (".txt",))


def _parser(description: str) -> argparse.ArgumentParser:
    """What all scripts take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder to write into")
    parser.add_argument("--quick", action="store_true", help="at reduced size, into quick/")
    parser.add_argument("--fresh", action="store_true", help="measure again in any case")
    parser.add_argument("--keep", action="store_true", help="draw what there is, whatever changed")
    return parser


def _run(
    asked: argparse.Namespace,
    name: str,
    script: Path,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    draw: Callable[[dict[str, Any]], Figure | str],
    inputs: Callable[[argparse.Namespace], Iterable[Path]],
    suffixes: tuple[str, ...],
) -> str:
    if asked.quick:
        asked.output = asked.output / "quick"
    if asked.output.exists() and not asked.output.is_dir():
        raise FileExistsError(f"--output must be a folder, got the file {asked.output}")
    path = asked.output / f"{name}.json"
    stored = _read(path, name)
    code = _digest_of_code(script)
    reason = _reason(stored, _key(asked, code, inputs(asked)), asked)
    began = time.perf_counter()
    if reason:
        print(f"{name}: measuring ({reason})", flush=True)
        results = measure(asked)
        stored = {"figure": name, "key": _key(asked, code, inputs(asked)), "results": results}
        asked.output.mkdir(parents=True, exist_ok=True)
        if not _read(path, name):
            set_aside(path)
        _write_json(path, sealed(stored))
    stored = _read(path, name)  # what is drawn is what can be drawn again
    pictures = [path.with_suffix(suffix) for suffix in suffixes]
    drawing = _digest_of_drawing(script, stored["results"])
    if not reason and stored.get("drawing") == drawing and all(p.exists() for p in pictures):
        print(f"{name}: up to date, {pictures[0]}")
        return UP_TO_DATE
    _draw(draw, stored["results"], pictures)
    _write_json(path, sealed(stored | {"drawing": drawing}))
    done = MEASURED if reason else DRAWN
    seconds = time.perf_counter() - began
    others = ", ".join([*suffixes[1:], ".json"])
    print(f"{name}: {done} in {seconds:.1f} s, written: {pictures[0]}, {others}")
    return done


def weights(prior: str) -> Path:
    """The file of a network's weights: a shipped name (mnist, mnist-denoiser, …), or a path."""
    return Path(prior) if "." in prior else ROOT / "npgd" / "weights" / f"{prior}.safetensors"


def dataset(name: str) -> Path:
    """The folder (mnist) or zip (celeba64.zip, …) of a data set, where npgd.data looks for it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "npgd"
    return Path(os.environ.get("NPGD_DATA") or cache) / name


# ------------------------------------------------------------------------------ what it came from


def _key(asked: argparse.Namespace, code: str, inputs: Iterable[Path]) -> dict[str, Any]:
    framework = ("output", "fresh", "keep")
    return {
        "options": {
            name: value
            for name, value in sorted(vars(asked).items())
            if name not in framework and not isinstance(value, Path)
        },
        "inputs": {path.name: _digest_of_files(path) for path in inputs},
        "code": code,
    }


def _reason(stored: dict[str, Any], key: dict[str, Any], asked: argparse.Namespace) -> str:
    """Why to measure, in words; empty where what is stored holds."""
    if not stored:
        return "no results yet"
    if asked.fresh:
        return "--fresh"
    if asked.keep:
        return ""
    if SEAL not in stored:
        return "results of an earlier version"
    before = stored["key"]
    changed = [
        f"--{part.replace('_', '-')}" if kind == "options" else part
        for kind in ("options", "inputs")
        for part in sorted({*before[kind], *key[kind]})
        if before[kind].get(part) != json.loads(json.dumps(key[kind].get(part)))
    ]
    if before["code"] != key["code"]:
        changed.append("code")
    return f"changed: {', '.join(changed)}" if changed else ""


def _digest_of_files(path: Path) -> str:
    """Of a file's content, or of a folder's files; "absent" where there is nothing."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        parts = [f"{p.relative_to(path).as_posix()} {_digest_of_files(p)}" for p in files]
        return _digest("\n".join(parts).encode())
    if not path.exists():
        return "absent"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _digest_of_code(script: Path) -> str:
    """Of the code that measures: the script's, that of the scripts it imports, the packages'."""
    packages = [
        path
        for package in ("npgd", "analysis")
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(NOT_MEASURING)
    ]
    scripts = sorted(_imported_scripts(script), key=lambda path: path.name)
    digests = [_digest_of_source(path.read_bytes()) for path in packages]
    digests += [_digest_of_source(path.read_bytes(), without="draw") for path in scripts]
    return _digest("".join(digests).encode())


def _imported_scripts(script: Path) -> set[Path]:
    """The script, and those of its folder that it imports, themselves or through others."""
    found, new = set(), {script}
    while new:
        path = new.pop()
        found.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for package, *names in ((above + alias.name).split(".") for alias in node.names):
                if package == "paper_figures":
                    there = {path.with_name(f"{name}.py") for name in names}
                    new |= {p for p in there if p.exists() and p.name not in DRAWING} - found
    return found


@functools.cache
def _digest_of_source(source: bytes, without: str = "") -> str:
    """Of a module's instructions, but those of its functions whose names begin with `without`."""
    code = compile(source, "", "exec", dont_inherit=True, optimize=2)
    return _digest(repr(_instructions(code, without)).encode())


def _instructions(code: CodeType, without: str = "") -> Any:
    """What a code object does, without line numbers."""

    def plain(constant: Any) -> Any:
        if isinstance(constant, CodeType):
            left_out = without and constant.co_name.startswith(without)
            return None if left_out else _instructions(constant)
        if isinstance(constant, frozenset):  # of no particular order
            return sorted(map(repr, constant))
        if isinstance(constant, tuple):
            return [plain(part) for part in constant]
        return repr(constant)

    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_name, code.co_code, names, [plain(part) for part in code.co_consts]


def _digest_of_drawing(script: Path, results: dict[str, Any]) -> str:
    sources = [path.read_bytes() for path in (script, Path(__file__).with_name("style.py"))]
    parts = [*sources, version("matplotlib").encode(), json.dumps(results).encode()]
    return _digest(b"\0".join(parts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# ------------------------------------------------------------------------------------------ files


def _read(path: Path, name: str) -> dict[str, Any]:
    """What an earlier run has left, or nothing if it is no file of this framework."""
    match stored := read_object(path):
        case {
            "figure": str(figure),
            "key": {"options": dict(), "inputs": dict(), "code": str()},
            "results": dict(),
        } if figure == name and intact(stored):
            return stored
    return {}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file, or something else in it."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers with their digest, by which `intact` tells whether anybody has changed them."""
    plain = json.loads(json.dumps({k: value for k, value in content.items() if k != SEAL}))
    return plain | {SEAL: _digest(json.dumps(plain, sort_keys=True).encode())}


def intact(content: object) -> bool:
    """Whether these are numbers as they were sealed; those of earlier versions have no seal."""
    if not isinstance(content, dict):
        return False
    return SEAL not in content or content[SEAL] == sealed(content)[SEAL]


SEAL = "digest"


def set_aside(path: Path) -> None:
    """Rename what stands at a path, which this framework has not written, and say so."""
    if not os.path.lexists(path):
        return
    free = (path.with_name(f"{path.name}.{i}") for i in itertools.count(1))
    kept = next(other for other in free if not os.path.lexists(other))
    path.rename(kept)
    print(f"{path} holds no results that can be read; it is kept as {kept.name}", flush=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from npgd.files import write_atomically

    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def _draw(
    draw: Callable[[dict[str, Any]], Figure | str], results: dict[str, Any], paths: list[Path]
) -> None:
    from npgd.files import write_atomically

    if paths[0].suffix == ".txt":
        for path in paths:
            write_atomically(path, str(draw(results)).encode())
        return
    import matplotlib

    with matplotlib.rc_context():  # the user's look comes back
        drawn = draw(results)
        assert not isinstance(drawn, str)
        for path in paths:
            buffer = io.BytesIO()
            undated = {"CreationDate": None} if path.suffix == ".pdf" else None
            drawn.savefig(buffer, format=path.suffix[1:], metadata=undated)
            write_atomically(path, buffer.getvalue())
