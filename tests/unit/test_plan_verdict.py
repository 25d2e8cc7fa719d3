"""What a script learns of `distill plan`: whether a run would be taken at set-up, and whether it fits."""

import json
from pathlib import Path

import pytest

from distill.exit_codes import REFUSED
from tests.helpers import outlines

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return outlines.run_file(tmp_path_factory.mktemp("verdict"))


REFUSALS = {
    "fp16 under DeepSpeed": (
        ("machine.strategy=deepspeed_2", "stages.student.training.precision=fp16"),
        "stages.student.training.strategy: deepspeed_2 clips gradients that are still scaled for fp16",
    ),
    "a strategy of the stage": (
        ("stages.student.training.strategy=deepspeed_1", "stages.student.training.precision=fp16"),
        "stages.student.training.strategy: deepspeed_1 clips gradients that are still scaled for fp16",
    ),
    "no file of DeepSpeed's keys": (
        ("machine.strategy=deepspeed_2", "machine.deepspeed.config=/nonexistent.json"),
        "machine.deepspeed.config: /nonexistent.json: No such file or directory",
    ),
    "a partition that does not divide": (
        ("machine.strategy=deepspeed_3", "machine.deepspeed.secondary_partition=3"),
        "machine.deepspeed.secondary_partition: 4 devices do not divide by 3",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_set_up_refuses_is_not_planned(call, run, case):
    overrides, message = REFUSALS[case]
    code, out, err = call("plan", str(run), *overrides, "--gpus", "4")
    assert code == REFUSED and out == ""
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def test_what_set_up_takes_is_planned(call, run, tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"zero_optimization": {"overlap_comm": True}}), encoding="utf-8")
    taken = ("machine.strategy=deepspeed_3", "machine.deepspeed.secondary_partition=2")
    code, out, err = call("plan", str(run), *taken, f"machine.deepspeed.config={keys}", "--gpus", "4")
    assert code == 0, err
    assert "deepspeed_3" in out and "does not fit" not in out


def test_what_does_not_fit_is_planned_and_ends_as_a_refusal(call, run):
    code, out, err = call("plan", str(run), "--gpus", "2", "--memory", "4")
    assert code == REFUSED and err == ""
    assert "memory of a device, GB" in out and "speed on paper" in out
    assert "stages.student does not fit; what would, as planned: " in out and "deepspeed_3" in out


def test_that_code_is_told(call):
    code, out, _ = call("plan", "--help")
    assert code == 0 and f"ends with exit code {REFUSED}" in " ".join(out.split())
    section = " ".join(PAGE.split("## A cluster that is not here")[1].split("\n## ")[0].split())
    assert f"it ends with exit code {REFUSED}, as a run does that does not fit" in section
