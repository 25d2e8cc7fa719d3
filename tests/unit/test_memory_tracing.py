"""A step over tensors without data books what the step itself makes."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from configs.objective import LogitsTerm, TaskTerm
from distill.objective import build as build_objective
from distill.strategies.tracing import Ledger, Moment, Tracer
from distill.types import Batch, Needs
from students.student import Student
from teachers.live import LiveTeacher
from tests.helpers import families


def _peak(moments: list[Moment]) -> tuple[int, int, int]:
    top = max(moments, key=lambda moment: moment.passing + moment.gradients)
    return top.activations, top.logits, top.gradients


def _step(kind: str):
    """Return the loss of a step with a teacher, and the modules in it."""
    task = families.task_of(kind)
    student, teacher = Student(families.loaded(kind).model, has_head=True), families.loaded(kind, seed=1)
    live = LiveTeacher(teacher, task, "")
    terms = [LogitsTerm(kind="logits"), TaskTerm(kind="task")]
    objective = build_objective(terms, student=student.shape, teacher=live, task=task)
    inputs = families.batch(kind)
    if kind in families.ENCODERS:
        inputs["labels"] = torch.tensor([0, 1, 0])
    batch = Batch(**inputs, window_counts={}, progress=0.0, step=0)

    def loss() -> torch.Tensor:
        given = live(batch, objective.teacher_needs)
        own = student(batch, objective.student_needs)
        return torch.stack([*objective(own, given, batch).values()]).sum()

    return loss, [student, teacher.model], student


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_what_is_booked_without_data_is_what_is_made_with_data(kind):
    loss, modules, student = _step(kind)
    real = Ledger(student.shape.outputs)
    Tracer(nullcontext(), torch.device("cpu"), None).step(loss, modules, real, again=False)
    tracer, traced = Tracer.on("cpu", None), Ledger(student.shape.outputs)
    for module in modules:
        tracer.take(module)
    tracer.step(loss, modules, traced, again=False)
    # but for masks that a model makes of tensors without data, and leaves out where it sees that nothing is masked
    assert _peak(traced.moments) == pytest.approx(_peak(real.moments), rel=0.02)
    assert traced.moments[-1].gradients > 0


def test_gradients_are_those_of_what_learns():
    student = Student(families.loaded("bert").model, has_head=True)
    for name, weight in student.named_parameters():
        weight.requires_grad_("classifier" in name)
    tracer, ledger = Tracer.on("cpu", None), Ledger(2)
    tracer.take(student)
    batch = families.batch("bert")
    tracer.step(lambda: student(batch, Needs(logits=True)).logits.sum(), [student], ledger, again=False)
    learning = sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
    assert ledger.moments[-1].gradients == learning * 4


def _products(layers: int, autocast: torch.dtype | None) -> int:
    """Count the products of a forward and a backward pass of a BERT."""
    config = AutoConfig.for_model(
        "bert", vocab_size=60, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=80
    )
    student = Student(AutoModelForSequenceClassification.from_config(config), has_head=True)
    tracer, ledger = Tracer.on("cpu", autocast), Ledger(2)
    tracer.take(student)
    batch = {"input_ids": torch.ones(3, 11, dtype=torch.long), "attention_mask": torch.ones(3, 11, dtype=torch.long)}
    tracer.step(lambda: student(batch, Needs(logits=True)).logits.sum(), [student], ledger, again=False)  # type: ignore[arg-type, union-attr]
    return len({product[1:] for product in ledger.products})


def test_products_in_bf16_are_counted_once_for_each_shape():
    """Of a linear layer one forward and two backward: q, k, v and out are of one shape; so are all layers."""
    linear = 3 * len({"q, k, v, out", "up", "down", "pooler", "head"})
    scores, average = 3, 3
    assert _products(1, None) == _products(4, None) == 0
    counts = {_products(layers, torch.bfloat16) for layers in (1, 4)}
    assert len(counts) == 1 and linear <= counts.pop() <= linear + scores + average


def test_products_of_a_frozen_model_have_kernels_of_their_own():
    """It holds its weights ready; products without weights, as in attention, share a kernel with the student's."""
    config = AutoConfig.for_model(
        "bert", vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=80
    )
    student, teacher = (Student(AutoModelForSequenceClassification.from_config(config), has_head=True) for _ in "12")
    teacher.requires_grad_(False)
    tracer, ledger = Tracer.on("cpu", torch.bfloat16), Ledger(2)
    for model in (student, teacher):
        tracer.take(model)
    ids = torch.ones(3, 11, dtype=torch.long)
    batch: Any = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def step():
        with torch.no_grad():
            teacher(batch, Needs(logits=True))
        return student(batch, Needs(logits=True)).logits.sum()

    tracer.step(step, [student, teacher], ledger, again=False)
    alike = {product[1:] for product in ledger.products}
    held = {shapes for held, _, shapes in alike if held}
    assert held == {shapes for held, name, shapes in alike if name == "addmm" and not held}
    assert not any(held for held, name, _ in alike if name != "addmm")
