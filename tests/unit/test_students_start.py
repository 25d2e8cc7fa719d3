"""A stage that starts from another's student goes on with the adapter as it was, and trains it as its section says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.models import ModelSource, load
from distill.module import DistillModule
from pipelines.stage import MARKER
from pipelines.train import MODEL
from students.student import Student
from tests.helpers import tiny
from tests.helpers.adapted import logits
from tests.helpers.training import stage

IDS = torch.arange(5, 15).reshape(2, 5)
BATCH: Any = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def run_file(folder: Path, adapter: dict[str, object], term: str = "logits") -> Path:
    train = {"kind": "train", "data": ["train"], "objective": [{"kind": term}], "training": {"max_steps": 4}}
    stages = {"first": train, "second": {**train, "start": "first"}}
    return tiny.run_file(folder, stages, student={"kind": "teacher", "adapter": adapter})


def trained(run: Path) -> DistillModule:
    """The first stage's student, with other weights than it began with, saved where the second looks for it."""
    module, _ = stage(str(run), "first").assemble()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.student.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return module


def gone_on(run: Path, first: DistillModule) -> DistillModule:
    task = stage(str(run), "first")._run
    folder = task.stage_folder("first", 0)
    first.student.save(folder / MODEL, task.words("student").tokenizer)
    (folder / MARKER).write_text('{"fingerprint": "of the first"}', encoding="utf-8")
    return stage(str(run), "second").assemble()[0]


def loaded_again(run: Path, module: DistillModule) -> Student:
    task = stage(str(run), "second")._run
    module.student.save(task.folder / "saved", task.words("student").tokenizer)
    return Student(
        load(ModelSource(str(task.folder / "saved")), task.config.task, tiny.LABELS, "").model, has_head=True
    )


def values(student: Student) -> dict[str, Tensor]:
    return {name: value for name, value in student.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(
    "adapter",
    [{"kind": "p_tuning", "tokens": 3, "width": 8}, {"kind": "prefix", "tokens": 3, "width": 8}, {"kind": "lora"}],
    ids=lambda adapter: str(adapter["kind"]),
)
def test_the_second_stage_begins_with_what_the_first_ended_with(tmp_path, adapter):
    run = run_file(tmp_path, adapter)
    first = trained(run)
    second = gone_on(run, first)
    said = logits(first.student, BATCH)
    torch.testing.assert_close(logits(second.student, BATCH), said, atol=1e-6, rtol=0)
    assert any(kind in name for name in values(second.student) for kind in ("prompt_encoder", "modular", "lora"))
    torch.testing.assert_close(logits(loaded_again(run, second), BATCH), said, atol=1e-6, rtol=0)


def test_b_goes_on_learning_faster_than_a(tmp_path):
    run = run_file(tmp_path, {"kind": "lora", "b_rate": 16})
    first = trained(run)
    rates = [
        {group["lr"] for group in module.student.parameter_groups(1e-4, 0.0) if group["params"]}
        for module in (first, gone_on(run, first))
    ]
    assert rates[0] == rates[1] == {1e-4, 16e-4}


def test_ranks_stay_as_they_were_shared_out_and_their_factors_are_kept_orthogonal(tmp_path):
    run = run_file(tmp_path, {"kind": "adalora", "rank": 1, "initial_rank": 3})
    first = trained(run)
    (schedule,) = first.student.callbacks()
    schedule.begin(3)
    for step in range(1, 4):
        first.student(BATCH, first.objective.student_needs).logits.square().sum().backward()
        schedule.share_out(step)
    second = gone_on(run, first)
    sizes = [len(value) for name, value in values(second.student).items() if "lora_E" in name]
    assert sum(sizes) == len(sizes) and len(set(sizes)) > 1
    before = {name: value.detach().clone() for name, value in values(second.student).items()}
    (schedule,) = second.student.callbacks()
    schedule.begin(3)
    for step in range(1, 4):
        said = second.student(BATCH, second.objective.student_needs).logits
        (said.square().sum() + second.student.penalty()).backward()
        schedule.share_out(step)
    assert all(torch.equal(value, before[name]) for name, value in values(second.student).items())
    assert second.student.penalty() > 0
    said = logits(second.student, BATCH)
    torch.testing.assert_close(logits(loaded_again(run, second), BATCH), said, atol=1e-6, rtol=0)


@pytest.mark.parametrize("head", [True, False])
def test_the_frozen_model_still_teaches_if_it_has_an_output_to_teach(tmp_path, head):
    run = run_file(tmp_path, {"kind": "bottleneck", "size": 4}, "hidden")
    tiny.model_folder(tmp_path / "teacher", head=head)
    first = trained(run)
    assert first.student.frozen_head == gone_on(run, first).student.frozen_head == head
