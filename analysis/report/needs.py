"""The memory that `verify` needs, how it stays within a bound, and what it leaves out for size."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from analysis.memory import (
    ACTIVE,
    GRAPH,
    LARGE,
    Footprint,
    entries,
    gigabytes,
    passing_within,
    state,
    weights,
)
from analysis.projection import ProjectionSettings, projects_exactly
from analysis.rec.estimate import needed
from analysis.rec.settings import RecSettings
from analysis.report.settings import RunSettings
from npgd import sets
from npgd.operators import LinearOperator
from npgd.priors import GenerativePrior
from npgd.progress import note
from npgd.sets import ImageSet
from npgd.solvers.step_size import SAMPLES

COPIES = 8
"""Images in float64 for each x*: x*, x̄, Aᵀy, what a run holds and keeps."""


@dataclass(frozen=True)
class Room:
    """Bytes that a verification holds from beginning to end, and what it leaves to each step."""

    count: int
    """Images that are recovered."""
    held: float
    """The run's iterates, copies of the images, and the prior and A in float64."""
    bound: int | None
    """Of all."""

    @classmethod
    def of(
        cls,
        A: LinearOperator,
        prior: ImageSet,
        images: torch.Tensor | None,
        asked: RunSettings,
        bound: int | None,
    ) -> Room:
        """ValueError for a bound below what is held."""
        count = asked.count if images is None else len(images)
        held = 8 * A.n * count * (asked.n_iter + 1 + COPIES) + 2 * weights(prior, A)
        if bound is not None and held > bound / 2:
            raise ValueError(
                f"memory must be at least {gigabytes(2 * held)}, since runs of {asked.n_iter}"
                f" iterations of {count} images keep {gigabytes(held)}, got {gigabytes(bound)}"
            )
        return cls(count, held, bound)

    def state(
        self,
        A: LinearOperator,
        prior: ImageSet,
        looking: tuple[RecSettings, ProjectionSettings],
        cut: dict[str, str],
        show: bool,
    ) -> None:
        """Say what the work needs, and what of it is cut short, before it starts."""
        if sets.generates(prior) and not projects_exactly(prior):
            state("verify", self.need(A, prior, *looking), self.bound, show)
        if cut:
            words = "; ".join(f"{name} {why}" for name, why in cut.items())
            logging.getLogger("npgd").info("cut short at this size: %s", words)
            note(f"cut short at this size: {words}", show)

    @property
    def left(self) -> int | None:
        """For each step."""
        return None if self.bound is None else int(self.bound - self.held)

    def limited(self, prior: ImageSet) -> ImageSet:
        """The prior, so few images in a pass that its copy in float64 fits, too."""
        return passing_within(prior, None if self.left is None else self.left / 8)

    def need(
        self,
        A: LinearOperator,
        prior: ImageSet,
        rec: RecSettings,
        projection: ProjectionSettings,
    ) -> float:
        """Bytes, of the step that takes most and of what is held."""
        steps = [needed(A, prior, rec, self.left)]
        if isinstance(prior, GenerativePrior):
            limited: Any = self.limited(prior)
            z = torch.zeros(1, prior.latent_dim, dtype=prior.dtype, device=prior.device)
            one = Footprint.of(lambda z: prior.encode(prior.generate(z)), z)
            passing = min(max(self.count, SAMPLES), limited.rows or SAMPLES)
            tried = projection.points * projection.starts
            searching = min(tried, limited.graph_rows or tried)
            steps.append(2 * ACTIVE * one.largest * passing)
            steps.append(GRAPH * one.total * searching)
        return self.held + max(steps)


def left_out(
    prior: ImageSet, effort: str, rec: RecSettings | None, projection: ProjectionSettings | None
) -> dict[str, str]:
    """What an effort leaves out or cuts short of a set with large Jacobians, and what runs it."""
    if not sets.generates(prior) or entries(prior) <= LARGE:
        return {}
    found = {
        "local rates": f"left out: a Jacobian has {entries(prior):,} numbers; analysis.local_rate"
        " and analysis.fixed_point compute them"
    }
    chosen = RecSettings.of(effort, entries(prior))
    if rec is None:
        found["tangents"] = (
            f"at {chosen.tangent_points} samples, and at as many images; more by"
            " rec=RecSettings(tangent_points=…), --tangent-points"
        )
    if effort == "quick" and rec is None:
        found["searches"] = (
            f"of {chosen.search_steps} steps from {chosen.search_starts} directions; more by"
            " rec=RecSettings(search_starts=…, search_steps=…), --search-starts, --search-steps"
        )
    if effort == "quick" and projection is None:
        at = ProjectionSettings.of(effort, entries(prior))
        found["projector error"] = (
            f"at {at.points} points a family, by searches of {at.steps} steps; more by"
            " projection=ProjectionSettings(points=…, steps=…), --effort default"
        )
    return found
