"""Rows of text as every part sees them, whatever file they came from."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import DataError

_PIECE = 4096


class BadRow(DataError):
    """A row that cannot be read; `kind` is what such rows are counted under."""

    def __init__(self, kind: str, problem: str) -> None:
        """Say what kind of fault it is, and what it is exactly."""
        super().__init__(problem)
        self.kind = kind


class Row(NamedTuple):
    """One row."""

    text: str
    pair: str | None
    """Second text of a pair."""
    label: str | float | None
    """Class name or score; None where it has none."""
    id: int
    """Hash of the content, and of the id the file gave it; of a generation, of its source alone."""
    target: str | None = None
    """Text to be written, of a generation; None where it has none."""
    weight: float | None = None
    """How much its target counts where target tokens are learnt from; None counts as 1."""
    words: list[str] | None = None
    """Of a sentence to be tagged; the text is these, joined by blanks."""
    tags: list[str] | None = None
    """Class name of each word."""
    choices: list[str] | None = None
    """Answers to choose from, its target among them."""


@dataclass(frozen=True)
class Rows:
    """Rows in memory, column by column."""

    table: pa.Table
    """Columns `text` and `id`; where there are any, `pair`, `label` (string or double), `target`, `weight` (double),
    `words`, `tags` and `choices` (lists of strings), `document` (a line's file)."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was dropped or mended on reading, and how often."""

    @staticmethod
    def of(rows: Sequence[Row], notes: Mapping[str, int] | None = None) -> "Rows":
        """Build from single rows; a column that is None throughout is left out."""
        empty: tuple[tuple[Any, ...], ...] = ((),) * len(Row._fields)
        texts, pairs, labels, ids, targets, weights, words, tags, choices = zip(*rows, strict=True) if rows else empty
        columns = {"text": pa.array(texts, pa.large_string()), "id": pa.array(ids, pa.int64())}
        if any(pair is not None for pair in pairs):
            columns["pair"] = pa.array(pairs, pa.large_string())
        if any(label is not None for label in labels):
            columns["label"] = pa.array(labels)
        if any(target is not None for target in targets):
            columns["target"] = pa.array(targets, pa.large_string())
        if any(weight is not None for weight in weights):
            columns["weight"] = pa.array(weights, pa.float64())
        if any(sentence is not None for sentence in words):
            columns["words"] = pa.array(words, pa.large_list(pa.large_string()))
            columns["tags"] = pa.array(tags, pa.large_list(pa.large_string()))
        if any(answers is not None for answers in choices):
            columns["choices"] = pa.array(choices, pa.large_list(pa.large_string()))
        return Rows(pa.table(columns), dict(notes or {}))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Row]:
        for batch in self.table.to_batches(_PIECE):
            found = batch.to_pydict()
            empty = [None] * batch.num_rows
            columns = [found.get(name, empty) for name in Row._fields]
            yield from map(Row, *columns)

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are pairs of texts."""
        return "pair" in self.table.column_names

    @property
    def has_labels(self) -> bool:
        """Whether any row carries a label."""
        return "label" in self.table.column_names and self.table["label"].null_count < len(self)

    @property
    def targets(self) -> list[str | None]:
        """Texts to be written; None where a row has none."""
        return self.table["target"].to_pylist() if "target" in self.table.column_names else [None] * len(self)

    @property
    def have_choices(self) -> bool:
        """Whether any row has answers to choose from."""
        return "choices" in self.table.column_names

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """How much the target of each row counts, [N]; None where all count the same."""
        if "weight" not in self.table.column_names:
            return None
        return np.asarray(self.table["weight"].fill_null(1.0).to_numpy(), dtype=np.float32)

    @property
    def tags(self) -> list[list[str]]:
        """Class names of the words of each row; none of a row without words."""
        found = self.table["tags"].to_pylist() if "tags" in self.table.column_names else [None] * len(self)
        return [tags or [] for tags in found]

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the rows, [N]."""
        return np.asarray(self.table["id"].to_numpy(), dtype=np.int64)

    @property
    def documents(self) -> list[int]:
        """For each row the document it is part of: lines of one file share one, other rows stand alone."""
        return self.table["document"].to_pylist() if "document" in self.table.column_names else list(range(len(self)))

    @property
    def labels(self) -> list[Any]:
        """Class names or scores; None where a row has none."""
        return self.table["label"].to_pylist() if self.has_labels else [None] * len(self)

    def texts(self) -> Iterator[str]:
        """Yield all texts: of each row what it says, and its target where it has one."""
        for row in self:
            yield " ".join(filter(None, (row.text, row.pair)))
            if row.target is not None:
                yield row.target

    def take(self, keep: NDArray[np.bool_]) -> "Rows":
        """Return the rows whose flag is set, in their order."""
        return Rows(self.table.filter(pa.array(keep)), self.notes)

    def part(self, start: int, stop: int) -> "Rows":
        """Return the rows from `start` up to, not including, `stop`."""
        return Rows(self.table.slice(start, max(0, stop - start)), self.notes)

    @staticmethod
    def concatenate(parts: Sequence["Rows"]) -> "Rows":
        """Join rows one after the other; what only some of them have is missing in the others. Notes are added up."""
        notes: Counter[str] = Counter()
        for part in parts:
            notes.update(part.notes)
        return Rows(pa.concat_tables([part.table for part in parts], promote_options="default"), dict(notes))


def by_source(rows: Rows, name: str) -> dict[str, list[str]]:
    """Return each different source with all its targets. Raise DataError for a row without a target."""
    found: dict[str, list[str]] = {}
    for place, row in enumerate(rows, 1):
        if row.target is None:
            raise DataError(f"data.{name}: row {place} has no target to compare with")
        if row.target not in found.setdefault(row.text, []):
            found[row.text].append(row.target)
    return found
