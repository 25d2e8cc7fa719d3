"""Wrong answers of rows, beside their targets."""

from dataclasses import replace

import numpy as np

from distill.data.buckets import Indices
from distill.data.table import TokenTable
from distill.types import IGNORED


def wrong_answers(table: TokenTable, rows: Indices) -> tuple[TokenTable, Indices] | None:
    """Return the wrong answers of rows as a table of its own, each with its row's source, and for each the place of its
    row among `rows`; None where there are none.
    """
    wrong, offsets, firsts, targets = table.wrong, table.wrong_offsets, table.wrong_rows, table.target_lengths
    if wrong is None or offsets is None or firsts is None or targets is None:
        return None
    counts = firsts[rows + 1] - firsts[rows]
    places = np.repeat(np.arange(len(rows)), counts)
    numbers = np.concatenate([np.arange(firsts[row], firsts[row + 1]) for row in rows])
    if len(numbers) == 0:
        return None
    joined = table.start is None
    sizes = table.lengths[rows] - (targets[rows] - 1 if joined else 0)  # a target's last token is never read
    starts, own = table.offsets[rows], np.full(len(numbers), IGNORED, dtype=np.int64)
    sources = [table.tokens[start : start + size].tolist() for start, size in zip(starts, sizes, strict=True)]
    answers = [wrong[offsets[number] : offsets[number + 1]].tolist() for number in numbers]
    ends = [answer[:-1] if joined else [] for answer in answers]
    read = [sources[place] + end for place, end in zip(places, ends, strict=True)]
    written = TokenTable.of(answers, own, own)
    alone = TokenTable.of(read, own, own)
    return replace(alone, targets=written.tokens, target_offsets=written.offsets, start=table.start), places
