"""What may lie apart, and what is refused before anything begins."""

from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load
from configs.training import Machine
from distill.data.module import _Announced
from pipelines import machine
from pipelines.machine import Device, prepare
from pipelines.trainers import only_teaches, training_environment
from tests.helpers.run_yaml import problems, write

RUN = """\
about: A run.
expect: A score.
teacher: {model: teacher}
student: {kind: sizes}
data:
  train: {path: train.csv}
stages:
  answers: {kind: record, data: [train]}
  student:
    kind: train
    data: [train]
    objective: [{kind: logits}]
    training: {epochs: 1}
  alone:
    kind: train
    teacher: none
    data: [train]
    objective: [{kind: task}]
    training: {epochs: 1}
machine: {teachers: 1}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, RUN)


def test_one_stage_that_asks_a_teacher_is_enough(run):
    assert load("run.yaml").pipeline.machine.teachers == 1


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("stages.student.cache=answers", "stages.student reads a record (cache); stages.alone has `teacher: none`"),
        (
            "stages.student={kind: train, trains: teacher, data: [train], objective: [{kind: task}], "
            "training: {epochs: 1}}",
            "stages.student trains the teacher; stages.alone has `teacher: none`",
        ),
        ("stages.student.teacher=student", "stages.student has `teacher: student`"),
        ("teacher={kind: none}", "there is no teacher to run (teacher.kind: none)"),
        ("teacher={kind: sharded, model: t}", "a sharded teacher (teacher.kind) is dealt out over the devices that"),
    ],
)
def test_devices_that_would_teach_nobody_are_refused(run, override, what):
    (found,) = [problem for problem in problems("run.yaml", override) if "machine.teachers" in problem]
    assert what in found


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("machine.deepspeed.offload=cpu", "deepspeed"),
        ("machine.deepspeed.config=ds.json machine.strategy=fsdp", "deepspeed"),
        ("machine.fsdp.offload=true machine.strategy=deepspeed_2", "fsdp"),
    ],
)
def test_options_of_a_strategy_no_stage_has_are_refused(run, options, name):
    (found,) = [problem for problem in problems("run.yaml", *options.split()) if f"machine.{name}" in problem]
    assert f"no stage is trained by {name}, whose options these are" in found


def test_options_of_a_strategy_one_stage_has_are_not(run):
    load("run.yaml", ["machine.fsdp.offload=true", "stages.student.training.strategy=fsdp"])


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("stages.student.top_k=4", "is for generation, tagging, masked_lm, and `task.kind` is `classification`"),
        ("task.kind=tagging stages.student.top_k=4 stages.student.cache=answers", "stage `answers` has recorded"),
        ("task.kind=tagging stages.alone.top_k=4", "is of a teacher's outputs, and this stage has none"),
    ],
)
def test_outputs_to_choose_from_have_to_be_there(run, override, what):
    assert any("top_k" in problem and what in problem for problem in problems("run.yaml", *override.split()))


@pytest.mark.parametrize(
    ("nodes", "devices", "teachers", "choices"),
    [
        (1, 1, 1, "with one device nothing can lie apart"),
        (1, 2, 2, "Choices: 1"),
        (1, 4, 3, "Choices: 1, 2"),
        (2, 4, 2, "Choices: 4"),
        (3, 4, 5, "Choices: 4"),
    ],
)
def test_numbers_that_do_not_come_out_are_refused(monkeypatch, nodes, devices, teachers, choices):
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    with pytest.raises(UserError, match=f"machine.teachers: {teachers} of .* cannot only teach: .*{choices}$"):
        prepare(Machine(accelerator="cpu", nodes=nodes, devices=devices, teachers=teachers, threads=1))


@pytest.mark.parametrize(
    ("device", "hosts"),
    [
        (Device("cpu", 2, 1, fast_fp32=False, teachers=1), (1, 1)),
        (Device("cpu", 4, 1, fast_fp32=False, teachers=1), (1, 3)),
        (Device("cpu", 4, 1, fast_fp32=False, nodes=2, teachers=4), (1, 4)),
        (Device("cpu", 4, 1, fast_fp32=False, nodes=3, teachers=4), (2, 4)),
        (Device("cpu", 2, 1, fast_fp32=False), (1, 2)),
    ],
)
def test_those_that_train_lie_on_the_first_hosts(device, hosts):
    assert device.training_nodes == hosts and hosts[0] * hosts[1] == device.trainers


def test_a_line_says_how_many_only_teach():
    assert "3 processes × 1 threads, 1 of them only teaches" in Device("cpu", 3, 1, False, teachers=1).describe()
    assert "4 processes × 1 threads, 2 of them only teach," in Device("cpu", 4, 1, False, teachers=2).describe()


@pytest.mark.parametrize(("rank", "teaches"), [(0, False), (2, False), (3, True)])
def test_the_last_processes_teach_and_lightning_knows_of_the_others_only(monkeypatch, rank, teaches):
    given = {"RANK": rank, "WORLD_SIZE": 4, "LOCAL_RANK": rank, "GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1}
    monkeypatch.setattr("os.environ", {"MASTER_ADDR": "n0", **{name: str(value) for name, value in given.items()}})
    device = Device("cpu", 4, 1, fast_fp32=False, teachers=1)
    assert only_teaches(device) is teaches
    seen = training_environment(device)
    assert (seen.world_size(), seen.global_rank(), seen.local_rank(), seen.main_address) == (3, rank, rank, "n0")
    assert not only_teaches(Device("cpu", 4, 1, fast_fp32=False))


def test_each_batch_is_announced_while_the_one_before_it_is_used():
    told: list[str] = []

    def announce(batch):
        told.append(f"announced {batch}")
        return 10 * batch

    for batch in _Announced([1, 2, 3], announce):
        told.append(f"used {batch}")
    assert told == ["announced 1", "announced 2", "used 10", "announced 3", "used 20", "used 30"]
    assert list(_Announced([], announce)) == [] and len(_Announced([1, 2, 3], announce)) == 3
