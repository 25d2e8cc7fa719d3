"""Taggers through whole runs, as a user starts them: parts of speech and names."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, pipeline

from tests.helpers import sentences

TRAINING = {"epochs": 6, "batch_size": 8, "learning_rate": 5e-3, "log_every": 4}
TERMS = [
    {"kind": "task"},
    {"kind": "logits", "temperature": 2},
    {"kind": "hidden"},
    {"kind": "attention"},
    {"kind": "relations", "heads": 4},
]


def _train(**given) -> dict:
    base = {"kind": "train", "data": ["train"], "validation": "validation", "training": TRAINING}
    return {**base, "objective": [{"kind": "task"}], **given}


def _stages(**more) -> dict:
    return {
        "teacher": _train(trains="teacher", teacher="none"),
        "student": _train(objective=TERMS),
        "baseline": _train(teacher="none"),
        "evaluate": {"kind": "evaluate", "data": "validation", "student": "student", "baseline": "baseline"},
        **more,
    }


EXPORT = {"kind": "export", "student": "student", "data": "validation"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tagging")


def test_a_tagger_is_taught_compared_and_exported(folder, call):
    stages = _stages(export={**EXPORT, "formats": ["transformers", "onnx", "onnx_int8"]})
    code, out, err = call("run", str(sentences.run_file(folder, stages)))
    assert code == 0, err
    run = folder / "run"
    results = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))
    assert results["metric"] == "accuracy" and results["labels"] == list(sentences.PARTS)
    student = results["models"]["student"]["seeds"]["0"]
    assert student["accuracy"] > 0.9 and student["agreement"] > 0.9 and student["agreement_kl"] < 0.5
    assert set(results["verdict"]["gain"]["per_seed"]) == {"0"}
    exported = json.loads((run / "export" / "results.json").read_text(encoding="utf-8"))["formats"]
    assert exported["transformers"]["parity"]["value"] == 0 and exported["onnx"]["parity"]["value"] < 1e-4
    card = (run / "export" / "transformers" / "README.md").read_text(encoding="utf-8")
    assert "token-classification" in card
    assert "3: ADJ, NOUN, VERB" in out


def test_the_exported_folder_is_a_tagger_to_transformers(folder, call):
    path = folder / "run" / "export" / "transformers"
    tagger = pipeline("token-classification", model=str(path), tokenizer=AutoTokenizer.from_pretrained(path))
    words = sentences.drawn(1, seed=9)[0]
    said = [found["entity"] for found in tagger(" ".join(words))]
    right = [sentences.part_of_speech(word) for word in words]
    assert sum(own == gold for own, gold in zip(said, right, strict=True)) >= 0.7 * len(words)


def test_names_are_scored_whole_and_a_recorded_teacher_is_the_live_one(tmp_path, call):
    task = {"kind": "tagging", "max_length": 24, "metric": "entity_f1"}
    terms = [{"kind": "logits", "temperature": 2}, {"kind": "task"}]
    stages = {
        "teacher": _train(trains="teacher", teacher="none"),
        "answers": {"kind": "record", "data": ["train"]},
        "live": _train(objective=terms),
        "student": _train(objective=terms, cache="answers", training={**TRAINING, "keep": "best"}),
        "evaluate": {"kind": "evaluate", "data": "validation", "student": "student", "latency": False},
    }
    stages["live"]["training"] = stages["student"]["training"]
    code, _, err = call("run", str(sentences.run_file(tmp_path, stages, what="names", task=task)))
    assert code == 0, err
    results = json.loads((tmp_path / "run" / "evaluate" / "results.json").read_text(encoding="utf-8"))
    assert results["metric"] == "entity_f1" and results["models"]["student"]["seeds"]["0"]["entity_f1"] > 0.5
    marks = [tmp_path / "run" / "seed-0" / name / "stage.json" for name in ("live", "student")]
    scores = [json.loads(mark.read_text(encoding="utf-8"))["results"]["validation"] for mark in marks]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_labels_of_a_given_teacher_are_matched_by_name(tmp_path, call):
    """A student learns from a tagger whose outputs are numbered otherwise."""
    first = {"teacher": _train(trains="teacher", teacher="none")}
    code, _, err = call("run", str(sentences.run_file(tmp_path / "first", first)))
    assert code == 0, err
    task = {"kind": "tagging", "max_length": 24, "labels": ["VERB", "ADJ", "NOUN"]}
    stages = {
        "student": _train(objective=[{"kind": "logits"}]),
        "evaluate": {"kind": "evaluate", "data": "validation", "student": "student", "latency": False},
    }
    given = {"task": task, "teacher": {"model": str(tmp_path / "first" / "run" / "teacher" / "model")}}
    code, _, err = call("run", str(sentences.run_file(tmp_path / "second", stages, **given)))
    assert code == 0, err
    results = json.loads((tmp_path / "second" / "run" / "evaluate" / "results.json").read_text(encoding="utf-8"))
    assert results["labels"] == task["labels"]
    assert all(model["seeds"]["0"]["accuracy"] > 0.9 for model in results["models"].values())
    assert results["models"]["student"]["seeds"]["0"]["agreement"] > 0.9


def test_what_does_not_fit_is_refused_at_set_up(tmp_path, call):
    task = {"kind": "tagging", "max_length": 24, "metric": "bleu"}
    stages = _stages(augment={"kind": "augment", "data": "train"})
    code, _, err = call("run", str(sentences.run_file(tmp_path, stages, task=task)))
    assert code == 2
    assert "`bleu` does not measure tagging" in err
    assert "`augment` replaces words, and `tagging` needs a class for each" in err
    assert not (tmp_path / "run").exists()
