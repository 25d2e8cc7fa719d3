"""A disk that is full while a run writes to it: one error, the last good checkpoint, and on from there. Needs root."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from distill.callbacks.checkpoint_io import checkpoints
from tests.helpers import tiny
from tests.helpers.training import weights

MISSING = "" if os.geteuid() == 0 and shutil.which("mount") else "a disk of its own needs root"
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
CHECKPOINT = 1_400_000
"""Bytes of one."""
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "objective": [{"kind": "logits"}],
        "training": {"max_steps": 12, "batch_size": 8, "checkpoint_every": 4, "learning_rate": 1e-3},
    }
}
STUDENT = {"kind": "sizes", "layers": 2, "hidden_size": 64, "intermediate_size": 256, "heads": 4}
Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Make a disk of so many bytes, or give the one there is that size."""
    folder = tmp_path / "disk"

    def sized(size: int) -> Path:
        options = (
            ["-o", f"remount,size={size}"] if folder.is_mount() else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
        )
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", *options, str(folder)], check=True)
        return folder

    yield sized
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("ways", [(), ("stages.student.training.checkpoint_async=true",)], ids=["waits", "beside"])
@pytest.mark.parametrize("room", [2.5, 0.5], ids=["the third checkpoint", "the first checkpoint"])
def test_a_full_disk_is_one_error_and_the_training_goes_on_once_there_is_room(call, tmp_path, disk, room, ways):
    run = tiny.run_file(tmp_path / "run", STAGES, student=STUDENT)
    code, out, err = call("run", str(run), f"output={tmp_path / 'whole'}")
    assert code == 0, out + err
    output = disk(int(room * CHECKPOINT)) / "run"
    code, _, err = call("run", str(run), f"output={output}", *ways)
    assert code == 2
    assert err.count("error:") == 1 and "No space left on device" in err and "Traceback" not in err
    assert "the same command goes on" in err
    folder = next(output.glob("seed-0/student/checkpoints/*"))
    kept = checkpoints(folder)
    assert [path.name for path in kept] == (["step-4.ckpt", "step-8.ckpt"] if room > 1 else [])
    assert all(torch.load(path, weights_only=True)["global_step"] for path in kept)
    assert not [*output.rglob("*.partial")]
    disk(20 * CHECKPOINT)
    code, out, err = call("run", str(run), f"output={output}", *ways)
    assert code == 0, out + err
    found, expected = (weights(where / "seed-0/student") for where in (output, tmp_path / "whole"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
