"""What a teacher said of rows, read from the files of a recording (`teachers.recording`)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distill.errors import DataError
from distill.types import IGNORED, Batch, Outputs, TopK
from teachers.most_likely import placed


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


def read_record(folder: Path) -> Record | TokenRecord:
    """Read all parts of a recording. Raise DataError where there is none, or a part cannot be read."""
    found: dict[str, list[Tensor]] = {}
    for path in parts_of(folder):
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


def parts_of(folder: Path) -> list[Path]:
    """Return the parts in a folder, in their order."""
    return sorted(folder.glob("part-*.safetensors"))
