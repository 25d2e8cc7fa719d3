"""Laws of the losses about wrong answers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.losses.choices import LengthNormalised, Unlikelihood
from distill.types import IGNORED, Batch, Choices, Outputs
from tests.helpers.choices import VOCABULARY, batch_of, outputs_of

TERMS = {"unlikelihood": Unlikelihood(), "length_normalised": LengthNormalised()}
TOKENS = st.integers(1, 4)
ROWS = st.lists(st.tuples(TOKENS, st.lists(TOKENS, max_size=3)), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**20)
fast = settings(max_examples=25, deadline=None, derandomize=True)


def value(name: str, student: Outputs, batch: Batch) -> Tensor:
    return TERMS[name](student, Outputs(), batch)


def part(student: Outputs, batch: Batch, row: int) -> tuple[Outputs, Batch]:
    """One row with its answers."""
    alone = batch.copy()
    alone["labels"] = batch["labels"][row : row + 1]
    choices = alone.pop("choices", None)
    if choices is None or not (choices["rows"] == row).any():
        return Outputs(logits=student.logits[row : row + 1], choices=student.choices[:0]), alone
    mine = choices["rows"] == row
    alone["choices"] = Choices(
        input_ids=choices["input_ids"][mine],
        attention_mask=choices["attention_mask"][mine],
        labels=choices["labels"][mine],
        rows=torch.zeros(int(mine.sum()), dtype=torch.int64),
    )
    return Outputs(logits=student.logits[row : row + 1], choices=student.choices[mine]), alone


@pytest.mark.parametrize("name", TERMS)
@fast
@given(ROWS, SEEDS)
def test_the_sum_of_a_batch_is_that_of_its_rows(name, rows, seed):
    batch = batch_of(rows, seed)
    student = outputs_of(batch, seed)
    whole = value(name, student, batch)
    single = sum(value(name, *part(student, batch, row)) for row in range(len(rows)))
    torch.testing.assert_close(whole, single)
    assert float(whole.detach()) >= 0


@pytest.mark.parametrize("name", TERMS)
@fast
@given(ROWS, SEEDS, st.integers(1, 3))
def test_padding_changes_nothing(name, rows, seed, extra):
    batch = batch_of(rows, seed)
    student = outputs_of(batch, seed)
    wider, states = batch.copy(), [student.logits.detach(), student.choices.detach()]
    wider["labels"] = torch.nn.functional.pad(batch["labels"], (0, extra), value=IGNORED)
    if "choices" in batch:
        labels = torch.nn.functional.pad(batch["choices"]["labels"], (0, extra), value=IGNORED)
        wider["choices"] = Choices(**{**batch["choices"], "labels": labels})
    padded = [torch.nn.functional.pad(state, (0, 0, 0, extra), value=1e4).requires_grad_() for state in states]
    one, other = value(name, student, batch), value(name, Outputs(logits=padded[0], choices=padded[1]), wider)
    torch.testing.assert_close(one, other)
    if "choices" in batch:
        before, after = torch.autograd.grad(one, student.choices)[0], torch.autograd.grad(other, padded[1])[0]
        torch.testing.assert_close(after[:, :-extra], before)
        assert after[:, -extra:].abs().max() == 0


@fast
@given(ROWS, SEEDS)
def test_the_order_of_wrong_answers_does_not_matter(rows, seed):
    batch = batch_of([(right, (*wrong, 1, 2)) for right, wrong in rows], seed)
    student, choices = outputs_of(batch, seed), batch["choices"]
    draw = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(choices["rows"]), generator=draw)
    order = shuffled[choices["rows"][shuffled].argsort(stable=True)]
    other = batch.copy()
    other["choices"] = Choices(**{**choices, "labels": choices["labels"][order]})
    moved = Outputs(logits=student.logits, choices=student.choices[order])
    for name in TERMS:
        torch.testing.assert_close(value(name, student, batch), value(name, moved, other))


@fast
@given(st.lists(st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=3)), min_size=1, max_size=4), SEEDS)
def test_equal_answers_of_any_length_cost_the_log_of_their_number(rows, seed):
    batch = batch_of(rows, seed)
    even = Outputs(
        logits=torch.zeros(*batch["labels"].shape, VOCABULARY),
        choices=torch.zeros(*batch["choices"]["labels"].shape, VOCABULARY),
    )
    expected = sum(math.log(1 + len(wrong)) for _, wrong in rows)
    assert float(value("length_normalised", even, batch)) == pytest.approx(expected, rel=1e-5)
    tokens = sum(sum(wrong) for _, wrong in rows)
    assert float(value("unlikelihood", even, batch)) == pytest.approx(-tokens * math.log(1 - 1 / VOCABULARY), rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
@fast
@given(st.lists(st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=3)), min_size=1, max_size=4), SEEDS)
def test_wrong_answers_that_become_unlikely_cost_less_and_in_the_end_nothing(name, rows, seed):
    batch = batch_of(rows, seed)
    student, labels = outputs_of(batch, seed), batch["choices"]["labels"]
    wrong = torch.nn.functional.one_hot(labels.clamp(min=0), VOCABULARY).double()
    found = [
        float(value(name, Outputs(logits=student.logits, choices=student.choices - down * wrong), batch).detach())
        for down in (0.0, 1.0, 10.0, 200.0)
    ]
    assert found == sorted(found, reverse=True) and found[0] > found[1]
    assert found[-1] == pytest.approx(0.0, abs=1e-12)
