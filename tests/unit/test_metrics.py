"""Metrics against plain loops, and what they do with rows that do not count."""

import math

import pytest
import torch
from torch import Tensor

from configs.data import Task
from distill.errors import DataError, ModelError
from distill.metrics import TaskMetrics, agreement, main_metric, score, value
from distill.types import IGNORED

ROWS = 60


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    found = torch.randint(0, 3, (ROWS,), generator=torch.Generator().manual_seed(1))
    found[::7] = IGNORED
    return found


def told(logits: Tensor, labels: Tensor) -> list[tuple[int, int, float]]:
    """(prediction, label, confidence) of the rows that count."""
    rows = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label != IGNORED:
            top = max(range(len(row)), key=lambda index: row[index])
            rows.append((top, label, math.exp(row[top]) / sum(math.exp(v) for v in row)))
    return rows


def f1(rows: list[tuple[int, int, float]], cls: int) -> float:
    hit = sum(p == cls == y for p, y, _ in rows)
    wrong = sum((p == cls) != (y == cls) for p, y, _ in rows)
    return 2 * hit / (2 * hit + wrong)


def pearson(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cov / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def ranks(x: list[float]) -> list[float]:
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def test_classification_equals_plain_loops(logits: Tensor, labels: Tensor) -> None:
    rows = told(logits, labels)
    found = score("classification", logits, labels)
    assert set(found) == {"accuracy", "f1_macro", "mcc", "ece"}
    assert found["accuracy"] == pytest.approx(sum(p == y for p, y, _ in rows) / len(rows))
    assert found["f1_macro"] == pytest.approx(sum(f1(rows, cls) for cls in range(3)) / 3)


def test_mcc_of_two_classes_equals_the_formula(logits: Tensor, labels: Tensor) -> None:
    labels = torch.where(labels == 2, IGNORED, labels)
    rows = told(logits[:, :2], labels)
    tp, tn = sum(p == y == 1 for p, y, _ in rows), sum(p == y == 0 for p, y, _ in rows)
    fp, fn = sum(p > y for p, y, _ in rows), sum(p < y for p, y, _ in rows)
    found = score("classification", logits[:, :2], labels)
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["mcc"] == pytest.approx(expected, abs=1e-6)
    assert found["f1"] == pytest.approx(f1(rows, 1))


def test_calibration_error_is_the_weighted_gap_over_15_bins(logits: Tensor, labels: Tensor) -> None:
    bins: dict[int, list[tuple[bool, float]]] = {}
    for p, y, confidence in told(logits, labels):
        bins.setdefault(int(confidence * 15), []).append((p == y, confidence))
    gaps = [abs(sum(hit for hit, _ in rows) - sum(c for _, c in rows)) for rows in bins.values()]
    assert value("ece", logits, labels) == pytest.approx(sum(gaps) / len(told(logits, labels)), abs=1e-6)


def test_regression_equals_plain_loops() -> None:
    scores = torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(0))
    gold = (scores[:, 0] + torch.randn(ROWS, generator=torch.Generator().manual_seed(1))).mul(2).round() / 2
    gold[5] = math.nan
    kept = [(a, b) for a, b in zip(scores[:, 0].tolist(), gold.tolist(), strict=True) if not math.isnan(b)]
    x, y = [a for a, _ in kept], [b for _, b in kept]
    found = score("regression", scores, gold)
    assert found["pearson"] == pytest.approx(pearson(x, y))
    assert found["spearman"] == pytest.approx(pearson(ranks(x), ranks(y)), abs=1e-5)
    assert found["mse"] == pytest.approx(sum((a - b) ** 2 for a, b in kept) / len(kept))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_correlation_survives_a_large_offset(offset: float) -> None:
    gold = torch.arange(20.0)
    assert value("pearson", (offset + gold / 4).unsqueeze(1), gold) == pytest.approx(1.0, abs=1e-6)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    found = score("regression", torch.ones(8, 1), torch.arange(8.0))
    assert found["pearson"] == found["spearman"] == 0.0


def test_batches_do_not_change_the_scores(logits: Tensor, labels: Tensor) -> None:
    metrics = TaskMetrics("classification", 3)
    for start, end in ((0, 1), (1, 30), (30, 30), (30, ROWS)):
        metrics.update(logits[start:end], labels[start:end])
    assert metrics.compute() == pytest.approx(score("classification", logits, labels))


def test_a_checkpoint_in_the_middle_of_a_validation_loses_nothing(logits: Tensor, labels: Tensor) -> None:
    before, after = TaskMetrics("classification", 3), TaskMetrics("classification", 3)
    before.update(logits[:20], labels[:20])
    after.load_state_dict(before.state_dict())
    after.update(logits[20:], labels[20:])
    assert after.compute() == pytest.approx(score("classification", logits, labels))


def test_rows_without_a_label_never_count(logits: Tensor, labels: Tensor) -> None:
    counted = labels != IGNORED
    garbage = torch.where(counted.unsqueeze(1), logits, 1e6)
    assert score("classification", garbage, labels) == score("classification", logits[counted], labels[counted])


def test_no_label_at_all_is_an_error(logits: Tensor) -> None:
    with pytest.raises(DataError, match="none of the rows to score on has a label"):
        score("classification", logits, torch.full((ROWS,), IGNORED))


def test_agreement_is_whole_with_oneself_and_a_plain_kl_with_others(logits: Tensor) -> None:
    assert agreement("classification", logits, logits) == {
        "agreement": 1.0,
        "agreement_kl": pytest.approx(0, abs=1e-12),
    }
    student = logits.roll(1, 0)
    p, q = logits.double().softmax(-1).tolist(), student.double().softmax(-1).tolist()
    kl = sum(a * math.log(a / b) for x, y in zip(p, q, strict=True) for a, b in zip(x, y, strict=True)) / ROWS
    found = agreement("classification", student, logits)
    assert found["agreement_kl"] == pytest.approx(kl)
    same = sum(x.index(max(x)) == y.index(max(y)) for x, y in zip(p, q, strict=True))
    assert found["agreement"] == pytest.approx(same / ROWS)


def test_agreement_of_a_regression_is_a_correlation(logits: Tensor) -> None:
    assert agreement("regression", logits[:, :1], 3 - 2 * logits[:, :1]) == {"agreement": pytest.approx(-1.0)}


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (Task(), "accuracy"),
        (Task(kind="regression"), "spearman"),
        (Task(kind="regression", metric="pearson"), "pearson"),
        (Task(labels=("no", "yes"), metric="f1"), "f1"),
    ],
)
def test_main_metric(task: Task, name: str) -> None:
    assert main_metric(task) == name


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(kind="text"), "has no metric"),
        (Task(kind="regression", metric="accuracy"), "`accuracy` is no metric of a regression; Choices"),
        (Task(metric="f1", labels=("a", "b", "c")), "needs 2 classes, there are 3"),
    ],
)
def test_a_metric_the_task_has_not_is_an_error(task: Task, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        main_metric(task)


@pytest.mark.parametrize(("kind", "outputs"), [("classification", 1), ("regression", 2)])
def test_a_model_with_the_wrong_outputs_is_an_error(kind: str, outputs: int) -> None:
    with pytest.raises(ModelError, match=f"this one has {outputs}"):
        TaskMetrics(kind, outputs)  # type: ignore[arg-type]
