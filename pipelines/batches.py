"""From a training's section to the plan of its batches."""

import math

from configs.data import Task
from configs.training import Training
from distill.data.buckets import Batching
from distill.data.table import TokenTable
from distill.data.windows import Plan


def plan_of(training: Training, task: Task, table: TokenTable, world: int, seed: int) -> Plan:
    """Return which rows meet in which step of a training on `world` devices."""
    return Plan(
        lengths=table.lengths,
        labelled=table.labelled,
        batching=batching(training, world),
        seed=seed,
        epochs=training.epochs,
        max_steps=training.max_steps,
        pad_to=task.max_length if training.padding == "fixed" else None,
        targets=table.target_lengths,
        weights=table.weights,
        wrong=table.wrong_lengths,
        beside=table.start is not None,
    )


def batching(training: Training, world: int) -> Batching:
    """Translate the sizes of a training into windows and their parts."""
    micro = training.micro_batch_size or math.ceil(training.batch_size / world)
    accumulate = math.ceil(training.batch_size / (micro * world)) if training.tokens_per_batch is None else 1
    return Batching(training.batch_size, training.tokens_per_batch, training.bucket_window, world * accumulate)
