"""One process or several that train one network together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
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
        flat = self._mean(torch.cat([part.flatten() for part in parts]))
        sizes = [part.numel() for part in parts]
        for part, mean in zip(parts, torch.split(flat, sizes), strict=True):
            part.copy_(mean.view_as(part))

    def _mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the processes.

        Where another process has ended, the first says so, and the rest end without a word.
        """
        from accelerate.utils import reduce

        try:
            mean: torch.Tensor = reduce(tensor, reduction="mean")
        except RuntimeError as error:
            if self.rank > 0:
                raise SystemExit(1) from error
            reason = str(error).partition("\n")[0]
            raise ChildProcessError(
                f"all {self.count} processes must go on together, got one that has ended ({reason})"
            ) from error
        return mean

    def any(self, here: bool) -> bool:
        """Whether it is so in any of the processes; all come to the same answer together."""
        if self.count == 1:
            return here
        return bool(self._mean(torch.tensor(float(here), device=self.device)) > 0)

    def first(self, work: Callable[[], object]) -> None:
        """Do something in the first process alone; all return when it is done.

        Where it fails, the first process raises the error, and the others end without a word.
        """
        failed: Exception | None = None
        if self.rank == 0:
            try:
                work()
            except Exception as error:
                failed = error
        if self.any(failed is not None):
            raise failed if failed is not None else SystemExit(1)


def is_first() -> bool:
    """Whether this process is the one that writes files and messages: alone, or of rank 0."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def processes() -> Processes:
    """What `accelerate launch` or `torchrun` started this process as; alone without them.

    Raises:
        ImportError: several were started, and accelerate is not installed.
        ValueError: `WORLD_SIZE` is no number of processes.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise ValueError(f"WORLD_SIZE must be a number of processes, got {size!r}")
    if int(size) == 1:
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
