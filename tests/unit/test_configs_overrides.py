"""Overrides `a.b=c`."""

from pathlib import Path

import pytest

from configs.load import load
from configs.pipeline import Pipeline
from tests.helpers.run_yaml import problems, write


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)


def at(pipeline: Pipeline, path: str) -> object:
    value = pipeline.model_dump(mode="json")
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=3", 3),
        ("stages.student.training.learning_rate=1e-4", 1e-4),
        ("stages.student.objective.1.temperature=4", 4.0),
        ("stages.student.objective.1.divergence=rkl", "rkl"),
        ("stages.student.data=[train, validation]", ["train", "validation"]),
        ("stages.student.data.0=validation", "validation"),
        ("stages.student.validation=validation", "validation"),
        ("task.labels=[no, 'yes']", ["no", "yes"]),
        ("task.labels=null", None),
        ("machine.devices=2", 2),
        ("about=a: b # c *d", "a: b # c *d"),
        ("about='null'", "null"),
        ("about=a=b", "a=b"),
        ("data.train.label_names={0: bad, 1: good}", {"0": "bad", "1": "good"}),
        ("data.train.label_names.0=bad", "bad"),
        ("data.train.columns.text=sentence", "sentence"),
    ],
)
def test_an_override_sets_one_value(text: str, value: object) -> None:
    assert at(load("run.yaml", [text]).pipeline, text.partition("=")[0]) == value


def test_an_override_changes_nothing_else() -> None:
    before, after = (load("run.yaml", texts).pipeline.model_dump() for texts in ([], ["seed=3"]))
    assert before.pop("seed") == 0
    assert after.pop("seed") == 3
    assert before == after


def test_a_table_replaces_where_a_key_merges() -> None:
    whole = load("run.yaml", ["stages.student.objective.1={kind: logits}"]).pipeline
    assert at(whole, "stages.student.objective.1.weight") == 1.0
    one = load("run.yaml", ["stages.student.objective.1.divergence=rkl"]).pipeline
    assert at(one, "stages.student.objective.1.weight") == 0.5


def test_the_last_override_of_a_key_wins() -> None:
    assert load("run.yaml", ["seed=3", "seed=4"]).pipeline.seed == 4


def test_the_position_after_the_last_adds_an_item() -> None:
    texts = ["stages.student.objective.2.kind=hidden", "stages.student.objective.3={kind: embeddings, weight: 2}"]
    pipeline = load("run.yaml", texts).pipeline
    assert [term["kind"] for term in at(pipeline, "stages.student.objective")] == [  # type: ignore[attr-defined]
        *["task", "logits", "hidden", "embeddings"]
    ]


def test_null_drops_a_stage() -> None:
    assert list(load("run.yaml", ["stages.evaluate=null"]).pipeline.stages) == ["student"]


@pytest.mark.parametrize("swap", [False, True])
def test_another_kind_keeps_only_what_overrides_say_in_either_order(swap: bool) -> None:
    texts = ["student.kind=folder", "student.model=m"]
    pipeline = load("run.yaml", texts[::-1] if swap else texts).pipeline
    assert pipeline.student.model_dump() == {"kind": "folder", "model": "m", "revision": None, "adapter": None}


def test_another_kind_of_term_leaves_the_others() -> None:
    pipeline = load("run.yaml", ["stages.student.objective.1.kind=hidden"]).pipeline
    assert at(pipeline, "stages.student.objective.1.weight") == 1.0
    assert at(pipeline, "stages.student.objective.0.kind") == "task"


def test_the_same_kind_keeps_everything() -> None:
    assert load("run.yaml", ["student.kind=sizes"]).pipeline == load("run.yaml").pipeline
    assert load("run.yaml", ["data.train.kind=files"]).pipeline == load("run.yaml").pipeline


def test_the_course_of_a_schedule_is_no_kind_of_section() -> None:
    texts = ["stages.student.objective.1.weight={start: 1, end: 0}", "stages.student.objective.1.weight.kind=cosine"]
    assert at(load("run.yaml", texts).pipeline, "stages.student.objective.1.weight") == {
        "kind": "cosine",
        "start": 1.0,
        "end": 0.0,
        "begin": 0.0,
        "finish": 1.0,
    }


def test_a_new_source_begins_with_its_kind() -> None:
    texts = ["data.extra.kind=files", "data.extra.path=more.csv", "stages.student.data.1=extra"]
    pipeline = load("run.yaml", texts).pipeline
    assert at(pipeline, "data.extra.path") == "more.csv"
    assert at(pipeline, "stages.student.data") == ["train", "extra"]


MALFORMED = "not of the form `key=value`, such as `seed=3` or `stages.train.training.epochs=5`"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("seed", MALFORMED),
        ("=3", MALFORMED),
        ("a..b=1", MALFORMED),
        ("seed =3", MALFORMED),
        ("--seed=3", "--seed: unknown key; did you mean `seed`? Choices: about, data, expect, machine, output, "
         "repeats, seed, stages, student, task, teacher"),
        ("seed=", "seed: no value given; write `null` or `''` after the `=`"),
        ("task.labels=[a", "task.labels: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("task={kind: text, kind: text}", "task.kind: given twice"),
        ("task.labels=[!!str a]", "task.labels.0: tag `!!str` is not read here; put text in quotes and leave tags out"),
        ("seed.a=3", "seed: a table is not a whole number of 0 or more"),
        ("task.max_length.a=3", "task.max_length: a single value, so there is no `a` in it; set it as a whole"),
        ("stages.student.objective.3.kind=task", "stages.student.objective: `3` is no position in a list of 2; "
         "positions go from 0, and 2 adds an item"),
        ("stages.student.objective.-1.kind=task", "stages.student.objective: `-1` is no position in a list of 2; "
         "positions go from 0, and 2 adds an item"),
        ("stages.studnt.once=true", "stages.studnt: unknown name; did you mean `student`? Choices: evaluate, student; "
         "a new one begins with `stages.studnt.kind=…`"),
        ("stages.nothing=null", "stages.nothing: empty, and nothing of this name is inherited to be removed; "
         "Choices: evaluate, student"),
        ("student.kind=folder", "student.model: missing"),
    ],
)  # fmt: skip
def test_overrides_that_cannot_be_done(text: str, what: str) -> None:
    assert problems("run.yaml", text) == [f"override: {text}: {what}"]


def test_wrong_overrides_are_reported_together_after_the_file() -> None:
    write(Path(), Path("run.yaml").read_text().replace("max_length: 16", "max_length: 0"))
    assert problems("run.yaml", "seed=x", "repeats", "seed=-1") == [
        "run.yaml:3: task.max_length: 0 is not a whole number above 0",
        f"override: repeats: {MALFORMED}",
        "override: seed=-1: seed: -1 is not a whole number of 0 or more",
    ]
