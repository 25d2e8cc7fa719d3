"""One run at a time works in a folder."""

import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from configs.errors import UserError
from configs.load import load
from pipelines.machine import prepare
from pipelines.run import Run
from pipelines.runner import walk
from tests.helpers import tiny

SECONDS = 2.5
"""For which another run is still at work."""


@pytest.fixture
def folder(tmp_path) -> Path:
    training = {"max_steps": 1, "batch_size": 8}
    student = {"kind": "train", "data": ["train"], "objective": [{"kind": "logits"}], "training": training}
    tiny.run_file(tmp_path, {"student": student})
    return tmp_path


@pytest.fixture
def held(folder):
    """The folder of the run, in which another one is at work for some time."""
    (folder / "run").mkdir()
    lock = FileLock(folder / "run/.lock", thread_local=False)
    lock.acquire()
    timer = threading.Timer(SECONDS, lock.release)
    timer.start()
    yield folder / "run"
    timer.join()


def _walk(folder: Path) -> None:
    loaded = load(str(folder / "run.yaml"), [])
    walk(Run(loaded.pipeline, prepare(loaded.pipeline.machine), Console(quiet=True)), loaded)


def test_a_second_run_is_refused(folder, held):
    with pytest.raises(UserError, match="another run is at work in this folder"):
        _walk(folder)
    assert not (held / "run.json").exists()


def test_a_job_that_comes_back_waits_for_what_it_was_before(folder, held, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    began = time.monotonic()
    _walk(folder)
    assert time.monotonic() - began > SECONDS / 2
    assert (held / "seed-0/student/stage.json").is_file()


def test_it_does_not_wait_for_ever(folder, held, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr("pipelines.runner.PARTING", -1e6)
    with pytest.raises(UserError, match="another run is at work in this folder"):
        _walk(folder)
