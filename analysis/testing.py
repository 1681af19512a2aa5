"""Property-based testing, with hypothesis: of a projector, an operator or a solver of your own.

A projector in five lines; here P(w) = the nearest image with pixels in [−1, 1], held against some
images that lie in that set:

    >>> from hypothesis import given
    >>> from analysis import testing
    >>> @given(w=testing.images((1, 8, 8)))
    ... def test_my_projector(w):
    ...     testing.check_projector(lambda w: w.clamp(-1, 1), w, members=w.sin())
    >>> test_my_projector()

*Strategies* (`images`, `operators`, `affine_sets`, `finite_sets`, `priors`, `problems`) draw what
the theory talks about, small and in float64, each as one call of the function `random_…` beside it:
hypothesis prints that call of a failing example, and so does the object. On affine and finite sets
the projection and, by `exact_constants`, α and β are exact; a `Problem` has all of Theorem 1.

*Checks* (`check_…`) raise AssertionError, saying which property fails, by how much, where, and what
to call to see it again. They serve without hypothesis too. None proves anything: it looks at the
points it is given, and at random ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from jaxtyping import Float
from torch import nn

from analysis.rates import ConvergenceCheck, Decomposition, check_convergence, decompose
from analysis.rec import estimate_rec
from npgd import checks
from npgd.images import Images, Measurements, PerImage, inner, norm
from npgd.operators import (
    Blur,
    Fourier,
    Gaussian,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    Radon,
    StructuredRandom,
    SubsampledDCT,
    SuperResolution,
    as_operator,
    whiten,
)
from npgd.priors import GenerativePrior
from npgd.projectors import AffineSet, FiniteSet
from npgd.sets import Projectable, Projector, projector
from npgd.showing import Shown
from npgd.solvers import NPGD, recover

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "analysis.testing takes the package hypothesis (pip install npgd[testing])"
    ) from error

__all__ = [
    "KINDS",
    "Problem",
    "affine_sets",
    "check_adjoint",
    "check_bound",
    "check_linear",
    "check_norm",
    "check_one_step_identity",
    "check_projector",
    "exact_constants",
    "finite_sets",
    "image_shapes",
    "images",
    "normal",
    "operators",
    "priors",
    "problems",
    "random_affine_set",
    "random_finite_set",
    "random_images",
    "random_operator",
    "random_prior",
    "random_problem",
    "seeds",
]

ImageShape = checks.ImageShape
Maker = Callable[[ImageShape, int, int], LinearOperator]
"""An operator from (image_shape, m, seed); m is what it aims at, as far as its kind allows."""

Product = Callable[[torch.Tensor], torch.Tensor]
"""x → A x, y → Aᵀ y or w → P(w)."""

T = TypeVar("T")
Drawn: TypeAlias = T | st.SearchStrategy[T]
"""A value, or a strategy that draws it."""

DOUBLE = torch.float64
seeds = st.integers(0, 2**32 - 1)


# The kinds of operators ---------------------------------------------------------------------------


def _matrix(shape: ImageShape, m: int, seed: int) -> torch.Tensor:
    return _normal("matrix", seed, m, math.prod(shape))


def _low_rank(shape: ImageShape, m: int, seed: int) -> torch.Tensor:
    n = math.prod(shape)
    rank = max(1, min(m, n) // 2)
    return _normal("left", seed, m, rank) @ _normal("right", seed, rank, n)


def _sparse(shape: ImageShape, m: int, seed: int) -> scipy.sparse.csr_matrix:
    rng = np.random.default_rng(checks.seed(seed))
    return scipy.sparse.random(m, math.prod(shape), density=0.3, random_state=rng, format="csr")


def _mask(shape: tuple[int, ...], m: int, seed: int) -> torch.Tensor:
    """min(m, size) places, drawn uniformly."""
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[torch.randperm(len(mask), generator=_draws("mask", seed))[:m]] = True
    return mask.reshape(shape)


def _factor(shape: ImageShape, m: int) -> int:
    """A common divisor of the sides, 1 only where m or the sides leave no other."""
    common = math.gcd(*shape[1:])
    divisors = [f for f in range(1, common + 1) if common % f == 0]
    return divisors[m % len(divisors)]


def _fewer(shape: ImageShape, m: int) -> int:
    """At most half as many rows as pixels: of full rank, and not nearly without it."""
    return min(m, max(1, math.prod(shape) // 2))


def _scipy(matrix: torch.Tensor) -> scipy.sparse.linalg.LinearOperator:
    return scipy.sparse.linalg.aslinearoperator(matrix.numpy())


def _coils(shape: ImageShape, seed: int) -> torch.Tensor:
    """Sensitivities of two coils."""
    return torch.view_as_complex(_normal("coils", seed, 2, *shape[1:], 2))


def _kernel(shape: ImageShape, m: int, seed: int) -> torch.Tensor:
    """A kernel for each channel, of at most 5 × 5 pixels."""
    sides = (1 + min(side - 1, m % 5) for side in shape[1:])
    return _normal("kernel", seed, shape[0], *sides)


KINDS: dict[str, Maker] = {
    "gaussian": lambda s, m, seed: Gaussian(s, m, seed, DOUBLE),
    "matrix": lambda s, m, seed: MatrixOperator(_matrix(s, m, seed), s),
    "low rank": lambda s, m, seed: MatrixOperator(_low_rank(s, m, seed), s),
    "hole": lambda s, m, seed: Inpainting(s, hole=m % min(s[1:])),
    "mask": lambda s, m, seed: Inpainting(s, mask=_mask(s, m, seed)),
    "mask of a plane": lambda s, m, seed: Inpainting(s, mask=_mask(s[1:], m, seed)),
    "super-resolution": lambda s, m, seed: SuperResolution(s, _factor(s, m)),
    "dct": lambda s, m, seed: SubsampledDCT(s, min(m, math.prod(s)), seed, dtype=DOUBLE),
    "structured random": lambda s, m, seed: StructuredRandom(
        s, min(m, math.prod(s)), seed, "hadamard" if seed % 2 else "dct", DOUBLE
    ),
    "fourier": lambda s, m, seed: Fourier(s, _mask(s[1:], m, seed)),
    "fourier of coils": lambda s, m, seed: Fourier(
        s, _mask(s[1:], m, seed), _coils(s, seed), complex_images=s[0] % 2 == 0
    ),
    "blur": lambda s, m, seed: Blur(s, _kernel(s, m, seed)),
    "valid blur": lambda s, m, seed: Blur(s, _kernel(s, m, seed), "valid"),
    "radon": lambda s, m, seed: Radon(s, 1 + m // (s[0] * max(s[1:]))),
    "whitened matrix": lambda s, m, seed: whiten(Gaussian(s, _fewer(s, m), seed, DOUBLE)),
    "whitened boxes": lambda s, m, seed: whiten(SuperResolution(s, _factor(s, m))).to(DOUBLE),
    "whitened scipy": lambda s, m, seed: whiten(
        as_operator(_scipy(_matrix(s, _fewer(s, m), seed)), s)
    ),
    "scipy": lambda s, m, seed: as_operator(_scipy(_matrix(s, m, seed)), s),
    "scipy sparse": lambda s, m, seed: as_operator(_sparse(s, m, seed), s),
}
"""Every kind of operator of `npgd.operators`, by name."""


# What is drawn: each thing from its sizes and a seed ----------------------------------------------


def normal(*size: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    """Independent numbers of N(0, 1): the same for the same size and seed."""
    sides = [checks.integer(side, "size", minimum=0) for side in size]
    checks.room(math.prod(sides), "size", math.prod(sides))
    checks.floating_type(dtype)
    return torch.randn(*sides, generator=checks.seeded(seed), dtype=dtype)


def random_images(image_shape: ImageShape, batch: int, seed: int = 0, scale: float = 1.0) -> Images:
    """Images with independent pixels N(0, scale²)."""
    scale = checks.number(scale, "scale")
    batch = checks.integer(batch, "batch", minimum=0)
    shape = checks.image_shape(image_shape)
    checks.room(batch, "batch", batch * math.prod(shape))
    return scale * _normal("images", seed, batch, *shape)


def random_operator(
    kind: str,
    image_shape: ImageShape,
    m: int,
    seed: int = 0,
    kinds: Mapping[str, Maker] | None = None,
) -> LinearOperator:
    """An operator of one of KINDS (or of `kinds`), with m measurements where the kind allows."""
    makers = KINDS if kinds is None else _makers(kinds)
    checks.choice(kind, "kind", *makers)
    m, seed = checks.integer(m, "m"), checks.seed(seed)
    checks.room(m, "m", m * math.prod(checks.image_shape(image_shape)))
    A = makers[kind](checks.image_shape(image_shape), m, seed)
    return _described(A, f"random_operator({kind!r}, {tuple(image_shape)}, m={m}, seed={seed})")


def _makers(kinds: object) -> Mapping[str, Maker]:
    """Kinds of operators of the caller's own."""
    if not isinstance(kinds, Mapping) or not all(map(callable, kinds.values())):
        raise TypeError(
            "kinds must map names to functions of (image_shape, m, seed), got"
            f" {checks.shown(kinds)}"
        )
    return kinds


def random_affine_set(image_shape: ImageShape, latent_dim: int, seed: int = 0) -> AffineSet:
    """{B z + c} with B and c of N(0, 1); of at most n dimensions."""
    n = math.prod(checks.image_shape(image_shape))
    k = min(checks.integer(latent_dim, "latent_dim"), n)
    S = AffineSet(_normal("basis", seed, n, k), _normal("offset", seed, n), image_shape)
    return _described(S, f"random_affine_set({tuple(image_shape)}, latent_dim={k}, seed={seed})")


def random_finite_set(
    image_shape: ImageShape, count: int, seed: int = 0, tie_tol: float = 0.0, grid: bool = False
) -> FiniteSet:
    """`count` points of N(0, 1) pixels; with `grid`, of pixels −1, 0 or 1.

    Points of a grid tie in distance, and may coincide, but the first two never do.
    """
    size = (checks.integer(count, "count"), *checks.image_shape(image_shape))
    checks.room(size[0], "count", math.prod(size))
    grid = checks.flag(grid, "grid")
    points = _normal("points", seed, *size)
    if grid:
        points = torch.randint(0, 3, size, generator=_draws("grid", seed)).to(DOUBLE)
        if count > 1:
            points[1, 0, 0, 0] = (points[0, 0, 0, 0] + 1) % 3
        points -= 1
    return _described(
        FiniteSet(points, tie_tol),
        f"random_finite_set({tuple(image_shape)}, count={count}, seed={seed},"
        f" tie_tol={tie_tol}, grid={grid})",
    )


def random_prior(image_shape: ImageShape, latent_dim: int, seed: int = 0) -> GenerativePrior:
    """A curved generator, tanh(W₂ tanh(W₁ z + b₁) + b₂), and a linear encoder that knows nothing
    of it; in float64, without gradients."""
    shape = checks.image_shape(image_shape)
    n = math.prod(shape)
    (latent_dim,) = checks.sizes(latent_dim=latent_dim)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(_draws("prior", seed).initial_seed())
        generator = nn.Sequential(
            nn.Linear(latent_dim, 16),
            nn.Tanh(),
            nn.Linear(16, n),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(n, latent_dim))
    name = f"random_prior({shape}, latent_dim={latent_dim}, seed={seed})"
    prior = GenerativePrior(generator, encoder, latent_dim, shape, name)
    return prior.requires_grad_(False).to(DOUBLE)


@dataclass(frozen=True, eq=False)
class Problem(Shown):
    """y = A x* + v with x* in S, and constants α, β of A on S that are exact."""

    A: LinearOperator
    S: AffineSet | FiniteSet
    x_true: Images
    y: Measurements
    step_size: float
    """η of x − η Aᵀ(A x − y)."""
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        _known(self.A, self.S)
        checks.finite(checks.images(self.x_true, self.A.image_shape, "x_true"), "x_true")
        checks.finite(checks.measurements(self.y, self.A.m), "y")
        checks.same_tensor(self.y, self.x_true, "y", "x_true")
        if len(self.y) != len(self.x_true):
            raise ValueError(f"y must hold {len(self.x_true)} rows as x_true, got {len(self.y)}")
        checks.settle(
            self,
            step_size=checks.number(self.step_size, "step_size"),
            alpha=checks.number(self.alpha, "alpha", zero=True),
            beta=checks.number(self.beta, "beta", zero=True),
        )

    @property
    def kappa(self) -> float:
        """β/α, infinite where A maps two points of S to one."""
        return self.beta / self.alpha if self.alpha > 0 else math.inf

    @property
    def noise(self) -> Measurements:
        """v = y − A x*."""
        noise: Measurements = self.y - self.A(self.x_true)
        return noise

    def __str__(self) -> str:
        return (
            f"{len(self.x_true)} images, A = {self.A}, S = {self.S}, ‖v‖ up to"
            f" {float(self.noise.norm(dim=1).max()):.4g}, step_size = {self.step_size:.4g},"
            f" α = {self.alpha:.4g}, β = {self.beta:.4g}, κ = {self.kappa:.4g}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "A": str(self.A),
            "S": str(self.S),
            "batch": len(self.x_true),
            "noise": self.noise.norm(dim=1).tolist(),
            "step_size": self.step_size,
            "alpha": self.alpha,
            "beta": self.beta,
        }


def random_problem(
    A: LinearOperator,
    S: AffineSet | FiniteSet,
    batch: int = 3,
    noise: float = 0.0,
    step: float = 1.0,
    seed: int = 0,
) -> Problem:
    """x* drawn from S, measurements with noise N(0, noise² β) each, and step size η = step/β.

    √β is the most that A makes of a unit step in S: so no scale of A changes the problem.
    """
    noise, step = checks.number(noise, "noise", zero=True), checks.number(step, "step")
    batch = checks.integer(batch, "batch")
    alpha, beta = exact_constants(A, S)
    checks.room(batch, "batch", batch * A.n)
    x_true = S.sample(batch, generator=_draws("x_true", seed))
    y = A(x_true) + noise * math.sqrt(beta) * _normal("noise", seed, batch, A.m)
    return Problem(A, S, x_true, y, step / beta if beta > 0 else step, alpha, beta)


def exact_constants(A: LinearOperator, S: AffineSet | FiniteSet) -> tuple[float, float]:
    """α and β of A on a set where both are known, in float64, as `analysis.estimate_rec` has
    them.

    On {B z + c}, B = Q R, the extreme eigenvalues of QᵀAᵀA Q; on a finite set, the extremes of
    ‖A s‖²/‖s‖² over all its secants. Raises TypeError for any other set.
    """
    _known(A, S)
    estimate = estimate_rec(A, S, points=2, looks=())
    return estimate.alpha, estimate.beta


def _known(A: object, S: object) -> None:
    """TypeError unless A is an operator, and S a set whose constants are known."""
    if not isinstance(S, AffineSet | FiniteSet):
        raise TypeError(f"S must be an AffineSet or a FiniteSet, got {type(S).__name__}")
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {checks.shown(A)}")


# Strategies ---------------------------------------------------------------------------------------


def image_shapes() -> st.SearchStrategy[ImageShape]:
    """(channels, height, width): 1 to 3 channels, sides even and at most 12."""
    half = st.integers(1, 6)
    return st.tuples(st.integers(1, 3), half, half).map(lambda s: (s[0], 2 * s[1], 2 * s[2]))


def images(
    image_shape: Drawn[ImageShape] | None = None,
    batch: Drawn[int] | None = None,
    scale: Drawn[float] | None = None,
) -> st.SearchStrategy[Images]:
    """Batches of 2 to 5 images, as `random_images` makes them, at scales from 0.01 to 100."""
    return st.builds(
        random_images,
        _strategy(image_shape, image_shapes(), checks.image_shape),
        batch=_strategy(batch, st.integers(2, 5), _count("batch", 0)),
        seed=seeds,
        scale=_strategy(scale, st.sampled_from((1.0, 0.01, 100.0)), _number("scale")),
    )


def operators(
    image_shape: Drawn[ImageShape] | None = None,
    kinds: Collection[str] | Mapping[str, Maker] | None = None,
    m: Drawn[int] | None = None,
) -> st.SearchStrategy[LinearOperator]:
    """Operators of every kind there is, with 1 to 40 measurements where the kind leaves a choice.

    Args:
        image_shape: one, or a strategy of them; by default `image_shapes()`.
        kinds: some of KINDS by name; or kinds of your own, as a mapping from names to functions of
            (image_shape, m, seed). By default KINDS.
        m: the number of measurements to aim at.
    """
    makers = _makers(kinds) if isinstance(kinds, Mapping) else None
    if kinds is None or isinstance(kinds, Mapping):
        names = tuple(KINDS if kinds is None else kinds)
    else:
        names = checks.some(kinds, "kinds", *KINDS)
    if not names:
        raise ValueError("kinds must hold a kind at least, got none")
    make: Callable[..., LinearOperator] = random_operator
    if makers is not None:
        make = partial(random_operator, kinds=makers)
    return st.builds(
        make,
        st.sampled_from(names),
        _strategy(image_shape, image_shapes(), checks.image_shape),
        m=_strategy(m, st.integers(1, 40), _count("m")),
        seed=seeds,
    )


def affine_sets(
    image_shape: Drawn[ImageShape] | None = None, latent_dim: Drawn[int] | None = None
) -> st.SearchStrategy[AffineSet]:
    """Affine sets of 1 to 5 dimensions, as `random_affine_set` makes them."""
    return st.builds(
        random_affine_set,
        _strategy(image_shape, image_shapes(), checks.image_shape),
        latent_dim=_strategy(latent_dim, st.integers(1, 5), _count("latent_dim")),
        seed=seeds,
    )


def finite_sets(
    image_shape: Drawn[ImageShape] | None = None,
    count: Drawn[int] | None = None,
    tie_tol: Drawn[float] = 0.0,
) -> st.SearchStrategy[FiniteSet]:
    """2 to 12 points, as `random_finite_set` makes them: anywhere, or on a grid."""
    return st.builds(
        random_finite_set,
        _strategy(image_shape, image_shapes(), checks.image_shape),
        count=_strategy(count, st.integers(2, 12), _count("count")),
        seed=seeds,
        tie_tol=_strategy(tie_tol, st.just(0.0), _number("tie_tol", True)),
        grid=st.booleans(),
    )


def priors(
    image_shape: Drawn[ImageShape] | None = None, latent_dim: Drawn[int] | None = None
) -> st.SearchStrategy[GenerativePrior]:
    """Tiny priors of 1 to 4 latent dimensions, as `random_prior` makes them."""
    return st.builds(
        random_prior,
        _strategy(image_shape, image_shapes(), checks.image_shape),
        latent_dim=_strategy(latent_dim, st.integers(1, 4), _count("latent_dim")),
        seed=seeds,
    )


def problems(
    image_shape: Drawn[ImageShape] | None = None,
    kinds: Collection[str] | Mapping[str, Maker] | None = None,
    sets: Collection[str] = ("affine", "finite"),
    m: Drawn[int] | None = None,
    noise: Drawn[float] | None = None,
    step: Drawn[float] | None = None,
    kappa: float = math.inf,
) -> st.SearchStrategy[Problem]:
    """Problems whose every constant is known, as `random_problem` makes them.

    Those of which A sees some secant of S hardly or not at all, α < 10⁻³ ‖A‖², are left out: there
    rounding off S decides.

    Args:
        image_shape, kinds, m: as for `operators`.
        sets: "affine", "finite" or both.
        noise: standard deviation of a measurement's noise over √β; by default 0, 0.05 or 1.
        step: η β; by default 1, 0.8, 0.3 or 1.02.
        kappa: κ = β/α stays below it: with 2, only problems to which Theorem 1 applies.
    """
    choices: dict[str, Callable[[ImageShape], st.SearchStrategy[AffineSet | FiniteSet]]] = {
        "affine": affine_sets,
        "finite": finite_sets,
    }
    names = checks.some(sets, "sets", *choices)
    if not names:
        raise ValueError(f"sets must be some of {', '.join(choices)}, got none")
    endless = isinstance(kappa, float) and kappa == math.inf
    kappa = math.inf if endless else checks.number(kappa, "kappa")
    noises = _strategy(noise, st.sampled_from((0.0, 0.05, 1.0)), _number("noise", True))
    steps = _strategy(step, st.sampled_from((1.0, 0.8, 0.3, 1.02)), _number("step"))
    counts = _strategy(m, st.integers(1, 40), _count("m"))
    operators(None, kinds)

    def of(shape: ImageShape) -> st.SearchStrategy[Problem]:
        return st.builds(
            random_problem,
            operators(shape, kinds, counts),
            st.one_of(*(choices[name](shape) for name in names)),
            batch=st.integers(1, 4),
            noise=noises,
            step=steps,
            seed=seeds,
        )

    drawn = _strategy(image_shape, image_shapes(), checks.image_shape).flatmap(of)
    return drawn.filter(lambda p: p.kappa < kappa and p.alpha >= 1e-3 * p.A.norm() ** 2)


def _strategy(
    value: Drawn[T] | None, default: st.SearchStrategy[T], check: Callable[[Any], T]
) -> st.SearchStrategy[T]:
    """The default, or the strategy given, or a value, which is examined."""
    if value is None:
        return default
    return value if isinstance(value, st.SearchStrategy) else st.just(check(value))


def _count(name: str, minimum: int = 1) -> Callable[[Any], int]:
    return lambda value: checks.integer(value, name, minimum=minimum)


def _number(name: str, zero: bool = False) -> Callable[[Any], float]:
    return lambda value: checks.number(value, name, zero=zero)


# Checks of an operator ----------------------------------------------------------------------------


def check_adjoint(
    A: LinearOperator, *, batch: int = 4, seed: int = 0, tol: float | None = None
) -> None:
    """⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for `batch` random pairs (x, y); products keep the dtype.

    Args:
        A: in its own dtype; an operator of another library comes through `as_operator`.
        tol: relative to ‖A x‖‖y‖ + ‖x‖‖Aᵀ y‖; by default 1000 machine epsilons.

    Raises:
        AssertionError: naming the pair that is furthest off.
    """
    dtype, device, tol = _arithmetic(A, tol)
    batch, seed = checks.integer(batch, "batch"), checks.seed(seed)
    checks.room(batch, "batch", batch * A.n)
    x = random_images(A.image_shape, batch, seed).to(device, dtype)
    y = _normal("y", seed, batch, A.m).to(device, dtype)
    again = f"check_adjoint(A, batch={batch}, seed={seed}) with A = {A}"
    measured, back = _apply(A, x, "A", again), _apply(A.adjoint, y, "Aᵀ", again)
    for name, result, like, shape in (
        ("A x", measured, x, (batch, A.m)),
        ("Aᵀ y", back, y, x.shape),
    ):
        if result.shape != shape or result.dtype != like.dtype:
            raise AssertionError(
                f"the shape of {name} is {tuple(result.shape)} of {result.dtype}, expected"
                f" {tuple(shape)} of {like.dtype}.\n  To reproduce: {again}"
            )
    forward, backward = (inner(a.double(), b.double()).cpu() for a, b in ((measured, y), (x, back)))
    scale = _length(measured) * _length(y) + _length(x) * _length(back)
    _hold(
        "⟨A x, y⟩ = ⟨x, Aᵀ y⟩",
        _relative((forward - backward).abs(), scale),
        tol,
        again,
        lambda i: f"⟨A x, y⟩ = {float(forward[i]):.6g}, ⟨x, Aᵀ y⟩ = {float(backward[i]):.6g}",
    )


def check_linear(
    A: LinearOperator, *, batch: int = 3, seed: int = 0, tol: float | None = None
) -> None:
    """A(a x + b z) = a A x + b A z, Aᵀ likewise, and both take a batch image by image.

    Args:
        A: as for `check_adjoint`.
        tol: relative to |a| + |b| times the length of A's products with the whole batch (of one
            image, A x may be small by cancellation); by default 1000 machine epsilons.

    Raises:
        AssertionError: naming the product and the image that is furthest off.
    """
    dtype, device, tol = _arithmetic(A, tol)
    batch, seed = checks.integer(batch, "batch"), checks.seed(seed)
    checks.room(batch, "batch", batch * A.n)
    again = f"check_linear(A, batch={batch}, seed={seed}) with A = {A}"
    products: tuple[tuple[str, Product, tuple[int, ...]], ...] = (
        ("A", A, A.image_shape),
        ("Aᵀ", A.adjoint, (A.m,)),
    )
    for name, product, shape in products:
        u, v = _normal(name, seed, 2, batch, *shape).to(device, dtype)
        of_u, of_v = _apply(product, u, name, again), _apply(product, v, name, again)
        size = torch.stack([of_u, of_v]).double().norm().cpu()
        alone = torch.cat([product(u[i : i + 1]) for i in range(batch)])
        _hold(
            f"{name} of a batch = {name} of its images one by one",
            _relative(_length(alone - of_u), size),
            tol,
            again,
        )
        for a, b in ((2.0, -3.0), (1e3, 1e-3)):
            _hold(
                f"{name}({a:g} x + {b:g} z) = {a:g} {name} x + {b:g} {name} z",
                _relative(
                    _length(product(a * u + b * v) - (a * of_u + b * of_v)),
                    size * (abs(a) + abs(b)),
                ),
                tol,
                again,
            )


def check_norm(A: LinearOperator, *, tol: float | None = None) -> None:
    """A.norm() is the largest singular value of A's matrix, whose n columns are formed.

    Args:
        A: as for `check_adjoint`, and small: its matrix, m × n, is decomposed in float64.
        tol: relative; by default 1000 machine epsilons.

    Raises:
        AssertionError: with both numbers.
    """
    dtype, device, tol = _arithmetic(A, tol)
    columns = []
    for places in torch.split(torch.arange(A.n, device=device), 256):
        unit = torch.zeros(len(places), A.n, dtype=dtype, device=device)
        unit[torch.arange(len(places)), places] = 1
        columns.append(A(unit.reshape(-1, *A.image_shape)).double())
    largest, told = float(torch.linalg.matrix_norm(torch.cat(columns), 2)), A.norm()
    _hold(
        "A.norm() = the largest singular value",
        _relative(torch.tensor([abs(told - largest)]), torch.tensor([largest])),
        tol,
        f"check_norm(A) with A = {A}",
        lambda _: f"A.norm() = {told:.10g}, by singular values {largest:.10g}",
    )


# Checks of a projector ----------------------------------------------------------------------------


@torch.no_grad()
def check_projector(
    project: Projectable | Projector,
    points: Images,
    *,
    delta: float = 0.0,
    members: Images | AffineSet | FiniteSet | None = None,
    probes: int = 8,
    seed: int = 0,
    tol: float | None = None,
) -> None:
    """P is a δ-approximate projector, as far as can be seen from the points w given.

    One after another: P keeps shape and dtype and leaves w as it was; says the same twice; takes a
    batch image by image; is idempotent on S, ‖s − P(s)‖² ≤ δ for s = P(w) and every member s; and

        ‖w − P(w)‖² ≤ min_{s∈S} ‖w − s‖² + δ

    (Raj, Li, Bresler, ICCV 2019, Theorem 1; squared distances, sums over pixels). The minimum is
    taken over members, over P of the other points, and over P of points around P(w), which lie in S
    too; where `members` is a set with an exact projection, it is the minimum over S.

    Args:
        project: P, a callable or anything with `project(w)`.
        points: w, two at least.
        delta: δ.
        members: images of S, near the points for a sharp check; or S itself, and then P(w) must
            lie in it.
        probes: how many random directions to look around each P(w) in, at three distances; each
            costs as many projections. 0 for none.
        seed: of the directions.
        tol: length by which rounding may be off, relative to ‖w‖ or ‖P(w)‖; by default 1000
            machine epsilons.

    Raises:
        AssertionError: naming the property and the point that is furthest off.
        TypeError, ValueError: for arguments that do not fit.
    """
    P = projector(project, "project")
    w = _points(project, points)
    delta = checks.number(delta, "delta", zero=True)
    probes = checks.integer(probes, "probes", minimum=0)
    seed = checks.seed(seed)
    checks.room(probes, "probes", probes * w.numel())
    tol = _rounding(w.dtype) if tol is None else checks.number(tol, "tol", zero=True)
    again = (
        f"check_projector(project, points, delta={delta}, members=members, probes={probes},"
        f" seed={seed})"
    )

    p = _projection(P, w, tol, again)
    rounding = tol * torch.maximum(_length(w), _length(p))
    achieved = _length(w - p).square()

    def stays(s: Images, name: str) -> None:
        slack = tol * _length(s)
        _hold(
            f"P is idempotent on S: ‖s − P(s)‖² ≤ δ for s = {name}",
            _length(s - P(s)).square(),
            (math.sqrt(delta) + slack).square(),
            again,
        )

    def nearest(least: PerImage, name: str) -> None:
        _hold(
            f"P is a δ-approximate projector: ‖w − P(w)‖² ≤ ‖w − s‖² + δ for s = {name}",
            achieved - least,
            ((least + delta).sqrt() + rounding).square() - least,
            again,
            lambda i: f"‖w − P(w)‖² = {float(achieved[i]):.6g}, ‖w − s‖² = {float(least[i]):.6g}",
        )

    stays(p, "P(w)")
    if isinstance(members, AffineSet | FiniteSet):
        S = members
        _hold("P(w) lies in S: its distance", _length(p - S.project(p)), rounding, again)
        nearest(_length(w - S.project(w)).square(), "the nearest point of S")
        members = S.sample(8, seed=seed)
    elif members is not None:
        shape = checks.image_shape(w.shape[1:])
        checks.finite(checks.images(members, shape, "members", least=1), "members")
        nearest(_squared_distances(w, members).amin(1), "the nearest member")
    if members is not None:
        stays(members.to(w), "a member")
    nearest(_squared_distances(w, p).amin(1), "P of another point")
    if probes:
        nearest(_nearest_around(P, w, p, probes, seed), "P of a point near P(w)")


def _points(project: Projectable | Projector, points: Images) -> Images:
    """Two points or more that `project` takes; TypeError or ValueError for others."""
    w = checks.finite(checks.floating(points, "points"), "points")
    checks.same_kind(w, project, "points", "project")
    if hasattr(project, "image_shape"):
        checks.images(w, checks.image_shape(project.image_shape), "points")
    if w.ndim != 4 or len(w) < 2:
        raise ValueError(
            "points must be of shape (batch, channels, height, width) with batch at least 2, got"
            f" {tuple(w.shape)}"
        )
    return w


def _projection(P: Projector, w: Images, tol: float, again: str) -> Images:
    """P(w), the same twice and in every batch, of w's shape and dtype."""
    p = _apply(P, w, "P", again)
    if p.shape != w.shape or p.dtype != w.dtype or not bool(p.isfinite().all()):
        raise AssertionError(
            f"P(w) has shape {tuple(p.shape)} of {p.dtype}, expected finite numbers of shape"
            f" {tuple(w.shape)} of {w.dtype}.\n  To reproduce: {again}"
        )
    rounding = tol * torch.maximum(_length(w), _length(p))
    alone = torch.cat([P(w[i : i + 1]) for i in range(len(w))])
    turned = P(w.flip(0)).flip(0)
    for what, found in (
        ("P is deterministic: P(w) twice", P(w)),
        ("P of a batch = P of its images one by one", alone),
        ("P of a batch = P of the batch in other order", turned),
    ):
        _hold(what, _length(found - p), rounding, again)
    return p


def _nearest_around(P: Projector, w: Images, p: Images, probes: int, seed: int) -> PerImage:
    """The least ‖w − s‖² for s = P of points around P(w), in random directions, at 1, 0.1 and 0.01
    times ‖w − P(w)‖."""
    directions = _normal("probes", seed, 3 * probes, *w.shape).to(w)
    far = torch.tensor((1.0, 0.1, 0.01), dtype=w.dtype).repeat_interleave(probes).to(w.device)
    lengths = far[:, None] * norm(w - p) / directions.flatten(2).norm(dim=2)
    around = P((p + lengths[..., None, None, None] * directions).flatten(0, 1))
    distances = _length((w - around.reshape(directions.shape)).flatten(0, 1)).square()
    return distances.reshape(3 * probes, -1).amin(0)


# Checks of a run ----------------------------------------------------------------------------------


@torch.no_grad()
def check_one_step_identity(
    A: LinearOperator,
    project: Projectable | Projector | None,
    x_true: Images,
    y: Measurements,
    step_size: float,
    *,
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"] | None = None,
    max_iter: int = 5,
    tol: float = 1e-10,
) -> Decomposition:
    """The exact one-step identity closes along a run of NPGD (see `analysis.rates`).

    F_{n+1} = (1/(η α_n) − 1) f_n + ‖v‖² + δ_n/η + (β_n − 1/η)‖d_n‖² assumes a linear A, with its
    adjoint, and nothing else. Where it fails, one of these is not so. Returns what was measured.

    Args:
        A, y, step_size: of the run.
        project: P, as NPGD takes it.
        x_true: x*, in S or not.
        iterates: of a solver of your own, x_0 first, instead of NPGD's. They must be those of
            x_{n+1} = P(x_n − η Aᵀ(A x_n − y)); with `project` None this is not looked at.
        max_iter: iterations of NPGD, from x_0 = Aᵀ y.
        tol: |left − right| relative to the largest term.

    Raises:
        AssertionError: naming the iteration and the image that is furthest off.
    """
    _check_run(A, project, y, step_size, iterates, max_iter)
    step_size, max_iter = checks.number(step_size, "step_size"), int(max_iter)
    tol = checks.number(tol, "tol", zero=True)
    again = (
        f"check_one_step_identity(A, project, x_true, y, step_size={step_size},"
        f" iterates={'None' if iterates is None else 'iterates'}, max_iter={max_iter}) with A = {A}"
    )
    iterates = _iterates(A, project, y, step_size, iterates, "adjoint", max_iter, again)
    parts = decompose(A, y, x_true, iterates, step_size)
    _hold(
        "the one-step identity",
        parts.residual.flatten(),
        tol,
        again,
        lambda i: _iteration(i, parts.residual.shape[1]),
    )
    return parts


@torch.no_grad()
def check_bound(
    A: LinearOperator,
    project: Projectable | Projector | None,
    x_true: Images,
    y: Measurements,
    step_size: float,
    alpha: float,
    beta: float,
    delta: float = 0.0,
    *,
    start: int = 0,
    iterates: Float[torch.Tensor, "n_iter_plus_1 batch channels height width"] | None = None,
    max_iter: int = 15,
) -> ConvergenceCheck:
    """The bound of Theorem 1 holds along a run of NPGD, and so does every assumption behind it.

    F_n = ‖A x_n − y‖² stays below `analysis.predicted_objective`, for η = 1/β and κ < 2 without
    noise at most (κ−1)ⁿ F_0 + βδ Σ_{i<n} (κ−1)^i; and α_n ≥ α, β_n ≤ β and δ_n ≤ δ, against x*, x_n
    and x_{n−1}, at every iterate. True constants, as `exact_constants` gives them, can only fail
    for a projector that is farther off than δ, an x* outside S, or iterates that are not those of
    this step. Returns what was measured.

    Args:
        A, project, x_true, y, step_size, iterates: as for `check_one_step_identity`.
        alpha, beta, delta: the constants.
        start: 0 if x_0 lies in S (NPGD then begins at P(Aᵀ y)), 1 if not (at Aᵀ y): the bound
            begins at x_start.
        max_iter: iterations of NPGD.

    Raises:
        AssertionError: naming the iterate and the image where the bound is exceeded the most, and
            the assumptions that are broken.
        ValueError: for constants that are none, as alpha = 0.
    """
    _check_run(A, project, y, step_size, iterates, max_iter)
    step_size, max_iter = checks.number(step_size, "step_size"), int(max_iter)
    alpha, beta = checks.number(alpha, "alpha"), checks.number(beta, "beta")
    delta = checks.number(delta, "delta", zero=True)
    start = checks.integer(start, "start", minimum=0)
    again = (
        f"check_bound(A, project, x_true, y, step_size={step_size}, alpha={alpha}, beta={beta},"
        f" delta={delta}, start={start}, iterates={'None' if iterates is None else 'iterates'},"
        f" max_iter={max_iter}) with A = {A}"
    )
    begin = "range" if start == 0 else "adjoint"
    iterates = _iterates(A, project, y, step_size, iterates, begin, max_iter, again)
    # Constants are known to rounding only: so much less of α keeps κ − 1 from falling below 0.
    alpha *= 1 - 1e-12
    check = check_convergence(A, y, x_true, iterates, step_size, alpha, beta, delta, start=start)
    if not check.holds:
        over = (check.objective - check.bound)[start:]
        i = int(over.nan_to_num(nan=-math.inf).argmax())
        n, image = divmod(i, over.shape[1])
        raise AssertionError(
            f"Theorem 1's bound fails by {float(over[n, image]):.3g} at x_{n + start}, image"
            f" {image}: F_n = {float(check.objective[n + start, image]):.6g}, bound"
            f" {float(check.bound[n + start, image]):.6g}. {' '.join(check.comparison())}\n"
            f"  To reproduce: {again}"
        )
    if check.broken:
        raise AssertionError(
            "an assumption of Theorem 1 fails, though the bound holds."
            f" {' '.join(check.comparison())}\n  To reproduce: {again}"
        )
    return check


def _check_run(
    A: LinearOperator, project: Projectable | Projector | None, y: Measurements, step_size: float,
    iterates: torch.Tensor | None, max_iter: int,
) -> None:  # fmt: skip
    """Raise TypeError or ValueError, by name, for a run that cannot be one."""
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {checks.shown(A)}; see as_operator")
    if project is not None:
        projector(project, "project")
    checks.integer(max_iter, "max_iter")
    checks.number(step_size, "step_size")
    checks.finite(checks.measurements(y, A.m, least=1), "y")
    if iterates is not None:
        checks.floating(iterates, "iterates")
        if iterates.ndim != 5 or tuple(iterates.shape[1:]) != (len(y), *A.image_shape):
            raise ValueError(
                f"iterates must be of shape (n_iter + 1, {len(y)}, *{A.image_shape}), got"
                f" {tuple(iterates.shape)}"
            )
        checks.same_tensor(iterates, y, "iterates", "y")
    if iterates is None and project is None:
        raise ValueError("project must be given where iterates are not, got neither")


def _iterates(
    A: LinearOperator, project: Projectable | Projector | None, y: Measurements, step_size: float,
    iterates: torch.Tensor | None, start: str, max_iter: int, again: str,
) -> torch.Tensor:  # fmt: skip
    """Those of NPGD; or those given, which must follow from one another by its formula."""
    if iterates is None:
        assert project is not None
        solver = NPGD(project, step_size, max_iter=max_iter, tol=0.0, start=start)
        iterates = recover(A, y, solver, record_iterates=True).iterates
        assert iterates is not None
    elif project is not None and len(iterates) > 1:
        P = projector(project, "project")
        w = torch.stack([x - step_size * A.adjoint(A(x) - y) for x in iterates[:-1]])
        off = torch.stack([_length(x - P(v)) for x, v in zip(iterates[1:], w, strict=True)])
        size = torch.stack([_length(v) + _length(x) for x, v in zip(iterates[1:], w, strict=True)])
        _hold(
            f"x_{{n+1}} = P(x_n − η Aᵀ(A x_n − y)) with η = {step_size:g}",
            _relative(off, size).flatten(),
            _rounding(iterates.dtype),
            again,
            lambda i: _iteration(i, off.shape[1]),
        )
    if not bool(iterates.isfinite().all()):
        first = int((~iterates.isfinite().flatten(1).all(1)).nonzero()[0])
        raise AssertionError(f"x_{first} holds NaN or infinity.\n  To reproduce: {again}")
    return iterates


# --------------------------------------------------------------------------------------------------


def _hold(
    law: str,
    violation: PerImage,
    allowed: PerImage | float,
    again: str,
    found: Callable[[int], str] | None = None,
) -> None:
    """Raise AssertionError unless no violation exceeds what is allowed; NaN is a violation."""
    bound = torch.as_tensor(allowed, dtype=DOUBLE).expand_as(violation)
    if bool((violation <= bound).all()):
        return
    i = int((violation - bound).nan_to_num(nan=math.inf).argmax())
    where = f"at index {i}" + (f": {found(i)}" if found else "")
    raise AssertionError(
        f"{law} fails by {float(violation[i]):.3g} (allowed: {float(bound[i]):.3g}) {where}.\n"
        f"  To reproduce: {again}"
    )


def _iteration(index: int, batch: int) -> str:
    n, image = divmod(index, batch)
    return f"from x_{n} to x_{n + 1}, image {image}"


def _apply(product: Product, argument: torch.Tensor, name: str, again: str) -> torch.Tensor:
    """The product, which must leave its argument as it was."""
    before = argument.clone()
    with torch.no_grad():
        result = product(argument)
    if not torch.equal(argument, before):
        raise AssertionError(
            f"{name} changes its argument in place, by up to"
            f" {float((argument - before).abs().max()):.3g}.\n  To reproduce: {again}"
        )
    return result


def _arithmetic(A: LinearOperator, tol: float | None) -> tuple[torch.dtype, torch.device, float]:
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {checks.shown(A)}; see as_operator")
    dtype, device = A._kind()
    tol = _rounding(dtype) if tol is None else checks.number(tol, "tol", zero=True)
    return dtype, device, tol


def _rounding(dtype: torch.dtype) -> float:
    return 1000 * torch.finfo(dtype).eps


def _length(x: torch.Tensor) -> PerImage:
    """‖x‖ of every row, in float64."""
    return norm(x.double()).cpu()


def _relative(amount: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """amount/scale, and 0 where the amount is 0, of whatever scale."""
    return torch.where(amount == 0, 0.0, amount / scale)


def _squared_distances(w: Images, s: Images) -> Float[torch.Tensor, "batch N"]:
    flat = w.double().flatten(1).cpu(), s.double().flatten(1).cpu()
    return torch.cdist(*flat, compute_mode="donot_use_mm_for_euclid_dist").square()


def _draws(what: str, seed: int) -> torch.Generator:
    """A stream for each thing drawn, so that equal seeds do not make equal numbers."""
    state = np.random.SeedSequence([checks.seed(seed), *what.encode()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


def _normal(what: str, seed: int, *size: int) -> torch.Tensor:
    return torch.randn(size, generator=_draws(what, seed), dtype=DOUBLE)


M = TypeVar("M", bound=nn.Module)


def _described(module: M, call: str) -> M:
    """The module, which prints the call that makes it."""
    module.extra_repr = partial(str, call)  # type: ignore[method-assign]
    return module
