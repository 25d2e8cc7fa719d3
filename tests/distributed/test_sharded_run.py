"""A run with a sharded teacher on two processes: dealt out once, recorded, scored, and taught by as by a live one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import tiny, warm
from tests.helpers.counted import carry_out
from tests.helpers.training import weights

STUDENT = {
    "kind": "train",
    "data": ["train"],
    "validation": "validation",
    "objective": [{"kind": "logits", "temperature": 2}, {"kind": "task", "weight": 0.5}],
    "training": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "log_every": 4},
}
ALONE = {**STUDENT, "teacher": "none", "objective": [{"kind": "task"}]}
STAGES = {
    "answers": {"kind": "record", "data": ["train"]},
    "live": STUDENT,
    "cached": {**STUDENT, "cache": "answers"},
    "sharded": {**STUDENT, "training": {**STUDENT["training"], "strategy": "deepspeed_3"}},
    "alone": ALONE,
    "evaluate": {"kind": "evaluate", "data": "validation", "student": "live", "baseline": "alone"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = str(tiny.model_folder(folder / "teacher"))
    return tiny.run_file(
        folder,
        STAGES,
        data={
            "train": {"path": str(tiny.csv_file(folder / "train.csv", 150))},  # batches of 64: two ranks, three batches
            "validation": {"path": str(tiny.csv_file(folder / "validation.csv", 90, seed=1))},
        },
        teacher={"kind": "sharded", "model": model, "dtype": "float32", "whole_below": 0},
    )


@pytest.fixture(scope="module")
def ranks(run, tmp_path_factory) -> list[dict[str, Any]]:
    return carry_out(run, tmp_path_factory.mktemp("counts"))


def test_the_teacher_is_dealt_out_once_for_all_stages(ranks):
    assert [rank["loads"] for rank in ranks] == [1, 1]


def test_recorded_is_live(run, ranks):
    live, cached = (weights(run.parent / "run/seed-0" / name) for name in ("live", "cached"))
    assert live.keys() == cached.keys()
    for name, value in live.items():
        torch.testing.assert_close(cached[name], value, atol=1e-5, rtol=0, msg=name)


def test_it_is_scored_as_a_live_one(run, ranks):
    """As in a process that was started alone; one of its stages is DeepSpeed's, and it is still alone afterwards."""
    live = json.dumps({"model": str(run.parent / "teacher")})
    more = [f"teacher={live}", f"output={run.parent / 'by-live'}", "stages.evaluate.latency=false"]
    done = warm.run("pipelines.cli", "run", str(run), *more)
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = (
        json.loads((run.parent / folder / "evaluate/results.json").read_text()) for folder in ("run", "by-live")
    )
    ours, theirs = found["models"]["teacher"], expected["models"]["teacher"]
    assert ours["seeds"]["0"].keys() == theirs["seeds"]["0"].keys()
    for name, value in theirs["seeds"]["0"].items():
        assert ours["seeds"]["0"][name] == pytest.approx(value, abs=1e-6), name
    assert {name: ours[name] for name in ("path", "parameters", "megabytes", "layers")} == {
        name: theirs[name] for name in ("path", "parameters", "megabytes", "layers")
    }
    assert found["models"]["student"]["seeds"]["0"]["agreement"] == pytest.approx(
        expected["models"]["student"]["seeds"]["0"]["agreement"]
    )


def test_the_report_shows_it_without_a_time(run, ranks):
    results = json.loads((run.parent / "run/evaluate/results.json").read_text())
    assert "latency" in results["models"]["student"] and "latency" not in results["models"]["teacher"]
    row = next(line for line in (run.parent / "run/report.md").read_text().splitlines() if line.startswith("| teacher"))
    assert row.endswith("| – | – |")


@pytest.fixture(scope="module")
def repeats(tmp_path_factory) -> list[dict[str, Any]]:
    """Three repeats under a teacher of 176 MB."""
    folder = tmp_path_factory.mktemp("repeats")
    sizes = {"num_hidden_layers": 14, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    model = tiny.model_folder(folder / "teacher", **sizes)
    once = {"max_steps": 2, "batch_size": 8, "watch": "off"}
    stages = {"student": {"kind": "train", "data": ["train"], "objective": [{"kind": "logits"}], "training": once}}
    teacher = {"kind": "sharded", "model": str(model), "dtype": "float32"}
    run = tiny.run_file(folder, stages, teacher=teacher, repeats=3)
    return carry_out(run, folder / "counts")


def test_repeats_deal_out_nothing_again_and_hold_no_more_than_the_first(repeats):
    for rank in repeats:
        assert rank["loads"] == 1 and len(rank["held"]) == 3
        assert max(rank["held"]) - rank["held"][0] < 0.05 * 176e6, rank["held"]
