"""What models say of wrong answers: that of each alone, whatever adapts them, and with gradients to all that learns."""

from typing import Any, cast

import pytest
import torch

from distill.data.labels import IGNORED
from distill.losses.choices import answer_scores
from distill.types import Batch, Choices, Needs
from pipelines.score import answer
from students.student import Student
from tests.helpers import families
from tests.helpers.adapted import adapted, full_batch

METHODS = ("(IA)³", "prompt tuning", "P-tuning", "prefix", "Pfeiffer, invertible", "mix and match", "experts")
KINDS = families.BESIDE + families.CAUSAL
SOURCES = [[5, 9, 7], [8, 4, 11, 6, 3]]
ANSWERS = [[[10, 2]], [[12, 13, 2], [14, 2]]]
RIGHT = [[15, 16, 2], [17, 2]]


def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def inputs(kind: str, sources: list[list[int]], targets: list[list[int]]) -> dict[str, torch.Tensor]:
    """Sources and targets as a model of the family reads them."""
    if kind in families.CAUSAL:
        read = [source + target[:-1] for source, target in zip(sources, targets, strict=True)]
        said = [[IGNORED] * (len(s) - 1) + t for s, t in zip(sources, targets, strict=True)]
        made = {"input_ids": padded(read, 0), "labels": padded(said, IGNORED)}
        return made | {"attention_mask": padded([[1] * len(row) for row in read], 0)}
    made = {"input_ids": padded(sources, 0), "attention_mask": padded([[1] * len(row) for row in sources], 0)}
    decoder = padded([[0, *target[:-1]] for target in targets], 0)
    return made | {"labels": padded(targets, IGNORED), "decoder_input_ids": decoder}


def batch_of(kind: str) -> Batch:
    places = [row for row, wrong in enumerate(ANSWERS) for _ in wrong]
    wrong = inputs(kind, [SOURCES[row] for row in places], [answer for answers in ANSWERS for answer in answers])
    made: dict[str, Any] = inputs(kind, SOURCES, RIGHT)
    made["choices"] = cast(Choices, wrong | {"rows": torch.tensor(places)})
    return cast(Batch, made)


def alone(student: Student, kind: str, source: list[int], target: list[int]) -> torch.Tensor:
    """Logits of one answer, by itself and without padding."""
    logits = student(cast(Batch, inputs(kind, [source], [target])), Needs(logits=True)).logits
    return logits[0, -len(target) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_wrong_answers_get_the_logits_they_get_alone(method: str, kind: str) -> None:
    student = adapted(method, kind).eval()
    for parameter in student.parameters():  # adapters begin as nothing
        torch.nn.init.normal_(parameter, std=0.2) if parameter.requires_grad else None
    batch = batch_of(kind)
    with torch.no_grad():
        found = student(batch, Needs(logits=True, choices=True))
        number = 0
        for source, answers in zip(SOURCES, ANSWERS, strict=True):
            for target in answers:
                own = found.choices[number][batch["choices"]["labels"][number] != IGNORED]
                torch.testing.assert_close(own, alone(student, kind, source, target), atol=1e-5, rtol=1e-4)
                number += 1
    assert len(found.choices) == number == 3


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_learns_has_a_gradient_from_wrong_answers(kind: str) -> None:
    student = adapted("(IA)³", kind)
    assert student.freeze_unused(batch_of(kind), Needs(choices=True)) == []
    student(batch_of(kind), Needs(choices=True)).choices.square().sum().backward()
    gradients = [parameter.grad.abs().max() for parameter in student.parameters() if parameter.requires_grad]
    assert len(gradients) > 2 and min(gradients) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_reads_a_source_once_for_all_its_answers(kind: str) -> None:
    student = Student(families.loaded(kind).model, has_head=True).eval()
    reader = student.model.get_encoder() if kind in families.BESIDE else student.model
    rows: list[int] = []
    reader.register_forward_hook(lambda module, args, kwargs, output: rows.append(len(output[0])), with_kwargs=True)
    student(batch_of(kind), Needs(logits=True, choices=True))
    assert rows == ([2] if kind in families.BESIDE else [2, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_wrong_answers_gives_none(kind: str) -> None:
    student = Student(families.loaded(kind).model, has_head=True).eval()
    found = student(full_batch(kind), Needs(choices=True))
    assert len(found.choices) == 0 and found.choices.requires_grad and found.logits is None
    assert student.offers.choices


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_scored_is_what_is_learnt(kind: str) -> None:
    model, batch = families.loaded(kind).model.eval(), batch_of(kind)
    with torch.no_grad():
        found = Student(model, has_head=True).eval()(batch, Needs(logits=True, choices=True))
        expected = answer_scores(found, batch["labels"], batch["choices"], 2)
        scored = answer(model, {**batch, "answers": torch.tensor(2)})
    torch.testing.assert_close(scored, expected)
    assert scored.shape == (2, 3)
