"""The micro-batch of a training that is largest in memory."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from distill.data.buckets import Batching, Indices
from distill.data.table import TokenTable
from distill.data.windows import Plan
from distill.few_shapes import rounded
from distill.types import IGNORED

SEEN = 4096
"""Steps whose shapes are looked at, where an epoch has fewer: each epoch pads its rows in other company."""


def largest(plan: Plan) -> Indices:
    """Return the rows of the micro-batch that has the most padded positions, in the first epoch; of equals, the one
    with the longest rows: attention grows with their square.
    """
    first = min(plan.steps, plan.steps_of(0))
    return max(_parts(plan, first), key=lambda part: _size(plan, part))


class Shapes(NamedTuple):
    """How many shapes batches have."""

    batches: int
    """By rows and by the positions they are padded to."""
    positions: int
    """By the number of their padded positions, as products in bf16 round it."""

    @staticmethod
    def of(sizes: Iterable[tuple[int, int, int]]) -> "Shapes":
        """Count batches of so many rows, positions a row, and targets a row."""
        seen = set(sizes)
        return Shapes(len(seen), len({rounded(rows * longest) for rows, longest, _ in seen}))


def shapes(plan: Plan) -> Shapes:
    """Count the shapes of micro-batches: of the first epoch, and of so many later steps as are soon looked at."""
    seen = min(plan.steps, max(plan.steps_of(0), SEEN))
    return Shapes.of((len(part), *_padded(plan, part)) for part in _parts(plan, seen))


def _parts(plan: Plan, steps: int) -> Iterator[Indices]:
    """Yield the micro-batches of the first steps that have rows."""
    return (part for step in range(steps) for part in plan.parts(step) if len(part))


def _size(plan: Plan, rows: Indices) -> tuple[int, int]:
    longest, targets = _padded(plan, rows)
    return len(rows) * (longest + targets), longest


def _padded(plan: Plan, rows: Indices) -> tuple[int, int]:
    longest = plan.pad_to or int(plan.lengths[rows].max())
    return longest, int(plan.targets[rows].max()) if plan.beside and plan.targets is not None else 0


def assumed(batching: Batching, length: int, targets: int | None, start: int | None) -> TokenTable:
    """Return the rows of one window where they are not known yet: all as long as the run lets them be.

    `targets` is the length of the texts to be written; a decoder beside an encoder begins them with the token `start`.
    """
    joined = length + (targets or 1) - 1 if start is None else length
    positions = joined if start is None else length + (targets or 0)
    rows = batching.batch_size if batching.tokens is None else max(1, batching.tokens // positions)
    offsets = np.arange(rows + 1, dtype=np.int64)
    return TokenTable(
        tokens=np.ones(rows * joined, np.int32),
        offsets=offsets * joined,
        labels=np.full(rows, IGNORED if targets else 0, np.int64),
        example_ids=np.arange(rows, dtype=np.int64),
        targets=None if targets is None else np.ones(rows * targets, np.int32),
        target_offsets=None if targets is None else offsets * targets,
        start=start,
    )
