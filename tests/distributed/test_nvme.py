"""Weights, gradients and moments on a disk: DeepSpeed's extension for it takes up to 15 minutes to build, once."""

import pytest
import torch
from deepspeed.ops.op_builder import AsyncIOBuilder

from pipelines.extensions import build_for_disks
from tests.helpers import footprint
from tests.helpers.training import cut_apart, train_apart

EVERY = "stages.student.training.checkpoint_every=1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AsyncIOBuilder().is_compatible(), reason="needs libaio and its headers"),
]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build_for_disks(print)


def test_a_training_that_is_cut_and_goes_on_on_a_disk_ends_with_the_weights_of_one_in_memory(tmp_path):
    run, disk = footprint.write(tmp_path / "run"), tmp_path / "disk"  # only tensors of 1 MiB and more are swapped
    disk.mkdir()
    stage_3 = ("machine.strategy=deepspeed_3", EVERY)
    on_disk = (*stage_3, "machine.deepspeed.offload=nvme", f"machine.deepspeed.nvme={disk}")
    expected = train_apart(run, tmp_path / "expected", *stage_3, processes=2)
    cut_apart(run, tmp_path / "cut", 2, *on_disk, processes=2)
    assert sum(path.stat().st_size for path in disk.rglob("*") if path.is_file()) > 100_000_000
    found = train_apart(run, tmp_path / "cut", *on_disk, processes=2)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not any(disk.iterdir())
