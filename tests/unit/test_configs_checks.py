"""What sections must know of each other."""

from pathlib import Path

import pytest

from configs.checks import custom_paths
from configs.load import load
from tests.helpers.run_yaml import problems, write

WHOLE = """\
about: A run.
expect: A score.
teacher: {model: teacher}
student: {kind: sizes}
data:
  train: {path: train.csv}
  validation: {kind: held_out, of: train}
  augmented: {kind: stage, stage: augment}
  held: {kind: held_out, of: augmented}
stages:
  teacher:
    kind: train
    trains: teacher
    data: [train]
    objective: [{kind: task}]
    training: {epochs: 1}
  early:
    kind: train
    data: [train]
    objective: [{kind: logits}, {kind: hidden}]
    training: {epochs: 1}
  augment: {kind: augment, data: train}
  answers: {kind: record, data: [augmented]}
  late:
    kind: train
    start: early
    data: [augmented, held]
    validation: validation
    objective: [{kind: logits}]
    training: {epochs: 1, keep: best}
  alone:
    kind: train
    teacher: none
    data: [train]
    objective: [{kind: task}]
    training: {epochs: 1}
  evaluate: {kind: evaluate, data: validation, student: late, baseline: alone}
  export: {kind: export, student: late, data: held}
"""


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, WHOLE)


SHARDED = "teacher={kind: sharded, model: teacher}"


def test_a_sharded_teacher_teaches_and_is_recorded_and_nothing_else() -> None:
    found = problems("run.yaml", SHARDED)
    what = "a sharded teacher (teacher.kind) only teaches; train it as `kind: live`"
    assert [problem.partition(": ")[2] for problem in found] == [f"stages.teacher.trains: {what}"], found
    assert load("run.yaml", [SHARDED, "stages.teacher.trains=student"]).pipeline.stages["answers"].kind == "record"


QUANTISED = "teacher={model: teacher, quantise: nf4}"


def test_a_quantised_teacher_is_not_trained_copied_or_sharded() -> None:
    found = problems("run.yaml", QUANTISED)
    what = "a quantised teacher (teacher.quantise) only teaches; train it as `quantise: none`"
    assert [problem.partition(": ")[2] for problem in found] == [f"stages.teacher.trains: {what}"], found
    found = problems(
        "run.yaml", QUANTISED, "stages.teacher.trains=student", "student={kind: teacher_layers, layers: 2}"
    )
    why = "is made of the teacher's weights, which are held rounded (teacher.quantise)"
    assert [problem for problem in found if "stages.early.start" in problem and why in problem], found
    found = problems("run.yaml", "teacher={kind: sharded, model: teacher, quantise: nf4}")
    assert any("teacher.quantise" in problem for problem in found), found


def test_parts_that_fit_are_no_problem() -> None:
    pipeline = load("run.yaml").pipeline
    teacher = pipeline.stages["teacher"]
    assert teacher.kind == "train"
    assert teacher.teacher == "none"


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("stages.late.start=erly", "there is no stage `erly`; did you mean `early`? Choices: early, fresh"),
        ("stages.late.start=alone", "stage `alone` does not come before `late`; Choices: early, fresh"),
        ("stages.late.start=late", "stage `late` does not come before `late`; Choices: early, fresh"),
        ("stages.late.start=augment", "stage `augment` is of kind `augment` and trains nothing; Choices: early, fresh"),
        ("stages.late.start=teacher", "stage `teacher` trains the teacher, not the student; Choices: early, fresh"),
        ("stages.evaluate.student=lat", "there is no stage `lat`; did you mean `late`? Choices: alone, early, late"),
        ("stages.evaluate.student=export", "stage `export` does not come before `evaluate`; "
         "Choices: alone, early, late"),
        ("stages.export.student=evaluate", "stage `evaluate` is of kind `evaluate` and trains nothing; "
         "did you mean `late`? Choices: alone, early, late"),
        ("stages.export.student=teacher", "stage `teacher` trains the teacher, not the student; "
         "Choices: alone, early, late"),
        ("stages.evaluate.baseline=early", "stage `early` learns from a teacher, a baseline does not; Choices: alone"),
        ("stages.evaluate.baseline=teacher", "stage `teacher` trains the teacher, not the student; Choices: alone"),
        ("stages.evaluate.data=validaton", "there is no source `validaton`; did you mean `validation`? "
         "Choices: augmented, held, train, validation"),
        ("stages.augment.data=x", "there is no source `x`; Choices: augmented, held, train, validation"),
        ("stages.late.data.1=tain", "there is no source `tain`; did you mean `train`? "
         "Choices: augmented, held, train, validation"),
        ("stages.late.validation=x", "there is no source `x`; Choices: augmented, held, train, validation"),
        ("stages.early.data.0=augmented", "source `augmented` is written by stage `augment`, "
         "which does not come before `early`"),
        ("stages.early.data.0=held", "source `held` is written by stage `augment`, which does not come before `early`"),
        ("stages.augment.data=held", "source `held` is written by stage `augment`, "
         "which does not come before `augment`"),
        ("data.augmented.stage=augmnt", "there is no stage `augmnt`; did you mean `augment`? Choices: augment"),
        ("data.augmented.stage=early", "stage `early` writes no rows; Choices: augment"),
        ("data.validation.of=trian", "there is no source `trian`; did you mean `train`? "
         "Choices: augmented, held, train"),
        ("data.validation.of=validation", "held out of itself: validation → validation"),
        ("stages.teacher.teacher=task", "a stage that trains the teacher learns from labels alone; "
         "write `teacher: none`"),
        ("stages.late.training.micro_batch_size=33", "33 is more than the `batch_size` of 32 it is a part of"),
        ("stages.alone.training.keep=best", "`best` is judged on validation rows; name a source in `validation`"),
        ("stages.alone.objective.0.kind=attention", "`attention` needs a teacher, and this stage has none; "
         "Choices: custom, task"),
        ("stages.teacher.objective.0.kind=logits", "`logits` needs a teacher, and this stage has none; "
         "Choices: custom, task"),
        ("stages.late.cache=answer", "there is no stage `answer`; did you mean `answers`? Choices: answers"),
        ("stages.late.cache=early", "stage `early` is of kind `train` and records nothing; Choices: answers"),
        ("stages.early.cache=answers", "stage `answers` does not come before `early`; none fits"),
        ("stages.late.cache=answers", "stage `answers` does not record source `held`; Recorded: augmented"),
        ("stages.alone.cache=answers", "holds a teacher's logits, and this stage has no teacher; leave it out"),
        ("stages.answers.data.0=x", "there is no source `x`; Choices: augmented, held, train, validation"),
        ("task.metric=pearson", "`pearson` does not measure classification; Choices: accuracy, f1, f1_macro, mcc"),
    ],
)  # fmt: skip
def test_what_does_not_fit(override: str, what: str) -> None:
    path = override.partition("=")[0]
    assert problems("run.yaml", override) == [f"override: {override}: {path}: {what}"]


def test_a_loss_that_counts_padding_wants_it_fixed() -> None:
    term = (
        "stages.early.objective=[{kind: hidden, reduction: huawei}, {kind: logits, divergence: ce, reduction: huawei}]"
    )
    (found,) = problems("run.yaml", term)
    assert (
        "stages.early.objective.0.reduction: `huawei` counts padding" in found and "`training.padding: fixed`" in found
    )
    load("run.yaml", [term, "stages.early.training.padding=fixed"])


def test_a_cache_of_another_teacher_is_refused() -> None:
    found = problems(
        "run.yaml", "stages.late.cache=answers", "stages.late.data=[augmented]", "stages.late.teacher=base"
    )
    what = "stage `answers` records the teacher `task`, this stage learns from `base`"
    assert found == [f"override: stages.late.cache=answers: stages.late.cache: {what}"]


def test_a_teacher_is_recorded_after_it_was_trained() -> None:
    found = problems("run.yaml", "stages.teacher=null", "stages.teacher={kind: train, trains: teacher, "
                     "data: [train], objective: [{kind: task}], training: {epochs: 1}}")  # fmt: skip
    assert any("records the teacher that stage `teacher` trains, and comes before that stage" in line for line in found)


def test_nothing_to_choose_from_is_said() -> None:
    found = problems("run.yaml", "stages.early=null", "stages.late.start=fresh", "stages.alone=null")
    assert found == ["run.yaml:37: stages.evaluate.baseline: there is no stage `alone`; none fits"]


def test_a_circle_of_held_out_sources_is_one_problem() -> None:
    found = problems("run.yaml", "data.train={kind: held_out, of: other}", "data.other={kind: held_out, of: train}")
    assert found == [
        "override: data.train={kind: held_out, of: other}: data.train.of: held out of itself: train → other → train"
    ]


def test_a_source_outside_a_circle_is_not_blamed_for_it() -> None:
    found = problems("run.yaml", "data.train={kind: held_out, of: train}")
    assert [line.split(": ")[-2:] for line in found] == [["held out of itself", "train → train"]]


def test_fresh_is_no_name_of_a_stage() -> None:
    override = "stages.fresh={kind: augment, data: train}"
    what = "stages.fresh: `fresh` means a new model where a stage starts; give the stage another name"
    assert problems("run.yaml", override) == [f"override: {override}: {what}"]


def test_micro_batches_of_a_token_budget_have_no_bound() -> None:
    load("run.yaml", ["stages.late.training.micro_batch_size=33", "stages.late.training.tokens_per_batch=4096"])


def test_plain_text_has_no_task_to_learn() -> None:
    found = problems("run.yaml", "task.kind=text")
    assert [line.split(": ")[1:3] for line in found] == [
        ["stages.teacher.objective.0.kind", "`task` needs a task, and `task.kind` is `text`; Choices"],
        ["stages.early.objective.0.kind", "`logits` needs a task, and `task.kind` is `text`; Choices"],
        ["stages.answers.kind", "`record` writes logits, which need a task, and `task.kind` is `text`"],
        ["stages.late.validation", "students of plain text have no head and no score; leave it out"],
        ["stages.late.objective.0.kind", "`logits` needs a task, and `task.kind` is `text`; Choices"],
        ["stages.alone.objective.0.kind", "`task` needs a task, and `task.kind` is `text`; Choices"],
        ["stages.evaluate.kind", "`evaluate` compares scores, and plain text has none; leave the stage out"],
    ]
    assert problems("run.yaml", "task={kind: text, metric: f1}")[-1].endswith("`f1` does not measure text; none fits")


def test_regression_has_no_classes_to_compare() -> None:
    found = problems("run.yaml", "task.kind=regression", "stages.alone.objective.0.label_smoothing=0.1")
    assert [line.split(": ", 1)[1] for line in found[:2]] == [
        "stages.early.objective.0.divergence: `kl` compares classes, and `task.kind` is `regression`; Choices: mse",
        "stages.late.objective.0.divergence: `kl` compares classes, and `task.kind` is `regression`; Choices: mse",
    ]
    assert found[2].endswith("label_smoothing: smooths classes, and `task.kind` is `regression`; leave it out")
    divergences = [f"stages.{stage}.objective.0.divergence=mse" for stage in ("early", "late")]
    load("run.yaml", ["task={kind: regression, metric: spearman}", *divergences])


def test_parts_are_compared_even_where_others_are_wrong() -> None:
    found = problems("run.yaml", "seed=x", "stages.early.training.epochs=0", "stages.evaluate.student=lat")
    assert found == [
        "override: seed=x: seed: `x` is not a whole number of 0 or more",
        "override: stages.early.training.epochs=0: stages.early.training.epochs: 0 is not a number above 0",
        "override: stages.evaluate.student=lat: stages.evaluate.student: there is no stage `lat`; "
        "did you mean `late`? Choices: alone, late",
    ]


@pytest.mark.parametrize("override", ["data=null", "data=[a]"])
def test_what_cannot_be_compared_is_not_blamed(override: str) -> None:
    assert len(problems("run.yaml", override)) == 1


def test_paths_of_custom_terms() -> None:
    assert custom_paths(load("run.yaml").pipeline) == []
    term = "{kind: custom, factory: 'mine:term'}"
    texts = [f"stages.early.objective.2={term}", f"stages.alone.objective.0={term}", "task.kind=classification"]
    assert custom_paths(load("run.yaml", texts).pipeline) == ["stages.early.objective.2", "stages.alone.objective.0"]


def test_a_teacher_is_trained_before_anyone_learns_from_it() -> None:
    stage = "{kind: train, trains: teacher, data: [rows], objective: [{kind: task}], training: {epochs: 1}}"
    found = problems("run.yaml", f"stages.second={stage}", "stages.teacher=null")
    assert "stages.early: learns from the teacher that stage `second` trains, and comes before that stage" in found[0]
    found = problems("run.yaml", f"stages.second={stage}")
    assert found[-1].endswith("stage `teacher` trains the teacher already; a run has one teacher")
