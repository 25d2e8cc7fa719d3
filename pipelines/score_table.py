"""Score a model of a run on rows that are in memory already."""

from typing import cast

import torch
from transformers import PreTrainedModel

from distill.data.table import TokenTable
from distill.metrics import Kind, score
from pipelines.run import Run, Side
from pipelines.score import EncodedRows, permute, predict, target_scores


def score_table(
    run: Run,
    model: PreTrainedModel,
    table: TokenTable,
    order: list[int] | None = None,
    *,
    at_most: int | None = None,
    side: Side = "student",
) -> dict[str, float]:
    """Score a model of a side on the rows of a table, or on some of them spread over all lengths."""
    task = run.config.task
    rows = EncodedRows.of(table, run.words(side).tokenizer.pad_token_id, ranked=task.ranks)
    picked = rows.spread(at_most or len(rows))
    found = target_scores(model, rows.batches(picked)) if task.kind == "generation" else {}
    if task.kind == "generation" and not task.ranks:
        return found
    logits = permute(predict(model, rows.batches(picked)), order)
    labels = rows.labels[torch.from_numpy(picked)]
    return found | score(cast(Kind, task.kind), logits, labels, run.labels)
