"""Denoisers (w, σ) → image for plug-and-play: shrinkage of wavelets, and trained networks.

A trained network is stored as the priors are: one safetensors file with its weights (half
precision) and how to build it, beside a JSON card that says where it comes from and what it
measures. OneNet's proximal map, which takes no σ, is stored the same way.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from safetensors.torch import save as serialise
from torch import nn

from npgd.files import read_tensors, write_atomically
from npgd.images import Images
from npgd.networks import DenoisingNetwork, ProximalNetwork, build
from npgd.networks.architectures import channels_last
from npgd.transforms import Wavelet

Network = TypeVar("Network", bound=nn.Module)

SHIPPED = ("mnist",)


@dataclass(frozen=True)
class WaveletShrinkage:
    """Soft-thresholding in an orthogonal wavelet basis, of w − o, with o a constant grey image.

    "bayes": each block of coefficients at σ²/s, with s² = mean c² − σ² the block's own signal
    variance (all zero where that is not positive): BayesShrink (Chang, Yu, Vetterli, IEEE TIP 9(9),
    2000). "universal": all at σ √(2 log n) (Donoho, Johnstone, Biometrika 81(3), 1994); this one is
    a proximal map, of the ℓ1 norm. The coarsest block is shrunk like the others, which with o = −1
    (black) removes noise from a dark background.

    Args:
        wavelet, levels: as for `npgd.transforms.Wavelet`.
        rule: "bayes" or "universal".
        shifts: average over shifts of the image by 0 … shifts−1 pixels in both directions
            (cycle spinning: Coifman, Donoho, 1995); 1 is the plain basis.
        origin: grey value of o.
    """

    wavelet: str = "haar"
    levels: int | None = None
    rule: str = "bayes"
    shifts: int = 4
    origin: float = -1.0

    def __post_init__(self) -> None:
        if self.rule not in ("bayes", "universal"):
            raise ValueError(f'rule must be "bayes" or "universal", got {self.rule!r}')
        if self.shifts < 1:
            raise ValueError(f"shifts must be at least 1, got {self.shifts}")

    def __call__(self, w: Images, sigma: float | Float[torch.Tensor, " batch"]) -> Images:
        transform = _wavelet(tuple(w.shape[1:]), self.wavelet, self.levels, w.dtype, w.device)
        level = torch.as_tensor(sigma, dtype=w.dtype, device=w.device)
        level = level.expand(w.shape[0]).reshape(-1, 1, 1, 1)
        shifts = [(i, j) for i in range(self.shifts) for j in range(self.shifts)]
        centred = w - self.origin
        rolled = torch.cat([centred.roll(shift, (2, 3)) for shift in shifts])
        c = transform(rolled)
        for block in transform.blocks(c):
            block.copy_(self._shrink(block, level.repeat(len(shifts), 1, 1, 1), w[0].numel()))
        back = transform.inverse(c).split(w.shape[0])
        total = torch.stack(
            [b.roll((-i, -j), (2, 3)) for b, (i, j) in zip(back, shifts, strict=True)]
        )
        return self.origin + total.mean(0)

    def _shrink(self, c: torch.Tensor, level: torch.Tensor, n: int) -> torch.Tensor:
        if self.rule == "universal":
            threshold = level * (2 * torch.tensor(float(n)).log()).sqrt().item()
        else:
            signal = (c.square().mean((2, 3), keepdim=True) - level.square()).clamp_min(0).sqrt()
            threshold = level.square() / signal  # infinite where the block is all noise
        return c.sign() * (c.abs() - threshold).clamp_min(0)


@lru_cache(maxsize=8)
def _wavelet(
    shape: tuple[int, int, int],
    wavelet: str,
    levels: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Wavelet:
    return Wavelet(shape, wavelet, levels).to(device, dtype)


def load_denoiser(
    name: str | os.PathLike[str] = "mnist",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> DenoisingNetwork:
    """A shipped denoiser (w, σ) → image by name ("mnist"), or one from a .safetensors file.

    Raises ``ValueError`` for an unknown name or a file that is no denoiser.
    """
    return _load(name, "denoiser", DenoisingNetwork, dtype, device)


def load_onenet(
    name: str | os.PathLike[str] = "mnist",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> ProximalNetwork:
    """A shipped OneNet's proximal map w → image by name ("mnist"), or one from a .safetensors file.

    Raises ``ValueError`` for an unknown name or a file that is no OneNet.
    """
    return _load(name, "onenet", ProximalNetwork, dtype, device)


def save_network(
    network: DenoisingNetwork | ProximalNetwork,
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write a denoiser's or OneNet's weights (in half precision) and, beside them, its card.

    ``settings`` are the arguments the network was built with.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: {path}; expected a name that ends in .safetensors")
    tensors = {k: v.detach().cpu().half().contiguous() for k, v in network.state_dict().items()}
    description = {"name": type(network).__name__, "settings": dict(settings)}
    kind = "denoiser" if isinstance(network, DenoisingNetwork) else "onenet"
    write_atomically(path, serialise(tensors, {kind: json.dumps(description)}))
    if card is not None:
        text = json.dumps(dict(card), indent=2, ensure_ascii=False) + "\n"
        write_atomically(path.with_suffix(".json"), text.encode())


def _load(
    name: str | os.PathLike[str],
    kind: str,
    network: type[Network],
    dtype: torch.dtype,
    device: str | torch.device,
) -> Network:
    if str(name) in SHIPPED:
        with as_file(files("npgd.weights") / f"{name}-{kind}.safetensors") as path:
            return _read(path, kind, network).to(device=device, dtype=dtype)
    path = Path(name)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(
            f"name: {str(name)!r} is neither a shipped {kind} ({', '.join(SHIPPED)}) "
            "nor an existing .safetensors file"
        )
    return _read(path, kind, network).to(device=device, dtype=dtype)


def _read(path: Path, kind: str, network: type[Network]) -> Network:
    header, tensors = read_tensors(path, kind)
    description = json.loads(header)
    built = build(description["name"], description["settings"])
    assert isinstance(built, network)
    try:
        built.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit its architecture ({error})") from error
    return channels_last(built.eval().requires_grad_(False))
