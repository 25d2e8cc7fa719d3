"""Stop at a step boundary when asked to, with everything saved."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from distill.callbacks.checkpoints import Checkpoints
from distill.errors import Stopped
from distill.signals import SIGNALS

EVERY = 10
"""Steps between two looks at each other's flags in a distributed run."""


class Stop(pl.Callback):
    """Turn the first signal into a flag; at the end of the step save and raise Stopped. A second one acts at once.

    The handler itself does nothing but remember: saving or talking to other ranks inside a handler is how checkpoints
    get lost. In a distributed run all ranks stop at the same step, whichever of them was asked.
    """

    def __init__(self, saver: Checkpoints, elsewhere: Callable[[], int] = lambda: 0) -> None:
        """Save through `saver`. What signals do now, before Lightning takes them, they will do again afterwards.
        `elsewhere` tells which signal a process was sent that does not train; 0 is none.
        """
        self.saver = saver
        self.elsewhere = elsewhere
        self.asked: int | None = None
        self._before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals, from Lightning too."""
        for number in SIGNALS:
            signal.signal(number, self._remember)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if anybody was asked to."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.world_size == 1 or trainer.global_step % EVERY == 0:
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after the last step if anybody was asked to since the last look."""
        self._stop_if_asked(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back. This comes after Lightning has done so: what it had put there must not come back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        number = self._agreed(trainer)
        if number:
            self.saver.save(trainer)
            self.saver.io.wait()
            raise Stopped(number, trainer.global_step)

    def _agreed(self, trainer: pl.Trainer) -> int:
        """Return the signal any rank was sent, or 0."""
        own = self.asked or self.elsewhere()
        if trainer.world_size == 1:
            return own
        flag = torch.tensor(own, device=trainer.strategy.root_device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag)
