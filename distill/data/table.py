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
from distill.files import digest, digest_file, write_json

_ARRAYS = ("tokens", "offsets", "labels", "example_ids", "type_ids")
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
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was cut on the way, and how often."""

    def __len__(self) -> int:
        return len(self.example_ids)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, [N]."""
        return np.diff(self.offsets)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have a label, [N]."""
        return ~np.isnan(self.labels) if self.labels.dtype == np.float32 else self.labels >= 0

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the tokens, labels and ids in their order."""
        arrays = (self.tokens, self.offsets, self.labels, self.example_ids)
        types = b"" if self.type_ids is None else np.ascontiguousarray(self.type_ids).tobytes()
        return digest(*(np.ascontiguousarray(array).tobytes() for array in arrays), types)

    @staticmethod
    def concatenate(tables: Sequence["TokenTable"]) -> "TokenTable":
        """Join tables, one after the other. Notes are added up."""
        notes: Counter[str] = Counter()
        for table in tables:
            notes.update(table.notes)
        starts = np.cumsum([0, *(len(table.tokens) for table in tables)])
        shifted = [table.offsets[:-1] + start for table, start in zip(tables, starts[:-1], strict=True)]
        types = [np.zeros(len(t.tokens), np.uint8) if t.type_ids is None else t.type_ids for t in tables]
        return TokenTable(
            tokens=np.concatenate([table.tokens for table in tables]),
            offsets=np.concatenate([*shifted, starts[-1:]]).astype(np.int64),
            labels=_joined_labels(tables),
            example_ids=np.concatenate([table.example_ids for table in tables]),
            type_ids=None if all(table.type_ids is None for table in tables) else np.concatenate(types),
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
        write_json(partial / _INDEX, {"files": written, "notes": dict(self.notes)})
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
            if any(digest_file(folder / name) != expected for name, expected in index["files"].items()):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        arrays = {name.removesuffix(".npy"): np.load(folder / name, mmap_mode="r") for name in index["files"]}
        return TokenTable(**arrays, notes=index["notes"])


def _joined_labels(tables: Sequence[TokenTable]) -> Labels:
    kinds = {table.labels.dtype for table in tables}
    if len(kinds) > 1:
        raise ValueError("tables with classes and tables with scores cannot be joined")
    joined: Labels = np.concatenate([table.labels for table in tables])
    return joined
