"""Some rows of a batch, and what was said of all of them put together again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor

from distill.types import Batch, Outputs
from teachers.messages import outputs_of, tensors_of


@dataclass(frozen=True)
class Part:
    """Some rows of a batch as a batch, and their places in the whole."""

    batch: Batch
    rows: Tensor
    """[R]"""
    hidden: Tensor | None
    """[N] which of the hidden positions are theirs, where some are hidden"""
    choices: Tensor
    """[C] which of the wrong answers are theirs"""


def part_of(batch: Batch, rows: Tensor) -> Part:
    """Return the rows [R] of a batch, ascending; all are as long as in the whole."""
    made: dict[str, Any] = {
        name: value[rows] if isinstance(value, Tensor) and name != "hidden" else value for name, value in batch.items()
    }
    place = torch.full_like(batch["input_ids"][:, 0], -1)
    place[rows] = torch.arange(len(rows), device=rows.device)
    hidden, choices = None, rows[:0]
    if "hidden" in batch:
        width = batch["input_ids"].shape[1]
        row, column = batch["hidden"] // width, batch["hidden"] % width
        hidden = (place[row] >= 0).nonzero().squeeze(1)
        made["hidden"] = place[row[hidden]] * width + column[hidden]
    if "choices" in batch:
        given = batch["choices"]
        choices = (place[given["rows"]] >= 0).nonzero().squeeze(1)
        theirs = {name: cast(Tensor, value)[choices] for name, value in given.items()}
        made["choices"] = theirs | {"rows": place[theirs["rows"]]}
        if not len(choices):
            del made["choices"]
    return Part(cast(Batch, made), rows, hidden, choices)


def joined(said: Sequence[tuple[Part, Outputs]]) -> Outputs:
    """Return what was said of all rows, in their order in the whole."""
    parts = [part for part, _ in said]
    found = [tensors_of(outputs) for _, outputs in said]
    whole: dict[str, Tensor] = {}
    for name in found[0]:
        tensors = [tensors[name] for tensors in found]
        if name == "choices":
            whole[name] = _placed(tensors, [part.choices for part in parts], 0)
        elif name == "logits" and (hidden := [part.hidden for part in parts if part.hidden is not None]):
            whole[name] = _placed(tensors, hidden, 1)
        else:
            whole[name] = _placed(tensors, [part.rows for part in parts], 0)
    return outputs_of(whole)


def _placed(tensors: Sequence[Tensor], places: Sequence[Tensor], dimension: int) -> Tensor:
    """Return a tensor that has each of the tensors at its places along a dimension."""
    filled = [(tensor, place) for tensor, place in zip(tensors, places, strict=True) if len(place)]
    if not filled:
        return tensors[0]
    shape = [*filled[0][0].shape]
    shape[dimension] = sum(len(place) for _, place in filled)
    whole = filled[0][0].new_empty(shape, dtype=reduce(torch.promote_types, [tensor.dtype for tensor, _ in filled]))
    for tensor, place in filled:
        whole.index_copy_(dimension, place, tensor.to(whole.dtype))
    return whole
