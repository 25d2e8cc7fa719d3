import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.buckets import Batching, cut_by_tokens, split, windows
from distill.data.windows import Plan

lengths_of = st.lists(st.integers(1, 60), min_size=8, max_size=200).map(np.array)
batchings = st.builds(
    Batching,
    batch_size=st.integers(4, 32),
    tokens=st.none() | st.integers(60, 400),
    bucket_window=st.integers(1, 8),
    parts=st.integers(1, 8),
)


@settings(max_examples=150, deadline=None)
@given(lengths_of, batchings, st.integers(0, 5), st.integers(0, 3))
def test_every_row_is_in_exactly_one_window_and_no_part_is_empty(lengths, batching, seed, epoch):
    drawn = windows(lengths, batching, seed, epoch)
    assert sorted(np.concatenate(drawn)) == list(range(len(lengths)))
    assert all(len(part) > 0 for window in drawn for part in split(window, batching.parts))


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
@given(lengths_of, st.integers(1, 6))
def test_the_split_changes_neither_windows_nor_counts(lengths, parts):
    labelled = lengths % 2 == 0
    whole, cut = (Plan(lengths, labelled, Batching(8, parts=n), 0, epochs=2.0, pad_to=64) for n in (1, parts))
    for step in range(whole.steps):
        assert sorted(whole.parts(step)[0]) == sorted(np.concatenate(cut.parts(step)))
        assert whole.counts(step) == cut.counts(step)


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
    plan = Plan(lengths, np.array([True, False, True, True]), Batching(4, parts=2), 0, epochs=1.0)
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
