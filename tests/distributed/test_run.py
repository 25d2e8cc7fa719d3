"""A run on two processes, as `distill run … machine.devices=2` starts it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import tiny

TRAINING = {"epochs": 1, "batch_size": 8, "log_every": 4}
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "logits"}, {"kind": "hidden"}],
        "training": TRAINING,
    },
    "evaluate": {"kind": "evaluate", "data": "validation", "student": "student", "latency": False},
}


def _command(run: Path, *overrides: str) -> list[str]:
    script = Path(sys.executable).with_name("distill")
    return [str(script), "run", str(run), "machine.devices=2", *overrides]


def test_two_processes_train_one_student_and_one_report(tmp_path):
    command = _command(tiny.run_file(tmp_path, STAGES))
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr[-3000:]  # what libraries say is no news
    assert done.stdout.count("▸ student") == 1 and "2 processes" in done.stdout
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    stage = json.loads((tmp_path / "run/seed-0/student/stage.json").read_text(encoding="utf-8"))
    assert results["rows"] == 40 and stage["results"]["validation"].keys() >= {"accuracy", "ece"}
    assert (tmp_path / "run/report.html").is_file()


def test_a_users_error_is_one_message_and_exit_code_two(tmp_path):
    run = tiny.run_file(tmp_path, STAGES)
    done = subprocess.run(_command(run, "student.heads=3"), check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.count("error:") == 1 and "16 is not a multiple of heads 3" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_all_processes_at_one_step_and_the_run_goes_on(tmp_path, number, code):
    run = tiny.run_file(tmp_path, STAGES)
    long = "stages.student.training={max_steps: 2000, batch_size: 8, log_every: 4, checkpoint_every: 1000000}"
    running = subprocess.Popen(_command(run, long), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run/seed-0/student/log/from-0/metrics.csv"
    until = time.monotonic() + 120
    while not log.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(number)
    _, err = running.communicate(timeout=120)
    assert running.returncode == code, err[-3000:]
    assert err.count("stopped after step") >= 1 and "Traceback" not in err
    saved = [path.stem for path in (tmp_path / "run/seed-0/student/checkpoints").rglob("step-*.ckpt")]
    assert len(saved) == 1 and f"stopped after {saved[0].replace('-', ' ')}" in err
