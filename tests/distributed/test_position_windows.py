"""A step over words or hidden tokens is the same however its window is split, over two processes too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import sentences
from tests.helpers.training import weights

STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "teacher": "base",
        "objective": [{"kind": "task"}, {"kind": "hidden"}],
        "training": {"max_steps": 6, "batch_size": 8, "learning_rate": 5e-4, "watch": "warn"},
    }
}
STILL = ("student.options.hidden_dropout_prob=0.0", "student.options.attention_probs_dropout_prob=0.0")
WRITE = {"tagging": sentences.run_file, "masked_lm": sentences.text_run_file}


def _train(run: Path, output: Path, *overrides: str, processes: int = 1) -> dict[str, torch.Tensor]:
    arguments = ["-m", "tests.helpers.training", str(run), "student", str(output), *STILL, *overrides]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0", "--standalone"]
        arguments = [*launcher, *arguments, f"machine.devices={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return weights(output)


@pytest.mark.parametrize("kind", WRITE)
def test_parts_and_processes_end_with_the_weights_of_one(kind, tmp_path):
    stages = STAGES
    if kind == "masked_lm":
        objective = [*STAGES["student"]["objective"], {"kind": "logits", "temperature": 2}]
        stages = {"student": {**STAGES["student"], "objective": objective}}
    run = WRITE[kind](tmp_path / "run", stages)
    whole = _train(run, tmp_path / "whole")
    size = "stages.student.training.micro_batch_size={}"
    split = {
        "parts": _train(run, tmp_path / "parts", size.format(2)),
        "processes": _train(run, tmp_path / "processes", size.format(2), processes=2),
    }
    for found in split.values():
        for name, weight in whole.items():
            torch.testing.assert_close(found[name], weight, atol=2e-5, rtol=0)
