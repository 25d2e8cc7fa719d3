"""Sources that stand in a data set with several targets are written once, and compared with all of them."""

import pytest

from configs.data import Embedded, Task
from distill.data.rows import Row, Rows, by_source
from distill.data.sources import read
from distill.errors import DataError

TASK = Task(kind="generation")


def embedded(part: str, task: Task = TASK, name: str = "dates-en-de") -> Rows:
    source = Embedded(kind="embedded", name=name, part=part)  # type: ignore[arg-type]
    return read("dates", {"dates": source}, task, stage_outputs={}, seed=0)


def test_targets_of_one_source_go_together() -> None:
    pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "1")]
    rows = Rows.of([Row(text, None, None, 0, target) for text, target in pairs])
    assert by_source(rows, "test") == {"a": ["1", "3"], "b": ["2"]}


def test_a_row_without_target_is_named() -> None:
    rows = Rows.of([Row("a", None, None, 0, "1"), Row("b", None, None, 1)])
    with pytest.raises(DataError, match=r"data\.test: row 2 has no target to compare with"):
        by_source(rows, "test")


def test_the_embedded_translations_come_with_all_that_is_right() -> None:
    references = by_source(embedded("test"), "test")
    assert len(references) == 600
    assert sum(map(len, references.values())) > 3000
    assert embedded("validation").targets.count(None) == 0
    assert set(embedded("transfer").targets) == {None}


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("dates-en-de", Task(), "`dates-en-de` is for a generation, and `task.kind` is `classification`"),
        ("support-desk", TASK, "`support-desk` is for a classification, and `task.kind` is `generation`"),
    ],
)
def test_a_set_for_another_task_is_refused(name: str, task: Task, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        embedded("train", task, name)
