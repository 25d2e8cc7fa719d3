"""Every strategy gives the losses and the weights of one process, beside a live teacher and a sharded one."""

import itertools
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers.many import Job, train_all
from tests.helpers.same import is_the_same
from tests.helpers.spread import spread_run
from tests.helpers.training import weights

STRATEGIES = ("ddp", "fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3")
TEACHERS = ("live", "sharded")
ACCUMULATE = {1: 8, 4: 2}
"""Micro-batch of each of two processes, by how many make a window of 16 rows."""
STUDENTS = ("full", "lora")
VARIANTS = {
    "zero-2-offloaded": ("live", ("machine.strategy=deepspeed_2", "machine.deepspeed.offload=cpu")),
    "zero-3-offloaded": ("live", ("machine.strategy=deepspeed_3", "machine.deepspeed.offload=cpu")),
    "fsdp-offloaded": ("live", ("machine.strategy=fsdp", "machine.fsdp.offload=true")),
    "teacher-offloaded": ("sharded", ("machine.strategy=ddp", "teacher.offload=cpu")),
}
Case = tuple[str, str, int, str]
CASES: list[Case] = list(itertools.product(STRATEGIES, TEACHERS, ACCUMULATE, STUDENTS))
SOME = [case for case in CASES if case[2:] in ((1, "full"), (4, "lora"))]
"""Each strategy beside each teacher, each way to make a window and each student with each of them."""
OTHERS = [case for case in CASES if case not in SOME]


def _name(case: Case) -> str:
    return "-".join(map(str, case))


def _jobs(runs: dict[tuple[str, str], Path], cases: list[Case], folder: Path) -> list[Job]:
    made: list[Job] = []
    for case in cases:
        strategy, kind, accumulate, student = case
        more = f"stages.student.training.micro_batch_size={ACCUMULATE[accumulate]}"
        made.append((runs[kind, student], folder / _name(case), (f"machine.strategy={strategy}", more)))
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("runs")
    every = itertools.product(TEACHERS, STUDENTS)
    return {(kind, student): spread_run(folder / kind / student, kind, student) for kind, student in every}


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    jobs: list[Job] = [(runs["live", student], folder / student, ()) for student in STUDENTS]
    train_all([*jobs, (runs["sharded", "full"], folder / "alone-sharded", ())], folder)
    return folder


@pytest.fixture(scope="module")
def trained(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("some")
    variants = [(runs[kind, "full"], folder / name, more) for name, (kind, more) in VARIANTS.items()]
    train_all([*_jobs(runs, SOME, folder), *variants], folder, processes=2)
    return folder


@pytest.fixture(scope="module")
def others(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    train_all(_jobs(runs, OTHERS, folder), folder, processes=2)
    return folder


@pytest.mark.parametrize("case", SOME, ids=_name)
def test_two_processes_train_what_one_does(trained, alone, case):
    is_the_same(trained / _name(case), alone / case[-1], terms=4)


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS, ids=_name)
def test_and_so_for_every_other_mix(others, alone, case):
    is_the_same(others / _name(case), alone / case[-1], terms=4)


@pytest.mark.parametrize("name", VARIANTS)
def test_where_parts_lie_changes_nothing(trained, alone, name):
    is_the_same(trained / name, alone / "full", terms=4)


def test_a_sharded_teacher_teaches_one_process_too(alone):
    is_the_same(alone / "alone-sharded", alone / "full", terms=4)


def test_the_training_moves_weights_by_far_more_than_the_bound(runs, alone):
    start = load_file(runs["live", "full"].parent / "student" / "model.safetensors")
    end = weights(alone / "full")
    assert max(float((end[name] - value).abs().max()) for name, value in start.items()) > 1e-3
