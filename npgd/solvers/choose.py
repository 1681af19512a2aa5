"""A fixed step size for NPGD, chosen by trial on known images."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch

from npgd import checks
from npgd.contents import contents
from npgd.images import Images
from npgd.operators import LinearOperator
from npgd.precision import plainly
from npgd.sets import ImageSet, Projector, projector, samples
from npgd.solvers.base import recover
from npgd.solvers.npgd import NPGD

# Steps tried by choose_step_size, in units of 1/(mean gain): a third of an octave apart.
STEPS = tuple(2 ** (i / 3) for i in range(-6, 5))

# What was chosen: by operator, a digest of all that the choice depends on, and the step.
_known: weakref.WeakKeyDictionary[LinearOperator, dict[bytes, float]] = weakref.WeakKeyDictionary()


@plainly
@torch.no_grad()
def choose_step_size(
    A: LinearOperator,
    prior: ImageSet | Projector,
    images: Images | None = None,
    seed: int = 0,
    count: int = 32,
    max_iter: int = 30,
    start: str = "adjoint",
) -> float:
    """The step η that recovers known images best.

    Measures images with A, runs NPGD on them with steps c/g, and returns the one whose mean squared
    error at the end is least. The c are 0.25 … 2.5, a third of an octave apart; every second one is
    tried, and then the two beside the best of these. The scale
    g = mean ‖A s‖²/‖s‖² over the differences s of consecutive images makes the grid follow A.

    An answer is remembered with the operator, and given again while operator, prior and arguments
    hold the same numbers; priors whose contents cannot be read (`npgd.contents`) are measured anew.

    Args:
        A: the operator.
        prior: as for NPGD; without `images` it must have `sample(n, generator=…)`.
        images: images to choose on, at least two, noise-free; default `count` samples of the
            prior. Samples lie in the set exactly; images that do not, such as held-out training
            data, can favour another step.
        seed: of the samples.
        count: number of samples.
        max_iter, start: of the runs, as for NPGD ("adjoint" or "range").

    Raises:
        TypeError: no images, and a prior that cannot sample.
        ValueError: A maps every difference to zero, or every step diverges.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {checks.shown(A)}")
    projector(prior)
    seed = checks.seed(seed)
    count = checks.integer(count, "count", minimum=2)
    max_iter = checks.integer(max_iter, "max_iter")
    checks.choice(start, "start", "adjoint", "range")
    if images is None:
        if not samples(prior):
            raise TypeError(
                f'prior must have `sample` and `image_shape` for step_size="auto", got'
                f' {type(prior).__name__} without: give step_size as a number or as "1/beta", or'
                " call choose_step_size(A, prior, images=…) with images to choose it on"
            )
        images = prior.sample(count, generator=checks.seeded(seed))
    checks.finite(checks.images(images, A.image_shape, "images", least=2), "images")
    checks.same_kind(images, prior, "images", "prior")
    digest = contents(A, prior, images, max_iter, start)
    remembered = _known.setdefault(A, {})
    if digest is None:
        return _chosen(A, prior, images, max_iter, start)
    if digest not in remembered:
        remembered[digest] = _chosen(A, prior, images, max_iter, start)
    return remembered[digest]


def _chosen(
    A: LinearOperator, prior: ImageSet | Projector, images: Images, max_iter: int, start: str
) -> float:
    """The search itself."""
    secants = images[1:] - images[:-1]
    lengths = secants.flatten(1).square().sum(1)
    y = checks.squares(A(images), "A")
    gains = A(secants).square().sum(1)[lengths > 0] / lengths[lengths > 0]
    if gains.numel() == 0 or not float(gains.mean()) > 0:
        raise ValueError("A must differ from zero for a step to help, got A x = 0 for all x tried")
    unit = 1 / float(gains.mean())
    errors: dict[int, float] = {}

    def best_of(indices: Iterable[int]) -> int:
        for i in indices:
            solver = NPGD(prior, STEPS[i] * unit, max_iter=max_iter, start=start)
            final = recover(A, y, solver, x_true=images).error
            assert final is not None
            errors[i] = torch.nan_to_num(final[-1], nan=torch.inf).mean().item()
        return min(errors, key=lambda i: errors[i])

    coarse = best_of(range(0, len(STEPS), 2))
    best = best_of(i for i in (coarse - 1, coarse + 1) if 0 <= i < len(STEPS))
    if errors[best] == torch.inf:
        raise ValueError(
            f"every step from {unit * STEPS[0]:.3g} to {unit * STEPS[-1]:.3g} diverges"
        )
    return STEPS[best] * unit
