from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.buckets import Batching, cut_by_tokens, windows
from distill.data.module import PlannedBatches
from distill.data.table import TokenTable
from distill.data.windows import Plan

lengths_of = st.lists(st.integers(1, 60), min_size=8, max_size=200).map(np.array)
batchings = st.builds(
    Batching,
    batch_size=st.integers(4, 32),
    tokens=st.none() | st.integers(60, 400),
    bucket_window=st.integers(1, 8),
)
splits = st.tuples(st.integers(1, 40), st.none() | st.integers(1, 12))
"""Devices, and rows of a micro-batch: more than rows to share out, too."""


@settings(max_examples=150, deadline=None)
@given(lengths_of, batchings, st.integers(0, 5), st.integers(0, 3))
def test_every_row_is_in_exactly_one_window(lengths, batching, seed, epoch):
    drawn = windows(lengths, batching, seed, epoch)
    assert sorted(np.concatenate(drawn)) == list(range(len(lengths)))
    assert all(map(len, drawn))


@settings(max_examples=50, deadline=None)
@given(lengths_of, batchings)
def test_a_pure_function_of_seed_and_epoch(lengths, batching):
    first, again, other = (windows(lengths, batching, seed, 1) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len(lengths) < 30 or any(len(a) != len(b) or (a != b).any() for a, b in zip(first, other, strict=False))


@settings(max_examples=80, deadline=None)
@given(lengths_of, st.integers(60, 400))
def test_token_windows_keep_to_their_budget(lengths, tokens):
    for window in windows(lengths, Batching(8, tokens), 0, 0):
        assert len(window) * lengths[window].max() <= max(tokens, lengths[window].max())


@settings(max_examples=150, deadline=None)
@given(lengths_of, st.integers(1, 400))
def test_cuts_by_tokens_take_one_row_after_the_other(lengths, tokens):
    rows = np.argsort(lengths, kind="stable")
    expected: list[list[int]] = []
    for row in rows.tolist():
        if expected and (len(expected[-1]) + 1) * lengths[row] <= tokens:
            expected[-1].append(row)
        else:
            expected.append([row])
    assert [cut.tolist() for cut in cut_by_tokens(rows, lengths, tokens)] == expected


@settings(max_examples=50, deadline=None)
@given(lengths_of, batchings, splits)
def test_the_split_changes_neither_windows_nor_counts(lengths, batching, split):
    devices, micro = split
    whole = Plan(lengths, lengths % 2 == 0, batching, 0, epochs=2.0, pad_to=64)
    cut = replace(whole, devices=devices, micro_batch=micro)
    assert whole.steps == cut.steps
    for step in range(whole.steps):
        assert len(cut.parts(step)) == devices * cut.accumulate
        assert np.concatenate(cut.parts(step)).tolist() == whole.parts(step)[0].tolist()
        assert cut.counts(step) == whole.counts(step)


@settings(max_examples=50, deadline=None)
@given(lengths_of, st.integers(60, 400), splits)
def test_no_micro_batch_of_a_token_budget_has_more_rows_than_asked_for(lengths, tokens, split):
    devices, micro = split
    plan = Plan(lengths, lengths > 0, Batching(8, tokens), 0, epochs=2.0, devices=devices, micro_batch=micro)
    parts = [len(part) for step in range(plan.steps) for part in plan.parts(step)]
    assert max(parts) <= (plan.share if micro is None else micro)
    assert plan.accumulate == (1 if micro is None else -(-plan.share // micro))


@settings(max_examples=15, deadline=None)
@given(lengths_of, batchings, splits)
def test_each_device_has_a_row_in_each_micro_batch_and_each_row_counts_once(lengths, batching, split):
    devices, micro = split
    size = len(lengths)
    table = TokenTable.of([[1] * length for length in lengths.tolist()], np.zeros(size), np.arange(size))
    plan = Plan(lengths, lengths > 0, batching, 0, epochs=1.0, devices=devices, micro_batch=micro)
    counted: list[int] = []
    for batches in [PlannedBatches(table, plan, 0, rank=rank) for rank in range(devices)]:
        assert len(batches) == plan.steps * plan.accumulate
        for batch in (batches[number] for number in range(len(batches))):
            assert len(batch["input_ids"]) > 0
            if batch.get("spare"):
                assert batch["attention_mask"].sum() == lengths.min()
            else:
                counted += batch["example_ids"].tolist()
    assert sorted(counted) == list(range(size))


def test_a_batch_of_fewer_rows_than_devices_stays_one():
    """Windows were once joined until each device had a row: one step of an epoch in place of 250."""
    lengths = np.random.default_rng(0).integers(5, 60, 1000)
    for devices, micro, size in ((8, None, 4), (8, 1, 10), (2, 1, 5), (64, None, 16)):
        plan = Plan(lengths, lengths > 0, Batching(size), 0, epochs=3.0, devices=devices, micro_batch=micro)
        assert plan.steps == 3 * (1000 // size)
        assert {len(np.concatenate(plan.parts(step))) for step in range(plan.steps)} <= {size, size + 1}


@pytest.mark.parametrize("tokens", [None, 60])
def test_the_windows_of_an_epoch_are_not_made_again_for_each_step(tokens, monkeypatch):
    made = []
    monkeypatch.setattr("distill.data.windows.windows", lambda *parts: made.append(parts[-1]) or windows(*parts))
    lengths = np.arange(1, 40)
    plan = Plan(lengths, lengths > 0, Batching(4, tokens), 0, epochs=12.0)
    for step in range(plan.steps):
        plan.parts(step)
        plan.counts(step)
    assert len(made) <= 2 * 12
    assert plan.locate(plan.steps - 1) == (11, plan.steps_of(11) - 1)


def test_counts_are_those_of_the_rows():
    lengths = np.array([3, 5, 2, 7])
    plan = Plan(lengths, np.array([True, False, True, True]), Batching(4), 0, epochs=1.0, devices=2)
    counts = plan.counts(0)
    assert counts["examples"] == 4 and counts["labelled"] == 3
    assert counts["positions"] == 17 and counts["pairs"] == 9 + 25 + 4 + 49
    assert counts["padded_positions"] == 2 * 3 + 2 * 7 and counts["padded_pairs"] == 2 * 9 + 2 * 49


def test_no_window_is_smaller_than_the_batch_and_none_much_larger():
    for rows in (8, 9, 15, 94, 407, 1000):
        sizes = [len(window) for window in windows(np.full(rows, 5), Batching(8, bucket_window=10), 0, 0)]
        assert min(sizes) >= 8 and max(sizes) <= 8 + 7 and sum(sizes) == rows
        assert rows < 90 or max(sizes) <= 9


def test_buckets_waste_little_on_padding():
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(3.0, 0.6, 5000), 5, 128).astype(np.int64)

    def used(window: int) -> float:
        drawn = windows(lengths, Batching(32, bucket_window=window), 0, 0)
        return lengths.sum() / sum(len(rows) * lengths[rows].max() for rows in drawn)

    assert used(50) > 0.93 > 0.5 > used(1)


def test_steps_of_fractional_epochs():
    lengths = np.full(100, 4)
    plans = {epochs: Plan(lengths, lengths > 0, Batching(10), 0, epochs=epochs) for epochs in (0.5, 1.0, 2.3)}
    assert {epochs: plan.steps for epochs, plan in plans.items()} == {0.5: 5, 1.0: 10, 2.3: 23}
    assert plans[2.3].locate(22) == (2, 2)
