"""Rows with answers to choose from: batches for losses, and files for runs."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.types import IGNORED, Batch, Choices, Outputs
from tests.helpers.writers import WORDS

VOCABULARY = 6
Lengths = Sequence[tuple[int, Sequence[int]]]
"""Of each row: tokens of the right answer, and of each wrong one."""


def labels_of(lengths: Sequence[int], draw: torch.Generator) -> Tensor:
    """Random tokens of answers, padded on the right."""
    width = max(lengths)
    found = torch.randint(0, VOCABULARY, (len(lengths), width), generator=draw)
    return found.masked_fill(torch.arange(width) >= torch.tensor(lengths)[:, None], IGNORED)


def batch_of(rows: Lengths, seed: int = 0) -> Batch:
    """A batch of these answers."""
    draw = torch.Generator().manual_seed(seed)
    wrong = [length for _, lengths in rows for length in lengths]
    mask = torch.ones(len(rows), 2, dtype=torch.int64)
    batch = Batch(
        input_ids=mask,
        attention_mask=mask,
        labels=labels_of([right for right, _ in rows], draw),
        example_ids=torch.arange(len(rows)),
        window_counts={},
        progress=0.0,
        step=0,
    )
    if wrong:
        ids = torch.ones(len(wrong), 2, dtype=torch.int64)
        places = torch.tensor([place for place, (_, lengths) in enumerate(rows) for _ in lengths])
        batch["choices"] = Choices(input_ids=ids, attention_mask=ids, labels=labels_of(wrong, draw), rows=places)
    return batch


def outputs_of(batch: Batch, seed: int = 0, dtype: torch.dtype = torch.float64) -> Outputs:
    """Random logits for a batch; leaves that take gradients."""
    draw = torch.Generator().manual_seed(seed + 1)

    def leaf(labels: Tensor) -> Tensor:
        values = 2.0 * torch.randn(*labels.shape, VOCABULARY, generator=draw, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    wrong = batch["choices"]["labels"] if "choices" in batch else batch["labels"][:0]
    return Outputs(logits=leaf(batch["labels"]), choices=leaf(wrong))


def write(folder: Path, name: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Write rows whose right answer is the source's first word, twice; wrong ones are words of no source. Return the
    source's section.
    """
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.choice(WORDS[:12]) for _ in range(draw.randint(2, 5))]
        others = draw.sample(WORDS[12:24], draw.randint(1, 3))
        wrong = [" ".join([word] * draw.randint(1, 3)) for word in others]
        target = f"{words[0]} {words[0]}"
        rows.append(
            {"text": " ".join(words), "target": target, "answers": draw.sample([target, *wrong], len(wrong) + 1)}
        )
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"path": str(path), "columns": {"choices": "answers"}}
