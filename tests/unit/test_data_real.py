"""The real files of public data sets, where they are at hand: counts as their publishers state them.

They are looked for in the folder DISTILL_SHARED, else in `shared` beside the repository.
"""

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from configs.data import Columns, Files, Held, Source, Task
from configs.stages import AugmentStage
from distill.data.augment import augment
from distill.data.labels import encode, label_counts, label_names
from distill.data.neighbours import load_neighbours
from distill.data.rows import Rows
from distill.data.sources import read
from distill.data.tokenise import Limits, pack, tokenise
from distill.errors import DataError
from distill.models import ModelSource, load_tokenizer

SHARED = Path(os.environ.get("DISTILL_SHARED", Path(__file__).parents[3] / "shared"))
MODEL = SHARED / "models" / "minilm_l6_fp16"
CLASSES = Task()
PAIR = Columns(text="#1 String", pair="#2 String", label="Quality")
TREC = r"(?P<label>[A-Z]+):(?P<fine>\w+) (?P<text>.*)"

pytestmark = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"no data sets in {SHARED}; set DISTILL_SHARED")


def source(path: str, **fields: object) -> Files:
    return Files.model_validate({"path": str(SHARED / "data" / path), **fields})


def rows_of(files: Files, task: Task = CLASSES) -> Rows:
    return read("train", {"train": files}, task, stage_outputs={}, seed=0)


CLASSIFICATION = [
    (source("sst2/train.tsv.gz", quoting=False, columns=Columns(text="sentence")), {"1": 37569, "0": 29780}),
    (source("sst2/dev.tsv.gz", quoting=False, columns=Columns(text="sentence")), {"1": 444, "0": 428}),
    (source("mrpc/train.tsv.gz", quoting=False, columns=PAIR), {"1": 2474, "0": 1194}),
    (source("mrpc/dev.tsv.gz", quoting=False, columns=PAIR), {"1": 279, "0": 129}),
    (source("trec/train.txt.gz", format="lines", pattern=TREC),
     {"DESC": 1162, "ENTY": 1250, "ABBR": 86, "HUM": 1223, "NUM": 896, "LOC": 835}),
]  # fmt: skip


@pytest.mark.parametrize(("files", "counts"), CLASSIFICATION, ids=lambda value: getattr(value, "path", ""))
def test_classes_and_their_counts(files: Files, counts: dict[str, int]) -> None:
    assert label_counts(rows_of(files)) == counts


def test_banking77_has_line_breaks_in_its_texts() -> None:
    found = rows_of(source("banking77/train.csv.gz", columns=Columns(label="category")))
    assert len(found) == 10003
    assert len(label_names(Task(), [found])) == 77
    assert any("\n" in row.text for row in found)
    assert len(set(found.ids.tolist())) == 10003 - sum(n - 1 for n in Counter(row.text for row in found).values())


def test_stsb_scores() -> None:
    columns = Columns(text="first", pair="second", label="score")
    files = source("stsb_multi/stsb-en-train.csv.gz", header=("first", "second", "score"), columns=columns)
    found = rows_of(files, Task(kind="regression"))
    scores = encode(found, Task(kind="regression"), ())
    assert (len(found), round(float(scores.mean()), 2), float(scores.min()), float(scores.max())) == (5749, 2.70, 0, 5)
    assert len(found) - len(set(found.ids.tolist())) == 43


@pytest.mark.parametrize(("part", "sources", "rows"), [("train", 1992, 1992), ("dev", 619, 1453), ("test", 618, 1967)])
def test_summaries_have_several_references(part: str, sources: int, rows: int) -> None:
    columns = Columns(text="source", target="target", id="paper_id")
    found = rows_of(source(f"scitldr_a/{part}.jsonl.gz", columns=columns), Task(kind="generation"))
    assert (len(found), len(set(found.ids.tolist()))) == (rows, sources)


@pytest.mark.parametrize(
    ("path", "text", "target", "count"),
    [
        ("gpteacher/codegen-instruct.json.gz", "instruction", "response", 4535),
        ("gpteacher/roleplay-instruct.json.gz", "instruction", "response", 1923),
        ("alpaca_eval_outputs/gpt4.jsonl.gz", "instruction", "output", 569),
    ],
)
def test_answers_that_models_gave(path: str, text: str, target: str, count: int) -> None:
    found = rows_of(source(path, columns=Columns(text=text, target=target)), Task(kind="generation"))
    assert len(found) == count and None not in found.targets


def test_quotes_of_mrpc_are_not_swallowed() -> None:
    with pytest.raises(DataError, match=r"set `quoting: false` if quotes are part of the texts$"):
        rows_of(source("mrpc/train.tsv.gz", columns=PAIR))


def test_a_part_held_out_of_sst2_shares_no_text_with_the_rest() -> None:
    sources: dict[str, Source] = {
        "train": CLASSIFICATION[0][0],
        "part": Held(kind="held_out", of="train", fraction=0.05),
    }
    train, part = (read(name, sources, Task(), stage_outputs={}, seed=0) for name in ("train", "part"))
    assert len(train) + len(part) == 67349
    assert not {row.text for row in train} & {row.text for row in part}


@pytest.mark.skipif(not MODEL.is_dir(), reason=f"no model in {MODEL}")
def test_plain_text_is_packed_nearly_full_and_nothing_is_lost() -> None:
    tokenizer = load_tokenizer(ModelSource(str(MODEL)), "teacher.model")
    found = rows_of(source("wikitext2_raw_eval/wiki.valid.raw.gz", limit=600), Task(kind="text"))
    table = pack(found, tokenizer, Limits(128, 30522))
    whole = tokenise(found, encode(found, Task(kind="text"), ()), tokenizer, Limits(4000, 30522))
    assert table.lengths.max() == 128
    assert table.lengths.mean() > 96
    assert len(table.tokens) - 2 * len(table) == len(whole.tokens) - 2 * len(whole)
    inside = [table.tokens[a + 1 : b - 1] for a, b in pairwise(table.offsets)]
    lines = [whole.tokens[a + 1 : b - 1] for a, b in pairwise(whole.offsets)]
    assert np.array_equal(np.concatenate(inside), np.concatenate(lines))


@pytest.mark.skipif(not MODEL.is_dir(), reason=f"no model in {MODEL}")
def test_neighbours_in_a_real_embedding_are_near_in_meaning() -> None:
    proposer = load_neighbours(ModelSource(str(MODEL)), 15, "teacher.model")
    files = CLASSIFICATION[1][0].model_copy(update={"limit": 40})
    rows = rows_of(files)
    stage = AugmentStage(kind="augment", data="train", copies=5)
    made = list(augment(rows, stage, masked_lm=None, neighbours=proposer, seed=0))
    assert 4 * len(rows) < len(made) <= 6 * len(rows)
    assert {"film", "movies"} <= set(proposer._known["movie"])


UPOS = Columns(words="form", tags="upos")
UNER = ("id", "words", "tags")
SENTENCES = [
    (source("ud_english_ewt/en_ewt-ud-train.conllu.gz", columns=UPOS), 12544, 204577),
    (source("ud_english_ewt/en_ewt-ud-dev.conllu.gz", columns=UPOS), 2001, 25147),
    (source("ud_afrikaans_afribooms/af_afribooms-ud-train.conllu.gz", columns=UPOS), 1315, 33878),
    (source("ud_afrikaans_afribooms/af_afribooms-ud-dev.conllu.gz", columns=UPOS), 194, 5317),
    (source("uner_english_ewt/en_ewt-ud-train.preliminary.iob2.gz", header=UNER), 12543, 204579),
    (source("uner_english_ewt/en_ewt-ud-dev.iob2.gz", header=UNER), 2001, 25149),
    (source("masakhaner2_swa/dev.txt.gz", format="conll"), 942, 25251),
    (source("masakhaner2_swa/test.txt.gz", format="conll"), 1883, 51179),
]


@pytest.mark.parametrize(("files", "sentences", "words"), SENTENCES, ids=lambda value: getattr(value, "path", ""))
def test_sentences_and_their_words(files: Files, sentences: int, words: int) -> None:
    found = rows_of(files, Task(kind="tagging"))
    assert (len(found), sum(len(row.words or []) for row in found)) == (sentences, words)


def test_names_of_masakhaner() -> None:
    """Names as the paper counts them: of each class as many as words that begin one."""
    found = rows_of(source("masakhaner2_swa/train.txt.gz", format="conll"), Task(kind="tagging"))
    begun = Counter(tag for row in found for tag in row.tags or [] if tag.startswith("B-"))
    assert begun == {"B-LOC": 6111, "B-DATE": 2270, "B-ORG": 2327, "B-PER": 3875}


@pytest.mark.parametrize(("part", "count", "without"), [("codegen", 4535, 955), ("roleplay", 1923, 1480)])
def test_instructions_with_and_without_an_input_are_one_text(part: str, count: int, without: int) -> None:
    prompt = "Instruction: {instruction}\nInput: {input?}\nResponse:"
    files = source(f"gpteacher/{part}-instruct.json.gz", columns=Columns(text=prompt, target="response"))
    found = [row.text for row in rows_of(files, Task(kind="generation"))]
    assert len(found) == count and sum("\nInput: " not in text for text in found) == without
    assert all(text.startswith("Instruction: ") and text.endswith("\nResponse:") for text in found)
