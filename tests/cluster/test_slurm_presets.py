"""The two main jobs on two nodes of a real SLURM, from the first stage to the last, cut at random moments."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.cluster.slurm import Slurm, missing, said, submit
from tests.helpers import pairs, tiny

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]
CUTS = 5
TIMES = {"sentences_per_second", "sentences_per_second_greedy"}
LONGEST = 600
"""Seconds a job may take."""


def _tinybert(folder: Path) -> Path:
    """Write TinyBERT's preset with small models and few rows; all its stages are there."""
    folder.mkdir()
    few = {"epochs": None, "batch_size": 8, "checkpoint_every": 3, "learning_rate": 2e-3}
    steps = {"teacher": 30, "general": 30, "intermediate": 50, "prediction": 50, "baseline": 20}
    trainings = {name: {"training": few | {"max_steps": count}} for name, count in steps.items()}
    texts = tiny.csv_file(folder / "general.csv", 96, seed=2, labelled=False)
    here = {"name": None, "split": None}
    sections = {
        "extends": "tinybert/sst2",
        "about": "A test.",
        "expect": "Nothing.",
        "task": {"max_length": 24},
        "teacher": {"model": str(tiny.model_folder(folder / "teacher"))},
        "student": {"layers": 2, "hidden_size": 16, "intermediate_size": 32, "heads": 4},
        "data": {
            "train": here | _table(folder / "train.csv", 64),
            "validation": here | _table(folder / "validation.csv", 40, seed=1),
            "general": here | {"path": str(texts), "pack": False},
        },
        "stages": trainings
        | {
            "augment": {"copies": 2},
            "evaluate": {"latency": False},
            "export": {"formats": ["transformers"]},
        },
        "machine": {"threads": 1, "loggers": ["csv"]},
    }
    (folder / "run.yaml").write_text(json.dumps(sections), encoding="utf-8")
    return folder / "run.yaml"


def _table(path: Path, count: int, seed: int = 0) -> dict[str, object]:
    numbers = {label: str(number) for number, label in enumerate(tiny.LABELS)}
    lines = [f"{text},{numbers[label]}" for text, label in tiny.sentences(count, seed)]
    path.write_text("\n".join(["sentence,label", *lines]) + "\n", encoding="utf-8")
    return {"path": str(path)}


def _translation(folder: Path) -> Path:
    """Write a run that trains a translator, has it write, and a student learn from its texts."""
    training = pairs.TRAINING | {"epochs": None, "max_steps": 60, "checkpoint_every": 3}
    task = [{"kind": "task"}]
    stages = {
        "teacher": {"kind": "train", "trains": "teacher", "data": ["train"], "objective": task, "training": training},
        "texts": {"kind": "generate", "data": ["train"], "shard_characters": 100, "engine": "huggingface"},
        "selected": {"kind": "select", "generated": "texts"},
        "student": {
            "kind": "train",
            "teacher": "none",
            "data": ["told"],
            "validation": "validation",
            "objective": task,
            "training": training | {"max_steps": 150},
        },
        "evaluate": {"kind": "evaluate", "data": "test", "student": "student", "latency": False},
        "export": {"kind": "export", "student": "student", "data": "test"},
    }
    return pairs.run_file(folder, stages, data={"told": {"kind": "stage", "stage": "selected"}})


def _cut(slurm: Slurm, job: str, output: Path, stages: list[str]) -> None:
    """Interrupt a job `CUTS` times, at random moments of stages drawn by lot; each time it comes back by itself."""
    draw, told = random.Random(1), 0
    ways = [["scontrol", "requeue", job], *(["scancel", f"--signal={name}", job] for name in ("TERM", "USR1"))]
    for number, stage in enumerate(sorted(draw.choices(range(len(stages)), k=CUTS))):
        assert slurm.wait(job, ("RUNNING",), 90) == "RUNNING", said(output)
        until = time.monotonic() + LONGEST
        while not any(f"▸ {name} " in said(output)[told:] for name in stages[stage:]) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(draw.uniform(0.0, 1.5))
        assert slurm.state(job) == "RUNNING", f"the job ended before cut {number}"
        told = len(said(output))
        slurm.ask(*ways[number % len(ways)])
        assert slurm.wait(job, ("PENDING",), 90) == "PENDING", said(output)


def _kept(output: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return all weights of a run: what its trainings ended with, and what was exported."""
    return {str(path.relative_to(output)): load_file(path) for path in sorted(output.rglob("model.safetensors"))}


def _scores(output: Path) -> object:
    models = json.loads((output / "evaluate/results.json").read_text(encoding="utf-8"))["models"]
    seeds = {role: found["seeds"]["0"] for role, found in models.items()}
    return {
        role: {name: score for name, score in scores.items() if name not in TIMES} for role, scores in seeds.items()
    }


def _texts(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what a teacher wrote; the files also name its folder."""
    return {path.name: pq.read_table(path).to_pylist() for path in (output / "texts/shards").glob("*.parquet")}


@pytest.mark.parametrize(
    ("write", "stages"),
    [
        (_tinybert, ["teacher", "general", "augment", "intermediate", "answers", "prediction", "baseline"]),
        (_translation, ["teacher", "texts", "selected", "student"]),
    ],
    ids=["tinybert", "translation"],
)
def test_a_whole_job_that_is_cut_ends_by_itself_as_if_it_had_not_been(slurm, tmp_path, write, stages):
    run = write(tmp_path / "run")
    job = submit(slurm, run, tmp_path / "whole", "--nodes", "2")
    assert slurm.wait(job, ("COMPLETED", "FAILED"), LONGEST) == "COMPLETED", said(tmp_path / "whole")
    job = submit(slurm, run, tmp_path / "cut", "--nodes", "2")
    _cut(slurm, job, tmp_path / "cut", stages)
    assert slurm.wait(job, ("COMPLETED", "FAILED"), LONGEST) == "COMPLETED", said(tmp_path / "cut")
    assert slurm.restarts(job) == CUTS
    whole, cut = _kept(tmp_path / "whole"), _kept(tmp_path / "cut")
    assert cut.keys() == whole.keys() and len(whole) > 2
    for file, tensors in whole.items():
        assert all(torch.equal(cut[file][name], value) for name, value in tensors.items()), file
    assert _scores(tmp_path / "cut") == _scores(tmp_path / "whole")
    assert _texts(tmp_path / "cut") == _texts(tmp_path / "whole")
    assert len(_texts(tmp_path / "whole")) > 1 or write is _tinybert
