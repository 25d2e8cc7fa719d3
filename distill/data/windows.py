"""The plan of a training: which micro-batch each rank takes at each step, and how large the whole window is."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from distill.data.buckets import Batching, Indices, cut_by_tokens, split, windows
from distill.types import Unit


@dataclass(frozen=True, eq=False)
class Plan:
    """All optimiser steps of a training, computed when asked for; the position in the data is the step's number."""

    lengths: NDArray[np.int64]
    """[N] tokens a row has positions for"""
    labelled: NDArray[np.bool_]
    """[N]"""
    batching: Batching
    seed: int
    epochs: float | None = None
    max_steps: int | None = None
    pad_to: int | None = None
    """Fixed padded length; none pads each micro-batch to its longest row."""
    targets: NDArray[np.int64] | None = None
    """[N] positions at which something is to be said, where rows have such"""
    weights: NDArray[np.float32] | None = None
    """[N] how much each target token of a row counts; none where all count 1"""
    wrong: NDArray[np.int64] | None = None
    """[N] tokens of all wrong answers of a row, where rows have such"""
    beside: bool = False
    """Whether targets have positions of their own, as in an encoder-decoder: they then count towards a row's size."""
    devices: int = 1
    """Devices a window is split over."""
    micro_batch: int | None = None
    """Rows a device takes at a time; none: its whole share at once."""

    @cached_property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        if self.max_steps is not None:
            return self.max_steps
        whole, part = divmod(self.epochs or 1.0, 1.0)
        counted = sum(self.steps_of(epoch) for epoch in range(int(whole)))
        return max(1, counted + math.ceil(part * self.steps_of(int(whole)) - 1e-9 if part else 0))

    @cached_property
    def accumulate(self) -> int:
        """Micro-batches of a device in a window: the same number in all, as many as the largest could need."""
        return 1 if self.micro_batch is None else math.ceil(self.share / self.micro_batch)

    @cached_property
    def share(self) -> int:
        """Rows of a window that no device has more of, but for those left over at the end of an epoch. A budget of
        tokens is never spent on more rows than of the shortest there are.
        """
        tokens = self.batching.tokens
        shortest = np.argsort(self.sizes, kind="stable")
        rows = self.batching.batch_size if tokens is None else len(cut_by_tokens(shortest, self.sizes, tokens)[0])
        return math.ceil(rows / self.devices)

    @cached_property
    def spare(self) -> Indices:
        """A row for devices that have none of a window, [1]: the smallest."""
        return np.array([self.sizes.argmin()])

    @cached_property
    def _counted(self) -> dict[int, int]:
        """Steps of epochs whose windows were made once: to find a step, those before it are only counted."""
        return {}

    @property
    def sizes(self) -> NDArray[np.int64]:
        """What rows are sorted by, and a budget of tokens is spent on, [N]."""
        return self.lengths + self.targets if self.beside and self.targets is not None else self.lengths

    def steps_of(self, epoch: int) -> int:
        """Optimiser steps of one epoch; the same for all of them unless windows are cut by tokens."""
        epoch = 0 if self.batching.tokens is None else epoch
        if epoch not in self._counted:
            self._counted[epoch] = len(self._epoch(epoch))
        return self._counted[epoch]

    def locate(self, step: int) -> tuple[int, int]:
        """Return (epoch, window within the epoch) of a step."""
        epoch = 0
        while step >= (size := self.steps_of(epoch)):
            step -= size
            epoch += 1
        return epoch, step

    def parts(self, step: int) -> list[Indices]:
        """Return the rows of a step, cut into the micro-batches of all ranks, by turns; the last may have none."""
        epoch, position = self.locate(step)
        return split(self._epoch(epoch)[position], self.devices * self.accumulate)

    def counts(self, step: int) -> dict[Unit, float]:
        """Return the size of a step's window in every unit; at least 1, so that an empty sum stays 0."""
        parts = self.parts(step)
        rows = np.concatenate(parts)
        lengths = self.lengths[rows].astype(np.float64)
        targets = np.zeros(len(rows)) if self.targets is None else self.targets[rows].astype(np.float64)
        wrong = np.zeros(len(rows)) if self.wrong is None else self.wrong[rows].astype(np.float64)
        weighted = float((targets if self.weights is None else targets * self.weights[rows]).sum())
        padded = [(len(part), self.pad_to or int(self.lengths[part].max())) for part in parts if len(part)]
        return {
            "examples": float(len(rows)),
            "labelled": max(1.0, float(self.labelled[rows].sum())),
            "positions": float(lengths.sum()),
            "targets": max(1.0, float(targets.sum())),
            "weighted_targets": weighted or 1.0,
            "wrong_tokens": max(1.0, float(wrong.sum())),
            "choice_rows": max(1.0, float((wrong > 0).sum())),
            "pairs": float((lengths**2).sum()),
            "causal_pairs": float((lengths * (lengths + 1)).sum() / 2),
            "target_pairs": max(1.0, float((targets * (targets + 1)).sum() / 2)),
            "cross_pairs": max(1.0, float((targets * lengths).sum())),
            "padded_positions": float(sum(size * width for size, width in padded)),
            "padded_pairs": float(sum(size * width**2 for size, width in padded)),
        }

    def _epoch(self, epoch: int) -> list[Indices]:
        return _windows_of(self, epoch)


@lru_cache(maxsize=4)
def _windows_of(plan: Plan, epoch: int) -> list[Indices]:
    return windows(plan.sizes, plan.batching, plan.seed, epoch)
