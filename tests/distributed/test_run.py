"""A run on two processes, as `distill run … machine.devices=2` starts it."""

import json
import subprocess
import sys
from pathlib import Path

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


def test_two_processes_train_one_student_and_one_report(tmp_path):
    script = Path(sys.executable).with_name("distill")
    command = [str(script), "run", str(tiny.run_file(tmp_path, STAGES)), "machine.devices=2"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("▸ student") == 1 and "2 processes" in done.stdout
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    stage = json.loads((tmp_path / "run/seed-0/student/stage.json").read_text(encoding="utf-8"))
    assert results["rows"] == 40 and stage["results"]["validation"].keys() >= {"accuracy", "ece"}
    assert (tmp_path / "run/report.html").is_file()
