"""What each strategy holds, against numbers worked out by hand."""

from dataclasses import replace

import pytest

from configs.strategies import DeepSpeed
from configs.training import Training
from distill.strategies.deepspeed_config import BUCKET, Keeping, deepspeed_config, keeping
from distill.strategies.limits import Facts
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
SIZES = (P - 3000, 2000, 1000)
LEARNER = Learner(trained=P, frozen=0, largest=100_000_000, outside=400_000_000, sizes=SIZES)
FORWARD = Moment("forward", activations=700, logits=50, gradients=0)
BUSY = replace(FORWARD, activations=4 * P)
"""Fuller than the moment before weights are cut up."""
END = Moment("backward", activations=10, logits=0, gradients=4 * P)
TEACHER = TeacherWeights(whole=160_000, small=16_000, passing=5_000)


def need(strategy: str, *moments: Moment, devices: int = 8, **more) -> Need:
    given = {"gpu": True, "neighbours": 8, "keeping": kept(strategy), **more}
    return fullest(LEARNER, TEACHER, moments or (FORWARD, END), Layout(strategy, devices, **given))


def kept(strategy: str, options: DeepSpeed | None = None, **keys: float | bool) -> Keeping:
    """What DeepSpeed keeps under a strategy, with keys of a user's own, small weights cut up like all others."""
    if not strategy.startswith("deepspeed"):
        return Keeping()
    facts = Facts(True, 8, "fp32", P, leaves_out=False, looks_at_weights=False, edits_weights=False)
    config = deepspeed_config(int(strategy[-1]), Training(max_steps=1), options or DeepSpeed(), facts)
    config["zero_optimization"] |= {"stage3_param_persistence_threshold": 0, **keys}
    return keeping(config)


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
    assert need(strategy, BUSY).optimiser == (2 if strategy == "fsdp" else 3) * 4 * P // 8


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
    found = need("fsdp", BUSY)
    assert found.student == 4 * P // 8 + LEARNER.outside + 2 * LEARNER.largest
    assert found.gradients == 4 * P // 8


@pytest.mark.parametrize("strategy", ["deepspeed_1", "deepspeed_2", "deepspeed_3", "fsdp"])
def test_offload_moves_the_optimiser_to_the_host_of_a_gpu_and_nowhere_on_a_cpu(strategy):
    here, moved = need(strategy, BUSY), need(strategy, BUSY, offload=True)
    assert moved.optimiser == 0 and here.host < moved.host
    assert moved.total < here.total
    assert need(strategy, offload=True, gpu=False) == need(strategy, gpu=False)


def test_a_disk_takes_from_the_host_all_but_buffers():
    """DeepSpeed's own: five of 10⁸ weights, and four tensors of the part that the optimiser works on."""
    moved, away = (need("deepspeed_3", offload=True, disk=disk) for disk in (False, True))
    saved = 3 * 4 * P // 8  # weights and moments, whole, on one of eight processes
    assert moved.host == 5 * 4 * P // 8 + saved
    assert away.host == 5 * 100_000_000 * FP32 + 4 * 4 * P // 8 + saved
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
    assert (away.teacher, away.host - need(strategy).host) == (21_000, 144_000 // 8)


def test_frozen_weights_have_no_gradients_and_no_moments():
    adapted = Learner(trained=1000, frozen=4 * P, largest=0, outside=0)
    found = fullest(adapted, TEACHER, (FORWARD,), Layout("ddp", 1, gpu=True))
    assert (found.student, found.gradients, found.optimiser) == (4 * P + 4000, 4000, 8000)


def test_the_fullest_moment_decides():
    small = replace(FORWARD, activations=1)
    assert need("ddp", small, FORWARD, devices=1).activations == 700


@pytest.mark.parametrize("strategy", ["deepspeed_1", "deepspeed_2", "deepspeed_3"])
def test_a_bucket_is_as_large_as_a_user_wants_it(strategy):
    large, larger = (need(strategy, END, keeping=kept(strategy, reduce_bucket_size=size)) for size in (P, 2 * P))
    assert larger.total - large.total == P * FP32
    assert large.total > need(strategy, END).total


def test_stages_1_and_2_have_a_second_bucket_to_send_and_compute_at_once():
    assert kept("deepspeed_2", overlap_comm=True).buckets == 2 * BUCKET
    assert kept("deepspeed_3", overlap_comm=True).buckets == BUCKET


def test_gradients_in_no_buffers_are_there_twice_as_they_come():
    scattered = kept("deepspeed_2", reduce_bucket_size=2e9, contiguous_gradients=False)
    some = replace(END, gradients=P, activations=60 * P)
    assert need("deepspeed_2", some, keeping=scattered).gradients == 2 * P + P // 8
    assert need("deepspeed_2", END, keeping=scattered).gradients == 2 * 4 * P + 4 * P // 8


@pytest.mark.parametrize(
    ("keys", "gathered"),
    [
        ({}, P + 50_000_000),
        ({"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0}, SIZES[0]),
        ({"stage3_max_reuse_distance": 0, "stage3_max_live_parameters": 7}, SIZES[0] + 7),
        (
            {
                "stage3_max_reuse_distance": 0,
                "stage3_prefetch_bucket_size": 0,
                "stage3_param_persistence_threshold": 1000,
            },
            SIZES[0] + 1000,
        ),
    ],
)
def test_what_stage_3_gathers_is_as_much_as_a_user_lets_it(keys, gathered):
    found = need("deepspeed_3", FORWARD, keeping=kept("deepspeed_3", **keys))
    assert found.student == 4 * P // 8 + gathered * FP32


def test_a_second_copy_of_the_weights_is_dealt_out_over_its_group():
    twice = kept("deepspeed_3", DeepSpeed(secondary_partition=4))
    assert need("deepspeed_3", FORWARD, keeping=twice).total - need("deepspeed_3", FORWARD).total == 4 * P // 4
    away = need("deepspeed_3", FORWARD, keeping=twice, offload=True)
    assert away.host - need("deepspeed_3", FORWARD, offload=True).host == 4 * P // 4


@pytest.mark.parametrize("strategy", ["deepspeed_3", "fsdp"])
def test_weights_are_on_the_device_before_they_are_cut_up(strategy):
    some = replace(LEARNER, trained=1000, frozen=100 * P, sizes=(1000,))
    found = fullest(some, TEACHER, (FORWARD,), Layout(strategy, 64, gpu=True, keeping=kept(strategy)))
    assert found.student == 100 * P + 4000
    away = Layout(strategy, 64, gpu=True, offload=True, keeping=kept(strategy))
    assert fullest(some, TEACHER, (FORWARD,), away).host > found.host


@pytest.mark.parametrize(("strategy", "copies"), [("ddp", 0), ("deepspeed_2", 2), ("deepspeed_3", 3), ("fsdp", 3)])
def test_rank_0_has_what_a_checkpoint_holds_on_its_host(strategy, copies):
    assert need(strategy).host == copies * 4 * P // 8
    assert need(strategy, neighbours=2).host == copies * 4 * P // 2
    idle = replace(FORWARD, activations=0, logits=0)
    if copies:
        assert need(strategy, idle, gpu=False, devices=64).optimiser >= copies * 4 * P


@pytest.mark.parametrize("strategy", ["deepspeed_3", "fsdp"])
def test_rank_0_has_all_weights_on_its_host_in_the_end(strategy):
    adapted = replace(LEARNER, trained=1000, frozen=4 * P, sizes=(1000,))
    found = fullest(adapted, TEACHER, (FORWARD,), Layout(strategy, 8, gpu=True, keeping=kept(strategy)))
    assert found.host == 4 * P + 4000
