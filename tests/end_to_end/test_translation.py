"""A whole run of sequence-level distillation, from two files of sentences to a report, as a user starts it."""

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.helpers import pairs

GOLD = {"data": ["train"], "validation": "validation", "training": pairs.TRAINING}
STAGES = {
    "teacher": {
        "kind": "train",
        "trains": "teacher",
        **GOLD,
        "objective": [{"kind": "task", "label_smoothing": 0.1}],
        "training": {**pairs.TRAINING, "epochs": 30, "keep": "best"},
    },
    "texts": {
        "kind": "generate",
        "data": ["train"],
        "shard_characters": 1000,
        "decoding": {"beams": 3, "hypotheses": 3},
    },
    "best": {"kind": "select", "generated": "texts", "filters": None},
    "nearest": {"kind": "select", "generated": "texts", "by": "chrf", "filters": {"unended": True}},
    "seq": {**GOLD, "kind": "train", "teacher": "none", "data": ["told"], "objective": [{"kind": "task"}]},
    "word": {
        **GOLD,
        "kind": "train",
        "data": ["told", "train"],
        "objective": [
            {"kind": "task"},
            {"kind": "logits"},
            {"kind": "hidden"},
            {"kind": "hidden", "side": "decoder"},
            {"kind": "attention", "side": "decoder"},
            {"kind": "attention", "side": "cross", "target": "probabilities"},
            {"kind": "relations", "side": "decoder"},
        ],
    },
    "inter": {
        **GOLD,
        "kind": "train",
        "start": "seq",
        "teacher": "none",
        "data": ["near"],
        "objective": [{"kind": "task"}],
    },
    "plain": {**GOLD, "kind": "train", "teacher": "none", "objective": [{"kind": "task"}]},
    "evaluate": {
        "kind": "evaluate",
        "data": "test",
        "student": "seq",
        "baseline": "plain",
        "others": ["word", "inter"],
        "decoding": {"beams": 3},
    },
    "export": {"kind": "export", "student": "seq", "data": "test", "formats": ["transformers", "ctranslate2"]},
}
DATA = {"told": {"kind": "stage", "stage": "best"}, "near": {"kind": "stage", "stage": "nearest"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("translation")
    pairs.run_file(folder, STAGES, data=DATA, repeats=2)
    return folder


def results(folder: Path, stage: str) -> dict:
    found: dict = json.loads((folder / "run" / stage / "stage.json").read_text(encoding="utf-8"))["results"]
    return found


def test_a_run_ends_with_a_student_and_a_verdict(call, folder: Path) -> None:
    code, out, err = call("run", str(folder / "run.yaml"))
    assert (code, err) == (0, ""), out + err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # stages that do not train end at once
    evaluation = json.loads((folder / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert evaluation["roles"] == ["teacher", "student", "baseline", "word", "inter"]
    assert sorted(evaluation["models"]["student"]["seeds"]) == ["0", "1"]
    teacher = evaluation["models"]["teacher"]["seeds"]["0"]
    assert results(folder, "teacher")["validation"]["log_prob"] > -4.0  # that of a guess is −5.8
    assert {"bleu", "bleu_greedy", "sentences_per_second_greedy", "hallucinated"} <= set(teacher)
    assert evaluation["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert evaluation["rows"] == evaluation["references"] == 20
    assert len((folder / "run/evaluate/texts.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    report = (folder / "run/report.md").read_text(encoding="utf-8")
    assert "| inter |" in report and "BLEU, greedy" in report


def test_what_was_written_and_chosen_is_told(folder: Path) -> None:
    texts, best, nearest = (results(folder, stage) for stage in ("texts", "best", "nearest"))
    assert texts["rows"] == 120 and texts["shards"] > 1
    assert texts["engine"].startswith("CTranslate2") and texts["parity"] < 1e-3
    assert best["texts"] == 120 and nearest["texts"] == 120
    table = pq.read_table(folder / "run/nearest/choices/choices.parquet").to_pydict()
    assert len(table["id"]) == 120
    kept = [why for why in table["reasons"] if not why]
    assert len(kept) == nearest["kept"] == pq.read_metadata(folder / "run/nearest/part-00000.parquet").num_rows
    assert nearest["likeness"] >= _likeness_of_the_first(folder)


def _likeness_of_the_first(folder: Path) -> float:
    from teachers.text.select import scorer

    score = scorer("chrf")
    first = pq.read_table(folder / "run/best/choices/choices.parquet").to_pydict()
    references = dict(pairs.sentences(120))
    likeness = [score(text, references[source]) for source, text in zip(first["source"], first["text"], strict=True)]
    return sum(likeness) / len(likeness)


def test_the_student_loads_and_writes(folder: Path) -> None:
    place = folder / "run/export/transformers"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    assert model.config.decoder_layers == 1 and model.config.vocab_size == len(tokenizer) == 320
    written = model.generate(**tokenizer("ba be", return_tensors="pt"), max_new_tokens=8)
    assert tokenizer.batch_decode(written, skip_special_tokens=True)
    assert (folder / "run/export/ctranslate2/model.bin").is_file()


def test_the_same_command_does_nothing_twice(call, folder: Path) -> None:
    code, out, _ = call("run", str(folder / "run.yaml"))
    assert code == 0
    assert out.count("done before") == 4 + 2 * 4 + 2


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ((), False),
        (("stages.seq.training.keep=best",), True),
        (("stages.plain.training.keep=best",), False),
        (("stages.seq.training.keep=best", "stages.seq.training.validate_texts=8"), False),
    ],
    ids=["the last weights", "the best", "the best of what learns the references", "the best by what it writes"],
)
def test_references_do_not_tell_when_a_student_of_texts_writes_best(call, tmp_path, changes, warned):
    run = pairs.run_file(tmp_path, STAGES, data=DATA)
    code, out, err = call("check", str(run), *changes)
    told = " ".join((out + err).split())
    assert code == 0, told
    assert ("stages.seq.training.keep: best goes by how likely the references are" in told) is warned
    assert ("validate_texts=200 goes by what it writes" in told) is warned
