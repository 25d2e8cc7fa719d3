"""A step over words or hidden tokens is the same however its window is split, over two processes too."""

from pathlib import Path

import pytest
import torch

from tests.helpers import sentences
from tests.helpers.training import train_apart

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
    return train_apart(run, output, *STILL, *overrides, processes=processes)


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
