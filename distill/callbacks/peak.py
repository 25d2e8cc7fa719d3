"""How much memory a training takes at most, to be compared with what was planned."""

import gc
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from distill import memory


class Peak(pl.Callback):
    """Measures the most bytes in use of any device while a model trains and until its weights are put together; on CPUs
    above what the process used before its models were loaded.
    """

    def __init__(self) -> None:
        """Remember what is in use; there are no models yet."""
        gc.collect()
        self._before = memory.in_use(torch.device("cpu")) or 0
        self._device = torch.device("cpu")
        self._highest: memory.Highest | None = None
        self._looking = ExitStack()
        self.bytes: int | None = None
        """The peak, on all ranks; none before the end, and where the system does not tell."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin to look."""
        memory.give_back()  # what loading took
        self._device = pl_module.device
        self._highest = self._looking.enter_context(memory.Highest(self._device))

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Look no longer."""
        self._looking.close()

    def end(self) -> None:
        """Take the highest of all ranks, once a training is over and its weights are put together."""
        self._looking.close()
        if self._highest is None:
            return
        on_gpu = self._device.type == "cuda"
        found = (self._highest.bytes or 0) - (0 if on_gpu else self._before)
        if dist.is_initialized():
            every = torch.tensor(found, device=self._device)
            dist.all_reduce(every, op=dist.ReduceOp.MAX)
            found = int(every)
        self.bytes = found if found > 0 else None
