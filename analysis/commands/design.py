"""The command `npgd design`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands.options import (
    Dataset,
    Design,
    Force,
    Memory,
    Pictures,
    Prior,
    Seed,
    command,
    invocation,
    load_prior,
    within,
)
from analysis.commands.output import output_file, record
from analysis.commands.terminal import console

if TYPE_CHECKING:
    import torch

    from npgd import GenerativePrior, LinearOperator


@dataclass(frozen=True)
class Secants(Pictures):
    """What secants are taken of."""

    dataset: Dataset | None = None
    """Take secants of its training images, not of the prior."""
    images: Path | None = None
    """Take secants of a picture, or of a folder, zip or LMDB of them, not of the prior."""
    points: int = 4000
    """Points that secants are taken between."""

    def of(
        self, prior: GenerativePrior, seed: int
    ) -> tuple[GenerativePrior | torch.Tensor, int | None]:
        """The prior, and how many of its points to draw; or the points themselves, and None."""
        from analysis.design.secant_pca import secant_points

        if self.points < 2:
            raise ValueError(f"--points must be at least 2, got {self.points}")
        if self.images is not None:
            found = self.read(self.images, prior).pixels
        elif self.dataset is not None:
            found = self.sample(self.dataset.value, "train", prior, None).pixels
        else:
            return prior, self.points
        return secant_points(found, min(self.points, len(found)), seed), None


@dataclass(frozen=True)
class Plan:
    """How an operator is designed."""

    method: Design = Design.SECANT_PCA
    """How to design A."""
    m: int | None = None
    """How many measurements; numax, which chooses its own, takes it as the most."""
    delta: float = 0.3
    """Of numax: |‖A s‖² − 1| ≤ δ for unit s."""

    def __post_init__(self) -> None:
        if self.m is None and self.method is not Design.NUMAX:
            needs = f"{self.method.value} needs the number of measurements"
            raise ValueError(f"--m must be given ({needs}), got none")
        if "delta" in invocation().given and self.method is not Design.NUMAX:
            raise ValueError(
                f"--delta must be left out, for it says nothing with --method {self.method.value}, "
                f"got {self.delta}"
            )

    def design(
        self,
        prior: GenerativePrior,
        secants: Secants,
        seed: int,
        orthonormal: bool,
        memory: str | None = None,
    ) -> LinearOperator:
        """The operator, with its provenance; `orthonormal` is what minimax is told."""
        import analysis
        import npgd

        shape = prior.image_shape
        if self.m is not None:
            within("--m", self.m, 1, math.prod(shape), "pixels of the prior's images")
        rows = self.m or 0  # only numax does without m
        operator: LinearOperator
        if self.method in (Design.DCT_UNIFORM, Design.GAUSSIAN):
            kind = npgd.Gaussian if self.method is Design.GAUSSIAN else npgd.SubsampledDCT
            operator = kind(shape, rows, seed=seed)
            operator.provenance = {"method": self.method.value, "m": rows, "seed": seed}
            return operator
        source, points = secants.of(prior, seed)
        show = console.is_terminal
        if self.method is Design.SECANT_PCA:
            return analysis.design_secant_pca(
                source, rows, points=points, seed=seed, progress=show, memory=memory
            )
        if self.method is Design.NUMAX:
            return analysis.design_numax(
                source, self.m, delta=self.delta, points=points, seed=seed, progress=show
            )
        if self.method is Design.MINIMAX:
            return analysis.design_minimax(
                source, rows, points=points, orthonormal=orthonormal, seed=seed, progress=show
            )
        return analysis.design_dct(source, rows, points=points, seed=seed)


@command
def design(
    *,
    output: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    plan: Plan,
    prior: Prior = "mnist",
    secants: Secants,
    white: Annotated[
        bool, typer.Option("--whiten", help="Write A in row-orthonormal form, (A Aᵀ)^(-1/2) A.")
    ] = False,
    check: Annotated[bool, typer.Option(help="Measure κ on secants and tangents held out.")] = True,
    seed: Seed = 0,
    memory: Memory = None,
    force: Force = False,
) -> None:
    """Design an operator for a prior, or for data, and write it with its provenance.

    Use the file as --operator of recover and verify.
    """
    import npgd

    if output.suffix != ".safetensors":
        raise ValueError(f"--output must be a name that ends in .safetensors, got {output}")
    with output_file(output, force, _holds_operator) as path:
        p = load_prior(prior)
        operator = plan.design(p, secants, seed, orthonormal=white, memory=memory)
        if white and not operator.row_orthonormal:
            operator = npgd.whiten(operator)
        npgd.save_operator(operator, path, {**operator.provenance, "made": record()})
        provenance = npgd.load_operator(path).provenance
    for key, value in provenance.items():
        # Long lists, such as eigenvalues, are in the file.
        if not isinstance(value, list | dict) or len(value) <= 8:
            console.print(f"{key}: {value}")
    if check:
        _print_constants(operator, p, seed + 1, memory)
    console.print(f"written: {output}; use it as --operator of npgd recover and npgd verify")


def _holds_operator(path: Path) -> bool:
    """Whether a file is one of `npgd design`."""
    from npgd.files import read_described

    try:
        read_described(path, "operator", lambda description, tensors: None)
    except ValueError:
        return False
    return True


def _print_constants(
    operator: LinearOperator, prior: GenerativePrior, seed: int, memory: str | None
) -> None:
    """What other secants and tangents than the design's say of A on the prior."""
    import analysis
    from analysis.memory import entries

    settings = analysis.RecSettings.of("default", entries(prior))
    rec = analysis.estimate_rec(
        operator,
        prior,
        points=2000,
        tangent_points=min(200, settings.tangent_points),
        looks=("secants", "tangents"),
        seed=seed,
        memory=memory,
    )
    for look in rec.looks.values():
        console.print(str(look))
    console.print(rec.status)
