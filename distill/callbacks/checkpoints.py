"""Checkpoints, written where a training can go on from exactly."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors.torch import load_file, save_file

from distill.callbacks.checkpoint_io import AtomicIO
from distill.errors import ResumeError
from distill.files import write_atomically

BEST = "best.safetensors"


class Checkpoints(pl.Callback):
    """Save every so many optimiser steps, after the validation if one falls on the step; the newest stay.

    With a `monitor`, the student's weights are kept apart whenever that score is the best so far; those after the last
    step are scored too, wherever validations fall.
    """

    def __init__(self, folder: Path, every: int, monitor: str | None = None, *, background: bool = False) -> None:
        """Write into `folder`, beside the training if in the `background`; `monitor` names a validation score: higher
        is better.
        """
        self.io = AtomicIO(background=background)
        self.folder = folder
        self.every = every
        self.monitor = monitor
        self.best: float | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback in a checkpoint."""
        return "Checkpoints"

    def state_dict(self) -> dict[str, Any]:
        """Remember the best score."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Recall the best score."""
        self.best = state_dict["best"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at the end of a window, and hear how the last save went."""
        self.io.look()
        at_boundary = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        last = trainer.global_step == trainer.max_steps
        trainer.should_stop |= last  # there alone Lightning validates between two multiples of its interval
        if at_boundary and not validates(trainer, batch_idx):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best weights, then save."""
        if self.monitor is not None:
            score = float(trainer.callback_metrics[self.monitor])
            if self.best is None or score > self.best:
                self.best = score
                weights = _student(trainer.strategy.lightning_module_state_dict())
                if trainer.is_global_zero:
                    self._keep(weights)
        self._save_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hear how the last save went: the folder is no more needed once the model is saved."""
        self.io.wait()

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save now, at the end of a window."""
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step}.ckpt")

    def _keep(self, found: dict[str, torch.Tensor]) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in found.items()}
        write_atomically(self.folder / BEST, lambda partial: save_file(weights, partial))


def validates(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Return whether a validation comes after this micro-batch, before the next."""
    last = trainer.global_step == trainer.max_steps
    return bool(trainer.val_dataloaders) and (last or (batch_idx + 1) % int(trainer.val_check_interval) == 0)


def load_best(folder: Path, module: pl.LightningModule) -> None:
    """Put the best weights into the student. Raise ResumeError unless the file holds just its tensors."""
    own, kept = _student(module.state_dict()), load_file(folder / BEST)
    if own.keys() != kept.keys():
        raise ResumeError(f"{folder / BEST}: tensors differ from the student's: {sorted(own.keys() ^ kept.keys())[:5]}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(kept[name])


def _student(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The student's tensors that learn; tied weights once, under their first name."""
    seen: set[int] = set()
    tensors = {}
    for name, value in state.items():
        if name.startswith("student.") and (value.data_ptr() not in seen or value.numel() == 0):
            tensors[name.removeprefix("student.")] = value
            seen.add(value.data_ptr())
    return tensors
