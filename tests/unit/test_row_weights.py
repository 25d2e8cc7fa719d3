"""Weights of rows: a weight of 2 is the row given twice, of 1 nothing at all, however a window is split."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from configs.data import Task
from configs.students import SizedStudent
from distill.architecture import make_config
from distill.data.buckets import Batching
from distill.data.collate import collate
from distill.data.pairs import TargetLimits, tokenise_targets
from distill.data.rows import Row, Rows
from distill.data.table import TokenTable
from distill.data.vocabulary import train_vocabulary
from distill.data.windows import Plan
from distill.losses import divergences
from distill.losses.logits import TokenLogits
from distill.losses.task import CrossEntropy
from distill.models import auto_class
from distill.protocols import LossTerm
from distill.types import IGNORED, Batch, Needs, Outputs
from students.student import Student
from tests.helpers import pairs

SIZES = SizedStudent(kind="sizes", layers=1, decoder_layers=1, hidden_size=16, intermediate_size=16, heads=2)
TERMS = {
    "task": CrossEntropy("weighted_targets"),
    "task smoothed": CrossEntropy("weighted_targets", 0.1),
    "logits": TokenLogits(divergences.kl, 2.0),
}


@pytest.fixture(scope="module")
def words():
    return train_vocabulary((text for pair in pairs.sentences(200) for text in pair), 330)


@pytest.fixture(scope="module")
def student(words) -> Student:
    ids = {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = make_config(SIZES, "marian", {**ids, "forced_eos_token_id": None}, "student")
    torch.manual_seed(0)
    return Student(auto_class(Task(kind="generation"), config).from_config(config).eval(), has_head=True)


def table_of(words, weights: Mapping[int, float], rows: list[int]) -> TokenTable:
    sentences = pairs.sentences(8)
    made = [Row(sentences[n][0], None, None, n, sentences[n][1], weights.get(n)) for n in rows]
    return tokenise_targets(Rows.of(made), words, TargetLimits(24, 24, 400, start=0))


def plan_of(table: TokenTable, parts: int = 1) -> Plan:
    sizes = {"targets": table.target_lengths, "weights": table.weights, "beside": True, "devices": parts}
    return Plan(table.lengths, table.labelled, Batching(len(table)), 0, 1.0, **sizes)


def step(student: Student, term: LossTerm, table: TokenTable, parts: int = 1) -> dict[str, Tensor]:
    """Return the gradients of one optimiser step: the window's loss, part by part."""
    plan = plan_of(table, parts)
    student.zero_grad()
    for rows in plan.parts(0):
        batch = Batch(**collate(table, rows, 0), window_counts=plan.counts(0), progress=0.0, step=0)
        own = student(batch, Needs(logits=True))
        taught = Outputs(logits=own.logits.detach().roll(1, -1))
        (term(own, taught, batch) / plan.counts(0)[term.unit]).backward()
    return {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    assert max(float(value.abs().max()) for value in one.values()) > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=atol, rtol=0)


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_a_weight_of_two_is_the_row_given_twice(student, words, term) -> None:
    weighted = table_of(words, {2: 2.0, 5: 3.0}, list(range(8)))
    repeated = table_of(words, {}, [*range(8), 2, 5, 5])
    assert repeated.weights is None
    assert_same(step(student, term, weighted), step(student, term, repeated), 1e-6)


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_weights_of_one_change_no_bit(student, words, term) -> None:
    ones, none = table_of(words, dict.fromkeys(range(8), 1.0), list(range(8))), table_of(words, {}, list(range(8)))
    assert ones.weights is not None and none.weights is None
    assert plan_of(ones).counts(0) == plan_of(none).counts(0)
    assert_same(step(student, term, ones), step(student, term, none), 0)


@pytest.mark.parametrize("parts", [2, 8], ids=["4×2", "1×8"])
@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_a_step_does_not_depend_on_the_split(student, words, term, parts) -> None:
    table = table_of(words, {n: 0.01 + 0.1 * n for n in range(8)}, list(range(8)))
    assert_same(step(student, term, table), step(student, term, table, parts), 1e-6)


def test_a_row_without_weight_counts_nothing_else_changes(student, words) -> None:
    with_zero = table_of(words, {3: 0.0}, list(range(8)))
    without = table_of(words, {}, [0, 1, 2, 4, 5, 6, 7])
    assert_same(step(student, TERMS["task"], with_zero), step(student, TERMS["task"], without), 1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 4, width=32), min_size=4, max_size=12), st.integers(1, 4))
def test_the_count_is_the_sum_of_weighted_targets_whatever_the_split(weights: list[float], parts: int) -> None:
    lengths = np.arange(1, len(weights) + 1)
    given_weights = np.array(weights, np.float32)
    sizes = {"targets": lengths, "weights": given_weights, "devices": parts}
    plan = Plan(lengths, lengths > 0, Batching(len(weights)), 0, 1.0, **sizes)
    expected = sum(float(np.float32(weight)) * length for weight, length in zip(weights, lengths, strict=True))
    assert plan.counts(0)["weighted_targets"] == pytest.approx(expected if expected else 1.0)
    assert plan.counts(0)["targets"] == lengths.sum()


def test_the_loss_is_the_weighted_sum_written_as_loops() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, generator=draw, dtype=torch.float64)
    labels, weights = torch.tensor([[1, 4, IGNORED], [2, IGNORED, 0]]), torch.tensor([0.25, 3.0])
    batch = Batch(labels=labels, weights=weights, window_counts={}, progress=0.0)  # type: ignore[typeddict-item]
    expected = 0.0
    for row in range(2):
        for place in range(3):
            if (label := int(labels[row, place])) != IGNORED:
                expected -= float(weights[row]) * float(logits[row, place].log_softmax(-1)[label])
    assert float(TERMS["task"](Outputs(logits=logits), Outputs(), batch)) == pytest.approx(expected)


def test_weights_survive_disk_and_company(words, tmp_path) -> None:
    weighted, plain = table_of(words, {1: 0.5}, [0, 1]), table_of(words, {}, [2])
    weighted.save(tmp_path / "table")
    again = TokenTable.load(tmp_path / "table")
    assert again is not None and again.weights is not None and again.weights.tolist() == [1.0, 0.5]
    assert again.fingerprint == weighted.fingerprint != table_of(words, {1: 0.25}, [0, 1]).fingerprint
    joined = TokenTable.concatenate([weighted, plain])
    assert joined.weights is not None and joined.weights.tolist() == [1.0, 0.5, 1.0]


def test_rows_cached_under_other_weights_are_not_taken(words, tmp_path) -> None:
    rows = [Rows.of([Row("ba be", None, None, 0, "ben ban", weight)]) for weight in (None, 0.5, 0.25)]
    found = [tokenise_targets(one, words, TargetLimits(24, 24, 400, start=0), tmp_path).weights for one in rows]
    assert found[0] is None
    assert [float(one[0]) for one in found[1:]] == [0.5, 0.25]
