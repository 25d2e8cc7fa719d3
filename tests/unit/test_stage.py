"""Whether a stage is done, asked while others are at work."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distill import files
from distill.files import digest_input
from distill.models import ModelSource, fingerprint
from pipelines.record import RecordTeacher
from pipelines.stage import MARKER, is_done
from tests.helpers import tiny
from tests.helpers.training import stage as train_stage


def _stage(folder: Path, fingerprint: str) -> Any:
    return cast(Any, SimpleNamespace(folder=lambda run: folder, fingerprint=lambda: fingerprint))


def test_a_mark_that_is_taken_away_while_one_looks_is_none(tmp_path, monkeypatch):
    stage = _stage(tmp_path, "a")
    (tmp_path / MARKER).write_text(json.dumps({"fingerprint": "a", "files": {}}), encoding="utf-8")
    assert is_done(stage, tmp_path) and not is_done(_stage(tmp_path, "b"), tmp_path)
    (tmp_path / MARKER).unlink()
    monkeypatch.setattr(Path, "is_file", lambda self: True)  # it was there a moment ago
    assert not is_done(stage, tmp_path)


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The files that were read to be digested."""
    found: list[Path] = []
    original = files.digest_file
    monkeypatch.setattr(files, "digest_file", lambda path: found.append(path) or original(path))
    return found


def test_a_model_is_digested_once_until_it_changes(tmp_path, read):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"one")
    first = [fingerprint(ModelSource(str(tmp_path))) for _ in range(3)]
    assert len(set(first)) == 1 and len(read) == 2
    (tmp_path / "config.json").write_bytes(b"three")
    assert fingerprint(ModelSource(str(tmp_path))) != first[0] and len(read) == 3


def test_the_digest_of_an_input_is_that_of_its_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert digest_input(path) == files.digest_file(path)


def test_the_type_a_teacher_teaches_in_decides_what_is_learnt_and_recorded(tmp_path):
    given = {"kind": "train", "data": ["train"], "training": {"epochs": 1}}
    stages = {
        "teacher": {**given, "trains": "teacher", "objective": [{"kind": "task"}]},
        "answers": {"kind": "record", "teacher": "base", "data": ["train"]},
        "student": {**given, "teacher": "base", "objective": [{"kind": "logits"}]},
    }
    path = str(tiny.run_file(tmp_path, stages))

    def found(*overrides: str) -> dict[str, str]:
        student = train_stage(path, "student", overrides)
        record = RecordTeacher(student._run, "answers", student._run.config.stages["answers"])
        teacher = train_stage(path, "teacher", overrides)
        return {"teacher": teacher.fingerprint(), "answers": record.fingerprint(), "student": student.fingerprint()}

    whole, half = found(), found("teacher.dtype=bfloat16")
    assert found("teacher.dtype=float32") == whole
    assert {name for name in whole if whole[name] != half[name]} == {"answers", "student"}
