"""A teacher dealt out over processes is recorded by all of them: as a live one, however they are many, die or share."""

from pathlib import Path

import pytest
import torch

from distill.models import ModelSource, fingerprint, load
from teachers.live import LiveTeacher
from teachers.record import Record, parts_of, read_record
from teachers.recording import Recording, write_record
from tests.helpers import tiny, warm
from tests.helpers.recorded import TASK, forwards, made_up_table, start

EVEN = 2 + 2 + 2 + 1
"""Turns that two ranks take for parts of 8, 8, 8 and 6 rows in batches of 3: both of them, though batches are 3."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def live(model, tmp_path_factory) -> Record:
    folder = tmp_path_factory.mktemp("live")
    source = ModelSource(str(model))
    teacher = LiveTeacher(load(source, TASK, tiny.LABELS, "teacher"), TASK, fingerprint(source))
    write_record(Recording(teacher, made_up_table(), 0, torch.device("cpu")), folder)
    found = read_record(folder)
    assert isinstance(found, Record)
    return found


def _ended(*started: warm.Started) -> None:
    for one in started:
        done = one.ended()
        assert done.returncode == 0, done.stderr[-3000:]


def _is_the_live_one(folder: Path, live: Record) -> None:
    found = read_record(folder)
    assert isinstance(found, Record) and len(parts_of(folder)) == 4
    assert torch.equal(found.ids, live.ids)
    torch.testing.assert_close(found.logits, live.logits, atol=1e-6, rtol=1e-6)


def test_all_ranks_are_asked_equally_often_and_say_what_a_live_one_says(model, live, tmp_path):
    _ended(start(model, tmp_path))
    assert forwards(tmp_path) == {"0-0": EVEN, "0-1": EVEN}
    _is_the_live_one(tmp_path, live)


def test_goes_on_after_a_kill_with_another_number_of_processes(model, live, tmp_path):
    killed = start(model, tmp_path, "--die-after", "2")
    assert killed.ended().returncode != 0
    there = {part: part.stat().st_mtime_ns for part in parts_of(tmp_path)}
    assert len(there) == 2
    _ended(start(model, tmp_path, processes=1))
    assert forwards(tmp_path) == {"0-0": 3 + 2}  # batches of the two parts that were not there
    assert all(part.stat().st_mtime_ns == when for part, when in there.items())
    _is_the_live_one(tmp_path, live)


def test_jobs_of_an_array_share_the_parts(model, live, tmp_path):
    jobs = [start(model, tmp_path, "--job", str(job), "--jobs", "2") for job in range(2)]
    _ended(*jobs)
    asked = forwards(tmp_path)
    assert asked["0-0"] == asked["0-1"] and asked["1-0"] == asked["1-1"]
    assert asked["0-0"] + asked["1-0"] == EVEN
    _is_the_live_one(tmp_path, live)


def test_a_damaged_teacher_is_named(tmp_path):
    broken = tiny.model_folder(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = start(broken, tmp_path / "record").ended()
    assert done.returncode != 0
    # by each rank, unless another that said it before has ended it
    assert f"ModelError: teacher.model: cannot load {broken}: " in done.stderr, done.stderr[-3000:]
