"""The best weights by what a student writes: the score that is logged is that of the weights that are kept."""

import csv
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from configs.data import Task
from distill import text_metrics
from pipelines.validate_text import WrittenValidation
from students.student import Student
from tests.helpers import pairs
from tests.helpers.training import train_apart

TASK = {**pairs.TASK, "metric": "chrf"}
ROWS = 8
STAGES = {
    "student": {
        "kind": "train",
        "teacher": "none",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "task"}],
        "training": {
            **pairs.TRAINING,
            "tokens_per_batch": 200,
            "epochs": 12,
            "learning_rate": 5e-3,
            "keep": "best",
            "validate_texts": ROWS,
        },
    }
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    student = {**pairs.STUDENT, "hidden_size": 32, "vocabulary": 310}
    pairs.run_file(folder, STAGES, task=TASK, teacher={"kind": "none"}, student=student, repeats=2)
    return folder


def logged(stage: Path) -> list[float]:
    with (stage / "log/from-0/metrics.csv").open(encoding="utf-8") as lines:
        found = [row["validation/chrf_greedy"] for row in csv.DictReader(lines)]
    return [float(value) for value in found if value]


def results(stage: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((stage / "stage.json").read_text(encoding="utf-8"))["results"]["validation"]
    return found


def references() -> dict[str, list[str]]:
    return {source: [target] for source, target in pairs.sentences(20, seed=1)}


def test_the_weights_kept_are_those_whose_texts_scored_best(call, folder: Path) -> None:
    code, out, err = call("run", str(folder / "run.yaml"))
    assert (code, err) == (0, ""), out + err
    for seed in (0, 1):
        stage = folder / f"run/seed-{seed}/student"
        scores = logged(stage)
        assert len(scores) == 12 and len(set(scores)) > 1
        assert results(stage)["chrf_greedy"] == pytest.approx(max(scores), abs=1e-6)
        assert "log_prob" in results(stage)


def test_the_score_is_that_of_what_transformers_writes(folder: Path) -> None:
    place = folder / "run/seed-0/student/model"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    student = Student(model, has_head=True).train()
    student.keep(["embeddings"], "here")
    student.model.get_input_embeddings().weight.requires_grad_(False)
    dropped = [name for name, module in student.named_modules() if module.training]
    frozen = [name for name, weight in student.named_parameters() if not weight.requires_grad]
    score = WrittenValidation(references(), ROWS, tokenizer, Task(**TASK))
    found = score(student)
    turned = dict(reversed(references().items()))
    assert WrittenValidation(turned, ROWS, tokenizer, Task(**TASK))(student) == found
    assert [name for name, module in student.named_modules() if module.training] == dropped
    assert [name for name, weight in student.named_parameters() if not weight.requires_grad] == frozen

    chosen = list(score._references)
    assert len(chosen) == ROWS
    model.eval()
    texts = []
    for source in chosen:
        ids = tokenizer(source, return_tensors="pt")
        with torch.no_grad():
            made = model.generate(**ids, num_beams=1, do_sample=False, max_new_tokens=23)
        texts += tokenizer.batch_decode(made, skip_special_tokens=True)
    expected = text_metrics.value("chrf", texts, [references()[source] for source in chosen])
    assert found == {"chrf_greedy": pytest.approx(expected, abs=1e-9)}
    assert found["chrf_greedy"] == pytest.approx(results(folder / "run/seed-0/student")["chrf_greedy"], abs=1e-6)


def test_two_processes_score_what_they_wrote_together(folder: Path) -> None:
    steps = ("stages.student.training.max_steps=4", "stages.student.training.epochs=null")
    train_apart(folder / "run.yaml", folder / "two", *steps, "student.options={dropout: 0.0}", processes=2)
    place = folder / "two/model"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    alone = WrittenValidation(references(), ROWS, tokenizer, Task(**TASK))(Student(model, has_head=True))
    assert max(logged(folder / "two")) == pytest.approx(alone["chrf_greedy"], abs=1e-6)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "stages.student.validation=null",
            "stages.student.training.validate_texts: texts are written for validation rows; name a source in",
        ),
        (
            "task={kind: regression}",
            "stages.student.training.validate_texts: is for texts, and `task.kind` is `regression`; leave it out",
        ),
    ],
)
def test_texts_need_rows_to_be_written_for(call, folder: Path, override: str, expected: str) -> None:
    code, _, err = call("check", str(folder / "run.yaml"), override)
    assert code == 2 and expected in " ".join(err.split())
