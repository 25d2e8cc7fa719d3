"""The memory of a run is planned before anything is loaded, and told beside what it took."""

import json
import re
import shlex
from pathlib import Path

import pytest

from pipelines import memory_plan
from pipelines.machine import facts
from pipelines.memory_batches import Asked
from pipelines.room import Free
from pipelines.run import Run
from pipelines.stage_plan import StagePlan, plan_stage
from tests.helpers import pairs, tiny
from tests.helpers.training import stage

STAGES = {
    "task-teacher": {
        "kind": "train",
        "trains": "teacher",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "task"}],
        "training": {"max_steps": 2, "batch_size": 16},
    },
    "student": {
        "kind": "train",
        "data": ["train"],
        "objective": [{"kind": "logits"}, {"kind": "hidden"}],
        "training": {"max_steps": 2, "batch_size": 16, "watch": "off"},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tiny.run_file(tmp_path, STAGES)


def test_it_is_printed_before_anything_is_loaded(call, run, monkeypatch):
    monkeypatch.setattr(Run, "load_teacher", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    _, out, _ = call("check", str(run))
    lines = out.splitlines()
    heads = next(line for line in lines if "task-teacher" in line)
    assert heads.split() == ["task-teacher", "student"]
    for name in ("teacher", "student", "gradients", "optimiser", "activations", "logits", "all", "free"):
        assert any(line.split()[:1] == [name] for line in lines), name


def test_what_does_not_fit_is_refused_with_what_would(call, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "load_teacher", lambda *_: pytest.fail("a model was loaded"))
    run = tiny.run_file(tmp_path, {"student": {**STAGES["student"], "teacher": "base"}})
    train = stage(str(run), "student")
    needs = plan_stage(Asked(train._run, "student", train._config, 1, "cpu")).need.total
    monkeypatch.setattr(memory_plan, "free_for", lambda _: Free(needs - 1000))
    code, _, err = call("check", str(run))
    assert code == 2
    assert "stages.student: needs" in err
    assert "stages.student.training.micro_batch_size=8 (" in err
    assert "micro_batch_size=4" not in err  # fewer than fit already
    assert "teacher.quantise=int8 (" in err


def test_a_teacher_that_is_trained_is_not_to_be_quantised(call, run, monkeypatch):
    train = stage(str(run), "student")
    needs = plan_stage(Asked(train._run, "student", train._config, 1, "cpu")).need.total
    monkeypatch.setattr(memory_plan, "free_for", lambda _: Free(needs - 1000))
    code, _, err = call("check", str(run))
    assert code == 2
    assert "teacher.quantise" not in err


def test_the_report_tells_plan_and_measurement(call, run):
    arguments = ["run", str(run), "about=It's in two words"]
    code, out, err = call(*arguments)
    assert code == 0, out + err
    record = json.loads((run.parent / "run/run.json").read_text(encoding="utf-8"))
    assert shlex.split(record["command"]) == ["distill", *arguments]  # for a shell, as it stands in the report
    done = json.loads((run.parent / "run/seed-0/student/stage.json").read_text(encoding="utf-8"))
    assert done["results"]["memory"]["planned"] > 0
    assert done["results"]["memory"]["measured"] > 0
    report = (run.parent / "run/report.md").read_text(encoding="utf-8")
    assert "planned / measured" in report
    told = re.findall(r"^- ([\w ]+):", report.split("How to get this again")[1].split("```")[0], flags=re.MULTILINE)
    assert set(told) == {"command", *facts(stage(str(run), "student")._run.device)}


APART = ("machine.devices=2", "machine.teachers=1")


def _planned_apart(run: Path) -> StagePlan:
    train = stage(str(run), "student", APART)
    return plan_stage(Asked(train._run, "student", train._config, train._run.device.trainers, "cpu"))


def test_a_device_that_only_teaches_has_a_plan_of_its_own(call, tmp_path):
    run = tiny.run_file(tmp_path, {"student": {**STAGES["student"], "teacher": "base"}})
    plan = _planned_apart(run)
    assert plan.teaching is not None
    whole = (tmp_path / "teacher" / "model.safetensors").stat().st_size
    assert plan.teaching.teacher == pytest.approx(whole, rel=0.05) and plan.need.teacher == 0
    assert plan.teaching.activations > 0 and plan.teaching.optimiser == plan.teaching.gradients == 0
    _, out, _ = call("check", str(run), *APART)
    told = next(line for line in out.splitlines() if "where it only teaches" in line)
    assert re.search(r"\d", told)


def test_a_teacher_too_large_for_the_device_that_only_teaches_is_refused(call, tmp_path, monkeypatch):
    large = tiny.model_folder(tmp_path / "large", hidden_size=256, num_hidden_layers=6)
    stages = {"student": {**STAGES["student"], "teacher": "base"}}
    run = tiny.run_file(tmp_path / "run", stages, teacher={"model": str(large)})
    plan = _planned_apart(run)
    assert plan.teaching is not None and plan.teaching.total > plan.need.total
    monkeypatch.setattr(memory_plan, "free_for", lambda _: Free(plan.teaching.total - 1000))
    code, _, err = call("check", str(run), *APART)
    told = " ".join(err.split())
    assert code == 2
    assert "stages.student: needs" in told and "of a device that only teaches" in told
    assert "teacher.quantise=int8 (" in told and """machine.teachers=0 'teacher={"kind": "sharded", """ in told


def test_validation_rows_are_looked_at_where_those_to_learn_from_are_still_to_be_written(tmp_path):
    learns = {"kind": "train", "teacher": "none", "data": ["told"], "objective": [{"kind": "task"}]}
    stages = {
        "texts": {"kind": "generate", "data": ["train"]},
        "best": {"kind": "select", "generated": "texts"},
        "student": {**learns, "validation": "validation", "training": pairs.TRAINING},
    }
    teacher = {"kind": "live", "model": str(pairs.vocabulary(tmp_path))}
    run = pairs.run_file(tmp_path, stages, teacher=teacher, data={"told": {"kind": "stage", "stage": "best"}})
    train = stage(str(run), "student")
    traced = plan_stage(Asked(train._run, "student", train._config, 1, "cpu")).traced
    assert traced.assumed
    assert {moment.phase for moment in traced.moments} == {"forward", "backward", "validation"}
