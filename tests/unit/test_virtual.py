"""What stands before a row's tokens takes part in its answer, and changes nothing of where that is taken from."""

from typing import Any

import pytest
import torch
from onnxruntime import InferenceSession

from configs.data import Task
from distill.types import Batch, Needs
from pipelines import onnx
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


def test_the_graph_of_an_export_answers_at_the_last_token_too(tmp_path):
    torch.manual_seed(1)
    model = build(section("prompt tuning"), families.loaded("gpt2", task=CLASSIFIES), CLASSIFIES).eval()
    given = {name: full_batch("gpt2")[name] for name in ("input_ids", "attention_mask")}  # type: ignore[literal-required]
    onnx.write(model, given, tmp_path / "model.onnx")
    graph = InferenceSession(tmp_path / "model.onnx")
    for rows, tokens in ((3, 7), (2, 6)):
        part = {name: tensor[:rows, :tokens] for name, tensor in given.items()}
        (said,) = graph.run(None, {name: tensor.numpy() for name, tensor in part.items()})
        with evaluating(model):
            torch.testing.assert_close(torch.from_numpy(said), head_output(model, part))
