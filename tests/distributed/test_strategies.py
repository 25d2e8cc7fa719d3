"""Every strategy gives the losses and the weights of one process, beside a live teacher and a sharded one."""

import csv
import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.many import Job, train_all
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
BF16 = "stages.student.training.precision=bf16"
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
    lower = [(runs["live", "full"], folder / f"{name}-bf16", (f"machine.strategy={name}", BF16)) for name in STRATEGIES]
    train_all([*lower, *_jobs(runs, SOME, folder), *variants], folder, processes=2)
    return folder


@pytest.fixture(scope="module")
def others(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    train_all(_jobs(runs, OTHERS, folder), folder, processes=2)
    return folder


def _losses(folder: Path) -> list[list[float]]:
    with next(folder.rglob("metrics.csv")).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    return [[float(row[key]) for key in row if key.startswith("loss")] for row in rows]


def _is_the_same(folder: Path, as_in: Path) -> None:
    ours, whole = _losses(folder), _losses(as_in)
    assert len(whole) == 6 and len(whole[0]) == 5
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(whole), atol=1e-6, rtol=1e-6)
    found, expected = weights(folder), weights(as_in)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("case", SOME, ids=_name)
def test_two_processes_train_what_one_does(trained, alone, case):
    _is_the_same(trained / _name(case), alone / case[-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS, ids=_name)
def test_and_so_for_every_other_mix(others, alone, case):
    _is_the_same(others / _name(case), alone / case[-1])


@pytest.mark.parametrize("name", VARIANTS)
def test_where_parts_lie_changes_nothing(trained, alone, name):
    _is_the_same(trained / name, alone / "full")


@pytest.mark.parametrize("name", STRATEGIES[1:])
def test_bf16_is_the_same_autocast_under_each(trained, name):
    ours, expected = (torch.tensor(_losses(trained / f"{one}-bf16")) for one in (name, "ddp"))
    exact = torch.tensor(_losses(trained / f"{name}-live-1-full"))
    torch.testing.assert_close(ours[0], expected[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-3)
    assert float((expected / exact - 1).abs().max()) > 3e-3  # eight bits of mantissa show


def test_a_sharded_teacher_teaches_one_process_too(alone):
    _is_the_same(alone / "alone-sharded", alone / "full")


def test_the_training_moves_weights_by_far_more_than_the_bound(runs, alone):
    start = load_file(runs["live", "full"].parent / "student" / "model.safetensors")
    end = weights(alone / "full")
    assert max(float((end[name] - value).abs().max()) for name, value in start.items()) > 1e-3
