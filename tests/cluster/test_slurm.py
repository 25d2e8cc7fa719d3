"""Runs on two nodes of a real SLURM: from the first to the last stage, by an array, and cut over and over."""

import random
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from distill.callbacks.checkpoint_io import checkpoints
from tests.cluster.slurm import DISTILL, Slurm, missing, said, submit
from tests.helpers import faults, pairs, tiny
from tests.helpers.server import Server
from tests.helpers.spread import overrides_of, spread_run
from tests.helpers.training import train_apart, weights

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]
STEPS = 300
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "hidden"}, {"kind": "attention"}, {"kind": "logits", "temperature": 2}],
        "training": {"max_steps": STEPS, "batch_size": 8, "checkpoint_every": 7, "validate_every": 0.5, "workers": 1},
    },
    "evaluate": {"kind": "evaluate", "data": "validation", "student": "student", "latency": False},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny.run_file(tmp_path_factory.mktemp("runs with a space"), STAGES)


@pytest.fixture(scope="module")
def whole(slurm: Slurm, run: Path) -> dict[str, torch.Tensor]:
    """Train on two nodes without a cut."""
    output = run.parent / "whole"
    job = submit(slurm, run, output, "--nodes", "2")
    assert slurm.wait(job, ("COMPLETED", "FAILED"), 200) == "COMPLETED", said(output)
    printed = said(output)
    assert "2 hosts × 1 processes" in printed and printed.count("▸ student") == 1
    assert (output / "report.html").is_file() and slurm.restarts(job) == 0
    return weights(output / "seed-0/student")


def _step(output: Path) -> int:
    saved = [path for folder in output.glob("seed-0/student/checkpoints/*") for path in checkpoints(folder)]
    return max((int(path.stem.removeprefix("step-")) for path in saved), default=0)


def test_cuts_at_random_moments_change_nothing(slurm, run, whole):
    """The first cut comes while the processes start, the others in the training; the job comes back by itself."""
    output, draw = run.parent / "cut", random.Random(0)
    job = submit(slurm, run, output, "--nodes", "2")
    signals = {name: ["scancel", f"--signal={name}", job] for name in ("USR1", "TERM")}
    cuts = [signals["TERM"], ["scontrol", "requeue", job], signals["USR1"], signals["TERM"], signals["USR1"]]
    for number, cut in enumerate(cuts):
        assert slurm.wait(job, ("RUNNING",), 60) == "RUNNING", said(output)
        until = time.monotonic() + 120
        while number and _step(output) < STEPS * (number - 0.5) / len(cuts) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, 0.5) if number else draw.uniform(1.0, 4.0))
        slurm.ask(*cut)
        assert slurm.wait(job, ("PENDING",), 60) == "PENDING", said(output)
    assert slurm.wait(job, ("COMPLETED", "FAILED"), 200) == "COMPLETED", said(output)
    assert slurm.restarts(job) == len(cuts)
    assert said(output).count("stopped after step") >= 3
    cut_weights = weights(output / "seed-0/student")
    assert cut_weights.keys() == whole.keys()
    assert all(torch.equal(cut_weights[name], value) for name, value in whole.items())


def test_a_cancelled_job_stays_away(slurm, run):
    output = run.parent / "cancelled"
    job = submit(slurm, run, output, "--nodes", "2")
    until = time.monotonic() + 120
    while not _step(output) and time.monotonic() < until:
        time.sleep(0.1)
    slurm.ask("scancel", job)
    assert slurm.wait(job, ("CANCELLED", "PENDING", "FAILED"), 60) == "CANCELLED", said(output)
    time.sleep(8)
    assert slurm.state(job) == "CANCELLED" and slurm.restarts(job) == 0


def test_a_users_error_ends_the_job_and_is_said_once(slurm, run):
    output = run.parent / "refused"
    job = submit(slurm, run, output, "student.heads=3", "--nodes", "2")
    assert slurm.wait(job, ("COMPLETED", "FAILED"), 100) == "FAILED"
    assert "ExitCode=2:0" in slurm.ask("scontrol", "show", "job", job)
    assert len(re.findall("^error:", said(output), re.MULTILINE)) == 1, said(output)  # SLURM has errors of its own
    assert "16 is not a multiple of heads 3" in said(output).replace("\n", " ")


def test_a_teacher_and_a_student_in_parts_train_what_one_process_does(slurm, tmp_path):
    """DeepSpeed takes its place among the processes from variables of torchrun, which srun does not set."""
    run = spread_run(tmp_path / "run", "sharded", "full")
    alone = train_apart(run, tmp_path / "alone")
    job = submit(slurm, run, tmp_path / "out", *overrides_of("deepspeed_3", tmp_path), "--nodes", "2")
    assert slurm.wait(job, ("COMPLETED", "FAILED"), 200) == "COMPLETED", said(tmp_path / "out")
    torch.testing.assert_close(weights(tmp_path / "out/seed-0/student"), alone, atol=1e-5, rtol=0)


def test_other_tasks_than_the_run_says_are_one_error(slurm, run):
    command = ["srun", "--kill-on-bad-exit=1", "--nodes=2", "--ntasks-per-node=1"]
    command += [str(DISTILL), "run", str(run), "machine.devices=1"]
    done = subprocess.run(command, env=slurm.environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "nodes 1 × devices 1 is not what srun started: 2 processes on 2 hosts" in done.stderr.replace("\n", " ")
    assert done.stderr.count("error: machine") == 1, done.stderr


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("SIGKILL", r"rank 1 on host \S+ is gone: it was killed, or its host was lost in step 7"),
        ("hang", r"rank 1 on host \S+ did not answer for 8 s in step 7; it is at faults.py:\d+, in do"),
    ],
)
def test_a_task_that_does_not_go_on_ends_the_step_with_its_name(slurm, run, tmp_path, kind, said):
    command = ["srun", "--kill-on-bad-exit=1", "--nodes=2", "--ntasks-per-node=1", str(faults.script(tmp_path)), "run"]
    command += [str(run), f"output={tmp_path / 'run'}", "machine.nodes=2", "machine.devices=1", "machine.timeout=8"]
    environment = slurm.environment | faults.variables(tmp_path, rank=1, kind=kind, where="step", step=6)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert faults.seconds_since(tmp_path) < 8 + 20
    assert done.returncode != 0
    errors = re.findall(r"^error: (.*)$", done.stderr, flags=re.MULTILINE)
    assert len(errors) == 1 and re.match(f"{said}; the same command starts the stage again", errors[0]), done.stderr


def _texts(folder: Path, rows: int, server: Server) -> Path:
    """Write a run whose one stage has texts written by a server."""
    sources = [f"{text} {number}" for number, (text, _) in enumerate(pairs.sentences(rows, seed=9))]
    (folder / "alone.txt").write_text("\n".join(sources), encoding="utf-8")
    alone = {"path": str(folder / "alone.txt"), "format": "lines", "columns": {"target": None}}
    endpoint = {"kind": "openai", "model": "echo-7b", "url": server.url, "concurrency": 1}
    stages = {"texts": {"kind": "generate", "data": ["alone"], "shard_characters": 150, "endpoint": endpoint}}
    teacher = {"model": str(pairs.vocabulary(folder / "vocabulary"))}
    return pairs.run_file(folder, stages, data={"alone": alone}, teacher=teacher)


def test_an_array_writes_texts_on_both_nodes(slurm, tmp_path, server: Server):
    rows = 60
    run = _texts(tmp_path, rows, server)
    server.delay = 0.3
    job = submit(slurm, run, tmp_path / "run", "--array", "2")
    tasks = [f"{job}_{number}" for number in range(2)]
    nodes = set()
    for task in tasks:
        assert slurm.wait(task, ("COMPLETED", "FAILED"), 150) == "COMPLETED", said(tmp_path / "run")
        nodes.add(slurm.ask("scontrol", "show", "job", task).split(" BatchHost=")[1].split()[0])
    assert nodes == {"n1", "n2"} and len(server.asked) == rows
    assert (tmp_path / "run/texts/stage.json").is_file()


def test_a_task_of_an_array_that_is_stopped_comes_back_alone(slurm, tmp_path, server: Server):
    """The one whose own number is the array's: by that number, all of them are meant."""
    server.delay = 1.0
    job = submit(slurm, _texts(tmp_path, 60, server), tmp_path / "run", "--array", "2")
    tasks = [f"{job}_{number}" for number in range(2)]
    for task in tasks:
        assert slurm.wait(task, ("RUNNING",), 60) == "RUNNING", said(tmp_path / "run")
    first = min(tasks, key=lambda task: slurm.ask("scontrol", "show", "job", task).split()[0] != f"JobId={job}")
    assert slurm.ask("scontrol", "show", "job", first).startswith(f"JobId={job} ")
    time.sleep(3)
    slurm.ask("scancel", "--signal=USR1", first)
    assert slurm.wait(first, ("PENDING",), 60) == "PENDING", said(tmp_path / "run")
    server.delay = 0.0
    for task in tasks:
        assert slurm.wait(task, ("COMPLETED", "FAILED"), 150) == "COMPLETED", said(tmp_path / "run")
    assert [slurm.restarts(task) for task in tasks] == [int(task == first) for task in tasks]
