"""Adapters through the trainer: cut and gone on with, split over micro-batches and processes, whatever they add."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import tiny
from tests.helpers.training import cut_apart, stage, train_apart

TERMS = [{"kind": "logits", "temperature": 2}, {"kind": "hidden"}, {"kind": "task"}]
TRAINING = {"max_steps": 8, "batch_size": 8, "learning_rate": 1e-2, "checkpoint_every": 2, "log_every": 4}
ADAPTERS = {
    "adalora": {"kind": "adalora", "rank": 2, "initial_rank": 4, "warmup": 0.0, "settled": 0.25},
    "adapter_drop": {"kind": "bottleneck", "size": 4, "drop": 1},
    "fusion": {"kind": "fusion", "of": {}, "regularisation": 0.5},
    "lora_plus": {"kind": "lora", "rank": 2, "b_rate": 16},
}


def _member(folder: Path, seed: int) -> str:
    """Train a bottleneck for a fusion; return its folder."""
    stages = {"student": {"kind": "train", "data": ["train"], "objective": TERMS, "training": TRAINING}}
    adapter = {"kind": "bottleneck", "place": "pfeiffer", "size": 4}
    run = tiny.run_file(folder, stages, student={"kind": "teacher", "adapter": adapter}, seed=seed)
    train_apart(run, folder / "trained")
    return str(folder / "trained" / "model")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    ADAPTERS["fusion"]["of"] = {name: _member(folder / name, seed) for seed, name in enumerate(("first", "second"))}
    made = {}
    for name, adapter in ADAPTERS.items():
        stages = {"student": {"kind": "train", "data": ["train"], "objective": TERMS, "training": TRAINING}}
        made[name] = tiny.run_file(folder / f"run_{name}", stages, student={"kind": "teacher", "adapter": adapter})
        config = folder / f"run_{name}" / "teacher" / "config.json"
        still = json.loads(config.read_text()) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config.write_text(json.dumps(still))
    return made


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    return {name: train_apart(run, tmp_path_factory.mktemp(name)) for name, run in runs.items()}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_training_that_was_cut_ends_with_the_same_adapter(runs, whole, tmp_path, name):
    cut_apart(runs[name], tmp_path, 5)
    resumed = train_apart(runs[name], tmp_path)
    assert resumed.keys() == whole[name].keys()
    assert all(torch.equal(resumed[key], value) for key, value in whole[name].items())


@pytest.mark.parametrize("name", ["adalora", "fusion"])
@pytest.mark.parametrize(("micro", "processes"), [(2, 1), (4, 2)], ids=["2×4", "2 processes"])
def test_what_an_adapter_adds_to_the_loss_is_added_once_a_window(runs, whole, tmp_path, name, micro, processes):
    split = train_apart(runs[name], tmp_path, f"stages.student.training.micro_batch_size={micro}", processes=processes)
    for key, value in whole[name].items():
        torch.testing.assert_close(split[key], value, atol=2e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_the_penalty_of_a_fusion_holds_its_values_near_the_identity(runs, whole, tmp_path):
    free = train_apart(runs["fusion"], tmp_path, "student.adapter.regularisation=0.0")
    key = next(key for key in free if key.endswith("value.weight"))
    gap = {
        name: float((found[key] - torch.eye(len(found[key]))).norm())
        for name, found in (("held", whole["fusion"]), ("free", free))
    }
    assert gap["held"] < 0.5 * gap["free"]


def test_members_of_a_fusion_stay_as_they_were(runs, whole, tmp_path):
    train_apart(runs["fusion"], tmp_path)
    for name, folder in ADAPTERS["fusion"]["of"].items():
        before = load_file(Path(folder) / "adapter_model.safetensors")
        after = load_file(tmp_path / "model" / name / "adapter_model.safetensors")
        parts = [key for key in before if "modular_parts" in key]
        assert parts and all(torch.equal(after[key], before[key]) for key in parts)


def test_layers_left_out_by_chance_train_on_two_processes(runs, tmp_path):
    split = train_apart(runs["adapter_drop"], tmp_path, processes=2)
    assert all(torch.isfinite(value).all() for value in split.values())


def test_b_learns_faster_than_a(runs):
    module, _ = stage(str(runs["lora_plus"]), "student").assemble()
    rates = {
        name: group["lr"]
        for group in module.student.parameter_groups(1e-3, 0.1)
        for name, value in module.student.named_parameters()
        if any(value is one for one in group["params"])
    }
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {16e-3}
    assert {rate for name, rate in rates.items() if "lora_B" not in name} == {1e-3}


def test_ranks_shrink_to_what_was_asked(whole):
    kept = sum(int((value != 0).sum()) for name, value in whole["adalora"].items() if "lora_E" in name)
    matrices = sum("lora_E" in name for name in whole["adalora"])
    assert kept <= ADAPTERS["adalora"]["rank"] * matrices
