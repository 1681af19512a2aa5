"""One process or several that train one network together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Processes:
    """The processes that train together, and which of them this is: one alone by default."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @torch.no_grad()
    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their means over the processes, in one exchange."""
        parts = list(tensors)
        if self.count == 1 or not parts:
            return
        from accelerate.utils import reduce

        flat = reduce(torch.cat([part.flatten() for part in parts]), reduction="mean")
        sizes = [part.numel() for part in parts]
        for part, mean in zip(parts, flat.split(sizes), strict=True):
            part.copy_(mean.view_as(part))

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            from accelerate.utils import wait_for_everyone

            wait_for_everyone()


def processes() -> Processes:
    """What `accelerate launch` or `torchrun` started this process as; alone without them.

    Raises `ImportError` where several were started and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            "several processes train together by the package accelerate "
            "(pip install npgd[processes])"
        ) from error
    state = PartialState(cpu=not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes, state.device)
