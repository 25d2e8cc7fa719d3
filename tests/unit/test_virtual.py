"""What stands before a row's tokens takes part in its answer, and changes nothing of where that is taken from."""

from typing import Any

import pytest
import torch

from configs.data import Task
from distill.types import Batch, Needs
from pipelines.score import evaluating, head_output
from students.adapters.build import build
from students.student import Student
from tests.helpers import families
from tests.helpers.adapted import full_batch, section

CLASSIFIES = Task(kind="classification", labels=("no", "yes"))


def _row(batch: Batch, row: int) -> dict[str, Any]:
    """One row without its padding."""
    tokens = int(batch["attention_mask"][row].sum())
    return {name: batch[name][row : row + 1, :tokens] for name in ("input_ids", "attention_mask")}  # type: ignore[literal-required]


@pytest.mark.parametrize("kind", families.CAUSAL)
@pytest.mark.parametrize("method", ["prompt tuning", "P-tuning"])
def test_padding_changes_no_answer_of_a_decoder_that_classifies(kind, method):
    loaded = families.loaded(kind, task=CLASSIFIES)
    torch.manual_seed(1)
    model = build(section(method), loaded, CLASSIFIES)
    student = Student(model, has_head=True).eval()
    batch, needs = full_batch(kind), Needs(logits=True)
    alone = [student(full_batch(kind) | _row(batch, row), needs).logits for row in range(3)]
    assert (batch["attention_mask"] == 0).any()
    torch.testing.assert_close(student(batch, needs).logits, torch.cat(alone))
    with evaluating(student.model):
        torch.testing.assert_close(head_output(student.model, batch), torch.cat(alone))
