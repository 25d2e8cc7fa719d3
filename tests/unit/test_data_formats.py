"""Every file format gives the same rows, and says exactly what is wrong with a file that gives none."""

import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.data import Columns, Files, Task
from distill.data.rows import Row, Rows
from distill.data.sources import read
from distill.errors import DataError

CLASSES = Task()
EXPECTED = [('Good, "really" good.', "5"), ("NA", "1"), ("Zoë\u2028says\nno", "null"), ("مرحبا 👋", "1")]


def rows_of(path: Path | str, task: Task = CLASSES, **fields: Any) -> Rows:
    return read("train", {"train": Files(path=str(path), **fields)}, task, stage_outputs={}, seed=0)


def problem(path: Path | str, task: Task = CLASSES, **fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(path, task, **fields)
    return str(caught.value)


def pairs(rows: Rows) -> list[tuple[Any, Any]]:
    return [(row.text, row.label) for row in rows]


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def quoted(delimiter: str) -> str:
    fields = [["text", "label"], *EXPECTED]
    return "".join(delimiter.join('"' + field.replace('"', '""') + '"' for field in row) + "\r\n" for row in fields)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.jsonl", "a.ndjson.gz", "a.json"])
def test_each_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    if "csv" in name or "tsv" in name:
        content = quoted("," if "csv" in name else "\t")
    else:
        content = "".join(json.dumps({"text": text, "label": label}) + "\n\n" for text, label in EXPECTED)
    rows = rows_of(write(tmp_path / name, content))
    assert pairs(rows) == EXPECTED
    assert rows.notes == {}


@pytest.mark.parametrize(("name", "indent"), [("a.json", 2), ("a.json.gz", None), ("a.jsonl", 0)])
def test_a_list_of_objects_gives_the_same_rows(tmp_path: Path, name: str, indent: int | None) -> None:
    listed = json.dumps([{"text": text, "label": label} for text, label in EXPECTED], indent=indent)
    path = write(tmp_path / name, f"\n {listed}\n")
    assert pairs(rows_of(path)) == EXPECTED


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    texts, labels = zip(*EXPECTED, strict=True)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"other": [1, 2, 3, 4], "text": texts, "label": labels}), path)
    assert pairs(rows_of(path)) == EXPECTED


def test_ids_are_those_of_the_content_in_every_format(tmp_path: Path) -> None:
    as_csv = rows_of(write(tmp_path / "a.csv", "text,label\nhello there,1\n"))
    as_json = rows_of(write(tmp_path / "a.jsonl", '{"label": 1, "text": " hello there\\u0000 "}\n'))
    assert as_csv.ids.tolist() == as_json.ids.tolist()


def test_literal_quotes_are_kept_where_quoting_is_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", '\ufefftext\tlabel\n"one\t1\nsay "two"\t0\n')
    assert pairs(rows_of(path, quoting=False)) == [('"one', "1"), ('say "two"', "0")]


def test_header_names_the_columns_of_a_file_without_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "first,second,4.5\nthird,fourth,0\n")
    columns = Columns(text="a", pair="b", label="score")
    rows = rows_of(path, Task(kind="regression"), header=("a", "b", "score"), columns=columns)
    assert [(row.text, row.pair, row.label) for row in rows] == [("first", "second", 4.5), ("third", "fourth", 0.0)]


def test_pattern_cuts_lines_into_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "LOC:city Where is it ?\n\nNUM:date When was it ?\n")
    rows = rows_of(path, pattern=r"(?P<label>[A-Z]+):\w+ (?P<text>.*)")
    assert pairs(rows) == [("Where is it ?", "LOC"), ("When was it ?", "NUM")]


def test_lines_skip_blank_ones_and_end_at_line_feeds_only(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One\x0bline.\n \n\r\nTwo\x85lines.\r\n")
    write(tmp_path / "b.txt.gz", "Three.")
    rows = rows_of(tmp_path / "*.txt*", Task(kind="text"))
    assert [row.text for row in rows] == ["One\x0bline.", "Two\x85lines.", "Three."]
    assert rows.documents == [0, 0, 1]
    assert not rows.has_labels


def test_raw_labels_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n')
    assert pairs(rows_of(path, label_names={"0": "bad", "1": "good"})) == [("a", "good"), ("b", "bad")]


def test_true_and_false_are_classes_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}\n')
    assert pairs(rows_of(path)) == [("a", "true"), ("b", "false")]


def test_texts_are_normalised_and_nul_characters_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n  Zoe\u0308\0\0 ,1\n")
    rows = rows_of(path)
    assert [row.text for row in rows] == [unicodedata.normalize("NFC", "Zoe\u0308")] == ["Zoë"]
    assert rows.notes == {"NUL characters removed": 2}


def test_labels_of_plain_text_are_not_read(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "a.csv", "text,label\none,1\n"), Task(kind="text"))
    assert pairs(rows) == [("one", None)]


def test_rows_without_labels_where_the_source_says_so(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "a.csv", "text\none\n"), columns=Columns(label=None))
    assert list(rows) == [Row("one", None, None, rows.ids.tolist()[0])]


def test_ids_of_the_file_enter_the_ids_of_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,key\nsame,1,x\nsame,1,y\n")
    rows = rows_of(path, columns=Columns(id="key"))
    assert len(set(rows.ids.tolist())) == 2
    assert len(set(rows_of(path).ids.tolist())) == 1


QUOTES = "set `quoting: false` if quotes are part of the texts"
UNLABELLED = "the row has no label; for rows without labels set `columns.label: null`"
SURROUNDED = {
    "a.csv": ("text,label\none,1\n", "three,0\n"),
    "a.tsv": ("text\tlabel\none\t1\n", "three\t0\n"),
    "a.jsonl": ('{"text": "one", "label": "1"}\n', '{"text": "three", "label": "0"}\n'),
}
"""What stands before and after a bad row."""

BAD_ROWS = [
    ("a.csv", "two", "3: 1 fields where the header has 2", "too few or too many fields"),
    ("a.csv", '"t\nw",0,9', "3: 3 fields where the header has 2", "too few or too many fields"),
    ("a.csv", " ,0", "3: `text` is empty", "empty text"),
    ("a.csv", "two,", f"3: {UNLABELLED}", "no label"),
    ("a.csv", '"two"x,0', f"3: ',' expected after '\"'; {QUOTES}", "broken quotes or fields"),
    ("a.tsv", '"two\t0\nmore"\t0', f"3: a quoted field runs on to line 4, over tabs; {QUOTES}",
     "broken quotes or fields"),
    ("a.jsonl", '{"text": "two" "label": 0}', "2: broken JSON: Expecting ',' delimiter at column 16", "broken JSON"),
    ("a.jsonl", '["two"]', "2: an array where an object is expected, one a line", "broken JSON"),
    ("a.jsonl", '{"label": "0"}', "2: `text` is empty", "empty text"),
    ("a.jsonl", '{"text": "a\\ud800", "label": "0"}', "2: `text` holds half of a surrogate pair at character 1",
     "lone surrogate"),
    ("a.jsonl", '{"text": "two", "label": null}', f"2: {UNLABELLED}", "no label"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "bad", "text", "kind"), BAD_ROWS)
def test_a_bad_row_is_an_error_or_dropped_and_counted(
    tmp_path: Path, name: str, bad: str, text: str, kind: str
) -> None:
    before, after = SURROUNDED[name]
    path = write(tmp_path / name, f"{before}{bad}\n{after}")
    assert problem(path) == f"data.train: {path}:{text}"
    rows = rows_of(path, bad_rows="drop")
    assert pairs(rows) == [("one", "1"), ("three", "0")]
    assert rows.notes == {f"rows dropped: {kind}": 1}


def test_an_unclosed_quote_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\none,1\n"two,0\nthree,0\n')
    expected = f"data.train: {path}:3: unexpected end of data; set `quoting: false` if quotes are part of the texts"
    assert problem(path) == expected


def test_a_very_long_text_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "x" * 1_000_001, "label": "1"}) + "\n")
    assert problem(path) == f"data.train: {path}:1: `text` has 1,000,001 characters, more than 1,000,000"


def test_a_line_off_the_pattern(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "A one\nbtwo\n")
    fields: dict[str, Any] = {"pattern": r"(?P<label>[AB]) (?P<text>.*)"}
    expected = f"data.train: {path}:2: the line does not match the pattern `{fields['pattern']}`"
    assert problem(path, **fields) == expected
    assert rows_of(path, bad_rows="drop", **fields).notes == {"rows dropped: not of the pattern": 1}


FILES = [
    ("a.csv", b"", ": the file is empty"),
    ("a.jsonl", b"\n", ": the file is empty"),
    ("a.json", b"[]", ": the list is empty"),
    ("a.json", b'[\n{"text": "one", "label": "1"},\n{"text": "two" "label": "0"}\n]',
     ":3: broken JSON: Expecting ',' delimiter at column 16 of a list"),
    ("a.json", b'[{"text": "one", "label": "1"}, "two"]', " row 2: a text where an object is expected, in the list"),
    ("a.csv", b"text,label\n", ": no rows: the file holds none"),
    ("a.csv", b"text,text\n", ":1: column `text` is there twice; without a header line name the columns in `header`"),
    ("a.csv", "text,label\none,1\ncaf\u00e9,1\n".encode("latin1"),
     ":3: byte 0xe9 at offset 20 is not UTF-8; if the file is Latin-1, write it as UTF-8: iconv -f latin1 -t utf-8"),
    ("a.csv", "text,label\n".encode("utf-16"), ": the file is UTF-16; write it as UTF-8: iconv -f utf-16 -t utf-8"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "text"), FILES)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    path = write(tmp_path / name, content)
    assert problem(path) == f"data.train: {path}{text}"


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", b"PAR1 is not all it takes")
    assert problem(path).startswith(f"data.train: {path}: damaged, or no Parquet file: ")


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"one,1\n" * 1000)[:40])
    assert problem(path).startswith(f"data.train: {path}: damaged gzip file: ")
    path.write_bytes(b"text,label\none,1\n")
    assert problem(path).startswith(f"data.train: {path}: damaged gzip file: Not a gzipped file")


def test_a_misspelt_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,lab\none,1\n")
    hint = "for rows without labels set `columns.label: null`"
    assert problem(path) == f"data.train: column `label` not in {path}; columns: text, lab; did you mean `lab`?; {hint}"
    missing = problem(path, columns=Columns(text="sentence", label="lab"))
    assert missing == f"data.train: column `sentence` not in {path}; columns: text, lab"


def test_a_header_that_the_file_has_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\none,1\n")
    expected = f"data.train: {path}:1: the line holds the column names itself; leave out `header`"
    assert problem(path, header=("text", "label")) == expected


def test_patterns_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n")
    assert problem(path, pattern="(").startswith("data.train: pattern `(` is no regular expression: ")
    assert problem(path, pattern="(.*)") == "data.train: pattern `(.*)` has no named group; write (?P<text>…)"


LABELS = [
    (Task(labels=("bad", "good")), '{"text": "one", "label": "god"}',
     ":1: label `god` not in task.labels; did you mean `good`? Choices: bad, good"),
    (Task(), '{"text": "one", "label": 0.5}',
     ":1: label `0.5` is a number with a fraction; scores need `task.kind: regression`"),
    (Task(), '{"text": "one", "label": "0.5"}',
     ":1: label `0.5` is a number with a fraction; scores need `task.kind: regression`, "
     "classes with such names `task.labels`"),
    (Task(), '{"text": "one", "label": [1]}', ":1: label `[1]` is neither a text nor a whole number"),
    (Task(), '{"text": 5, "label": "a"}', ":1: `text` is 5, no text"),
    (Task(), '{"text": "one", "label": 1}\n{"text": "two", "label": "1"}',
     ":2: label '1' is of type str, the one at PATH:1 of type int; a column holds one type"),
    (Task(kind="regression"), '{"text": "one", "label": "high"}',
     ":1: label `high` is no number; a regression needs scores"),
    (Task(kind="regression"), '{"text": "one", "label": true}',
     ":1: label `True` is no number; a regression needs scores"),
    (Task(kind="regression"), '{"text": "one", "label": NaN}', ":1: the score is nan"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "content", "text"), LABELS)
def test_a_label_that_is_none(tmp_path: Path, task: Task, content: str, text: str) -> None:
    path = write(tmp_path / "a.jsonl", content + "\n")
    assert problem(path, task) == f"data.train: {path}{text.replace('PATH', str(path))}"


def test_a_label_without_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\none,2\n")
    expected = f"data.train: {path}:2: label `2` not in label_names; Choices: 0, 1"
    assert problem(path, label_names={"0": "bad", "1": "good"}) == expected


def test_ids_that_are_not_unique(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,key\none,1,x\ntwo,1,y\nthree,1,x\n")
    assert problem(path, columns=Columns(id="key")) == f"data.train: {path}:4: id `x` is that of {path}:2 too"


def test_everything_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n,1\nonly\n")
    expected = (
        f"data.train: {path}: no rows are left (1 rows dropped: empty text, 1 rows dropped: too few or too many fields)"
    )
    assert problem(path, bad_rows="drop") == expected


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\none,1\n")
    assert problem(tmp_path / "trian.csv") == f"data.train: {tmp_path}/trian.csv not found; did you mean `train.csv`?"
    assert problem(tmp_path / "zzz.csv") == f"data.train: {tmp_path}/zzz.csv not found; {tmp_path} holds: train.csv"
    lost = tmp_path / "no" / "train.csv"
    assert problem(lost) == f"data.train: {lost} not found; there is no folder {lost.parent}"
    assert problem(tmp_path / "*.tsv") == f"data.train: no file matches {tmp_path}/*.tsv"


def test_a_file_of_no_known_format(tmp_path: Path) -> None:
    path = write(tmp_path / "train.dat", "text,label\none,1\n")
    expected = (
        f"data.train: {path}: the ending tells no format; set `format`. Known endings: "
        ".csv, .tsv, .jsonl, .json, .ndjson, .parquet, .txt, .text, .raw, .conllu, .conll, .iob2, .bio, "
        "each with .gz too"
    )
    assert problem(path) == expected
    assert len(rows_of(path, format="csv")) == 1
    folder = f"data.train: {tmp_path} is a folder, `format` is csv; for the files in it write {tmp_path}/*"
    assert problem(tmp_path, format="csv") == folder
