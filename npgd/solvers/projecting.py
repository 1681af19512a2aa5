"""How well P = G∘G† projects, told by a few samples: what it misses beyond the nearest points.

An encoder that was trained to project answers noise with the nearest point, or one as near. One
that was trained for something else, such as a variational autoencoder's, does not, and Algorithm 1
then stops early. NPGD asks here whether to end such a run with steps on the latent.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch

from npgd.images import Images, squared_norm
from npgd.latent import evaluate
from npgd.priors import GenerativePrior
from npgd.projectors import AffineSet, LatentRefinement, LatentSearch
from npgd.sets import encodes, projector, projects, samples
from npgd.solvers.step_size import drawn

SHARE = 0.05
"""Of strong noise, what P may leave beyond the nearest points."""
POINTS = 8
"""Samples that tell it."""
SAME = 1e-6
"""Of ‖P(w)‖², by which ‖G(G†(w)) − P(w)‖² may differ from 0 where P is G∘G†."""


@torch.no_grad()
def missed(prior: object, points: Images | None = None) -> float:
    """Σ‖P(x + v) − x‖²/Σ‖x − x̄‖² − k/n over eight samples x of S, x̄ their mean: 0 or less where P
    projects as well as onto a flat set.

    v is white noise as strong as the spread, E‖v‖² = mean ‖x − x̄‖², such as a run's first steps
    make; the nearest point of a flat set leaves k/n of it. Of P = G∘G† alone, which projects as
    well as G† was trained to; else 0, as of a prior with a `project` of its own, one that cannot
    be sampled, or whose samples are all the same. The package's own have 0.02 at most, the plain
    autoencoders of `paper_figures/table_vae.py` 0.12 to 0.19, an encoder that says nothing 1 or
    more. Of networks of the package it is measured once, and again where a weight has changed.

    Args:
        prior: any set, or a bare projection.
        points: `drawn(prior)`, where they are at hand.
    """
    if not (projects(prior) and samples(prior) and encodes(prior)):
        return 0.0
    if isinstance(prior, AffineSet | LatentRefinement | LatentSearch):  # exact, or a search
        return 0.0
    state = _state(prior)
    if state is None:
        return _measured(prior, points)
    if prior not in _KNOWN or _KNOWN[prior][0] != state:
        _KNOWN[prior] = state, _measured(prior, points)
    return _KNOWN[prior][1]


_KNOWN: WeakKeyDictionary[object, tuple[Hashable, float]] = WeakKeyDictionary()
"""What was measured of a prior, and its state then."""


def _state(prior: object) -> Hashable | None:
    """All that P of the package's own networks depends on; None of others, which may hide some."""
    if type(prior) is not GenerativePrior:
        return None
    modules, tensors = list(prior.modules()), [*prior.parameters(), *prior.buffers()]
    known = all(type(module).__module__.startswith(("npgd.", "torch.nn.")) for module in modules)
    if not known or any(tensor.is_inference() for tensor in tensors):
        return None
    versions = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)
    return versions, tuple(module.training for module in modules), prior.corrections


def is_composed(prior: object) -> bool:
    """Whether P is G∘G† because it is written so."""
    return getattr(type(prior), "project", None) is GenerativePrior.project


def _measured(prior: Any, points: Images | None) -> float:
    """What `missed` says, by a pass."""
    points = drawn(prior) if points is None else points
    assert points is not None
    x = points[:POINTS]
    spread, n = float(squared_norm(x - x.mean(0)).sum()), x[0].numel()
    rounding = 8 * torch.finfo(x.dtype).eps  # of x̄
    if not spread > rounding**2 * float(squared_norm(x).sum()):
        return 0.0
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    noisy = x + (spread / (len(x) * n)) ** 0.5 * v
    projected = projector(prior)(noisy)
    if not is_composed(prior):
        off = squared_norm(projected - prior.generate(prior.encode(noisy)))
        if float(off.sum()) > SAME * float(squared_norm(projected).sum()):
            return 0.0
    left = float(squared_norm(projected - x).sum())
    return left / spread - float(prior.latent_dim) / n


def finishes(prior: Any, points: Images | None = None) -> bool:
    """Whether NPGD(prior) finishes unless told otherwise: `missed` is above a twentieth, and a
    gradient passes through G, as none does through a function of numpy arrays."""
    return missed(prior, points) > SHARE and _has_gradient(prior, points)


def _has_gradient(prior: Any, points: Images | None) -> bool:
    """Whether G can be differentiated at the latent of a sample."""
    points = drawn(prior) if points is None else points
    assert points is not None
    with torch.no_grad():
        z = prior.encode(points[:1])
    try:
        evaluate(prior, z, points[:1].flatten(1), lambda x: x.flatten(1))
    except (TypeError, RuntimeError):  # as `finish` would be told
        return False
    return True
