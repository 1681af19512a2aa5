"""The solvers by name, at their own settings, for what runs several beside each other."""

from __future__ import annotations

from typing import Any

import npgd
from npgd import checks
from npgd.denoisers import fitting_denoiser
from npgd.solvers import Solver

NAMES = ("npgd", "amp", "csgm", "pgdgan", "deviation", "tv", "lasso", "pnp-admm", "onenet")


def solver_of(name: str, prior: npgd.GenerativePrior, seed: int, noise: float) -> Solver[Any]:
    """The solver of that name.

    Args:
        name: one of `NAMES`.
        prior: what it recovers with, where it needs a prior; its denoiser is the shipped one that
            fits the prior's images.
        seed: of its draws.
        noise: σ_v, for the solver that asks for it (`npgd.Deviation`).
    """
    checks.choice(name, "name", *NAMES)
    denoiser = None
    if name in ("deviation", "pnp-admm"):
        denoiser = fitting_denoiser(prior.image_shape)
        kind = checks.kind(prior)
        if denoiser is not None and kind is not None:
            denoiser.to(dtype=kind[0], device=kind[1])
    match name:
        case "npgd":
            return npgd.NPGD(prior, seed=seed)
        case "amp":
            return npgd.AMP(prior, seed=seed)
        case "csgm":
            return npgd.CSGM(prior, seed=seed)
        case "pgdgan":
            return npgd.PGDGAN(prior, seed=seed)
        case "deviation":
            return npgd.Deviation(prior, denoiser=denoiser, noise=noise, seed=seed)
        case "tv":
            return npgd.TotalVariation()
        case "lasso":
            return npgd.Lasso()
        case "pnp-admm":
            return npgd.PnPADMM(denoiser or npgd.WaveletShrinkage())
        case _:
            return npgd.OneNet()
