"""A process that dies, fails or hangs ends the run soon, with one error that names it; a signal to one stops all."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers import faults, tiny

TIMEOUT = 8
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "logits"}],
        "training": {"max_steps": 400, "batch_size": 8, "log_every": 4, "checkpoint_every": 4, "watch": "off"},
    },
}


def _run(folder: Path, kind: str, where: str, step: int, run: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run on two processes, with a fault in rank 1."""
    command = [str(faults.script(folder)), "run", str(run or tiny.run_file(folder, STAGES))]
    command += ["machine.devices=2", f"machine.timeout={TIMEOUT}"]
    environment = faults.variables(folder, rank=1, kind=kind, where=where, step=step)
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=environment)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("SIGKILL", r"rank 1 on host \S+ was killed by SIGKILL in step 7"),
        ("raise", r"rank 1 on host \S+ failed in step 7: RuntimeError: boom"),
        ("hang", rf"rank 1 on host \S+ did not answer for {TIMEOUT} s in step 7; it is at faults.py:\d+, in do"),
    ],
)
def test_a_rank_that_does_not_go_on_ends_the_run_with_its_name(tmp_path, kind, said):
    done = _run(tmp_path, kind, "step", 6)
    assert faults.seconds_since(tmp_path) < (TIMEOUT if kind == "hang" else 0) + 15
    assert done.returncode == 1, done.stderr[-3000:]
    assert re.search(f"error: {said}; the same command goes on from step 4 of seed-0/student\n$", done.stderr)
    assert done.stderr.count("error:") == 1 and done.stderr.count("Traceback") == (kind == "raise"), done.stderr


def test_a_late_rank_is_waited_for_before_its_files_go(tmp_path):
    body = {**STAGES["student"]["training"], "max_steps": 8, "keep": "best"}
    run = tiny.run_file(tmp_path, {"student": {**STAGES["student"], "training": body}})
    done = _run(tmp_path, "late", "end", 8, run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/seed-0/student/model/model.safetensors").is_file()
    assert not (tmp_path / "run/seed-0/student/checkpoints").exists()


@pytest.mark.parametrize(("number", "where", "step"), [("SIGTERM", "validation", 8), ("SIGUSR1", "save", 12)])
def test_a_signal_to_one_rank_stops_all_at_one_step(tmp_path, number, where, step):
    done = _run(tmp_path, number, where, step)
    at = 10 * (step // 10 + 1)
    assert done.returncode == 75, done.stderr[-3000:]
    assert re.findall(r"stopped.*", done.stderr) == [f"stopped after step {at}; the same command goes on from there"]
    assert "Traceback" not in done.stderr
    saved = (tmp_path / "run/seed-0/student/checkpoints").rglob("step-*.ckpt")
    assert f"step-{at}" in [path.stem for path in saved]
