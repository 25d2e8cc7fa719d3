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
from distill.types import IGNORED, Batch, Needs, Outputs, TopK
from teachers.most_likely import most_likely, placed

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
        return self.logits[_found(self.ids, example_ids)]

    def outputs(self, batch: Batch) -> Outputs:
        """Return what was said of a batch's rows."""
        return Outputs(logits=self.of(batch["example_ids"]))

    def to(self, device: torch.device) -> "Record":
        """Return the record on a device."""
        return Record(self.ids.to(device), self.logits.to(device))


@dataclass(frozen=True)
class TokenRecord:
    """What a teacher said of target tokens: its K most likely ones at every position, by the key of the row."""

    ids: Tensor
    """[N] int64, rising"""
    offsets: Tensor
    """[N + 1] int64: positions of row i are offsets[i] … offsets[i + 1]"""
    indices: Tensor
    """[all positions, K] int32"""
    log_probs: Tensor
    """[all positions, K] fp32"""

    def of(self, example_ids: Tensor) -> Tensor:
        """Return the positions of rows, one row after the other. Raise DataError for a row that was not recorded."""
        places = _found(self.ids, example_ids)
        starts, sizes = self.offsets[places], self.offsets[places + 1] - self.offsets[places]
        before = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
        return torch.repeat_interleave(starts, sizes) + torch.arange(len(before), device=before.device) - before

    def outputs(self, batch: Batch) -> Outputs:
        """Return what was said of a batch's target tokens; elsewhere anything."""
        positions = self.of(batch["example_ids"])
        found = TopK(self.indices[positions], self.log_probs[positions])
        return Outputs(top_k=placed(found, batch["labels"] != IGNORED))

    def to(self, device: torch.device) -> "TokenRecord":
        """Return the record on a device."""
        moved = (tensor.to(device) for tensor in (self.ids, self.offsets, self.indices, self.log_probs))
        return TokenRecord(*moved)


def _found(ids: Tensor, wanted: Tensor) -> Tensor:
    """Return where rows stand. Raise DataError for one that was not recorded."""
    places = torch.searchsorted(ids, wanted).clamp_(max=len(ids) - 1)
    if not torch.equal(ids[places], wanted):
        missing = int((ids[places] != wanted).sum())
        raise DataError(f"the record of the teacher lacks {missing} of {len(wanted)} rows; record them first")
    return places


def write_record(
    teacher: Teacher,
    table: TokenTable,
    folder: Path,
    *,
    pad_id: int,
    device: torch.device,
    top_k: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the logits of all rows of a table to `folder`, and return how many different rows there are; of a
    generation the `top_k` most likely tokens at every target position.

    A part that is there, of the same rows and teacher, is left as it is: a recording that was cut goes on where it
    stopped. Rows go by length, so that little is padding. `progress` is told how many of how many rows are done.
    """
    rows = _different_rows(table)
    for number, start in enumerate(range(0, len(rows), ROWS_A_PART)):
        part = rows[start : start + ROWS_A_PART]
        place = folder / _PART.format(number)
        fingerprint = digest(teacher.fingerprint, str(top_k), table.example_ids[part].tobytes())
        if _fingerprint(place) != fingerprint:
            said = list(_said(teacher, table, part, top_k, pad_id, device))
            tensors = {name: torch.cat([one[name] for one in said]) for name in said[0]}
            tensors["example_ids"] = torch.from_numpy(table.example_ids[part])
            _write(place, tensors, fingerprint)
        if progress is not None:
            progress(start + len(part), len(rows))
    for left in _parts(folder)[-(-len(rows) // ROWS_A_PART) :]:
        left.unlink()  # of a longer list of rows
    return len(rows)


def read_record(folder: Path) -> Record | TokenRecord:
    """Read all parts of a recording. Raise DataError where there is none, or a part cannot be read."""
    found: dict[str, list[Tensor]] = {}
    for path in _parts(folder):
        try:
            with safe_open(path, "pt") as part:
                for name in part.keys():  # noqa: SIM118
                    found.setdefault(name, []).append(part.get_tensor(name))
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: is no part of a record: {error}") from error
    if not found:
        raise DataError(f"{folder}: holds no record of a teacher")
    whole = {name: torch.cat(parts) for name, parts in found.items()}
    ids, order = whole["example_ids"].sort()
    if "logits" in whole:
        return Record(ids, whole["logits"][order])
    sizes = whole["sizes"]
    unsorted = TokenRecord(torch.arange(len(ids)), _offsets(sizes), whole["indices"], whole["log_probs"])
    positions = unsorted.of(order)
    return TokenRecord(ids, _offsets(sizes[order]), unsorted.indices[positions], unsorted.log_probs[positions])


def _offsets(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _different_rows(table: TokenTable) -> NDArray[np.int64]:
    """Return where each different row stands first, the shortest rows first."""
    _, first = np.unique(table.example_ids, return_index=True)
    return first[np.argsort(table.lengths[first], kind="stable")]


def _said(
    teacher: Teacher,
    table: TokenTable,
    rows: NDArray[np.int64],
    top_k: int | None,
    pad_id: int,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(rows), ROWS_A_BATCH):
        inputs = collate(table, rows[start : start + ROWS_A_BATCH], pad_id)
        batch = Batch(**inputs, window_counts={}, progress=0.0, step=0)
        on_device = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        logits = teacher(on_device, Needs(logits=True)).logits  # type: ignore[arg-type]
        assert logits is not None
        if not logits.isfinite().all():
            raise ModelError(f"{teacher.describe()} gives logits that are not finite numbers")
        yield {"logits": logits.float().cpu()} if top_k is None else _most_likely(logits, inputs["labels"], top_k)


def _most_likely(logits: Tensor, labels: Tensor, top_k: int) -> dict[str, Tensor]:
    """Return the K most likely tokens at every target position, and how many positions each row has."""
    here = labels != IGNORED
    best = most_likely(logits[here.to(logits.device)], top_k)
    return {"indices": best.indices.int().cpu(), "log_probs": best.log_probs.cpu(), "sizes": here.sum(1)}


def _write(place: Path, tensors: dict[str, Tensor], fingerprint: str) -> None:
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
