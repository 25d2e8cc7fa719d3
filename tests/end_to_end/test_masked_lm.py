"""Masked language models through whole runs: taught on hidden tokens, and through an adapter that is undone again."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from configs.data import Task
from distill.models import ModelSource, load
from distill.module import DistillModule
from tests.helpers import sentences

TRAINING = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "log_every": 4}


def _train(**given) -> dict:
    base = {"kind": "train", "data": ["train"], "validation": "validation", "training": TRAINING}
    return {**base, "objective": [{"kind": "task"}], **given}


def test_a_student_finds_hidden_tokens_as_its_teacher(tmp_path, call):
    terms = [{"kind": "logits", "temperature": 2}, {"kind": "task"}, {"kind": "hidden", "distance": "cosine"}]
    stages = {
        "teacher": _train(trains="teacher", teacher="none"),
        "student": _train(objective=terms, training={**TRAINING, "keep": "best"}),
        "baseline": _train(teacher="none"),
        "evaluate": {"kind": "evaluate", "data": "validation", "student": "student", "baseline": "baseline"},
        "export": {
            "kind": "export",
            "student": "student",
            "data": "validation",
            "formats": ["transformers", "onnx", "onnx_int8"],
        },
    }
    code, _, err = call("run", str(sentences.text_run_file(tmp_path, stages)))
    assert code == 0, err
    results = json.loads((tmp_path / "run" / "evaluate" / "results.json").read_text(encoding="utf-8"))
    assert results["metric"] == "masked_accuracy"
    scores = results["models"]["student"]["seeds"]["0"]
    assert scores["perplexity"] < 110 and 0 <= scores["agreement"] <= 1 and scores["log_prob"] < 0
    whole = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "export" / "transformers")
    assert whole.config.num_hidden_layers == 2
    card = (tmp_path / "run" / "export" / "transformers" / "README.md").read_text(encoding="utf-8")
    assert "fill-mask" in card


def test_an_invertible_adapter_learns_at_both_ends(tmp_path, call):
    adapter = {"kind": "bottleneck", "place": "pfeiffer", "size": 8, "invertible": 2}
    stages = {
        "student": _train(teacher="student", objective=[{"kind": "task"}, {"kind": "logits"}]),
        "evaluate": {"kind": "evaluate", "data": "validation", "student": "student", "latency": False},
        "export": {"kind": "export", "student": "student", "data": "validation", "formats": ["adapter", "onnx"]},
    }
    code, _, err = call(
        "run", str(sentences.text_run_file(tmp_path, stages, student={"kind": "teacher", "adapter": adapter}))
    )
    assert code == 0, err
    saved = tmp_path / "run" / "seed-0" / "student" / "model"
    parts = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))["parts"]
    assert {"coupling", "inverse"} <= {part["kind"] for part in parts}
    weights = load_file(saved / "adapter_model.safetensors")
    biases = [weight for name, weight in weights.items() if "embeddings" in name and name.endswith("bias")]
    assert biases and all(bias.abs().max() > 0 for bias in biases)  # they begin at 0
    run = load(ModelSource(str(saved)), Task(kind="masked_lm"), (), "student").model
    base = AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.arange(5, 25).reshape(2, 10)
    assert not torch.allclose(run.eval()(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-3)


def test_a_cut_training_goes_on_with_the_same_tokens_hidden(tmp_path, call, monkeypatch):
    """Two trainings, one of them cut and gone on with, end with the same weights."""
    stages = {"student": _train(teacher="none", training={**TRAINING, "checkpoint_every": 2})}
    code, _, err = call("run", str(sentences.text_run_file(tmp_path / "whole", stages)))
    assert code == 0, err
    path = sentences.text_run_file(tmp_path / "cut", stages)
    step = DistillModule.training_step

    def cutting(self, batch, batch_idx):
        if batch["step"] == 5:
            raise RuntimeError("cut")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DistillModule, "training_step", cutting)
    with pytest.raises(RuntimeError, match="cut"):
        call("run", str(path))
    monkeypatch.setattr(DistillModule, "training_step", step)
    code, _, err = call("run", str(path))
    assert code == 0, err
    ended = [
        load_file(tmp_path / n / "run" / "seed-0" / "student" / "model" / "model.safetensors") for n in ("whole", "cut")
    ]
    assert all(torch.equal(weight, ended[1][name]) for name, weight in ended[0].items())


def test_what_changes_with_every_step_cannot_be_recorded(tmp_path, call):
    stages = {"answers": {"kind": "record", "data": ["train"]}, "student": _train(cache="answers")}
    code, _, err = call("run", str(sentences.text_run_file(tmp_path, stages)))
    assert code == 2 and "`masked_lm` hides other words in every step" in err
