"""A process that dies, fails or hangs ends the run soon, with one error that names it; a signal to one stops all."""

import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.helpers import faults, tiny, warm
from tests.helpers.same import weighs_the_same
from tests.helpers.spread import overrides_of
from tests.helpers.training import train_apart

TIMEOUT = 8
FAULTS = {
    "SIGKILL": r"rank 1 on host \S+ was killed by SIGKILL in step 7",
    "raise": r"rank 1 on host \S+ failed in step 7: RuntimeError: boom",
    "hang": rf"rank 1 on host \S+ did not answer for {TIMEOUT} s in step 7; it is at faults.py:\d+, in do",
}
STAGES = {
    "student": {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "logits"}],
        "training": {"max_steps": 400, "batch_size": 8, "log_every": 4, "checkpoint_every": 4, "watch": "off"},
    },
}


def _run(
    folder: Path, kind: str, where: str, step: int, run: Path | None = None, *overrides: str, rank: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run on two processes, with a fault in a rank."""
    command = [str(faults.script(folder)), "run", str(run or tiny.run_file(folder, STAGES))]
    command += ["machine.devices=2", f"machine.timeout={TIMEOUT}", *overrides]
    environment = faults.variables(folder, rank=rank, kind=kind, where=where, step=step)
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=environment)


def _names_rank_1(folder: Path, kind: str, done: "subprocess.CompletedProcess[str]") -> None:
    """See that a run ended soon after its fault, with one error that says whose it was."""
    assert faults.seconds_since(folder) < (TIMEOUT if kind == "hang" else 0) + 15
    assert done.returncode == 1, done.stderr[-3000:]
    assert re.search(f"error: {FAULTS[kind]}; the same command goes on from step 4 of seed-0/student\n$", done.stderr)
    assert done.stderr.count("error:") == 1 and done.stderr.count("Traceback") == (kind == "raise"), done.stderr


@pytest.mark.parametrize("kind", FAULTS)
def test_a_rank_that_does_not_go_on_ends_the_run_with_its_name(tmp_path, kind):
    _names_rank_1(tmp_path, kind, _run(tmp_path, kind, "step", 6))


@pytest.fixture(scope="module")
def cut_up(tmp_path_factory) -> tuple[Path, tuple[str, ...]]:
    """A run whose student and teacher are cut up between the ranks, and the overrides that do so."""
    folder = tmp_path_factory.mktemp("cut-up")
    teacher = {"kind": "sharded", "model": str(tiny.model_folder(folder / "teacher")), "dtype": "float32"}
    short = {**STAGES["student"], "training": {**STAGES["student"]["training"], "max_steps": 12}}
    run = tiny.run_file(folder, {"student": short}, teacher={**teacher, "whole_below": 0})
    return run, overrides_of("deepspeed_3", folder)


@pytest.fixture(scope="module")
def whole(cut_up) -> Path:
    """Trained without a fault."""
    run, ways = cut_up
    train_apart(run, run.parent / "whole", *ways, processes=2)
    return run.parent / "whole"


@pytest.mark.parametrize(
    "kind", ["SIGKILL", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("raise", "hang"))]
)
def test_and_where_each_holds_a_part_of_every_weight(cut_up, whole, tmp_path, kind):
    run, ways = cut_up
    command = partial(_run, tmp_path, kind, "step", 6, run, *ways, f"output={tmp_path / 'run'}")
    _names_rank_1(tmp_path, kind, command())
    done = command(rank=-1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/seed-0/student/log/from-4").is_dir()
    weighs_the_same(tmp_path / "run/seed-0/student", whole)


def test_a_late_rank_is_waited_for_before_its_files_go(tmp_path):
    body = {**STAGES["student"]["training"], "max_steps": 8, "keep": "best"}
    run = tiny.run_file(tmp_path, {"student": {**STAGES["student"], "training": body}})
    done = _run(tmp_path, "late", "end", 8, run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/seed-0/student/model/model.safetensors").is_file()
    assert not (tmp_path / "run/seed-0/student/checkpoints").exists()


@pytest.mark.parametrize(
    ("number", "where", "step", "at"), [("SIGTERM", "validation", 8, 8), ("SIGUSR1", "save", 12, 16)]
)
def test_a_signal_to_one_rank_stops_all_at_one_step(tmp_path, number, where, step, at):
    """All look after a validation, every 8 steps here, and at every tenth step."""
    done = _run(tmp_path, number, where, step)
    assert done.returncode == 75, done.stderr[-3000:]
    assert re.findall(r"stopped.*", done.stderr) == [f"stopped after step {at}; the same command goes on from there"]
    assert "Traceback" not in done.stderr
    saved = (tmp_path / "run/seed-0/student/checkpoints").rglob("step-*.ckpt")
    assert f"step-{at}" in [path.stem for path in saved]


def test_a_rank_that_hangs_while_all_record_together_is_named(tmp_path):
    teacher = {"kind": "sharded", "model": str(tiny.model_folder(tmp_path / "teacher")), "dtype": "float32"}
    run = tiny.run_file(tmp_path, {"answers": {"kind": "record", "data": ["train"]}}, teacher=teacher)
    hangs = faults.variables(tmp_path, rank=1, kind="hang", where="record", step=0)
    options = ("machine.nodes=auto", "machine.devices=auto", f"machine.timeout={TIMEOUT}")
    done = warm.run("tests.helpers.faults", "record", str(run), *options, processes=2, environment=hangs)
    assert faults.seconds_since(tmp_path) < TIMEOUT + 15
    said = rf"rank 1 on host \S+ did not answer for {TIMEOUT} s; it is at faults.py:\d+, in do"
    assert re.search(f"error: {said}; the same command starts the stage again\n", done.stderr), done.stderr[-3000:]
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr


def test_rank_0_that_hangs_while_it_works_alone_is_named(tmp_path):
    """Nobody misses a step of it: it sees for itself that it stands still."""
    short = {**STAGES["student"], "training": {**STAGES["student"]["training"], "max_steps": 4}}
    scored = {"kind": "evaluate", "data": "validation", "student": "student"}
    run = tiny.run_file(tmp_path, {"student": short, "evaluate": scored})
    done = _run(tmp_path, "hang", "evaluate", 0, run, rank=0)
    assert faults.seconds_since(tmp_path) < TIMEOUT + 15
    said = rf"rank 0 on host \S+ did not answer for {TIMEOUT} s; it is at faults.py:\d+, in do"
    assert re.search(f"error: {said}; the same command starts the stage again\n$", done.stderr), done.stderr[-3000:]
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
