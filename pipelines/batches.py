"""From a training's section to the plan of its batches."""

from configs.data import Task
from configs.training import Training
from distill.data.buckets import Batching
from distill.data.table import TokenTable
from distill.data.windows import Plan


def plan_of(training: Training, task: Task, table: TokenTable, devices: int, seed: int) -> Plan:
    """Return which rows meet in which step of a training, and how a step is split over devices."""
    return Plan(
        lengths=table.lengths,
        labelled=table.labelled,
        batching=batching(training),
        seed=seed,
        epochs=training.epochs,
        max_steps=training.max_steps,
        pad_to=task.max_length if training.padding == "fixed" else None,
        targets=table.target_lengths,
        weights=table.weights,
        wrong=table.wrong_lengths,
        beside=table.start is not None,
        devices=devices,
        micro_batch=training.micro_batch_size,
    )


def batching(training: Training) -> Batching:
    """Return how a training groups its rows into windows."""
    return Batching(training.batch_size, training.tokens_per_batch, training.bucket_window)
