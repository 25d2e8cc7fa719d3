"""From rows of a token table to a padded micro-batch."""

from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from distill.data.buckets import Indices
from distill.data.table import TokenTable


class Inputs(TypedDict):
    """The tensors of a micro-batch."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: NotRequired[Tensor]
    labels: Tensor
    example_ids: Tensor


def collate(table: TokenTable, rows: Indices, pad_id: int, pad_to: int | None = None) -> Inputs:
    """Pad rows on the right to the longest of them, or to `pad_to`; shapes [B T]."""
    lengths = table.lengths[rows]
    width = pad_to or int(lengths.max())
    columns = np.arange(width)
    mask = columns < lengths[:, None]
    places = np.minimum(table.offsets[rows][:, None] + columns, len(table.tokens) - 1)
    inputs = Inputs(
        input_ids=torch.from_numpy(np.where(mask, table.tokens[places], pad_id).astype(np.int64)),
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        labels=torch.from_numpy(table.labels[rows]),
        example_ids=torch.from_numpy(table.example_ids[rows]),
    )
    if table.type_ids is not None:
        inputs["token_type_ids"] = torch.from_numpy(np.where(mask, table.type_ids[places], 0).astype(np.int64))
    return inputs
