"""Files that build on files."""

from pathlib import Path

import pytest

from configs.load import load
from tests.helpers.run_yaml import problems, write


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, name="base.yaml")


def test_tables_merge_and_lists_and_values_replace(tmp_path: Path) -> None:
    text = "extends: base.yaml\nseed: 7\nstages:\n  student:\n    data: [validation]\n    training: {batch_size: 4}\n"
    pipeline = load(write(tmp_path, text)).pipeline
    student = pipeline.stages["student"]
    assert (pipeline.seed, pipeline.task.max_length) == (7, 16)
    assert student.kind == "train"
    assert student.data == ("validation",)
    assert (student.training.epochs, student.training.batch_size) == (1.0, 4)
    assert [term.kind for term in student.objective] == ["task", "logits"]


def test_inherited_order_is_kept_and_new_names_come_last(tmp_path: Path) -> None:
    text = """\
extends: base.yaml
stages:
  export: {kind: export, student: student, data: train}
  evaluate: {latency: false}
  student: {once: true}
"""
    assert list(load(write(tmp_path, text)).pipeline.stages) == ["student", "evaluate", "export"]


def test_null_drops_an_inherited_stage_and_source(tmp_path: Path) -> None:
    write(tmp_path, "extends: base.yaml\ndata: {validation: null}\nstages: {evaluate: null}\n")
    pipeline = load("run.yaml").pipeline
    assert list(pipeline.stages) == ["student"]
    assert list(pipeline.data) == ["train"]


def test_null_elsewhere_is_a_value(tmp_path: Path) -> None:
    write(tmp_path, "extends: base.yaml\nstages: {student: {training: {epochs: null, max_steps: 5}}}\n")
    student = load("run.yaml").pipeline.stages["student"]
    assert student.kind == "train"
    assert (student.training.epochs, student.training.max_steps) == (None, 5)


def test_null_that_drops_nothing_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "extends: base.yaml\nstages:\n  evaluat: null\n")
    assert problems("run.yaml") == [
        "run.yaml:3: stages.evaluat: empty, and nothing of this name is inherited to be removed; "
        "did you mean `evaluate`? Choices: evaluate, student"
    ]


def test_a_stage_dropped_in_the_middle_can_be_given_anew(tmp_path: Path) -> None:
    write(tmp_path, "extends: base.yaml\nstages: {evaluate: null}\n", "middle.yaml")
    write(tmp_path, "extends: middle.yaml\nstages: {evaluate: {kind: evaluate, data: train, student: student}}\n")
    stage = load("run.yaml").pipeline.stages["evaluate"]
    assert stage.kind == "evaluate"
    assert stage.data == "train"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        (
            "student: {kind: folder, model: m}",
            ("student",),
            {"kind": "folder", "model": "m", "revision": None, "adapter": None},
        ),
        (
            "data: {validation: {kind: embedded, name: support-desk, part: test}}",
            ("data", "validation"),
            {"kind": "embedded", "name": "support-desk", "part": "test", "limit": None},
        ),
        (
            "data: {train: {kind: held_out, of: all}, all: {path: all.csv}}",
            ("data", "train"),
            {"kind": "held_out", "of": "all", "fraction": 0.1},
        ),
    ],
)
def test_a_section_of_another_kind_inherits_nothing(
    text: str, path: tuple[str, ...], value: object, tmp_path: Path
) -> None:
    whole = load(write(tmp_path, f"extends: base.yaml\n{text}\n")).pipeline.model_dump(mode="json")
    for key in path:
        whole = whole[key]
    assert whole == value


def test_a_section_of_the_same_kind_inherits_whether_or_not_it_is_named(tmp_path: Path) -> None:
    write(tmp_path, "extends: base.yaml\nstudent: {kind: sizes, heads: 2}\ndata: {train: {kind: files, limit: 3}}\n")
    pipeline = load("run.yaml").pipeline
    assert pipeline.student.kind == "sizes"
    assert (pipeline.student.layers, pipeline.student.heads) == (2, 2)
    train = pipeline.data["train"]
    assert train.kind == "files"
    assert (train.path, train.limit) == ("train.csv", 3)


def test_of_several_bases_the_later_lies_above(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1\nrepeats: 2\n", "one.yaml")
    write(tmp_path, "seed: 2\nstages: {evaluate: null}\n", "two.yaml")
    pipeline = load(write(tmp_path, "extends: [base.yaml, one.yaml, two.yaml]\n")).pipeline
    assert (pipeline.seed, pipeline.repeats, list(pipeline.stages)) == (2, 2, ["student"])


def test_paths_start_at_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path, "extends: ../base.yaml\n", "deep/middle.yaml")
    write(tmp_path, "extends: deep/middle.yaml\nseed: x\n")
    assert load("deep/middle.yaml").pipeline.task.max_length == 16
    assert problems("run.yaml") == ["run.yaml:2: seed: `x` is not a whole number of 0 or more"]


def test_problems_name_the_file_they_are_in(tmp_path: Path) -> None:
    write(tmp_path, "extends: base.yaml\nseed: -1\n", "middle.yaml")
    write(tmp_path, "extends: middle.yaml\nrepeats: 0\n")
    assert problems("run.yaml") == [
        "middle.yaml:2: seed: -1 is not a whole number of 0 or more",
        "run.yaml:2: repeats: 0 is not a whole number above 0",
    ]


@pytest.mark.parametrize(
    ("extends", "what"),
    [
        ("run.yaml", "goes in a circle: run.yaml → run.yaml"),
        ("[base.yaml, back.yaml]", "goes in a circle: run.yaml → back.yaml → run.yaml"),
        ("bse.yaml", "bse.yaml: no such file; did you mean `base.yaml`? Choices: back.yaml, base.yaml, run.yaml"),
        ("{a: 1}", "neither a preset's name, nor the path of a YAML file, nor a list of these"),
        ("[base.yaml, 3]", "neither a preset's name, nor the path of a YAML file, nor a list of these"),
    ],
)
def test_extends_that_leads_nowhere(extends: str, what: str, tmp_path: Path) -> None:
    write(tmp_path, "extends: run.yaml\n", "back.yaml")
    write(tmp_path, f"seed: 1\nextends: {extends}\n")
    found = problems("run.yaml")
    assert len(found) == 1
    assert found[0].endswith(what)
    assert found[0].startswith("back.yaml:1: extends: " if "back" in extends else "run.yaml:2: extends: ")


def test_a_long_chain_ends_in_one_problem(tmp_path: Path) -> None:
    for i in range(30):
        write(tmp_path, f"extends: {i + 1}.yaml\n", f"{i}.yaml")
    assert problems("0.yaml") == ["16.yaml:1: extends: more than 16 files deep"]


def test_a_file_that_many_extend_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "extends: [base.yaml, base.yaml]\n", "0.yaml")
    for i in range(1, 12):
        write(tmp_path, f"extends: [{i - 1}.yaml, {i - 1}.yaml, {i - 1}.yaml, {i - 1}.yaml]\n", f"{i}.yaml")
    assert load("11.yaml").pipeline.task.max_length == 16
