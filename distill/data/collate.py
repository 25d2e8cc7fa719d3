"""From rows of a token table to a padded micro-batch."""

from typing import NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.answers import wrong_answers
from distill.data.buckets import Indices
from distill.data.table import TokenTable
from distill.types import IGNORED, Choices


class Inputs(TypedDict):
    """The tensors of a micro-batch; see `distill.types.Batch`."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: NotRequired[Tensor]
    labels: Tensor
    hidden: NotRequired[Tensor]
    decoder_input_ids: NotRequired[Tensor]
    example_ids: Tensor
    weights: NotRequired[Tensor]
    sources: NotRequired[Tensor]
    choices: NotRequired[Choices]


FIXED = (0, -1)
"""Seed and step of rows that are not trained on: what is hidden of them is always the same."""


def collate(
    table: TokenTable, rows: Indices, pad_id: int, pad_to: int | None = None, draw: tuple[int, int] = FIXED
) -> Inputs:
    """Pad rows on the right to the longest of them, or to `pad_to`; shapes [B T]. `draw` is seed and step, which decide
    what is hidden of them.

    Targets are shifted here and nowhere else: the label at a position is the token that comes after it.
    """
    lengths = table.lengths[rows]
    width = pad_to or int(lengths.max())
    mask = np.arange(width) < lengths[:, None]
    inputs = Inputs(
        input_ids=_tensor(_taken(table.tokens, table.offsets[rows], mask, pad_id)),
        attention_mask=_tensor(mask),
        labels=torch.from_numpy(table.labels[rows]),
        example_ids=torch.from_numpy(table.example_ids[rows]),
    )
    if table.type_ids is not None:
        inputs["token_type_ids"] = _tensor(_taken(table.type_ids, table.offsets[rows], mask, 0))
    if table.tags is not None:
        inputs["labels"] = _tensor(_taken(table.tags, table.offsets[rows], mask, IGNORED))
    if table.masking is not None:
        shown, gold = table.masking.hide(inputs["input_ids"].numpy(), mask, table.example_ids[rows], draw)
        inputs["input_ids"], inputs["labels"] = _tensor(shown), _tensor(gold)
        inputs["hidden"] = _tensor(np.flatnonzero(gold != IGNORED))
    if table.targets is not None and table.target_offsets is not None:
        starts, ends = table.target_offsets[rows], table.target_offsets[rows + 1]
        if table.start is None:
            labels = _at_the_end(table.targets, starts, ends, lengths, width)
        else:
            own = np.arange(int((ends - starts).max())) < (ends - starts)[:, None]
            labels = _taken(table.targets, starts, own, IGNORED)
            inputs["decoder_input_ids"] = _tensor(_shifted(labels, table.start, pad_id))
        inputs["labels"] = _tensor(labels)
    if table.weights is not None:
        inputs["weights"] = torch.from_numpy(table.weights[rows])
    if table.sources is not None:
        inputs["sources"] = _tensor(table.sources[rows])
    found = wrong_answers(table, rows)
    if found is not None:
        inputs["choices"] = _choices(*found, pad_id)
    return inputs


def _choices(answers: TokenTable, places: Indices, pad_id: int) -> Choices:
    inputs = collate(answers, np.arange(len(answers)), pad_id)
    choices = Choices(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        labels=inputs["labels"],
        rows=torch.from_numpy(places),
    )
    if "decoder_input_ids" in inputs:
        choices["decoder_input_ids"] = inputs["decoder_input_ids"]
    return choices


def _taken(tokens: NDArray[np.integer], starts: Indices, mask: NDArray[np.bool_], fill: int) -> NDArray[np.int64]:
    """Return what lies from each start on, where the mask [B T] is set."""
    places = np.minimum(starts[:, None] + np.arange(mask.shape[1]), len(tokens) - 1)
    return np.where(mask, tokens[places], fill).astype(np.int64)


def _at_the_end(
    targets: NDArray[np.int32], starts: Indices, ends: Indices, lengths: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Return labels [B T] of sequences that hold prompt and target but for its last token: the target stands last."""
    places = np.arange(width) - (lengths - (ends - starts))[:, None] + starts[:, None]
    own = (places >= starts[:, None]) & (places < ends[:, None])
    return np.where(own, targets[places.clip(0, len(targets) - 1)], IGNORED).astype(np.int64)


def _shifted(labels: NDArray[np.int64], start: int, pad_id: int) -> NDArray[np.int64]:
    """Return what a decoder reads to write the labels [B U]."""
    before = np.concatenate([np.full((len(labels), 1), start), labels[:, :-1]], axis=1)
    return np.where(before == IGNORED, pad_id, before)


def _tensor(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
