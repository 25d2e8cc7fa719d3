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
CASES = list(itertools.product(STRATEGIES, TEACHERS, ACCUMULATE, STUDENTS))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("strategies")
    runs = {
        (kind, student): spread_run(folder / kind / student, kind, student)
        for kind, student in itertools.product(TEACHERS, STUDENTS)
    }
    alone: list[Job] = [(runs["live", student], folder / student, ()) for student in STUDENTS]
    train_all([*alone, (runs["sharded", "full"], folder / "alone-sharded", ())], folder)
    spread: list[Job] = []
    for case in CASES:
        strategy, kind, accumulate, student = case
        more = f"stages.student.training.micro_batch_size={ACCUMULATE[accumulate]}"
        name = "-".join(map(str, case))
        spread.append((runs[kind, student], folder / name, (f"machine.strategy={strategy}", more)))
    spread += [(runs[kind, "full"], folder / name, more) for name, (kind, more) in VARIANTS.items()]
    train_all(spread, folder, processes=2)
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_train_what_one_does(trained, case):
    _is_the_same(trained / "-".join(map(str, case)), trained / case[-1])


@pytest.mark.parametrize("name", VARIANTS)
def test_where_parts_lie_changes_nothing(trained, name):
    _is_the_same(trained / name, trained / "full")


def test_a_sharded_teacher_teaches_one_process_too(trained):
    _is_the_same(trained / "alone-sharded", trained / "full")


def test_the_training_moves_weights_by_far_more_than_the_bound(trained):
    start = load_file(trained / "live" / "full" / "student" / "model.safetensors")
    end = weights(trained / "full")
    assert max(float((end[name] - value).abs().max()) for name, value in start.items()) > 1e-3
