"""Recoveries over a grid (m, noise, seeds, step sizes, methods), beside what is predicted.

Each cell of the grid is a recovery of the same images by one method from y = A x* + v, A Gaussian
with m rows drawn from the cell's seed. State evolution says what error to expect of each m and
noise (`analysis.state_evolution`), from one measured curve.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import npgd
from analysis.evolution import denoising_curve, state_evolution
from analysis.methods import NAMES, solver_of
from analysis.tasks import check_executor, one_by_one, one_thread
from analysis.words import about
from npgd import checks
from npgd.files import a_path, as_json, plain, shown, write_atomically
from npgd.images import Images, psnr
from npgd.showing import Drawn, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "method", "m", "noise", "seed", "step_size", "error", "error_se", "psnr", "objective",
    "n_iter", "seconds", "status", "predicted",
)  # fmt: skip
"""Of a table."""
CELL = ("method", "m", "noise", "seed", "step_size")
"""What names a cell."""
MOST_CELLS = 100_000


@dataclass(frozen=True, eq=False)
class Sweep(Drawn):
    """A tidy table: a row for each recovery of the grid."""

    rows: tuple[dict[str, Any], ...]
    """Each has the cell's method, m, noise, seed and step_size (None: the method's own); error and
    its standard error, psnr and objective ‖Ax − y‖², all means over the images; n_iter, seconds,
    status; and predicted, the error by state evolution (None without)."""
    images: int
    """How many are recovered in each cell."""
    taken_up: int
    """Cells that were read from the file of an earlier run."""

    def means(self) -> list[dict[str, Any]]:
        """A row for each method, step size, noise and m: means over the seeds."""
        names = ("method", "step_size", "noise", "m")
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
        return [
            {
                **dict(zip(names, key, strict=True)),
                "error": _mean([row["error"] for row in rows]),
                "predicted": rows[0]["predicted"],
                "seeds": len(rows),
            }
            for key, rows in groups.items()
        ]

    @property
    def status(self) -> str:
        """What was run, in words."""
        old = f", {self.taken_up} of them by an earlier run" if self.taken_up else ""
        return f"{len(self.rows)} recoveries of {self.images} images{old}"

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The table as CSV, also written to `path`, whole, where one is given."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        if path is not None:
            write_atomically(a_path(path), text.getvalue().encode())
        return text.getvalue()

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame; ImportError where pandas is not installed."""
        import pandas

        return pandas.DataFrame(list(self.rows), columns=list(COLUMNS))

    def to_dict(self) -> dict[str, Any]:
        return {"rows": plain(list(self.rows)), "images": self.images, "status": self.status}

    def draw(self, axis: Axes) -> None:
        """The error against m, or against the noise where m is one: observed, and predicted."""
        means = self.means()
        x = "m" if len({row["m"] for row in means}) > 1 else "noise"
        lines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        fixed = [name for name in ("method", "step_size", "noise", "m") if name != x]
        for row in means:
            lines.setdefault(tuple(row[name] for name in fixed), []).append(row)
        told = [n for n in fixed if len({row[n] for row in means}) > 1 or n == "method"]
        for key, rows in lines.items():
            named = dict(zip(fixed, key, strict=True))
            label = ", ".join(f"{named[n]}" if n == "method" else f"{n} {named[n]}" for n in told)
            rows = sorted(rows, key=lambda row: row[x])
            axis.plot([row[x] for row in rows], [row["error"] for row in rows], "o-", label=label)
        expected = {
            (row["m" if x == "noise" else "noise"], row[x]): row["predicted"]
            for row in means
            if row["predicted"] is not None
        }
        for i, other in enumerate(sorted({key[0] for key in expected})):
            places = sorted(place for held, place in expected if held == other)
            errors = [expected[other, place] for place in places]
            axis.plot(places, errors, "k:", label=None if i else "predicted")
        plain_log(axis.yaxis)
        if x == "m":
            plain_log(axis.xaxis, sorted({row["m"] for row in means}))
        axis.set(xlabel=x, ylabel="error per pixel")
        axis.legend()

    def __str__(self) -> str:
        head = f"  {'method':<10}{'step':>8}{'noise':>8}{'m':>7}{'error':>11}{'predicted':>12}"
        lines = [self.status, head]
        means = self.means()
        for row in means[:15]:
            own = "own" if row["method"] == "npgd" else "–"
            step = own if row["step_size"] is None else str(row["step_size"])[:7]
            expected = "–" if row["predicted"] is None else about(row["predicted"])
            error = "–" if row["error"] is None else about(row["error"])
            noise = f"{row['noise']:.3g}"
            lines.append(
                f"  {row['method']:<10}{step:>8}{noise:>8}{row['m']:>7}{error:>11}{expected:>12}"
            )
        if len(means) > 15:
            lines.append(f"  … and {len(means) - 15} more in `rows`, `to_csv()`")
        return "\n".join(lines)


def sweep(
    prior: npgd.GenerativePrior,
    images: Images,
    m: Iterable[int],
    noise: Iterable[float] = (0.0,),
    seeds: Iterable[int] = (0,),
    step_sizes: Sequence[float | str] | None = None,
    methods: Sequence[str] = ("npgd",),
    max_iter: int | None = None,
    predict: bool = True,
    path: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Sweep:
    """Recover images in every cell of a grid, and say what state evolution expects of it.

    In each cell A is Gaussian, (m, n), drawn from the cell's seed, and the noise from seed + 2, so
    that methods and step sizes meet the same measurements.

    Args:
        prior: with networks, as `npgd.load_prior` gives one.
        images: x*, (batch, *prior.image_shape).
        m: numbers of measurements.
        noise: standard deviations of the noise on each measurement.
        seeds: of A and the noise.
        step_sizes: of NPGD: positive numbers, "auto" or "1/beta"; by default its own steps. Other
            methods run once, at their own settings.
        methods: names in `analysis.methods.NAMES`.
        max_iter: of every method; by default its own.
        predict: measure the denoising curve, once, and predict from it.
        path: a JSON file of the finished cells, written whole after each. Where it exists, its
            cells are not run again; the grid may have grown. A file of another prior, other images
            or another `max_iter` is refused.
        executor: runs the cells; without one, as many threads as torch is set to use.
        progress: show a bar.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    if not isinstance(prior, npgd.GenerativePrior):
        raise TypeError(f"prior must be a GenerativePrior, got {checks.shown(prior)}")
    checks.finite(checks.images(images, prior.image_shape, "images", least=1), "images")
    checks.same_kind(images, prior, "images", "prior")
    check_executor(executor)
    predict, progress = checks.flag(predict, "predict"), checks.flag(progress, "progress")
    if max_iter is not None:
        max_iter = checks.integer(max_iter, "max_iter")
    cells = _cells(m, noise, seeds, step_sizes, methods, prior)
    store = _Store.opened(path, {"images": len(images), "max_iter": max_iter}, prior, images)
    wanted = {_key(cell) for cell in cells}
    taken_up = len(wanted & store.rows.keys())
    if predict:
        store.predict(prior, images, cells, progress)
    left = [cell for cell in cells if _key(cell) not in store.rows]
    arguments = ((prior, images, cell, max_iter) for cell in left)
    done = one_by_one(
        _recovered, arguments, len(left), "sweep", executor=executor, progress=progress
    )
    for row in done:
        store.add(row)
    expected = store.predicted if predict else {}
    rows = tuple(
        {**store.rows[_key(cell)], "predicted": expected.get(_point(cell))} for cell in cells
    )
    return Sweep(rows, len(images), taken_up)


def _cells(
    m: Any, noise: Any, seeds: Any, step_sizes: Any, methods: Any, prior: npgd.GenerativePrior
) -> list[dict[str, Any]]:
    """The grid, in the order of its rows."""
    sizes = [checks.integer(value, "m") for value in checks.in_a_row(m, "m")]
    noises = [checks.number(value, "noise", zero=True) for value in checks.in_a_row(noise, "noise")]
    drawn = [checks.seed(value, "seeds") for value in checks.in_a_row(seeds, "seeds")]
    names = checks.some(methods, "methods", *NAMES)
    steps: list[float | str | None] = [None]
    if step_sizes is not None:
        listed = checks.in_a_row(step_sizes, "step_sizes")
        steps = [checks.number_or(value, "step_sizes", "auto", "1/beta") for value in listed]
        if "npgd" not in names:
            raise ValueError(f"step_sizes must be None without NPGD in methods, got {listed}")
    grid = itertools.product(names, steps, noises, sizes, drawn)
    cells = [
        {"method": name, "m": size, "noise": level, "seed": seed, "step_size": step}
        for name, step, level, size, seed in grid
        if name == "npgd" or step == steps[0]
    ]
    for cell in cells:
        if cell["method"] != "npgd":
            cell["step_size"] = None
    if len(cells) > MOST_CELLS:
        raise ValueError(f"m must make at most {MOST_CELLS} cells with the rest, got {len(cells)}")
    checks.room(max(sizes), "m", max(sizes) * int(torch.Size(prior.image_shape).numel()))
    return list({_key(cell): cell for cell in cells}.values())


def _recovered(
    prior: npgd.GenerativePrior, images: Images, cell: dict[str, Any], max_iter: int | None
) -> dict[str, Any]:
    """The row of one cell."""
    with one_thread():
        A = npgd.Gaussian(prior.image_shape, cell["m"], seed=cell["seed"]).to(images)
        y = A(images)
        stream = torch.Generator().manual_seed((cell["seed"] + 2) % 2**63)
        y = y + cell["noise"] * torch.randn(y.shape, generator=stream).to(y)
        solver = solver_of(cell["method"], prior, cell["seed"], cell["noise"])
        if cell["step_size"] is not None and isinstance(solver, npgd.NPGD):
            solver = replace(solver, step_size=cell["step_size"])
        if max_iter is not None:
            solver = replace(solver, max_iter=max_iter)
        solution = npgd.recover(A, y, solver, x_true=images)
    assert solution.error is not None
    error = solution.error[-1].double()
    mean = float(error.mean())
    row = {
        **cell,
        "error": mean,
        "error_se": float(error.std() / len(error) ** 0.5) if len(error) > 1 else None,
        "psnr": float(psnr(error).mean()),
        "objective": float(solution.objective[-1].mean()),
        "n_iter": solution.n_iter,
        "seconds": solution.seconds,
        "status": solution.status,
    }
    known: dict[str, Any] = plain(row)
    return known


def _key(cell: Mapping[str, Any]) -> str:
    return json.dumps([cell[name] for name in CELL])


def _point(cell: Mapping[str, Any]) -> str:
    return json.dumps([cell["m"], cell["noise"]])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


@dataclass
class _Store:
    """What is finished, in a file where there is one."""

    path: Path | None
    settings: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    predicted: dict[str, float]

    @classmethod
    def opened(
        cls, path: Any, settings: dict[str, Any], prior: npgd.GenerativePrior, images: Images
    ) -> _Store:
        """What the file holds, if it is of the same settings."""
        if path is None:
            return cls(None, settings, {}, {})
        path = a_path(path)
        digest = hashlib.sha256()
        for tensor in (*prior.state_dict().values(), images):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        settings = {
            **settings,
            "prior": prior.name,
            "corrections": prior.corrections,
            "sha256": digest.hexdigest(),
        }
        if not path.exists():
            store = cls(path, settings, {}, {})
            store._write()
            return store
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            same = found["settings"] == settings
            rows = {_key(row): row for row in found["rows"]}
            predicted = dict(found["predicted"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"path must be a file that sweep wrote, got {shown(path)}") from error
        if not same:
            raise ValueError(
                f"path must be a sweep of this prior, these images and this max_iter, got"
                f" {shown(path)} of {checks.shown(found['settings'])}"
            )
        return cls(path, settings, rows, predicted)

    def add(self, row: dict[str, Any]) -> None:
        self.rows[_key(row)] = row
        self._write()

    def predict(
        self, prior: npgd.GenerativePrior, images: Images, cells: Any, progress: bool
    ) -> None:
        """What state evolution says of every m and noise of which it is not known yet."""
        points = {_point(cell): (cell["m"], cell["noise"]) for cell in cells}
        missing = {key: point for key, point in points.items() if key not in self.predicted}
        if missing:
            curve = denoising_curve(prior, images, draws=1, progress=progress)
            for key, (m, noise) in missing.items():
                self.predicted[key] = state_evolution(curve, m, noise=noise).fixed_point
            self._write()

    def _write(self) -> None:
        if self.path is not None:
            content = {
                "settings": self.settings,
                "rows": list(self.rows.values()),
                "predicted": plain(self.predicted),
            }
            write_atomically(self.path, as_json(content, "the sweep", indent=1).encode())
