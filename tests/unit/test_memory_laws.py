"""What each strategy holds, against numbers worked out by hand."""

from dataclasses import replace

import pytest

from distill.strategies.deepspeed_config import BUCKET
from distill.strategies.memory_laws import (
    FP32,
    KERNEL,
    KERNELS,
    PROCESS,
    Layout,
    Learner,
    Need,
    TeacherWeights,
    fullest,
)
from distill.strategies.tracing import Moment

P = 1_000_000_000
"""Weights that learn: far more than fit into a bucket."""
BUCKETED = BUCKET * FP32
LEARNER = Learner(trained=P, frozen=0, largest=100_000_000, outside=400_000_000)
FORWARD = Moment("forward", activations=700, logits=50, gradients=0)
END = Moment("backward", activations=10, logits=0, gradients=4 * P)
TEACHER = TeacherWeights(whole=160_000, small=16_000, passing=5_000)


def need(strategy: str, *moments: Moment, devices: int = 8, **more) -> Need:
    given = {"gpu": True, **more}
    return fullest(LEARNER, TEACHER, moments or (FORWARD, END), Layout(strategy, devices, **given))


def test_one_device_holds_sixteen_bytes_a_weight():
    found = need("ddp", devices=1)
    assert (found.student, found.gradients, found.optimiser) == (4 * P, 4 * P, 8 * P)


def test_activations_stand_beside_the_gradients_of_the_step_before():
    found = need("ddp", devices=1)
    assert (found.activations, found.logits) == (700, 50)


def test_ddp_holds_gradients_twice():
    assert need("ddp").total - need("ddp", devices=1).total == 4 * P


@pytest.mark.parametrize("strategy", ["deepspeed_1", "deepspeed_2", "deepspeed_3", "fsdp"])
def test_moments_are_dealt_out(strategy):
    assert need(strategy).optimiser == (2 if strategy == "fsdp" else 3) * 4 * P // 8


def test_zero_1_has_all_gradients_and_a_bucket():
    found = need("deepspeed_1")
    assert (found.student, found.gradients) == (4 * P, 4 * P + BUCKETED)


def test_zero_2_has_a_bucket_and_its_part_of_gradients():
    found = need("deepspeed_2")
    assert found.student == 4 * P
    assert found.gradients == max(BUCKETED + 4 * P // 8, 2 * 4 * P // 8)


def test_each_stage_of_zero_needs_less_than_the_one_before():
    totals = [need(strategy, devices=64).total for strategy in ("ddp", "deepspeed_1", "deepspeed_2")]
    assert totals == sorted(totals, reverse=True)


def test_fsdp_holds_parts_and_what_is_put_together():
    found = need("fsdp", FORWARD)
    assert found.student == 4 * P // 8 + LEARNER.outside + 2 * LEARNER.largest
    assert found.gradients == 4 * P // 8


@pytest.mark.parametrize("strategy", ["deepspeed_1", "deepspeed_2", "deepspeed_3", "fsdp"])
def test_offload_moves_the_optimiser_to_the_host_of_a_gpu_and_nowhere_on_a_cpu(strategy):
    kept, moved = need(strategy), need(strategy, offload=True)
    assert moved.optimiser == 0 < moved.host
    assert moved.total < kept.total
    assert need(strategy, offload=True, gpu=False) == need(strategy, gpu=False)


def test_a_disk_takes_from_the_host_all_but_buffers():
    """DeepSpeed's own: five of 10⁸ weights, and four tensors of the part that the optimiser works on."""
    moved, away = (need("deepspeed_3", offload=True, disk=disk) for disk in (False, True))
    assert moved.host == 5 * 4 * P // 8
    assert away.host == 5 * 100_000_000 * FP32 + 4 * 4 * P // 8
    assert replace(away, host=0) == replace(moved, host=0)


def test_a_process_on_a_cpu_grows_beside_its_tensors():
    assert need("ddp", gpu=False).total - need("ddp").total == PROCESS


@pytest.mark.parametrize(("kernels", "kept"), [(0, 0), (100, 100), (5000, KERNELS)])
def test_a_cpu_keeps_kernels_of_products_in_bf16_up_to_a_number(kernels, kept):
    assert need("ddp", gpu=False, kernels=kernels).process == PROCESS + kept * KERNEL
    assert need("ddp", kernels=kernels).process == 0


def test_gradients_of_earlier_micro_batches_wait():
    assert need("ddp", END, devices=1, accumulates=True).gradients == 4 * P
    assert need("deepspeed_2", FORWARD, accumulates=True).gradients >= 4 * P // 8


@pytest.mark.parametrize("strategy", ["ddp", "deepspeed_2", "fsdp"])
def test_a_teacher_stands_beside_any_strategy(strategy):
    assert need(strategy).teacher == 0
    assert need(strategy, teacher="live").teacher == 160_000
    assert need(strategy, teacher="sharded").teacher == 144_000 // 8 + 16_000 + 5_000
    away = need(strategy, teacher="sharded", teacher_offload=True)
    assert (away.teacher, away.host) == (21_000, 144_000 // 8)


def test_frozen_weights_have_no_gradients_and_no_moments():
    adapted = Learner(trained=1000, frozen=4 * P, largest=0, outside=0)
    found = fullest(adapted, TEACHER, (FORWARD,), Layout("ddp", 1, gpu=True))
    assert (found.student, found.gradients, found.optimiser) == (4 * P + 4000, 4000, 8000)


def test_the_fullest_moment_decides():
    small = replace(FORWARD, activations=1)
    assert need("ddp", small, FORWARD, devices=1).activations == 700
