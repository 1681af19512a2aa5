"""Print the comparison of NPGD with its rivals: errors, seconds, and time to NPGD's error.

    python paper_figures/table_methods.py [--errors] [--timings] [--quick] [--count 300]
        [--methods NPGD CSGM …] [--m 20 50 100 200 500] [--noise 0 0.1] [--images digits samples]
        [--threads N] [--device cuda] [--cache DIR] [--fresh] [--json FILE]

Errors: mean squared error per pixel on [-1, 1] with standard errors over the images; the first
`--count` MNIST test digits (NPGD_DATA), and as many samples of G, which lie in its range; one
Gaussian A for each m (seed 0), float32. Noise r means v ~ N(0, σ²) with σ = r · rms‖x‖/√m on each
measurement, so that ‖v‖ is about r‖A x‖ at every m: r = 0.1 is 20 dB. (The released code of CSGM
adds 0.1 to measurements by N(0, 1) entries of digits in [0, 1]; here that is r = 0.2/rms‖x‖, less
than one per cent, and hardly differs from none.)

Timings: digits without noise, on a machine with nothing else to do: seconds per image at batch 1
and at batch 64, and the time to error: from the clock of every iterate, how long a rival needs
until its mean error over the 64 digits is first at most NPGD's at its end, over the time NPGD takes
to its end. NPGD is timed anew beside each rival, within the same minute. A rival that never reaches
that error is printed as such, with the least error it did reach. NPGD's whole run counts; "both to
within 5 %" compares the clocks at which either is first
within 5 % of that error, the same rule for both.

Every method runs at its authors' settings (Lasso with noise: λ = σ √(8 log n)), NPGD at its
defaults; its own step and its stop are part of what is timed.

Each result is kept in the cache as a file of its own when it is done, so that an interrupted run
goes on; one of another prior, other settings or another number of images is measured anew. With
neither --errors nor --timings both run. On a GPU (--device cuda) errors are those of the CPU but
for rounding, so that the cells of either serve; seconds are kept apart. CSGM dominates: with 10
restarts and 1,000 iterations it takes 10,000 passes of G, forward and back, per image.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import npgd
from analysis.words import at_least
from npgd.data import mnist
from npgd.files import write_atomically
from npgd.solvers import Solution, Solver
from paper_figures.figure import intact, read_object, sealed, set_aside


@dataclasses.dataclass(frozen=True)
class Case:
    """What a method may know: the prior, and the noise, σ on each measurement."""

    prior: npgd.GenerativePrior
    sigma: float
    device: str = "cpu"

    def denoiser(self) -> torch.nn.Module:
        """The shipped denoiser of digits."""
        return npgd.load_denoiser("mnist", device=self.device)

    @property
    def sparsity_penalty(self) -> float | str:
        """Lasso's λ: its own choice without noise, the usual σ √(8 log n) with it."""
        if self.sigma == 0:
            return "auto"
        return self.sigma * math.sqrt(8 * math.log(math.prod(self.prior.image_shape)))


# A method is one line: its name, and how to build it.
METHODS: dict[str, Callable[[Case], Solver[Any]]] = {
    "NPGD": lambda case: npgd.NPGD(case.prior),
    "NPGD, finished": lambda case: npgd.NPGD(case.prior, finish=40, max_iter=50),
    "NPGD, refined": lambda case: npgd.NPGD(case.prior, refine=3),
    "AMP": lambda case: npgd.AMP(case.prior),
    "AMP, denoiser": lambda case: npgd.AMP(case.denoiser()),
    "CSGM": lambda case: npgd.CSGM(case.prior),
    "PGD-GAN": lambda case: npgd.PGDGAN(case.prior),
    "PnP-ADMM, network": lambda case: npgd.PnPADMM(case.denoiser()),
    "PnP-ADMM, wavelet": lambda case: npgd.PnPADMM(npgd.WaveletShrinkage()),
    "deviation": lambda case: npgd.Deviation(
        case.prior, denoiser=case.denoiser(), noise=case.sigma
    ),
    "OneNet": lambda case: npgd.OneNet(npgd.load_onenet("mnist", device=case.device)),
    "Lasso, DCT": lambda case: npgd.Lasso(transform="dct", penalty=case.sparsity_penalty),
    "Lasso, wavelet": lambda case: npgd.Lasso(transform="wavelet", penalty=case.sparsity_penalty),
}
# What NPGD was to beat in time to its own error, and by how much: the paper's 60 to 80.
LATENT_RIVALS = ("CSGM", "PGD-GAN")
SPEEDUP = 60
NEAR = 0.05  # NPGD has settled where its mean error is within this fraction of its last
MEASUREMENTS = (20, 50, 100, 200, 500)
NOISES = (0.0, 0.1)
IMAGES = ("digits", "samples")
# Images recovered together: bounds memory, and does not change a result.
BATCH = 50
TIMED_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What all measurements share."""

    prior: npgd.GenerativePrior
    count: int
    cache: Path
    fresh: bool = False
    quick: bool = False
    device: str = "cpu"

    def images(self, kind: str) -> torch.Tensor:
        """The images to recover."""
        if kind == "digits":
            return mnist("test", count=self.count).to(self.device)
        return self.prior.sample(self.count, seed=1)

    def operator(self, m: int) -> npgd.Gaussian:
        """The one A of this m."""
        return npgd.Gaussian(self.prior.image_shape, m=m, seed=0).to(self.device)

    def sigma(self, kind: str, m: int, noise: float) -> float:
        """Standard deviation of the noise on each measurement."""
        return noise * float(self.images(kind).square().flatten(1).sum(1).mean().sqrt() / m**0.5)

    def solver(self, method: str, kind: str, m: int, noise: float = 0.0) -> Solver[Any]:
        """The method at its settings; cut short if this is the quick look."""
        case = Case(self.prior, self.sigma(kind, m, noise), self.device)
        solver = METHODS[method](case)
        if not self.quick:
            return solver
        return shortened(solver, 5, **({"inner": 5} if hasattr(solver, "inner") else {}))

    def cached(
        self, name: str, key: dict[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What the cache holds under this name and key, or else what `compute` finds."""
        path = self.cache / f"{name}.json"
        key = json.loads(json.dumps(key))
        stored = read_object(path)
        if not self.fresh and stored.get("key") == key and intact(stored):
            return stored
        result = sealed({"key": key, **compute()})
        self.cache.mkdir(parents=True, exist_ok=True)
        if "key" not in stored:
            set_aside(path)
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
        return result


def shortened(solver: Solver[Any], max_iter: int, **changes: Any) -> Solver[Any]:
    """The solver with fewer iterations, one of each kind of step that it ends with."""
    ends = {name: 1 for name in ("finish", "refine") if getattr(solver, name, 0)}
    most = min(solver.max_iter, max_iter)
    return dataclasses.replace(solver, max_iter=most, **ends, **changes)


def fingerprint(network: torch.nn.Module) -> str:
    """Tells weights apart."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def settings(solver: Solver[Any]) -> dict[str, Any]:
    """Hyper-parameters as plain values; networks by their weights, other objects by their type."""
    result: dict[str, Any] = {"solver": type(solver).__name__}
    for field in dataclasses.fields(solver):
        value = getattr(solver, field.name)
        if isinstance(value, npgd.GenerativePrior) and isinstance(solver, npgd.CSGM | npgd.PGDGAN):
            value = f"generator {fingerprint(value.generator)}"  # they never ask the encoder
        elif isinstance(value, torch.nn.Module):
            value = f"{value.extra_repr()} {fingerprint(value)}"
        elif dataclasses.is_dataclass(value):
            value = repr(value)
        elif not isinstance(value, str | int | float | tuple | None):
            value = type(value).__name__
        result[field.name] = value
    return result


def slug(method: str) -> str:
    """A method's name as part of a file name."""
    return re.sub(r"\W+", "-", method.lower())


def error_cell(c: Comparison, method: str, kind: str, m: int, noise: float) -> dict[str, Any]:
    """Final error of every image."""
    solver = c.solver(method, kind, m, noise)

    def compute() -> dict[str, Any]:
        A, x = c.operator(m), c.images(kind)
        y = A(x)
        if noise:
            generator = torch.Generator().manual_seed(1)
            y = y + c.sigma(kind, m, noise) * torch.randn(y.shape, generator=generator).to(y)
        errors: list[float] = []
        seconds, diverged = 0.0, 0
        for part, truth in zip(y.split(BATCH), x.split(BATCH), strict=True):
            solution = npgd.recover(A, part, solver, x_true=truth)
            assert solution.error is not None
            errors += torch.nan_to_num(solution.error[-1], nan=torch.inf).tolist()
            seconds += solution.seconds
            diverged += solution.outcomes.count("diverged")
        spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
        return {
            "method": method,
            "images": kind,
            "m": m,
            "noise": noise,
            "mean": statistics.fmean(errors),
            "se": spread / len(errors) ** 0.5,
            "diverged": diverged,
            "seconds": seconds,
            "device": c.device,
            "errors": errors,
        }

    key = {
        "generator": fingerprint(c.prior.generator),  # whose samples are recovered
        "count": c.count,
        "kind": kind,
        "m": m,
        "noise": noise,
        **settings(solver),
    }
    return c.cached(f"error-{kind}-{slug(method)}-m{m}-noise{noise:g}", key, compute)


def run(
    A: npgd.LinearOperator, x: torch.Tensor, solver: Solver[Any], repeats: int
) -> tuple[Solution, float]:
    """One solution, and the median of the seconds of several; of fewer where one takes long."""
    y = A(x)
    npgd.recover(A, y, shortened(solver, 4), x_true=x)  # warm
    solution = npgd.recover(A, y, solver, x_true=x)
    times = [float(solution.elapsed[-1])]
    while len(times) < repeats and sum(times) < 3:
        times.append(float(npgd.recover(A, y, solver, x_true=x).elapsed[-1]))
    return solution, statistics.median(times)


def timing_cell(c: Comparison, method: str, m: int) -> dict[str, Any]:
    """Seconds of a method, its errors by the clock, and NPGD's beside them."""
    solver, reference = c.solver(method, "digits", m), c.solver("NPGD", "digits", m)
    count = min(c.count, TIMED_BATCH)

    def compute() -> dict[str, Any]:
        A, x = c.operator(m), c.images("digits")[:count]
        repeats = 1 if c.quick else 5
        ours, ours_seconds = run(A, x, reference, repeats)
        many, many_seconds = run(A, x, solver, repeats)
        _, one_seconds = run(A, x[:1], solver, repeats)
        assert ours.error is not None and many.error is not None
        goal = float(ours.error[-1].mean())
        if method == "NPGD":
            reached: float | None = many_seconds
            ours_seconds = many_seconds
        else:
            reached = many.time_to(goal)
        curve = torch.nan_to_num(many.error.mean(1), nan=torch.inf)
        near = (1 + NEAR) * goal
        ours_near, many_near = ours.time_to(near), many.time_to(near)
        assert ours_near is not None
        return {
            "method": method,
            "m": m,
            "batch": count,
            "per_image_batch_1": one_seconds,
            "per_image_batch": many_seconds / count,
            "npgd_error": goal,
            "npgd_seconds": ours_seconds,
            "time_to_npgd_error": reached,
            "ratio": None if reached is None else reached / ours_seconds,
            "ratio_near": None if many_near is None else many_near / ours_near,
            "least_error": float(curve.min()),
            "final_error": float(curve[-1]),
            "elapsed": [float(f"{t:.6g}") for t in many.elapsed.tolist()],
            "error": [float(f"{e:.6g}") for e in curve.tolist()],
        }

    key = {
        "count": count,
        "m": m,
        "threads": torch.get_num_threads(),
        "machine": machine(c.device),
        **settings(solver),
        "reference": settings(reference),
    }
    return c.cached(f"timing-{slug(method)}-m{m}", key, compute)


def machine(device: str) -> str:
    """Tells clocks apart: the machine, or its GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.node()


def lead(cells: list[dict[str, Any]]) -> str:
    """NPGD's error less that of its better rival in latent space, image by image."""
    by_method = {cell["method"]: cell for cell in cells}
    rivals = [by_method[method] for method in LATENT_RIVALS if method in by_method]
    if "NPGD" not in by_method or not rivals:
        return ""
    best = min(rivals, key=lambda cell: cell["mean"])
    differences = [a - b for a, b in zip(by_method["NPGD"]["errors"], best["errors"], strict=True)]
    spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
    return f"{statistics.fmean(differences):+.4f} ± {spread / len(differences) ** 0.5:.4f}"


def error_tables(cells: list[dict[str, Any]], count: int) -> list[Table]:
    """One table for each kind of images and noise; the least error of a column is bold."""
    tables = []
    for kind, noise in dict.fromkeys((cell["images"], cell["noise"]) for cell in cells):
        here = [cell for cell in cells if (cell["images"], cell["noise"]) == (kind, noise)]
        ms = list(dict.fromkeys(cell["m"] for cell in here))
        least = {m: min(cell["mean"] for cell in here if cell["m"] == m) for m in ms}
        name = "test digits" if kind == "digits" else "samples of G"
        title = f"error per pixel, {count} {name}, " + (f"noise {noise:g}" if noise else "no noise")
        table = Table("", title=title)
        for m in ms:
            table.add_column(f"m = {m}", justify="right")
        for method in dict.fromkeys(cell["method"] for cell in here):
            row = []
            for cell in (cell for cell in here if cell["method"] == method):
                text = f"{cell['mean']:.4f} ± {cell['se']:.4f}"
                if cell["diverged"]:
                    text += f" ({cell['diverged']} diverged)"
                row.append(f"[bold]{text}[/bold]" if cell["mean"] == least[cell["m"]] else text)
            table.add_row(method, *row)
        differences = [lead([cell for cell in here if cell["m"] == m]) for m in ms]
        if all(differences):
            table.add_section()
            table.add_row("NPGD − best of CSGM, PGD-GAN", *differences)
        tables.append(table)
    return tables


def timing_table(cells: list[dict[str, Any]], device: str) -> Table:
    """Seconds per image, and time to NPGD's error over NPGD's time."""
    batch = cells[0]["batch"]
    where = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    if torch.device(device).type == "cuda":
        where = machine(device)
    table = Table(title=f"seconds, first {batch} test digits, no noise, float32, {where}")
    for column in ("m", "", "per image, batch 1", f"per image, batch {batch}", "error at the end"):
        table.add_column(column, justify="left" if column == "" else "right")
    table.add_column("to NPGD's error", justify="right")
    table.add_column("over NPGD's time", justify="right")
    table.add_column(f"both to within {NEAR:.0%}", justify="right")
    table.add_column(f"≥ {SPEEDUP}")
    for cell in cells:
        if cell["time_to_npgd_error"] is None:
            when = f"never (least {cell['least_error']:.4f})"
            ratio, fast = f"> {at_least(cell['elapsed'][-1] / cell['npgd_seconds'])}", "never"
        else:
            when, ratio = f"{cell['time_to_npgd_error']:.3g}", f"{cell['ratio']:.3g}"
            fast = "yes" if cell["ratio"] >= SPEEDUP else "no"
        table.add_row(
            str(cell["m"]),
            cell["method"],
            f"{cell['per_image_batch_1']:.3g}",
            f"{cell['per_image_batch']:.3g}",
            f"{cell['final_error']:.4f}",
            when,
            ratio,
            "never" if cell["ratio_near"] is None else f"{cell['ratio_near']:.3g}",
            fast if cell["method"] in LATENT_RIVALS else "",
        )
    return table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--prior", default="mnist")
    result.add_argument("--errors", action="store_true", help="only the errors")
    result.add_argument("--timings", action="store_true", help="only the timings")
    result.add_argument("--count", type=int, default=300, help="images")
    result.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    result.add_argument("--m", nargs="+", type=int, default=list(MEASUREMENTS))
    result.add_argument("--noise", nargs="+", type=float, default=list(NOISES))
    result.add_argument("--images", nargs="+", choices=IMAGES, default=list(IMAGES))
    result.add_argument("--threads", type=int, help="of torch; default: torch's own choice")
    result.add_argument("--device", default="cpu", help="such as cuda")
    result.add_argument("--cache", type=Path, default=Path("methods_cache"))
    result.add_argument("--fresh", action="store_true", help="measure anew what the cache holds")
    result.add_argument("--quick", action="store_true", help="2 images, 5 iterations, no cache")
    result.add_argument("--json", type=Path)
    return result


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Every cell asked for, in order, with a line for each as it is done."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, on every device
    prior = npgd.load_prior(arguments.prior, device=arguments.device)
    both = arguments.errors == arguments.timings
    result: dict[str, Any] = {
        "prior": {"name": prior.name, "weights": fingerprint(prior)},
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": machine(arguments.device),
        "count": arguments.count,
        "errors": [],
        "timings": [],
    }
    c = Comparison(
        prior, arguments.count, arguments.cache, arguments.fresh, arguments.quick, arguments.device
    )
    if both or arguments.errors:
        for kind in arguments.images:
            for noise in arguments.noise:
                for m in arguments.m:
                    for method in arguments.methods:
                        cell = error_cell(c, method, kind, m, noise)
                        result["errors"].append(cell)
                        console.print(
                            f"{kind}, noise {noise:g}, m = {m}, {method}:"
                            f" {cell['mean']:.4f} ± {cell['se']:.4f}, {cell['seconds']:.1f} s"
                        )
    if both or arguments.timings:
        for m in arguments.m:
            for method in arguments.methods:
                cell = timing_cell(c, method, m)
                result["timings"].append(cell)
                console.print(
                    f"timing, m = {m}, {method}: {cell['per_image_batch']:.3g} s per image"
                )
    return result


def quick(arguments: argparse.Namespace) -> None:
    """Cut the run down to a look at whether everything works."""
    arguments.count, arguments.m, arguments.noise, arguments.images = 2, [50], [0.1], ["digits"]
    arguments.quick = True


def main() -> None:
    """Measure and print."""
    arguments, console = parser().parse_args(), Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            quick(arguments)
            arguments.cache = Path(folder)
        result = measure(arguments, console)
    for table in error_tables(result["errors"], result["count"]):
        console.print(table)
    if result["timings"]:
        console.print(timing_table(result["timings"], arguments.device))
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
