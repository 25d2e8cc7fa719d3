"""Which rows meet in which optimiser step: a pure function of lengths, seed and epoch.

A *window* is what one optimiser step sees, over all ranks and micro-batches. Windows are drawn before anything is known
of the split, so that the split (micro-batch size, number of ranks) changes memory and speed, never what is learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Batching:
    """How rows are grouped."""

    batch_size: int
    """Rows of a window; the few that are left over at the end of an epoch make some windows larger by a row or so."""
    tokens: int | None = None
    """Padded tokens of a window, instead of a number of rows."""
    bucket_window: int = 50
    """Windows whose rows are sorted by length together."""


def windows(lengths: NDArray[np.int64], batching: Batching, seed: int, epoch: int) -> list[Indices]:
    """Return the windows of an epoch: each row in exactly one, rows of similar length together, windows shuffled."""
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    drawn = [
        window
        for bucket in _buckets(order, lengths, batching)
        for window in _cut(bucket[np.argsort(lengths[bucket], kind="stable")], lengths, batching)
    ]
    return [drawn[position] for position in random.permutation(len(drawn))]


def split(window: Indices, parts: int) -> list[Indices]:
    """Cut a window into micro-batches of nearly equal numbers of rows; they stay sorted by length. Of fewer rows than
    parts, the last parts get none.
    """
    return np.array_split(window, parts)


def _buckets(order: Indices, lengths: NDArray[np.int64], batching: Batching) -> Sequence[Indices]:
    rows = batching.batch_size
    if batching.tokens is not None:
        rows = max(1, int(batching.tokens / max(1.0, float(lengths.mean()))))
    size = rows * batching.bucket_window
    whole = max(1, len(order) // size)
    return [order[size * number : size * (number + 1) if number < whole - 1 else None] for number in range(whole)]


def _cut(rows: Indices, lengths: NDArray[np.int64], batching: Batching) -> list[Indices]:
    """Cut rows sorted by length into windows: by number, or so that rows × longest stays within the budget.

    What is left over of a number is spread over the windows: the last step of an epoch is as good as any other.
    """
    if batching.tokens is None:
        return np.array_split(rows, max(1, len(rows) // batching.batch_size))
    return cut_by_tokens(rows, lengths, batching.tokens)


def cut_by_tokens(rows: Indices, lengths: NDArray[np.int64], tokens: int) -> list[Indices]:
    """Cut rows sorted by length so that rows × longest stays within the budget; a row beyond it stands alone."""
    cuts, start = [], 0
    sizes = lengths[rows]
    while start < len(rows):
        following = sizes[start : start + max(1, tokens // max(1, int(sizes[start])))]  # none is shorter
        padded = following * np.arange(1, len(following) + 1)
        stop = start + max(1, int(np.searchsorted(padded, tokens, side="right")))
        cuts.append(rows[start:stop])
        start = stop
    return cuts
