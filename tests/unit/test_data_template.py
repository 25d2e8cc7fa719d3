"""Texts made of several columns: what is put where, what falls away, and what is wrong with a template."""

import json
from pathlib import Path

import datasets
import pytest
from pydantic import ValidationError

from configs import template
from configs.data import Columns, Files, Task
from distill.data.rows import Rows
from distill.data.sources import read
from distill.errors import DataError
from tests.helpers import pairs

PROMPT = "Instruction: {instruction}\nInput: {input?}\nResponse:"
TASK = Task(kind="generation")
RECORDS = [
    {"instruction": "Add.", "input": "1, 2", "response": "3"},
    {"instruction": "Say {hello}.", "input": "", "response": "hello"},
    {"instruction": "Wait.", "input": " \n", "response": "…"},
    {"instruction": "List.", "input": ["a", "b"], "response": "a b"},
]
FILLED = [
    "Instruction: Add.\nInput: 1, 2\nResponse:",
    "Instruction: Say {hello}.\nResponse:",
    "Instruction: Wait.\nResponse:",
    "Instruction: List.\nInput: a b\nResponse:",
]


def files(folder: Path, records: list[dict], **columns: str | None) -> Files:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    given = {"text": PROMPT, "target": "response", **columns}
    return Files(path=str(path), columns=Columns.model_validate(given))


def rows(source: Files) -> Rows:
    return read("train", {"train": source}, TASK, stage_outputs={}, seed=0)


def test_columns_take_their_places_and_empty_lines_fall_away(tmp_path: Path) -> None:
    assert [row.text for row in rows(files(tmp_path, RECORDS))] == FILLED


def test_a_pair_is_made_of_columns_too(tmp_path: Path) -> None:
    (row, *_) = rows(files(tmp_path, RECORDS, text="instruction", pair="[{input?}] {response} {{}}"))
    assert (row.text, row.pair) == ("Add.", "[1, 2] 3 {}")


def test_a_column_without_a_question_mark_must_not_be_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2: `input` is empty"):
        rows(files(tmp_path, RECORDS, text=PROMPT.replace("?", "")))


def test_a_text_of_which_nothing_is_left_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2: `\{input\?\}` is empty"):
        rows(files(tmp_path, RECORDS, text="{input?}"))


def test_only_the_columns_named_are_read_of_a_folder_of_datasets(tmp_path: Path) -> None:
    rest = [{**record, "input": "x", "unused": 1} for record in RECORDS]
    datasets.Dataset.from_list(rest).save_to_disk(tmp_path / "set")
    source = Files(path=str(tmp_path / "set"), columns=Columns(text=PROMPT, target="response"))
    assert [row.text for row in rows(source)] == [
        f"Instruction: {record['instruction']}\nInput: x\nResponse:" for record in RECORDS
    ]


@pytest.mark.parametrize("text", ["{a", "text", "a}", "{}", "{?}"])
def test_what_names_no_column_in_braces_is_a_column(text: str) -> None:
    assert template.columns(text) == (text,) and not template.is_template(text)


@pytest.mark.parametrize("text", ["{a} {b", "{a} }", "{a} {b??}", "{a}{}"])
def test_a_brace_that_belongs_to_no_column_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="has a brace that belongs to no"):
        Columns(text=text)


def test_a_column_that_is_not_there_is_named_with_the_nearest(call, tmp_path: Path) -> None:
    source = files(tmp_path, RECORDS).model_dump(exclude_defaults=True)
    source["columns"]["text"] = PROMPT.replace("{instruction}", "{instuction}")
    stages = {"student": {"kind": "train", "teacher": "none", "data": ["own"], "objective": [{"kind": "task"}]}}
    stages["student"]["training"] = pairs.TRAINING
    path = pairs.run_file(tmp_path, stages, data={"own": source})
    code, _, err = call("check", str(path))
    assert code == 2
    assert "data.own: column `instuction` not in" in err and "did you mean `instruction`?" in err
    assert err.count("instuction") == 1
