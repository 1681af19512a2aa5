"""Smooth layered maps, their Taylor expansions at many latents, and bounds on what is left out.

G(z) = W φ_L(z) + c with φ_l = σ(W_l φ_(l−1) + b_l), φ_0 = z, and σ = tanh, sin or the identity,
layer by layer: small generators, and analytic sets (trigonometric polynomials). In the features
φ = φ_L everything about pairs of points of S is small: with Δ = φ(z₁) − φ(z₂),
‖G(z₁) − G(z₂)‖² = Δᵀ WᵀW Δ and ‖A(G(z₁) − G(z₂))‖² = Δᵀ(AW)ᵀ(AW) Δ.

`expand` returns φ, its gradients and second derivatives at centres, and for every feature a bound
on |D³φ_j(z)[u, u, u]|, ‖u‖ = 1, that holds within a radius of the centre. Only the third derivative
is bounded crudely, layer by layer with absolute values; lower ones are the centre's plus what they
can change within the radius.

Rounding is bounded a priori: `rounding` follows the largest errors through the layers, from
γ_n = n u/(1 − n u) for a sum of n products in any order (Higham 2002, section 3.1), u = 2⁻⁵³, and
`FUNCTION_ERROR` for tanh, sin and cos, which is an assumption on the library.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import nn

from npgd import checks
from npgd.images import Images, Latents
from npgd.showing import Shown

UNIT = 2.0**-53
"""u, the unit roundoff of float64."""
FUNCTION_ERROR = 16 * UNIT
"""Absolute error assumed of tanh, sin and cos, whose values are at most 1, and of the short
formulas that make their derivatives: more than ten times what their authors state."""
WIDER = 1 + 1e-9
"""Bounds that are computed in a few operations are multiplied by this."""
MOST_ROUNDING = 1e-9
"""What rounding may make of a pre-activation and its derivatives, at most; `rounding` checks it."""

ACTIVATIONS = ("tanh", "sin", "identity")
# Largest |σ⁽ⁿ⁾|, n = 1 … 3: of tanh 1, 4/(3√3), 2.
_LARGEST = {"tanh": (1.0, 0.77, 2.0), "sin": (1.0, 1.0, 1.0), "identity": (1.0, 0.0, 0.0)}

Jets = Float[torch.Tensor, "count rows features"]
"""Rows: φ; its k derivatives; its k(k + 1)/2 second derivatives, i ≤ j, row by row."""


def gamma(n: int) -> float:
    """γ_n."""
    return n * UNIT / (1 - n * UNIT)


class LayeredSet(Shown, nn.Module):
    """S = {W σ(… σ(W_1 z + b_1) …) + c}: a smooth map from latents to images, linear at its end.

    Args:
        weights: W_1 … W_L and W, each (out, in).
        biases: b_1 … b_L and c.
        image_shape: (channels, height, width).
        activation: "tanh", "sin" or "identity", or one of them for each of the L layers.
        low, high: corners of the box of latents, (k,); −1 and 1 by default.
        periodic: which latents close to a circle at the ends of the box; none by default.
    """

    def __init__(
        self,
        weights: Sequence[torch.Tensor],
        biases: Sequence[torch.Tensor],
        image_shape: Sequence[int],
        activation: str | Sequence[str] = "tanh",
        low: Sequence[float] = (),
        high: Sequence[float] = (),
        periodic: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        self.image_shape = checks.image_shape(image_shape)
        if len(weights) != len(biases) or len(weights) < 2:
            raise ValueError(
                f"weights and biases must be of the same two layers or more, got {len(weights)} and"
                f" {len(biases)}"
            )
        for name, rows in (("weights", weights), ("biases", biases)):
            for entry in rows:
                checks.finite(checks.floating(entry, name), name)
        sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
        fits = all(w.shape == (o, i) for w, i, o in zip(weights, sizes, sizes[1:], strict=False))
        if not fits or [len(b) for b in biases] != sizes[1:]:
            raise ValueError(
                f"weights must follow each other, got {[tuple(w.shape) for w in weights]} with"
                f" biases {[tuple(b.shape) for b in biases]}"
            )
        if sizes[-1] != math.prod(self.image_shape):
            raise ValueError(
                f"image_shape must have {sizes[-1]} entries, got {tuple(self.image_shape)}"
            )
        names = [activation] * (len(weights) - 1) if isinstance(activation, str) else activation
        if len(names) != len(weights) - 1:
            raise ValueError(
                f"activation must name one for each of {len(weights) - 1} layers, got {len(names)}"
            )
        self.activation = tuple(checks.choice(x, "activation", *ACTIVATIONS) for x in names)
        self.latent_dim: int = sizes[0]
        self.weights = nn.ParameterList([w.detach().clone() for w in weights])
        self.biases = nn.ParameterList([b.detach().clone() for b in biases])
        self.low = tuple(float(x) for x in low) or (-1.0,) * self.latent_dim
        self.high = tuple(float(x) for x in high) or (1.0,) * self.latent_dim
        self.periodic = tuple(bool(x) for x in periodic) or (False,) * self.latent_dim
        self.requires_grad_(False)

    def features(self, z: Latents) -> Float[torch.Tensor, "batch features"]:
        """φ(z)."""
        for weight, bias, activation in self.hidden():
            z = z @ weight.T + bias
            if activation != "identity":
                z = torch.tanh(z) if activation == "tanh" else torch.sin(z)
        return z

    def hidden(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, str]]:
        """W_l, b_l and σ of the layers before the last."""
        return zip(self.weights[:-1], self.biases[:-1], self.activation, strict=True)

    def generate(self, z: Latents) -> Images:
        """G(z)."""
        checks.same_kind(checks.latents(z, self.latent_dim), self, "z", "the set")
        x: torch.Tensor = self.features(z) @ self.weights[-1].T + self.biases[-1]
        return x.reshape(-1, *self.image_shape)

    def sample_latents(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Latents:
        """n latents, uniform in the box."""
        generator = checks.drawing(generator, seed)
        size = (checks.integer(n, "n"), self.latent_dim)
        share = torch.rand(size, generator=generator, dtype=torch.float64)
        low, high = torch.tensor([self.low, self.high], dtype=torch.float64)
        z: Latents = (low + share * (high - low)).to(self.biases[0])
        return z

    def sample(
        self, n: int, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Images:
        """n points of S."""
        return self.generate(self.sample_latents(n, generator=generator, seed=seed))

    def extra_repr(self) -> str:
        sizes = [self.latent_dim, *(len(weight) for weight in self.weights)]
        return f"sizes={sizes}, activation={self.activation!r}, image_shape={self.image_shape}"


def layers_of(prior: object) -> LayeredSet:
    """The layers of a set in float64.

    Args:
        prior: a `LayeredSet`, or a prior whose `generator` is a sequence of linear layers with tanh
            between them and a linear one at the end (`npgd.networks.TanhGenerator`).

    Raises:
        TypeError: a set of another kind.
    """
    if isinstance(prior, LayeredSet):
        return _rebuilt(prior.weights, prior.biases, prior, prior.activation)
    generator = getattr(prior, "generator", None)
    parts = [m for m in generator.modules() if not list(m.children())] if isinstance(
        generator, nn.Module
    ) else []  # fmt: skip
    parts = [part for part in parts if not isinstance(part, nn.Unflatten | nn.Flatten)]
    linear, between = parts[::2], parts[1::2]
    if (
        len(parts) < 3
        or len(parts) % 2 == 0
        or not all(isinstance(part, nn.Linear) for part in linear)
        or not all(isinstance(part, nn.Tanh) for part in between)
        or not isinstance(generator, nn.Sequential)
    ):
        raise TypeError(
            "prior must be a LayeredSet, or have a generator nn.Sequential of linear layers with"
            f" tanh between them and a linear one at the end, got {checks.shown(prior)}"
        )
    weights = [part.weight for part in linear]
    biases = [
        part.bias if part.bias is not None else part.weight.new_zeros(len(part.weight))
        for part in linear
    ]
    return _rebuilt(weights, biases, prior, "tanh")


def _rebuilt(weights: object, biases: object, like: object, activation: object) -> LayeredSet:
    w, b = ([part.detach().double() for part in parts] for parts in (weights, biases))  # type: ignore[attr-defined]
    box = [getattr(like, name, ()) for name in ("low", "high", "periodic")]
    return LayeredSet(w, b, like.image_shape, activation, *box)  # type: ignore


def pairs_of(k: int) -> list[tuple[int, int]]:
    """The second derivatives that are kept, i ≤ j."""
    return [(i, j) for i in range(k) for j in range(i, k)]


def expand(
    S: LayeredSet, z: Latents, radius: Float[torch.Tensor, " count"]
) -> tuple[Jets, Float[torch.Tensor, "count features"]]:
    """Jets of φ at every z, and bounds on its third derivatives within `radius` of it."""
    k, pairs = S.latent_dim, pairs_of(S.latent_dim)
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    twice = torch.tensor([1.0 if i == j else 2.0 for i, j in pairs], dtype=z.dtype)[:, None]
    rows = z.new_zeros(len(z), 1 + k + len(pairs), k)
    rows[:, 0] = z
    rows[:, 1 : 1 + k] = torch.eye(k, dtype=z.dtype)
    third = z.new_zeros(len(z), k)
    r = radius[:, None]
    for weight, bias, activation in S.hidden():
        rows = rows @ weight.T
        rows[:, 0] += bias
        third = third @ weight.abs().T
        a, da, dda = rows[:, 0], rows[:, 1 : 1 + k], rows[:, 1 + k :]
        # Largest first and second derivative along unit directions, and range, within r.
        bend, slope = (twice * dda.square()).sum(1).sqrt(), da.square().sum(1).sqrt()
        most2 = bend + r * third + MOST_ROUNDING
        most1 = slope + r * (bend + 0.5 * r * third) + MOST_ROUNDING
        reach = r * (slope + 0.5 * r * (bend + r * third / 3)) + MOST_ROUNDING
        s1, s2, s3 = _largest(activation, a, reach)
        third = WIDER * (s3 * most1**3 + 3 * s2 * most1 * most2 + s1 * third)
        v0, v1, v2 = _derivatives(activation, a)
        rows = torch.cat(
            [
                v0[:, None],
                v1[:, None] * da,
                v2[:, None] * da[:, first] * da[:, second] + v1[:, None] * dda,
            ],
            dim=1,
        )
    return rows, third


def _derivatives(activation: str, a: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """σ, σ′, σ″."""
    if activation == "sin":
        sine = torch.sin(a)
        return sine, torch.cos(a), -sine
    if activation == "identity":
        return a, torch.ones_like(a), torch.zeros_like(a)
    t = torch.tanh(a)
    slope = 1 - t * t
    return t, slope, -2 * t * slope


def _largest(activation: str, a: torch.Tensor, reach: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Upper bounds on |σ′|, |σ″|, |σ‴| within `reach` of a."""
    if activation == "sin":
        one = torch.ones_like(a)
        return one, one, one
    if activation == "identity":
        return torch.ones_like(a), torch.zeros_like(a), torch.zeros_like(a)
    low = torch.tanh((a.abs() - reach).clamp_min(0.0))
    high = torch.tanh(a.abs() + reach)

    def second(t: torch.Tensor) -> torch.Tensor:
        return 2 * t * (1 - t * t)  # rises up to 1/√3, then falls

    def third(t: torch.Tensor) -> torch.Tensor:
        return 2 * (1 - t * t) * (1 - 3 * t * t).abs()  # falls to 1/√3, rises to √(2/3), falls

    peak2, peak3 = 3**-0.5, (2 / 3) ** 0.5
    s1 = 1 - low * low
    s2 = torch.maximum(second(low), second(high))
    s2 = torch.where((low <= peak2) & (high >= peak2), 0.77, s2)
    s3 = torch.maximum(third(low), third(high))
    s3 = torch.where((low <= peak3) & (high >= peak3), s3.clamp_min(0.667), s3)
    return s1 + 1e-14, s2 + 1e-14, s3 + 1e-14


@dataclass(frozen=True)
class Rounding:
    """Largest absolute errors of an entry of φ, of its first and its second derivatives."""

    value: float
    first: float
    second: float
    sizes: tuple[float, float, float]
    """Largest |φ_j|, |∂_i φ_j|, |∂_i ∂_j φ|."""


def rounding(S: LayeredSet, largest: float) -> Rounding:
    """A priori errors of `expand`, for latents with entries of at most `largest`.

    Raises:
        ValueError: layers whose rounding errors exceed what `expand` allows for.
    """
    x = (largest, 1.0, 0.0)
    e = (0.0, 0.0, 0.0)
    k = S.latent_dim
    for weight, bias, activation in S.hidden():
        d1, d2, d3 = _LARGEST[activation]
        x, e = through(weight, x, e, float(bias.abs().max()))
        if not k * max(e) < MOST_ROUNDING / 4:
            raise ValueError(
                f"prior must have weights that float64 can follow to {MOST_ROUNDING:g}, got layers"
                f" that make errors of up to {k * max(e):.2g}"
            )
        s1, s2 = d2 * e[0] + FUNCTION_ERROR, d3 * e[0] + FUNCTION_ERROR
        e = (
            d1 * e[0] + FUNCTION_ERROR,
            2 * (d1 * e[1] + x[1] * (s1 + 4 * UNIT)),
            2 * (d1 * e[2] + x[2] * s1 + 2 * d2 * x[1] * e[1] + x[1] ** 2 * s2)
            + 16 * UNIT * (x[2] + x[1] ** 2),
        )
        x = (x[0] if activation == "identity" else 1.0, d1 * x[1], d1 * x[2] + d2 * x[1] ** 2)
    return Rounding(*e, sizes=x)


def through(
    weight: torch.Tensor,
    x: tuple[float, float, float],
    e: tuple[float, float, float],
    bias: float = 0.0,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Sizes and errors behind a linear layer."""
    rows = WIDER * float(weight.abs().sum(1).max())
    g = 2 * gamma(weight.shape[1] + 2)
    sizes = (rows * x[0] + bias, rows * x[1], rows * x[2])
    return sizes, tuple(rows * a + g * b for a, b in zip(e, sizes, strict=True))  # type: ignore[return-value]
