"""The training step: a frozen teacher, a student, an objective.

What Lightning does with it, as pseudocode::

    for step in range(plan.steps):                      # one optimiser step = one window
        for batch in the window's micro-batches of this rank:
            teacher = self._teacher(batch, needs)       # no gradient
            student = self.student(batch, needs)
            totals  = self.objective(student, teacher, batch)          # sums, one a term
            loss    = Σ totals / window_counts          # of the whole window, all ranks: exact for any split
            loss.backward()
        clip, optimiser.step(), schedule.step()
        now and then: validate, save a checkpoint

Everything random inside a step is seeded from (seed, step, micro-batch, rank): a resumed training draws what the
uninterrupted one would have drawn, and no generator state has to be saved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from configs.training import Training
from distill.data.collate import Inputs
from distill.errors import ResumeError
from distill.learning_rate import factor_at
from distill.losses.choices import answer_scores
from distill.metrics import AnswerMetrics, TargetMetrics, TaskMetrics
from distill.objective import Objective
from distill.only_hidden import as_said
from distill.protocols import Teacher, TrainedModel
from distill.token_metrics import TokenMetrics
from distill.types import Batch, Needs

Metrics = TaskMetrics | TargetMetrics | TokenMetrics


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training."""

    training: Training
    steps: int
    """Optimiser steps of the whole training."""
    seed: int
    fingerprint: str
    """Digest of what is trained on what, by whom; a checkpoint of another one is refused."""
    metrics: Metrics | None = None
    """Scores on the validation rows."""
    written: Callable[[TrainedModel], dict[str, float]] | None = None
    """Scores of what the student writes, asked for at each validation."""


class DistillModule(pl.LightningModule):
    """Pairs a frozen teacher with a student under an objective.

    The teacher is a plain attribute, no sub-module: it is in no checkpoint, no optimiser and no DDP bucket.
    """

    def __init__(self, student: TrainedModel, teacher: Teacher, objective: Objective, recipe: Recipe) -> None:
        """Take the parts and the numbers of the training."""
        super().__init__()
        self.strict_loading = False  # what is frozen is not saved; what is saved is checked here
        self.student = student
        self.objective = objective
        self.metrics = recipe.metrics
        if self.metrics is not None:
            self.metrics.persistent(False)  # checkpoints are written between validations, when nothing is counted
        self.last_losses: dict[str, Tensor] = {}
        self._teacher = teacher
        self._recipe = recipe

    @property
    def teacher(self) -> Teacher:
        """Who teaches."""
        return self._teacher

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this micro-batch's part of the window's loss."""
        losses = self.losses(batch)
        penalty = self.student.penalty()
        if penalty is not None:
            losses["penalty"] = penalty / self._window_scale  # once a window, however many parts it has
        self._log(losses)
        return torch.stack(list(losses.values())).sum() * self._window_scale

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return each term's part of the window's loss."""
        teacher = self._teacher(batch, self.objective.teacher_needs)
        student = self.student(batch, self.objective.student_needs)
        totals = self.objective(student, teacher, batch)
        return {name: total / batch["window_counts"][self.objective.units[name]] for name, total in totals.items()}

    def on_fit_start(self) -> None:
        """Bring student and teacher to one device and into their modes: `from_pretrained` returns models in eval mode,
        and Lightning leaves them so, which would train a student without dropout.
        """
        self._teacher.to(self.device)
        self.student.train()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what is random inside the step."""
        place = (self._recipe.seed, batch["step"], batch_idx % self.trainer.accumulate_grad_batches, self.global_rank)
        torch.manual_seed(int.from_bytes(sha256(repr(place).encode()).digest()[:8], "little") >> 1)

    def validation_step(self, batch: Inputs, batch_idx: int) -> None:
        """Score the student on a batch of validation rows."""
        choices = batch.get("choices") if isinstance(self.metrics, AnswerMetrics) else None
        outputs = self.student(batch, Needs(logits=True, choices=choices is not None))
        if self.metrics is not None:
            self.metrics.update(outputs.logits, as_said(batch)["labels"])
        if isinstance(self.metrics, AnswerMetrics) and choices is not None:
            width = int(choices["rows"].bincount().max())
            self.metrics.choose(answer_scores(outputs, batch["labels"], choices, width))

    def on_validation_epoch_end(self) -> None:
        """Log the scores over all validation rows."""
        if self.metrics is None:
            return
        found = self.metrics.compute() | ({} if self._recipe.written is None else self._recipe.written(self.student))
        scores = {f"validation/{name}": value for name, value in found.items()}
        self.metrics.reset()
        self.log_dict(scores, logger=False)
        for logger in self.loggers:
            logger.log_metrics(scores, step=self.global_step)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW over student and projectors, with the schedule of the learning rate."""
        training = self._recipe.training
        projectors = {"params": list(self.objective.parameters()), "weight_decay": training.weight_decay}
        groups = [*self.student.parameter_groups(training.learning_rate, training.weight_decay), projectors]
        optimiser = AdamW(
            [group for group in groups if group["params"]],  # DeepSpeed stumbles over empty ones
            lr=training.learning_rate,
            betas=training.betas,
            eps=training.eps,
            fused=training.precision != "fp16",  # the gradient scaler has to look at gradients between unscale and step
        )
        factor = partial(factor_at, training=training, steps=self._recipe.steps)
        schedule = LRSchedulerConfigType(scheduler=LambdaLR(optimiser, factor), interval="step")
        return OptimizerLRSchedulerConfig(optimizer=optimiser, lr_scheduler=schedule)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return what learns, and the buffers that change: frozen weights come from where the model came from."""
        every = self.named_parameters(remove_duplicate=False)
        frozen = {name for name, parameter in every if not parameter.requires_grad}
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name not in frozen}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what the checkpoint belongs to."""
        checkpoint["distill"] = {"fingerprint": self._recipe.fingerprint, "teacher": self._teacher.fingerprint}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise ResumeError for a checkpoint of another training or under another teacher. Count what was done in the
        micro-batches of this split, which need not be that of the process that saved.
        """
        own = {"fingerprint": self._recipe.fingerprint, "teacher": self._teacher.fingerprint}
        if checkpoint["distill"] != own:
            raise ResumeError("resume: the checkpoint belongs to another training, or to one under another teacher")
        different = sorted(checkpoint["state_dict"].keys() ^ self.state_dict().keys())
        if different:
            raise ResumeError(f"resume: the checkpoint and the model differ in {', '.join(different[:5])}")
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            more = checkpoint["global_step"] * self.trainer.accumulate_grad_batches - counts["ready"]
            counts.update({name: count + more for name, count in counts.items()})

    def _log(self, losses: dict[str, Tensor]) -> None:
        """Keep the parts of the loss for whoever shows them; nothing is read from the device here."""
        self.last_losses = {name: loss.detach() for name, loss in losses.items()}

    @property
    def _window_scale(self) -> int:
        """Undo Lightning's division by the micro-batches and DDP's by the ranks."""
        return self.trainer.accumulate_grad_batches * self.trainer.world_size
