"""Keeps the processes of a distributed training informed of each other."""

from typing import Any

import lightning.pytorch as pl

from pipelines.ranks import Ranks


class Beat(pl.Callback):
    """Tells which step a process is in, and that it fails, before its training is torn down: that waits for others."""

    def __init__(self, ranks: Ranks) -> None:
        """Tell it to `ranks`."""
        self._ranks = ranks

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Note the step."""
        self._ranks.step = trainer.global_step + 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that there is none any more."""
        self._ranks.step = 0

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say so."""
        self._ranks.fail(exception)
