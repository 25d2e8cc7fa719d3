"""A whole run from a CSV to a report, as a user starts it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.helpers import tiny

TRAINING = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "log_every": 4}
KD = [{"kind": "embeddings"}, {"kind": "hidden"}, {"kind": "attention"}]
STAGES = {
    **tiny.teachers(**TRAINING),
    "general": {
        "kind": "train",
        "teacher": "base",
        "data": ["plain"],
        "once": True,
        "objective": KD,
        "training": TRAINING,
    },
    "augment": {"kind": "augment", "data": "train", "copies": 2, "candidates": 5},
    "intermediate": {"kind": "train", "start": "general", "data": ["augmented"], "objective": KD, "training": TRAINING},
    "prediction": {
        "kind": "train",
        "start": "intermediate",
        "data": ["augmented"],
        "validation": "validation",
        "objective": [{"kind": "logits", "divergence": "ce"}],
        "training": {**TRAINING, "keep": "best"},
    },
    "baseline": {
        "kind": "train",
        "teacher": "none",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "task"}],
        "training": TRAINING,
    },
    "evaluate": {"kind": "evaluate", "data": "validation", "student": "prediction", "baseline": "baseline"},
    "export": {"kind": "export", "student": "prediction", "data": "validation"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    plain = "\n".join(text for text, _ in tiny.sentences(80, seed=5))
    (folder / "plain.txt").write_text(plain + "\n", encoding="utf-8")
    sources = {
        "train": {"path": str(tiny.csv_file(folder / "train.csv", 64))},
        "validation": {"path": str(tiny.csv_file(folder / "validation.csv", 40, seed=1))},
        "plain": {"path": str(folder / "plain.txt"), "format": "lines", "columns": {"label": None}, "pack": True},
        "augmented": {"kind": "stage", "stage": "augment"},
    }
    body = tiny.model_folder(folder / "body", head=False)
    tiny.run_file(folder, STAGES, data=sources, teacher={"model": str(body)}, repeats=2)
    return folder


def test_from_rows_to_a_student_that_transformers_loads(folder, call):
    code, out, err = call("run", str(folder / "run.yaml"))
    assert code == 0, err
    run = folder / "run"
    exported = run / "export" / "transformers"
    model = AutoModelForSequenceClassification.from_pretrained(exported)
    assert model.config.num_hidden_layers == 2 and list(model.config.id2label.values()) == list(tiny.LABELS)
    encoded = AutoTokenizer.from_pretrained(exported)(tiny.WORDS[0], return_tensors="pt")
    assert torch.isfinite(model(**encoded).logits).all()
    assert (exported / "README.md").read_text(encoding="utf-8").startswith("---")
    assert "▸ prediction · seed 1" in out and (run / "report.html").is_file() and (run / "report.md").is_file()


def test_compares_teacher_student_and_baseline_over_the_seeds(folder):
    results = json.loads((folder / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert results["models"].keys() == {"teacher", "student", "baseline"}
    assert results["models"]["student"]["seeds"].keys() == results["models"]["baseline"]["seeds"].keys() == {"0", "1"}
    assert results["models"]["student"]["seeds"]["0"].keys() >= {"accuracy", "agreement", "ece"}
    assert results["models"]["teacher"]["latency"].keys() == {"1", "32"}


def test_the_stages_that_repeats_share_ran_once(folder):
    run = folder / "run"
    assert (run / "general/model").is_dir() and (run / "augment").is_dir() and (run / "teacher/model").is_dir()
    assert not (run / "seed-0/general").exists() and (run / "seed-1/intermediate/model").is_dir()


def test_what_is_done_is_skipped(folder, call):
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("model.safetensors")}
    code, out, _ = call("run", str(folder / "run.yaml"))
    assert code == 0 and out.count("done before") == 11
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_changed_and_what_depends_on_it_is_done_again(folder, call):
    code, out, _ = call("run", str(folder / "run.yaml"), "stages.prediction.training.learning_rate=2e-3")
    assert code == 0
    done = [line.split(":")[0].removeprefix("▸ ") for line in out.splitlines() if "done before" in line]
    assert "intermediate · seed 0" in done and "baseline · seed 1" in done
    assert not {"prediction · seed 0", "evaluate", "export"} & set(done)


def test_check_writes_nothing(folder, call, tmp_path):
    code, out, _ = call("check", str(folder / "run.yaml"), f"output={tmp_path / 'none'}")
    assert code == 0 and "all checks passed" in out and not (tmp_path / "none").exists()
    assert "1→2 2→4" in out and "rows" in out and "memory" in out


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_warned_of_where_the_device_has_none(folder, call, monkeypatch, native):
    monkeypatch.setattr("pipelines.machine._has_bf16", lambda accelerator: native)
    code, out, err = call("check", str(folder / "run.yaml"), "stages.baseline.training.precision=bf16")
    assert code == 0, err
    assert ("stages.baseline.training.precision: bf16 is emulated on this device" in out) is not native
