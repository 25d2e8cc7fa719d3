"""Tokenised rows: flat arrays in memory or mapped from disk."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.labels import Labels
from distill.data.masking import Masking, sums
from distill.files import digest, digest_file, write_json
from distill.types import IGNORED

_ARRAYS = (
    *("tokens", "offsets", "labels", "example_ids", "type_ids", "targets", "target_offsets", "weights", "tags"),
    *("wrong", "wrong_offsets", "wrong_rows"),
)
_INDEX = "table.json"


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Rows of token ids, one after the other: row i is `tokens[offsets[i]:offsets[i + 1]]`."""

    tokens: NDArray[np.int32]
    """[all tokens]"""
    offsets: NDArray[np.int64]
    """[N + 1]"""
    labels: Labels
    """[N] int64 class (IGNORED: none) or float32 score (NaN: none)"""
    example_ids: NDArray[np.int64]
    """[N] the key of a row in every cache: a hash of its content, and of the id its file gave it"""
    type_ids: NDArray[np.uint8] | None = None
    """[all tokens] 1 in the second text of a pair; None where no row is a pair"""
    targets: NDArray[np.int32] | None = None
    """[all target tokens] of a generation, each with its end token; None where the rows are not for one"""
    target_offsets: NDArray[np.int64] | None = None
    """[N + 1]"""
    weights: NDArray[np.float32] | None = None
    """[N] how much the target of a row counts; None where all count 1"""
    tags: NDArray[np.int64] | None = None
    """[all tokens] class of the word that begins with this token (IGNORED: none does); None where words have none"""
    wrong: NDArray[np.int32] | None = None
    """[all tokens of wrong answers], each with its end token; None where rows have no answers to choose from"""
    wrong_offsets: NDArray[np.int64] | None = None
    """[all wrong answers + 1]"""
    wrong_rows: NDArray[np.int64] | None = None
    """[N + 1]: row i has the wrong answers from `wrong_rows[i]` up to `wrong_rows[i + 1]`"""
    sources: NDArray[np.int16] | None = None
    """[N] which of the tables that were joined a row is from; None where there was one"""
    masking: Masking | None = None
    """What hides tokens of the rows each time they are taken; None where nothing does"""
    start: int | None = None
    """Token a decoder begins with; None where source and target are one sequence, or there are no targets"""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was cut or left out on the way, and how often."""

    def __len__(self) -> int:
        return len(self.example_ids)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, [N]."""
        return np.diff(self.offsets)

    @cached_property
    def target_lengths(self) -> NDArray[np.int64] | None:
        """Positions of each row at which something is to be said, [N]: target tokens, words with a class, tokens that
        are hidden; None where there is but one label a row.
        """
        if self.masking is not None:
            return self.masking.sizes(self.tokens, self.offsets)
        if self.tags is not None:
            return sums(self.tags != IGNORED, self.offsets)
        return None if self.target_offsets is None else np.diff(self.target_offsets)

    @cached_property
    def wrong_lengths(self) -> NDArray[np.int64] | None:
        """Tokens of all wrong answers of each row, [N]; None where rows have none."""
        if self.wrong_offsets is None or self.wrong_rows is None:
            return None
        return np.diff(self.wrong_offsets[self.wrong_rows])

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have a label or a target, [N]."""
        if self.target_lengths is not None:
            return self.target_lengths > 0
        return ~np.isnan(self.labels) if self.labels.dtype == np.float32 else self.labels >= 0

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the tokens, labels and ids in their order."""
        arrays = [getattr(self, name) for name in _ARRAYS]
        whole = [b"" if array is None else np.ascontiguousarray(array).tobytes() for array in arrays]
        return digest(*whole, str(self.start))

    @staticmethod
    def concatenate(tables: Sequence["TokenTable"]) -> "TokenTable":
        """Join tables, one after the other. Notes are added up."""
        notes: Counter[str] = Counter()
        for table in tables:
            notes.update(table.notes)
        if len({(table.targets is None, table.start) for table in tables}) > 1:
            raise ValueError("tables with targets and tables without cannot be joined")
        pairs = [(table.targets, table.target_offsets) for table in tables]
        tagged = [np.full(len(t.tokens), IGNORED) if t.tags is None else t.tags for t in tables]
        written = [(targets, offsets) for targets, offsets in pairs if targets is not None and offsets is not None]
        weights = [np.ones(len(t), np.float32) if t.weights is None else t.weights for t in tables]
        types = [np.zeros(len(t.tokens), np.uint8) if t.type_ids is None else t.type_ids for t in tables]
        answers = [_answers(table) for table in tables]
        some = any(table.wrong is not None for table in tables)
        return TokenTable(
            tokens=np.concatenate([table.tokens for table in tables]),
            offsets=_joined_offsets([table.offsets for table in tables]),
            labels=_joined_labels(tables),
            example_ids=np.concatenate([table.example_ids for table in tables]),
            type_ids=None if all(table.type_ids is None for table in tables) else np.concatenate(types),
            targets=np.concatenate([targets for targets, _ in written]) if written else None,
            target_offsets=_joined_offsets([offsets for _, offsets in written]) if written else None,
            weights=None if all(table.weights is None for table in tables) else np.concatenate(weights),
            tags=None if all(table.tags is None for table in tables) else np.concatenate(tagged),
            wrong=np.concatenate([tokens for tokens, _, _ in answers]) if some else None,
            wrong_offsets=_joined_offsets([offsets for _, offsets, _ in answers]) if some else None,
            wrong_rows=_joined_offsets([rows for _, _, rows in answers]) if some else None,
            sources=np.repeat(np.arange(len(tables), dtype=np.int16), [*map(len, tables)]) if tables[1:] else None,
            masking=tables[0].masking,
            start=tables[0].start,
            notes=dict(notes),
        )

    @staticmethod
    def of(rows: Iterable[Sequence[int]], labels: Labels, example_ids: NDArray[np.int64]) -> "TokenTable":
        """Build from token ids a row, without pairs."""
        listed = list(rows)
        offsets = np.cumsum([0, *map(len, listed)], dtype=np.int64)
        tokens = np.fromiter((token for row in listed for token in row), np.int32, int(offsets[-1]))
        return TokenTable(tokens, offsets, labels, example_ids)

    def save(self, folder: Path) -> None:
        """Write the arrays and their digests into a folder that is whole or not there; one that is there stays."""
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        for name, array in arrays.items():
            if array is not None:
                np.save(partial / f"{name}.npy", array)
        written = {path.name: digest_file(path) for path in partial.glob("*.npy")}
        write_json(partial / _INDEX, {"files": written, "start": self.start, "notes": dict(self.notes)})
        try:
            partial.replace(folder)
        except OSError:
            shutil.rmtree(partial)  # another process was faster
            if not folder.is_dir():
                raise

    @staticmethod
    def load(folder: Path) -> "TokenTable | None":
        """Map a saved table into memory; None where there is none or its files are not those that were written."""
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            if "start" not in index or any(
                digest_file(folder / name) != known for name, known in index["files"].items()
            ):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        arrays = {name.removesuffix(".npy"): np.load(folder / name, mmap_mode="r") for name in index["files"]}
        return TokenTable(**arrays, start=index["start"], notes=index["notes"])


def _joined_offsets(arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    starts = np.cumsum([0, *(array[-1] for array in arrays)])
    shifted = [array[:-1] + start for array, start in zip(arrays, starts[:-1], strict=True)]
    return np.concatenate([*shifted, starts[-1:]]).astype(np.int64)


def _answers(table: TokenTable) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    if table.wrong is None or table.wrong_offsets is None or table.wrong_rows is None:
        return np.empty(0, np.int32), np.zeros(1, np.int64), np.zeros(len(table) + 1, np.int64)
    return table.wrong, table.wrong_offsets, table.wrong_rows


def _joined_labels(tables: Sequence[TokenTable]) -> Labels:
    kinds = {table.labels.dtype for table in tables}
    if len(kinds) > 1:
        raise ValueError("tables with classes and tables with scores cannot be joined")
    joined: Labels = np.concatenate([table.labels for table in tables])
    return joined
