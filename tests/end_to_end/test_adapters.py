"""Students that are a frozen model in an adapter, through a whole run as a user starts it."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests.helpers import pairs, tiny
from tests.helpers.training import stage

TRAINING = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "log_every": 4}
TERMS = [{"kind": "task"}, {"kind": "logits"}, {"kind": "hidden"}, {"kind": "attention"}]
EVALUATE = {"kind": "evaluate", "data": "validation", "student": "student", "latency": False}


def _train(**given) -> dict:
    base = {"kind": "train", "data": ["train"], "validation": "validation", "objective": TERMS, "training": TRAINING}
    return {**base, **given}


def _teacher() -> dict:
    return _train(trains="teacher", objective=[{"kind": "task"}])


def _run(folder: Path, adapter: dict, formats: list[str], **student) -> Path:
    small = tiny.model_folder(folder / "small", seed=3, num_hidden_layers=2, hidden_size=16, intermediate_size=32)
    stages = {
        "teacher": _teacher(),
        "student": _train(),
        "evaluate": EVALUATE,
        "export": {"kind": "export", "student": "student", "data": "validation", "formats": formats},
    }
    asked = {"kind": "folder", "model": str(small), "adapter": adapter, **student}
    return tiny.run_file(folder, stages, student=asked)


METHODS = {
    "lora": ({"kind": "lora", "rank": 4, "b_rate": 4}, ["adapter", "transformers", "onnx"]),
    "houlsby": ({"kind": "bottleneck", "size": 8}, ["adapter", "onnx"]),
    "prefix": ({"kind": "prefix", "tokens": 4, "width": 8}, ["adapter", "onnx"]),
    "prompt": ({"kind": "prompt", "tokens": 4}, ["adapter"]),
    "top_layers": ({"kind": "top_layers", "layers": 1}, ["adapter", "transformers"]),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_is_trained_saved_scored_and_exported(tmp_path, call, method):
    adapter, formats = METHODS[method]
    code, _, err = call("run", str(_run(tmp_path, adapter, formats)))
    assert code == 0, err
    run = tmp_path / "run"
    saved = run / "seed-0" / "student" / "model"
    assert (saved / "adapter_model.safetensors").is_file() and not (saved / "model.safetensors").exists()
    whole = sum(p.stat().st_size for p in (tmp_path / "small").glob("*.safetensors"))
    assert (saved / "adapter_model.safetensors").stat().st_size < whole
    results = json.loads((run / "export" / "results.json").read_text(encoding="utf-8"))
    assert set(results["formats"]) == set(formats)
    shown = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))["models"]["student"]
    assert shown["own"] == sum(value.numel() for value in load_file(saved / "adapter_model.safetensors").values())
    assert "its own" in (run / "report.html").read_text(encoding="utf-8")
    mode = (run / "run.json").stat().st_mode & 0o777  # as the user's umask has it
    assert {path.stat().st_mode & 0o777 for path in run.rglob("*.safetensors")} == {mode}
    assert {path.stat().st_mode & 0o777 for path in (run / "export").rglob("*.onnx*")} <= {mode}
    folders = {path.parent.stat().st_mode & 0o777 for path in (run / "export").rglob("*")}
    assert folders == {run.stat().st_mode & 0o777}
    exported = load_file(run / "export" / "adapter" / "adapter_model.safetensors")
    assert any(".outer." in name for name in load_file(saved / "adapter_model.safetensors")) == (method == "prefix")
    assert not any(".outer." in name for name in exported)  # of a prefix only its keys and values


def test_peft_alone_loads_what_is_exported(tmp_path, call):
    code, _, err = call("run", str(_run(tmp_path, {"kind": "lora"}, ["adapter", "transformers"])))
    assert code == 0, err
    export = tmp_path / "run" / "export"
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")
    adapted = PeftModel.from_pretrained(base, export / "adapter").eval()
    merged = AutoModelForSequenceClassification.from_pretrained(export / "transformers").eval()
    ids = torch.arange(5, 15).reshape(2, 5)
    torch.testing.assert_close(adapted(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-5, rtol=0)


def test_a_student_learns_from_its_own_frozen_model(tmp_path, call):
    stages = {"student": _train(teacher="student", objective=TERMS), "evaluate": EVALUATE}
    student = {"kind": "teacher", "adapter": {"kind": "bottleneck", "size": 4}}
    code, out, err = call("run", str(tiny.run_file(tmp_path, stages, student=student)))
    assert code == 0, err
    assert "the student's own frozen model" in out


def test_what_weights_cannot_take_in_is_refused_at_set_up(tmp_path, call):
    code, _, err = call("run", str(_run(tmp_path, {"kind": "bottleneck"}, ["transformers"])))
    assert code == 2
    assert "`transformers` is the whole model, whose weights cannot take in an adapter of kind `bottleneck`" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", ["transformers", "onnx"])
def test_what_only_the_library_knows_not_to_merge_is_refused_at_set_up(tmp_path, call, form):
    code, _, err = call("check", str(_run(tmp_path, {"kind": "peft", "method": "lily"}, [form])))
    said = (
        "stages.export.formats: `transformers` is the whole model, whose weights cannot take in the student's adapter"
    )
    assert (code, said in " ".join(err.split())) == ((2, True) if form == "transformers" else (0, False))


def test_learned_tokens_take_positions_too(tmp_path, call):
    run = str(_run(tmp_path, {"kind": "prompt", "tokens": 41}, ["adapter"]))
    code, _, err = call("check", run)
    said = "task.max_length: 24, with the 41 tokens of its adapter, is more than the 64 positions of the student"
    assert code == 2 and said in " ".join(err.split())
    assert call("check", run, "student.adapter.tokens=40")[0] == 0


@pytest.mark.parametrize(
    ("adapter", "formats"),
    [
        ({"kind": "bottleneck", "size": 8}, ["adapter"]),
        ({"kind": "prompt", "tokens": 5}, ["adapter"]),
        ({"kind": "lora"}, ["adapter", "transformers", "ctranslate2"]),
    ],
)
def test_a_translator_in_an_adapter_learns_writes_and_is_exported(tmp_path, call, adapter, formats):
    base = pairs.vocabulary(tmp_path / "base", scale_embedding=adapter["kind"] != "prompt")  # it puts vectors before
    terms = [{"kind": "task"}, {"kind": "logits"}, {"kind": "attention", "side": "cross"}]
    student = {"kind": "train", "data": ["train"], "validation": "validation", "training": pairs.TRAINING}
    stages = {
        "student": {**student, "objective": terms, "teacher": "base"},
        "evaluate": {"kind": "evaluate", "data": "test", "student": "student", "latency": False},
        "export": {"kind": "export", "student": "student", "data": "test", "formats": formats},
    }
    asked = {"kind": "folder", "model": str(base), "adapter": adapter}
    run = pairs.run_file(
        tmp_path, stages, teacher={"model": str(pairs.vocabulary(tmp_path / "teacher", 7))}, student=asked
    )
    code, out, err = call("run", str(run))
    assert code == 0, out + err
    results = json.loads((tmp_path / "run/export/results.json").read_text(encoding="utf-8"))
    assert set(results["formats"]) == set(formats)


def test_a_model_that_was_trained_anew_in_its_folder_is_another_start(tmp_path):
    run = str(_run(tmp_path, {"kind": "lora"}, ["adapter"]))
    tiny.model_folder(tmp_path / "run" / "teacher" / "model")  # as the stage that trains the teacher leaves it
    first, again = (stage(run, "student").fingerprint() for _ in range(2))
    tiny.model_folder(tmp_path / "small", seed=4, num_hidden_layers=2, hidden_size=16, intermediate_size=32)
    assert first == again != stage(run, "student").fingerprint()
