"""What a real SLURM takes from a job by itself: its nodes for a more urgent one, a node that is lost, its time."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import torch

from distill.callbacks.checkpoint_io import checkpoints
from teachers.record import Record, parts_of, read_record
from tests.cluster.slurm import DISTILL, Slurm, missing, said, submit
from tests.helpers import tiny
from tests.helpers.training import weights

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]
STEPS = {"max_steps": 300, "checkpoint_every": 7, "validate_every": 0.5, "workers": 1}
STAGES = tiny.students(**STEPS)
RECORD = {"answers": {"kind": "record", "data": ["train"]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny.run_file(tmp_path_factory.mktemp("run"), STAGES)


@pytest.fixture(scope="module")
def whole(run: Path) -> dict[str, torch.Tensor]:
    return _whole(run)


def _whole(run: Path) -> dict[str, torch.Tensor]:
    """Train in two processes of this machine, without a cut."""
    _distill("run", str(run), f"output={run.parent / 'whole'}", "machine.devices=2", "machine.threads=1")
    return weights(run.parent / "whole/seed-0/student")


def _distill(*arguments: str) -> None:
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([str(DISTILL), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def _begun(slurm: Slurm, run: Path, output: Path) -> str:
    """Submit a run to both nodes and wait for its first checkpoint; return the job."""
    job = submit(slurm, run, output, "machine.threads=1", "--nodes", "2")
    until = time.monotonic() + 120
    while not any(map(checkpoints, output.glob("seed-0/student/checkpoints/*"))):
        assert time.monotonic() < until, said(output)
        time.sleep(0.1)
    return job


def _ends_as(whole: dict[str, torch.Tensor], slurm: Slurm, job: str, output: Path, within: float = 240) -> None:
    """Wait for a job that was taken off its nodes once, and had the time to save itself."""
    assert slurm.wait(job, ("COMPLETED", "FAILED", "CANCELLED"), within) == "COMPLETED", said(output)
    assert slurm.restarts(job) == 1 and said(output).count("stopped after step") == 1, said(output)
    found = weights(output / "seed-0/student")
    assert found.keys() == whole.keys() and all(torch.equal(found[name], value) for name, value in whole.items())


def test_a_more_urgent_job_has_the_nodes_first(slurm, run, whole, tmp_path):
    job = _begun(slurm, run, tmp_path)
    urgent = slurm.ask("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--output=none", "--wrap=sleep 5")
    assert slurm.wait(job, ("PENDING",), 60) == "PENDING", said(tmp_path)
    assert slurm.wait(urgent, ("COMPLETED", "FAILED"), 90) == "COMPLETED"
    _ends_as(whole, slurm, job, tmp_path)


def test_a_job_one_of_whose_nodes_is_down_comes_back_with_the_node(slurm, run, whole, tmp_path):
    job = _begun(slurm, run, tmp_path)
    slurm.ask("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=lost")
    assert slurm.wait(job, ("PENDING",), 60) == "PENDING", said(tmp_path)
    _ends_as(whole, slurm, job, tmp_path)


def test_a_job_that_is_out_of_time_saves_itself_before_and_comes_back(slurm, tmp_path_factory, tmp_path):
    """SLURM's signal comes two minutes before the end; it looks every half minute, and the run has to last longer."""
    run = tiny.run_file(tmp_path_factory.mktemp("long"), tiny.students(**STEPS | {"max_steps": 1200}))
    whole = _whole(run)
    job = _begun(slurm, run, tmp_path)
    slurm.ask("scontrol", "update", f"JobId={job}", "TimeLimit=2")
    assert slurm.wait(job, ("PENDING",), 120) == "PENDING", said(tmp_path)
    slurm.ask("scontrol", "update", f"JobId={job}", "TimeLimit=30")
    _ends_as(whole, slurm, job, tmp_path, within=500)


def test_an_array_records_a_teacher_on_both_nodes(slurm, tmp_path):
    run = tiny.run_file(tmp_path, RECORD)
    tiny.csv_file(tmp_path / "train.csv", 20_000, seed=3)
    job = submit(slurm, run, tmp_path / "shared", "--array", "2")
    nodes = set()
    for task in (f"{job}_0", f"{job}_1"):
        assert slurm.wait(task, ("COMPLETED", "FAILED"), 200) == "COMPLETED", said(tmp_path / "shared")
        nodes.add(slurm.ask("scontrol", "show", "job", task).split(" BatchHost=")[1].split()[0])
    assert nodes == {"n1", "n2"} and len(parts_of(tmp_path / "shared/answers")) > 2
    _distill("run", str(run), f"output={tmp_path / 'alone'}")
    shared, alone = (read_record(tmp_path / folder / "answers") for folder in ("shared", "alone"))
    assert isinstance(shared, Record) and isinstance(alone, Record)
    assert torch.equal(shared.ids, alone.ids) and torch.equal(shared.logits, alone.logits)
