"""What is hidden of a row: how much, what stands in its place, and that it is the same for all who look."""

from collections import Counter

import numpy as np
import pytest

from distill.data.buckets import Batching
from distill.data.collate import collate
from distill.data.masking import Masking
from distill.data.module import PlannedBatches, ValidationBatches
from distill.data.table import TokenTable
from distill.data.windows import Plan
from distill.errors import ModelError
from distill.types import IGNORED
from tests.helpers import tiny


def _table(rows: int = 40, seed: int = 0) -> TokenTable:
    draw = np.random.default_rng(seed)
    tokens = [[2, *draw.integers(5, 100, draw.integers(1, 60)).tolist(), 3] for _ in range(rows)]
    table = TokenTable.of(tokens, np.full(rows, IGNORED), np.arange(rows) * 7919)
    return TokenTable(table.tokens, table.offsets, table.labels, table.example_ids, masking=_masking())


def _masking() -> Masking:
    return Masking.of(tiny.tokenizer(), "teacher.model")


def _plan(table: TokenTable, devices: int = 1, micro: int | None = None) -> Plan:
    sizes = {"targets": table.target_lengths, "devices": devices, "micro_batch": micro}
    return Plan(table.lengths, table.labelled, Batching(8), 3, max_steps=12, **sizes)


def _seen(table: TokenTable, plan: Plan, step: int) -> dict[int, tuple[list[int], list[int]]]:
    """Inputs and labels of every row of a step, over all micro-batches of all ranks, padding left out."""
    found = {}
    for rank in range(plan.devices):
        batches = PlannedBatches(table, plan, 0, rank=rank)
        for turn in range(plan.accumulate):
            batch = batches[step * plan.accumulate + turn]
            for key, ids, labels, mask in zip(
                batch["example_ids"], batch["input_ids"], batch["labels"], batch["attention_mask"].bool(), strict=True
            ):
                found[int(key)] = (ids[mask].tolist(), labels[mask].tolist())
    return found


@pytest.mark.parametrize(("devices", "micro"), [(1, 4), (1, 2), (2, None), (4, 1)])
def test_every_split_of_a_step_hides_the_same(devices, micro):
    table = _table()
    whole = _seen(table, _plan(table), step=5)
    assert _seen(table, _plan(table, devices, micro), step=5) == whole and len(whole) == 8


def test_steps_and_seeds_hide_other_tokens():
    table, rows = _table(), np.arange(40)
    draws = [collate(table, rows, 0, draw=draw)["labels"] for draw in ((3, 5), (3, 5), (3, 6), (4, 5))]
    assert draws[0].equal(draws[1])
    assert not any(draws[0].equal(other) for other in draws[2:])


def test_rows_that_are_scored_hide_the_same_each_time():
    table = _table()
    first, again = (ValidationBatches(table, 0)[0] for _ in range(2))
    assert first["input_ids"].equal(again["input_ids"]) and first["labels"].equal(again["labels"])
    alone = collate(table, np.array([0]), 0)
    together = collate(table, np.arange(40), 0)
    width = int(table.lengths[0])
    assert alone["labels"][0].tolist() == together["labels"][0, :width].tolist()


def test_the_count_of_a_window_is_that_of_its_hidden_tokens():
    table = _table()
    batches = PlannedBatches(table, _plan(table), 0, rank=0)
    for step in range(12):
        batch = batches[step]
        assert batch["window_counts"]["targets"] == int((batch["labels"] != IGNORED).sum())


def test_as_many_are_hidden_as_in_bert():
    """`create_pretraining_data.py`: max(1, round(0.15 · tokens)) of each row."""
    table = _table()
    assert table.target_lengths.tolist() == [max(1, round(0.15 * (length - 2))) for length in table.lengths.tolist()]


def test_special_tokens_and_padding_are_never_hidden():
    batch = collate(_table(), np.arange(40), 0, draw=(1, 1))
    hidden = batch["labels"] != IGNORED
    assert batch["labels"][hidden].min() >= 5
    assert not (hidden & (batch["attention_mask"] == 0)).any()


def test_a_row_of_special_tokens_alone_hides_none():
    table = TokenTable.of([[2, 3], [2, 9, 3]], np.full(2, IGNORED), np.arange(2))
    table = TokenTable(table.tokens, table.offsets, table.labels, table.example_ids, masking=_masking())
    assert table.target_lengths.tolist() == [0, 1]
    assert (collate(table, np.arange(2), 0)["labels"] != IGNORED).sum(1).tolist() == [0, 1]


def test_eight_in_ten_are_masked_one_is_replaced_and_one_stays():
    table = _table(2000)
    fate, places = Counter[str](), Counter[float]()
    for step in range(3):
        batch = collate(table, np.arange(2000), 0, draw=(0, step))
        hidden = batch["labels"] != IGNORED
        for shown, there in zip(batch["input_ids"][hidden].tolist(), batch["labels"][hidden].tolist(), strict=True):
            fate["mask" if shown == 4 else "same" if shown == there else "other"] += 1
            assert shown >= 4
        for place, length in zip(hidden.nonzero()[:, 1].tolist(), table.lengths[hidden.nonzero()[:, 0]], strict=True):
            places[(place - 1) / (length - 2) < 0.5] += 1
    total = sum(fate.values())
    shares = {name: fate[name] / total for name in ("mask", "other", "same")}
    assert shares == pytest.approx({"mask": 0.8, "other": 0.1, "same": 0.1}, abs=0.01)
    assert places[True] / total == pytest.approx(0.5, abs=0.02)


def test_a_tokenizer_without_a_mask_token_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match="has no mask token"):
        Masking.of(tokenizer, "teacher.model")
