"""A step is the same however its window is split: 8×1, 4×2, 1×8 micro-batches, or two processes."""

from pathlib import Path

import pytest
import torch

from tests.helpers import tiny
from tests.helpers.training import train_apart

OBJECTIVE = [
    {"kind": "logits", "temperature": 2},
    {"kind": "hidden"},
    {"kind": "embeddings"},
    {"kind": "attention"},
    {"kind": "attention", "target": "probabilities"},
    {"kind": "relations", "heads": 4},
    {"kind": "task"},
]
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train", "unlabelled"],
        "objective": OBJECTIVE,
        "training": {"max_steps": 6, "batch_size": 8, "learning_rate": 5e-4, "watch": "warn"},
    }
}
STILL = ("student.options.hidden_dropout_prob=0.0", "student.options.attention_probs_dropout_prob=0.0")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("windows")
    unlabelled = tiny.csv_file(folder / "unlabelled.csv", 30, seed=2, labelled=False)
    sources = {
        "train": {"path": str(tiny.csv_file(folder / "train.csv", 64))},
        "unlabelled": {"path": str(unlabelled), "columns": {"label": None}},
    }
    return tiny.run_file(folder, STAGES, data=sources)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> dict[str, torch.Tensor]:
    return train_apart(run, tmp_path_factory.mktemp("whole"), *STILL)


@pytest.mark.parametrize(
    ("micro", "processes"), [(4, 1), (1, 1), (4, 2), (2, 2)], ids=["4×2", "1×8", "2 processes", "2 processes × 2"]
)
def test_weights_do_not_depend_on_the_split(run, whole, tmp_path, micro, processes):
    micro_batch = f"stages.student.training.micro_batch_size={micro}"
    split = train_apart(run, tmp_path, *STILL, micro_batch, processes=processes)
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_the_training_moves_weights_by_far_more_than_the_bound(run, whole, tmp_path):
    other = train_apart(run, tmp_path, *STILL, "stages.student.training.max_steps=5")
    assert max(float((other[name] - value).abs().max()) for name, value in whole.items()) > 1e-4
