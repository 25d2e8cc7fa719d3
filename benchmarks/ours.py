"""Our own step, timed: as a run trains it, and as a bare loop over the same parts."""

import gc
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.clock import Lap, Stopwatch
from distill.callbacks.progress import ProgressLine
from distill.data.module import PlannedBatches
from distill.losses.hidden import Hidden
from distill.objective import Objective
from distill.types import Batch
from pipelines.train import Train

WARM = 1
"""Steps before the clock starts: the optimiser makes its state in the first."""


class Laps(pl.Callback):
    """Times some steps after the first, then stops the training."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.batches: list[Batch] = []
        self.lap: Lap | None = None
        self._watch = Stopwatch()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Start after the first step, stop after the last."""
        self.batches.append(batch)
        if len(self.batches) == WARM + self.steps:
            self.lap = self._watch.lap(self.batches[WARM:])
            trainer.should_stop = True
        elif len(self.batches) == WARM:
            self._watch = Stopwatch()


class Save(pl.Callback):
    """Times one checkpoint after the first step, then stops the training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save and stop."""
        watch = Stopwatch()
        trainer.save_checkpoint(self.path)
        self.seconds = watch.seconds()[0]
        self.path.unlink()
        trainer.should_stop = True


class Trained:
    """The whole path of a run: its section, plan, data module, callbacks, loggers and trainer."""

    def __init__(self, stage: Train, folder: Path) -> None:
        """Assemble a stage; it writes under `folder`."""
        self._stage = stage
        self._folder = folder
        self.module, self.data = stage.assemble()

    def lap(self, first: int, steps: int) -> Lap:
        """Train from a step of the plan on, in a trainer of its own."""
        laps = Laps(steps)
        self.fit(first, laps)
        if laps.lap is None:
            raise RuntimeError("the training ended before its time")
        return laps.lap

    def fit(self, first: int, callback: pl.Callback) -> pl.Trainer:
        """Train from a step of the plan on, with one more callback."""
        self.data.load_state_dict({"step": first, "data": self.data.fingerprint})
        shutil.rmtree(self._folder / "log", ignore_errors=True)
        line = ProgressLine(Console(quiet=True), "bench")
        parts = (self.module, self.data)
        trainer = self._stage.trainer(self._folder, self._folder / "checkpoints", parts, line, first=first)
        trainer.callbacks.append(callback)  # type: ignore[attr-defined]
        trainer.fit(self.module, datamodule=self.data)
        gc.collect()
        return trainer

    def save_seconds(self) -> float:
        """Return how long the loop stands still for a checkpoint, in seconds on the wall."""
        saver = Save(self._folder / "checkpoint.ckpt")
        self.fit(0, saver)
        return saver.seconds


class Bare:
    """A loop of a dozen lines over the same teacher, student, objective, optimiser and batches, and nothing else."""

    def __init__(self, trained: Trained, *, bf16: bool) -> None:
        """Take the parts of a run."""
        self._module = trained.module
        self._data = trained.data
        self._bf16 = bf16

    def lap(self, first: int, steps: int) -> Lap:
        """Train from a step of the plan on; the batches are made before the clock starts."""
        batches = self.batches(first, WARM + steps)
        made: Any = self._module.configure_optimizers()
        optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self._module.student.train()
        watch = Stopwatch()
        for number, batch in enumerate(batches):
            if number == WARM:
                watch = Stopwatch()
            self._loss(batch).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        lap = watch.lap(batches[WARM:])
        gc.collect()
        return lap

    def batches(self, first: int, count: int) -> list[Batch]:
        """Return batches of the plan."""
        planned = PlannedBatches(self._data.train, self._data.plan, self._data.pad_id, rank=0)
        return [planned[number] for number in range(first, first + count)]

    def _loss(self, batch: Batch) -> Tensor:
        module, objective = self._module, self._module.objective
        with torch.autocast("cpu", torch.bfloat16) if self._bf16 else nullcontext():
            teacher = module._teacher(batch, objective.teacher_needs)
            student = module.student(batch, objective.student_needs)
            totals = objective(student, teacher, batch)
        return torch.stack(
            [total / batch["window_counts"][objective.units[name]] for name, total in totals.items()]
        ).sum()


def projectors(objective: Objective) -> list[nn.Module]:
    """Return the maps from the student's width to the teacher's, layer by layer."""
    hidden = [term for term in objective.terms.values() if isinstance(term, Hidden)]
    return [module for term in hidden for module in term.projectors.values()]
