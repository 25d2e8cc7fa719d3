"""Sentences whose words have a class each: files, columns, tokens, and what a training sees of them."""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from configs.data import Columns, Files, Held, Task
from distill.data.collate import collate
from distill.data.labels import label_names
from distill.data.rows import Row, Rows
from distill.data.sources import read
from distill.data.table import TokenTable
from distill.data.tagged import tokenise_words
from distill.data.tokenise import Limits
from distill.errors import DataError
from distill.types import IGNORED
from tests.helpers import tiny

TASK = Task(kind="tagging", max_length=16)

CONLLU = """\
# sent_id = 1
# text = don't go
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\t_\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t3\tadvmod\t_\t_
2.1\tyou\tyou\tPRON\t_\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\t_\t_\t0\troot\t_\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""
IOB2 = """\
# sent_id = x-1 of many words
1\tin\tO\t-\t-
2\ttampa\tB-LOC\t-\tan
3\tbay\tI-LOC\t-\tan

"""
BLANKS = """\
-DOCSTART- -X- -X- O

New NNP B-NP B-LOC
York NNP I-NP I-LOC
# # O O

no-break\u00a0blank NN O O
"""


def _read(path: Path, text: str, task: Task = TASK, **given) -> Rows:
    path.write_text(text, encoding="utf-8")
    return read("some", {"some": Files(path=str(path), **given)}, task, stage_outputs={}, seed=0)


def test_conllu_gives_words_and_any_of_its_columns(tmp_path):
    rows = _read(tmp_path / "a.conllu", CONLLU, columns=Columns(words="form", tags="upos"))
    first, second = rows
    assert (first.words, first.tags) == (["do", "n't", "go"], ["AUX", "PART", "VERB"])
    assert (second.words, second.tags) == (["#"], ["SYM"])
    assert first.text == "do n't go" and label_names(TASK, [rows]) == ("AUX", "PART", "SYM", "VERB")


def test_columns_of_shared_tasks(tmp_path):
    header = ("id", "words", "tags")
    (numbered,) = _read(tmp_path / "a.iob2", IOB2, header=header)
    assert (numbered.words, numbered.tags) == (["in", "tampa", "bay"], ["O", "B-LOC", "I-LOC"])
    first, second = _read(tmp_path / "b.txt", BLANKS, format="conll")
    assert (first.words, first.tags) == (["New", "York", "#"], ["B-LOC", "I-LOC", "O"])
    assert second.words == ["no-break\u00a0blank"]


def test_lists_of_words_in_other_files(tmp_path):
    record = {"tokens": ["ba", "da"], "ner": [0, 3]}
    given = {"columns": Columns(words="tokens", tags="ner"), "label_names": {"0": "O", "3": "B-LOC"}}
    (row,) = _read(tmp_path / "a.jsonl", json.dumps(record), **given)
    assert (row.words, row.tags) == (["ba", "da"], ["O", "B-LOC"])
    pq.write_table(pa.table({name: [value] for name, value in record.items()}), tmp_path / "a.parquet")
    source = Files(path=str(tmp_path / "a.parquet"), **given)
    (same,) = read("some", {"some": source}, TASK, stage_outputs={}, seed=0)
    assert same == row


def test_a_column_of_lists_of_classes_gives_their_names(tmp_path):
    features = datasets.Features(
        {"words": datasets.List(datasets.Value("string")), "tags": datasets.List(datasets.ClassLabel(names=["O", "B"]))}
    )
    made = datasets.Dataset.from_dict({"words": [["ba", "da"]], "tags": [[1, 0]]}, features=features)
    made.save_to_disk(tmp_path / "set")
    (row,) = read("some", {"some": Files(path=str(tmp_path / "set"))}, TASK, stage_outputs={}, seed=0)
    assert row.tags == ["B", "O"]


FAULTS = {
    "a class is missing": ('{"words": ["a", "b"], "tags": ["O"]}', ":1: 2 words and 1 classes"),
    "no list": ('{"words": "a b", "tags": ["O"]}', "`words` is 'a b', no list"),
    "another column": ('{"tokens": ["a"], "tags": ["O"]}', "column `words` not in"),
    "an unknown class": ('{"words": ["a"], "tags": ["X"]}', "label `X` not in task.labels"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_with_their_place(tmp_path, fault):
    text, told = FAULTS[fault]
    with pytest.raises(DataError, match=r"data\.some: ") as caught:
        _read(tmp_path / "a.jsonl", text, Task(kind="tagging", labels=("O", "B-LOC")))
    assert told in str(caught.value)


def test_a_line_with_too_few_fields_is_a_bad_row(tmp_path):
    with pytest.raises(DataError, match=r"a.iob2:1: line 2 has not the 2 fields of a word"):
        _read(tmp_path / "a.iob2", "a\tO\nb\n")
    kept = _read(tmp_path / "b.iob2", "a\tO\nb\n\nc\tO\n", bad_rows="drop")
    assert len(kept) == 1 and sum(kept.notes.values()) == 1


def test_sentences_are_held_out_with_their_classes(tmp_path):
    lines = [json.dumps({"words": [f"w{i}", "x"], "tags": ["O", "B-LOC"]}) for i in range(200)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    sources = {"all": Files(path=str(tmp_path / "a.jsonl")), "part": Held(kind="held_out", of="all", fraction=0.2)}
    parts = [read(name, sources, TASK, stage_outputs={}, seed=0) for name in sources]
    assert sum(map(len, parts)) == 200 and all(row.tags == ["O", "B-LOC"] for part in parts for row in part)


def _rows(*sentences: list[str]) -> Rows:
    classes = ["O", "B-LOC"]
    made = [
        Row(" ".join(s), None, None, n, words=s, tags=[classes[i % 2] for i in range(len(s))])
        for n, s in enumerate(sentences)
    ]
    return Rows.of(made)


def _table(tokenizer: PreTrainedTokenizerFast, rows: Rows, length: int = 16, **given) -> TokenTable:
    return tokenise_words(rows, ("O", "B-LOC"), tokenizer, Limits(length, len(tokenizer)), **given)


def _unigram() -> PreTrainedTokenizerFast:
    """A tokenizer as XLM-R's: pieces of SentencePiece, a mark before each word."""
    pieces = ["<s>", "</s>", "<unk>", "<pad>", "▁", "▁ba", "▁d", "n", "a", "l", "o", "b", "d"]
    core = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>")


@pytest.mark.parametrize("make", [tiny.tokenizer, _unigram])
def test_the_first_piece_of_each_word_carries_its_class(make):
    tokenizer = make()
    sentence = ["ban", "da", "loban", "ba", "dan", "-"]
    table = _table(tokenizer, _rows(sentence), 32)
    known = tokenizer(sentence, is_split_into_words=True)
    assert table.tokens.tolist() == known["input_ids"]
    word_ids, before = known.word_ids(), None
    for word, tag in zip(word_ids, table.tags.tolist(), strict=True):
        assert tag == (word % 2 if word is not None and word != before else IGNORED)
        before = word


def test_long_sentences_are_split_before_words_and_lose_none():
    sentence = ["ban", "dan", "loban", "ba"] * 5
    table = _table(tiny.tokenizer(), _rows(sentence, ["ba"]), 8)
    assert table.lengths.max() <= 8 and len(table) > 2
    assert table.tags[table.tags != IGNORED].tolist() == [i % 2 for i in range(20)] + [0]
    assert int(table.target_lengths.sum()) == 21 and len(set(table.example_ids.tolist())) == len(table)
    assert table.notes == {"sentences split to fit 8 tokens": 1}
    starts = table.offsets[:-1] + 1
    assert (table.tags[starts] != IGNORED).all()


def test_words_without_a_token_are_counted():
    table = _table(tiny.tokenizer(), _rows(["ba", "\u200b\u200b", "da"]))
    assert table.notes == {"words without a token": 1}
    assert table.tags[table.tags != IGNORED].tolist() == [0, 0]


def test_tables_are_kept_and_joined(tmp_path):
    rows = _rows(["ba", "da"], ["ban"])
    first, again = (_table(tiny.tokenizer(), rows, cache=tmp_path) for _ in range(2))
    assert np.array_equal(first.tags, again.tags) and first.fingerprint == again.fingerprint
    joined = TokenTable.concatenate([first, again])
    assert joined.tags.tolist() == [*first.tags.tolist()] * 2


def test_a_batch_has_the_classes_where_words_begin():
    batch = collate(_table(tiny.tokenizer(), _rows(["ba", "da"], ["ban"])), np.array([1, 0]), 0)
    assert batch["labels"].shape == batch["input_ids"].shape
    assert batch["labels"].tolist() == [
        [IGNORED, 0, *[IGNORED] * (batch["labels"].shape[1] - 2)],
        [IGNORED, 0, 1, IGNORED],
    ]
