"""The pair (S, A) that is looked at: in its own precision, and in float64 for what is reported."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch

from analysis.rec.results import Direction
from analysis.rec.secants import KEEP, all_pairs
from analysis.rec.tangents import tangent
from analysis.tasks import draw_latents, generate
from npgd.images import ratio
from npgd.precision import converted, precision
from npgd.projectors import AffineSet, FiniteSet

TANGENT_STEP = 1e-2  # length of the latent step from which the search leaves a tangent


@dataclass(frozen=True)
class _Settings:
    points: int
    tangent_points: int
    search_starts: int
    search_steps: int
    radius: float
    bins: int
    epsilon: float
    seed: int
    executor: Executor | None
    progress: bool


class _Target:
    """S and A in the precision they came in, for looking, and in float64, for reporting."""

    def __init__(self, operator: Any, prior: Any) -> None:
        self.generates = hasattr(prior, "generate") and hasattr(prior, "latent_dim")
        self.images: torch.Tensor | None = None
        if isinstance(prior, FiniteSet):
            self.images = prior.points.detach().cpu()
        elif isinstance(prior, torch.Tensor):
            if prior.ndim < 2 or not prior.is_floating_point() or len(prior) < 2:
                came = f"{prior.dtype} of shape {tuple(prior.shape)}"
                raise ValueError(f"prior: got {came}, expected at least two images")
            self.images = prior.detach().cpu()
        elif not self.generates:
            raise TypeError(
                f"prior: got {type(prior).__name__}, expected a prior with `generate` and"
                " `latent_dim`, an AffineSet, a FiniteSet, or a tensor of images"
            )
        self.is_finite_set = isinstance(prior, FiniteSet)
        self.is_affine = isinstance(prior, AffineSet)
        self.dtype = self.images.dtype if self.images is not None else precision(prior)
        self.latent_dim = int(prior.latent_dim) if self.generates else 0
        self.prior = converted(prior, self.dtype, "cpu") if self.generates else None
        self.double_prior = converted(prior, torch.float64, "cpu") if self.generates else None
        self.operator = converted(operator, self.dtype, "cpu")
        self.double_operator = converted(operator, torch.float64, "cpu")
        self.orthonormal = bool(getattr(operator, "row_orthonormal", False))

    def exact(self) -> tuple[float, float] | None:
        """The constants of an affine or finite set, to the rounding of float64.

        On {B z + c}, B = Q R, the extreme eigenvalues of Q'A'A Q; on a finite set, the extremes
        over all its secants.
        """
        if self.is_affine:
            return _affine_constants(self.double_operator, self.double_prior)
        if self.is_finite_set:
            assert self.images is not None
            scan = all_pairs(self.double_operator, self.images.double(), keep=KEEP)
            return scan.lowest[0][0], scan.highest[0][0]
        return None

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """G(z), computed in float64."""
        images = generate(self.double_prior, z.to(precision(self.double_prior)))
        return images.double()

    def secant(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        z: tuple[torch.Tensor, torch.Tensor] | None = None,
        index: tuple[int, int] | None = None,
    ) -> Direction:
        """The secant between two images (or the G(z) of two latents)."""
        if z is not None:
            first, second = self.decode(torch.stack(z))
        difference = (first.double() - second.double())[None]
        return Direction(
            kind="secant",
            ratio=float(ratio(self.double_operator, difference)),
            distance=float(difference.norm()),
            first=first,
            second=second,
            z_first=None if z is None else z[0],
            z_second=None if z is None else z[1],
            index=index,
        )

    def tangent(self, z: torch.Tensor, step: torch.Tensor) -> Direction:
        """The derivative of G at z along `step`, in float64."""
        dtype = precision(self.double_prior)
        direction = tangent(self.double_prior, z[None].to(dtype), step[None].to(dtype)).double()
        return Direction(
            kind="tangent",
            ratio=float(ratio(self.double_operator, direction)),
            distance=float(direction.norm()),
            first=self.decode(z[None])[0],
            second=direction[0],
            z_first=z,
            z_second=step,
        )


def _affine_constants(operator: Any, affine: Any) -> tuple[float, float]:
    q, _ = torch.linalg.qr(affine.basis.double())
    image = operator(q.T.reshape(-1, *affine.image_shape))
    values = torch.linalg.svdvals(image).square()
    # More dimensions than measurements: some direction is not seen at all.
    low = float(values[-1]) if image.shape[1] >= image.shape[0] else 0.0
    return low, float(values[0])


@dataclass(frozen=True)
class _Sample:
    images: torch.Tensor
    z: torch.Tensor | None  # float64 latents of the images


def _sample(target: _Target, settings: _Settings) -> _Sample:
    if target.images is not None:
        return _Sample(target.images, None)
    z = draw_latents(target.latent_dim, settings.points, settings.seed, target.dtype)
    images = generate(target.prior, z, executor=settings.executor, progress=settings.progress)
    return _Sample(images, z.double())
