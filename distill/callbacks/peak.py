"""How much memory a training takes at most, to be compared with what was planned; on CPUs, without glibc's holes."""

import gc
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from distill import memory


class Peak(pl.Callback):
    """Measures the most memory of any device while a model trains: on a GPU what torch gave out; on CPUs how far the
    process grew over what it had before its models were loaded.

    On CPUs large blocks go back to the system at once while it trains (`distill.memory.given_back`): the heap
    would else be up to twice as large as all that is in it.
    """

    def __init__(self) -> None:
        """Remember what this process has; it has no models yet."""
        gc.collect()
        memory.give_back()
        self._before = memory.resident()
        self._counts = False
        self._exactly = ExitStack()
        self.bytes: int | None = None
        """The peak, on all ranks; none before the end, and where the system does not tell."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin to look."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
            return
        self._exactly.enter_context(memory.given_back())
        memory.give_back()
        self._counts = memory.forget_highest()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Let glibc keep memory again."""
        self._exactly.close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take the highest of all ranks."""
        self._exactly.close()
        found = self._highest(pl_module.device)
        if dist.is_initialized():
            every = torch.tensor(found, device=pl_module.device)
            dist.all_reduce(every, op=dist.ReduceOp.MAX)
            found = int(every)
        self.bytes = found if found > 0 else None

    def _highest(self, device: torch.device) -> int:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        highest = memory.highest()
        if not self._counts or highest is None or self._before is None:
            return 0
        return highest - self._before
