"""Sources and targets on their way to a model: read in step, tokenised whole, shifted once, counted."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from configs.data import Columns, Files, Task
from distill.data.buckets import Batching
from distill.data.collate import collate
from distill.data.pairs import TargetLimits, tokenise_targets
from distill.data.rows import Row, Rows, by_source
from distill.data.sources import read
from distill.data.table import TokenTable
from distill.data.vocabulary import train_vocabulary
from distill.data.windows import Plan
from distill.errors import DataError, ModelError
from distill.types import IGNORED
from tests.helpers import pairs

TASK = Task(kind="generation", max_length=24, max_target_length=24)
LIMITS = TargetLimits(24, 24, 400, start=0)


def rows_of(count: int, seed: int = 0) -> Rows:
    return Rows.of(
        [Row(source, None, None, n, target) for n, (source, target) in enumerate(pairs.sentences(count, seed))]
    )


@pytest.fixture(scope="module")
def words():
    return train_vocabulary((text for pair in pairs.sentences(200) for text in pair), 330)


def read_files(**given) -> Rows:
    return read("train", {"train": Files(**given)}, TASK, stage_outputs={}, seed=0)


def test_lines_of_two_files_belong_together(tmp_path: Path) -> None:
    rows = read_files(**pairs.write(tmp_path, "train", 30))
    assert [(row.text, row.target) for row in rows] == pairs.sentences(30)


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    section = pairs.write(tmp_path, "train", 3)
    Path(section["target_path"]).write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_files(**section)
    expected = (
        f"data.train: {section['path']} has 3 lines, {section['target_path']} has 2; line n of one must be the "
        "translation of line n of the other"
    )
    assert str(caught.value) == expected


@pytest.mark.parametrize("ending", ["xx", "yy"])
def test_a_blank_line_is_an_empty_text_and_shifts_nothing(tmp_path: Path, ending: str) -> None:
    section = pairs.write(tmp_path, "train", 5)
    path = tmp_path / f"train.{ending}"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join([*lines[:2], "", *lines[3:]]), encoding="utf-8")
    name = "text" if ending == "xx" else "target"
    with pytest.raises(DataError, match=f"train.xx:3: `{name}` is empty"):
        read_files(**section)
    kept = read_files(**section, bad_rows="drop")
    assert [(row.text, row.target) for row in kept] == [p for n, p in enumerate(pairs.sentences(5)) if n != 2]
    assert kept.notes == {"rows dropped: empty text": 1}


def test_a_missing_file_of_targets_is_named(tmp_path: Path) -> None:
    section = pairs.write(tmp_path, "train", 3) | {"target_path": str(tmp_path / "train.zz")}
    with pytest.raises(DataError, match=r"data\.train: target_path: .*train\.zz not found"):
        read_files(**section)


def test_a_missing_column_of_targets_says_how_to_do_without(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,german\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"column `target` not in .* set `columns.target: null`"):
        read_files(path=str(tmp_path / "train.csv"))
    rows = read_files(path=str(tmp_path / "train.csv"), columns=Columns(target="german"))
    assert rows.targets == ["b"]
    alone = read_files(path=str(tmp_path / "train.csv"), columns=Columns(target=None))
    assert alone.targets == [None]


def test_a_row_is_known_by_its_source(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,target\na,b\na,c\n", encoding="utf-8")
    first, second = read_files(path=str(tmp_path / "train.csv"))
    assert first.id == second.id
    assert (first.target, second.target) == ("b", "c")


LISTS = [
    {"text": ["One.\n", "  ", "Two."], "target": ["a", "b", "a"]},
    {"text": ["Three."], "target": ["c"]},
    {"text": "Four.", "target": "d"},
]


def test_sentences_are_joined_and_each_of_several_targets_makes_a_row(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in LISTS), encoding="utf-8")
    rows = read_files(path=str(path))
    expected = [("One. Two.", "a"), ("One. Two.", "b"), ("One. Two.", "a"), ("Three.", "c"), ("Four.", "d")]
    assert [(row.text, row.target) for row in rows] == expected
    assert len(set(rows.ids.tolist())) == 3
    assert by_source(rows, "train") == {"One. Two.": ["a", "b"], "Three.": ["c"], "Four.": ["d"]}


def test_lists_of_a_parquet_file_are_read_alike(tmp_path: Path) -> None:
    table = pa.table({"id": [7], "text": [["One.", "Two."]], "target": [["a", "b"]]})
    pq.write_table(table, tmp_path / "train.parquet")
    rows = read_files(path=str(tmp_path / "train.parquet"), columns=Columns(id="id"))
    assert [(row.text, row.target) for row in rows] == [("One. Two.", "a"), ("One. Two.", "b")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "target": []}, "train.jsonl:1: `target` is an empty list"),
        ({"text": "a", "target": ["b", " "]}, "train.jsonl:1: `target` is empty"),
        ({"text": ["", " "], "target": "b"}, "train.jsonl:1: `text` is empty"),
        ({"text": ["a", 3], "target": "b"}, "train.jsonl:1: `text` is 3, no text"),
        ({"text": "a", "target": [["b"]]}, "train.jsonl:1: `target` is ['b'], no text"),
    ],
)
def test_lists_without_a_text_are_refused(tmp_path: Path, row: dict, said: str) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_files(path=str(tmp_path / "train.jsonl"))
    assert str(caught.value) == f"data.train: {tmp_path}/{said}"


def test_sources_and_targets_are_what_the_tokenizer_makes_of_them(words) -> None:
    rows = rows_of(30)
    table = tokenise_targets(rows, words, LIMITS)
    assert table.targets is not None and table.target_offsets is not None
    for number, row in enumerate(rows):
        source = table.tokens[table.offsets[number] : table.offsets[number + 1]].tolist()
        target = table.targets[table.target_offsets[number] : table.target_offsets[number + 1]].tolist()
        assert source == words(row.text)["input_ids"]
        assert target == words(row.target)["input_ids"]
        assert target[-1] == words.eos_token_id


def test_pairs_that_are_too_long_are_left_out_and_counted_never_cut(words) -> None:
    rows = rows_of(40)
    sizes = [(len(words(row.text)["input_ids"]), len(words(row.target)["input_ids"])) for row in rows]
    bound, target_bound = 7, 8
    table = tokenise_targets(rows, words, TargetLimits(bound, target_bound, 400, start=0))
    keep = [number for number, (own, other) in enumerate(sizes) if own <= bound and other <= target_bound]
    assert 0 < len(keep) < 40
    assert table.lengths.tolist() == [sizes[number][0] for number in keep]
    assert table.notes == {"pairs left out, too long": 40 - len(keep)}
    with pytest.raises(DataError, match="none of 40 pairs fits into 1 tokens of source"):
        tokenise_targets(rows, words, TargetLimits(1, 1, 400, start=0))


def test_a_decoder_only_model_has_positions_for_both_together(words) -> None:
    rows, room = rows_of(40), 12
    whole = tokenise_targets(rows, words, TargetLimits(24, 24, 400, start=None))
    table = tokenise_targets(rows, words, TargetLimits(24, 24, 400, start=None, positions=room))
    fitting = [length for length in whole.lengths.tolist() if length <= room]  # the end token is written, not read
    assert table.lengths.tolist() == fitting and 0 < len(fitting) < len(whole)
    assert table.notes == {"pairs left out, too long": len(whole) - len(fitting)}
    with pytest.raises(DataError, match=r"none of 40 pairs fits into .*, both into 1 positions"):
        tokenise_targets(rows, words, TargetLimits(24, 24, 400, start=None, positions=1))


def test_a_source_with_two_targets_makes_two_rows_of_the_cache(words) -> None:
    rows = Rows.of([Row("ba", None, None, 7, "ban"), Row("ba", None, None, 7, "ben"), Row("ba", None, None, 7, "ban")])
    first, second, again = tokenise_targets(rows, words, LIMITS).example_ids.tolist()
    assert first == again != second


def test_a_row_without_target_and_a_token_without_embedding_are_refused(words) -> None:
    with pytest.raises(DataError, match="row 2 has no target"):
        tokenise_targets(Rows.of([Row("ba", None, None, 0, "ban"), Row("be", None, None, 1)]), words, LIMITS)
    with pytest.raises(ModelError, match="the model has embeddings for 300 tokens only"):
        tokenise_targets(rows_of(30), words, TargetLimits(24, 24, 300, start=0))


def test_a_table_with_targets_comes_back_from_disk_and_joins_its_like(words, tmp_path: Path) -> None:
    one, two = tokenise_targets(rows_of(10), words, LIMITS), tokenise_targets(rows_of(7, seed=1), words, LIMITS)
    one.save(tmp_path / "table")
    again = TokenTable.load(tmp_path / "table")
    assert again is not None and again.fingerprint == one.fingerprint and again.start == 0
    joined = TokenTable.concatenate([one, two])
    assert joined.target_lengths.tolist() == [*one.target_lengths.tolist(), *two.target_lengths.tolist()]
    bare = TokenTable.of([[1, 2]], np.array([0]), np.array([5]))
    with pytest.raises(ValueError, match="cannot be joined"):
        TokenTable.concatenate([one, bare])


def test_targets_are_shifted_once_for_a_decoder_beside_its_encoder(words) -> None:
    rows = rows_of(6)
    table = tokenise_targets(rows, words, LIMITS)
    batch = collate(table, np.arange(6), pad_id=0)
    for number, row in enumerate(rows):
        target = words(row.target)["input_ids"]
        padding = batch["labels"].shape[1] - len(target)
        assert batch["labels"][number].tolist() == target + [IGNORED] * padding
        read = [0, *target, *[0] * padding]  # an end token where nothing is to be written does no harm
        assert batch["decoder_input_ids"][number].tolist() == read[: len(target) + padding]


def test_source_and_target_are_one_sequence_for_a_decoder_alone(words) -> None:
    rows = rows_of(6)
    table = tokenise_targets(rows, words, TargetLimits(24, 24, 400, start=None))
    batch = collate(table, np.arange(6), pad_id=0)
    assert "decoder_input_ids" not in batch
    for number, row in enumerate(rows):
        source = words(row.text)["input_ids"]
        target = [*words(row.target, add_special_tokens=False)["input_ids"], words.eos_token_id]
        whole = [*source, *target]
        length = len(whole) - 1
        assert batch["input_ids"][number, :length].tolist() == whole[:-1]
        expected = [IGNORED] * (len(source) - 1) + target
        assert batch["labels"][number, :length].tolist() == expected
        assert (batch["labels"][number, length:] == IGNORED).all()


def test_windows_count_target_tokens_and_sort_by_both_sides(words) -> None:
    table = tokenise_targets(rows_of(50), words, LIMITS)
    sizes = {"targets": table.target_lengths, "beside": True, "devices": 2}
    plan = Plan(table.lengths, table.labelled, Batching(8, tokens=120), 0, 1.0, **sizes)
    seen = 0.0
    for step in range(plan.steps):
        parts = plan.parts(step)
        rows = np.concatenate(parts)
        labels = torch.cat([collate(table, part, 0)["labels"].flatten() for part in parts if len(part)])
        assert plan.counts(step)["targets"] == int((labels != IGNORED).sum())
        both = table.lengths[rows] + table.target_lengths[rows]
        assert len(rows) * int(both.max()) <= 120 or len(rows) == 1
        seen += len(rows)
    assert seen == 50
