"""Killed at random moments, over and over, a training still ends with the weights of the one left in peace."""

import random
import subprocess
import sys
import time

import pytest
import torch

from tests.helpers import tiny
from tests.helpers.training import weights

KILLS = 12
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "logits"}, {"kind": "hidden"}],
        "training": {"epochs": 150, "batch_size": 8, "checkpoint_every": 3, "validate_every": 0.5, "keep": "best"},
    }
}


@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path):
    run = tiny.run_file(tmp_path, STAGES)

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.helpers.training", str(run), "student", str(tmp_path / name)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    begun = time.monotonic()
    assert start("whole").wait(timeout=600) == 0
    whole, draw, killed = time.monotonic() - begun, random.Random(0), 0
    for _ in range(KILLS):
        job = start("cut")
        time.sleep(draw.uniform(0.3, 1.0) * whole)
        killed += job.poll() is None
        job.kill()
        job.wait()
    assert start("cut").wait(timeout=600) == 0
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert killed >= 2 and all(torch.equal(found[name], value) for name, value in expected.items())
