import os

import pytest
import torch
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed

from configs.errors import UserError
from configs.training import Machine
from pipelines.machine import Device, prepare, usable_cores


def test_threads_come_from_the_cores_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1 and prepare(Machine()).threads == 1
    finally:
        os.sched_setaffinity(0, before)
    assert prepare(Machine(threads=1)).threads == torch.get_num_threads() == 1


def test_threads_stay_as_they_are_when_a_trainer_takes_its_place_among_several(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")  # srun sets none, nor does torchrun for one process of each host
    prepare(Machine(threads=1))
    _set_num_threads_if_needed(num_processes=1)
    assert torch.get_num_threads() == 1


def test_fast_fp32_is_used_only_where_it_is_as_exact():
    torch.manual_seed(0)
    left, right = torch.randn(128, 384), torch.randn(384, 128)
    prepare(Machine(threads=1, fast_fp32=True))
    error = ((left @ right).double() - left.double() @ right.double()).abs().max()
    assert error < 1e-4


def test_the_fast_route_is_claimed_only_where_it_is_another_route():
    device = prepare(Machine(threads=1))
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() or not device.fast_fp32


@pytest.mark.parametrize(
    ("device", "line"),
    [
        (Device("cpu", 1, 1, fast_fp32=True, native_bf16=True), "CPU, 1 thread, fp32 products by oneDNN, bf16"),
        (Device("cpu", 1, 4, fast_fp32=False), "CPU, 4 threads, no bf16"),
        (Device("cpu", 2, 3, fast_fp32=False), "CPU, 2 processes × 3 threads, no bf16"),
    ],
)
def test_says_in_one_line_what_it_is(device, line):
    assert device.describe() == line


@pytest.mark.parametrize(("native", "found"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_processor_has_it(native, found):
    device = Device("cpu", 1, 1, fast_fp32=False, native_bf16=native)
    assert device.precision("auto") == found and device.precision("fp16") == "fp16"


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(UserError, match=r"machine.devices: 999 were asked for, \d+ are here"):
        prepare(Machine(accelerator="cpu", devices=999))
