"""Rows with weights, several texts of a teacher for each source: a step is the same however its window is split."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.helpers import pairs, warm
from tests.helpers.training import train_apart, weights

STAGES = {
    "texts": {
        "kind": "generate",
        "teacher": "base",
        "data": ["train"],
        "decoding": {"beams": 4, "hypotheses": 4, "max_tokens": 8},
        "engine": "huggingface",
    },
    "several": {"kind": "select", "generated": "texts", "hypotheses": 3, "temperature": 0.02, "filters": None},
    "student": {
        "kind": "train",
        "teacher": "none",
        "data": ["told", "train"],
        "objective": [{"kind": "task"}],
        "training": {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3, "watch": "warn"},
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weighted")
    data = {"told": {"kind": "stage", "stage": "several"}}
    path = pairs.run_file(folder, STAGES, data=data, student={**pairs.STUDENT, "options": {"dropout": 0.0}})
    done = warm.run("pipelines.cli", "run", str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    return path


def test_the_weights_of_each_source_are_a_distribution_in_the_order_of_the_scores(run) -> None:
    part = pq.read_table(run.parent / "run/several/part-00000.parquet").to_pydict()
    choices = pq.read_table(run.parent / "run/several/choices/choices.parquet").to_pydict()
    scores = {
        (row, text): score for row, text, score in zip(*(choices[n] for n in ("id", "text", "score")), strict=True)
    }
    for row in set(part["id"]):
        places = [n for n, other in enumerate(part["id"]) if other == row]
        found = np.array([part["weight"][n] for n in places])
        told = np.array([scores[row, part["target"][n]] for n in places], np.float64)
        raised = [float(np.exp(score / 0.02)) for score in told]
        assert len(found) <= 3
        np.testing.assert_allclose(found, np.array(raised) / sum(raised), rtol=1e-3)
    assert len(part["id"]) > 2 * len(set(part["id"]))
    assert min(part["weight"]) < 0.3 < 0.5 < max(part["weight"])


@pytest.mark.parametrize(("micro", "processes"), [(4, 1), (1, 1), (4, 2)], ids=["4×2", "1×8", "2 processes"])
def test_a_training_does_not_depend_on_the_split(run, tmp_path, micro, processes) -> None:
    whole = weights(run.parent / "run/seed-0/student")
    split = train_apart(run, tmp_path, f"stages.student.training.micro_batch_size={micro}", processes=processes)
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
