"""A solver as other imaging libraries call one: images = reconstructor(y, physics)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from npgd import checks
from npgd.images import Images
from npgd.operators import LinearOperator, as_operator
from npgd.precision import like
from npgd.showing import Shown
from npgd.solvers.base import Solution, Solver, recover


class Reconstructor(Shown, nn.Module):
    """A solver with `forward(y, physics)`, as deepinv has them, for its loaders, tests and metrics.

        model = npgd.Reconstructor(npgd.NPGD(npgd.load_prior("mnist")))
        x = model(y, physics)

    Images outside have pixels in `pixels`, low = black and high = white, those of the prior lie in
    [−1, 1]. With x = c + h u, c = (low + high)/2, h = (high − low)/2, it recovers u from
    (y − A c)/h, and returns c + h u in the precision of y. `.to(…)` moves the prior.

    Args:
        solver: for instance NPGD(prior).
        pixels: (low, high), low below high; by default [0, 1], as deepinv has it.

    Raises:
        TypeError, ValueError: naming the argument that does not fit; on a call `physics`, where
            `npgd.as_operator` refuses it, with its reason.
    """

    def __init__(self, solver: Solver[Any], pixels: Sequence[float] = (0.0, 1.0)) -> None:
        super().__init__()
        if not isinstance(solver, Solver):
            raise TypeError(
                f"solver must be a Solver such as NPGD(prior), got {checks.shown(solver)}"
            )
        self.solver = solver
        self.pixels = _range(pixels)
        prior = getattr(solver, "prior", None)
        self.prior = prior if isinstance(prior, nn.Module) else None
        self.solution: Solution | None = None
        """Of the last call, with the history of the run; its images lie in [−1, 1]."""

    def forward(self, y: Any, physics: Any) -> Images:
        """The images, (batch, channels, height, width), behind measurements y of a physics.

        Args:
            y: as `physics` gives them.
            physics: anything that `npgd.as_operator` takes.
        """
        A = self._operator(physics, y)
        measured = A.measurements(y)
        low, high = self.pixels
        centre, half = (low + high) / 2, (high - low) / 2
        inside = like(measured, self.prior)
        if centre:
            flat = inside.new_full((1, *A.image_shape), centre)
            with torch.no_grad():
                inside = inside - A(flat)
        self.solution = recover(A, inside / half, self.solver)
        images: Images = (centre + half * self.solution.x).to(measured)
        return images

    def _operator(self, physics: Any, y: Any) -> LinearOperator:
        if isinstance(physics, LinearOperator):
            return physics
        shape = getattr(getattr(self.solver, "prior", None), "image_shape", None)
        if shape is None:
            # A solver without a prior takes images of any shape: those that the physics has.
            if not callable(getattr(physics, "A_adjoint", None)):
                raise TypeError(
                    "physics must have `A` and `A_adjoint` for a solver without a prior, got"
                    f" {checks.shown(physics)}"
                )
            shape = physics.A_adjoint(y).shape[1:]
        try:
            return as_operator(physics, shape)
        except (TypeError, ValueError) as error:
            raise type(error)(f"physics must be a linear operator: {error}") from error


def _range(pixels: Any) -> tuple[float, float]:
    wrong = f"pixels must be two numbers, low and high, got {checks.shown(pixels)}"
    if isinstance(pixels, str | bytes | bytearray | dict | set):
        raise TypeError(wrong)
    try:
        listed = list(pixels)
    except Exception:  # what cannot be iterated says so in many ways
        raise TypeError(wrong) from None
    if len(listed) != 2:
        raise ValueError(wrong)
    low, high = (checks.number(value, "pixels", negative=True) for value in listed)
    if not low < high:
        raise ValueError(f"pixels must be two numbers, low below high, got ({low:g}, {high:g})")
    return low, high
