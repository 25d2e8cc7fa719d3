"""Labels are matched by name, or refused."""

import math
from itertools import permutations

import numpy as np
import pytest

from configs.data import Task
from distill.data.labels import encode, label_counts, label_names, permutation
from distill.data.rows import Row, Rows
from distill.errors import DataError
from distill.types import IGNORED

WHERE = "teacher.model: runs/teacher"


def labelled(*labels: str | float | None) -> Rows:
    return Rows.of([Row(f"row {number}", None, label, number) for number, label in enumerate(labels)])


def test_names_are_sorted_and_numbers_as_numbers() -> None:
    assert label_names(Task(), [labelled("b", "a"), labelled("c", None)]) == ("a", "b", "c")
    assert label_names(Task(), [labelled("10", "9", "-1", "0")]) == ("-1", "0", "9", "10")
    assert label_names(Task(), [labelled("10", "9", "x")]) == ("10", "9", "x")
    assert label_names(Task(labels=("z", "a")), [labelled("a")]) == ("z", "a")
    assert label_names(Task(kind="regression"), [labelled(0.5)]) == ()


@pytest.mark.parametrize(("rows", "found"), [(labelled("a", "a"), "a"), (labelled(None), "none")])
def test_fewer_than_two_classes_are_an_error(rows: Rows, found: str) -> None:
    with pytest.raises(DataError) as caught:
        label_names(Task(), [rows])
    expected = f"the training rows hold fewer than two classes ({found}); name all classes in `task.labels`"
    assert str(caught.value) == expected


def test_labels_become_numbers_or_scores() -> None:
    classes = encode(labelled("b", None, "a"), Task(), ("a", "b"))
    assert classes.dtype == np.int64
    assert classes.tolist() == [1, IGNORED, 0]
    scores = encode(labelled(0.5, None), Task(kind="regression"), ())
    assert scores.dtype == np.float32
    assert scores[0] == 0.5 and math.isnan(scores[1])
    assert encode(labelled(None, None), Task(kind="text"), ()).tolist() == [IGNORED, IGNORED]
    assert encode(labelled(None, None), Task(), ("a", "b")).tolist() == [IGNORED, IGNORED]
    assert label_counts(labelled("b", None, "b")) == {"b": 2}


def test_a_class_the_training_rows_do_not_have() -> None:
    with pytest.raises(DataError) as caught:
        encode(labelled("b", "bad"), Task(), ("sad", "b"))
    expected = "label `bad` not among the classes of the training rows; did you mean `sad`? Choices: b, sad"
    assert str(caught.value) == expected


@pytest.mark.parametrize("model", list(permutations(["neutral", "entailment", "contradiction"])))
def test_every_order_of_the_model_comes_out_in_the_order_of_the_run(model: tuple[str, ...]) -> None:
    run = ("entailment", "neutral", "contradiction")
    order = permutation([name.upper() for name in model], run, WHERE)
    assert tuple(model[place] for place in (order or range(3))) == run
    assert (order is None) == (model == run)


REFUSED = [
    (["a", "b", "x"], ["a", "b", "c"], "labels are matched by name: the model has x, which the run does not know; "
     "the run has c, which the model does not know"),
    (["a", "b"], ["a", "b", "c"], "labels are matched by name: the run has c, which the model does not know"),
    (["a", "b", "c"], ["a", "b"], "labels are matched by name: the model has c, which the run does not know"),
    (["a", "A"], ["a", "b"], "two classes differ in nothing but capital letters: a, A"),
    (["LABEL_0", "LABEL_1"], ["a", "b"],
     "the outputs are called LABEL_0, LABEL_1, which tells nothing of the classes a, b; write the names into "
     "`id2label` of its config.json, or use these in `task.labels` and `label_names`"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "run", "text"), REFUSED)
def test_names_without_a_partner_are_refused(model: list[str], run: list[str], text: str) -> None:
    with pytest.raises(DataError) as caught:
        permutation(model, run, WHERE)
    assert str(caught.value) == f"{WHERE}: {text}"


def test_nameless_outputs_agree_with_themselves() -> None:
    assert permutation(["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1"], WHERE) is None
    assert permutation(["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"], WHERE) == [1, 0]
