"""A projector or a denoiser as one map (w, σ) ↦ D(w; σ), and its divergence.

The divergence of a map D: ℝⁿ → ℝⁿ is the trace of its Jacobian, the sum of ∂D_i/∂w_i over all n
pixels. Message passing subtracts it, and state evolution predicts with it. It is estimated along
a probe b of independent signs, E⟨b, J b⟩ = tr J (Hutchinson 1990; Ramani, Blu, Unser, IEEE TIP
17(9), 2008, for a D known by its values alone), or computed exactly in the latent: for P = G∘G†
with k latents, tr(J_G J_G†) = tr(J_G† J_G), k products with either Jacobian.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter

import torch
from jaxtyping import Float
from torch import nn

from npgd import checks
from npgd.gauss_newton import jacobian
from npgd.images import Images, PerImage, inner, norm
from npgd.precision import plainly
from npgd.sets import LOADS, REMAINS, Encoded, ImageSet, Projector, encodes, projector, projects

Denoiser = Callable[..., Images]
"""(w, σ) ↦ an estimate of x from w = x + noise of standard deviation σ per pixel, both batched: σ
has shape (batch,)."""
Estimator = Callable[[Images, PerImage], Images]
"""(w, σ) ↦ D(w; σ); a projector's takes no notice of σ."""
Probe = Float[torch.Tensor, "batch ..."]
"""Signs of pixels or of latents, for each image."""

PIXEL_STEP = 0.05
"""Length of a step along a probe of pixels, in units of σ."""
LATENT_STEP = 0.02
"""Length of a step along a probe of latents."""


def estimator(S: ImageSet | Projector | Denoiser, name: str = "prior") -> Estimator:
    """One map (w, σ) ↦ image of a set with `project(w)`, a callable w ↦ P(w) or (w, σ) ↦ D(w; σ).

    A callable that needs two arguments is a denoiser, one that needs one a projector.

    Raises:
        TypeError: it is none of these.
    """
    if projects(S):
        project = S.project
        return lambda w, sigma: _kept(project(w), w, name)
    if not callable(S):
        raise TypeError(
            f"{name} must have `project(w)` or be callable as w or (w, sigma), got"
            f" {checks.shown(S)}; {LOADS if isinstance(S, str) else REMAINS['project']}"
        )
    call: Callable[..., Images] = S
    if denoises(S):
        return lambda w, sigma: _kept(call(w, sigma), w, name)
    plain = projector(S, name)
    return lambda w, sigma: _kept(plain(w), w, name)


def check_denoiser(D: object, name: str = "denoiser") -> None:
    """Raise TypeError for what cannot be called as (w, sigma): a set is projected onto instead."""
    if not callable(D) or projects(D):
        way = "; npgd.load_denoiser reads a name or a file" if isinstance(D, str) else ""
        raise TypeError(f"{name} must be callable as (w, sigma), got {checks.shown(D)}{way}")


def denoises(S: object) -> bool:
    """Whether it is told σ: a callable that is no projector and needs two arguments."""
    if projects(S) or not callable(S):
        return False
    try:
        known = inspect.signature(S.forward if isinstance(S, nn.Module) else S).parameters
    except (TypeError, ValueError):  # of a callable that is written in C
        return False
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in known.values()) >= 2


def _kept(x: object, w: Images, name: str) -> Images:
    """x; ValueError or TypeError unless it is images as w are."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must give tensors, got {checks.shown(x)}")
    if x.shape != w.shape:
        raise ValueError(f"{name} must keep the shape {tuple(w.shape)}, got {tuple(x.shape)}")
    return x


def signs(S: object, w: Images, generator: torch.Generator) -> Probe:
    """A probe for each image: independent signs ±1 of the latents where S = {G(z)} has `encode`,
    of the pixels elsewhere; drawn on the CPU."""
    size = (len(w), S.latent_dim) if encodes(S) else tuple(w.shape)
    drawn = torch.randint(2, size, generator=generator, dtype=torch.int8)
    return (2 * drawn - 1).to(w)


def probed_divergence(
    S: ImageSet | Projector | Denoiser, w: Images, sigma: PerImage, probe: Probe
) -> PerImage:
    """The divergence at w along one probe, by central differences; its mean over probes is right.

    Of pixels, b: ⟨b, D(w + h b; σ) − D(w − h b; σ)⟩/2h with h = 0.05 σ. Of latents, s, for
    P = G∘G†: ⟨s, J_G†(w) J_G(z) s⟩, which is k whatever s is for an exact projection, and spreads
    far less near one.

    Args:
        S: the projector or denoiser.
        w: images.
        sigma: σ of each.
        probe: as `signs` draws it.
    """
    if encodes(S):
        z, h = S.encode(w), LATENT_STEP
        along = (S.generate(z + h * probe) - S.generate(z - h * probe)) / 2
        return inner(probe, S.encode(w + along) - S.encode(w - along)) / (2 * h)
    estimate = estimator(S)
    # Not below what a difference in this precision still resolves.
    least = torch.finfo(w.dtype).eps ** 0.5 * (norm(w) / w[0].numel() ** 0.5 + 1)
    width = torch.maximum(PIXEL_STEP * sigma, least)
    moved = width.reshape(-1, 1, 1, 1) * probe
    return inner(probe, estimate(w + moved, sigma) - estimate(w - moved, sigma)) / (2 * width)


@plainly
def latent_divergence(prior: Encoded, w: Images) -> PerImage:
    """The divergence of P = G∘G† at w, exactly: Σ_j ⟨J_G†(w)ᵀ e_j, J_G(z) e_j⟩, z = G†(w).

    The k columns of J_G(z) by forward mode, the k rows of J_G†(w) by reverse mode, over the whole
    batch.
    """
    with torch.no_grad():
        z, pull, *_ = torch.func.vjp(prior.encode, w)
        columns = jacobian(prior, z)
        total = w.new_zeros(len(w))
        for j in range(prior.latent_dim):
            along = torch.zeros_like(z)
            along[:, j] = 1
            (row,) = pull(along)
            total += inner(row, columns[:, j])
    return total
