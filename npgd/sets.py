"""What a set S of plausible images must offer, by what is done with it.

The theory speaks of S in three ways. Recovery *projects* onto it; tangents, searches and
refinements *generate* from latents (S = {G(z)}); secants are taken between its *samples*. Each is a
protocol here, so that any object with the methods serves: nothing need be inherited.

| to be … | needs | without it |
|---|---|---|
| projected onto | `project(w)` | latent searches (CSGM, PGDGAN, `LatentSearch`) still recover |
| generated from | `generate(z)`, `latent_dim`, `image_shape` | projections and secants remain |
| encoded into | `encode(w)` besides | searches start from random latents alone |
| sampled | `sample(n, generator=, seed=)`, `image_shape` | give images, and η as a number |
| sampled with its latents | `generate` …, `sample_latents(n, generator=, seed=)` | z ~ N(0, I) |

Ask with `projects`, `generates`, `encodes`, `samples` and `samples_latents`, which narrow the type,
where there is another way without; where there is none, `needs` says at the door what S lacks and
what still works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias, TypeGuard, runtime_checkable

import torch

from npgd import checks
from npgd.checks import ImageShape
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
    def image_shape(self) -> ImageShape:
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
    def image_shape(self) -> ImageShape:
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

# What the protocols ask for, for `needs`.
PROJECTABLE: Final = ("project",)
SAMPLED: Final = ("sample", "image_shape")
GENERATED: Final = ("generate", "latent_dim", "image_shape")
ENCODED: Final = (*GENERATED, "encode")
LATENT_SAMPLED: Final = (*GENERATED, "sample_latents")

_NUMBERS = ("latent_dim", "image_shape")  # everything else is a method

REMAINS = {
    "project": "latent searches (CSGM, PGDGAN, LatentSearch) do without it",
    "generate": "projections (NPGD) and secants do without it",
    "latent_dim": "projections (NPGD) and secants do without it",
    "encode": "projections, secants, tangents and searches from random latents do without it",
    "sample": "with images of your own, and step_size as a number, you do without it",
    "sample_latents": "latents z ~ N(0, I) of your own do instead",
    "image_shape": "a bare projection w → P(w) does without it",
}
"""What still works, by what S lacks."""
LOADS: Final = "npgd.load_prior reads a name or a file"
"""What makes a set of a name."""


def projects(S: object) -> TypeGuard[Projectable]:
    """Whether S can be projected onto."""
    return not lacking(S, *PROJECTABLE)


def generates(S: object) -> TypeGuard[Generated]:
    """Whether S can be generated from."""
    return not lacking(S, *GENERATED)


def encodes(S: object) -> TypeGuard[Encoded]:
    """Whether S can be encoded into."""
    return not lacking(S, *ENCODED)


def samples(S: object) -> TypeGuard[Sampled]:
    """Whether S can be sampled."""
    return not lacking(S, *SAMPLED)


def samples_latents(S: object) -> TypeGuard[LatentSampled]:
    """Whether S draws its own latents."""
    return not lacking(S, *LATENT_SAMPLED)


def lacking(S: object, *names: str) -> tuple[str, ...]:
    """Those of `names` that S has not; a method must be callable."""
    return tuple(
        name
        for name in names
        if not hasattr(S, name) or not (name in _NUMBERS or callable(getattr(S, name)))
    )


def needs(S: object, *names: str, what: str, name: str = "prior") -> None:
    """Raise TypeError unless S has all of `names`.

    The sentence says what asks for them, what S lacks, and what still works without it:

        prior must have `project` for NPGD, got MyPrior without `project`; latent searches (CSGM,
        PGDGAN, LatentSearch) do without it

    Args:
        S: the set.
        names: attributes, for instance `*GENERATED`.
        what: what asks for them, in words.
        name: of the argument that S came as.
    """
    missing = lacking(S, *names)
    if missing:
        wanted, got = (", ".join(f"`{entry}`" for entry in listed) for listed in (names, missing))
        remains = f"; {_remains(S, missing[0])}" if missing[0] in REMAINS else ""
        wrapped = _wrapped(S, missing)
        raise TypeError(
            f"{name} must have {wanted} for {what}, got {type(S).__name__} without {got}"
            f"{wrapped or remains}"
        )


def projector(S: object, name: str = "prior") -> Projector:
    """P of a set, or of a bare callable w → P(w); TypeError for anything else."""
    if projects(S):
        return S.project
    # These call what they wrap; another module with a set inside may be a projection of its own.
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    wrapped = _wrapped(S, ["project"]) if isinstance(S, parallel) else ""
    if wrapped:
        raise TypeError(f"{name} must have `project(w)`, got {type(S).__name__} without{wrapped}")
    if callable(S):
        return S
    raise TypeError(
        f"{name} must have `project(w)` or be callable, got {checks.shown(S)};"
        f" {_remains(S, 'project')}"
    )


def _wrapped(S: object, missing: Sequence[str]) -> str:
    """What to give in place of a wrapper that hides what its module has, as DataParallel does."""
    parts = getattr(S, "_modules", None) or {}
    for part in ("module", "_orig_mod", *parts):
        if missing and not lacking(getattr(S, part, None), *missing):
            return f", which its `{part}` has; give that, and wrap networks alone"
    return ""


def _remains(S: object, lacks: str) -> str:
    """What still works; for a name, what makes a set of it."""
    return LOADS if isinstance(S, str) else REMAINS[lacks]
