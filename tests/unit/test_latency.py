"""Scoring rows and timing models."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from configs.data import Task
from distill.data.table import TokenTable
from distill.errors import ModelError
from distill.models import ModelSource, load
from pipelines import latency
from pipelines.score import EncodedRows, Indices, Inputs, permute, predict, predict_rows
from tests.helpers import tiny


@pytest.fixture
def rows() -> EncodedRows:
    draw = np.random.default_rng(0)
    tokens = [[2, *draw.integers(5, 90, draw.integers(1, 12)).tolist(), 3] for _ in range(37)]
    return EncodedRows.of(TokenTable.of(tokens, draw.integers(0, 2, 37), np.arange(37)), pad_id=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    folder = tiny.model_folder(tmp_path_factory.mktemp("model"), num_hidden_layers=2)
    return load(ModelSource(str(folder)), Task(), tiny.LABELS, "model").model


def test_rows_come_back_in_their_order_whatever_the_batches(model: PreTrainedModel, rows: EncodedRows) -> None:
    one_by_one = torch.cat([predict(model, rows.batches(np.array([row]))) for row in range(len(rows))])
    torch.testing.assert_close(predict_rows(model, rows), one_by_one, atol=1e-6, rtol=0)


def test_dropout_is_off_while_predicting_and_the_mode_is_put_back(model: PreTrainedModel, rows: EncodedRows) -> None:
    expected = predict_rows(model, rows)
    model.train(True)
    assert torch.equal(predict_rows(model, rows), expected)
    assert model.training
    model.train(False)


def test_progress_counts_every_row(model: PreTrainedModel, rows: EncodedRows) -> None:
    seen: list[int] = []
    predict(model, rows.batches(rows.spread(len(rows)), 10), seen.append)
    assert seen == [10, 10, 10, 7]


def test_a_logit_that_is_no_number_is_an_error(tmp_path: Path, rows: EncodedRows) -> None:
    model = load(ModelSource(str(tiny.model_folder(tmp_path))), Task(), tiny.LABELS, "model").model
    with torch.no_grad():
        next(iter(model.parameters()))[5:].fill_(torch.nan)
    with pytest.raises(ModelError, match="37 of 37 rows get logits that are not finite"):
        predict_rows(model, rows)


def test_spread_takes_the_shortest_and_the_longest(rows: EncodedRows) -> None:
    picked = rows.lengths[rows.spread(5)]
    assert picked[0] == rows.lengths.min()
    assert picked[-1] == rows.lengths.max()
    assert sorted(rows.spread(1000)) == list(range(37))


def test_permute_puts_labels_in_the_order_of_the_run() -> None:
    assert permute(torch.tensor([[1.0, 2.0, 3.0]]), [2, 0, 1]).tolist() == [[3.0, 1.0, 2.0]]


def test_models_take_turns_on_the_same_batches(rows: EncodedRows) -> None:
    calls: list[tuple[str, int]] = []

    def runner(name: str) -> latency.Runner:
        return lambda batch: calls.append((name, id(batch)))

    latency.measure({"a": runner("a"), "b": runner("b")}, rows, sizes=(1,), seconds=0.01)
    assert [name for name, _ in calls] == ["a", "b"] * (len(calls) // 2)
    assert all(first[1] == second[1] for first, second in zip(calls[::2], calls[1::2], strict=True))


def test_latency_is_that_of_the_call_in_milliseconds(rows: EncodedRows) -> None:
    def runner(seconds: float) -> latency.Runner:
        return lambda batch: time.sleep(seconds)

    found = latency.measure({"slow": runner(0.02), "fast": runner(0.002)}, rows, sizes=(1, 32), seconds=0.1)
    assert found["slow"].keys() == {"1", "32"}
    for size in ("1", "32"):
        assert 20 <= found["slow"][size]["p50_ms"] <= found["slow"][size]["p95_ms"] < 200
        assert 2 <= found["fast"][size]["p50_ms"] < found["slow"][size]["p50_ms"]


def test_batches_are_of_the_size_asked_for_even_of_few_rows(rows: EncodedRows) -> None:
    few = EncodedRows(rows.collate, rows.lengths[:3], rows.labels[:3])
    sizes: set[int] = set()

    def runner(batch: Inputs) -> None:
        sizes.add(len(batch["input_ids"]))

    latency.measure({"a": runner}, few, sizes=(1, 32), seconds=0.01)
    assert sizes == {1, 32}


def test_summary_is_the_median_and_the_95th_percentile() -> None:
    found = latency.summary([number / 1000 for number in range(101)])
    assert (found.p50_ms, found.p95_ms) == (50.0, 95.0)


def test_the_setting_states_threads_and_lengths(rows: EncodedRows) -> None:
    stated = latency.setting(rows, "cpu")
    assert stated["threads"] == torch.get_num_threads()
    assert stated["mean_tokens"] == pytest.approx(float(np.mean(rows.lengths)))


def test_collate_sees_the_rows_asked_for(rows: EncodedRows) -> None:
    asked: list[Indices] = []

    def collate(picked: Indices) -> Inputs:
        asked.append(picked)
        return rows.collate(picked)

    batches = list(EncodedRows(collate, rows.lengths, rows.labels).batches(np.array([4, 2, 9]), 2))
    assert [picked.tolist() for picked in asked] == [[4, 2], [9]]
    assert batches[0]["input_ids"].shape[0] == 2
