"""A disk that is full while a run writes to it: one error, the last good checkpoint, and on from there. Needs root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from distill.callbacks.checkpoint_io import checkpoints
from tests.helpers import tiny
from tests.helpers.training import train_apart, weights

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
Ended = Callable[..., tuple[int, str]]


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


@pytest.fixture
def ended(call) -> Ended:
    """Run on so many devices; return exit code and errors. Several processes need `distill` started as a user does."""

    def ran(devices: int, *arguments: str) -> tuple[int, str]:
        if devices == 1:
            code, _, err = call("run", *arguments)
            return code, err
        command = [str(Path(sys.executable).with_name("distill")), "run", *arguments, f"machine.devices={devices}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stderr

    return ran


def _is_one_error(code: int, err: str, output: Path) -> None:
    """See that a run was ended by a full disk, and left nothing half-written on it."""
    assert code == 2, err
    assert err.count("error:") == 1 and "No space left on device" in err and "Traceback" not in err, err
    assert "the same command goes on" in err
    assert not [*output.rglob("*.partial")]


def _weighs(output: Path, expected: dict[str, torch.Tensor]) -> None:
    found = weights(output / "seed-0/student")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("ways", [(), ("stages.student.training.checkpoint_async=true",)], ids=["waits", "beside"])
@pytest.mark.parametrize("room", [2.5, 0.5], ids=["the third checkpoint", "the first checkpoint"])
def test_a_full_disk_is_one_error_and_the_training_goes_on_once_there_is_room(
    ended, tmp_path, disk, room, ways, devices
):
    run = tiny.run_file(tmp_path / "run", STAGES, student=STUDENT)
    expected = train_apart(run, tmp_path / "whole", processes=devices)
    output = disk(int(room * CHECKPOINT)) / "run"
    command = (devices, str(run), f"output={output}", *ways)
    _is_one_error(*ended(*command), output)
    folder = next(output.glob("seed-0/student/checkpoints/*"))
    kept = checkpoints(folder)
    assert [path.name for path in kept] == (["step-4.ckpt", "step-8.ckpt"] if room > 1 else [])
    assert all(torch.load(path, weights_only=True)["global_step"] for path in kept)
    disk(20 * CHECKPOINT)
    code, err = ended(*command)
    assert code == 0, err
    _weighs(output, expected)


@pytest.mark.parametrize("devices", [1, 2])
def test_so_is_one_that_has_no_room_for_the_model(ended, tmp_path, disk, devices):
    run = tiny.run_file(tmp_path / "run", STAGES, student=STUDENT)
    expected = train_apart(run, tmp_path / "whole", processes=devices)
    output = disk(CHECKPOINT // 5) / "run"
    seldom = "stages.student.training.checkpoint_every=100"
    command = (devices, str(run), f"output={output}", seldom)
    _is_one_error(*ended(*command), output)
    disk(20 * CHECKPOINT)
    code, err = ended(*command)
    assert code == 0, err
    _weighs(output, expected)
