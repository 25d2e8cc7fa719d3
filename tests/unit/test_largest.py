"""The micro-batches that decide about memory."""

import numpy as np
import pytest

from distill.data.buckets import Batching
from distill.data.largest import largest, shapes
from distill.data.windows import Plan
from distill.few_shapes import rounded


@pytest.fixture
def plan() -> Plan:
    lengths = np.random.default_rng(0).integers(3, 40, size=500)
    return Plan(lengths, np.ones(500, dtype=bool), Batching(16), 0, max_steps=1000, devices=2)


def test_the_largest_is_that_with_most_padded_positions(plan):
    parts = [part for step in range(plan.steps_of(0)) for part in plan.parts(step)]
    padded = [len(part) * plan.lengths[part].max() for part in parts]
    found = largest(plan)
    assert len(found) * plan.lengths[found].max() == max(padded)


def test_shapes_are_counted_once(plan):
    parts = [part for step in range(plan.steps) for part in plan.parts(step)]
    expected = {(len(part), int(plan.lengths[part].max())) for part in parts}
    found = shapes(plan)
    assert 10 < found.batches == len(expected) < len(parts)
    assert 1 < found.positions == len({rounded(rows * longest) for rows, longest in expected}) < found.batches


def test_shapes_of_later_epochs_count_too():
    lengths = np.random.default_rng(0).lognormal(2.5, 0.6, size=400).astype(np.int64) + 3
    batching = Batching(16, bucket_window=4)  # rows meet others in each epoch
    once, often = (Plan(lengths, lengths > 0, batching, 0, epochs=epochs) for epochs in (1.0, 8.0))
    assert shapes(once).batches < shapes(often).batches
