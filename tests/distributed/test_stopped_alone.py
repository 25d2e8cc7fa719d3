"""A signal that reaches the host of rank 0 alone, outside of a training, stops the others too."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers import tiny
from tests.helpers.faults import ROOT

STAGES = {
    "student": {"kind": "train", "data": ["train"], "objective": [{"kind": "logits"}], "training": {"max_steps": 4}},
}


def _started(run: Path, rank: int, port: int) -> "subprocess.Popen[str]":
    """Start a rank as the torchrun of its host does."""
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "GROUP_RANK": rank, "GROUP_WORLD_SIZE": 2}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in place.items()}}
    command = [sys.executable, "-P", "-m", "pipelines.cli", "run", str(run), "machine.nodes=auto"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(run.parent.rglob(f"beat-{rank:05}.json")) and time.monotonic() < until:
        time.sleep(0.02)
    return process


def test_who_waits_for_rank_0_leaves_with_it(tmp_path):
    run = tiny.run_file(tmp_path, STAGES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    waits = _started(run, 1, port)
    checks = _started(run, 0, port)
    try:
        checks.send_signal(signal.SIGTERM)
        errors = [process.communicate(timeout=180)[1] for process in (checks, waits)]
        assert [checks.returncode, waits.returncode] == [75, 75], errors
        assert [said.count("the same command goes on from there") for said in errors] == [1, 0], errors
    finally:
        for process in (checks, waits):
            process.kill()
            process.communicate()  # another test would be blamed for what is left open
