"""What a set S of plausible images must offer, by what is done with it.

The theory speaks of S in three ways. Recovery *projects* onto it; tangents, searches and
refinements *generate* from latents (S = {G(z)}); secants are taken between its *samples*. Each is a
protocol here, so that any object with the methods serves: nothing need be inherited.

| to be … | needs | without it |
|---|---|---|
| projected onto | `project(w)` | latent searches (CSGM, `LatentSearch`) still recover |
| generated from | `generate(z)`, `latent_dim`, `image_shape` | projections and secants remain |
| encoded into | `encode(w)` besides | searches start from random latents alone |
| sampled | `sample(n, generator=, seed=)`, `image_shape` | give images, and η as a number |

What asks for more than S has says so at the door, by `needs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeGuard, runtime_checkable

import torch

from npgd import checks
from npgd.images import Images, Latents


@runtime_checkable
class Projectable(Protocol):
    """Can be projected onto."""

    def project(self, w: Images, /) -> Images:
        """P(w), a point of S near w."""
        ...


@runtime_checkable
class Sampled(Protocol):
    """Can be sampled."""

    @property
    def image_shape(self) -> checks.ImageShape:
        """(channels, height, width)."""
        ...

    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Images:
        """n points of S, from a generator or a seed (one of the two)."""
        ...


@runtime_checkable
class Generated(Protocol):
    """Can be generated from: S = range(G), or part of it."""

    @property
    def latent_dim(self) -> int:
        """Dimension k of z."""
        ...

    @property
    def image_shape(self) -> checks.ImageShape:
        """(channels, height, width)."""
        ...

    def generate(self, z: Latents, /) -> Images:
        """G(z)."""
        ...


@runtime_checkable
class Encoded(Generated, Protocol):
    """Can be encoded into: an inverse of G, exact or approximate."""

    def encode(self, w: Images, /) -> Latents:
        """G†(w), the latent of a point near w."""
        ...


@runtime_checkable
class LatentSampled(Generated, Protocol):
    """Draws its own latents."""

    def sample_latents(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Latents:
        """n latents, from a generator or a seed (one of the two)."""
        ...


ImageSet: TypeAlias = Projectable | Generated | Sampled
"""A set S: what is asked of it beyond this is said where it is used."""

Projector: TypeAlias = Callable[[Images], Images]
"""w → P(w)."""

REMAINS = {
    "project": "latent searches (CSGM, PGDGAN, LatentSearch) do without",
    "generate": "projections and secants do without",
    "latent_dim": "projections and secants do without",
    "encode": "projections by `project`, secants and tangents do without",
    "sample": "with images of your own, and step_size as a number, you do without",
    "image_shape": "a bare projection w → P(w) does without",
}
"""What still works, by what S lacks."""


def projects(S: object) -> TypeGuard[Projectable]:
    """Whether S can be projected onto."""
    return not lacking(S, "project")


def generates(S: object) -> TypeGuard[Generated]:
    """Whether S can be generated from."""
    return not lacking(S, "generate", "latent_dim", "image_shape")


def encodes(S: object) -> TypeGuard[Encoded]:
    """Whether S can be encoded into."""
    return not lacking(S, "generate", "latent_dim", "image_shape", "encode")


def samples(S: object) -> TypeGuard[Sampled]:
    """Whether S can be sampled."""
    return not lacking(S, "sample", "image_shape")


def samples_latents(S: object) -> TypeGuard[LatentSampled]:
    """Whether S draws its own latents."""
    return not lacking(S, "generate", "latent_dim", "image_shape", "sample_latents")


def lacking(S: object, *names: str) -> tuple[str, ...]:
    """Those of `names` that S has not."""
    return tuple(name for name in names if not hasattr(S, name))


def needs(S: object, *names: str, what: str, name: str = "prior") -> None:
    """Raise TypeError unless S has all of `names`: it says what asks for them, and what remains."""
    missing = lacking(S, *names)
    if missing:
        wanted = ", ".join(f"`{entry}`" for entry in names)
        got = ", ".join(f"`{entry}`" for entry in missing)
        raise TypeError(
            f"{name} must have {wanted} for {what}, got {type(S).__name__} without {got};"
            f" {REMAINS.get(missing[0], 'nothing else here needs it')}"
        )


def projector(S: object, name: str = "prior") -> Projector:
    """P of a set, or of a bare callable w → P(w); TypeError for anything else."""
    if projects(S):
        return S.project
    if callable(S):
        return S
    raise TypeError(
        f"{name} must have `project(w)` or be callable, got {type(S).__name__};"
        f" {REMAINS['project']}"
    )
