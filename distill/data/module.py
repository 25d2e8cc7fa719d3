"""Batches for Lightning: planned, padded, and resumable at any optimiser step."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from distill.data.buckets import Indices
from distill.data.collate import Inputs, collate
from distill.data.table import TokenTable
from distill.data.windows import Plan
from distill.errors import DataError, ResumeError
from distill.signals import deaf
from distill.types import Batch

VALIDATION_ROWS = 64
VOCABULARY_ROWS = 8
"""Rows of a batch whose every position has logits over a vocabulary."""


class PlannedBatches(Dataset[Batch]):
    """Micro-batch k of one rank: part of window k // accumulate.

    All ranks have the same number of micro-batches, none of them empty: models that are cut up are put together by all
    ranks at once. Where a window has no row for one, a spare row stands there and adds nothing.
    """

    def __init__(self, table: TokenTable, plan: Plan, pad_id: int, *, rank: int) -> None:
        """Take the rows and the plan."""
        self.table = table
        self.plan = plan
        self.pad_id = pad_id
        self.rank = rank

    def __len__(self) -> int:
        return self.plan.steps * self.plan.accumulate

    def __getitem__(self, number: int) -> Batch:
        step, turn = divmod(number, self.plan.accumulate)
        rows = self.plan.parts(step)[turn * self.plan.devices + self.rank]
        spare = not len(rows)
        taken = self.plan.spare if spare else rows
        inputs = collate(self.table, taken, self.pad_id, self.plan.pad_to, (self.plan.seed, step))
        return Batch(
            **inputs,
            window_counts=self.plan.counts(step),
            progress=step / self.plan.steps,
            step=step,
            spare=spare,
        )


class _FromHere(Sampler[int]):
    """The numbers of the micro-batches to come; its length is that of the whole training, as Lightning expects."""

    def __init__(self, first: int, total: int) -> None:
        self.first = first
        self.total = total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


class _Announced:
    """Batches of which each is announced before the one before it is given out."""

    def __init__(self, batches: DataLoader[Batch], announce: Callable[[Batch], Batch]) -> None:
        self.batches = batches
        self.announce = announce

    def __iter__(self) -> Iterator[Batch]:
        held: list[Batch] = []
        for batch in self.batches:
            held.append(self.announce(batch))
            if len(held) > 1:
                yield held.pop(0)
        yield from held

    def __len__(self) -> int:
        return len(self.batches)


class ValidationBatches(Dataset[Inputs]):
    """The validation rows, sorted by length, dealt out to the ranks: to each the same number of batches, for weights
    that are cut up are put together by all ranks at once.
    """

    def __init__(self, table: TokenTable, pad_id: int, *, rank: int = 0, world: int = 1) -> None:
        """Take all rows of a table. Raise DataError where there is none for some rank."""
        if len(table) < world:
            raise DataError(f"validation: {len(table)} rows are too few for {world} devices; each needs one")
        order = np.argsort(table.lengths, kind="stable")[rank::world]
        size = VALIDATION_ROWS if table.masking is None and table.wrong is None else VOCABULARY_ROWS
        self.table = table
        self.pad_id = pad_id
        self.cuts: list[Indices] = np.array_split(order, math.ceil(len(table) / (world * size)))

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, number: int) -> Inputs:
        return collate(self.table, self.cuts[number], self.pad_id)


class DistillData(pl.LightningDataModule):
    """Training batches by plan, validation batches in order.

    The position in the data is the optimiser step the checkpoint was written at: nothing else has to be saved, and
    prefetching cannot skew it.
    """

    def __init__(
        self, train: TokenTable, validation: TokenTable | None, plan: Plan, *, pad_id: int, workers: int
    ) -> None:
        """Take the token tables and the plan."""
        super().__init__()
        self.train = train
        self.validation = validation
        self.plan = plan
        self.pad_id = pad_id
        self.workers = workers
        self.announce: Callable[[Batch], Batch] | None = None
        """Is told of each micro-batch of the training while the one before it is trained on; returns it."""
        self._first_step = 0

    @property
    def fingerprint(self) -> str:
        """A digest of rows and plan: a checkpoint fits no other data."""
        return self.train.fingerprint

    def first_batch(self, step: int = 0) -> Batch:
        """Return this rank's first micro-batch of a step, for checks beside the training: only later ones are spare for
        all ranks.
        """
        return self._batches()[step * self.plan.accumulate]

    def probe(self) -> Batch:
        """Return a batch of two short rows, to see what depends on what."""
        rows = np.argsort(self.train.lengths, kind="stable")[:2]
        inputs = collate(self.train, rows, self.pad_id)
        return Batch(**inputs, window_counts=self.plan.counts(0), progress=0.0, step=0, spare=False)

    def train_dataloader(self) -> DataLoader[Batch] | _Announced:
        """Return the micro-batches from the current step on."""
        batches = self._batches()
        sampler = _FromHere(self._first_step * self.plan.accumulate, len(batches))
        loader = DataLoader(batches, sampler=sampler, batch_size=None, num_workers=self.workers, worker_init_fn=deaf)
        return loader if self.announce is None else _Announced(loader, self.announce)

    def val_dataloader(self) -> DataLoader[Inputs] | list[Any]:
        """Return the validation batches of this rank; none where there are no validation rows."""
        if self.validation is None:
            return []
        rank, world = self._place()
        return DataLoader(ValidationBatches(self.validation, self.pad_id, rank=rank, world=world), batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the number of optimiser steps done."""
        assert self.trainer is not None
        return {"step": self.trainer.global_step, "data": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a position. Raise ResumeError if it is one in other data."""
        if state_dict["data"] != self.fingerprint:
            raise ResumeError("resume: the training rows are not those the checkpoint was written with")
        self._first_step = state_dict["step"]

    def on_exception(self, exception: BaseException) -> None:
        """Let the processes go that pad batches: where a validation ends the training, Lightning leaves them, and at
        exit they would be waited for, deaf to what ends others.
        """
        assert self.trainer is not None
        self.trainer.fit_loop.teardown()

    def _batches(self) -> PlannedBatches:
        return PlannedBatches(self.train, self.plan, self.pad_id, rank=self._place()[0])

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
