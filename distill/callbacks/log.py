"""What a training reports while it runs: means of the losses, pace, learning rate, to the loggers and to the screen."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor

from distill.types import Batch


@dataclass(frozen=True)
class Report:
    """The state of a training at an optimiser step."""

    step: int
    steps: int
    epoch: float
    losses: dict[str, float]
    """Mean of each term over the windows since the last report."""
    learning_rate: float
    examples_per_second: float
    positions_per_second: float
    """Tokens that are no padding."""


class LossLog(pl.Callback):
    """Sum the losses on the device and read them every `every` optimiser steps: a step never waits for a number."""

    def __init__(
        self,
        every: int,
        steps: int,
        steps_per_epoch: int,
        show: Callable[[Report], None],
        check: Callable[[Report], None] | None = None,
    ) -> None:
        """Report every so many optimiser steps and after the last: on rank 0 to the loggers and to `show`, then on all
        ranks to `check`.
        """
        self.every = every
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.show = show
        self.check = check
        self._sums: Tensor | None = None
        self._reset()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._reset()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add up; report at the end of a window when it is time."""
        losses = torch.stack(list(pl_module.last_losses.values()))
        self._sums = losses if self._sums is None else self._sums + losses
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._windows += 1
        self._examples += batch["window_counts"]["examples"]
        self._positions += batch["window_counts"]["positions"]
        if trainer.global_step % self.every == 0 or trainer.global_step == self.steps:
            self._report(trainer, list(pl_module.last_losses))

    def _report(self, trainer: pl.Trainer, names: list[str]) -> None:
        assert self._sums is not None
        means = (_over_ranks(self._sums, trainer.world_size) / self._windows).tolist()
        seconds = max(time.perf_counter() - self._since, 1e-9)
        report = Report(
            step=trainer.global_step,
            steps=self.steps,
            epoch=trainer.global_step / self.steps_per_epoch,
            losses=dict(zip(names, means, strict=True)),
            learning_rate=trainer.optimizers[0].param_groups[0]["lr"],
            examples_per_second=self._examples / seconds,
            positions_per_second=self._positions / seconds,
        )
        if trainer.is_global_zero:
            _to_loggers(trainer, report)
            self.show(report)
        if self.check is not None:
            self.check(report)
        self._reset()

    def _reset(self) -> None:
        self._sums = None
        self._windows = 0
        self._examples = self._positions = 0.0
        self._since = time.perf_counter()


def _over_ranks(sums: Tensor, world: int) -> Tensor:
    if world > 1:
        sums = sums.clone()
        dist.all_reduce(sums)
    return sums


def _to_loggers(trainer: pl.Trainer, report: Report) -> None:
    row = {f"loss/{name}": value for name, value in report.losses.items()}
    row |= {
        "loss": sum(report.losses.values()),
        "epoch": report.epoch,
        "learning_rate": report.learning_rate,
        "examples_per_second": report.examples_per_second,
        "positions_per_second": report.positions_per_second,
    }
    for logger in trainer.loggers:
        logger.log_metrics(row, step=report.step)
