"""The batches that decide how much memory a train stage takes, known before it runs or assumed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import PretrainedConfig

from configs.data import StageData
from configs.stages import TrainStage
from distill.data.collate import Inputs, collate
from distill.data.largest import Shapes, assumed, largest, shapes
from distill.data.module import ValidationBatches
from distill.data.table import TokenTable
from distill.data.windows import Plan
from distill.types import Batch
from pipelines.batches import batching, plan_of
from pipelines.run import Run

EXACT_ROWS = 100_000
"""Rows up to which a plan reads how long they are; of more it takes them to be as long as the run allows."""


@dataclass(frozen=True)
class Asked:
    """What a stage is traced for."""

    run: Run
    name: str
    stage: TrainStage
    devices: int
    device: str
    """torch's name of the kind of device."""
    look: bool = True
    """Whether to read how long rows are."""

    @property
    def kernels(self) -> str:
        """The kind of device whose kernels are traced: backward passes of GPUs need one to be here."""
        return self.device if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Cut:
    """How a device's part of a window is cut into micro-batches."""

    share: int | None
    """Rows that are cut up, at most; none where that depends on rows that are not known."""
    parts: int
    """Micro-batches; where `share` is not known, at least."""
    accumulates: bool
    """Whether they are several, or may be."""


@dataclass(frozen=True)
class Batches:
    """The batches that decide: the largest to learn from, and the largest to be scored on."""

    asked: Asked
    table: TokenTable
    plan: Plan
    pad_id: int
    assumed: bool

    @staticmethod
    def of(asked: Asked, config: PretrainedConfig) -> "Batches":
        """Read the rows of a stage, or assume them for a model of a configuration."""
        run, stage = asked.run, asked.stage
        known = asked.look and _are_known(run, stage.data)
        table = run.table(stage.data, stage.trains) if known else _assumed(asked, config)
        plan = plan_of(stage.training, run.config.task, table, asked.devices, run.config.seed)
        return Batches(asked, table, plan, run.words(stage.trains).tokenizer.pad_token_id if known else 0, not known)

    def cut(self) -> Cut:
        """Say how windows are cut up, as the training does it."""
        if self.assumed and self.plan.batching.tokens is not None:  # nobody can say how short the shortest rows are
            return Cut(None, self.plan.accumulate, self.plan.micro_batch is not None)
        return Cut(self.plan.share, self.plan.accumulate, self.plan.accumulate > 1)

    def probe(self) -> Batch:
        """Return two short rows, to see what depends on what."""
        return self._batch(self.table.lengths.argsort(kind="stable")[:2])

    def largest(self) -> Batch:
        """Return the largest micro-batch."""
        return self._batch(largest(self.plan), self.plan.pad_to)

    def shapes(self) -> Shapes:
        """Count the shapes of micro-batches; of rows that are not known, as many as they may have lengths."""
        if self.plan.pad_to is not None:
            return Shapes(1, 1)
        if not self.assumed:
            return shapes(self.plan)
        rows = len(self.plan.parts(0)[0])
        return Shapes.of((rows, length, 0) for length in range(1, int(self.plan.lengths.max()) + 1))

    def _batch(self, rows: Any, pad_to: int | None = None) -> Batch:
        inputs = collate(self.table, rows, self.pad_id, pad_to)
        return Batch(**inputs, window_counts=self.plan.counts(0), progress=0.0, step=0, spare=False)

    def validation(self) -> Inputs | None:
        """Return the largest validation batch, where there is one to be had."""
        every = self._scored
        if every is None:
            return None
        last = [*range(len(every))][-2:]  # rows are sorted by length, and the last batch may have but few
        return max((every[number] for number in last), key=lambda inputs: inputs["input_ids"].numel())

    def validation_shapes(self) -> Shapes:
        """Count the shapes of validation batches."""
        every = self._scored
        return Shapes.of(
            () if every is None else ((len(cut), int(every.table.lengths[cut].max()), 0) for cut in every.cuts)
        )

    @cached_property
    def _scored(self) -> ValidationBatches | None:
        run, stage = self.asked.run, self.asked.stage
        if stage.validation is None or not self.asked.look or not _are_known(run, [stage.validation]):
            return None
        return ValidationBatches(run.table((stage.validation,), stage.trains), self.pad_id)


def _are_known(run: Run, names: Iterable[str]) -> bool:
    """Whether rows are there to be looked at, and not too many."""
    if any(isinstance(run.config.data[name], StageData) for name in names):
        return False
    return sum(len(run.rows(name)) for name in names) <= EXACT_ROWS


def _assumed(asked: Asked, config: PretrainedConfig) -> TokenTable:
    task = asked.run.config.task
    writes = task.kind == "generation"
    start = config.decoder_start_token_id if writes and config.is_encoder_decoder else None
    targets = task.max_target_length if writes else None
    return assumed(batching(asked.stage.training), task.max_length, targets, start)
