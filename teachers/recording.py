"""Write down what a teacher says of rows, once: files that are whole or not there, each made by whoever is free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
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
from distill.shares import Parts, share_out
from distill.types import IGNORED, Batch, Needs
from teachers.in_step import in_step, place, told
from teachers.most_likely import most_likely
from teachers.record import parts_of

ROWS_A_PART = 1024
"""Rows whose logits go into one file: what one process takes at a time, and what is lost at most when it is killed."""
ROWS_A_BATCH = 64
_READ = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
"""What a teacher reads of rows; where several tokens are kept, their labels say of which positions"""
_PART = "part-{:05d}.safetensors"
_NOTHING, _OVER = -1, -2
"""What rank 0 tells the others instead of the number of a part: that it waits, and that all is done."""


@dataclass(frozen=True)
class Recording:
    """What is to be written down, of which rows."""

    teacher: Teacher
    table: TokenTable
    pad_id: int
    device: torch.device
    top_k: int | None = None
    """Of a generation, tokens kept of every target position."""

    @cached_property
    def parts(self) -> list[NDArray[np.int64]]:
        """Where the rows of each part stand: each different row once, the shortest first, so that little is padding."""
        _, first = np.unique(self.table.example_ids, return_index=True)
        rows = first[np.argsort(self.table.lengths[first], kind="stable")]
        return [rows[start : start + ROWS_A_PART] for start in range(0, len(rows), ROWS_A_PART)]

    def fingerprint(self, number: int) -> str:
        """Return a digest of what decides a part: the tokens, too, since a row keeps its id when it is cut elsewhere
        or marked with another language.
        """
        rows = self.parts[number]
        inputs: Mapping[str, object] = {**collate(self.table, rows, self.pad_id)}
        read = [*_READ, *([] if self.top_k is None else ["labels"])]
        tensors = [value.numpy().tobytes() for name in read if isinstance(value := inputs.get(name), Tensor)]
        ids = self.table.example_ids[rows].tobytes()
        return digest(self.teacher.fingerprint, str(self.top_k), ids, *tensors)

    def said(self, number: int) -> dict[str, Tensor]:
        """Return what the teacher says of the rows of a part. Raise ModelError where a logit is no finite number."""
        rows = self.parts[number]
        batches = [rows[start : start + ROWS_A_BATCH] for start in range(0, len(rows), ROWS_A_BATCH)]
        every = list(in_step(self._said, batches) if self.teacher.in_step else map(self._said, batches))
        if not all(one["finite"] for one in every):
            raise ModelError(f"{self.teacher.describe()} gives logits that are not finite numbers")
        found = {name: torch.cat([one[name] for one in every]) for name in every[0] if name != "finite"}
        return found | {"example_ids": torch.from_numpy(self.table.example_ids[rows])}

    def _said(self, rows: NDArray[np.int64]) -> Mapping[str, Tensor]:
        inputs = collate(self.table, rows, self.pad_id)
        batch = Batch(**inputs, window_counts={}, progress=0.0, step=0, spare=False)
        on_device = {
            name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in batch.items()
        }
        logits = self.teacher(on_device, Needs(logits=True)).logits  # type: ignore[arg-type]
        assert logits is not None
        finite = logits.isfinite().all().int()
        if self.top_k is None:
            return {"logits": logits.float().cpu(), "finite": finite}
        return {**_most_likely(logits, inputs["labels"], self.top_k), "finite": finite}


def write_record(
    what: Recording,
    folder: Path,
    *,
    rank: int = 0,
    ranks: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the logits of all rows of a table to `folder`, and return how many different rows there are; of a
    generation the most likely tokens at every target position.

    A part that is there, of the same rows and teacher, is left as it is: a recording that was cut goes on where it
    stopped, with any number of ranks. `rank` of `ranks` share the parts out; those of one teacher that is asked in step
    are one of them, and share the rows of each part. `progress` is told how many of how many parts are there. Raises
    DataError where somebody else writes another record.
    """
    total = len(what.parts)
    if what.teacher.in_step and place()[0]:
        _follow(what)
        return sum(map(len, what.parts))

    def is_there(number: int) -> bool:
        return _fingerprint(folder / _PART.format(number)) == what.fingerprint(number)

    def make(number: int) -> None:
        tensors = what.said(_told(what, number))
        about = {"fingerprint": what.fingerprint(number)}
        write_atomically(folder / _PART.format(number), lambda partial: save_file(tensors, partial, about), shared=True)

    work = Parts(folder, total, is_there, make)
    share_out(work, rank=rank, ranks=ranks, progress=progress, waiting=lambda: _told(what, _NOTHING))
    _told(what, _OVER)
    if not all(map(is_there, range(total))):
        raise DataError(
            f"{folder}: parts were written over by a run of another configuration; give one of the two another `output`"
        )
    for left in parts_of(folder)[total:]:
        left.unlink(missing_ok=True)  # of a longer list of rows
    return sum(map(len, what.parts))


def _told(what: Recording, number: int) -> int:
    """Tell the other ranks which part they are to help with, where the teacher is asked by all of them."""
    return told(number) if what.teacher.in_step else number


def _follow(what: Recording) -> None:
    """Help rank 0 with the parts it takes."""
    while (number := told(_OVER)) != _OVER:
        if number != _NOTHING:
            what.said(number)


def _most_likely(logits: Tensor, labels: Tensor, top_k: int) -> dict[str, Tensor]:
    """Return the K most likely tokens at every target position, and how many positions each row has."""
    here = labels != IGNORED
    best = most_likely(logits[here.to(logits.device)], top_k)
    return {"indices": best.indices.int().cpu(), "log_probs": best.log_probs.cpu(), "sizes": here.sum(1)}


def _fingerprint(part: Path) -> str | None:
    """Return the fingerprint of a part that is there."""
    try:
        with safe_open(part, "pt") as found:
            return (found.metadata() or {}).get("fingerprint")
    except (OSError, SafetensorError):
        return None
