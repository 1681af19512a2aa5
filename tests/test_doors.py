"""Every public name examines what comes in: it takes what fits, and refuses the rest by name.

`DOORS` holds one valid call of every public name, and says of each argument what it is (`ROLES`).
Each argument is then replaced by each of the bad values, one at a time. A door may do one of two
things: raise TypeError or ValueError with a sentence that names the argument, or take the value
where the argument's role allows it, which is the list of everything that may pass.
"""

import dataclasses
import math
import random
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import analysis
import npgd
from analysis import projection, rates, rec, report, testing
from analysis.design.numax import numax
from npgd import checks, gauss_newton, latent, networks, sets, transforms
from npgd.operators import LinearOperator
from npgd.showing import Drawn, Shown
from npgd.solvers import Solver

SHAPE = (1, 8, 8)
N, M, K = 64, 5, 2


class Halved(LinearOperator):
    """The first m pixels, halved."""

    def _forward(self, x):
        return x.flatten(1)[:, : self.m] / 2

    def _adjoint(self, y):
        out = y.new_zeros(len(y), self.n)
        out[:, : self.m] = y / 2
        return out.reshape(-1, *self.image_shape)


class Resting(Solver):
    """Stays at Aᵀ y."""

    def init(self, A, y):
        return dataclasses.make_dataclass("State", ["x"])(A.adjoint(y))

    def step(self, A, y, state):
        return state


def halved(x):
    return x / 2


class Things:
    """What the valid calls are made of, in float64 and without gradients."""

    A = testing.random_operator("gaussian", SHAPE, M)
    prior = testing.random_prior(SHAPE, K)
    affine = testing.random_affine_set(SHAPE, K)
    finite = testing.random_finite_set(SHAPE, 5)
    x = testing.random_images(SHAPE, 3)
    z = testing.normal(3, K)
    y = testing.normal(3, M)
    inside = affine.sample(3, seed=0)
    problem = testing.random_problem(A, affine)
    run = npgd.recover(A, A(inside), npgd.NPGD(affine, 0.1, max_iter=3), inside, True)
    parts = analysis.decompose(A, A(inside), inside, run.iterates, 0.1)
    curve = analysis.denoising_curve(prior, x, sigma=[0.1, 1.0], draws=1)
    small = networks.DenoisingNetwork(4).double().requires_grad_(False)
    smooth = npgd.GenerativePrior(
        networks.TanhGenerator(K, 4, image_size=8).double(),
        nn.Sequential(nn.Flatten(), nn.Linear(N, K)).double(),
        K,
        SHAPE,
    ).requires_grad_(False)
    generator_network = networks.DCGANGenerator(K, 4).requires_grad_(False)


T = Things

BAD: dict[str, Any] = {
    "None": None,
    "NaN": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "-1.5": -1.5,
    "-1": -1,
    "0": 0,
    "2.5": 2.5,
    "complex": 1 + 2j,
    "True": True,
    "numpy bool": np.True_,
    "numpy complex": np.complex128(1 + 1j),
    "bytes": b"1",
    "bytearray": bytearray(b"2"),
    "number as text": "1",
    "text": "nonsense",
    "empty text": "",
    "10**400": 10**400,
    "-10**400": -(10**400),
    "10**5000": 10**5000,
    "list": [1.0, 2.0],
    "ragged list": [[1.0], [2.0, 3.0]],
    "tuple": (1, 2),
    "dict": {"a": 1},
    "object": object(),
    "numpy floats": np.ones(3),
    "numpy NaN": np.full((2, 2), math.nan),
    "numpy text": np.array(["a"]),
    "0-d tensor": torch.tensor(0.5, dtype=torch.float64),
    "0-d NaN": torch.tensor(math.nan),
    "0-d bool": torch.tensor(True),
    "0-d complex": torch.tensor(1j),
    "one-element tensor": torch.ones(1, 1, 1),
    "complex tensor": torch.ones(2, 3, dtype=torch.complex64),
    "bool tensor": torch.ones(7, dtype=torch.bool),
    "integer tensor": torch.ones(2, 3, dtype=torch.int64),
    "empty tensor": torch.empty(0),
    "6-d tensor": torch.zeros(1, 1, 1, 1, 1, 1),
    "sparse tensor": torch.eye(3).to_sparse(),
    "meta tensor": torch.empty(2, 3, device="meta"),
}


def spoiled(x: torch.Tensor) -> dict[str, Any]:
    """A tensor that fits, in ways that do not fit."""
    unreal = {}
    if x.is_floating_point():
        holed, endless = x.clone(), x.clone()
        holed.view(-1)[0], endless.view(-1)[-1] = math.nan, math.inf
        unreal = {"NaN in it": holed, "inf in it": endless, "as booleans": x > 0}
    return {
        **unreal,
        "as complex": x.to(torch.complex128),
        "as integers": x.to(torch.int32),
        "as half": x.half(),
        "as bfloat16": x.bfloat16(),
        "as float32": x.float(),
        "as list": x.tolist(),
        "as numpy": x.numpy(),
        "one dimension more": x[None],
        "one dimension less": x[0],
        "one entry more": torch.cat([x, x[..., :1]], dim=-1),
        "empty batch": x[:0],
        "on meta": x.to("meta"),
        "as sparse": x.to_sparse(),
    }


# What an argument is: the kinds of bad values (see `BAD`) that fit it all the same, and why. ------

MAPPED = {"empty batch", "NaN in it", "inf in it"}
"""What a map takes: it does not read its data, which recovering and measuring do."""

NO_LIKE = {
    *(kind for kind, value in BAD.items() if not isinstance(value, torch.Tensor)),
    *("0-d bool", "0-d complex", "complex tensor", "bool tensor", "integer tensor"),
    *("sparse tensor", "meta tensor", "as complex", "as integers", "as booleans", "as list"),
    *("as numpy", "on meta", "as sparse"),
}
"""What no tensor can be made like."""
ROLES: dict[str, tuple[set[str], str]] = {
    "count": (set(), "a whole number of at least 1"),
    "count or 0": ({"0"}, "none is a number of things"),
    "counts": ({"tuple"}, "whole numbers in a row"),
    "seed": ({"0"}, "0 is a seed"),
    "positive": ({"2.5", "0-d tensor"}, "positive numbers"),
    "not negative": ({"0", "2.5", "0-d tensor"}, "numbers of at least 0"),
    "share": ({"0-d tensor"}, "numbers between 0 and 1"),
    "real": ({"0", "-1", "-1.5", "2.5", "0-d tensor"}, "any finite number"),
    "constant": (
        {"0", "2.5", "0-d tensor", "list", "tuple", "numpy floats"},
        "one number for all images, or one for each",
    ),
    "positive constant": (
        {"2.5", "0-d tensor", "list", "tuple", "numpy floats"},
        "one number for all images, or one for each",
    ),
    "at most 1": ({"0-d tensor", "numpy floats"}, "as a constant, that stands below another"),
    "flag": ({"True", "numpy bool"}, "yes or no"),
    "given": (set(), "nothing but its own kind"),
    "measured": (MAPPED, "a map of no image gives none; NaN goes through it"),
    "drawn images": (MAPPED, "a map of no image gives none; NaN goes through it"),
    "text": ({"text", "number as text", "empty text"}, "a name in words"),
    "any precision": (
        MAPPED | {"as float32", "as half", "as bfloat16"},
        "a map that has no precision of its own keeps that of its images",
    ),
    "floats": (MAPPED | {"as float32", "as half", "as bfloat16"}, "looked at, not used"),
    "converted images": (
        {"as float32", "as half", "as bfloat16", "empty batch"},
        "brought to the prior's precision",
    ),
    "converted points": (
        {"as float32", "as half", "as bfloat16"},
        "brought to the prior's precision",
    ),
    "images of a set": ({"as float32", "as half", "as bfloat16"}, "measured in float64"),
    "points": ({"as float32", "one entry more"}, "any images are a set"),
    "offset": ({"as float32", "as half", "as bfloat16"}, "brought to the basis's precision"),
    "starts": (
        {"as float32", "as half", "as bfloat16", "empty batch", "None"},
        "brought to the images' precision; None for none",
    ),
    "order": (
        {"None", "as list", "as numpy", "as integers"},
        "the order of the points is the default",
    ),
    "mask": ({"as numpy", "one dimension less"}, "numpy masks serve; one for all channels"),
    "weights": (
        {"None", "as float32", "as half", "as bfloat16"},
        "uniform by default; only their proportions matter",
    ),
    "matrix": ({"as numpy", "as float32"}, "a matrix of any library"),
    "complex matrix": (
        {"as numpy", "as float32", "as complex"},
        "a matrix of any library, real or complex",
    ),
    "numpy": ({"as numpy"}, "a tensor or an array"),
    "two numbers": ({"tuple", "list"}, "low and high"),
    "measured by another": (
        {"as numpy", "as float32", "as half", "as bfloat16"},
        "brought to the prior's precision",
    ),
    "kernel": (
        {"as numpy", "as float32", "one entry more", "one dimension more", "one-element tensor"},
        "a kernel of any size and library",
    ),
    "plane": ({"as numpy"}, "a tensor or an array"),
    "coils": ({"as numpy", "as complex"}, "a complex tensor or array"),
    "angles": (
        {"0", "-1", "-1.5", "2.5", "list", "tuple", "numpy floats"},
        "numbers in a row, or how many",
    ),
    "spectrum": (MAPPED | {"as float32"}, "a view of what there is"),
    "at least 1": ({"2.5", "0-d tensor"}, "1 measures all"),
    "share or 0": ({"0", "0-d tensor"}, "numbers from 0 on, below 1"),
    "measurements": (
        MAPPED | {"as numpy", "as float32", "as half", "as bfloat16"},
        "brought into the form (batch, m), in whatever precision",
    ),
    "whitening": (
        {"0-d tensor", "as float32", "as half", "as bfloat16"},
        "a multiple of the identity; brought to the measurements' precision",
    ),
    "condition": ({"2.5", "0-d tensor"}, "a ratio of at least 1"),
    "levels": ({"2.5", "0-d tensor", "tuple"}, "positive numbers; the first and the last"),
    "two levels": ({"tuple"}, "positive numbers; the first and the last"),
    "a solver or None": ({"None"}, "None is the solver's own"),
    "shape": (set(), "three sides"),
    "thing": (set(BAD), "what is no module is returned as it is"),
    "anything": (set(BAD), "asked, not used"),
    "history": ({"as float32", "as half", "as bfloat16", "one entry more"}, "fitted in float64"),
    "any batch": (
        {"as float32", "one dimension more", "one entry more", "6-d tensor", "one-element tensor"},
        "rows of any shape",
    ),
    "secants": ({"as float32"}, "brought to float64"),
    "ratios": ({"list", "tuple", "numpy floats"}, "NaN is a pair without a secant"),
    "forward": (MAPPED | {"as float32"}, "a map of no image gives none; NaN goes through it"),
    "sigmas or none": (
        {"None", "list", "tuple", "numpy floats", "one-element tensor"},
        "numbers in a row",
    ),
    "sigmas": ({"list", "tuple", "numpy floats"}, "numbers in a row"),
    "in float64": ({"as float32", "as half", "as bfloat16"}, "whatever comes is made float64"),
    "own iterates": (
        {"None", "NaN in it", "inf in it"},
        "NPGD's are the default; a run that is not finite fails the check",
    ),
    "numbers": ({"list"}, "numbers in a row"),
    "share or more": ({"2.5", "0-d tensor"}, "it stays below β = 10"),
    "kinds": ({"None"}, "KINDS are the default"),
    "settings": ({"None"}, "those of the effort are the default"),
    "float dtype": (set(), "float32 or float64"),
    "reach": ({"inf", "2.5", "0-d tensor"}, "an infinite reach is the default"),
    "any tensor": (
        {kind for kind in (*BAD, *spoiled(torch.ones(2, 2))) if kind not in NO_LIKE},
        "its dtype and device, whatever it holds",
    ),
    "angle": ({"0", "0-d tensor"}, "numbers from 0 to 1"),
    "at most 1 or 0": ({"0", "2.5", "0-d tensor"}, "A may map two points of S to one"),
    "drawn count": ({"None"}, "a number, or a strategy of them"),
}


def optional(role: str) -> str:
    accepted, why = ROLES[role]
    ROLES[f"{role}, or none"] = accepted | {"None"}, f"{why}; None is the default"
    return f"{role}, or none"


OF_NONE = {role: optional(role) for role in list(ROLES)}


@dataclasses.dataclass(frozen=True)
class Door:
    """A valid call, argument by argument, and what each of them is."""

    call: Callable[..., Any]
    arguments: dict[str, tuple[Any, str]]

    def __call__(self, **changes: Any) -> Any:
        return self.call(**{name: value for name, (value, _) in self.arguments.items()} | changes)


def door(call: Callable[..., Any], **arguments: tuple[Any, str]) -> Door:
    return Door(call, arguments)


SHAPED = {"image_shape": (SHAPE, "given")}
SEEDED = {"seed": (0, "seed")}
STEPS = {
    "max_iter": (4, "count"),
    "tol": (1e-5, "not negative"),
    "patience": (3, OF_NONE["count"]),
}
SHOWN = {"progress": (False, "flag")}
ADAM = {
    "learning_rate": (0.1, "positive"),
    "penalty": (0.1, "not negative"),
    "rows": (64, "count"),
    **SEEDED,
}
LOOKING = {"points": (8, OF_NONE["count"]), **SEEDED}
RUN = {
    "A": (T.A, "given"),
    "y": (T.A(T.inside), "in float64"),
    "x_true": (T.inside, "in float64"),
    "iterates": (T.run.iterates, "in float64"),
    "step_size": (0.1, "positive"),
}
CONSTANTS = {
    "alpha": (0.5, "at most 1"),
    "beta": (1.0, "positive constant"),
    "delta": (0.1, "constant"),
}
PREDICTED = {**CONSTANTS, "step_size": (1.0, OF_NONE["positive"]), "noise": (0.1, "constant")}
PROGRAM = {
    "alpha": (0.6, "share"),
    "beta": (1.0, "positive"),
    "n_iter": (1, "count"),
    "step_size": (1.0, "positive"),
    "delta": (0.0, "not negative"),
    "noise": (0.0, "not negative"),
}
NETWORK = {"width": (8, "count"), "channels": (1, "count")}
WIDE = {"latent_dim": (2, "count"), **NETWORK}
SIZED = {"image_size": (28, "given")}
PRODUCTS = {"x": (T.x, "measured")}
BASIN = {
    "radii": ((0.1, 1.0), OF_NONE["sigmas"]),
    "draws": (3, "count"),
    "epsilon": (0.1, "share"),
    "wanted": (0.5, "share"),
    "n_iter": (3, "count"),
    **SEEDED,
    **SHOWN,
}
DRAWING = {"n": (2, "count"), "seed": (0, "seed")}
OPERATOR = {"A": (T.A, "given")}


def methods(name: str, thing: Any, **more: tuple[Any, str]) -> dict[str, Door]:
    """The doors of a set: to generate from, encode into, project onto and sample."""
    found = {}
    for method, argument in (
        ("project", ("w", T.x)),
        ("encode", ("w", T.x)),
        ("generate", ("z", T.z)),
    ):
        if hasattr(thing, method):
            what = {argument[0]: (argument[1], "drawn images")}
            found[f"{name}.{method}"] = door(getattr(thing, method), **what)
    if hasattr(thing, "sample"):
        found[f"{name}.sample"] = door(thing.sample, **DRAWING)
        found[f"{name}.sample by generator"] = door(
            lambda n, generator, thing=thing: thing.sample(n, generator=generator),
            n=(2, "count"),
            generator=(torch.Generator(), "given"),
        )
    return found


def solved(solver: Callable[..., Any]) -> Callable[..., Any]:
    """A solver that is not only made, but used."""

    def call(**settings: Any) -> Any:
        made = solver(**settings)
        return npgd.recover(T.A, T.y, made)

    return call


def checked(check: Callable[..., Any]) -> Callable[..., Any]:
    """A check of `analysis.testing`, whose verdict is not looked at."""

    def call(**arguments: Any) -> Any:
        try:
            return check(**arguments)
        except AssertionError:
            return None

    return call


def drawn(strategy: Callable[..., Any]) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        made = strategy(**arguments)
        made.validate()
        return made

    return call


FOURIER = npgd.Fourier(SHAPE, npgd.cartesian_mask(SHAPE, 2), testing.normal(2, 8, 8) + 0j)
EASY = {"w": (T.x, "drawn images")}
DOORS: dict[str, Door] = {
    # npgd: operators
    "Gaussian": door(
        npgd.Gaussian, **SHAPED, m=(M, "count"), **SEEDED, dtype=(torch.float64, "given")
    ),
    "MatrixOperator": door(npgd.MatrixOperator, matrix=(testing.normal(M, N), "matrix"), **SHAPED),
    "MatrixOperator.forward": door(T.A, **PRODUCTS),
    "MatrixOperator.adjoint": door(T.A.adjoint, y=(T.y, "measured")),
    "LinearOperator": door(Halved, **SHAPED, m=(M, "count")),
    "LinearOperator.forward": door(Halved(SHAPE, M), x=(T.x, "any precision")),
    "LinearOperator.adjoint": door(Halved(SHAPE, M).adjoint, y=(T.y, "any precision")),
    "Inpainting": door(npgd.Inpainting, **SHAPED, hole=(2, "count or 0")),
    "Inpainting by mask": door(
        lambda image_shape, mask: npgd.Inpainting(image_shape, mask=mask),
        **SHAPED,
        mask=(torch.ones(1, 8, 8, dtype=torch.bool), "mask"),
    ),
    "Inpainting.forward": door(npgd.Inpainting(SHAPE, 2), x=(T.x, "any precision")),
    "SuperResolution": door(npgd.SuperResolution, **SHAPED, factor=(2, "count")),
    "SuperResolution.forward": door(npgd.SuperResolution(SHAPE), x=(T.x, "any precision")),
    "SubsampledDCT": door(
        npgd.SubsampledDCT,
        **SHAPED,
        m=(M, "count"),
        **SEEDED,
        weights=(torch.ones(N, dtype=torch.float64), "weights"),
        dtype=(torch.float64, "given"),
    ),
    "SubsampledDCT by index": door(
        lambda index: npgd.SubsampledDCT(SHAPE, index=index), index=(torch.arange(4), "given")
    ),
    "SubsampledDCT.forward": door(npgd.SubsampledDCT(SHAPE, M, dtype=torch.float64), **PRODUCTS),
    "SubsampledDCT.adjoint": door(
        npgd.SubsampledDCT(SHAPE, M, dtype=torch.float64).adjoint, y=(T.y, "measured")
    ),
    "StructuredRandom": door(
        npgd.StructuredRandom,
        **SHAPED,
        m=(M, "count"),
        **SEEDED,
        transform=("dct", "given"),
        dtype=(torch.float64, "given"),
    ),
    "StructuredRandom.forward": door(
        npgd.StructuredRandom(SHAPE, M, dtype=torch.float64), **PRODUCTS
    ),
    "StructuredRandom.adjoint": door(
        npgd.StructuredRandom(SHAPE, M, dtype=torch.float64).adjoint, y=(T.y, "measured")
    ),
    "Blur": door(
        npgd.Blur, **SHAPED, kernel=(testing.normal(3, 3), "kernel"), boundary=("valid", "given")
    ),
    "Blur.forward": door(npgd.Blur(SHAPE, testing.normal(3, 3)), **PRODUCTS),
    "Blur.adjoint": door(
        npgd.Blur(SHAPE, testing.normal(3, 3)).adjoint, y=(testing.normal(2, N), "measured")
    ),
    "Radon": door(npgd.Radon, **SHAPED, angles=(4, "angles"), detectors=(9, OF_NONE["count"])),
    "Radon.forward": door(npgd.Radon(SHAPE, 2, 4), x=(T.x, "any precision")),
    "Radon.adjoint": door(
        npgd.Radon(SHAPE, 2, 4).adjoint, y=(testing.normal(2, 8), "any precision")
    ),
    "Fourier": door(
        npgd.Fourier,
        image_shape=((2, 8, 8), "given"),
        mask=(torch.ones(8, 8, dtype=torch.bool), "plane"),
        coils=(testing.normal(2, 8, 8) + 0j, OF_NONE["coils"]),
        complex_images=(True, "flag"),
    ),
    "Fourier.forward": door(FOURIER, **PRODUCTS),
    "Fourier.adjoint": door(FOURIER.adjoint, y=(testing.normal(2, FOURIER.m), "measured")),
    "Fourier.samples": door(FOURIER.samples, y=(testing.normal(2, FOURIER.m), "spectrum")),
    "Fourier.measurements": door(
        FOURIER.measurements, y=(testing.normal(2, FOURIER.m), "measurements")
    ),
    "cartesian_mask": door(
        npgd.cartesian_mask,
        **SHAPED,
        acceleration=(2.0, "at least 1"),
        centre=(0.1, "share or 0"),
        **SEEDED,
    ),
    "Whitened": door(
        npgd.Whitened,
        operator=(T.A, "given"),
        whitening=(torch.eye(M).double(), "whitening"),
        condition=(1.0, "condition"),
    ),
    "Whitened.whiten": door(npgd.whiten(T.A).whiten, y=(T.y, "any precision")),
    "as_operator": door(npgd.as_operator, obj=(testing.normal(M, N), "complex matrix"), **SHAPED),
    "as_operator of functions": door(
        lambda image_shape, adjoint: npgd.as_operator(lambda x: 2 * x, image_shape, adjoint),
        **SHAPED,
        adjoint=(lambda y: 2 * y, OF_NONE["given"]),
    ),
    "LinearOperator.measurements": door(T.A.measurements, y=(T.y, "measurements")),
    "scattered_boxes": door(
        npgd.scattered_boxes, **SHAPED, boxes=(2, "count"), side=(2, "count"), **SEEDED
    ),
    "whiten": door(npgd.whiten, **OPERATOR),
    # npgd: sets
    "AffineSet": door(
        npgd.AffineSet,
        basis=(testing.normal(N, K), "offset"),
        offset=(testing.normal(N), "offset"),
        **SHAPED,
    ),
    **methods("AffineSet", T.affine),
    "FiniteSet": door(npgd.FiniteSet, points=(T.x, "points"), tie_tol=(0.0, "not negative")),
    **methods("FiniteSet", T.finite),
    "FiniteSet.project in order": door(T.finite.project, **EASY, prefer=(torch.arange(5), "order")),
    "GenerativePrior": door(
        npgd.GenerativePrior,
        generator=(T.prior.generator, "given"),
        encoder=(T.prior.encoder, "given"),
        latent_dim=(K, "count"),
        **SHAPED,
        name=("mine", "text"),
        corrector=(None, OF_NONE["given"]),
        corrections=(0, "count or 0"),
    ),
    **methods("GenerativePrior", T.prior),
    "GenerativePrior.sample_latents": door(T.prior.sample_latents, **DRAWING),
    "LatentRefinement": door(
        npgd.LatentRefinement,
        prior=(T.prior, "given"),
        steps=(1, "count"),
        penalty=(0.0, "not negative"),
    ),
    **methods("LatentRefinement", npgd.LatentRefinement(T.prior, 1)),
    "LatentSearch": door(
        npgd.LatentSearch,
        prior=(T.prior, "given"),
        starts=(2, "count"),
        steps=(2, "count or 0"),
        learning_rate=(0.1, "positive"),
        **SEEDED,
        rows=(64, "count"),
        **SHOWN,
    ),
    **methods("LatentSearch", npgd.LatentSearch(T.prior, 2, 2)),
    "LatentSearch.search": door(
        npgd.LatentSearch(T.prior, 2, 2).search,
        **EASY,
        given=(testing.normal(2, 3, K), "starts"),
    ),
    # npgd: solvers
    "CSGM": door(
        solved(npgd.CSGM),
        prior=(T.prior, "given"),
        restarts=(2, "count"),
        **ADAM,
        **STEPS,
    ),
    "Deviation": door(
        solved(npgd.Deviation),
        prior=(T.prior, "given"),
        regulariser=("tv", "given"),
        **STEPS,
        mu=(0.5, "at most 1 or 0"),
        penalty=(0.1, "positive"),
        noise=(0.1, "not negative"),
        npgd=(
            npgd.NPGD(T.prior, 0.1, max_iter=2),
            "a solver or None",
        ),
        rounds=(1, "count or 0"),
        inner=(2, "count"),
        sigma=((1.0, 0.1), "two levels"),
        seed=(0, "seed"),
    ),
    "NPGD": door(
        solved(npgd.NPGD),
        prior=(T.prior, "given"),
        step_size=(0.1, OF_NONE["positive"]),
        **STEPS,
        start=(T.x, OF_NONE["given"]),
        **SEEDED,
        finish=(1, "count or 0"),
        refine=(1, "count or 0"),
        refine_penalty=(0.1, "not negative"),
    ),
    "PGDGAN": door(
        solved(npgd.PGDGAN),
        prior=(T.prior, "given"),
        step_size=(0.1, "positive"),
        inner=(2, "count"),
        **ADAM,
        **STEPS,
    ),
    "Lasso": door(
        solved(npgd.Lasso),
        transform=("dct", "given"),
        **STEPS,
        penalty=(0.1, "positive"),
        origin=(-1.0, "real"),
        continuation=(2, "count or 0"),
    ),
    "OneNet": door(
        solved(npgd.OneNet), proximal=(torch.tanh, "given"), **STEPS, penalty=(0.3, "positive")
    ),
    "AMP": door(
        solved(npgd.AMP),
        prior=(T.prior, "given"),
        **STEPS,
        divergence=("latent", "given"),
        **SEEDED,
    ),
    "PnPADMM": door(
        solved(npgd.PnPADMM),
        denoiser=(npgd.WaveletShrinkage(), "given"),
        **STEPS,
        penalty=(0.1, "positive"),
        sigma=(0.5, "levels"),
    ),
    "TotalVariation": door(
        solved(npgd.TotalVariation), **STEPS, penalty=(0.1, "positive"), step_size=(0.1, "positive")
    ),
    "Solver": door(solved(Resting), **STEPS),
    "Reconstructor": door(
        npgd.Reconstructor,
        solver=(npgd.NPGD(T.prior, 0.1, max_iter=2), "given"),
        pixels=((0.0, 255.0), "two numbers"),
    ),
    "Reconstructor.forward": door(
        npgd.Reconstructor(npgd.NPGD(T.prior, 0.1, max_iter=2)),
        y=(T.y, "measured by another"),
        physics=(T.A, "given"),
    ),
    "recover": door(
        npgd.recover,
        **OPERATOR,
        y=(T.y, "numpy"),
        solver=(npgd.NPGD(T.prior, 0.1, max_iter=2), "given"),
        x_true=(T.x, OF_NONE["numpy"]),
        record_iterates=(True, "flag"),
        **SHOWN,
    ),
    "choose_step_size": door(
        npgd.choose_step_size,
        **OPERATOR,
        prior=(T.prior, "given"),
        images=(T.x, OF_NONE["given"]),
        **SEEDED,
        count=(3, "count"),
        max_iter=(2, "count"),
        start=("range", "given"),
    ),
    "Solution.time_to": door(T.run.time_to, error=(0.1, "not negative")),
    "WaveletShrinkage": door(
        lambda **settings: npgd.WaveletShrinkage(**settings)(T.x, 0.3),
        wavelet=("haar", "given"),
        levels=(1, OF_NONE["count or 0"]),
        rule=("bayes", "given"),
        shifts=(2, "count"),
        origin=(-1.0, "real"),
    ),
    "WaveletShrinkage.call": door(
        npgd.WaveletShrinkage(), w=(T.x, "any precision"), sigma=(0.3, "not negative")
    ),
    # npgd: what the public names are made of
    "Pixels": door(transforms.Pixels, **SHAPED),
    "DCT": door(transforms.DCT, **SHAPED),
    "Wavelet": door(
        transforms.Wavelet, **SHAPED, wavelet=("haar", "given"), levels=(1, OF_NONE["count or 0"])
    ),
    **{
        f"{kind.__name__}.{method or 'forward'}": door(
            getattr(kind(SHAPE).double(), method or "forward"),
            **{
                "c" if method else "x": (
                    T.x,
                    "any precision" if kind is transforms.Pixels else "measured",
                )
            },
        )
        for kind in (transforms.Pixels, transforms.DCT, transforms.Wavelet)
        for method in ("", "inverse")
    },
    "jacobian": door(gauss_newton.jacobian, prior=(T.prior, "given"), z=(T.z, "drawn images")),
    "gauss_newton_step": door(
        gauss_newton.gauss_newton_step,
        prior=(T.prior, "given"),
        z=(T.z, "given"),
        y=(T.x.flatten(1), "given"),
        A=(None, OF_NONE["given"]),
        penalty=(0.1, "not negative"),
    ),
    "starts": door(
        latent.starts, count=(2, "count"), k=(2, "count"), **SEEDED, like=(T.y, "any tensor")
    ),
    "integer": door(lambda value: checks.integer(value, "value"), value=(1, "count")),
    "number": door(lambda value: checks.number(value, "value"), value=(1.0, "positive")),
    "seed": door(lambda seed: checks.seed(seed), **SEEDED),
    "flag": door(lambda value: checks.flag(value, "value"), value=(True, "flag")),
    "image_shape": door(checks.image_shape, shape=(SHAPE, "shape")),
    "drawing": door(lambda seed: checks.drawing(None, seed), **SEEDED),
    "images": door(lambda x: checks.images(x, SHAPE), x=(T.x, "floats")),
    "measurements": door(lambda y: checks.measurements(y, M), y=(T.y, "floats")),
    "needs": door(
        lambda S: sets.needs(S, *sets.GENERATED, what="this", name="S"), S=(T.prior, "given")
    ),
    "projector": door(lambda prior: sets.projector(prior), prior=(T.prior, "given")),
    # npgd: networks
    "DCGANGenerator": door(networks.DCGANGenerator, **WIDE, **SIZED),
    "DCGANDiscriminator": door(networks.DCGANDiscriminator, **NETWORK, **SIZED),
    "Encoder": door(
        networks.Encoder, **WIDE, **SIZED, hidden=(8, "count"), principal=(False, "flag")
    ),
    "SAGANGenerator": door(networks.SAGANGenerator, **WIDE),
    "TanhGenerator": door(
        networks.TanhGenerator,
        latent_dim=(K, "count"),
        hidden=(4, "count"),
        channels=(1, "count"),
        image_size=(8, "count"),
    ),
    "SAGANDiscriminator": door(networks.SAGANDiscriminator, **NETWORK),
    "SAGANEncoder": door(
        networks.SAGANEncoder, **WIDE, hidden=(8, "count"), principal=(False, "flag")
    ),
    "DenoisingNetwork": door(networks.DenoisingNetwork, **NETWORK),
    "ProximalNetwork": door(networks.ProximalNetwork, **NETWORK),
    "DenoisingNetwork.forward": door(T.small, w=(T.x, "drawn images"), sigma=(0.3, "not negative")),
    **{
        f"{name}.forward": door(
            network.eval().requires_grad_(False), **{argument: (value, "forward")}
        )
        for name, network, argument, value in (
            ("DCGANGenerator", networks.DCGANGenerator(K, 2), "z", torch.zeros(3, K)),
            ("DCGANDiscriminator", networks.DCGANDiscriminator(2), "x", torch.zeros(3, 1, 28, 28)),
            ("Encoder", networks.Encoder(K, 8, 8), "w", torch.ones(3, 1, 28, 28)),
            ("SAGANGenerator", networks.SAGANGenerator(K, 2), "z", torch.zeros(3, K)),
            ("SAGANDiscriminator", networks.SAGANDiscriminator(2), "x", torch.zeros(3, 3, 64, 64)),
            ("SAGANEncoder", networks.SAGANEncoder(K, 8, 8), "w", torch.zeros(3, 3, 64, 64)),
            ("ProximalNetwork", networks.ProximalNetwork(4), "w", torch.zeros(3, 1, 8, 8)),
        )
    },
    "Corrector": door(
        networks.Corrector, latent_dim=(2, "count"), hidden=(8, "count"), reach=(1.0, "reach")
    ),
    "build": door(
        networks.build, architecture=("DenoisingNetwork", "given"), settings=({"width": 4}, "given")
    ),
    # analysis
    "RecSettings": door(
        analysis.RecSettings,
        points=(4, "count"),
        tangent_points=(2, "count"),
        search_starts=(2, "count"),
        search_steps=(2, "count"),
        latent_radius=(2.0, OF_NONE["positive"]),
        looks=(("secants",), "given"),
        epsilon=(0.1, "share"),
        bins=(4, "count"),
    ),
    "RecSettings.of": door(analysis.RecSettings.of, effort=("quick", "given")),
    "ProjectionSettings": door(
        analysis.ProjectionSettings,
        points=(4, "count"),
        starts=(2, "count"),
        steps=(2, "count or 0"),
    ),
    "ProjectionSettings.of": door(analysis.ProjectionSettings.of, effort=("quick", "given")),
    "RunSettings": door(
        analysis.RunSettings,
        step_size=(0.1, "positive"),
        n_iter=(3, "count"),
        noise=(0.1, "not negative"),
        start=("range", "given"),
        count=(2, "count"),
    ),
    "worst_case": door(
        analysis.worst_case, **PROGRAM, measure=("objective", "given"), theta=(0.5, "angle")
    ),
    "certify": door(
        analysis.certify,
        **PROGRAM | {"step_size": (1.0, OF_NONE["positive"])},
        measure=("objective", "given"),
        theta=(0.5, "angle"),
    ),
    "obtuse_bound": door(
        analysis.obtuse_bound,
        alpha=(0.5, "positive"),
        beta=(10.0, "positive"),
        theta=(0.5, "real"),
        delta=(0.1, "not negative"),
        noise=(0.0, "not negative"),
        step_size=(0.05, OF_NONE["positive"]),
        everywhere=(False, "flag"),
    ),
    "split_error": door(
        analysis.split_error,
        A=(T.A, "given"),
        prior=(T.affine, "given"),
        images=(T.inside, "converted points"),
        y=(T.A(T.inside), "converted points"),
        solver=(npgd.NPGD(T.affine, 0.1, max_iter=3), "given"),
        solution=(npgd.recover(T.A, T.A(T.inside), npgd.NPGD(T.affine, 0.1)), OF_NONE["given"]),
        longer=(2, "count"),
        starts=(2, "count"),
        steps=(2, "count or 0"),
        **SEEDED,
    ),
    "advise": door(
        analysis.advise,
        A=(T.A, "given"),
        prior=(T.affine, "given"),
        images=(T.inside, "converted points"),
        y=(T.A(T.inside), "converted points"),
        solution=(npgd.recover(T.A, T.A(T.inside), npgd.NPGD(T.affine)), OF_NONE["given"]),
        effort=("quick", "word"),
        noise=(0.0, "not negative"),
        more=(testing.random_operator("gaussian", SHAPE, 9), OF_NONE["given"]),
        only=(("plug-and-play ADMM",), OF_NONE["given"]),
        tried=({}, OF_NONE["given"]),
        **SEEDED,
        **SHOWN,
    ),
    "obtuseness": door(analysis.obtuseness, **RUN, start=(1, "count or 0")),
    "sweep_step_sizes": door(
        analysis.sweep_step_sizes,
        **{name: what for name, what in PROGRAM.items() if name != "step_size"},
        step_sizes=((1.0,), "sigmas or none"),
        **SHOWN,
    ),
    "check_convergence": door(
        analysis.check_convergence, **RUN, **CONSTANTS, start=(1, "count or 0")
    ),
    "decompose": door(analysis.decompose, **RUN),
    "split_slack": door(
        analysis.split_slack,
        decomposition=(T.parts, "given"),
        **CONSTANTS,
        start=(1, "count or 0"),
    ),
    "observed_rate": door(
        analysis.observed_rate,
        objective=(T.parts.objective, "history"),
        start=(0, "count or 0"),
        floor=(0.0, OF_NONE["constant"]),
    ),
    "predicted_objective": door(
        analysis.predicted_objective,
        initial=(1.0, "constant"),
        n_iter=(2, "count or 0"),
        **PREDICTED,
        start=(0, "count or 0"),
    ),
    "predicted_rate": door(
        analysis.predicted_rate,
        alpha=(0.5, "at most 1"),
        beta=(1.0, "positive constant"),
        step_size=(1.0, OF_NONE["positive"]),
    ),
    "objective_floor": door(analysis.objective_floor, **PREDICTED),
    "error_floor": door(analysis.error_floor, **PREDICTED),
    "steps_to_reach": door(
        analysis.steps_to_reach,
        error=(1.0, "positive constant"),
        initial=(1.0, "constant"),
        **PREDICTED,
    ),
    "local_rate": door(
        analysis.local_rate,
        prior=(T.prior, "given"),
        images=(T.x, "images of a set"),
        step_size=(0.1, "positive"),
        y=(T.y, OF_NONE["in float64"]),
        latents=(T.z, OF_NONE["in float64"]),
        starts=(2, "count"),
        steps=(2, "count or 0"),
        **OPERATOR,
        **SEEDED,
        **SHOWN,
    ),
    "certify_rec": door(
        analysis.certify_rec,
        prior=(T.smooth, "given"),
        box=(0.1, OF_NONE["positive"]),
        tolerance=(0.5, "positive"),
        max_cells=(10, "count"),
        span=(True, "flag"),
        **OPERATOR,
        **SEEDED,
        **SHOWN,
    ),
    "check_rec": door(
        analysis.check_rec,
        prior=(T.smooth, "given"),
        certificate=(
            analysis.certify_rec(T.A, T.smooth, box=0.1, max_cells=10).certificate,
            "given",
        ),
        **OPERATOR,
    ),
    "CertifiedProjection": door(
        analysis.CertifiedProjection,
        prior=(T.smooth, "given"),
        box=(0.1, OF_NONE["positive"]),
        delta=(0.5, "positive"),
        max_cells=(10, "count"),
    ),
    "fixed_point": door(
        analysis.fixed_point,
        prior=(T.prior, "given"),
        y=(T.y, "in float64"),
        step_size=(0.1, "positive"),
        start=(T.z, OF_NONE["in float64"]),
        max_iter=(4, "count"),
        tol=(0.1, OF_NONE["positive"]),
        **OPERATOR,
        **SHOWN,
    ),
    "fixed_point_of": door(
        analysis.fixed_point_of,
        T=(halved, "given"),
        x0=(T.z, "any batch"),
        max_iter=(4, "count"),
        tol=(0.1, OF_NONE["positive"]),
        **SHOWN,
    ),
    "run_rate": door(analysis.run_rate, iterates=(testing.normal(5, 2, 3), "history")),
    "basin": door(
        analysis.basin,
        prior=(T.prior, "given"),
        y=(T.y, "in float64"),
        rest=(analysis.fixed_point(T.A, T.prior, T.y, 0.1), "given"),
        **OPERATOR,
        **BASIN,
    ),
    "prove_convergence": door(
        analysis.prove_convergence,
        prior=(T.prior, "given"),
        y=(T.y, "in float64"),
        rest=(analysis.fixed_point(T.A, T.prior, T.y, 0.1), "given"),
        **OPERATOR,
        **SHOWN,
    ),
    "basin_of": door(
        analysis.basin_of,
        T=(halved, "given"),
        rest=(analysis.fixed_point_of(halved, T.z), "given"),
        x0=(T.z, "in float64"),
        **BASIN,
    ),
    "design_dct": door(
        analysis.design_dct,
        prior=(T.prior, "given"),
        m=(3, "count"),
        **LOOKING,
        pairs=(10, "count"),
    ),
    "design_secant_pca": door(
        analysis.design_secant_pca,
        prior=(T.prior, "given"),
        m=(3, "count"),
        **LOOKING,
        pairs=(10, OF_NONE["count"]),
        unit=(True, "flag"),
        tol=(1e-3, "positive"),
        **SHOWN,
    ),
    "design_numax": door(
        analysis.design_numax,
        prior=(T.prior, "given"),
        m=(3, OF_NONE["count"]),
        delta=(0.4, "share"),
        **LOOKING,
        secants=(10, "count"),
        tol=(1e-1, "positive"),
        max_iter=(20, "count"),
        **SHOWN,
    ),
    "numax": door(
        numax,
        secants=(nn.functional.normalize(testing.normal(6, 4)), "secants"),
        delta=(0.4, "share"),
        tol=(1e-1, "positive"),
        max_iter=(20, "count"),
        **SHOWN,
    ),
    "design_minimax": door(
        analysis.design_minimax,
        prior=(T.prior, "given"),
        m=(3, "count"),
        orthonormal=(False, "flag"),
        tangent_points=(8, OF_NONE["count"]),
        held_out=(4, "count"),
        **LOOKING,
        steps=(2, "count"),
        rounds=(1, "count"),
        **SHOWN,
    ),
    "estimate_rec": door(
        lambda **given: analysis.estimate_rec(looks=("secants",), points=6, **given),
        **OPERATOR,
        prior=(T.prior, "given"),
        settings=(analysis.RecSettings(), OF_NONE["given"]),
        z_true=(T.z, OF_NONE["in float64"]),
        **SEEDED,
        executor=(None, OF_NONE["given"]),
        **SHOWN,
    ),
    "estimate_rec at images": door(
        lambda **given: analysis.estimate_rec(T.A, T.affine, looks=("secants",), points=6, **given),
        x_true=(T.x, OF_NONE["images of a set"]),
        pairs=((T.x, T.x.flip(0)), OF_NONE["given"]),
    ),
    "nearest_in_range": door(
        analysis.nearest_in_range,
        prior=(T.prior, "given"),
        points=(T.x, "converted images"),
        known=(T.x, OF_NONE["converted images"]),
        starts=(2, "count"),
        steps=(2, "count or 0"),
        **SEEDED,
        **SHOWN,
    ),
    "projection_error": door(
        analysis.projection_error,
        prior=(T.prior, "given"),
        points=(T.x, "converted points"),
        known=({"points": T.x}, OF_NONE["given"]),
        projector=(T.prior.project, OF_NONE["given"]),
        starts=(2, "count"),
        steps=(2, "count or 0"),
        **SEEDED,
        **SHOWN,
    ),
    "denoising_curve": door(
        analysis.denoising_curve,
        prior=(T.prior, "given"),
        images=(T.x, "converted points"),
        sigma=([0.1, 1.0], "sigmas or none"),
        **SEEDED,
        draws=(1, "count"),
        divergence=("probe", "given"),
        **SHOWN,
    ),
    "sweep": door(
        analysis.sweep,
        prior=(T.prior, "given"),
        images=(T.x, "given"),
        m=((3,), "counts"),
        noise=((0.0,), "sigmas"),
        seeds=((0,), "counts"),
        step_sizes=((1.0,), "sigmas or none"),
        methods=(("npgd",), "given"),
        max_iter=(2, OF_NONE["count"]),
        predict=(False, "flag"),
        executor=(None, OF_NONE["given"]),
        **SHOWN,
    ),
    "state_evolution": door(
        analysis.state_evolution,
        curve=(T.curve, "given"),
        m=(M, "count"),
        n_iter=(3, "count"),
        noise=(0.1, "not negative"),
        rows=("orthonormal", "given"),
    ),
    "error_budget": door(
        analysis.error_budget,
        curve=(T.curve, "given"),
        m=(M, "count"),
        noise=(0.1, "not negative"),
        nearest=(0.1, OF_NONE["not negative"]),
        observed=(0.5, OF_NONE["not negative"]),
    ),
    "least_measurements": door(
        analysis.least_measurements,
        curve=(T.curve, "given"),
        noise=(0.1, "not negative"),
        within=(0.1, "positive"),
    ),
    "verify": door(
        lambda rec, projection, **given: analysis.verify(rec=rec, projection=projection, **given),
        **OPERATOR,
        prior=(T.prior, "given"),
        images=(T.x, OF_NONE["converted points"]),
        effort=("quick", "given"),
        rec=(analysis.RecSettings(4, 2, 1, 1), "settings"),
        projection=(analysis.ProjectionSettings(2, 1, 1), "settings"),
        **SEEDED,
        executor=(None, OF_NONE["given"]),
        **SHOWN,
        baselines=(False, "flag"),
        step_size=(0.1, "positive"),
        n_iter=(2, "count"),
        noise=(0.0, "not negative"),
        start=("range", "given"),
        count=(2, "count"),
    ),
    "distribution_free": door(
        rec.distribution_free, ratios=(np.linspace(0.5, 1.5, 99), "ratios"), epsilon=(0.1, "share")
    ),
    "gradient_points": door(
        projection.gradient_points,
        **OPERATOR,
        y=(T.y, "given"),
        iterates=(T.run.iterates, "given"),
        step_size=(0.1, "positive"),
    ),
    "sample_families": door(
        projection.sample_families,
        prior=(T.prior, "given"),
        count=(2, "count"),
        sigmas=((1.0,), "sigmas"),
        **SEEDED,
    ),
    "projects_exactly": door(projection.projects_exactly, S=(T.affine, "anything")),
    "Decomposition.highest_delta": door(T.parts.highest_delta, start=(0, "count or 0")),
    # analysis.testing
    "Problem": door(
        testing.Problem,
        A=(T.A, "given"),
        S=(T.affine, "given"),
        x_true=(T.x, "given"),
        y=(T.y, "given"),
        step_size=(0.1, "positive"),
        alpha=(0.5, "at most 1 or 0"),
        beta=(1.0, "not negative"),
    ),
    "normal": door(
        lambda size, **given: testing.normal(2, size, **given),
        size=(3, "count or 0"),
        **SEEDED,
        dtype=(torch.float64, "float dtype"),
    ),
    "random_images": door(
        testing.random_images, **SHAPED, batch=(2, "count or 0"), **SEEDED, scale=(1.0, "positive")
    ),
    "random_operator": door(
        testing.random_operator,
        kind=("gaussian", "given"),
        **SHAPED,
        m=(3, "count"),
        **SEEDED,
        kinds=(testing.KINDS, OF_NONE["given"]),
    ),
    "random_affine_set": door(
        testing.random_affine_set, **SHAPED, latent_dim=(2, "count"), **SEEDED
    ),
    "random_finite_set": door(
        testing.random_finite_set,
        **SHAPED,
        count=(2, "count"),
        **SEEDED,
        tie_tol=(0.0, "not negative"),
        grid=(True, "flag"),
    ),
    "random_prior": door(testing.random_prior, **SHAPED, latent_dim=(2, "count"), **SEEDED),
    "random_problem": door(
        testing.random_problem,
        A=(T.A, "given"),
        S=(T.affine, "given"),
        batch=(2, "count"),
        noise=(0.0, "not negative"),
        step=(1.0, "positive"),
        **SEEDED,
    ),
    "exact_constants": door(testing.exact_constants, A=(T.A, "given"), S=(T.affine, "given")),
    "check_adjoint": door(
        checked(testing.check_adjoint),
        **OPERATOR,
        batch=(2, "count"),
        **SEEDED,
        tol=(1e-6, OF_NONE["not negative"]),
    ),
    "check_linear": door(
        checked(testing.check_linear),
        **OPERATOR,
        batch=(2, "count"),
        **SEEDED,
        tol=(1e-6, OF_NONE["not negative"]),
    ),
    "check_norm": door(
        checked(testing.check_norm), **OPERATOR, tol=(1e-6, OF_NONE["not negative"])
    ),
    "check_projector": door(
        checked(testing.check_projector),
        project=(T.affine, "given"),
        points=(T.x, "given"),
        delta=(0.0, "not negative"),
        members=(T.inside, OF_NONE["in float64"]),
        probes=(1, "count or 0"),
        **SEEDED,
        tol=(1e-6, OF_NONE["not negative"]),
    ),
    "check_one_step_identity": door(
        checked(testing.check_one_step_identity),
        **RUN | {"iterates": (T.run.iterates, "own iterates")},
        project=(T.affine, OF_NONE["given"]),
        max_iter=(2, "count"),
        tol=(1e-6, "not negative"),
    ),
    "check_bound": door(
        checked(testing.check_bound),
        **RUN | {"iterates": (T.run.iterates, "own iterates")},
        project=(T.affine, OF_NONE["given"]),
        alpha=(0.1, "share or more"),
        beta=(10.0, "positive"),
        delta=(0.0, "not negative"),
        start=(0, "count or 0"),
        max_iter=(2, "count"),
    ),
    "image_shapes": door(drawn(testing.image_shapes)),
    **{
        name: door(drawn(getattr(testing, name)), **arguments)
        for name, arguments in {
            "operators": {"image_shape": (SHAPE, OF_NONE["given"]), "m": (2, OF_NONE["count"])},
            "affine_sets": {
                "image_shape": (SHAPE, OF_NONE["given"]),
                "latent_dim": (2, OF_NONE["count"]),
            },
            "finite_sets": {
                "image_shape": (SHAPE, OF_NONE["given"]),
                "count": (2, OF_NONE["count"]),
                "tie_tol": (0.0, OF_NONE["not negative"]),
            },
            "priors": {
                "image_shape": (SHAPE, OF_NONE["given"]),
                "latent_dim": (2, OF_NONE["count"]),
            },
            "problems": {
                "image_shape": (SHAPE, OF_NONE["given"]),
                "m": (2, OF_NONE["count"]),
                "sets": (("affine",), "given"),
                "kinds": (("gaussian",), OF_NONE["given"]),
                "noise": (0.1, OF_NONE["not negative"]),
                "step": (0.5, OF_NONE["positive"]),
                "kappa": (2.0, "reach"),
            },
        }.items()
    },
    "strategies.images": door(
        drawn(testing.images),
        image_shape=(SHAPE, OF_NONE["given"]),
        batch=(2, OF_NONE["count or 0"]),
        scale=(1.0, OF_NONE["positive"]),
    ),
}

ELSEWHERE = {
    "networks from outside, in the tests of them": "as_encoder as_generator",
    "files, in the tests of files": (
        "load_denoiser load_onenet load_operator load_prior prior_card save_operator save_prior"
    ),
    "trainings, in the tests of training": (
        "PAPER CorrectorConfig DenoiserConfig GeneratorConfig OneNetConfig ProjectorConfig"
        " load_checkpoint load_coverage_encoder load_generator train_corrector train_denoiser"
        " train_generator train_onenet train_projector"
    ),
    "results, which the library makes": (
        "Solution ConvergenceCheck Decomposition ObservedRate SlackSplit Direction DistributionFree"
        " Look PointwiseRec RecEstimate Finding Report FamilyError Nearest ProjectionError"
    ),
    "protocols, which nobody calls": "Projectable Sampled Generated Encoded LatentSampled",
    "tables and modules": "ARCHITECTURES KINDS seeds theorem",
    "parts of a door, which `DOORS` has as a whole": (
        "floating finite iterates free_memory from_numpy kind same_kind any_images between choice"
        " floating_type in_a_row latents levels number_or numbers_of printable room same_tensor"
        " seeded settle shown sizes some square_range squares"
    ),
    "questions, which anything may be asked": (
        "projects generates encodes samples samples_latents lacking"
    ),
}

PUBLIC = {
    name: f"{module.__name__}.{name}"
    for module in (npgd, analysis, npgd.training, networks, testing, rates, rec, report, projection)
    for name in module.__all__
} | {
    name: f"{module.__name__}.{name}"
    for module in (sets, checks)
    for name, thing in vars(module).items()
    if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
}


# The tests ----------------------------------------------------------------------------------------


def bad_calls() -> list[tuple[str, str, str]]:
    """(door, argument, kind of bad value), all there are."""
    return [
        (name, argument, kind)
        for name, door in DOORS.items()
        for argument, (value, _) in door.arguments.items()
        for kind in (*BAD, *(spoiled(value) if isinstance(value, torch.Tensor) else ()))
    ]


OBSCURE = re.compile(
    r"positional argument|object has no attribute|not subscriptable|must match"
    r" the size|unsupported operand|mat1 and mat2|aten::|Expected all tensors|ambiguous|__\w+__"
    r"|not supported between|invalid literal|cannot be converted"
)


def complaint(name: str, argument: str, kind: str) -> str:
    """What is wrong with how a door takes a bad value; "" if nothing is."""
    door = DOORS[name]
    value, role = door.arguments[argument]
    bad = (BAD | (spoiled(value) if isinstance(value, torch.Tensor) else {}))[kind]
    called = f"{name}({argument}={kind})"
    try:
        door(**{argument: bad})
    except (TypeError, ValueError) as error:
        text = str(error)
        words = "image_shape|images|shape" if argument in ("image_shape", "shape") else argument
        if not re.search(rf"\b({words})\b", text) or "must" not in text or OBSCURE.search(text):
            return f"{called} is obscure: {type(error).__name__}: {text[:200]}"
        if len(text) > 600:
            return f"{called} has no end: {text[:200]}"
    except Exception as error:
        return f"{called} escapes: {type(error).__name__}: {str(error)[:200]}"
    else:
        if kind not in ROLES[role][0]:
            return f"{called} is accepted"
    return ""


def complaints(calls: list[tuple[str, str, str]]) -> list[str]:
    return [text for call in calls if (text := complaint(*call))]


def test_every_public_name_has_a_door():
    elsewhere = {name for names in ELSEWHERE.values() for name in names.split()}
    there = {name.split(".")[0] for name in DOORS} | elsewhere
    assert not set(PUBLIC) - there
    assert not elsewhere - set(PUBLIC)


@pytest.mark.parametrize("name", DOORS)
def test_the_valid_call_of_every_door_passes_and_shows_in_one_screen(name):
    result = DOORS[name]()
    ours = type(result).__module__.startswith(("npgd.", "analysis."))
    if not ours or type(result).__module__.startswith("npgd.networks"):
        return
    long = len(repr(result).splitlines()) >= 20 or len(repr(result)) > 2000
    assert not long, repr(result)
    if isinstance(result, Shown):
        assert "<" in result._repr_html_()
    if isinstance(result, Drawn):
        assert result.plot().axes


def test_a_sample_of_bad_calls_is_refused_by_name():
    calls = random.Random(18).sample(bad_calls(), 800)
    assert complaints(calls) == []


@pytest.mark.slow
def test_every_bad_call_is_refused_by_name():
    calls = bad_calls()
    assert len(calls) >= 5000
    assert complaints(calls) == []


def kinds_of(value: Any, role: str) -> dict[str, Any]:
    """A valid value in the other kinds that people have it in."""
    if role.startswith(("count", "seed")) and isinstance(value, int):
        kinds = {kind.__name__: kind(value) for kind in (np.int64, np.uint8, np.int32)}
        kinds["0-d tensor"] = torch.tensor(value)
        if role.startswith("seed"):
            kinds |= {"2^63": 2**63, "numpy 2^63": np.uint64(2**63), "largest": 2**64 - 1}
        return kinds
    if isinstance(value, float):
        return {
            "numpy float64": np.float64(value),
            "numpy float32": np.float32(value),
            "fraction": Fraction(value),
            "0-d tensor": torch.tensor(value, dtype=torch.float64),
        }
    if isinstance(value, bool):
        return {"numpy bool": np.bool_(value)}
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        strided = torch.stack([value, value], dim=-1)[..., 0]
        assert value.numel() == 1 or not strided.is_contiguous()
        with torch.inference_mode():
            inference = value.clone()
        return {
            "requires grad": value.clone().requires_grad_(),
            "not contiguous": strided,
            "from inference mode": inference,
        }
    if value is SHAPE:
        return {
            "list": list(SHAPE),
            "torch size": torch.Size(SHAPE),
            "numpy": np.array(SHAPE),
            "numpy integers": tuple(np.int64(side) for side in SHAPE),
        }
    return {}


@pytest.mark.parametrize("name", DOORS)
def test_every_door_takes_a_value_in_each_of_its_kinds(name):
    door = DOORS[name]
    for argument, (value, role) in door.arguments.items():
        for value_of_a_kind in kinds_of(value, role).values():
            door(**{argument: value_of_a_kind})


@pytest.mark.parametrize(
    "name",
    [
        "CSGM",
        "NPGD",
        "PGDGAN",
        "LatentSearch.project",
        "estimate_rec",
        "LatentRefinement.project",
        "GenerativePrior.project",
        "verify",
        "nearest_in_range",
        "projection_error",
        "design_minimax",
        "jacobian",
        "decompose",
        "denoising_curve",
        "AMP",
        "PnPADMM",
        "TotalVariation",
        "Lasso",
    ],
)
def test_what_measures_or_searches_works_in_inference_mode_and_ignores_autocast(name):
    expected = flat(DOORS[name]())
    with torch.inference_mode():
        inside = flat(DOORS[name]())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = flat(DOORS[name]())
    for found in (inside, mixed):
        torch.testing.assert_close(found, expected)


def flat(result: Any) -> torch.Tensor:
    """The numbers of a result in one row."""
    for name in ("x", "image", "matrix", "deltas", "residual", "alpha", "rec", "by_image"):
        if hasattr(result, name):
            return flat(getattr(result, name))
    return torch.as_tensor(result, dtype=torch.float64).detach().flatten()


def test_a_seed_is_one_stream_and_small_ones_are_torchs_own():
    for seed in (0, 7, 2**31, 2**63 - 1, 2**63, 2**64 - 1):
        own = torch.rand(4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(own, torch.rand(4, generator=checks.seeded(seed)))
        assert torch.equal(own, torch.rand(4, generator=checks.seeded(np.uint64(seed))))


def test_shrinkage_without_noise_leaves_the_image_as_it_is():
    w = T.x.clone()
    w[0] = -1.0
    for rule in ("bayes", "universal"):
        torch.testing.assert_close(npgd.WaveletShrinkage(rule=rule)(w, 0.0), w)
