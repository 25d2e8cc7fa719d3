"""Every strategy gives the losses and the weights of one process, beside a live teacher and a sharded one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill.module import DistillModule
from tests.helpers.many import Job, train_all
from tests.helpers.same import is_the_same, losses, scores, weighs_the_same
from tests.helpers.spread import (
    CASES,
    SOME,
    STRATEGIES,
    STUDENTS,
    jobs_of,
    name_of,
    overrides_of,
    spread_runs,
)
from tests.helpers.training import stage, weights

SPLIT = "stages.student.training.micro_batch_size=2"
VARIANTS = {
    "zero-1-offloaded": ("live", ("machine.strategy=deepspeed_1", "machine.deepspeed.offload=cpu", SPLIT)),
    "zero-2-offloaded": ("live", ("machine.strategy=deepspeed_2", "machine.deepspeed.offload=cpu", SPLIT)),
    "zero-3-offloaded": ("live", ("machine.strategy=deepspeed_3", "machine.deepspeed.offload=cpu")),
    "fsdp-offloaded": ("live", ("machine.strategy=fsdp", "machine.fsdp.offload=true", SPLIT)),
    "teacher-offloaded": ("sharded", ("machine.strategy=ddp", "teacher.offload=cpu")),
}
LAST = "stages.student.training.keep=last"
PADDED = (
    "stages.student.objective=[{kind: hidden, reduction: huawei}, {kind: attention, reduction: huawei}]",
    "stages.student.training.padding=fixed",
)
BF16 = "stages.student.training.precision=bf16"
CUTS_WEIGHTS = ("fsdp", "deepspeed_3")
OTHERS = [case for case in CASES if case not in SOME]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, str], Path]:
    return spread_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    jobs: list[Job] = [(runs["live", student], folder / student, ()) for student in STUDENTS]
    one: list[Job] = [(runs["live", "full"], folder / name, overrides_of(name, folder)) for name in STRATEGIES[2:]]
    jobs += [(runs["live", "full"], folder / "last", (LAST,)), (runs["live", "full"], folder / "padded", PADDED)]
    train_all([*jobs, *one, (runs["sharded", "full"], folder / "alone-sharded", ())], folder)
    return folder


@pytest.fixture(scope="module")
def trained(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("some")
    variants = [(runs[kind, "full"], folder / name, more) for name, (kind, more) in VARIANTS.items()]
    told = [(f"{name}-bf16", name, BF16) for name in STRATEGIES] + [
        (f"{name}-last", name, LAST) for name in CUTS_WEIGHTS
    ]
    more = [(runs["live", "full"], folder / at, (*overrides_of(name, folder), how)) for at, name, how in told]
    more.append((runs["live", "full"], folder / "padded", (*PADDED, SPLIT)))
    train_all([*more, *jobs_of(runs, SOME, folder), *variants], folder, processes=2)
    return folder


@pytest.fixture(scope="module")
def others(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    train_all(jobs_of(runs, OTHERS, folder), folder, processes=2)
    return folder


@pytest.mark.parametrize("case", SOME, ids=name_of)
def test_two_processes_train_what_one_does(trained, alone, case):
    is_the_same(trained / name_of(case), alone / case[-1], terms=4)


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS, ids=name_of)
def test_and_so_for_every_other_mix(others, alone, case):
    is_the_same(others / name_of(case), alone / case[-1], terms=4)


@pytest.mark.parametrize("name", VARIANTS)
def test_where_parts_lie_changes_nothing(trained, alone, name):
    is_the_same(trained / name, alone / "full", terms=4)


def test_losses_that_count_padding_are_split_to_the_same_weights(trained, alone):
    is_the_same(trained / "padded", alone / "padded", terms=2)


@pytest.mark.parametrize("name", CUTS_WEIGHTS)
def test_bf16_is_the_same_autocast_under_each(trained, name):
    ours, expected = (torch.tensor(losses(trained / f"{one}-bf16")) for one in (name, "ddp"))
    exact = torch.tensor(losses(trained / f"{name}-live-1-full"))
    torch.testing.assert_close(ours[0], expected[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-3)
    assert float((expected / exact - 1).abs().max()) > 3e-3  # eight bits of mantissa show


@pytest.mark.parametrize("name", CUTS_WEIGHTS)
def test_weights_after_a_validation_are_put_together(trained, alone, name):
    is_the_same(trained / f"{name}-last", alone / "last", terms=4)


@pytest.mark.parametrize("name", STRATEGIES[2:])
def test_deepspeed_trains_one_process_too_time_after_time(alone, name):
    is_the_same(alone / name, alone / "full", terms=4)


def test_a_sharded_teacher_teaches_one_process_too(alone):
    is_the_same(alone / "alone-sharded", alone / "full", terms=4)


@pytest.mark.parametrize("fault", ["a gradient twice as large", "no limit to the gradient"])
def test_a_fault_of_the_gradient_would_be_seen(runs, alone, tmp_path, monkeypatch, fault):
    if fault == "a gradient twice as large":
        right = DistillModule._window_scale.fget
        monkeypatch.setattr(DistillModule, "_window_scale", property(lambda module: 2 * right(module)))
    how = ("stages.student.training.gradient_clip=0",) if fault == "no limit to the gradient" else ()
    stage(str(runs["live", "full"]), "student", how).run(tmp_path)
    with pytest.raises(AssertionError):
        weighs_the_same(tmp_path, alone / "full", within=1e-3)


def test_what_is_compared_is_there(alone):
    assert len(scores(alone / "full")) > 0 and len(scores(alone / "full")[0]) > 1


def test_the_training_moves_weights_by_far_more_than_the_bound(runs, alone):
    start = load_file(runs["live", "full"].parent / "student" / "model.safetensors")
    end = weights(alone / "full")
    assert max(float((end[name] - value).abs().max()) for name, value in start.items()) > 1e-3
