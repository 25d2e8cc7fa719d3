"""A task is learnt over one language's adapter and done over another's (MAD-X; Pfeiffer et al. 2020)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from configs.data import Task
from distill import adapted_model, adapters
from distill.models import ModelSource, load
from tests.helpers import sentences

TRAINING = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "log_every": 4}
BOTTLENECK = {"kind": "bottleneck", "place": "pfeiffer", "size": 8}


def _language(folder: Path, seed: int, call, model: Path | None = None) -> Path:
    """Train the adapter of a language and return where it is exported."""
    train = {"kind": "train", "data": ["train"], "teacher": "none", "objective": [{"kind": "task"}]}
    stages = {
        "student": {**train, "training": {**TRAINING, "epochs": 1}},
        "evaluate": _evaluate(),
        "export": {"kind": "export", "student": "student", "data": "validation", "formats": ["adapter"]},
    }
    given = {"student": {"kind": "teacher", "adapter": {**BOTTLENECK, "invertible": 2}}, "seed": seed}
    given["teacher"] = {"model": str(model or sentences.masked_model(folder.parent / "model"))}
    code, _, err = call("run", str(sentences.text_run_file(folder, stages, **given)))
    assert code == 0, err
    return folder / "run" / "export" / "adapter"


def _evaluate(**given) -> dict:
    return {"kind": "evaluate", "data": "validation", "student": "student", "latency": False, **given}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("madx")


def _task(runs: Path, stages: dict) -> Path:
    adapter = {**BOTTLENECK, "on": [str(runs / "first" / "run" / "export" / "adapter")]}
    train = {"kind": "train", "data": ["train"], "teacher": "none", "objective": [{"kind": "task"}]}
    all_stages = {"student": {**train, "validation": "validation", "training": TRAINING}, **stages}
    given = {"teacher": {"model": str(runs / "model")}, "student": {"kind": "teacher", "adapter": adapter}}
    return sentences.run_file(runs / "task", all_stages, **given)


def _scores(runs: Path, stage: str) -> dict[str, float]:
    found = json.loads((runs / "task" / "run" / stage / "results.json").read_text(encoding="utf-8"))
    return found["models"]["student"]["seeds"]["0"]


def test_one_run_scores_a_task_over_each_language_and_over_none(runs, call):
    first, second = (_language(runs / name, seed, call) for name, seed in (("first", 0), ("second", 5)))
    stages = {
        "evaluate": _evaluate(),
        "same": _evaluate(below=str(first)),
        "without": _evaluate(below="none"),
        "zero-shot": _evaluate(below=str(second)),
    }
    code, _, err = call("run", str(_task(runs, stages)))
    assert code == 0, err
    assert _scores(runs, "evaluate")["accuracy"] > 0.5  # a third by chance
    assert _scores(runs, "same") == _scores(runs, "evaluate")
    saved = runs / "task" / "run" / "seed-0" / "student" / "model"
    said = {below: _logits(saved, below) for below in (None, str(first), str(second), "none")}
    torch.testing.assert_close(said[None], said[str(first)], atol=0, rtol=0)
    assert not torch.allclose(said[None], said[str(second)], atol=1e-4)
    assert not torch.allclose(said[None], said["none"], atol=1e-4)
    for below in (str(second), None):
        torch.testing.assert_close(said[below or "none"], _by_hand(runs, saved, below), atol=1e-6, rtol=0)


def test_a_body_without_the_way_back_to_the_vocabulary_learns_one_with_each_language(tmp_path, call):
    """What is new of it is learnt, but for its bias of zeros beside the embeddings; a task has no use for it."""
    body = sentences.tiny.model_folder(tmp_path / "model", head=False, seed=1, num_hidden_layers=2)
    languages = [_language(tmp_path / name, seed, call, body) for name, seed in (("first", 0), ("second", 5))]
    learnt = {name.partition("predictions.")[2] for name in load_file(languages[0] / "adapter_model.safetensors")}
    transform = {f"transform.{part}" for part in ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")}
    assert transform < learnt and not any("decoder.weight" in name for name in learnt)
    code, _, err = call("run", str(_task(tmp_path, {"evaluate": _evaluate(below=str(languages[1]))})))
    assert code == 0, err
    assert _scores(tmp_path, "evaluate")["accuracy"] > 0.3


def _ids() -> torch.Tensor:
    return torch.arange(5, 45).reshape(4, 10)


@torch.no_grad()
def _logits(saved: Path, below: str | None) -> torch.Tensor:
    source = ModelSource(str(saved), below=below)
    return load(source, Task(kind="tagging"), sentences.PARTS, "student").model.eval()(input_ids=_ids()).logits


@torch.no_grad()
def _by_hand(runs: Path, saved: Path, below: str | None) -> torch.Tensor:
    """Stack the adapters one by one on the model they belong to."""
    base = AutoModelForTokenClassification.from_pretrained(runs / "model", num_labels=len(sentences.PARTS))
    stacked = base if below is None else adapters.add(base, Path(below), "below_0", "test")
    under = () if below is None else ("below_0",)
    return adapters.add(stacked, saved, adapted_model.ACTIVE, "test", under=under).eval()(input_ids=_ids()).logits


def test_what_cannot_be_swapped_is_refused_before_anything_is_trained(runs, tmp_path, call):
    code, _, err = call("run", str(_task(runs, {"evaluate": _evaluate(below=str(tmp_path))})), f"output={tmp_path}/run")
    assert code == 2 and f"stages.evaluate.below: {tmp_path} holds no adapter_config.json" in err
    stages = {"student": {"kind": "train", "data": ["train"], "teacher": "none", "objective": [{"kind": "task"}]}}
    stages["student"]["training"] = TRAINING
    stages["evaluate"] = _evaluate(below="none")
    code, _, err = call("run", str(sentences.run_file(tmp_path / "plain", stages)))
    assert code == 2 and "under the student's, and there is none (student.adapter.on)" in err


def test_the_preset_of_the_second_version_trains_embeddings_and_leaves_the_last_layer_alone(tmp_path, call):
    model = sentences.masked_model(tmp_path / "model")
    text = sentences.text_file(tmp_path / "text.txt", 300)
    own = ["data.text.name=null", "data.text.split=null", f"data.text.path={text}", "data.validation.fraction=0.2"]
    own += [f"teacher.model={model}", f"output={tmp_path / 'run'}", "task.max_length=24"]
    own += ["student.adapter.size=8", "student.adapter.leave_out=[1]", "stages.language.training.max_steps=8"]
    code, out, err = call("run", "peft/madx2", *own, "stages.language.training.micro_batch_size=8")
    assert code == 0, out + err
    learnt = load_file(tmp_path / "run/export/adapter/adapter_model.safetensors")
    (embeddings,) = (value for name, value in learnt.items() if name.endswith("word_embeddings.weight"))
    before = AutoModelForMaskedLM.from_pretrained(model).get_input_embeddings().weight
    moved = (embeddings != before).any(1)
    mask, unknown = sentences.tiny.SPECIAL.index("[MASK]"), sentences.tiny.SPECIAL.index("[UNK]")
    assert moved[mask] and not moved[unknown]  # the latter is in no row
    layers = {name.split("encoder.layer.")[1][0] for name in learnt if "encoder.layer." in name}
    assert layers == {"0"}
