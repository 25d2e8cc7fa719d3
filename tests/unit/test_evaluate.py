"""The comparison of teacher, student and baseline, and the honesty of its verdict."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.data import Task
from distill.data.table import TokenTable
from distill.errors import ModelError
from distill.models import ModelSource
from pipelines.evaluate import Comparison, evaluate
from pipelines.score import EncodedRows
from pipelines.verdict import Gain, bootstrap, gain, verdict
from tests.helpers import tiny

TIMES = {"1": {"p50_ms": 2.0, "p95_ms": 3.0}, "32": {"p50_ms": 9.0, "p95_ms": 9.5}}


@pytest.fixture(scope="module")
def rows() -> EncodedRows:
    draw = np.random.default_rng(0)
    tokens = [[2, *draw.integers(5, 90, draw.integers(1, 12)).tolist(), 3] for _ in range(50)]
    return EncodedRows.of(TokenTable.of(tokens, draw.integers(0, 2, 50), np.arange(50)), pad_id=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSource]:
    root = tmp_path_factory.mktemp("models")
    made = {"teacher": 4, "student": 1, "baseline": 1}
    for number, (role, layers) in enumerate(made.items()):
        tiny.model_folder(root / role, seed=number, num_hidden_layers=layers, initializer_range=0.3)
    return {role: ModelSource(str(root / role)) for role in made}


def comparison(folders: dict[str, ModelSource], rows: EncodedRows) -> Comparison:
    student, baseline = folders["student"], folders["baseline"]
    return Comparison(
        models={
            "teacher": [(0, folders["teacher"])],
            "student": [(0, student), (1, student)],
            "baseline": [(0, baseline), (1, baseline)],
        },
        rows=rows,
        task=Task(),
        labels=tiny.LABELS,
        data="validation",
    )


def test_results_hold_what_the_report_needs(folders: dict[str, ModelSource], rows: EncodedRows, tmp_path: Path) -> None:
    seen: dict[str, int] = {}
    found = evaluate(
        comparison(folders, rows),
        tmp_path,
        seconds=0.05,
        progress=lambda role, count: seen.update({role: seen.get(role, 0) + count}),
    )
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert seen == {"teacher": 50, "student": 100, "baseline": 100}
    student, teacher = found["models"]["student"], found["models"]["teacher"]
    assert (student["layers"], student["hidden_size"]) == (1, 32)
    assert set(student["seeds"]) == {"0", "1"}
    assert student["seeds"]["0"].keys() == {"accuracy", "f1", "f1_macro", "mcc", "ece", "agreement", "agreement_kl"}
    assert "agreement" not in teacher["seeds"]["0"]
    assert found["verdict"]["smaller"] == pytest.approx(teacher["parameters"] / student["parameters"])
    assert found["latency"]["threads"] == torch.get_num_threads()
    assert student["megabytes"] == pytest.approx(4 * student["parameters"] / 1e6, rel=0.2)


def test_a_teacher_with_other_label_order_is_read_by_the_runs(
    folders: dict[str, ModelSource], rows: EncodedRows, tmp_path: Path
) -> None:
    plain = comparison(folders, rows)
    crossed = Comparison(plain.models, rows, plain.task, plain.labels, plain.data, orders={"teacher": [1, 0]})
    straight = evaluate(plain, tmp_path / "a", timed=False)["models"]
    swapped = evaluate(crossed, tmp_path / "b", timed=False)["models"]
    other = 1 - straight["teacher"]["seeds"]["0"]["accuracy"]
    assert swapped["teacher"]["seeds"]["0"]["accuracy"] == pytest.approx(other)
    assert swapped["student"]["seeds"]["0"]["accuracy"] == straight["student"]["seeds"]["0"]["accuracy"]
    other = 1 - straight["student"]["seeds"]["0"]["agreement"]
    assert swapped["student"]["seeds"]["0"]["agreement"] == pytest.approx(other)


def test_a_head_that_was_not_trained_is_refused(rows: EncodedRows, tmp_path: Path) -> None:
    body = ModelSource(str(tiny.model_folder(tmp_path / "body", head=False, num_hidden_layers=1)))
    models = Comparison({"student": [(0, body)]}, rows, Task(), tiny.LABELS, "validation")
    with pytest.raises(ModelError, match=r"student: .* has no head that was trained"):
        evaluate(models, tmp_path / "out", timed=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (Task(kind="text"), (), "has no scores"),
        (Task(), ("a", "b", "c"), "has 2 outputs, the task needs 3"),
        (Task(metric="f1"), ("a", "b", "c"), "no `f1` of 3 classes; Choices: accuracy"),
    ],
)
def test_a_task_the_models_cannot_do_is_an_error(
    folders: dict[str, ModelSource],
    rows: EncodedRows,
    tmp_path: Path,
    task: Task,
    labels: tuple[str, ...],
    message: str,
) -> None:
    models = Comparison({"student": [(0, folders["student"])]}, rows, task, labels, "validation")
    with pytest.raises(ModelError, match=message):
        evaluate(models, tmp_path, timed=False)


def answers(right: int, of: int = 200) -> tuple[Tensor, Tensor]:
    """Logits [N 2] with the first `right` rows right, and the labels."""
    labels = torch.arange(of) % 2
    said = torch.where(torch.arange(of) < right, labels, 1 - labels)
    return torch.nn.functional.one_hot(said, 2).float(), labels


def models(student: list[float], baseline: list[float]) -> dict[str, dict[str, object]]:
    def model(scores: list[float], parameters: int) -> dict[str, object]:
        seeds = {str(seed): {"accuracy": score} for seed, score in enumerate(scores)}
        return {"parameters": parameters, "seeds": seeds, "latency": TIMES}

    return {"teacher": model([0.9], 100), "student": model(student, 20), "baseline": model(baseline, 20)}


def judged(differences: list[float], interval: tuple[float, float]) -> dict[str, object]:
    per_seed = {str(seed): difference for seed, difference in enumerate(differences)}
    gained = Gain(per_seed, float(np.mean(differences)), None, interval)
    scores = [0.8 + difference for difference in differences]
    return verdict(models(scores, [0.8] * len(scores)), "accuracy", gained)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("differences", "interval", "answer", "words"),
    [
        ([0.03, 0.02, 0.04], (0.01, 0.05), "Yes", "on each of 3 seeds the student beats"),
        ([0.03, 0.02, 0.04], (-0.01, 0.05), "Probably", "these rows are too few to be sure"),
        ([0.03], (0.01, 0.05), "Probably", "one seed cannot tell it from luck"),
        (
            [0.03, -0.01, 0.02],
            (0.01, 0.05),
            "Not clearly",
            "on 2 of 3 seeds only, by 1.3 points of accuracy on average",
        ),
        ([0.01, -0.03, -0.02], (-0.05, 0.02), "No", "1.3 points of accuracy behind the same model .* ahead on 1 of 3"),
        ([-0.01, -0.02], (-0.05, -0.01), "No", "ahead on none of 2 seeds"),
        ([0.0], (0.0, 0.0), "No", r"scores the same as the same model trained without a teacher\."),
    ],
)
def test_the_verdict_claims_no_more_than_the_numbers(
    differences: list[float], interval: tuple[float, float], answer: str, words: str
) -> None:
    found = judged(differences, interval)
    assert found["answer"] == answer
    assert re.search(words, str(found["reason"]))


def test_the_verdict_states_cost_and_what_is_kept() -> None:
    found = judged([0.01, 0.01], (0.0, 0.02))
    assert found["retained"] == pytest.approx(0.9)
    assert found["smaller"] == pytest.approx(5)
    assert str(found["sentence"]).endswith(
        "The student keeps 90.0 % of the teacher’s accuracy, is 5.0× smaller and is no faster on single rows."
    )


def test_without_a_baseline_nothing_is_claimed() -> None:
    found = verdict({"student": models([0.9], [])["student"]}, "accuracy", None)
    assert found["sentence"] == "Not known: nothing was trained without a teacher to compare with."


def test_gain_pairs_seed_by_seed() -> None:
    labels = answers(0)[1]
    ours, theirs = {0: answers(180)[0], 1: answers(160)[0]}, {1: answers(150)[0], 0: answers(160)[0], 7: answers(1)[0]}
    found = gain("accuracy", ours, theirs, labels)
    assert found is not None
    assert found.per_seed == {"0": pytest.approx(0.1), "1": pytest.approx(0.05)}
    assert found.mean == pytest.approx(0.075)
    assert gain("accuracy", ours, {}, labels) is None


def test_the_bootstrap_interval_is_that_of_a_paired_difference() -> None:
    ours, labels = answers(180)
    theirs, _ = answers(160)
    low, high = bootstrap("accuracy", [(ours, theirs)], labels)
    error = 1.96 * np.sqrt(0.1 * 0.9 / 200)  # the rows the two differ on are one in ten, all in our favour
    assert low == pytest.approx(0.1 - error, abs=0.012)
    assert high == pytest.approx(0.1 + error, abs=0.012)
    assert bootstrap("accuracy", [(ours, theirs)], labels) == (low, high)
    assert bootstrap("accuracy", [(ours, ours)], labels) == (0.0, 0.0)


def test_rows_without_a_label_are_left_out_of_the_bootstrap() -> None:
    ours, labels = answers(180)
    theirs, _ = answers(160)
    hidden = torch.cat([labels, torch.full((100,), -100)])
    padded = [(torch.cat([ours, 1 - ours[:100]]), torch.cat([theirs, ours[:100]]))]
    assert bootstrap("accuracy", padded, hidden) == bootstrap("accuracy", [(ours, theirs)], labels)
