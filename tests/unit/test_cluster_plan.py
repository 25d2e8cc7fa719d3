"""A 70 B teacher beside a 1 B student on 16 GPUs that are not here, against numbers worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoConfig

from configs.load import load
from pipelines.cluster_plan import RESERVED, Cluster, pace
from pipelines.machine import Device
from pipelines.memory_batches import Asked
from pipelines.memory_plan import StagePlan, fitting, plan_stage
from pipelines.room import Free
from pipelines.run import Run
from tests.helpers.writers import tokenizer

LAYERS, HIDDEN, HEADS, KEYS, INNER, WORDS = 80, 8192, 64, 8, 28672, 128256
HEAD = HIDDEN // HEADS
NORMS = (2 * LAYERS + 1) * HIDDEN
LAYER = HIDDEN * (2 * HIDDEN + 2 * KEYS * HEAD + 3 * INNER)
TEACHER = LAYERS * LAYER + 2 * WORDS * HIDDEN + NORMS
STUDENT_LAYERS, WIDTH, STUDENT_INNER = 16, 2048, 8192
STUDENT = (
    STUDENT_LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * STUDENT_INNER) + WORDS * WIDTH + (2 * STUDENT_LAYERS + 1) * WIDTH
)
CLUSTER = Cluster(nodes=2, gpus=8, memory=80e9, network=50e9, flops=989e12, utilisation=0.4)
BF16, FP32 = 2, 4


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("70b")
    sizes = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KEYS, "max_position_embeddings": 8192}
    config = AutoConfig.for_model("llama", vocab_size=WORDS, tie_word_embeddings=False, **sizes, **heads)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder / "teacher")
    tokenizer().save_pretrained(folder / "teacher")
    student = {"kind": "sizes", "layers": STUDENT_LAYERS, "hidden_size": WIDTH, "intermediate_size": STUDENT_INNER}
    stage = {"kind": "train", "data": ["train"], "objective": [{"kind": "logits"}]}
    training = {"epochs": 1, "batch_size": 16, "precision": "bf16"}
    run = {
        "about": "A large teacher.",
        "expect": "Nothing.",
        "output": str(folder / "run"),
        "task": {"kind": "generation", "max_length": 1024, "max_target_length": 1025},
        "teacher": {"kind": "sharded", "model": str(folder / "teacher")},
        "student": {**student, "heads": 32, "options": {"tie_word_embeddings": True}},
        "data": {"train": {"path": str(folder / "none.jsonl")}},
        "stages": {"student": {**stage, "training": training}},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(run), encoding="utf-8")
    return path


def _planned(run_file: Path, folder: Path, *overrides: str) -> StagePlan:
    pipeline = load(str(run_file), list(overrides)).pipeline
    device = Device("gpu", CLUSTER.gpus, 1, fast_fp32=False, native_bf16=True, nodes=CLUSTER.nodes)
    run = Run(pipeline, device, Console(quiet=True), cache=folder)
    return plan_stage(Asked(run, "student", pipeline.stages["student"], CLUSTER.devices, "cuda", look=False))


@pytest.fixture(scope="module")
def plan(run_file, tmp_path_factory) -> StagePlan:
    return _planned(run_file, tmp_path_factory.mktemp("cache"))


def test_sizes_are_those_of_the_papers(plan):
    assert TEACHER == 70_553_706_496  # Llama 3 70B
    assert plan.traced.teacher_size == TEACHER
    assert plan.traced.learner.trained == STUDENT


def test_a_device_holds_a_sixteenth_of_the_teacher_and_what_is_put_together(plan):
    part = (TEACHER - NORMS) * BF16 / CLUSTER.devices
    passing = (INNER * HIDDEN + WORDS * HIDDEN) * BF16  # the last layer's way down, and the head ahead
    assert plan.need.teacher == pytest.approx(part + NORMS * BF16 + passing, rel=1e-3)


def test_the_student_is_held_whole_by_ddp(plan):
    assert plan.need.student == pytest.approx(STUDENT * FP32, rel=1e-3)
    assert plan.need.optimiser == pytest.approx(2 * STUDENT * FP32, rel=1e-3)
    assert plan.need.gradients >= STUDENT * FP32  # of DDP's buckets at least
    assert plan.need.total < CLUSTER.memory


def test_the_network_carries_all_parts_but_a_devices_own(plan):
    found = pace(plan, CLUSTER)
    assert found.gathered == pytest.approx(TEACHER * BF16 * 15 / 16, rel=1e-3)
    assert found.network_seconds == pytest.approx(132.3 / 50, rel=1e-2)


def test_tokens_a_second_follow_from_the_stated_peak(plan):
    found, tokens = pace(plan, CLUSTER), 2048
    work = tokens * (2 * TEACHER + 6 * STUDENT)
    assert found.compute_seconds == pytest.approx(work / (989e12 * 0.4), rel=1e-6)
    assert found.slowest == pytest.approx(16 * tokens / (found.network_seconds + found.compute_seconds))
    assert found.fastest == pytest.approx(16 * tokens / found.network_seconds)


def test_what_does_not_fit_is_told_what_would(run_file, tmp_path):
    larger = _planned(run_file, tmp_path, "stages.student.training.batch_size=128")
    assert larger.need.total > CLUSTER.memory
    assert any(
        "stages.student.training.micro_batch_size=4 " in told for told in fitting(larger, Free(int(CLUSTER.memory)))
    )


def test_a_teacher_in_one_piece_fits_no_device(run_file, tmp_path):
    whole = _planned(run_file, tmp_path, "teacher={kind: live, model: " + str(run_file.parent / "teacher") + "}")
    outside = WORDS * HIDDEN + NORMS  # which autocast leaves in fp32
    assert whole.need.teacher == pytest.approx(TEACHER * BF16 + outside * BF16, rel=1e-3)
    assert next(fitting(whole, Free(int(CLUSTER.memory)))).startswith("teacher.kind=sharded")


def test_what_the_host_cannot_take_does_not_fit_either(run_file, tmp_path):
    overrides = ("machine.strategy=deepspeed_2", "machine.deepspeed.offload=cpu")
    away = _planned(run_file, tmp_path, *overrides)
    enough, small = (Free(int(CLUSTER.memory), away.need.host + more) for more in (0, -1))
    assert enough.holds(away.need) and not small.holds(away.need)
    told = [*fitting(away, small)]
    assert told and not any("offload=cpu" in one for one in told)


def test_a_hosts_memory_is_shared_by_its_devices():
    assert CLUSTER.free.host is None
    host = replace(CLUSTER, host_memory=800e9).free.host
    assert host == int(800e9 / CLUSTER.gpus * (1 - RESERVED))
