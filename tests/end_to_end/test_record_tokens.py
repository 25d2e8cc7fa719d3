"""Word-level distillation from a teacher that was recorded: with all tokens kept it is the live teacher's."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from configs.load import load
from distill.errors import DataError, UnmetNeeds
from pipelines.machine import prepare
from pipelines.run import Run
from pipelines.stage import carry_out
from pipelines.stages import stages
from tests.helpers import pairs
from tests.helpers.training import weights

OBJECTIVE = [{"kind": "task"}, {"kind": "logits", "temperature": 2}]
WORD = {"kind": "train", "data": ["train"], "objective": OBJECTIVE, "training": {**pairs.TRAINING, "epochs": 2}}
STAGES = {
    "teacher": {
        "kind": "train",
        "trains": "teacher",
        "data": ["train"],
        "objective": [{"kind": "task"}],
        "training": pairs.TRAINING,
    },
    "all": {"kind": "record", "data": ["train"], "top_k": 320},
    "few": {"kind": "record", "data": ["train", "validation"], "top_k": 8},
    "live": WORD,
    "cached": {**WORD, "cache": "all"},
    "cut": {**WORD, "cache": "few"},
    "cut_live": {**WORD, "top_k": 8},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    path = pairs.run_file(folder, STAGES, student={**pairs.STUDENT, "options": {"dropout": 0.0}})
    loaded = load(str(path), [])
    run = Run(loaded.pipeline, prepare(loaded.pipeline.machine), Console(quiet=True))
    for stage in stages(run):
        carry_out(stage, run.folder)
    return folder / "run"


def difference(folder: Path, other: str, of: str = "live") -> float:
    live, cached = (weights(folder / "seed-0" / name) for name in (of, other))
    return max(float((live[name] - cached[name]).abs().max()) for name in live)


def test_all_tokens_kept_end_with_the_live_teachers_weights(folder: Path) -> None:
    assert difference(folder, "cached") < 1e-5


def test_a_few_tokens_kept_come_near_and_take_little_room(folder: Path) -> None:
    assert 1e-5 < difference(folder, "cut") < 0.05
    sizes = {name: sum(p.stat().st_size for p in (folder / name).glob("part-*")) for name in ("all", "few")}
    assert sizes["few"] < sizes["all"] / 20


def test_as_many_of_a_live_teacher_are_those_of_a_record(folder: Path) -> None:
    assert difference(folder, "cut_live", of="cut") < 1e-5


def test_what_was_not_recorded_is_refused(folder: Path) -> None:
    from teachers.record import TokenRecord, read_record

    record = read_record(folder / "few")
    assert isinstance(record, TokenRecord)
    assert record.indices.shape[-1] == 8
    with pytest.raises(DataError, match="lacks 1 of 2 rows"):
        record.of(torch.tensor([int(record.ids[3]), 12345]))


def test_a_divergence_over_all_tokens_needs_a_live_teacher(folder: Path) -> None:
    overrides = ["stages.cut.objective.1.divergence=rkl"]
    loaded = load(str(folder.parent / "run.yaml"), overrides)
    run = Run(loaded.pipeline, prepare(loaded.pipeline.machine), Console(quiet=True))
    train = next(stage for stage in stages(run) if stage.name == "cut")
    with pytest.raises(UnmetNeeds, match="`rkl` needs all of the teacher's logits, and it gives the 8 most likely"):
        train.assemble()  # type: ignore[attr-defined]
