"""Terms over words and hidden tokens: plain loops, and a window that gives the same loss however it is split."""

import math

import numpy as np
import pytest
import torch

from configs.data import Task
from configs.objective import LogitsTerm, TaskTerm
from distill.data.buckets import Batching
from distill.data.masking import Masking
from distill.data.module import PlannedBatches
from distill.data.table import TokenTable
from distill.data.windows import Plan
from distill.terms import Sides, make
from distill.types import IGNORED, Outputs, Shape
from tests.helpers import tiny

SIZE = 105
SHAPE = Shape(layers=2, hidden_size=8, heads=2, head_size=4, outputs=SIZE)
KINDS = ("tagging", "masked_lm")


def _table(kind: str, rows: int = 24) -> TokenTable:
    draw = np.random.default_rng(0)
    tokens = [[2, *draw.integers(5, 100, draw.integers(1, 20)).tolist(), 3] for _ in range(rows)]
    table = TokenTable.of(tokens, np.full(rows, IGNORED), np.arange(rows))
    tags = draw.integers(0, SIZE, len(table.tokens))
    tags[np.isin(table.tokens, (2, 3)) | (draw.random(len(tags)) < 0.3)] = IGNORED
    own = {"tags": tags} if kind == "tagging" else {"masking": Masking.of(tiny.tokenizer(), "teacher.model")}
    return TokenTable(table.tokens, table.offsets, table.labels, table.example_ids, **own)


def _terms(kind: str) -> list:
    sides = Sides(SHAPE, SHAPE, Task(kind=kind).kind)
    sections = (TaskTerm(kind="task"), LogitsTerm(kind="logits", temperature=2.0))
    return [make(section, sides, "stage") for section in sections]


def _said(ids: torch.Tensor, seed: int) -> torch.Tensor:
    """Logits that follow from the token alone, as any model's whose padding is inert."""
    return torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)[ids]


def _losses(kind: str, parts: int) -> list[float]:
    table = _table(kind)
    sizes = {"targets": table.target_lengths, "micro_batch": 12 // parts}
    plan = Plan(table.lengths, table.labelled, Batching(12), 0, max_steps=2, **sizes)
    batches = PlannedBatches(table, plan, 0, rank=0)
    found = [0.0, 0.0]
    for number in range(parts):
        batch = batches[number]
        own, taught = (Outputs(logits=_said(batch["input_ids"], seed)) for seed in (1, 2))
        for place, term in enumerate(_terms(kind)):
            found[place] += float(term(own, taught, batch)) / batch["window_counts"][term.unit]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_a_window_gives_the_same_loss_however_it_is_split(kind, parts):
    assert _losses(kind, parts) == pytest.approx(_losses(kind, 1), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_mean_over_words_or_hidden_tokens(kind):
    table = _table(kind)
    plan = Plan(table.lengths, table.labelled, Batching(12), 0, max_steps=2, targets=table.target_lengths)
    batch = PlannedBatches(table, plan, 0, rank=0)[0]
    own, taught = (_said(batch["input_ids"], seed).tolist() for seed in (1, 2))
    task = divergence = count = 0.0
    for row, labels in enumerate(batch["labels"].tolist()):
        for place, label in enumerate(labels):
            if label == IGNORED:
                continue
            count += 1
            task += math.log(sum(map(math.exp, own[row][place]))) - own[row][place][label]
            softened = [[math.exp(x / 2) for x in side[row][place]] for side in (taught, own)]
            p, q = ([x / sum(side) for x in side] for side in softened)
            divergence += 4 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert _losses(kind, 1) == pytest.approx([task / count, divergence / count], rel=1e-9)
