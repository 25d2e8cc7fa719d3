"""Summaries: abstracts of SciTLDR as lists of sentences, several references each, judged by ROUGE."""

import json
import os
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.text import rouge_score

from tests.helpers import pairs
from tests.helpers.training import weights

SHARED = Path(os.environ.get("DISTILL_SHARED", Path(__file__).parents[3] / "shared"))
FILES = SHARED / "data" / "scitldr_a"
COLUMNS = {"text": "source", "target": "target", "id": "paper_id"}
SIZES = {"layers": 2, "decoder_layers": 2, "hidden_size": 32, "intermediate_size": 64, "heads": 2}
TRAINING = {"max_steps": 10, "tokens_per_batch": 4096, "learning_rate": 3e-3, "watch": "warn", "validate_every": 0}
ALONE = {"kind": "train", "teacher": "none", "objective": [{"kind": "task"}], "training": TRAINING}
STAGES = {
    "teacher": {
        **ALONE,
        "trains": "teacher",
        "data": ["train"],
        "validation": "validation",
        "training": {**TRAINING, "max_steps": 100},
    },
    "texts": {"kind": "generate", "data": ["train"], "decoding": {"beams": 2, "max_tokens": 16}},
    "selected": {"kind": "select", "generated": "texts", "filters": None},
    "student": {**ALONE, "data": ["told"]},
    "baseline": {**ALONE, "data": ["train"]},
    "soft": {
        "kind": "train",
        "data": ["train"],
        "objective": [
            {"kind": "logits", "weight": 0.8, "temperature": 2},
            {"kind": "task", "weight": 0.2},
            {"kind": "hidden", "side": "decoder", "weight": 3.0},
        ],
        "training": {**TRAINING, "freeze": ["encoder", "embeddings"]},
    },
    "evaluate": {
        "kind": "evaluate",
        "data": "test",
        "student": "student",
        "baseline": "baseline",
        "others": ["soft"],
        "decoding": {"beams": 2, "max_tokens": 16},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    if not FILES.is_dir():
        pytest.skip(f"no SciTLDR in {FILES}; set DISTILL_SHARED")
    folder = tmp_path_factory.mktemp("summaries")
    parts = {"train": ("train", 150), "validation": ("dev", 30), "test": ("test", 30)}
    files = {
        name: {"path": str(FILES / f"{part}.jsonl.gz"), "columns": COLUMNS, "limit": rows}
        for name, (part, rows) in parts.items()
    }
    pairs.run_file(
        folder,
        STAGES,
        task={"kind": "generation", "max_length": 512, "max_target_length": 96, "metric": "rouge2"},
        teacher={"kind": "fresh", "vocabulary": 1000, **SIZES, "options": {"dropout": 0.0}},
        student={"kind": "teacher_layers", "layers": 2, "decoder_layers": 1},
        data={**files, "told": {"kind": "stage", "stage": "selected"}},
    )
    return folder


def test_a_summariser_is_distilled_and_judged_by_rouge(call, folder: Path) -> None:
    code, out, err = call("run", str(folder / "run.yaml"))
    assert (code, err) == (0, ""), out + err
    found = json.loads((folder / "run/evaluate/results.json").read_text(encoding="utf-8"))
    assert found["metric"] == "rouge2"
    assert found["references"] == 30 > found["rows"]
    assert found["signatures"]["rouge2"].startswith("nrefs:var|")
    assert {"rouge1", "rouge2", "rougeL", "rouge2_greedy"} <= set(found["models"]["soft"]["seeds"]["0"])
    report = (folder / "run/report.md").read_text(encoding="utf-8")
    assert "ROUGE-2" in report and "| soft |" in report


def test_what_was_frozen_is_the_teachers_still(folder: Path) -> None:
    run = folder / "run"
    told, learnt = (weights(run / stage) for stage in ("teacher", "seed-0/soft"))
    kept = [name for name in learnt if ("encoder." in name and "encoder_attn" not in name) or "shared" in name]
    assert len(kept) > 20
    assert all(torch.equal(learnt[name], told[name]) for name in kept)
    moved = [name for name in learnt if name.startswith("model.decoder.layers.")]
    assert moved and not any(torch.equal(learnt[name], told[name]) for name in moved if name.endswith("weight"))


def test_of_several_references_the_best_counts(folder: Path) -> None:
    lines = (folder / "run/evaluate/texts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert max(len(row["references"]) for row in rows) > 1
    found = json.loads((folder / "run/evaluate/results.json").read_text(encoding="utf-8"))
    scores = []
    for role in ("teacher", "student", "baseline", "soft"):
        best = [max(_rouge(row[role], reference) for reference in row["references"]) for row in rows]
        scores.append(found["models"][role]["seeds"]["0"]["rouge1"])
        assert scores[-1] == pytest.approx(sum(best) / len(best), abs=1e-6)
    assert max(scores) > 0


def _rouge(text: str, reference: str) -> float:
    return float(rouge_score(text, reference, rouge_keys="rouge1")["rouge1_fmeasure"])
