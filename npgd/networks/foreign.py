"""Generators and encoders that others made, brought into this package's form.

Inside the package G takes latents (batch, k) to images in [−1, 1] and G† takes images to latents.
A network from outside may give several things, have pixels in [0, 1], latents that are images, one
precision only, or be a function that no gradient goes through; what it can do, it does here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from npgd import checks

Output = int | str | None
Fixed = torch.dtype | None


def as_generator(
    network: Callable[..., Any],
    *,
    latent_shape: Sequence[int] | None = None,
    pixels: tuple[float, float] = (-1.0, 1.0),
    output: Output = None,
    dtype: Fixed = None,
    arrays: bool = False,
    image_shape: Sequence[int] | None = None,
    channels_last: bool = False,
) -> nn.Module:
    """A generator of another library, z (batch, k) to images in [−1, 1].

    Args:
        network: a module, TorchScript's too; a module's method, such as `vae.decode`, with the
            module's weights; or a function of a batch of latents.
        latent_shape: what it takes, without the batch, where that is not (k,).
        pixels: (black, white) of its images, mapped to (−1, 1).
        output: the part that is the image, where it gives several: an index, a key, or an
            attribute, also one of another ("latent_dist.mean"); a method is called.
        dtype: torch.float32 for a network that computes in nothing else: it keeps its weights, and
            latents and images are converted at its border. No check of G is then more exact than
            about 1e-7.
        arrays: whether it is a function of numpy arrays (ONNX Runtime, JAX), in float32 unless
            `dtype` says another. It generates; what needs a gradient or a tangent of G is refused.
        image_shape: (channels, height, width), where it gives its images in another shape, such as
            rows (784,) or planes (28, 28).
        channels_last: whether it gives (height, width, channels), or rows in this order.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    shape = None if latent_shape is None else _sides(latent_shape)
    made = _Generator(network, shape, _range(pixels), output, dtype, arrays)
    made.image_shape = None if image_shape is None else checks.image_shape(image_shape)
    made.channels_last = checks.flag(channels_last, "channels_last")
    return made


def as_encoder(
    network: Callable[..., Any],
    *,
    pixels: tuple[float, float] = (-1.0, 1.0),
    output: Output = None,
    dtype: Fixed = None,
    arrays: bool = False,
    flat: bool = False,
    channels_last: bool = False,
) -> nn.Module:
    """An encoder of another library, images in [−1, 1] to z (batch, k).

    Latents that are images become rows.

    Args:
        network: as for `as_generator`.
        pixels: (black, white) of the images that it takes.
        output: the part that is the latent, as for `as_generator`: 0 of (mean, log-variance).
        dtype: as for `as_generator`.
        arrays: as for `as_generator`.
        flat: whether it takes images as rows (batch, channels · height · width).
        channels_last: whether it takes (batch, height, width, channels), or rows in this order.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    made = _Encoder(network, None, _range(pixels), output, dtype, arrays)
    made.flat = checks.flag(flat, "flat")
    made.channels_last = checks.flag(channels_last, "channels_last")
    return made


class _Foreign(nn.Module):
    """A network with what is done before and after it."""

    like: torch.Tensor

    def __init__(
        self,
        network: Callable[..., Any],
        shape: tuple[int, ...] | None,
        pixels: tuple[float, float],
        output: Output,
        dtype: Fixed,
        arrays: bool,
    ) -> None:
        super().__init__()
        if not callable(network):
            raise TypeError(f"network must be a module or function, got {checks.shown(network)}")
        if isinstance(output, bool) or not isinstance(output, int | str | None):
            raise TypeError(f"output must be an index or a name, got {checks.shown(output)}")
        if dtype is not None:
            checks.floating_type(dtype)
        self.arrays = checks.flag(arrays, "arrays")
        self.shape, self.pixels, self.output = shape, pixels, output
        self.fixed = torch.float32 if self.arrays and dtype is None else dtype
        owner = getattr(network, "__self__", None)
        self.method = getattr(network, "__name__", "") if isinstance(owner, nn.Module) else ""
        module = owner if isinstance(owner, nn.Module) else network
        # What is held in a list keeps its dtype when this module is moved to another.
        keeps = self.fixed is not None or not isinstance(module, nn.Module)
        self.held: list[Any] = [module] if keeps else []
        self.network = None if keeps else module
        self.register_buffer("like", torch.empty(0), persistent=False)
        found = checks.kind(module) if isinstance(module, nn.Module) else None
        if found is not None and found[0] not in (torch.float32, torch.float64):
            raise TypeError(
                f"network must be float32 or float64, got {found[0]}; convert it, network.float()"
            )
        if keeps and isinstance(module, nn.Module):
            self.train(False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> _Foreign:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for module in self.held:
            if isinstance(module, nn.Module):
                module.to(self.like.device)
        return self

    def train(self, mode: bool = True) -> _Foreign:
        """What is held as it is stays in evaluation mode."""
        for module in self.held if not mode else ():
            try:
                if isinstance(module, nn.Module):
                    module.eval()
            except NotImplementedError:  # of torch.export, in the mode it was exported in
                pass
        return super().train(mode)

    @property
    def name(self) -> str:
        module = self.held[0] if self.held else self.network
        return getattr(module, "__name__", type(module).__name__)

    def _called(self, x: torch.Tensor) -> torch.Tensor:
        module: Any = self.held[0] if self.held else self.network
        function = getattr(module, self.method) if self.method else module
        given = x if self.fixed is None else x.to(self.fixed)
        if self.arrays:
            made: torch.Tensor = _Arrays.apply(given, function, self.output, self.name)  # type: ignore[no-untyped-call]
        else:
            made = part(function(given), self.output)
        plain = self.fixed is not None and isinstance(made, torch.Tensor)
        return made.to(x) if plain else made


class _Generator(_Foreign):
    image_shape: checks.ImageShape | None
    channels_last: bool

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self._called(z if self.shape is None else z.reshape(len(z), *self.shape))
        low, high = self.pixels
        if not isinstance(x, torch.Tensor):
            return x
        if self.image_shape is not None and x[0].numel() == math.prod(self.image_shape):
            channels, *plane = self.image_shape
            sides = (*plane, channels) if self.channels_last else self.image_shape
            x = x.reshape(len(x), *sides)
        x = x.movedim(-1, 1) if self.channels_last and x.ndim == 4 else x
        if self.pixels == (-1.0, 1.0):
            return x
        return (x - low) * (2 / (high - low)) - 1


class _Encoder(_Foreign):
    flat: bool
    channels_last: bool

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        low, high = self.pixels
        if self.pixels != (-1.0, 1.0):
            w = (w + 1) * ((high - low) / 2) + low
        w = w.movedim(1, -1) if self.channels_last else w
        w = w.flatten(1) if self.flat else w
        z = self._called(w)
        return z.flatten(1) if isinstance(z, torch.Tensor) and z.ndim > 2 else z


class _Arrays(torch.autograd.Function):
    """A function of numpy arrays; what differentiates it is told that it cannot."""

    @staticmethod
    def forward(
        x: torch.Tensor, function: Callable[..., Any], output: Output, name: str
    ) -> torch.Tensor:
        return torch.as_tensor(np.array(part(function(x.detach().cpu().numpy()), output))).to(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.name = inputs[-1]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise TypeError(_no_gradient(ctx.name))

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor) -> Any:
        raise TypeError(_no_gradient(ctx.name))


def _no_gradient(name: str) -> str:
    return (
        f"generator must be made of torch's operations to be searched or differentiated, got {name}"
        " of numpy arrays; NPGD, samples and secants do without"
    )


def part(out: Any, output: Output) -> Any:
    """The part `output` of what a network gives."""
    if output is None:
        return out
    for name in output.split(".") if isinstance(output, str) else (output,):
        try:
            if isinstance(out, Mapping | tuple | list) and not hasattr(out, str(name)):
                out = out[name]  # type: ignore[index]
            else:
                out = getattr(out, str(name))
        except (LookupError, TypeError, AttributeError):
            known = ", ".join(map(repr, _parts(out))) or "none"
            raise ValueError(
                f"output must be a part of what the network gives ({known}), got {output!r}"
            ) from None
        if callable(out) and not isinstance(out, torch.Tensor):
            out = out()
    return out


SPREAD = ("var", "std", "scale", "log", "sigma")
"""Words in the names of what is no mean."""


def adapted(argument: str, came: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What brings an output of that shape, for a batch of two, into the expected one, in words."""
    batch, *sides = came
    call = f"npgd.as_{argument}({argument}, "
    if argument == "generator" and len(expected) == 3:
        if batch == 2 and sides == [*expected[1:], expected[0]]:
            return f"{call}channels_last=True) turns it"
        if batch == 2 and math.prod(sides) == math.prod(expected):
            return f"{call}image_shape={expected}) reshapes it"
    if argument == "encoder" and sides == [2 * expected[0]]:
        return f"if they are a mean and a log-variance, a module of yours takes {expected[0]}"
    return f"npgd.as_{argument} adapts networks of other forms"


def require_tensor(out: Any, argument: str, expected: tuple[int, ...]) -> torch.Tensor:
    """`out`, real tensors; TypeError that says what came, and the wrapper that takes its part."""
    if isinstance(out, torch.Tensor):
        if not out.is_floating_point():
            raise TypeError(f"{argument} must give real tensors, got {out.dtype}")
        return out
    parts = _parts(out)
    if not parts:
        raise TypeError(f"{argument} must give real tensors, got {type(out).__name__}")
    size = math.prod(expected)
    fits = [name for name, held in parts.items() if held.numel() == len(held) * size]
    fits.sort(key=lambda name: any(word in str(name) for word in SPREAD))
    listed = ", ".join(f"{name!r} of {tuple(held.shape)}" for name, held in parts.items())
    raise TypeError(
        f"{argument} must give one tensor, got a {type(out).__name__} of {listed}; take its part,"
        f" npgd.as_{argument}({argument}, output={(fits or list(parts))[0]!r})"
    )


def _parts(out: Any) -> dict[Any, torch.Tensor]:
    """The tensors in what a network gives, by index, key or attribute."""
    if isinstance(out, Mapping):
        named = dict(out)
    elif isinstance(out, tuple | list) and not hasattr(out, "_fields"):
        named = dict(enumerate(out))
    else:
        named = {n: getattr(out, n, None) for n in dir(out) if not n.startswith("_")}
    found: dict[Any, torch.Tensor] = {}
    for name, value in named.items():
        inner = {} if isinstance(value, torch.Tensor) else getattr(value, "__dict__", {})
        inner = {f"{name}.{n}": v for n, v in inner.items() if not n.startswith("_")}
        found |= {
            n: v
            for n, v in {name: value, **inner}.items()
            if isinstance(v, torch.Tensor) and v.ndim > 0
        }
    return found


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str | bytes | Mapping) or not isinstance(shape, Sequence):
        raise TypeError(f"latent_shape must be sides in a row, got {checks.shown(shape)}")
    return tuple(checks.integer(side, "latent_shape") for side in shape)


def _range(pixels: Sequence[float]) -> tuple[float, float]:
    wrong = f"pixels must be (black, white), black below white, got {checks.shown(pixels)}"
    if isinstance(pixels, str | bytes | Mapping) or not isinstance(pixels, Sequence):
        raise TypeError(wrong)
    ends = [checks.number(end, "pixels", negative=True) for end in pixels]
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(wrong)
    return ends[0], ends[1]
