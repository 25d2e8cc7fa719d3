"""A process that only teaches ends a run as any other does, and is told when one that trains is gone."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers import faults, tiny
from tests.helpers.same import weighs_the_same

pytestmark = pytest.mark.slow  # what one end makes of the other's end is tested without processes
TIMEOUT, STEPS = 8, 12
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "logits"}, {"kind": "hidden"}],
        "training": {"max_steps": STEPS, "batch_size": 8, "log_every": 1, "checkpoint_every": 4, "watch": "off"},
    },
}
APART = ("machine.devices=2", "machine.teachers=1", f"machine.timeout={TIMEOUT}")


def _run(folder: Path, *overrides: str, **fault: object) -> subprocess.CompletedProcess[str]:
    """Run on two processes, the second of which teaches."""
    path = folder / "run.yaml"
    run = path if path.is_file() else tiny.run_file(folder, STAGES)
    command = [str(faults.script(folder)), "run", str(run), *overrides]
    environment = faults.variables(folder, **({"rank": -1} | fault))
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=environment)


FAULTS = {
    "the teacher is killed": ((1, "SIGKILL", "answer"), r"rank 1 on host \S+ was killed by SIGKILL in step [78]"),
    "the teacher fails": ((1, "raise", "answer"), r"rank 1 on host \S+ failed in step 7: RuntimeError: boom"),
    "the teacher hangs": (
        (1, "hang", "answer"),
        rf"rank 1 on host \S+ did not answer for {TIMEOUT} s in step 7; it is at faults.py:\d+, in do",
    ),
    "the student is killed": ((0, "SIGKILL", "step"), r"rank 0 on host \S+ was killed by SIGKILL in step [78]"),
    "the student fails": ((0, "raise", "step"), r"rank 0 on host \S+ failed in step 7: RuntimeError: boom"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_rank_that_does_not_go_on_ends_the_run_with_its_name(tmp_path, case):
    (rank, kind, where), said = FAULTS[case]
    done = _run(tmp_path, *APART, rank=rank, kind=kind, where=where, step=6)
    seconds = faults.seconds_since(tmp_path)
    assert done.returncode == 1, done.stderr[-3000:]
    assert re.search(f"error: {said}; the same command goes on from step 4 of seed-0/student\n$", done.stderr)
    assert done.stderr.count("error:") == 1 and done.stderr.count("Traceback") == (kind == "raise"), done.stderr
    assert seconds < (TIMEOUT if kind == "hang" else 0) + 15


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_to_a_teacher_stops_the_training_which_goes_on_to_the_same_weights(tmp_path, number):
    stopped = _run(tmp_path, *APART, rank=1, kind=number, where="answer", step=6)
    assert stopped.returncode == {"SIGTERM": 75, "SIGINT": 130}[number], stopped.stderr[-3000:]
    (at,) = re.findall(r"stopped after step (\d+); the same command goes on from there", stopped.stderr)
    assert 6 <= int(at) < STEPS and "Traceback" not in stopped.stderr
    saved = (tmp_path / "run/seed-0/student/checkpoints").rglob("step-*.ckpt")
    assert f"step-{at}" in [path.stem for path in saved]
    for overrides in (APART, (f"output={tmp_path / 'whole'}",)):
        done = _run(tmp_path, *overrides)
        assert done.returncode == 0, done.stderr[-3000:]
    cut = tmp_path / "run/seed-0/student"
    assert (cut / "log" / f"from-{at}").is_dir()
    weighs_the_same(cut, tmp_path / "whole/seed-0/student")
