"""Write down what a teacher says of rows, once: files that are whole or not there, each made once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.data.collate import collate
from distill.data.table import TokenTable
from distill.errors import DataError, ModelError
from distill.files import digest, write_atomically
from distill.protocols import Teacher
from distill.types import Batch, Needs

ROWS_A_PART = 8192
"""Rows whose logits go into one file."""
ROWS_A_BATCH = 64
_PART = "part-{:05d}.safetensors"


@dataclass(frozen=True)
class Record:
    """What a teacher said: logits by the key of the row."""

    ids: Tensor
    """[N] int64, rising"""
    logits: Tensor
    """[N V] fp32"""

    def of(self, example_ids: Tensor) -> Tensor:
        """Return the logits [B V] of rows. Raise DataError for a row that was not recorded."""
        places = torch.searchsorted(self.ids, example_ids).clamp_(max=len(self.ids) - 1)
        if not torch.equal(self.ids[places], example_ids):
            missing = int((self.ids[places] != example_ids).sum())
            raise DataError(f"the record of the teacher lacks {missing} of {len(example_ids)} rows; record them first")
        return self.logits[places]

    def to(self, device: torch.device) -> "Record":
        """Return the record on a device."""
        return Record(self.ids.to(device), self.logits.to(device))


def write_record(
    teacher: Teacher,
    table: TokenTable,
    folder: Path,
    *,
    pad_id: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the logits of all rows of a table to `folder`, and return how many different rows there are.

    A part that is there, of the same rows and teacher, is left as it is: a recording that was cut goes on where it
    stopped. Rows go by length, so that little is padding. `progress` is told how many of how many rows are done.
    """
    rows = _different_rows(table)
    for number, start in enumerate(range(0, len(rows), ROWS_A_PART)):
        part = rows[start : start + ROWS_A_PART]
        place = folder / _PART.format(number)
        fingerprint = digest(teacher.fingerprint, table.example_ids[part].tobytes())
        if _fingerprint(place) != fingerprint:
            logits = torch.cat(list(_logits(teacher, table, part, pad_id, device)))
            _write(place, Record(torch.from_numpy(table.example_ids[part]), logits), fingerprint)
        if progress is not None:
            progress(start + len(part), len(rows))
    for left in _parts(folder)[-(-len(rows) // ROWS_A_PART) :]:
        left.unlink()  # of a longer list of rows
    return len(rows)


def read_record(folder: Path) -> Record:
    """Read all parts of a recording. Raise DataError where there is none, or a part cannot be read."""
    found = []
    for path in _parts(folder):
        try:
            with safe_open(path, "pt") as part:
                found.append((part.get_tensor("example_ids"), part.get_tensor("logits")))
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: is no part of a record: {error}") from error
    if not found:
        raise DataError(f"{folder}: holds no record of a teacher")
    ids, order = torch.cat([part_ids for part_ids, _ in found]).sort()
    return Record(ids, torch.cat([logits for _, logits in found])[order])


def _different_rows(table: TokenTable) -> NDArray[np.int64]:
    """Return where each different row stands first, the shortest rows first."""
    _, first = np.unique(table.example_ids, return_index=True)
    return first[np.argsort(table.lengths[first], kind="stable")]


def _logits(
    teacher: Teacher, table: TokenTable, rows: NDArray[np.int64], pad_id: int, device: torch.device
) -> Iterator[Tensor]:
    for start in range(0, len(rows), ROWS_A_BATCH):
        inputs = collate(table, rows[start : start + ROWS_A_BATCH], pad_id)
        batch = Batch(**inputs, window_counts={}, progress=0.0, step=0)
        on_device = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        logits = teacher(on_device, Needs(logits=True)).logits  # type: ignore[arg-type]
        assert logits is not None
        if not logits.isfinite().all():
            raise ModelError(f"{teacher.describe()} gives logits that are not finite numbers")
        yield logits.float().cpu()


def _write(place: Path, part: Record, fingerprint: str) -> None:
    tensors = {"example_ids": part.ids, "logits": part.logits}
    write_atomically(place, lambda partial: save_file(tensors, partial, {"fingerprint": fingerprint}))


def _fingerprint(place: Path) -> str | None:
    """Return the fingerprint of a part that is there."""
    try:
        with safe_open(place, "pt") as part:
            return (part.metadata() or {}).get("fingerprint")
    except (OSError, SafetensorError):
        return None


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.safetensors"))
