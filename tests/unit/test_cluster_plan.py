"""A 70 B teacher beside a 1 B student on GPUs that are not here, against numbers by hand and those of the docs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoConfig

from configs.load import load
from pipelines.cluster_plan import RESERVED, Cluster, pace
from pipelines.fitting import fitting
from pipelines.machine import Device
from pipelines.memory_batches import Asked
from pipelines.numbers import gigabytes, short
from pipelines.room import Free
from pipelines.run import Run
from pipelines.stage_plan import StagePlan, plan_stage
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
PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## A cluster that is not here")[1].split("\n## ")[0]
TEXT = " ".join(SECTION.split())
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", SECTION, re.MULTILINE)
]
SIZES = [row for row in ROWS if re.fullmatch(r"\d×\d", row[0])]


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


def _planned(run_file: Path, folder: Path, *overrides: str, cluster: Cluster = CLUSTER) -> StagePlan:
    pipeline = load(str(run_file), list(overrides)).pipeline
    device = Device("gpu", cluster.gpus, 1, fast_fp32=False, native_bf16=True, nodes=cluster.nodes)
    run = Run(pipeline, device, Console(quiet=True), cache=folder)
    return plan_stage(Asked(run, "student", pipeline.stages["student"], cluster.devices, "cuda", look=False))


@pytest.fixture(scope="module")
def plan(run_file, tmp_path_factory) -> StagePlan:
    return _planned(run_file, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def plans(run_file, plan, tmp_path_factory) -> dict[tuple[int, int], StagePlan]:
    """The plans of the page's table, by hosts and GPUs of each."""
    found = {(CLUSTER.nodes, CLUSTER.gpus): plan}
    for nodes, gpus in ((1, 1), (1, 8), (8, 8)):
        rows = f"stages.student.training.batch_size={nodes * gpus}"
        cluster = replace(CLUSTER, nodes=nodes, gpus=gpus)
        found[nodes, gpus] = _planned(run_file, tmp_path_factory.mktemp("cache"), rows, cluster=cluster)
    return found


@pytest.fixture(scope="module")
def four(run_file, tmp_path_factory) -> StagePlan:
    """With 4 rows for each GPU."""
    return _planned(run_file, tmp_path_factory.mktemp("cache"), "stages.student.training.batch_size=64")


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
    assert next(fitting(whole, Free(int(CLUSTER.memory)))).startswith("""'teacher={"kind": "sharded", """)


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


def _missing(*said: str) -> list[str]:
    return [one for one in said if one not in TEXT]


def _hundreds(number: float) -> str:
    return f"{round(number, -2):,.0f}"


def test_the_memory_on_the_page_is_that_of_the_plan(plan):
    teacher, tokens = plan.traced.teacher, plan.traced.rows * plan.traced.positions
    parts = {
        "teacher, its sixteenth": (teacher.whole - teacher.small) / CLUSTER.devices,
        "teacher, put together at a time": teacher.passing,
        "student": plan.need.student,
        "gradients": plan.need.gradients,
        "moments": plan.need.optimiser,
        "each copy of the logits": tokens * WORDS * FP32,
    }
    start = ROWS.index(["of a GPU", "", "GB"]) + 2
    shown = {row[0]: row[2] for row in ROWS[start : start + len(parts)]}
    assert shown == {name: f"{size / 1e9:.2f}" for name, size in parts.items()}
    beside = f"{gigabytes(plan.need.activations)} and {gigabytes(plan.need.logits)} GB at the fullest moment"
    assert not _missing(
        f"= {LAYER / 1e6:.1f} M weights, 80 of them",
        f"two embeddings {TEACHER / 1e9:.2f} B: {TEACHER * BF16 / 1e9:.1f} GB in bf16",
        f"({INNER * HIDDEN / 1e6:.1f} + {WORDS * HIDDEN / 1e6:,.1f}) M · 2",
        f"| {STUDENT / 1e6:,.0f} M · 4 |",
        f"{beside}, {gigabytes(plan.need.total)} GB in all",
    )


def test_the_paragraphs_on_network_and_speed_are_those_of_the_plan(plan, four):
    found, slow = pace(plan, CLUSTER), pace(plan, replace(CLUSTER, network=12.5e9))
    more, fits = pace(four, CLUSTER), CLUSTER.free.holds(four.need)
    summed, work = STUDENT * FP32, found.compute_seconds * CLUSTER.flops * CLUSTER.utilisation
    seconds = found.network_seconds + found.compute_seconds
    assert fits and not _missing(
        f"{TEACHER * BF16 / 1e9:.1f} · 15/16 = {found.gathered / 1e9:.0f} GB,",
        f"that is {found.network_seconds:.1f} s; at 12.5 GB/s, {slow.network_seconds:.1f} s.",
        f"2 · {summed / 1e9:.2f} · 15/16 / 50 = {2 * summed * 15 / 16 / CLUSTER.network:.1f} s",
        f"(2 · {TEACHER / 1e9:.2f} + 6 · {STUDENT / 1e9:.2f}) · 10⁹ = {work / 1e12:.0f} T;",
        f"989 T a second, {found.compute_seconds:.2f} s.",
        f"a step of 16 rows takes between {found.network_seconds:.1f} s",
        f"and {seconds:.1f} s if none does",
        f"{_hundreds(found.slowest)} to {_hundreds(found.fastest)} tokens/s of all 16 GPUs",
        f"With 4 rows a GPU, which take {gigabytes(four.need.total)} GB of it,",
        f"computing takes {more.compute_seconds:.1f} s",
        f"16 GPUs do {_hundreds(more.slowest)} to {_hundreds(more.fastest)} tokens/s.",
    )


@pytest.mark.parametrize("row", SIZES, ids=lambda row: f"{row[0]} {row[1]}")
def test_the_table_from_one_gpu_to_8_by_8_is_that_of_the_plan(plans, row):
    nodes, gpus = map(int, row[0].split("×"))
    cluster, plan = replace(CLUSTER, nodes=nodes, gpus=gpus, network=float(row[1]) * 1e9), plans[nodes, gpus]
    found, fits = pace(plan, cluster), cluster.free.holds(plan.need)
    assert row[2:] == [
        gigabytes(plan.need.total),
        "yes" if fits else "no",
        gigabytes(found.gathered),
        short(found.network_seconds),
        short(found.compute_seconds),
        f"{_hundreds(found.slowest)} – {_hundreds(found.fastest)}" if fits else "–",
    ]


def test_what_the_page_says_to_expect_is_what_is_planned(plans, four):
    free, one, eight = CLUSTER.free, plans[1, 1], plans[1, 8]
    assert [row[0] for row in SIZES] == ["1×1", "1×8", "1×8", "2×8", "8×8"]
    (told,) = fitting(one, free)
    whole, small = one.traced.teacher.whole, one.traced.teacher.small
    bus, computing = (whole - small) / CLUSTER.network, pace(one, CLUSTER).compute_seconds
    assert not _missing(
        f"Of the 80 GB {100 * RESERVED:.0f} % are not planned with",
        f"fits into {free.device / 1e9:.0f} |",
        f"the teacher's {gigabytes(whole)} GB, of eight each holds {gigabytes((whole - small) / 8)} GB of it",
        f"has {gigabytes(free.device - eight.need.total)} GB to spare",
        f"`{told.removesuffix(')').replace(' (', '` (')}, and {gigabytes(whole - small)} GB of the host's memory)",
        f"at 50 GB/s {bus:.1f} s, so {2048 / (bus + computing):.0f} to {2048 / bus:.0f} tokens/s",
    )
    inside, two, many = (pace(plans[nodes, 8], replace(CLUSTER, nodes=nodes)) for nodes in (1, 2, 8))
    assert {round(many.slowest / inside.slowest), round(many.fastest / inside.fastest)} == {7}
    nvlink = pace(eight, replace(CLUSTER, nodes=1, network=450e9))
    assert nvlink.compute_seconds > nvlink.network_seconds
    assert two.fastest < nvlink.slowest and pace(four, CLUSTER).slowest > nvlink.fastest


def test_the_command_prints_what_the_page_shows(call, run_file):
    (options,) = re.findall(r"^ {4}distill plan RUN\.yaml --nodes 2 (.+)$", SECTION, re.MULTILINE)
    rows = "stages.student.training.batch_size=64"
    code, out, err = call("plan", str(run_file), rows, "--nodes", "8", *options.split())
    assert code == 0, err
    printed = dict(re.findall(r"^ *(\S.*?) {2,}(\S.*?) *$", out, re.MULTILINE))
    (shown,) = (row for row in SIZES if row[0] == "8×8")
    tokens = [_hundreds(float(one.replace(",", ""))) for one in printed["tokens/s of all"].split(" – ")]
    labels = ("teacher's weights received, GB a pass", "network, s a pass", "computing, s a pass")
    assert shown[2] == printed["all"] and shown[4:7] == [printed[label] for label in labels]
    assert shown[7] == " – ".join(tokens)
