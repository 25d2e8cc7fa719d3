"""Learning from a recorded teacher is learning from the live one."""

from pathlib import Path

import pytest
import torch

from tests.helpers import tiny
from tests.helpers.training import weights

STUDENT = {
    "kind": "train",
    "data": ["train"],
    "validation": "validation",
    "objective": [{"kind": "logits", "temperature": 2}, {"kind": "task", "weight": 0.5}],
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "log_every": 4},
}
STAGES = {
    "teacher": {
        "kind": "train",
        "trains": "teacher",
        "data": ["train"],
        "objective": [{"kind": "task"}],
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3},
    },
    "answers": {"kind": "record", "data": ["train"]},
    "live": STUDENT,
    "cached": {**STUDENT, "cache": "answers"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    tiny.run_file(folder, STAGES)
    return folder


def test_cached_equals_live(folder, call):
    code, out, err = call("run", str(folder / "run.yaml"))
    assert code == 0, err
    assert "▸ answers record" in out and "64 rows" in out and "as recorded by stage answers" in out
    live, cached = (weights(folder / "run/seed-0" / name) for name in ("live", "cached"))
    assert live.keys() == cached.keys()
    for name, value in live.items():
        torch.testing.assert_close(cached[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_the_same_command_again_does_nothing_and_a_new_teacher_records_again(folder, call):
    part = folder / "run/answers/part-00000.safetensors"
    before = part.read_bytes()
    code, out, err = call("run", str(folder / "run.yaml"))
    assert code == 0 and "answers: done before" in out and "cached · seed 0: done before" in out, err
    code, out, err = call("run", str(folder / "run.yaml"), "stages.teacher.training.learning_rate=2e-3")
    assert code == 0 and "done before" not in out, err
    assert part.read_bytes() != before
