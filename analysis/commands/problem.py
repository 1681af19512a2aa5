"""The operator that `npgd recover` and `npgd verify` measure with: a task's, or a file's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from analysis.commands.options import invocation, naming, own_code, within

if TYPE_CHECKING:
    import torch

    from npgd import LinearOperator
    from npgd.checks import ImageShape


class TaskName(StrEnum):
    """The inverse problems."""

    CS = "cs"
    STRUCTURED = "structured"
    INPAINTING = "inpainting"
    SUPER_RESOLUTION = "super-resolution"
    BLUR = "blur"
    FOURIER = "fourier"
    RADON = "radon"


OPTIONS = {
    TaskName.CS: ("m",),
    TaskName.STRUCTURED: ("m",),
    TaskName.INPAINTING: ("hole", "boxes", "box_side"),
    TaskName.SUPER_RESOLUTION: ("factor",),
    TaskName.BLUR: ("sigma",),
    TaskName.FOURIER: ("acceleration",),
    TaskName.RADON: ("angles",),
}
"""Of every task."""
MOST_ANGLES = 720


@dataclass(frozen=True)
class Problem:
    """The operator: a task's, or a file's."""

    panel: ClassVar[str] = "Operator"
    task: TaskName = TaskName.CS
    """The inverse problem: compressed sensing by a Gaussian matrix (cs) or without one
    (structured), inpainting, super-resolution, a Gaussian blur, MRI (fourier), CT (radon)."""
    operator: Path | None = None
    """A in a file, in place of --task: of npgd design, or a matrix (m, n) in .npy, .npz, .mat or
    .h5, named A or the only one."""
    m: int = 100
    """Measurements of --task cs and structured."""
    hole: int = 10
    """Side of the missing square of --task inpainting."""
    boxes: int = 0
    """Missing boxes of --task inpainting, scattered, in place of the hole."""
    box_side: int = 8
    """Side of each of --boxes."""
    factor: int = 2
    """Factor of --task super-resolution."""
    sigma: float = 1.5
    """Standard deviation, in pixels, of the kernel of --task blur."""
    acceleration: float = 4.0
    """Of --task fourier: about one column of frequencies in so many is measured."""
    angles: int = 10
    """Angles of --task radon, even over 180 degrees."""

    def __post_init__(self) -> None:
        given = invocation().given
        every = {name for names in OPTIONS.values() for name in names}
        if self.operator is not None:
            idle = dict.fromkeys(("task", *every), "--operator")
        else:
            idle = dict.fromkeys(every.difference(OPTIONS[self.task]), f"--task {self.task.value}")
        if self.operator is None and self.task is TaskName.INPAINTING:
            idle |= {"hole": "--boxes"} if self.boxes else {"box_side": "no --boxes"}
        for name in sorted(idle.keys() & given):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} must be left out, for it says nothing with {idle[name]}, got "
                f"{getattr(self, name)}"
            )

    def build(self, image_shape: ImageShape, seed: int) -> tuple[LinearOperator, str]:
        """The operator in float32, and its name in words."""
        import npgd

        if self.operator is not None:
            with naming("--operator"), own_code():
                A = _operator_in(self.operator, image_shape)
                fitting_prior = npgd.as_operator(A, image_shape)
            method = A.provenance.get("method", type(A).__name__)
            return fitting_prior, f"{method} ({self.operator.name}), m = {A.m}"
        match self.task:
            case TaskName.CS | TaskName.STRUCTURED:
                of = "pixels of the prior's images"
                m = within("--m", self.m, 1, math.prod(image_shape), of)
                if self.task is TaskName.CS:
                    return npgd.Gaussian(image_shape, m=m, seed=seed), f"Gaussian, m = {m}"
                words = f"structured random, m = {m}"
                return npgd.StructuredRandom(image_shape, m, seed), words
            case TaskName.SUPER_RESOLUTION:
                words = f"super-resolution ×{self.factor}"
                return npgd.SuperResolution(image_shape, self.factor), words
            case TaskName.BLUR:
                kernel = gaussian_kernel(self.sigma, min(image_shape[1:]))
                return npgd.Blur(image_shape, kernel), f"blur, σ = {self.sigma:g} pixels"
            case TaskName.FOURIER:
                mask = npgd.cartesian_mask(image_shape, self.acceleration, seed=seed)
                words = f"Fourier, {int(mask[0].sum())} of {image_shape[2]} columns"
                return npgd.Fourier(image_shape, mask), words
            case TaskName.RADON:
                count = within("--angles", self.angles, 1, MOST_ANGLES, "angles of a scan")
                return npgd.Radon(image_shape, count), f"Radon, {count} angles"
            case _:
                return self._inpainting(image_shape, seed)

    def _inpainting(self, image_shape: ImageShape, seed: int) -> tuple[LinearOperator, str]:
        import npgd

        if not self.boxes:
            words = f"inpainting, hole {self.hole}×{self.hole}"
            return npgd.Inpainting(image_shape, hole=self.hole), words
        side = min(image_shape[1:])
        within("--box-side", self.box_side, 1, side, "side of the prior's images")
        within("--boxes", self.boxes, 1, side**2, "pixels of the prior's images")
        mask = npgd.scattered_boxes(image_shape, self.boxes, self.box_side, seed)
        words = f"inpainting, {self.boxes} boxes {self.box_side}×{self.box_side}"
        return npgd.Inpainting(image_shape, mask=mask), words

    def measured(self, A: LinearOperator, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """Measurements as a person can look at them: pixels where they are pixels, else Aᵀy."""
        back = A.adjoint(y)
        match None if self.operator is not None else self.task:
            case TaskName.INPAINTING:
                return {"measured": back}
            case TaskName.SUPER_RESOLUTION:
                return {"measured": back * self.factor**2}
            case TaskName.BLUR:
                return {"measured": y.reshape(back.shape)}
            case TaskName.RADON:  # sums over rays, within the range of an image
                return {"Aᵀy": back / back.abs().amax((1, 2, 3), keepdim=True).clamp_min(1.0)}
            case _:
                return {"Aᵀy": back}


def gaussian_kernel(sigma: float, side: int) -> torch.Tensor:
    """exp(−r²/2σ²) up to 3σ, of sum 1, (h, h) with h odd and at most the side."""
    import torch

    if not 0 < sigma <= side:
        raise ValueError(
            f"--sigma must be above 0 and at most {side}, the side of the prior's images, got"
            f" {sigma:g}"
        )
    reach = min(math.ceil(3 * sigma), (side - 1) // 2)
    line = torch.arange(-reach, reach + 1, dtype=torch.float64).square()
    line = torch.exp(-line / (2 * sigma**2))
    return torch.outer(line / line.sum(), line / line.sum()).float()


def _operator_in(path: Path, image_shape: ImageShape) -> LinearOperator:
    """The operator in a file of ours, or of the matrix in a file of another program, in float32."""
    import numpy as np
    import torch

    import npgd
    from analysis.commands.arrays import SUFFIXES, read_array

    if path.suffix.lower() not in SUFFIXES:
        return npgd.load_operator(path, torch.float32)
    matrix = torch.from_numpy(np.ascontiguousarray(read_array(path, usual="A")))
    return npgd.MatrixOperator(matrix, image_shape).to(torch.float32)
