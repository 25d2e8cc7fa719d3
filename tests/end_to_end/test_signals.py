"""A run that is asked to stop does so in order, whatever it is at."""

import re
import subprocess
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from distill.signals import SIGNALS, deaf
from tests.helpers import faults, tiny
from tests.helpers.training import weights

STEPS = 12
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "logits"}],
        "training": {"max_steps": STEPS, "batch_size": 8, "watch": "off", "validate_every": 0, "checkpoint_every": 5},
    },
}


def _run(run: Path, output: Path, **fault: object) -> subprocess.CompletedProcess[str]:
    command = [str(faults.script(run.parent)), "run", str(run), f"output={output}"]
    environment = faults.variables(run.parent, **({"rank": -1} | fault))
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=environment)


def test_a_signal_after_the_last_step_is_heeded_and_costs_nothing(tmp_path):
    run = tiny.run_file(tmp_path, STAGES)
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    stopped = _run(run, cut, rank=0, kind="SIGTERM", where="validation", step=STEPS)
    assert stopped.returncode == 75, stopped.stderr[-3000:]
    assert re.findall(r"stopped.*", stopped.stderr) == [
        f"stopped after step {STEPS}; the same command goes on from there"
    ]
    for output in (cut, whole):
        done = _run(run, output)
        assert done.returncode == 0, done.stderr[-3000:]
    expected, found = weights(whole / "seed-0/student"), weights(cut / "seed-0/student")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_an_interrupt_while_a_training_is_set_up_is_a_stop(tmp_path):
    """Lightning takes a KeyboardInterrupt for itself, and ends the process with 1."""
    stopped = _run(tiny.run_file(tmp_path, STAGES), tmp_path / "run", rank=0, kind="SIGINT", where="setup", step=0)
    assert stopped.returncode == 130, stopped.stderr[-3000:]
    assert "stopped; the same command goes on from there" in stopped.stderr and "Traceback" not in stopped.stderr


def test_processes_that_pad_batches_are_deaf():
    """They get what is sent to all processes of a job; without them the step could not be ended."""
    batches = DataLoader(list(range(400)), batch_size=1, num_workers=1, worker_init_fn=deaf)  # type: ignore[arg-type]
    iterator = iter(batches)
    next(iterator)
    worker = iterator._workers[0]  # type: ignore[attr-defined]
    for number in SIGNALS:
        subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
    assert sum(1 for _ in iterator) == 399 and worker.exitcode in (None, 0)
