"""The command `npgd design`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands.options import (
    DataDir,
    Dataset,
    Design,
    Download,
    Prior,
    Seed,
    Strict,
    console,
    pictures_in,
    plain_errors,
)

if TYPE_CHECKING:
    from npgd import LinearOperator


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
            from analysis.design.secant_pca import secant_points

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
