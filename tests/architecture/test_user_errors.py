"""What a user gets wrong is told at set-up, in one message, with exit code 2."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers import tiny

KD = {"kind": "train", "data": ["train"], "validation": "validation", "training": {"epochs": 1, "batch_size": 8}}
STAGES = {"student": {**KD, "objective": [{"kind": "logits"}]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny.run_file(tmp_path_factory.mktemp("errors"), STAGES)


CASES = {
    "a key that is none": (["task.max_lenght=3"], "did you mean `max_length`?"),
    "a value out of range": (["stages.student.training.learning_rate=-1"], "stages.student.training.learning_rate"),
    "a schedule that ends before it begins": (
        ["stages.student.objective.0.weight={start: 1, end: 0, begin: 0.9, finish: 0.5}"],
        "stages.student.objective.0.weight: `begin` (0.9) must lie before `finish` (0.5)",
    ),
    "a weight that is zero throughout": (
        ["stages.student.objective=[{kind: logits}, {kind: hidden, weight: {start: 0, end: 0}}]"],
        "stages.student.objective.1.weight: a term whose weight is 0 throughout trains nothing; take it out",
    ),
    "a kind that is none": (["student.kind=size"], "did you mean `sizes`?"),
    "a source that is none": (["stages.student.data=[trian]"], "did you mean `train`?"),
    "a file that is not there": (["data.train.path={folder}/trian.csv"], "did you mean `train.csv`?"),
    "a column that is not there": (["data.train.columns.label=lable"], "did you mean `label`?"),
    "a label that is none": (["task.labels=[negative, positiv]"], "label `positive` not in task.labels"),
    "validation rows without labels": (
        ["data.validation.columns.label=null"],
        "data.validation: no row has a label, and stages.student.validation needs some",
    ),
    "rows without labels to compare models on": (
        [
            "stages.student.validation=null",
            "data.validation.columns.label=null",
            "stages.evaluate={kind: evaluate, student: student, data: validation}",
        ],
        "data.validation: no row has a label, and stages.evaluate.data needs some",
    ),
    "scores that are not there": (
        [
            "task={kind: regression, labels: null, max_length: 24}",
            "stages.student.objective=[{kind: logits, divergence: mse}]",
            "data.train.columns.label=null",
            "data.validation.columns.label=null",
        ],
        "data.validation: no row has a label, and stages.student.validation needs some",
    ),
    "gold labels that no row has": (
        ["stages.student.objective=[{kind: logits}, {kind: task}]", "data.train.columns.label=null"],
        "stages.student.objective[1] (task) needs labels, and no row of train has one",
    ),
    "a teacher that is not there": (["teacher.model={folder}/teecher"], "did you mean `teacher`?"),
    "a teacher folder without weights": (["teacher.model={folder}/bare"], "bare lacks *.safetensors, tokenizer.json"),
    "a teacher whose head was never trained": (["teacher.model={folder}/body"], "needs teacher logits"),
    "a teacher of other labels": (
        ["teacher.model={folder}/other"],
        "labels are matched by name: the model has bad, good, which the run does not know",
    ),
    "a teacher package that is not there": (["teacher.model=package:no_such_package"], "is not installed: pip install"),
    "heads that cannot be paired": (
        ["student.heads=2", "stages.student.objective=[{kind: attention}]"],
        "the student has 2 heads, the teacher 4",
    ),
    "layers that cannot be paired": (
        ["student.layers=6", "stages.student.objective=[{kind: hidden}]"],
        "the student has 6 layers, the teacher 4",
    ),
    "a layer that does not exist": (
        ["stages.student.objective=[{kind: hidden, layers: {1: 9}}]"],
        "teacher layer 9 does not exist",
    ),
    "more tokens than positions": (["task.max_length=500"], "500 is more than the 64 positions"),
    "sizes that do not divide": (["student.hidden_size=18"], "hidden_size 18 is not a multiple of heads 4"),
    "an architecture that is none": (["student.architecture=brt"], "student.architecture: unknown `brt`"),
    "layers of the teacher it has not": (
        ["student={kind: teacher_layers, layers: [1, 7]}"],
        "must rise and stay below 4",
    ),
    "code nobody allowed": (
        ["stages.student.objective=[{kind: custom, factory: 'os:getcwd'}]"],
        "runs only under --allow-code",
    ),
    "a precision the device has not": (
        ["stages.student.training.precision=fp16"],
        "fp16 needs a GPU; Choices here: bf16, fp32",
    ),
    "a sharded teacher in a type the device has not": (
        ["teacher={kind: sharded, model: {folder}/teacher, dtype: float16}"],
        "teacher.dtype: float16 of a sharded teacher needs a GPU; Choices here: bfloat16, float32",
    ),
    "a momentum that forgets nothing": (
        ["stages.student.training.betas=[0.9, 1]"],
        "stages.student.training.betas.1: 1 is not a number from 0 to below 1",
    ),
    "devices that are not there": (["machine.accelerator=gpu"], "torch sees none"),
}


@pytest.fixture(scope="module", autouse=True)
def other_teachers(run):
    folder = run.parent
    tiny.model_folder(folder / "body", head=False)
    (folder / "bare").mkdir()
    (folder / "bare/config.json").write_text("{}", encoding="utf-8")
    config = json.loads((tiny.model_folder(folder / "other") / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    (folder / "other/config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("case", CASES)
def test_one_message_and_exit_code_two(run, call, tmp_path, case, command):
    overrides, expected = CASES[case]
    given = [override.replace("{folder}", str(run.parent)) for override in overrides]
    code, _, err = call(command, str(run), f"output={tmp_path / 'out'}", *given)
    assert code == 2 and expected in err.replace("\n", " "), err
    assert "Traceback" not in err
    assert not list((tmp_path / "out").rglob("*.safetensors")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed(run, call, tmp_path, logger, command):
    if find_spec(logger) is not None:
        pytest.skip(f"{logger} is installed")
    code, _, err = call(command, str(run), f"output={tmp_path}", f"machine.loggers=[csv, {logger}]")
    assert code == 2 and f"machine.loggers: {logger} not installed: pip install {logger}" in err, err


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_what_is_not_trained_yet(run, call, tmp_path, command):
    later = f"stages.later={{kind: {command}, student: student, data: validation}}"
    code, _, err = call(command, str(run), f"output={tmp_path}", later)
    assert code == 2 and "stages.student: it is not done yet; `distill run` does it" in err, err


def test_teacher_labels_in_another_order_are_matched_by_name(run, call, tmp_path):
    folder = run.parent
    config = json.loads((tiny.model_folder(folder / "swapped") / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "positive", "1": "negative"}, "label2id": {"positive": 0, "negative": 1}}
    (folder / "swapped/config.json").write_text(json.dumps(config), encoding="utf-8")
    scores = {}
    for teacher in ("teacher", "swapped"):
        code, out, err = call("check", str(run), f"output={tmp_path}", f"teacher.model={folder / teacher}")
        assert code == 0, err
        scores[teacher] = float(out.split("teacher's score")[1].split("accuracy ")[1].split(",")[0])
    assert scores["teacher"] == pytest.approx(1.0 - scores["swapped"], abs=2e-3)


def test_gold_labels_that_no_row_of_another_stage_has(call, tmp_path):
    augment = {"kind": "augment", "data": "plain", "copies": 1, "candidates": 3}
    student = {**KD, "data": ["made"], "objective": [{"kind": "logits"}, {"kind": "task"}]}
    plain = {"path": str(tiny.csv_file(tmp_path / "plain.csv", 8, labelled=False)), "columns": {"label": None}}
    held = {"path": str(tiny.csv_file(tmp_path / "held.csv", 8))}
    data = {"plain": plain, "validation": held, "made": {"kind": "stage", "stage": "augment"}}
    code, _, err = call("run", str(tiny.run_file(tmp_path, {"augment": augment, "student": student}, data=data)))
    expected = "stages.student.objective[1] (task) needs labels, and no row of made has one"
    assert code == 2 and expected in err.replace("\n", " "), err
