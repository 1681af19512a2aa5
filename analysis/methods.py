"""The solvers by name, at their own settings, for what runs several beside each other."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npgd import NPGD, GenerativePrior
    from npgd.solvers import Solver


class Method(StrEnum):
    """The solvers, by name."""

    NPGD = "npgd"
    AMP = "amp"
    CSGM = "csgm"
    PGDGAN = "pgdgan"
    DEVIATION = "deviation"
    TV = "tv"
    LASSO = "lasso"
    PNP_ADMM = "pnp-admm"
    ONENET = "onenet"


NAMES = tuple(method.value for method in Method)
BASELINES = {Method.TV: "total variation", Method.PNP_ADMM: "plug-and-play ADMM"}
"""Those that know nothing of the prior and are held beside the others, and what they are called."""


def algorithm(prior: Any, **settings: Any) -> NPGD:
    """Algorithm 1 at NPGD's defaults, of which the theory speaks: never finished on the latent."""
    from npgd import NPGD

    return NPGD(prior, finish=0, **settings)


def algorithm_name(finishes: bool) -> str:
    """How it is called: NPGD(prior), unless that finishes by itself."""
    return "NPGD(prior, finish=0)" if finishes else "NPGD(prior)"


def solver_of(name: str, prior: GenerativePrior, seed: int, noise: float) -> Solver[Any]:
    """The solver of that name.

    Args:
        name: one of `NAMES`.
        prior: what it recovers with, where it needs a prior; its denoiser is the shipped one that
            fits the prior's images.
        seed: of its draws.
        noise: σ_v, for the solver that asks for it (`npgd.Deviation`).
    """
    import npgd
    from npgd import checks
    from npgd.denoisers import fitting_denoiser

    checks.choice(name, "name", *NAMES)
    denoiser = None
    if name in (Method.DEVIATION, Method.PNP_ADMM):
        denoiser = fitting_denoiser(prior.image_shape)
        kind = checks.kind(prior)
        if denoiser is not None and kind is not None:
            denoiser.to(dtype=kind[0], device=kind[1])
    match name:
        case Method.NPGD:
            return npgd.NPGD(prior, seed=seed)
        case Method.AMP:
            return npgd.AMP(prior, seed=seed)
        case Method.CSGM:
            return npgd.CSGM(prior, seed=seed)
        case Method.PGDGAN:
            return npgd.PGDGAN(prior, seed=seed)
        case Method.DEVIATION:
            return npgd.Deviation(prior, denoiser=denoiser, noise=noise, seed=seed)
        case Method.TV:
            return npgd.TotalVariation()
        case Method.LASSO:
            return npgd.Lasso()
        case Method.PNP_ADMM:
            return npgd.PnPADMM(denoiser or npgd.WaveletShrinkage())
        case _:
            return npgd.OneNet()
