"""A body learns from plain text alone (general distillation, MiniLM): no head, no labels, no score."""

import json

import torch
from transformers import AutoModel, AutoTokenizer

from tests.helpers import sentences

GENERAL = {
    "kind": "train",
    "teacher": "base",
    "data": ["train"],
    "objective": [{"kind": "relations", "layers": "last", "pairs": ["qq", "kk", "vv"], "heads": 8}, {"kind": "hidden"}],
    "training": {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3, "log_every": 4},
}
EXPORT = {"kind": "export", "student": "general", "data": "validation", "formats": ["transformers", "onnx"]}
STUDENT = {"kind": "sizes", "layers": 1, "hidden_size": 16, "intermediate_size": 32, "heads": 4}


def test_a_body_learns_from_plain_text_and_is_exported(tmp_path, call):
    task = {"kind": "text", "max_length": 32}
    run = sentences.text_run_file(tmp_path, {"general": GENERAL, "export": EXPORT}, task=task, student=STUDENT)
    code, _, err = call("run", str(run))
    assert code == 0, err
    log = (tmp_path / "run/seed-0/general/log/from-0/metrics.csv").read_text(encoding="utf-8").splitlines()
    losses = [float(line.split(",")[log[0].split(",").index("loss")]) for line in log[1:]]
    assert losses[-1] < 0.8 * losses[0]
    folder = tmp_path / "run/export/transformers"
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = model(**tokenizer(sentences.drawn(1)[0][0], return_tensors="pt")).last_hidden_state
    assert states.shape[-1] == 16 and states.isfinite().all()
    report = (tmp_path / "run/report.md").read_text(encoding="utf-8")
    assert "loss · relations" in report and json.loads((tmp_path / "run/export/results.json").read_text())


def test_plain_text_has_nothing_to_be_scored_by(tmp_path, call):
    task = {"kind": "text", "max_length": 32}
    stages = {
        "general": GENERAL | {"validation": "validation"},
        "evaluate": {"kind": "evaluate", "data": "validation", "student": "general"},
    }
    code, _, err = call("check", str(sentences.text_run_file(tmp_path, stages, task=task, student=STUDENT)))
    assert code == 2
    assert "stages.general.validation: students of plain text have no head and no score; leave it out" in err
    assert "stages.evaluate.kind: `evaluate` compares scores, and plain text has none; leave the stage out" in err
