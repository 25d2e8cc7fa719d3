"""Every preset loads, is wired up right, and says what it should score."""

import shlex

import pytest

from configs import presets
from configs.load import load
from configs.stages import TrainStage

NAMES = (
    "demo",
    "demo-scratch",
    "demo-translate",
    "logits/any",
    "minilm/general",
    "peft/fast-experts",
    "peft/fusion",
    "peft/houlsby-glue",
    "peft/lora-sst2",
    "peft/madx-language",
    "peft/madx-task",
    "peft/madx2",
    "peft/tfew",
    "regression/stsb",
    "seqkd/any",
    "seqkd/multi30k-en-de",
    "seqkd/summaries",
    "tinybert/reference",
    "tinybert/sst2",
)


FRESH = ("demo", "demo-scratch", "demo-translate", "seqkd/multi30k-en-de")
"""Presets whose teacher is made in the run, or comes with a package."""


def test_none_is_forgotten():
    assert tuple(presets.names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_says_what_to_expect(name):
    pipeline = load(name).pipeline
    about, expect = presets.describe(name)
    assert len(about) > 40 and len(expect) > 40
    assert pipeline.about == about and any(isinstance(stage, TrainStage) for stage in pipeline.stages.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FRESH])
def test_a_local_folder_takes_the_place_of_a_hub_name(name, tmp_path):
    pipeline = load(name, [f"teacher.model={tmp_path}"]).pipeline
    assert pipeline.teacher.model == str(tmp_path)


def test_each_stage_of_tinybert_has_data_rate_and_epochs_of_its_own():
    stages = load("tinybert/sst2").pipeline.stages
    assert list(stages) == [
        "teacher",
        "general",
        "augment",
        "intermediate",
        "answers",
        "prediction",
        "baseline",
        "evaluate",
        "export",
    ]
    rates = {name: stages[name].training.learning_rate for name in ("general", "intermediate", "prediction")}
    assert len(set(rates.values())) == 3


def test_what_the_preset_of_fusion_says_to_train_can_be_fused():
    comment = [line[1:].strip() for line in presets.text("peft/fusion").splitlines() if line.startswith("#")]
    distill, run, preset, *overrides = shlex.split(" ".join(comment[1:]))
    pipeline = load(preset, overrides).pipeline
    adapter = pipeline.student.adapter
    assert (distill, run) == ("distill", "run") and pipeline.data["validation"].columns.pair == "question2"
    assert adapter.place == "pfeiffer" and not (adapter.norms or adapter.also or adapter.invertible or adapter.on)
    assert "runs/qqp/export/adapter" in load("peft/fusion").pipeline.student.adapter.of.values()
