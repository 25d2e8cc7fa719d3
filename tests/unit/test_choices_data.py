"""Rows with answers to choose from: how they are read, tokenised, padded and counted, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs.data import Columns, Files, Task
from configs.load import load
from distill.data.buckets import Batching
from distill.data.collate import collate
from distill.data.pairs import TargetLimits, tokenise_targets
from distill.data.rows import Rows
from distill.data.sources import read
from distill.data.table import TokenTable
from distill.data.windows import Plan
from distill.errors import DataError
from distill.types import IGNORED
from pipelines.score import EncodedRows
from tests.helpers import choices as rows_with_choices
from tests.helpers import pairs
from tests.helpers.run_yaml import problems
from tests.helpers.writers import END, PAD, VOCABULARY, tokenizer

TASK = Task(kind="generation")
OPEN = {"choices": "answers"}
RECORDS = [
    {"text": "w1 w2", "target": "w3", "answers": ["w4 w5", "w3", "w6", "w6"]},
    {"text": "w7", "target": "w8 w9", "answers": ["w8 w9", "w1"]},
    {"text": "w2 w3 w4", "target": "w1", "answers": ["w1", "w2", "w3 w4 w5"]},
]


def files(folder: Path, records: list[dict], columns: dict[str, str] = OPEN, **fields: object) -> Files:
    path = folder / f"rows{len(list(folder.iterdir()))}.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return Files(path=str(path), columns=Columns(**columns), **fields)


def rows_of(source: Files, task: Task = TASK) -> Rows:
    return read("train", {"train": source}, task, stage_outputs={}, seed=0)


def problem(source: Files, task: Task = TASK) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(source, task)
    return str(caught.value)


def table_of(rows: Rows, start: int | None = PAD, longest: int = 8, cache: Path | None = None) -> TokenTable:
    limits = TargetLimits(16, longest, len(VOCABULARY), start)
    return tokenise_targets(rows, tokenizer(ends=start is not None), limits, cache)


def words(text: str, *, end: bool = True) -> list[int]:
    return [VOCABULARY.index(word) for word in text.split()] + [END] * end


def test_answers_are_read_once_each_with_the_right_one_among_them(tmp_path: Path) -> None:
    found = rows_of(files(tmp_path, RECORDS))
    assert [row.choices for row in found] == [["w4 w5", "w3", "w6"], ["w8 w9", "w1"], ["w1", "w2", "w3 w4 w5"]]
    other = rows_of(files(tmp_path, [{**RECORDS[0], "answers": ["w3", "w9"]}]))
    assert other.ids[0] != found.ids[0]


def test_other_right_answers_of_a_row_are_not_wrong(tmp_path: Path) -> None:
    found = list(rows_of(files(tmp_path, [{"text": "w1", "target": ["w2", "w3"], "answers": ["w2", "w3", "w4"]}])))
    assert [(row.target, row.choices) for row in found] == [("w2", ["w2", "w4"]), ("w3", ["w3", "w4"])]


def test_fixed_answers_may_stand_as_codes(tmp_path: Path) -> None:
    task = Task(kind="generation", choices=("w1", "w2"))
    records = [{"text": "w5", "label": 0}, {"text": "w6", "label": 1}]
    source = files(tmp_path, records, {"target": "label"}, label_names={"0": "w1", "1": "w2"})
    assert [(row.target, row.choices) for row in rows_of(source, task)] == [("w1", ["w1", "w2"]), ("w2", ["w1", "w2"])]
    missing = files(tmp_path, [{"text": "w5", "target": "w11"}], {})
    expected = "target `w11` is none of the answers to choose from; did you mean `w1`? Choices: w1, w2"
    assert problem(missing, task).endswith(expected)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["w4", "w5"], "target `w3` is none of the answers to choose from; Choices: w4, w5"),
        (["w3", "w3"], "`answers` holds fewer than two answers"),
        ("w3", "`answers` is 'w3', no list of answers"),
    ],
)
def test_answers_that_are_none_are_refused(tmp_path: Path, answers: object, message: str) -> None:
    assert problem(files(tmp_path, [{**RECORDS[0], "answers": answers}])).endswith(message)


@pytest.mark.parametrize("start", [PAD, None], ids=["encoder-decoder", "causal"])
def test_wrong_answers_are_rows_of_their_own_after_their_sources(tmp_path: Path, start: int | None) -> None:
    table = table_of(rows_of(files(tmp_path, RECORDS)), start)
    order = np.array([2, 0])
    batch = collate(table, order, PAD)
    choices = batch["choices"]
    expected = [(0, 2, "w2"), (0, 2, "w3 w4 w5"), (1, 0, "w4 w5"), (1, 0, "w6")]
    assert choices["rows"].tolist() == [place for place, _, _ in expected]
    for number, (_, row, answer) in enumerate(expected):
        labels = choices["labels"][number]
        read_in = choices["input_ids"][number][choices["attention_mask"][number].bool()].tolist()
        assert labels[labels != IGNORED].tolist() == words(answer)
        if start is None:
            assert read_in == [*words(RECORDS[row]["text"], end=False), *words(answer)[:-1]]
            assert int((labels != IGNORED).nonzero()[0]) == len(RECORDS[row]["text"].split()) - 1
        else:
            assert read_in == words(RECORDS[row]["text"])
            assert choices["decoder_input_ids"][number][: len(answer.split()) + 1].tolist() == [
                start,
                *words(answer)[:-1],
            ]


def test_a_row_of_which_an_answer_is_too_long_is_left_out_whole(tmp_path: Path) -> None:
    table = table_of(rows_of(files(tmp_path, RECORDS)), longest=3)
    assert (len(table), dict(table.notes)) == (2, {"pairs left out, too long": 1})
    assert table.wrong_lengths.tolist() == [3 + 2, 2]


def test_a_cache_keeps_answers_and_knows_others(tmp_path: Path) -> None:
    first = rows_of(files(tmp_path, RECORDS))
    built, again = table_of(first, cache=tmp_path / "c"), table_of(first, cache=tmp_path / "c")
    assert np.array_equal(again.wrong, built.wrong) and len(list((tmp_path / "c").glob("[!.]*"))) == 1
    fixed = Task(kind="generation", choices=("w3", "w8 w9", "w1", "w5"))
    other = table_of(rows_of(files(tmp_path, RECORDS, {}), fixed), cache=tmp_path / "c")
    assert len(list((tmp_path / "c").glob("[!.]*"))) == 2 and other.fingerprint != built.fingerprint


def test_tables_with_and_without_answers_are_joined(tmp_path: Path) -> None:
    some = table_of(rows_of(files(tmp_path, RECORDS)))
    none = table_of(rows_of(files(tmp_path, RECORDS, {})))
    both = TokenTable.concatenate([none, some, some])
    assert none.wrong is None and both.wrong_lengths.tolist() == [0, 0, 0, *some.wrong_lengths, *some.wrong_lengths]
    assert "choices" not in collate(both, np.array([0, 1]), PAD)
    mixed, alone = collate(both, np.array([1, 8, 3]), PAD)["choices"], collate(some, np.array([2, 0]), PAD)["choices"]
    assert mixed["rows"].tolist() == [1, 1, 2, 2]
    assert mixed["labels"].tolist() == alone["labels"].tolist()


def test_windows_count_tokens_of_wrong_answers_and_rows_that_have_them(tmp_path: Path) -> None:
    parts = [rows_of(files(tmp_path, RECORDS)), rows_of(files(tmp_path, RECORDS, {}))]
    table = TokenTable.concatenate([table_of(part) for part in parts])
    plan = Plan(table.lengths, table.labelled, Batching(6), 0, max_steps=1, wrong=table.wrong_lengths, devices=3)
    counts = plan.counts(0)
    assert counts["choice_rows"] == 3
    assert counts["wrong_tokens"] == sum(len(words(a)) for a in ("w4 w5", "w6", "w1", "w2", "w3 w4 w5"))
    seen = [collate(table, part, PAD) for part in plan.parts(0)]
    assert counts["wrong_tokens"] == sum(
        int((one["choices"]["labels"] != IGNORED).sum()) for one in seen if "choices" in one
    )


TRAIN = {
    "kind": "train",
    "teacher": "none",
    "data": ["told"],
    "validation": "held",
    "objective": [{"kind": "task"}, {"kind": "unlikelihood"}, {"kind": "length_normalised"}],
    "training": {"epochs": 1},
}
EVALUATE = {"kind": "evaluate", "data": "held", "student": "student"}


def run_file(folder: Path, columns: dict[str, str], task: dict, **stages: dict) -> Path:
    section = rows_with_choices.write(folder, "told", 8) | {"columns": columns}
    data = {"told": section, "held": {"kind": "held_out", "of": "told"}}
    return pairs.run_file(folder, {"student": TRAIN, "evaluate": EVALUATE, **stages}, data=data, task=task)


def test_what_needs_answers_says_where_to_name_them(tmp_path: Path) -> None:
    give = "name them in `task.choices`, or their column in `columns.choices` of the source"
    path = run_file(tmp_path, {}, {"kind": "generation", "metric": "accuracy"})
    found = [line.split(": ", 1)[1] for line in problems(path)]
    assert found == [
        f"stages.student.objective.{place}.kind: `{kind}` needs wrong answers, and no source of this stage has any; "
        + give
        for place, kind in ((1, "unlikelihood"), (2, "length_normalised"))
    ] + [
        f"stages.{place}: answers are ranked (task.metric), and source `held` has none to choose from; {give}"
        for place in ("student.validation", "evaluate.data")
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.evaluate.decoding={beams: 2}", "stages.evaluate.decoding: is for texts, and answers are ranked"),
        ("stages.student.training.validate_texts=2", "validate_texts: writes texts, and the task is scored by ranking"),
        ("task.choices=[a, a]", "`choices` holds an answer twice"),
        ("task={kind: classification, choices: [a, b]}", "task.choices: is for a generation, and `task.kind` is"),
        ("student.vocabulary=300", "student.vocabulary: would have the teacher rank answers (task.metric) in tokens"),
        ("task={kind: text}", "`unlikelihood` needs wrong answers of a generation, and `task.kind` is `text`"),
    ],
)
def test_what_does_not_go_with_answers_is_refused(tmp_path: Path, override: str, message: str) -> None:
    path = run_file(tmp_path, OPEN, {"kind": "generation", "metric": "accuracy"})
    assert any(message in line for line in problems(path, override))


def test_students_of_no_teacher_rank_answers_in_words_of_their_own(tmp_path: Path) -> None:
    path = run_file(tmp_path, OPEN, {"kind": "generation", "metric": "accuracy"})
    assert load(path, ["teacher={kind: none}", "student.vocabulary=300"]).pipeline.task.ranks


def test_rows_with_one_answer_cannot_be_ranked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1 has no answers to choose from"):
        EncodedRows.of(table_of(rows_of(files(tmp_path, RECORDS, {}))), PAD, ranked=True)
