"""Texts that somebody else wrote."""

from distill.data.rows import Rows
from distill.errors import DataError
from distill.types import Completion, Text


def by_row(written: Rows) -> dict[int, Completion]:
    """Return the texts for each source, by the key of its row: the targets of all rows with that key, in their order,
    each text once. They have no score, and ended where their writer ended them.

    Raises DataError for a row without a text.
    """
    found: dict[int, dict[str, None]] = {}
    for place, row in enumerate(written, 1):
        if row.target is None:
            raise DataError(f"row {place} has no target, and that is the text somebody wrote")
        found.setdefault(row.id, {})[row.target] = None
    return {key: Completion(tuple(Text(text, None, None, True) for text in texts)) for key, texts in found.items()}
