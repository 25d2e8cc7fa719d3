"""Rows with wrong answers, of different numbers and lengths: a step is the same however its window is split."""

from pathlib import Path

import pytest
import torch

from tests.helpers import choices, pairs
from tests.helpers.training import train_apart

TERMS = [
    {"kind": "task"},
    {"kind": "unlikelihood", "weight": 0.7},
    {"kind": "length_normalised", "weight": 2.0},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("choices")
    stages = {
        "student": {
            "kind": "train",
            "teacher": "none",
            "data": ["told", "train"],
            "objective": TERMS,
            "training": {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3, "watch": "warn"},
        }
    }
    data = {"told": choices.write(folder, "told", 40)}
    student = {**pairs.STUDENT, "options": {"dropout": 0.0}}
    return pairs.run_file(folder, stages, data=data, student=student)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> dict[str, torch.Tensor]:
    return train_apart(run, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("micro", "processes"), [(4, 1), (1, 1), (4, 2)], ids=["4×2", "1×8", "2 processes"])
def test_a_training_does_not_depend_on_the_split(run, whole, tmp_path, micro, processes) -> None:
    split = train_apart(run, tmp_path, f"stages.student.training.micro_batch_size={micro}", processes=processes)
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("place", [1, 2])
def test_each_term_moves_the_weights(run, whole, tmp_path, place) -> None:
    without = train_apart(run, tmp_path, f"stages.student.objective.{place}.weight=1e-9")
    assert max(float((without[name] - value).abs().max()) for name, value in whole.items()) > 1e-4
