"""Stop at a step boundary when asked to, after the validation if one falls on the step, with everything saved."""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from distill.callbacks.checkpoints import Checkpoints, validates
from distill.errors import Stopped
from distill.signals import SIGNALS, stop

INTERVALS = (10, 5, 2, 1)
"""Steps between two looks at each other's flags in a distributed run: a look makes the host wait for the device."""
SECONDS = 5.0
"""Longest time between two looks, where steps take no longer: who sends a signal may not wait for long."""


def interval(seconds: float) -> int:
    """Return after how many steps, each of so many seconds, ranks look at each other's flags."""
    return next((steps for steps in INTERVALS if steps * seconds <= SECONDS), INTERVALS[-1])


class Stop(pl.Callback):
    """Turn the first signal into a flag; at the end of the step save and raise Stopped. A second one acts at once.

    The handler itself does nothing but remember: saving or talking to other ranks inside a handler is how checkpoints
    get lost. In a distributed run all ranks stop at the same step, whichever of them was asked: they agree on a signal,
    and on the time of a step, from which each knows when all look again.
    """

    def __init__(self, saver: Checkpoints, elsewhere: Callable[[], int] = lambda: 0) -> None:
        """Save through `saver`. What signals do now, before Lightning takes them, they will do again afterwards.
        `elsewhere` tells which signal a process was sent that does not train; 0 is none.
        """
        self.saver = saver
        self.elsewhere = elsewhere
        self.asked: int | None = None
        self._every = 1
        self._looked = (0, 0.0)
        self._before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals, from Lightning too."""
        for number in SIGNALS:
            signal.signal(number, self._remember)
        self._every, self._looked = 1, (trainer.global_step, time.monotonic())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if anybody was asked to, unless a validation is due: a resumed run would take it for done."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches or validates(trainer, batch_idx):
            return
        if trainer.world_size == 1 or trainer.global_step % self._every == 0:
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop here if anybody was asked to, in the step or in its validation."""
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
        signal.signal(number, self._act if number == signal.SIGINT else signal.SIG_DFL)

    def _act(self, number: int, frame: FrameType | None) -> None:
        """Leave at once, but in order: Lightning would call a KeyboardInterrupt a failure. A third signal kills."""
        signal.signal(number, signal.SIG_DFL)
        stop(number, frame)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        number = self._agreed(trainer)
        if number:
            self.saver.save(trainer)
            self.saver.io.wait()
            raise Stopped(number, trainer.global_step)

    def _agreed(self, trainer: pl.Trainer) -> int:
        """Return the signal any rank was sent, or 0; note when to look again."""
        own = self.asked or self.elsewhere()
        if trainer.world_size == 1:
            return own
        (step, since), now = self._looked, time.monotonic()
        mine = [float(own), (now - since) / max(1, trainer.global_step - step)]
        both = torch.tensor(mine, device=trainer.strategy.root_device)
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        number, seconds = both.tolist()
        self._every, self._looked = interval(seconds), (trainer.global_step, now)
        return int(number)
