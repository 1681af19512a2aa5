"""The command ``npgd``."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .cli_train import train_app
from .options import (
    Boxes,
    BoxSide,
    DataDir,
    Dataset,
    DatasetOption,
    Design,
    Device,
    Download,
    Factor,
    Force,
    Hole,
    Images,
    M,
    MaxIter,
    Noise,
    OperatorFile,
    Prior,
    Seed,
    StepSize,
    Strict,
    Task,
    TaskName,
    console,
    plain_errors,
    torch_device,
)

if TYPE_CHECKING:
    import torch

    from npgd import GenerativePrior, LinearOperator

app = typer.Typer(
    help="Recover images with generative priors, and verify the theory on the way.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.add_typer(train_app, name="train")


@contextlib.contextmanager
def output_directory(path: Path, force: bool) -> Iterator[Path]:
    """A new directory that appears under ``path`` whole, when the block ends without an error.

    Raises ``FileExistsError`` where something is there already and ``force`` is false.
    """
    if path.exists() and not force:
        raise FileExistsError(f"output: {path} exists; name another directory, or give --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build_operator(
    task: TaskName,
    image_shape: tuple[int, ...],
    m: int,
    hole: int,
    factor: int,
    seed: int,
    dtype: torch.dtype,
    file: Path | None = None,
    boxes: int = 0,
    box_side: int = 8,
) -> tuple[LinearOperator, str]:
    """The operator of a file, or of a task, and its name in words."""
    import npgd

    if file is not None:
        operator = npgd.load_operator(file, dtype)
        method = operator.provenance.get("method", type(operator).__name__)
        return npgd.as_operator(operator, image_shape), f"{method} ({file.name}), m = {operator.m}"
    if task is TaskName.CS:
        return npgd.Gaussian(image_shape, m=m, seed=seed, dtype=dtype), f"Gaussian, m = {m}"
    if task is TaskName.INPAINTING and boxes:
        mask = npgd.scattered_boxes(image_shape, boxes, box_side, seed)
        words = f"inpainting, {boxes} boxes {box_side}×{box_side}"
        return npgd.Inpainting(image_shape, mask=mask), words
    if task is TaskName.INPAINTING:
        return npgd.Inpainting(image_shape, hole=hole), f"inpainting, hole {hole}×{hole}"
    return npgd.SuperResolution(image_shape, factor), f"super-resolution ×{factor}"


def load_images(
    prior: GenerativePrior,
    dataset: Dataset | None,
    images: Path | None,
    data_dir: Path | None,
    download: bool,
    count: int,
    seed: int,
    strict: bool = False,
) -> tuple[torch.Tensor, str]:
    """The images to recover, and where they come from in words."""
    from npgd import data

    if dataset is not None and images is not None:
        raise ValueError("--dataset, --images: give one of the two")
    if count < 1:
        raise ValueError(f"--count: {count}; expected at least 1")
    if images is not None:
        pictures, names = pictures_in(images, prior.image_shape, strict)
        return pictures[:count], f"{min(count, len(names))} pictures in {images}"
    if dataset is not None:
        if prior.image_shape != data.IMAGE_SHAPES[dataset.value]:
            raise ValueError(
                f"--dataset {dataset.value}: the prior's images are {prior.image_shape}"
            )
        x = data.dataset(dataset.value, "test", data_dir, count, download)
        words = {"mnist": "MNIST test digits", "celeba": "held-out CelebA faces"}
        return x, f"first {count} {words.get(dataset.value, 'held-out churches')}"
    x = prior.sample(count, seed=seed + 1).float()
    return x, f"{count} samples of G (give --dataset or --images for real images)"


def pictures_in(
    path: Path, image_shape: tuple[int, int, int], strict: bool
) -> tuple[torch.Tensor, list[str]]:
    """The pictures of a folder, zip or LMDB with pixels in [-1, 1], and their names.

    Those that are skipped are told on standard error.
    """
    from npgd import data

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found, names = data.image_archive(path, image_shape, strict=strict, cache=False)
    for warning in told:
        Console(stderr=True).print(f"[yellow]warning:[/] {warning.message}", highlight=False)
    return data.to_pixels(found), names


def measured_picture(
    task: TaskName, operator: LinearOperator, y: torch.Tensor, factor: int
) -> tuple[str, torch.Tensor]:
    """Measurements as a person can look at them: pixels where they are pixels, else Aᵀy."""
    back = operator.adjoint(y)
    if task is TaskName.SUPER_RESOLUTION:
        return "measured", back * factor**2
    return ("measured", back) if task is TaskName.INPAINTING else ("Aᵀy", back)


@app.command()
def recover(
    prior: Prior = "mnist",
    dataset: DatasetOption = None,
    images: Images = None,
    data_dir: DataDir = None,
    download: Download = False,
    strict: Strict = False,
    count: Annotated[int, typer.Option(help="Images at most.")] = 12,
    task: Task = TaskName.CS,
    operator_file: OperatorFile = None,
    m: M = 100,
    hole: Hole = 10,
    boxes: Boxes = 0,
    box_side: BoxSide = 8,
    factor: Factor = 2,
    noise: Noise = 0.0,
    step_size: StepSize = "auto",
    max_iter: MaxIter = 30,
    refine: Annotated[
        int, typer.Option(help="How many of them, the last, are Gauss–Newton steps on the latent.")
    ] = 0,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Annotated[Path, typer.Option(help="Directory to write.")] = Path("recovered"),
    force: Force = False,
) -> None:
    """Measure images, recover them with NPGD, and write what came of it.

    Writes recovery.png (original, measured, recovered), results.json, images/ (the recovered
    images as PNG) and images.npz (float32, original and recovered).
    """
    with plain_errors():
        import numpy as np
        import torch
        from rich.table import Table

        import npgd
        from npgd.data import to_uint8

        from .pictures import draw_rows

        if output.exists() and not force:
            raise FileExistsError(
                f"output: {output} exists; name another directory, or give --force"
            )
        if noise < 0:
            raise ValueError(f"--noise: {noise}; expected a standard deviation, at least 0")
        p = npgd.load_prior(prior, device=torch_device(device))
        x_true, source = load_images(p, dataset, images, data_dir, download, count, seed, strict)
        operator, task_words = build_operator(
            task,
            p.image_shape,
            m,
            hole,
            factor,
            seed,
            torch.float32,
            operator_file,
            boxes,
            box_side,
        )
        operator.to(device)
        x_true = x_true.to(device)
        y = operator(x_true)
        noise_generator = torch.Generator().manual_seed(seed + 2)
        y = y + noise * torch.randn(y.shape, generator=noise_generator).to(y)
        solver = npgd.NPGD(
            p, step_size=_step(step_size), max_iter=max_iter, seed=seed, refine=refine
        )
        solution = npgd.recover(operator, y, solver, x_true=x_true, progress=console.is_terminal)
        assert solution.error is not None and solution.psnr is not None

        shown_as = task if operator_file is None else TaskName.CS
        label, picture = measured_picture(shown_as, operator, y, factor)
        settings = {
            "command": "recover",
            "npgd": _version(),
            "prior": prior,
            "images": source,
            "task": task_words,
            "m": operator.m,
            "noise": noise,
            "seed": seed,
            "device": device,
            "dtype": "float32",
        }
        with output_directory(output, force) as directory:
            rows = {"original": x_true, label: picture, "recovered": solution.x}
            draw_rows(rows, directory / "recovery.png")
            results = {**settings, "solution": solution.to_dict()}
            (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")
            np.savez_compressed(
                directory / "images.npz",
                original=x_true.cpu().numpy(),
                recovered=solution.x.cpu().numpy(),
            )
            (directory / "images").mkdir()
            for i, image in enumerate(to_uint8(solution.x.cpu().clone())):
                _save_png(directory / "images" / f"{i:04d}.png", image)

        table = Table(title=f"NPGD · {task_words} of n = {operator.n} · {source}")
        table.add_column("image", justify="right")
        table.add_column("error per pixel", justify="right")
        table.add_column("PSNR (dB)", justify="right")
        table.add_column("‖Ax − y‖²", justify="right")
        table.add_column("outcome")
        for i in range(min(len(x_true), 20)):
            table.add_row(
                str(i),
                f"{float(solution.error[-1, i]):.4f}",
                f"{float(solution.psnr[i]):.2f}",
                f"{float(solution.objective[-1, i]):.4g}",
                solution.outcomes[i],
            )
        table.add_section()
        table.add_row(
            "mean",
            f"{float(solution.error[-1].mean()):.4f}",
            f"{float(solution.psnr.mean()):.2f}",
            f"{float(solution.objective[-1].mean()):.4g}",
            f"{solution.n_iter} iterations, {solution.seconds:.2f} s",
        )
        console.print(table)
        console.print(
            f"step size {solution.info['step_size']:.4g} ({step_size}); {solution.status}"
        )
        console.print(f"written: {output / 'recovery.png'} and beside it the numbers and images")


@app.command()
def verify(
    prior: Prior = "mnist",
    dataset: DatasetOption = None,
    images: Images = None,
    data_dir: DataDir = None,
    download: Download = False,
    strict: Strict = False,
    count: Annotated[int, typer.Option(help="Images to recover.")] = 12,
    task: Task = TaskName.CS,
    operator_file: OperatorFile = None,
    m: M = 100,
    hole: Hole = 10,
    boxes: Boxes = 0,
    box_side: BoxSide = 8,
    factor: Factor = 2,
    noise: Noise = 0.0,
    step_size: StepSize = "1/beta",
    max_iter: MaxIter = 30,
    seed: Seed = 0,
    device: Device = "cpu",
    output: Annotated[Path, typer.Option(help="Directory to write.")] = Path("verified"),
    force: Force = False,
) -> None:
    """Are the theorem's assumptions met, what do they predict, and what happened?

    Measures the restricted eigenvalue constants of A on range(G), the projector's error and every
    quantity of the one-step identity, in float64, and writes report.html and report.json.
    """
    with plain_errors():
        import torch

        import analysis
        import npgd

        if output.exists() and not force:
            raise FileExistsError(
                f"output: {output} exists; name another directory, or give --force"
            )
        p = npgd.load_prior(prior, device=torch_device(device))
        x_true: torch.Tensor | None = None
        if dataset is not None or images is not None:
            x_true, _ = load_images(p, dataset, images, data_dir, download, count, seed, strict)
            x_true = x_true.to(device)
        operator, _ = build_operator(
            task,
            p.image_shape,
            m,
            hole,
            factor,
            seed,
            torch.float32,
            operator_file,
            boxes,
            box_side,
        )
        report = analysis.verify(
            operator.to(device),
            p,
            x_true,
            step_size=_step(step_size),
            n_iter=max_iter,
            noise=noise,
            count=count,
            seed=seed,
            progress=console.is_terminal,
        )
        console.print(report.table())
        console.print(report.summary, highlight=False)
        page = report.write(output, force=force)
        console.print(f"written: {page}")


@app.command()
def design(
    output: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    method: Annotated[Design, typer.Option(help="How to design A.")] = Design.SECANT_PCA,
    prior: Prior = "mnist",
    dataset: Annotated[
        Dataset | None, typer.Option(help="Take secants of its training images, not of the prior.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Take secants of a folder of pictures, not of the prior.")
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    strict: Strict = False,
    m: Annotated[
        int | None, typer.Option(help="Measurements; of numax a budget, else its own choice.")
    ] = None,
    points: Annotated[int, typer.Option(help="Points that secants are taken between.")] = 4000,
    delta: Annotated[float, typer.Option(help="Of numax: |‖A s‖² − 1| ≤ δ for unit s.")] = 0.3,
    white: Annotated[
        bool, typer.Option("--whiten", help="In row-orthonormal form, (A Aᵀ)^(-1/2) A.")
    ] = False,
    check: Annotated[bool, typer.Option(help="Measure κ on secants and tangents held out.")] = True,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option(help="Replace the output file.")] = False,
) -> None:
    """Design an operator for a prior, or for data, and write it with its provenance.

    Use the file as --operator of recover and verify.
    """
    with plain_errors():
        import analysis
        import npgd
        from npgd import data

        if output.suffix != ".safetensors":
            raise ValueError(f"--output: {output}; expected a name that ends in .safetensors")
        if output.exists() and not force:
            raise FileExistsError(
                f"output: {output} exists; name another file, or give --force to replace it"
            )
        if m is None and method is not Design.NUMAX:
            raise ValueError(f"--m: {method.value} needs the number of measurements")
        if dataset is not None and images is not None:
            raise ValueError("--dataset, --images: give one of the two")
        p = npgd.load_prior(prior)
        source: Any = p
        if images is not None:
            source = pictures_in(images, p.image_shape, strict)[0]
        elif dataset is not None:
            source = data.dataset(dataset.value, "train", data_dir, None, download)
        if source is not p:
            from .design import secant_points

            if tuple(source.shape[1:]) != p.image_shape:
                raise ValueError(
                    f"--dataset: images of shape {tuple(source.shape[1:])}, but those of the prior"
                    f" are {p.image_shape}"
                )
            source = secant_points(source, min(points, len(source)), seed)
        # Only numax does without m.
        rows = m or 0
        operator: LinearOperator
        count = points if source is p else None
        if method is Design.SECANT_PCA:
            operator = analysis.design_secant_pca(
                source, rows, points=count, seed=seed, progress=console.is_terminal
            )
        elif method is Design.NUMAX:
            operator = analysis.design_numax(
                source, m, delta=delta, points=count, seed=seed, progress=console.is_terminal
            )
        elif method is Design.MINIMAX:
            operator = analysis.design_minimax(
                source,
                rows,
                points=count,
                orthonormal=white,
                seed=seed,
                progress=console.is_terminal,
            )
        elif method is Design.DCT:
            operator = analysis.design_dct(source, rows, points=count, seed=seed)
        elif method is Design.DCT_UNIFORM:
            operator = npgd.SubsampledDCT(p.image_shape, rows, seed=seed)
            operator.provenance = {"method": "dct-uniform", "m": rows, "seed": seed}
        else:
            operator = npgd.Gaussian(p.image_shape, rows, seed=seed)
            operator.provenance = {"method": "gaussian", "m": rows, "seed": seed}
        if white and not operator.row_orthonormal:
            operator = npgd.whiten(operator)
        output.parent.mkdir(parents=True, exist_ok=True)
        npgd.save_operator(operator, output)
        for key, value in npgd.load_operator(output).provenance.items():
            # Long lists, such as eigenvalues, are in the file.
            if not isinstance(value, list | dict) or len(value) <= 8:
                console.print(f"{key}: {value}", highlight=False)
        if check:
            rec = analysis.estimate_rec(
                operator, p, points=2000, tangent_points=200,
                looks=("secants", "tangents"), seed=seed + 1,
            )  # fmt: skip
            for look in rec.looks.values():
                console.print(str(look), highlight=False)
            console.print(rec.status, highlight=False)
        console.print(f"written: {output}; use it as --operator of npgd recover and npgd verify")


@app.command("worst-case")
def worst_case_command(
    alpha: Annotated[float, typer.Option(help="Lower restricted eigenvalue constant.")],
    beta: Annotated[float, typer.Option(help="Upper restricted eigenvalue constant.")],
    n_iter: Annotated[int, typer.Option(help="Steps N.")] = 3,
    step_size: Annotated[float | None, typer.Option(help="η; default 1/β, the theorem's.")] = None,
    delta: Annotated[float, typer.Option(help="Projector error δ, for F_0 = 1.")] = 0.0,
    noise: Annotated[float, typer.Option(help="Bound on ‖v‖², for F_0 = 1.")] = 0.0,
    sweep: Annotated[
        bool, typer.Option(help="Every step size from 0.5/β to 1.5/β instead.")
    ] = False,
) -> None:
    """The worst NPGD can do under the theorem's assumptions, with its certificate.

    Beside each other: the theorem's bound, a dual bound proved in rational arithmetic, the primal
    value, and NPGD run on an explicit matrix and set that attain it.
    """
    from rich.table import Table

    with plain_errors():
        from .performance_estimation import certify, sweep_step_sizes

        try:
            if sweep:
                swept = sweep_step_sizes(
                    alpha, beta, n_iter, delta=delta, noise=noise, progress=console.is_terminal
                )
                table = Table(title=f"worst case after {n_iter} steps, by step size")
                for name in ("ηβ", "primal value", "dual bound", "bound of the induction"):
                    table.add_column(name)
                for swept_row in swept.rows():
                    table.add_row(*swept_row)
                console.print(table)
                return
            certificate = certify(alpha, beta, n_iter, step_size, delta, noise)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        table = Table(title=certificate.worst_case.title)
        table.add_column("quantity")
        table.add_column("number", justify="right")
        table.add_column("rests on")
        for row in certificate.rows():
            table.add_row(*row)
        console.print(table)
        console.print(certificate.status, highlight=False)


@app.command()
def derive(
    latex: Annotated[bool, typer.Option("--latex", help="LaTeX in place of plain text.")] = False,
) -> None:
    """Derive the convergence theorem step by step, each step checked symbolically."""
    from .theorem import derive as derive_theorem

    derivation = derive_theorem()
    typer.echo(derivation.latex() if latex else str(derivation))


@app.command()
def figures(
    names: Annotated[
        list[str] | None, typer.Argument(help="Figures or tables; default: every figure.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="At reduced size, into the folder quick.")] = False,
    output: Annotated[Path, typer.Option(help="Directory to write into.")] = Path("figures"),
    fresh: Annotated[bool, typer.Option(help="Measure again what has not changed, too.")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="The tables, too; hours.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Name them, and stop.")] = False,
) -> None:
    """Draw the figures of the paper and beyond it, each as PDF, PNG and JSON of its numbers.

    Tables are kept as text. A second run measures only what has changed since. What needs data
    that is not at hand (in $NPGD_DATA) is skipped, and named; after a failure the others still
    run, and the exit status is 1. Each script of paper_figures/ takes further options of its own.
    """
    with plain_errors():
        import paper_figures

        there = paper_figures.figures() | paper_figures.tables()
        unknown = sorted(set(names or ()) - set(there))
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: no such figure or table; there are {', '.join(there)}"
            )
    wanted = names or list(there if tables or listed else paper_figures.figures())
    if listed:
        for name in wanted:
            typer.echo(f"{name:<18}{there[name]}")
        return
    argv = ["--output", str(output), *["--quick"] * quick, *["--fresh"] * fresh]
    skipped, failed = [], []
    for i, name in enumerate(wanted, 1):
        typer.echo(f"[{i}/{len(wanted)}] ", nl=False)
        try:
            if name.startswith("table_"):
                importlib.import_module("paper_figures.figure").run_table(name, argv)
            else:
                importlib.import_module(f"paper_figures.figure_{name}").main(argv)
        except Exception as error:
            from npgd.data import DataNotFoundError

            if isinstance(error, DataNotFoundError):
                skipped.append(name)
                typer.echo(f"{name}: skipped, {error}")
            else:
                failed.append(name)
                typer.echo(f"{name}: failed", err=True)
                traceback.print_exc()
    if skipped or failed:
        done = len(wanted) - len(skipped) - len(failed)
        parts = [f"{done} done"]
        parts += [f"skipped for want of data: {', '.join(skipped)}"] if skipped else []
        parts += [f"failed: {', '.join(failed)}"] if failed else []
        typer.echo("; ".join(parts))
    if failed:
        raise typer.Exit(1)


def _step(text: str) -> float | str:
    if text in ("auto", "1/beta"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'--step-size: {text!r}; expected a number, "auto" or "1/beta"') from None


def _version() -> str:
    from importlib.metadata import version

    return version("npgd")


def _save_png(path: Path, image: Any) -> None:
    from PIL import Image

    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(path)


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
