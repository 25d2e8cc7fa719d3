"""How well a model does a task, and how often it agrees with its teacher."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric
from torchmetrics.functional import classification, regression
from torchmetrics.utilities.data import dim_zero_cat

from configs.data import Task
from configs.errors import suggest
from distill import token_metrics
from distill.errors import DataError, ModelError
from distill.token_metrics import TokenKind
from distill.types import IGNORED

Kind = Literal["classification", "regression", "tagging", "masked_lm", "generation"]
Function = Callable[[Tensor, Tensor], Tensor]

CALIBRATION_BINS = 15


class TaskMetrics(Metric):
    """Every metric of a task over all rows of an epoch, on all ranks.

    It keeps the logits and computes at the end: a correlation or an F1 of the whole is no mean of those of batches.
    States are flat and float32, so that a rank without rows can still be gathered from; checkpoints hold them.
    """

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, kind: Literal["classification", "regression"], outputs: int) -> None:
        """Take the task's kind and the model's outputs. Raise `ModelError` where such a model cannot do the task."""
        if (outputs == 1) != (kind == "regression"):
            needed = "1 output" if kind == "regression" else "2 outputs or more"
            raise ModelError(f"task.kind: a {kind} needs a model with {needed}, this one has {outputs}")
        super().__init__()
        self.kind: Kind = kind
        self.outputs = outputs
        self.add_state("logits", default=[], dist_reduce_fx="cat", persistent=True)
        self.add_state("labels", default=[], dist_reduce_fx="cat", persistent=True)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take the logits [B V] and labels [B] of a batch."""
        self.logits.append(logits.detach().float().flatten())
        self.labels.append(labels.detach().float())  # class numbers are exact up to 2²⁴

    def compute(self) -> dict[str, float]:
        """Return the scores of all rows with a label."""
        labels = dim_zero_cat(self.labels)
        labels = labels.long() if self.kind == "classification" else labels
        return score(self.kind, dim_zero_cat(self.logits).view(-1, self.outputs), labels)


class TargetMetrics(Metric):
    """How well a model expects the target tokens of all rows."""

    full_state_update = False
    log_probs: Tensor
    hits: Tensor
    tokens: Tensor

    def __init__(self, *, of_all_ranks: bool = True) -> None:
        """Score the rows of all ranks together; or those of this one alone, whatever others do meanwhile."""
        super().__init__(sync_on_compute=of_all_ranks)
        for name in ("log_probs", "hits", "tokens"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum", persistent=True)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take the logits [B U V] and labels [B U] of a batch."""
        own, wanted = logits.detach()[labels != IGNORED].float(), labels[labels != IGNORED]
        self.log_probs -= cross_entropy(own, wanted, reduction="sum")
        self.hits += (own.argmax(-1) == wanted).sum()
        self.tokens += len(wanted)

    def compute(self) -> dict[str, float]:
        """Return `log_prob`, the mean of log p over target tokens, `perplexity` and the share of tokens that are most
        likely.
        """
        mean = float(self.log_probs / self.tokens)
        return {"log_prob": mean, "perplexity": math.exp(-mean), "token_accuracy": float(self.hits / self.tokens)}


class AnswerMetrics(TargetMetrics):
    """The same, and how often the right one of a row's answers has the highest score."""

    right: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "rows"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum", persistent=True)

    def choose(self, scores: Tensor) -> None:
        """Take the scores [B K] of answers, the right one last."""
        self.right += (scores.argmax(-1) == scores.shape[-1] - 1).sum()
        self.rows += len(scores)

    def compute(self) -> dict[str, float]:
        """Return what is told of targets, and `accuracy`."""
        return {**super().compute(), "accuracy": float(self.right / self.rows)}


def score(kind: Kind, logits: Tensor, labels: Tensor, classes: Sequence[str] = ()) -> dict[str, float]:
    """Score logits [N V] against labels [N]; rows without a label are left out. `classes` are their names; what is said
    at many positions of a row is scored by `distill.token_metrics`.

    classification: accuracy, f1_macro (over the classes that occur), mcc, ece, and f1 of class 1 where there are two.
    ece is the expected calibration error: the mean distance between confidence and accuracy over 15 bins of equal
    width, weighted by their rows (Guo et al. 2017). regression: pearson, spearman, mse. generation: accuracy of ranked
    answers, whose scores [N K] take the place of logits.

    Raises `DataError` where no row has a label.
    """
    if (tokens := _by_token(kind)) is not None:
        return token_metrics.score(tokens, logits, labels, classes)
    return {name: value(name, logits, labels) for name in names(kind, logits.shape[-1])}


def _by_token(kind: Kind) -> TokenKind | None:
    return kind if kind in ("tagging", "masked_lm") else None


def names(kind: Kind, outputs: int, classes: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the metrics of a task."""
    if (tokens := _by_token(kind)) is not None:
        return token_metrics.names(tokens, classes)
    if kind == "generation":
        return ("accuracy",)
    if kind == "regression":
        return tuple(_REGRESSION)
    return tuple(name for name in _CLASSIFICATION if name != "f1" or outputs == 2)


def value(name: str, logits: Tensor, labels: Tensor, classes: Sequence[str] = ()) -> float:
    """Return one metric of logits [N V] against labels [N], to seven digits: torchmetrics counts in fp32."""
    if labels.ndim == 2:
        return token_metrics.value(name, logits, labels, classes)
    rows = labelled(labels)
    if not rows.any():
        raise DataError("metrics: none of the rows to score on has a label")
    function = {**_CLASSIFICATION, **_REGRESSION}[name]
    return round(float(function(logits[rows].cpu().double(), labels[rows].cpu())), 7)


def labelled(labels: Tensor) -> Tensor:
    """Return which labels count: bool, same shape."""
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORED


def agreement(kind: Kind, student: Tensor, teacher: Tensor) -> dict[str, float]:
    """Compare logits [N V] of a student with its teacher's, row by row, labels or not; or word by word, or what is told
    [N 2] of hidden tokens, for which there is no KL.

    classification: the share of rows with the same argmax, and the mean KL(teacher‖student) in nats.
    regression: Pearson's correlation of the scores.
    """
    if kind == "regression":
        return {"agreement": float(_pearson(student.double(), teacher.double().flatten()))}
    if kind == "masked_lm":
        return {"agreement": float((student[:, 0] == teacher[:, 0]).double().mean())}
    told, learned = (logits.double().log_softmax(-1) for logits in (teacher, student))
    return {
        "agreement": round(float(_accuracy(student, teacher.argmax(-1))), 7),
        "agreement_kl": float(regression.kl_divergence(told, learned, log_prob=True)),
    }


def main_metric(task: Task) -> str:
    """Return the name of the number that decides.

    Raises `ModelError` where the task has no such number.
    """
    choices: Collection[str] = _CHOICES[task.kind]
    if not choices:
        raise ModelError("task.kind: a task of kind `text` has no metric")
    name = task.metric or ("accuracy" if task.ranks else _DEFAULT.get(task.kind, "accuracy"))
    if name not in choices:
        raise ModelError(f"task.metric: `{name}` is no metric of a {task.kind}{suggest(name, choices)}")
    if name == "f1" and task.labels is not None and len(task.labels) != 2:
        raise ModelError(f"task.metric: `f1` needs 2 classes, there are {len(task.labels)}; use `f1_macro`")
    return name


def validation_metric(task: Task, *, texts: bool = False) -> str:
    """Return the number, higher is better, that tells the best weights of a training: the one that decides, or of a
    generation how likely the targets are, for which nothing has to be written, and of a masked_lm the hidden tokens;
    where texts are written, their score; where answers are ranked, their accuracy.
    """
    if texts:
        return f"{main_metric(task)}_greedy"
    if task.ranks:
        return main_metric(task)
    return "log_prob" if task.kind in ("generation", "masked_lm") else main_metric(task)


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return classification.multiclass_accuracy(logits, labels, logits.shape[-1], average="micro")


def _f1(logits: Tensor, labels: Tensor) -> Tensor:
    return classification.binary_f1_score(logits.argmax(-1), labels)


def _f1_macro(logits: Tensor, labels: Tensor) -> Tensor:
    return classification.multiclass_f1_score(logits, labels, logits.shape[-1], average="macro")


def _mcc(logits: Tensor, labels: Tensor) -> Tensor:
    return classification.multiclass_matthews_corrcoef(logits, labels, logits.shape[-1])


def _ece(logits: Tensor, labels: Tensor) -> Tensor:
    return classification.multiclass_calibration_error(logits.softmax(-1), labels, logits.shape[-1], CALIBRATION_BINS)


def _pearson(scores: Tensor, labels: Tensor) -> Tensor:
    return _correlation(regression.pearson_corrcoef, scores - scores.mean(), labels)


def _spearman(scores: Tensor, labels: Tensor) -> Tensor:
    return _correlation(regression.spearman_corrcoef, scores, labels)


def _correlation(function: Function, scores: Tensor, labels: Tensor) -> Tensor:
    """A constant side goes with nothing: 0 rather than not-a-number, which no comparison would notice."""
    scores, labels = scores.flatten(), labels.double()
    if (scores == scores[0]).all() or (labels == labels[0]).all():
        return torch.zeros(())
    return function(scores, labels)


def _mse(scores: Tensor, labels: Tensor) -> Tensor:
    return regression.mean_squared_error(scores.flatten(), labels.double())


_CLASSIFICATION: dict[str, Function] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "mcc": _mcc,
    "ece": _ece,
}
_REGRESSION: dict[str, Function] = {"pearson": _pearson, "spearman": _spearman, "mse": _mse}
_DEFAULT = {"regression": "spearman", "masked_lm": "masked_accuracy", "generation": "bleu"}
_CHOICES: dict[str, Collection[str]] = {
    "classification": _CLASSIFICATION,
    "regression": _REGRESSION,
    "tagging": ("accuracy", "f1_macro", "entity_f1"),
    "masked_lm": ("masked_accuracy", "log_prob"),
    "generation": ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "accuracy"),
    "text": (),
}
